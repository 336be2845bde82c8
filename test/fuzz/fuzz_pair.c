/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * A client's octets through smtp.c to a real warden and into a spool. Input: flags of the session (fuzz_warden.h), the client's script
 * (fuzz_wire.h). TLS records come as they are in the script; see fuzz_tls.c for more.
 * LDFLAGS: -Wl,--wrap=_exit,--wrap=msg_send,--wrap=msg_recv,--wrap=radius_ask,--wrap=log_end,--wrap=time,--wrap=mono_ms,--wrap=random_bytes
 */
#include "smtp.c"

#include "fuzz_pair.h"

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	struct input in = { p, len };
	unsigned flags = take_octet(&in);

	fuzz_pair(flags, &in);
	fuzz_pair_by_line(flags, &in);
	return 0;
}
