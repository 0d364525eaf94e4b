/* SPDX-License-Identifier: BSD-2-Clause */
/* See hand_over.h. */
#include "linux/hand_over.h"
#include "support/deadline.h"
#include "support/send_fds.h"
#include <assert.h>
#include <string.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

pid_t vmemt_fork(void)
{
	pid_t parent = getpid(), child;

	fflush(NULL);
	child = fork();
	assert(child >= 0);
	if (!child && (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent))
		_exit(1);
	return child;
}

int vmemt_end_of(pid_t child)
{
	int status = 0;

	VMEMT_UNTIL(waitpid(child, &status, WNOHANG) == child);
	return status;
}

void vmemt_send_fd(int socket, int fd)
{
	assert(vmemt_send_fds(socket, "", 1, &fd, 1, 0) == 1);
}

int vmemt_receive_fd(int socket)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 }, byte;
	struct iovec data = { &byte, 1 };
	struct msghdr m = { .msg_iov = &data,
			    .msg_iovlen = 1,
			    .msg_control = control,
			    .msg_controllen = sizeof(control) };
	int fd;

	if (recvmsg(socket, &m, 0) != 1 || !CMSG_FIRSTHDR(&m))
		return -1;
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(int));
	return fd;
}
