/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* A message through body.c, in one piece and in pieces. Input: flags, size limit, seed of the pieces' lengths, message. */
#include "fuzz_body.h"

static struct result whole, split;

/* What body.c made of the message is what it should be. */
static void
check(const struct result *r, const uint8_t *p, size_t len, unsigned flags, unsigned max)
{
	static uint8_t want[1 << 17];
	struct header h;
	size_t octets;
	long n = fuzz_body_want(want, p, len, flags, &h, &octets);
	int fine = n >= 0 && h.hops < HOPS_MAX && (max == 0 || octets <= max) && (!r->full || n == 0);

	CHECK((r->b.fault == BODY_FINE) == fine);
	if (fine) {
		CHECK(r->b.octets == octets && r->b.hops == h.hops);
		CHECK(r->len == (size_t)n && memcmp(r->text, want, r->len) == 0);
		fuzz_check_text(r->text, r->len);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	struct input in = { p, len };
	unsigned flags = take_octet(&in), max = take_octet(&in), seed = 1 + take_octet(&in);
	size_t end = fuzz_end_of_data(&in);

	fuzz_body_feed(&whole, flags, max, 0, in);
	fuzz_body_feed(&split, flags, max, seed, in);
	/* The data ends at the first CRLF.CRLF and nowhere else: this is what keeps smuggled messages out. */
	CHECK(whole.b.done == (whole.b.dots && end != 0) && whole.used == (whole.b.done ? end : in.len));
	CHECK(whole.used == split.used && whole.b.done == split.b.done);
	/* Which of two faults comes first may depend on the pieces; whether there is one may not. */
	CHECK((whole.b.fault == BODY_FINE) == (split.b.fault == BODY_FINE));
	if (whole.b.done || !whole.b.dots) {
		check(&whole, in.p, whole.used - (whole.b.done ? 3 : 0), flags, max);
		check(&split, in.p, split.used - (split.b.done ? 3 : 0), flags, max);
	}
	return 0;
}
