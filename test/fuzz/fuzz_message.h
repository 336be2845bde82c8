/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* Messages to the warden, made from few octets, so that a fuzzer need not fill fields with zeros, and their way over a socket. */
#ifndef MAILSTILE_TEST_FUZZ_MESSAGE_H
#define MAILSTILE_TEST_FUZZ_MESSAGE_H

#include "fuzz_warden.h"
#include "str.h"

#include <errno.h>
#include <sys/socket.h>

/* A length, and so many octets into field[cap]. Lengths from 250 up go in steps of 2, past the end of every field, and the last one lies. */
static uint32_t
fuzz_field(struct input *in, char *field, size_t cap)
{
	uint32_t n = take_octet(in);

	n = n < 250 ? n : n == 255 ? UINT32_MAX : 250 + (n - 250) * 2;
	take_octets(in, field, n < cap ? n : cap);
	return n;
}

/* The next message. Returns its length. With 64 added to the type, an octet says how it is sent: see fuzz_carry(). */
static size_t
fuzz_message(struct input *in, union msg_any *m, unsigned *how)
{
	unsigned type = take_octet(in);

	memset(m, 0, sizeof *m);
	*how = 0;
	if (type >= 128) {
		return take_octets(in, m, type - 128);
	}
	if (type >= 64) {
		*how = take_octet(in);
		type -= 64;
	}
	m->type = type;
	switch (type) {
	case MSG_AUTH:
		m->auth.mechanism = take_octet(in);
		m->auth.user_len = fuzz_field(in, m->auth.user, sizeof m->auth.user);
		m->auth.pass_len = fuzz_field(in, m->auth.pass, sizeof m->auth.pass);
		break;
	case MSG_MAIL:
		m->mail.utf8 = take_octet(in) & 1;
		m->mail.size = (uint64_t)take_octet(in) << take_octet(in) % 64;
		m->mail.len = fuzz_field(in, m->mail.addr, sizeof m->mail.addr);
		break;
	case MSG_RCPT:
		m->rcpt.len = fuzz_field(in, m->rcpt.addr, sizeof m->rcpt.addr);
		break;
	case MSG_DATA:
		m->data.esmtp = take_octet(in) & 1;
		m->data.helo_len = fuzz_field(in, m->data.helo, sizeof m->data.helo);
		break;
	default:
		take_octets(in, (char *)m + sizeof m->type, take_octet(in));
		break;
	}
	return type < MSG_COUNT ? fuzz_request_size[type] : sizeof m->type;
}

/* ---- over a real socket: 0 is the warden's end ---- */

static int fuzz_sock[2] = { -1, -1 };

int __wrap_msg_send(int sock, const void *m, size_t len, int fd);
int __real_msg_send(int sock, const void *m, size_t len, int fd);

/* Send m[0..len) with `fds` descriptors. */
static void
fuzz_send_with(const void *m, size_t len, unsigned fds)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)m, .iov_len = len };
	union {
		struct cmsghdr align;
		char mem[CMSG_SPACE(8 * sizeof(int))];
	} control;
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };

	memset(&control, 0, sizeof control);
	if (fds > 0) {
		h.msg_control = control.mem;
		h.msg_controllen = CMSG_SPACE(fds * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(fds * sizeof(int));
		for (size_t i = 0; i < fds; i++) {
			memcpy(CMSG_DATA(&control.align) + i * sizeof(int), &fuzz_sock[0], sizeof(int));
		}
	}
	CHECK(sendmsg(fuzz_sock[1], &h, MSG_NOSIGNAL) == (ssize_t)len);
}

/* The next message into p[BATCH_OCTETS]: one request or, behind an octet from 32 up, some. Returns its length. */
static size_t
fuzz_requests(struct input *in, uint8_t *p, unsigned *how)
{
	unsigned count = in->len > 0 && in->p[0] >= 32 && in->p[0] <= 32 + BATCH_MAX ? take_octet(in) - 31U : 1;
	size_t len = 0;

	while (count-- > 0) {
		union msg_any m;
		size_t n = fuzz_message(in, &m, how);

		if (len + n <= BATCH_OCTETS) {
			memcpy(p + len, &m, n);
			len += n;
		}
	}
	return len;
}

/*
 * The way of a message to the warden, as session.c takes it. `how`: with so many descriptors, which it must not have, and so many octets
 * behind it. 1 when the warden gets it.
 */
static int
fuzz_carry(uint8_t *p, size_t *n, unsigned how)
{
	static uint8_t got[BATCH_OCTETS + 1];
	unsigned fds = how % 9;
	int next, low;
	long r;

	if (*n == 0) {
		return 0; /* reads as the end */
	}
	low = dup(0);
	close(low);
	*n += how / 9;
	fuzz_send_with(p, *n, fds);
	r = msg_recv(fuzz_sock[0], got, sizeof got, NULL, 0);
	if (fds > 0) {
		CHECK(r == -1 && errno == EBADMSG);
	} else if (*n > sizeof got) {
		CHECK(r == -1 && errno == EMSGSIZE);
	} else {
		CHECK(r == (long)*n && memcmp(got, p, (size_t)r) == 0);
	}
	/* None of the descriptors stays. */
	next = dup(0);
	CHECK(next == low);
	close(next);
	return r > 0;
}

static int fuzz_held = -1; /* a file that came in an answer and was not closed */

/* Receive the answers, if there are any, and use the file that came with them as smtp would, or keep it. */
static void
fuzz_use_answer(struct input *in)
{
	union msg_any m;
	char text[256];
	int fd;
	unsigned how;
	long n = msg_recv(fuzz_sock[1], &m, sizeof m, &fd, 0);

	if (fuzz_answer.len == 0) {
		CHECK(n == -1 && (errno == ETIMEDOUT || errno == EINTR)); /* libFuzzer has an alarm of its own */
		return;
	}
	CHECK(n == (long)fuzz_answer.len && memcmp(&m, &fuzz_answer.m, fuzz_answer.len) == 0);
	CHECK((fd != -1) == (fuzz_answer.fd != -1));
	if (fd != -1) {
		how = take_octet(in);
		write_all(fd, text, take_octets(in, text, how));
		if (how < 250 || fuzz_held != -1) {
			close(fd);
		} else {
			fuzz_held = fd;
			model.held = 1;
		}
	}
}

static void
fuzz_let_go(void)
{
	if (fuzz_held != -1) {
		close(fuzz_held);
		fuzz_held = -1;
	}
}

#endif
