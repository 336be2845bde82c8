/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Counts in a file, with other processes at the same file: users.c.
 * LDFLAGS: -Wl,--wrap=fdatasync,--wrap=pwrite
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "unit.h"
#include "users.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

#if ACCOUNTS

#define LEFTS (USERS_LEFT | USERS_LEFT_RCPT)
#define DAY (BUILD_EPOCH / 86400 + 10)
#define NOON (DAY * INT64_C(86400) + 43200)
#define MIDNIGHT ((DAY + 1) * INT64_C(86400))

static struct limits l;
static int first;
static int flush_fails, write_fails; /* errno; 0: they do not */
static unsigned flushes;

int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
int
__wrap_fdatasync(int fd)
{
	flushes++;
	errno = flush_fails;
	return flush_fails ? -1 : __real_fdatasync(fd);
}

ssize_t __real_pwrite(int fd, const void *p, size_t len, off_t at);
ssize_t __wrap_pwrite(int fd, const void *p, size_t len, off_t at);
ssize_t
__wrap_pwrite(int fd, const void *p, size_t len, off_t at)
{
	errno = write_fails;
	return write_fails ? -1 : __real_pwrite(fd, p, len, at);
}
static struct findings found;

static void
limit(uint32_t day, uint32_t rcpt, uint32_t rate)
{
	limits_default(&l);
	l.day = day;
	l.rcpt = rcpt;
	l.rate = rate;
}

static int
open_file(void)
{
	return users_open(dir, 0, getuid(), getgid(), &fresh(&found)->d);
}

static int
begin(void **state)
{
	if (make_dir(state) == -1 || open_file() == -1) {
		return -1;
	}
	users_zone(0);
	limit(3, LIMIT_NONE, LIMIT_NONE);
	return 0;
}

static int
end(void **state)
{
	users_close();
	return remove_dir(state);
}

static enum verdict
book(const char *user, unsigned rcpts, int64_t now)
{
	return users_book(user, &l, rcpts, now, &first);
}

static enum verdict
ask(const char *user, unsigned rcpts, int64_t now)
{
	return users_ask(user, &l, rcpts, now, &first);
}

/* The user's record as the tool sees it. */
static struct users_record
record(const char *user, int64_t now)
{
	struct users_record r;
	uint32_t at = 0;

	while (users_next(&at, &r, now) == 1) {
		if (strcmp(r.name, user) == 0) {
			return r;
		}
	}
	fail_msg("%s has no record", user);
	abort();
}

static unsigned
records(void)
{
	struct users_record r;
	uint32_t at = 0;
	unsigned n = 0;

	while (users_next(&at, &r, NOON) == 1) {
		n++;
	}
	return n;
}

static void
test_counts(void **state)
{
	struct users_record r;

	(void)state;
	assert_int_equal(records(), 0);
	assert_int_equal(ask("joe", 0, NOON), V_OK);
	assert_int_equal(records(), 0); /* asking leaves nothing behind */
	for (unsigned i = 1; i <= 3; i++) {
		assert_int_equal(book("joe", i, NOON + i), V_OK);
		assert_int_equal(first, 0);
	}
	assert_int_equal(ask("joe", 0, NOON), V_LIMIT_DAY);
	assert_int_equal(first, 1);
	assert_int_equal(book("joe", 1, NOON), V_LIMIT_DAY);
	assert_int_equal(first, 0); /* told once */
	assert_int_equal(book("jo", 1, NOON), V_OK);
	r = record("joe", NOON);
	assert_int_equal(r.messages, 3);
	assert_int_equal(r.rcpts, 6);
	assert_int_equal(r.total, 3);
	assert_int_equal(r.limit, 3);
	assert_int_equal(r.last, NOON + 3);
	assert_int_equal(r.day, DAY);
	assert_int_equal(record("jo", NOON).messages, 1);
	/* It is in the file, and not only in us. */
	assert_int_equal(open_file(), 0);
	assert_int_equal(ask("joe", 0, NOON), V_LIMIT_DAY);
	users_unbook("joe", 3, NOON);
	assert_int_equal(record("joe", NOON).messages, 2);
	assert_int_equal(record("joe", NOON).rcpts, 3);
	assert_int_equal(record("joe", NOON).total, 2);
	assert_int_equal(book("joe", 1, NOON), V_OK);
	users_unbook("nobody", 1, NOON);
	assert_int_equal(records(), 2);
}

