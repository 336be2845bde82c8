/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The three processes that deliver, as main sees them: pids, no sockets. Main makes the pairs that connect them and forgets its ends, so the
 * end of one is seen by the others at once. Each gives up, before anything else, what the others have: the scheduler and the cleaner the
 * secrets, the remotes' nursery all of them but the relays' passwords, all three the map that wardens share.
 */
#include "carry.h"

#include "acct.h"
#include "cleanint.h"
#include "deliver.h"
#include "keeper.h"
#include "log.h"
#include "msg.h"
#include "nursery.h"
#include "relay.h"
#include "secret.h"
#include "slots.h"
#include "str.h"
#include "users.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#if RELAY

/* One that has run this long was well; after a shorter life the next one waits, longer each time. */
#define WELL_MS 60000
#define PAUSE_MIN_MS 1000
#define PAUSE_MAX_MS 60000
/* A network that comes up, or changes, brings other name servers; this often main looks. */
#define LOOK_MS 15000
/* The scheduler waits so long for deliveries when it is asked to finish. */
#define FINISH_MS 25000

enum part { SCHEDULER, CLEANER, REMOTES, PARTS };

static const char *const names[PARTS] = { "stile-relay", "stile-clean", "stile-remotes" };
static const enum priv_role roles[PARTS] = { PRIV_RELAY, PRIV_CLEAN, PRIV_REMOTE };

static struct {
	pid_t pid[PARTS];
	int wanted;
	int ctl; /* to the scheduler, -1 = none */
	int64_t began, start_at, kill_at, look_at;
	int pause;
} carry = { .wanted = 1, .ctl = -1, .kill_at = INT64_MAX };

int
carry_running(void)
{
	return carry.pid[SCHEDULER] != 0 || carry.pid[CLEANER] != 0 || carry.pid[REMOTES] != 0;
}

/* ---- the children ---- */

static void
handle(int sig, void (*f)(int))
{
	struct sigaction sa = { .sa_handler = f };

	sigemptyset(&sa.sa_mask);
	sigaction(sig, &sa, NULL);
}

