/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * `mailstile status`: one screen of 80 columns and 24 lines, plain ASCII, for a serial line; with -p the same for Prometheus (text exposition
 * format 0.0.4). All it knows comes from the server, over the control socket; whatever is text there has been under the influence of
 * strangers, and is escaped or cut.
 */
#include "ctl.h"

#include "msg.h"
#include "options.h"
#include "str.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#if TOOLS

#define COLUMNS 79
#define ROWS 23
#define NOT_RUNNING 3 /* as init scripts say it (LSB) */

static unsigned rows;

/* A line, cut at the screen's edge; none below its foot. */
static void
line(struct buf *b)
{
	if (b->len > COLUMNS) {
		b->len = COLUMNS;
		memcpy(b->p + COLUMNS - 3, "...", 3);
	}
	for (size_t i = 0; i < b->len; i++) {
		if (b->p[i] < ' ' || b->p[i] > '~') {
			b->p[i] = '?';
		}
	}
	if (rows < ROWS) {
		print(STDOUT_FILENO, "%s\n", buf_cstr(b));
	}
	rows++;
	buf_reset(b);
}

/* A span of time, in the largest unit that has two of it: "90 s", "15 m", "36 h", "4 d". */
static void
span(struct buf *b, int64_t seconds)
{
	static const struct {
		int64_t seconds;
		char unit;
	} units[] = { { 86400, 'd' }, { 3600, 'h' }, { 60, 'm' }, { 1, 's' } };

	for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
		if (seconds >= 2 * units[i].seconds || units[i].seconds == 1) {
			buf_fmt(b, "%lld %c", (long long)(seconds / units[i].seconds), units[i].unit);
			return;
		}
	}
}

static const char *
s_of(uint32_t n)
{
	return n == 1 ? "" : "s";
}

/* ---- the screen ---- */

static void
show_listeners(struct buf *b, const struct ctl_status *s)
{
	for (unsigned i = 0; i < s->listeners && i < LISTENERS_MAX; i++) {
		const struct ctl_listener *l = &s->listener[i];

		if (b->len == 0 || b->len + strlen(l->where) + 24 > COLUMNS) {
			if (b->len > 0) {
				line(b);
			}
			buf_str(b, i == 0 ? "listens     " : "            ");
		} else {
			buf_str(b, ", ");
		}
		buf_fmt(b, "%s %s%s", l->profile, l->where, l->heard ? "" : " (NOT YET)");
	}
	line(b);
}

static void
show_radius(struct buf *b, const struct ctl_status *s)
{
	for (unsigned i = 0; i < s->radius && i < RADIUS_SERVERS_MAX; i++) {
		const struct ctl_radius *r = &s->server[i];

		buf_fmt(b, "%s%.40s ", i == 0 ? "radius      " : "            ", r->name);
		if (r->dead > 0) {
			buf_str(b, "DOES NOT ANSWER, asked last for ");
			span(b, r->dead);
		} else if (r->addr[0] == '\0') {
			buf_str(b, "address not known yet");
		} else if (r->answered < 0) {
			buf_str(b, "not asked yet");
		} else {
			buf_str(b, "answered ");
			span(b, r->answered);
			buf_str(b, " ago");
		}
		line(b);
	}
	if (s->radius == 0) {
		buf_str(b, "radius      NO SERVER: nobody can log in");
		line(b);
	}
}

/* What keeps everybody out, whatever RADIUS says. */
static void
show_nobody(struct buf *b, const struct ctl_status *s)
{
	static const struct {
		uint32_t bit;
		const char *why;
	} all[] = {
		{ CTL_NO_CERTIFICATE, "no certificate that can be used" },
		{ CTL_NO_COUNTS, "the file of what each login has sent" },
		{ CTL_NO_LIMITS, "userlimits or timezone has a fault" },
	};

	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
		if ((s->nobody & all[i].bit) != 0) {
			buf_fmt(b, "NO LOGINS   %s: see `mailstile check`", all[i].why);
			line(b);
		}
	}
}

