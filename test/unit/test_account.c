/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * What a login may do, as smtp hears of it: account.c behind the gate of warden.c.
 * LDFLAGS: -Wl,--wrap=radius_ask,--wrap=nanosleep,--wrap=time,--wrap=spool_room
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "config.h"

#if ACCOUNTS

#include "wardenrig.h"

#define OURS "\0\0\xff\xfa"

/* Log in with `policy` (one Filter-Id's text) on port 587. */
static int
login(const char *user, const char *policy)
{
	static char attribute[256];
	size_t len = strlen(policy);
	int64_t now = world.now == 0 ? NOW : world.now;

	begin(PROFILE_SUBMISSION);
	world.now = now;
	world.result = RADIUS_ACCEPT;
	attribute[0] = 11;
	attribute[1] = (char)(len + 2);
	memcpy(attribute + 2, policy, len);
	world.policy = attribute;
	world.policy_len = len + 2;
	return auth(user, "secret");
}

/* Send a message to `n` recipients; the verdict at which it ended. */
static int
send_one(const char *from, unsigned n)
{
	struct msg_commit_reply r;
	char to[64];
	int v, fd;

	v = mail(from);
	for (unsigned i = 0; i < n && v == V_OK; i++) {
		snprintf(to, sizeof to, "user%u@far.example", i);
		v = rcpt(to);
	}
	if (v != V_OK) {
		reset();
		return v;
	}
	fd = data("helo.example", 1);
	if (fd == -1) {
		reset();
		return 0;
	}
	assert_int_equal(write_all(fd, "text\n", 5), 0);
	close(fd);
	return commit(&r);
}

static void
again(const char *user)
{
	assert_int_equal(users_change(user, USERS_BLOCKED, 0, 1, world.now), 0);
	assert_int_equal(users_change(user, 0, USERS_BLOCKED, 1, world.now), 0);
}

static void
test_day(void **state)
{
	(void)state;
	assert_int_equal(login("day", "mail:day=2"), V_OK);
	assert_int_equal(send_one("a@a.example", 1), V_OK);
	assert_int_equal(send_one("a@a.example", 1), V_OK);
	assert_int_equal(send_one("a@a.example", 1), V_LIMIT_DAY);
	assert_int_equal(login("day", "mail:day=2"), V_OK);
	assert_int_equal(send_one("a@a.example", 1), V_LIMIT_DAY);
	assert_int_equal(login("day", "mail:day=3"), V_OK);
	assert_int_equal(send_one("a@a.example", 1), V_OK);
	world.now += 86400;
	assert_int_equal(login("day", "mail:day=2"), V_OK);
	assert_int_equal(send_one("a@a.example", 1), V_OK);
	/* Another name, another count; and none for who sends without a login. */
	assert_int_equal(login("night", "mail:day=1"), V_OK);
	assert_int_equal(send_one("a@a.example", 1), V_OK);
	begin(PROFILE_INSIDE);
	session.client_policy.relay = 1;
	for (int i = 0; i < 5; i++) {
		assert_int_equal(send_one("a@a.example", 1), V_OK);
	}
}

static void
test_recipients(void **state)
{
	(void)state;
	assert_int_equal(login("rcpt", "mail:rcpt=3"), V_OK);
	assert_int_equal(mail("a@a.example"), V_OK);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(rcpt("x@far.example"), V_OK);
	}
	assert_int_equal(rcpt("y@far.example"), V_LIMIT_RCPT);
	assert_int_equal(w->env.rcpts, 3);
	reset(); /* what was not sent counts for nothing */
	assert_int_equal(send_one("a@a.example", 2), V_OK);
	assert_int_equal(send_one("a@a.example", 2), V_LIMIT_RCPT);
	assert_int_equal(send_one("a@a.example", 1), V_OK);
	assert_int_equal(mail("a@a.example"), V_LIMIT_RCPT);
	assert_int_equal(w->state, WS_OPEN);
}

static void
test_rate(void **state)
{
	(void)state;
	assert_int_equal(login("rate", "mail:rate=1"), V_OK);
	assert_int_equal(send_one("a@a.example", 1), V_OK);
	assert_int_equal(send_one("a@a.example", 1), V_LIMIT_RATE);
	world.now += 60;
	assert_int_equal(send_one("a@a.example", 1), V_OK);
}

