/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * A change of one control file. control/.try/control is the candidate: the new file, and links to all others; the server's own code reads it
 * as a home of its own. What was read there is what rename() brings in, so a cut at any point leaves the old file or the new one.
 */
#include "settings.h"

#if SETTINGS

#include "control.h"
#include "server.h"
#include "str.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define TRY ".try"
#define TRY_CONTROL ".try/control"
#define NAME_LEN 96 /* of our own names; a file in control/ with a longer one is none of ours */

/* ---- the candidate ---- */

static int
tell(const char *what)
{
	print(STDERR_FILENO, "mailstile: %s: %s\n", what, strerror(errno));
	return -1;
}

/* Remove the candidate, and whatever else a run that was cut off has left of one. */
static void
drop(int dir)
{
	int fd = openat(dir, TRY_CONTROL, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *d = fd == -1 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (d != NULL) {
		while ((e = readdir(d)) != NULL) {
			if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
				(void)unlinkat(fd, e->d_name, 0);
			}
		}
		closedir(d);
	} else if (fd != -1) {
		close(fd);
	}
	(void)unlinkat(dir, TRY_CONTROL, AT_REMOVEDIR);
	(void)unlinkat(dir, TRY, AT_REMOVEDIR);
}

/* Links to all files but `but` and, when `force`, those that decide whether mail is carried on from here. */
static int
link_others(int dir, int try, const char *but, int force)
{
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd == -1 ? NULL : fdopendir(fd);
	struct dirent *e;
	char target[NAME_LEN + 8];
	int rc = 0;

	if (d == NULL) {
		return -1;
	}
	while (rc == 0 && (e = readdir(d)) != NULL) {
		if (e->d_name[0] == '.' || strlen(e->d_name) > NAME_LEN || strcmp(e->d_name, but) == 0 ||
		    (force && (strcmp(e->d_name, "relay") == 0 || strcmp(e->d_name, "spool") == 0))) {
			continue;
		}
		str_fmt(target, sizeof target, "../../%s", e->d_name);
		rc = symlinkat(target, try, e->d_name);
	}
	closedir(d);
	return rc;
}

static int
write_file(int dir, const char *name, const char *text, size_t len)
{
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd == -1 || write_all(fd, text, len) == -1) {
		if (fd != -1) {
			close(fd);
		}
		return -1;
	}
	return fd;
}

/* ---- what the server would say of it ---- */

struct judge {
	struct diag d; /* first: what the loaders know of us */
	const char *home;
	char candidate[512]; /* home/control/.try/control/ */
	const char *key;
	int show;
	unsigned own, others; /* errors of the file, of all else */
};

static void
judge_emit(struct diag *d, enum diag_level level, const char *file, int line, const char *text)
{
	struct judge *j = (struct judge *)(void *)d;
	size_t len = strlen(j->candidate);
	const char *name = NULL;
	char path[512];
	int own;

	if (file != NULL && strncmp(file, j->candidate, len) == 0) {
		name = file + len;
		file = str_fmt(path, sizeof path, "%s/control/%s", j->home, name);
	}
	own = name != NULL && strcmp(name, j->key) == 0;
	if (level == DIAG_ERROR) {
		j->own += own ? 1 : 0;
		j->others += own ? 0 : 1;
	}
	if (j->show > 1 ? level == DIAG_ERROR : j->show && own) {
		diag_to_stdout(d, level, file, line, text);
	}
}

/* A line that can never fit anything is a warning of `check`'s, since qmail takes it; here somebody has just typed it. */
static void
judge_lines(struct diag *d, enum diag_level level, const char *file, int line, const char *text)
{
	(void)level;
	judge_emit(d, DIAG_ERROR, file, line, text);
}

static void
judge(struct judge *j, const struct settings_home *h, const struct setting *s, int show)
{
	char home[512];
	struct config *c;

	*j = (struct judge){ .d = { .emit = judge_emit }, .home = h->home, .key = s->key, .show = show };
	str_fmt(home, sizeof home, "%s/control/" TRY, h->home);
	str_fmt(j->candidate, sizeof j->candidate, "%s/control/", home);
	c = config_load(home, &j->d);
	if (c != NULL) {
		j->d.emit = judge_lines;
		check_all_lines(c, &j->d);
		config_free(c);
	}
}

/* Build a candidate with `text` (NULL: without the file; s->key of the present set when `now`) and judge it. 0 or -1. */
static int
try_out(const struct settings_home *h, const struct setting *s, const char *text, size_t len, int now, int force,
    struct judge *j, int show)
{
	int try, fd, rc = -1;