static void
show_server(struct buf *b, const struct ctl_status *s)
{
	const uint32_t *c = s->count;

	buf_fmt(b, "mailstile %s on %s, up ", s->version, s->me);
	span(b, s->up);
	line(b);
	buf_str(b, "clock       ");
	buf_date(b, s->now);
	buf_str(b, s->clock_set ? "" : " NOT SET");
	line(b);
	show_listeners(b, s);
	show_radius(b, s);
	show_nobody(b, s);
	buf_fmt(b, "sessions    %u of %u now, %u logged in; %u so far, %u under TLS, %u refused", s->sessions,
	    s->sessions_max, s->loggedin, c[COUNT_SESSIONS], c[COUNT_TLS], c[COUNT_REFUSED]);
	line(b);
	buf_fmt(b, "logins      %u good, %u wrong, %u that RADIUS did not answer", c[COUNT_LOGINS],
	    c[COUNT_LOGIN_FAILS], c[COUNT_LOGIN_LATER]);
	line(b);
	buf_fmt(b, "messages    %u taken, %u recipient%s, %u KiB; %u not taken", c[COUNT_MESSAGES], c[COUNT_RCPTS],
	    s_of(c[COUNT_RCPTS]), c[COUNT_KIB], c[COUNT_REJECTED]);
	line(b);
	if (c[COUNT_CRASHES] > 0) {
		buf_fmt(b, "CRASHES     %u: see the log", c[COUNT_CRASHES]);
		line(b);
	}
}

/* Destinations that are down. */
static void
show_down(struct buf *b, int fd)
{
	struct ctl_dest d;

	for (uint64_t i = 1, shown = 0; shown < 3 && ctl_query(fd, CTL_DEST, i, &d, sizeof d) == 0 && d.rc == CTL_DONE;
	     i++) {
		if (d.until < 0) {
			continue;
		}
		d.name[sizeof d.name - 1] = d.text[sizeof d.text - 1] = '\0';
		buf_fmt(b, "  down      %.30s, %u wait, tried in ", d.name, d.waiting);
		span(b, d.until);
		buf_fmt(b, ": %s", d.text);
		line(b);
		shown++;
	}
}

static void
show_queue(struct buf *b, int fd, const struct ctl_counts *q)
{
	buf_fmt(b, "queue       %u message%s", q->queued, s_of(q->queued));
	if (q->queued > 0) {
		buf_str(b, ", the oldest ");
		span(b, q->oldest);
		buf_fmt(b, " old: %u due, %u wait, %u later, %u held", q->due, q->waiting, q->timed, q->held);
	}
	line(b);
	buf_fmt(b, "delivery    %u of %u run; %u recipient%s done, %u put off, %u failed", q->deliveries,
	    q->deliveries_max, q->ok, s_of(q->ok), q->deferred, q->failed);
	line(b);
	show_down(b, fd);
	if (q->error_age >= 0) {
		buf_str(b, "  last      ");
		span(b, q->error_age);
		buf_fmt(b, " ago: %.200s", q->error);
		line(b);
	}
}

/* A line of the log; of a finding about the configuration what the screen has room for: level, name of the file, text. */
static void
log_text_short(struct buf *b, const char *s)
{
	static const char head[] = "ev=config level=", file[] = " file=", msg[] = " msg=\"";
	const char *name = strstr(s, file), *text = strstr(s, msg), *slash;
	size_t n;

	if (strncmp(s, head, sizeof head - 1) != 0 || name == NULL || text == NULL || text < name) {
		buf_str(b, s);
		return;
	}
	s += sizeof head - 1;
	buf_fmt(b, "%.*s: ", (int)(name - s), s);
	name += sizeof file - 1;
	n = strcspn(name, " ");
	slash = memrchr(name, '/', n);
	if (slash != NULL) {
		n -= (size_t)(slash + 1 - name);
		name = slash + 1;
	}
	if (n > 1) { /* - is no file */
		buf_fmt(b, "%.*s: ", (int)n, name);
	}
	text += sizeof msg - 1;
	buf_fmt(b, "%.*s", (int)strcspn(text, "\""), text);
}

/* The last lines of the log that tell of trouble, as far as there is room. */
static void
show_lines(struct buf *b, const struct ctl_line *l, uint32_t n)
{
	unsigned room = rows < ROWS - 1 ? ROWS - 1 - rows : 0;

	if (n == 0 || room == 0) {
		return;
	}
	buf_str(b, "trouble");
	line(b);
	for (uint32_t i = n > room ? n - room : 0; i < n; i++) {
		buf_str(b, "  ");
		span(b, l[i].age);
		buf_str(b, " ago: ");
		log_text_short(b, l[i].text);
		line(b);
	}
}

/* ---- Prometheus ---- */

static void
metric(const char *name, const char *type, const char *help)
{
	print(STDOUT_FILENO, "# HELP mailstile_%s %s\n# TYPE mailstile_%s %s\n", name, help, name, type);
}

static void
single(const char *name, const char *type, const char *help, long long value)
{
	metric(name, type, help);
	print(STDOUT_FILENO, "mailstile_%s %lld\n", name, value);
}

