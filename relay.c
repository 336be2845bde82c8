/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The scheduler's loop: what relay.h calls stile-relay. USER_SEND, with the queue as current (as root: root) directory. It owns info/, local/,
 * remote/ and bounce/; what belongs to another user it asks the cleaner to do. It reads envelopes, which are our wardens' or qmail-queue's, and the
 * reports of remotes; taken over, it could deliver or lose what is queued, and bounce, but read no secret.
 *
 * Everything happens in one thread: a look at the clock, new messages, what is due, and then a wait for whatever comes next. Nothing waits for a
 * remote. The cleaner is waited for: what it does is what would be waited for here.
 */
#include "relay.h"

#include "relayint.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define RELAY_STEP_SECONDS 60 /* the clock was set, not corrected */
#define STOP_SECONDS 20       /* for deliveries that run when we are to end */
#define EXPIRE_SECONDS 60
#define WAKE_MS 250 /* a pipe that someone holds open with an octet in it would wake us without end */
#define DUE_SOME 64 /* messages that become due between looks at what else is to be done */
#define DUE_MS 1000 /* and how long that may take, with notices and mailboxes */

static volatile sig_atomic_t term, alrm;

static void
on_signal(int sig)
{
	*(sig == SIGTERM ? &term : &alrm) = 1;
}

static void
set_signals(void)
{
	struct sigaction sa = { .sa_handler = on_signal };
	sigset_t mask;

	/* They come while we wait, and at no other time. */
	sigemptyset(&mask);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGALRM);
	sigprocmask(SIG_SETMASK, &mask, NULL);
	sigemptyset(&sa.sa_mask);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGALRM, &sa, NULL);
	sa.sa_handler = SIG_IGN; /* main starts another one with the new configuration */
	sigaction(SIGHUP, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGXFSZ, &sa, NULL);
}

/* ---- the clock ---- */

static void
write_birth(void *ctx, const struct sched_msg *m)
{
	struct timespec t[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = m->birth } };
	char name[64];

	if (utimensat(AT_FDCWD, relay_name(ctx, "info", m->id, name), t, 0) == -1) {
		relay_warn(m->id, "cannot set the time of info/", strerror(errno));
	}
}

void
relay_clocks(struct relay *r)
{
	struct timespec real, boot;
	int64_t offset, was;

	clock_gettime(CLOCK_REALTIME, &real);
	clock_gettime(CLOCK_BOOTTIME, &boot);
	r->now = real.tv_sec;
	r->mono = boot.tv_sec;
	offset = r->now - r->mono;
	was = r->mono + r->offset; /* the time it would be */
	if (r->offset != INT64_MAX && (r->now - was > RELAY_STEP_SECONDS || was - r->now > RELAY_STEP_SECONDS)) {
		log_msg(LOG_WARNING, "clock", "the clock was set by %lld seconds; messages keep their age",
		    (long long)(r->now - was));
		sched_step(r->sched, was, r->now, write_birth, r);
		/* A message that is being written now has a time from before. */
		r->sweep_next = r->mono + 86400 * 2;
	}
	r->offset = offset;
}

/* ---- start and end ---- */

/* 0; RELAY_BUSY; 111. The descriptor stays open for life, and with it the lock. */
int
relay_lock(void)
{
	int fd = open("lock/sendmutex", O_WRONLY | O_CLOEXEC);

	if (fd == -1) {
		log_msg(LOG_ERR, "queue", "cannot open lock/sendmutex: %s", strerror(errno));
		return 111;
	}
	if (flock(fd, LOCK_EX | LOCK_NB) == -1) {
		log_msg(LOG_NOTICE, "queue",
		    "another program, such as qmail-send, delivers from this queue (lock/sendmutex: %s)",
		    strerror(errno));
		close(fd);
		return RELAY_BUSY;
	}
	return 0;
}

