/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* The control files of delivery: relayconf.c, relayfind.c and anchor.c. Findings are compared as level|file|line|text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "control.h"
#include "unit.h"

#define SECRET "TOPSECRETtopsecret" /* never in a finding */
#define A16 "aaaaaaaaaaaaaaaa"
#define A64 A16 A16 A16 A16
#define A128 A64 A64
#define HEX "0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcde"
#define ROUTES "a.example:smart.example:587 192.0.2.1\n:b.example [2001:DB8:0::1]:465\n"

static struct findings found;
static struct relay_conf *r;
static struct secrets *s;

static const char *
name_of(const char *file)
{
	static char name[128];

	snprintf(name, sizeof name, "control/%s", file);
	return name;
}

static void
forget(void)
{
	if (r != NULL) {
		relay_conf_free(r);
		free(r);
		secret_unmap(s);
	}
	r = NULL;
}

static void
reset(void)
{
	char cmd[256];

	snprintf(cmd, sizeof cmd, "cd %s && rm -rf control && mkdir control", dir);
	assert_int_equal(system(cmd), 0);
}

static void
file(const char *name, const char *text)
{
	put(name_of(name), text);
	chmod(in(name_of(name)), 0600);
}

/* Load what is there. */
static void
load(void)
{
	forget();
	r = calloc(1, sizeof *r);
	s = secret_map();
	assert_got(r);
	assert_got(s);
	relay_conf_load(r, dir, "Mail.Example.NET", s, &fresh(&found)->d);
	assert_lacks(found.text, "TOPSECRET");
	for (size_t i = 0; i < sizeof s->file; i++) {
		assert_int_equal(s->file[i], 0);
	}
	/* Whatever is wrong, nothing is delivered and no password stays. */
	if (found.d.errors > 0) {
		assert_int_equal(r->on, 0);
		assert_has(found.text, "N|-|0|nothing is delivered until this is mended");
		for (size_t i = 0; i < sizeof s->relay; i++) {
			assert_int_equal(((const char *)s->relay)[i], 0);
		}
	}
}

static void
test_defaults(void **state)
{
	(void)state;
	reset();
	load();
	assert_string_equal(found.text, "");
	assert_int_equal(r->on, RELAY_DEFAULT);
	assert_string_equal(r->envnoathost, "Mail.Example.NET");
	assert_int_equal(r->locals.n, 1);
	assert_true(names_have(&r->locals, "mail.example.net"));
	assert_int_equal(r->percenthack.n, 0);
	assert_int_equal(r->concurrency, 20);
	assert_int_equal(r->lifetime, QUEUE_LIFETIME);
	assert_string_equal(r->bouncefrom, "MAILER-DAEMON");
	assert_string_equal(r->bouncehost, "Mail.Example.NET");
	assert_string_equal(r->doublebounceto, "postmaster");
	assert_string_equal(r->doublebouncehost, "Mail.Example.NET");
	assert_string_equal(r->helohost, "Mail.Example.NET");
	assert_int_equal(r->timeout_connect, 60);
	assert_int_equal(r->timeout_remote, 1200);
	assert_int_equal(r->local, LOCAL_LEAVE);
	assert_int_equal(r->routes + r->tls_n + r->auths + r->pins, 0);
	assert_null(r->anchor);
	assert_in_range(r->dns.servers, 1, DNS_SERVERS_MAX);
	assert_null(relay_virtual_find(r, "a@b"));
	assert_int_equal(relay_route_find(r, "b"), -1);
	assert_int_equal(relay_tls_find(r, "b")->tls, TLS_MAY);
}

