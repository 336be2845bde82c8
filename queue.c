/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The spool, and qmail's queue (qmail-spec 1-3). A message N (the inode of its file) with split S is
 *
 *   mess/<N mod S>/N   the message; first line `Received: (qmail PID invoked from network); DATE`
 *   intd/N = todo/N    `u<uid>\0p<pid>\0F<sender>\0` then `T<recipient>\0` for each
 *
 *   state  mess intd todo  meaning                        a crash here leaves
 *   S1      -    -    -    number is free                 nothing
 *   S2      +    -    -    being written                  an orphan, swept by atime after 36 h
 *   S3      +    +    -    envelope being written         the same
 *   S4      +    +    +    accepted: from here on it is delivered
 *
 * Steps (qmail-spec 2.2, 3.4): message and envelope are written; message, its directory, envelope are flushed; link into todo/, which is
 * flushed; trigger; and only then the client reads 250. The directories are what qmail itself does not flush; that of intd/ need not be,
 * since the name in todo/ is the one that counts.
 *
 * Before the first flush both files are pushed out (sync_file_range). That is only a hint, but where a flush commits a journal it makes the
 * first one carry the blocks of both, and the flush of the envelope then has nothing left to commit: two commits a message, not three.
 *
 * On ext4 with a journal, and on XFS, one commit is enough. There both files are pushed out and waited for; then comes the link; then the
 * envelope is flushed. Names and blocks go into the journal in the order in which they were made, so the commit that holds the link, whoever
 * causes it, also holds all before it, and it flushes the disk's cache, where the data already are, before it counts. What is not enough even
 * there is to leave the data to that commit: it then may hold the name in todo/ of an envelope that has no blocks yet. Other file systems
 * (btrfs, f2fs, UBIFS, anything without a journal) promise less, and get every flush; so do a journal on another disk, or one whose commits do not wait
 * for the disk, and a queue that lies on several file systems. XFS must not have it on a realtime device. test/power is the judge of all this.
 *
 * Wardens run this as USER_SPOOL with the spool as current (or root) directory. They never execute anything: no O_CLOEXEC, which costs
 * musl another system call.
 */
#include "queue.h"

#include "msg.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define TRIES 9

#define MAGIC_EXT 0xef53 /* ext2, ext3, ext4 */
#define MAGIC_XFS 0x58465342

int
spool_sync_dir(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY);
	int rc, saved;

	if (fd == -1) {
		return -1;
	}
	rc = fsync(fd);
	saved = errno;
	close(fd);
	errno = saved;
	return rc;
}

const char *
queue_name(const struct spool *s, char *name, size_t size)
{
	str_fmt(name, size, "mess/%llu/%llu", (unsigned long long)(s->id % s->split), (unsigned long long)s->id);
	return name;
}

static const char *
numbered(const struct spool *s, const char *dir, char *name, size_t size)
{
	str_fmt(name, size, "%s/%llu", dir, (unsigned long long)s->id);
	return name;
}

static const char *
pid_name(unsigned serial, int64_t now, char *name, size_t size)
{
	str_fmt(name, size, "pid/%d.%lld.%u", (int)getpid(), (long long)now, serial);
	return name;
}

/* Is there an envelope of this number? As soon as the message has its name in mess/, a reader would take them for a pair. */
static int
has_envelope(const struct spool *s)
{
	char name[64];
	struct stat st;

	return stat(numbered(s, "todo", name, sizeof name), &st) == 0 ||
	    stat(numbered(s, "intd", name, sizeof name), &st) == 0;
}

/*
 * Make a file in pid/, learn its inode, and give it its name in mess/. The file system thereby hands out numbers without a lock. In a
 * queue that was restored or damaged a number may be taken: try another file, but keep this one until then, because many file systems
 * would hand out the same number again. 0 or -1.
 */
