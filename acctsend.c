/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The accountant: sends what the file of accounting (acct.h) has and the server has not acknowledged yet. One server at a time is asked; when it
 * is silent, the next one. Each repeat is a new packet, since Acct-Delay-Time changes (RFC 2866 5.2), after a wait that doubles and varies
 * (RFC 5080 2.2.1). Nothing is given up but for want of places; the file says again what is to be sent after any kind of end.
 *
 * User USER_SPOOL, an empty root directory, a warden's system call filter. Reads replies off the network: their seal first.
 */
#include "accountant.h"

#if ACCOUNTING

#include "acct.h"
#include "acctpack.h"
#include "clerk.h"
#include "control.h"
#include "keeper.h"
#include "log.h"
#include "radius.h"
#include "secret.h"
#include "share.h"
#include "str.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define FLIGHTS 16
#define WAIT_MAX_MS 16000
#define LOOK_MS 5000  /* sessions whose warden is gone are looked for */
#define SYNC_MS 30000 /* what has changed is made safe from a power cut */
#define SILENT_MAX_MS 60000
#define ON_OFF ACCT_PLACES /* `place` of a flight that is about the whole box */

struct flight {
	enum acct_status status; /* STATUS_NONE: free */
	unsigned place;
	uint8_t id, auth[16];
	int tries, wait;
	int64_t first, next;
	struct acct_session s; /* as it is told */
};

static struct {
	const struct house *h;
	const struct radius_conf *conf;
	int sock;             /* connected to `server`, -1 = none */
	unsigned server;      /* index into conf */
	struct addr from, to; /* its ends */
	uint8_t next_id;
	int on;      /* Accounting-On is still to be told */
	int off;     /* 1: Accounting-Off is, 2: it has been */
	int probing; /* all have been silent: one record at a time */
	int silent_ms;
	int64_t again; /* not before that */
	int64_t look_at, sync_at;
	int64_t dead_until[RADIUS_SERVERS_MAX];
	int wrong, told;
	struct acct_session box; /* of On and Off */
	struct flight flight[FLIGHTS];
} me;

static volatile sig_atomic_t finish;

static void
on_int(int sig)
{
	(void)sig;
	finish = 1;
}

/* ---- servers ---- */

static void
forget_flights(void)
{
	for (unsigned i = 0; i < FLIGHTS; i++) {
		me.flight[i].status = STATUS_NONE;
	}
}

static void
hang_up(void)
{
	if (me.sock != -1) {
		close(me.sock);
		me.sock = -1;
	}
	forget_flights();
}

static int
connect_to(unsigned i)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof ss;
	uint16_t port;
	struct addr a;
	size_t n;

	if (radius_address(me.conf, me.h->share, me.h->radius_generation, i, &a) == -1) {
		return -1;
	}
	n = addr_to_sockaddr(&a, me.conf->server[i].acct_port, &ss);
	me.sock = socket(ss.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (me.sock == -1) {
		return -1;
	}
	if (connect(me.sock, (const struct sockaddr *)&ss, (socklen_t)n) == -1 ||
	    getsockname(me.sock, (struct sockaddr *)&ss, &len) == -1 ||
	    addr_from_sockaddr(&me.from, &port, (const struct sockaddr *)&ss) == -1) {
		close(me.sock);
		me.sock = -1;
		return -1;
	}
#if RADSEC
	/* That was only to learn which of our addresses it sees. */
	if (me.conf->server[i].tls != TLS_NONE) {
		close(me.sock);
		me.sock = keeper_channel(&me.conf->server[i]);
		if (me.sock == -1) {
			return -1;
		}
	}
#endif
	me.server = i;
	me.to = a;
	me.wrong = 0;
	return 0;
}

/* A connection to the first server that is not known to be silent; else, when it is time to try again, to any. */
static void
choose(int64_t now)
{
	for (int any = 0; any < 2 && me.sock == -1; any++) {
		me.probing = any;
		for (unsigned i = 0; i < me.conf->servers && me.sock == -1; i++) {
			if (me.conf->server[i].acct_port != 0 && (any ? now >= me.again : now >= me.dead_until[i])) {
				if (connect_to(i) == -1) {
					me.dead_until[i] = now + 1000;
				}
			}
		}
	}
	if (me.sock == -1 && now >= me.again) {
		me.again = now + 1000;
	}
}

