/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The SMTP grammar that needs more than a glance: paths, HELO names, SASL. Octets in, structures out; no I/O, no state. Everything here
 * is fed by strangers and runs in the smtp process only.
 */
#include "parse.h"

#include "str.h"

#include <string.h>

static int
is_atext(int c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || ascii_isdigit(c) ||
	    (c != 0 && c < 128 && strchr("!#$%&'*+-/=?^_`{|}~", c) != NULL);
}

static int
is_let_dig(int c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || ascii_isdigit(c);
}

/* A cursor over the input; every read is checked. */
struct cursor {
	const uint8_t *p;
	size_t pos, len;
	int utf8;     /* octets from 128 up are allowed */
	int saw_high; /* and one was seen where they are not */
};

static int
peek(const struct cursor *c)
{
	return c->pos < c->len ? c->p[c->pos] : -1;
}

static int
take(struct cursor *c, int want)
{
	if (peek(c) != want) {
		return 0;
	}
	c->pos++;
	return 1;
}

/* Is this octet a non-ASCII one that may stand here? */
static int
high_ok(struct cursor *c, int ch)
{
	if (ch < 128) {
		return 0;
	}
	if (!c->utf8) {
		c->saw_high = 1;
	}
	return c->utf8;
}

static int
put(struct mailbox *m, int ch)
{
	/* The limits are checked afterwards; this only keeps us inside the array. */
	if (m->len >= sizeof m->text - 1) {
		return -1;
	}
	m->text[m->len++] = (char)ch;
	return 0;
}

/* Dot-string = Atom *("." Atom). We also let through what real clients send and every MTA takes: stray dots. */
static enum parse_result
local_dot_string(struct cursor *c, struct mailbox *m)
{
	size_t start = m->len;

	for (;;) {
		int ch = peek(c);

		if (ch == -1 || !(is_atext(ch) || ch == '.' || high_ok(c, ch))) {
			break;
		}
		if (put(m, ch) == -1) {
			return PARSE_LONG;
		}
		c->pos++;
	}
	return m->len > start ? PARSE_OK : PARSE_SYNTAX;
}

/* Quoted-string; stored without quotes and backslashes, as qmail keeps addresses. */
static enum parse_result
local_quoted(struct cursor *c, struct mailbox *m)
{
	for (;;) {
		int ch = peek(c);

		c->pos++;
		if (ch == '"') {
			return PARSE_OK;
		}
		if (ch == '\\') {
			ch = peek(c);
			c->pos++;
			if (ch < 32 || ch > 126) {
				return PARSE_SYNTAX;
			}
		} else if (ch < 32 || ch == 127 || (ch >= 128 && !high_ok(c, ch))) {
			return PARSE_SYNTAX;
		}
		if (put(m, ch) == -1) {
			return PARSE_LONG;
		}
	}
}

/* One label of a domain: letters, digits, hyphens inside (underscores, too: real hosts have them), or U-labels. */
static enum parse_result
domain_label(struct cursor *c, struct mailbox *m)
{
	size_t start = m->len;

	for (;;) {
		int ch = peek(c);

		if (ch == -1 || !(is_let_dig(ch) || ch == '_' || high_ok(c, ch) || (ch == '-' && m->len > start))) {
			break;
		}
		if (put(m, ch) == -1) {
			return PARSE_LONG;
		}
		c->pos++;
	}
	return m->len > start && m->text[m->len - 1] != '-' ? PARSE_OK : PARSE_SYNTAX;
}

/* address-literal: what is inside is only checked for its alphabet; nothing here connects to it. */
static enum parse_result
domain_literal(struct cursor *c, struct mailbox *m)
{
	size_t start = m->len;

	put(m, '[');
	for (;;) {
		int ch = peek(c);

		if (ch == -1 || !(is_let_dig(ch) || ch == '.' || ch == ':' || ch == '-')) {
			break;
		}
		if (put(m, ch) == -1) {
			return PARSE_LONG;
		}
		c->pos++;
	}
	if (!take(c, ']') || m->len == start + 1) {
		return PARSE_SYNTAX;
	}
	return put(m, ']') == -1 ? PARSE_LONG : PARSE_OK;
}

static enum parse_result
domain(struct cursor *c, struct mailbox *m)
{
	size_t start = m->len;
	enum parse_result r;

	if (take(c, '[')) {
		return domain_literal(c, m);
	}
	for (;;) {
		r = domain_label(c, m);
		if (r != PARSE_OK) {
			return r;
		}
		if (!take(c, '.')) {
			break;
		}
		if (put(m, '.') == -1) {
			return PARSE_LONG;
		}
	}
	return m->len - start > SMTP_DOMAIN_MAX ? PARSE_LONG : PARSE_OK;
}

/* A-d-l ":" — obsolete source routes are read and thrown away (RFC 5321 4.1.1.3). */
static enum parse_result
source_route(struct cursor *c)
{
	struct mailbox ignored;

	if (peek(c) != '@') {
		return PARSE_OK;
	}
	do {
		enum parse_result r;

		ignored.len = 0;
		if (!take(c, '@')) {
			return PARSE_SYNTAX;
		}
		r = domain(c, &ignored);
		if (r != PARSE_OK) {
			return r;
		}
	} while (take(c, ','));
	return take(c, ':') ? PARSE_OK : PARSE_SYNTAX;
}

