/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* A helper process as main sees it, and its way into its place: see clerk.h. */
#include "clerk.h"

#include "log.h"
#include "nursery.h"
#include "priv.h"
#include "slots.h"
#include "str.h"
#include "users.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#if ACCOUNTING || KEEPER

#define WELL_MS 60000
#define PAUSE_MIN_MS 1000
#define PAUSE_MAX_MS 60000

void
clerk_renew(struct clerk *c)
{
	c->pause = 0;
	c->start_at = 0;
	if (c->pid != 0) {
		kill(c->pid, SIGTERM);
	}
}

void
clerk_stop(struct clerk *c, int sig)
{
	c->wanted = 0;
	if (c->pid != 0) {
		kill(c->pid, sig);
	}
}

int64_t
clerk_due(const struct clerk *c)
{
	return c->pid == 0 && c->wanted ? c->start_at : INT64_MAX;
}

int
clerk_start(struct clerk *c, int asked)
{
	if (c->pid != 0 || !c->wanted || mono_ms() < c->start_at) {
		return -1;
	}
	if (!asked) {
		c->start_at = INT64_MAX; /* until the next configuration */
		return -1;
	}
	c->began = mono_ms();
	c->pause = c->pause == 0 ? PAUSE_MIN_MS : c->pause * 2 < PAUSE_MAX_MS ? c->pause * 2 : PAUSE_MAX_MS;
	c->start_at = c->began + c->pause;
	c->pid = fork();
	if (c->pid == -1) {
		c->pid = 0;
		log_msg(LOG_ERR, "limit", "cannot start %s: %s", c->name, strerror(errno));
		return -1;
	}
	return c->pid != 0;
}

int
clerk_died(struct clerk *c, pid_t pid, int status)
{
	if (pid != c->pid) {
		return 0;
	}
	c->pid = 0;
	if (mono_ms() - c->began > WELL_MS) {
		c->pause = 0;
		c->start_at = 0;
	}
	if (c->wanted && status != 0 && !(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM)) {
		log_msg(LOG_ERR, slots_by_crash(status) ? "crash" : c->event, "%s ended, %s %d: it is started anew",
		    c->name, WIFEXITED(status) ? "status" : "signal",
		    WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
	}
	return 1;
}

/* ---- the child ---- */

void
clerk_place(const struct house *h, const struct clerk *c, enum priv_role role, int keep)
{
	for (unsigned i = 0; i < h->closes; i++) {
		if (h->close[i] != keep) {
			close(h->close[i]);
		}
	}
	users_close();
	log_keep(NULL);
	nursery_forget();
	umask(077);
	priv_drop(&h->ids, role, h->jail);
	if (h->jail != -1) {
		close(h->jail);
	}
	close(h->spool_dir);
	close(h->null);
	prctl(PR_SET_NAME, c->name, 0, 0, 0);
	prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0);
	if (getppid() != h->parent) {
		_exit(0);
	}
	priv_filter(role);
}

void
clerk_signals(void (*on_int)(int))
{
	struct sigaction sa = { .sa_handler = on_int };
	sigset_t blocked;

	sigemptyset(&sa.sa_mask);
	sigaction(SIGINT, &sa, NULL);
	sa.sa_handler = SIG_DFL;
	sigaction(SIGTERM, &sa, NULL);
	sa.sa_handler = SIG_IGN;
	sigaction(SIGHUP, &sa, NULL);
	sigemptyset(&blocked);
	if (on_int != SIG_DFL) {
		sigaddset(&blocked, SIGINT);
	}
	sigprocmask(SIG_SETMASK, &blocked, NULL);
}

#endif
