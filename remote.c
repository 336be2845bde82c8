/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * A delivery process: jobs from the scheduler come over a socket, reports go back (deliver.h). It has the routes, the trust anchors and the
 * relays' passwords, the message as a descriptor, and the network; no other file. What peers say is read in here, so one that is taken over
 * may lie about its own job, read its message and misuse those passwords; that is all.
 *
 * A connection that is still good after a message waits DELIVER_IDLE_SECONDS for another one to the same destination. The process itself
 * stays until the scheduler lets go of it, so that no job ever meets a process that is just leaving.
 */
#include "relay.h"
#include "remoteint.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#if RELAY

/* ---- reports ---- */

static void
tell(const struct remote *s, const void *m, size_t len)
{
	if (msg_send(s->sock, m, len, -1) == -1) {
		_exit(0); /* the scheduler is gone */
	}
}

void
remote_report(struct remote *s, unsigned rcpt, int klass, int code, const char *text, const char *said)
{
	static struct deliver_report r;
	struct buf b;

	if (s->state[rcpt] == RCPT_REPORTED) {
		return;
	}
	s->state[rcpt] = RCPT_REPORTED;
	s->open--;
	memset(&r, 0, sizeof r);
	r.type = DELIVER_REPORT;
	r.rcpt = rcpt;
	r.klass = (uint32_t)klass;
	r.code = (uint32_t)code;
	buf_init(&b, r.text, DELIVER_TEXT_MAX);
	if (s->about_peer) {
		buf_str(&b, s->peer);
		buf_ch(&b, ' ');
	}
	buf_str(&b, text);
	buf_ch(&b, '\n');
	if (said != NULL) {
		buf_str(&b, s->about_peer && code != 0 ? "Remote host said: " : "");
		buf_str(&b, said);
		if (b.p[b.len - 1] != '\n') {
			buf_ch(&b, '\n');
		}
	}
	for (size_t i = 0; i < b.len; i++) {
		if (b.p[i] != '\n' && (b.p[i] < ' ' || b.p[i] > '~')) {
			b.p[i] = '?';
		}
	}
	tell(s, &r, sizeof r);
}

void
remote_report_all(struct remote *s, enum rcpt_state which, int klass, int code, const char *text, const char *said)
{
	for (unsigned i = 0; i < s->job.rcpts; i++) {
		if (s->state[i] == which || (s->state[i] == RCPT_ACCEPTED && which == RCPT_OPEN)) {
			remote_report(s, i, klass, code, text, said);
		}
	}
}

/* ---- a job ---- */

void
remote_hang_up(struct remote *s, int polite)
{
	if (!s->up) {
		return;
	}
	s->conn.watch = -1; /* the last words may still go out */
	if (polite) {
		s->conn.deadline = mono_ms() + 1000;
		SAY(s, "QUIT");
		remote_hear(s, NULL, 1);
		conn_close(&s->conn, 100);
	}
	close(s->conn.rfd);
	s->up = 0;
}

/* What cannot be said to any host. */
static void
refuse_addresses(struct remote *s)
{
	static char mem[2 * DELIVER_ADDR_MAX + 8];
	struct buf b;

	buf_init(&b, mem, sizeof mem);
	if (peer_path(&b, s->job.sender) == -1 ||
	    (peer_is_8bit(s->job.sender) && !utf8_valid(s->job.sender, s->job.sender_len))) {
		remote_report_all(s, RCPT_OPEN, 'D', 0, "The sender's address cannot be said in SMTP. (#5.1.7)", NULL);
	}
	for (unsigned i = 0; i < s->job.rcpts; i++) {
		const char *to = s->rcpt[i];

		buf_reset(&b);
		if (to[0] == '\0' || peer_path(&b, to) == -1 || (peer_is_8bit(to) && !utf8_valid(to, strlen(to)))) {
			remote_report(s, i, 'D', 0, "The recipient's address cannot be said in SMTP. (#5.1.3)", NULL);
		}
	}
}

