/* SPDX-License-Identifier: MIT */
/*
 * The monitor of one session: holds the key, the RADIUS secrets and the right to write the spool, never reads a stranger's
 * octets as anything but the fields of a message, and decides everything smtp asks for.
 */
#ifndef MAILSTILE_WARDEN_H
#define MAILSTILE_WARDEN_H

#include "control.h"
#include "policy.h"
#include "priv.h"
#include "queue.h"
#include "share.h"

#include <stdint.h>

/* Exit statuses main understands. */
#define WARDEN_DONE 0
#define WARDEN_FAILED 111      /* could not serve; logged */
#define WARDEN_SMTP_CRASHED 99 /* the smtp process died by a signal or broke the protocol */

/* One session, as accepted. */
struct session {
	int rfd, wfd; /* the client */
	const struct listen_conf *listen;
	struct addr client;
	uint16_t client_port;
	struct addr local;
	uint16_t local_port;
	const char *info, *host; /* TCPREMOTEINFO, TCPREMOTEHOST (inetd), or NULL */
	int slot;                /* in struct share */
	struct policy_client client_policy;
};

/* What main hands to every session. */
struct house {
	struct config *config;
	struct share *share;
	struct priv_ids ids;
	uint32_t radius_generation;
	struct spool spool;               /* opened and checked; a session works on a copy */
	int spool_dir;                    /* the spool's directory */
	int jail;                         /* the empty directory, -1 without root */
	int null;                         /* /dev/null */
	unsigned closes;                  /* how many of `close` are in use */
	int close[LISTENERS_MAX * 2 + 4]; /* main's own descriptors, which a session must not keep */
};

/* Make what all sessions have in common; main calls it after each (re)load of the configuration. */
void warden_prepare(const struct house *h);

/* Become the warden of `se`: forks smtp, serves it, exits. Does not return. */
_Noreturn void warden_run(const struct house *h, struct session *se);

/*
 * The monitor proper, for tests: answers one request p[0..len) as the state allows. Returns 0, or -1 when the request breaks the
 * rules and the pair must end.
 */
struct warden;
int warden_dispatch(struct warden *w, const void *p, size_t len);
/* A warden for tests: no smtp process, answers go to `sock`. Owned by the module; one per process. */
struct warden *warden_for_test(const struct house *h, struct session *se, int sock);

#endif
