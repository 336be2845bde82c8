/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* What a login may do, as text and as attributes: limits.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "limits.h"
#include "unit.h"

#if ACCOUNTS

static struct limits l;
static const char *why;

static int
items(const char *text)
{
	char *copy = strdup(text); /* its end is guarded */
	int rc;

	limits_default(&l);
	why = NULL;
	rc = limits_items(&l, copy, strlen(text), &why);
	free(copy);
	return rc;
}

static void
test_default(void **state)
{
	(void)state;
	limits_default(&l);
	assert_int_equal(l.day, LIMIT_NONE);
	assert_int_equal(l.rcpt, LIMIT_NONE);
	assert_int_equal(l.left, LIMIT_NONE);
	assert_int_equal(l.left_rcpt, LIMIT_NONE);
	assert_int_equal(l.rate, LIMIT_NONE);
	assert_int_equal(l.sessions, LIMIT_NONE);
	assert_int_equal(l.session_s, LIMIT_NONE);
	assert_int_equal(l.idle_s, LIMIT_NONE);
	assert_int_equal(l.size, 0);
	assert_int_equal(l.relay, 1);
	assert_int_equal(l.froms, 0);
}

static void
test_items(void **state)
{
	(void)state;
	assert_int_equal(items("day=200,rcpt=500,rate=10,size=5M,sessions=3,time=600,idle=60,from=@example.net,"
			       "from=joe@example.org,from=,relay=no"),
	    0);
	assert_int_equal(l.day, 200);
	assert_int_equal(l.rcpt, 500);
	assert_int_equal(l.rate, 10);
	assert_int_equal(l.size, 5 << 20);
	assert_int_equal(l.sessions, 3);
	assert_int_equal(l.session_s, 600);
	assert_int_equal(l.idle_s, 60);
	assert_int_equal(l.froms, 3);
	assert_string_equal(l.from[0], "@example.net");
	assert_string_equal(l.from[1], "joe@example.org");
	assert_string_equal(l.from[2], "");
	assert_int_equal(l.relay, 0);
	assert_int_equal(l.left, LIMIT_NONE);
	assert_int_equal(items(""), 0);
	assert_int_equal(l.day, LIMIT_NONE);
	assert_int_equal(items("day=0,rcpt=4294967294,relay=yes"), 0);
	assert_int_equal(l.day, 0);
	assert_int_equal(l.rcpt, LIMIT_NONE - 1);
	assert_int_equal(l.relay, 1);
	assert_int_equal(items("day=5,day=-,size=7K,size=-"), 0);
	assert_int_equal(l.day, LIMIT_NONE);
	assert_int_equal(l.size, 0);
	assert_int_equal(items("size=1"), 0);
	assert_int_equal(l.size, 1);
	assert_int_equal(items("size=3G"), 0);
	assert_true(l.size == UINT64_C(3) << 30);
	assert_int_equal(items("size=9K"), 0);
	assert_int_equal(l.size, 9216);
}

static void
test_malformed(void **state)
{
	static const char *const bad[] = { "day", "day=", "=", "=5", ",", "day=1,", ",day=1", "day=1,,rcpt=2", "day=-1",
		"day=+1", "day=1x", "day= 1", " day=1", "Day=1", "days=1", "da=1", "day=4294967295",
		"day=99999999999999999999", "day=--", "size=", "size=M", "size=0", "size=0K", "size=5m", "size=5MM",
		"size=5T", "size=4294967296", "relay", "relay=", "relay=1", "relay=nope", "relay=YES",
		"from=example.net", "from=joe@", "from=@", "from=joe@a b", "from=@a,from=@b,from=@c,from=@d,from=@e",
		"rate=1.5", "time=1h", "idle=x", "sessions=", "mail:day=1", "day=1;rcpt=2", "day\0=1" };
	char from[SMTP_PATH_MAX + 16];

	(void)state;
	for (size_t i = 0; i < COUNT(bad); i++) {
		if (items(bad[i]) != -1 || why == NULL || why[0] == '\0') {
			fail_msg("\"%s\" was taken", bad[i]);
		}
	}
	assert_int_equal(items("from=a@b\x7f.example"), -1);
	/* An address as long as one can be, and one longer. */
	for (int more = 0; more < 2; more++) {
		snprintf(from, sizeof from, "from=%0*d@x.example", SMTP_PATH_MAX - 10 + more, 0);
		assert_int_equal(items(from), -more);
	}
}

