/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The cleaner: notices for programs (RFC 3464; with addresses that are not ASCII, RFC 6533). A multipart/report of three parts: what a
 * QSBMF bounce says to people; message/delivery-status; and the message, or its header when it is longer than BOUNCE_COPY_MAX.
 *
 * What is said of each recipient is read out of bounce/N, where qmail-send may have written it as well as we: a paragraph is one recipient's when its
 * first line is `<address>:`. Nothing of it gets into the fields but in printable characters, on lines that begin with a space where they are not the
 * first one. The boundary is made of 128 random bits, after the message was written: nobody can have put it there.
 */
#include "addr.h"
#include "cleanint.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SAID "Remote host said: "

/* A file, octet by octet. */
struct in {
	int fd;
	off_t next;
	ssize_t at, len;
	char mem[2048];
};

/* One recipient of bounce/N, or text that is about none: then addr is "". */
struct paragraph {
	char addr[1100];
	char text[2048];
};

static int
in_ch(struct in *in)
{
	if (in->at == in->len) {
		in->at = 0;
		in->len = pread(in->fd, in->mem, sizeof in->mem, in->next);
		if (in->len <= 0) {
			in->len = 0;
			return -1;
		}
		in->next += in->len;
	}
	return (unsigned char)in->mem[in->at++];
}

void
look_at(struct look *l, int fd)
{
	struct in in = { .fd = fd };
	struct stat st;
	uint64_t n;
	int c, before = '\n', body = 0;

	memset(l, 0, sizeof *l);
	for (n = 0; n < BOUNCE_COPY_MAX && (c = in_ch(&in)) != -1; n++) {
		l->any_8bit |= c > 127;
		if (!body) {
			l->head_8bit |= c > 127;
			l->head = n + 1;
			body = c == '\n' && before == '\n';
		}
		before = c;
	}
	l->size = fstat(fd, &st) == 0 ? (uint64_t)st.st_size : n;
}

int
is_8bit(const char *s)
{
	for (; *s != '\0'; s++) {
		if ((unsigned char)*s > 127) {
			return 1;
		}
	}
	return 0;
}

static int
is_utf8_address(const char *s)
{
	return is_8bit(s) && utf8_valid(s, strlen(s));
}

/* ---- bounce/N ---- */

/* The next paragraph, cut where it is absurdly long. 0: there is none. */
static int
next_paragraph(struct in *in, struct paragraph *p)
{
	struct buf first, rest, *b = &first;
	int c, before = '\n';

	buf_init(&first, p->addr, sizeof p->addr - 1);
	buf_init(&rest, p->text, sizeof p->text - 1);
	do {
		c = in_ch(in);
	} while (c == '\n');
	for (; c != -1 && (c != '\n' || before != '\n'); c = in_ch(in)) {
		if (c == '\n' && b == &first) {
			b = &rest;
		} else {
			buf_ch(b, (char)(c == '\0' ? '?' : c));
		}
		before = c;
	}
	p->addr[first.len] = p->text[rest.len] = '\0';
	if (first.len == 0 && c == -1) {
		return 0;
	}
	if (first.len > 2 && !first.full && p->addr[0] == '<' && strcmp(p->addr + first.len - 2, ">:") == 0) {
		memmove(p->addr, p->addr + 1, first.len - 2);
		p->addr[first.len - 3] = '\0';
	} else {
		p->addr[0] = '\0';
	}
	return 1;
}

/* d.d.d at the beginning of `s`, class 4 or 5: its length, or 0. */
static size_t
status_at(const char *s)
{
	size_t n = 1;

	if (s[0] != '4' && s[0] != '5') {
		return 0;
	}
	for (int part = 0; part < 2; part++) {
		size_t from = n + 1;

		if (s[n] != '.') {
			return 0;
		}
		for (n = from; n < from + 3 && ascii_isdigit(s[n]); n++) {
		}
		if (n == from) {
			return 0;
		}
	}
	return ascii_isdigit(s[n]) || s[n] == '.' ? 0 : n;
}

