/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Who is this? radcli keeps the dictionary and packs and unpacks attributes; everything that touches the network is here. radcli 1.2.11
 * accepts replies with a wrong authenticator, from anywhere, and signs nothing, so the transport behind its socket hooks is the security
 * boundary: each request gets a connected socket of its own and a Message-Authenticator as its first attribute; a reply must have the
 * id, the Response Authenticator and the Message-Authenticator that only the server could make, and of its attributes radcli sees
 * only those we know. Anything else is dropped with the timer running, and told once in plain words.
 *
 * Runs in wardens (and `check radius`). Reads no file. Memory: radcli's pairs, a few KiB, freed after each login.
 */
#include "radiusint.h"

#include "keeper.h"
#include "log.h"
#include "radseal.h"
#include "str.h"

#include <errno.h>
#include <includes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

volatile sig_atomic_t radius_stop;

#define HEADER RADSEAL_HEADER
#define RETRY_MAX_MS 16000 /* MRT, RFC 5080 2.2.1 */
#define ATTRIBUTES_MAX 64
#define TELL_MS 10000 /* log lines about a server's trouble, of all sessions: so many in this time */
#define TELL_LINES 10

/* radcli's handle, and a warden's own copy of it after the fork; config.c, which would fill it from files, is left out. */
static rc_handle handle;

/* One exchange with one server. */
struct transport {
	const struct radius_server *server;
	const char *secret;
	int fd;    /* connected UDP socket; over TLS it only tells our address */
	int io;    /* where packets go: the same, or to the keeper (keeper.h) */
	int ready; /* what radcli polls: always readable */
	int64_t deadline;
	struct radius_answer *a;
	int wrong_secret, not_signed, refused;
	int tried_again;
	int over;    /* the keeper has said why there will be no answer: a->trouble */
	int service; /* of the good reply, see service_type() */
	size_t request_len, reply_len;
	uint8_t request[RADIUS_PACKET_MAX];
	uint8_t reply[RADIUS_PACKET_MAX];
};

/* ---- seals ---- */

/* Copy radcli's packet with a Message-Authenticator before its attributes. 0, or -1 when it gets too long. */
static int
seal_request(struct transport *t, const uint8_t *p, size_t len)
{
	uint8_t mac[16];

	if (len < HEADER || len + 18 > sizeof t->request) {
		return -1;
	}
	memcpy(t->request, p, HEADER);
	t->request[HEADER] = RADSEAL_MA;
	t->request[HEADER + 1] = 18;
	memset(t->request + HEADER + 2, 0, 16);
	memcpy(t->request + HEADER + 18, p + HEADER, len - HEADER);
	t->request_len = len + 18;
	radseal_put_length(t->request, t->request_len);
	radseal_mac(mac, t->request, t->request_len, t->secret);
	memcpy(t->request + HEADER + 2, mac, sizeof mac);
	return 0;
}

static int
service_known(int service)
{
	return service >= 1 && service <= 17;
}

/*
 * The Service-Type of a reply: -1 none, 0 one that says nothing (RFC 2865 5.6: a number of four octets). Of several the worst counts, wherever
 * it stands: one that is not known, or else one that is not ours.
 */
static int
service_type(const uint8_t *p, size_t len)
{
	int found = -1;

	for (size_t i = HEADER; i < len; i += p[i + 1]) {
		uint32_t v = 0;

		if (p[i] != PW_SERVICE_TYPE) {
			continue;
		}
		if (p[i + 1] == 6) {
			v = (uint32_t)p[i + 2] << 24 | (uint32_t)p[i + 3] << 16 | (uint32_t)p[i + 4] << 8 | p[i + 5];
		}
		if (v > INT32_MAX) {
			v = INT32_MAX;
		}
		if (found == -1 || found == RADIUS_SERVICE_TYPE || (service_known(found) && !service_known((int)v))) {
			found = (int)v;
		}
	}
	return found;
}

/*
 * Keep the texts we know, drop the rest (RFC 2865 5: unknown attributes are ignored), and sign what is left for radcli, which takes a stack
 * frame for each.
 */
