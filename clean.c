/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The cleaner: does for the scheduler what only USER_SPOOL may do in the queue. It unlinks envelopes and messages, by number and nothing else, and
 * writes bounces, which are messages like any other: made, flushed and linked into todo/ by queue.c. Current (as root: root) directory: the queue.
 * Taken over, it could do to the queue what a warden could; it reads nothing from outside but the messages it quotes, octet by octet.
 *
 * A bounce in QSBMF (qmail-spec 4.6; the other form is in dsn.c) is paragraphs with an empty line between them: an introduction `Hi. This is
 * the ...`; one `<address>:` and why for each recipient, as they are in bounce/N; `--- Below this line ...`; and the message, at most BOUNCE_COPY_MAX
 * octets of it.
 */
#include "cleanint.h"
#include "deliver.h"
#include "log.h"
#include "msg.h"
#include "relay.h"
#include "schedule.h"
#include "str.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SWEEP_AGE 129600 /* 36 hours, as in todo.c */

void
out_flush(struct out *o)
{
	if (!o->bad && write_all(o->fd, o->b.p, o->b.len) == -1) {
		o->bad = errno;
	}
	buf_reset(&o->b);
}

void
out_mem(struct out *o, const char *p, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (o->b.len == o->b.cap) {
			out_flush(o);
		}
		buf_ch(&o->b, p[i]);
		o->last[0] = o->last[1];
		o->last[1] = p[i];
	}
}

void
out_str(struct out *o, const char *s)
{
	out_mem(o, s, strlen(s));
}

uint64_t
out_file(struct out *o, int fd, uint64_t most)
{
	char mem[4096];
	uint64_t sum = 0;
	ssize_t n = 1;

	while (n > 0 && sum < most) {
		size_t want = most - sum < sizeof mem ? (size_t)(most - sum) : sizeof mem;

		n = pread(fd, mem, want, (off_t)sum);
		if (n == -1) {
			o->bad = errno;
		} else {
			out_mem(o, mem, (size_t)n);
			sum += (uint64_t)n;
		}
	}
	return sum;
}

void
out_blank(struct out *o)
{
	while (o->last[0] != '\n' || o->last[1] != '\n') {
		out_str(o, "\n");
	}
}

/* Must this octet be in quotes, in the local part of an address (RFC 5321 4.1.2)? */
static int
is_special(int c)
{
	return c <= ' ' || c >= 127 || strchr("\"(),:;<>@[\\]", c) != NULL;
}

/* The local part in quotes where it has to be. No control character gets into a header, and nothing that is neither ASCII nor UTF-8. */
void
out_address(struct out *o, const char *addr)
{
	const char *at = strrchr(addr, '@');
	const char *end = at == NULL ? addr + strlen(addr) : at;
	int quote = end == addr || addr[0] == '.' || end[-1] == '.';
	int top = utf8_valid(addr, strlen(addr)) ? 256 : 128;

	for (const char *p = addr; p < end; p++) {
		quote |= is_special((unsigned char)*p) || (p[0] == '.' && p[1] == '.');
	}
	out_str(o, quote ? "\"" : "");
	for (const char *p = addr; *p != '\0'; p++) {
		char c = (unsigned char)*p < ' ' || *p == 127 || (unsigned char)*p >= top ? '_' : *p;

		if (p == end) {
			out_str(o, quote ? "\"" : "");
		} else if (p < end && (c == '"' || c == '\\')) {
			out_str(o, "\\");
		}
		out_mem(o, &c, 1);
	}
	out_str(o, quote && at == NULL ? "\"" : "");
}

/* DIR/N; in mess, DIR/N mod split/N. */
static const char *
queue_path(const struct cleaner *c, const char *dir, uint64_t id, char name[64])
{
	return strcmp(dir, "mess") == 0
	    ? str_fmt(name, 64, "%s/%llu/%llu", dir, (unsigned long long)(id % c->spool.split), (unsigned long long)id)
	    : str_fmt(name, 64, "%s/%llu", dir, (unsigned long long)id);
}

/* ---- a bounce ---- */

void
out_date(struct out *o, int64_t t)
{
	char mem[64];
	struct buf b;

	buf_init(&b, mem, sizeof mem);
	buf_date(&b, t);
	out_mem(o, b.p, b.len);
}

void
out_return_path(struct out *o, const struct clean_ask *ask)
{
	out_str(o, "Return-Path: <");
	if (ask->returned[0] != '\0') {
		out_address(o, ask->returned);
	}
	out_str(o, ">\n");
}

