/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * How much each login has sent. A head of 512 octets, and records of 512, found by a hash of the name and a short walk from there. A record is
 * changed under an fcntl lock on it, which dies with its holder; its sum tells one that was torn by a power cut from a good one, and then nobody
 * whose record it might be is served: a count that is not known must not read as none.
 *
 * A message is counted before it is stored and given back when that fails: a crash in between counts one too many, never one too few. The first
 * record of a user is made under a lock on the head, and takes the place of somebody who has not sent today where there is no other.
 *
 * A day begins when the clock says so, and never by a clock that is not set or has been put back.
 */
#include "users.h"

#include "priv.h"
#include "str.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#if ACCOUNTS

#define USED 1U
#define MAGIC 0x6d737531 /* "msu1"; in another byte order it is another number */
#define SIZE 512
#define WALK 64                  /* records that a name may be in */
#define SESSION_LOCKS 0x40000000 /* a lock in this part of the file, where nothing is stored, is a session */
#define SESSIONS_EACH 4096

_Static_assert(sizeof(struct users_record) == SIZE, "a record is a sector: one write of a disk");

/* Of the file: these, and zeros. */
enum { HEAD_MAGIC, HEAD_SIZE, HEAD_SLOTS, HEAD_WORDS = SIZE / 4 };

static int file = -1;
static uint32_t slots;
static int32_t zone;

/* ---- the file ---- */

static int
lock_op(int how, short type, off_t at, off_t len)
{
	struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = len };
	int rc;

	do {
		rc = fcntl(file, how, &l);
	} while (rc == -1 && errno == EINTR);
	return how == F_GETLK && rc == 0 ? l.l_type != F_UNLCK : rc;
}

static off_t
place_of(uint32_t i)
{
	return (off_t)SIZE * ((off_t)i + 1);
}

static int
lock(uint32_t i)
{
	return lock_op(F_SETLKW, F_WRLCK, place_of(i), 1);
}

