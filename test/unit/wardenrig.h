/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * A warden over a socketpair and a temporary queue, with a RADIUS server, a clock and a disk that do as they are told. Include after
 * <cmocka.h>; programs are linked with -Wl,--wrap=radius_ask,--wrap=nanosleep,--wrap=time,--wrap=spool_room
 */
#ifndef MAILSTILE_TEST_WARDENRIG_H
#define MAILSTILE_TEST_WARDENRIG_H

#include "msg.h"
#include "parse.h"
#include "radius.h"
#include "str.h"
#include "unit.h"
#include "users.h"
#include "wardenint.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

#define NOW (BUILD_EPOCH + INT64_C(100000)) /* after it the clock counts as set */

static struct {
	enum radius_result result; /* what RADIUS says */
	unsigned asked;
	char user[256], password[256], client[64], called[128], nas[256], session[32];
	int64_t slept_ms; /* by the last nanosleep() */
	int64_t now;
	int room;           /* what spool_room() says */
	const char *policy; /* attributes of an accept, NULL = none; each has its length at its second octet */
	size_t policy_len;
	int policy_lost;
} world;

static struct config *config;
static struct house house;
static struct listen_conf listener;
static struct session session;
static struct warden *w;
static int sv[2] = { -1, -1 };

void __wrap_radius_ask(const struct radius_conf *rc, const struct secrets *s, struct share *sh, uint32_t generation,
    const struct radius_query *q, struct radius_answer *a);
void
__wrap_radius_ask(const struct radius_conf *rc, const struct secrets *s, struct share *sh, uint32_t generation,
    const struct radius_query *q, struct radius_answer *a)
{
	assert_ptr_equal(rc, &config->radius);
	assert_ptr_equal(s, config->secrets);
	assert_ptr_equal(sh, house.share);
	assert_int_equal(generation, house.radius_generation);
	snprintf(world.user, sizeof world.user, "%s", q->user);
	snprintf(world.password, sizeof world.password, "%s", q->password);
	snprintf(world.client, sizeof world.client, "%s", q->client);
	snprintf(world.called, sizeof world.called, "%s", q->called);
	snprintf(world.nas, sizeof world.nas, "%s", q->nas);
	snprintf(world.session, sizeof world.session, "%s", q->session);
	world.asked++;
	memset(a, 0, sizeof *a);
	a->server = -1;
	a->result = world.result;
	a->trouble = world.result == RADIUS_LATER ? RADIUS_NO_ANSWER : RADIUS_OK;
#if ACCOUNTS
	a->policy.len = (uint16_t)world.policy_len;
	a->policy.lost = (uint16_t)world.policy_lost;
	if (world.policy_len > 0) {
		memcpy(a->policy.attributes, world.policy, world.policy_len);
	}
#endif
}

int __wrap_nanosleep(const struct timespec *ts, struct timespec *rest);
int
__wrap_nanosleep(const struct timespec *ts, struct timespec *rest)
{
	(void)rest;
	world.slept_ms = ts->tv_sec * 1000 + ts->tv_nsec / 1000000;
	return 0;
}

time_t __wrap_time(time_t *t);
time_t
__wrap_time(time_t *t)
{
	assert_null(t);
	return (time_t)world.now;
}

int __wrap_spool_room(const struct spool *s, uint64_t size);
int
__wrap_spool_room(const struct spool *s, uint64_t size)
{
	(void)s;
	(void)size;
	return world.room;
}

/* A fresh session on a listener of `profile`; nobody has failed a login before. */
static void
begin(enum profile profile)
{
	static const char client[] = "192.0.2.9", local[] = "192.0.2.1";

	if (w != NULL) {
		spool_abort(&w->spool);
		memset(w, 0, sizeof *w);
		close(sv[0]);
		close(sv[1]);
	}
	memset(&world, 0, sizeof world);
	world.now = NOW;
	world.result = RADIUS_REJECT;
	memset(&listener, 0, sizeof listener);
	listener.profile = profile;
	memset(&session, 0, sizeof session);
	session.listen = &listener;
	addr_parse(&session.client, client, sizeof client - 1);
	addr_parse(&session.local, local, sizeof local - 1);
	session.local_port = 587;
	session.client_policy.databytes = 100000;
	memset(&house.share->slot, 0, sizeof house.share->slot);
	memset(&house.share->penalty, 0, sizeof house.share->penalty);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	w = warden_for_test(&house, &session, sv[1]);
	assert_non_null(w);
}

/* Leave traces where a reply would show them if it were not filled. */
static __attribute__((noinline, unused)) void
dirty_stack(void)
{
	volatile uint8_t mem[7000];

	for (size_t i = 0; i < sizeof mem; i++) {
		mem[i] = 0xa5;
	}
}

/* What one request brought. */
struct outcome {
	int rc;   /* of warden_dispatch() */
	long len; /* of the reply, 0 = none */
	int fd;
	union msg_any m;
};

