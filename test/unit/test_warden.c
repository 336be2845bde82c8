/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The monitor's gate, TLS requests and login: warden.c, wardenauth.c. What is allowed when is told here again, in words of this file.
 * LDFLAGS: -Wl,--wrap=radius_ask,--wrap=nanosleep,--wrap=time,--wrap=spool_room
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "wardenrig.h"

#include "guess.h"

/* How far a transaction has come. */
enum stage { NOTHING, SENDER, RECIPIENT, RECEIVING, STAGES };

static void
go_to(enum stage stage)
{
	int fd;

	begin(PROFILE_SMTP);
	if (stage >= SENDER) {
		assert_int_equal(mail("a@a.example"), V_OK);
	}
	if (stage >= RECIPIENT) {
		assert_int_equal(rcpt("b@own.example"), V_OK);
	}
	if (stage >= RECEIVING) {
		fd = data("helo.example", 1);
		assert_int_not_equal(fd, -1);
		assert_int_equal(write_all(fd, "x\n", 2), 0);
		close(fd);
	}
}

/* A request of each type that is good in itself; its size. */
static size_t
good(uint32_t type, union msg_any *m)
{
	static const size_t sizes[MSG_COUNT] = {
		[MSG_SIGN] = 76,
		[MSG_TLSGET] = 36,
		[MSG_TLSPUT] = 92,
		[MSG_TLSUP] = 12,
		[MSG_AUTH] = 528,
		[MSG_MAIL] = 280,
		[MSG_RCPT] = 268,
		[MSG_DATA] = 268,
		[MSG_COMMIT] = 16,
		[MSG_RESET] = 8,
		[MSG_NOTE] = 16,
	};

	memset(m, 0, sizeof *m);
	m->type = type;
	switch (type) {
	case MSG_SIGN:
		m->sign.hash_id = 4;
		m->sign.len = 32;
		break;
	case MSG_AUTH:
		m->auth.user_len = m->auth.pass_len = 1;
		m->auth.user[0] = m->auth.pass[0] = 'x';
		break;
	case MSG_RCPT:
		m->rcpt.len = 13;
		memcpy(m->rcpt.addr, "c@own.example", 13);
		break;
	case MSG_NOTE:
		m->note.kind = NOTE_QUIT;
		break;
	default:
		break;
	}
	return type < MSG_COUNT ? sizes[type] : 8;
}

/* One column for each stage; the reply's length, 0 = none. */
static const struct {
	uint32_t type;
	const char *allowed; /* in stage NOTHING, SENDER, RECIPIENT, RECEIVING */
	long reply;
} gate[] = {
	/* TLS begins before MAIL, or after RSET or a finished message; so does a login (RFC 4954 4) */
	{ MSG_SIGN, "y---", 520 },
	{ MSG_TLSGET, "y---", 92 },
	{ MSG_TLSPUT, "y---", 0 },
	{ MSG_TLSUP, "y---", 0 },
	{ MSG_AUTH, "y---", 8 },
	/* MAIL, RCPT..., DATA, the end, in this order */
	{ MSG_MAIL, "y---", 8 },
	{ MSG_RCPT, "-yy-", 8 },
	{ MSG_DATA, "--y-", 8 },
	{ MSG_COMMIT, "---y", 32 },
	/* at any time */
	{ MSG_RESET, "yyyy", 0 },
	{ MSG_NOTE, "yyyy", 0 },
	/* no requests */
	{ 0, "----", 0 },
	{ MSG_COUNT, "----", 0 },
	{ MSG_COUNT + 1, "----", 0 },
	{ 0x100 | MSG_RESET, "----", 0 },
	{ 0x80000000 | MSG_RESET, "----", 0 },
	{ UINT32_MAX, "----", 0 },
};

