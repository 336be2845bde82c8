/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* What fuzz_body.c asks of body.c. */
#ifndef MAILSTILE_TEST_FUZZ_BODY_H
#define MAILSTILE_TEST_FUZZ_BODY_H

#include "body.h"

#include <errno.h>

#define FUZZ_DATE "Date: now\n"
#define FUZZ_MSGID "Message-ID: <1@x>\n"

struct result {
	struct body b;
	int full; /* nothing can be written */
	size_t used, len;
	uint8_t text[1 << 16], out[BODY_BUFFER];
};

static int
fuzz_body_sink(void *ctx, const void *p, size_t len)
{
	struct result *r = ctx;

	CHECK(len > 0 && len <= sizeof r->text - r->len);
	if (r->full) {
		return ENOSPC;
	}
	memcpy(r->text + r->len, p, len);
	r->len += len;
	return 0;
}

static void
fuzz_body_options(struct body *b, unsigned flags, unsigned max)
{
	b->dots = (flags & 1) != 0;
	b->lenient = (flags & 2) != 0;
	b->want_date = (flags & 4) != 0;
	b->want_msgid = (flags & 8) != 0;
	b->date_field = FUZZ_DATE;
	b->msgid_field = FUZZ_MSGID;
	b->max = max;
}

/* The octets up to the end of the first CRLF.CRLF, whose first CRLF may be that of the command; 0 when there is none. */
static size_t
fuzz_end_of_data(const struct input *in)
{
	const uint8_t *end = memmem(in->p, in->len, "\r\n.\r\n", 5);

	if (in->len >= 3 && memcmp(in->p, ".\r\n", 3) == 0) {
		return 3;
	}
	return end == NULL ? 0 : (size_t)(end - in->p) + 5;
}

#endif
