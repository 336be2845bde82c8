/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The control files of delivery: qmail-send's and qmail-remote's own, and ours. Read by main only, before any fork, in the order in which
 * they lean on each other: smtproutes names the relays, smtpauth and smtptls say more about them. A line that could do nothing, or that
 * says less than it seems to, is an error: a typing error in smtptls must not send mail in the clear.
 */
#include "relayconf.h"

#include "anchor.h"
#include "deliver.h"
#include "str.h"
#include "tlscheck.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#if RELAY

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpragmas" /* before gcc 10 */
/* gcc 12's analyser loses sight of what load_pairs() has stored; relay_conf_free() frees it. */
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

/* What is being read. */
struct load {
	struct relay_conf *r;
	struct secrets *s;
	struct diag *d;
	const char *home;
	char path[512]; /* of the file at hand */
	int line;
	int auth_line[RELAY_AUTH_MAX]; /* in smtpauth */
	const char *verify;            /* the file, and its line, that first asks for trust anchors; NULL = none does */
	int verify_line;
};

static const char *const policies[] = { "none", "may", "encrypt", "verify", "pin" };

const char *
relay_policy_name(enum tls_policy p)
{
	return policies[p];
}

/* ---- small files ---- */

/* What is wrong with the line at hand. */
static int
bad(struct load *l, const char *what)
{
	diag_put(l->d, DIAG_ERROR, l->path, l->line, "%s", what);
	return -1;
}

/* Name the file whose first line is at hand. */
static const char *
enter(struct load *l, const char *name)
{
	l->line = 1;
	return ctl_path(l->home, name, l->path, sizeof l->path);
}

/* A line of text; `dflt` when there is none. */
static void
load_text(struct load *l, const char *name, char *dst, size_t size, const char *dflt)
{
	str_copy(dst, size, dflt);
	ctl_line(l->home, name, dst, size, l->d);
}

/* A host as it stands in a greeting or behind an @. */
static void
load_host(struct load *l, const char *name, char *dst, size_t size, const char *dflt)
{
	load_text(l, name, dst, size, dflt);
	if (dst[0] == '[' && dst[strcspn(dst, " \t<>@")] == '\0') {
		return;
	}
	if (strcmp(dst, dflt) != 0 && !ctl_hostname_ok(dst)) {
		enter(l, name);
		bad(l, "expected a host name, or an address in brackets");
	}
}

static uint64_t
load_number(struct load *l, const char *name, uint64_t dflt, uint64_t min, uint64_t max)
{
	char line[32] = "";
	uint64_t n = dflt;

	ctl_line(l->home, name, line, sizeof line, l->d);
	if (line[0] != '\0' && (parse_u64(line, strlen(line), max, &n) == -1 || n < min)) {
		diag_put(l->d, DIAG_ERROR, enter(l, name), 1, "expected a number from %llu to %llu",
		    (unsigned long long)min, (unsigned long long)max);
	}
	return n;
}

/* A line that holds one of two words. 1: the second; 0: the first; -1: neither, which is told. */
static int
load_choice(struct load *l, const char *name, const char *first, const char *second, int dflt)
{
	char line[32] = "";

	switch (ctl_line(l->home, name, line, sizeof line, l->d)) {
	case -1:
		return -1;
	case 1:
		return dflt;
	default:
		break;
	}
	if (strcmp(line, first) != 0 && strcmp(line, second) != 0) {
		diag_put(l->d, DIAG_ERROR, enter(l, name), 1, "expected `%s` or `%s`", first, second);
		return -1;
	}
	return strcmp(line, second) == 0;
}

/* Without locals this host's name is local; with an empty one nothing is. */
static void
load_locals(struct load *l, const char *me)
{
	struct names *n = &l->r->locals;

	if (ctl_names(l->home, "locals", n, l->d) == 1 && names_one(n, me) == -1) {
		enter(l, "locals");
		bad(l, "no memory");
	}
}

static int
is_maildir(const char *key, const char *value)
{
	const char *at = strrchr(key, '@');

	return at != NULL && at[1] != '\0' && strlen(key) <= DELIVER_ADDR_MAX && ctl_hostname_ok(at + 1) &&
	    value[0] == '/';
}

