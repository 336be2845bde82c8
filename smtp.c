/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The session as the client sees it. This process, and no other, reads what strangers send.
 *
 * User USER_SMTP, in an empty jail; descriptors 0 and 1 the client, 2 nothing, 3 the warden, 4 the message file while there is one.
 * Holds no secret and no key. A stranger who takes it over can ask the warden what this session may ask anyway, in the order the
 * warden allows, and append to the message file of this session. All memory is static; nothing grows with input.
 */
#include "smtp.h"

#include "smtpint.h"

#include "str.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct smtp_session session;

size_t
smtp_memory(void)
{
	return sizeof session + sizeof(struct conn);
}

/* ---- talking to the warden ---- */

void
smtp_note(const struct smtp_session *s, enum note_kind kind, int64_t number)
{
	struct msg_note m = { .type = MSG_NOTE, .kind = (uint32_t)kind, .number = number };

	msg_send(s->sock, &m, sizeof m, -1);
}

/* End the session: a last reply (or R_NONE), a word for the log, and what the client still sends is read away for a moment, since closing
 * with unread input would reset the connection and lose our reply. */
_Noreturn void
smtp_bye(struct smtp_session *s, enum reply r, enum note_kind why, int64_t number)
{
	struct conn *c = s->c;

	smtp_settle(s);
	c->busy = 1;
	if (c->deadline < mono_ms() + 5000) {
		c->deadline = mono_ms() + 5000;
	}
	if (r != R_NONE) {
		conn_write(c, reply_text(r), strlen(reply_text(r)), 1000);
		conn_write(c, "\r\n", 2, 1000);
	}
	conn_close(c, 5000);
	if (why != NOTE_EOF) {
		/* Who is sent away to make room must not hold it. */
		conn_linger(c, why == NOTE_SHUTDOWN ? 100 : 1000);
	}
	/* Last, so that the warden wakes up once for it and for our end. */
	smtp_note(s, why, number);
	_exit(0);
}

void
smtp_reset(struct smtp_session *s, int tell)
{
	struct msg_simple m = { .type = MSG_RESET };

	if (s->file != -1) {
		close(s->file);
		s->file = -1;
	}
	if (tell && s->phase >= PH_MAIL) {
		msg_send(s->sock, &m, sizeof m, -1);
	}
	if (s->phase >= PH_MAIL) {
		s->phase = PH_READY;
	}
	s->utf8 = 0;
	s->data_trouble = R_NONE;
	s->c->busy = 0;
}

/* ---- the TLS engine's needs, by message ---- */

static size_t
warden_sign(void *ctx, unsigned hash_id, const uint8_t *hash, size_t len, uint8_t *sig, size_t cap)
{
	struct smtp_session *s = ctx;
	struct msg_sign m = { .type = MSG_SIGN, .hash_id = hash_id, .len = (uint32_t)len };
	struct msg_sign_reply r;

	if (len > sizeof m.hash) {
		return 0;
	}
	memcpy(m.hash, hash, len);
	smtp_ask(s, &m, sizeof m, &r, sizeof r, NULL);
	if (r.len > sizeof r.sig || r.len > cap) {
		return 0;
	}
	memcpy(sig, r.sig, r.len);
	return r.len;
}

static int
warden_tls_get(void *ctx, br_ssl_session_parameters *p)
{
	struct smtp_session *s = ctx;
	struct msg_tlsget m = { .type = MSG_TLSGET };
	struct msg_tlssession r;

	memcpy(m.id, p->session_id, sizeof m.id);
	smtp_ask(s, &m, sizeof m, &r, sizeof r, NULL);
	if (!r.found) {
		return 0;
	}
	p->version = r.version;
	p->cipher_suite = r.suite;
	memcpy(p->master_secret, r.master, sizeof r.master);
	explicit_bzero(&r, sizeof r);
	return 1;
}

static void
warden_tls_put(void *ctx, const br_ssl_session_parameters *p)
{
	struct smtp_session *s = ctx;
	struct msg_tlssession m = { .type = MSG_TLSPUT, .found = 1, .version = p->version, .suite = p->cipher_suite };

	memcpy(m.id, p->session_id, sizeof m.id);
	memcpy(m.master, p->master_secret, sizeof m.master);
	msg_send(s->sock, &m, sizeof m, -1);
	explicit_bzero(&m, sizeof m);
}

