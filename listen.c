/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* Listening sockets: opening them, and keeping those that stay when the configuration changes. */
#include "listen.h"

#include "log.h"
#include "str.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int
open_socket(const struct addr *a, uint16_t port)
{
	struct sockaddr_storage ss;
	socklen_t len = addr_to_sockaddr(a, port, &ss);
	int one = 1;
	int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd == -1) {
		return -1;
	}
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	/* Inherited by what is accepted: a client that is gone must not hold us, small replies must not wait for each other. */
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (ss.ss_family == AF_INET6) {
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
	}
	if (bind(fd, (const struct sockaddr *)&ss, len) == -1 || listen(fd, 128) == -1) {
		int saved = errno;

		close(fd);
		errno = saved;
		return -1;
	}
	return fd;
}

static void
log_listen(const struct config *c, unsigned conf, const struct addr *a, uint16_t port, int error)
{
	struct log_line l;
	char text[ADDR_TEXT_MAX];

	log_begin(&l, error == 0 ? LOG_INFO : LOG_ERR, "listen");
	log_str(&l, "profile", profile_name(c->listen[conf].profile));
	log_fmt(&l, "addr", addr_is_v4(a) ? "%s:%u" : "[%s]:%u", addr_text(a, text), port);
	if (error != 0) {
		log_str(&l, "error", strerror(error));
	}
	log_end(&l);
}

/* The socket of `old` for this address, taken out of it, or -1. */
static int
take_old(struct listeners *old, const struct addr *a, uint16_t port)
{
	for (unsigned i = 0; i < old->n; i++) {
		struct listener *l = &old->l[i];

		if (l->fd != -1 && l->port == port && memcmp(&l->addr, a, sizeof *a) == 0) {
			int fd = l->fd;

			l->fd = -1;
			return fd;
		}
	}
	return -1;
}

static void
want(struct listeners *ls, struct listeners *old, const struct config *c, unsigned conf, const struct addr *a)
{
	struct listener *l = &ls->l[ls->n++];

	l->conf = conf;
	l->addr = *a;
	l->port = c->listen[conf].port;
	l->fd = take_old(old, a, l->port);
}

/* Open what is not open yet. A kernel without IPv6 is no fault where IPv4 was asked for as well. */
static void
open_missing(struct listeners *ls, const struct config *c)
{
	for (unsigned i = 0; i < ls->n; i++) {
		struct listener *l = &ls->l[i];

		if (l->fd != -1) {
			continue;
		}
		l->fd = open_socket(&l->addr, l->port);
		if (l->fd != -1 || !c->listen[l->conf].any || addr_is_v4(&l->addr) || errno != EAFNOSUPPORT) {
			log_listen(c, l->conf, &l->addr, l->port, l->fd == -1 ? errno : 0);
		}
	}
}

unsigned
listen_apply(struct listeners *ls, const struct config *c)
{
	static const struct addr any6;
	static const struct addr any4 = { .ip = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff } };
	struct listeners old = *ls;
	unsigned heard[LISTENERS_MAX] = { 0 };
	unsigned n = 0, unheard = 0;

	ls->n = 0;
	for (unsigned i = 0; i < c->listeners; i++) {
		if (c->listen[i].any) {
			want(ls, &old, c, i, &any6);
			want(ls, &old, c, i, &any4);
		} else {
			want(ls, &old, c, i, &c->listen[i].addr);
		}
	}
	/* First close what is not wanted: it may be in the way of what is. */
	listen_close(&old);
	open_missing(ls, c);
	for (unsigned i = 0; i < ls->n; i++) {
		if (ls->l[i].fd != -1) {
			heard[ls->l[i].conf]++;
			ls->l[n++] = ls->l[i];
		}
	}
	ls->n = n;
	for (unsigned i = 0; i < c->listeners; i++) {
		unheard += heard[i] == 0;
	}
	return unheard;
}

void
listen_close(struct listeners *ls)
{
	for (unsigned i = 0; i < ls->n; i++) {
		if (ls->l[i].fd != -1) {
			close(ls->l[i].fd);
		}
	}
	ls->n = 0;
}

void
listen_adopt(struct listeners *ls, int fd)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof ss;
	struct listener *l = &ls->l[ls->n];

	if (ls->n == LISTEN_SOCKETS_MAX || getsockname(fd, (struct sockaddr *)&ss, &len) == -1 ||
	    addr_from_sockaddr(&l->addr, &l->port, (const struct sockaddr *)&ss) == -1) {
		close(fd);
		return;
	}
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	l->fd = fd;
	ls->n++;
}
