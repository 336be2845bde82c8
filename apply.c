/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * `mailstile apply`: the server reads its control files again, and is asked whether it came up with them; if not, it gets the kept set
 * back. Who listens on the control socket is the server: the kernel says by what process id. Without a server the files are only checked.
 */
#include "settings.h"

#if SETTINGS

#include "control.h"
#include "ctl.h"
#include "options.h"
#include "str.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define APPLY_SECONDS 5

static struct ctl_status status;

static void
nap(void)
{
	const struct timespec t = { .tv_nsec = 200000000 };

	nanosleep(&t, NULL);
}

/* Does the server answer, and is it as `c` says? */
static int
came_up(const char *path, const struct config *c)
{
	int fd = ctl_connect(path);
	int ok = fd != -1 && ctl_query(fd, CTL_STATUS, 0, &status, sizeof status) == 0;

	if (fd != -1) {
		close(fd);
	}
	if (!ok || strncmp(status.me, c->me, sizeof status.me) != 0 || status.listeners != c->listeners ||
	    status.radius != c->radius.servers) {
		return 0;
	}
	for (unsigned i = 0; i < status.listeners && i < LISTENERS_MAX; i++) {
		const char *where = status.listener[i].where;
		const char *port = memrchr(where, ':', strnlen(where, sizeof status.listener[i].where));
		char want[16];

		status.listener[i].where[sizeof status.listener[i].where - 1] = '\0';
		str_fmt(want, sizeof want, ":%u", c->listen[i].port);
		if (!status.listener[i].heard || port == NULL || strcmp(port, want) != 0) {
			return 0;
		}
	}
	return 1;
}

/* SIGHUP, and wait until it has done its work. 0 or -1. */
static int
tell_server(const char *path, pid_t pid, const struct config *c)
{
	const int64_t end = mono_ms() + APPLY_SECONDS * 1000;

	if (kill(pid, SIGHUP) == -1) {
		return -1;
	}
	do {
		nap();
		if (came_up(path, c)) {
			return 0;
		}
	} while (mono_ms() < end);
	return -1;
}

/* The server behind the socket. 0: there is none. -1: not known, or of another home, which is told. */
static pid_t
server_of(const char *path, const char *home)
{
	struct ucred who;
	socklen_t len = sizeof who;
	int fd = ctl_connect(path);
	pid_t pid = -1;

	/* At the usual place there may be one that is root's; that is not the one of a home elsewhere. */
	if (fd == -1 &&
	    (errno == ENOENT || errno == ECONNREFUSED ||
		(errno == EACCES && strcmp(path, CTL_SOCKET) == 0 && strcmp(ctl_where(home, 0), CTL_SOCKET) != 0))) {
		return 0;
	}
	if (fd != -1) {
		errno = ESRCH; /* for a process that cannot be named from here */
	}
	if (fd == -1 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) == -1 || who.pid < 2) {
		print(STDERR_FILENO, "mailstile: %s: %s\n", path, strerror(errno));
	} else if (ctl_query(fd, CTL_STATUS, 0, &status, sizeof status) == -1) {
		print(STDERR_FILENO, "mailstile: %s: no answer, or from another version: restart the server\n", path);
	} else {
		status.home[sizeof status.home - 1] = '\0';
		if (ctl_is_home(home, status.home)) {
			pid = who.pid;
		} else if (strcmp(path, CTL_SOCKET) == 0) {
			pid = 0; /* where any server may be: not ours */
		} else {
			print(STDERR_FILENO,
			    "mailstile: the server at %s is that of %s, and nothing is applied: -S names the socket of another one\n",
			    path, status.home);
		}
	}
	if (fd != -1) {
		close(fd);
	}
	return pid;
}

static int
back(const struct settings_home *h, pid_t pid)
{
	int n = settings_restore(h);

	if (n == -1) {
		print(STDERR_FILENO, "mailstile: the kept files could not be put back: %s\n", strerror(errno));
		return 111;
	}
	(void)kill(pid, SIGHUP);
	print(STDERR_FILENO,
	    "mailstile: the server did not come up with this; %d file%s put back as before. Its log says why\n", n,
	    n == 1 ? " was" : "s were");
	return 1;
}

static int
apply(const struct settings_home *h, const char *path)
{
	struct diag d = { .emit = diag_to_stdout };
	struct config *c = config_load(h->home, &d);
	pid_t pid;
	int rc;

	if (c == NULL || d.errors > 0) {
		print(STDERR_FILENO, "mailstile: nothing is applied until this is mended\n");
		config_free(c);
		return 1;
	}
	pid = server_of(path, h->home);
	if (pid == -1) {
		rc = 111;
	} else if (pid == 0) {
		print(STDOUT_FILENO, "no server runs; its next start will use this\n");
		rc = settings_settle(h) == -1 ? 111 : 0;
	} else if (tell_server(path, pid, c) == -1) {
		rc = back(h, pid);
	} else {
		print(STDOUT_FILENO, "the server uses this now\n");
		rc = settings_settle(h) == -1 ? 111 : 0;
	}
	config_free(c);
	return rc;
}

int
apply_main(int argc, char **argv)
{
	struct settings_home h;
	const char *home = NULL, *path = NULL;
	struct options o;
	int opt, rc;

	(void)argc;
	options_begin(&o, argv);
	while ((opt = options_next(&o, "H:S:")) != 0 && opt != '?') {
		home = opt == 'H' ? o.value : home;
		path = opt == 'S' ? o.value : path;
	}
	if (opt != 0 || *o.word != NULL) {
		print(STDERR_FILENO, "usage: mailstile apply [-H home] [-S socket]\n");
		return 100;
	}
	if (settings_open(&h, home) == -1) {
		return 111;
	}
	rc = apply(&h, path == NULL ? ctl_where(home, 1) : path);
	settings_close(&h);
	return rc;
}

#endif
