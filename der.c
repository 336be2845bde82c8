/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Elements are written in reading order: der_open() leaves one octet for the length, der_close() moves the content up when
 * that turns out to be too little. The largest object, a certificate for an RSA-4096 key, is about 2 KiB.
 */
#include "der.h"

#include <string.h>

#define BOOLEAN 0x01
#define INTEGER 0x02
#define BIT_STRING 0x03
#define OCTET_STRING 0x04
#define NULL_VALUE 0x05
#define OID 0x06
#define UTF8_STRING 0x0c
#define UTC_TIME 0x17
#define GENERALIZED_TIME 0x18
#define SEQUENCE 0x30
#define SET 0x31
#define CONTEXT(n) (0x80U + (n))
#define CONTEXT_CONSTRUCTED(n) (0xa0U + (n))

#define KEY_ID_LEN 20

static const unsigned char oid_ec_key[] = { 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01 };
static const unsigned char oid_p256[] = { 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07 };
static const unsigned char oid_p384[] = { 0x2b, 0x81, 0x04, 0x00, 0x22 };
static const unsigned char oid_rsa_key[] = { 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01 };
static const unsigned char oid_ecdsa_sha256[] = { 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02 };
static const unsigned char oid_rsa_sha256[] = { 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b };
static const unsigned char oid_common_name[] = { 0x55, 0x04, 0x03 };
static const unsigned char oid_basic_constraints[] = { 0x55, 0x1d, 0x13 };
static const unsigned char oid_ext_key_usage[] = { 0x55, 0x1d, 0x25 };
static const unsigned char oid_server_auth[] = { 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01 };
static const unsigned char oid_subject_key_id[] = { 0x55, 0x1d, 0x0e };
static const unsigned char oid_authority_key_id[] = { 0x55, 0x1d, 0x23 };
static const unsigned char oid_alt_name[] = { 0x55, 0x1d, 0x11 };
static const unsigned char oid_extension_request[] = { 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e };

size_t
der_open(struct buf *b, unsigned tag)
{
	buf_ch(b, (char)tag);
	buf_ch(b, 0);
	return b->len;
}

void
der_close(struct buf *b, size_t mark)
{
	size_t len, extra;
	char *p;

	if (b->full) {
		return;
	}
	len = b->len - mark;
	extra = len < 0x80 ? 0 : len < 0x100 ? 1 : 2;
	if (len > 0xffff || extra > b->cap - b->len) {
		b->full = 1;
		return;
	}
	p = b->p + mark;
	if (extra == 0) {
		p[-1] = (char)len;
		return;
	}
	memmove(p + extra, p, len);
	b->len += extra;
	p[-1] = (char)(0x80 + extra);
	if (extra == 2) {
		*p++ = (char)(len >> 8);
	}
	*p = (char)(len & 0xff);
}

void
der_put(struct buf *b, unsigned tag, const void *p, size_t len)
{
	size_t mark = der_open(b, tag);

	buf_add(b, p, len);
	der_close(b, mark);
}

void
der_uint(struct buf *b, const unsigned char *p, size_t len)
{
	size_t mark = der_open(b, INTEGER);

	while (len > 0 && p[0] == 0) {
		p++;
		len--;
	}
	/* A set first bit would make it negative; zero is one octet. */
	if (len == 0 || (p[0] & 0x80) != 0) {
		buf_ch(b, 0);
	}
	buf_add(b, p, len);
	der_close(b, mark);
}

int
der_is_sequence(const unsigned char *p, size_t len)
{
	size_t octets = 0, n;

	if (len < 2 || p[0] != SEQUENCE) {
		return 0;
	}
	n = p[1];
	if (n >= 0x80) {
		octets = n & 0x7f;
		if (octets < 1 || octets > 3 || len < 2 + octets) {
			return 0;
		}
		n = 0;
		for (size_t i = 0; i < octets; i++) {
			n = n << 8 | p[2 + i];
		}
	}
	return n == len - 2 - octets;
}

static void
put_oid(struct buf *b, const unsigned char *oid, size_t len)
{
	der_put(b, OID, oid, len);
}