static enum parse_result
mailbox(struct cursor *c, int bare_ok, struct mailbox *m)
{
	enum parse_result r = take(c, '"') ? local_quoted(c, m) : local_dot_string(c, m);

	if (r != PARSE_OK) {
		return r;
	}
	if (m->len > SMTP_LOCAL_MAX) {
		return PARSE_LONG;
	}
	if (!take(c, '@')) {
		/* Not `""`: that would be an empty recipient; nor `"a@b c"`: unquoted, its end would be taken for a domain. */
		return bare_ok && m->len > 0 && memchr(m->text, '@', m->len) == NULL ? PARSE_OK : PARSE_SYNTAX;
	}
	put(m, '@');
	return domain(c, m);
}

enum parse_result
parse_path(const char *s, size_t len, int null_ok, int bare_ok, int utf8, struct mailbox *m, size_t *used)
{
	struct cursor c = { .p = (const uint8_t *)s, .len = len, .utf8 = utf8 };
	enum parse_result r = PARSE_OK;
	int bracket = take(&c, '<');

	m->len = 0;
	if (bracket && null_ok && take(&c, '>')) {
		goto out;
	}
	if (bracket) {
		r = source_route(&c);
	}
	if (r == PARSE_OK) {
		r = mailbox(&c, bare_ok, m);
	}
	if (r == PARSE_OK && bracket && !take(&c, '>')) {
		r = PARSE_SYNTAX;
	}
	if (r == PARSE_OK && m->len > SMTP_PATH_MAX - 2) {
		/* The limit counts the brackets (RFC 5321 4.5.3.1.3). */
		r = PARSE_LONG;
	}
	if (c.saw_high || (r == PARSE_OK && !utf8_valid(m->text, m->len))) {
		r = PARSE_UTF8;
	}
out:
	m->text[m->len] = '\0';
	*used = c.pos < len ? c.pos : len;
	return r;
}

int
parse_helo(const char *s, size_t len)
{
	if (len == 0 || len > SMTP_DOMAIN_MAX) {
		return -1;
	}
	for (size_t i = 0; i < len; i++) {
		uint8_t c = (uint8_t)s[i];

		if (c <= 32 || c == 127) {
			return -1;
		}
	}
	return 0;
}

static int
base64_digit(int c)
{
	if (c >= 'A' && c <= 'Z') {
		return c - 'A';
	}
	if (c >= 'a' && c <= 'z') {
		return c - 'a' + 26;
	}
	if (ascii_isdigit(c)) {
		return c - '0' + 52;
	}
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

long
parse_base64(const char *s, size_t len, void *out, size_t cap)
{
	uint8_t *o = out;
	size_t n = 0;

	if (len % 4 != 0) {
		return -1;
	}
	for (size_t i = 0; i < len; i += 4) {
		int pad = i + 4 == len ? (s[i + 3] == '=') + (s[i + 3] == '=' && s[i + 2] == '=') : 0;
		uint32_t v = 0;

		for (size_t k = 0; k < 4; k++) {
			int d = k >= (size_t)(4 - pad) ? 0 : base64_digit(s[i + k]);

			if (d < 0) {
				return -1;
			}
			v = v << 6 | (uint32_t)d;
		}
		/* Bits that padding says are not there must be zero. */
		if ((pad == 1 && (v & 0xff) != 0) || (pad == 2 && (v & 0xffff) != 0) || cap - n < (size_t)(3 - pad)) {
			return -1;
		}
		for (int k = 0; k < 3 - pad; k++) {
			o[n++] = (uint8_t)(v >> (16 - 8 * k));
		}
	}
	return (long)n;
}

int
parse_plain(const char *p, size_t len, struct sasl_plain *out)
{
	const char *first = memchr(p, '\0', len);
	const char *second;

	if (first == NULL) {
		return -1;
	}
	out->authzid = p;
	out->authzid_len = (size_t)(first - p);
	out->user = first + 1;
	second = memchr(out->user, '\0', len - out->authzid_len - 1);
	if (second == NULL) {
		return -1;
	}
	out->user_len = (size_t)(second - out->user);
	out->pass = second + 1;
	out->pass_len = len - out->authzid_len - out->user_len - 2;
	return memchr(out->pass, '\0', out->pass_len) == NULL ? 0 : -1;
}

int
parse_login_ok(const char *user, size_t user_len, const char *pass, size_t pass_len)
{
	if (user_len == 0 || user_len > AUTH_USER_MAX || pass_len == 0 || pass_len > AUTH_PASSWORD_MAX) {
		return 0;
	}
	for (size_t i = 0; i < user_len; i++) {
		uint8_t c = (uint8_t)user[i];

		if (c < 32 || c == 127) {
			return 0;
		}
	}
	return utf8_valid(user, user_len) && memchr(pass, '\0', pass_len) == NULL;
}

int
parse_xtext(const char *s, size_t len)
{
	if (len == 2 && memcmp(s, "<>", 2) == 0) {
		return 1;
	}
	for (size_t i = 0; i < len; i++) {
		int c = (uint8_t)s[i];

		if (c == '+') {
			for (size_t k = i + 1; k < i + 3; k++) {
				if (k >= len || !(ascii_isdigit(s[k]) || (s[k] >= 'A' && s[k] <= 'F'))) {
					return 0;
				}
			}
			i += 2;
		} else if (c < 33 || c > 126 || c == '=') {
			return 0;
		}
	}
	return len > 0;
}
