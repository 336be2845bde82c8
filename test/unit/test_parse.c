/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* The SMTP grammar: parse.c. Input is copied to the heap first, so that AddressSanitizer sees every octet read too many. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "parse.h"
#include "unit.h"

enum { NULL_OK = 1, BARE_OK = 2, UTF8 = 4 };

static enum parse_result
path(const char *s, size_t len, int flags, struct mailbox *m, size_t *used)
{
	char *copy = malloc(len == 0 ? 1 : len);
	enum parse_result r;

	memcpy(copy, s, len);
	memset(m, '#', sizeof *m);
	r = parse_path(copy, len, flags & NULL_OK, flags & BARE_OK, flags & UTF8, m, used);
	free(copy);
	assert_in_range(m->len, 0, sizeof m->text - 1);
	assert_int_equal(m->text[m->len], '\0');
	assert_in_range(*used, 0, len);
	return r;
}

static void
test_paths(void **state)
{
	static const struct {
		const char *in;
		int flags;
		enum parse_result r;
		const char *out, *rest;
	} t[] = {
		{ "<a@b.example>", 0, PARSE_OK, "a@b.example", "" },
		{ "<a@b.example> SIZE=1", 0, PARSE_OK, "a@b.example", " SIZE=1" },
		{ "a@b.example SIZE=1", 0, PARSE_OK, "a@b.example", " SIZE=1" },
		{ "<a@b.example>x", 0, PARSE_OK, "a@b.example", "x" },
		{ "<a@b.example>>", 0, PARSE_OK, "a@b.example", ">" },
		{ "a@b.example>", 0, PARSE_OK, "a@b.example", ">" },
		{ "<A.B+c=d/e#!$%&'*-?^_`{|}~@B.Example>", 0, PARSE_OK, "A.B+c=d/e#!$%&'*-?^_`{|}~@B.Example", "" },
		{ "<.a..b.@c.example>", 0, PARSE_OK, ".a..b.@c.example", "" }, /* stray dots, as real clients send */
		{ "<a@b_c.example>", 0, PARSE_OK, "a@b_c.example", "" },
		{ "<a@localhost>", 0, PARSE_OK, "a@localhost", "" },
		/* nothing, and no domain */
		{ "<>", NULL_OK, PARSE_OK, "", "" }, { "<> SIZE=1", NULL_OK, PARSE_OK, "", " SIZE=1" },
		{ "<>", 0, PARSE_SYNTAX, NULL, NULL }, { "<>", BARE_OK, PARSE_SYNTAX, NULL, NULL },
		{ "", NULL_OK | BARE_OK, PARSE_SYNTAX, NULL, NULL },
		{ "<", NULL_OK | BARE_OK, PARSE_SYNTAX, NULL, NULL },
		{ ">", NULL_OK | BARE_OK, PARSE_SYNTAX, NULL, NULL },
		{ "< >", NULL_OK | BARE_OK, PARSE_SYNTAX, NULL, NULL },
		{ "<Postmaster>", BARE_OK, PARSE_OK, "Postmaster", "" },
		{ "postmaster X", BARE_OK, PARSE_OK, "postmaster", " X" },
		{ "<postmaster>", 0, PARSE_SYNTAX, NULL, NULL },
		{ "<\"\">", BARE_OK, PARSE_SYNTAX, NULL, NULL }, /* would be an empty recipient */
		{ "\"\"", BARE_OK, PARSE_SYNTAX, NULL, NULL },
		/* quoted local parts */
		{ "<\"a b\"@c.example>", 0, PARSE_OK, "a b@c.example", "" },
		{ "<\"a\\\"b\\\\c\\d\"@e.example>", 0, PARSE_OK, "a\"b\\cd@e.example", "" },
		{ "<\"a@b>\"@c.example>", 0, PARSE_OK, "a@b>@c.example", "" },
		{ "<\"\"@c.example>", 0, PARSE_OK, "@c.example", "" },
		{ "<\"a@c.example>", 0, PARSE_SYNTAX, NULL, NULL }, { "<\"a\\", 0, PARSE_SYNTAX, NULL, NULL },
		{ "<\"", 0, PARSE_SYNTAX, NULL, NULL }, { "<\"a\"b@c.example>", 0, PARSE_SYNTAX, NULL, NULL },
		{ "<a\"b\"@c.example>", 0, PARSE_SYNTAX, NULL, NULL },
		{ "<\"a\tb\"@c.example>", 0, PARSE_SYNTAX, NULL, NULL },
		{ "<\"a\rb\"@c.example>", 0, PARSE_SYNTAX, NULL, NULL },
		{ "<\"a\nb\"@c.example>", 0, PARSE_SYNTAX, NULL, NULL },
		{ "<\"a\\\nb\"@c.example>", 0, PARSE_SYNTAX, NULL, NULL },
		{ "<\"a\x7f\"@c.example>", 0, PARSE_SYNTAX, NULL, NULL },
		{ "<\"a\\\x7f\"@c.example>", 0, PARSE_SYNTAX, NULL, NULL },
		/* source routes are dropped */
		{ "<@a.example:b@c.example>", 0, PARSE_OK, "b@c.example", "" },
		{ "<@a.example,@[192.0.2.1]:\"b\"@c.example>", 0, PARSE_OK, "b@c.example", "" },
		{ "<@a.example:>", NULL_OK | BARE_OK, PARSE_SYNTAX, NULL, NULL },
		{ "<@a.example,b.example:c@d.example>", 0, PARSE_SYNTAX, NULL, NULL },
		{ "<@a.example,:c@d.example>", 0, PARSE_SYNTAX, NULL, NULL },
		{ "<@:c@d.example>", 0, PARSE_SYNTAX, NULL, NULL },
		{ "<@a.example>", NULL_OK | BARE_OK, PARSE_SYNTAX, NULL, NULL },
		{ "@a.example:b@c.example", 0, PARSE_SYNTAX, NULL, NULL },
		/* domains and literals */
		{ "<a@[192.0.2.1]>", 0, PARSE_OK, "a@[192.0.2.1]", "" },
		{ "<a@[IPv6:2001:db8::1]>", 0, PARSE_OK, "a@[IPv6:2001:db8::1]", "" },
		{ "<a@[]>", 0, PARSE_SYNTAX, NULL, NULL }, { "<a@[192.0.2.1>", 0, PARSE_SYNTAX, NULL, NULL },
		{ "<a@[192.0.2.1].example>", 0, PARSE_SYNTAX, NULL, NULL },
		{ "<a@[192 0]>", 0, PARSE_SYNTAX, NULL, NULL }, { "<a@-b.example>", 0, PARSE_SYNTAX, NULL, NULL },
		{ "<a@b-.example>", 0, PARSE_SYNTAX, NULL, NULL }, { "<a@b.-c>", 0, PARSE_SYNTAX, NULL, NULL },
		{ "<a@b..example>", 0, PARSE_SYNTAX, NULL, NULL }, { "<a@b.example.>", 0, PARSE_SYNTAX, NULL, NULL },
		{ "<a@.example>", 0, PARSE_SYNTAX, NULL, NULL }, { "<a@>", BARE_OK, PARSE_SYNTAX, NULL, NULL },
		{ "<@>", BARE_OK, PARSE_SYNTAX, NULL, NULL }, { "<a@b@c.example>", 0, PARSE_SYNTAX, NULL, NULL },
		{ "<a@b.example", 0, PARSE_SYNTAX, NULL, NULL }, { "<a b@c.example>", 0, PARSE_SYNTAX, NULL, NULL },
		{ "< a@b.example>", 0, PARSE_SYNTAX, NULL, NULL }, { "<a@b.example >", 0, PARSE_SYNTAX, NULL, NULL },
		{ "<a@b.ex\rample>", 0, PARSE_SYNTAX, NULL, NULL },
		{ "<a\x01@b.example>", 0, PARSE_SYNTAX, NULL, NULL },
		/* 8-bit */
		{ "<\xc3\xbc@b.example>", UTF8, PARSE_OK, "\xc3\xbc@b.example", "" },
		{ "<a@\xc3\xbc.example>", UTF8, PARSE_OK, "a@\xc3\xbc.example", "" },
		{ "<\"\xc3\xbc \"@b.example>", UTF8, PARSE_OK, "\xc3\xbc @b.example", "" },
		{ "<\xc3\xbc@b.example>", 0, PARSE_UTF8, NULL, NULL },
		{ "<a@\xc3\xbc.example>", 0, PARSE_UTF8, NULL, NULL },
		{ "<\"\xc3\xbc\"@b.example>", 0, PARSE_UTF8, NULL, NULL },
		{ "<@\xc3\xbc.example:a@b.example>", 0, PARSE_UTF8, NULL, NULL },
		{ "<\xff@b.example>", UTF8, PARSE_UTF8, NULL, NULL },
		{ "<\xc3@b.example>", UTF8, PARSE_UTF8, NULL, NULL },
		{ "<a@\xc0\xaf.example>", UTF8, PARSE_UTF8, NULL, NULL },
		{ "<\"\\\xc3\xbc\"@b.example>", UTF8, PARSE_SYNTAX, NULL, NULL }, /* quoted-pairSMTP is ASCII */
	};
	struct mailbox m;
	size_t used;

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		enum parse_result r = path(t[i].in, strlen(t[i].in), t[i].flags, &m, &used);

		if (r != t[i].r) {
			fail_msg("%s: %d, not %d", t[i].in, r, t[i].r);
		}
		if (r == PARSE_OK) {
			assert_string_equal(m.text, t[i].out);
			assert_int_equal(m.len, strlen(t[i].out));
			assert_string_equal(t[i].in + used, t[i].rest);
		}
	}
	assert_int_equal(path("<a\0b@c.example>", 15, 0, &m, &used), PARSE_SYNTAX);
	assert_int_equal(path("<\"a\0b\"@c.example>", 17, 0, &m, &used), PARSE_SYNTAX);
	assert_int_equal(path("<a@b\0.example>", 14, 0, &m, &used), PARSE_SYNTAX);
}

