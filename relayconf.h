/* SPDX-License-Identifier: MIT */
/*
 * How mail is carried on: qmail-send's and qmail-remote's control files and ours, read by main with the rest (config_load())
 * and inherited by the scheduler, the remotes and the cleaner.
 */
#ifndef MAILSTILE_RELAYCONF_H
#define MAILSTILE_RELAYCONF_H

#include "addr.h"
#include "config.h"
#include "ctlfile.h"
#include "diag.h"
#include "dns.h"
#include "secret.h"

#include <bearssl.h>
#include <stdint.h>

/* What TLS must give before mail is handed to a peer. */
enum tls_policy {
	TLS_NONE,    /* never */
	TLS_MAY,     /* when it is offered and works; else plain. Never together with `implicit` */
	TLS_ENCRYPT, /* always, whoever it is */
	TLS_VERIFY,  /* always, with a certificate for the relay's name from a trusted authority */
	TLS_PIN      /* always, with a certificate whose key has the SHA-256 given */
};

struct relay_pin {
	uint8_t sha256[32]; /* of the SubjectPublicKeyInfo (as RFC 7858 4.2, RFC 7469 2.4) */
};

/* One relay host of a route. */
struct relay_hop {
	char host[256]; /* name, lower case, without a dot at its end; or address as addr_text() writes it */
	int numeric;
	struct addr addr; /* when numeric */
	uint16_t port;
	int implicit; /* TLS from the first octet: port 465, or said so */
	enum tls_policy tls;
	int named;     /* smtptls has a line for it */
	unsigned pins; /* TLS_PIN: in relay_conf.pin, from `pin` on */
	unsigned pin;
	int auth; /* index in relay_conf.auth and secrets->relay, -1 = none. With one, tls is TLS_VERIFY or TLS_PIN */
};

/* A line of smtproutes. No hops: MX, in spite of a wider route. */
struct relay_route {
	char domain[256]; /* comes first. "example.org", ".example.org", "[192.0.2.1]", or "" for all; lower case */
	unsigned hops;
	struct relay_hop hop[RELAY_HOPS_MAX];
};

/* Policy for MX hosts: the lines of smtptls for destinations that have no route. */
struct relay_tls {
	char key[256]; /* comes first. Destination domain, ".suffix", or "" */
	enum tls_policy tls;
	unsigned pin, pins;
};

struct relay_auth {
	char user[256]; /* the password is in secrets->relay */
};

struct relay_conf {
	int on; /* control/relay: this program delivers; 0 = somebody else (qmail-send) does */
	/* as qmail-send */
	char envnoathost[256];
	struct names locals;
	struct names percenthack;
	struct names
	    virtuals; /* virtualdomains: behind each key's NUL stands what is to be prepended, "" = an exception */
	struct names maildirs; /* localmaildirs: behind each address's, or @domain's, NUL the path */
	unsigned concurrency;  /* concurrencyremote, at most DELIVERIES_MAX; 0 = nothing is tried */
	uint32_t lifetime;     /* queuelifetime */
	uint32_t delaynotice;  /* seconds until a sender hears that a message is late; 0 = never */
	char bouncefrom[256], bouncehost[256];
	char doublebounceto[256], doublebouncehost[256]; /* doublebounceto "": double bounces are thrown away */
	char me[256];
	int dsn; /* bounces as in RFC 3464, not as QSBMF */
	/* as qmail-remote */
	char helohost[256];
	int timeout_connect, timeout_remote; /* seconds */
	/* ours */
	enum {
		LOCAL_LEAVE,
		LOCAL_BOUNCE
	} local; /* recipients that qmail would deliver locally: left for it, or refused */
	unsigned routes;
	struct relay_route route[RELAY_ROUTES_MAX];
	unsigned tls_n;
	struct relay_tls tls[RELAY_ROUTES_MAX];
	unsigned pins;
	struct relay_pin pin[RELAY_PINS_MAX];
	unsigned auths;
	struct relay_auth auth[RELAY_AUTH_MAX];
	br_x509_trust_anchor
	    *anchor; /* from control/cacerts.pem or RELAY_CA_FILE, one allocation; only when some policy is `verify` */
	size_t anchors;
	struct dns_conf dns;
};

/*
 * Read everything into `r`, which is all zero; passwords go to s->relay, the scratch part s->file is used. `me` is the host's
 * name. When control/relay says off, nothing else is read. It fails closed: whatever cannot be read or understood is an error in `d`,
 * by file and line, r->on becomes 0, and s->relay is wiped. Called by config_load(). Free with relay_conf_free().
 */
void relay_conf_load(struct relay_conf *r, const char *home, const char *me, struct secrets *s, struct diag *d);
/* The part that the queue is kept by, without a route or a secret, whatever control/relay says: for orders while nothing runs. */
void relay_conf_load_queue(struct relay_conf *r, const char *home, struct diag *d);
void relay_conf_free(struct relay_conf *r);

/* The route for a domain (any case): its index, or -1 for MX. Exact, then each .suffix, then "" (qmail-spec 4.7). */
int relay_route_find(const struct relay_conf *r, const char *domain);
/* The policy for MX delivery to a domain, by the same order of keys: from smtptls, else TLS_MAY. Never NULL. */
const struct relay_tls *relay_tls_find(const struct relay_conf *r, const char *domain);
/* virtualdomains: what to prepend for user@domain (any case), or NULL when it is not virtual (qmail-spec 2.5). */
const char *relay_virtual_find(const struct relay_conf *r, const char *addr);
/* How much of an address as it stands in local/N is what virtualdomains has put before it, with the hyphen. */
size_t relay_prepended(const struct relay_conf *r, const char *addr);
/* localmaildirs: the index of such an address's Maildir, or -1. The address itself comes first, then its @domain. */
int relay_maildir_find(const struct relay_conf *r, const char *addr);
/* "none", "may", "encrypt", "verify", "pin". */
const char *relay_policy_name(enum tls_policy p);

#endif
