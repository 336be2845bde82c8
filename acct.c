/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The file of accounting (acct.h): places, locks, and the warden's side of it. Main opens it, wardens and the accountant have it. Nothing here
 * waits for anybody for longer than it takes to look for a place.
 */
#include "acct.h"

#if ACCOUNTING

#include "control.h"
#include "limits.h"
#include "log.h"
#include "priv.h"
#include "radius.h"
#include "str.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Record locks lie behind the places: the search for one, the accountant, and each place's. */
#define LOCK_SEARCH ((off_t)ACCT_PLACE * ACCT_PLACES)
#define LOCK_SENDER (LOCK_SEARCH + 1)
#define LOCK_PLACE(i) (LOCK_SEARCH + 2 + (off_t)(i))
#define LEFT_OLD_MS 1000 /* what the server said is asked for again after that */
/* When no more than so much is left, a session waits for the answer about its last message, so long at most. */
#define NEAR 20
#define NEAR_MS 300

static int file = -1, bell = -1;
static struct acct_session mine; /* of this warden; ACCT_FREE: none */
static unsigned place;

static int
lock_op(int how, short type, off_t at)
{
	struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = 1 };
	int rc;

	do {
		rc = fcntl(file, how, &l);
	} while (rc == -1 && errno == EINTR);
	return how == F_GETLK && rc == 0 ? l.l_type != F_UNLCK : rc;
}

/* FNV-1a. */
static uint32_t
sum_of(const void *p, size_t len)
{
	uint32_t h = UINT32_C(0x811c9dc5);

	for (size_t i = 0; i < len; i++) {
		h = (h ^ ((const uint8_t *)p)[i]) * UINT32_C(0x01000193);
	}
	return h;
}

static int64_t
real_seconds(void)
{
	int64_t now = (int64_t)time(NULL);

	return now < BUILD_EPOCH ? 0 : now;
}

/* ---- the file ---- */

static int
fill(int fd, int root, uid_t uid, gid_t gid)
{
	static const uint8_t zero[ACCT_PLACE];

	for (unsigned i = 0; i < ACCT_PLACES; i++) {
		if (write_all(fd, zero, sizeof zero) == -1) {
			return -1;
		}
	}
	return fsync(fd) == 0 ? priv_give(fd, root, uid, gid) : -1;
}

/* Under another name first: a file that is only half there would stay so. */
static int
make(const char *path, int root, uid_t uid, gid_t gid)
{
	char tmp[600];
	char *slash;
	int fd, rc;

	str_fmt(tmp, sizeof tmp, "%s", path);
	slash = strrchr(tmp, '/');
	*slash = '\0';
	(void)mkdir(tmp, 0755);
	str_fmt(tmp, sizeof tmp, "%s.%d", path, (int)getpid());
	fd = open(tmp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd == -1) {
		return -1;
	}
	rc = fill(fd, root, uid, gid) == 0 && rename(tmp, path) == 0 ? 0 : -1;
	if (rc == -1) {
		int saved = errno;

		unlink(tmp);
		errno = saved;
	}
	close(fd);
	return rc;
}

int
acct_open(const char *home, int root, uid_t uid, gid_t gid, struct diag *d)
{
	static const char name[] = ACCT_FILE;
	const off_t size = (off_t)ACCT_PLACE * ACCT_PLACES;
	char path[512];
	struct stat st;

	if (file != -1) {
		return 0;
	}
	str_fmt(path, sizeof path, "%s%s%s", name[0] == '/' ? "" : home, name[0] == '/' ? "" : "/", name);
	if (lstat(path, &st) == -1 && errno == ENOENT && make(path, root, uid, gid) == -1) {
		diag_put(d, DIAG_ERROR, path, 0, "cannot be made: %s; there is no accounting", strerror(errno));
		return -1;
	}
	file = priv_open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC, uid);
	if (file == -1 || fstat(file, &st) == -1) {
		diag_put(d, DIAG_ERROR, path, 0, "%s; there is no accounting", strerror(errno));
	} else if (!S_ISREG(st.st_mode) || st.st_size != size || (root && st.st_uid != uid && st.st_uid != 0) ||
	    (st.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
		diag_put(d, DIAG_ERROR, path, 0,
		    "expected a file of %d octets that only user %u can write; there is no accounting. Move it away, and it is made anew",
		    (int)size, (unsigned)uid);
	} else {
		bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (bell != -1) {
			return 0;
		}
		diag_put(d, DIAG_ERROR, path, 0, "%s; there is no accounting", strerror(errno));
	}
	acct_close();
	return -1;
}

