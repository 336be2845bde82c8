/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The scheduler's memory (schedule.c): order, times, the clock being set, destinations.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "schedule.h"
#include "str.h"
#include "unit.h"

#define NOW ((int64_t)BUILD_EPOCH + 1000000)
#define DAY 86400

static struct sched s;

static void
fresh_table(unsigned limit)
{
	free(s.msg);
	free(s.heap);
	memset(&s, 0, sizeof s);
	sched_init(&s, limit);
}

static uint32_t
add(uint64_t id, int64_t birth, int64_t when)
{
	uint32_t m = sched_add(&s, id, birth);

	assert_int_not_equal(m, SCHED_NONE);
	sched_at(&s, m, when);
	return m;
}

static uint32_t seed = 1;

static uint32_t
rnd(uint32_t n)
{
	seed = seed * 1664525 + 1013904223;
	return (seed >> 8) % n;
}

/* Whatever comes and goes, the earliest is next, and each is given once. */
static void
test_order(void **state)
{
	enum { MANY = 3000 };
	static int64_t when[MANY + 1];
	int64_t last = INT64_MIN;
	uint32_t m, given = 0;

	(void)state;
	fresh_table(20);
	assert_int_equal(sched_next(&s), INT64_MAX);
	assert_int_equal(sched_due(&s, INT64_MAX - 1), SCHED_NONE);
	for (uint64_t id = 1; id <= MANY; id++) {
		when[id] = (int64_t)rnd(1000) - 500;
		add(id, 0, when[id]);
		if (rnd(3) == 0) {
			m = sched_due(&s, INT64_MAX - 1);
			for (uint64_t k = 1; k <= id; k++) {
				assert_true(when[k] >= s.msg[m].next);
			}
			when[s.msg[m].id] = INT64_MAX;
			sched_remove(&s, m);
			given++;
		}
	}
	assert_int_equal(s.live, MANY - given);
	assert_true(s.used < MANY); /* places are used again */
	assert_int_equal(sched_due(&s, sched_next(&s) - 1), SCHED_NONE);
	while ((m = sched_due(&s, INT64_MAX - 1)) != SCHED_NONE) {
		assert_true(s.msg[m].next >= last);
		assert_int_equal(when[s.msg[m].id], s.msg[m].next);
		when[s.msg[m].id] = INT64_MAX;
		last = s.msg[m].next;
		sched_remove(&s, m);
		given++;
	}
	assert_int_equal(given, MANY);
	assert_int_equal(s.live, 0);
}

/* qmail-spec 4.3. */
static void
test_retry(void **state)
{
	static const int64_t ages[][2] = { { 0, 400 }, { 1, 441 }, { 84, 841 }, { 399, 39 * 39 }, { 400, 1600 },
		{ 1600, 3600 }, { 3599, 79 * 79 }, { 604800, 797 * 797 }, { 608400, 640000 },
		{ (int64_t)1 << 40, 1048596LL * 1048596 } };

	(void)state;
	for (size_t i = 0; i < COUNT(ages); i++) {
		assert_int_equal(sched_retry(NOW, NOW + ages[i][0]) - NOW, ages[i][1]);
	}
	/* From the future: as if born now. */
	assert_int_equal(sched_retry(NOW + 50 * DAY, NOW), NOW + 400);
	assert_int_equal(sched_retry(0, 600), 44 * 44);
	/* Never further ahead than what counts as another clock's word. */
	assert_true(sched_retry(0, 2592000) - 2592000 < SCHED_AHEAD_MAX);
}

static void
test_expired(void **state)
{
	(void)state;
	assert_false(sched_expired(NOW - 604800, NOW, 604800));
	assert_true(sched_expired(NOW - 604801, NOW, 604800));
	assert_false(sched_expired(NOW + DAY, NOW, 604800));
	assert_false(sched_expired(0, 604801, 604800)); /* the clock is not set */
	assert_false(sched_expired(0, BUILD_EPOCH - 1, 604800));
	assert_true(sched_expired(0, BUILD_EPOCH, 604800));
}

