/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The scheduler: messages that come in. An envelope todo/N becomes (qmail-spec 2.5, 2.6)
 *
 *   info/N     `F<sender>\0`; its time is the birth of the message
 *   remote/N   `T<recipient>\0` for each that is to be carried on: `D` instead of `T` when that is over
 *   local/N    the same for those that qmail would deliver here
 *
 * and goes itself, with intd/N. While todo/N exists the other three mean nothing and are made anew. Nothing is delivered before it goes, and they are
 * flushed before. Where a file system keeps names and blocks in order (see queue.c) they only are written: that it is gone cannot be durable without them.
 *
 * Faults of an envelope: an unknown record or no sender at all, and it stays where it is; no recipient, and it ends at once; a last record that is
 * not whole is left out. None of that is silent, as it is in qmail-send.
 */
#include "queue.h"
#include "relayint.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SOME 16             /* messages of todo/ between looks at what else is to be done */
#define SWEEP_SECONDS 76431 /* as qmail-send */
#define SWEEP_AGE 129600    /* 36 hours; whoever writes a message gives up after 24 */
#define SCAN_SECONDS 1500   /* without having been woken */
#define WARN_SECONDS 3600   /* between scans that complain of the same envelopes */
#define ADDRESS_ROOM 2048   /* for a recipient that has been rewritten */

/* ---- records, names, words ---- */

void
records_open(struct records *r, int fd)
{
	r->fd = fd;
	r->pos = r->len = 0;
	r->offset = 0;
}

enum record
records_next(struct records *r, char **p, size_t *len, uint64_t *offset)
{
	char *end;
	ssize_t n;

	while ((end = memchr(r->mem + r->pos, '\0', r->len - r->pos)) == NULL) {
		memmove(r->mem, r->mem + r->pos, r->len - r->pos);
		r->len -= r->pos;
		r->pos = 0;
		if (r->len == sizeof r->mem) {
			errno = EMSGSIZE;
			return RECORD_ERROR;
		}
		n = read(r->fd, r->mem + r->len, sizeof r->mem - r->len);
		if (n == -1 && errno == EINTR) {
			continue;
		}
		if (n <= 0) {
			return n == -1 ? RECORD_ERROR : r->len > 0 ? RECORD_CUT : RECORD_END;
		}
		r->len += (size_t)n;
	}
	*p = r->mem + r->pos;
	*len = (size_t)(end - *p);
	*offset = r->offset;
	r->pos += *len + 1;
	r->offset += *len + 1;
	return RECORD_OK;
}

const char *
relay_flat(const char *dir, uint64_t id, char name[64])
{
	return str_fmt(name, 64, "%s/%llu", dir, (unsigned long long)id);
}

const char *
relay_name(const struct relay *r, const char *dir, uint64_t id, char name[64])
{
	return str_fmt(name, 64, "%s/%u/%llu", dir, (unsigned)(id % r->split), (unsigned long long)id);
}

void
relay_event(struct log_line *l, int prio, const char *ev, uint64_t id)
{
	log_begin(l, prio, ev);
	log_fmt(l, "id", "%llu", (unsigned long long)id);
}

void
relay_warn(uint64_t id, const char *what, const char *error)
{
	struct log_line l;

	relay_event(&l, LOG_WARNING, "queue", id);
	log_text(&l, "msg", what);
	if (error != NULL) {
		log_text(&l, "error", error);
	}
	log_end(&l);
}

/* ---- an envelope ---- */

enum file { INFO, LOCAL, REMOTE, FILES };
static const char *const dirs[FILES] = { "info", "local", "remote" };

/* One that is being taken in. */
struct intake {
	uint64_t id;
	int fd[FILES];
	struct buf out[FILES];
	char mem[FILES][2048];
	unsigned long uid, qp;
	unsigned rcpts[FILES];
	int cut;
	char sender[SENDER_MAX + 1];
	char first[ADDRESS_ROOM]; /* the first recipient to be carried on */
};

static int
flush(struct intake *t, unsigned f)
{
	int rc = write_all(t->fd[f], t->out[f].p, t->out[f].len);

	buf_reset(&t->out[f]);
	return rc;
}

