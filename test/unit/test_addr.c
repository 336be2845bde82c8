/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* Network addresses and blocks: addr.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "addr.h"
#include "unit.h"

#include <arpa/inet.h>
#include <sys/un.h>

static struct addr
addr(const char *s)
{
	struct addr a;

	if (addr_parse(&a, s, strlen(s)) == -1) {
		fail_msg("%s is no address", s);
	}
	return a;
}

static void
test_parse(void **state)
{
	static const struct {
		const char *in, *out; /* NULL: refused */
	} t[] = {
		{ "192.0.2.1", "192.0.2.1" },
		{ "0.0.0.0", "0.0.0.0" },
		{ "255.255.255.255", "255.255.255.255" },
		{ "2001:DB8::1", "2001:db8::1" },
		{ "::", "::" },
		{ "::1", "::1" },
		{ "::ffff:192.0.2.1", "192.0.2.1" }, /* IPv4 all the same */
		{ "::ffff:c000:201", "192.0.2.1" },
		{ "2001:db8:1:2:3:4:192.168.100.200", "2001:db8:1:2:3:4:c0a8:64c8" },
		{ "", NULL },
		{ "192.0.2", NULL },
		{ "192.0.2.256", NULL },
		{ "192.0.2.01x", NULL },
		{ "192.0.2.1 ", NULL },
		{ " 192.0.2.1", NULL },
		{ "[::1]", NULL },
		{ "fe80::1%eth0", NULL },
		{ ":", NULL },
		{ "1::2::3", NULL },
		{ "2001:0db8:0000:0000:0000:0000:0000:0000:0000:0001", NULL },
	};
	char text[ADDR_TEXT_MAX];
	struct addr a;

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		int rc = addr_parse(&a, t[i].in, strlen(t[i].in));

		assert_int_equal(rc, t[i].out == NULL ? -1 : 0);
		if (rc == 0) {
			assert_string_equal(addr_text(&a, text), t[i].out);
			assert_int_equal(addr_is_v4(&a), strchr(t[i].out, ':') == NULL);
		}
	}
	/* Only `len` octets count, and none of them may be NUL. */
	assert_int_equal(addr_parse(&a, "192.0.2.123", 9), 0);
	assert_string_equal(addr_text(&a, text), "192.0.2.1");
	assert_int_equal(addr_parse(&a, "192.0.2.1\0", 10), -1);
}

/* Text of all shapes of IPv6 addresses, beside the C library's, which has an own idea of ::/96 only. */
static void
test_text(void **state)
{
	char text[ADDR_TEXT_MAX], want[INET6_ADDRSTRLEN];
	struct addr a, back;

	(void)state;
	for (unsigned n = 0; n < 256 * 64; n++) {
		for (unsigned i = 0; i < 8; i++) {
			int v = (n >> i & 1) == 0 ? 0 : (rand() & 0xffff) >> (n / 256 % 16) | 1;

			a.ip[2 * i] = (uint8_t)(v >> 8);
			a.ip[2 * i + 1] = (uint8_t)v;
		}
		assert_ptr_equal(addr_text(&a, text), text);
		assert_int_equal(addr_parse(&back, text, strlen(text)), 0);
		assert_memory_equal(&back, &a, sizeof a);
		if ((n & 0x3f) != 0) {
			assert_non_null(inet_ntop(AF_INET6, a.ip, want, sizeof want));
#ifdef __GLIBC__ /* RFC 5952 4.2.3: of two runs the first one; musl takes the last */
			assert_string_equal(text, want);
#endif
		}
	}
}

