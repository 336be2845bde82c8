/* SPDX-License-Identifier: MIT */
/* What warden.c (the monitor), wardenauth.c and account.c (its logins) and session.c (the process around it) share. Nothing else includes this. */
#ifndef MAILSTILE_WARDENINT_H
#define MAILSTILE_WARDENINT_H

#include "limits.h"
#include "log.h"
#include "msg.h"
#include "queue.h"
#include "radius.h"
#include "smtp.h"
#include "str.h"
#include "warden.h"

enum state {
	WS_OPEN = 1, /* no transaction */
	WS_MAIL = 2, /* sender taken */
	WS_RCPT = 4, /* at least one recipient taken */
	WS_DATA = 8, /* smtp has the file */
	WS_ANY = 15
};

struct warden {
	const struct house *house;
	struct session *session;
	int sock;
	pid_t smtp;
	enum state state;
	unsigned count[MSG_COUNT];
	/* the answers to the message that is being worked on */
	int refused_before; /* in this batch a sender or recipient */
	int out_fd;
	size_t out_len;
	uint8_t out[sizeof(union msg_any)];
	int64_t start;
	struct smtp_info info;
	char client[ADDR_TEXT_MAX];
	/* login */
	int loggedin;
	unsigned auth_fails;
	char user[AUTH_USER_MAX + 1];
#if ACCOUNTS
	struct limits limits;
	int64_t end, heard; /* mono_ms(): when the session is over; when smtp last asked */
	enum verdict alert; /* of what control/alertto has to be told, 0 = nothing */
#endif
	/* TLS, as smtp says: for the log and for Received, never for a decision */
	int tls, resumed;
	uint16_t tls_version, tls_suite;
	/* the transaction */
	int utf8, esmtp;
	uint64_t size;
	struct spool spool;
	struct envelope env;
	/* for the last log line */
	enum note_kind why;
	unsigned messages, recipients, refused, troubles;
	uint64_t octets;
};

/* The state of this process's session, set up for `se`; no smtp process yet. */
struct warden *warden_init(const struct house *h, struct session *se);
/* Begin a log line about the session. */
void warden_event(struct log_line *l, const struct warden *w, int prio, const char *ev);
/*
 * wardenauth.c: a login, as smtp asks for it. RADIUS is asked, at most RADIUS_DEADLINE seconds long, besides the waits that guessing earns; what comes of
 * it is logged and counted, and w->user and w->loggedin are set, or the failure is remembered. The password in `m` is wiped. 0, and *v is what smtp is
 * to be told. -1, without *v: smtp had no right to ask, and `m` is as it was; or the session is to end (radius_stop).
 */
int warden_login(struct warden *w, struct msg_auth *m, enum verdict *v);
/*
 * account.c: what a login may do. `login`: w->user has been accepted; V_OK, or *why in words, and he is not to be let in. `sender`: may the session's
 * login use w->env.sender and send a message? `ask`: to so many recipients? `book`: it is about to be stored, and smtp
 * says this of it; `unbook`: that failed. V_OK always
 * without a login. `tend`: after each answer to smtp. `wait`: milliseconds until the session has to end, -1 = nobody says; `heard`: smtp has asked.
 */
#if ACCOUNTS
enum verdict account_login(struct warden *w, const struct radius_answer *a, const char **why);
enum verdict account_sender(struct warden *w);
static inline enum verdict
account_needs(const struct warden *w)
{
	return w->loggedin ? V_MAY_NOT_SEND : V_NEED_LOGIN;
}
enum verdict account_ask(struct warden *w, unsigned rcpts);
/* Does the RADIUS server count for all its boxes together? */
int account_shared(const struct warden *w);
enum verdict account_book(struct warden *w, const struct msg_commit *m);
void account_unbook(const struct warden *w);
void account_tend(struct warden *w);
int account_wait(struct warden *w, int heard);
/* Has the session had all its time? */
static inline int
account_over(const struct warden *w)
{
	return mono_ms() >= w->end;
}
#else
/* clang-format off */
static inline enum verdict account_login(struct warden *w, const struct radius_answer *a, const char **why) { (void)w; (void)a; (void)why; return V_OK; }
static inline int account_shared(const struct warden *w) { (void)w; return 0; }
static inline enum verdict account_sender(struct warden *w) { (void)w; return V_OK; }
static inline enum verdict account_needs(const struct warden *w) { (void)w; return V_NEED_LOGIN; }
static inline enum verdict account_ask(struct warden *w, unsigned rcpts) { (void)w; (void)rcpts; return V_OK; }
static inline enum verdict account_book(struct warden *w, const struct msg_commit *m) { (void)w; (void)m; return V_OK; }
static inline void account_unbook(const struct warden *w) { (void)w; }
static inline void account_tend(struct warden *w) { (void)w; }
static inline int account_over(const struct warden *w) { (void)w; return 0; }
static inline int account_wait(struct warden *w, int heard) { (void)w; (void)heard; return -1; }
/* clang-format on */
#endif
/* The word for why a session ended. */
const char *warden_why(const struct warden *w);

#endif
