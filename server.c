/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * main: listens, counts, forks, reaps, reloads. How it starts over, and ends, is stop.c.
 *
 * Root; descriptors: the listeners, the log, the shared map, the jail and the spool's directory. Holds the secrets, to hand them to
 * wardens, and never reads an octet from the network. It must never end by itself: every failure of a session is that session's.
 */
#include "server.h"

#include "accountant.h"
#include "acct.h"
#include "carry.h"
#include "ctl.h"
#include "guess.h"
#include "house.h"
#include "keeper.h"
#include "listen.h"
#include "log.h"
#include "nursery.h"
#include "options.h"
#include "radius.h"
#include "serverint.h"
#include "slots.h"
#include "str.h"
#include "users.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TICK_MS 10000

static volatile sig_atomic_t got_hup, got_term, got_child;

struct server server;

/* ---- signals ---- */

static void
on_signal(int sig)
{
	if (sig == SIGHUP) {
		got_hup = 1;
	} else if (sig == SIGCHLD) {
		got_child = 1;
	} else {
		got_term = 1;
	}
}

void
server_set_signals(void)
{
	static const int caught[] = { SIGHUP, SIGTERM, SIGINT, SIGCHLD };
	struct sigaction sa = { .sa_handler = on_signal };
	sigset_t block;

	sigemptyset(&sa.sa_mask);
	sigemptyset(&block);
	for (size_t i = 0; i < sizeof caught / sizeof caught[0]; i++) {
		sigaction(caught[i], &sa, NULL);
		sigaddset(&block, caught[i]);
	}
	/* Delivered only while waiting in ppoll(), so none is lost. */
	sigprocmask(SIG_SETMASK, &block, NULL);
	signal(SIGPIPE, SIG_IGN);
}

/* What a session must not keep of main's descriptors. */
static void
collect_closes(void)
{
	struct house *h = &server.house;
	struct pollfd p[CTL_POLLS];
	unsigned n = ctl_polls(p);

	h->closes = 0;
	for (unsigned i = 0; i < server.listeners.n; i++) {
		h->close[h->closes++] = server.listeners.l[i].fd;
	}
	if (server.resolver != 0) {
		h->close[h->closes++] = server.resolved;
	}
	for (unsigned i = 0; i < n; i++) {
		h->close[h->closes++] = p[i].fd;
	}
	if (carry_ctl() != -1) {
		h->close[h->closes++] = carry_ctl();
	}
#if KEEPER
	if (keeper_door()[1] != -1) {
		h->close[h->closes++] = keeper_door()[1];
	}
#endif
}

/* Sessions to come see the configuration, and the log, that main has now. */
static int
renew_nurseries(void)
{
	session_prepare(&server.house);
	collect_closes();
	return nursery_start(&server.house);
}

/* In place of nurseries that have died: at once, but when that comes again and again only each second. */
static void
revive_nurseries(void)
{
	int64_t now = mono_ms();

	if (server.revive_at > now) {
		return;
	}
	if (server.revive_at < now - 4000) {
		server.revive_at = now - 4000;
	}
	server.revive_at += 1000;
	renew_nurseries();
}

/* ---- names of RADIUS servers ---- */

/*
 * A child looks names up, since DNS may take long and its answers come from strangers. It has neither secrets nor the shared map, and
 * tells the addresses through a pipe, which holds them until it has ended.
 */
static void
start_resolver(void)
{
	const struct radius_conf *rc = &server.house.config->radius;
	int names = 0;
	int p[2];

	server.resolve_at = INT64_MAX;
	for (unsigned i = 0; i < rc->servers; i++) {
		names += !rc->server[i].numeric;
	}
	if (names == 0 || server.resolver != 0) {
		return;
	}
	server.resolve_at = mono_ms() + TICK_MS;
	collect_closes();
	if (pipe2(p, O_CLOEXEC) == -1) {
		return;
	}
	secret_inherit(server.house.config->secrets, 0);
	share_inherit(server.house.share, 0);
	server.resolver = fork();
	if (server.resolver == 0) {
		struct radius_addresses a;
		sigset_t none;
		int rc_all;

		log_keep(NULL);
		sigemptyset(&none);
		signal(SIGTERM, SIG_DFL);
		sigprocmask(SIG_SETMASK, &none, NULL);
		for (unsigned i = 0; i < server.house.closes; i++) {
			close(server.house.close[i]);
		}
		nursery_forget();
		close(share_fd());
		users_close();
		acct_close();
		keeper_close();
		priv_drop(&server.house.ids, PRIV_RESOLVER, -1);
		alarm(60);
		rc_all = radius_resolve(rc, &a);
		_exit(write_all(p[1], &a, sizeof a) == 0 && rc_all == 0 ? 0 : 1);
	}
	secret_inherit(server.house.config->secrets, 1);
	share_inherit(server.house.share, 1);
	close(p[1]);
	if (server.resolver == -1) {
		server.resolver = 0;
		close(p[0]);
		return;
	}
	server.resolved = p[0];
	server.resolving = server.house.radius_generation;
	server.resolve_at = INT64_MAX;
	collect_closes();
}

