/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * A stub resolver. Runs where strangers' answers may do least: in the RADIUS resolver and in delivery processes, never in main, which
 * only reads the two files. What it trusts is the path to the name servers of resolv.conf, as every stub resolver does; of an answer it
 * reads the answer section alone, since nobody needs to tell us about names we did not ask for. Names are compared in wire form, lower
 * case. A pointer in a compressed name must lead backwards, so no chain of them has a loop.
 */
#include "dns.h"

#include "ctlfile.h"
#include "str.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER 12
#define NAME_MAX_WIRE 255
#define JUMPS_MAX 127 /* pointers in a name: one for each label, at most */
#define CNAMES_MAX 8
#define ADDRS_MAX 16 /* of each family */

static const char resolv_conf[] = "/etc/resolv.conf";
static const char etc_hosts[] = "/etc/hosts";

/* ---- resolv.conf and hosts ---- */

/* Give each line of a file to `f`; lines that are too long are left out. */
static void
each_line(const char *path, struct dns_conf *c, void (*f)(struct dns_conf *c, char *line))
{
	char mem[1024];
	size_t len = 0;
	int skip = 0, fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	ssize_t n;

	while (fd != -1 && (n = read(fd, mem + len, sizeof mem - 1 - len)) > 0) {
		char *line = mem, *lf;

		len += (size_t)n;
		mem[len] = '\0';
		while ((lf = memchr(line, '\n', len - (size_t)(line - mem))) != NULL) {
			*lf = '\0';
			if (!skip) {
				f(c, line);
			}
			skip = 0;
			line = lf + 1;
		}
		len -= (size_t)(line - mem);
		memmove(mem, line, len);
		if (len == sizeof mem - 1) {
			skip = 1;
			len = 0;
		}
	}
	if (fd != -1) {
		close(fd);
		if (len > 0 && !skip) {
			mem[len] = '\0';
			f(c, mem); /* the last line lacks its end */
		}
	}
}

/* The number behind `name` in an option's word, between 1 and `max`. */
static void
option(const char *word, const char *name, unsigned max, unsigned *out)
{
	size_t len = strlen(name);
	uint64_t v;

	if (strncmp(word, name, len) == 0 && parse_u64(word + len, strlen(word + len), 1000000, &v) == 0) {
		*out = v < 1 ? 1 : v > max ? max : (unsigned)v;
	}
}

static void
resolv_line(struct dns_conf *c, char *line)
{
	const char *key, *word;
	char *rest = line;

	line[strcspn(line, "\r")] = '\0';
	key = ctl_next_word(&rest);
	if (key == NULL || key[0] == '#' || key[0] == ';') {
		return;
	}
	if (strcmp(key, "nameserver") == 0) {
		word = ctl_next_word(&rest);
		if (word != NULL && c->servers < DNS_SERVERS_MAX &&
		    addr_parse(&c->server[c->servers], word, strlen(word)) == 0) {
			c->servers++;
		}
	} else if (strcmp(key, "search") == 0 || strcmp(key, "domain") == 0) {
		str_copy(c->search, sizeof c->search, rest);
	} else if (strcmp(key, "options") == 0) {
		while ((word = ctl_next_word(&rest)) != NULL) {
			option(word, "timeout:", 30, &c->timeout);
			option(word, "attempts:", 5, &c->attempts);
		}
	}
}

static void
hosts_line(struct dns_conf *c, char *line)
{
	static const struct addr none4 = { { [10] = 0xff, [11] = 0xff } }, none6;
	const char *word;
	char *rest = line;
	struct addr a;

	line[strcspn(line, "#\r")] = '\0';
	word = ctl_next_word(&rest);
	/* Lists of what is to be blocked say 0.0.0.0, which would lead here. */
	if (word == NULL || addr_parse(&a, word, strlen(word)) == -1 || memcmp(&a, &none4, sizeof a) == 0 ||
	    memcmp(&a, &none6, sizeof a) == 0) {
		return;
	}
	while (c->hosts < DNS_HOSTS_MAX && (word = ctl_next_word(&rest)) != NULL) {
		struct dns_host *h = &c->host[c->hosts];

		if (str_copy(h->name, sizeof h->name, word) == 0) {
			h->addr = a;
			c->hosts++;
		}
	}
}

