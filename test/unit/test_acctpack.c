/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* Accounting packets: acctpack.c, octet by octet, and whatever may come as an answer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "acctpack.h"
#include "str.h"
#include "unit.h"

#include <stdlib.h>

#if ACCOUNTING

static struct acct_session session;
static struct acct_record record;
static struct addr v4, v6;
static uint8_t packet[ACCT_PACKET_MAX];

static int
fill(void **state)
{
	(void)state;
	assert_int_equal(addr_parse(&v4, "192.0.2.1", 9), 0);
	assert_int_equal(addr_parse(&v6, "2001:db8::1", 11), 0);
	memset(&session, 0, sizeof session);
	str_copy(session.sid, sizeof session.sid, "0123456789abcdef");
	str_copy(session.user, sizeof session.user, "joe");
	str_copy(session.client, sizeof session.client, "10.0.0.9");
	session.run = 0xbeef;
	session.messages = 2;
	session.rcpts = 3;
	session.rejected = 4;
	session.octets = UINT64_C(0x100000005);
	session.cause = CAUSE_LOST_CARRIER;
	memcpy(session.class,
	    "\x19\x05"
	    "abc"
	    "\x19\x03"
	    "\0",
	    8);
	session.class_len = 8;
	record = (struct acct_record){ .status = STATUS_STOP,
		.s = &session,
		.nas = "box",
		.from = &v4,
		.seconds = 7,
		.delay = 258,
		.event = 0x5f000000 };
	return 0;
}

static size_t
has(size_t len, const void *attribute, size_t n)
{
	size_t found = 0;

	for (size_t i = 20; i < len; i += packet[i + 1]) {
		assert_true(i + 2 <= len && packet[i + 1] > 2 && i + packet[i + 1] <= len);
		found += packet[i + 1] == n && memcmp(packet + i, attribute, n) == 0;
	}
	return found;
}
#define HAS(len, text) assert_int_equal(has(len, text, sizeof(text) - 1), 1)
#define HAS_NOT(len, type) assert_int_equal(type_found(len, type), 0)

static int
type_found(size_t len, unsigned type)
{
	for (size_t i = 20; i < len; i += packet[i + 1]) {
		if (packet[i] == type) {
			return 1;
		}
	}
	return 0;
}

static void
test_stop(void **state)
{
	size_t len = acct_pack(packet, 9, &record, "secret");

	(void)state;
	assert_memory_equal(packet, "\4\x9", 2);
	assert_int_equal(packet[2] << 8 | packet[3], len);
	HAS(len, "\x28\6\0\0\0\2");
	HAS(len, "\4\6\xc0\0\2\1");
	HAS(len, "\x20\5box");
	HAS(len, "\x29\6\0\0\1\2");
	HAS(len, "\x37\6\x5f\0\0\0");
	HAS(len,
	    "\x2c\x12"
	    "0123456789abcdef");
	HAS(len, "\1\5joe");
	HAS(len, "\x2d\6\0\0\0\1");
	HAS(len, "\x3d\6\0\0\0\5");
	HAS(len,
	    "\x1f\xa"
	    "10.0.0.9");
	HAS(len,
	    "\x19\5"
	    "abc");
	HAS(len, "\x19\3\0");
	HAS(len, "\x2e\6\0\0\0\7");
	HAS(len, "\x2a\6\0\0\0\5");
	HAS(len, "\x34\6\0\0\0\1");
	HAS(len, "\x2f\6\0\0\0\2");
	HAS(len, "\x30\6\0\0\0\3");
	HAS(len, "\x1a\xc\0\0\xff\xfa\x10\6\0\0\0\2");
	HAS(len, "\x1a\xc\0\0\xff\xfa\x11\6\0\0\0\3");
	HAS(len, "\x1a\xc\0\0\xff\xfa\x12\6\0\0\0\4");
	HAS(len, "\x31\6\0\0\0\2");
}

