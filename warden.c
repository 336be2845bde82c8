/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The monitor of one session.
 *
 * User USER_SPOOL, with the spool as its root directory; descriptors: the socket to smtp, the log, the shared map, and while they last
 * a message file and a UDP socket. Holds the TLS key and the RADIUS secrets. Never parses what a stranger sent: it gets fixed-size
 * messages from smtp and treats smtp as the stranger. Whatever smtp claims, the table below says when it may ask, and the state here,
 * not smtp's word, decides. One who took over smtp can send mail that this session could send anyway, and hear "no" to the rest.
 */
#include "wardenint.h"

#include "acct.h"
#include "cert.h"
#include "str.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define NOTES_MAX 64 /* log lines of a kind that a session may cause */

static struct warden warden;

/* ---- log lines ---- */

void
warden_event(struct log_line *l, const struct warden *w, int prio, const char *ev)
{
	log_begin(l, prio, ev);
	log_str(l, "sid", w->info.session);
	log_str(l, "client", w->client);
	if (w->loggedin) {
		log_str(l, "user", w->user);
	}
}

static void
log_refusal(struct warden *w, const char *at, enum verdict v, const char *addr)
{
	static const char *const words[V_COUNT] = {
		[V_NEED_LOGIN] = "login-required",
		[V_SENDER_REFUSED] = "badmailfrom",
		[V_NO_RELAY] = "relay-denied",
		[V_UNQUALIFIED] = "domain-unqualified",
		[V_BAD_ADDRESS] = "bad-address",
		[V_TOO_MANY_RCPT] = "too-many-recipients",
		[V_TOO_BIG] = "too-big",
		[V_NO_SPACE] = "no-space",
		[V_NO_CLOCK] = "clock-not-set",
		[V_SPOOL_ERROR] = "spool-error",
#if ACCOUNTS
		[V_LIMIT_DAY] = "limit-day",
		[V_LIMIT_RCPT] = "limit-rcpt",
		[V_LIMIT_RATE] = "limit-rate",
		[V_BLOCKED] = "blocked",
		[V_MAY_NOT_SEND] = "may-not-send",
		[V_NOT_HIS_SENDER] = "sender-not-allowed",
		[V_NO_COUNTS] = "no-counts",
#endif
	};
	struct log_line l;

	if (++w->refused > NOTES_MAX) {
		return; /* the last line has their number */
	}
	warden_event(&l, w, LOG_NOTICE, "refuse");
	log_str(&l, "at", at);
	log_str(&l, "reason", words[v]);
	log_str(&l, "addr", addr);
	log_end(&l);
}

static void
log_spool_error(struct warden *w, const char *doing)
{
	struct log_line l;
	int saved = errno;

	if (++w->troubles > NOTES_MAX) {
		return;
	}
	warden_event(&l, w, LOG_ERR, "spool");
	log_text(&l, "msg", doing);
	log_text(&l, "error", strerror(saved));
	log_end(&l);
}

/* ---- answers ---- */

/* All answers to one message from smtp go back in one. `fd`: a descriptor to go with them, or -1. */
static int
answer(struct warden *w, const void *m, size_t len, int fd)
{
	if (len > sizeof w->out - w->out_len) {
		return -1;
	}
	memcpy(w->out + w->out_len, m, len);
	w->out_len += len;
	if (fd != -1) {
		w->out_fd = fd;
	}
	return 0;
}

static int
answer_verdict(struct warden *w, uint32_t type, enum verdict v, int fd)
{
	struct msg_verdict r = { .type = type, .verdict = (uint32_t)v };

	return answer(w, &r, sizeof r, fd);
}

static void
count(const struct warden *w, enum ctl_count what, uint32_t n)
{
	share_count(w->house->share, what, n);
}

/* ---- TLS and login ---- */

static int
on_sign(struct warden *w, union msg_any *m)
{
	struct msg_sign_reply r;

	memset(&r, 0, sizeof r);
	r.type = MSG_SIGN;
	if (m->sign.len > sizeof m->sign.hash || w->house->config->chain.key_type == 0) {
		return -1;
	}
	r.len = (uint32_t)cert_sign(
	    &w->house->config->secrets->key, m->sign.hash_id, m->sign.hash, m->sign.len, r.sig, sizeof r.sig);
	return answer(w, &r, sizeof r, -1);
}