static void
test_small_files(void **state)
{
	(void)state;
	reset();
	file("relay", "on\n");
	file("envnoathost", "one.example\n");
	file("locals", "# none but\n\nLOCAL.example \t\n");
	file("percenthack", "hack.example\n");
	file("concurrencyremote", "1000\n");
	file("queuelifetime", "3600\nnot read\n");
	file("bouncefrom", "nobody at all\n");
	file("bouncehost", "two.example\n");
	file("doublebounceto", "\n");
	file("doublebouncehost", "three.example\n");
	file("helohost", "[192.0.2.7]\n");
	file("timeoutconnect", "1\n");
	file("timeoutremote", "7200\n");
	file("localdelivery", "bounce\n");
	file("bounceformat", "dsn\n");
	file("delaynotice", "3599\n");
	load();
	assert_string_equal(found.text, "");
	assert_int_equal(r->on, 1);
	assert_string_equal(r->envnoathost, "one.example");
	assert_int_equal(r->locals.n, 1);
	assert_true(names_have(&r->locals, "local.example"));
	assert_true(names_have(&r->percenthack, "hack.example"));
	assert_int_equal(r->concurrency, DELIVERIES_MAX);
	assert_int_equal(r->lifetime, 3600);
	assert_string_equal(r->bouncefrom, "nobody at all");
	assert_string_equal(r->bouncehost, "two.example");
	assert_string_equal(r->doublebounceto, "");
	assert_string_equal(r->doublebouncehost, "three.example");
	assert_string_equal(r->helohost, "[192.0.2.7]");
	assert_int_equal(r->timeout_connect, 1);
	assert_int_equal(r->timeout_remote, 7200);
	assert_int_equal(r->local, LOCAL_BOUNCE);
	assert_int_equal(r->dsn, 1);
	assert_int_equal(r->delaynotice, 3599);
	file("delaynotice", "3600\n");
	load();
	assert_non_null(strstr(found.text, "delaynotice|1|mail is returned before"));
	assert_int_equal(r->on, 1);
	file("delaynotice", "0\n");

	/* There, and empty: nothing is local. Off: the other files, whatever is in them, are not ours. */
	file("locals", "");
	file("concurrencyremote", "0");
	load();
	assert_string_equal(found.text, "");
	assert_int_equal(r->locals.n, 0);
	assert_int_equal(r->concurrency, 0);
	file("relay", "off\n");
	file("smtproutes", ":relay|user|pass\n");
	load();
	assert_string_equal(found.text, "");
	assert_int_equal(r->on, 0);
}

/* The address as it stands in local/N leads to its line, whatever virtualdomains has done to it; an address before its domain. */
static void
test_maildirs(void **state)
{
	static const struct {
		const char *addr, *path;
	} cases[] = {
		{ "bob@home.example", "/bob" },
		{ "BOB@Home.Example", "/bob" },
		{ "ann@home.example", "/rest" },
		{ "virt-joe@v.example", "/joe" },
		{ "virt-a-b@v.example", "/v" },
		{ "box-sue-sue@w.example", "/sue" },
		{ "sue@w.example", "/sue" },
		{ "box-sue-eve@w.example", NULL },
		{ "virt-x@home.example", "/rest" },
		{ "bob@other.example", NULL },
		{ "bob@sub.home.example", NULL },
		{ "bob", NULL },
		{ "@home.example", "/rest" },
		{ "", NULL },
	};

	(void)state;
	reset();
	file("relay", "on\n");
	file("locals", "home.example\n");
	file("virtualdomains", "v.example:virt\nsue@w.example:box-sue\n");
	load();
	assert_int_equal(relay_maildir_find(r, "bob@home.example"), -1);
	file("localmaildirs",
	    "# ours\n\nBob@home.example:/bob\n@HOME.example:/rest \njoe@v.example:/joe\n@v.example:/v\nsue@w.example:/sue\n");
	load();
	assert_string_equal(found.text, "");
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		int n = relay_maildir_find(r, cases[i].addr);

		if (cases[i].path == NULL) {
			assert_int_equal(n, -1);
		} else {
			assert_true(n >= 0);
			assert_string_equal(r->maildirs.v[n] + strlen(r->maildirs.v[n]) + 1, cases[i].path);
		}
	}
	assert_int_equal(relay_prepended(r, "virt-a-b@v.example"), 5);
	assert_int_equal(relay_prepended(r, "box-sue-sue@w.example"), 8);
	assert_int_equal(relay_prepended(r, "a-b@home.example"), 0);
}

/* One or two files, and what is found first. */
struct bad_case {
	const char *file, *text, *other, *other_text, *finding;
};

static void
check_bad(const struct bad_case *t, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		reset();
		file("smtproutes", ROUTES);
		if (t[i].text == NULL) {
			unlink(in(name_of(t[i].file)));
			assert_int_equal(mkdir(in(name_of(t[i].file)), 0700), 0);
		} else {
			file(t[i].file, t[i].text);
		}
		if (t[i].other != NULL) {
			file(t[i].other, t[i].other_text);
		}
		load();
		if (strncmp(found.text, t[i].finding, strlen(t[i].finding)) != 0 || found.d.errors == 0) {
			fail_msg("row %zu, %s: %s", i, t[i].file, found.text);
		}
	}
}

