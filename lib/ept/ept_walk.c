/* SPDX-License-Identifier: BSD-2-Clause */
/* The page walker in software. It goes down by the rules of the format (ept_walk_rules.h), which say what an entry is
 * and allows; here is what all formats share: the order of the checks, what an access needs, accessed and dirty bits,
 * and the exit information. No state: any thread, any time. */
#include <vmem/ept_walk.h>
#include "base/mem.h"
#include "base/opts.h"
#include "ept/ept_walk_rules.h"

/* How often a walk begins again because entries change under it, before it is given up. */
#define MOST_TRIES 1000u

#define ALL_RIGHTS (VMEM_EPT_READ | VMEM_EPT_WRITE | VMEM_EPT_EXEC | VMEM_EPT_EXEC_USER)

struct walk {
	struct vmemi_ept_rules rules;
	struct vmem_ept_view view;
	struct vmem_ept_access access;
	struct vmem_ept_walked walked;
	uint32_t wanted; /* VMEM_EPT_READ ...: what the access is */
	uint32_t above;  /* the AND of what the entries above the last one allow */
	uint32_t leaf;   /* the walk reached one, at walked.level */
	uint32_t beyond; /* the address is beyond what the levels reach: no entry was used */
};

static int is_table_access(const struct walk *w)
{
	return w->access.kind == VMEM_EPT_ACCESS_GUEST_TABLE ||
	       w->access.kind == VMEM_EPT_ACCESS_GUEST_TABLE_WRITE;
}

static int is_shadow_stack_access(const struct walk *w)
{
	return w->access.kind == VMEM_EPT_ACCESS_SHADOW_STACK ||
	       w->access.kind == VMEM_EPT_ACCESS_SHADOW_STACK_WRITE;
}

/* To a shadow stack that must be in a page of its own. */
static int is_guarded(const struct walk *w)
{
	return w->rules.guarded && is_shadow_stack_access(w) && !w->access.user;
}

/* What the access is. With accessed and dirty bits on, reading a table of the guest is a write, too, but not when
 * PDPTEs are loaded (SDM 29.3.3.2); on AMD it always is one (APM 15.25.6). */
static uint32_t wanted(const struct walk *w)
{
	const uint32_t format = w->rules.processor.format;

	switch (w->access.kind) {
	case VMEM_EPT_ACCESS_READ:
	case VMEM_EPT_ACCESS_SHADOW_STACK: return VMEM_EPT_READ;
	case VMEM_EPT_ACCESS_WRITE:
	case VMEM_EPT_ACCESS_SHADOW_STACK_WRITE: return VMEM_EPT_WRITE;
	case VMEM_EPT_ACCESS_FETCH:
		if (format == VMEM_EPT_VTD)
			return VMEM_EPT_READ;
		return w->access.user && (w->rules.context &
					  (VMEM_EPT_WALK_MBEC | VMEM_EPT_WALK_GMET))
			       ? VMEM_EPT_EXEC_USER
			       : VMEM_EPT_EXEC;
	case VMEM_EPT_ACCESS_GUEST_TABLE:
		if (format != VMEM_EPT_AMD && (!w->rules.ad || w->access.no_linear))
			return VMEM_EPT_READ;
		return VMEM_EPT_READ | VMEM_EPT_WRITE;
	default: return VMEM_EPT_READ | VMEM_EPT_WRITE;
	}
}

/* Down to a leaf, or to what ends the walk. WALK_OK: there is a leaf. */
static enum vmem_ept_outcome descend(struct walk *w)
{
	struct vmem_ept_walked *walked = &w->walked;
	uint64_t table = w->rules.root, common = UINT64_MAX;

