/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * TLS: fuzz_pair.c with a client that talks it, and whose records can be damaged on their way (fuzz_tlsclient.h). Input: flags of the session
 * (fuzz_warden.h), what the certificate is for, the client's script. In the script the first packet after the start of TLS is the client's
 * settings, and further ones go through TLS.
 * LDFLAGS: -Wl,--wrap=_exit,--wrap=msg_send,--wrap=msg_recv,--wrap=radius_ask,--wrap=log_end,--wrap=time,--wrap=mono_ms,--wrap=random_bytes
 */
#define FUZZ_TLS

#include "smtp.c"

#include "fuzz_pair.h"
#include "fuzz_tlsclient.h"

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	struct input in = { p, len };
	unsigned flags = take_octet(&in) | 8;

	tls_client_remember();
	tls_client_key(take_octet(&in));
	tls_client_reset();
	fuzz_pair(flags, &in);
	tls_client_check();
	return 0;
}