static int
on_tlsget(struct warden *w, union msg_any *m)
{
	struct msg_tlssession r;
	int rc;

	memset(&r, 0, sizeof r);
	r.type = MSG_TLSGET;
	r.found =
	    (uint32_t)share_tls_get(w->house->share, &w->session->client, m->tlsget.id, r.master, &r.version, &r.suite);
	rc = answer(w, &r, sizeof r, -1);
	explicit_bzero(&r, sizeof r);
	return rc;
}

static int
on_tlsput(struct warden *w, union msg_any *m)
{
	share_tls_put(w->house->share, &w->session->client, m->tlssession.id, m->tlssession.master,
	    m->tlssession.version, m->tlssession.suite);
	return 0;
}

static int
on_tlsup(struct warden *w, union msg_any *m)
{
	struct log_line l;

	count(w, COUNT_TLS, !w->tls);
	w->tls = 1;
	w->tls_version = m->tlsup.version;
	w->tls_suite = m->tlsup.suite;
	w->resumed = m->tlsup.resumed != 0;
	warden_event(&l, w, LOG_INFO, "tls");
	log_str(&l, "version", tls_version_name(w->tls_version));
	log_str(&l, "cipher", tls_suite_name(w->tls_suite));
	log_num(&l, "resumed", w->resumed);
	log_end(&l);
	return 0;
}

static int
on_auth(struct warden *w, union msg_any *any)
{
	enum verdict v;

	return warden_login(w, &any->auth, &v) == -1 ? -1 : answer_verdict(w, MSG_AUTH, v, -1);
}

/* ---- the transaction ---- */

static void
reset(struct warden *w)
{
	spool_abort(&w->spool);
	w->state = WS_OPEN;
	w->env.sender[0] = '\0';
	w->env.rcpts = 0;
	w->env.len = 0;
}

/* Copy an address out of a message: printable or 8-bit octets only, whatever smtp has let through. 0 or -1. */
static int
take_address(char *dst, size_t size, const char *p, uint32_t len)
{
	if (len > SMTP_PATH_MAX || len >= size) {
		return -1;
	}
	for (uint32_t i = 0; i < len; i++) {
		uint8_t c = (uint8_t)p[i];

		if (c < 32 || c == 127) {
			return -1;
		}
	}
	memcpy(dst, p, len);
	dst[len] = '\0';
	return 0;
}

/* May this session send to any domain? The one decision all the rest is for. */
static int
may_relay(const struct warden *w)
{
	if (w->loggedin) {
#if ACCOUNTS
		return w->limits.relay;
#else
		return 1;
#endif
	}
	if (w->info.profile == PROFILE_SUBMISSION || w->info.profile == PROFILE_SUBMISSIONS) {
		return 0;
	}
	return w->session->client_policy.relay;
}

static enum verdict
judge_sender(struct warden *w, const struct msg_mail *m)
{
	const struct listen_conf *listen = w->session->listen;
	const struct config *config = w->house->config;
	enum verdict v;
	int room;

	if (w->info.profile != PROFILE_SMTP && !may_relay(w)) {
		return account_needs(w);
	}
	if (!ACCEPT_WITHOUT_CLOCK && time(NULL) < BUILD_EPOCH) {
		return V_NO_CLOCK;
	}
	if (policy_badmailfrom(config, w->env.sender)) {
		return V_SENDER_REFUSED;
	}
	if (listen->from[0] != '\0') {
		str_copy(w->env.sender, sizeof w->env.sender, listen->from);
	}
	if (w->env.sender[0] != '\0' && may_relay(w) && !policy_qualified(w->env.sender)) {
		return V_UNQUALIFIED;
	}
	v = account_sender(w);
	if (v != V_OK) {
		return v;
	}
	if (w->info.databytes != 0 && m->size > w->info.databytes) {
		return V_TOO_BIG;
	}
	room = spool_room(&w->spool, m->size);
	return room == 0 ? V_OK : (enum verdict)room;
}

static int
on_mail(struct warden *w, union msg_any *any)
{
	enum verdict v;

	if (take_address(w->env.sender, sizeof w->env.sender, any->mail.addr, any->mail.len) == -1) {
		return -1;
	}
	v = judge_sender(w, &any->mail);
	if (v == V_OK) {
		w->state = WS_MAIL;
		w->size = any->mail.size;
		w->utf8 = any->mail.utf8 != 0;
	} else {
		w->refused_before = 1;
		log_refusal(w, "mail", v, w->env.sender);
	}
	return answer_verdict(w, MSG_MAIL, v, -1);
}