void
out_intro(struct out *o, const struct cleaner *c, const struct clean_ask *ask)
{
	/* `Hi. This is the` would make it a bounce to programs. */
	out_str(o, clean_late(ask) ? "This is the mailstile program at " : "Hi. This is the mailstile program at ");
	out_str(o, c->conf->bouncehost);
	if (clean_late(ask)) {
		out_str(o,
		    ".\nYour message has not yet reached those named here. You need not send it again: it will be tried until\n");
		out_date(o, ask->until);
		out_str(o, ".\nWhat was in the way last time stands below each address.\n\n");
		return;
	}
	out_str(o,
	    ask->twice
		? ".\nA notice of failure was on its way to a sender, and has itself come to nothing:\n\n"
		: ".\nYour message did not reach those named here, and will not be tried again for them.\nThe reason "
		  "stands below each address.\n\n");
}

/* The rest of a notice in QSBMF. */
static void
qsbmf_compose(const struct cleaner *c, struct out *o, const struct clean_ask *ask, int why, int mess)
{
	int late = clean_late(ask);
	char mem[128];
	uint64_t copied;
	struct look reasons, quoted;

	look_at(&reasons, why);
	look_at(&quoted, mess);
	if (reasons.any_8bit || is_8bit(ask->returned) || (late ? quoted.head_8bit : quoted.any_8bit)) {
		out_str(o, "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n");
	}
	out_str(o, "\n");
	out_intro(o, c, ask);
	(void)out_file(o, why, UINT64_MAX);
	out_blank(o);
	out_str(o,
	    late             ? "--- Below this line is the header of the message.\n\n"
		: ask->twice ? "--- Below this line is the original bounce.\n\n"
			     : "--- Below this line is a copy of the message.\n\n");
	out_return_path(o, ask);
	copied = out_file(o, mess, late ? quoted.head : BOUNCE_COPY_MAX);
	if (o->last[1] != '\n') {
		out_str(o, "\n");
	}
	if (!late && quoted.size > copied) {
		out_str(o,
		    str_fmt(mem, sizeof mem, "\n--- The rest of the message, %llu octets, is left out.\n",
			(unsigned long long)(quoted.size - copied)));
	}
}

static void
compose(struct cleaner *c, struct out *o, const struct clean_ask *ask, int why, int mess, int64_t now)
{
	char mem[128];
	uint64_t r;

	out_str(o, str_fmt(mem, sizeof mem, "Received: (qmail %d invoked for bounce); ", (int)getpid()));
	out_date(o, now);
	out_str(o, "\nDate: ");
	out_date(o, now);
	out_str(o, "\nFrom: ");
	str_fmt(c->from, sizeof c->from, "%s@%s", c->conf->bouncefrom, c->conf->bouncehost);
	out_address(o, c->from);
	out_str(o, "\nTo: ");
	out_address(o, ask->rcpt);
	out_str(o, clean_late(ask) ? "\nSubject: delay notice" : "\nSubject: failure notice");
	random_bytes(&r, sizeof r);
	out_str(o, str_fmt(mem, sizeof mem, "\nMessage-ID: <%lld.%016llx@", (long long)now, (unsigned long long)r));
	out_str(o, c->conf->bouncehost);
	out_str(o, ">\nAuto-Submitted: auto-replied\nMIME-Version: 1.0\n");
	(BOUNCE_DSN && c->conf->dsn ? dsn_compose : qsbmf_compose)(c, o, ask, why, mess);
	out_flush(o);
}

/* 0, or -1 with errno. */
static int
write_bounce(struct cleaner *c, const struct clean_ask *ask, int why, int mess, struct clean_answer *a)
{
	static struct envelope e;
	static struct out o;
	static char head[512]; /* a Received line that is not ours */
	struct timespec now;
	struct buf b;

	if (spool_room(&c->spool, BOUNCE_COPY_MAX) != 0) {
		errno = ENOSPC;
		return -1;
	}
	e.rcpts = 1;
	e.to[0] = 'T';
	e.len = strlen(ask->rcpt) + 2;
	memcpy(e.to + 1, ask->rcpt, e.len - 1);
	(void)str_copy(e.sender, sizeof e.sender, ask->sender);
	clock_gettime(CLOCK_REALTIME, &now);
	buf_init(&b, head, sizeof head);
	if (spool_begin(&c->spool, &e, &b, now.tv_sec) == -1) {
		return -1;
	}
	a->id = c->spool.id;
	a->qp = (uint32_t)getpid();
	o.fd = c->spool.fd;
	o.bad = 0;
	buf_init(&o.b, o.mem, sizeof o.mem);
	compose(c, &o, ask, why, mess, now.tv_sec);
	if (o.bad) {
		spool_abort(&c->spool);
		errno = o.bad;
		return -1;
	}
	return spool_commit(&c->spool, &e);
}

