/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* A TLS client in a thread, BearSSL's own, and the warden's part of a connection. Include after <cmocka.h>. */
#ifndef MAILSTILE_TEST_TLSCLIENT_H
#define MAILSTILE_TEST_TLSCLIENT_H

#include "str.h"
#include "tls.h"
#include "unit.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>

static struct secrets *secrets;
static struct cert_chain chain;
static struct conn conn;
static int sv[2]; /* 0: ours, 1: the client's */

/* ---- what the warden would do ---- */

static unsigned signs, gets, puts_;
static int refuse;
static br_ssl_session_parameters cached;

static size_t
do_sign(void *ctx, unsigned hash_id, const uint8_t *hash, size_t len, uint8_t *sig, size_t cap)
{
	assert_ptr_equal(ctx, &cached);
	signs++;
	return refuse ? 0 : cert_sign(&secrets->key, hash_id, hash, len, sig, cap);
}

static int
do_get(void *ctx, br_ssl_session_parameters *p)
{
	(void)ctx;
	gets++;
	if (cached.session_id_len == 0 || memcmp(p->session_id, cached.session_id, 32) != 0) {
		return 0;
	}
	*p = cached;
	return 1;
}

static void
do_put(void *ctx, const br_ssl_session_parameters *p)
{
	(void)ctx;
	puts_++;
	cached = *p;
}

static const struct tls_warden warden = { .ctx = &cached, .sign = do_sign, .get = do_get, .put = do_put };

/* ---- a client ---- */

struct client {
	/* told */
	unsigned version_min, version_max;
	const uint16_t *suites;
	size_t suites_n;
	const br_ssl_session_parameters *resume;
	size_t send, receive; /* octets; their values count from 0 */
	int renegotiate, spoil, no_close;
	/* learnt */
	int error, clean;
	size_t received;
	br_ssl_session_parameters session;
	pthread_t thread;
	br_ssl_client_context cc;
	br_x509_minimal_context xc;
	br_x509_knownkey_context known;
	br_sslio_context io;
	uint8_t buffer[BR_SSL_BUFSIZE_BIDI];
};

static int
low_read(void *ctx, unsigned char *p, size_t len)
{
	ssize_t n = read(*(int *)ctx, p, len);

	return n <= 0 ? -1 : (int)n;
}

static int
low_write(void *ctx, const unsigned char *p, size_t len)
{
	ssize_t n = send(*(int *)ctx, p, len < 1000 ? len : 1000, MSG_NOSIGNAL);

	return n <= 0 ? -1 : (int)n;
}

static void *
client_run(void *ctx)
{
	struct client *c = ctx;
	br_ssl_engine_context *eng = &c->cc.eng;
	br_x509_decoder_context dc;
	uint8_t chunk[777];

	br_x509_decoder_init(&dc, NULL, NULL);
	br_x509_decoder_push(&dc, chain.cert[0].data, chain.cert[0].data_len);
	br_ssl_client_init_full(&c->cc, &c->xc, NULL, 0);
	br_x509_knownkey_init_ec(&c->known, &br_x509_decoder_get_pkey(&dc)->key.ec, BR_KEYTYPE_SIGN);
	br_ssl_engine_set_x509(eng, &c->known.vtable);
	br_ssl_engine_set_versions(eng, c->version_min, c->version_max);
	if (c->suites != NULL) {
		br_ssl_engine_set_suites(eng, c->suites, c->suites_n);
	}
	if (c->resume != NULL) {
		br_ssl_engine_set_session_parameters(eng, c->resume);
	}
	br_ssl_engine_set_buffer(eng, c->buffer, sizeof c->buffer, 1);
	br_ssl_client_reset(&c->cc, "mail.example.net", c->resume != NULL);
	br_sslio_init(&c->io, eng, low_read, &sv[1], low_write, &sv[1]);
	for (size_t n = 0; n < c->send;) {
		size_t k = 0;

		for (; k < sizeof chunk && n < c->send; k++, n++) {
			chunk[k] = (uint8_t)n;
		}
		if (br_sslio_write_all(&c->io, chunk, k) == -1) {
			break;
		}
		if (c->renegotiate) {
			c->renegotiate = 0;
			br_sslio_flush(&c->io);
			br_ssl_engine_renegotiate(eng);
		}
	}
	br_sslio_flush(&c->io);
	br_ssl_engine_get_session_parameters(eng, &c->session);
	if (c->spoil) {
		/* A record that nobody with the keys made. */
		send(sv[1],
		    "\x17\x03\x03\x00\x20"
		    "0123456789abcdef0123456789abcdef",
		    37, MSG_NOSIGNAL);
	}
	while (c->received < c->receive) {
		int n = br_sslio_read(&c->io, chunk, sizeof chunk);

		for (int i = 0; i < n; i++) {
			if (chunk[i] != (uint8_t)(c->received + (size_t)i)) {
				c->error = -1;
			}
		}
		if (n <= 0) {
			break;
		}
		c->received += (size_t)n;
	}
	if (c->error == 0) {
		c->error = br_ssl_engine_last_error(eng);
	}
	if (!c->no_close && c->error == 0) {
		c->clean = br_sslio_close(&c->io) != 0; /* 1 is success, whatever its manual says */
	}
	shutdown(sv[1], SHUT_WR);
	return NULL;
}

static UNUSED struct client *
client_new(void)
{
	static struct client c;

	memset(&c, 0, sizeof c);
	c.version_min = c.version_max = BR_TLS12;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	signs = gets = puts_ = 0;
	conn_init(&conn, sv[0], sv[0], 0);
	conn_setup_tls(&conn, &chain, &warden);
	return &c;
}

static UNUSED void
client_start(struct client *c)
{
	assert_int_equal(pthread_create(&c->thread, NULL, client_run, c), 0);
}

static UNUSED void
client_join(struct client *c)
{
	shutdown(sv[0], SHUT_RDWR);
	pthread_join(c->thread, NULL);
	close(sv[0]);
	close(sv[1]);
}

#endif