static void
unlock(uint32_t i)
{
	lock_op(F_SETLK, F_UNLCK, place_of(i), 1);
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

static uint32_t
record_sum(const struct users_record *r)
{
	return sum_of((const uint8_t *)r + sizeof r->sum, sizeof *r - sizeof r->sum);
}

/* 1 a good record, 0 an empty place, -1 neither. */
static int
load(uint32_t i, struct users_record *r)
{
	if (pread(file, r, sizeof *r, place_of(i)) != (ssize_t)sizeof *r) {
		return -1;
	}
	if ((r->flags & USED) == 0) {
		return r->sum == 0 && r->flags == 0 && r->name_len == 0 ? 0 : -1;
	}
	return r->sum == record_sum(r) && r->name_len < sizeof r->name && r->name[r->name_len] == '\0' ? 1 : -1;
}

static int
store(uint32_t i, struct users_record *r)
{
	r->sum = record_sum(r);
	return pwrite(file, r, sizeof *r, place_of(i)) == (ssize_t)sizeof *r ? 0 : -1;
}

/* The head of a file that is as it should be tells how many records there are. 0 or -1. */
static int
adopt(int fd)
{
	uint32_t h[HEAD_WORDS];
	struct stat st;

	if (pread(fd, h, sizeof h, 0) != (ssize_t)sizeof h || fstat(fd, &st) == -1 || h[HEAD_MAGIC] != MAGIC ||
	    h[HEAD_SIZE] != SIZE || h[HEAD_SLOTS] == 0 || h[HEAD_SLOTS] > 65536 ||
	    st.st_size != place_of(h[HEAD_SLOTS])) {
		return -1;
	}
	slots = h[HEAD_SLOTS];
	file = fd;
	return 0;
}

static int
fill(int fd)
{
	const uint32_t h[HEAD_WORDS] = { [HEAD_MAGIC] = MAGIC, [HEAD_SIZE] = SIZE, [HEAD_SLOTS] = USERS_MAX };

	return write_all(fd, h, sizeof h) == 0 && ftruncate(fd, place_of(USERS_MAX)) == 0 && fsync(fd) == 0 ? 0 : -1;
}

int
users_use(int fd)
{
	struct stat st;

	users_close();
	return fstat(fd, &st) == -1 || (st.st_size == 0 && fill(fd) == -1) ? -1 : adopt(fd);
}

/* Make the file under a name of our own and then link it, so that it is whole, and one, whoever else starts at the same moment. 0 or -1 with errno. */
static int
make(const char *path, int root, uid_t uid, gid_t gid)
{
	char tmp[600], dir[600];
	char *slash;
	int fd, rc, saved;

	str_copy(dir, sizeof dir, path);
	slash = strrchr(dir, '/');
	if (slash != NULL && slash != dir) {
		*slash = '\0';
		if (mkdir(dir, 0755) == -1 && errno != EEXIST) {
			return -1;
		}
	}
	str_fmt(tmp, sizeof tmp, "%s.%d", path, (int)getpid());
	unlink(tmp);
	fd = open(tmp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd == -1) {
		return -1;
	}
	rc = fill(fd) == 0 && priv_give(fd, root, uid, gid) == 0 && (link(tmp, path) == 0 || errno == EEXIST) ? 0 : -1;
	saved = errno;
	unlink(tmp);
	close(fd);
	errno = saved;
	return rc;
}

static void
path_below(const char *home, char *path, size_t size)
{
	if (strncmp(USERS_FILE, "/", 1) == 0) {
		str_copy(path, size, USERS_FILE);
	} else {
		str_fmt(path, size, "%s/%s", home, USERS_FILE);
	}
}

/* What is open at `fd`, if it is fit for use. 0 or -1. */
static int
use(int fd, const char *path, int root, uid_t uid, struct diag *d)
{
	struct stat st;

	if (fd == -1) {
		diag_put(d, DIAG_ERROR, path, 0, "%s; nobody can log in: what each login has sent is counted there",
		    strerror(errno));
		return -1;
	}
	if (fstat(fd, &st) == -1 || !S_ISREG(st.st_mode) || (root && st.st_uid != uid && st.st_uid != 0) ||
	    (st.st_mode & (S_IWGRP | S_IWOTH)) != 0 || adopt(fd) == -1) {
		diag_put(d, DIAG_ERROR, path, 0,
		    "damaged, or not a file that only user %u can write; nobody can log in. Move it away, and counts and blocks begin anew",
		    (unsigned)uid);
		close(fd);
		return -1;
	}
	return 0;
}

int
users_open(const char *home, int root, uid_t uid, gid_t gid, struct diag *d)
{
	char path[512];
	int fd;

	users_close();
	path_below(home, path, sizeof path);
	fd = priv_open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC, uid);
	if (fd == -1 && errno == ENOENT && make(path, root, uid, gid) == 0) {
		fd = priv_open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC, uid);
	}
	return use(fd, path, root, uid, d);
}

void
users_check(const char *home, int root, uid_t uid, struct diag *d)
{
	char path[512];
	int fd;

	path_below(home, path, sizeof path);
	fd = priv_open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC, uid);
	if (fd != -1 || errno != ENOENT) {
		use(fd, path, root, uid, d);
		users_close();
	}
}

void
users_close(void)
{
	if (file != -1) {
		close(file);
		file = -1;
	}
}

int
users_there(void)
{
	return file != -1;
}

void
users_zone(int32_t seconds)
{
	zone = seconds;
}

/* ---- days ---- */

/* Nothing was sent today, and so it is not known any more what RADIUS has left. */
static void
anew(struct users_record *r)
{
	r->messages = r->rcpts = r->tripped = 0;
	r->limit = (r->flags & USERS_LEFT) != 0 ? LIMIT_NONE : r->limit;
	r->limit_rcpt = (r->flags & USERS_LEFT_RCPT) != 0 ? LIMIT_NONE : r->limit_rcpt;
	r->flags &= ~(USERS_LEFT | USERS_LEFT_RCPT);
}