static size_t
strip(uint8_t *p, size_t len, const uint8_t *request, const char *secret)
{
	size_t out = HEADER;
	unsigned n = 0;

	for (size_t i = HEADER; i < len;) {
		size_t l = p[i + 1];
		int text = p[i] == PW_USER_NAME || p[i] == PW_REPLY_MESSAGE || p[i] == PW_CLASS;

		/* An empty text is none. */
		if (text && l > 2 && n < ATTRIBUTES_MAX) {
			memmove(p + out, p + i, l);
			out += l;
			n++;
		}
		i += l;
	}
	radseal_put_length(p, out);
	radseal_response(p + 4, p, out, request, secret);
	return out;
}

#if RADIUS_KEEPS

static void
keep_one(struct radius_kept *k, const uint8_t *attribute)
{
	size_t l = attribute[1];

	if (l > sizeof k->attributes - k->len) {
		k->lost = 1;
		return;
	}
	memcpy(k->attributes + k->len, attribute, l);
	k->len = (uint16_t)(k->len + l);
}

/* Is this a Vendor-Specific of ours? One too short to say whose it is belongs to nobody (RFC 2865 5.26). */
static int
is_ours(const uint8_t *attribute)
{
	return attribute[0] == PW_VENDOR_SPECIFIC && attribute[1] >= 6 &&
	    ((uint32_t)attribute[2] << 24 | (uint32_t)attribute[3] << 16 | (uint32_t)attribute[4] << 8 |
		attribute[5]) == VENDOR_ID;
}

#endif

/* What others want of a reply that has been verified. */
static void
keep(struct radius_answer *a, const uint8_t *p, size_t len)
{
#if RADIUS_KEEPS
	a->interim = 0;
	a->class.len = a->class.lost = a->policy.len = a->policy.lost = 0;
	for (size_t i = HEADER; p[0] == PW_ACCESS_ACCEPT && i < len; i += p[i + 1]) {
		if (p[i] == PW_CLASS) {
			keep_one(&a->class, p + i);
		} else if (p[i] == PW_ACCT_INTERIM_INTERVAL && p[i + 1] == 6) {
			a->interim =
			    (uint32_t)p[i + 2] << 24 | (uint32_t)p[i + 3] << 16 | (uint32_t)p[i + 4] << 8 | p[i + 5];
		} else if (p[i] == PW_FILTER_ID || p[i] == PW_SESSION_TIMEOUT || p[i] == PW_IDLE_TIMEOUT ||
		    p[i] == PW_PORT_LIMIT || is_ours(p + i)) {
			keep_one(&a->policy, p + i);
		}
	}
#else
	(void)a;
	(void)p;
	(void)len;
#endif
}

/* radius_verify(); what others want of a good reply goes to `a`, unless that is NULL. */
static enum radius_trouble
take_reply(uint8_t *p, size_t *len, const uint8_t *request, const char *secret, int unsigned_ok, int *service,
    struct radius_answer *a)
{
	enum radius_trouble t =
	    *len > 0 && p[0] != PW_ACCESS_ACCEPT && p[0] != PW_ACCESS_REJECT && p[0] != PW_ACCESS_CHALLENGE
	    ? RADIUS_NO_ANSWER
	    : radseal_check(p, len, request, secret, unsigned_ok);

	if (t == RADIUS_OK) {
		if (a != NULL) {
			keep(a, p, *len);
		}
		*service = service_type(p, *len);
		*len = strip(p, *len, request, secret);
	}
	return t;
}

enum radius_trouble
radius_verify(uint8_t *p, size_t *len, const uint8_t *request, const char *secret, int unsigned_ok, int *service)
{
	return take_reply(p, len, request, secret, unsigned_ok, service, NULL);
}

/* ---- the exchange ---- */

/*
 * Wait until `until` for a good reply. 1 got it, 0 time is up. An error from the network, as a rule "nobody listens there", may be forged as
 * well as a reply: it does not end the wait either.
 */
