/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Jobs for fuzz_remote.c, and what must be true of each: every recipient is reported once, "accepted" only after the whole message went out;
 * and what is sent is commands and the message, whatever the peer says.
 */
#ifndef MAILSTILE_TEST_FUZZ_REMOTE_H
#define MAILSTILE_TEST_FUZZ_REMOTE_H

#include "fuzz_wire.h"

#include "remoteint.h"

#include <setjmp.h>
#include <sys/mman.h>

_Noreturn void __wrap__exit(int status);
int __wrap_msg_send(int sock, const void *m, size_t len, int fd);
int __wrap_remote_open(const struct addr *addr, uint16_t port, int ms, int sock);

static const char hop_message[] = "Subject: x\n\n.\r\n.\nQUIT\r.\rgr\xc3\xbc\xc3\x9f";
static const char hop_plain[] = "Subject: x\r\n\r\n.\r\n.\r\nQUIT\r\n.\r\ngr\xc3\xbc\xc3\x9f\r\n"; /* by BDAT */
static const char hop_wire[] = "Subject: x\r\n\r\n..\r\n..\r\nQUIT\r\n..\r\ngr\xc3\xbc\xc3\x9f\r\n.\r\n";
static const char *const hop_senders[] = { "", "a@example.net", "gr\xc3\xbc\xc3\x9f@example.net",
	"a b\"c@example.net" };
static const char *const hop_rcpts[] = { "bob@example.org", "x y@example.org", "gr\xc3\xbc\xc3\x9f@example.org",
	"evil\r\nDATA@x" };

static jmp_buf hop_ended;
static struct {
	unsigned reported; /* a bit for each recipient */
	unsigned rcpts, opened;
	size_t job_at;  /* of wire.reply: where the job began */
	size_t checked; /* so much of it is good */
} hop;

/* ---- the world ---- */

_Noreturn void
__wrap__exit(int status)
{
	CHECK(status == 0);
	longjmp(hop_ended, 1);
}

/* Another connection; what the last peer still wanted to say is lost. Every third one cannot be made. */
int
__wrap_remote_open(const struct addr *addr, uint16_t port, int ms, int sock)
{
	CHECK(port == 25 + addr->ip[15] && ms >= 0 && sock == 3);
	if (++hop.opened % 3 == 0 || wire.script.len == 0) {
		errno = ECONNREFUSED;
		return -1;
	}
	if (wire.said > 0) {
		hop.checked = hop.job_at = wire.said; /* half a command may be its end */
	}
	wire.packet.len = 0;
	wire.error = wire.stuck = wire.closed = wire.polled = 0;
	return WIRE_FD;
}

/* Is the whole message in what was sent in this job? */
static int
hop_message_sent(void)
{
	const char *p = (const char *)wire.reply + hop.job_at;
	size_t len = wire.said - hop.job_at, end = 4;

	/* What is in the chunks hop_chunk() checks. */
	return memmem(p, len, hop_wire, sizeof hop_wire - 1) != NULL ||
	    (memmem(p, len, " LAST\r\n", 7) != NULL &&
		memcmp(p + len - end, hop_plain + sizeof hop_plain - 1 - end, end) == 0);
}

int
__wrap_msg_send(int sock, const void *m, size_t len, int fd)
{
	static struct deliver_report r;
	size_t end;

	CHECK(sock == 3 && fd == -1 && len == sizeof r);
	memcpy(&r, m, sizeof r);
	CHECK(r.type == DELIVER_REPORT && r.rcpt < hop.rcpts && (hop.reported >> r.rcpt & 1) == 0);
	hop.reported |= 1U << r.rcpt;
	CHECK(r.klass == 'K' || r.klass == 'Z' || r.klass == 'D');
	CHECK(r.klass != 'K' || (r.code / 100 == 2 && (hop_message_sent() || wire.said > sizeof wire.reply - 4096)));
	CHECK(r.code == 0 || (r.code >= 200 && r.code < 600));
	end = strnlen(r.text, sizeof r.text);
	CHECK(end > 1 && end <= DELIVER_TEXT_MAX && r.text[end - 1] == '\n');
	for (size_t i = 0; i < end; i++) {
		CHECK(r.text[i] == '\n' || (r.text[i] >= ' ' && r.text[i] <= '~'));
	}
	return wire.gone ? -1 : 0;
}

/* ---- jobs ---- */