static void
resolver_done(int status)
{
	int ok = WIFEXITED(status) && WEXITSTATUS(status) == 0;
	struct radius_addresses a;

	if (read(server.resolved, &a, sizeof a) == sizeof a) {
		radius_set_addresses(server.house.share, server.resolving, &a);
	}
	close(server.resolved);
	server.resolver = 0;
	collect_closes();
	server.resolve_at = mono_ms() + (ok ? RADIUS_RESOLVE_SECONDS * INT64_C(1000) : TICK_MS);
	if (server.resolving != server.house.radius_generation) {
		server.resolve_at = mono_ms(); /* radius.conf has changed meanwhile */
	}
	if (!ok) {
		log_msg(LOG_WARNING, "radius", "%s", radius_trouble_text(RADIUS_NO_ADDRESS));
	}
}

/* Forget what was known of the servers, unless they are the same ones. */
static void
new_radius_generation(void)
{
	const struct radius_conf *rc = &server.house.config->radius;
	struct share *sh = server.house.share;
	uint64_t h = fnv1a(rc, sizeof *rc);

	share_lock(SHARE_RADIUS);
	if (sh->radius_hash != h) {
		sh->radius_hash = h;
		sh->radius_generation++;
		memset(sh->radius, 0, sizeof sh->radius);
		atomic_store(&sh->radius_good, 0);
	}
	server.house.radius_generation = sh->radius_generation;
	share_unlock(SHARE_RADIUS);
}

/* ---- sessions ---- */

static void
log_refused(const struct addr *client, const char *why)
{
	struct log_line l;
	char text[ADDR_TEXT_MAX];
	int64_t second = mono_ms() / 1000;

	share_count(server.house.share, COUNT_REFUSED, 1);
	if (second != server.log_second) {
		if (server.log_lost > 0) {
			log_msg(LOG_NOTICE, "limit", "%u more connections were refused", server.log_lost);
		}
		server.log_second = second;
		server.log_lines = server.log_lost = 0;
	}
	if (++server.log_lines > 5) {
		server.log_lost++;
		return;
	}
	log_begin(&l, LOG_NOTICE, "limit");
	log_str(&l, "client", addr_text(client, text));
	log_text(&l, "reason", why);
	log_end(&l);
}

static void
refuse(int fd, enum profile p, const struct addr *client, const char *why)
{
	static const char many[] = "421 4.7.0 too many connections, try again later\r\n";
	static const char banned[] = "421 4.7.0 too many failed logins from your address, try again later\r\n";
	const char *text = strcmp(why, "banned") == 0 ? banned : many;

	log_refused(client, why);
	/* A TLS client cannot read plain text: it sees the connection close. */
	if (p != PROFILE_SUBMISSIONS && send(fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL) == -1) {
		log_refused(client, "could not be told");
	}
	close(fd);
}

static void
start_session(struct session *se, int fd)
{
	struct share_slot *s;
	pid_t warden, smtp;
	int rc;

	session_name(se);
	share_count(server.house.share, COUNT_SESSIONS, 1);
	s = slots_begin(se->slot, &se->client, se->sid);
	rc = nursery_bear(&server.house, se, fd, &warden, &smtp);
	if (rc == -1 && smtp == 0 && !nursery_ready()) {
		/* It was killed, by the kernel for want of memory, say; nobody noticed till now, and the client need not. */
		revive_nurseries();
		rc = nursery_bear(&server.house, se, fd, &warden, &smtp);
	}
	atomic_store(&s->warden, (int32_t)warden);
	atomic_store(&s->smtp, smtp > 0 ? (int32_t)smtp : 0);
	if (rc == -1) {
		if (smtp != 0) {
			/* Without its warden it says 421 itself, which must not be said twice. */
			log_refused(&se->client, "fork-failed");
			close(fd);
		} else {
			refuse(fd, se->listen->profile, &se->client, "fork-failed");
		}
		server.pause_until = mono_ms() + 200;
		return;
	}
	close(fd);
}

