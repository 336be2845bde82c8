/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * `mailstile queue`: what is in the queue, and orders to the scheduler about it. It connects to the server first; then, before anything is
 * read that others can write, it gives up root for USER_SEND in the queue's directory, as the scheduler does. Contents of files are a stranger's: no
 * control character of theirs gets to the terminal. What the scheduler knows (when, why) it is asked for; without one there are the files, and
 * orders are carried out right here (offline.c).
 */
#include "ctl.h"

#include "offline.h"
#include "options.h"
#include "priv.h"
#include "str.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#if TOOLS

#define RECORD_MAX 4095

struct item {
	uint64_t id;
	int64_t birth, next;
	uint32_t why;
	uint16_t dest;
	uint8_t state;  /* enum ctl_state, or */
	uint8_t source; /* what is known of it */
};

enum { FROM_FILES, FROM_TODO, FROM_SCHEDULER };

static struct {
	int server;  /* -1 = none */
	int offline; /* we are the scheduler */
	unsigned split;
	int json;
	struct item *item;
	size_t items, cap;
	int64_t now;
} q;

/* ---- text ---- */

static struct buf out;
static char out_mem[8192];

static void
out_flush(void)
{
	if (out.len > 0 && write_all(STDOUT_FILENO, out.p, out.len) == -1) {
		_exit(111); /* nobody reads it */
	}
	buf_reset(&out);
}

static void
out_str(const char *s)
{
	size_t len = strlen(s);

	if (out.cap - out.len < len) {
		out_flush();
	}
	buf_add(&out, s, len);
}

static void __attribute__((format(printf, 1, 2))) out_fmt(const char *fmt, ...)
{
	char mem[512];
	va_list ap;

	va_start(ap, fmt);
	out_str(str_vfmt_cut(mem, sizeof mem, fmt, ap));
	va_end(ap);
}

/* A stranger's text: for JSON each octet that is not printable ASCII as \u00XX, for people as \xXX. */
static void
out_text(const char *s)
{
	for (; *s != '\0'; s++) {
		uint8_t c = (uint8_t)*s;
		char two[3] = { '\\', *s, '\0' };

		if (c < ' ' || c > '~') {
			out_fmt(q.json ? "\\u%04x" : "\\x%02x", c);
		} else {
			out_str(q.json && (c == '"' || c == '\\') ? two : two + 1);
		}
	}
}

static void
out_span(int64_t s)
{
	s = s < 0 ? 0 : s;
	if (s >= 2 * 86400) {
		out_fmt("%lld d", (long long)(s / 86400));
	} else if (s >= 2 * 3600) {
		out_fmt("%lld h", (long long)(s / 3600));
	} else if (s >= 120) {
		out_fmt("%lld m", (long long)(s / 60));
	} else {
		out_fmt("%lld s", (long long)s);
	}
}

/* ---- the files ---- */

static const char *
name_of(const char *dir, uint64_t id, char name[64])
{
	return strcmp(dir, "todo") == 0 || strcmp(dir, "bounce") == 0
	    ? str_fmt(name, 64, "%s/%llu", dir, (unsigned long long)id)
	    : str_fmt(name, 64, "%s/%llu/%llu", dir, (unsigned long long)(id % q.split), (unsigned long long)id);
}