/* virtualdomains, or localmaildirs: lines KEY:VALUE, which become KEY\0VALUE. */
static void
load_pairs(struct load *l, int paths)
{
	const char *name = paths ? "localmaildirs" : "virtualdomains";
	struct names *n = paths ? &l->r->maildirs : &l->r->virtuals;
	size_t lines = 1;
	char *rest, *line, **v;

	if (ctl_read(l->home, name, &n->mem, l->d) != CTL_OK) {
		return;
	}
	enter(l, name);
	for (const char *p = n->mem; *p != '\0'; p++) {
		lines += *p == '\n';
	}
	v = malloc(lines * sizeof *v);
	if (v == NULL) {
		bad(l, "no memory");
		return;
	}
	n->v = v;
	rest = n->mem;
	for (l->line = 1; (line = ctl_next_line(&rest)) != NULL; l->line++) {
		char *colon = strchr(line, ':');

		if (!ctl_is_entry(line)) {
			continue;
		}
		if (colon != NULL) {
			*colon = '\0';
		}
		if (colon == NULL || (paths && !is_maildir(line, colon + 1))) {
			bad(l,
			    paths
				? "expected USER@DOMAIN:/PATH/OF/MAILDIR, or @DOMAIN:/PATH for all others there"
				: "expected DOMAIN:PREFIX, USER@DOMAIN:PREFIX, .SUFFIX:PREFIX or :PREFIX; an empty PREFIX makes an exception");
			return;
		}
		n->v[n->n++] = ascii_strlower(line);
	}
	if (paths && n->n > LOCAL_MAILDIRS_MAX) {
		bad(l, "more lines than this build has room for (LOCAL_MAILDIRS_MAX)");
	}
	names_sort(n);
	for (size_t i = 1; i < n->n; i++) {
		if (strcmp(n->v[i - 1], n->v[i]) == 0) {
			diag_put(l->d, DIAG_ERROR, l->path, 0, "two lines for `%.255s`: expected one", n->v[i]);
			return;
		}
	}
}

/* ---- smtproutes, smtpauth, smtptls ---- */

/* Give each entry of a text to `take` until one is no good. */
static int
each_entry(struct load *l, char *rest, int (*take)(struct load *l, char *line))
{
	char *line;

	for (l->line = 1; (line = ctl_next_line(&rest)) != NULL; l->line++) {
		if (ctl_is_entry(line) && take(l, line) == -1) {
			return -1;
		}
	}
	return 0;
}

static void
load_list(struct load *l, const char *name, int (*take)(struct load *l, char *line))
{
	char *text;

	if (ctl_read(l->home, name, &text, l->d) == CTL_OK) {
		enter(l, name);
		each_entry(l, text, take);
		free(text);
	}
}

/* Cut what stands before the colon off *rest, in lower case; an address in brackets has colons of its own. NULL: there is none. */
static char *
cut_key(char **rest)
{
	char *key = *rest;
	char *colon = key[0] == '[' ? strstr(key, "]:") : strchr(key, ':');

	if (colon == NULL) {
		return NULL;
	}
	colon += key[0] == '[';
	*colon = '\0';
	*rest = colon + 1;
	return strlen(key) < 256 ? ascii_strlower(key) : NULL;
}

/* A domain, .suffix, address in brackets, or nothing. */
static int
domain_ok(const char *key)
{
	if (key[0] == '[') {
		return key[strcspn(key, " \t")] == '\0';
	}
	return strcmp(key, ".") != 0 && ctl_hostname_ok(key + (key[0] == '.'));
}

/* A relay's name as it is kept: lower case, no brackets, no dot at its end; an address in its usual form. */
static void
relay_name(char dst[256], const char *word, struct addr *a, int *numeric)
{
	size_t len = strlen(word);
	int brackets = len > 1 && word[0] == '[' && word[len - 1] == ']';

	str_fmt(dst, 256, "%.*s", (int)(len - (brackets ? 2 : 0)), word + brackets);
	*numeric = addr_parse(a, dst, strlen(dst)) == 0;
	if (*numeric) {
		addr_text(a, dst);
		return;
	}
	ascii_strlower(dst);
	len = strlen(dst);
	if (len > 0 && dst[len - 1] == '.') {
		dst[len - 1] = '\0';
	}
}

