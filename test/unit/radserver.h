/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * RADIUS servers in threads, and a client that asks them. A second of the module's lasts a tenth of one. Include after <cmocka.h>;
 * programs are linked with -Wl,--wrap=mono_ms,--wrap=poll
 */
#ifndef MAILSTILE_TEST_RADSERVER_H
#define MAILSTILE_TEST_RADSERVER_H

#include "log.h"
#include "radius.h"
#include "radpkt.h"
#include "str.h"
#include "unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>

#define SECRET "correct horse battery staple"
#define PASSWORD "pass word"
#define SPEED 10

int64_t __real_mono_ms(void);
int64_t __wrap_mono_ms(void);
int64_t
__wrap_mono_ms(void)
{
	return SPEED * __real_mono_ms();
}

int __real_poll(struct pollfd *p, nfds_t n, int timeout);
int __wrap_poll(struct pollfd *p, nfds_t n, int timeout);
int
__wrap_poll(struct pollfd *p, nfds_t n, int timeout)
{
	return __real_poll(p, n, timeout > 0 ? (timeout + SPEED - 1) / SPEED : timeout);
}

/*
 * A server. Its program has a part for each request, ended by '|'; each letter is an answer: a accept, r reject, c challenge, u accept without
 * Message-Authenticator, U the same as reject, m accept with a bad one, w accept under another secret, i with another id, x accept from another
 * port, g noise, 0 an empty datagram. No letter: silence.
 */
struct responder {
	const char *program, *secret, *message;
	const char *service; /* value of Service-Type in accepts, NULL = none */
	size_t service_len;
	const uint8_t *more; /* attributes of accepts and rejects, as they go into the packet */
	size_t more_len;
	int v6, fd, stop[2];
	uint16_t port;
	pthread_t thread;
	unsigned n;
	size_t len[8];
	uint8_t req[8][RADIUS_PACKET_MAX];
};

static void
answer(const struct responder *r, int what, const struct sockaddr *to, socklen_t tolen, const uint8_t *req)
{
	struct packet k;
	int fd = r->fd;

	pkt_begin(&k,
	    what == 'r' || what == 'U' ? REJECT
		: what == 'c'          ? CHALLENGE
				       : ACCEPT,
	    what == 'i' ? req[1] ^ 1 : req[1]);
	if (what != 'u' && what != 'U') {
		pkt_ma(&k);
	}
	pkt_attr(&k, 26, "\0\0\x01\x37\x01\x04xx", 8);
	if (r->service != NULL) {
		pkt_attr(&k, 6, r->service, r->service_len);
	}
	if (r->message != NULL) {
		pkt_text(&k, 18, r->message);
	}
	for (size_t i = 0; i < r->more_len; i += r->more[i + 1]) {
		pkt_attr(&k, r->more[i], r->more + i + 2, r->more[i + 1] - 2U);
	}
	if (what == 'm') {
		pkt_attr(&k, MA, "0123456789abcdef", 16);
		k.p[20] = 79; /* the only one */
		k.ma = 0;
	}
	pkt_seal(&k, req + 4, what == 'w' ? "another secret" : r->secret);
	if (what == 'g') {
		memset(k.p, 0x5a, k.len);
	}
	if (what == 'x') {
		fd = socket(to->sa_family, SOCK_DGRAM, 0);
	}
	sendto(fd, k.p, what == '0' ? 0 : k.len, 0, to, tolen);
	if (fd != r->fd) {
		close(fd);
	}
}

static void *
respond(void *ctx)
{
	struct responder *r = ctx;
	const char *program = r->program;

	for (;;) {
		struct pollfd p[2] = { { .fd = r->fd, .events = POLLIN }, { .fd = r->stop[0], .events = POLLIN } };
		struct sockaddr_storage from;
		socklen_t len = sizeof from;
		ssize_t n;

		__real_poll(p, 2, -1);
		if ((p[0].revents & POLLIN) == 0) {
			return NULL;
		}
		n = recvfrom(r->fd, r->req[r->n], sizeof r->req[0], 0, (struct sockaddr *)&from, &len);
		if (n < 20 || r->n == 7) {
			continue;
		}
		r->len[r->n] = (size_t)n;
		while (*program != '\0' && *program != '|') {
			answer(r, *program++, (struct sockaddr *)&from, len, r->req[r->n]);
		}
		program += *program == '|';
		r->n++;
	}
}

