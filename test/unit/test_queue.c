/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * qmail's queue: queue.c against the checklist of qmail-spec 8.1, and with every system call failing in its turn.
 * LDFLAGS: -Wl,--wrap=open,--wrap=link,--wrap=fsync,--wrap=write,--wrap=close,--wrap=fstat,--wrap=sync_file_range,--wrap=statvfs,--wrap=fcntl
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "faults.h"
#include "msg.h"
#include "queue.h"
#include "unit.h"

#include <regex.h>
#include <sys/statvfs.h>

#define SPLIT 3
#define NOW 1795303419 /* 21 Nov 2026 23:23:39 */

static struct envelope e;
static struct findings found;
static struct statvfs free_space;
static int statvfs_error;

int __wrap_statvfs(const char *path, struct statvfs *v);
int
__wrap_statvfs(const char *path, struct statvfs *v)
{
	assert_string_equal(path, ".");
	*v = free_space;
	errno = statvfs_error;
	return statvfs_error == 0 ? 0 : -1;
}

/* A file system's word on leases: 0 what the kernel says, else how it fails. */
static int lease_error;

int __real_fcntl(int fd, int cmd, ...);
int __wrap_fcntl(int fd, int cmd, ...);
int
__wrap_fcntl(int fd, int cmd, ...)
{
	va_list ap;
	int arg;

	va_start(ap, cmd);
	arg = va_arg(ap, int);
	va_end(ap);
	if (cmd == F_SETLEASE && lease_error != 0) {
		errno = lease_error;
		return -1;
	}
	return __real_fcntl(fd, cmd, arg);
}

static void
sh(const char *command)
{
	assert_int_equal(system(command), 0);
}

/* An empty queue in the current directory, which is `dir`. */
static void
make_queue(void)
{
	sh("rm -rf *; mkdir -p pid intd todo bounce lock mess/0 mess/1 mess/2 info/0 info/1 info/2 "
	   "local/0 local/1 local/2 remote/0 remote/1 remote/2; mkfifo lock/trigger");
}

static void
set_envelope(const char *sender, const char *const *to, size_t n)
{
	e.rcpts = 0;
	e.len = 0;
	strcpy(e.sender, sender);
	for (size_t i = 0; i < n; i++) {
		e.to[e.len] = 'T';
		strcpy(e.to + e.len + 1, to[i]);
		e.len += strlen(to[i]) + 2;
		e.rcpts++;
	}
}

static void
open_spool(struct spool *s)
{
	assert_int_equal(spool_open(s, SPOOL_QUEUE, dir, &fresh(&found)->d), 0);
	assert_int_equal(s->split, SPLIT);
	s->uid = 64011;
	s->host = "mail.example.net";
}

/* Begin a message and write it; the faults that were ordered happen in spool_begin() and spool_commit() only. */
static int
begin(struct spool *s)
{
	char mem[256];
	struct buf head;
	int rc;

	buf_init(&head, mem, sizeof mem);
	rc = spool_begin(s, &e, &head, NOW);
	faults.on = 0;
	if (rc == 0) {
		assert_int_equal(write_all(s->fd, head.p, head.len), 0);
		assert_int_equal(write_all(s->fd, "Subject: x\n\n\0\xff\n", 15), 0);
		faults.id = s->id;
	}
	faults.on = 1;
	return rc;
}

static int
begin_and_commit(struct spool *s)
{
	return begin(s) == -1 ? -1 : spool_commit(s, &e);
}

static void
assert_matches(const char *text, const char *pattern)
{
	regex_t re;

	assert_int_equal(regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB | REG_NEWLINE), 0);
	if (regexec(&re, text, 0, NULL, 0) != 0) {
		fail_msg("%s\ndoes not match %s", text, pattern);
	}
	regfree(&re);
}

