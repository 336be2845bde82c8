/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Who may send what, and what is then written: the transactions of warden.c.
 * LDFLAGS: -Wl,--wrap=radius_ask,--wrap=nanosleep,--wrap=time,--wrap=spool_room,--wrap=spool_begin,--wrap=spool_commit
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "wardenrig.h"

static int begin_error, commit_error; /* errno to fail with, 0 = work */

int __real_spool_begin(struct spool *s, const struct envelope *e, struct buf *head, int64_t now);
int __wrap_spool_begin(struct spool *s, const struct envelope *e, struct buf *head, int64_t now);
int
__wrap_spool_begin(struct spool *s, const struct envelope *e, struct buf *head, int64_t now)
{
	errno = begin_error;
	return begin_error != 0 ? -1 : __real_spool_begin(s, e, head, now);
}

int __real_spool_commit(struct spool *s, const struct envelope *e);
int __wrap_spool_commit(struct spool *s, const struct envelope *e);
int
__wrap_spool_commit(struct spool *s, const struct envelope *e)
{
	if (commit_error != 0) {
		spool_abort(s);
		errno = commit_error;
		return -1;
	}
	return __real_spool_commit(s, e);
}

/* ---- who may ---- */

static void
test_relaying(void **state)
{
	static const struct {
		enum profile profile;
		int listed, login;
		int mail, own, foreign; /* verdicts */
	} t[] = {
		{ PROFILE_SUBMISSION, 0, 0, V_NEED_LOGIN, 0, 0 },
		{ PROFILE_SUBMISSION, 1, 0, V_NEED_LOGIN, 0, 0 }, /* a listed address is no login there */
		{ PROFILE_SUBMISSION, 0, 1, V_OK, V_OK, V_OK },
		{ PROFILE_SUBMISSIONS, 0, 0, V_NEED_LOGIN, 0, 0 },
		{ PROFILE_SUBMISSIONS, 1, 0, V_NEED_LOGIN, 0, 0 },
		{ PROFILE_SUBMISSIONS, 0, 1, V_OK, V_OK, V_OK },
		{ PROFILE_SMTP, 0, 0, V_OK, V_OK, V_NO_RELAY },
		{ PROFILE_SMTP, 1, 0, V_OK, V_OK, V_OK },
		{ PROFILE_SMTP, 0, 1, V_OK, V_OK, V_OK },
		{ PROFILE_INSIDE, 0, 0, V_NEED_LOGIN, 0, 0 },
		{ PROFILE_INSIDE, 1, 0, V_OK, V_OK, V_OK },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		begin(t[i].profile);
		session.client_policy.relay = t[i].listed;
		if (t[i].login) {
			world.result = RADIUS_ACCEPT;
			assert_int_equal(auth("joe", "x"), V_OK);
		}
		if (mail("a@a.example") != t[i].mail) {
			fail_msg("row %zu", i);
		}
		if (t[i].mail == V_OK) {
			assert_int_equal(rcpt("b@own.example"), t[i].own);
			assert_int_equal(rcpt("b@foreign.example"), t[i].foreign);
		} else {
			assert_int_equal(rcpt("b@own.example"), -1);
		}
	}
}