static int
open_of(const char *dir, uint64_t id)
{
	char name[64];

	return open(name_of(dir, id, name), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
}

/* Records of a file, one after the other, in a place of their own. NULL at the end, or when one is too long. */
struct reader {
	int fd;
	size_t pos, len;
	char mem[RECORD_MAX + 1];
};

static const char *
next_record(struct reader *r)
{
	char *end, *start;
	ssize_t n;

	for (;;) {
		end = memchr(r->mem + r->pos, '\0', r->len - r->pos);
		if (end != NULL) {
			start = r->mem + r->pos;
			r->pos = (size_t)(end - r->mem) + 1;
			return start;
		}
		memmove(r->mem, r->mem + r->pos, r->len - r->pos);
		r->len -= r->pos;
		r->pos = 0;
		n = r->len == sizeof r->mem ? 0 : read(r->fd, r->mem + r->len, sizeof r->mem - r->len);
		if (n <= 0) {
			return NULL;
		}
		r->len += (size_t)n;
	}
}

/* Call `f` for each recipient of a message that is left in `dir`. Returns how many are done. */
static unsigned
each_left(uint64_t id, const char *dir, void (*f)(const char *addr, void *ctx), void *ctx)
{
	static struct reader r;
	const char *p;
	unsigned done = 0;

	r.fd = open_of(dir, id);
	r.pos = r.len = 0;
	if (r.fd == -1) {
		return 0;
	}
	while ((p = next_record(&r)) != NULL) {
		if (p[0] == 'T') {
			f(p + 1, ctx);
		}
		done += p[0] == 'D';
	}
	close(r.fd);
	return done;
}

static struct item *
find(uint64_t id)
{
	size_t from = 0, to = q.items;

	while (from < to) {
		size_t i = from + (to - from) / 2;

		if (q.item[i].id == id) {
			return &q.item[i];
		}
		if (q.item[i].id < id) {
			from = i + 1;
		} else {
			to = i;
		}
	}
	return NULL;
}

static int
by_id(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

static int
by_birth(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

	return x->birth != y->birth ? (x->birth < y->birth ? -1 : 1) : by_id(a, b);
}

static void
add(uint64_t id)
{
	char name[64];
	struct stat st;
	struct item *t;

	if (q.items == q.cap) {
		size_t cap = q.cap + q.cap / 2 + 256;

		t = realloc(q.item, cap * sizeof *t);
		if (t == NULL) {
			print(STDERR_FILENO, "mailstile: no memory for so many messages\n");
			_exit(111);
		}
		q.item = t;
		q.cap = cap;
	}
	t = &q.item[q.items];
	memset(t, 0, sizeof *t);
	t->id = id;
	if (lstat(name_of("info", id, name), &st) == 0) {
		t->source = FROM_FILES;
	} else if (lstat(name_of("todo", id, name), &st) == 0) {
		t->source = FROM_TODO;
	} else {
		return; /* it is being written, or removed */
	}
	t->birth = st.st_mtime;
	t->next = lstat(name_of("remote", id, name), &st) == 0 ? st.st_mtime : 0;
	q.items++;
}

/* All messages there are. 0 or -1. */
static int
load(void)
{
	struct stat st;

	for (;; q.split++) {
		char name[64];

		if (lstat(str_fmt(name, sizeof name, "mess/%u", q.split), &st) == -1 || !S_ISDIR(st.st_mode)) {
			break;
		}
	}
	for (unsigned i = 0; i < q.split; i++) {
		char name[64];
		DIR *d = opendir(str_fmt(name, sizeof name, "mess/%u", i));
		const struct dirent *e;
		uint64_t id;

		if (d == NULL) {
			return -1;
		}
		while ((e = readdir(d)) != NULL) {
			if (parse_u64(e->d_name, strlen(e->d_name), UINT64_MAX / 2, &id) == 0) {
				add(id);
			}
		}
		closedir(d);
	}
	if (q.items > 0) {
		qsort(q.item, q.items, sizeof *q.item, by_id);
	}
	return q.split == 0 ? -1 : 0;
}

static void
lose_server(void)
{
	close(q.server);
	q.server = -1;
}

/* Ask the scheduler. 0 or -1: there is none. */
static int
query(enum ctl_type type, uint64_t arg, void *answer, size_t size)
{
	return q.offline     ? offline_query(type, arg, answer, size)
	    : q.server == -1 ? -1
			     : ctl_query(q.server, type, arg, answer, size);
}

/* Add what the scheduler knows. Without one there is none to ask from then on. */
static void
ask_scheduler(void)
{
	static struct ctl_list l;

	if (q.server == -1 && !q.offline) {
		return;
	}
	l.next = 0;
	do {
		if (query(CTL_LIST, l.next, &l, sizeof l) == -1 || l.rc != CTL_DONE || l.n > CTL_ENTRIES) {
			lose_server();
			return;
		}
		for (uint32_t i = 0; i < l.n; i++) {
			struct item *t = find(l.entry[i].id);

			if (t != NULL) {
				t->birth = l.entry[i].birth;
				t->next = l.entry[i].next;
				t->dest = l.entry[i].dest;
				t->why = l.entry[i].why;
				t->state = l.entry[i].state;
				t->source = FROM_SCHEDULER;
			}
		}
	} while (l.next != 0);
}

/* ---- list ---- */

static const char *const states[] = { "timed", "due", "waiting", "running", "held" };

static const char *
state_name(const struct item *t)
{
	return t->source == FROM_TODO ? "new"
	    : t->source == FROM_FILES || t->state >= sizeof states / sizeof states[0]
	    ? (t->next == CTL_HOLD_TIME ? "held" : "queued")
	    : states[t->state];
}

static void
show_rcpt(const char *addr, void *ctx)
{
	unsigned *n = ctx;

	if (q.json) {
		out_str((*n)++ == 0 ? "\"" : ",\"");
		out_text(addr);
		out_str("\"");
		return;
	}
	(*n)++;
	out_str("        ");
	out_text(addr);
	out_str("\n");
}

/* When it is tried, and why it has not arrived. */
static void
show_when(const struct item *t)
{
	static struct ctl_dest d, w;
	int64_t in = t->source == FROM_SCHEDULER && t->state == CTL_TIMED ? t->next - q.now : -1;
	const char *error = "", *down = NULL;

	if (t->source == FROM_SCHEDULER && t->state == CTL_WAITING && query(CTL_DEST, t->dest, &d, sizeof d) == 0 &&
	    d.rc == CTL_DONE) {
		d.name[sizeof d.name - 1] = d.text[sizeof d.text - 1] = '\0';
		in = d.until < 0 ? 0 : d.until;
		down = d.name;
		error = d.text;
	} else if (t->source == FROM_SCHEDULER && t->why != 0 && query(CTL_WHY, t->why, &w, sizeof w) == 0 &&
	    w.rc == CTL_DONE) {
		w.text[sizeof w.text - 1] = '\0';
		error = w.text;
	}
	if (q.json) {
		out_str(down == NULL ? "" : ",\"waits_for\":\"");
		out_text(down == NULL ? "" : down);
		out_str(down == NULL ? "" : "\"");
		if (in >= 0) {
			out_fmt(",\"next_in\":%lld", (long long)in);
		}
		out_str(",\"error\":\"");
		out_text(error);
		out_str("\"");
		return;
	}
	out_fmt("    %s", down == NULL ? state_name(t) : down);
	out_str(down == NULL ? "" : " is down");
	if (in >= 0) {
		out_str(", tried in ");
		out_span(in);
	}
	out_str(error[0] == '\0' ? "" : ": ");
	out_text(error);
	out_str("\n");
}

static void
show(const struct item *t)
{
	static struct reader info;
	char name[64];
	struct stat st;
	const char *sender = NULL;
	unsigned n = 0, done;

	st.st_size = 0;
	(void)lstat(name_of("mess", t->id, name), &st);
	info.fd = open_of("info", t->id);
	info.pos = info.len = 0;
	if (info.fd != -1) {
		sender = next_record(&info);
		close(info.fd);
	}
	sender = sender != NULL && sender[0] == 'F' ? sender + 1 : NULL;
	if (q.json) {
		out_fmt("{\"id\":%llu,\"age\":%lld,\"size\":%lld,\"state\":\"%s\",\"sender\":",
		    (unsigned long long)t->id, (long long)(q.now - t->birth), (long long)st.st_size, state_name(t));
		out_str(sender == NULL ? "null" : "\"");
		out_text(sender == NULL ? "" : sender);
		out_str(sender == NULL ? ",\"to\":[" : "\",\"to\":[");
		done = each_left(t->id, "remote", show_rcpt, &n);
		out_str("],\"local\":[");
		n = 0;
		done += each_left(t->id, "local", show_rcpt, &n);
		out_fmt("],\"done\":%u", done);
		show_when(t);
		out_str("}\n");
		return;
	}
	out_fmt("%llu  ", (unsigned long long)t->id);
	out_span(q.now - t->birth);
	out_fmt(" old, %lld octets, from <", (long long)st.st_size);
	out_text(sender == NULL ? "?" : sender);
	out_str(">\n");
	show_when(t);
	done = each_left(t->id, "remote", show_rcpt, &n);
	done += each_left(t->id, "local", show_rcpt, &n);
	if (done > 0) {
		out_fmt("        (%u done)\n", done);
	}
}

static int
list(void)
{
	if (q.items > 0) {
		qsort(q.item, q.items, sizeof *q.item, by_birth);
	}
	for (size_t i = 0; i < q.items; i++) {
		show(&q.item[i]);
	}
	if (!q.json) {
		out_fmt("%llu message%s\n", (unsigned long long)q.items, q.items == 1 ? "" : "s");
	}
	out_flush();
	return 0;
}

/* ---- stat ---- */

static int
count(void)
{
	static const char *const names[] = { "new", "queued", "timed", "due", "waiting", "running", "held" };
	size_t n[sizeof names / sizeof names[0]] = { 0 };
	int64_t oldest = 0;
	struct ctl_dest d;

	for (size_t i = 0; i < q.items; i++) {
		for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
			n[k] += strcmp(state_name(&q.item[i]), names[k]) == 0;
		}
		oldest = q.now - q.item[i].birth > oldest ? q.now - q.item[i].birth : oldest;
	}
	out_fmt("%llu message%s", (unsigned long long)q.items, q.items == 1 ? "" : "s");
	for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
		if (n[k] > 0) {
			out_fmt(", %llu %s", (unsigned long long)n[k], names[k]);
		}
	}
	if (q.items > 0) {
		out_str("; the oldest is ");
		out_span(oldest);
		out_str(" old");
	}
	out_str("\n");
	for (uint64_t i = 1; query(CTL_DEST, i, &d, sizeof d) == 0 && d.rc == CTL_DONE; i++) {
		d.name[sizeof d.name - 1] = d.text[sizeof d.text - 1] = '\0';
		if (d.waiting == 0 && d.running == 0 && d.until < 0) {
			continue;
		}
		out_str("    ");
		out_text(d.name);
		out_fmt(": %u wait, %u deliveries run", d.waiting, d.running);
		if (d.until >= 0) {
			out_str("; down, tried in ");
			out_span(d.until);
			out_str(": ");
			out_text(d.text);
		}
		out_str("\n");
	}
	out_flush();
	return 0;
}