static void
test_bad_small_files(void **state)
{
	static const struct bad_case t[] = {
		{ "relay", "yes\n", NULL, NULL, "E|relay|1|expected `off` or `on`" },
		{ "relay", "on\x01\n", NULL, NULL, "E|relay|1|expected one line of printable text" },
		{ "relay", "", NULL, NULL, "E|relay|1|expected `off` or `on`" },
		{ "relay", NULL, NULL, NULL, "E|relay|0|cannot be read" },
		{ "envnoathost", "a b\n", NULL, NULL, "E|envnoathost|1|expected a host name" },
		{ "locals", NULL, NULL, NULL, "E|locals|0|cannot be read" },
		{ "percenthack", NULL, NULL, NULL, "E|percenthack|0|cannot be read" },
		{ "virtualdomains", NULL, NULL, NULL, "E|virtualdomains|0|cannot be read" },
		{ "virtualdomains", "# x\n\na.example:x\nb.example\n", NULL, NULL,
		    "E|virtualdomains|4|expected DOMAIN:PREFIX" },
		{ "virtualdomains", "a.example:x\nA.EXAMPLE:y\n", NULL, NULL,
		    "E|virtualdomains|0|two lines for `a.example`" },
		{ "concurrencyremote", "20x\n", NULL, NULL, "E|concurrencyremote|1|expected a number from 0 to 65535" },
		{ "concurrencyremote", "-1\n", NULL, NULL, "E|concurrencyremote|1|expected a number" },
		{ "queuelifetime", "99999999999\n", NULL, NULL, "E|queuelifetime|1|expected a number" },
		{ "bouncefrom", "a\tb\n", NULL, NULL, "E|bouncefrom|1|expected one line of printable text" },
		{ "bouncehost", "a@b\n", NULL, NULL, "E|bouncehost|1|expected a host name" },
		{ "doublebounceto", NULL, NULL, NULL, "E|doublebounceto|0|cannot be read" },
		{ "doublebouncehost", "<a>\n", NULL, NULL, "E|doublebouncehost|1|expected a host name" },
		{ "helohost", "a b\n", NULL, NULL, "E|helohost|1|expected a host name" },
		{ "helohost", "[1.2.3.4 x]\n", NULL, NULL, "E|helohost|1|expected a host name" },
		{ "timeoutconnect", "0\n", NULL, NULL, "E|timeoutconnect|1|expected a number from 1 to 3600" },
		{ "timeoutremote", "1 2\n", NULL, NULL, "E|timeoutremote|1|expected a number from 1 to 7200" },
		{ "localmaildirs", "\nbob@b.example:maildir\n", NULL, NULL,
		    "E|localmaildirs|2|expected USER@DOMAIN:/PATH" },
		{ "localmaildirs", "b.example:/x\n", NULL, NULL, "E|localmaildirs|1|expected USER@DOMAIN:/PATH" },
		{ "delaynotice", "4h\n", NULL, NULL, "E|delaynotice|1|expected a number" },
		{ "bounceformat", "rfc3464\n", NULL, NULL, "E|bounceformat|1|expected `qsbmf` or `dsn`" },
		{ "localdelivery", "keep\n", NULL, NULL, "E|localdelivery|1|expected `leave` or `bounce`" },
	};

	(void)state;
	check_bad(t, COUNT(t));
}

static void
test_virtualdomains(void **state)
{
	static const struct {
		const char *addr, *prepend;
	} t[] = {
		{ "x@a.example", "alpha" },
		{ "X@A.Example", "alpha" },
		{ "joe@a.example", "Joe" }, /* the whole address first */
		{ "JOE@a.example", "Joe" },
		{ "x@b.sub.example", "sub" },
		{ "x@sub.example", "rest" },
		{ "x@not.sub.example", NULL }, /* an exception */
		{ "x@c.not.sub.example", "sub" },
		{ "x@elsewhere.org", "rest" },
		{ "x@y@a.example", "alpha" }, /* the last @ counts */
		{ "nobody", "rest" },
		{ "a.example", "alpha" }, /* without @ it is only looked up as a whole */
		{ "b.sub.example", "rest" },
		{ "x@", "rest" },
		{ "", "rest" },
	};
	char longest[1300];

	(void)state;
	reset();
	file("virtualdomains",
	    "# ours\na.example:alpha\nJoe@A.example:Joe\n.SUB.example:sub\nnot.sub.example:\n:rest\nz.example:a:b\n");
	load();
	assert_string_equal(found.text, "");
	for (size_t i = 0; i < COUNT(t); i++) {
		const char *got = relay_virtual_find(r, t[i].addr);

		if ((got == NULL) != (t[i].prepend == NULL) || (got != NULL && strcmp(got, t[i].prepend) != 0)) {
			fail_msg("%s: %s", t[i].addr, got == NULL ? "none" : got);
		}
	}
	assert_string_equal(relay_virtual_find(r, "x@z.example"), "a:b");
	memset(longest, 'x', sizeof longest);
	strcpy(longest + sizeof longest - sizeof "@a.example", "@a.example");
	assert_string_equal(relay_virtual_find(r, longest), "alpha");
	file("virtualdomains", "a.example:alpha\n");
	load();
	assert_null(relay_virtual_find(r, "x@b.example"));
	assert_null(relay_virtual_find(r, longest + 1300 - 4));
}

