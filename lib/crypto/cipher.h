/* SPDX-License-Identifier: BSD-2-Clause */
/* AES-256-XTS with one key, by several threads at a time.
 * Guard: each context belongs to who has set its flag. */
#ifndef VMEMI_CIPHER_H
#define VMEMI_CIPHER_H
#include <openssl/evp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define VMEMI_CIPHER_UNIT 4096u
#define VMEMI_CIPHER_CONTEXTS 8u /* threads that have one at the same time; more take turns */

struct vmemi_cipher_context {
	_Alignas(64) atomic_flag is_taken;
	EVP_CIPHER_CTX *encrypt, *decrypt;
};

struct vmemi_cipher {
	struct vmemi_cipher_context context[VMEMI_CIPHER_CONTEXTS];
};

/* With a new key, of which nothing is left but the contexts. 0, -VMEM_ENOMEM, -VMEM_ENOTSUP, -VMEM_EIO. */
int vmemi_cipher_open(struct vmemi_cipher *c);
/* Wipes the key. */
void vmemi_cipher_close(struct vmemi_cipher *c);

/* @bytes from @from to @to, which may be the same; the first unit has number @unit. False: libcrypto failed. */
bool vmemi_cipher_do(struct vmemi_cipher *c, bool encrypt, unsigned char *to,
		     const unsigned char *from, uint64_t bytes, uint64_t unit);

#endif
