/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* A RADIUS server in place of the network: radius.c, compiled into fuzz_radius.c, sends to it and receives from it. */
#ifndef MAILSTILE_TEST_FUZZ_RADIUS_H
#define MAILSTILE_TEST_FUZZ_RADIUS_H

#include <poll.h>
#include <sys/socket.h>

static int fuzz_poll(struct pollfd *fds, nfds_t n, int timeout);
static ssize_t fuzz_send(int fd, const void *p, size_t len, int flags);
static ssize_t fuzz_recv(int fd, void *p, size_t cap, int flags);
static int64_t fuzz_ms(void);
#define poll fuzz_poll
#define send fuzz_send
#define recv fuzz_recv
#define mono_ms fuzz_ms
#include "radius.c"
#undef poll
#undef send
#undef recv
#undef mono_ms

#include "fuzz.h"

#define FUZZ_SECRET "secret"

static struct input fuzz_reply;
static unsigned fuzz_flags;
static size_t fuzz_request_len; /* 0 once it is answered */
static uint8_t fuzz_request[RADIUS_PACKET_MAX];
static int64_t fuzz_now = 1;

int __wrap_getentropy(void *p, size_t len);

/* radcli's Request Authenticator. MemorySanitizer 14 does not know that getentropy() writes. */
int
__wrap_getentropy(void *p, size_t len)
{
	random_bytes(p, len);
	return 0;
}

static int64_t
fuzz_ms(void)
{
	return fuzz_now;
}

static int
fuzz_poll(struct pollfd *fds, nfds_t n, int timeout)
{
	return fds != NULL && n == 1 && timeout > 0;
}

/* A request is well formed, its Message-Authenticator is right and comes first, and each attribute is there once. */
static ssize_t
fuzz_send(int fd, const void *p, size_t len, int flags)
{
	uint8_t mac[16];
	int seen[256] = { 0 };
	size_t i = HEADER;

	CHECK(fd != -1 && flags == MSG_NOSIGNAL && len <= sizeof fuzz_request && len >= HEADER + 18);
	memcpy(fuzz_request, p, len);
	fuzz_request_len = len;
	CHECK(fuzz_request[0] == PW_ACCESS_REQUEST && ((size_t)fuzz_request[2] << 8 | fuzz_request[3]) == len);
	CHECK(fuzz_request[HEADER] == MESSAGE_AUTHENTICATOR);
	for (; len - i >= 2 && fuzz_request[i + 1] > 2; i += fuzz_request[i + 1]) {
		CHECK(len - i >= fuzz_request[i + 1] && seen[fuzz_request[i]]++ == 0);
	}
	CHECK(i == len && seen[PW_USER_NAME] && seen[PW_USER_PASSWORD] && seen[PW_NAS_IP_ADDRESS]);
	memset(fuzz_request + HEADER + 2, 0, 16);
	message_authenticator(mac, fuzz_request, len, FUZZ_SECRET);
	CHECK(memcmp(mac, (const uint8_t *)p + HEADER + 2, sizeof mac) == 0);
	return (ssize_t)len;
}

/* Put id, length, Message-Authenticator and Response Authenticator of p[0..len) right, as far as it is a packet at all. */
static void
fuzz_seal(uint8_t *p, size_t len)
{
	uint8_t mac[16];

	if (len < HEADER) {
		return;
	}
	p[1] = fuzz_request[1];
	put_length(p, len);
	memcpy(p + 4, fuzz_request + 4, 16);
	for (size_t i = HEADER; i + 1 < len && p[i + 1] >= 2; i += p[i + 1]) {
		if (p[i] == MESSAGE_AUTHENTICATOR && p[i + 1] == 18 && len - i >= 18) {
			memset(p + i + 2, 0, 16);
			message_authenticator(mac, p, len, FUZZ_SECRET);
			memcpy(p + i + 2, mac, sizeof mac);
			break;
		}
	}
	response_authenticator(mac, p, len, fuzz_request, FUZZ_SECRET);
	memcpy(p + 4, mac, sizeof mac);
}

static ssize_t
fuzz_recv(int fd, void *p, size_t cap, int flags)
{
	size_t len;

	CHECK(fd != -1 && flags == MSG_DONTWAIT && cap == RADIUS_PACKET_MAX);
	if (fuzz_request_len == 0) {
		fuzz_now += 60000; /* nothing more will come */
		errno = ECONNREFUSED;
		return -1;
	}
	fuzz_request_len = 0;
	len = take_octets(&fuzz_reply, p, cap);
	if ((fuzz_flags & 1) != 0) {
		fuzz_seal(p, len);
	}
	return (ssize_t)len;
}

/* What radcli got: texts without a gap, only those that we read, no empty one; after an accept, no service but ours. */
static void
fuzz_check_reply(const uint8_t *p, size_t len, const struct radius_answer *a)
{
	size_t i = HEADER;
	unsigned n = 0;

	for (; i + 1 < len && p[i + 1] > 2; i += p[i + 1]) {
		CHECK(p[i] == PW_USER_NAME || p[i] == PW_REPLY_MESSAGE || p[i] == PW_CLASS);
		n++;
	}
	CHECK(i == len && ((size_t)p[2] << 8 | p[3]) == len && n <= ATTRIBUTES_MAX);
	CHECK(a->result != RADIUS_ACCEPT || a->service == -1 || a->service == RADIUS_SERVICE_TYPE);
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

#endif