static void
test_routes(void **state)
{
	static const struct {
		const char *domain;
		int route;
	} t[] = { { "a.example", 0 }, { "A.EXAMPLE", 0 }, { "b.a.example", 1 }, { "c.b.a.example", 1 },
		{ "mx.a.example", -1 }, { "x.mx.a.example", 1 }, { "example", 3 }, { "", 3 }, { "[192.0.2.9]", 4 },
		{ "[192.0.2.8]", 3 }, { "a.example.", 3 } };
	const struct relay_hop *h;

	(void)state;
	reset();
	file("smtproutes",
	    "A.example:Smart.example:587 b.example. 192.0.2.1 [192.0.2.2]:26\n.a.example:[2001:DB8:0:0::1]:465\n"
	    "mx.a.example:\n# the rest\n\n:rest.example:2525 \t\n[192.0.2.9]:nine.example\n");
	load();
	assert_string_equal(found.text, "");
	for (size_t i = 0; i < COUNT(t); i++) {
		if (relay_route_find(r, t[i].domain) != t[i].route) {
			fail_msg("%s: %d", t[i].domain, relay_route_find(r, t[i].domain));
		}
	}
	assert_int_equal(r->routes, 5);
	assert_string_equal(r->route[0].domain, "a.example");
	assert_int_equal(r->route[0].hops, 4);
	h = r->route[0].hop;
	assert_string_equal(h[0].host, "smart.example");
	assert_int_equal(h[0].port, 587);
	assert_int_equal(h[0].numeric, 0);
	assert_int_equal(h[0].auth, -1);
	assert_int_equal(h[0].tls, TLS_MAY);
	assert_string_equal(h[1].host, "b.example");
	assert_int_equal(h[1].port, 25);
	assert_string_equal(h[2].host, "192.0.2.1");
	assert_int_equal(h[2].numeric, 1);
	assert_int_equal(h[2].addr.ip[15], 1);
	assert_string_equal(h[3].host, "192.0.2.2");
	assert_int_equal(h[3].port, 26);
	h = r->route[1].hop;
	assert_string_equal(h->host, "2001:db8::1");
	assert_int_equal(h->numeric, 1);
	/* 465 is TLS from the first octet, so it is TLS. */
	assert_int_equal(h->implicit, 1);
	assert_int_equal(h->tls, TLS_ENCRYPT);
	assert_int_equal(r->route[2].hops, 0);
}

