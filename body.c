/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * A message on its way in. What is written has LF line ends and is otherwise what the client sent; fields that a submission
 * server adds (RFC 6409 section 8) go to the end of the header. Only CRLF ends a line and only CRLF.CRLF ends DATA (RFC 5321
 * 2.3.8, 4.1.1.4): anything else is a fault, found here and never repaired, since a line end that two servers see differently is
 * how a second message is smuggled in. The `inside` profile takes LF for a line end, but never for the end of the data.
 */
#include "body.h"

#include "str.h"

#include <string.h>

/* Where we are in the line. */
enum {
	AT_BOL,    /* at the start of a line */
	AT_DOT,    /* after a dot at the start of a line */
	AT_DOT_CR, /* and a CR after it */
	AT_TEXT,
	AT_CR,    /* after a CR in a line */
	AT_LF_BOL /* lenient: at the start of a line after a bare LF: a dot here is stuffing, never the end */
};

void
body_init(struct body *b, uint8_t *out)
{
	memset(b, 0, sizeof *b);
	b->out = out;
	b->state = AT_BOL;
	b->in_header = 1;
}

/* The first one counts, but a bare line end more than size: which of them is seen first depends on how the client's octets came in. */
static void
fault(struct body *b, enum body_fault f)
{
	if (b->fault == BODY_FINE || (f == BODY_BARE && b->fault == BODY_TOO_BIG)) {
		b->fault = f;
	}
}

static void
drain(struct body *b)
{
	int r;

	if (b->out_len == 0 || b->fault != BODY_FINE) {
		b->out_len = 0;
		return;
	}
	r = b->sink(b->ctx, b->out, b->out_len);
	b->out_len = 0;
	if (r != 0) {
		b->error = r;
		fault(b, BODY_WRITE);
	}
}

/* Put octets into the output without counting them. */
static void
emit(struct body *b, const void *p, size_t len)
{
	const uint8_t *s = p;

	while (len > 0 && b->fault == BODY_FINE) {
		size_t n = BODY_BUFFER - b->out_len;

		if (n > len) {
			n = len;
		}
		memcpy(b->out + b->out_len, s, n);
		b->out_len += n;
		s += n;
		len -= n;
		if (b->out_len == BODY_BUFFER) {
			drain(b);
		}
	}
}

static void
add_missing_fields(struct body *b)
{
	if (b->want_date && !b->have_date && b->date_field != NULL) {
		emit(b, b->date_field, strlen(b->date_field));
	}
	if (b->want_msgid && !b->have_msgid && b->msgid_field != NULL) {
		emit(b, b->msgid_field, strlen(b->msgid_field));
	}
}

/*
 * The header ends here. `blank`: at an empty line; otherwise before a line that belongs to no header, which may then need one. `folds`: the
 * line would go on with the line before it.
 */
static void
end_header(struct body *b, int blank, int folds)
{
	int missing = (b->want_date && !b->have_date) || (b->want_msgid && !b->have_msgid);

	if (!b->in_header) {
		return;
	}
	b->in_header = 0;
	if (missing) {
		add_missing_fields(b);
	}
	/* The line before a first line is the last trace line, which is our word and not the client's. */
	if (!blank && (missing || folds)) {
		emit(b, "\n", 1);
	}
}

/* The name of a header field is complete: the first `len` octets of b->hold. */
static void
field_seen(struct body *b, size_t len)
{
	const uint8_t *n = b->hold;

	/* qmail counts every field whose name begins so (qmail-spec 2.4). */
	if ((len >= 8 && ascii_casecmp(n, "received", 8) == 0) || (len >= 9 && ascii_casecmp(n, "delivered", 9) == 0)) {
		if (++b->hops >= HOPS_MAX) {
			fault(b, BODY_LOOP);
		}
	}
#if FROM_HEADER_CHECK
	b->in_author = len == 4 && ascii_casecmp(n, "from", 4) == 0;
	b->authors += (unsigned)b->in_author;
#endif
	if (len == 4 && ascii_casecmp(n, "date", 4) == 0) {
		b->have_date = 1;
	}
	if (len == 10 && ascii_casecmp(n, "message-id", 10) == 0) {
		b->have_msgid = 1;
	}
}

