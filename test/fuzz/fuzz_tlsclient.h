/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * A TLS client, BearSSL's own, for the script of fuzz_wire.h. Its settings are a packet of octets: flags (below), suites, curves, hashes, and
 * then three octets for each octet of what it sends that is to be damaged: where, and what to XOR it with.
 */
#ifndef MAILSTILE_TEST_FUZZ_TLSCLIENT_H
#define MAILSTILE_TEST_FUZZ_TLSCLIENT_H

#include "fuzz_pair.h"

/* Flags of the settings. */
#define TLS_RAW 1      /* no client: the script's packets are records */
#define TLS_RESUME 2   /* a session that the warden has */
#define TLS_OTHER_ID 4 /* one that it does not have */
#define TLS_ODD 8      /* one whose suite was never ours */
#define TLS_OLD 16     /* offers TLS 1.1 at most */
#define TLS_RENEGOTIATE 32
#define TLS_CUT 64      /* goes away in the middle of the handshake */
#define TLS_NO_NAME 128 /* no server name */

static struct {
	int on, raw, closed, renegotiates;
	unsigned flags, damaged;
	uint8_t damage[8 * 3];
	size_t fed;             /* of wire.reply, by the engine */
	size_t sent, delivered; /* octets of records, and of them so many were read */
	size_t at;              /* of all records so far: where the next octet stands */
	size_t asked, taken;    /* text sent in script, and taken by smtp.c */
	size_t heard;
	br_ssl_client_context cc;
	br_x509_minimal_context xc;
	br_x509_knownkey_context known;
	uint8_t engine[BR_SSL_BUFSIZE_BIDI], out[1 << 16], text[1 << 14], replies[1 << 17];
} client;
static br_ssl_session_parameters tls_saved;
static struct share_tls tls_share;
static br_ec_impl client_ec;

/* ---- what the server has ---- */

static void
tls_client_key(unsigned kind)
{
	static unsigned char der[] = { 0x30, 0x03, 0x02, 0x01, 0x00 };
	static br_x509_certificate certs[2] = { { der, sizeof der }, { der, sizeof der } };
	struct cert_chain *chain = &fuzz_house()->config->chain;

	chain->curve = kind % 3 == 1 ? BR_EC_secp384r1 : BR_EC_secp256r1;
	chain->key_type = kind % 3 == 2 ? BR_KEYTYPE_RSA : BR_KEYTYPE_EC;
	memcpy(chain->cert, certs, sizeof certs);
	chain->count = 2;
}

static void
tls_client_reset(void)
{
	struct share *s = fuzz_house()->share;

	memset(&client, 0, offsetof(__typeof__(client), cc));
	memset(s->tls, 0, sizeof s->tls);
	s->tls[0] = tls_share;
	s->tls_next = 1;
}

/* ---- the client ---- */

static void
tls_client_suites(br_ssl_engine_context *eng, unsigned bits)
{
	static const uint16_t suites[8] = { BR_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
		BR_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, BR_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		BR_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, BR_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		BR_TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, BR_TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256,
		BR_TLS_RSA_WITH_AES_128_GCM_SHA256 };
	uint16_t chosen[8];
	size_t n = 0;

	for (unsigned i = 0; i < 8; i++) {
		if ((bits >> i & 1) != 0) {
			chosen[n++] = suites[i];
		}
	}
	br_ssl_engine_set_suites(eng, n == 0 ? suites : chosen, n == 0 ? 8 : n);
}

