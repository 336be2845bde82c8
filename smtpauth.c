/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * AUTH PLAIN and LOGIN (RFC 4954, 4616) as the client sees them; smtp process. The password is here from the line it came in to the
 * message to the warden, and wiped from both. Whether it is right only the warden learns.
 */
#include "smtpint.h"

#include "str.h"

#include <string.h>

/* Decode the base64 text at `b64` in place; "=" is the empty string (RFC 4954 4). Returns the length, or -1. */
static long
decode_response(char *b64)
{
	if (strcmp(b64, "=") == 0) {
		b64[0] = '\0';
	}
	return parse_base64(b64, strlen(b64), b64, strlen(b64));
}

/* Send a challenge and read the response into s->line, decoded. Returns its length; -1 with *r set when the exchange is over. */
static long
sasl_prompt(struct smtp_session *s, const char *challenge, enum reply *r)
{
	long n;

	smtp_say(s, challenge);
	if (smtp_read_line(s, SASL_LINE_MAX) == -1) {
		*r = R_AUTH_LONG;
		return -1;
	}
	if (strcmp(s->line, "*") == 0) {
		*r = R_AUTH_CANCELLED;
		return -1;
	}
	n = decode_response(s->line);
	*r = R_AUTH_BASE64;
	return n;
}

static enum reply
log_in(struct smtp_session *s, enum sasl_mechanism mech, const char *user, size_t user_len, const char *pass,
    size_t pass_len)
{
	struct msg_auth m;
	enum verdict v;

	/* Names and passwords that RADIUS cannot carry are wrong ones; the warden still hears of the try, to slow it down. */
	if (!parse_login_ok(user, user_len, pass, pass_len)) {
		user_len = 0;
		pass_len = 0;
	}
	memset(&m, 0, sizeof m);
	m.type = MSG_AUTH;
	m.mechanism = (uint32_t)mech;
	m.user_len = (uint32_t)user_len;
	m.pass_len = (uint32_t)pass_len;
	memcpy(m.user, user, user_len);
	memcpy(m.pass, pass, pass_len);
	s->auth_requests++;
	v = smtp_ask_verdict(s, &m, sizeof m);
	explicit_bzero(&m, sizeof m);
	if (v == V_OK) {
		s->loggedin = 1;
		s->c->deadline = s->start + TIMEOUT_SESSION * INT64_C(1000);
	} else if (v == V_AUTH_REFUSED || v == V_AUTH_TURN) {
		s->auth_fails++;
	}
	return smtp_reply_of(v, R_AUTH_OK, 0);
}

static enum reply
auth_plain(struct smtp_session *s, char *initial)
{
	struct sasl_plain p;
	enum reply r = R_AUTH_BASE64;
	const char *text = initial;
	long n = initial == NULL ? sasl_prompt(s, "334 ", &r) : decode_response(initial);

	if (n < 0) {
		return r;
	}
	if (initial == NULL) {
		text = s->line;
	}
	if (parse_plain(text, (size_t)n, &p) == -1) {
		smtp_note(s, NOTE_AUTH_MALFORMED, 0);
		return R_AUTH_BASE64;
	}
	/* Acting for somebody else is nobody's right here. */
	if (p.authzid_len > 0 && (p.authzid_len != p.user_len || memcmp(p.authzid, p.user, p.user_len) != 0)) {
		p.user_len = 0;
	}
	return log_in(s, SASL_PLAIN, p.user, p.user_len, p.pass, p.pass_len);
}

static enum reply
auth_login(struct smtp_session *s, char *initial)
{
	char user[AUTH_USER_MAX + 1];
	enum reply r = R_AUTH_BASE64;
	long n = initial == NULL ? sasl_prompt(s, "334 VXNlcm5hbWU6", &r) : decode_response(initial);
	size_t user_len;

	if (n < 0) {
		return r;
	}
	/* A name that is too long is kept too long: parse_login_ok() refuses it. */
	user_len = (size_t)n < sizeof user ? (size_t)n : sizeof user;
	memcpy(user, initial == NULL ? s->line : initial, user_len);
	n = sasl_prompt(s, "334 UGFzc3dvcmQ6", &r);
	if (n < 0) {
		return r;
	}
	return log_in(s, SASL_LOGIN, user, user_len, s->line, (size_t)n);
}

enum reply
smtp_do_auth(struct smtp_session *s, char *arg)
{
	char *initial = strchr(arg, ' ');
	enum reply r;

	if (s->loggedin) {
		return R_AUTH_ALREADY;
	}
	if (!smtp_auth_offered(s)) {
		return s->info->profile == PROFILE_INSIDE ? R_AUTH_NOT_HERE : R_NEED_TLS;
	}
	if (arg[0] == '\0') {
		return R_ARGUMENT;
	}
	if (s->auth_fails >= AUTH_TRIES_MAX || s->auth_requests >= AUTH_REQUESTS_MAX) {
		smtp_bye(s, R_AUTH_TOO_MANY, NOTE_AUTH_TRIES, s->auth_fails);
	}
	if (initial != NULL) {
		*initial++ = '\0';
	}
	if (ascii_strcasecmp(arg, "PLAIN") == 0) {
		r = auth_plain(s, initial);
	} else if (ascii_strcasecmp(arg, "LOGIN") == 0) {
		r = auth_login(s, initial);
	} else {
		r = R_AUTH_MECHANISM;
	}
	explicit_bzero(s->line, sizeof s->line);
	return r;
}