static void
say(int prio, const char *trouble, const char *text)
{
	struct log_line l;

	log_begin(&l, prio, "acct");
	log_fmt(&l, "server", "%s:%u", me.conf->server[me.server].name, me.conf->server[me.server].acct_port);
	log_str(&l, "trouble", trouble);
	log_text(&l, "msg", text);
	log_end(&l);
}

/* The server does not answer: the next one is asked from now on; when none is left, all of them wait, longer each time. */
static void
silent(int64_t now)
{
	if (me.told < 2 || me.silent_ms < SILENT_MAX_MS) {
		say(LOG_WARNING, me.wrong ? "wrong-secret" : "no-answer",
		    me.wrong ? "its answers are made with another secret: what was sent is kept"
			     : "what was sent is kept");
		me.told++;
	}
	me.dead_until[me.server] = now + RADIUS_DEAD_SECONDS * INT64_C(1000);
	hang_up();
	for (unsigned i = 0; i < me.conf->servers; i++) {
		if (me.conf->server[i].acct_port != 0 && me.dead_until[i] <= now) {
			return;
		}
	}
	me.silent_ms = me.silent_ms == 0 ? 2000 : me.silent_ms * 2 < SILENT_MAX_MS ? me.silent_ms * 2 : SILENT_MAX_MS;
	me.again = now + me.silent_ms;
}

/* ---- sending ---- */

/* Seconds since that moment of the monotonic clock if it is of this run, else of the real-time clock, else 0. */
static uint32_t
seconds_since(int this_run, int64_t ms, int64_t real, int64_t now)
{
	int64_t t = this_run                        ? (now - ms) / 1000
	    : real == 0 || time(NULL) < BUILD_EPOCH ? 0
						    : (int64_t)time(NULL) - real;

	return t < 0 ? 0 : t > UINT32_MAX ? UINT32_MAX : (uint32_t)t;
}

static void
transmit(struct flight *f, int64_t now)
{
	static uint8_t packet[ACCT_PACKET_MAX];
	const struct acct_session *s = &f->s;
	int ours = s->run == me.h->share->run;
	struct acct_record r = { .status = f->status, .s = s, .nas = me.h->config->me, .from = &me.from };
	int64_t clock = (int64_t)time(NULL);
	size_t len;
	uint8_t vary;

	random_bytes(&vary, sizeof vary);
	f->id = me.next_id++; /* FLIGHTS are far fewer than there are */
	if (f->status == STATUS_START) {
		r.delay = seconds_since(ours, s->began, s->began_real, now);
	} else if (f->status == STATUS_STOP) {
		r.delay = seconds_since(ours, s->changed, s->changed_real, now);
	} else {
		r.delay = (uint32_t)((now - (f->status == STATUS_INTERIM ? f->first : s->began)) / 1000);
	}
	r.seconds = (uint32_t)(((f->status == STATUS_INTERIM ? f->first : s->changed) - s->began) / 1000);
	r.event = clock < BUILD_EPOCH ? 0 : clock - r.delay;
	len = acct_pack(packet, f->id, &r, me.h->config->secrets->radius[me.server]);
	memcpy(f->auth, packet + 4, sizeof f->auth);
	(void)send(me.sock, packet, len, MSG_NOSIGNAL); /* not sent is not answered */
	f->wait = f->tries++ == 0 ? me.conf->server[me.server].timeout * 1000 : f->wait * 2;
	f->wait = f->wait < WAIT_MAX_MS ? f->wait : WAIT_MAX_MS;
	f->next = now + f->wait + f->wait * (vary - 128) / 1280; /* +-10 % */
}

/* Send `s` as `status`, if there is room for one more on its way. 1 or 0. */
static int
launch(enum acct_status status, unsigned place, const struct acct_session *s, int64_t now)
{
	struct flight *f = NULL;
	unsigned n = 0;

	for (unsigned i = 0; i < FLIGHTS; i++) {
		if (me.flight[i].status == STATUS_NONE) {
			f = &me.flight[i];
		} else {
			n++;
		}
	}
	if (f == NULL || (me.probing && n > 0)) {
		return 0;
	}
	f->status = status;
	f->place = place;
	f->s = *s;
	f->tries = 0;
	f->first = now;
	transmit(f, now);
	return 1;
}

