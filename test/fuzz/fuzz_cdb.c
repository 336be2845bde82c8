/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * A damaged cdb file, through cdb.c and the policy that reads it. Input: 0 and a whole file; or another octet, the one pair (position,
 * slots) that all 256 tables have, and the file from octet 2048 on, or a fuzzer would lose itself in the tables of tables.
 */
#include "policy.h"

#include "fuzz.h"

static const struct addr client = { { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 1, 2, 3 } };

static void
look_up(const struct cdb *c, const char *key, size_t len)
{
	const uint8_t *data = NULL;
	size_t n = 0;

	if (cdb_get(c, key, len, &data, &n) == 1) {
		CHECK(data >= c->map + 2048 + len && n <= c->len && data + n <= c->map + c->len);
		CHECK(memcmp(data - len, key, len) == 0);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	struct config c = { .databytes = 1, .have_rcpthosts = 1 };
	struct input in = { p, len };
	uint8_t pair[8] = { 0 };
	unsigned compact = take_octet(&in) != 0;
	size_t head = compact && take_octets(&in, pair, sizeof pair) > 0 ? 2048 : 0;
	uint8_t *map = malloc(head + in.len); /* of this size, for the sanitizer to guard */
	struct policy_client pc;

	for (size_t i = 0; i < head; i++) {
		map[i] = pair[i % sizeof pair];
	}
	memcpy(map + head, in.p, in.len);
	c.rules = c.morercpthosts = (struct cdb){ map, head + in.len };
	if (cdb_check(&c.rules) == 0) {
		look_up(&c.rules, "", 0);
		look_up(&c.rules, "10.1.", 5);
		look_up(&c.rules, "example.org", 11);
		policy_client(&c, &client, "user", "host.example.org", &pc);
		CHECK(memchr(pc.append, '\0', sizeof pc.append) != NULL && (pc.relay == 0 || pc.relay == 1));
		policy_rcpthost(&c, "user@mail.example.org");
	}
	free(map);
	return 0;
}