static void
test_birth(void **state)
{
	const int64_t step = NOW - 600;

	(void)state;
	/* Booted in 1970, set ten minutes later. */
	assert_int_equal(sched_birth(100, 600, NOW), 100 + step);
	assert_int_equal(sched_birth(600, 600, NOW), NOW);
	assert_int_equal(sched_birth(NOW - DAY, 600, NOW), NOW - DAY); /* of an earlier boot, right */
	assert_int_equal(sched_birth(NOW - 20 * DAY, 600, NOW), NOW - 20 * DAY);
	assert_int_equal(sched_birth(10000, 600, NOW), NOW); /* of an earlier boot, wrong */
	assert_int_equal(sched_birth(NOW + DAY, 600, NOW), NOW);
	/* Set forward, but not right yet. */
	assert_int_equal(sched_birth(100, 600, 5000), 4500);
	assert_int_equal(sched_birth(10000, 600, 5000), 10000);
	assert_int_equal(sched_birth(NOW, 600, 5000), NOW);
	/* Right both times, or so it seems. */
	assert_int_equal(sched_birth(NOW - DAY, NOW, NOW + 900 * DAY), NOW + 899 * DAY);
	/* Back. */
	assert_int_equal(sched_birth(NOW - 100, NOW, NOW - DAY), NOW - DAY - 100);
	assert_int_equal(sched_birth(NOW - 2 * DAY, NOW, NOW - DAY), NOW - 2 * DAY);
	assert_int_equal(sched_birth(NOW + 5, NOW, NOW - DAY), NOW - DAY);
	assert_int_equal(sched_birth(NOW - DAY, NOW, 5000), 5000 - DAY);
	/* Read from the disk. */
	assert_int_equal(sched_birth(NOW - DAY, NOW, NOW), NOW - DAY);
	assert_int_equal(sched_birth(5000, NOW, NOW), NOW);
	assert_int_equal(sched_birth(NOW + 1, NOW, NOW), NOW);
	assert_int_equal(sched_birth(NOW, 600, 600), NOW);
	/* Of before this program was built: an upgrade does not make messages young. */
	assert_int_equal(sched_birth(BUILD_EPOCH - 5 * DAY, NOW, NOW), BUILD_EPOCH - 5 * DAY);
}

static unsigned changes;

static void
changed(void *ctx, const struct sched_msg *m)
{
	assert_ptr_equal(ctx, &s);
	assert_int_equal(m->birth, (int64_t)m->id + NOW - 600);
	changes++;
}

/* No message is too old by it, none waits longer, and the order stays. */
static void
test_step(void **state)
{
	uint32_t m, d, waits = 0;

	(void)state;
	fresh_table(20);
	for (uint64_t id = 1; id <= 500; id++) {
		add(id, (int64_t)id, 600 + (int64_t)rnd(1000));
	}
	d = dest_find(&s, 0, "", 0);
	m = sched_due(&s, INT64_MAX - 1);
	sched_enlist(&s, m, d);
	m = sched_due(&s, INT64_MAX - 1);
	sched_remove(&s, m);
	sched_step(&s, 600, NOW, changed, &s);
	assert_int_equal(changes, 499);
	while ((m = sched_due(&s, NOW + 1000)) != SCHED_NONE) {
		assert_in_range(s.msg[m].next, NOW, NOW + 1000);
		assert_false(sched_expired(s.msg[m].birth, NOW + 1000, 3600));
		waits++;
	}
	assert_int_equal(waits, 498);
}

/* ---- destinations ---- */

