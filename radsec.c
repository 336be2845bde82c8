/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The keeper's process (keeper.h): one loop, nothing in it blocks. A link is a TLS connection to a server (RFC 6614), with up to FLIGHTS packets on their
 * way, told apart by their id. A channel is somebody who wants to ask that server; a packet of his is read when the link can take it, so what
 * waits, waits in his socket. When a link is lost, or cannot be made, all channels to it are told why and closed, and who asked turns to the next server.
 *
 * A link on which nothing has come for a while, or not what was asked for, is asked by a Status-Server packet whether it lives (RFC 3539 3.4, RFC 5997);
 * without an answer it is made anew.
 *
 * User USER_SPOOL, an empty root directory, a filter of its own. It has the servers' secrets, and our key as a client of them, which no warden has.
 * Reads TLS off the network, and packets: their seal first.
 */
#include "keeper.h"

#if KEEPER

#include "clerk.h"
#include "control.h"
#include "log.h"
#include "msg.h"
#include "priv.h"
#include "radseal.h"
#include "secret.h"
#include "share.h"
#include "str.h"
#include "tls.h"
#include "tlscheck.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LOOK_MS 60000

#if RADSEC

#define FLIGHTS 64
#define CHANNELS KEEPER_CHANNELS
#define PAUSE_MIN_MS 1000
#define PAUSE_MAX_MS 30000
#define WELL_MS 5000    /* one that has been up this long, or has brought an answer, is made anew at once */
#define ORPHAN_MS 60000 /* an id whose asker is gone is not given out again before that, or its answer */
#define TELL_MS 600000  /* the same trouble is told again after this long */

enum { ACCOUNTING_REQUEST = 4, ACCOUNTING_RESPONSE = 5 };
enum { NOBODY = -1, WATCH = -2 }; /* instead of a channel */

struct flight {
	int used;
	int channel; /* or NOBODY, WATCH */
	int64_t sent;
	uint8_t ours[RADSEAL_HEADER], theirs[RADSEAL_HEADER]; /* heads of the request as it went out, and as it came */
};

struct link {
	enum { DOWN, CONNECTING, SHAKING, UP } state;
	int fd;
	int blocked;      /* the socket takes no more for now */
	int64_t since;    /* of this state */
	int64_t retry_at; /* DOWN */
	int64_t heard;    /* UP: something came */
	int served;       /* UP: an answer has */
	int pause;
	struct keeper_note why; /* DOWN: the last trouble */
	struct keeper_note told;
	int64_t told_at;
	uint8_t next_id;
	size_t in_len, out_len, out_pos;
	uint8_t in[RADIUS_PACKET_MAX], out[RADIUS_PACKET_MAX];
	struct flight flight[FLIGHTS]; /* by id */
	struct conn conn;
	struct tlscheck check;
};

struct channel {
	int fd; /* -1 = free */
	unsigned link;
};

static struct {
	const struct house *h;
	const struct radius_conf *conf;
	int lazy;
	struct link link[RADIUS_SERVERS_MAX]; /* of conf->server[i] */
	struct channel channel[CHANNELS];
} me;

static void
say(unsigned i, int prio, const char *trouble, const char *error, const char *text)
{
	struct log_line l;

	log_begin(&l, prio, "radius");
	log_fmt(&l, "server", "%s:%u", me.conf->server[i].name, me.conf->server[i].port);
	if (trouble != NULL) {
		log_str(&l, "trouble", trouble);
	}
	if (error != NULL) {
		log_text(&l, "error", error);
	}
	log_text(&l, "msg", text);
	log_end(&l);
}

/* ---- channels ---- */

static void
hang_up(unsigned c, const struct keeper_note *note)
{
	struct channel *ch = &me.channel[c];
	struct link *k = &me.link[ch->link];

	if (note != NULL) {
		(void)send(ch->fd, note, sizeof *note, MSG_DONTWAIT | MSG_NOSIGNAL);
	}
	close(ch->fd);
	ch->fd = -1;
	for (unsigned id = 0; id < FLIGHTS; id++) {
		if (k->flight[id].used && k->flight[id].channel == (int)c) {
			k->flight[id].channel = NOBODY;
		}
	}
}

