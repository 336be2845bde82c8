/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Which replies of a RADIUS server count: radius_verify() of radius.c. Packets lie in heap blocks of their exact size.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "radius.h"
#include "radpkt.h"
#include "unit.h"

#define SECRET "correct horse battery staple"

static const uint8_t request[20] = { ACCESS_REQUEST, 7, 0, 20, 'r', 'e', 'q', 'u', 'e', 's', 't', 'a', 'u', 't', 'h',
	'e', 'n', 't', 'i', 'c' };

/* What is left of a packet that was accepted. */
static uint8_t left[4400];
static size_t left_len;
static int service;

static enum radius_trouble
verify_mem(const uint8_t *p, size_t len, const char *secret, int unsigned_ok)
{
	uint8_t *copy = malloc(len == 0 ? 1 : len);
	enum radius_trouble t;

	memcpy(copy, p, len);
	left_len = len;
	service = -2;
	t = radius_verify(copy, &left_len, request, secret, unsigned_ok, &service);
	assert_int_equal(service == -2, t != RADIUS_OK);
	assert_in_range(left_len, 0, len);
	memcpy(left, copy, left_len);
	free(copy);
	return t;
}

static enum radius_trouble
verify(const struct packet *k)
{
	return verify_mem(k->p, k->len, SECRET, 0);
}

/* Only texts we know, no empty one, at most 64, and an authenticator that fits. */
static void
assert_left_is_clean(void)
{
	uint8_t mac[16];
	unsigned n = 0;

	assert_in_range(left_len, 20, RADIUS_PACKET_MAX);
	assert_int_equal(left[2] << 8 | left[3], left_len);
	for (size_t i = 20; i < left_len; i += left[i + 1]) {
		assert_true(left[i] == 1 || left[i] == 18 || left[i] == 25);
		assert_in_range(left[i + 1], 3, left_len - i);
		n++;
	}
	assert_in_range(n, 0, 64);
	pkt_response(mac, left, left_len, request + 4, SECRET);
	assert_memory_equal(mac, left + 4, 16);
}

static void
test_good(void **state)
{
	static const int codes[] = { ACCEPT, REJECT, CHALLENGE };
	struct packet k;

	(void)state;
	for (size_t c = 0; c < COUNT(codes); c++) {
		/* The Message-Authenticator first, in the middle, last: its place does not matter. */
		for (int place = 0; place < 3; place++) {
			pkt_begin(&k, codes[c], 7);
			for (int i = 0; i < 3; i++) {
				if (i == place) {
					pkt_ma(&k);
				}
				if (i < 2) {
					pkt_text(&k, 18, i == 0 ? "hello" : "again");
				}
			}
			pkt_seal(&k, request + 4, SECRET);
			assert_int_equal(verify(&k), RADIUS_OK);
			assert_left_is_clean();
			assert_int_equal(left[0], codes[c]);
			assert_int_equal(left[1], 7);
			assert_int_equal(left_len, 20 + 2 * 7);
			assert_memory_equal(left + 20,
			    "\x12\x07hello\x12\x07"
			    "again",
			    14);
			/* What comes behind the packet is padding (RFC 2865 3). */
			k.len += 5;
			assert_int_equal(verify(&k), RADIUS_OK);
			assert_int_equal(left_len, 20 + 2 * 7);
			assert_int_equal(verify_mem(k.p, k.len, SECRET, 1), RADIUS_OK);
			assert_int_equal(verify_mem(k.p, k.len, SECRET "r", 0), RADIUS_WRONG_SECRET);
			assert_int_equal(verify_mem(k.p, k.len, SECRET "r", 1), RADIUS_WRONG_SECRET);
		}
	}
}

static void
test_unsigned(void **state)
{
	struct packet k;

	(void)state;
	pkt_begin(&k, ACCEPT, 7);
	pkt_text(&k, 1, "joe");
	pkt_seal(&k, request + 4, SECRET);
	assert_int_equal(verify(&k), RADIUS_UNSIGNED);
	assert_int_equal(verify_mem(k.p, k.len, SECRET, 1), RADIUS_OK);
	assert_left_is_clean();
	assert_int_equal(left_len, 25);
	/* No attributes at all. */
	pkt_begin(&k, ACCEPT, 7);
	pkt_seal(&k, request + 4, SECRET);
	assert_int_equal(verify(&k), RADIUS_UNSIGNED);
	assert_int_equal(verify_mem(k.p, k.len, SECRET, 1), RADIUS_OK);
	assert_int_equal(left_len, 20);
}

