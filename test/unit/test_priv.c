/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* Users and groups by name, from files in the form of /etc/passwd and /etc/group: priv.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../priv.c"
#include "unit.h"

static char path[96];

static long
id_of(const char *name)
{
	uint32_t id = 7;

	if (find_id(path, name, &id) == -1) {
		assert_int_equal(id, 0);
		return -1;
	}
	return (long)id;
}

static void
write_lines(const char *text, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_int_equal(write_all(fd, text, len), 0);
	close(fd);
}

static void
test_names(void **state)
{
	static const char text[] =
	    "root:x:0:0:root:/root:/bin/sh\n"
	    "\n"
	    "qmail:x:70:\n"
	    "qmaild::71:70::/var/qmail:/bin/false\n"
	    "broken\nbroken2:x\nbroken3:x:\nbroken4:x:7a:\nbroken5:x:-1:\nbroken6:x:4294967295:\n"
	    "twice:x:1:\ntwice:x:2:\n"
	    "last:x:4294967294:5"; /* without its end of line */

	(void)state;
	write_lines(text, sizeof text - 1);
	assert_int_equal(id_of("root"), 0);
	assert_int_equal(id_of("qmail"), 70);
	assert_int_equal(id_of("qmaild"), 71);
	assert_int_equal(id_of("qmai"), -1);
	assert_int_equal(id_of("x"), -1);
	assert_int_equal(id_of("mail"), -1);
	assert_int_equal(id_of(""), -1);
	for (int i = 1; i <= 6; i++) {
		char name[16];

		assert_int_equal(id_of(str_fmt(name, sizeof name, i == 1 ? "broken" : "broken%d", i)), -1);
	}
	assert_int_equal(id_of("twice"), 1);
	assert_int_equal((uid_t)id_of("last"), 4294967294);
	/* A number is one, but a name that is there comes first. */
	assert_int_equal(id_of("1234"), 1234);
	assert_int_equal(id_of("4294967295"), -1);
	assert_int_equal(id_of("-5"), -1);
	unlink(path);
	assert_int_equal(id_of("root"), -1);
	assert_int_equal(id_of("70"), 70);
}

/* Lines over the buffer's kilobyte: what is in their middle is no line of its own. */
static void
test_long_lines(void **state)
{
	static char text[8192];

	(void)state;
	for (size_t members = 900; members < 2200; members++) {
		char *p = text + sprintf(text, "before:x:1:\nbig:x:2:");

		memset(p, 'm', members);
		p += members;
		p += sprintf(p, "\nafter:x:3:\n");
		write_lines(text, (size_t)(p - text));
		assert_int_equal(id_of("before"), 1);
		assert_int_equal(id_of("big"), 2);
		assert_int_equal(id_of("after"), 3);
		assert_int_equal(id_of("m"), -1);
	}
	/* Something that looks like a line where the buffer begins anew. */
	memset(text, 'a', 1024);
	strcpy(text + 1024, "evil:x:0:\nnext:x:9:\n");
	write_lines(text, strlen(text));
	assert_int_equal(id_of("evil"), -1);
	assert_int_equal(id_of("next"), 9);
	unlink(path);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_long_lines),
	};

	snprintf(path, sizeof path, "/tmp/mailstile-priv-%d", (int)getpid());
	return cmocka_run_group_tests(tests, NULL, NULL);
}