static int
await_reply(struct transport *t, int64_t until)
{
	for (;;) {
		int64_t left = until - mono_ms();
		struct pollfd pfd = { .fd = t->io, .events = POLLIN };
		ssize_t n;

		if (left <= 0 || radius_stop) {
			return 0;
		}
		if (poll(&pfd, 1, (int)left) <= 0) {
			continue;
		}
		n = recv(t->io, t->reply, sizeof t->reply, MSG_DONTWAIT);
		if (n == -1) {
			if (errno == EINTR || errno == EAGAIN) {
				continue;
			}
			t->a->error = errno;
			t->refused = t->io == t->fd; /* from a keeper, the end comes next */
			continue;
		}
		if (t->io != t->fd && keeper_note(t->reply, (size_t)n, t->a)) {
			t->over = 1;
			return 0;
		}
		t->reply_len = (size_t)n;
		switch (take_reply(
		    t->reply, &t->reply_len, t->request, t->secret, t->server->unsigned_ok, &t->service, t->a)) {
		case RADIUS_OK:
			return 1;
		case RADIUS_WRONG_SECRET:
			t->wrong_secret = 1;
			break;
		case RADIUS_UNSIGNED:
			t->not_signed = 1;
			break;
		default:
			break;
		}
		t->a->dropped++;
	}
}

/* Send the request. An error of the packet before, which the kernel tells now, is none of this one's. */
static int
send_request(struct transport *t)
{
	for (int i = 0; i < 2; i++) {
		if (send(t->io, t->request, t->request_len, MSG_NOSIGNAL) != -1) {
			t->a->sent++;
			return 0;
		}
		t->a->error = errno;
	}
	return -1;
}

/*
 * A server may close a connection, and the keeper be renewed, while we ask: which says nothing about the server. Once there is another channel
 * for that. 1 or 0.
 */
static int
again(struct transport *t)
{
	int io;

	if (t->tried_again++ ||
	    !(t->a->trouble == RADIUS_NO_KEEPER || (t->a->trouble == RADIUS_NETWORK && t->a->error == ECONNRESET)) ||
	    (io = keeper_channel(t->server)) == -1) {
		return 0;
	}
	close(t->io);
	t->io = io;
	return 1;
}

/*
 * Send, wait, repeat with doubled and jittered waits (RFC 5080 2.2.1). 0 when t->reply is good, else -1 and a->trouble. A server that is said
 * not to be there is not asked again.
 */
static int
exchange(struct transport *t)
{
	int tls = t->io != t->fd;
	int64_t wait = tls ? RADIUS_DEADLINE * INT64_C(2000) : t->server->timeout * INT64_C(1000);
	int last = tls ? 0 : t->server->retries; /* TCP repeats by itself */
	uint8_t jitter;

	for (int i = 0; i <= last && !t->refused && !radius_stop; i++) {
		int64_t now = mono_ms();
		int64_t until;

		random_bytes(&jitter, sizeof jitter);
		until = now + wait + wait * (jitter - 128) / 1280;
		if (now >= t->deadline) {
			break;
		}
		until = until > t->deadline ? t->deadline : until;
		if (send_request(t) == -1 && !tls) { /* a keeper has said why, before it closed */
			t->refused = 1;
			break;
		}
		if (await_reply(t, until)) {
			return 0;
		}
		if (t->over && !again(t)) {
			return -1;
		}
		i -= t->over;
		t->over = 0;
		wait = wait * 2 > RETRY_MAX_MS ? RETRY_MAX_MS : wait * 2;
	}
	t->a->trouble = t->refused ? RADIUS_NETWORK
	    : t->wrong_secret      ? RADIUS_WRONG_SECRET
	    : t->not_signed        ? RADIUS_UNSIGNED
				   : RADIUS_NO_ANSWER;
	return -1;
}

static int
hook_get_fd(void *ptr, struct sockaddr *ours)
{
	struct transport *t = ptr;

	(void)ours;
	return t->ready;
}

static void
hook_close_fd(int fd)
{
	(void)fd; /* radcli does not close on every path; ask_server() does */
}

static ssize_t
hook_sendto(void *ptr, int fd, const void *p, size_t len, int flags, const struct sockaddr *to, socklen_t tolen)
{
	struct transport *t = ptr;

	(void)fd;
	(void)flags;
	(void)to;
	(void)tolen;
	if (seal_request(t, p, len) == -1) {
		errno = EMSGSIZE;
		t->a->error = errno;
		t->a->trouble = RADIUS_NETWORK;
		return -1;
	}
	if (exchange(t) == -1) {
		errno = ETIMEDOUT;
		return -1;
	}
	return (ssize_t)len;
}

static ssize_t
hook_recvfrom(void *ptr, int fd, void *p, size_t len, int flags, struct sockaddr *from, socklen_t *fromlen)
{
	struct transport *t = ptr;

	(void)fd;
	(void)flags;
	(void)from;
	(void)fromlen;
	if (t->reply_len == 0 || t->reply_len > len) {
		errno = ETIMEDOUT;
		return -1;
	}
	memcpy(p, t->reply, t->reply_len);
	return (ssize_t)t->reply_len;
}

