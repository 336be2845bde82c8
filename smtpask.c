/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* What the smtp process asks its warden, and what becomes of the answers. Without a warden there is no session. */
#include "smtpint.h"

#include <string.h>

void
smtp_ask(struct smtp_session *s, const void *m, size_t len, void *answer, size_t answer_len, int *fd)
{
	if (msg_send(s->sock, m, len, -1) == -1 || msg_recv(s->sock, answer, answer_len, fd, -1) != (long)answer_len) {
		smtp_bye(s, R_BROKEN, NOTE_SHUTDOWN, 0);
	}
}

enum verdict
smtp_ask_verdict(struct smtp_session *s, const void *m, size_t len)
{
	struct msg_verdict v;

	smtp_ask(s, m, len, &v, sizeof v, NULL);
	return (enum verdict)v.verdict;
}

enum reply
smtp_reply_of(enum verdict v, enum reply ok, int sender)
{
	switch (v) {
	case V_OK:
		return ok;
	case V_AUTH_REFUSED:
		return R_AUTH_REFUSED;
	case V_AUTH_LATER:
		return R_AUTH_LATER;
	case V_AUTH_TURN:
		return R_AUTH_TURN;
	case V_NEED_LOGIN:
		return R_NEED_LOGIN;
	case V_SENDER_REFUSED:
		return R_SENDER_REFUSED;
	case V_NO_RELAY:
		return R_NO_RELAY;
	case V_UNQUALIFIED:
		return sender ? R_SENDER_UNQUALIFIED : R_RCPT_UNQUALIFIED;
	case V_BAD_ADDRESS:
		return R_BAD_ADDRESS;
	case V_TOO_MANY_RCPT:
		return R_TOO_MANY_RCPT;
	case V_TOO_BIG:
		return R_TOO_BIG;
	case V_NO_SPACE:
		return R_NO_SPACE;
	case V_NO_CLOCK:
		return R_NO_CLOCK;
#if ACCOUNTS
	case V_AUTH_POLICY:
		return R_AUTH_POLICY;
	case V_LIMIT_SESSIONS:
		return R_LIMIT_SESSIONS;
	case V_LIMIT_DAY:
		return R_LIMIT_DAY;
	case V_LIMIT_RCPT:
		return R_LIMIT_RCPT;
	case V_LIMIT_RATE:
		return R_LIMIT_RATE;
	case V_BLOCKED:
		return R_BLOCKED;
	case V_MAY_NOT_SEND:
		return R_MAY_NOT_SEND;
	case V_NOT_HIS_SENDER:
		return R_NOT_HIS_SENDER;
	case V_NO_COUNTS:
		return R_NO_COUNTS;
#endif
	case V_SKIPPED:
		return R_MAIL_FIRST;
	default:
		return R_SPOOL_ERROR;
	}
}

/* ---- the batch ---- */

void
smtp_put(struct smtp_session *s, const void *m, size_t len)
{
	if (s->batch_count == 0) {
		s->settled = s->phase;
	}
	memcpy(s->batch + s->batch_len, m, len);
	s->batch_len += len;
	s->batch_count++;
}

/* Say what the warden decided about the requests of a batch, in their order; returns the verdict on DATA, if that was the last. */
static enum verdict
say_verdicts(struct smtp_session *s, const struct msg_verdict *v, unsigned n)
{
	s->phase = s->settled;
	for (unsigned i = 0; i < n; i++) {
		enum verdict verdict = (enum verdict)v[i].verdict;

		if (v[i].type == MSG_DATA) {
			return verdict;
		}
		if (verdict == V_OK) {
			s->phase = v[i].type == MSG_MAIL ? PH_MAIL : PH_RCPT;
		} else if (v[i].type == MSG_MAIL) {
			s->utf8 = 0;
		}
		smtp_say_reply(s,
		    v[i].type == MSG_MAIL ? smtp_reply_of(verdict, R_SENDER_OK, 1)
					  : smtp_reply_of(verdict, R_RCPT_OK, 0));
	}
	return V_OK;
}

static enum verdict
settle(struct smtp_session *s, int *fd)
{
	struct msg_verdict v[BATCH_MAX];
	unsigned n = s->batch_count;

	/* Empty before anything is said: saying settles. */
	s->batch_count = 0;
	smtp_ask(s, s->batch, s->batch_len, v, n * sizeof v[0], fd);
	s->batch_len = 0;
	return say_verdicts(s, v, n);
}

void
smtp_settle(struct smtp_session *s)
{
	if (s->batch_count > 0) {
		settle(s, NULL);
	}
}

enum verdict
smtp_settle_data(struct smtp_session *s, const struct msg_data *m)
{
	smtp_put(s, m, sizeof *m);
	return settle(s, &s->file);
}
