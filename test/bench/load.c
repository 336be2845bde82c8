/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * An SMTP load generator for `make bench`: blocking, one process a session, each from a loopback address of its own, as customers
 * come from. Bounded by a count and, with -d, by a time.
 *
 *   load [-pqrsS] [-a USER:PASSWORD] [-d SECONDS] PORT SESSIONS MESSAGES PER_CONNECTION OCTETS RCPT
 *
 * Sends MESSAGES in all over SESSIONS processes, PER_CONNECTION to a connection, of OCTETS each. PER_CONNECTION 0: MESSAGES
 * connections that only read the banner, log in if told to, and QUIT.
 *
 *   -p  one command at a time; else MAIL, RCPT and DATA go in one write where the server offers PIPELINING (RFC 2920)
 *   -q  say with QUIT that nothing more will come; a server may then leave its 221 out
 *   -s  TLS from the first octet; -S by STARTTLS. TLS 1.2, no certificate check
 *   -r  resume the session of the connection before
 *   -a  AUTH PLAIN
 *   -d  begin no message (or connection) after this time
 *
 * Prints `messages connections resumed lost seconds`. Exit 1 when anything was not answered as it should.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A session changes its address with each connection, since servers limit what one may do; resumed TLS sessions are bound to few. */
#define ADDRESSES 64
#define RESUMED_ADDRESSES 3

static struct {
	int one_by_one, half_close, tls, starttls, resume, port;
	double seconds;
	const char *login; /* base64 */
	const char *rcpt;
	long per;
} opt;

/* One a session, in shared memory. */
struct result {
	long messages, connections, resumed, lost;
};

static struct {
	int fd;
	SSL *ssl;
	char in[4096];
	size_t in_len;
	int pipelining; /* offered in the last reply to EHLO */
} link_;

static SSL_CTX *context;
static SSL_SESSION *last[RESUMED_ADDRESSES];
static long turn; /* connections so far of this process */
static struct timespec begin;

static double
elapsed(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - begin.tv_sec) + (double)(now.tv_nsec - begin.tv_nsec) / 1e9;
}

/* Read one reply, all its lines; its code, or -1. */
static int
reply(void)
{
	static const int one = 1;

	for (;;) {
		char *lf = memchr(link_.in, '\n', link_.in_len);
		size_t room = sizeof link_.in - link_.in_len;
		ssize_t n;

		if (lf != NULL) {
			int code = atoi(link_.in);
			int done = link_.in[3] == ' ';

			link_.pipelining |= strncasecmp(link_.in + 4, "PIPELINING", 10) == 0;
			link_.in_len -= (size_t)(lf + 1 - link_.in);
			memmove(link_.in, lf + 1, link_.in_len);
			if (done) {
				return code;
			}
			continue;
		}
		/* Acknowledge at once: some servers leave Nagle's algorithm on and would wait for that. */
		setsockopt(link_.fd, IPPROTO_TCP, TCP_QUICKACK, &one, sizeof one);
		if (link_.ssl != NULL) {
			n = SSL_read(link_.ssl, link_.in + link_.in_len, (int)room);
		} else {
			n = read(link_.fd, link_.in + link_.in_len, room);
		}
		if (n <= 0) {
			return -1;
		}
		link_.in_len += (size_t)n;
	}
}

static int
expect(int code)
{
	int got = reply();

	if (got != code) {
		fprintf(stderr, "load: expected %d, got %d\n", code, got);
	}
	return got == code ? 0 : -1;
}