/* <LOCAL@DOMAIN>, with `local` and `domain` octets; `quoted` puts quotes around the local part; `route`: domain in a route. */
static enum parse_result
sized(size_t local, size_t domain, int quoted, int route)
{
	char s[800], d[400], l[400];
	struct mailbox m;
	size_t used, n;

	/* Labels of one letter, and a last one that makes the length right. */
	for (n = 0; n + 2 < domain; n += 2) {
		memcpy(d + n, "d.", 2);
	}
	memset(d + n, 'e', domain - n);
	d[domain] = '\0';
	memset(l, 'l', local);
	l[local] = '\0';
	if (route) {
		n = (size_t)snprintf(s, sizeof s, "<@%s:%s@x.example>", d, l);
	} else {
		n = (size_t)snprintf(s, sizeof s, "<%s%s%s@%s>", quoted ? "\"" : "", l, quoted ? "\"" : "", d);
	}
	return path(s, n, 0, &m, &used);
}

static void
test_limits(void **state)
{
	(void)state;
	/* RFC 5321 4.5.3.1: local part 64, domain 255, path 256 with its brackets. */
	assert_int_equal(sized(64, 20, 0, 0), PARSE_OK);
	assert_int_equal(sized(65, 20, 0, 0), PARSE_LONG);
	assert_int_equal(sized(64, 20, 1, 0), PARSE_OK);
	assert_int_equal(sized(65, 20, 1, 0), PARSE_LONG);
	assert_int_equal(sized(1, 255, 0, 1), PARSE_OK);
	assert_int_equal(sized(1, 256, 0, 1), PARSE_LONG);
	assert_int_equal(sized(1, 390, 0, 1), PARSE_LONG);
	assert_int_equal(sized(64, 189, 0, 0), PARSE_OK);
	assert_int_equal(sized(64, 190, 0, 0), PARSE_LONG);
	assert_int_equal(sized(1, 252, 0, 0), PARSE_OK);
	assert_int_equal(sized(1, 253, 0, 0), PARSE_LONG);
	assert_int_equal(sized(1, 255, 0, 0), PARSE_LONG);
	assert_int_equal(sized(300, 3, 0, 0), PARSE_LONG);
	assert_int_equal(sized(300, 3, 1, 0), PARSE_LONG);
}

