/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* What others will say of our own certificate: its name, its dates, its authority. Applets only. */
#ifndef MAILSTILE_CERTLOOK_H
#define MAILSTILE_CERTLOOK_H

#include "cert.h"

#include <bearssl.h>
#include <stdint.h>

#if SELFTEST

/* What to do about a certificate for another name. */
#define CERTLOOK_REMEDY \
	"make one (`mailstile keygen -f`; console: c) or request one (`mailstile keygen -r FILE`; console: r)"

/*
 * Judge the chain as a client would that wants `name` at `now` (seconds since 1970) and trusts anchor[0..n). 0, or an error of BearSSL's or
 * tlscheck's; without anchors BR_ERR_X509_NOT_TRUSTED is all that can be asked for.
 */
int certlook_judge(
    const struct cert_chain *chain, const char *name, int64_t now, const br_x509_trust_anchor *anchor, size_t n);
/* The day after which the leaf is not valid, YYYY-MM-DD, or "?"; and whether it names itself as its authority. */
void certlook_leaf(const struct cert_chain *chain, char until[11], int *self);

#endif

#endif
