/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Who a message goes to: the relays of a route in their order, or the hosts of MX records (RFC 5321 5.1, RFC 7505). The next one is tried
 * when one cannot be reached or does not get as far as MAIL; what it says to MAIL and later is an answer (qmail-spec 4.2).
 */
#include "remoteint.h"

#include <string.h>

#if RELAY

struct candidate {
	struct addr addr;
	char name[256];
};

#define MX_MAX 20

/* What is found in DNS, and tried; one set, for one process. */
static struct {
	struct dns_mx mx[MX_MAX];
	struct addr addr[REMOTE_ADDRS_MAX];
	struct candidate candidate[REMOTE_ADDRS_MAX];
	size_t candidates; /* of one preference */
	unsigned tried;
} seek;

void
remote_note(struct remote *s, const char *status, const char *addr, const char *what, const char *more)
{
	struct buf line;
	char mem[700];

	s->status = status;
	buf_init(&line, mem, sizeof mem);
	buf_str(&line, s->hop.host);
	if (addr != NULL && strcmp(addr, s->hop.host) != 0) {
		buf_str(&line, " [");
		buf_str(&line, addr);
		buf_ch(&line, ']');
	}
	buf_str(&line, ": ");
	buf_str(&line, what);
	if (more != NULL) {
		buf_str(&line, more);
	}
	if (!line.full && line.len > 0 && mem[line.len - 1] != '\n') {
		buf_ch(&line, '\n');
	}
	/* All or nothing of a line; the last one is the one that counts. */
	if (line.full) {
		return;
	}
	if (line.len > s->why.cap - s->why.len) {
		buf_reset(&s->why);
	}
	buf_add(&s->why, mem, line.len);
}

/* It ends here, for a reason that no other host changes. */
static int
give_up(struct remote *s, int klass, const char *status, const char *what)
{
	buf_reset(&s->why);
	str_copy(s->hop.host, sizeof s->hop.host, s->job.domain);
	remote_note(s, status, NULL, what, NULL);
	s->klass = klass;
	return -1;
}

/* Put the addresses of `host` among the candidates. */
static enum dns_status
add_host(struct remote *s, const char *host)
{
	size_t room = REMOTE_ADDRS_MAX - seek.candidates, n = 0;
	enum dns_status st;

	if (room == 0) {
		return DNS_OK;
	}
	st = dns_addr(&s->conf->dns, host, remote_has_v6(), seek.addr, room, &n, s->deadline);
	for (size_t i = 0; st == DNS_OK && i < n; i++) {
		struct candidate *c = &seek.candidate[seek.candidates++];

		c->addr = seek.addr[i];
		str_copy(c->name, sizeof c->name, host);
	}
	return st == DNS_OK && n == 0 ? DNS_NODATA : st;
}

static void
add_address(const char *name, const struct addr *addr)
{
	struct candidate *c = &seek.candidate[seek.candidates++];

	c->addr = *addr;
	str_copy(c->name, sizeof c->name, name);
}

/* Try the candidates. 0: one is ready for MAIL. */
static int
try_candidates(struct remote *s)
{
	for (size_t i = 0; i < seek.candidates && seek.tried < REMOTE_ADDRS_MAX; i++) {
		if (mono_ms() >= s->deadline) {
			return -1;
		}
		seek.tried++;
		str_copy(s->hop.host, sizeof s->hop.host, seek.candidate[i].name);
		if (remote_hello(s, &seek.candidate[i].addr) == 0) {
			return 0;
		}
	}
	return -1;
}

static const char *
dns_words(enum dns_status st)
{
	return st == DNS_TROUBLE ? "no answer from the name servers" : st == DNS_NONAME ? "no such host" : "no address";
}

/* The relays of a route. That one does not exist, by DNS, is the route's fault and not the message's: it waits. */
static int
find_by_route(struct remote *s, const struct relay_route *route)
{
	for (unsigned i = 0; i < route->hops; i++) {
		enum dns_status st = DNS_OK;

		s->hop = route->hop[i];
		seek.candidates = 0;
		if (s->hop.numeric) {
			add_address(s->hop.host, &s->hop.addr);
		} else {
			st = add_host(s, s->hop.host);
		}
		if (st != DNS_OK) {
			remote_note(s, "4.1.2", NULL, dns_words(st), NULL);
		}
		if (try_candidates(s) == 0) {
			return 0;
		}
	}
	return -1;
}

/* ---- MX ---- */

