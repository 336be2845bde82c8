/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The server with an smtp process that was taken over: linked with all of the real objects, it serves clients as ever, but for those from
 * 127.66.0.0/16 the smtp process does what its client says. It passes messages on to the warden and back, unseen, with any descriptors, and
 * makes any system call. A message that begins with HOSTILE_WARDEN takes the warden over in the same way. Whatever the warden answers has been
 * built on a painted stack and a painted heap. With HOSTILE_BARE in the environment nobody has a system call filter, as on a kernel that
 * knows none. test/integration/hostile.py is the client.
 *
 * From the client: length (4 octets), kind, number of descriptors, descriptor, 0; payload. Kinds: m message for the warden, x execute, e no
 * more messages. To the client: length, kind, descriptor + 1, 0, 0; payload. Kinds: m message from the warden, x result, E the warden is gone.
 */
#include "msg.h"
#include "smtp.h"
#include "wardenint.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HOSTILE_WARDEN 0x6c6f6f6b
#define HOSTILE_NET 66
#define PAINT 0xa5
#define SIZE 131072
#define HEAD 8

void __real_smtp_prepare(const struct smtp_info *info, struct conn *c, const struct cert_chain *chain, int sock);
void __wrap_smtp_prepare(const struct smtp_info *info, struct conn *c, const struct cert_chain *chain, int sock);
_Noreturn void __real_session_smtp(const struct house *h, const struct session *se);
_Noreturn void __wrap_session_smtp(const struct house *h, const struct session *se);
void __real_priv_filter(enum priv_role role);
void __wrap_priv_filter(enum priv_role role);
_Noreturn void __real_smtp_run(void);
_Noreturn void __wrap_smtp_run(void);
int __real_warden_dispatch(struct warden *w, const void *p, size_t len);
int __wrap_warden_dispatch(struct warden *w, const void *p, size_t len);
void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);

static int hostile;
static struct warden *taken;  /* in the warden */
static uint8_t scratch[SIZE]; /* memory for system calls */
static uint8_t result[SIZE];

/* ---- what messages look like, for the client ---- */

#define VALUE(v) \
	{ \
#v, v, 0 \
	}
#define SIZE_OF(t) \
	{ \
		"sizeof " #t, sizeof(struct t), 0 \
	}
#define FIELD(t, f) \
	{ \
#t "." #f, offsetof(struct t, f), sizeof(((struct t *)0)->f) \
	}

