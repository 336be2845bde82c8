/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* The cdb reader: cdb.c. Damaged files lie in heap blocks of their exact size, so that AddressSanitizer sees any step outside. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cdb.h"
#include "cdbmake.h"
#include "unit.h"

#include <errno.h>

static const struct cdb_pair pairs[] = {
	{ S("one"), S("first") },
	{ S("two"), S("") },
	{ S(""), S("empty key") },
	{ S("one"), S("shadowed") },
	{ S("nul\0key"), S("a\0b") },
	{ S("a.example"), S("") },
};

static uint8_t image[8192];
static size_t image_len;

static void
test_get(void **state)
{
	static const struct {
		const char *key;
		size_t klen;
		const char *data; /* NULL: not there */
		size_t dlen;
	} t[] = {
		{ S("one"), S("first") }, /* the first of two */
		{ S("two"), S("") },
		{ S(""), S("empty key") },
		{ S("nul\0key"), S("a\0b") },
		{ S("a.example"), S("") },
		{ S("nul"), NULL, 0 },
		{ S("On"), NULL, 0 },
		{ S("ONE"), NULL, 0 },
		{ S("three"), NULL, 0 },
		{ S("a.example."), NULL, 0 },
	};
	struct cdb c;
	const uint8_t *data;
	size_t dlen;

	(void)state;
	put_mem("good.cdb", image, image_len);
	assert_int_equal(cdb_open(&c, in("good.cdb")), 0);
	assert_int_equal(c.len, image_len);
	for (size_t i = 0; i < COUNT(t); i++) {
		assert_int_equal(cdb_get(&c, t[i].key, t[i].klen, &data, &dlen), t[i].data != NULL);
		if (t[i].data != NULL) {
			assert_int_equal(dlen, t[i].dlen);
			assert_memory_equal(data, t[i].data, dlen);
		}
	}
	cdb_close(&c);
	assert_null(c.map);
	cdb_close(&c);
}

/* A bucket whose slots are all taken, so that a search must wrap and must end. */
static void
test_full_table(void **state)
{
	static struct cdb_pair many[200];
	static char keys[200][8];
	static uint8_t big[65536];
	struct cdb c = { .map = big };
	const uint8_t *data;
	size_t dlen, bucket = 0, table, slots;

	(void)state;
	for (unsigned i = 0; i < 200; i++) {
		snprintf(keys[i], sizeof keys[i], "k%u", i);
		many[i] = (struct cdb_pair){ keys[i], strlen(keys[i]), keys[i], strlen(keys[i]) };
	}
	c.len = cdbmake(big, many, 200);
	assert_int_equal(cdb_check(&c), 0);
	for (unsigned i = 0; i < 200; i++) {
		assert_int_equal(cdb_get(&c, keys[i], strlen(keys[i]), &data, &dlen), 1);
		assert_memory_equal(data, keys[i], dlen);
	}
	/* Fill the free slots of one bucket with copies of what is in it. */
	bucket = cdbmake_hash("k0", 2) & 255;
	table = big[8 * bucket] | (size_t)big[8 * bucket + 1] << 8;
	slots = big[8 * bucket + 4];
	for (size_t k = 0; k < slots; k++) {
		for (size_t j = 0; memcmp(big + table + 8 * k + 4, "\0\0\0\0", 4) == 0; j = (j + 1) % slots) {
			memcpy(big + table + 8 * k, big + table + 8 * j, 8);
		}
	}
	for (unsigned i = 0; i < 100000; i++) {
		char key[8];

		snprintf(key, sizeof key, "x%u", i);
		if ((cdbmake_hash(key, strlen(key)) & 255) == bucket) {
			assert_int_equal(cdb_get(&c, key, strlen(key), &data, &dlen), 0);
		}
	}
	assert_int_equal(cdb_get(&c, "k0", 2, &data, &dlen), 1);
}

/* Look everything up in a copy of exactly `len` octets. */
static void
probe(const uint8_t *p, size_t len)
{
	uint8_t *copy = malloc(len == 0 ? 1 : len);
	struct cdb c = { .map = copy, .len = len };
	const uint8_t *data;
	size_t dlen;

	memcpy(copy, p, len);
	if (cdb_check(&c) == 0) {
		for (size_t i = 0; i < COUNT(pairs); i++) {
			int r = cdb_get(&c, pairs[i].key, pairs[i].klen, &data, &dlen);

			assert_in_range(r + 1, 0, 2);
			if (r == 1) {
				assert_true(data >= copy && dlen <= len && (size_t)(data - copy) <= len - dlen);
			}
		}
	}
	free(copy);
}

