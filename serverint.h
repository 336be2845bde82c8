/* SPDX-License-Identifier: MIT */
/* What server.c and stop.c share: main's state. Nothing else includes this. */
#ifndef MAILSTILE_SERVERINT_H
#define MAILSTILE_SERVERINT_H

#include "house.h"
#include "listen.h"

#include <stdint.h>
#include <sys/types.h>

struct server {
	struct house house;
	struct listeners listeners;
	const char *home;
	const char *pidfile;
	const char *ctl; /* where the control socket is, NULL or "" = nowhere */
	int argc;
	char **argv;
	pid_t resolver;
	int resolved;         /* what it says comes out here */
	uint32_t resolving;   /* the generation of radius.conf it was started for */
	int64_t resolve_at;   /* mono_ms(), INT64_MAX = never */
	int64_t listen_at;    /* try again to open listeners */
	unsigned unheard;     /* listen lines without a socket */
	int64_t reexec_after; /* no re-execution before */
	int crashed;          /* a child died by a signal: re-execute */
	int lingering;        /* an smtp process without a warden is about to end */
	int64_t pause_until;  /* out of descriptors or processes: leave the listeners alone */
	int64_t revive_at;    /* no start of nurseries that have died before */
	int64_t log_second;
	unsigned log_lines, log_lost; /* lines about refused connections in this second */
};
extern struct server server;

/* ---- server.c ---- */

/* Catch signals; they come only while main waits. */
void server_set_signals(void);
/* Open the control socket, if there is to be one. What cannot be is logged. */
void server_open_control(void);
/* Take note of all children that have ended. */
void server_reap(void);

/* ---- stop.c ---- */

/*
 * Start over in a fresh image of the program, which takes over listeners, sessions and the shared map. Returns only when that cannot be now
 * (logged): main goes on as it is.
 */
void server_reexec(void);
/* At the start: take over what main had before it re-executed itself. The share's descriptor, or -1: it did not. */
int server_inherited(void);
/*
 * Let running sessions finish what they are at, for DRAIN_SECONDS and a little more at most; those that only wait are told 421. Then
 * end all else.
 */
void server_drain(void);

#endif
