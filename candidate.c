/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * A change of control files. control/.try/control is the candidate: the new files, and links to all others; the server's own code reads it
 * as a home of its own. What was read there is what rename() brings in, so a cut at any point leaves the old file or the new one. Of several
 * files the candidate itself is renamed first, to .new: from then on they all are as good as there, and whoever comes next finishes it. The
 * marks .settle and .back do the same for the ends of `apply`. No mark is made while another one is there.
 */
#include "settings.h"

#if SETTINGS

#include "certlook.h"
#include "control.h"
#include "server.h"
#include "str.h"
#include "tlscheck.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define TRY ".try"
#define TRY_CONTROL ".try/control"
#define NEW ".new"
#define NEW_CONTROL ".new/control"
#define SETTLE ".settle"
#define BACK ".back"
#define NAME_LEN 96 /* of our own names; a file in control/ with a longer one is none of ours */

/* ---- the candidate ---- */

static int
tell(const char *what)
{
	print(STDERR_FILENO, "mailstile: %s: %s\n", what, strerror(errno));
	return -1;
}

/* Remove the candidate, and whatever else a run that was cut off has left of one; `outer`/control is `inner`. */
static void
drop(int dir, const char *outer, const char *inner)
{
	int fd = openat(dir, inner, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
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
	(void)unlinkat(dir, inner, AT_REMOVEDIR);
	(void)unlinkat(dir, outer, AT_REMOVEDIR);
}

/* What is changed together. */
struct edits {
	const struct settings_edit *v;
	size_t n;
	int relay; /* there are files of delivery among them */
};

static int
is_edited(const struct edits *e, const char *name)
{
	for (size_t i = 0; i < e->n; i++) {
		if (strcmp(e->v[i].s->key, name) == 0) {
			return 1;
		}
	}
	return 0;
}

/* These decide whether mail is carried on from here. */
static int
is_switch(const char *name)
{
	return strcmp(name, "relay") == 0 || strcmp(name, "spool") == 0;
}

/* Links to all files but the new ones (NULL: to all) and, when `force`, the switches. */
static int
link_others(int dir, int try, const struct edits *but, int force)
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
		if (e->d_name[0] == '.' || strlen(e->d_name) > NAME_LEN || (but != NULL && is_edited(but, e->d_name)) ||
		    (force && is_switch(e->d_name))) {
			continue;
		}
		str_fmt(target, sizeof target, "../../%s", e->d_name);
		rc = symlinkat(target, try, e->d_name);
	}
	closedir(d);
	return rc;
}

/* A file of its owner's alone, not yet flushed. 0 or -1. */
static int
write_file(int dir, const char *name, const char *text, size_t len)
{
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	int rc;

	if (fd == -1) {
		return -1;
	}
	rc = write_all(fd, text, len);
	return close(fd) == -1 ? -1 : rc;
}

/* ---- what the server would say of it ---- */

struct judge {
	struct diag d; /* first: what the loaders know of us */
	const char *home;
	char candidate[512]; /* home/control/.try/control/ */
	const struct edits *edits;
	int show;
	unsigned own, others; /* errors of these files, of all else */
};

/* An error, or what is noted beside it, without what it would bring about, since it is refused. 1; 0: it says nothing else. */
static int
cut_consequence(char *text)
{
	static const char *const begin[] = { "; using ", "; nobody " };

	for (size_t i = 0; i < sizeof begin / sizeof begin[0]; i++) {
		char *p = strstr(text, begin[i]);

		if (p != NULL) {
			*p = '\0';
		}
	}
	return strstr(text, "until this is mended") == NULL;
}

static void
judge_emit(struct diag *d, enum diag_level level, const char *file, int line, const char *text)
{
	struct judge *j = (struct judge *)(void *)d;
	size_t len = strlen(j->candidate);
	const char *name = NULL;
	char path[512], mem[1024];
	int own;

	if (file != NULL && strncmp(file, j->candidate, len) == 0) {
		name = file + len;
		file = str_fmt(path, sizeof path, "%s/control/%s", j->home, name);
	}
	own = name != NULL && is_edited(j->edits, name);
	if (level == DIAG_ERROR) {
		j->own += own ? 1 : 0;
		j->others += own ? 0 : 1;
	}
	name = strstr(text, j->candidate); /* of another file */
	if (name != NULL) {
		str_fmt(mem, sizeof mem, "%.*s%s/control/%s", (int)(name - text), text, j->home, name + len);
	} else {
		str_copy(mem, sizeof mem, text);
	}
	if ((j->show > 1 ? level == DIAG_ERROR : j->show && own) && (level == DIAG_WARN || cut_consequence(mem))) {
		diag_to_stdout(d, level, file, line, mem);
	}
}

