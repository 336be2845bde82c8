/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * An smtp process that was taken over: any messages, in any order, to the warden. Input: flags of the session, then messages: how many
 * requests, if not one: 32 and more; then of each a type and its fields, or, with 128 added, so many octets as they come.
 * LDFLAGS: -Wl,--wrap=radius_ask,--wrap=log_end
 */
#include "str.h"

#include "fuzz.h"
#include "fuzz_message.h"
#include "fuzz_warden.h"

/* Look at the answers to p[0..len), and use the file that came with them as smtp would. */
static void
look(const void *p, size_t len, int sock, struct input *in)
{
	union msg_any m;
	char text[256];
	uint32_t type;
	int fd;
	long n = msg_recv(sock, &m, sizeof m, &fd, 0);

	memcpy(&type, p, sizeof type);
	if (type == MSG_TLSPUT || type == MSG_TLSUP || type == MSG_RESET || type == MSG_NOTE) {
		CHECK(n == -1 && errno == ETIMEDOUT);
		return;
	}
	CHECK(n > 0);
	CHECK(fd == -1 || fuzz_check_answers(p, len, &m, (size_t)n) == MSG_DATA);
	CHECK(fd != -1 || fuzz_check_answers(p, len, &m, (size_t)n) != 0);
	if (fd != -1) {
		write_all(fd, text, take_octets(in, text, take_octet(in)));
		close(fd);
	}
}

/* A message of one request, or of some. */
static size_t
message(struct input *in, uint8_t *p)
{
	unsigned count = in->len > 0 && in->p[0] >= 32 && in->p[0] < 32 + BATCH_MAX ? take_octet(in) - 31U : 1;
	size_t len = 0;

	while (count-- > 0) {
		union msg_any m;
		size_t n = fuzz_message(in, &m);

		if (len + n <= BATCH_OCTETS) {
			memcpy(p + len, &m, n);
			len += n;
		}
	}
	return len;
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	struct input in = { p, len };
	static int sv[2] = { -1, -1 };

	CHECK(sv[0] != -1 || msg_pair(sv) == 0);
	fuzz_warden_begin(take_octet(&in), sv[0]);
	while (in.len > 0) {
		uint8_t m[BATCH_OCTETS];
		size_t n = message(&in, m);

		if (warden_dispatch(warden, m, n) == -1) {
			CHECK(recv(sv[1], m, sizeof m, MSG_DONTWAIT) == -1);
			break;
		}
		look(m, n, sv[1], &in);
	}
	fuzz_warden_end();
	return 0;
}