/* Two that were begun when one was left. */
static void
test_limit_at_commit(void **state)
{
	struct msg_commit_reply r;
	struct limits l;
	int fd, first;

	(void)state;
	assert_int_equal(login("late", "mail:day=1"), V_OK);
	assert_int_equal(mail("a@a.example"), V_OK);
	assert_int_equal(rcpt("x@far.example"), V_OK);
	fd = data("helo", 1);
	assert_int_equal(write_all(fd, "text\n", 5), 0);
	close(fd);
	limits_default(&l);
	assert_int_equal(users_book("late", &l, 1, world.now, &first), V_OK);
	assert_int_equal(commit(&r), V_LIMIT_DAY);
	assert_int_equal(w->state, WS_OPEN);
	assert_int_equal(w->messages, 0);
	assert_int_equal(w->spool.fd, -1);
}

/* What could not be stored is not counted. */
static void
test_given_back(void **state)
{
	struct msg_commit_reply r;
	int fd;

	(void)state;
	assert_int_equal(login("back", "mail:day=1"), V_OK);
	assert_int_equal(mail("a@a.example"), V_OK);
	assert_int_equal(rcpt("x@far.example"), V_OK);
	fd = data("helo", 1);
	assert_int_equal(write_all(fd, "text\n", 5), 0);
	close(fd);
	assert_int_equal(rename("intd", "away"), 0);
	assert_int_equal(commit(&r), V_SPOOL_ERROR);
	assert_int_equal(rename("away", "intd"), 0);
	assert_int_equal(send_one("a@a.example", 1), V_OK);
	assert_int_equal(send_one("a@a.example", 1), V_LIMIT_DAY);
}

static void
test_block(void **state)
{
	(void)state;
	assert_int_equal(login("block", "mail:"), V_OK);
	assert_int_equal(send_one("a@a.example", 1), V_OK);
	assert_int_equal(mail("a@a.example"), V_OK);
	assert_int_equal(users_change("block", USERS_BLOCKED, 0, 0, world.now), 0);
	assert_int_equal(rcpt("x@far.example"), V_BLOCKED);
	reset();
	assert_int_equal(mail("a@a.example"), V_BLOCKED);
	assert_int_equal(users_change("block", 0, USERS_BLOCKED, 0, world.now), 0);
	assert_int_equal(mail("a@a.example"), V_OK);
	assert_int_equal(rcpt("x@far.example"), V_OK);
	assert_int_equal(users_change("block", USERS_BLOCKED, 0, 0, world.now), 0);
	assert_int_equal(data("helo", 1), -1);
	reset();
	/* The password is right: it is the mail that is refused. */
	assert_int_equal(login("block", "mail:"), V_OK);
	assert_int_equal(send_one("a@a.example", 1), V_BLOCKED);
	again("block");
	assert_int_equal(send_one("a@a.example", 1), V_OK);
}

static void
test_sender(void **state)
{
	(void)state;
	assert_int_equal(login("from", "mail:from=@a.example,from=joe@b.example"), V_OK);
	assert_int_equal(send_one("x@A.example", 1), V_OK);
	assert_int_equal(send_one("joe@b.example", 1), V_OK);
	assert_int_equal(send_one("ann@b.example", 1), V_NOT_HIS_SENDER);
	assert_int_equal(send_one("", 1), V_NOT_HIS_SENDER);
	assert_int_equal(w->state, WS_OPEN);
	assert_int_equal(login("from", "mail:from="), V_OK);
	assert_int_equal(send_one("", 1), V_OK);
}

static void
test_relay(void **state)
{
	(void)state;
	assert_int_equal(login("relay", "mail:relay=no"), V_OK);
	assert_int_equal(mail("a@a.example"), V_MAY_NOT_SEND);
	begin(PROFILE_SMTP);
	world.result = RADIUS_ACCEPT;
	session.client_policy.relay = 1; /* as a guest; but he says who he is */
	world.policy = "\x1a\x0c" OURS "\x07\x06\0\0\0\0";
	world.policy_len = 12;
	assert_int_equal(auth("relay", "secret"), V_OK);
	assert_int_equal(mail("a@a.example"), V_OK);
	assert_int_equal(rcpt("x@far.example"), V_NO_RELAY);
	assert_int_equal(rcpt("x@own.example"), V_OK);
}

