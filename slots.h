/* SPDX-License-Identifier: MIT */
/* The sessions there are, as main keeps account of them. main only. */
#ifndef MAILSTILE_SLOTS_H
#define MAILSTILE_SLOTS_H

#include "share.h"

#include <sys/types.h>

/* Where the account is kept. Before all else. */
void slots_use(struct share *s);
/*
 * Is there room for one more from this address? The index of a free slot, or -1 and why. Guests who must make room for the client are
 * told to go.
 */
int slots_find_room(const struct addr *client, const char **why);
/* Begin a session in slot `i`. The caller then stores the pids of its processes. */
struct share_slot *slots_begin(int i, const struct addr *client, const char *sid);
/* A child of ours has ended, perhaps one of a session's. 1 when that was a crash. */
int slots_reaped(pid_t pid, int status);
/* 1 when it ended by a signal that is a sign of a fault or an attack. */
int slots_by_crash(int status);
/* 1 while an smtp process whose warden is gone has not ended, which makes no signal. */
int slots_lingering(void);
unsigned slots_running(void);
/* Those who were told to go `seconds` ago and did not are ended. */
void slots_end_evicted(int seconds);
/* All who only wait are told 421, and the others when they have finished their message. */
void slots_drain(void);
/*
 * End sessions that began before `older_than` (mono_ms()): smtp at once, and the warden by SIGTERM, on which it removes what is unfinished
 * in the spool, or by SIGKILL.
 */
void slots_kill(int64_t older_than, int sig);

#endif