	w->leaf = 0;
	w->beyond = w->access.gpa >> (12 + 9 * w->rules.levels) != 0;
	walked->level = w->rules.levels;
	if (w->beyond)
		return VMEM_EPT_WALK_VIOLATION;
	walked->rights = ALL_RIGHTS;
	for (;; walked->level--) {
		const uint32_t at = walked->level - 1;
		const uint64_t index = w->access.gpa >> (12 + 9 * at) & (VMEM_EPT_ENTRIES - 1);
		enum vmem_ept_misconfig why;
		enum vmemi_ept_entry state;
		uint64_t entry;

		walked->entry_hpa[at] = table + index * sizeof(entry);
		if (w->view.read(w->view.context, walked->entry_hpa[at], &entry) != 0)
			return VMEM_EPT_WALK_NO_TABLE;
		walked->entries[at] = entry;
		state = vmemi_ept_rules_entry(&w->rules, walked->level, entry, &why);
		if (state == VMEMI_EPT_ABSENT) {
			walked->rights = 0;
			return VMEM_EPT_WALK_VIOLATION;
		}
		if (state == VMEMI_EPT_BAD) {
			walked->misconfig = why;
			return VMEM_EPT_WALK_MISCONFIG;
		}
		w->above = walked->rights;
		walked->rights &= vmemi_ept_rules_rights(&w->rules, entry);
		common &= entry;
		if (state == VMEMI_EPT_LEAF) {
			walked->rights &= ~vmemi_ept_rules_withheld(&w->rules, common);
			w->leaf = 1;
			return VMEM_EPT_WALK_OK;
		}
		table = entry & VMEM_EPT_ADDRESS;
	}
}

/* What the access wants and the entries do not allow. */
static uint32_t lacking(const struct walk *w, uint64_t leaf)
{
	uint32_t lacks = w->wanted & ~w->walked.rights;

	if (is_guarded(w))
		return vmemi_ept_intel_shadow_stack_page(leaf, w->above) ? 0 : w->wanted;
	if (is_table_access(w) && (w->rules.context & VMEM_EPT_WALK_PAGING_WRITE) &&
	    (leaf & VMEM_EPT_INTEL_PAGING_WRITE))
		lacks &= ~VMEM_EPT_WRITE;
	return lacks;
}

/* A write that lacks only the right to write may have it for a part of the page. */
static int is_for_subpages(const struct walk *w, uint64_t leaf)
{
	return (w->rules.context & VMEM_EPT_WALK_SUBPAGE) && (leaf & VMEM_EPT_INTEL_SUBPAGE) &&
	       w->walked.level == 1 && w->wanted == VMEM_EPT_WRITE &&
	       (w->walked.rights & VMEM_EPT_READ) && !is_guarded(w) && !w->access.no_linear;
}

/* The leaf is there: may the access do it? */
static enum vmem_ept_outcome judge(struct walk *w)
{
	const uint64_t leaf = w->walked.entries[w->walked.level - 1];
	enum vmem_ept_outcome outcome = VMEM_EPT_WALK_OK;

	if (lacking(w, leaf))
		outcome = is_for_subpages(w, leaf)
				  ? vmemi_ept_subpage_walk(&w->rules, &w->view,
							   w->access.subpage_pointer, w->access.gpa,
							   &w->walked)
				  : VMEM_EPT_WALK_VIOLATION;
	if (outcome == VMEM_EPT_WALK_OK && (w->rules.context & VMEM_EPT_WALK_VERIFY) &&
	    (leaf & VMEM_EPT_INTEL_VERIFY) && w->access.unverified && !is_table_access(w) &&
	    !w->access.no_linear) {
		w->walked.qualification = VMEM_EPT_QUAL_VERIFY;
		return VMEM_EPT_WALK_VIOLATION;
	}
	return outcome;
}

/* Sets accessed bits from the top down, and the dirty bit of the leaf after a write. 0, 1 (an entry has changed),
 * or less than 0. */
