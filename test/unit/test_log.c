/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Log lines: log.c. Connections to /dev/log go to a socket of the test.
 * LDFLAGS: -Wl,--wrap=connect
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "log.h"
#include "unit.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#define X100 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

int __real_connect(int fd, const struct sockaddr *sa, socklen_t len);
int __wrap_connect(int fd, const struct sockaddr *sa, socklen_t len);
int
__wrap_connect(int fd, const struct sockaddr *sa, socklen_t len)
{
	struct sockaddr_un un;

	assert_in_range(len, sizeof(sa_family_t) + 9, sizeof un);
	memset(&un, 0, sizeof un);
	memcpy(&un, sa, len);
	assert_string_equal(un.sun_path, "/dev/log");
	snprintf(un.sun_path, sizeof un.sun_path, "%s/log", dir);
	return __real_connect(fd, (struct sockaddr *)&un, sizeof un);
}

static int pipes[2], saved_stderr;

static void
stderr_begin(void)
{
	assert_int_equal(pipe(pipes), 0);
	saved_stderr = dup(2);
	dup2(pipes[1], 2);
	close(pipes[1]);
}

/* What came to stderr since. */
static const char *
stderr_end(void)
{
	static char text[4096];
	ssize_t n;

	dup2(saved_stderr, 2);
	close(saved_stderr);
	n = read(pipes[0], text, sizeof text - 1);
	close(pipes[0]);
	text[n < 0 ? 0 : n] = '\0';
	return text;
}

static void
test_values(void **state)
{
	static const struct {
		const char *value, *written;
	} t[] = {
		{ NULL, "-" },
		{ "", "-" },
		{ "a@b.example", "a@b.example" },
		{ "two words", "two\\x20words" },
		{ "x\nev=auth result=accept", "x\\x0aev\\x3dauth\\x20result\\x3daccept" },
		{ "\"\\\r\x7f\xc3\xbc", "\\x22\\x5c\\x0d\\x7f\\xc3\\xbc" },
		{ "-", "-" },
	};
	struct log_line l;

	(void)state;
	assert_int_equal(log_open(LOG_TO_STDERR), 0);
	for (size_t i = 0; i < COUNT(t); i++) {
		char want[128];

		stderr_begin();
		log_begin(&l, LOG_INFO, "test");
		log_str(&l, "key", t[i].value);
		log_end(&l);
		snprintf(want, sizeof want, "ev=test key=%s\n", t[i].written);
		assert_string_equal(stderr_end(), want);
	}
	stderr_begin();
	log_begin(&l, LOG_INFO, "all");
	log_mem(&l, "m", "a\0b", 3);
	log_num(&l, "n", -5);
	log_num(&l, "max", INT64_MAX);
	log_fmt(&l, "f", "<%s>", "a b");
	log_text(&l, "t", "spaces stay, \"\\=\n do not");
	log_text(&l, "e", "");
	log_end(&l);
	log_msg(LOG_ERR, "crash", "%s: %d", "it broke", 7);
	assert_string_equal(stderr_end(),
	    "ev=all m=a\\x00b n=-5 max=9223372036854775807 f=<a\\x20b> t=\"spaces stay, \\x22\\x5c\\x3d\\x0a do not\" e=\"\"\n"
	    "ev=crash msg=\"it broke: 7\"\n");
}

/* However long the values are, a line is one line, not too long, and made of whole pairs. */
static void
test_long(void **state)
{
	char value[900];
	struct log_line l;
	const char *text;

	(void)state;
	memset(value, 'x', sizeof value);
	value[sizeof value - 1] = '\0';
	stderr_begin();
	log_begin(&l, LOG_INFO, "test");
	log_str(&l, "key", value);
	log_num(&l, "after", 1);
	log_end(&l);
	assert_string_equal(stderr_end(), "ev=test key=" X100 X100 X100 X100 "... after=1\n");

	/* Up to every length, so that each part of a pair is the first that does not fit. */
	for (size_t n = 0; n < 1100; n++) {
		unsigned quotes = 0;

		stderr_begin();
		log_begin(&l, LOG_INFO, "test");
		for (size_t left = n; left > 0; left -= left < 300 ? left : 300) {
			log_mem(&l, "k", value, left < 300 ? left : 300);
		}
		log_text(&l, "text", "ours");
		log_str(&l, "key", "v");
		log_end(&l);
		text = stderr_end();
		assert_in_range(strlen(text), 8, 1000);
		assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
		assert_int_equal(strncmp(text, "ev=test ", 8), 0);
		for (const char *p = text; *p != '\0'; p++) {
			quotes += *p == '"';
		}
		if (quotes % 2 != 0) {
			fail_msg("a text that runs on: %s", text);
		}
	}
}

static int
listener(void)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);

	snprintf(un.sun_path, sizeof un.sun_path, "%s/log", dir);
	unlink(un.sun_path);
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
	return fd;
}

static void
test_syslog(void **state)
{
	char text[2048], want[128], longest[900];
	unsigned fds = open_fds();
	struct log_line l;
	ssize_t n;
	int fd;

	(void)state;
	assert_int_equal(log_open(LOG_TO_SYSLOG), -1);
	assert_int_equal(errno, ENOENT);
	log_msg(LOG_INFO, "lost", "nobody listens");
	fd = listener();
	log_reopen();
	log_msg(LOG_INFO, "start", "hello");
	n = recv(fd, text, sizeof text - 1, 0);
	text[n < 0 ? 0 : n] = '\0';
	snprintf(want, sizeof want, "<22>mailstile[%d]: ev=start msg=\"hello\"", (int)getpid());
	assert_string_equal(text, want);
	log_begin(&l, LOG_ERR, "x");
	log_end(&l);
	n = recv(fd, text, sizeof text - 1, 0);
	assert_in_range(n, 11, sizeof text - 1);
	assert_memory_equal(text, "<19>mailsti", 11);
	memset(longest, '\n', sizeof longest - 1);
	longest[sizeof longest - 1] = '\0';
	log_begin(&l, LOG_ERR, "x");
	for (int i = 0; i < 9; i++) {
		log_str(&l, "k", longest);
	}
	log_end(&l);
	assert_in_range(recv(fd, text, sizeof text - 1, 0), 300, 1064);

	/* syslogd is gone: a line is lost, nothing else; and it comes back. */
	close(fd);
	log_msg(LOG_INFO, "lost", "again");
	log_reopen();
	log_msg(LOG_INFO, "lost", "again");
	fd = listener();
	log_msg(LOG_INFO, "lost", "not connected again yet");
	log_reopen();
	log_msg(LOG_INFO, "back", "here");
	n = recv(fd, text, sizeof text - 1, 0);
	text[n < 0 ? 0 : n] = '\0';
	assert_has(text, "ev=back");
	/* One that does not read: we never wait for it. */
	for (int i = 0; i < 5000; i++) {
		log_msg(LOG_INFO, "flood", "%d", i);
	}
	close(fd);
	log_msg(LOG_INFO, "lost", "closed");
	assert_int_equal(log_open(LOG_TO_STDERR), 0);
	assert_in_range(open_fds(), fds, fds + 1); /* the old connection may stay */
	log_close();
	log_msg(LOG_INFO, "lost", "for good");
}

static int
setup(void **state)
{
	setenv("TZ", "UTC0", 1);
	tzset();
	return make_dir(state);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_long),
		cmocka_unit_test(test_syslog),
	};

	return cmocka_run_group_tests(tests, setup, remove_dir);
}
