/* SPDX-License-Identifier: MIT */
/*
 * What sessions share: one fixed-size mapping that main and wardens have and smtp processes do not. Parts are locked with
 * fcntl record locks, which die with their holder. Times are mono_ms(). It survives a re-execution of main.
 */
#ifndef MAILSTILE_SHARE_H
#define MAILSTILE_SHARE_H

#include "addr.h"
#include "config.h"
#include "ctl.h"

#include <stdatomic.h>
#include <stdint.h>

struct share_slot {
	_Atomic int32_t warden, smtp; /* pids, 0 = none: free when both are; written by main */
	_Atomic int32_t loggedin;     /* written by the warden */
	char sid[20];
	int64_t evicted; /* when main told it to go, 0 = not */
	int64_t start;
	struct addr client;
};

struct share_penalty {
	struct addr client;
	int64_t until;
	uint32_t fails;
};

struct share_guessed {
	uint64_t key;  /* of the account: guess.c */
	int64_t until; /* forgotten then */
	int64_t turn;  /* when the next stranger may try */
	uint32_t fails;
};

struct share_known {
	uint64_t key; /* of an account and a network */
	int64_t at;   /* when it last logged in from there */
};

struct share_radius {
	int64_t dead_until;     /* asked last until then */
	int64_t answered;       /* when it last did */
	int64_t told;           /* when the log began to get `lines` about it */
	uint32_t lines, untold; /* since then; left out since the last one */
	struct addr addr;       /* where the name points; all zero = not known yet */
};

struct share_tls {
	int64_t until;
	struct addr client;
	uint16_t version, suite;
	uint8_t id[32];
	uint8_t master[48];
};

struct share_line {
	int64_t at;
	char text[sizeof((struct ctl_line *)0)->text]; /* cut, NUL-terminated unless a warden was at odds with us */
};

struct share {
	uint32_t magic;
	uint32_t size;
	int64_t started;
	_Atomic uint32_t count[COUNTS];
	_Atomic uint32_t lines; /* ever written */
	struct share_line line[CTL_LINES_MAX];
	struct share_slot slot[SESSIONS_MAX];
	struct share_penalty penalty[PENALTIES_MAX];
#if GUESSING
	uint64_t guess_key;
	struct share_guessed guessed[GUESS_USERS_MAX];
	struct share_known known[GUESS_KNOWN_MAX];
#endif
	uint64_t radius_hash;         /* of radius.conf without its secrets: the same one goes on */
	uint32_t radius_generation;   /* changes when radius.conf was read anew */
	_Atomic uint32_t radius_good; /* server that answered last */
	struct share_radius radius[RADIUS_SERVERS_MAX];
	uint32_t tls_next;
	struct share_tls tls[TLS_CACHE_MAX ? TLS_CACHE_MAX : 1];
};

enum share_part { SHARE_PENALTY, SHARE_RADIUS, SHARE_TLS };

/* Make the mapping (fd -1), or take over the one behind `fd` after a re-execution; one of another layout is refused. NULL with
 * errno on failure. share_fd() is its descriptor, close-on-exec. */
struct share *share_open(int fd);
int share_fd(void);
/* 0: children forked from now on do not get it; 1: they do. */
int share_inherit(struct share *s, int fork_it);
/* Count an event. Forget none of the last lines that an operator should see: log_keep(). */
#if TOOLS
void share_count(struct share *s, enum ctl_count what, uint32_t n);
void share_keep_line(struct share *s, const char *text, size_t len);
#else
/* clang-format off */
static inline void share_count(struct share *s, enum ctl_count what, uint32_t n) { (void)s; (void)what; (void)n; }
static inline void share_keep_line(struct share *s, const char *text, size_t len) { (void)s; (void)text; (void)len; }
/* clang-format on */
#endif
void share_lock(enum share_part part);
void share_unlock(enum share_part part);

/* Failed logins of `client` in the last PENALTY_SECONDS. */
uint32_t share_fails(struct share *s, const struct addr *client);
/* Count one more, or forget them after a success. Returns the new count. */
uint32_t share_fail(struct share *s, const struct addr *client);
void share_forgive(struct share *s, const struct addr *client);

/* TLS sessions. An entry is given only to the client address that made it (IPv6: its /64). get: 1 found, 0 not. */
void share_tls_put(struct share *s, const struct addr *client, const uint8_t id[32], const uint8_t master[48],
    uint16_t version, uint16_t suite);
int share_tls_get(struct share *s, const struct addr *client, const uint8_t id[32], uint8_t master[48],
    uint16_t *version, uint16_t *suite);

#endif
