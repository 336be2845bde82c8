/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * A connection, plain or TLS 1.2: a client's, for the smtp process, and one to a next hop, for remotes. BearSSL does TLS; it allocates
 * nothing. Only ECDHE with AEAD is offered, in either part; as a server on X25519 and P-256. The private key is the warden's: the policy
 * class below asks it for the one signature of a handshake, and for sessions to resume. SIGTERM stays blocked but while waiting in ppoll(), so that no wake-up is lost.
 */
#include "tls.h"

#include "str.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

volatile sig_atomic_t conn_stop;

/* ---- waiting, reading, writing ---- */

static enum conn_status
wait_for(struct conn *c, int fd, short events, int64_t until)
{
	static const sigset_t none;

	if (until > c->deadline) {
		until = c->deadline;
	}
	for (;;) {
		struct pollfd p[2] = { { .fd = fd, .events = events }, { .fd = c->watch, .events = c->watch_for } };
		int64_t left = until - mono_ms();
		struct timespec ts = { .tv_sec = (time_t)(left / 1000), .tv_nsec = (long)(left % 1000) * 1000000 };
		int r;

		if (conn_stop && !c->busy) {
			return CONN_STOP;
		}
		if (left <= 0) {
			return CONN_TIMEOUT;
		}
		r = ppoll(p, 2, &ts, &none);
		if (p[1].revents != 0 && r > 0) {
			c->watch = -1; /* once: the last words must get out */
			return CONN_STOP;
		}
		if (r > 0) {
			return CONN_OK;
		}
		if (r == -1 && errno != EINTR) {
			return CONN_EOF;
		}
	}
}

static enum conn_status
raw_read(struct conn *c, void *p, size_t cap, size_t *len, int64_t until)
{
	/* Where the last read took all it could there is probably more; else the client still has to think. */
	int wait = !c->eager;

	for (;;) {
		enum conn_status st = wait ? wait_for(c, c->rfd, POLLIN, until) : CONN_OK;
		ssize_t n;

		if (st != CONN_OK) {
			return st;
		}
		wait = 1;
		n = read(c->rfd, p, cap);
		if (n > 0) {
			*len = (size_t)n;
			c->eager = c->nonblock && *len == cap && c->busy;
			c->octets_in += (uint64_t)n;
			return CONN_OK;
		}
		if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
			return CONN_EOF;
		}
	}
}

static enum conn_status
raw_write(struct conn *c, const void *p, size_t len, int64_t until)
{
	const uint8_t *s = p;
	int wait = !c->nonblock;

	while (len > 0) {
		enum conn_status st = wait ? wait_for(c, c->wfd, POLLOUT, until) : CONN_OK;
		ssize_t n;

		if (st == CONN_STOP) {
			/* What was already decided is still said. */
			c->busy = 1;
			st = wait_for(c, c->wfd, POLLOUT, until);
			c->busy = 0;
		}
		if (st != CONN_OK) {
			return st;
		}
		wait = 1;
		n = write(c->wfd, s, len);
		if (n == -1 && errno != EINTR && errno != EAGAIN) {
			return CONN_EOF;
		}
		if (n > 0) {
			s += n;
			len -= (size_t)n;
			c->octets_out += (uint64_t)n;
		}
	}
	return CONN_OK;
}

/* ---- the TLS engine ---- */

