/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* What a next hop says and is told: peer.c. Input is copied to the heap first, so that AddressSanitizer sees every octet read too many. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "peer.h"
#include "unit.h"

static struct peer_reply reply;
static struct peer_ehlo ehlo;

/* Feed a text in pieces of `step` octets. Returns how many octets were taken, and *done. */
static size_t
hear(const char *s, size_t len, size_t step, struct peer_ehlo *e, int *done)
{
	size_t at = 0, n;

	*done = 0;
	peer_reply_begin(&reply, e);
	while (at < len && !*done) {
		size_t piece = len - at < step ? len - at : step;
		uint8_t *copy = malloc(piece);

		assert_got(copy);
		memcpy(copy, s + at, piece);
		n = peer_reply_take(&reply, copy, piece, done);
		free(copy);
		assert_in_range(n, *done ? 1 : piece, piece);
		at += n;
	}
	assert_int_equal(strlen(reply.text), reply.text_len);
	return at;
}

static void
test_replies(void **state)
{
	static const struct {
		const char *said;
		int code, bad;
		const char *text;
		size_t rest; /* octets that are not taken */
	} t[] = {
		{ "250 ok\r\n", 250, 0, "250 ok\n", 0 },
		{ "250 ok\r\n250 next\r\n", 250, 0, "250 ok\n", 10 },
		{ "250\r\n", 250, 0, "250\n", 0 },
		{ "250 \r\n", 250, 0, "250\n", 0 },
		{ "250 ok\n", 250, 0, "250 ok\n", 0 },
		{ "250-a\r\n250-\r\n250 b\r\n", 250, 0, "250-a\n250-\n250 b\n", 0 },
		{ "250-a\r\n250\r\n", 250, 0, "250-a\n250\n", 0 },
		{ "550 \t\x01\x7f\x80\xff\r\r\n", 550, 0, "550 ?????\n", 0 },
		{ "550 a\rb\r\n", 550, 0, "550 a?b\n", 0 },
		{ "299 x\r\n", 299, 0, "299 x\n", 0 },
		{ "599 x\r\n", 599, 0, "599 x\n", 0 },
		{ "199 x\r\n", 0, 1, "", 0 },
		{ "600 x\r\n", 0, 1, "", 0 },
		{ "25 x\r\n", 0, 1, "", 0 },
		{ "2500 x\r\n", 0, 1, "", 0 },
		{ "250_x\r\n", 0, 1, "", 0 },
		{ " 250 x\r\n", 0, 1, "", 0 },
		{ "\r\n", 0, 1, "", 0 },
		{ "\n", 0, 1, "", 0 },
		{ "ab", 0, 0, "", 0 },
		{ "250-a\r\n251 b\r\n", 250, 1, "250-a\n", 0 },
		{ "250-a\r\n\r\n", 250, 1, "250-a\n", 0 },
		{ "250-a\r\n", 250, 0, "250-a\n", 0 },
	};
	int done;

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		size_t len = strlen(t[i].said);

		for (size_t step = 1; step <= len; step++) {
			assert_int_equal(hear(t[i].said, len, step, NULL, &done), len - t[i].rest);
			assert_int_equal(reply.bad, t[i].bad);
			assert_true(
			    done || (!reply.bad && t[i].said[len - 1] != '\n') || strcmp(t[i].said, "250-a\r\n") == 0);
			if (!reply.bad) {
				assert_int_equal(reply.code, t[i].code);
				assert_string_equal(reply.text, t[i].text);
			}
		}
	}
}

static void
test_limits(void **state)
{
	static char text[64 * 1024];
	struct buf b;
	int done;

	(void)state;
	/* The longest line. Its end is not counted. */
	for (size_t n = PEER_LINE_MAX - 1; n <= PEER_LINE_MAX + 1; n++) {
		buf_init(&b, text, sizeof text);
		buf_str(&b, "250 ");
		while (b.len < n) {
			buf_ch(&b, 'x');
		}
		buf_str(&b, "\n");
		hear(text, b.len, 777, NULL, &done);
		assert_true(done);
		assert_int_equal(reply.bad, n > PEER_LINE_MAX);
		if (!reply.bad) {
			assert_int_equal(reply.text_len, sizeof reply.line + 1);
		}
	}
	/* The most lines; a text that is full stays within its bounds, and ends in LF. */
	for (unsigned n = PEER_LINES_MAX - 1; n <= PEER_LINES_MAX + 1; n++) {
		for (unsigned width = 0; width < 20; width++) {
			buf_init(&b, text, sizeof text);
			for (unsigned i = 0; i < n; i++) {
				buf_fmt(
				    &b, "450%c%.*s\r\n", i + 1 == n ? ' ' : '-', (int)width, "abcdefghijklmnopqrst");
			}
			hear(text, b.len, 999, NULL, &done);
			assert_true(done);
			assert_int_equal(reply.bad, n > PEER_LINES_MAX);
			assert_in_range(reply.text_len, 1, PEER_TEXT_MAX + 1);
			assert_int_equal(reply.text[reply.text_len - 1], '\n');
		}
	}
	/* A peer that never ends its line is done with after so much. */
	memset(text, '2', sizeof text);
	assert_int_equal(hear(text, sizeof text, 1000, NULL, &done), PEER_LINE_MAX + 1);
	assert_true(done && reply.bad);
}

