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

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
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
} acct;

void
accountant_init(int fresh)
{
	acct.wanted = 1;
	acct.fresh = fresh;
}

int
accountant_running(void)
{
	return acct.pid != 0;
}

void
accountant_renew(void)
{
	acct.pause = 0;
	acct.start_at = 0;
	if (acct.pid != 0) {
		kill(acct.pid, SIGTERM);
	}
}

void
accountant_stop(int finish)
{
	acct.wanted = 0;
	if (acct.pid != 0) {
		kill(acct.pid, finish ? SIGINT : SIGTERM);
	}
}

int64_t
accountant_due(void)
{
	return acct.pid == 0 && acct.wanted ? acct.start_at : INT64_MAX;
}

/* Into its place: with nothing open but the log, the file and its bell. */
static void
place(const struct house *h)
{
	for (unsigned i = 0; i < h->closes; i++) {
		close(h->close[i]);
	}
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
	if (acct.pid != 0 || !acct.wanted || mono_ms() < acct.start_at) {
		return;
	}
	if (acct_fd() == -1 || !acct_wanted(h->config)) {
		acct.start_at = INT64_MAX; /* until the next configuration */
		return;
	}
	acct.began = mono_ms();
	acct.pause = acct.pause == 0 ? PAUSE_MIN_MS : acct.pause * 2 < PAUSE_MAX_MS ? acct.pause * 2 : PAUSE_MAX_MS;
	acct.start_at = acct.began + acct.pause;
	acct.pid = fork();
	if (acct.pid == 0) {
		place(h);
		acct_send(h, acct.fresh);
	}
	if (acct.pid == -1) {
		acct.pid = 0;
		log_msg(LOG_ERR, "limit", "cannot start the accountant: %s", strerror(errno));
		return;
	}
	acct.fresh = 0;
}

int
accountant_died(pid_t pid, int status)
{
	if (pid != acct.pid) {
		return 0;
	}
	acct.pid = 0;
	if (mono_ms() - acct.began > WELL_MS) {
		acct.pause = 0;
		acct.start_at = 0;
	}
	if (acct.wanted && status != 0 && !(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM)) {
		log_msg(LOG_ERR, slots_by_crash(status) ? "crash" : "acct", "stile-acct ended, %s %d: it is started anew",
		    WIFEXITED(status) ? "status" : "signal", WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
	}
	return 1;
}

#endif
