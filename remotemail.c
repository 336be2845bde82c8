/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * A transaction with a peer that is ready for MAIL: envelope, message, and what becomes of each recipient (qmail-spec 4.2). With PIPELINING
 * (RFC 2920) the envelope is one write and one wait. Without a clear answer there is never an assumption: the message is sent again rather
 * than lost, and where it may have arrived already the report says so.
 *
 * CHUNKING is left out on purpose: BDAT would save the wait for 354, one of two round trips, but no work, and the message would go out
 * before the recipients' answers are known.
 */
#include "remoteint.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#if RELAY

#define BLOCK 8192
#define ENVELOPE_MS 3600000 /* at most, for all commands; see send_message() for the message */

static uint8_t block[BLOCK], wire[2 * BLOCK + 8];

/* ---- the message ---- */

/* Read the message's octets at `at`. Returns how many, 0 when it cannot be read or has become shorter. */
static size_t
read_block(struct remote *s, uint64_t at)
{
	ssize_t n;

	do {
		n = pread(s->file, block, s->job.size - at < BLOCK ? (size_t)(s->job.size - at) : BLOCK, (off_t)at);
	} while (n == -1 && errno == EINTR);
	return n > 0 ? (size_t)n : 0;
}

/* Learn what MAIL is to say of the message. 0, or -1. */
static int
count(struct remote *s)
{
	uint64_t at = 0, lines = 0;
	uint8_t all = 0, last = '\n';

	while (at < s->job.size) {
		size_t n = read_block(s, at);

		if (n == 0) {
			return -1;
		}
		for (size_t i = 0; i < n; i++) {
			all |= block[i];
			lines += block[i] == '\n';
		}
		last = block[n - 1];
		at += n;
	}
	s->is_8bit = (all & 0x80) != 0;
	s->crlf_size = s->job.size + lines + (last == '\n' ? 0 : 2);
	s->counted = 1;
	return 0;
}

/* Send the message and its final dot. NULL, or the trouble; *unreadable when it is ours. */
static const char *
send_message(struct remote *s, int *unreadable)
{
	struct peer_body body = { 0, 0 };
	uint64_t at = 0;

	/* A peer that takes octet by octet holds up others behind it: an hour, and more when there is much to take. */
	s->conn.deadline = mono_ms() + 3600000 + (int64_t)(s->job.size < (UINT64_C(1) << 40) ? s->job.size * 4 : 0);
	do {
		size_t n = at < s->job.size ? read_block(s, at) : 0, len;
		enum conn_status st;

		if (n == 0 && at < s->job.size) {
			*unreadable = 1;
			return "the message cannot be read";
		}
		at += n;
		len = peer_body(&body, block, n, wire);
		if (at == s->job.size) {
			len += peer_body_end(&body, wire + len);
		}
		st = conn_send(&s->conn, wire, len, remote_ms(s, REMOTE_WAIT_BLOCK));
		if (st != CONN_OK) {
			return remote_trouble(s, st);
		}
	} while (at < s->job.size);
	return NULL;
}

/* ---- the envelope ---- */

/* Queue a command with a path. */
static void
say_path(struct remote *s, const char *verb, const char *addr, const char *parameters)
{
	char mem[2 * DELIVER_ADDR_MAX + 8];
	struct buf b;

	buf_init(&b, mem, sizeof mem);
	peer_path(&b, addr); /* it can be said: remote_deliver() has seen to that */
	SAY(s, verb, buf_cstr(&b), ">", parameters);
}

static int
needs_utf8(const struct remote *s)
{
	int yes = peer_is_8bit(s->job.sender);

	for (unsigned i = 0; i < s->job.rcpts; i++) {
		yes |= s->state[i] == RCPT_OPEN && peer_is_8bit(s->rcpt[i]);
	}
	return yes;
}

