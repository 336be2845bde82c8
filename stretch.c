/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* PBKDF2; see stretch.h. */
#include "stretch.h"

#if CONSOLE

#include <bearssl.h>
#include <string.h>

void
stretch(uint8_t key[STRETCH_KEY], const char *word, const uint8_t salt[STRETCH_SALT], uint32_t rounds)
{
	static const uint8_t first[4] = { 0, 0, 0, 1 };
	br_hmac_key_context k;
	br_hmac_context h;
	uint8_t u[STRETCH_KEY];

	br_hmac_key_init(&k, &br_sha256_vtable, word, strlen(word));
	memset(key, 0, STRETCH_KEY);
	for (uint32_t n = 0; n < rounds; n++) {
		br_hmac_init(&h, &k, 0);
		if (n == 0) {
			br_hmac_update(&h, salt, STRETCH_SALT);
		}
		br_hmac_update(&h, n == 0 ? first : u, n == 0 ? sizeof first : sizeof u);
		br_hmac_out(&h, u);
		for (size_t i = 0; i < sizeof u; i++) {
			key[i] ^= u[i];
		}
	}
	explicit_bzero(&k, sizeof k);
	explicit_bzero(&h, sizeof h);
	explicit_bzero(u, sizeof u);
}

int
stretch_same(const uint8_t *a, const uint8_t *b, unsigned len)
{
	unsigned d = 0;

	for (unsigned i = 0; i < len; i++) {
		d |= a[i] ^ b[i];
	}
	return d == 0;
}

#endif
