/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * main's account of its sessions: who they are, which processes serve them, who has to make room, who has crashed. It is kept in the
 * shared mapping, since it must outlive a re-execution of main, and wardens write there that somebody has logged in. No pid that stands
 * there is believed to be anything but a child of ours.
 */
#include "slots.h"

#include "log.h"
#include "str.h"
#include "warden.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct share *share;

static struct share_slot *
slots(void)
{
	return share->slot;
}

void
slots_use(struct share *s)
{
	share = s;
}

static int
slot_used(const struct share_slot *s)
{
	return atomic_load(&s->warden) != 0 || atomic_load(&s->smtp) != 0;
}

/* A guest: not logged in, and not on its way out either, by force if it must be (see end_evicted()). */
static int
is_guest(const struct share_slot *s)
{
	return slot_used(s) && !atomic_load(&s->loggedin) && s->evicted == 0;
}

struct census {
	unsigned guests, addr, addr_prelogin, spare;
	int free;   /* index of a free slot, -1 = none */
	int oldest; /* the guest who has waited longest, and long enough to be sent away, -1 = none */
};

static void
take_census(struct census *c, const struct addr *client)
{
	int64_t limit = mono_ms() - PRELOGIN_EVICT_SECONDS * INT64_C(1000);

	memset(c, 0, sizeof *c);
	c->free = c->oldest = -1;
	for (int i = 0; i < SESSIONS_MAX; i++) {
		const struct share_slot *s = &slots()[i];
		int same;

		if (!slot_used(s)) {
			c->free = c->free == -1 ? i : c->free;
			c->spare++;
			continue;
		}
		same = addr_same_client(client, &s->client);
		c->addr += (unsigned)same;
		c->addr_prelogin += (unsigned)(same && !atomic_load(&s->loggedin));
		if (!is_guest(s)) {
			continue;
		}
		c->guests++;
		if (s->start < limit && (c->oldest == -1 || s->start < slots()[c->oldest].start)) {
			c->oldest = i;
		}
	}
}

/*
 * Of the networks that have more guests than the client's own, take the one that has most, and of those the one who has waited longest; -1 when
 * there is none. Who holds all places, with many addresses or many connections, then cannot keep out somebody from elsewhere. A network is
 * a /24, or a /48 of IPv6: so much one attacker easily has. Two that fall into one bucket are taken for one, which does little harm.
 */
static int
crowding_guest(const struct addr *client)
{
	uint16_t held[512] = { 0 };
	uint16_t own, most;
	int found = -1;

	for (int i = 0; i < SESSIONS_MAX; i++) {
		if (is_guest(&slots()[i])) {
			held[addr_network(&slots()[i].client) % 512]++;
		}
	}
	most = own = held[addr_network(client) % 512];
	for (int i = 0; i < SESSIONS_MAX; i++) {
		const struct share_slot *s = &slots()[i];
		uint16_t n = is_guest(s) ? held[addr_network(&s->client) % 512] : 0;

		if (n > most || (n == most && n > own && s->start < slots()[found].start)) {
			most = n;
			found = i;
		}
	}
	return found;
}

/*
 * Signal a process of a slot, unless it has ended. Its pid stands in memory that wardens can write to, so only a child of ours is believed: the
 * kernel lets us wait for no other one.
 */
static void
signal_child(pid_t pid, int sig)
{
	siginfo_t si = { .si_pid = 0 };

	if (pid > 1 && waitid(P_PID, (id_t)pid, &si, WEXITED | WNOHANG | WNOWAIT | __WALL) == 0 && si.si_pid == 0) {
		kill(pid, sig);
	}
}

static void
signal_smtp(const struct share_slot *s, int sig)
{
	signal_child(atomic_load(&s->smtp), sig);
}

/* A guest makes room for a client. 0, or -1 when there is none who must. */
static int
evict(const struct census *c, const struct addr *client)
{
	int i = crowding_guest(client);

	i = i == -1 ? c->oldest : i;
	if (i == -1) {
		return -1;
	}
	slots()[i].evicted = mono_ms();
	signal_smtp(&slots()[i], SIGTERM);
	return 0;
}

