/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* Control files: control.c. Findings are compared as level|file|line|text. */
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
#define SECRET "TOPSECRETtopsecret" /* never in a finding */

static struct findings found;

static const char *
name_of(const char *file)
{
	static char name[128];

	snprintf(name, sizeof name, "control/%s", file);
	return name;
}

/* Only the files every server needs, all good. */
static void
reset_home(void)
{
	char cmd[256];

	snprintf(cmd, sizeof cmd, "cd %s && rm -rf control && mkdir control", dir);
	assert_int_equal(system(cmd), 0);
	put("control/me", "mail.example.net\n");
	put("control/rcpthosts", "");
	put("control/radius.conf", "radius.example.net " SECRET "\n");
	chmod(in("control/radius.conf"), 0600);
}

static struct config *
load(void)
{
	struct config *c = config_load(dir, &fresh(&found)->d);

	assert_lacks(found.text, "TOPSECRET");
	return c;
}

/* One file, and all that is found then; NULL: nothing at all. */
struct file_case {
	const char *file, *text;
	size_t len; /* 0: strlen(text); text NULL: no such file, or with len 1 a directory of that name */
	int fatal;
	const char *finding;
};

static void
check_files(const struct file_case *t, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct config *c;

		reset_home();
		if (t[i].text != NULL) {
			put_mem(name_of(t[i].file), t[i].text, t[i].len == 0 ? strlen(t[i].text) : t[i].len);
			chmod(in(name_of(t[i].file)), 0600);
		} else {
			unlink(in(name_of(t[i].file)));
			assert_true(t[i].len == 0 || mkdir(in(name_of(t[i].file)), 0700) == 0);
		}
		c = load();
		if ((c == NULL) != t[i].fatal || (t[i].finding == NULL) != (found.text[0] == '\0')) {
			fail_msg("row %zu, %s: %s", i, t[i].file, found.text);
		}
		if (t[i].finding != NULL) {
			/* From the first line on, so that no other finding comes before it. */
			if (strncmp(found.text, t[i].finding, strlen(t[i].finding)) != 0) {
				fail_msg("row %zu, %s: %s", i, t[i].file, found.text);
			}
			assert_true(found.d.errors + found.d.warnings > 0);
		}
		config_free(c);
	}
}

