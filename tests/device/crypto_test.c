/* SPDX-License-Identifier: BSD-2-Clause */
/* Devices that encipher: the suite over them, what is on the medium, and what is left of the key. The random numbers
 * of which keys are made are this program's. */
#define _GNU_SOURCE
#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vmem/crypto.h>
#include <vmem/device_file.h>
#include "device/device_suite.h"
#include "support/fail_alloc.h"

#define BLOCK 4096ul
#define MIB (UINT64_C(1) << 20)
#define KEY 64
#define HALF (KEY / 2)

static unsigned char masked[KEY]; /* the last key, so that looking for it does not find this */
static int no_random;
static unsigned keys;

int RAND_priv_bytes(unsigned char *bytes, int count);

/* libvmem-crypto's come from here. */
int RAND_priv_bytes(unsigned char *bytes, int count)
{
	assert(count == KEY);
	if (no_random)
		return 0;
	keys++;
	for (int i = 0; i < KEY; i++) {
		masked[i] = (unsigned char)(17 * i + 29 * (int)keys + i / HALF);
		bytes[i] = masked[i] ^ 0x5a;
	}
	return 1;
}

static int new_file(uint64_t bytes)
{
	int fd = memfd_create("device", MFD_CLOEXEC);

	assert(fd >= 0 && !ftruncate(fd, (off_t)bytes));
	return fd;
}

static struct vmem_device *adopt(int fd, uint64_t flags)
{
	struct vmem_device_file_opts o = { .size = sizeof(o),
					   .depth = VMEMT_DEVICE_DEPTH,
					   .flags = flags };
	struct vmem_device *d = NULL;

	assert(!vmem_device_file_adopt(&d, fd, &o));
	return d;
}

static struct vmem_device *encrypt(struct vmem_device *inner)
{
	struct vmem_device *d = NULL;

	assert(!vmem_crypto_open(&d, inner, NULL));
	return d;
}

static struct vmem_device *open_over(void *context)
{
	int fd = new_file(VMEMT_DEVICE_BYTES);
	struct vmem_device *d = encrypt(adopt(fd, *(uint64_t *)context));

	close(fd);
	return d;
}

static void conform(void)
{
	uint64_t flags[] = { 0, VMEM_DEVICE_FILE_THREADS };

	for (size_t i = 0; i < 2; i++) {
		struct vmemt_device_kind kind = { i ? "over threads" : "over a file", open_over,
						  &flags[i] };

		assert(vmemt_device_conforms(&kind));
	}
}

/* What IEEE 1619 says, by another way through libcrypto. */
static void expected(uint64_t unit, const unsigned char *plain, unsigned char *cipher)
{
	EVP_CIPHER_CTX *x = EVP_CIPHER_CTX_new();
	unsigned char key[KEY], tweak[16] = { 0 };
	int n;

	for (int i = 0; i < KEY; i++)
		key[i] = masked[i] ^ 0x5a;
	memcpy(tweak, &unit, sizeof(unit)); /* least significant first, as this machine */
	assert(x && EVP_EncryptInit_ex(x, EVP_aes_256_xts(), NULL, key, tweak) == 1);
	assert(EVP_EncryptUpdate(x, cipher, &n, plain, (int)BLOCK) == 1 && n == (int)BLOCK);
	EVP_CIPHER_CTX_free(x);
	memset(key, 0, sizeof(key));
	__asm__ volatile("" ::"r"(key) : "memory");
}

static void the_medium_has_ciphertext(void)
{
	unsigned char *data = vmemt_device_buffer(3 * BLOCK), *raw = vmemt_device_buffer(BLOCK);
	unsigned char *want = vmemt_device_buffer(BLOCK);
	int fd = new_file(MIB);
	struct vmem_device *d = encrypt(adopt(fd, 0));

	assert(d->flags & VMEM_DEVICE_ENCRYPTED && !(d->flags & VMEM_DEVICE_MAPPED));
	for (uint64_t i = 0; i < 3; i++)
		vmemt_device_fill(data + i * BLOCK, BLOCK, 1);
	assert(!vmemt_device_do(d, VMEM_DEVICE_WRITE, 5 * BLOCK, data, 3 * BLOCK));
	for (uint64_t i = 0; i < 3; i++) {
		/* The caller's data is as it was. */
		assert(vmemt_device_is_filled(data + i * BLOCK, BLOCK, 1));
		expected(5 + i, data, want);
		assert(pread(fd, raw, BLOCK, (off_t)((5 + i) * BLOCK)) == (ssize_t)BLOCK);
		assert(!memcmp(raw, want, BLOCK));
	}
	/* What somebody has changed comes as other bytes, in the block that he changed. */
	assert(pwrite(fd, "x", 1, (off_t)(6 * BLOCK + 100)) == 1);
	assert(!vmemt_device_do(d, VMEM_DEVICE_READ, 5 * BLOCK, data, 3 * BLOCK));
	assert(vmemt_device_is_filled(data, BLOCK, 1));
	assert(!vmemt_device_is_filled(data + BLOCK, BLOCK, 1));
	assert(vmemt_device_is_filled(data + 2 * BLOCK, BLOCK, 1));
	vmem_device_close(d);
	close(fd);
	free(want);
	free(raw);
	free(data);
}

