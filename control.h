/* SPDX-License-Identifier: MIT */
/*
 * The configuration of a running server: qmail-style control files, read by main before any fork and shared page by page.
 * After config_load() nobody opens a control file again until the next SIGHUP.
 */
#ifndef MAILSTILE_CONTROL_H
#define MAILSTILE_CONTROL_H

#include "addr.h"
#include "cdb.h"
#include "cert.h"
#include "config.h"
#include "ctlfile.h"
#include "diag.h"
#include "relayconf.h"
#include "secret.h"

#include <stdint.h>

enum profile {
	PROFILE_SUBMISSION,  /* STARTTLS, login required */
	PROFILE_SUBMISSIONS, /* implicit TLS, login required */
	PROFILE_SMTP,        /* port 25: rcpthosts for strangers, relaying after login or from listed addresses */
	PROFILE_INSIDE,      /* plain, listed addresses only */
	PROFILE_COUNT
};

struct listen_conf {
	enum profile profile;
	int any; /* no address given: IPv6 and IPv4 */
	struct addr addr;
	uint16_t port;
	char from[SMTP_PATH_MAX + 1]; /* forced envelope sender of an `inside` listener, or "" */
};

enum spool_kind {
	SPOOL_QUEUE,        /* qmail's queue */
	SPOOL_MAILDIR,      /* one file per recipient, for maildirsmtp */
	SPOOL_MAILDIR_PLAIN /* one file per message */
};

struct radius_server {
	char name[256]; /* as written, without port */
	uint16_t port;
	int timeout; /* seconds before the first repeat */
	int retries;
	uint16_t acct_port;  /* of accounting; 0 = none is sent there */
	int unsigned_ok;     /* accept replies without Message-Authenticator */
	int status;          /* probed by Status-Server packets while it is silent */
	enum tls_policy tls; /* TLS_NONE: UDP; TLS_VERIFY; TLS_PIN */
#if RADSEC
	int tls_cert; /* it gets our certificate */
	unsigned pins;
	struct relay_pin pin[RADSEC_PINS];
	char tls_name[256];   /* TLS_VERIFY: in its certificate */
	char ca[RADSEC_PATH]; /* TLS_VERIFY: who vouches for that */
#endif
	int numeric; /* `addr` is known from the file */
	struct addr addr;
};

struct radius_conf {
	unsigned servers;
	struct radius_server server[RADIUS_SERVERS_MAX];
#if RADSEC
	char cert[RADSEC_PATH], key[RADSEC_PATH]; /* ours, for all of them; "" = none */
#endif
};

#if RADSEC
/* What is in the files that radius.conf names. */
struct radsec_conf {
	br_x509_trust_anchor *anchor[RADIUS_SERVERS_MAX]; /* allocated, an allocation each */
	size_t anchors[RADIUS_SERVERS_MAX];
	struct cert_chain client; /* its key is secrets->client */
};
#endif

struct config {
	char home[256];
	char me[256];
	char greeting[256];
	uint64_t databytes; /* 0 = no limit */
	unsigned listeners;
	struct listen_conf listen[LISTENERS_MAX];
	int have_rcpthosts; /* 0: missing or unreadable, nobody relays by domain */
	struct names rcpthosts;
	struct cdb morercpthosts;
	struct names badmailfrom;
	struct cdb rules; /* tcp.smtp.cdb */
	struct addr_block *relayclients;
	size_t relayclients_n;
	enum spool_kind spool;
	char spool_dir[256];
	char spool_prefix[128]; /* SPOOL_MAILDIR: put before the recipient in Delivered-To */
	struct radius_conf radius;
#if RADSEC
	struct radsec_conf radsec;
#endif
	struct cert_chain chain;
	struct secrets *secrets;
#if ACCOUNTS
	char *userlimits;                /* the file's text, or NULL; see limits.h */
	int32_t zone;                    /* seconds that the day begins before UTC's */
	int accounts_bad;                /* one of these two is no good: every login is put off */
	char alertto[SMTP_PATH_MAX + 1]; /* or empty */
#endif
#if RELAY
	struct relay_conf relay; /* relay.on only where the spool is a queue */
#endif
};

/*
 * Read everything below `home` (NULL: HOME_DIR). Findings go to `d`. Returns NULL only when no server could run with it
 * (no name for the host, a bad `listen` or `spool`); any lesser fault leaves the part it belongs to refusing: without a
 * good rcpthosts nobody relays by domain, without a good radius.conf logins get 454, without a good certificate TLS is not
 * offered. The result is owned by the caller; free with config_free().
 */
struct config *config_load(const char *home, struct diag *d);
void config_free(struct config *c);

/* Only what a login needs: `radius` with its secrets, and `me`, empty where there is none. Neither key nor passwords for relays are read. NULL: no memory. */
struct config *config_load_radius(const char *home, struct diag *d);

/*
 * Make a key and a self-signed certificate when neither file exists, and load them into `c`. main at start, as root or as
 * the owner of the control directory. 0 when there was nothing to do or it worked, -1 otherwise (findings in `d`).
 */
int config_first_certificate(struct config *c, struct diag *d);

/* control/timezone, in seconds; 0 without it. 0, or -1 with the fault given to `d`. */
int control_zone(const char *home, int32_t *seconds, struct diag *d);

/* "submission", "submissions", "smtp", "inside". */
const char *profile_name(enum profile p);

/* Parse one line of `listen` and of `spool` (tests). 0 or -1, with the fault given to `d`. */
int control_parse_listen(struct listen_conf *l, char *line, struct diag *d, const char *file, int n);
int control_parse_spool(struct config *c, char *line, struct diag *d, const char *file, int n);
/* Parse radius.conf text in s->file[0..len) into `rc` and s->radius (RADIUS client configuration; see mailstile-control(5)). */
int control_parse_radius(struct radius_conf *rc, struct secrets *s, size_t len, struct diag *d, const char *file);

#endif
