/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Control files in qmail's syntax (qmail-spec 4.7). Read by main only, before any fork. One-line files: the first line counts; list files: one
 * entry a line, `#` comments. Trailing white space is cut.
 */
#include "control.h"

#include "limits.h"
#include "policy.h"
#include "radconf.h"
#include "settings.h"
#include "str.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const profile_names[PROFILE_COUNT] = {
	[PROFILE_SUBMISSION] = "submission",
	[PROFILE_SUBMISSIONS] = "submissions",
	[PROFILE_SMTP] = "smtp",
	[PROFILE_INSIDE] = "inside",
};

const char *
profile_name(enum profile p)
{
	return profile_names[p];
}

int
control_parse_listen(struct listen_conf *l, char *line, struct diag *d, const char *file, int n)
{
	char *word = ctl_next_word(&line);
	unsigned p = 0;

	memset(l, 0, sizeof *l);
	while (p < PROFILE_COUNT && (word == NULL || strcmp(word, profile_names[p]) != 0)) {
		p++;
	}
	if (p == PROFILE_COUNT) {
		diag_put(d, DIAG_ERROR, file, n, "expected submission, submissions, smtp or inside first");
		return -1;
	}
	l->profile = (enum profile)p;
	word = ctl_next_word(&line);
	if (word == NULL || ctl_endpoint(word, &l->any, &l->addr, &l->port, 0) == -1) {
		diag_put(d, DIAG_ERROR, file, n,
		    "expected [ADDRESS:]PORT after the profile, as in 587, 192.0.2.1:587 or [2001:db8::1]:587");
		return -1;
	}
	while ((word = ctl_next_word(&line)) != NULL) {
		if (l->profile != PROFILE_INSIDE || strncmp(word, "from=", 5) != 0 || strchr(word, '@') == NULL ||
		    str_copy(l->from, sizeof l->from, word + 5) == -1) {
			diag_put(d, DIAG_ERROR, file, n,
			    "expected nothing more, or from=USER@DOMAIN with the profile inside");
			return -1;
		}
	}
	return 0;
}

/* Two lines for one address and port: only the first can be opened. */
static void
check_overlap(const struct config *c, struct diag *d, const char *file, int n)
{
	const struct listen_conf *l = &c->listen[c->listeners];

	for (unsigned i = 0; i < c->listeners; i++) {
		const struct listen_conf *o = &c->listen[i];

		if (o->port == l->port && (o->any || l->any || memcmp(&o->addr, &l->addr, sizeof l->addr) == 0)) {
			diag_put(
			    d, DIAG_ERROR, file, n, "port %u of this address is taken by an earlier line", l->port);
			return;
		}
	}
}

static int
load_listen(struct config *c, struct diag *d)
{
	char builtin[] = LISTEN_DEFAULT;
	char path[512] = "LISTEN_DEFAULT";
	char *text = NULL;
	char *rest = builtin;
	char *line;
	int n = 0, rc = -1;

	switch (ctl_read(c->home, "listen", &text, d)) {
	case CTL_BAD:
		return -1;
	case CTL_OK:
		rest = text;
		ctl_path(c->home, "listen", path, sizeof path);
		break;
	case CTL_MISSING:
		break;
	}
	while ((line = ctl_next_line(&rest)) != NULL) {
		n++;
		if (!ctl_is_entry(line)) {
			continue;
		}
		if (c->listeners == LISTENERS_MAX) {
			diag_put(d, DIAG_ERROR, path, n, "more than %d listeners (LISTENERS_MAX)", LISTENERS_MAX);
			goto out;
		}
		if (control_parse_listen(&c->listen[c->listeners], line, d, path, n) == -1) {
			goto out;
		}
		check_overlap(c, d, path, n);
		c->listeners++;
	}
	if (c->listeners == 0) {
		diag_put(d, DIAG_ERROR, path, 0, "no listener; expected lines like `submission 587`");
		goto out;
	}
	rc = 0;
out:
	free(text);
	return rc;
}

