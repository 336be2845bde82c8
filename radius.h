/* SPDX-License-Identifier: MIT */
/*
 * Who is this? Access-Requests through radcli over a transport of our own that seals every request and checks every reply
 * before radcli sees an octet of it (RFC 2865, 2869 5.14, 5080; CVE-2024-3596). Wardens, and `check radius`.
 */
#ifndef MAILSTILE_RADIUS_H
#define MAILSTILE_RADIUS_H

#include "control.h"
#include "log.h"
#include "share.h"

#include <signal.h>
#include <stddef.h>
#include <stdint.h>

enum radius_result {
	RADIUS_ACCEPT = 1,
	RADIUS_REJECT, /* also: challenge, wrong or unknown Service-Type */
	RADIUS_LATER   /* nobody could say */
};

/* What a login is about. Strings are NUL-terminated; `user` and `password` hold no NUL, user 1-253, password 1-128 octets. */
struct radius_query {
	const char *user;
	const char *password;
	const char *client;  /* Calling-Station-Id: the client's address as text */
	const char *called;  /* Called-Station-Id: "profile address:port" of the listener */
	const char *nas;     /* NAS-Identifier: control/me */
	const char *session; /* Acct-Session-Id */
};

/* What one server did with it; the last attempt stays. */
enum radius_trouble {
	RADIUS_OK,
	RADIUS_NO_ANSWER,
	RADIUS_WRONG_SECRET, /* an answer whose Response Authenticator or Message-Authenticator does not fit */
	RADIUS_UNSIGNED,     /* an answer without Message-Authenticator */
	RADIUS_NO_ADDRESS,   /* the name is not resolved (yet) */
	RADIUS_NETWORK,      /* errno from the network */
	RADIUS_TLS,          /* RADIUS/TLS: BearSSL's number, or one of tlscheck.h's */
	RADIUS_NO_KEEPER,    /* RADIUS/TLS: no process keeps a connection */
	RADIUS_NO_SERVERS    /* radius.conf is missing, empty or bad */
};

/* Attributes of an accept as they came: type, length, value, one behind the other. `lost`: there was no room for all of them. */
#define RADIUS_KEPT_MAX 512
struct radius_kept {
	uint16_t len;
	uint16_t lost;
	uint8_t attributes[RADIUS_KEPT_MAX];
};

struct radius_answer {
	enum radius_result result;
	enum radius_trouble trouble;
	int server;        /* index of the server that decided, -1 = none */
	int error;         /* the number of RADIUS_NETWORK and RADIUS_TLS */
	int service;       /* Service-Type of an accept, -1 = none */
	const char *why;   /* constant text for a reject that is ours, or NULL */
	unsigned dropped;  /* replies thrown away */
	unsigned sent;     /* packets sent */
	int64_t ms;        /* time taken */
	char message[128]; /* Reply-Message, not yet escaped */
#if RADIUS_KEEPS
	uint32_t interim;         /* Acct-Interim-Interval, seconds; 0 = none */
	struct radius_kept class; /* Class, to be sent back in accounting (RFC 2865 5.25) */
	struct radius_kept
	    policy; /* Filter-Id, Session-Timeout, Idle-Timeout, Port-Limit, and Vendor-Specific of VENDOR_ID */
#endif
};

/*
 * Ask the servers of `rc` in order (last good one first, dead ones last), for at most RADIUS_DEADLINE seconds together. Logs a
 * line for each server that failed, naming the remedy. `generation` is share->radius_generation as it was when `rc` was
 * read. The password is wiped from every place this module put it before returning.
 */
void radius_ask(const struct radius_conf *rc, const struct secrets *s, struct share *sh, uint32_t generation,
    const struct radius_query *q, struct radius_answer *a);

/* Remember what came of a packet that was sent to server `i` at `asked` (mono_ms()). */
void radius_mark(struct share *sh, uint32_t generation, unsigned i, int64_t asked, int alive);

/* What is to be logged of an answer, at the end of a line about the login: who decided, the time, reason and Reply-Message. */
void radius_log_answer(struct log_line *l, const struct radius_conf *rc, const struct radius_answer *a);

/* For a signal handler: waiting for servers is over, and what they have not said yet counts for nothing. */
extern volatile sig_atomic_t radius_stop;

/* The addresses of servers, in the order of radius.conf; all zero where one is not known. */
struct radius_addresses {
	struct addr addr[RADIUS_SERVERS_MAX];
};
/* Look up the names in `rc`, reading resolv.conf and hosts anew. Blocks on DNS, up to 30 s: the resolver process, inetd, check. 0, or -1 when one or more could not be found. */
int radius_resolve(const struct radius_conf *rc, struct radius_addresses *out);
/* Let wardens know them; unknown ones leave what was known. */
void radius_set_addresses(struct share *sh, uint32_t generation, const struct radius_addresses *a);
/* The address of server `i` of `rc`, which is the radius.conf of that generation. 0, or -1: its name is not resolved (yet). */
int radius_address(const struct radius_conf *rc, struct share *sh, uint32_t generation, unsigned i, struct addr *addr);

/* One plain sentence for what went wrong, with the remedy. */
const char *radius_trouble_text(enum radius_trouble t);

/* Check a reply in p[0..len) as the transport does: `request` is the packet that was sent (its id and Request Authenticator
 * are used). RADIUS_OK, *len cut to what radcli may see, and *service is the Service-Type (-1 none, 0 one that says nothing; of several one
 * that is not ours); otherwise why it is dropped (RADIUS_NO_ANSWER: not even well formed, or not ours). For tests and fuzzing too. */
enum radius_trouble radius_verify(
    uint8_t *p, size_t *len, const uint8_t *request, const char *secret, int unsigned_ok, int *service);

#endif
