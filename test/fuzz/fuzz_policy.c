/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * What a login may do, as texts and as attributes (limits.c), and whose a message says it is (author.c). Input: which of them, octets. What is
 * taken is written again, in our own words, and has to mean the same.
 */
#undef FROM_HEADER_CHECK
#define FROM_HEADER_CHECK 1
#include "../../author.c"

#include "fuzz.h"
#include "limits.h"

#include <stdio.h>

#if ACCOUNTS

static void
check_limits(const struct limits *l)
{
	CHECK(l->froms <= LIMITS_FROMS_MAX && (l->relay == 0 || l->relay == 1));
	for (unsigned i = 0; i < l->froms; i++) {
		const char *at = strchr(l->from[i], '@');

		CHECK(l->from[i][0] == '\0' || (at != NULL && at[1] != '\0'));
		CHECK(strpbrk(l->from[i], " \t\r\n") == NULL);
		/* Each may be used as it stands, unless it is a whole domain. */
		CHECK(l->from[i][0] == '@' || limits_from_ok(l, l->from[i]));
	}
}

static size_t
put_count(char *to, size_t size, const char *name, uint32_t n)
{
	return (size_t)(n == LIMIT_NONE ? snprintf(to, size, "%s=-,", name) : snprintf(to, size, "%s=%u,", name, n));
}

static void
items(const char *s, size_t len)
{
	static char text[8 + LIMITS_FROMS_MAX * (SMTP_PATH_MAX + 8) + 200];
	struct limits l, again;
	const char *why = NULL;
	size_t n = 0;

	limits_default(&l);
	if (limits_items(&l, s, len, &why) == -1) {
		CHECK(why != NULL);
		return;
	}
	check_limits(&l);
	n += put_count(text + n, sizeof text - n, "day", l.day);
	n += put_count(text + n, sizeof text - n, "rcpt", l.rcpt);
	n += put_count(text + n, sizeof text - n, "rate", l.rate);
	n += put_count(text + n, sizeof text - n, "sessions", l.sessions);
	n += put_count(text + n, sizeof text - n, "time", l.session_s);
	n += put_count(text + n, sizeof text - n, "idle", l.idle_s);
	for (unsigned i = 0; i < l.froms; i++) {
		n += (size_t)snprintf(text + n, sizeof text - n, "from=%s,", l.from[i]);
	}
	n += (size_t)snprintf(text + n, sizeof text - n, "relay=%s", l.relay ? "yes" : "no");
	CHECK(n < sizeof text);
	limits_default(&again);
	again.size = l.size;
	CHECK(limits_items(&again, text, n, &why) == 0 && again.froms == l.froms);
	for (unsigned i = 0; i < l.froms; i++) {
		CHECK(strcmp(again.from[i], l.from[i]) == 0);
	}
	CHECK(again.day == l.day && again.rcpt == l.rcpt && again.left == l.left && again.left_rcpt == l.left_rcpt);
	CHECK(again.rate == l.rate && again.sessions == l.sessions && again.session_s == l.session_s &&
	    again.idle_s == l.idle_s);
	CHECK(again.size == l.size && again.relay == l.relay);
}

/* Attributes as radius.c keeps them: well formed to the last one. */
static void
attributes(const uint8_t *p, size_t len)
{
	struct limits l;
	const char *why = NULL;
	size_t n = 0;

	while (len - n >= 2 && p[n + 1] >= 2 && p[n + 1] <= len - n && (p[n] != 26 || p[n + 1] >= 6)) {
		n += p[n + 1];
	}
	limits_default(&l);
	if (limits_radius(&l, p, n, &why) == 0) {
		check_limits(&l);
	} else {
		CHECK(why != NULL);
	}
}

static void
nothing(struct diag *d, enum diag_level level, const char *file, int line, const char *text)
{
	CHECK(d->errors > 0 && level == DIAG_ERROR && file != NULL && line > 0 && text[0] != '\0');
}

static void
file(const char *s, size_t len)
{
	struct diag d = { .emit = nothing };
	struct limits l;
	char *text = malloc(len + 1);

	CHECK(text != NULL);
	memcpy(text, s, len);
	text[len] = '\0';
	if (limits_check(text, &d, "userlimits") == 0) {
		CHECK(d.errors == 0);
		limits_default(&l);
		limits_file(&l, text, "joe");
		check_limits(&l);
	} else {
		CHECK(d.errors > 0);
	}
	free(text);
}

#endif

static void
author(const char *s, size_t len)
{
	char addr[SMTP_PATH_MAX + 1], again[SMTP_PATH_MAX + 1], value[SMTP_PATH_MAX + 32];

	if (author_address(s, len, addr, sizeof addr) == -1) {
		return;
	}
	CHECK(strlen(addr) < sizeof addr && strchr(addr, '@') != NULL && strchr(addr, '@') == strrchr(addr, '@'));
	CHECK(memmem(s, len, addr, strlen(addr)) != NULL || memchr(s, '(', len) != NULL);
	snprintf(value, sizeof value, " \"A, B\" <%s> (c)", addr);
	CHECK(author_address(value, strlen(value), again, sizeof again) == 0 && strcmp(again, addr) == 0);
	CHECK(author_address(addr, strlen(addr), again, sizeof again) == 0 && strcmp(again, addr) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	struct input in = { p, len };
	unsigned how = take_octet(&in) % 4;
	const char *s = (const char *)in.p;

#if ACCOUNTS
	if (how == 0) {
		items(s, in.len);
	} else if (how == 1) {
		attributes(in.p, in.len);
	} else if (how == 2) {
		file(s, in.len);
	}
#endif
	if (how == 3) {
		author(s, in.len);
	}
	return 0;
}
