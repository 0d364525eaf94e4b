/* SPDX-License-Identifier: BSD-2-Clause */
/* vmem-outside: runs a command and measures its physical memory from outside, by what the kernel
 * charges to a memory cgroup of its own (v1 or v2, as root), or else by its Pss once a second.
 * Nothing is limited, only measured. The cgroup is removed whatever happens to the command; after a
 * kill -9 of vmem-outside itself, by the next one that runs.
 *
 * With --json it takes the budget from what the command wrote there (options.budget_bytes), adds what
 * it measured to it, and fails when the peak is above budget + tolerance. With --kernel-apart the kernel's
 * own memory is not judged: page tables and KVM's tables go with the size of the guests, which may be ten
 * times the budget, and its cache of files on disk (programs, what an image is made of) is charged to who
 * reads first, and given up when anybody needs memory. */
#define _GNU_SOURCE
#include <argp.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/json_file.h"

#define MIB 1048576.0
#define JSON_MOST (16u << 20)
#define EXIT_OVER 1
#define EXIT_SETUP 125
#define CGROUP_NAME "vmem-outside-"

struct options {
	const char *json;
	double tolerance_percent;
	bool kernel_apart;
	char **command;
};

/* The files of a memory cgroup in both versions. */
struct version {
	const char *usage;
	const char *peak;
	const char *kernel; /* NULL: in memory.stat */
	const char *stat_anonymous;
	const char *stat_file;
	const char *stat_kernel;
	const char *stat_shared; /* of the file's: memory files, which are no cache */
};

static const struct version version1 = {
	.usage = "memory.usage_in_bytes",
	.peak = "memory.max_usage_in_bytes",
	.kernel = "memory.kmem.usage_in_bytes",
	.stat_anonymous = "rss ",
	.stat_file = "cache ",
	.stat_shared = "shmem ",
};
static const struct version version2 = {
	.usage = "memory.current",
	.peak = "memory.peak",
	.stat_anonymous = "anon ",
	.stat_file = "file ",
	.stat_kernel = "kernel ",
	.stat_shared = "shmem ",
};

struct sample {
	uint64_t usage;
	uint64_t anonymous;
	uint64_t file;
	uint64_t shared; /* of file: in no file on disk */
	uint64_t kernel;
};

struct measure {
	const struct version *version; /* NULL: Pss */
	char path[512];                /* of the cgroup */
	pid_t pid;
	uint32_t samples; /* that could be taken */
	struct sample highest;
	uint64_t
		peak; /* by the kernel's own count where it has one; 0: nothing could be measured */
};

/* The contents of a small file. Returns false if there is none. */
static bool read_text(const char *path, char *text, size_t room)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t length = 0;
	ssize_t got = 0;

	while (fd >= 0 && length < room - 1 &&
	       (got = read(fd, text + length, room - 1 - length)) > 0)
		length += (size_t)got;
	if (fd >= 0)
		close(fd);
	text[length] = '\0';
	return fd >= 0 && got >= 0 && length > 0;
}

static uint64_t read_number(const struct measure *m, const char *name)
{
	char path[640];
	char text[64];

	snprintf(path, sizeof(path), "%s/%s", m->path, name);
	return read_text(path, text, sizeof(text)) ? strtoull(text, NULL, 10) : 0;
}

/* The number behind `key`, which begins a line. */
static uint64_t number_after(const char *text, const char *key)
{
	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, key, strlen(key)) == 0)
			return strtoull(line + strlen(key), NULL, 10);
	}
	return 0;
}

static bool write_text(const char *folder, const char *name, const char *text)
{
	char path[640];
	int fd;
	bool good;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	good = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	if (fd >= 0)
		close(fd);
	return good;
}

