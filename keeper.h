/* SPDX-License-Identifier: MIT */
/*
 * RADIUS over TLS (RFC 6614): one process, `stile-radius`, keeps a connection to each server that has the word `tls` in radius.conf, for all sessions and
 * the accountant. Who wants to ask such a server gets a channel to it: packets go in and come out as they would through a UDP socket, sealed with
 * the server's secret and checked by both sides. The process gives each packet another id, and so another seal, and turns that back in the
 * answer. It also probes servers that have the word `status` while they are silent (RFC 5997).
 *
 * The way to it is a pair of sockets, made by main and inherited by wardens, which outlives the process.
 */
#ifndef MAILSTILE_KEEPER_H
#define MAILSTILE_KEEPER_H

#include "radius.h"
#include "warden.h"

#include <stdint.h>
#include <sys/types.h>

/* What a channel says instead of an answer, once, before it closes: there will be none. Shorter than any packet. */
struct keeper_note {
	uint32_t trouble; /* enum radius_trouble */
	int32_t error;    /* its number */
};

/* What comes with the end of a channel. */
struct keeper_ask {
	uint64_t server; /* keeper_name() */
};

#if KEEPER

/* main: make the way, if `h`'s configuration needs one and there is none; or take over those two descriptors after a re-execution. */
void keeper_open(const struct house *h);
void keeper_adopt(const int door[2]);
/* The descriptors, -1 = none: [0] is the wardens' end, [1] must not be theirs. */
const int *keeper_door(void);
/* For processes that must have neither. */
void keeper_close(void);

/* As accountant.h's. */
void keeper_init(void);
void keeper_renew(void);
void keeper_tend(const struct house *h);
int64_t keeper_due(void);
int keeper_died(pid_t pid, int status);
void keeper_stop(void);

/* The process, its end of the way being `door`. `lazy`: connect when somebody asks. */
_Noreturn void keeper_run(const struct house *h, int door, int lazy);
/* The probes of silent servers: at the time that it says, mono_ms(). Up to RADIUS_SERVERS_MAX descriptors to wait for go to `fd`, *n is counted on. */
int64_t probe_tend(const struct house *h, int64_t now, int *fd, unsigned *n);

#else

/* clang-format off */
static inline void keeper_open(const struct house *h) { (void)h; }
static inline void keeper_close(void) {}
static inline void keeper_init(void) {}
static inline void keeper_renew(void) {}
static inline void keeper_tend(const struct house *h) { (void)h; }
static inline int64_t keeper_due(void) { return INT64_MAX; }
static inline int keeper_died(pid_t pid, int status) { (void)pid; (void)status; return 0; }
static inline void keeper_stop(void) {}
/* clang-format on */

#endif

#if RADSEC

/*
 * For applets and inetd, which have no main: a child of the caller's that keeps connections until the caller ends, if `h`'s configuration, share, ids and
 * jail, spool_dir and null (-1 = none) are set and it names a server with `tls`. And its end, for a caller that goes on.
 */
void keeper_alone(const struct house *h);
void keeper_end(void);
/* A server's name for keeper_ask. */
uint64_t keeper_name(const struct radius_server *server);
/* A channel to it, the caller's to close; -1: there is no way to the keeper. */
int keeper_channel(const struct radius_server *server);
/* Is what a channel said, p[0..n), no packet? 1: why is in a->trouble and a->error. */
int keeper_note(const uint8_t *p, size_t n, struct radius_answer *a);
/* For RADIUS_TLS. */
const char *keeper_tls_text(int error);

#else

/* clang-format off */
static inline void keeper_alone(const struct house *h) { (void)h; }
static inline void keeper_end(void) {}
static inline int keeper_channel(const struct radius_server *server) { (void)server; return -1; }
static inline int keeper_note(const uint8_t *p, size_t n, struct radius_answer *a) { (void)p; (void)n; (void)a; return 1; }
static inline const char *keeper_tls_text(int error) { (void)error; return ""; }
/* clang-format on */

#endif
#endif
