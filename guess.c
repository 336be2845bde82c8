/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Guessing at passwords: see guess.h. Main and wardens. Names are kept as keyed hashes: what a table does not hold, nobody can read
 * there. A million addresses that guess push out what is known of others like them, but neither of accounts nor of where their owners are.
 */
#include "guess.h"

#if GUESSING

#include "str.h"

#include <string.h>

#define MEMORY_MS (PENALTY_SECONDS * INT64_C(1000))

/* FNV-1a from a random start that nobody outside gets to see the effect of; made at the first use. Never 0. */
static uint64_t
hash(struct share *s, const char *user, uint32_t network)
{
	uint64_t h;

	if (s->guess_key == 0) {
		random_bytes(&s->guess_key, sizeof s->guess_key);
		s->guess_key |= 1;
	}
	h = s->guess_key ^ (UINT64_C(0x9e3779b97f4a7c15) * network);
	for (; *user != '\0'; user++) {
		h = (h ^ (uint8_t)ascii_lower((uint8_t)*user)) *
		    UINT64_C(0x100000001b3); /* for many servers Alice is alice */
	}
	h ^= h >> 32;
	return h | 1;
}

/* Has the account logged in from there? The memory of that is renewed when `now` is not 0, in the place of the oldest. */
static int
known(struct share *s, uint64_t key, int64_t now)
{
	struct share_known *oldest = &s->known[0];

	for (size_t i = 0; i < GUESS_KNOWN_MAX; i++) {
		struct share_known *k = &s->known[i];

		if (k->key == key) {
			k->at = now != 0 ? now : k->at;
			return 1;
		}
		if (k->at < oldest->at) {
			oldest = k;
		}
	}
	if (now != 0) {
		oldest->key = key;
		oldest->at = now;
	}
	return 0;
}

/* The entry of an account, or NULL; *spare is the one to reuse: who goes through many names does not push out the one that is at stake. */
static struct share_guessed *
find(struct share *s, uint64_t key, int64_t now, struct share_guessed **spare)
{
	struct share_guessed *least = &s->guessed[0];

	for (size_t i = 0; i < GUESS_USERS_MAX; i++) {
		struct share_guessed *g = &s->guessed[i];

		if (g->until <= now) {
			memset(g, 0, sizeof *g);
		} else if (g->key == key) {
			return g;
		}
		if (g->fails < least->fails || (g->fails == least->fails && g->until < least->until)) {
			least = g;
		}
	}
	*spare = least;
	return NULL;
}

int
guess_wait(struct share *s, const char *user, const struct addr *client)
{
	struct share_guessed *g, *spare;
	int64_t now = mono_ms();
	int wait = 0;

	share_lock(SHARE_PENALTY);
	g = find(s, hash(s, user, 0), now, &spare);
	if (g != NULL && g->fails >= GUESS_FAILS && !known(s, hash(s, user, addr_network(client)), 0)) {
		g->turn = g->turn > now ? g->turn : now;
		wait = -1;
		if (g->turn - now <= GUESS_WAIT_SECONDS * INT64_C(1000)) {
			wait = (int)(g->turn - now);
			g->turn += 1000;
		}
	}
	share_unlock(SHARE_PENALTY);
	return wait;
}

void
guess_failed(struct share *s, const char *user, const struct addr *client)
{
	struct share_guessed *g, *spare;
	int64_t now = mono_ms();
	uint64_t key;

	share_lock(SHARE_PENALTY);
	/* Its owner, who has mistyped it, is no stranger. */
	if (!known(s, hash(s, user, addr_network(client)), 0)) {
		key = hash(s, user, 0);
		g = find(s, key, now, &spare);
		if (g == NULL) {
			g = spare;
			memset(g, 0, sizeof *g);
			g->key = key;
		}
		g->fails++;
		g->until = now + MEMORY_MS;
	}
	share_unlock(SHARE_PENALTY);
}

void
guess_went_well(struct share *s, const char *user, const struct addr *client)
{
	share_lock(SHARE_PENALTY);
	known(s, hash(s, user, addr_network(client)), mono_ms());
	share_unlock(SHARE_PENALTY);
}

int
guess_banned(const struct share *s, const struct addr *client)
{
	int64_t now = mono_ms();

	for (size_t i = 0; i < PENALTIES_MAX; i++) {
		const struct share_penalty *p = &s->penalty[i];

		if (p->fails >= BAN_FAILS && p->until > now && addr_same_client(client, &p->client)) {
			return 1;
		}
	}
	return 0;
}

#endif
