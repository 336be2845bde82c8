/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The warden's questions about a login's limits: may it send, as whom, how much more; and who is told when it may not. What smtp is told is a
 * verdict. Whatever is not understood, or cannot be counted, is a "no".
 */
#include "wardenint.h"

#include "acct.h"
#include "users.h"

#include "str.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#if ACCOUNTS

/* ---- the login ---- */

/* The limits of w->user. NULL, or why there are none. */
static const char *
gather(struct warden *w, const struct radius_answer *a)
{
	const struct config *c = w->house->config;
	const char *why;

	limits_default(&w->limits);
	if (c->accounts_bad) {
		return "userlimits or timezone is no good; see `mailstile check`";
	}
	limits_file(&w->limits, c->userlimits, w->user);
	if (a->policy.lost) {
		return "more of Filter-Id and Mailstile attributes than there is room for";
	}
	return limits_radius(&w->limits, a->policy.attributes, a->policy.len, &why) == 0 ? NULL : why;
}

enum verdict
account_login(struct warden *w, const struct radius_answer *a, const char **why)
{
	struct limits *l = &w->limits;
	enum verdict v;

	*why = gather(w, a);
	if (*why != NULL) {
		return V_AUTH_POLICY;
	}
	v = users_login(w->user, l, time(NULL));
	if (v != V_OK) {
		*why = v == V_LIMIT_SESSIONS ? "too many sessions of this login"
					     : "its count in " USERS_FILE " cannot be read; see mailstile-policy(5)";
		return v == V_LIMIT_SESSIONS ? v : V_AUTH_LATER;
	}
	if (l->size != 0 && (w->info.databytes == 0 || l->size < w->info.databytes)) {
		w->info.databytes = l->size;
	}
	if (account_shared(w) && (acct_fd() == -1 || !acct_wanted(w->house->config))) {
		struct log_line line;

		warden_event(&line, w, LOG_WARNING, "quota");
		log_str(&line, "user", w->user);
		log_text(&line, "msg",
		    "the RADIUS server counts, but is told nothing: that needs `acct` in radius.conf, and `mailstile serve`");
		log_end(&line);
	}
	w->heard = mono_ms();
	w->end = l->session_s > TIMEOUT_SESSION ? INT64_MAX : w->heard + l->session_s * INT64_C(1000);
	return V_OK;
}

int
account_wait(struct warden *w, int heard)
{
	int64_t now = mono_ms(), until;

	if (!w->loggedin) {
		return -1;
	}
	w->heard = heard ? now : w->heard;
	until = w->end;
	/* A message that comes in is no idleness; smtp has limits for that. */
	if (w->limits.idle_s <= TIMEOUT_SESSION && w->state != WS_DATA) {
		int64_t idle = w->heard + (w->limits.idle_s < 10 ? 10 : w->limits.idle_s) * INT64_C(1000);

		until = idle < until ? idle : until;
	}
	return until == INT64_MAX ? -1 : until <= now ? 0 : (int)(until - now);
}

/* ---- a message ---- */

/* The first limit that is met in a day: a line, and when the transaction is over a mail. */
static enum verdict
tell(struct warden *w, enum verdict v, int first)
{
	struct log_line l;

	if (v == V_NO_COUNTS && ++w->troubles <= 64) {
		warden_event(&l, w, LOG_ERR, "quota");
		log_text(&l, "msg", "the count in " USERS_FILE " cannot be read or written; see mailstile-policy(5)");
		log_text(&l, "error", strerror(errno));
		log_end(&l);
	}
	if (first) {
		warden_event(&l, w, LOG_WARNING, "quota");
		log_str(&l, "limit", v == V_LIMIT_DAY ? "day" : v == V_LIMIT_RCPT ? "rcpt" : "rate");
		log_num(&l, "is",
		    v == V_LIMIT_DAY        ? w->limits.day
			: v == V_LIMIT_RCPT ? w->limits.rcpt
					    : w->limits.rate);
		log_text(&l, "msg", "first limit of this login today");
		log_end(&l);
		w->alert = v;
	}
	return v;
}

enum verdict
account_sender(struct warden *w)
{
	return w->loggedin && !limits_from_ok(&w->limits, w->env.sender) ? V_NOT_HIS_SENDER : account_ask(w, 0);
}

int
account_shared(const struct warden *w)
{
	return w->limits.left != LIMIT_NONE || w->limits.left_rcpt != LIMIT_NONE;
}

/* Other boxes send for this login, too; what the server said last is left of what it may. */
static enum verdict
ask_server(unsigned rcpts)
{
	uint32_t left, left_rcpt;

	acct_left(&left, &left_rcpt);
	return left == 0 ? V_LIMIT_DAY : left_rcpt == 0 || left_rcpt < rcpts ? V_LIMIT_RCPT : V_OK;
}