static int
take_hop(struct load *l, struct relay_hop *h, char *word)
{
	uint8_t question[DNS_QUESTION_MAX];
	char host[CTL_HOST_MAX];

	if ((word[0] != '[' && strchr(word, ':') != strrchr(word, ':')) ||
	    ctl_host(word, host, &h->numeric, &h->addr, &h->port, 25) == -1) {
		return bad(l, "expected relays as NAME[:PORT], IPv4[:PORT] or [IPv6][:PORT], or nothing for MX");
	}
	relay_name(h->host, host, &h->addr, &h->numeric);
	if (!h->numeric && dns_question(question, sizeof question, 0, h->host, DNS_A) == 0) {
		return bad(l, "a relay's name cannot be looked up: a part of it is empty or too long");
	}
	h->implicit = h->port == 465;
	h->tls = TLS_MAY;
	h->auth = -1;
	return 0;
}

static int
take_route(struct load *l, char *line)
{
	struct relay_route *t = &l->r->route[l->r->routes];
	const char *key;
	char *word;

	if (strchr(line, '|') != NULL) {
		return bad(l,
		    "`|` with user and password is not understood here: put RELAY:USER:PASSWORD into control/smtpauth");
	}
	key = cut_key(&line);
	if (key == NULL || !domain_ok(key) || (key[0] != '\0' && key[strlen(key) - 1] == '.')) {
		return bad(l, "expected DOMAIN:RELAY, .SUFFIX:RELAY or :RELAY");
	}
	if (l->r->routes == RELAY_ROUTES_MAX) {
		return bad(l, "more lines than this build has room for (RELAY_ROUTES_MAX)");
	}
	for (unsigned i = 0; i < l->r->routes; i++) {
		if (strcmp(l->r->route[i].domain, key) == 0) {
			return bad(l, "an earlier line is for the same domain: expected one, its relays side by side");
		}
	}
	str_copy(t->domain, sizeof t->domain, key);
	while ((word = ctl_next_word(&line)) != NULL) {
		if (t->hops == RELAY_HOPS_MAX) {
			return bad(l, "too many relays (RELAY_HOPS_MAX)");
		}
		if (take_hop(l, &t->hop[t->hops], word) == -1) {
			return -1;
		}
		t->hops++;
	}
	l->r->routes++;
	return 0;
}

/* The next relay after `h` (NULL: from the beginning) whose name is `name` (NULL: any). NULL when there is none. */
static struct relay_hop *
next_hop(struct relay_conf *r, const struct relay_hop *h, const char *name)
{
	int seen = h == NULL;

	for (unsigned i = 0; i < r->routes; i++) {
		for (unsigned k = 0; k < r->route[i].hops; k++) {
			struct relay_hop *o = &r->route[i].hop[k];

			if (seen && (name == NULL || strcmp(o->host, name) == 0)) {
				return o;
			}
			seen |= o == h;
		}
	}
	return NULL;
}

static int
printable(const char *s)
{
	for (; *s != '\0'; s++) {
		if ((uint8_t)*s < 32 || *s == 127) {
			return 0;
		}
	}
	return 1;
}

/* No finding may show a part of the line. */
static int
take_auth(struct load *l, char *line)
{
	struct relay_conf *r = l->r;
	const char *key = cut_key(&line);
	char *password = key == NULL ? NULL : strchr(line, ':');
	char name[256];
	struct addr a;
	int numeric;

	if (password == NULL || password == line || password[1] == '\0' || !printable(line)) {
		return bad(l, "expected RELAY:USER:PASSWORD");
	}
	*password++ = '\0';
	if (r->auths == RELAY_AUTH_MAX) {
		return bad(l, "more lines than this build has room for (RELAY_AUTH_MAX)");
	}
	if (str_copy(r->auth[r->auths].user, sizeof r->auth[0].user, line) == -1 ||
	    str_copy(l->s->relay[r->auths], sizeof l->s->relay[0], password) == -1) {
		return bad(l, "the user or the password is too long: at most 255 and 128 octets");
	}
	relay_name(name, key, &a, &numeric);
	if (next_hop(r, NULL, name) == NULL) {
		return bad(
		    l, "the relay is none of control/smtproutes: expected its name as it stands there, without port");
	}
	for (struct relay_hop *h = NULL; (h = next_hop(r, h, name)) != NULL;) {
		uint64_t user;

		if (h->auth != -1) {
			return bad(l, "an earlier line is for the same relay");
		}
		if (parse_u64(line, strlen(line), 65535, &user) == 0 &&
		    (user == h->port || user == 25 || user == 465 || user == 587)) {
			return bad(l, "the user is a port: expected the relay's name without one");
		}
		h->auth = (int)r->auths;
	}
	l->auth_line[r->auths++] = l->line;
	return 0;
}

