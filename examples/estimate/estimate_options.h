/* SPDX-License-Identifier: BSD-2-Clause */
/* The command line. */
#ifndef ESTIMATE_OPTIONS_H
#define ESTIMATE_OPTIONS_H
#include "estimate.h"

/* Fills in both, with room for @argc targets; ends the program with a message if it cannot. */
void options_parse(struct options *options, struct target *targets, int argc, char **argv);

#endif