static const struct fact {
	const char *name;
	size_t value, size;
} facts[] = {
	VALUE(MSG_SIGN),
	VALUE(MSG_TLSGET),
	VALUE(MSG_TLSPUT),
	VALUE(MSG_TLSUP),
	VALUE(MSG_AUTH),
	VALUE(MSG_MAIL),
	VALUE(MSG_RCPT),
	VALUE(MSG_DATA),
	VALUE(MSG_COMMIT),
	VALUE(MSG_RESET),
	VALUE(MSG_NOTE),
	VALUE(MSG_COUNT),
	VALUE(V_OK),
	VALUE(V_AUTH_REFUSED),
	VALUE(V_AUTH_LATER),
	VALUE(V_AUTH_TURN),
	VALUE(V_NEED_LOGIN),
	VALUE(V_SENDER_REFUSED),
	VALUE(V_NO_RELAY),
	VALUE(V_UNQUALIFIED),
	VALUE(V_BAD_ADDRESS),
	VALUE(V_TOO_MANY_RCPT),
	VALUE(V_TOO_BIG),
	VALUE(V_NO_SPACE),
	VALUE(V_NO_CLOCK),
	VALUE(V_SPOOL_ERROR),
#if ACCOUNTS
	VALUE(V_AUTH_POLICY),
	VALUE(V_LIMIT_SESSIONS),
	VALUE(V_LIMIT_DAY),
	VALUE(V_LIMIT_RCPT),
	VALUE(V_LIMIT_RATE),
	VALUE(V_BLOCKED),
	VALUE(V_MAY_NOT_SEND),
	VALUE(V_NOT_HIS_SENDER),
	VALUE(V_NO_COUNTS),
#endif
	VALUE(V_SKIPPED),
	VALUE(V_COUNT),
	VALUE(NOTE_QUIT),
	VALUE(NOTE_LOOP),
	VALUE(NOTE_COUNT),
	VALUE(BATCH_MAX),
	VALUE(BATCH_OCTETS),
	VALUE(AUTH_TRIES_MAX),
	VALUE(AUTH_REQUESTS_MAX),
	VALUE(SPOOL_HEAD_MAX),
	VALUE(TIMEOUT_SESSION),
	VALUE(HOSTILE_WARDEN),
	SIZE_OF(msg_sign),
	FIELD(msg_sign, type),
	FIELD(msg_sign, hash_id),
	FIELD(msg_sign, len),
	FIELD(msg_sign, hash),
	SIZE_OF(msg_sign_reply),
	FIELD(msg_sign_reply, type),
	FIELD(msg_sign_reply, len),
	FIELD(msg_sign_reply, sig),
	SIZE_OF(msg_tlsget),
	FIELD(msg_tlsget, type),
	FIELD(msg_tlsget, id),
	SIZE_OF(msg_tlssession),
	FIELD(msg_tlssession, type),
	FIELD(msg_tlssession, found),
	FIELD(msg_tlssession, version),
	FIELD(msg_tlssession, suite),
	FIELD(msg_tlssession, id),
	FIELD(msg_tlssession, master),
	SIZE_OF(msg_tlsup),
	FIELD(msg_tlsup, type),
	FIELD(msg_tlsup, version),
	FIELD(msg_tlsup, suite),
	FIELD(msg_tlsup, resumed),
	SIZE_OF(msg_auth),
	FIELD(msg_auth, type),
	FIELD(msg_auth, user_len),
	FIELD(msg_auth, pass_len),
	FIELD(msg_auth, mechanism),
	FIELD(msg_auth, user),
	FIELD(msg_auth, pass),
	SIZE_OF(msg_mail),
	FIELD(msg_mail, type),
	FIELD(msg_mail, len),
	FIELD(msg_mail, size),
	FIELD(msg_mail, utf8),
	FIELD(msg_mail, addr),
	SIZE_OF(msg_rcpt),
	FIELD(msg_rcpt, type),
	FIELD(msg_rcpt, len),
	FIELD(msg_rcpt, addr),
	SIZE_OF(msg_data),
	FIELD(msg_data, type),
	FIELD(msg_data, helo_len),
	FIELD(msg_data, esmtp),
	FIELD(msg_data, helo),
	SIZE_OF(msg_commit),
	FIELD(msg_commit, type),
	FIELD(msg_commit, hops),
	FIELD(msg_commit, octets),
	SIZE_OF(msg_simple),
	FIELD(msg_simple, type),
	SIZE_OF(msg_note),
	FIELD(msg_note, type),
	FIELD(msg_note, kind),
	FIELD(msg_note, number),
	SIZE_OF(msg_verdict),
	FIELD(msg_verdict, type),
	FIELD(msg_verdict, verdict),
	SIZE_OF(msg_commit_reply),
	FIELD(msg_commit_reply, type),
	FIELD(msg_commit_reply, verdict),
	FIELD(msg_commit_reply, qid),
	FIELD(msg_commit_reply, time),
	FIELD(msg_commit_reply, pid),
};

static size_t
tell_facts(uint8_t *out)
{
	struct buf b;

	buf_init(&b, (char *)out, SIZE);
	buf_fmt(&b, "scratch %llu %d\n", (unsigned long long)(uintptr_t)scratch, SIZE);
	for (size_t i = 0; i < sizeof facts / sizeof facts[0]; i++) {
		buf_fmt(&b, "%s %llu %llu\n", facts[i].name, (unsigned long long)facts[i].value,
		    (unsigned long long)facts[i].size);
	}
	return b.len;
}

/* ---- executing ---- */

static uint64_t
number(const uint8_t *p)
{
	uint64_t n;

	memcpy(&n, p, sizeof n);
	return n;
}

/* A system call of the 32-bit kind; the pointer-free ones will do. */
static long
call_32(long nr)
{
#ifdef __x86_64__
	__asm__ volatile("int $0x80" : "+a"(nr) : "b"(0L), "c"(0L), "d"(0L) : "memory", "r8", "r9", "r10", "r11");
	return nr;
#else
	return -ENOSYS + 0 * nr;
#endif
}

/*
 * Do what p[0..len) says: H facts, S number and six arguments: a system call, J number: one of the 32-bit kind, w offset, octets: into the
 * scratch memory, r offset, length: out of it, L loop, C crash; in a warden K parent, pid: a slot that says that this pid is the smtp process of
 * that one, and should have been gone long ago. Returns the length of `result`.
 */
