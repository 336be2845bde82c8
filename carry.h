/* SPDX-License-Identifier: MIT */
/*
 * Main's side of delivery: the scheduler, the cleaner and the remotes' nursery (relay.h) are started together and end together.
 * When one of them dies, the scheduler is asked to finish, and all three are started anew. main only.
 */
#ifndef MAILSTILE_CARRY_H
#define MAILSTILE_CARRY_H

#include "ctl.h"
#include "warden.h"

#include <stdint.h>
#include <sys/types.h>

#if RELAY

/* Deliver as the configuration in `h` says from now on: what runs is asked to finish, and then the new ones start. */
void carry_renew(void);
/* To be called now and then, and when carry_due() has come: starts what should run and does not. */
void carry_tend(const struct house *h);
/* mono_ms() of the next thing to do, INT64_MAX = none. */
int64_t carry_due(void);
/* Was it one of them? 1: it is taken note of. */
int carry_died(pid_t pid, int status);
/* Ask the scheduler to finish, and start no new one. */
void carry_stop(void);
/* 1 while one of them lives. */
int carry_running(void);
/* End what still runs. */
void carry_kill(void);
/* Hand a tool's connection over to the scheduler, with what it asked. 0, or -1: there is none that could take it. */
int carry_hand(const struct ctl_ask *ask, int conn);
/* The descriptor that is for; -1 = none. */
int carry_ctl(void);
/* As ctl_status.delivers. */
unsigned carry_state(void);

#else

/* clang-format off */
static inline void carry_renew(void) {}
static inline void carry_tend(const struct house *h) { (void)h; }
static inline int64_t carry_due(void) { return INT64_MAX; }
static inline int carry_died(pid_t pid, int status) { (void)pid; (void)status; return 0; }
static inline void carry_stop(void) {}
static inline int carry_running(void) { return 0; }
static inline void carry_kill(void) {}
static inline int carry_hand(const struct ctl_ask *ask, int conn) { (void)ask; (void)conn; return -1; }
static inline int carry_ctl(void) { return -1; }
static inline unsigned carry_state(void) { return 0; }
/* clang-format on */

#endif
#endif