/* Whatever an smtp process says without a login: nothing makes a stranger's mail for another domain pass. */
static void
test_no_way_around(void **state)
{
	static const enum profile profiles[] = { PROFILE_SMTP, PROFILE_SUBMISSION, PROFILE_INSIDE };
	static const enum radius_result results[] = { RADIUS_REJECT, RADIUS_LATER };
	uint32_t x = 1;
	unsigned taken = 0;

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		static const size_t sizes[] = { 0, 76, 36, 92, 12, 528, 280, 268, 268, 16, 8, 16 };
		union msg_any m;
		struct outcome o;

		if (i % 100 == 0) {
			begin(profiles[i / 100 % 3]);
			world.result = results[i / 300 % 2];
		}
		memset(&m, 0, sizeof m);
		for (size_t k = 0; k < sizeof m; k++) {
			x = x * 1103515245 + 12345;
			((uint8_t *)&m)[k] = (uint8_t)(x >> 16) & (x >> 30 ? 0x00 : 0xff);
		}
		x = x * 1103515245 + 12345;
		m.type = (x >> 16) % (MSG_COUNT + 1);
		if (m.type == MSG_MAIL) {
			m.mail.len = 11;
			memcpy(m.mail.addr, "a@a.example", 11);
			m.mail.size = 0;
		} else if (m.type == MSG_RCPT) {
			m.rcpt.len = x >> 31 ? 13 : 17;
			memcpy(m.rcpt.addr, x >> 31 ? "b@own.example" : "b@foreign.example", m.rcpt.len);
		} else if (m.type == MSG_AUTH) {
			m.auth.user_len %= 300;
			m.auth.pass_len %= 300;
		} else if (m.type == MSG_DATA) {
			m.data.helo_len %= 300;
		}
		o = request(&m, m.type < COUNT(sizes) ? sizes[m.type] : 8);
		if (o.fd != -1) {
			/* A file only for what the envelope may hold. */
			assert_int_equal(w->env.rcpts, w->env.len / 15);
			taken++;
			close(o.fd);
		}
		if (o.len > 0 && m.type == MSG_RCPT) {
			assert_int_equal(o.m.verdict.verdict, m.rcpt.len == 13 ? V_OK : V_NO_RELAY);
		}
		if (o.len > 0 && m.type == MSG_AUTH) {
			assert_int_not_equal(o.m.verdict.verdict, V_OK);
		}
		if (o.len > 0 && m.type == MSG_MAIL && session.listen->profile != PROFILE_SMTP) {
			assert_int_equal(o.m.verdict.verdict, V_NEED_LOGIN);
		}
		assert_null(memmem(w->env.to, w->env.len, "foreign", 7));
	}
	assert_in_range(taken, 20, 20000);
	assert_int_equal(house.share->slot[0].loggedin, 0);
}

static void
test_sender_verdicts(void **state)
{
	static const struct {
		const char *addr;
		uint64_t size;
		int relay, room, clock_unset, want;
	} t[] = {
		{ "a@a.example", 0, 1, 0, 0, V_OK },
		{ "", 0, 1, 0, 0, V_OK },
		{ "a@[192.0.2.7]", 0, 1, 0, 0, V_OK },
		{ "a@localhost", 0, 1, 0, 0, V_UNQUALIFIED },
		{ "a", 0, 1, 0, 0, V_UNQUALIFIED },
		{ "a@localhost", 0, 0, 0, 0, V_OK }, /* strangers, to our own domains */
		{ "x@spam.example", 0, 1, 0, 0, V_SENDER_REFUSED },
		{ "x@SPAM.example", 0, 0, 0, 0, V_SENDER_REFUSED },
		{ "a@a.example", 100000, 1, 0, 0, V_OK },
		{ "a@a.example", 100001, 1, 0, 0, V_TOO_BIG },
		{ "a@a.example", UINT64_MAX, 1, 0, 0, V_TOO_BIG },
		{ "a@a.example", 0, 1, V_NO_SPACE, 0, V_NO_SPACE },
		{ "a@a.example", 0, 1, V_SPOOL_ERROR, 0, V_SPOOL_ERROR },
		{ "a@a.example", 0, 1, 0, 1, V_NO_CLOCK },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		begin(PROFILE_SMTP);
		session.client_policy.relay = t[i].relay;
		world.room = t[i].room;
		world.now = t[i].clock_unset ? BUILD_EPOCH - 1 : BUILD_EPOCH;
		if (mail_size(t[i].addr, t[i].size) != t[i].want) {
			fail_msg("row %zu", i);
		}
		/* After a no another sender may be named, after a yes recipients. */
		world.room = 0;
		world.now = NOW;
		assert_int_equal(rcpt("b@own.example"), t[i].want == V_OK ? V_OK : -1);
		assert_int_equal(mail("c@c.example"), t[i].want == V_OK ? -1 : V_OK);
	}
}

