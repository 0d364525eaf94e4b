/* SPDX-License-Identifier: BSD-2-Clause */
/* vmem-pager: waits for VMMs, has their memory served, and looks who has ended. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "pager_options.h"
#include "pager_vm.h"

#define MOST_VMS 64
#define LOOK_MS 500 /* who has closed his socket is asked for so often */

struct pager {
	vmem_manager *manager;
	struct swap swap;
	struct pager_file memory;
	int listener, signals;
	struct pager_vm vm[MOST_VMS];
	cJSON *list; /* of VMs that have ended; NULL: not wanted */
};

static int fail(const char *what)
{
	fprintf(stderr, "vmem-pager: %s: %s\n", what, strerror(errno));
	return -1;
}

static void say(const char *line)
{
	puts(line);
	fflush(stdout);
}

static void complain(const char *line)
{
	fprintf(stderr, "vmem-pager: %s\n", line);
}

static int open_memory(struct pager_file *memory, const char *path)
{
	struct stat st;

	memory->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (memory->fd < 0 || fstat(memory->fd, &st) != 0)
		return fail(path);
	memory->bytes = (uint64_t)st.st_size;
	return 0;
}

static int open_socket(int *ret_listener, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int s;

	if (strlen(path) >= sizeof(address.sun_path)) {
		errno = ENAMETOOLONG;
		return fail(path);
	}
	strcpy(address.sun_path, path);
	s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s < 0 || bind(s, (struct sockaddr *)&address, sizeof(address)) != 0)
		return fail(path);
	*ret_listener = s;
	return listen(s, 16) == 0 ? 0 : fail(path);
}

/* Ctrl-C is read like anything else. */
static int open_signals(int *ret_signals)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	*ret_signals = signalfd(-1, &set, SFD_CLOEXEC);
	return *ret_signals >= 0 ? 0 : fail("signalfd");
}

/* What whoever started it can change is told apart from what failed. */
static enum pager_exit exit_of(int error)
{
	if (!error)
		return PAGER_GOOD;
	return error == -VMEM_EINVAL || error == -VMEM_ENOSPC ? PAGER_USAGE : PAGER_FAILED;
}

static enum pager_exit start(struct pager *p, const struct pager_options *o)
{
	struct vmem_manager_opts m = { .size = sizeof(m),
				       .budget_bytes = o->budget,
				       .fault_threads = o->fault_threads,
				       .source_threads = o->source_threads };
	int error = vmem_manager_new(&p->manager, &m);
	enum pager_exit taken;

	if (!error) {
		taken = exit_of(swap_hand_over(&p->swap, p->manager, &o->swap));
		if (taken != PAGER_GOOD)
			return taken;
		error = vmem_manager_thread_start(p->manager);
	}
	if (error)
		complain(vmem_strerror(error));
	return error ? PAGER_FAILED : PAGER_GOOD;
}

/* Everything until somebody can connect. What is made lasts as long as the process. */
static enum pager_exit prepare(struct pager *p, const struct pager_options *o)
{
	enum pager_exit end;

	if (o->json && (errno = json_file_check(o->json)) != 0)
		return fail(o->json), PAGER_USAGE;
	if (open_memory(&p->memory, o->memory) != 0 || open_signals(&p->signals) != 0)
		return PAGER_FAILED;
	end = exit_of(swap_open_all(&p->swap, &o->swap, NULL));
	if (end == PAGER_GOOD)
		end = start(p, o);
	if (end != PAGER_GOOD)
		return end;
	if (open_socket(&p->listener, o->socket) != 0)
		return PAGER_FAILED;
	printf("listening at %s\n", o->socket);
	fflush(stdout);
	return PAGER_GOOD;
}

static void take_over(struct pager *p)
{
	int socket = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);

	for (unsigned i = 0; i < MOST_VMS && socket >= 0; i++)
		if (!pager_vm_is_there(&p->vm[i])) {
			pager_vm_begin(&p->vm[i], p->manager, &p->memory, socket);
			return;
		}
	if (socket >= 0)
		close(socket); /* no room: whoever it is waits */
}

