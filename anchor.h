/* SPDX-License-Identifier: MIT */
/* Trust anchors out of PEM: the authorities whose certificates a relay may show. main, before any fork. */
#ifndef MAILSTILE_ANCHOR_H
#define MAILSTILE_ANCHOR_H

#include "diag.h"

#include <bearssl.h>
#include <stddef.h>

/*
 * Read the certificates in `file` into one allocation, the caller's to free(); *n is their number. `own`: the operator made this file,
 * and a certificate in it that cannot be used is an error; in a system's bundle it is left out. 0; 1 when there is no such file; -1
 * with the fault given to `d`, by line.
 */
int anchors_load(const char *file, int own, br_x509_trust_anchor **anchor, size_t *n, struct diag *d);

#endif