int
control_parse_spool(struct config *c, char *line, struct diag *d, const char *file, int n)
{
	const char *kind = ctl_next_word(&line);
	const char *dir = ctl_next_word(&line);
	const char *prefix = ctl_next_word(&line);
	struct buf b;

	kind = kind == NULL ? "" : kind;
	if (dir == NULL) {
		dir = strcmp(kind, "queue") == 0 ? "queue" : "";
	}
	if (strcmp(kind, "queue") == 0 && prefix == NULL) {
		c->spool = SPOOL_QUEUE;
	} else if (strcmp(kind, "maildir") == 0 && dir[0] != '\0' && ctl_next_word(&line) == NULL) {
		c->spool = SPOOL_MAILDIR;
	} else if (strcmp(kind, "maildir-plain") == 0 && dir[0] != '\0' && prefix == NULL) {
		c->spool = SPOOL_MAILDIR_PLAIN;
	} else {
		diag_put(
		    d, DIAG_ERROR, file, n, "expected `queue [DIR]`, `maildir DIR [PREFIX]` or `maildir-plain DIR`");
		return -1;
	}
	buf_init(&b, c->spool_dir, sizeof c->spool_dir);
	if (dir[0] != '/') {
		buf_fmt(&b, "%s/", c->home);
	}
	buf_str(&b, dir);
	buf_cstr(&b);
	if (b.full || str_copy(c->spool_prefix, sizeof c->spool_prefix, prefix == NULL ? "" : prefix) == -1) {
		diag_put(d, DIAG_ERROR, file, n, "directory or prefix is too long");
		return -1;
	}
	return 0;
}

static int
load_spool(struct config *c, struct diag *d)
{
	char line[512] = SPOOL_DEFAULT;
	char path[512];

	if (ctl_line(c->home, "spool", line, sizeof line, d) == -1) {
		return -1;
	}
	return control_parse_spool(c, line, d, ctl_path(c->home, "spool", path, sizeof path), 1);
}

static int
load_databytes(struct config *c, struct diag *d)
{
	char line[32] = "";
	char path[512];
	uint64_t n;

	c->databytes = DATABYTES;
	if (ctl_line(c->home, "databytes", line, sizeof line, d) == -1) {
		return -1;
	}
	if (line[0] == '\0') {
		return 0;
	}
	if (parse_u64(line, strlen(line), INT64_MAX, &n) == -1) {
		diag_put(d, DIAG_ERROR, ctl_path(c->home, "databytes", path, sizeof path), 1,
		    "expected a number of octets, 0 for no limit; using %lld", (long long)DATABYTES);
		return -1;
	}
	c->databytes = n;
	return 0;
}

static void
load_relayclients(struct config *c, struct diag *d)
{
	char path[512];
	char *text, *rest, *line;
	size_t lines = 1;
	int n = 0;

	if (ctl_read(c->home, "relayclients", &text, d) != CTL_OK) {
		return;
	}
	ctl_path(c->home, "relayclients", path, sizeof path);
	for (const char *p = text; *p != '\0'; p++) {
		lines += *p == '\n';
	}
	c->relayclients = malloc(lines * sizeof *c->relayclients);
	rest = text;
	while (c->relayclients != NULL && (line = ctl_next_line(&rest)) != NULL) {
		n++;
		if (!ctl_is_entry(line)) {
			continue;
		}
		if (addr_block_parse(&c->relayclients[c->relayclients_n], line, strlen(line)) == 0) {
			c->relayclients_n++;
			continue;
		}
		diag_put(d, DIAG_ERROR, path, n,
		    "expected ADDRESS or ADDRESS/BITS with no bits set after the first BITS; nobody relays by address");
		c->relayclients_n = 0;
		break;
	}
	free(text);
}

static void
load_cdb(struct config *c, const char *name, struct cdb *cdb, struct diag *d, const char *consequence)
{
	char path[512];

	if (cdb_open(cdb, ctl_path(c->home, name, path, sizeof path)) == -1 && errno != ENOENT) {
		diag_put(d, DIAG_ERROR, path, 0, "%s; %s", errno == EINVAL ? "not a cdb file" : strerror(errno),
		    consequence);
	}
}

