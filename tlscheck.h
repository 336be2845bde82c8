/* SPDX-License-Identifier: MIT */
/*
 * Judges the certificate of a next hop, as control/smtptls says: an X.509 engine for BearSSL's client. Remotes only. Static memory.
 */
#ifndef MAILSTILE_TLSCHECK_H
#define MAILSTILE_TLSCHECK_H

#include "relayconf.h"

#include <bearssl.h>
#include <stdint.h>

/* Errors of our own, beside BearSSL's. */
#define TLSCHECK_CLOCK 900   /* `verify`, but the clock is before BUILD_EPOCH */
#define TLSCHECK_NO_NAME 901 /* `verify`, but there is only an address */
#define TLSCHECK_PIN 902     /* none of the pins fits */

/* What is to be found in a certificate: where its SubjectPublicKeyInfo is, and its SHA-256. Octets come piece by piece. */
struct tlscheck_spki {
	unsigned step; /* 0, 1: the two outer SEQUENCEs; then the fields of TBSCertificate up to the key; then done */
	unsigned head_len; /* of `head`: tag and length so far */
	uint8_t head[8];
	uint32_t left; /* octets of the present element that are still to come */
	int bad;
	br_sha256_context sha;
};

struct tlscheck {
	const br_x509_class *vtable; /* first */
	enum tls_policy policy;
	const struct relay_pin *pin;
	unsigned pins;
	unsigned certs; /* so many have begun */
	struct tlscheck_spki spki;
	union {
		br_x509_minimal_context minimal; /* verify */
		br_x509_decoder_context decoder; /* the others: the leaf */
	};
};

/*
 * For one handshake under `policy`: `pin` and `pins` with TLS_PIN, `anchor` and `anchors` with TLS_VERIFY. `now` is in seconds since 1970;
 * `name` is what conn_start_client() will be given. 0, or TLSCHECK_CLOCK or TLSCHECK_NO_NAME: then no handshake can be judged.
 */
int tlscheck_begin(struct tlscheck *t, enum tls_policy policy, const struct relay_pin *pin, unsigned pins,
    const br_x509_trust_anchor *anchor, size_t anchors, const char *name, int64_t now);
/* 64 hexadecimal digits, between which colons do not matter. 0 or -1. */
int tlscheck_pin(struct relay_pin *pin, const char *word);
/* What an error of a handshake means, from BearSSL or from here; in words that go on from "TLS failed: ". */
const char *tlscheck_text(int error);

/* Octets of a certificate (tests). When ->step is TLSCHECK_DONE the hash is complete. */
#define TLSCHECK_DONE 8
void tlscheck_spki_feed(struct tlscheck_spki *s, const uint8_t *p, size_t len);

#endif