static uint64_t
stamp(const char *resolv, const char *hosts)
{
	const char *const path[] = { resolv == NULL ? resolv_conf : resolv, hosts == NULL ? etc_hosts : hosts };
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (int i = 0; i < 2; i++) {
		struct stat st;
		uint64_t v[4] = { 0 };

		if (stat(path[i], &st) == 0) {
			v[0] = st.st_ino;
			v[1] = (uint64_t)st.st_size;
			v[2] = (uint64_t)st.st_mtim.tv_sec;
			v[3] = (uint64_t)st.st_mtim.tv_nsec;
		}
		for (int k = 0; k < 4; k++) {
			h = (h ^ v[k]) * UINT64_C(0x100000001b3);
			h ^= h >> 29;
		}
	}
	return h;
}

void
dns_conf_load(struct dns_conf *c, const char *resolv, const char *hosts)
{
	memset(c, 0, sizeof *c);
	c->port = 53;
	c->timeout = 5;
	c->attempts = 2;
	c->stamp = stamp(resolv, hosts);
	each_line(resolv == NULL ? resolv_conf : resolv, c, resolv_line);
	each_line(hosts == NULL ? etc_hosts : hosts, c, hosts_line);
	if (c->servers == 0) {
		addr_parse(&c->server[c->servers++], "127.0.0.1", 9);
	}
}

int
dns_conf_changed(const struct dns_conf *c, const char *resolv, const char *hosts)
{
	return stamp(resolv, hosts) != c->stamp;
}

/* ---- packets ---- */

static unsigned
get16(const uint8_t *p)
{
	return (unsigned)p[0] << 8 | p[1];
}

static void
put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

size_t
dns_question(uint8_t *p, size_t cap, uint16_t id, const char *name, uint16_t type)
{
	size_t at = HEADER, left = strlen(name);

	left -= left > 0 && name[left - 1] == '.';
	if (left == 0 || left + 2 > NAME_MAX_WIRE || HEADER + left + 2 + 4 > cap) {
		return 0;
	}
	memset(p, 0, HEADER);
	put16(p, id);
	p[2] = 1; /* recursion is desired */
	p[5] = 1; /* one question */
	while (left > 0) {
		const char *dot = memchr(name, '.', left);
		size_t len = dot == NULL ? left : (size_t)(dot - name);

		if (len == 0 || len > 63 || len + 1 == left) {
			return 0;
		}
		p[at++] = (uint8_t)len;
		for (size_t i = 0; i < len; i++) {
			if ((uint8_t)name[i] <= 32 || (uint8_t)name[i] >= 127 || name[i] == '\\') {
				return 0;
			}
			p[at++] = (uint8_t)name[i];
		}
		len += dot != NULL;
		name += len;
		left -= len;
	}
	p[at++] = 0;
	put16(p + at, type);
	put16(p + at + 2, 1); /* IN */
	return at + 4;
}

/* A name in wire form, lower case, not compressed. */
struct wire_name {
	size_t len;
	uint8_t p[NAME_MAX_WIRE];
};

/* Read the name at `off`. Returns where what follows it begins, 0 when it is none. */
static size_t
get_name(const uint8_t *p, size_t len, size_t off, struct wire_name *name)
{
	size_t next = 0, below = off;
	unsigned jumps = 0;

	name->len = 0;
	for (;;) {
		unsigned c;

		if (off >= len) {
			return 0;
		}
		c = p[off];
		if (c >= 0xc0) {
			if (len - off < 2 || ++jumps > JUMPS_MAX) {
				return 0;
			}
			next = next == 0 ? off + 2 : next;
			off = get16(p + off) & 0x3fff;
			if (off >= below) {
				return 0;
			}
			below = off;
			continue;
		}
		if (c > 63 || c >= len - off || name->len + 1 + c > sizeof name->p) {
			return 0;
		}
		/* The length, below 64, is no letter. */
		for (unsigned i = 0; i <= c; i++) {
			name->p[name->len++] = (uint8_t)ascii_lower(p[off++]);
		}
		if (c == 0) {
			return next == 0 ? off : next;
		}
	}
}

static int
same_name(const struct wire_name *a, const struct wire_name *b)
{
	return a->len == b->len && memcmp(a->p, b->p, a->len) == 0;
}

/* As text, "" for the root. -1 when it has octets that a host's name has not. */
static int
name_text(const struct wire_name *name, char host[256])
{
	size_t out = 0;

	for (size_t i = 0; name->p[i] != 0;) {
		unsigned n = name->p[i++];

		if (out > 0) {
			host[out++] = '.';
		}
		for (; n > 0; n--) {
			int c = name->p[i++];

			if (!ascii_isdigit(c) && !(c >= 'a' && c <= 'z') && c != '-' && c != '_') {
				return -1;
			}
			host[out++] = (char)c;
		}
	}
	host[out] = '\0';
	return 0;
}

