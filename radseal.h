/* SPDX-License-Identifier: MIT */
/* The seals of RADIUS packets: Message-Authenticator (RFC 2869 5.14) and the authenticators (RFC 2865 3, 2866 3). Pure. */
#ifndef MAILSTILE_RADSEAL_H
#define MAILSTILE_RADSEAL_H

#include "radius.h"

#include <stddef.h>
#include <stdint.h>

#define RADSEAL_HEADER 20 /* code, id, length, authenticator */
#define RADSEAL_MA 80     /* Message-Authenticator */

/* Packets are p[0..len), of which len says as much as they do themselves, but where that is what is checked. */

void radseal_put_length(uint8_t *p, size_t len);
/* HMAC-MD5 over the packet as it is. */
void radseal_mac(uint8_t out[16], const uint8_t *p, size_t len, const char *secret);
/* The Response Authenticator for an answer to `request`; with one that is all zero, the Request Authenticator of an Accounting-Request. */
void radseal_response(uint8_t out[16], const uint8_t *p, size_t len, const uint8_t *request, const char *secret);
/* How long the packet in p[0..len) says that it is: 20-4096; 0 when it cannot be told yet, -1 when it says nonsense. */
int radseal_length(const uint8_t *p, size_t len);
/* Does the answer, of whatever code, prove to come from a holder of the secret? *len is cut to what it says itself. */
enum radius_trouble radseal_check(uint8_t *p, size_t *len, const uint8_t *request, const char *secret, int unsigned_ok);

/* For a go-between: give a request that is sealed another id; 0, or -1 when it is none, or cannot be sealed. */
int radseal_request_anew(uint8_t *p, size_t len, uint8_t id, const char *secret);
/* And the answer to it, which has been checked, the seal that fits `request`, as it was. */
void radseal_reply_anew(uint8_t *p, size_t len, const uint8_t *request, const char *secret);

/* A Status-Server packet (RFC 5997) from `nas`. Returns its length, at most RADSEAL_STATUS_MAX. */
#define RADSEAL_STATUS_MAX (RADSEAL_HEADER + 18 + 255)
size_t radseal_status(uint8_t p[RADSEAL_STATUS_MAX], uint8_t id, const char *nas, const char *secret);

#endif
