/* SPDX-License-Identifier: BSD-2-Clause */
/* Where the pages go, as stacked bars, drawn by gnuplot: one a VM, one for all, one for all that share. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "estimate.h"
#include "estimate_progress.h"

static const char *const titles[KINDS] = {
	[KIND_ZERO] = "zero",
	[KIND_SAME] = "another word, repeated",
	[KIND_EQUAL] = "equal to another page",
	[KIND_ALIKE] = "a delta against one like it",
	[KIND_ZSTD] = "compressed by Zstandard",
	[KIND_LZ4] = "compressed by LZ4",
	[KIND_RAW] = "incompressible",
};

int plot_check(const char *path)
{
	if (json_check(path) != 0)
		return -1;
	if (system("gnuplot --version >/dev/null 2>&1") == 0)
		return 0;
	say_error("--plot needs gnuplot. On Debian or Ubuntu: apt-get install gnuplot-nox");
	return -1;
}

/* In quotes, as columns of gnuplot's data are; what would end it becomes a blank. */
static void put_name(FILE *out, const char *name)
{
	fputc('"', out);
	for (; *name; name++)
		fputc(strchr("\"\\\n\r\t$`", *name) ? ' ' : *name, out);
	fputc('"', out);
}

static void put_row(FILE *out, const char *name, const struct tally *t)
{
	put_name(out, name);
	for (int k = 0; k < KINDS; k++)
		fprintf(out, " %.4f", 100.0 * (double)t->kind[k] / (double)t->pages);
	fprintf(out, " %.4f\n", 100 * tally_stored_share(t));
}

static void put_data(FILE *out, const struct estimate *e)
{
	fputs("$data << END_OF_DATA\n", out);
	for (uint32_t i = 0; i < e->options->vm_count; i++)
		put_row(out, e->vms[i].name, &e->vms[i].tally);
	if (e->options->vm_count > 1) {
		put_row(out, "all", &e->total);
		put_row(out, "all, sharing", &e->shared);
	}
	fputs("END_OF_DATA\n", out);
}

/* A string of gnuplot: in single quotes, which are doubled in it. */
static void put_string(FILE *out, const char *text)
{
	fputc('\'', out);
	for (; *text; text++)
		fputs(*text == '\'' ? "''" : (char[]){ *text, '\0' }, out);
	fputc('\'', out);
}

static void put_script(FILE *out, const struct estimate *e)
{
	static const char *const colors[KINDS] = { "#dddddd", "#bbbbbb", "#4477aa", "#66ccee",
						   "#228833", "#ccbb44", "#ee6677" };
	unsigned width = 500 + 70 * e->options->vm_count;

	fprintf(out, "set terminal pngcairo size %u,560 noenhanced\nset output ",
		width < 8000 ? width : 8000);
	put_string(out, e->options->plot);
	fputs("\nset style data histograms\nset style histogram rowstacked\n"
	      "set style fill solid border -1\nset boxwidth 0.7\nset yrange [0:100]\n"
	      "set ylabel 'percent of pages'\nset xtics rotate by -35\nset key outside right invert\n"
	      "set title 'Where the pages go'\n",
	      out);
	put_data(out, e);
	fputs("plot ", out);
	for (int k = 0; k < KINDS; k++)
		fprintf(out, "$data using %d%s title '%s' linecolor rgb '%s', ", k + 2,
			k ? "" : ":xtic(1)", titles[k], colors[k]);
	fprintf(out,
		"$data using 0:%d with points pointtype 7 linecolor rgb 'black' title 'bytes stored'\n",
		KINDS + 2);
}

int plot_write(const struct estimate *e, const char *path)
{
	FILE *gnuplot = popen("gnuplot", "we");
	int status;

	if (!gnuplot) {
		say_error("gnuplot cannot be run: %s.", strerror(errno));
		return -1;
	}
	put_script(gnuplot, e);
	status = pclose(gnuplot);
	if (status == 0)
		return 0;
	say_error("--plot %s was not drawn: gnuplot said why.", path);
	return -1;
}
