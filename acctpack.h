/* SPDX-License-Identifier: MIT */
/* Accounting packets (RFC 2866): made and checked. Pure but for the clock it is told. The accountant. */
#ifndef MAILSTILE_ACCTPACK_H
#define MAILSTILE_ACCTPACK_H

#include "acct.h"
#include "limits.h"

#include <stddef.h>

enum acct_status {
	STATUS_NONE = 0,
	STATUS_START = 1,
	STATUS_STOP = 2,
	STATUS_INTERIM = 3,
	STATUS_ON = 7,
	STATUS_OFF = 8
};

#define ACCT_PACKET_MAX 1400

struct acct_record {
	enum acct_status status;
	const struct acct_session *s; /* ON, OFF: only run counts, as the session's id */
	const char *nas;              /* NAS-Identifier */
	const struct addr *from;      /* the address the request leaves from */
	uint32_t seconds;             /* Acct-Session-Time */
	uint32_t delay;               /* Acct-Delay-Time */
	int64_t event;                /* Event-Timestamp, seconds since 1970; 0 = not known */
};

/* Write a request with this id into p[0..ACCT_PACKET_MAX). Returns its length. Its authenticator is p[4..20). */
size_t acct_pack(uint8_t *p, uint8_t id, const struct acct_record *r, const char *secret);

/* Is p[0..len) a good answer to the request with this id and authenticator? 1; 0 = it is not, -1 = it would be, with another secret. */
int acct_good(const uint8_t *p, size_t len, uint8_t id, const uint8_t auth[16], const char *secret);

/* What a good answer says is left: LIMIT_NONE = nothing. */
void acct_left_of(const uint8_t *p, size_t len, uint32_t *left, uint32_t *left_rcpt);

#endif
