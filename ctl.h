/* SPDX-License-Identifier: MIT */
/*
 * The control socket: how `mailstile status` and `mailstile queue` talk to the server. A Unix socket (SOCK_SEQPACKET) where ctl_where()
 * says, or `serve -S`; mode 0600, and whoever connects must be root or the user that main runs as. Fixed-size structs both ways; anything else
 * ends the conversation. Main answers CTL_STATUS itself. When the first thing asked is anything else, main hands the connection over to the
 * scheduler, as it is, with the question; without a scheduler it answers CTL_NOBODY.
 *
 *   main -> scheduler   struct ctl_ask, with the connection, on the control pair (relay_run()'s `ctl`)
 *
 * A tool asks one thing at a time and waits for the answer. Numbers are the machine's own: both ends are the same program.
 */
#ifndef MAILSTILE_CTL_H
#define MAILSTILE_CTL_H

#include "config.h"

#include <stddef.h>
#include <stdint.h>

#define CTL_MAGIC 0x6d737402 /* another layout, another number */

enum ctl_type {
	CTL_STATUS = 1, /* -> struct ctl_status, then as many struct ctl_line as it says */
	/* from here on, the scheduler's */
	CTL_COUNTS = 16, /* -> struct ctl_counts */
	CTL_LIST,        /* arg: where to begin, 0 first -> struct ctl_list */
	CTL_DEST,        /* arg: index of a destination, from 1 -> struct ctl_dest; CTL_NONE behind the last one */
	CTL_WHY,         /* arg: ctl_entry.why -> struct ctl_dest, of which only the text counts */
	/* These change the message with the number `arg` -> struct ctl_answer, when it is durable. */
	CTL_FLUSH,   /* it is due now, and its destination is tried at once */
	CTL_HOLD,    /* it is not tried until it is released */
	CTL_RELEASE, /* it is due now */
	CTL_REMOVE,  /* it is thrown away, and nobody is told */
	CTL_BOUNCE   /* its sender is told that it failed */
};

/* ctl_answer.rc, and the first member of every answer: 0 is yes. */
enum ctl_rc {
	CTL_DONE,
	CTL_NOBODY, /* nobody here delivers: control/relay says off, or another program does */
	CTL_NONE,   /* there is no such message, or destination */
	CTL_BUSY,   /* a delivery of it runs */
	CTL_FAILED, /* the system would not; see the log */
	CTL_IS_HELD /* not before it is released */
};

struct ctl_ask {
	uint32_t magic;
	uint32_t type;
	uint64_t arg;
};

struct ctl_answer {
	uint32_t rc;
	uint32_t zero;
};

enum ctl_state {
	CTL_TIMED,   /* to be tried at `next` */
	CTL_DUE,     /* waits for a place */
	CTL_WAITING, /* for destination `dest`, which is down */
	CTL_RUNNING, /* deliveries of it run, or are about to */
	CTL_HELD
};

struct ctl_entry {
	uint64_t id;
	int64_t birth, next; /* real-time clock, seconds */
	uint32_t why;        /* what its last attempt came to: for CTL_WHY, 0 = nothing is known */
	uint16_t dest;       /* CTL_DUE, CTL_WAITING: for CTL_DEST */
	uint8_t state;
	uint8_t zero;
};

#define CTL_HOLD_TIME 2147400000 /* the time of remote/N of a message that is held: SCHED_HOLD */

#define CTL_ENTRIES 64

struct ctl_list {
	uint32_t rc;
	uint32_t n;    /* entries here */
	uint64_t next; /* to ask for what follows; 0: that was all */
	struct ctl_entry entry[CTL_ENTRIES];
};

struct ctl_dest {
	uint32_t rc;
	uint32_t waiting, running, limit;
	int64_t until; /* down: seconds until it is tried; -1: it is up, or not known to be down */
	uint32_t probing, mx;
	char name[256]; /* the domain, or a route's first relay */
	char text[256]; /* printable */
};

struct ctl_counts {
	uint32_t rc;
	uint32_t queued, held, timed, due, waiting, running; /* messages */
	uint32_t deliveries, deliveries_max;                 /* that run, and may */
	uint32_t dests, dests_down;
	uint32_t ok, deferred, failed, bounces; /* recipients, and bounces, since the scheduler started; they wrap */
	int64_t oldest;                         /* age in seconds */
	int64_t since;                          /* seconds that the scheduler has run */
	int64_t error_age;                      /* seconds since the last delivery that did not succeed; -1: none */
	char error[256];                        /* which and why, printable */
};

