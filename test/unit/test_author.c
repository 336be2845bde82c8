/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* The address in a From field: author.c, whichever way the rest is built. */
#define FROM_HEADER_CHECK 1

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../author.c"
#include "unit.h"

static const char *
author(const char *value, size_t len)
{
	static char addr[SMTP_PATH_MAX + 1];
	char *copy = malloc(len == 0 ? 1 : len); /* its end is guarded */
	int rc;

	assert_got(copy);
	memcpy(copy, value, len);
	memset(addr, 'x', sizeof addr);
	rc = author_address(copy, len, addr, sizeof addr);
	free(copy);
	return rc == 0 ? addr : NULL;
}

static void
test_good(void **state)
{
	static const struct {
		const char *value, *addr;
	} t[] = {
		{ "joe@a.example", "joe@a.example" },
		{ " joe@a.example ", "joe@a.example" },
		{ "\tJoe+x@A-b.Example", "Joe+x@A-b.Example" },
		{ "<joe@a.example>", "joe@a.example" },
		{ " Joe Doe <joe@a.example>", "joe@a.example" },
		{ " Joe <joe@a.example> (at home)", "joe@a.example" },
		{ " Joe < joe@a.example >", "joe@a.example" },
		{ " \"Doe, Joe <eve@b.example>\" <joe@a.example>", "joe@a.example" },
		{ " \"a\\\"b\" <joe@a.example>", "joe@a.example" },
		{ " (eve@b.example) joe@a.example", "joe@a.example" },
		{ " joe@a.example (a (nested) \\) one)", "joe@a.example" },
		{ " =?utf-8?q?J=C3=B6?= <joe@a.example>", "joe@a.example" },
		{ " J\xc3\xb6 <j\xc3\xb6@b\xc3\xbc.example>", "j\xc3\xb6@b\xc3\xbc.example" },
		{ " o'neil!#$%&*/=?^_`{|}~@a.example", "o'neil!#$%&*/=?^_`{|}~@a.example" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		const char *got = author(t[i].value, strlen(t[i].value));

		if (got == NULL || strcmp(got, t[i].addr) != 0) {
			fail_msg("\"%s\": %s", t[i].value, got == NULL ? "-" : got);
		}
	}
}

/* All that one reader might take for one address, and the next for another. */
static void
test_unclear(void **state)
{
	static const char *const t[] = { "", " ", "joe", "joe@", "@a.example", "joe@a.example, eve@b.example",
		"joe@a.example,", ",joe@a.example", "<joe@a.example> <eve@b.example>",
		"<joe@a.example>, <eve@b.example>", "<joe@a.example> eve@b.example", "eve@b.example <joe@a.example",
		"joe@a.example>", "<<joe@a.example>>", "<>", "joe@a.example@b.example", "<@b.example:joe@a.example>",
		"friends: joe@a.example;", "joe@a.example;", "\"joe\"@a.example", "<\"joe\"@a.example>",
		"joe@[192.0.2.1]", "joe @a.example", "joe@ a.example", "joe@a.example x", "x joe@a.example",
		"<joe@a .example>", "joe@a.example (", "\"joe <joe@a.example>", "joe@a.example (x\\)",
		"joe@a.example\\", "joe\\@a.example", "<joe@a.ex(x)ample>", "joe@a_b.example", "joe@a/b",
		"joe@a.example\x7f", "joe@a.example\x01" };
	char far[SMTP_PATH_MAX + 64];

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		const char *got = author(t[i], strlen(t[i]));

		if (got != NULL) {
			fail_msg("\"%s\": %s", t[i], got);
		}
	}
	assert_null(author(S("joe@a.example\0")));
	assert_null(author(S("joe\0@a.example")));
	/* As long as an address can be, and longer. */
	for (int more = 0; more < 2; more++) {
		snprintf(far, sizeof far, "<%0*d@x.example>", SMTP_PATH_MAX - 10 + more, 0);
		assert_int_equal(author(far, strlen(far)) != NULL, more == 0);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_unclear),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