static void
test_message_authenticator(void **state)
{
	static const size_t lengths[] = { 0, 1, 15, 17, 32 };
	uint8_t zeros[32] = { 0 };
	struct packet k;

	(void)state;
	/* Two, of which either alone would do. */
	pkt_begin(&k, ACCEPT, 7);
	pkt_ma(&k);
	pkt_attr(&k, MA, zeros, 16);
	pkt_seal(&k, request + 4, SECRET);
	assert_int_equal(verify(&k), RADIUS_NO_ANSWER);
	assert_int_equal(verify_mem(k.p, k.len, SECRET, 1), RADIUS_NO_ANSWER);
	for (size_t i = 0; i < COUNT(lengths); i++) {
		pkt_begin(&k, ACCEPT, 7);
		pkt_attr(&k, MA, zeros, lengths[i]);
		pkt_seal(&k, request + 4, SECRET);
		assert_int_equal(verify(&k), RADIUS_NO_ANSWER);
		assert_int_equal(verify_mem(k.p, k.len, SECRET, 1), RADIUS_NO_ANSWER);
	}
	/* A bad one under a good Response Authenticator: what Blast-RADIUS makes. `unsigned` does not excuse it. */
	for (unsigned bit = 0; bit < 128; bit++) {
		uint8_t mac[16];

		pkt_begin(&k, ACCEPT, 7);
		pkt_text(&k, 18, "x");
		pkt_ma(&k);
		pkt_seal(&k, request + 4, SECRET);
		k.p[k.ma + bit / 8] ^= (uint8_t)(1U << bit % 8);
		pkt_response(mac, k.p, k.len, request + 4, SECRET);
		memcpy(k.p + 4, mac, 16);
		assert_int_equal(verify(&k), RADIUS_WRONG_SECRET);
		assert_int_equal(verify_mem(k.p, k.len, SECRET, 1), RADIUS_WRONG_SECRET);
	}
	/* Computed over the Response Authenticator, as only a wrong implementation would. */
	pkt_begin(&k, ACCEPT, 7);
	pkt_ma(&k);
	pkt_seal(&k, request + 4, SECRET);
	memset(k.p + k.ma, 0, 16);
	pkt_hmac(zeros, k.p, k.len, SECRET);
	memcpy(k.p + k.ma, zeros, 16);
	pkt_response(zeros, k.p, k.len, request + 4, SECRET);
	memcpy(k.p + 4, zeros, 16);
	assert_int_equal(verify(&k), RADIUS_WRONG_SECRET);
}

/* Whatever bit is changed on the way: the reply does not count. */
static void
test_every_bit(void **state)
{
	struct packet k;

	(void)state;
	pkt_begin(&k, ACCEPT, 7);
	pkt_text(&k, 1, "joe");
	pkt_ma(&k);
	pkt_attr(&k, 26, "\0\0\x01\x37\x01\x04xx", 8);
	pkt_seal(&k, request + 4, SECRET);
	assert_int_equal(verify(&k), RADIUS_OK);
	for (size_t bit = 0; bit < 8 * k.len; bit++) {
		k.p[bit / 8] ^= (uint8_t)(1U << bit % 8);
		assert_int_not_equal(verify(&k), RADIUS_OK);
		assert_int_not_equal(verify_mem(k.p, k.len, SECRET, 1), RADIUS_OK);
		k.p[bit / 8] ^= (uint8_t)(1U << bit % 8);
	}
	/* However much of it arrives. */
	for (size_t n = 0; n < k.len; n++) {
		assert_int_equal(verify_mem(k.p, n, SECRET, 1), RADIUS_NO_ANSWER);
	}
	for (unsigned bit = 0; bit < 128; bit++) {
		k.p[4 + bit / 8] ^= (uint8_t)(1U << bit % 8);
		assert_int_equal(verify(&k), RADIUS_WRONG_SECRET);
		k.p[4 + bit / 8] ^= (uint8_t)(1U << bit % 8);
	}
}

