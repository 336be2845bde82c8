/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The scheduler: what happens, said once more in the words of qmail-send (qmail-spec 4.5), for programs that count in its log. What comes from
 * outside is made harmless as there: a line feed becomes a slash, and `%` and whatever is not printable, the space too, an underscore.
 *
 * A delivery is one recipient, and has a number of its own, though one process may carry a hundred of them; `remote R/RM` counts the processes.
 * What fails without an attempt is a delivery, too, that begins and ends.
 */
#include "relayint.h"

#include <string.h>

#if RELAY_QMAIL_LOG

/* `head`, something from outside, `tail`. What would not fit is cut out of the middle, so that the line keeps its form. */
static void
line(const char *head, const char *text, const char *tail)
{
	struct log_line l = { .prio = LOG_INFO };
	struct buf b;
	size_t room = strlen(tail) + 1;

	buf_init(&b, l.mem, sizeof l.mem);
	buf_str(&b, head);
	for (; *text != '\0' && b.len + room < b.cap; text++) {
		buf_ch(&b, *text == '\n' ? '/' : *text < 33 || *text > 126 || *text == '%' ? '_' : *text);
	}
	buf_str(&b, tail);
	l.len = b.len;
	log_end(&l);
}

void
qlog_say(const char *fmt, ...)
{
	char mem[128];
	va_list ap;

	va_start(ap, fmt);
	line(str_vfmt_cut(mem, sizeof mem, fmt, ap), "", "");
	va_end(ap);
}

void
qlog_new(uint64_t id, uint64_t bytes, const char *sender, uint32_t qp, uint32_t uid)
{
	char head[128], tail[64];

	qlog_say("new msg %llu", (unsigned long long)id);
	line(str_fmt(head, sizeof head, "info msg %llu: bytes %llu from <", (unsigned long long)id,
		 (unsigned long long)bytes),
	    sender, str_fmt(tail, sizeof tail, "> qp %u uid %u", qp, uid));
}

void
qlog_status(const struct relay *r)
{
	char mem[128];
	unsigned n = 0;

	for (unsigned i = 0; i < r->remotes; i++) {
		n += r->remote[i].pass != NULL && r->remote[i].sock != -1;
	}
	line(str_fmt(mem, sizeof mem, "status: local 0/0 remote %u/%u", n, r->remotes), "",
	    r->stopping ? " exitasap" : "");
}

static uint32_t
start(struct relay *r, uint64_t id, const char *where, const char *addr)
{
	char head[128];

	line(str_fmt(head, sizeof head, "starting delivery %u: msg %llu to %s ", ++r->delivery, (unsigned long long)id,
		 where),
	    addr, "");
	return r->delivery;
}

void
qlog_start(struct relay *r, const struct remote *t)
{
	char addr[RECORD_MAX + 1];

	for (unsigned i = 0; i < t->rcpts; i++) {
		(void)rcpt_address(t->pass, t->outcome[i].rcpt, addr);
		t->outcome[i].number = start(r, t->pass->id, "remote", addr);
	}
	qlog_status(r);
}

void
qlog_end(uint32_t number, char klass, const char *text)
{
	char head[64];

	line(str_fmt(head, sizeof head, "delivery %u: %s: ", number,
		 klass == 'K'       ? "success"
		     : klass == 'D' ? "failure"
				    : "deferral"),
	    text, "");
}

void
qlog_untried(struct relay *r, uint64_t id, int local, const char *addr, char klass, const char *text)
{
	qlog_end(start(r, id, local ? "local" : "remote", addr), klass, text);
}

#endif