static void
test_nothing_allowed(void **state)
{
	(void)state;
	limit(0, LIMIT_NONE, LIMIT_NONE);
	assert_int_equal(ask("joe", 0, NOON), V_LIMIT_DAY);
	assert_int_equal(first, 1);
	assert_int_equal(ask("joe", 0, NOON), V_LIMIT_DAY);
	assert_int_equal(first, 0);
}

static void
test_recipients(void **state)
{
	(void)state;
	limit(LIMIT_NONE, 5, LIMIT_NONE);
	assert_int_equal(ask("joe", 5, NOON), V_OK);
	assert_int_equal(ask("joe", 6, NOON), V_LIMIT_RCPT);
	assert_int_equal(book("joe", 6, NOON), V_LIMIT_RCPT);
	assert_int_equal(book("joe", 4, NOON), V_OK);
	assert_int_equal(ask("joe", 0, NOON), V_OK);
	assert_int_equal(ask("joe", 2, NOON), V_LIMIT_RCPT);
	assert_int_equal(book("joe", 1, NOON), V_OK);
	assert_int_equal(ask("joe", 0, NOON), V_LIMIT_RCPT);
	assert_int_equal(record("joe", NOON).rcpts, 5);
}

static void
test_rate(void **state)
{
	(void)state;
	limit(LIMIT_NONE, LIMIT_NONE, 2);
	assert_int_equal(book("joe", 1, NOON), V_OK);
	assert_int_equal(book("joe", 1, NOON + 59), V_OK);
	assert_int_equal(book("joe", 1, NOON + 59), V_LIMIT_RATE);
	assert_int_equal(first, 1);
	assert_int_equal(ask("joe", 1, NOON + 60), V_OK);
	assert_int_equal(book("joe", 1, NOON + 60), V_OK);
	users_unbook("joe", 1, NOON + 61);
	assert_int_equal(book("joe", 1, NOON + 61), V_OK);
	assert_int_equal(book("joe", 1, NOON + 62), V_OK);
	assert_int_equal(book("joe", 1, NOON + 63), V_LIMIT_RATE);
	assert_int_equal(first, 0);
}

static void
test_days(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++) {
		assert_int_equal(book("joe", 1, MIDNIGHT - 1), V_OK);
	}
	assert_int_equal(ask("joe", 0, MIDNIGHT - 1), V_LIMIT_DAY);
	assert_int_equal(first, 1);
	assert_int_equal(ask("joe", 0, MIDNIGHT), V_OK);
	assert_int_equal(record("joe", MIDNIGHT).messages, 0);
	assert_int_equal(book("joe", 1, MIDNIGHT), V_OK);
	assert_int_equal(record("joe", MIDNIGHT).total, 4);
	/* Given back after midnight what was counted before it: nothing of today's. */
	assert_int_equal(book("ann", 2, MIDNIGHT - 1), V_OK);
	users_unbook("ann", 2, MIDNIGHT);
	assert_int_equal(record("ann", MIDNIGHT).messages, 0);
	/* The owner is told again on another day. */
	assert_int_equal(book("joe", 1, MIDNIGHT), V_OK);
	assert_int_equal(book("joe", 1, MIDNIGHT), V_OK);
	assert_int_equal(ask("joe", 0, MIDNIGHT), V_LIMIT_DAY);
	assert_int_equal(first, 1);
}

static void
test_zone(void **state)
{
	(void)state;
	limit(1, LIMIT_NONE, LIMIT_NONE);
	users_zone(3600);
	assert_int_equal(book("joe", 1, MIDNIGHT - 3601), V_OK);
	assert_int_equal(ask("joe", 0, MIDNIGHT - 3601), V_LIMIT_DAY);
	assert_int_equal(book("joe", 1, MIDNIGHT - 3600), V_OK);
	assert_int_equal(ask("joe", 0, MIDNIGHT), V_LIMIT_DAY);
	users_zone(-3600);
	assert_int_equal(book("ann", 1, MIDNIGHT), V_OK);
	assert_int_equal(ask("ann", 0, MIDNIGHT + 3599), V_LIMIT_DAY);
	assert_int_equal(ask("ann", 0, MIDNIGHT + 3600), V_OK);
}

