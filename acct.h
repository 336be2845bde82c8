/* SPDX-License-Identifier: MIT */
/*
 * RADIUS accounting (RFC 2866): what each login has sent. A warden writes how its session stands into a place of its own in a file; the process
 * `stile-acct` compares that with what the server has acknowledged, and sends the difference. So nothing waits for the network, a file of
 * fixed size is all that is ever needed, what is not acknowledged survives a restart, and the Stop of a session that was killed is sent as well: a
 * warden holds a record lock on its place, which goes with it.
 *
 * A place has two halves, each written by one side only, each with a sum: one that does not match is being written, or was torn by a power cut.
 */
#ifndef MAILSTILE_ACCT_H
#define MAILSTILE_ACCT_H

#include "addr.h"
#include "config.h"
#include "diag.h"

#include <stdint.h>
#include <sys/types.h>

enum acct_state { ACCT_FREE, ACCT_OPEN, ACCT_ENDED };

/* Acct-Terminate-Cause, RFC 2866 5.10. */
enum acct_cause {
	CAUSE_USER_REQUEST = 1,
	CAUSE_LOST_CARRIER = 2,
	CAUSE_IDLE_TIMEOUT = 4,
	CAUSE_SESSION_TIMEOUT = 5,
	CAUSE_ADMIN_RESET = 6,
	CAUSE_NAS_ERROR = 9,
	CAUSE_NAS_REQUEST = 10,
	CAUSE_NAS_REBOOT = 11,
	CAUSE_USER_ERROR = 17
};

#define ACCT_CLASS_MAX 320

/* The warden's half. Times are mono_ms() of this `run`, or the real-time clock's seconds, 0 where it was not set. */
struct acct_session {
	uint32_t sum; /* over all that follows */
	uint32_t state;
	uint32_t run;   /* share.run: another one after each start of main */
	uint32_t cause; /* ACCT_ENDED */
	int64_t began, changed;
	int64_t began_real, changed_real;
	uint64_t octets;
	uint32_t messages, rcpts, rejected;
	uint32_t asked;   /* counts up when what the server has left for this login is wanted */
	uint32_t interim; /* seconds between Interims, 0 = none */
	uint32_t keeps;   /* the server keeps an allowance: an Interim for each message */
	uint32_t class_len;
	char sid[20];
	char client[ADDR_TEXT_MAX];
	char user[AUTH_USER_MAX + 1];
	uint8_t class[ACCT_CLASS_MAX]; /* attributes, as they came */
};

/* The accountant's half: what is acknowledged of that session, and what the server said is left. */
struct acct_acked {
	uint32_t sum;
	char sid[20];
	uint32_t start, stop;
	uint32_t messages, asked; /* acct_session's, when the last acknowledged record was made */
	uint32_t left, left_rcpt; /* LIMIT_NONE: not said */
	uint32_t rcpts;
	int64_t at; /* mono_ms() */
};

#define ACCT_PLACE 1024
#define ACCT_HALF 832 /* where the accountant's begins */
_Static_assert(sizeof(struct acct_session) <= ACCT_HALF, "acct_session: does not fit");
_Static_assert(sizeof(struct acct_acked) <= ACCT_PLACE - ACCT_HALF, "acct_acked: does not fit");

struct acct_place {
	union {
		struct acct_session s;
		uint8_t room[ACCT_HALF];
	};
	union {
		struct acct_acked a;
		uint8_t more[ACCT_PLACE - ACCT_HALF];
	};
};
_Static_assert(sizeof(struct acct_place) == ACCT_PLACE, "acct_place: size");

struct config;
struct house;
struct radius_answer;
struct limits;

#if ACCOUNTING

/*
 * main: open ACCT_FILE below `home`, and make it where it is missing, for `uid` and `gid`; and the bell that wardens ring. 0, or -1 with the fault
 * given to `d`: nobody is accounted for. Nothing is done when it is open already.
 */
int acct_open(const char *home, int root, uid_t uid, gid_t gid, struct diag *d);
/* For processes that must not have it; before any lock is held. */
void acct_close(void);
/* The server may say in its answers what is left; -1: none is open. */
int acct_fd(void);
int acct_bell(void);
/* Is accounting asked for by radius.conf? */
int acct_wanted(const struct config *c);

/* Warden: the session `sid` of `user` begins. Without a place for it, which is logged, the others do nothing. */
void acct_begin(
    uint32_t run, const char *sid, const char *client, const char *user, const struct radius_answer *a, int keeps);
/* A message was taken; a recipient was refused. */
void acct_message(unsigned rcpts, uint64_t octets);
void acct_rejected(void);
/* What is left, as the server said last, less what this session has sent since: *left, *left_rcpt, LIMIT_NONE = nothing said. An old answer is renewed. */
void acct_left(uint32_t *left, uint32_t *left_rcpt);
void acct_end(enum acct_cause cause);

/* Place `i`, or its halves, whole: 1, or 0 when it cannot be read now. */
int acct_read(unsigned i, struct acct_place *p);
void acct_write_session(unsigned i, struct acct_session *s);
void acct_write_acked(unsigned i, struct acct_acked *a);
/* Does a living process hold place `i`? */
int acct_held(unsigned i);
/* Be the only accountant. 0 or -1. */
int acct_alone(void);
void acct_sync(void);

#else

/* clang-format off */
static inline void acct_close(void) {}
static inline int acct_fd(void) { return -1; }
static inline int acct_wanted(const struct config *c) { (void)c; return 0; }
static inline void acct_begin(uint32_t run, const char *sid, const char *client, const char *user, const struct radius_answer *a, int keeps)
{ (void)run; (void)sid; (void)client; (void)user; (void)a; (void)keeps; }
static inline void acct_message(unsigned rcpts, uint64_t octets) { (void)rcpts; (void)octets; }
static inline void acct_rejected(void) {}
static inline void acct_left(uint32_t *left, uint32_t *left_rcpt) { *left = *left_rcpt = UINT32_MAX; }
static inline void acct_end(enum acct_cause cause) { (void)cause; }
/* clang-format on */

#endif
#endif