static void
test_files(void **state)
{
	static const struct file_case t[] = {
		{ "me", "a.b\n", 0, 0, NULL },
		{ "me", "a.b \t\r\nrubbish here\n", 0, 0, NULL },
		{ "me", NULL, 0, 1, "E|me|0|missing or empty" },
		{ "me", "\na.b\n", 0, 1, "E|me|0|missing or empty" },
		{ "me", NULL, 1, 1, "E|me|0|cannot be read: Is a directory" },
		{ "me", "mail\n", 0, 0, "W|me|1|is not fully qualified" },
		{ "me", "mail example\n", 0, 1, "E|me|1|expected a host name" },
		{ "me", ".mail.example\n", 0, 1, "E|me|1|expected a host name" },
		{ "me", "a.b\x01\n", 0, 1, "E|me|1|expected one line of printable text" },
		{ "me", "a.b\0c\n", 6, 1, "E|me|0|contains a NUL octet" },
		{ "me", A127 "." A127 "\n", 0, 0, NULL },
		{ "me", A127 "." A127 "a\n", 0, 1, "E|me|1|expected one line of printable text, at most 255 octets" },
		{ "smtpgreeting", "hello there\n", 0, 0, NULL },
		{ "smtpgreeting", "\x1b[2J\n", 0, 0, "E|smtpgreeting|1|expected one line" },
		{ "smtpgreeting", A255 "a", 0, 0, "E|smtpgreeting|1|expected one line" },
		{ "databytes", "0", 0, 0, NULL },
		{ "databytes", "", 0, 0, NULL },
		{ "databytes", "9223372036854775807\n", 0, 0, NULL },
		{ "databytes", "9223372036854775808\n", 0, 0, "E|databytes|1|expected a number of octets" },
		{ "databytes", "10M\n", 0, 0, "E|databytes|1|expected a number of octets" },
		{ "databytes", "-1\n", 0, 0, "E|databytes|1|expected a number of octets" },
		{ "databytes", A127, 0, 0, "E|databytes|1|expected one line" },
		{ "databytes", NULL, 1, 0, "E|databytes|0|cannot be read" },
		{ "listen", "# none yet\n", 0, 1, "E|listen|0|no listener" },
		{ "listen", "# ports\n\nsmtp 25\n", 0, 0, NULL },
		{ "listen", "# ports\n\nsmtp\n", 0, 1, "E|listen|3|expected [ADDRESS:]PORT" },
		{ "listen", "smtp 1\nsmtp 2\nsmtp 3\nsmtp 4\nsmtp 5\nsmtp 6\nsmtp 7\nsmtp 8\n", 0, 0, NULL },
		{ "listen", "smtp 1\nsmtp 2\nsmtp 3\nsmtp 4\nsmtp 5\nsmtp 6\nsmtp 7\nsmtp 8\nsmtp 9\n", 0, 1,
		    "E|listen|9|more than 8" },
		{ "listen", NULL, 1, 1, "E|listen|0|cannot be read" },
		{ "spool", "maildir Mail\n", 0, 0, NULL },
		{ "spool", "mbox\n", 0, 1, "E|spool|1|expected `queue [DIR]`" },
		{ "spool", NULL, 1, 1, "E|spool|0|cannot be read" },
		{ "rcpthosts", NULL, 0, 0, NULL }, /* no listener for strangers */
		{ "rcpthosts", NULL, 1, 0, "E|rcpthosts|0|cannot be read" },
		{ "rcpthosts", "a\0b\n", 4, 0, "E|rcpthosts|0|contains a NUL octet" },
		{ "badmailfrom", "@spam.example\n", 0, 0, NULL },
		{ "badmailfrom", NULL, 1, 0, "E|badmailfrom|0|cannot be read" },
		{ "relayclients", "# lan\n192.168.1.0/24 \n2001:db8::/32\n", 0, 0, NULL },
		{ "relayclients", "192.168.1.0/24\n192.168.1.1/24\n", 0, 0, "E|relayclients|2|expected ADDRESS" },
		{ "relayclients", "192.168.1.\n", 0, 0, "E|relayclients|1|expected ADDRESS" },
		{ "relayclients", NULL, 1, 0, "E|relayclients|0|cannot be read" },
#if ACCOUNTS
		{ "userlimits", "# a day\n:day=5\njoe:relay=no\n", 0, 0, NULL },
		{ "userlimits", ":day=5\njoe=no\n", 0, 0, "E|userlimits|2|no colon" },
		{ "userlimits", ":day=5\n:days=5\n", 0, 0, "E|userlimits|2|an unknown word" },
		{ "userlimits", NULL, 1, 0, "E|userlimits|0|cannot be read" },
		{ "userlimits", ":day=5\0\n", 8, 0, "E|userlimits|0|contains a NUL octet" },
		{ "timezone", "-0330\n", 0, 0, NULL },
		{ "timezone", "+1400\n", 0, 0, NULL },
		{ "timezone", "0100\n", 0, 0, "E|timezone|1|expected +HHMM" },
		{ "timezone", "+100\n", 0, 0, "E|timezone|1|expected +HHMM" },
		{ "timezone", "+1401\n", 0, 0, "E|timezone|1|expected +HHMM" },
		{ "timezone", "+0160\n", 0, 0, "E|timezone|1|expected +HHMM" },
		{ "timezone", "+01:0\n", 0, 0, "E|timezone|1|expected +HHMM" },
		{ "timezone", NULL, 1, 0, "E|timezone|0|cannot be read" },
		{ "alertto", "noc@isp.example\n", 0, 0, NULL },
		{ "alertto", "noc\n", 0, 0, "E|alertto|1|expected USER@DOMAIN" },
		{ "alertto", "noc@isp\n", 0, 0, "E|alertto|1|expected USER@DOMAIN" },
		{ "alertto", "<noc@isp.example>\n", 0, 0, "E|alertto|1|expected USER@DOMAIN" },
		{ "alertto", "a@b.example c@d.example\n", 0, 0, "E|alertto|1|expected USER@DOMAIN" },
		{ "alertto", NULL, 1, 0, "E|alertto|0|cannot be read" },
#endif
		{ "morercpthosts.cdb", "rubbish", 0, 0, "E|morercpthosts.cdb|0|not a cdb file; only rcpthosts counts" },
		{ "tcp.smtp.cdb", "", 0, 0, "E|tcp.smtp.cdb|0|not a cdb file; nobody relays by its rules" },
		{ "tcp.smtp.cdb", NULL, 1, 0, "E|tcp.smtp.cdb|0|not a cdb file" },
		{ "radius.conf", "", 0, 0, "E|radius.conf|0|names no server" },
		{ "radius.conf", NULL, 1, 0, "E|radius.conf|0|cannot be read" },
		{ "servercert.pem", "rubbish\n", 0, 0, "E|servercert.pem|" },
	};

	(void)state;
	check_files(t, COUNT(t));
}

