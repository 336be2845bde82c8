/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* A client's connection, plain and TLS: tls.c over socketpairs, against BearSSL's own client in a thread. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tlsclient.h"

/* Read `n` octets that count from 0. */
static void
read_counted(size_t n)
{
	size_t got = 0;

	while (got < n) {
		const uint8_t *p;
		size_t len;

		assert_int_equal(conn_peek(&conn, &p, &len, 5000), CONN_OK);
		assert_in_range(len, 1, 16384);
		assert_int_equal(conn_pending(&conn), len);
		len = len > 500 ? 500 : len; /* not all at once */
		/* cppcheck-suppress knownConditionTrueFalse; it does not see that conn_peek() sets len */
		for (size_t i = 0; i < len; i++) {
			assert_int_equal(p[i], (uint8_t)(got + i));
		}
		conn_take(&conn, len);
		got += len;
	}
	assert_int_equal(got, n);
}

static void
write_counted(size_t n)
{
	uint8_t chunk[300];

	for (size_t k = 0; k < n;) {
		size_t len = 0;

		for (; len < sizeof chunk && k < n; len++, k++) {
			chunk[len] = (uint8_t)k;
		}
		assert_int_equal(conn_write(&conn, chunk, len, 5000), CONN_OK);
	}
	assert_int_equal(conn_flush(&conn, 5000), CONN_OK);
}

static void
plain_begin(void)
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	conn_init(&conn, sv[0], sv[0], 0);
}

static void
plain_end(void)
{
	close(sv[0]);
	close(sv[1]);
}

static void
test_plain(void **state)
{
	static char text[8192];
	const uint8_t *p;
	size_t len;

	(void)state;
	plain_begin();
	assert_int_equal(conn_pending(&conn), 0);
	assert_int_equal(write_all(sv[1], "EHLO x\r\nQUIT\r\n", 14), 0);
	assert_int_equal(conn_peek(&conn, &p, &len, 1000), CONN_OK);
	assert_int_equal(len, 14);
	conn_take(&conn, 8);
	assert_int_equal(conn_pending(&conn), 6);
	assert_int_equal(conn_peek(&conn, &p, &len, 1000), CONN_OK); /* what is there comes without a read */
	assert_int_equal(len, 6);
	assert_memory_equal(p, "QUIT\r\n", 6);
	conn_take(&conn, 6);
	assert_int_equal(conn_pending(&conn), 0);

	/* Replies wait for the next read that blocks. */
	assert_int_equal(conn_write(&conn, "250 ok\r\n", 8, 1000), CONN_OK);
	assert_int_equal(recv(sv[1], text, sizeof text, MSG_DONTWAIT), -1);
	assert_int_equal(conn_peek(&conn, &p, &len, 1), CONN_TIMEOUT);
	assert_int_equal(recv(sv[1], text, sizeof text, MSG_DONTWAIT), 8);
	/* More than there is room for goes out at once. */
	memset(text, 'x', sizeof text);
	assert_int_equal(conn_write(&conn, text, CONN_OUT + 1, 1000), CONN_OK);
	assert_int_equal(recv(sv[1], text, sizeof text, MSG_DONTWAIT), CONN_OUT);
	assert_int_equal(conn_flush(&conn, 1000), CONN_OK);
	assert_int_equal(recv(sv[1], text, sizeof text, MSG_DONTWAIT), 1);
	assert_int_equal(conn_flush(&conn, 1000), CONN_OK);
	assert_int_equal(conn.octets_in, 14);
	assert_int_equal(conn.octets_out, 8 + CONN_OUT + 1);

	shutdown(sv[1], SHUT_WR);
	assert_int_equal(conn_peek(&conn, &p, &len, 1000), CONN_EOF);
	conn_close(&conn, 100);
	assert_int_equal(recv(sv[1], text, sizeof text, MSG_DONTWAIT), 0);
	plain_end();
}