static void
test_recipient_verdicts(void **state)
{
	static const struct {
		const char *addr;
		int relay;
		const char *append;
		int want;
		const char *envelope;
	} t[] = {
		{ "b@foreign.example", 1, "", V_OK, "b@foreign.example" },
		{ "B@Own.Example", 0, "", V_OK, "B@Own.Example" },
		{ "b@foreign.example", 1, "@fix.example", V_OK, "b@foreign.example@fix.example" },
		{ "b@localhost", 1, ".example", V_OK, "b@localhost.example" },
		{ "b@own.example", 0, "@fix.example", V_OK, "b@own.example" }, /* only for those who relay */
		{ "b@localhost", 1, "", V_UNQUALIFIED, NULL },
		{ "postmaster", 0, "", V_OK, "postmaster@mail.example.net" },
		{ "PostMaster", 1, "", V_OK, "PostMaster@mail.example.net" },
		{ "joe", 1, "", V_BAD_ADDRESS, NULL },
		{ "postmaster2", 0, "", V_BAD_ADDRESS, NULL },
		{ "b@foreign.example@own.example", 0, "", V_OK, "b@foreign.example@own.example" },
		{ "b@own.example@foreign.example", 0, "", V_NO_RELAY, NULL },
		{ "b%foreign.example@own.example", 0, "", V_OK, "b%foreign.example@own.example" },
		{ "b@", 0, "", V_NO_RELAY, NULL },
	};
	char want[128];

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		begin(PROFILE_SMTP);
		session.client_policy.relay = t[i].relay;
		strcpy(session.client_policy.append, t[i].append);
		assert_int_equal(mail("a@a.example"), V_OK);
		if (rcpt(t[i].addr) != t[i].want) {
			fail_msg("%s", t[i].addr);
		}
		assert_int_equal(w->env.rcpts, t[i].want == V_OK);
		if (t[i].want == V_OK) {
			snprintf(want, sizeof want, "T%s", t[i].envelope);
			assert_int_equal(w->env.len, strlen(want) + 1);
			assert_memory_equal(w->env.to, want, w->env.len);
		}
	}
}

static void
test_many_recipients(void **state)
{
	char longest[SMTP_PATH_MAX + 1];
	struct msg_commit_reply r;
	int fd;

	(void)state;
	begin(PROFILE_SUBMISSION);
	world.result = RADIUS_ACCEPT;
	assert_int_equal(auth("joe", "x"), V_OK);
	assert_int_equal(mail("a@a.example"), V_OK);
	memset(longest, 'x', sizeof longest - 1);
	longest[64] = '@';
	longest[100] = '.';
	longest[sizeof longest - 1] = '\0';
	for (int i = 0; i < SMTP_RCPT_MAX; i++) {
		assert_int_equal(rcpt(longest), V_OK);
	}
	assert_int_equal(rcpt("b@b.example"), V_TOO_MANY_RCPT);
	assert_int_equal(w->env.rcpts, SMTP_RCPT_MAX);
	fd = data("h", 1);
	assert_int_equal(write_all(fd, "x\n", 2), 0);
	close(fd);
	assert_int_equal(commit(&r), V_OK);
	assert_int_equal(mail("a@a.example"), V_OK); /* and the next message begins with none */
	assert_int_equal(w->env.rcpts, 0);
	assert_int_equal(rcpt("b@b.example"), V_OK);
}

/* ---- what is written ---- */

static void
clean_queue(void)
{
	assert_int_equal(system("find pid intd todo mess -type f -exec rm {} +"), 0);
}

static int
nothing_in_queue(void)
{
	return system("test -z \"$(find pid intd todo mess -type f)\"") == 0;
}

