/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* Builds and reads RADIUS packets for tests, after RFC 2865 and 2869 and not after radius.c. Include after <cmocka.h>. */
#ifndef MAILSTILE_TEST_RADPKT_H
#define MAILSTILE_TEST_RADPKT_H

#include <bearssl.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { ACCESS_REQUEST = 1, ACCEPT, REJECT, CHALLENGE = 11, MA = 80 };

struct packet {
	size_t len;
	size_t ma; /* where the Message-Authenticator's value is, 0 = none */
	uint8_t p[4400];
};

static void
pkt_begin(struct packet *k, int code, int id)
{
	memset(k, 0, sizeof *k);
	k->p[0] = (uint8_t)code;
	k->p[1] = (uint8_t)id;
	k->len = 20;
}

static void
pkt_attr(struct packet *k, int type, const void *value, size_t len)
{
	assert_in_range(k->len + 2 + len, 22, sizeof k->p);
	k->p[k->len] = (uint8_t)type;
	k->p[k->len + 1] = (uint8_t)(len + 2);
	if (len > 0) {
		memcpy(k->p + k->len + 2, value, len);
	}
	k->len += 2 + len;
}

static void
pkt_text(struct packet *k, int type, const char *s)
{
	pkt_attr(k, type, s, strlen(s));
}

/* A place for the Message-Authenticator, which pkt_seal() fills. */
static void
pkt_ma(struct packet *k)
{
	static const uint8_t zeros[16];

	k->ma = k->len + 2;
	pkt_attr(k, MA, zeros, 16);
}

static void
pkt_hmac(uint8_t out[16], const void *p, size_t len, const char *secret)
{
	br_hmac_key_context kc;
	br_hmac_context hc;

	br_hmac_key_init(&kc, &br_md5_vtable, secret, strlen(secret));
	br_hmac_init(&hc, &kc, 0);
	br_hmac_update(&hc, p, len);
	br_hmac_out(&hc, out);
}

/* The Response Authenticator of p[0..len), an answer to a request with authenticator `auth`. */
static void
pkt_response(uint8_t out[16], const uint8_t *p, size_t len, const uint8_t *auth, const char *secret)
{
	br_md5_context c;

	br_md5_init(&c);
	br_md5_update(&c, p, 4);
	br_md5_update(&c, auth, 16);
	br_md5_update(&c, p + 20, len - 20);
	br_md5_update(&c, secret, strlen(secret));
	br_md5_out(&c, out);
}

static void
pkt_length(struct packet *k, size_t len)
{
	k->p[2] = (uint8_t)(len >> 8);
	k->p[3] = (uint8_t)len;
}

/* Length, Message-Authenticator if there is a place for one, Response Authenticator. */
static void
pkt_seal(struct packet *k, const uint8_t *auth, const char *secret)
{
	uint8_t mac[16];

	pkt_length(k, k->len);
	if (k->ma != 0) {
		memcpy(k->p + 4, auth, 16);
		memset(k->p + k->ma, 0, 16);
		pkt_hmac(mac, k->p, k->len, secret);
		memcpy(k->p + k->ma, mac, 16);
	}
	pkt_response(mac, k->p, k->len, auth, secret);
	memcpy(k->p + 4, mac, 16);
}

/* The n-th attribute of a type (n from 0), or NULL. */
static __attribute__((unused)) const uint8_t *
pkt_find(const uint8_t *p, size_t len, int type, unsigned n)
{
	for (size_t i = 20; i + 2 <= len && p[i + 1] >= 2; i += p[i + 1]) {
		if (p[i] == type && n-- == 0) {
			return p + i;
		}
	}
	return NULL;
}

#endif
