/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* What `mailstile check` looks at that the server takes as it is: names of files, doors that stand open, the certificate as others see it. */
#include "config.h"
#include "server.h"

#if TOOLS

#include "certlook.h"
#include "control.h"
#include "policy.h"
#include "settings.h"
#include "str.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- names in control/ ---- */

#if SETTINGS

/* Ours, beside those of settings[], and those that qmail-control(9) has; each ends with a NUL. */
static const char others[] =
    "morercpthosts\0morercpthosts.cdb\0tcp.smtp\0tcp.smtp.cdb\0consolepass\0request.pem\0"
    "rcpthosts\0concurrencylocal\0defaultdomain\0defaulthost\0idhost\0localiphost\0plusdomain\0"
    "qmqpservers\0timeoutsmtpd\0defaultdelivery\0concurrencyincoming\0";

#define NAME_MAX_LEN 30

/* How many letters have to be put in, left out or changed to make one of the other; 9 = many. */
static unsigned
distance(const char *a, const char *b)
{
	unsigned row[NAME_MAX_LEN + 1];
	size_t n = strlen(b);

	if (n > NAME_MAX_LEN || strlen(a) > NAME_MAX_LEN) {
		return 9;
	}
	for (unsigned i = 0; i <= n; i++) {
		row[i] = i;
	}
	for (; *a != '\0'; a++) {
		unsigned corner = row[0]++;

		for (size_t i = 1; i <= n; i++) {
			unsigned best = corner + (*a != b[i - 1]);

			corner = row[i];
			best = row[i] + 1 < best ? row[i] + 1 : best;
			row[i] = row[i - 1] + 1 < best ? row[i - 1] + 1 : best;
		}
	}
	return row[n];
}

/* The known name that is nearest to this one; how near goes to *away. */
static const char *
nearest(const char *name, unsigned *away)
{
	const char *best = NULL;

	*away = 9;
	for (size_t i = 0; *away > 0 && i < settings_n; i++) {
		unsigned n = distance(name, settings[i].key);

		if (n < *away) {
			*away = n;
			best = settings[i].key;
		}
	}
	for (const char *s = others; *away > 0 && *s != '\0'; s += strlen(s) + 1) {
		unsigned n = distance(name, s);

		if (n < *away) {
			*away = n;
			best = s;
		}
	}
	return best;
}

/* Does radius.conf name it? */
static int
is_of_radius(const struct config *c, const char *name)
{
#if RADSEC
	for (unsigned i = 0; i < c->radius.servers; i++) {
		if (strcmp(c->radius.server[i].ca, name) == 0) {
			return 1;
		}
	}
	return strcmp(c->radius.cert, name) == 0 || strcmp(c->radius.key, name) == 0;
#else
	(void)c;
	(void)name;
	return 0;
#endif
}

/* Editors of another system begin a text with three octets that make its first line another one. */
static int
has_mark(const char *path)
{
	char head[3];
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	int rc =
	    fd != -1 && read(fd, head, sizeof head) == (ssize_t)sizeof head && memcmp(head, "\xef\xbb\xbf", 3) == 0;

	if (fd != -1) {
		close(fd);
	}
	return rc;
}

/* What `set` keeps of a key. */
static int
is_kept(const char *name)
{
	const char *dot = strrchr(name, '.');
	char key[NAME_MAX_LEN + 1];

	return dot != NULL && (strcmp(dot, ".old") == 0 || strcmp(dot, ".none") == 0 || strcmp(dot, ".last") == 0) &&
	    (size_t)(dot - name) < sizeof key &&
	    setting_find(str_fmt(key, sizeof key, "%.*s", (int)(dot - name), name)) != NULL;
}

static void
check_name(const struct config *c, const char *name, struct diag *d)
{
	char path[512];
	unsigned away;
	const char *known = nearest(name, &away);

	ctl_path(c->home, name, path, sizeof path);
	if (away == 0) {
		if (has_mark(path)) {
			diag_put(d, DIAG_ERROR, path, 1,
			    "begins with a byte order mark, which spoils this line: save it as UTF-8 without one");
		}
	} else if (!is_of_radius(c, name) && !is_kept(name)) {
		diag_put(d, away <= 1 + (strlen(name) > 5) ? DIAG_WARN : DIAG_NOTE, path, 0,
		    away <= 1 + (strlen(name) > 5) ? "is not read: no file of this name means anything; is it %s?"
						   : "is not read: no file of this name means anything",
		    known);
	}
}

