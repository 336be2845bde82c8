/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The control socket, main's side. One tool at a time: it has CTL_SECONDS to ask, and then it is answered at once or handed over to the
 * scheduler, so that a tool that is stopped, or lies, keeps nobody waiting but other tools. Only root gets this far, or who main runs as.
 */
#include "ctl.h"

#include "carry.h"
#include "listen.h"
#include "log.h"
#include "msg.h"
#include "share.h"
#include "str.h"
#include "users.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#if TOOLS

#define CTL_SECONDS 2

static struct {
	int sock, tool; /* -1 = none */
	int64_t until;
	struct sockaddr_un at;
} ctl = { .sock = -1, .tool = -1 };

/* Left behind by a server that is no more? Not when somebody answers, or it is no socket. */
static int
is_left_over(const struct sockaddr_un *a)
{
	struct stat st;
	int fd, rc;

	if (lstat(a->sun_path, &st) == -1 || !S_ISSOCK(st.st_mode)) {
		return 0;
	}
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	rc = fd == -1 ? 0 : connect(fd, (const struct sockaddr *)a, sizeof *a) == -1 && errno == ECONNREFUSED;
	if (fd != -1) {
		close(fd);
	}
	return rc;
}

static int
bind_private(int fd, const struct sockaddr_un *a)
{
	mode_t mask = umask(0177);
	int rc = bind(fd, (const struct sockaddr *)a, sizeof *a);

	if (rc == -1 && errno == EADDRINUSE && is_left_over(a)) {
		rc = unlink(a->sun_path) == -1 ? -1 : bind(fd, (const struct sockaddr *)a, sizeof *a);
	}
	umask(mask);
	return rc;
}

int
ctl_open(const char *path)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	ctl.at.sun_family = AF_UNIX;
	errno = ENAMETOOLONG;
	if (fd == -1 || str_copy(ctl.at.sun_path, sizeof ctl.at.sun_path, path) == -1 ||
	    bind_private(fd, &ctl.at) == -1 || listen(fd, 8) == -1) {
		log_msg(LOG_WARNING, "config",
		    "%s: %s: `mailstile status` and `queue` will not find this server; name another place with -S",
		    path, strerror(errno));
		if (fd != -1) {
			close(fd);
		}
		return -1;
	}
	ctl.sock = fd;
	return 0;
}

static void
hang_up(void)
{
	if (ctl.tool != -1) {
		close(ctl.tool);
	}
	ctl.tool = -1;
}

void
ctl_close(void)
{
	hang_up();
	if (ctl.sock != -1) {
		(void)unlink(ctl.at.sun_path);
		close(ctl.sock);
	}
	ctl.sock = -1;
}

unsigned
ctl_polls(struct pollfd *p)
{
	unsigned n = 0;

	if (ctl.sock != -1) {
		p[n++] = (struct pollfd){ .fd = ctl.sock, .events = ctl.tool == -1 ? POLLIN : 0 };
	}
	if (ctl.tool != -1) {
		p[n++] = (struct pollfd){ .fd = ctl.tool, .events = POLLIN };
	}
	return n;
}

int64_t
ctl_due(void)
{
	return ctl.tool == -1 ? INT64_MAX : ctl.until;
}

static void
welcome(void)
{
	struct ucred who;
	socklen_t len = sizeof who;
	int fd = accept4(ctl.sock, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd == -1) {
		return;
	}
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) == -1 || (who.uid != 0 && who.uid != geteuid())) {
		close(fd);
		return;
	}
	ctl.tool = fd;
	ctl.until = mono_ms() + CTL_SECONDS * 1000;
}

/* ---- status ---- */

static int64_t
seconds_since(int64_t now, int64_t then)
{
	return then == 0 ? -1 : now > then ? (now - then) / 1000 : 0;
}

static void
tell_listeners(struct ctl_status *s, const struct config *c, const struct listeners *ls)
{
	s->listeners = c->listeners;
	for (unsigned i = 0; i < c->listeners; i++) {
		const struct listen_conf *l = &c->listen[i];
		char text[ADDR_TEXT_MAX];

		for (unsigned k = 0; k < ls->n; k++) {
			s->listener[i].heard |= ls->l[k].conf == i;
		}
		(void)str_copy(s->listener[i].profile, sizeof s->listener[i].profile, profile_name(l->profile));
		str_fmt(s->listener[i].where, sizeof s->listener[i].where,
		    l->any || addr_is_v4(&l->addr) ? "%s:%u" : "[%s]:%u", l->any ? "*" : addr_text(&l->addr, text),
		    l->port);
	}
}

