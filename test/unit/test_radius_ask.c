/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Asking RADIUS servers: radius_ask() of radius.c, and what radhosts.c knows of them, against responders in threads.
 * LDFLAGS: -Wl,--wrap=mono_ms,--wrap=poll,--wrap=malloc
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "radserver.h"

static unsigned malloc_fails_at; /* counts down; the call that finds it at 1 fails */

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *
__wrap_malloc(size_t size)
{
	return malloc_fails_at > 0 && --malloc_fails_at == 0 ? NULL : __real_malloc(size);
}

static void
assert_attr(const uint8_t *p, size_t len, int type, const void *value, size_t value_len)
{
	const uint8_t *a = pkt_find(p, len, type, 0);

	assert_got(a);
	assert_int_equal(a[1], value_len + 2);
	assert_memory_equal(a + 2, value, value_len);
	assert_null(pkt_find(p, len, type, 1));
}

/* The request, octet by octet: what is in it, once each, sealed. */
static void
assert_request(const uint8_t *p, size_t len, const char *secret)
{
	static uint8_t copy[RADIUS_PACKET_MAX];
	uint8_t mac[16];
	unsigned n = 0;

	assert_int_equal(p[0], ACCESS_REQUEST);
	assert_int_equal(p[2] << 8 | p[3], len);
	assert_int_equal(p[20], MA); /* first */
	assert_int_equal(p[21], 18);
	assert_null(pkt_find(p, len, MA, 1));
	memcpy(copy, p, len);
	memset(copy + 22, 0, 16);
	pkt_hmac(mac, copy, len, secret);
	assert_memory_equal(mac, p + 22, 16);
	assert_attr(p, len, 1, query.user, strlen(query.user));
	assert_attr(p, len, 4, "\x7f\0\0\x01", 4);
	assert_attr(p, len, 6, "\0\0\0\x01", 4);
	assert_attr(p, len, 30, query.called, strlen(query.called));
	assert_attr(p, len, 31, query.client, strlen(query.client));
	assert_attr(p, len, 32, query.nas, strlen(query.nas));
	assert_attr(p, len, 44, query.session, strlen(query.session));
	assert_attr(p, len, 61, "\0\0\0\x05", 4);
	for (size_t i = 20; i < len; i += p[i + 1]) {
		assert_in_range(p[i + 1], 3, len - i);
		n++;
	}
	assert_int_equal(n, 10); /* with User-Password, and nothing else */
}

/* RFC 2865 5.2, backwards. */
static void
assert_password(const uint8_t *p, size_t len, const char *secret, const char *password)
{
	const uint8_t *a = pkt_find(p, len, 2, 0), *c = p + 4;
	uint8_t plain[128] = { 0 };
	size_t n = strlen(password);

	assert_got(a);
	assert_null(pkt_find(p, len, 2, 1));
	assert_int_equal(a[1], 2 + (n + 15) / 16 * 16);
	for (size_t i = 0; i + 2 < a[1]; i += 16) {
		br_md5_context mc;
		uint8_t b[16];

		br_md5_init(&mc);
		br_md5_update(&mc, secret, strlen(secret));
		br_md5_update(&mc, c, 16);
		br_md5_out(&mc, b);
		for (size_t k = 0; k < 16; k++) {
			plain[i + k] = a[2 + i + k] ^ b[k];
		}
		c = a + 2 + i;
	}
	assert_memory_equal(plain, password, n);
	while (n < a[1] - 2U) {
		assert_int_equal(plain[n++], 0);
	}
}

static void
test_request(void **state)
{
	struct radius_answer a;

	(void)state;
	servers[0].message = "welcome";
	start("a|a|", NULL);
	a = ask();
	assert_int_equal(a.result, RADIUS_ACCEPT);
	assert_int_equal(a.trouble, RADIUS_OK);
	assert_int_equal(a.server, 0);
	assert_int_equal(a.sent, 1);
	assert_int_equal(a.dropped, 0);
	assert_int_equal(a.service, -1);
	assert_null(a.why);
	assert_string_equal(a.message, "welcome");
	assert_string_equal(logged, "");
	ask();
	stop();
	for (unsigned i = 0; i < 2; i++) {
		assert_request(servers[0].req[i], servers[0].len[i], SECRET);
		assert_password(servers[0].req[i], servers[0].len[i], SECRET, PASSWORD);
	}
	/* A new login, a new authenticator. */
	assert_int_equal(servers[0].n, 2);
	assert_memory_not_equal(servers[0].req[0] + 4, servers[0].req[1] + 4, 16);
}