static void
test_message(void **state)
{
	char name[64], date[64], want[512];
	struct msg_commit_reply r;
	struct stat st;
	time_t now = NOW;
	char *text;
	size_t len, n;
	int fd;

	(void)state;
	clean_queue();
	begin(PROFILE_SUBMISSION);
	world.result = RADIUS_ACCEPT;
	assert_int_equal(auth("joe@isp.example", "x"), V_OK);
	for (int round = 0; round < 2; round++) {
		assert_int_equal(mail(round == 0 ? "a@a.example" : ""), V_OK);
		assert_int_equal(rcpt("b@b.example"), V_OK);
		assert_int_equal(rcpt("c@c.example"), V_OK);
		fd = data("client.example", 1);
		assert_true((fcntl(fd, F_GETFL) & O_APPEND) != 0);
		assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
		assert_int_equal(fstat(fd, &st), 0);
		assert_int_equal(write_all(fd, "Subject: x\n\nhi\n", 15), 0);
		close(fd);
		assert_int_equal(commit(&r), V_OK);
		assert_int_equal(r.qid, st.st_ino);
		assert_int_equal(r.pid, getpid());
		assert_int_equal(r.time, NOW);

		strftime(date, sizeof date, "%e %b %Y %H:%M:%S -0000", gmtime(&now));
		snprintf(want, sizeof want,
		    "Received: (qmail %d invoked from network); %s\n"
		    "Received: from unknown (HELO client.example) (joe@isp.example@192.0.2.9)\n"
		    "  by mail.example.net with ESMTPA id %llu; %s\nSubject: x\n\nhi\n",
		    (int)getpid(), date + (date[0] == ' '), (unsigned long long)r.qid, date + (date[0] == ' '));
		snprintf(name, sizeof name, "queue/mess/%d/%llu", (int)(r.qid % 2), (unsigned long long)r.qid);
		assert_string_equal(content(name, NULL), want);
		snprintf(name, sizeof name, "queue/todo/%llu", (unsigned long long)r.qid);
		n = (size_t)snprintf(want, sizeof want, "u64011%cp%d%cF%s%cTb@b.example%cTc@c.example", 0,
			(int)getpid(), 0, round == 0 ? "a@a.example" : "", 0, 0) +
		    1;
		text = content(name, &len);
		assert_int_equal(len, n);
		assert_memory_equal(text, want, n);
	}
	assert_int_equal(w->messages, 2);
	assert_int_equal(w->recipients, 4);
	assert_int_equal(w->octets, 10);
}

/* The network's Received field: RFC 3848 names, and nothing that could break out of a line. */
static void
test_trace(void **state)
{
	static const struct {
		enum profile profile;
		int tls, login, esmtp, utf8;
		const char *helo, *info, *host, *line1, *with;
	} t[] = {
		{ PROFILE_SMTP, 0, 0, 0, 0, "h.example", NULL, NULL, "unknown (HELO h.example) (192.0.2.9)", "SMTP" },
		{ PROFILE_SMTP, 0, 0, 1, 0, "h.example", NULL, NULL, "unknown (HELO h.example) (192.0.2.9)", "ESMTP" },
		{ PROFILE_SMTP, 1, 0, 1, 0, "h.example", NULL, NULL, "unknown (HELO h.example) (192.0.2.9)",
		    "ESMTPS (TLSv1.2)" },
		{ PROFILE_SMTP, 1, 1, 1, 0, "h.example", NULL, NULL, "unknown (HELO h.example) (joe@192.0.2.9)",
		    "ESMTPSA (TLSv1.2)" },
		{ PROFILE_SMTP, 0, 1, 1, 1, "h.example", NULL, NULL, "unknown (HELO h.example) (joe@192.0.2.9)",
		    "UTF8SMTPA" },
		{ PROFILE_SMTP, 1, 0, 1, 1, "h.example", NULL, NULL, "unknown (HELO h.example) (192.0.2.9)",
		    "UTF8SMTPS (TLSv1.2)" },
		{ PROFILE_SMTP, 0, 0, 1, 0, "H.Example", "id", "h.example", "h.example (id@192.0.2.9)", "ESMTP" },
		{ PROFILE_SMTP, 0, 0, 1, 0, "h.example.", "i\nd", "h.ex\rample",
		    "h.ex?ample (HELO h.example.) (i?d@192.0.2.9)", "ESMTP" },
		{ PROFILE_SMTP, 0, 0, 1, 0, "h)\r\nX: y\xc3\xbc", NULL, NULL,
		    "unknown (HELO h???X:?y?"
		    "?) (192.0.2.9)",
		    "ESMTP" },
		{ PROFILE_SMTP, 0, 0, 1, 0, "[192.0.2.9]", NULL, NULL, "unknown (HELO [192.0.2.9]) (192.0.2.9)",
		    "ESMTP" },
	};
	char want[256];

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		struct msg_tlsup up = { .type = MSG_TLSUP, .version = 0x0303, .suite = 0xcca9 };
		struct msg_mail m = { .type = MSG_MAIL, .utf8 = (uint32_t)t[i].utf8 };
		struct msg_commit_reply r;
		const char *text;
		int fd;

		clean_queue();
		begin(t[i].profile);
		session.info = t[i].info;
		session.host = t[i].host;
		world.result = RADIUS_ACCEPT;
		if (t[i].tls) {
			assert_int_equal(request(&up, sizeof up).rc, 0);
		}
		if (t[i].login) {
			assert_int_equal(auth("joe", "x"), V_OK);
		}
		assert_int_equal(verdict(&m, sizeof m), V_OK);
		assert_int_equal(rcpt("b@own.example"), V_OK);
		fd = data(t[i].helo, (uint32_t)t[i].esmtp);
		close(fd);
		assert_int_equal(commit(&r), V_OK);
		snprintf(want, sizeof want, "queue/mess/%d/%llu", (int)(r.qid % 2), (unsigned long long)r.qid);
		text = strchr(content(want, NULL), '\n') + 1; /* below qmail's own line */
		snprintf(
		    want, sizeof want, "Received: from %s\n  by mail.example.net with %s id ", t[i].line1, t[i].with);
		assert_int_equal(strncmp(text, want, strlen(want)), 0);
		assert_int_equal(
		    strstr(text, " tls TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256; ") != NULL, t[i].tls);
		text = strchr(text, '\n') + 1;
		assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1); /* two lines */
	}
}