static void
tell_radius(struct ctl_status *s, const struct house *h, int64_t now)
{
	const struct radius_conf *rc = &h->config->radius;

	share_lock(SHARE_RADIUS);
	s->radius = rc->servers;
	for (unsigned i = 0; i < rc->servers; i++) {
		const struct share_radius *r = &h->share->radius[i];
		const struct addr *a = rc->server[i].numeric ? &rc->server[i].addr : &r->addr;
		static const struct addr unknown;
		char text[ADDR_TEXT_MAX];

		str_fmt(s->server[i].name, sizeof s->server[i].name, "%s:%u", rc->server[i].name, rc->server[i].port);
		if (memcmp(a, &unknown, sizeof unknown) != 0) {
			(void)str_copy(s->server[i].addr, sizeof s->server[i].addr, addr_text(a, text));
		}
		s->server[i].dead = r->dead_until > now ? (int32_t)((r->dead_until - now + 999) / 1000) : 0;
		s->server[i].answered = (int32_t)seconds_since(now, r->answered);
	}
	share_unlock(SHARE_RADIUS);
}

/* What keeps everybody from logging in, on listeners where that is possible at all. */
static uint32_t
tell_nobody(const struct config *c)
{
	uint32_t why = c->chain.key_type == 0 ? CTL_NO_CERTIFICATE : 0;
	unsigned doors = 0;

	for (unsigned i = 0; i < c->listeners; i++) {
		doors += c->listen[i].profile != PROFILE_INSIDE;
	}
#if ACCOUNTS
	why |= (users_there() ? 0 : CTL_NO_COUNTS) | (c->accounts_bad ? CTL_NO_LIMITS : 0);
#endif
	return doors == 0 ? 0 : why;
}

static void
send_status(const struct house *h, const struct listeners *ls)
{
	static struct ctl_status s;
	const struct share *sh = h->share;
	const uint32_t written = atomic_load(&sh->lines);
	int64_t now = mono_ms();

	memset(&s, 0, sizeof s);
	s.lines = written < CTL_LINES_MAX ? written : CTL_LINES_MAX;
	s.now = time(NULL);
	s.up = seconds_since(now, sh->started);
	s.clock_set = s.now >= BUILD_EPOCH;
	s.sessions_max = SESSIONS_MAX;
	for (unsigned i = 0; i < SESSIONS_MAX; i++) {
		s.sessions += atomic_load(&sh->slot[i].warden) != 0 || atomic_load(&sh->slot[i].smtp) != 0;
		s.loggedin += atomic_load(&sh->slot[i].loggedin) != 0;
	}
	s.delivers = carry_state();
	s.nobody = tell_nobody(h->config);
	for (unsigned i = 0; i < COUNTS; i++) {
		s.count[i] = atomic_load(&sh->count[i]);
	}
	(void)str_copy(s.version, sizeof s.version, VERSION);
	(void)str_copy(s.me, sizeof s.me, h->config->me);
	(void)str_copy(s.home, sizeof s.home, h->config->home);
	(void)str_copy(s.spool, sizeof s.spool, h->config->spool_dir);
	tell_listeners(&s, h->config, ls);
	tell_radius(&s, h, now);
	if (msg_send(ctl.tool, &s, sizeof s, -1) == -1) {
		return;
	}
	for (uint32_t i = written - s.lines; i != written; i++) {
		const struct share_line *from = &sh->line[i % CTL_LINES_MAX];
		struct ctl_line l = { .age = seconds_since(now, from->at) };

		memcpy(l.text, from->text, sizeof l.text - 1);
		if (msg_send(ctl.tool, &l, sizeof l, -1) == -1) {
			return;
		}
	}
}

/* The tool has asked, or is gone. 1: it is dealt with. */
static int
hear(const struct house *h, const struct listeners *ls)
{
	static const struct ctl_answer nobody = { .rc = CTL_NOBODY };
	struct ctl_ask ask;
	long n = msg_recv(ctl.tool, &ask, sizeof ask, NULL, -1);

	if (n == -1 && (errno == EAGAIN || errno == EINTR)) {
		return 0;
	}
	if (n == (long)sizeof ask && ask.magic == CTL_MAGIC) {
		if (ask.type == CTL_STATUS) {
			send_status(h, ls);
		} else if (carry_hand(&ask, ctl.tool) == -1) {
			(void)msg_send(ctl.tool, &nobody, sizeof nobody, -1);
		}
	}
	return 1;
}

void
ctl_serve(const struct pollfd *p, unsigned n, const struct house *h, const struct listeners *ls)
{
	for (unsigned i = 0; i < n; i++) {
		if (p[i].revents == 0) {
			continue;
		}
		if (p[i].fd == ctl.tool) {
			if (hear(h, ls)) {
				hang_up();
			}
		} else if (p[i].fd == ctl.sock && ctl.tool == -1) {
			welcome();
		}
	}
	if (ctl.tool != -1 && mono_ms() >= ctl.until) {
		hang_up();
	}
}

#endif
