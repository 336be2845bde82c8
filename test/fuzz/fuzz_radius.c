/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * A login through radius.c and radcli. Input: flags; lengths of name and password; how many servers there are, which answered last, two octets
 * for each server; what they do (fuzz_radius.h).
 * LDFLAGS: -Wl,--wrap=getentropy,--wrap=mono_ms,--wrap=random_bytes,--wrap=log_end
 */
#include "fuzz_radius.h"

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	static char called[80], name[AUTH_USER_MAX + 1], password[AUTH_PASSWORD_MAX + 1];
	struct radius_query q = { name, password, "2001:db8::1", called, "mx.example.org", "0123456789abcdef" };
	struct input in = { p, len };
	struct radius_answer a;
	unsigned flags = take_octet(&in), servers;

	memset(&net, 0, offsetof(__typeof__(net), request));
	net.now = FUZZ_START;
	net.open = -1;
	net.v6 = flags & 1;
	net.full = (flags & 2) != 0;
	net.no_route = (flags & 8) != 0;
	fuzz_fill(name, 1 + take_octet(&in) % AUTH_USER_MAX);
	fuzz_fill(password, 1 + take_octet(&in) % AUTH_PASSWORD_MAX);
	fuzz_fill(called, sizeof called - 1);
	servers = take_octet(&in);
	fuzz_servers(&in, servers % (RADIUS_SERVERS_MAX + 1));
	atomic_store(&net_share->radius_good, servers / 16);
	net.in = in;
	radius_ask(&net_conf, &net_secrets, net_share, (flags & 4) != 0 ? 2 : 1, &q, &a);
	CHECK(net.open == -1 && a.result == (net.decided == 0 ? RADIUS_LATER : net.decided));
	CHECK(a.ms == net.now - FUZZ_START && a.ms <= RADIUS_DEADLINE * 1000 + 1);
	CHECK(strlen(a.message) < sizeof a.message && strchr(a.message, '\n') == NULL);
	CHECK((a.result == RADIUS_LATER) == (a.trouble != RADIUS_OK) && radius_trouble_text(a.trouble)[0] != '\0');
	CHECK(a.result == RADIUS_LATER ? a.server == -1 : a.server == net.server && a.sent == net.tries);
	fuzz_check_marks(&a, (flags & 4) == 0);
	return 0;
}
