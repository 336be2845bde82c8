/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The wire between our processes: one datagram is one message. An empty one would read as end of file and is never sent.
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

/* Room for this many descriptors in a message, more than any may bring: to see those that are too many. */
#define FDS_ROOM 4

union control {
	struct cmsghdr align;
	char mem[CMSG_SPACE(FDS_ROOM * sizeof(int))];
};

/*
 * The kernel counts the descriptors that are on their way between all processes of a user, and takes no more than the sender's
 * RLIMIT_NOFILE: those who are to receive them may have to wait for a processor. 1 after a while, 0 when it has been long enough.
 */
static int
wait_for_receivers(int *ms)
{
	*ms = *ms == 0 ? 1 : *ms * 2;
	return *ms <= 1024 && poll(NULL, 0, *ms) == 0;
}

int
msg_send_fds(int sock, const void *m, size_t len, const int *fd, unsigned fds)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)m, .iov_len = len };
	union control control;
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;
	int waited = 0;

	if (fds > 0) {
		memset(&control, 0, sizeof control);
		h.msg_control = control.mem;
		h.msg_controllen = (socklen_t)CMSG_SPACE(fds * sizeof *fd);
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = (socklen_t)CMSG_LEN(fds * sizeof *fd);
		memcpy(CMSG_DATA(&control.align), fd, fds * sizeof *fd);
	}
	do {
		n = sendmsg(sock, &h, MSG_NOSIGNAL);
	} while (n == -1 && (errno == EINTR || (errno == ETOOMANYREFS && wait_for_receivers(&waited))));
	return n == (ssize_t)len ? 0 : -1;
}

int
msg_send(int sock, const void *m, size_t len, int fd)
{
	return msg_send_fds(sock, m, len, &fd, fd != -1);
}

/* Take the descriptors out of a received message: the first `most` into got[], any further ones are closed. Returns how many came. */
static unsigned
take_descriptors(struct msghdr *h, int *got, unsigned most)
{
	unsigned count = 0;
	struct cmsghdr *c = CMSG_FIRSTHDR(h); /* not const: CMSG_DATA would cast that away */
	size_t n;

	/* The kernel gathers all descriptors of a message in one header. */
	if (c == NULL || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
		return 0;
	}
	n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	for (size_t i = 0; i < n; i++) {
		int fd;

		memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
		if (count < most) {
			got[count] = fd;
		} else {
			close(fd);
		}
		count++;
	}
	return count;
}

/* Wait until there is something to receive. 0 or -1 with errno. */
static int
wait_for_message(int sock, int timeout)
{
	struct pollfd p = { .fd = sock, .events = POLLIN };
	int r = timeout < 0 ? 1 : poll(&p, 1, timeout);

	if (r == 0) {
		errno = ETIMEDOUT;
	}
	return r > 0 ? 0 : -1;
}

long
msg_recv_fds(int sock, void *m, size_t cap, int *fd, unsigned *fds, int timeout)
{
	struct iovec iov = { .iov_base = m, .iov_len = cap };
	union control control;
	struct msghdr h = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.mem, .msg_controllen = sizeof control.mem
	};
	unsigned most = *fds, count;
	ssize_t n;

	*fds = 0;
	if (wait_for_message(sock, timeout) == -1) {
		return -1;
	}
	do {
		n = recvmsg(sock, &h, MSG_CMSG_CLOEXEC);
	} while (n == -1 && errno == EINTR);
	if (n == -1) {
		return -1;
	}
	count = take_descriptors(&h, fd, most);
	/* An empty message, which reads as the end, may have brought descriptors all the same. */
	if (n == 0 || count > most || (h.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
		for (unsigned i = 0; i < count && i < most; i++) {
			close(fd[i]);
		}
		errno = count > most ? EBADMSG : EMSGSIZE;
		return n == 0 ? 0 : -1;
	}
	*fds = count;
	return n;
}

long
msg_recv(int sock, void *m, size_t cap, int *fd, int timeout)
{
	int got = -1;
	unsigned fds = fd != NULL;
	long n = msg_recv_fds(sock, m, cap, &got, &fds, timeout);

	if (fd != NULL) {
		*fd = fds == 1 ? got : -1;
	}
	return n;
}