/* Does a line of a reply stand here? */
static int
is_reply(const char *s)
{
	return s[0] >= '2' && s[0] <= '5' && ascii_isdigit(s[1]) && ascii_isdigit(s[2]) &&
	    (s[3] == ' ' || s[3] == '-' || s[3] == '\n' || s[3] == '\0');
}

/* Append the status: of the reply, else the last `(#d.d.d)` of the text. */
static void
out_status(struct out *o, const char *text, const char *reply, const char *dflt)
{
	const char *best = dflt;
	size_t len = reply != NULL && reply[3] != '\0' ? status_at(reply + 4) : 0;

	if (len > 0) {
		best = reply + 4;
	}
	for (const char *p = text; len == 0 && (p = strstr(p, "(#")) != NULL; p += 2) {
		if (p[2] != '\0' && status_at(p + 2) > 0 && p[2 + status_at(p + 2)] == ')') {
			best = p + 2;
		}
	}
	out_str(o, "\nStatus: ");
	out_mem(o, best, status_at(best));
}

/* Append all lines of the reply. */
static void
out_reply(struct out *o, const char *reply)
{
	out_str(o, "\nDiagnostic-Code: smtp; ");
	for (const char *p = reply; *p != '\0'; p++) {
		if (*p != '\n') {
			out_mem(o, *p < ' ' || *p > '~' ? "?" : p, 1);
		} else if (is_reply(p + 1) && strncmp(p + 1, reply, 3) == 0) {
			out_str(o, "\n ");
		} else {
			break;
		}
	}
}

/* `192.0.2.1 does not like recipient`, `Connected to 192.0.2.1 but ...`: who that was. */
static void
out_peer(struct out *o, const char *text)
{
	char mem[ADDR_TEXT_MAX];
	struct addr a;

	if (strncmp(text, "Connected to ", 13) == 0) {
		text += 13;
	}
	if (addr_parse(&a, text, strcspn(text, " \n")) == 0) {
		out_str(o, addr_is_v4(&a) ? "\nRemote-MTA: dns; [" : "\nRemote-MTA: dns; [IPv6:");
		addr_text(&a, mem);
		out_str(o, mem);
		out_str(o, "]");
	}
}

static void
out_recipient(struct out *o, const char *addr)
{
	static const char hex[] = "0123456789ABCDEF";
	char x[] = "\\x{00}";

	if (!is_utf8_address(addr)) {
		out_str(o, "\nFinal-Recipient: rfc822; ");
		out_address(o, addr);
		return;
	}
	out_str(o, "\nFinal-Recipient: utf-8; ");
	for (; *addr != '\0'; addr++) {
		unsigned char c = (unsigned char)*addr;

		if (c <= ' ' || c == 127 || c == '+' || c == '=' || c == '\\') {
			x[3] = hex[c >> 4];
			x[4] = hex[c & 15];
			out_str(o, x);
		} else {
			out_mem(o, addr, 1);
		}
	}
}

static void
out_group(struct out *o, const struct clean_ask *ask, const struct paragraph *p)
{
	int late = clean_late(ask);
	const char *said = strstr(p->text, SAID);
	const char *reply = said != NULL && is_reply(said + sizeof SAID - 1) ? said + sizeof SAID - 1 : NULL;

	out_str(o, "\n");
	out_recipient(o, p->addr);
	out_str(o, late ? "\nAction: delayed" : "\nAction: failed");
	out_status(o, p->text, reply, late ? "4.0.0" : "5.0.0");
	out_peer(o, p->text);
	if (reply != NULL) {
		out_reply(o, reply);
	}
	if (late) {
		out_str(o, "\nWill-Retry-Until: ");
		out_date(o, ask->until);
	}
}

/* ---- the parts ---- */

