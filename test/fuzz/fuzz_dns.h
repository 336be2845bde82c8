/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Name servers for fuzz_dns.c: dns.c is included with its system calls replaced. What they say comes from the input; time passes only while
 * dns.c waits. Needs -Wl,--wrap=mono_ms,--wrap=random_bytes
 */
#ifndef MAILSTILE_TEST_FUZZ_DNS_H
#define MAILSTILE_TEST_FUZZ_DNS_H

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

static int fuzz_poll(struct pollfd *fds, nfds_t n, int timeout);
static ssize_t fuzz_send(int fd, const void *p, size_t len, int flags);
static ssize_t fuzz_recv(int fd, void *p, size_t cap, int flags);
static int fuzz_socket(int domain, int type, int protocol);
static int fuzz_connect(int fd, const struct sockaddr *to, socklen_t len);
static int fuzz_close(int fd);
#define poll fuzz_poll
#define send fuzz_send
#define recv fuzz_recv
#define socket fuzz_socket
#define connect fuzz_connect
#define close fuzz_close
#include "dns.c"
#undef poll
#undef send
#undef recv
#undef socket
#undef connect
#undef close

#include "fuzz.h"

#define FUZZ_START 1000000

/* Events. */
enum { SILENCE, BUILT, RAW, REFUSED, AGAIN, EVENTS };

static struct {
	struct input in;
	int64_t now;
	int open, tcp;
	uint8_t question[DNS_QUESTION_MAX];
	size_t question_len;
	uint8_t packet[4096];
	size_t len, at;
} net;

int64_t __wrap_mono_ms(void);
void __wrap_random_bytes(void *p, size_t len);

int64_t
__wrap_mono_ms(void)
{
	return net.now;
}

void
__wrap_random_bytes(void *p, size_t len)
{
	static uint8_t n;

	for (size_t i = 0; i < len; i++) {
		((uint8_t *)p)[i] = n += 29;
	}
}

static int
fuzz_socket(int domain, int type, int protocol)
{
	CHECK((domain == AF_INET || domain == AF_INET6) && (type & SOCK_NONBLOCK) != 0 && protocol == 0 && !net.open);
	net.open = 1;
	net.tcp = (type & 15) == SOCK_STREAM;
	net.len = net.at = 0;
	return 1000;
}

static int
fuzz_connect(int fd, const struct sockaddr *to, socklen_t len)
{
	struct addr a;
	uint16_t port;

	CHECK(fd == 1000 && addr_from_sockaddr(&a, &port, to) == 0 && len <= sizeof(struct sockaddr_storage) &&
	    port == 53);
	errno = EINPROGRESS;
	return net.tcp ? -1 : 0;
}

static int
fuzz_close(int fd)
{
	if (fd == 1000) {
		CHECK(net.open);
		net.open = 0;
		return 0;
	}
	return close(fd);
}

static ssize_t
fuzz_send(int fd, const void *p, size_t len, int flags)
{
	size_t skip = net.tcp ? 2 : 0;

	CHECK(fd == 1000 && net.open && flags == MSG_NOSIGNAL && len > 12 + skip && len - skip <= sizeof net.question);
	net.question_len = len - skip;
	memcpy(net.question, (const uint8_t *)p + skip, net.question_len);
	return (ssize_t)len;
}

/* A packet: our question with flags, number of records and what follows from the input; or all of it from there. */
static void
fuzz_packet(int built)
{
	size_t at = net.tcp ? 2 : 0, want = take_octet(&net.in) << 8;

	want = (want | take_octet(&net.in)) % 2048;
	if (built) {
		memcpy(net.packet + at, net.question, net.question_len);
		net.packet[at + 2] = (uint8_t)(0x80 | take_octet(&net.in));
		net.packet[at + 3] = (uint8_t)take_octet(&net.in);
		net.packet[at + 7] = (uint8_t)take_octet(&net.in);
		at += net.question_len;
	}
	net.len = at + take_octets(&net.in, net.packet + at, want);
	net.at = 0;
	if (net.tcp) {
		put16(net.packet, (unsigned)net.len - 2);
	}
}

static int
fuzz_poll(struct pollfd *fds, nfds_t n, int timeout)
{
	unsigned event;

	CHECK(n == 1 && fds->fd == 1000 && net.open && timeout > 0);
	net.now++;
	if (fds->events == POLLOUT || net.at < net.len) {
		return 1;
	}
	event = net.in.len == 0 ? SILENCE : take_octet(&net.in) % EVENTS;
	net.len = net.at = 0;
	errno = event == AGAIN ? EAGAIN : event == REFUSED ? ECONNREFUSED : 0;
	if (event == BUILT || event == RAW) {
		fuzz_packet(event == BUILT);
	}
	net.now += event == SILENCE ? timeout : 0;
	return event != SILENCE;
}

static ssize_t
fuzz_recv(int fd, void *p, size_t cap, int flags)
{
	size_t n = net.len - net.at;

	CHECK(fd == 1000 && net.open && cap > 0 && flags == 0);
	if (n == 0 && errno != 0) {
		return -1;
	}
	/* Over TCP in parts. */
	n = net.tcp && n > 100 ? 100 : n;
	n = n < cap ? n : cap;
	memcpy(p, net.packet + net.at, n);
	net.at += n;
	return (ssize_t)n;
}

/* A host as it may be looked up, compared with a certificate, and logged. */
static void
fuzz_check_host(const char *host)
{
	uint8_t q[DNS_QUESTION_MAX];

	CHECK(host[strspn(host, "abcdefghijklmnopqrstuvwxyz0123456789-_.")] == '\0' &&
	    dns_question(q, sizeof q, 0, host, DNS_A) > 0);
}

#endif