static void
load_policy(struct config *c, struct diag *d)
{
	char path[512];

	ctl_path(c->home, "rcpthosts", path, sizeof path);
	switch (ctl_names(c->home, "rcpthosts", &c->rcpthosts, d)) {
	case 0:
		c->have_rcpthosts = 1;
		break;
	case 1:
		for (unsigned i = 0; i < c->listeners; i++) {
			if (c->listen[i].profile == PROFILE_SMTP) {
				diag_put(d, DIAG_ERROR, path, 0,
				    "missing: strangers may send to no domain; make it, empty if there is none");
				break;
			}
		}
		break;
	default:
		diag_put(d, DIAG_NOTE, path, 0, "refusing all mail from strangers until it can be read");
		break;
	}
	load_cdb(c, "morercpthosts.cdb", &c->morercpthosts, d, "only rcpthosts counts");
	load_cdb(c, "tcp.smtp.cdb", &c->rules, d, "nobody relays by its rules");
	load_relayclients(c, d);
	if (ctl_names(c->home, "badmailfrom", &c->badmailfrom, d) == -1) {
		diag_put(
		    d, DIAG_NOTE, ctl_path(c->home, "badmailfrom", path, sizeof path), 0, "no sender is refused by it");
	}
}

static void
load_certificate(struct config *c, struct diag *d)
{
	char certfile[512], keyfile[512];

	cert_load(&c->chain, c->secrets, ctl_path(c->home, "servercert.pem", certfile, sizeof certfile),
	    ctl_path(c->home, "serverkey.pem", keyfile, sizeof keyfile), d);
}

/* A key without its certificate counts as missing, too: power may have failed between the two. */
static int
certificate_missing(const struct config *c)
{
	char path[512];

	return access(ctl_path(c->home, "servercert.pem", path, sizeof path), F_OK) == -1;
}

int
config_first_certificate(struct config *c, struct diag *d)
{
	char certfile[512], keyfile[512];

	if (!certificate_missing(c)) {
		return 0;
	}
	if (cert_generate(ctl_path(c->home, "servercert.pem", certfile, sizeof certfile),
		ctl_path(c->home, "serverkey.pem", keyfile, sizeof keyfile), c->me, c->secrets, d) == -1) {
		return -1;
	}
	load_certificate(c, d);
	if (c->chain.key_type == 0) {
		return -1;
	}
	diag_put(d, DIAG_NOTE, certfile, 0, "made a self-signed certificate for %s, SHA-256 %s", c->me,
	    c->chain.fingerprint);
	return 0;
}

static int
load_me(struct config *c, struct diag *d)
{
	char path[512];

	if (ctl_line(c->home, "me", c->me, sizeof c->me, d) == -1) {
		return -1;
	}
	ctl_path(c->home, "me", path, sizeof path);
	if (c->me[0] == '\0') {
		diag_put(
		    d, DIAG_ERROR, path, 0, "missing or empty; expected this host's full name, as in mail.example.net");
		return -1;
	}
	if (!ctl_hostname_ok(c->me)) {
		diag_put(d, DIAG_ERROR, path, 1, "expected a host name: letters, digits, hyphens and dots");
		return -1;
	}
	if (strchr(c->me, '.') == NULL) {
		diag_put(d, DIAG_WARN, path, 1, "is not fully qualified: it has no dot");
	}
	str_copy(c->greeting, sizeof c->greeting, c->me);
	ctl_line(c->home, "smtpgreeting", c->greeting, sizeof c->greeting, d);
	return 0;
}

static void
load_relay(struct config *c, struct diag *d)
{
#if RELAY
	char path[512];

	if (c->spool == SPOOL_QUEUE) {
		relay_conf_load(&c->relay, c->home, c->me, c->secrets, d);
	} else if (access(ctl_path(c->home, "relay", path, sizeof path), F_OK) == 0) {
		diag_put(d, DIAG_NOTE, path, 0, "not read: only a queue is delivered from, and the spool is a Maildir");
	}
#else
	(void)c;
	(void)d;
#endif
}

#if ACCOUNTS

