/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* A message through body.c, in one piece and in pieces. Input: flags, size limit, seed of the pieces' lengths, message. */
#include "body.h"

#include "fuzz.h"
#include "fuzz_body.h"

static struct result whole, split;

static void
feed(struct result *r, unsigned flags, unsigned max, unsigned seed, struct input in)
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

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	struct input in = { p, len };
	unsigned flags = take_octet(&in), max = take_octet(&in), seed = 1 + take_octet(&in);
	size_t end = fuzz_end_of_data(&in);

	feed(&whole, flags, max, 0, in);
	feed(&split, flags, max, seed, in);
	/* The data ends at the first CRLF.CRLF and nowhere else: this is what keeps smuggled messages out. */
	CHECK(whole.b.done == (whole.b.dots && end != 0) && whole.used == (whole.b.done ? end : in.len));
	/* Which of two faults comes first may depend on the pieces; whether there is one may not. */
	CHECK((whole.b.fault == BODY_FINE) == (split.b.fault == BODY_FINE));
	CHECK(whole.used == split.used && whole.b.done == split.b.done);
	if (whole.b.fault == BODY_FINE) {
		CHECK(whole.b.octets == split.b.octets && whole.b.hops == split.b.hops && whole.len == split.len);
		CHECK(memcmp(whole.text, split.text, whole.len) == 0 && (max == 0 || whole.b.octets <= max));
		fuzz_check_text(whole.text, whole.len);
		/* Nothing is added but the fields that were asked for, and a line between them, or what is before the message, and a body. */
		CHECK(whole.len >= whole.b.octets);
		CHECK((flags & 12) != 0 || whole.len == whole.b.octets ||
		    (whole.len == whole.b.octets + 1 && whole.text[0] == '\n'));
		CHECK(whole.len == 0 || whole.text[0] > ' ' || whole.text[0] == '\n');
		CHECK(whole.len - whole.b.octets <= strlen(FUZZ_DATE FUZZ_MSGID "\n"));
	}
	return 0;
}