void
acct_close(void)
{
	if (file != -1) {
		close(file);
	}
	if (bell != -1) {
		close(bell);
	}
	file = bell = -1;
}

int
acct_fd(void)
{
	return file;
}

int
acct_bell(void)
{
	return bell;
}

int
acct_wanted(const struct config *c)
{
	for (unsigned i = 0; i < c->radius.servers; i++) {
		if (c->radius.server[i].acct_port != 0) {
			return 1;
		}
	}
	return 0;
}

int
acct_read(unsigned i, struct acct_place *p)
{
	if (pread(file, p, sizeof *p, (off_t)ACCT_PLACE * i) != (ssize_t)sizeof *p) {
		return 0;
	}
	if (p->a.sum != sum_of(p->a.sid, sizeof p->a - offsetof(struct acct_acked, sid))) {
		memset(&p->a, 0, sizeof p->a); /* then what was acknowledged is sent once more */
	}
	return p->s.sum == sum_of(&p->s.state, sizeof p->s - offsetof(struct acct_session, state));
}

static void
put(const void *p, size_t len, off_t at)
{
	ssize_t n;

	do {
		n = pwrite(file, p, len, at);
	} while (n == -1 && errno == EINTR);
	if (n != (ssize_t)len) {
		log_msg(LOG_ERR, "acct", "cannot write: %s", n == -1 ? strerror(errno) : "too little");
	}
}

void
acct_write_session(unsigned i, struct acct_session *s)
{
	s->sum = sum_of(&s->state, sizeof *s - offsetof(struct acct_session, state));
	put(s, sizeof *s, (off_t)ACCT_PLACE * i);
}

void
acct_write_acked(unsigned i, struct acct_acked *a)
{
	a->sum = sum_of(a->sid, sizeof *a - offsetof(struct acct_acked, sid));
	put(a, sizeof *a, (off_t)ACCT_PLACE * i + ACCT_HALF);
}

int
acct_held(unsigned i)
{
	return lock_op(F_GETLK, F_WRLCK, LOCK_PLACE(i)) == 1;
}

int
acct_alone(void)
{
	return lock_op(F_SETLK, F_WRLCK, LOCK_SENDER);
}

void
acct_sync(void)
{
	(void)fsync(file);
}

/* ---- the warden ---- */

/* Whose place may be taken? Free ones, and those of which nothing is left to send. */
static int
is_free(const struct acct_place *p, int whole)
{
	return !whole || p->s.state == ACCT_FREE ||
	    (p->s.state == ACCT_ENDED && p->a.stop && memcmp(p->a.sid, p->s.sid, sizeof p->s.sid) == 0);
}

static int
take(unsigned i)
{
	if (lock_op(F_SETLK, F_WRLCK, LOCK_PLACE(i)) == -1) {
		return -1;
	}
	place = i;
	return 0;
}

/* A place that is free; else the one whose session ended longest ago, of which the server then never hears the end. 0 or -1. */
static int
find_place(unsigned first)
{
	struct acct_place p;
	int64_t oldest = INT64_MAX;
	unsigned victim = ACCT_PLACES;

	for (unsigned k = 0; k < ACCT_PLACES; k++) {
		unsigned i = (first + k) % ACCT_PLACES;
		int whole = acct_read(i, &p);

		if (is_free(&p, whole) && take(i) == 0) {
			return 0;
		}
		if (whole && p.s.state == ACCT_ENDED && p.s.changed < oldest) {
			oldest = p.s.changed;
			victim = i;
		}
	}
	if (victim == ACCT_PLACES || take(victim) == -1) {
		log_msg(LOG_ERR, "acct", "no place for one more session: raise ACCT_PLACES");
		return -1;
	}
	log_msg(LOG_ERR, "acct", "the server acknowledges nothing: the end of an older session is forgotten");
	return 0;
}

static void
ring(void)
{
	static const uint64_t one = 1;
	ssize_t n = write(bell, &one, sizeof one);

	(void)n; /* when it cannot take it, it rings already */
}

