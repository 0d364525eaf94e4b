/* SPDX-License-Identifier: BSD-2-Clause */
/* The command line of the back end. */
#ifndef VHOST_OPTIONS_H
#define VHOST_OPTIONS_H
#include <stdbool.h>

#include "vhost_client.h"

enum vhost_exit { VHOST_GOOD, VHOST_FAILED, VHOST_USAGE };

struct vhost_options {
	const char *socket;
	const char *control; /* NULL: none */
	uint64_t target_bytes;
	uint64_t bytes_per_s; /* 0: at once */
	uint64_t stats_s;     /* seconds between questions; 0: never by itself */
	bool quiet;
	struct vhost_client_opts client;
};

/* Ends the program if they are wrong. */
void vhost_options_parse(struct vhost_options *o, int argc, char **argv);

#endif
