/* SPDX-License-Identifier: MIT */
/* The cleaner (relay.h), with what it works on as an argument: for clean_run() and for tests. */
#ifndef MAILSTILE_CLEANINT_H
#define MAILSTILE_CLEANINT_H

#include "deliver.h"
#include "queue.h"
#include "relayconf.h"

struct cleaner {
	const struct relay_conf *conf;
	struct spool spool;
	uid_t send_uid; /* in the envelopes of bounces */
	char from[520];
};

/* A file that is being written. */
struct out {
	int fd;
	struct buf b;
	int bad;      /* errno of what has failed */
	char last[2]; /* the last two octets */
	char mem[8192];
};

void out_flush(struct out *o);
void out_mem(struct out *o, const char *p, size_t len);
void out_str(struct out *o, const char *s);
/* Append what is in a file, at most `most` octets. Returns how many. */
uint64_t out_file(struct out *o, int fd, uint64_t most);
/* Append line feeds until there are two. */
void out_blank(struct out *o);
/* Append an address as it stands in a header. */
void out_address(struct out *o, const char *addr);
void out_date(struct out *o, int64_t t);
/* Append `Return-Path: <...>` of the message that is quoted. */
void out_return_path(struct out *o, const struct clean_ask *ask);
/* Append the introduction of a notice, for people, and an empty line. */
void out_intro(struct out *o, const struct cleaner *c, const struct clean_ask *ask);

/* dsn.c. What there is to know of a file: octets in all, up to and with the first empty line, and whether a part of it is not ASCII. */
struct look {
	uint64_t size, head;
	int head_8bit, any_8bit; /* of the head; of what a notice may quote */
};
void look_at(struct look *l, int fd);
int is_8bit(const char *s);
/* Append the rest of a notice (RFC 3464), from MIME-Version on. */
void dsn_compose(const struct cleaner *c, struct out *o, const struct clean_ask *ask, int why, int mess);

/* local.c. The Maildir at `path`, if it is one and belongs to `uid`: a descriptor, or -1 with errno. */
int local_dir(const char *path, uid_t uid);
/* Open all of localmaildirs. As who may: before anything is given up. */
void local_open(const struct relay_conf *c, uid_t uid);
/* Put the open message into a Maildir; a->ok, or a->why not. */
void local_deliver(const struct cleaner *c, const struct clean_ask *ask, int mess, struct clean_answer *a);

_Noreturn void clean_loop(struct cleaner *c, int sock);

#endif
