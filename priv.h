/* SPDX-License-Identifier: MIT */
/* Giving up privileges: the one block that every role goes through (style: chroot, groups, ids, rlimits, seccomp). */
#ifndef MAILSTILE_PRIV_H
#define MAILSTILE_PRIV_H

#include <stdint.h>
#include <sys/types.h>

/* The users of the house, resolved once by main. When main is not root all are its own and `root` is 0. */
struct priv_ids {
	int root;
	uid_t smtp_uid, spool_uid, send_uid, remote_uid;
	gid_t smtp_gid, spool_gid;
};

enum priv_role { PRIV_SMTP, PRIV_WARDEN, PRIV_RELAY, PRIV_CLEAN, PRIV_REMOTE, PRIV_KEEPER, PRIV_RESOLVER };
#define PRIV_SESSION_ROLES 2 /* the first ones are of a session */
#define PRIV_FILTERS 6       /* the first ones have a system call filter */

/* Look the names of config.h up. 0, or -1 with the missing name in *missing. */
int priv_lookup(struct priv_ids *ids, const char **missing);

/* A user and a group by name, or by number. 0, or -1 when there is none of the name, or it is root's. */
int priv_find(const char *user, const char *group, uid_t *uid, gid_t *gid);
/*
 * open(), as root; where root itself may not, because it lacks the capability to (a systemd unit says which it has), with the file system rights of
 * `uid`, the owner to be. A descriptor, or -1 with errno.
 */
int priv_open(const char *path, int flags, uid_t uid);
/* Give a file just made to these, if `root`. Root without CAP_CHOWN keeps it: who needs it gets it open. 0, or -1 with errno. */
int priv_give(int fd, int root, uid_t uid, gid_t gid);
/* Become that user for good, with no other group. For what is no role: applets. Logs and ends the process when that fails. */
void priv_become(uid_t uid, gid_t gid);

/*
 * Become `role` for good: chroot to `dirfd` (-1: stay), drop groups and ids, check that they cannot come back, set rlimits,
 * no_new_privs, not dumpable. Without root only the parts that need none. Never returns with privileges left: on any failure logs and
 * ends the process. The system call filter is priv_filter(), apart because a role may still need to open something first.
 */
void priv_drop(const struct priv_ids *ids, enum priv_role role, int dirfd);
/*
 * What each session's process does for itself, with or without the filter: `name` for ps(1) (15 octets), no processes of its own, no file
 * over `fsize` octets (UINT64_MAX = no limit), an end with its parent. When that is no longer `parent` (0: whoever it is), it ends the
 * process.
 */
void priv_session(enum priv_role role, const char *name, uint64_t fsize, pid_t parent);
/* The signal that ends a session's process with its parent. */
int priv_death_signal(enum priv_role role);
/* A fork whose child is the child of our parent: clone()'s flags. Needs <sched.h> and <signal.h>. */
#define PRIV_FORK_FLAGS (CLONE_PARENT | SIGCHLD)
/* Fork, under the filter, a child of our parent. As fork(), without its care for other threads, of which there are none. */
pid_t priv_fork(void);
/* Make the filters, once, so that forked processes need not. priv_filter() does it where nobody has. */
void priv_prepare(void);
/* Install the role's system call filter. A call outside it kills the process. Kernels without seccomp: a log line (once). */
void priv_filter(enum priv_role role);

/* Descriptors of a scheduler: for each delivery a socket, a file of recipients and the message, and all of them once more on their way. */
#define RELAY_NOFILE (8 * DELIVERIES_MAX + 64)

/* Those who ask RADIUS/TLS servers at once; the keeper has a descriptor for each. */
#define KEEPER_CHANNELS 96

/* Close every descriptor from `first` up. */
void priv_close_from(int first);

#endif
