/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* radius.conf: control.c. No finding may show a secret, and after a fault none is kept. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "control.h"
#include "unit.h"

#define A16 "aaaaaaaaaaaaaaaa"
#define A127 A16 A16 A16 A16 A16 A16 A16 "aaaaaaaaaaaaaaa"
#define A255 A127 A127 "a"
#define SECRET "TOPSECRETtopsecret"

static struct findings found;

static struct secrets *secrets;

static int
parse_radius(struct radius_conf *rc, const char *text, size_t len)
{
	static const unsigned char zeros[SECRET_FILE_MAX];
	int r;

	memset(secrets->radius, 0, sizeof secrets->radius);
	memcpy(secrets->file, text, len);
	memset(rc, 0xee, sizeof *rc);
	r = control_parse_radius(rc, secrets, len, &fresh(&found)->d, "control/radius.conf");
	assert_lacks(found.text, "TOPSECRET");
	assert_memory_equal(secrets->file, zeros, sizeof zeros);
	assert_int_equal(found.d.errors > 0, r == -1);
	if (r == -1) {
		assert_int_equal(rc->servers, 0);
		assert_memory_equal(secrets->radius, zeros, sizeof secrets->radius);
	}
	return r;
}

static void
test_good(void **state)
{
	static const struct {
		const char *line, *name, *addr; /* addr NULL: a name */
		uint16_t port;
		int timeout, retries, unsigned_ok;
		unsigned warnings;
	} t[] = {
		{ "r.example " SECRET, "r.example", NULL, 1812, RADIUS_TIMEOUT, RADIUS_RETRIES, 0, 0 },
		{ "r.example:1645 " SECRET " 5", "r.example", NULL, 1645, 5, RADIUS_RETRIES, 0, 0 },
		{ "\tradius_1:65535\t" SECRET "\t15\t0 \r", "radius_1", NULL, 65535, 15, 0, 0, 0 },
		{ "192.0.2.1 " SECRET " 1 10", "192.0.2.1", "192.0.2.1", 1812, 1, 10, 0, 0 },
		{ "192.0.2.1:1645 " SECRET " # timeout 9", "192.0.2.1", "192.0.2.1", 1645, RADIUS_TIMEOUT,
		    RADIUS_RETRIES, 0, 0 },
		{ "[2001:db8::1] " SECRET, "2001:db8::1", "2001:db8::1", 1812, RADIUS_TIMEOUT, RADIUS_RETRIES, 0, 0 },
		{ "[2001:db8::1]:1645 " SECRET, "2001:db8::1", "2001:db8::1", 1645, RADIUS_TIMEOUT, RADIUS_RETRIES, 0,
		    0 },
		{ "2001:db8::1 " SECRET, "2001:db8::1", "2001:db8::1", 1812, RADIUS_TIMEOUT, RADIUS_RETRIES, 0, 0 },
		{ "acct " SECRET, "acct", NULL, 1812, RADIUS_TIMEOUT, RADIUS_RETRIES, 0, 0 },
		{ "r.example " SECRET " unsigned", "r.example", NULL, 1812, RADIUS_TIMEOUT, RADIUS_RETRIES, 1, 1 },
		{ "r.example " SECRET " 3 unsigned 4 #", "r.example", NULL, 1812, 3, 4, 1, 1 },
		{ "r.example " SECRET " 60", "r.example", NULL, 1812, 60, RADIUS_RETRIES, 0, 1 },
		{ A255 " " SECRET, A255, NULL, 1812, RADIUS_TIMEOUT, RADIUS_RETRIES, 0, 0 },
	};
	static struct radius_conf rc;
	char text[ADDR_TEXT_MAX];

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		const struct radius_server *r = &rc.server[0];

		if (parse_radius(&rc, t[i].line, strlen(t[i].line)) != 0) {
			fail_msg("%s: %s", t[i].line, found.text);
		}
		assert_int_equal(rc.servers, 1);
		assert_string_equal(r->name, t[i].name);
		assert_int_equal(r->numeric, t[i].addr != NULL);
		assert_true(t[i].addr == NULL || strcmp(addr_text(&r->addr, text), t[i].addr) == 0);
		assert_int_equal(r->port, t[i].port);
		assert_int_equal(r->timeout, t[i].timeout);
		assert_int_equal(r->retries, t[i].retries);
		assert_int_equal(r->unsigned_ok, t[i].unsigned_ok);
		assert_int_equal(found.d.warnings, t[i].warnings);
		assert_string_equal(secrets->radius[0], SECRET);
	}
	parse_radius(&rc, S("# first\n\na " SECRET "1\n  # then\nb " SECRET "2 unsigned"));
	assert_int_equal(rc.servers, 2);
	assert_string_equal(secrets->radius[0], SECRET "1");
	assert_string_equal(secrets->radius[1], SECRET "2");
	assert_has(found.text, "W|radius.conf|5|b may answer without Message-Authenticator");
}