static int
put(const char *p, size_t len)
{
	while (len > 0) {
		ssize_t n = link_.ssl != NULL ? SSL_write(link_.ssl, p, (int)len) : write(link_.fd, p, len);

		if (n <= 0) {
			perror("load: write");
			return -1;
		}
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

static int
say(const char *text, int code)
{
	return put(text, strlen(text)) == -1 ? -1 : expect(code);
}

static int
handshake(struct result *r)
{
	SSL_SESSION **mine = &last[turn % RESUMED_ADDRESSES];

	link_.ssl = SSL_new(context);
	SSL_set_fd(link_.ssl, link_.fd);
	if (opt.resume && *mine != NULL) {
		SSL_set_session(link_.ssl, *mine);
	}
	if (SSL_connect(link_.ssl) != 1) {
		fprintf(stderr, "load: no TLS handshake\n");
		return -1;
	}
	r->resumed += SSL_session_reused(link_.ssl);
	if (opt.resume) {
		SSL_SESSION_free(*mine);
		*mine = SSL_get1_session(link_.ssl);
	}
	return 0;
}

static int
connect_from(long i)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)opt.port) };
	struct sockaddr_in from = { .sin_family = AF_INET };
	int one = 1;

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	from.sin_addr.s_addr = htonl(
	    0x7f010001 + (uint32_t)(i % 250) + ((uint32_t)(turn % (opt.resume ? RESUMED_ADDRESSES : ADDRESSES)) << 8));
	link_.in_len = 0;
	link_.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (link_.fd == -1) {
		return -1;
	}
	/* A port is chosen when the other end is known, so that ports do not run out. */
	setsockopt(link_.fd, IPPROTO_IP, 24 /* IP_BIND_ADDRESS_NO_PORT */, &one, sizeof one);
	setsockopt(link_.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (bind(link_.fd, (struct sockaddr *)&from, sizeof from) == -1 ||
	    connect(link_.fd, (struct sockaddr *)&to, sizeof to) == -1) {
		perror("load: connect");
		return -1;
	}
	return 0;
}

/*
 * Does the server speak? With a full listen queue the kernel may forget a connection that its client takes for open, and a client that waits
 * for the greeting waits for ever. Such a one is given up after a second, or when time is up.
 */
static int
greeted(void)
{
	struct pollfd p = { .fd = link_.fd, .events = POLLIN };
	double left = opt.seconds == 0 ? 1 : opt.seconds - elapsed();

	return opt.tls || poll(&p, 1, left > 1 ? 1000 : left < 0.05 ? 50 : (int)(left * 1000)) == 1;
}

/* 0, 1 when the connection was lost, or -1. */
static int
open_session(long i, struct result *r)
{
	char auth[512];

	if (connect_from(i) == -1) {
		return -1;
	}
	if (!greeted()) {
		close(link_.fd);
		r->lost++;
		turn++;
		return 1;
	}
	if ((opt.tls && handshake(r) == -1) || expect(220) == -1) {
		return -1;
	}
	r->connections++;
	if (opt.starttls &&
	    (say("EHLO bench.example\r\n", 250) == -1 || say("STARTTLS\r\n", 220) == -1 || handshake(r) == -1)) {
		return -1;
	}
	link_.pipelining = 0;
	if ((opt.per > 0 || opt.login != NULL) && say("EHLO bench.example\r\n", 250) == -1) {
		return -1;
	}
	if (opt.login != NULL) {
		snprintf(auth, sizeof auth, "AUTH PLAIN %s\r\n", opt.login);
		return say(auth, 235);
	}
	return 0;
}

static int
close_session(void)
{
	int rc = put("QUIT\r\n", 6);

	if (opt.half_close) {
		if (link_.ssl != NULL) {
			SSL_shutdown(link_.ssl);
		}
		shutdown(link_.fd, SHUT_WR);
	}
	if (rc == 0) {
		int code = reply();

		rc = code == 221 || (opt.half_close && code == -1) ? 0 : -1;
	}
	if (link_.ssl != NULL) {
		SSL_shutdown(link_.ssl); /* or its session could not be resumed */
		SSL_free(link_.ssl);
		link_.ssl = NULL;
	}
	close(link_.fd);
	turn++;
	return rc;
}

static int
one_message(const char *text, size_t len)
{
	char line[3][300];
	char all[900];

	snprintf(line[0], sizeof line[0], "MAIL FROM:<a@bench.example>\r\n");
	snprintf(line[1], sizeof line[1], "RCPT TO:<%s>\r\n", opt.rcpt);
	snprintf(line[2], sizeof line[2], "DATA\r\n");
	if (opt.one_by_one || !link_.pipelining) {
		if (say(line[0], 250) == -1 || say(line[1], 250) == -1 || say(line[2], 354) == -1) {
			return -1;
		}
	} else {
		snprintf(all, sizeof all, "%s%s%s", line[0], line[1], line[2]);
		if (say(all, 250) == -1 || expect(250) == -1 || expect(354) == -1) {
			return -1;
		}
	}
	return put(text, len) == -1 ? -1 : expect(250);
}