#if RADIUS_KEEPS

/* Class and what limits a login come out of an accept as they were, and out of nothing else. */
static void
test_kept(void **state)
{
	static const uint8_t more[] =
	    "\x19\x05"
	    "abc" /* Class */
	    "\x0b\x0c"
	    "mail:day=2"                                               /* Filter-Id */
	    "\x1a\x0c\0\0\xff\xfa\x01\x06\0\0\0\x07"                   /* ours */
	    "\x1a\x0c\0\0\xff\xfb\x01\x06\0\0\0\x07"                   /* another vendor's */
	    "\x1a\x05\0\0\xff"                                         /* nobody's */
	    "\x0d\x06\0\0\0\x01"                                       /* Framed-Compression */
	    "\x1b\x06\0\0\x02\x58\x1c\x06\0\0\0\x3c\x3e\x06\0\0\0\x02" /* timeouts, Port-Limit */
	    "\x19\x03\0";                                              /* Class again */
	static const uint8_t policy[] = "\x0b\x0c"
					"mail:day=2"
					"\x1a\x0c\0\0\xff\xfa\x01\x06\0\0\0\x07"
					"\x1b\x06\0\0\x02\x58\x1c\x06\0\0\0\x3c\x3e\x06\0\0\0\x02";
	uint8_t many[3 * 255];
	struct radius_answer a;

	(void)state;
	servers[0].more = more;
	servers[0].more_len = sizeof more - 1;
	start("wa|mr|r|", NULL);
	a = ask();
	assert_int_equal(a.result, RADIUS_ACCEPT);
	assert_int_equal(a.class.len, 8);
	assert_memory_equal(a.class.attributes,
	    "\x19\x05"
	    "abc\x19\x03",
	    8);
	assert_int_equal(a.policy.len, sizeof policy - 1);
	assert_memory_equal(a.policy.attributes, policy, sizeof policy - 1);
	assert_int_equal(a.class.lost + a.policy.lost, 0);
	for (int i = 0; i < 2; i++) {
		a = ask();
		assert_int_equal(a.result, RADIUS_REJECT);
		assert_int_equal(a.class.len + a.class.lost + a.policy.len + a.policy.lost, 0);
	}
	stop();
	/* What there is no room for is left out whole, and that is told. */
	for (unsigned i = 0; i < 3; i++) {
		memset(many + i * 255U, 'a' + (int)i, 255);
		many[i * 255U] = i == 2 ? 25 : 11;
		many[i * 255U + 1] = 255;
	}
	clear(state);
	servers[0].more = many;
	servers[0].more_len = sizeof many;
	start("a|a|", NULL);
	a = ask();
	assert_int_equal(a.policy.len, 510);
	assert_int_equal(a.policy.lost + a.class.lost, 0);
	assert_int_equal(a.class.len, 255);
	many[510] = 11;
	a = ask();
	assert_int_equal(a.policy.len, 510);
	assert_int_equal(a.policy.lost, 1);
	assert_memory_equal(a.policy.attributes, many, 510);
	assert_int_equal(a.class.len, 0);
	stop();
}

#endif