/* `rcpt` becomes what goes into the envelope. */
static enum verdict
judge_recipient(struct warden *w, char *rcpt, size_t size)
{
	size_t len = strlen(rcpt);
	const char *append = w->loggedin ? "" : w->session->client_policy.append;

	if (strchr(rcpt, '@') == NULL) {
		/* RFC 5321 4.5.1: postmaster needs no domain. */
		if (ascii_strcasecmp(rcpt, "postmaster") != 0 || len + 1 + strlen(w->info.me) >= size) {
			return V_BAD_ADDRESS;
		}
		rcpt[len] = '@';
		str_copy(rcpt + len + 1, size - len - 1, w->info.me);
	} else if (may_relay(w)) {
		/* RELAYCLIENT's value goes behind every recipient, as with qmail-smtpd. */
		if (str_copy(rcpt + len, size - len, append) == -1) {
			return V_BAD_ADDRESS;
		}
		if (!policy_qualified(rcpt)) {
			return V_UNQUALIFIED;
		}
	} else if (!policy_rcpthost(w->house->config, rcpt)) {
		return V_NO_RELAY;
	}
	if (w->env.rcpts >= SMTP_RCPT_MAX || w->env.len + strlen(rcpt) + 2 > sizeof w->env.to) {
		return V_TOO_MANY_RCPT;
	}
	return account_ask(w, w->env.rcpts + 1);
}

static int
on_rcpt(struct warden *w, union msg_any *any)
{
	char rcpt[SMTP_PATH_MAX + 264];
	enum verdict v;

	if (take_address(rcpt, sizeof rcpt, any->rcpt.addr, any->rcpt.len) == -1 || rcpt[0] == '\0') {
		return -1;
	}
	v = judge_recipient(w, rcpt, sizeof rcpt);
	if (v == V_OK) {
		size_t n = strlen(rcpt) + 1;

		w->env.to[w->env.len] = 'T';
		memcpy(w->env.to + w->env.len + 1, rcpt, n);
		w->env.len += n + 1;
		w->env.rcpts++;
		w->state = WS_RCPT;
	} else {
		w->refused_before = 1;
		log_refusal(w, "rcpt", v, rcpt);
		acct_rejected();
	}
	return answer_verdict(w, MSG_RCPT, v, -1);
}

/* RFC 3848 and RFC 6531 names. */
static const char *
protocol(const struct warden *w, char name[16])
{
	struct buf b;

	buf_init(&b, name, 16);
	if (w->utf8) {
		buf_str(&b, "UTF8SMTP");
	} else {
		buf_str(&b, w->esmtp || w->tls || w->loggedin ? "ESMTP" : "SMTP");
	}
	buf_str(&b, w->tls ? "S" : "");
	buf_str(&b, w->loggedin ? "A" : "");
	return buf_cstr(&b);
}

/* The network's Received lines (qmail-spec 2.4; RFC 5321 4.4; RFC 8314 4.3 for the tls clause). */
static void
add_trace(struct buf *b, const struct warden *w, const char *helo, size_t helo_len, int64_t now)
{
	const char *host = w->session->host == NULL ? "unknown" : w->session->host;
	char proto[16];

	buf_str(b, "Received: from ");
	if (RECEIVED_HIDE_CLIENT) {
		buf_str(b, "unknown");
	} else {
		buf_safe(b, host, strlen(host));
		if (helo_len != strlen(host) || ascii_casecmp(helo, host, helo_len) != 0) {
			buf_str(b, " (HELO ");
			buf_safe(b, helo, helo_len);
			buf_ch(b, ')');
		}
		buf_str(b, " (");
		if (w->loggedin || w->session->info != NULL) {
			const char *who = w->loggedin ? w->user : w->session->info;

			buf_safe(b, who, strlen(who));
			buf_ch(b, '@');
		}
		buf_safe(b, w->client, strlen(w->client));
		buf_ch(b, ')');
	}
	buf_fmt(b, "\n  by %s with %s", w->info.me, protocol(w, proto));
	if (w->tls) {
		buf_fmt(b, " (%s)", tls_version_name(w->tls_version));
	}
	buf_fmt(b, " id %llu", (unsigned long long)w->spool.id);
	if (w->tls) {
		buf_fmt(b, " tls %s", tls_suite_name(w->tls_suite));
	}
	buf_str(b, "; ");
	buf_date(b, now);
	buf_ch(b, '\n');
}

static enum verdict
verdict_of_errno(int error)
{
	return error == ENOSPC || error == EDQUOT ? V_NO_SPACE : V_SPOOL_ERROR;
}