/* What smtp has left in the file is checked; a failure leaves nothing, and the session goes on. */
static void
test_failures(void **state)
{
	static const struct {
		int begin_error, commit_error;
		off_t length; /* cut the file, or make it longer; -1: leave it */
		const char *text;
		int data, commit;
	} t[] = {
		{ 0, 0, -1, "x\n", V_OK, V_OK },
		{ 0, 0, -1, "", V_OK, V_OK }, /* an empty message is one: it has trace lines */
		{ 0, 0, -1, "x\ny", V_OK, V_SPOOL_ERROR },
		{ 0, 0, 0, "x\n", V_OK, V_SPOOL_ERROR },
		{ 0, 0, 100000 + SPOOL_HEAD_MAX, "x\n", V_OK, V_TOO_BIG },
		{ ENOSPC, 0, -1, "", V_NO_SPACE, 0 },
		{ EDQUOT, 0, -1, "", V_NO_SPACE, 0 },
		{ EIO, 0, -1, "", V_SPOOL_ERROR, 0 },
		{ 0, ENOSPC, -1, "x\n", V_OK, V_NO_SPACE },
		{ 0, EIO, -1, "x\n", V_OK, V_SPOOL_ERROR },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		struct msg_commit_reply r;
		struct msg_data m = { .type = MSG_DATA };
		struct outcome o;
		unsigned fds;

		clean_queue();
		begin(PROFILE_SMTP);
		fds = open_fds();
		begin_error = t[i].begin_error;
		commit_error = t[i].commit_error;
		assert_int_equal(mail("a@a.example"), V_OK);
		assert_int_equal(rcpt("b@own.example"), V_OK);
		o = request(&m, sizeof m);
		assert_int_equal(o.m.verdict.verdict, t[i].data);
		if (t[i].data == V_OK) {
			if (t[i].length != -1) {
				assert_int_equal(ftruncate(o.fd, t[i].length), 0);
			}
			if (t[i].length != 0) {
				assert_int_equal(write_all(o.fd, t[i].text, strlen(t[i].text)), 0);
			}
			close(o.fd);
			if (commit(&r) != t[i].commit) {
				fail_msg("row %zu", i);
			}
			assert_int_equal(nothing_in_queue(), t[i].commit != V_OK);
		} else {
			assert_true(nothing_in_queue());
		}
		begin_error = commit_error = 0;
		reset();
		assert_int_equal(open_fds(), fds);
		assert_int_equal(mail("a@a.example"), V_OK);
	}
	/* RSET, or the end, in the middle of a message. */
	clean_queue();
	begin(PROFILE_SMTP);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(mail("a@a.example"), V_OK);
		assert_int_equal(rcpt("b@own.example"), V_OK);
		close(data("h", 0));
		assert_false(nothing_in_queue());
		reset();
		assert_true(nothing_in_queue());
		assert_int_equal(rcpt("b@own.example"), -1);
	}
}

