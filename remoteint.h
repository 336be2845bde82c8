/* SPDX-License-Identifier: MIT */
/* What the files of a delivery share: remote.c and the four below. Nothing else includes this but selftest.c, and tests. */
#ifndef MAILSTILE_REMOTEINT_H
#define MAILSTILE_REMOTEINT_H

#include "deliver.h"
#include "peer.h"
#include "tls.h"
#include "tlscheck.h"

#define REMOTE_ADDRS_MAX 10 /* addresses tried for a job */

/* Seconds, each for a whole reply or a block (RFC 5321 4.5.3.2); control/timeoutremote may make them shorter. */
#define REMOTE_WAIT_COMMAND 300 /* the greeting, too */
#define REMOTE_WAIT_DATA 120
#define REMOTE_WAIT_BLOCK 180
#define REMOTE_WAIT_END 600

enum rcpt_state { RCPT_OPEN, RCPT_ACCEPTED, RCPT_REPORTED };

/* The one delivery of this process. */
struct remote {
	const struct relay_conf *conf;
	const struct secrets *secrets;
	int sock; /* to the scheduler */

	/* the job */
	struct deliver_job job;
	int file;
	unsigned open;  /* recipients that are not yet reported */
	int about_peer; /* reports are about what the peer said */
	uint8_t state[DELIVER_RCPTS_MAX];
	char rcpt[DELIVER_RCPTS_MAX][DELIVER_ADDR_MAX + 2];
	int counted;        /* what follows is known */
	int is_8bit;        /* the message */
	uint64_t crlf_size; /* as RFC 1870 counts it */

	/* the connection */
	int up;                /* it is ready for MAIL */
	enum conn_status said; /* how sending commands went */
	int dirty;             /* but the transaction before has been left open: RSET first */
	int reused;            /* and has carried a message before this job */
	unsigned messages;     /* so many */
	int64_t deadline;      /* mono_ms() when looking for a peer must end */
	uint64_t octets;       /* of conn.octets_out when the job began */
	struct relay_hop hop;  /* the relay, or an MX host in that form */
	int mx;                /* the latter */
	int verified;
	char peer[ADDR_TEXT_MAX]; /* its address */
	struct peer_ehlo ehlo;
	struct peer_reply reply;
	struct deliver_done done;
	struct conn conn;
	struct tlscheck check;

	/* why there is none */
	int klass;          /* 'Z' or 'D' */
	int code;           /* of the last reply that was no good */
	const char *status; /* "4.4.1" */
	struct buf why;     /* lines for the report */
	char why_mem[PEER_TEXT_MAX];
};

/* ---- remote.c ---- */

/* The outcome of one recipient, with a text of our own and, unless NULL, what the peer said; told at once. */
void remote_report(struct remote *s, unsigned rcpt, int klass, int code, const char *text, const char *said);
/* The same for all recipients that are in the state. */
void remote_report_all(
    struct remote *s, enum rcpt_state which, int klass, int code, const char *text, const char *said);
/* Close the connection, if there is one; `polite`: after QUIT. */
void remote_hang_up(struct remote *s, int polite);
/* Send up to four strings as a command: it goes out with the next wait for a reply. */
void remote_say(struct remote *s, const char *const text[5]);
#define SAY(s, ...) remote_say(s, (const char *const[5]){ __VA_ARGS__ })
/* Read a reply within `seconds`. NULL: it is in s->reply. Else what went wrong, in words; the connection is of no use any more. */
const char *remote_hear(struct remote *s, struct peer_ehlo *ehlo, int seconds);
/* The milliseconds a step may take. */
int remote_ms(const struct remote *s, int seconds);
/* In words, what went wrong. Ends the process when the scheduler is gone. */
const char *remote_trouble(const struct remote *s, enum conn_status st);
/* Deliver the job as far as it goes: afterwards all recipients are reported. */
void remote_deliver(struct remote *s);

/* ---- remotehop.c: who is to be talked to ---- */

/* Find a peer that is ready for MAIL: 0. Else -1, with klass, code, status and why. */
int remote_find(struct remote *s);
/* Add a line about a host to why; `addr` may be NULL. */
void remote_note(struct remote *s, const char *status, const char *addr, const char *what, const char *more);

/* ---- remotenet.c: the network, in a file of its own for tests to replace ---- */

/* Connect within `ms`; ends early when the scheduler lets go of `sock`. A non-blocking socket, or -1 with errno. */
int remote_open(const struct addr *addr, uint16_t port, int ms, int sock);
/* Is the address one of this machine's? */
int remote_is_us(const struct addr *addr);
/* Is there a way to IPv6 addresses? */
int remote_has_v6(void);

/* ---- remotehello.c: greeting, EHLO, TLS, login ---- */

/* Make s->conn, to `addr` of s->hop, ready for MAIL: 0. Else -1, with a note, and no connection. */
int remote_hello(struct remote *s, const struct addr *addr);

/* ---- remotemail.c: the transaction ---- */

/* Send the message: 0, all recipients are reported. 1: a connection that was reused turned out dead, and nothing has been said yet. */
int remote_mail(struct remote *s);

#endif
