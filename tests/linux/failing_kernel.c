/* SPDX-License-Identifier: BSD-2-Clause */
/* See failing_kernel.h. */
#include "linux/failing_kernel.h"
#include <assert.h>
#include <pthread.h>
#include <string.h>
#include "linux/kernel/uffd_abi.h"

#define MAPPINGS 1024

struct vmemt_failing_kernel vmemt_kernel;

static const struct vmemi_kernel *real = &vmemi_kernel_linux;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
	void *memory;
	size_t bytes;
} mapping[MAPPINGS]; /* lock */

void vmemt_kernel_reset(void)
{
	memset(&vmemt_kernel, 0, sizeof(vmemt_kernel));
	vmemt_kernel.fail_after = -1;
	pthread_mutex_lock(&lock);
	memset(mapping, 0, sizeof(mapping));
	pthread_mutex_unlock(&lock);
}

const char *vmemt_call_name(enum vmemt_call call)
{
	static const char *const name[VMEMT_K_CALLS] = {
		"open",
		"read",
		"read without waiting",
		"pread",
		"write",
		"pwrite",
		"lseek",
		"fstat",
		"fcntl",
		"memfd_create",
		"ftruncate",
		"fallocate",
		"poll",
		"eventfd",
		"epoll",
		"epoll_ctl",
		"userfaultfd",
		"mmap",
		"mmap over what is there",
		"mmap of a file",
		"mprotect",
		"madvise",
		"MADV_COLLAPSE",
		"process_madvise",
		"futex_wait",
		"UFFD_NEW",
		"UFFDIO_API",
		"UFFDIO_REGISTER",
		"UFFDIO_UNREGISTER",
		"UFFDIO_WAKE",
		"UFFDIO_COPY",
		"UFFDIO_ZEROPAGE",
		"UFFDIO_MOVE",
		"UFFDIO_WRITEPROTECT",
		"UFFDIO_POISON",
		"UFFDIO_CONTINUE",
		"PAGEMAP_SCAN",
	};

	return name[call];
}

/* 0, or the error that this call gets. */
static int refuse(enum vmemt_call call)
{
	struct vmemt_failing_kernel *k = &vmemt_kernel;
	long nth = atomic_fetch_add(&k->calls[call], 1);

	if (k->at_call)
		k->at_call(call);
	if (k->fail_after < 0 || k->fail != call || nth != k->fail_after)
		return 0;
	atomic_fetch_add(&k->failed, 1);
	return k->error;
}

static int f_open(const char *path, int flags)
{
	int error = refuse(VMEMT_K_OPEN);

	if (vmemt_kernel.only_user_mode && !strcmp(path, "/dev/userfaultfd"))
		error = -13; /* EACCES */
	return error ? error : real->open(path, flags);
}

static int f_close(int fd)
{
	return real->close(fd);
}

static ssize_t f_read(int fd, void *buffer, size_t bytes)
{
	int error = refuse(VMEMT_K_READ);

	return error ? error : real->read(fd, buffer, bytes);
}

static ssize_t f_read_now(int fd, void *buffer, size_t bytes)
{
	int error = refuse(VMEMT_K_READ_NOW);
	ssize_t r = error ? error : real->read_now(fd, buffer, bytes);

	if (r > 0)
		atomic_fetch_add(&vmemt_kernel.peer_reads, 1);
	return r;
}

static ssize_t f_pread(int fd, void *buffer, size_t bytes, off_t offset)
{
	int error = refuse(VMEMT_K_PREAD);

	return error ? error : real->pread(fd, buffer, bytes, offset);
}

static ssize_t f_write(int fd, const void *buffer, size_t bytes)
{
	int error = refuse(VMEMT_K_WRITE);
	ssize_t written = real->write(fd, buffer, bytes);

	/* An eventfd says EAGAIN only when it is full: whoever polls it is woken all the same, and so no kick
	 * is repeated. */
	return error ? error : written;
}

static ssize_t f_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
	int error = refuse(VMEMT_K_PWRITE);

	return error ? error : real->pwrite(fd, buffer, bytes, offset);
}

static off_t f_lseek(int fd, off_t offset, int whence)
{
	int error = refuse(VMEMT_K_LSEEK);

	return error ? error : real->lseek(fd, offset, whence);
}

static int f_fstat(int fd, struct stat *ret_stat)
{
	int error = refuse(VMEMT_K_FSTAT);

	return error ? error : real->fstat(fd, ret_stat);
}

static int f_fcntl(int fd, int command, int argument)
{
	int error = refuse(VMEMT_K_FCNTL);

	return error ? error : real->fcntl(fd, command, argument);
}

static int f_memfd(const char *name, unsigned flags)
{
	int error = refuse(VMEMT_K_MEMFD);

	return error ? error : real->memfd(name, flags);
}

