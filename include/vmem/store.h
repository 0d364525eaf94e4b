/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/store.h
 *  The page store: what a cold page is worth, and where it is kept. A page of one repeated 32-bit word
 *  lives in its reference. Any other has an object in the pool, which equal pages of its sharing domain
 *  share: compressed quickly when it arrives, and encoded anew when it has stayed, alone or against a page
 *  like it. Accounts are kept per VM.
 *
 *  A reference (ref) has at most 56 bits and is never 0, so that it fits beside the state of a page
 *  in one word. One that was dropped is refused, unless a later save of the same VM has returned it
 *  again; those of other VMs are always refused. But pages that live in their reference are only counted, all
 *  of a VM together: such a reference loads although it was dropped, and can be dropped as often as the VM has
 *  such pages. The time of a load does not tell what VMs of other sharing domains have stored. */
#ifndef VMEM_STORE_H
#define VMEM_STORE_H
#include <vmem/allocator.h>
#include <vmem/codec.h>
#include <vmem/common.h>
#include <vmem/env.h>
VMEM_BEGIN_DECLS

typedef struct vmem_store vmem_store; /* opaque */

typedef uint64_t vmem_store_ref;   /**< 1 .. 2^56-1 */
typedef uint64_t vmem_store_token; /**< a load in progress; never 0 */

/** Options. Fields are only ever added at the end. */
struct vmem_store_opts {
	size_t size;    /**< sizeof(*this) as the caller compiled it */
	uint64_t flags; /**< VMEM_STORE_*; an unknown bit is -VMEM_EINVAL */
	/** for tables; NULL: libc (freestanding: -VMEM_EINVAL) */
	const struct vmem_allocator *allocator;
	const struct vmem_allocator *segments; /**< for the pool's segments; NULL: as allocator */
	const struct vmem_env *env; /**< NULL: pthread and no log (freestanding: no locks) */
	uint64_t budget_bytes;      /**< most bytes of segments, 0: no limit */
	/** page codecs: the first is used on arrival, zstd and delta for pages that have stayed, if they
	 *  are there; NULL: LZ4, zstd and delta (freestanding: none) */
	const struct vmem_codec *const *codecs;
	uint32_t codec_count; /**< 0..13 */
	uint32_t parallel;    /**< calls that encode or decode at once, 1..64, 0: 8 */
	uint32_t cpu;         /**< VMEM_CPU_* that may be used */
	/** a page that encodes to more is refused with -VMEM_EFBIG, or passes through memory to a device
	 *  (store_device.h); 0 or 4096: kept raw. 2048 is the rule of VMware's ESXi: only what compresses 2:1 */
	uint32_t max_object_bytes;
	/** any number, best a random one, with which the tables of equal pages are made: a guest that does
	 *  not know it cannot choose pages that crowd one place of them */
	uint32_t seed;
	/** a page that has stayed for so long is encoded anew by vmem_store_work(), at the latest after
	 *  twice the time, or one time more for each that compaction has moved it; not those in a segment
	 *  that is being filled. 0: 2000 */
	uint32_t cold_after_ms;
	uint32_t cold_pages_per_second; /**< most that are encoded anew; 0: no limit but the time */
	uint32_t reserved;              /**< 0 */
};

/** Flags of a store. */
#define VMEM_STORE_AS_SAVED (UINT64_C(1) << 0) /**< pages are never encoded anew */

/** Who may share objects with whom. Two domains never do, not even as references of deltas. */
enum vmem_store_sharing {
	VMEM_STORE_SHARE_VM = 0,   /**< equal pages of the VM; the default */
	VMEM_STORE_SHARE_NONE = 1, /**< none */
	VMEM_STORE_SHARE_GROUP =
		2 /**< equal pages of all VMs that name the same group: they may find out
	                                what others of it have stored, by how much memory it takes and
	                                                by the time of saves and loads */
};

/** No cap of a VM: it may take all of the budget. What is over a cap is refused: this is for who has no other
 *  place, such as a swap device, for such pages. */
#define VMEM_STORE_NO_CAP UINT32_MAX

