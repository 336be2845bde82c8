/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Orders about the queue while no scheduler runs. The tool then is one, for as long as it takes: it holds lock/sendmutex, so that neither ours nor
 * a qmail-send begins meanwhile, takes over what is in the queue and in todo/, and carries orders out by the scheduler's own code; a cleaner, as
 * USER_SPOOL, is its child. Deliveries there are none: it has no places for them. Killed at any point it leaves what a scheduler would leave.
 *
 * No secret is read, nor a route. Everything of the queue is read as USER_SEND, in the queue's directory.
 */
#include "offline.h"

#include "cleanint.h"
#include "log.h"
#include "msg.h"
#include "relay.h"
#include "relayint.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#if TOOLS && RELAY

static struct relay relay;

static void
to_stderr(struct diag *d, enum diag_level level, const char *file, int line, const char *text)
{
	(void)d;
	if (level == DIAG_ERROR) {
		print(STDERR_FILENO, "mailstile: %s:%d: %s\n", file == NULL ? "queue" : file, line, text);
	}
}

static _Noreturn void
clean(struct cleaner *c, const struct priv_ids *ids, int dir, int sock)
{
	/* It ends with the tool, and not in the middle of something. */
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	if (!ids->root && fchdir(dir) == -1) {
		_exit(111);
	}
	priv_drop(ids, PRIV_CLEAN, dir);
	close(dir);
	prctl(PR_SET_NAME, "stile-clean", 0, 0, 0);
	priv_filter(PRIV_CLEAN);
	clean_loop(c, sock);
}

/* A child that is the cleaner; the socket to it, or -1. */
static int
start_cleaner(const struct relay_conf *conf, const struct spool *spool, const struct priv_ids *ids, int dir)
{
	static struct cleaner c;
	int sv[2];
	pid_t pid;

	if (msg_pair(sv) == -1) {
		return -1;
	}
	pid = fork();
	if (pid == 0) {
		close(sv[0]);
		c.conf = conf;
		c.spool = *spool;
		c.send_uid = ids->send_uid;
		clean(&c, ids, dir, sv[1]);
	}
	close(sv[1]);
	if (pid == -1) {
		close(sv[0]);
	}
	return pid == -1 ? -1 : sv[0];
}

/* Take the queue over. 0 or an exit status. */
static int
take_over(const char *home)
{
	int rc = relay_lock();

	if (rc == RELAY_BUSY) {
		print(STDERR_FILENO,
		    "mailstile: another program delivers from %s/queue. If it is qmail-send, stop it, and repeat this; if it is mailstile, name its socket with -S\n",
		    home);
	} else if (rc != 0) {
		print(STDERR_FILENO, "mailstile: %s/queue/lock/sendmutex: %s\n", home, strerror(errno));
	}
	if (rc != 0) {
		return 111;
	}
	relay_set_up(&relay);
	relay_clocks(&relay);
	relay.began = relay.mono;
	if (todo_takeover(&relay) == -1) {
		print(STDERR_FILENO, "mailstile: %s/queue/info cannot be read: %s\n", home, strerror(errno));
		return 111;
	}
	todo_begin(&relay);
	while (todo_some(&relay)) {
	}
	return relay.lost ? 111 : 0;
}

int
offline_begin(const char *home, const struct priv_ids *ids, int dir)
{
	static struct relay_conf conf;
	static struct spool spool;
	struct diag d = { .emit = to_stderr };
	char path[512];

	/* What is done belongs into the log; where there is none, people see it. */
	if (log_open(LOG_TO_SYSLOG) == -1) {
		log_open(LOG_TO_STDERR);
	}
	relay_conf_load_queue(&conf, home, &d);
	if (d.errors > 0 || spool_open(&spool, SPOOL_QUEUE, str_fmt(path, sizeof path, "%s/queue", home), &d) == -1) {
		return 100;
	}
	relay.conf = &conf;
	relay.split = spool.split;
	relay.journal = spool.journal;
	relay.spool_uid = ids->spool_uid;
	relay.nursery = relay.ctl = -1;
	relay.clean = start_cleaner(&conf, &spool, ids, dir);
	if (relay.clean == -1) {
		print(STDERR_FILENO, "mailstile: %s\n", strerror(errno));
		return 111;
	}
	umask(077);
	if (!ids->root && fchdir(dir) == -1) {
		return 111;
	}
	priv_drop(ids, PRIV_RELAY, dir);
	return take_over(home);
}

int
offline_query(enum ctl_type type, uint64_t arg, void *answer, size_t size)
{
	const struct ctl_ask ask = { .magic = CTL_MAGIC, .type = type, .arg = arg };
	const void *a;
	size_t len;

	relay_clocks(&relay);
	len = relayctl_answer(&relay, &ask, &a);
	if (relay.lost || len == 0 || len > size) {
		return -1;
	}
	memcpy(answer, a, len);
	return 0;
}

void
offline_end(void)
{
	pass_drop(&relay);
	relay_write_times(&relay);
}

#elif TOOLS

int
offline_nobody(void)
{
	print(STDERR_FILENO, "mailstile: no scheduler of ours runs here, to carry this out\n");
	return 111;
}

#endif
