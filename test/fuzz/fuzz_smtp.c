/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * A client's octets through smtp.c, smtpauth.c and smtpdata.c. Input: flags, two octets that choose which requests the warden refuses
 * and how, then the client's script (fuzz_wire.h). See also fuzz_pair.c, which has a real warden.
 * LDFLAGS: -Wl,--wrap=_exit,--wrap=msg_send,--wrap=msg_recv,--wrap=mono_ms,--wrap=random_bytes
 */
#include "smtp.c"

#include "fuzz_smtp.h"

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	static const struct cert_chain chain = { .key_type = BR_KEYTYPE_EC, .curve = BR_EC_secp256r1 };
	static struct smtp_info info = {
		.me = "mx.example.org", .greeting = "mx.example.org", .session = "0123456789abcdef"
	};
	struct input in = { p, len };

	fake.message = fake.message == 0 ? memfd_create("message", MFD_CLOEXEC) : fake.message;
	fake.flags = take_octet(&in);
	fake.every = 1 + take_octet(&in) % 16;
	fake.verdict = take_octet(&in) % (V_COUNT + 1);
	fake.requests = fake.ended = 0;
	fake.transaction = fake.loggedin = 0;
	info.profile = (enum profile)(fake.flags % PROFILE_COUNT);
	info.relayclient = (fake.flags & 4) != 0;
	info.tls_ready = (fake.flags & 8) != 0;
	info.databytes = (fake.flags & 16) != 0 ? 64 : 0;
	fuzz_client(&info, &chain, 3, &in);
	CHECK(fake.ended == 1); /* the log hears of the end once */
	return 0;
}