static size_t
execute(const uint8_t *p, size_t len)
{
	uint64_t a[7] = { 0 };
	int64_t r = -ENOTSUP;

	for (size_t i = 0; i < 7 && 1 + 8 * (i + 1) <= len && p[0] != 'w'; i++) {
		a[i] = number(p + 1 + 8 * i);
	}
	switch (len == 0 ? 0 : p[0]) {
	case 'H':
		return tell_facts(result);
	case 'S':
		r = syscall((long)a[0], a[1], a[2], a[3], a[4], a[5], a[6]);
		r = r == -1 ? -errno : r;
		break;
	case 'J':
		r = call_32((long)a[0]);
		break;
	case 'w':
		a[0] = len < 9 ? SIZE : number(p + 1);
		r = -EINVAL;
		if (a[0] <= SIZE && len - 9 <= SIZE - a[0]) {
			memcpy(scratch + a[0], p + 9, len - 9);
			r = 0;
		}
		break;
	case 'r':
		if (a[0] <= SIZE && a[1] <= SIZE - a[0]) {
			memcpy(result, scratch + a[0], a[1]);
			return a[1];
		}
		break;
	case 'K':
		if (taken != NULL) {
			struct share_slot *slot = &taken->house->share->slot[SESSIONS_MAX - 1];

			slot->start = 0;
			slot->evicted = 1;
			atomic_store(&slot->smtp, (int32_t)a[1]);
			atomic_store(&slot->warden, (int32_t)a[0]);
			r = 0;
		}
		break;
	case 'L':
		for (volatile int forever = 1; forever;) {
		}
		break;
	case 'C':
		raise(SIGSEGV);
		/* cppcheck-suppress unreachableCode; a signal that is blocked or ignored ends nothing */
		*(volatile int *)(uintptr_t)len = 0;
		break;
	default:
		break;
	}
	memcpy(result, &r, sizeof r);
	return sizeof r;
}

/* ---- the smtp process ---- */

static uint8_t in[2 * SIZE]; /* from the client */
static size_t in_len;

static void
write_client(const uint8_t *p, size_t len)
{
	while (len > 0) {
		ssize_t n = write(1, p, len);

		if (n == -1 && errno == EAGAIN) {
			struct pollfd pfd = { .fd = 1, .events = POLLOUT };

			poll(&pfd, 1, -1);
		} else if (n <= 0) {
			_exit(0);
		} else {
			p += n;
			len -= (size_t)n;
		}
	}
}

static void
tell_client(int kind, int fd, const uint8_t *p, size_t len)
{
	uint8_t head[HEAD] = { 0 };
	uint32_t n = (uint32_t)len;

	memcpy(head, &n, sizeof n);
	head[4] = (uint8_t)kind;
	head[5] = (uint8_t)(fd + 1);
	write_client(head, sizeof head);
	write_client(p, len);
}

/* A message to the warden, `n` descriptors attached, all of them `fd`. 0, or -1 when it must wait. */
static int
pass_on(const uint8_t *p, size_t len, unsigned n, int fd)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)p, .iov_len = len };
	static union {
		struct cmsghdr align;
		char mem[CMSG_SPACE(255 * sizeof(int))];
	} control;
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };
	int64_t r;

	if (n > 0) {
		h.msg_control = control.mem;
		h.msg_controllen = (socklen_t)CMSG_SPACE(n * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = (socklen_t)CMSG_LEN(n * sizeof(int));
		for (unsigned i = 0; i < n; i++) {
			memcpy(CMSG_DATA(&control.align) + i * sizeof fd, &fd, sizeof fd);
		}
	}
	/* Not through the library, which takes only so many. */
	r = syscall(SYS_sendmsg, 3, &h, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (r == -1 && errno == EAGAIN) {
		return -1;
	}
	if (r == -1) {
		r = -errno;
		tell_client('x', -1, (const uint8_t *)&r, sizeof r);
	}
	return 0;
}

/* A message from the warden. 0 at the end. */
static int
pass_back(void)
{
	static uint8_t mem[SIZE];
	struct iovec iov = { .iov_base = mem, .iov_len = sizeof mem };
	union {
		struct cmsghdr align;
		char mem[CMSG_SPACE(4 * sizeof(int))];
	} control;
	struct msghdr h = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.mem, .msg_controllen = sizeof control.mem
	};
	ssize_t n = recvmsg(3, &h, MSG_DONTWAIT);
	int fd = -1;

	if (n == -1 && (errno == EAGAIN || errno == EINTR)) {
		return 1;
	}
	if (n <= 0) {
		tell_client('E', -1, mem, 0);
		return 0;
	}
	if (CMSG_FIRSTHDR(&h) != NULL) {
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&h)), sizeof fd);
	}
	tell_client('m', fd, mem, (size_t)n);
	return 1;
}

