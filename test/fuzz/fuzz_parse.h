/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* The grammar again, the other way round: what fuzz_parse.c compares parse.c with. */
#ifndef MAILSTILE_TEST_FUZZ_PARSE_H
#define MAILSTILE_TEST_FUZZ_PARSE_H

#include "fuzz.h"
#include "parse.h"
#include "str.h"

static void
fuzz_check_address(const char *s, size_t len, int utf8)
{
	CHECK(len <= SMTP_PATH_MAX - 2 && utf8_valid(s, len));
	for (size_t i = 0; i < len; i++) {
		CHECK((uint8_t)s[i] >= 32 && s[i] != 127 && (s[i] >= 0 || utf8));
	}
}

/* Write a mailbox as a path with a quoted local part. `to` has room for each octet escaped. Returns the length. */
static size_t
fuzz_quote(char *to, const struct mailbox *m)
{
	const char *at = memrchr(m->text, '@', m->len);
	size_t local = at == NULL ? m->len : (size_t)(at - m->text);
	struct buf b;

	buf_init(&b, to, (size_t)3 * SMTP_PATH_MAX);
	buf_str(&b, "<\"");
	for (size_t i = 0; i < local; i++) {
		if (m->text[i] == '"' || m->text[i] == '\\') {
			buf_ch(&b, '\\');
		}
		buf_ch(&b, m->text[i]);
	}
	buf_ch(&b, '"');
	buf_add(&b, m->text + local, m->len - local);
	buf_ch(&b, '>');
	CHECK(!b.full);
	return b.len;
}

static void
fuzz_path(unsigned how, const char *s, size_t len)
{
	char quoted[3 * SMTP_PATH_MAX];
	struct mailbox m, again;
	size_t used, n;
	enum parse_result r = parse_path(s, len, how & 1, how & 2, how & 4, &m, &used);

	CHECK(used <= len && m.len < sizeof m.text && m.text[m.len] == '\0');
	if (r != PARSE_OK || m.len == 0) {
		CHECK(r != PARSE_OK || (how & 1) != 0);
		return;
	}
	fuzz_check_address(m.text, m.len, how & 4);
	/* Written with quotes, it is taken again as the same address. */
	n = fuzz_quote(quoted, &m);
	CHECK(parse_path(quoted, n, 0, how & 2, how & 4, &again, &used) == PARSE_OK && used == n);
	CHECK(again.len == m.len && memcmp(again.text, m.text, m.len) == 0);
}

/* Is s[0..len) the one base64 text for p[0..n)? */
static int
fuzz_base64_is(const char *s, size_t len, const uint8_t *p, size_t n)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

	if (len != (n + 2) / 3 * 4) {
		return 0;
	}
	for (size_t i = 0; i < len; i++) {
		size_t at = i / 4 * 3;
		uint32_t v =
		    (uint32_t)p[at] << 16 | (at + 1 < n ? (uint32_t)p[at + 1] << 8 : 0) | (at + 2 < n ? p[at + 2] : 0);
		char want = at + i % 4 > n ? '=' : digits[v >> (18 - 6 * (i % 4)) & 63];

		if (s[i] != want) {
			return 0;
		}
	}
	return 1;
}

/* RFC 3461 4, and "<>". */
static int
fuzz_is_xtext(const char *s, size_t len)
{
	static const char hex[] = "0123456789ABCDEF";
	size_t i = 0;

	while (i < len && s[i] > 32 && s[i] < 127 && s[i] != '=') {
		if (s[i] == '+' &&
		    (len - i < 3 || memchr(hex, s[i + 1], 16) == NULL || memchr(hex, s[i + 2], 16) == NULL)) {
			return 0;
		}
		i += s[i] == '+' ? 3 : 1;
	}
	return (len > 0 && i == len) || (len == 2 && memcmp(s, "<>", 2) == 0);
}

#endif
