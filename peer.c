/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Octets of a next hop in, facts out; and what goes to it. Nothing here waits, reads or sends. The peer is a stranger: what it says is
 * bounded, and cleaned before anybody sees it; what we say to it comes out of envelopes and messages that other strangers wrote, so
 * nothing in them may end a command, a line or the message.
 */
#include "peer.h"

#include "config.h"

#include <string.h>

#if RELAY

/* ---- replies ---- */

void
peer_reply_begin(struct peer_reply *r, struct peer_ehlo *ehlo)
{
	r->code = r->bad = 0;
	r->lines = 0;
	r->line_len = r->text_len = 0;
	r->text[0] = '\0';
	r->ehlo = ehlo;
	if (ehlo != NULL) {
		ehlo->keywords = 0;
		ehlo->size = 0;
	}
}

/* Is s[0..len) the word, in any case, and is that its end? */
static int
word_is(const char *s, size_t len, const char *word)
{
	size_t n = strlen(word);

	return len >= n && ascii_casecmp(s, word, n) == 0 && (len == n || s[n] == ' ' || s[n] == '=');
}

static void
auth_mechanisms(struct peer_ehlo *e, const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (i == 0 || s[i - 1] == ' ') {
			e->keywords |= word_is(s + i, len - i, "PLAIN") ? PEER_AUTH_PLAIN : 0;
			e->keywords |= word_is(s + i, len - i, "LOGIN") ? PEER_AUTH_LOGIN : 0;
		}
	}
}

static void
ehlo_line(struct peer_ehlo *e, const char *s, size_t len)
{
	static const struct {
		const char *word;
		unsigned keyword;
	} words[] = {
		{ "PIPELINING", PEER_PIPELINING },
		{ "SIZE", PEER_SIZE },
		{ "8BITMIME", PEER_8BITMIME },
		{ "SMTPUTF8", PEER_SMTPUTF8 },
		{ "STARTTLS", PEER_STARTTLS },
#if REMOTE_CHUNKING
		{ "CHUNKING", PEER_CHUNKING },
#endif
	};

	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
		if (word_is(s, len, words[i].word)) {
			e->keywords |= words[i].keyword;
			if (words[i].keyword == PEER_SIZE && len > 5) {
				uint64_t n;

				e->size = parse_u64(s + 5, len - 5, UINT64_MAX, &n) == 0 ? n : 0;
			}
		}
	}
	/* "AUTH=" was written before there was a standard, and some still do. */
	if (word_is(s, len, "AUTH") && len > 5) {
		auth_mechanisms(e, s + 5, len - 5);
	}
}

/* A line is complete. 1: it was the last one. */
static int
line_end(struct peer_reply *r)
{
	size_t len = r->line_len < sizeof r->line ? r->line_len : sizeof r->line;
	const char *s = r->line;
	int code;

	while (len > 0 && (s[len - 1] == '\r' || s[len - 1] == ' ')) {
		len--;
	}
	r->line_len = 0;
	code = len < 3 ? 0 : (s[0] - '0') * 100 + (s[1] - '0') * 10 + s[2] - '0';
	if (len < 3 || s[0] < '2' || s[0] > '5' || !ascii_isdigit(s[1]) || !ascii_isdigit(s[2]) ||
	    (len > 3 && s[3] != ' ' && s[3] != '-') || (r->lines > 0 && code != r->code) ||
	    ++r->lines > PEER_LINES_MAX) {
		r->bad = 1;
		return 1;
	}
	r->code = code;
	if (r->ehlo != NULL && r->lines > 1 && len > 4) {
		ehlo_line(r->ehlo, s + 4, len - 4);
	}
	for (size_t i = 0; i < len && r->text_len < PEER_TEXT_MAX; i++) {
		r->text[r->text_len++] = s[i] >= ' ' && s[i] < 127 ? s[i] : '?';
	}
	if (r->text_len < PEER_TEXT_MAX || r->text[r->text_len - 1] != '\n') {
		r->text[r->text_len++] = '\n';
	}
	r->text[r->text_len] = '\0';
	return len == 3 || s[3] == ' ';
}