static void
tls_client_start(void)
{
	static unsigned char mem[CERT_PUBLIC_MAX];
	br_ec_public_key pk;
	br_ssl_engine_context *eng = &client.cc.eng;
	uint8_t set[4] = { 0 }, seed[32];
	uint64_t random = 2;

	client.on = 1;
	wire_event(1);
	take_octets(&wire.packet, set, sizeof set);
	client.damaged = (unsigned)take_octets(&wire.packet, client.damage, sizeof client.damage) / 3;
	wire.packet.len = 0;
	client.flags = set[0];
	client.raw = (set[0] & TLS_RAW) != 0;
	client.fed = wire.said;
	br_ssl_client_init_full(&client.cc, &client.xc, NULL, 0);
	br_ec_compute_pub(br_ec_get_default(), &pk, mem, &fuzz_house()->config->secrets->key.ec);
	br_x509_knownkey_init_ec(&client.known, &pk, BR_KEYTYPE_SIGN | BR_KEYTYPE_KEYX);
	br_ssl_engine_set_x509(eng, &client.known.vtable);
	br_ssl_engine_set_versions(eng, BR_TLS10, (set[0] & TLS_OLD) != 0 ? BR_TLS11 : BR_TLS12);
	tls_client_suites(eng, set[1]);
	client_ec = *br_ec_get_default();
	if (set[2] % 16 != 0) {
		client_ec.supported_curves = (set[2] & 1U) << BR_EC_secp256r1 | (set[2] >> 1 & 1U) << BR_EC_curve25519 |
		    (set[2] >> 2 & 1U) << BR_EC_secp384r1 | (set[2] >> 3 & 1U) << BR_EC_secp521r1;
	}
	br_ssl_engine_set_ec(eng, &client_ec);
	for (int id = br_sha1_ID; id <= br_sha512_ID; id++) {
		if ((set[3] >> id & 1) != 0) {
			br_ssl_engine_set_hash(eng, id, NULL);
		}
	}
	wire_random_bytes(&random, seed, sizeof seed);
	br_ssl_engine_inject_entropy(eng, seed, sizeof seed);
	eng->rng_os_rand_done = 1;
	br_ssl_engine_set_buffer(eng, client.engine, sizeof client.engine, 1);
	if ((set[0] & (TLS_RESUME | TLS_OTHER_ID)) != 0) {
		br_ssl_engine_set_session_parameters(eng, &tls_saved);
		eng->session.session_id[0] ^= (set[0] & TLS_OTHER_ID) != 0;
		fuzz_house()->share->tls[0].suite ^= (set[0] & TLS_ODD) != 0 ? 0x1111 : 0;
	}
	br_ssl_client_reset(&client.cc, (set[0] & TLS_NO_NAME) != 0 ? NULL : "mx.example.org",
	    (set[0] & (TLS_RESUME | TLS_OTHER_ID)) != 0);
}

/* Does the client talk, and not the script? */
static int
wire_tls(void)
{
	if (wire.conn->tls && !client.on) {
		tls_client_start();
	}
	return client.on && !client.raw;
}

/* What the client's engine sends goes into client.out, damaged where the script says. */
static void
tls_client_send(br_ssl_engine_context *eng)
{
	size_t n;
	const uint8_t *p = br_ssl_engine_sendrec_buf(eng, &n);

	if (client.delivered == client.sent) {
		client.delivered = client.sent = 0;
	}
	CHECK(n <= sizeof client.out - client.sent);
	memcpy(client.out + client.sent, p, n);
	for (unsigned i = 0; i < client.damaged; i++) {
		size_t where = (size_t)client.damage[3 * i] << 8 | client.damage[3 * i + 1];

		if (where >= client.at && where - client.at < n) {
			client.out[client.sent + where - client.at] ^= client.damage[3 * i + 2];
		}
	}
	client.sent += n;
	client.at += n;
	br_ssl_engine_sendrec_ack(eng, n);
}

/* Text into the engine: the next packet of the script. 1, or what wire_event() says. */
static int
tls_client_text(br_ssl_engine_context *eng, int64_t ms)
{
	int r = wire_event(ms);

	if (r != 1 || wire.error != 0) {
		return r;
	}
	if (wire.packet.len == 0) {
		client.closed = 1;
		br_ssl_engine_close(eng);
		return 1;
	}
	while (wire.packet.len > 0 && (br_ssl_engine_current_state(eng) & BR_SSL_SENDAPP) != 0) {
		size_t n;
		uint8_t *p = br_ssl_engine_sendapp_buf(eng, &n);

		n = take_octets(&wire.packet, p, n);
		CHECK(n <= sizeof client.text - client.asked);
		memcpy(client.text + client.asked, p, n);
		client.asked += n;
		br_ssl_engine_sendapp_ack(eng, n);
		br_ssl_engine_flush(eng, 0);
	}
	if ((client.flags & TLS_RENEGOTIATE) != 0 && !client.renegotiates) {
		client.renegotiates = 1;
		br_ssl_engine_renegotiate(eng);
	}
	return 1;
}