static void
test_gate(void **state)
{
	union msg_any m;

	(void)state;
	for (size_t i = 0; i < COUNT(gate); i++) {
		for (int stage = NOTHING; stage < STAGES; stage++) {
			static char was[8192];
			struct outcome o;
			size_t len = good(gate[i].type, &m);

			go_to((enum stage)stage);
			strcpy(was, files_there());
			o = request(&m, len);
			if ((o.rc == 0) != (gate[i].allowed[stage] == 'y') ||
			    o.len != (o.rc == 0 ? gate[i].reply : 0)) {
				fail_msg("type %u in stage %d: %d, %ld octets", gate[i].type, stage, o.rc, o.len);
			}
			if (o.fd != -1) {
				close(o.fd);
			}
			if (o.rc == -1) {
				assert_string_equal(files_there(), was);
			}
		}
	}
}

/* Only the exact size will do: of all from nothing to one octet more than the largest message. */
static void
test_sizes(void **state)
{
	static uint8_t mem[sizeof(union msg_any) + 1];
	union msg_any m;

	(void)state;
	for (size_t i = 0; i < COUNT(gate); i++) {
		enum stage stage = (enum stage)(strcspn(gate[i].allowed, "y") % STAGES);
		size_t right = good(gate[i].type, &m);

		memset(mem, 0, sizeof mem);
		memcpy(mem, &m, sizeof m);
		go_to(stage);
		for (size_t len = 0; len <= sizeof mem; len++) {
			if (len != right || strchr(gate[i].allowed, 'y') == NULL) {
				assert_int_equal(request(mem, len).rc, -1);
			}
		}
		if (strchr(gate[i].allowed, 'y') != NULL) {
			struct outcome o = request(mem, right);

			assert_int_equal(o.rc, 0);
			if (o.fd != -1) {
				close(o.fd);
			}
		}
	}
}

static void
test_lengths(void **state)
{
	static const struct {
		uint32_t type;
		enum stage stage;
		size_t at; /* of the length in the message */
		uint32_t most, least;
	} t[] = {
		{ MSG_SIGN, NOTHING, offsetof(struct msg_sign, len), 64, 0 },
		{ MSG_AUTH, NOTHING, offsetof(struct msg_auth, user_len), 255, 0 },
		{ MSG_AUTH, NOTHING, offsetof(struct msg_auth, pass_len), 255, 0 },
		{ MSG_MAIL, NOTHING, offsetof(struct msg_mail, len), 256, 0 },
		{ MSG_RCPT, SENDER, offsetof(struct msg_rcpt, len), 256, 1 },
		{ MSG_DATA, RECIPIENT, offsetof(struct msg_data, helo_len), 255, 0 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		const uint32_t lengths[] = { t[i].least, t[i].most, t[i].most + 1, t[i].least - 1, 0x10000, 0x7fffffff,
			0xffffffff };

		for (size_t k = 0; k < COUNT(lengths); k++) {
			struct outcome o;
			union msg_any m;
			size_t len = good(t[i].type, &m);
			int ok = lengths[k] <= t[i].most && lengths[k] >= t[i].least;

			memset((char *)&m + t[i].at + 4, 'x', len - t[i].at - 4);
			if (t[i].type == MSG_AUTH) {
				m.auth.user_len = m.auth.pass_len = 1;
			}
			memcpy((char *)&m + t[i].at, &lengths[k], 4);
			go_to(t[i].stage);
			o = request(&m, len);
			if (o.rc != (ok ? 0 : -1)) {
				fail_msg("row %zu, length %u", i, lengths[k]);
			}
			if (o.fd != -1) {
				close(o.fd);
			}
		}
	}
}

/* No control can get into an envelope, and so none into a log line or a header field. */
static void
test_controls(void **state)
{
	(void)state;
	for (int c = 0; c < 256; c++) {
		struct msg_mail m = { .type = MSG_MAIL, .len = 13 };
		struct msg_rcpt r = { .type = MSG_RCPT, .len = 13 };
		int want = c < 32 || c == 127 ? -1 : V_OK;

		memcpy(m.addr, "xx@own.example", 13);
		memcpy(r.addr, "xx@own.exampl", 13);
		m.addr[1] = r.addr[1] = (char)c;
		r.len = 14;
		r.addr[13] = 'e';
		go_to(NOTHING);
		assert_int_equal(verdict(&m, sizeof m), want);
		go_to(SENDER);
		assert_int_equal(verdict(&r, sizeof r), want);
	}
}

static void
test_sign(void **state)
{
	static const struct {
		uint32_t hash_id, len;
		int ok;
	} t[] = { { 4, 32, 1 }, { 5, 48, 1 }, { 6, 64, 1 }, { 4, 31, 0 }, { 4, 0, 0 }, { 1, 16, 0 }, { 2, 20, 0 },
		{ 0, 36, 0 }, { UINT32_MAX, 32, 0 } };
	int type = config->chain.key_type;

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		struct msg_sign m = { .type = MSG_SIGN, .hash_id = t[i].hash_id, .len = t[i].len };
		struct outcome o;

		begin(PROFILE_SUBMISSION);
		o = request(&m, sizeof m);
		assert_int_equal(o.rc, 0);
		assert_int_equal(o.m.type, MSG_SIGN);
		assert_int_equal(o.m.sign_reply.len > 60, t[i].ok); /* ECDSA, P-256, DER */
		assert_in_range(o.m.sign_reply.len, 0, 72);
		for (size_t k = o.m.sign_reply.len; k < sizeof o.m.sign_reply.sig; k++) {
			assert_int_equal(o.m.sign_reply.sig[k], 0);
		}
		/* One handshake, one signature: no oracle. */
		assert_int_equal(request(&m, sizeof m).rc, -1);
		reset();
		assert_int_equal(request(&m, sizeof m).rc, -1);
	}
	config->chain.key_type = 0;
	begin(PROFILE_SUBMISSION);
	assert_int_equal(request(&(struct msg_sign){ .type = MSG_SIGN, .hash_id = 4, .len = 32 }, 76).rc, -1);
	config->chain.key_type = type;
}

