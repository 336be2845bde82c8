/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The scheduler: conversations with tools (ctl.h). Main hands each one over with what was asked first. Nothing here waits for a tool: an
 * answer that does not fit into its socket, like anything malformed, ends the conversation.
 *
 * A message that is held has SCHED_HOLD as the time of remote/N, so that it stays held over a restart, and for qmail-send. Removing and
 * returning one takes away what is still to be done first, and leaves the rest to ended(): a crash leaves the message with something
 * to be done, or what the next start brings to its end.
 */
#include "ctl.h"
#include "msg.h"
#include "queue.h"
#include "relayint.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#if TOOLS

#define IDLE_SECONDS 60
#define RETURNED "The operator of this relay has returned the message. (#5.7.0)\n"

static struct {
	int used, sock;
	int64_t heard; /* mono */
} tool[RELAYCTL_TOOLS];

/* Texts that messages share, since most wait for the same reason. One that was replaced has had its turn: messages that meant it know nothing. */
#define WHYS 128
static struct {
	char text[160];
	uint8_t turn;
} why[WHYS];
static unsigned why_next;

void
relayctl_why(struct sched_msg *m, const char *text)
{
	char mem[sizeof why[0].text];
	struct buf b;
	unsigned i = 0;

	buf_init(&b, mem, sizeof mem);
	buf_escaped(&b, text, strlen(text), 1);
	(void)buf_cstr(&b);
	while (i < WHYS && strcmp(why[i].text, mem) != 0) {
		i++;
	}
	if (i == WHYS) {
		i = why_next++ % WHYS;
		memcpy(why[i].text, mem, sizeof mem);
		why[i].turn++;
	}
	m->why = (uint16_t)(i + 1);
	m->why_turn = why[i].turn;
}

static void
tell_why(uint64_t n, struct ctl_dest *a)
{
	unsigned i = (unsigned)(n & 0xffff) - 1;

	memset(a, 0, sizeof *a);
	a->rc = CTL_NONE;
	if (i < WHYS && why[i].turn == n >> 16) {
		a->rc = CTL_DONE;
		memcpy(a->text, why[i].text, sizeof why[i].text);
	}
}

static void
hang_up(unsigned i)
{
	close(tool[i].sock);
	tool[i].used = 0;
}

static uint32_t
find(const struct sched *s, uint64_t id)
{
	for (uint32_t m = 0; m < s->used; m++) {
		if (s->msg[m].state != SCHED_FREE && s->msg[m].id == id) {
			return m;
		}
	}
	return SCHED_NONE;
}

/* ---- changes ---- */

/* Write down that it is held, or is not. */
static enum ctl_rc
write_hold(struct relay *r, uint64_t id, int hold)
{
	const struct timespec now[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = r->now } };
	char name[64];
	int fd = open(relay_name(r, "remote", id, name), O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC), rc;

	if (fd == -1 && errno == ENOENT) {
		return CTL_NONE;
	}
	rc = fd == -1 || (hold ? rcpt_hold_time(fd) : futimens(fd, now)) == -1 || fsync(fd) == -1;
	if (rc) {
		relay_warn(id, "cannot set the time of remote/", strerror(errno));
	}
	if (fd != -1) {
		close(fd);
	}
	return rc ? CTL_FAILED : CTL_DONE;
}

static enum ctl_rc
hold(struct relay *r, uint32_t m, int on)
{
	struct sched_msg *t = &r->sched->msg[m];
	enum ctl_rc rc = on || t->hold ? write_hold(r, t->id, on) : CTL_DONE;

	if (rc != CTL_DONE) {
		return rc;
	}
	t->hold = (uint8_t)on;
	/* One that a pass has comes to rest with it; one that stands in a list is due. */
	if (t->state != SCHED_BUSY && (on || t->state != SCHED_LISTED)) {
		sched_grab(r->sched, m);
		sched_at(r->sched, m, r->now);
	}
	return CTL_DONE;
}