static void
test_passwords(void **state)
{
	static const size_t lengths[] = { 1, 15, 16, 17, 112, 113, 128 };
	static const size_t secret_lengths[] = { 1, 97, 128 };
	char password[129], secret[129], user[254];

	(void)state;
	memset(user, 'u', 253);
	user[253] = '\0';
	for (size_t s = 0; s < COUNT(secret_lengths); s++) {
		memset(servers, 0, sizeof servers);
		memset(secret, 's', sizeof secret);
		secret[secret_lengths[s]] = '\0';
		servers[0].secret = secret;
		start("a|r|a|r|a|r|a|", NULL);
		query.user = user;
		for (size_t i = 0; i < COUNT(lengths); i++) {
			for (size_t k = 0; k < lengths[i]; k++) {
				password[k] = (char)(0x80 + k);
			}
			password[lengths[i]] = '\0';
			query.password = password;
			assert_int_equal(ask().result, i % 2 == 0 ? RADIUS_ACCEPT : RADIUS_REJECT);
		}
		stop();
		assert_int_equal(servers[0].n, COUNT(lengths));
		for (size_t i = 0; i < COUNT(lengths); i++) {
			memset(password, 0, sizeof password);
			for (size_t k = 0; k < lengths[i]; k++) {
				password[k] = (char)(0x80 + k);
			}
			assert_request(servers[0].req[i], servers[0].len[i], secret);
			assert_password(servers[0].req[i], servers[0].len[i], secret, password);
		}
	}
}

static void
test_outcomes(void **state)
{
	static const struct {
		const char *program, *service;
		size_t service_len;
		int unsigned_ok;
		enum radius_result result;
		enum radius_trouble trouble;
		unsigned dropped;
		int why; /* it is our own reject */
	} t[] = {
		{ "a|", NULL, 0, 0, RADIUS_ACCEPT, RADIUS_OK, 0, 0 },
		{ "r|", NULL, 0, 0, RADIUS_REJECT, RADIUS_OK, 0, 0 },
		{ "c|", NULL, 0, 0, RADIUS_REJECT, RADIUS_OK, 0, 1 },
		{ "a|", "\0\0\0\x01", 4, 0, RADIUS_ACCEPT, RADIUS_OK, 0, 0 },
		{ "a|", "\0\0\0\x02", 4, 0, RADIUS_REJECT, RADIUS_OK, 0, 1 },
		{ "a|", "\0\0\0\x06", 4, 0, RADIUS_REJECT, RADIUS_OK, 0, 1 },
		{ "a|", "\0\0\0\0", 4, 0, RADIUS_REJECT, RADIUS_OK, 0, 1 },
		{ "a|", "\0\0\0\x63", 4, 0, RADIUS_REJECT, RADIUS_OK, 0, 1 },
		{ "a|", "\xff\xff\xff\xff", 4, 0, RADIUS_REJECT, RADIUS_OK, 0, 1 },
		{ "a|", "\0\0\x01", 3, 0, RADIUS_REJECT, RADIUS_OK, 0, 1 },
		{ "a|", "", 0, 0, RADIUS_REJECT, RADIUS_OK, 0, 1 },
		{ "u|", NULL, 0, 1, RADIUS_ACCEPT, RADIUS_OK, 0, 0 },
		{ "U|", NULL, 0, 1, RADIUS_REJECT, RADIUS_OK, 0, 0 },
		/* what is not good is as if it had not come */
		{ "g0iwuUma|", NULL, 0, 0, RADIUS_ACCEPT, RADIUS_OK, 7, 0 },
		{ "g0iwuUmr|", NULL, 0, 0, RADIUS_REJECT, RADIUS_OK, 7, 0 },
		{ "xxxr|", NULL, 0, 0, RADIUS_REJECT, RADIUS_OK, 0, 0 }, /* of other senders nothing is seen */
		{ "mwr|", NULL, 0, 1, RADIUS_REJECT, RADIUS_OK, 2, 0 },
		{ "x|", NULL, 0, 0, RADIUS_LATER, RADIUS_NO_ANSWER, 0, 0 },
		{ "gi0|", NULL, 0, 0, RADIUS_LATER, RADIUS_NO_ANSWER, 3, 0 },
		{ "w|", NULL, 0, 0, RADIUS_LATER, RADIUS_WRONG_SECRET, 1, 0 },
		{ "m|", NULL, 0, 1, RADIUS_LATER, RADIUS_WRONG_SECRET, 1, 0 },
		{ "uU|", NULL, 0, 0, RADIUS_LATER, RADIUS_UNSIGNED, 2, 0 },
		{ "|", NULL, 0, 0, RADIUS_LATER, RADIUS_NO_ANSWER, 0, 0 },
	};
	static const char *const words[] = { "", "trouble=no-answer", "trouble=wrong-secret", "trouble=unsigned" };

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		struct radius_answer a;

		memset(servers, 0, sizeof servers);
		servers[0].service = t[i].service;
		servers[0].service_len = t[i].service_len;
		start(t[i].program, NULL);
		rc.server[0].unsigned_ok = t[i].unsigned_ok;
		if (t[i].result == RADIUS_LATER) {
			/* A tenth of that in truth: the server's thread may be late to say what is no answer. */
			rc.server[0].timeout = t[i].dropped > 0 ? 5 : 1;
		}
		a = ask();
		stop();
		if (a.result != t[i].result || a.trouble != t[i].trouble || a.dropped != t[i].dropped ||
		    (a.why != NULL) != t[i].why) {
			fail_msg("row %zu: result %d trouble %d dropped %u why %s", i, a.result, a.trouble, a.dropped,
			    a.why);
		}
		assert_int_equal(a.sent, 1);
		assert_int_equal(a.server, t[i].result == RADIUS_LATER ? -1 : 0);
		assert_int_equal(sh->radius[0].dead_until > 0, t[i].result == RADIUS_LATER);
		assert_has(logged, words[t[i].trouble]);
		if (t[i].result == RADIUS_LATER) {
			assert_has(logged, "server=radius.test:");
			assert_in_range(
			    a.ms, 900, RADIUS_DEADLINE * 1000); /* one second or more was configured, less a tenth */
		}
	}
}

