/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * What a login may do. One syntax for the file and for Filter-Id; the vendor's attributes say the same in binary. An item that is not understood
 * makes all of it void: half a policy could allow what the other half forbids.
 */
#include "limits.h"

#include "ctlfile.h"
#include "str.h"

#include <string.h>

#if ACCOUNTS

#define FILTER_ID 11 /* RFC 2865 5.11, 5.26 to 5.28, 5.42 */
#define VENDOR_SPECIFIC 26
#define SESSION_TIMEOUT 27
#define IDLE_TIMEOUT 28
#define PORT_LIMIT 62

static uint32_t
or_none(uint32_t n)
{
	return n == 0 ? LIMIT_NONE : n;
}

void
limits_default(struct limits *l)
{
	memset(l, 0, sizeof *l);
	l->day = or_none(LIMIT_DAY);
	l->rcpt = or_none(LIMIT_RCPT);
	l->rate = or_none(LIMIT_RATE);
	l->sessions = or_none(LIMIT_SESSIONS);
	l->left = l->left_rcpt = l->session_s = l->idle_s = LIMIT_NONE;
	l->relay = 1;
}

/* ---- text ---- */

/* A number; `-` for no limit. */
static int
parse_count(const char *s, size_t len, uint32_t *out)
{
	uint64_t n;

	if (len == 1 && s[0] == '-') {
		*out = LIMIT_NONE;
		return 0;
	}
	if (parse_u64(s, len, LIMIT_NONE - 1, &n) == -1) {
		return -1;
	}
	*out = (uint32_t)n;
	return 0;
}

/* Octets, or with K, M or G behind them; `-` for no limit. Nothing at all may not be the limit. */
static int
parse_size(const char *s, size_t len, uint64_t *out)
{
	static const char units[] = "KMG";
	const char *unit = len > 0 ? strchr(units, s[len - 1]) : NULL;
	unsigned shift = unit == NULL || *unit == '\0' ? 0 : 10 * (unsigned)(unit - units + 1);

	if (len == 1 && s[0] == '-') {
		*out = 0;
		return 0;
	}
	if (parse_u64(s, len - (shift > 0), UINT32_MAX, out) == -1 || *out == 0) {
		return -1;
	}
	*out <<= shift;
	return 0;
}

static int
add_from(struct limits *l, const char *s, size_t len)
{
	const char *at = memchr(s, '@', len);

	if (l->froms == LIMITS_FROMS_MAX || len >= sizeof l->from[0] ||
	    (len > 0 && (at == NULL || at + 1 == s + len))) {
		return -1;
	}
	for (size_t i = 0; i < len; i++) {
		if ((uint8_t)s[i] <= ' ' || s[i] == 127) {
			return -1;
		}
	}
	memcpy(l->from[l->froms], s, len);
	l->from[l->froms++][len] = '\0';
	return 0;
}

/* One item: NAME=VALUE. 0, or -1 and *why. */
static int
item(struct limits *l, const char *s, size_t len, const char **why)
{
	const struct {
		const char *name;
		uint32_t *n;
	} counts[] = { { "day", &l->day }, { "rcpt", &l->rcpt }, { "rate", &l->rate }, { "sessions", &l->sessions },
		{ "time", &l->session_s }, { "idle", &l->idle_s } };
	const char *eq = memchr(s, '=', len);
	size_t name = eq == NULL ? len : (size_t)(eq - s);
	const char *value = s + name + 1;
	size_t value_len = eq == NULL ? 0 : len - name - 1;

#define IS(word) (name == sizeof(word) - 1 && memcmp(s, word, name) == 0)
	*why =
	    "an unknown word; expected day, rcpt, rate, sessions, size, time, idle, from, relay, each with = and a value";
	if (eq == NULL) {
		return -1;
	}
	for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
		if (strlen(counts[i].name) == name && memcmp(s, counts[i].name, name) == 0) {
			*why = "a value that is no number, nor - for no limit";
			return parse_count(value, value_len, counts[i].n);
		}
	}
	if (IS("size")) {
		*why = "a size that is not octets, as in 500000, 500K, 5M, nor - for no limit";
		return parse_size(value, value_len, &l->size);
	}
	if (IS("from")) {
		*why = "a sender that is not USER@DOMAIN, @DOMAIN or empty, or more than four of them";
		return add_from(l, value, value_len);
	}
	if (IS("relay")) {
		*why = "relay must be yes or no";
		l->relay = value_len == 3;
		return (value_len == 3 && memcmp(value, "yes", 3) == 0) ||
			(value_len == 2 && memcmp(value, "no", 2) == 0)
		    ? 0
		    : -1;
	}
#undef IS
	return -1;
}

/* The items, added to what there is. */
static int
more_items(struct limits *l, const char *text, size_t len, const char **why)
{
	while (len > 0) {
		const char *comma = memchr(text, ',', len);
		size_t n = comma == NULL ? len : (size_t)(comma - text);

		if (item(l, text, n, why) == -1) {
			return -1;
		}
		*why = "a comma with nothing behind it";
		if (comma != NULL && n + 1 == len) {
			return -1;
		}
		text += n + (comma != NULL);
		len -= n + (comma != NULL);
	}
	return 0;
}

/* Senders that are told anew stand in place of those of an earlier source, not beside them. */
struct anew {
	unsigned before;
	char from[sizeof((struct limits *)0)->from];
};

static void
anew_begin(struct anew *a, struct limits *l)
{
	a->before = l->froms;
	memcpy(a->from, l->from, sizeof a->from);
	l->froms = 0;
}