#if ACCOUNTS

/* What is no good keeps everybody out, and only then. */
static void
test_accounts(void **state)
{
	static const struct {
		const char *file, *text;
		int bad;
		int32_t zone;
	} t[] = { { "me", "a.b\n", 0, 0 }, { "timezone", "+0530\n", 0, 19800 }, { "timezone", "-0030\n", 0, -1800 },
		{ "timezone", "-1400\n", 0, -50400 }, { "timezone", "\n", 0, 0 }, { "timezone", "UTC\n", 1, 0 },
		{ "userlimits", ":day=5\n", 0, 0 }, { "userlimits", "", 0, 0 }, { "userlimits", "day=5\n", 1, 0 },
		{ "alertto", "noc\n", 0, 0 } };
	struct config *c;

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		reset_home();
		put(name_of(t[i].file), t[i].text);
		c = load();
		assert_got(c);
		assert_int_equal(c->accounts_bad, t[i].bad);
		assert_int_equal(c->zone, t[i].zone);
		assert_string_equal(c->alertto, "");
		assert_int_equal(c->userlimits != NULL, strcmp(t[i].file, "userlimits") == 0);
		config_free(c);
	}
	reset_home();
	put("control/alertto", "noc@isp.example\n");
	c = load();
	assert_string_equal(c->alertto, "noc@isp.example");
	config_free(c);
}

#endif

static void
test_what_is_loaded(void **state)
{
	struct config *c;
	char *big = malloc(CONTROL_FILE_MAX + 1);

	(void)state;
	reset_home();
	put("control/smtpgreeting", A255 "a");
	put("control/databytes", "4x");
	put("control/rcpthosts", "# ours\nB.Example \n.Sub.Example\n\na.example");
	put("control/badmailfrom", "Spam@Example\n@Bad.Example\n");
	c = load();
	assert_non_null(c);
	assert_string_equal(c->me, "mail.example.net");
	assert_string_equal(c->greeting, "mail.example.net"); /* a bad file changes nothing */
	assert_int_equal(c->databytes, DATABYTES);
	assert_int_equal(c->have_rcpthosts, 1);
	assert_int_equal(c->rcpthosts.n, 3);
	assert_int_equal(names_have(&c->rcpthosts, "a.example"), 1);
	assert_int_equal(names_have(&c->rcpthosts, "b.example"), 1);
	assert_int_equal(names_have(&c->rcpthosts, ".sub.example"), 1);
	assert_int_equal(names_have(&c->rcpthosts, "sub.example"), 0);
	assert_int_equal(names_have(&c->rcpthosts, "# ours"), 0);
	assert_int_equal(names_have(&c->rcpthosts, ""), 0);
	assert_int_equal(names_have(&c->badmailfrom, "@bad.example"), 1);
	assert_int_equal(c->listeners, 2);
	assert_int_equal(c->listen[0].profile, PROFILE_SUBMISSION);
	assert_int_equal(c->listen[0].port, 587);
	assert_int_equal(c->listen[1].profile, PROFILE_SUBMISSIONS);
	assert_int_equal(c->listen[1].port, 465);
	assert_int_equal(c->spool, SPOOL_QUEUE);
	assert_string_equal(c->spool_dir, in("queue"));
	assert_int_equal(c->radius.servers, 1);
	assert_string_equal(c->secrets->radius[0], SECRET);
	assert_int_equal(c->chain.key_type, 0);
	config_free(c);

	/* Strangers may come, and nothing says what for. */
	unlink(in("control/rcpthosts"));
	put("control/listen", "smtp 25\nsmtp 26\n");
	c = load();
	assert_has(found.text, "E|rcpthosts|0|missing: strangers may send to no domain");
	assert_int_equal(c->have_rcpthosts, 0);
	config_free(c);

	/* Part of a list is none: nobody relays by address, and no half of the servers is asked. */
	reset_home();
	put("control/relayclients", "192.0.2.1\nrubbish\n192.0.2.2\n");
	put("control/radius.conf", "a.example " SECRET "\nb.example\n");
	c = load();
	assert_int_equal(c->relayclients_n, 0);
	assert_int_equal(c->radius.servers, 0);
	assert_int_equal(found.d.errors, 2); /* of two faults */
	config_free(c);

	/* The largest file, and one octet more. */
	memset(big, '\n', CONTROL_FILE_MAX + 1);
	reset_home();
	put_mem("control/rcpthosts", big, CONTROL_FILE_MAX);
	c = load();
	assert_int_equal(c->have_rcpthosts, 1);
	config_free(c);
	put_mem("control/rcpthosts", big, CONTROL_FILE_MAX + 1);
	c = load();
	assert_int_equal(c->have_rcpthosts, 0);
	assert_has(found.text, "E|rcpthosts|0|cannot be read: File too large");
	config_free(c);
	free(big);

	assert_null(config_load("/" A255, &fresh(&found)->d));
	assert_int_equal(found.d.errors, 1);
}