/* ---- orders ---- */

struct match {
	const char *domain;
	int found;
};

static void
match_rcpt(const char *addr, void *ctx)
{
	struct match *m = ctx;
	const char *at = strrchr(addr, '@');

	m->found |= at != NULL && ascii_strcasecmp(at + 1, m->domain) == 0;
}

/* 0, or 1: it could not be done, and stderr says why. */
static int
order(enum ctl_type what, uint64_t id)
{
	static const char *const why[] = {
		[CTL_DONE] = "",
		[CTL_NOBODY] = "no scheduler runs",
		[CTL_NONE] = "no such message, or nothing of it is ours to deliver",
		[CTL_BUSY] = "it is being delivered right now; hold it, and try again",
		[CTL_FAILED] = "the system would not; see the log",
		[CTL_IS_HELD] = "it is held; release it",
	};
	struct ctl_answer a;

	if (query(what, id, &a, sizeof a) == -1 || a.rc >= sizeof why / sizeof why[0]) {
		print(STDERR_FILENO, "mailstile: the scheduler has gone; nothing is known of %llu\n",
		    (unsigned long long)id);
		_exit(111);
	}
	if (a.rc != CTL_DONE) {
		print(STDERR_FILENO, "%llu: %s\n", (unsigned long long)id, why[a.rc]);
	}
	return a.rc != CTL_DONE;
}

