/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The cleaner: mailboxes of this host (control/localmaildirs). Their directories are opened before root and the way to them are given up: it
 * has a descriptor for each, and names in it nothing but tmp/ and new/ and what it puts there itself. A file in a Maildir (qmail-spec 5.1) is
 *
 *   Return-Path: <sender>
 *   Delivered-To: recipient      as in local/N: with what virtualdomains has put before it
 *   the message
 *
 * complete and flushed in tmp/ before it is linked into new/, which is flushed before the scheduler hears of it and marks the recipient. A crash
 * between the two delivers it twice; no crash loses it. A message that has this Delivered-To line already is on its way round.
 */
#include "cleanint.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int dirs[LOCAL_MAILDIRS_MAX + 1];

int
local_dir(const char *path, uid_t uid)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd == -1) {
		return -1;
	}
	if (fstat(fd, &st) == -1 || st.st_uid != uid) {
		close(fd);
		errno = EPERM;
		return -1;
	}
	for (unsigned i = 0; i < 3; i++) {
		static const char *const names[] = { "tmp", "new", "cur" };

		if (fstatat(fd, names[i], &st, AT_SYMLINK_NOFOLLOW) == -1 || !S_ISDIR(st.st_mode) || st.st_uid != uid) {
			close(fd);
			errno = ENOTDIR;
			return -1;
		}
	}
	return fd;
}

void
local_open(const struct relay_conf *c, uid_t uid)
{
	for (size_t i = 0; i < c->maildirs.n; i++) {
		const char *path = c->maildirs.v[i] + strlen(c->maildirs.v[i]) + 1;

		dirs[i] = local_dir(path, uid);
		if (dirs[i] == -1) {
			log_msg(LOG_ERR, "queue", "mail for %s waits: no Maildir of ours at %s: %s", c->maildirs.v[i],
			    path, strerror(errno));
		}
	}
}

/* Is there such a line in the header? */
static int
has_line(int mess, const char *line, size_t len)
{
	char mem[2048], *p, *end;
	off_t at = 0;
	ssize_t n;

	/* By lines; of one that is longer than any of ours, the rest counts as another. */
	while ((n = pread(mess, mem, sizeof mem, at)) > 0) {
		for (p = mem; p < mem + n; p = end + 1) {
			end = memchr(p, '\n', (size_t)(mem + n - p));
			if (end == p) {
				return 0;
			}
			if (end == NULL) {
				break;
			}
			if ((size_t)(end - p) == len && ascii_casecmp(p, line, len) == 0) {
				return 1;
			}
		}
		at += p > mem ? p - mem : n;
	}
	return 0;
}

static int
write_message(struct out *o, const struct clean_ask *ask, const char *line, int mess)
{
	buf_init(&o->b, o->mem, sizeof o->mem);
	o->bad = 0;
	out_return_path(o, ask);
	out_str(o, line);
	out_str(o, "\n");
	(void)out_file(o, mess, UINT64_MAX);
	out_flush(o);
	errno = o->bad;
	return o->bad ? -1 : fsync(o->fd);
}

/* Link tmp/NAME to new/NAME, for good. 0 or -1 with errno, and then it is not there. */
static int
publish(int dir, const char *tmp, const char *new)
{
	int fd, rc, saved;

	if (linkat(dir, tmp, dir, new, 0) == -1) {
		return -1;
	}
	fd = openat(dir, "new", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	rc = fd == -1 ? -1 : fsync(fd);
	saved = errno;
	if (fd != -1) {
		close(fd);
	}
	if (rc == -1) {
		unlinkat(dir, new, 0);
	}
	errno = saved;
	return rc;
}

/* 0 or -1 with errno. */
static int
store(const struct cleaner *c, int dir, const struct clean_ask *ask, const char *line, int mess)
{
	static struct out o;
	static unsigned serial;
	char name[400], new[400];
	struct timespec now;
	int rc, saved;

	clock_gettime(CLOCK_REALTIME, &now);
	str_fmt(name, sizeof name, "tmp/%lld.M%ldP%dQ%u.%s", (long long)now.tv_sec, now.tv_nsec / 1000, (int)getpid(),
	    ++serial, c->conf->me);
	str_fmt(new, sizeof new, "new/%s", name + 4);
	o.fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (o.fd == -1) {
		return -1;
	}
	rc = write_message(&o, ask, line, mess);
	saved = errno;
	if (close(o.fd) == -1 && rc == 0) {
		rc = -1;
		saved = errno;
	}
	if (rc == 0) {
		rc = publish(dir, name, new);
		saved = errno;
	}
	unlinkat(dir, name, 0);
	errno = saved;
	return rc;
}

void
local_deliver(const struct cleaner *c, const struct clean_ask *ask, int mess, struct clean_answer *a)
{
	char line[DELIVER_ADDR_MAX + 32];
	int dir = ask->maildir < c->conf->maildirs.n ? dirs[ask->maildir] : -1;

	str_fmt(line, sizeof line, "Delivered-To: %s", ask->rcpt);
	for (char *p = line; *p != '\0'; p++) {
		*p = (char)(*p == '\n' ? '_' : *p);
	}
	if (dir == -1) {
		a->why = ENOENT;
	} else if (has_line(mess, line, strlen(line))) {
		a->why = CLEAN_LOOP;
	} else if (store(c, dir, ask, line, mess) == -1) {
		a->why = (uint32_t)errno;
	} else {
		a->ok = 1;
	}
}