/* Move records until the engine is in one of the states `want` (0: until nothing is left to send). */
static enum conn_status
engine_run(struct conn *c, unsigned want, int64_t until)
{
	br_ssl_engine_context *eng = &c->eng;

	for (;;) {
		unsigned state = br_ssl_engine_current_state(eng);
		enum conn_status st;
		uint8_t *p;
		size_t len;

		if ((state & BR_SSL_SENDREC) != 0) {
			p = br_ssl_engine_sendrec_buf(eng, &len);
			st = raw_write(c, p, len, until);
			if (st != CONN_OK) {
				return st;
			}
			br_ssl_engine_sendrec_ack(eng, len);
			continue;
		}
		if ((state & BR_SSL_CLOSED) != 0) {
			c->tls_error = br_ssl_engine_last_error(eng);
			return c->tls_error == BR_ERR_OK ? CONN_EOF : CONN_TLS;
		}
		if (want == 0 || (state & want) != 0) {
			return CONN_OK;
		}
		if ((state & BR_SSL_RECVREC) == 0) {
			c->tls_error = BR_ERR_BAD_STATE;
			return CONN_TLS;
		}
		p = br_ssl_engine_recvrec_buf(eng, &len);
		st = raw_read(c, p, len, &len, until);
		if (st != CONN_OK) {
			return st;
		}
		br_ssl_engine_recvrec_ack(eng, len);
	}
}

static struct conn *
conn_of_policy(const br_ssl_server_policy_class **p)
{
	return (struct conn *)((uintptr_t)p - offsetof(struct conn, policy));
}

static struct conn *
conn_of_cache(const br_ssl_session_cache_class **p)
{
	return (struct conn *)((uintptr_t)p - offsetof(struct conn, cache));
}

/* The hash for the signature: one that the client and we have, stronger only when the key asks for it. 0 = none. */
static unsigned
choose_hash(const struct cert_chain *chain, uint32_t client)
{
	static const unsigned order256[] = { br_sha256_ID, br_sha384_ID, br_sha512_ID };
	static const unsigned order384[] = { br_sha384_ID, br_sha512_ID, br_sha256_ID };
	const unsigned *order = chain->curve == BR_EC_secp384r1 ? order384 : order256;

	for (size_t i = 0; i < 3; i++) {
		if ((client >> order[i] & 1) != 0) {
			return order[i];
		}
	}
	return 0;
}

static int
policy_choose(const br_ssl_server_policy_class **pctx, const br_ssl_server_context *cc, br_ssl_server_choices *choices)
{
	struct conn *c = conn_of_policy(pctx);
	const struct cert_chain *chain = c->chain;
	int ec = chain->key_type == BR_KEYTYPE_EC;
	uint32_t hashes = br_ssl_server_get_client_hashes(cc);
	unsigned hash = choose_hash(chain, ec ? hashes >> 8 : hashes);
	const br_suite_translated *st;
	size_t n;

	/* A full handshake, even if the cache had the session: the client may not offer its suite any more. */
	c->resumed = 0;
	/* The engine keeps only the curves it can do ECDHE on, so this says nothing about P-384 certificates. */
	if (hash == 0 ||
	    (ec && chain->curve == BR_EC_secp256r1 && (br_ssl_server_get_client_curves(cc) >> chain->curve & 1) == 0)) {
		return 0;
	}
	st = br_ssl_server_get_client_suites(cc, &n);
	for (size_t i = 0; i < n; i++) {
		unsigned keyx = st[i][1] >> 12;

		if (keyx == (ec ? BR_SSLKEYX_ECDHE_ECDSA : BR_SSLKEYX_ECDHE_RSA)) {
			choices->cipher_suite = st[i][0];
			choices->algo_id = 0xff00 + hash;
			choices->chain = chain->cert;
			choices->chain_len = chain->count;
			return 1;
		}
	}
	return 0;
}

static uint32_t
policy_keyx(const br_ssl_server_policy_class **pctx, unsigned char *data, size_t *len)
{
	(void)pctx;
	(void)data;
	(void)len;
	return 0; /* only ephemeral key exchange is offered, which the engine does itself */
}

static size_t
policy_sign(const br_ssl_server_policy_class **pctx, unsigned algo, unsigned char *data, size_t hash_len, size_t cap)
{
	const struct tls_warden *w = conn_of_policy(pctx)->warden;
	uint8_t hash[64];

	if (hash_len > sizeof hash) {
		return 0;
	}
	memcpy(hash, data, hash_len);
	return w->sign(w->ctx, algo & 0xff, hash, hash_len, data, cap);
}