/* For whoever is next: when each message is to be tried. local/N is not ours to put off: it stays due. */
void
relay_write_times(struct relay *r)
{
	const struct sched *s = r->sched;
	char name[64];

	for (uint32_t m = 0; m < s->used; m++) {
		struct timespec t[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = s->msg[m].next } };

		if (s->msg[m].state == SCHED_FREE) {
			continue;
		}
		/* What waits for a destination that is down is due: it may be after a change of its route that we start over. */
		if (s->msg[m].state == SCHED_LISTED) {
			t[1].tv_sec = r->now;
		}
		if (s->msg[m].hold) {
			t[1].tv_sec = SCHED_HOLD;
		}
		(void)utimensat(AT_FDCWD, relay_name(r, "remote", s->msg[m].id, name), t, 0);
	}
}

static _Noreturn void
end(struct relay *r)
{
	pass_drop(r);
	relay_write_times(r);
	log_msg(r->lost ? LOG_ERR : LOG_INFO, "queue", "the scheduler ends%s, %u messages queued",
	    r->lost ? " because its cleaner or the deliveries' nursery is gone" : "", r->sched->live);
	qlog_say("status: exiting");
	_exit(r->lost ? 111 : 0);
}

static unsigned
running(const struct relay *r)
{
	unsigned n = 0;

	for (unsigned i = 0; i < r->remotes; i++) {
		n += r->remote[i].pass != NULL && r->remote[i].sock != -1;
	}
	return n;
}

/* ---- the loop ---- */

/* How long may we sleep? Milliseconds. */
static int
sleep_ms(const struct relay *r)
{
	const struct sched *s = r->sched;
	int64_t at = r->scan_next < r->expire_next ? r->scan_next : r->expire_next;

	if (r->stopping) {
		return r->stop_at > r->mono ? 1000 : 0;
	}
	at = r->sweep_next < at ? r->sweep_next : at;
	at = r->hold_until > r->mono && r->hold_until < at ? r->hold_until : at;
	if (s->timed > 0 && sched_next(s) - r->now + r->mono < at) {
		at = sched_next(s) - r->now + r->mono;
	}
	for (unsigned d = 1; d < s->dests; d++) {
		if (s->dest[d].down && !s->dest[d].probing && s->dest[d].waiting > 0 && s->dest[d].until < at) {
			at = s->dest[d].until;
		}
	}
	/* Whole seconds: the next one begins within one. Never long, for the clock's sake. */
	return at <= r->mono ? 100 : at - r->mono > 60 ? 60000 : (int)(at - r->mono) * 1000;
}

/* Wait for something to happen. */
static void
wait_for(struct relay *r, struct pollfd *p, int ms)
{
	struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };
	int64_t woken = mono_ms();
	sigset_t none;
	nfds_t n = 3;
	unsigned tools;

	sigemptyset(&none);
	p[0] = (struct pollfd){ .fd = r->clean, .events = 0 };
	p[1] = (struct pollfd){ .fd = r->nursery, .events = POLLIN };
	p[2] = (struct pollfd){ .fd = woken < r->deaf_until || r->stopping ? -1 : r->trigger, .events = POLLIN };
	if (p[2].fd == -1 && !r->stopping && r->trigger != -1 && (ms > WAKE_MS)) {
		t = (struct timespec){ .tv_nsec = WAKE_MS * 1000000L };
	}
	for (unsigned i = 0; i < r->remotes; i++) {
		p[n++] = (struct pollfd){ .fd = r->remote[i].sock, .events = POLLIN };
	}
	tools = r->stopping ? 0 : relayctl_polls(r, p + n);
	if (ppoll(p, n + tools, &t, &none) <= 0) {
		return;
	}
	r->alone |= p[0].revents != 0;
	r->lost |= r->alone || p[1].revents != 0;
	for (unsigned i = 0; i < r->remotes; i++) {
		if (p[3 + i].revents != 0 && r->remote[i].sock != -1) {
			pass_hear(r, &r->remote[i]);
		}
	}
	pass_settle(r);
	if (p[2].revents != 0) {
		r->woken = 1;
	}
	relayctl_serve(r, p + n, tools);
}

