/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The warden's logins: may this session try one, whose turn is it, what does the RADIUS server say, what is logged of it, and what stays of it, in
 * the session and in what all sessions know of addresses and accounts that are guessed at. What smtp is told is a verdict.
 *
 * Name and password are a stranger's octets, in fields of a message. Whether RADIUS may be asked about them is found out first, and nothing else is
 * made of them; the password is wiped as soon as it has been asked, and never logged.
 */
#include "wardenint.h"

#include "acct.h"
#include "guess.h"
#include "parse.h"
#include "radius.h"
#include "str.h"

#include <string.h>
#include <time.h>

static void
log_auth(const struct warden *w, const struct msg_auth *m, const struct radius_answer *a, const char *result)
{
	struct log_line l;

	log_begin(&l, a->result == RADIUS_ACCEPT ? LOG_INFO : LOG_NOTICE, "auth");
	log_str(&l, "sid", w->info.session);
	log_str(&l, "client", w->client);
	log_mem(&l, "user", m->user, m->user_len);
	log_str(&l, "mech", m->mechanism == SASL_LOGIN ? "LOGIN" : "PLAIN");
	log_str(&l, "result", result);
	radius_log_answer(&l, &w->house->config->radius, a);
	log_end(&l);
}

static void
ask_radius(const struct warden *w, struct msg_auth *m, struct radius_answer *a)
{
	const struct session *se = w->session;
	char called[ADDR_TEXT_MAX + 32];
	char local[ADDR_TEXT_MAX];
	struct buf b;
	struct radius_query q = { .user = m->user,
		.password = m->pass,
		.client = w->client,
		.called = called,
		.nas = w->house->config->me,
		.session = w->info.session };

	buf_init(&b, called, sizeof called);
	buf_fmt(&b, "%s %s:%u", profile_name(w->info.profile), addr_text(&se->local, local), se->local_port);
	buf_cstr(&b);
	m->user[m->user_len] = '\0';
	m->pass[m->pass_len] = '\0';
	radius_ask(
	    &w->house->config->radius, w->house->config->secrets, w->house->share, w->house->radius_generation, &q, a);
}

/* A signal ends it early. */
static void
sleep_ms(unsigned ms)
{
	struct timespec ts = { .tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000 };

	nanosleep(&ts, NULL);
}

/* An address that has failed too often gets no further session for a while: what main asks guess_banned(). */
static void
log_ban(const struct warden *w)
{
	struct log_line l;

	warden_event(&l, w, LOG_WARNING, "ban");
	log_num(&l, "fails", BAN_FAILS);
	log_num(&l, "seconds", PENALTY_SECONDS);
	log_end(&l);
}

/* Wait before "no", longer with each failure of this address: guessing gets slow, a typing error hardly. */
static void
delay_refusal(const struct warden *w)
{
	uint32_t fails = share_fail(w->house->share, &w->session->client);

	if (GUESSING && fails == BAN_FAILS) {
		log_ban(w);
	}
	sleep_ms((unsigned)AUTH_FAIL_DELAY_MS << (fails > 4 ? 3 : fails - 1));
}

/* What comes of a login, into *a: from the RADIUS server, when it is this one's turn to ask. -1: it will not be soon enough. */
static int
try_login(struct warden *w, struct msg_auth *m, struct radius_answer *a)
{
	int ms;

	if (!parse_login_ok(m->user, m->user_len, m->pass, m->pass_len)) {
		a->why = "name or password is empty, too long or not text";
		return 0;
	}
	m->user[m->user_len] = '\0';
	ms = guess_wait(w->house->share, m->user, &w->session->client);
	if (ms == -1) {
		a->result = RADIUS_LATER;
		a->why = "strangers guess at this account, and too many wait for their turn";
		return -1;
	}
	sleep_ms((unsigned)ms);
	if (!radius_stop) {
		ask_radius(w, m, a);
	}
	if (a->result == RADIUS_LATER) {
		a->why = radius_trouble_text(a->trouble);
	} else if (a->result == RADIUS_REJECT && !radius_stop) {
		guess_failed(w->house->share, m->user, &w->session->client);
	}
	return 0;
}

int
warden_login(struct warden *w, struct msg_auth *m, enum verdict *v)
{
	struct radius_answer a = { .result = RADIUS_REJECT, .server = -1, .service = -1 };
	int asked;

	if (m->user_len >= sizeof m->user || m->pass_len >= sizeof m->pass || w->loggedin ||
	    w->auth_fails >= AUTH_TRIES_MAX || (w->info.profile == PROFILE_INSIDE && !AUTH_PLAINTEXT_INSIDE)) {
		return -1;
	}
	asked = try_login(w, m, &a) == 0;
	explicit_bzero(m->pass, sizeof m->pass);
	if (radius_stop) {
		return -1;
	}
	switch (a.result) {
	case RADIUS_ACCEPT:
		memcpy(w->user, m->user, m->user_len);
		w->user[m->user_len] = '\0';
		/* The password was right, whatever comes of it. */
		share_forgive(w->house->share, &w->session->client);
		guess_went_well(w->house->share, w->user, &w->session->client);
		*v = account_login(w, &a, &a.why);
		if (ACCOUNTS && *v != V_OK) {
			w->user[0] = '\0';
			log_auth(w, m, &a, "later");
			share_count(w->house->share, COUNT_LOGIN_LATER, 1);
			break;
		}
		log_auth(w, m, &a, "accept");
		share_count(w->house->share, COUNT_LOGINS, 1);
		w->loggedin = 1;
		atomic_store(&w->house->share->slot[w->session->slot].loggedin, 1);
		acct_begin(w->house->share->run, w->info.session, w->client, w->user, &a, account_shared(w));
		break;
	case RADIUS_REJECT:
		*v = V_AUTH_REFUSED;
		w->auth_fails++;
		log_auth(w, m, &a, "reject");
		share_count(w->house->share, COUNT_LOGIN_FAILS, 1);
		delay_refusal(w);
		break;
	default:
		*v = asked ? V_AUTH_LATER : V_AUTH_TURN;
		w->auth_fails += !asked;
		log_auth(w, m, &a, "later");
		share_count(w->house->share, COUNT_LOGIN_LATER, 1);
		break;
	}
	return 0;
}