/* A day never begins because the clock is not set, or was put back and forth. */
static void
test_clock(void **state)
{
	static const int64_t unset[] = { 0, 86400 * 3, BUILD_EPOCH - 1 };

	(void)state;
	for (int i = 0; i < 3; i++) {
		assert_int_equal(book("joe", 1, NOON), V_OK);
	}
	for (size_t i = 0; i < COUNT(unset); i++) {
		assert_int_equal(ask("joe", 0, unset[i]), V_LIMIT_DAY);
	}
	assert_int_equal(ask("joe", 0, NOON), V_LIMIT_DAY);
	assert_int_equal(ask("joe", 0, NOON - 86400), V_LIMIT_DAY); /* a day back */
	assert_int_equal(ask("joe", 0, NOON), V_LIMIT_DAY);         /* and forth */
	assert_int_equal(ask("joe", 0, NOON + 86400), V_OK);
	/* The same when something is counted in between. */
	assert_int_equal(book("bob", 1, NOON), V_OK);
	assert_int_equal(book("bob", 1, NOON - 86400), V_OK);
	assert_int_equal(book("bob", 1, NOON), V_OK);
	assert_int_equal(book("bob", 1, NOON), V_LIMIT_DAY);
	/* Without a clock from the beginning: one long day, until there is one. */
	for (int i = 0; i < 3; i++) {
		assert_int_equal(book("ann", 1, i * 86400), V_OK);
	}
	assert_int_equal(ask("ann", 0, 86400 * 5), V_LIMIT_DAY);
	assert_int_equal(ask("ann", 0, NOON), V_OK);
	/* A clock that was years ahead for a moment takes nobody's day away for years. */
	assert_int_equal(book("eve", 1, NOON + 86400 * INT64_C(3650)), V_OK);
	assert_int_equal(book("eve", 1, NOON), V_OK);
	assert_int_equal(record("eve", NOON).messages, 2);
	assert_int_equal(record("eve", NOON).day, DAY);
	assert_int_equal(record("eve", MIDNIGHT).messages, 0);
}

static void
test_block(void **state)
{
	(void)state;
	assert_int_equal(users_change("joe", USERS_BLOCKED, 0, 0, NOON), 1);
	assert_int_equal(ask("joe", 0, NOON), V_BLOCKED);
	assert_int_equal(first, 0);
	assert_int_equal(book("joe", 1, NOON + 86400 * 40), V_BLOCKED);
	assert_int_equal(users_change("joe", 0, 0, 1, NOON), 1);
	assert_int_equal(ask("joe", 0, NOON), V_BLOCKED);
	assert_int_equal(users_change("joe", 0, USERS_BLOCKED, 0, NOON), 1);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(book("joe", 1, NOON), V_OK);
	}
	assert_int_equal(book("joe", 1, NOON), V_LIMIT_DAY);
	assert_int_equal(users_change("joe", 0, 0, 1, NOON), 0);
	assert_int_equal(record("joe", NOON).total, 3);
	assert_int_equal(book("joe", 1, NOON), V_OK);
	assert_int_equal(users_change("nobody", 0, USERS_BLOCKED, 1, NOON), -1);
	assert_int_equal(errno, 0);
	assert_int_equal(records(), 1);
}

/* Start `n` processes that do `f`; the sum of what they return. */
static unsigned
together(unsigned n, unsigned (*f)(unsigned))
{
	unsigned sum = 0;
	int gate[2], status;
	pid_t pid;
	char c;

	assert_int_equal(pipe(gate), 0);
	for (unsigned i = 0; i < n; i++) {
		pid = fork();
		assert_int_not_equal(pid, -1);
		if (pid == 0) {
			close(gate[1]);
			(void)!read(gate[0], &c, 1);
			_exit((int)f(i));
		}
	}
	close(gate[1]);
	close(gate[0]);
	while (wait(&status) > 0) {
		assert_true(WIFEXITED(status));
		sum += (unsigned)WEXITSTATUS(status);
	}
	return sum;
}

/* Those that were accepted, and 100 for who is to tell. */
static unsigned
seven_messages(unsigned i)
{
	unsigned n = 0, told = 0;

	(void)i;
	for (int k = 0; k < 7; k++) {
		n += book("joe", 2, NOON) == V_OK;
		told += (unsigned)first;
	}
	return n + (told > 0 ? 100 : 0);
}

/* 200 sessions of one user: exactly what is allowed, and one of them tells. */
static void
test_parallel(void **state)
{
	(void)state;
	limit(1000, LIMIT_NONE, LIMIT_NONE);
	assert_int_equal(together(200, seven_messages), 1000 + 100);
	assert_int_equal(record("joe", NOON).messages, 1000);
	assert_int_equal(record("joe", NOON).rcpts, 2000);
	assert_int_equal(records(), 1);
}