/** Options of a VM. Fields are only ever added at the end. */
struct vmem_store_vm_opts {
	size_t size;       /**< sizeof(*this) as the caller compiled it */
	uint64_t flags;    /**< 0 */
	uint64_t vm_bytes; /**< guest memory of the VM, for its cap; 0: not told */
	/** most bytes of its objects in the pool (physical_bytes of its account), in percent of
	 *  vm_bytes: 1..100, or VMEM_STORE_NO_CAP. 0: 10, without vm_bytes no cap. Pages that are being
	 *  saved when it is reached may go past it */
	uint32_t cap_percent;
	uint32_t sharing;  /**< enum vmem_store_sharing */
	uint64_t group;    /**< its name, any number; 0 without VMEM_STORE_SHARE_GROUP */
	uint64_t reserved; /**< 0 */
};

/** What became of stored pages: of one VM, or of all. How many times less they take is
 *
 *      logical_bytes / physical_bytes                        of a VM, its objects alone
 *      logical_bytes / (segment_bytes + metadata_bytes)      in total, with all that the store takes
 *
 *  Metadata is not told by VM: an entry costs the same for each page in the pool, and nothing for one that its
 *  reference holds. So a VM's part of it is nearly metadata_bytes of the total, times pages - pages_same of
 *  the VM, by pages - pages_same of the total. */
struct vmem_store_account {
	size_t size;    /**< sizeof(*this) as the caller compiled it; set before the call */
	uint64_t pages; /**< stored now */
	uint64_t
		pages_same; /**< of them one repeated word; of 64-bit words one of each, the others are
	                                pages_equal */
	uint64_t pages_compressed; /**< of them encoded by a codec */
	uint64_t pages_raw;        /**< of them kept as they are */
	uint64_t logical_bytes;    /**< pages * 4096 */
	uint64_t
		physical_bytes; /**< bytes of their objects in the pool, with headers and grain, and of
	                              those that only deltas need any more */
	uint64_t metadata_bytes; /**< in total, of a VM 0: pool index and tables, the store's own */
	uint64_t segment_bytes;  /**< in total, of a VM 0: memory taken for segments */
	uint64_t saves;          /**< since the start */
	uint64_t loads;          /**< since the start */
	uint64_t rejects;        /**< saves refused since the start: too large or no room */
	uint64_t corrupt;        /**< loads that failed their checksum since the start */
	/* Of pages_compressed, by codec; others are the caller's. */
	uint64_t pages_lz4;
	uint64_t pages_zstd;
	uint64_t pages_delta; /**< made against another page */
	/** of pages: those that use an object which another page uses too, but for one of each. In a
	 *  group pages and bytes are divided among its VMs by the number of their pages */
	uint64_t pages_equal;
	/* CPU time since the start, of pages that are not in their reference. Saves and loads are timed
	 * one in 64, and that counted 64 times. */
	uint64_t cpu_save_ns;
	uint64_t cpu_load_ns; /**< peeks too */
	/** of vmem_store_work(): of a VM what encoding its pages anew has taken, of a group's divided as pages
	 *  are; in total all of it */
	uint64_t cpu_work_ns;
};

/** One page of a batch. Begin with all zeros: an item whose reserved words are not 0 gets -VMEM_EINVAL. */
struct vmem_store_item {
	uint64_t key;           /**< the caller's name of the page: (region, page number) */
	void *page;             /**< 4096 bytes, aligned to 8; read by saves, written by loads */
	vmem_store_ref ref;     /**< set by saves; given to loads and drops */
	vmem_store_token token; /**< set by loads that return -VMEM_EINPROGRESS */
	int32_t result;         /**< what the single call would have returned */
	uint32_t flags;         /**< 0; reserved */
	uint64_t reserved[2];   /**< 0 */
};

/** What vmem_store_poll() reports. */
enum vmem_store_event_type {
	VMEM_STORE_LOADED =
		1, /**< the load named by token is over; result says how; key as given to the load */
	VMEM_STORE_OFFER =
		2, /**< the page of key lies beside one just read and is cheap to load now */
	VMEM_STORE_LOST = 3 /**< the page of key is gone; result says why */
};

/** An event. The array is the caller's, all of each entry is written. */
struct vmem_store_event {
	enum vmem_store_event_type type;
	int32_t result;
	uint32_t vm;
	uint32_t flags; /**< 0; reserved */
	uint64_t key;
	vmem_store_token token; /**< of a load, else 0 */
	uint64_t reserved[2];   /**< 0 */
};

