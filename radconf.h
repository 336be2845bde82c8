/* SPDX-License-Identifier: MIT */
/* radius.conf: see control_parse_radius() of control.h, and mailstile-radius(5). main and applets. */
#ifndef MAILSTILE_RADCONF_H
#define MAILSTILE_RADCONF_H

#include "control.h"
#include "tlscheck.h"

/* Read it, and the files it names, into c->radius, c->radsec and c->secrets. On a fault, which `d` is told, there are no servers. */
void radconf_load(struct config *c, struct diag *d);
void radconf_free(struct config *c);

#endif
