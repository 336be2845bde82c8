/* SPDX-License-Identifier: MIT */
/*
 * Reading control files in qmail's syntax (qmail-spec 4.7): text, lines, words, lists, numbers, hosts. For control.c and relayconf.c.
 * Files are named by `home` and their name below `home`/control. main only, before any fork.
 */
#ifndef MAILSTILE_CTLFILE_H
#define MAILSTILE_CTLFILE_H

#include "addr.h"
#include "diag.h"

#include <stddef.h>
#include <stdint.h>

/* A list of strings, lower-cased and sorted. */
struct names {
	char **v;
	size_t n;
	char *mem;
};

enum ctl_result { CTL_OK, CTL_MISSING, CTL_BAD };

/* The path of a control file, in path[size]. Returns path. */
const char *ctl_path(const char *home, const char *name, char *path, size_t size);
/* Read a file into malloc()ed, NUL-terminated memory without NUL octets. A fault is given to `d`; a missing file is none. */
enum ctl_result ctl_read(const char *home, const char *name, char **text, struct diag *d);
/* The same for any path and at most `max` octets. *len is set. */
enum ctl_result ctl_read_path(const char *path, size_t max, char **text, size_t *len, struct diag *d);

/* Cut the next line off *rest and its trailing white space, too; the next word. NULL when there is none. */
char *ctl_next_line(char **rest);
char *ctl_next_word(char **rest);
/* Neither empty nor a comment. */
int ctl_is_entry(const char *line);

/* A one-line file into dst; what is in dst stays when it is missing or empty. 0; 1 when it is missing; -1 when it is no good. */
int ctl_line(const char *home, const char *name, char *dst, size_t size, struct diag *d);
/* A list file. 0 read, 1 missing, -1 no good. Free with names_free(). */
int ctl_names(const char *home, const char *name, struct names *l, struct diag *d);
/* Make the empty list one of this name. 0 or -1. */
int names_one(struct names *l, const char *name);
void names_free(struct names *l);
/* 1 when `name` (lower case) is in the list. */
int names_have(const struct names *l, const char *name);

/* [ADDRESS:]PORT, or, with a default port, ADDRESS[:PORT]; IPv6 addresses in brackets, `*` for any. 0 or -1. */
int ctl_endpoint(char *s, int *any, struct addr *a, uint16_t *port, uint16_t default_port);
/* NAME[:PORT], IPv4[:PORT] or [ADDRESS][:PORT]: host[CTL_HOST_MAX] is as written, without brackets. Spoils `word`. 0 or -1. */
#define CTL_HOST_MAX 256
int ctl_host(char *word, char *host, int *numeric, struct addr *a, uint16_t *port, uint16_t default_port);
/* Letters, digits, hyphens, dots and underscores, without a dot in front. */
int ctl_hostname_ok(const char *s);

#endif