static void
test_tls_sessions(void **state)
{
	struct msg_tlssession put_ = { .type = MSG_TLSPUT, .found = 1, .version = 0x0303, .suite = 0xcca9 };
	struct msg_tlsget get = { .type = MSG_TLSGET };
	struct msg_tlsup up = { .type = MSG_TLSUP, .version = 0x0303, .suite = 0xcca9 };
	static const uint8_t zeros[sizeof(struct msg_tlssession)];
	struct outcome o;

	(void)state;
	memset(put_.id, 1, sizeof put_.id);
	memset(put_.master, 2, sizeof put_.master);
	memset(get.id, 1, sizeof get.id);
	begin(PROFILE_SUBMISSION);
	o = request(&get, sizeof get);
	assert_int_equal(o.rc, 0);
	assert_int_equal(o.len, sizeof o.m.tlssession);
	assert_int_equal(o.m.type, MSG_TLSGET);
	assert_memory_equal((uint8_t *)&o.m + 4, zeros + 4, sizeof zeros - 4); /* nothing found, nothing shown */
	assert_int_equal(request(&put_, sizeof put_).rc, 0);
	/* Each of them once in a session. */
	assert_int_equal(request(&get, sizeof get).rc, -1);
	assert_int_equal(request(&put_, sizeof put_).rc, -1);
	assert_int_equal(request(&up, sizeof up).rc, 0);
	assert_int_equal(request(&up, sizeof up).rc, -1);

	begin(PROFILE_SUBMISSION);
	o = request(&get, sizeof get);
	assert_int_equal(o.m.tlssession.found, 1);
	assert_int_equal(o.m.tlssession.version, 0x0303);
	assert_int_equal(o.m.tlssession.suite, 0xcca9);
	assert_memory_equal(o.m.tlssession.master, put_.master, sizeof put_.master);
	/* Another client gets nothing. */
	begin(PROFILE_SUBMISSION);
	session.client.ip[15]++;
	o = request(&get, sizeof get);
	assert_memory_equal((uint8_t *)&o.m + 4, zeros + 4, sizeof zeros - 4);
}

