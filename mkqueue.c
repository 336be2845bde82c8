/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * `mailstile mkqueue`: makes qmail's queue with the owners and modes of qmail-spec 1.2, or says what is wrong with the one that is there.
 * It never changes what exists. Run by an administrator; without root every part belongs to who runs it.
 */
#include "config.h"
#include "options.h"
#include "priv.h"
#include "queue.h"
#include "str.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum owner { OWNER_SPOOL, OWNER_SEND, OWNER_REMOTE };
enum kind { KIND_DIR, KIND_SPLIT, KIND_EMPTY, KIND_TCPTO, KIND_FIFO };

static const struct part {
	const char *name;
	enum kind kind;
	enum owner owner;
	mode_t mode;
} parts[] = {
	{ "", KIND_DIR, OWNER_SPOOL, 0750 },
	{ "pid", KIND_DIR, OWNER_SPOOL, 0700 },
	{ "mess", KIND_SPLIT, OWNER_SPOOL, 0750 },
	{ "intd", KIND_DIR, OWNER_SPOOL, 0700 },
	{ "todo", KIND_DIR, OWNER_SPOOL, 0750 },
	{ "info", KIND_SPLIT, OWNER_SEND, 0700 },
	{ "local", KIND_SPLIT, OWNER_SEND, 0700 },
	{ "remote", KIND_SPLIT, OWNER_SEND, 0700 },
	{ "bounce", KIND_DIR, OWNER_SEND, 0700 },
	{ "lock", KIND_DIR, OWNER_SPOOL, 0750 },
	{ "lock/sendmutex", KIND_EMPTY, OWNER_SEND, 0600 },
	{ "lock/tcpto", KIND_TCPTO, OWNER_REMOTE, 0644 },
	{ "lock/trigger", KIND_FIFO, OWNER_SEND, 0622 },
};

struct job {
	const char *queue;
	struct priv_ids ids;
	unsigned split;
	unsigned made, wrong;
	struct diag *check; /* look only, and tell it here */
};

static int
make_file(const char *path, size_t zeros)
{
	static const char zero[1024];
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int rc;

	if (fd == -1) {
		return -1;
	}
	rc = write_all(fd, zero, zeros) == -1 || fsync(fd) == -1 ? -1 : 0;
	return close(fd) == -1 ? -1 : rc;
}

static int
make_part(const struct part *p, const char *path)
{
	switch (p->kind) {
	case KIND_EMPTY:
		return make_file(path, 0);
	case KIND_TCPTO:
		return make_file(path, 1024);
	case KIND_FIFO:
		return mkfifo(path, 0600);
	default:
		return mkdir(path, 0700);
	}
}

static int
right_type(const struct part *p, const struct stat *st)
{
	switch (p->kind) {
	case KIND_EMPTY:
		return S_ISREG(st->st_mode);
	case KIND_TCPTO:
		return S_ISREG(st->st_mode) && st->st_size == 1024;
	case KIND_FIFO:
		return S_ISFIFO(st->st_mode);
	default:
		return S_ISDIR(st->st_mode);
	}
}

static void
complain(struct job *j, const char *path, const char *text)
{
	if (j->check != NULL) {
		diag_put(j->check, DIAG_ERROR, path, 0, "%s", text);
		return;
	}
	print(STDOUT_FILENO, "%s: error: %s\n", path, text);
	j->wrong++;
}

static void
one_path(struct job *j, const struct part *p, const char *path)
{
	const uid_t owners[] = { j->ids.spool_uid, j->ids.send_uid, j->ids.remote_uid };
	uid_t uid = owners[p->owner];
	struct stat st;
	char text[160];

	if (lstat(path, &st) == -1) {
		/* Owner first: chown may clear mode bits. */
		if (j->check != NULL || errno != ENOENT || make_part(p, path) == -1 ||
		    lchown(path, uid, j->ids.spool_gid) == -1 || chmod(path, p->mode) == -1) {
			complain(j, path, strerror(errno));
			return;
		}
		j->made++;
		return;
	}
	if (!right_type(p, &st)) {
		complain(j, path, "is of another kind or size than a queue has here");
		return;
	}
	if (j->check != NULL && st.st_uid == uid) {
		return; /* it works, whatever else is odd about it */
	}
	if (st.st_uid != uid || st.st_gid != j->ids.spool_gid || (st.st_mode & 07777) != p->mode) {
		str_fmt(text, sizeof text, "expected owner %lu:%lu mode %04o, found %lu:%lu mode %04o",
		    (unsigned long)uid, (unsigned long)j->ids.spool_gid, (unsigned)p->mode, (unsigned long)st.st_uid,
		    (unsigned long)st.st_gid, (unsigned)(st.st_mode & 07777));
		complain(j, path, text);
	}
}