static int
check(const char *text, struct findings *f)
{
	return limits_check(text, &fresh(f)->d, "control/userlimits");
}

static void
test_file(void **state)
{
	static const char text[] =
	    "# for all\n:day=50,rate=5,from=@isp.example\n\njoe@a.example:day=-,from=,from=joe@a.example \t\r\n"
	    "joe:rcpt=7\njoe:rcpt=8\nann:relay=no";
	static struct findings f;

	(void)state;
	assert_int_equal(check(text, &f), 0);
	assert_string_equal(f.text, "");
	limits_default(&l);
	limits_file(&l, text, "nobody");
	assert_int_equal(l.day, 50);
	assert_int_equal(l.rate, 5);
	assert_int_equal(l.froms, 1);
	limits_default(&l);
	limits_file(&l, text, "joe@a.example");
	assert_int_equal(l.day, LIMIT_NONE);
	assert_int_equal(l.rate, 5);
	assert_int_equal(l.froms, 2); /* in place of those for all */
	assert_string_equal(l.from[1], "joe@a.example");
	limits_default(&l);
	limits_file(&l, text, "joe");
	assert_int_equal(l.day, 50);
	assert_int_equal(l.rcpt, 8);
	assert_int_equal(l.froms, 1);
	limits_default(&l);
	limits_file(&l, text, "ann");
	assert_int_equal(l.relay, 0);
	limits_default(&l);
	limits_file(&l, text, "an");
	assert_int_equal(l.relay, 1);
	limits_default(&l);
	limits_file(&l, NULL, "joe");
	assert_int_equal(l.day, LIMIT_NONE);
	assert_int_equal(check(":day=1\n# x\nday=2\njoe:day=2,\n:dey=3\n:day=4\n", &f), -1);
	assert_has(f.text, "E|userlimits|3|no colon");
	assert_has(f.text, "E|userlimits|4|a comma");
	assert_has(f.text, "E|userlimits|5|an unknown word");
	assert_lacks(f.text, "|6|");
	assert_int_equal(check("", &f), 0);
}

static int
attributes(const void *p, size_t len)
{
	uint8_t *copy = malloc(len);
	int rc;

	assert_got(copy);
	memcpy(copy, p, len);
	limits_default(&l);
	l.froms = 1;
	strcpy(l.from[0], "@file.example");
	why = NULL;
	rc = limits_radius(&l, copy, len, &why);
	free(copy);
	return rc;
}

#define OURS "\0\0\xff\xfa"

static void
test_radius(void **state)
{
	(void)state;
	assert_int_equal(attributes(S("\x0b\x10"
				      "mail:day=2,idle")),
	    -1);
	assert_int_equal(attributes(S("\x0b\x0c"
				      "mail:day=2")),
	    0);
	assert_int_equal(l.day, 2);
	assert_int_equal(l.froms, 1);
	assert_string_equal(l.from[0], "@file.example");
	/* Filters of others are no business of ours. */
	assert_int_equal(attributes(S("\x0b\x06"
				      "mail\x0b\x0b"
				      "std.ppp.x\x0b\x07"
				      "Mail:\x0b\x07"
				      "mail:")),
	    0);
	assert_int_equal(l.day, LIMIT_NONE);
	assert_int_equal(attributes(S("\x1b\x06\0\0\x02\x58\x1c\x06\0\0\0\x3c\x3e\x06\0\0\0\x02\x19\x03x")), 0);
	assert_int_equal(l.session_s, 600);
	assert_int_equal(l.idle_s, 60);
	assert_int_equal(l.sessions, 2);
	assert_int_equal(attributes(S("\x1b\x05\0\0\0")), -1);
	assert_int_equal(attributes(S("\x1c\x07\0\0\0\0\0")), -1);
	assert_int_equal(attributes(S("\x3e\x03\0")), -1);
	/* All of the dictionary; two vendor attributes in one. */
	assert_int_equal(attributes(S("\x1a\x12" OURS "\x01\x06\0\0\x01\0\x02\x06\0\0\0\0"
				      "\x1a\x0c" OURS "\x03\x06\0\0\0\x05\x1a\x0c" OURS "\x04\x06\0\x10\0\0"
				      "\x1a\x0c" OURS "\x05\x06\0\0\0\x07\x1a\x0c" OURS "\x06\x06@a.b"
				      "\x1a\x0d" OURS "\x06\x07"
				      "a@b.c\x1a\x0c" OURS "\x07\x06\0\0\0\0")),
	    0);
	assert_int_equal(l.left, 256);
	assert_int_equal(l.left_rcpt, 0);
	assert_int_equal(l.day, LIMIT_NONE);
	assert_int_equal(l.rate, 5);
	assert_int_equal(l.size, 1 << 20);
	assert_int_equal(l.sessions, 7);
	assert_int_equal(l.froms, 2);
	assert_string_equal(l.from[0], "@a.b");
	assert_string_equal(l.from[1], "a@b.c");
	assert_int_equal(l.relay, 0);
	assert_int_equal(attributes(S("\x1a\x0c" OURS "\x07\x06\0\0\0\x01")), 0);
	assert_int_equal(l.relay, 1);
}

