/* SPDX-License-Identifier: BSD-2-Clause */
/* See send_fds.h. */
#include "support/send_fds.h"
#include <assert.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

ssize_t vmemt_send_fds(int socket, const void *bytes, size_t count, const int *fds,
		       uint32_t fd_count, int flags)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(VMEMT_FDS_MAX * sizeof(int))] = { 0 };
	struct iovec data = { (void *)(uintptr_t)bytes, count };
	struct msghdr h = { .msg_iov = &data, .msg_iovlen = 1 };

	assert(fd_count <= VMEMT_FDS_MAX);
	if (fd_count) {
		struct cmsghdr *c;

		h.msg_control = control;
		h.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
		c = CMSG_FIRSTHDR(&h);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
		memcpy(CMSG_DATA(c), fds, fd_count * sizeof(int));
	}
	return sendmsg(socket, &h, flags);
}