static const br_ssl_server_policy_class policy_class = {
	.context_size = sizeof(const br_ssl_server_policy_class *),
	.choose = policy_choose,
	.do_keyx = policy_keyx,
	.do_sign = policy_sign,
};

static void
cache_save(const br_ssl_session_cache_class **ctx, br_ssl_server_context *sc, const br_ssl_session_parameters *p)
{
	const struct tls_warden *w = conn_of_cache(ctx)->warden;

	(void)sc;
	w->put(w->ctx, p);
}

static int
cache_load(const br_ssl_session_cache_class **ctx, br_ssl_server_context *sc, br_ssl_session_parameters *p)
{
	struct conn *c = conn_of_cache(ctx);

	(void)sc;
	c->resumed = c->warden->get(c->warden->ctx, p);
	return c->resumed;
}

static const br_ssl_session_cache_class cache_class = {
	.context_size = sizeof(const br_ssl_session_cache_class *),
	.save = cache_save,
	.load = cache_load,
};

void
conn_init(struct conn *c, int rfd, int wfd, int nonblock)
{
	memset(c, 0, offsetof(struct conn, sc));
	c->rfd = rfd;
	c->wfd = wfd;
	c->watch = -1;
	c->deadline = INT64_MAX;
	c->nonblock = nonblock;
}

/* What a server and a client have in common. */
static void
setup_engine(br_ssl_engine_context *eng)
{
	static const uint16_t suites[] = {
		BR_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
		BR_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		BR_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		BR_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		BR_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		BR_TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	};

	br_ssl_engine_set_versions(eng, BR_TLS12, BR_TLS12);
	br_ssl_engine_set_suites(eng, suites, sizeof suites / sizeof suites[0]);
	br_ssl_engine_set_hash(eng, br_sha256_ID, &br_sha256_vtable);
	br_ssl_engine_set_hash(eng, br_sha384_ID, &br_sha384_vtable);
	br_ssl_engine_set_hash(eng, br_sha512_ID, &br_sha512_vtable);
	br_ssl_engine_set_prf_sha256(eng, &br_tls12_sha256_prf);
	br_ssl_engine_set_prf_sha384(eng, &br_tls12_sha384_prf);
	br_ssl_engine_set_default_aes_gcm(eng);
	br_ssl_engine_set_default_chapol(eng);
	br_ssl_engine_add_flags(eng, BR_OPT_NO_RENEGOTIATION);
}

void
conn_setup_tls(struct conn *c, const struct cert_chain *chain, const struct tls_warden *w)
{
	c->chain = chain;
	c->warden = w;
	c->policy = &policy_class;
	c->cache = &cache_class;
	br_ssl_server_zero(&c->sc);
	setup_engine(&c->eng);
	c->ec = *br_ec_get_default();
	c->ec.supported_curves = 1U << BR_EC_secp256r1 | 1U << BR_EC_curve25519;
	br_ssl_engine_set_ec(&c->eng, &c->ec);
	br_ssl_server_set_policy(&c->sc, &c->policy);
	br_ssl_server_set_cache(&c->sc, &c->cache);
}

/* No sessions are resumed: a remote has one connection or two, and nobody to ask for those of others. */
void
conn_setup_client(struct conn *c)
{
	br_ssl_client_zero(&c->cc);
	setup_engine(&c->eng);
	/* With all curves it has: keys of certificates are on P-384, too. */
	br_ssl_engine_set_ec(&c->eng, br_ec_get_default());
	br_ssl_engine_set_rsavrfy(&c->eng, br_rsa_pkcs1_vrfy_get_default());
	br_ssl_engine_set_ecdsa(&c->eng, br_ecdsa_vrfy_asn1_get_default());
}

/* Seed the engine: in each process anew. */
static void
seed_engine(struct conn *c)
{
	br_ssl_engine_context *eng = &c->eng;
	uint8_t seed[32];

	/* The engine would open /dev/urandom, which the jail has not: seed it here, and say that the system's part is done. */
	random_bytes(seed, sizeof seed);
	br_ssl_engine_inject_entropy(eng, seed, sizeof seed);
	eng->rng_os_rand_done = 1;
	explicit_bzero(seed, sizeof seed);
}