static void
test_size(void **state)
{
	struct msg_commit m = { .type = MSG_COMMIT, .octets = 1025 };
	struct outcome o;
	int fd;

	(void)state;
	assert_int_equal(login("size", "mail:size=1K"), V_OK);
	assert_int_equal(mail_size("a@a.example", 1025), V_TOO_BIG);
	assert_int_equal(mail_size("a@a.example", 1024), V_OK);
	assert_int_equal(rcpt("x@far.example"), V_OK);
	fd = data("helo", 1);
	assert_int_equal(write_all(fd, "text\n", 5), 0);
	close(fd);
	o = request(&m, sizeof m);
	assert_int_equal(o.m.commit_reply.verdict, V_TOO_BIG);
	assert_int_equal(users_change("size", 0, 0, 1, world.now), -1); /* not counted */
	/* The listener's own limit stays where it is lower. */
	assert_int_equal(login("size", "mail:size=1G"), V_OK);
	assert_int_equal(mail_size("a@a.example", 100001), V_TOO_BIG);
	assert_int_equal(mail_size("a@a.example", 100000), V_OK);
}

static void
test_bad_policy(void **state)
{
	static const struct {
		const char *p;
		size_t len;
	} bad[] = { { S("\x0b\x0c"
			"mail:dey=2") },
		{ S("\x0b\x0c"
		    "mail:day=x") },
		{ S("\x1b\x05\0\0\0") }, { S("\x1a\x0c" OURS "\x63\x06\0\0\0\0") } };

	(void)state;
	for (size_t i = 0; i < COUNT(bad); i++) {
		begin(PROFILE_SUBMISSION);
		world.result = RADIUS_ACCEPT;
		world.policy = bad[i].p;
		world.policy_len = bad[i].len;
		assert_int_equal(auth("joe", "secret"), V_AUTH_POLICY);
		assert_int_equal(w->loggedin, 0);
		assert_string_equal(w->user, "");
		assert_int_equal(w->auth_fails, 0); /* his password was right */
		assert_int_equal(mail("a@a.example"), V_NEED_LOGIN);
		world.policy_len = 0;
		assert_int_equal(auth("joe", "secret"), V_OK);
	}
	begin(PROFILE_SUBMISSION);
	world.result = RADIUS_ACCEPT;
	world.policy_lost = 1; /* there was more than there is room for */
	assert_int_equal(auth("joe", "secret"), V_AUTH_POLICY);
	config->accounts_bad = 1;
	assert_int_equal(login("joe", "mail:"), V_AUTH_POLICY);
	config->accounts_bad = 0;
}

static void
test_userlimits(void **state)
{
	static char text[] = ":day=1\njoe:day=2,from=joe@a.example\n";

	(void)state;
	config->userlimits = text;
	assert_int_equal(login("lim", "mail:"), V_OK);
	assert_int_equal(send_one("a@a.example", 1), V_OK);
	assert_int_equal(send_one("a@a.example", 1), V_LIMIT_DAY);
	assert_int_equal(login("joe", "other"), V_OK);
	assert_int_equal(send_one("a@a.example", 1), V_NOT_HIS_SENDER);
	assert_int_equal(send_one("joe@a.example", 1), V_OK);
	assert_int_equal(send_one("joe@a.example", 1), V_OK);
	assert_int_equal(send_one("joe@a.example", 1), V_LIMIT_DAY);
	assert_int_equal(login("joe", "mail:day=3"), V_OK); /* RADIUS has the last word */
	assert_int_equal(send_one("joe@a.example", 1), V_OK);
	config->userlimits = NULL;
}

/* Nobody counts: nobody sends. */
static void
test_no_counts(void **state)
{
	int fd;

	(void)state;
	assert_int_equal(login("none", "mail:"), V_OK);
	users_close();
	assert_int_equal(mail("a@a.example"), V_NO_COUNTS);
	assert_int_equal(login("none", "mail:"), V_AUTH_LATER);
	assert_string_equal(w->user, "");
	fd = memfd_create("users", MFD_CLOEXEC);
	assert_int_equal(users_use(fd), 0);
}

