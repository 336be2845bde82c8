/* SPDX-License-Identifier: MIT */
/*
 * Walks a process from system call to system call, and at the one it is told to kills it, makes the call fail, cuts it short or holds the
 * process there. Unlike strace's injection it counts calls of any name, begins to count when told to, and needs no wrapper around the
 * server: it attaches to a process that runs.
 *
 *   stepper PID [K]     K: not PID itself but the K-th child it forks from then on
 *
 * Commands come on stdin, one a line:
 *
 *   rule FROM TO NR ACTION VALUE   for calls number FROM to TO after `arm`, NR -1: any system call. The first rule that fits acts.
 *       kill 0      SIGKILL instead of the call       signal S   the signal S instead of the call
 *       fail E      errno E instead of the call       short N    the call's third argument, a length, becomes N at most
 *       hold 0      wait for `go` before the call     note 0     nothing
 *   clear      drop all rules, and stop counting
 *   arm        count from 1 with the next call; waits until the process waits for something
 *   go         end a hold              sync   say so when all before has been done
 *
 * At the end of stdin the process is let go. Lines on stdout have fields separated by tabs: `call` when a counted call returns and `hit` when
 * a rule acts, each with count, number, result (hit: the rule's value), arguments, the path of the descriptor that the first argument may be, and
 * the strings that arguments may point to; `ready`, `armed`, `held`, `synced`, `child PID`, `gone STATUS`.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define RULES_MAX 16
#define OPTIONS (PTRACE_O_TRACESYSGOOD | (kth > 0 ? PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE : 0))

enum action { KILL, SIGNAL, FAIL, SHORT, HOLD, NOTE, ACTIONS };
static const char *const action_names[ACTIONS] = { "kill", "signal", "fail", "short", "hold", "note" };

struct rule {
	unsigned long from, to;
	long nr;
	enum action action;
	long value;
};

/* The kernel's struct ptrace_syscall_info; glibc and the kernel's header each have one, and do not mix. */
struct call_info {
	uint8_t op, pad[3];
	uint32_t arch;
	uint64_t ip, sp;
	union {
		struct {
			uint64_t nr, args[6];
		} entry;
		struct {
			int64_t rval;
			uint8_t is_error;
		} exit;
		uint64_t room[10];
	} u;
};
#define GET_SYSCALL_INFO 0x420e
#define OP_ENTRY 1
#define OP_EXIT 2

static struct rule rules[RULES_MAX];
static unsigned rule_count;
static pid_t subject;             /* 0: not born yet */
static pid_t parent;              /* of a subject that is yet to be born, or 0 */
static unsigned kth, born;        /* which child, and how many there were */
static unsigned long count;       /* calls since `arm` */
static int armed, arm_wanted;     /* `arm_wanted`: at the next wait */
static int in_call, held;         /* between entry and exit; stopped by a rule */
static struct call_info call;     /* its entry */
static struct rule acting;        /* FAIL, SIGNAL, SHORT: to be finished at its exit; NOTE: nothing */
static uint64_t saved;            /* the argument that was replaced */

static void
die(const char *what)
{
	printf("error\t%s: %s\n", what, strerror(errno));
	exit(1);
}

/* ---- registers ---- */

/*
 * Put another call, one that fails and does nothing, in the place of this one; `third` changes its third argument instead. close() is done
 * all the same, since in Linux the descriptor is gone when it fails.
 */
static void
change_entry(int third, uint64_t value)
{
#if defined(__x86_64__)
	struct user_regs_struct r;

	if (ptrace(PTRACE_GETREGS, subject, 0, &r) == -1) {
		return; /* killed meanwhile */
	}
	if (third) {
		saved = r.rdx;
		r.rdx = value;
	} else {
		saved = r.rdi;
		r.orig_rax = SYS_close;
		r.rdi = (uint64_t)-1;
	}
	ptrace(PTRACE_SETREGS, subject, 0, &r);
#elif defined(__aarch64__)
	struct user_regs_struct r;
	struct iovec v = { &r, sizeof r };
	int nr = SYS_close;
	struct iovec n = { &nr, sizeof nr };

	if (ptrace(PTRACE_GETREGSET, subject, NT_PRSTATUS, &v) == -1) {
		return;
	}
	if (third) {
		saved = r.regs[2];
		r.regs[2] = value;
	} else {
		saved = r.regs[0];
		r.regs[0] = (uint64_t)-1;
		ptrace(PTRACE_SETREGSET, subject, NT_ARM_SYSTEM_CALL, &n);
	}
	ptrace(PTRACE_SETREGSET, subject, NT_PRSTATUS, &v);
#else
#error "stepper.c does not know where this CPU has a system call's number and arguments"
#endif
}

