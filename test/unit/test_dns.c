/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The resolver without a network: its two files, questions, and answers, which lie in heap blocks of their exact size. What it does with
 * servers is in test/integration/test_dns.py.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dns.h"
#include "str.h"
#include "unit.h"

static struct dns_conf c;
static char shown[ADDR_TEXT_MAX];

static void
load(const char *resolv, const char *hosts)
{
	if (resolv != NULL) {
		put("resolv.conf", resolv);
	} else {
		unlink(in("resolv.conf"));
	}
	put("hosts", hosts);
	memset(&c, 0xa5, sizeof c);
	dns_conf_load(&c, in("resolv.conf"), in("hosts"));
}

static void
test_resolv_conf(void **state)
{
	(void)state;
	load(NULL, "");
	assert_int_equal(c.servers, 1);
	assert_string_equal(addr_text(&c.server[0], shown), "127.0.0.1");
	assert_int_equal(c.port, 53);
	assert_int_equal(c.timeout, 5);
	assert_int_equal(c.attempts, 2);
	assert_int_equal(c.hosts, 0);
	assert_string_equal(c.search, "");
	load(
	    "# nameserver 192.0.2.99\n;nameserver 192.0.2.98\nnameserver\t192.0.2.1 # first\r\n nameserver 2001:db8::1\n"
	    "nameserver fe80::1%eth0\nnameserver\nnameserver x\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n"
	    "domain one.example\nsearch two.example\tthree.example\noptions rotate timeout:3 edns0 attempts:4 ndots:2",
	    "");
	assert_int_equal(c.servers, 3);
	assert_string_equal(addr_text(&c.server[0], shown), "192.0.2.1");
	assert_string_equal(addr_text(&c.server[1], shown), "2001:db8::1");
	assert_string_equal(addr_text(&c.server[2], shown), "192.0.2.3");
	assert_string_equal(c.search, "two.example\tthree.example");
	assert_int_equal(c.timeout, 3);
	assert_int_equal(c.attempts, 4);
	/* Numbers out of range are brought into it, what is none is left out. */
	load("options timeout:0 attempts:99\n", "");
	assert_int_equal(c.timeout, 1);
	assert_int_equal(c.attempts, 5);
	load("options timeout:9999999 attempts:-1\n", "");
	assert_int_equal(c.timeout, 5);
	assert_int_equal(c.attempts, 2);
	load("options timeout:100\n", "");
	assert_int_equal(c.timeout, 30);
}

static void
test_hosts(void **state)
{
	static char many[8192];
	size_t len = 0;

	(void)state;
	load("",
	    "127.0.0.1\tlocalhost  Other # comment\n#10.0.0.1 x\n::1 localhost\n0.0.0.0 ads\n:: ads\n10.0.0.1\nx y\n10.0.0.2 last");
	assert_int_equal(c.hosts, 4);
	assert_string_equal(c.host[0].name, "localhost");
	assert_string_equal(c.host[1].name, "Other");
	assert_string_equal(addr_text(&c.host[1].addr, shown), "127.0.0.1");
	assert_string_equal(addr_text(&c.host[2].addr, shown), "::1");
	assert_string_equal(c.host[3].name, "last");
	for (int i = 0; i < DNS_HOSTS_MAX + 10; i++) {
		len += (size_t)snprintf(many + len, sizeof many - len, "10.0.0.%d host%d and%d\n", i, i, i);
	}
	load("", many);
	assert_int_equal(c.hosts, DNS_HOSTS_MAX);
	assert_string_equal(c.host[DNS_HOSTS_MAX - 1].name, "and31");
	/* Lines of all lengths around that of the buffer; only one that is too long is left out. */
	for (size_t n = 1000; n < 1100; n++) {
		memset(many, ' ', sizeof many);
		memcpy(many, "10.0.0.1", 8);
		strcpy(many + n - 6, "middle\n10.0.0.2 after\n");
		load("", many);
		assert_string_equal(c.host[c.hosts - 1].name, "after");
		assert_int_equal(c.hosts, n < 1023 ? 2 : 1);
	}
}

static void
test_changed(void **state)
{
	(void)state;
	load("nameserver 192.0.2.1\n", "");
	assert_int_equal(dns_conf_changed(&c, in("resolv.conf"), in("hosts")), 0);
	put("hosts", "192.0.2.1 x\n");
	assert_int_equal(dns_conf_changed(&c, in("resolv.conf"), in("hosts")), 1);
	load(NULL, "");
	assert_int_equal(dns_conf_changed(&c, in("resolv.conf"), in("hosts")), 0);
	put("resolv.conf", "");
	assert_int_equal(dns_conf_changed(&c, in("resolv.conf"), in("hosts")), 1);
}