/** Make an empty store.
 *  @param[out] ret_store  set only on success
 *  @param opts  NULL: all defaults
 *  @return 0, -VMEM_EINVAL, -VMEM_E2BIG, -VMEM_ENOMEM, or what the context_init of a codec returned
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_store_new(vmem_store **ret_store,
			    const struct vmem_store_opts *opts) VMEM_NODISCARD;

/** Free it with all pages. NULL is fine. @threads exclusive @since 1.0 */
VMEM_API void vmem_store_free(vmem_store *store);

/** Add a VM: an account, a cap and a stream in the pool.
 *  @param opts  NULL: no cap
 *  @param[out] ret_vm  its number, 0..65534, for all other calls; set only on success
 *  @return 0, -VMEM_EINVAL, -VMEM_E2BIG, -VMEM_ENOSPC (65535 VMs), -VMEM_ENOMEM
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_store_add_vm(vmem_store *store, const struct vmem_store_vm_opts *opts,
			       uint32_t *ret_vm) VMEM_NODISCARD;

/** Change the cap of a VM: 0..100 percent of its memory, or VMEM_STORE_NO_CAP. What is over it stays, see
 *  vmem_store_oldest(). While it is reached, and so with 0 always, saves get -VMEM_ENOSPC, but for those that
 *  take nothing more: of pages of one repeated 32-bit word, and of pages equal to a stored one.
 *  @return 0, -VMEM_ENOENT, -VMEM_EINVAL (over 100, or not 0 and the VM was added without vm_bytes)
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_store_set_cap(vmem_store *store, uint32_t vm, uint32_t cap_percent);

/** Drop all pages of a VM, and the VM. No call for this VM may run at the same time. Its events that wait
 *  for vmem_store_poll() are discarded; one that runs already may still deliver some. Its number may be
 *  given to another VM.
 *  @return 0, -VMEM_ENOENT, -VMEM_EBUSY (a load of it is in progress; nothing was dropped)
 *  @threads any, but see above
 *  @since 1.0 */
VMEM_API int vmem_store_drop_vm(vmem_store *store, uint32_t vm);

/** Save a page: the bytes at @p page must not change meanwhile.
 *  @param key  comes back with offers and losses; the store does not interpret it
 *  @param page  4096 bytes, aligned to 8
 *  @param[out] ret_ref  set only on success
 *  @return 0, -VMEM_EFBIG (max_object_bytes), -VMEM_ENOSPC (budget or cap), -VMEM_ENOMEM, -VMEM_ENOENT (vm),
 *          -VMEM_EINVAL (page)
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_store_save(vmem_store *store, uint32_t vm, uint64_t key, const void *page,
			     vmem_store_ref *ret_ref) VMEM_NODISCARD;

/** Load a page; it stays stored until dropped.
 *  @param page  4096 bytes, aligned to 8, valid until the load is over
 *  @param[out] ret_token  set only with -VMEM_EINPROGRESS, and before the end of the load can be polled,
 *                         which may be before this call returns; NULL: such loads return -VMEM_EAGAIN instead
 *  @return 0 (the bytes are there), -VMEM_EINPROGRESS (vmem_store_poll() tells when), -VMEM_EBADMSG
 *          (corrupt: what is in @p page is unspecified), -VMEM_EIO (the device), -VMEM_ENOENT (no such
 *          ref or vm), -VMEM_EAGAIN (it takes time, and @p ret_token is NULL, or 256 loads in progress and events
 *          wait for vmem_store_poll(), or 32 loads from devices), -VMEM_EINVAL (page)
 *  @threads any; not together with the drop of the same page
 *  @since 1.0 */
VMEM_API int vmem_store_load(vmem_store *store, uint32_t vm, uint64_t key, vmem_store_ref ref,
			     void *page, vmem_store_token *ret_token) VMEM_NODISCARD;

/** Read a page as vmem_store_load() does, without counting as a use of it: it does not move
 *  between tiers, is not marked young, and offers nothing. For snapshots and migration.
 *  @return as vmem_store_load()
 *  @threads any; not together with the drop of the same page
 *  @since 1.0 */
VMEM_API int vmem_store_peek(vmem_store *store, uint32_t vm, uint64_t key, vmem_store_ref ref,
			     void *page, vmem_store_token *ret_token) VMEM_NODISCARD;

