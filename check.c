/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* `mailstile check`: reads what the server would read, and says what is wrong. `check radius USER`: what the servers say of a login. */
#include "cleanint.h"
#include "control.h"
#include "house.h"
#include "keeper.h"
#include "limits.h"
#include "options.h"
#include "priv.h"
#include "queue.h"
#include "radius.h"
#include "server.h"
#include "str.h"
#include "users.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static int
check_usage(void)
{
	print(STDERR_FILENO, "usage: mailstile check [-H home] [radius USER]\n");
	return 100;
}

/* Read a password from the terminal without showing it, or the first line of anything else. 0 or -1. */
static int
read_password(char *pass, size_t size)
{
	struct termios old, quiet;
	int tty = tcgetattr(STDIN_FILENO, &old) == 0;
	size_t len = 0;

	if (tty) {
		quiet = old;
		quiet.c_lflag &= ~(tcflag_t)ECHO;
		tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
		print(STDERR_FILENO, "Password: ");
	}
	while (len < size && read(STDIN_FILENO, pass + len, 1) == 1 && pass[len] != '\n') {
		len++;
	}
	if (tty) {
		tcsetattr(STDIN_FILENO, TCSAFLUSH, &old);
		print(STDERR_FILENO, "\n");
	}
	if (len == 0 || len >= size) {
		explicit_bzero(pass, size);
		return -1;
	}
	pass[len] = '\0';
	return 0;
}

/* Foreign text for the terminal: no control characters. */
static void
print_safe(const char *label, const char *s)
{
	char text[512];

	str_copy(text, sizeof text, s);
	for (char *p = text; *p != '\0'; p++) {
		if ((uint8_t)*p < 32 || *p == 127) {
			*p = '?';
		}
	}
	print(STDOUT_FILENO, "%s: %s\n", label, text);
}

#if ACCOUNTS

static void
show_limit(const char *name, uint32_t n)
{
	if (n != LIMIT_NONE) {
		print(STDOUT_FILENO, "  %s %u\n", name, n);
	}
}

/* What the accepted login may do. 0, or 1: that is not understood. */
static int
show_limits(const struct config *c, const struct radius_answer *a, const char *user)
{
	static struct limits l;
	const char *why =
	    c->accounts_bad ? "userlimits or timezone is no good" : "more attributes than there is room for";

	limits_default(&l);
	if (!c->accounts_bad) {
		limits_file(&l, c->userlimits, user);
	}
	if (c->accounts_bad || a->policy.lost || limits_radius(&l, a->policy.attributes, a->policy.len, &why) == -1) {
		print(STDOUT_FILENO, "but its limits are not understood, and it is put off: %s\n", why);
		return 1;
	}
	print(STDOUT_FILENO, "limits:%s\n", l.relay ? "" : " relay no");
	show_limit("day", l.left == LIMIT_NONE ? l.day : LIMIT_NONE);
	show_limit("rcpt", l.left_rcpt == LIMIT_NONE ? l.rcpt : LIMIT_NONE);
	show_limit("left today", l.left);
	show_limit("recipients left today", l.left_rcpt);
	show_limit("rate", l.rate);
	show_limit("sessions", l.sessions);
	show_limit("time", l.session_s);
	show_limit("idle", l.idle_s);
	if (l.size != 0) {
		print(STDOUT_FILENO, "  size %llu\n", (unsigned long long)l.size);
	}
	for (unsigned i = 0; i < l.froms; i++) {
		print_safe("  from", l.from[i]);
	}
	return 0;
}

#endif