/* Memory that runs out is no answer of the server's: "later", never "no", and no half a request. */
static void
test_no_memory(void **state)
{
	int failed;

	(void)state;
	start("a|", NULL);
	for (unsigned n = 1;; n++) {
		struct radius_answer a;

		malloc_fails_at = n;
		a = ask();
		failed = malloc_fails_at == 0;
		malloc_fails_at = 0;
		assert_int_equal(a.result, failed ? RADIUS_LATER : RADIUS_ACCEPT);
		sh->radius[0].dead_until = 0;
		if (!failed) {
			assert_in_range(n, 10, 30); /* ten attributes */
			break;
		}
	}
	stop();
	assert_int_equal(servers[0].n, 1);
}

/* The same packet again, while nothing comes back. */
static void
test_repeats(void **state)
{
	struct radius_answer a;

	(void)state;
	start("||a|", NULL);
	rc.server[0].timeout = 1;
	rc.server[0].retries = 3;
	a = ask();
	stop();
	assert_int_equal(a.result, RADIUS_ACCEPT);
	assert_int_equal(a.sent, 3);
	assert_in_range(a.ms, 900 + 1800, RADIUS_DEADLINE * 1000); /* waits of 1 and 2 s, with jitter */
	assert_int_equal(servers[0].n, 3);
	for (unsigned i = 1; i < 3; i++) {
		assert_int_equal(servers[0].len[i], servers[0].len[0]);
		assert_memory_equal(servers[0].req[i], servers[0].req[0], servers[0].len[0]);
	}
}

static void
test_deadline(void **state)
{
	struct radius_answer a;

	(void)state;
	start("||||||", "||||||");
	for (unsigned i = 0; i < 2; i++) {
		rc.server[i].timeout = 60;
		rc.server[i].retries = 10;
	}
	a = ask();
	assert_int_equal(a.result, RADIUS_LATER);
	assert_in_range(a.ms, RADIUS_DEADLINE * 1000 - 500, RADIUS_DEADLINE * 1000 + 9000);
	/* Once all are known to be dead, a third of that. */
	a = ask();
	assert_int_equal(a.result, RADIUS_LATER);
	assert_in_range(a.ms, RADIUS_DEADLINE * 1000 / 3 - 500, RADIUS_DEADLINE * 1000 / 3 + 9000);
	stop();
	assert_int_equal(servers[0].n + servers[1].n, 4);
}