static void
accept_one(const struct listener *l)
{
	struct sockaddr_storage ss, local;
	socklen_t len = sizeof ss, local_len = sizeof local;
	struct session se = { .listen = &server.house.config->listen[l->conf] };
	const char *why;
	int fd = accept4(l->fd, (struct sockaddr *)&ss, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd == -1) {
		/* Whatever it is, it may last, and the client goes on waiting; but not when the client has gone. */
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
			log_msg(LOG_ERR, "limit", "accept: %s", strerror(errno));
			server.pause_until = mono_ms() + 1000;
		}
		return;
	}
	if (addr_from_sockaddr(&se.client, &se.client_port, (const struct sockaddr *)&ss) == -1) {
		close(fd);
		return;
	}
	if (getsockname(fd, (struct sockaddr *)&local, &local_len) == 0) {
		addr_from_sockaddr(&se.local, &se.local_port, (const struct sockaddr *)&local);
	}
	policy_client(server.house.config, &se.client, NULL, NULL, &se.client_policy);
	if (se.client_policy.deny) {
		log_refused(&se.client, "denied-by-rule");
		close(fd);
		return;
	}
	/* Who may relay without a login has no account to guess at. */
	if (!se.client_policy.relay && guess_banned(server.house.share, &se.client)) {
		refuse(fd, se.listen->profile, &se.client, "banned");
		return;
	}
	se.slot = slots_find_room(&se.client, &why);
	if (se.slot == -1) {
		refuse(fd, se.listen->profile, &se.client, why);
		return;
	}
	start_session(&se, fd);
}

/* ---- children ---- */