static void
hop_begin(struct remote *s, unsigned flags)
{
	static struct relay_conf conf = { .helohost = "out.example.net",
		.timeout_connect = 60,
		.timeout_remote = 1200,
		.routes = 1,
		.route = { { .hops = 2,
		    .hop = { { .host = "192.0.2.1", .numeric = 1, .addr = { { [15] = 1 } }, .port = 26, .auth = -1 },
			{ .host = "192.0.2.2", .numeric = 1, .addr = { { [15] = 2 } }, .port = 27, .auth = -1 } } } } };

	conf.route[0].hop[0].tls = (flags & 8) != 0 ? TLS_MAY : TLS_NONE;
	conf.route[0].hop[1].tls = (flags & 4) != 0 ? TLS_ENCRYPT : TLS_NONE;
	conf.route[0].hop[1].implicit = (flags & 12) == 12;
	memset(&hop, 0, sizeof hop);
	s->conf = &conf;
	s->sock = 3;
	s->up = 0;
	s->peer[0] = '\0';
}

static void
hop_job(struct remote *s, unsigned flags)
{
	static int file;

	if (file == 0) {
		file = memfd_create("message", MFD_CLOEXEC);
		CHECK(write(file, hop_message, sizeof hop_message - 1) == (ssize_t)sizeof hop_message - 1);
	}
	s->file = file;
	memset(&s->job, 0, sizeof s->job);
	s->job.size = sizeof hop_message - 1;
	s->job.rcpts = 1 + (flags & 3);
	str_copy(s->job.domain, sizeof s->job.domain, "example.org");
	str_copy(s->job.sender, sizeof s->job.sender, hop_senders[flags >> 1 & 3]);
	s->job.sender_len = (uint32_t)strlen(s->job.sender);
	for (unsigned i = 0; i < s->job.rcpts; i++) {
		str_copy(s->rcpt[i], sizeof s->rcpt[i], hop_rcpts[(i + (flags >> 2)) % 4]);
	}
	hop.reported = 0;
	hop.rcpts = s->job.rcpts;
	hop.job_at = wire.said;
}

/* ---- what was sent ---- */

static size_t
hop_line(const char *p, size_t len)
{
	static const char *const verbs[] = { "EHLO out.", "HELO out.", "STARTTLS\r", "MAIL FROM:<", "RCPT TO:<",
		"DATA\r", "BDAT ", "RSET\r", "QUIT\r" };
	const char *lf = memchr(p, '\n', len);

	for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
		size_t n = strlen(verbs[i]) < len ? strlen(verbs[i]) : len;

		if (memcmp(p, verbs[i], n) == 0) {
			if (lf == NULL) {
				return len; /* the connection ended here */
			}
			CHECK(lf[-1] == '\r' && memchr(p, '\r', (size_t)(lf - p)) == lf - 1 &&
			    memmem(p, (size_t)(lf - p), "evil", 4) == NULL);
			return (size_t)(lf + 1 - p);
		}
	}
	CHECK(len > 0 && p[0] == 22); /* a TLS record */
	return len;
}

/* At p: BDAT and its octets, the next ones of the message, or as many of both as went out. `*at`: how far the message has come. */
static size_t
hop_chunk(const char *p, size_t len, size_t *at)
{
	const char *lf = memchr(p, '\n', len);
	size_t total = sizeof hop_plain - 1, size, head, last;

	if (lf == NULL) {
		return len;
	}
	size = strtoul(p + 5, NULL, 10);
	head = (size_t)(lf + 1 - p);
	last = head > 7 && memcmp(lf - 6, " LAST\r", 6) == 0;
	CHECK(*at + size <= total && last == (*at + size == total));
	if (size > len - head) {
		size = len - head;
	}
	CHECK(memcmp(lf + 1, hop_plain + *at, size) == 0);
	*at += size;
	return head + size;
}

/* Commands, and after DATA the message, or as much of it as went out. */
static void
hop_check_sent(void)
{
	size_t message = sizeof hop_wire - 1, at = 0;
	int data = 0;

	if (wire.said > sizeof wire.reply - 4096) {
		return; /* nobody listened any more */
	}
	while (hop.checked < wire.said) {
		const char *p = (const char *)wire.reply + hop.checked;
		size_t len = wire.said - hop.checked, n = len < message ? len : message;

		if (len > 5 && memcmp(p, "BDAT ", 5) == 0) {
			n = hop_chunk(p, len, &at);
		} else {
			n = data && memcmp(p, hop_wire, n) == 0 ? n : hop_line(p, len);
			at = 0;
		}
		data = len > 4 && memcmp(p, "DATA\r", 5) == 0;
		hop.checked += n;
	}
}

#endif
