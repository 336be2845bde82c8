/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Giving up privileges, the same way for every role: chroot, groups, ids, proof that they are gone, rlimits, no_new_privs. The
 * system call filters are in filter.c.
 */
#include "priv.h"

#include "config.h"
#include "log.h"
#include "str.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * Descriptors a process may have. An smtp process: 0-4, see session.c. A warden needs few, but the kernel lets it hand one over only while the
 * descriptors on their way, of all processes of its user together, are no more than this: one a session, until its smtp process looks.
 */
#define SMTP_NOFILE 5
#define WARDEN_NOFILE (SESSIONS_MAX + 64)
#define REMOTE_NOFILE 16
#define KEEPER_NOFILE (KEEPER_CHANNELS + 2 * RADIUS_SERVERS_MAX + 16)
#define CLEAN_NOFILE (16 + LOCAL_MAILDIRS_MAX)

/* In a line of /etc/passwd or /etc/group (`name:password:number:...`) the number, when the name is this one. 0 or -1. */
static int
number_of(const char *line, size_t len, const char *name, uint64_t *n)
{
	size_t name_len = strlen(name);
	const char *p, *end;

	if (len <= name_len || memcmp(line, name, name_len) != 0 || line[name_len] != ':') {
		return -1;
	}
	p = memchr(line + name_len + 1, ':', len - name_len - 1);
	if (p == NULL) {
		return -1;
	}
	p++;
	end = memchr(p, ':', (size_t)(line + len - p));
	return parse_u64(p, (size_t)((end == NULL ? line + len : end) - p), UINT32_MAX - 1, n);
}

/*
 * The number of a user or group: from a file as /etc/passwd, or a decimal number itself. The C library's functions for this would bring
 * buffered files and a client for a name service. A line over a kilobyte can only be a group's with many members: its head is enough.
 */
static int
find_id(const char *path, const char *name, uint32_t *id)
{
	char mem[1024] = { 0 };
	size_t len = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int found = -1, cut = 0;
	uint64_t n;
	ssize_t got = 1;

	while (fd != -1 && found == -1 && (got > 0 || len > 0)) {
		const char *end = memchr(mem, '\n', len);
		size_t used = end == NULL ? len : (size_t)(end - mem) + 1;

		if (end == NULL && len < sizeof mem && got > 0) {
			got = read(fd, mem + len, sizeof mem - len);
			len += got > 0 ? (size_t)got : 0;
			continue;
		}
		found = cut ? -1 : number_of(mem, end == NULL ? len : used - 1, name, &n);
		cut = end == NULL;
		memmove(mem, mem + used, len - used);
		len -= used;
	}
	if (fd != -1) {
		close(fd);
	}
	if (found == -1) {
		found = parse_u64(name, strlen(name), UINT32_MAX - 1, &n);
	}
	*id = found == 0 ? (uint32_t)n : 0;
	return found;
}

int
priv_lookup(struct priv_ids *ids, const char **missing)
{
	const struct {
		const char *name;
		uid_t *uid;
	} users[] = {
		{ USER_SMTP, &ids->smtp_uid },
		{ USER_SPOOL, &ids->spool_uid },
		{ USER_SEND, &ids->send_uid },
		{ USER_REMOTE, &ids->remote_uid },
	};

	memset(ids, 0, sizeof *ids);
	ids->root = geteuid() == 0;
	if (!ids->root) {
		ids->smtp_uid = ids->spool_uid = ids->send_uid = ids->remote_uid = geteuid();
		ids->smtp_gid = ids->spool_gid = getegid();
		return 0;
	}
	for (size_t i = 0; i < sizeof users / sizeof users[0]; i++) {
		*missing = users[i].name;
		if (find_id("/etc/passwd", users[i].name, users[i].uid) == -1 || *users[i].uid == 0) {
			return -1;
		}
	}
	*missing = GROUP_SPOOL;
	if (find_id("/etc/group", GROUP_SPOOL, &ids->spool_gid) == -1) {
		return -1;
	}
	*missing = GROUP_SMTP;
	return find_id("/etc/group", GROUP_SMTP, &ids->smtp_gid);
}

static void
limit(int what, rlim_t n)
{
	struct rlimit r = { n, n };
	long rc;

#ifdef VALGRIND
	/* It has descriptors of its own above ours, and so lets nobody change the hard limit (make test-valgrind). */
	if (what == RLIMIT_NOFILE && syscall(SYS_prlimit64, 0, what, NULL, &r) == 0) {
		r.rlim_cur = n;
	}
#endif
	rc = syscall(SYS_prlimit64, 0, what, &r, NULL);
	/* Without root it can only be lowered: then to what there is. */
	if (rc == -1 && errno == EPERM && syscall(SYS_prlimit64, 0, what, NULL, &r) == 0) {
		r.rlim_cur = r.rlim_max;
		rc = syscall(SYS_prlimit64, 0, what, &r, NULL);
	}
	if (rc == -1) {
		log_msg(LOG_ERR, "crash", "setrlimit %d: %s", what, strerror(errno));
		_exit(111);
	}
}

