/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * radius.conf, in the form of the classic radcheckpassword set-ups and with words of ours; and the files it names for TLS. It goes straight
 * into the secret mapping and is parsed there. main and applets, before any fork.
 */
#include "radconf.h"

#include "anchor.h"
#include "str.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PORT 1812
#define TLS_PORT 2083 /* RFC 6614 2.1 */

/* What follows "acct": nothing, or =PORT. 0 or -1. */
static int
parse_acct(struct radius_server *r, const char *s)
{
	uint64_t v = 1813;

	if (*s != '\0' && (*s != '=' || parse_u64(s + 1, strlen(s + 1), 65535, &v) == -1 || v == 0)) {
		return -1;
	}
	r->acct_port = (uint16_t)v;
	return 0;
}

static void
warn_unsigned(const struct radius_server *r, struct diag *d, const char *file, int n)
{
	diag_put(d, DIAG_WARN, file, n,
	    "%s may answer without Message-Authenticator: logins can be forged on the way (CVE-2024-3596); see "
	    "mailstile-radius(5) for how to mend the server",
	    r->name);
}

#if RADSEC

/* KEY=VALUE of tls,...: the value, or NULL when it is another key. */
static const char *
value_of(const char *word, const char *key)
{
	size_t n = strlen(key);

	return strncmp(word, key, n) == 0 && word[n] == '=' && word[n + 1] != '\0' ? word + n + 1 : NULL;
}

/* What follows "tls": nothing, or ,KEY=VALUE... 0 or -1. */
static int
parse_tls(struct radius_conf *rc, struct radius_server *r, char *s)
{
	const char *v;

	r->tls = TLS_VERIFY;
	for (char *word = s; word != NULL; word = s) {
		s = strchr(word, ',');
		if (s != NULL) {
			*s++ = '\0';
		}
		if (word[0] == '\0') {
			continue;
		}
		if ((v = value_of(word, "pin")) != NULL) {
			if (r->pins == RADSEC_PINS || tlscheck_pin(&r->pin[r->pins], v) == -1) {
				return -1;
			}
			r->pins++;
			r->tls = TLS_PIN;
		} else if ((v = value_of(word, "ca")) != NULL) {
			if (str_copy(r->ca, sizeof r->ca, v) == -1) {
				return -1;
			}
		} else if ((v = value_of(word, "name")) != NULL) {
			if (!ctl_hostname_ok(v) || str_copy(r->tls_name, sizeof r->tls_name, v) == -1) {
				return -1;
			}
		} else if ((v = value_of(word, "cert")) != NULL) {
			if ((rc->cert[0] != '\0' && strcmp(rc->cert, v) != 0) ||
			    str_copy(rc->cert, sizeof rc->cert, v) == -1) {
				return -1;
			}
			r->tls_cert = 1;
		} else if ((v = value_of(word, "key")) != NULL) {
			if ((rc->key[0] != '\0' && strcmp(rc->key, v) != 0) ||
			    str_copy(rc->key, sizeof rc->key, v) == -1) {
				return -1;
			}
		} else {
			return -1;
		}
	}
	/* Either it is known by its key, or by its name and who vouches for it. */
	return r->pins > 0 ? (r->ca[0] == '\0' && r->tls_name[0] == '\0' ? 0 : -1) : r->ca[0] != '\0' ? 0 : -1;
}

static int
tls_word(struct radius_conf *rc, struct radius_server *r, char *word, struct diag *d, const char *file, int n)
{
	if (parse_tls(rc, r, word + (word[3] == ',' ? 4 : 3)) == -1) {
		diag_put(d, DIAG_ERROR, file, n,
		    "expected tls,ca=FILE[,name=NAME] or tls,pin=HEX (SHA-256 of its public key, 64 digits, at most %d of them), "
		    "either with ,cert=FILE[,key=FILE], the same in all lines",
		    RADSEC_PINS);
		return -1;
	}
	if (r->tls == TLS_VERIFY && r->tls_name[0] == '\0') {
		if (r->numeric) {
			diag_put(d, DIAG_ERROR, file, n,
			    "the server is given by its address: add name=, the name in its certificate, or use pin=");
			return -1;
		}
		str_copy(r->tls_name, sizeof r->tls_name, r->name);
	}
	r->unsigned_ok = 1; /* nobody on the way can say anything */
	return 0;
}

#endif

