/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The scheduler: what becomes of a delivery that pass.c has started. Its remote (deliver.h) reports each recipient by itself:
 *
 *   K  the record in remote/N is marked `D`, at once; flushed when the delivery is over
 *   D  the reason goes to bounce/N; when the delivery is over that is flushed, and only then is the record marked: a mark that outlived the
 *      reason would be a failure nobody hears of
 *   Z  nothing; the message comes back at its time. When it has been in the queue for too long, as D
 *
 * A remote that goes without a word has said Z; so has one that breaks the rules, which ends it. What deliveries that end together have come to is
 * flushed together (rcpt_sync_all()); only then does the destination hear of it (schedule.h), and does the pass go on.
 */
#include "msg.h"
#include "relayint.h"
#include "tls.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define CUT "Cut off: delivery ends or starts over. (#4.3.0)\n"

/* ---- what remotes say ---- */

static void
log_deliver(
    struct relay *r, const struct pass *p, const struct outcome *o, const struct deliver_done *done, int64_t secs)
{
	char addr[RECORD_MAX + 1];
	const char *at;
	struct log_line l;

	(void)rcpt_address(p, o->rcpt, addr);
	at = strrchr(addr, '@');
	*(o->klass == 'K' ? &r->ok : o->klass == 'D' ? &r->failed : &r->deferred) += 1;
	if (o->klass != 'K') {
		struct buf b;

		/* Cut, and harmless to a terminal. */
		buf_init(&b, r->error, sizeof r->error - 1);
		buf_escaped(&b, o->text, strlen(o->text), 1);
		(void)buf_cstr(&b);
		r->error_at = r->mono;
	}
	relay_event(&l, o->klass == 'D' ? LOG_WARNING : LOG_INFO, "deliver", p->id);
	log_str(&l, "to", addr);
	log_str(&l, "domain", at == NULL ? NULL : at + 1);
	log_str(&l, "result", o->klass == 'K' ? "ok" : o->klass == 'D' ? "fail" : "defer");
	if (o->code != 0) {
		log_num(&l, "code", o->code);
	}
	if (done != NULL) {
		log_str(&l, "peer", done->peer);
		log_str(&l, "name", done->name);
		if (done->tls_version != 0) {
			log_str(&l, "tls", tls_version_name(done->tls_version));
			log_str(&l, "cipher", tls_suite_name(done->tls_suite));
			log_num(&l, "verified", done->verified);
		}
	}
	log_num(&l, "secs", secs);
	log_text(&l, "text", o->text);
	log_end(&l);
	qlog_end(o->number, o->klass, o->text);
}

/* The first lines of a report, on one. */
static void
keep_text(struct outcome *o, const char *text)
{
	size_t n = strnlen(text, sizeof o->text - 1);

	for (size_t i = 0; i < n; i++) {
		o->text[i] = (char)(text[i] == '\n' ? '/' : text[i]);
	}
	o->text[n - (n > 0 && o->text[n - 1] == '/')] = '\0';
}

/* One recipient's fate is known. */
static void
judge(struct relay *r, struct remote *t, unsigned i, char klass, unsigned code, const char *text)
{
	struct outcome *o = &t->outcome[i];

	t->reported++;
	keep_text(o, text);
	o->code = (uint16_t)code;
	o->klass = klass;
	if (klass == 'K') {
		rcpt_mark(r, t->pass, o->rcpt);
	} else if (klass == 'D') {
		rcpt_failed(r, t->pass, o->rcpt, text);
	} else if (t->pass->dying) {
		o->klass = 'D';
		rcpt_expired(r, t->pass, o->rcpt, text);
	} else {
		rcpt_later(r, t->pass, o->rcpt, text);
		relayctl_why(&r->sched->msg[t->pass->m], o->text);
	}
}

static void
log_backoff(const struct relay *r, unsigned d, enum dest_news news)
{
	const struct dest *t = &r->sched->dest[d];
	struct log_line l;

	log_begin(&l, news == DEST_WENT_DOWN ? LOG_WARNING : LOG_INFO, "backoff");
	log_str(&l, "to", t->route == DELIVER_MX ? t->domain : r->conf->route[t->route].hop[0].host);
	log_str(&l, "state", news == DEST_WENT_DOWN ? "down" : "up");
	if (news == DEST_WENT_DOWN) {
		log_num(&l, "secs", t->until - r->mono);
		log_text(&l, "text", t->error);
	}
	log_num(&l, "waiting", t->waiting);
	log_end(&l);
}

