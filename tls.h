/* SPDX-License-Identifier: MIT */
/*
 * A connection, plain or TLS 1.2, behind one interface: a client's, in smtp processes, and one of ours to a next hop, in remotes.
 * Private key operations and the session cache of a server are delegated through struct tls_warden. All memory is static and bounded.
 */
#ifndef MAILSTILE_TLS_H
#define MAILSTILE_TLS_H

#include "cert.h"

#include <bearssl.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>

/* What the TLS engine needs of someone who has the key. */
struct tls_warden {
	void *ctx;
	size_t (*sign)(void *ctx, unsigned hash_id, const uint8_t *hash, size_t len, uint8_t *sig, size_t cap);
	int (*get)(void *ctx, br_ssl_session_parameters *p); /* 1 found */
	void (*put)(void *ctx, const br_ssl_session_parameters *p);
};

enum conn_status {
	CONN_OK = 0,
	CONN_EOF, /* the client closed, or broke, the connection */
	CONN_TIMEOUT,
	CONN_STOP, /* conn_stop was set by a signal, and the session is not busy */
	CONN_TLS   /* handshake or record failure: conn->tls_error */
};

#define CONN_OUT 2048

struct conn {
	int rfd, wfd;
	int watch;       /* ends the wait when its other end closes: the warden is gone; -1 = none */
	short watch_for; /* POLLIN: or will say no more */
	int nonblock;    /* reading and writing may be tried without waiting first */
	int eager;       /* the next read may be */
	int tls;         /* established */
	int resumed;
	int tls_error;    /* BearSSL's number */
	int busy;         /* in a transaction: conn_stop waits */
	int64_t deadline; /* mono_ms() at which the session ends, whatever happens */
	uint64_t octets_in, octets_out;
	size_t in_pos, in_len; /* plain: what is left in `in` */
	size_t out_len;
	uint8_t out[CONN_OUT]; /* replies not yet sent */
	union {
		br_ssl_engine_context eng; /* the first member of both */
		br_ssl_server_context sc;
		br_ssl_client_context cc;
	};
	br_ec_impl ec;
	const br_ssl_server_policy_class *policy;
	const br_ssl_session_cache_class *cache;
	const struct cert_chain *chain;
	const struct tls_warden *warden;
	uint8_t in[BR_SSL_BUFSIZE_INPUT]; /* plain input, or TLS records */
	uint8_t rec_out[4096 + 85 + 512]; /* TLS records to send */
};

/* Set by a signal handler: blocking calls return CONN_STOP at once. */
extern volatile sig_atomic_t conn_stop;

/* Begin a plain connection; `nonblock`: the descriptors are so. Leaves the TLS engine as it is. */
void conn_init(struct conn *c, int rfd, int wfd, int nonblock);
/*
 * Set up the TLS engine. Main does it once for all sessions that it will fork: the engine asks the CPU what it can, and in a virtual
 * machine each such question costs as much as a fork. Only the addresses of `chain` and `w` are kept.
 */
void conn_setup_tls(struct conn *c, const struct cert_chain *chain, const struct tls_warden *w);
/* Seed the engine, and shake hands. Any plain input still buffered is the caller's to refuse first. */
enum conn_status conn_start_tls(struct conn *c, int timeout_ms);

/*
 * The same for a client: set up the engine, once; and shake hands. `name` goes into the server name indication and to the certificate's
 * judge `x509`; NULL: none.
 */
void conn_setup_client(struct conn *c);
enum conn_status conn_start_client(struct conn *c, const char *name, const br_x509_class **x509, int timeout_ms);
/* For who moves the records himself: only set c->eng up for a handshake. CONN_OK or CONN_TLS. */
enum conn_status conn_begin_client(struct conn *c, const char *name, const br_x509_class **x509);

/*
 * What has arrived: *p and *len (at least 1 octet) stay valid until the next call. Sends pending output before it blocks.
 * Takes nothing away: conn_take(n) does.
 */
enum conn_status conn_peek(struct conn *c, const uint8_t **p, size_t *len, int timeout_ms);
void conn_take(struct conn *c, size_t n);
/* The same, and wipe them where they were: they may be a password. */
void conn_take_wipe(struct conn *c, size_t n);
/* Octets that can be had without reading from the network. */
size_t conn_pending(struct conn *c);

/* 1 when a whole line is among them. */
int conn_line_pending(struct conn *c);

/* Queue octets for sending; conn_flush() or the next blocking read sends them. */
enum conn_status conn_write(struct conn *c, const void *p, size_t len, int timeout_ms);
enum conn_status conn_flush(struct conn *c, int timeout_ms);
/* Send what is queued and then these, without a copy but the TLS engine's: much at once, or what must not stay in a buffer. */
enum conn_status conn_send(struct conn *c, const void *p, size_t len, int timeout_ms);
/* Send what is pending and, with TLS, close_notify; waits at most `timeout_ms`. */
void conn_close(struct conn *c, int timeout_ms);

/* Read away what the client still sends, for at most `timeout_ms` and 64 KiB: closing with unread input resets the connection, and the
 * last reply would be lost. */
void conn_linger(struct conn *c, int timeout_ms);

/* "TLSv1.2", and the IANA name of a cipher suite, or "unknown". */
const char *tls_version_name(uint16_t version);
const char *tls_suite_name(uint16_t suite);

#endif