/* A password is gone from the buffer it came in, octet for octet. */
static void
test_wipe(void **state)
{
	static const uint8_t zeros[10];
	struct client *c;
	const uint8_t *p;
	size_t len;

	(void)state;
	plain_begin();
	assert_int_equal(write_all(sv[1], "secret\r\nQUIT\r\n", 14), 0);
	assert_int_equal(conn_peek(&conn, &p, &len, 1000), CONN_OK);
	conn_take_wipe(&conn, 8);
	assert_memory_equal(p, zeros, 8);
	assert_memory_equal(p + 8, "QUIT\r\n", 6);
	assert_int_equal(conn_pending(&conn), 6);
	plain_end();

	c = client_new();
	c->send = 100;
	client_start(c);
	assert_int_equal(conn_start_tls(&conn, 5000), CONN_OK);
	assert_int_equal(conn_peek(&conn, &p, &len, 5000), CONN_OK);
	assert_int_equal(len, 100);
	conn_take_wipe(&conn, 10);
	assert_memory_equal(p, zeros, 10);
	assert_int_equal(p[10], 10);
	assert_int_equal(conn_pending(&conn), 90);
	client_join(c);
}

/* The other end of `watch` is gone: said once, then the last words may still go out. */
static void
test_watch(void **state)
{
	const uint8_t *p;
	int pair[2];
	size_t len;

	(void)state;
	plain_begin();
	assert_int_equal(conn.watch, -1);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	conn.watch = pair[0];
	assert_int_equal(conn_peek(&conn, &p, &len, 20), CONN_TIMEOUT);
	close(pair[1]);
	assert_int_equal(conn_peek(&conn, &p, &len, 60000), CONN_STOP);
	assert_int_equal(conn_write(&conn, "421 bye\r\n", 9, 1000), CONN_OK);
	assert_int_equal(conn_flush(&conn, 1000), CONN_OK);
	assert_int_equal(conn_peek(&conn, &p, &len, 20), CONN_TIMEOUT);
	close(pair[0]);
	plain_end();
}

static void
on_term(int sig)
{
	(void)sig;
	conn_stop = 1;
}

static void
test_waiting(void **state)
{
	struct sigaction sa = { .sa_handler = on_term };
	int64_t start = mono_ms();
	sigset_t term;
	const uint8_t *p;
	size_t len;

	(void)state;
	plain_begin();
	assert_int_equal(conn_peek(&conn, &p, &len, 40), CONN_TIMEOUT);
	assert_in_range(mono_ms() - start, 39, 5000);
	conn.deadline = mono_ms() + 40; /* of the whole session: it comes first */
	start = mono_ms();
	assert_int_equal(conn_peek(&conn, &p, &len, 60000), CONN_TIMEOUT);
	assert_in_range(mono_ms() - start, 39, 5000);
	assert_int_equal(conn_peek(&conn, &p, &len, 60000), CONN_TIMEOUT);
	conn.deadline = INT64_MAX;

	/* SIGTERM is blocked but in the wait, so none is lost between a look at the flag and the wait. */
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, NULL);
	sigaction(SIGTERM, &sa, NULL);
	raise(SIGTERM);
	/* cppcheck-suppress unreachableCode; a blocked signal ends nothing */
	assert_int_equal(conn_stop, 0);
	assert_int_equal(conn_peek(&conn, &p, &len, 60000), CONN_STOP);
	assert_int_equal(conn_stop, 1);
	assert_int_equal(conn_peek(&conn, &p, &len, 60000), CONN_STOP);
	/* In a transaction it waits, and what was decided is still said. */
	conn.busy = 1;
	assert_int_equal(conn_peek(&conn, &p, &len, 1), CONN_TIMEOUT);
	conn.busy = 0;
	assert_int_equal(conn_write(&conn, "421 bye\r\n", 9, 1000), CONN_OK);
	assert_int_equal(conn_flush(&conn, 1000), CONN_OK);
	assert_int_equal(conn.busy, 0);
	conn_stop = 0;
	sigprocmask(SIG_UNBLOCK, &term, NULL);

	/* A client that does not read. */
	while (conn_write(&conn, sv, sizeof sv, 20) == CONN_OK) {
	}
	assert_int_equal(conn_flush(&conn, 20), CONN_OK); /* what did not go out is given up */
	plain_end();
	plain_begin();
	close(sv[1]);
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(conn_write(&conn, "x", 1, 1000), CONN_OK);
	assert_int_equal(conn_flush(&conn, 1000), CONN_EOF);
	assert_int_equal(conn_peek(&conn, &p, &len, 1000), CONN_EOF);
	sv[1] = -1;
	plain_end();
}

