/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * `mailstile users`: who has sent how much, and orders about it. It works on the file itself, under the same locks as wardens do, so that sessions
 * that are open see it at their next command, and needs no server. Names come from who could log in, and are cleaned for the terminal.
 */
#include "users.h"

#include "control.h"
#include "log.h"
#include "options.h"
#include "priv.h"
#include "str.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#if ACCOUNTS && TOOLS

static int
usage(void)
{
	print(STDERR_FILENO,
	    "usage: mailstile users [-j] [-H home] [USER]\n"
	    "       mailstile users [-H home] reset | block | unblock USER ...\n");
	return 100;
}

static void
say_fault(struct diag *d, enum diag_level level, const char *path, int line, const char *text)
{
	(void)d;
	(void)level;
	(void)line;
	print(STDERR_FILENO, "mailstile: %s: %s\n", path, text);
}

/* Open the file, and give up root for its owner before anything is read that a warden could have written. 0 or an exit status. */
static int
enter(const char *home)
{
	struct diag d = { .emit = say_fault };
	struct priv_ids ids;
	const char *missing;
	int32_t zone = 0;

	if (priv_lookup(&ids, &missing) == -1) {
		print(STDERR_FILENO, "mailstile: no user or group `%s`\n", missing);
		return 111;
	}
	if (control_zone(home, &zone, &d) == -1 || users_open(home, ids.root, ids.spool_uid, ids.spool_gid, &d) == -1) {
		return 111;
	}
	users_zone(zone);
	if (ids.root) {
		priv_become(ids.spool_uid, ids.spool_gid);
	}
	return 0;
}

/* A line about a login, whose name anybody may have made up. */
static void
about(int fd, const char *user, const char *what)
{
	char mem[4 * AUTH_USER_MAX + 200];
	struct buf b;

	buf_init(&b, mem, sizeof mem);
	buf_str(&b, fd == STDERR_FILENO ? "mailstile: " : "");
	buf_escaped(&b, user, strlen(user), 0);
	buf_fmt(&b, ": %s\n", what);
	(void)write_all(fd, b.p, b.len);
}

/* ---- listing ---- */

static void
json_name(struct buf *b, const char *s)
{
	for (; *s != '\0'; s++) {
		uint8_t c = (uint8_t)*s;

		if (c < ' ' || c > '~' || c == '"' || c == '\\') {
			buf_fmt(b, "\\u%04x", c);
		} else {
			buf_ch(b, (char)c);
		}
	}
}

static void
json_limit(struct buf *b, const char *name, uint32_t n)
{
	if (n == LIMIT_NONE) {
		buf_fmt(b, ", \"%s\": null", name);
	} else {
		buf_fmt(b, ", \"%s\": %u", name, n);
	}
}

/* Who counts? RADIUS says what is left, from one login to the next; here a limit would seem to move. */
static int
by_radius(const struct users_record *r, uint32_t flag)
{
	return (r->flags & flag) != 0;
}

static uint32_t
left(uint32_t limit, uint32_t n)
{
	return limit > n ? limit - n : 0;
}

static void
show_json(struct buf *b, const struct users_record *r)
{
	buf_str(b, "{\"user\": \"");
	json_name(b, r->name);
	buf_fmt(b, "\", \"messages\": %u", r->messages);
	json_limit(b, "messages_limit", by_radius(r, USERS_LEFT) ? LIMIT_NONE : r->limit);
	json_limit(b, "messages_left", by_radius(r, USERS_LEFT) ? left(r->limit, r->messages) : LIMIT_NONE);
	buf_fmt(b, ", \"recipients\": %u", r->rcpts);
	json_limit(b, "recipients_limit", by_radius(r, USERS_LEFT_RCPT) ? LIMIT_NONE : r->limit_rcpt);
	json_limit(b, "recipients_left", by_radius(r, USERS_LEFT_RCPT) ? left(r->limit_rcpt, r->rcpts) : LIMIT_NONE);
	buf_fmt(b, ", \"total\": %u, \"last\": %u, \"blocked\": %s, \"met_limit\": %s}", r->total, r->last,
	    (r->flags & USERS_BLOCKED) != 0 ? "true" : "false", r->tripped ? "true" : "false");
}

static void
of_limit(struct buf *b, uint32_t n, uint32_t limit, int radius, const char *what)
{
	buf_fmt(b, limit == LIMIT_NONE || radius ? "%u" : "%u of %u", n, limit);
	buf_fmt(b, radius ? " %s (%u left by RADIUS)" : " %s", what, left(limit, n));
}

