/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* The judge of a next hop's certificate, tlscheck.c, and TLS as a client: tls.c, our own server in a thread at the other end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tlscheck.h"
#include "tlsclient.h"

#include <signal.h>

#define NAME "mail.example.net"
#define NOW (BUILD_EPOCH + INT64_C(86400))

static struct tlscheck check;
static struct conn ours;
static br_x509_trust_anchor anchor; /* the server's certificate itself */
static br_x509_decoder_context leaf;
static unsigned char dn[256];
static size_t dn_len;
static struct relay_pin pins[2]; /* one that fits nobody, the server's */

static void
add_dn(void *ctx, const void *p, size_t len)
{
	(void)ctx;
	assert_in_range(len, 0, sizeof dn - dn_len);
	memcpy(dn + dn_len, p, len);
	dn_len += len;
}

/* ---- SubjectPublicKeyInfo ---- */

/* Feed a certificate in pieces. Returns 1 when the key was found, and its hash. */
static int
feed(const unsigned char *p, size_t len, size_t step, uint8_t hash[32])
{
	struct tlscheck_spki s;

	memset(&s, 0, sizeof s);
	for (size_t at = 0; at < len; at += step) {
		tlscheck_spki_feed(&s, p + at, len - at < step ? len - at : step);
	}
	if (s.bad || s.step != TLSCHECK_DONE || s.left > 0) {
		return 0;
	}
	br_sha256_out(&s.sha, hash);
	return 1;
}

static void
sha256(const void *p, size_t len, uint8_t hash[32])
{
	br_sha256_context c;

	br_sha256_init(&c);
	br_sha256_update(&c, p, len);
	br_sha256_out(&c, hash);
}

#define SPKI_LEN 91 /* of a key on P-256, which begins at 26 */

static void
test_spki(void **state)
{
	const br_x509_certificate *c = &chain.cert[0];
	const unsigned char *key = memmem(c->data, c->data_len, "\x30\x59\x30\x13", 4);
	uint8_t hash[32];

	(void)state;
	assert_got(key);
	for (size_t step = 1; step <= c->data_len; step += step < 20 ? 1 : 50) {
		assert_true(feed(c->data, c->data_len, step, hash));
		assert_memory_equal(hash, pins[1].sha256, 32);
	}
	/* Of each shorter one, it is found once it is there. */
	for (size_t len = 0; len < c->data_len; len++) {
		assert_int_equal(feed(c->data, len, 33, hash), len >= (size_t)(key - c->data) + SPKI_LEN);
	}
}

/* Whatever is wrong with a certificate: when BearSSL takes a key out of it, it is the one that is in our hash. */
static void
test_spki_agrees(void **state)
{
	static const unsigned char changes[] = { 1, 2, 4, 8, 16, 32, 64, 128, 0x80 + 1, 0x1f, 0x7f, 0xff };
	static unsigned char bad[2048];
	size_t len = chain.cert[0].data_len;
	unsigned taken = 0;

	(void)state;
	assert_in_range(len, 1, sizeof bad);
	for (size_t i = 0; i < len; i++) {
		for (unsigned k = 0; k < COUNT(changes); k++) {
			br_x509_decoder_context dc;
			const br_x509_pkey *pk;
			const unsigned char *q;
			uint8_t hash[32], want[32];

			memcpy(bad, chain.cert[0].data, len);
			bad[i] ^= changes[k];
			br_x509_decoder_init(&dc, NULL, NULL);
			br_x509_decoder_push(&dc, bad, len);
			pk = br_x509_decoder_get_pkey(&dc);
			if (pk == NULL || pk->key_type != BR_KEYTYPE_EC || pk->key.ec.qlen != 65) {
				continue;
			}
			taken++;
			assert_true(feed(bad, len, 100, hash));
			q = memmem(bad, len, pk->key.ec.q, pk->key.ec.qlen);
			assert_got(q);
			sha256(q - 26, SPKI_LEN, want);
			assert_memory_equal(hash, want, 32);
		}
	}
	assert_in_range(taken, 500, len * COUNT(changes)); /* most of it is free text, key and signature */
}

static void
test_spki_bad(void **state)
{
	static const struct {
		const char *p;
		size_t len;
	} t[] = {
		{ S("\x31\x10") },
		{ S("\x30\x80") },
		{ S("\x30\x05\x31\x01") },
		{ S("\x30\x82\x00\x10\x30\x10\x04\x01") },
		{ S("\x30\x84\x80\x00\x00\x00") },
		{ S("\x30\x87\x00\x00\x00\x00\x00\x00\x10") },
		{ S("\x30\x84\xff\xff\xff\xff") },
		{ S("\x30\x10\x30\x10\xa0\x01\x02\xa1\x01") },
	};
	struct tlscheck_spki s;

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		memset(&s, 0, sizeof s);
		tlscheck_spki_feed(&s, (const uint8_t *)t[i].p, t[i].len);
		assert_true(s.bad);
		tlscheck_spki_feed(&s, chain.cert[0].data, chain.cert[0].data_len);
		assert_true(s.bad && s.step < TLSCHECK_DONE);
	}
}

