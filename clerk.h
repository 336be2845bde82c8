/* SPDX-License-Identifier: MIT */
/*
 * A helper process of main's that does its work beside sessions: one child, which can be killed at any moment; started when the configuration asks for
 * it, and anew when it ends, later each time that it was not well. main only. SIGTERM ends it at once.
 */
#ifndef MAILSTILE_CLERK_H
#define MAILSTILE_CLERK_H

#include "warden.h"

#include <stdint.h>
#include <sys/types.h>

struct clerk {
	const char *name; /* for ps(1) and the log */
	const char *event;
	pid_t pid;
	int wanted;
	int64_t began, start_at;
	int pause;
};

/* Go on with a new configuration. */
void clerk_renew(struct clerk *c);
/* With this signal; it is not started again. */
void clerk_stop(struct clerk *c, int sig);
/* When clerk_start() is to be called, mono_ms(), INT64_MAX = never. */
int64_t clerk_due(const struct clerk *c);
/* Start it if it is time, and `asked`: 0 in the child, which has still all that main has; else 1 it was started, -1 not. */
int clerk_start(struct clerk *c, int asked);
/* Was it this one? 1: it is taken note of. */
int clerk_died(struct clerk *c, pid_t pid, int status);

/* In the child, into its place as `role`: an empty root directory, without main's descriptors but `keep` (-1 = none). */
void clerk_place(const struct house *h, const struct clerk *c, enum priv_role role, int keep);
/* And with the signals that a loop expects: SIGINT calls `on_int`, only in a ppoll() that lets it through; or has the default. */
void clerk_signals(void (*on_int)(int));

#endif
