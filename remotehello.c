/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * From the connection to the point where MAIL may be said: greeting, EHLO, TLS as control/smtptls asks for it (RFC 3207), login (RFC 4954).
 * Whatever goes wrong here says nothing about the message: the next host is tried, or it waits. A password goes from the secret mapping
 * to the wire, and only to a peer whose certificate was judged good by name or by pin.
 */
#include "remoteint.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#if RELAY

/* ---- talking ---- */

int
remote_ms(const struct remote *s, int seconds)
{
	return 1000 * (s->conf->timeout_remote < seconds ? s->conf->timeout_remote : seconds);
}

const char *
remote_trouble(const struct remote *s, enum conn_status st)
{
	switch (st) {
	case CONN_STOP:
		_exit(0); /* nobody is there to report to */
	case CONN_TIMEOUT:
		return "it took too long";
	case CONN_TLS:
		return tlscheck_text(s->conn.tls_error);
	case CONN_OK:
	case CONN_EOF:
	default:
		return "the connection was lost";
	}
}

static void
say(struct remote *s, const char *text)
{
	if (s->said == CONN_OK) {
		s->said = conn_write(&s->conn, text, strlen(text), remote_ms(s, REMOTE_WAIT_COMMAND));
	}
}

void
remote_say(struct remote *s, const char *const text[5])
{
	/* After half a command nothing more may be said. Who waits for the reply learns of it. */
	for (unsigned i = 0; text[i] != NULL; i++) {
		say(s, text[i]);
	}
	say(s, "\r\n");
}

const char *
remote_hear(struct remote *s, struct peer_ehlo *ehlo, int seconds)
{
	int64_t until = mono_ms() + remote_ms(s, seconds);
	int done = 0;

	peer_reply_begin(&s->reply, ehlo);
	while (!done) {
		int64_t left = until - mono_ms();
		const uint8_t *p;
		size_t len;
		enum conn_status st = s->said != CONN_OK ? s->said
		    : left <= 0                          ? CONN_TIMEOUT
							 : conn_peek(&s->conn, &p, &len, (int)left);

		if (st != CONN_OK) {
			s->reply.code = 0;
			return remote_trouble(s, st);
		}
		conn_take(&s->conn, peer_reply_take(&s->reply, p, len, &done));
	}
	if (s->reply.bad) {
		s->reply.code = 0;
		return "it says something that is no SMTP";
	}
	return NULL;
}

/* ---- steps ---- */

/* A step has failed: a note, with the reply when there is one; -1. */
static int
refused(struct remote *s, const char *status, const char *what, const char *trouble)
{
	s->code = trouble == NULL ? s->reply.code : 0;
	remote_note(s, status, s->peer, what, trouble != NULL ? trouble : s->reply.text);
	return -1;
}

static int
greeting(struct remote *s)
{
	const char *trouble = remote_hear(s, NULL, REMOTE_WAIT_COMMAND);

	if (trouble != NULL || s->reply.code != 220) {
		return refused(s, trouble != NULL ? "4.4.2" : "4.3.0", "instead of a greeting: ", trouble);
	}
	return 0;
}

static int
ehlo(struct remote *s)
{
	const char *trouble;

	SAY(s, "EHLO ", s->conf->helohost);
	trouble = remote_hear(s, &s->ehlo, REMOTE_WAIT_COMMAND);
	if (trouble == NULL && s->reply.code >= 500) {
		s->ehlo.keywords = 0;
		SAY(s, "HELO ", s->conf->helohost);
		trouble = remote_hear(s, NULL, REMOTE_WAIT_COMMAND);
	}
	if (trouble != NULL || s->reply.code != 250) {
		return refused(s, trouble != NULL ? "4.4.2" : "4.3.0", "EHLO: ", trouble);
	}
	return 0;
}

/* ---- TLS ---- */

/* Is the MX host within the domain? Who forges an answer to a question for MX records can name any host, and have a certificate for it. */
static int
within(const char *host, const char *domain)
{
	size_t h = strlen(host), d = strlen(domain);

	return h >= d && ascii_strcasecmp(host + h - d, domain) == 0 && (h == d || host[h - d - 1] == '.');
}

