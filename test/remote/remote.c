/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * A delivery process by itself, for test/integration/remote.py, which plays the scheduler: remote HOME SOCKET [DNS-PORT [MX-PORT]]. Reads
 * the control files below HOME; name servers are 127.0.0.1 at DNS-PORT; port 25 of MX hosts is MX-PORT. All addresses that tests can use
 * are this machine's own: here only 127.0.0.9 counts as such. REMOTE_TIME in the environment is what the clock says.
 * remote --facts shows the layout of what goes over the socket, and limits.
 */
#include "relay.h"
#include "remoteint.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int __real_remote_open(const struct addr *addr, uint16_t port, int ms, int sock);
int __wrap_remote_open(const struct addr *addr, uint16_t port, int ms, int sock);
int __wrap_remote_is_us(const struct addr *addr);
time_t __wrap_time(time_t *t);

static uint16_t mx_port;

int
__wrap_remote_open(const struct addr *addr, uint16_t port, int ms, int sock)
{
	return __real_remote_open(addr, port == 25 && mx_port != 0 ? mx_port : port, ms, sock);
}

int
__wrap_remote_is_us(const struct addr *addr)
{
	char text[ADDR_TEXT_MAX];

	return strcmp(addr_text(addr, text), "127.0.0.9") == 0;
}

time_t
__wrap_time(time_t *t)
{
	const char *said = getenv("REMOTE_TIME");
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	(void)t; /* remotes give none */
	return said == NULL ? ts.tv_sec : (time_t)strtoll(said, NULL, 10);
}

static void
emit(struct diag *d, enum diag_level level, const char *file, int line, const char *text)
{
	(void)d;
	fprintf(stderr, "%d %s:%d %s\n", (int)level, file == NULL ? "-" : file, line, text);
}

#define FACT(name, value) printf("%s %zu\n", name, (size_t)(value))

static int
facts(void)
{
	FACT("job", sizeof(struct deliver_job));
	FACT("job.domain", offsetof(struct deliver_job, domain));
	FACT("job.sender", offsetof(struct deliver_job, sender));
	FACT("rcpt", sizeof(struct deliver_rcpt));
	FACT("report", sizeof(struct deliver_report));
	FACT("report.text", offsetof(struct deliver_report, text));
	FACT("done", sizeof(struct deliver_done));
	FACT("done.peer", offsetof(struct deliver_done, peer));
	FACT("remote", sizeof(struct remote));
	FACT("DELIVER_RCPTS_MAX", DELIVER_RCPTS_MAX);
	FACT("DELIVER_MESSAGES_MAX", DELIVER_MESSAGES_MAX);
	FACT("DELIVER_TEXT_MAX", DELIVER_TEXT_MAX);
	FACT("BUILD_EPOCH", BUILD_EPOCH);
	return 0;
}

int
main(int argc, char **argv)
{
	static struct config config;
	static struct house house;
	struct diag d = { .emit = emit };
	struct relay_conf *r = &config.relay;

	if (argc == 2 && strcmp(argv[1], "--facts") == 0) {
		return facts();
	}
	if (argc < 3 || argc > 5 || (config.secrets = secret_map()) == NULL) {
		return 100;
	}
	relay_conf_load(r, argv[1], "mail.example.net", config.secrets, &d);
	if (!r->on) {
		return 100;
	}
	r->dns.servers = 1;
	addr_parse(&r->dns.server[0], "127.0.0.1", 9);
	r->dns.port = argc > 3 ? (uint16_t)strtoul(argv[3], NULL, 10) : 9;
	r->dns.timeout = 1;
	r->dns.attempts = 2;
	mx_port = argc > 4 ? (uint16_t)strtoul(argv[4], NULL, 10) : 0;
	house.config = &config;
	signal(SIGPIPE, SIG_IGN); /* as main does */
	remote_run(&house, (int)strtol(argv[2], NULL, 10));
}
