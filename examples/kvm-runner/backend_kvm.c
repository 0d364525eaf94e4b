/* SPDX-License-Identifier: BSD-2-Clause */
/* The payload in a virtual machine. Each vCPU starts in long mode at CPL 3, as if a kernel had just
 * returned to it: no boot code, no interrupts, no kernel. IOPL 3 lets it use ports, which leave the
 * VM and are its hypercalls; anything else that leaves it is an error. */
#include "runner_vcpu.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/kvm.h>

#include "runner_alloc.h"
#include "runner_print.h"

#define CPUID_ENTRIES 256u

/* Intel SDM vol. 3, 2.5 and 2.2.1. */
#define CR0_PE (1u << 0)
#define CR0_MP (1u << 1)
#define CR0_ET (1u << 4)
#define CR0_NE (1u << 5)
#define CR0_WP (1u << 16)
#define CR0_PG (1u << 31)
#define CR4_PAE (1u << 5)
#define EFER_LME (1u << 8)
#define EFER_LMA (1u << 10)
#define RFLAGS_FIXED (1u << 1)
#define RFLAGS_IOPL3 (3u << 12)

#define SELECTOR_DATA 0x2bu
#define SELECTOR_CODE 0x33u

static int kvm_error(const struct vm *vm, const char *what)
{
	print_error("vm %u: KVM: %s: %s.", vm->index, what, strerror(errno));
	return errno == ENOMEM ? -VMEM_ENOMEM : -VMEM_EIO;
}

int backend_kvm_open(bool explain)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int version = fd < 0 ? -1 : ioctl(fd, KVM_GET_API_VERSION, 0);

	if (version == KVM_API_VERSION)
		return fd;
	if (explain)
		print_error(
			"No KVM: /dev/kvm: %s. Load the module kvm_intel or kvm_amd, turn virtualization on in "
			"the firmware, join the group kvm; or use --backend thread.",
			version < 0 ? strerror(errno) : "it speaks another version");
	if (fd >= 0)
		close(fd);
	return -VMEM_ENODEV;
}

static int set_cpuid(struct vcpu *vcpu)
{
	struct kvm_cpuid2 *cpuid =
		alloc_new(sizeof(*cpuid) + CPUID_ENTRIES * sizeof(cpuid->entries[0]));
	int error = 0;

	if (!cpuid) {
		errno = ENOMEM;
		return kvm_error(vcpu->vm, "the list of processor features");
	}
	cpuid->nent = CPUID_ENTRIES;
	if (ioctl(vcpu->vm->runner->kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid) != 0)
		error = kvm_error(vcpu->vm, "KVM_GET_SUPPORTED_CPUID");
	else if (ioctl(vcpu->fd, KVM_SET_CPUID2, cpuid) != 0)
		error = kvm_error(vcpu->vm, "KVM_SET_CPUID2");
	alloc_free(cpuid);
	return error;
}

static int set_registers(struct vcpu *vcpu)
{
	const struct low_layout *layout = &vcpu->vm->layout;
	struct kvm_segment code = { .limit = UINT32_MAX,
				    .selector = SELECTOR_CODE,
				    .type = 0xb, /* execute, read, accessed */
				    .present = 1,
				    .dpl = 3,
				    .s = 1,
				    .l = 1,
				    .g = 1 };
	struct kvm_segment data = { .limit = UINT32_MAX,
				    .selector = SELECTOR_DATA,
				    .type = 0x3, /* read, write, accessed */
				    .present = 1,
				    .dpl = 3,
				    .s = 1,
				    .db = 1,
				    .g = 1 };
	uint64_t stack_end = layout->stacks_gpa + (vcpu->index + 1) * (uint64_t)LOW_STACK_BYTES;
	struct kvm_regs regs = { .rip = GUEST_PAYLOAD_GPA,
				 .rsp = stack_end - 8, /* as after a call */
				 .rdi = GUEST_PARAMS_GPA,
				 .rsi = vcpu->index,
				 .rflags = RFLAGS_FIXED | RFLAGS_IOPL3 };
	struct kvm_sregs sregs;

	if (ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) != 0)
		return kvm_error(vcpu->vm, "KVM_GET_SREGS");
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
	sregs.cr3 = layout->tables_gpa;
	sregs.cr4 = CR4_PAE;
	sregs.efer = EFER_LME | EFER_LMA;
	if (ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) != 0)
		return kvm_error(vcpu->vm, "KVM_SET_SREGS");
	if (ioctl(vcpu->fd, KVM_SET_REGS, &regs) != 0)
		return kvm_error(vcpu->vm, "KVM_SET_REGS");
	return 0;
}