/* Shake hands. 0, or -1 with a note. */
static int
tls_up(struct remote *s)
{
	static int ready; /* the engine */
	const struct relay_conf *r = s->conf;
	const char *name = s->hop.numeric ? NULL : s->hop.host;
	int error;

	if (!ready) {
		ready = 1;
		conn_setup_client(&s->conn);
	}
	if (s->mx && s->hop.tls == TLS_VERIFY && name != NULL && !within(name, s->job.domain)) {
		remote_note(s, "4.7.5", s->peer,
		    "TLS failed: verify is asked for, but DNS alone says that this is the domain's mail host; name it in "
		    "control/smtproutes",
		    NULL);
		return -1;
	}
	error = tlscheck_begin(
	    &s->check, s->hop.tls, r->pin + s->hop.pin, s->hop.pins, r->anchor, r->anchors, name, (int64_t)time(NULL));
	if (error == 0) {
		enum conn_status st =
		    conn_start_client(&s->conn, name, &s->check.vtable, remote_ms(s, REMOTE_WAIT_COMMAND));

		if (st == CONN_OK) {
			s->verified = s->hop.tls == TLS_VERIFY || s->hop.tls == TLS_PIN;
			return 0;
		}
		if (st != CONN_TLS) {
			remote_note(s, "4.7.5", s->peer, "TLS failed: ", remote_trouble(s, st));
			return -1;
		}
		error = s->conn.tls_error;
	}
	remote_note(s, "4.7.5", s->peer, "TLS failed: ", tlscheck_text(error));
	return -1;
}

/*
 * After EHLO: TLS, if there is to be some. 0 go on; -1 with a note; 1 with one, too, but TLS was only a wish, and may be done without on
 * another connection.
 */
static int
starttls(struct remote *s)
{
	int wish = s->hop.tls == TLS_MAY && !s->hop.implicit;
	const char *trouble;

	if (s->hop.tls == TLS_NONE || s->conn.tls) {
		return 0;
	}
	if ((s->ehlo.keywords & PEER_STARTTLS) == 0) {
		if (!wish) {
			remote_note(s, "4.7.5", s->peer, "it offers no TLS, which control/smtptls asks for", NULL);
		}
		return wish ? 0 : -1;
	}
	SAY(s, "STARTTLS");
	trouble = remote_hear(s, NULL, REMOTE_WAIT_COMMAND);
	if (trouble == NULL && s->reply.code != 220) {
		return wish ? 0 : refused(s, "4.7.5", "STARTTLS: ", NULL);
	}
	/* What came with the 220 was said by somebody before TLS, and would be heard as if it had been said under it. */
	if (trouble == NULL && conn_pending(&s->conn) > 0) {
		trouble = "it says more before TLS begins";
	}
	if (trouble != NULL) {
		refused(s, "4.7.5", "STARTTLS: ", trouble);
		return wish ? 1 : -1;
	}
	if (tls_up(s) == -1) {
		return wish ? 1 : -1;
	}
	return ehlo(s);
}

/* ---- login ---- */

/* Send b[0..len) in base64 after `verb` and read the reply. NULL, or the trouble. */
static const char *
send_secret(struct remote *s, const char *verb, const void *p, size_t len)
{
	char line[640];
	struct buf b;
	enum conn_status st;

	buf_init(&b, line, sizeof line);
	buf_str(&b, verb);
	peer_base64(&b, p, len);
	buf_str(&b, "\r\n");
	/* Past conn.out, which would keep it: the engine's own buffer is encrypted in place. */
	st = conn_send(&s->conn, line, b.len, remote_ms(s, REMOTE_WAIT_COMMAND));
	explicit_bzero(line, sizeof line);
	return st != CONN_OK ? remote_trouble(s, st) : remote_hear(s, NULL, REMOTE_WAIT_COMMAND);
}

static const char *
ask(struct remote *s, const char *command)
{
	SAY(s, command);
	return remote_hear(s, NULL, REMOTE_WAIT_COMMAND);
}

static const char *
login_plain(struct remote *s, const char *user, const char *password)
{
	char mem[1 + 256 + 1 + 128];
	const char *trouble = NULL, *verb = "AUTH PLAIN ";
	struct buf b;

	buf_init(&b, mem, sizeof mem);
	buf_ch(&b, '\0');
	buf_str(&b, user);
	buf_ch(&b, '\0');
	buf_str(&b, password);
	/* A command has 512 octets at most; what does not fit is for the next line (RFC 4954 4). */
	if (strlen(verb) + (b.len + 2) / 3 * 4 + 2 > 512) {
		trouble = ask(s, "AUTH PLAIN");
		verb = "";
	}
	if (trouble == NULL && (verb[0] != '\0' || s->reply.code == 334)) {
		trouble = send_secret(s, verb, mem, b.len);
	}
	explicit_bzero(mem, sizeof mem);
	return trouble;
}

