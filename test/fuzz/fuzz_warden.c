/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * An smtp process that was taken over: any messages, in any order, to the warden. Input: flags of the session, then messages of one request or
 * some: of each a type and its fields, or, with 128 added, so many octets as they come (fuzz_message.h).
 * LDFLAGS: -Wl,--wrap=radius_ask,--wrap=log_end,--wrap=time,--wrap=msg_send
 */
#include "fuzz_message.h"

int
__wrap_msg_send(int sock, const void *m, size_t len, int fd)
{
	if (sock == fuzz_sock[0]) {
		fuzz_answer.len = len;
		fuzz_answer.fd = fd;
		memcpy(&fuzz_answer.m, m, len);
	}
	return __real_msg_send(sock, m, len, fd);
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	struct input in = { p, len };

	CHECK(fuzz_sock[0] != -1 || msg_pair(fuzz_sock) == 0);
	fuzz_warden_begin(take_octet(&in), fuzz_sock[0]);
	while (in.len > 0) {
		static uint8_t m[BATCH_OCTETS + 32];
		unsigned how = 0;
		size_t n = fuzz_requests(&in, m, &how);

		if (!fuzz_carry(m, &n, how) || fuzz_dispatch(m, n) == -1) {
			break;
		}
		fuzz_use_answer(&in);
	}
	CHECK(recv(fuzz_sock[1], &(char){ 0 }, 1, MSG_DONTWAIT) == -1);
	fuzz_let_go();
	fuzz_warden_end();
	return 0;
}
