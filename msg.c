/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The wire between smtp and warden: one datagram is one message. An empty one would read as end of file and is never sent.
 */
#include "msg.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int
msg_pair(int sv[2])
{
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv);
}

int
msg_send(int sock, const void *m, size_t len, int fd)
{
	/* The cast drops const for sendmsg(), which only reads. */
	struct iovec iov = { .iov_base = (void *)(uintptr_t)m, .iov_len = len };
	union {
		struct cmsghdr align;
		char mem[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	if (fd != -1) {
		memset(&control, 0, sizeof control);
		h.msg_control = control.mem;
		h.msg_controllen = sizeof control.mem;
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.align), &fd, sizeof fd);
	}
	do {
		n = sendmsg(sock, &h, MSG_NOSIGNAL);
	} while (n == -1 && errno == EINTR);
	return n == (ssize_t)len ? 0 : -1;
}

/* Take the descriptors out of a received message: the first into *got, any further ones are closed. Returns how many came. */
static int
take_descriptors(struct msghdr *h, int *got)
{
	int count = 0;
	struct cmsghdr *c = CMSG_FIRSTHDR(h); /* not const: CMSG_DATA would cast that away */
	size_t n;

	*got = -1;
	/* The kernel gathers all descriptors of a message in one header. */
	if (c == NULL || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
		return 0;
	}
	n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	for (size_t i = 0; i < n; i++) {
		int fd;

		memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
		if (count++ == 0) {
			*got = fd;
		} else {
			close(fd);
		}
	}
	return count;
}

long
msg_recv(int sock, void *m, size_t cap, int *fd, int timeout)
{
	struct iovec iov = { .iov_base = m, .iov_len = cap };
	union {
		struct cmsghdr align;
		char mem[CMSG_SPACE(4 * sizeof(int))]; /* room to see more than the one that is allowed */
	} control;
	struct msghdr h = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.mem, .msg_controllen = sizeof control.mem
	};
	ssize_t n;
	int got, count;

	if (timeout >= 0) {
		struct pollfd p = { .fd = sock, .events = POLLIN };
		int r = poll(&p, 1, timeout);

		if (r <= 0) {
			errno = r == 0 ? ETIMEDOUT : errno;
			return -1;
		}
	}
	do {
		n = recvmsg(sock, &h, MSG_CMSG_CLOEXEC);
	} while (n == -1 && errno == EINTR);
	if (n == -1) {
		return -1;
	}
	count = take_descriptors(&h, &got);
	if (n == 0) {
		/* The end, or an empty message, which may have brought a descriptor all the same. */
		if (got != -1) {
			close(got);
		}
		return 0;
	}
	if (fd == NULL ? count > 0 : count > 1) {
		if (got != -1) {
			close(got);
		}
		errno = EBADMSG;
		return -1;
	}
	if (fd != NULL) {
		*fd = got;
	}
	if ((h.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
		if (got != -1) {
			close(got);
		}
		errno = EMSGSIZE;
		return -1;
	}
	return n;
}
