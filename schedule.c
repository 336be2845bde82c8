/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The scheduler's memory. A message is in one place at a time: in the heap until its time, in the list of a destination when it is due or
 * when that destination is down, or in the hands of a pass. Those that wait for a destination are not looked at until it is back.
 *
 * The clock. Births and next attempts are file times of the real-time clock, which on a router may be wrong until NTP has set it. It is
 * compared with one that nobody sets, and a step of more than RELAY_STEP_SECONDS is undone for what was counted before it, so that no message
 * is returned, and none waits for years, because the clock was set:
 *
 *   - forward, from `was` to `now`: a birth up to `was` moves along, so the age stays what it was. One after `was` was written by another
 *     clock, that of an earlier boot: when that was set (not before SCHED_PLAUSIBLE) it is right, and stays, and so does the age that results;
 *     otherwise nobody knows, and it becomes `now`.
 *   - back: a birth after `now` cannot be. Up to `was` it moves along, else it becomes `now`. Earlier births stay; ages only shrink.
 *   - a message waits for its next attempt as long as it would have.
 *   - what is read from the disk is judged by the clock as it is then: a birth in the future, or before SCHED_PLAUSIBLE, becomes `now`, but
 *     only when the clock is set. While it is not, nothing is too old.
 *
 * Time in which the machine was off counts as age when both clocks were right, else it does not.
 */
#include "schedule.h"

#include "str.h"

#include <stdlib.h>
#include <string.h>

void
sched_init(struct sched *s, unsigned limit)
{
	memset(s, 0, offsetof(struct sched, dest));
	s->free = SCHED_NONE;
	s->limit = limit;
	s->dests = 1;
	memset(&s->dest[DEST_OTHER], 0, sizeof s->dest[DEST_OTHER]);
	s->dest[DEST_OTHER].head = SCHED_NONE;
}

/* ---- the heap ---- */

static int
before(const struct sched *s, uint32_t a, uint32_t b)
{
	return s->msg[a].next < s->msg[b].next;
}

static void
place(struct sched *s, uint32_t i, uint32_t m)
{
	s->heap[i] = m;
	s->msg[m].heap = i;
}

