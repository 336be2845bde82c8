/* SPDX-License-Identifier: MIT */
/* Orders about the queue while no scheduler runs: `mailstile queue`. */
#ifndef MAILSTILE_OFFLINE_H
#define MAILSTILE_OFFLINE_H

#include "ctl.h"
#include "priv.h"

#include <stddef.h>

#if TOOLS && RELAY

/*
 * Be the scheduler of the queue at `home`/queue, of which `dir` is the directory: give up root for its user, take the lock, take new messages in; but
 * deliver nothing. 0, or an exit status, and stderr says why.
 */
int offline_begin(const char *home, const struct priv_ids *ids, int dir);
/* As ctl_query(). */
int offline_query(enum ctl_type type, uint64_t arg, void *answer, size_t size);
/* Leave the queue as a scheduler does that ends. */
void offline_end(void);

#else

/* clang-format off */
int offline_nobody(void);
static inline int offline_begin(const char *home, const struct priv_ids *ids, int dir)
{ (void)home; (void)ids; (void)dir; return offline_nobody(); }
static inline int offline_query(enum ctl_type type, uint64_t arg, void *answer, size_t size)
{ (void)type; (void)arg; (void)answer; (void)size; return -1; }
static inline void offline_end(void) {}
/* clang-format on */

#endif

#endif
