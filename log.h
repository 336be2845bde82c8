/* SPDX-License-Identifier: MIT */
/*
 * One line per event, `ev=NAME key=value ...`, to syslog (LOG_MAIL) or stderr. Values are escaped, so a line cannot be
 * forged from outside. Used by main and wardens; the smtp process has no log and sends MSG_NOTE instead.
 */
#ifndef MAILSTILE_LOG_H
#define MAILSTILE_LOG_H

#include <stddef.h>
#include <syslog.h>

enum log_target { LOG_TO_STDERR, LOG_TO_SYSLOG };

/* Choose where lines go. For syslog, connects /dev/log now, so that a chrooted warden can still write. 0, or -1 with errno
 * (lines then go nowhere until log_reopen() succeeds). */
int log_open(enum log_target target);
/* 1: show lines on stderr, too, while syslog is their target. */
void log_echo(int on);
struct share;
/* Lines of LOG_WARNING and above are kept there, too, for `status`; NULL: no more, in processes that do not have it. */
void log_keep(struct share *s);
/* Connect to /dev/log again when the last write failed (syslogd was restarted). Cheap when all is well. main only. 1: it did. */
int log_reopen(void);
/* Stop logging for good: the smtp process, whose descriptors are about to mean something else. */
void log_close(void);

/* A line under construction. */
struct log_line {
	char mem[1000];
	size_t len;
	int prio;
};

/* Begin a line for event `ev` with syslog priority `prio` (LOG_INFO, LOG_WARNING, LOG_ERR). */
void log_begin(struct log_line *l, int prio, const char *ev);
/* Add ` key=value`; a NULL or empty value adds `key=-`. Long values are cut. */
void log_str(struct log_line *l, const char *key, const char *value);
void log_mem(struct log_line *l, const char *key, const void *value, size_t len);
void log_num(struct log_line *l, const char *key, long long n);
/* Add ` key=value` from a printf format; the result is escaped too. */
void log_fmt(struct log_line *l, const char *key, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Add ` key="text"`: text of our own, in which spaces stay. A quote, a backslash and '=' are escaped all the same. */
void log_text(struct log_line *l, const char *key, const char *text);
/* Write it. */
void log_end(struct log_line *l);

/* A whole line: `ev=EV msg="..."` with the message from a printf format. */
void log_msg(int prio, const char *ev, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