static unsigned
of_many(unsigned i)
{
	char name[32];

	snprintf(name, sizeof name, "user%u", i % 20);
	return book(name, 1, NOON) == V_OK;
}

/* First messages of several at one moment: a record for each, not two. */
static void
test_first_records(void **state)
{
	char name[32];

	(void)state;
	limit(LIMIT_NONE, LIMIT_NONE, LIMIT_NONE);
	assert_int_equal(together(120, of_many), 120);
	assert_int_equal(records(), 20);
	for (int i = 0; i < 20; i++) {
		snprintf(name, sizeof name, "user%d", i);
		assert_int_equal(record(name, NOON).messages, 6);
	}
}

static unsigned
open_and_book(unsigned i)
{
	(void)i;
	return open_file() == 0 && book("joe", 1, NOON) == V_OK;
}

/* Two that start at the same moment, and find no file, make one. */
static void
test_made_once(void **state)
{
	(void)state;
	for (int round = 0; round < 10; round++) {
		users_close();
		assert_int_equal(unlink(in(USERS_FILE)) + (round % 2 == 0 ? rmdir(in("mailstile")) : 0), 0);
		limit(LIMIT_NONE, LIMIT_NONE, LIMIT_NONE);
		assert_int_equal(together(12, open_and_book), 12);
		assert_int_equal(open_file(), 0);
		assert_int_equal(record("joe", NOON).messages, 12);
		assert_string_equal(files_there(), USERS_FILE "\n");
	}
}

static void
test_sessions(void **state)
{
	int go[2], said[2], v;
	pid_t pid[4];
	char c;

	(void)state;
	limits_default(&l);
	l.sessions = 3;
	assert_int_equal(pipe(said) + pipe(go), 0);
	for (int i = 0; i < 4; i++) {
		pid[i] = fork();
		if (pid[i] == 0) {
			v = (int)users_login("joe", &l, NOON);
			c = (char)v;
			(void)!write(said[1], &c, 1);
			close(go[1]);
			(void)!read(go[0], &c, 1);
			_exit(0);
		}
		assert_int_equal(read(said[0], &c, 1), 1);
		assert_int_equal(c, i < 3 ? V_OK : V_LIMIT_SESSIONS);
	}
	/* Another user is not concerned, nor is his own lock in the way of counting. */
	assert_int_equal(users_login("ann", &l, NOON), V_OK);
	assert_int_equal(book("joe", 1, NOON), V_OK);
	/* However one of them ends, its place is free. */
	kill(pid[1], SIGKILL);
	waitpid(pid[1], NULL, 0);
	assert_int_equal(users_login("joe", &l, NOON), V_OK);
	close(go[0]);
	close(go[1]);
	while (wait(NULL) > 0) {
	}
	l.sessions = 0;
	assert_int_equal(users_login("joe", &l, NOON), V_LIMIT_SESSIONS);
}

/* What RADIUS says is left counts from the login, beside what is sent in other sessions. */
static void
test_left(void **state)
{
	(void)state;
	limit(LIMIT_NONE, LIMIT_NONE, LIMIT_NONE);
	assert_int_equal(book("joe", 4, NOON), V_OK);
	l.left = 2;
	l.left_rcpt = 5;
	assert_int_equal(users_login("joe", &l, NOON), V_OK);
	assert_int_equal(l.day, 3);
	assert_int_equal(l.rcpt, 9);
	/* Whose numbers these are is noted; until that day ends, or begins anew. */
	assert_int_equal(record("joe", NOON).flags & LEFTS, 0);
	assert_int_equal(book("joe", 1, NOON), V_OK);
	assert_int_equal(record("joe", NOON).flags & LEFTS, LEFTS);
	assert_int_equal(record("joe", NOON).limit, 3);
	assert_int_equal(record("joe", MIDNIGHT).flags & LEFTS, 0);
	assert_int_equal(record("joe", MIDNIGHT).limit, LIMIT_NONE);
	assert_int_equal(record("joe", MIDNIGHT).limit_rcpt, LIMIT_NONE);
	l.left = l.left_rcpt = LIMIT_NONE - 1;
	assert_int_equal(users_login("joe", &l, NOON), V_OK);
	assert_int_equal(l.day, LIMIT_NONE - 1);
	l.left = 0;
	assert_int_equal(users_login("new", &l, NOON), V_OK);
	assert_int_equal(l.day, 0);
	assert_int_equal(records(), 1);
}

