/* SPDX-License-Identifier: BSD-2-Clause */
#include "bare_uffd.h"
#include "machine.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The headers of Debian 12 are those of Linux 6.1. */
struct move_request {
	uint64_t to, from, bytes, mode;
	int64_t moved;
};
#define MOVE_REQUEST _IOWR(UFFDIO, 0x05, struct move_request)

struct bare_handler_thread {
	pthread_t id;
	int stop; /* eventfd */
};

/* For all faults: the system call wants a privilege, the device only permission on its file. */
static int open_for_kernel(void)
{
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	int device;

	if (uffd >= 0 || (device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC)) < 0)
		return uffd;
	uffd = ioctl(device, _IO(UFFDIO, 0x00), O_CLOEXEC | O_NONBLOCK);
	close(device);
	return uffd;
}

int bare_uffd_serves_kernel(void)
{
	int uffd = open_for_kernel();

	if (uffd >= 0)
		close(uffd);
	return uffd >= 0;
}

int bare_uffd_open(uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int uffd = open_for_kernel();

	if (uffd < 0)
		uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	if (uffd < 0)
		return -errno;
	if (ioctl(uffd, UFFDIO_API, &api) != 0) {
		int error = errno;

		close(uffd);
		return -error;
	}
	return uffd;
}

int bare_uffd_register(int uffd, void *memory, size_t bytes)
{
	struct uffdio_register request = { .range = { (uintptr_t)memory, bytes },
					   .mode = UFFDIO_REGISTER_MODE_MISSING };

	return ioctl(uffd, UFFDIO_REGISTER, &request) == 0 ? 0 : -errno;
}

int bare_uffd_copy(int uffd, void *to, const void *from, size_t bytes)
{
	struct uffdio_copy request = { .dst = (uintptr_t)to, .src = (uintptr_t)from, .len = bytes };

	return ioctl(uffd, UFFDIO_COPY, &request) == 0 ? 0 : -errno;
}

int bare_uffd_move(int uffd, void *to, void *from, size_t bytes)
{
	struct move_request request = { .to = (uintptr_t)to,
					.from = (uintptr_t)from,
					.bytes = bytes };

	return ioctl(uffd, MOVE_REQUEST, &request) == 0 ? 0 : -errno;
}

static const uint8_t *source_of(const struct bare_handler *handler, const uint8_t *page)
{
	static const uint8_t zeros[4096];

	return handler->source ? handler->source + (page - handler->memory) : zeros;
}

/* @return 0 when nothing was there to read */
static int serve_one(const struct bare_handler *handler)
{
	struct uffd_msg message;
	uint8_t *page;
	int result;

	if (read(handler->uffd, &message, sizeof(message)) != (ssize_t)sizeof(message))
		return 0;
	page = (uint8_t *)((uintptr_t)message.arg.pagefault.address & ~(uintptr_t)(PAGE - 1));
	result = bare_uffd_copy(handler->uffd, page, source_of(handler, page), PAGE);
	if (result == -EEXIST) { /* two threads met on one page */
		struct uffdio_range range = { (uintptr_t)page, PAGE };

		ioctl(handler->uffd, UFFDIO_WAKE, &range);
	} else if (result != 0) {
		fprintf(stderr, "bench: bare handler: UFFDIO_COPY: error %d\n", -result);
		_exit(1); /* the faulting thread would wait for ever */
	}
	return 1;
}

static void *serve(void *argument)
{
	const struct bare_handler *handler = argument;
	struct pollfd waits[] = { { .fd = handler->uffd, .events = POLLIN },
				  { .fd = handler->thread->stop, .events = POLLIN } };
	uint64_t last = 0;

	if (handler->cpu >= 0)
		machine_pin((unsigned)handler->cpu);
	for (;;) {
		if (serve_one(handler))
			last = machine_now_ns();
		else if (machine_now_ns() - last < handler->spin_us * UINT64_C(1000))
			__builtin_ia32_pause();
		else if (poll(waits, 2, -1) > 0 && waits[1].revents)
			return NULL;
		else
			last = machine_now_ns();
	}
}

int bare_handler_start(struct bare_handler *handler)
{
	struct bare_handler_thread *thread = malloc(sizeof(*thread));
	int result;

	if (!thread)
		return -ENOMEM;
	handler->thread = thread;
	thread->stop = eventfd(0, EFD_CLOEXEC);
	result = thread->stop < 0 ? errno : pthread_create(&thread->id, NULL, serve, handler);
	if (result != 0) {
		free(thread);
		handler->thread = NULL;
	}
	return -result;
}

void bare_handler_stop(struct bare_handler *handler)
{
	if (!handler->thread)
		return;
	eventfd_write(handler->thread->stop, 1);
	pthread_join(handler->thread->id, NULL);
	close(handler->thread->stop);
	free(handler->thread);
	handler->thread = NULL;
}
