/* SPDX-License-Identifier: MIT */
/*
 * How much each login has sent: one file of fixed-size records, each with a lock of its own, so that all sessions, also those under inetd, and
 * `mailstile users` see each other at once. main opens it before it forks; wardens have the descriptor, nobody else keeps it.
 */
#ifndef MAILSTILE_USERS_H
#define MAILSTILE_USERS_H

#include "config.h"
#include "diag.h"
#include "limits.h"
#include "msg.h"

#include <stdint.h>
#include <sys/types.h>

/* Of flags; 1 is a record in use. */
#define USERS_BLOCKED 2U
#define USERS_LEFT 4U      /* `limit` is what RADIUS, who counts, had left then, and what had been sent here */
#define USERS_LEFT_RCPT 8U /* the same of limit_rcpt */

/* A record, as it is in the file, in the machine's byte order. */
struct users_record {
	uint32_t sum; /* over all the rest */
	uint32_t flags;
	uint32_t day;               /* days since 1970 at control/timezone; all of "today" is about it */
	uint32_t messages, rcpts;   /* today */
	uint32_t tripped;           /* a limit was met today, and that has been told */
	uint32_t total;             /* messages ever */
	uint32_t minute, burst;     /* the minute (since 1970) of the last message, and messages in it */
	uint32_t last;              /* when that was, in seconds since 1970 */
	uint32_t limit, limit_rcpt; /* a day, as they were then */
	uint32_t name_len;
	char name[AUTH_USER_MAX + 3];
	uint8_t zero[204];
};

#if ACCOUNTS

/*
 * Open USERS_FILE below `home` and make it where it is missing, for `uid` and `gid` (main as root) or for ourselves. 0, or -1 with the fault given to `d`:
 * without it every login is put off.
 */
int users_open(const char *home, int root, uid_t uid, gid_t gid, struct diag *d);
/* Say what is wrong with it, if it is there. `check`. */
void users_check(const char *home, int root, uid_t uid, struct diag *d);
/* Use this descriptor of such a file (tests), or make one in an empty file. 0 or -1. */
int users_use(int fd);
/* For processes that must not have it. */
void users_close(void);
/* Can it be had? Without it every login is put off. */
int users_there(void);
/* The day begins so many seconds before UTC's. */
void users_zone(int32_t seconds);

/*
 * A login of `user`: counted among his sessions for as long as this process lives, and l->left turned into a limit that counts from now. V_OK,
 * V_LIMIT_SESSIONS or V_NO_COUNTS.
 */
enum verdict users_login(const char *user, struct limits *l, int64_t now);
/*
 * May he send one more message, to `rcpts` recipients? V_OK, V_BLOCKED, V_LIMIT_DAY, V_LIMIT_RCPT, V_LIMIT_RATE, V_NO_COUNTS. *first: it is the
 * first limit he meets today, which is told to one caller only. users_book() also counts it, on the disk before it returns where that matters.
 */
enum verdict users_ask(const char *user, const struct limits *l, unsigned rcpts, int64_t now, int *first);
enum verdict users_book(const char *user, const struct limits *l, unsigned rcpts, int64_t now, int *first);
/* That one was not accepted after all. */
void users_unbook(const char *user, unsigned rcpts, int64_t now);

/* For `mailstile users`. The next record from *at on; 1, 0 at the end, -1 it is damaged (and skipped). */
int users_next(uint32_t *at, struct users_record *r, int64_t now);
/*
 * Set and clear flags; `again`: today begins anew. A user without a record gets one with `set`. 0; 1 the same, of one who has never sent anything;
 * -1: there is no such user, or errno is set.
 */
int users_change(const char *user, uint32_t set, uint32_t clear, int again, int64_t now);

#else
/* clang-format off */
static inline void users_close(void) { }
/* clang-format on */
#endif

int users_main(int argc, char **argv);

#endif
