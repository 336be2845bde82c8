/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* Who may relay to whom: policy.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cdbmake.h"
#include "policy.h"
#include "unit.h"

static uint8_t image[8192];
static struct config config;

static void
set_rules(const struct cdb_pair *pairs, size_t n)
{
	config.rules.map = image;
	config.rules.len = cdbmake(image, pairs, n);
}

static struct policy_client
ask(const char *ip, const char *info, const char *host)
{
	struct policy_client out;
	struct addr a;

	assert_int_equal(addr_parse(&a, ip, strlen(ip)), 0);
	memset(&out, 0xee, sizeof out);
	policy_client(&config, &a, info, host, &out);
	return out;
}

/* The keys of qmail-spec 7.2 in their order for joe@10.1.2.3 (mail.ex.org); each rule gives its own number as DATABYTES. */
static void
test_order(void **state)
{
	static const char *const keys[] = { "joe@10.1.2.3", "joe@=mail.ex.org", "10.1.2.3", "=mail.ex.org", "10.1.2.",
		"10.1.", "10.", "=.ex.org", "=.org", "=", "" };
	static const char needs[COUNT(keys)] = { 1, 3, 0, 2, 0, 0, 0, 2, 2, 2, 0 }; /* 1: info, 2: host */
	static char data[COUNT(keys)][32];
	struct cdb_pair pairs[COUNT(keys)];

	(void)state;
	for (size_t i = 0; i < COUNT(keys); i++) {
		snprintf(data[i], sizeof data[i], "+DATABYTES=%zu", 100 + i);
		/* In the file the order is turned round, so that it cannot help. */
		pairs[COUNT(keys) - 1 - i] =
		    (struct cdb_pair){ keys[i], strlen(keys[i]), data[i], strlen(data[i]) + 1 };
	}
	for (int with = 0; with < 4; with++) {
		const char *info = with & 1 ? "joe" : NULL, *host = with & 2 ? "mail.ex.org" : NULL;

		/* With the keys from i on, the first one that can be asked for wins; no rule is merged into it. */
		for (size_t i = 0; i <= COUNT(keys); i++) {
			size_t want = i;

			set_rules(pairs, COUNT(keys) - i);
			while (want < COUNT(keys) && (needs[want] & ~with) != 0) {
				want++;
			}
			assert_int_equal(ask("10.1.2.3", info, host).databytes, want < COUNT(keys) ? 100 + want : 7);
		}
	}
	/* Prefixes end in a dot or colon; nothing else is cut. */
	set_rules(
	    (struct cdb_pair[]){ { S("10.1.2"), S("D\0") }, { S("10"), S("D\0") }, { S("=ex.org"), S("D\0") } }, 3);
	assert_int_equal(ask("10.1.2.3", NULL, "mail.ex.org").deny, 0);
	set_rules((struct cdb_pair[]){ { S("2001:db8:"), S("D\0") }, { S("::"), S("D\0") } }, 2);
	assert_int_equal(ask("2001:db8::1", NULL, NULL).deny, 1);
	assert_int_equal(ask("2001:db9::1", NULL, NULL).deny, 0);
	assert_int_equal(ask("::1", NULL, NULL).deny, 1);
}

#define X60 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

