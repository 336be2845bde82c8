/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * A session's two processes, around what they do (warden.c, smtp.c): descriptors, signals, privileges, the end. Under main each comes
 * out of a nursery (nursery.c), where its place is already prepared; under inetd the process that was started becomes the warden and forks
 * smtp.
 */
#include "wardenint.h"

#include "acct.h"
#include "radius.h"
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

static struct conn conn; /* main sets its TLS engine up; touched by smtp processes only */
static volatile sig_atomic_t warden_stop;
static int warden_sock = -1;

/* Whatever the warden is at, its next receive then sees the end. */
static void
on_term(int sig)
{
	(void)sig;
	warden_stop = radius_stop = 1;
	shutdown(warden_sock, SHUT_RDWR);
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

static void
set_signals(void (*term)(int))
{
	handle(SIGTERM, term);
	handle(SIGHUP, SIG_IGN);
	handle(SIGINT, SIG_IGN);
	handle(SIGCHLD, SIG_DFL);
	handle(SIGXFSZ, SIG_IGN); /* write() then says EFBIG */
}

/* ---- smtp ---- */

/* Descriptors of an smtp process: 0 and 1 the client, 2 /dev/null, 3 the warden, 4 the message file while there is one. */
void
session_smtp_place(const struct house *h, int keep)
{
	int fd[3] = { fcntl(h->null, F_DUPFD, 64), h->jail == -1 ? -1 : fcntl(h->jail, F_DUPFD, 64),
		fcntl(keep, F_DUPFD, 64) };
	sigset_t term;

	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_SETMASK, &term, NULL); /* delivered only while waiting for the client */
	set_signals(smtp_on_term);
#ifndef SANITIZE
	log_close();
	dup2(fd[0], 2);
#endif
	if (fd[0] == -1 || fd[2] == -1 || (fd[1] == -1) != (h->jail == -1) || (fd[1] != -1 && dup2(fd[1], 3) == -1) ||
	    dup2(fd[2], 4) == -1) {
		_exit(WARDEN_FAILED);
	}
	priv_close_from(5);
	priv_drop(&h->ids, PRIV_SMTP, fd[1] == -1 ? -1 : 3);
	close(3);
}

void
session_smtp(const struct house *h, const struct session *se)
{
	static struct smtp_info info;
	char name[16];

	session_info(&info, h->config, se);
	str_fmt(name, sizeof name, "stile-smtp %d", se->slot);
	priv_session(
	    PRIV_SMTP, name, info.databytes == 0 ? UINT64_MAX : info.databytes + spool_head_max(&h->spool), h->parent);
	conn_init(&conn, 0, 1, h->parent != 0); /* main's are, and who knows what inetd gives us */
	smtp_prepare(&info, &conn, &h->config->chain, 3);
	smtp_run();
}

/* ---- the warden ---- */

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

/* Under inetd smtp is our child: it has closed its end, so reap it and say how it died. Elsewhere main does. */
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
		return WARDEN_SMTP_CRASHED; /* it has let go of us but lives on */
	}
	if (!WIFSIGNALED(status) || WTERMSIG(status) == SIGKILL || WTERMSIG(status) == SIGTERM) {
		return WARDEN_DONE;
	}
	warden_event(&l, w, LOG_ERR, "crash");
	log_str(&l, "role", "smtp");
	log_num(&l, "signal", WTERMSIG(status));
	log_end(&l);
	return WARDEN_SMTP_CRASHED;
}

/* Say no more, so that smtp says 421 to the client and ends; were we gone, main would end it before. It has five seconds. */
static void
let_go(const struct warden *w)
{
	static uint8_t m[BATCH_OCTETS];
	int64_t left, until = mono_ms() + 5000;

	shutdown(w->sock, SHUT_WR);
	while ((left = until - mono_ms()) > 0 && msg_recv(w->sock, m, sizeof m, NULL, (int)left) > 0) {
	}
}