static void
check_names(const struct config *c, struct diag *d)
{
	char path[512];
	DIR *dir = opendir(ctl_path(c->home, "", path, sizeof path));
	const struct dirent *e;

	while (dir != NULL && (e = readdir(dir)) != NULL) {
		if (e->d_name[0] != '.') {
			check_name(c, e->d_name, d);
		}
	}
	if (dir != NULL) {
		closedir(dir);
	}
}

#endif

/* ---- who may relay ---- */

int
check_open_relay(const struct config *c)
{
	/* Addresses that nobody has (RFC 5737, 3849). */
	static const struct addr strangers[] = { { { [10] = 0xff, 0xff, 192, 0, 2, 1 } },
		{ { 0x20, 0x01, 0x0d, 0xb8, [15] = 1 } } };
	struct policy_client p;

	for (size_t i = 0; i < sizeof strangers / sizeof strangers[0]; i++) {
		policy_client(c, &strangers[i], NULL, NULL, &p);
		if (p.relay) {
			return 1;
		}
	}
	return 0;
}

/* Blocks that are larger than any network of one's own: IPv4 from /7 on, IPv6 from /15 on. */
static void
check_relayclients(const struct config *c, struct diag *d)
{
	char path[512], text[ADDR_TEXT_MAX];
	unsigned wide = 0;

	for (size_t i = 0; i < c->relayclients_n; i++) {
		const struct addr_block *b = &c->relayclients[i];
		int v4 = b->bits >= 96 && addr_is_v4(&b->net);

		if (v4 ? b->bits < 96 + 8 : b->bits < 16) {
			diag_put(d, DIAG_WARN, ctl_path(c->home, "relayclients", path, sizeof path), 0,
			    "%s/%d: so much of the Internet may send to anybody without a login",
			    addr_text(&b->net, text), b->bits - (v4 ? 96 : 0));
			wide++;
		}
	}
	if (wide == 0 && c->rules.map != NULL && check_open_relay(c)) {
		diag_put(d, DIAG_WARN, ctl_path(c->home, "tcp.smtp.cdb", path, sizeof path), 0,
		    "everybody may send to anybody without a login: it sets RELAYCLIENT for all addresses");
	}
}

/* ---- the certificate ---- */

#if SELFTEST

static void
check_certificate(const struct config *c, struct diag *d)
{
	const int error = c->chain.key_type == 0 ? 0 : certlook_judge(&c->chain, c->me, (int64_t)time(NULL), NULL, 0);
	char path[512], until[11];
	struct addr a;
	int self;

	ctl_path(c->home, "servercert.pem", path, sizeof path);
	if (error == BR_ERR_X509_BAD_SERVER_NAME && addr_parse(&a, c->me, strlen(c->me)) == -1) {
		diag_put(d, DIAG_WARN, path, 0, "is for another name than control/me says, which is %s", c->me);
	} else if (error == BR_ERR_X509_EXPIRED) {
		certlook_leaf(&c->chain, until, &self);
		diag_put(d, DIAG_WARN, path, 0, "is not valid at this date; its end is %s", until);
	}
}

#endif

/* ---- what there is ---- */

static void
show_doors(const struct config *c)
{
	char text[ADDR_TEXT_MAX];

	for (unsigned i = 0; i < c->listeners; i++) {
		const struct listen_conf *l = &c->listen[i];

		print(STDOUT_FILENO, l->any || addr_is_v4(&l->addr) ? "%s%s %s:%u" : "%s%s [%s]:%u",
		    i == 0 ? "listens: " : ", ", profile_name(l->profile), l->any ? "*" : addr_text(&l->addr, text),
		    l->port);
	}
	for (unsigned i = 0; i < c->radius.servers; i++) {
		const struct radius_server *r = &c->radius.server[i];

		print(STDOUT_FILENO, "%s%s port %u%s", i == 0 ? "\nRADIUS: " : ", ", r->name, r->port,
		    r->tls != TLS_NONE ? " under TLS" : "");
		if (r->acct_port != 0) {
			print(STDOUT_FILENO, " (accounting %u)", r->acct_port);
		}
	}
	print(STDOUT_FILENO, "\n");
}

void
check_all_else(const struct config *c, struct diag *d)
{
	show_doors(c);
#if SETTINGS
	check_names(c, d);
#endif
	check_relayclients(c, d);
#if SELFTEST
	check_certificate(c, d);
#endif
}

#endif
