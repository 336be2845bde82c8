/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The floor of `make bench`: what accepting mail durably costs on this machine when nothing else is done. A process forked for each
 * connection reads commands without judging them, writes the message with LF line ends, then the envelope, and answers when both and
 * their directory entries are on the disk:
 *
 *   mess/N and intd/N written; fsync of mess/N, mess/ and intd/N; link to todo/N; fsync of todo/
 *   -1: both pushed out and waited for; link; fsync of intd/N. Enough on ext4 with a journal and on XFS; see the head of queue.c.
 *
 * It checks nothing, logs nothing, limits nothing, drops no privilege: not for use.
 *
 *   floor [-1] PORT DIRECTORY      DIRECTORY has mess, intd and todo
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static char in[32768];
static size_t in_len;
static char envelope[4096];
static size_t envelope_len;
static int one_flush, mess_dir, todo_dir;
static unsigned serial;

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

static void
say(const char *text)
{
	if (put(1, text, strlen(text)) == -1) {
		_exit(1);
	}
}

static void
more(void)
{
	ssize_t n = in_len == sizeof in ? -1 : read(0, in + in_len, sizeof in - in_len);

	if (n <= 0) {
		_exit(1);
	}
	in_len += (size_t)n;
}

static void
taken(size_t n)
{
	in_len -= n;
	memmove(in, in + n, in_len);
}

/* Copy the message to `fd` as it comes, a buffer at a time, up to the line with a dot alone. */
static int
copy_message(int fd)
{
	static char out[sizeof in];

	for (;;) {
		size_t n = 0;
		char *p = in, *end = in + in_len, *lf;
		int done = 0;

		while ((lf = memchr(p, '\n', (size_t)(end - p))) != NULL) {
			size_t len = (size_t)(lf - p);

			if (len > 0 && lf[-1] == '\r') {
				len--;
			}
			if (len == 1 && *p == '.') {
				done = 1;
				p = lf + 1;
				break;
			}
			if (len > 0 && *p == '.') {
				p++;
				len--;
			}
			memcpy(out + n, p, len);
			out[n + len] = '\n';
			n += len + 1;
			p = lf + 1;
		}
		if (n > 0 && put(fd, out, n) == -1) {
			return -1;
		}
		taken((size_t)(p - in));
		if (done) {
			return 0;
		}
		more();
	}
}

static int
push(int fd)
{
	return sync_file_range(
	    fd, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
}

/* Make both files and their names durable. */
static int
commit(int mess, int intd, const char *from, const char *to)
{
	if (one_flush) {
		return push(mess) == -1 || push(intd) == -1 || link(from, to) == -1 || fsync(intd) == -1 ? -1 : 0;
	}
	return fsync(mess) == -1 || fsync(mess_dir) == -1 || fsync(intd) == -1 || link(from, to) == -1 ||
		fsync(todo_dir) == -1
	    ? -1
	    : 0;
}

static void
message(void)
{
	char mess[64], intd[64], todo[64];
	int m, i;

	snprintf(mess, sizeof mess, "mess/%d.%u", (int)getpid(), serial);
	snprintf(intd, sizeof intd, "intd/%d.%u", (int)getpid(), serial);
	snprintf(todo, sizeof todo, "todo/%d.%u", (int)getpid(), serial++);
	m = open(mess, O_WRONLY | O_CREAT | O_EXCL, 0644);
	say("354 go ahead\r\n");
	if (m == -1 || copy_message(m) == -1) {
		_exit(1);
	}
	i = open(intd, O_WRONLY | O_CREAT | O_EXCL, 0644);
	if (i == -1 || put(i, envelope, envelope_len) == -1 || commit(m, i, intd, todo) == -1 || close(i) == -1 ||
	    close(m) == -1) {
		_exit(1);
	}
	say("250 ok\r\n");
}

static void
keep(char letter, const char *line)
{
	const char *from = strchr(line, '<');
	const char *to = from == NULL ? NULL : strchr(from, '>');

	if (to == NULL || envelope_len + (size_t)(to - from) + 2 > sizeof envelope) {
		_exit(1);
	}
	envelope[envelope_len++] = letter;
	memcpy(envelope + envelope_len, from + 1, (size_t)(to - from) - 1);
	envelope_len += (size_t)(to - from) - 1;
	envelope[envelope_len++] = '\0';
}

static void
command(const char *line)
{
	if (strncasecmp(line, "MAIL", 4) == 0) {
		envelope_len = 0;
		keep('F', line);
	} else if (strncasecmp(line, "RCPT", 4) == 0) {
		keep('T', line);
	} else if (strncasecmp(line, "DATA", 4) == 0) {
		message();
		return;
	} else if (strncasecmp(line, "EHLO", 4) == 0) {
		say("250-floor\r\n250 PIPELINING\r\n");
		return;
	} else if (strncasecmp(line, "QUIT", 4) == 0) {
		say("221 bye\r\n");
		_exit(0);
	}
	say("250 ok\r\n");
}

static void
serve(void)
{
	char line[1024];

	say("220 floor\r\n");
	for (;;) {
		char *lf;
		size_t n;

		while ((lf = memchr(in, '\n', in_len)) == NULL) {
			more();
		}
		n = (size_t)(lf + 1 - in);
		if (n >= sizeof line) {
			_exit(1);
		}
		memcpy(line, in, n);
		line[n] = '\0';
		taken(n);
		command(line);
	}
}

static void
reap(int sig)
{
	(void)sig;
	while (waitpid(-1, NULL, WNOHANG) > 0) {
	}
}

int
main(int argc, char **argv)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	struct sigaction sa = { .sa_handler = reap, .sa_flags = SA_RESTART };
	int s = socket(AF_INET, SOCK_STREAM, 0);
	int one = 1;

	if (argc > 1 && strcmp(argv[1], "-1") == 0) {
		one_flush = 1;
		argc--;
		argv++;
	}
	if (argc != 3 || chdir(argv[2]) == -1) {
		return 100;
	}
	a.sin_port = htons((uint16_t)atoi(argv[1]));
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	mess_dir = open("mess", O_RDONLY | O_DIRECTORY);
	todo_dir = open("todo", O_RDONLY | O_DIRECTORY);
	sigaction(SIGCHLD, &sa, NULL);
	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (mess_dir == -1 || todo_dir == -1 || bind(s, (struct sockaddr *)&a, sizeof a) == -1 ||
	    listen(s, 128) == -1) {
		perror("floor");
		return 111;
	}
	for (;;) {
		int fd = accept(s, NULL, NULL);

		if (fd == -1) {
			continue;
		}
		if (fork() == 0) {
			setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
			dup2(fd, 0);
			dup2(fd, 1);
			close(fd);
			close(s);
			serve();
		}
		close(fd);
	}
}