static void
test_bad(void **state)
{
	static const struct {
		const char *line, *finding;
	} t[] = {
		{ SECRET, "E|radius.conf|2|expected the shared secret" },
		{ "r.example:0 " SECRET, "E|radius.conf|2|expected a server first" },
		{ "r.example:65536 " SECRET, "E|radius.conf|2|expected a server first" },
		{ "r.example:x " SECRET, "E|radius.conf|2|expected a server first" },
		{ "r.example: " SECRET, "E|radius.conf|2|expected a server first" },
		{ ":1812 " SECRET, "E|radius.conf|2|expected a server first" },
		{ "* " SECRET, "E|radius.conf|2|expected a server first" },
		{ "[::1 " SECRET, "E|radius.conf|2|expected a server first" },
		{ "[::1]1812 " SECRET, "E|radius.conf|2|expected a server first" },
		{ "[r.example] " SECRET, "E|radius.conf|2|expected a server first" },
		{ "::1::2 " SECRET, "E|radius.conf|2|expected a server first" },
		{ "192.0.2 " SECRET, "E|radius.conf|2|expected a server first" },
		{ "192.0.2.256 " SECRET, "E|radius.conf|2|expected a server first" },
		{ "1812 " SECRET, "E|radius.conf|2|expected a server first" },
		{ ".r.example " SECRET, "E|radius.conf|2|expected a server first" },
		{ "r/example " SECRET, "E|radius.conf|2|expected a server first" },
		{ "authserver 127.0.0.1:1812", "E|radius.conf|2|this is a line of another program's file" },
		{ "login_radius /usr/sbin/login.radius", "E|radius.conf|2|this is a line of another program's file" },
		{ A255 "a " SECRET, "E|radius.conf|2|expected a server first" },
		{ "r.example " SECRET " 0", "E|radius.conf|2|after the secret expected" },
		{ "r.example " SECRET " 61", "E|radius.conf|2|after the secret expected" },
		{ "r.example " SECRET " 5 11", "E|radius.conf|2|after the secret expected" },
		{ "r.example " SECRET " 5 3 1", "E|radius.conf|2|after the secret expected" },
		{ "r.example " SECRET " -1", "E|radius.conf|2|after the secret expected" },
		{ "r.example longenoughpart TOPSECRET is a word", "E|radius.conf|2|after the secret expected" },
		{ "r.example " SECRET " Unsigned", "E|radius.conf|2|after the secret expected" },
	};
	static struct radius_conf rc;
	char text[1024] = "";

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		snprintf(text, sizeof text, "good.example " SECRET "\n%s\nnever.read " SECRET "\n", t[i].line);
		assert_int_equal(parse_radius(&rc, text, strlen(text)), -1);
		if (strncmp(found.text, t[i].finding, strlen(t[i].finding)) != 0) {
			fail_msg("%s: %s", t[i].line, found.text);
		}
	}
	assert_int_equal(parse_radius(&rc, S("r.example TOPSECRET\0x\n")), -1);
	assert_string_equal(found.text, "E|radius.conf|0|contains a NUL octet; expected text\n");
	assert_int_equal(parse_radius(&rc, S("# r.example TOPSECRET\n\n")), -1);
	assert_has(found.text, "E|radius.conf|0|names no server");

	for (unsigned n = 8; n <= 9; n++) {
		text[0] = '\0';
		for (unsigned i = 0; i < n; i++) {
			strcat(text, "r.example " SECRET "\n");
		}
		assert_int_equal(parse_radius(&rc, text, strlen(text)), n == 9 ? -1 : 0);
		assert_true(n == 8 || strncmp(found.text, "E|radius.conf|9|more than 8 servers", 35) == 0);
	}
}

static void
test_secrets(void **state)
{
	static const struct {
		size_t len;
		int rc;
		unsigned warnings;
	} t[] = { { 1, 0, 1 }, { 10, 0, 1 }, { 11, 0, 0 }, { 127, 0, 0 }, { 128, 0, 0 }, { 129, -1, 0 },
		{ 1000, -1, 0 } };
	static struct radius_conf rc;
	char text[1100], secret[1001];

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		for (size_t k = 0; k < t[i].len; k++) {
			secret[k] = "TOPSECRET"[k % 9];
		}
		secret[t[i].len] = '\0';
		snprintf(text, sizeof text, "r.example %s 3\n", secret);
		assert_int_equal(parse_radius(&rc, text, strlen(text)), t[i].rc);
		assert_int_equal(found.d.warnings, t[i].warnings);
		if (t[i].rc == 0) {
			assert_string_equal(secrets->radius[0], secret);
			assert_int_equal(rc.server[0].timeout, 3);
		}
	}
	/* As large as a file may be. */
	memset(secrets->file, ' ', sizeof secrets->file);
	memcpy(secrets->file, "r.example " SECRET, 28);
	assert_int_equal(control_parse_radius(&rc, secrets, SECRET_FILE_MAX - 1, &fresh(&found)->d, "radius.conf"), 0);

	mkdir(in("control"), 0700);
	put("control/me", "mail.example.net");
	put("control/radius.conf", "r.example " SECRET);
	chmod(in("control/radius.conf"), 0640);
	config_free(config_load(dir, &fresh(&found)->d));
	assert_string_equal(
	    found.text, "W|radius.conf|0|others than its owner can read the secrets; expected mode 0600\n");
}

static int
setup(void **state)
{
	secrets = secret_map();
	return secrets == NULL ? -1 : make_dir(state);
}

static int
teardown(void **state)
{
	secret_unmap(secrets);
	return remove_dir(state);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_secrets),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