static void
test_blocks(void **state)
{
	static const struct {
		const char *block, *inside, *outside; /* both NULL: refused */
	} t[] = {
		{ "192.0.2.0/24", "192.0.2.255", "192.0.3.0" },
		{ "192.0.2.1", "192.0.2.1", "192.0.2.2" },
		{ "192.0.2.1/32", "192.0.2.1", "192.0.2.0" },
		{ "10.0.0.0/9", "10.127.255.255", "10.128.0.0" },
		{ "0.0.0.0/0", "203.0.113.9", "::1" },
		{ "::/0", "203.0.113.9", NULL },
		{ "2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::" },
		{ "2001:db8::1/128", "2001:db8::1", "2001:db8::" },
		{ "128.0.0.0/1", "255.0.0.1", "127.255.255.255" },
		{ "10.1.2.3/8", NULL, NULL },
		{ "192.0.2.0/33", NULL, NULL },
		{ "2001:db8::/129", NULL, NULL },
		{ "192.0.2.0/", NULL, NULL },
		{ "192.0.2.0/-1", NULL, NULL },
		{ "192.0.2.0/24 ", NULL, NULL },
		{ "/24", NULL, NULL },
		{ "", NULL, NULL },
		{ "192.0.2.0/24/24", NULL, NULL },
	};
	struct addr_block b;

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		int refused = t[i].inside == NULL;

		assert_int_equal(addr_block_parse(&b, t[i].block, strlen(t[i].block)), refused ? -1 : 0);
		if (!refused) {
			struct addr a = addr(t[i].inside);

			assert_int_equal(addr_in_block(&a, &b), 1);
		}
		if (t[i].outside != NULL) {
			struct addr a = addr(t[i].outside);

			assert_int_equal(addr_in_block(&a, &b), 0);
		}
	}
}

static void
test_same_client(void **state)
{
	static const struct {
		const char *a, *b;
		int same;
	} t[] = {
		{ "192.0.2.1", "192.0.2.1", 1 },
		{ "192.0.2.1", "192.0.2.2", 0 },
		{ "2001:db8:1:2::1", "2001:db8:1:2:ffff::9", 1 },
		{ "2001:db8:1:2::1", "2001:db8:1:3::1", 0 },
		/* ::/64 begins like every mapped IPv4 address, but is no IPv4 client. */
		{ "::1", "192.0.2.1", 0 },
		{ "::1", "::2", 1 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		struct addr a = addr(t[i].a), b = addr(t[i].b);

		assert_int_equal(addr_same_client(&a, &b), t[i].same);
		assert_int_equal(addr_same_client(&b, &a), t[i].same);
	}
}

static void
test_sockaddr(void **state)
{
	static const struct {
		const char *text;
		int family;
		socklen_t len;
	} t[] = {
		{ "192.0.2.1", AF_INET, sizeof(struct sockaddr_in) },
		{ "2001:db8::1", AF_INET6, sizeof(struct sockaddr_in6) },
	};
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct addr zero = { { 0 } };
	uint16_t port;

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		struct addr a = addr(t[i].text), back;
		struct sockaddr_storage ss;

		assert_int_equal(addr_to_sockaddr(&a, 587, &ss), t[i].len);
		assert_int_equal(ss.ss_family, t[i].family);
		assert_int_equal(((struct sockaddr_in *)&ss)->sin_port, htons(587)); /* the same place in both */
		assert_int_equal(addr_from_sockaddr(&back, &port, (struct sockaddr *)&ss), 0);
		assert_memory_equal(&back, &a, sizeof a);
		assert_int_equal(port, 587);
	}
	port = 1;
	zero.ip[3] = 1;
	assert_int_equal(addr_from_sockaddr(&zero, &port, (struct sockaddr *)&un), -1);
	assert_int_equal(port, 0);
	for (size_t i = 0; i < 16; i++) {
		assert_int_equal(zero.ip[i], 0);
	}
}

static void
test_network(void **state)
{
	struct addr a = addr("192.0.2.1"), b = addr("192.0.2.255"), c = addr("192.0.3.1");
	struct addr d = addr("2001:db8:1::1"), e = addr("2001:db8:1:ffff::2"), f = addr("2001:db8:2::1");

	(void)state;
	assert_int_equal(addr_network(&a), addr_network(&b));
	assert_int_not_equal(addr_network(&a), addr_network(&c));
	assert_int_equal(addr_network(&d), addr_network(&e));
	assert_int_not_equal(addr_network(&d), addr_network(&f));
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_blocks),
		cmocka_unit_test(test_same_client),
		cmocka_unit_test(test_network),
		cmocka_unit_test(test_sockaddr),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
