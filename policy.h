/* SPDX-License-Identifier: MIT */
/* Who may relay to whom. Pure over struct config; called by wardens only, which is what makes it binding. */
#ifndef MAILSTILE_POLICY_H
#define MAILSTILE_POLICY_H

#include "control.h"

/* What the rules say of a client address. */
struct policy_client {
	int deny;        /* drop the connection */
	int relay;       /* may relay without a login */
	char append[64]; /* appended to each recipient (RELAYCLIENT's value in tcp.smtp.cdb) */
	uint64_t databytes;
};

/*
 * Look a client up in tcp.smtp.cdb (tcprules' order for a bare address: full address, shrinking prefixes ending in '.' or
 * ':', the empty key; first hit wins) and in relayclients. `info` and `host` as tcpserver gives them, or NULL; they put
 * their own keys first (qmail-spec 7.2). A damaged rule file gives no relaying.
 */
void policy_client(
    const struct config *c, const struct addr *client, const char *info, const char *host, struct policy_client *out);

/* 1 when mail for the domain of `addr` (after its last '@') is taken from anybody: rcpthosts, exact and .suffix, then
 * morercpthosts.cdb in the same order. 0 when not, or when rcpthosts is missing. */
int policy_rcpthost(const struct config *c, const char *addr);

/* 1 when `addr` or its @domain is in badmailfrom. */
int policy_badmailfrom(const struct config *c, const char *addr);

/* 1 when the domain of `addr` is fully qualified: an address literal, or has a dot inside (RFC 6409 6.2). */
int policy_qualified(const char *addr);

#endif