static void
test_instructions(void **state)
{
	static const struct {
		const char *data;
		size_t len;
		int deny, relay;
		const char *append;
		uint64_t databytes;
	} t[] = {
		{ S(""), 0, 0, "", 7 },
		{ S("D\0"), 1, 0, "", 7 },
		{ S("D"), 1, 0, "", 7 },
		{ S("+RELAYCLIENT=\0"), 0, 1, "", 7 },
		{ S("+RELAYCLIENT=@fix.example\0"), 0, 1, "@fix.example", 7 },
		{ S("+FOO=bar\0+RELAYCLIENT=\0+DATABYTES=1000\0"), 0, 1, "", 1000 },
		{ S("+DATABYTES=0\0"), 0, 0, "", 0 },
		{ S("D\0+RELAYCLIENT=\0"), 1, 1, "", 7 },
		/* what is malformed gives nothing */
		{ S("+RELAYCLIENT="), 0, 0, "", 7 }, /* not ended */
		{ S("+RELAYCLIENT\0"), 0, 0, "", 7 },
		{ S("RELAYCLIENT=\0"), 0, 0, "", 7 },
		{ S("+relayclient=\0"), 0, 0, "", 7 },
		{ S("+XRELAYCLIENT=\0"), 0, 0, "", 7 },
		{ S("+RELAYCLIENT=" X60 "xxx\0"), 0, 1, X60 "xxx", 7 },
		{ S("+RELAYCLIENT=" X60 "xxxx\0"), 0, 0, "", 7 }, /* longer than can be kept */
		/* The longer one must not take the text of the other and leave its right. */
		{ S("+RELAYCLIENT=@fix.example\0+RELAYCLIENT=" X60 "xxxx\0"), 0, 0, "", 7 },
		{ S("+DATABYTES=\0"), 0, 0, "", 7 },
		{ S("+DATABYTES=1M\0"), 0, 0, "", 7 },
		{ S("+DATABYTES=-1\0"), 0, 0, "", 7 },
		{ S("+DATABYTES=99999999999999999999\0"), 0, 0, "", 7 },
		{ S("\0\0\0+RELAYCLIENT=\0"), 0, 1, "", 7 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		struct cdb_pair pair = { S("192.0.2.1"), t[i].data, t[i].len };
		struct policy_client p;

		set_rules(&pair, 1);
		p = ask("192.0.2.1", NULL, NULL);
		if (p.deny != t[i].deny || p.relay != t[i].relay || p.databytes != t[i].databytes) {
			fail_msg("row %zu: deny %d relay %d databytes %d", i, p.deny, p.relay, (int)p.databytes);
		}
		assert_string_equal(p.append, t[i].append);
		p = ask("192.0.2.2", NULL, NULL);
		assert_int_equal(p.deny + p.relay, 0);
	}
}

/* info and host as long as a remote end can make them. */
static void
test_long_names(void **state)
{
	static char longest[2000];

	(void)state;
	set_rules((struct cdb_pair[]){ { S("192.0.2.1"), S("+RELAYCLIENT=\0") }, { S("="), S("D\0") } }, 2);
	memset(longest, 'x', sizeof longest - 1);
	assert_int_equal(ask("192.0.2.1", longest, longest).relay, 1);
	memset(longest, '.', sizeof longest - 1);
	ask("192.0.2.9", longest, longest);
	longest[250] = '\0';
	assert_int_equal(ask("192.0.2.9", longest, longest).deny, 1);
}

static void
test_damaged_rules(void **state)
{
	struct cdb_pair pairs[] = { { S("10."), S("+RELAYCLIENT=\0") }, { S("10.1."), S("+RELAYCLIENT=x\0") } };
	size_t len;

	(void)state;
	set_rules(pairs, 2);
	len = config.rules.len;
	assert_int_equal(ask("10.1.2.3", NULL, NULL).relay, 1);
	/* The record of 10.1. claims to be longer than the file: its neighbour may not stand in for it. */
	cdbmake_put32(image + 2048 + 8 + 3 + 14 + 4, len);
	assert_int_equal(ask("10.1.2.3", NULL, NULL).relay, 0);
	assert_int_equal(ask("10.2.2.3", NULL, NULL).relay, 1);
	/* Whatever octet is damaged: a client that is in no rule does not relay. */
	set_rules(pairs, 2);
	for (size_t i = 0; i < len; i++) {
		uint8_t was = image[i];

		for (unsigned bit = 0; bit < 8; bit++) {
			image[i] = (uint8_t)(was ^ 1U << bit);
			if (cdb_check(&config.rules) == 0) {
				assert_int_equal(ask("192.0.2.1", NULL, NULL).relay, 0);
			}
		}
		image[i] = was;
	}
	/* What config_load() makes of a file it cannot use. */
	config.rules.map = NULL;
	assert_int_equal(ask("10.1.2.3", NULL, NULL).relay, 0);
	assert_int_equal(ask("10.1.2.3", NULL, NULL).databytes, 7);
}

static void
test_relayclients(void **state)
{
	struct addr_block blocks[2];

	(void)state;
	config.rules.map = NULL;
	assert_int_equal(addr_block_parse(&blocks[0], S("192.0.2.0/25")), 0);
	assert_int_equal(addr_block_parse(&blocks[1], S("2001:db8::/32")), 0);
	config.relayclients = blocks;
	config.relayclients_n = 2;
	assert_int_equal(ask("192.0.2.127", NULL, NULL).relay, 1);
	assert_int_equal(ask("192.0.2.128", NULL, NULL).relay, 0);
	assert_int_equal(ask("2001:db8:ffff::1", NULL, NULL).relay, 1);
	assert_string_equal(ask("2001:db8:ffff::1", NULL, NULL).append, "");
	config.relayclients = NULL;
	config.relayclients_n = 0;
}

/* A list as config_load() makes it: lower case, sorted. */
static char *rcpthosts[] = { (char[]){ ".sub.example" }, (char[]){ "[192.0.2.1]" }, (char[]){ "a.example" } };
static char *badmailfrom[] = { (char[]){ "@bad.example" }, (char[]){ "spam@a.example" } };

/* Leave names that are listed where a search that runs past the end of an address would find them. */
static __attribute__((noinline)) void
dirty_stack(size_t shift)
{
	static const char name[] = "y.sub.example";
	volatile char mem[4096];

	for (size_t i = 0; i < sizeof mem; i++) {
		mem[i] = name[(i + shift) % sizeof name];
	}
}

static void
test_rcpthosts(void **state)
{
	static const struct {
		const char *addr;
		int ok, more; /* without and with morercpthosts.cdb */
	} t[] = {
		{ "x@a.example", 1, 1 },
		{ "x@A.EXAMPLE", 1, 1 },
		{ "x@evil.example@a.example", 1, 1 },
		{ "x@a.example@evil.example", 0, 0 },
		{ "x@sub.example", 0, 0 },
		{ "x@y.sub.example", 1, 1 },
		{ "x@z.Y.Sub.Example", 1, 1 },
		{ "x@ysub.example", 0, 0 },
		{ "x@b.a.example", 0, 0 },
		{ "x@a.example.", 0, 0 },
		{ "x@a.example.evil.example", 0, 0 },
		{ "x@[192.0.2.1]", 1, 1 },
		{ "x@more.example", 0, 1 },
		{ "x@MORE.example", 0, 1 },
		{ "x@y.deep.example", 0, 1 },
		{ "x@deep.example", 0, 0 },
		{ "x@", 0, 0 },
		{ "x", 0, 0 },
		{ "", 0, 0 },
		{ "@a.example", 1, 1 },
	};
	char longest[SMTP_DOMAIN_MAX + 3];

	(void)state;
	config.rcpthosts.v = rcpthosts;
	config.rcpthosts.n = COUNT(rcpthosts);
	config.morercpthosts.len =
	    cdbmake(image, (struct cdb_pair[]){ { S("more.example"), S("") }, { S(".deep.example"), S("") } }, 2);
	memset(longest, 'x', sizeof longest - 1);
	memcpy(longest, "x@", 2);
	longest[sizeof longest - 1] = '\0';
	for (int more = 0; more < 2; more++) {
		config.morercpthosts.map = more ? image : NULL;
		config.have_rcpthosts = 1;
		for (size_t i = 0; i < COUNT(t); i++) {
			if (policy_rcpthost(&config, t[i].addr) != (more ? t[i].more : t[i].ok)) {
				fail_msg("%s", t[i].addr);
			}
		}
		assert_int_equal(policy_rcpthost(&config, longest), 0);
		for (size_t shift = 0; shift < 16; shift++) {
			dirty_stack(shift);
			assert_int_equal(policy_rcpthost(&config, "x@"), 0);
		}
		/* Without rcpthosts, or with one that cannot be read, nothing is taken. */
		config.have_rcpthosts = 0;
		for (size_t i = 0; i < COUNT(t); i++) {
			assert_int_equal(policy_rcpthost(&config, t[i].addr), 0);
		}
	}
	/* An empty list takes nothing either, and a damaged file adds nothing. */
	config.have_rcpthosts = 1;
	config.rcpthosts.n = 0;
	assert_int_equal(policy_rcpthost(&config, "x@a.example"), 0);
	cdbmake_put32(image + 2048, 0x7fffffff);
	assert_int_equal(policy_rcpthost(&config, "x@more.example"), 0);
}

static void
test_senders(void **state)
{
	static const struct {
		const char *addr;
		int bad, qualified;
	} t[] = {
		{ "spam@a.example", 1, 1 },
		{ "SPAM@A.example", 1, 1 },
		{ "ham@a.example", 0, 1 },
		{ "anyone@bad.example", 1, 1 },
		{ "anyone@BAD.Example", 1, 1 },
		{ "anyone@sub.bad.example", 0, 1 },
		{ "bad.example", 0, 0 },
		{ "a@bad.example@good.example", 0, 1 },
		{ "", 0, 0 },
		{ "a@localhost", 0, 0 },
		{ "a@", 0, 0 },
		{ "a@.example", 0, 0 },
		{ "a@example.", 0, 0 },
		{ "a@b.c", 0, 1 },
		{ "a@b.c@d", 0, 0 },
		{ "a@[192.0.2.1]", 0, 1 },
	};
	char longest[400];

	(void)state;
	config.badmailfrom.v = badmailfrom;
	config.badmailfrom.n = COUNT(badmailfrom);
	for (size_t i = 0; i < COUNT(t); i++) {
		if (policy_badmailfrom(&config, t[i].addr) != t[i].bad ||
		    policy_qualified(t[i].addr) != t[i].qualified) {
			fail_msg("%s", t[i].addr);
		}
	}
	memset(longest, 'x', sizeof longest - 1);
	longest[sizeof longest - 1] = '\0';
	assert_int_equal(policy_badmailfrom(&config, longest), 1);
	config.badmailfrom.n = 0;
	assert_int_equal(policy_badmailfrom(&config, "spam@a.example"), 0);
}

static int
setup(void **state)
{
	(void)state;
	config.databytes = 7;
	return 0;
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_instructions),
		cmocka_unit_test(test_long_names),
		cmocka_unit_test(test_damaged_rules),
		cmocka_unit_test(test_relayclients),
		cmocka_unit_test(test_rcpthosts),
		cmocka_unit_test(test_senders),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