static int
report(const struct config *c, const struct radius_answer *a, const char *user)
{
	if (a->server >= 0) {
		print(STDOUT_FILENO, "server: %s:%u, %lld ms\n", c->radius.server[a->server].name,
		    c->radius.server[a->server].port, (long long)a->ms);
	}
	if (a->service >= 0) {
		print(STDOUT_FILENO, "Service-Type: %d\n", a->service);
	}
	if (a->message[0] != '\0') {
		print_safe("Reply-Message", a->message);
	}
	if (a->why != NULL) {
		print(STDOUT_FILENO, "reason: %s\n", a->why);
	}
	switch (a->result) {
	case RADIUS_ACCEPT:
		print(STDOUT_FILENO, "accept: this login may send mail\n");
#if ACCOUNTS
		return show_limits(c, a, user);
#else
		(void)user;
		return 0;
#endif
	case RADIUS_REJECT:
		print(STDOUT_FILENO, "reject: this login may not send mail\n");
		return 1;
	default:
		print(STDOUT_FILENO, "no decision: %s\n", radius_trouble_text(a->trouble));
		return 111;
	}
}

static int
check_radius(struct config *c, const char *user)
{
	char pass[AUTH_PASSWORD_MAX + 2];
	struct radius_query q = { .user = user,
		.password = pass,
		.client = "127.0.0.1",
		.called = "check",
		.nas = c->me,
		.session = "check" };
	struct radius_addresses addresses;
	struct radius_answer a;
	struct house house = { .config = c, .jail = -1, .spool_dir = -1, .null = -1 };
	const char *missing;
	struct share *sh;

	if (strlen(user) == 0 || strlen(user) > AUTH_USER_MAX || read_password(pass, sizeof pass) == -1) {
		print(STDERR_FILENO, "mailstile: expected a name of 1-%d octets and a password of 1-%d\n",
		    AUTH_USER_MAX, AUTH_PASSWORD_MAX);
		return 100;
	}
	sh = share_open(-1);
	if (sh == NULL) {
		print(STDERR_FILENO, "mailstile: %s\n", strerror(errno));
		return 111;
	}
	house.share = sh;
	if (radius_resolve(&c->radius, &addresses) == -1) {
		print(STDOUT_FILENO, "warning: not every server's name has an address\n");
	}
	radius_set_addresses(sh, 0, &addresses);
	if (priv_lookup(&house.ids, &missing) == -1) {
		memset(&house.ids, 0, sizeof house.ids);
	}
	keeper_alone(&house);
	radius_ask(&c->radius, c->secrets, sh, 0, &q, &a);
	keeper_end();
	explicit_bzero(pass, sizeof pass);
	return report(c, &a, user);
}

#if TOOLS

/* ---- lines that the server takes, as qmail does, though they mean nothing ---- */

/* A domain, or an address in brackets. Octets of UTF-8 may be of a domain, too. */
static int
is_domain(const char *s)
{
	size_t len = strlen(s);

	if (s[0] == '[') {
		return len > 2 && s[strcspn(s, "]")] == ']' && s[strcspn(s, " \t@]") + 1] == '\0';
	}
	for (const char *p = s; *p != '\0'; p++) {
		if ((uint8_t)*p < 128 &&
		    strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_", *p) == NULL) {
			return 0;
		}
	}
	return len > 0 && s[0] != '.' && s[len - 1] != '.' && strstr(s, "..") == NULL;
}

static int
is_suffix(const char *s)
{
	return is_domain(s + (s[0] == '.'));
}

/* A sender, or all of a domain. */
static int
is_sender(const char *s)
{
	const char *at = strrchr(s, '@');

	return at != NULL && is_domain(at + 1) && (s[0] == '"' || s[strcspn(s, " \t<>")] == '\0');
}

static int
is_box(const char *s)
{
	return strpbrk(s, "@<>") == NULL;
}

static const struct lines {
	const char *name;
	int relay; /* read only by who delivers */
	int (*ok)(const char *s);
	const char *expected;
} lines[] = {
	{ "rcpthosts", 0, is_suffix, "DOMAIN or .SUFFIX; no recipient fits this" },
	{ "badmailfrom", 0, is_sender, "ADDRESS or @DOMAIN; no sender with a domain fits this" },
	{ "locals", 1, is_domain, "DOMAIN; no recipient fits this" },
	{ "percenthack", 1, is_domain, "DOMAIN; no recipient fits this" },
	{ "bouncefrom", 1, is_box, "what stands before the @; what stands behind it is bouncehost's" },
	{ "doublebounceto", 1, is_box, "what stands before the @; what stands behind it is doublebouncehost's" },
};

