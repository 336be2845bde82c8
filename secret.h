/* SPDX-License-Identifier: MIT */
/*
 * Where secrets live: one mapping, filled by reading files straight into it. main makes it before the first fork and keeps
 * it out of helpers; a warden marks it MADV_DONTFORK before it forks smtp, which thus never has it. Nothing in it is ever
 * copied elsewhere but to the stack of a warden that is using it.
 */
#ifndef MAILSTILE_SECRET_H
#define MAILSTILE_SECRET_H

#include "config.h"

#include <bearssl.h>
#include <stddef.h>

#define SECRET_FILE_MAX 32768

/* A private key, decoded; its numbers point into `bytes`. */
struct cert_key {
	int type; /* BR_KEYTYPE_EC, BR_KEYTYPE_RSA, 0 = none */
	br_ec_private_key ec;
	br_rsa_private_key rsa;
	unsigned char bytes[3 * 512 + 64]; /* RSA-4096: p q dp dq iq, 256 octets each */
};

struct secrets {
	struct cert_key key;
#if RADSEC
	struct cert_key client; /* ours, as a client of RADIUS servers */
#endif
	char radius[RADIUS_SERVERS_MAX][RADIUS_SECRET_MAX + 1];
#if RELAY
	char relay[RELAY_AUTH_MAX][RELAY_PASSWORD_MAX + 1]; /* passwords for relays, in the order of relay_conf.auth */
#endif
	br_skey_decoder_context skey; /* scratch of cert_load(), as is all below */
	br_pem_decoder_context pem;
	unsigned char file[SECRET_FILE_MAX]; /* scratch: a file as read; wiped after use */
	unsigned char der[SECRET_FILE_MAX];  /* scratch: objects out of it; wiped after use */
};

/* Map one, zeroed, not swapped out where the system allows it, not in core dumps. NULL with errno on failure. */
struct secrets *secret_map(void);
/* Wipe and unmap. NULL is ignored. */
void secret_unmap(struct secrets *s);
/* `fork_it` 0: children forked from now on do not get the mapping; 1: they do. 0 or -1 with errno. */
int secret_inherit(struct secrets *s, int fork_it);

/* Wipe all but the passwords for relays, which is what a process that delivers needs; or these, which a warden does not need. */
void secret_keep_relay(struct secrets *s);
void secret_drop_relay(struct secrets *s);
/* Wipe all but those of RADIUS servers, for the accountant, and, with `client`, our key as a client of them: the keeper. */
void secret_keep_radius(struct secrets *s, int client);
/* `key` becomes `client`, and is empty then. */
void secret_move_client(struct secrets *s);

/* Before the scratch parts (skey to der) are used: keep them from being swapped out, where the system allows it. */
void secret_scratch_begin(struct secrets *s);
/* After: wipe them and give their memory back. */
void secret_scratch_end(struct secrets *s);
/*
 * Overwrite the unused stack below the caller, as far as key arithmetic reaches. BearSSL leaves parts of a key there, and
 * children forked later would inherit them. main and applets, after all work with a key.
 */
void secret_burn_stack(void);

#endif
