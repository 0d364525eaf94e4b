/* SPDX-License-Identifier: BSD-2-Clause */
/* Recorded traces (vmem/trace.h) of guests with known habits, which a generator has made: half a day, a period
 * for each minute. The same bytes each time. */
#ifndef BENCH_GUEST_TRACES_H
#define BENCH_GUEST_TRACES_H
#include <stddef.h>
#include <stdint.h>

#define TRACE_PAGES (UINT32_C(1) << 16)
#define TRACE_MINUTES 720u

enum guest_trace_habit {
	TRACE_ZIPF,       /* half of the pages by Zipf's law; the others hardly ever */
	TRACE_HEAVY_TAIL, /* each page at random, once in t minutes; t by a power law from 1 to 4096 */
	TRACE_PHASES,     /* a set in use that is another one every 100 minutes */
	TRACE_SCAN, /* a set in use, and a scan over others that comes round every 40 minutes */
	TRACE_HABITS,
};

struct guest_trace {
	uint8_t *bytes; /* the file */
	size_t count, room;
	size_t at; /* what was read */
};

/* @return 0, or an error; to be freed in any case */
int guest_trace_make(struct guest_trace *trace, enum guest_trace_habit habit);
void guest_trace_free(struct guest_trace *trace);

/* To be given to vmem_trace_reader, with the trace as its context. */
int guest_trace_read(void *trace, void *bytes, size_t count);

#endif