struct record {
	struct wire_name owner;
	unsigned type, class;
	size_t data, len;
};

/* Read the record at *off, which is then behind it. 0 or -1. */
static int
get_record(const uint8_t *p, size_t len, size_t *off, struct record *r)
{
	size_t at = get_name(p, len, *off, &r->owner);

	if (at == 0 || len - at < 10) {
		return -1;
	}
	r->type = get16(p + at);
	r->class = get16(p + at + 2);
	r->len = get16(p + at + 8);
	r->data = at + 10;
	if (r->len > len - r->data) {
		return -1;
	}
	*off = r->data + r->len;
	return 0;
}

/* Go through the answers about `name`. DNS_NODATA: none of `type`; then 1 in *alias: `name` is now what it is an alias of. */
static enum dns_status
find_records(const uint8_t *p, size_t len, size_t off, struct wire_name *name, unsigned type, int *alias,
    void (*f)(void *ctx, const uint8_t *packet, size_t packet_len, size_t rdata, size_t rdata_len), void *ctx)
{
	static struct record r;
	static struct wire_name target;
	enum dns_status st = DNS_NODATA;

	*alias = 0;
	for (unsigned n = get16(p + 6); n > 0; n--) {
		if (get_record(p, len, &off, &r) == -1) {
			return DNS_TROUBLE;
		}
		if (r.class != 1 || !same_name(&r.owner, name)) {
			continue;
		}
		if (r.type == type) {
			st = DNS_OK;
			if (f != NULL) {
				f(ctx, p, len, r.data, r.len);
			}
		} else if (r.type == DNS_CNAME && !*alias) {
			if (get_name(p, len, r.data, &target) != r.data + r.len) {
				return DNS_TROUBLE;
			}
			*alias = 1;
		}
	}
	if (*alias) {
		*name = target;
	}
	return st;
}

enum dns_status
dns_answer(const uint8_t *question, size_t question_len, const uint8_t *p, size_t len,
    void (*f)(void *ctx, const uint8_t *packet, size_t packet_len, size_t rdata, size_t rdata_len), void *ctx,
    int *truncated)
{
	static struct wire_name name, asked;
	size_t off, end = get_name(question, question_len, HEADER, &name);
	enum dns_status st;
	int alias;

	*truncated = 0;
	/* The id; an answer, to a plain query, with one question: ours. */
	if (end == 0 || question_len - end < 4 || len < HEADER || memcmp(p, question, 2) != 0 ||
	    (p[2] & 0xf8) != 0x80 || get16(p + 4) != 1) {
		return DNS_IGNORE;
	}
	off = get_name(p, len, HEADER, &asked);
	if (off == 0 || len - off < 4 || !same_name(&asked, &name) || memcmp(p + off, question + end, 4) != 0) {
		return DNS_IGNORE;
	}
	*truncated = (p[2] & 2) != 0;
	if (*truncated) {
		return DNS_TROUBLE;
	}
	if ((p[3] & 15) != 0) {
		return (p[3] & 15) == 3 ? DNS_NONAME : DNS_TROUBLE;
	}
	/* Neither an authority nor willing to ask one: it says nothing about the name. */
	if (get16(p + 6) == 0 && (p[2] & 4) == 0 && (p[3] & 0x80) == 0) {
		return DNS_TROUBLE;
	}
	for (unsigned i = 0; i <= CNAMES_MAX; i++) {
		st = find_records(p, len, off + 4, &name, get16(question + end), &alias, f, ctx);
		if (st != DNS_NODATA || !alias) {
			return st;
		}
	}
	return DNS_TROUBLE;
}

/* ---- questions ---- */

/* The answer at hand, behind two octets of length when it came over TCP. */
static uint8_t answer[2 + 65535];

/* Wait for `fd`. 1, or 0 when time is up. */
static int
wait_for(int fd, short events, int64_t until)
{
	for (;;) {
		int64_t left = until - mono_ms();
		struct pollfd pfd = { .fd = fd, .events = events };

		if (left <= 0) {
			return 0;
		}
		if (poll(&pfd, 1, (int)left) > 0) {
			return 1;
		}
	}
}

