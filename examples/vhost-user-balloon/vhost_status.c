/* SPDX-License-Identifier: BSD-2-Clause */
/* Answers of the control socket: one JSON object a line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json_file.h"
#include "vhost_closer.h"
#include "vhost_server.h"

#define PAGE UINT64_C(4096)

/* NULL: it is not whole, or there is no memory for the text. */
static char *text_of(cJSON *root)
{
	char *plain = root && json_is_whole() ? cJSON_PrintUnformatted(root) : NULL;
	char *line = plain ? malloc(strlen(plain) + 2) : NULL;

	if (line)
		sprintf(line, "%s\n", plain);
	cJSON_free(plain);
	cJSON_Delete(root);
	return line;
}

static cJSON *begin(bool good)
{
	cJSON *root;

	json_begin();
	root = json_need(cJSON_CreateObject());
	if (root)
		json_need(cJSON_AddBoolToObject(root, "ok", good));
	return root;
}

char *vhost_error_text(const char *why)
{
	cJSON *root = begin(false);

	if (root)
		json_text(root, "error", why);
	return text_of(root);
}

char *vhost_good_text(const struct vhost_server *s)
{
	cJSON *root = begin(true);

	if (root)
		json_number(root, "target_bytes", (double)s->target_bytes);
	return text_of(root);
}

static void add_progress(cJSON *o, const struct vmem_balloon_progress *p)
{
	char features[24];

	snprintf(features, sizeof(features), "0x%llx", (unsigned long long)p->features);
	json_need(cJSON_AddBoolToObject(o, "driver", p->driver != 0));
	json_text(o, "features", features);
	json_number(o, "told_bytes", (double)(p->told * PAGE));
	json_number(o, "balloon_bytes", (double)(p->pages * PAGE));
	json_number(o, "claimed_bytes", (double)(p->actual * PAGE));
	json_number(o, "partial_bytes", (double)(p->partial * PAGE));
	json_number(o, "bytes_per_s", (double)(p->pages_per_s * PAGE));
	if (p->eta_ns == UINT64_MAX)
		json_need(cJSON_AddNullToObject(o, "eta_s"));
	else
		json_number(o, "eta_s", (double)p->eta_ns / 1e9);
	json_number(o, "stalled_s", (double)p->stalled_ns / 1e9);
	json_number(o, "proposed_bytes", (double)(p->proposed * PAGE));
}

static void add_counters(cJSON *o, const struct vmem_balloon_counters *c)
{
	const struct {
		const char *name;
		uint64_t value;
	} all[] = {
		{ "buffers", c->buffers },
		{ "inflated", c->inflated },
		{ "deflated", c->deflated },
		{ "reported", c->reported },
		{ "poisoned", c->poisoned },
		{ "unaligned", c->unaligned },
		{ "stats", c->stats },
		{ "resets", c->resets },
		{ "outside", c->outside },
		{ "inflated_twice", c->inflated_twice },
		{ "not_inflated", c->not_inflated },
		{ "free_inflated", c->free_inflated },
		{ "malformed", c->malformed },
		{ "unexpected", c->unexpected },
		{ "late_writes", c->late_writes },
	};
	cJSON *counters = json_need(cJSON_AddObjectToObject(o, "counters"));

	for (size_t i = 0; counters && i < sizeof(all) / sizeof(all[0]); i++)
		json_number(counters, all[i].name, (double)all[i].value);
}

static uint64_t not_released(const struct vmem_discard_counts *c)
{
	return c->pinned + c->failed + c->cut;
}

static void add_client(cJSON *o, struct vhost_server *s)
{
	struct vmem_balloon_progress p = { .size = sizeof(p) };
	struct vmem_balloon_counters c = { .size = sizeof(c) };
	struct vmem_discard_metrics d = { .size = sizeof(d) };

	(void)vmem_balloon_get_progress(s->client.balloon, &p);
	(void)vmem_balloon_get_counters(s->client.balloon, &c);
	(void)vmem_discard_get_metrics(s->client.discard, &d);
	json_need(cJSON_AddBoolToObject(o, "target_too_large",
					s->client.memory.count &&
						p.target != s->target_bytes / PAGE));
	json_number(o, "memory_bytes", (double)vhost_memory_bytes(&s->client.memory));
	json_number(o, "file_bytes", (double)vhost_memory_file_bytes(&s->client.memory));
	add_progress(o, &p);
	json_number(o, "released_bytes",
		    (double)(d.inflated.released + d.reported.released + d.retried.released));
	json_number(o, "not_released_bytes",
		    (double)(not_released(&d.inflated) + not_released(&d.reported)));
	add_counters(o, &c);
}

char *vhost_status_text(struct vhost_server *s)
{
	cJSON *root = begin(true), *events;

	if (!root)
		return NULL;
	json_need(cJSON_AddBoolToObject(root, "client", s->has_client));
	json_number(root, "clients", (double)s->clients);
	json_number(root, "refused", (double)s->refused);
	if (s->refused)
		json_text(root, "refused_for", s->refused_for);
	json_number(root, "closing", (double)vhost_closer_count());
	json_number(root, "target_bytes", (double)s->target_bytes);
	if (s->has_client)
		add_client(root, s);
	events = json_need(cJSON_AddObjectToObject(root, "events"));
	for (int i = 0; events && i < VHOST_EVENTS; i++)
		if (vhost_event_name(i))
			json_number(events, vhost_event_name(i), (double)s->events[i]);
	return text_of(root);
}

static const char *const tags[VMEM_BALLOON_TAGS] = {
	"swap_in_bytes",  "swap_out_bytes", "major_faults",    "minor_faults",
	"free_bytes",     "total_bytes",    "available_bytes", "caches_bytes",
	"hugetlb_allocs", "hugetlb_fails",  "oom_kills",       "alloc_stalls",
	"scanned_async",  "scanned_direct", "reclaimed_async", "reclaimed_direct",
};

char *vhost_stats_text(struct vhost_server *s)
{
	struct vmem_balloon_guest g = { .size = sizeof(g) };
	cJSON *root;

	if (!s->has_client || vmem_balloon_get_guest(s->client.balloon, &g) != 0)
		return vhost_error_text("the guest has told nothing");
	root = begin(true);
	if (!root)
		return NULL;
	json_number(root, "age_s", (double)(s->now_ns - g.told_ns) / 1e9);
	for (unsigned i = 0; i < VMEM_BALLOON_TAGS; i++)
		if (g.known >> i & 1)
			json_number(root, tags[i], (double)g.values[i]);
	json_number(root, "swap_in_bytes_per_s", (double)g.swap_in_per_s);
	json_number(root, "swap_out_bytes_per_s", (double)g.swap_out_per_s);
	json_number(root, "major_faults_per_s", (double)g.major_faults_per_s);
	return text_of(root);
}