static void
test_others(void **state)
{
	size_t len;

	(void)state;
	record.status = STATUS_START;
	record.from = &v6;
	record.event = 0;
	len = acct_pack(packet, 0, &record, "secret");
	HAS(len, "\x28\6\0\0\0\1");
	HAS(len, "\x5f\x12\x20\x01\xd\xb8\0\0\0\0\0\0\0\0\0\0\0\1");
	HAS_NOT(len, 4);
	HAS_NOT(len, 55);
	HAS_NOT(len, 42);
	HAS_NOT(len, 46);
	HAS_NOT(len, 49);
	HAS_NOT(len, 26);
	record.status = STATUS_INTERIM;
	session.octets = 5;
	len = acct_pack(packet, 0, &record, "secret");
	HAS(len, "\x28\6\0\0\0\3");
	HAS(len, "\x2e\6\0\0\0\7");
	HAS_NOT(len, 49);
	HAS_NOT(len, 52);
	record.status = STATUS_ON;
	len = acct_pack(packet, 0, &record, "secret");
	HAS(len, "\x28\6\0\0\0\7");
	HAS(len,
	    "\x2c\xa"
	    "0000beef");
	HAS_NOT(len, 1);
	HAS_NOT(len, 25);
}

/* The largest there can be; and a class that is damaged. */
static void
test_extremes(void **state)
{
	size_t len;

	(void)state;
	memset(session.user, 'u', sizeof session.user - 1);
	memset(session.class, 'c', sizeof session.class);
	session.class[0] = 25;
	session.class[1] = 255;
	session.class[255] = 25;
	session.class[256] = (uint8_t)(sizeof session.class - 255);
	session.class_len = sizeof session.class;
	record.nas = session.user;
	len = acct_pack(packet, 0, &record, "secret");
	assert_in_range(len, 900, sizeof packet);
	HAS_NOT(len, 0);
	for (unsigned i = 0; i < 256; i++) {
		session.class[1] = (uint8_t)i;
		session.class_len = i;
		len = acct_pack(packet, 0, &record, "secret");
		HAS(len, "\x31\6\0\0\0\2");
	}
}

/* An answer: right, and then with any octet changed, cut anywhere, or with another secret. */
static void
test_answers(void **state)
{
	static uint8_t answer[20 + 24];
	uint8_t auth[16];
	uint32_t left, left_rcpt;
	struct acct_record r = record;
	size_t len;

	(void)state;
	/* The authenticator of an answer is made as that of a request is, with the request's in the place of zeros: borrow a request's. */
	r.status = STATUS_ON;
	len = acct_pack(packet, 7, &r, "secret");
	memcpy(auth, packet + 4, 16);
	assert_int_equal(acct_good(packet, len, 7, (const uint8_t[16]){ 0 }, "secret"), 0); /* a request is no answer */
	packet[0] = 5;
	assert_int_equal(acct_good(packet, len, 7, (const uint8_t[16]){ 0 }, "secret"), -1);
	assert_int_equal(acct_good(packet, len, 8, (const uint8_t[16]){ 0 }, "secret"), 0);
	for (size_t i = 0; i < 20; i++) {
		assert_int_equal(acct_good(packet, i, 7, auth, "secret"), 0);
	}

	memcpy(answer, "\5\7\0\x2c", 4);
	memcpy(answer + 20, "\x1a\xc\0\0\xff\xfa\1\6\0\0\0\x32\x1a\xc\0\0\xff\xfa\2\6\0\0\1\0", 24);
	acct_left_of(answer, sizeof answer, &left, &left_rcpt);
	assert_int_equal(left, 50);
	assert_int_equal(left_rcpt, 256);
	acct_left_of(answer, 32, &left, &left_rcpt);
	assert_int_equal(left, 50);
	assert_true(left_rcpt == LIMIT_NONE);
	answer[22 + 3] = 0xfb; /* another vendor */
	acct_left_of(answer, sizeof answer, &left, &left_rcpt);
	assert_true(left == LIMIT_NONE && left_rcpt == 256);
	/* Anything at all: nothing is read that is not there. */
	srand(1);
	for (int n = 0; n < 200000; n++) {
		size_t l = 4 + (size_t)rand() % 40;
		uint8_t *p = malloc(l);

		for (size_t i = 0; i < l; i++) {
			p[i] = (uint8_t)(i == 2             ? 0
				: i > 20 && rand() % 4 == 0 ? 26
				: rand() % 3 == 0           ? rand() % 16
							    : rand());
		}
		acct_left_of(p, l, &left, &left_rcpt);
		(void)acct_good(p, l, p[1], auth, "secret");
		free(p);
	}
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_stop, fill),
		cmocka_unit_test_setup(test_others, fill),
		cmocka_unit_test_setup(test_extremes, fill),
		cmocka_unit_test_setup(test_answers, fill),
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
