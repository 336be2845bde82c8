/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * DATA and BDAT (RFC 5321 4.1.1.4, RFC 3030 without BINARYMIME); smtp process. The warden hands over a file that already has the trace
 * lines at its head; this appends the message, and the warden makes it durable. 250 is said only after the warden has said so.
 */
#include "smtpint.h"

#include "author.h"
#include "str.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int
write_file(void *ctx, const void *p, size_t len)
{
	const struct smtp_session *s = ctx;

	return write_all(s->file, p, len) == -1 ? errno : 0;
}

/* Date and Message-ID for a message that has none (RFC 6409 8.1, 8.2; RFC 5322 3.3, 3.6.4). */
static void
make_fields(struct smtp_session *s, int64_t now)
{
	static const char days[] = "SunMonTueWedThuFriSat";
	struct buf b;
	time_t t = (time_t)now;
	struct tm tm;
	static unsigned serial;

	gmtime_r(&t, &tm);
	buf_init(&b, s->date_field, sizeof s->date_field);
	buf_fmt(&b, "Date: %.3s, ", days + 3 * tm.tm_wday);
	buf_date(&b, now);
	/* -0000 says that the zone is not known; ours is UTC. */
	b.len -= 5;
	buf_str(&b, "+0000\n");
	buf_cstr(&b);
	buf_init(&b, s->msgid_field, sizeof s->msgid_field);
	buf_fmt(&b, "Message-ID: <%llx.%s.%u@%s>\n", (unsigned long long)now, s->info->session, ++serial, s->info->me);
	buf_cstr(&b);
}

/* Ask for the file and get ready to receive. R_DONE, or why not. */
static enum reply
begin(struct smtp_session *s, int dots)
{
	struct msg_data m = { .type = MSG_DATA, .helo_len = (uint32_t)s->helo_len, .esmtp = (uint32_t)s->esmtp };
	int originates = s->info->profile != PROFILE_SMTP || s->loggedin;
	struct timespec now;
	enum verdict v;

	memcpy(m.helo, s->helo, s->helo_len);
	v = smtp_settle_data(s, &m);
	if (v == V_SKIPPED) {
		/* What it depends on was refused in the same breath. */
		return s->phase == PH_MAIL ? R_RCPT_FIRST : R_MAIL_FIRST;
	}
	if (v != V_OK) {
		return smtp_reply_of(v, R_DONE, 0);
	}
	clock_gettime(CLOCK_REALTIME, &now);
	make_fields(s, now.tv_sec);
	body_init(&s->body, s->out);
	s->body.dots = dots;
	s->body.lenient = s->info->profile == PROFILE_INSIDE;
	s->body.max = s->info->databytes;
	s->body.want_date = s->body.want_msgid = originates;
	s->body.date_field = s->date_field;
	s->body.msgid_field = s->msgid_field;
	s->body.sink = write_file;
	s->body.ctx = s;
	s->data_start = mono_ms();
	return R_DONE;
}

static enum reply
reply_of_fault(struct smtp_session *s)
{
	switch (s->body.fault) {
	case BODY_FINE:
		return R_DONE;
	case BODY_BARE:
		return R_BARE;
	case BODY_TOO_BIG:
		smtp_note(s, NOTE_MESSAGE_TOO_BIG, (int64_t)s->body.octets);
		return R_TOO_BIG;
	case BODY_LOOP:
		smtp_note(s, NOTE_LOOP, s->body.hops);
		return R_LOOP;
	case BODY_WRITE:
		smtp_note(s, NOTE_SPOOL_WRITE, s->body.error);
		if (s->body.error == ENOSPC || s->body.error == EDQUOT) {
			return R_NO_SPACE;
		}
		return s->body.error == EFBIG ? R_TOO_BIG : R_SPOOL_ERROR;
	}
	return R_SPOOL_ERROR;
}

#if FROM_HEADER_CHECK

static void
tell_author(const struct body *b, struct msg_commit *m)
{
	if (b->authors == 0) {
		return;
	}
	if (b->authors == 1 && b->author_len < sizeof b->author &&
	    author_address(b->author + 1, b->author_len - 1, m->from, SMTP_PATH_MAX + 1) == 0) {
		m->from_len = (uint32_t)strlen(m->from);
		memset(m->from + m->from_len, 0, sizeof m->from - m->from_len);
	} else {
		memset(m->from, 0, sizeof m->from);
		m->from_len = MSG_FROM_UNCLEAR;
	}
}

#endif