/* One mail for the first limit of a day, when the transaction is over. */
static void
test_alert(void **state)
{
	char path[64];
	size_t len;
	const char *text;

	(void)state;
	strcpy(config->alertto, "noc@isp.example");
	assert_int_equal(login("eve\" <x@y>", "mail:rcpt=2"), V_OK);
	assert_int_equal(mail("a@a.example"), V_OK);
	assert_int_equal(rcpt("x@far.example"), V_OK);
	assert_int_equal(rcpt("x@far.example"), V_OK);
	assert_int_equal(rcpt("x@far.example"), V_LIMIT_RCPT);
	assert_int_equal(w->alert, V_LIMIT_RCPT);
	assert_int_equal(w->env.rcpts, 2); /* his own envelope is as it was */
	w->spool.id = 0;
	reset();
	assert_int_equal(w->alert, 0);
	assert_int_equal(w->env.rcpts, 0);
	assert_int_equal(w->state, WS_OPEN);
	snprintf(path, sizeof path, "queue/todo/%llu", (unsigned long long)w->spool.id);
	text = content(path, &len);
	text = memchr(text, '\0', len);
	text += strlen(text + 1) + 2;
	assert_string_equal(text, "F");
	assert_string_equal(text + 2, "Tnoc@isp.example");
	snprintf(path, sizeof path, "queue/mess/%llu/%llu", (unsigned long long)w->spool.id % 2,
	    (unsigned long long)w->spool.id);
	text = content(path, NULL);
	assert_has(text, "\nSubject: limit of eve???x@y?\n");
	assert_has(text, "\nTo: <noc@isp.example>\n");
	assert_has(text, "\nAuto-Submitted: auto-generated\n");
	assert_has(text, "\n\nThe login\n\n  eve");
	assert_has(text, "2 recipients today");
	assert_has(text, "192.0.2.9");
	w->spool.id = 0;
	assert_int_equal(send_one("a@a.example", 3), V_LIMIT_RCPT);
	assert_int_equal(w->spool.id, 0); /* once */
	/* At MAIL the envelope is free at once. Without an address there is no mail. */
	assert_int_equal(login("adam", "mail:day=0"), V_OK);
	assert_int_equal(mail("a@a.example"), V_LIMIT_DAY);
	assert_int_not_equal(w->spool.id, 0);
	config->alertto[0] = '\0';
	assert_int_equal(login("abel", "mail:day=0"), V_OK);
	assert_int_equal(mail("a@a.example"), V_LIMIT_DAY);
	assert_int_equal(w->spool.id, 0);
}

static void
test_time(void **state)
{
	int ms;

	(void)state;
	begin(PROFILE_SUBMISSION);
	assert_int_equal(account_wait(w, 1), -1);
	assert_int_equal(login("time", "mail:"), V_OK);
	assert_int_equal(account_wait(w, 1), -1);
	assert_int_equal(login("time", "mail:time=100"), V_OK);
	ms = account_wait(w, 1);
	assert_in_range(ms, 99000, 100000);
	w->end -= 100000;
	assert_int_equal(account_wait(w, 1), 0); /* whatever smtp has to say */
	assert_int_equal(login("time", "mail:time=100,idle=30"), V_OK);
	assert_in_range(account_wait(w, 0), 29000, 30000);
	w->heard -= 31000;
	assert_int_equal(account_wait(w, 0), 0);
	assert_in_range(account_wait(w, 1), 29000, 30000);
	assert_int_equal(mail("a@a.example"), V_OK);
	assert_int_equal(rcpt("x@far.example"), V_OK);
	close(data("helo", 1));
	assert_in_range(account_wait(w, 0), 31000, 100000); /* a message is coming in */
	assert_int_equal(login("time", "mail:time=0"), V_OK);
	assert_int_equal(account_wait(w, 0), 0);
	assert_int_equal(login("time", "mail:idle=0"), V_OK);
	assert_in_range(account_wait(w, 0), 9000, 10000); /* a session nobody could use is nobody's wish */
}

#endif

int
main(void)
{
#if ACCOUNTS
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_day),
		cmocka_unit_test(test_recipients),
		cmocka_unit_test(test_rate),
		cmocka_unit_test(test_limit_at_commit),
		cmocka_unit_test(test_given_back),
		cmocka_unit_test(test_block),
		cmocka_unit_test(test_sender),
		cmocka_unit_test(test_relay),
		cmocka_unit_test(test_size),
		cmocka_unit_test(test_bad_policy),
		cmocka_unit_test(test_userlimits),
		cmocka_unit_test(test_no_counts),
		cmocka_unit_test(test_alert),
		cmocka_unit_test(test_time),
	};

	return cmocka_run_group_tests(tests, setup_warden, teardown_warden);
#else
	return 0;
#endif
}
