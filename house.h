/* SPDX-License-Identifier: MIT */
/* Setting the house up before sessions: what `serve` and `inetd` have in common. main, before any fork. */
#ifndef MAILSTILE_HOUSE_H
#define MAILSTILE_HOUSE_H

#include "diag.h"
#include "warden.h"

/*
 * Fill `h` from the control files below `home` (NULL: HOME_DIR): users, configuration, spool, jail, /dev/null; not the share.
 * Makes the first certificate. Findings go to `d`. 0, or an exit status: 100 the set-up is wrong, 111 the machine would not.
 */
int house_open(struct house *h, const char *home, struct diag *d);

/* Is the jail below c->home, if there is one already, fit for use? An error to `d`, else. `check`. */
void house_check_jail(const struct config *c, const struct priv_ids *ids, struct diag *d);

/* Read the control files again. 0: new sessions use them; -1: they are unusable, and the old ones stay. */
int house_reload(struct house *h, struct diag *d);

#endif
