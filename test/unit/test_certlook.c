/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* Our certificate as others see it: its last day and its issuer, out of good, short and mangled DER. */
#include "certlook.h"
#include "der.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#if SELFTEST

/* The beginning of a certificate: no version when `version` is 0. Its length. */
static size_t
make(unsigned char *mem, size_t cap, int version, const char *issuer, const char *subject, unsigned tag,
    const char *until)
{
	struct buf b;
	size_t all, tbs, m;

	buf_init(&b, mem, cap);
	all = der_open(&b, 0x30);
	tbs = der_open(&b, 0x30);
	if (version) {
		m = der_open(&b, 0xa0);
		der_put(&b, 0x02, "\2", 1);
		der_close(&b, m);
	}
	der_put(&b, 0x02, "\1", 1);
	der_put(&b, 0x30, "algorithm", 9);
	der_put(&b, 0x30, issuer, strlen(issuer));
	m = der_open(&b, 0x30);
	der_put(&b, 0x17, "000101000000Z", 13);
	der_put(&b, tag, until, strlen(until));
	der_close(&b, m);
	der_put(&b, 0x30, subject, strlen(subject));
	der_close(&b, tbs);
	der_close(&b, all);
	assert_false(b.full);
	return b.len;
}

/* Look at a copy of exactly this size, so that a step too far is seen. */
static void
look(const unsigned char *p, size_t len, char until[11], int *self)
{
	struct cert_chain chain = { .count = 1 };
	unsigned char *copy = malloc(len + 1);

	assert_non_null(copy);
	memcpy(copy + 1, p, len);
	chain.cert[0].data = copy + 1;
	chain.cert[0].data_len = len;
	memset(until, 'x', 11);
	certlook_leaf(&chain, until, self);
	free(copy);
}

static void
test_dates(void **state)
{
	static const struct {
		unsigned tag;
		const char *until, *want;
	} dates[] = { { 0x17, "270301000000Z", "2027-03-01" }, { 0x17, "491231235959Z", "2049-12-31" },
		{ 0x17, "500101000000Z", "1950-01-01" }, { 0x18, "99991231235959Z", "9999-12-31" },
		{ 0x18, "2051", "?" }, { 0x17, "2703", "?" }, { 0x16, "270301000000Z", "?" }, { 0x17, "", "?" } };
	char long_name[300], until[11];
	unsigned char mem[2048];
	int self;

	(void)state;
	memset(long_name, 'n', sizeof long_name - 1);
	long_name[sizeof long_name - 1] = '\0';
	for (size_t i = 0; i < sizeof dates / sizeof dates[0]; i++) {
		for (int version = 0; version < 2; version++) {
			size_t len = make(mem, sizeof mem, version, "me", "me", dates[i].tag, dates[i].until);

			look(mem, len, until, &self);
			assert_string_equal(until, dates[i].want);
			assert_true(self);
			len = make(mem, sizeof mem, version, long_name, "me", dates[i].tag, dates[i].until);
			look(mem, len, until, &self);
			assert_string_equal(until, dates[i].want);
			assert_false(self);
		}
	}
}

/* Cut anywhere, and with any octet of a length changed: no read beyond it, and a text that ends. */
static void
test_mangled(void **state)
{
	unsigned char mem[2048];
	size_t len = make(mem, sizeof mem, 1, "issuer", "subject", 0x17, "270301000000Z");
	char until[11];
	int self;

	(void)state;
	for (size_t n = 0; n < len; n++) {
		look(mem, n, until, &self);
		assert_string_equal(until, "?"); /* the outer length does not fit */
	}
	for (size_t i = 0; i < len; i++) {
		unsigned char was = mem[i];

		for (unsigned c = 0; c < 256; c++) {
			mem[i] = (unsigned char)c;
			look(mem, len, until, &self);
			assert_non_null(memchr(until, '\0', sizeof until));
		}
		mem[i] = was;
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_dates), cmocka_unit_test(test_mangled) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int
main(void)
{
	return 0;
}

#endif
