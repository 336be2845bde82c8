/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * A client without a network: tls.c, compiled into the target, waits, reads and writes here. What the client does is a script: packets, each
 * up to an octet 255. After an empty packet comes one octet, a letter of wire_event(), and for some an argument. Time stands still but for
 * the script, and what is random comes from a generator that starts anew, so that an input always does the same.
 * Needs -Wl,--wrap=mono_ms,--wrap=random_bytes
 */
#ifndef MAILSTILE_TEST_FUZZ_WIRE_H
#define MAILSTILE_TEST_FUZZ_WIRE_H

#include "fuzz.h"
#include "str.h"
#include "tls.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define WIRE_FD 1000
#define WIRE_START 1000000 /* mono_ms() */

static struct {
	struct input script, packet;
	struct conn *conn;
	int error;        /* of the next read */
	int gone;         /* the warden's end is closed */
	int stuck;        /* the client does not read */
	int by_line;      /* what is read is a line at most */
	int events;       /* there were some */
	int polled;       /* the wait before said that there is something to read */
	int closed;       /* we have shut down our side */
	size_t write_max; /* what one write takes; 0 = all */
	size_t got, said; /* octets from and to the client */
	uint8_t stream[1 << 14], reply[1 << 17];
} wire;
static int64_t wire_now = WIRE_START;
static uint64_t wire_random, wire_seed = 1;
static int wire_by_line;

int64_t __wrap_mono_ms(void);
void __wrap_random_bytes(void *p, size_t len);

int64_t
__wrap_mono_ms(void)
{
	return wire_now;
}

/* Not good, but the same each time (xorshift64*). */
static void
wire_random_bytes(uint64_t *state, void *p, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		*state ^= *state >> 12;
		*state ^= *state << 25;
		*state ^= *state >> 27;
		((uint8_t *)p)[i] = (uint8_t)(*state * UINT64_C(2685821657736338717) >> 56);
	}
}

void
__wrap_random_bytes(void *p, size_t len)
{
	wire_random_bytes(&wire_random, p, len);
}

/* What happens while the server waits for at most `ms`: 0 time passes, -1 with errno, 1 there is something to read (or the end). */
static int
wire_event(int64_t ms)
{
	while (wire.packet.len == 0) {
		int64_t pass;

		if (wire.script.len == 0) {
			return 1;
		}
		wire.packet = take_packet(&wire.script);
		wire.events |= wire.packet.len == 0;
		switch (wire.packet.len > 0 ? 0 : take_octet(&wire.script)) {
		case 'T': /* time */
			pass = 100 * (int64_t)take_octet(&wire.script) * take_octet(&wire.script);
			wire_now += pass < ms ? pass : ms + 1;
			return 0;
		case 'S': /* SIGTERM */
			conn_stop = 1;
			errno = EINTR;
			return -1;
		case 'I':
			errno = EINTR;
			return -1;
		case 'G': /* the warden is gone */
			wire.gone = 1;
			break;
		case 'R':
			wire.error = ECONNRESET;
			return 1;
		case 'A':
			wire.error = EAGAIN;
			return 1;
		case 'B':
			wire.stuck = 1;
			break;
		case 'N':
			wire.write_max = 1 + take_octet(&wire.script);
			break;
		default:
			break;
		}
		if (wire.gone) {
			return 0;
		}
	}
	return 1;
}

#ifdef FUZZ_TLS
static int wire_tls(void);
static int wire_tls_fetch(int64_t ms);
static size_t wire_tls_read(void *p, size_t cap);
static unsigned char *wire_recvapp_buf(const br_ssl_engine_context *eng, size_t *len);
static void wire_recvapp_ack(br_ssl_engine_context *eng, size_t len);
#else
#define wire_tls() 0
#define wire_tls_fetch(ms) 0
#define wire_tls_read(p, cap) 0
#endif

