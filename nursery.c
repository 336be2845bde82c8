/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Main's side and the nurseries' own.
 *
 * The wardens' nursery: USER_SPOOL in the spool, with the secrets and the shared map. The other one: USER_SMTP in the empty jail, with
 * neither. Both hear nothing but main, and from it only where a client comes from and its descriptors; they read no octet of a client's.
 * Their children are main's children (CLONE_PARENT), inherit filter and place, and cannot fork again.
 */
#include "nursery.h"

#include "log.h"
#include "msg.h"
#include "str.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

/* How long main waits for one to come up, and to have a session born. */
#define START_SECONDS 10
#define BEAR_SECONDS 2

/* What main tells both of them. */
struct birth {
	struct session session; /* without its pointers */
	uint32_t listen;        /* which of config.listen */
};

static struct {
	pid_t pid;
	int sock;
} nursery[PRIV_SESSION_ROLES] = { [PRIV_SMTP] = { 0, -1 }, [PRIV_WARDEN] = { 0, -1 } };

/* ---- the nurseries ---- */

/* Wait for main to want a session. Ends the process when main has let go of us. */
static void
receive(const struct house *h, int main_sock, struct birth *b, int *fd, unsigned count)
{
	unsigned fds = count;
	long n = msg_recv_fds(main_sock, b, sizeof *b, fd, &fds, -1);

	if (n == 0) {
		_exit(0);
	}
	if (n != (long)sizeof *b || fds != count || b->listen >= h->config->listeners) {
		_exit(WARDEN_FAILED);
	}
	b->session.listen = &h->config->listen[b->listen];
}

static void
tell(int main_sock, pid_t pid)
{
	int32_t answer = pid == -1 ? -errno : (int32_t)pid;

	if (msg_send(main_sock, &answer, sizeof answer, -1) == -1) {
		_exit(0);
	}
}

static _Noreturn void
wardens(const struct house *h, int main_sock)
{
	static struct birth b;
	pid_t pid;
	int sock;

	secret_drop_relay(h->config->secrets);
	session_warden_place(h);
	prctl(PR_SET_NAME, "stile-wardens", 0, 0, 0);
	priv_filter(PRIV_WARDEN);
	tell(main_sock, 1); /* in place */
	for (;;) {
		receive(h, main_sock, &b, &sock, 1);
		pid = priv_fork();
		if (pid == 0) {
			close(main_sock);
			session_warden(h, &b.session, sock);
		}
		close(sock);
		tell(main_sock, pid);
	}
}

static _Noreturn void
smtps(const struct house *h, int main_sock)
{
	static struct birth b;
	pid_t pid;
	int fd[3];

	session_smtp_place(h, main_sock);
	main_sock = 4;
	close(0);
	close(1);
	prctl(PR_SET_NAME, "stile-smtps", 0, 0, 0);
	priv_filter(PRIV_SMTP);
	tell(main_sock, 1);
	for (;;) {
		/* The client twice, and the warden: descriptors are given out from below, so these become 0, 1 and 3. */
		receive(h, main_sock, &b, fd, 3);
		if (fd[0] != 0 || fd[1] != 1 || fd[2] != 3) {
			_exit(WARDEN_FAILED);
		}
		pid = priv_fork();
		if (pid == 0) {
			close(main_sock);
			session_smtp(h, &b.session);
		}
		for (int i = 0; i < 3; i++) {
			close(fd[i]);
		}
		tell(main_sock, pid);
	}
}

/* ---- main ---- */

static int
start(struct house *h, enum priv_role role)
{
	int sv[2];
	pid_t pid;

	if (msg_pair(sv) == -1) {
		return -1;
	}
	/* In the smtp processes' line neither secrets nor the shared map are ever seen. */
	secret_inherit(h->config->secrets, role == PRIV_WARDEN);
	share_inherit(h->share, role == PRIV_WARDEN);
	/* Without a signal when it ends, and its children inherit that: their wardens end after them, and main need not wake up twice. */
	pid = role == PRIV_WARDEN ? fork() : (pid_t)syscall(SYS_clone, 0, 0, 0, 0, 0);
	if (pid == 0) {
		close(sv[0]);
		nursery_forget();
		if (role == PRIV_WARDEN) {
			wardens(h, sv[1]);
		}
		log_keep(NULL);
		smtps(h, sv[1]);
	}
	secret_inherit(h->config->secrets, 1);
	share_inherit(h->share, 1);
	close(sv[1]);
	if (pid == -1) {
		close(sv[0]);
		return -1;
	}
	nursery[role].pid = pid;
	nursery[role].sock = sv[0];
	return 0;
}

