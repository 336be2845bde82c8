/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * A session's two processes: the warden, which main forked, forks smtp, each takes its place and gives up what it does not need, and the
 * warden then serves smtp's requests (warden.c) until the end. Here are the descriptors, signals and deadlines around that.
 */
#include "wardenint.h"

#include "str.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct conn conn; /* main sets its TLS engine up; touched by the smtp process only */
static volatile sig_atomic_t warden_stop;

static void
on_term(int sig)
{
	(void)sig;
	warden_stop = 1;
}

static void
handle(int sig, void (*f)(int))
{
	struct sigaction sa = { .sa_handler = f };

	sigemptyset(&sa.sa_mask);
	sigaction(sig, &sa, NULL);
}

static void
smtp_on_term(int sig)
{
	(void)sig;
	conn_stop = 1;
}

/*
 * Put the descriptors of an smtp process in their places: 0 and 1 the client, 2 /dev/null, 3 the warden, 4 the jail; nothing else is open.
 */
static void
smtp_descriptors(const struct house *h, const struct session *se, int sock)
{
	int in = fcntl(se->rfd, F_DUPFD, 64);
	int out = fcntl(se->wfd, F_DUPFD, 64);
	int null = fcntl(h->null, F_DUPFD, 64);
	int warden_sock = fcntl(sock, F_DUPFD, 64);
	int jail = h->jail == -1 ? -1 : fcntl(h->jail, F_DUPFD, 64);

	if (in == -1 || out == -1 || null == -1 || warden_sock == -1 || (jail == -1) != (h->jail == -1)) {
		_exit(WARDEN_FAILED);
	}
#ifndef SANITIZE
	log_close();
	dup2(null, 2);
#endif
	if (dup2(in, 0) == -1 || dup2(out, 1) == -1 || dup2(warden_sock, 3) == -1 ||
	    (jail != -1 && dup2(jail, 4) == -1)) {
		_exit(WARDEN_FAILED);
	}
	priv_close_from(jail == -1 ? 4 : 5);
}

static _Noreturn void
smtp_child(struct warden *w, int sock)
{
	const struct house *h = w->house;
	sigset_t term;

	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_SETMASK, &term, NULL);
	handle(SIGTERM, smtp_on_term);
	smtp_descriptors(h, w->session, sock);
	handle(SIGXFSZ, SIG_IGN); /* write() then says EFBIG */
	priv_drop(&h->ids, PRIV_SMTP, h->jail == -1 ? -1 : 4,
	    w->info.databytes == 0 ? UINT64_MAX : w->info.databytes + spool_head_max(&w->spool));
	if (h->jail != -1) {
		close(4);
	}
	conn_init(&conn, 0, 1);
	smtp_prepare(&w->info, &conn, &h->config->chain, 3);
	priv_filter(PRIV_SMTP);
	smtp_run();
}

