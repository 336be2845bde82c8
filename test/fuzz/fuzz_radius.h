/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * RADIUS servers in place of the network: radius.c, compiled into fuzz_radius.c, sends to them and receives from them. What they do is a list
 * of events, each an octet and what belongs to it. Replies are sealed here, or next to nothing would come through, and judged here, too, so
 * that the outcome of a login is known before radius.c says it. Time passes only while radius.c waits.
 * Needs -Wl,--wrap=getentropy,--wrap=mono_ms,--wrap=random_bytes,--wrap=log_end
 */
#ifndef MAILSTILE_TEST_FUZZ_RADIUS_H
#define MAILSTILE_TEST_FUZZ_RADIUS_H

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

static int fuzz_poll(struct pollfd *fds, nfds_t n, int timeout);
static ssize_t fuzz_send(int fd, const void *p, size_t len, int flags);
static ssize_t fuzz_recv(int fd, void *p, size_t cap, int flags);
static int fuzz_socket(int domain, int type, int protocol);
static int fuzz_connect(int fd, const struct sockaddr *to, socklen_t len);
static int fuzz_getsockname(int fd, struct sockaddr *sa, socklen_t *len);
static int fuzz_eventfd(unsigned n, int flags);
static int fuzz_close(int fd);
#define poll fuzz_poll
#define send fuzz_send
#define recv fuzz_recv
#define socket fuzz_socket
#define connect fuzz_connect
#define getsockname fuzz_getsockname
#define eventfd fuzz_eventfd
#define close fuzz_close
#include "radius.c"
#undef poll
#undef send
#undef recv
#undef socket
#undef connect
#undef getsockname
#undef eventfd
#undef close

#include "fuzz.h"

#define FUZZ_START 1000000
#define FUZZ_SOCKET 1000 /* and, from there, one for each server */

/* Events. */
enum { SILENCE, BUILT, SEALED, RAW, FORGED, REFUSED, AGAIN, INTERRUPTED, EVENTS };

static struct {
	struct input in;
	int64_t now;
	int server, open;      /* the one that is asked; its socket, or -1 */
	unsigned tries, asked; /* asked: servers, one bit each */
	size_t request_len, packet_len;
	int v6, full, no_route;
	enum radius_result decided; /* by the last reply, 0 = not yet */
	uint8_t request[RADIUS_PACKET_MAX], packet[RADIUS_PACKET_MAX], sent[RADIUS_PACKET_MAX];
} net;
static struct radius_conf net_conf;
static struct secrets net_secrets;
static struct share *net_share;

int __wrap_getentropy(void *p, size_t len);
int64_t __wrap_mono_ms(void);
void __wrap_random_bytes(void *p, size_t len);
void __wrap_log_end(struct log_line *l);

/* radcli's Request Authenticator. MemorySanitizer 14 does not know that getentropy() writes. */
int
__wrap_getentropy(void *p, size_t len)
{
	random_bytes(p, len);
	return 0;
}

int64_t
__wrap_mono_ms(void)
{
	return net.now;
}

void
__wrap_random_bytes(void *p, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		((uint8_t *)p)[i] = (uint8_t)(i * 29 + net.tries * 31 + 7);
	}
}

void
__wrap_log_end(struct log_line *l)
{
	CHECK(l->len < sizeof l->mem);
	for (size_t i = 0; i < l->len; i++) {
		CHECK(l->mem[i] >= 32 && l->mem[i] < 127);
	}
}

/* ---- what radius.c calls ---- */

static int
fuzz_socket(int domain, int type, int protocol)
{
	CHECK((domain == AF_INET || domain == AF_INET6) && (type & SOCK_DGRAM) != 0 && protocol == 0);
	if (net.full) {
		errno = EMFILE;
		return -1;
	}
	return FUZZ_SOCKET;
}