static void
test_bad_routes(void **state)
{
	static const struct bad_case t[] = {
		{ "smtproutes", NULL, NULL, NULL, "E|smtproutes|0|cannot be read" },
		{ "smtproutes", "relay.example\n", NULL, NULL, "E|smtproutes|1|expected DOMAIN:RELAY" },
		{ "smtproutes", "#\n a.example:b\n", NULL, NULL, "E|smtproutes|2|expected DOMAIN:RELAY" },
		{ "smtproutes", "a..:b\n", NULL, NULL, "E|smtproutes|1|expected DOMAIN:RELAY" },
		{ "smtproutes", ".:b\n", NULL, NULL, "E|smtproutes|1|expected DOMAIN:RELAY" },
		{ "smtproutes", "*.a.example:b\n", NULL, NULL, "E|smtproutes|1|expected DOMAIN:RELAY" },
		{ "smtproutes", "x@a.example:b\n", NULL, NULL, "E|smtproutes|1|expected DOMAIN:RELAY" },
		{ "smtproutes", A128 A128 ":b\n", NULL, NULL, "E|smtproutes|1|expected DOMAIN:RELAY" },
		{ "smtproutes", ":b:587|user|" SECRET "\n", NULL, NULL, "E|smtproutes|1|`|` with user and password" },
		{ "smtproutes", "a.example:b\nA.example:c\n", NULL, NULL,
		    "E|smtproutes|2|an earlier line is for the same" },
		{ "smtproutes", ":b:0\n", NULL, NULL, "E|smtproutes|1|expected relays as NAME" },
		{ "smtproutes", ":b:65536\n", NULL, NULL, "E|smtproutes|1|expected relays" },
		{ "smtproutes", ":b:smtp\n", NULL, NULL, "E|smtproutes|1|expected relays" },
		{ "smtproutes", ":b:25:26\n", NULL, NULL, "E|smtproutes|1|expected relays" },
		{ "smtproutes", ":2001:db8::1\n", NULL, NULL, "E|smtproutes|1|expected relays" },
		{ "smtproutes", ":[b.example]\n", NULL, NULL, "E|smtproutes|1|expected relays" },
		{ "smtproutes", ":[192.0.2.1\n", NULL, NULL, "E|smtproutes|1|expected relays" },
		{ "smtproutes", ":[fe80::1%eth0]\n", NULL, NULL, "E|smtproutes|1|expected relays" },
		{ "smtproutes", ":192.0.2.256\n", NULL, NULL, "E|smtproutes|1|expected relays" },
		{ "smtproutes", ":*:25\n", NULL, NULL, "E|smtproutes|1|expected relays" },
		{ "smtproutes", ":a,b\n", NULL, NULL, "E|smtproutes|1|expected relays" },
		{ "smtproutes", ":a..b\n", NULL, NULL, "E|smtproutes|1|a relay's name cannot be looked up" },
		{ "smtproutes", ":" A64 ".b\n", NULL, NULL, "E|smtproutes|1|a relay's name cannot be looked up" },
		{ "smtproutes", ":a b c d e\n", NULL, NULL, "E|smtproutes|1|too many relays" },
	};
	char many[RELAY_ROUTES_MAX * 16 + 16];
	size_t len = 0;

	(void)state;
	check_bad(t, COUNT(t));
	for (int i = 0; i <= RELAY_ROUTES_MAX; i++) {
		len += (size_t)snprintf(many + len, sizeof many - len, "d%d:relay\n", i);
	}
	file("smtproutes", many);
	load();
	assert_has(found.text, "E|smtproutes|129|more lines than this build has room for (RELAY_ROUTES_MAX)");
}

static void
test_auth(void **state)
{
	static const struct bad_case t[] = {
		{ "smtpauth", NULL, NULL, NULL, "E|smtpauth|0|cannot be read" },
		{ "smtpauth", "smart.example:" SECRET "\n", NULL, NULL, "E|smtpauth|1|expected RELAY:USER:PASSWORD" },
		{ "smtpauth", "# x\nsmart.example::" SECRET "\n", NULL, NULL, "E|smtpauth|2|expected RELAY:USER" },
		{ "smtpauth", "smart.example:" SECRET ":\n", NULL, NULL, "E|smtpauth|1|expected RELAY:USER" },
		{ "smtpauth", "smart.example:u:" SECRET "\x01\n", NULL, NULL, "E|smtpauth|1|expected RELAY:USER" },
		{ "smtpauth", SECRET "\n", NULL, NULL, "E|smtpauth|1|expected RELAY:USER" },
		{ "smtpauth", "smrat.example:u:" SECRET "\n", NULL, NULL,
		    "E|smtpauth|1|the relay is none of control/smtproutes" },
		{ "smtpauth", "smart.example:587:u:" SECRET "\n", NULL, NULL, "E|smtpauth|1|the user is a port" },
		{ "smtpauth", "smart.example:u:" SECRET "\nsmart.example:v:p\n", NULL, NULL,
		    "E|smtpauth|2|an earlier line is for the same relay" },
		{ "smtpauth", "smart.example:u:" SECRET A128 "\n", NULL, NULL,
		    "E|smtpauth|1|the user or the password is too long" },
		{ "smtpauth", "smart.example:" A128 A128 ":" SECRET "\n", NULL, NULL,
		    "E|smtpauth|1|the user or the password is too long" },
		{ "smtpauth", "smart.example:u:" SECRET "\n", "smtptls", "smart.example:encrypt\n",
		    "E|smtptls|1|this relay gets a password" },
		{ "smtpauth", "[192.0.2.1]:u:" SECRET "\n", "smtptls", "\n192.0.2.1:may\n",
		    "E|smtptls|2|this relay gets a password" },
		{ "smtpauth", "smart.example:u:" SECRET "\n", "smtptls", "smart.example:none\n",
		    "E|smtptls|1|this relay gets a password" },
		{ "smtpauth", "smart.example:25:u:" SECRET "\n", NULL, NULL, "E|smtpauth|1|the user is a port" },
		{ "smtpauth", "#\n[192.0.2.1]:u:" SECRET "\n", NULL, NULL,
		    "E|smtpauth|2|the relay is an address, which cannot be verified" },
	};

	(void)state;
	check_bad(t, COUNT(t));
	put_mem(name_of("smtpauth"), S("smart.example:u:" SECRET "\0x\n"));
	load();
	assert_has(found.text, "E|smtpauth|0|contains a NUL octet");

	reset();
	file("smtproutes", ROUTES "c.example:SMART.example:26\n");
	file("smtpauth", "# ours\nSmart.example:joe@x:TOPSECRET : and more\n[2001:db8::1]:u:p\n");
	file("smtptls", ":encrypt\n[2001:db8::1]:pin " HEX "f\n");
	load();
	assert_string_equal(found.text, "");
	assert_int_equal(r->auths, 2);
	assert_string_equal(r->auth[0].user, "joe@x");
	assert_string_equal(s->relay[0], "TOPSECRET : and more");
	/* Every relay of that name; `verify`, although the line for all says less. */
	assert_int_equal(r->route[0].hop[0].auth, 0);
	assert_int_equal(r->route[2].hop[0].auth, 0);
	assert_int_equal(r->route[0].hop[0].tls, TLS_VERIFY);
	assert_int_equal(r->route[0].hop[1].auth, -1);
	assert_int_equal(r->route[0].hop[1].tls, TLS_ENCRYPT);
	assert_int_equal(r->route[1].hop[1].auth, 1);
	assert_int_equal(r->route[1].hop[1].tls, TLS_PIN);
	assert_true(r->anchors > 0);
	chmod(in("control/smtpauth"), 0640);
	load();
	assert_has(found.text, "W|smtpauth|0|others than its owner can read the passwords");
	assert_int_equal(r->on, RELAY_DEFAULT);
}