/* ---- handshakes ---- */

static void *
serve(void *ctx)
{
	const uint8_t *p;
	size_t len;

	(void)ctx;
	if (conn_start_tls(&conn, 5000) == CONN_OK) {
		/* What comes is sent back, with one more. */
		while (conn_peek(&conn, &p, &len, 5000) == CONN_OK) {
			conn_write(&conn, p, len, 5000);
			conn_take(&conn, len);
		}
		conn_close(&conn, 1000);
	}
	shutdown(sv[0], SHUT_RDWR);
	return NULL;
}

/* A handshake under a policy: its status; what is sent comes back. */
static enum conn_status
shake(enum tls_policy policy, unsigned pins_n, size_t anchors, const char *name, int64_t now)
{
	static uint8_t text[100000], back[100000];
	enum conn_status st;
	pthread_t thread;
	size_t got = 0;

	assert_int_equal(tlscheck_begin(&check, policy, pins, pins_n, &anchor, anchors, name, now), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	conn_init(&conn, sv[0], sv[0], 0);
	conn_setup_tls(&conn, &chain, &warden);
	conn_init(&ours, sv[1], sv[1], 0);
	assert_int_equal(pthread_create(&thread, NULL, serve, NULL), 0);
	st = conn_start_client(&ours, name, &check.vtable, 5000);
	if (st == CONN_OK) {
		random_bytes(text, 4000);
		assert_int_equal(conn_write(&ours, text, 1500, 5000), CONN_OK);
		assert_int_equal(conn_send(&ours, text + 1500, 2500, 5000), CONN_OK);
		assert_int_equal(ours.out_len, 0);
		while (got < 4000) {
			const uint8_t *p;
			size_t len;

			assert_int_equal(conn_peek(&ours, &p, &len, 5000), CONN_OK);
			assert_in_range(len, 1, 4000 - got);
			memcpy(back + got, p, len);
			conn_take(&ours, len);
			got += len;
		}
		assert_memory_equal(text, back, 4000);
		assert_int_equal(ours.eng.session.version, BR_TLS12);
		conn_close(&ours, 1000);
	}
	shutdown(sv[1], SHUT_RDWR);
	pthread_join(thread, NULL);
	close(sv[0]);
	close(sv[1]);
	return st;
}

static void
test_policies(void **state)
{
	(void)state;
	conn_setup_client(&ours);
	assert_int_equal(shake(TLS_MAY, 0, 0, NAME, NOW), CONN_OK);
	assert_int_equal(shake(TLS_ENCRYPT, 0, 0, NULL, 0), CONN_OK);
	assert_int_equal(shake(TLS_ENCRYPT, 0, 0, "other.example.net", 0), CONN_OK);
	assert_int_equal(shake(TLS_VERIFY, 0, 1, NAME, NOW), CONN_OK);
	assert_int_equal(shake(TLS_VERIFY, 0, 1, "MAIL.example.NET", NOW), CONN_OK);
	assert_int_equal(shake(TLS_PIN, 2, 0, NAME, 0), CONN_OK);
	assert_int_equal(shake(TLS_PIN, 2, 0, NULL, 0), CONN_OK);

	assert_int_equal(shake(TLS_VERIFY, 0, 1, "mail.example.org", NOW), CONN_TLS);
	assert_int_equal(ours.tls_error, BR_ERR_X509_BAD_SERVER_NAME);
	assert_int_equal(shake(TLS_VERIFY, 0, 0, NAME, NOW), CONN_TLS);
	assert_int_equal(ours.tls_error, BR_ERR_X509_NOT_TRUSTED);
	assert_int_equal(shake(TLS_VERIFY, 0, 1, NAME, INT64_C(253402300800) + 86400), CONN_TLS); /* year 10000 */
	assert_int_equal(ours.tls_error, BR_ERR_X509_EXPIRED);
	assert_int_equal(shake(TLS_PIN, 1, 0, NAME, NOW), CONN_TLS);
	assert_int_equal(ours.tls_error, TLSCHECK_PIN);
	assert_int_equal(shake(TLS_PIN, 0, 0, NAME, NOW), CONN_TLS);

	/* It cannot be judged at all. */
	assert_int_equal(tlscheck_begin(&check, TLS_VERIFY, NULL, 0, &anchor, 1, NULL, NOW), TLSCHECK_NO_NAME);
	assert_int_equal(
	    tlscheck_begin(&check, TLS_VERIFY, NULL, 0, &anchor, 1, NAME, BUILD_EPOCH - 1), TLSCHECK_CLOCK);
	assert_int_equal(tlscheck_begin(&check, TLS_PIN, pins, 1, NULL, 0, NULL, 0), 0);

	/* Another one with the same context: nothing of the last one stays. */
	assert_int_equal(shake(TLS_PIN, 2, 0, NAME, 0), CONN_OK);
}

/* A chain without a certificate, and certificates that are none. */
static void
test_chains(void **state)
{
	const br_x509_class **v = &check.vtable;
	unsigned usages = 0;

	(void)state;
	for (int policy = TLS_MAY; policy <= TLS_PIN; policy++) {
		assert_int_equal(tlscheck_begin(&check, (enum tls_policy)policy, pins, 2, &anchor, 1, NAME, NOW), 0);
		(*v)->start_chain(v, NAME);
		assert_int_not_equal((*v)->end_chain(v), 0);
		assert_int_equal(tlscheck_begin(&check, (enum tls_policy)policy, pins, 2, &anchor, 1, NAME, NOW), 0);
		(*v)->start_chain(v, NAME);
		(*v)->start_cert(v, 5);
		(*v)->append(v, (const unsigned char *)"\x30\x03\x02\x01\x00", 5);
		(*v)->end_cert(v);
		assert_int_not_equal((*v)->end_chain(v), 0);
		/* What comes behind the leaf has no say. */
		assert_int_equal(tlscheck_begin(&check, (enum tls_policy)policy, pins, 2, &anchor, 1, NAME, NOW), 0);
		(*v)->start_chain(v, NAME);
		for (int i = 0; i < 2; i++) {
			const void *p = i == 0 ? (const void *)"\x30\x03\x02\x01\x00" : chain.cert[0].data;
			size_t len = i == 0 ? 5 : chain.cert[0].data_len;

			(*v)->start_cert(v, (uint32_t)len);
			(*v)->append(v, p, len);
			(*v)->end_cert(v);
		}
		assert_int_not_equal((*v)->end_chain(v), 0);
	}
	assert_int_equal(tlscheck_begin(&check, TLS_MAY, NULL, 0, NULL, 0, NAME, NOW), 0);
	(*v)->start_chain(v, NAME);
	(*v)->start_cert(v, (uint32_t)chain.cert[0].data_len);
	(*v)->append(v, chain.cert[0].data, chain.cert[0].data_len);
	(*v)->end_cert(v);
	assert_int_equal((*v)->end_chain(v), 0);
	assert_int_equal((*v)->get_pkey(v, &usages)->key_type, BR_KEYTYPE_EC);
	assert_int_equal(usages, BR_KEYTYPE_SIGN);
}

static void
test_texts(void **state)
{
	static const int errors[] = { TLSCHECK_CLOCK, TLSCHECK_NO_NAME, TLSCHECK_PIN, BR_ERR_X509_EXPIRED,
		BR_ERR_X509_BAD_SERVER_NAME, BR_ERR_X509_NOT_TRUSTED, BR_ERR_OK, BR_ERR_BAD_MAC, BR_ERR_X509_TRUNCATED,
		BR_ERR_RECV_FATAL_ALERT + 40 };

	(void)state;
	for (size_t i = 0; i < COUNT(errors); i++) {
		for (size_t k = 0; k < i; k++) {
			assert_string_not_equal(tlscheck_text(errors[i]), tlscheck_text(errors[k]));
		}
	}
}

static int
setup(void **state)
{
	static struct findings found;
	const unsigned char *key;

	signal(SIGPIPE, SIG_IGN); /* as main does */
	secrets = secret_map();
	if (secrets == NULL || make_dir(state) == -1 ||
	    cert_generate(in("c.pem"), in("k.pem"), NAME, secrets, &fresh(&found)->d) == -1 ||
	    cert_load(&chain, secrets, in("c.pem"), in("k.pem"), &found.d) == -1) {
		return -1;
	}
	br_x509_decoder_init(&leaf, add_dn, NULL);
	br_x509_decoder_push(&leaf, chain.cert[0].data, chain.cert[0].data_len);
	anchor.dn.data = dn;
	anchor.dn.len = dn_len;
	if (br_x509_decoder_last_error(&leaf) != 0) {
		return -1;
	}
	anchor.pkey = leaf.pkey;
	key = memmem(chain.cert[0].data, chain.cert[0].data_len, "\x30\x59\x30\x13", 4);
	if (key == NULL) {
		return -1;
	}
	sha256(key, SPKI_LEN, pins[1].sha256);
	return 0;
}

static int
teardown(void **state)
{
	cert_free(&chain);
	secret_unmap(secrets);
	return remove_dir(state);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_spki),
		cmocka_unit_test(test_spki_agrees),
		cmocka_unit_test(test_spki_bad),
		cmocka_unit_test(test_policies),
		cmocka_unit_test(test_chains),
		cmocka_unit_test(test_texts),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