/* What time has brought. 1: there is more, do not sleep. */
static int
work(struct relay *r)
{
	int64_t until;
	int more = 0;
	uint32_t m;

	if (alrm) {
		alrm = 0;
		log_msg(LOG_INFO, "queue", "everything is due now");
		sched_all(r->sched, r->now);
		r->hold_until = 0;
	}
	if (r->mono >= r->expire_next) {
		r->expire_next = r->mono + EXPIRE_SECONDS;
		sched_expire(r->sched, r->now, r->conf->lifetime, r->conf->delaynotice);
	}
	if (r->mono >= r->sweep_next) {
		todo_sweep(r);
	}
	if (r->scan == NULL && (r->woken || r->mono >= r->scan_next)) {
		r->woken = 0;
		todo_begin(r);
	}
	if (r->scan != NULL) {
		int found = r->scan_found;

		more = todo_some(r);
		/* Woken for nothing: see WAKE_MS. */
		r->deaf_until = more || found || r->scan_found ? 0 : mono_ms() + WAKE_MS;
	}
	until = mono_ms() + DUE_MS;
	for (int i = 0; i < DUE_SOME && mono_ms() < until && (m = sched_due(r->sched, r->now)) != SCHED_NONE; i++) {
		pass_due(r, m);
	}
	pass_serve(r);
	return more || sched_next(r->sched) <= r->now;
}

void
relay_set_up(struct relay *r)
{
	unsigned n = r->conf->concurrency < DELIVERIES_MAX ? r->conf->concurrency : DELIVERIES_MAX;

	r->remotes = n;
	r->passes = 2 * n + 8; /* some wait for places */
	r->sched = malloc(sizeof *r->sched);
	r->pass = calloc(r->passes, sizeof *r->pass);
	r->remote = calloc(n + 1, sizeof *r->remote);
	if (r->sched == NULL || r->pass == NULL || r->remote == NULL) {
		log_msg(LOG_ERR, "limit", "no memory for the scheduler");
		_exit(111);
	}
	sched_init(r->sched, n);
	for (unsigned i = 0; i < r->passes; i++) {
		r->pass[i].m = SCHED_NONE;
	}
	for (unsigned i = 0; i < n; i++) {
		r->remote[i].sock = -1;
	}
	r->trigger = -1;
	r->offset = INT64_MAX;
}

_Noreturn void
relay_loop(const struct relay_conf *conf, unsigned split, int journal, uid_t spool_uid, int clean, int remotes, int ctl)
{
	static struct relay r;
	static struct pollfd p[DELIVERIES_MAX + 3 + RELAYCTL_POLLS];
	int rc;

	set_signals();
	rc = relay_lock();
	if (rc != 0) {
		_exit(rc);
	}
	r.conf = conf;
	r.split = split;
	r.journal = journal;
	r.spool_uid = spool_uid;
	r.clean = clean;
	r.nursery = remotes;
	r.ctl = ctl;
	relay_set_up(&r);
	umask(077);
	relay_clocks(&r);
	r.began = r.mono;
	if (todo_takeover(&r) == -1) {
		_exit(111);
	}
	log_msg(LOG_INFO, "queue", "the scheduler is in place, %u messages queued", r.sched->live);
	qlog_status(&r);
	for (;;) {
		int more = 0;

		relay_clocks(&r);
		if (!r.stopping && (term || r.lost)) {
			r.stopping = 1;
			r.stop_at = r.mono + STOP_SECONDS;
			pass_cut(&r);
			if (running(&r) > 0) {
				log_msg(LOG_INFO, "queue",
				    "ending, or starting over, when %u deliveries are done: %d seconds at most",
				    running(&r), STOP_SECONDS);
			}
		}
		if (r.stopping && (running(&r) == 0 || r.mono >= r.stop_at)) {
			end(&r);
		}
		if (!r.stopping) {
			more = work(&r);
		}
		wait_for(&r, p, more ? 0 : sleep_ms(&r));
	}
}

#if RELAY
_Noreturn void
relay_run(const struct house *h, int clean, int remotes, int ctl)
{
	prctl(PR_SET_NAME, "stile-relay", 0, 0, 0);
	relay_loop(&h->config->relay, h->spool.split, h->spool.journal, h->ids.spool_uid, clean, remotes, ctl);
}
#endif