static void
spoil(off_t at, const void *p, size_t len)
{
	int fd = open(in(USERS_FILE), O_WRONLY);

	assert_int_equal(pwrite(fd, p, len, at), len);
	close(fd);
}

/* Where joe's record is in the file. */
static off_t
where_is(const char *user)
{
	struct users_record r;
	int fd = open(in(USERS_FILE), O_RDONLY);
	off_t at = 512;

	while (pread(fd, &r, sizeof r, at) == sizeof r && strcmp(r.name, user) != 0) {
		at += 512;
	}
	close(fd);
	return at;
}

/* A count that cannot be read is not none. */
static void
test_damaged_record(void **state)
{
	struct users_record r;
	uint32_t at = 0;
	off_t joe;

	(void)state;
	assert_int_equal(book("joe", 1, NOON), V_OK);
	joe = where_is("joe");
	spoil(joe + 13, "x", 1);
	assert_int_equal(ask("joe", 0, NOON), V_NO_COUNTS);
	assert_int_equal(book("joe", 1, NOON), V_NO_COUNTS);
	assert_int_equal(users_login("joe", &l, NOON), V_NO_COUNTS);
	assert_int_equal(users_change("joe", USERS_BLOCKED, 0, 0, NOON), -1);
	assert_int_equal(users_next(&at, &r, NOON), -1);
	assert_int_equal(users_next(&at, &r, NOON), 0);
	spoil(joe + 4, "\0\0\0\0", 4); /* not "in use", but not empty either */
	assert_int_equal(ask("joe", 0, NOON), V_NO_COUNTS);
	assert_int_equal(book("nobody-of-those", 1, NOON), V_OK); /* others are served */
}

static void
test_damaged_file(void **state)
{
	static const struct {
		off_t at;
		const char *p;
		size_t len;
	} bad[] = { { 0, "x", 1 }, { 4, "\xff\xff", 2 }, { 8, "\xff\xff\xff\xff", 4 }, { 8, "\0\0\0\0", 4 },
		{ 8, "\1\0\0\0", 4 } };
	char *saved;
	size_t len;

	(void)state;
	saved = content(USERS_FILE, &len);
	for (size_t i = 0; i < COUNT(bad); i++) {
		spoil(bad[i].at, bad[i].p, bad[i].len);
		assert_int_equal(open_file(), -1);
		assert_has(found.text, "E|users|0|damaged");
		assert_int_equal(ask("joe", 0, NOON), V_NO_COUNTS);
		assert_int_equal(users_login("joe", &l, NOON), V_NO_COUNTS);
		spoil(0, saved, 512);
	}
	assert_int_equal(open_file(), 0);
	assert_int_equal(truncate(in(USERS_FILE), 100), 0);
	assert_int_equal(open_file(), -1);
	assert_int_equal(truncate(in(USERS_FILE), 0), 0);
	assert_int_equal(open_file(), -1);
	assert_int_equal(unlink(in(USERS_FILE)), 0);
	assert_int_equal(open_file(), 0);
	assert_int_equal(chmod(in(USERS_FILE), 0620), 0);
	assert_int_equal(open_file(), -1);
	assert_int_equal(unlink(in(USERS_FILE)), 0);
	assert_int_equal(symlink("/dev/zero", in(USERS_FILE)), 0);
	assert_int_equal(open_file(), -1);
	assert_int_equal(unlink(in(USERS_FILE)) + rmdir(in("mailstile")), 0);
	put("mailstile", "no directory\n");
	assert_int_equal(open_file(), -1);
	assert_has(found.text, "nobody can log in");
}

/* What cannot be counted for good is refused, and not counted; where there is no limit a day nobody waits for the disk. */
static void
test_disk(void **state)
{
	(void)state;
	flushes = 0;
	assert_int_equal(book("joe", 1, NOON), V_OK);
	assert_int_equal(flushes, 1);
	assert_int_equal(ask("joe", 1, NOON), V_OK);
	assert_int_equal(flushes, 1);
	flush_fails = EIO;
	assert_int_equal(book("joe", 1, NOON), V_NO_COUNTS);
	flush_fails = 0;
	assert_int_equal(record("joe", NOON).messages, 1);
	assert_int_equal(record("joe", NOON).rcpts, 1);
	write_fails = ENOSPC;
	assert_int_equal(book("joe", 1, NOON), V_NO_COUNTS);
	assert_int_equal(book("ann", 1, NOON), V_NO_COUNTS);
	assert_int_equal(users_change("joe", USERS_BLOCKED, 0, 0, NOON), -1);
	assert_int_equal(errno, ENOSPC);
	assert_int_equal(ask("joe", 1, NOON), V_OK);
	write_fails = 0;
	assert_int_equal(records(), 1);
	assert_int_equal(record("joe", NOON).messages, 1);
	limit(LIMIT_NONE, 100, LIMIT_NONE);
	flushes = 0;
	assert_int_equal(book("joe", 1, NOON), V_OK);
	assert_int_equal(flushes, 1);
	limit(LIMIT_NONE, LIMIT_NONE, 100);
	assert_int_equal(book("joe", 1, NOON), V_OK);
	assert_int_equal(flushes, 1);
}