enum verdict
account_ask(struct warden *w, unsigned rcpts)
{
	enum verdict v = V_OK;
	int first = 0;

	if (w->loggedin) {
		v = ask_server(rcpts);
	}
	if (w->loggedin && v == V_OK) {
		v = users_ask(w->user, &w->limits, rcpts, time(NULL), &first);
	}
	return tell(w, v, first);
}

/* The author as smtp tells it: the best that can be had without reading a stranger's header here. */
static int
author_ok(const struct warden *w, const struct msg_commit *m)
{
#if FROM_HEADER_CHECK
	char from[SMTP_PATH_MAX + 1];

	if (w->limits.froms == 0 || m->from_len == 0) {
		return 1;
	}
	if (m->from_len >= sizeof from) {
		return 0;
	}
	memcpy(from, m->from, m->from_len);
	from[m->from_len] = '\0';
	return limits_from_ok(&w->limits, from);
#else
	(void)w;
	(void)m;
	return 1;
#endif
}

enum verdict
account_book(struct warden *w, const struct msg_commit *m)
{
	enum verdict v = V_OK;
	int first = 0;

	/* smtp's word; but only a liar knows of more than it says, and the file's size is looked at, too. */
	if (w->loggedin && w->limits.size != 0 && m->octets > w->limits.size) {
		return V_TOO_BIG;
	}
	if (w->loggedin && !author_ok(w, m)) {
		return V_NOT_HIS_SENDER;
	}
	if (w->loggedin) {
		v = users_book(w->user, &w->limits, w->env.rcpts, time(NULL), &first);
	}
	return tell(w, v, first);
}

void
account_unbook(const struct warden *w)
{
	int saved = errno;

	if (w->loggedin) {
		users_unbook(w->user, w->env.rcpts, time(NULL));
	}
	errno = saved;
}

/* ---- the mail to control/alertto ---- */

static void
write_alert(const struct warden *w, struct buf *b, enum verdict v, int64_t now)
{
	const char *what = v == V_LIMIT_DAY ? "messages today"
	    : v == V_LIMIT_RCPT             ? "recipients today"
					    : "messages in this minute";
	uint32_t most = v == V_LIMIT_DAY ? w->limits.day : v == V_LIMIT_RCPT ? w->limits.rcpt : w->limits.rate;

	buf_str(b, "Date: ");
	buf_date(b, now);
	buf_fmt(b, "\nFrom: mailstile <postmaster@%s>\nTo: <%s>\nMessage-ID: <%lld.%s.quota@%s>\n", w->info.me,
	    w->house->config->alertto, (long long)now, w->info.session, w->info.me);
	buf_str(b, "Subject: limit of ");
	buf_safe(b, w->user, strlen(w->user));
	buf_str(b,
	    "\nAuto-Submitted: auto-generated\nMIME-Version: 1.0\nContent-Type: text/plain; charset=us-ascii\n\nThe login\n\n  ");
	buf_safe(b, w->user, strlen(w->user));
	buf_fmt(b, "\n\nhas met a limit on %s: %u %s. It was using\n\n  %s\n\nwhen it did (session %s). ", w->info.me,
	    most, what, w->client, w->info.session);
	buf_str(b,
	    "Further mail of it is refused for now.\n\nNothing more is said of this login today. If its password is stolen,\n"
	    "`mailstile users block` stops it at once, also in open sessions;\n`mailstile users reset` lets it go on.\n");
}

void
account_tend(struct warden *w)
{
	enum verdict v = w->alert;
	char mem[2560];
	struct buf b;
	struct log_line l;
	const char *to = w->house->config->alertto;
	size_t len = strlen(to);
	int64_t now = time(NULL);

	/* It goes through the same envelope, which has to be free. */
	if (v == 0 || w->state != WS_OPEN) {
		return;
	}
	w->alert = 0;
	if (to[0] == '\0') {
		return;
	}
	w->env.sender[0] = '\0';
	w->env.to[0] = 'T';
	memcpy(w->env.to + 1, to, len + 1);
	w->env.len = len + 2;
	w->env.rcpts = 1;
	buf_init(&b, mem, sizeof mem);
	if (spool_begin(&w->spool, &w->env, &b, now) == 0) {
		write_alert(w, &b, v, now);
		if (!b.full && write_all(w->spool.fd, b.p, b.len) == 0 && spool_commit(&w->spool, &w->env) == 0) {
			warden_event(&l, w, LOG_INFO, "alert");
			log_fmt(&l, "qid", "%llu", (unsigned long long)w->spool.id);
			log_fmt(&l, "to", "<%s>", to);
			log_end(&l);
			v = 0;
		}
	}
	if (v != 0) {
		warden_event(&l, w, LOG_ERR, "alert");
		log_text(&l, "msg", "the mail to alertto cannot be stored");
		log_text(&l, "error", strerror(errno));
		log_end(&l);
	}
	spool_abort(&w->spool);
	w->env.len = 0;
	w->env.rcpts = 0;
}

#endif
