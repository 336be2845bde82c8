/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * What sessions share: share.c, with a clock of our own.
 * LDFLAGS: -Wl,--wrap=mono_ms
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "share.h"
#include "unit.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/wait.h>

static struct share *s;
static int64_t now = 1000;

int64_t __wrap_mono_ms(void);
int64_t
__wrap_mono_ms(void)
{
	return now;
}

static struct addr
addr(const char *text)
{
	struct addr a;

	assert_int_equal(addr_parse(&a, text, strlen(text)), 0);
	return a;
}

static struct addr
numbered(unsigned n)
{
	struct addr a = addr("10.0.0.0");

	a.ip[13] = (uint8_t)(n >> 16);
	a.ip[14] = (uint8_t)(n >> 8);
	a.ip[15] = (uint8_t)n;
	return a;
}

static void
test_open(void **state)
{
	int own = share_fd();
	struct share *again;
	int fd, pipes[2];
	unsigned fds;

	(void)state;
	assert_int_equal(fcntl(own, F_GETFD), FD_CLOEXEC);
	/* The same memory by its descriptor, as after a re-execution, which has cleared close-on-exec. */
	s->radius_generation = 4711;
	fcntl(own, F_SETFD, 0);
	again = share_open(own);
	assert_non_null(again);
	assert_int_equal(share_fd(), own);
	assert_int_equal(fcntl(own, F_GETFD), FD_CLOEXEC);
	assert_int_equal(again->radius_generation, 4711);
	again->radius_generation = 0;
	assert_int_equal(s->radius_generation, 0);

	/* One of another layout is refused. */
	s->magic ^= 1;
	assert_null(share_open(own));
	s->magic ^= 1;
	s->size++;
	assert_null(share_open(own));
	assert_int_equal(errno, EINVAL);
	s->size--;
	munmap(again, sizeof *again);
	fds = open_fds();
	fd = memfd_create("other", 0);
	for (int i = -1; i <= 1; i += 2) {
		assert_int_equal(ftruncate(fd, (off_t)sizeof *s + i), 0);
		errno = 0;
		assert_null(share_open(fd));
		assert_int_equal(errno, EINVAL);
	}
	assert_int_equal(ftruncate(fd, sizeof *s), 0);
	assert_null(share_open(fd));
	close(fd);
	assert_int_equal(pipe(pipes), 0);
	assert_null(share_open(pipes[0]));
	close(pipes[0]);
	close(pipes[1]);
	assert_null(share_open(99));
	assert_int_equal(share_fd(), own);
	assert_int_equal(open_fds(), fds);
}

static void
test_penalties(void **state)
{
	struct addr a = addr("192.0.2.1"), b = addr("192.0.2.2"), v6 = addr("2001:db8::1"),
		    near = addr("2001:db8::ffff:1"), far = addr("2001:db8:0:1::1"), local = addr("::1");

	(void)state;
	assert_int_equal(share_fails(s, &a), 0);
	assert_int_equal(share_fail(s, &a), 1);
	assert_int_equal(share_fail(s, &a), 2);
	assert_int_equal(share_fail(s, &v6), 1);
	assert_int_equal(share_fails(s, &a), 2);
	assert_int_equal(share_fails(s, &b), 0);
	assert_int_equal(share_fail(s, &near), 2); /* one /64 is one client */
	assert_int_equal(share_fails(s, &far), 0);
	assert_int_equal(share_fails(s, &local), 0);

	/* Forgotten PENALTY_SECONDS after the last failure. */
	now += PENALTY_SECONDS * 1000 - 1;
	assert_int_equal(share_fails(s, &a), 2);
	assert_int_equal(share_fail(s, &a), 3);
	now += 1;
	assert_int_equal(share_fails(s, &v6), 0);
	assert_int_equal(share_fails(s, &a), 3);
	now += PENALTY_SECONDS * 1000;
	assert_int_equal(share_fails(s, &a), 0);
	assert_int_equal(share_fail(s, &a), 1);

	share_forgive(s, &b); /* nothing to forgive */
	assert_int_equal(share_fails(s, &a), 1);
	share_forgive(s, &a);
	assert_int_equal(share_fails(s, &a), 0);
	assert_int_equal(share_fail(s, &a), 1);
	share_forgive(s, &a);
}

/* A full table forgets those that were quiet longest. */
static void
test_penalties_full(void **state)
{
	struct addr a;

	(void)state;
	now += 2 * PENALTY_SECONDS * 1000;
	for (unsigned i = 0; i < PENALTIES_MAX; i++) {
		a = numbered(i);
		now++;
		assert_int_equal(share_fail(s, &a), 1);
	}
	a = numbered(0);
	now++;
	assert_int_equal(share_fail(s, &a), 2); /* no longer the oldest: 1 is */
	a = numbered(PENALTIES_MAX);
	now++;
	assert_int_equal(share_fail(s, &a), 1);
	for (unsigned i = 0; i <= PENALTIES_MAX; i++) {
		a = numbered(i);
		assert_int_equal(share_fails(s, &a), i == 0 ? 2 : i == 1 ? 0 : 1);
	}
}