static int create_vcpu(struct vcpu *vcpu)
{
	int run_bytes = ioctl(vcpu->vm->runner->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	void *run;
	int error;

	vcpu->fd = ioctl(vcpu->vm->fd, KVM_CREATE_VCPU, (unsigned long)vcpu->index);
	if (run_bytes <= 0 || vcpu->fd < 0)
		return kvm_error(vcpu->vm, "a vCPU cannot be made");
	run = mmap(NULL, (size_t)run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (run == MAP_FAILED)
		return kvm_error(vcpu->vm, "a vCPU cannot be mapped");
	vcpu->run = run;
	error = set_cpuid(vcpu); /* before long mode can be switched on */
	return error ? error : set_registers(vcpu);
}

int backend_kvm_create(struct vm *vm)
{
	struct kvm_userspace_memory_region memory = {
		.memory_size = vm->runner->options->mem_bytes,
		.userspace_addr = (uint64_t)(uintptr_t)vm->hva,
	};
	int error = 0;

	vm->fd = ioctl(vm->runner->kvm_fd, KVM_CREATE_VM, 0);
	if (vm->fd < 0)
		return kvm_error(vm, "a VM cannot be made");
	if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &memory) != 0)
		return kvm_error(vm, "the VM does not take its memory");
	for (uint32_t i = 0; i < vm->runner->options->vcpus && !error; i++)
		error = create_vcpu(&vm->vcpu[i]);
	return error;
}

void backend_kvm_destroy(struct vm *vm)
{
	int run_bytes = ioctl(vm->runner->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);

	for (uint32_t i = 0; i < vm->runner->options->vcpus; i++) {
		if (vm->vcpu[i].run)
			munmap(vm->vcpu[i].run, (size_t)run_bytes);
		if (vm->vcpu[i].fd >= 0)
			close(vm->vcpu[i].fd);
		vm->vcpu[i].run = NULL;
		vm->vcpu[i].fd = -1;
	}
	if (vm->fd >= 0)
		close(vm->fd);
	vm->fd = -1;
}

static void port(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	uint32_t value = 0;

	if (run->io.count != 1 || run->io.size > sizeof(value)) {
		vcpu_fail(vcpu, "the guest used a string of ports");
		return;
	}
	if (run->io.direction == KVM_EXIT_IO_OUT) {
		memcpy(&value, data, run->io.size);
		(void)vcpu_out(vcpu, run->io.port, value);
	} else {
		value = vcpu_in(vcpu, run->io.port);
		memcpy(data, &value, run->io.size);
	}
}

/* Anything else that ends KVM_RUN. */
static void unexpected(struct vcpu *vcpu)
{
	struct kvm_regs regs = { 0 };

	(void)ioctl(vcpu->fd, KVM_GET_REGS, &regs);
	if (vcpu->run->exit_reason == KVM_EXIT_SHUTDOWN)
		vcpu_fail(vcpu, "the guest crashed at %#llx", regs.rip);
	else if (vcpu->run->exit_reason == KVM_EXIT_MMIO)
		vcpu_fail(vcpu, "the guest at %#llx touched %#llx, where no memory is", regs.rip,
			  vcpu->run->mmio.phys_addr);
	else
		vcpu_fail(vcpu, "the VM ended for KVM's reason %u at %#llx", vcpu->run->exit_reason,
			  regs.rip);
}

static void run_error(struct vcpu *vcpu)
{
	if (errno == EFAULT)
		vcpu_fail(
			vcpu,
			"KVM_RUN: guest memory cannot be reached (userfaultfd for faults inside the "
			"kernel is needed: set vm.unprivileged_userfaultfd=1)");
	else
		vcpu_fail(vcpu, "KVM_RUN: %s", strerror(errno));
}

void backend_kvm_run(struct vcpu *vcpu)
{
	while (atomic_load(&vcpu->end) == END_RUNS) {
		int result;

		if (atomic_load(&vcpu->vm->stop)) {
			atomic_store(&vcpu->end, END_STOPPED);
			break;
		}
		result = ioctl(vcpu->fd, KVM_RUN, 0);
		/* The signal of a poisoned page came on the way out. */
		if (vcpu->poisoned)
			atomic_store(&vcpu->end, END_POISONED);
		else if (result < 0 && (errno == EINTR || errno == EAGAIN))
			vcpu->run->immediate_exit = 0;
		else if (result < 0)
			run_error(vcpu);
		else if (vcpu->run->exit_reason == KVM_EXIT_IO)
			port(vcpu);
		else
			unexpected(vcpu);
	}
}