static int f_ftruncate(int fd, off_t bytes)
{
	int error = refuse(VMEMT_K_FTRUNCATE);

	return error ? error : real->ftruncate(fd, bytes);
}

static int f_fallocate(int fd, int mode, off_t offset, off_t bytes)
{
	int error = refuse(VMEMT_K_FALLOCATE);

	return error ? error : real->fallocate(fd, mode, offset, bytes);
}

static int f_poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
	int error = refuse(VMEMT_K_POLL);

	return error ? error : real->poll(fds, count, timeout_ms);
}

static int f_eventfd(unsigned initial, int flags)
{
	int error = refuse(VMEMT_K_EVENTFD);

	return error ? error : real->eventfd(initial, flags);
}

static int f_epoll(const int *fds, size_t count)
{
	int error = refuse(VMEMT_K_EPOLL);

	return error ? error : real->epoll(fds, count);
}

static int f_epoll_watch(int epoll, int fd, int watch)
{
	int error = refuse(VMEMT_K_EPOLL_WATCH);

	return error ? error : real->epoll_watch(epoll, fd, watch);
}

static int f_userfaultfd(int flags)
{
	int error = refuse(VMEMT_K_USERFAULTFD);

	if (vmemt_kernel.only_user_mode && !(flags & UFFD_USER_MODE_ONLY))
		error = -VMEM_EPERM;
	return error ? error : real->userfaultfd(flags);
}

static enum vmemt_call call_of(unsigned long request)
{
	switch (request) {
	case USERFAULTFD_IOC_NEW: return VMEMT_K_NEW;
	case UFFDIO_API: return VMEMT_K_API;
	case UFFDIO_REGISTER: return VMEMT_K_REGISTER;
	case UFFDIO_UNREGISTER: return VMEMT_K_UNREGISTER;
	case UFFDIO_WAKE: return VMEMT_K_WAKE;
	case UFFDIO_COPY: return VMEMT_K_COPY;
	case UFFDIO_ZEROPAGE: return VMEMT_K_ZEROPAGE;
	case VMEMI_UFFDIO_MOVE: return VMEMT_K_MOVE;
	case UFFDIO_WRITEPROTECT: return VMEMT_K_PROTECT;
	case VMEMI_UFFDIO_POISON: return VMEMT_K_POISON;
	case VMEMI_UFFDIO_CONTINUE: return VMEMT_K_CONTINUE;
	case VMEMI_PAGEMAP_SCAN: return VMEMT_K_SCAN;
	default: assert(request == VMEMI_UFFDIO_POISON); return VMEMT_K_CALLS;
	}
}

/* An older kernel refuses features that it does not know, and tells those that it does. */
static int handshake(int fd, struct uffdio_api *api)
{
	int r;

	if (api->features & vmemt_kernel.hide)
		return -VMEM_EINVAL;
	r = real->ioctl(fd, UFFDIO_API, api);
	api->features &= ~vmemt_kernel.hide;
	return r;
}

/* And has no operations that come with them. */
static bool is_hidden(enum vmemt_call call, const void *argument)
{
	uint64_t hide = vmemt_kernel.hide;

	switch (call) {
	case VMEMT_K_MOVE: return hide & VMEMI_UFFD_FEATURE_MOVE;
	case VMEMT_K_POISON: return hide & VMEMI_UFFD_FEATURE_POISON;
	case VMEMT_K_SCAN: return vmemt_kernel.hide_scan;
	case VMEMT_K_PROTECT: return hide & VMEMI_UFFD_FEATURE_WP;
	case VMEMT_K_REGISTER:
		return (hide & VMEMI_UFFD_FEATURE_WP) &&
		       (((const struct uffdio_register *)argument)->mode & UFFDIO_REGISTER_MODE_WP);
	case VMEMT_K_COPY:
		return (hide & VMEMI_UFFD_FEATURE_WP) &&
		       (((const struct uffdio_copy *)argument)->mode & UFFDIO_COPY_MODE_WP);
	default: return false;
	}
}

static int f_ioctl(int fd, unsigned long request, void *argument)
{
	enum vmemt_call call = call_of(request);
	int result = refuse(call);

	if (result)
		return result;
	if (is_hidden(call, argument))
		return -VMEM_EINVAL;
	if (vmemt_kernel.before && vmemt_kernel.before(call, argument, fd, &result))
		return result;
	if (call == VMEMT_K_API)
		return handshake(fd, argument);
	result = real->ioctl(fd, request, argument);
	if (call == VMEMT_K_REGISTER && (vmemt_kernel.hide & VMEMI_UFFD_FEATURE_MOVE))
		((struct uffdio_register *)argument)->ioctls &= ~(UINT64_C(1) << 5);
	return result;
}

