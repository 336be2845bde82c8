/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The Maildir forms of the spool: maildir.c, with every system call failing in its turn.
 * LDFLAGS: -Wl,--wrap=open,--wrap=link,--wrap=fsync,--wrap=write,--wrap=close,--wrap=fstat,--wrap=sync_file_range
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "faults.h"
#include "queue.h"
#include "unit.h"

#define NOW 1795303419
#define BODY "Received: trace\nSubject: x\n\n\xff\n"

static struct envelope e;
static struct findings found;
static const char *const three[] = { "bob@b.example", "a b@c.example", "carl@[192.0.2.1]" };

static void
make_maildir(void)
{
	assert_int_equal(system("rm -rf tmp new cur; mkdir tmp new cur"), 0);
}

static void
set_envelope(const char *sender, const char *const *to, size_t n)
{
	e.rcpts = 0;
	e.len = 0;
	strcpy(e.sender, sender);
	for (size_t i = 0; i < n; i++) {
		e.to[e.len] = 'T';
		strcpy(e.to + e.len + 1, to[i]);
		e.len += strlen(to[i]) + 2;
		e.rcpts++;
	}
}

static void
open_spool(struct spool *s, enum spool_kind kind, const char *prefix)
{
	assert_int_equal(spool_open(s, kind, dir, &fresh(&found)->d), 0);
	s->host = "mail.example.net";
	s->prefix = prefix;
}

static int
begin(struct spool *s)
{
	char mem[256];
	struct buf head;
	int rc;

	buf_init(&head, mem, sizeof mem);
	rc = spool_begin(s, &e, &head, NOW);
	faults.on = 0;
	assert_int_equal(head.len, 0); /* Maildir has no Received line of qmail-queue's */
	if (rc == 0) {
		assert_int_equal(write_all(s->fd, BODY, sizeof BODY - 1), 0);
	}
	faults.on = 1;
	return rc;
}

static int
begin_and_commit(struct spool *s)
{
	return begin(s) == -1 ? -1 : spool_commit(s, &e);
}

/* The n-th name in the listing of all files, without its LF. */
static const char *
nth_file(unsigned n)
{
	static char name[300];
	const char *p = files_there();

	while (n-- > 0) {
		p = strchr(p, '\n') + 1;
	}
	snprintf(name, sizeof name, "%.*s", (int)strcspn(p, "\n"), p);
	return name;
}

static unsigned
how_many_files(void)
{
	unsigned n = 0;

	for (const char *p = files_there(); *p != '\0'; p++) {
		n += *p == '\n';
	}
	return n;
}

static void
test_files(void **state)
{
	static const struct {
		enum spool_kind kind;
		size_t rcpts;
		const char *prefix;
		const char *heads[3]; /* of the files, by name */
	} t[] = {
		{ SPOOL_MAILDIR, 1, "", { "Delivered-To: bob@b.example\n" } },
		{ SPOOL_MAILDIR, 1, "alias-ppp-", { "Delivered-To: alias-ppp-bob@b.example\n" } },
		{ SPOOL_MAILDIR, 3, "p-",
		    { "Delivered-To: p-bob@b.example\n", "Delivered-To: p-a b@c.example\n",
			"Delivered-To: p-carl@[192.0.2.1]\n" } },
		{ SPOOL_MAILDIR_PLAIN, 1, "p-", { "Delivered-To: bob@b.example\n" } },
		{ SPOOL_MAILDIR_PLAIN, 3, "p-",
		    { "Delivered-To: bob@b.example\nDelivered-To: a b@c.example\nDelivered-To: carl@[192.0.2.1]\n" } },
	};
	unsigned fds = open_fds();

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		unsigned files = t[i].kind == SPOOL_MAILDIR_PLAIN ? 1 : (unsigned)t[i].rcpts;
		struct spool s;

		make_maildir();
		set_envelope("alice@a.example", three, t[i].rcpts);
		open_spool(&s, t[i].kind, t[i].prefix);
		assert_int_equal(begin_and_commit(&s), 0);
		faults.on = 0;
		assert_int_equal(s.fd, -1);
		assert_int_equal(how_many_files(), files);
		for (unsigned n = 0; n < files; n++) {
			const char *name = nth_file(n);
			char want[512];
			struct stat st;

			assert_int_equal(strncmp(name, "new/1795303419.M", 16), 0);
			assert_string_equal(name + strlen(name) - 17, ".mail.example.net");
			assert_int_equal(stat(name, &st), 0);
			assert_int_equal(st.st_mode, S_IFREG | 0600);
			assert_int_equal(st.st_nlink, 1);
			snprintf(want, sizeof want, "Return-Path: <alice@a.example>\n%s" BODY, t[i].heads[n]);
			assert_string_equal(content(name, NULL), want);
		}
	}
	assert_int_equal(open_fds(), fds);
}