static void
test_login(void **state)
{
	(void)state;
	begin(PROFILE_SUBMISSION);
	world.result = RADIUS_ACCEPT;
	assert_int_equal(auth("joe@isp.example", "pass word"), V_OK);
	assert_int_equal(world.asked, 1);
	assert_string_equal(world.user, "joe@isp.example");
	assert_string_equal(world.password, "pass word");
	assert_string_equal(world.client, "192.0.2.9");
	assert_string_equal(world.called, "submission 192.0.2.1:587");
	assert_string_equal(world.nas, "mail.example.net");
	assert_int_equal(strlen(world.session), 16);
	assert_int_equal(strspn(world.session, "0123456789abcdef"), 16);
	assert_int_equal(world.slept_ms, 0);
	assert_int_equal(house.share->slot[0].loggedin, 1);
	assert_int_equal(auth("joe", "x"), -1); /* a second time */
	assert_int_equal(world.asked, 1);

	begin(PROFILE_INSIDE); /* no TLS there, no login */
	assert_int_equal(auth("joe", "x"), -1);
	assert_int_equal(world.asked, 0);
}

static void
test_refused_logins(void **state)
{
	static const int64_t delays[] = { 1, 2, 4, 8, 8, 8 };
	char name[256], password[256];

	(void)state;
	begin(PROFILE_SUBMISSION);
	for (int i = 0; i < AUTH_TRIES_MAX; i++) {
		assert_int_equal(auth("joe", "x"), V_AUTH_REFUSED);
	}
	world.result = RADIUS_ACCEPT;
	assert_int_equal(auth("joe", "x"), -1); /* though it would be right now */
	assert_int_equal(world.asked, AUTH_TRIES_MAX);
	assert_int_equal(house.share->slot[0].loggedin, 0);
	assert_int_equal(mail("a@a.example"), V_NEED_LOGIN);

	/* Each failure of an address doubles the wait, in all its sessions together; success forgives. */
	begin(PROFILE_SUBMISSION);
	for (size_t i = 0; i < COUNT(delays); i++) {
		w->auth_fails = 0; /* as another session of the client would have it */
		assert_int_equal(auth("joe", "x"), V_AUTH_REFUSED);
		assert_int_equal(world.slept_ms, delays[i] * AUTH_FAIL_DELAY_MS);
	}
	w->auth_fails = 0;
	world.result = RADIUS_ACCEPT;
	assert_int_equal(auth("joe", "x"), V_OK);
	assert_int_equal(share_fails(house.share, &session.client), 0);

	/* What RADIUS cannot carry is wrong, and counts, but nobody is asked. */
	memset(name, 'n', sizeof name);
	memset(password, 'p', sizeof password);
	name[254] = password[129] = '\0';
	begin(PROFILE_SUBMISSION);
	world.result = RADIUS_ACCEPT;
	assert_int_equal(auth(name, "x"), V_AUTH_REFUSED);
	assert_int_equal(auth("joe", password), V_AUTH_REFUSED);
	assert_int_equal(auth("", ""), V_AUTH_REFUSED);
	assert_int_equal(auth("joe", "x"), -1);
	assert_int_equal(world.asked, 0);
	begin(PROFILE_SUBMISSION);
	world.result = RADIUS_ACCEPT;
	assert_int_equal(auth("joe\n", "x"), V_AUTH_REFUSED);
	assert_int_equal(auth("\xff", "x"), V_AUTH_REFUSED);
	name[253] = password[128] = '\0';
	assert_int_equal(auth(name, password), V_OK);
	assert_string_equal(world.user, name);
	assert_string_equal(world.password, password);

	/* "Later" is no failure, but not for ever. */
	begin(PROFILE_SUBMISSION);
	world.result = RADIUS_LATER;
	for (int i = 0; i < AUTH_REQUESTS_MAX; i++) {
		assert_int_equal(auth("joe", "x"), V_AUTH_LATER);
	}
	assert_int_equal(world.slept_ms, 0);
	assert_int_equal(share_fails(house.share, &session.client), 0);
	world.result = RADIUS_ACCEPT;
	assert_int_equal(auth("joe", "x"), -1);
	assert_int_equal(world.asked, AUTH_REQUESTS_MAX);
}