static void look_for_the_dead(struct pager *p)
{
	for (unsigned i = 0; i < MOST_VMS; i++)
		if (pager_vm_is_there(&p->vm[i]) && pager_vm_is_gone(&p->vm[i]))
			pager_vm_end(&p->vm[i], VMEM_DETACH_DISCARD, p->list);
}

static bool has_vms(const struct pager *p)
{
	for (unsigned i = 0; i < MOST_VMS; i++)
		if (pager_vm_is_there(&p->vm[i]))
			return true;
	return false;
}

/* Until a signal comes; or, when nobody is listened to any more, until no VM is left. */
static void serve(struct pager *p)
{
	struct pollfd fds[2 + MOST_VMS];

	while (p->listener >= 0 || has_vms(p)) {
		fds[0] = (struct pollfd){ .fd = p->signals, .events = POLLIN };
		fds[1] = (struct pollfd){ .fd = p->listener, .events = POLLIN };
		for (unsigned i = 0; i < MOST_VMS; i++)
			fds[2 + i] = (struct pollfd){
				.fd = pager_vm_is_there(&p->vm[i]) ? p->vm[i].socket : -1,
			};
		poll(fds, 2 + MOST_VMS, LOOK_MS);
		if (fds[0].revents)
			return;
		for (unsigned i = 0; i < MOST_VMS; i++)
			if (fds[2 + i].revents) { /* hung up: it may live all the same */
				close(p->vm[i].socket);
				p->vm[i].socket = -1;
			}
		look_for_the_dead(p);
		swap_watch(&p->swap, p->manager);
		if (fds[1].revents)
			take_over(p);
	}
}

/* True: some VMs cannot go on by themselves. A signal meanwhile ends it all, as signals do. */
static bool bring_all(struct pager *p)
{
	struct signalfd_siginfo first;
	sigset_t set;
	bool left = false;

	if (read(p->signals, &first, sizeof(first)) < 0)
		fail("signalfd");
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	for (unsigned i = 0; i < MOST_VMS; i++)
		if (pager_vm_is_there(&p->vm[i]))
			left |= pager_vm_end(&p->vm[i], VMEM_DETACH_RESTORE, p->list) != 0;
	sigprocmask(SIG_BLOCK, &set, NULL);
	return left;
}

/* Whom a page is lost for would lose with the pager all that has not come back. @root: of the JSON, may be NULL. */
static int finish(struct pager *p, cJSON *root)
{
	close(p->listener);
	p->listener = -1;
	if (bring_all(p)) {
		fprintf(stderr,
			"vmem-pager: goes on for VMs that cannot be left alone, until they have "
			"ended; a second signal leaves them waiting\n");
		serve(p);
	}
	swap_watch(&p->swap, p->manager);
	swap_print_totals(&p->swap, p->manager);
	if (root)
		swap_add_json(root, &p->swap, p->manager);
	return has_vms(p) ? -1 : vmem_manager_free(p->manager);
}

static int report(cJSON *root, const char *path)
{
	int error = json_file_write(path, root);

	if (error)
		fprintf(stderr, "vmem-pager: %s: %s\n", path, strerror(error));
	return error ? -1 : 0;
}

int main(int argc, char **argv)
{
	static struct pager p = { .swap = { .say = say, .complain = complain } };
	struct pager_options o;
	cJSON *root = NULL;
	enum pager_exit ready;
	int error;

	pager_options_parse(&o, argc, argv);
	ready = prepare(&p, &o);
	if (ready != PAGER_GOOD)
		return (int)ready;
	json_begin();
	if (o.json) {
		root = json_need(cJSON_CreateObject());
		p.list = json_need(cJSON_AddArrayToObject(root, "processes"));
	}
	serve(&p);
	unlink(o.socket);
	error = finish(&p, root);
	if (root)
		error |= report(root, o.json);
	cJSON_Delete(root);
	return error ? PAGER_FAILED : PAGER_GOOD;
}
