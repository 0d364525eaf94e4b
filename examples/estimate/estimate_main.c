/* SPDX-License-Identifier: BSD-2-Clause */
/* vmem-estimate: the order of things. */
#include <stdlib.h>

#include "estimate_options.h"
#include "estimate_progress.h"
#include "estimate_scan.h"

/* All of them, before any is read: a mistake is told at once. 0, or -1. */
static int open_all(const struct options *o, const struct target *targets, struct vm *vms,
		    struct source *sources)
{
	for (uint32_t i = 0; i < o->vm_count; i++) {
		if (source_open(&sources[i], &targets[i], o, &vms[i]) == 0)
			continue;
		while (i-- > 0)
			source_close(&sources[i]);
		return -1;
	}
	return 0;
}

/* All that was asked for, even if one of them cannot be written. */
static enum estimate_exit report(const struct estimate *e)
{
	int error = table_print(e);

	if (e->options->json)
		error |= json_write(e, e->options->json);
	if (e->options->plot)
		error |= plot_write(e, e->options->plot);
	return error ? EXIT_FAILED : EXIT_GOOD;
}

static enum estimate_exit run(const struct options *o, const struct target *targets, struct vm *vms,
			      struct source *sources)
{
	struct estimate e = { .options = o, .vms = vms };
	int error;

	if ((o->json && json_check(o->json) != 0) || (o->plot && plot_check(o->plot) != 0) ||
	    open_all(o, targets, vms, sources) != 0)
		return EXIT_USAGE;
	error = scan(&e, sources);
	for (uint32_t i = 0; i < o->vm_count; i++)
		source_close(&sources[i]);
	if (is_interrupted()) {
		say_error("Interrupted: nothing was written.");
		return EXIT_INTERRUPTED;
	}
	return error ? EXIT_FAILED : report(&e);
}

int main(int argc, char **argv)
{
	struct target *targets = calloc((size_t)argc, sizeof(*targets));
	struct options options;
	struct source *sources;
	struct vm *vms;
	enum estimate_exit status = EXIT_FAILED;

	if (!targets)
		return EXIT_FAILED;
	options_parse(&options, targets, argc, argv);
	progress_init(options.quiet);
	interrupt_init();
	vms = calloc(options.vm_count, sizeof(*vms));
	sources = calloc(options.vm_count, sizeof(*sources));
	if (vms && sources)
		status = run(&options, targets, vms, sources);
	else
		say_error("Out of memory.");
	free(sources);
	free(vms);
	free(targets);
	return (int)status;
}