static const struct tls_warden tls_warden = {
	.ctx = &session, .sign = warden_sign, .get = warden_tls_get, .put = warden_tls_put
};

/* ---- talking to the client ---- */

_Noreturn void
smtp_lost(struct smtp_session *s, enum conn_status st)
{
	switch (st) {
	case CONN_TIMEOUT:
		smtp_bye(s, R_TIMEOUT, NOTE_TIMEOUT, 0);
	case CONN_STOP:
		smtp_bye(s, R_SHUTDOWN, NOTE_SHUTDOWN, 0);
	case CONN_TLS:
		smtp_bye(s, R_NONE, NOTE_TLS_FAILED, s->c->tls_error);
	default:
		smtp_bye(s, R_NONE, NOTE_EOF, 0);
	}
}

void
smtp_say(struct smtp_session *s, const char *text)
{
	enum conn_status st = conn_write(s->c, text, strlen(text), TIMEOUT_COMMAND * 1000);

	if (st == CONN_OK) {
		st = conn_write(s->c, "\r\n", 2, TIMEOUT_COMMAND * 1000);
	}
	if (st != CONN_OK) {
		smtp_lost(s, st);
	}
}

void
smtp_say_reply(struct smtp_session *s, enum reply r)
{
	if (r == R_NONE) {
		return;
	}
	smtp_settle(s);
	smtp_say(s, reply_text(r));
	if (reply_is_bad_command(r) && ++s->bad_commands >= BAD_COMMANDS_MAX) {
		smtp_bye(s, R_BAD_COMMANDS, NOTE_BAD_COMMANDS, s->bad_commands);
	}
	if ((r == R_NEED_LOGIN || r == R_NO_RELAY || r == R_SENDER_REFUSED) && ++s->refusals >= REFUSALS_MAX) {
		smtp_bye(s, R_BAD_COMMANDS, NOTE_BAD_COMMANDS, s->refusals);
	}
}

/*
 * Read one line into s->line, without its CRLF, NUL-terminated. 0, or -1 when it was longer than `cap` octets with its CRLF (it is
 * read to its end). A line that does not end as it should, or with a NUL in it, ends the session.
 */
int
smtp_read_line(struct smtp_session *s, size_t cap)
{
	/* For all of it: an octet now and then is not a line. */
	int64_t until = mono_ms() + (s->phase == PH_BDAT ? TIMEOUT_DATA : TIMEOUT_COMMAND) * INT64_C(1000);
	const uint8_t *p, *lf;
	size_t len, take;
	int too_long = 0, cr = 0;

	s->line_len = 0;
	do {
		enum conn_status st = conn_peek(s->c, &p, &len, (int)(until - mono_ms()));

		if (st != CONN_OK) {
			smtp_lost(s, st);
		}
		lf = memchr(p, '\n', len);
		take = lf == NULL ? len : (size_t)(lf - p) + 1;
		cr = take >= 2 ? p[take - 2] == '\r' : s->line_len > 0 && s->line[s->line_len - 1] == '\r';
		if (too_long || take > cap - s->line_len) {
			too_long = 1;
			/* Only the last octet matters now: whether a CR comes before the LF. */
			s->line[0] = (char)p[take - 1];
			s->line_len = 1;
		} else {
			memcpy(s->line + s->line_len, p, take);
			s->line_len += take;
		}
		conn_take_wipe(s->c, take);
	} while (lf == NULL);
	if (!cr && s->info->profile != PROFILE_INSIDE) {
		smtp_bye(s, R_BARE, NOTE_BARE_LINE_END, 0);
	}
	if (too_long) {
		s->line_len = 0;
		s->line[0] = '\0';
		return -1;
	}
	s->line_len -= cr ? 2 : 1;
	s->line[s->line_len] = '\0';
	if (memchr(s->line, '\r', s->line_len) != NULL || memchr(s->line, '\0', s->line_len) != NULL) {
		smtp_bye(s, R_BARE, NOTE_BARE_LINE_END, 0);
	}
	return 0;
}

/* ---- EHLO and the small commands ---- */