/* Cgroups of processes that are gone. One that is still in use stays by itself. */
static void remove_left_over(const char *root)
{
	DIR *folder = opendir(root);
	struct dirent *entry;

	while (folder && (entry = readdir(folder)) != NULL) {
		int pid = 0;
		int end = 0;

		if (sscanf(entry->d_name, CGROUP_NAME "%d%n", &pid, &end) == 1 && pid > 0 &&
		    !entry->d_name[end] && kill(pid, 0) != 0 && errno == ESRCH)
			unlinkat(dirfd(folder), entry->d_name, AT_REMOVEDIR);
	}
	if (folder)
		closedir(folder);
}

/* A cgroup of our own below the root of a hierarchy that counts memory. */
static bool make_cgroup_in(struct measure *m, const char *root, const struct version *version)
{
	char file[640];

	remove_left_over(root);
	snprintf(m->path, sizeof(m->path), "%s/" CGROUP_NAME "%d", root, (int)getpid());
	snprintf(file, sizeof(file), "%s/%s", m->path, version->usage);
	if (mkdir(m->path, 0755) != 0)
		return false;
	if (access(file, R_OK) == 0) {
		m->version = version;
		return true;
	}
	rmdir(m->path);
	return false;
}

static bool make_cgroup(struct measure *m)
{
	FILE *mounts = setmntent("/proc/self/mounts", "re");
	struct mntent *entry;
	bool made = false;

	while (mounts && !made && (entry = getmntent(mounts)) != NULL) {
		if (strcmp(entry->mnt_type, "cgroup") == 0 && hasmntopt(entry, "memory"))
			made = make_cgroup_in(m, entry->mnt_dir, &version1);
		else if (strcmp(entry->mnt_type, "cgroup2") == 0)
			made = make_cgroup_in(m, entry->mnt_dir, &version2);
	}
	if (mounts)
		endmntent(mounts);
	return made;
}

/* The last process may still be on its way out. */
static void remove_cgroup(const struct measure *m)
{
	struct timespec pause = { .tv_nsec = 10000000 };

	for (int i = 0; i < 200 && rmdir(m->path) != 0 && errno == EBUSY; i++)
		nanosleep(&pause, NULL);
	if (access(m->path, F_OK) == 0)
		fprintf(stderr, "vmem-outside: %s cannot be removed: %s\n", m->path,
			strerror(errno));
}

static void sample_cgroup(const struct measure *m, struct sample *sample)
{
	char path[640];
	char stat[8192];

	sample->usage = read_number(m, m->version->usage);
	snprintf(path, sizeof(path), "%s/memory.stat", m->path);
	if (read_text(path, stat, sizeof(stat))) {
		sample->anonymous = number_after(stat, m->version->stat_anonymous);
		sample->file = number_after(stat, m->version->stat_file);
		sample->shared = number_after(stat, m->version->stat_shared);
		if (m->version->stat_kernel)
			sample->kernel = number_after(stat, m->version->stat_kernel);
	}
	if (m->version->kernel)
		sample->kernel = read_number(m, m->version->kernel);
}

static void sample_pss(const struct measure *m, struct sample *sample)
{
	char path[64];
	char text[4096];

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)m->pid);
	if (!read_text(path, text, sizeof(text)))
		return;
	sample->usage = number_after(text, "Pss:") * 1024;
	sample->anonymous = number_after(text, "Pss_Anon:") * 1024;
	sample->file = number_after(text, "Pss_File:") * 1024;
}

static void take_sample(struct measure *m)
{
	struct sample sample = { 0 };

	if (m->version)
		sample_cgroup(m, &sample);
	else
		sample_pss(m, &sample);
	if (sample.usage == 0)
		return;
	m->samples++;
	if (sample.usage > m->highest.usage)
		m->highest = sample;
}

/* In the child: into the cgroup, then become the command. */
static void become(const struct measure *m, char **command, const sigset_t *mask)
{
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (m->version && !write_text(m->path, "cgroup.procs", "0"))
		fprintf(stderr, "vmem-outside: cannot enter %s: %s\n", m->path, strerror(errno));
	else {
		sigprocmask(SIG_SETMASK, mask, NULL);
		execvp(command[0], command);
		fprintf(stderr, "vmem-outside: %s cannot be run: %s\n", command[0],
			strerror(errno));
	}
	_exit(EXIT_SETUP);
}