static int mark(struct walk *w)
{
	struct vmem_ept_walked *walked = &w->walked;

	walked->logged = 0;
	if (!w->rules.ad)
		return 0;
	for (uint32_t level = w->rules.levels; level >= walked->level; level--) {
		const uint64_t entry = walked->entries[level - 1];
		uint64_t bits = w->rules.accessed;

		if (level == walked->level && (w->wanted & VMEM_EPT_WRITE))
			bits |= w->rules.dirty;
		bits &= ~entry;
		if (bits && w->view.set) {
			int err = w->view.set(w->view.context, walked->entry_hpa[level - 1], entry,
					      bits);

			if (err)
				return err;
		}
		if (bits & w->rules.dirty)
			walked->logged = 1;
	}
	return 0;
}

static uint64_t intel_qualification(const struct walk *w)
{
	const uint32_t rights = w->walked.rights;
	uint64_t q = w->walked.qualification; /* what judge() found */

	if (w->wanted & VMEM_EPT_READ)
		q |= VMEM_EPT_QUAL_READ;
	if (w->wanted & VMEM_EPT_WRITE)
		q |= VMEM_EPT_QUAL_WRITE;
	if (w->wanted & (VMEM_EPT_EXEC | VMEM_EPT_EXEC_USER))
		q |= VMEM_EPT_QUAL_FETCH;
	if (rights & VMEM_EPT_READ)
		q |= VMEM_EPT_QUAL_READABLE;
	if (rights & VMEM_EPT_WRITE)
		q |= VMEM_EPT_QUAL_WRITABLE;
	if (rights & VMEM_EPT_EXEC)
		q |= VMEM_EPT_QUAL_EXECUTABLE;
	if (rights & VMEM_EPT_EXEC_USER)
		q |= VMEM_EPT_QUAL_EXECUTABLE_USER;
	if (is_shadow_stack_access(w))
		q |= VMEM_EPT_QUAL_SHADOW_STACK;
	if (w->rules.guarded && w->leaf &&
	    (w->walked.entries[w->walked.level - 1] & VMEM_EPT_INTEL_SHADOW_STACK))
		q |= VMEM_EPT_QUAL_SHADOW_STACK_PAGE;
	if (w->rules.processor.format == VMEM_EPT_VTD || w->access.no_linear)
		return q;
	q |= VMEM_EPT_QUAL_LINEAR_VALID;
	return is_table_access(w) ? q : q | VMEM_EPT_QUAL_TRANSLATED;
}

static uint64_t amd_exit_info(const struct walk *w)
{
	const int misconfigured = w->walked.outcome == VMEM_EPT_WALK_MISCONFIG;
	const int gmet = (w->rules.context & VMEM_EPT_WALK_GMET) != 0;
	uint64_t info = 0;

	if (!gmet || is_table_access(w) || w->access.user)
		info |= VMEM_EPT_NPF_USER;
	if (misconfigured || w->leaf)
		info |= VMEM_EPT_NPF_PRESENT;
	if (misconfigured)
		info |= VMEM_EPT_NPF_RESERVED;
	if (w->wanted & VMEM_EPT_WRITE)
		info |= VMEM_EPT_NPF_WRITE;
	if (w->wanted & (VMEM_EPT_EXEC | VMEM_EPT_EXEC_USER))
		info |= VMEM_EPT_NPF_FETCH;
	if (is_shadow_stack_access(w))
		info |= VMEM_EPT_NPF_SHADOW_STACK;
	return info | (is_table_access(w) ? VMEM_EPT_NPF_GUEST_TABLE : VMEM_EPT_NPF_FINAL);
}

/* What a processor tells about a walk that ended without a translation. */
static void explain(struct walk *w)
{
	struct vmem_ept_walked *walked = &w->walked;

	if (w->rules.processor.format == VMEM_EPT_AMD)
		walked->qualification = amd_exit_info(w);
	else if (walked->outcome == VMEM_EPT_WALK_VIOLATION ||
		 w->rules.processor.format == VMEM_EPT_VTD)
		walked->qualification = intel_qualification(w);
	if (walked->outcome == VMEM_EPT_WALK_VIOLATION && !w->beyond &&
	    (w->rules.context & VMEM_EPT_WALK_VE))
		walked->virtualization_exception =
			!(walked->entries[walked->level - 1] & VMEM_EPT_INTEL_SUPPRESS_VE);
}