static const char *
login_login(struct remote *s, const char *user, const char *password)
{
	const char *trouble = ask(s, "AUTH LOGIN");

	if (trouble == NULL && s->reply.code == 334) {
		trouble = send_secret(s, "", user, strlen(user));
	}
	if (trouble == NULL && s->reply.code == 334) {
		trouble = send_secret(s, "", password, strlen(password));
	}
	return trouble;
}

static int
login(struct remote *s)
{
	const char *user, *password, *trouble;
	char code[16];
	struct buf b;
	size_t n;

	if (s->hop.auth < 0) {
		return 0;
	}
	if (!s->conn.tls || !s->verified) {
		remote_note(s, "4.7.0", s->peer, "a password may only go to a relay that is verified", NULL);
		return -1;
	}
	if ((s->ehlo.keywords & (PEER_AUTH_PLAIN | PEER_AUTH_LOGIN)) == 0) {
		remote_note(s, "4.7.0", s->peer, "it offers no login by PLAIN or LOGIN", NULL);
		return -1;
	}
	user = s->conf->auth[s->hop.auth].user;
	password = s->secrets->relay[s->hop.auth];
	trouble =
	    (s->ehlo.keywords & PEER_AUTH_PLAIN) != 0 ? login_plain(s, user, password) : login_login(s, user, password);
	if (trouble != NULL) {
		return refused(s, "4.4.2", "login: ", trouble);
	}
	if (s->reply.code / 100 == 2) {
		return 0;
	}
	/* Of the reply only the numbers: some servers repeat what they did not understand. */
	buf_init(&b, code, sizeof code);
	n = strspn(s->reply.text, "0123456789. -");
	buf_add(&b, s->reply.text, n < 12 ? n : 12);
	s->code = s->reply.code;
	buf_cstr(&b);
	remote_note(s, "4.7.8", s->peer, "it refuses the login: ", code);
	return -1;
}

/* ---- all of it ---- */

static int
connected(struct remote *s)
{
	int r;

	if ((s->hop.implicit && tls_up(s) == -1) || greeting(s) == -1 || ehlo(s) == -1) {
		return -1;
	}
	r = starttls(s);
	return r == 0 ? login(s) : r;
}

/* What DONE will say of it. */
static void
describe(struct remote *s, const struct addr *addr)
{
	struct deliver_done *d = &s->done;
	struct buf b;

	buf_init(&b, d->peer, sizeof d->peer);
	buf_str(&b, addr_is_v4(addr) ? "" : "[");
	buf_str(&b, s->peer);
	buf_str(&b, addr_is_v4(addr) ? ":" : "]:");
	buf_u64(&b, s->hop.port);
	buf_cstr(&b);
	str_copy(d->name, sizeof d->name, s->hop.host);
	d->tls_version = s->conn.tls ? s->conn.eng.session.version : 0;
	d->tls_suite = s->conn.tls ? s->conn.eng.session.cipher_suite : 0;
	d->verified = (uint32_t)s->verified;
}

int
remote_hello(struct remote *s, const struct addr *addr)
{
	enum tls_policy wanted = s->hop.tls;
	int r;

	addr_text(addr, s->peer);
	for (int plain = 0; plain < 2; plain++) {
		int64_t left = s->deadline - mono_ms(), ms = s->conf->timeout_connect * INT64_C(1000);
		int fd;

		fd = remote_open(addr, s->hop.port, (int)(left < 0 ? 0 : left < ms ? left : ms), s->sock);
		if (fd == -1) {
			remote_note(s, "4.4.1", s->peer, "no connection: ", strerror(errno));
			break;
		}
		conn_init(&s->conn, fd, fd, 1);
		s->conn.watch = s->sock;
		s->conn.watch_for = POLLIN;
		s->conn.deadline = s->deadline;
		s->verified = 0;
		s->octets = 0;
		s->said = CONN_OK;
		s->up = 1;
		r = connected(s);
		if (r == 0) {
			s->conn.deadline = INT64_MAX;
			s->dirty = 0;
			s->messages = 0;
			describe(s, addr);
			return 0;
		}
		remote_hang_up(s, 0);
		if (r == -1) {
			break;
		}
		s->hop.tls = TLS_NONE; /* TLS was a wish: once more, without */
	}
	s->hop.tls = wanted;
	return -1;
}

#endif