static void
arm_engine(struct conn *c)
{
	seed_engine(c);
	br_ssl_engine_set_buffers_bidi(&c->eng, c->in, sizeof c->in, c->rec_out, sizeof c->rec_out);
}

/* Before a handshake: nothing of ours is left to be sent in the clear. */
static enum conn_status
before_handshake(struct conn *c, int timeout_ms)
{
	enum conn_status st = conn_flush(c, timeout_ms);

	if (st == CONN_OK) {
		arm_engine(c);
	}
	return st;
}

static enum conn_status
shake_hands(struct conn *c, int timeout_ms)
{
	enum conn_status st;

	c->tls = 1;
	st = engine_run(c, BR_SSL_SENDAPP, mono_ms() + timeout_ms);
	return st == CONN_EOF && c->tls_error != 0 ? CONN_TLS : st;
}

static enum conn_status
not_started(struct conn *c)
{
	c->tls_error = br_ssl_engine_last_error(&c->eng);
	return CONN_TLS;
}

enum conn_status
conn_start_tls(struct conn *c, int timeout_ms)
{
	enum conn_status st = before_handshake(c, timeout_ms);

	if (st != CONN_OK) {
		return st;
	}
	if (!br_ssl_server_reset(&c->sc)) {
		return not_started(c);
	}
	/* Until a version is agreed on, alerts bear one that old clients can read; else it would be 0, and they would see garbage. */
	c->eng.version_out = BR_TLS10;
	return shake_hands(c, timeout_ms);
}

enum conn_status
conn_begin_client(struct conn *c, const char *name, const br_x509_class **x509)
{
	arm_engine(c);
	br_ssl_engine_set_x509(&c->eng, x509);
	return br_ssl_client_reset(&c->cc, name, 0) ? CONN_OK : not_started(c);
}

enum conn_status
conn_start_client(struct conn *c, const char *name, const br_x509_class **x509, int timeout_ms)
{
	enum conn_status st = conn_flush(c, timeout_ms);

	if (st == CONN_OK) {
		st = conn_begin_client(c, name, x509);
	}
	return st == CONN_OK ? shake_hands(c, timeout_ms) : st;
}

enum conn_status
conn_peek(struct conn *c, const uint8_t **p, size_t *len, int timeout_ms)
{
	int64_t until = mono_ms() + timeout_ms;
	enum conn_status st;

	if (c->tls) {
		*p = br_ssl_engine_recvapp_buf(&c->eng, len);
		if (*p != NULL) {
			return CONN_OK;
		}
	} else if (c->in_len > 0) {
		*p = c->in + c->in_pos;
		*len = c->in_len;
		return CONN_OK;
	}
	st = conn_flush(c, timeout_ms);
	if (st != CONN_OK) {
		return st;
	}
	if (c->tls) {
		st = engine_run(c, BR_SSL_RECVAPP, until);
		if (st == CONN_OK) {
			*p = br_ssl_engine_recvapp_buf(&c->eng, len);
		}
		return st;
	}
	st = raw_read(c, c->in, sizeof c->in, &c->in_len, until);
	c->in_pos = 0;
	*p = c->in;
	*len = c->in_len;
	return st;
}

void
conn_take(struct conn *c, size_t n)
{
	if (c->tls) {
		if (n > 0) {
			br_ssl_engine_recvapp_ack(&c->eng, n);
		}
		return;
	}
	c->in_pos += n;
	c->in_len -= n;
}

void
conn_take_wipe(struct conn *c, size_t n)
{
	size_t len;
	uint8_t *p = c->tls ? br_ssl_engine_recvapp_buf(&c->eng, &len) : c->in + c->in_pos;

	if (p != NULL) {
		explicit_bzero(p, n);
	}
	conn_take(c, n);
}

