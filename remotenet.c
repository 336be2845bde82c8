/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Connecting, and what the kernel knows about addresses; for remotes, from inside an empty jail. A datagram socket that is connected sends
 * nothing, but the kernel decides on a way: which tells whether there is one, and from which of our addresses.
 */
#include "remoteint.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#if RELAY

/* Wait until a socket is connected. 0 or -1 with errno. */
static int
wait_connected(int fd, int ms, int sock)
{
	int64_t until = mono_ms() + ms;
	socklen_t len = sizeof(int);
	int err = 0;

	for (;;) {
		struct pollfd p[2] = { { .fd = fd, .events = POLLOUT }, { .fd = sock, .events = POLLIN } };
		int64_t left = until - mono_ms();
		int r = left <= 0 ? 0 : poll(p, 2, (int)left);

		if (r == 0) {
			errno = ETIMEDOUT;
			return -1;
		}
		if (r > 0 && p[1].revents != 0) {
			_exit(0); /* the scheduler is gone, or ends */
		}
		if (r > 0) {
			break;
		}
		if (errno != EINTR) {
			return -1;
		}
	}
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) == -1) {
		return -1;
	}
	errno = err;
	return err == 0 ? 0 : -1;
}

int
remote_open(const struct addr *addr, uint16_t port, int ms, int sock)
{
	struct sockaddr_storage ss;
	socklen_t len = addr_to_sockaddr(addr, port, &ss);
	int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int one = 1, saved;

	if (fd == -1) {
		return -1;
	}
	if (connect(fd, (const struct sockaddr *)&ss, len) == 0 ||
	    (errno == EINPROGRESS && wait_connected(fd, ms, sock) == 0)) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		return fd;
	}
	saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

/* The address we would use to talk to `to`. 0 or -1. */
static int
way_to(const struct addr *to, struct addr *from)
{
	struct sockaddr_storage ss;
	socklen_t len = addr_to_sockaddr(to, 25, &ss);
	int fd = socket(ss.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	uint16_t port;
	int rc = -1;

	if (fd == -1) {
		return -1;
	}
	if (connect(fd, (const struct sockaddr *)&ss, len) == 0) {
		len = sizeof ss;
		if (getsockname(fd, (struct sockaddr *)&ss, &len) == 0) {
			rc = addr_from_sockaddr(from, &port, (const struct sockaddr *)&ss);
		}
	}
	close(fd);
	return rc;
}

int
remote_is_us(const struct addr *addr)
{
	static const uint8_t zero[16];
	struct addr from;

	if (addr_is_v4(addr) ? addr->ip[12] == 127 || addr->ip[12] == 0
			     : memcmp(addr->ip, zero, 15) == 0 && addr->ip[15] <= 1) {
		return 1; /* loopback, and what the kernel takes for it */
	}
	return way_to(addr, &from) == 0 && memcmp(&from, addr, sizeof from) == 0;
}

int
remote_has_v6(void)
{
	/* Any address of the public space will do. */
	static const struct addr there = { { 0x20, 0x01, 0x05, [15] = 1 } };
	struct addr from;

	return way_to(&there, &from) == 0;
}

#endif