static int
on_data(struct warden *w, union msg_any *any)
{
	char mem[2048];
	struct buf head;
	int64_t now = time(NULL);
	enum verdict v = V_OK;
	int room, fd = -1;

	if (any->data.helo_len >= sizeof any->data.helo) {
		return -1;
	}
	w->esmtp = any->data.esmtp != 0;
	v = account_ask(w, w->env.rcpts);
	if (ACCOUNTS && v != V_OK) {
		log_refusal(w, "data", v, NULL);
		return answer_verdict(w, MSG_DATA, v, -1);
	}
	/* Others may have filled the disk since MAIL; and a Maildir takes a copy for each recipient. */
	room = spool_room(&w->spool, w->size * (w->spool.kind == SPOOL_MAILDIR ? w->env.rcpts : 1));
	if (room != 0) {
		log_refusal(w, "data", (enum verdict)room, NULL);
		return answer_verdict(w, MSG_DATA, (enum verdict)room, -1);
	}
	buf_init(&head, mem, sizeof mem);
	if (spool_begin(&w->spool, &w->env, &head, now) == -1) {
		v = verdict_of_errno(errno);
		log_spool_error(w, "cannot make a message file");
	} else {
		add_trace(&head, w, any->data.helo, any->data.helo_len, now);
		if (head.full || write_all(w->spool.fd, head.p, head.len) == -1 || (fd = spool_lend(&w->spool)) == -1) {
			v = verdict_of_errno(errno);
			log_spool_error(w, "cannot write a message file");
			spool_abort(&w->spool);
		}
	}
	if (v != V_OK) {
		log_refusal(w, "data", v, NULL);
		return answer_verdict(w, MSG_DATA, v, -1);
	}
	w->state = WS_DATA;
	return answer_verdict(w, MSG_DATA, V_OK, fd);
}

/* What smtp has written: not more than allowed, and ending with LF, or qmail-remote could never deliver it. */
static enum verdict
check_file(const struct warden *w)
{
	struct stat st;
	char last = '\0';

	if (fstat(w->spool.fd, &st) == -1 || pread(w->spool.fd, &last, 1, st.st_size - 1) != 1 || last != '\n') {
		return V_SPOOL_ERROR;
	}
	if (w->info.databytes != 0 && (uint64_t)st.st_size > w->info.databytes + spool_head_max(&w->spool)) {
		return V_TOO_BIG;
	}
	return V_OK;
}

static void
log_accept(const struct warden *w, uint64_t octets)
{
	struct log_line l;
	char proto[16];

	warden_event(&l, w, LOG_INFO, "accept");
	log_fmt(&l, "qid", "%llu", (unsigned long long)w->spool.id);
	log_num(&l, "qp", getpid());
	log_num(&l, "rcpts", w->env.rcpts);
	log_fmt(&l, "bytes", "%llu", (unsigned long long)octets);
	log_str(&l, "proto", protocol(w, proto));
	/* The long ones last: a line that gets too long loses its end. */
	log_fmt(&l, "from", "<%s>", w->env.sender);
	log_fmt(&l, "to", "<%s>", w->env.to + 1);
	log_end(&l);
}

static int
on_commit(struct warden *w, union msg_any *any)
{
	struct msg_commit_reply r;
	enum verdict v;

	/* What is acknowledged must stay as it is: nobody who could still write to it may be left. */
	if (!spool_returned(&w->spool)) {
		return -1;
	}
	v = check_file(w);
	if (v == V_OK) {
		v = account_book(w, &any->commit);
	}
	if (v == V_OK && spool_commit(&w->spool, &w->env) == -1) {
		account_unbook(w);
		v = verdict_of_errno(errno);
		log_spool_error(w, "cannot make a message durable");
	}
	memset(&r, 0, sizeof r);
	r.type = MSG_COMMIT;
	r.verdict = (uint32_t)v;
	r.time = time(NULL);
	r.pid = (uint32_t)getpid();
	r.qid = w->spool.id;
	if (v == V_OK) {
		w->messages++;
		w->recipients += w->env.rcpts;
		w->octets += any->commit.octets;
		count(w, COUNT_MESSAGES, 1);
		count(w, COUNT_RCPTS, w->env.rcpts);
		count(w, COUNT_KIB, (uint32_t)((any->commit.octets + 1023) / 1024));
		log_accept(w, any->commit.octets);
		acct_message(w->env.rcpts, any->commit.octets);
	} else {
		count(w, COUNT_REJECTED, 1);
		log_refusal(w, "commit", v, NULL);
	}
	reset(w);
	return answer(w, &r, sizeof r, -1);
}