static int
session(long i, long count, const char *text, size_t len, struct result *r)
{
	while (count > 0 && (opt.seconds == 0 || elapsed() < opt.seconds)) {
		int rc = open_session(i, r);

		if (rc == -1) {
			return 1;
		}
		if (rc == 1) {
			continue;
		}
		count -= opt.per == 0;
		for (long n = 0; n < opt.per && count > 0 && (n == 0 || opt.seconds == 0 || elapsed() < opt.seconds);
		     n++) {
			if (one_message(text, len) == -1) {
				return 1;
			}
			r->messages++;
			count--;
		}
		if (close_session() == -1) {
			return 1;
		}
	}
	return 0;
}

static char *
make_text(size_t octets, size_t *len)
{
	static const char head[] = "From: bench <a@bench.example>\r\nTo: b@bench.example\r\nSubject: bench\r\n"
				   "Date: Sun, 22 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@bench.example>\r\n\r\n";
	char *t = malloc(octets + sizeof head + 80);
	size_t n = sizeof head - 1;

	if (t == NULL) {
		exit(1);
	}
	memcpy(t, head, n);
	while (n < octets) {
		memset(t + n, 'x', 70);
		memcpy(t + n + 70, "\r\n", 2);
		n += 72;
	}
	memcpy(t + n, ".\r\n", 3);
	*len = n + 3;
	return t;
}

/* USER:PASSWORD as AUTH PLAIN wants it. */
static const char *
plain(const char *login)
{
	static char out[512];
	const char *colon = strchr(login, ':');
	unsigned char raw[256];

	if (colon == NULL || strlen(login) > sizeof raw - 2) {
		return NULL;
	}
	raw[0] = '\0';
	memcpy(raw + 1, login, strlen(login));
	raw[1 + (colon - login)] = '\0';
	EVP_EncodeBlock((unsigned char *)out, raw, 1 + (int)strlen(login));
	return out;
}

static int
options(int argc, char **argv)
{
	int c;

	while ((c = getopt(argc, argv, "pqrsSa:d:")) != -1) {
		switch (c) {
		case 'p':
			opt.one_by_one = 1;
			break;
		case 'q':
			opt.half_close = 1;
			break;
		case 'r':
			opt.resume = 1;
			break;
		case 's':
			opt.tls = 1;
			break;
		case 'S':
			opt.starttls = 1;
			break;
		case 'a':
			opt.login = plain(optarg);
			break;
		case 'd':
			opt.seconds = atof(optarg);
			break;
		default:
			return -1;
		}
	}
	return argc - optind == 6 ? 0 : -1;
}

int
main(int argc, char **argv)
{
	struct result sum = { 0, 0, 0, 0 };
	struct result *r;
	static const char *text;
	int bad = 0, status;
	size_t len;

	if (options(argc, argv) == -1) {
		fprintf(stderr,
		    "usage: load [-pqrsS] [-a USER:PASSWORD] [-d SECONDS] "
		    "PORT SESSIONS MESSAGES PER_CONNECTION OCTETS RCPT\n");
		return 100;
	}
	argv += optind;
	opt.port = atoi(argv[0]);
	long sessions = atol(argv[1]), count = atol(argv[2]);
	opt.per = atol(argv[3]);
	text = make_text((size_t)atol(argv[4]), &len);

	opt.rcpt = argv[5];
	context = SSL_CTX_new(TLS_client_method());
	SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION);
	SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF);
	r = mmap(NULL, (size_t)sessions * sizeof *r, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (r == MAP_FAILED) {
		return 1;
	}
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (long i = 0; i < sessions; i++) {
		if (fork() == 0) {
			_exit(session(i, count / sessions + (i < count % sessions), text, len, r + i));
		}
	}
	while (wait(&status) != -1) {
		bad += status != 0;
	}
	double seconds = elapsed();
	for (long i = 0; i < sessions; i++) {
		sum.messages += r[i].messages;
		sum.connections += r[i].connections;
		sum.resumed += r[i].resumed;
		sum.lost += r[i].lost;
	}
	printf("%ld %ld %ld %ld %.4f\n", sum.messages, sum.connections, sum.resumed, sum.lost, seconds);
	return bad > 0;
}
