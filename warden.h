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
#include "smtp.h"

#include <stdint.h>

/* Exit statuses main understands. */
#define WARDEN_DONE 0
#define WARDEN_FAILED 111      /* could not serve; logged */
#define WARDEN_SMTP_CRASHED 99 /* the smtp process died by a signal or broke the protocol */

/* One session, as accepted. */
struct session {
	char sid[20]; /* its name in the log */
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
	pid_t parent;                     /* of sessions: main; 0 under inetd */
	unsigned closes;                  /* how many of `close` are in use */
	int close[LISTENERS_MAX * 2 + 9]; /* main's own descriptors, which a session must not keep */
};

/* Make what all sessions have in common; main calls it after each (re)load of the configuration. */
void session_prepare(const struct house *h);
/* A name for a new session: 16 random hexadecimal digits. */
void session_name(struct session *se);
/* What smtp may know of a session. */
void session_info(struct smtp_info *info, const struct config *c, const struct session *se);

/*
 * The two roles. `place` gives up what the role must not have, once for all sessions of a nursery: descriptors, privileges; signals are
 * set. For smtp it leaves 2, /dev/null, and 4, a copy of `keep`. Afterwards, and under the filter, the other function serves one session in
 * a process of its own: smtp with the client on 0 and 1 and its warden on 3, the warden with smtp at `sock`. These do not return.
 */
void session_smtp_place(const struct house *h, int keep);
_Noreturn void session_smtp(const struct house *h, const struct session *se);
void session_warden_place(const struct house *h);
_Noreturn void session_warden(const struct house *h, struct session *se, int sock);

/* Both for one session, with the client on descriptors 0 and 1. Does not return. */
_Noreturn void session_inetd(const struct house *h, struct session *se);

/*
 * The monitor proper, for tests: answers the requests p[0..len) as the state allows. Returns 0; -1 when they break the rules and the
 * pair must end; 1 when smtp cannot be answered, and it must end for that.
 */
struct warden;
int warden_dispatch(struct warden *w, const void *p, size_t len);
/* A warden for tests: no smtp process, answers go to `sock`. Owned by the module; one per process. */
struct warden *warden_for_test(const struct house *h, struct session *se, int sock);

#endif
