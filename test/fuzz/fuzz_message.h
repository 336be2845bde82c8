/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* Messages to the warden, made from few octets, so that a fuzzer need not fill fields with zeros. */
#ifndef MAILSTILE_TEST_FUZZ_MESSAGE_H
#define MAILSTILE_TEST_FUZZ_MESSAGE_H

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

/* The next message. Returns its length. */
static size_t
fuzz_message(struct input *in, union msg_any *m)
{
	unsigned type = take_octet(in);

	memset(m, 0, sizeof *m);
	if (type >= 128) {
		return take_octets(in, m, type - 128);
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

#endif