/* Put the arguments back as they were, which the kernel's callers rely on; for a replaced call also its result. */
static void
change_exit(int third, int64_t result)
{
	struct user_regs_struct r;
#if defined(__x86_64__)
	if (ptrace(PTRACE_GETREGS, subject, 0, &r) == -1) {
		return;
	}
	if (third) {
		r.rdx = saved;
	} else {
		r.rdi = saved;
		r.rax = (uint64_t)result;
	}
	ptrace(PTRACE_SETREGS, subject, 0, &r);
#elif defined(__aarch64__)
	struct iovec v = { &r, sizeof r };

	if (ptrace(PTRACE_GETREGSET, subject, NT_PRSTATUS, &v) == -1) {
		return;
	}
	if (third) {
		r.regs[2] = saved;
	} else {
		r.regs[0] = (uint64_t)result;
	}
	ptrace(PTRACE_SETREGSET, subject, NT_PRSTATUS, &v);
#endif
}

/* ---- telling ---- */

/* What stands at `address`, if that is a printable string; "" otherwise. Never reads over the end of a page that may be the last. */
static const char *
string_at(uint64_t address, char mem[256])
{
	size_t len = 0;

	mem[0] = '\0';
	while (address >= 65536 && len < 255) {
		size_t page = 4096 - (address + len) % 4096;
		struct iovec ours = { mem + len, page < 255 - len ? page : 255 - len };
		struct iovec theirs = { (void *)(uintptr_t)(address + len), ours.iov_len };
		ssize_t n = process_vm_readv(subject, &ours, 1, &theirs, 1, 0);

		if (n <= 0) {
			break;
		}
		for (; n > 0; n--, len++) {
			if (mem[len] == '\0') {
				return mem;
			}
			if (mem[len] < 33 || mem[len] > 126) {
				mem[0] = '\0';
				return mem;
			}
		}
	}
	mem[0] = '\0';
	return mem;
}

static void
tell_call(const char *word, int64_t result)
{
	char link[64], path[512], mem[256];
	ssize_t n;

	printf("%s\t%lu\t%ld\t%lld\t", word, count, (long)call.u.entry.nr, (long long)result);
	for (int i = 0; i < 6; i++) {
		printf("%s%lld", i == 0 ? "" : ",", (long long)call.u.entry.args[i]);
	}
	snprintf(link, sizeof link, "/proc/%d/fd/%lld", (int)subject, (long long)(int32_t)call.u.entry.args[0]);
	n = readlink(link, path, sizeof path - 1);
	path[n < 0 ? 0 : n] = '\0';
	printf("\t%s", path);
	for (int i = 0; i < 6; i++) {
		printf("\t%s", string_at(call.u.entry.args[i], mem));
	}
	printf("\n");
}

/* ---- stepping ---- */

static void
resume(pid_t pid, int sig)
{
	ptrace(pid == subject ? PTRACE_SYSCALL : PTRACE_CONT, pid, 0, (void *)(long)sig);
}

static int
is_waiting(long nr)
{
	switch (nr) {
#ifdef SYS_poll
	case SYS_poll:
#endif
	case SYS_ppoll:
	case SYS_recvmsg:
	case SYS_restart_syscall:
		return 1;
	default:
		return 0;
	}
}

static void
arm(void)
{
	count = 0;
	armed = 1;
	arm_wanted = 0;
	printf("armed\n");
}