static int
make_mess(struct spool *s, int64_t now)
{
	char pidname[64], name[64];
	unsigned first = s->serial + 1;
	unsigned made = 0; /* bit n: the n-th try left a file in pid/ */
	struct stat st;
	int rc = -1, saved;

	for (unsigned i = 0; i < TRIES && rc == -1; i++) {
		s->fd = open(
		    pid_name(++s->serial, now, pidname, sizeof pidname), O_RDWR | O_CREAT | O_EXCL | O_APPEND, 0644);
		if (s->fd == -1 && errno == EEXIST) {
			continue;
		}
		if (s->fd == -1) {
			break;
		}
		made |= 1U << i;
		if (fstat(s->fd, &st) == -1) {
			break;
		}
		if (sizeof(long) == 4 && st.st_ino > UINT32_MAX) {
			errno = EOVERFLOW; /* a 32-bit qmail would cut the number */
			break;
		}
		s->id = st.st_ino;
		if (has_envelope(s)) {
			errno = EEXIST;
		} else {
			rc = link(pidname, queue_name(s, name, sizeof name));
		}
		if (rc == -1 && errno != EEXIST) {
			break;
		}
		if (rc == -1) {
			close(s->fd);
			s->fd = -1;
			errno = EEXIST;
		}
	}
	saved = errno;
	for (unsigned i = 0; i < TRIES; i++) {
		if ((made & 1U << i) != 0) {
			unlink(pid_name(first + i, now, pidname, sizeof pidname));
		}
	}
	if (rc == -1 && s->fd != -1) {
		close(s->fd);
		s->fd = -1;
	}
	errno = saved;
	return rc;
}

int
queue_begin(struct spool *s, const struct envelope *e, struct buf *head, int64_t now)
{
	(void)e;
	if (make_mess(s, now) == -1) {
		return -1;
	}
	buf_fmt(head, "Received: (qmail %d invoked from network); ", (int)getpid());
	buf_date(head, now);
	buf_ch(head, '\n');
	return 0;
}

void
queue_remove(struct spool *s)
{
	char name[64];

	/*
	 * Envelope first, and on only when that is gone: a message without one is debris that is swept, an envelope without its message a fault
	 * that nobody mends. An entry in todo/ that is gone already was taken by the reader, and with it the message.
	 */
	if (s->made_todo && unlink(numbered(s, "todo", name, sizeof name)) == -1) {
		return;
	}
	if (s->made_intd && unlink(numbered(s, "intd", name, sizeof name)) == -1 && errno != ENOENT) {
		return;
	}
	unlink(queue_name(s, name, sizeof name));
}