/* A label's value: backslash, quote and line feed may not stand there as they are; names have none of them. */
static const char *
label(const char *s, char *mem, size_t size)
{
	struct buf b;

	buf_init(&b, mem, size);
	buf_escaped(&b, s, strlen(s), 1);
	for (size_t i = 0; i < b.len; i++) {
		b.p[i] = (char)(b.p[i] == '\\' ? '%' : b.p[i]);
	}
	return buf_cstr(&b);
}

static void
print_server(const struct ctl_status *s)
{
	static const struct {
		const char *name, *help;
	} counts[COUNTS] = {
		[COUNT_SESSIONS] = { "sessions_total", "Sessions begun." },
		[COUNT_REFUSED] = { "connections_refused_total", "Connections refused by limits or rules." },
		[COUNT_TLS] = { "sessions_tls_total", "Sessions under TLS." },
		[COUNT_LOGINS] = { "logins_total", "Logins accepted by RADIUS." },
		[COUNT_LOGIN_FAILS] = { "login_failures_total", "Logins refused." },
		[COUNT_LOGIN_LATER] = { "login_unanswered_total", "Logins that RADIUS did not answer." },
		[COUNT_MESSAGES] = { "messages_accepted_total", "Messages accepted." },
		[COUNT_RCPTS] = { "recipients_accepted_total", "Recipients of accepted messages." },
		[COUNT_KIB] = { "message_kibibytes_total", "Size of accepted messages." },
		[COUNT_REJECTED] = { "messages_rejected_total", "Messages refused after their data." },
		[COUNT_CRASHES] = { "crashes_total", "Processes that crashed." },
	};
	char mem[600];

	metric("info", "gauge", "Version and host name.");
	print(
	    STDOUT_FILENO, "mailstile_info{version=\"%s\",host=\"%s\"} 1\n", s->version, label(s->me, mem, sizeof mem));
	single("uptime_seconds", "gauge", "Seconds since the start.", s->up);
	single("clock_set", "gauge", "1 when the clock can be right.", s->clock_set);
	single("logins_possible", "gauge", "0 when a fault of the configuration keeps everybody from logging in.",
	    s->nobody == 0 && s->radius > 0);
	single("sessions", "gauge", "Sessions now.", s->sessions);
	single("sessions_max", "gauge", "Sessions there may be.", s->sessions_max);
	single("sessions_logged_in", "gauge", "Sessions now that have logged in.", s->loggedin);
	for (unsigned i = 0; i < COUNTS; i++) {
		single(counts[i].name, "counter", counts[i].help, s->count[i]);
	}
	metric("listener_up", "gauge", "1 when the listener is open.");
	for (unsigned i = 0; i < s->listeners && i < LISTENERS_MAX; i++) {
		print(STDOUT_FILENO, "mailstile_listener_up{profile=\"%s\",address=\"%s\"} %u\n",
		    s->listener[i].profile, s->listener[i].where, s->listener[i].heard);
	}
	metric("radius_up", "gauge", "0 when the server does not answer.");
	for (unsigned i = 0; i < s->radius && i < RADIUS_SERVERS_MAX; i++) {
		print(STDOUT_FILENO, "mailstile_radius_up{server=\"%s\"} %d\n",
		    label(s->server[i].name, mem, sizeof mem), s->server[i].dead == 0);
	}
	single("delivers", "gauge", "1 when the scheduler runs.", s->delivers == 1);
}

static void
print_queue(int fd, const struct ctl_counts *q)
{
	static const char *const states[] = { "timed", "due", "waiting", "running", "held" };
	const uint32_t n[] = { q->timed, q->due, q->waiting, q->running, q->held };
	struct ctl_dest d;
	char mem[1100];

	metric("queue_messages", "gauge", "Messages in the queue.");
	for (unsigned i = 0; i < sizeof n / sizeof n[0]; i++) {
		print(STDOUT_FILENO, "mailstile_queue_messages{state=\"%s\"} %u\n", states[i], n[i]);
	}
	single("queue_oldest_seconds", "gauge", "Age of the oldest message.", q->queued > 0 ? q->oldest : 0);
	single("deliveries", "gauge", "Deliveries that run.", q->deliveries);
	single("deliveries_max", "gauge", "Deliveries that may run.", q->deliveries_max);
	metric("recipients_total", "counter", "Attempts, by what became of the recipient.");
	print(STDOUT_FILENO,
	    "mailstile_recipients_total{result=\"ok\"} %u\nmailstile_recipients_total{result=\"deferred\"} %u\n"
	    "mailstile_recipients_total{result=\"failed\"} %u\n",
	    q->ok, q->deferred, q->failed);
	single("bounces_total", "counter", "Bounces written.", q->bounces);
	metric("destination_up", "gauge", "0 when nobody there can be reached; only of those that are known.");
	for (uint64_t i = 1; ctl_query(fd, CTL_DEST, i, &d, sizeof d) == 0 && d.rc == CTL_DONE; i++) {
		d.name[sizeof d.name - 1] = '\0';
		print(STDOUT_FILENO, "mailstile_destination_up{destination=\"%s\"} %d\n",
		    label(d.name, mem, sizeof mem), d.until < 0);
	}
}

