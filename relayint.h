/* SPDX-License-Identifier: MIT */
/*
 * The scheduler's parts (relay.h): relay.c is the loop, todo.c takes new messages in, pass.c carries one on, outcome.c hears what comes
 * of that, ended.c finishes it. All of it in one process, USER_SEND with the queue as current directory, without a thread.
 */
#ifndef MAILSTILE_RELAYINT_H
#define MAILSTILE_RELAYINT_H

#include "deliver.h"
#include "log.h"
#include "relayconf.h"
#include "schedule.h"
#include "str.h"

#include <dirent.h>
#include <poll.h>
#include <stdint.h>
#include <sys/types.h>

#define RELAY_TROUBLE 123 /* seconds until what the system would not do is tried again; as qmail-send */
#define RELAY_TOO_LONG "This message has been in the queue for too long; it will not be tried again. (#4.4.7)\n"
/* Modes of info/N, else 0600: its sender is being told of a delay; has been. See ended.c. */
#define RELAY_TELLING 0500
#define RELAY_TOLD 0700
#define RECORD_MAX 4095
#define SENDER_MAX (DELIVER_ADDR_MAX + 1)

/* A recipient, during a pass over its message. */
enum pass_state {
	PASS_UNTRIED,
	PASS_RUNNING,
	PASS_LATER, /* answered "later" */
	PASS_DOWN, /* not tried, or in vain, because nobody at its destination can be reached: says nothing about the message */
	PASS_FAILED, /* in bounce/N, and yet to be marked */
	PASS_OVER    /* marked */
};

struct pass_rcpt {
	uint32_t offset; /* of its record in remote/N */
	uint16_t len;    /* of the address */
	uint16_t dest;
	uint8_t state;
};

struct pass {
	uint32_t m; /* SCHED_NONE: not in use */
	uint64_t id;
	int dying; /* nothing is put off any more */
	int verp;
	int remote, bounce; /* descriptors of remote/N and bounce/N, or -1 */
	int bounce_new;
	unsigned local_later; /* recipients of local/N that come again later */
	int telling;          /* its sender is to hear that it is late, and why, which is written to `late` */
	int late;             /* a file without a name, or -1 */
	int dirty;            /* marks that are not flushed */
	unsigned running;
	uint32_t n, untried, failed;
	struct pass_rcpt *rcpt;
	char sender[SENDER_MAX + 1];
};

/* What a remote said of a recipient. */
struct outcome {
	uint32_t rcpt;   /* index in the pass */
	uint32_t number; /* qlog.c */
	uint16_t code;
	char klass; /* 0: nothing yet */
	char text[241];
};

struct remote {
	int sock; /* -1: not in use */
	uint16_t dest;
	uint8_t probe;
	struct pass *pass; /* NULL: idle, with a connection to `dest` */
	/* A delivery that is over, but what it has come to is not flushed: may another follow, was the peer reached (-1: its remote said nothing)? */
	int8_t over, reuse, reached;
	unsigned rcpts, reported, messages;
	int64_t since; /* mono */
	struct outcome *outcome;
};

struct relay {
	const struct relay_conf *conf;
	unsigned split;
	int journal;     /* see queue.c */
	uid_t spool_uid; /* owns messages */
	int clean, nursery;
	int ctl; /* from main, -1 = none */
	int trigger;
	int64_t now, mono, offset; /* offset: of one clock to the other; INT64_MAX: not known yet */
	int lost;                  /* the cleaner or the nursery is gone */
	int alone; /* the cleaner is gone; while only the nursery is, what has been delivered is still cleaned up */
	int stopping;
	int64_t stop_at; /* mono: what runs then is dropped */
	/* todo.c */
	DIR *scan;
	int scan_found, scan_warn;
	int woken;                                               /* the pipe has said so */
	int64_t deaf_until;                                      /* mono_ms() */
	int64_t scan_next, scan_warned, sweep_next, expire_next; /* mono */
	/* pass.c */
	unsigned passes, remotes; /* how many there can be */
	struct pass *pass;
	struct remote *remote;
	unsigned turn;      /* the destination that was last served */
	int64_t hold_until; /* mono: no delivery could be started */
	/* for tools */
	int64_t began, error_at; /* mono; error_at: of `error`, what came to the last recipient that was not served */
	uint32_t ok, deferred, failed, bounces; /* recipients, bounces */
	char error[256];
	uint32_t delivery; /* the last number that qlog.c gave */
	struct sched *sched;
};

/* ---- files, todo.c ---- */