static void
test_header(void **state)
{
	struct packet k;

	(void)state;
	for (int code = 0; code < 256; code++) {
		pkt_begin(&k, code, 7);
		pkt_ma(&k);
		pkt_seal(&k, request + 4, SECRET);
		assert_int_equal(
		    verify(&k), code == ACCEPT || code == REJECT || code == CHALLENGE ? RADIUS_OK : RADIUS_NO_ANSWER);
	}
	for (int id = 0; id < 256; id++) {
		pkt_begin(&k, ACCEPT, id);
		pkt_ma(&k);
		pkt_seal(&k, request + 4, SECRET);
		assert_int_equal(verify(&k), id == 7 ? RADIUS_OK : RADIUS_NO_ANSWER);
	}
	/* Lengths that are not the packet's. */
	for (size_t len = 0; len < 65536; len = len < 64 ? len + 1 : len * 2 - 1) {
		pkt_begin(&k, ACCEPT, 7);
		pkt_ma(&k);
		pkt_seal(&k, request + 4, SECRET);
		pkt_length(&k, len);
		if (len != k.len) {
			assert_int_not_equal(verify(&k), RADIUS_OK);
		}
		if (len < 20 || len > k.len) {
			assert_int_equal(verify(&k), RADIUS_NO_ANSWER);
		}
	}
}

static void
test_attributes(void **state)
{
	static const struct {
		const char *octets; /* after a Message-Authenticator */
		size_t len;
		enum radius_trouble t;
		size_t left; /* octets of attributes */
		int service;
	} t[] = {
		{ S("\x12\x03x"), RADIUS_OK, 3, -1 },
		{ S("\x12\x02"), RADIUS_OK, 0, -1 }, /* empty: illegal, but harmless once it is gone */
		{ S("\x12\x01"), RADIUS_NO_ANSWER, 0, 0 },
		{ S("\x12\x00"), RADIUS_NO_ANSWER, 0, 0 },
		{ S("\x12"), RADIUS_NO_ANSWER, 0, 0 },
		{ S("\x12\x04x"), RADIUS_NO_ANSWER, 0, 0 }, /* runs over the end */
		{ S("\x12\xffx"), RADIUS_NO_ANSWER, 0, 0 },
		{ S("\x12\x03x\x12"), RADIUS_NO_ANSWER, 0, 0 },
		{ S("\x00\x03x"), RADIUS_NO_ANSWER, 0, 0 }, /* no such type */
		{ S("\x1a\x07\0\0\x01\x37x"), RADIUS_OK, 0, -1 },
		{ S("\x1a\x02"), RADIUS_OK, 0, -1 },
		{ S("\xff\x03x\x06\x06\0\0\0\x01\x19\x03"
		    "c\x01\x03u\x18\x03s\x1b\x06\0\0\0\x02"),
		    RADIUS_OK, 6, 1 },
		/* a Service-Type that says nothing is a wrong one; of several the worst counts */
		{ S("\x06\x02"), RADIUS_OK, 0, 0 },
		{ S("\x06\x05\0\0\x01"), RADIUS_OK, 0, 0 },
		{ S("\x06\x07\0\0\0\x01\0"), RADIUS_OK, 0, 0 },
		{ S("\x06\x06\xff\xff\xff\xff"), RADIUS_OK, 0, INT32_MAX },
		{ S("\x06\x06\0\0\0\x01\x06\x06\0\0\0\x02"), RADIUS_OK, 0, 2 },
		{ S("\x06\x06\0\0\0\x02\x06\x06\0\0\0\x01"), RADIUS_OK, 0, 2 },
		{ S("\x06\x06\0\0\0\x02\x06\x06\0\0\0\x63\x06\x06\0\0\0\x03"), RADIUS_OK, 0, 0x63 },
		{ S("\x06\x06\0\0\0\x01\x06\x02\x06\x06\0\0\0\x01"), RADIUS_OK, 0, 0 },
	};
	struct packet k;

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		pkt_begin(&k, ACCEPT, 7);
		pkt_ma(&k);
		memcpy(k.p + k.len, t[i].octets, t[i].len);
		k.len += t[i].len;
		pkt_seal(&k, request + 4, SECRET);
		if (verify(&k) != t[i].t) {
			fail_msg("row %zu", i);
		}
		if (t[i].t == RADIUS_OK) {
			assert_left_is_clean();
			assert_int_equal(left_len, 20 + t[i].left);
			assert_int_equal(service, t[i].service);
		}
	}
}

