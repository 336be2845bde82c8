/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The scheduler: why recipients failed, and the end of a message. bounce/N has a paragraph for each recipient that failed (qmail-spec 2.6):
 *
 *   <address>:
 *   why, on lines none of which is empty
 *   an empty line
 *
 * When nothing is left in remote/N the bounce is made (clean.c); then go bounce/N, info/N, intd/N and mess/N, in that order, so that a crash
 * leaves what the next start, ours or qmail-send's, brings to its end. One between the bounce and bounce/N sends it twice. A message whose local/N is
 * left to qmail gets its bounce now and keeps the rest.
 *
 * A message that is late (delaynotice) is tried once more, and if that comes to nothing for some recipient its sender is told, once. How far that
 * is stands in the mode of info/N, which no program of qmail's looks at: it needs no file, survives everything that the message survives, and
 * changes in one step, without touching the time, which is the birth. 0600: no; 0500: the cleaner is about to write the notice; 0700: it has. Both
 * are flushed before the next step. Nothing is taken out of todo/ in between, so at 0500 the next start looks there (ended_was_told()): what is not
 * there was never sent. Only where qmail-send has had the queue after such a crash there may be a second notice.
 */
#include "msg.h"
#include "queue.h"
#include "relayint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int
relay_clean(struct relay *r, struct clean_ask *ask, int fd, struct clean_answer *a)
{
	if (r->alone) {
		return -1;
	}
	if (msg_send(r->clean, ask, sizeof *ask, fd) == -1 || msg_recv(r->clean, a, sizeof *a, NULL, -1) != sizeof *a) {
		r->alone = r->lost = 1;
		return -1;
	}
	return a->ok == 1 ? 0 : -1;
}