/* Append a record to one of the files, made when the first one comes. 0 or -1 with errno. */
static int
put_record(struct relay *r, struct intake *t, enum file f, char letter, const char *text)
{
	size_t len = strlen(text) + 1;
	char name[64];

	if (t->fd[f] == -1) {
		t->fd[f] = open(relay_name(r, dirs[f], t->id, name), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (t->fd[f] == -1) {
			return -1;
		}
	}
	t->rcpts[f]++;
	if (t->out[f].len + len + 1 > t->out[f].cap && flush(t, f) == -1) {
		return -1;
	}
	buf_ch(&t->out[f], letter);
	buf_add(&t->out[f], text, len);
	return 0;
}

/* Rewrite a recipient (qmail-spec 2.5) in `b`, where it stands. Returns which file it belongs in. */
static enum file
rewrite(const struct relay_conf *c, struct buf *b)
{
	char lower[256];
	const char *prepend;
	char *at, *percent;

	if (memrchr(b->p, '@', b->len) == NULL) {
		buf_ch(b, '@');
		buf_str(b, c->envnoathost);
	}
	for (;;) {
		(void)buf_cstr(b);
		at = strrchr(b->p, '@');
		if (at == NULL || str_copy(lower, sizeof lower, at + 1) == -1) {
			return REMOTE; /* too long to be anybody's name: it fails there, with a word on it */
		}
		percent =
		    names_have(&c->percenthack, ascii_strlower(lower)) ? memrchr(b->p, '%', (size_t)(at - b->p)) : NULL;
		if (percent == NULL) {
			break;
		}
		*percent = '@';
		b->len = (size_t)(at - b->p);
	}
	if (names_have(&c->locals, lower)) {
		return LOCAL;
	}
	prepend = relay_virtual_find(c, b->p);
	if (prepend == NULL || *prepend == '\0') {
		return REMOTE;
	}
	/* prepend-address */
	if (b->len + strlen(prepend) + 2 > b->cap) {
		b->full = 1;
		return LOCAL;
	}
	memmove(b->p + strlen(prepend) + 1, b->p, b->len + 1);
	memcpy(b->p, prepend, strlen(prepend));
	b->p[strlen(prepend)] = '-';
	return LOCAL;
}

/* NULL, or what is wrong. */
static const char *
put_rcpt(struct relay *r, struct intake *t, const char *addr)
{
	char mem[ADDRESS_ROOM];
	struct buf b;
	enum file f;

	buf_init(&b, mem, sizeof mem);
	buf_str(&b, addr);
	f = rewrite(r->conf, &b);
	if (b.full) {
		return "a recipient is too long";
	}
	if (f == REMOTE && t->first[0] == '\0') {
		memcpy(t->first, mem, sizeof mem);
	}
	return put_record(r, t, f, 'T', mem) == -1 ? strerror(errno) : NULL;
}

static unsigned long
number(const char *p)
{
	uint64_t n;

	return parse_u64(p, strlen(p), UINT32_MAX, &n) == 0 ? (unsigned long)n : 0;
}

/* Read todo/N, write the others. NULL, or what is wrong. */
static const char *
convert(struct relay *r, struct intake *t, int fd)
{
	static struct records in;
	uint64_t offset;
	size_t len;
	char *p;
	const char *wrong = NULL;
	enum record got;

	records_open(&in, fd);
	while (wrong == NULL && (got = records_next(&in, &p, &len, &offset)) == RECORD_OK) {
		switch (len == 0 ? 0 : p[0]) {
		case 'u':
			t->uid = number(p + 1);
			break;
		case 'p':
			t->qp = number(p + 1);
			break;
		case 'F':
			/* Only the first one would be read again. */
			if (t->rcpts[INFO] == 0) {
				wrong = str_copy(t->sender, sizeof t->sender, p + 1) == -1 ? "the sender is too long"
				    : put_record(r, t, INFO, 'F', p + 1) == -1             ? strerror(errno)
											   : NULL;
			}
			break;
		case 'T':
			wrong = put_rcpt(r, t, p + 1);
			break;
		default:
			wrong = "its envelope has a record that nobody knows";
		}
	}
	if (wrong != NULL) {
		return wrong;
	}
	t->cut = got == RECORD_CUT;
	return got == RECORD_ERROR ? strerror(errno) : t->rcpts[INFO] == 0 ? "its envelope has no sender" : NULL;
}

/*
 * Make what was written durable, or with a journal as durable as it is that todo/N goes, which comes behind it, and close it. 0 or -1 with errno.
 */
static int
make_durable(struct relay *r, struct intake *t)
{
	const struct spool s = { .journal = r->journal };
	const struct timespec birth[2] = { { .tv_sec = r->now }, { .tv_sec = r->now } };
	char dir[64];
	int rc = 0;

	for (unsigned f = 0; f < FILES; f++) {
		if (t->fd[f] != -1 && flush(t, f) == -1) {
			rc = -1;
		}
	}
	rc = rc == 0 ? futimens(t->fd[INFO], birth) : rc;
	for (unsigned f = 0; f < FILES; f++) {
		if (t->fd[f] == -1) {
			continue;
		}
		if (rc == 0 && spool_before_link(&s, t->fd[f]) == -1) {
			rc = -1;
		}
		str_fmt(dir, sizeof dir, "%s/%u", dirs[f], (unsigned)(t->id % r->split));
		if (rc == 0 && !r->journal && spool_sync_dir(dir) == -1) {
			rc = -1;
		}
		if (close(t->fd[f]) == -1 && rc == 0) {
			rc = -1;
		}
		t->fd[f] = -1;
	}
	return rc;
}

static void
log_queued(const struct intake *t, off_t size)
{
	struct log_line l;

	qlog_new(t->id, (uint64_t)size, t->sender, (uint32_t)t->qp, (uint32_t)t->uid);
	relay_event(&l, LOG_INFO, "queued", t->id);
	log_fmt(&l, "bytes", "%llu", (unsigned long long)size);
	log_str(&l, "from", t->sender[0] == '\0' ? "<>" : t->sender);
	log_num(&l, "qp", (long long)t->qp);
	log_num(&l, "uid", (long long)t->uid);
	log_num(&l, "remote", t->rcpts[REMOTE]);
	if (t->rcpts[LOCAL] > 0) {
		log_num(&l, "local", t->rcpts[LOCAL]);
	}
	log_end(&l);
	if (t->cut) {
		relay_warn(t->id, "the envelope's last record was not whole, and is left out", NULL);
	}
	if (t->rcpts[REMOTE] + t->rcpts[LOCAL] == 0) {
		relay_warn(t->id, "the envelope has no recipient: the message is removed", NULL);
	}
}

/* Is there such a message in our memory already? Then the name of one of them is not its inode. Rarely asked. */
static int
known(const struct relay *r, uint64_t id)
{
	const struct sched *s = r->sched;

	for (uint32_t m = 0; m < s->used; m++) {
		if (s->msg[m].id == id && s->msg[m].state != SCHED_FREE) {
			return 1;
		}
	}
	return 0;
}

/* Remove what an earlier attempt has left. NULL, or what is wrong. */
static const char *
clear(struct relay *r, uint64_t id)
{
	char name[64];

	for (int f = FILES - 1; f >= 0; f--) {
		if (unlink(relay_name(r, dirs[f], id, name)) == 0) {
			continue;
		}
		if (errno != ENOENT) {
			return strerror(errno);
		}
	}
	return NULL;
}

/* todo/N becomes the others. NULL, or why it stays. */
static const char *
take_in(struct relay *r, struct intake *t, int fd)
{
	struct clean_ask ask = { .type = CLEAN_TODO, .id = t->id };
	struct clean_answer a;
	const char *wrong = clear(r, t->id);
	char domain[256];
	unsigned d;
	uint32_t m;

	wrong = wrong == NULL ? convert(r, t, fd) : wrong;
	if (wrong == NULL && make_durable(r, t) == -1) {
		wrong = strerror(errno);
	}
	if (wrong != NULL) {
		return wrong;
	}
	m = sched_add(r->sched, t->id, r->now);
	if (m == SCHED_NONE) {
		return strerror(ENOMEM);
	}
	if (relay_clean(r, &ask, -1, &a) == -1) {
		sched_remove(r->sched, m);
		return "the cleaner cannot remove it";
	}
	if (t->rcpts[LOCAL] == 0 && t->first[0] != '\0' && pass_where(r, t->first, &d, domain) == NULL &&
	    d != DEST_OTHER) {
		sched_enlist(r->sched, m, d);
	} else {
		sched_at(r->sched, m, r->now);
	}
	return NULL;
}

static void
one(struct relay *r, uint64_t id)
{
	static struct intake t;
	char name[64];
	struct stat st;
	const char *wrong;
	int fd;

	t.id = id;
	t.uid = t.qp = 0;
	t.cut = 0;
	t.first[0] = t.sender[0] = '\0';
	for (int f = 0; f < FILES; f++) {
		t.fd[f] = -1;
		t.rcpts[f] = 0;
		buf_init(&t.out[f], t.mem[f], sizeof t.mem[f]);
	}
	fd = open(relay_flat("todo", id, name), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd == -1 && errno == ENOENT) {
		return;
	}
	if (fd == -1 || stat(relay_name(r, "mess", id, name), &st) == -1) {
		wrong = strerror(errno);
	} else if (access(relay_name(r, "info", id, name), F_OK) == 0 && known(r, id)) {
		wrong = "it has the number of another message; see mailstile(8)";
	} else {
		wrong = take_in(r, &t, fd);
	}
	for (int f = 0; f < FILES; f++) {
		if (t.fd[f] != -1) {
			close(t.fd[f]);
		}
	}
	if (fd != -1) {
		close(fd);
	}
	if (wrong == NULL) {
		r->scan_found = 1;
		log_queued(&t, st.st_size);
		return;
	}
	r->scan_next = r->scan_next < r->mono + RELAY_TROUBLE ? r->scan_next : r->mono + RELAY_TROUBLE;
	if (r->scan_warn) {
		r->scan_warned = r->mono;
		relay_warn(id, "a new message cannot be taken in and stays in todo/", wrong);
	}
}

void
todo_begin(struct relay *r)
{
	/* First the pipe, then the directory: who comes between them is seen now, or wakes us again. */
	if (r->trigger != -1) {
		close(r->trigger);
	}
	r->trigger = open("lock/trigger", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	r->scan_next = r->mono + SCAN_SECONDS;
	r->scan_found = 0;
	r->scan_warn = r->scan_warned == 0 || r->mono - r->scan_warned >= WARN_SECONDS;
	if (r->scan != NULL) {
		closedir(r->scan);
	}
	r->scan = opendir("todo");
	if (r->trigger == -1 || r->scan == NULL) {
		log_msg(LOG_ERR, "queue", "cannot open lock/trigger or todo/: %s", strerror(errno));
		r->scan_next = r->mono + RELAY_TROUBLE;
	}
}

int
todo_some(struct relay *r)
{
	const struct dirent *de;
	uint64_t id;

	for (int i = 0; r->scan != NULL && i < SOME; i++) {
		de = readdir(r->scan);
		if (de == NULL) {
			closedir(r->scan);
			r->scan = NULL;
			/* Entries that went while we read may have hidden others. */
			if (r->scan_found) {
				todo_begin(r);
			}
		} else if (parse_u64(de->d_name, strlen(de->d_name), UINT64_MAX, &id) == 0 && id > 0) {
			one(r, id);
		}
		if (r->lost) {
			break;
		}
	}
	return r->scan != NULL;
}

/* ---- the start, and debris ---- */

/* One of info/: schedule it for when remote/N says. 0, or -1 without memory. */
static int
take_over(struct relay *r, uint64_t id)
{
	char name[64];
	struct stat info, remote;
	struct timespec t[2] = { { .tv_nsec = UTIME_OMIT } };
	int64_t next = r->now;
	uint32_t m;

	if (stat(relay_flat("todo", id, name), &remote) == 0 || errno != ENOENT ||
	    stat(relay_name(r, "info", id, name), &info) == -1) {
		return 0;
	}
	if (stat(relay_name(r, "remote", id, name), &remote) == 0) {
		next = remote.st_mtime;
	} else if (r->conf->local == LOCAL_LEAVE && r->conf->maildirs.n == 0 &&
	    access(relay_name(r, "local", id, name), F_OK) == 0 && access(relay_flat("bounce", id, name), F_OK) == -1) {
		return 0; /* nothing of it is ours */
	}
	t[1].tv_sec = sched_birth(info.st_mtime, r->now, r->now);
	if (t[1].tv_sec != info.st_mtime) {
		(void)utimensat(AT_FDCWD, relay_name(r, "info", id, name), t, 0);
	}
	m = sched_add(r->sched, id, t[1].tv_sec);
	if (m == SCHED_NONE) {
		return -1;
	}
	r->sched->msg[m].hold = next == SCHED_HOLD;
	if (DELAY_NOTICE && (info.st_mode & S_IXUSR) != 0 && ((info.st_mode & S_IWUSR) != 0 || ended_was_told(r, id))) {
		r->sched->msg[m].told = SCHED_TOLD;
	}
	/* Set by another clock, if it is that far ahead. */
	sched_at(r->sched, m, next > r->now + SCHED_AHEAD_MAX ? r->now : next);
	return 0;
}

/* Call `f` for every number in dir/0 to dir/split-1, in its right place. 0, or -1 with errno. */
static int
each(struct relay *r, const char *dir, int (*f)(struct relay *r, uint64_t id))
{
	char name[64];
	const struct dirent *de;
	uint64_t id;
	DIR *d;
	int rc = 0;

	for (unsigned k = 0; k < r->split && rc == 0; k++) {
		str_fmt(name, sizeof name, "%s/%u", dir, k);
		d = opendir(name);
		if (d == NULL) {
			return -1;
		}
		while (errno = 0, rc == 0 && (de = readdir(d)) != NULL) {
			if (parse_u64(de->d_name, strlen(de->d_name), UINT64_MAX, &id) == 0 && id % r->split == k) {
				rc = f(r, id);
			}
		}
		/* Half a directory is no directory. */
		rc = errno != 0 ? -1 : rc;
		closedir(d);
	}
	return rc;
}

int
todo_takeover(struct relay *r)
{
	char name[64];

	(void)unlink(relay_flat("bounce", 0, name)); /* see rcpt.c */
	if (each(r, "info", take_over) == -1) {
		log_msg(LOG_ERR, "queue", "cannot read info/: %s", strerror(errno));
		return -1;
	}
	return 0;
}

static int
sweep_one(struct relay *r, uint64_t id)
{
	struct clean_ask ask = { .type = CLEAN_MESS, .id = id };
	struct clean_answer a;
	char name[64];
	struct stat st;

	if (stat(relay_name(r, "mess", id, name), &st) == -1 || r->now - st.st_atime <= SWEEP_AGE) {
		return 0;
	}
	/* From before the clock was set, and since this boot: nobody knows how old it is. */
	if (st.st_atime < SCHED_PLAUSIBLE && r->mono < SWEEP_AGE) {
		return 0;
	}
	if (access(relay_flat("todo", id, name), F_OK) == -1 && errno == ENOENT &&
	    access(relay_name(r, "info", id, name), F_OK) == -1 && errno == ENOENT) {
		relay_warn(id, "a message that was never completed is removed", NULL);
		(void)relay_clean(r, &ask, -1, &a);
	}
	return r->lost ? -1 : 0;
}

void
todo_sweep(struct relay *r)
{
	struct clean_ask ask = { .type = CLEAN_SWEEP };
	struct clean_answer a;

	r->sweep_next = r->mono + SWEEP_SECONDS;
	if (r->now >= BUILD_EPOCH && relay_clean(r, &ask, -1, &a) == 0) {
		(void)each(r, "mess", sweep_one);
	}
}
