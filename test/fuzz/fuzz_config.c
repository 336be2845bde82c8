/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Whole control files through config_load() and policy.c, from a temporary directory. Input: files, each a
 * number that names it and its text, up to octet 255.
 */
#include "control.h"
#include "policy.h"

#include "fuzz.h"
#include "fuzz_dir.h"

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
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	static const char *const names[] = { "control/me", "control/smtpgreeting", "control/listen", "control/spool",
		"control/databytes", "control/rcpthosts", "control/relayclients", "control/badmailfrom",
		"control/radius.conf", "control/morercpthosts.cdb", "control/tcp.smtp.cdb" };
	static const char *const dirs[] = { "control" };
	static char home[200];
	const size_t count = sizeof names / sizeof names[0];
	struct diag diag = { .emit = fuzz_no_emit };
	struct input in = { p, len };
	struct config *c;

	if (home[0] == '\0') {
		fuzz_make_dir(home, sizeof home, dirs, 1);
	}
	for (size_t i = 0; i < count; i++) {
		fuzz_put_file(home, names[i], i == 0 ? "mx.example.org\n" : NULL, 15);
	}
	while (in.len > 0) {
		const char *name = names[take_octet(&in) % count];
		struct input text = take_packet(&in);

		fuzz_put_file(home, name, text.p, text.len);
	}
	c = config_load(home, &diag);
	CHECK(c != NULL || diag.errors > 0);
	if (c != NULL) {
		ask(c);
	}
	config_free(c);
	return 0;
}
