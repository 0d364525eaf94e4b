/* SPDX-License-Identifier: BSD-2-Clause */
/* The guest's physical memory: the first 16 MiB are private to this file (page tables, code, stack,
 * box, order); from 1 GiB on lies the memory it works on. Virtual addresses are physical ones, in
 * pages of 2 MiB, open to CPL 3. IOPL is 3, so that a port write is the way out. */
#include "kvm_guest.h"
#include "bare_uffd.h"
#include "machine.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define PRIVATE_BYTES ((size_t)272 << 20) /* an order of a minute; mostly not touched */
#define TABLES_AT 0x1000u                 /* PML4, PDPT, page directories of two GiB */
#define BOX_AT 0x8000u
#define CODE_AT 0x10000u
#define STACK_TOP 0x40000u
#define ORDER_AT 0x100000u
#define RAM_AT ((uint64_t)1 << 30)

struct kvm_guest {
	uint8_t *private_memory;
	uint8_t *ram;
	size_t ram_bytes;
	struct guest_box *box;
	int kvm, vm, vcpu; /* descriptors; vcpu < 0: a thread */
	struct kvm_run *run;
	size_t run_bytes;
	pthread_t thread;
	unsigned cpu;
	atomic_int running; /* cleared by the thread when it ends */
	int result;         /* of the thread; read after it was joined */
};

const char *kvm_guest_missing(void)
{
	if (access("/dev/kvm", R_OK | W_OK) != 0)
		return "no access to /dev/kvm";
	if (!bare_uffd_serves_kernel())
		return "this process may not serve the kernel's faults by userfaultfd";
	return NULL;
}

static int set_memory(const struct kvm_guest *guest, uint32_t slot, uint64_t gpa, void *memory,
		      size_t bytes)
{
	struct kvm_userspace_memory_region region = { .slot = slot,
						      .guest_phys_addr = gpa,
						      .memory_size = bytes,
						      .userspace_addr = (uintptr_t)memory };

	return ioctl(guest->vm, KVM_SET_USER_MEMORY_REGION, &region) == 0 ? 0 : -errno;
}

static void write_tables(uint8_t *memory)
{
	const uint64_t present_write_user = 7, large = 0x80, entries = 512;
	uint64_t *pml4 = (uint64_t *)(void *)(memory + TABLES_AT);
	uint64_t *pdpt = pml4 + entries, *directories = pdpt + entries;

	pml4[0] = (TABLES_AT + 0x1000) | present_write_user;
	for (uint64_t gib = 0; gib < 2; gib++)
		pdpt[gib] = (TABLES_AT + 0x2000 + gib * 0x1000) | present_write_user;
	for (uint64_t i = 0; i < 2 * entries; i++)
		directories[i] = i << 21 | large | present_write_user;
}

/* Without it long mode is refused. */
static int copy_cpuid(const struct kvm_guest *guest)
{
	const uint32_t room = 256;
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + room * sizeof(*cpuid->entries));
	int result = 0;

	if (!cpuid)
		return -ENOMEM;
	cpuid->nent = room;
	if (ioctl(guest->kvm, KVM_GET_SUPPORTED_CPUID, cpuid) != 0 ||
	    ioctl(guest->vcpu, KVM_SET_CPUID2, cpuid) != 0)
		result = -errno;
	free(cpuid);
	return result;
}

static int enter_long_mode(const struct kvm_guest *guest)
{
	const struct kvm_segment code = { .limit = 0xffffffff,
					  .selector = 0x33,
					  .type = 11,
					  .present = 1,
					  .dpl = 3,
					  .s = 1,
					  .l = 1,
					  .g = 1 };
	const struct kvm_segment data = { .limit = 0xffffffff,
					  .selector = 0x2b,
					  .type = 3,
					  .present = 1,
					  .dpl = 3,
					  .db = 1,
					  .s = 1,
					  .g = 1 };
	struct kvm_regs registers = {
		.rip = CODE_AT + (uint64_t)((const uint8_t *)guest_entry - __start_guest_code),
		.rsp = STACK_TOP - 8,
		.rdi = BOX_AT,
		.rflags = 0x3002 /* IOPL 3 */
	};
	struct kvm_sregs system;

	if (ioctl(guest->vcpu, KVM_GET_SREGS, &system) != 0)
		return -errno;
	system.cs = code;
	system.ds = system.es = system.fs = system.gs = system.ss = data;
	system.cr0 = 0x80010033; /* PG WP NE ET MP PE */
	system.cr3 = TABLES_AT;
	system.cr4 = 0x20;   /* PAE */
	system.efer = 0x500; /* LME LMA */
	if (ioctl(guest->vcpu, KVM_SET_SREGS, &system) != 0 ||
	    ioctl(guest->vcpu, KVM_SET_REGS, &registers) != 0)
		return -errno;
	return 0;
}