static void
put_signature_algorithm(struct buf *b, int key_type)
{
	size_t seq = der_open(b, SEQUENCE);

	/* RFC 5758 3.2: no parameters with ECDSA; RFC 4055 5: NULL with RSA. */
	if (key_type == BR_KEYTYPE_EC) {
		put_oid(b, oid_ecdsa_sha256, sizeof oid_ecdsa_sha256);
	} else {
		put_oid(b, oid_rsa_sha256, sizeof oid_rsa_sha256);
		der_put(b, NULL_VALUE, NULL, 0);
	}
	der_close(b, seq);
}

/* Name: one relative name, the CN. */
static void
put_name(struct buf *b, const struct der_name *name)
{
	size_t seq = der_open(b, SEQUENCE);
	size_t set = der_open(b, SET);
	size_t pair = der_open(b, SEQUENCE);

	put_oid(b, oid_common_name, sizeof oid_common_name);
	der_put(b, UTF8_STRING, name->cn, strlen(name->cn));
	der_close(b, pair);
	der_close(b, set);
	der_close(b, seq);
}

/* SubjectPublicKeyInfo (RFC 5480, RFC 3279 2.3.1). */
static void
put_public_key(struct buf *b, const br_x509_pkey *pk)
{
	size_t seq = der_open(b, SEQUENCE);
	size_t alg = der_open(b, SEQUENCE);
	size_t bits, key;

	if (pk->key_type == BR_KEYTYPE_EC) {
		put_oid(b, oid_ec_key, sizeof oid_ec_key);
		if (pk->key.ec.curve == BR_EC_secp256r1) {
			put_oid(b, oid_p256, sizeof oid_p256);
		} else {
			put_oid(b, oid_p384, sizeof oid_p384);
		}
	} else {
		put_oid(b, oid_rsa_key, sizeof oid_rsa_key);
		der_put(b, NULL_VALUE, NULL, 0);
	}
	der_close(b, alg);

	bits = der_open(b, BIT_STRING);
	buf_ch(b, 0);
	if (pk->key_type == BR_KEYTYPE_EC) {
		buf_add(b, pk->key.ec.q, pk->key.ec.qlen);
	} else {
		key = der_open(b, SEQUENCE);
		der_uint(b, pk->key.rsa.n, pk->key.rsa.nlen);
		der_uint(b, pk->key.rsa.e, pk->key.rsa.elen);
		der_close(b, key);
	}
	der_close(b, bits);
	der_close(b, seq);
}

/* Extension: subjectAltName (RFC 5280 4.2.1.6). */
static void
put_alt_name(struct buf *b, const struct der_name *name)
{
	size_t ext = der_open(b, SEQUENCE);
	size_t value, names;

	put_oid(b, oid_alt_name, sizeof oid_alt_name);
	value = der_open(b, OCTET_STRING);
	names = der_open(b, SEQUENCE);
	der_put(b, CONTEXT(name->is_addr ? 7 : 2), name->san, name->san_len);
	der_close(b, names);
	der_close(b, value);
	der_close(b, ext);
}

/*
 * Extensions: subjectKeyIdentifier and authorityKeyIdentifier, which in a self-signed certificate are the same. 20 octets of
 * SHA-256, for a P-256 or P-384 key as RFC 7093 says (method 1).
 */
static void
put_key_ids(struct buf *b, const br_x509_pkey *pk)
{
	unsigned char id[br_sha256_SIZE];
	br_sha256_context sha;
	size_t ext, value, inner;

	br_sha256_init(&sha);
	if (pk->key_type == BR_KEYTYPE_EC) {
		br_sha256_update(&sha, pk->key.ec.q, pk->key.ec.qlen);
	} else {
		br_sha256_update(&sha, pk->key.rsa.n, pk->key.rsa.nlen);
	}
	br_sha256_out(&sha, id);

	ext = der_open(b, SEQUENCE);
	put_oid(b, oid_subject_key_id, sizeof oid_subject_key_id);
	value = der_open(b, OCTET_STRING);
	der_put(b, OCTET_STRING, id, KEY_ID_LEN);
	der_close(b, value);
	der_close(b, ext);

	ext = der_open(b, SEQUENCE);
	put_oid(b, oid_authority_key_id, sizeof oid_authority_key_id);
	value = der_open(b, OCTET_STRING);
	inner = der_open(b, SEQUENCE);
	der_put(b, CONTEXT(0), id, KEY_ID_LEN);
	der_close(b, inner);
	der_close(b, value);
	der_close(b, ext);
}

