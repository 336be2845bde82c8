/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * A cdb file, through cdb.c and the policy that reads it. Input: what it is, and the file. Damaged ones: 0 and a whole file; or 1, the one pair
 * (position, slots) that all 256 tables have, and the file from octet 2048 on, or a fuzzer would lose itself in the tables of tables. Or 2 and
 * records, each a length and the key, a length and the data, of which a sound file is made: what is found in it is known.
 */
#include "fuzz_cdb.h"

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	struct input in = { p, len };
	unsigned what = take_octet(&in) % 3;
	size_t size = 0;
	uint8_t *map = what == 2 ? fuzz_cdb_sound(&in, &size) : fuzz_cdb_damaged(&in, what == 1, &size);
	static struct config c = { .databytes = 1, .have_rcpthosts = 1 };

	c.rules = c.morercpthosts = (struct cdb){ map, size };
	CHECK(what != 2 || cdb_check(&c.rules) == 0);
	if (cdb_check(&c.rules) == 0) {
		for (size_t i = 0; i < sizeof fuzz_keys / sizeof fuzz_keys[0]; i++) {
			fuzz_look_up(&c.rules, fuzz_keys[i], strlen(fuzz_keys[i]), what == 2);
		}
		for (size_t i = 0; what == 2 && i < fuzz_pairs; i++) {
			fuzz_look_up(&c.rules, fuzz_pair[i].key, fuzz_pair[i].klen, 1);
		}
		fuzz_policy(&c, what == 2);
	}
	free(map);
	return 0;
}