/* There is nobody to give the message to. */
static void
report_none(struct remote *s)
{
	char mem[400];
	struct buf b;

	buf_init(&b, mem, sizeof mem);
	buf_str(&b, "Mail for ");
	buf_str(&b, s->job.domain);
	buf_str(&b, s->klass == 'D' ? " cannot be delivered. (#" : " cannot be delivered now. (#");
	buf_str(&b, s->status);
	buf_str(&b, ")");
	s->done.unreachable = s->klass == 'Z';
	s->done.peer[0] = s->done.name[0] = '\0';
	remote_report_all(s, RCPT_OPEN, s->klass, s->code, buf_cstr(&b), s->why.len == 0 ? NULL : buf_cstr(&s->why));
}

void
remote_deliver(struct remote *s)
{
	s->about_peer = 0;
	s->counted = 0;
	s->done.unreachable = 0;
	s->open = s->job.rcpts;
	memset(s->state, RCPT_OPEN, sizeof s->state);
	refuse_addresses(s);
	s->octets = s->up ? s->conn.octets_out : 0;
	while (s->open > 0) {
		s->reused = s->up;
		s->about_peer = 0;
		if (!s->up && remote_find(s) == -1) {
			report_none(s);
		} else if (remote_mail(s) == 1) {
			for (unsigned i = 0; i < s->job.rcpts; i++) {
				s->state[i] = s->state[i] == RCPT_ACCEPTED ? RCPT_OPEN : s->state[i];
			}
		}
	}
}

/* ---- jobs ---- */

static int
ends_in_nul(const char *s, size_t cap, size_t len)
{
	return len < cap && s[len] == '\0' && strlen(s) == len;
}

/* Receive a job. 0; 1: none came within `ms`. Ends the process when there will be none, or it is none. */
static int
receive(struct remote *s, int ms)
{
	static struct deliver_rcpt rcpt;
	static struct deliver_job job;
	long n = msg_recv(s->sock, &job, sizeof job, &s->file, ms);

	if (n == -1 && (errno == ETIMEDOUT || errno == EINTR)) {
		return 1;
	}
	if (n == 0) {
		remote_hang_up(s, 1);
		_exit(0);
	}
	if (n != (long)sizeof job || job.type != DELIVER_JOB || s->file == -1 || job.rcpts < 1 ||
	    job.rcpts > DELIVER_RCPTS_MAX || (job.route != DELIVER_MX && job.route >= s->conf->routes) ||
	    memchr(job.domain, '\0', sizeof job.domain) == NULL ||
	    !ends_in_nul(job.sender, sizeof job.sender, job.sender_len)) {
		_exit(111);
	}
	if (s->up && (job.route != s->job.route || strcmp(job.domain, s->job.domain) != 0)) {
		remote_hang_up(s, 1);
	}
	s->job = job;
	for (unsigned i = 0; i < job.rcpts; i++) {
		if (msg_recv(s->sock, &rcpt, sizeof rcpt, NULL, -1) != (long)sizeof rcpt || rcpt.type != DELIVER_RCPT ||
		    !ends_in_nul(rcpt.addr, sizeof rcpt.addr, rcpt.len)) {
			_exit(111);
		}
		memcpy(s->rcpt[i], rcpt.addr, rcpt.len + 1);
	}
	return 0;
}

static void
serve(struct remote *s)
{
	uint64_t octets;

	remote_deliver(s);
	close(s->file);
	octets = s->done.peer[0] == '\0' ? 0 : s->conn.octets_out - s->octets;
	s->done.type = DELIVER_DONE;
	s->done.reuse = s->up && s->messages < DELIVER_MESSAGES_MAX;
	s->done.octets_hi = (uint32_t)(octets >> 32);
	s->done.octets_lo = (uint32_t)octets;
	tell(s, &s->done, sizeof s->done);
	if (!s->done.reuse) {
		remote_hang_up(s, 1);
	}
}

void
remote_run(const struct house *h, int sock)
{
	static struct remote remote;
	struct remote *s = &remote;

	s->conf = &h->config->relay;
	s->secrets = h->config->secrets;
	s->sock = sock;
	for (;;) {
		if (receive(s, s->up ? DELIVER_IDLE_SECONDS * 1000 : -1) == 0) {
			serve(s);
		} else if (s->up) {
			remote_hang_up(s, 1);
		}
	}
}

#endif