static int
on_reset(struct warden *w, union msg_any *any)
{
	(void)any;
	/* Or files that are gone would pile up, open or on their way; and so many of them that no session gets another one. */
	if (w->state == WS_DATA && !spool_returned(&w->spool)) {
		return -1;
	}
	reset(w);
	return 0;
}

/* ---- notes ---- */

static const struct {
	const char *word;
	int ends; /* the session */
	const char *text;
} notes[NOTE_COUNT] = {
	[NOTE_QUIT] = { "quit", 1, NULL },
	[NOTE_EOF] = { "eof", 1, NULL },
	[NOTE_TIMEOUT] = { "timeout", 1, NULL },
	[NOTE_SHUTDOWN] = { "shutdown", 1, NULL },
	[NOTE_NOT_LISTED] = { "not-listed", 1,
	    "an inside listener, and this address is in neither relayclients nor tcp.smtp.cdb" },
	[NOTE_AUTH_TRIES] = { "auth-tries", 1, "too many failed logins in one session" },
	[NOTE_BAD_COMMANDS] = { "bad-commands", 1, NULL },
	[NOTE_TLS_FAILED] = { "tls-failed", 1, "TLS handshake or record failed" },
	[NOTE_TLS_INJECTION] = { "tls-injection", 1, "octets after STARTTLS" },
	[NOTE_BARE_LINE_END] = { "bare-line-end", 1, "bare CR, bare LF or NUL" },
	[NOTE_TOO_SLOW] = { "too-slow", 1, "message below the least data rate" },
	[NOTE_AUTH_MALFORMED] = { "auth-malformed", 0, "AUTH response is not what the mechanism wants" },
	[NOTE_MESSAGE_TOO_BIG] = { "too-big", 0, "message over the size limit" },
	[NOTE_LOOP] = { "loop", 0, "too many Received lines" },
	[NOTE_SPOOL_WRITE] = { "spool-write", 0, "message file cannot be written" },
};

static int
on_note(struct warden *w, union msg_any *any)
{
	struct log_line l;
	uint32_t kind = any->note.kind;

	if (kind == 0 || kind >= NOTE_COUNT) {
		return -1;
	}
	if (notes[kind].ends) {
		w->why = (enum note_kind)kind;
	}
	if (notes[kind].text == NULL || w->count[MSG_NOTE] > NOTES_MAX) {
		return 0;
	}
	warden_event(&l, w, LOG_NOTICE, "note");
	log_str(&l, "kind", notes[kind].word);
	log_num(&l, "number", any->note.number);
	log_text(&l, "msg", notes[kind].text);
	log_end(&l);
	return 0;
}

const char *
warden_why(const struct warden *w)
{
	return notes[w->why].word;
}

/* ---- the gate ---- */

#define MANY UINT32_MAX

/* Which request may come when, how often in a session, and how long it is. Everything else ends the pair. */
static const struct request {
	size_t size;
	unsigned states;
	unsigned most;
	int (*act)(struct warden *w, union msg_any *m);
	int batch; /* may stand in one message with others of these */
} requests[MSG_COUNT] = {
	[MSG_SIGN] = { sizeof(struct msg_sign), WS_OPEN, 1, on_sign, 0 },
	[MSG_TLSGET] = { sizeof(struct msg_tlsget), WS_OPEN, 1, on_tlsget, 0 },
	[MSG_TLSPUT] = { sizeof(struct msg_tlssession), WS_OPEN, 1, on_tlsput, 0 },
	[MSG_TLSUP] = { sizeof(struct msg_tlsup), WS_OPEN, 1, on_tlsup, 0 },
	[MSG_AUTH] = { sizeof(struct msg_auth), WS_OPEN, AUTH_REQUESTS_MAX, on_auth, 0 },
	[MSG_MAIL] = { sizeof(struct msg_mail), WS_OPEN, MANY, on_mail, 1 },
	[MSG_RCPT] = { sizeof(struct msg_rcpt), WS_MAIL | WS_RCPT, MANY, on_rcpt, 1 },
	[MSG_DATA] = { sizeof(struct msg_data), WS_RCPT, MANY, on_data, 1 },
	[MSG_COMMIT] = { sizeof(struct msg_commit), WS_DATA, MANY, on_commit, 0 },
	[MSG_RESET] = { sizeof(struct msg_simple), WS_ANY, MANY, on_reset, 0 },
	[MSG_NOTE] = { sizeof(struct msg_note), WS_ANY, MANY, on_note, 0 },
};

