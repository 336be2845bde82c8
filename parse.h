/* SPDX-License-Identifier: MIT */
/* The SMTP grammar: octets in, structures out. Pure. smtp process (and fuzzers). */
#ifndef MAILSTILE_PARSE_H
#define MAILSTILE_PARSE_H

#include "config.h"

#include <stddef.h>
#include <stdint.h>

/* A mailbox as qmail keeps it: unquoted, without brackets, NUL-terminated; "" is the null sender. */
struct mailbox {
	size_t len;
	char text[SMTP_PATH_MAX + 4];
};

enum parse_result {
	PARSE_OK = 0,
	PARSE_SYNTAX, /* not an address */
	PARSE_LONG,   /* over a limit of RFC 5321 4.5.3.1 */
	PARSE_UTF8    /* 8-bit octets without SMTPUTF8, or not UTF-8 */
};

/*
 * Parse a Reverse-path or Forward-path (RFC 5321 4.1.2) at s[0..len): `<` [source route] mailbox `>`; the source route is
 * dropped, a quoted local part is unquoted. `null_ok`: `<>` is allowed; `bare_ok`: a mailbox without domain (postmaster) is
 * allowed. Accepts an address without brackets too, up to the next space, as many clients send it. *used is set to what was
 * read. Controls, NUL, CR, LF are refused everywhere.
 */
enum parse_result parse_path(
    const char *s, size_t len, int null_ok, int bare_ok, int utf8, struct mailbox *m, size_t *used);

/* Parse the argument of HELO or EHLO: a domain, an address literal, or what clients say instead (printable, 1-255 octets). */
int parse_helo(const char *s, size_t len);

enum sasl_mechanism { SASL_NONE, SASL_PLAIN, SASL_LOGIN };

/*
 * Decode base64 (RFC 4648 4): alphabet only, length a multiple of 4, `=` only at the end, unused bits zero (RFC 4954 4 asks for
 * strictness). Returns the length, or -1. `out` may be `s`; needs 3/4 of `len`.
 */
long parse_base64(const char *s, size_t len, void *out, size_t cap);

/*
 * Split a decoded PLAIN message (RFC 4616): [authzid] NUL authcid NUL passwd. Pointers into `p`. 0, or -1 when it is not that.
 */
struct sasl_plain {
	const char *authzid, *user, *pass;
	size_t authzid_len, user_len, pass_len;
};
int parse_plain(const char *p, size_t len, struct sasl_plain *out);

/* May this name and password be asked about? Valid UTF-8, no controls in the name, within RADIUS's limits (RFC 2865 5.1, 5.2),
 * not empty. 1 or 0. */
int parse_login_ok(const char *user, size_t user_len, const char *pass, size_t pass_len);

/* Is s[0..len) xtext (RFC 3461 4) or "<>"? For MAIL's AUTH parameter. 1 or 0. */
int parse_xtext(const char *s, size_t len);

#endif
