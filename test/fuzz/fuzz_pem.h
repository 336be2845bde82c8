/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* The files that fuzz_pem.c gives to cert.c, in memory; the making of PEM; and the way back through der.c. */
#ifndef MAILSTILE_TEST_FUZZ_PEM_H
#define MAILSTILE_TEST_FUZZ_PEM_H

#include "cert.h"
#include "der.h"

#include "fuzz.h"

#include <stdio.h>
#include <sys/mman.h>

static char pem_path[2][64];

static void
pem_put(unsigned i, const void *p, size_t len, const char *banner)
{
	static int fds[2] = { -1, -1 };
	static char text[1 << 16];

	if (fds[i] == -1) {
		fds[i] = memfd_create("pem", 0);
		snprintf(pem_path[i], sizeof pem_path[i], "/proc/self/fd/%d", fds[i]);
	}
	CHECK(ftruncate(fds[i], 0) == 0);
	if (banner != NULL && br_pem_encode(NULL, p, len, banner, 0) < sizeof text) {
		len = br_pem_encode(text, p, len, banner, 0);
		p = text;
	}
	CHECK(pwrite(fds[i], p, len, 0) == (ssize_t)len);
}

static void
pem_files(struct input *in, unsigned flags)
{
	static const char *const keys[] = { "PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY", "PRIVATE KEY" };
	static uint8_t mem[1 << 16];
	struct input first;

	if ((flags & 128) != 0) {
		size_t len = take_octet(in) << 8;

		first.p = mem;
		first.len = take_octets(in, mem, len + take_octet(in));
	} else {
		first = take_packet(in);
	}
	pem_put(0, first.p, first.len, (flags & 1) != 0 ? "CERTIFICATE" : NULL);
	pem_put(1, in->p, in->len, (flags & 2) != 0 ? keys[flags >> 4 & 3] : NULL);
}

static int
pem_load_key(struct secrets *s, struct diag *d)
{
	int rc;

	secret_scratch_begin(s);
	rc = cert_load_key(s, pem_path[1], d);
	secret_scratch_end(s);
	return rc;
}

/* A key that was taken signs with each hash, and, with a `chain`, is the one of the certificate. */
static void
pem_check_key(const struct secrets *s, const struct cert_chain *chain, int with_chain)
{
	static const uint8_t hash[64] = { 1 };
	unsigned char mem[CERT_PUBLIC_MAX], sig[CERT_SIGNATURE_MAX];
	br_x509_pkey pk;

	if (with_chain) {
		CHECK(chain->key_type == s->key.type && chain->count >= 1 && chain->count <= TLS_CHAIN_MAX);
		CHECK(strlen(chain->fingerprint) == 64 && chain->cert[0].data == chain->der);
		CHECK(cert_public(&s->key, &pk, mem) == 0 && pk.key_type == chain->key_type);
	}
	CHECK(!with_chain || cert_sign(&s->key, br_sha384_ID, hash, 48, sig, sizeof sig) > 0);
	CHECK(cert_sign(&s->key, br_sha1_ID, hash, 20, sig, sizeof sig) == 0);
	CHECK(cert_sign(&s->key, br_sha256_ID, hash, 31, sig, sizeof sig) == 0);
	CHECK(cert_sign(&s->key, br_sha512_ID, hash, 64, sig, 1) == 0);
}

/* ---- der.c ---- */

/* A number that is not zero, `len` octets. */
static unsigned char *
pem_number(struct input *in, unsigned char *mem, size_t len)
{
	memset(mem, 0x55, len);
	take_octets(in, mem, len);
	mem[0] |= 0x80;
	return mem;
}

static void
pem_key(br_x509_pkey *pk, struct input *in, unsigned kind)
{
	static unsigned char mem[2][512];

	if (kind % 4 < 2) {
		size_t len = kind % 4 == 0 ? 65 : 97;

		pk->key_type = BR_KEYTYPE_EC;
		pk->key.ec = (br_ec_public_key){ kind % 4 == 0 ? BR_EC_secp256r1 : BR_EC_secp384r1,
			pem_number(in, mem[0], len), len };
		mem[0][0] = 4;
	} else {
		size_t len = kind % 4 == 2 ? 256 : 512;

		pk->key_type = BR_KEYTYPE_RSA;
		pk->key.rsa = (br_rsa_public_key){ pem_number(in, mem[0], len), len, pem_number(in, mem[1], 3), 3 };
	}
}

/* A certificate of der.c, for a name and a key of the input, is read by BearSSL and has that key in it. */
static void
pem_certificate(struct input *in)
{
	static unsigned char body[4096], whole[8192];
	unsigned char serial[DER_SERIAL_LEN] = { 0 }, sig[100];
	struct der_name name = { .is_addr = 0 };
	br_x509_decoder_context dc;
	const br_x509_pkey *got;
	br_x509_pkey pk = { 0 };
	struct buf b;
	size_t len;

	pem_key(&pk, in, take_octet(in));
	take_octets(in, serial, sizeof serial);
	take_octets(in, name.cn, take_octet(in) % sizeof name.cn);
	name.is_addr = (take_octet(in) & 1) != 0;
	name.san_len = name.is_addr ? 4 + take_octet(in) % 2 * 12 : take_octet(in);
	take_octets(in, name.san, name.san_len);
	buf_init(&b, body, sizeof body);
	der_request_body(&b, &name, &pk);
	CHECK(!b.full && der_is_sequence(body, b.len) && !der_is_sequence(body, b.len - 1));
	buf_reset(&b);
	der_certificate_body(&b, &name, &pk, serial);
	CHECK(!b.full && der_is_sequence(body, b.len));
	len = b.len;
	buf_init(&b, whole, sizeof whole);
	memset(sig, 0x81, sizeof sig);
	der_signed(&b, body, len, pk.key_type, sig, 1 + take_octet(in) % sizeof sig);
	CHECK(!b.full && der_is_sequence(whole, b.len));
	br_x509_decoder_init(&dc, NULL, NULL);
	br_x509_decoder_push(&dc, whole, b.len);
	got = br_x509_decoder_get_pkey(&dc);
	CHECK(got != NULL && got->key_type == pk.key_type);
	if (pk.key_type == BR_KEYTYPE_EC) {
		CHECK(got->key.ec.qlen == pk.key.ec.qlen && memcmp(got->key.ec.q, pk.key.ec.q, pk.key.ec.qlen) == 0);
	} else {
		CHECK(
		    got->key.rsa.nlen == pk.key.rsa.nlen && memcmp(got->key.rsa.n, pk.key.rsa.n, pk.key.rsa.nlen) == 0);
	}
}

#endif
