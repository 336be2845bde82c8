/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The servers of radius.conf as hosts: which of them is asked first, and where they are. All sessions share what is known of that (share.h), as
 * long as it is about the same radius.conf.
 *
 * Order and addresses: wardens, stile-radius, and applets that ask for themselves; no file is read. Names are looked up by main's resolver process,
 * before a session by inetd, and by those applets; that reads resolv.conf and hosts.
 */
#include "radiusint.h"

#include "dns.h"
#include "str.h"

#include <string.h>
#include <unistd.h>

#define RESOLVE_MS 30000 /* looking up all names takes no longer */

/* ---- whom to ask ---- */

unsigned
radius_order(const struct radius_conf *rc, const struct share *sh, unsigned *order)
{
	unsigned dead[RADIUS_SERVERS_MAX] = { 0 };
	int64_t now = mono_ms();
	unsigned n = 0, m = 0;
	unsigned good = atomic_load(&sh->radius_good);

	for (unsigned k = 0; k < rc->servers; k++) {
		unsigned i = good >= rc->servers ? k : k == 0 ? good : k <= good ? k - 1 : k;

		if (sh->radius[i].dead_until <= now) {
			order[n++] = i;
		} else {
			dead[m++] = i;
		}
	}
	memcpy(order + n, dead, m * sizeof *dead);
	return n;
}

/*
 * Remember what came of a request that was sent at `asked`. One that brought no answer says nothing of a server that has answered others
 * meanwhile: a stranger can choose what a server is silent about, with a name whose realm's server is down.
 */
void
radius_mark(struct share *sh, uint32_t generation, unsigned i, int64_t asked, int alive)
{
	struct share_radius *r = &sh->radius[i];

	share_lock(SHARE_RADIUS);
	if (sh->radius_generation == generation && alive) {
		r->dead_until = 0;
		r->answered = mono_ms();
		atomic_store(&sh->radius_good, i);
	} else if (sh->radius_generation == generation && r->answered < asked) {
		r->dead_until = mono_ms() + RADIUS_DEAD_SECONDS * INT64_C(1000);
	}
	share_unlock(SHARE_RADIUS);
}

/* ---- where they are ---- */

int
radius_address(const struct radius_conf *rc, struct share *sh, uint32_t generation, unsigned i, struct addr *addr)
{
	static const struct addr none;

	if (rc->server[i].numeric) {
		*addr = rc->server[i].addr;
		return 0;
	}
	share_lock(SHARE_RADIUS);
	*addr = sh->radius_generation == generation ? sh->radius[i].addr : none;
	share_unlock(SHARE_RADIUS);
	return memcmp(addr, &none, sizeof none) == 0 ? -1 : 0;
}

void
radius_set_addresses(struct share *sh, uint32_t generation, const struct radius_addresses *a)
{
	static const struct addr none;

	share_lock(SHARE_RADIUS);
	for (unsigned i = 0; i < RADIUS_SERVERS_MAX && sh->radius_generation == generation; i++) {
		if (memcmp(&a->addr[i], &none, sizeof none) != 0) {
			sh->radius[i].addr = a->addr[i];
		}
	}
	share_unlock(SHARE_RADIUS);
}

/* The first address of a name that there is a way to. 0 or -1. */
static int
resolve(const struct dns_conf *dns, const char *name, struct addr *addr, int64_t deadline)
{
	struct addr found[8];
	size_t n;

	if (dns_addr(dns, name, 1, found, sizeof found / sizeof found[0], &n, deadline) != DNS_OK) {
		return -1;
	}
	*addr = found[0];
	for (size_t i = 0; i < n; i++) {
		int fd = radius_connect(&found[i], 1812);

		if (fd != -1) {
			close(fd);
			*addr = found[i];
			break;
		}
	}
	return 0;
}

/* A name without a dot is looked up below the domains of resolv.conf first. */
static int
resolve_short(const struct dns_conf *dns, const char *name, struct addr *addr, int64_t deadline)
{
	char search[sizeof dns->search], full[512];
	char *rest = search;
	const char *domain;

	str_copy(search, sizeof search, strchr(name, '.') == NULL ? dns->search : "");
	while ((domain = ctl_next_word(&rest)) != NULL) {
		str_fmt(full, sizeof full, "%s.%s", name, domain);
		if (resolve(dns, full, addr, deadline) == 0) {
			return 0;
		}
	}
	return resolve(dns, name, addr, deadline);
}

int
radius_resolve(const struct radius_conf *rc, struct radius_addresses *out)
{
	static struct dns_conf dns;
	int64_t end = mono_ms() + RESOLVE_MS;
	int rc_all = 0;

	memset(out, 0, sizeof *out);
	for (unsigned i = 0; i < rc->servers; i++) {
		int64_t now = mono_ms();

		if (rc->server[i].numeric) {
			continue;
		}
		if (dns.servers == 0) {
			dns_conf_load(&dns, NULL, NULL);
		}
		/* Each name gets its share of what time is left. */
		if (resolve_short(&dns, rc->server[i].name, &out->addr[i], now + (end - now) / (rc->servers - i)) ==
		    -1) {
			rc_all = -1;
		}
	}
	return rc_all;
}