/* Every prefix, and every octet changed into every other: nothing is read or written out of bounds, no control gets through. */
static void
test_mutations(void **state)
{
	static const char *const seeds[] = {
		"<@a.example,@b.example:c@d.example>",
		"<\"a\\\"b\"@[IPv6:2001:db8::1]> X",
		"<\xc3\xbc@\xc3\xbc.example>",
	};
	struct mailbox m;
	size_t used;

	(void)state;
	for (size_t i = 0; i < COUNT(seeds); i++) {
		size_t len = strlen(seeds[i]);
		char s[64];

		for (size_t n = 0; n < len; n++) {
			path(seeds[i], n, UTF8, &m, &used);
		}
		for (size_t n = 0; n < len; n++) {
			for (int c = 0; c < 256; c++) {
				memcpy(s, seeds[i], len);
				s[n] = (char)c;
				if (path(s, len, UTF8 | NULL_OK | BARE_OK, &m, &used) == PARSE_OK) {
					for (size_t k = 0; k < m.len; k++) {
						assert_true((uint8_t)m.text[k] >= 32 && m.text[k] != 127);
					}
				}
			}
		}
	}
}

static void
test_helo(void **state)
{
	char s[256];

	(void)state;
	memset(s, 'a', sizeof s);
	assert_int_equal(parse_helo(s, 1), 0);
	assert_int_equal(parse_helo(s, 255), 0);
	assert_int_equal(parse_helo(s, 256), -1);
	assert_int_equal(parse_helo(s, 0), -1);
	for (int c = 0; c < 256; c++) {
		s[1] = (char)c;
		assert_int_equal(parse_helo(s, 3), c <= 32 || c == 127 ? -1 : 0);
	}
}

