/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* smtp.c and a real warden in one process, for fuzz_pair.c and fuzz_tls.c. */
#ifndef MAILSTILE_TEST_FUZZ_PAIR_H
#define MAILSTILE_TEST_FUZZ_PAIR_H

#include "fuzz_client.h"
#include "fuzz_mutate.h"
#include "fuzz_warden.h"

#define PAIR_WARDEN 3 /* numbers of the two ends of a socket that is not there */
#define PAIR_SMTP 4

static char pair_command[SMTP_COMMAND_MAX + 1]; /* DATA or BDAT */

/* The message that is in the file now is what came in. */
static void
pair_check_message(void)
{
	ssize_t n;

	if (!wire.conn->tls && model.state == WS_DATA) {
		n = pread(warden->spool.fd, fuzz_file, sizeof fuzz_file, (off_t)fuzz_head);
		CHECK(n >= 0);
		fuzz_check_text(fuzz_file, (size_t)n);
		fuzz_check_message(fuzz_file, (size_t)n, pair_command);
	}
}

/* What the warden says waits here for smtp, and the descriptor with it. */
static void
pair_answer(const void *m, size_t len, int fd)
{
	CHECK(len <= sizeof fuzz_answer.m);
	fuzz_answer.len = len;
	memcpy(&fuzz_answer.m, m, len);
	fuzz_answer.fd = fd == -1 ? -1 : dup(fd);
}

int
__wrap_msg_send(int sock, const void *m, size_t len, int fd)
{
	uint32_t type;

	if (sock == PAIR_WARDEN) {
		pair_answer(m, len, fd);
		return 0;
	}
	CHECK(sock == PAIR_SMTP && fd == -1);
	if (wire.gone) {
		return -1;
	}
	memcpy(&type, m, sizeof type);
	if (type == MSG_COMMIT) {
		pair_check_message();
	}
	if (session.file == -1) {
		fuzz_data_at = fuzz_stream_at(); /* in case DATA is in it */
		memcpy(pair_command, session.line, session.line_len < sizeof pair_command ? session.line_len + 1 : 0);
	}
	CHECK((type != MSG_AUTH && type != MSG_MAIL) || wire_greeted());
	/* Whatever a client sends, smtp keeps to the rules: else strangers could make main believe that smtp was taken over. */
	CHECK(fuzz_dispatch(m, len) == 0);
	return 0;
}

long
__wrap_msg_recv(int sock, void *m, size_t cap, int *fd, int timeout)
{
	CHECK(sock == PAIR_SMTP && timeout == -1);
	if (wire.gone) {
		return 0;
	}
	CHECK(fuzz_answer.len == cap && (fd != NULL || fuzz_answer.fd == -1));
	memcpy(m, &fuzz_answer.m, cap);
	if (fd != NULL) {
		*fd = fuzz_answer.fd;
		fuzz_answer.fd = -1;
	}
	return (long)cap;
}

/* A session of this kind; the script follows. */
static void
fuzz_pair(unsigned flags, const struct input *in)
{
	fuzz_warden_begin(flags, PAIR_WARDEN);
	fuzz_client(&warden->info, &warden->house->config->chain, PAIR_SMTP, in);
	if (fuzz_answer.fd != -1) {
		close(fuzz_answer.fd);
	}
	fuzz_warden_end();
}

/* Copy what was said, without the numbers of messages. Returns the length. */
static size_t
pair_said(uint8_t *to)
{
	const uint8_t *p = wire.reply, *end = wire.reply + wire.said;
	size_t n = 0;

	while (p < end) {
		const uint8_t *lf = memchr(p, '\n', (size_t)(end - p));
		size_t len = lf == NULL ? (size_t)(end - p) : (size_t)(lf - p) + 1;
		size_t keep = len > 13 && memcmp(p, "250 2.0.0 ok ", 13) == 0 ? 13 : len;

		memcpy(to + n, p, keep);
		n += keep;
		p += len;
	}
	return n;
}

/* The same session again, with each line by itself: what a client says in one breath means what it means line by line. */
static UNUSED void
fuzz_pair_by_line(unsigned flags, const struct input *in)
{
	static uint8_t before[sizeof wire.reply], after[sizeof wire.reply];
	size_t len = pair_said(before);
	unsigned messages = model.messages;
	uint64_t sum = 0;

	/* Events do not come at the same time, and what follows STARTTLS at once does not mean the same. */
	if (wire.events || wire.stuck || wire.said == sizeof wire.reply || in->len == 0 || (flags & 8) != 0) {
		return;
	}
	for (unsigned i = 0; i < messages; i++) {
		sum += model.accepted[i].sum;
	}
	wire_by_line = 1;
	fuzz_pair(flags, in);
	wire_by_line = 0;
	CHECK(model.messages == messages && pair_said(after) == len && memcmp(before, after, len) == 0);
	for (unsigned i = 0; i < messages; i++) {
		sum -= model.accepted[i].sum;
	}
	CHECK(sum == 0);
}

#endif
