/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* The control socket, a tool's side. */
#include "ctl.h"

#include "msg.h"
#include "str.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#if TOOLS

#define ANSWER_SECONDS 30 /* the scheduler may have much to do */

const char *
ctl_where(const char *home, int there)
{
	static const char usual[] = HOME_DIR;
	static char path[300];
	const size_t n = sizeof usual - 1;

	if (home == NULL || (strncmp(home, usual, n) == 0 && home[n + strspn(home + n, "/")] == '\0')) {
		return CTL_SOCKET;
	}
	str_fmt(path, sizeof path, "%s/mailstile.sock", home);
	return there && access(path, F_OK) == -1 && errno == ENOENT ? CTL_SOCKET : path;
}

int
ctl_is_home(const char *home, const char *theirs)
{
	struct stat a, b;

	return theirs[0] != '/' ||
	    (stat(home, &a) == 0 && stat(theirs, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino);
}

int
ctl_connect(const char *path)
{
	const struct timeval tv = { .tv_sec = ANSWER_SECONDS };
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd;

	errno = ENAMETOOLONG;
	if (str_copy(a.sun_path, sizeof a.sun_path, path) == -1) {
		return -1;
	}
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd != -1 &&
	    (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv) == -1 ||
		connect(fd, (const struct sockaddr *)&a, sizeof a) == -1)) {
		close(fd);
		return -1;
	}
	return fd;
}

int
ctl_query(int fd, enum ctl_type type, uint64_t arg, void *answer, size_t size)
{
	const struct ctl_ask ask = { .magic = CTL_MAGIC, .type = type, .arg = arg };
	long n;

	if (msg_send(fd, &ask, sizeof ask, -1) == -1) {
		return -1;
	}
	n = msg_recv(fd, answer, size, NULL, -1);
	/* What else than "no" is said in short: its first member is the same. */
	return n == (long)size || (n == (long)sizeof(struct ctl_answer) && *(const uint32_t *)answer != CTL_DONE) ? 0
														  : -1;
}

#endif