static void
test_listen(void **state)
{
	static const struct {
		const char *line;
		int rc;
		enum profile profile;
		const char *addr; /* NULL: any */
		uint16_t port;
		const char *from;
	} t[] = {
		{ "submission 587", 0, PROFILE_SUBMISSION, NULL, 587, "" },
		{ "\tsubmission\t *:587", 0, PROFILE_SUBMISSION, NULL, 587, "" },
		{ "submissions 192.0.2.1:465", 0, PROFILE_SUBMISSIONS, "192.0.2.1", 465, "" },
		{ "smtp [2001:db8::1]:25", 0, PROFILE_SMTP, "2001:db8::1", 25, "" },
		{ "smtp 65535", 0, PROFILE_SMTP, NULL, 65535, "" },
		{ "inside 10.0.0.1:2525 from=a@b.example", 0, PROFILE_INSIDE, "10.0.0.1", 2525, "a@b.example" },
		{ "inside 25", 0, PROFILE_INSIDE, NULL, 25, "" },
		{ "", -1, 0, NULL, 0, NULL },
		{ "submission", -1, 0, NULL, 0, NULL },
		{ "Submission 587", -1, 0, NULL, 0, NULL },
		{ "mail 587", -1, 0, NULL, 0, NULL },
		{ "submission 0", -1, 0, NULL, 0, NULL },
		{ "submission 65536", -1, 0, NULL, 0, NULL },
		{ "submission 587x", -1, 0, NULL, 0, NULL },
		{ "submission 192.0.2.1", -1, 0, NULL, 0, NULL },
		{ "submission 192.0.2.1:", -1, 0, NULL, 0, NULL },
		{ "submission :587", -1, 0, NULL, 0, NULL },
		{ "submission mail.example:587", -1, 0, NULL, 0, NULL },
		{ "submission [::1]", -1, 0, NULL, 0, NULL },
		{ "submission [::1]587", -1, 0, NULL, 0, NULL },
		{ "submission [::1:587", -1, 0, NULL, 0, NULL },
		{ "submission ::1:587", -1, 0, NULL, 0, NULL }, /* which colon is meant? */
		{ "submission 2001:db8::1:587", -1, 0, NULL, 0, NULL },
		{ "submission 587 588", -1, 0, NULL, 0, NULL },
		{ "submission 587 from=a@b.example", -1, 0, NULL, 0, NULL },
		{ "inside 25 from=", -1, 0, NULL, 0, NULL },
		{ "inside 25 from=printer", -1, 0, NULL, 0, NULL },
		{ "inside 25 from=" A255 "@b", -1, 0, NULL, 0, NULL },
	};
	struct listen_conf l;
	char line[512], text[ADDR_TEXT_MAX];

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		snprintf(line, sizeof line, "%s", t[i].line);
		if (control_parse_listen(&l, line, &fresh(&found)->d, "x/listen", 7) != t[i].rc) {
			fail_msg("%s", t[i].line);
		}
		assert_int_equal(found.d.errors, t[i].rc == -1);
		if (t[i].rc == -1) {
			assert_memory_equal(found.text, "E|listen|7|expected ", 20);
			continue;
		}
		assert_int_equal(l.profile, t[i].profile);
		assert_int_equal(l.any, t[i].addr == NULL);
		assert_string_equal(addr_text(&l.addr, text), t[i].addr == NULL ? "::" : t[i].addr);
		assert_int_equal(l.port, t[i].port);
		assert_string_equal(l.from, t[i].from);
	}
}