/* qmail-spec 8.1, 4 to 19. */
static void
test_files(void **state)
{
	static const char *const to[] = { "bob@b.example", "a b@c.example", "bob@b.example" };
	static const char *const senders[] = { "alice@a.example", "" };
	char want[256], mess[64], todo[64], intd[64], *text;
	unsigned fds = open_fds();

	(void)state;
	for (size_t i = 0; i < COUNT(senders); i++) {
		struct stat m, t, d;
		struct spool s;
		size_t len, n;

		make_queue();
		set_envelope(senders[i], to, COUNT(to));
		open_spool(&s);
		faults_start(0, 0, 0, 0);
		assert_int_equal(begin_and_commit(&s), 0);
		assert_int_equal(s.fd, -1);
		faults.on = 0;

		snprintf(mess, sizeof mess, "mess/%d/%llu", (int)(s.id % SPLIT), (unsigned long long)s.id);
		snprintf(todo, sizeof todo, "todo/%llu", (unsigned long long)s.id);
		snprintf(intd, sizeof intd, "intd/%llu", (unsigned long long)s.id);
		snprintf(want, sizeof want, "%s\n%s\n%s\n", intd, mess, todo);
		assert_string_equal(files_there(), want); /* 4, 5; also: pid/ is empty */
		assert_int_equal(lstat(mess, &m) + lstat(todo, &t) + lstat(intd, &d), 0);
		assert_int_equal(m.st_ino, s.id);     /* 6 */
		assert_int_equal(t.st_ino, d.st_ino); /* 7 */
		assert_int_equal(t.st_nlink, 2);
		assert_int_equal(m.st_nlink, 1);       /* 8 */
		assert_int_equal(m.st_uid, geteuid()); /* 9 */
		assert_int_equal(t.st_uid, geteuid());
		assert_int_equal(m.st_mode, S_IFREG | 0644); /* 10, 11 */
		assert_int_equal(t.st_mode, S_IFREG | 0644);

		n = (size_t)snprintf(want, sizeof want,
			"u64011%cp%d%cF%s%cTbob@b.example%cTa b@c.example%cTbob@b.example", 0, (int)getpid(), 0,
			senders[i], 0, 0, 0) +
		    1;
		text = content(todo, &len); /* 12 to 17 */
		assert_int_equal(len, n);
		assert_memory_equal(text, want, n);

		snprintf(want, sizeof want, "Received: (qmail %d invoked from network); 21 Nov 2026 23:23:39 -0000\n",
		    (int)getpid());
		text = content(mess, &len); /* 18, 19 */
		assert_int_equal(len, strlen(want) + 15);
		assert_memory_equal(text, want, strlen(want));
		assert_memory_equal(text + strlen(want), "Subject: x\n\n\0\xff\n", 15);
	}
	assert_int_equal(open_fds(), fds);
}

/* Message, its directory and envelope are flushed before the link, todo after it; then the trigger: qmail-spec 8.1, 26 to 30. */
static void
test_order(void **state)
{
	static const char *const to[] = { "bob@b.example" };
	struct spool s;
	char byte[4];
	int fifo;

	(void)state;
	make_queue();
	set_envelope("alice@a.example", to, 1);
	open_spool(&s);
	fifo = open("lock/trigger", O_RDONLY | O_NONBLOCK);
	/* One flush, of the envelope, where the file system keeps things in order. */
	s.journal = 1;
	faults_start(0, 0, 0, 0);
	assert_int_equal(begin_and_commit(&s), 0);
	faults.on = 0;
	assert_matches(faults.trace,
	    "\nopen intd/N\npush message\nawait N\nawait message\nlink todo/N\nfsync N\nopen lock/trigger\n$");
	assert_int_equal(read(fifo, byte, sizeof byte), 1);
	s.journal = 0;
	faults_start(0, 0, 0, 0);
	assert_int_equal(begin_and_commit(&s), 0);
	faults.on = 0;
	assert_matches(faults.trace, "^open pid/[0-9]+\\.1795303419\\.[0-9]+\nlink mess/[012]/[0-9]+\n");
	assert_matches(faults.trace,
	    "\nopen intd/N\npush message\nawait N\nawait message\nfsync message\nopen mess/[012]\nfsync [012]\nfsync N\nlink todo/N\nopen todo\n"
	    "fsync todo\nopen lock/trigger\n$");
	assert_int_equal(faults.flags, O_WRONLY | O_NONBLOCK);
	/* A file system that cannot push out gets every flush, whatever it is. */
	s.journal = 1;
	for (int error = 0; error < 2; error++) {
		faults_start(F_PUSH, 1, 3, error == 0 ? ENOSYS : EINVAL);
		assert_int_equal(begin_and_commit(&s), 0);
		faults.on = 0;
		assert_matches(
		    faults.trace, "\nfsync message\nopen mess/[012]\nfsync [012]\nfsync N\nlink todo/N\nfsync N\n");
		assert_int_equal(read(fifo, byte, 1), 1);
	}
	/* One octet, and nobody has the FIFO open any more. */
	assert_int_equal(read(fifo, byte, sizeof byte), 1);
	assert_int_equal(read(fifo, byte, sizeof byte), 0);
	close(fifo);
	/* No reader, no FIFO: all the same. */
	assert_int_equal(begin_and_commit(&s), 0);
	unlink("lock/trigger");
	assert_int_equal(begin_and_commit(&s), 0);
	faults.on = 0;
}

