/* SPDX-License-Identifier: BSD-2-Clause */
/* Looks at whole trees of second-stage tables, by the walker's rules (ept_walk_rules.h). Goes down with a stack of its
 * own, one frame for each level, so that hostile tables cost time but never depth. No state: any thread, any time. */
#include <vmem/ept_walk.h>
#include "base/mem.h"
#include "base/opts.h"
#include "ept/ept_walk_rules.h"

#define FLAGS \
	(VMEM_EPT_CHECK_TIGHT | VMEM_EPT_CHECK_VE | VMEM_EPT_CHECK_DIRTY | VMEM_EPT_CHECK_5_LEVELS)

/* A table that is being looked at. */
struct frame {
	uint64_t table;
	uint64_t gpa;   /* of its first entry */
	uint64_t link;  /* the entry that refers to it; of the root 0 */
	uint32_t index; /* the entry that is next */
	uint32_t used;  /* something is present or noted */
};

struct check {
	struct vmemi_ept_rules rules;
	struct vmem_ept_view view;
	uint32_t flags;
	int (*seen)(void *context, uint64_t hpa);
	struct vmem_ept_checked out;
	uint32_t level;                      /* of the table on top of the stack */
	struct frame stack[VMEM_EPT_LEVELS]; /* [level - 1] */
};

/* Notes the first defect; -1, so that the caller can stop. */
static int defect(struct check *c, enum vmem_ept_defect what, uint64_t gpa, uint64_t entry)
{
	c->out.defect = what;
	c->out.level = c->level;
	c->out.gpa = gpa;
	c->out.entry = entry;
	return -1;
}

/* Puts a table onto the stack, which is at its level. */
static int enter(struct check *c, uint64_t table, uint64_t gpa, uint64_t link)
{
	for (uint32_t above = c->level; above < c->rules.levels; above++)
		if (c->stack[above].table == table)
			return defect(c, VMEM_EPT_DEFECT_SHARED_TABLE, gpa, link);
	if (c->seen && c->seen(c->view.context, table))
		return defect(c, VMEM_EPT_DEFECT_SHARED_TABLE, gpa, link);
	c->out.tables[c->level - 1]++;
	c->stack[c->level - 1] = (struct frame){ .table = table, .gpa = gpa, .link = link };
	return 0;
}

static int look_absent(struct check *c, struct frame *f, uint64_t gpa, uint64_t entry)
{
	if (entry & ~VMEM_EPT_INTEL_SUPPRESS_VE) {
		f->used = 1;
		c->out.noted++;
	}
	if ((c->flags & VMEM_EPT_CHECK_VE) && !(entry & VMEM_EPT_INTEL_SUPPRESS_VE))
		return defect(c, VMEM_EPT_DEFECT_VE, gpa, entry);
	return 0;
}

static int look_leaf(struct check *c, uint64_t gpa, uint64_t entry)
{
	c->out.leaves[c->level - 1]++;
	if ((c->flags & VMEM_EPT_CHECK_DIRTY) && c->rules.ad && (entry & c->rules.dirty) &&
	    !(entry & c->rules.accessed))
		return defect(c, VMEM_EPT_DEFECT_DIRTY_ONLY, gpa, entry);
	if ((c->flags & VMEM_EPT_CHECK_VE) && !(entry & VMEM_EPT_INTEL_SUPPRESS_VE))
		return defect(c, VMEM_EPT_DEFECT_VE, gpa, entry);
	return 0;
}

/* The next entry of the table on top; goes down where it refers to a table. */
static int look(struct check *c, struct frame *f)
{
	const uint64_t gpa = f->gpa + f->index * VMEM_EPT_LEVEL_BYTES(c->level);
	enum vmem_ept_misconfig why;
	uint64_t entry;

	if (c->view.read(c->view.context, f->table + f->index * sizeof(entry), &entry) != 0)
		return defect(c, VMEM_EPT_DEFECT_NO_TABLE, f->gpa, f->link);
	f->index++;
	switch (vmemi_ept_rules_entry(&c->rules, c->level, entry, &why)) {
	case VMEMI_EPT_ABSENT: return look_absent(c, f, gpa, entry);
	case VMEMI_EPT_BAD:
		c->out.misconfig = why;
		return defect(c, VMEM_EPT_DEFECT_MISCONFIGURED, gpa, entry);
	case VMEMI_EPT_LEAF: f->used = 1; return look_leaf(c, gpa, entry);
	default:
		f->used = 1;
		c->level--;
		return enter(c, entry & VMEM_EPT_ADDRESS, gpa, entry);
	}
}

static void check(struct check *c)
{
	c->level = c->rules.levels;
	if (enter(c, c->rules.root, 0, 0))
		return;
	while (c->level <= c->rules.levels) {
		struct frame *f = &c->stack[c->level - 1];

		if (f->index < VMEM_EPT_ENTRIES) {
			if (look(c, f))
				return;
			continue;
		}
		if (!f->used && f->link && (c->flags & VMEM_EPT_CHECK_TIGHT)) {
			defect(c, VMEM_EPT_DEFECT_EMPTY_TABLE, f->gpa, f->link);
			return;
		}
		c->level++;
	}
}

int vmem_ept_check(const struct vmem_ept_capabilities *capabilities,
		   const struct vmem_ept_view *view, uint64_t pointer, uint32_t flags,
		   int (*seen)(void *context, uint64_t hpa), struct vmem_ept_checked *ret_checked)
{
	struct check c = { .flags = flags, .seen = seen };
	enum vmem_ept_misconfig why;
	uint32_t context = 0;
	int err;

	if (!ret_checked || ret_checked->size < sizeof(ret_checked->size) || (flags & ~FLAGS))
		return -VMEM_EINVAL;
	err = vmemi_callbacks_take(&c.view, sizeof(c.view),
				   VMEMI_BYTES_TO(struct vmem_ept_view, set), view);
	if (!err)
		err = vmemi_ept_rules_take(&c.rules, capabilities, 0);
	if (err)
		return err;
	if (c.rules.processor.format == VMEM_EPT_INTEL &&
	    (c.rules.processor.caps & VMEM_EPT_CAP_MBEC))
		context |= VMEM_EPT_WALK_MBEC;
	if (flags & VMEM_EPT_CHECK_5_LEVELS)
		context |= VMEM_EPT_WALK_5_LEVELS;
	err = vmemi_ept_rules_take(&c.rules, capabilities, context);
	if (err)
		return err;
	if (!c.view.read ||
	    ((flags & VMEM_EPT_CHECK_VE) && c.rules.processor.format != VMEM_EPT_INTEL))
		return -VMEM_EINVAL;
	why = vmemi_ept_rules_pointer(&c.rules, pointer);
	if (why != VMEM_EPT_WELL) {
		c.out.defect = VMEM_EPT_DEFECT_POINTER;
		c.out.misconfig = why;
	} else {
		check(&c);
	}
	return vmemi_opts_give(ret_checked, &c.out, sizeof(c.out));
}
