/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* Setting the house up: users, control files, spool, jail. Runs as who started us, before any stranger is heard. */
#include "house.h"

#include "log.h"
#include "radius.h"
#include "str.h"
#include "users.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Is this directory fit to lock a stranger in: empty, root's, and writable by nobody else? */
static int
jail_fit(int fd, const char **why)
{
	struct stat st;
	DIR *dir;
	const struct dirent *de;
	int entries = 0;
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	*why = strerror(errno);
	if (copy == -1 || fstat(fd, &st) == -1 || (dir = fdopendir(copy)) == NULL) {
		return 0;
	}
	while ((de = readdir(dir)) != NULL) {
		entries += strcmp(de->d_name, ".") != 0 && strcmp(de->d_name, "..") != 0;
	}
	closedir(dir);
	*why = "is not empty";
	if (entries > 0) {
		return 0;
	}
	*why = "belongs not to root, or others may write to it";
	return st.st_uid == 0 && (st.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

/* The jail's descriptor; -1: it is not fit to be one, which `d` is told. */
static int
fit_jail(const char *path, struct diag *d)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	const char *why = strerror(errno);

	if (fd != -1 && jail_fit(fd, &why)) {
		return fd;
	}
	diag_put(d, DIAG_ERROR, path, 0, "%s; expected an empty directory of root's: it jails smtp processes", why);
	if (fd != -1) {
		close(fd);
	}
	return -1;
}

static int
open_jail(struct house *h, struct diag *d)
{
	char path[512];

	h->jail = -1;
	if (!h->ids.root) {
		return 0;
	}
	str_fmt(path, sizeof path, "%s/empty", h->config->home);
	if (mkdir(path, 0555) == -1 && errno != EEXIST) {
		diag_put(d, DIAG_ERROR, path, 0, "cannot be made: %s; it is the root directory of smtp processes",
		    strerror(errno));
		return 100;
	}
	h->jail = fit_jail(path, d);
	return h->jail == -1 ? 100 : 0;
}

void
house_check_jail(const struct config *c, const struct priv_ids *ids, struct diag *d)
{
	char path[512];
	struct stat st;
	int fd;

	str_fmt(path, sizeof path, "%s/empty", c->home);
	if (!ids->root || (lstat(path, &st) == -1 && errno == ENOENT)) {
		return;
	}
	fd = fit_jail(path, d);
	if (fd != -1) {
		close(fd);
	}
}

static int
open_spool(const struct config *c, uid_t uid, struct spool *s, int *dirfd, struct diag *d)
{
	if (spool_open(s, c->spool, c->spool_dir, d) == -1) {
		return -1;
	}
	spool_check_owner(s, c->spool_dir, uid, d);
	*dirfd = open(c->spool_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (*dirfd == -1) {
		diag_put(d, DIAG_ERROR, c->spool_dir, 0, "cannot be opened: %s", strerror(errno));
		return -1;
	}
	return 0;
}

/* The counts. That they cannot be had is told, and then refuses each login. */
static void
open_users(const struct house *h, struct diag *d)
{
#if ACCOUNTS
	users_zone(h->config->zone);
	users_open(h->config->home, h->ids.root, h->ids.spool_uid, h->ids.spool_gid, d);
#else
	(void)h;
	(void)d;
#endif
}

static void
warn(struct diag *d, const struct house *h)
{
	if (!h->ids.root) {
		diag_put(d, DIAG_WARN, NULL, 0,
		    "not started as root: no separate users, no jail: for desks and demonstrations");
	}
	if (time(NULL) < BUILD_EPOCH) {
		diag_put(d, DIAG_WARN, NULL, 0,
		    "the clock is before this program's build date and counts as not set: %s",
		    ACCEPT_WITHOUT_CLOCK ? "mail is accepted all the same" : "mail is answered 451 until it is");
	}
}

int
house_open(struct house *h, const char *home, struct diag *d)
{
	const char *missing;
	int rc;

	memset(h, 0, sizeof *h);
	h->jail = h->null = h->spool_dir = -1;
	if (priv_lookup(&h->ids, &missing) == -1) {
		diag_put(d, DIAG_ERROR, NULL, 0, "no user or group `%s`: make qmail's users first, see mailstile(8)",
		    missing);
		return 100;
	}
	h->config = config_load(home, d);
	if (h->config == NULL || open_spool(h->config, h->ids.spool_uid, &h->spool, &h->spool_dir, d) == -1) {
		return 100;
	}
	rc = open_jail(h, d);
	if (rc != 0) {
		return rc;
	}
	h->null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (h->null == -1) {
		diag_put(d, DIAG_ERROR, NULL, 0, "cannot open /dev/null: %s", strerror(errno));
		return 111;
	}
	/* Failing this only means no TLS, which has been told; logins are then not offered. */
	config_first_certificate(h->config, d);
	open_users(h, d);
	warn(d, h);
	return 0;
}

int
house_reload(struct house *h, struct diag *d)
{
	struct config *c = config_load(h->config->home, d);
	struct spool s;
	int dirfd;

	if (c == NULL || open_spool(c, h->ids.spool_uid, &s, &dirfd, d) == -1) {
		config_free(c);
		return -1;
	}
	config_first_certificate(c, d);
	config_free(h->config);
	close(h->spool_dir);
	h->config = c;
	h->spool = s;
	h->spool_dir = dirfd;
	open_users(h, d);
	return 0;
}