/* A line that can never fit anything is a warning of `check`'s, since qmail takes it; here somebody has just typed it. */
static void
judge_lines(struct diag *d, enum diag_level level, const char *file, int line, const char *text)
{
	(void)level;
	judge_emit(d, DIAG_ERROR, file, line, text);
}

#if SELFTEST

/* A new name, as who has seen the certificate will see it. */
static void
judge_name(struct judge *j, const struct config *c)
{
	char path[600];

	if (certlook_judge(&c->chain, c->me, (int64_t)time(NULL), NULL, 0) == BR_ERR_X509_BAD_SERVER_NAME) {
		diag_put(&j->d, DIAG_WARN, str_fmt(path, sizeof path, "%sme", j->candidate), 0,
		    "the certificate is for another name: " CERTLOOK_REMEDY);
	}
}

/* A new certificate, as a client sees it. */
static void
judge_certificate(struct judge *j, const struct settings_home *h, const struct config *c)
{
	const enum diag_level level = h->strict ? DIAG_ERROR : DIAG_WARN;
	const int error = certlook_judge(&c->chain, c->me, (int64_t)time(NULL), NULL, 0);
	char path[600];

	str_fmt(path, sizeof path, "%sservercert.pem", j->candidate);
	if (error == BR_ERR_X509_BAD_SERVER_NAME) {
		diag_put(
		    &j->d, level, path, 0, "is for another name: expected one for %s, which control/me says", c->me);
	} else if (error == BR_ERR_X509_EXPIRED) {
		diag_put(&j->d, level, path, 0, "is not valid at this date");
	} else if (error != BR_ERR_X509_NOT_TRUSTED && error != TLSCHECK_CLOCK) {
		diag_put(
		    &j->d, level, path, 0, "expected the certificate first, then that of who issued it, and so on");
	}
}

#endif

static void
judge(struct judge *j, const struct settings_home *h, const struct edits *e, int show)
{
	char home[512];
	struct config *c;

	*j = (struct judge){ .d = { .emit = judge_emit }, .home = h->home, .edits = e, .show = show };
	str_fmt(home, sizeof home, "%s/control/" TRY, h->home);
	str_fmt(j->candidate, sizeof j->candidate, "%s/control/", home);
	c = config_load(home, &j->d);
	if (c != NULL) {
#if SELFTEST
		if (c->chain.key_type != 0 && is_edited(e, "servercert.pem")) {
			judge_certificate(j, h, c);
		} else if (c->chain.key_type != 0 && is_edited(e, "me")) {
			judge_name(j, c);
		}
#endif
		j->d.emit = judge_lines;
		check_all_lines(c, &j->d);
		config_free(c);
	}
}

/* Write the new files. 0 or -1. */
static int
write_edits(int try, const struct edits *e, int force)
{
	int rc = force ? write_file(try, "relay", "on\n", 3) : 0;

	for (size_t i = 0; i < e->n && rc == 0; i++) {
		if (e->v[i].text != NULL && !(force && is_switch(e->v[i].s->key))) {
			rc = write_file(try, e->v[i].s->key, e->v[i].text, e->v[i].len);
		}
	}
	return rc;
}