/* A message that is larger than what is copied at a time. */
static void
test_large(void **state)
{
	static char big[60000];
	const char *text;
	struct spool s;
	size_t len;

	(void)state;
	make_maildir();
	set_envelope("alice@a.example", three, 3);
	open_spool(&s, SPOOL_MAILDIR, "");
	assert_int_equal(begin(&s), 0);
	faults.on = 0;
	for (size_t i = 0; i < sizeof big; i++) {
		big[i] = (char)('a' + i % 26);
	}
	assert_int_equal(write_all(s.fd, big, sizeof big), 0);
	assert_int_equal(spool_commit(&s, &e), 0);
	assert_int_equal(how_many_files(), 3);
	for (unsigned n = 0; n < 3; n++) {
		text = content(nth_file(n), &len);
		assert_int_equal(len,
		    strlen("Return-Path: <alice@a.example>\nDelivered-To: \n") + strlen(three[n]) + sizeof BODY - 1 +
			sizeof big);
		assert_memory_equal(text + len - sizeof big, big, sizeof big);
	}
}

static void
test_return_path(void **state)
{
	static const struct {
		const char *sender, *line;
	} t[] = {
		{ "", "<>" },
		{ "a.b+c=d@e.example", "<a.b+c=d@e.example>" },
		{ "a b@e.example", "<\"a b\"@e.example>" },
		{ ".a@e.example", "<\".a\"@e.example>" },
		{ "a.@e.example", "<\"a.\"@e.example>" },
		{ "a..b@e.example", "<\"a..b\"@e.example>" },
		{ "a@b@e.example", "<\"a@b\"@e.example>" },
		{ "a\"b\\c@e.example", "<\"a\\\"b\\\\c\"@e.example>" },
		{ "a>b@e.example", "<\"a>b\"@e.example>" },
		{ "(a)@e.example", "<\"(a)\"@e.example>" },
		{ "\xc3\xbc@e.example", "<\"\xc3\xbc\"@e.example>" },
		{ "@e.example", "<\"\"@e.example>" },
		{ "a@[192.0.2.1]", "<a@[192.0.2.1]>" },
		{ "owner-@a.example-@[]", "<\"owner-@a.example-\"@[]>" },
		{ "nodomain", "<nodomain>" },
	};
	char want[256];

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		struct spool s;

		make_maildir();
		set_envelope(t[i].sender, three, 1);
		open_spool(&s, SPOOL_MAILDIR, "");
		assert_int_equal(begin_and_commit(&s), 0);
		faults.on = 0;
		snprintf(want, sizeof want, "Return-Path: %s\nDelivered-To: bob@b.example\n" BODY, t[i].line);
		assert_string_equal(content(nth_file(0), NULL), want);
	}
}

/* The longest envelope there can be: sender, prefix and recipient at their limits. */
static void
test_longest(void **state)
{
	char sender[SMTP_PATH_MAX], to[SMTP_PATH_MAX + 63], prefix[128];
	const char *const rcpts[] = { to, to };
	struct spool s;

	(void)state;
	memset(sender, '"', 64);
	memset(sender + 64, 'x', sizeof sender - 64);
	sender[64] = '@';
	sender[254] = '\0';
	memset(to, 'y', sizeof to);
	to[64] = '@';
	to[sizeof to - 1] = '\0';
	memset(prefix, 'p', sizeof prefix - 1);
	prefix[sizeof prefix - 1] = '\0';
	make_maildir();
	set_envelope(sender, rcpts, 2);
	open_spool(&s, SPOOL_MAILDIR, prefix);
	assert_int_equal(begin_and_commit(&s), 0);
	faults.on = 0;
	assert_int_equal(how_many_files(), 2);
}

/* Characters that may not stand in a file's name, and a host name that is too long for one. */
static void
test_names(void **state)
{
	char host[256];
	struct spool s;

	(void)state;
	make_maildir();
	set_envelope("alice@a.example", three, 1);
	open_spool(&s, SPOOL_MAILDIR, "");
	s.host = "a/b:c";
	assert_int_equal(begin_and_commit(&s), 0);
	assert_has(files_there(), ".a\\057b\\072c\n");
	make_maildir();
	memset(host, ':', sizeof host - 1);
	host[sizeof host - 1] = '\0';
	s.host = host;
	assert_int_equal(begin_and_commit(&s), 0);
	assert_int_equal(how_many_files(), 1);
	/* No two alike. */
	make_maildir();
	set_envelope("alice@a.example", three, 3);
	s.host = "h";
	for (int i = 0; i < 10; i++) {
		assert_int_equal(begin_and_commit(&s), 0);
	}
	faults.on = 0;
	assert_int_equal(how_many_files(), 30);
}

