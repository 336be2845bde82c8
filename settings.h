/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Control files from a command line or a program: KEY is the file's name below control/. A change is tried on a candidate, which the
 * server's own code reads, before one rename() brings it in. Applets, as whoever owns the control files.
 */
#ifndef MAILSTILE_SETTINGS_H
#define MAILSTILE_SETTINGS_H

#include "config.h"
#include "diag.h"

#include <stddef.h>

#if SETTINGS

enum setting_kind {
	SETTING_LINE, /* one line */
	SETTING_LIST, /* lines */
	SETTING_PEM   /* a block of text, which is no use on a screen */
};

struct setting {
	const char *key;
	enum setting_kind kind;
	int secret; /* never shown, never taken from a command line; mode 0600 */
	int relay;  /* read only when control/relay is on and the spool is a queue */
};

extern const struct setting settings[];
extern const size_t settings_n;
/* The setting of this name, or NULL. */
const struct setting *setting_find(const char *key);

/* What who asked for a change reads behind the reason. */
#define SETTINGS_REFUSED "Refused: nothing is changed.\n"

/* A home whose control directory is open and locked: one change at a time. */
struct settings_home {
	const char *home;
	int dir;    /* home/control */
	int strict; /* a certificate for another name or another time is refused, not only warned of */
	int dry;    /* only see whether a change would be refused */
};

/* Open and lock; what a change that was cut off has left is removed. 0, or -1, told on standard error. */
int settings_open(struct settings_home *h, const char *home);
void settings_close(struct settings_home *h);

/*
 * Put text[0..len) (NULL: nothing, the file goes) in place of `s`. Findings go to standard output as `check` writes them. What was there
 * when the server was last told is kept as KEY.old, or KEY.none when there was nothing. 0 done and durable; 100 refused, nothing is
 * changed; 111 the machine would not.
 */
int settings_change(const struct settings_home *h, const struct setting *s, const char *text, size_t len);

/* The same with several files at once, each one of `settings` at most once; either all of them are brought in, or none. */
struct settings_edit {
	const struct setting *s;
	const char *text; /* NULL: it goes */
	size_t len;
};
int settings_change_all(const struct settings_home *h, const struct settings_edit *edit, size_t n);
/* The same, without a look at whether a server could run with it. */
int settings_force(const struct settings_home *h, const struct settings_edit *edit, size_t n);

/* The kept set is no longer wanted: KEY.old is KEY.last from now on. 0 or -1 with errno. */
int settings_settle(const struct settings_home *h);
/* Back to the kept set. The number of files, or -1 with errno. */
int settings_restore(const struct settings_home *h);

/*
 * What was cut off in the middle of a step about several files is brought to its end: before anybody reads them. 0, or -1 with the fault
 * given to `d`.
 */
int settings_recover(const char *home, struct diag *d);

/* `mailstile get`, `set`, `unset`, `apply`: see mailstile(8). Return the exit status. */
int get_main(int argc, char **argv);
int set_main(int argc, char **argv);
int unset_main(int argc, char **argv);
int apply_main(int argc, char **argv);

#else

static inline int
settings_recover(const char *home, struct diag *d)
{
	(void)home;
	(void)d;
	return 0;
}

#endif

#endif
