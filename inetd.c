/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * `mailstile inetd`: one session on descriptors 0 and 1, for tcpserver, tcpsvd and inetd. This process becomes the session's warden. What
 * sessions share (limits, dead servers, TLS sessions) is not shared here: each session is alone.
 */
#include "house.h"
#include "keeper.h"
#include "log.h"
#include "options.h"
#include "radius.h"
#include "server.h"
#include "str.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *
env(const char *name)
{
	const char *v = getenv(name);

	return v != NULL && v[0] != '\0' ? v : NULL;
}

/* The client's (or our) address: from the environment, as tcpserver and tcpsvd give it, else from the socket. */
static void
endpoint(const char *ip_name, const char *port_name, int (*ask)(int, struct sockaddr *, socklen_t *), struct addr *a,
    uint16_t *port)
{
	const char *ip = env(ip_name);
	const char *p = env(port_name);
	struct sockaddr_storage ss;
	socklen_t len = sizeof ss;
	uint64_t n;

	memset(a, 0, sizeof *a);
	*port = 0;
	if (ip != NULL && addr_parse(a, ip, strlen(ip)) == 0) {
		if (p != NULL && parse_u64(p, strlen(p), 65535, &n) == 0) {
			*port = (uint16_t)n;
		}
		return;
	}
	if (ask(0, (struct sockaddr *)&ss, &len) == 0) {
		addr_from_sockaddr(a, port, (const struct sockaddr *)&ss);
	}
}

/* The rules of tcp.smtp.cdb, and over them what the caller's own rules have put into the environment. */
static void
client_policy(const struct config *c, struct session *se)
{
	const char *relay = getenv("RELAYCLIENT");
	const char *bytes = env("DATABYTES");
	uint64_t n;

	policy_client(c, &se->client, se->info, se->host, &se->client_policy);
	if (relay != NULL && str_copy(se->client_policy.append, sizeof se->client_policy.append, relay) == 0) {
		se->client_policy.relay = 1;
	}
	if (bytes != NULL && parse_u64(bytes, strlen(bytes), INT64_MAX, &n) == 0) {
		se->client_policy.databytes = n;
	}
}

static int
give_up(int status)
{
	static const char text[] = "421 4.3.0 the server is not set up, try again later\r\n";

	log_msg(LOG_ERR, "stop", "cannot serve, status %d", status);
	write_all(1, text, sizeof text - 1);
	return status;
}

static int
parse_profile(const char *s, enum profile *p)
{
	for (unsigned i = 0; i < PROFILE_COUNT; i++) {
		if (strcmp(s, profile_name((enum profile)i)) == 0) {
			*p = (enum profile)i;
			return 0;
		}
	}
	return -1;
}

int
inetd_main(int argc, char **argv)
{
	static struct house h;
	static struct session se;
	static struct radius_addresses addresses;
	static struct listen_conf listen = { .profile = PROFILE_SMTP };
	struct diag d = { .emit = diag_to_log };
	const char *home = NULL;
	enum log_target target = LOG_TO_SYSLOG;
	struct options o;
	int opt, rc;

	(void)argc;
	options_begin(&o, argv);
	while ((opt = options_next(&o, "eH:P:")) != 0) {
		if (opt == 'e') {
			target = LOG_TO_STDERR;
		} else if (opt == 'H') {
			home = o.value;
		} else if (opt != 'P' || parse_profile(o.value, &listen.profile) == -1) {
			print(STDERR_FILENO,
			    "usage: mailstile inetd [-e] [-H home] [-P submission|submissions|smtp|inside]\n");
			return 100;
		}
	}
	signal(SIGPIPE, SIG_IGN);
	priv_close_from(3);
	log_open(target);
	rc = house_open(&h, home, &d);
	if (rc != 0) {
		return give_up(rc);
	}
	if (listen.profile == PROFILE_SMTP && !h.config->have_rcpthosts) {
		log_msg(LOG_WARNING, "config", "no usable control/rcpthosts: strangers may send to no domain");
	}
	h.share = share_open(-1);
	if (h.share == NULL) {
		return give_up(111);
	}
	session_name(&se);
	se.listen = &listen;
	se.info = env("TCPREMOTEINFO");
	se.host = env("TCPREMOTEHOST");
	endpoint("TCPREMOTEIP", "TCPREMOTEPORT", getpeername, &se.client, &se.client_port);
	endpoint("TCPLOCALIP", "TCPLOCALPORT", getsockname, &se.local, &se.local_port);
	client_policy(h.config, &se);
	if (se.client_policy.deny) {
		return 100;
	}
	radius_resolve(&h.config->radius, &addresses);
	radius_set_addresses(h.share, h.radius_generation, &addresses);
	keeper_alone(&h);
	session_inetd(&h, &se);
}