static void
test_base64(void **state)
{
	static const struct {
		const char *in, *out; /* NULL: refused */
	} t[] = {
		{ "", "" }, { "Zg==", "f" }, { "Zm8=", "fo" }, { "Zm9v", "foo" }, { "Zm9vYg==", "foob" },
		{ "Zm9vYmE=", "fooba" }, { "Zm9vYmFy", "foobar" }, { "+/+/", "\xfb\xff\xbf" },
		{ "Zg", NULL }, /* no padding */
		{ "Zg=", NULL }, { "Zg===", NULL }, { "Zm9vZ", NULL }, { "=", NULL }, { "====", NULL },
		{ "Z===", NULL }, { "Zg==Zg==", NULL },                                     /* padding in the middle */
		{ "Z=g=", NULL }, { "Zm8=Zm9v", NULL }, { "=Zm9", NULL }, { "Zh==", NULL }, /* unused bits are set */
		{ "Zm9=", NULL }, { "Zm 9", NULL }, { "Zm9v\n", NULL }, { "Zm9vYmF\n", NULL },
		{ "-_-_", NULL }, /* the alphabet for URLs */
	};
	char out[16], all[4] = "AAAA";
	size_t good = 0;

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		size_t len = strlen(t[i].in), want = t[i].out == NULL ? 0 : strlen(t[i].out);

		if (parse_base64(t[i].in, len, out, sizeof out) != (t[i].out == NULL ? -1 : (long)want)) {
			fail_msg("%s", t[i].in);
		}
		if (t[i].out != NULL) {
			assert_memory_equal(out, t[i].out, want);
			/* Exactly the room there must be, one octet less, and in place. */
			assert_int_equal(parse_base64(t[i].in, len, out, want), want);
			assert_true(want == 0 || parse_base64(t[i].in, len, out, want - 1) == -1);
			memcpy(out, t[i].in, len);
			assert_int_equal(parse_base64(out, len, out, len), want);
			assert_memory_equal(out, t[i].out, want);
		}
	}
	for (int c = 0; c < 256; c++) {
		all[1] = (char)c;
		good += parse_base64(all, 4, out, sizeof out) == 3;
	}
	assert_int_equal(good, 64);
}