static void
one_part(struct job *j, const struct part *p)
{
	char path[600];

	str_fmt(path, sizeof path, "%s%s%s", j->queue, p->name[0] == '\0' ? "" : "/", p->name);
	one_path(j, p, path);
	for (unsigned i = 0; p->kind == KIND_SPLIT && i < j->split; i++) {
		str_fmt(path, sizeof path, "%s/%s/%u", j->queue, p->name, i);
		one_path(j, p, path);
	}
}

/* The split of an existing queue, or 0. */
static unsigned
existing_split(const char *queue)
{
	char path[600];
	unsigned n = 0;
	struct stat st;

	do {
		str_fmt(path, sizeof path, "%s/mess/%u", queue, n);
	} while (stat(path, &st) == 0 && S_ISDIR(st.st_mode) && ++n < 100000);
	return n;
}

void
mkqueue_check(const char *queue, const struct priv_ids *ids, unsigned split, struct diag *d)
{
	char path[512];
	struct job j = { .queue = path, .ids = *ids, .split = split, .check = d };

	str_copy(path, sizeof path, queue);
	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
		one_part(&j, &parts[i]);
	}
}

static int
mkqueue_usage(void)
{
	print(STDERR_FILENO, "usage: mailstile mkqueue [-H home] [-n split]\n");
	return 100;
}

static int
sync_tree(const char *queue)
{
	char parent[520];
	int fd = open(queue, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc;

	if (fd == -1) {
		return -1;
	}
	rc = syncfs(fd);
	close(fd);
	str_fmt(parent, sizeof parent, "%s/..", queue);
	return rc == -1 ? -1 : spool_sync_dir(parent);
}

int
mkqueue_main(int argc, char **argv)
{
	const char *home = HOME_DIR;
	const char *missing;
	char queue[512];
	struct job j = { .queue = queue };
	uint64_t split = 0;
	struct options o;
	int opt, existed;

	(void)argc;
	options_begin(&o, argv);
	while ((opt = options_next(&o, "H:n:")) != 0) {
		if (opt == 'H') {
			home = o.value;
		} else if (opt != 'n' || parse_u64(o.value, strlen(o.value), 1000, &split) == -1 || split == 0) {
			return mkqueue_usage();
		}
	}
	if (*o.word != NULL) {
		return mkqueue_usage();
	}
	if (priv_lookup(&j.ids, &missing) == -1) {
		print(STDERR_FILENO, "mailstile: no user or group `%s`: make qmail's users first, see mailstile(8)\n",
		    missing);
		return 100;
	}
	umask(0);
	str_fmt(queue, sizeof queue, "%s/queue", home);
	if (queue[0] == '\0') {
		print(STDERR_FILENO, "mailstile: the home directory's name is too long\n");
		return 100;
	}
	j.split = existing_split(queue);
	existed = j.split != 0;
	if (j.split != 0 && split != 0 && j.split != split) {
		print(STDERR_FILENO, "mailstile: %s is split %u ways; a queue's split cannot be changed\n", queue,
		    j.split);
		return 1;
	}
	if (j.split == 0) {
		j.split = split != 0 ? (unsigned)split : QUEUE_SPLIT;
	}
	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
		one_part(&j, &parts[i]);
		if (i == 0 && j.wrong > 0) {
			return 1; /* nothing below it can be right */
		}
	}
	if (j.made > 0 && sync_tree(queue) == -1) {
		complain(&j, queue, strerror(errno));
	}
	if (j.wrong == 0) {
		print(STDOUT_FILENO, "%s: %s, split %u\n", queue,
		    j.made == 0   ? "in order"
			: existed ? "completed"
				  : "made",
		    j.split);
	}
	return j.wrong == 0 ? 0 : 1;
}
