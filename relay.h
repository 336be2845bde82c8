/* SPDX-License-Identifier: MIT */
/*
 * Carrying the queue on (qmail-spec 2.5-2.7, 4). Three processes under main, started together when control/relay says so:
 *
 *   stile-relay    the scheduler: USER_SEND in the queue's directory. Reads todo/ and decides what is tried when. Never reads a
 *                  message or an octet from the network, but for the reports of remotes, which are text of a fixed size.
 *   stile-clean    USER_SPOOL in the queue's directory: unlinks what only that user may, and writes bounces.
 *   stile-remotes  a nursery, USER_REMOTE in the empty jail, with routes, trust anchors and the relays' passwords. Each delivery
 *                  is a fork of it: remote.c.
 */
#ifndef MAILSTILE_RELAY_H
#define MAILSTILE_RELAY_H

#include "warden.h"

/* The scheduler, in its place and with the queue as its current (root) directory. `clean`, `remotes`, `ctl` (ctl.h): sockets. Never returns;
 * exit status 0 after SIGTERM, RELAY_BUSY when another one holds lock/sendmutex, 111 else. */
#define RELAY_BUSY 100
_Noreturn void relay_run(const struct house *h, int clean, int remotes, int ctl);

/* The cleaner: answers on `sock` until end of file. */
_Noreturn void clean_run(const struct house *h, int sock);

/* One delivery process: jobs come over `sock`. Under its filter; descriptors: `sock`, the log, nothing else. */
_Noreturn void remote_run(const struct house *h, int sock);

#endif