static void
sift_up(struct sched *s, uint32_t i, uint32_t m)
{
	while (i > 0 && before(s, m, s->heap[(i - 1) / 2])) {
		place(s, i, s->heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	place(s, i, m);
}

static void
sift_down(struct sched *s, uint32_t i, uint32_t m)
{
	for (;;) {
		uint32_t c = 2 * i + 1;

		if (c + 1 < s->timed && before(s, s->heap[c + 1], s->heap[c])) {
			c++;
		}
		if (c >= s->timed || !before(s, s->heap[c], m)) {
			break;
		}
		place(s, i, s->heap[c]);
		i = c;
	}
	place(s, i, m);
}

static int
grow(struct sched *s)
{
	/* By a half, not twofold: the smallest machines have 64 MB. */
	uint32_t cap = s->cap < 64 ? 128 : s->cap + s->cap / 2;
	struct sched_msg *msg;
	uint32_t *heap;

	if (cap >= SCHED_NONE / sizeof *msg) {
		return -1;
	}
	msg = realloc(s->msg, cap * sizeof *msg);
	if (msg == NULL) {
		return -1;
	}
	s->msg = msg;
	heap = realloc(s->heap, cap * sizeof *heap);
	if (heap == NULL) {
		return -1;
	}
	s->heap = heap;
	s->cap = cap;
	return 0;
}

uint32_t
sched_add(struct sched *s, uint64_t id, int64_t birth)
{
	uint32_t m = s->free;

	if (m != SCHED_NONE) {
		s->free = s->msg[m].link;
	} else if (s->used < s->cap || grow(s) == 0) {
		m = s->used++;
	} else {
		return SCHED_NONE;
	}
	memset(&s->msg[m], 0, sizeof s->msg[m]);
	s->msg[m].id = id;
	s->msg[m].birth = birth;
	s->msg[m].state = SCHED_BUSY;
	s->live++;
	return m;
}

void
sched_remove(struct sched *s, uint32_t m)
{
	s->msg[m].state = SCHED_FREE;
	s->msg[m].link = s->free;
	s->free = m;
	s->live--;
}

void
sched_at(struct sched *s, uint32_t m, int64_t when)
{
	s->msg[m].next = when;
	if (s->msg[m].hold) {
		s->msg[m].state = SCHED_HELD;
		return;
	}
	s->msg[m].state = SCHED_TIMED;
	sift_up(s, s->timed++, m);
}

uint32_t
sched_due(struct sched *s, int64_t now)
{
	uint32_t m;

	if (sched_next(s) > now) {
		return SCHED_NONE;
	}
	m = s->heap[0];
	s->timed--;
	if (s->timed > 0) {
		sift_down(s, 0, s->heap[s->timed]);
	}
	s->msg[m].state = SCHED_BUSY;
	return m;
}

int64_t
sched_next(const struct sched *s)
{
	return s->timed > 0 ? s->msg[s->heap[0]].next : INT64_MAX;
}

/* ---- lists ---- */

void
sched_enlist(struct sched *s, uint32_t m, unsigned d)
{
	struct dest *t = &s->dest[d];

	if (s->msg[m].hold) {
		s->msg[m].state = SCHED_HELD;
		return;
	}
	s->msg[m].state = SCHED_LISTED;
	s->msg[m].dest = (uint16_t)d;
	s->msg[m].link = SCHED_NONE;
	if (t->head == SCHED_NONE) {
		t->head = m;
	} else {
		s->msg[t->tail].link = m;
	}
	t->tail = m;
	t->waiting++;
}

uint32_t
sched_take(struct sched *s, unsigned d)
{
	struct dest *t = &s->dest[d];
	uint32_t m = t->head;

	if (m != SCHED_NONE) {
		t->head = s->msg[m].link;
		t->waiting--;
		s->msg[m].state = SCHED_BUSY;
	}
	return m;
}

static void
unlist(struct dest *t, struct sched_msg *msg, uint32_t m)
{
	uint32_t prev = SCHED_NONE;

	for (uint32_t i = t->head; i != m; i = msg[i].link) {
		prev = i;
	}
	if (prev == SCHED_NONE) {
		t->head = msg[m].link;
	} else {
		msg[prev].link = msg[m].link;
	}
	if (t->tail == m) {
		t->tail = prev;
	}
	t->waiting--;
}

void
sched_grab(struct sched *s, uint32_t m)
{
	uint32_t i = s->msg[m].heap;

	if (s->msg[m].state == SCHED_LISTED) {
		unlist(&s->dest[s->msg[m].dest], s->msg, m);
	} else if (s->msg[m].state == SCHED_TIMED && i < --s->timed) {
		uint32_t last = s->heap[s->timed];

		sift_down(s, i, last);
		sift_up(s, s->msg[last].heap, last);
	}
	s->msg[m].state = SCHED_BUSY;
}

void
sched_release(struct sched *s, unsigned d, int64_t now)
{
	uint32_t m;

	/* Due since its birth: so the heap gives the oldest one first. */
	while ((m = sched_take(s, d)) != SCHED_NONE) {
		sched_at(s, m, s->msg[m].birth < now ? s->msg[m].birth : now);
	}
}

void
sched_all(struct sched *s, int64_t now)
{
	for (unsigned d = 0; d < s->dests; d++) {
		s->dest[d].down = 0;
		s->dest[d].backoff = 0;
		s->dest[d].limit = s->limit;
		sched_release(s, d, now);
	}
	/* All times become births or `now`: the order has to be made anew. */
	for (uint32_t i = 0, n = s->timed; i < n; i++) {
		struct sched_msg *m = &s->msg[s->heap[i]];

		m->next = m->birth < now ? m->birth : now;
		sift_up(s, i, s->heap[i]);
	}
}

/* Is it late, for the first time that we look? */
static int
becomes_late(struct sched_msg *m, int64_t now, uint32_t delay)
{
	if (m->told != 0 || !sched_late(m, now, delay)) {
		return 0;
	}
	m->told = SCHED_ASKED;
	return 1;
}

void
sched_expire(struct sched *s, int64_t now, uint32_t lifetime, uint32_t delay)
{
	for (unsigned d = 1; d < s->dests; d++) {
		struct dest *t = &s->dest[d];

		for (uint32_t n = t->down ? t->waiting : 0; n > 0; n--) {
			uint32_t m = sched_take(s, d);

			if (sched_expired(s->msg[m].birth, now, lifetime) || becomes_late(&s->msg[m], now, delay)) {
				sched_at(s, m, now);
			} else {
				sched_enlist(s, m, d);
			}
		}
	}
	for (uint32_t i = 0, n = s->timed; i < n; i++) {
		struct sched_msg *m = &s->msg[s->heap[i]];

		if (m->next > now && becomes_late(m, now, delay)) {
			m->next = now;
			sift_up(s, i, s->heap[i]);
		}
	}
}

/* ---- time ---- */

static int64_t
isqrt(int64_t n)
{
	int64_t root = 0, bit = (int64_t)1 << 62;

	for (; bit > 0; bit >>= 2) {
		if (n >= root + bit) {
			n -= root + bit;
			root = (root >> 1) + bit;
		} else {
			root >>= 1;
		}
	}
	return root;
}

int64_t
sched_retry(int64_t birth, int64_t now)
{
	/* qmail-send counts on from the birth even when that is in the future; here the message then counts as new. */
	int64_t from = birth < now ? birth : now;
	int64_t n = isqrt(now - from) + 20;

	return from + n * n;
}

int
sched_expired(int64_t birth, int64_t now, uint32_t lifetime)
{
	return now >= BUILD_EPOCH && now - birth > (int64_t)lifetime;
}

int
sched_late(const struct sched_msg *m, int64_t now, uint32_t delay)
{
	return DELAY_NOTICE && delay > 0 && m->told != SCHED_TOLD && sched_expired(m->birth, now, delay);
}

int64_t
sched_birth(int64_t birth, int64_t was, int64_t now)
{
	if (now < was) {
		return birth <= now ? birth : birth <= was ? birth + (now - was) : now;
	}
	if (now > was && birth <= was) {
		return birth + (now - was);
	}
	return now >= BUILD_EPOCH && (birth < SCHED_PLAUSIBLE || birth > now) ? now : birth;
}

void
sched_step(struct sched *s, int64_t was, int64_t now, void (*changed)(void *ctx, const struct sched_msg *m), void *ctx)
{
	for (uint32_t i = 0; i < s->used; i++) {
		struct sched_msg *m = &s->msg[i];
		int64_t birth = m->birth;

		if (m->state == SCHED_FREE) {
			continue;
		}
		m->birth = sched_birth(birth, was, now);
		if (m->birth != birth) {
			changed(ctx, m);
		}
		m->next = now + (m->next - was);
	}
	/* All by the same, so the heap is still one. */
}

/* ---- destinations ---- */

static unsigned
hash(uint32_t route, const char *domain)
{
	uint32_t h = 5381 + route;

	for (; *domain != '\0'; domain++) {
		h = (h * 33) ^ (uint8_t)*domain;
	}
	return (h ^ h >> 16) % DESTS_MAX;
}

/* Nothing would be lost with it. */
static int
is_idle(const struct dest *t, int64_t mono)
{
	return t->head == SCHED_NONE && t->running == 0 && (!t->down || t->until <= mono);
}

/* A place for a new destination: an unused one, or that of the one not used for longest. DEST_OTHER: none. */
static unsigned
find_place(struct sched *s, int64_t mono)
{
	unsigned best = DEST_OTHER;
	uint16_t *p;

	if (s->dests < DESTS_MAX) {
		return s->dests++;
	}
	for (unsigned d = 1; d < DESTS_MAX; d++) {
		if (is_idle(&s->dest[d], mono) && (best == DEST_OTHER || s->dest[d].used < s->dest[best].used)) {
			best = d;
		}
	}
	if (best != DEST_OTHER) {
		p = &s->bucket[hash(s->dest[best].route, s->dest[best].domain)];
		while (*p != best) {
			p = &s->dest[*p].chain;
		}
		*p = s->dest[best].chain;
	}
	return best;
}

unsigned
dest_find(struct sched *s, uint32_t route, const char *domain, int64_t mono)
{
	uint16_t *first = &s->bucket[hash(route, domain)];
	unsigned d = *first;
	struct dest *t;

	while (d != 0 && (s->dest[d].route != route || strcmp(s->dest[d].domain, domain) != 0)) {
		d = s->dest[d].chain;
	}
	if (d == 0) {
		d = find_place(s, mono);
		if (d == DEST_OTHER) {
			return DEST_OTHER;
		}
		t = &s->dest[d];
		memset(t, 0, sizeof *t);
		(void)str_copy(t->domain, sizeof t->domain, domain);
		t->route = route;
		t->head = SCHED_NONE;
		t->limit = s->limit;
		t->chain = *first;
		*first = (uint16_t)d;
	}
	s->dest[d].used = mono;
	return d;
}

enum dest_may
dest_may(const struct sched *s, unsigned d, int64_t mono)
{
	const struct dest *t = &s->dest[d];

	if (d == DEST_OTHER) {
		return DEST_GO;
	}
	if (t->down) {
		return t->probing || mono < t->until ? DEST_DOWN : DEST_GO;
	}
	return t->running < t->limit ? DEST_GO : DEST_FULL;
}

int
dest_start(struct sched *s, unsigned d, int64_t mono)
{
	struct dest *t = &s->dest[d];

	t->running++;
	t->used = mono;
	if (t->down) {
		t->probing = 1;
	}
	return t->down;
}

/* Varied by an eighth either way, so that boxes that lost the same relay do not come back to it at the same moment. */
static int64_t
jitter(int64_t seconds)
{
	uint8_t r;

	random_bytes(&r, 1);
	return seconds - seconds / 8 + seconds * r / 1024;
}

enum dest_news
dest_end(struct sched *s, unsigned d, int probe, int reached, const char *error, int64_t mono)
{
	struct dest *t = &s->dest[d];
	int64_t most;

	t->running--;
	if (d == DEST_OTHER) {
		return DEST_SAME;
	}
	if (probe) {
		t->probing = 0;
	}
	if (reached == 1) {
		t->backoff = 0;
		if (t->down) {
			t->down = 0;
			t->limit = 1;
			return DEST_CAME_UP;
		}
		t->limit = t->limit < s->limit / 2 ? t->limit * 2 : s->limit;
		return DEST_SAME;
	}
	/* Others that were under way when it went down tell nothing new. */
	if (t->down ? !probe : reached == -1) {
		return DEST_SAME;
	}
	t->down = 1;
	most = t->route == DEST_MX ? BACKOFF_MAX : BACKOFF_ROUTE_MAX;
	t->backoff = t->backoff == 0 ? BACKOFF_FIRST : t->backoff * 2;
	t->backoff = t->backoff < most ? t->backoff : most;
	t->until = mono + jitter(t->backoff);
	if (reached == 0) {
		size_t len = strlen(error);

		len = len < sizeof t->error ? len : sizeof t->error - 1;
		memcpy(t->error, error, len);
		t->error[len] = '\0';
	}
	return DEST_WENT_DOWN;
}