/* Let the start of the line go that was held back; the rest of it follows directly. */
static void
release(struct body *b)
{
	b->released = 1;
	emit(b, b->hold, b->hold_len);
}

/*
 * The start of a line in the header is held back until it is known for a field, a continuation, or neither: fields that are missing
 * must go in before a line that is neither. Returns how many octets were taken.
 */
static size_t
hold_line_start(struct body *b, const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		int c = p[i];

		if (b->hold_len == 0 && (c == ' ' || c == '\t') && b->fields > 0) {
			release(b); /* a continuation */
			return i;
		}
		if (c == ':' && b->hold_len > 0) {
			size_t name = b->hold_len;

			while (name > 0 && (b->hold[name - 1] == ' ' || b->hold[name - 1] == '\t')) {
				name--;
			}
			b->fields++;
			field_seen(b, name);
			release(b);
			return i;
		}
		/* A name is printable ASCII; white space may stand between it and the colon (RFC 5322 4.5). */
		if (b->hold_len == sizeof b->hold || c == ':' || c > 126 || (c < 33 && c != ' ' && c != '\t') ||
		    (c > 32 && b->hold_len > 0 && b->hold[b->hold_len - 1] <= ' ') || (c <= ' ' && b->hold_len == 0)) {
			end_header(b, 0, b->fields == 0 && b->hold_len == 0 && c <= ' ');
			release(b);
			return i;
		}
		b->hold[b->hold_len++] = (uint8_t)c;
	}
	return len;
}

static void
count(struct body *b, size_t len)
{
	b->octets += len;
	if (b->max != 0 && b->octets > b->max) {
		fault(b, BODY_TOO_BIG);
	}
}

static void
keep_author(struct body *b, const uint8_t *p, size_t len)
{
#if FROM_HEADER_CHECK
	size_t room = sizeof b->author - b->author_len;

	if (b->in_header && b->in_author && b->released) {
		len = len < room ? len : room;
		memcpy(b->author + b->author_len, p, len);
		b->author_len += len;
	}
#else
	(void)b;
	(void)p;
	(void)len;
#endif
}

/* Text of one line, without its end. */
static void
text(struct body *b, const uint8_t *p, size_t len)
{
	size_t n = 0;

	count(b, len);
	if (b->in_header && !b->released) {
		n = hold_line_start(b, p, len);
	}
	keep_author(b, p + n, len - n);
	emit(b, p + n, len - n);
}

static void
line_end(struct body *b)
{
	if (b->in_header && !b->released) {
		end_header(b, b->hold_len == 0, 0);
		release(b);
	}
	b->hold_len = 0;
	b->released = 0;
	count(b, 1);
	emit(b, "\n", 1);
}

/* Text from p on, up to the end of the line or of the input; at least one octet is used. */
static size_t
run(struct body *b, const uint8_t *p, size_t len)
{
	const uint8_t *lf = memchr(p, '\n', len);
	size_t seg = lf == NULL ? len : (size_t)(lf - p);
	const uint8_t *cr = memchr(p, '\r', seg);

	if (cr != NULL && (size_t)(cr - p) + 1 < seg) {
		fault(b, BODY_BARE); /* a CR in the middle */
	}
	if (memchr(p, '\0', seg) != NULL) {
		fault(b, BODY_BARE);
	}
	if (lf == NULL) {
		b->state = p[len - 1] == '\r' ? AT_CR : AT_TEXT;
		text(b, p, len - (b->state == AT_CR));
		return len;
	}
	if (seg > 0 && p[seg - 1] == '\r') {
		text(b, p, seg - 1);
		b->state = AT_BOL;
	} else {
		if (!b->lenient) {
			fault(b, BODY_BARE);
		}
		text(b, p, seg);
		b->state = AT_LF_BOL;
	}
	line_end(b);
	return seg + 1;
}