static int
connect_to(const struct addr *server, uint16_t port, int type)
{
	struct sockaddr_storage ss;
	socklen_t len = addr_to_sockaddr(server, port, &ss);
	int fd = socket(ss.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd != -1 && connect(fd, (const struct sockaddr *)&ss, len) == -1 && errno != EINPROGRESS) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Ask in one datagram, and wait for its answer; others are thrown away. An error from the network ends the wait: there are more servers. */
static enum dns_status
ask_udp(int fd, const uint8_t *q, size_t qlen, int64_t until, size_t *len, int *truncated)
{
	enum dns_status st = DNS_IGNORE;

	*truncated = 0;
	if (send(fd, q, qlen, MSG_NOSIGNAL) == -1) {
		return DNS_TROUBLE;
	}
	while (st == DNS_IGNORE) {
		ssize_t n;

		if (!wait_for(fd, POLLIN, until)) {
			return DNS_TROUBLE;
		}
		n = recv(fd, answer + 2, sizeof answer - 2, 0);
		if (n == -1) {
			if (errno != EAGAIN && errno != EINTR) {
				return DNS_TROUBLE;
			}
			continue;
		}
		*len = (size_t)n;
		st = dns_answer(q, qlen, answer + 2, *len, NULL, NULL, truncated);
	}
	return st;
}

static enum dns_status
ask_tcp(int fd, const uint8_t *q, size_t qlen, int64_t until, size_t *len)
{
	uint8_t framed[2 + DNS_QUESTION_MAX];
	size_t got = 0, want = 2;
	enum dns_status st;
	int truncated;

	put16(framed, (unsigned)qlen);
	memcpy(framed + 2, q, qlen);
	/* So little fits into the socket's buffer, or the connection is no good. */
	if (!wait_for(fd, POLLOUT, until) || send(fd, framed, 2 + qlen, MSG_NOSIGNAL) != (ssize_t)(2 + qlen)) {
		return DNS_TROUBLE;
	}
	while (got < want) {
		ssize_t n;

		if (!wait_for(fd, POLLIN, until)) {
			return DNS_TROUBLE;
		}
		n = recv(fd, answer + got, want - got, 0);
		if (n == 0 || (n == -1 && errno != EAGAIN && errno != EINTR)) {
			return DNS_TROUBLE;
		}
		got += n == -1 ? 0 : (size_t)n;
		if (got == 2) {
			want = 2 + get16(answer);
		}
	}
	*len = want - 2;
	st = dns_answer(q, qlen, answer + 2, *len, NULL, NULL, &truncated);
	return st == DNS_IGNORE ? DNS_TROUBLE : st;
}

static enum dns_status
ask_server(const struct dns_conf *c, const struct addr *server, uint8_t *q, size_t qlen, int64_t deadline, size_t *len)
{
	int truncated = 0;

	for (int type = SOCK_DGRAM;; type = SOCK_STREAM) {
		int64_t until = mono_ms() + c->timeout * INT64_C(1000);
		int fd = connect_to(server, c->port, type);
		enum dns_status st = DNS_TROUBLE;

		until = until > deadline ? deadline : until;
		random_bytes(q, 2);
		if (fd != -1) {
			st = type == SOCK_DGRAM ? ask_udp(fd, q, qlen, until, len, &truncated)
						: ask_tcp(fd, q, qlen, until, len);
			close(fd);
		}
		if (type == SOCK_STREAM || !truncated) {
			return st;
		}
	}
}

/* Ask one server after the other, the one first that answered last. The answer is then in answer + 2. */
static enum dns_status
ask(const struct dns_conf *c, uint8_t *q, size_t qlen, int64_t deadline, size_t *len)
{
	static unsigned good;

	for (unsigned i = 0; i < c->attempts * c->servers && mono_ms() < deadline; i++) {
		unsigned k = (good + i) % c->servers;
		enum dns_status st = ask_server(c, &c->server[k], q, qlen, deadline, len);

		if (st != DNS_TROUBLE) {
			good = k;
			return st;
		}
	}
	return DNS_TROUBLE;
}

/* ---- MX ---- */

struct mx_list {
	struct dns_mx *mx;
	size_t n, max;
	int null;
};

static void
add_mx(void *ctx, const uint8_t *p, size_t len, size_t data, size_t data_len)
{
	struct mx_list *l = ctx;
	static struct wire_name name;
	struct dns_mx m = { 0 };
	size_t i;

	if (data_len < 3 || get_name(p, len, data + 2, &name) != data + data_len || name_text(&name, m.host) == -1) {
		return;
	}
	if (m.host[0] == '\0') {
		l->null = 1;
		return;
	}
	m.preference = (uint16_t)get16(p + data);
	random_bytes(&m.order, sizeof m.order);
	for (i = l->n; i > 0; i--) {
		const struct dns_mx *o = &l->mx[i - 1];

		if (o->preference < m.preference || (o->preference == m.preference && o->order <= m.order)) {
			break;
		}
	}
	if (i == l->max) {
		return;
	}
	l->n -= l->n == l->max;
	memmove(l->mx + i + 1, l->mx + i, (l->n - i) * sizeof *l->mx);
	l->mx[i] = m;
	l->n++;
}

enum dns_status
dns_mx(const struct dns_conf *c, const char *domain, struct dns_mx *mx, size_t max, size_t *n, int64_t deadline)
{
	uint8_t q[DNS_QUESTION_MAX];
	size_t len, qlen = dns_question(q, sizeof q, 0, domain, DNS_MX);
	struct mx_list l = { .mx = mx, .max = max };
	enum dns_status st;
	int truncated;

	*n = 0;
	if (qlen == 0) {
		return DNS_NONAME;
	}
	st = ask(c, q, qlen, deadline, &len);
	if (st != DNS_OK) {
		return st;
	}
	dns_answer(q, qlen, answer + 2, len, add_mx, &l, &truncated);
	if (l.n == 0 && l.null) {
		memset(mx, 0, sizeof *mx);
		l.n = 1;
	}
	*n = l.n;
	return l.n == 0 ? DNS_TROUBLE : DNS_OK;
}

/* ---- addresses ---- */

struct addr_list {
	struct addr addr[ADDRS_MAX];
	size_t n;
	size_t len; /* of an address: 4 or 16 */
};

static void
add_addr(void *ctx, const uint8_t *p, size_t len, size_t data, size_t data_len)
{
	struct addr_list *l = ctx;
	struct addr *a = &l->addr[l->n];

	(void)len;
	if (l->n == ADDRS_MAX || data_len != l->len) {
		return;
	}
	memset(a, 0, sizeof *a);
	memcpy(a->ip + 16 - l->len, p + data, l->len);
	if (l->len == 4) {
		a->ip[10] = a->ip[11] = 0xff;
	}
	l->n++;
}

static enum dns_status
ask_addr(const struct dns_conf *c, const char *host, enum dns_type type, struct addr_list *l, int64_t deadline)
{
	uint8_t q[DNS_QUESTION_MAX];
	size_t len, qlen = dns_question(q, sizeof q, 0, host, (uint16_t)type);
	enum dns_status st;
	int truncated;

	l->n = 0;
	l->len = type == DNS_A ? 4 : 16;
	if (qlen == 0) {
		return DNS_NONAME;
	}
	st = ask(c, q, qlen, deadline, &len);
	if (st == DNS_OK) {
		dns_answer(q, qlen, answer + 2, len, add_addr, l, &truncated);
		st = l->n == 0 ? DNS_TROUBLE : DNS_OK;
	}
	return st;
}

static void
from_hosts(const struct dns_conf *c, const char *host, struct addr_list *v4, struct addr_list *v6)
{
	for (unsigned i = 0; i < c->hosts; i++) {
		struct addr_list *l = addr_is_v4(&c->host[i].addr) ? v4 : v6;

		if (ascii_strcasecmp(c->host[i].name, host) == 0 && l->n < ADDRS_MAX) {
			l->addr[l->n++] = c->host[i].addr;
		}
	}
}

enum dns_status
dns_addr(const struct dns_conf *c, const char *host, int v6, struct addr *addr, size_t max, size_t *n, int64_t deadline)
{
	static struct addr_list four, six;
	enum dns_status st = DNS_NODATA;

	*n = 0;
	four.n = six.n = 0;
	from_hosts(c, host, &four, &six);
	if (four.n + six.n == 0) {
		st = ask_addr(c, host, DNS_A, &four, deadline);
		/* Without such a name, or a server that answers, there is no use in asking again. */
		if (st == DNS_NONAME || st == DNS_TROUBLE) {
			return st;
		}
		if (v6) {
			st = ask_addr(c, host, DNS_AAAA, &six, deadline);
		}
	}
	for (size_t i = 0; i < ADDRS_MAX; i++) {
		if (v6 && i < six.n && *n < max) {
			addr[(*n)++] = six.addr[i];
		}
		if (i < four.n && *n < max) {
			addr[(*n)++] = four.addr[i];
		}
	}
	if (*n > 0) {
		return DNS_OK;
	}
	return st == DNS_TROUBLE ? st : DNS_NODATA;
}
