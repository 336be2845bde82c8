/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Guessing at accounts: guess.c, with a clock of our own.
 * LDFLAGS: -Wl,--wrap=mono_ms
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "guess.h"
#include "str.h"
#include "unit.h"

#if GUESSING

static struct share *s;
static int64_t now = 1000;

int64_t __wrap_mono_ms(void);
int64_t
__wrap_mono_ms(void)
{
	return now;
}

static struct addr
addr(const char *text)
{
	struct addr a;

	assert_int_equal(addr_parse(&a, text, strlen(text)), 0);
	return a;
}

static int
empty(void **state)
{
	(void)state;
	s = share_open(-1);
	now += 10 * PENALTY_SECONDS * 1000;
	return s == NULL ? -1 : 0;
}

static void
wrong(const char *user, const char *from, unsigned times)
{
	struct addr a = addr(from);

	while (times-- > 0) {
		guess_failed(s, user, &a);
	}
}

static int
wait_for(const char *user, const char *from)
{
	struct addr a = addr(from);

	return guess_wait(s, user, &a);
}

static void
well(const char *user, const char *from)
{
	struct addr a = addr(from);

	guess_went_well(s, user, &a);
}

/* Strangers come one a second, until too many wait; other accounts, and the owner's networks, do not wait. */
static void
test_turns(void **state)
{
	(void)state;
	well("alice", "192.0.2.7");
	well("alice", "2001:db8:1:2::3");
	wrong("alice", "198.51.100.1", GUESS_FAILS - 1);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(wait_for("alice", "198.51.100.1"), 0);
	}
	wrong("alice", "203.0.113.1", 1);
	for (int i = 0; i <= GUESS_WAIT_SECONDS; i++) {
		assert_int_equal(wait_for(i % 2 ? "alice" : "ALICE", "198.51.100.1"), i * 1000);
	}
	assert_int_equal(wait_for("alice", "198.51.100.1"), -1);
	assert_int_equal(wait_for("alice", "203.0.113.200"), -1);
	assert_int_equal(wait_for("alicex", "203.0.113.200"), 0);
	assert_int_equal(wait_for("", "203.0.113.200"), 0);
	/* a network, not only the address */
	assert_int_equal(wait_for("alice", "192.0.2.200"), 0);
	assert_int_equal(wait_for("Alice", "2001:db8:1:ffff::"), 0);
	assert_int_equal(wait_for("alice", "192.0.3.7"), -1);
	assert_int_equal(wait_for("alice", "2001:db8:2::"), -1);
	/* hers, and nobody else's */
	wrong("bob", "198.51.100.1", GUESS_FAILS);
	assert_int_equal(wait_for("bob", "192.0.2.7"), 0);
	assert_int_equal(wait_for("bob", "192.0.2.7"), 1000);

	/* The line gets shorter by itself. */
	now += 2500;
	assert_int_equal(wait_for("alice", "198.51.100.1"), (GUESS_WAIT_SECONDS + 1) * 1000 - 2500);
	now += 60000;
	assert_int_equal(wait_for("alice", "198.51.100.1"), 0);

	/* Forgotten PENALTY_SECONDS after the last failure. */
	now += PENALTY_SECONDS * INT64_C(1000) - 60000 - 2501;
	assert_int_equal(wait_for("alice", "198.51.100.1"), 0);
	assert_int_equal(wait_for("alice", "198.51.100.1"), 1000);
	now += 1;
	assert_int_equal(wait_for("alice", "198.51.100.1"), 0);
	assert_int_equal(wait_for("alice", "198.51.100.1"), 0);
}

/* What its owner mistypes where she is at home does not count. */
static void
test_owner(void **state)
{
	(void)state;
	well("carol", "192.0.2.7");
	wrong("carol", "192.0.2.9", 10 * GUESS_FAILS);
	assert_int_equal(wait_for("carol", "198.51.100.1"), 0);
	assert_int_equal(wait_for("carol", "198.51.100.1"), 0);
}

/* Other names, as many as one likes, do not make us forget; nor do owners that come from many networks. */
static void
test_full(void **state)
{
	char name[16];

	(void)state;
	well("dave", "192.0.2.7");
	wrong("dave", "198.51.100.1", GUESS_FAILS);
	for (unsigned i = 0; i < 4 * GUESS_USERS_MAX; i++) {
		struct buf b;

		now++;
		buf_init(&b, name, sizeof name);
		buf_fmt(&b, "user%u", i);
		buf_cstr(&b);
		wrong(name, "198.51.100.1", GUESS_FAILS - 1);
	}
	assert_int_equal(wait_for("dave", "203.0.113.1"), 0);
	assert_int_equal(wait_for("dave", "203.0.113.1"), 1000);
	for (unsigned i = 0; i < GUESS_KNOWN_MAX - 1; i++) {
		char text[32];
		struct buf b;

		now++;
		buf_init(&b, text, sizeof text);
		buf_fmt(&b, "10.%u.%u.1", i / 256, i % 256);
		buf_cstr(&b);
		well("erin", text);
	}
	well("dave", "192.0.2.7"); /* renewed: the oldest is erin's first */
	now++;
	well("erin", "10.200.0.1");
	assert_int_equal(wait_for("dave", "192.0.2.7"), 0);
	assert_int_equal(wait_for("dave", "192.0.2.7"), 0);
	wrong("erin", "198.51.100.1", GUESS_FAILS);
	assert_int_equal(wait_for("erin", "10.0.1.1"), 0);
	assert_int_equal(wait_for("erin", "10.0.1.1"), 0);
	assert_int_equal(wait_for("erin", "10.0.0.1"), 0);
	assert_int_equal(wait_for("erin", "10.0.0.1"), 1000);
}

static void
test_ban(void **state)
{
	struct addr a = addr("192.0.2.1"), b = addr("192.0.2.2"), v6 = addr("2001:db8::1"), near = addr("2001:db8::2");

	(void)state;
	for (unsigned i = 1; i < BAN_FAILS; i++) {
		share_fail(s, &a);
		share_fail(s, &v6);
	}
	assert_int_equal(guess_banned(s, &a), 0);
	share_fail(s, &a);
	share_fail(s, &near);
	assert_int_equal(guess_banned(s, &a), 1);
	assert_int_equal(guess_banned(s, &b), 0);
	assert_int_equal(guess_banned(s, &v6), 1);
	now += PENALTY_SECONDS * INT64_C(1000) - 1;
	assert_int_equal(guess_banned(s, &a), 1);
	now++;
	assert_int_equal(guess_banned(s, &a), 0);
	assert_int_equal(guess_banned(s, &v6), 0);

	for (unsigned i = 0; i < BAN_FAILS; i++) {
		share_fail(s, &b);
	}
	assert_int_equal(guess_banned(s, &b), 1);
	share_forgive(s, &b);
	assert_int_equal(guess_banned(s, &b), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_turns, empty),
		cmocka_unit_test_setup(test_owner, empty),
		cmocka_unit_test_setup(test_full, empty),
		cmocka_unit_test_setup(test_ban, empty),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int
main(void)
{
	return 0;
}

#endif