/* The warden of an open session is gone, and could not say so. */
static void
bury(unsigned i, struct acct_session *s)
{
	s->state = ACCT_ENDED;
	s->cause = s->run == me.h->share->run ? CAUSE_NAS_ERROR : CAUSE_NAS_REBOOT;
	acct_write_session(i, s);
}

static enum acct_status
what_is_due(const struct acct_place *p, int64_t now)
{
	const struct acct_session *s = &p->s;
	const struct acct_acked *a = &p->a;
	int same = memcmp(a->sid, s->sid, sizeof s->sid) == 0;
	int64_t since = same && a->at > s->began ? a->at : s->began;

	if (s->state == ACCT_FREE) {
		return STATUS_NONE;
	}
	if (!same || !a->start) {
		return STATUS_START;
	}
	if (s->state == ACCT_ENDED) {
		return a->stop ? STATUS_NONE : STATUS_STOP;
	}
	if ((s->keeps && (s->messages != a->messages || s->asked != a->asked)) ||
	    (s->interim != 0 && now - since >= s->interim * INT64_C(1000))) {
		return STATUS_INTERIM;
	}
	return STATUS_NONE;
}

static int
on_its_way(unsigned place)
{
	for (unsigned i = 0; i < FLIGHTS; i++) {
		if (me.flight[i].status != STATUS_NONE && me.flight[i].place == place) {
			return 1;
		}
	}
	return 0;
}

/* Look through the places: how many records are to be sent and could not be? When an Interim is due is told in *due. */
static unsigned
scan(int64_t now, int64_t *due)
{
	int look = now >= me.look_at;
	unsigned left = 0;
	struct acct_place p;

	me.look_at = look ? now + LOOK_MS : me.look_at;
	for (unsigned i = 0; i < ACCT_PLACES; i++) {
		enum acct_status status;

		if (!acct_read(i, &p) || p.s.state == ACCT_FREE) {
			continue;
		}
		if (p.s.state == ACCT_OPEN && (look || p.s.run != me.h->share->run) && !acct_held(i) &&
		    acct_read(i, &p) && p.s.state == ACCT_OPEN) {
			bury(i, &p.s);
		}
		if (p.s.state == ACCT_OPEN && p.s.interim != 0) {
			int64_t at = (p.a.at > p.s.began ? p.a.at : p.s.began) + p.s.interim * INT64_C(1000);

			*due = at > now && at < *due ? at : *due;
		}
		status = what_is_due(&p, now);
		if (status == STATUS_NONE || on_its_way(i)) {
			continue;
		}
		left += me.sock == -1 || !launch(status, i, &p.s, now);
	}
	return left;
}

/* ---- answers ---- */

static void
acknowledged(struct flight *f, const uint8_t *p, size_t len, int64_t now)
{
	struct acct_acked a;
	struct acct_place old;

	me.silent_ms = me.probing = me.told = 0;
	me.dead_until[me.server] = 0;
	if (f->place == ON_OFF) {
		me.on = 0;
		me.off = f->status == STATUS_OFF ? 2 : me.off;
		f->status = STATUS_NONE;
		return;
	}
	memset(&a, 0, sizeof a);
	if (acct_read(f->place, &old) && memcmp(old.a.sid, f->s.sid, sizeof a.sid) == 0) {
		a = old.a;
	} else {
		a.left = a.left_rcpt = LIMIT_NONE;
	}
	memcpy(a.sid, f->s.sid, sizeof a.sid);
	a.start = 1;
	a.stop |= f->status == STATUS_STOP;
	a.at = now;
	if (f->status != STATUS_START) {
		a.messages = f->s.messages;
		a.rcpts = f->s.rcpts;
		a.asked = f->s.asked;
		acct_left_of(p, len, &a.left, &a.left_rcpt);
	}
	acct_write_acked(f->place, &a);
	f->status = STATUS_NONE;
}

/* Is that the keeper's last word? Then 1, and there is no channel any more. */
static int
channel_ended(const uint8_t *p, size_t n, int64_t now)
{
	struct radius_answer note = { 0 };

	if (!keeper_note(p, n, &note)) {
		return 0;
	}
	/* A connection that was only closed is there again soon. */
	if (note.trouble == RADIUS_NO_KEEPER || (note.trouble == RADIUS_NETWORK && note.error == ECONNRESET)) {
		hang_up();
		me.dead_until[me.server] = now + 1000;
	} else {
		silent(now);
	}
	return 1;
}

