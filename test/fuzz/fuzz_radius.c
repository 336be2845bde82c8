/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * A login through radius.c and radcli, and a RADIUS server's reply back. Input: flags; lengths of name and password; the reply. With flag 1
 * the id, length and seals of the reply are put right, or next to nothing would come through; with flag 2 it may be unsigned.
 * LDFLAGS: -Wl,--wrap=getentropy
 */
#include "fuzz_radius.h"

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	static struct radius_server server = { .timeout = 1 };
	static struct transport t = { .server = &server, .secret = FUZZ_SECRET, .fd = -1, .deadline = INT64_MAX };
	static char called[80], name[AUTH_USER_MAX + 1], password[AUTH_PASSWORD_MAX + 1];
	struct radius_query q = { name, password, "2001:db8::1", called, "mx.example.org", "0123456789abcdef" };
	struct radius_answer a = { .result = RADIUS_LATER, .server = -1, .service = -1 };

	fuzz_reply = (struct input){ p, len };
	fuzz_flags = take_octet(&fuzz_reply);
	fuzz_fill(name, 1 + take_octet(&fuzz_reply) % AUTH_USER_MAX);
	fuzz_fill(password, 1 + take_octet(&fuzz_reply) % AUTH_PASSWORD_MAX);
	fuzz_fill(called, sizeof called - 1);
	server.unsigned_ok = (fuzz_flags & 2) != 0;
	if (t.fd == -1) {
		t.fd = socket(AF_INET, SOCK_DGRAM, 0);
		t.ready = eventfd(1, EFD_CLOEXEC);
	}
	t.a = &a;
	t.reply_len = 0;
	t.refused = 0;
	ask_radcli(&t, &q, &a);
	CHECK(a.sent == 1 && a.result >= RADIUS_ACCEPT && a.result <= RADIUS_LATER);
	CHECK(strlen(a.message) < sizeof a.message && strchr(a.message, '\n') == NULL);
	if (a.result != RADIUS_LATER) {
		fuzz_check_reply(t.reply, t.reply_len, &a);
	} else {
		CHECK(a.trouble != RADIUS_OK);
	}
	return 0;
}