/* ---- links ---- */

/*
 * It is lost, or was not to be had. All that waits for it is told; but a connection that was well and was closed is made anew at once, and who has not
 * sent anything yet need not know.
 */
static void
link_down(unsigned i, enum radius_trouble trouble, int error)
{
	static const char *const words[] = { [RADIUS_NO_ANSWER] = "no-answer",
		[RADIUS_NETWORK] = "network",
		[RADIUS_TLS] = "tls",
		[RADIUS_NO_ADDRESS] = "no-address" };
	struct link *k = &me.link[i];
	struct keeper_note note;
	int64_t now = mono_ms();
	int was_well = k->state == UP && (k->served || now - k->since >= WELL_MS);

	/* Some servers that do not like our certificate, or miss it, say so in this way. */
	if (k->state == SHAKING && trouble == RADIUS_NETWORK && error == ECONNRESET) {
		trouble = RADIUS_TLS;
		error = BR_ERR_OK;
	}
	note = (struct keeper_note){ .trouble = (uint32_t)trouble, .error = error };

	if (k->fd != -1) {
		close(k->fd);
		k->fd = -1;
	}
	for (unsigned c = 0; c < CHANNELS; c++) {
		int flying = 0;

		for (unsigned id = 0; id < FLIGHTS; id++) {
			flying |= k->flight[id].used && k->flight[id].channel == (int)c;
		}
		if (me.channel[c].fd != -1 && me.channel[c].link == i && (flying || !was_well)) {
			hang_up(c, &note);
		}
	}
	memset(k->flight, 0, sizeof k->flight);
	k->in_len = k->out_len = k->out_pos = 0;
	k->pause = was_well               ? 0
	    : k->pause == 0               ? PAUSE_MIN_MS
	    : k->pause * 2 < PAUSE_MAX_MS ? k->pause * 2
					  : PAUSE_MAX_MS;
	k->retry_at = now + k->pause;
	k->state = DOWN;
	k->since = now;
	k->why = note;
	if (!was_well && (memcmp(&k->told, &note, sizeof note) != 0 || now - k->told_at >= TELL_MS)) {
		k->told = note;
		k->told_at = now;
		say(i, LOG_WARNING, words[trouble],
		    trouble == RADIUS_TLS           ? tlscheck_text(error)
			: trouble == RADIUS_NETWORK ? strerror(error)
						    : NULL,
		    "no TLS connection to it");
	}
}

static void
set_key(struct link *k)
{
	const struct cert_chain *chain = &me.h->config->radsec.client;
	const struct cert_key *key = &me.h->config->secrets->client;

	if (key->type == BR_KEYTYPE_EC) {
		br_ssl_client_set_single_ec(&k->conn.cc, chain->cert, chain->count, &key->ec, BR_KEYTYPE_SIGN,
		    BR_KEYTYPE_EC, br_ec_get_default(), br_ecdsa_sign_asn1_get_default());
	} else if (key->type == BR_KEYTYPE_RSA) {
		br_ssl_client_set_single_rsa(
		    &k->conn.cc, chain->cert, chain->count, &key->rsa, br_rsa_pkcs1_sign_get_default());
	}
}

