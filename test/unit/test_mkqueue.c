/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * `mailstile mkqueue`: mkqueue.c, against the table of qmail-spec 1.2.
 * LDFLAGS: -Wl,--wrap=priv_lookup
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "priv.h"
#include "queue.h"
#include "unit.h"

#include <getopt.h>

static struct findings found;
static int lookup_fails;
static uid_t spool_uid, send_uid, remote_uid;
static gid_t spool_gid;

int __wrap_priv_lookup(struct priv_ids *ids, const char **missing);
int
__wrap_priv_lookup(struct priv_ids *ids, const char **missing)
{
	memset(ids, 0, sizeof *ids);
	ids->spool_uid = spool_uid;
	ids->send_uid = send_uid;
	ids->remote_uid = remote_uid;
	ids->spool_gid = spool_gid;
	*missing = "qmailq";
	return lookup_fails ? -1 : 0;
}

/* Run it with up to four words; what it says is in the file `out`. */
static int
mkqueue(const char *a, const char *b, const char *c, const char *d)
{
	char name[] = "mkqueue", words[4][600];
	const char *in_[] = { a, b, c, d };
	char *argv[6] = { name };
	int argc = 1, rc, saved1, saved2;
	int fd = open(in("out"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
	mode_t mask = umask(077); /* whatever the caller's is */

	for (size_t i = 0; i < 4 && in_[i] != NULL; i++) {
		strcpy(words[i], in_[i]);
		argv[argc++] = words[i];
	}
	optind = 0; /* glibc: begin anew */
	fflush(stdout);
	saved1 = dup(1);
	saved2 = dup(2);
	dup2(fd, 1);
	dup2(fd, 2);
	rc = mkqueue_main(argc, argv);
	fflush(stdout);
	dup2(saved1, 1);
	dup2(saved2, 2);
	close(saved1);
	close(saved2);
	close(fd);
	umask(mask);
	return rc;
}

static void
assert_part(const char *name, uid_t uid, mode_t mode)
{
	char path[128];
	struct stat st;

	snprintf(path, sizeof path, "home/queue%s%s", name[0] == '\0' ? "" : "/", name);
	if (lstat(in(path), &st) == -1 || st.st_uid != uid || st.st_gid != spool_gid || st.st_mode != mode) {
		fail_msg("%s: uid %d, gid %d, mode %o", path, (int)st.st_uid, (int)st.st_gid, st.st_mode);
	}
}

static void
start(void)
{
	char cmd[256];

	snprintf(cmd, sizeof cmd, "rm -rf %s/home; mkdir %s/home", dir, dir);
	assert_int_equal(system(cmd), 0);
}

static void
test_make(void **state)
{
	static const char zeros[1024];
	static const char *const names[] = { "mess", "info", "local", "remote" };
	struct spool s;
	struct stat st;
	char name[64];
	size_t len;

	(void)state;
	start();
	assert_int_equal(mkqueue("-H", in("home"), NULL, NULL), 0);
	assert_has(content("out", NULL), "/home/queue: made, split 23\n");
	assert_part("", spool_uid, S_IFDIR | 0750);
	assert_part("pid", spool_uid, S_IFDIR | 0700);
	assert_part("intd", spool_uid, S_IFDIR | 0700);
	assert_part("todo", spool_uid, S_IFDIR | 0750);
	assert_part("bounce", send_uid, S_IFDIR | 0700);
	assert_part("lock", spool_uid, S_IFDIR | 0750);
	assert_part("lock/sendmutex", send_uid, S_IFREG | 0600);
	assert_part("lock/tcpto", remote_uid, S_IFREG | 0644);
	assert_part("lock/trigger", send_uid, S_IFIFO | 0622);
	for (size_t i = 0; i < COUNT(names); i++) {
		uid_t uid = i == 0 ? spool_uid : send_uid;
		mode_t mode = S_IFDIR | (i == 0 ? 0750 : 0700);

		assert_part(names[i], uid, mode);
		for (unsigned k = 0; k < 23; k++) {
			snprintf(name, sizeof name, "%s/%u", names[i], k);
			assert_part(name, uid, mode);
		}
		snprintf(name, sizeof name, "home/queue/%s/23", names[i]);
		assert_int_equal(lstat(in(name), &st), -1);
	}
	assert_memory_equal(content("home/queue/lock/tcpto", &len), zeros, 1024);
	assert_int_equal(len, 1024);
	assert_string_equal(content("home/queue/lock/sendmutex", NULL), "");
	assert_int_equal(spool_open(&s, SPOOL_QUEUE, in("home/queue"), &fresh(&found)->d), 0);
	assert_int_equal(s.split, 23);

	/* Again: nothing to do. Only the same split will do. */
	assert_int_equal(mkqueue("-H", in("home"), NULL, NULL), 0);
	assert_has(content("out", NULL), "/home/queue: in order, split 23\n");
	assert_int_equal(mkqueue("-H", in("home"), "-n", "23"), 0);
	assert_int_equal(mkqueue("-H", in("home"), "-n", "24"), 1);
	assert_has(content("out", NULL), "is split 23 ways");
}

static void
test_split(void **state)
{
	static const struct {
		const char *n;
		int rc;
	} t[] = { { "1", 0 }, { "7", 0 }, { "0", 100 }, { "1001", 100 }, { "x", 100 }, { "-1", 100 }, { "", 100 } };
	struct spool s;

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		start();
		assert_int_equal(mkqueue("-H", in("home"), "-n", t[i].n), t[i].rc);
		if (t[i].rc == 0) {
			assert_int_equal(spool_open(&s, SPOOL_QUEUE, in("home/queue"), &fresh(&found)->d), 0);
			assert_int_equal(s.split, atoi(t[i].n));
		} else {
			assert_has(content("out", NULL), "usage: ");
			assert_int_equal(access(in("home/queue"), F_OK), -1);
		}
	}
}

/* What is wrong is told, and stays; what is missing is made. */
static void
test_verify(void **state)
{
	static const struct {
		const char *change, *text; /* NULL: made good */
	} t[] = {
		{ "chmod 0755 pid", "/queue/pid: error: expected owner " },
		{ "chmod 0644 lock/sendmutex", "/queue/lock/sendmutex: error: expected owner " },
		{ "chmod 0751 mess/2", "/queue/mess/2: error: expected owner " },
		{ "rmdir intd; touch intd", "/queue/intd: error: is of another kind or size" },
		{ "rm lock/trigger; touch lock/trigger; chmod 0622 lock/trigger",
		    "/queue/lock/trigger: error: is of another kind" },
		{ "rmdir todo; ln -s intd todo", "/queue/todo: error: is of another kind" },
		{ "echo > lock/tcpto", "/queue/lock/tcpto: error: is of another kind or size" },
		{ "rm -r lock bounce remote/2 info", NULL },
	};
	char cmd[256];

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		start();
		assert_int_equal(mkqueue("-H", in("home"), "-n", "3"), 0);
		snprintf(cmd, sizeof cmd, "cd %s/home/queue && { %s; } && ls -lR > %s/before", dir, t[i].change, dir);
		assert_int_equal(system(cmd), 0);
		if (t[i].text == NULL) {
			assert_int_equal(mkqueue("-H", in("home"), NULL, NULL), 0);
			assert_has(content("out", NULL), ": completed, split 3\n");
			assert_int_equal(mkqueue("-H", in("home"), NULL, NULL), 0);
			assert_has(content("out", NULL), ": in order, split 3\n");
			continue;
		}
		assert_int_equal(mkqueue("-H", in("home"), NULL, NULL), 1);
		assert_has(content("out", NULL), t[i].text);
		snprintf(cmd, sizeof cmd, "cd %s/home/queue && ls -lR | cmp - %s/before", dir, dir);
		assert_int_equal(system(cmd), 0);
	}
}