/* Who still has the file when he says it is complete, or is to be forgotten, breaks the rules, and nothing is accepted. */
static void
test_kept_file(void **state)
{
	struct msg_commit m = { .type = MSG_COMMIT };
	struct msg_simple forget = { .type = MSG_RESET };

	(void)state;
	clean_queue();
	for (int keep = 0; keep < 2; keep++) {
		int fd;

		begin(PROFILE_SMTP);
		assert_int_equal(mail("a@a.example"), V_OK);
		assert_int_equal(rcpt("b@own.example"), V_OK);
		fd = data("h", 0);
		if (!keep) {
			close(fd);
		}
		assert_int_equal(request(&forget, sizeof forget).rc, keep ? -1 : 0);
		if (keep) {
			close(fd);
			spool_abort(&w->spool);
		}
		assert_true(nothing_in_queue());

		begin(PROFILE_SMTP);
		assert_int_equal(mail("a@a.example"), V_OK);
		assert_int_equal(rcpt("b@own.example"), V_OK);
		fd = data("h", 0);
		assert_int_equal(write_all(fd, "x\n", 2), 0);
		if (!keep) {
			close(fd);
		}
		assert_int_equal(request(&m, sizeof m).rc, keep ? -1 : 0);
		if (keep) {
			close(fd);
			spool_abort(&w->spool);
			assert_true(nothing_in_queue());
		} else {
			assert_false(nothing_in_queue());
			clean_queue();
		}
	}
}

static void
test_forced_sender(void **state)
{
	(void)state;
	begin(PROFILE_INSIDE);
	session.client_policy.relay = 1;
	strcpy(listener.from, "printer@isp.example");
	assert_int_equal(mail("root@localhost"), V_OK); /* it will not be seen */
	assert_string_equal(w->env.sender, "printer@isp.example");
	reset();
	assert_int_equal(mail("x@spam.example"), V_SENDER_REFUSED);
	assert_int_equal(mail(""), V_OK);
	assert_string_equal(w->env.sender, "printer@isp.example");
}

/* ---- several requests in one message ---- */

/* Requests by letter: m sender, s sender refused, r own recipient, f foreign recipient, d data, n note. */
static size_t
batch(const char *what, uint8_t *p)
{
	size_t len = 0;

	for (; *what != '\0'; what++) {
		const char *addr = *what == 's' ? "x@spam.example"
		    : *what == 'r'              ? "bob@own.example"
		    : *what == 'f'              ? "bob@foreign.example"
						: "a@b.example";
		union msg_any m;
		size_t size = *what == 'd' ? sizeof m.data
		    : *what == 'n'         ? sizeof m.note
		    : strchr("rf", *what)  ? sizeof m.rcpt
					   : sizeof m.mail;

		memset(&m, 0, sizeof m);
		m.type = *what == 'd' ? MSG_DATA : *what == 'n' ? MSG_NOTE : strchr("rf", *what) ? MSG_RCPT : MSG_MAIL;
		if (m.type == MSG_MAIL) {
			m.mail.len = (uint32_t)strlen(addr);
			memcpy(m.mail.addr, addr, m.mail.len);
		} else if (m.type == MSG_RCPT) {
			m.rcpt.len = (uint32_t)strlen(addr);
			memcpy(m.rcpt.addr, addr, m.rcpt.len);
		} else if (m.type == MSG_NOTE) {
			m.note.kind = NOTE_LOOP;
		}
		memcpy(p + len, &m, size);
		len += size;
	}
	return len;
}

/*
 * Verdicts come back together, in order. What depends on a refusal in the same message is skipped, not a breach, since smtp could not
 * know; what was never right stays a breach.
 */
