/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Log lines to syslog (RFC 3164 framing over /dev/log) or stderr. Our own client instead of syslog(3), so that a chrooted
 * warden keeps the descriptor main opened, a stuck syslogd never blocks mail, and no line is ever built from a foreign format.
 */
#include "log.h"

#include "str.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define VALUE_MAX 400

static struct {
	enum log_target target;
	int fd;
	int broken;
	int echo;
	struct stat seen; /* /dev/log as it was when we connected */
} logger = { .target = LOG_TO_STDERR, .fd = STDERR_FILENO };

static int
syslog_connect(void)
{
	static const struct sockaddr_un dev_log = { .sun_family = AF_UNIX, .sun_path = "/dev/log" };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd == -1) {
		return -1;
	}
	if (stat(dev_log.sun_path, &logger.seen) == -1) {
		memset(&logger.seen, 0, sizeof logger.seen);
	}
	if (connect(fd, (const struct sockaddr *)&dev_log, sizeof dev_log) == -1) {
		int saved = errno;

		close(fd);
		errno = saved;
		return -1;
	}
	return fd;
}

int
log_open(enum log_target target)
{
	logger.target = target;
	logger.broken = 0;
	if (target == LOG_TO_STDERR) {
		logger.fd = STDERR_FILENO;
		return 0;
	}
	logger.fd = syslog_connect();
	logger.broken = logger.fd == -1;
	return logger.broken ? -1 : 0;
}

void
log_echo(int on)
{
	logger.echo = on;
}

int
log_reopen(void)
{
	struct stat st;
	int fd;

	if (logger.target != LOG_TO_SYSLOG) {
		return 0;
	}
	/* It is wardens that write, as a rule, and they cannot tell us; but a new syslogd makes a new socket. */
	if (!logger.broken && stat("/dev/log", &st) == 0 &&
	    (st.st_ino != logger.seen.st_ino || st.st_dev != logger.seen.st_dev ||
		st.st_ctime != logger.seen.st_ctime)) {
		logger.broken = 1;
	}
	if (!logger.broken) {
		return 0;
	}
	fd = syslog_connect();
	if (fd == -1) {
		return 0;
	}
	if (logger.fd != -1) {
		close(logger.fd);
	}
	logger.fd = fd;
	logger.broken = 0;
	return 1;
}

void
log_close(void)
{
	logger.target = LOG_TO_STDERR;
	logger.fd = -1;
}

static void
line_add(struct log_line *l, const void *p, size_t len)
{
	/* One octet stays free for the line feed. */
	if (len < sizeof l->mem - l->len) {
		memcpy(l->mem + l->len, p, len);
		l->len += len;
	}
}

void
log_begin(struct log_line *l, int prio, const char *ev)
{
	l->len = 0;
	l->prio = prio;
	line_add(l, "ev=", 3);
	line_add(l, ev, strlen(ev));
}

/* Add ` key=value`, with what goes around the value, if there is room for all of it: half a pair could be read as another one. */
static void
add_pair(struct log_line *l, const char *key, const char *quote, const struct buf *value, const char *end)
{
	char mem[VALUE_MAX + 64];
	struct buf b;

	buf_init(&b, mem, sizeof mem);
	buf_ch(&b, ' ');
	buf_str(&b, key);
	buf_ch(&b, '=');
	buf_str(&b, quote);
	buf_add(&b, value->p, value->len);
	buf_str(&b, end);
	buf_str(&b, quote);
	if (!b.full) {
		line_add(l, b.p, b.len);
	}
}

void
log_mem(struct log_line *l, const char *key, const void *value, size_t len)
{
	char mem[VALUE_MAX];
	struct buf b;

	buf_init(&b, mem, sizeof mem);
	buf_escaped(&b, value, len, 0);
	add_pair(l, key, "", &b, b.full ? "..." : b.len == 0 ? "-" : "");
}

void
log_text(struct log_line *l, const char *key, const char *text)
{
	char mem[VALUE_MAX];
	struct buf b;

	buf_init(&b, mem, sizeof mem);
	buf_escaped(&b, text, strlen(text), 1);
	add_pair(l, key, "\"", &b, "");
}

void
log_str(struct log_line *l, const char *key, const char *value)
{
	log_mem(l, key, value == NULL ? "" : value, value == NULL ? 0 : strlen(value));
}

void
log_num(struct log_line *l, const char *key, long long n)
{
	log_fmt(l, key, "%lld", n);
}

/* Format into mem[VALUE_MAX], cutting what does not fit. */
static const char *__attribute__((format(printf, 2, 0))) format_value(char *mem, const char *fmt, va_list ap)
{
	return str_vfmt_cut(mem, VALUE_MAX, fmt, ap);
}

void
log_fmt(struct log_line *l, const char *key, const char *fmt, ...)
{
	char mem[VALUE_MAX];
	va_list ap;

	va_start(ap, fmt);
	log_str(l, key, format_value(mem, fmt, ap));
	va_end(ap);
}

static void
send_syslog(const struct log_line *l)
{
	char head[64];
	char packet[sizeof head + sizeof l->mem];
	struct iovec iov = { .iov_base = packet };
	/* By the call that all system call filters know: send() is sendto() to the kernel, which is for those who talk to the network. */
	const struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct buf b;

	if (logger.fd == -1) {
		return;
	}
	/* Without a time: a syslogd puts in the one when it gets the line (RFC 3164 4.3.2), and knows where it is. */
	buf_init(&b, packet, sizeof packet);
	buf_fmt(&b, "<%d>mailstile[%d]: ", LOG_MAIL | l->prio, (int)getpid());
	buf_add(&b, l->mem, l->len);
	iov.iov_len = b.len;
	if (sendmsg(logger.fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) == -1 && errno != EAGAIN && errno != ENOBUFS) {
		logger.broken = 1;
	}
}

void
log_end(struct log_line *l)
{
	int fd = logger.target == LOG_TO_STDERR ? logger.fd : logger.echo ? STDERR_FILENO : -1;

	if (logger.target == LOG_TO_SYSLOG) {
		send_syslog(l);
	}
	if (fd == -1) {
		return;
	}
	l->mem[l->len] = '\n';
	/* One write, so that lines of several processes do not mix. A lost line must not stop mail. */
	if (write(fd, l->mem, l->len + 1) == -1 && logger.target == LOG_TO_STDERR) {
		logger.broken = 1;
	}
}

void
log_msg(int prio, const char *ev, const char *fmt, ...)
{
	char mem[VALUE_MAX];
	struct log_line l;
	va_list ap;

	log_begin(&l, prio, ev);
	va_start(ap, fmt);
	log_text(&l, "msg", format_value(mem, fmt, ap));
	va_end(ap);
	log_end(&l);
}