static void
test_tls(void **state)
{
	static const struct bad_case t[] = {
		{ "smtptls", NULL, NULL, NULL, "E|smtptls|0|cannot be read" },
		{ "smtptls", "verify\n", NULL, NULL, "E|smtptls|1|expected NAME:POLICY" },
		{ "smtptls", "smart.example:\n", NULL, NULL, "E|smtptls|1|expected NAME:POLICY" },
		{ "smtptls", "smart.example:Verify\n", NULL, NULL, "E|smtptls|1|expected NAME:POLICY" },
		{ "smtptls", "smart.example:587:verify\n", NULL, NULL, "E|smtptls|1|expected NAME:POLICY" },
		{ "smtptls", ".:none\n", NULL, NULL, "E|smtptls|1|expected NAME:POLICY" },
		{ "smtptls", "smart.example:verify always\n", NULL, NULL, "E|smtptls|1|expected nothing more" },
		{ "smtptls", "smart.example:verify implicit x\n", NULL, NULL, "E|smtptls|1|expected nothing more" },
		{ "smtptls", "smart.example:pin\n", NULL, NULL, "E|smtptls|1|expected the SHA-256" },
		{ "smtptls", "smart.example:pin implicit\n", NULL, NULL, "E|smtptls|1|expected the SHA-256" },
		{ "smtptls", "smart.example:pin " HEX "\n", NULL, NULL, "E|smtptls|1|expected the SHA-256" },
		{ "smtptls", "smart.example:pin " HEX "ff\n", NULL, NULL, "E|smtptls|1|expected the SHA-256" },
		{ "smtptls", "smart.example:pin " HEX "g\n", NULL, NULL, "E|smtptls|1|expected the SHA-256" },
		{ "smtptls", "smart.example:may\nSMART.example:may\n", NULL, NULL,
		    "E|smtptls|2|an earlier line is for the same relay" },
		{ "smtptls", ":may\n:none\n", NULL, NULL, "E|smtptls|2|an earlier line is for the same domain" },
		/* A typing error in a relay's name, with a route for all: the line would do nothing. */
		{ "smtptls", "smrat.example:verify\n", NULL, NULL, "E|smtptls|1|names no relay of control/smtproutes" },
		{ "smtptls", "a.example:verify\n", NULL, NULL, "E|smtptls|1|names no relay" },
		{ "smtptls", ".a.example:verify\n", NULL, NULL, "E|smtptls|1|names no relay" },
		{ "smtptls", "192.0.2.77:may\n", NULL, NULL, "E|smtptls|1|names no relay" },
		{ "smtptls", "[2001:db8::1]:verify\n", NULL, NULL, "E|smtptls|1|an address cannot be verified" },
		{ "smtptls", ":verify implicit\n", NULL, NULL, "E|smtptls|1|names no relay" },
		{ "smtptls", "[2001:db8::1]:none\n", NULL, NULL, "E|smtptls|1|port 465 and `implicit`" },
		{ "smtptls", "smart.example:none implicit\n", NULL, NULL, "E|smtptls|1|port 465 and `implicit`" },
	};
	char pins[RELAY_PINS_MAX * 80 + 200] = "smart.example:pin";

	(void)state;
	check_bad(t, COUNT(t));
	for (int i = 0; i <= RELAY_PINS_MAX; i++) {
		strcat(pins, " " HEX "0");
	}
	file("smtptls", pins);
	load();
	assert_has(found.text, "E|smtptls|1|more pins");

	reset();
	file("smtproutes", "a.example:smart.example:587 other.example:465\nb.example:[192.0.2.1]\n.sub.example:\n");
	file("smtptls",
	    "smart.example:pin " HEX "0 01:23:45:67:89:ab:cd:ef:" A16 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa implicit\n"
	    "192.0.2.1:none\n:encrypt\nMX.example:verify\n.sub.example:pin " HEX "1\n");
	load();
	assert_string_equal(found.text, "");
	assert_int_equal(r->route[0].hop[0].tls, TLS_PIN);
	assert_int_equal(r->route[0].hop[0].implicit, 1);
	assert_int_equal(r->route[0].hop[0].pins, 2);
	assert_int_equal(r->pin[0].sha256[0], 0x01);
	assert_int_equal(r->pin[0].sha256[31], 0xe0);
	assert_int_equal(r->pin[1].sha256[7], 0xef);
	assert_int_equal(r->pin[1].sha256[8], 0xaa);
	assert_int_equal(r->route[0].hop[1].tls, TLS_ENCRYPT);
	assert_int_equal(r->route[0].hop[1].implicit, 1);
	assert_int_equal(r->route[1].hop[0].tls, TLS_NONE);
	assert_int_equal(relay_tls_find(r, "mx.EXAMPLE")->tls, TLS_VERIFY);
	assert_int_equal(relay_tls_find(r, "x.mx.example")->tls, TLS_ENCRYPT);
	assert_int_equal(relay_tls_find(r, "x.sub.example")->tls, TLS_PIN);
	assert_int_equal(relay_tls_find(r, "x.sub.example")->pin, 2);
	assert_int_equal(relay_tls_find(r, "x.sub.example")->pins, 1);
	assert_string_equal(relay_policy_name(TLS_PIN), "pin");

	/* With a route for all, a domain goes by MX only where a line says so. */
	file("smtproutes", ":smart.example\nmx.example:\na.sub.example:\n");
	file("smtptls", "mx.example:encrypt\n.sub.example:encrypt\nsmart.example:may implicit\n");
	load();
	assert_string_equal(found.text, "");
	assert_int_equal(r->tls_n, 2);
	/* Never in the clear, where TLS comes first. */
	assert_int_equal(r->route[0].hop[0].tls, TLS_ENCRYPT);
}