/* Into the place of `part`, with nothing open but the log and sock[0..n), and the jail's or the queue's directory until it is entered. */
static void
place(const struct house *h, enum part part)
{
	int dir = part == REMOTES ? h->jail : h->spool_dir;
	sigset_t none;

	for (unsigned i = 0; i < h->closes; i++) {
		close(h->close[i]);
	}
	handle(SIGHUP, SIG_IGN);
	handle(SIGINT, SIG_IGN);
	handle(SIGCHLD, SIG_DFL);
	handle(SIGTERM, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	umask(part == CLEANER ? 033 : 077);
	if (!h->ids.root && part != REMOTES && fchdir(dir) == -1) {
		log_msg(LOG_ERR, "crash", "cannot enter the queue: %s", strerror(errno));
		_exit(111);
	}
	priv_drop(&h->ids, roles[part], dir);
	if (h->jail != -1) {
		close(h->jail);
	}
	close(h->spool_dir);
	close(h->null);
	prctl(PR_SET_NAME, names[part], 0, 0, 0);
	prctl(PR_SET_PDEATHSIG, part == SCHEDULER ? SIGTERM : SIGKILL, 0, 0, 0);
	if (getppid() != h->parent) {
		_exit(111);
	}
	priv_filter(roles[part]);
}

static _Noreturn void
remotes(const struct house *h, int sock)
{
	struct deliver_birth b;
	pid_t pid;
	int fd;

	place(h, REMOTES);
	for (;;) {
		long n = msg_recv(sock, &b, sizeof b, &fd, -1);

		if (n == 0) {
			_exit(0);
		}
		if (n != (long)sizeof b || fd == -1) {
			_exit(111);
		}
		pid = priv_fork();
		if (pid == 0) {
			close(sock);
			priv_session(PRIV_REMOTE, "stile-remote", 0, h->parent);
			remote_run(h, fd);
		}
		if (pid == -1) {
			log_msg(LOG_ERR, "limit", "cannot fork: %s", strerror(errno));
		}
		close(fd); /* without a process behind it, the scheduler sees its end */
	}
}

static _Noreturn void
begin(const struct house *h, enum part part, const int clean[2], const int deliver[2], const int ctl[2])
{
	log_keep(NULL);
	nursery_forget();
	close(share_fd());
	users_close();
	acct_close();
	keeper_close();
	if (part == REMOTES) {
		secret_keep_relay(h->config->secrets);
	}
	close(ctl[0]);
	if (part != SCHEDULER) {
		close(ctl[1]);
	}
	switch (part) {
	case SCHEDULER:
		close(clean[1]);
		close(deliver[1]);
		place(h, part);
		relay_run(h, clean[0], deliver[0], ctl[1]);
	case CLEANER:
		close(clean[0]);
		close(deliver[0]);
		close(deliver[1]);
		if (LOCAL_MAILDIRS_MAX > 0) {
			local_open(&h->config->relay, h->ids.spool_uid);
		}
		place(h, part);
		clean_run(h, clean[1]);
	default:
		close(deliver[0]);
		close(clean[0]);
		close(clean[1]);
		remotes(h, deliver[1]);
	}
}

/* ---- main ---- */

static int
start_parts(const struct house *h, const int clean[2], const int deliver[2], const int ctl[2])
{
	for (int part = PARTS - 1; part >= 0; part--) {
		secret_inherit(h->config->secrets, part == REMOTES);
		share_inherit(h->share, 0);
		carry.pid[part] = fork();
		if (carry.pid[part] == 0) {
			begin(h, (enum part)part, clean, deliver, ctl);
		}
		if (carry.pid[part] == -1) {
			carry.pid[part] = 0;
			return -1;
		}
	}
	return 0;
}

static void
start(const struct house *h)
{
	int pair[PARTS][2]; /* to the cleaner, to the remotes, from main */
	int rc = 0, n = 0;

	while (n < PARTS && rc == 0) {
		rc = msg_pair(pair[n]);
		n += rc == 0;
	}
	carry.began = mono_ms();
	if (rc == 0) {
		rc = start_parts(h, pair[0], pair[1], pair[2]);
		secret_inherit(h->config->secrets, 1);
		share_inherit(h->share, 1);
	}
	if (rc == -1) {
		log_msg(LOG_ERR, "limit", "cannot start the processes that deliver: %s", strerror(errno));
	} else {
		carry.ctl = pair[2][0];
		(void)fcntl(carry.ctl, F_SETFL, O_NONBLOCK); /* we never wait for it */
		pair[2][0] = -1;
	}
	while (n-- > 0) {
		if (pair[n][0] != -1) {
			close(pair[n][0]);
		}
		close(pair[n][1]);
	}
}

int
carry_ctl(void)
{
	return carry.ctl;
}

unsigned
carry_state(void)
{
	return carry.start_at == INT64_MAX ? 0 : carry.pid[SCHEDULER] != 0 ? 1 : 2;
}

int
carry_hand(const struct ctl_ask *ask, int conn)
{
	return carry.ctl != -1 && carry.pid[SCHEDULER] != 0 ? msg_send(carry.ctl, ask, sizeof *ask, conn) : -1;
}

static void
ask_to_finish(void)
{
	if (carry.pid[SCHEDULER] != 0) {
		kill(carry.pid[SCHEDULER], SIGTERM);
	}
	if (carry_running() && carry.kill_at == INT64_MAX) {
		carry.kill_at = mono_ms() + FINISH_MS;
	}
}

void
carry_kill(void)
{
	for (int part = 0; part < PARTS; part++) {
		if (carry.pid[part] != 0) {
			kill(carry.pid[part], SIGKILL);
		}
	}
}

void
carry_renew(void)
{
	carry.wanted = 1;
	carry.pause = 0;
	carry.start_at = 0;
	ask_to_finish();
}

void
carry_stop(void)
{
	carry.wanted = 0;
	ask_to_finish();
}

int64_t
carry_due(void)
{
	if (carry_running()) {
		return carry.kill_at < carry.look_at ? carry.kill_at : carry.look_at;
	}
	return carry.wanted ? carry.start_at : INT64_MAX;
}

void
carry_tend(const struct house *h)
{
	int64_t now = mono_ms();

	if (carry_running()) {
		if (now >= carry.kill_at) {
			carry_kill();
		}
		if (now >= carry.look_at) {
			carry.look_at = now + LOOK_MS;
			if (dns_conf_changed(&h->config->relay.dns, NULL, NULL)) {
				log_msg(LOG_INFO, "reload", "there are other name servers");
				dns_conf_load(&h->config->relay.dns, NULL, NULL);
				carry_renew();
			}
		}
		return;
	}
	carry.kill_at = INT64_MAX;
	if (!carry.wanted || now < carry.start_at) {
		return;
	}
	if (h->spool.kind != SPOOL_QUEUE || !h->config->relay.on) {
		carry.start_at = INT64_MAX; /* until the next configuration */
		return;
	}
	start(h);
	/* Should it end soon, not at once again. */
	carry.pause = carry.pause == 0 ? PAUSE_MIN_MS : carry.pause * 2 < PAUSE_MAX_MS ? carry.pause * 2 : PAUSE_MAX_MS;
	carry.start_at = carry.began + carry.pause;
	carry.look_at = now + LOOK_MS;
}

int
carry_died(pid_t pid, int status)
{
	for (int part = 0; part < PARTS; part++) {
		if (pid != carry.pid[part]) {
			continue;
		}
		carry.pid[part] = 0;
		if (part == SCHEDULER && carry.ctl != -1) {
			close(carry.ctl);
			carry.ctl = -1;
		}
		if (mono_ms() - carry.began > WELL_MS) {
			carry.pause = 0;
			carry.start_at = 0;
		}
		if (part == SCHEDULER && WIFEXITED(status) && WEXITSTATUS(status) == RELAY_BUSY) {
			/* It is not ill, only not alone: look again soon, but do not fill the log. */
			carry.pause = PAUSE_MIN_MS;
		} else if (carry.wanted && carry.kill_at == INT64_MAX && status != 0) {
			log_msg(LOG_ERR, slots_by_crash(status) ? "crash" : "queue",
			    "%s ended, %s %d: delivery starts over", names[part],
			    WIFEXITED(status) ? "status" : "signal",
			    WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
		}
		ask_to_finish();
		return 1;
	}
	return 0;
}

#endif