static void
test_linger(void **state)
{
	static char junk[100000];
	int64_t start = mono_ms();

	(void)state;
	plain_begin();
	/* Reads to the end, but not for ever and not without bound. */
	assert_int_equal(write_all(sv[1], junk, 3000), 0);
	shutdown(sv[1], SHUT_WR);
	conn_linger(&conn, 5000);
	assert_int_equal(conn.octets_in, 3000);
	plain_end();
	plain_begin();
	conn_linger(&conn, 30);
	assert_in_range(mono_ms() - start, 29, 4000);
	fcntl(sv[1], F_SETFL, O_NONBLOCK);
	assert_in_range(write(sv[1], junk, sizeof junk), 70000, sizeof junk);
	conn_linger(&conn, 5000);
	assert_in_range(conn.octets_in, 65536, 75000);
	plain_end();
}

static void
test_handshake(void **state)
{
	static const size_t sizes[] = { 1, 16384, 100000 };
	struct client *c;
	const uint8_t *p;
	size_t len;

	(void)state;
	for (size_t i = 0; i < COUNT(sizes); i++) {
		memset(&cached, 0, sizeof cached);
		c = client_new();
		c->send = sizes[i];
		c->receive = sizes[i] + 1;
		client_start(c);
		assert_int_equal(conn_start_tls(&conn, 5000), CONN_OK);
		assert_int_equal(conn.tls, 1);
		assert_int_equal(conn.resumed, 0);
		assert_int_equal(signs, 1);
		assert_int_equal(puts_, 1);
		read_counted(sizes[i]);
		write_counted(sizes[i] + 1);
		/* The client says good-bye, and so do we. */
		assert_int_equal(conn_peek(&conn, &p, &len, 5000), CONN_EOF);
		conn_close(&conn, 1000);
		client_join(c);
		assert_int_equal(c->error, 0);
		assert_int_equal(c->received, sizes[i] + 1);
		assert_int_equal(c->clean, 1);
		assert_int_equal(c->session.version, BR_TLS12);
		assert_string_equal(tls_version_name(c->session.version), "TLSv1.2");
		assert_non_null(strstr(tls_suite_name(c->session.cipher_suite), "TLS_ECDHE_ECDSA_WITH_"));
		assert_memory_equal(c->session.master_secret, cached.master_secret, 48);
	}
}

static void
test_resumption(void **state)
{
	static br_ssl_session_parameters session;
	struct client *c;

	(void)state;
	memset(&cached, 0, sizeof cached);
	for (int round = 0; round < 3; round++) {
		c = client_new();
		c->send = 10;
		c->receive = 10;
		c->resume = round == 0 ? NULL : &session;
		client_start(c);
		assert_int_equal(conn_start_tls(&conn, 5000), CONN_OK);
		read_counted(10);
		write_counted(10);
		client_join(c);
		assert_int_equal(c->received, 10);
		/* Once from nothing, once with the session, once after it was forgotten. */
		assert_int_equal(conn.resumed, round == 1);
		assert_int_equal(signs, round == 1 ? 0 : 1);
		assert_int_equal(gets, round == 0 ? 0 : 1);
		session = c->session;
		if (round == 1) {
			memset(&cached, 0, sizeof cached);
		}
	}
}