/* Work on the first record of `in`. 1 done, 0 it is not complete, -1 it must wait. */
static int
work(int warden_there)
{
	uint32_t len;
	int kind;

	if (in_len < HEAD) {
		return 0;
	}
	memcpy(&len, in, sizeof len);
	if (len > SIZE) {
		_exit(0);
	}
	if (in_len < HEAD + len) {
		return 0;
	}
	kind = in[4];
	if (kind == 'x') {
		size_t n = execute(in + HEAD, len);

		tell_client('x', -1, result, n);
	} else if (kind == 'm' && warden_there && pass_on(in + HEAD, len, in[5], in[6]) == -1) {
		return -1;
	} else if (kind == 'e') {
		shutdown(3, SHUT_WR);
	}
	in_len -= HEAD + len;
	memmove(in, in + HEAD + len, in_len);
	return 1;
}

/* Until the client is gone. */
static _Noreturn void
obey(void)
{
	int warden_there = 1;

	for (;;) {
		struct pollfd p[2] = { { .fd = 0 }, { .fd = -1, .events = POLLIN } };
		int r;

		while ((r = work(warden_there)) == 1) {
		}
		p[0].events = in_len < sizeof in ? POLLIN : 0;
		if (warden_there) {
			p[1].fd = 3;
			p[1].events = (short)(r == -1 ? POLLIN | POLLOUT : POLLIN);
		}
		if (poll(p, 2, -1) == -1) {
			continue;
		}
		if ((p[1].revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
			warden_there = pass_back();
		}
		if (p[0].revents != 0) {
			ssize_t n = read(0, in + in_len, sizeof in - in_len);

			if (n == 0 || (n == -1 && errno != EAGAIN && errno != EINTR)) {
				_exit(0);
			}
			in_len += n == -1 ? 0 : (size_t)n;
		}
	}
}

void
__wrap_session_smtp(const struct house *h, const struct session *se)
{
	hostile = addr_is_v4(&se->client) && se->client.ip[12] == 127 && se->client.ip[13] == HOSTILE_NET;
	__real_session_smtp(h, se);
}

void
__wrap_smtp_prepare(const struct smtp_info *info, struct conn *c, const struct cert_chain *chain, int sock)
{
	const char *peer = getenv("TCPREMOTEIP"); /* under inetd */

	hostile = hostile || (peer != NULL && strncmp(peer, "127.66.", 7) == 0);
	if (!hostile) {
		__real_smtp_prepare(info, c, chain, sock);
	}
}

void
__wrap_smtp_run(void)
{
	if (!hostile) {
		__real_smtp_run();
	}
	obey();
}

void
__wrap_priv_filter(enum priv_role role)
{
	if (getenv("HOSTILE_BARE") == NULL) {
		__real_priv_filter(role);
	}
}

/* ---- the warden ---- */

static __attribute__((noinline)) void
paint_stack(void)
{
	volatile uint8_t mem[6144];

	for (size_t i = 0; i < sizeof mem; i++) {
		mem[i] = PAINT;
	}
}

int
__wrap_warden_dispatch(struct warden *w, const void *p, size_t len)
{
	uint32_t type = 0;

	memcpy(&type, p, len < sizeof type ? len : sizeof type);
	if (type == HOSTILE_WARDEN) {
		size_t n;

		taken = w;
		n = execute((const uint8_t *)p + sizeof type, len - sizeof type);
		return msg_send(w->sock, result, n, -1);
	}
	paint_stack();
	return __real_warden_dispatch(w, p, len);
}

void *
__wrap_malloc(size_t size)
{
	void *p = __real_malloc(size);

	if (p != NULL) {
		memset(p, PAINT, size);
	}
	return p;
}

/* The C library's would call the above, and believe that large memory is still as the kernel gave it. */
void *
__wrap_calloc(size_t n, size_t size)
{
	void *p = size > 0 && n > SIZE_MAX / size ? NULL : __real_malloc(n * size);

	if (p != NULL) {
		memset(p, 0, n * size);
	}
	return p;
}