/* What is made of message N: a notice, or the file for a mailbox. */
static int
make_of(struct cleaner *c, const struct clean_ask *ask, int why, struct clean_answer *a)
{
	char name[64];
	struct stat st;
	int mess = open(queue_path(c, "mess", ask->id, name), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	int rc = -1;

	a->why = EIO;
	if (mess != -1 && fstat(mess, &st) == 0 && S_ISREG(st.st_mode)) {
		if (LOCAL_MAILDIRS_MAX > 0 && ask->type == CLEAN_LOCAL) {
			local_deliver(c, ask, mess, a);
			rc = a->ok ? 0 : -1;
		} else {
			rc = write_bounce(c, ask, why, mess, a);
		}
	}
	if (rc == -1 && ask->type != CLEAN_LOCAL) {
		log_msg(LOG_WARNING, "queue", "cannot write a bounce: %s", strerror(errno));
	}
	if (mess != -1) {
		close(mess);
	}
	return rc;
}

/* ---- removing ---- */

static int
gone(const char *path)
{
	if (unlink(path) == 0 || errno == ENOENT) {
		return 0;
	}
	log_msg(LOG_WARNING, "queue", "cannot remove %s: %s", path, strerror(errno));
	return -1;
}

/* Files that were to become messages, and whose writers have been dead for long. */
static int
sweep(void)
{
	char name[300];
	const struct dirent *de;
	struct timespec now, boot;
	struct stat st;
	DIR *d = opendir("pid");

	if (d == NULL) {
		return -1;
	}
	clock_gettime(CLOCK_REALTIME, &now);
	clock_gettime(CLOCK_BOOTTIME, &boot);
	while ((de = readdir(d)) != NULL) {
		str_fmt(name, sizeof name, "pid/%s", de->d_name);
		/* As in todo.c: a time from before the clock was set says nothing, unless it was set a day ago. */
		if (lstat(name, &st) == 0 && S_ISREG(st.st_mode) && now.tv_sec - st.st_atime > SWEEP_AGE &&
		    (st.st_atime >= SCHED_PLAUSIBLE || boot.tv_sec > SWEEP_AGE)) {
			(void)gone(name);
		}
	}
	closedir(d);
	return 0;
}

static int
do_ask(struct cleaner *c, const struct clean_ask *ask, int fd, struct clean_answer *a)
{
	char intd[64], other[64];

	switch (ask->type) {
	case CLEAN_TODO:
	case CLEAN_MESS:
		return gone(queue_path(c, "intd", ask->id, intd)) == -1
		    ? -1
		    : gone(queue_path(c, ask->type == CLEAN_TODO ? "todo" : "mess", ask->id, other));
	case CLEAN_BOUNCE:
	case CLEAN_NOTICE:
	case CLEAN_LOCAL:
		return make_of(c, ask, fd, a);
	default:
		return sweep();
	}
}

static int
is_text(const char *p, size_t size)
{
	return memchr(p, '\0', size) != NULL;
}

/* Is this what a scheduler asks? */
static int
is_right(const struct clean_ask *ask, long n, int fd)
{
	int notice = n == (long)sizeof *ask && (ask->type == CLEAN_BOUNCE || clean_late(ask));

	return n == (long)sizeof *ask && ask->type >= CLEAN_TODO && ask->type <= CLEAN_SWEEP &&
	    (ask->type == CLEAN_SWEEP || ask->id != 0) && notice == (fd != -1) &&
	    is_text(ask->sender, sizeof ask->sender) && is_text(ask->rcpt, sizeof ask->rcpt) &&
	    is_text(ask->returned, sizeof ask->returned) &&
	    ((!notice && ask->type != CLEAN_LOCAL) || ask->rcpt[0] != '\0');
}

_Noreturn void
clean_loop(struct cleaner *c, int sock)
{
	static struct clean_ask ask;
	int fd;

	umask(033);
	c->spool.uid = c->send_uid;
	for (;;) {
		struct clean_answer a = { 0 };
		long n = msg_recv(sock, &ask, sizeof ask, &fd, -1);

		if (n == 0 || (n == -1 && errno == ECONNRESET)) {
			_exit(0);
		}
		if (!is_right(&ask, n, fd)) {
			log_msg(LOG_ERR, "crash", "the scheduler broke the rules of its conversation with the cleaner");
			_exit(111);
		}
		a.ok = do_ask(c, &ask, fd, &a) == 0;
		if (fd != -1) {
			close(fd);
		}
		if (msg_send(sock, &a, sizeof a, -1) == -1) {
			_exit(0);
		}
	}
}

#if RELAY
_Noreturn void
clean_run(const struct house *h, int sock)
{
	static struct cleaner c;
	struct sigaction sa = { .sa_handler = SIG_IGN };

	/* It ends with the scheduler, and not in the middle of something. */
	sigemptyset(&sa.sa_mask);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGXFSZ, &sa, NULL);
	prctl(PR_SET_NAME, "stile-clean", 0, 0, 0);
	c.conf = &h->config->relay;
	c.spool = h->spool;
	c.send_uid = h->ids.send_uid;
	clean_loop(&c, sock);
}
#endif
