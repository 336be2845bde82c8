/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The mapping that holds keys and shared secrets. Every protection but the wiping is best effort: old kernels lack
 * MADV_DONTDUMP, and a small RLIMIT_MEMLOCK refuses mlock(); neither may keep a mail server from starting.
 */
#include "secret.h"

#include <stdint.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#define BURN_STEP 4096
#define BURN_STEPS 4 /* three times what P-384, the hungriest, needs on a 64-bit machine: 5 KiB */

_Static_assert(offsetof(struct secrets, skey) < 16384, "what lasts must fit a small RLIMIT_MEMLOCK");
_Static_assert(sizeof(((br_skey_decoder_context *)0)->key_data) <= sizeof(((struct cert_key *)0)->bytes),
    "a decoded key must fit struct cert_key");

struct secrets *
secret_map(void)
{
	struct secrets *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (s == MAP_FAILED) {
		return NULL;
	}
	(void)madvise(s, sizeof *s, MADV_DONTDUMP);
	/* Not all of it: that would keep 64 KiB of empty scratch resident. */
	(void)mlock(s, offsetof(struct secrets, skey));
	return s;
}

void
secret_unmap(struct secrets *s)
{
	if (s != NULL) {
		explicit_bzero(s, sizeof *s);
		(void)munmap(s, sizeof *s);
	}
}

int
secret_inherit(struct secrets *s, int fork_it)
{
	return madvise(s, sizeof *s, fork_it ? MADV_DOFORK : MADV_DONTFORK);
}

#if RADSEC
void
secret_move_client(struct secrets *s)
{
	struct cert_key *k = &s->client;
	ptrdiff_t by = (unsigned char *)k - (unsigned char *)&s->key;

	*k = s->key;
	if (k->type == BR_KEYTYPE_EC) {
		k->ec.x += by;
	} else if (k->type == BR_KEYTYPE_RSA) {
		k->rsa.p += by;
		k->rsa.q += by;
		k->rsa.dp += by;
		k->rsa.dq += by;
		k->rsa.iq += by;
	}
	explicit_bzero(&s->key, sizeof s->key);
}
#endif

#if ACCOUNTING || KEEPER
void
secret_keep_radius(struct secrets *s, int client)
{
	size_t from = offsetof(struct secrets, radius);

#if RADSEC
	from = client ? offsetof(struct secrets, client) : from;
#else
	(void)client;
#endif
	explicit_bzero(s, from);
	explicit_bzero((char *)s + offsetof(struct secrets, radius) + sizeof s->radius,
	    sizeof *s - offsetof(struct secrets, radius) - sizeof s->radius);
}
#endif

#if RELAY

void
secret_keep_relay(struct secrets *s)
{
	explicit_bzero(s, offsetof(struct secrets, relay));
	explicit_bzero((char *)s + offsetof(struct secrets, skey), sizeof *s - offsetof(struct secrets, skey));
}

#endif

/* Only what is there: else the page need not be one of its own. */
void
secret_drop_relay(struct secrets *s)
{
#if RADSEC
	if (s->client.type != 0) {
		explicit_bzero((char *)s + offsetof(struct secrets, client), sizeof s->client);
	}
#endif
#if RELAY
	if (s->relay[0][0] != '\0') {
		explicit_bzero((char *)s + offsetof(struct secrets, relay), sizeof s->relay);
	}
#endif
	(void)s;
}

void
secret_scratch_begin(struct secrets *s)
{
	(void)mlock((char *)s + offsetof(struct secrets, skey), sizeof *s - offsetof(struct secrets, skey));
}

void
secret_scratch_end(struct secrets *s)
{
	char *p = (char *)s + offsetof(struct secrets, skey);
	size_t page = getauxval(AT_PAGESZ);
	size_t skip = (page - (uintptr_t)p % page) % page;
	size_t len = sizeof *s - offsetof(struct secrets, skey);

	explicit_bzero(p, len);
	/* Whole pages only: the first one may hold a key too. They read as zero when they are next used. */
	if (len > skip) {
		len = (len - skip) / page * page;
		(void)munlock(p + skip, len);
		(void)madvise(p + skip, len, MADV_DONTNEED);
	}
}

static __attribute__((noinline)) void
burn(int steps)
{
	unsigned char mem[BURN_STEP];

	if (steps > 1) {
		burn(steps - 1);
	}
	explicit_bzero(mem, sizeof mem);
}

void
secret_burn_stack(void)
{
	burn(BURN_STEPS);
}
