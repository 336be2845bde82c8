/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * `mailstile selftest`: tries what mail will need. Each test is a process of its own, which has given up root, has no secret that its test does
 * not need, and is ended after SECONDS; it prints one line, which begins with "ok" or "NO", or "--" when it could not be tried. What strangers say is cleaned before it is shown.
 */
#include "selftest.h"

#include "config.h"

#if SELFTEST

#include "anchor.h"
#include "certlook.h"
#include "control.h"
#include "options.h"
#include "policy.h"
#include "priv.h"
#include "radius.h"
#include "remoteint.h"
#include "server.h"
#include "str.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SECONDS 10
#define STEP_SECONDS 4 /* for one connection, one reply */
#define EACH_MAX 8     /* routes, listeners */
#define SOON (14 * 86400)

/* What a test needs to know beyond what everybody may. */
enum knows { NOTHING, OF_RADIUS, OF_RELAYS };

/* How a test went. */
enum { NOT_WELL, WELL, NOT_TRIED };

static int
say(int ok, const char *what, const char *text)
{
	print(STDOUT_FILENO, "%s  %s: %s\n", ok == WELL ? "ok" : ok == NOT_WELL ? "NO" : "--", what, text);
	return ok == NOT_WELL;
}

/* ---- network ---- */

static int
test_clock(struct config *c, unsigned i)
{
	(void)c;
	(void)i;
	return time(NULL) < BUILD_EPOCH
	    ? say(0, "clock", "not set, so no mail is taken: is there an NTP server? Or set it by hand")
	    : say(1, "clock", "set");
}

