/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Giving up privileges, the same way for every role: chroot, groups, ids, proof that they are gone, rlimits, no_new_privs, and the
 * system call filter. The filters are tables; a system call that is not in one kills the process. The few kernel constants are spelled
 * out here, so that cross builds need no kernel headers.
 */
#include "priv.h"

#include "config.h"
#include "log.h"
#include "str.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
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
/* The scheduler: a socket and a message file for each delivery, and both once more while they are on their way. */
#define RELAY_NOFILE (4 * DELIVERIES_MAX + 64)
#define REMOTE_NOFILE 16

/* A fork whose child is the child of our parent. */
#define PRIV_FORK_FLAGS (CLONE_PARENT | SIGCHLD)

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
	char mem[1024];
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
	if (what == RLIMIT_NOFILE && getrlimit(what, &r) == 0) {
		r.rlim_cur = n;
	}
#endif
	rc = syscall(SYS_prlimit64, 0, what, &r, NULL);
	/* Without root it can only be lowered: then to what there is. */
	if (rc == -1 && errno == EPERM && getrlimit(what, &r) == 0) {
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

static uid_t
uid_of(const struct priv_ids *ids, enum priv_role role)
{
	switch (role) {
	case PRIV_WARDEN:
	case PRIV_CLEAN:
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
		[PRIV_CLEAN] = REMOTE_NOFILE,
		[PRIV_REMOTE] = REMOTE_NOFILE,
	};
	int queue = role == PRIV_WARDEN || role == PRIV_RELAY || role == PRIV_CLEAN;

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
static int
death_signal(enum priv_role role)
{
	return role == PRIV_WARDEN ? SIGTERM : SIGKILL;
}

void
priv_session(enum priv_role role, const char *name, uint64_t fsize, pid_t parent)
{
	prctl(PR_SET_NAME, name, 0, 0, 0);
	/* Set after the ids, which clear it. */
	prctl(PR_SET_PDEATHSIG, death_signal(role), 0, 0, 0);
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

#if SECCOMP

/* Classic BPF, as the kernel defines it. */
struct bpf_insn {
	uint16_t code;
	uint8_t jt, jf;
	uint32_t k;
};
struct bpf_prog {
	uint16_t len;
	const struct bpf_insn *insn;
};
#define BPF_LOAD_WORD 0x20  /* BPF_LD | BPF_W | BPF_ABS */
#define BPF_JUMP_EQUAL 0x15 /* BPF_JMP | BPF_JEQ | BPF_K */
#define BPF_JUMP_ABOVE 0x35 /* BPF_JMP | BPF_JGE | BPF_K */
#define BPF_RETURN 0x06     /* BPF_RET | BPF_K */
#define SECCOMP_ALLOW 0x7fff0000U
#define SECCOMP_KILL 0x80000000U /* the process; kernels before 4.14 kill the thread, which is the same here */
#define FILTER_MODE 2
#define OFFSET_NR 0
#define OFFSET_ARCH 4
#define OFFSET_ARG(n) ((__BYTE_ORDER == __BIG_ENDIAN ? 20U : 16U) + 8U * (n)) /* its low half */

/* AUDIT_ARCH_* of linux/audit.h. */
#if defined(__x86_64__)
#define ARCH_TOKEN 0xc000003eU
#elif defined(__i386__)
#define ARCH_TOKEN 0x40000003U
#elif defined(__aarch64__)
#define ARCH_TOKEN 0xc00000b7U
#elif defined(__arm__) && __BYTE_ORDER == __LITTLE_ENDIAN
#define ARCH_TOKEN 0x40000028U
#elif defined(__mips__) && _MIPS_SIM == _ABIO32 && __BYTE_ORDER == __BIG_ENDIAN
#define ARCH_TOKEN 0x00000008U
#elif defined(__mips__) && _MIPS_SIM == _ABIO32
#define ARCH_TOKEN 0x40000008U
#elif defined(__riscv) && __riscv_xlen == 64
#define ARCH_TOKEN 0xc00000f3U
#elif defined(__powerpc__) && !defined(__powerpc64__)
#define ARCH_TOKEN 0x00000014U
#else
#error "priv.c knows no seccomp architecture token for this CPU: add it, or set SECCOMP to 0"
#endif

/*
 * Reading and writing what is open, waiting, telling the time, ending. No opening, no signals to others, no new memory. See also
 * make_filter() for what a nursery, whose children inherit its filter, needs besides.
 */
static const int smtp_calls[] = {
	SYS_read,
	SYS_write,
	SYS_close,
	SYS_recvmsg,
	SYS_sendmsg,
	SYS_shutdown,
	SYS_exit,
	SYS_exit_group,
	SYS_rt_sigreturn,
	SYS_restart_syscall,
	SYS_getrandom,
	SYS_getppid,
#ifdef SYS_poll
	SYS_poll,
#endif
#ifdef SYS_ppoll
	SYS_ppoll,
#endif
#ifdef SYS_ppoll_time64
	SYS_ppoll_time64,
#endif
/* Where the vDSO has no clock. */
#ifdef SYS_clock_gettime
	SYS_clock_gettime,
#endif
#ifdef SYS_clock_gettime64
	SYS_clock_gettime64,
#endif
#ifdef SYS_gettimeofday
	SYS_gettimeofday,
#endif
/* musl's names on 32-bit CPUs, for kernels before 5.1 */
#ifdef SYS_clock_gettime32
	SYS_clock_gettime32,
#endif
#ifdef SYS_gettimeofday_time32
	SYS_gettimeofday_time32,
#endif
#ifdef SYS_sigreturn
	SYS_sigreturn,
#endif
};

/* The warden adds files of the spool, UDP to the RADIUS servers, memory for radcli, locks on the shared map. */
static const int warden_calls[] = {
	SYS_openat,
	SYS_linkat,
	SYS_unlinkat,
	SYS_fsync,
#ifdef SYS_sync_file_range
	SYS_sync_file_range,
#endif
#ifdef SYS_sync_file_range2
	SYS_sync_file_range2,
#endif
	SYS_lseek,
	SYS_fchmod,
	SYS_socket,
	SYS_connect,
	SYS_sendto,
	SYS_recvfrom,
	SYS_getsockname,
	SYS_getsockopt,
	SYS_setsockopt,
	SYS_bind,
	SYS_fcntl,
	SYS_munmap,
	SYS_mprotect,
	SYS_brk,
	SYS_madvise,
	SYS_mremap,
	SYS_getpid,
	SYS_gettid,
	SYS_wait4,
	SYS_eventfd2,
	SYS_rt_sigaction,
	SYS_rt_sigprocmask,
	SYS_umask,
	SYS_readv,
	SYS_writev,
	SYS_pread64,
	SYS_nanosleep,
#ifdef SYS_open
	SYS_open,
#endif
#ifdef SYS_link
	SYS_link,
#endif
#ifdef SYS_unlink
	SYS_unlink,
#endif
#ifdef SYS_fstat
	SYS_fstat,
#endif
#ifdef SYS_stat
	SYS_stat,
#endif
#ifdef SYS_fstat64
	SYS_fstat64,
#endif
#ifdef SYS_stat64
	SYS_stat64,
#endif
#ifdef SYS_newfstatat
	SYS_newfstatat,
#endif
#ifdef SYS_fstatat64
	SYS_fstatat64,
#endif
#ifdef SYS_fstatat
	SYS_fstatat,
#endif
#ifdef SYS_statx
	SYS_statx,
#endif
#ifdef SYS_statfs
	SYS_statfs,
#endif
#ifdef SYS_statfs64
	SYS_statfs64,
#endif
#ifdef SYS_mmap
	SYS_mmap,
#endif
#ifdef SYS_mmap2
	SYS_mmap2,
#endif
#ifdef SYS_fcntl64
	SYS_fcntl64,
#endif
#ifdef SYS__llseek
	SYS__llseek,
#endif
#ifdef SYS_clock_nanosleep
	SYS_clock_nanosleep,
#endif
#ifdef SYS_clock_nanosleep_time64
	SYS_clock_nanosleep_time64,
#endif
#ifdef SYS_clock_nanosleep_time32
	SYS_clock_nanosleep_time32,
#endif
#ifdef SYS_send
	SYS_send,
#endif
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define CALLS_MAX (COUNT(smtp_calls) + COUNT(warden_calls))

_Static_assert(CALLS_MAX / 2 * 5 <= 255, "the search jumps over half of the ranges, and a jump has eight bits");

/* One role's program, made once by main, so that a session only has to load it. */
static struct filter {
	uint16_t len; /* 0: not made yet */
	struct bpf_insn insn[4 + 8 + 2 * 5 + 5 * CALLS_MAX];
} filters[PRIV_ROLES];

/* A run of consecutive system call numbers that are allowed. */
struct range {
	uint32_t first, last;
};

/*
 * A binary search over r[0..n): a handful of comparisons to each call instead of a walk through the whole list, and the kernel, which tries
 * every number when a filter is loaded, is done sooner, too.
 */
static void
search(struct filter *f, const struct range *r, size_t n)
{
	size_t half = n / 2;
	struct bpf_insn *jump;
	uint16_t left;

	if (n == 1) {
		f->insn[f->len++] = (struct bpf_insn){ BPF_JUMP_ABOVE, 0, 1, r[0].first };
		f->insn[f->len++] = (struct bpf_insn){ BPF_JUMP_ABOVE, 0, 1, r[0].last + 1 };
		f->insn[f->len++] = (struct bpf_insn){ BPF_RETURN, 0, 0, SECCOMP_KILL };
		f->insn[f->len++] = (struct bpf_insn){ BPF_RETURN, 0, 0, SECCOMP_ALLOW };
		return;
	}
	jump = &f->insn[f->len++];
	left = f->len;
	search(f, r, half);
	*jump = (struct bpf_insn){ BPF_JUMP_ABOVE, (uint8_t)(f->len - left), 0, r[half].first };
	search(f, r + half, n - half);
}

/* System call `nr` with `a` as its first argument; anything else in it kills. */
static void
only(struct filter *f, uint32_t nr, uint32_t a)
{
	f->insn[f->len++] = (struct bpf_insn){ BPF_JUMP_EQUAL, 0, 4, nr };
	f->insn[f->len++] = (struct bpf_insn){ BPF_LOAD_WORD, 0, 0, OFFSET_ARG(0) };
	f->insn[f->len++] = (struct bpf_insn){ BPF_JUMP_EQUAL, 0, 1, a };
	f->insn[f->len++] = (struct bpf_insn){ BPF_RETURN, 0, 0, SECCOMP_ALLOW };
	f->insn[f->len++] = (struct bpf_insn){ BPF_RETURN, 0, 0, SECCOMP_KILL };
}

/* prctl(): a name, or to be ended by `sig`. */
static void
only_prctl(struct filter *f, uint32_t sig)
{
	f->insn[f->len++] = (struct bpf_insn){ BPF_JUMP_EQUAL, 0, 7, SYS_prctl };
	f->insn[f->len++] = (struct bpf_insn){ BPF_LOAD_WORD, 0, 0, OFFSET_ARG(0) };
	f->insn[f->len++] = (struct bpf_insn){ BPF_JUMP_EQUAL, 3, 0, PR_SET_NAME };
	f->insn[f->len++] = (struct bpf_insn){ BPF_JUMP_EQUAL, 0, 3, PR_SET_PDEATHSIG };
	f->insn[f->len++] = (struct bpf_insn){ BPF_LOAD_WORD, 0, 0, OFFSET_ARG(1) };
	f->insn[f->len++] = (struct bpf_insn){ BPF_JUMP_EQUAL, 0, 1, sig };
	f->insn[f->len++] = (struct bpf_insn){ BPF_RETURN, 0, 0, SECCOMP_ALLOW };
	f->insn[f->len++] = (struct bpf_insn){ BPF_RETURN, 0, 0, SECCOMP_KILL };
}

/* Put call numbers into v[0..n), sorted. Returns the new n. */
static size_t
sort_in(uint32_t *v, size_t n, const int *calls, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		size_t k = n++;

		for (; k > 0 && v[k - 1] > (uint32_t)calls[i]; k--) {
			v[k] = v[k - 1];
		}
		v[k] = (uint32_t)calls[i];
	}
	return n;
}

static void
make_filter(struct filter *f, enum priv_role role)
{
	uint32_t v[CALLS_MAX];
	struct range r[CALLS_MAX];
	size_t count = sort_in(v, 0, smtp_calls, COUNT(smtp_calls)), n = 0;

	if (role == PRIV_WARDEN) {
		count = sort_in(v, count, warden_calls, COUNT(warden_calls));
	}
	for (size_t i = 0; i < count; i++) {
		if (n > 0 && v[i] <= r[n - 1].last + 1) {
			r[n - 1].last = v[i];
		} else {
			r[n++] = (struct range){ v[i], v[i] };
		}
	}
	f->insn[f->len++] = (struct bpf_insn){ BPF_LOAD_WORD, 0, 0, OFFSET_ARCH };
	f->insn[f->len++] = (struct bpf_insn){ BPF_JUMP_EQUAL, 1, 0, ARCH_TOKEN };
	f->insn[f->len++] = (struct bpf_insn){ BPF_RETURN, 0, 0, SECCOMP_KILL };
	f->insn[f->len++] = (struct bpf_insn){ BPF_LOAD_WORD, 0, 0, OFFSET_NR };
	/* The last steps of priv_session(), and the fork before it, which RLIMIT_NPROC then forbids. */
	only_prctl(f, (uint32_t)death_signal(role));
	only(f, SYS_prlimit64, 0);
	only(f, SYS_clone, PRIV_FORK_FLAGS);
	/* What is above the last range is killed, the x32 system calls, which share the token and have bit 30 set, among them. */
	search(f, r, n);
}

void
priv_prepare(void)
{
	for (int role = PRIV_SMTP; role <= PRIV_WARDEN; role++) {
		if (filters[role].len == 0) {
			make_filter(&filters[role], (enum priv_role)role);
		}
	}
}

void
priv_filter(enum priv_role role)
{
	struct bpf_prog prog;

	priv_prepare();
	prog.len = filters[role].len;
	prog.insn = filters[role].insn;
	if (prctl(PR_SET_SECCOMP, FILTER_MODE, &prog) == -1 && errno != EINVAL) {
		log_msg(LOG_ERR, "crash", "seccomp: %s", strerror(errno));
		_exit(111);
	}
}

#else

void
priv_prepare(void)
{
}

void
priv_filter(enum priv_role role)
{
	(void)role;
}

#endif