static void
say_mail(struct remote *s)
{
	char mem[80];
	struct buf b;

	buf_init(&b, mem, sizeof mem);
	if ((s->ehlo.keywords & PEER_SIZE) != 0) {
		buf_str(&b, " SIZE=");
		buf_u64(&b, s->crlf_size);
	}
	if ((s->ehlo.keywords & PEER_8BITMIME) != 0 && s->is_8bit) {
		buf_str(&b, " BODY=8BITMIME");
	}
	if (needs_utf8(s)) {
		buf_str(&b, " SMTPUTF8");
	}
	say_path(s, "MAIL FROM:<", s->job.sender, buf_cstr(&b));
}

static void
say_rcpt(struct remote *s, unsigned i)
{
	say_path(s, "RCPT TO:<", s->rcpt[i], "");
}

/* What is known beforehand to be of no use with this peer. */
static void
refuse_ours(struct remote *s)
{
	if (s->ehlo.size > 0 && s->crlf_size > s->ehlo.size) {
		remote_report_all(s, RCPT_OPEN, 'D', 0, "says that it takes no message of this size. (#5.3.4)", NULL);
	}
	if ((s->ehlo.keywords & PEER_SMTPUTF8) != 0) {
		return;
	}
	for (unsigned i = 0; i < s->job.rcpts; i++) {
		if (s->state[i] == RCPT_OPEN && (peer_is_8bit(s->job.sender) || peer_is_8bit(s->rcpt[i]))) {
			remote_report(
			    s, i, 'D', 0, "does not take addresses that are not ASCII (no SMTPUTF8). (#5.6.7)", NULL);
		}
	}
}

/* ---- answers ---- */

struct transaction {
	int pipelining;
	int first; /* nothing has been said about this message yet: it may be tried elsewhere */
	int mail;  /* class of the reply to MAIL */
	unsigned accepted;
};

/* The peer has gone, or does not speak SMTP. Returns what remote_mail() is to. */
static int
lost(struct remote *s, const struct transaction *t, const char *trouble, int after_dot)
{
	remote_hang_up(s, 0);
	if (s->reused && t->first) {
		return 1;
	}
	remote_report_all(s, RCPT_OPEN, 'Z', 0,
	    after_dot
		? "had the whole message, but did not say what became of it: it may arrive more than once. (#4.4.2)"
		: "did not stay to the end. (#4.4.2)",
	    trouble);
	return 0;
}

/* Read a reply. Its class, 0 with *trouble set. 421 says that the connection ends: the next command will find that. */
static int
answer(struct remote *s, int good, int seconds, const char **trouble)
{
	int klass;

	*trouble = remote_hear(s, NULL, seconds);
	if (*trouble != NULL) {
		return 0;
	}
	klass = peer_class(s->reply.code, good);
	if (klass == 0) {
		*trouble = "its answer does not fit what it was told";
	}
	return klass;
}

/* MAIL, and RSET before it where that is due. NULL, or the trouble. */
static const char *
mail_answer(struct remote *s, struct transaction *t)
{
	const char *trouble = NULL;

	if (s->dirty && answer(s, '2', REMOTE_WAIT_COMMAND, &trouble) != 'K') {
		return trouble != NULL ? trouble : "it refuses RSET";
	}
	s->dirty = 0;
	t->mail = answer(s, '2', REMOTE_WAIT_COMMAND, &trouble);
	if (s->reused && t->first && s->reply.code == 421) {
		return "it wants to end the connection";
	}
	if (t->mail == 'D' || t->mail == 'Z') {
		t->first = 0;
		remote_report_all(
		    s, RCPT_OPEN, t->mail, s->reply.code, "does not take mail from this sender.", s->reply.text);
	}
	return trouble;
}

static const char *
rcpt_answer(struct remote *s, struct transaction *t, unsigned i)
{
	const char *trouble;
	int klass = answer(s, '2', REMOTE_WAIT_COMMAND, &trouble);

	if (klass == 'K' && t->mail == 'K') {
		s->state[i] = RCPT_ACCEPTED;
		t->accepted++;
	} else if (klass != 0 && t->mail == 'K') {
		t->first = 0;
		remote_report(s, i, klass, s->reply.code, "does not take mail for this recipient.", s->reply.text);
	}
	return trouble;
}

