/* SPDX-License-Identifier: BSD-2-Clause */
/* A guest of User-Mode Linux with its console, and what it takes of the host, seen from outside. */
#ifndef UML_GUEST_H
#define UML_GUEST_H
#include <stdint.h>
#include <sys/types.h>

struct uml_guest {
	pid_t pid;     /* leader of a process group of its own */
	pid_t watcher; /* ends it, when life is closed */
	int life;
	int in, out;
	char console[65536]; /* the last of what it printed */
	size_t bytes;
};

/* Boots one of @mib MiB with a balloon at @socket, until it is ready for commands. */
void uml_guest_boot(struct uml_guest *g, const char *initrd, const char *socket, unsigned mib);

/* Runs a line of shell in it. @return its exit status */
int uml_guest_run(struct uml_guest *g, const char *line);

/* Begins one, and does not wait. */
void uml_guest_begin(struct uml_guest *g, const char *line);
int uml_guest_wait(struct uml_guest *g);

/* Bytes of memory that the file of its memory has. */
uint64_t uml_guest_file_bytes(const struct uml_guest *g);

/* Ends all of its processes at once, and waits for the first. */
void uml_guest_kill(struct uml_guest *g);

#endif
