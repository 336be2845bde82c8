/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * What the warden of a session should know and do, written down a second time: when a request is allowed, the state after it, the envelope,
 * and what lies in the spool in the end.
 */
#ifndef MAILSTILE_TEST_FUZZ_MODEL_H
#define MAILSTILE_TEST_FUZZ_MODEL_H

#include "fuzz.h"
#include "str.h"
#include "wardenint.h"

#include <stdio.h>

#define MODEL_ACCEPTED_MAX 4096

static struct {
	enum state state;
	unsigned count[MSG_COUNT], fails;
	int key, loggedin, relay;
	int held;                  /* somebody can still write to the message, or to one before */
	const char *from, *append; /* forced sender; what goes behind recipients of listed clients */
	char user[AUTH_USER_MAX + 1];
	char sender[SMTP_PATH_MAX + 4];
	unsigned rcpts;
	size_t to_len;
	char to[sizeof((struct envelope *)0)->to];
	struct {
		uint64_t id, sum; /* of the envelope */
		unsigned files;
	} accepted[MODEL_ACCEPTED_MAX];
	unsigned messages;
} model;

static void
model_begin(int key, int relay, const char *from, const char *append)
{
	memset(&model, 0, offsetof(__typeof__(model), to));
	model.messages = 0;
	model.state = WS_OPEN;
	model.key = key;
	model.relay = relay;
	model.from = from;
	model.append = append;
}

/* FNV-1a, 64 bits. */
static uint64_t
model_sum(const void *p, size_t len, uint64_t sum)
{
	for (size_t i = 0; i < len; i++) {
		sum = (sum ^ ((const uint8_t *)p)[i]) * UINT64_C(1099511628211);
	}
	return sum;
}

static int
model_text(const char *p, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++) {
		if ((uint8_t)p[i] < 32 || p[i] == 127) {
			return 0;
		}
	}
	return 1;
}

/* Are these requests that may be in one message: a single one, or some about one transaction? */
static int
model_message(const uint8_t *p, size_t len)
{
	uint32_t type;
	unsigned n = 0;

	do {
		if (len < sizeof type) {
			return 0;
		}
		memcpy(&type, p, sizeof type);
		if (type == 0 || type >= MSG_COUNT || len < fuzz_request_size[type] || n++ == BATCH_MAX) {
			return 0;
		}
		p += fuzz_request_size[type];
		len -= fuzz_request_size[type];
		if ((type < MSG_MAIL || type > MSG_DATA) && (n > 1 || len > 0)) {
			return 0;
		}
	} while (len > 0);
	return 1;
}

/* Is the transaction where this belongs? */
static int
model_in_place(uint32_t type)
{
	switch (type) {
	case MSG_RCPT:
		return (model.state & (WS_MAIL | WS_RCPT)) != 0;
	case MSG_DATA:
		return model.state == WS_RCPT;
	case MSG_COMMIT:
		return model.state == WS_DATA;
	case MSG_RESET:
	case MSG_NOTE:
		return 1;
	default:
		return model.state == WS_OPEN;
	}
}

/* Is it within the rules otherwise? */
static int
model_allows(const union msg_any *m)
{
	switch (m->type) {
	case MSG_SIGN:
		return model.count[m->type] == 0 && m->sign.len <= 64 && model.key;
	case MSG_TLSGET:
	case MSG_TLSPUT:
	case MSG_TLSUP:
		return model.count[m->type] == 0;
	case MSG_AUTH:
		return !model.loggedin && model.fails < AUTH_TRIES_MAX && model.count[m->type] < AUTH_REQUESTS_MAX &&
		    m->auth.user_len < 256 && m->auth.pass_len < 256;
	case MSG_MAIL:
		return m->mail.len <= SMTP_PATH_MAX && model_text(m->mail.addr, m->mail.len);
	case MSG_RCPT:
		return m->rcpt.len > 0 && m->rcpt.len <= SMTP_PATH_MAX && model_text(m->rcpt.addr, m->rcpt.len);
	case MSG_DATA:
		return m->data.helo_len < 256;
	case MSG_COMMIT:
		return !model.held;
	case MSG_RESET:
		return model.state != WS_DATA || !model.held;
	case MSG_NOTE:
		return m->note.kind > 0 && m->note.kind < NOTE_COUNT;
	default:
		return 1;
	}
}