/* Each call fails in its turn: -1 with its errno, nothing left behind, no descriptor lost. */
static void
test_every_failure(void **state)
{
	static const char *const to[] = { "bob@b.example", "carl@c.example" };
	unsigned total = 0, fds;
	struct spool s;
	int fifo;

	(void)state;
	make_queue();
	set_envelope("alice@a.example", to, COUNT(to));
	fifo = open("lock/trigger", O_RDWR);
	fds = open_fds();
	for (int kind = 0; kind < 2 * F_KINDS; kind++) {
		for (unsigned n = 1;; n++) {
			static char was[8192];
			int rc, error;

			strcpy(was, files_there());
			open_spool(&s);
			s.journal = kind / F_KINDS;
			faults_start((enum fault_kind)(kind % F_KINDS), n, n, EIO);
			rc = begin_and_commit(&s);
			error = errno;
			faults.on = 0;
			assert_int_equal(open_fds(), fds);
			assert_int_equal(s.fd, -1);
			if (faults.seen[kind % F_KINDS] < n) {
				assert_int_equal(rc, 0);
				break;
			}
			total++;
			/* The message's last descriptor is closed when all is flushed: nothing may be taken back for that. */
			if (faults.harmless || (kind % F_KINDS == F_CLOSE && rc == 0)) {
				assert_int_equal(rc, 0);
				assert_string_not_equal(files_there(), was);
			} else {
				assert_int_equal(rc, -1);
				assert_int_equal(error, EIO);
				assert_string_equal(files_there(), was);
			}
		}
	}
	assert_in_range(total, 36, 80);
	close(fifo);
}

/* Somebody else's envelope under our number stays as it is, whatever fails. */
static void
test_foreign_names(void **state)
{
	static const char *const to[] = { "bob@b.example" };
	static const char *const where[] = { "todo", "intd" };
	struct spool s;
	char name[64], list[128];

	(void)state;
	make_queue();
	set_envelope("alice@a.example", to, 1);
	for (size_t i = 0; i < COUNT(where); i++) {
		for (int kind = 0; kind < F_KINDS; kind++) {
			for (unsigned n = 0; n <= 12; n++) {
				open_spool(&s);
				faults_start(0, 0, 0, 0);
				assert_int_equal(begin(&s), 0);
				faults.on = 0;
				snprintf(name, sizeof name, "%s/%llu", where[i], (unsigned long long)s.id);
				put(name, "foreign");
				faults_start((enum fault_kind)kind, n, n, EIO);
				assert_int_equal(spool_commit(&s, &e), -1);
				faults.on = 0;
				assert_true(errno == EEXIST || errno == EIO);
				assert_true(n > 0 || errno == EEXIST);
				snprintf(list, sizeof list, "%s\n", name);
				assert_string_equal(files_there(), list);
				assert_string_equal(content(name, NULL), "foreign");
				unlink(name);
			}
		}
	}
}

