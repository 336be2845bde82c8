/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * A next hop's octets through a delivery: remote.c and its other files, plain, and up to a handshake that fails. Input: flags, then what
 * the peers say (fuzz_wire.h), one connection after the other; the same process delivers two messages. See fuzz_remote.h for what must hold.
 * LDFLAGS: -Wl,--wrap=_exit,--wrap=msg_send,--wrap=mono_ms,--wrap=random_bytes,--wrap=remote_open
 */
#include "fuzz_remote.h"

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	static struct remote remote;
	static unsigned flags; /* longjmp() leaves it alone */
	struct input in = { p, len };

	flags = take_octet(&in);
	hop_begin(&remote, flags);
	wire_begin(&remote.conn, &in);
	if (setjmp(hop_ended) == 0) {
		for (unsigned message = 0; message < 2; message++) {
			hop_job(&remote, flags >> 4 * message);
			remote_deliver(&remote);
			CHECK(remote.open == 0 && hop.reported == (1U << remote.job.rcpts) - 1);
			hop_check_sent();
		}
		remote_hang_up(&remote, 1);
	} else {
		CHECK(wire.gone || conn_stop); /* nothing else ends it */
	}
	hop_check_sent();
	return 0;
}
