/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * System calls that fail when told to. For programs linked with
 *   -Wl,--wrap=open,--wrap=link,--wrap=fsync,--wrap=write,--wrap=close,--wrap=fstat,--wrap=sync_file_range
 */
#ifndef MAILSTILE_TEST_FAULTS_H
#define MAILSTILE_TEST_FAULTS_H

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum fault_kind { F_OPEN, F_LINK, F_FSYNC, F_WRITE, F_CLOSE, F_FSTAT, F_PUSH, F_KINDS };

static struct {
	int on;
	enum fault_kind kind; /* the calls `first` to `last` of this kind fail with `error`; they count from 1 */
	unsigned first, last;
	int error;
	unsigned seen[F_KINDS];
	int harmless; /* what failed was about a directory's descriptor being closed, or the FIFO */
	int flags;    /* of the last open */
	size_t trace_len;
	char trace[4096]; /* opens, links and fsyncs, one a line; the part of a name that is `id` becomes N */
	unsigned long long id;
} faults;

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __real_link(const char *from, const char *to);
int __wrap_link(const char *from, const char *to);
int __wrap_fsync(int fd);
int __wrap_sync_file_range(int fd, off_t offset, off_t len, unsigned how);
ssize_t __real_write(int fd, const void *p, size_t len);
ssize_t __wrap_write(int fd, const void *p, size_t len);
int __real_close(int fd);
int __wrap_close(int fd);
#if defined(_REDIR_TIME64) && _REDIR_TIME64 /* musl on a CPU of 32 bits: see TIME64_NAMES in test.mk */
int __real_fstat(int fd, struct stat *st) __asm__("__real___fstat_time64");
#else
int __real_fstat(int fd, struct stat *st);
#endif
int __wrap_fstat(int fd, struct stat *st);

/* Forget counts and trace; from now on fail as told (error 0: never). */
static void
faults_start(enum fault_kind kind, unsigned first, unsigned last, int error)
{
	memset(&faults, 0, sizeof faults);
	faults.kind = kind;
	faults.first = first;
	faults.last = last;
	faults.error = error;
	faults.on = 1;
}

static int
faults_due(enum fault_kind kind)
{
	unsigned n;

	if (!faults.on) {
		return 0;
	}
	n = ++faults.seen[kind];
	if (faults.error == 0 || kind != faults.kind || n < faults.first || n > faults.last) {
		return 0;
	}
	errno = faults.error;
	return 1;
}

static void
faults_note(const char *what, const char *path)
{
	char number[32];
	const char *at = NULL;
	char *end = faults.trace + faults.trace_len;
	size_t room = sizeof faults.trace - faults.trace_len;

	if (!faults.on || room < 600) {
		return;
	}
	if (faults.id != 0) {
		snprintf(number, sizeof number, "%llu", faults.id);
		at = strstr(path, number);
	}
	if (at == NULL) {
		faults.trace_len += (size_t)snprintf(end, room, "%s %s\n", what, path);
	} else {
		faults.trace_len +=
		    (size_t)snprintf(end, room, "%s %.*sN%s\n", what, (int)(at - path), path, at + strlen(number));
	}
}

/* Is this descriptor's failure one that changes nothing: a FIFO, or (`dirs`) a directory? */
static int
faults_is_harmless(int fd, int dirs)
{
	struct stat st;

	return __real_fstat(fd, &st) == 0 && (S_ISFIFO(st.st_mode) || (dirs && S_ISDIR(st.st_mode)));
}

int
__wrap_open(const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = (flags & O_CREAT) != 0 ? va_arg(ap, mode_t) : 0;
	va_end(ap);
	faults_note("open", path);
	faults.flags = flags;
	if (faults_due(F_OPEN)) {
		faults.harmless = strcmp(path, "lock/trigger") == 0;
		return -1;
	}
	return __real_open(path, flags, mode);
}

int
__wrap_link(const char *from, const char *to)
{
	faults_note("link", to);
	return faults_due(F_LINK) ? -1 : __real_link(from, to);
}

/* Note a call on an open file. */
static void
faults_note_fd(const char *what, int fd)
{
	char self[32], path[256];
	struct stat st;
	ssize_t n;

	snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
	n = readlink(self, path, sizeof path - 1);
	path[n < 0 ? 0 : n] = '\0';
	if (__real_fstat(fd, &st) == 0 && st.st_ino == faults.id && faults.id != 0) {
		strcpy(path, "/message");
	}
	faults_note(what, strrchr(path, '/') == NULL ? path : strrchr(path, '/') + 1);
}

/* Nobody pulls the plug on a unit test. */
int
__wrap_fsync(int fd)
{
	faults_note_fd("fsync", fd);
	return faults_due(F_FSYNC) ? -1 : 0;
}

int
__wrap_sync_file_range(int fd, off_t offset, off_t len, unsigned how)
{
	assert_true(offset == 0 && len == 0 && (how & SYNC_FILE_RANGE_WRITE) != 0);
	faults_note_fd((how & SYNC_FILE_RANGE_WAIT_AFTER) != 0 ? "await" : "push", fd);
	return faults_due(F_PUSH) ? -1 : 0;
}

ssize_t
__wrap_write(int fd, const void *p, size_t len)
{
	if (faults_due(F_WRITE)) {
		faults.harmless = faults_is_harmless(fd, 0);
		return -1;
	}
	return __real_write(fd, p, len);
}

int
__wrap_close(int fd)
{
	/* As Linux has it: the descriptor is gone all the same. */
	if (faults_due(F_CLOSE)) {
		faults.harmless = faults_is_harmless(fd, 1);
		__real_close(fd);
		errno = faults.error;
		return -1;
	}
	return __real_close(fd);
}

int
__wrap_fstat(int fd, struct stat *st)
{
	return faults_due(F_FSTAT) ? -1 : __real_fstat(fd, st);
}

#endif