static void
changed(void)
{
	mine.changed = mono_ms();
	mine.changed_real = real_seconds();
	acct_write_session(place, &mine);
	ring();
}

/* Acct-Interim-Interval among what was kept of an accept, in seconds (RFC 2869 5.16). */
static uint32_t
interim_of(const struct radius_answer *a)
{
	uint32_t v = a->interim != 0 ? a->interim : ACCT_INTERIM;

	return v == 0 || v >= ACCT_INTERIM_MIN ? v : ACCT_INTERIM_MIN;
}

void
acct_begin(
    uint32_t run, const char *sid, const char *client, const char *user, const struct radius_answer *a, int keeps)
{
	uint8_t r;
	int rc;

	if (file == -1) {
		return;
	}
	random_bytes(&r, sizeof r);
	while (lock_op(F_SETLKW, F_WRLCK, LOCK_SEARCH) == -1 && errno == EINTR) {
	}
	rc = find_place(r);
	if (rc == 0) {
		memset(&mine, 0, sizeof mine);
		mine.state = ACCT_OPEN;
		mine.run = run;
		mine.began = mono_ms();
		mine.began_real = real_seconds();
		mine.interim = interim_of(a);
		mine.keeps = (uint32_t)keeps;
		str_copy(mine.sid, sizeof mine.sid, sid);
		str_copy(mine.client, sizeof mine.client, client);
		str_copy(mine.user, sizeof mine.user, user);
		for (uint32_t i = 0; i < a->class.len; i += a->class.attributes[i + 1]) {
			uint32_t len = a->class.attributes[i + 1];

			if (mine.class_len + len > sizeof mine.class) {
				log_msg(LOG_WARNING, "acct", "there is more Class than can be kept");
				break;
			}
			memcpy(mine.class + mine.class_len, a->class.attributes + i, len);
			mine.class_len += len;
		}
		changed();
	}
	lock_op(F_SETLK, F_UNLCK, LOCK_SEARCH);
}

void
acct_message(unsigned rcpts, uint64_t octets)
{
	if (mine.state == ACCT_OPEN) {
		mine.messages++;
		mine.rcpts += rcpts;
		mine.octets += octets;
		changed();
	}
}

void
acct_rejected(void)
{
	mine.rejected++; /* goes with what is written next */
}

/* What the server said last, and what of it this session has used since. 1: its last message has been acknowledged. */
static int
look(uint32_t *left, uint32_t *left_rcpt, int64_t *at)
{
	struct acct_place p;

	if (!acct_read(place, &p) || memcmp(p.a.sid, mine.sid, sizeof mine.sid) != 0) {
		*left = *left_rcpt = LIMIT_NONE;
		*at = 0;
		return 0;
	}
	*left = p.a.left;
	*left_rcpt = p.a.left_rcpt;
	*at = mine.asked == p.a.asked ? p.a.at : mono_ms();
	if (*left != LIMIT_NONE) {
		uint32_t since = mine.messages - p.a.messages;

		*left = *left > since ? *left - since : 0;
	}
	if (*left_rcpt != LIMIT_NONE) {
		uint32_t since = mine.rcpts - p.a.rcpts;

		*left_rcpt = *left_rcpt > since ? *left_rcpt - since : 0;
	}
	return mine.messages == p.a.messages;
}

void
acct_left(uint32_t *left, uint32_t *left_rcpt)
{
	static const struct timespec tick = { .tv_nsec = 2000000 };
	int64_t at;

	*left = *left_rcpt = LIMIT_NONE;
	if (mine.state != ACCT_OPEN || !mine.keeps) {
		return;
	}
	for (int i = 0; !look(left, left_rcpt, &at) && i < NEAR_MS / 2 && (*left <= NEAR || *left_rcpt <= NEAR); i++) {
		nanosleep(&tick, NULL);
	}
	if (mono_ms() - at > LEFT_OLD_MS) {
		mine.asked++;
		changed();
	}
}

void
acct_end(enum acct_cause cause)
{
	if (mine.state == ACCT_OPEN) {
		mine.state = ACCT_ENDED;
		mine.cause = (uint32_t)cause;
		changed();
		mine.state = ACCT_FREE;
	}
}

#endif