static const struct rule *
find_rule(void)
{
	for (unsigned i = 0; i < rule_count; i++) {
		const struct rule *r = &rules[i];

		if (r->from <= count && count <= r->to && (r->nr == -1 || (uint64_t)r->nr == call.u.entry.nr)) {
			return r;
		}
	}
	return NULL;
}

/* The subject is about to enter a system call. Returns 1 when it has to stay there. */
static int
on_entry(void)
{
	const struct rule *r;

	in_call = 1;
	acting.action = NOTE;
	if (armed) {
		count++;
	}
	if (arm_wanted && is_waiting((long)call.u.entry.nr)) {
		arm();
		return 0;
	}
	r = armed ? find_rule() : NULL;
	if (r == NULL || (r->action == SHORT && call.u.entry.args[2] <= (uint64_t)r->value)) {
		return 0;
	}
	tell_call("hit", r->value);
	switch (r->action) {
	case KILL:
		kill(subject, SIGKILL);
		break;
	case SIGNAL:
	case FAIL:
	case SHORT:
		if (call.u.entry.nr == SYS_close) {
			saved = call.u.entry.args[0];
		} else {
			change_entry(r->action == SHORT, (uint64_t)r->value);
		}
		acting = *r;
		break;
	case HOLD:
		held = 1;
		printf("held\n");
		return 1;
	default:
		break;
	}
	return 0;
}

static void
on_exit_of_call(int64_t result)
{
	if (acting.action != NOTE) {
		result = acting.action == FAIL ? -acting.value : acting.action == SIGNAL ? -EINTR : result;
		change_exit(acting.action == SHORT, result);
		if (acting.action == SIGNAL) {
			kill(subject, (int)acting.value);
		}
		acting.action = NOTE;
	}
	if (in_call && armed && count > 0) {
		tell_call("call", result);
	}
	in_call = 0;
}

static void
on_syscall_stop(void)
{
	struct call_info i;

	memset(&i, 0, sizeof i);
	if (ptrace(GET_SYSCALL_INFO, subject, (void *)sizeof i, &i) <= 0) {
		return; /* killed meanwhile */
	}
	if (i.op == OP_ENTRY) {
		call = i;
		if (on_entry()) {
			return;
		}
	} else if (i.op == OP_EXIT) {
		on_exit_of_call(i.u.exit.rval);
	}
	resume(subject, 0);
}

static void
on_birth(pid_t pid)
{
	unsigned long child = 0;

	ptrace(PTRACE_GETEVENTMSG, pid, 0, &child);
	born++;
	if (born == kth && subject == 0) {
		subject = (pid_t)child;
		printf("child\t%d\n", (int)subject);
	}
	resume(pid, 0);
}

/* A stop or the end of a process. */
static void
on_status(pid_t pid, int status)
{
	int event = status >> 16;

	if (WIFEXITED(status) || WIFSIGNALED(status)) {
		if (pid == subject || (pid == parent && subject == 0)) {
			printf("gone\t%d\n", status);
			exit(0);
		}
		return;
	}
	if (!WIFSTOPPED(status)) {
		return;
	}
	if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
		if (pid == subject) {
			on_syscall_stop();
		} else {
			resume(pid, 0);
		}
	} else if (event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK || event == PTRACE_EVENT_CLONE) {
		on_birth(pid);
	} else if (event == PTRACE_EVENT_STOP) {
		if (pid != parent && pid != subject && subject == 0 && born + 1 == kth) {
			subject = pid; /* it has stopped before its parent tells of it */
			printf("child\t%d\n", (int)subject);
		} else if (pid != parent && pid != subject) {
			ptrace(PTRACE_DETACH, pid, 0, 0);
			return;
		}
		if (WSTOPSIG(status) == SIGTRAP) {
			resume(pid, 0);
		} else {
			ptrace(PTRACE_LISTEN, pid, 0, 0); /* stopped by a signal, as it should be */
		}
	} else {
		resume(pid, event == 0 ? WSTOPSIG(status) : 0);
	}
}

/* ---- commands ---- */