static void
show_text(struct buf *b, const struct users_record *r)
{
	buf_escaped(b, r->name, strlen(r->name), 0);
	buf_str(b, ": ");
	of_limit(b, r->messages, r->limit, by_radius(r, USERS_LEFT), "messages");
	buf_str(b, " and ");
	of_limit(b, r->rcpts, r->limit_rcpt, by_radius(r, USERS_LEFT_RCPT), "recipients");
	buf_fmt(b, " today, %u messages in all", r->total);
	if (r->last != 0) {
		buf_str(b, ", the last on ");
		buf_date(b, r->last);
	}
	buf_str(b, r->tripped ? "; met a limit today" : "");
	buf_str(b, (r->flags & USERS_BLOCKED) != 0 ? "; BLOCKED" : "");
	buf_ch(b, '\n');
}

static int
list(const char *user, int json)
{
	struct users_record r;
	uint32_t at = 0;
	unsigned shown = 0;
	int rc, damaged = 0;

	if (json) {
		print(STDOUT_FILENO, "{\"users\": [");
	}
	while ((rc = users_next(&at, &r, time(NULL))) != 0) {
		char mem[2048];
		struct buf b;

		damaged |= rc == -1;
		if (rc == -1 || (user != NULL && strcmp(user, r.name) != 0)) {
			continue;
		}
		buf_init(&b, mem, sizeof mem);
		if (json) {
			buf_str(&b, shown > 0 ? ",\n" : "\n");
			show_json(&b, &r);
		} else {
			show_text(&b, &r);
		}
		shown++;
		if (write_all(STDOUT_FILENO, b.p, b.len) == -1) {
			return 111;
		}
	}
	if (json) {
		print(STDOUT_FILENO, "]}\n");
	}
	if (damaged) {
		print(STDERR_FILENO,
		    "mailstile: a record is damaged, and who may have been in it is not served; move the file away, restart the server, and counts and blocks begin anew\n");
	}
	if (user != NULL && shown == 0) {
		about(STDERR_FILENO, user, "not known: nothing has come from this login");
	}
	return damaged || (user != NULL && shown == 0);
}

/* ---- orders ---- */

static const struct {
	const char *verb;
	uint32_t set, clear;
	int again;
	const char *done, *new; /* what is said; of a login that has never sent anything */
} verbs[] = {
	{ "reset", 0, 0, 1, "its day begins anew", "its day begins anew" },
	{ "block", USERS_BLOCKED, 0, 0, "blocked", "blocked; it has never sent anything from here: is that its name?" },
	{ "unblock", 0, USERS_BLOCKED, 0, "no longer blocked", "no longer blocked" },
};

#define VERBS (sizeof verbs / sizeof verbs[0])

static int
give(size_t verb, char **user)
{
	int rc = 0;

	for (; *user != NULL; user++) {
		size_t len = strlen(*user);
		int new = -1;

		errno = 0;
		if (len > 0 && len <= AUTH_USER_MAX) {
			new = users_change(*user, verbs[verb].set, verbs[verb].clear, verbs[verb].again, time(NULL));
		}
		if (new != -1) {
			about(STDOUT_FILENO, *user, new ? verbs[verb].new : verbs[verb].done);
			continue;
		}
		rc = 1;
		about(STDERR_FILENO, *user,
		    errno != 0 ? strerror(errno) : "nothing is known of this login, or its record cannot be read");
	}
	return rc;
}

int
users_main(int argc, char **argv)
{
	const char *home = HOME_DIR, *word = NULL;
	struct options o;
	int opt, rc, json = 0;
	size_t verb = 0;

	(void)argc;
	/* Options may stand before and behind the first word. */
	options_begin(&o, argv);
	for (int part = 0; part < 2; part++) {
		while ((opt = options_next(&o, "jH:")) != 0) {
			if (opt == 'j') {
				json = 1;
			} else if (opt == 'H') {
				home = o.value;
			} else {
				return usage();
			}
		}
		if (part == 0 && *o.word != NULL) {
			word = *o.word;
			options_begin(&o, o.word);
		}
	}
	if (word != NULL) {
		while (verb < VERBS && strcmp(word, verbs[verb].verb) != 0) {
			verb++;
		}
		/* A login alone is asked about; all else is an order. */
		if ((verb < VERBS) != (*o.word != NULL) || (verb < VERBS && json)) {
			return usage();
		}
	}
	log_open(LOG_TO_STDERR);
	rc = enter(home);
	if (rc != 0) {
		return rc;
	}
	return word != NULL && verb < VERBS ? give(verb, o.word) : list(word, json);
}

#endif
