/* SPDX-License-Identifier: MIT */
/*
 * What a next hop says and what it is told, without any I/O: replies, EHLO keywords, what a reply code means, addresses and the
 * message as they go over the wire. Pure. Remotes.
 */
#ifndef MAILSTILE_PEER_H
#define MAILSTILE_PEER_H

#include "str.h"

#include <stddef.h>
#include <stdint.h>

#define PEER_LINE_MAX 4096 /* RFC 5321 4.5.3.1.5 has 512; some send more */
#define PEER_LINES_MAX 100
#define PEER_TEXT_MAX 800 /* of a reply, for the report */

/* EHLO keywords. */
#define PEER_PIPELINING 1U
#define PEER_SIZE 2U
#define PEER_8BITMIME 4U
#define PEER_SMTPUTF8 8U
#define PEER_STARTTLS 16U
#define PEER_AUTH_PLAIN 32U
#define PEER_AUTH_LOGIN 64U
#define PEER_CHUNKING 128U

struct peer_ehlo {
	unsigned keywords;
	uint64_t size; /* PEER_SIZE: the largest message, 0 = it does not say */
};

/* A reply being read. */
struct peer_reply {
	int code; /* of its lines; 0 = no reply */
	int bad;  /* this is no SMTP */
	unsigned lines;
	size_t line_len; /* of the present line, without its end */
	char line[512];  /* as much of it as is kept */
	size_t text_len;
	char text[PEER_TEXT_MAX + 2]; /* all lines, as said, in printable ASCII; each ends in LF; NUL-terminated */
	struct peer_ehlo *ehlo;       /* its lines are keywords (but for the first), for this; or NULL */
};

/* Begin a reply. */
void peer_reply_begin(struct peer_reply *r, struct peer_ehlo *ehlo);
/* Take octets until the reply is complete or bad: *done is then 1. Returns how many were taken. */
size_t peer_reply_take(struct peer_reply *r, const uint8_t *p, size_t len, int *done);

/*
 * What a code says about a recipient (qmail-spec 4.2): 'D' 5xx, 'Z' 4xx, 'K' when its first digit is `good` ('2', or '3' for DATA);
 * 0 anything else: peer and we do not understand each other.
 */
int peer_class(int code, int good);

/*
 * Append a path for MAIL or RCPT, without angle brackets: the local part of `addr` (all before its last @) quoted when it must be. 0, or
 * -1: it cannot be said in SMTP (controls, or what would end the path in the domain), and nothing was appended.
 */
int peer_path(struct buf *b, const char *addr);
/* 1 when a string has octets beyond ASCII. */
int peer_is_8bit(const char *s);

/* The message on its way: LF becomes CRLF, and so do CRLF and a bare CR; dots are stuffed, unless it goes by BDAT. */
struct peer_body {
	int midline; /* the last octet did not end a line */
	int cr;      /* it was a CR */
	int bdat;
};
/* Encode p[0..len) to `to`, which has room for twice as much. Returns the length. */
size_t peer_body(struct peer_body *b, const uint8_t *p, size_t len, uint8_t *to);
/* The end: a line end where there is none, and the final dot, unless by BDAT. `to` has room for 5. */
size_t peer_body_end(const struct peer_body *b, uint8_t *to);

/* Append base64. */
void peer_base64(struct buf *b, const void *p, size_t len);

#endif
