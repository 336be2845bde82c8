/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * A whole look-up through dns_mx() or dns_addr(), with name servers that say anything, over UDP and TCP. Input: an octet, 1 for MX, 2 for
 * IPv6, the rest the number of servers; the name, up to octet 255; then events.
 *
 * LDFLAGS: -Wl,--wrap=mono_ms,--wrap=random_bytes
 */
#include "fuzz_dns.h"

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	static struct dns_conf c = {
		.port = 53, .timeout = 1, .attempts = 2, .server = { { { 1 } }, { { 2 } }, { { 3 } } }
	};
	static struct dns_mx mx[8];
	static struct addr addr[8];
	struct input name_in;
	enum dns_status st;
	char name[300] = "";
	unsigned flags;
	size_t n = 99;

	memset(&net, 0, sizeof net);
	net.in = (struct input){ p, len };
	net.now = FUZZ_START;
	flags = take_octet(&net.in);
	c.servers = 1 + flags / 4 % DNS_SERVERS_MAX;
	name_in = take_packet(&net.in);
	take_octets(&name_in, name, sizeof name - 1);
	if ((flags & 1) != 0) {
		st = dns_mx(&c, name, mx, 8, &n, FUZZ_START + 5000);
		CHECK(n <= 8 && (st == DNS_OK) == (n > 0) && st != DNS_IGNORE);
		for (size_t i = 0; i < n; i++) {
			CHECK(i == 0 || mx[i - 1].preference <= mx[i].preference);
			if (n > 1 || mx[i].host[0] != '\0') {
				fuzz_check_host(mx[i].host);
			}
		}
	} else {
		st = dns_addr(&c, name, (flags & 2) != 0, addr, 8, &n, FUZZ_START + 5000);
		CHECK(n <= 8 && (st == DNS_OK) == (n > 0) && st != DNS_IGNORE);
	}
	/* Every event takes a moment, so a flood of them may go beyond the deadline by its last one. */
	CHECK(!net.open && net.now <= FUZZ_START + 5000 + 1);
	return 0;
}