/* Whatever would end us, so that the cgroup can be removed, and SIGCHLD. */
static void our_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGCHLD);
	sigaddset(set, SIGHUP);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGQUIT);
	sigaddset(set, SIGTERM);
}

/* Runs the command and samples until it ends. Returns its wait status. Ctrl-C is the command's to
 * handle, which gets it from the terminal as we do; other signals are passed on. Ours are blocked. */
static int run(struct measure *m, char **command, const sigset_t *mask)
{
	struct timespec period = { .tv_sec = m->version ? 0 : 1,
				   .tv_nsec = m->version ? 100000000 : 0 };
	sigset_t set;
	int status = 0;

	our_signals(&set);
	m->pid = fork();
	if (m->pid == 0)
		become(m, command, mask);
	if (m->pid < 0) {
		fprintf(stderr, "vmem-outside: cannot fork: %s\n", strerror(errno));
		return EXIT_SETUP << 8;
	}
	while (waitpid(m->pid, &status, WNOHANG) == 0) {
		int signal;

		take_sample(m);
		signal = sigtimedwait(&set, NULL, &period);
		if (signal > 0 && signal != SIGCHLD && signal != SIGINT)
			kill(m->pid, signal);
	}
	m->peak = m->version ? read_number(m, m->version->peak) : 0;
	if (m->peak < m->highest.usage)
		m->peak = m->highest.usage;
	return status;
}

static cJSON *read_json(const char *path)
{
	char *text = malloc(JSON_MOST);
	cJSON *json = text && read_text(path, text, JSON_MOST) ? cJSON_Parse(text) : NULL;

	free(text);
	return json;
}

/* What the budget is for. The kernel's part, and its cache of files on disk, are those of the highest sample. */
static uint64_t judged_of(const struct options *o, const struct measure *m)
{
	uint64_t cached =
		m->highest.file > m->highest.shared ? m->highest.file - m->highest.shared : 0;
	uint64_t apart = o->kernel_apart ? m->highest.kernel + cached : 0;

	return m->peak > apart ? m->peak - apart : m->peak;
}

static bool add_to_json(cJSON *json, const char *path, const struct measure *m, uint64_t judged,
			double limit, bool held)
{
	cJSON *object = cJSON_AddObjectToObject(json, "outside");

	return cJSON_AddStringToObject(object, "measured_by",
				       m->version == &version1 ? "cgroup v1"
				       : m->version            ? "cgroup v2"
							       : "Pss once a second") &&
	       cJSON_AddNumberToObject(object, "peak_bytes", (double)m->peak) &&
	       cJSON_AddNumberToObject(object, "judged_bytes", (double)judged) &&
	       cJSON_AddNumberToObject(object, "limit_bytes", limit) &&
	       cJSON_AddNumberToObject(object, "highest_sample_bytes", (double)m->highest.usage) &&
	       cJSON_AddNumberToObject(object, "anonymous_bytes", (double)m->highest.anonymous) &&
	       cJSON_AddNumberToObject(object, "file_bytes", (double)m->highest.file) &&
	       cJSON_AddNumberToObject(object, "kernel_bytes", (double)m->highest.kernel) &&
	       cJSON_AddNumberToObject(object, "samples", m->samples) &&
	       cJSON_AddBoolToObject(object, "held", held) && json_file_write(path, json) == 0;
}

static void print_measure(const struct measure *m)
{
	if (m->peak == 0) {
		fprintf(stderr,
			"vmem-outside: the physical memory of the command could not be read\n");
		return;
	}
	printf("physical memory from outside, by %s: peak %.1f MiB (highest of %u samples %.1f MiB: anonymous "
	       "%.1f, file cache %.1f, kernel %.1f)\n",
	       m->version ? "the usage of a memory cgroup of its own" : "Pss once a second",
	       (double)m->peak / MIB, m->samples, (double)m->highest.usage / MIB,
	       (double)m->highest.anonymous / MIB, (double)m->highest.file / MIB,
	       (double)m->highest.kernel / MIB);
}