/* A number, a domain, or `all`. Returns how many could not be done; *did counts the others. */
static unsigned
orders(enum ctl_type what, const char *word, unsigned *did)
{
	uint64_t id;
	unsigned bad = 0, n = 0;

	if (parse_u64(word, strlen(word), UINT64_MAX / 2, &id) == 0) {
		bad = (unsigned)order(what, id);
		*did += !bad;
		return bad;
	}
	for (size_t i = 0; i < q.items; i++) {
		struct match m = { .domain = word, .found = strcmp(word, "all") == 0 };

		if (!m.found) {
			each_left(q.item[i].id, "remote", match_rcpt, &m);
		}
		/* What all of them are told need not be true of each. */
		if (!m.found || q.item[i].source != FROM_SCHEDULER ||
		    (what == CTL_FLUSH && q.item[i].state == CTL_HELD)) {
			continue;
		}
		n++;
		bad += (unsigned)order(what, q.item[i].id);
	}
	*did += n - bad;
	return bad;
}

/* ---- */

static int
usage(void)
{
	print(STDERR_FILENO,
	    "usage: mailstile queue [list | stat] [-j] [-H home] [-S socket]\n"
	    "       mailstile queue [-y] [-H home] [-S socket] flush | hold | release | remove | bounce ID | DOMAIN | all ...\n");
	return 100;
}

/* Into the queue, as its scheduler; with `order` and without one, to take its place. 0 or an exit status. */
static int
enter(const char *home, int order)
{
	char path[512];
	struct priv_ids ids;
	const char *missing;
	int dir, rc = 0;

	if (priv_lookup(&ids, &missing) == -1) {
		print(STDERR_FILENO, "mailstile: no user or group `%s`\n", missing);
		return 111;
	}
	dir = open(str_fmt(path, sizeof path, "%s/queue", home), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir == -1 || (!ids.root && fchdir(dir) == -1)) {
		print(STDERR_FILENO, "mailstile: %s: %s\n", path, strerror(errno));
		return 111;
	}
	q.offline = order && q.server == -1;
	if (q.offline) {
		rc = offline_begin(home, &ids, dir);
	} else {
		priv_drop(&ids, PRIV_RELAY, dir);
	}
	close(dir);
	return rc;
}

