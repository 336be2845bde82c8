/* SPDX-License-Identifier: MIT */
/* What radius.c (a login, from one server to the next) and radhosts.c (the servers: which is first, and where it is) share. Nothing else includes this. */
#ifndef MAILSTILE_RADIUSINT_H
#define MAILSTILE_RADIUSINT_H

#include "radius.h"

/* radius.c: a UDP socket that is connected, the caller's to close; -1 with errno: there is no way to the address. */
int radius_connect(const struct addr *addr, uint16_t port);

/*
 * radhosts.c: into order[0..rc->servers), RADIUS_SERVERS_MAX of them at most, the numbers of the servers as they are to be asked: the one that answered
 * last, then the others as listed, dead ones at the end. Returns how many are alive.
 */
unsigned radius_order(const struct radius_conf *rc, const struct share *sh, unsigned *order);

#endif
