/* SPDX-License-Identifier: BSD-2-Clause */
/* A back end that is tested, and its control socket. */
#ifndef BACK_END_H
#define BACK_END_H
#include <cjson/cJSON.h>
#include <sys/types.h>

struct back_end {
	pid_t pid;
	int control;
	char folder[64], socket[96], control_path[96];
};

/* Starts one, with up to three options more; NULL: no more. */
void back_end_start(struct back_end *b, const char *option, const char *second, const char *third);

/* A command; its answer is the caller's to be deleted. */
cJSON *back_end_ask(struct back_end *b, const char *command);

/* A number of an answer; @group: the object in it, or NULL. */
double back_end_number(struct back_end *b, const char *command, const char *group,
		       const char *name);

/* As the status has it now. */
double back_end_status(struct back_end *b, const char *name);

/* Sends a signal, waits for its end, and removes what it leaves. @return its wait status */
int back_end_stop(struct back_end *b, int signal_number);

#endif
