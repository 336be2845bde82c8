/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* Accounting packets: RFC 2866, 2869 and our vendor's attributes (contrib/freeradius/dictionary.mailstile). The accountant. */
#include "acctpack.h"

#if ACCOUNTING

#include "str.h"

#include <bearssl.h>
#include <string.h>

#define HEADER 20
#define REQUEST 4
#define RESPONSE 5

enum {
	USER_NAME = 1,
	NAS_IP_ADDRESS = 4,
	CLASS = 25,
	VENDOR_SPECIFIC = 26,
	CALLING_STATION_ID = 31,
	NAS_IDENTIFIER = 32,
	ACCT_STATUS_TYPE = 40,
	ACCT_DELAY_TIME,
	ACCT_INPUT_OCTETS,
	ACCT_SESSION_ID = 44,
	ACCT_AUTHENTIC,
	ACCT_SESSION_TIME,
	ACCT_INPUT_PACKETS,
	ACCT_OUTPUT_PACKETS,
	ACCT_TERMINATE_CAUSE,
	ACCT_INPUT_GIGAWORDS = 52,
	EVENT_TIMESTAMP = 55,
	NAS_PORT_TYPE = 61,
	NAS_IPV6_ADDRESS = 95
};
/* our vendor's */
enum { DAY_MESSAGES = 1, DAY_RECIPIENTS, ACCT_MESSAGES = 16, ACCT_RECIPIENTS, ACCT_REJECTED };

struct out {
	uint8_t *p;
	size_t len;
};

/* There is room for all that can come: the session's strings have their limits. */
static void
attribute(struct out *o, unsigned type, const void *value, size_t len)
{
	if (len > 253) {
		len = 253;
	}
	if (len == 0 || len + 2 > ACCT_PACKET_MAX - o->len) {
		return;
	}
	o->p[o->len] = (uint8_t)type;
	o->p[o->len + 1] = (uint8_t)(len + 2);
	memcpy(o->p + o->len + 2, value, len);
	o->len += len + 2;
}

static void
put32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}

static uint32_t
get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void
number(struct out *o, unsigned type, uint32_t v)
{
	uint8_t b[4];

	put32(b, v);
	attribute(o, type, b, sizeof b);
}

static void
text(struct out *o, unsigned type, const char *s)
{
	attribute(o, type, s, strlen(s));
}

/* RFC 2865 5.26 */
static void
ours(struct out *o, unsigned type, uint32_t v)
{
	uint8_t b[10];

	put32(b, VENDOR_ID);
	b[4] = (uint8_t)type;
	b[5] = 6;
	put32(b + 6, v);
	attribute(o, VENDOR_SPECIFIC, b, sizeof b);
}

/* How the session stands: not in a Start (RFC 2866 5.13). */
static void
sums(struct out *o, const struct acct_record *r)
{
	const struct acct_session *s = r->s;

	number(o, ACCT_SESSION_TIME, r->seconds);
	number(o, ACCT_INPUT_OCTETS, (uint32_t)s->octets);
	if (s->octets >> 32 != 0) {
		number(o, ACCT_INPUT_GIGAWORDS, (uint32_t)(s->octets >> 32));
	}
	if (ACCT_PACKETS) {
		number(o, ACCT_INPUT_PACKETS, s->messages);
		number(o, ACCT_OUTPUT_PACKETS, s->rcpts);
	}
	ours(o, ACCT_MESSAGES, s->messages);
	ours(o, ACCT_RECIPIENTS, s->rcpts);
	ours(o, ACCT_REJECTED, s->rejected);
	if (r->status == STATUS_STOP) {
		number(o, ACCT_TERMINATE_CAUSE, s->cause);
	}
}