/* ---- */

/* Text from the other side ends where its place does. */
static void
end_texts(struct ctl_status *s)
{
	s->version[sizeof s->version - 1] = s->me[sizeof s->me - 1] = '\0';
	s->home[sizeof s->home - 1] = s->spool[sizeof s->spool - 1] = '\0';
	for (unsigned i = 0; i < LISTENERS_MAX; i++) {
		s->listener[i].where[sizeof s->listener[i].where - 1] = '\0';
		s->listener[i].profile[sizeof s->listener[i].profile - 1] = '\0';
	}
	for (unsigned i = 0; i < RADIUS_SERVERS_MAX; i++) {
		s->server[i].name[sizeof s->server[i].name - 1] = s->server[i].addr[sizeof s->server[i].addr - 1] =
		    '\0';
	}
}

static void
show(const struct ctl_status *s, const struct ctl_line *l, int fd, const struct ctl_counts *q)
{
	char mem[1024];
	struct buf b;

	buf_init(&b, mem, sizeof mem - 1);
	show_server(&b, s);
	if (q != NULL) {
		show_queue(&b, fd, q);
	} else {
		buf_str(&b,
		    s->delivers == 0 ? "delivery    not by this program (control/relay)"
				     : "delivery    DOES NOT RUN: see the log");
		line(&b);
	}
	show_lines(&b, l, s->lines);
}

int
status_main(int argc, char **argv)
{
	static struct ctl_status s;
	static struct ctl_line lines[CTL_LINES_MAX];
	static struct ctl_counts q;
	const char *path = NULL, *home = NULL;
	struct options o;
	int opt, fd, prometheus = 0, have_queue;

	(void)argc;
	options_begin(&o, argv);
	while ((opt = options_next(&o, "pH:S:")) != 0) {
		if (opt == '?') {
			break;
		}
		prometheus |= opt == 'p';
		home = opt == 'H' ? o.value : home;
		path = opt == 'S' ? o.value : path;
	}
	if (opt != 0 || *o.word != NULL) {
		print(STDERR_FILENO, "usage: mailstile status [-p] [-H home] [-S socket]\n");
		return 100;
	}
	path = path == NULL ? ctl_where(home, 1) : path;
	fd = ctl_connect(path);
	if (fd == -1) {
		opt = errno;
		print(STDERR_FILENO, "mailstile: no server answers at %s: %s\n", path, strerror(opt));
		return opt == ENOENT || opt == ECONNREFUSED ? NOT_RUNNING : 111;
	}
	if (ctl_query(fd, CTL_STATUS, 0, &s, sizeof s) == -1 || s.lines > CTL_LINES_MAX) {
		print(STDERR_FILENO, "mailstile: the server at %s does not answer, or is of another version\n", path);
		return 111;
	}
	for (uint32_t i = 0; i < s.lines; i++) {
		if (msg_recv(fd, &lines[i], sizeof lines[i], NULL, -1) != (long)sizeof lines[i]) {
			s.lines = i;
		}
		lines[i].text[sizeof lines[i].text - 1] = '\0';
	}
	close(fd);
	end_texts(&s);
	if (home != NULL && !ctl_is_home(home, s.home)) {
		print(STDERR_FILENO, "mailstile: no server of %s runs; the one at %s is of %s\n", home, path, s.home);
		return NOT_RUNNING;
	}
	fd = ctl_connect(path);
	have_queue = fd != -1 && ctl_query(fd, CTL_COUNTS, 0, &q, sizeof q) == 0 && q.rc == CTL_DONE;
	q.error[sizeof q.error - 1] = '\0';
	if (!prometheus) {
		show(&s, lines, fd, have_queue ? &q : NULL);
		return 0;
	}
	print_server(&s);
	if (have_queue) {
		print_queue(fd, &q);
	}
	return 0;
}

#endif
