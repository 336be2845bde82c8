/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Who may relay to whom. Every question has "no" for an answer when a file is missing or damaged: a relay that fails open is found by
 * spammers within hours.
 */
#include "policy.h"

#include "str.h"

#include <string.h>

/* One record of tcp.smtp.cdb: items ended by NUL; `D` denies, `+NAME=value` sets a variable (qmail-spec 7.1, 7.2). */
static void
apply_rule(struct policy_client *out, const uint8_t *data, size_t len)
{
	const char *p = (const char *)data;

	while (len > 0) {
		const char *nul = memchr(p, '\0', len);
		size_t n = nul == NULL ? len : (size_t)(nul - p);
		uint64_t bytes;

		if (n > 0 && p[0] == 'D') {
			out->deny = 1;
		} else if (n >= 13 && memcmp(p, "+RELAYCLIENT=", 13) == 0) {
			/* The last one counts, as in an environment; one that is too long for us must not leave half of it. */
			if (nul != NULL) {
				out->relay = str_copy(out->append, sizeof out->append, p + 13) == 0;
			}
		} else if (n >= 11 && memcmp(p, "+DATABYTES=", 11) == 0) {
			if (parse_u64(p + 11, n - 11, INT64_MAX, &bytes) == 0) {
				out->databytes = bytes;
			}
		}
		if (nul == NULL) {
			return;
		}
		p += n + 1;
		len -= n + 1;
	}
}

struct lookup {
	const struct cdb *cdb;
	struct policy_client *out;
	int result; /* of cdb_get(): 1 ends the search */
};

static int
try_key(struct lookup *l, const char *key, size_t len)
{
	const uint8_t *data;
	size_t dlen;

	if (l->result == 0) {
		l->result = cdb_get(l->cdb, key, len, &data, &dlen);
		if (l->result == 1) {
			apply_rule(l->out, data, dlen);
		}
	}
	return l->result != 0;
}

static void
try_host(struct lookup *l, const char *host)
{
	char key[260] = "=";

	if (host == NULL || str_copy(key + 1, sizeof key - 1, host) == -1) {
		return;
	}
	for (const char *dot = strchr(host, '.'); dot != NULL; dot = strchr(dot + 1, '.')) {
		if (str_copy(key + 1, sizeof key - 1, dot) == 0) {
			try_key(l, key, strlen(key));
		}
	}
	try_key(l, "=", 1);
}

static void
apply_rules(const struct config *c, const char *ip, const char *info, const char *host, struct policy_client *out)
{
	struct lookup l = { .cdb = &c->rules, .out = out };
	char mem[600];
	struct buf key;

	if (info != NULL) {
		buf_init(&key, mem, sizeof mem);
		buf_fmt(&key, "%.250s@%s", info, ip);
		try_key(&l, mem, key.len);
		if (host != NULL) {
			buf_reset(&key);
			buf_fmt(&key, "%.250s@=%.250s", info, host);
			try_key(&l, mem, key.len);
		}
	}
	try_key(&l, ip, strlen(ip));
	if (host != NULL) {
		buf_init(&key, mem, sizeof mem);
		buf_fmt(&key, "=%.250s", host);
		try_key(&l, mem, key.len);
	}
	for (size_t n = strlen(ip); n > 0; n--) {
		if (ip[n - 1] == '.' || ip[n - 1] == ':') {
			try_key(&l, ip, n);
		}
	}
	try_host(&l, host);
	try_key(&l, "", 0);
	if (l.result == -1) {
		/* Damaged: no relaying by address; login still works. */
		out->relay = 0;
	}
}

void
policy_client(
    const struct config *c, const struct addr *client, const char *info, const char *host, struct policy_client *out)
{
	char ip[ADDR_TEXT_MAX];

	memset(out, 0, sizeof *out);
	out->databytes = c->databytes;
	if (c->rules.map != NULL) {
		apply_rules(c, addr_text(client, ip), info, host, out);
	}
	for (size_t i = 0; i < c->relayclients_n; i++) {
		if (addr_in_block(client, &c->relayclients[i])) {
			out->relay = 1;
			break;
		}
	}
}

static int
morercpthosts_have(const struct config *c, const char *name)
{
	const uint8_t *data;
	size_t dlen;

	return c->morercpthosts.map != NULL && cdb_get(&c->morercpthosts, name, strlen(name), &data, &dlen) == 1;
}

/* Lower-case the domain of `addr` into dst; -1 when there is none. */
static int
lower_domain(const char *addr, char *dst, size_t size)
{
	const char *at = strrchr(addr, '@');

	/* Not an empty one either: the search for suffixes begins behind the first octet. */
	if (at == NULL || at[1] == '\0' || str_copy(dst, size, at + 1) == -1) {
		return -1;
	}
	ascii_strlower(dst);
	return 0;
}

int
policy_rcpthost(const struct config *c, const char *addr)
{
	char host[SMTP_DOMAIN_MAX + 1];

	if (!c->have_rcpthosts || lower_domain(addr, host, sizeof host) == -1) {
		return 0;
	}
	for (const char *p = host; p != NULL; p = strchr(p + 1, '.')) {
		if (names_have(&c->rcpthosts, p)) {
			return 1;
		}
	}
	for (const char *p = host; p != NULL; p = strchr(p + 1, '.')) {
		if (morercpthosts_have(c, p)) {
			return 1;
		}
	}
	return 0;
}

int
policy_badmailfrom(const struct config *c, const char *addr)
{
	char lower[SMTP_PATH_MAX + 4];
	const char *at;

	if (str_copy(lower, sizeof lower, addr) == -1) {
		return 1;
	}
	if (names_have(&c->badmailfrom, ascii_strlower(lower))) {
		return 1;
	}
	at = strrchr(lower, '@');
	return at != NULL && names_have(&c->badmailfrom, at);
}

int
policy_qualified(const char *addr)
{
	const char *at = strrchr(addr, '@');
	const char *dot;

	if (at == NULL) {
		return 0;
	}
	if (at[1] == '[') {
		return 1;
	}
	dot = strchr(at + 1, '.');
	return dot != NULL && dot != at + 1 && dot[1] != '\0';
}