static int
fuzz_connect(int fd, const struct sockaddr *to, socklen_t len)
{
	struct addr a;
	uint16_t port;

	CHECK(fd == FUZZ_SOCKET && net.open == -1 && addr_from_sockaddr(&a, &port, to) == 0 &&
	    len <= sizeof(struct sockaddr_storage));
	/* The ports say which server it is. Each is asked once in a login. */
	net.server = port - 1;
	CHECK(net.server >= 0 && net.server < (int)net_conf.servers && (net.asked >> net.server & 1) == 0);
	net.asked |= 1U << net.server;
	net.tries = 0;
	if (net_conf.server[net.server].addr.ip[0] == 0xff) { /* no route */
		errno = ENETUNREACH;
		return -1;
	}
	net.open = fd;
	return 0;
}

static int
fuzz_getsockname(int fd, struct sockaddr *sa, socklen_t *len)
{
	static const struct addr v4 = { { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 1 } };
	static const struct addr v6 = { { 0x20, 1, 0xd, 0xb8, 1 } };
	struct sockaddr_storage ss;

	CHECK(fd == net.open && *len == sizeof ss);
	*len = addr_to_sockaddr(net.v6 ? &v6 : &v4, 1, &ss);
	memcpy(sa, &ss, sizeof ss);
	return 0;
}

static int
fuzz_eventfd(unsigned n, int flags)
{
	static int fd = -1;

	CHECK(n == 1 && flags == EFD_CLOEXEC);
	return fd == -1 ? (fd = eventfd(1, EFD_CLOEXEC)) : fd;
}

static int
fuzz_close(int fd)
{
	if (fd == FUZZ_SOCKET) {
		net.open = -1;
	}
	return 0;
}

/* A request is well formed, its Message-Authenticator is right and comes first, and each attribute is there once. */
static ssize_t
fuzz_send(int fd, const void *p, size_t len, int flags)
{
	uint8_t mac[16], *r = net.request;
	int seen[256] = { 0 };
	size_t i = HEADER;

	CHECK(fd == net.open && flags == MSG_NOSIGNAL && len <= sizeof net.request && len >= HEADER + 18);
	if (net.no_route) {
		errno = ENETUNREACH;
		return -1;
	}
	CHECK(net.decided == 0 && net.tries++ <= (unsigned)net_conf.server[net.server].retries);
	/* A repetition is the same packet. */
	CHECK(net.tries == 1 || (len == net.request_len && memcmp(p, net.sent, len) == 0));
	memcpy(net.sent, p, len);
	memcpy(r, p, len);
	net.request_len = len;
	CHECK(r[0] == PW_ACCESS_REQUEST && ((size_t)r[2] << 8 | r[3]) == len && r[HEADER] == RADSEAL_MA);
	for (; len - i >= 2 && r[i + 1] > 2; i += r[i + 1]) {
		CHECK(len - i >= r[i + 1] && seen[r[i]]++ == 0);
	}
	CHECK(i == len && seen[PW_USER_NAME] && seen[PW_USER_PASSWORD]);
	CHECK(seen[net.v6 ? PW_NAS_IPV6_ADDRESS : PW_NAS_IP_ADDRESS]);
	memset(r + HEADER + 2, 0, 16);
	radseal_mac(mac, r, len, net_secrets.radius[net.server]);
	CHECK(memcmp(mac, net.sent + HEADER + 2, sizeof mac) == 0);
	memcpy(r, p, len);
	return (ssize_t)len;
}

/* ---- replies ---- */

/* Write attributes into net.packet: each a type, one of those that are read or any, and a length, which may be taken as it is. */
static void
fuzz_build(void)
{
	static const uint8_t types[] = { PW_SERVICE_TYPE, PW_REPLY_MESSAGE, PW_CLASS, PW_USER_NAME, 26, RADSEAL_MA };
	unsigned n = take_octet(&net.in);
	size_t at = HEADER;

	for (unsigned i = 0; i < n % 80 && net.in.len > 0; i++) {
		unsigned type = take_octet(&net.in), len = take_octet(&net.in);
		uint8_t *a = net.packet + at;

		type = type < 128 ? types[type % sizeof types] : type - 128;
		len = len < 2 ? 2 : len;
		if (type == RADSEAL_MA) {
			len = 18;
		} else if (type == PW_SERVICE_TYPE && len < 128) {
			len = 6;
		}
		if (at + len > sizeof net.packet) {
			break;
		}
		memset(a, 0, len);
		a[0] = (uint8_t)type;
		a[1] = (uint8_t)len;
		if (type != RADSEAL_MA) {
			take_octets(&net.in, a + 2, len - 2);
		}
		if (type == PW_SERVICE_TYPE && len == 6 && a[2] < 128) {
			a[5] = a[2] % 24;
			a[2] = a[3] = a[4] = 0;
		}
		at += len;
	}
	net.packet_len = at;
}