static void
sh(const char *command)
{
	char cmd[1024];

	snprintf(cmd, sizeof cmd, "cd %s/control && { %s\n} 2> /dev/null", dir, command);
	assert_int_equal(system(cmd), 0);
}

#define MAKE(name, key) \
	"openssl req -x509 -newkey " key " -nodes -keyout /dev/null -subj '/O=Test/CN=" name "' -days 30 > " name
#define P256 "ec -pkeyopt ec_paramgen_curve:P-256"

static void
test_anchors(void **state)
{
	static const char subject[] = "\x30\x1d\x31\x0d\x30\x0b\x06\x03\x55\x04\x0a\x0c\x04Test";
	const br_x509_trust_anchor *a;

	(void)state;
	reset();
	sh(MAKE("rsa", "rsa:2048") "; " MAKE("ec", P256) "; " MAKE("ed", "ed25519"));
	sh("openssl req -x509 -newkey " P256 " -nodes -keyout key -subj /CN=mx.example -days 30 -extensions v > leaf "
	   "-config - << END\n[req]\ndistinguished_name=d\n[d]\n[v]\nbasicConstraints=CA:FALSE\nEND\n");
	sh("{ echo words before; cat rsa; echo; sed 's/$/ \r/' ec; cat leaf; } > cacerts.pem");
	file("smtptls", ":may\n\nmx.example:verify\n");
	load();
	assert_string_equal(found.text, "");
	assert_int_equal(r->anchors, 3);
	a = r->anchor;
	assert_int_equal(a[0].flags, BR_X509_TA_CA);
	assert_int_equal(a[0].pkey.key_type, BR_KEYTYPE_RSA);
	assert_int_equal(a[0].pkey.key.rsa.nlen, 256);
	assert_memory_equal(a[0].pkey.key.rsa.e, "\1\0\1", 3);
	assert_memory_equal(a[0].dn.data + 2, subject + 2, sizeof subject - 3);
	assert_int_equal(a[1].flags, BR_X509_TA_CA);
	assert_int_equal(a[1].pkey.key_type, BR_KEYTYPE_EC);
	assert_int_equal(a[1].pkey.key.ec.qlen, 65);
	assert_memory_equal(a[1].dn.data + 2, subject + 2, sizeof subject - 3);
	assert_memory_equal(a[1].dn.data + a[1].dn.len - 2, "ec", 2);
	assert_int_equal(a[2].flags, 0);

	/* The operator's own file must be all good. */
	sh("cat rsa ed > cacerts.pem");
	load();
	assert_has(found.text, "E|cacerts.pem|");
	assert_has(found.text, "expected a certificate with an RSA key");
	sh("sed 's/^MII/*II/' rsa > cacerts.pem");
	load();
	assert_has(found.text, "E|cacerts.pem|2|expected base64 text");
	sh("sed '$d' rsa > cacerts.pem");
	load();
	assert_has(found.text, "E|cacerts.pem|1|this object has no end");
	sh("cp key cacerts.pem");
	load();
	assert_has(found.text, "E|cacerts.pem|1|expected a certificate");
	/* Nothing to trust: told where it was asked for. */
	sh("> cacerts.pem");
	load();
	assert_has(found.text, "E|smtptls|3|certificates are to be verified, but there are no trust anchors");
	file("smtproutes", ":smart.example\nmx.example:\n");
	file("smtptls", "");
	file("smtpauth", "#\nsmart.example:u:" SECRET "\n");
	load();
	assert_has(found.text, "E|smtpauth|2|certificates are to be verified");
	/* Not asked for: not read. */
	unlink(in(name_of("smtpauth")));
	load();
	assert_string_equal(found.text, "");
	/* The system's: what we cannot use is left out, and all is the same twice. */
	unlink(in(name_of("cacerts.pem")));
	file("smtptls", "smart.example:verify\n");
	load();
	assert_string_equal(found.text, "");
	assert_true(r->anchors > 50);
}