/* As they are now. */
static void
note_limits(struct users_record *r, const struct limits *l)
{
	r->limit = l->day;
	r->limit_rcpt = l->rcpt;
	r->flags &= ~(USERS_LEFT | USERS_LEFT_RCPT);
	r->flags |= (l->left != LIMIT_NONE ? USERS_LEFT : 0) | (l->left_rcpt != LIMIT_NONE ? USERS_LEFT_RCPT : 0);
}

static void
roll(struct users_record *r, int64_t now)
{
	int64_t local = now + zone;
	uint32_t day = (uint32_t)(local / 86400);

	if (now < BUILD_EPOCH) {
		return; /* the clock is not set */
	}
	if (day > r->day) {
		anew(r);
		r->day = day;
	} else if (r->day > day + 1) {
		/* The clock was far ahead, once: what was counted then is today's. A single day back may be a zone, or a step to and fro. */
		r->day = day;
	}
}

static void
roll_minute(struct users_record *r, int64_t now)
{
	uint32_t minute = (uint32_t)(now / 60);

	if (minute != r->minute) {
		r->minute = minute;
		r->burst = 0;
	}
}

/* ---- finding ---- */

static uint32_t
start_of(const char *user)
{
	return sum_of(user, strlen(user)) % slots;
}

/* As load(), and a record that looks bad is looked at again when nobody can be writing it. */
static int
look(uint32_t i, struct users_record *r)
{
	int rc = load(i, r);

	if (rc == -1 && lock(i) == 0) {
		rc = load(i, r);
		unlock(i);
	}
	return rc;
}

/* Where the user's record is. 1; 0: there is none; -1: that cannot be said. */
static int
find(const char *user, uint32_t *at, struct users_record *r)
{
	uint32_t first = start_of(user);

	for (uint32_t k = 0; k < WALK && k < slots; k++) {
		int rc = look((first + k) % slots, r);

		*at = (first + k) % slots;
		if (rc != 1) {
			return rc; /* places are never given up, so it cannot be behind an empty one */
		}
		if (strcmp(r->name, user) == 0) {
			return 1;
		}
	}
	return 0;
}

/* May this record go to somebody else? He has not sent today, and has no session. */
static int
is_idle(uint32_t i, const struct users_record *r, int64_t now)
{
	struct users_record today = *r;

	roll(&today, now);
	return (r->flags & USERS_BLOCKED) == 0 && today.messages == 0 && today.tripped == 0 &&
	    lock_op(F_GETLK, F_WRLCK, SESSION_LOCKS + (off_t)i * SESSIONS_EACH, SESSIONS_EACH) == 0;
}

/* A place for a new record, its lock held. 0 or -1. */
static int
take_place(const char *user, uint32_t *at, int64_t now)
{
	uint32_t first = start_of(user), oldest = UINT32_MAX;
	struct users_record r;
	int found = 0;

	for (uint32_t k = 0; k < WALK && k < slots; k++) {
		uint32_t i = (first + k) % slots;
		int rc = look(i, &r);

		if (rc == 0) {
			*at = i;
			return lock(i);
		}
		if (rc == 1 && r.last < oldest && is_idle(i, &r, now)) {
			*at = i;
			oldest = r.last;
			found = 1;
		}
	}
	if (!found || lock(*at) == -1) {
		return -1;
	}
	if (load(*at, &r) != 1 || !is_idle(*at, &r, now)) {
		unlock(*at);
		return -1;
	}
	return 0;
}

