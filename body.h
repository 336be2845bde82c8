/* SPDX-License-Identifier: MIT */
/*
 * A message on its way in: end of data, dot-unstuffing, line ends, hop count, size, missing fields. A pure state machine over
 * octets; the caller gives it input and takes what is to be written. smtp process (and fuzzers).
 */
#ifndef MAILSTILE_BODY_H
#define MAILSTILE_BODY_H

#include "config.h"

#include <stddef.h>
#include <stdint.h>

enum body_fault { /* sticky; the first one counts */
	BODY_FINE = 0,
	BODY_BARE, /* bare CR, bare LF or NUL */
	BODY_TOO_BIG,
	BODY_LOOP,
	BODY_WRITE /* the sink failed: body->error is errno */
};

struct body {
	/* set by the caller after body_init() */
	int dots;                             /* DATA: unstuff and look for the end; 0 for BDAT */
	int lenient;                          /* `inside`: LF ends a line too, CRLF.CRLF still ends the data */
	uint64_t max;                         /* octets allowed, 0 = no limit */
	int want_date, want_msgid;            /* add these fields when the header lacks them */
	const char *date_field, *msgid_field; /* whole lines with LF */
	int (*sink)(void *ctx, const void *p, size_t len); /* 0, or errno */
	void *ctx;
	/* results */
	enum body_fault fault;
	int error;
	int done;        /* CRLF.CRLF was seen (DATA) */
	uint64_t octets; /* message octets after CRLF -> LF, without added fields */
	unsigned hops;
#if FROM_HEADER_CHECK
	unsigned authors; /* From fields */
	size_t author_len;
	char author[1024]; /* what they say, from the colon on, unfolded; full: perhaps not all of it */
	int in_author;
#endif
	/* inside */
	unsigned state;
	int in_header, have_date, have_msgid;
	unsigned fields; /* header fields seen */
	int released;    /* the start of this line is no longer held back */
	size_t hold_len;
	uint8_t hold[78];
	size_t out_len;
	uint8_t *out; /* BODY_BUFFER octets, caller's */
};

/* Begin a message; `out` is BODY_BUFFER octets of caller's memory. */
void body_init(struct body *b, uint8_t *out);
/*
 * Take input. Returns how many octets were used: all of them, or, when the end of data was found, up to and including it (and
 * b->done is set). After a fault input is only searched for the end.
 */
size_t body_input(struct body *b, const uint8_t *p, size_t len);
/* No more input: end an unfinished last line, add missing fields to a message without a body, write what is pending. Call once,
 * then look at b->fault. */
void body_finish(struct body *b);

#endif
