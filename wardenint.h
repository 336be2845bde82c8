/* SPDX-License-Identifier: MIT */
/* What warden.c (the monitor) and session.c (the process around it) share. Nothing else includes this. */
#ifndef MAILSTILE_WARDENINT_H
#define MAILSTILE_WARDENINT_H

#include "log.h"
#include "msg.h"
#include "queue.h"
#include "smtp.h"
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
/* The word for why a session ended. */
const char *warden_why(const struct warden *w);

#endif
