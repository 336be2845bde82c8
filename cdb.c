/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * cdb, read only. All numbers are 32-bit little-endian. Octets 0-2047: 256 pairs (table position, slots). From 2048: records
 * (key length, data length, key, data). Then the tables: slots of (hash, record position), position 0 = free. A file may have been
 * damaged or be hostile: no number in it is used before it is checked against the file's size.
 */
#include "cdb.h"

#include "str.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static uint32_t
le32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

int
cdb_check(const struct cdb *c)
{
	if (c->len < 2048 || c->len > UINT32_MAX) {
		return -1;
	}
	for (size_t i = 0; i < 256; i++) {
		uint64_t pos = le32(c->map + 8 * i);
		uint64_t slots = le32(c->map + 8 * i + 4);

		if (slots > 0 && (pos < 2048 || pos + 8 * slots > c->len)) {
			return -1;
		}
	}
	return 0;
}

int
cdb_open(struct cdb *c, const char *path)
{
	struct stat st;
	uint8_t *mem;
	long n;

	c->map = NULL;
	c->len = 0;
	if (stat(path, &st) == -1) {
		return -1;
	}
	if (!S_ISREG(st.st_mode) || st.st_size < 2048 || st.st_size > (off_t)UINT32_MAX) {
		errno = EINVAL;
		return -1;
	}
	/* A copy, not a mapping of the file: somebody may write over it while we look things up. */
	mem = malloc((size_t)st.st_size);
	if (mem == NULL) {
		return -1;
	}
	n = file_read(path, mem, (size_t)st.st_size);
	if (n != (long)st.st_size) {
		int saved = n == -1 && errno != EFBIG ? errno : EINVAL;

		free(mem);
		errno = saved;
		return -1;
	}
	c->map = mem;
	c->len = (size_t)st.st_size;
	if (cdb_check(c) == -1) {
		cdb_close(c);
		errno = EINVAL;
		return -1;
	}
	return 0;
}

void
cdb_close(struct cdb *c)
{
	free((void *)(uintptr_t)c->map);
	c->map = NULL;
	c->len = 0;
}

int
cdb_get(const struct cdb *c, const void *key, size_t klen, const uint8_t **data, size_t *dlen)
{
	const uint8_t *k = key;
	uint32_t h = 5381;
	uint64_t table, slots, slot;

	for (size_t i = 0; i < klen; i++) {
		h = (h * 33) ^ k[i];
	}
	table = le32(c->map + 8 * (h & 255));
	slots = le32(c->map + 8 * (h & 255) + 4);
	if (slots == 0) {
		return 0;
	}
	slot = (h >> 8) % slots;
	for (uint64_t n = 0; n < slots; n++) {
		const uint8_t *s = c->map + table + 8 * slot;
		uint64_t pos;

		if (table + 8 * slot + 8 > c->len) {
			return -1;
		}
		pos = le32(s + 4);
		if (pos == 0) {
			return 0;
		}
		if (le32(s) == h) {
			uint64_t kl, dl;

			if (pos + 8 > c->len) {
				return -1;
			}
			kl = le32(c->map + pos);
			dl = le32(c->map + pos + 4);
			if (pos + 8 + kl + dl > c->len) {
				return -1;
			}
			if (kl == klen && memcmp(c->map + pos + 8, key, klen) == 0) {
				*data = c->map + pos + 8 + kl;
				*dlen = (size_t)dl;
				return 1;
			}
		}
		slot = slot + 1 == slots ? 0 : slot + 1;
	}
	return 0;
}
