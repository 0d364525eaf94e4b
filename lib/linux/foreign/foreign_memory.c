/* SPDX-License-Identifier: BSD-2-Clause */
/* Private memory of another process as a backing: it is filled, and nothing else can be done to it from here.
 * Pages are absent, with their source, arriving, in place or poisoned; none is ever taken out. */
#include <errno.h>
#include "linux/backing/backing.h"
#include "linux/foreign/foreign_events.h"
#include "linux/kernel/uffd_abi.h"

#define TRIES 10000 /* of a call, against removals that go on, where it tries again at once */
#define REFUSED_NS_MOST 1000000000 /* that one refusal tells of */
#define MAPPINGS_MAX 65536 /* of a process: more than Linux lets it have, unless told otherwise */
#define SHUT_RUN 512       /* pages that are made errors by one call */

static int foreign_open(struct vmem_region *r)
{
	r->removed = vmemi_bitmap_new(&r->arrays);
	if (!r->removed || vmemi_page_set_init(&r->unheeded, &r->arrays, r->pages))
		return -VMEM_ENOMEM;
	return 0;
}

/* A process that has not registered its memory would get zeros, and one that has is not changed by this. */
static int foreign_join(struct vmem_region *r, uint64_t first, uint64_t count)
{
	const unsigned zeropage = 4; /* _UFFDIO_ZEROPAGE: not for huge pages of hugetlbfs */
	uint64_t ioctls;
	int error = vmemi_uffd_register(r->uffd, vmemi_region_page(r, first),
					count * VMEM_PAGE_SIZE, false, &ioctls);

	if (error)
		return error == -VMEM_EBUSY || error == -VMEM_ENOMEM ? error : -VMEM_EINVAL;
	return ioctls >> zeropage & 1 ? 0 : -VMEM_ENOTSUP;
}

/* What is there already is found when it is filled. */
static int64_t foreign_count(struct vmem_region *r, uint64_t first, uint64_t count)
{
	(void)r;
	(void)first;
	(void)count;
	return 0;
}

static void foreign_empty(struct vmem_region *r)
{
	(void)r;
}

static void foreign_close(struct vmem_region *r)
{
	vmemi_bitmap_free(&r->arrays, r->removed);
	r->removed = NULL;
	if (r->unheeded.pages)
		vmemi_page_set_destroy(&r->unheeded, &r->arrays);
}

void vmemi_foreign_be_patient(struct vmem_foreign *f)
{
	f->patience = (struct vmemi_patience){ .began_ns = f->host->k->clock_ns(), .tries = TRIES };
}

void vmemi_foreign_await(struct vmem_foreign *f)
{
	f->patience.refusals = atomic_load(&f->refusals);
	f->patience.looked_ns = f->host->k->clock_ns();
}

/* Who removes much, but not all the time, lets pages come in between: so the time in which nothing is refused
 * counts, too. */
bool vmemi_foreign_is_worn_out(struct vmem_foreign *f, uint64_t most_ns, bool *ret_refused)
{
	struct vmemi_patience *p = &f->patience;
	uint64_t now = f->host->k->clock_ns(), since = now - p->looked_ns;

	*ret_refused = p->refusals != atomic_load(&f->refusals);
	if (*ret_refused) {
		vmemi_foreign_await(f);
		p->refused_ns += since < REFUSED_NS_MOST ? since : REFUSED_NS_MOST;
	}
	return 2 * p->refused_ns >= most_ns + (now - p->began_ns);
}

/* What the kernel said to a fill or a mark. */
static int heard(struct vmem_foreign *f, int error)
{
	if (error == -VMEM_EAGAIN || error == -VMEM_ENOMEM)
		atomic_fetch_add(&f->refusals, 1);
	return error;
}

/* Once more if a removal was not read; that its process has to run on is waited for elsewhere (-VMEM_EAGAIN).
 * -VMEM_EEXIST also where there is no memory any more: there is nothing to be filled, and who waits is woken. */
