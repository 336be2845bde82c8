/* SPDX-License-Identifier: MIT */
/* The session as the client sees it (RFC 5321, 6409, 4954, 3207, 3030, 2920, 1870, 6152, 6531, 2034). smtp process only. */
#ifndef MAILSTILE_SMTP_H
#define MAILSTILE_SMTP_H

#include "control.h"
#include "tls.h"

#include <stddef.h>
#include <stdint.h>

/* What the warden lets its smtp process know; copied before the fork, holds no secret. */
struct smtp_info {
	enum profile profile;
	int relayclient; /* listed address: no login needed */
	int tls_ready;   /* a certificate is there */
	uint64_t databytes;
	char me[256];
	char greeting[256];
	char session[20];
};

/* What of a session's TLS engine can be made before it is known: main does it, and forks. */
void smtp_setup_tls(struct conn *c, const struct cert_chain *chain);
/*
 * Set the session up; nothing is sent. `sock` leads to the warden.
 */
void smtp_prepare(const struct smtp_info *info, struct conn *c, const struct cert_chain *chain, int sock);
/* Serve the client to the end, without privileges and under the filter. Ends the process. */
_Noreturn void smtp_run(void);

/* Octets of static memory a session uses, for `make size`. */
size_t smtp_memory(void);

#endif