/* What config_load() makes of it. */
static void
test_config(void **state)
{
	struct config *c;

	(void)state;
	reset();
	file("me", "mail.example.net\n");
	file("rcpthosts", "");
	file("radius.conf", "radius.example.net " SECRET "\n");
	file("smtproutes", ":smart.example\n");
	c = config_load(dir, &fresh(&found)->d);
	assert_got(c);
	assert_string_equal(found.text, "");
	assert_int_equal(c->relay.routes, 1);
	assert_int_equal(c->relay.on, RELAY_DEFAULT);
	config_free(c);
	/* A Maildir is never delivered from. */
	file("spool", "maildir out\n");
	file("relay", "on\n");
	c = config_load(dir, &fresh(&found)->d);
	assert_got(c);
	assert_int_equal(c->relay.on, 0);
	assert_has(found.text, "N|relay|0|not read");
	config_free(c);
	/* Wrong here is not wrong elsewhere: the server runs. */
	unlink(in(name_of("spool")));
	file("smtproutes", "x\n");
	c = config_load(dir, &fresh(&found)->d);
	assert_got(c);
	assert_int_equal(c->relay.on, 0);
	assert_int_equal(c->radius.servers, 1);
	config_free(c);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_small_files),
		cmocka_unit_test(test_bad_small_files),
		cmocka_unit_test(test_virtualdomains),
		cmocka_unit_test(test_routes),
		cmocka_unit_test(test_bad_routes),
		cmocka_unit_test(test_auth),
		cmocka_unit_test(test_tls),
		cmocka_unit_test(test_anchors),
		cmocka_unit_test(test_config),
		cmocka_unit_test(test_maildirs),
	};
	int rc = cmocka_run_group_tests(tests, make_dir, remove_dir);

	forget();
	return rc;
}