static void
add_rule(const char *line)
{
	char word[16];
	struct rule r;

	if (rule_count == RULES_MAX ||
	    sscanf(line, "rule %lu %lu %ld %15s %ld", &r.from, &r.to, &r.nr, word, &r.value) != 5) {
		printf("error\t%s\n", line);
		exit(1);
	}
	for (int i = 0; i < ACTIONS; i++) {
		if (strcmp(word, action_names[i]) == 0) {
			r.action = (enum action)i;
			rules[rule_count++] = r;
			return;
		}
	}
	printf("error\t%s\n", line);
	exit(1);
}

static void
command(const char *line)
{
	if (strncmp(line, "rule ", 5) == 0) {
		add_rule(line);
	} else if (strcmp(line, "clear") == 0) {
		rule_count = 0;
		armed = arm_wanted = 0;
	} else if (strcmp(line, "arm") == 0) {
		armed = 0;
		/* One that is not born yet, or that sits in a call which waits: its next call is the first. */
		if (subject == 0 || (in_call && is_waiting((long)call.u.entry.nr))) {
			arm();
		} else {
			arm_wanted = 1;
		}
	} else if (strcmp(line, "go") == 0) {
		if (held) {
			held = 0;
			resume(subject, 0);
		}
	} else if (strcmp(line, "sync") == 0) {
		printf("synced\n");
	} else {
		printf("error\t%s\n", line);
		exit(1);
	}
}

/* Read what has come. Returns 0 at the end. */
static int
read_commands(void)
{
	static char mem[4096];
	static size_t len;
	ssize_t n = read(0, mem + len, sizeof mem - 1 - len);
	char *end;

	if (n <= 0) {
		return 0;
	}
	len += (size_t)n;
	while ((end = memchr(mem, '\n', len)) != NULL) {
		*end = '\0';
		command(mem);
		len -= (size_t)(end + 1 - mem);
		memmove(mem, end + 1, len);
	}
	return 1;
}

/* Let go of everybody. They have to be stopped for that; a call that was about to be changed goes on as it is. */
static void
let_go(pid_t pid)
{
	int status;

	if (pid == 0) {
		return;
	}
	if (!(held && pid == subject)) {
		ptrace(PTRACE_INTERRUPT, pid, 0, 0);
		if (waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status)) {
			return;
		}
		if (WSTOPSIG(status) == (SIGTRAP | 0x80) && pid == subject && acting.action != NOTE) {
			struct call_info i;

			if (ptrace(GET_SYSCALL_INFO, pid, (void *)sizeof i, &i) > 0 && i.op == OP_EXIT) {
				on_exit_of_call(i.u.exit.rval);
			}
		}
	}
	ptrace(PTRACE_DETACH, pid, 0, 0);
}

static void
attach(pid_t pid)
{
	if (ptrace(PTRACE_SEIZE, pid, 0, (void *)(long)OPTIONS) == -1) {
		die("seize");
	}
	if (kth == 0) {
		/* A call that is interrupted is entered again, and seen. Its parent may go on as it is. */
		ptrace(PTRACE_INTERRUPT, pid, 0, 0);
	}
}

int
main(int argc, char **argv)
{
	pid_t pid = argc > 1 ? atoi(argv[1]) : 0;
	struct pollfd p[2] = { { .fd = 0, .events = POLLIN }, { .events = POLLIN } };
	sigset_t child;

	setvbuf(stdout, NULL, _IOFBF, 65536);
	kth = argc > 2 ? (unsigned)atoi(argv[2]) : 0;
	if (pid <= 1) {
		fprintf(stderr, "usage: stepper PID [K]\n");
		return 100;
	}
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	p[1].fd = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
	*(kth > 0 ? &parent : &subject) = pid;
	acting.action = NOTE;
	attach(pid);
	printf("ready\n");
	for (;;) {
		struct signalfd_siginfo si;
		int status;

		fflush(stdout);
		if (poll(p, 2, -1) == -1) {
			die("poll");
		}
		while (read(p[1].fd, &si, sizeof si) > 0) {
		}
		while ((pid = waitpid(-1, &status, __WALL | WNOHANG)) > 0) {
			on_status(pid, status);
		}
		if (p[0].revents != 0 && !read_commands()) {
			break;
		}
	}
	let_go(parent);
	let_go(subject);
	return 0;
}
