/* SPDX-License-Identifier: MIT */
/* Whose a message says it is: the address in its From field (RFC 5322 3.6.2). Pure. smtp process. */
#ifndef MAILSTILE_AUTHOR_H
#define MAILSTILE_AUTHOR_H

#include "config.h"

#include <stddef.h>

/*
 * The one address in value[0..len), a field's text without its name, unfolded. 0 and addr[size] is it, or -1: there are several, or none, or it is
 * written in a way that two readers might read differently (quoted local parts, routes, groups, an address literal).
 */
int author_address(const char *value, size_t len, char *addr, size_t size);

#endif