/* A new record, locked. Holds the head's lock meanwhile: two of one name would each have half of the count. 0 or -1. */
static int
insert(const char *user, uint32_t *at, struct users_record *r, int64_t now)
{
	int rc = -1;

	if (lock_op(F_SETLKW, F_WRLCK, 0, 1) == -1) {
		return -1;
	}
	switch (find(user, at, r)) {
	case 1:
		rc = lock(*at) == 0 && load(*at, r) == 1
		    ? 0
		    : -1; /* somebody has just made it; nobody takes it while we have the head */
		break;
	case 0:
		if (take_place(user, at, now) == -1) {
			break;
		}
		memset(r, 0, sizeof *r);
		r->flags = USED;
		r->name_len = (uint32_t)strlen(user);
		memcpy(r->name, user, r->name_len);
		r->limit = r->limit_rcpt = LIMIT_NONE;
		rc = store(*at, r);
		if (rc == -1) {
			unlock(*at);
		}
		break;
	default:
		break;
	}
	lock_op(F_SETLK, F_UNLCK, 0, 1);
	return rc;
}

/* The user's record, locked and brought to this day. 1; 0: there is none, and none was to be made; -1 */
static int
hold(const char *user, uint32_t *at, struct users_record *r, int make_it, int64_t now)
{
	if (file == -1 || strlen(user) > AUTH_USER_MAX) {
		return -1;
	}
	for (int tries = 0; tries < 8; tries++) {
		int rc = find(user, at, r);

		if (rc == -1 || (rc == 0 && !make_it)) {
			return rc;
		}
		if (rc == 0 ? insert(user, at, r, now) : lock(*at)) {
			return -1;
		}
		if (load(*at, r) == 1 && strcmp(r->name, user) == 0) {
			roll(r, now);
			roll_minute(r, now);
			return 1;
		}
		unlock(*at); /* it was given to somebody else in between */
	}
	return -1;
}

/* ---- what wardens ask ---- */

static uint32_t
sum_capped(uint32_t a, uint32_t b)
{
	return b < LIMIT_NONE - 1 - a ? a + b : LIMIT_NONE - 1;
}

/* Take one of the user's places for sessions; the kernel gives it back when we end. */
static enum verdict
take_session(uint32_t at, uint32_t most)
{
	for (uint32_t k = 0; k < most && k < SESSIONS_EACH; k++) {
		if (lock_op(F_SETLK, F_WRLCK, SESSION_LOCKS + (off_t)at * SESSIONS_EACH + (off_t)k, 1) == 0) {
			return V_OK;
		}
	}
	return V_LIMIT_SESSIONS;
}

enum verdict
users_login(const char *user, struct limits *l, int64_t now)
{
	struct users_record r;
	enum verdict v = V_OK;
	uint32_t at;
	int rc = hold(user, &at, &r, l->sessions != LIMIT_NONE, now);

	if (rc == -1) {
		return V_NO_COUNTS;
	}
	if (l->left != LIMIT_NONE) {
		l->day = sum_capped(rc == 1 ? r.messages : 0, l->left);
	}
	if (l->left_rcpt != LIMIT_NONE) {
		l->rcpt = sum_capped(rc == 1 ? r.rcpts : 0, l->left_rcpt);
	}
	if (rc == 1) {
		if (l->sessions != LIMIT_NONE) {
			v = take_session(at, l->sessions);
		}
		unlock(at);
	}
	return v;
}

static enum verdict
judge(const struct users_record *r, const struct limits *l, unsigned rcpts)
{
	if ((r->flags & USERS_BLOCKED) != 0) {
		return V_BLOCKED;
	}
	if (r->messages >= l->day) {
		return V_LIMIT_DAY;
	}
	if (l->rcpt != LIMIT_NONE && (uint64_t)r->rcpts + (rcpts == 0 ? 1 : rcpts) > l->rcpt) {
		return V_LIMIT_RCPT;
	}
	return r->burst >= l->rate ? V_LIMIT_RATE : V_OK;
}

/* Is this the first limit of the day? Notes that in the record, which is to be stored. */
static int
trips(struct users_record *r, const struct limits *l, enum verdict v)
{
	if (v == V_OK || v == V_BLOCKED || r->tripped) {
		return 0;
	}
	r->tripped = 1;
	note_limits(r, l);
	return 1;
}

