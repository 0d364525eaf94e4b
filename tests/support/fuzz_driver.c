/* SPDX-License-Identifier: BSD-2-Clause */
/* Runs a fuzz target as an ordinary test, without libFuzzer: each file of the corpus as it is, then
 * changed at random a number of times.
 * Usage: target FOLDER. An empty corpus is a failure. VMEM_FUZZ_CHANGES: changes a file, else 64. */
#include "support/rng.h"
#include <dirent.h>
#include <limits.h>
#include <string.h>

#define MAX_BYTES 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* The target gets a block of its own, so that a sanitizer sees each read past the end. */
static void run(const uint8_t *data, size_t bytes)
{
	uint8_t *copy = malloc(bytes ? bytes : 1);

	if (!copy) {
		perror("malloc");
		exit(1);
	}
	memcpy(copy, data, bytes);
	LLVMFuzzerTestOneInput(copy, bytes);
	free(copy);
}

static size_t change(uint8_t *data, size_t bytes, uint64_t *rng)
{
	for (uint64_t n = 1 + vmemt_rand(rng) % 4; n; n--) {
		size_t at = bytes ? vmemt_rand(rng) % bytes : 0;
		uint64_t how = vmemt_rand(rng) % 4;

		if (how == 0 && bytes)
			data[at] ^= (uint8_t)(1u << vmemt_rand(rng) % 8);
		else if (how == 1 && bytes)
			data[at] = (uint8_t)vmemt_rand(rng);
		else if (how == 2)
			bytes = at;
		else if (bytes < MAX_BYTES)
			data[bytes++] = (uint8_t)vmemt_rand(rng);
	}
	return bytes;
}

/* Returns the number of bytes, at most MAX_BYTES. */
static size_t read_file(const char *folder, const char *name, uint8_t *data)
{
	char path[PATH_MAX];
	FILE *file;
	size_t bytes;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	file = fopen(path, "rb");
	if (!file) {
		perror(path);
		exit(1);
	}
	bytes = fread(data, 1, MAX_BYTES, file);
	fclose(file);
	return bytes;
}

int main(int argc, char **argv)
{
	static uint8_t original[MAX_BYTES], changed[MAX_BYTES];
	const char *wanted = getenv("VMEM_FUZZ_CHANGES");
	long changes = wanted ? atol(wanted) : 64, files = 0;
	uint64_t rng = vmemt_seed(argv[0]);
	struct dirent *entry;
	DIR *folder;

	if (argc != 2) {
		fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
		return 1;
	}
	folder = opendir(argv[1]);
	if (!folder) {
		perror(argv[1]);
		return 1;
	}
	while ((entry = readdir(folder))) {
		size_t bytes;

		if (entry->d_name[0] == '.')
			continue;
		bytes = read_file(argv[1], entry->d_name, original);
		run(original, bytes);
		for (long i = 0; i < changes; i++) {
			memcpy(changed, original, bytes);
			run(changed, change(changed, bytes, &rng));
		}
		files++;
	}
	closedir(folder);
	printf("%ld files, each changed %ld times\n", files, changes);
	return files ? 0 : 1;
}