/* Use up the octet at p in one of the states around line ends. Returns 1 when it was used, 0 when it is text. */
static size_t
edge(struct body *b, int c)
{
	switch (b->state) {
	case AT_BOL:
	case AT_LF_BOL:
		if (c != '.' || !b->dots) {
			b->state = AT_TEXT;
			return 0;
		}
		b->state = b->state == AT_BOL ? AT_DOT : AT_TEXT;
		return 1;
	case AT_DOT:
		b->state = c == '\r' ? AT_DOT_CR : AT_TEXT;
		return c == '\r';
	case AT_DOT_CR:
		if (c == '\n') {
			b->done = 1;
			b->state = AT_BOL;
			return 1;
		}
		break;
	default: /* AT_CR */
		if (c == '\n') {
			line_end(b);
			b->state = AT_BOL;
			return 1;
		}
		break;
	}
	fault(b, BODY_BARE); /* a CR that no LF follows */
	b->state = AT_TEXT;
	return 0;
}

typedef unsigned long word;
#define EACH_OCTET ((word)-1 / 255) /* times c: c in each octet of a word */

/* Copy octets up to the first NUL, LF or CR, a word at a time. Returns how many. */
static size_t
copy_plain(uint8_t *out, const uint8_t *p, size_t len)
{
	size_t i = 0;

	for (;;) {
		word w;
		size_t stop;

		for (; len - i >= sizeof w; i += sizeof w) {
			memcpy(&w, p + i, sizeof w);
			if (((w - EACH_OCTET * ('\r' + 1)) & ~w & EACH_OCTET * 0x80) != 0) {
				break; /* some octet is not above CR: one of the three, or a TAB */
			}
			memcpy(out + i, &w, sizeof w);
		}
		for (stop = len - i < sizeof w ? len : i + sizeof w; i < stop; i++) {
			if (p[i] == '\r' || p[i] == '\n' || p[i] == '\0') {
				return i;
			}
			out[i] = p[i];
		}
		if (i == len) {
			return len;
		}
	}
}

/*
 * The bulk of a message: whole lines, and parts of them, in the body, as long as there is nothing to judge. Stops before what is not plain
 * text or a CRLF, and behind a CRLF that a dot or nothing follows. Returns how many octets were used.
 */
static size_t
bulk(struct body *b, const uint8_t *p, size_t len)
{
	size_t i = 0, begin;

	while (i < len && b->fault == BODY_FINE) {
		size_t room = BODY_BUFFER - b->out_len;

		begin = b->out_len;
		b->out_len += copy_plain(b->out + begin, p + i, len - i < room ? len - i : room);
		i += b->out_len - begin;
		if (b->out_len == BODY_BUFFER) {
			count(b, b->out_len - begin);
			drain(b);
			continue;
		}
		if (len - i < 2 || p[i] != '\r' || p[i + 1] != '\n') {
			count(b, b->out_len - begin);
			return i;
		}
		b->out[b->out_len++] = '\n';
		i += 2;
		count(b, b->out_len - begin);
		if (b->out_len == BODY_BUFFER) {
			drain(b);
		}
		if (i == len || p[i] == '.') {
			b->state = AT_BOL;
			return i;
		}
	}
	return i;
}

size_t
body_input(struct body *b, const uint8_t *p, size_t len)
{
	size_t i = 0;

	while (i < len && !b->done) {
		if (b->state == AT_TEXT && !b->in_header && b->fault == BODY_FINE) {
			size_t n = bulk(b, p + i, len - i);

			i += n;
			if (n > 0) {
				continue; /* look at the state again */
			}
		}
		if (b->state != AT_TEXT && edge(b, p[i]) == 1) {
			i++;
		} else if (!b->done) {
			i += run(b, p + i, len - i);
		}
	}
	return i;
}

void
body_finish(struct body *b)
{
	if (b->state == AT_CR || b->state == AT_DOT_CR) {
		fault(b, BODY_BARE);
	}
	if (b->state == AT_TEXT) {
		line_end(b); /* qmail-remote cannot deliver a message without a last LF */
	}
	if (b->in_header) {
		b->in_header = 0;
		add_missing_fields(b);
	}
	drain(b);
}