/* Every name finds its own entry; when all are taken the one not used for longest goes, but none that has something. */
static void
test_table(void **state)
{
	char name[32];
	unsigned d[DESTS_MAX + 10], first;

	(void)state;
	fresh_table(20);
	first = dest_find(&s, UINT32_MAX, "a.example", 1);
	assert_int_not_equal(first, DEST_OTHER);
	assert_int_equal(dest_find(&s, UINT32_MAX, "a.example", 1), first);
	assert_int_not_equal(dest_find(&s, 3, "", 1), dest_find(&s, 4, "", 1));
	for (unsigned i = 3; i < DESTS_MAX - 1; i++) {
		d[i] = dest_find(&s, UINT32_MAX, str_fmt(name, sizeof name, "d%u.example", i), 10 + i);
		assert_int_not_equal(d[i], DEST_OTHER);
		(void)dest_start(&s, d[i], 10 + i); /* all of these are busy */
	}
	assert_int_equal(s.dests, DESTS_MAX);
	/* The three of the beginning are idle, the oldest first. */
	assert_int_equal(dest_find(&s, UINT32_MAX, "x.example", 5000), first);
	sched_enlist(&s, sched_add(&s, 7, 0), first);
	assert_int_not_equal(dest_find(&s, UINT32_MAX, "y.example", 5001), DEST_OTHER);
	assert_int_not_equal(dest_find(&s, UINT32_MAX, "z.example", 5002), DEST_OTHER);
	assert_int_equal(dest_find(&s, UINT32_MAX, "x.example", 5003), first);
	for (unsigned i = 3; i < DESTS_MAX - 1; i++) {
		assert_int_equal(dest_find(&s, UINT32_MAX, str_fmt(name, sizeof name, "d%u.example", i), 6000), d[i]);
	}
	/* y and z are idle, y the older: but it is down now, and that is worth keeping. */
	(void)dest_start(&s, dest_find(&s, UINT32_MAX, "y.example", 6001), 6001);
	assert_int_equal(dest_end(&s, dest_find(&s, UINT32_MAX, "y.example", 6001), 0, 0, "no", 6002), DEST_WENT_DOWN);
	(void)dest_find(&s, UINT32_MAX, "v.example", 6003); /* in the place of z */
	(void)dest_start(&s, dest_find(&s, UINT32_MAX, "v.example", 6003), 6003);
	assert_int_equal(dest_find(&s, UINT32_MAX, "w.example", 6004), DEST_OTHER);
	assert_int_equal(dest_may(&s, DEST_OTHER, 6004), DEST_GO);
	assert_int_equal(dest_start(&s, DEST_OTHER, 6004), 0);
	assert_int_equal(dest_end(&s, DEST_OTHER, 0, 0, "no", 6005), DEST_SAME);
	assert_int_equal(dest_may(&s, DEST_OTHER, 6005), DEST_GO);
	/* Until its time is up. */
	assert_int_not_equal(dest_find(&s, UINT32_MAX, "w.example", 6002 + 2 * BACKOFF_FIRST), DEST_OTHER);
}

