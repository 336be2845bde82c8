/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* The wire between smtp and warden: msg.c. Descriptors are counted: none may come in and stay. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "msg.h"
#include "str.h"
#include "unit.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>

static int sv[2];

static void
test_pair(void **state)
{
	int type = 0;
	socklen_t len = sizeof type;

	(void)state;
	for (int i = 0; i < 2; i++) {
		assert_int_equal(fcntl(sv[i], F_GETFD), FD_CLOEXEC);
		assert_int_equal(getsockopt(sv[i], SOL_SOCKET, SO_TYPE, &type, &len), 0);
		assert_int_equal(type, SOCK_SEQPACKET);
	}
}

static void
test_sizes(void **state)
{
	static const struct {
		size_t len, cap;
		long want;
		int error;
	} t[] = {
		{ 1, 1, 1, 0 },
		{ 528, 528, 528, 0 },
		{ 528, 529, 528, 0 },
		{ 528, 527, -1, EMSGSIZE },
		{ 2, 1, -1, EMSGSIZE },
	};
	char out[1000], in_[1000];

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		for (size_t k = 0; k < sizeof out; k++) {
			out[k] = (char)(i + k);
		}
		memset(in_, '#', sizeof in_);
		assert_int_equal(msg_send(sv[0], out, t[i].len, -1), 0);
		assert_int_equal(msg_recv(sv[1], in_, t[i].cap, NULL, -1), t[i].want);
		if (t[i].want == -1) {
			assert_int_equal(errno, t[i].error);
		} else {
			assert_memory_equal(in_, out, t[i].len);
		}
		assert_int_equal(in_[t[i].cap], '#');
	}
	/* One datagram, one message, and the rest of a long one is gone. */
	assert_int_equal(msg_send(sv[0], "ab", 2, -1) + msg_send(sv[0], "cd", 2, -1), 0);
	assert_int_equal(msg_recv(sv[1], in_, sizeof in_, NULL, 1000), 2);
	assert_int_equal(msg_recv(sv[1], in_, sizeof in_, NULL, 1000), 2);
	assert_memory_equal(in_, "cd", 2);
}

static void
test_descriptor(void **state)
{
	int pipes[2], fd = 77;
	char c;
	unsigned fds;

	(void)state;
	assert_int_equal(pipe(pipes), 0);
	fds = open_fds();
	assert_int_equal(msg_send(sv[0], "x", 1, pipes[0]), 0);
	assert_int_equal(msg_recv(sv[1], &c, 1, &fd, 1000), 1);
	assert_int_not_equal(fd, -1);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	assert_int_equal(write(pipes[1], "y", 1), 1);
	assert_int_equal(read(fd, &c, 1), 1);
	assert_int_equal(c, 'y');
	assert_int_equal(open_fds(), fds + 1);
	close(fd);
	/* None where one may be. */
	assert_int_equal(msg_send(sv[0], "x", 1, -1), 0);
	assert_int_equal(msg_recv(sv[1], &c, 1, &fd, 1000), 1);
	assert_int_equal(fd, -1);
	assert_int_equal(open_fds(), fds);
	close(pipes[0]);
	close(pipes[1]);
}

/* `len` octets with `n` descriptors, as no code of ours would send them. */
static void
send_many(size_t len, unsigned n)
{
	static char data[64] = "";
	struct iovec iov = { .iov_base = data, .iov_len = len };
	union {
		struct cmsghdr align;
		char mem[CMSG_SPACE(8 * sizeof(int))];
	} control;
	struct msghdr h = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.mem,
		.msg_controllen = CMSG_SPACE(n * sizeof(int)) };

	memset(&control, 0, sizeof control);
	control.align.cmsg_level = SOL_SOCKET;
	control.align.cmsg_type = SCM_RIGHTS;
	control.align.cmsg_len = CMSG_LEN(n * sizeof(int));
	for (unsigned i = 0; i < n; i++) {
		int fd = 0;

		memcpy(CMSG_DATA(&control.align) + i * sizeof fd, &fd, sizeof fd);
	}
	assert_int_equal(sendmsg(sv[0], &h, 0), (ssize_t)len);
}

static void
test_unwanted_descriptors(void **state)
{
	static const struct {
		size_t len;
		unsigned n;
		int take; /* one is welcome */
		long want;
		int error;
	} t[] = {
		{ 8, 1, 0, -1, EBADMSG },
		{ 8, 2, 0, -1, EBADMSG },
		{ 8, 8, 0, -1, EBADMSG },
		{ 8, 2, 1, -1, EBADMSG },
		{ 8, 4, 1, -1, EBADMSG },
		{ 8, 8, 1, -1, EBADMSG },
		{ 9, 1, 1, -1, EMSGSIZE },
		{ 9, 1, 0, -1, EBADMSG },
		{ 0, 1, 0, 0, 0 }, /* reads as end of file */
		{ 0, 1, 1, 0, 0 },
	};
	char c[8];

	(void)state;
	if (getenv("EMULATED") != NULL) { /* QEMU's user mode passes this on wrongly */
		skip();
	}
	for (size_t i = 0; i < COUNT(t); i++) {
		unsigned fds = open_fds();
		int fd = 77;

		send_many(t[i].len, t[i].n);
		assert_int_equal(msg_recv(sv[1], c, sizeof c, t[i].take ? &fd : NULL, 1000), t[i].want);
		assert_true(t[i].want == 0 || errno == t[i].error);
		assert_int_equal(open_fds(), fds);
	}
}

static void
on_signal(int sig)
{
	(void)sig;
}

static void
test_waiting(void **state)
{
	struct sigaction sa = { .sa_handler = on_signal };
	struct itimerval timer = { .it_value = { .tv_usec = 20000 } };
	int64_t start = mono_ms();
	char c;

	(void)state;
	assert_int_equal(msg_recv(sv[1], &c, 1, NULL, 0), -1);
	assert_int_equal(errno, ETIMEDOUT);
	assert_int_equal(msg_recv(sv[1], &c, 1, NULL, 30), -1);
	assert_int_equal(errno, ETIMEDOUT);
	assert_in_range(mono_ms() - start, 29, 5000);
	/* A signal ends the wait, so that the caller can look at its flags. */
	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
	assert_int_equal(msg_recv(sv[1], &c, 1, NULL, 5000), -1);
	assert_int_equal(errno, EINTR);
}

static void
test_end(void **state)
{
	char c;

	(void)state;
	assert_int_equal(msg_send(sv[0], "x", 1, -1), 0);
	close(sv[0]);
	assert_int_equal(msg_recv(sv[1], &c, 1, NULL, 1000), 1);
	assert_int_equal(msg_recv(sv[1], &c, 1, NULL, 1000), 0);
	assert_int_equal(msg_recv(sv[1], &c, 1, NULL, -1), 0);
	/* No SIGPIPE. */
	assert_int_equal(msg_send(sv[1], "x", 1, -1), -1);
	assert_int_equal(errno, EPIPE);
	close(sv[1]);
	assert_int_equal(msg_recv(sv[1], &c, 1, NULL, -1), -1);
	assert_int_equal(errno, EBADF);
}

static int
setup(void **state)
{
	(void)state;
	return msg_pair(sv);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pair),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_descriptor),
		cmocka_unit_test(test_unwanted_descriptors),
		cmocka_unit_test(test_waiting),
		cmocka_unit_test(test_end),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