static void
anew_end(const struct anew *a, struct limits *l)
{
	if (l->froms == 0) {
		l->froms = a->before;
		memcpy(l->from, a->from, sizeof a->from);
	}
}

int
limits_items(struct limits *l, const char *text, size_t len, const char **why)
{
	struct anew a;
	int rc;

	anew_begin(&a, l);
	rc = more_items(l, text, len, why);
	anew_end(&a, l);
	return rc;
}

/* ---- control/userlimits ---- */

/* The next line that is an entry: its length without white space at the end; 0 at the end of the text. *p is moved behind it. */
static size_t
next_entry(const char **p, const char **line, int *n)
{
	while (**p != '\0') {
		size_t len = strcspn(*p, "\n");

		*line = *p;
		*p += len + ((*p)[len] == '\n');
		(*n)++;
		while (len > 0 && strchr(" \t\r", (*line)[len - 1]) != NULL) {
			len--;
		}
		if (len > 0 && **line != '#') {
			return len;
		}
	}
	return 0;
}

int
limits_check(const char *text, struct diag *d, const char *file)
{
	struct limits l;
	const char *line, *colon, *why;
	size_t len;
	int n = 0, rc = 0;

	while ((len = next_entry(&text, &line, &n)) > 0) {
		limits_default(&l);
		why = "no colon; expected [USER]:day=200,rcpt=500 and so on";
		colon = memchr(line, ':', len);
		if (colon == NULL || limits_items(&l, colon + 1, len - (size_t)(colon + 1 - line), &why) == -1) {
			diag_put(d, DIAG_ERROR, file, n, "%s", why);
			rc = -1;
		}
	}
	return rc;
}

static void
apply(struct limits *l, const char *text, const char *user)
{
	size_t user_len = strlen(user), len;
	const char *line, *why;
	int n = 0;

	while ((len = next_entry(&text, &line, &n)) > 0) {
		if (len > user_len && line[user_len] == ':' && memcmp(line, user, user_len) == 0) {
			limits_items(l, line + user_len + 1, len - user_len - 1, &why);
		}
	}
}

void
limits_file(struct limits *l, const char *text, const char *user)
{
	if (text == NULL) {
		return;
	}
	apply(l, text, "");
	if (user[0] != '\0') {
		apply(l, text, user);
	}
}

/* ---- RADIUS ---- */

static uint32_t
number(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* One of contrib/freeradius/dictionary.mailstile: type, length, value. */
static int
vendor_one(struct limits *l, const uint8_t *p, size_t len)
{
	uint32_t *const counts[] = { NULL, &l->left, &l->left_rcpt, &l->rate, NULL, &l->sessions };

	if (p[0] == 6) {
		return len > 2 ? add_from(l, (const char *)p + 2, len - 2) : -1;
	}
	if (p[0] == 0 || p[0] > 7 || len != 6) {
		return -1;
	}
	if (p[0] == 4) {
		l->size = number(p + 2);
		return l->size == 0 ? -1 : 0;
	}
	if (p[0] == 7) {
		l->relay = number(p + 2) == 1;
		return number(p + 2) <= 1 ? 0 : -1;
	}
	*counts[p[0]] = number(p + 2);
	return 0;
}

static int
vendor(struct limits *l, const uint8_t *p, size_t len)
{
	while (len > 0) {
		if (len < 2 || p[1] < 2 || p[1] > len || vendor_one(l, p, p[1]) == -1) {
			return -1;
		}
		len -= p[1];
		p += p[1];
	}
	return 0;
}

static int
one_attribute(struct limits *l, const uint8_t *p, const char **why)
{
	const char *text = (const char *)p + 2;
	size_t len = p[1] - (size_t)2;

	switch (p[0]) {
	case FILTER_ID:
		/* Others of a network's devices have filters, too: what does not begin like this is theirs. */
		if (len < 5 || memcmp(text, "mail:", 5) != 0) {
			return 0;
		}
		return more_items(l, text + 5, len - 5, why);
	case VENDOR_SPECIFIC:
		*why = "a vendor attribute of an unknown kind, or of the wrong length";
		return len < 4 ? -1 : vendor(l, p + 6, len - 4);
	case SESSION_TIMEOUT:
	case IDLE_TIMEOUT:
	case PORT_LIMIT:
		*why = "a timeout or Port-Limit that is not four octets";
		if (len != 4) {
			return -1;
		}
		*(p[0] == SESSION_TIMEOUT      ? &l->session_s
			: p[0] == IDLE_TIMEOUT ? &l->idle_s
					       : &l->sessions) = number(p + 2);
		return 0;
	default:
		return 0;
	}
}

int
limits_radius(struct limits *l, const uint8_t *p, size_t len, const char **why)
{
	struct anew a;
	int rc = 0;

	anew_begin(&a, l);
	for (size_t i = 0; i < len && rc == 0; i += p[i + 1]) {
		rc = one_attribute(l, p + i, why);
	}
	anew_end(&a, l);
	return rc;
}

/* ---- senders ---- */

int
limits_from_ok(const struct limits *l, const char *addr)
{
	const char *at = strrchr(addr, '@');

	for (unsigned i = 0; i < l->froms; i++) {
		const char *with = l->from[i][0] == '@' && at != NULL ? at : addr;

		if (ascii_strcasecmp(l->from[i], with) == 0) {
			return 1;
		}
	}
	return l->froms == 0;
}

#endif
