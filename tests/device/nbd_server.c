/* SPDX-License-Identifier: BSD-2-Clause */
/* See nbd_server.h. */
#include "device/nbd_server.h"
#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "support/deadline.h"

static char folder[] = "/tmp/vmem-nbd-XXXXXX";
static char path[sizeof(folder) + 8];
static char uri[sizeof(path) + 32];
static pid_t server = -1;

bool vmemt_nbd_init(void)
{
	if (system("nbdkit --version >/dev/null 2>&1"))
		return false;
	assert(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/socket", folder);
	snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", path);
	return true;
}

void vmemt_nbd_end(void)
{
	vmemt_nbd_stop();
	unlink(path);
	assert(!rmdir(folder));
}

void vmemt_nbd_start(const char *size, const char *option, const char *parameter,
		     const char *another)
{
	pid_t parent = getpid();

	unlink(path);
	server = fork();
	assert(server >= 0);
	if (!server) {
		const char *arguments[12] = { "nbdkit", "-f", "-U", path };
		int n = 4;

		/* Not beyond this program, however it ends. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		if (option)
			arguments[n++] = option;
		arguments[n++] = "memory";
		arguments[n++] = size;
		if (parameter)
			arguments[n++] = parameter;
		if (another)
			arguments[n++] = another;
		execvp("nbdkit", (char **)arguments);
		_exit(1);
	}
}

void vmemt_nbd_stop(void)
{
	if (server > 0) {
		kill(server, SIGKILL);
		assert(waitpid(server, NULL, 0) == server);
	}
	server = -1;
}

void vmemt_nbd_pause(void)
{
	int status;

	assert(!kill(server, SIGSTOP));
	/* All of its threads have. */
	assert(waitpid(server, &status, WUNTRACED) == server && WIFSTOPPED(status));
}

pid_t vmemt_nbd_server(void)
{
	return server;
}

const char *vmemt_nbd_uri(void)
{
	return uri;
}

struct vmem_device *vmemt_nbd_open(uint32_t depth, uint64_t timeout_ms)
{
	struct vmem_nbd_opts o = { .size = sizeof(o), .depth = depth, .timeout_ms = timeout_ms };
	struct vmem_device *d = NULL;

	VMEMT_UNTIL(!vmem_nbd_open(&d, uri, &o));
	return d;
}