/* [timeout [retries]] [unsigned] [status] [acct[=PORT]] [tls,...] [# comment] */
static int
parse_radius_tail(struct radius_conf *rc, struct radius_server *r, char *rest, struct diag *d, const char *file, int n)
{
	char *word;
	int numbers = 0;
	uint64_t v;

	(void)rc;
	r->timeout = RADIUS_TIMEOUT;
	r->retries = RADIUS_RETRIES;
	while ((word = ctl_next_word(&rest)) != NULL && word[0] != '#') {
		if (strcmp(word, "unsigned") == 0) {
			r->unsigned_ok = 1;
			warn_unsigned(r, d, file, n);
#if RADSEC
		} else if (strncmp(word, "tls", 3) == 0 && (word[3] == ',' || word[3] == '\0')) {
			if (tls_word(rc, r, word, d, file, n) == -1) {
				return -1;
			}
#endif
		} else if (STATUS_SERVER && strcmp(word, "status") == 0) {
			r->status = 1;
		} else if (ACCOUNTING && strncmp(word, "acct", 4) == 0 && parse_acct(r, word + 4) == 0) {
			continue;
		} else if (numbers == 0 && parse_u64(word, strlen(word), 60, &v) == 0 && v > 0) {
			r->timeout = (int)v;
			numbers++;
		} else if (numbers == 1 && parse_u64(word, strlen(word), 10, &v) == 0) {
			r->retries = (int)v;
			numbers++;
		} else {
			/* Do not show the word: a secret with a space in it would end up here. */
			diag_put(d, DIAG_ERROR, file, n,
			    "after the secret expected [timeout 1-60 [retries 0-10]] [unsigned] [status] [acct[=PORT]] [tls,...]; the secret itself may hold no space");
			return -1;
		}
	}
	if (r->timeout > RADIUS_DEADLINE) {
		diag_put(d, DIAG_WARN, file, n, "timeout %d is over the %d seconds a whole login may take", r->timeout,
		    RADIUS_DEADLINE);
	}
	return 0;
}

/* Does it end with a port, if it is well formed? A bare IPv6 address has more than one colon and no port. */
static int
has_port(const char *word)
{
	const char *colon = strrchr(word, ':');

	return colon != NULL && (word[0] == '[' ? colon[-1] == ']' : colon == strchr(word, ':'));
}

/* Host name or address with optional port, as radius.conf has them. `port` 0: it has none. */
static int
parse_radius_host(struct radius_server *r, char *word)
{
	int given = has_port(word);
	int rc;

	if (!given && word[0] != '[' && strchr(word, ':') != NULL) {
		r->numeric = addr_parse(&r->addr, word, strlen(word)) == 0;
		return r->numeric ? str_copy(r->name, sizeof r->name, word) : -1;
	}
	rc = ctl_host(word, r->name, &r->numeric, &r->addr, &r->port, PORT);
	r->port = given ? r->port : 0;
	return rc;
}

/* First words of lines of radiusclient's own file, radiusclient.conf: each of such files has some of them. */
static int
is_of_another(const char *word)
{
	static const char *const words[] = { "authserver", "acctserver", "servers", "dictionary", "auth_order",
		"login_tries", "nologin", "mapfile", "seqfile", "radius_timeout", "radius_retries", "login_radius" };

	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
		if (strcmp(word, words[i]) == 0) {
			return 1;
		}
	}
	return 0;
}

static int
parse_radius_line(struct radius_conf *rc, struct secrets *s, char *line, struct diag *d, const char *file, int n)
{
	struct radius_server *r = &rc->server[rc->servers];
	char *host = ctl_next_word(&line);
	char *secret = ctl_next_word(&line);

	memset(r, 0, sizeof *r);
	if (TOOLS && is_of_another(host)) {
		diag_put(d, DIAG_ERROR, file, n,
		    "this is a line of another program's file; expected only servers, `SERVER SECRET`");
		return -1;
	}
	if (parse_radius_host(r, host) == -1) {
		diag_put(d, DIAG_ERROR, file, n, "expected a server first: NAME[:PORT], IPv4[:PORT] or [IPv6][:PORT]");
		return -1;
	}
	if (secret == NULL) {
		diag_put(d, DIAG_ERROR, file, n, "expected the shared secret after the server");
		return -1;
	}
	if (str_copy(s->radius[rc->servers], sizeof s->radius[0], secret) == -1) {
		diag_put(d, DIAG_ERROR, file, n, "the secret is longer than %d octets", RADIUS_SECRET_MAX);
		return -1;
	}
	if (parse_radius_tail(rc, r, line, d, file, n) == -1) {
		return -1;
	}
	if (strlen(secret) <= 10 && !r->tls) {
		diag_put(d, DIAG_WARN, file, n, "the secret is short; 16 or more random characters are safe");
	}
	if (r->port == 0) {
		r->port = r->tls ? TLS_PORT : PORT;
	}
	if (r->tls && r->acct_port != 0) {
		r->acct_port = r->port; /* one connection for all (RFC 6614 2.1) */
	}
	rc->servers++;
	return 0;
}