#define X63 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

static void
test_question(void **state)
{
	static const char *const bad[] = { "", ".", "..", "a..b", ".a", "a..", "a b", "a\\046b", "a\x7f", "caf\xe9",
		"a\tb", X63 "x.b", X63 "." X63 "." X63 "." X63,
		X63 "." X63 "." X63 ".xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" };
	static const char longest[] =
	    X63 "." X63 "." X63 ".xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
	uint8_t q[DNS_QUESTION_MAX];

	(void)state;
	for (size_t i = 0; i < COUNT(bad); i++) {
		assert_int_equal(dns_question(q, sizeof q, 1, bad[i], DNS_MX), 0);
	}
	assert_int_equal(dns_question(q, sizeof q, 0x1234, "A.example.", DNS_MX), 27);
	assert_memory_equal(q, "\x12\x34\1\0\0\1\0\0\0\0\0\0\1A\7example\0\0\x0f\0\1", 27);
	assert_int_equal(dns_question(q, 26, 0x1234, "A.example", DNS_MX), 0);
	assert_int_equal(strlen(longest), 253);
	assert_int_equal(dns_question(q, sizeof q, 1, longest, DNS_A), sizeof q);
	assert_int_equal(dns_question(q, sizeof q - 1, 1, longest, DNS_A), 0);
}

struct got {
	unsigned n;
	size_t len;
	uint8_t data[64];
};

static void
take(void *ctx, const uint8_t *p, size_t len, size_t data, size_t data_len)
{
	struct got *g = ctx;

	assert_true(data <= len && data_len <= len - data && data_len <= sizeof g->data);
	g->n++;
	g->len = data_len;
	memcpy(g->data, p + data, data_len);
}

static enum dns_status
answer(const uint8_t *q, size_t qlen, const uint8_t *p, size_t len, struct got *g, int *truncated)
{
	uint8_t *copy = malloc(len == 0 ? 1 : len);
	enum dns_status st, again;
	int other;

	assert_got(copy);
	memcpy(copy, p, len);
	memset(g, 0, sizeof *g);
	st = dns_answer(q, qlen, copy, len, take, g, truncated);
	again = dns_answer(q, qlen, copy, len, NULL, NULL, &other);
	free(copy);
	assert_int_equal(st, again);
	assert_int_equal(*truncated, other);
	return st;
}

/* A good answer, cut anywhere or with any one octet changed, is read within its bounds, and its record is never a wrong one of ours. */
static void
test_answer(void **state)
{
	static const uint8_t good[] = "\x12\x34\x81\x80\0\1\0\2\0\0\0\0\1a\7example\0\0\x0f\0\1"
				      "\xc0\x0c\0\5\0\1\0\0\0\1\0\4\1b\xc0\x0e"
				      "\xc0\x27\0\x0f\0\1\0\0\0\1\0\7\0\5\2mx\xc0\x0e";
	const size_t len = sizeof good - 1;
	uint8_t q[DNS_QUESTION_MAX], p[sizeof good];
	size_t qlen = dns_question(q, sizeof q, 0x1234, "a.EXAMPLE", DNS_MX);
	struct got g;
	int truncated;

	(void)state;
	assert_int_equal(answer(q, qlen, good, len, &g, &truncated), DNS_OK);
	assert_int_equal(g.n, 1);
	assert_memory_equal(g.data, "\0\5\2mx\xc0\x0e", 7);
	for (size_t n = 0; n < len; n++) {
		assert_int_equal(answer(q, qlen, good, n, &g, &truncated), n < qlen ? DNS_IGNORE : DNS_TROUBLE);
	}
	for (size_t n = 0; n < qlen; n++) {
		assert_int_equal(answer(q, n, good, len, &g, &truncated), DNS_IGNORE);
	}
	for (size_t i = 0; i < len; i++) {
		for (unsigned v = 0; v < 256; v++) {
			enum dns_status st;

			memcpy(p, good, sizeof p);
			p[i] = (uint8_t)v;
			st = answer(q, qlen, p, len, &g, &truncated);
			assert_true((st == DNS_OK) == (g.n > 0) || st == DNS_TROUBLE);
			assert_true(!truncated || st == DNS_TROUBLE);
			/* Another id or question, but for the case of letters, counts for nothing. */
			if ((i < 2 || (i >= 12 && i < qlen)) && v != good[i] && ascii_lower((int)v) != good[i]) {
				assert_int_equal(st, DNS_IGNORE);
			}
		}
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_resolv_conf),
		cmocka_unit_test(test_hosts),
		cmocka_unit_test(test_changed),
		cmocka_unit_test(test_question),
		cmocka_unit_test(test_answer),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