size_t
peer_reply_take(struct peer_reply *r, const uint8_t *p, size_t len, int *done)
{
	*done = 0;
	for (size_t i = 0; i < len; i++) {
		if (p[i] == '\n') {
			if (line_end(r)) {
				*done = 1;
				return i + 1;
			}
			continue;
		}
		if (r->line_len < sizeof r->line) {
			r->line[r->line_len] = (char)p[i];
		}
		if (++r->line_len > PEER_LINE_MAX) {
			r->bad = *done = 1;
			return i + 1;
		}
	}
	return len;
}

int
peer_class(int code, int good)
{
	if (code >= 500) {
		return 'D';
	}
	if (code >= 400) {
		return 'Z';
	}
	return code / 100 + '0' == good ? 'K' : 0;
}

/* ---- addresses ---- */

int
peer_is_8bit(const char *s)
{
	for (; *s != '\0'; s++) {
		if ((*s & 0x80) != 0) {
			return 1;
		}
	}
	return 0;
}

/* Must local[0..len) be quoted? Octets beyond ASCII need not be: whoever takes them (RFC 6531 3.3) takes them bare. */
static int
needs_quotes(const char *local, size_t len)
{
	if (len == 0 || local[0] == '.' || local[len - 1] == '.') {
		return 1;
	}
	for (size_t i = 0; i < len; i++) {
		if (strchr(" \"(),:;<>@[\\]", local[i]) != NULL || (local[i] == '.' && local[i + 1] == '.')) {
			return 1;
		}
	}
	return 0;
}

int
peer_path(struct buf *b, const char *addr)
{
	const char *at = strrchr(addr, '@');
	size_t len = at == NULL ? strlen(addr) : (size_t)(at - addr);
	const char *p;

	for (p = addr; *p != '\0'; p++) {
		/* A line feed here would be another command, and a blank or a bracket in the domain another parameter. */
		if ((uint8_t)*p < 32 || *p == 127 || (p > addr + len && strchr(" \"(),;<>\\", *p) != NULL)) {
			return -1;
		}
	}
	if (*addr == '\0' || !needs_quotes(addr, len)) {
		buf_str(b, addr);
		return 0;
	}
	buf_ch(b, '"');
	for (p = addr; p < addr + len; p++) {
		if (*p == '"' || *p == '\\') {
			buf_ch(b, '\\');
		}
		buf_ch(b, *p);
	}
	buf_ch(b, '"');
	buf_str(b, addr + len);
	return 0;
}

/* ---- the message ---- */

size_t
peer_body(struct peer_body *b, const uint8_t *p, size_t len, uint8_t *to)
{
	const uint8_t *end = p + len;
	uint8_t *q = to;
	int midline = b->midline, cr = b->cr;

	for (; p < end; p++) {
		uint8_t c = *p;

		if (c == '\n' || c == '\r') {
			/* The LF of a CRLF: its line has ended already. */
			if (c == '\r' || !cr) {
				*q++ = '\r';
				*q++ = '\n';
			}
			cr = c == '\r';
			midline = 0;
			continue;
		}
		if (c == '.' && !midline && !b->bdat) {
			*q++ = '.';
		}
		*q++ = c;
		midline = 1;
		cr = 0;
	}
	b->midline = midline;
	b->cr = cr;
	return (size_t)(q - to);
}

size_t
peer_body_end(const struct peer_body *b, uint8_t *to)
{
	size_t skip = b->midline ? 0 : 2, len = (b->bdat ? 2 : 5) - skip;

	memcpy(to, &"\r\n.\r\n"[skip], len);
	return len;
}

void
peer_base64(struct buf *b, const void *p, size_t len)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const uint8_t *s = p;

	for (size_t i = 0; i < len; i += 3) {
		uint32_t v =
		    (uint32_t)s[i] << 16 | (i + 1 < len ? (uint32_t)s[i + 1] << 8 : 0) | (i + 2 < len ? s[i + 2] : 0);
		char out[4] = { digits[v >> 18], digits[v >> 12 & 63], digits[v >> 6 & 63], digits[v & 63] };

		if (len - i < 3) {
			out[3] = '=';
			out[2] = len - i == 1 ? '=' : out[2];
		}
		buf_add(b, out, sizeof out);
	}
}

#endif