static void
test_radius_malformed(void **state)
{
	static const struct {
		const char *p;
		size_t len;
	} bad[] = {
		{ S("\x1a\x0c" OURS "\x08\x06\0\0\0\x01") }, /* of no kind we know */
		{ S("\x1a\x0c" OURS "\0\x06\0\0\0\x01") },
		{ S("\x1a\x0c" OURS "\x07\x06\0\0\0\x02") },   /* neither yes nor no */
		{ S("\x1a\x0c" OURS "\x04\x06\0\0\0\0") },     /* no octets at all */
		{ S("\x1a\x0b" OURS "\x01\x05\0\0\x01") },     /* short */
		{ S("\x1a\x0d" OURS "\x01\x07\0\0\0\0\x01") }, /* long */
		{ S("\x1a\x0c" OURS "\x01\x07\0\0\0\x01") },   /* beyond its end */
		{ S("\x1a\x0c" OURS "\x01\x01\0\0\0\x01") },
		{ S("\x1a\x07" OURS "\x01") },
		{ S("\x1a\x08" OURS "\x06\x02") }, /* no sender */
		{ S("\x1a\x0c" OURS "\x06\x06"
		    "abcd") },
		{ S("\x1a\x0d" OURS "\x06\x07"
		    "a\0@b.") },
		{ S("\x1a\x12" OURS "\x03\x06\0\0\0\x01\x09\x06\0\0\0\x01") },
		{ S("\x0b\x0c"
		    "mail:dax=2") },
		{ S("\x0b\x0c"
		    "mail:day=2\x0b\x0c"
		    "mail:day=x") },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(bad); i++) {
		if (attributes(bad[i].p, bad[i].len) != -1 || why == NULL) {
			fail_msg("number %zu was taken", i);
		}
	}
}

static void
test_from(void **state)
{
	(void)state;
	assert_int_equal(items(""), 0);
	assert_int_equal(limits_from_ok(&l, "any@where.example"), 1);
	assert_int_equal(limits_from_ok(&l, ""), 1);
	assert_int_equal(items("from=@A.example,from=Joe@b.example"), 0);
	assert_int_equal(limits_from_ok(&l, "x@a.EXAMPLE"), 1);
	assert_int_equal(limits_from_ok(&l, "\"x@y\"@a.example"), 1);
	assert_int_equal(limits_from_ok(&l, "joe@B.example"), 1);
	assert_int_equal(limits_from_ok(&l, "joe@sub.a.example"), 0);
	assert_int_equal(limits_from_ok(&l, "joe@xa.example"), 0);
	assert_int_equal(limits_from_ok(&l, "ann@b.example"), 0);
	assert_int_equal(limits_from_ok(&l, "xjoe@b.example"), 0);
	assert_int_equal(limits_from_ok(&l, "@a.example@evil.example"), 0);
	assert_int_equal(limits_from_ok(&l, "joe"), 0);
	assert_int_equal(limits_from_ok(&l, ""), 0);
	assert_int_equal(items("from="), 0);
	assert_int_equal(limits_from_ok(&l, ""), 1);
	assert_int_equal(limits_from_ok(&l, "a@b.example"), 0);
}

#endif

int
main(void)
{
#if ACCOUNTS
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_default),
		cmocka_unit_test(test_items),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_radius),
		cmocka_unit_test(test_radius_malformed),
		cmocka_unit_test(test_from),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
#else
	return 0;
#endif
}
