/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* The keeper as main sees it, and as those who want something of it do. */
#include "keeper.h"

#if KEEPER

#include "acct.h"
#include "clerk.h"
#include "log.h"
#include "msg.h"
#include "secret.h"
#include "str.h"
#include "tlscheck.h"
#include "users.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static struct clerk clerk = { .name = "stile-radius", .event = "radius" };
static int door[2] = { -1, -1 };

static int
wanted(const struct house *h)
{
	const struct radius_conf *rc = &h->config->radius;

	for (unsigned i = 0; i < rc->servers; i++) {
		if (rc->server[i].tls != TLS_NONE || rc->server[i].status) {
			return 1;
		}
	}
	return 0;
}

void
keeper_open(const struct house *h)
{
	if (!wanted(h) || door[0] != -1) {
		return;
	}
	if (msg_pair(door) == -1) {
		door[0] = door[1] = -1;
		log_msg(LOG_ERR, "limit", "no way to the process that keeps connections to RADIUS servers: %s",
		    strerror(errno));
		return;
	}
	/* Nobody waits for room in it. */
	(void)fcntl(door[0], F_SETFL, O_NONBLOCK);
	(void)fcntl(door[1], F_SETFL, O_NONBLOCK);
}

void
keeper_adopt(const int d[2])
{
	for (int i = 0; i < 2; i++) {
		door[i] = d[i];
		(void)fcntl(d[i], F_SETFD, FD_CLOEXEC);
	}
}

const int *
keeper_door(void)
{
	return door;
}

void
keeper_close(void)
{
	for (int i = 0; i < 2; i++) {
		if (door[i] != -1) {
			close(door[i]);
		}
		door[i] = -1;
	}
}

void
keeper_init(void)
{
	clerk.wanted = 1;
}

void
keeper_renew(void)
{
	clerk_renew(&clerk);
}

void
keeper_stop(void)
{
	clerk_stop(&clerk, SIGTERM);
}

int64_t
keeper_due(void)
{
	return clerk_due(&clerk);
}

int
keeper_died(pid_t pid, int status)
{
	return clerk_died(&clerk, pid, status);
}

void
keeper_tend(const struct house *h)
{
	if (clerk_start(&clerk, door[0] != -1 && wanted(h)) == 0) {
		close(door[0]);
		acct_close();
		secret_keep_radius(h->config->secrets, 1);
		clerk_place(h, &clerk, PRIV_KEEPER, door[1]);
		keeper_run(h, door[1], 0);
	}
}

#if RADSEC

void
keeper_alone(const struct house *h)
{
	const struct radius_conf *rc = &h->config->radius;
	const int places[] = { h->jail, h->spool_dir, h->null };
	pid_t parent = getpid();
	unsigned tls = 0;

	for (unsigned i = 0; i < rc->servers; i++) {
		tls += rc->server[i].tls != TLS_NONE;
	}
	if (tls == 0) {
		return;
	}
	keeper_open(h);
	clerk.pid = door[0] == -1 ? -1 : fork();
	if (clerk.pid == 0) {
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);

		/* Whoever waits for the end of what these are need not wait for ours. */
		dup2(null, 0);
		dup2(null, 1);
		close(null);
		close(door[0]);
		acct_close();
		users_close();
		log_keep(NULL);
		secret_keep_radius(h->config->secrets, 1);
		priv_drop(&h->ids, PRIV_KEEPER, h->jail);
		/* A directory that is open leads out of the jail. */
		for (unsigned i = 0; i < sizeof places / sizeof places[0]; i++) {
			if (places[i] != -1) {
				close(places[i]);
			}
		}
		prctl(PR_SET_NAME, clerk.name, 0, 0, 0);
		prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
		if (getppid() != parent) {
			_exit(0);
		}
		priv_filter(PRIV_KEEPER);
		keeper_run(h, door[1], 1);
	}
	if (clerk.pid == -1) {
		clerk.pid = 0;
		keeper_close();
		return;
	}
	close(door[1]);
	door[1] = -1;
}

void
keeper_end(void)
{
	if (clerk.pid != 0) {
		kill(clerk.pid, SIGKILL);
		waitpid(clerk.pid, NULL, 0);
		clerk.pid = 0;
	}
	keeper_close();
}

#endif

/* ---- those who ask ---- */

#if RADSEC

uint64_t
keeper_name(const struct radius_server *server)
{
	uint64_t h = fnv1a(server->name, strlen(server->name));

	return h ^ fnv1a(&server->port, sizeof server->port);
}

int
keeper_channel(const struct radius_server *server)
{
	struct keeper_ask ask = { .server = keeper_name(server) };
	int sv[2];
	int rc;

	if (door[0] == -1 || msg_pair(sv) == -1) {
		return -1;
	}
	rc = msg_send(door[0], &ask, sizeof ask, sv[1]);
	close(sv[1]);
	if (rc == -1) {
		close(sv[0]);
		return -1;
	}
	return sv[0];
}

int
keeper_note(const uint8_t *p, size_t n, struct radius_answer *a)
{
	struct keeper_note note = { .trouble = RADIUS_NO_KEEPER };

	if (n >= 20) {
		return 0;
	}
	if (n == sizeof note) {
		memcpy(&note, p, sizeof note);
	}
	a->trouble = note.trouble > RADIUS_OK && note.trouble < RADIUS_NO_SERVERS ? (enum radius_trouble)note.trouble
										  : RADIUS_NO_KEEPER;
	a->error = note.error;
	return 1;
}

const char *
keeper_tls_text(int error)
{
	return tlscheck_text(error);
}

#endif
#endif