static void
model_forget(void)
{
	model.state = WS_OPEN;
	model.rcpts = 0;
	model.to_len = 0;
}

static void
model_recipient(const struct msg_rcpt *m)
{
	char rcpt[SMTP_PATH_MAX + 300];
	int n = snprintf(rcpt, sizeof rcpt, "T%.*s", (int)m->len, m->addr);
	int bare = memchr(m->addr, '@', m->len) == NULL; /* then it is postmaster */
	const char *more = bare ? "@mx.example.org" : model.relay && !model.loggedin ? model.append : "";

	n += snprintf(rcpt + n, sizeof rcpt - (size_t)n, "%s", more);
	CHECK(!bare || ascii_strcasecmp(rcpt, "Tpostmaster@mx.example.org") == 0);
	CHECK(n < (int)sizeof rcpt && (size_t)n + 1 <= sizeof model.to - model.to_len && model.rcpts < SMTP_RCPT_MAX);
	memcpy(model.to + model.to_len, rcpt, (size_t)n + 1);
	model.to_len += (size_t)n + 1;
	model.rcpts++;
}

static void
model_accept(const struct msg_commit_reply *r, enum spool_kind kind)
{
	uint64_t sum = model_sum(model.sender, strlen(model.sender) + 1, 0);

	if (model.messages < MODEL_ACCEPTED_MAX) {
		model.accepted[model.messages].id = r->qid;
		model.accepted[model.messages].sum = model_sum(model.to, model.to_len, sum);
		model.accepted[model.messages].files = kind == SPOOL_MAILDIR ? model.rcpts : 1;
	}
	model.messages++;
}

/* Request `m` was allowed and has this verdict (V_OK where there is none). */
static void
model_after(const union msg_any *m, const union msg_any *answer, enum verdict v, enum spool_kind kind)
{
	model.count[m->type]++;
	switch (m->type) {
	case MSG_AUTH:
		model.fails += v == V_AUTH_REFUSED || v == V_AUTH_TURN;
		model.loggedin |= v == V_OK;
		if (v == V_OK) {
			snprintf(model.user, sizeof model.user, "%.*s", (int)m->auth.user_len, m->auth.user);
		}
		break;
	case MSG_MAIL:
		snprintf(model.sender, sizeof model.sender, "%.*s", (int)m->mail.len, m->mail.addr);
		if (model.from[0] != '\0') {
			snprintf(model.sender, sizeof model.sender, "%s", model.from);
		}
		model.state = v == V_OK ? WS_MAIL : WS_OPEN;
		break;
	case MSG_RCPT:
		if (v == V_OK) {
			model_recipient(&m->rcpt);
			model.state = WS_RCPT;
		}
		break;
	case MSG_DATA:
		model.state = v == V_OK ? WS_DATA : WS_RCPT;
		break;
	case MSG_COMMIT:
		if (v == V_OK) {
			model_accept(&answer->commit_reply, kind);
		}
		model_forget();
		break;
	case MSG_RESET:
		model_forget();
		break;
	default:
		break;
	}
}

/* The warden thinks what the model thinks. */
static void
model_compare(const struct warden *w)
{
	CHECK(w->state == model.state && w->loggedin == model.loggedin && w->auth_fails == model.fails);
	CHECK(w->messages == model.messages && strcmp(w->user, model.user) == 0);
	CHECK(w->env.rcpts == model.rcpts && w->env.len == model.to_len &&
	    memcmp(w->env.to, model.to, model.to_len) == 0);
	CHECK(model.state == WS_OPEN || strcmp(w->env.sender, model.sender) == 0);
	CHECK((w->spool.fd != -1) == (model.state == WS_DATA));
}

#endif