/* We have no threads; the C library's functions bring the means to stop them all. */
#ifdef SYS_setresuid32
#define CALL_SETGROUPS SYS_setgroups32
#define CALL_SETRESGID SYS_setresgid32
#define CALL_SETRESUID SYS_setresuid32
#else
#define CALL_SETGROUPS SYS_setgroups
#define CALL_SETRESGID SYS_setresgid
#define CALL_SETRESUID SYS_setresuid
#endif

static void
become(uid_t uid, gid_t gid, int dirfd)
{
	uid_t r, e, s;
	gid_t rg, eg, sg;

	if ((dirfd != -1 && (fchdir(dirfd) == -1 || chroot(".") == -1 || chdir("/") == -1)) ||
	    syscall(CALL_SETGROUPS, 0, NULL) == -1 || syscall(CALL_SETRESGID, gid, gid, gid) == -1 ||
	    syscall(CALL_SETRESUID, uid, uid, uid) == -1) {
		log_msg(LOG_ERR, "crash", "cannot give up root: %s", strerror(errno));
		_exit(111);
	}
	if (getresuid(&r, &e, &s) == -1 || getresgid(&rg, &eg, &sg) == -1 || r != uid || e != uid || s != uid ||
	    rg != gid || eg != gid || sg != gid || setuid(0) == 0) {
		log_msg(LOG_ERR, "crash", "root did not go away");
		_exit(111);
	}
}

int
priv_find(const char *user, const char *group, uid_t *uid, gid_t *gid)
{
	return find_id("/etc/passwd", user, uid) == -1 || find_id("/etc/group", group, gid) == -1 || *uid == 0 ||
		*gid == 0
	    ? -1
	    : 0;
}

int
priv_give(int fd, int root, uid_t uid, gid_t gid)
{
	return !root || fchown(fd, uid, gid) == 0 || errno == EPERM ? 0 : -1;
}

int
priv_open(const char *path, int flags, uid_t uid)
{
	int fd = open(path, flags);
	int saved;

	if (fd == -1 && errno == EACCES && geteuid() == 0) {
		setfsuid(uid);
		fd = open(path, flags);
		saved = errno;
		setfsuid(0);
		errno = saved;
	}
	return fd;
}

void
priv_become(uid_t uid, gid_t gid)
{
	become(uid, gid, -1);
}

static uid_t
uid_of(const struct priv_ids *ids, enum priv_role role)
{
	switch (role) {
	case PRIV_WARDEN:
	case PRIV_CLEAN:
	case PRIV_KEEPER:
		return ids->spool_uid;
	case PRIV_RELAY:
		return ids->send_uid;
	case PRIV_REMOTE:
		return ids->remote_uid;
	default:
		return ids->smtp_uid;
	}
}

void
priv_drop(const struct priv_ids *ids, enum priv_role role, int dirfd)
{
	static const rlim_t descriptors[PRIV_FILTERS] = {
		[PRIV_SMTP] = SMTP_NOFILE,
		[PRIV_WARDEN] = WARDEN_NOFILE,
		[PRIV_RELAY] = RELAY_NOFILE,
		[PRIV_CLEAN] = CLEAN_NOFILE,
		[PRIV_REMOTE] = REMOTE_NOFILE,
		[PRIV_KEEPER] = KEEPER_NOFILE,
	};
	int queue = role == PRIV_WARDEN || role == PRIV_RELAY || role == PRIV_CLEAN || role == PRIV_KEEPER;

	if (role != PRIV_RESOLVER) {
		limit(RLIMIT_NOFILE, descriptors[role]);
	}
	if (ids->root) {
		become(uid_of(ids, role), queue ? ids->spool_gid : ids->smtp_gid, dirfd);
	}
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1 && errno != EINVAL) {
		log_msg(LOG_ERR, "crash", "no_new_privs: %s", strerror(errno));
		_exit(111);
	}
	limit(RLIMIT_CORE, 0);
	if (role == PRIV_SMTP) {
		/* Each of its children, and more than any honest session needs: the end of one that ignores all else. */
		limit(RLIMIT_CPU, TIMEOUT_SESSION);
	}
	if (role == PRIV_RESOLVER) {
		limit(RLIMIT_FSIZE, 0);
		prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0);
	}
}

/* What ends a session's process with its parent. A warden tidies up; an smtp process is not asked. */
int
priv_death_signal(enum priv_role role)
{
	return role == PRIV_WARDEN ? SIGTERM : SIGKILL;
}

void
priv_session(enum priv_role role, const char *name, uint64_t fsize, pid_t parent)
{
	prctl(PR_SET_NAME, name, 0, 0, 0);
	/* Set after the ids, which clear it. */
	prctl(PR_SET_PDEATHSIG, priv_death_signal(role), 0, 0, 0);
	if (parent != 0 && getppid() != parent) {
		_exit(111);
	}
	limit(RLIMIT_NPROC, 0);
	if (fsize < RLIM_INFINITY / 2) {
		limit(RLIMIT_FSIZE, (rlim_t)fsize);
	}
}

pid_t
priv_fork(void)
{
	return (pid_t)syscall(SYS_clone, PRIV_FORK_FLAGS, 0, 0, 0, 0);
}

void
priv_close_from(int first)
{
#ifdef SYS_close_range
	if (syscall(SYS_close_range, first, UINT_MAX, 0) == 0) {
		return;
	}
#endif
	for (int fd = first; fd < 65536; fd++) {
		close(fd);
	}
}