static void describe_leaf(struct walk *w)
{
	struct vmem_ept_walked *walked = &w->walked;
	const uint64_t entry = walked->entries[walked->level - 1];
	const uint64_t below = vmemi_ept_below(walked->level);

	walked->type = vmemi_ept_rules_type(&w->rules, entry);
	walked->ignore_pat =
		w->rules.processor.format == VMEM_EPT_INTEL && (entry & VMEM_EPT_INTEL_IGNORE_PAT);
	walked->hpa = (entry & VMEM_EPT_ADDRESS & ~below) | (w->access.gpa & below);
	walked->bytes = below + 1;
}

/* One walk from the top. 1: an entry has changed meanwhile. */
static int try_walk(struct walk *w)
{
	struct vmem_ept_walked *walked = &w->walked;
	int err = 0;

	memset(walked, 0, sizeof(*walked));
	walked->outcome = descend(w);
	if (walked->outcome == VMEM_EPT_WALK_OK) {
		walked->outcome = judge(w);
		describe_leaf(w);
	}
	if (walked->outcome == VMEM_EPT_WALK_OK)
		err = mark(w);
	if (err < 0)
		walked->outcome = VMEM_EPT_WALK_NO_TABLE;
	else if (walked->outcome == VMEM_EPT_WALK_VIOLATION ||
		 walked->outcome == VMEM_EPT_WALK_MISCONFIG)
		explain(w);
	return err > 0;
}

static void walk(struct walk *w)
{
	enum vmem_ept_misconfig why = vmemi_ept_rules_pointer(&w->rules, w->access.pointer);

	if (why == VMEM_EPT_WELL && (w->rules.context & VMEM_EPT_WALK_SUBPAGE))
		why = vmemi_ept_subpage_pointer(&w->rules, w->access.subpage_pointer);
	if (why != VMEM_EPT_WELL) {
		memset(&w->walked, 0, sizeof(w->walked));
		w->walked.outcome = VMEM_EPT_WALK_BAD_POINTER;
		w->walked.misconfig = why;
		return;
	}
	w->wanted = wanted(w);
	for (uint32_t tries = 0; tries < MOST_TRIES; tries++)
		if (!try_walk(w))
			return;
	w->walked.outcome = VMEM_EPT_WALK_NO_TABLE;
}

int vmem_ept_walk(const struct vmem_ept_capabilities *capabilities,
		  const struct vmem_ept_view *view, const struct vmem_ept_access *access,
		  struct vmem_ept_walked *ret_walked)
{
	struct walk w;
	int err;

	if (!ret_walked || ret_walked->size < sizeof(ret_walked->size))
		return -VMEM_EINVAL;
	err = vmemi_callbacks_take(&w.access, sizeof(w.access),
				   VMEMI_BYTES_TO(struct vmem_ept_access, unverified), access);
	if (!err)
		err = vmemi_callbacks_take(&w.view, sizeof(w.view),
					   VMEMI_BYTES_TO(struct vmem_ept_view, set), view);
	if (!err)
		err = vmemi_ept_rules_take(&w.rules, capabilities, w.access.context);
	if (err)
		return err;
	if (!w.view.read || w.access.kind > VMEM_EPT_ACCESS_SHADOW_STACK_WRITE ||
	    (w.rules.processor.format == VMEM_EPT_VTD && is_shadow_stack_access(&w)))
		return -VMEM_EINVAL;
	walk(&w);
	return vmemi_opts_give(ret_walked, &w.walked, sizeof(w.walked));
}
