/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * A client's octets through smtp.c to a real warden and into a spool. Whatever a client sends, smtp keeps to the warden's rules: else
 * strangers could make main believe that smtp was taken over. Input: flags of the session, packets as in fuzz_smtp.c.
 * LDFLAGS: -Wl,--wrap=_exit,--wrap=msg_send,--wrap=radius_ask,--wrap=log_end
 */
#include "smtp.c"

#include "fuzz.h"
#include "fuzz_client.h"
#include "fuzz_warden.h"

static int sv[2];
static uint8_t asked[BATCH_OCTETS];
static size_t asked_len;

int
__wrap_msg_send(int sock, const void *m, size_t len, int fd)
{
	if (sock == sv[1]) {
		CHECK(fd == -1 && len <= sizeof asked);
		memcpy(asked, m, len);
		asked_len = len;
		CHECK(warden_dispatch(warden, m, len) == 0);
		return 0;
	}
	fuzz_check_answers(asked, asked_len, m, len);
	return __real_msg_send(sock, m, len, fd);
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	struct input in = { p, len };

	CHECK(msg_pair(sv) == 0);
	fuzz_warden_begin(take_octet(&in), sv[0]);
	fuzz_client(&warden->info, sv[1], &in);
	close(sv[0]);
	close(sv[1]);
	fuzz_warden_end();
	return 0;
}