static void
check_lines(const struct config *c, const struct lines *t, struct diag *d)
{
	struct diag quiet = *d; /* what cannot be read was told before */
	char path[512], *text, *rest, *line;
	int n = 0;

	quiet.emit = diag_to_nobody;
	if (ctl_read(c->home, t->name, &text, &quiet) != CTL_OK) {
		return;
	}
	rest = text;
	while ((line = ctl_next_line(&rest)) != NULL) {
		n++;
		if (ctl_is_entry(line) && !t->ok(line)) {
			diag_put(
			    d, DIAG_WARN, ctl_path(c->home, t->name, path, sizeof path), n, "expected %s", t->expected);
		}
	}
	free(text);
}

void
check_all_lines(const struct config *c, struct diag *d)
{
	for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
#if RELAY
		if (lines[i].relay && !c->relay.on) {
			continue;
		}
#endif
		check_lines(c, &lines[i], d);
	}
}

#endif

#if RELAY
static void
show_relay(const struct config *c, uid_t uid, struct diag *d)
{
	const struct relay_conf *r = &c->relay;
	char path[512];

	print(STDOUT_FILENO, "relay: on, deliveries at once: %u, name servers: %u, trust anchors: %zu\n",
	    r->concurrency, r->dns.servers, r->anchors);
	for (unsigned i = 0; TOOLS && i < r->routes; i++) {
		const struct relay_route *t = &r->route[i];

		print(STDOUT_FILENO, "  %s:%s", t->domain[0] == '\0' ? "(all others)" : t->domain,
		    t->hops == 0 ? " MX" : "");
		for (unsigned k = 0; k < t->hops; k++) {
			const struct relay_hop *h = &t->hop[k];

			print(STDOUT_FILENO, "%s %s port %u, tls %s%s%s", k == 0 ? "" : ";", h->host, h->port,
			    relay_policy_name(h->tls), h->implicit ? " implicit" : "",
			    h->auth == -1 ? "" : ", with a password");
		}
		print(STDOUT_FILENO, "\n");
	}
	for (unsigned i = 0; TOOLS && i < r->tls_n; i++) {
		print(STDOUT_FILENO, "  MX of %s: tls %s\n", r->tls[i].key[0] == '\0' ? "(all others)" : r->tls[i].key,
		    relay_policy_name(r->tls[i].tls));
	}
	if (TOOLS && (r->routes == 0 || r->route[r->routes - 1].domain[0] != '\0')) {
		print(STDOUT_FILENO, "  (all others): MX\n");
	}
	if (TOOLS && r->concurrency == 0) {
		diag_put(d, DIAG_WARN, str_fmt(path, sizeof path, "%s/control/concurrencyremote", c->home), 1,
		    "is 0: nothing is delivered, and mail waits in the queue until it is returned");
	}
	for (size_t i = 0; LOCAL_MAILDIRS_MAX > 0 && i < r->maildirs.n; i++) {
		const char *where = r->maildirs.v[i] + strlen(r->maildirs.v[i]) + 1;
		int fd = local_dir(where, uid);

		print(STDOUT_FILENO, "  %s: %s\n", r->maildirs.v[i], where);
		if (fd == -1) {
			diag_put(d, DIAG_ERROR, where, 0, "no Maildir, with tmp, new and cur, of user %u: %s",
			    (unsigned)uid, strerror(errno));
		} else {
			close(fd);
		}
	}
	if (LOCAL_MAILDIRS_MAX > 0 && r->local == LOCAL_LEAVE && r->maildirs.n > 0) {
		diag_put(d, DIAG_NOTE, str_fmt(path, sizeof path, "%s/control/localmaildirs", c->home), 0,
		    "mail for local addresses without a line stays in the queue, for qmail's programs; without them write `bounce` to localdelivery");
	} else if (r->local == LOCAL_LEAVE && r->locals.n + r->virtuals.n > 0) {
		diag_put(d, DIAG_WARN, str_fmt(path, sizeof path, "%s/control/locals", c->home), 0,
		    "mail for %s%s stays in the queue, for qmail's programs; without them make this file empty, or write `bounce` to localdelivery",
		    r->locals.n > 0 ? r->locals.v[0] : r->virtuals.v[0],
		    r->locals.n + r->virtuals.n > 1 ? " and others" : "");
	}
}
#endif