static int
bind_responder(struct responder *r)
{
	struct sockaddr_in in4 = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct sockaddr_storage ss;
	socklen_t len = sizeof ss;
	struct addr a;

	r->fd = socket(r->v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (r->fd == -1 ||
	    bind(r->fd, r->v6 ? (struct sockaddr *)&in6 : (struct sockaddr *)&in4, r->v6 ? sizeof in6 : sizeof in4) ==
		-1 ||
	    getsockname(r->fd, (struct sockaddr *)&ss, &len) == -1) {
		return -1;
	}
	return addr_from_sockaddr(&a, &r->port, (struct sockaddr *)&ss);
}

static struct share *sh;
static struct secrets secrets;
static struct radius_conf rc;
static struct radius_query query;
static struct responder servers[3];
static char logged[16384];

static void
start(const char *program1, const char *program2)
{
	static const char *const loopback[] = { "127.0.0.1", "::1" };

	memset(sh->radius, 0, sizeof sh->radius);
	atomic_store(&sh->radius_good, UINT32_MAX);
	sh->radius_generation = 5;
	memset(&secrets, 0, sizeof secrets);
	memset(&rc, 0, sizeof rc);
	for (unsigned i = 0; i < COUNT(servers); i++) {
		struct responder *r = &servers[i];

		r->program = i == 0 ? program1 : i == 1 ? program2 : NULL;
		if (r->program == NULL) {
			continue;
		}
		r->secret = r->secret == NULL ? SECRET : r->secret;
		assert_int_equal(bind_responder(r) + pipe(r->stop), 0);
		rc.server[i] = (struct radius_server){
			.port = r->port, .timeout = 10, .retries = 0, .numeric = 1, .name = "radius.test"
		};
		assert_int_equal(addr_parse(&rc.server[i].addr, loopback[r->v6], strlen(loopback[r->v6])), 0);
		strcpy(secrets.radius[i], r->secret);
		rc.servers++;
		assert_int_equal(pthread_create(&r->thread, NULL, respond, r), 0);
	}
	query = (struct radius_query){ .user = "joe",
		.password = PASSWORD,
		.client = "192.0.2.9",
		.called = "submission 192.0.2.1:587",
		.nas = "mail.example.net",
		.session = "0123456789abcdef" };
}

static struct radius_answer
ask(void)
{
	struct radius_answer a;
	int saved = dup(2), fd = open(in("log"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	unsigned fds = open_fds();
	ssize_t n;

	dup2(fd, 2);
	memset(&a, 0x5a, sizeof a);
	radius_ask(&rc, &secrets, sh, 5, &query, &a);
	dup2(saved, 2);
	assert_int_equal(open_fds(), fds);
	n = pread(fd, logged, sizeof logged - 1, 0);
	logged[n < 0 ? 0 : n] = '\0';
	close(saved);
	close(fd);
	assert_lacks(logged, SECRET);
	assert_lacks(logged, query.password);
	return a;
}

/* Wait for the threads, so that what they saw is complete. */
static void
stop(void)
{
	for (unsigned i = 0; i < COUNT(servers); i++) {
		struct responder *r = &servers[i];

		if (r->program != NULL) {
			close(r->stop[1]);
			pthread_join(r->thread, NULL);
			close(r->stop[0]);
			close(r->fd);
		}
	}
}

/* A test begins with three fresh servers. */
static int
clear(void **state)
{
	(void)state;
	memset(servers, 0, sizeof servers);
	return 0;
}

#endif