/* Passwords: straight into the secret mapping, and parsed there. */
static void
load_auth(struct load *l)
{
	char *text = (char *)l->s->file;
	struct stat st;
	long n;

	enter(l, "smtpauth");
	l->line = 0;
	if (stat(l->path, &st) == -1 && errno == ENOENT) {
		return;
	}
	n = file_read(l->path, text, sizeof l->s->file - 1);
	if (n == -1) {
		diag_put(l->d, DIAG_ERROR, l->path, 0, "cannot be read: %s", strerror(errno));
		return;
	}
	if (stat(l->path, &st) == 0 && (st.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
		diag_put(
		    l->d, DIAG_WARN, l->path, 0, "others than its owner can read the passwords; expected mode 0600");
	}
	text[n] = '\0';
	if (strlen(text) != (size_t)n) {
		bad(l, "contains a NUL octet; expected text");
	} else {
		each_entry(l, text, take_auth);
	}
	explicit_bzero(text, sizeof l->s->file);
}

static int
take_pin(struct load *l, const char *word)
{
	if (l->r->pins == RELAY_PINS_MAX) {
		return bad(l, "more pins than this build has room for (RELAY_PINS_MAX)");
	}
	if (tlscheck_pin(&l->r->pin[l->r->pins], word) == -1) {
		return bad(l,
		    "expected the SHA-256 of a public key after `pin`, 64 hexadecimal digits, and perhaps more of them");
	}
	l->r->pins++;
	return 0;
}

/* POLICY [implicit] */
static int
parse_policy(struct load *l, char *rest, struct relay_tls *t, int *implicit)
{
	const char *word = ctl_next_word(&rest);
	unsigned p = 0;

	while (p <= TLS_PIN && (word == NULL || strcmp(word, policies[p]) != 0)) {
		p++;
	}
	if (p > TLS_PIN) {
		return bad(l,
		    "expected NAME:POLICY, where POLICY is none, may, encrypt, verify or `pin HEX...`; NAME has no port");
	}
	t->tls = (enum tls_policy)p;
	t->pin = l->r->pins;
	word = ctl_next_word(&rest);
	while (t->tls == TLS_PIN && word != NULL && strcmp(word, "implicit") != 0) {
		if (take_pin(l, word) == -1) {
			return -1;
		}
		word = ctl_next_word(&rest);
	}
	t->pins = l->r->pins - t->pin;
	if (t->tls == TLS_PIN && t->pins == 0) {
		return bad(l, "expected the SHA-256 of a public key after `pin`");
	}
	*implicit = word != NULL && strcmp(word, "implicit") == 0;
	if (*implicit ? ctl_next_word(&rest) != NULL : word != NULL) {
		return bad(l, "expected nothing more after the policy but the word `implicit`");
	}
	return 0;
}

/* Does mail for some domain that `key` stands for go by MX? */
static int
goes_by_mx(const struct relay_conf *r, const char *key)
{
	size_t len = strlen(key);

	if (relay_route_find(r, key) == -1) {
		return 1;
	}
	for (unsigned i = 0; i < r->routes; i++) {
		size_t l = strlen(r->route[i].domain);

		if (r->route[i].hops == 0 && key[0] == '.' && l >= len &&
		    strcmp(r->route[i].domain + l - len, key) == 0) {
			return 1;
		}
	}
	return 0;
}

/* A line that is about a relay of smtproutes. */
static int
take_relay_tls(struct load *l, struct relay_hop *h, const struct relay_tls *t, int implicit)
{
	if (h->named) {
		return bad(l, "an earlier line is for the same relay");
	}
	if (h->auth != -1 && t->tls < TLS_VERIFY) {
		return bad(l,
		    "this relay gets a password (control/smtpauth), which must not go to whoever answers: expected verify or pin");
	}
	h->implicit |= implicit;
	if (h->implicit && t->tls == TLS_NONE) {
		return bad(
		    l, "port 465 and `implicit` are TLS from the first octet: expected another policy than none");
	}
	h->named = 1;
	h->tls = t->tls;
	h->pin = t->pin;
	h->pins = t->pins;
	return 0;
}

static int
take_tls(struct load *l, char *line)
{
	struct relay_conf *r = l->r;
	const char *key = cut_key(&line);
	struct relay_tls t = { .tls = TLS_MAY };
	struct relay_hop *h = NULL;
	struct addr a;
	int implicit = 0, numeric;

	if (key == NULL || !domain_ok(key)) {
		return bad(
		    l, "expected NAME:POLICY, NAME being a relay of control/smtproutes, a domain, .SUFFIX, or nothing");
	}
	if (parse_policy(l, line, &t, &implicit) == -1) {
		return -1;
	}
	relay_name(t.key, key, &a, &numeric);
	if (t.tls == TLS_VERIFY && numeric) {
		return bad(
		    l, "an address cannot be verified: name the relay, here and in control/smtproutes, or pin its key");
	}
	if (t.tls == TLS_VERIFY && l->verify == NULL) {
		l->verify = "smtptls";
		l->verify_line = l->line;
	}
	if (t.key[0] != '\0' && next_hop(r, NULL, t.key) != NULL) {
		while ((h = next_hop(r, h, t.key)) != NULL) {
			if (take_relay_tls(l, h, &t, implicit) == -1) {
				return -1;
			}
		}
		return 0;
	}
	if (implicit || numeric || (t.key[0] != '\0' && !goes_by_mx(r, t.key))) {
		return bad(l,
		    "names no relay of control/smtproutes, and no domain whose mail goes by MX: it would do nothing");
	}
	for (unsigned i = 0; i < r->tls_n; i++) {
		if (strcmp(r->tls[i].key, t.key) == 0) {
			return bad(l, "an earlier line is for the same domain");
		}
	}
	if (r->tls_n == RELAY_ROUTES_MAX) {
		return bad(l, "more lines than this build has room for (RELAY_ROUTES_MAX)");
	}
	r->tls[r->tls_n++] = t;
	return 0;
}

/* The policy of relays that no line names: a password asks for `verify`, TLS from the first octet is TLS always. */
static void
settle_policies(struct load *l)
{
	const struct relay_tls *dflt = relay_tls_find(l->r, "");

	for (struct relay_hop *h = NULL; (h = next_hop(l->r, h, NULL)) != NULL;) {
		if (!h->named) {
			h->tls = dflt->tls;
			h->pin = dflt->pin;
			h->pins = dflt->pins;
		}
		if (h->auth != -1 && h->tls < TLS_VERIFY && h->numeric) {
			enter(l, "smtpauth");
			l->line = l->auth_line[h->auth];
			bad(l,
			    "the relay is an address, which cannot be verified: name it, or pin its key in control/smtptls");
		} else if (h->auth != -1 && h->tls < TLS_VERIFY) {
			h->tls = TLS_VERIFY;
			if (l->verify == NULL) {
				l->verify = "smtpauth";
				l->verify_line = l->auth_line[h->auth];
			}
		}
		if (h->implicit && h->tls < TLS_ENCRYPT) {
			h->tls = TLS_ENCRYPT;
		}
	}
}

static void
load_anchors(struct load *l)
{
	struct relay_conf *r = l->r;
	int rc;

	if (l->verify == NULL) {
		return;
	}
	enter(l, "cacerts.pem");
	rc = anchors_load(l->path, 1, &r->anchor, &r->anchors, l->d);
	if (rc == 1) {
		rc = anchors_load(RELAY_CA_FILE, 0, &r->anchor, &r->anchors, l->d);
	}
	if (rc != -1 && r->anchors == 0) {
		diag_put(l->d, DIAG_ERROR, enter(l, l->verify), l->verify_line,
		    "certificates are to be verified, but there are no trust anchors: put some into control/cacerts.pem, or into %s",
		    RELAY_CA_FILE);
	}
}

/* What the queue is kept by. */
static void
load_queue(struct load *l, const char *me)
{
	struct relay_conf *r = l->r;

	load_host(l, "envnoathost", r->envnoathost, sizeof r->envnoathost, me);
	load_locals(l, me);
	ctl_names(l->home, "percenthack", &r->percenthack, l->d);
	load_pairs(l, 0);
	if (LOCAL_MAILDIRS_MAX > 0) {
		load_pairs(l, 1);
	}
	r->lifetime = (uint32_t)load_number(l, "queuelifetime", QUEUE_LIFETIME, 0, INT32_MAX);
	r->delaynotice = DELAY_NOTICE ? (uint32_t)load_number(l, "delaynotice", 0, 0, INT32_MAX) : 0;
	if (DELAY_NOTICE && r->delaynotice >= r->lifetime && r->delaynotice > 0) {
		diag_put(l->d, DIAG_WARN, enter(l, "delaynotice"), 1,
		    "mail is returned before anybody is told that it is late: expected less than %u (queuelifetime)",
		    (unsigned)r->lifetime);
	}
	load_text(l, "bouncefrom", r->bouncefrom, sizeof r->bouncefrom, "MAILER-DAEMON");
	load_host(l, "bouncehost", r->bouncehost, sizeof r->bouncehost, me);
	if (ctl_line(l->home, "doublebounceto", r->doublebounceto, sizeof r->doublebounceto, l->d) == 1) {
		str_copy(r->doublebounceto, sizeof r->doublebounceto, "postmaster");
	}
	load_host(l, "doublebouncehost", r->doublebouncehost, sizeof r->doublebouncehost, me);
	str_copy(r->me, sizeof r->me, me);
	r->dsn = load_choice(l, "bounceformat", "qsbmf", BOUNCE_DSN ? "dsn" : "qsbmf", 0) == 1;
	r->local = load_choice(l, "localdelivery", "leave", "bounce", 0) == 1 ? LOCAL_BOUNCE : LOCAL_LEAVE;
}

void
relay_conf_load(struct relay_conf *r, const char *home, const char *me, struct secrets *s, struct diag *d)
{
	struct load l = { .r = r, .s = s, .d = d, .home = home };
	unsigned errors = d->errors;

	r->on = load_choice(&l, "relay", "off", "on", RELAY_DEFAULT);
	if (r->on == 0) {
		return; /* the files are somebody else's */
	}
	load_queue(&l, me);
	r->concurrency = (unsigned)load_number(&l, "concurrencyremote", 20, 0, 65535);
	r->concurrency = r->concurrency > DELIVERIES_MAX ? DELIVERIES_MAX : r->concurrency;
	load_host(&l, "helohost", r->helohost, sizeof r->helohost, me);
	r->timeout_connect = (int)load_number(&l, "timeoutconnect", 60, 1, 3600);
	r->timeout_remote = (int)load_number(&l, "timeoutremote", 1200, 1, 7200);
	load_list(&l, "smtproutes", take_route);
	load_auth(&l);
	load_list(&l, "smtptls", take_tls);
	settle_policies(&l);
	load_anchors(&l);
	dns_conf_load(&r->dns, NULL, NULL);
	if (l.d->errors != errors) {
		/* Half of it would send mail astray. */
		r->on = 0;
		r->auths = 0;
		explicit_bzero(s->relay, sizeof s->relay);
		diag_put(d, DIAG_NOTE, NULL, 0, "nothing is delivered until this is mended; mail waits in the queue");
	}
}

#if TOOLS
void
relay_conf_load_queue(struct relay_conf *r, const char *home, struct diag *d)
{
	struct load l = { .r = r, .d = d, .home = home };
	char me[256] = "";

	if (ctl_line(home, "me", me, sizeof me, d) != -1 && (me[0] == '\0' || !ctl_hostname_ok(me))) {
		diag_put(d, DIAG_ERROR, enter(&l, "me"), 0, "expected this host's full name, as in mail.example.net");
	}
	load_queue(&l, me);
}
#endif

void
relay_conf_free(struct relay_conf *r)
{
	names_free(&r->locals);
	names_free(&r->percenthack);
	names_free(&r->virtuals);
	names_free(&r->maildirs);
	free(r->anchor);
}

#endif