/* Put id, length, Message-Authenticator and Response Authenticator right, as far as it is a packet at all. */
static void
fuzz_seal(uint8_t *p, size_t len, const char *secret)
{
	uint8_t mac[16];

	if (len < HEADER) {
		return;
	}
	p[1] = net.request[1];
	radseal_put_length(p, len);
	memcpy(p + 4, net.request + 4, 16);
	for (size_t i = HEADER; i + 1 < len && p[i + 1] >= 2; i += p[i + 1]) {
		if (p[i] == RADSEAL_MA && p[i + 1] == 18 && len - i >= 18) {
			memset(p + i + 2, 0, 16);
			radseal_mac(mac, p, len, secret);
			memcpy(p + i + 2, mac, sizeof mac);
			break;
		}
	}
	radseal_response(mac, p, len, net.request, secret);
	memcpy(p + 4, mac, sizeof mac);
}

/* Spoil the Message-Authenticator of a sealed reply, and put the other seal right. 1, or 0 when it has none. */
static int
fuzz_spoil(uint8_t *p, size_t len, const char *secret)
{
	for (size_t i = HEADER; i + 17 < len && p[i + 1] >= 2; i += p[i + 1]) {
		if (p[i] == RADSEAL_MA) {
			uint8_t mac[16];

			p[i + 2 + len % 16] ^= 1;
			radseal_response(mac, p, len, net.request, secret);
			memcpy(p + 4, mac, sizeof mac);
			return 1;
		}
	}
	return 0;
}

/* What a reply that was sealed with the right secret must lead to; 0 when it must be dropped. */
static enum radius_result
fuzz_judge(const uint8_t *p, size_t len)
{
	enum radius_result r = p[0] == PW_ACCESS_ACCEPT ? RADIUS_ACCEPT : RADIUS_REJECT;
	unsigned authenticators = 0;
	size_t i = HEADER;

	if (len < HEADER || (p[0] != PW_ACCESS_ACCEPT && p[0] != PW_ACCESS_REJECT && p[0] != PW_ACCESS_CHALLENGE)) {
		return 0;
	}
	for (; i < len; i += p[i + 1]) {
		if (len - i < 2 || p[i] == 0 || p[i + 1] < 2 || p[i + 1] > len - i ||
		    (p[i] == RADSEAL_MA && p[i + 1] != 18)) {
			return 0;
		}
		authenticators += p[i] == RADSEAL_MA;
		if (p[i] == PW_SERVICE_TYPE &&
		    (p[i + 1] != 6 || memcmp(p + i + 2, (const uint8_t[]){ 0, 0, 0, RADIUS_SERVICE_TYPE }, 4) != 0)) {
			r = RADIUS_REJECT;
		}
	}
	if (authenticators == 0 && !net_conf.server[net.server].unsigned_ok) {
		return 0;
	}
	return authenticators > 1 ? 0 : r;
}

