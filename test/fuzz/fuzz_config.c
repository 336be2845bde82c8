/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Control files through control.c, relayconf.c and policy.c. Input: texts, each a number and what it is up to octet 255. The number names a file for
 * config_load() in a temporary directory, or one of control.c's parsers.
 */
#include "fuzz_config.h"

static void
ask(const struct config *c)
{
	static const struct addr client = { { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 1, 2, 3 } };
	struct policy_client pc;

	policy_client(c, &client, "info", "host.example.org", &pc);
	CHECK(c->have_rcpthosts || !policy_rcpthost(c, "user@example.org"));
	policy_rcpthost(c, "user@a.b.example.net");
	policy_badmailfrom(c, "Bad@Spam.example");
	CHECK(c->me[0] != '\0' && c->listeners >= 1 && c->listeners <= LISTENERS_MAX && c->spool_dir[0] == '/');
	fuzz_relay(c);
	CHECK((c->chain.key_type == 0) == (c->chain.count == 0) && c->radius.servers <= RADIUS_SERVERS_MAX);
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	struct input in = { p, len };
	struct config *c;
	int files = 0;

	while (in.len > 0) {
		unsigned what = take_octet(&in) % (FUZZ_FILES + FUZZ_PARSERS + FUZZ_RELAY);
		struct input text = take_packet(&in);

		if (what < FUZZ_FILES || what >= FUZZ_FILES + FUZZ_PARSERS) {
			fuzz_config_file(what < FUZZ_FILES ? what : what - FUZZ_PARSERS, &text, files++ == 0);
		} else {
			fuzz_config_text(what - FUZZ_FILES, &text);
		}
	}
	if (files > 0) {
		c = config_load(fuzz_home, &fuzz_diag);
		CHECK(c != NULL || fuzz_diag.errors > 0);
		if (c != NULL) {
			ask(c);
		}
		config_free(c);
	}
	return 0;
}
