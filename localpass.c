/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The scheduler: recipients in local/N that are ours to deliver (control/localmaildirs), or to refuse (control/localdelivery). A pass over a message
 * begins with them: for each the cleaner writes a file (local.c), which is waited for, so that after LOCAL_MS the rest has to wait until others have had
 * their turn. The record is marked when the file is durable; what qmail-send would find at any moment is its own format. The other recipients are
 * left for it.
 */
#include "relayint.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define LOCAL_MS 1000

/* One local/N. */
struct box {
	int fd, dirty;
	unsigned left; /* records that stay: for later, or for somebody else */
};

static void
log_local(struct relay *r, const struct pass *p, const char *addr, const char *result, const char *text)
{
	char mem[256];
	struct log_line l;

	relay_event(&l, result[0] == 'f' ? LOG_WARNING : LOG_INFO, "deliver", p->id);
	log_str(&l, "to", addr);
	log_str(&l, "result", result);
	log_str(&l, "name", "local");
	log_text(&l, "text", str_fmt(mem, sizeof mem, "%.*s", (int)strcspn(text, "\n"), text));
	log_end(&l);
	qlog_untried(r, p->id, 1, addr, result[0] == 'o' ? 'K' : result[0] == 'f' ? 'D' : 'Z', text);
	*(result[0] == 'o' ? &r->ok : result[0] == 'f' ? &r->failed : &r->deferred) += 1;
}

static int
mark(struct box *b, uint64_t offset)
{
	b->dirty = 1;
	return pwrite(b->fd, "D", 1, (off_t)offset) == 1 ? 0 : -1;
}

/* The reason first, then the mark. 0 or -1. */
static int
fail(struct relay *r, struct pass *p, struct box *b, const char *addr, uint64_t offset, const char *text)
{
	log_local(r, p, addr, "fail", text);
	return bounce_append(r, p->id, &p->bounce, &p->bounce_new, addr, 1, text) == -1 ||
		bounce_sync(r, &p->bounce, &p->bounce_new) == -1
	    ? -1
	    : mark(b, offset);
}

static const char *
reason(uint32_t why, char mem[160])
{
	if (why == ENOSPC || why == EDQUOT) {
		return "There is no room for the mailbox on its disk. (#4.3.1)";
	}
	return str_fmt(mem, 160, "The mailbox cannot be written to: %s. (#4.3.0)",
	    why == ENOENT || why == ENOTDIR ? "its Maildir is missing, or has come later than the server's start"
					    : strerror((int)why));
}

/* Deliver to one mailbox. 0 or -1. */
static int
one(struct relay *r, struct pass *p, struct box *b, unsigned dir, const char *addr, uint64_t offset)
{
	static struct clean_ask ask;
	struct clean_answer a = { 0 };
	char mem[160], expired[DELIVER_TEXT_MAX];
	const char *text;

	memset(&ask, 0, sizeof ask);
	ask.type = CLEAN_LOCAL;
	ask.id = p->id;
	ask.maildir = dir;
	if (str_copy(ask.rcpt, sizeof ask.rcpt, addr) == -1 ||
	    pass_expand(p, addr, ask.returned, sizeof ask.returned) == -1) {
		return fail(r, p, b, addr, offset, "The address is too long. (#5.1.3)");
	}
	if (relay_clean(r, &ask, -1, &a) == 0) {
		log_local(r, p, addr, "ok", "delivered");
		return mark(b, offset);
	}
	if (a.why == CLEAN_LOOP) {
		return fail(r, p, b, addr, offset,
		    "This message goes round in circles: it has the Delivered-To line of this mailbox already. (#5.4.6)");
	}
	if (r->alone) {
		errno = EPIPE;
		return -1;
	}
	text = reason(a.why, mem);
	if (p->dying) {
		return fail(r, p, b, addr, offset, str_fmt(expired, sizeof expired, "%s\n" RELAY_TOO_LONG, text));
	}
	b->left++;
	p->local_later++;
	log_local(r, p, addr, "defer", text);
	relayctl_why(&r->sched->msg[p->m], text);
	rcpt_tell(r, p, addr, 1, text);
	return 0;
}

/* All records of local/N. 0; 1 when there is no time for more of them now; -1 with errno. */
static int
each(struct relay *r, struct pass *p, struct box *b)
{
	static struct records in;
	int64_t until = mono_ms() + LOCAL_MS;
	uint64_t offset;
	size_t len;
	char *q;
	enum record got = RECORD_END;
	int rc = 0, dir;

	records_open(&in, b->fd);
	while (rc == 0 && (got = records_next(&in, &q, &len, &offset)) == RECORD_OK) {
		if (q[0] != 'T') {
			b->left += q[0] != 'D'; /* whatever it is, it is not over */
			continue;
		}
		dir = LOCAL_MAILDIRS_MAX == 0 ? -1 : relay_maildir_find(r->conf, q + 1);
		if (dir == -1 && r->conf->local == LOCAL_LEAVE) {
			b->left++;
		} else if (mono_ms() > until) {
			return 1;
		} else {
			rc = dir == -1 ? fail(r, p, b, q + 1, offset, "There is no such mailbox on this host. (#5.1.1)")
				       : one(r, p, b, (unsigned)dir, q + 1, offset);
		}
	}
	/* Those that could not be read are not over. */
	return got == RECORD_ERROR ? -1 : rc;
}

int
local_carry(struct relay *r, struct pass *p)
{
	char name[64];
	struct box b = { .fd = -1 };
	int rc, saved;

	b.fd = open(relay_name(r, "local", p->id, name), O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (b.fd == -1) {
		return errno == ENOENT ? 0 : -1;
	}
	rc = pass_sender(r, p) == -1 ? -1 : each(r, p, &b);
	saved = errno;
	if (b.dirty && fdatasync(b.fd) == -1) {
		rc = -1;
		saved = errno;
	}
	close(b.fd);
	errno = saved;
	return rc == 0 && b.left == 0 ? unlink(name) : rc;
}
