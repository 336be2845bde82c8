/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The scheduler and its cleaner by themselves, linked with all of the real objects: for tests, which play the nursery and the remotes, and turn the
 * clock.
 *
 *   scheduler HOME NURSERY [CLOCK]   HOME has control/ and queue/; NURSERY: number of a descriptor, the socket to the nursery
 *
 * CLOCK is a file of two 64-bit numbers: what to add to the time of day, and to the time since boot. The cleaner is a child. Everything belongs to who
 * runs it. SCHEDULER_WAIT in the environment: stop, to be attached to, before the start.
 */
#include "cleanint.h"
#include "msg.h"
#include "relayint.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static const int64_t *clocks;

int __real_clock_gettime(clockid_t id, struct timespec *t);
int __wrap_clock_gettime(clockid_t id, struct timespec *t);
int
__wrap_clock_gettime(clockid_t id, struct timespec *t)
{
	int rc = __real_clock_gettime(id, t);

	if (clocks != NULL && rc == 0 && id == CLOCK_REALTIME) {
		t->tv_sec += clocks[0];
	} else if (clocks != NULL && rc == 0 && id == CLOCK_BOOTTIME) {
		t->tv_sec += clocks[1];
	}
	return rc;
}

/* Nobody tells it when the clock is turned. */
int __real_ppoll(struct pollfd *p, nfds_t n, const struct timespec *t, const sigset_t *mask);
int __wrap_ppoll(struct pollfd *p, nfds_t n, const struct timespec *t, const sigset_t *mask);
int
__wrap_ppoll(struct pollfd *p, nfds_t n, const struct timespec *t, const sigset_t *mask)
{
	static const struct timespec moment = { .tv_nsec = 50000000 };

	return __real_ppoll(p, n, clocks != NULL && (t->tv_sec > 0 || t->tv_nsec > moment.tv_nsec) ? &moment : t, mask);
}

static void
load_clock(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	void *p = fd == -1 ? MAP_FAILED : mmap(NULL, 16, PROT_READ, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED) {
		perror(path);
		exit(100);
	}
	close(fd);
	clocks = p;
}

int
main(int argc, char **argv)
{
	const char *ctl;
	static struct relay_conf conf;
	static struct cleaner cleaner;
	struct diag d = { .emit = diag_to_log };
	struct secrets *secrets = secret_map();
	char queue[512];
	int sv[2], nursery;

	if (argc < 3 || secrets == NULL) {
		fprintf(stderr, "usage: scheduler HOME NURSERY [CLOCK]\n");
		return 100;
	}
	nursery = atoi(argv[2]);
	if (argc > 3) {
		load_clock(argv[3]);
	}
	relay_conf_load(&conf, argv[1], "mail.example.net", secrets, &d);
	str_fmt(queue, sizeof queue, "%s/queue", argv[1]);
	if (d.errors > 0 || !conf.on || spool_open(&cleaner.spool, SPOOL_QUEUE, queue, &d) == -1 ||
	    chdir(queue) == -1 || msg_pair(sv) == -1) {
		fprintf(stderr, "scheduler: cannot start: %s\n", strerror(errno));
		return 100;
	}
	ctl = getenv("SCHEDULER_CTL");
	if (getenv("SCHEDULER_WAIT") != NULL) {
		raise(SIGSTOP);
	}
	if (fork() == 0) {
		close(nursery);
		close(sv[0]);
		cleaner.conf = &conf;
		cleaner.send_uid = 4711;
		local_open(&conf, geteuid());
		clean_loop(&cleaner, sv[1]);
	}
	close(sv[1]);
	relay_loop(
	    &conf, cleaner.spool.split, cleaner.spool.journal, geteuid(), sv[0], nursery, ctl == NULL ? -1 : atoi(ctl));
}
