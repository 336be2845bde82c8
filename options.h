/* SPDX-License-Identifier: MIT */
/* Words of a command line: `-x`, `-x value`, `-xvalue`, `-xy`, `--` (POSIX XBD 12.2). Applets. */
#ifndef MAILSTILE_OPTIONS_H
#define MAILSTILE_OPTIONS_H

struct options {
	char **word; /* what is left: after the last option the operands, ending in NULL */
	char *more;  /* letters of the same word */
	char *value; /* of the last option */
};

/* Begin behind argv[0]. */
void options_begin(struct options *o, char **argv);
/* The next letter of `known`, in which a colon follows those that want a value; 0 at the end; '?' for one that is wrong. */
int options_next(struct options *o, const char *known);

#endif