static int
wire_ppoll(struct pollfd *p, nfds_t n, const struct timespec *ts, const sigset_t *mask)
{
	int64_t ms = ts->tv_sec * INT64_C(1000) + ts->tv_nsec / 1000000;
	int r = 0;

	CHECK(n == 2 && p[0].fd == WIRE_FD && ms > 0 && mask != NULL);
	p[0].revents = p[1].revents = 0;
	if (!wire.gone || p[1].fd == -1) {
		if (p[0].events == POLLIN) {
			r = wire_tls() ? wire_tls_fetch(ms) : wire_event(ms);
		} else if (wire.stuck) {
			wire_now += ms + 1;
		} else {
			r = 1;
		}
	}
	if (wire.gone && p[1].fd != -1) {
		p[1].revents = POLLHUP;
		return 1;
	}
	p[0].revents = r == 1 ? p[0].events : 0;
	wire.polled = r == 1 && p[0].events == POLLIN;
	return r;
}

static ssize_t
wire_read(int fd, void *p, size_t cap)
{
	size_t n;

	CHECK(fd == WIRE_FD && cap > 0 && (wire.polled || wire.conn->nonblock));
	if (wire.error != 0) {
		errno = wire.error;
		wire.error = wire.error == EAGAIN ? 0 : wire.error;
		return -1;
	}
	if (wire_tls()) {
		n = wire_tls_read(p, cap);
	} else {
		if (wire.by_line && wire.packet.len > 0) {
			const uint8_t *lf = memchr(wire.packet.p, '\n', wire.packet.len);

			cap = lf != NULL && (size_t)(lf - wire.packet.p) < cap ? (size_t)(lf - wire.packet.p) + 1 : cap;
		}
		n = take_octets(&wire.packet, p, cap);
		CHECK(n <= sizeof wire.stream - wire.got);
		memcpy(wire.stream + wire.got, p, n);
		wire.got += n;
	}
	if (n == 0 && !wire.polled) {
		errno = EAGAIN;
		return -1;
	}
	wire.polled = 0;
	return (ssize_t)n;
}

static ssize_t
wire_write(int fd, const void *p, size_t len)
{
	size_t room = sizeof wire.reply - wire.said;

	CHECK(fd == WIRE_FD && len > 0 && !wire.closed && (!wire.stuck || wire.conn->nonblock));
	if (wire.stuck) {
		errno = EAGAIN;
		return -1;
	}
	len = wire.write_max != 0 && len > wire.write_max ? wire.write_max : len;
	len = len > room && room > 0 ? room : len; /* more is said than anybody listens to */
	memcpy(wire.reply + wire.said, p, room > 0 ? len : 0);
	wire.said += room > 0 ? len : 0;
	return (ssize_t)len;
}

static int
wire_shutdown(int fd, int how)
{
	CHECK(fd == WIRE_FD && how == SHUT_WR);
	wire.closed = 1;
	return 0;
}

#define ppoll wire_ppoll
#define read wire_read
#define write wire_write
#define shutdown wire_shutdown
#ifdef FUZZ_TLS
#define br_ssl_engine_recvapp_buf wire_recvapp_buf
#define br_ssl_engine_recvapp_ack wire_recvapp_ack
#endif
#include "tls.c"
#undef ppoll
#undef read
#undef write
#undef shutdown
#undef br_ssl_engine_recvapp_buf
#undef br_ssl_engine_recvapp_ack

static void
wire_begin(struct conn *c, const struct input *script)
{
	memset(&wire, 0, offsetof(__typeof__(wire), stream));
	wire.script = *script;
	wire.conn = c;
	wire.by_line = wire_by_line;
	wire_now = WIRE_START;
	wire_random = wire_seed;
	conn_stop = 0;
	c->chain = NULL;                                        /* a fresh engine */
	conn_init(c, WIRE_FD, WIRE_FD, (int)(script->len & 1)); /* as main makes them, or as they come from inetd */
}

#endif
