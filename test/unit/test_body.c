/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * A message on its way in: body.c. Every input is fed in one piece, octet by octet, and in all ways to cut it in two; a piece is a
 * heap copy of its own, so that AddressSanitizer sees what is read past its end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "body.h"
#include "unit.h"

#include <errno.h>

#define DATE "Date: now\n"
#define MSGID "Message-ID: <new>\n"
#define BOTH DATE MSGID

enum { BDAT = 1, LENIENT = 2, ADD_DATE = 4, ADD_MSGID = 8, ADD = 12 };

static uint8_t buffer[BODY_BUFFER];

/* What came out. */
struct result {
	char out[3 * BODY_BUFFER];
	size_t len;
	unsigned calls, fail_at; /* the call that fails, 0 = none */
	struct body b;
	size_t used;
};

static int
sink(void *ctx, const void *p, size_t len)
{
	struct result *r = ctx;

	assert_int_equal(r->b.fault, BODY_FINE);
	assert_in_range(len, 1, BODY_BUFFER);
	if (++r->calls == r->fail_at) {
		return ENOSPC;
	}
	assert_in_range(r->len + len, 1, sizeof r->out);
	memcpy(r->out + r->len, p, len);
	r->len += len;
	return 0;
}

static void
begin(struct result *r, int flags, uint64_t max)
{
	body_init(&r->b, buffer);
	r->b.dots = !(flags & BDAT);
	r->b.lenient = (flags & LENIENT) != 0;
	r->b.want_date = (flags & ADD_DATE) != 0;
	r->b.want_msgid = (flags & ADD_MSGID) != 0;
	r->b.date_field = DATE;
	r->b.msgid_field = MSGID;
	r->b.max = max;
	r->b.sink = sink;
	r->b.ctx = r;
	r->len = r->used = 0;
	r->calls = 0;
}

static void
piece(struct result *r, const char *p, size_t len)
{
	uint8_t *copy;
	size_t n;

	if (len == 0) {
		return;
	}
	copy = malloc(len);
	memcpy(copy, p, len);
	n = body_input(&r->b, copy, len);
	free(copy);
	assert_in_range(n, 0, len);
	assert_true(n == len || r->b.done);
	r->used += n;
}

/* Feed in[0..len) cut after `cut` octets; `cut` 0: octet by octet. */
static void
feed(struct result *r, int flags, uint64_t max, const char *in_, size_t len, size_t cut)
{
	begin(r, flags, max);
	if (cut > 0) {
		piece(r, in_, cut);
		piece(r, in_ + cut, len - cut);
	} else {
		for (size_t i = 0; i < len; i++) {
			piece(r, in_ + i, 1);
		}
	}
	body_finish(&r->b);
}

static struct result result;

/* Expect the same of every way to cut. `out` NULL: whatever is written. */
static void
expect(int flags, uint64_t max, const char *in_, size_t len, enum body_fault fault, const char *out, size_t out_len,
    int done, size_t used)
{
	for (size_t cut = 0; cut <= len; cut++) {
		struct result *r = &result;

		feed(r, flags, max, in_, len, cut);
		if (r->b.fault != fault || r->b.done != done || r->used != used ||
		    (fault == BODY_FINE && out != NULL && (r->len != out_len || memcmp(r->out, out, out_len) != 0))) {
			fail_msg("cut %zu of \"%.*s\": fault %d, done %d, used %zu, \"%.*s\"", cut, (int)len, in_,
			    r->b.fault, r->b.done, r->used, (int)r->len, r->out);
		}
	}
}