static void
test_damage(void **state)
{
	static const uint8_t values[] = { 0x00, 0x01, 0x7f, 0x80, 0xff };

	(void)state;
	/* Every bit of every octet flipped, each octet set to awkward values, and every length. */
	for (size_t i = 0; i < image_len; i++) {
		uint8_t was = image[i];

		for (unsigned bit = 0; bit < 8; bit++) {
			image[i] = (uint8_t)(was ^ 1U << bit);
			probe(image, image_len);
		}
		for (size_t v = 0; v < COUNT(values); v++) {
			image[i] = values[v];
			probe(image, image_len);
		}
		image[i] = was;
		probe(image, i);
	}
	/* Every 32-bit number set to ones that overflow. */
	for (size_t i = 0; i + 4 <= image_len; i += i < 2048 ? 4 : 1) {
		static const uint32_t numbers[] = { 0xffffffff, 0xfffffff8, 0x80000000, 0x20000000, 0x1fffffff };
		uint8_t was[4];

		memcpy(was, image + i, 4);
		for (size_t v = 0; v < COUNT(numbers); v++) {
			cdbmake_put32(image + i, numbers[v]);
			probe(image, image_len);
		}
		memcpy(image + i, was, 4);
	}
}

/* Damage that must be told from absence: a record outside the file. */
static void
test_damaged_record(void **state)
{
	struct cdb c = { .map = image, .len = image_len };
	const uint8_t *data;
	size_t dlen, bucket = cdbmake_hash("two", 3) & 255;
	size_t slot = image[8 * bucket] | (size_t)image[8 * bucket + 1] << 8;
	uint8_t was[4];

	(void)state;
	/* One entry, two slots: the record position is in one of them. */
	slot += memcmp(image + slot + 4, "\0\0\0\0", 4) == 0 ? 12 : 4;
	memcpy(was, image + slot, 4);
	cdbmake_put32(image + slot, image_len - 7);
	assert_int_equal(cdb_get(&c, "two", 3, &data, &dlen), -1);
	cdbmake_put32(image + slot, image_len - 8); /* its lengths are then a slot's, too large */
	assert_int_equal(cdb_get(&c, "two", 3, &data, &dlen), -1);
	memcpy(image + slot, was, 4);
	assert_int_equal(cdb_get(&c, "two", 3, &data, &dlen), 1);
}

static void
test_open(void **state)
{
	static uint8_t zeros[2048];
	static const struct {
		size_t len;
		int error;
	} t[] = { { 0, EINVAL }, { 2047, EINVAL }, { 2048, 0 } };
	struct cdb c;
	const uint8_t *data;
	size_t dlen;
	unsigned fds = open_fds();

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		put_mem("c", zeros, t[i].len);
		errno = 0;
		assert_int_equal(cdb_open(&c, in("c")), t[i].error == 0 ? 0 : -1);
		assert_int_equal(t[i].error, t[i].error == 0 ? 0 : errno);
		assert_int_equal(c.map == NULL, t[i].error != 0);
	}
	assert_int_equal(cdb_get(&c, "x", 1, &data, &dlen), 0);
	cdb_close(&c);
	assert_int_equal(cdb_open(&c, in("none")), -1);
	assert_int_equal(errno, ENOENT);
	assert_int_equal(cdb_open(&c, dir), -1);
	assert_int_equal(errno, EINVAL);
	/* Cut, so that a table lies outside. */
	put_mem("c", image, image_len - 1);
	assert_int_equal(cdb_open(&c, in("c")), -1);
	assert_int_equal(errno, EINVAL);
	assert_null(c.map);
	assert_int_equal(open_fds(), fds);
}

static int
setup(void **state)
{
	image_len = cdbmake(image, pairs, COUNT(pairs));
	return make_dir(state);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_get),
		cmocka_unit_test(test_full_table),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_damaged_record),
		cmocka_unit_test(test_open),
	};

	return cmocka_run_group_tests(tests, setup, remove_dir);
}