static int make_vcpu(struct kvm_guest *guest)
{
	int result;

	guest->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (guest->kvm < 0)
		return -errno;
	guest->vm = ioctl(guest->kvm, KVM_CREATE_VM, 0);
	if (guest->vm < 0)
		return -errno;
	ioctl(guest->vm, KVM_SET_TSS_ADDR,
	      0xfffbd000ul); /* wanted by older Intel processors only */
	guest->vcpu = ioctl(guest->vm, KVM_CREATE_VCPU, 0);
	if (guest->vcpu < 0)
		return -errno;
	guest->run_bytes = (size_t)ioctl(guest->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	guest->run =
		mmap(NULL, guest->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, guest->vcpu, 0);
	if (guest->run == MAP_FAILED) {
		guest->run = NULL;
		return -errno;
	}
	write_tables(guest->private_memory);
	memcpy(guest->private_memory + CODE_AT, __start_guest_code,
	       (size_t)(__stop_guest_code - __start_guest_code));
	if ((result = set_memory(guest, 0, 0, guest->private_memory, PRIVATE_BYTES)) != 0 ||
	    (result = set_memory(guest, 1, RAM_AT, guest->ram, guest->ram_bytes)) != 0 ||
	    (result = copy_cpuid(guest)) != 0)
		return result;
	return enter_long_mode(guest);
}

int kvm_guest_new(struct kvm_guest **ret_guest, void *ram, size_t bytes, int kvm)
{
	struct kvm_guest *guest = calloc(1, sizeof(*guest));
	int result = -ENOMEM;

	if (!guest)
		return -ENOMEM;
	guest->kvm = guest->vm = guest->vcpu = -1;
	guest->ram = ram;
	guest->ram_bytes = bytes;
	guest->private_memory = machine_map(PRIVATE_BYTES);
	if (!guest->private_memory || bytes > RAM_AT)
		goto fail;
	guest->box = (struct guest_box *)(void *)(guest->private_memory + BOX_AT);
	guest->box->ram = kvm ? RAM_AT : (uintptr_t)ram;
	guest->box->order = kvm ? ORDER_AT : (uintptr_t)(guest->private_memory + ORDER_AT);
	if (kvm && (result = make_vcpu(guest)) != 0)
		goto fail;
	*ret_guest = guest;
	return 0;
fail:
	kvm_guest_free(guest);
	return result;
}

void kvm_guest_free(struct kvm_guest *guest)
{
	const int descriptors[] = { guest->vcpu, guest->vm, guest->kvm };

	if (guest->run)
		munmap(guest->run, guest->run_bytes);
	for (int i = 0; i < 3; i++)
		if (descriptors[i] >= 0)
			close(descriptors[i]);
	machine_unmap(guest->private_memory, PRIVATE_BYTES);
	free(guest);
}

void kvm_guest_set_order(struct kvm_guest *guest, const uint32_t *pages, size_t count)
{
	memcpy(guest->private_memory + ORDER_AT, pages, count * sizeof(*pages));
	guest->box->order_count = count;
	guest->box->position = 0;
}

int kvm_guest_share_order(struct kvm_guest *guest, uint32_t *pages, size_t count)
{
	/* From size 0, a shared mapping is mapped once more. */
	if (mremap(pages, 0, count * sizeof(*pages), MREMAP_MAYMOVE | MREMAP_FIXED,
		   guest->private_memory + ORDER_AT) == MAP_FAILED)
		return -errno;
	guest->box->order_count = count;
	guest->box->position = 0;
	return 0;
}

struct guest_box *kvm_guest_box(struct kvm_guest *guest)
{
	return guest->box;
}

static int run_until_done(struct kvm_guest *guest)
{
	if (guest->vcpu < 0) {
		guest_work(guest->box);
		return 0;
	}
	for (;;) {
		if (ioctl(guest->vcpu, KVM_RUN, 0) != 0) {
			if (errno == EINTR || errno == EAGAIN)
				continue;
			return -errno;
		}
		if (guest->run->exit_reason == KVM_EXIT_IO &&
		    guest->run->io.port == GUEST_DONE_PORT)
			return 0;
		fprintf(stderr, "bench: guest ended with KVM exit %u\n", guest->run->exit_reason);
		return -EFAULT;
	}
}

int kvm_guest_run(struct kvm_guest *guest)
{
	guest->box->repeat = 0;
	guest->box->position = 0;
	guest->box->stop = 0;
	return run_until_done(guest);
}

static void *run_thread(void *argument)
{
	struct kvm_guest *guest = argument;

	machine_pin(guest->cpu);
	guest->result = run_until_done(guest);
	guest->running = 0;
	return NULL;
}

int kvm_guest_start(struct kvm_guest *guest, unsigned cpu)
{
	guest->box->repeat = 1;
	guest->box->stop = 0;
	guest->cpu = cpu;
	guest->running = 1;
	return -pthread_create(&guest->thread, NULL, run_thread, guest);
}

int kvm_guest_stop(struct kvm_guest *guest)
{
	guest->box->stop = 1;
	pthread_join(guest->thread, NULL);
	return guest->result;
}

uint64_t kvm_guest_operations(const struct kvm_guest *guest)
{
	return guest->box->operations;
}

void kvm_guest_await(const struct kvm_guest *guest, uint64_t operations)
{
	const uint64_t start = kvm_guest_operations(guest);

	while (guest->running && kvm_guest_operations(guest) - start < operations)
		machine_sleep_ms(1);
}

double kvm_guest_speed(const struct kvm_guest *guest, unsigned ms)
{
	uint64_t operations = kvm_guest_operations(guest), start = machine_now_ns();

	machine_sleep_ms(ms);
	operations = kvm_guest_operations(guest) - operations;
	return (double)operations * 1e9 / (double)(machine_now_ns() - start);
}