struct ctl_listener {
	char where[64]; /* address and port */
	char profile[16];
	uint32_t heard; /* 0: it could not be opened */
};

struct ctl_radius {
	char name[256];   /* as in radius.conf */
	char addr[64];    /* "": not known yet */
	int32_t dead;     /* seconds until it is asked first again; 0: it is not dead */
	int32_t answered; /* seconds since it last did; -1: never */
};

/* What has been counted since main started; all wrap. */
enum ctl_count {
	COUNT_SESSIONS,
	COUNT_REFUSED, /* connections, by limits and rules */
	COUNT_TLS,     /* sessions under TLS */
	COUNT_LOGINS,
	COUNT_LOGIN_FAILS, /* wrong passwords */
	COUNT_LOGIN_LATER, /* RADIUS gave no answer that counts */
	COUNT_MESSAGES,
	COUNT_RCPTS,
	COUNT_KIB,      /* of messages */
	COUNT_REJECTED, /* messages refused or put off after the data */
	COUNT_CRASHES,
	COUNTS
};

/* Why nobody can log in, bits of ctl_status.nobody; that there is no RADIUS server is seen from `radius`. */
enum ctl_nobody {
	CTL_NO_CERTIFICATE = 1,
	CTL_NO_COUNTS = 2, /* the file of the counts */
	CTL_NO_LIMITS = 4  /* userlimits, timezone */
};

struct ctl_status {
	uint32_t rc;
	uint32_t lines;  /* that follow: the last errors, oldest first */
	int64_t now, up; /* real-time clock; seconds since the start */
	uint32_t clock_set;
	uint32_t sessions, sessions_max, loggedin;
	uint32_t
	    delivers; /* 0 control/relay is off, or there is no queue; 1 the scheduler runs; 2 it should, and does not */
	uint32_t listeners, radius;
	uint32_t nobody;
	uint32_t count[COUNTS];
	char version[32], me[256], spool[256];
	char home[256]; /* as the server was told; "": longer */
	struct ctl_listener listener[LISTENERS_MAX];
	struct ctl_radius server[RADIUS_SERVERS_MAX];
};

struct ctl_line {
	int64_t age; /* seconds */
	char text[240];
};

#define CTL_LINES_MAX 8

/* ---- main ---- */

struct house;
struct listeners;
struct pollfd;

#define CTL_POLLS 2

#if TOOLS

/* Make the socket. -1, logged: there is none, which is no reason not to serve. */
int ctl_open(const char *path);
void ctl_close(void);
/* What main must wait for: up to CTL_POLLS of p, of which it returns the number; and until when, mono_ms(). */
unsigned ctl_polls(struct pollfd *p);
int64_t ctl_due(void);
/* Do what has come: p[0..n) is what ctl_polls() said. Never waits. */
void ctl_serve(const struct pollfd *p, unsigned n, const struct house *h, const struct listeners *ls);

/*
 * Where the socket of the server of `home` is (NULL: HOME_DIR), when -S does not say it: CTL_SOCKET for HOME_DIR, and below any other home. `there`, for
 * tools: CTL_SOCKET, too, when there is none below home. In static memory.
 */
const char *ctl_where(const char *home, int there);

#else

/* clang-format off */
static inline const char *ctl_where(const char *home, int there) { (void)home; (void)there; return NULL; }
static inline int ctl_open(const char *path) { (void)path; return 0; }
static inline void ctl_close(void) {}
static inline unsigned ctl_polls(struct pollfd *p) { (void)p; return 0; }
static inline int64_t ctl_due(void) { return INT64_MAX; }
static inline void ctl_serve(const struct pollfd *p, unsigned n, const struct house *h, const struct listeners *ls)
{ (void)p; (void)n; (void)h; (void)ls; }
/* clang-format on */

#endif

/* ---- tools ---- */

/* Connect to the server. A descriptor, or -1 with errno. */
int ctl_connect(const char *path);
/* Ask, and get the answer of `size` octets. 0, or -1: the conversation is over. */
int ctl_query(int fd, enum ctl_type type, uint64_t arg, void *answer, size_t size);

/* Is `theirs`, the home of a server, the directory `home`? Of one that is not absolute it is believed. */
int ctl_is_home(const char *home, const char *theirs);

int status_main(int argc, char **argv);
int queue_main(int argc, char **argv);

#endif
