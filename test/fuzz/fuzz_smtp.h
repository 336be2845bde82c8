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
	uint32_t asked[BATCH_MAX]; /* in the last message, so many */
	unsigned count;
	int message;            /* a file in memory */
	int transaction, hoped; /* 1 sender, 2 recipient, 3 data; hoped: when all is allowed that was asked */
	int loggedin;
	char command[SMTP_COMMAND_MAX + 1]; /* DATA or BDAT */
} fake;

/* Is a request about mail in its place, when the transaction is at `at`? */
static int
fake_in_place(uint32_t type, int at)
{
	return type == MSG_MAIL ? at == 0 : type == MSG_RCPT ? at == 1 || at == 2 : type == MSG_DATA ? at == 2 : 1;
}

/* What smtp may ask when: not a word about mail or passwords where that needs TLS; a transaction in its order. `at`: where it is, if the warden
 * says yes to all that came in this message so far. */
static void
fake_allow(uint32_t type, const union msg_any *m, int at)
{
	const struct conn *c = wire.conn;
	enum profile profile = session.info->profile;

	CHECK(type < MSG_AUTH || type >= MSG_RESET || profile != PROFILE_SUBMISSION || c->tls);
	CHECK(fake_in_place(type, at));
	switch (type) {
	case MSG_AUTH:
		CHECK((profile == PROFILE_INSIDE || c->tls) && !fake.loggedin && at == 0);
		CHECK(m->auth.user_len <= AUTH_USER_MAX && m->auth.pass_len <= AUTH_PASSWORD_MAX);
		CHECK((m->auth.user_len == 0) == (m->auth.pass_len == 0));
		break;
	case MSG_MAIL:
		CHECK(utf8_valid(m->mail.addr, m->mail.len));
		break;
	case MSG_RCPT:
		CHECK(m->rcpt.len > 0);
		break;
	case MSG_COMMIT:
		CHECK(at == 3);
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

static void
fake_request(uint32_t type, const void *p)
{
	union msg_any m;

	memset(&m, 0, sizeof m);
	memcpy(&m, p, fuzz_request_size[type]);
	fake_allow(type, &m, fake.hoped);
	if (type == MSG_COMMIT) {
		fake_commit(&m.commit);
	} else if (type == MSG_DATA) {
		fuzz_data_at = fuzz_stream_at();
		memcpy(fake.command, session.line, session.line_len + 1);
	} else if (type == MSG_RESET) {
		fake.transaction = fake.hoped = 0;
	}
	if (type >= MSG_MAIL && type <= MSG_DATA) {
		fake.hoped = (int)(type - MSG_MAIL) + 1;
	}
}

int
__wrap_msg_send(int sock, const void *m, size_t len, int fd)
{
	CHECK(sock == 3 && fd == -1 && len > 0);
	fake.hoped = fake.transaction;
	for (fake.count = 0; len > 0; fake.count++) {
		uint32_t *type = &fake.asked[fake.count];

		CHECK(fake.count < BATCH_MAX && len >= sizeof *type);
		memcpy(type, m, sizeof *type);
		CHECK(*type < MSG_COUNT && len >= fuzz_request_size[*type]);
		CHECK(fake.count == 0 || *type == MSG_RCPT || (*type == MSG_DATA && len == fuzz_request_size[*type]));
		fake_request(*type, m);
		len -= fuzz_request_size[*type];
		m = (const uint8_t *)m + fuzz_request_size[*type];
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

/* The verdict on a request; `refused`: one before it in the same message was. 0: the warden is gone. */
static enum verdict
fake_verdict(uint32_t type, int refused)
{
	enum verdict v = ++fake.requests % fake.every == 0 ? (enum verdict)fake.verdict : V_OK;

	if (!fake_in_place(type, fake.transaction)) {
		CHECK(refused); /* else smtp could have known */
		return V_SKIPPED;
	}
	fake_answered(type, v == V_OK);
	return v;
}

long
__wrap_msg_recv(int sock, void *m, size_t cap, int *fd, int timeout)
{
	union msg_any a = { 0 };
	uint32_t type = fake.asked[0];
	int refused = 0;

	CHECK(sock == 3 && timeout == -1 && (fd != NULL) == (fake.asked[fake.count - 1] == MSG_DATA));
	CHECK(cap == (type < MSG_AUTH || type == MSG_COMMIT ? cap : fake.count * sizeof a.verdict) && cap <= sizeof a);
	for (unsigned i = 0; i < fake.count; i++) {
		struct msg_verdict v = { fake.asked[i], fake_verdict(fake.asked[i], refused) };

		if (v.verdict == 0 || wire.gone) {
			return 0;
		}
		refused |= v.verdict != V_OK;
		memcpy((uint8_t *)&a + i * sizeof v, &v, sizeof v);
		if (v.type == MSG_DATA && v.verdict == V_OK) {
			CHECK(ftruncate(fake.message, 0) == 0 && lseek(fake.message, 0, SEEK_SET) == 0);
			*fd = (fake.flags & 32) != 0 ? open("/dev/full", O_WRONLY | O_CLOEXEC) : dup(fake.message);
		}
	}
	memcpy(m, &a, cap);
	return (long)cap;
}

#endif