/* A file of NUL-terminated records. */
struct records {
	int fd;
	size_t pos, len;
	uint64_t offset; /* of mem[pos] */
	char mem[RECORD_MAX + 1];
};
enum record { RECORD_ERROR = -1, RECORD_END, RECORD_OK, RECORD_CUT };

void records_open(struct records *r, int fd);
/*
 * The next one, NUL-terminated, valid until the next call: its length without the NUL in *len, its place in *offset. RECORD_CUT: the last one
 * has no NUL. RECORD_ERROR with errno: EMSGSIZE when it is too long.
 */
enum record records_next(struct records *r, char **p, size_t *len, uint64_t *offset);

/* DIR/N, or DIR/N mod split/N. */
const char *relay_name(const struct relay *r, const char *dir, uint64_t id, char name[64]);
const char *relay_flat(const char *dir, uint64_t id, char name[64]);
/* A log line begun, with id=N. */
void relay_event(struct log_line *l, int prio, const char *ev, uint64_t id);
void relay_warn(uint64_t id, const char *what, const char *error);

/* Start to look at todo/; look at some of it, 0 when there is no more. */
void todo_begin(struct relay *r);
int todo_some(struct relay *r);
/* The start of everything: take over what is in info/. 0 or -1, logged. */
int todo_takeover(struct relay *r);
/* Debris that nobody will ever miss. */
void todo_sweep(struct relay *r);

/* ---- pass.c ---- */

/* Where a recipient goes: destination and domain, lower case. NULL, or why it cannot be (text for a bounce). */
const char *pass_where(struct relay *r, const char *addr, unsigned *dest, char domain[256]);
/* rcpt.c. The address of a recipient, read again. 0 or -1, logged. */
int rcpt_address(const struct pass *p, uint32_t i, char addr[RECORD_MAX + 1]);
/* It is done. It has failed for good; the same for one that nobody will try again. Make what is known of all of them durable. */
void rcpt_mark(struct relay *r, struct pass *p, uint32_t i);
/* Give the open file remote/N the time of a message that is held. 0 or -1. */
int rcpt_hold_time(int fd);
void rcpt_failed(struct relay *r, struct pass *p, uint32_t i, const char *text);
void rcpt_expired(struct relay *r, struct pass *p, uint32_t i, const char *text);
void rcpt_sync(struct relay *r, struct pass *p);
/* The same of all passes; marks of those without a failure go together, by one flush where there is a journal. */
void rcpt_sync_all(struct relay *r);
/* For the notice of a delay, if there is to be one: why `addr` has to wait. `local`: as for bounce_append(). */
void rcpt_tell(struct relay *r, struct pass *p, const char *addr, int local, const char *text);
/* It is not done, and comes again later. */
void rcpt_later(struct relay *r, struct pass *p, uint32_t i, const char *text);
/* Read the sender of a pass. 0 or -1 with errno. */
int pass_sender(struct relay *r, struct pass *p);
/* The sender for this recipient: `box@host-@[]` becomes `boxuser=host2@host`. 0 or -1. */
int pass_expand(const struct pass *p, const char *rcpt, char *out, size_t size);
/* localpass.c. Deliver or refuse what local/N has for us. 0; 1: there is more, for another time; -1 with errno. */
int local_carry(struct relay *r, struct pass *p);
/* A message is due: to its destination's list, or its end. */
void pass_due(struct relay *r, uint32_t m);
/* Begin a pass. 0: too many are open, and the message is still SCHED_BUSY; 1: it is taken care of. */
int pass_open(struct relay *r, uint32_t m);
/* Start whatever can be started. */
void pass_serve(struct relay *r);
/* For outcome.c. Start what can be started of a pass; end it when nothing is left to wait for. */
void pass_push(struct relay *r, struct pass *p);
/* The same. Let go of a pass as it is: the message stays SCHED_BUSY. */
void pass_release(struct pass *p);
/* The same. Let go of the socket to a remote, and of what it has said; its place is free. */
void pass_hang_up(struct remote *t);

/* ---- outcome.c ---- */

/* Something came from a remote, or it is gone. */
void pass_hear(struct relay *r, struct remote *t);
/* After all were heard that had something to say: flush what was marked, and go on with what is over. */
void pass_settle(struct relay *r);
/* A delivery is over: `done`, or NULL when its remote is gone, or to be got rid of. pass_settle() goes on from there, for all that are. */
void outcome_over(struct relay *r, struct remote *t, const struct deliver_done *done);
/* Ask all deliveries to end that have not sent the end of their message yet: see deliver.h. */
void pass_cut(struct relay *r);
/* Let go of all that runs. */
void pass_drop(struct relay *r);