static void
test_keywords(void **state)
{
	static const struct {
		const char *said;
		unsigned keywords;
		uint64_t size;
	} t[] = {
		{ "250 x\r\n", 0, 0 },
		{ "250 PIPELINING\r\n", 0, 0 },
		{ "250-PIPELINING\r\n250 x\r\n", 0, 0 },
		{ "250-x\r\n250 PIPELINING\r\n", PEER_PIPELINING, 0 },
		{ "250-x\r\n250-pipelining\r\n250-8bitMIME\r\n250-SmtpUtf8\r\n250 starttls\r\n",
		    PEER_PIPELINING | PEER_8BITMIME | PEER_SMTPUTF8 | PEER_STARTTLS, 0 },
		{ "250-x\r\n250-SIZE\r\n250 y\r\n", PEER_SIZE, 0 },
		{ "250-x\r\n250-SIZE 10240000\r\n250 y\r\n", PEER_SIZE, 10240000 },
		{ "250-x\r\n250 SIZE 18446744073709551615\r\n", PEER_SIZE, UINT64_MAX },
		{ "250-x\r\n250 SIZE 18446744073709551616\r\n", PEER_SIZE, 0 },
		{ "250-x\r\n250 SIZE -1\r\n", PEER_SIZE, 0 },
		{ "250-x\r\n250 SIZE  1\r\n", PEER_SIZE, 0 },
		{ "250-x\r\n250-SIZES 5\r\n250-XPIPELINING\r\n250 PIPELININGX\r\n", 0, 0 },
		{ "250-x\r\n250 AUTH PLAIN LOGIN\r\n", PEER_AUTH_PLAIN | PEER_AUTH_LOGIN, 0 },
		{ "250-x\r\n250 AUTH=LOGIN\r\n", PEER_AUTH_LOGIN, 0 },
		{ "250-x\r\n250 auth cram-md5  plain\r\n", PEER_AUTH_PLAIN, 0 },
		{ "250-x\r\n250 AUTH CRAM-MD5 XPLAIN PLAINX LOGIN-2\r\n", 0, 0 },
		{ "250-x\r\n250 AUTH\r\n", 0, 0 },
		{ "250-x\r\n250-\r\n250-S\r\n250 PIPELININ\r\n", 0, 0 },
	};
	int done;

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		ehlo.keywords = 12345;
		ehlo.size = 1;
		hear(t[i].said, strlen(t[i].said), 7, &ehlo, &done);
		assert_true(done && !reply.bad);
		assert_int_equal(ehlo.keywords, t[i].keywords);
		assert_int_equal(ehlo.size, t[i].size);
	}
}

static void
test_classes(void **state)
{
	(void)state;
	for (int code = 200; code < 600; code++) {
		assert_int_equal(peer_class(code, '2'), code >= 500 ? 'D' : code >= 400 ? 'Z' : code < 300 ? 'K' : 0);
		assert_int_equal(peer_class(code, '3'), code >= 500 ? 'D' : code >= 400 ? 'Z' : code >= 300 ? 'K' : 0);
	}
	assert_int_equal(peer_class(0, '2'), 0);
}