void
nursery_forget(void)
{
	for (int i = 0; i < PRIV_SESSION_ROLES; i++) {
		if (nursery[i].sock != -1) {
			close(nursery[i].sock);
		}
		nursery[i].sock = -1;
		nursery[i].pid = 0;
	}
}

void
nursery_stop(void)
{
	for (int i = 0; i < PRIV_SESSION_ROLES; i++) {
		if (nursery[i].pid > 0 && kill(nursery[i].pid, SIGKILL) == 0) {
			waitpid(nursery[i].pid, NULL, __WALL);
		}
	}
	nursery_forget();
}

/* The pid that a nursery tells; 0 when it has none, and *stuck when it says nothing. */
static pid_t
hear(enum priv_role role, int *stuck)
{
	int32_t answer;

	if (msg_recv(nursery[role].sock, &answer, sizeof answer, NULL, -1) != (long)sizeof answer) {
		*stuck = 1;
		return 0;
	}
	if (answer <= 0) {
		log_msg(LOG_ERR, "limit", "cannot fork: %s", strerror(-answer));
		return 0;
	}
	return answer;
}

/* From now on a nursery that takes longer than this to answer is stuck. 0 or -1. */
static int
wait_at_most(enum priv_role role, int seconds)
{
	struct timeval tv = { .tv_sec = seconds };

	return setsockopt(nursery[role].sock, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
}

/* A nursery that is in its place says so. 0 or -1. */
static int
is_in_place(enum priv_role role)
{
	int stuck = 0;

	return wait_at_most(role, START_SECONDS) == 0 && hear(role, &stuck) > 0 && wait_at_most(role, BEAR_SECONDS) == 0
	    ? 0
	    : -1;
}

int
nursery_start(struct house *h)
{
	nursery_stop();
	h->parent = getpid();
	if (start(h, PRIV_WARDEN) == -1 || start(h, PRIV_SMTP) == -1) {
		log_msg(LOG_ERR, "limit", "cannot start the processes that sessions come from: %s", strerror(errno));
	} else if (is_in_place(PRIV_WARDEN) == -1 || is_in_place(PRIV_SMTP) == -1) {
		log_msg(LOG_ERR, "crash", "a process that sessions come from did not come up");
	} else {
		return 0;
	}
	nursery_stop();
	return -1;
}

int
nursery_ready(void)
{
	return nursery[PRIV_SMTP].pid != 0 && nursery[PRIV_WARDEN].pid != 0;
}

int
nursery_died(pid_t pid)
{
	for (int i = 0; i < PRIV_SESSION_ROLES; i++) {
		if (pid != 0 && pid == nursery[i].pid) {
			nursery[i].pid = 0;
			return 1;
		}
	}
	return 0;
}

int
nursery_bear(const struct house *h, const struct session *se, int client, pid_t *warden, pid_t *smtp)
{
	struct birth b;
	int sv[2], fd[3];
	int stuck = 0, mute = 0;

	*warden = *smtp = 0;
	if (!nursery_ready() || msg_pair(sv) == -1) {
		return -1;
	}
	memset(&b, 0, sizeof b);
	b.session = *se;
	b.session.listen = NULL;
	b.listen = (uint32_t)(se->listen - h->config->listen);
	fd[0] = fd[1] = client;
	fd[2] = sv[1];
	if (msg_send_fds(nursery[PRIV_WARDEN].sock, &b, sizeof b, sv, 1) == -1 ||
	    msg_send_fds(nursery[PRIV_SMTP].sock, &b, sizeof b, fd, 3) == -1) {
		stuck = 1;
	} else {
		*warden = hear(PRIV_WARDEN, &stuck);
		*smtp = hear(PRIV_SMTP, &mute);
		stuck |= mute;
	}
	close(sv[0]);
	close(sv[1]);
	if (stuck) {
		log_msg(
		    LOG_ERR, "crash", "a process that sessions come from does not answer; new ones will be started");
		nursery_stop();
	}
	if (mute) {
		*smtp = -1;
	}
	return *warden > 0 && *smtp > 0 ? 0 : -1;
}
