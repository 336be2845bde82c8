/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The control files of delivery, looked up: where a domain's mail goes and with what TLS, which addresses are virtual, which have a Maildir. Main asks
 * while it reads them, the scheduler and the remotes ask when mail is to go. Pure: what relayconf.c has read, and addresses of any length and content.
 */
#include "relayconf.h"

#include "deliver.h"
#include "str.h"

#include <stddef.h>
#include <string.h>

#if RELAY

_Static_assert(
    offsetof(struct relay_route, domain) == 0 && offsetof(struct relay_tls, key) == 0, "find() relies on it");

/* The entry whose name, its first member, is `domain`, else a .suffix of it, else "". -1 = none. */
static int
find(const void *v, size_t size, unsigned n, const char *domain)
{
	const char *p = domain;

	for (;;) {
		for (unsigned i = 0; i < n; i++) {
			if (ascii_strcasecmp((const char *)v + i * size, p) == 0) {
				return (int)i;
			}
		}
		if (*p == '\0') {
			return -1;
		}
		/* An address in brackets has no suffixes. */
		p = *domain == '[' ? NULL : strchr(p + 1, '.');
		p = p == NULL ? "" : p;
	}
}

int
relay_route_find(const struct relay_conf *r, const char *domain)
{
	int i = find(r->route, sizeof r->route[0], r->routes, domain);

	return i >= 0 && r->route[i].hops == 0 ? -1 : i;
}

const struct relay_tls *
relay_tls_find(const struct relay_conf *r, const char *domain)
{
	static const struct relay_tls may = { .tls = TLS_MAY };
	int i = find(r->tls, sizeof r->tls[0], r->tls_n, domain);

	return i == -1 ? &may : &r->tls[i];
}

const char *
relay_virtual_find(const struct relay_conf *r, const char *addr)
{
	char low[1024];
	size_t len = strlen(addr);
	char *at;

	if (r->virtuals.n == 0) {
		return NULL;
	}
	/* Nothing of that length is a key, but its domain may be one. */
	addr += len < sizeof low ? 0 : len + 1 - sizeof low;
	len = strlen(addr);
	memcpy(low, addr, len + 1);
	at = strrchr(ascii_strlower(low), '@');
	for (char *p = low;;) {
		const char *v = names_find(&r->virtuals, p);

		if (v != NULL) {
			v += strlen(v) + 1;
			return *v == '\0' ? NULL : v;
		}
		if (*p == '\0') {
			return NULL;
		}
		if (p == low) {
			p = at == NULL ? NULL : at + 1;
		} else {
			p = strchr(p + 1, '.');
		}
		p = p == NULL ? low + len : p;
	}
}

size_t
relay_prepended(const struct relay_conf *r, const char *addr)
{
	/* The key may have been the whole address, so what is before each hyphen is tried. */
	for (const char *p = addr; r->virtuals.n > 0 && (p = strchr(p, '-')) != NULL;) {
		size_t len = (size_t)(p++ - addr);
		const char *prepend = relay_virtual_find(r, p);

		if (prepend != NULL && strlen(prepend) == len && strncmp(addr, prepend, len) == 0) {
			return len + 1;
		}
	}
	return 0;
}

int
relay_maildir_find(const struct relay_conf *r, const char *addr)
{
	char low[DELIVER_ADDR_MAX + 2];
	const char *at = LOCAL_MAILDIRS_MAX == 0 || r->maildirs.n == 0 ? NULL : strrchr(addr, '@'), *key;

	if (LOCAL_MAILDIRS_MAX == 0 || at == NULL || str_copy(low, sizeof low, addr + relay_prepended(r, addr)) == -1) {
		return -1;
	}
	key = names_find(&r->maildirs, ascii_strlower(low));
	key = key == NULL ? names_find(&r->maildirs, strrchr(low, '@')) : key;
	for (size_t i = 0; i < r->maildirs.n; i++) {
		if (r->maildirs.v[i] == key) {
			return (int)i;
		}
	}
	return -1;
}

#endif
