/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * An SMTP load generator for `make bench`: plain SMTP to a loopback address, blocking, one process per session, bounded by a count.
 *
 *   load PORT SESSIONS MESSAGES PER_CONNECTION OCTETS RCPT
 *
 * Sends MESSAGES in all over SESSIONS processes, PER_CONNECTION to a connection, of OCTETS each. Commands are pipelined as far as
 * RFC 2920 allows. Prints `messages seconds`. Exit 1 when a message was not answered 250.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char in[4096];
static size_t in_len;

/* Read one reply, all its lines; its code, or -1. */
static int
reply(int fd)
{
	for (;;) {
		char *lf = memchr(in, '\n', in_len);

		if (lf != NULL) {
			int code = atoi(in);
			int last = in[3] == ' ';

			in_len -= (size_t)(lf + 1 - in);
			memmove(in, lf + 1, in_len);
			if (last) {
				return code;
			}
			continue;
		}
		ssize_t n = in_len == sizeof in ? -1 : read(fd, in + in_len, sizeof in - in_len);

		if (n <= 0) {
			return -1;
		}
		in_len += (size_t)n;
	}
}

static int
put(int fd, const char *p, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, p, len);

		if (n <= 0) {
			return -1;
		}
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

/* Each session comes from a loopback address of its own, as customers do; one address may not open that many. */
static int
connect_to(int port, long i)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	struct sockaddr_in from = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	from.sin_addr.s_addr = htonl(0x7f000101 + (uint32_t)(i % 250));
	in_len = 0;
	if (fd == -1 || bind(fd, (struct sockaddr *)&from, sizeof from) == -1 ||
	    connect(fd, (struct sockaddr *)&a, sizeof a) == -1 || reply(fd) != 220 ||
	    put(fd, "EHLO bench.example\r\n", 20) == -1 || reply(fd) != 250) {
		return -1;
	}
	return fd;
}

static int
one_message(int fd, const char *envelope, const char *text, size_t len)
{
	if (put(fd, envelope, strlen(envelope)) == -1 || reply(fd) != 250 || reply(fd) != 250 || reply(fd) != 354) {
		return -1;
	}
	return put(fd, text, len) == -1 || reply(fd) != 250 ? -1 : 0;
}

static int
session(int port, long i, long messages, long per, const char *envelope, const char *text, size_t len)
{
	while (messages > 0) {
		int fd = connect_to(port, i);

		for (long n = 0; fd != -1 && n < per && messages > 0; n++, messages--) {
			if (one_message(fd, envelope, text, len) == -1) {
				return 1;
			}
		}
		if (fd == -1 || put(fd, "QUIT\r\n", 6) == -1 || reply(fd) != 221) {
			return 1;
		}
		close(fd);
	}
	return 0;
}

static char *
make_text(size_t octets, size_t *len)
{
	static const char head[] = "From: bench <a@bench.example>\r\nTo: b@bench.example\r\nSubject: bench\r\n"
				   "Date: Sun, 22 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@bench.example>\r\n\r\n";
	char *t = malloc(octets + sizeof head + 80);
	size_t n = sizeof head - 1;

	if (t == NULL) {
		exit(1);
	}
	memcpy(t, head, n);
	while (n < octets) {
		memset(t + n, 'x', 70);
		memcpy(t + n + 70, "\r\n", 2);
		n += 72;
	}
	memcpy(t + n, ".\r\n", 3);
	*len = n + 3;
	return t;
}

int
main(int argc, char **argv)
{
	struct timespec a, b;
	char envelope[512];
	size_t len;
	int bad = 0, status;

	if (argc != 7) {
		fprintf(stderr, "usage: load PORT SESSIONS MESSAGES PER_CONNECTION OCTETS RCPT\n");
		return 100;
	}
	int port = atoi(argv[1]);
	long sessions = atol(argv[2]), messages = atol(argv[3]), per = atol(argv[4]);
	char *text = make_text((size_t)atol(argv[5]), &len);

	snprintf(envelope, sizeof envelope, "MAIL FROM:<a@bench.example>\r\nRCPT TO:<%s>\r\nDATA\r\n", argv[6]);
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (long i = 0; i < sessions; i++) {
		if (fork() == 0) {
			_exit(session(
			    port, i, messages / sessions + (i < messages % sessions), per, envelope, text, len));
		}
	}
	while (wait(&status) != -1) {
		bad += status != 0;
	}
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("%ld %.3f\n", messages, (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9);
	free(text);
	return bad > 0;
}
