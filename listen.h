/* SPDX-License-Identifier: MIT */
/* Listening sockets. main only. */
#ifndef MAILSTILE_LISTEN_H
#define MAILSTILE_LISTEN_H

#include "control.h"

/* `any` listeners have two sockets where the system keeps IPv4 and IPv6 apart. */
struct listener {
	int fd;
	unsigned conf; /* index in config->listen */
	struct addr addr;
	uint16_t port;
};

#define LISTEN_SOCKETS_MAX (LISTENERS_MAX * 2)

struct listeners {
	unsigned n;
	struct listener l[LISTEN_SOCKETS_MAX];
};

/*
 * Make `ls` what `c` asks for: sockets that are already there are kept, others opened, the rest closed. Each failure is logged. Returns
 * the number of listen lines without a socket.
 */
unsigned listen_apply(struct listeners *ls, const struct config *c);
void listen_close(struct listeners *ls);
/* For a re-execution: take descriptor `fd` over as one of `ls`. */
void listen_adopt(struct listeners *ls, int fd);

#endif
