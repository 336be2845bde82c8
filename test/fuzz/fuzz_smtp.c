/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * A client's octets through smtp.c, smtpauth.c and smtpdata.c. Input: flags, two octets that choose which requests the warden refuses
 * and how, then what the client sends, in packets that end with octet 255. See also fuzz_pair.c, which has a real warden.
 * LDFLAGS: -Wl,--wrap=_exit,--wrap=msg_send,--wrap=msg_recv
 */
#include "smtp.c"

#include "fuzz.h"
#include "fuzz_client.h"

#include <fcntl.h>

static unsigned flags, every, verdict, requests;
static uint32_t asked[BATCH_MAX];
static unsigned asked_count;
static int message = -1;
static char text[1 << 16];

int
__wrap_msg_send(int sock, const void *m, size_t len, int fd)
{
	CHECK(sock == 3 && fd == -1 && len > 0);
	for (asked_count = 0; len > 0; asked_count++) {
		uint32_t *type = &asked[asked_count];

		CHECK(asked_count < BATCH_MAX);
		memcpy(type, m, sizeof *type);
		CHECK(*type < MSG_COUNT && len >= fuzz_request_size[*type]);
		len -= fuzz_request_size[*type];
		m = (const uint8_t *)m + fuzz_request_size[*type];
		CHECK(asked_count == 0 || *type == MSG_RCPT || (*type == MSG_DATA && len == 0));
	}
	if (asked[0] == MSG_COMMIT) {
		fuzz_check_text(text, (size_t)pread(message, text, sizeof text, 0));
	}
	return 0;
}

/* One answer; `refused`: of a request before it in the batch. */
static union msg_any
answer_to(uint32_t type, int refused)
{
	union msg_any a = { .verdict = { .type = type, .verdict = ++requests % every == 0 ? verdict : V_OK } };

	if (refused && a.verdict.verdict == V_OK) {
		a.verdict.verdict = V_SKIPPED;
	}
	return a;
}

long
__wrap_msg_recv(int sock, void *m, size_t cap, int *fd, int timeout)
{
	uint32_t last = asked[asked_count - 1];
	union msg_any a = { 0 };
	int refused = 0;

	CHECK(sock == 3 && timeout == -1 && (fd != NULL) == (last == MSG_DATA));
	if (asked_count == 1 && last != MSG_DATA && last != MSG_MAIL && last != MSG_RCPT) {
		a = answer_to(last, 0);
		CHECK(cap <= sizeof a);
		memcpy(m, &a, cap);
		return a.verdict.verdict == 0 ? 0 : (long)cap; /* 0: the warden is gone */
	}
	CHECK(cap == asked_count * sizeof a.verdict);
	for (unsigned i = 0; i < asked_count; i++) {
		a = answer_to(asked[i], refused);
		memcpy((struct msg_verdict *)m + i, &a, sizeof a.verdict);
		if (a.verdict.verdict == 0) {
			return 0;
		}
		refused |= a.verdict.verdict != V_OK && asked[i] == MSG_MAIL;
	}
	if (last == MSG_DATA && a.verdict.verdict == V_OK) {
		CHECK(ftruncate(message, 0) == 0 && lseek(message, 0, SEEK_SET) == 0);
		*fd = (flags & 32) != 0 ? open("/dev/full", O_WRONLY | O_CLOEXEC) : dup(message);
	}
	return (long)cap;
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	static struct smtp_info info = {
		.me = "mx.example.org", .greeting = "mx.example.org", .session = "0123456789abcdef"
	};
	struct input in = { p, len };

	message = message == -1 ? memfd_create("message", 0) : message;
	flags = take_octet(&in);
	every = 1 + take_octet(&in) % 16;
	verdict = take_octet(&in) % (V_COUNT + 1);
	requests = 0;
	info.profile = (enum profile)(flags % PROFILE_COUNT);
	info.relayclient = (flags & 4) != 0;
	info.tls_ready = (flags & 8) != 0;
	info.databytes = (flags & 16) != 0 ? 64 : 0;
	fuzz_client(&info, 3, &in);
	return 0;
}