static void
test_paths(void **state)
{
	static const struct {
		const char *addr, *path; /* NULL: cannot be said */
	} t[] = {
		{ "", "" },
		{ "bob@example.org", "bob@example.org" },
		{ "bob", "bob" },
		{ "@example.org", "\"\"@example.org" },
		{ "a.b@x", "a.b@x" },
		{ ".a@x", "\".a\"@x" },
		{ "a.@x", "\"a.\"@x" },
		{ ".@x", "\".\"@x" },
		{ "a..b@x", "\"a..b\"@x" },
		{ "a@b@x", "\"a@b\"@x" },
		{ "a b@x", "\"a b\"@x" },
		{ "a\"b\\c@x", "\"a\\\"b\\\\c\"@x" },
		{ "(a)@x", "\"(a)\"@x" },
		{ "a,b;c:d<e>f[g]@x", "\"a,b;c:d<e>f[g]\"@x" },
		{ "!#$%&'*+-/=?^_`{|}~@x", "!#$%&'*+-/=?^_`{|}~@x" },
		{ "gr\xc3\xbc@x", "gr\xc3\xbc@x" },
		{ "a@[192.0.2.1]", "a@[192.0.2.1]" },
		{ "a@[IPv6:2001:db8::1]", "a@[IPv6:2001:db8::1]" },
		{ "#@[]", "#@[]" },
		{ "a@", "a@" },
		{ "a\nb@x", NULL },
		{ "a\rb@x", NULL },
		{ "a\tb@x", NULL },
		{ "a\x7f@x", NULL },
		{ "a@x\r\n", NULL },
		{ "a@x y", NULL },
		{ "a@x>", NULL },
		{ "a@<x", NULL },
		{ "a@x\"", NULL },
		{ "a@x\\", NULL },
		{ "a@x(y)", NULL },
		{ "a@x,y", NULL },
	};
	char mem[64];
	struct buf b;

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		char *copy = strdup(t[i].addr);

		buf_init(&b, mem, sizeof mem);
		assert_int_equal(peer_path(&b, copy), t[i].path == NULL ? -1 : 0);
		assert_false(b.full);
		assert_string_equal(buf_cstr(&b), t[i].path == NULL ? "" : t[i].path);
		free(copy);
	}
	assert_true(peer_is_8bit("a\x80") && peer_is_8bit("\xff") && !peer_is_8bit("") && !peer_is_8bit("a\x7f~"));
}

/* Encode in pieces of `step`. */
static size_t
encode(const char *s, size_t len, size_t step, int bdat, uint8_t *out)
{
	struct peer_body body = { .bdat = bdat };
	size_t n = 0;

	for (size_t at = 0; at < len; at += step) {
		size_t piece = len - at < step ? len - at : step, k;
		uint8_t *in_ = malloc(piece), *to = malloc(2 * piece);

		assert_non_null(in_);
		assert_non_null(to);
		memcpy(in_, s + at, piece);
		k = peer_body(&body, in_, piece, to);
		assert_in_range(k, 0, 2 * piece);
		memcpy(out + n, to, k);
		n += k;
		free(in_);
		free(to);
	}
	return n + peer_body_end(&body, out + n);
}

static void
test_body(void **state)
{
	static const struct {
		const char *in, *out;
	} t[] = {
		{ "", ".\r\n" },
		{ "a\n", "a\r\n.\r\n" },
		{ "a", "a\r\n.\r\n" },
		{ "\n", "\r\n.\r\n" },
		{ ".", "..\r\n.\r\n" },
		{ ".\n", "..\r\n.\r\n" },
		{ "a\n.\nb", "a\r\n..\r\nb\r\n.\r\n" },
		{ "a.b\n..c\n", "a.b\r\n...c\r\n.\r\n" },
		{ "a\r\nb\r\n", "a\r\nb\r\n.\r\n" },
		{ "a\rb", "a\r\nb\r\n.\r\n" },
		{ "a\r", "a\r\n.\r\n" },
		{ "a\r\r\n", "a\r\n\r\n.\r\n" },
		{ "a\r\n\n", "a\r\n\r\n.\r\n" },
		{ "a\n\r", "a\r\n\r\n.\r\n" },
		{ "a\r.\r", "a\r\n..\r\n.\r\n" },
		{ "a\r.\n", "a\r\n..\r\n.\r\n" },
		{ "a\n.\rMAIL", "a\r\n..\r\nMAIL\r\n.\r\n" },
	};
	uint8_t out[64];

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		for (size_t step = 1; step < 12; step++) {
			size_t n = encode(t[i].in, strlen(t[i].in), step, 0, out), k = 0, stop = strlen(t[i].out) - 3;
			char plain[64];

			assert_int_equal(n, strlen(t[i].out));
			assert_memory_equal(out, t[i].out, n);
			/* By BDAT the same lines, without what is there for dots. */
			for (size_t at = 0; at < stop; at++) {
				if (t[i].out[at] != '.' || (at > 0 && t[i].out[at - 1] != '\n')) {
					plain[k++] = t[i].out[at];
				}
			}
			n = encode(t[i].in, strlen(t[i].in), step, 1, out);
			assert_int_equal(n, k);
			assert_memory_equal(out, plain, n);
		}
	}
}

static void
test_base64(void **state)
{
	static const char *const t[] = { "", "", "f", "Zg==", "fo", "Zm8=", "foo", "Zm9v", "foob", "Zm9vYg==", "fooba",
		"Zm9vYmE=", "foobar", "Zm9vYmFy", "\xff\xfe\xfd", "//79" };
	char mem[32];
	struct buf b;

	(void)state;
	for (size_t i = 0; i < COUNT(t); i += 2) {
		buf_init(&b, mem, sizeof mem);
		peer_base64(&b, t[i], strlen(t[i]));
		assert_string_equal(buf_cstr(&b), t[i + 1]);
	}
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_replies),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_keywords),
		cmocka_unit_test(test_classes),
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_body),
		cmocka_unit_test(test_base64),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