static void
test_many_attributes(void **state)
{
	char text[254];
	struct packet k;

	(void)state;
	pkt_begin(&k, ACCEPT, 7);
	pkt_ma(&k);
	for (int i = 0; i < 1000; i++) {
		pkt_text(&k, i % 2 == 0 ? 18 : 25, "x");
	}
	pkt_seal(&k, request + 4, SECRET);
	assert_int_equal(verify(&k), RADIUS_OK);
	assert_left_is_clean();
	assert_int_equal(left_len, 20 + 64 * 3);
	assert_int_equal(service, -1);

	/* A Service-Type that stood behind 64 other attributes was not looked at. */
	for (int n = 0; n < 256; n++) {
		pkt_begin(&k, ACCEPT, 7);
		pkt_ma(&k);
		for (int i = 0; i < n; i++) {
			pkt_text(&k, i % 2 == 0 ? 18 : 25, "x");
		}
		pkt_attr(&k, 6, "\0\0\0\x02", 4);
		pkt_seal(&k, request + 4, SECRET);
		assert_int_equal(verify(&k), RADIUS_OK);
		assert_left_is_clean();
		assert_int_equal(service, 2);
	}
	/* Nor do many of them get radcli to recurse. */
	pkt_begin(&k, ACCEPT, 7);
	pkt_ma(&k);
	while (k.len + 6 <= RADIUS_PACKET_MAX) {
		pkt_attr(&k, 6, "\0\0\0\x01", 4);
	}
	pkt_seal(&k, request + 4, SECRET);
	assert_int_equal(verify(&k), RADIUS_OK);
	assert_int_equal(left_len, 20);
	assert_int_equal(service, 1);

	/* As long as a packet may be, and one octet longer. */
	memset(text, 'x', sizeof text);
	pkt_begin(&k, ACCEPT, 7);
	pkt_ma(&k);
	while (k.len + 255 <= RADIUS_PACKET_MAX) {
		pkt_attr(&k, 25, text, 253);
	}
	pkt_attr(&k, 18, text, RADIUS_PACKET_MAX - k.len - 2);
	pkt_seal(&k, request + 4, SECRET);
	assert_int_equal(k.len, RADIUS_PACKET_MAX);
	assert_int_equal(verify(&k), RADIUS_OK);
	assert_left_is_clean();
	assert_int_equal(left_len, RADIUS_PACKET_MAX - 18);
	k.len--;
	assert_int_equal(verify(&k), RADIUS_NO_ANSWER);
	k.len++;
	k.p[k.len] = 0;
	pkt_length(&k, ++k.len);
	assert_int_equal(verify(&k), RADIUS_NO_ANSWER);
}

static void
test_secrets(void **state)
{
	char secret[RADIUS_SECRET_MAX + 1];
	struct packet k;

	(void)state;
	for (size_t n = 1; n <= RADIUS_SECRET_MAX; n++) {
		memset(secret, 's', n);
		secret[n] = '\0';
		pkt_begin(&k, REJECT, 7);
		pkt_ma(&k);
		pkt_seal(&k, request + 4, secret);
		assert_int_equal(verify_mem(k.p, k.len, secret, 0), RADIUS_OK);
		secret[n - 1] = 't';
		assert_int_equal(verify_mem(k.p, k.len, secret, 0), RADIUS_WRONG_SECRET);
	}
}

static void
test_noise(void **state)
{
	uint32_t x = 1;
	struct packet k;

	(void)state;
	for (int i = 0; i < 20000; i++) {
		pkt_begin(&k, ACCEPT, 7);
		k.len = 20 + x % 60;
		for (size_t n = 4; n < k.len; n++) {
			x = x * 1103515245 + 12345;
			k.p[n] = (uint8_t)(x >> 16) & (i % 2 == 0 ? 0xff : 0x0f);
		}
		pkt_length(&k, k.len);
		assert_int_not_equal(verify(&k), RADIUS_OK);
	}
}

static void
test_words(void **state)
{
	(void)state;
	for (int t = RADIUS_OK; t <= RADIUS_NO_SERVERS; t++) {
		assert_true(strlen(radius_trouble_text((enum radius_trouble)t)) > 5);
	}
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_unsigned),
		cmocka_unit_test(test_message_authenticator),
		cmocka_unit_test(test_every_bit),
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_attributes),
		cmocka_unit_test(test_many_attributes),
		cmocka_unit_test(test_secrets),
		cmocka_unit_test(test_noise),
		cmocka_unit_test(test_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