/* The request at the start of p[0..len), or NULL when there is none of the right length. */
static const struct request *
request_at(const uint8_t *p, size_t len, uint32_t *type)
{
	if (len < sizeof *type) {
		return NULL;
	}
	memcpy(type, p, sizeof *type);
	if (*type >= MSG_COUNT || requests[*type].act == NULL || len < requests[*type].size) {
		return NULL;
	}
	return &requests[*type];
}

/* Whether a message is one request, or some that may come together, and nothing else. */
static int
well_formed(const uint8_t *p, size_t len)
{
	const struct request *r;
	uint32_t type;
	unsigned n = 0;

	for (size_t pos = 0; pos < len || n == 0; pos += r->size) {
		r = request_at(p + pos, len - pos, &type);
		if (r == NULL || (!r->batch && r->size != len) || n++ == BATCH_MAX) {
			return 0;
		}
	}
	return 1;
}

static int
act(struct warden *w, const struct request *r, uint32_t type, const uint8_t *p)
{
	static union msg_any m;

	if (w->count[type] >= r->most) {
		return -1;
	}
	w->count[type]++;
	if (((unsigned)w->state & r->states) == 0) {
		/* smtp could not know yet that what came before would be refused. */
		return w->refused_before ? answer_verdict(w, type, V_SKIPPED, -1) : -1;
	}
	memcpy(&m, p, r->size);
	return r->act(w, &m);
}

/* A descriptor that was in an answer is smtp's alone. */
static int
drop_fd(struct warden *w, int rc)
{
	if (w->out_fd != -1) {
		close(w->out_fd);
		w->out_fd = -1;
	}
	return rc;
}

int
warden_dispatch(struct warden *w, const void *p, size_t len)
{
	const struct request *r;
	uint32_t type;
	int rc;

	if (!well_formed(p, len)) {
		return -1;
	}
	w->out_len = 0;
	w->out_fd = -1;
	w->refused_before = 0;
	for (size_t pos = 0; pos < len; pos += r->size) {
		r = request_at((const uint8_t *)p + pos, len - pos, &type);
		if (r == NULL || act(w, r, type, (const uint8_t *)p + pos) == -1) {
			return drop_fd(w, -1);
		}
	}
	rc = w->out_len == 0 ? 0 : msg_send(w->sock, w->out, w->out_len, w->out_fd);
	if (rc == -1 && errno != EPIPE && errno != ECONNRESET) {
		log_spool_error(w, "cannot answer smtp");
	}
	explicit_bzero(w->out, w->out_len);
	account_tend(w);
	return drop_fd(w, rc == 0 ? 0 : 1);
}

void
session_name(struct session *se)
{
	static const char hex[] = "0123456789abcdef";
	uint8_t r[8];

	random_bytes(r, sizeof r);
	for (size_t k = 0; k < sizeof r; k++) {
		se->sid[2 * k] = hex[r[k] >> 4];
		se->sid[2 * k + 1] = hex[r[k] & 15];
	}
	se->sid[16] = '\0';
}

void
session_info(struct smtp_info *i, const struct config *c, const struct session *se)
{
	i->profile = se->listen->profile;
	i->relayclient = se->client_policy.relay;
	i->tls_ready = c->chain.key_type != 0;
	i->databytes = se->client_policy.databytes;
	str_copy(i->me, sizeof i->me, c->me);
	str_copy(i->greeting, sizeof i->greeting, c->greeting);
	str_copy(i->session, sizeof i->session, se->sid);
}

struct warden *
warden_init(const struct house *h, struct session *se)
{
	struct warden *w = &warden;

	w->house = h;
	w->session = se;
	w->state = WS_OPEN;
	w->why = NOTE_EOF;
	w->start = mono_ms();
	w->sock = -1;
	w->spool = h->spool;
	w->spool.fd = -1;
	w->spool.uid = h->ids.smtp_uid;
	w->spool.host = h->config->me;
	w->spool.prefix = h->config->spool_prefix;
	addr_text(&se->client, w->client);
	session_info(&w->info, h->config, se);
	return w;
}

struct warden *
warden_for_test(const struct house *h, struct session *se, int sock)
{
	struct warden *w;

	session_name(se);
	w = warden_init(h, se);
	w->sock = sock;
	return w;
}
