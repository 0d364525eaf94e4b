/* SPDX-License-Identifier: BSD-2-Clause */
/* Rules that show on a KVM guest: see rules.h. The guest is the least that there can be: one processor in
 * long mode, whose program is one access to memory and one to a port. */
#include "linux/kernel/uffd_abi.h"
#include "linux/rules.h"
#include "linux/stored.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define GUEST_PAGES 16
#define RAM_AT 0x10000u
#define CODE_AT 0x1000u
#define TABLES_AT 0x2000u

static struct vmemt_rig rig;

static struct machine {
	int kvm, vm, vcpu;
	struct kvm_run *run;
	size_t run_bytes;
	unsigned char *code; /* the guest's first 64 KiB */
	pthread_t thread;
	uint32_t address, value; /* of the access */
	bool write;
	_Atomic int over; /* atomic; the access ended, or met a signal */
} machine;

static _Atomic(void *) signal_address; /* atomic; NULL: none */
static _Atomic int signal_code;

static void on_bus_error(int number, siginfo_t *info, void *ucontext)
{
	(void)number;
	(void)ucontext;
	atomic_store(&signal_code, info->si_code);
	atomic_store(&signal_address, info->si_addr);
}

static void set_slot(uint32_t slot, uint64_t gpa, void *memory, uint64_t bytes)
{
	struct kvm_userspace_memory_region r = { .slot = slot,
						 .guest_phys_addr = gpa,
						 .memory_size = bytes,
						 .userspace_addr = (uintptr_t)memory };

	assert(!ioctl(machine.vm, KVM_SET_USER_MEMORY_REGION, &r));
}

/* Without it long mode is refused. */
static void set_cpuid(void)
{
	enum { ROOM = 256 };
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + ROOM * sizeof(*c->entries));

	assert(c);
	c->nent = ROOM;
	assert(!ioctl(machine.kvm, KVM_GET_SUPPORTED_CPUID, c));
	assert(!ioctl(machine.vcpu, KVM_SET_CPUID2, c));
	free(c);
}

/* The first 2 MiB are mapped where they are. */
static void write_tables(void)
{
	const uint64_t open = 7, large = 0x80; /* present, writable, for users */
	const uint64_t entry[3] = { (TABLES_AT + 0x1000) | open, (TABLES_AT + 0x2000) | open,
				    large | open };

	for (unsigned i = 0; i < 3; i++)
		memcpy(machine.code + TABLES_AT + 0x1000 * i, &entry[i], 8);
}

/* Long mode at CPL 3: hosts that are guests themselves may emulate other code, which makes other errors. */
static void set_mode(void)
{
	struct kvm_segment flat = { .limit = 0xffffffff,
				    .selector = 0x33,
				    .type = 11,
				    .present = 1,
				    .dpl = 3,
				    .s = 1,
				    .l = 1,
				    .g = 1 };
	struct kvm_sregs s;

	set_cpuid();
	write_tables();
	assert(!ioctl(machine.vcpu, KVM_GET_SREGS, &s));
	s.cs = flat;
	flat.type = 3;
	flat.selector = 0x2b;
	flat.l = 0;
	flat.db = 1;
	s.ds = s.es = s.fs = s.gs = s.ss = flat;
	s.cr3 = TABLES_AT;
	s.cr4 = 0x20;       /* PAE */
	s.cr0 = 0x80010033; /* PG WP NE ET MP PE */
	s.efer = 0x500;     /* LME LMA */
	assert(!ioctl(machine.vcpu, KVM_SET_SREGS, &s));
}