static int fill_page(struct vmem_region *r, uint64_t page, const void *src)
{
	struct vmem_foreign *f = r->foreign;
	void *address = vmemi_region_page(r, page);
	size_t done;
	bool removed;
	int error;

	for (unsigned tries = 0;; tries++) {
		vmemi_foreign_enter(f);
		removed = vmemi_foreign_removed(r, page);
		if (removed) /* what comes now came after that */
			atomic_fetch_and(&r->unheeded.pages[page / 64],
					 ~(UINT64_C(1) << page % 64));
		if (src && !removed)
			error = vmemi_uffd_copy(r->uffd, address, src, VMEM_PAGE_SIZE, false,
						&done);
		else
			error = vmemi_uffd_zeropage(r->uffd, address, VMEM_PAGE_SIZE);
		vmemi_foreign_leave(f);
		if (error != -VMEM_EAGAIN || tries)
			break;
		vmemi_foreign_drain(f);
	}
	if (error == -ESRCH)
		atomic_store(&f->gone, 1);
	return error == -ESRCH || error == -VMEM_ENOENT ? -VMEM_EEXIST : heard(f, error);
}

static int foreign_fill(struct vmem_region *r, const struct vmemi_at *at, uint64_t page,
			unsigned count, const void *src, bool *wp, size_t *ret_done)
{
	const unsigned char *from = src;
	unsigned done = 0;
	int error = 0;

	(void)at;
	*wp = false;
	while (done < count && !error) {
		error = fill_page(r, page + done,
				  from ? from + (size_t)done * VMEM_PAGE_SIZE : NULL);
		done += !error;
	}
	*ret_done = (size_t)done * VMEM_PAGE_SIZE;
	return error;
}

static int foreign_unstage(struct vmem_region *r, const struct vmemi_at *at, uint64_t page,
			   unsigned count, bool wp, size_t *ret_done)
{
	(void)r;
	(void)at;
	(void)page;
	(void)count;
	(void)wp;
	*ret_done = 0;
	return -VMEM_EIO;
}

static int foreign_read(struct vmem_region *r, uint64_t page, enum vmem_page_state from, void *data)
{
	(void)r;
	(void)page;
	(void)from;
	(void)data;
	return -VMEM_EIO;
}

static int foreign_write(struct vmem_region *r, uint64_t page, const void *data)
{
	(void)r;
	(void)page;
	(void)data;
	return -VMEM_EIO;
}

static const void *foreign_bytes(struct vmem_region *r, uint64_t page, void *buffer)
{
	(void)r;
	(void)page;
	(void)buffer;
	return NULL;
}

static unsigned foreign_take(struct vmemi_reclaim *rc, struct vmem_region *r)
{
	(void)rc;
	(void)r;
	return 0;
}

static uint32_t foreign_release(struct vmem_region *r, const uint64_t *pages, uint32_t count)
{
	(void)r;
	(void)pages;
	(void)count;
	return 0;
}

static bool foreign_begin_free(struct vmem_region *r, uint64_t page)
{
	(void)r;
	(void)page;
	return false;
}

const struct vmemi_backing vmemi_backing_foreign = {
	.open = foreign_open,
	.join = foreign_join,
	.count = foreign_count,
	.empty = foreign_empty,
	.close = foreign_close,
	.fill = foreign_fill,
	.unstage = foreign_unstage,
	.read = foreign_read,
	.write = foreign_write,
	.bytes = foreign_bytes,
	.take = foreign_take,
	.release = foreign_release,
	.begin_free = foreign_begin_free,
	.free_staged = foreign_release,
};

/* Its removal may have come after it was filled with zeros: then it is missing, and zeros it is. Or others were
 * faster. The claim is given back as it was: it is in place either way. */
enum vmemi_served vmemi_foreign_again(struct vmem_region *r, struct vmemi_fault *f)
{
	uint64_t old;
	int error;

	if (!vmemi_region_step(r, f->page, VMEMI_PAGE_CLAIM, 0, &old))
		return VMEMI_PUT_OFF;
	error = fill_page(r, f->page, NULL);
	vmemi_region_end(r, f->page, VMEMI_PAGE_RETURN, old);
	if (error == -VMEM_EEXIST) {
		vmemi_uffd_wake(r->uffd, vmemi_region_page(r, f->page), VMEM_PAGE_SIZE);
		vmemi_tally(&r->counters.faults_redundant, 1);
		return VMEMI_SERVED;
	}
	if (error)
		return VMEMI_PUT_OFF;
	vmemi_tally(&r->counters.faults_zero, 1);
	return VMEMI_SERVED;
}