/* A number, or a name in pid/, that is taken: another one is tried, nine times. */
static void
test_taken(void **state)
{
	static const char *const to[] = { "bob@b.example" };
	static const enum fault_kind kinds[] = { F_LINK, F_OPEN };
	struct spool s;

	(void)state;
	set_envelope("alice@a.example", to, 1);
	for (size_t i = 0; i < COUNT(kinds); i++) {
		for (unsigned n = 1; n <= 9; n++) {
			make_queue();
			open_spool(&s);
			faults_start(kinds[i], 1, n, EEXIST);
			if (n == 9) {
				assert_int_equal(begin(&s), -1);
				assert_int_equal(errno, EEXIST);
				assert_int_equal(s.fd, -1);
				assert_string_equal(files_there(), "");
			} else {
				assert_int_equal(begin(&s), 0);
				assert_int_equal(faults.seen[kinds[i]], n + 1);
				spool_abort(&s);
				assert_string_equal(files_there(), "");
			}
			faults.on = 0;
		}
	}
}

static void
test_abort(void **state)
{
	static const char *const to[] = { "bob@b.example" };
	struct spool s;

	(void)state;
	make_queue();
	set_envelope("alice@a.example", to, 1);
	open_spool(&s);
	spool_abort(&s); /* nothing begun */
	assert_int_equal(begin(&s), 0);
	errno = ENOSPC;
	spool_abort(&s);
	assert_int_equal(errno, ENOSPC);
	assert_int_equal(s.fd, -1);
	assert_string_equal(files_there(), "");
	spool_abort(&s);
	/* After a commit there is nothing to abort. */
	assert_int_equal(begin_and_commit(&s), 0);
	spool_abort(&s);
	assert_int_not_equal(strcmp(files_there(), ""), 0);
	/* Several in one session, all there. */
	make_queue();
	for (int i = 0; i < 20; i++) {
		assert_int_equal(begin_and_commit(&s), 0);
	}
	sh("test $(ls todo | wc -l) = 20 && test $(ls pid | wc -l) = 0 && test $(find mess -type f | wc -l) = 20");
	faults.on = 0;
}

static void
test_layout(void **state)
{
	static const struct {
		const char *change, *finding; /* NULL: fine */
	} t[] = {
		{ "true", NULL },
		{ "rm -r mess", "no queue here (No such file or directory)" },
		{ "rm -r mess/*", "no queue here (mess/ has no numbered subdirectories)" },
		{ "rm -r mess/1", "no queue here (Invalid argument)" }, /* a hole */
		{ "rm -r info/2", "mess/ is split 3 ways, but info/ is not" },
		{ "mkdir local/3", "mess/ is split 3 ways, but local/ is not" },
		{ "rm -r remote", "mess/ is split 3 ways, but remote/ is not" },
		{ "mkdir todo/0", "todo/ is split: a queue with the big-todo patch" },
		{ "touch todo/17 intd/17 mess/README; mkdir mess/x", NULL },
		{ "mkdir mess/3 info/3 local/3", "mess/ is split 4 ways, but remote/ is not" },
		{ "rm -r mess/2; ln -s 1 mess/2", "mess/ is split 2 ways, but info/ is not" },
	};
	struct spool s;

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		make_queue();
		sh(t[i].change);
		assert_int_equal(spool_open(&s, SPOOL_QUEUE, dir, &fresh(&found)->d), t[i].finding == NULL ? 0 : -1);
		if (t[i].finding == NULL) {
			assert_string_equal(found.text, "");
			assert_int_equal(s.fd, -1);
		} else {
			assert_has(found.text, t[i].finding);
			assert_int_equal(found.d.errors, 1);
		}
	}
}

