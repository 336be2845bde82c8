/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* Command lines. The C library's getopt() brings its own messages, and buffered output for them. */
#include "options.h"

#include <stddef.h>
#include <string.h>

void
options_begin(struct options *o, char **argv)
{
	o->word = argv + (argv[0] != NULL);
	o->more = NULL;
	o->value = NULL;
}

int
options_next(struct options *o, const char *known)
{
	const char *k;
	char c;

	if (o->more == NULL) {
		char *w = *o->word;

		if (w == NULL || w[0] != '-' || w[1] == '\0') {
			return 0;
		}
		o->word++;
		if (strcmp(w, "--") == 0) {
			return 0;
		}
		o->more = w + 1;
	}
	c = *o->more++;
	k = c == ':' ? NULL : strchr(known, c);
	if (k != NULL && k[1] == ':') {
		o->value = *o->more != '\0' ? o->more : *o->word != NULL ? *o->word++ : NULL;
		o->more = NULL;
		return o->value == NULL ? '?' : c;
	}
	if (*o->more == '\0') {
		o->more = NULL;
	}
	return k == NULL ? '?' : c;
}
