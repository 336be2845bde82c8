/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* What fuzz targets share. A promise that is broken ends the process by CHECK, so that it is found like a crash. */
#ifndef MAILSTILE_TEST_FUZZ_H
#define MAILSTILE_TEST_FUZZ_H

#include "diag.h"
#include "msg.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))
#define CHECK(x) \
	do { \
		if (!(x)) { \
			abort(); \
		} \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* An input, taken from the front; what is not there reads as zero. */
struct input {
	const uint8_t *p;
	size_t len;
};

/* The next `n` octets, or as many as there are. Returns how many. */
static UNUSED size_t
take_octets(struct input *in, void *dst, size_t n)
{
	n = n < in->len ? n : in->len;
	if (n == 0) {
		return 0; /* p may be NULL */
	}
	memcpy(dst, in->p, n);
	in->p += n;
	in->len -= n;
	return n;
}

static UNUSED unsigned
take_octet(struct input *in)
{
	uint8_t c = 0;

	take_octets(in, &c, 1);
	return c;
}

/* What comes before the next octet 255, which is taken, too; or all there is. */
static UNUSED struct input
take_packet(struct input *in)
{
	struct input packet = *in;
	const uint8_t *end = in->len == 0 ? NULL : memchr(in->p, 255, in->len);

	if (end != NULL) {
		packet.len = (size_t)(end - in->p);
	}
	in->p += packet.len + (end != NULL);
	in->len -= packet.len + (end != NULL);
	return packet;
}

/* Findings that go nowhere. */
static UNUSED void
fuzz_no_emit(struct diag *d, enum diag_level level, const char *file, int line, const char *text)
{
	(void)d;
	(void)level;
	(void)file;
	(void)line;
	CHECK(text[0] != '\0');
}

/* What smtp asks the warden for, by type. */
static UNUSED const size_t fuzz_request_size[MSG_COUNT] = {
	[MSG_SIGN] = sizeof(struct msg_sign),
	[MSG_TLSGET] = sizeof(struct msg_tlsget),
	[MSG_TLSPUT] = sizeof(struct msg_tlssession),
	[MSG_TLSUP] = sizeof(struct msg_tlsup),
	[MSG_AUTH] = sizeof(struct msg_auth),
	[MSG_MAIL] = sizeof(struct msg_mail),
	[MSG_RCPT] = sizeof(struct msg_rcpt),
	[MSG_DATA] = sizeof(struct msg_data),
	[MSG_COMMIT] = sizeof(struct msg_commit),
	[MSG_RESET] = sizeof(struct msg_simple),
	[MSG_NOTE] = sizeof(struct msg_note),
};

/* A message as it may be kept: lines end in LF, the last one too, and neither CR nor NUL is in it. */
static UNUSED void
fuzz_check_text(const void *p, size_t len)
{
	CHECK(memchr(p, '\r', len) == NULL && memchr(p, '\0', len) == NULL);
	CHECK(len == 0 || ((const char *)p)[len - 1] == '\n');
}

#endif