/* Compares with the budget that the command had. Returns 0, EXIT_OVER or EXIT_SETUP. */
static int judge(const struct options *o, const struct measure *m)
{
	uint64_t judged = judged_of(o, m);
	cJSON *json = read_json(o->json);
	const cJSON *budget =
		cJSON_GetObjectItem(cJSON_GetObjectItem(json, "options"), "budget_bytes");
	double limit = cJSON_GetNumberValue(budget) * (1 + o->tolerance_percent / 100);
	bool held = (double)judged <= limit;
	int result = held ? 0 : EXIT_OVER;

	if (!cJSON_IsNumber(budget)) {
		fprintf(stderr, "vmem-outside: %s holds no options.budget_bytes to compare with\n",
			o->json);
		cJSON_Delete(json);
		return EXIT_SETUP;
	}
	printf("peak%s %.1f MiB, budget %.1f MiB + %g %% = %.1f MiB: %s\n",
	       o->kernel_apart ? " without the kernel's and its cache of files" : "",
	       (double)judged / MIB, cJSON_GetNumberValue(budget) / MIB, o->tolerance_percent,
	       limit / MIB, held ? "held" : "EXCEEDED");
	if (!add_to_json(json, o->json, m, judged, limit, held)) {
		fprintf(stderr, "vmem-outside: %s cannot be written\n", o->json);
		result = EXIT_SETUP;
	}
	cJSON_Delete(json);
	return result;
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
	struct options *o = state->input;
	char *end = NULL;

	switch (key) {
	case 'j': o->json = text; break;
	case 't':
		o->tolerance_percent = strtod(text, &end);
		if (end == text || *end || !(o->tolerance_percent >= 0))
			argp_error(state, "--tolerance %s: give a number of percent", text);
		break;
	case 'k': o->kernel_apart = true; break;
	case ARGP_KEY_ARG:
		o->command = &state->argv[state->next - 1];
		state->next = state->argc;
		break;
	case ARGP_KEY_NO_ARGS: argp_usage(state); break;
	default: return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

int main(int argc, char **argv)
{
	static const struct argp_option table[] = {
		{ "json", 'j', "FILE", 0,
		  "what the command wrote: its budget is taken from it, the measure added", 0 },
		{ "tolerance", 't', "PERCENT", 0,
		  "how far the peak may be above the budget (default 5)", 0 },
		{ "kernel-apart", 'k', NULL, 0,
		  "do not judge the kernel's memory, such as page tables, and its cache of files on disk",
		  0 },
		{ NULL, 0, NULL, 0, NULL, 0 },
	};
	static const struct argp argp = {
		table,
		parse_option,
		"COMMAND [ARGUMENT...]",
		"Runs a command and measures its physical memory from outside.",
		NULL,
		NULL,
		NULL
	};
	struct options options = { .tolerance_percent = 5 };
	struct measure measure = { 0 };
	sigset_t set;
	sigset_t before;
	int status;

	if (argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &options) != 0)
		return EXIT_SETUP;
	our_signals(&set);
	sigprocmask(SIG_BLOCK, &set, &before);
	if (!make_cgroup(&measure))
		printf("No memory cgroup can be made here (that needs root): Pss is measured instead.\n");
	fflush(stdout);
	status = run(&measure, options.command, &before);
	if (measure.version)
		remove_cgroup(&measure);
	print_measure(&measure);
	if (WIFSIGNALED(status)) {
		fprintf(stderr, "vmem-outside: the command was ended by signal %d\n",
			WTERMSIG(status));
		return 128 + WTERMSIG(status);
	}
	if (WEXITSTATUS(status) != 0 || !options.json)
		return WEXITSTATUS(status);
	return measure.peak ? judge(&options, &measure) : EXIT_SETUP;
}