static enum ctl_rc
flush(struct relay *r, uint32_t m)
{
	struct sched_msg *t = &r->sched->msg[m];

	if (t->hold) {
		return CTL_IS_HELD;
	}
	if (t->state == SCHED_TIMED) {
		sched_grab(r->sched, m);
		pass_due(r, m);
	}
	if (t->state == SCHED_LISTED && r->sched->dest[t->dest].until > r->mono) {
		r->sched->dest[t->dest].until = r->mono;
	}
	return CTL_DONE;
}

static int
gone(const char *name)
{
	return unlink(name) == 0 || errno == ENOENT ? 0 : -1;
}

/* Nothing is left to be done for it, nor to be said. 0 or -1. */
static int
forget(struct relay *r, uint64_t id)
{
	char name[64];

	/* The bounce first: whoever finds the rest must not send it. */
	return gone(relay_flat("bounce", id, name)) == -1 || (!r->journal && spool_sync_dir("bounce") == -1) ||
		gone(relay_name(r, "local", id, name)) == -1 || gone(relay_name(r, "remote", id, name)) == -1
	    ? -1
	    : 0;
}

/* Do this to each recipient left in local/ or remote/: add it to the bounce, or, with `mark`, mark it as done. 0 or -1. */
static int
each_left(struct relay *r, uint64_t id, int fd, int local, int *bounce, int *made, int mark)
{
	static struct records in;
	char *p;
	uint64_t offset;
	size_t len;
	enum record got = RECORD_END;
	int rc = lseek(fd, 0, SEEK_SET) == -1 ? -1 : 0;

	records_open(&in, fd);
	while (rc == 0 && (got = records_next(&in, &p, &len, &offset)) == RECORD_OK) {
		if (p[0] == 'T' && mark) {
			rc = pwrite(fd, "D", 1, (off_t)offset) == 1 ? 0 : -1;
			qlog_untried(r, id, local, p + 1, 'D', RETURNED);
		} else if (p[0] == 'T') {
			rc = bounce_append(r, id, bounce, made, p + 1, local, RETURNED);
		}
	}
	/* What could not be read has not failed. */
	return got == RECORD_END ? rc : -1;
}

