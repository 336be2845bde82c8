/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* The seals of RADIUS packets. Wardens, the accountant's and the keeper's processes; what is checked here comes off the network. */
#include "radseal.h"

#include "str.h"

#include <bearssl.h>
#include <string.h>

#define HEADER RADSEAL_HEADER

enum { ACCESS_REQUEST = 1, ACCOUNTING_REQUEST = 4, STATUS_SERVER_REQUEST = 12, NAS_IDENTIFIER = 32 };

void
radseal_mac(uint8_t out[16], const uint8_t *p, size_t len, const char *secret)
{
	br_hmac_key_context kc;
	br_hmac_context hc;

	br_hmac_key_init(&kc, &br_md5_vtable, secret, strlen(secret));
	br_hmac_init(&hc, &kc, 16);
	br_hmac_update(&hc, p, len);
	br_hmac_out(&hc, out);
	explicit_bzero(&kc, sizeof kc);
}

void
radseal_response(uint8_t out[16], const uint8_t *p, size_t len, const uint8_t *request, const char *secret)
{
	br_md5_context mc;

	/* MD5(code, id, length, Request Authenticator, attributes, secret): RFC 2865 3. */
	br_md5_init(&mc);
	br_md5_update(&mc, p, 4);
	br_md5_update(&mc, request + 4, 16);
	br_md5_update(&mc, p + HEADER, len - HEADER);
	br_md5_update(&mc, secret, strlen(secret));
	br_md5_out(&mc, out);
	explicit_bzero(&mc, sizeof mc);
}

static int
differ(const uint8_t *a, const uint8_t *b, size_t len)
{
	uint8_t d = 0;

	for (size_t i = 0; i < len; i++) {
		d |= (uint8_t)(a[i] ^ b[i]);
	}
	return d != 0;
}

void
radseal_put_length(uint8_t *p, size_t len)
{
	p[2] = (uint8_t)(len >> 8);
	p[3] = (uint8_t)len;
}

int
radseal_length(const uint8_t *p, size_t len)
{
	int l;

	if (len < 4) {
		return 0;
	}
	l = p[2] << 8 | p[3];
	return l < HEADER || l > RADIUS_PACKET_MAX ? -1 : l;
}

/* Walk the attributes: well formed to the last octet, at most one Message-Authenticator (*ma, or NULL). */
static int
attributes_ok(uint8_t *p, size_t len, uint8_t **ma)
{
	size_t i = HEADER;

	*ma = NULL;
	while (i < len) {
		if (len - i < 2 || p[i] == 0 || p[i + 1] < 2 || p[i + 1] > len - i) {
			return 0;
		}
		if (p[i] == RADSEAL_MA) {
			if (*ma != NULL || p[i + 1] != 18) {
				return 0;
			}
			*ma = p + i;
		}
		i += p[i + 1];
	}
	return 1;
}

/*
 * The Message-Authenticator of an answer is computed with the Request Authenticator in place and itself zero (RFC 2869 5.14); where it
 * stands does not matter. Leaves these two so.
 */
static void
reply_mac(uint8_t out[16], uint8_t *p, size_t len, uint8_t *ma, const uint8_t *request, const char *secret)
{
	memcpy(p + 4, request + 4, 16);
	memset(ma + 2, 0, 16);
	radseal_mac(out, p, len, secret);
}

enum radius_trouble
radseal_check(uint8_t *p, size_t *len, const uint8_t *request, const char *secret, int unsigned_ok)
{
	uint8_t mac[16], sent_auth[16], sent_mac[16];
	int l = radseal_length(p, *len);
	uint8_t *ma;

	if (l < HEADER || (size_t)l > *len || p[1] != request[1] || !attributes_ok(p, (size_t)l, &ma)) {
		return RADIUS_NO_ANSWER;
	}
	radseal_response(mac, p, (size_t)l, request, secret);
	if (differ(mac, p + 4, 16)) {
		return RADIUS_WRONG_SECRET;
	}
	if (ma == NULL) {
		if (!unsigned_ok) {
			return RADIUS_UNSIGNED;
		}
	} else {
		memcpy(sent_auth, p + 4, 16);
		memcpy(sent_mac, ma + 2, 16);
		reply_mac(mac, p, (size_t)l, ma, request, secret);
		memcpy(p + 4, sent_auth, 16);
		memcpy(ma + 2, sent_mac, 16);
		if (differ(mac, sent_mac, 16)) {
			return RADIUS_WRONG_SECRET;
		}
	}
	*len = (size_t)l;
	return RADIUS_OK;
}

#if KEEPER

int
radseal_request_anew(uint8_t *p, size_t len, uint8_t id, const char *secret)
{
	static const uint8_t zero[HEADER];
	uint8_t mac[16];
	uint8_t *ma;

	if (len < HEADER || radseal_length(p, len) != (int)len || !attributes_ok(p, len, &ma)) {
		return -1;
	}
	p[1] = id;
	if (p[0] == ACCOUNTING_REQUEST && ma == NULL) {
		radseal_response(mac, p, len, zero, secret);
		memcpy(p + 4, mac, 16);
	} else if (p[0] == ACCESS_REQUEST && ma != NULL) {
		memset(ma + 2, 0, 16);
		radseal_mac(mac, p, len, secret);
		memcpy(ma + 2, mac, 16);
	} else {
		return -1;
	}
	return 0;
}

void
radseal_reply_anew(uint8_t *p, size_t len, const uint8_t *request, const char *secret)
{
	uint8_t mac[16];
	uint8_t *ma;

	p[1] = request[1];
	if (attributes_ok(p, len, &ma) && ma != NULL) {
		reply_mac(mac, p, len, ma, request, secret);
		memcpy(ma + 2, mac, 16);
	}
	radseal_response(mac, p, len, request, secret);
	memcpy(p + 4, mac, 16);
}

size_t
radseal_status(uint8_t p[RADSEAL_STATUS_MAX], uint8_t id, const char *nas, const char *secret)
{
	const void *name = nas;
	size_t n = strlen(nas);
	size_t len = HEADER + 18;

	if (n > 253) {
		n = 253;
	}
	memset(p, 0, HEADER + 18);
	p[0] = STATUS_SERVER_REQUEST;
	p[1] = id;
	random_bytes(p + 4, 16);
	p[HEADER] = RADSEAL_MA;
	p[HEADER + 1] = 18;
	if (n > 0) {
		p[len] = NAS_IDENTIFIER;
		p[len + 1] = (uint8_t)(n + 2);
		memcpy(p + len + 2, name, n);
		len += n + 2;
	}
	radseal_put_length(p, len);
	radseal_mac(p + HEADER + 2, p, len, secret);
	return len;
}

#endif