/* Is it there, and not for us? */
static int
is_shut(const struct config *c, const struct priv_ids *ids)
{
	char path[512];

	str_fmt(path, sizeof path, c->spool == SPOOL_QUEUE ? "%s/mess" : "%s/new", c->spool_dir);
	return !ids->root && access(path, R_OK | X_OK) == -1 && errno == EACCES;
}

static void
check_rest(const struct config *c, struct diag *d)
{
	struct priv_ids ids;
	struct spool s;
	const char *missing;

	if (priv_lookup(&ids, &missing) == -1) {
		diag_put(d, DIAG_ERROR, NULL, 0, "no user or group `%s`: make qmail's users first, see mailstile(8)",
		    missing);
	} else if (TOOLS && is_shut(c, &ids)) {
		diag_put(d, DIAG_ERROR, c->spool_dir, 0, "only root may look into it: run this as root");
	} else if (spool_open(&s, c->spool, c->spool_dir, d) == 0) {
		if (s.kind == SPOOL_QUEUE) {
			mkqueue_check(c->spool_dir, &ids, s.split, d);
		} else {
			spool_check_owner(&s, c->spool_dir, ids.spool_uid, d);
		}
		house_check_jail(c, &ids, d);
#if ACCOUNTS
		users_check(c->home, ids.root, ids.spool_uid, d);
#endif
	}
#if TOOLS
	check_all_lines(c, d);
	check_all_else(c, d);
#endif
	if (c->chain.key_type == 0 && d->errors == 0) {
		diag_put(
		    d, DIAG_NOTE, NULL, 0, "no certificate yet: the server makes a self-signed one at its first start");
	}
#if RELAY
	if (c->relay.on) {
		show_relay(c, ids.spool_uid, d);
	}
#endif
	if (time(NULL) < BUILD_EPOCH) {
		diag_put(d, DIAG_WARN, NULL, 0, "the clock is before this program's build date and counts as not set");
	}
}

int
check_main(int argc, char **argv)
{
	struct diag d = { .emit = diag_to_stdout };
	const char *home = NULL, *user = NULL;
	struct config *c;
	struct options o;
	struct stat st;
	int opt;

	(void)argc;
	options_begin(&o, argv);
	while ((opt = options_next(&o, "H:")) != 0) {
		if (opt != 'H') {
			return check_usage();
		}
		home = o.value;
	}
	if (o.word[0] != NULL) {
		user = o.word[1];
		if (strcmp(o.word[0], "radius") != 0 || user == NULL || o.word[2] != NULL) {
			return check_usage();
		}
	}
	c = config_load(home, &d);
	if (user != NULL) {
		return c == NULL ? 100 : check_radius(c, user);
	}
	if (c != NULL) {
		check_rest(c, &d);
	}
	if (TOOLS && d.errors > 0 && geteuid() != 0 && stat(home == NULL ? HOME_DIR : home, &st) == 0 &&
	    st.st_uid != geteuid()) {
		diag_put(&d, DIAG_NOTE, NULL, 0, "only root may read all of this: run check as root");
	}
	print(STDOUT_FILENO, "%u error%s, %u warning%s\n", d.errors, d.errors == 1 ? "" : "s", d.warnings,
	    d.warnings == 1 ? "" : "s");
	return d.errors == 0 ? 0 : 1;
}