/* A small file: who has not sent today makes room, who has, or is blocked, does not. */
static void
test_full(void **state)
{
	uint32_t small[5 * 512 / 4] = { 0, 512, 4 };
	static const char *const names[] = { "a", "b", "c", "d" };
	FILE *f = fopen(in("small"), "w+");
	int said[2];
	pid_t pid;
	char c;

	(void)state;
	assert_int_equal(pipe(said), 0);
	memcpy(small, content(USERS_FILE, NULL), 4); /* the magic number */
	assert_got(f);
	assert_int_equal(fwrite(small, 1, sizeof small, f), sizeof small);
	assert_int_equal(fflush(f), 0);
	assert_int_equal(users_use(dup(fileno(f))), 0);
	fclose(f);
	limit(LIMIT_NONE, LIMIT_NONE, LIMIT_NONE);
	for (size_t i = 0; i < COUNT(names); i++) {
		assert_int_equal(book(names[i], 1, NOON + (int)i), V_OK);
	}
	assert_int_equal(book("e", 1, NOON), V_NO_COUNTS);
	assert_int_equal(ask("e", 1, NOON), V_OK);
	assert_int_equal(users_change("a", USERS_BLOCKED, 0, 0, NOON), 0);
	assert_int_equal(book("b", 1, MIDNIGHT), V_OK);
	pid = fork();
	if (pid == 0) {
		l.sessions = 1;
		(void)!write(said[1], users_login("c", &l, MIDNIGHT) == V_OK ? "y" : "n", 1);
		sleep(10); /* not for ever, should the test fail */
		_exit(0);
	}
	assert_int_equal(read(said[0], &c, 1), 1);
	assert_int_equal(c, 'y');
	assert_int_equal(book("e", 1, MIDNIGHT + 1), V_OK); /* in place of d: c is away longer, but has a session */
	assert_int_equal(records(), 4);
	assert_int_equal(record("a", MIDNIGHT).flags & USERS_BLOCKED, USERS_BLOCKED);
	assert_int_equal(record("c", MIDNIGHT).total, 1);
	assert_int_equal(book("f", 1, MIDNIGHT + 2), V_NO_COUNTS);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(book("f", 1, MIDNIGHT + 2), V_OK); /* c's */
	assert_int_equal(book("g", 1, MIDNIGHT + 3), V_NO_COUNTS);
	assert_int_equal(record("b", MIDNIGHT).total, 2);
}

#endif

int
main(void)
{
#if ACCOUNTS
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_counts, begin, end),
		cmocka_unit_test_setup_teardown(test_nothing_allowed, begin, end),
		cmocka_unit_test_setup_teardown(test_recipients, begin, end),
		cmocka_unit_test_setup_teardown(test_rate, begin, end),
		cmocka_unit_test_setup_teardown(test_days, begin, end),
		cmocka_unit_test_setup_teardown(test_zone, begin, end),
		cmocka_unit_test_setup_teardown(test_clock, begin, end),
		cmocka_unit_test_setup_teardown(test_block, begin, end),
		cmocka_unit_test_setup_teardown(test_parallel, begin, end),
		cmocka_unit_test_setup_teardown(test_first_records, begin, end),
		cmocka_unit_test_setup_teardown(test_made_once, begin, end),
		cmocka_unit_test_setup_teardown(test_sessions, begin, end),
		cmocka_unit_test_setup_teardown(test_left, begin, end),
		cmocka_unit_test_setup_teardown(test_damaged_record, begin, end),
		cmocka_unit_test_setup_teardown(test_damaged_file, begin, end),
		cmocka_unit_test_setup_teardown(test_disk, begin, end),
		cmocka_unit_test_setup_teardown(test_full, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
#else
	return 0;
#endif
}