/* Back-off: doubled by probes only, up to BACKOFF_ROUTE_MAX (that of MX goes further); one probe at a time; slowly up again. */
static void
test_down_and_up(void **state)
{
	unsigned d, limits[] = { 1, 2, 4, 8, 16, 20, 20 };
	struct dest *t;
	int64_t mono = 100, backoff = BACKOFF_FIRST;

	(void)state;
	fresh_table(20);
	d = dest_find(&s, 0, "", mono);
	t = &s.dest[d];
	for (int i = 0; i < 20; i++) {
		assert_int_equal(dest_may(&s, d, mono), DEST_GO);
		assert_int_equal(dest_start(&s, d, mono), 0);
	}
	assert_int_equal(dest_may(&s, d, mono), DEST_FULL);
	/* A delivery that died says nothing, one that was heard nothing new. */
	assert_int_equal(dest_end(&s, d, 0, -1, "", mono), DEST_SAME);
	assert_int_equal(dest_end(&s, d, 0, 1, "", mono), DEST_SAME);
	assert_int_equal(dest_end(&s, d, 0, 0, "first", mono), DEST_WENT_DOWN);
	for (int i = 0; i < 17; i++) {
		assert_int_equal(dest_end(&s, d, 0, 0, "second", mono), DEST_SAME);
	}
	assert_string_equal(t->error, "first");
	for (int i = 0; i < 10; i++) {
		assert_in_range(t->until - mono, backoff * 7 / 8 - 1, backoff * 9 / 8 + 1);
		assert_int_equal(dest_may(&s, d, t->until - 1), DEST_DOWN);
		mono = t->until;
		assert_int_equal(dest_may(&s, d, mono), DEST_GO);
		assert_int_equal(dest_start(&s, d, mono), 1);
		assert_int_equal(dest_may(&s, d, mono + DAY), DEST_DOWN);
		mono += 60;
		/* One that dies is as good as one that found nobody, but has no reason to tell. */
		assert_int_equal(dest_end(&s, d, 1, i == 3 ? -1 : 0, i == 3 ? "died" : "probe", mono), DEST_WENT_DOWN);
		assert_string_equal(t->error, "probe");
		backoff = backoff * 2 < BACKOFF_ROUTE_MAX ? backoff * 2 : BACKOFF_ROUTE_MAX;
	}
	mono = t->until;
	assert_int_equal(dest_start(&s, d, mono), 1);
	assert_int_equal(dest_end(&s, d, 1, 1, "", mono), DEST_CAME_UP);
	for (size_t i = 0; i < COUNT(limits); i++) {
		assert_int_equal(t->limit, limits[i]);
		assert_int_equal(dest_start(&s, d, mono), 0);
		assert_int_equal(dest_end(&s, d, 0, 1, "", mono), DEST_SAME);
	}
	/* And from the beginning. */
	assert_int_equal(dest_start(&s, d, mono), 0);
	assert_int_equal(dest_end(&s, d, 0, 0, "again", mono), DEST_WENT_DOWN);
	assert_int_equal(t->backoff, BACKOFF_FIRST);
	/* An old delivery that gets through means it is up, whoever probes meanwhile; his failure then means it is down. */
	mono = t->until;
	t->running++;
	assert_int_equal(dest_start(&s, d, mono), 1);
	assert_int_equal(dest_end(&s, d, 0, 1, "", mono), DEST_CAME_UP);
	assert_int_equal(dest_may(&s, d, mono), DEST_FULL);
	assert_int_equal(dest_end(&s, d, 1, 0, "no", mono), DEST_WENT_DOWN);
	assert_int_equal(dest_may(&s, d, t->until), DEST_GO);
	d = dest_find(&s, DEST_MX, "dead.example", mono);
	for (int i = 0; i < 10; i++) {
		int probe = dest_start(&s, d, mono);

		assert_int_equal(dest_end(&s, d, probe, 0, "no", mono), DEST_WENT_DOWN);
		mono = s.dest[d].until;
	}
	assert_int_equal(s.dest[d].backoff, BACKOFF_MAX);
}

static void
test_long_error(void **state)
{
	char text[1001];
	unsigned d;

	(void)state;
	fresh_table(1);
	memset(text, 'x', 1000);
	text[1000] = '\0';
	d = dest_find(&s, 0, "", 0);
	(void)dest_start(&s, d, 0);
	assert_int_equal(dest_end(&s, d, 0, 0, text, 0), DEST_WENT_DOWN);
	assert_int_equal(strlen(s.dest[d].error), sizeof s.dest[d].error - 1);
}

