/* SPDX-License-Identifier: MIT */
/* Reader of cdb files (qmail-spec 7.3): morercpthosts.cdb and tcp.smtp.cdb. Read by main into memory that every process shares. */
#ifndef MAILSTILE_CDB_H
#define MAILSTILE_CDB_H

#include <stddef.h>
#include <stdint.h>

struct cdb {
	const uint8_t *map; /* NULL: none */
	size_t len;
};

/* Read `path` into memory and check its table of tables. 0, or -1 with errno (EINVAL: not a cdb). */
int cdb_open(struct cdb *c, const char *path);
void cdb_close(struct cdb *c);
/* The same check over memory the caller owns. */
int cdb_check(const struct cdb *c);
/*
 * Look up key[0..klen). 1: found, *data and *dlen point into the map; 0: not there; -1: the file is damaged. Every offset
 * is checked against the size of the file; the search is bounded by the number of slots.
 */
int cdb_get(const struct cdb *c, const void *key, size_t klen, const uint8_t **data, size_t *dlen);

#endif