/* Move what can be moved until there is something to read, or never will be; as wire_event(). */
static int
wire_tls_fetch(int64_t ms)
{
	br_ssl_engine_context *eng = &client.cc.eng;

	while (client.delivered == client.sent) {
		unsigned state = br_ssl_engine_current_state(eng);
		size_t n;
		uint8_t *p;

		if ((state & BR_SSL_SENDREC) != 0) {
			if ((client.flags & TLS_CUT) != 0 && client.at > 0) {
				return 1;
			}
			tls_client_send(eng);
		} else if ((state & BR_SSL_RECVAPP) != 0) {
			p = br_ssl_engine_recvapp_buf(eng, &n);
			CHECK(n <= sizeof client.replies - client.heard);
			memcpy(client.replies + client.heard, p, n);
			client.heard += n;
			br_ssl_engine_recvapp_ack(eng, n);
		} else if ((state & BR_SSL_RECVREC) != 0 && client.fed < wire.said) {
			p = br_ssl_engine_recvrec_buf(eng, &n);
			n = n < wire.said - client.fed ? n : wire.said - client.fed;
			memcpy(p, wire.reply + client.fed, n);
			client.fed += n;
			br_ssl_engine_recvrec_ack(eng, n);
		} else if ((state & BR_SSL_SENDAPP) != 0 && !client.closed) {
			int r = tls_client_text(eng, ms);

			if (r != 1 || wire.error != 0) {
				return r;
			}
		} else {
			return 1; /* the end */
		}
	}
	return 1;
}

static size_t
wire_tls_read(void *p, size_t cap)
{
	size_t n = client.sent - client.delivered;

	n = n < cap ? n : cap;
	memcpy(p, client.out + client.delivered, n);
	client.delivered += n;
	return n;
}

/* ---- what must be true ---- */

/* smtp.c reads what the client has sent, whatever was done to its records. */
static unsigned char *
wire_recvapp_buf(const br_ssl_engine_context *eng, size_t *len)
{
	unsigned char *p = br_ssl_engine_recvapp_buf(eng, len);

	if (p != NULL && !client.raw) {
		CHECK(*len <= client.asked - client.taken && memcmp(p, client.text + client.taken, *len) == 0);
	}
	return p;
}

static void
wire_recvapp_ack(br_ssl_engine_context *eng, size_t len)
{
	client.taken += client.raw ? 0 : len;
	br_ssl_engine_recvapp_ack(eng, len);
}

/* After a session: the client understood everything it heard, if it could. */
static void
tls_client_check(void)
{
	int err = br_ssl_engine_last_error(&client.cc.eng);

	if (!client.on || client.raw) {
		fuzz_check_replies(wire.reply, client.on ? client.fed : wire.said);
		return;
	}
	wire_tls_fetch(1);
	fuzz_check_replies(client.replies, client.heard);
	/* This client takes no text any more once it has asked to negotiate anew, which is refused. */
	if (client.damaged == 0 && warden->tls && !wire.stuck && !client.renegotiates) {
		CHECK(err == BR_ERR_OK);
		CHECK(warden->tls_version == BR_TLS12 && strcmp(tls_suite_name(warden->tls_suite), "unknown") != 0);
		/* Both know alike whether it is the session of before. */
		CHECK(warden->resumed ==
		    (memcmp(client.cc.eng.session.session_id, tls_saved.session_id, sizeof tls_saved.session_id) == 0));
	}
}

/* A session that can be resumed: made once. */
static void
tls_client_remember(void)
{
	static const char text[] = "\0\0\0\0\377EHLO a\r\nQUIT\r\n";

	if (tls_saved.session_id_len != 0) {
		return;
	}
	tls_client_key(0);
	tls_client_reset();
	wire_seed = 3; /* or later sessions would have its id */
	fuzz_pair(8 | PROFILE_SUBMISSIONS, &(struct input){ (const uint8_t *)text, sizeof text - 1 });
	wire_seed = 1;
	tls_client_check();
	br_ssl_engine_get_session_parameters(&client.cc.eng, &tls_saved);
	tls_share = fuzz_house()->share->tls[0];
	for (size_t i = 0; i < TLS_CACHE_MAX; i++) {
		tls_share = fuzz_house()->share->tls[i].until != 0 ? fuzz_house()->share->tls[i] : tls_share;
	}
	CHECK(client.heard > 0 && tls_saved.session_id_len == 32 && tls_share.until != 0);
}

#endif