/* A list keeps the order of arrival; released, that of birth; what expired leaves it alone. */
static void
test_lists(void **state)
{
	static const int64_t births[] = { 50, 20, 90, 20, 10 };
	static const uint64_t by_birth[] = { 5, 2, 4, 1, 3 };
	unsigned d;
	uint32_t m;

	(void)state;
	fresh_table(20);
	d = dest_find(&s, 0, "", 0);
	for (unsigned i = 0; i < COUNT(births); i++) {
		sched_enlist(&s, sched_add(&s, i + 1, NOW + births[i]), d);
	}
	for (unsigned i = 0; i < 2; i++) {
		m = sched_take(&s, d);
		assert_int_equal(s.msg[m].id, i + 1);
		sched_enlist(&s, m, d);
	}
	assert_int_equal(s.dest[d].waiting, 5);
	/* Only where it is down. */
	sched_expire(&s, NOW + 1000, 900, 0);
	assert_int_equal(s.dest[d].waiting, 5);
	s.dest[d].down = 1;
	sched_expire(&s, NOW + 1000, 970, 0);
	assert_int_equal(s.dest[d].waiting, 2);
	for (int i = 0; i < 3; i++) {
		m = sched_due(&s, NOW + 1000);
		assert_true(s.msg[m].birth <= NOW + 20);
		sched_enlist(&s, m, d);
	}
	assert_int_equal(sched_due(&s, INT64_MAX - 1), SCHED_NONE);
	sched_release(&s, d, NOW + 1000);
	assert_int_equal(s.dest[d].waiting, 0);
	assert_int_equal(sched_take(&s, d), SCHED_NONE);
	for (size_t i = 0; i < COUNT(by_birth); i++) {
		m = sched_due(&s, NOW + 1000);
		assert_int_equal(s.msg[m].birth, NOW + births[by_birth[i] - 1]);
		sched_enlist(&s, m, d);
	}
	/* ALRM: all of it, and what had its time. */
	add(100, NOW + 15, NOW + 5000);
	add(101, NOW + 5000, NOW + 5000);
	s.dest[d].down = 1;
	sched_all(&s, NOW + 1000);
	assert_int_equal(s.dest[d].down, 0);
	for (int64_t last = 0, n = 0; n < 7; n++) {
		m = sched_due(&s, NOW + 1000);
		assert_int_not_equal(m, SCHED_NONE);
		assert_true(s.msg[m].next >= last);
		last = s.msg[m].next;
	}
}

static void
ignore(void *ctx, const struct sched_msg *m)
{
	(void)ctx;
	(void)m;
}

/* Held: out of heap and lists, whatever happens, until it is taken; and taking one leaves the others in order. */
static void
test_hold(void **state)
{
	uint32_t m[40];
	unsigned d;

	(void)state;
	fresh_table(5);
	d = dest_find(&s, 1, "b.example", 0);
	for (unsigned i = 0; i < 40; i++) {
		m[i] = add(i + 1, NOW - DAY, NOW + (int64_t)(i * 17 % 40));
	}
	for (unsigned i = 0; i < 40; i += 3) {
		sched_grab(&s, m[i]);
		s.msg[m[i]].hold = 1;
		sched_at(&s, m[i], NOW);
		assert_int_equal(s.msg[m[i]].state, SCHED_HELD);
	}
	sched_grab(&s, m[1]);
	sched_enlist(&s, m[1], d);
	sched_grab(&s, m[2]);
	sched_enlist(&s, m[2], d);
	sched_grab(&s, m[2]); /* the last one: the list's end moves */
	s.msg[m[2]].hold = 1;
	sched_enlist(&s, m[2], d);
	sched_grab(&s, m[4]);
	sched_enlist(&s, m[4], d);
	assert_int_equal(s.dest[d].waiting, 2);
	sched_step(&s, NOW, NOW + 1000 * DAY, ignore, NULL);
	sched_expire(&s, NOW + 1000 * DAY, 1, 0);
	sched_all(&s, NOW + 1000 * DAY);
	for (unsigned n = 0; n < 40 - 14 - 1; n++) {
		uint32_t got = sched_due(&s, NOW + 1000 * DAY);

		assert_int_not_equal(got, SCHED_NONE);
		assert_int_equal(s.msg[got].hold, 0);
	}
	assert_int_equal(sched_due(&s, INT64_MAX - 1), SCHED_NONE);
	s.msg[m[2]].hold = 0;
	sched_grab(&s, m[2]);
	sched_at(&s, m[2], NOW);
	assert_int_equal(sched_due(&s, NOW), m[2]);
}