/* Append bounce/N for people: no control characters, no endless lines. */
static void
out_reasons(struct out *o, int why)
{
	struct in in = { .fd = why };
	unsigned column = 0;
	int c;

	while ((c = in_ch(&in)) != -1) {
		char ch = (char)((c < ' ' && c != '\n' && c != '\t') || c == 127 ? '_' : c);

		if (c != '\n' && ++column > 900 && (c & 0xc0) != 0x80) {
			out_str(o, "\n");
			column = 1;
		}
		column = c == '\n' ? 0 : column;
		out_mem(o, &ch, 1);
	}
}

/* Begin a part. The line feed before a boundary belongs to it. */
static void
out_part(struct out *o, const char *boundary, const char *type, int is8)
{
	out_str(o, "\n--");
	out_str(o, boundary);
	out_str(o, "\nContent-Type: ");
	out_str(o, type);
	out_str(o, is8 ? "\nContent-Transfer-Encoding: 8bit\n\n" : "\n\n");
}

/* Is there an address in it that is not ASCII? */
static int
is_global(int why, const struct clean_ask *ask)
{
	static struct paragraph p;
	struct in in = { .fd = why };
	int yes = is_utf8_address(ask->rcpt) || is_utf8_address(ask->returned);

	while (!yes && next_paragraph(&in, &p)) {
		yes = is_utf8_address(p.addr);
	}
	return yes;
}

static void
out_groups(struct out *o, const struct cleaner *c, const struct clean_ask *ask, int why)
{
	static struct paragraph p;
	struct in in = { .fd = why };
	int any = 0;

	out_str(o, "Reporting-MTA: dns; ");
	out_str(o, c->conf->me);
	if (ask->birth > 0) {
		out_str(o, "\nArrival-Date: ");
		out_date(o, ask->birth);
	}
	while (next_paragraph(&in, &p)) {
		if (p.addr[0] != '\0') {
			out_group(o, ask, &p);
			any = 1;
		}
	}
	if (!any) {
		/* There has to be one. */
		(void)str_copy(p.addr, sizeof p.addr, "unknown");
		p.text[0] = '\0';
		out_group(o, ask, &p);
	}
	out_str(o, "\n");
}

void
dsn_compose(const struct cleaner *c, struct out *o, const struct clean_ask *ask, int why, int mess)
{
	int global = is_global(why, ask), whole, quoted_8bit;
	char boundary[64];
	uint64_t r[2];
	struct look reasons, quoted;

	random_bytes(r, sizeof r);
	str_fmt(boundary, sizeof boundary, "=_%016llx%016llx", (unsigned long long)r[0], (unsigned long long)r[1]);
	look_at(&reasons, why);
	look_at(&quoted, mess);
	whole = quoted.size <= BOUNCE_COPY_MAX && !clean_late(ask);
	quoted_8bit = is_8bit(ask->returned) || (whole ? quoted.any_8bit : quoted.head_8bit);
	out_str(o, "Content-Type: multipart/report; report-type=delivery-status;\n boundary=\"");
	out_str(o, boundary);
	out_str(o, "\"\n");
	if (global || reasons.any_8bit || quoted_8bit) {
		out_str(o, "Content-Transfer-Encoding: 8bit\n");
	}
	out_part(o, boundary, reasons.any_8bit ? "text/plain; charset=utf-8" : "text/plain; charset=us-ascii",
	    reasons.any_8bit);
	out_intro(o, c, ask);
	out_reasons(o, why);
	out_part(o, boundary, global ? "message/global-delivery-status" : "message/delivery-status", global);
	out_groups(o, c, ask, why);
	out_part(o, boundary,
	    whole && global ? "message/global"
		: whole     ? "message/rfc822"
		: global    ? "message/global-headers"
			    : "text/rfc822-headers",
	    quoted_8bit);
	out_return_path(o, ask);
	(void)out_file(o, mess, whole ? BOUNCE_COPY_MAX : quoted.head);
	out_str(o, "\n--");
	out_str(o, boundary);
	out_str(o, "--\n");
}