/* The message has come in to its end: have it made durable, or thrown away. */
static enum reply
finish(struct smtp_session *s)
{
	struct msg_commit m = { .type = MSG_COMMIT };
	struct msg_commit_reply r;
	char mem[128];
	struct buf b;
	enum reply reply;

	body_finish(&s->body);
	reply = reply_of_fault(s);
	if (reply == R_BARE) {
		smtp_reset(s, 1);
		smtp_bye(s, R_BARE, NOTE_BARE_LINE_END, 0);
	}
	if (reply != R_DONE) {
		smtp_reset(s, 1);
		return reply;
	}
	close(s->file);
	s->file = -1;
	m.octets = s->body.octets;
#if FROM_HEADER_CHECK
	tell_author(&s->body, &m);
#endif
	m.hops = s->body.hops;
	smtp_ask(s, &m, sizeof m, &r, sizeof r, NULL);
	smtp_reset(s, 0);
	if (r.verdict != V_OK) {
		return smtp_reply_of((enum verdict)r.verdict, R_DONE, 0);
	}
	buf_init(&b, mem, sizeof mem);
	buf_fmt(&b, "250 2.0.0 ok %lld qp %u id %llu", (long long)r.time, r.pid, (unsigned long long)r.qid);
	smtp_say(s, buf_cstr(&b));
	return R_NONE;
}

/* A sender may be slow, but not so slow that it only holds the place. */
void
smtp_check_rate(struct smtp_session *s)
{
	int64_t ms = mono_ms() - s->data_start;

	if (DATA_RATE_MIN > 0 && ms > 60000 && s->body.octets < (uint64_t)(ms - 60000) / 1000 * DATA_RATE_MIN) {
		smtp_reset(s, 1);
		smtp_bye(s, R_TOO_SLOW, NOTE_TOO_SLOW, (int64_t)s->body.octets);
	}
}

/* Feed the body from the client until `left` octets are used (BDAT), or the end of the data is seen (DATA: left is ignored). */
static void
receive(struct smtp_session *s, uint64_t left)
{
	s->c->busy = 1;
	while (s->body.dots ? !s->body.done : left > 0) {
		const uint8_t *p;
		size_t len, used;
		enum conn_status st = conn_peek(s->c, &p, &len, TIMEOUT_DATA * 1000);

		if (st != CONN_OK) {
			smtp_reset(s, 1);
			smtp_lost(s, st);
		}
		if (!s->body.dots && len > left) {
			len = (size_t)left;
		}
		used = body_input(&s->body, p, len);
		conn_take(s->c, used);
		left -= s->body.dots ? 0 : used;
		smtp_check_rate(s);
	}
}

enum reply
smtp_do_data(struct smtp_session *s, char *arg)
{
	enum reply r;

	if (arg[0] != '\0') {
		return R_NO_ARGUMENT;
	}
	r = begin(s, 1);
	if (r != R_DONE) {
		if (s->phase == PH_RCPT) {
			smtp_reset(s, 1);
		}
		return r;
	}
	smtp_say(s, reply_text(R_GO_AHEAD));
	receive(s, 0);
	return finish(s);
}

/* Read a chunk away. */
static void
skip(struct smtp_session *s, uint64_t left)
{
	s->data_start = mono_ms();
	while (left > 0) {
		const uint8_t *p;
		size_t len;
		enum conn_status st = conn_peek(s->c, &p, &len, TIMEOUT_DATA * 1000);

		if (st != CONN_OK) {
			smtp_lost(s, st);
		}
		len = len > left ? (size_t)left : len;
		conn_take(s->c, len);
		left -= len;
	}
}

/* BDAT size [LAST] */
static int
parse_bdat(const char *arg, uint64_t *size, int *last)
{
	size_t digits = strspn(arg, "0123456789");

	*last = ascii_strcasecmp(arg + digits, " LAST") == 0;
	if (arg[digits] != '\0' && !*last) {
		return -1;
	}
	return parse_u64(arg, digits, INT64_MAX, size);
}

static enum reply
bdat_trouble(const struct smtp_session *s)
{
	switch (s->phase) {
	case PH_START:
		return R_HELO_FIRST;
	case PH_READY:
		return R_MAIL_FIRST;
	case PH_MAIL:
		return R_RCPT_FIRST;
	default:
		return s->data_trouble == R_NONE ? R_DONE : s->data_trouble;
	}
}

enum reply
smtp_do_bdat(struct smtp_session *s, char *arg)
{
	uint64_t size;
	int last;
	enum reply r;

	if (parse_bdat(arg, &size, &last) == -1) {
		/* How much follows is anybody's guess: going on would read message text as commands. */
		smtp_bye(s, R_BDAT_SYNTAX, NOTE_BAD_COMMANDS, 0);
	}
	r = bdat_trouble(s);
	if (r == R_DONE && s->phase == PH_RCPT) {
		r = begin(s, 0);
		s->data_trouble = r == R_DONE ? R_NONE : r;
		s->phase = PH_BDAT;
	}
	if (r != R_DONE) {
		skip(s, size);
		if (last && s->phase >= PH_MAIL) {
			smtp_reset(s, 1);
		}
		return r;
	}
	receive(s, size);
	if (last) {
		return finish(s);
	}
	if (s->body.fault != BODY_FINE) {
		/* Remember the answer for the chunks that are on their way. */
		r = reply_of_fault(s);
		if (r == R_BARE) {
			smtp_reset(s, 1);
			smtp_bye(s, R_BARE, NOTE_BARE_LINE_END, 0);
		}
		s->data_trouble = r;
		return r;
	}
	/* The rest may never come: a session that only waits can be ended. */
	s->c->busy = 0;
	smtp_say(s, "250 2.0.0 chunk taken");
	return R_NONE;
}