/* ---- a login ---- */

static int
add_text(VALUE_PAIR **list, int attribute, const char *s)
{
	/* A zero-length attribute is illegal (RFC 2865 5). */
	return s[0] == '\0' || rc_avpair_add(&handle, list, attribute, s, -1, 0) != NULL;
}

static int
add_number(VALUE_PAIR **list, int attribute, uint32_t n)
{
	return rc_avpair_add(&handle, list, attribute, &n, 0, 0) != NULL;
}

/* The address the request leaves from, as NAS-IP(v6)-Address. */
static int
add_nas_address(VALUE_PAIR **list, int fd)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof ss;
	struct addr a;
	uint16_t port;

	if (getsockname(fd, (struct sockaddr *)&ss, &len) == -1 ||
	    addr_from_sockaddr(&a, &port, (const struct sockaddr *)&ss) == -1) {
		return 0;
	}
	if (addr_is_v4(&a)) {
		return add_number(list, PW_NAS_IP_ADDRESS,
		    (uint32_t)a.ip[12] << 24 | (uint32_t)a.ip[13] << 16 | (uint32_t)a.ip[14] << 8 | a.ip[15]);
	}
	return rc_avpair_add(&handle, list, PW_NAS_IPV6_ADDRESS, a.ip, 16, 0) != NULL;
}

static void
free_request(VALUE_PAIR *list)
{
	for (VALUE_PAIR *vp = list; vp != NULL; vp = vp->next) {
		explicit_bzero(vp->strvalue, sizeof vp->strvalue);
	}
	rc_avpair_free(list);
}

static VALUE_PAIR *
make_request(const struct radius_query *q, int fd)
{
	VALUE_PAIR *list = NULL;

	if (add_text(&list, PW_USER_NAME, q->user) && add_text(&list, PW_USER_PASSWORD, q->password) &&
	    add_nas_address(&list, fd) && add_text(&list, PW_NAS_IDENTIFIER, q->nas) &&
	    add_number(&list, PW_NAS_PORT_TYPE, PW_VIRTUAL) &&
	    add_number(&list, PW_SERVICE_TYPE, RADIUS_SERVICE_TYPE) &&
	    add_text(&list, PW_CALLING_STATION_ID, q->client) && add_text(&list, PW_CALLED_STATION_ID, q->called) &&
	    add_text(&list, PW_ACCT_SESSION_ID, q->session)) {
		return list;
	}
	/* Out of memory: without a password, say, the server would only say no, and mean it. */
	free_request(list);
	return NULL;
}

/* radcli leaves the password and the secret in dead stack frames; go over them. */
static void __attribute__((noinline)) wipe_stack(int depth)
{
	uint8_t dead[6000];

	explicit_bzero(dead, sizeof dead);
	if (depth > 1) {
		wipe_stack(depth - 1);
	}
	explicit_bzero(dead, 1); /* no tail call: each level keeps its frame */
}

/* An accept must be for the service we asked for (RFC 2865 5.6; unknown values are a reject). */
static void
check_service(struct radius_answer *a, int service)
{
	a->service = service;
	if (service == -1) {
		a->why = RADIUS_SERVICE_CHECK == 2 ? "the server sent no Service-Type" : NULL;
	} else if (!service_known(service)) {
		a->why = "the server's Service-Type is not known";
	} else if (RADIUS_SERVICE_CHECK > 0 && service != RADIUS_SERVICE_TYPE) {
		a->why = "the account is for another Service-Type";
	}
	if (a->why != NULL) {
		a->result = RADIUS_REJECT;
	}
}

int
radius_connect(const struct addr *addr, uint16_t port)
{
	struct sockaddr_storage ss;
	socklen_t len = addr_to_sockaddr(addr, port, &ss);
	int fd = socket(ss.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd != -1 && connect(fd, (const struct sockaddr *)&ss, len) == -1) {
		int saved = errno;

		close(fd);
		errno = saved;
		return -1;
	}
	return fd;
}

