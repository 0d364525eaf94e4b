/* SPDX-License-Identifier: BSD-2-Clause */
/* The cipher: see cipher.h. Giving a context another tweak allocates nothing. */
#include "crypto/cipher.h"
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <sched.h>
#include <vmem/common.h>

#define KEY_BYTES 64 /* two keys of 256 bits */
#define TWEAK_BYTES 16

static bool set_key(struct vmemi_cipher_context *x, const unsigned char *key)
{
	return EVP_EncryptInit_ex(x->encrypt, EVP_aes_256_xts(), NULL, key, NULL) == 1 &&
	       EVP_DecryptInit_ex(x->decrypt, EVP_aes_256_xts(), NULL, key, NULL) == 1;
}

int vmemi_cipher_open(struct vmemi_cipher *c)
{
	unsigned char key[KEY_BYTES];
	int error = RAND_priv_bytes(key, sizeof(key)) == 1 ? 0 : -VMEM_EIO;

	for (unsigned i = 0; i < VMEMI_CIPHER_CONTEXTS; i++) {
		struct vmemi_cipher_context *x = &c->context[i];

		atomic_flag_clear(&x->is_taken);
		x->encrypt = EVP_CIPHER_CTX_new();
		x->decrypt = EVP_CIPHER_CTX_new();
		if (!x->encrypt || !x->decrypt)
			error = -VMEM_ENOMEM;
		else if (!error && !set_key(x, key))
			error = -VMEM_ENOTSUP;
	}
	OPENSSL_cleanse(key, sizeof(key));
	if (error)
		vmemi_cipher_close(c);
	return error;
}

/* libcrypto wipes what it frees of a cipher. */
void vmemi_cipher_close(struct vmemi_cipher *c)
{
	for (unsigned i = 0; i < VMEMI_CIPHER_CONTEXTS; i++) {
		EVP_CIPHER_CTX_free(c->context[i].encrypt);
		EVP_CIPHER_CTX_free(c->context[i].decrypt);
	}
}

static struct vmemi_cipher_context *take_context(struct vmemi_cipher *c)
{
	for (unsigned i = 0;; i = (i + 1) % VMEMI_CIPHER_CONTEXTS) {
		if (!atomic_flag_test_and_set_explicit(&c->context[i].is_taken,
						       memory_order_acquire))
			return &c->context[i];
		if (i == VMEMI_CIPHER_CONTEXTS - 1)
			sched_yield();
	}
}

bool vmemi_cipher_do(struct vmemi_cipher *c, bool encrypt, unsigned char *to,
		     const unsigned char *from, uint64_t bytes, uint64_t unit)
{
	struct vmemi_cipher_context *x = take_context(c);
	EVP_CIPHER_CTX *e = encrypt ? x->encrypt : x->decrypt;
	bool good = true;

	for (uint64_t at = 0; at < bytes && good; at += VMEMI_CIPHER_UNIT, unit++) {
		unsigned char tweak[TWEAK_BYTES] = { 0 };
		int done = 0;

		for (unsigned i = 0; i < 8; i++)
			tweak[i] = (unsigned char)(unit >> 8 * i);
		good = EVP_CipherInit_ex(e, NULL, NULL, NULL, tweak, encrypt) == 1 &&
		       EVP_CipherUpdate(e, to + at, &done, from + at, VMEMI_CIPHER_UNIT) == 1 &&
		       done == (int)VMEMI_CIPHER_UNIT;
	}
	atomic_flag_clear_explicit(&x->is_taken, memory_order_release);
	return good;
}