/* Write intd/N. Its descriptor, or -1. */
static int
write_envelope(struct spool *s, const struct envelope *e)
{
	char name[64];
	char mem[SMTP_PATH_MAX + 64];
	struct buf b;
	int fd = open(numbered(s, "intd", name, sizeof name), O_WRONLY | O_CREAT | O_EXCL, 0644);
	int saved;

	if (fd == -1) {
		return -1;
	}
	s->made_intd = 1;
	buf_init(&b, mem, sizeof mem);
	buf_fmt(&b, "u%lu", (unsigned long)s->uid);
	buf_ch(&b, '\0');
	buf_fmt(&b, "p%d", (int)getpid());
	buf_ch(&b, '\0');
	buf_ch(&b, 'F');
	buf_add(&b, e->sender, strlen(e->sender) + 1);
	if (b.full) {
		errno = EOVERFLOW;
	} else if (write_all(fd, b.p, b.len) == 0 && write_all(fd, e->to, e->len) == 0) {
		return fd;
	}
	saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

int
spool_push(int fd, int wait)
{
	unsigned how = SYNC_FILE_RANGE_WRITE | (wait ? SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WAIT_AFTER : 0);

	if (sync_file_range(fd, 0, 0, how) == 0) {
		return 1;
	}
	return errno == ENOSYS || errno == EINVAL || errno == ESPIPE || errno == EOPNOTSUPP ? 0 : -1;
}

int
spool_before_link(const struct spool *s, int fd)
{
	int pushed = s->journal ? spool_push(fd, 1) : 0;

	return pushed == 0 ? fsync(fd) : pushed == 1 ? 0 : -1;
}

/* Message and envelope, and the message's name, as they must be before the link into todo/. */
static int
flush_both(const struct spool *s, int env)
{
	char messdir[32];
	int pushed = spool_push(s->fd, 0), pushed_env = pushed == -1 ? -1 : spool_push(env, 1);

	pushed = pushed_env == -1 ? -1 : spool_push(s->fd, 1);
	if (pushed == -1) {
		return -1;
	}
	if (s->journal && pushed && pushed_env) {
		return 0;
	}
	str_fmt(messdir, sizeof messdir, "mess/%llu", (unsigned long long)(s->id % s->split));
	return fsync(s->fd) == -1 || spool_sync_dir(messdir) == -1 ? -1 : fsync(env);
}

/* Wake qmail-send, if there is one: open, one octet, close, with nothing in between (qmail-spec 3.2). */
static void
pull_trigger(void)
{
	int fd = open("lock/trigger", O_WRONLY | O_NONBLOCK);

	if (fd != -1) {
		ssize_t n = write(fd, "", 1);

		(void)n; /* no reader, or one that is already awake */
		close(fd);
	}
}

int
queue_commit(struct spool *s, const struct envelope *e)
{
	char todo[64], intd[64];
	int rc = -1, env, saved;

	numbered(s, "intd", intd, sizeof intd);
	numbered(s, "todo", todo, sizeof todo);
	env = write_envelope(s, e);
	if (env != -1 && flush_both(s, env) == 0 && link(intd, todo) == 0) {
		s->made_todo = 1;
		rc = s->journal ? fsync(env) : spool_sync_dir("todo");
	}
	saved = errno;
	if (env != -1 && close(env) == -1 && rc == 0) {
		saved = errno;
		rc = -1;
	}
	if (rc == 0) {
		/* It was for reading, and all is flushed: an error could say nothing more, and nothing may be removed behind it. */
		close(s->fd);
		s->fd = -1;
		pull_trigger();
	} else {
		spool_abort(s);
	}
	errno = saved;
	return rc;
}

/* ---- both kinds of spool ---- */

/*
 * The number of numeric subdirectories of `dir`/`sub`, when they are 0..n-1; -1 with errno, or EINVAL when there is a hole.
 */
static long
count_split(const char *dir, const char *sub)
{
	char path[512];
	DIR *d;
	const struct dirent *de;
	uint64_t n, top = 0;
	long count = 0;

	str_fmt(path, sizeof path, "%s/%s", dir, sub);
	d = opendir(path);
	if (d == NULL) {
		return -1;
	}
	while ((de = readdir(d)) != NULL) {
		struct stat st;

		/* The directory says what is a directory, as a rule: todo/ may hold very many files. */
		if (parse_u64(de->d_name, strlen(de->d_name), 100000000000ULL, &n) == 0 &&
		    (de->d_type == DT_DIR ||
			(de->d_type == DT_UNKNOWN && fstatat(dirfd(d), de->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
			    S_ISDIR(st.st_mode)))) {
			count++;
			top = n > top ? n : top;
		}
	}
	closedir(d);
	if (count > 0 && (uint64_t)count != top + 1) {
		errno = EINVAL;
		return -1;
	}
	return count;
}

static int
check_queue(struct spool *s, const char *dir, struct diag *d)
{
	static const char *const parts[] = { "info", "local", "remote" };
	long split = count_split(dir, "mess");

	if (split <= 0) {
		diag_put(d, DIAG_ERROR, dir, 0, "no queue here (%s); make one with `mailstile mkqueue`",
		    split == 0 ? "mess/ has no numbered subdirectories" : strerror(errno));
		return -1;
	}
	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
		long n = count_split(dir, parts[i]);

		/* Only root and USER_SEND can look into these. */
		if (n != split && !(n == -1 && errno == EACCES)) {
			diag_put(d, DIAG_ERROR, dir, 0,
			    "mess/ is split %ld ways, but %s/ is not; see `mailstile mkqueue`", split, parts[i]);
			return -1;
		}
	}
	if (count_split(dir, "todo") > 0) {
		diag_put(
		    d, DIAG_ERROR, dir, 0, "todo/ is split: a queue with the big-todo patch, which is not supported");
		return -1;
	}
	s->split = (unsigned)split;
	return 0;
}

static int
check_maildir(const char *dir, struct diag *d)
{
	static const char *const parts[] = { "tmp", "new", "cur" };
	char path[512];
	struct stat st;

	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
		str_fmt(path, sizeof path, "%s/%s", dir, parts[i]);
		if (stat(path, &st) == -1 || !S_ISDIR(st.st_mode)) {
			diag_put(d, DIAG_ERROR, path, 0,
			    "expected a directory: a Maildir has tmp, new and cur (see maildirmake)");
			return -1;
		}
	}
	return 0;
}