static void
test_refused(void **state)
{
	char longest[590];

	(void)state;
	start();
	assert_int_equal(mkqueue("-x", NULL, NULL, NULL), 100);
	assert_int_equal(mkqueue("-H", in("home"), "more", NULL), 100);
	lookup_fails = 1;
	assert_int_equal(mkqueue("-H", in("home"), NULL, NULL), 100);
	assert_has(content("out", NULL), "no user or group `qmailq`");
	lookup_fails = 0;
	memset(longest, 'x', sizeof longest - 1);
	longest[sizeof longest - 1] = '\0';
	assert_int_equal(mkqueue("-H", longest, NULL, NULL), 100);
	assert_has(content("out", NULL), "too long");
	assert_int_equal(mkqueue("-H", in("none"), NULL, NULL), 1);
	assert_has(content("out", NULL), "/none/queue: error: No such file or directory");
	assert_int_equal(access(in("home/queue"), F_OK), -1);
}

static int
setup(void **state)
{
	int root = geteuid() == 0;

	spool_uid = root ? 64011 : geteuid();
	send_uid = root ? 64012 : geteuid();
	remote_uid = root ? 64013 : geteuid();
	spool_gid = root ? 64014 : getegid();
	return make_dir(state);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_make),
		cmocka_unit_test(test_split),
		cmocka_unit_test(test_verify),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, setup, remove_dir);
}