static int
fuzz_poll(struct pollfd *fds, nfds_t n, int timeout)
{
	unsigned event = net.in.len == 0 ? SILENCE : take_octet(&net.in);

	CHECK(fds != NULL && n == 1 && fds->fd == net.open && timeout > 0 && net.decided == 0);
	/* While there is input, an event takes a moment at least, so that all ends. */
	net.now++;
	fds->revents = POLLIN;
	net.packet_len = 0;
	errno = 0;
	switch (event % EVENTS) {
	case SILENCE:
		net.now += timeout - 1;
		return 0;
	case BUILT:
	case FORGED:
		net.packet[0] =
		    (const uint8_t[]){ PW_ACCESS_ACCEPT, PW_ACCESS_REJECT, PW_ACCESS_CHALLENGE, 5 }[event / EVENTS % 4];
		fuzz_build();
		fuzz_seal(
		    net.packet, net.packet_len, event % EVENTS == BUILT ? net_secrets.radius[net.server] : "another");
		/* The highest ones: with the right secret, but for one of the two seals. */
		if (event % EVENTS == BUILT &&
		    (event < 224 || !fuzz_spoil(net.packet, net.packet_len, net_secrets.radius[net.server]))) {
			net.decided = fuzz_judge(net.packet, net.packet_len);
		}
		return 1;
	case SEALED:
	case RAW:
		net.packet_len = take_octets(&net.in, net.packet, take_octet(&net.in));
		if (event % EVENTS == SEALED) {
			fuzz_seal(net.packet, net.packet_len, net_secrets.radius[net.server]);
			net.decided = fuzz_judge(net.packet, net.packet_len);
		}
		return 1;
	case INTERRUPTED:
		errno = EINTR;
		return -1;
	default:
		errno = event % EVENTS == AGAIN ? EAGAIN : ECONNREFUSED;
		return 1;
	}
}

static ssize_t
fuzz_recv(int fd, void *p, size_t cap, int flags)
{
	CHECK(fd == net.open && flags == MSG_DONTWAIT && cap == RADIUS_PACKET_MAX);
	if (net.packet_len == 0 && errno != 0) {
		return -1;
	}
	memcpy(p, net.packet, net.packet_len);
	return (ssize_t)net.packet_len;
}

/* What all sessions know now: who was silent is asked last for a while, who answered is asked first, if it was about this radius.conf. */
static void
fuzz_check_marks(const struct radius_answer *a, int current)
{
	for (unsigned i = 0; i < net_conf.servers; i++) {
		int64_t until = net_share->radius[i].dead_until;

		if ((net.asked >> i & 1) != 0 && current) {
			CHECK((int)i == a->server ? until == 0 : until > net.now - RADIUS_DEADLINE * 1000);
		} else {
			CHECK(until == 0 || until == FUZZ_START + 1000 || !net_conf.server[i].numeric || net.full);
		}
	}
	CHECK(a->server == -1 || !current || atomic_load(&net_share->radius_good) == (unsigned)a->server);
}

/* Text of this length, without NUL. */
static void
fuzz_fill(char *s, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		s[i] = (char)(1 + i * 37 % 255);
	}
	s[len] = '\0';
}

/* The servers of radius.conf, two octets each: timeout and repeats, what else is with it. */
static void
fuzz_servers(struct input *in, unsigned n)
{
	net_share = net_share == NULL ? share_open(-1) : net_share;
	CHECK(net_share != NULL);
	memset(net_share->radius, 0, sizeof net_share->radius);
	net_share->radius_generation = 1;
	memset(&net_conf, 0, sizeof net_conf);
	net_conf.servers = n;
	for (unsigned i = 0; i < n; i++) {
		struct radius_server *r = &net_conf.server[i];
		unsigned times = take_octet(in), how = take_octet(in);

		r->timeout = (int)(1 + times % 8);
		r->retries = (int)(times / 8 % 11);
		r->unsigned_ok = how & 1;
		r->numeric = (how & 2) == 0;
		r->port = (uint16_t)(1 + i);
		r->addr.ip[0] = (how & 4) != 0 ? 0xff : 0x20;
		if (!r->numeric && (how & 8) != 0) {
			net_share->radius[i].addr = r->addr;
		}
		net_share->radius[i].dead_until = (how & 16) != 0 ? FUZZ_START + 1000 : 0;
		str_copy(r->name, sizeof r->name, "radius.example.net");
		str_fmt(net_secrets.radius[i], sizeof net_secrets.radius[i], "secret%u", i);
	}
}

#endif