static void
hear(int64_t now)
{
	static uint8_t p[4096];
	ssize_t n;

	/* A flood of them must not keep us from the rest. */
	for (int k = 0; k < 4 * FLIGHTS && (n = recv(me.sock, p, sizeof p, MSG_DONTWAIT)) >= 0; k++) {
		if (RADSEC && me.conf->server[me.server].tls != TLS_NONE && channel_ended(p, (size_t)n, now)) {
			return;
		}
		for (unsigned i = 0; i < FLIGHTS; i++) {
			struct flight *f = &me.flight[i];
			int good;

			if (f->status == STATUS_NONE) {
				continue;
			}
			good = acct_good(p, (size_t)n, f->id, f->auth, me.h->config->secrets->radius[me.server]);
			me.wrong |= good == -1;
			if (good == 1) {
				acknowledged(f, p, (size_t)n, now);
				break;
			}
		}
	}
}

/* Repeat what has not been answered. One that has been repeated often enough without an answer: the server is silent. */
static void
repeat(int64_t now, int64_t *due)
{
	for (unsigned i = 0; i < FLIGHTS; i++) {
		struct flight *f = &me.flight[i];

		if (f->status == STATUS_NONE) {
			continue;
		}
		if (f->next <= now && f->tries > me.conf->server[me.server].retries) {
			silent(now);
			*due = now;
			return;
		}
		if (f->next <= now) {
			transmit(f, now);
		}
		*due = f->next < *due ? f->next : *due;
	}
}

/* ---- the loop ---- */

static void
wait_until(int64_t until, int64_t now)
{
	struct pollfd p[2] = { { .fd = acct_bell(), .events = POLLIN }, { .fd = me.sock, .events = POLLIN } };
	static const sigset_t none;
	uint64_t rung;
	int64_t ms = until < now ? 0 : until - now > SYNC_MS ? SYNC_MS : until - now;
	struct timespec ts = { .tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000 };

	if (ppoll(p, 2, &ts, &none) > 0 && p[0].revents != 0) {
		ssize_t n = read(acct_bell(), &rung, sizeof rung);

		(void)n;
	}
}

/* Accounting-On before anything else; Off after everything else. 1: there is one to wait for. */
static int
about_the_box(int64_t now)
{
	if (me.sock == -1 || (!me.on && me.off != 1)) {
		return 0;
	}
	if (!on_its_way(ON_OFF)) {
		launch(me.on ? STATUS_ON : STATUS_OFF, ON_OFF, &me.box, now);
	}
	return 1;
}

static int
anything_on_its_way(void)
{
	for (unsigned i = 0; i < FLIGHTS; i++) {
		if (me.flight[i].status != STATUS_NONE) {
			return 1;
		}
	}
	return 0;
}

_Noreturn void
acct_send(const struct house *h, int on)
{
	int64_t end = INT64_MAX;

	me.h = h;
	me.conf = &h->config->radius;
	me.sock = -1;
	me.on = on;
	me.box.run = h->share->run;
	me.box.began = mono_ms();
	random_bytes(&me.next_id, sizeof me.next_id);
	clerk_signals(on_int);
	while (acct_alone() == -1) {
		poll(NULL, 0, 1000); /* another server on this host has the file */
	}
	me.sync_at = mono_ms() + SYNC_MS;
	for (;;) {
		int64_t now = mono_ms(), due = now + LOOK_MS;
		unsigned left;

		if (finish && end == INT64_MAX) {
			end = now + ACCT_FINISH_SECONDS * INT64_C(1000);
			me.look_at = 0;
		}
		choose(now);
		if (me.sock != -1) {
			hear(now);
			repeat(now, &due);
		}
		left = me.on && about_the_box(now) ? 1 : scan(now, &due);
		if (end != INT64_MAX && left == 0 && !anything_on_its_way()) {
			if (me.off == 2) {
				break;
			}
			me.box.began = me.off == 0 ? now : me.box.began;
			me.off = 1;
			about_the_box(now);
		}
		if (now >= end) {
			break;
		}
		if (now >= me.sync_at) {
			acct_sync();
			me.sync_at = now + SYNC_MS;
		}
		due = me.sock == -1 && me.again > now && me.again < due ? me.again : due;
		wait_until(due < end ? due : end, now);
	}
	acct_sync();
	_exit(0);
}

#endif
