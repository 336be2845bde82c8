/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* Writes small cdb files for tests, after the format's description and not after cdb.c. */
#ifndef MAILSTILE_TEST_CDBMAKE_H
#define MAILSTILE_TEST_CDBMAKE_H

#include <stdint.h>
#include <string.h>

struct cdb_pair {
	const char *key;
	size_t klen;
	const char *data;
	size_t dlen;
};

static void
cdbmake_put32(uint8_t *p, size_t n)
{
	for (int i = 0; i < 4; i++) {
		p[i] = (uint8_t)(n >> (8 * i));
	}
}

static uint32_t
cdbmake_hash(const char *key, size_t len)
{
	uint32_t h = 5381;

	while (len-- > 0) {
		h = ((h << 5) + h) ^ (uint8_t)*key++;
	}
	return h;
}

/* Write pair[0..n), n <= 256, to out, which is large enough. Returns the length. */
static size_t
cdbmake(uint8_t *out, const struct cdb_pair *pair, size_t n)
{
	size_t pos = 2048, at[256];

	for (size_t i = 0; i < n; i++) {
		at[i] = pos;
		cdbmake_put32(out + pos, pair[i].klen);
		cdbmake_put32(out + pos + 4, pair[i].dlen);
		memcpy(out + pos + 8, pair[i].key, pair[i].klen);
		memcpy(out + pos + 8 + pair[i].klen, pair[i].data, pair[i].dlen);
		pos += 8 + pair[i].klen + pair[i].dlen;
	}
	for (uint32_t bucket = 0; bucket < 256; bucket++) {
		size_t slots = 0;

		for (size_t i = 0; i < n; i++) {
			slots += (cdbmake_hash(pair[i].key, pair[i].klen) & 255) == bucket ? 2 : 0;
		}
		cdbmake_put32(out + 8 * bucket, pos);
		cdbmake_put32(out + 8 * bucket + 4, slots);
		memset(out + pos, 0, 8 * slots);
		for (size_t i = 0; i < n; i++) {
			uint32_t h = cdbmake_hash(pair[i].key, pair[i].klen);
			size_t slot;

			if (slots == 0 || (h & 255) != bucket) {
				continue;
			}
			slot = (h >> 8) % slots;
			while (memcmp(out + pos + 8 * slot + 4, "\0\0\0\0", 4) != 0) {
				slot = (slot + 1) % slots;
			}
			cdbmake_put32(out + pos + 8 * slot, h);
			cdbmake_put32(out + pos + 8 * slot + 4, at[i]);
		}
		pos += 8 * slots;
	}
	return pos;
}

#endif
