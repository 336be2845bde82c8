/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* A warden for fuzz_smtp.c that answers what the input says, and looks at what it is asked, and when. */
#ifndef MAILSTILE_TEST_FUZZ_SMTP_H
#define MAILSTILE_TEST_FUZZ_SMTP_H

#include "fuzz_client.h"
#include "fuzz_mutate.h"

#include <fcntl.h>

static struct {
	unsigned flags, every, verdict, requests, ended;
	uint32_t asked;
	int message;     /* a file in memory */
	int transaction; /* 1 sender, 2 recipient, 3 data */
	int loggedin;
	char command[SMTP_COMMAND_MAX + 1]; /* DATA or BDAT */
} fake;

/* What smtp may ask when: not a word about mail or passwords where that needs TLS; a transaction in its order. */
static void
fake_allow(uint32_t type, const union msg_any *m)
{
	const struct conn *c = wire.conn;
	enum profile profile = session.info->profile;

	CHECK(type < MSG_AUTH || type >= MSG_RESET || profile != PROFILE_SUBMISSION || c->tls);
	switch (type) {
	case MSG_AUTH:
		CHECK((profile == PROFILE_INSIDE || c->tls) && !fake.loggedin && fake.transaction == 0);
		CHECK(m->auth.user_len <= AUTH_USER_MAX && m->auth.pass_len <= AUTH_PASSWORD_MAX);
		CHECK((m->auth.user_len == 0) == (m->auth.pass_len == 0));
		break;
	case MSG_MAIL:
		CHECK(fake.transaction == 0 && utf8_valid(m->mail.addr, m->mail.len));
		break;
	case MSG_RCPT:
		CHECK((fake.transaction == 1 || fake.transaction == 2) && m->rcpt.len > 0);
		break;
	case MSG_DATA:
		CHECK(fake.transaction == 2);
		break;
	case MSG_COMMIT:
		CHECK(fake.transaction == 3);
		break;
	case MSG_NOTE:
		fake.ended += m->note.kind < NOTE_AUTH_MALFORMED;
		break;
	default:
		break;
	}
}

/* The message file is complete, says smtp. */
static void
fake_commit(const struct msg_commit *m)
{
	static char text[1 << 16];
	ssize_t n = pread(fake.message, text, sizeof text, 0);

	CHECK(n >= 0 && (size_t)n < sizeof text);
	fuzz_check_text(text, (size_t)n);
	CHECK(session.info->databytes == 0 || m->octets <= session.info->databytes);
	CHECK(m->octets <= (uint64_t)n && m->hops < HOPS_MAX);
	if (!wire.conn->tls) {
		fuzz_check_message(text, (size_t)n, fake.command);
	}
}

int
__wrap_msg_send(int sock, const void *m, size_t len, int fd)
{
	uint32_t type;

	memcpy(&type, m, sizeof type);
	CHECK(sock == 3 && fd == -1 && type < MSG_COUNT && len == fuzz_request_size[type]);
	fake.asked = type;
	fake_allow(type, m);
	if (type == MSG_COMMIT) {
		fake_commit(m);
	} else if (type == MSG_DATA) {
		fuzz_data_at = fuzz_stream_at();
		memcpy(fake.command, session.line, session.line_len + 1);
	} else if (type == MSG_RESET) {
		fake.transaction = 0;
	}
	return wire.gone ? -1 : 0;
}

static void
fake_answered(uint32_t type, int ok)
{
	fake.loggedin |= type == MSG_AUTH && ok;
	if (type == MSG_COMMIT) {
		fake.transaction = 0;
	} else if (type >= MSG_MAIL && ok) {
		fake.transaction = type == MSG_MAIL ? 1 : type == MSG_RCPT ? 2 : 3;
	}
}

long
__wrap_msg_recv(int sock, void *m, size_t cap, int *fd, int timeout)
{
	union msg_any a = { .verdict = { .type = fake.asked,
				.verdict = ++fake.requests % fake.every == 0 ? fake.verdict : V_OK } };

	CHECK(sock == 3 && timeout == -1 && (fd != NULL) == (fake.asked == MSG_DATA) && cap <= sizeof a);
	if (a.verdict.verdict == 0 || wire.gone) {
		return 0; /* the warden is gone */
	}
	fake_answered(fake.asked, a.verdict.verdict == V_OK);
	if (fake.asked == MSG_DATA && a.verdict.verdict == V_OK) {
		CHECK(ftruncate(fake.message, 0) == 0 && lseek(fake.message, 0, SEEK_SET) == 0);
		*fd = (fake.flags & 32) != 0 ? open("/dev/full", O_WRONLY | O_CLOEXEC) : dup(fake.message);
	}
	memcpy(m, &a, cap);
	return (long)cap;
}

#endif
