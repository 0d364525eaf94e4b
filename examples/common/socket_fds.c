/* SPDX-License-Identifier: BSD-2-Clause */
/* See socket_fds.h. */
#include "common/socket_fds.h"

#include <stddef.h>
#include <string.h>
#include <unistd.h>

bool socket_fds_keep(struct msghdr *message, int *fd, uint32_t *count, uint32_t most)
{
	bool all = !(message->msg_flags & MSG_CTRUNC);

	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		size_t came = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < came; i++) {
			int one;

			memcpy(&one, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (*count < most) {
				fd[(*count)++] = one;
			} else {
				close(one);
				all = false;
			}
		}
	}
	return all;
}
