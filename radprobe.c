/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Silent servers with the word `status` in radius.conf are sent a Status-Server packet (RFC 5997) every few seconds, and count as silent until they
 * answer one: so no customer has to try whether such a server is back. The keeper's process.
 */
#include "keeper.h"

#if KEEPER

#include "control.h"
#include "log.h"
#include "radseal.h"
#include "share.h"
#include "str.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#if STATUS_SERVER

#define LOOK_MS 1000 /* nobody says when a server has become silent */

static struct probe {
	int fd; /* 0 = none */
	int64_t sent, next;
	uint8_t request[RADSEAL_STATUS_MAX];
} probes[RADIUS_SERVERS_MAX];

static void
stop(struct probe *b, int64_t next)
{
	close(b->fd);
	b->fd = 0;
	b->next = next;
}

static void
start(const struct house *h, unsigned i, const struct addr *a, int64_t now)
{
	struct probe *b = &probes[i];
	struct sockaddr_storage ss;
	socklen_t len = addr_to_sockaddr(a, h->config->radius.server[i].port, &ss);
	int fd = socket(ss.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	uint8_t id;
	size_t n;

	b->next = now + STATUS_SECONDS * INT64_C(1000);
	if (fd == -1) {
		return;
	}
	b->fd = fd;
	b->sent = now;
	random_bytes(&id, sizeof id);
	n = radseal_status(b->request, id, h->config->me, h->config->secrets->radius[i]);
	if (connect(fd, (const struct sockaddr *)&ss, len) == -1 || send(fd, b->request, n, MSG_NOSIGNAL) == -1) {
		stop(b, b->next);
	}
}

static void
is_back(const struct house *h, unsigned i)
{
	struct share_radius *r = &h->share->radius[i];
	struct log_line l;

	share_lock(SHARE_RADIUS);
	if (h->share->radius_generation == h->radius_generation) {
		r->dead_until = 0;
		r->answered = mono_ms();
	}
	share_unlock(SHARE_RADIUS);
	log_begin(&l, LOG_NOTICE, "radius");
	log_fmt(&l, "server", "%s:%u", h->config->radius.server[i].name, h->config->radius.server[i].port);
	log_text(&l, "msg", "answers again");
	log_end(&l);
}

/* Take what has come. 1: a good answer. */
static int
hear(const struct house *h, unsigned i)
{
	static uint8_t p[RADIUS_PACKET_MAX];
	struct probe *b = &probes[i];
	ssize_t n;

	for (int k = 0; k < 16 && ((n = recv(b->fd, p, sizeof p, 0)) >= 0 || errno == ECONNREFUSED); k++) {
		size_t len = n < 0 ? 0 : (size_t)n;

		/* Not all of them sign this one (RFC 5997 3); who can forge it gains that a silent server is asked. */
		if (radseal_check(p, &len, b->request, h->config->secrets->radius[i], 1) == RADIUS_OK) {
			return 1;
		}
	}
	return 0;
}

/* One server. When to look again. */
static int64_t
tend(const struct house *h, unsigned i, int64_t now)
{
	const struct radius_server *r = &h->config->radius.server[i];
	struct probe *b = &probes[i];
	struct addr a;
	int64_t dead_until;

	share_lock(SHARE_RADIUS);
	dead_until = h->share->radius_generation == h->radius_generation ? h->share->radius[i].dead_until : 0;
	share_unlock(SHARE_RADIUS);
	if (b->fd != 0 && hear(h, i)) {
		stop(b, now);
		is_back(h, i);
		return now + LOOK_MS;
	}
	if (b->fd != 0 && now - b->sent >= r->timeout * INT64_C(1000)) {
		stop(b, b->next);
		radius_mark(h->share, h->radius_generation, i, b->sent, 0); /* for one more term */
	}
	if (b->fd == 0 && dead_until > now && now >= b->next &&
	    radius_address(&h->config->radius, h->share, h->radius_generation, i, &a) == 0) {
		start(h, i, &a, now);
	}
	return b->fd != 0 ? b->sent + r->timeout * INT64_C(1000) : now + LOOK_MS;
}

int64_t
probe_tend(const struct house *h, int64_t now, int *fd, unsigned *n)
{
	const struct radius_conf *rc = &h->config->radius;
	int64_t due = INT64_MAX;

	for (unsigned i = 0; i < rc->servers; i++) {
		int64_t at = rc->server[i].status && rc->server[i].tls == TLS_NONE ? tend(h, i, now) : INT64_MAX;

		due = at < due ? at : due;
		if (probes[i].fd != 0) {
			fd[(*n)++] = probes[i].fd;
		}
	}
	return due;
}

#else

int64_t
probe_tend(const struct house *h, int64_t now, int *fd, unsigned *n)
{
	(void)h;
	(void)now;
	(void)fd;
	(void)n;
	return INT64_MAX;
}

#endif
#endif
