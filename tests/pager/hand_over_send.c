/* SPDX-License-Identifier: BSD-2-Clause */
/* See hand_over_send.h. */
#include "hand_over_send.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "support/send_fds.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

void need(int condition, const char *what)
{
	if (condition)
		return;
	perror(what);
	exit(1);
}

const unsigned char *map_original(const char *path, size_t *ret_bytes)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	void *file;

	need(fd >= 0 && !fstat(fd, &st), path);
	file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	need(file != MAP_FAILED, "mmap");
	close(fd);
	*ret_bytes = (size_t)st.st_size;
	return file;
}

int open_uffd(void *memory, size_t bytes, uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	struct uffdio_register r = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

	if (fd < 0) {
		printf("no userfaultfd\n");
		exit(77);
	}
	need(!ioctl(fd, UFFDIO_API, &api), "UFFDIO_API");
	r.range.start = (uintptr_t)memory;
	r.range.len = bytes;
	need(!ioctl(fd, UFFDIO_REGISTER, &r), "UFFDIO_REGISTER");
	return fd;
}

int connect_to(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	need(s >= 0 && !connect(s, (struct sockaddr *)&address, sizeof(address)), path);
	return s;
}

void hand_over(int socket, const char *text, const int *fds, unsigned count)
{
	size_t bytes = strlen(text);

	need(vmemt_send_fds(socket, text, bytes, fds, count, 0) == (ssize_t)bytes, "sendmsg");
}
