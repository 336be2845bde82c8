/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * What sessions share. The mapping is a memory file, so that it can be locked by parts and handed to a re-executed main. A warden
 * is trusted with it, an smtp process never sees it.
 */
#include "share.h"

#include "str.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SHARE_MAGIC 0x6d737431 /* "mst1" */

static int share_file = -1;

static int
memory_file(void)
{
	char name[] = "/tmp/mailstile.XXXXXX";
	int fd = memfd_create("mailstile", MFD_CLOEXEC);

	if (fd != -1 || errno != ENOSYS) {
		return fd;
	}
	/* Kernels before 3.17. */
	fd = mkostemp(name, O_CLOEXEC);
	if (fd != -1) {
		unlink(name);
	}
	return fd;
}

struct share *
share_open(int fd)
{
	int fresh = fd == -1;
	struct stat st;
	struct share *s;

	if (fresh) {
		fd = memory_file();
		if (fd == -1 || ftruncate(fd, sizeof *s) == -1) {
			return NULL;
		}
	} else if (fstat(fd, &st) == -1 || st.st_size != sizeof *s || fcntl(fd, F_SETFD, FD_CLOEXEC) == -1) {
		errno = EINVAL;
		return NULL;
	}
	s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (s == MAP_FAILED) {
		return NULL;
	}
	if (fresh) {
		s->magic = SHARE_MAGIC;
		s->size = sizeof *s;
		s->started = mono_ms();
		random_bytes(&s->run, sizeof s->run);
	} else if (s->magic != SHARE_MAGIC || s->size != sizeof *s) {
		munmap(s, sizeof *s);
		errno = EINVAL;
		return NULL;
	}
	madvise(s, sizeof *s, MADV_DONTDUMP);
	share_file = fd;
	return s;
}

int
share_fd(void)
{
	return share_file;
}

int
share_inherit(struct share *s, int fork_it)
{
	return madvise(s, sizeof *s, fork_it ? MADV_DOFORK : MADV_DONTFORK);
}

#if TOOLS

void
share_count(struct share *s, enum ctl_count what, uint32_t n)
{
	atomic_fetch_add_explicit(&s->count[what], n, memory_order_relaxed);
}

void
share_keep_line(struct share *s, const char *text, size_t len)
{
	struct share_line *l = &s->line[atomic_fetch_add(&s->lines, 1) % CTL_LINES_MAX];

	len = len < sizeof l->text - 1 ? len : sizeof l->text - 1;
	l->at = mono_ms();
	memcpy(l->text, text, len);
	l->text[len] = '\0';
}

#endif

static void
lock_op(enum share_part part, short type)
{
	struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)part, .l_len = 1 };

	while (fcntl(share_file, F_SETLKW, &l) == -1 && errno == EINTR) {
	}
}

void
share_lock(enum share_part part)
{
	lock_op(part, F_WRLCK);
}

void
share_unlock(enum share_part part)
{
	lock_op(part, F_UNLCK);
}

/* The entry of `client`, or NULL; *oldest is the one to reuse. */
static struct share_penalty *
find_penalty(struct share *s, const struct addr *client, struct share_penalty **oldest)
{
	int64_t now = mono_ms();

	*oldest = &s->penalty[0];
	for (size_t i = 0; i < PENALTIES_MAX; i++) {
		struct share_penalty *p = &s->penalty[i];

		if (p->until > now && p->fails > 0 && addr_same_client(client, &p->client)) {
			return p;
		}
		if (p->until < (*oldest)->until) {
			*oldest = p;
		}
	}
	return NULL;
}

uint32_t
share_fails(struct share *s, const struct addr *client)
{
	struct share_penalty *p, *oldest;
	uint32_t n;

	share_lock(SHARE_PENALTY);
	p = find_penalty(s, client, &oldest);
	n = p == NULL ? 0 : p->fails;
	share_unlock(SHARE_PENALTY);
	return n;
}

uint32_t
share_fail(struct share *s, const struct addr *client)
{
	struct share_penalty *p, *oldest;
	uint32_t n;

	share_lock(SHARE_PENALTY);
	p = find_penalty(s, client, &oldest);
	if (p == NULL) {
		p = oldest;
		p->client = *client;
		p->fails = 0;
	}
	n = ++p->fails;
	p->until = mono_ms() + PENALTY_SECONDS * INT64_C(1000);
	share_unlock(SHARE_PENALTY);
	return n;
}

void
share_forgive(struct share *s, const struct addr *client)
{
	struct share_penalty *p, *oldest;

	share_lock(SHARE_PENALTY);
	p = find_penalty(s, client, &oldest);
	if (p != NULL) {
		p->fails = 0;
		p->until = 0;
	}
	share_unlock(SHARE_PENALTY);
}

void
share_tls_put(struct share *s, const struct addr *client, const uint8_t id[32], const uint8_t master[48],
    uint16_t version, uint16_t suite)
{
	struct share_tls *t;

	if (TLS_CACHE_MAX == 0) {
		return;
	}
	share_lock(SHARE_TLS);
	/* A ring: the oldest goes. A 32-octet id that the server made at random does not repeat. */
	t = &s->tls[s->tls_next % (sizeof s->tls / sizeof s->tls[0])];
	s->tls_next++;
	t->until = mono_ms() + TLS_CACHE_SECONDS * INT64_C(1000);
	t->client = *client;
	t->version = version;
	t->suite = suite;
	memcpy(t->id, id, sizeof t->id);
	memcpy(t->master, master, sizeof t->master);
	share_unlock(SHARE_TLS);
}

int
share_tls_get(struct share *s, const struct addr *client, const uint8_t id[32], uint8_t master[48], uint16_t *version,
    uint16_t *suite)
{
	int64_t now = mono_ms();
	int found = 0;

	share_lock(SHARE_TLS);
	for (size_t i = 0; i < sizeof s->tls / sizeof s->tls[0]; i++) {
		const struct share_tls *t = &s->tls[i];

		if (t->until > now && memcmp(t->id, id, sizeof t->id) == 0 && addr_same_client(client, &t->client)) {
			memcpy(master, t->master, sizeof t->master);
			*version = t->version;
			*suite = t->suite;
			found = 1;
			break;
		}
	}
	share_unlock(SHARE_TLS);
	return found;
}