/* Those who were told to go `seconds` ago and did not are ended; wardens, too: one may wait for RADIUS, or before it says no. */
void
slots_end_evicted(int seconds)
{
	int64_t limit = mono_ms() - seconds * INT64_C(1000);

	for (int i = 0; i < SESSIONS_MAX; i++) {
		const struct share_slot *s = &slots()[i];

		if (slot_used(s) && s->evicted != 0 && s->evicted < limit) {
			signal_smtp(s, SIGKILL);
			signal_child(atomic_load(&s->warden), SIGTERM);
		}
	}
}

int
slots_find_room(const struct addr *client, const char **why)
{
	struct census c;

	take_census(&c, client);
	*why = "sessions-address";
	if (c.addr >= SESSIONS_PER_ADDR) {
		return -1;
	}
	*why = "prelogin-address";
	if (c.addr_prelogin >= PRELOGIN_PER_ADDR) {
		return -1;
	}
	if (c.spare <= SESSIONS_MAX / 16) {
		slots_end_evicted(0); /* no time for those who take theirs */
	}
	*why = "sessions-total";
	if (c.free == -1) {
		evict(&c, client); /* for the next one */
		return -1;
	}
	*why = "prelogin-total";
	if (c.guests >= PRELOGIN_MAX && evict(&c, client) == -1) {
		return -1;
	}
	return c.free;
}

/* By a signal that is a sign of a fault or an attack. */
int
slots_by_crash(int status)
{
	return WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL && WTERMSIG(status) != SIGTERM;
}

static int
warden_gone(struct share_slot *s, int status)
{
	int crashed = WIFEXITED(status) && WEXITSTATUS(status) == WARDEN_SMTP_CRASHED;

	if (slots_by_crash(status)) {
		log_msg(LOG_ERR, "crash", "warden died by signal %d", WTERMSIG(status));
		crashed = 1;
	}
	/* Left over when the warden was killed, or when smtp has let go of it but lives on. */
	signal_smtp(s, SIGKILL);
	atomic_store(&s->loggedin, 0);
	atomic_store(&s->warden, 0);
	return crashed;
}

static int
smtp_gone(struct share_slot *s, int status)
{
	struct log_line l;
	char text[ADDR_TEXT_MAX];

	if (slots_by_crash(status)) {
		log_begin(&l, LOG_ERR, "crash");
		log_mem(&l, "sid", s->sid, strnlen(s->sid, sizeof s->sid));
		log_str(&l, "client", addr_text(&s->client, text));
		log_str(&l, "role", "smtp");
		log_num(&l, "signal", WTERMSIG(status));
		log_end(&l);
	}
	atomic_store(&s->smtp, 0);
	return slots_by_crash(status);
}

int
slots_reaped(pid_t pid, int status)
{
	for (int i = 0; i < SESSIONS_MAX; i++) {
		struct share_slot *s = &slots()[i];

		if (atomic_load(&s->warden) == pid) {
			return warden_gone(s, status);
		}
		if (atomic_load(&s->smtp) == pid) {
			return smtp_gone(s, status);
		}
	}
	if (slots_by_crash(status)) {
		log_msg(LOG_ERR, "crash", "a process that delivers died by signal %d", WTERMSIG(status));
	}
	return slots_by_crash(status);
}

int
slots_lingering(void)
{
	for (int i = 0; i < SESSIONS_MAX; i++) {
		if (atomic_load(&slots()[i].warden) == 0 && atomic_load(&slots()[i].smtp) != 0) {
			return 1;
		}
	}
	return 0;
}

unsigned
slots_running(void)
{
	unsigned n = 0;

	for (int i = 0; i < SESSIONS_MAX; i++) {
		n += (unsigned)slot_used(&slots()[i]);
	}
	return n;
}

void
slots_kill(int64_t older_than, int sig)
{
	for (int i = 0; i < SESSIONS_MAX; i++) {
		const struct share_slot *s = &slots()[i];

		if (slot_used(s) && s->start <= older_than) {
			signal_smtp(s, SIGKILL);
			signal_child(atomic_load(&s->warden), sig);
		}
	}
}

void
slots_drain(void)
{
	for (int i = 0; i < SESSIONS_MAX; i++) {
		if (slot_used(&slots()[i])) {
			signal_smtp(&slots()[i], SIGTERM);
		}
	}
}

struct share_slot *
slots_begin(int i, const struct addr *client, const char *sid)
{
	struct share_slot *s = &slots()[i];

	str_copy(s->sid, sizeof s->sid, sid);
	s->client = *client;
	s->start = mono_ms();
	s->evicted = 0;
	atomic_store(&s->loggedin, 0);
	return s;
}
