/* SPDX-License-Identifier: MIT */
/*
 * Guessing at passwords, beyond what delays the answers to one address (share_fail): an account at which strangers guess, and addresses
 * that are banned for a while. All of it is in the shared mapping, of fixed size, and forgotten after PENALTY_SECONDS.
 *
 * An account is guessed at after GUESS_FAILS failures from networks where it has not logged in lately. From then on logins into it from such
 * networks take turns, one a second, before the RADIUS server is asked; its owner's own networks (share_known) never wait.
 */
#ifndef MAILSTILE_GUESS_H
#define MAILSTILE_GUESS_H

#include "share.h"

#if GUESSING

/* How long a login into `user` from `client` has to wait, in milliseconds: 0 at once, -1 too long; the line grows by it. Warden. */
int guess_wait(struct share *s, const char *user, const struct addr *client);
/* That login has failed, or gone well. Warden. */
void guess_failed(struct share *s, const char *user, const struct addr *client);
void guess_went_well(struct share *s, const char *user, const struct addr *client);
/* Is the address banned? It waits for no lock that a warden could hold. Main. */
int guess_banned(const struct share *s, const struct addr *client);

#else

/* clang-format off */
static inline int guess_wait(struct share *s, const char *u, const struct addr *c) { (void)s; (void)u; (void)c; return 0; }
static inline void guess_failed(struct share *s, const char *u, const struct addr *c) { (void)s; (void)u; (void)c; }
static inline void guess_went_well(struct share *s, const char *u, const struct addr *c) { (void)s; (void)u; (void)c; }
static inline int guess_banned(const struct share *s, const struct addr *c) { (void)s; (void)c; return 0; }
/* clang-format on */

#endif

#endif
