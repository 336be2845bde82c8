/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The Maildir forms of the spool (qmail-spec 5). A file is
 *
 *   Return-Path: <sender>        local part quoted where RFC 5321 wants it
 *   Delivered-To: prefix+rcpt    raw; serialmail takes a file only with these two lines first, in this spelling
 *   message, LF line ends
 *
 * SPOOL_MAILDIR writes a file for each recipient, so that maildirsmtp can drain it; SPOOL_MAILDIR_PLAIN one file with a Delivered-To
 * line for each. Files are complete and durable in tmp/ before the first is linked into new/; then new/ is made durable. With several
 * recipients a crash between two links leaves some visible without a 250: the client sends again, and those get it twice.
 */
#include "queue.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* `dir`/NAMEQ<serial>.<host>: the names of this message's files differ in Q only. */
static const char *
file_name(const struct spool *s, const char *dir, unsigned n, char *name, size_t size)
{
	struct buf b;

	buf_init(&b, name, size);
	buf_fmt(&b, "%s/%sQ%u.", dir, s->name, s->serial + n);
	/* Neither character may stand in a file name of a Maildir. */
	for (const char *p = s->host; *p != '\0' && b.len < 230; p++) {
		if (*p == '/') {
			buf_str(&b, "\\057");
		} else if (*p == ':') {
			buf_str(&b, "\\072");
		} else {
			buf_ch(&b, *p);
		}
	}
	return buf_cstr(&b);
}

static int
needs_quotes(const char *local, size_t len)
{
	if (len == 0 || local[0] == '.' || local[len - 1] == '.') {
		return 1;
	}
	for (size_t i = 0; i < len; i++) {
		uint8_t c = (uint8_t)local[i];

		if (c <= 32 || c >= 127 || strchr("\"(),:;<>@[\\]", c) != NULL ||
		    (c == '.' && i > 0 && local[i - 1] == '.')) {
			return 1;
		}
	}
	return 0;
}

static void
add_return_path(struct buf *b, const char *sender)
{
	const char *at = strrchr(sender, '@');
	size_t len = at == NULL ? strlen(sender) : (size_t)(at - sender);

	buf_str(b, "Return-Path: <");
	if (sender[0] != '\0' && needs_quotes(sender, len)) {
		buf_ch(b, '"');
		for (size_t i = 0; i < len; i++) {
			if (sender[i] == '"' || sender[i] == '\\') {
				buf_ch(b, '\\');
			}
			buf_ch(b, sender[i]);
		}
		buf_ch(b, '"');
		buf_str(b, sender + len);
	} else {
		buf_str(b, sender);
	}
	buf_str(b, ">\n");
}

static int
write_buf(int fd, const struct buf *b)
{
	if (b->full) {
		errno = EOVERFLOW;
		return -1;
	}
	return write_all(fd, b->p, b->len);
}

/* Write Return-Path, and Delivered-To for the recipient at `to` (a `T` record), or for all of them when `all`. Returns octets or -1. */
static long
write_head(const struct spool *s, int fd, const struct envelope *e, const char *to, int all)
{
	char mem[3 * SMTP_PATH_MAX + 256];
	struct buf b;
	long total = 0;

	buf_init(&b, mem, sizeof mem);
	add_return_path(&b, e->sender);
	do {
		buf_str(&b, "Delivered-To: ");
		buf_str(&b, all ? "" : s->prefix);
		buf_str(&b, to + 1);
		buf_ch(&b, '\n');
		if (write_buf(fd, &b) == -1) {
			return -1;
		}
		total += (long)b.len;
		buf_reset(&b);
		to += strlen(to) + 1;
	} while (all && to < e->to + e->len);
	return total;
}

const char *
maildir_name(const struct spool *s, char *name, size_t size)
{
	return file_name(s, "tmp", 0, name, size);
}

static int
make_file(const struct spool *s, unsigned n)
{
	char name[300];

	return open(file_name(s, "tmp", n, name, sizeof name), O_RDWR | O_CREAT | O_EXCL | O_APPEND, 0600);
}

int
maildir_begin(struct spool *s, const struct envelope *e, struct buf *head, int64_t now)
{
	uint64_t r;
	struct timespec ts;
	struct stat st;
	long len;

	(void)head;
	clock_gettime(CLOCK_REALTIME, &ts);
	random_bytes(&r, sizeof r);
	s->serial += SMTP_RCPT_MAX;
	str_fmt(s->name, sizeof s->name, "%lld.M%ldP%dR%016llx", (long long)now, ts.tv_nsec / 1000, (int)getpid(),
	    (unsigned long long)r);
	s->fd = make_file(s, 0);
	if (s->fd == -1) {
		return -1;
	}
	len = write_head(s, s->fd, e, e->to, s->kind == SPOOL_MAILDIR_PLAIN);
	if (len == -1 || fstat(s->fd, &st) == -1) {
		spool_abort(s);
		return -1;
	}
	s->id = st.st_ino;
	s->head = (off_t)len;
	return 0;
}

/* How many files this message has. */
static unsigned
files(const struct spool *s, const struct envelope *e)
{
	return s->kind == SPOOL_MAILDIR_PLAIN ? 1 : e->rcpts;
}

/* Files `first` to `end` - 1. */
static void
unlink_all(const struct spool *s, const char *dir, unsigned first, unsigned end)
{
	char name[300];
	int saved = errno;

	for (unsigned i = first; i < end; i++) {
		unlink(file_name(s, dir, i, name, sizeof name));
	}
	errno = saved;
}

void
maildir_remove(struct spool *s)
{
	unlink_all(s, "tmp", 0, 1);
}

/* The message again, for the recipient at `to`. */
static int
copy_for(const struct spool *s, const struct envelope *e, unsigned n, const char *to)
{
	static char mem[16384];
	int fd = make_file(s, n);
	off_t pos = s->head;
	ssize_t got = -1;
	int rc = -1, saved;

	if (fd == -1) {
		return -1;
	}
	if (write_head(s, fd, e, to, 0) != -1) {
		while ((got = pread(s->fd, mem, sizeof mem, pos)) > 0 && write_all(fd, mem, (size_t)got) == 0) {
			pos += got;
		}
	}
	if (got == 0 && spool_before_link(s, fd) == 0) {
		rc = 0;
	}
	saved = errno;
	if (close(fd) == -1 && rc == 0) {
		saved = errno;
		rc = -1;
	}
	errno = saved;
	return rc;
}

/* Link all of tmp/ into new/, the message's own file last, and make that durable; on failure none stays. */
static int
publish(const struct spool *s, unsigned count)
{
	char from[300], to[300];
	unsigned i = count;

	while (i > 0 &&
	    link(file_name(s, "tmp", i - 1, from, sizeof from), file_name(s, "new", i - 1, to, sizeof to)) == 0) {
		i--;
	}
	if (i == 0 && (s->journal ? fsync(s->fd) : spool_sync_dir("new")) == 0) {
		return 0;
	}
	unlink_all(s, "new", i, count);
	return -1;
}

int
maildir_commit(struct spool *s, const struct envelope *e)
{
	unsigned count = files(s, e);
	unsigned made = 1;
	const char *to = e->to;
	int rc = spool_before_link(s, s->fd);

	while (rc == 0 && made < count) {
		to += strlen(to) + 1;
		rc = copy_for(s, e, made, to);
		made++;
	}
	if (rc == 0) {
		rc = publish(s, count);
	}
	if (close(s->fd) == -1 && rc == 0) {
		unlink_all(s, "new", 0, count);
		rc = -1;
	}
	s->fd = -1;
	unlink_all(s, "tmp", 0, made);
	return rc;
}