void
server_reap(void)
{
	pid_t pid;
	int status, crash;

	got_child = 0;
	while ((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0) {
		if (pid == server.resolver) {
			resolver_done(status);
			continue;
		}
		if (nursery_died(pid)) {
			log_msg(LOG_ERR, "crash", "a process that sessions come from has died, status %d", status);
			server.crashed = WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL ? 1 : server.crashed;
			continue;
		}
		crash = carry_died(pid, status) || accountant_died(pid, status) || keeper_died(pid, status)
		    ? slots_by_crash(status)
		    : slots_reaped(pid, status);
		share_count(server.house.share, COUNT_CRASHES, crash != 0);
		server.crashed |= crash;
	}
	server.lingering = slots_lingering();
}

/* ---- reload ---- */

/* Open what the configuration asks for; what cannot be had now is tried again: an address may come up late. */
static void
open_listeners(void)
{
	server.unheard = listen_apply(&server.listeners, server.house.config);
	server.listen_at = server.unheard == 0 ? INT64_MAX : mono_ms() + LISTEN_RETRY_SECONDS * INT64_C(1000);
	collect_closes();
}

void
server_open_control(void)
{
	if (server.ctl != NULL && server.ctl[0] != '\0') {
		(void)ctl_open(server.ctl);
	}
	collect_closes();
}

/* Accounting is only for those who have a place to send it to. */
static void
open_acct(struct diag *d)
{
#if ACCOUNTING
	const struct house *h = &server.house;

	if (acct_wanted(h->config)) {
		acct_open(h->config->home, h->ids.root, h->ids.spool_uid, h->ids.spool_gid, d);
	}
#else
	(void)d;
#endif
}

static void
reload(void)
{
	struct diag d = { .emit = diag_to_log };
	struct log_line l;

	got_hup = 0;
	if (house_reload(&server.house, &d) == -1) {
		log_msg(LOG_ERR, "reload", "the new configuration cannot be used; the old one stays");
		return;
	}
	new_radius_generation();
	open_listeners();
	open_acct(&d);
	keeper_open(&server.house);
	renew_nurseries();
	carry_renew();
	keeper_renew();
	accountant_renew();
	start_resolver();
	log_begin(&l, LOG_INFO, "reload");
	log_num(&l, "unheard", server.unheard);
	log_num(&l, "errors", d.errors);
	log_num(&l, "warnings", d.warnings);
	log_end(&l);
}

/* ---- the loop ---- */

static void
wait_for_event(struct pollfd *p, unsigned n)
{
	static const sigset_t none;
	int64_t now = mono_ms();
	int64_t until = slots_running() > 0 ? now + TICK_MS : INT64_MAX;
	struct timespec ts;
	int rc;

	if (server.resolve_at < until) {
		until = server.resolve_at;
	}
	if (server.listen_at < until) {
		until = server.listen_at;
	}
	if (!nursery_ready() && server.revive_at < until) {
		until = server.revive_at;
	}
	if (carry_due() < until) {
		until = carry_due();
	}
	if (accountant_due() < until) {
		until = accountant_due();
	}
	if (keeper_due() < until) {
		until = keeper_due();
	}
	if (ctl_due() < until) {
		until = ctl_due();
	}
	if (server.pause_until > now) {
		until = server.pause_until;
		n = 0;
	}
	if (server.lingering && until > now + 50) {
		until = now + 50;
	}
	if (until <= now) {
		until = now + 1;
	}
	ts.tv_sec = (time_t)((until - now) / 1000);
	ts.tv_nsec = (long)((until - now) % 1000) * 1000000;
	for (unsigned i = 0; i < LISTEN_SOCKETS_MAX + CTL_POLLS; i++) {
		p[i].revents = 0;
	}
	rc = ppoll(p, n, until == INT64_MAX ? NULL : &ts, &none);
	if (rc == -1 && errno != EINTR) {
		/* For want of memory, say: without this the loop would turn as fast as it can. */
		ts = (struct timespec){ .tv_nsec = 200 * 1000000L };
		nanosleep(&ts, NULL);
	}
	if (rc > 0) {
		/* A descriptor that is ready is told without a look at signals: with clients always waiting, none would ever come. */
		ts = (struct timespec){ 0, 0 };
		ppoll(NULL, 0, &ts, &none);
	}
}

static void
serve_loop(void)
{
	got_child = 1; /* after a re-execution somebody may have died meanwhile */
	while (!got_term) {
		struct pollfd p[LISTEN_SOCKETS_MAX + CTL_POLLS];
		unsigned tools;

		for (unsigned i = 0; i < server.listeners.n; i++) {
			p[i] = (struct pollfd){ .fd = server.listeners.l[i].fd, .events = POLLIN };
		}
		tools = ctl_polls(p + server.listeners.n);
		wait_for_event(p, server.listeners.n + tools);
		if (log_reopen()) {
			renew_nurseries();
			carry_renew();
			keeper_renew();
			accountant_renew();
		}
		if (got_child || server.lingering) {
			server_reap();
		}
		if (got_hup) {
			reload();
			continue; /* the listeners may have changed */
		}
		if (!nursery_ready()) {
			revive_nurseries();
		}
		for (unsigned i = 0; i < server.listeners.n; i++) {
			if ((p[i].revents & POLLIN) != 0) {
				accept_one(&server.listeners.l[i]);
			}
		}
		ctl_serve(p + server.listeners.n, tools, &server.house, &server.listeners);
		collect_closes();
		carry_tend(&server.house);
		keeper_tend(&server.house);
		accountant_tend(&server.house);
		if (server.resolve_at <= mono_ms()) {
			start_resolver();
		}
		if (server.listen_at <= mono_ms()) {
			open_listeners();
		}
		slots_end_evicted(PRELOGIN_EVICT_SECONDS);
		slots_kill(mono_ms() - (TIMEOUT_SESSION + 120) * INT64_C(1000), SIGTERM);
		slots_kill(mono_ms() - (TIMEOUT_SESSION + 150) * INT64_C(1000), SIGKILL);
		if (server.crashed && !got_term && mono_ms() >= server.reexec_after) {
			server_reexec();
		}
	}
}

/* ---- the start ---- */

static int
write_pidfile(pid_t pid)
{
	char text[16];
	int fd = open(server.pidfile, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);

	str_fmt(text, sizeof text, "%d\n", (int)pid);
	if (fd == -1 || write_all(fd, text, strlen(text)) == -1) {
		print(STDERR_FILENO, "mailstile: %s: %s\n", server.pidfile, strerror(errno));
		return -1;
	}
	close(fd);
	return 0;
}

/* Go on in a child without a terminal; the parent ends once the pid file is there. 0 or -1. */
static int
detach(void)
{
	pid_t pid = fork();

	if (pid == -1) {
		return -1;
	}
	if (pid > 0) {
		if (write_pidfile(pid) == -1) {
			kill(pid, SIGKILL);
			_exit(111);
		}
		_exit(0);
	}
	setsid();
	return 0;
}

static int
serve_usage(void)
{
	print(STDERR_FILENO, "usage: mailstile serve [-ds] [-H home] [-p pidfile] [-S socket]\n");
	return 100;
}

static int
serve_options(char **argv, int *detached, enum log_target *target)
{
	struct options o;
	int opt;

	options_begin(&o, argv);
	while ((opt = options_next(&o, "dsH:p:S:")) != 0) {
		switch (opt) {
		case 'd':
			*detached = 1;
			*target = LOG_TO_SYSLOG;
			break;
		case 's':
			*target = LOG_TO_SYSLOG;
			break;
		case 'H':
			server.home = o.value;
			break;
		case 'p':
			server.pidfile = o.value;
			break;
		case 'S':
			server.ctl = o.value;
			break;
		default:
			return -1;
		}
	}
	if (server.ctl == NULL) {
		server.ctl = *detached ? CTL_SOCKET : ctl_where(server.home, 0);
	}
	return *o.word == NULL ? 0 : -1;
}

static void
stdio_to_null(int err)
{
	dup2(server.house.null, 0);
	dup2(server.house.null, 1);
	if (err) {
		dup2(server.house.null, 2);
	}
}

/* Everything but listening. 0 or an exit status. */
static int
set_up(int share)
{
	struct diag d = { .emit = diag_to_log };
	struct share *sh = share_open(share);
	int rc;

	if (sh == NULL && share != -1) {
		share = -1; /* an upgrade changed its layout */
		sh = share_open(-1);
	}
	/* `status` shows faults of the start, too. */
	log_keep(sh);
	rc = house_open(&server.house, server.home, &d);
	if (rc != 0) {
		return rc;
	}
	server.house.share = sh;
	accountant_init(share == -1);
	keeper_init();
	open_acct(&d);
	keeper_open(&server.house);
	if (server.house.share == NULL) {
		log_msg(LOG_ERR, "stop", "no shared memory: %s", strerror(errno));
		return 111;
	}
	slots_use(server.house.share);
	new_radius_generation();
	if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0) == -1 && SECCOMP) {
		log_msg(
		    LOG_WARNING, "config", "this kernel cannot filter system calls: smtp processes have one wall less");
	}
	return 0;
}