static void
session(struct out *o, const struct acct_record *r)
{
	const struct acct_session *s = r->s;

	text(o, ACCT_SESSION_ID, s->sid);
	text(o, USER_NAME, s->user);
	number(o, ACCT_AUTHENTIC, 1); /* RADIUS */
	number(o, NAS_PORT_TYPE, 5);  /* Virtual */
	text(o, CALLING_STATION_ID, s->client);
	for (uint32_t i = 0; i + 2 <= s->class_len && i + s->class[i + 1] <= s->class_len && s->class[i + 1] > 2;
	     i += s->class[i + 1]) {
		attribute(o, CLASS, s->class + i + 2, s->class[i + 1] - 2U);
	}
	if (r->status != STATUS_START) {
		sums(o, r);
	}
}

/* MD5(p[0..4), auth, attributes, secret): RFC 2866 3. */
static void
authenticator(uint8_t out[16], const uint8_t *p, size_t len, const uint8_t auth[16], const char *secret)
{
	br_md5_context mc;

	br_md5_init(&mc);
	br_md5_update(&mc, p, 4);
	br_md5_update(&mc, auth, 16);
	br_md5_update(&mc, p + HEADER, len - HEADER);
	br_md5_update(&mc, secret, strlen(secret));
	br_md5_out(&mc, out);
	explicit_bzero(&mc, sizeof mc);
}

size_t
acct_pack(uint8_t *p, uint8_t id, const struct acct_record *r, const char *secret)
{
	static const uint8_t zero[16];
	struct out o = { p, HEADER };
	char run[12];

	number(&o, ACCT_STATUS_TYPE, (uint32_t)r->status);
	if (addr_is_v4(r->from)) {
		attribute(&o, NAS_IP_ADDRESS, r->from->ip + 12, 4);
	} else {
		attribute(&o, NAS_IPV6_ADDRESS, r->from->ip, 16);
	}
	text(&o, NAS_IDENTIFIER, r->nas);
	number(&o, ACCT_DELAY_TIME, r->delay);
	if (r->event > 0 && r->event <= UINT32_MAX) {
		number(&o, EVENT_TIMESTAMP, (uint32_t)r->event);
	}
	if (r->status == STATUS_ON || r->status == STATUS_OFF) {
		str_fmt(run, sizeof run, "%08x", r->s->run); /* both must have one (RFC 2866 5.5) */
		text(&o, ACCT_SESSION_ID, run);
	} else {
		session(&o, r);
	}
	p[0] = REQUEST;
	p[1] = id;
	p[2] = (uint8_t)(o.len >> 8);
	p[3] = (uint8_t)o.len;
	authenticator(p + 4, p, o.len, zero, secret);
	return o.len;
}

int
acct_good(const uint8_t *p, size_t len, uint8_t id, const uint8_t auth[16], const char *secret)
{
	uint8_t want[16];
	uint8_t differ = 0;
	size_t l;

	if (len < HEADER || p[0] != RESPONSE || p[1] != id) {
		return 0;
	}
	l = (size_t)p[2] << 8 | p[3];
	if (l < HEADER || l > len) {
		return 0;
	}
	authenticator(want, p, l, auth, secret);
	for (size_t i = 0; i < sizeof want; i++) {
		differ |= (uint8_t)(want[i] ^ p[4 + i]);
	}
	return differ == 0 ? 1 : -1;
}

void
acct_left_of(const uint8_t *p, size_t len, uint32_t *left, uint32_t *left_rcpt)
{
	size_t l = (size_t)p[2] << 8 | p[3];

	*left = *left_rcpt = LIMIT_NONE;
	l = l < len ? l : len;
	for (size_t i = HEADER; i + 2 <= l && p[i + 1] >= 2 && i + p[i + 1] <= l; i += p[i + 1]) {
		const uint8_t *v = p + i + 2;

		if (p[i] == VENDOR_SPECIFIC && p[i + 1] == 12 && get32(v) == VENDOR_ID && v[5] == 6) {
			if (v[4] == DAY_MESSAGES) {
				*left = get32(v + 6);
			} else if (v[4] == DAY_RECIPIENTS) {
				*left_rcpt = get32(v + 6);
			}
		}
	}
}

#endif