/* On the disk, where there is a limit that a power cut should not lift; every USERS_FLUSH_SECONDS, if that is not with each message. */
static int
flush(const struct limits *l)
{
	static int64_t flushed = -1;

	if (l->day == LIMIT_NONE && l->rcpt == LIMIT_NONE) {
		return 0;
	}
	if (USERS_FLUSH_SECONDS > 0) {
		if (flushed != -1 && mono_ms() - flushed < USERS_FLUSH_SECONDS * INT64_C(1000)) {
			return 0;
		}
		flushed = mono_ms();
	}
	return fdatasync(file);
}

static enum verdict
ask(const char *user, const struct limits *l, unsigned rcpts, int64_t now, int *first, int book)
{
	struct users_record r;
	enum verdict v;
	uint32_t at;
	int rc = hold(user, &at, &r, book, now);

	*first = 0;
	if (rc == 0) {
		/* Nothing sent, ever; but it may be that nothing is allowed, either, and that has to be noted somewhere. */
		memset(&r, 0, sizeof r);
		v = judge(&r, l, rcpts);
		if (v == V_OK) {
			return V_OK;
		}
		rc = hold(user, &at, &r, 1, now);
	}
	if (rc != 1) {
		return V_NO_COUNTS;
	}
	v = judge(&r, l, rcpts);
	*first = trips(&r, l, v);
	if (v == V_OK && book) {
		r.messages = sum_capped(r.messages, 1);
		r.rcpts = sum_capped(r.rcpts, rcpts);
		r.burst = sum_capped(r.burst, 1);
		r.total++;
		r.last = (uint32_t)now;
		note_limits(&r, l);
	}
	if ((*first || (v == V_OK && book)) && store(at, &r) == -1) {
		v = V_NO_COUNTS;
		*first = 0;
	}
	unlock(at);
	/* Without the lock: others of this user need not wait for the disk. */
	if (v == V_OK && book && flush(l) == -1) {
		users_unbook(user, rcpts, now);
		v = V_NO_COUNTS;
	}
	return v;
}

enum verdict
users_ask(const char *user, const struct limits *l, unsigned rcpts, int64_t now, int *first)
{
	return ask(user, l, rcpts, now, first, 0);
}

enum verdict
users_book(const char *user, const struct limits *l, unsigned rcpts, int64_t now, int *first)
{
	return ask(user, l, rcpts, now, first, 1);
}

void
users_unbook(const char *user, unsigned rcpts, int64_t now)
{
	struct users_record r;
	uint32_t at;

	if (hold(user, &at, &r, 0, now) != 1) {
		return;
	}
	/* Midnight may have been in between. */
	if (r.messages > 0 && r.rcpts >= rcpts) {
		r.messages--;
		r.rcpts -= rcpts;
	}
	r.burst -= r.burst > 0;
	r.total -= r.total > 0;
	(void)store(at, &r);
	unlock(at);
}

/* ---- what the tool asks ---- */

int
users_next(uint32_t *at, struct users_record *r, int64_t now)
{
	while (*at < slots) {
		int rc = look((*at)++, r);

		if (rc == 1) {
			roll(r, now);
		}
		if (rc != 0) {
			return rc;
		}
	}
	return 0;
}

int
users_change(const char *user, uint32_t set, uint32_t clear, int again, int64_t now)
{
	struct users_record r;
	uint32_t at;
	int rc = hold(user, &at, &r, set != 0, now);

	errno = rc == 0 ? 0 : errno;
	if (rc != 1) {
		return -1;
	}
	r.flags = (r.flags & ~clear) | set;
	if (again) {
		anew(&r);
		r.burst = 0;
	}
	rc = store(at, &r) == -1 || fdatasync(file) == -1 ? -1 : r.total == 0;
	unlock(at);
	return rc;
}

#endif