static struct outcome
request(const void *m, size_t len)
{
	struct outcome o;
	uint8_t *copy = malloc(len == 0 ? 1 : len);
	uint8_t extra;

	memset(&o, 0, sizeof o);
	o.fd = -1;
	memcpy(copy, m, len);
	dirty_stack();
	o.rc = warden_dispatch(w, copy, len);
	free(copy);
	o.len = msg_recv(sv[0], &o.m, sizeof o.m, &o.fd, 0);
	if (o.len == -1) {
		assert_int_equal(errno, ETIMEDOUT);
		o.len = 0;
	}
	/* Never more than one reply, none to what ends the pair, and a descriptor only with DATA. */
	assert_int_equal(msg_recv(sv[0], &extra, 1, NULL, 0), -1);
	assert_true(o.rc == 0 || o.len == 0);
	if (o.len <= (long)sizeof o.m.verdict) {
		assert_int_equal(o.fd != -1, o.len > 0 && o.m.type == MSG_DATA && o.m.verdict.verdict == V_OK);
	}
	return o;
}

/* The verdict of a request that has one; -1 when it ended the pair. */
static int
verdict(const void *m, size_t len)
{
	struct outcome o = request(m, len);
	uint32_t type;

	if (o.fd != -1) {
		close(o.fd);
	}
	if (o.rc == -1) {
		return -1;
	}
	memcpy(&type, m, sizeof type);
	assert_int_equal(o.m.type, type);
	assert_int_equal(o.len, type == MSG_COMMIT ? sizeof(struct msg_commit_reply) : sizeof(struct msg_verdict));
	assert_in_range(o.m.verdict.verdict, V_OK, V_COUNT - 1);
	return (int)o.m.verdict.verdict;
}

static UNUSED int
auth(const char *user, const char *password)
{
	struct msg_auth m;

	memset(&m, 0, sizeof m);
	m.type = MSG_AUTH;
	m.mechanism = SASL_PLAIN;
	m.user_len = (uint32_t)strlen(user);
	m.pass_len = (uint32_t)strlen(password);
	memcpy(m.user, user, m.user_len);
	memcpy(m.pass, password, m.pass_len);
	return verdict(&m, sizeof m);
}

static UNUSED int
mail_size(const char *addr, uint64_t size)
{
	struct msg_mail m;

	memset(&m, 0, sizeof m);
	m.type = MSG_MAIL;
	m.len = (uint32_t)strlen(addr);
	m.size = size;
	memcpy(m.addr, addr, m.len);
	return verdict(&m, sizeof m);
}

static UNUSED int
mail(const char *addr)
{
	return mail_size(addr, 0);
}

static UNUSED int
rcpt(const char *addr)
{
	struct msg_rcpt m;

	memset(&m, 0, sizeof m);
	m.type = MSG_RCPT;
	m.len = (uint32_t)strlen(addr);
	memcpy(m.addr, addr, m.len);
	return verdict(&m, sizeof m);
}

/* Ask for the file; its descriptor, or -1. */
static UNUSED int
data(const char *helo, uint32_t esmtp)
{
	struct msg_data m;
	struct outcome o;

	memset(&m, 0, sizeof m);
	m.type = MSG_DATA;
	m.helo_len = (uint32_t)strlen(helo);
	m.esmtp = esmtp;
	memcpy(m.helo, helo, m.helo_len);
	o = request(&m, sizeof m);
	assert_int_equal(o.rc, 0);
	return o.fd;
}

static UNUSED int
commit(struct msg_commit_reply *r)
{
	struct msg_commit m = { .type = MSG_COMMIT, .octets = 5 };
	struct outcome o = request(&m, sizeof m);

	assert_int_equal(o.rc, 0);
	assert_int_equal(o.len, sizeof *r);
	*r = o.m.commit_reply;
	assert_int_equal(r->zero, 0);
	return (int)r->verdict;
}

static UNUSED void
reset(void)
{
	struct msg_simple m = { .type = MSG_RESET };
	struct outcome o = request(&m, sizeof m);

	assert_int_equal(o.rc, 0);
	assert_int_equal(o.len, 0);
}

/* Home with a queue, a certificate and one domain of our own. */
static int
setup_warden(void **state)
{
	static struct findings found;
	char cmd[512];

	umask(033);
	if (make_dir(state) == -1) {
		return -1;
	}
	snprintf(cmd, sizeof cmd,
	    "cd %s && mkdir -p control queue/pid queue/intd queue/todo queue/bounce queue/lock queue/mess/0 queue/mess/1 "
	    "queue/info/0 queue/info/1 queue/local/0 queue/local/1 queue/remote/0 queue/remote/1",
	    dir);
	if (system(cmd) != 0) {
		return -1;
	}
	put("control/me", "mail.example.net\n");
	put("control/listen", "submission 587\nsmtp 25\n");
	put("control/rcpthosts", "own.example\n");
	put("control/badmailfrom", "@spam.example\n");
	put("control/radius.conf", "radius.example.net correct-horse-battery\n");
	config = config_load(dir, &fresh(&found)->d);
	house.share = share_open(-1);
#if ACCOUNTS
	if (users_use(memfd_create("users", MFD_CLOEXEC)) == -1) {
		return -1;
	}
#endif
	if (config == NULL || house.share == NULL || config_first_certificate(config, &found.d) == -1 ||
	    spool_open(&house.spool, SPOOL_QUEUE, config->spool_dir, &found.d) == -1) {
		return -1;
	}
	house.config = config;
	house.ids.smtp_uid = 64011;
	house.radius_generation = 3;
	house.spool_dir = house.jail = house.null = -1;
	log_open(LOG_TO_STDERR);
	log_close();
	return chdir(config->spool_dir);
}

static int
teardown_warden(void **state)
{
	spool_abort(&w->spool);
	config_free(config);
	return chdir("/") == -1 ? -1 : remove_dir(state);
}

#endif