static int
test_link(struct config *c, unsigned i)
{
	/* A way to an address of the public space (RFC 5737); nothing is sent there. */
	const struct addr there = { { [10] = 0xff, 0xff, 192, 0, 2, 1 } };
	struct sockaddr_storage ss;
	socklen_t len = addr_to_sockaddr(&there, 53, &ss);
	int fd = socket(ss.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	(void)c;
	(void)i;
	if (fd == -1 || (connect(fd, (const struct sockaddr *)&ss, len) == -1 && !remote_has_v6())) {
		return say(0, "network", "no way out: look at cable, address and gateway");
	}
	return say(1, "network", "there is a way out");
}

static int
test_dns(struct config *c, unsigned i)
{
	struct dns_mx mx[2];
	char text[ADDR_TEXT_MAX];
	size_t n;

	(void)i;
	if (dns_mx(&c->relay.dns, SELFTEST_DOMAIN, mx, 2, &n, mono_ms() + 8000) == DNS_TROUBLE) {
		addr_text(&c->relay.dns.server[0], text);
		print(STDOUT_FILENO, "NO  name servers: no answer from %s%s; look at /etc/resolv.conf\n", text,
		    c->relay.dns.servers > 1 ? ", nor the others" : "");
		return 1;
	}
	return say(1, "name servers", "answer");
}

/* ---- RADIUS ---- */

/* A login that nobody can have: a refusal is a proof of the secret. */
static int
test_radius(struct config *c, unsigned i)
{
	static struct radius_conf one;
	struct radius_addresses addresses;
	struct radius_answer a;
	struct share *sh = share_open(-1);
	char password[33], name[300];
	uint8_t random[16];
	struct buf b;
	const struct radius_query q = { .user = "mailstile-selftest",
		.password = password,
		.client = "127.0.0.1",
		.called = "selftest",
		.nas = c->me,
		.session = "selftest" };

	one.servers = 1;
	one.server[0] = c->radius.server[i];
	one.server[0].timeout = 2;
	one.server[0].retries = 1;
	one.server[0].unsigned_ok = 0;
	memmove(c->secrets->radius[0], c->secrets->radius[i], sizeof c->secrets->radius[0]);
	str_fmt(name, sizeof name, "RADIUS server %s", one.server[0].name);
	random_bytes(random, sizeof random);
	buf_init(&b, password, sizeof password);
	for (size_t k = 0; k < sizeof random; k++) {
		buf_fmt(&b, "%02x", random[k]);
	}
	buf_cstr(&b);
	if (sh == NULL || radius_resolve(&one, &addresses) == -1) {
		return say(0, name, "its name has no address");
	}
	radius_set_addresses(sh, 0, &addresses);
	radius_ask(&one, c->secrets, sh, 0, &q, &a);
	return a.result == RADIUS_REJECT ? say(1, name, "answers, signs, and knows the secret")
	    : a.result == RADIUS_ACCEPT  ? say(0, name, "lets anybody in, whatever the password")
					 : say(0, name, radius_trouble_text(a.trouble));
}

/* ---- certificate ---- */

static int
test_certificate(struct config *c, unsigned i)
{
	struct diag d = { .emit = diag_to_nobody };
	br_x509_trust_anchor *anchor = NULL;
	int64_t now = (int64_t)time(NULL);
	char until[11], text[512];
	size_t n = 0;
	int self, error;

	(void)i;
	if (c->chain.key_type == 0) {
		return access(ctl_path(c->home, "servercert.pem", text, sizeof text), F_OK) == -1
		    ? say(NOT_TRIED, "certificate", "none yet; the server makes one at its first start")
		    : say(0, "certificate", "there is none that can be used: see check");
	}
	certlook_leaf(&c->chain, until, &self);
	error = certlook_judge(&c->chain, c->me, now, NULL, 0);
	if (error == BR_ERR_X509_BAD_SERVER_NAME) {
		return say(0, "certificate", "it is for another name than control/me says: " CERTLOOK_REMEDY);
	}
	if (error == BR_ERR_X509_EXPIRED) {
		str_fmt(text, sizeof text, "not valid at this date; its end is %s", until);
		return say(0, "certificate", text);
	}
	if (error != BR_ERR_X509_NOT_TRUSTED) {
		return say(0, "certificate",
		    error == TLSCHECK_CLOCK ? "the clock is not set"
					    : "the chain is broken: see servercert.pem in mailstile-control(5)");
	}
	if (certlook_judge(&c->chain, c->me, now + SOON, NULL, 0) == BR_ERR_X509_EXPIRED) {
		str_fmt(text, sizeof text, "ends soon, on %s: get a new one", until);
		return say(0, "certificate", text);
	}
	if (self) {
		str_fmt(text, sizeof text, "valid until %s, but self-signed: clients warn until they are told", until);
		return say(1, "certificate", text);
	}
	(void)anchors_load(RELAY_CA_FILE, 0, &anchor, &n, &d);
	error = n == 0 ? 0 : certlook_judge(&c->chain, c->me, now, anchor, n);
	str_fmt(text, sizeof text,
	    error == 0 ? "valid until %s%s"
		       : "valid until %s, but of no authority that is known here: is an intermediate missing?",
	    until, n == 0 ? "; no authorities here to judge it by" : "");
	return say(error == 0, "certificate", text);
}

/* ---- mail ---- */

static struct remote *
remote_new(const struct config *c)
{
	static struct remote r;

	r.conf = &c->relay;
	r.secrets = c->secrets;
	r.sock = -1;
	r.deadline = mono_ms() + SECONDS * 1000;
	buf_init(&r.why, r.why_mem, sizeof r.why_mem);
	return &r;
}

/* The last line of why it did not work, as one that can be shown. */
static const char *
reason(struct remote *r)
{
	char *s = buf_cstr(&r->why), *last = s;

	for (char *p = s; *p != '\0'; p++) {
		if (*p == '\n' && p[1] != '\0') {
			last = p + 1;
		} else if (*p == '\n') {
			*p = '\0';
			break;
		}
		if (*p < ' ' || *p > '~') {
			*p = '?';
		}
	}
	return *last == '\0' ? "no mail host" : last;
}

static int
test_route(struct config *c, unsigned i)
{
	const struct relay_route *t = &c->relay.route[i];
	struct remote *r = remote_new(c);
	char name[700];

	str_fmt(name, sizeof name, "relay for %s", t->domain[0] == '\0' ? "all mail" : t->domain);
	r->job.route = i;
	if (remote_find(r) == -1) {
		return say(0, name, reason(r));
	}
	str_fmt(name, sizeof name, "relay %s", r->hop.host);
	say(1, name,
	    r->hop.auth != -1 ? "takes mail, and the login"
		: r->conn.tls ? "takes mail, under TLS"
			      : "takes mail");
	remote_hang_up(r, 1);
	return 0;
}

static int
test_port25(struct config *c, unsigned i)
{
	static const char name[] = "port 25 outwards",
			  blocked[] = "nobody answers: many providers block it; then name a smarthost";
	int64_t deadline = mono_ms() + 8000;
	struct dns_mx mx[2];
	struct addr addr[4];
	struct pollfd p;
	char greeting[4] = "";
	size_t n = 0;

	(void)i;
	if (dns_mx(&c->relay.dns, SELFTEST_DOMAIN, mx, 2, &n, deadline) != DNS_OK ||
	    dns_addr(&c->relay.dns, mx[0].host, remote_has_v6(), addr, 4, &n, deadline) != DNS_OK) {
		return say(0, name, "not tried: no answer from the name servers");
	}
	for (size_t k = 0; k < n && mono_ms() < deadline; k++) {
		p.fd = remote_open(&addr[k], 25, STEP_SECONDS * 500, -1);
		p.events = POLLIN;
		if (p.fd != -1 && poll(&p, 1, STEP_SECONDS * 1000) == 1 && read(p.fd, greeting, 3) == 3 &&
		    strcmp(greeting, "220") == 0) {
			return say(1, name, "open");
		}
	}
	return say(0, name, blocked);
}

/* One command of a stranger's. The reply's code, 0 = none. */
static int
ask(struct remote *r, const char *command, const char *text, const char *end)
{
	SAY(r, command, text, end);
	return remote_hear(r, NULL, STEP_SECONDS) == NULL ? r->reply.code : 0;
}

/* Does our own listener take mail for somewhere else from a stranger? */
static int
test_door(struct config *c, unsigned i)
{
	static const struct addr loopback = { { [10] = 0xff, 0xff, 127, 0, 0, 1 } };
	const struct listen_conf *l = &c->listen[i];
	const struct addr *to = l->any ? &loopback : &l->addr;
	struct policy_client client;
	struct remote *r = remote_new(c);
	char name[40], text[400];
	int code;

	str_fmt(name, sizeof name, "door at port %u", l->port);
	r->hop.port = l->port;
	r->hop.numeric = 1;
	r->hop.auth = -1;
	r->hop.implicit = l->profile == PROFILE_SUBMISSIONS;
	r->hop.tls = r->hop.implicit ? TLS_ENCRYPT : TLS_MAY;
	addr_text(to, r->hop.host);
	policy_client(c, to, NULL, NULL, &client);
	if (l->profile == PROFILE_SMTP && check_open_relay(c)) {
		return say(0, name, "OPEN RELAY: relayclients or tcp.smtp.cdb let everybody send to anybody");
	}
	if (remote_hello(r, to) == -1) {
		str_fmt(text, sizeof text, "%.300s%s", reason(r),
		    strstr(reason(r), "refused") != NULL ? "; no server runs at this port" : "");
		return say(0, name, text);
	}
	if (client.relay && l->profile == PROFILE_SMTP) {
		return say(
		    NOT_TRIED, name, "not tried: this host may relay by its address (relayclients, tcp.smtp.cdb)");
	}
	code = ask(r, "MAIL FROM:<selftest@", c->me, ">");
	if (code / 100 == 2) {
		code = ask(r, "RCPT TO:<selftest@", "open-relay.invalid", ">");
	}
	remote_hang_up(r, 1);
	return code / 100 == 2 ? say(0, name, "OPEN RELAY: strangers may send to anybody; look at rcpthosts")
	    : code == 0        ? say(0, name, "the server lost the connection")
			       : say(1, name, "strangers may not send to anybody");
}

/* ---- all of it ---- */

static struct config *config;
static struct priv_ids ids;

/* Run one test in a process of its own. 1: something is not well. */
static unsigned
run(const char *what, int (*test)(struct config *c, unsigned i), unsigned i, enum knows knows)
{
	int status = 0, null;
	pid_t pid = fork();

	if (pid == 0) {
		alarm(SECONDS);
		null = open("/dev/null", O_WRONLY | O_CLOEXEC);
		if (null == -1 || dup2(null, STDERR_FILENO) == -1) {
			_exit(1);
		}
		if (knows == NOTHING) {
			secret_unmap(config->secrets);
			config->secrets = NULL;
		} else if (knows == OF_RELAYS) {
			secret_keep_relay(config->secrets);
		} else {
			secret_drop_relay(config->secrets);
			explicit_bzero(&config->secrets->key, sizeof config->secrets->key);
		}
		if (ids.root) {
			priv_become(knows == OF_RADIUS ? ids.spool_uid
				: knows == OF_RELAYS   ? ids.remote_uid
						       : ids.smtp_uid,
			    knows == OF_RADIUS ? ids.spool_gid : ids.smtp_gid);
		}
		_exit(test(config, i));
	}
	if (pid == -1 || waitpid(pid, &status, 0) == -1) {
		status = -1;
	}
	if (!WIFEXITED(status)) {
		say(0, what,
		    WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM
			? "not done after 10 seconds: too slow, or nobody is there"
			: "the test itself has failed; is there enough memory?");
		return 1;
	}
	return WEXITSTATUS(status) != 0;
}

static unsigned
run_all(struct config *c)
{
	unsigned bad = run("clock", test_clock, 0, NOTHING) + run("network", test_link, 0, NOTHING) +
	    run("name servers", test_dns, 0, NOTHING);
	int all = relay_route_find(&c->relay, "open-relay.invalid");

	for (unsigned i = 0; i < c->radius.servers; i++) {
		bad += run("RADIUS server", test_radius, i, OF_RADIUS);
	}
	if (c->radius.servers == 0) {
		bad += (unsigned)say(0, "RADIUS", "no server: nobody can log in");
	}
	bad += run("certificate", test_certificate, 0, NOTHING);
	for (unsigned i = 0; i < c->relay.routes && i < EACH_MAX; i++) {
		if (c->relay.route[i].hops > 0) {
			bad += run("relay", test_route, i, OF_RELAYS);
		}
	}
	if (c->relay.on && (all == -1 || c->relay.route[all].hops == 0)) {
		bad += run("port 25 outwards", test_port25, 0, NOTHING);
	}
	for (unsigned i = 0; i < c->listeners && i < EACH_MAX; i++) {
		if (c->listen[i].profile != PROFILE_INSIDE) {
			bad += run("door", test_door, i, NOTHING);
		}
	}
	return bad;
}

static void
diag_quiet(struct diag *d, enum diag_level level, const char *file, int line, const char *text)
{
	if (level == DIAG_ERROR) {
		diag_to_stdout(d, level, file, line, text);
	}
}

int
selftest_main(int argc, char **argv)
{
	struct diag d = { .emit = diag_quiet };
	const char *home = NULL, *missing;
	struct options o;
	unsigned bad;
	int opt;

	(void)argc;
	options_begin(&o, argv);
	while ((opt = options_next(&o, "H:")) == 'H') {
		home = o.value;
	}
	if (opt != 0 || *o.word != NULL) {
		print(STDERR_FILENO, "usage: mailstile selftest [-H home]\n");
		return 100;
	}
	config = config_load(home, &d);
	if (config == NULL) {
		return 1;
	}
	if (priv_lookup(&ids, &missing) == -1) {
		print(STDOUT_FILENO, "no user or group `%s`: make qmail's users first, see mailstile(8)\n", missing);
		return 1;
	}
	if (!config->relay.on) {
		str_copy(config->relay.helohost, sizeof config->relay.helohost, config->me);
		config->relay.routes = 0;
	}
	config->relay.timeout_connect = STEP_SECONDS;
	config->relay.timeout_remote = STEP_SECONDS;
	dns_conf_load(&config->relay.dns, NULL, NULL);
	signal(SIGPIPE, SIG_IGN);
	bad = run_all(config);
	if (d.errors > 0) {
		bad += (unsigned)say(0, "control files", "have faults, see above");
	}
	print(STDOUT_FILENO, bad == 0 ? "all is well\n" : "%u of these are not well\n", bad);
	config_free(config);
	return bad != 0;
}

#endif
