/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* The scheduler: a recipient in a pass, where it is to go, and what is written down of its fate. See pass.c and outcome.c. */
#include "queue.h"
#include "relayint.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *
pass_where(struct relay *r, const char *addr, unsigned *dest, char domain[256])
{
	const char *at = strrchr(addr, '@');
	int route;

	if (at == NULL || at[1] == '\0') {
		return "The address has no host name. (#5.1.3)\n";
	}
	if (strlen(addr) > DELIVER_ADDR_MAX || str_copy(domain, 256, at + 1) == -1) {
		return "The address is too long. (#5.1.3)\n";
	}
	route = relay_route_find(r->conf, ascii_strlower(domain));
	if (route >= 0 && r->conf->route[route].hops > 0) {
		*dest = dest_find(r->sched, (uint32_t)route, "", r->mono);
	} else {
		*dest = dest_find(r->sched, DELIVER_MX, domain, r->mono);
	}
	return NULL;
}

/* The address of a recipient, read again. 0 or -1, logged. */
int
rcpt_address(const struct pass *p, uint32_t i, char addr[RECORD_MAX + 1])
{
	const struct pass_rcpt *t = &p->rcpt[i];

	if (pread(p->remote, addr, t->len, (off_t)t->offset + 1) != (ssize_t)t->len) {
		relay_warn(p->id, "cannot read a recipient again", strerror(errno));
		addr[0] = '\0';
		return -1;
	}
	addr[t->len] = '\0';
	return 0;
}

int
rcpt_hold_time(int fd)
{
	const struct timespec t[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = SCHED_HOLD } };

	return futimens(fd, t);
}

void
rcpt_mark(struct relay *r, struct pass *p, uint32_t i)
{
	if (pwrite(p->remote, "D", 1, (off_t)p->rcpt[i].offset) != 1) {
		/* It is not lost that way, but may arrive twice. */
		relay_warn(p->id, "cannot mark a recipient as done", strerror(errno));
		p->rcpt[i].state = PASS_LATER;
		p->telling = 0;
		return;
	}
	/* The mark has changed the time. */
	if (r->sched->msg[p->m].hold && rcpt_hold_time(p->remote) == -1) {
		relay_warn(p->id, "cannot set the time of remote/", strerror(errno));
	}
	p->rcpt[i].state = PASS_OVER;
	p->dirty = 1;
}

/* Paragraphs as in bounce/N, which the cleaner shall read once: 0 is no message's number. -1, logged: it cannot be made. */
static int
late_file(uint64_t id)
{
	char name[64];
	int fd =
	    open(relay_flat("bounce", 0, name), O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd == -1) {
		relay_warn(id, "cannot write bounce/0", strerror(errno));
	} else {
		(void)unlink(name);
	}
	return fd;
}

void
rcpt_tell(struct relay *r, struct pass *p, const char *addr, int local, const char *text)
{
	if (DELAY_NOTICE && p->telling && p->late == -1) {
		p->late = late_file(p->id);
	}
	/* Rather none than one that passes somebody over. */
	p->telling = DELAY_NOTICE && p->telling && p->late != -1 &&
	    bounce_append(r, p->id, &p->late, NULL, addr, local, text) == 0;
}

void
rcpt_later(struct relay *r, struct pass *p, uint32_t i, const char *text)
{
	char addr[RECORD_MAX + 1];

	p->rcpt[i].state = PASS_LATER;
	if (!DELAY_NOTICE || !p->telling) {
		return;
	}
	if (rcpt_address(p, i, addr) == -1) {
		p->telling = 0;
	}
	rcpt_tell(r, p, addr, 0, text);
}

/* A recipient has failed for good. */
void
rcpt_failed(struct relay *r, struct pass *p, uint32_t i, const char *text)
{
	char addr[RECORD_MAX + 1];

	if (rcpt_address(p, i, addr) == -1 ||
	    bounce_append(r, p->id, &p->bounce, &p->bounce_new, addr, 0, text) == -1) {
		p->rcpt[i].state = PASS_LATER;
		p->telling = 0;
		return;
	}
	if (p->rcpt[i].state != PASS_RUNNING) {
		qlog_untried(r, p->id, 0, addr, 'D', text);
	}
	p->rcpt[i].state = PASS_FAILED;
	p->failed++;
}

/* As above, for one that nobody will try again. */
void
rcpt_expired(struct relay *r, struct pass *p, uint32_t i, const char *text)
{
	char mem[DELIVER_TEXT_MAX + sizeof RELAY_TOO_LONG + 8];
	struct buf b;

	buf_init(&b, mem, sizeof mem);
	buf_str(&b, text);
	if (b.len > 0 && mem[b.len - 1] != '\n') {
		buf_ch(&b, '\n');
	}
	buf_str(&b, RELAY_TOO_LONG);
	rcpt_failed(r, p, i, buf_cstr(&b));
}

void
rcpt_sync(struct relay *r, struct pass *p)
{
	int lost = p->failed > 0 && bounce_sync(r, &p->bounce, &p->bounce_new) == -1;

	if (lost) {
		relay_warn(p->id, "cannot flush bounce/", strerror(errno));
	}
	for (uint32_t i = 0; p->failed > 0 && i < p->n; i++) {
		if (p->rcpt[i].state == PASS_FAILED) {
			p->failed--;
			if (lost) {
				p->rcpt[i].state = PASS_LATER;
				p->telling = 0;
			} else {
				rcpt_mark(r, p, i);
			}
		}
	}
	if (p->dirty && fdatasync(p->remote) == -1) {
		relay_warn(p->id, "cannot flush remote/", strerror(errno));
	}
	p->dirty = 0;
}

/*
 * The marks of some passes by one commit of the journal: first the data of all, then a change of the last one's inode, which comes behind everything that
 * the others need.
 */
void
rcpt_sync_all(struct relay *r)
{
	struct pass *last = NULL, *p, *end = r->pass + r->passes;
	int more = 0, rc = 0;

	for (p = r->pass; p < end; p++) {
		if (p->m != SCHED_NONE && (p->failed > 0 || (p->dirty && !r->journal))) {
			rcpt_sync(r, p);
		} else if (p->m != SCHED_NONE && p->dirty) {
			(void)spool_push(p->remote, 0);
			more = last != NULL;
			last = p;
		}
	}
	for (p = r->pass; more && p < end; p++) {
		if (p->m != SCHED_NONE && p->dirty && p != last) {
			int pushed = spool_push(p->remote, 1);

			rc |= pushed == -1 || (pushed == 0 && fdatasync(p->remote) == -1);
			p->dirty = 0;
		}
	}
	if (last != NULL) {
		rc |= more && fchmod(last->remote, 0600) == -1;
		rc |= (more ? fsync(last->remote) : fdatasync(last->remote)) == -1;
		last->dirty = 0;
	}
	if (rc != 0) {
		relay_warn(last->id, "cannot flush remote/ of this message or others", strerror(errno));
	}
}