int
serve_main(int argc, char **argv)
{
	enum log_target target = LOG_TO_STDERR;
	int detached = 0;
	int share, rc;

	if (serve_options(argv, &detached, &target) == -1) {
		return serve_usage();
	}
	server.argc = argc;
	server.argv = argv;
	share = server_inherited();
	server.reexec_after = share == -1 ? 0 : mono_ms() + REEXEC_SECONDS * INT64_C(1000);
	if (share == -1) {
		priv_close_from(3); /* whatever our starter forgot to close, our children must not have */
	}
	/* Faults at the start belong on the terminal of who starts us. */
	if (log_open(target) == -1) {
		print(
		    STDERR_FILENO, "mailstile: /dev/log: %s; log lines are lost until syslogd runs\n", strerror(errno));
	}
	log_echo(detached && share == -1);
	server_set_signals();
	rc = set_up(share);
	if (rc != 0) {
		return rc;
	}
	open_listeners();
	if (server.listeners.n == 0) {
		log_msg(LOG_ERR, "stop", "no listener could be opened");
		return 111;
	}
	if (detached) {
		server.pidfile = server.pidfile == NULL ? PID_FILE : server.pidfile;
		if (share == -1 && detach() == -1) {
			return 111;
		}
	} else if (server.pidfile != NULL && write_pidfile(getpid()) == -1) {
		return 111;
	}
	log_echo(0);
	stdio_to_null(detached);
	server_open_control();
	if (renew_nurseries() == -1) {
		return 111;
	}
	start_resolver();
	log_msg(LOG_INFO, "start", "mailstile %s, host %s, pid %d", VERSION, server.house.config->me, (int)getpid());
	serve_loop();
	server_drain();
	return 0;
}