/* A client that stops reading must not hold us for ever; small replies must not wait for each other. */
static void
tune_socket(const struct session *se)
{
	struct timeval tv = { .tv_sec = TIMEOUT_COMMAND };
	int one = 1;

	/* These fail on a pipe (inetd), where they do not matter. */
	setsockopt(se->wfd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
	setsockopt(se->wfd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
	setsockopt(se->wfd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static void
log_connect(const struct warden *w)
{
	struct log_line l;

	warden_event(&l, w, LOG_INFO, "connect");
	log_num(&l, "port", w->session->client_port);
	log_str(&l, "profile", profile_name(w->info.profile));
	if (w->info.relayclient) {
		log_num(&l, "relay", 1);
	}
	log_end(&l);
}

static void
log_close_session(const struct warden *w)
{
	struct log_line l;

	warden_event(&l, w, LOG_INFO, "close");
	log_str(&l, "why", warden_why(w));
	log_num(&l, "msgs", w->messages);
	log_num(&l, "rcpts", w->recipients);
	if (w->refused > 0) {
		log_num(&l, "refused", w->refused);
	}
	log_fmt(&l, "bytes", "%llu", (unsigned long long)w->octets);
	log_num(&l, "secs", (mono_ms() - w->start) / 1000);
	log_end(&l);
}

/* The smtp process has closed its end: reap it and say how it died. */
static int
reap(const struct warden *w)
{
	struct log_line l;
	int status = 0;
	pid_t gone;

	for (long ms = 1; (gone = waitpid(w->smtp, &status, WNOHANG)) == 0 && ms < 8192; ms *= 2) {
		struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

		nanosleep(&ts, NULL);
	}
	if (gone == 0) {
		/* It has let go of us but lives on. We may not signal another user's process; main finds it in the slot. */
		return WARDEN_SMTP_CRASHED;
	}
	atomic_store(&w->house->share->slot[w->session->slot].smtp, 0);
	if (!WIFSIGNALED(status) || WTERMSIG(status) == SIGKILL || WTERMSIG(status) == SIGTERM) {
		return WARDEN_DONE;
	}
	warden_event(&l, w, LOG_ERR, "crash");
	log_str(&l, "role", "smtp");
	log_num(&l, "signal", WTERMSIG(status));
	log_end(&l);
	return WARDEN_SMTP_CRASHED;
}

static int
serve(struct warden *w)
{
	static uint8_t m[BATCH_OCTETS + 1];
	int64_t end = w->start + (TIMEOUT_SESSION + 60) * INT64_C(1000);
	struct log_line l;

	for (;;) {
		int64_t left = end - mono_ms();
		long n;

		if (warden_stop || left <= 0) {
			return WARDEN_FAILED;
		}
		n = msg_recv(w->sock, m, sizeof m, NULL, (int)left);
		if (n == 0 || (n == -1 && errno == ECONNRESET)) {
			return WARDEN_DONE;
		}
		if (n == -1 && (errno == EINTR || errno == ETIMEDOUT)) {
			continue;
		}
		if (n == -1 || warden_dispatch(w, m, (size_t)n) == -1) {
			uint32_t type = 0;

			memcpy(&type, m, sizeof type);
			warden_event(&l, w, LOG_ERR, "crash");
			log_str(&l, "role", "smtp");
			log_text(&l, "msg", "smtp broke the rules of its conversation with the warden");
			log_num(&l, "type", type);
			log_num(&l, "state", w->state);
			log_end(&l);
			return WARDEN_SMTP_CRASHED;
		}
		explicit_bzero(m, (size_t)n);
	}
}

/* Let go of what only main needs, and move into the spool. */
static void
settle(const struct house *h, const struct session *se)
{
	for (unsigned i = 0; i < h->closes; i++) {
		close(h->close[i]);
	}
	if (h->jail != -1) {
		close(h->jail);
	}
	close(se->rfd);
	if (se->wfd != se->rfd) {
		close(se->wfd);
	}
	if (!h->ids.root && fchdir(h->spool_dir) == -1) {
		log_msg(LOG_ERR, "crash", "cannot enter the spool: %s", strerror(errno));
		_exit(WARDEN_FAILED);
	}
	/* As root this becomes the root directory. */
	priv_drop(&h->ids, PRIV_WARDEN, h->spool_dir, UINT64_MAX);
	close(h->spool_dir);
	close(h->null);
	umask(h->spool.kind == SPOOL_QUEUE ? 033 : 077);
	priv_filter(PRIV_WARDEN);
}

void
warden_prepare(const struct house *h)
{
	priv_prepare();
	if (h->config->chain.key_type != 0) {
		smtp_setup_tls(&conn, &h->config->chain);
	}
}

void
warden_run(const struct house *h, struct session *se)
{
	struct warden *w = warden_init(h, se);
	sigset_t none;
	int sv[2];
	int rc, crashed;

	handle(SIGTERM, on_term);
	handle(SIGHUP, SIG_IGN);
	handle(SIGINT, SIG_IGN);
	handle(SIGCHLD, SIG_DFL);
	handle(SIGXFSZ, SIG_IGN);
	tune_socket(se);
	if (secret_inherit(h->config->secrets, 0) == -1 || share_inherit(h->share, 0) == -1 || msg_pair(sv) == -1) {
		log_msg(LOG_ERR, "crash", "cannot set a session up: %s", strerror(errno));
		_exit(WARDEN_FAILED);
	}
	w->smtp = fork();
	if (w->smtp == 0) {
		smtp_child(w, sv[1]);
	}
	close(sv[1]);
	if (w->smtp == -1) {
		log_msg(LOG_ERR, "limit", "cannot fork: %s", strerror(errno));
		_exit(WARDEN_FAILED);
	}
	w->sock = sv[0];
	atomic_store(&h->share->slot[se->slot].smtp, (int32_t)w->smtp);
	settle(h, se);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	log_connect(w);
	rc = serve(w);
	spool_abort(&w->spool);
	close(w->sock);
	crashed = reap(w);
	log_close_session(w);
	_exit(crashed != WARDEN_DONE ? crashed : rc);
}
