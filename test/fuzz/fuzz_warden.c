/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * An smtp process that was taken over: any messages, in any order, to the warden. Input: flags of the session, then messages: a type and
 * its fields, or, with 128 added, so many octets as they come.
 * LDFLAGS: -Wl,--wrap=radius_ask,--wrap=log_end
 */
#include "str.h"

#include "fuzz.h"
#include "fuzz_message.h"
#include "fuzz_warden.h"

/* Look at the answer to `type`, and use the file that came with it as smtp would. */
static void
look(uint32_t type, int sock, struct input *in)
{
	union msg_any m;
	char text[256];
	int fd;
	long n = msg_recv(sock, &m, sizeof m, &fd, 0);

	if (type == MSG_TLSPUT || type == MSG_TLSUP || type == MSG_RESET || type == MSG_NOTE) {
		CHECK(n == -1 && errno == ETIMEDOUT);
		return;
	}
	CHECK(n > 0);
	fuzz_check_answer(type, &m, (size_t)n);
	CHECK((fd != -1) == (type == MSG_DATA && m.verdict.verdict == V_OK));
	if (fd != -1) {
		write_all(fd, text, take_octets(in, text, take_octet(in)));
		close(fd);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	struct input in = { p, len };
	static int sv[2] = { -1, -1 };

	CHECK(sv[0] != -1 || msg_pair(sv) == 0);
	fuzz_warden_begin(take_octet(&in), sv[0]);
	while (in.len > 0) {
		union msg_any m;
		size_t n = fuzz_message(&in, &m);

		if (warden_dispatch(warden, &m, n) == -1) {
			CHECK(recv(sv[1], &m, sizeof m, MSG_DONTWAIT) == -1);
			break;
		}
		look(m.type, sv[1], &in);
	}
	fuzz_warden_end();
	return 0;
}
