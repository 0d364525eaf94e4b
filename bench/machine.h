/* SPDX-License-Identifier: BSD-2-Clause */
/* Clocks, processors, small files of /proc and /sys, and memory to measure on. */
#ifndef BENCH_MACHINE_H
#define BENCH_MACHINE_H
#include <stddef.h>
#include <stdint.h>

#define PAGE ((size_t)4096)

uint64_t machine_now_ns(void);
uint64_t machine_thread_cpu_ns(void);
void machine_sleep_ms(unsigned ms);

/* How many processors the bench may use. The first call, before any binding, decides which. */
unsigned machine_cpus(void);
/* Bind the calling thread, and those it starts from then on, to one of them (number modulo how many
 * there are), or let it go to all again. Ends the bench if that is refused. */
void machine_pin(unsigned cpu);
void machine_unpin(void);

/* Read or write a small file as text. @return 0, or -1 with errno */
int machine_read(const char *path, char *text, size_t capacity);
int machine_write(const char *path, const char *text);
/* Write, and write back what was there when the bench is over. */
int machine_set(const char *path, const char *text);

/* Zeroed private memory, aligned to 2 MiB, in small pages unless touched otherwise. NULL: none left */
uint8_t *machine_map(size_t bytes);
void machine_unmap(void *memory, size_t bytes);

/* Touch as much memory as the bench will use, and give it back: on a virtual machine the host's first
 * touch of a frame costs ten times the work that is to be measured. */
void machine_warm(size_t bytes);

/* Pages of a range that are in swap. */
size_t machine_swapped_pages(const void *memory, size_t bytes);

/* A permutation of 0..count-1. */
void machine_shuffle(uint32_t *order, size_t count, uint64_t seed);

#endif