int
smtp_auth_offered(const struct smtp_session *s)
{
	if (s->info->profile == PROFILE_INSIDE) {
		return AUTH_PLAINTEXT_INSIDE;
	}
	return s->c->tls;
}

static int
starttls_offered(const struct smtp_session *s)
{
	return !s->c->tls && s->info->tls_ready && s->info->profile != PROFILE_INSIDE;
}

static enum reply
greet_helo(struct smtp_session *s, char *arg, int esmtp)
{
	size_t len = strlen(arg);

	if (parse_helo(arg, len) == -1) {
		return R_ARGUMENT;
	}
	smtp_reset(s, 1);
	memcpy(s->helo, arg, len + 1);
	s->helo_len = len;
	s->esmtp = esmtp;
	s->phase = PH_READY;
	return R_DONE;
}

static enum reply
do_helo(struct smtp_session *s, char *arg)
{
	char mem[300];
	struct buf b;
	enum reply r = greet_helo(s, arg, 0);

	if (r == R_DONE) {
		buf_init(&b, mem, sizeof mem);
		buf_fmt(&b, "250 %s", s->info->me);
		smtp_say(s, buf_cstr(&b));
		r = R_NONE;
	}
	return r;
}

static enum reply
do_ehlo(struct smtp_session *s, char *arg)
{
	char mem[600];
	struct buf b;
	enum reply r = greet_helo(s, arg, 1);

	if (r != R_DONE) {
		return r;
	}
	buf_init(&b, mem, sizeof mem);
	buf_fmt(&b, "250-%s\r\n250-PIPELINING\r\n250-8BITMIME\r\n", s->info->me);
	buf_fmt(&b, "250-SIZE %llu\r\n", (unsigned long long)s->info->databytes);
	if (starttls_offered(s)) {
		buf_str(&b, "250-STARTTLS\r\n");
	}
	if (smtp_auth_offered(s)) {
		buf_str(&b, "250-AUTH PLAIN LOGIN\r\n");
	}
	buf_str(&b, "250-ENHANCEDSTATUSCODES\r\n250-SMTPUTF8\r\n250 CHUNKING");
	smtp_say(s, buf_cstr(&b));
	return R_NONE;
}

static enum reply
do_noop(struct smtp_session *s, char *arg)
{
	(void)s;
	(void)arg;
	return R_DONE;
}

static enum reply
do_help(struct smtp_session *s, char *arg)
{
	(void)s;
	(void)arg;
	return R_HELP;
}

static enum reply
do_vrfy(struct smtp_session *s, char *arg)
{
	(void)s;
	return arg[0] == '\0' ? R_ARGUMENT : R_VRFY;
}

static enum reply
do_rset(struct smtp_session *s, char *arg)
{
	if (arg[0] != '\0') {
		return R_NO_ARGUMENT;
	}
	smtp_reset(s, 1);
	return R_FLUSHED;
}

static enum reply
do_quit(struct smtp_session *s, char *arg)
{
	char mem[320];
	struct buf b;

	(void)arg;
	buf_init(&b, mem, sizeof mem);
	buf_fmt(&b, "221 2.0.0 %s goodbye", s->info->me);
	smtp_say(s, buf_cstr(&b));
	smtp_bye(s, R_NONE, NOTE_QUIT, 0);
}

static enum reply
do_not_implemented(struct smtp_session *s, char *arg)
{
	(void)s;
	(void)arg;
	return R_NOT_IMPLEMENTED;
}

/* ---- STARTTLS ---- */

static void
start_tls(struct smtp_session *s)
{
	struct msg_tlsup m = { .type = MSG_TLSUP };
	enum conn_status st = conn_start_tls(s->c, TIMEOUT_LOGIN * 1000);
	br_ssl_session_parameters p;

	if (st != CONN_OK) {
		/* No reply could be read now. */
		smtp_bye(s, R_NONE,
		    st == CONN_TLS           ? NOTE_TLS_FAILED
			: st == CONN_TIMEOUT ? NOTE_TIMEOUT
			: st == CONN_STOP    ? NOTE_SHUTDOWN
					     : NOTE_EOF,
		    s->c->tls_error);
	}
	br_ssl_engine_get_session_parameters(&s->c->sc.eng, &p);
	m.version = p.version;
	m.suite = p.cipher_suite;
	m.resumed = (uint32_t)s->c->resumed;
	explicit_bzero(&p, sizeof p);
	msg_send(s->sock, &m, sizeof m, -1);
	/* RFC 3207 4.2: nothing that was said before counts. */
	s->phase = PH_START;
	s->helo_len = 0;
	s->helo[0] = '\0';
	s->esmtp = 0;
}