/* What happened, with file names cut after their directory. */
static const char *
order(int journal)
{
	struct spool s;

	make_maildir();
	set_envelope("alice@a.example", three, 3);
	open_spool(&s, SPOOL_MAILDIR, "");
	s.journal = journal;
	faults_start(0, 0, 0, 0);
	assert_int_equal(begin(&s), 0);
	faults.id = s.id;
	assert_int_equal(spool_commit(&s, &e), 0);
	faults.on = 0;
	for (char *p = faults.trace; *p != '\0'; p++) {
		char *end = strchr(p, '\n');
		char *number = strstr(p, "1795303419.");

		assert_got(end);
		if (number != NULL && number < end) {
			memmove(number, end, strlen(end) + 1);
			end = number;
		}
		p = end;
	}
	return faults.trace;
}

/*
 * Each file is durable in tmp/ before the first one is linked; then new/ is. Or, where the file system keeps things in order: pushed out before
 * the first is linked, and the one that is linked last is flushed.
 */
static void
test_order(void **state)
{
	(void)state;
	assert_string_equal(order(0),
	    "open tmp/\nfsync message\nopen tmp/\nfsync \nopen tmp/\nfsync \nlink new/\nlink new/\nlink new/\n"
	    "open new\nfsync new\n");
	assert_string_equal(order(1),
	    "open tmp/\nawait message\nopen tmp/\nawait \nopen tmp/\nawait \nlink new/\nlink new/\nlink new/\n"
	    "fsync message\n");
}

static void
test_every_failure(void **state)
{
	static const struct {
		enum spool_kind kind;
		size_t rcpts;
		unsigned calls; /* at least so many can fail */
	} t[] = { { SPOOL_MAILDIR, 1, 8 }, { SPOOL_MAILDIR, 3, 18 }, { SPOOL_MAILDIR_PLAIN, 3, 10 } };
	unsigned fds = open_fds();
	static char was[8192];
	struct spool s;

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		unsigned total = 0;

		make_maildir();
		put("tmp/other", "foreign");
		put("new/other", "foreign");
		set_envelope("alice@a.example", three, t[i].rcpts);
		for (int kind = 0; kind < 2 * F_KINDS; kind++) {
			for (unsigned n = 1;; n++) {
				int rc, error;

				strcpy(was, files_there());
				open_spool(&s, t[i].kind, "");
				s.journal = kind / F_KINDS;
				faults_start((enum fault_kind)(kind % F_KINDS), n, n, ENOSPC);
				rc = begin_and_commit(&s);
				error = errno;
				faults.on = 0;
				assert_int_equal(open_fds(), fds);
				assert_int_equal(s.fd, -1);
				if (faults.seen[kind % F_KINDS] < n) {
					assert_int_equal(rc, 0);
					break;
				}
				total++;
				if (faults.harmless) {
					assert_int_equal(rc, 0);
				} else {
					assert_int_equal(rc, -1);
					assert_int_equal(error, ENOSPC);
					assert_string_equal(files_there(), was);
				}
			}
		}
		assert_in_range(total, t[i].calls, 40);
	}
}

static void
test_abort(void **state)
{
	struct spool s;

	(void)state;
	make_maildir();
	set_envelope("alice@a.example", three, 3);
	open_spool(&s, SPOOL_MAILDIR, "");
	assert_int_equal(begin(&s), 0);
	faults.on = 0;
	assert_int_equal(how_many_files(), 1);
	errno = EIO;
	spool_abort(&s);
	assert_int_equal(errno, EIO);
	assert_string_equal(files_there(), "");
	spool_abort(&s);
}

static void
test_layout(void **state)
{
	static const char *const parts[] = { "tmp", "new", "cur" };
	struct spool s;

	(void)state;
	for (size_t i = 0; i < COUNT(parts); i++) {
		make_maildir();
		assert_int_equal(spool_open(&s, SPOOL_MAILDIR_PLAIN, dir, &fresh(&found)->d), 0);
		assert_int_equal(rmdir(parts[i]), 0);
		assert_int_equal(spool_open(&s, SPOOL_MAILDIR, dir, &fresh(&found)->d), -1);
		put(parts[i], "");
		assert_int_equal(spool_open(&s, SPOOL_MAILDIR, dir, &fresh(&found)->d), -1);
		assert_has(found.text, parts[i]);
		assert_has(found.text, "expected a directory: a Maildir has tmp, new and cur");
	}
}

static int
setup(void **state)
{
	umask(077);
	return make_dir(state) == -1 ? -1 : chdir(dir);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_large),
		cmocka_unit_test(test_return_path),
		cmocka_unit_test(test_longest),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_every_failure),
		cmocka_unit_test(test_abort),
		cmocka_unit_test(test_layout),
	};

	return cmocka_run_group_tests(tests, setup, remove_dir);
}
