/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* PBKDF2; see stretch.h. */
#include "stretch.h"

#if CONSOLE

#include "str.h"

#include <bearssl.h>
#include <string.h>

uint32_t
stretch_get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

void
stretch_put32(uint8_t *p, uint32_t n)
{
	for (int i = 3; i >= 0; i--, n >>= 8) {
		p[i] = (uint8_t)n;
	}
}

void
stretch_begin(uint8_t head[STRETCH_HEAD], uint32_t rounds)
{
	stretch_put32(head, rounds);
	random_bytes(head + 4, STRETCH_SALT);
}

void
stretch(uint8_t key[STRETCH_KEY], const char *word, const uint8_t head[STRETCH_HEAD])
{
	static const uint8_t first[4] = { 0, 0, 0, 1 };
	br_hmac_key_context k;
	br_hmac_context h;
	uint8_t u[STRETCH_KEY];
	const uint32_t rounds = stretch_get32(head);

	br_hmac_key_init(&k, &br_sha256_vtable, word, strlen(word));
	memset(key, 0, STRETCH_KEY);
	for (uint32_t n = 0; n < rounds; n++) {
		br_hmac_init(&h, &k, 0);
		if (n == 0) {
			br_hmac_update(&h, head + 4, STRETCH_SALT);
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
