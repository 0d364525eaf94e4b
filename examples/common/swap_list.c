/* SPDX-License-Identifier: BSD-2-Clause */
/* See the header. */
#include "common/swap_list.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>

#include <vmem/common.h>
#include <vmem/manager_device.h>

#include "common/swap_open.h"
#include "common/units.h"

#define LINE_MOST (PATH_MAX + 1024u)

typedef unsigned long long ull;

static void tell(void (*how)(const char *line), const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void tell(void (*how)(const char *line), const char *format, ...)
{
	char line[LINE_MOST];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	how(line);
}

int swap_open_all(struct swap *swap, const struct swap_options *options,
		  const struct vmem_allocator *allocator)
{
	for (uint32_t i = 0; i < options->count; i++) {
		struct swap_one *one = &swap->one[i];
		struct swap_open_opts opts = {
			.text = options->text[i],
			.plain = options->plain,
			.allocator = allocator,
		};
		struct swap_words words;
		int error = swap_open(&one->device, &opts, &words);

		if (error) {
			tell(swap->complain, "--swap %s: %s", opts.text, words.text);
			return error;
		}
		one->text = opts.text;
		one->secrecy = swap_secrecy(one->device);
		swap->count++;
		tell(swap->say, "swap %s: %s, %s.%s%s", one->text,
		     UNITS_BYTES(one->device->size_bytes), one->secrecy, words.text[0] ? " " : "",
		     words.text);
	}
	return 0;
}

int swap_hand_over(struct swap *swap, vmem_manager *manager, const struct swap_options *options)
{
	for (uint32_t i = 0; i < swap->count; i++) {
		struct swap_one *one = &swap->one[i];
		struct vmem_store_device_opts opts = {
			.size = sizeof(opts),
			.flags = options->plain ? VMEM_STORE_DEVICE_PLAIN : 0,
			.priority = (int32_t)(swap->count - i),
		};
		int error = vmem_manager_add_device(manager, one->device, &opts, &one->number);

		if (error) {
			tell(swap->complain, "--swap %s: the library does not take it: %s.%s",
			     one->text, vmem_strerror(error),
			     error == -VMEM_ENOSPC ? " Give more with --budget." : "");
			return error;
		}
		one->device = NULL;
	}
	return 0;
}

void swap_close(struct swap *swap)
{
	for (uint32_t i = 0; i < swap->count; i++) {
		vmem_device_close(swap->one[i].device);
		swap->one[i].device = NULL;
	}
}

void swap_sample(const struct swap *swap, vmem_manager *manager, struct swap_sample *sample)
{
	*sample = (struct swap_sample){ .out.size = sizeof(sample->out) };
	(void)vmem_manager_get_out_stats(manager, &sample->out);
	for (uint32_t i = 0; i < swap->count; i++) {
		struct vmem_store_device_stats *s = &sample->device[i];

		s->size = sizeof(*s);
		(void)vmem_manager_get_device_stats(manager, swap->one[i].number, s);
		sample->size_bytes += s->size_bytes;
		sample->taken_bytes += s->taken_bytes;
		sample->written_bytes += s->written_bytes;
		sample->read_bytes += s->read_bytes;
		sample->bad |= s->is_bad != 0;
	}
}

void swap_watch(struct swap *swap, vmem_manager *manager)
{
	struct swap_sample sample;

	if (swap->count == 0)
		return;
	swap_sample(swap, manager, &sample);
	for (uint32_t i = 0; i < swap->count; i++) {
		struct swap_one *one = &swap->one[i];

		if (!sample.device[i].is_bad || one->told_bad)
			continue;
		one->told_bad = true;
		tell(swap->say,
		     "WARNING: swap %s has failed: nothing more is written there; pages that are there and "
		     "cannot be read are lost, others stay in memory or go elsewhere.",
		     one->text);
	}
	if (sample.out.no_room && !swap->told_full) {
		swap->told_full = true;
		tell(swap->say,
		     "WARNING: no swap device has room or may be written: what is stored stays in "
		     "memory. Give more with --swap, or a larger --budget.");
	}
	if (sample.out.lost && !swap->told_lost) {
		swap->told_lost = true;
		tell(swap->say,
		     "WARNING: pages could not be read back from swap: they are lost, and who "
		     "touches them is told.");
	}
}

static void print_one(const struct swap *swap, const struct swap_one *one,
		      const struct vmem_store_device_stats *s)
{
	char errors[96] = "";

	if (s->write_errors || s->read_errors)
		snprintf(errors, sizeof(errors), "; %llu writes and %llu reads failed",
			 (ull)s->write_errors, (ull)s->read_errors);
	tell(swap->say, "swap %s: %s of %s taken, %s written, %s read%s%s", one->text,
	     UNITS_BYTES(s->taken_bytes), UNITS_BYTES(s->size_bytes), UNITS_BYTES(s->written_bytes),
	     UNITS_BYTES(s->read_bytes), errors, s->is_bad ? "; it is BAD" : "");
}

void swap_print_totals(const struct swap *swap, vmem_manager *manager)
{
	struct swap_sample sample;

	if (swap->count == 0)
		return;
	swap_sample(swap, manager, &sample);
	for (uint32_t i = 0; i < swap->count; i++)
		print_one(swap, &swap->one[i], &sample.device[i]);
	tell(swap->say,
	     "swap: %s written, %s read by %llu loads, %llu lost; %s of pages are there at the end",
	     UNITS_BYTES(sample.written_bytes), UNITS_BYTES(sample.read_bytes),
	     (ull)sample.out.loads, (ull)sample.out.lost, UNITS_BYTES(sample.out.live_bytes));
}

static void number(cJSON *object, const char *name, uint64_t value)
{
	json_number(object, name, (double)value);
}

static void add_device(cJSON *devices, const struct swap_one *one,
		       const struct vmem_store_device_stats *s)
{
	cJSON *object = json_append(devices, cJSON_CreateObject());

	json_text(object, "path", one->text);
	json_text(object, "secrecy", one->secrecy);
#define ADD(field) number(object, #field, s->field)
	ADD(size_bytes);
	ADD(taken_bytes);
	ADD(written_bytes);
	ADD(read_bytes);
	ADD(write_errors);
	ADD(read_errors);
	ADD(is_bad);
	ADD(is_worn);
#undef ADD
}

void swap_add_json(cJSON *root, const struct swap *swap, vmem_manager *manager)
{
	struct swap_sample sample;
	cJSON *object, *devices;

	if (swap->count == 0)
		return;
	swap_sample(swap, manager, &sample);
	object = json_need(cJSON_AddObjectToObject(root, "swap"));
	number(object, "size_bytes", sample.size_bytes);
	number(object, "taken_bytes", sample.taken_bytes);
	number(object, "written_bytes", sample.written_bytes);
	number(object, "read_bytes", sample.read_bytes);
#define ADD(field) number(object, #field, sample.out.field)
	ADD(segments);
	ADD(live_bytes);
	ADD(writing);
	ADD(loads);
	ADD(lost);
	ADD(saves_waited);
	ADD(no_room);
#undef ADD
	devices = json_need(cJSON_AddArrayToObject(object, "devices"));
	for (uint32_t i = 0; i < swap->count; i++)
		add_device(devices, &swap->one[i], &sample.device[i]);
}