static enum reply
do_starttls(struct smtp_session *s, char *arg)
{
	enum conn_status st;

	if (arg[0] != '\0') {
		return R_NO_ARGUMENT;
	}
	if (s->c->tls) {
		return R_TLS_ALREADY;
	}
	if (!starttls_offered(s)) {
		return s->info->profile == PROFILE_INSIDE ? R_NOT_IMPLEMENTED : R_TLS_UNAVAILABLE;
	}
	/* What came in the same breath was sent in the clear and must not be taken for what comes under TLS (CVE-2011-0411). */
	if (conn_pending(s->c) > 0) {
		smtp_bye(s, R_TLS_INJECTION, NOTE_TLS_INJECTION, 0);
	}
	smtp_reset(s, 1);
	smtp_say_reply(s, R_TLS_READY);
	st = conn_flush(s->c, TIMEOUT_COMMAND * 1000);
	if (st != CONN_OK) {
		smtp_lost(s, st);
	}
	start_tls(s);
	return R_NONE;
}

/* ---- MAIL and RCPT ---- */

struct mail_params {
	uint64_t size;
	int utf8;
};

static enum reply
mail_param(struct mail_params *m, const char *key, size_t key_len, const char *value)
{
	if (key_len == 4 && ascii_casecmp(key, "SIZE", 4) == 0) {
		return value == NULL || parse_u64(value, strlen(value), INT64_MAX, &m->size) == -1 ? R_PARAMETER
												   : R_DONE;
	}
	if (key_len == 4 && ascii_casecmp(key, "BODY", 4) == 0) {
		return value != NULL &&
			(ascii_strcasecmp(value, "7BIT") == 0 || ascii_strcasecmp(value, "8BITMIME") == 0)
		    ? R_DONE
		    : R_PARAMETER;
	}
	/* Who sent it first, as the client says: parsed because AUTH is offered, believed never (RFC 4954 5). */
	if (key_len == 4 && ascii_casecmp(key, "AUTH", 4) == 0) {
		return value != NULL && parse_xtext(value, strlen(value)) ? R_DONE : R_PARAMETER;
	}
	if (key_len == 8 && ascii_casecmp(key, "SMTPUTF8", 8) == 0) {
		m->utf8 = 1;
		return value == NULL ? R_DONE : R_PARAMETER;
	}
	return R_PARAMETER_UNKNOWN;
}

/* Parameters after the path: ` KEY[=VALUE]`, each. `text` is cut up. */
static enum reply
mail_params(struct mail_params *m, char *text)
{
	if (*text != '\0' && *text != ' ') {
		return R_SENDER_SYNTAX;
	}
	while (*(text += strspn(text, " ")) != '\0') {
		char *end = text + strcspn(text, " ");
		char *next = *end == '\0' ? end : end + 1;
		char *eq;
		enum reply r;

		*end = '\0';
		eq = strchr(text, '=');
		r = mail_param(m, text, eq == NULL ? strlen(text) : (size_t)(eq - text), eq == NULL ? NULL : eq + 1);
		if (r != R_DONE) {
			return r;
		}
		text = next;
	}
	return R_DONE;
}

/* Skip `word` (FROM: or TO:) and white space after it; NULL when it is not there. */
static char *
after_word(char *arg, const char *word)
{
	size_t n = strlen(word);

	if (strlen(arg) < n || ascii_casecmp(arg, word, n) != 0) {
		return NULL;
	}
	return arg + n + strspn(arg + n, " ");
}

static enum reply
path_reply(enum parse_result p, enum reply syntax)
{
	switch (p) {
	case PARSE_OK:
		return R_DONE;
	case PARSE_LONG:
		return R_ADDRESS_LONG;
	case PARSE_UTF8:
		return R_ADDRESS_UTF8;
	default:
		return syntax;
	}
}