/* A relay's form for a host of MX records. */
static void
mx_hop(struct remote *s)
{
	const struct relay_tls *tls = relay_tls_find(s->conf, s->job.domain);

	s->mx = 1;
	memset(&s->hop, 0, sizeof s->hop);
	s->hop.port = 25;
	s->hop.auth = -1;
	s->hop.tls = tls->tls;
	s->hop.pin = tls->pin;
	s->hop.pins = tls->pins;
}

/* A domain that is an address: [192.0.2.1] or [IPv6:2001:db8::1] (RFC 5321 4.1.3). 1 when it is. */
static int
literal(const char *domain, struct addr *addr)
{
	size_t len = strlen(domain), tag = len > 6 && ascii_casecmp(domain + 1, "IPv6:", 5) == 0 ? 6 : 1;

	return len > 2 && domain[0] == '[' && domain[len - 1] == ']' &&
	    addr_parse(addr, domain + tag, len - 1 - tag) == 0 && addr_is_v4(addr) == (tag == 1);
}

/* Fill the candidates with the hosts mx[from..] of one preference. Returns how many there were; 0: we are one of them. */
static size_t
same_preference(struct remote *s, size_t from, size_t n, enum dns_status *worst)
{
	size_t i = from;

	seek.candidates = 0;
	for (; i < n && seek.mx[i].preference == seek.mx[from].preference; i++) {
		size_t first = seek.candidates;
		enum dns_status st;

		if (ascii_strcasecmp(seek.mx[i].host, s->conf->helohost) == 0) {
			return 0;
		}
		st = add_host(s, seek.mx[i].host);
		if (st != DNS_OK) {
			str_copy(s->hop.host, sizeof s->hop.host, seek.mx[i].host);
			remote_note(s, "4.1.2", NULL, dns_words(st), NULL);
			*worst = st == DNS_TROUBLE ? st : *worst;
		}
		for (size_t k = first; k < seek.candidates; k++) {
			if (remote_is_us(&seek.candidate[k].addr)) {
				return 0;
			}
		}
	}
	return i - from;
}

/* The hosts of mx[0..n), best first, and none that is not better than we are: that would be a loop. */
static int
find_among(struct remote *s, size_t n)
{
	enum dns_status worst = DNS_NODATA;
	size_t found = 0;

	for (size_t i = 0; i < n && seek.tried < REMOTE_ADDRS_MAX;) {
		size_t count = same_preference(s, i, n, &worst);

		if (count == 0 && i == 0) {
			return give_up(s, 'D', "5.4.6",
			    "its mail is to be delivered here, say its MX records, but this host does not know that");
		}
		if (count == 0) {
			break;
		}
		found += seek.candidates;
		if (try_candidates(s) == 0) {
			return 0;
		}
		i += count;
	}
	if (found == 0 && worst != DNS_TROUBLE) {
		return give_up(s, 'D', "5.4.4", "none of its mail hosts has an address");
	}
	return -1;
}

static int
find_by_mx(struct remote *s)
{
	struct addr addr;
	size_t n = 0;

	mx_hop(s);
	if (literal(s->job.domain, &addr)) {
		if (remote_is_us(&addr)) {
			return give_up(s, 'D', "5.4.6", "this address is our own");
		}
		seek.candidates = 0;
		add_address(s->job.domain, &addr);
		s->hop.numeric = 1;
		return try_candidates(s);
	}
	switch (dns_mx(&s->conf->dns, s->job.domain, seek.mx, MX_MAX, &n, s->deadline)) {
	case DNS_NONAME:
		return give_up(s, 'D', "5.1.2", "there is no such host");
	case DNS_TROUBLE:
	case DNS_IGNORE:
		return give_up(s, 'Z', "4.1.2", "no answer from the name servers");
	case DNS_NODATA:
		n = 0;
		break;
	case DNS_OK:
		break;
	}
	if (n == 0) {
		/* Without MX records it is a mail host itself. */
		n = 1;
		seek.mx[0].preference = 0;
		str_copy(seek.mx[0].host, sizeof seek.mx[0].host, s->job.domain);
	} else if (seek.mx[0].host[0] == '\0') {
		return give_up(s, 'D', "5.1.10", "it takes no mail, say its MX records");
	}
	return find_among(s, n);
}

int
remote_find(struct remote *s)
{
	const struct relay_route *route = s->job.route == DELIVER_MX ? NULL : &s->conf->route[s->job.route];

	s->klass = 'Z';
	s->code = 0;
	s->status = "4.4.1";
	s->mx = 0;
	s->deadline = mono_ms() + DELIVER_REACH_SECONDS * INT64_C(1000);
	buf_init(&s->why, s->why_mem, sizeof s->why_mem);
	seek.tried = 0;
	return route != NULL && route->hops > 0 ? find_by_route(s, route) : find_by_mx(s);
}

#endif