static void
test_plain(void **state)
{
	static const struct {
		const char *in;
		size_t len;
		const char *authzid, *user, *pass; /* NULL: refused */
	} t[] = {
		{ S("\0joe\0secret"), "", "joe", "secret" },
		{ S("joe\0joe\0secret"), "joe", "joe", "secret" },
		{ S("\0\0"), "", "", "" },
		{ S("a\0b\0"), "a", "b", "" },
		{ S(""), NULL, NULL, NULL },
		{ S("joe"), NULL, NULL, NULL },
		{ S("\0joe"), NULL, NULL, NULL },
		{ S("\0joe\0sec\0ret"), NULL, NULL, NULL },
		{ S("\0joe\0secret\0"), NULL, NULL, NULL },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		char *copy = malloc(t[i].len + 1);
		char *end = copy + 1 + t[i].len; /* reading past it is found */
		struct sasl_plain p;
		int rc;

		memcpy(copy + 1, t[i].in, t[i].len);
		rc = parse_plain(copy + 1, t[i].len, &p);
		assert_int_equal(rc, t[i].user == NULL ? -1 : 0);
		if (rc == 0) {
			assert_int_equal(p.authzid_len, strlen(t[i].authzid));
			assert_memory_equal(p.authzid, t[i].authzid, p.authzid_len);
			assert_int_equal(p.user_len, strlen(t[i].user));
			assert_memory_equal(p.user, t[i].user, p.user_len);
			assert_int_equal(p.pass_len, strlen(t[i].pass));
			assert_memory_equal(p.pass, t[i].pass, p.pass_len);
			assert_ptr_equal(p.pass + p.pass_len, end);
		}
		free(copy);
	}
}

static void
test_login_ok(void **state)
{
	char x[300];

	(void)state;
	memset(x, 'x', sizeof x);
	assert_int_equal(parse_login_ok(x, 1, x, 1), 1);
	assert_int_equal(parse_login_ok(x, 0, x, 1), 0);
	assert_int_equal(parse_login_ok(x, 253, x, 1), 1);
	assert_int_equal(parse_login_ok(x, 254, x, 1), 0);
	assert_int_equal(parse_login_ok(x, 1, x, 0), 0);
	assert_int_equal(parse_login_ok(x, 1, x, 128), 1);
	assert_int_equal(parse_login_ok(x, 1, x, 129), 0);
	for (int c = 0; c < 256; c++) {
		x[1] = (char)c;
		/* A single octet from 128 up is no UTF-8. */
		assert_int_equal(parse_login_ok(x, 3, "p", 1), c >= 32 && c < 127);
		assert_int_equal(parse_login_ok("u", 1, x, 3), c != 0);
	}
	assert_int_equal(parse_login_ok("j\xc3\xbcrg@x", 7, "p", 1), 1);
}

static void
test_xtext(void **state)
{
	static const struct {
		const char *s;
		int ok;
	} t[] = {
		{ "<>", 1 },
		{ "joe@example.net", 1 },
		{ "a+2Bb+3D", 1 },
		{ "+00", 1 },
		{ "<a>", 1 },
		{ "", 0 },
		{ "a=b", 0 },
		{ "a b", 0 },
		{ "a+", 0 },
		{ "a+2", 0 },
		{ "a+2b", 0 }, /* hexchar is upper case */
		{ "a+G0", 0 },
		{ "a\x7f", 0 },
		{ "\xc3\xbc", 0 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		size_t len = strlen(t[i].s);
		char *copy = malloc(len + (len == 0));

		memcpy(copy, t[i].s, len);
		if (parse_xtext(copy, len) != t[i].ok) {
			fail_msg("%s", t[i].s);
		}
		free(copy);
	}
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_mutations),
		cmocka_unit_test(test_helo),
		cmocka_unit_test(test_base64),
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_login_ok),
		cmocka_unit_test(test_xtext),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
