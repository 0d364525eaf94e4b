/* SPDX-License-Identifier: BSD-2-Clause */
/* See the header. What a path leads to is looked at before it is opened, for the sake of the words; who changes it
 * in between gets words that fit less well, and nothing worse. */
#define _GNU_SOURCE
#include "common/swap_open.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <vmem/common.h>
#include <vmem/device_file.h>
#ifdef SWAP_CRYPTO
#include <vmem/crypto.h>
#endif
#ifdef SWAP_NBD
#include <vmem/nbd.h>
#endif

#include "common/units.h"

#define PAGE 4096u
#define NBD_TIMEOUT_MS 10000u /* a guest waits no longer for an answer */

/* A path, taken apart and looked at. */
struct place {
	char path[PATH_MAX];
	uint64_t bytes; /* 0: not given */
	bool exists;
	int error;      /* if it does not: errno */
	struct stat st; /* if it does */
	int made;       /* a file there, by us; -1: none */
};

static int say(struct swap_words *words, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static int say(struct swap_words *words, int error, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(words->text, sizeof(words->text), format, arguments);
	va_end(arguments);
	return error;
}

static bool is_uri(const char *text)
{
	return strncmp(text, "nbd", 3) == 0 && strstr(text, "://");
}

static void look(struct place *p)
{
	p->exists = stat(p->path, &p->st) == 0;
	p->error = p->exists ? 0 : errno;
}

/* What comes before a colon is a path only if what comes after it is meant as a size. */
static bool has_size(const struct place *p, const char *colon)
{
	char path[PATH_MAX];
	size_t length;
	struct stat st;
	uint64_t bytes;

	if (p->exists || !colon || !isdigit((unsigned char)colon[1]))
		return false;
	length = (size_t)(colon - p->path);
	memcpy(path, p->path, length);
	path[length] = '\0';
	return length > 0 && (units_parse_bytes(colon + 1, &bytes) == 0 || stat(path, &st) == 0);
}

static int take_apart(struct place *p, const char *text, struct swap_words *words)
{
	size_t length = strlen(text);
	char *colon;

	*p = (struct place){ .made = -1 };
	if (length == 0 || length >= sizeof(p->path))
		return say(words, -VMEM_EINVAL, "It is no path.");
	memcpy(p->path, text, length + 1);
	look(p);
	colon = strrchr(p->path, ':');
	if (has_size(p, colon)) {
		if (units_parse_bytes(colon + 1, &p->bytes) != 0 || p->bytes < SWAP_LEAST_BYTES ||
		    p->bytes % PAGE)
			return say(words, -VMEM_EINVAL,
				   "%s is no size for it: give whole pages of 4K, at least %s.",
				   colon + 1, UNITS_BYTES(SWAP_LEAST_BYTES));
		*colon = '\0';
		look(p);
	}
	return 0;
}

/* What can be known without opening it. */
static int look_at(const struct place *p, struct swap_words *words)
{
	if (p->exists && S_ISDIR(p->st.st_mode) && !p->bytes)
		return say(
			words, -VMEM_EINVAL,
			"It is a folder: give the size of the file that is to be there, as in %s:4G.",
			p->path);
	if (!p->exists && p->error != ENOENT)
		return say(words, -VMEM_EINVAL, "%s: %s.", p->path, strerror(p->error));
	if (!p->exists && !p->bytes)
		return say(words, -VMEM_EINVAL,
			   "It does not exist. To have a file made, give its size, as in %s:4G.",
			   p->path);
	if (p->exists && S_ISREG(p->st.st_mode) && p->st.st_size > 0 &&
	    p->bytes > (uint64_t)p->st.st_size)
		return say(words, -VMEM_EINVAL,
			   "The file has %s, which is less than %s. Give no size, or remove it.",
			   UNITS_BYTES((uint64_t)p->st.st_size), UNITS_BYTES(p->bytes));
	return 0;
}

/* A file gets its space when it is written: better now than then to say that there is not enough. */
static int check_space(const struct place *p, uint64_t bytes, struct swap_words *words)
{
	bool is_file = !p->exists || S_ISREG(p->st.st_mode);
	uint64_t has = p->exists && is_file ? (uint64_t)p->st.st_blocks * 512 : 0;
	struct statvfs fs;
	uint64_t left;

	if ((p->exists && S_ISBLK(p->st.st_mode)) || statvfs(p->path, &fs) != 0)
		return 0;
	left = (geteuid() == 0 ? fs.f_bfree : fs.f_bavail) * (uint64_t)fs.f_frsize;
	if (has >= bytes || bytes - has <= left)
		return 0;
	return say(words, -VMEM_EINVAL, "No space: it needs %s more, and %s are left there.",
		   UNITS_BYTES(bytes - has), UNITS_BYTES(left));
}

static int explain_file(const struct place *p, int error, struct swap_words *words)
{
	bool is_block = p->exists && S_ISBLK(p->st.st_mode);

	switch (error) {
	case -VMEM_ENOENT:
		return say(words, -VMEM_EINVAL,
			   "It cannot be made: the folder where it should be does not exist.");
	case -VMEM_EPERM:
		return say(words, -VMEM_EINVAL, "No permission to %s (or it can only be read).",
			   !p->exists               ? "make a file there"
			   : S_ISDIR(p->st.st_mode) ? "make a file in this folder"
						    : "read and write it");
	case -VMEM_EBUSY:
		return say(words, -VMEM_EINVAL, "%s",
			   is_block ? "The block device is in use: it is mounted, or another "
				      "process or the kernel has it."
				    : "Another process has it as its swap device.");
	case -VMEM_ERANGE:
		return say(words, -VMEM_EINVAL, "The block device has less than %s.",
			   UNITS_BYTES(p->bytes));
	case -VMEM_ENOSPC:
		return say(words, -VMEM_EINVAL, "No space for %s.", UNITS_BYTES(p->bytes));
	case -VMEM_EINVAL:
		return say(words, -VMEM_EINVAL, "The file is empty: give its size, as in %s:4G.",
			   p->path);
	case -VMEM_ENOTSUP:
	case -VMEM_ENODEV:
		return say(
			words, -VMEM_EINVAL,
			"It is neither a folder, a file, nor a block device with blocks of at most 4 KiB.");
	default: return say(words, error, "It cannot be opened: %s.", vmem_strerror(error));
	}
}

/* Before Linux 6.6 such a device is one by the page cache, too. */
static void tell_of_memory(const struct place *p, const struct vmem_device *device,
			   struct swap_words *words)
{
	struct statfs fs;

	if (!(p->exists && S_ISBLK(p->st.st_mode)) && statfs(p->path, &fs) == 0 &&
	    fs.f_type == TMPFS_MAGIC)
		say(words, 0, "It lies in memory (tmpfs), which no budget counts.");
	else if (device->flags & VMEM_DEVICE_CACHED)
		say(words, 0, "It goes by the kernel's page cache, which no budget counts.");
}

/* What anybody can read afterwards is enciphered, unless that was asked for. */
#ifdef SWAP_CRYPTO
static int check_cipher(const struct swap_open_opts *opts, struct swap_words *words)
{
	(void)opts;
	(void)words;
	return 0;
}

static int encipher(struct vmem_device **device, const struct swap_open_opts *opts,
		    struct swap_words *words)
{
	struct vmem_crypto_opts o = { .size = sizeof(o), .allocator = opts->allocator };
	int error = vmem_crypto_open(device, *device, &o);

	if (!error)
		return 0;
	return say(words, error, "It cannot be enciphered: %s.", vmem_strerror(error));
}
#else
static int check_cipher(const struct swap_open_opts *opts, struct swap_words *words)
{
	if (opts->plain)
		return 0;
	return say(words, -VMEM_EINVAL,
		   "What is written there outlives this process, and it was built without "
		   "libvmem-crypto: install libssl-dev, configure with -DVMEM_CRYPTO=ON, and build "
		   "it again; or say that plain text is fine.");
}

static int encipher(struct vmem_device **device, const struct swap_open_opts *opts,
		    struct swap_words *words)
{
	(void)device;
	return check_cipher(opts, words);
}
#endif

/* Not where a link leads to, nor what somebody else makes at the same time: whoever opens it sees to that. */
static void make_file(struct place *p)
{
	p->made = open(p->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOCTTY, 0600);
}

/* With @remove the file is as if it had never been, unless another process has it as its device meanwhile, or the path
 * leads to something else. */
static void end_making(struct place *p, bool remove)
{
	struct stat ours, there;

	if (p->made < 0)
		return;
	if (remove && (flock(p->made, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) &&
	    fstat(p->made, &ours) == 0 && lstat(p->path, &there) == 0 &&
	    ours.st_dev == there.st_dev && ours.st_ino == there.st_ino)
		unlink(p->path);
	close(p->made);
	p->made = -1;
}

/* An error may leave a device and a file that was made: both are the caller's to end. */
static int open_path(struct vmem_device **ret_device, const struct swap_open_opts *opts,
		     struct place *place, struct swap_words *words)
{
	struct vmem_device_file_opts o = {
		.size = sizeof(o),
		.allocator = opts->allocator,
	};
	int error = take_apart(place, opts->text, words);

	if (!error)
		error = look_at(place, words);
	if (!error && !place->exists)
		error = check_cipher(opts, words);
	if (error)
		return error;
	if (!place->exists)
		make_file(place);
	o.size_bytes = place->bytes;
	o.flags = place->bytes ? VMEM_DEVICE_FILE_CREATE : 0;
	error = vmem_device_file_open(ret_device, place->path, &o);
	if (error)
		return explain_file(place, error, words);
	error = check_space(place, (*ret_device)->size_bytes, words);
	if (!error)
		tell_of_memory(place, *ret_device, words);
	return error;
}

#ifdef SWAP_NBD
static int open_server(struct vmem_device **ret_device, const struct swap_open_opts *opts,
		       struct swap_words *words)
{
	struct vmem_nbd_opts o = {
		.size = sizeof(o),
		.timeout_ms = NBD_TIMEOUT_MS,
		.allocator = opts->allocator,
	};
	int error = vmem_nbd_open(ret_device, opts->text, &o);

	switch (error) {
	case 0: return 0;
	case -VMEM_EINVAL:
		return say(words, -VMEM_EINVAL,
			   "It is no NBD URI. Such are nbd://host/export and "
			   "nbd+unix:///export?socket=/path.");
	case -VMEM_ENODEV:
		return say(words, -VMEM_EINVAL,
			   "No connection to an NBD server: does it run, and listen there, and "
			   "have this export?");
	case -VMEM_EPERM: return say(words, -VMEM_EINVAL, "The NBD server lets it only be read.");
	case -VMEM_ENOTSUP:
		return say(words, -VMEM_EINVAL,
			   "The NBD server has blocks of more than 4 KiB, or takes less than "
			   "1 MiB at once.");
	default:
		return say(words, error, "The NBD server cannot be used: %s.",
			   vmem_strerror(error));
	}
}
#else
static int open_server(struct vmem_device **ret_device, const struct swap_open_opts *opts,
		       struct swap_words *words)
{
	(void)ret_device;
	(void)opts;
	return say(words, -VMEM_EINVAL,
		   "This program was built without libvmem-nbd: install libnbd-dev, configure with "
		   "-DVMEM_NBD=ON, and build it again.");
}
#endif

int swap_open(struct vmem_device **ret_device, const struct swap_open_opts *opts,
	      struct swap_words *words)
{
	struct vmem_device *device = NULL;
	struct place place = { .made = -1 };
	int error;

	words->text[0] = '\0';
	error = is_uri(opts->text) ? open_server(&device, opts, words)
				   : open_path(&device, opts, &place, words);
	if (!error && device->size_bytes < SWAP_LEAST_BYTES)
		error = say(words, -VMEM_EINVAL, "It is too small: %s; give at least %s.",
			    UNITS_BYTES(device->size_bytes), UNITS_BYTES(SWAP_LEAST_BYTES));
	else if (!error && device->flags & VMEM_DEVICE_OUTLIVES && !opts->plain)
		error = encipher(&device, opts, words);
	if (error)
		vmem_device_close(device);
	else
		*ret_device = device;
	end_making(&place, error != 0);
	return error;
}

const char *swap_secrecy(const struct vmem_device *device)
{
	if (device->flags & VMEM_DEVICE_ENCRYPTED)
		return "enciphered";
	return device->flags & VMEM_DEVICE_OUTLIVES ? "plain text" : "gone with this process";
}