int
control_parse_radius(struct radius_conf *rc, struct secrets *s, size_t len, struct diag *d, const char *file)
{
	char *rest = (char *)s->file;
	char *line;
	int n = 0, rc_all = 0;

	memset(rc, 0, sizeof *rc);
	s->file[len] = '\0';
	if (strlen(rest) != len) {
		diag_put(d, DIAG_ERROR, file, 0, "contains a NUL octet; expected text");
		rc_all = -1;
	}
	while (rc_all == 0 && (line = ctl_next_line(&rest)) != NULL) {
		n++;
		line += strspn(line, " \t");
		if (!ctl_is_entry(line)) {
			continue;
		}
		if (rc->servers == RADIUS_SERVERS_MAX) {
			diag_put(
			    d, DIAG_ERROR, file, n, "more than %d servers (RADIUS_SERVERS_MAX)", RADIUS_SERVERS_MAX);
			rc_all = -1;
		} else if (parse_radius_line(rc, s, line, d, file, n) == -1) {
			rc_all = -1;
		}
	}
	if (rc_all == 0 && rc->servers == 0) {
		diag_put(d, DIAG_ERROR, file, 0, "names no server; expected lines `SERVER SECRET`");
		rc_all = -1;
	}
	if (rc_all == -1) {
		/* Half a list would ask the wrong servers. */
		memset(rc, 0, sizeof *rc);
		explicit_bzero(s->radius, sizeof s->radius);
	}
	explicit_bzero(s->file, sizeof s->file);
	return rc_all;
}

static int
logins_possible(const struct config *c)
{
	unsigned n = 0;

	for (unsigned i = 0; i < c->listeners; i++) {
		n += c->listen[i].profile != PROFILE_INSIDE;
	}
	return n > 0 || AUTH_PLAINTEXT_INSIDE;
}

#if RADSEC

/* Its name, below control/ unless it is absolute. */
static const char *
place_of(const struct config *c, const char *name, char path[512])
{
	return name[0] == '/' ? name : ctl_path(c->home, name, path, 512);
}

/* The files that lines with `tls` name. 0 or -1. */
static int
load_tls(struct config *c, struct diag *d)
{
	struct radius_conf *rc = &c->radius;
	char cert[512], key[512];
	int rc_all = 0;

	for (unsigned i = 0; i < rc->servers; i++) {
		const char *path = place_of(c, rc->server[i].ca, cert);
		int got = rc->server[i].tls == TLS_VERIFY
		    ? anchors_load(path, 1, &c->radsec.anchor[i], &c->radsec.anchors[i], d)
		    : 0;

		if (got == 1) {
			diag_put(
			    d, DIAG_ERROR, path, 0, "missing: certificates of who vouches for %s", rc->server[i].name);
		} else if (got == 0 && rc->server[i].tls == TLS_VERIFY && c->radsec.anchors[i] == 0) {
			diag_put(d, DIAG_ERROR, path, 0, "holds no certificate");
			got = -1;
		}
		rc_all = got != 0 ? -1 : rc_all;
	}
	if (rc->cert[0] != '\0') {
		if (cert_load(&c->radsec.client, c->secrets, place_of(c, rc->cert, cert),
			rc->key[0] != '\0' ? place_of(c, rc->key, key) : "", d) == -1) {
			rc_all = -1;
		}
		secret_move_client(c->secrets);
	} else if (rc->key[0] != '\0') {
		diag_put(
		    d, DIAG_ERROR, place_of(c, rc->key, key), 0, "a key without its certificate: expected cert=, too");
		rc_all = -1;
	}
	return rc_all;
}

#endif

void
radconf_free(struct config *c)
{
#if RADSEC
	for (unsigned i = 0; i < RADIUS_SERVERS_MAX; i++) {
		free(c->radsec.anchor[i]);
	}
	cert_free(&c->radsec.client);
#else
	(void)c;
#endif
}

void
radconf_load(struct config *c, struct diag *d)
{
	int bad;
	const char *path;
	char own[512];
	struct stat st;
	long n;

	path = ctl_path(c->home, "radius.conf", own, sizeof own);
	if (stat(path, &st) == -1 && errno == ENOENT) {
		path = RADIUS_CONF;
	}
	n = file_read(path, c->secrets->file, sizeof c->secrets->file - 1);
	if (n == -1) {
		/* Where nobody is ever asked to log in, none is needed. */
		diag_put(d, logins_possible(c) ? DIAG_ERROR : DIAG_NOTE, own, 0,
		    "%scannot be read: %s; nobody can log in", path == own ? "" : "not there, and " RADIUS_CONF " ",
		    strerror(errno));
		return;
	}
	if (stat(path, &st) == 0 && (st.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
		diag_put(d, DIAG_WARN, path, 0, "others than its owner can read the secrets; expected mode 0600");
	}
	bad = control_parse_radius(&c->radius, c->secrets, (size_t)n, d, path);
#if RADSEC
	if (bad == 0 && load_tls(c, d) == -1) {
		bad = -1;
		c->radius.servers = 0;
		explicit_bzero(c->secrets->radius, sizeof c->secrets->radius);
	}
#endif
	if (bad == -1) {
		diag_put(d, DIAG_NOTE, path, 0, "nobody can log in until this is mended");
	}
}
