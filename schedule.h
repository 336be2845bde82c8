/* SPDX-License-Identifier: MIT */
/*
 * What the scheduler knows of the queue: one small record for each message, ordered by when it is due, and a bounded table of
 * destinations that all messages share. Pure: no files, no clock of its own. Times are seconds; `now` is the clock's (that of file times),
 * `mono` one that only goes forward.
 */
#ifndef MAILSTILE_SCHEDULE_H
#define MAILSTILE_SCHEDULE_H

#include "config.h"
#include "ctl.h"

#include <stddef.h>
#include <stdint.h>

#define SCHED_NONE UINT32_MAX
/* No honest attempt lies further ahead than this: with QUEUE_LIFETIME's largest value it would be 66000 seconds. */
#define SCHED_AHEAD_MAX 172800
/* The time of remote/N when an operator holds the message: qmail-send, too, will wait for it. Any time_t can have it. */
#define SCHED_HOLD CTL_HOLD_TIME

/* A birth before this was written by a clock that was not set: such a message would have expired before this program was built. */
#define SCHED_PLAUSIBLE (BUILD_EPOCH - 2592000)

enum sched_state {
	SCHED_FREE,
	SCHED_BUSY,   /* in the hands of a pass */
	SCHED_TIMED,  /* in the heap, until `next` */
	SCHED_LISTED, /* due, or waiting, at its destination */
	SCHED_HELD    /* nowhere, until someone takes it */
};

struct sched_msg {
	uint64_t id;
	int64_t birth; /* as the time of info/N */
	int64_t next;
	uint32_t heap; /* place in the heap */
	uint32_t link; /* the next one at the destination, or the next free record */
	uint16_t dest; /* SCHED_LISTED */
	uint8_t state;
	uint8_t hold;     /* wherever it is sent, it becomes SCHED_HELD */
	uint8_t why_turn; /* of `why` */
	uint8_t told;     /* SCHED_ASKED, SCHED_TOLD */
	uint16_t why;     /* relayctl.c: what its last attempt came to, 0 = nothing is known */
};
/* sched_msg.told: it was late, and has been made due for that; its sender has been told. */
#define SCHED_ASKED 1
#define SCHED_TOLD 2
/* With its place in the heap: what a queued message costs. */
_Static_assert(sizeof(struct sched_msg) + sizeof(uint32_t) <= 64, "a queued message may cost 64 octets");

/* ---- destinations: a route of smtproutes, or a domain for MX ---- */

#define DESTS_MAX 1024 /* of which the first one stands for all that found no place: it is never down and has no list */
#define DEST_OTHER 0
#define DEST_MX UINT32_MAX /* for `route`: DELIVER_MX */

struct dest {
	char domain[256]; /* for MX; "" for a route */
	char error[200];  /* why nobody could be reached */
	uint32_t route;
	uint32_t head, tail, waiting; /* messages: due, or waiting for the destination to come back */
	uint16_t chain;
	uint8_t down, probing;
	unsigned running;       /* deliveries */
	unsigned limit;         /* and how many there may be */
	int64_t backoff, until; /* down: nobody tries before `until` (mono) */
	int64_t used;           /* mono */
};

enum dest_may {
	DEST_GO,   /* a delivery may start */
	DEST_FULL, /* not before one ends */
	DEST_DOWN  /* not before it is known to be up */
};

struct sched {
	struct sched_msg *msg;
	uint32_t *heap;
	uint32_t cap, used, free, live, timed;
	unsigned limit; /* deliveries to one destination */
	unsigned dests; /* in use, with DEST_OTHER */
	uint16_t bucket[DESTS_MAX];
	struct dest dest[DESTS_MAX];
};

void sched_init(struct sched *s, unsigned limit);
/* A new message: its record, SCHED_BUSY. SCHED_NONE: no memory. */
uint32_t sched_add(struct sched *s, uint64_t id, int64_t birth);
/* A message that is SCHED_BUSY: is to be looked at then; is forgotten; goes to the end of a destination's list. */
void sched_at(struct sched *s, uint32_t m, int64_t when);
void sched_remove(struct sched *s, uint32_t m);
void sched_enlist(struct sched *s, uint32_t m, unsigned d);
/* The message that is due next, now SCHED_BUSY; or SCHED_NONE. */
uint32_t sched_due(struct sched *s, int64_t now);
/* When the next one is due; INT64_MAX = none is. */
int64_t sched_next(const struct sched *s);
/* The first message of a destination's list, now SCHED_BUSY; or SCHED_NONE. */
uint32_t sched_take(struct sched *s, unsigned d);
/* Take a message from wherever it is: now SCHED_BUSY, as it must not be before. */
void sched_grab(struct sched *s, uint32_t m);
/* Make all of a list due now, in the order of birth. */
void sched_release(struct sched *s, unsigned d, int64_t now);
/* Make everything due now and forget what is known of destinations. */
void sched_all(struct sched *s, int64_t now);
/*
 * Make those due now that wait for a destination that is down but have waited long enough (sched_expired()); and, once each, those that
 * have become late (sched_late()), whatever they wait for: they are tried before their sender is told.
 */
void sched_expire(struct sched *s, int64_t now, uint32_t lifetime, uint32_t delay);

/* When a message is to be tried again after an attempt at `now`: birth + (isqrt(age) + 20)^2, as qmail-send does it. */
int64_t sched_retry(int64_t birth, int64_t now);
/* Is it too old to be tried yet again? Never while the clock is not set. */
int sched_expired(int64_t birth, int64_t now, uint32_t lifetime);
/* Has it waited so long that its sender should hear of it, and has not? `delay` 0: nobody is told. Never while the clock is not set. */
int sched_late(const struct sched_msg *m, int64_t now, uint32_t delay);
/*
 * What a message's time of birth becomes when the clock is set from `was` to `now`; and when it is read from the disk, where another clock
 * may have written it (`was` = `now`). See schedule.c.
 */
int64_t sched_birth(int64_t birth, int64_t was, int64_t now);
/* The clock was set: put all messages right. `changed` is told of each new birth, to write it down. */
void sched_step(
    struct sched *s, int64_t was, int64_t now, void (*changed)(void *ctx, const struct sched_msg *m), void *ctx);

/* The entry of a destination, made when it is new; DEST_OTHER when there is no room. `domain` is lower case, under 256 octets. */
unsigned dest_find(struct sched *s, uint32_t route, const char *domain, int64_t mono);
enum dest_may dest_may(const struct sched *s, unsigned d, int64_t mono);
/* A delivery starts: 1 when it is to find out whether the destination is up again. */
int dest_start(struct sched *s, unsigned d, int64_t mono);
enum dest_news { DEST_SAME, DEST_WENT_DOWN, DEST_CAME_UP };
/*
 * It has ended: `probe` is what dest_start() said. `reached`: 1 there was somebody, 0 there was not (`error` says why), -1 nobody knows.
 * DEST_WENT_DOWN also when it stays down for another, longer time; DEST_CAME_UP: call sched_release().
 */
enum dest_news dest_end(struct sched *s, unsigned d, int probe, int reached, const char *error, int64_t mono);

#endif