	drop(h->dir);
	if (mkdirat(h->dir, TRY, 0700) == -1 || mkdirat(h->dir, TRY_CONTROL, 0700) == -1) {
		return tell("control/" TRY);
	}
	try = openat(h->dir, TRY_CONTROL, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (try == -1 || link_others(h->dir, try, now ? "" : s->key, force) == -1) {
		goto out;
	}
	if (force) {
		fd = strcmp(s->key, "relay") == 0 ? -2 : write_file(try, "relay", "on\n", 3);
		if (fd == -1) {
			goto out;
		}
		close(fd);
	}
	if (text != NULL && !now) {
		fd = write_file(try, s->key, text, len);
		if (fd == -1) {
			goto out;
		}
		close(fd);
	}
	judge(j, h, s, show);
	rc = 0;
out:
	if (rc == -1) {
		tell("control/" TRY);
	}
	if (try != -1) {
		close(try);
	}
	return rc;
}

/* 0 the new set has no fault that the present one has not; 100 it has, and which was told; 111. */
static int
acceptable(const struct settings_home *h, const struct setting *s, const char *text, size_t len)
{
	struct judge before, after;

	for (int force = s->relay; force >= 0; force--) {
		if (try_out(h, s, NULL, 0, 1, force, &before, 0) == -1 ||
		    try_out(h, s, text, len, 0, force, &after, 0) == -1) {
			return 111;
		}
		if (after.own > 0 || after.others > before.others) {
			judge(&after, h, s, after.own > 0 ? 1 : 2);
			return 100;
		}
	}
	judge(&after, h, s, 1); /* warnings */
	return 0;
}

/* ---- bringing it in ---- */

static const char *
with(char name[NAME_LEN], const char *key, const char *suffix)
{
	return str_fmt(name, NAME_LEN, "%s%s", key, suffix);
}

static int
have(int dir, const char *name)
{
	struct stat st;

	return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Keep what is there, unless something older is kept. */
static int
keep(int dir, const char *key)
{
	char old[NAME_LEN], none[NAME_LEN];
	int fd;

	if (have(dir, with(old, key, ".old")) || have(dir, with(none, key, ".none"))) {
		return 0;
	}
	if (have(dir, key)) {
		return linkat(dir, key, dir, old, 0);
	}
	fd = write_file(dir, none, "", 0);
	return fd == -1 ? -1 : close(fd);
}

/* Owner and mode as the file had them; a new one is its owner's alone when it holds a secret. */
static int
dress(int dir, const struct setting *s)
{
	char path[NAME_LEN];
	struct stat st;
	int fd = openat(dir, str_fmt(path, sizeof path, TRY_CONTROL "/%s", s->key), O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
	int rc = -1;

	if (fd == -1) {
		return -1;
	}
	if (fstatat(dir, s->key, &st, AT_SYMLINK_NOFOLLOW) == -1) {
		rc = fchmod(fd, s->secret ? 0600 : 0644);
	} else if (st.st_uid == geteuid() || fchown(fd, st.st_uid, st.st_gid) == 0) {
		rc = fchmod(fd, st.st_mode & (s->secret ? 0700 : 0777));
	}
	if (fsync(fd) == -1) {
		rc = -1;
	}
	return close(fd) == -1 ? -1 : rc;
}

static int
install(const struct settings_home *h, const struct setting *s, int gone)
{
	char path[NAME_LEN];

	if ((!gone && dress(h->dir, s) == -1) || keep(h->dir, s->key) == -1 || fsync(h->dir) == -1) {
		return -1;
	}
	if (gone ? unlinkat(h->dir, s->key, 0) == -1 && errno != ENOENT
		 : renameat(h->dir, str_fmt(path, sizeof path, TRY_CONTROL "/%s", s->key), h->dir, s->key) == -1) {
		return -1;
	}
	return fsync(h->dir);
}

int
settings_change(const struct settings_home *h, const struct setting *s, const char *text, size_t len)
{
	struct stat st;
	int rc;

	if (fstatat(h->dir, s->key, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISREG(st.st_mode)) {
		print(STDERR_FILENO, "mailstile: control/%s is no plain file: change what it points to\n", s->key);
		return 100;
	}
	rc = acceptable(h, s, text, len);
	if (rc == 0 && install(h, s, text == NULL) == -1) {
		tell(s->key);
		rc = 111;
	}
	drop(h->dir);
	return rc;
}

int
settings_settle(const struct settings_home *h)
{
	char from[NAME_LEN], to[NAME_LEN];

	for (size_t i = 0; i < settings_n; i++) {
		if (renameat(h->dir, with(from, settings[i].key, ".old"), h->dir, with(to, settings[i].key, ".last")) ==
			-1 &&
		    errno != ENOENT) {
			return -1;
		}
		if (unlinkat(h->dir, with(from, settings[i].key, ".none"), 0) == -1 && errno != ENOENT) {
			return -1;
		}
	}
	return fsync(h->dir);
}

int
settings_restore(const struct settings_home *h)
{
	char name[NAME_LEN];
	int n = 0;

	for (size_t i = 0; i < settings_n; i++) {
		const char *key = settings[i].key;

		if (have(h->dir, with(name, key, ".old"))) {
			/* When both are one file still, rename() does nothing, and the name stays. */
			if (renameat(h->dir, name, h->dir, key) == -1 ||
			    (unlinkat(h->dir, name, 0) == -1 && errno != ENOENT)) {
				return -1;
			}
			n++;
		} else if (have(h->dir, with(name, key, ".none"))) {
			if ((unlinkat(h->dir, key, 0) == -1 && errno != ENOENT) || unlinkat(h->dir, name, 0) == -1) {
				return -1;
			}
			n++;
		}
	}
	return fsync(h->dir) == -1 ? -1 : n;
}

int
settings_open(struct settings_home *h, const char *home)
{
	char path[512];

	h->home = home == NULL ? HOME_DIR : home;
	str_fmt(path, sizeof path, "%s/control", h->home);
	h->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (h->dir == -1 || flock(h->dir, LOCK_EX) == -1) {
		tell(path[0] == '\0' ? "home" : path);
		settings_close(h);
		return -1;
	}
	drop(h->dir);
	return 0;
}

void
settings_close(struct settings_home *h)
{
	if (h->dir != -1) {
		close(h->dir);
	}
	h->dir = -1;
}

#endif