/* ---- ended.c ---- */

/* Append to bounce/N why `addr` failed. `local`: strip what virtualdomains has put before it. `fd` is opened when it is -1. 0 or -1. */
int bounce_append(struct relay *r, uint64_t id, int *fd, int *made, const char *addr, int local, const char *text);
/* Make it durable and close it. 0 or -1. */
int bounce_sync(struct relay *r, int *fd, int *made);
/* remote/N is gone, or has nothing left: finish the message. It is SCHED_BUSY. */
void ended(struct relay *r, uint32_t m);
/* Tell the sender of a pass that the message is late, with the paragraphs in p->late, and write down that this is done. */
void ended_late(struct relay *r, struct pass *p);
/* At the start, of a message whose sender was just being told: was he? The answer is written down. */
int ended_was_told(struct relay *r, uint64_t id);
/* Ask the cleaner. 0, or -1: it would not (logged), or is lost. */
int relay_clean(struct relay *r, struct clean_ask *ask, int fd, struct clean_answer *a);
/* Read the sender out of info/N. 0 or -1 with errno. */
int info_sender(const struct relay *r, uint64_t id, char sender[SENDER_MAX + 1]);

/* ---- qlog.c ---- */

#if RELAY_QMAIL_LOG
/* A line of a number or two. A new message. How many deliveries run. */
void qlog_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void qlog_new(uint64_t id, uint64_t bytes, const char *sender, uint32_t qp, uint32_t uid);
void qlog_status(const struct relay *r);
/* All deliveries of t's job begin; one ends; one that nobody was asked about begins and ends. */
void qlog_start(struct relay *r, const struct remote *t);
void qlog_end(uint32_t number, char klass, const char *text);
void qlog_untried(struct relay *r, uint64_t id, int local, const char *addr, char klass, const char *text);
#else
/* clang-format off */
__attribute__((format(printf, 1, 2))) static inline void qlog_say(const char *fmt, ...) { (void)fmt; }
static inline void qlog_new(uint64_t id, uint64_t bytes, const char *sender, uint32_t qp, uint32_t uid)
{ (void)id; (void)bytes; (void)sender; (void)qp; (void)uid; }
static inline void qlog_status(const struct relay *r) { (void)r; }
static inline void qlog_start(struct relay *r, const struct remote *t) { (void)r; (void)t; }
static inline void qlog_end(uint32_t number, char klass, const char *text) { (void)number; (void)klass; (void)text; }
static inline void qlog_untried(struct relay *r, uint64_t id, int local, const char *addr, char klass, const char *text)
{ (void)r; (void)id; (void)local; (void)addr; (void)klass; (void)text; }
/* clang-format on */
#endif

/* ---- relayctl.c ---- */

/* What tools' conversations (ctl.h) wait for: up to RELAYCTL_POLLS of p; then, what has come. */
#define RELAYCTL_TOOLS 4
#define RELAYCTL_POLLS (1 + RELAYCTL_TOOLS)
#if TOOLS
unsigned relayctl_polls(struct relay *r, struct pollfd *p);
void relayctl_serve(struct relay *r, const struct pollfd *p, unsigned n);
/* Do what a tool asks, into a union of all answers, at *a. The length of the answer; 0: it is nonsense. */
size_t relayctl_answer(struct relay *r, const struct ctl_ask *ask, const void **a);
/* Remember, for tools, what an attempt came to. */
void relayctl_why(struct sched_msg *m, const char *text);
#else
/* clang-format off */
static inline unsigned relayctl_polls(struct relay *r, struct pollfd *p) { (void)r; (void)p; return 0; }
static inline void relayctl_serve(struct relay *r, const struct pollfd *p, unsigned n) { (void)r; (void)p; (void)n; }
static inline void relayctl_why(struct sched_msg *m, const char *text) { (void)m; (void)text; }
/* clang-format on */
#endif

/* ---- relay.c ---- */

/* The steps of a scheduler's life, for offline.c. Take lock/sendmutex, for life: 0, RELAY_BUSY, 111. Make room. Look at the clocks. */
int relay_lock(void);
void relay_set_up(struct relay *r);
void relay_clocks(struct relay *r);
/* Leave word of when each message is to be tried. */
void relay_write_times(struct relay *r);

/* With the configuration as an argument: for tests. */
_Noreturn void relay_loop(
    const struct relay_conf *conf, unsigned split, int journal, uid_t spool_uid, int clean, int remotes, int ctl);

#endif
