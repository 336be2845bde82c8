/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * A transaction with a peer that is ready for MAIL: envelope, message, and what becomes of each recipient (qmail-spec 4.2). With PIPELINING
 * (RFC 2920) the envelope is one write and one wait. Without a clear answer there is never an assumption: the message is sent again rather
 * than lost, and where it may have arrived already the report says so.
 *
 * To a peer with CHUNKING (RFC 3030) the message goes by BDAT, but only when somebody is to have it: BDAT in one write with the envelope would
 * save a round trip, but then the loss of an old connection could no longer be told from that of a message.
 */
#include "remoteint.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#if RELAY

#ifndef REMOTE_BLOCK
#define REMOTE_BLOCK 8192 /* fuzzers have a smaller one */
#endif
#define HEAD 32             /* "BDAT 16386 LAST" */
#define AHEAD 32U           /* chunks whose replies are not waited for: half a megabyte is on the way at most */
#define ENVELOPE_MS 3600000 /* at most, for all commands; see send_message() for the message */

static uint8_t block[REMOTE_BLOCK], wire[HEAD + 2 * REMOTE_BLOCK + 8];

#define CHUNKED(t) (REMOTE_CHUNKING && (t)->chunking)

struct transaction {
	int pipelining;
	int chunking;
	int first; /* nothing has been said about this message yet: it may be tried elsewhere */
	int mail;  /* class of the reply to MAIL */
	unsigned accepted;
	unsigned chunks; /* whose replies have not come yet */
	int refused;     /* one of them was not taken */
	int last;        /* the peer has all of the message */
	int unreadable;  /* here */
	int unsent;      /* the connection has broken while sending */
};

/* ---- reading it ---- */

/* Read the message's octets at `at`. Returns how many, 0 when it cannot be read or has become shorter. */
static size_t
read_block(struct remote *s, uint64_t at)
{
	ssize_t n;

	do {
		n = pread(s->file, block, s->job.size - at < REMOTE_BLOCK ? (size_t)(s->job.size - at) : REMOTE_BLOCK,
		    (off_t)at);
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

/* The envelope up to the reply to DATA: NULL and its class in *data ('X': DATA was not said; 'K', too, when BDAT may be), or the trouble. */
static const char *
envelope(struct remote *s, struct transaction *t, int *data)
{
	unsigned asked[DELIVER_RCPTS_MAX], n = 0;
	int later = !t->pipelining || CHUNKED(t); /* DATA waits for the replies to RCPT */
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
	if (!later) {
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
	if (trouble != NULL || (later && t->accepted == 0)) {
		return trouble;
	}
	if (CHUNKED(t)) {
		*data = 'K';
		return NULL;
	}
	if (later) {
		SAY(s, "DATA");
	}
	*data = answer(s, '3', REMOTE_WAIT_DATA, &trouble);
	return trouble;
}

/* ---- the message ---- */

/* Read the replies to chunks, but for `keep` of them. What is not taken is reported at once, and then nothing more is sent. NULL, or the trouble. */
static const char *
chunk_answers(struct remote *s, struct transaction *t, unsigned keep)
{
	const char *trouble = NULL;

	while (trouble == NULL && t->chunks > (t->refused ? 0 : keep)) {
		int klass = answer(s, '2', REMOTE_WAIT_END, &trouble);

		t->chunks--;
		if (klass == 'Z' || klass == 'D') {
			t->refused = 1;
			t->first = 0;
			remote_report_all(
			    s, RCPT_ACCEPTED, klass, s->reply.code, "does not take the message.", s->reply.text);
		}
	}
	return trouble;
}

/* Send wire[HEAD..][0..len), the message's `last` octets or others. NULL, or the trouble. */
static const char *
send_block(struct remote *s, struct transaction *t, size_t len, int last)
{
	char mem[HEAD];
	struct buf b;
	enum conn_status st;

	buf_init(&b, mem, sizeof mem);
	if (CHUNKED(t)) {
		buf_str(&b, "BDAT ");
		buf_u64(&b, len);
		buf_str(&b, last ? " LAST\r\n" : "\r\n");
		memcpy(wire + HEAD - b.len, mem, b.len);
		t->chunks++;
	}
	if (last) {
		s->conn.watch_for = 0; /* from here on it may have arrived: it is heard out */
	}
	st = conn_send(&s->conn, wire + HEAD - b.len, b.len + len, remote_ms(s, REMOTE_WAIT_BLOCK));
	t->unsent = st != CONN_OK;
	t->last = last && !t->unsent;
	return t->unsent          ? remote_trouble(s, st)
	    : CHUNKED(t) && !last ? chunk_answers(s, t, t->pipelining ? AHEAD : 0)
				  : NULL;
}

/* Send the message and its end. NULL, or the trouble. */
static const char *
send_message(struct remote *s, struct transaction *t)
{
	struct peer_body body = { .bdat = CHUNKED(t) };
	const char *trouble;
	uint64_t at = 0;

	/* A peer that takes octet by octet holds up others behind it: an hour, and more when there is much to take. */
	s->conn.deadline = mono_ms() + 3600000 + (int64_t)(s->job.size < (UINT64_C(1) << 40) ? s->job.size * 4 : 0);
	do {
		size_t n = at < s->job.size ? read_block(s, at) : 0, len;

		if (n == 0 && at < s->job.size) {
			t->unreadable = 1;
			return NULL;
		}
		at += n;
		len = peer_body(&body, block, n, wire + HEAD);
		if (at == s->job.size) {
			len += peer_body_end(&body, wire + HEAD + len);
		}
		trouble = send_block(s, t, len, at == s->job.size);
	} while (trouble == NULL && !t->refused && at < s->job.size);
	return trouble;
}

/* The message, and the reply to it. */
static int
finish(struct remote *s, struct transaction *t)
{
	const char *trouble = send_message(s, t);
	int klass;

	if (t->unreadable) {
		remote_hang_up(s, 0);
		remote_report_all(
		    s, RCPT_ACCEPTED, 'Z', 0, "was told nothing: the message cannot be read here. (#4.3.0)", NULL);
		return 0;
	}
	/* A peer that has had enough may say why before it closes. */
	for (unsigned i = 0; t->unsent && i <= t->chunks; i++) {
		if (remote_hear(s, NULL, 1) != NULL) {
			break;
		}
		if (s->reply.code >= 400) {
			remote_hang_up(s, 0);
			remote_report_all(s, RCPT_ACCEPTED, peer_class(s->reply.code, '2'), s->reply.code,
			    "does not take the message.", s->reply.text);
			return 0;
		}
	}
	if (t->last) {
		t->first = 0;
		s->conn.deadline = INT64_MAX;
	}
	if (trouble == NULL && CHUNKED(t)) {
		trouble = chunk_answers(s, t, 1);
	}
	klass = trouble != NULL || t->refused ? 0 : answer(s, '2', REMOTE_WAIT_END, &trouble);
	if (trouble != NULL) {
		return lost(s, t, trouble, t->last);
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
	struct transaction t = { .pipelining = (s->ehlo.keywords & PEER_PIPELINING) != 0,
		.chunking = (s->ehlo.keywords & PEER_CHUNKING) != 0,
		.first = 1 };
	const char *trouble;
	int data;

	s->about_peer = 1;
	s->conn.watch_for = POLLIN;
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
