/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* The files of fuzz_cdb.c, what is found in them, and what policy.c must make of it. */
#ifndef MAILSTILE_TEST_FUZZ_CDB_H
#define MAILSTILE_TEST_FUZZ_CDB_H

#include "policy.h"
#include "str.h"

#include "../unit/cdbmake.h"
#include "fuzz.h"

#define FUZZ_PAIRS_MAX 200

/* In the order in which policy.c must try them for the client below. */
static const char *const fuzz_keys[] = { "user@10.1.2.3", "user@=host.example.org", "10.1.2.3", "=host.example.org",
	"10.1.2.", "10.1.", "10.", "=.example.org", "=.org", "=", "", "mail.example.org", ".example.org", ".org" };
#define FUZZ_RULES 11 /* of them are rules */
static struct cdb_pair fuzz_pair[FUZZ_PAIRS_MAX];
static size_t fuzz_pairs;

static uint8_t *
fuzz_cdb_damaged(struct input *in, int compact, size_t *size)
{
	uint8_t pair[8] = { 0 };
	size_t head = compact && take_octets(in, pair, sizeof pair) > 0 ? 2048 : 0;
	uint8_t *map;

	*size = head + in->len;
	map = malloc(*size); /* of this size, for the sanitizer to guard */
	for (size_t i = 0; i < head; i++) {
		map[i] = pair[i % sizeof pair];
	}
	take_octets(in, map + head, in->len);
	return map;
}

static uint8_t *
fuzz_cdb_sound(struct input *in, size_t *size)
{
	uint8_t *map = malloc(2048 + in->len + (size_t)FUZZ_PAIRS_MAX * 24), *exact;

	for (fuzz_pairs = 0; in->len > 0 && fuzz_pairs < FUZZ_PAIRS_MAX; fuzz_pairs++) {
		struct cdb_pair *p = &fuzz_pair[fuzz_pairs];

		p->klen = take_octet(in);
		p->key = (const char *)in->p;
		p->klen = p->klen < in->len ? p->klen : in->len;
		in->p += p->klen;
		in->len -= p->klen;
		p->dlen = take_octet(in);
		p->data = (const char *)in->p;
		p->dlen = p->dlen < in->len ? p->dlen : in->len;
		in->p += p->dlen;
		in->len -= p->dlen;
	}
	*size = cdbmake(map, fuzz_pair, fuzz_pairs);
	exact = realloc(map, *size);
	CHECK(exact != NULL);
	return exact;
}

/* The first record of this key, or NULL. */
static const struct cdb_pair *
fuzz_find(const char *key, size_t len)
{
	for (size_t i = 0; i < fuzz_pairs; i++) {
		if (fuzz_pair[i].klen == len && memcmp(fuzz_pair[i].key, key, len) == 0) {
			return &fuzz_pair[i];
		}
	}
	return NULL;
}

static void
fuzz_look_up(const struct cdb *c, const char *key, size_t len, int sound)
{
	const struct cdb_pair *want = sound ? fuzz_find(key, len) : NULL;
	const uint8_t *data = NULL;
	size_t n = 0;
	int found = cdb_get(c, key, len, &data, &n);

	if (found == 1) {
		CHECK(data >= c->map + 2048 + len && n <= c->len && data + n <= c->map + c->len);
		CHECK(memcmp(data - len, key, len) == 0);
	}
	if (sound) {
		CHECK(found == (want != NULL));
		CHECK(want == NULL || (n == want->dlen && memcmp(data, want->data, n) == 0));
	}
}

/* What the first rule that is there says (qmail-spec 7.1): items, each up to a NUL. */
static void
fuzz_rule(struct policy_client *want)
{
	const struct cdb_pair *rule = NULL;

	for (size_t i = 0; i < FUZZ_RULES && rule == NULL; i++) {
		rule = fuzz_find(fuzz_keys[i], strlen(fuzz_keys[i]));
	}
	for (size_t at = 0; rule != NULL && at < rule->dlen;) {
		const char *item = rule->data + at;
		size_t n = strnlen(item, rule->dlen - at);
		int ended = n < rule->dlen - at;

		want->deny |= n > 0 && item[0] == 'D';
		if (n >= 13 && ended && memcmp(item, "+RELAYCLIENT=", 13) == 0) {
			want->relay = n - 13 < sizeof want->append;
			memset(want->append, 0, sizeof want->append);
			memcpy(want->append, item + 13, want->relay ? n - 13 : 0);
		}
		if (n > 11 && memcmp(item, "+DATABYTES=", 11) == 0) {
			parse_u64(item + 11, n - 11, INT64_MAX, &want->databytes);
		}
		at += n + 1;
	}
}

static void
fuzz_policy(const struct config *c, int sound)
{
	static const struct addr client = { { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 1, 2, 3 } };
	struct policy_client pc, want = { .databytes = c->databytes };
	int rcpthost;

	policy_client(c, &client, "user", "host.example.org", &pc);
	CHECK(memchr(pc.append, '\0', sizeof pc.append) != NULL && (pc.relay == 0 || pc.relay == 1));
	rcpthost = policy_rcpthost(c, "user@mail.example.org");
	if (sound) {
		fuzz_rule(&want);
		CHECK(pc.deny == want.deny && pc.relay == want.relay && pc.databytes == want.databytes);
		CHECK(!want.relay || strcmp(pc.append, want.append) == 0);
		CHECK(rcpthost ==
		    (fuzz_find("mail.example.org", 16) != NULL || fuzz_find(".example.org", 12) != NULL ||
			fuzz_find(".org", 4) != NULL));
	}
}

#endif