static int mark(struct vmem_region *r, uint64_t page)
{
	if (!(r->host->features & VMEM_KERNEL_POISON)) /* whoever touches it waits for good */
		return 0;
	return vmemi_uffd_poison(r->uffd, vmemi_region_page(r, page), VMEM_PAGE_SIZE);
}

/* What these do to a page is over before the next removal is heard of, as a fill is. So they know of all
 * that were, and what is heard of later finds the page as they have left it. */
enum vmemi_served vmemi_foreign_lose(struct vmem_region *r, uint64_t page, int error)
{
	bool removed, again = false;
	int marked;

	vmemi_foreign_enter(r->foreign);
	removed = vmemi_foreign_removed(r, page);
	if (removed) {
		vmemi_region_end(r, page, VMEMI_PAGE_RETURN,
				 vmemi_page_word(VMEM_PAGE_ABSENT, 0, 0));
	} else {
		marked = heard(r->foreign, mark(r, page));
		again = marked == -VMEM_EAGAIN || marked == -VMEM_ENOMEM;
		if (!again)
			vmemi_region_end(r, page, VMEMI_PAGE_LOSE, 0);
	}
	vmemi_foreign_leave(r->foreign);
	if (removed) {
		vmemi_uffd_wake(r->uffd, vmemi_region_page(r, page), VMEM_PAGE_SIZE);
		return VMEMI_SERVED;
	}
	if (again) {
		vmemi_foreign_drain(r->foreign);
		return VMEMI_PUT_OFF;
	}
	vmemi_serve_tell_lost(r, page, error);
	return VMEMI_POISONED;
}

bool vmemi_foreign_return(struct vmem_region *r, uint64_t page)
{
	bool removed;

	vmemi_foreign_enter(r->foreign);
	removed = vmemi_foreign_removed(r, page);
	vmemi_region_end(r, page, VMEMI_PAGE_RETURN,
			 vmemi_page_word(removed ? VMEM_PAGE_ABSENT : VMEM_PAGE_SOURCE, 0, 0));
	vmemi_foreign_leave(r->foreign);
	return removed;
}

int vmemi_foreign_mark(struct vmem_region *r, uint64_t page)
{
	int error = -VMEM_EEXIST;

	vmemi_foreign_enter(r->foreign);
	if (!vmemi_foreign_removed(r, page))
		error = heard(r->foreign, mark(r, page));
	vmemi_foreign_leave(r->foreign);
	if (error == -VMEM_EAGAIN)
		vmemi_foreign_drain(r->foreign);
	return error;
}

/* UFFDIO_CONTINUE is not for private memory: the kernel refuses it, but first says whether a removal is under
 * way (-EAGAIN), and then whether there is a process (-ESRCH). */
static int ask(struct vmem_foreign *f, uint64_t start, uint64_t bytes)
{
	struct vmemi_uffdio_continue c = { .range = { start, bytes } };

	return f->host->k->ioctl(f->uffd.fd, VMEMI_UFFDIO_CONTINUE, &c);
}

bool vmemi_foreign_probe(struct vmem_foreign *f)
{
	if (!atomic_load(&f->gone) && ask(f, f->range[0].base, VMEM_PAGE_SIZE) == -ESRCH)
		atomic_store(&f->gone, 1);
	return atomic_load(&f->gone);
}

/* The answer when no removal is under way. */
static int hear_out(struct vmem_foreign *f, uint64_t start, uint64_t bytes)
{
	int error = ask(f, start, bytes);

	for (; error == -VMEM_EAGAIN && f->patience.tries; f->patience.tries--) {
		vmemi_foreign_drain(f);
		vmemi_relax(f->host->env);
		error = ask(f, start, bytes);
	}
	return error;
}

void vmemi_foreign_hear_out(struct vmem_foreign *f)
{
	vmemi_foreign_be_patient(f);
	vmemi_foreign_drain(f);
	hear_out(f, f->range[0].base, VMEM_PAGE_SIZE);
}

