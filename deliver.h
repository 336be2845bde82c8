/* SPDX-License-Identifier: MIT */
/*
 * The wires between the processes that deliver: fixed-size structs over SOCK_SEQPACKET. Anything that is not exactly what is
 * expected ends the conversation.
 *
 *   scheduler -> remotes' nursery   struct deliver_birth, with the other end of a new socket pair. No answer; when the
 *                                   nursery cannot fork it lets go of that end, and the scheduler sees end of file.
 *   scheduler -> remote             DELIVER_JOB with the message file, then as many DELIVER_RCPT as it says
 *   remote -> scheduler             one DELIVER_REPORT for each recipient, in any order, then DELIVER_DONE
 *                                   (with `reuse`, another job for the same destination may follow on the same socket;
 *                                   the scheduler closes the socket when it has none). When the scheduler will say no more
 *                                   (shutdown()), a remote that has not sent the end of its message gives up at once, without
 *                                   a report, which cannot make a duplicate; another one carries on until it knows
 *   scheduler -> cleaner            struct clean_ask, with CLEAN_BOUNCE the file bounce/N, with CLEAN_NOTICE one like it; one struct clean_answer each
 */
#ifndef MAILSTILE_DELIVER_H
#define MAILSTILE_DELIVER_H

#include "config.h"
#include "msg.h"

#include <stdint.h>

#define DELIVER_ADDR_MAX 1002 /* qmail-queue takes no longer ones */
#define DELIVER_TEXT_MAX 1000
#define DELIVER_MX UINT32_MAX /* no route: look MX records up */

enum deliver_type { DELIVER_JOB = 1, DELIVER_RCPT, DELIVER_REPORT, DELIVER_DONE };

/* Which message, to where. The file comes along, open for reading, at offset 0. */
struct deliver_job {
	uint32_t type;
	uint32_t route; /* index in relay_conf.route, or DELIVER_MX */
	uint32_t rcpts; /* 1 to DELIVER_RCPTS_MAX */
	uint32_t sender_len;
	uint64_t id;      /* message number, for the log */
	uint64_t size;    /* octets of the file */
	char domain[256]; /* destination, lower case, NUL-terminated: for MX, and for a route's `+` relays */
	char sender[DELIVER_ADDR_MAX +
	    2]; /* envelope sender as it is to be sent (VERP already expanded), NUL-terminated */
};

struct deliver_rcpt {
	uint32_t type;
	uint32_t len;
	char addr[DELIVER_ADDR_MAX + 2]; /* NUL-terminated, as in the queue: unquoted */
};

/* What became of one recipient; class and text as qmail-rspawn would fold them (qmail-spec 4.2). */
struct deliver_report {
	uint32_t type;
	uint32_t rcpt;                   /* index, in the order they came */
	uint32_t klass;                  /* 'K' accepted, 'Z' try later, 'D' refused for good */
	uint32_t code;                   /* SMTP reply code, 0 = there was none */
	char text[DELIVER_TEXT_MAX + 4]; /* printable ASCII and LF, ends in LF, NUL-terminated */
};

/* After the last report. */
struct deliver_done {
	uint32_t type;
	uint32_t reuse; /* the connection is still good for another message to the same destination */
	uint32_t
	    unreachable; /* nobody there could be talked to: says something about the destination, not about the message */
	uint32_t octets_hi, octets_lo; /* sent in this job */
	uint16_t tls_version, tls_suite;
	uint32_t verified; /* the peer's certificate was checked, by name or by pin */
	char peer[64];     /* address and port of the peer, or "" */
	char name[256];    /* the name it was found by */
};

struct deliver_birth {
	uint32_t type; /* DELIVER_JOB */
	uint32_t zero;
};

enum clean_type {
	CLEAN_TODO = 1, /* unlink intd/N, then todo/N */
	CLEAN_MESS,     /* unlink intd/N, then mess/N */
	CLEAN_BOUNCE, /* make a bounce of message N: to `rcpt`, from `sender`, with the text in the file that comes along */
	CLEAN_NOTICE, /* the same for one that is late: the text says who has not got it yet, and why */
	CLEAN_LOCAL,  /* put message N into a Maildir, for `rcpt` */
	CLEAN_SWEEP   /* unlink old files of pid/ */
};

struct clean_ask {
	uint32_t type;
	uint32_t twice; /* CLEAN_BOUNCE: a bounce of a bounce */
	uint64_t id;
	int64_t birth;    /* of message N, or 0: not known */
	int64_t until;    /* CLEAN_NOTICE: so long it will be tried */
	uint32_t maildir; /* CLEAN_LOCAL: index in relay_conf.maildirs */
	uint32_t zero;
	char sender[8];                      /* of the bounce: "" or "#@[]" */
	char rcpt[DELIVER_ADDR_MAX + 2];     /* of the bounce */
	char returned[DELIVER_ADDR_MAX + 2]; /* the message's own sender, for Return-Path */
};

#define CLEAN_LOOP 0x10000 /* it has been there */

/* Is it a notice of a delay? */
static inline int
clean_late(const struct clean_ask *ask)
{
	return DELAY_NOTICE && ask->type == CLEAN_NOTICE;
}

struct clean_answer {
	uint32_t ok;
	uint32_t qp;  /* CLEAN_BOUNCE, CLEAN_NOTICE: in its first Received line */
	uint64_t id;  /* and the new message */
	uint32_t why; /* CLEAN_LOCAL: an errno, or CLEAN_LOOP */
	uint32_t zero;
};

#endif