/* +HHMM or -HHMM, as in a Date field. */
static int
parse_zone(const char *s, int32_t *seconds)
{
	uint64_t n;

	if ((s[0] != '+' && s[0] != '-') || strlen(s) != 5 || parse_u64(s + 1, 4, 1400, &n) == -1 || n % 100 > 59) {
		return -1;
	}
	*seconds = (int32_t)(n / 100 * 3600 + n % 100 * 60) * (s[0] == '-' ? -1 : 1);
	return 0;
}

int
control_zone(const char *home, int32_t *seconds, struct diag *d)
{
	char path[512], line[8] = "+0000";

	if (ctl_line(home, "timezone", line, sizeof line, d) != -1 && parse_zone(line, seconds) == 0) {
		return 0;
	}
	diag_put(d, DIAG_ERROR, ctl_path(home, "timezone", path, sizeof path), 1,
	    "expected +HHMM or -HHMM, the offset to UTC, as in +0100; nobody can log in until this is mended");
	return -1;
}

static void
load_accounts(struct config *c, struct diag *d)
{
	char path[512];

	c->accounts_bad = control_zone(c->home, &c->zone, d) == -1;
	ctl_path(c->home, "userlimits", path, sizeof path);
	if (ctl_read(c->home, "userlimits", &c->userlimits, d) == CTL_BAD ||
	    (c->userlimits != NULL && limits_check(c->userlimits, d, path) == -1)) {
		diag_put(d, DIAG_NOTE, path, 0, "nobody can log in until this is mended");
		c->accounts_bad = 1;
	}
	ctl_path(c->home, "alertto", path, sizeof path);
	if (ctl_line(c->home, "alertto", c->alertto, sizeof c->alertto, d) == -1 ||
	    (c->alertto[0] != '\0' && (!policy_qualified(c->alertto) || strpbrk(c->alertto, " \t<>") != NULL))) {
		diag_put(d, DIAG_ERROR, path, 1, "expected USER@DOMAIN; nobody is told when a login meets its limit");
		c->alertto[0] = '\0';
	}
}

#endif

static struct config *
config_new(const char *home, struct diag *d)
{
	struct config *c = calloc(1, sizeof *c);

	if (c == NULL) {
		return NULL;
	}
	c->secrets = secret_map();
	if (c->secrets == NULL || str_copy(c->home, sizeof c->home, home == NULL ? HOME_DIR : home) == -1) {
		diag_put(d, DIAG_ERROR, NULL, 0, "no memory for secrets, or the home directory's name is too long");
		config_free(c);
		return NULL;
	}
	return c;
}

#if RADCHECKPASSWORD

struct config *
config_load_radius(const char *home, struct diag *d)
{
	struct config *c = config_new(home, d);

	if (c != NULL) {
		if (ctl_line(c->home, "me", c->me, sizeof c->me, d) == -1 || !ctl_hostname_ok(c->me)) {
			c->me[0] = '\0';
		}
		radconf_load(c, d);
	}
	return c;
}

#endif

struct config *
config_load(const char *home, struct diag *d)
{
	struct config *c = config_new(home, d);
	int fatal;

	if (c == NULL) {
		return NULL;
	}
	(void)settings_recover(c->home, d);
	/* Every part is read even when one is bad, so that `check` shows all faults at once. */
	fatal = load_me(c, d) == -1;
	fatal |= load_listen(c, d) == -1;
	fatal |= load_spool(c, d) == -1;
	load_databytes(c, d);
	load_policy(c, d);
	radconf_load(c, d);
	if (!certificate_missing(c)) {
		load_certificate(c, d);
	}
	load_relay(c, d);
#if ACCOUNTS
	load_accounts(c, d);
#endif
	if (fatal) {
		config_free(c);
		return NULL;
	}
	return c;
}

void
config_free(struct config *c)
{
	if (c == NULL) {
		return;
	}
	cert_free(&c->chain);
	secret_unmap(c->secrets);
	cdb_close(&c->morercpthosts);
	cdb_close(&c->rules);
#if RELAY
	relay_conf_free(&c->relay);
#endif
#if ACCOUNTS
	free(c->userlimits);
#endif
	radconf_free(c);
	free(c->relayclients);
	names_free(&c->rcpthosts);
	names_free(&c->badmailfrom);
	free(c);
}