static void book(void *memory, size_t bytes)
{
	unsigned i = 0;

	pthread_mutex_lock(&lock);
	while (i < MAPPINGS && mapping[i].memory)
		i++;
	assert(i < MAPPINGS);
	mapping[i].memory = memory;
	mapping[i].bytes = bytes;
	pthread_mutex_unlock(&lock);
	atomic_fetch_add(&vmemt_kernel.mapped_bytes, (long)bytes);
}

static void unbook(const void *memory, size_t bytes)
{
	pthread_mutex_lock(&lock);
	for (unsigned i = 0; i < MAPPINGS; i++)
		if (mapping[i].memory == memory) {
			assert(mapping[i].bytes == bytes);
			mapping[i].memory = NULL;
			atomic_fetch_sub(&vmemt_kernel.mapped_bytes, (long)bytes);
			break;
		}
	pthread_mutex_unlock(&lock);
}

static int f_mmap(void **ret_memory, size_t bytes, int protection, int flags)
{
	int error = refuse(VMEMT_K_MMAP);

	if (!error)
		error = real->mmap(ret_memory, bytes, protection, flags);
	if (!error)
		book(*ret_memory, bytes);
	return error;
}

static int f_map_over(void *memory, size_t bytes, int protection, int flags)
{
	int error = refuse(VMEMT_K_MAP_OVER);

	return error ? error : real->map_over(memory, bytes, protection, flags);
}

static int f_map_file(void **ret_memory, size_t bytes, int protection, int fd, off_t offset)
{
	int error = refuse(VMEMT_K_MAP_FILE);

	if (!error)
		error = real->map_file(ret_memory, bytes, protection, fd, offset);
	if (!error)
		book(*ret_memory, bytes);
	return error;
}

static long f_fs_type(int fd)
{
	return real->fs_type(fd);
}

static int f_munmap(void *memory, size_t bytes)
{
	unbook(memory, bytes);
	return real->munmap(memory, bytes);
}

static int f_mprotect(void *memory, size_t bytes, int protection)
{
	int error = refuse(VMEMT_K_MPROTECT);

	return error ? error : real->mprotect(memory, bytes, protection);
}

static int f_madvise(void *memory, size_t bytes, int advice)
{
	bool collapse = advice == 25; /* MADV_COLLAPSE, which older headers do not have */
	int error = refuse(collapse ? VMEMT_K_COLLAPSE : VMEMT_K_MADVISE);

	if (collapse && vmemt_kernel.hide_collapse)
		return -VMEM_EINVAL;
	return error ? error : real->madvise(memory, bytes, advice);
}

static ssize_t f_madvise_vector(const struct iovec *ranges, size_t count, int advice)
{
	int error = refuse(VMEMT_K_MADVISE_VECTOR);

	if (vmemt_kernel.hide_vector)
		error = -VMEM_EINVAL;
	return error ? error : real->madvise_vector(ranges, count, advice);
}

static int f_futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t timeout_ns)
{
	int error = refuse(VMEMT_K_FUTEX_WAIT);

	return error ? error : real->futex_wait(word, expected, timeout_ns);
}

static int f_futex_wake(_Atomic uint32_t *word, int waiters)
{
	return real->futex_wake(word, waiters);
}

static long f_processors(void)
{
	return real->processors();
}

static int f_time_slice(uint64_t ns)
{
	return real->time_slice(ns);
}

static long f_page_size(void)
{
	return real->page_size();
}

static uint64_t f_clock_ns(void)
{
	return real->clock_ns();
}

static uint64_t f_cpu_clock_ns(void)
{
	return real->cpu_clock_ns();
}

const struct vmemi_kernel vmemt_kernel_table = {
	.open = f_open,
	.close = f_close,
	.read = f_read,
	.read_now = f_read_now,
	.pread = f_pread,
	.write = f_write,
	.pwrite = f_pwrite,
	.lseek = f_lseek,
	.fstat = f_fstat,
	.fcntl = f_fcntl,
	.memfd = f_memfd,
	.ftruncate = f_ftruncate,
	.fallocate = f_fallocate,
	.poll = f_poll,
	.eventfd = f_eventfd,
	.epoll = f_epoll,
	.epoll_watch = f_epoll_watch,
	.userfaultfd = f_userfaultfd,
	.ioctl = f_ioctl,
	.mmap = f_mmap,
	.map_over = f_map_over,
	.map_file = f_map_file,
	.fs_type = f_fs_type,
	.munmap = f_munmap,
	.mprotect = f_mprotect,
	.madvise = f_madvise,
	.madvise_vector = f_madvise_vector,
	.futex_wait = f_futex_wait,
	.futex_wake = f_futex_wake,
	.page_size = f_page_size,
	.processors = f_processors,
	.time_slice = f_time_slice,
	.clock_ns = f_clock_ns,
	.cpu_clock_ns = f_cpu_clock_ns,
};
