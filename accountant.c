/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The accountant as main sees it: one child, which can be killed at any moment, since all it knows is in the file. Signals: SIGTERM ends it at
 * once, SIGINT when the last records are sent.
 */
#include "accountant.h"

#if ACCOUNTING

#include "acct.h"
#include "control.h"
#include "log.h"
#include "nursery.h"
#include "secret.h"
#include "share.h"
#include "slots.h"
#include "str.h"
#include "users.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define WELL_MS 60000
#define PAUSE_MIN_MS 1000
#define PAUSE_MAX_MS 60000

static struct {
	pid_t pid;
	int wanted, fresh;
	int64_t began, start_at;
	int pause;
} clerk;

void
accountant_init(int fresh)
{
	clerk.wanted = 1;
	clerk.fresh = fresh;
}

int
accountant_running(void)
{
	return clerk.pid != 0;
}

void
accountant_renew(void)
{
	clerk.pause = 0;
	clerk.start_at = 0;
	if (clerk.pid != 0) {
		kill(clerk.pid, SIGTERM);
	}
}

void
accountant_stop(int finish)
{
	clerk.wanted = 0;
	if (clerk.pid != 0) {
		kill(clerk.pid, finish ? SIGINT : SIGTERM);
	}
}

int64_t
accountant_due(void)
{
	return clerk.pid == 0 && clerk.wanted ? clerk.start_at : INT64_MAX;
}

/* Into its place: with nothing open but the log, the file and its bell. */
static void
place(const struct house *h)
{
	for (unsigned i = 0; i < h->closes; i++) {
		close(h->close[i]);
	}
	users_close();
	log_keep(NULL);
	nursery_forget();
	secret_keep_radius(h->config->secrets);
	umask(077);
	priv_drop(&h->ids, PRIV_WARDEN, h->jail);
	if (h->jail != -1) {
		close(h->jail);
	}
	close(h->spool_dir);
	close(h->null);
	prctl(PR_SET_NAME, "stile-acct", 0, 0, 0);
	prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0);
	if (getppid() != h->parent) {
		_exit(0);
	}
	priv_filter(PRIV_WARDEN);
}

void
accountant_tend(const struct house *h)
{
	if (clerk.pid != 0 || !clerk.wanted || mono_ms() < clerk.start_at) {
		return;
	}
	if (acct_fd() == -1 || !acct_wanted(h->config)) {
		clerk.start_at = INT64_MAX; /* until the next configuration */
		return;
	}
	clerk.began = mono_ms();
	clerk.pause = clerk.pause == 0 ? PAUSE_MIN_MS : clerk.pause * 2 < PAUSE_MAX_MS ? clerk.pause * 2 : PAUSE_MAX_MS;
	clerk.start_at = clerk.began + clerk.pause;
	clerk.pid = fork();
	if (clerk.pid == 0) {
		place(h);
		acct_send(h, clerk.fresh);
	}
	if (clerk.pid == -1) {
		clerk.pid = 0;
		log_msg(LOG_ERR, "limit", "cannot start the accountant: %s", strerror(errno));
		return;
	}
	clerk.fresh = 0;
}

int
accountant_died(pid_t pid, int status)
{
	if (pid != clerk.pid) {
		return 0;
	}
	clerk.pid = 0;
	if (mono_ms() - clerk.began > WELL_MS) {
		clerk.pause = 0;
		clerk.start_at = 0;
	}
	if (clerk.wanted && status != 0 && !(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM)) {
		log_msg(LOG_ERR, slots_by_crash(status) ? "crash" : "acct",
		    "stile-acct ended, %s %d: it is started anew", WIFEXITED(status) ? "status" : "signal",
		    WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
	}
	return 1;
}

#endif
