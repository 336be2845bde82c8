/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * main: how it stops, in favour of a fresh image of itself, or for good. The first leaves sessions alone, and hands listeners, the shared map and the
 * keeper's door over as descriptors that stay open, whose numbers are in the environment: MAP[;DOOR;DOOR][,LISTENER]... The second closes the
 * listeners, waits for sessions and deliveries, and has the accounting that is left sent.
 */
#include "accountant.h"
#include "carry.h"
#include "ctl.h"
#include "keeper.h"
#include "log.h"
#include "nursery.h"
#include "serverint.h"
#include "slots.h"
#include "str.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define REEXEC_ENV "MAILSTILE_REEXEC"

/* ---- in favour of a fresh image ---- */

/* Our environment with `own` in place of what was there by its name. The caller's to free; NULL without memory. */
static char **
environment(char *own)
{
	size_t n = 0, kept = 0;
	char **env;

	while (environ[n] != NULL) {
		n++;
	}
	env = calloc(n + 2, sizeof *env);
	for (size_t i = 0; env != NULL && i < n; i++) {
		if (strncmp(environ[i], REEXEC_ENV "=", sizeof REEXEC_ENV) != 0) {
			env[kept++] = environ[i];
		}
	}
	if (env != NULL) {
		env[kept] = own;
	}
	return env;
}

/*
 * Children are forks and share our memory layout and stack canary; after a crash, which may have been a probe, get fresh ones. Sessions
 * go on: they stay our children, and the shared map comes along. Not when the control files could not be loaded again, since a server
 * that runs is better than one that does not.
 */
void
server_reexec(void)
{
	char mem[32 + 12 * (LISTEN_SOCKETS_MAX + 2)];
	char **argv = calloc((size_t)server.argc + 2, sizeof *argv);
	char **env = environment(mem);
	struct diag d = { .emit = diag_to_nobody };
	struct config *c = config_load(server.home, &d);
	struct buf b;

	server.crashed = 0;
	server.reexec_after = mono_ms() + REEXEC_SECONDS * INT64_C(1000);
	if (argv == NULL || env == NULL || c == NULL) {
		log_msg(LOG_ERR, "reexec", "put off: the control files would not load");
		config_free(c);
		free(argv);
		free(env);
		return;
	}
	config_free(c);
	log_msg(LOG_WARNING, "reexec", "a child crashed: starting over with a fresh memory layout");
	buf_init(&b, mem, sizeof mem);
	buf_fmt(&b, REEXEC_ENV "=%d", share_fd());
	fcntl(share_fd(), F_SETFD, 0);
#if KEEPER
	for (int i = 0; i < 2 && keeper_door()[i] != -1; i++) {
		buf_fmt(&b, ";%d", keeper_door()[i]);
		fcntl(keeper_door()[i], F_SETFD, 0);
	}
#endif
	for (unsigned i = 0; i < server.listeners.n; i++) {
		buf_fmt(&b, ",%d", server.listeners.l[i].fd);
		fcntl(server.listeners.l[i].fd, F_SETFD, 0);
	}
	buf_cstr(&b);
	argv[0] = (char *)(uintptr_t) "mailstile";
	argv[1] = (char *)(uintptr_t) "serve";
	for (int i = 1; i < server.argc; i++) {
		argv[i + 1] = server.argv[i];
	}
	nursery_stop();
	ctl_close();
	accountant_stop(0);
	keeper_stop();
	carry_stop(); /* it finishes what it is at; the new image's waits for that */
	/* Signals stay blocked: those that come meanwhile wait for the new image's server_set_signals(). */
	execve("/proc/self/exe", argv, env);
	/* Still here: go on as we are. */
	log_msg(LOG_ERR, "reexec", "execve: %s", strerror(errno));
	server_set_signals();
	server_open_control();
	carry_renew();
	accountant_init(0);
	keeper_init();
	fcntl(share_fd(), F_SETFD, FD_CLOEXEC);
#if KEEPER
	keeper_adopt(keeper_door());
#endif
	for (unsigned i = 0; i < server.listeners.n; i++) {
		fcntl(server.listeners.l[i].fd, F_SETFD, FD_CLOEXEC);
	}
	free(argv);
	free(env);
}

int
server_inherited(void)
{
	const char *s = getenv(REEXEC_ENV);
	int share = -1, doors = 0;
	int door[2] = { -1, -1 };

	for (int n = 0; s != NULL && *s != '\0'; n++) {
		size_t len = strspn(s, "0123456789");
		uint64_t fd;

		if (parse_u64(s, len, 65535, &fd) == -1 || fd < 3) {
			break;
		}
		if (n == 0) {
			share = (int)fd;
		} else if (s[-1] == ';' && doors < 2) {
			door[doors++] = (int)fd;
		} else {
			listen_adopt(&server.listeners, (int)fd);
		}
		s += len + (s[len] == ',' || s[len] == ';');
	}
#if KEEPER
	if (doors == 2) {
		keeper_adopt(door);
	}
#else
	(void)door;
#endif
	return share;
}

/* ---- the end ---- */

/* With all sessions ended, their last records go out. */
static void
end_accounting(void)
{
	int64_t deadline = mono_ms() + (ACCOUNTING ? ACCT_FINISH_SECONDS + 1 : 0) * INT64_C(1000);

	accountant_stop(1);
	while (accountant_running() && mono_ms() < deadline) {
		static const sigset_t none;
		struct timespec ts = { .tv_nsec = 50 * 1000000L };

		ppoll(NULL, 0, &ts, &none);
		server_reap();
	}
}

void
server_drain(void)
{
	int64_t deadline = mono_ms() + DRAIN_SECONDS * INT64_C(1000);
	unsigned left;

	listen_close(&server.listeners);
	ctl_close();
	nursery_stop();
	carry_stop();
	slots_drain();
	while (((left = slots_running()) > 0 || carry_running()) && mono_ms() < deadline + 3000) {
		static const sigset_t none;
		struct timespec ts = { .tv_nsec = 200 * 1000000L };

		if (mono_ms() >= deadline) {
			slots_kill(INT64_MAX, mono_ms() < deadline + 2000 ? SIGTERM : SIGKILL);
			carry_kill();
		}
		ppoll(NULL, 0, &ts, &none);
		server_reap();
	}
	end_accounting();
	keeper_stop();
	if (server.pidfile != NULL) {
		unlink(server.pidfile);
	}
	log_msg(LOG_INFO, "stop", "%u sessions were still running", left);
}