static enum reply
do_mail(struct smtp_session *s, char *arg)
{
	struct mail_params params = { 0, 0 };
	struct mailbox box;
	struct msg_mail m;
	enum parse_result parsed;
	enum reply r;
	size_t used;

	if (s->info->profile == PROFILE_SUBMISSION && !s->c->tls) {
		return R_NEED_TLS;
	}
	arg = after_word(arg, "FROM:");
	if (arg == NULL) {
		return R_ARGUMENT;
	}
	/* The path is read as UTF-8 first: SMTPUTF8 comes behind it. */
	parsed = parse_path(arg, strlen(arg), 1, 0, 1, &box, &used);
	if (parsed != PARSE_OK) {
		return path_reply(parsed, R_SENDER_SYNTAX);
	}
	r = mail_params(&params, arg + used);
	if (r != R_DONE) {
		return r;
	}
	if (!params.utf8 && parse_path(arg, used, 1, 0, 0, &box, &used) != PARSE_OK) {
		return R_ADDRESS_UTF8;
	}
	memset(&m, 0, sizeof m);
	m.type = MSG_MAIL;
	m.size = params.size;
	m.utf8 = (uint32_t)params.utf8;
	m.len = (uint32_t)box.len;
	memcpy(m.addr, box.text, box.len);
	smtp_put(s, &m, sizeof m);
	s->phase = PH_MAIL; /* unless the warden says no */
	s->utf8 = params.utf8;
	return R_NONE;
}

static enum reply
do_rcpt(struct smtp_session *s, char *arg)
{
	struct mailbox box;
	struct msg_rcpt m;
	enum parse_result parsed;
	size_t used;

	arg = after_word(arg, "TO:");
	if (arg == NULL) {
		return R_ARGUMENT;
	}
	parsed = parse_path(arg, strlen(arg), 0, 1, s->utf8, &box, &used);
	if (parsed != PARSE_OK) {
		return path_reply(parsed, R_RCPT_SYNTAX);
	}
	if (arg[used + strspn(arg + used, " ")] != '\0') {
		return arg[used] == ' ' ? R_PARAMETER_UNKNOWN : R_RCPT_SYNTAX;
	}
	memset(&m, 0, sizeof m);
	m.type = MSG_RCPT;
	m.len = (uint32_t)box.len;
	memcpy(m.addr, box.text, box.len);
	smtp_put(s, &m, sizeof m);
	s->phase = PH_RCPT;
	return R_NONE;
}

/* ---- the session ---- */

static const struct command {
	const char *name;
	unsigned phases; /* where it is allowed */
	enum reply elsewhere;
	enum reply (*act)(struct smtp_session *s, char *arg);
	unsigned behind; /* how many requests may wait in the batch when it comes; with more, they are settled first */
} commands[] = {
	{ "EHLO", PH_ANY, R_NONE, do_ehlo, 0 },
	{ "HELO", PH_ANY, R_NONE, do_helo, 0 },
	{ "MAIL", PH_READY, R_NESTED_MAIL, do_mail, 0 },
	{ "RCPT", PH_MAIL | PH_RCPT, R_MAIL_FIRST, do_rcpt, BATCH_MAX - 2 }, /* room for DATA is kept */
	{ "DATA", PH_RCPT, R_RCPT_FIRST, smtp_do_data, BATCH_MAX - 1 },
	{ "BDAT", PH_ANY, R_NONE, smtp_do_bdat, 0 }, /* its octets must be read even where it is not allowed */
	{ "RSET", PH_ANY, R_NONE, do_rset, 0 },
	{ "NOOP", PH_ANY, R_NONE, do_noop, 0 },
	{ "QUIT", PH_ANY, R_NONE, do_quit, 0 },
	{ "STARTTLS", PH_START | PH_READY, R_IN_TRANSACTION, do_starttls, 0 },
	{ "AUTH", PH_READY, R_IN_TRANSACTION, smtp_do_auth, 0 },
	{ "VRFY", PH_ANY, R_NONE, do_vrfy, 0 },
	{ "HELP", PH_ANY, R_NONE, do_help, 0 },
	{ "EXPN", PH_ANY, R_NONE, do_not_implemented, 0 },
	{ "TURN", PH_ANY, R_NONE, do_not_implemented, 0 },
	{ "ETRN", PH_ANY, R_NONE, do_not_implemented, 0 },
};

