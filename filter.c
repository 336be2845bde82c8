/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * System call filters. They are made of tables; a call that is in none of a role's kills the process. The few kernel constants are
 * spelled out here, so that cross builds need no kernel headers.
 */
#include "config.h"
#include "log.h"
#include "priv.h"

#include <endian.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

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
#error "filter.c knows no seccomp architecture token for this CPU: add it, or set SECCOMP to 0"
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

/* Files of the spool, memory, locks on the shared map. */
static const int spool_calls[] = {
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
	SYS_fcntl,
	SYS_munmap,
	SYS_mprotect,
	SYS_brk,
	SYS_madvise,
	SYS_mremap,
	SYS_getpid,
	SYS_gettid,
	SYS_wait4,
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
};

/* UDP and TCP to others. */
static const int net_calls[] = {
	SYS_socket,
	SYS_connect,
	SYS_sendto,
	SYS_recvfrom,
	SYS_getsockname,
	SYS_getsockopt,
	SYS_setsockopt,
	SYS_bind,
#ifdef SYS_send
	SYS_send,
#endif
};

/* radcli's transport signals itself, and asks the keeper. */
static const int warden_calls[] = {
	SYS_eventfd2,
#if RADSEC
	SYS_socketpair,
#endif
#if ACCOUNTS
	SYS_pwrite64,
	SYS_fdatasync,
#endif
};

/* Directories are read, recipients marked, times set, half paragraphs taken back, deliveries given away. */
static const int relay_calls[] = {
	SYS_getdents64,
	SYS_pwrite64,
	SYS_fdatasync,
	SYS_flock,
	SYS_socketpair,
	SYS_setsockopt,
	SYS_faccessat,
#ifdef SYS_access
	SYS_access,
#endif
#ifdef SYS_ftruncate
	SYS_ftruncate,
#endif
#ifdef SYS_ftruncate64
	SYS_ftruncate64,
#endif
#ifdef SYS_utimensat
	SYS_utimensat,
#endif
#ifdef SYS_utimensat_time64
	SYS_utimensat_time64,
#endif
};

static const int clean_calls[] = {
	SYS_getdents64,
#ifdef SYS_lstat
	SYS_lstat,
#endif
#ifdef SYS_lstat64
	SYS_lstat64,
#endif
};

/* The message, which comes open; and what a keeper needs to lock its part of the shared map. */
static const int remote_calls[] = {
	SYS_pread64,
	SYS_lseek,
	SYS_fcntl,
	SYS_rt_sigaction,
	SYS_rt_sigprocmask,
#ifdef SYS__llseek
	SYS__llseek,
#endif
#ifdef SYS_fcntl64
	SYS_fcntl64,
#endif
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define CALLS_MAX (COUNT(smtp_calls) + COUNT(spool_calls) + COUNT(net_calls) + COUNT(relay_calls))

#define TABLE(a) a, COUNT(a)

static const struct {
	const int *calls;
	size_t count;
	unsigned roles; /* a bit for each that has them */
} tables[] = {
	{ TABLE(smtp_calls),
	    1U << PRIV_SMTP | 1U << PRIV_WARDEN | 1U << PRIV_RELAY | 1U << PRIV_CLEAN | 1U << PRIV_REMOTE |
		1U << PRIV_KEEPER },
	{ TABLE(spool_calls), 1U << PRIV_WARDEN | 1U << PRIV_RELAY | 1U << PRIV_CLEAN },
	{ TABLE(net_calls), 1U << PRIV_WARDEN | 1U << PRIV_REMOTE | 1U << PRIV_KEEPER },
	{ TABLE(warden_calls), 1U << PRIV_WARDEN },
	{ TABLE(relay_calls), 1U << PRIV_RELAY },
	{ TABLE(clean_calls), 1U << PRIV_CLEAN },
	{ TABLE(remote_calls), 1U << PRIV_REMOTE | 1U << PRIV_KEEPER },
};

_Static_assert(CALLS_MAX / 2 * 5 <= 255, "the search jumps over half of the ranges, and a jump has eight bits");

/* One role's program, made once by main, so that a session only has to load it. */
static struct filter {
	uint16_t len; /* 0: not made yet */
	struct bpf_insn insn[4 + 8 + 2 * 5 + 5 * CALLS_MAX];
} filters[PRIV_FILTERS];

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
	size_t count = 0, n = 0;

	for (size_t i = 0; i < COUNT(tables); i++) {
		if ((tables[i].roles >> role & 1) != 0) {
			count = sort_in(v, count, tables[i].calls, tables[i].count);
		}
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
	only_prctl(f, (uint32_t)priv_death_signal(role));
	if (role != PRIV_RELAY && role != PRIV_CLEAN) {
		/* The last steps of priv_session(), and the fork before it, which RLIMIT_NPROC then forbids. */
		only(f, SYS_prlimit64, 0);
		only(f, SYS_clone, PRIV_FORK_FLAGS);
	}
	/* What is above the last range is killed, the x32 system calls, which share the token and have bit 30 set, among them. */
	search(f, r, n);
}

void
priv_prepare(void)
{
	for (int role = PRIV_SMTP; role < PRIV_FILTERS; role++) {
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