#if GUESSING
/* Strangers take turns at an account that is guessed at; one who finds no turn is told "later", which is one of a session's tries. */
static void
test_turns(void **state)
{
	struct addr stranger = { .ip = { [0] = 0x20, [1] = 0x01, [15] = 1 } };

	(void)state;
	begin(PROFILE_SUBMISSION);
	for (int i = 0; i < GUESS_FAILS; i++) {
		guess_failed(house.share, "moe", &stranger);
	}
	world.result = RADIUS_REJECT;
	assert_int_equal(auth("moe", "x"), V_AUTH_REFUSED);
	assert_int_equal(world.asked, 1);
	while (guess_wait(house.share, "moe", &stranger) >= 0) {
	}
	world.result = RADIUS_ACCEPT;
	for (int i = 1; i < AUTH_TRIES_MAX; i++) {
		assert_int_equal(auth("moe", "x"), V_AUTH_TURN);
	}
	assert_int_equal(w->auth_fails, AUTH_TRIES_MAX);
	assert_int_equal(auth("moe", "x"), -1);
	assert_int_equal(world.asked, 1);
	assert_int_equal(house.share->slot[0].loggedin, 0);

	/* The owner at home, who has logged in from there before, neither waits nor is refused. */
	guess_went_well(house.share, "moe", &session.client);
	begin(PROFILE_SUBMISSION);
	world.result = RADIUS_ACCEPT;
	assert_int_equal(auth("moe", "x"), V_OK);
	assert_int_equal(world.slept_ms, 0);
}
#endif

static void
test_notes(void **state)
{
	static const struct {
		uint32_t kind;
		const char *why; /* the session's end, "eof" while nothing else was told; NULL: refused */
	} t[] = {
		{ NOTE_QUIT, "quit" },
		{ NOTE_EOF, "eof" },
		{ NOTE_TIMEOUT, "timeout" },
		{ NOTE_BARE_LINE_END, "bare-line-end" },
		{ NOTE_LOOP, "eof" },
		{ NOTE_AUTH_MALFORMED, "eof" },
		{ 0, NULL },
		{ NOTE_COUNT, NULL },
		{ UINT32_MAX, NULL },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		struct msg_note m = { .type = MSG_NOTE, .kind = t[i].kind, .number = INT64_MIN };

		begin(PROFILE_SMTP);
		assert_int_equal(request(&m, sizeof m).rc, t[i].why == NULL ? -1 : 0);
		assert_string_equal(warden_why(w), t[i].why == NULL ? "eof" : t[i].why);
		for (int n = 0; t[i].why != NULL && n < 1000; n++) {
			assert_int_equal(request(&m, sizeof m).rc, 0);
		}
	}
	for (uint32_t kind = 1; kind < NOTE_COUNT; kind++) {
		struct msg_note m = { .type = MSG_NOTE, .kind = kind };

		assert_int_equal(request(&m, sizeof m).rc, 0);
		assert_non_null(warden_why(w));
	}
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gate),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_controls),
		cmocka_unit_test(test_sign),
		cmocka_unit_test(test_tls_sessions),
		cmocka_unit_test(test_login),
		cmocka_unit_test(test_refused_logins),
#if GUESSING
		cmocka_unit_test(test_turns),
#endif
		cmocka_unit_test(test_notes),
	};

	return cmocka_run_group_tests(tests, setup_warden, teardown_warden);
}
