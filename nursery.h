/* SPDX-License-Identifier: MIT */
/*
 * Where sessions come from: two processes that main forks once for each configuration, one in the place of a warden and one in that of an
 * smtp process, with privileges given up and the system call filter loaded. For each client they fork what serves it, which has nothing
 * left to give up. Doing all that for each session anew costs more than everything else a session does before its first message: loading a
 * filter alone is two forks' worth.
 */
#ifndef MAILSTILE_NURSERY_H
#define MAILSTILE_NURSERY_H

#include "warden.h"

/*
 * Start them, in place of those there were, whose sessions go on, and wait until they are in their places. `h` must hold what sessions are to
 * see, h->close what they are not; nothing else may be open. 0, or -1 with a log line and none running.
 */
int nursery_start(struct house *h);
/* 0 when one has died, or was stopped: start them again. */
int nursery_ready(void);
/* End them. They hold nothing that could be lost. */
void nursery_stop(void);
/* For other children of main: let go of them. */
void nursery_forget(void);
/*
 * Have a session born for the client at descriptor `client`: two children of ours, warden and smtp, whose pids go to *warden and *smtp (0
 * when there is none, *smtp -1 when nobody knows). 0 or -1; with -1, whichever is there will see the other one gone and end, smtp with a word
 * to the client. When it was a nursery's fault, nursery_ready() is 0 afterwards.
 */
int nursery_bear(const struct house *h, const struct session *se, int client, pid_t *warden, pid_t *smtp);
/* A child of ours has ended: 1 when it was a nursery. */
int nursery_died(pid_t pid);

#endif
