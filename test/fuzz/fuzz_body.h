/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* What fuzz_body.c asks of body.c. */
#ifndef MAILSTILE_TEST_FUZZ_BODY_H
#define MAILSTILE_TEST_FUZZ_BODY_H

#include "body.h"
#include "fuzz.h"
#include "str.h"

#include <errno.h>
#include <stdio.h>

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

/* Feed the message, in one piece or, with a seed, in pieces. */
static void
fuzz_body_feed(struct result *r, unsigned flags, unsigned max, unsigned seed, struct input in)
{
	body_init(&r->b, r->out);
	fuzz_body_options(&r->b, flags, max);
	r->b.sink = fuzz_body_sink;
	r->b.ctx = r;
	r->full = (flags & 16) != 0;
	for (r->len = r->used = 0; r->used < in.len && !r->b.done; seed = seed * 1103515245 + (seed != 0)) {
		size_t left = in.len - r->used;
		size_t n = 1 + (seed >> 8) % 7 * ((seed >> 12) % 7); /* 1, mostly, to 37 */

		r->used += body_input(&r->b, in.p + r->used, seed == 0 || n > left ? left : n);
	}
	body_finish(&r->b);
}

/* What the header of a kept message has, as far as fields are added to it. */
struct header {
	size_t end; /* where missing fields go */
	int blank;  /* 0: before a line that is no header */
	int date, msgid;
	unsigned hops;
};

/* Length of the name of the field that p[0..len) is, white space before the colon not counted; 0 when it is none. */
static size_t
fuzz_field_name(const uint8_t *p, size_t len, size_t hold)
{
	size_t n = 0, colon;

	while (n < len && p[n] > 32 && p[n] < 127 && p[n] != ':') {
		n++;
	}
	for (colon = n; colon < len && (p[colon] == ' ' || p[colon] == '\t'); colon++) {
	}
	return n > 0 && colon < len && colon <= hold && p[colon] == ':' ? n : 0;
}

/* Read the header of text[0..len), which has LF line ends. */
static void
fuzz_header(struct header *h, const uint8_t *text, size_t len, size_t hold)
{
	size_t i = 0;
	int fields = 0;

	memset(h, 0, sizeof *h);
	while (i < len && text[i] != '\n') {
		const uint8_t *p = text + i, *lf = memchr(p, '\n', len - i);
		size_t line = lf == NULL ? len - i : (size_t)(lf - p);
		size_t name = fuzz_field_name(p, line, hold);

		if (name == 0 && !(fields > 0 && (*p == ' ' || *p == '\t'))) {
			break;
		}
		if (name > 0) {
			fields++;
			h->hops += (name >= 8 && ascii_casecmp(p, "received", 8) == 0) ||
			    (name >= 9 && ascii_casecmp(p, "delivered", 9) == 0);
			h->date |= name == 4 && ascii_casecmp(p, "date", 4) == 0;
			h->msgid |= name == 10 && ascii_casecmp(p, "message-id", 10) == 0;
		}
		i += line + 1;
	}
	h->end = i < len ? i : len;
	h->blank = i >= len || text[i] == '\n';
}

/*
 * The message p[0..len) as it must be kept, octet by octet, into to[]. Returns the length, or -1 when it has a line end that is none, or a
 * NUL. `octets`: without what was added.
 */
static long
fuzz_body_want(uint8_t *to, const uint8_t *p, size_t len, unsigned flags, struct header *h, size_t *octets)
{
	static uint8_t text[1 << 16];
	char add[64] = "";
	size_t n = 0, more;
	int bol = 1, lenient = (flags & 2) != 0;

	for (size_t i = 0; i < len; i++) {
		int crlf = p[i] == '\r' && i + 1 < len && p[i + 1] == '\n';

		if (p[i] == '\0' || (p[i] == '\r' && !crlf) ||
		    (p[i] == '\n' && !lenient && (i == 0 || p[i - 1] != '\r'))) {
			return -1;
		}
		if (!crlf && !(bol && p[i] == '.' && (flags & 1) != 0)) {
			text[n++] = p[i];
		}
		bol = p[i] == '\n';
	}
	if (!bol) {
		text[n++] = '\n';
	}
	*octets = n;
	fuzz_header(h, text, n, sizeof((struct body *)0)->hold);
	snprintf(add, sizeof add, "%s%s", (flags & 4) != 0 && !h->date ? FUZZ_DATE : "",
	    (flags & 8) != 0 && !h->msgid ? FUZZ_MSGID : "");
	/* A first line that folds must not go on with our trace. */
	if (!h->blank && (add[0] != '\0' || (h->end == 0 && text[0] <= ' '))) {
		strcat(add, "\n");
	}
	more = strlen(add);
	memcpy(to, text, h->end);
	memcpy(to + h->end, add, more);
	memcpy(to + h->end + more, text + h->end, n - h->end);
	return (long)(n + more);
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