/* Whether half of the key begins somewhere in the memory that this process can write. */
static bool key_is_in_memory(void)
{
	char line[512];
	FILE *maps = fopen("/proc/self/maps", "r");
	int mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	size_t piece = MIB;
	unsigned char *copy =
		mmap(NULL, piece, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool found = false;

	assert(maps && mem >= 0 && copy != MAP_FAILED);
	while (!found && fgets(line, sizeof(line), maps)) {
		uint64_t from, to;

		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " rw-p", &from, &to) != 2 ||
		    !strstr(line, "[heap]"))
			continue;
		for (; from < to && !found; from += piece - HALF) {
			size_t bytes = to - from < piece ? (size_t)(to - from) : piece;
			ssize_t n = pread(mem, copy, bytes, (off_t)from);

			for (ssize_t at = 0; at + HALF <= n && !found; at++) {
				int i = 0;

				while (i < HALF && (copy[at + i] ^ 0x5a) == masked[i])
					i++;
				found = i == HALF;
			}
			memset(copy, 0, piece);
			if (bytes < piece)
				break;
		}
	}
	munmap(copy, piece);
	close(mem);
	fclose(maps);
	return found;
}

static void the_key_is_wiped(void)
{
	int fd = new_file(MIB);
	struct vmem_device *d = encrypt(adopt(fd, 0));
	bool was_there = key_is_in_memory();

	vmem_device_close(d);
	close(fd);
	assert(!key_is_in_memory());
	/* Elsewhere it may be kept in another form, or another place, where this does not see it. */
	printf("the key was %s while the device was open\n", was_there ? "found" : "not found");
}

static void errors_come_through(void)
{
	unsigned char *data = vmemt_device_buffer(BLOCK);
	int fd = new_file(MIB);
	struct vmem_device *d = encrypt(adopt(fd, 0));

	assert(!ftruncate(fd, (off_t)(8 * BLOCK)));
	assert(vmemt_device_do(d, VMEM_DEVICE_READ, 8 * BLOCK, data, BLOCK) == -VMEM_EIO);
	assert(!vmemt_device_do(d, VMEM_DEVICE_WRITE, 7 * BLOCK, data, BLOCK));
	vmem_device_close(d);
	close(fd);
	free(data);
}

static void the_buffer_has_an_end(void)
{
	struct vmem_crypto_opts o = { .size = sizeof(o), .buffer_bytes = 2 * MIB };
	unsigned char *data = vmemt_device_buffer(MIB);
	struct vmem_device_request r[3];
	struct vmem_device_completion c;
	int fd = new_file(4 * MIB);
	struct vmem_device *d = NULL;

	assert(!vmem_crypto_open(&d, adopt(fd, 0), &o));
	assert(d->max_bytes == MIB && !vmem_device_check(d));
	for (uint64_t i = 0; i < 3; i++)
		r[i] = (struct vmem_device_request){ .op = VMEM_DEVICE_WRITE,
						     .offset = i * MIB,
						     .bytes = MIB,
						     .data = data,
						     .tag = i };
	for (int i = 0; i < 3; i++) {
		assert(d->ops->submit(d->context, r, 3) == 2);
		assert(d->ops->submit(d->context, r, 1) == 0);
		/* Reads need none of it. */
		r[2].op = VMEM_DEVICE_READ;
		assert(d->ops->submit(d->context, r + 2, 1) == 1);
		r[2].op = VMEM_DEVICE_WRITE;
		for (int n = 0; n < 3; n++)
			assert(vmemt_device_await(d, &c, 1) == 1 && !c.error);
	}
	vmem_device_close(d);
	close(fd);
	free(data);
}

static void refuses(void)
{
	struct vmem_crypto_opts o = { .size = sizeof(o), .flags = 1 };
	unsigned char *data = vmemt_device_buffer(BLOCK);
	int fd = new_file(MIB);
	struct vmem_device *inner = adopt(fd, 0), *d = NULL;
	struct vmemt_fail_alloc a;

	assert(vmem_crypto_open(&d, NULL, NULL) == -VMEM_EINVAL);
	assert(vmem_crypto_open(&d, inner, &o) == -VMEM_EINVAL);
	o.flags = 0;
	o.buffer_bytes = MIB;
	assert(vmem_crypto_open(&d, inner, &o) == -VMEM_EINVAL);
	o.buffer_bytes = 2 * MIB;
	o.allocator = &a.allocator;
	for (long n = 0;; n++) {
		int error;

		vmemt_fail_alloc_init(&a);
		a.fail_after = n;
		error = vmem_crypto_open(&d, inner, &o);
		if (!a.failed) {
			assert(!error);
			break;
		}
		assert(error == -VMEM_ENOMEM && !d && !a.live_bytes);
	}
	vmem_device_close(d);
	assert(!a.live_bytes);
	/* What failed has left the device below as it was. */
	inner = adopt(fd, 0);
	no_random = 1;
	d = NULL;
	assert(vmem_crypto_open(&d, inner, NULL) == -VMEM_EIO && !d);
	no_random = 0;
	assert(!vmemt_device_do(inner, VMEM_DEVICE_WRITE, 0, data, BLOCK));
	vmem_device_close(inner);
	close(fd);
	free(data);
}

int main(void)
{
	refuses();
	the_medium_has_ciphertext();
	the_key_is_wiped();
	errors_come_through();
	the_buffer_has_an_end();
	conform();
	assert(keys > 1);
	return 0;
}