static enum reply
out_of_phase(const struct smtp_session *s, const struct command *cmd)
{
	if (s->phase == PH_START) {
		return R_HELO_FIRST;
	}
	if (s->phase == PH_BDAT) {
		return R_BDAT_ONLY;
	}
	if (cmd->elsewhere == R_RCPT_FIRST && s->phase == PH_READY) {
		return R_MAIL_FIRST;
	}
	return cmd->elsewhere;
}

/* What a client says in one breath means what it would mean line by line: a phase that hangs on what the warden says to a batch is
 * asked for before anything is answered. */
static enum reply
obey(struct smtp_session *s, const struct command *cmd, char *arg)
{
	enum reply r = R_NONE;

	if (s->batch_count > cmd->behind || ((unsigned)s->phase & cmd->phases) == 0) {
		smtp_settle(s);
	}
	if (((unsigned)s->phase & cmd->phases) != 0) {
		r = cmd->act(s, arg);
		if (r == R_NONE || s->batch_count == 0) {
			return r;
		}
		smtp_settle(s);
	}
	return ((unsigned)s->phase & cmd->phases) != 0 ? r : out_of_phase(s, cmd);
}

static enum reply
one_command(struct smtp_session *s)
{
	char *arg = strchr(s->line, ' ');
	size_t len = arg == NULL ? s->line_len : (size_t)(arg - s->line);

	arg = arg == NULL ? s->line + s->line_len : arg + strspn(arg, " ");
	/* White space at the end of a line means nothing (RFC 5321 4.1.1). */
	while (s->line_len > 0 && s->line + s->line_len > arg && s->line[s->line_len - 1] == ' ') {
		s->line[--s->line_len] = '\0';
	}
	for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
		const struct command *cmd = &commands[i];

		if (strlen(cmd->name) == len && ascii_casecmp(s->line, cmd->name, len) == 0) {
			return obey(s, cmd, arg);
		}
	}
	return R_UNKNOWN;
}

static void
greet(struct smtp_session *s)
{
	char mem[320];
	struct buf b;

	if (s->info->profile == PROFILE_INSIDE && !s->info->relayclient) {
		smtp_bye(s, R_NOT_LISTED, NOTE_NOT_LISTED, 0);
	}
	buf_init(&b, mem, sizeof mem);
	buf_fmt(&b, "220 %s ESMTP", s->info->greeting);
	smtp_say(s, buf_cstr(&b));
}

void
smtp_setup_tls(struct conn *c, const struct cert_chain *chain)
{
	conn_setup_tls(c, chain, &tls_warden);
}

void
smtp_prepare(const struct smtp_info *info, struct conn *c, const struct cert_chain *chain, int sock)
{
	struct smtp_session *s = &session;

	s->info = info;
	s->c = c;
	s->sock = sock;
	c->watch = sock;
	c->watch_for = ACCOUNTS ? POLLIN : 0; /* it says nothing unasked */
	s->file = -1;
	s->phase = PH_START;
	if (info->tls_ready && c->chain != chain) {
		smtp_setup_tls(c, chain);
	}
}

void
smtp_run(void)
{
	struct smtp_session *s = &session;
	int login_needed = s->info->profile == PROFILE_SUBMISSION || s->info->profile == PROFILE_SUBMISSIONS;

	s->start = mono_ms();
	s->c->deadline = s->start + (login_needed ? TIMEOUT_LOGIN : TIMEOUT_SESSION) * INT64_C(1000);
	if (s->info->profile == PROFILE_SUBMISSIONS) {
		if (!s->info->tls_ready) {
			smtp_bye(s, R_NONE, NOTE_TLS_FAILED, 0);
		}
		start_tls(s);
	}
	greet(s);
	for (;;) {
		if (smtp_read_line(s, SMTP_COMMAND_MAX) == -1) {
			smtp_say_reply(s, R_LINE_LONG);
			continue;
		}
		smtp_say_reply(s, one_command(s));
		if (!conn_line_pending(s->c)) {
			smtp_settle(s);
		}
		if (s->phase == PH_BDAT) {
			smtp_check_rate(s); /* between chunks time counts, too */
		}
	}
}
