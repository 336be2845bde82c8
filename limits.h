/* SPDX-License-Identifier: MIT */
/*
 * What a login may do, as numbers: from config.h, control/userlimits, and what RADIUS said with its Access-Accept, in this order; what comes later
 * counts. Pure. Wardens; main reads the file, with limits_check(), and `check`.
 */
#ifndef MAILSTILE_LIMITS_H
#define MAILSTILE_LIMITS_H

#include "config.h"
#include "diag.h"

#include <stddef.h>
#include <stdint.h>

#define LIMIT_NONE UINT32_MAX /* not limited */
#define LIMITS_FROMS_MAX 4

struct limits {
	uint32_t day, rcpt;         /* messages and recipients a day */
	uint32_t left, left_rcpt;   /* the same from now until midnight, when RADIUS counts; these go over those */
	uint32_t rate;              /* messages a minute */
	uint32_t sessions;          /* at once */
	uint32_t session_s, idle_s; /* seconds: of the session, counted from the login; without a command */
	uint64_t size;              /* octets of a message, 0 = not limited */
	int relay;                  /* 0: may not send */
	unsigned froms;             /* senders it may use; 0 = any */
	char from[LIMITS_FROMS_MAX][SMTP_PATH_MAX + 1]; /* `user@domain`, `@domain`, or empty for the empty one */
};

/* Those of config.h. */
void limits_default(struct limits *l);

/* Read items (`day=200,from=@example.net`) of text[0..len). 0, or -1 with constant text in *why; `l` is spoilt then. */
int limits_items(struct limits *l, const char *text, size_t len, const char **why);

/* Is all of control/userlimits (`text`, lines `[USER]:items`) well formed? 0, or -1 with the faults given to `d`. */
int limits_check(const char *text, struct diag *d, const char *file);

/* Apply the line for everybody, and then the one for `user`. `text` has passed limits_check(); NULL: there is no such file. */
void limits_file(struct limits *l, const char *text, const char *user);

/* Apply well-formed attributes p[0..len), as radius.c keeps them. 0, or -1 with constant text in *why; `l` is spoilt then. */
int limits_radius(struct limits *l, const uint8_t *p, size_t len, const char **why);

/* May it use this envelope sender (or author)? 1 or 0. */
int limits_from_ok(const struct limits *l, const char *addr);

#endif