/** The pages of a VM that have been in the pool for longest: what is to leave first when the VM is over its
 *  cap, or the budget is used up. Who has another place for pages peeks, writes and drops them. Oldest are
 *  those of the segments that were begun first, in the order in which they lie there; what compaction has
 *  moved or what was encoded anew counts as old as its neighbours now, in a VM with few segments as new.
 *
 *  Equal pages have one ref, and are told once: their object leaves with the last of them. Looks at some
 *  thousand objects at the most, in a group at those of others too, so that few refs or none may come
 *  although there are more. Those that are being saved may be missing; while compaction runs, or other calls
 *  for the VM, a ref may come twice, or not any more be one when it is used.
 *  @param cursor  0 to begin with the oldest; set to where to go on, to 0 after the youngest. A value that
 *                 leads nowhere any more begins anew
 *  @return how many were written to @p refs, 0..capacity; 0 with *@p cursor 0 too if there is no such VM
 *  @threads any
 *  @since 1.0 */
VMEM_API uint32_t vmem_store_oldest(vmem_store *store, uint32_t vm, uint64_t *cursor,
				    vmem_store_ref *refs, uint32_t capacity);

/** Forget a page.
 *  @return 0, -VMEM_ENOENT (no such ref or vm), -VMEM_EBUSY (a load of it is in progress, and no other page of
 *          the VM has the ref; it stays)
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_store_drop(vmem_store *store, uint32_t vm, vmem_store_ref ref);

/** Batches: each item as by the single call, its result in the item.
 *  @return the number of items whose result is 0
 *  @threads any
 *  @since 1.0 */
VMEM_API uint32_t vmem_store_save_batch(vmem_store *store, uint32_t vm,
					struct vmem_store_item *items, uint32_t count);
/** @copydoc vmem_store_save_batch @threads any @since 1.0 */
VMEM_API uint32_t vmem_store_load_batch(vmem_store *store, uint32_t vm,
					struct vmem_store_item *items, uint32_t count);
/** @copydoc vmem_store_save_batch @threads any @since 1.0 */
VMEM_API uint32_t vmem_store_peek_batch(vmem_store *store, uint32_t vm,
					struct vmem_store_item *items, uint32_t count);
/** @copydoc vmem_store_save_batch @threads any @since 1.0 */
VMEM_API uint32_t vmem_store_drop_batch(vmem_store *store, uint32_t vm,
					struct vmem_store_item *items, uint32_t count);

/** Take events: loads that are over, offers, losses. Does not block.
 *  @return how many were written to @p events, 0..capacity
 *  @threads any
 *  @since 1.0 */
VMEM_API uint32_t vmem_store_poll(vmem_store *store, struct vmem_store_event *events,
				  uint32_t capacity);

/** The background part: pages that have stayed are encoded anew, compaction, refilling of reserves; and where
 *  many pages have gone, tables give memory back. Encoding anew ends early when a save or
 *  a load has come meanwhile, and then there is more to do; a page that comes back without either, as one of
 *  zeros does, does not end it.
 *  @param budget_ns  about how long it may take by the caller's clock; work is cut into pieces of about 50 us
 *  @param now_ns  the caller's clock, monotonic
 *  @return 1 if there is more to do now, else 0
 *  @threads serial, and together with any other call
 *  @since 1.0 */
VMEM_API int vmem_store_work(vmem_store *store, uint64_t budget_ns, uint64_t now_ns);

/** Change the total budget. What is over it stays until dropped; saves that need another segment get
 *  -VMEM_ENOSPC, while those that fit into an open one still succeed.
 *  @threads any
 *  @since 1.0 */
VMEM_API void vmem_store_set_budget(vmem_store *store, uint64_t budget_bytes);

/** The account of one VM. @return 0, -VMEM_ENOENT, -VMEM_EINVAL @threads any @since 1.0 */
VMEM_API int vmem_store_vm_account(vmem_store *store, uint32_t vm,
				   struct vmem_store_account *account);

/** The sum over all VMs, with what belongs to none. @return 0, -VMEM_EINVAL @threads any @since 1.0 */
VMEM_API int vmem_store_total_account(vmem_store *store, struct vmem_store_account *account);

VMEM_END_DECLS
#endif