static void
test_tls(void **state)
{
	struct addr a = addr("192.0.2.1"), b = addr("192.0.2.2"), v6 = addr("2001:db8::1"), near = addr("2001:db8::2"),
		    local = addr("::1");
	uint8_t id[32], other[32], master[48], got[48];
	uint16_t version = 0, suite = 0;

	(void)state;
	memset(id, 1, sizeof id);
	memset(other, 1, sizeof other);
	other[31] = 2;
	memset(master, 3, sizeof master);
	memset(got, 0, sizeof got);
	assert_int_equal(share_tls_get(s, &a, id, got, &version, &suite), 0);
	share_tls_put(s, &a, id, master, 0x0303, 0xcca9);
	assert_int_equal(share_tls_get(s, &a, id, got, &version, &suite), 1);
	assert_memory_equal(got, master, sizeof got);
	assert_int_equal(version, 0x0303);
	assert_int_equal(suite, 0xcca9);
	/* Not to another client, nor for another id. */
	memset(got, 0, sizeof got);
	assert_int_equal(share_tls_get(s, &b, id, got, &version, &suite), 0);
	assert_int_equal(share_tls_get(s, &local, id, got, &version, &suite), 0);
	assert_int_equal(share_tls_get(s, &a, other, got, &version, &suite), 0);
	assert_int_equal(got[0], 0);
	share_tls_put(s, &v6, other, master, 0x0303, 0xcca9);
	assert_int_equal(share_tls_get(s, &near, other, got, &version, &suite), 1);

	now += TLS_CACHE_SECONDS * 1000 - 1;
	assert_int_equal(share_tls_get(s, &a, id, got, &version, &suite), 1);
	now += 1;
	assert_int_equal(share_tls_get(s, &a, id, got, &version, &suite), 0);
}

static void
test_tls_ring(void **state)
{
	struct addr a = addr("192.0.2.1");
	uint8_t id[32] = { 0 }, master[48] = { 0 };
	uint16_t version, suite;

	(void)state;
	s->tls_next = UINT32_MAX - 10; /* the counter wraps on the way */
	for (unsigned i = 0; i < TLS_CACHE_MAX + 5; i++) {
		memcpy(id, &i, sizeof i);
		share_tls_put(s, &a, id, master, 1, 2);
	}
	for (unsigned i = 0; i < TLS_CACHE_MAX + 5; i++) {
		memcpy(id, &i, sizeof i);
		assert_int_equal(share_tls_get(s, &a, id, master, &version, &suite), i >= 5);
	}
}

/* Several processes at once: no count is lost, and a lock goes with its holder. */
static void
test_processes(void **state)
{
	struct addr a = addr("203.0.113.1");
	int status;

	(void)state;
	for (int i = 0; i < 4; i++) {
		if (fork() == 0) {
			for (int k = 0; k < 250; k++) {
				share_fail(s, &a);
			}
			_exit(0);
		}
	}
	for (int i = 0; i < 4; i++) {
		wait(&status);
		assert_int_equal(status, 0);
	}
	assert_int_equal(share_fails(s, &a), 1000);

	if (fork() == 0) {
		share_lock(SHARE_PENALTY);
		_exit(0);
	}
	wait(&status);
	alarm(10);
	assert_int_equal(share_fails(s, &a), 1000);
	alarm(0);
}

static void
test_inherit(void **state)
{
	(void)state;
	if (getenv("EMULATED") != NULL) { /* QEMU's user mode passes this on wrongly */
		skip();
	}
	for (int fork_it = 0; fork_it <= 1; fork_it++) {
		int status;

		assert_int_equal(share_inherit(s, fork_it), 0);
		if (fork() == 0) {
			unsigned char vec[sizeof *s / 4096 + 1];

			/* mincore() fails where nothing is mapped. */
			_exit(mincore(s, sizeof *s, vec) == 0);
		}
		wait(&status);
		assert_int_equal(status, fork_it << 8);
	}
}

static int
setup(void **state)
{
	(void)state;
	s = share_open(-1);
	return s == NULL ? -1 : 0;
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_open),
		cmocka_unit_test(test_penalties),
		cmocka_unit_test(test_penalties_full),
		cmocka_unit_test(test_tls),
		cmocka_unit_test(test_tls_ring),
		cmocka_unit_test(test_processes),
		cmocka_unit_test(test_inherit),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