/* Build a candidate, of the present set when `now`, and judge it unless j is NULL. 0 or -1. */
static int
try_out(const struct settings_home *h, const struct edits *e, int now, int force, struct judge *j)
{
	const struct edits none = { .n = 0 };
	int try, rc = -1;

	drop(h->dir, TRY, TRY_CONTROL);
	if (mkdirat(h->dir, TRY, 0700) == -1 || mkdirat(h->dir, TRY_CONTROL, 0700) == -1) {
		return tell("control/" TRY);
	}
	try = openat(h->dir, TRY_CONTROL, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (try == -1 || link_others(h->dir, try, now ? NULL : e, force) == -1 ||
	    write_edits(try, now ? &none : e, force) == -1) {
		tell("control/" TRY);
	} else {
		rc = 0;
		if (j != NULL) {
			judge(j, h, e, 0);
		}
	}
	if (try != -1) {
		close(try);
	}
	return rc;
}

/* 0 the new set has no fault that the present one has not; 100 it has, and which was told; 111. */
static int
acceptable(const struct settings_home *h, const struct edits *e)
{
	struct judge before, after;

	for (int force = e->relay; force >= 0; force--) {
		if (try_out(h, e, 1, force, &before) == -1 || try_out(h, e, 0, force, &after) == -1) {
			return 111;
		}
		if (after.own > 0 || after.others > before.others) {
			judge(&after, h, e, after.own > 0 ? 1 : 2);
			return 100;
		}
	}
	if (!h->dry) {
		judge(&after, h, e, 1); /* warnings */
	}
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

	if (have(dir, with(old, key, ".old")) || have(dir, with(none, key, ".none"))) {
		return 0;
	}
	if (have(dir, key)) {
		return linkat(dir, key, dir, old, 0);
	}
	return write_file(dir, none, "", 0);
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

/* One file: a rename is all there is to it. 0 or -1. */
static int
install_one(int dir, const struct settings_edit *e)
{
	char path[NAME_LEN];

	if (e->text == NULL
		? unlinkat(dir, e->s->key, 0) == -1 && errno != ENOENT
		: renameat(dir, str_fmt(path, sizeof path, TRY_CONTROL "/%s", e->s->key), dir, e->s->key) == -1) {
		return -1;
	}
	return fsync(dir);
}

/* Bring in what stands in .new, as often as it takes: KEY comes, .KEY goes. 0 or -1. */
static int
finish(int dir)
{
	char path[NAME_LEN];
	struct stat st;

	for (size_t i = 0; i < settings_n; i++) {
		const char *key = settings[i].key;

		if (fstatat(dir, str_fmt(path, sizeof path, NEW_CONTROL "/%s", key), &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		    S_ISREG(st.st_mode)) {
			if (renameat(dir, path, dir, key) == -1) {
				return -1;
			}
		} else if (have(dir, str_fmt(path, sizeof path, NEW_CONTROL "/.%s", key)) &&
		    unlinkat(dir, key, 0) == -1 && errno != ENOENT) {
			return -1;
		}
	}
	if (fsync(dir) == -1) {
		return -1;
	}
	drop(dir, NEW, NEW_CONTROL);
	return have(dir, NEW) ? -1 : 0;
}

/* Several files. 0 or -1. */
static int
install_all(int dir, const struct edits *e)
{
	char path[NAME_LEN];
	int fd, rc;

	for (size_t i = 0; i < e->n; i++) {
		if (e->v[i].text == NULL &&
		    write_file(dir, str_fmt(path, sizeof path, TRY_CONTROL "/.%s", e->v[i].s->key), "", 0) == -1) {
			return -1;
		}
	}
	fd = openat(dir, TRY_CONTROL, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd == -1) {
		return -1;
	}
	rc = fsync(fd);
	close(fd);
	if (rc == -1 || renameat(dir, TRY, dir, NEW) == -1 || fsync(dir) == -1) {
		return -1;
	}
	return finish(dir);
}

static int
install(int dir, const struct edits *e)
{
	for (size_t i = 0; i < e->n; i++) {
		if ((e->v[i].text != NULL && dress(dir, e->v[i].s) == -1) || keep(dir, e->v[i].s->key) == -1) {
			return -1;
		}
	}
	return fsync(dir) == -1 ? -1 : e->n == 1 ? install_one(dir, e->v) : install_all(dir, e);
}

static int
change_all(const struct settings_home *h, const struct settings_edit *edit, size_t n, int checked)
{
	struct edits e = { edit, n, 0 };
	struct stat st;
	int rc;

	for (size_t i = 0; i < n; i++) {
		e.relay |= edit[i].s->relay;
		if (fstatat(h->dir, edit[i].s->key, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISREG(st.st_mode)) {
			print(STDERR_FILENO, "mailstile: control/%s is no plain file: change what it points to\n",
			    edit[i].s->key);
			return 100;
		}
	}
	rc = checked ? acceptable(h, &e) : try_out(h, &e, 0, 0, NULL) == -1 ? 111 : 0;
	if (rc == 0 && !h->dry && install(h->dir, &e) == -1) {
		tell(edit[0].s->key);
		rc = 111;
	}
	drop(h->dir, TRY, TRY_CONTROL);
	return rc;
}

int
settings_change_all(const struct settings_home *h, const struct settings_edit *edit, size_t n)
{
	return change_all(h, edit, n, 1);
}

int
settings_force(const struct settings_home *h, const struct settings_edit *edit, size_t n)
{
	return change_all(h, edit, n, 0);
}

int
settings_change(const struct settings_home *h, const struct setting *s, const char *text, size_t len)
{
	const struct settings_edit e = { s, text, len };

	return change_all(h, &e, 1, 1);
}

/* ---- the kept set ---- */

static int
settle(int dir)
{
	char from[NAME_LEN], to[NAME_LEN];

	for (size_t i = 0; i < settings_n; i++) {
		const char *key = settings[i].key;

		/* Where both names are one file's, rename() does nothing, and the name stays. */
		if (have(dir, with(from, key, ".old")) &&
		    (renameat(dir, from, dir, with(to, key, ".last")) == -1 ||
			(unlinkat(dir, from, 0) == -1 && errno != ENOENT))) {
			return -1;
		}
		if (unlinkat(dir, with(from, key, ".none"), 0) == -1 && errno != ENOENT) {
			return -1;
		}
	}
	return 0;
}

static int
restore(int dir)
{
	char name[NAME_LEN];
	int n = 0;

	for (size_t i = 0; i < settings_n; i++) {
		const char *key = settings[i].key;

		if (have(dir, with(name, key, ".old"))) {
			if (renameat(dir, name, dir, key) == -1 || (unlinkat(dir, name, 0) == -1 && errno != ENOENT)) {
				return -1;
			}
			n++;
		} else if (have(dir, with(name, key, ".none"))) {
			if ((unlinkat(dir, key, 0) == -1 && errno != ENOENT) || unlinkat(dir, name, 0) == -1) {
				return -1;
			}
			n++;
		}
	}
	return n;
}

/* A step about many files, under its mark. What `step` returns, or -1. */
static int
marked(int dir, const char *mark, int (*step)(int dir))
{
	int n;

	if ((!have(dir, mark) && write_file(dir, mark, "", 0) == -1) || fsync(dir) == -1) {
		return -1;
	}
	n = step(dir);
	if (n == -1 || fsync(dir) == -1 || unlinkat(dir, mark, 0) == -1 || fsync(dir) == -1) {
		return -1;
	}
	return n;
}

int
settings_settle(const struct settings_home *h)
{
	return marked(h->dir, SETTLE, settle);
}

int
settings_restore(const struct settings_home *h)
{
	return marked(h->dir, BACK, restore);
}

static int
recover(int dir)
{
	return (have(dir, NEW) && finish(dir) == -1) || (have(dir, SETTLE) && marked(dir, SETTLE, settle) == -1) ||
		(have(dir, BACK) && marked(dir, BACK, restore) == -1)
	    ? -1
	    : 0;
}

int
settings_recover(const char *home, struct diag *d)
{
	char path[512];
	int rc = 0, dir = open(str_fmt(path, sizeof path, "%s/control", home), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (dir == -1) {
		return 0; /* whoever reads will say so */
	}
	if ((have(dir, NEW) || have(dir, SETTLE) || have(dir, BACK)) &&
	    (flock(dir, LOCK_EX) == -1 || recover(dir) == -1)) {
		diag_put(d, DIAG_ERROR, path, 0, "a change was cut off, and cannot be brought to its end: %s",
		    strerror(errno));
		rc = -1;
	}
	close(dir);
	return rc;
}

int
settings_open(struct settings_home *h, const char *home)
{
	char path[512];

	h->home = home == NULL ? HOME_DIR : home;
	h->strict = h->dry = 0;
	str_fmt(path, sizeof path, "%s/control", h->home);
	h->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (h->dir == -1 || flock(h->dir, LOCK_EX) == -1 || recover(h->dir) == -1) {
		tell(path[0] == '\0' ? "home" : path);
		settings_close(h);
		return -1;
	}
	drop(h->dir, TRY, TRY_CONTROL);
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