/* Run the request through radcli and read the outcome. */
static void
ask_radcli(struct transport *t, const struct radius_query *q, struct radius_answer *a)
{
	static char name[] = "radius", unset[] = "unset";
	char msg[PW_MAX_MSG_SIZE];
	SERVER server;
	VALUE_PAIR *got = NULL;
	VALUE_PAIR *list = make_request(q, t->fd);
	int r;

	memset(&server, 0, sizeof server);
	server.max = 1;
	server.name[0] = name;
	server.port[0] = t->server->port;
	server.secret[0] = unset;
	handle.so = (rc_sockets_override){
		.ptr = t,
		.static_secret = t->secret,
		.get_fd = hook_get_fd,
		.close_fd = hook_close_fd,
		.sendto = hook_sendto,
		.recvfrom = hook_recvfrom,
	};
	msg[0] = '\0';
	r = list == NULL ? ERROR_RC
			 : rc_aaa_ctx_server(&handle, NULL, &server, AUTH, 0, list, &got, msg, 0, PW_ACCESS_REQUEST);
	free_request(list);
	handle.so.static_secret = NULL;
	switch (r) {
	case OK_RC:
		a->result = RADIUS_ACCEPT;
		check_service(a, t->service);
		break;
	case REJECT_RC:
		a->result = RADIUS_REJECT;
		break;
	case CHALLENGE_RC: /* RFC 2865 4.4: a client that cannot do challenges takes one for a reject */
		a->result = RADIUS_REJECT;
		a->why = "the server wants a challenge answered";
		break;
	default:
		if (a->trouble == RADIUS_OK) {
			a->trouble = RADIUS_NO_ANSWER;
		}
		break;
	}
	if (a->result != RADIUS_LATER) {
		a->trouble = RADIUS_OK;
		str_fmt(a->message, sizeof a->message, "%.*s", (int)sizeof a->message - 1, msg);
		a->message[strcspn(a->message, "\n")] = '\0';
	}
	rc_avpair_free(got);
}

static void
ask_server(const struct radius_conf *rc, unsigned i, const char *secret, const struct addr *addr, int64_t deadline,
    const struct radius_query *q, struct radius_answer *a)
{
	static struct transport t;

	memset(&t, 0, sizeof t);
	t.server = &rc->server[i];
	t.secret = secret;
	t.deadline = deadline;
	t.a = a;
	a->trouble = RADIUS_OK;
	t.fd = radius_connect(addr, t.server->port);
	t.ready = eventfd(1, EFD_CLOEXEC);
	t.io = t.fd != -1 && t.server->tls ? keeper_channel(t.server) : t.fd;
	if (t.fd == -1 || t.ready == -1) {
		a->error = errno;
		a->trouble = RADIUS_NETWORK;
	} else if (t.io == -1) {
		a->trouble = RADIUS_NO_KEEPER;
	} else {
		ask_radcli(&t, q, a);
	}
	if (t.io != t.fd && t.io != -1) {
		close(t.io);
	}
	if (t.fd != -1) {
		close(t.fd);
	}
	if (t.ready != -1) {
		close(t.ready);
	}
	explicit_bzero(&t, sizeof t);
	wipe_stack(5);
}

const char *
radius_trouble_text(enum radius_trouble t)
{
	switch (t) {
	case RADIUS_OK:
		return "answered";
	case RADIUS_NO_ANSWER:
		return "no answer: is the server up, is UDP let through, and does it know this host as a client, with this secret?";
	case RADIUS_WRONG_SECRET:
		return "its answers do not fit the shared secret: is the secret in radius.conf the server's for this host?";
	case RADIUS_UNSIGNED:
		return "its answers carry no Message-Authenticator: update or configure the server, or add the word "
		       "`unsigned` to its line, see mailstile-radius(5)";
	case RADIUS_NO_ADDRESS:
		return "its name has no address yet: does DNS work, is the name right? An address in radius.conf needs no DNS";
	case RADIUS_NETWORK:
		return "cannot be reached";
	case RADIUS_TLS:
		return "TLS failed";
	case RADIUS_NO_KEEPER:
		return "the process that keeps TLS connections to servers does not run, or radius.conf has changed since this session began";
	case RADIUS_NO_SERVERS:
		return "no usable radius.conf: see `mailstile check`";
	}
	return "";
}

