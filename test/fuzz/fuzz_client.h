/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* A client for targets that include smtp.c. Its session ends with _exit(), which such targets replace (-Wl,--wrap=_exit). */
#ifndef MAILSTILE_TEST_FUZZ_CLIENT_H
#define MAILSTILE_TEST_FUZZ_CLIENT_H

#include <setjmp.h>
#include <sys/mman.h>
#include <sys/socket.h>

_Noreturn void __wrap__exit(int status);
int __wrap_msg_send(int sock, const void *m, size_t len, int fd);
int __real_msg_send(int sock, const void *m, size_t len, int fd);
long __wrap_msg_recv(int sock, void *m, size_t cap, int *fd, int timeout);

static jmp_buf fuzz_ended;

_Noreturn void
__wrap__exit(int status)
{
	CHECK(status == 0);
	longjmp(fuzz_ended, 1);
}

/* Every line sent is a reply: three digits, a hyphen or blank, printable text, CRLF. */
static void
fuzz_check_replies(int fd)
{
	static char mem[1 << 16];
	ssize_t n = pread(fd, mem, sizeof mem, 0);
	const char *end = mem + n;

	CHECK(n >= 0);
	for (char *p = mem, *lf; p < end && (lf = memchr(p, '\n', (size_t)(end - p))) != NULL; p = lf + 1) {
		CHECK(lf - p > 4 && lf - p < 512 && lf[-1] == '\r' && (p[3] == ' ' || p[3] == '-'));
		CHECK(p[0] >= '2' && p[0] <= '5' && ascii_isdigit(p[1]) && ascii_isdigit(p[2]));
		for (; p < lf - 1; p++) {
			CHECK(*p >= 32 && *p < 127);
		}
	}
}

/* One session. The client sends the input in packets, each up to an octet 255, without waiting, and reads its replies later. */
static void
fuzz_client(const struct smtp_info *info, int warden_sock, struct input *in)
{
	static struct conn conn;
	static int replies = -1;
	int sv[2];

	CHECK(replies != -1 || (replies = memfd_create("replies", 0)) != -1);
	CHECK(ftruncate(replies, 0) == 0 && lseek(replies, 0, SEEK_SET) == 0);
	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) == 0);
	while (in->len > 0) {
		struct input packet = take_packet(in);

		/* What does not fit into the socket is not sent. */
		if (packet.len > 0 && send(sv[1], packet.p, packet.len, MSG_DONTWAIT | MSG_NOSIGNAL) == -1) {
			break;
		}
	}
	close(sv[1]);
	memset(&session, 0, sizeof session);
	conn.chain = NULL; /* a fresh engine */
	conn_init(&conn, sv[0], replies, 0);
	smtp_prepare(info, &conn, &(const struct cert_chain){ 0 }, warden_sock);
	if (setjmp(fuzz_ended) == 0) {
		smtp_run();
	}
	if (session.file != -1) {
		close(session.file);
	}
	close(sv[0]);
	if (!conn.tls) {
		fuzz_check_replies(replies);
	}
}

#endif
