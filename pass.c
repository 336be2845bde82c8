/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The scheduler: a pass over a message. A message that is due stands in the list of the destination of its first recipient left. When a
 * delivery may start there, the message is opened: its recipients are read from remote/N, and deliveries start, one for each destination and
 * hundred recipients, as long as there are places. A pass offers each recipient once; what comes of that is outcome.c. When all have been offered
 * and no delivery runs any more, the message comes back at its time, birth + (isqrt(age) + 20)^2, or is finished (ended.c).
 *
 * When nobody at a destination can be reached, that is not a "later" for the message: it waits in the list until the destination is back
 * (schedule.h). Only a message with recipients left elsewhere, too, keeps to its own schedule.
 */
#include "msg.h"
#include "relayint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpragmas" /* before gcc 10 */
/* gcc 12's analyser loses sight of the recipients when a function of rcpt.c is called; pass_release() frees them. */
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

/* A remote has deadlines of its own. One that is silent for longer than this is out of its mind. */
#define HANG_SECONDS 43200
#define HOLD_SECONDS 10 /* without a new delivery, when one could not be started */
/* For 100 recipients: the kernel takes twice that. */
#define HAND_OVER_OCTETS 212992

/* ---- a message is due ---- */

/* Open remote/N. The descriptor, -1: there is none, -2: it cannot be opened, which is logged. */
static int
open_remote(const struct relay *r, uint64_t id, int flags)
{
	char name[64];
	int fd = open(relay_name(r, "remote", id, name), flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (fd == -1 && errno != ENOENT) {
		relay_warn(id, "cannot open remote/", strerror(errno));
		return -2;
	}
	return fd;
}

void
pass_due(struct relay *r, uint32_t m)
{
	static struct records in;
	uint64_t id = r->sched->msg[m].id, offset;
	char name[64], domain[256], *p;
	unsigned d = DEST_OTHER;
	enum record got = RECORD_END;
	size_t len;
	int fd = open_remote(r, id, O_RDONLY);

	if (fd == -2) {
		sched_at(r->sched, m, r->now + RELAY_TROUBLE);
		return;
	}
	if (fd != -1) {
		records_open(&in, fd);
		while ((got = records_next(&in, &p, &len, &offset)) == RECORD_OK && p[0] != 'T') {
		}
		close(fd);
	}
	if (got == RECORD_OK && pass_where(r, p + 1, &d, domain) != NULL) {
		d = DEST_OTHER;
	}
	/* What is over, or concerns no destination, or no longer waits for it, is dealt with now. */
	if (got != RECORD_OK || d == DEST_OTHER ||
	    (LOCAL_MAILDIRS_MAX > 0 && r->conf->maildirs.n > 0 &&
		access(relay_name(r, "local", id, name), F_OK) == 0) ||
	    (r->sched->dest[d].down &&
		(sched_expired(r->sched->msg[m].birth, r->now, r->conf->lifetime) ||
		    r->sched->msg[m].told == SCHED_ASKED))) {
		if (!pass_open(r, m)) {
			sched_at(r->sched, m, r->now + 1);
		}
		return;
	}
	sched_enlist(r->sched, m, d);
}

int
pass_sender(struct relay *r, struct pass *p)
{
	size_t len;

	if (info_sender(r, p->id, p->sender) == -1) {
		return -1;
	}
	len = strlen(p->sender);
	p->verp = len >= 4 && strcmp(p->sender + len - 4, "-@[]") == 0;
	p->telling = !p->dying && len > 0 && strcmp(p->sender, "#@[]") != 0 &&
	    sched_late(&r->sched->msg[p->m], r->now, r->conf->delaynotice);
	if (DELAY_NOTICE && p->telling) {
		r->sched->msg[p->m].told = SCHED_ASKED;
	}
	return 0;
}

/* Read all recipients that are left. NULL, or what is wrong. */
static const char *
load(struct relay *r, struct pass *p)
{
	static struct records in;
	char domain[256], *q;
	const char *wrong;
	uint64_t offset;
	size_t len;
	uint32_t cap = 0;
	unsigned d;
	enum record got;

	if (pass_sender(r, p) == -1) {
		return strerror(errno);
	}
	records_open(&in, p->remote);
	while ((got = records_next(&in, &q, &len, &offset)) == RECORD_OK) {
		if (len > 0 && q[0] == 'D') {
			continue;
		}
		if (len == 0 || q[0] != 'T' || offset > UINT32_MAX / 2) {
			return "remote/ has a record that nobody knows";
		}
		if (p->n == cap) {
			struct pass_rcpt *more = realloc(p->rcpt, (cap += cap / 2 + 8) * sizeof *more);

			if (more == NULL) {
				return strerror(ENOMEM);
			}
			p->rcpt = more;
		}
		p->rcpt[p->n] = (struct pass_rcpt){ .offset = (uint32_t)offset, .len = (uint16_t)(len - 1) };
		wrong = pass_where(r, q + 1, &d, domain);
		if (wrong == NULL && p->verp && strlen(p->sender) + len - 4 > DELIVER_ADDR_MAX) {
			wrong = "The address is too long. (#5.1.3)\n";
		}
		p->rcpt[p->n].dest = (uint16_t)(wrong == NULL ? d : DEST_OTHER);
		p->n++;
		if (wrong != NULL) {
			rcpt_failed(r, p, p->n - 1, wrong);
		} else {
			p->untried++;
		}
	}
	return got == RECORD_ERROR ? strerror(errno) : NULL;
}

void
pass_release(struct pass *p)
{
	if (p->remote != -1) {
		close(p->remote);
	}
	if (p->bounce != -1) {
		close(p->bounce);
	}
	if (p->late != -1) {
		close(p->late);
	}
	free(p->rcpt);
	p->rcpt = NULL;
	p->m = SCHED_NONE;
}

/* The end of a pass: what becomes of the message. */
static void
finish(struct relay *r, struct pass *p)
{
	struct sched *s = r->sched;
	uint32_t m = p->m, left[PASS_OVER + 1] = { [PASS_LATER] = p->local_later };
	unsigned d = DEST_OTHER;
	int64_t birth = s->msg[m].birth;
	char name[64];

	if (p->failed > 0) {
		rcpt_sync(r, p);
	}
	for (uint32_t i = 0; i < p->n; i++) {
		const struct pass_rcpt *t = &p->rcpt[i];

		if (t->state == PASS_DOWN) {
			/* Waiting makes sense only where all wait for the same. */
			left[PASS_LATER] += left[PASS_DOWN] > 0 && d != t->dest;
			d = t->dest;
		}
		left[t->state]++;
	}
	if (DELAY_NOTICE && p->telling && p->late != -1 && left[PASS_UNTRIED] == 0 && !s->msg[m].hold) {
		ended_late(r, p);
	}
	pass_release(p);
	if (left[PASS_LATER] > 0) {
		sched_at(s, m, sched_retry(birth, r->now));
	} else if (left[PASS_UNTRIED] > 0) {
		sched_at(s, m, r->now + 1);
	} else if (left[PASS_DOWN] > 0) {
		if (d != DEST_OTHER && s->dest[d].down) {
			sched_enlist(s, m, d);
		} else {
			sched_at(s, m, d != DEST_OTHER ? r->now : sched_retry(birth, r->now));
		}
	} else if (unlink(relay_name(r, "remote", s->msg[m].id, name)) == -1 && errno != ENOENT) {
		relay_warn(s->msg[m].id, "cannot remove remote/", strerror(errno));
		sched_at(s, m, r->now + RELAY_TROUBLE);
	} else {
		ended(r, m);
	}
}

/* Pass objects are few: when all are taken, one that only waits for places gives its own up. */
static struct pass *
free_pass(struct relay *r)
{
	struct pass *idle = NULL;

	for (unsigned i = 0; i < r->passes; i++) {
		if (r->pass[i].m == SCHED_NONE) {
			return &r->pass[i];
		}
		if (r->pass[i].running == 0) {
			idle = &r->pass[i];
		}
	}
	if (idle != NULL) {
		finish(r, idle);
	}
	return idle;
}

int
pass_open(struct relay *r, uint32_t m)
{
	struct pass *p = free_pass(r);
	const char *wrong = NULL;
	int local = 0;

	if (p == NULL || p->m != SCHED_NONE) {
		return 0;
	}
	memset(p, 0, sizeof *p);
	p->m = m;
	p->id = r->sched->msg[m].id;
	p->dying = sched_expired(r->sched->msg[m].birth, r->now, r->conf->lifetime);
	p->bounce = p->late = -1;
	p->remote = open_remote(r, p->id, O_RDWR);
	if (p->remote != -2 && (r->conf->local == LOCAL_BOUNCE || r->conf->maildirs.n > 0)) {
		local = local_carry(r, p);
	}
	if (p->remote == -2) {
		p->remote = -1;
		wrong = "";
	} else if (local == -1) {
		wrong = strerror(errno);
	} else if (local == 1) {
		pass_release(p);
		sched_at(r->sched, m, r->now + 1);
		return 1;
	} else if (p->remote != -1) {
		wrong = load(r, p);
	}
	if (wrong != NULL) {
		if (wrong[0] != '\0') {
			relay_warn(p->id, "cannot be carried on for now", wrong);
		}
		pass_release(p);
		sched_at(r->sched, m, sched_retry(r->sched->msg[m].birth, r->now));
		return 1;
	}
	pass_push(r, p);
	return 1;
}

/* ---- deliveries ---- */

void
pass_hang_up(struct remote *t)
{
	close(t->sock);
	t->sock = -1;
	free(t->outcome);
	t->outcome = NULL;
}

/* A place for a delivery to `d`: an idle connection to it, a free place, the place of another idle connection. NULL. */
static struct remote *
find_remote(struct relay *r, unsigned d)
{
	struct remote *unused = NULL, *idle = NULL;

	for (unsigned i = 0; i < r->remotes; i++) {
		struct remote *t = &r->remote[i];

		if (t->sock == -1) {
			unused = t;
		} else if (t->pass == NULL && t->dest == d && d != DEST_OTHER) {
			return t;
		} else if (t->pass == NULL) {
			idle = t;
		}
	}
	if (unused == NULL && idle != NULL) {
		pass_hang_up(idle);
		unused = idle;
	}
	return unused;
}

/* Have a remote born. 0 or -1, logged. */
static int
bear(struct relay *r, struct remote *t)
{
	const struct deliver_birth b = { .type = DELIVER_JOB };
	const int octets = HAND_OVER_OCTETS;
	int sv[2];

	if (msg_pair(sv) == -1) {
		log_msg(LOG_ERR, "limit", "cannot start a delivery: %s", strerror(errno));
		return -1;
	}
	/* We never wait for a remote. */
	(void)setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &octets, sizeof octets);
	if (fcntl(sv[0], F_SETFL, O_NONBLOCK) == -1 || msg_send(r->nursery, &b, sizeof b, sv[1]) == -1) {
		r->lost = errno == EPIPE || errno == ECONNRESET;
		log_msg(LOG_ERR, "crash", "the process that deliveries come from does not answer: %s", strerror(errno));
		close(sv[0]);
		close(sv[1]);
		return -1;
	}
	close(sv[1]);
	t->sock = sv[0];
	t->messages = 0;
	return 0;
}