static int
serve(struct warden *w)
{
	static uint8_t m[BATCH_OCTETS + 1];
	struct log_line l;

	for (int heard = 0; !warden_stop; heard = 1) {
		/* No other deadline here: main ends sessions that last too long, and under inetd an alarm does. */
		int wait = account_wait(w, heard);
		long n = wait == 0 ? -1 : msg_recv(w->sock, m, sizeof m, NULL, wait);
		int rc = n > 0 ? warden_dispatch(w, m, (size_t)n) : 0;

		if (ACCOUNTS && (wait == 0 || (n == -1 && errno == ETIMEDOUT))) {
			w->why = NOTE_TIMEOUT;
			let_go(w);
			return WARDEN_DONE;
		}
		if (n == 0 || (n == -1 && errno == ECONNRESET)) {
			return warden_stop ? WARDEN_FAILED : WARDEN_DONE;
		}
		if (rc == 1) {
			return WARDEN_FAILED;
		}
		if (n == -1 && errno != EBADMSG && errno != EMSGSIZE && !warden_stop) {
			warden_event(&l, w, LOG_ERR, "limit");
			log_text(&l, "msg", "cannot hear smtp");
			log_text(&l, "error", strerror(errno));
			log_end(&l);
			return WARDEN_FAILED;
		}
		if (n == -1 || rc == -1) {
			uint32_t type = 0;

			if (warden_stop) {
				break;
			}
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
	return WARDEN_FAILED;
}

void
session_warden_place(const struct house *h)
{
	for (unsigned i = 0; i < h->closes; i++) {
		close(h->close[i]);
	}
	if (h->jail != -1) {
		close(h->jail);
	}
	set_signals(on_term);
	if (!h->ids.root && fchdir(h->spool_dir) == -1) {
		log_msg(LOG_ERR, "crash", "cannot enter the spool: %s", strerror(errno));
		_exit(WARDEN_FAILED);
	}
	/* As root this becomes the root directory. */
	priv_drop(&h->ids, PRIV_WARDEN, h->spool_dir);
	close(h->spool_dir);
	close(h->null);
	umask(h->spool.kind == SPOOL_QUEUE ? 033 : 077);
}

/* Serve smtp to its end. Returns the exit status. */
static int
run(struct warden *w, int sock)
{
	sigset_t none;
	int rc;

	w->sock = warden_sock = sock;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	log_connect(w);
	rc = serve(w);
	spool_abort(&w->spool);
	close(w->sock);
	w->state = WS_OPEN;
	account_tend(w);
	return rc;
}

/* Why the session ended, as accounting has it. */
static enum acct_cause
cause_of(const struct warden *w, int rc)
{
	if (rc != WARDEN_DONE) {
		return warden_stop ? CAUSE_NAS_REQUEST : CAUSE_NAS_ERROR;
	}
	switch (w->why) {
	case NOTE_QUIT:
		return CAUSE_USER_REQUEST;
	case NOTE_EOF:
		return CAUSE_LOST_CARRIER;
	case NOTE_TIMEOUT:
		return account_over(w) ? CAUSE_SESSION_TIMEOUT : CAUSE_IDLE_TIMEOUT;
	case NOTE_TOO_SLOW:
		return CAUSE_IDLE_TIMEOUT;
	case NOTE_SHUTDOWN:
		return CAUSE_ADMIN_RESET;
	default:
		return CAUSE_USER_ERROR;
	}
}

void
session_warden(const struct house *h, struct session *se, int sock)
{
	struct warden *w = warden_init(h, se);
	char name[16];
	int rc;

	str_fmt(name, sizeof name, "stile-ward %d", se->slot);
	priv_session(PRIV_WARDEN, name, UINT64_MAX, h->parent);
	rc = run(w, sock);
	acct_end(cause_of(w, rc));
	log_close_session(w);
	_exit(rc);
}

void
session_prepare(const struct house *h)
{
	priv_prepare();
	if (h->config->chain.key_type != 0) {
		smtp_setup_tls(&conn, &h->config->chain);
	}
}

/* A client that stops reading must not hold us for ever; small replies must not wait for each other. */
static void
tune_socket(int fd)
{
	int one = 1;

	/* These fail on a pipe, where they do not matter. */
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

void
session_inetd(const struct house *h, struct session *se)
{
	struct warden *w = warden_init(h, se);
	int sv[2];
	int rc, crashed;

	tune_socket(1);
	session_prepare(h);
	if (secret_inherit(h->config->secrets, 0) == -1 || share_inherit(h->share, 0) == -1 || msg_pair(sv) == -1) {
		log_msg(LOG_ERR, "crash", "cannot set a session up: %s", strerror(errno));
		_exit(WARDEN_FAILED);
	}
	w->smtp = fork();
	if (w->smtp == 0) {
		session_smtp_place(h, sv[1]);
		if (dup2(4, 3) == -1) {
			_exit(WARDEN_FAILED);
		}
		close(4);
		/* The warden may not signal it, nor the kernel for the warden, since its user is another one. The filter keeps this set. */
		handle(SIGALRM, SIG_DFL);
		alarm(TIMEOUT_SESSION + 60);
		priv_filter(PRIV_SMTP);
		session_smtp(h, se);
	}
	close(sv[1]);
	if (w->smtp == -1) {
		log_msg(LOG_ERR, "limit", "cannot fork: %s", strerror(errno));
		_exit(WARDEN_FAILED);
	}
	close(0);
	close(1);
	session_warden_place(h);
	priv_session(PRIV_WARDEN, "stile-ward", UINT64_MAX, 0);
	handle(SIGALRM, on_term);
	alarm(TIMEOUT_SESSION + 60);
	priv_filter(PRIV_WARDEN);
	rc = run(w, sv[0]);
	crashed = reap(w);
	log_close_session(w);
	_exit(crashed != WARDEN_DONE ? crashed : rc);
}
