/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* What a go-between does to packets: another id, and the seals that fit it, there and back. Packets lie in heap blocks of their exact size. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "radseal.h"

#include "radpkt.h"
#include "unit.h"

#include <stdlib.h>

#if KEEPER

#define SECRET "radsec"
enum { ACCOUNTING_REQUEST = 4, ACCOUNTING_RESPONSE = 5, STATUS = 12 };

static const uint8_t zero[16];

/* An Access-Request as radius.c makes it. */
static void
access_request(struct packet *k, int id)
{
	uint8_t mac[16];

	pkt_begin(k, ACCESS_REQUEST, id);
	memcpy(k->p + 4, "sixteen random..", 16);
	pkt_ma(k);
	pkt_text(k, 1, "alice");
	pkt_length(k, k->len);
	pkt_hmac(mac, k->p, k->len, SECRET);
	memcpy(k->p + k->ma, mac, 16);
}

static uint8_t *
exact(const struct packet *k)
{
	uint8_t *p = malloc(k->len);

	assert_non_null(p);
	memcpy(p, k->p, k->len);
	return p;
}

static void
test_access(void **state)
{
	static struct packet was, want, answer;
	size_t len;
	uint8_t *p, *a;

	(void)state;
	for (int signed_too = 0; signed_too < 2; signed_too++) {
		access_request(&was, 200);
		access_request(&want, 7);
		p = exact(&was);
		assert_int_equal(radseal_request_anew(p, was.len, 7, SECRET), 0);
		assert_memory_equal(p, want.p, want.len);

		pkt_begin(&answer, ACCEPT, 7);
		pkt_text(&answer, 18, "hello");
		if (signed_too) {
			pkt_ma(&answer);
		}
		pkt_seal(&answer, p + 4, SECRET);
		a = exact(&answer);
		len = answer.len;
		assert_int_equal(radseal_check(a, &len, p, SECRET, 0), signed_too ? RADIUS_OK : RADIUS_UNSIGNED);
		assert_int_equal(radseal_check(a, &len, p, SECRET, 1), RADIUS_OK);
		radseal_reply_anew(a, len, was.p, SECRET);
		answer.p[1] = 200;
		pkt_seal(&answer, was.p + 4, SECRET);
		assert_memory_equal(a, answer.p, answer.len);
		free(a);
		free(p);
	}
}

/* Here the Request Authenticator is a sum, and so another one for another id. */
static void
test_accounting(void **state)
{
	static struct packet was, want, answer;
	size_t len;
	uint8_t *p, *a;

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct packet *k = i == 0 ? &was : &want;

		pkt_begin(k, ACCOUNTING_REQUEST, i == 0 ? 200 : 7);
		pkt_text(k, 44, "0123456789abcdef");
		pkt_seal(k, zero, SECRET);
	}
	p = exact(&was);
	assert_int_equal(radseal_request_anew(p, was.len, 7, SECRET), 0);
	assert_memory_equal(p, want.p, want.len);
	assert_memory_not_equal(p + 4, was.p + 4, 16);

	pkt_begin(&answer, ACCOUNTING_RESPONSE, 7);
	pkt_ma(&answer);
	pkt_seal(&answer, p + 4, SECRET);
	a = exact(&answer);
	len = answer.len;
	assert_int_equal(radseal_check(a, &len, was.p, SECRET, 1), RADIUS_NO_ANSWER);
	assert_int_equal(radseal_check(a, &len, p, SECRET, 1), RADIUS_OK);
	radseal_reply_anew(a, len, was.p, SECRET);
	answer.p[1] = 200;
	pkt_seal(&answer, was.p + 4, SECRET);
	assert_memory_equal(a, answer.p, answer.len);
	free(a);
	free(p);
}

/* What is no request, or is not sealed as it should be, does not go out; nor does one of another length than it says, or whose attributes run over. */
static void
test_refused(void **state)
{
	static const struct {
		size_t at;
		uint8_t octet;
	} bad[] = { { 0, ACCEPT }, { 0, STATUS }, { 0, ACCOUNTING_REQUEST }, { 2, 1 }, { 3, 19 }, { 3, 200 }, { 20, 0 },
		{ 21, 1 }, { 21, 19 }, { 20, 81 }, { 38, MA }, { 39, 200 } };
	static struct packet k, cut;
	uint8_t *p;

	(void)state;
	access_request(&k, 1);
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		p = exact(&k);
		p[bad[i].at] = bad[i].octet;
		assert_int_equal(radseal_request_anew(p, k.len, 9, SECRET), -1);
		free(p);
	}
	for (size_t n = 0; n < k.len; n++) {
		cut = k;
		cut.len = n;
		p = n == 0 ? malloc(1) : exact(&cut);
		assert_int_equal(radseal_request_anew(p, n, 9, SECRET), -1);
		free(p);
	}
}

static void
test_length(void **state)
{
	static const struct {
		uint8_t p[4];
		size_t len;
		int want;
	} t[] = {
		{ { 2, 0, 0, 20 }, 0, 0 },
		{ { 2, 0, 0, 20 }, 3, 0 },
		{ { 2, 0, 0, 20 }, 4, 20 },
		{ { 2, 0, 0, 19 }, 4, -1 },
		{ { 2, 0, 0, 0 }, 4, -1 },
		{ { 2, 0, 16, 0 }, 4, 4096 },
		{ { 2, 0, 16, 1 }, 4, -1 },
		{ { 2, 0, 255, 255 }, 4, -1 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
		assert_int_equal(radseal_length(t[i].p, t[i].len), t[i].want);
	}
}

static void
test_status(void **state)
{
	static const char long_name[] =
	    "a.very.long.name.of.253.octets.and.more.is.cut.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
	    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
	    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
	uint8_t *p = malloc(RADSEAL_STATUS_MAX);
	uint8_t mac[16], sent[16], before[16];

	(void)state;
	for (int i = 0; i < 3; i++) {
		const char *nas = i == 0 ? "" : i == 1 ? "mail.example.net" : long_name;
		size_t len = radseal_status(p, (uint8_t)i, nas, SECRET);
		size_t n = strlen(nas);

		n -= n > 253 ? n - 253 : 0;
		assert_int_equal(len, n == 0 ? 38 : 38 + 2 + n);
		assert_int_equal(radseal_length(p, len), len);
		assert_int_equal(p[0], STATUS);
		assert_int_equal(p[1], i);
		assert_int_equal(pkt_find(p, len, 32, 0) != NULL, n > 0);
		memcpy(sent, p + 22, 16);
		memset(p + 22, 0, 16);
		pkt_hmac(mac, p, len, SECRET);
		assert_memory_equal(mac, sent, 16);
		assert_true(i == 0 || memcmp(before, p + 4, 16) != 0);
		memcpy(before, p + 4, 16);
	}
	free(p);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_access),
		cmocka_unit_test(test_accounting),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_length),
		cmocka_unit_test(test_status),
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
