/* SPDX-License-Identifier: MIT */
/* The cleaner (relay.h), with what it works on as an argument: for clean_run() and for tests. */
#ifndef MAILSTILE_CLEANINT_H
#define MAILSTILE_CLEANINT_H

#include "queue.h"
#include "relayconf.h"

struct cleaner {
	const struct relay_conf *conf;
	struct spool spool;
	uid_t send_uid; /* in the envelopes of bounces */
	char from[520];
};

_Noreturn void clean_loop(struct cleaner *c, int sock);

#endif