static void
test_batches(void **state)
{
	static const struct {
		const char *what;
		enum verdict want[BATCH_MAX]; /* none: the pair ends */
		enum state after;
	} t[] = {
		{ "mrd", { V_OK, V_OK, V_OK }, WS_DATA },
		{ "mrrrrrrd", { V_OK, V_OK, V_OK, V_OK, V_OK, V_OK, V_OK, V_OK }, WS_DATA },
		{ "mr", { V_OK, V_OK }, WS_RCPT },
		{ "srd", { V_SENDER_REFUSED, V_SKIPPED, V_SKIPPED }, WS_OPEN },
		{ "mfd", { V_OK, V_NO_RELAY, V_SKIPPED }, WS_MAIL },
		{ "mfrd", { V_OK, V_NO_RELAY, V_OK, V_OK }, WS_DATA },
		{ "mffrf", { V_OK, V_NO_RELAY, V_NO_RELAY, V_OK, V_NO_RELAY }, WS_RCPT },
		{ "smrd", { V_SENDER_REFUSED, V_OK, V_OK, V_OK }, WS_DATA },
		{ "mrrrrrrrd", { 0 }, WS_OPEN }, /* one too many: nothing is done */
		{ "mn", { 0 }, WS_OPEN },
		{ "nn", { 0 }, WS_OPEN },
		{ "nm", { 0 }, WS_OPEN },
		{ "rd", { 0 }, WS_OPEN },
		{ "md", { 0 }, WS_MAIL },
		{ "mm", { 0 }, WS_MAIL },
		{ "mrdr", { 0 }, WS_DATA },
		{ "mrdd", { 0 }, WS_DATA },
		{ "d", { 0 }, WS_OPEN },
	};
	uint8_t p[2 * BATCH_OCTETS];

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		size_t len = batch(t[i].what, p), n = strlen(t[i].what);
		struct outcome o;

		begin(PROFILE_SMTP);
		o = request(p, len);
		assert_int_equal(o.rc, t[i].want[0] == 0 ? -1 : 0);
		assert_int_equal(o.len, t[i].want[0] == 0 ? 0 : n * sizeof o.m.verdict);
		for (size_t k = 0; t[i].want[0] != 0 && k < n; k++) {
			const struct msg_verdict *v = (const struct msg_verdict *)(const void *)&o.m + k;
			uint32_t type = t[i].what[k] == 'd' ? MSG_DATA
			    : strchr("rf", t[i].what[k])    ? MSG_RCPT
							    : MSG_MAIL;

			assert_int_equal(v->type, type);
			assert_int_equal(v->verdict, t[i].want[k]);
		}
		assert_int_equal(w->state, t[i].after);
		assert_int_equal(o.fd != -1, t[i].after == WS_DATA && t[i].want[0] != 0);
		if (o.fd != -1) {
			close(o.fd);
		}
		spool_abort(&w->spool);
	}
	/* Cut short, or with octets behind it: nothing is done. */
	for (size_t cut = 1; cut < 300; cut += 13) {
		begin(PROFILE_SMTP);
		memset(p, 0, sizeof p);
		assert_int_equal(request(p, batch("mr", p) - cut).rc, cut == sizeof(struct msg_rcpt) ? 0 : -1);
		assert_int_equal(w->state, cut == sizeof(struct msg_rcpt) ? WS_MAIL : WS_OPEN);
		begin(PROFILE_SMTP);
		memset(p, 0, sizeof p);
		assert_int_equal(request(p, batch("mr", p) + cut).rc, -1);
		assert_int_equal(w->state, WS_OPEN);
	}
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_batches),
		cmocka_unit_test(test_relaying),
		cmocka_unit_test(test_no_way_around),
		cmocka_unit_test(test_sender_verdicts),
		cmocka_unit_test(test_recipient_verdicts),
		cmocka_unit_test(test_many_recipients),
		cmocka_unit_test(test_message),
		cmocka_unit_test(test_trace),
		cmocka_unit_test(test_failures),
		cmocka_unit_test(test_kept_file),
		cmocka_unit_test(test_forced_sender),
	};

	return cmocka_run_group_tests(tests, setup_warden, teardown_warden);
}