static void
test_spool(void **state)
{
	static const struct {
		const char *line;
		int rc;
		enum spool_kind kind;
		const char *dir, *prefix;
	} t[] = {
		{ "queue", 0, SPOOL_QUEUE, "/home/queue", "" },
		{ "queue spool/q", 0, SPOOL_QUEUE, "/home/spool/q", "" },
		{ "queue /q", 0, SPOOL_QUEUE, "/q", "" },
		{ "maildir Mail", 0, SPOOL_MAILDIR, "/home/Mail", "" },
		{ "maildir /m alias-ppp-", 0, SPOOL_MAILDIR, "/m", "alias-ppp-" },
		{ "maildir-plain  /m", 0, SPOOL_MAILDIR_PLAIN, "/m", "" },
		{ "maildir /m " A127, 0, SPOOL_MAILDIR, "/m", A127 },
		{ "", -1, 0, NULL, NULL },
		{ "mbox /m", -1, 0, NULL, NULL },
		{ "Queue", -1, 0, NULL, NULL },
		{ "queue a b", -1, 0, NULL, NULL },
		{ "maildir", -1, 0, NULL, NULL },
		{ "maildir a b c", -1, 0, NULL, NULL },
		{ "maildir-plain", -1, 0, NULL, NULL },
		{ "maildir-plain a b", -1, 0, NULL, NULL },
		{ "queue " A255, -1, 0, NULL, NULL },
		{ "queue /" A255, -1, 0, NULL, NULL },
		{ "maildir /m " A127 "a", -1, 0, NULL, NULL },
	};
	static struct config c;
	char line[512];

	(void)state;
	strcpy(c.home, "/home");
	for (size_t i = 0; i < COUNT(t); i++) {
		snprintf(line, sizeof line, "%s", t[i].line);
		if (control_parse_spool(&c, line, &fresh(&found)->d, "spool", 1) != t[i].rc) {
			fail_msg("%s", t[i].line);
		}
		assert_int_equal(found.d.errors, t[i].rc == -1);
		if (t[i].rc == 0) {
			assert_int_equal(c.spool, t[i].kind);
			assert_string_equal(c.spool_dir, t[i].dir);
			assert_string_equal(c.spool_prefix, t[i].prefix);
		}
	}
}

static void
test_certificate(void **state)
{
	struct config *c;

	(void)state;
	reset_home();
	c = load();
	assert_string_equal(found.text, "");
	assert_int_equal(config_first_certificate(c, &found.d), 0);
	assert_has(found.text, "N|servercert.pem|0|made a self-signed certificate for mail.example.net, SHA-256 ");
	assert_int_equal(c->chain.key_type, BR_KEYTYPE_EC);
	assert_int_equal(config_first_certificate(c, &fresh(&found)->d), 0);
	assert_string_equal(found.text, "");
	config_free(c);

	unlink(in("control/serverkey.pem"));
	c = load();
	assert_int_equal(c->chain.key_type, 0);
	assert_int_equal(config_first_certificate(c, &fresh(&found)->d), 0); /* one is there: hands off */
	assert_int_equal(access(in("control/serverkey.pem"), F_OK), -1);
	config_free(c);

	assert_string_equal(profile_name(PROFILE_SUBMISSIONS), "submissions");
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_files),
#if ACCOUNTS
		cmocka_unit_test(test_accounts),
#endif
		cmocka_unit_test(test_what_is_loaded),
		cmocka_unit_test(test_listen),
		cmocka_unit_test(test_spool),
		cmocka_unit_test(test_certificate),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