/* False: no KVM here. */
static bool machine_make(void)
{
	machine.kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (machine.kvm < 0)
		return false;
	machine.vm = ioctl(machine.kvm, KVM_CREATE_VM, 0);
	assert(machine.vm >= 0);
	ioctl(machine.vm, KVM_SET_TSS_ADDR, 0xfffbd000ul); /* for older processors of Intel */
	machine.vcpu = ioctl(machine.vm, KVM_CREATE_VCPU, 0);
	machine.run_bytes = (size_t)ioctl(machine.kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	assert(machine.vcpu >= 0);
	machine.run =
		mmap(NULL, machine.run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, machine.vcpu, 0);
	machine.code =
		mmap(NULL, RAM_AT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert(machine.run != MAP_FAILED && machine.code != MAP_FAILED);
	set_slot(0, 0, machine.code, RAM_AT);
	set_slot(1, RAM_AT, rig.base, GUEST_PAGES * PAGE);
	set_mode();
	return true;
}

static void machine_end(void)
{
	close(machine.vcpu);
	close(machine.vm);
	close(machine.kvm);
	munmap(machine.run, machine.run_bytes);
	munmap(machine.code, RAM_AT);
}

/* mov eax, [rbx] or mov [rbx], eax; out 0x10, eax */
static void *one_access(void *unused)
{
	const unsigned char code[] = { machine.write ? 0x89 : 0x8b, 0x03, 0xe7, 0x10 };
	struct kvm_regs regs = { .rip = CODE_AT,
				 .rflags = 0x3002,
				 /* IOPL 3 */ .rbx = machine.address,
				 .rax = machine.value };

	(void)unused;
	memcpy(machine.code + CODE_AT, code, sizeof(code));
	assert(!ioctl(machine.vcpu, KVM_SET_REGS, &regs));
	for (;;) {
		int r = ioctl(machine.vcpu, KVM_RUN, 0);

		if (atomic_load(&signal_address))
			break;
		if (r && (errno == EINTR || errno == EAGAIN))
			continue;
		if (r || machine.run->exit_reason != KVM_EXIT_IO)
			fprintf(stderr, "KVM_RUN: %d (%d), exit %u\n", r, errno,
				machine.run->exit_reason);
		assert(!r && machine.run->exit_reason == KVM_EXIT_IO);
		assert(!ioctl(machine.vcpu, KVM_GET_REGS, &regs));
		machine.value = (uint32_t)regs.rax;
		break;
	}
	atomic_store(&machine.over, 1);
	return NULL;
}

static void access_begin(uint64_t page, bool write, uint32_t value)
{
	machine.address = (uint32_t)(RAM_AT + page * PAGE);
	machine.write = write;
	machine.value = value;
	atomic_store(&machine.over, 0);
	atomic_store(&signal_address, NULL);
	assert(!pthread_create(&machine.thread, NULL, one_access, NULL));
}

/* False: it met an error. */
static bool access_end(void)
{
	VMEMT_UNTIL(atomic_load(&machine.over));
	assert(!pthread_join(machine.thread, NULL));
	return !atomic_load(&signal_address);
}

static void *gpa_to_hva(uint64_t page)
{
	return rig.base + page * PAGE;
}

/* A lost page is an error on the thread of the processor that touches it, with its address; a system call gets
 * EFAULT; a page cannot be moved onto the marker; and a discard heals it. */
static void rule_25_poison_is_an_error_of_the_processor_that_touches_it(void)
{
	struct sigaction action = { .sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO };
	unsigned char *object;
	uint32_t bytes;
	size_t done;
	int fd[2];

	vmemt_rig_make(&rig, GUEST_PAGES, 0, NULL);
	assert(!sigaction(SIGBUS, &action, NULL));
	if (!machine_make()) {
		VMEMT_NOT_HERE("a KVM guest (no /dev/kvm)");
		vmemt_rig_end(&rig);
		return;
	}
	vmemt_store(rig.region, 4, 1);
	object = vmemt_stored_bytes(rig.manager->host.store,
				    vmemi_page_ref(vmemi_region_word(rig.region, 4)), &bytes);
	assert(object && bytes > 100);
	object[bytes / 2] ^= 0x10;
	vmemt_rig_threads(&rig);
	for (unsigned k = 0; k < 2; k++) {
		access_begin(4, k == 1, 7);
		assert(!access_end());
		assert((uintptr_t)atomic_load(&signal_address) / PAGE ==
		       (uintptr_t)gpa_to_hva(4) / PAGE);
		assert(atomic_load(&signal_code) == BUS_MCEERR_AR);
		VMEMT_UNTIL(vmemt_state(rig.region, 4) == VMEM_PAGE_POISONED);
	}
	assert(!pipe(fd));
	assert(write(fd[1], gpa_to_hva(4), 8) == -1 && errno == EFAULT);
	close(fd[0]);
	close(fd[1]);
	vmemt_stage(rig.region, 5, 1);
	assert(vmemi_uffd_move(rig.region->uffd, gpa_to_hva(4), vmemi_region_place(rig.region, 5),
			       PAGE, &done) == -VMEM_EEXIST);
	assert(!vmem_region_discard(rig.region, 4 * PAGE, PAGE, NULL));
	access_begin(4, false, 1);
	assert(access_end() && machine.value == 0);
	access_begin(4, true, 0x1234);
	assert(access_end());
	access_begin(4, false, 0);
	assert(access_end() && machine.value == 0x1234);
	machine_end();
	vmemt_catch_signals(NULL);
	vmemt_rig_end(&rig);
}

/* A fault of a KVM guest costs as much as dozens of pages: neighbours come with it. */
static void rule_30_one_fault_brings_neighbours(void)
{
	struct vmem_region_opts o = { .size = sizeof(o),
				      .bytes = GUEST_PAGES * PAGE,
				      .fault_around_pages = 16 };
	struct vmem_region_metrics before, after;

	vmemt_rig_make(&rig, 1, 0, NULL);
	assert(!vmem_region_detach(rig.region, VMEM_DETACH_DISCARD));
	assert(!vmem_region_alloc(&rig.region, rig.manager, &o));
	rig.base = vmem_region_hva(rig.region);
	if (!machine_make()) {
		VMEMT_NOT_HERE("a KVM guest (no /dev/kvm)");
		vmemt_rig_end(&rig);
		return;
	}
	for (uint64_t i = 0; i < GUEST_PAGES; i++) {
		struct vmemt_page p;

		memset(&p, (int)(i + 1), sizeof(p));
		assert(!vmem_region_write(rig.region, i * PAGE, &p, PAGE));
	}
	vmemt_stage(rig.region, 0, GUEST_PAGES);
	before = vmemt_metrics(rig.region);
	for (uint64_t i = 0; i < GUEST_PAGES; i++) {
		access_begin(i, false, 0);
		VMEMT_UNTIL(vmem_manager_step(rig.manager, 0, NULL) >= 0 &&
			    atomic_load(&machine.over));
		assert(access_end() && machine.value == 0x1010101 * (i + 1));
	}
	after = vmemt_metrics(rig.region);
	assert(after.pages[VMEM_PAGE_RESIDENT] == GUEST_PAGES);
	assert(after.prefetched > before.prefetched);
	assert(after.faults - before.faults < GUEST_PAGES);
	machine_end();
	for (unsigned i = 0; i < RULES_CPUS; i++)
		rig.cpu[i].region = NULL;
	vmemt_rig_end(&rig);
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_MOVE | VMEM_KERNEL_WP | VMEM_KERNEL_POISON |
		   VMEM_KERNEL_KERNEL_FAULTS);
	VMEMT_RULE(rule_25_poison_is_an_error_of_the_processor_that_touches_it);
	VMEMT_RULE(rule_30_one_fault_brings_neighbours);
	return 0;
}