/*
 * Does the file system of `dir` commit all names and blocks in the order they were made, so that one flush is enough (see above)? XFS does, and
 * ext4 when it has a journal, on the same disk (its inode is 8), and waits for the disk before the commit counts; /proc tells. Between two file systems
 * there is no order. 0 when in doubt.
 */
static int
has_journal(const char *dir)
{
	char path[512], name[256], options[2048];
	const char *device;
	struct statfs f;
	struct stat st, part;
	ssize_t n;

	if (statfs(dir, &f) == -1 || stat(dir, &st) == -1) {
		return 0;
	}
	for (const char *p = "mess\0intd\0todo\0info\0local\0remote\0new\0"; *p != '\0'; p += strlen(p) + 1) {
		str_fmt(path, sizeof path, "%s/%s", dir, p);
		if (stat(path, &part) == 0 && part.st_dev != st.st_dev) {
			return 0;
		}
	}
	if (f.f_type == MAGIC_XFS) {
		return 1;
	}
	str_fmt(path, sizeof path, "/sys/dev/block/%u:%u", major(st.st_dev), minor(st.st_dev));
	n = f.f_type == MAGIC_EXT ? readlink(path, name, sizeof name - 1) : -1;
	if (n <= 0) {
		return 0;
	}
	name[n] = '\0';
	device = strrchr(name, '/');
	device = device == NULL ? name : device + 1;
	if (access(str_fmt(path, sizeof path, "/proc/fs/jbd2/%s-8", device), F_OK) == -1) {
		return 0;
	}
	n = file_read(str_fmt(path, sizeof path, "/proc/fs/ext4/%s/options", device), options, sizeof options - 1);
	options[n > 0 ? n : 0] = '\0';
	return n > 0 && strstr(options, "journal_async_commit") == NULL;
}

int
spool_open(struct spool *s, enum spool_kind kind, const char *dir, struct diag *d)
{
	memset(s, 0, sizeof *s);
	s->kind = kind;
	s->journal = has_journal(dir);
	s->fd = -1;
	s->split = 1;
	return kind == SPOOL_QUEUE ? check_queue(s, dir, d) : check_maildir(dir, d);
}

void
spool_check_owner(const struct spool *s, const char *dir, uid_t uid, struct diag *d)
{
	static const char *const queue[] = { "pid", "mess", "intd", "todo" };
	static const char *const maildir[] = { "tmp", "new" };
	const char *const *parts = s->kind == SPOOL_QUEUE ? queue : maildir;
	size_t n = s->kind == SPOOL_QUEUE ? sizeof queue / sizeof queue[0] : sizeof maildir / sizeof maildir[0];
	char path[512];
	struct stat st;

	for (size_t i = 0; i < n; i++) {
		str_fmt(path, sizeof path, "%s/%s", dir, parts[i]);
		if (stat(path, &st) == 0 && st.st_uid != uid) {
			diag_put(d, DIAG_ERROR, path, 0,
			    "belongs to user %lu, but mail is written by user %lu: it will be answered 451",
			    (unsigned long)st.st_uid, (unsigned long)uid);
		}
	}
}

