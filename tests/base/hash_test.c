/* SPDX-License-Identifier: BSD-2-Clause */
/* The builds of the hash: all that this processor runs give the values of the xxHash library 0.8.1. */
#include <criterion/criterion.h>
#include <vmem/common.h>
#include "base/hash.h"

#define SEED UINT64_C(0x9e3779b97f4a7c15)

static const struct known {
	size_t bytes;
	uint64_t unseeded;
	uint64_t seeded;
} known[] = {
	{ 1, UINT64_C(0xc44bdff4074eecdb), UINT64_C(0x062b185e4e01441a) },
	{ 3, UINT64_C(0xc3489259e968ad9e), UINT64_C(0x71a5f088b9bf6b14) },
	{ 4, UINT64_C(0xd3d60c1519014e89), UINT64_C(0x725545a3f20014ce) },
	{ 8, UINT64_C(0xb88dee77f6bf6980), UINT64_C(0x3f5da5b7ad256de3) },
	{ 9, UINT64_C(0x03688dcad730d826), UINT64_C(0xc332deb897105a63) },
	{ 16, UINT64_C(0x9da23836adf2be1e), UINT64_C(0x6c542998420ca675) },
	{ 17, UINT64_C(0xf34c3c9cf5a112d1), UINT64_C(0x215d8e2b47eb92db) },
	{ 128, UINT64_C(0x65f3c2c00fa93185), UINT64_C(0x65c2e94ea7b79257) },
	{ 129, UINT64_C(0x28065c6ec25f5b25), UINT64_C(0x17f705a26996f1c9) },
	{ 240, UINT64_C(0x4917a75c0ef8eed7), UINT64_C(0xf906157a86b7eac3) },
	{ 241, UINT64_C(0x541b19226f0052e8), UINT64_C(0x6ec6d69819587a84) },
	{ 512, UINT64_C(0xe0410eb388a9c9fa), UINT64_C(0xe12bcb87fd38080b) },
	{ 1023, UINT64_C(0x3d31fcc1037648a4), UINT64_C(0x85501d17d883584b) },
	{ 1024, UINT64_C(0x71bee625238addb4), UINT64_C(0xb76cb4813088fe8e) },
	{ 1025, UINT64_C(0xd9b414f4e1bbf7ad), UINT64_C(0x8a4648c470315844) },
	{ 4095, UINT64_C(0x0b4e57ede5b7b645), UINT64_C(0xb756e95a0a45b202) },
};

static unsigned char data[4096];

static void check(vmemi_hash_fn hash, const char *name)
{
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (unsigned char)(i * 7 + (i >> 8));
	cr_assert_eq(hash(data, 0, 0), UINT64_C(0x2d06800538d394c2), "%s", name);
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		const struct known *k = &known[i];

		cr_assert_eq(hash(data, k->bytes, 0), k->unseeded, "%s %zu", name, k->bytes);
		cr_assert_eq(hash(data, k->bytes, SEED), k->seeded, "%s %zu", name, k->bytes);
	}
}

Test(hash, known_values)
{
	check(vmemi_hash_scalar, "scalar");
#ifdef __x86_64__
	uint32_t cpu = vmem_cpu_detect();

	if (cpu & VMEM_CPU_SSE2)
		check(vmemi_hash_sse2, "SSE2");
	if (cpu & VMEM_CPU_AVX2)
		check(vmemi_hash_avx2, "AVX2");
	if (cpu & VMEM_CPU_AVX512)
		check(vmemi_hash_avx512, "AVX-512");
#endif
}

Test(hash, chosen_by_what_may_be_used)
{
	cr_assert_eq(vmemi_hash_choose(0), vmemi_hash_scalar);
#ifdef __x86_64__
	cr_assert_eq(vmemi_hash_choose(VMEM_CPU_SSE2), vmemi_hash_sse2);
	cr_assert_eq(vmemi_hash_choose(VMEM_CPU_SSE2 | VMEM_CPU_AVX2), vmemi_hash_avx2);
	cr_assert_eq(vmemi_hash_choose(VMEM_CPU_SSE2 | VMEM_CPU_AVX2 | VMEM_CPU_AVX512),
		     vmemi_hash_avx512);
#endif
}

/* What the compiler's own look at the processor says; it asks the operating system as well. */
Test(cpu, detect_agrees_with_the_compiler)
{
	uint32_t cpu = vmem_cpu_detect(), want = 0;

#ifdef __x86_64__
	__builtin_cpu_init();
	want = VMEM_CPU_SSE2;
	if (__builtin_cpu_supports("avx2"))
		want |= VMEM_CPU_AVX2;
	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
		want |= VMEM_CPU_AVX512;
	if (want & VMEM_CPU_AVX512 && __builtin_cpu_supports("avx512vbmi2"))
		want |= VMEM_CPU_AVX512_VBMI2;
#endif
	cr_assert_eq(cpu, want, "%x, not %x", cpu, want);
}