/*
 * The extensions that make a self-signed certificate work both as a server's and, in a client, as the anchor it trusts:
 *
 * basicConstraints CA:FALSE. Mozilla refuses a server's certificate that says CA:TRUE
 * (MOZILLA_PKIX_ERROR_CA_CERT_USED_AS_END_ENTITY), and whoever installs such a one as trusted would let this device's key
 * vouch for any other name. OpenSSL, GnuTLS, BearSSL and Windows trust a leaf that is itself among the anchors.
 *
 * No keyUsage. Before 1.1.1h OpenSSL did not see a certificate as self-signed when it has a keyUsage without keyCertSign,
 * and could not verify it against itself (its issue 1418); and keyCertSign without CA:TRUE breaks RFC 5280 4.2.1.3. Without
 * the extension the key is good for every use, digitalSignature among them.
 *
 * Key identifiers, because strict verifiers miss them.
 */
static void
put_extensions(struct buf *b, const struct der_name *name, const br_x509_pkey *pk)
{
	static const unsigned char yes = 0xff;
	size_t ext, value, inner;

	ext = der_open(b, SEQUENCE);
	put_oid(b, oid_basic_constraints, sizeof oid_basic_constraints);
	der_put(b, BOOLEAN, &yes, 1);
	value = der_open(b, OCTET_STRING);
	/* cA is FALSE by default, and DER leaves defaults out. */
	der_put(b, SEQUENCE, NULL, 0);
	der_close(b, value);
	der_close(b, ext);

	ext = der_open(b, SEQUENCE);
	put_oid(b, oid_ext_key_usage, sizeof oid_ext_key_usage);
	value = der_open(b, OCTET_STRING);
	inner = der_open(b, SEQUENCE);
	put_oid(b, oid_server_auth, sizeof oid_server_auth);
	der_close(b, inner);
	der_close(b, value);
	der_close(b, ext);

	put_key_ids(b, pk);
	put_alt_name(b, name);
}

void
der_certificate_body(
    struct buf *b, const struct der_name *name, const br_x509_pkey *pk, const unsigned char serial[DER_SERIAL_LEN])
{
	/* RFC 5280 4.1.2.5: dates to 2049 are UTCTime, later ones GeneralizedTime, and this end means "no end". */
	static const char not_before[] = "000101000000Z", not_after[] = "99991231235959Z";
	static const unsigned char v3 = 2;
	size_t body = der_open(b, SEQUENCE);
	size_t part, inner;

	part = der_open(b, CONTEXT_CONSTRUCTED(0));
	der_uint(b, &v3, 1);
	der_close(b, part);
	der_uint(b, serial, DER_SERIAL_LEN);
	put_signature_algorithm(b, pk->key_type);
	put_name(b, name);
	part = der_open(b, SEQUENCE);
	der_put(b, UTC_TIME, not_before, sizeof not_before - 1);
	der_put(b, GENERALIZED_TIME, not_after, sizeof not_after - 1);
	der_close(b, part);
	put_name(b, name);
	put_public_key(b, pk);
	part = der_open(b, CONTEXT_CONSTRUCTED(3));
	inner = der_open(b, SEQUENCE);
	put_extensions(b, name, pk);
	der_close(b, inner);
	der_close(b, part);
	der_close(b, body);
}

void
der_request_body(struct buf *b, const struct der_name *name, const br_x509_pkey *pk)
{
	static const unsigned char v1 = 0;
	size_t body = der_open(b, SEQUENCE);
	size_t attributes, attribute, set, extensions;

	der_uint(b, &v1, 1);
	put_name(b, name);
	put_public_key(b, pk);
	attributes = der_open(b, CONTEXT_CONSTRUCTED(0));
	attribute = der_open(b, SEQUENCE);
	put_oid(b, oid_extension_request, sizeof oid_extension_request);
	set = der_open(b, SET);
	extensions = der_open(b, SEQUENCE);
	put_alt_name(b, name);
	der_close(b, extensions);
	der_close(b, set);
	der_close(b, attribute);
	der_close(b, attributes);
	der_close(b, body);
}

void
der_signed(struct buf *b, const void *body, size_t body_len, int key_type, const void *sig, size_t sig_len)
{
	size_t seq = der_open(b, SEQUENCE);
	size_t bits;

	buf_add(b, body, body_len);
	put_signature_algorithm(b, key_type);
	bits = der_open(b, BIT_STRING);
	buf_ch(b, 0);
	buf_add(b, sig, sig_len);
	der_close(b, bits);
	der_close(b, seq);
}