uint64_t
spool_head_max(const struct spool *s)
{
	return SPOOL_HEAD_MAX +
	    (s->kind == SPOOL_MAILDIR_PLAIN ? sizeof((struct envelope *)0)->to + SMTP_RCPT_MAX * (uint64_t)16 : 0);
}

int
spool_room(const struct spool *s, uint64_t size)
{
	struct statvfs v;
	uint64_t room;

	(void)s;
	if (statvfs(".", &v) == -1) {
		return V_SPOOL_ERROR;
	}
	if ((v.f_flag & ST_RDONLY) != 0) {
		return V_SPOOL_ERROR;
	}
	room = (uint64_t)v.f_bavail * (v.f_frsize != 0 ? v.f_frsize : v.f_bsize);
	if (size > UINT64_MAX - SPOOL_RESERVE || room < size + SPOOL_RESERVE) {
		return V_NO_SPACE;
	}
	/* Some file systems have no fixed number of inodes and report none. */
	if (v.f_files > 0 && v.f_favail < SPOOL_RESERVE_INODES) {
		return V_NO_SPACE;
	}
	return 0;
}

int
spool_begin(struct spool *s, const struct envelope *e, struct buf *head, int64_t now)
{
	s->head = 0;
	s->made_intd = s->made_todo = 0;
	return s->kind == SPOOL_QUEUE ? queue_begin(s, e, head, now) : maildir_begin(s, e, head, now);
}

int
spool_lend(struct spool *s)
{
	char name[300];
	int lent = s->fd;
	int fd = open(s->kind == SPOOL_QUEUE ? queue_name(s, name, sizeof name) : maildir_name(s, name, sizeof name),
	    O_RDONLY | O_NOFOLLOW);

	if (fd == -1) {
		return -1;
	}
	s->fd = fd;
	return lent;
}

/* A lease for reading is granted on a file that nobody has open for writing, and by EAGAIN refused on others. 1, or 0 with errno. */
static int
unwritten(int fd)
{
	return fcntl(fd, F_SETLEASE, F_RDLCK) == 0 && fcntl(fd, F_SETLEASE, F_UNLCK) == 0;
}

/*
 * Do leases work here? Some network file systems refuse them all. Asked only when one was refused, by one on a new file.
 */
static int
leases_work(const struct spool *s)
{
	char name[64];
	int fd, works = 0;

	str_fmt(name, sizeof name, "%s/%d.lease", s->kind == SPOOL_QUEUE ? "pid" : "tmp", (int)getpid());
	fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0600);
	if (fd != -1) {
		close(fd);
		fd = open(name, O_RDONLY | O_NOFOLLOW);
		unlink(name);
	}
	if (fd != -1) {
		works = unwritten(fd);
		close(fd);
	}
	return works;
}

int
spool_returned(const struct spool *s)
{
	return unwritten(s->fd) || errno != EAGAIN || !leases_work(s);
}

int
spool_commit(struct spool *s, const struct envelope *e)
{
	return s->kind == SPOOL_QUEUE ? queue_commit(s, e) : maildir_commit(s, e);
}

void
spool_abort(struct spool *s)
{
	int saved = errno;

	if (s->fd != -1) {
		/* While the file is open, its number is ours; a moment later another session may have it, and names that look like ours. */
		if (s->kind == SPOOL_QUEUE) {
			queue_remove(s);
		} else {
			maildir_remove(s);
		}
		close(s->fd);
		s->fd = -1;
	}
	errno = saved;
}