static void
test_lines(void **state)
{
	static const struct {
		int flags;
		const char *in;
		size_t len;
		enum body_fault fault;
		const char *out;
		int done;
		size_t left; /* octets after the end of the data */
	} t[] = {
		{ 0, S("a\r\n.\r\n"), BODY_FINE, "a\n", 1, 0 },
		{ 0, S(".\r\n"), BODY_FINE, "", 1, 0 },
		{ 0, S("\r\n.\r\n"), BODY_FINE, "\n", 1, 0 },
		{ 0, S("a\r\n\r\n\r\n.\r\nQUIT\r\n.\r\n"), BODY_FINE, "a\n\n\n", 1, 9 },
		{ 0, S("..\r\n...a\r\n.b\r\n. \r\na.\r\n.\r\n"), BODY_FINE, ".\n..a\nb\n \na.\n", 1, 0 },
		{ 0, S("\xff\x80\x01\x1b\x7f\r\n.\r\n"), BODY_FINE, "\xff\x80\x01\x1b\x7f\n", 1, 0 },
		/* what does not end the data */
		{ 0, S("a\n.\n"), BODY_BARE, NULL, 0, 0 },
		{ 0, S("a\n.\r\n"), BODY_BARE, NULL, 0, 0 },
		{ 0, S("a\r.\r"), BODY_BARE, NULL, 0, 0 },
		{ 0, S("a\r\n.\r"), BODY_BARE, NULL, 0, 0 },
		{ 0, S("a\r\n.\n"), BODY_BARE, NULL, 0, 0 },
		{ 0, S("a\r\n.\r\r\n"), BODY_BARE, NULL, 0, 0 },
		{ 0, S("a\r\r.\r\n"), BODY_BARE, NULL, 0, 0 },
		{ 0, S("a\r\n\r.\r\n"), BODY_BARE, NULL, 0, 0 },
		{ 0, S("a\r\n\0.\r\n"), BODY_BARE, NULL, 0, 0 },
		{ 0, S("a\r\n.\0\r\n"), BODY_BARE, NULL, 0, 0 },
		{ 0, S("a\r"), BODY_BARE, NULL, 0, 0 },
		/* the fault is remembered, and the end found */
		{ 0, S("a\n.\r\nb\r\n.\r\nX"), BODY_BARE, NULL, 1, 1 },
		{ 0, S("a\r\n.\rX\r\n.\r\nX"), BODY_BARE, NULL, 1, 1 },
		{ 0, S("a\r\r\n.\r\nX"), BODY_BARE, NULL, 1, 1 },
		{ 0, S("a\rb\r\n.\r\n"), BODY_BARE, NULL, 1, 0 },
		{ 0, S("a\0b\r\n.\r\n"), BODY_BARE, NULL, 1, 0 },
		{ 0, S("\0\r\n.\r\n"), BODY_BARE, NULL, 1, 0 },
		{ 0, S("a\nb\r\n.\r\n"), BODY_BARE, NULL, 1, 0 },
		/* an `inside` listener takes LF, but never for the end; CR and NUL stay faults */
		{ LENIENT, S("a\nb\r\n.\r\n"), BODY_FINE, "a\nb\n", 1, 0 },
		{ LENIENT, S("a\n.\nb\r\n.\r\n"), BODY_FINE, "a\n\nb\n", 1, 0 },
		{ LENIENT, S("a\n.\r\nb\r\n.\r\n"), BODY_FINE, "a\n\nb\n", 1, 0 },
		{ LENIENT, S("a\r\n.\nb\r\n.\r\n"), BODY_FINE, "a\n\nb\n", 1, 0 },
		{ LENIENT, S("\n\n..b\n.\r\n.\r\n"), BODY_FINE, "\n\n.b\n\n", 1, 0 },
		{ LENIENT, S("a\n.\n"), BODY_FINE, "a\n\n", 0, 0 },
		{ LENIENT, S("a\r\n.\r\r\n"), BODY_BARE, NULL, 0, 0 },
		{ LENIENT, S("a\rb\n.\r\n.\r\n"), BODY_BARE, NULL, 1, 0 },
		{ LENIENT, S("a\0\n.\r\n.\r\n"), BODY_BARE, NULL, 1, 0 },
		/* BDAT: dots mean nothing, and a missing last line end is supplied */
		{ BDAT, S("..\r\n.\r\na\r\n"), BODY_FINE, "..\n.\na\n", 0, 0 },
		{ BDAT, S("a"), BODY_FINE, "a\n", 0, 0 },
		{ BDAT, S("a\r\n."), BODY_FINE, "a\n.\n", 0, 0 },
		{ BDAT, S(""), BODY_FINE, "", 0, 0 },
		{ BDAT, S("a\r"), BODY_BARE, NULL, 0, 0 },
		{ BDAT, S("a\n"), BODY_BARE, NULL, 0, 0 },
		{ BDAT, S("a\r\r\n"), BODY_BARE, NULL, 0, 0 },
		{ BDAT, S("\0"), BODY_BARE, NULL, 0, 0 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		expect(t[i].flags, 0, t[i].in, t[i].len, t[i].fault, t[i].out, t[i].out == NULL ? 0 : strlen(t[i].out),
		    t[i].done, t[i].len - t[i].left);
	}
}

/* The rules again, told in another way: the whole input at once. */
static size_t
reference(int flags, const char *s, size_t len, char *out, size_t *out_len, enum body_fault *fault, int *done)
{
	size_t end = len, n = 0;
	int bol = 1;

	*done = 0;
	for (size_t i = 0; !(flags & BDAT) && i + 3 <= len && !*done; i++) {
		if (memcmp(s + i, ".\r\n", 3) == 0 && (i == 0 || (i >= 2 && memcmp(s + i - 2, "\r\n", 2) == 0))) {
			*done = 1;
			end = i;
		}
	}
	*fault = BODY_FINE;
	for (size_t i = 0; i < end; i++) {
		int cr_before = i > 0 && s[i - 1] == '\r', lf_after = i + 1 < end && s[i + 1] == '\n';

		if (s[i] == '\0' || (s[i] == '\r' && !lf_after) || (s[i] == '\n' && !cr_before && !(flags & LENIENT))) {
			*fault = BODY_BARE;
		}
		if (s[i] != '\r' && !(bol && s[i] == '.' && !(flags & BDAT))) {
			out[n++] = s[i];
		}
		bol = s[i] == '\n';
	}
	if (end > 0 && s[end - 1] != '\n') {
		out[n++] = '\n';
	}
	*out_len = n;
	return *done ? end + 3 : len;
}

/* Every string of up to 7 of the octets that matter. */
static void
test_all_short_strings(void **state)
{
	static const char alphabet[] = "\r\n.a";
	static const int modes[] = { 0, LENIENT, BDAT };

	(void)state;
	for (size_t len = 1; len <= 7; len++) {
		for (unsigned v = 0; v < 1U << (2 * len); v++) {
			char s[8], out[16];

			for (size_t i = 0; i < len; i++) {
				s[i] = alphabet[v >> (2 * i) & 3];
			}
			for (size_t m = 0; m < COUNT(modes); m++) {
				enum body_fault fault;
				size_t out_len, used;
				int done;

				used = reference(modes[m], s, len, out, &out_len, &fault, &done);
				/* Without an end of data there is no message. */
				expect(modes[m], 0, s, len, fault, done || modes[m] == BDAT ? out : NULL, out_len, done,
				    used);
			}
		}
	}
}

static void
test_missing_fields(void **state)
{
#define X78 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
	static const struct {
		int flags;
		const char *in, *out;
	} t[] = {
		{ ADD, "A: b\r\n\r\nc\r\n.\r\n", "A: b\n" BOTH "\nc\n" },
		{ ADD, "A: b\r\nC: d\r\n\r\nDate: e\r\n.\r\n", "A: b\nC: d\n" BOTH "\nDate: e\n" },
		{ ADD, "Date: d\r\n\r\nc\r\n.\r\n", "Date: d\n" MSGID "\nc\n" },
		{ ADD, "Message-Id:m\r\n\r\nc\r\n.\r\n", "Message-Id:m\n" DATE "\nc\n" },
		{ ADD, "dATE:\r\nmESSAGE-iD : m\r\n\r\nc\r\n.\r\n", "dATE:\nmESSAGE-iD : m\n\nc\n" },
		{ ADD, ".Date: d\r\nMessage-ID: m\r\n\r\nc\r\n.\r\n", "Date: d\nMessage-ID: m\n\nc\n" },
		{ ADD_DATE, "A: b\r\n\r\nc\r\n.\r\n", "A: b\n" DATE "\nc\n" },
		{ ADD_MSGID, "A: b\r\n\r\nc\r\n.\r\n", "A: b\n" MSGID "\nc\n" },
		{ 0, "A: b\r\n\r\nc\r\n.\r\n", "A: b\n\nc\n" },
		{ ADD | LENIENT, "A: b\n\nc\n.\n\r\n.\r\n", "A: b\n" BOTH "\nc\n\n\n" },
		{ ADD | BDAT, "A: b\r\n\r\n.c", "A: b\n" BOTH "\n.c\n" },
		/* other fields are not these */
		{ ADD, "Dates: d\r\nDat: d\r\nResent-Date: d\r\nMessage-IDs: m\r\n\r\n.\r\n",
		    "Dates: d\nDat: d\nResent-Date: d\nMessage-IDs: m\n" BOTH "\n" },
		{ ADD, "A: b\r\n Date: d\r\n\tMessage-ID: m\r\n \r\n\r\nc\r\n.\r\n",
		    "A: b\n Date: d\n\tMessage-ID: m\n \n" BOTH "\nc\n" },
		/* a header without a body, a body without a header, nothing */
		{ ADD, "A: b\r\n.\r\n", "A: b\n" BOTH },
		{ ADD | BDAT, "A: b", "A: b\n" BOTH },
		{ ADD | BDAT, "A", BOTH "\nA\n" },
		{ ADD, ".\r\n", BOTH },
		{ ADD | BDAT, "", BOTH },
		{ ADD, "\r\nc\r\n.\r\n", BOTH "\nc\n" },
		{ ADD, "hello, world: c\r\n.\r\n", BOTH "\nhello, world: c\n" },
		{ ADD, "hello\r\nDate: d\r\n.\r\n", BOTH "\nhello\nDate: d\n" },
		{ ADD, " A: b\r\n.\r\n", BOTH "\n A: b\n" },
		{ ADD, ": b\r\n.\r\n", BOTH "\n: b\n" },
		{ ADD, "\xc3\xbc: b\r\n.\r\n", BOTH "\n\xc3\xbc: b\n" },
		{ ADD, "A: \xc3\xbc\r\n.\r\n", "A: \xc3\xbc\n" BOTH },
		{ ADD, "A b: c\r\n.\r\n", BOTH "\nA b: c\n" },
		{ ADD, "From me Mon Nov 21\r\nDate: d\r\n.\r\n", BOTH "\nFrom me Mon Nov 21\nDate: d\n" },
		/* a line that is no field ends the header, and is parted from it */
		{ ADD, "A: b\r\nhello\r\n.\r\n", "A: b\n" BOTH "\nhello\n" },
		{ ADD_DATE, "Date: b\r\nhello\r\n.\r\n", "Date: b\nhello\n" },
		{ ADD, "Date: d\r\nMessage-ID: m\r\nhello\r\n\r\n.\r\n", "Date: d\nMessage-ID: m\nhello\n\n" },
		{ ADD, "A: b\r\n..c\r\n.\r\n", "A: b\n" BOTH "\n.c\n" },
		/* a first line that would go on with the trace lines before it */
		{ 0, " b: c\r\nD: e\r\n.\r\n", "\n b: c\nD: e\n" },
		{ 0, "\tb\r\n.\r\n", "\n\tb\n" },
		{ 0, " \r\n\r\n.\r\n", "\n \n\n" },
		{ 0, ". b\r\n.\r\n", "\n b\n" },
		{ 0, "\vb\r\n.\r\n", "\n\vb\n" },
		{ BDAT, " b", "\n b\n" },
		{ LENIENT, " b\n\r\n.\r\n", "\n b\n\n" },
		{ 0, "A: b\r\n c\r\n.\r\n", "A: b\n c\n" },
		{ 0, "A\r\n b\r\n.\r\n", "A\n b\n" },
		{ ADD_DATE, "Date: b\r\n c\r\n.\r\n", "Date: b\n c\n" },
		{ 0, "A: b\r\n\vc\r\n.\r\n", "A: b\n\vc\n" },
		/* long first lines and names */
		{ ADD, X78 ": b\r\n.\r\n", X78 ": b\n" BOTH },
		{ ADD, X78 "x: b\r\n.\r\n", BOTH "\n" X78 "x: b\n" },
		{ ADD, X78 X78 X78 "\r\n.\r\n", BOTH "\n" X78 X78 X78 "\n" },
		{ ADD, "A: " X78 X78 "\r\n.\r\n", "A: " X78 X78 "\n" BOTH },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		size_t len = strlen(t[i].in);

		expect(t[i].flags, 0, t[i].in, len, BODY_FINE, t[i].out, strlen(t[i].out), !(t[i].flags & BDAT), len);
	}
}

static void
test_hops(void **state)
{
	static const struct {
		const char *line;
		int counts;
	} t[] = {
		{ "Received: a\r\n", 1 },
		{ "rECEIVED:\r\n", 1 },
		{ "Delivered-To: a\r\n", 1 },
		{ "received-spf: a\r\n", 1 }, /* as qmail-smtpd counts */
		{ "X-Received: a\r\n", 0 },
		{ "Receive: a\r\n", 0 },
		{ "A: b\r\n Received: a\r\n", 0 },
		{ "\r\nReceived: a\r\n", 0 },
		{ "Received a\r\n", 0 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		for (unsigned n = HOPS_MAX - 1; n <= HOPS_MAX; n++) {
			struct result *r = &result;

			begin(r, 0, 0);
			for (unsigned k = 0; k < n; k++) {
				piece(r, t[i].line, strlen(t[i].line));
			}
			piece(r, "\r\n.\r\n", 5);
			body_finish(&r->b);
			assert_int_equal(r->b.fault, t[i].counts && n == HOPS_MAX ? BODY_LOOP : BODY_FINE);
			assert_int_equal(r->b.hops, t[i].counts ? n : 0);
			assert_int_equal(r->b.done, 1);
		}
	}
}

static void
test_size(void **state)
{
	static const struct {
		int flags;
		const char *in;
		uint64_t octets; /* after CRLF -> LF, without stuffing, end and added fields */
	} t[] = {
		{ 0, "A: b\r\n\r\n..c\r\nd\r\n.\r\n", 11 },
		{ ADD, "A: b\r\n\r\n..c\r\nd\r\n.\r\n", 11 },
		{ ADD, "hello\r\n.\r\n", 6 },
		{ BDAT | ADD, "A: b\r\n\r\n..c\r\nd", 12 },
		{ 0, "\r\n.\r\n", 1 },
		{ LENIENT, "a\n\r\n.\r\n", 3 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		size_t len = strlen(t[i].in);
		struct result *r = &result;

		for (size_t cut = 0; cut <= len; cut++) {
			feed(r, t[i].flags, t[i].octets, t[i].in, len, cut);
			assert_int_equal(r->b.fault, BODY_FINE);
			assert_int_equal(r->b.octets, t[i].octets);
			feed(r, t[i].flags, 0, t[i].in, len, cut);
			assert_int_equal(r->b.fault, BODY_FINE);
			if (t[i].octets > 1) {
				feed(r, t[i].flags, t[i].octets - 1, t[i].in, len, cut);
				assert_int_equal(r->b.fault, BODY_TOO_BIG);
				assert_int_equal(r->used, len);
			}
		}
	}
	/* The first fault counts. */
	feed(&result, 0, 3, S("a\nbcdef\r\n.\r\n"), 0);
	assert_int_equal(result.b.fault, BODY_BARE);
	/* But for this one, which is told whatever came before: it must not depend on how the octets came in. */
	feed(&result, 0, 3, S("abcdef\ng\r\n.\r\n"), 0);
	assert_int_equal(result.b.fault, BODY_BARE);
	feed(&result, 0, 3, S("abcdef\ng\r\n.\r\n"), 3);
	assert_int_equal(result.b.fault, BODY_BARE);
	feed(&result, 0, 8, S("\r\nabcdefgh\0ij\r\n.\r\n"), 0);
	assert_int_equal(result.b.fault, BODY_BARE);
	feed(&result, 0, 8, S("\r\nabcdefgh\0ij\r\n.\r\n"), 4);
	assert_int_equal(result.b.fault, BODY_BARE);
}

/* More than the buffer holds, with lines that end at, before and behind its end. */
static void
test_buffer(void **state)
{
	static char text[2 * BODY_BUFFER + 64], want[2 * BODY_BUFFER + 64];
	struct result *r = &result;

	(void)state;
	for (size_t first = BODY_BUFFER - 4; first <= BODY_BUFFER + 2; first++) {
		size_t len = first, n = first;

		memset(text, 'x', first);
		memset(want, 'x', first);
		memcpy(text + len, "\r\n..", 4);
		memcpy(want + n, "\n.", 2);
		len += 4;
		n += 2;
		memset(text + len, 'y', BODY_BUFFER + 8);
		memset(want + n, 'y', BODY_BUFFER + 8);
		len += BODY_BUFFER + 8;
		n += BODY_BUFFER + 8;
		memcpy(text + len, "\r\n.\r\n", 5);
		memcpy(want + n, "\n", 1);
		feed(r, 0, 0, text, len + 5, 7);
		assert_int_equal(r->b.fault, BODY_FINE);
		assert_int_equal(r->len, n + 1);
		assert_memory_equal(r->out, want, n + 1);
		assert_int_equal(r->b.octets, n + 1);
		assert_int_equal(r->calls, 3);
		for (r->fail_at = 1; r->fail_at <= 3; r->fail_at++) {
			feed(r, 0, 0, text, len + 5, 7);
			assert_int_equal(r->b.fault, BODY_WRITE);
			assert_int_equal(r->b.error, ENOSPC);
			assert_int_equal(r->calls, r->fail_at);
			assert_int_equal(r->b.done, 1);
			assert_int_equal(r->used, len + 5);
		}
		r->fail_at = 0;
	}
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_all_short_strings),
		cmocka_unit_test(test_missing_fields),
		cmocka_unit_test(test_hops),
		cmocka_unit_test(test_size),
		cmocka_unit_test(test_buffer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