/* Before that it looks for the mapping, which must be one (-ENOENT). So one call tells of all that is in a mapping,
 * and where that ends is found by halving. In shared memory it would map a page that is in the file, which is what
 * a touch does there. */
static int judge_mapping(struct vmem_foreign *f, uint64_t start, uint64_t bytes,
			 uint64_t *ret_bytes)
{
	uint64_t in_one = VMEM_PAGE_SIZE, beyond = bytes + VMEM_PAGE_SIZE, half = bytes;
	int error = hear_out(f, start, in_one);

	while (error == -VMEM_EINVAL && beyond - in_one > VMEM_PAGE_SIZE) {
		error = hear_out(f, start, half);
		if (error == -VMEM_EINVAL) {
			in_one = half;
		} else if (error == -VMEM_ENOENT) {
			beyond = half;
			error = -VMEM_EINVAL;
		}
		half = in_one + (beyond - in_one) / 2 / VMEM_PAGE_SIZE * VMEM_PAGE_SIZE;
	}
	*ret_bytes = in_one;
	switch (error) {
	case -VMEM_EINVAL: /* private; or a kernel that does not know the call, which tells nothing */
	case -ESRCH: return 0;
	case -VMEM_ENOENT: return -VMEM_EINVAL;
	case -VMEM_EAGAIN: return -VMEM_EBUSY;
	default: return -VMEM_ENOTSUP;
	}
}

int vmemi_foreign_judge(struct vmem_foreign *f)
{
	unsigned mappings = 0;
	int error = 0;

	for (unsigned i = 0; i < f->count && !error; i++) {
		uint64_t start = f->range[i].base, end = start + f->range[i].bytes, bytes;

		for (; start < end && !error; start += bytes)
			error = mappings++ == MAPPINGS_MAX
					? -VMEM_EBUSY
					: judge_mapping(f, start, end - start, &bytes);
	}
	return error;
}

/* 0; -VMEM_EEXIST: a page is there; -VMEM_ENOENT: nothing is mapped, or not in one mapping; others. */
static int poison(struct vmem_region *r, uint64_t page, uint64_t count)
{
	struct vmem_foreign *f = r->foreign;
	int error;

	for (; f->patience.tries; f->patience.tries--) {
		error = vmemi_uffd_poison(r->uffd, vmemi_region_page(r, page),
					  count * VMEM_PAGE_SIZE);
		if (error == -ESRCH)
			atomic_store(&f->gone, 1);
		if (error == -ESRCH)
			return 0;
		if (error != -VMEM_EAGAIN)
			return error;
		vmemi_foreign_drain(f);
		vmemi_relax(r->host->env);
	}
	return -VMEM_EBUSY;
}

/* A run that has a page in place all the same, or is not in one mapping, is done page by page. */
static int poison_run(struct vmem_region *r, uint64_t page, uint64_t count)
{
	int error = poison(r, page, count);

	if (error != -VMEM_EEXIST && error != -VMEM_ENOENT)
		return error;
	for (uint64_t i = 0; i < count; i++) {
		error = poison(r, page + i, 1);
		if (error && error != -VMEM_EEXIST && error != -VMEM_ENOENT)
			return error;
	}
	return 0;
}

int vmemi_foreign_shut(struct vmem_region *r)
{
	uint64_t run = 0;
	int error = 0;

	if (vmemi_foreign_probe(r->foreign))
		return 0;
	if (!(r->host->features & VMEM_KERNEL_POISON))
		return -VMEM_EIO;
	for (uint64_t page = 0; page < r->pages && !error; page++) {
		bool in_place = vmemi_page_state(vmemi_region_word(r, page)) == VMEM_PAGE_RESIDENT;

		run += !in_place;
		if (run && (in_place || run == SHUT_RUN || page + 1 == r->pages)) {
			error = poison_run(r, page + !in_place - run, run);
			run = 0;
		}
	}
	if (error == -VMEM_ENOMEM)
		error = -VMEM_EBUSY;
	return !error || error == -VMEM_EBUSY ? error : -VMEM_EIO;
}