static void
test_room(void **state)
{
	static const struct {
		int error;
		unsigned long flags, frsize;
		fsblkcnt_t avail;
		fsfilcnt_t files, favail;
		uint64_t size;
		int verdict;
	} t[] = {
		{ 0, 0, 4096, 1000000, 1000, 1000, 0, 0 }, { EACCES, 0, 4096, 1000000, 1000, 1000, 0, V_SPOOL_ERROR },
		{ 0, ST_RDONLY, 4096, 1000000, 1000, 1000, 0, V_SPOOL_ERROR },
		{ 0, 0, 1, SPOOL_RESERVE, 1000, 1000, 0, 0 }, { 0, 0, 1, SPOOL_RESERVE - 1, 1000, 1000, 0, V_NO_SPACE },
		{ 0, 0, 1, SPOOL_RESERVE + 10, 1000, 1000, 10, 0 },
		{ 0, 0, 1, SPOOL_RESERVE + 10, 1000, 1000, 11, V_NO_SPACE },
		{ 0, 0, 4096, 1000000, 1000, 1000, UINT64_MAX, V_NO_SPACE },
		{ 0, 0, 4096, 1000000, 1000, SPOOL_RESERVE_INODES, 0, 0 },
		{ 0, 0, 4096, 1000000, 1000, SPOOL_RESERVE_INODES - 1, 0, V_NO_SPACE },
		{ 0, 0, 4096, 1000000, 0, 0, 0, 0 }, /* btrfs: no fixed number of inodes */
	};
	struct spool s = { .fd = -1 };

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		free_space = (struct statvfs){ .f_flag = t[i].flags,
			.f_frsize = t[i].frsize,
			.f_bsize = 4096,
			.f_bavail = t[i].avail,
			.f_files = t[i].files,
			.f_favail = t[i].favail };
		statvfs_error = t[i].error;
		assert_int_equal(spool_room(&s, t[i].size), t[i].verdict);
	}
}

/* Who was given the file to write, and has kept it, could change a message that the client was told is safe. */
static void
test_lend(void **state)
{
	static const char *const to[] = { "bob@b.example" };
	static const int unable[] = { EAGAIN, EINVAL, EACCES, ENOLCK }; /* NFS 4, NFS 3, another's file, no locks */
	unsigned fds = open_fds();
	struct spool s;
	int lent, copy;

	(void)state;
	for (unsigned maildir = 0; maildir < 2; maildir++) {
		make_queue();
		sh("mkdir tmp new cur");
		set_envelope("a@a.example", to, 1);
		open_spool(&s);
		s.kind = maildir ? SPOOL_MAILDIR : SPOOL_QUEUE;
		s.prefix = "";
		faults_start(0, 0, 0, 0);
		assert_int_equal(begin(&s), 0);
		faults.on = 0;
		lent = spool_lend(&s);
		assert_int_not_equal(lent, -1);
		assert_int_equal(__real_fcntl(s.fd, F_GETFL, 0) & O_ACCMODE, O_RDONLY);
		assert_int_equal(__real_fcntl(lent, F_GETFL, 0) & O_APPEND, O_APPEND);
		assert_int_equal(spool_returned(&s), 0);
		assert_int_equal(write_all(lent, "more\n", 5), 0);
		copy = dup(lent);
		close(lent);
		assert_int_equal(spool_returned(&s), 0);
		close(copy);
		assert_int_equal(spool_returned(&s), 1);
		/* Opened by name, too. */
		lent = open(maildir ? maildir_name(&s, (char[300]){ 0 }, 300) : queue_name(&s, (char[300]){ 0 }, 300),
		    O_RDWR | O_APPEND);
		assert_int_not_equal(lent, -1);
		assert_int_equal(spool_returned(&s), 0);
		/* Where leases do not work nothing can be told. */
		for (size_t i = 0; i < COUNT(unable); i++) {
			lease_error = unable[i];
			assert_int_equal(spool_returned(&s), 1);
		}
		lease_error = 0;
		close(lent);
		assert_int_equal(spool_returned(&s), 1);
		assert_int_equal(spool_commit(&s, &e), 0);
		sh("test -z \"$(ls pid tmp 2>&1 | grep lease)\"");
		/* The file is gone: nothing is lent, and nothing lost. */
		assert_int_equal(begin(&s), 0);
		faults.on = 0;
		sh("rm -rf mess/*/* tmp/*");
		lent = s.fd;
		assert_int_equal(spool_lend(&s), -1);
		assert_int_equal(s.fd, lent);
		spool_abort(&s);
		assert_int_equal(open_fds(), fds);
	}
}

static int
setup(void **state)
{
	umask(033); /* as the warden has it */
	return make_dir(state) == -1 ? -1 : chdir(dir);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_every_failure),
		cmocka_unit_test(test_foreign_names),
		cmocka_unit_test(test_taken),
		cmocka_unit_test(test_abort),
		cmocka_unit_test(test_layout),
		cmocka_unit_test(test_room),
		cmocka_unit_test(test_lend),
	};

	return cmocka_run_group_tests(tests, setup, remove_dir);
}