static void
test_refused_clients(void **state)
{
	static const uint16_t cbc[] = { BR_TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256,
		BR_TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA };
	static const uint16_t rsa[] = { BR_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, BR_TLS_RSA_WITH_AES_128_GCM_SHA256 };
	static const uint16_t chapol[] = { BR_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 };
	static const struct {
		unsigned min, max;
		const uint16_t *suites;
		size_t n;
		int refuse;
		enum conn_status want;
	} t[] = {
		{ BR_TLS12, BR_TLS12, chapol, COUNT(chapol), 0, CONN_OK }, { BR_TLS10, BR_TLS12, NULL, 0, 0, CONN_OK },
		{ BR_TLS10, BR_TLS10, NULL, 0, 0, CONN_TLS }, { BR_TLS11, BR_TLS11, NULL, 0, 0, CONN_TLS },
		{ BR_TLS12, BR_TLS12, cbc, COUNT(cbc), 0, CONN_TLS },
		{ BR_TLS12, BR_TLS12, rsa, COUNT(rsa), 0, CONN_TLS },
		{ BR_TLS12, BR_TLS12, NULL, 0, 1, CONN_TLS }, /* the warden would not sign */
	};

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		struct client *c = client_new();

		memset(&cached, 0, sizeof cached);
		c->version_min = t[i].min;
		c->version_max = t[i].max;
		c->suites = t[i].suites;
		c->suites_n = t[i].n;
		c->send = 1;
		refuse = t[i].refuse;
		client_start(c);
		if (conn_start_tls(&conn, 5000) != t[i].want) {
			fail_msg("row %zu: error %d", i, conn.tls_error);
		}
		assert_int_equal(conn.tls_error != 0, t[i].want == CONN_TLS);
		if (t[i].want == CONN_OK) {
			read_counted(1);
		}
		client_join(c);
		refuse = 0;
	}
}

static void
test_attacks(void **state)
{
	const uint8_t *p;
	struct client *c;
	size_t len;

	(void)state;
	/* Renegotiation is declined, without a second signature; BearSSL's client gives up then. */
	c = client_new();
	c->send = 5000;
	c->renegotiate = 1;
	client_start(c);
	assert_int_equal(conn_start_tls(&conn, 5000), CONN_OK);
	read_counted(777);
	assert_int_equal(conn_peek(&conn, &p, &len, 5000), CONN_EOF);
	client_join(c);
	assert_int_equal(c->error, BR_ERR_RECV_FATAL_ALERT + 100);
	assert_int_equal(signs, 1);

	/* A forged record, and an end without close_notify. */
	for (int spoil = 0; spoil < 2; spoil++) {
		c = client_new();
		c->send = 10;
		c->spoil = spoil;
		c->no_close = 1;
		client_start(c);
		assert_int_equal(conn_start_tls(&conn, 5000), CONN_OK);
		read_counted(10);
		assert_int_equal(conn_peek(&conn, &p, &len, 5000), spoil ? CONN_TLS : CONN_EOF);
		assert_int_equal(conn.tls_error, spoil ? BR_ERR_BAD_MAC : 0);
		client_join(c);
	}

	/* No ClientHello: plain text, silence, nothing. */
	client_new();
	assert_int_equal(write_all(sv[1], "EHLO example\r\n", 14), 0);
	assert_int_equal(conn_start_tls(&conn, 5000), CONN_TLS);
	plain_end();
	client_new();
	assert_int_equal(write_all(sv[1], "\x16\x03\x01", 3), 0);
	assert_int_equal(conn_start_tls(&conn, 30), CONN_TIMEOUT);
	shutdown(sv[1], SHUT_WR);
	assert_int_equal(conn_start_tls(&conn, 5000), CONN_EOF);
	plain_end();
}

static void
test_names(void **state)
{
	static const uint16_t known[] = { 0xcca9, 0xcca8, 0xc02b, 0xc02f, 0xc02c, 0xc030 };

	(void)state;
	for (size_t i = 0; i < COUNT(known); i++) {
		assert_int_equal(strncmp(tls_suite_name(known[i]), "TLS_ECDHE_", 10), 0);
	}
	assert_string_equal(tls_suite_name(0), "unknown");
	assert_string_equal(tls_suite_name(0x1301), "unknown");
	assert_string_equal(tls_version_name(0x0302), "unknown");
}

static int
setup(void **state)
{
	static struct findings found;

	secrets = secret_map();
	if (secrets == NULL || make_dir(state) == -1 ||
	    cert_generate(in("c.pem"), in("k.pem"), "mail.example.net", secrets, &fresh(&found)->d) == -1) {
		return -1;
	}
	return cert_load(&chain, secrets, in("c.pem"), in("k.pem"), &found.d);
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
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_wipe),
		cmocka_unit_test(test_watch),
		cmocka_unit_test(test_waiting),
		cmocka_unit_test(test_linger),
		cmocka_unit_test(test_handshake),
		cmocka_unit_test(test_resumption),
		cmocka_unit_test(test_refused_clients),
		cmocka_unit_test(test_attacks),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
