/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The syslogd of `make bench`: takes datagrams at PATH and writes them to FILE, a line each, until it is ended; FILE starts over when it
 * gets large. All servers log to it, so that none is measured with its log turned off. Its queue is as long as systemd makes it; the kernel's own ten are soon full.
 *
 *   sink PATH FILE
 */
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define FILE_MAX (64 << 20)

/* The limit belongs to a network namespace, so it is changed in one of our own. Without the right to do so the queue stays short. */
static void
longer_queue(void)
{
	int fd = unshare(CLONE_NEWNET) == -1 ? -1 : open("/proc/sys/net/unix/max_dgram_qlen", O_WRONLY);

	if (fd == -1 || write(fd, "512\n", 4) != 4) {
		fprintf(stderr, "sink: the queue of log lines stays short\n");
	}
	close(fd);
}

int
main(int argc, char **argv)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	static char line[65536];
	size_t written = 0;
	int s, out;

	if (argc != 3 || strlen(argv[1]) >= sizeof a.sun_path) {
		return 100;
	}
	strcpy(a.sun_path, argv[1]);
	longer_queue();
	out = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600);
	s = socket(AF_UNIX, SOCK_DGRAM, 0);
	unlink(argv[1]);
	if (out == -1 || bind(s, (struct sockaddr *)&a, sizeof a) == -1 || chmod(argv[1], 0666) == -1) {
		perror("sink");
		return 111;
	}
	for (;;) {
		ssize_t n = recv(s, line, sizeof line - 1, 0);

		if (n > 0) {
			line[n] = '\n';
			written += (size_t)n + 1;
			if (written > FILE_MAX && ftruncate(out, 0) == 0) {
				written = 0;
			}
			if (write(out, line, (size_t)n + 1) == -1) {
				perror("sink");
			}
		}
	}
}
