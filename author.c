/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* Whose a message says it is. What is read here is compared with a list of what is allowed, so it errs towards "not understood". */
#include "author.h"

#include "str.h"

#include <string.h>

#if FROM_HEADER_CHECK

/* Behind the quoted string or comment that begins at p[0]; a backslash takes the meaning of the next octet, comments nest. NULL: it does not end. */
static const char *
skip_over(const char *p, const char *stop)
{
	int quoted = *p == '"', depth = 1;

	for (p++; p < stop; p++) {
		if (*p == '\\') {
			p++;
		} else if (quoted ? *p == '"' : *p == ')' && --depth == 0) {
			return p + 1;
		} else if (!quoted && *p == '(') {
			depth++;
		}
	}
	return NULL;
}

static int
is_address(const char *s)
{
	const char *at = strchr(s, '@');

	if (at == NULL || at == s || at[1] == '\0' || strchr(at + 1, '@') != NULL) {
		return 0;
	}
	for (const char *p = s; *p != '\0'; p++) {
		const char *specials = p > at ? "!#$%&'*+/=?^_`{|}~" : "";

		if ((unsigned char)*p <= ' ' || *p == 127 || strchr("()<>[]:;\\,\"", *p) != NULL ||
		    strchr(specials, *p) != NULL) {
			return 0;
		}
	}
	return 1;
}

int
author_address(const char *value, size_t len, char *addr, size_t size)
{
	const char *stop = value + len;
	size_t n = 0;
	int gap = 0, angle = 0; /* 1 within <>, 2 behind it */
	int quoted = 0;

	for (const char *p = value; p < stop;) {
		if (*p == '(' || (*p == '"' && angle == 0)) {
			quoted |= *p == '"';
			p = skip_over(p, stop);
			if (p == NULL) {
				return -1;
			}
			gap = 1;
		} else if (*p == ' ' || *p == '\t') {
			gap = 1;
			p++;
		} else if (*p == '<' && angle == 0) {
			/* What stood before it was a name. */
			angle = 1;
			n = 0;
			gap = quoted = 0;
			p++;
		} else if (*p == '>' && angle == 1) {
			angle = 2;
			p++;
		} else if (angle == 2 || *p == ',' || *p == ';' || *p == ':' || (angle == 1 && gap && n > 0) ||
		    n + 1 >= size) {
			return -1;
		} else {
			/* A name's words are no address, but only `<` tells. */
			if (gap && n > 0) {
				quoted = 1;
			}
			gap = 0;
			addr[n++] = *p++;
		}
	}
	addr[n] = '\0';
	return angle != 1 && !quoted && strlen(addr) == n && is_address(addr) ? 0 : -1;
}

#endif
