/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * A session of smtp.c for targets that include it, with a client of fuzz_wire.h, and what must be true of each: replies, and that a message
 * is what came between its DATA and its end. A session ends with _exit(), which such targets replace (-Wl,--wrap=_exit).
 */
#ifndef MAILSTILE_TEST_FUZZ_CLIENT_H
#define MAILSTILE_TEST_FUZZ_CLIENT_H

#include "fuzz_wire.h"

#include <setjmp.h>
#include <sys/mman.h>

_Noreturn void __wrap__exit(int status);
int __wrap_msg_send(int sock, const void *m, size_t len, int fd);
int __real_msg_send(int sock, const void *m, size_t len, int fd);
long __wrap_msg_recv(int sock, void *m, size_t cap, int *fd, int timeout);
long __real_msg_recv(int sock, void *m, size_t cap, int *fd, int timeout);

static jmp_buf fuzz_ended;

_Noreturn void
__wrap__exit(int status)
{
	CHECK(status == 0);
	longjmp(fuzz_ended, 1);
}

/* ---- replies ---- */

/* An enhanced code fits its reply code (RFC 2034); only greetings and prompts have none. */
static int
fuzz_enhanced(const char *line)
{
	static const char *const bare[] = { "220 mx.", "250-", "250 mx.", "250 CHUNKING", "334 ", "354 " };

	for (size_t i = 0; i < sizeof bare / sizeof bare[0]; i++) {
		if (memcmp(line, bare[i], strlen(bare[i])) == 0) {
			return 1;
		}
	}
	return line[4] == line[0] && line[5] == '.' && ascii_isdigit(line[6]) && line[7] == '.' &&
	    ascii_isdigit(line[8]) && line[9] == ' ';
}

/* Every line sent is a reply: three digits, a hyphen or blank, printable text, CRLF; after a hyphen another one of the same code. */
static void
fuzz_check_replies(const uint8_t *said, size_t len)
{
	const char *end = (const char *)said + len, *lf, *before = NULL;

	for (const char *p = (const char *)said; p < end && (lf = memchr(p, '\n', (size_t)(end - p))) != NULL;
	     p = lf + 1) {
		CHECK(lf - p > 4 && lf - p < 512 && lf[-1] == '\r' && (p[3] == ' ' || p[3] == '-'));
		CHECK(p[0] >= '2' && p[0] <= '5' && ascii_isdigit(p[1]) && ascii_isdigit(p[2]));
		CHECK(before == NULL || before[3] == ' ' || memcmp(before, p, 3) == 0);
		CHECK(fuzz_enhanced(p));
		for (const char *c = p; c < lf - 1; c++) {
			CHECK(*c >= 32 && *c < 127);
		}
		before = p;
	}
}

/* ---- messages ---- */

static size_t fuzz_data_at; /* of the stream: where the message begins */

/* Where smtp.c stands in a plain stream. */
static size_t
fuzz_stream_at(void)
{
	return wire.got - wire.conn->in_len;
}

/* The octets up to the end of the first CRLF.CRLF, whose first CRLF may be that of the command; 0 when there is none. */
static size_t
fuzz_end_of_data(const uint8_t *p, size_t len)
{
	const uint8_t *end = memmem(p, len, "\r\n.\r\n", 5);

	if (len >= 3 && memcmp(p, ".\r\n", 3) == 0) {
		return 3;
	}
	return end == NULL ? 0 : (size_t)(end - p) + 5;
}

/* Append p[0..len) as it is kept: LF for CRLF, and without the dots that stuff it, if any do. *bol: at the start of a line. */
static void
fuzz_keep(struct buf *to, const uint8_t *p, size_t len, int dots, int *bol)
{
	for (size_t i = 0; i < len; i++) {
		if (!(p[i] == '\r' && i + 1 < len && p[i + 1] == '\n') && !(dots && *bol && p[i] == '.')) {
			buf_ch(to, (char)p[i]);
		}
		*bol = p[i] == '\n';
	}
}

/* The message that p[0..len), in front of which a DATA or BDAT command has been, says. All of it must be used. */
static void
fuzz_message_of(struct buf *to, const uint8_t *p, size_t len, const char *command)
{
	static uint8_t chunks[sizeof wire.stream];
	size_t n = 0, used = 0;
	int bol = 1;

	if (ascii_casecmp(command, "DATA", 4) == 0) {
		CHECK(fuzz_end_of_data(p, len) == len);
		fuzz_keep(to, p, len - 3, 1, &bol);
		return;
	}
	for (;;) {
		const uint8_t *line = p + used;
		size_t size = (size_t)strtoull(command + 5, NULL, 10);

		CHECK(ascii_casecmp(command, "BDAT ", 5) == 0 && size <= len - used);
		memcpy(chunks + n, line, size);
		n += size;
		used += size;
		if (used == len) {
			break;
		}
		/* Other commands may stand between. */
		do {
			command = (const char *)p + used;
			line = memchr(command, '\n', len - used);
			CHECK(line != NULL);
			used = (size_t)(line + 1 - p);
		} while (
		    ascii_casecmp(command, "BDAT ", 5) != 0 || line + 1 - (const uint8_t *)command > SMTP_COMMAND_MAX);
	}
	fuzz_keep(to, chunks, n, 0, &bol);
	if (n > 0 && chunks[n - 1] != '\n') {
		buf_ch(to, '\n');
	}
}

/* At a COMMIT: text[0..len), as it was written, is what came since DATA, but for fields that were added at one place. */
static void
fuzz_check_message(const char *text, size_t len, const char *command)
{
	static char mem[2 * sizeof wire.stream];
	struct buf want;
	size_t same = 0, more;

	buf_init(&want, mem, sizeof mem);
	fuzz_message_of(&want, wire.stream + fuzz_data_at, fuzz_stream_at() - fuzz_data_at, command);
	CHECK(!want.full && len >= want.len);
	more = len - want.len;
	while (same < want.len && text[same] == mem[same]) {
		same++;
	}
	/* What was added may begin as what follows it does: "Date" before "Data". */
	while (memcmp(text + same + more, mem + same, want.len - same) != 0) {
		CHECK(same > 0);
		same--;
	}
	/* An empty line in front of a first line that folds; fields. */
	CHECK(more == 0 || (more == 1 && text[0] == '\n' && mem[0] <= ' ') ||
	    (more < 400 && (memmem(text, len, "Date: ", 6) != NULL || memmem(text, len, "Message-ID: ", 12) != NULL)));
}

/* ---- a session ---- */

/* One session, to its end. */
static void
fuzz_client(const struct smtp_info *info, const struct cert_chain *chain, int warden_sock, const struct input *in)
{
	static struct conn conn;

	wire_begin(&conn, in);
	memset(&session, 0, sizeof session);
	smtp_prepare(info, &conn, chain, warden_sock);
	if (setjmp(fuzz_ended) == 0) {
		smtp_run();
	}
	if (session.file != -1) {
		close(session.file);
	}
	CHECK(wire.closed);
#ifndef FUZZ_TLS
	if (!conn.tls) {
		fuzz_check_replies(wire.reply, wire.said);
	}
#endif
}

#endif