static const struct {
	const char *verb;
	enum ctl_type type;
} verbs[] = { { "flush", CTL_FLUSH }, { "hold", CTL_HOLD }, { "release", CTL_RELEASE }, { "remove", CTL_REMOVE },
	{ "bounce", CTL_BOUNCE } };

/* The words behind an order: 0, or an exit status. */
static int
check_words(enum ctl_type what, char **word, int yes)
{
	if (*word == NULL && what != CTL_FLUSH) {
		return usage();
	}
	for (; *word != NULL; word++) {
		if (strcmp(*word, "all") == 0 && (what == CTL_REMOVE || what == CTL_BOUNCE) && !yes) {
			print(STDERR_FILENO, "mailstile: with `all` say -y, too\n");
			return 100;
		}
	}
	return 0;
}

static int
give(enum ctl_type what, char **word)
{
	static char all[] = "all";
	char *every[] = { all, NULL };
	unsigned bad = 0, did = 0;

	for (word = *word == NULL ? every : word; *word != NULL; word++) {
		bad += orders(what, *word, &did);
	}
	if (q.offline) {
		offline_end();
	}
	print(STDOUT_FILENO, "%u done, %u not\n", did, bad);
	return bad > 0;
}

/* Is this an order? 0 = no. */
static enum ctl_type
order_named(const char *verb)
{
	for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
		if (strcmp(verb, verbs[i].verb) == 0) {
			return verbs[i].type;
		}
	}
	return 0;
}

/* Is the queue of the server at `path` the one at home/queue? Numbers of one mean other messages in another. */
static int
is_its_queue(const char *path, const char *home)
{
	static struct ctl_status s;
	char mine[512];
	struct stat a, b;
	int fd = ctl_connect(path), rc;

	if (fd == -1) {
		return 0;
	}
	rc = ctl_query(fd, CTL_STATUS, 0, &s, sizeof s);
	close(fd);
	s.spool[sizeof s.spool - 1] = '\0';
	return rc == 0 && stat(s.spool, &a) == 0 && stat(str_fmt(mine, sizeof mine, "%s/queue", home), &b) == 0 &&
	    a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* Connect to the server. For an order only one with a scheduler will do. */
static void
find_server(const char *path, const char *home, int order)
{
	static struct ctl_counts c;

	q.server = is_its_queue(path, home) ? ctl_connect(path) : -1;
	if (order && q.server != -1 && (ctl_query(q.server, CTL_COUNTS, 0, &c, sizeof c) == -1 || c.rc != CTL_DONE)) {
		lose_server();
	}
}

int
queue_main(int argc, char **argv)
{
	const char *home = HOME_DIR, *path = NULL, *verb = "list";
	struct options o;
	int opt, yes = 0, rc;
	enum ctl_type what;

	(void)argc;
	buf_init(&out, out_mem, sizeof out_mem);
	/* Options may stand before and behind the verb. */
	options_begin(&o, argv);
	for (int part = 0; part < 2; part++) {
		while ((opt = options_next(&o, "jyH:S:")) != 0) {
			switch (opt) {
			case 'j':
				q.json = 1;
				break;
			case 'y':
				yes = 1;
				break;
			case 'H':
				home = o.value;
				break;
			case 'S':
				path = o.value;
				break;
			default:
				return usage();
			}
		}
		if (part == 0) {
			verb = *o.word == NULL ? "list" : *o.word;
			options_begin(&o, *o.word == NULL ? o.word - 1 : o.word);
		}
	}
	what = order_named(verb);
	rc = what != 0 ? check_words(what, o.word, yes)
	    : *o.word != NULL || (strcmp(verb, "list") != 0 && strcmp(verb, "stat") != 0) ? usage()
											  : 0;
	if (rc != 0) {
		return rc;
	}
	find_server(path == NULL ? ctl_where(home, 1) : path, home, what != 0);
	rc = enter(home, what != 0);
	if (rc != 0) {
		return rc;
	}
	q.now = time(NULL);
	if (load() == -1) {
		print(STDERR_FILENO, "mailstile: %s/queue cannot be read: %s\n", home, strerror(errno));
		return 111;
	}
	ask_scheduler();
	return what != 0 ? give(what, o.word) : strcmp(verb, "list") == 0 ? list() : count();
}

#endif