static void
test_next_server(void **state)
{
	struct radius_answer a;
	int port;

	(void)state;
	start("a|a|", "a|r|a|a|");
	port = rc.server[0].port;
	/* Nobody listens on the first one's port: after the ICMP error its wait is the last one. */
	rc.server[0].port = 9;
	rc.server[0].timeout = 2;
	rc.server[0].retries = 10;
	a = ask();
	assert_int_equal(a.result, RADIUS_ACCEPT);
	assert_int_equal(a.server, 1);
	assert_in_range(a.ms, 1800, 10000);
	assert_has(logged, " sent=1 ");
	assert_has(logged, "trouble=network");
	assert_has(logged, "error=\"Connection refused\"");
	assert_true(sh->radius[0].dead_until > mono_ms());
	assert_int_equal(sh->radius[1].dead_until, 0);
	assert_int_equal(atomic_load(&sh->radius_good), 1);
	/* The one that answered is asked first, though the other is back; and a reject ends it. */
	rc.server[0].port = (uint16_t)port;
	sh->radius[0].dead_until = 0;
	a = ask();
	assert_int_equal(a.result, RADIUS_REJECT);
	assert_int_equal(a.server, 1);
	/* When it is dead the other comes first, */
	sh->radius[1].dead_until = mono_ms() + 60000;
	a = ask();
	assert_int_equal(a.server, 0);
	assert_int_equal(atomic_load(&sh->radius_good), 0);
	/* and stays there after the dead time, */
	sh->radius[1].dead_until = mono_ms();
	a = ask();
	assert_int_equal(a.server, 0);
	/* unless it does not answer; success brings the dead one back to life. */
	rc.server[0].port = 9;
	sh->radius[1].dead_until = mono_ms() + 60000;
	a = ask();
	assert_int_equal(a.server, 1);
	assert_int_equal(sh->radius[1].dead_until, 0);
	stop();
	assert_int_equal(servers[0].n, 2);
	assert_int_equal(servers[1].n, 3);
}

/* What one request's silence says of a server that answered another one meanwhile: nothing. */
static void
test_not_dead(void **state)
{
	int64_t before;

	(void)state;
	start("||a|", NULL);
	rc.server[0].timeout = 1;
	before = mono_ms();
	sh->radius[0].answered = before + 500; /* by another session, in the time of our wait */
	assert_int_equal(ask().result, RADIUS_LATER);
	assert_int_equal(sh->radius[0].dead_until, 0);
	sh->radius[0].answered = before - 1;
	assert_int_equal(ask().result, RADIUS_LATER);
	assert_true(sh->radius[0].dead_until > mono_ms());
	before = mono_ms();
	assert_int_equal(ask().result, RADIUS_ACCEPT);
	assert_int_equal(sh->radius[0].dead_until, 0);
	assert_true(sh->radius[0].answered >= before);
	stop();
}

/* Ten lines about a server in ten seconds; the next one has the number of the others. */
static void
test_log_limit(void **state)
{
	unsigned lines = 0;

	(void)state;
	start(NULL, NULL);
	rc.servers = 1; /* and its name is not resolved */
	for (int i = 0; i < 25; i++) {
		assert_int_equal(ask().result, RADIUS_LATER);
		lines += logged[0] != '\0';
	}
	assert_int_equal(lines, 10);
	assert_int_equal(sh->radius[0].untold, 15);
	sh->radius[0].told -= 10000;
	ask();
	assert_has(logged, " untold=15 ");
	ask();
	assert_has(logged, "trouble=no-address");
	assert_lacks(logged, "untold");
	stop();
}

