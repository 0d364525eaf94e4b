/* SPDX-License-Identifier: BSD-2-Clause */
/* Sends one command and prints its answer; or asks again and again, for a live line. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "vhost_ctl.h"

#include <argp.h>
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "common/units.h"
#include "vhost_options.h"

#define WORDS 4
#define LINE 16384

struct ctl {
	bool json;
	uint64_t timeout_s; /* 0: none */
	unsigned count;
	char *word[WORDS]; /* PATH COMMAND ... */
	FILE *in;
	int socket;
};

static const struct argp_option option_table[] = {
	{ "json", 'j', NULL, 0, "print answers as they are: one JSON object a line", 0 },
	{ "timeout", 't', "SECONDS", 0, "of wait: fail when it takes longer (default: it may)", 0 },
	{ NULL, 0, NULL, 0, NULL, 0 },
};

static const char description[] =
	"Talks to a vmem-vhost-user-balloon at its --control PATH."
	"\vCommands:\n"
	"  target SIZE [RATE]   how much the guest shall give up, and how much a second at most\n"
	"  status               where it stands\n"
	"  stats                what the guest says of itself, asked for now\n"
	"  watch                a line a second, until Ctrl-C\n"
	"  wait                 until the target is reached; fails when it stalls, is too much, or\n"
	"                       takes longer than --timeout, as without a guest\n"
	"  leave                ends the connection of the client\n"
	"  quit                 ends the back end\n";

static error_t parse_option(int key, char *text, struct argp_state *state)
{
	struct ctl *c = state->input;

	switch (key) {
	case 'j': c->json = true; break;
	case 't':
		if (units_parse_number(text, 1, 86400, &c->timeout_s) != 0)
			argp_error(state, "%s: give seconds from 1 to 86400", text);
		break;
	case ARGP_KEY_ARG:
		if (c->count == WORDS)
			argp_error(state, "%s: too many words", text);
		c->word[c->count++] = text;
		break;
	case ARGP_KEY_END:
		if (c->count < 2)
			argp_error(state, "give PATH and a command");
		if (c->timeout_s && strcmp(c->word[1], "wait") != 0)
			argp_error(state, "--timeout is of wait");
		break;
	default: return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static int fail(const char *what, const char *why)
{
	fprintf(stderr, "vmem-vhost-user-balloon: %s: %s\n", what, why);
	return VHOST_FAILED;
}

static int connect_to(struct ctl *c, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	errno = ENAMETOOLONG;
	if (strlen(path) >= sizeof(address.sun_path))
		return fail(path, strerror(errno));
	strcpy(address.sun_path, path);
	c->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->socket < 0 ||
	    connect(c->socket, (struct sockaddr *)&address, sizeof(address)) != 0) {
		fail(path, strerror(errno));
		fprintf(stderr, "is there a back end with --control %s?\n", path);
		return VHOST_FAILED;
	}
	c->in = fdopen(c->socket, "r");
	return c->in ? VHOST_GOOD : fail(path, strerror(errno));
}

/* One command and its answer, which is the caller's. NULL: complained of. */
static cJSON *ask(struct ctl *c, const char *command)
{
	static char line[LINE];
	cJSON *answer = NULL;
	const cJSON *error;

	if (send(c->socket, command, strlen(command), MSG_NOSIGNAL) < 0 ||
	    !fgets(line, sizeof(line), c->in)) {
		fail(c->word[0], "the back end has gone");
		return NULL;
	}
	if (c->json)
		fputs(line, stdout), fflush(stdout);
	answer = cJSON_Parse(line);
	error = cJSON_GetObjectItem(answer, "error");
	if (answer && !error)
		return answer;
	fail(c->word[1], cJSON_IsString(error) ? error->valuestring : "no sensible answer");
	cJSON_Delete(answer);
	return NULL;
}

static void print_item(const cJSON *item, int depth)
{
	size_t length = strlen(item->string);

	printf("%*s%-*s ", 2 * depth, "", 24 - 2 * depth, item->string);
	if (cJSON_IsObject(item)) {
		printf("\n");
		for (const cJSON *i = item->child; i; i = i->next)
			print_item(i, depth + 1);
		return;
	}
	if (cJSON_IsString(item))
		printf("%s\n", item->valuestring);
	else if (cJSON_IsBool(item))
		printf("%s\n", cJSON_IsTrue(item) ? "yes" : "no");
	else if (cJSON_IsNull(item))
		printf("-\n");
	else if (strstr(item->string, "bytes"))
		printf("%s%s\n", UNITS_BYTES((uint64_t)item->valuedouble),
		       length > 6 && strcmp(item->string + length - 6, "_per_s") == 0 ? "/s" : "");
	else
		printf("%.10g\n", item->valuedouble);
}

static double number(const cJSON *o, const char *name)
{
	const cJSON *item = cJSON_GetObjectItem(o, name);

	return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

static const char *bytes_of(struct units_text *t, const cJSON *o, const char *name)
{
	return units_bytes(t, (uint64_t)number(o, name));
}

static void print_line(const cJSON *o)
{
	struct units_text t[5];
	bool live = isatty(STDOUT_FILENO);

	if (!cJSON_IsTrue(cJSON_GetObjectItem(o, "client")))
		printf("no client");
	else
		printf("balloon %s of %s, %s/s; file %s of %s%s",
		       bytes_of(&t[0], o, "balloon_bytes"), bytes_of(&t[1], o, "target_bytes"),
		       bytes_of(&t[2], o, "bytes_per_s"), bytes_of(&t[3], o, "file_bytes"),
		       bytes_of(&t[4], o, "memory_bytes"),
		       number(o, "stalled_s") > 0 ? "; stalled" : "");
	fputs(live ? "\033[K\r" : "\n", stdout);
	fflush(stdout);
}

static void nap(long ms)
{
	nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000 }, NULL);
}