/* Late, once each, wherever it waits; not while it is due anyway, nor when it was told, nor while the clock is not set, nor by a step of it. */
static void
test_late(void **state)
{
	uint32_t m[6], got;
	unsigned d;
	struct sched_msg old = { .birth = 0 };

	(void)state;
	assert_false(sched_late(&old, BUILD_EPOCH - 1, 3600));
	assert_true(sched_late(&old, BUILD_EPOCH, 3600));
	assert_false(sched_late(&old, BUILD_EPOCH, 0));
	old.told = SCHED_TOLD;
	assert_false(sched_late(&old, BUILD_EPOCH, 3600));

	fresh_table(20);
	d = dest_find(&s, 0, "", 0);
	for (unsigned i = 0; i < COUNT(m); i++) {
		m[i] = sched_add(&s, i + 1, NOW);
	}
	sched_at(&s, m[0], NOW + 9000);
	sched_at(&s, m[1], NOW + 8000);
	sched_at(&s, m[2], NOW + 3600); /* due at that moment */
	sched_enlist(&s, m[3], d);
	s.msg[m[4]].hold = 1;
	sched_at(&s, m[4], NOW);
	s.msg[m[5]].told = SCHED_TOLD;
	sched_at(&s, m[5], NOW + 7000);
	sched_expire(&s, NOW + 3600, DAY, 3600);
	assert_int_equal(sched_next(&s), NOW + 3600);
	assert_int_equal(sched_due(&s, NOW + 3600), m[2]);
	assert_int_equal(sched_due(&s, NOW + 3600), SCHED_NONE);
	sched_expire(&s, NOW + 3601, DAY, 0);
	assert_int_equal(sched_due(&s, NOW + 3601), SCHED_NONE);
	sched_step(&s, NOW + 3601, NOW + 1000 * DAY, ignore, NULL);
	sched_step(&s, NOW + 1000 * DAY - 1, NOW + 3600, ignore, NULL);
	sched_expire(&s, NOW + 3600, DAY, 3600);
	assert_int_equal(sched_due(&s, NOW + 3600), SCHED_NONE);
	sched_expire(&s, NOW + 3602, DAY, 3600);
	got = sched_due(&s, NOW + 3602);
	assert_true(got == m[0] || got == m[1]);
	got = m[0] + m[1] - got;
	assert_int_equal(sched_due(&s, NOW + 3602), got);
	assert_int_equal(sched_due(&s, NOW + 3602), SCHED_NONE); /* its destination is up: its turn comes */
	s.dest[d].down = 1;
	sched_expire(&s, NOW + 3602, DAY, 3600);
	assert_int_equal(sched_due(&s, NOW + 3602), m[3]);
	for (unsigned i = 0; i < 4; i += 3) {
		assert_int_equal(s.msg[m[i]].told, SCHED_ASKED);
		assert_true(sched_late(&s.msg[m[i]], NOW + 3602, 3600));
	}
	sched_at(&s, m[0], NOW + 9000);
	sched_enlist(&s, m[3], d);
	sched_expire(&s, NOW + 5000, DAY, 3600);
	assert_int_equal(sched_due(&s, NOW + 5000), SCHED_NONE);
	assert_int_equal(s.msg[m[4]].state, SCHED_HELD);
	assert_int_equal(s.msg[m[4]].told, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_retry),
		cmocka_unit_test(test_expired),
		cmocka_unit_test(test_birth),
		cmocka_unit_test(test_step),
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_down_and_up),
		cmocka_unit_test(test_long_error),
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_hold),
		cmocka_unit_test(test_late),
	};
	int rc = cmocka_run_group_tests(tests, NULL, NULL);

	free(s.msg);
	free(s.heap);
	return rc;
}
