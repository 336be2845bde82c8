/* SPDX-License-Identifier: MIT */
/*
 * The spool: writers for qmail's queue and for Maildirs, with durable commit: for wardens, as USER_SPOOL, inside the spool's directory; those that flush,
 * for scheduler and cleaner, too. Formats: the head of queue.c and maildir.c.
 */
#ifndef MAILSTILE_QUEUE_H
#define MAILSTILE_QUEUE_H

#include "config.h"
#include "control.h"
#include "diag.h"
#include "str.h"

#include <stdint.h>
#include <sys/types.h>

/* More than trace lines and added fields ever take at the head of a message file. */
#define SPOOL_HEAD_MAX 65536

/* The recipients' part of an envelope: `T<address>\0` records, as in qmail's queue. Costs memory only as it fills. */
struct envelope {
	char sender[SMTP_PATH_MAX + 4];
	unsigned rcpts;
	size_t len;
	char to[SMTP_RCPT_MAX * (SMTP_PATH_MAX + 2 + 64)];
};

/* One spool, and the message that is being written to it. */
struct spool {
	enum spool_kind kind;
	const char *prefix;       /* SPOOL_MAILDIR */
	const char *host;         /* SPOOL_MAILDIR*: for file names */
	uid_t uid;                /* goes into the envelope's `u` */
	unsigned split;           /* SPOOL_QUEUE */
	int journal;              /* the file system keeps names and blocks in order: see the head of queue.c */
	int dir;                  /* the spool's directory, or -1: the current one */
	int fd;                   /* message file, -1 = none; for reading once it is lent */
	uint64_t id;              /* its number */
	int made_intd, made_todo; /* these names are ours to remove */
	off_t head;               /* Maildir: octets that are this recipient's own */
	unsigned serial;          /* names made by this process */
	char name[128];           /* Maildir: file name in tmp/ */
};

/* Octets that may stand before the message in its file: SPOOL_HEAD_MAX, and in a plain Maildir the names of all recipients. */
uint64_t spool_head_max(const struct spool *s);

/*
 * Prepare `s` for the spool in directory `dir` of kind `kind`: counts the queue's split and checks its layout; refuses a big-todo
 * queue. 0, or -1 with the fault given to `d`. Opens nothing that stays open.
 */
int spool_open(struct spool *s, enum spool_kind kind, const char *dir, struct diag *d);

/* Give `d` an error for each directory that the user `uid` will have to write to but that belongs to another. */
void spool_check_owner(const struct spool *s, const char *dir, uid_t uid, struct diag *d);

/* 0 when the reserve and `size` more octets are free; V_NO_SPACE or V_SPOOL_ERROR otherwise (msg.h). */
int spool_room(const struct spool *s, uint64_t size);

/*
 * Make the file of a new message: open for appending in s->fd, its number in s->id. What belongs at its head is written (Maildir:
 * Return-Path and Delivered-To) or appended to `head` (queue: qmail's own Received line), to which the caller adds the network's Received
 * lines and which it then writes. 0, or -1 with errno and nothing left behind.
 */
int spool_begin(struct spool *s, const struct envelope *e, struct buf *head, int64_t now);

/*
 * Let somebody else write the message: a descriptor for appending, the caller's to pass on and close. s->fd is then one for reading. -1 with
 * errno. spool_returned(): has everybody closed it who could write? 0 is a certain no; where the file system cannot tell, it is 1.
 */
int spool_lend(struct spool *s);
int spool_returned(const struct spool *s);

/*
 * Make message and envelope durable, directory entries too, and hand them to the reader (queue: link into todo/, pull the
 * trigger; Maildir: link into new/). Closes s->fd. 0: everything is on disk. -1 with errno: nothing is left behind.
 */
int spool_commit(struct spool *s, const struct envelope *e);

/* Remove the message that was begun, if any. Keeps errno. */
void spool_abort(struct spool *s);

/* For queue.c and maildir.c: the two families behind the functions above. *_name(): the file of a message that is being written. */
int queue_begin(struct spool *s, const struct envelope *e, struct buf *head, int64_t now);
const char *queue_name(const struct spool *s, char *name, size_t size);
int queue_commit(struct spool *s, const struct envelope *e);
void queue_remove(struct spool *s);
int maildir_begin(struct spool *s, const struct envelope *e, struct buf *head, int64_t now);
const char *maildir_name(const struct spool *s, char *name, size_t size);
int maildir_commit(struct spool *s, const struct envelope *e);
void maildir_remove(struct spool *s);
/*
 * Start, or with `wait` finish, writing a file out: data and the allocation of its blocks, but not what makes either durable. 1; 0 when the
 * file system cannot; -1 with errno, which counts, since it may not be told again by fsync().
 */
int spool_push(int fd, int wait);
/* Make what was written to `fd` such that a name may be given to it: durable, or as durable as that name will be. 0 or -1 with errno. */
int spool_before_link(const struct spool *s, int fd);
/* fsync a directory by name. 0 or -1 with errno. */
int spool_sync_dir(const char *path);

/* `mailstile mkqueue`: create a queue with the right owners and modes, or verify one. Returns the exit status. */
int mkqueue_main(int argc, char **argv);
/* Tell `d` what is missing in the queue at `queue`, or belongs to the wrong user: an error each. `check`. */
struct priv_ids;
void mkqueue_check(const char *queue, const struct priv_ids *ids, unsigned split, struct diag *d);

#endif