size_t
conn_pending(struct conn *c)
{
	size_t len = c->in_len;

	if (c->tls && br_ssl_engine_recvapp_buf(&c->eng, &len) == NULL) {
		return 0;
	}
	return len;
}

int
conn_line_pending(struct conn *c)
{
	size_t len = c->in_len;
	const uint8_t *p = c->tls ? br_ssl_engine_recvapp_buf(&c->eng, &len) : c->in + c->in_pos;

	return p != NULL && memchr(p, '\n', len) != NULL;
}

enum conn_status
conn_write(struct conn *c, const void *p, size_t len, int timeout_ms)
{
	const uint8_t *s = p;

	while (len > 0) {
		size_t n = sizeof c->out - c->out_len;

		if (n == 0) {
			enum conn_status st = conn_flush(c, timeout_ms);

			if (st != CONN_OK) {
				return st;
			}
			continue;
		}
		n = n < len ? n : len;
		memcpy(c->out + c->out_len, s, n);
		c->out_len += n;
		s += n;
		len -= n;
	}
	return CONN_OK;
}

/* Give p[0..len) to the network, or to the engine, which may keep some. */
static enum conn_status
push(struct conn *c, const uint8_t *p, size_t len, int64_t until)
{
	size_t pos = 0;

	if (!c->tls) {
		return len == 0 ? CONN_OK : raw_write(c, p, len, until);
	}
	while (pos < len) {
		enum conn_status st = engine_run(c, BR_SSL_SENDAPP, until);
		size_t room;
		uint8_t *to;

		if (st != CONN_OK) {
			return st;
		}
		to = br_ssl_engine_sendapp_buf(&c->eng, &room);
		if (room > len - pos) {
			room = len - pos;
		}
		memcpy(to, p + pos, room);
		br_ssl_engine_sendapp_ack(&c->eng, room);
		pos += room;
	}
	return CONN_OK;
}

static enum conn_status
flush_until(struct conn *c, const uint8_t *p, size_t len, int64_t until)
{
	enum conn_status st = push(c, p, len, until);

	if (st != CONN_OK || !c->tls) {
		return st;
	}
	br_ssl_engine_flush(&c->eng, 0);
	return engine_run(c, 0, until);
}

enum conn_status
conn_flush(struct conn *c, int timeout_ms)
{
	enum conn_status st = flush_until(c, c->out, c->out_len, mono_ms() + timeout_ms);

	c->out_len = !c->tls || st == CONN_OK ? 0 : c->out_len;
	return st;
}

enum conn_status
conn_send(struct conn *c, const void *p, size_t len, int timeout_ms)
{
	int64_t until = mono_ms() + timeout_ms;
	enum conn_status st = push(c, c->out, c->out_len, until);

	c->out_len = 0;
	return st == CONN_OK ? flush_until(c, p, len, until) : st;
}

void
conn_close(struct conn *c, int timeout_ms)
{
	int64_t until = mono_ms() + timeout_ms;

	if (conn_flush(c, timeout_ms) == CONN_OK && c->tls) {
		br_ssl_engine_close(&c->eng);
		engine_run(c, 0, until);
	}
	shutdown(c->wfd, SHUT_WR);
}

void
conn_linger(struct conn *c, int timeout_ms)
{
	int64_t until = mono_ms() + timeout_ms;
	size_t len, total = 0;

	while (total < 65536 && raw_read(c, c->rec_out, sizeof c->rec_out, &len, until) == CONN_OK) {
		total += len;
	}
}

const char *
tls_version_name(uint16_t version)
{
	return version == BR_TLS12 ? "TLSv1.2" : "unknown";
}

const char *
tls_suite_name(uint16_t suite)
{
	switch (suite) {
	case BR_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256:
		return "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256";
	case BR_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256:
		return "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256";
	case BR_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256:
		return "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";
	case BR_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:
		return "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
	case BR_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384:
		return "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384";
	case BR_TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384:
		return "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384";
	default:
		return "unknown";
	}
}