void
radius_log_answer(struct log_line *l, const struct radius_conf *rc, const struct radius_answer *a)
{
	if (a->server >= 0) {
		log_fmt(l, "server", "%s:%u", rc->server[a->server].name, rc->server[a->server].port);
	}
	log_num(l, "ms", a->ms);
	if (a->why != NULL) {
		log_text(l, "reason", a->why);
	}
	if (a->message[0] != '\0') {
		log_str(l, "reply", a->message);
	}
}

/*
 * Anybody can try logins, and servers may be down for days: the log gets so many lines about each server in a while, and the number of those
 * left out.
 */
static int
may_tell(struct share *sh, unsigned i, uint32_t *untold)
{
	struct share_radius *r = &sh->radius[i];
	int64_t now = mono_ms();
	int yes;

	share_lock(SHARE_RADIUS);
	if (now - r->told >= TELL_MS) {
		r->told = now;
		r->lines = 0;
	}
	yes = r->lines < TELL_LINES;
	*untold = r->untold;
	r->lines += (uint32_t)yes;
	r->untold = yes ? 0 : r->untold + 1;
	share_unlock(SHARE_RADIUS);
	return yes;
}

static void
log_trouble(const struct radius_conf *rc, struct share *sh, unsigned i, const struct radius_query *q,
    const struct radius_answer *a)
{
	static const char *const words[] = {
		[RADIUS_NO_ANSWER] = "no-answer",
		[RADIUS_WRONG_SECRET] = "wrong-secret",
		[RADIUS_UNSIGNED] = "unsigned",
		[RADIUS_NO_ADDRESS] = "no-address",
		[RADIUS_NETWORK] = "network",
		[RADIUS_TLS] = "tls",
		[RADIUS_NO_KEEPER] = "no-keeper",
	};
	struct log_line l;
	uint32_t untold;

	if (!may_tell(sh, i, &untold)) {
		return;
	}
	log_begin(&l, LOG_WARNING, "radius");
	log_str(&l, "sid", q->session);
	log_fmt(&l, "server", "%s:%u", rc->server[i].name, rc->server[i].port);
	log_str(&l, "trouble", words[a->trouble]);
	log_num(&l, "sent", a->sent);
	log_num(&l, "dropped", a->dropped);
	if (untold > 0) {
		log_num(&l, "untold", untold);
	}
	if (a->trouble == RADIUS_NETWORK) {
		log_text(&l, "error", strerror(a->error));
	} else if (a->trouble == RADIUS_TLS) {
		log_text(&l, "error", keeper_tls_text(a->error));
	}
	log_text(&l, "msg", radius_trouble_text(a->trouble));
	log_end(&l);
}

void
radius_ask(const struct radius_conf *rc, const struct secrets *s, struct share *sh, uint32_t generation,
    const struct radius_query *q, struct radius_answer *a)
{
	unsigned order[RADIUS_SERVERS_MAX] = { 0 };
	int64_t start = mono_ms();
	int64_t end;
	unsigned alive;

	memset(a, 0, sizeof *a);
	a->result = RADIUS_LATER;
	a->server = -1;
	a->service = -1;
	a->trouble = RADIUS_NO_SERVERS;
	alive = radius_order(rc, sh, order);
	/* When all were dead a moment ago, a customer should not wait long to hear it again. */
	end = start + RADIUS_DEADLINE * INT64_C(1000) / (alive > 0 ? 1 : 3);
	for (unsigned k = 0; k < rc->servers && a->result == RADIUS_LATER && !radius_stop; k++) {
		unsigned i = order[k];
		int64_t now = mono_ms();
		struct addr addr;

		if (now >= end) {
			break; /* no time is left to ask it, which is not its fault */
		}
		a->sent = a->dropped = 0;
		if (radius_address(rc, sh, generation, i, &addr) == -1) {
			a->trouble = RADIUS_NO_ADDRESS;
		} else {
			/* Each server gets its share of what time is left. */
			ask_server(rc, i, s->radius[i], &addr, now + (end - now) / (rc->servers - k), q, a);
		}
		if (radius_stop) {
			break; /* it had no chance to answer */
		}
		if (a->result == RADIUS_LATER) {
			log_trouble(rc, sh, i, q, a);
			radius_mark(sh, generation, i, now, 0);
		} else {
			a->server = (int)i;
			radius_mark(sh, generation, i, now, 1);
		}
	}
	a->ms = mono_ms() - start;
}
