/* SPDX-License-Identifier: MIT */
/*
 * Writes DER (X.690), and with it the two objects keygen makes: X.509 certificates (RFC 5280) and PKCS#10 requests
 * (RFC 2986). Pure: octets into a buffer; nothing here sees a private key. Test b->full once at the end.
 */
#ifndef MAILSTILE_DER_H
#define MAILSTILE_DER_H

#include "str.h"

#include <bearssl.h>
#include <stddef.h>

#define DER_SERIAL_LEN 16
#define DER_CN_MAX 64 /* RFC 5280 appendix A.1: ub-common-name */

/* Whom an object is for. */
struct der_name {
	char cn[DER_CN_MAX + 1];
	int is_addr;            /* `san` holds 4 or 16 octets of an address, not a host name */
	unsigned char san[256]; /* not NUL-terminated */
	size_t san_len;
};

/* Begin an element with `tag`; returns the mark that der_close() needs once the content has been appended. */
size_t der_open(struct buf *b, unsigned tag);
void der_close(struct buf *b, size_t mark);
/* A whole element: `tag` and `len` octets of content. */
void der_put(struct buf *b, unsigned tag, const void *p, size_t len);
/* An INTEGER that is not negative, from `len` octets, big-endian. */
void der_uint(struct buf *b, const unsigned char *p, size_t len);

/*
 * What is signed in a self-signed certificate: TBSCertificate with issuer and subject CN, the public key `pk` (P-256, P-384
 * or RSA), valid from 2000 to the end of 9999, basicConstraints, extKeyUsage serverAuth, key identifiers, subjectAltName.
 */
void der_certificate_body(
    struct buf *b, const struct der_name *name, const br_x509_pkey *pk, const unsigned char serial[DER_SERIAL_LEN]);
/* What is signed in a request: CertificationRequestInfo with the same subject, key and subjectAltName. */
void der_request_body(struct buf *b, const struct der_name *name, const br_x509_pkey *pk);
/* Either of them with its signature, made by a key of `key_type` over the SHA-256 of `body`. */
void der_signed(struct buf *b, const void *body, size_t body_len, int key_type, const void *sig, size_t sig_len);

/* Is p[0..len) one SEQUENCE with nothing before or behind it? 1 or 0. */
int der_is_sequence(const unsigned char *p, size_t len);

#endif