/* The envelope up to the reply to DATA: NULL and its class in *data ('X': DATA was not said), or the trouble. */
static const char *
envelope(struct remote *s, struct transaction *t, int *data)
{
	unsigned asked[DELIVER_RCPTS_MAX], n = 0;
	const char *trouble;

	for (unsigned i = 0; i < s->job.rcpts; i++) {
		if (s->state[i] == RCPT_OPEN) {
			asked[n++] = i;
		}
	}
	if (s->dirty) {
		SAY(s, "RSET");
	}
	say_mail(s);
	for (unsigned i = 0; t->pipelining && i < n; i++) {
		say_rcpt(s, asked[i]);
	}
	if (t->pipelining) {
		SAY(s, "DATA");
	}
	trouble = mail_answer(s, t);
	for (unsigned i = 0; i < n && trouble == NULL && (t->pipelining || t->mail == 'K'); i++) {
		if (!t->pipelining) {
			say_rcpt(s, asked[i]);
		}
		trouble = rcpt_answer(s, t, asked[i]);
	}
	*data = 'X';
	if (trouble != NULL || (!t->pipelining && t->accepted == 0)) {
		return trouble;
	}
	if (!t->pipelining) {
		SAY(s, "DATA");
	}
	*data = answer(s, '3', REMOTE_WAIT_DATA, &trouble);
	return trouble;
}

/* The reply to the message. */
static int
finish(struct remote *s, struct transaction *t)
{
	int unreadable = 0, klass;
	const char *trouble = send_message(s, &unreadable), *said;

	if (unreadable) {
		remote_hang_up(s, 0);
		remote_report_all(
		    s, RCPT_ACCEPTED, 'Z', 0, "was told nothing: the message cannot be read here. (#4.3.0)", NULL);
		return 0;
	}
	if (trouble != NULL) {
		/* A peer that has had enough may say why before it closes. */
		said = remote_hear(s, NULL, 1);
		if (said == NULL && s->reply.code >= 400) {
			remote_hang_up(s, 0);
			remote_report_all(s, RCPT_ACCEPTED, peer_class(s->reply.code, '2'), s->reply.code,
			    "does not take the message.", s->reply.text);
			return 0;
		}
		return lost(s, t, trouble, 0);
	}
	t->first = 0;
	s->conn.deadline = INT64_MAX;
	klass = answer(s, '2', REMOTE_WAIT_END, &trouble);
	if (klass == 0) {
		return lost(s, t, trouble, 1);
	}
	s->dirty = klass != 'K';
	remote_report_all(s, RCPT_ACCEPTED, klass, s->reply.code,
	    klass == 'K' ? "has accepted the message." : "does not take the message.", s->reply.text);
	if (s->reply.code == 421) {
		remote_hang_up(s, 0);
	}
	return 0;
}

int
remote_mail(struct remote *s)
{
	struct transaction t = { .pipelining = (s->ehlo.keywords & PEER_PIPELINING) != 0, .first = 1 };
	const char *trouble;
	int data;

	s->about_peer = 1;
	s->conn.deadline = mono_ms() + ENVELOPE_MS;
	if (!s->counted && count(s) == -1) {
		remote_report_all(
		    s, RCPT_OPEN, 'Z', 0, "was told nothing: the message cannot be read here. (#4.3.0)", NULL);
		return 0;
	}
	refuse_ours(s);
	if (s->open == 0) {
		return 0;
	}
	s->messages++;
	trouble = envelope(s, &t, &data);
	if (trouble != NULL && s->open > 0) {
		return lost(s, &t, trouble, 0);
	}
	if (data == 'K' && t.accepted > 0) {
		return finish(s, &t);
	}
	s->dirty = 1;
	if (t.accepted > 0) {
		remote_report_all(s, RCPT_ACCEPTED, data, s->reply.code, "does not take the message.", s->reply.text);
	}
	/*
	 * "Go ahead", though nobody is to have it: an empty message would be a way out (RFC 2920 3.1), but also a message, should peer and we
	 * disagree about who was accepted.
	 */
	if (trouble != NULL || data == 'K' || s->reply.code == 421) {
		remote_hang_up(s, 0);
	}
	return 0;
}

#endif