static int watch(struct ctl *c)
{
	cJSON *o;

	while ((o = ask(c, "status\n")) != NULL) {
		if (!c->json)
			print_line(o);
		cJSON_Delete(o);
		nap(1000);
	}
	return VHOST_FAILED;
}

static uint64_t seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec;
}

static const char *why_late(bool client, bool driver)
{
	if (!client)
		return "timed out: there is no client";
	return driver ? "timed out: the target is not reached"
		      : "timed out: the guest has no driver";
}

/* Until the balloon has what is wanted. */
static int wait_for_target(struct ctl *c)
{
	uint64_t end = seconds() + c->timeout_s + 1; /* not a second early */
	cJSON *o;

	c->json = false;
	while ((o = ask(c, "status\n")) != NULL) {
		bool client = cJSON_IsTrue(cJSON_GetObjectItem(o, "client"));
		bool driver = cJSON_IsTrue(cJSON_GetObjectItem(o, "driver"));
		bool there = driver && number(o, "balloon_bytes") == number(o, "target_bytes");
		bool never = cJSON_IsTrue(cJSON_GetObjectItem(o, "target_too_large"));
		bool stalled = number(o, "stalled_s") > 0;
		double proposed = number(o, "proposed_bytes");

		if (there || stalled)
			print_line(o);
		cJSON_Delete(o);
		if (there)
			return VHOST_GOOD;
		if (never)
			return fail("wait", "the guest has less memory than the target");
		if (stalled) {
			fprintf(stderr, "vmem-vhost-user-balloon: no progress; it can hold %s\n",
				UNITS_BYTES((uint64_t)proposed));
			return VHOST_FAILED;
		}
		if (c->timeout_s && seconds() >= end)
			return fail("wait", why_late(client, driver));
		nap(50);
	}
	return VHOST_FAILED;
}

static int run(struct ctl *c)
{
	char line[256];
	cJSON *answer;
	int n;

	n = snprintf(line, sizeof(line), "%s %s %s\n", c->word[1], c->word[2] ? c->word[2] : "",
		     c->word[3] ? c->word[3] : "");
	if (n < 0 || (size_t)n >= sizeof(line))
		return fail(c->word[1], "too long");
	answer = ask(c, line);
	if (!answer)
		return VHOST_FAILED;
	for (const cJSON *i = answer->child; i && !c->json; i = i->next)
		if (strcmp(i->string, "ok") != 0)
			print_item(i, 0);
	cJSON_Delete(answer);
	return VHOST_GOOD;
}

int vhost_ctl(int argc, char **argv)
{
	static const struct argp argp = { option_table, parse_option, "PATH COMMAND [SIZE [RATE]]",
					  description,  NULL,         NULL,
					  NULL };
	struct ctl c = { .socket = -1 };

	argp_err_exit_status = VHOST_USAGE;
	argv[0] = (char[]){ "vmem-vhost-user-balloon ctl" };
	if (argp_parse(&argp, argc, argv, 0, NULL, &c) != 0)
		return VHOST_USAGE;
	if (connect_to(&c, c.word[0]) != VHOST_GOOD)
		return VHOST_FAILED;
	if (strcmp(c.word[1], "watch") == 0)
		return watch(&c);
	if (strcmp(c.word[1], "wait") == 0)
		return wait_for_target(&c);
	return run(&c);
}