/* gcc 12's analyser loses sight of a struct that a function has returned. */
#pragma GCC diagnostic push
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wanalyzer-use-of-uninitialized-value"
#endif
static void
test_names(void **state)
{
	struct radius_addresses found = { { { { 0 } } } };
	struct radius_answer a;

	(void)state;
	start("a|a|", NULL);
	rc.server[0].numeric = 0;
	a = ask();
	assert_int_equal(a.result, RADIUS_LATER);
	assert_int_equal(a.trouble, RADIUS_NO_ADDRESS);
	assert_int_equal(a.sent, 0);
	assert_has(logged, "trouble=no-address");
	found.addr[0] = rc.server[0].addr;
	/* Addresses for another radius.conf are not ours. */
	radius_set_addresses(sh, 4, &found);
	assert_int_equal(ask().trouble, RADIUS_NO_ADDRESS);
	radius_set_addresses(sh, 5, &found);
	assert_int_equal(ask().result, RADIUS_ACCEPT);
	memset(&found, 0, sizeof found);
	radius_set_addresses(sh, 5, &found); /* looked up in vain: the old one stays */
	assert_int_equal(ask().result, RADIUS_ACCEPT);
	/* Nor is what was marked under another radius.conf. */
	sh->radius_generation = 6;
	sh->radius[0].dead_until = 0;
	assert_int_equal(ask().trouble, RADIUS_NO_ADDRESS);
	assert_int_equal(sh->radius[0].dead_until, 0);
	stop();

	strcpy(rc.server[0].name, "localhost");
	if (radius_resolve(&rc, &found) == 0) {
		assert_true(found.addr[0].ip[15] == 1);
	}
	strcpy(rc.server[0].name, "name.invalid");
	assert_int_equal(radius_resolve(&rc, &found), -1);
	assert_int_equal(found.addr[0].ip[15], 0);
	rc.servers = 0;
	a = ask();
	assert_int_equal(a.result, RADIUS_LATER);
	assert_int_equal(a.trouble, RADIUS_NO_SERVERS);
}
#pragma GCC diagnostic pop

static void
test_ipv6(void **state)
{
	static struct responder probe = { .v6 = 1 };

	(void)state;
	if (bind_responder(&probe) == -1) {
		skip(); /* no IPv6 here */
	}
	close(probe.fd);
	servers[0].v6 = 1;
	start("a|", NULL);
	query.session = ""; /* an empty text is left out, not sent empty */
	assert_int_equal(ask().result, RADIUS_ACCEPT);
	stop();
	assert_attr(servers[0].req[0], servers[0].len[0], 95, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01", 16);
	assert_null(pkt_find(servers[0].req[0], servers[0].len[0], 4, 0));
	assert_null(pkt_find(servers[0].req[0], servers[0].len[0], 44, 0));
}

static void
test_messages(void **state)
{
	static const struct {
		const char *sent, *kept;
	} t[] = {
		{ "no\nev=forged", "no" },
		{ "", "" },
		{ "\xff\x01 odd", "\xff\x01 odd" },
	};
	char longest[254];
	struct radius_answer a;

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		memset(servers, 0, sizeof servers);
		servers[0].message = t[i].sent;
		start("r|", NULL);
		a = ask();
		stop();
		assert_string_equal(a.message, t[i].kept);
	}
	memset(servers, 0, sizeof servers);
	memset(longest, 'x', 253);
	longest[253] = '\0';
	servers[0].message = longest;
	start("r|", NULL);
	a = ask();
	stop();
	assert_int_equal(strlen(a.message), sizeof a.message - 1);
}

static int
setup(void **state)
{
	sh = share_open(-1);
	log_open(LOG_TO_STDERR);
	return sh == NULL ? -1 : make_dir(state);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_request, clear),
#if RADIUS_KEEPS
		cmocka_unit_test_setup(test_kept, clear),
#endif
		cmocka_unit_test_setup(test_passwords, clear),
		cmocka_unit_test_setup(test_outcomes, clear),
		cmocka_unit_test_setup(test_no_memory, clear),
		cmocka_unit_test_setup(test_repeats, clear),
		cmocka_unit_test_setup(test_deadline, clear),
		cmocka_unit_test_setup(test_next_server, clear),
		cmocka_unit_test_setup(test_not_dead, clear),
		cmocka_unit_test_setup(test_log_limit, clear),
		cmocka_unit_test_setup(test_names, clear),
		cmocka_unit_test_setup(test_ipv6, clear),
		cmocka_unit_test_setup(test_messages, clear),
	};

	return cmocka_run_group_tests(tests, setup, remove_dir);
}