int
pass_expand(const struct pass *p, const char *rcpt, char *out, size_t size)
{
	const char *at = strrchr(rcpt, '@'), *end = p->sender + strlen(p->sender) - 4;
	const char *host = p->verp ? memrchr(p->sender, '@', (size_t)(end - p->sender)) : NULL;
	struct buf b;

	if (host == NULL || at == NULL) {
		return str_copy(out, size, p->sender);
	}
	buf_init(&b, out, size);
	buf_add(&b, p->sender, (size_t)(host - p->sender));
	buf_add(&b, rcpt, (size_t)(at - rcpt));
	buf_ch(&b, '=');
	buf_str(&b, at + 1);
	buf_add(&b, host, (size_t)(end - host));
	(void)buf_cstr(&b);
	return b.full ? -1 : 0;
}

/* Open the message. NULL, or why it cannot be. */
static const char *
open_mess(const struct relay *r, uint64_t id, int *fd, uint64_t *size)
{
	char name[64];
	struct stat st;

	*fd = open(relay_name(r, "mess", id, name), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (*fd == -1) {
		return "unable to open message (#4.3.0)";
	}
	if (fstat(*fd, &st) == -1 || !S_ISREG(st.st_mode) || st.st_uid != r->spool_uid) {
		close(*fd);
		*fd = -1;
		return "message has wrong owner (#4.3.5)";
	}
	*size = (uint64_t)st.st_size;
	return NULL;
}

/* Hand a job over: the recipients in t->outcome. 0 or -1. */
static int
hand_over(struct relay *r, struct pass *p, struct remote *t, int mess, uint64_t size)
{
	static struct deliver_job job;
	static struct deliver_rcpt rcpt;
	char addr[RECORD_MAX + 1];
	unsigned d;

	memset(&job, 0, sizeof job);
	job.type = DELIVER_JOB;
	job.id = p->id;
	job.size = size;
	job.rcpts = t->rcpts;
	if (rcpt_address(p, t->outcome[0].rcpt, addr) == -1 || pass_where(r, addr, &d, job.domain) != NULL ||
	    pass_expand(p, addr, job.sender, sizeof job.sender) == -1) {
		return -1;
	}
	job.route = d == DEST_OTHER ? DELIVER_MX : r->sched->dest[d].route;
	if (d == DEST_OTHER) {
		int route = relay_route_find(r->conf, job.domain);

		job.route = route >= 0 && r->conf->route[route].hops > 0 ? (uint32_t)route : DELIVER_MX;
	}
	job.sender_len = (uint32_t)strlen(job.sender);
	if (msg_send(t->sock, &job, sizeof job, mess) == -1) {
		return -1;
	}
	for (unsigned i = 0; i < t->rcpts; i++) {
		memset(&rcpt, 0, sizeof rcpt);
		rcpt.type = DELIVER_RCPT;
		if (rcpt_address(p, t->outcome[i].rcpt, addr) == -1 ||
		    str_copy(rcpt.addr, sizeof rcpt.addr, addr) == -1) {
			return -1;
		}
		rcpt.len = (uint32_t)strlen(rcpt.addr);
		if (msg_send(t->sock, &rcpt, sizeof rcpt, -1) == -1) {
			return -1;
		}
	}
	return 0;
}

/* Nothing of what is left can be tried now. */
static void
put_off(struct relay *r, struct pass *p, const char *text)
{
	char addr[RECORD_MAX + 1];
	struct log_line l;

	relay_event(&l, LOG_WARNING, "deliver", p->id);
	log_str(&l, "result", p->dying ? "fail" : "defer");
	log_text(&l, "text", text);
	log_end(&l);
	for (uint32_t i = 0; i < p->n; i++) {
		if (p->rcpt[i].state == PASS_UNTRIED) {
			if (p->dying) {
				rcpt_expired(r, p, i, text);
			} else {
				rcpt_later(r, p, i, text);
				if (RELAY_QMAIL_LOG && rcpt_address(p, i, addr) == 0) {
					qlog_untried(r, p->id, 0, addr, 'Z', text);
				}
			}
		}
	}
	p->untried = 0;
}

/* Choose the recipients of a job that begins with number `first`. 0 or -1: no memory. */
static int
choose(struct pass *p, struct remote *t, uint32_t first)
{
	unsigned most = p->verp || p->rcpt[first].dest == DEST_OTHER ? 1 : DELIVER_RCPTS_MAX, n = 0;

	for (uint32_t i = first; i < p->n && n < most; i++) {
		n += p->rcpt[i].state == PASS_UNTRIED && p->rcpt[i].dest == p->rcpt[first].dest;
	}
	free(t->outcome);
	t->outcome = calloc(n, sizeof *t->outcome);
	if (t->outcome == NULL) {
		return -1;
	}
	t->rcpts = 0;
	for (uint32_t i = first; i < p->n && t->rcpts < n; i++) {
		if (p->rcpt[i].state == PASS_UNTRIED && p->rcpt[i].dest == p->rcpt[first].dest) {
			t->outcome[t->rcpts++].rcpt = i;
		}
	}
	return 0;
}

/* Give the job in t->outcome to a remote, a new one when `t` has no connection, or has lost it. 0; 1: there is none; -1: impossible. */
static int
employ(struct relay *r, struct pass *p, struct remote *t, int mess, uint64_t size)
{
	if (t->sock != -1) {
		if (hand_over(r, p, t, mess, size) == 0) {
			return 0;
		}
		close(t->sock);
		t->sock = -1;
	}
	if (bear(r, t) == -1) {
		r->hold_until = r->mono + HOLD_SECONDS;
		return 1;
	}
	return hand_over(r, p, t, mess, size);
}

/* Start a delivery to the destination of recipient `first`. 0: there is no place for it. */
static int
begin(struct relay *r, struct pass *p, uint32_t first)
{
	unsigned d = p->rcpt[first].dest;
	struct remote *t = find_remote(r, d);
	const char *wrong;
	uint64_t size;
	int mess, rc;

	if (t == NULL) {
		return 0;
	}
	wrong = open_mess(r, p->id, &mess, &size);
	if (wrong != NULL) {
		put_off(r, p, wrong);
		return 1;
	}
	rc = choose(p, t, first) == -1 ? 1 : employ(r, p, t, mess, size);
	close(mess);
	if (rc != 0) {
		free(t->outcome);
		t->outcome = NULL;
		if (t->sock != -1) {
			pass_hang_up(t);
		}
		if (rc == -1) {
			put_off(r, p, "cannot hand the message over to a delivery process");
		}
		return rc == -1;
	}
	for (unsigned i = 0; i < t->rcpts; i++) {
		p->rcpt[t->outcome[i].rcpt].state = PASS_RUNNING;
	}
	t->pass = p;
	t->dest = (uint16_t)d;
	t->reported = 0;
	t->messages++;
	t->since = r->mono;
	t->probe = (uint8_t)dest_start(r->sched, d, r->mono);
	p->untried -= t->rcpts;
	p->running++;
	qlog_start(r, t);
	return 1;
}

void
pass_push(struct relay *r, struct pass *p)
{
	for (uint32_t i = 0; i < p->n && p->untried > 0; i++) {
		struct pass_rcpt *t = &p->rcpt[i];
		enum dest_may may = t->state == PASS_UNTRIED ? dest_may(r->sched, t->dest, r->mono) : DEST_FULL;

		if (may == DEST_DOWN) {
			p->untried--;
			if (p->dying) {
				rcpt_expired(r, p, i, r->sched->dest[t->dest].error);
			} else {
				rcpt_later(r, p, i, r->sched->dest[t->dest].error);
				t->state = PASS_DOWN;
			}
		} else if (may == DEST_GO && (r->stopping || r->mono < r->hold_until || !begin(r, p, i))) {
			break;
		}
	}
	if (p->running == 0 && p->untried == 0) {
		finish(r, p);
	}
}

/* ---- who is next ---- */

static int
has_place(const struct relay *r)
{
	for (unsigned i = 0; i < r->remotes; i++) {
		if (r->remote[i].sock == -1) {
			return 1;
		}
	}
	return 0;
}

/* Is there something to start at this destination? */
static int
ready(const struct relay *r, unsigned d)
{
	return r->sched->dest[d].waiting > 0 && dest_may(r->sched, d, r->mono) == DEST_GO;
}

/* Start the first message of a destination's list. 0: not now. */
static int
next_of(struct relay *r, unsigned d)
{
	uint32_t m;

	if (!ready(r, d) || free_pass(r) == NULL) {
		return 0;
	}
	m = sched_take(r->sched, d);
	if (!pass_open(r, m)) {
		sched_at(r->sched, m, r->now + 1);
	}
	return 1;
}

/* Somebody other than `but` who has nothing running while all places are taken; or DEST_OTHER. */
static unsigned
starving(const struct relay *r, unsigned but)
{
	for (unsigned d = has_place(r) ? r->sched->dests : 1; d < r->sched->dests; d++) {
		if (d != but && r->sched->dest[d].running == 0 && ready(r, d)) {
			return d;
		}
	}
	return DEST_OTHER;
}

/* A connection that could take another message: the next one of its destination, unless others starve. */
static void
use_idle(struct relay *r, struct remote *t)
{
	unsigned d = starving(r, t->dest);

	if (d != DEST_OTHER) {
		pass_hang_up(t);
		(void)next_of(r, d);
		return;
	}
	/* The first message may turn out to have nothing for it. */
	while (t->sock != -1 && t->pass == NULL && next_of(r, t->dest)) {
	}
	if (t->sock != -1 && t->pass == NULL) {
		pass_hang_up(t);
	}
}

void
pass_serve(struct relay *r)
{
	unsigned misses = 0;

	for (unsigned i = 0; i < r->remotes; i++) {
		if (r->remote[i].pass != NULL && r->mono - r->remote[i].since > HANG_SECONDS) {
			outcome_over(r, &r->remote[i], NULL);
		}
	}
	pass_settle(r);
	for (unsigned i = 0; i < r->passes; i++) {
		if (r->pass[i].m != SCHED_NONE && r->pass[i].untried > 0) {
			pass_push(r, &r->pass[i]);
		}
	}
	for (unsigned i = 0; i < r->remotes; i++) {
		if (r->remote[i].sock != -1 && r->remote[i].pass == NULL) {
			use_idle(r, &r->remote[i]);
		}
	}
	/* The rest in turn, a message each. */
	while (!r->stopping && r->mono >= r->hold_until && misses < r->sched->dests && has_place(r)) {
		r->turn = r->turn + 1 < r->sched->dests ? r->turn + 1 : 0;
		misses = next_of(r, r->turn) ? 0 : misses + 1;
	}
}