void
outcome_over(struct relay *r, struct remote *t, const struct deliver_done *done)
{
	struct pass *p = t->pass;
	int reached = done == NULL ? -1 : done->unreachable == 0;
	int again =
	    done == NULL && t->messages > 1 && t->reported == 0; /* a connection that had just come to its end */

	for (unsigned i = 0; i < t->rcpts; i++) {
		struct pass_rcpt *c = &p->rcpt[t->outcome[i].rcpt];
		int cut = done == NULL && r->stopping && t->outcome[i].klass == 0;

		if (again || cut) {
			/* Cut off on request, nothing has come of it. */
			keep_text(&t->outcome[i], CUT);
			t->outcome[i].klass = 'Z';
			if (cut) {
				log_deliver(r, p, &t->outcome[i], NULL, r->mono - t->since);
			} else {
				qlog_end(t->outcome[i].number, 'Z', t->outcome[i].text);
			}
			c->state = PASS_UNTRIED;
			p->untried++;
			continue;
		}
		if (t->outcome[i].klass == 0) {
			judge(r, t, i, 'Z', 0, "The delivery process ended without a word. (#4.3.0)\n");
		}
		log_deliver(r, p, &t->outcome[i], done, r->mono - t->since);
		if (reached == 0 && c->state == PASS_LATER) {
			c->state = PASS_DOWN;
		}
	}
	t->over = 1;
	t->reuse = done != NULL && done->reuse;
	t->reached = (int8_t)reached;
}

/* What has become of a delivery is on the disk: go on from there. */
static void
settle(struct relay *r, struct remote *t)
{
	struct pass *p = t->pass;
	enum dest_news news = dest_end(r->sched, t->dest, t->probe, t->reached, t->outcome[0].text, r->mono);

	if (news != DEST_SAME && (t->reached != -1 || !r->stopping)) {
		log_backoff(r, t->dest, news);
	}
	if (news == DEST_CAME_UP) {
		sched_release(r->sched, t->dest, r->now);
	}
	t->pass = NULL;
	t->over = 0;
	if (!t->reuse || r->stopping || t->messages >= DELIVER_MESSAGES_MAX) {
		pass_hang_up(t);
	}
	p->running--;
	qlog_status(r);
	pass_push(r, p);
}

void
pass_settle(struct relay *r)
{
	int over = 0;

	for (unsigned i = 0; i < r->remotes; i++) {
		over += r->remote[i].over;
	}
	if (over == 0) {
		return;
	}
	rcpt_sync_all(r);
	for (unsigned i = 0; i < r->remotes; i++) {
		if (r->remote[i].over) {
			settle(r, &r->remote[i]);
		}
	}
}

void
pass_hear(struct relay *r, struct remote *t)
{
	static union {
		uint32_t type;
		struct deliver_report report;
		struct deliver_done done;
	} m;
	struct deliver_report *rep = &m.report;

	for (;;) {
		long n = msg_recv(t->sock, &m, sizeof m, NULL, -1);

		if (n == -1 && (errno == EAGAIN || errno == EINTR)) {
			return;
		}
		if (t->pass == NULL) {
			pass_hang_up(t); /* idle for too long */
			return;
		}
		if (n == (long)sizeof m.done && m.type == DELIVER_DONE) {
			m.done.peer[sizeof m.done.peer - 1] = m.done.name[sizeof m.done.name - 1] = '\0';
			outcome_over(r, t, &m.done);
			return;
		}
		if (n != (long)sizeof *rep || m.type != DELIVER_REPORT || rep->rcpt >= t->rcpts ||
		    t->outcome[rep->rcpt].klass != 0 || (rep->klass != 'K' && rep->klass != 'Z' && rep->klass != 'D') ||
		    memchr(rep->text, '\0', sizeof rep->text) == NULL) {
			if (n > 0 || (n == -1 && errno != ECONNRESET)) {
				log_msg(LOG_ERR, "crash", "a delivery process broke the rules");
			}
			outcome_over(r, t, NULL);
			return;
		}
		judge(r, t, rep->rcpt, (char)rep->klass, rep->code, rep->text);
	}
}

/* ---- all of them end ---- */

void
pass_cut(struct relay *r)
{
	for (unsigned i = 0; i < r->remotes; i++) {
		if (r->remote[i].sock != -1) {
			shutdown(r->remote[i].sock, SHUT_WR);
		}
	}
}

void
pass_drop(struct relay *r)
{
	for (unsigned i = 0; i < r->remotes; i++) {
		struct remote *t = &r->remote[i];

		for (unsigned k = 0; t->pass != NULL && k < t->rcpts; k++) {
			if (t->outcome[k].klass == 0) {
				keep_text(&t->outcome[k], CUT); /* its end may have been sent: it may arrive twice */
				t->outcome[k].klass = 'Z';
			}
			log_deliver(r, t->pass, &t->outcome[k], NULL, r->mono - t->since);
		}
		if (t->sock != -1) {
			pass_hang_up(t);
		}
	}
	for (unsigned i = 0; i < r->passes; i++) {
		if (r->pass[i].m != SCHED_NONE) {
			rcpt_sync(r, &r->pass[i]);
			sched_at(r->sched, r->pass[i].m, r->now);
			pass_release(&r->pass[i]);
		}
	}
}