int
info_sender(const struct relay *r, uint64_t id, char sender[SENDER_MAX + 1])
{
	static struct records in;
	char name[64], *p;
	uint64_t offset;
	size_t len;
	int fd = open(relay_name(r, "info", id, name), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	enum record got;

	if (fd == -1) {
		return -1;
	}
	records_open(&in, fd);
	errno = EINVAL;
	got = records_next(&in, &p, &len, &offset);
	close(fd);
	return got == RECORD_OK && p[0] == 'F' ? str_copy(sender, SENDER_MAX + 1, p + 1) : -1;
}

/* ---- bounce/N ---- */

int
bounce_append(struct relay *r, uint64_t id, int *fd, int *made, const char *addr, int local, const char *text)
{
	static char mem[RECORD_MAX + DELIVER_TEXT_MAX + 256];
	char name[64];
	struct stat st;
	struct buf b;

	buf_init(&b, mem, sizeof mem);
	buf_ch(&b, '<');
	for (const char *p = addr + (local ? relay_prepended(r->conf, addr) : 0); *p != '\0'; p++) {
		buf_ch(&b, (char)(*p == '\n' ? '_' : *p));
	}
	buf_str(&b, ">:\n");
	for (const char *p = text; *p != '\0'; p++) {
		buf_ch(&b, (char)(*p == '\n' && b.p[b.len - 1] == '\n' ? '/' : *p));
	}
	buf_str(&b, b.len > 0 && b.p[b.len - 1] == '\n' ? "\n" : "\n\n");
	if (*fd == -1) {
		*fd =
		    open(relay_flat("bounce", id, name), O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
		*made = 1;
	}
	if (b.full || *fd == -1 || fstat(*fd, &st) == -1) {
		relay_warn(id, "cannot write bounce/", strerror(errno));
		return -1;
	}
	if (write_all(*fd, b.p, b.len) == -1) {
		relay_warn(id, "cannot write bounce/", strerror(errno));
		/* Half a paragraph would be taken for the beginning of the next one. */
		(void)ftruncate(*fd, st.st_size);
		return -1;
	}
	return 0;
}

int
bounce_sync(struct relay *r, int *fd, int *made)
{
	int rc = *fd == -1 ? 0 : fsync(*fd);

	if (rc == 0 && *made && !r->journal) {
		rc = spool_sync_dir("bounce");
	}
	if (*fd != -1 && close(*fd) == -1) {
		rc = -1;
	}
	*fd = -1;
	*made = 0;
	return rc;
}

/* To whom, from whom. 0, or -1: nobody is told. */
static int
address_bounce(const struct relay_conf *c, struct clean_ask *ask, const char *sender)
{
	size_t len = strlen(sender);
	struct buf b;

	buf_init(&b, ask->rcpt, sizeof ask->rcpt);
	if (strcmp(sender, "#@[]") == 0) {
		return -1;
	}
	if (len == 0 && c->doublebounceto[0] == '\0') {
		return -1;
	}
	if (len == 0) {
		ask->twice = 1;
		memcpy(ask->sender, "#@[]", 5);
		buf_str(&b, c->doublebounceto);
		buf_ch(&b, '@');
		buf_str(&b, c->doublebouncehost);
		(void)buf_cstr(&b);
		return 0;
	}
	if (len >= 4 && strcmp(sender + len - 4, "-@[]") == 0) {
		len -= 4;
	}
	if (len == 0) {
		return -1; /* `-@[]` and nothing else: that is nobody */
	}
	buf_add(&b, sender, len);
	memcpy(ask->returned, buf_cstr(&b), len + 1);
	return 0;
}

static void
log_notice(const char *ev, const struct clean_ask *ask, const struct clean_answer *a)
{
	struct log_line l;

	relay_event(&l, LOG_INFO, ev, ask->id);
	log_str(&l, "to", ask->rcpt);
	log_fmt(&l, "new", "%llu", (unsigned long long)a->id);
	log_num(&l, "qp", a->qp);
	if (ask->twice) {
		log_num(&l, "double", 1);
	}
	log_end(&l);
}

void
ended_late(struct relay *r, struct pass *p)
{
	static struct clean_ask ask;
	struct sched_msg *m = &r->sched->msg[p->m];
	struct clean_answer a = { 0 };
	char name[64];
	int info, rc;

	memset(&ask, 0, sizeof ask);
	ask.type = CLEAN_NOTICE;
	ask.id = p->id;
	ask.birth = m->birth;
	ask.until = m->birth + r->conf->lifetime;
	if (r->alone) {
		return; /* there is nobody to write it */
	}
	if (address_bounce(r->conf, &ask, p->sender) == -1) {
		m->told = SCHED_TOLD;
		return;
	}
	info = open(relay_name(r, "info", p->id, name), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	rc = info == -1 || fchmod(info, RELAY_TELLING) == -1 || fsync(info) == -1;
	if (rc == 0 && relay_clean(r, &ask, p->late, &a) == 0) {
		m->told = SCHED_TOLD;
		/* Before it can be taken in, and so be missed in todo/. */
		rc = fchmod(info, RELAY_TOLD) == -1 || fsync(info) == -1;
		log_notice("late", &ask, &a);
	} else if (rc == 0 && !r->alone) {
		rc = fchmod(info, 0600) == -1;
		relay_warn(p->id, "a sender cannot be told of a delay yet", NULL);
	}
	if (rc != 0) {
		relay_warn(p->id, "cannot write down whether a sender was told of a delay", strerror(errno));
	}
	close(info);
}

/* Is there a new message from nobody to `rcpt`, for all that can be known? */
static int
is_in_todo(const char *rcpt)
{
	static struct records in;
	char name[300], *p;
	const struct dirent *de;
	uint64_t offset;
	size_t len;
	DIR *d = opendir("todo");
	int found = 0;

	if (d == NULL) {
		return 1;
	}
	while (errno = 0, (de = readdir(d)) != NULL) {
		int fd = open(
		    str_fmt(name, sizeof name, "todo/%s", de->d_name), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		int nobody = 0;

		records_open(&in, fd);
		while (records_next(&in, &p, &len, &offset) == RECORD_OK) {
			nobody |= p[0] == 'F' && len == 1;
			found |= nobody && p[0] == 'T' && strcmp(p + 1, rcpt) == 0;
		}
		found |= fd == -1;
		close(fd);
	}
	found |= errno != 0;
	closedir(d);
	return found;
}

int
ended_was_told(struct relay *r, uint64_t id)
{
	static struct clean_ask ask;
	static char sender[SENDER_MAX + 1];
	char name[64];
	int told, info = open(relay_name(r, "info", id, name), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	memset(&ask, 0, sizeof ask);
	told = info == -1 || info_sender(r, id, sender) == -1 || address_bounce(r->conf, &ask, sender) == -1 ||
	    is_in_todo(ask.rcpt);
	(void)fchmod(info, told ? RELAY_TOLD : 0600);
	(void)fsync(info);
	close(info);
	return told;
}

/* Send bounce/N, if there is one, and remove it. 0, or -1: it is still there. */
static int
send_bounce(struct relay *r, uint64_t id, int64_t birth)
{
	static struct clean_ask ask;
	static char sender[SENDER_MAX + 1];
	struct clean_answer a = { 0 };
	char name[64];
	struct log_line l;
	int fd = open(relay_flat("bounce", id, name), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	int rc = 0;

	if (fd == -1) {
		return errno == ENOENT ? 0 : -1;
	}
	memset(&ask, 0, sizeof ask);
	ask.type = CLEAN_BOUNCE;
	ask.id = id;
	ask.birth = birth >= SCHED_PLAUSIBLE ? birth : 0;
	if (info_sender(r, id, sender) == -1) {
		relay_warn(id, "cannot read the sender, to tell of a failure", strerror(errno));
		rc = -1;
	} else if (address_bounce(r->conf, &ask, sender) == -1) {
		relay_event(&l, LOG_WARNING, "bounce", id);
		log_text(&l, "msg", "a bounce that nobody is to have is thrown away");
		log_end(&l);
		qlog_say(sender[0] == '\0' ? "double bounce: discarding bounce/%llu"
					   : "triple bounce: discarding bounce/%llu",
		    (unsigned long long)id);
	} else if (relay_clean(r, &ask, fd, &a) == -1) {
		relay_warn(id, "the bounce cannot be written", NULL);
		rc = -1;
	} else {
		r->bounces++;
		log_notice("bounce", &ask, &a);
		qlog_say("bounce msg %llu qp %u", (unsigned long long)id, a.qp);
	}
	close(fd);
	return rc == 0 ? unlink(name) : -1;
}

void
ended(struct relay *r, uint32_t m)
{
	struct clean_ask ask = { .type = CLEAN_MESS };
	struct clean_answer a;
	uint64_t id = r->sched->msg[m].id;
	char name[64];
	struct log_line l;

	r->sched->msg[m].hold = 0; /* there is nothing left to hold back */
	/* Without a cleaner info/N stays, for the next start: what is in mess/ only, nobody would remove for 36 hours. */
	if (r->alone || send_bounce(r, id, r->sched->msg[m].birth) == -1) {
		sched_at(r->sched, m, r->now + RELAY_TROUBLE);
		return;
	}
	if (access(relay_name(r, "local", id, name), F_OK) == 0) {
		sched_remove(r->sched, m); /* the rest is qmail's */
		return;
	}
	ask.id = id;
	/* Only what is known to be over may go. */
	if (errno != ENOENT || (unlink(relay_name(r, "info", id, name)) == -1 && errno != ENOENT) ||
	    relay_clean(r, &ask, -1, &a) == -1) {
		relay_warn(id, "what is left of a message cannot be removed", NULL);
		sched_at(r->sched, m, r->now + RELAY_TROUBLE);
		return;
	}
	relay_event(&l, LOG_INFO, "done", id);
	log_num(&l, "secs", r->now - r->sched->msg[m].birth);
	log_end(&l);
	qlog_say("end msg %llu", (unsigned long long)id);
	sched_remove(r->sched, m);
}