static void
link_connect(unsigned i, int64_t now)
{
	struct link *k = &me.link[i];
	struct sockaddr_storage ss;
	struct addr a;
	socklen_t len;
	int one = 1;

	if (radius_address(me.conf, me.h->share, me.h->radius_generation, i, &a) == -1) {
		link_down(i, RADIUS_NO_ADDRESS, 0);
		return;
	}
	len = addr_to_sockaddr(&a, me.conf->server[i].port, &ss);
	k->fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (k->fd == -1 || (connect(k->fd, (const struct sockaddr *)&ss, len) == -1 && errno != EINPROGRESS)) {
		link_down(i, RADIUS_NETWORK, errno);
		return;
	}
	(void)setsockopt(k->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	k->state = CONNECTING;
	k->since = now;
}

static void link_move(unsigned i);

static void
link_shake(unsigned i, int64_t now)
{
	const struct radius_server *r = &me.conf->server[i];
	const struct radsec_conf *rs = &me.h->config->radsec;
	struct link *k = &me.link[i];
	const char *name = r->tls == TLS_VERIFY ? r->tls_name : r->numeric ? NULL : r->name;
	socklen_t len = sizeof(int);
	int error = 0;

	if (getsockopt(k->fd, SOL_SOCKET, SO_ERROR, &error, &len) == -1 || error != 0) {
		link_down(i, RADIUS_NETWORK, error != 0 ? error : errno);
		return;
	}
	error = tlscheck_begin(
	    &k->check, r->tls, r->pin, r->pins, rs->anchor[i], rs->anchors[i], name, (int64_t)time(NULL));
	if (error != 0) {
		link_down(i, RADIUS_TLS, error);
		return;
	}
	conn_init(&k->conn, k->fd, k->fd, 1);
	conn_setup_client(&k->conn);
	if (r->tls_cert) {
		set_key(k);
	}
	if (conn_begin_client(&k->conn, name, &k->check.vtable) != CONN_OK) {
		link_down(i, RADIUS_TLS, k->conn.tls_error);
		return;
	}
	k->state = SHAKING;
	k->blocked = 0;
	k->since = now;
	link_move(i);
}

/* A packet has come. */
static void
take_packet(unsigned i, uint8_t *p, size_t len)
{
	struct link *k = &me.link[i];
	struct flight *f = p[1] < FLIGHTS ? &k->flight[p[1]] : NULL;
	const char *secret = me.h->config->secrets->radius[i];
	struct keeper_note note;
	enum radius_trouble t;

	if (f == NULL || !f->used) {
		return; /* nobody has asked */
	}
	k->served = 1;
	t = (p[0] == ACCOUNTING_RESPONSE) != (f->ours[0] == ACCOUNTING_REQUEST)
	    ? RADIUS_NO_ANSWER
	    : radseal_check(p, &len, f->ours, secret, 1);
	if (f->channel >= 0 && t == RADIUS_OK) {
		radseal_reply_anew(p, len, f->theirs, secret);
		(void)send(me.channel[f->channel].fd, p, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	} else if (f->channel >= 0) {
		note = (struct keeper_note){ .trouble = (uint32_t)t };
		hang_up((unsigned)f->channel, &note);
	}
	memset(f, 0, sizeof *f);
}

/* Octets have come: whole packets out of them. 0, or -1 when they make no sense. */
static int
take_octets(unsigned i, const uint8_t *p, size_t len)
{
	struct link *k = &me.link[i];

	k->heard = mono_ms();
	while (len > 0) {
		int whole = radseal_length(k->in, k->in_len);
		size_t want = whole == 0 ? 4 : (size_t)whole;
		size_t n = want - k->in_len < len ? want - k->in_len : len;

		memcpy(k->in + k->in_len, p, n);
		k->in_len += n;
		p += n;
		len -= n;
		whole = radseal_length(k->in, k->in_len);
		if (whole < 0) {
			return -1;
		}
		if (whole > 0 && k->in_len == (size_t)whole) {
			take_packet(i, k->in, k->in_len);
			k->in_len = 0;
		}
	}
	return 0;
}

/* Put what is to be sent into the engine, as far as it goes. 1: it took some. */
static int
feed_engine(struct link *k)
{
	size_t room;
	uint8_t *to = br_ssl_engine_sendapp_buf(&k->conn.eng, &room);

	if (to == NULL || k->out_pos == k->out_len) {
		return 0;
	}
	room = room < k->out_len - k->out_pos ? room : k->out_len - k->out_pos;
	memcpy(to, k->out + k->out_pos, room);
	k->out_pos += room;
	if (k->out_pos == k->out_len) {
		k->out_pos = k->out_len = 0;
	}
	br_ssl_engine_sendapp_ack(&k->conn.eng, room);
	br_ssl_engine_flush(&k->conn.eng, 0);
	return 1;
}

/* One step of records to or from the socket. 1: there may be more; 0: it would block; -1: it is down. */
static int
move_records(unsigned i, unsigned state)
{
	struct link *k = &me.link[i];
	br_ssl_engine_context *eng = &k->conn.eng;
	size_t len;
	uint8_t *p;
	ssize_t n;
	int error = 0;

	if ((state & BR_SSL_SENDREC) != 0 && !k->blocked) {
		p = br_ssl_engine_sendrec_buf(eng, &len);
		n = send(k->fd, p, len, MSG_NOSIGNAL);
		if (n > 0) {
			br_ssl_engine_sendrec_ack(eng, (size_t)n);
			return 1;
		}
		error = n == -1 && (errno == EAGAIN || errno == EINTR) ? 0 : errno;
		k->blocked = 1;
	}
	if ((state & BR_SSL_RECVREC) == 0) {
		if (error != 0) {
			link_down(i, RADIUS_NETWORK, error);
		}
		return error != 0 ? -1 : 0;
	}
	/* Also after an error: who hangs up may have said why before. */
	p = br_ssl_engine_recvrec_buf(eng, &len);
	n = recv(k->fd, p, len, 0);
	if (n > 0) {
		br_ssl_engine_recvrec_ack(eng, (size_t)n);
		return 1;
	}
	if (n == 0 || error != 0 || (errno != EAGAIN && errno != EINTR)) {
		link_down(i, RADIUS_NETWORK, n == 0 ? ECONNRESET : error != 0 ? error : errno);
		return -1;
	}
	return 0;
}

static void
link_move(unsigned i)
{
	struct link *k = &me.link[i];
	br_ssl_engine_context *eng = &k->conn.eng;

	for (;;) {
		unsigned state = br_ssl_engine_current_state(eng);
		size_t len;
		uint8_t *p;

		if ((state & BR_SSL_CLOSED) != 0) {
			int error = br_ssl_engine_last_error(eng);

			link_down(i, error == BR_ERR_OK ? RADIUS_NETWORK : RADIUS_TLS,
			    error == BR_ERR_OK ? ECONNRESET : error);
			return;
		}
		if (k->state == SHAKING && (state & BR_SSL_SENDAPP) != 0) {
			k->state = UP;
			k->since = k->heard = mono_ms();
			k->served = 0;
			if (k->told.trouble != RADIUS_OK) {
				say(i, LOG_NOTICE, NULL, NULL, "the TLS connection is up");
				memset(&k->told, 0, sizeof k->told);
			}
		}
		if ((state & BR_SSL_RECVAPP) != 0) {
			p = br_ssl_engine_recvapp_buf(eng, &len);
			if (take_octets(i, p, len) == -1) {
				link_down(i, RADIUS_NETWORK, EPROTO);
				return;
			}
			br_ssl_engine_recvapp_ack(eng, len);
			continue;
		}
		if (k->state == UP && feed_engine(k)) {
			continue;
		}
		switch (move_records(i, state)) {
		case 1:
			continue;
		default:
			return;
		}
	}
}

/* ---- asking ---- */

/* An id that is free now, or -1. */
static int
free_id(struct link *k)
{
	for (unsigned n = 0; n < FLIGHTS; n++) {
		unsigned id = (k->next_id + n) % FLIGHTS;

		if (!k->flight[id].used) {
			k->next_id = (uint8_t)((id + 1) % FLIGHTS);
			return (int)id;
		}
	}
	return -1;
}

static int
can_take(struct link *k)
{
	int id = k->state == UP && k->out_len == 0 ? free_id(k) : -1;

	if (id != -1) {
		k->next_id = (uint8_t)id;
	}
	return id != -1;
}

/* k->out holds a packet whose head was `theirs`: on its way. */
static void
launch(unsigned i, int channel, const uint8_t *theirs, unsigned id, size_t len, int64_t now)
{
	struct link *k = &me.link[i];
	struct flight *f = &k->flight[id];

	f->used = 1;
	f->channel = channel;
	f->sent = now;
	memcpy(f->theirs, theirs, sizeof f->theirs);
	memcpy(f->ours, k->out, sizeof f->ours);
	k->out_len = len;
	k->out_pos = 0;
	link_move(i);
}

static void
channel_read(unsigned c, int64_t now)
{
	static const struct keeper_note bad = { .trouble = RADIUS_NO_ANSWER };
	unsigned i = me.channel[c].link;
	struct link *k = &me.link[i];
	uint8_t theirs[RADSEAL_HEADER];
	ssize_t n;
	int id;

	if (!can_take(k)) {
		return;
	}
	n = recv(me.channel[c].fd, k->out, sizeof k->out, MSG_DONTWAIT);
	if (n <= 0) {
		if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
			hang_up(c, NULL);
		}
		return;
	}
	id = free_id(k);
	memcpy(theirs, k->out, sizeof theirs);
	if (id == -1 || radseal_request_anew(k->out, (size_t)n, (uint8_t)id, me.h->config->secrets->radius[i]) == -1) {
		hang_up(c, &bad);
		return;
	}
	launch(i, (int)c, theirs, (unsigned)id, (size_t)n, now);
}

/* Somebody wants a channel. */
static void
open_channel(int door)
{
	struct keeper_ask ask;
	int fd = -1;
	unsigned c = 0, i = 0;
	struct link *k;

	while (c < CHANNELS && me.channel[c].fd != -1) {
		c++;
	}
	if (c == CHANNELS || msg_recv(door, &ask, sizeof ask, &fd, -1) != (long)sizeof ask || fd == -1) {
		if (fd != -1) {
			close(fd);
		}
		return;
	}
	while (i < me.conf->servers &&
	    (me.conf->server[i].tls == TLS_NONE || keeper_name(&me.conf->server[i]) != ask.server)) {
		i++;
	}
	if (i == me.conf->servers) {
		close(fd); /* it is not in the configuration any more */
		return;
	}
	me.channel[c] = (struct channel){ fd, i };
	k = &me.link[i];
	if (k->state == DOWN && k->retry_at > mono_ms() && !(me.lazy && k->since == 0)) {
		hang_up(c, &k->why);
	}
}

/* ---- the time ---- */

/* Does it live? It is asked when nothing has come for long, or not what was asked for. Tells when to look again. */
static int64_t
watch(unsigned i, int64_t now)
{
	struct link *k = &me.link[i];
	int64_t patience = me.conf->server[i].timeout * INT64_C(1000);
	int64_t due = k->heard + RADSEC_WATCH_SECONDS * INT64_C(1000);
	int id, asked = 0;
	size_t len;

	for (id = 0; id < FLIGHTS; id++) {
		struct flight *f = &k->flight[id];

		if (!f->used) {
			continue;
		}
		if (f->channel == WATCH && now - f->sent >= patience) {
			link_down(i, RADIUS_NO_ANSWER, 0);
			return now;
		}
		if (f->channel == NOBODY && now - f->sent >= ORPHAN_MS) {
			memset(f, 0, sizeof *f);
			continue;
		}
		asked |= f->channel == WATCH;
		if (f->channel == WATCH || f->sent >= k->heard) {
			due = f->sent + patience < due ? f->sent + patience : due;
		}
	}
	if (asked || due > now) {
		return due > now ? due : now + patience;
	}
	id = k->out_len == 0 ? free_id(k) : -1;
	if (id == -1) {
		/* Nothing goes out, and nothing comes. */
		link_down(i, RADIUS_NO_ANSWER, 0);
		return now;
	}
	len = radseal_status(k->out, (uint8_t)id, me.h->config->me, me.h->config->secrets->radius[i]);
	launch(i, WATCH, k->out, (unsigned)id, len, now);
	return now + patience;
}

static int
is_wanted(unsigned i)
{
	for (unsigned c = 0; c < CHANNELS; c++) {
		if (me.channel[c].fd != -1 && me.channel[c].link == i) {
			return 1;
		}
	}
	return !me.lazy;
}

/* What the clock says about a link; when to look again. */
static int64_t
link_tend(unsigned i, int64_t now)
{
	struct link *k = &me.link[i];
	int64_t end = k->since + RADSEC_CONNECT_SECONDS * INT64_C(1000);

	switch (k->state) {
	case DOWN:
		if (now >= k->retry_at && is_wanted(i)) {
			link_connect(i, now);
		}
		return k->state == DOWN ? (is_wanted(i) ? k->retry_at : INT64_MAX)
					: k->since + RADSEC_CONNECT_SECONDS * INT64_C(1000);
	case UP:
		return watch(i, now);
	case CONNECTING:
	case SHAKING:
	default:
		if (now >= end) {
			link_down(i, RADIUS_NETWORK, ETIMEDOUT);
			return k->retry_at;
		}
		return end;
	}
}

static short
link_events(const struct link *k)
{
	if (k->state == CONNECTING) {
		return POLLOUT;
	}
	return (short)(POLLIN | (k->blocked ? POLLOUT : 0));
}

/* ---- the loop ---- */

/* What there is to wait for about TLS: descriptors for `p`, their number. The door first, then links, then channels. */
static nfds_t
gather(struct pollfd *p, int door)
{
	nfds_t n = 0;
	int room = 0;

	for (unsigned c = 0; c < CHANNELS; c++) {
		room |= me.channel[c].fd == -1;
	}
	p[n++] = (struct pollfd){ .fd = room ? door : -1, .events = POLLIN };
	for (unsigned i = 0; i < me.conf->servers; i++) {
		p[n++] = (struct pollfd){ .fd = me.link[i].fd, .events = link_events(&me.link[i]) };
	}
	for (unsigned c = 0; c < CHANNELS; c++) {
		struct channel *ch = &me.channel[c];

		p[n++] = (struct pollfd){ .fd = ch->fd,
			.events = ch->fd != -1 && can_take(&me.link[ch->link]) ? POLLIN : 0 };
	}
	return n;
}

static void
serve(const struct pollfd *p, int door)
{
	int64_t now = mono_ms();
	int fd;

	for (unsigned i = 0; i < me.conf->servers; i++) {
		struct link *k = &me.link[i];
		short got = p[1 + i].revents;

		if (got == 0 || k->fd == -1 || k->fd != p[1 + i].fd) {
			continue;
		}
		if (k->state == CONNECTING) {
			link_shake(i, now);
		} else {
			k->blocked &= (got & POLLOUT) == 0;
			link_move(i);
		}
	}
	for (unsigned c = 0; c < CHANNELS; c++) {
		const struct pollfd *q = &p[1 + me.conf->servers + c];

		fd = me.channel[c].fd;
		if (fd == -1 || fd != q->fd || q->revents == 0) {
			continue;
		}
		if ((q->revents & POLLIN) != 0) {
			channel_read(c, now);
		} else if ((q->revents & (POLLHUP | POLLERR)) != 0) {
			hang_up(c, NULL);
		}
	}
	if ((p[0].revents & POLLIN) != 0) {
		open_channel(door);
	} else if ((p[0].revents & (POLLHUP | POLLERR)) != 0) {
		_exit(0); /* whoever asked has gone */
	}
}

#endif

_Noreturn void
keeper_run(const struct house *h, int door, int lazy)
{
	static struct pollfd p[1 + 2 * RADIUS_SERVERS_MAX + KEEPER_CHANNELS];

	clerk_signals(SIG_DFL);
#if RADSEC
	me.h = h;
	me.conf = &h->config->radius;
	me.lazy = lazy;
	for (unsigned i = 0; i < RADIUS_SERVERS_MAX; i++) {
		me.link[i].fd = -1;
	}
	for (unsigned c = 0; c < CHANNELS; c++) {
		me.channel[c].fd = -1;
	}
#endif
	for (;;) {
		int64_t now = mono_ms(), due = now + LOOK_MS, at;
		int probes[RADIUS_SERVERS_MAX];
		unsigned n = 0;
		nfds_t fds = 0;

#if RADSEC
		for (unsigned i = 0; i < me.conf->servers; i++) {
			at = me.conf->server[i].tls != TLS_NONE ? link_tend(i, now) : INT64_MAX;
			due = at < due ? at : due;
		}
		fds = gather(p, door);
#endif
		at = probe_tend(h, now, probes, &n);
		due = at < due ? at : due;
		for (unsigned i = 0; i < n; i++) {
			p[fds + i] = (struct pollfd){ .fd = probes[i], .events = POLLIN };
		}
		if (poll(p, fds + n, due <= now ? 0 : (int)(due - now)) <= 0) {
			continue;
		}
#if RADSEC
		serve(p, door);
#else
		(void)door;
		(void)lazy;
#endif
	}
}

#endif