/* All recipients left have failed: as rcpt_sync() does it, the reason first. 0 or -1. */
static int
give_back(struct relay *r, uint64_t id)
{
	static const char *const dirs[] = { "remote", "local" };
	char name[2][64];
	int bounce = -1, made = 0, rc = 0;
	int fd[2];

	for (int i = 0; i < 2; i++) {
		fd[i] = open(relay_name(r, dirs[i], id, name[i]), O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		if (fd[i] == -1 ? errno != ENOENT : each_left(r, id, fd[i], i, &bounce, &made, 0) == -1) {
			rc = -1;
		}
	}
	if (bounce_sync(r, &bounce, &made) == -1) {
		rc = -1;
	}
	for (int i = 0; i < 2; i++) {
		if (rc == 0 && fd[i] != -1) {
			rc = each_left(r, id, fd[i], i, NULL, NULL, 1) == -1 || fdatasync(fd[i]) == -1
			    ? -1
			    : unlink(name[i]);
		}
		if (fd[i] != -1) {
			close(fd[i]);
		}
	}
	return rc;
}

static enum ctl_rc
finish(struct relay *r, uint32_t m, int remove)
{
	uint64_t id = r->sched->msg[m].id;
	int64_t next = r->sched->msg[m].state == SCHED_TIMED ? r->sched->msg[m].next : r->now;
	struct log_line l;

	if (r->sched->msg[m].state == SCHED_BUSY) {
		return CTL_BUSY;
	}
	sched_grab(r->sched, m);
	if ((remove ? forget(r, id) : give_back(r, id)) == -1) {
		relay_warn(id, "an operator's order cannot be carried out", strerror(errno));
		sched_at(r->sched, m, next);
		return CTL_FAILED;
	}
	relay_event(&l, LOG_NOTICE, remove ? "remove" : "return", id);
	log_end(&l);
	ended(r, m);
	return r->sched->msg[m].state == SCHED_FREE ? CTL_DONE : CTL_FAILED;
}

/* ---- answers ---- */

static void
counts(const struct relay *r, struct ctl_counts *c)
{
	const struct sched *s = r->sched;

	memset(c, 0, sizeof *c);
	c->queued = s->live;
	c->timed = s->timed;
	c->ok = r->ok;
	c->deferred = r->deferred;
	c->failed = r->failed;
	c->bounces = r->bounces;
	c->since = r->mono - r->began;
	c->error_age = r->error[0] == '\0' ? -1 : r->mono - r->error_at;
	memcpy(c->error, r->error, sizeof c->error);
	c->deliveries_max = r->remotes;
	c->dests = s->dests - 1;
	for (uint32_t m = 0; m < s->used; m++) {
		const struct sched_msg *t = &s->msg[m];

		if (t->state == SCHED_FREE) {
			continue;
		}
		c->held += t->state == SCHED_HELD;
		c->running += t->state == SCHED_BUSY;
		c->waiting += t->state == SCHED_LISTED && s->dest[t->dest].down;
		c->due += t->state == SCHED_LISTED && !s->dest[t->dest].down;
		c->oldest = r->now - t->birth > c->oldest ? r->now - t->birth : c->oldest;
	}
	for (unsigned d = 1; d < s->dests; d++) {
		c->dests_down += s->dest[d].down;
	}
	for (unsigned i = 0; i < r->remotes; i++) {
		c->deliveries += r->remote[i].sock != -1 && r->remote[i].pass != NULL;
	}
}

static void
list(const struct relay *r, uint64_t from, struct ctl_list *l)
{
	static const uint8_t state[] = {
		[SCHED_BUSY] = CTL_RUNNING, [SCHED_TIMED] = CTL_TIMED, [SCHED_HELD] = CTL_HELD
	};
	const struct sched *s = r->sched;

	memset(l, 0, sizeof *l);
	for (; from < s->used && l->n < CTL_ENTRIES; from++) {
		const struct sched_msg *t = &s->msg[from];
		struct ctl_entry *e = &l->entry[l->n];

		if (t->state == SCHED_FREE) {
			continue;
		}
		*e = (struct ctl_entry){ .id = t->id,
			.birth = t->birth,
			.next = t->next,
			.state = state[t->state],
			.why = t->why == 0 ? 0 : (uint32_t)t->why_turn << 16 | t->why };
		if (t->state == SCHED_LISTED) {
			e->dest = t->dest;
			e->state = s->dest[t->dest].down ? CTL_WAITING : CTL_DUE;
		}
		l->n++;
	}
	l->next = from < s->used ? from : 0;
}

static void
dest(const struct relay *r, uint64_t d, struct ctl_dest *a)
{
	const struct dest *t;

	memset(a, 0, sizeof *a);
	if (d == DEST_OTHER || d >= r->sched->dests) {
		a->rc = CTL_NONE;
		return;
	}
	t = &r->sched->dest[d];
	a->waiting = t->waiting;
	a->running = t->running;
	a->limit = t->limit;
	a->until = !t->down ? -1 : t->until > r->mono ? t->until - r->mono : 0;
	a->probing = t->probing;
	a->mx = t->route == DELIVER_MX;
	(void)str_copy(a->name, sizeof a->name, a->mx ? t->domain : r->conf->route[t->route].hop[0].host);
	(void)str_copy(a->text, sizeof a->text, t->down ? t->error : "");
}

static enum ctl_rc
change(struct relay *r, const struct ctl_ask *ask)
{
	uint32_t m = find(r->sched, ask->arg);

	if (m == SCHED_NONE) {
		return CTL_NONE;
	}
	switch (ask->type) {
	case CTL_FLUSH:
		return flush(r, m);
	case CTL_HOLD:
	case CTL_RELEASE:
		return hold(r, m, ask->type == CTL_HOLD);
	default:
		return finish(r, m, ask->type == CTL_REMOVE);
	}
}

size_t
relayctl_answer(struct relay *r, const struct ctl_ask *ask, const void **answer)
{
	static union {
		struct ctl_answer rc;
		struct ctl_counts counts;
		struct ctl_list list;
		struct ctl_dest dest;
	} a;

	*answer = &a;
	if (ask->magic != CTL_MAGIC || ask->type < CTL_COUNTS || ask->type > CTL_BOUNCE) {
		return 0;
	}
	if (ask->type == CTL_COUNTS) {
		counts(r, &a.counts);
		return sizeof a.counts;
	}
	if (ask->type == CTL_LIST) {
		list(r, ask->arg, &a.list);
		return sizeof a.list;
	}
	if (ask->type == CTL_DEST) {
		dest(r, ask->arg, &a.dest);
		return sizeof a.dest;
	}
	if (ask->type == CTL_WHY) {
		tell_why(ask->arg, &a.dest);
		return sizeof a.dest;
	}
	a.rc = (struct ctl_answer){ .rc = change(r, ask) };
	return sizeof a.rc;
}

/* 0, or -1: the conversation is over. */
static int
answer(struct relay *r, int sock, const struct ctl_ask *ask)
{
	const void *a;
	size_t len = relayctl_answer(r, ask, &a);

	return len == 0 ? -1 : msg_send(sock, a, len, -1);
}

/* ---- conversations ---- */

static void
hear(struct relay *r, unsigned i)
{
	struct ctl_ask ask;
	long n = msg_recv(tool[i].sock, &ask, sizeof ask, NULL, -1);

	if (n == -1 && (errno == EAGAIN || errno == EINTR)) {
		return;
	}
	tool[i].heard = r->mono;
	if (n != (long)sizeof ask || answer(r, tool[i].sock, &ask) == -1) {
		hang_up(i);
	}
}

/* Main has another one. */
static void
welcome(struct relay *r)
{
	struct ctl_ask ask;
	unsigned i = 0;
	int fd = -1;
	long n = msg_recv(r->ctl, &ask, sizeof ask, &fd, -1);

	if (n == 0) {
		r->ctl = -1; /* main is gone; what that means is said elsewhere */
	}
	if (fd == -1) {
		return;
	}
	for (unsigned k = 0; k < RELAYCTL_TOOLS; k++) {
		if (!tool[k].used || (tool[i].used && tool[k].heard < tool[i].heard)) {
			i = k;
		}
	}
	if (tool[i].used) {
		hang_up(i);
	}
	tool[i].used = 1;
	tool[i].sock = fd;
	tool[i].heard = r->mono;
	if (n != (long)sizeof ask || fcntl(fd, F_SETFL, O_NONBLOCK) == -1 || answer(r, fd, &ask) == -1) {
		hang_up(i);
	}
}

unsigned
relayctl_polls(struct relay *r, struct pollfd *p)
{
	p[0] = (struct pollfd){ .fd = r->ctl, .events = POLLIN };
	for (unsigned i = 0; i < RELAYCTL_TOOLS; i++) {
		if (tool[i].used && r->mono - tool[i].heard > IDLE_SECONDS) {
			hang_up(i);
		}
		p[1 + i] = (struct pollfd){ .fd = tool[i].used ? tool[i].sock : -1, .events = POLLIN };
	}
	return RELAYCTL_POLLS;
}

void
relayctl_serve(struct relay *r, const struct pollfd *p, unsigned n)
{
	for (unsigned i = 1; i < n; i++) {
		if (p[i].revents != 0) {
			hear(r, i - 1);
		}
	}
	if (n > 0 && p[0].revents != 0) {
		welcome(r);
	}
}

#endif
