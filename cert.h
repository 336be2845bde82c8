/* SPDX-License-Identifier: MIT */
/*
 * The server's certificate and key: loading from PEM, signing for the TLS handshake, and making them on the device
 * (P-256 key, self-signed certificate, PKCS#10 request). The key never leaves struct secrets. main, wardens, `keygen`.
 */
#ifndef MAILSTILE_CERT_H
#define MAILSTILE_CERT_H

#include "config.h"
#include "diag.h"
#include "secret.h"

#include <bearssl.h>
#include <stddef.h>
#include <stdint.h>

/* The public half, in ordinary memory. */
struct cert_chain {
	int key_type; /* BR_KEYTYPE_EC or BR_KEYTYPE_RSA; 0 = no certificate: TLS is not offered */
	int curve;    /* BR_EC_secp256r1, BR_EC_secp384r1 when key_type is EC */
	size_t count;
	br_x509_certificate cert[TLS_CHAIN_MAX]; /* leaf first; data points into `der` */
	unsigned char *der;                      /* malloc()ed, owned */
	size_t der_len;
	char fingerprint[65]; /* SHA-256 of the leaf, lower-case hex */
};

/*
 * Load a chain and its key. `certfile` holds CERTIFICATE blocks, leaf first, and may also hold the key (as qmail's
 * servercert.pem does); `keyfile` is read for the key when it exists. Key forms: EC PRIVATE KEY, RSA PRIVATE KEY, PRIVATE
 * KEY (PKCS#8), unencrypted; P-256 or P-384, or RSA of 2048-4096 bits. Checks that key and leaf belong together. Reads files
 * straight into s->file and wipes the scratch parts before returning. A key in `keyfile` comes before one in `certfile`.
 * Warns when a file with a key is open to group or others. `chain` need not be initialised. 0, or -1 with the first fault
 * given to `d` (file:line and what was expected); then chain->key_type is 0 and s->key is as it was before.
 */
int cert_load(struct cert_chain *chain, struct secrets *s, const char *certfile, const char *keyfile, struct diag *d);
/*
 * Read only the key of `keyfile` into s->key, as part of work that ends with secret_scratch_end() and secret_burn_stack().
 * 0, or -1 with the fault given to `d` and s->key as it was before.
 */
int cert_load_key(struct secrets *s, const char *keyfile, struct diag *d);
/*
 * The public half of `key`, its numbers in `mem`, proved by a signature. An RSA key's exponent is taken to be 65537. 0, or
 * -1 when the key is damaged or has another exponent. Leaves traces on the stack: secret_burn_stack().
 */
#define CERT_PUBLIC_MAX (513 + 3) /* p * q of RSA-4096, and e */
int cert_public(const struct cert_key *key, br_x509_pkey *pk, unsigned char mem[CERT_PUBLIC_MAX]);

/* Free what cert_load() made; `chain` is then empty. */
void cert_free(struct cert_chain *chain);

/*
 * Sign the hash `hv` (`hv_len` octets) for a ServerKeyExchange: `hash_id` is BearSSL's (4 = SHA-256, 5 = SHA-384, 6 =
 * SHA-512; others are refused). hv_len must be that hash's length. `cap` must be enough for the longest signature of this
 * key (CERT_SIGNATURE_MAX always is). Returns the length of what was written to `sig`, 0 when refused. ECDSA signatures are
 * ASN.1 DER, RSA ones PKCS#1 v1.5.
 */
size_t cert_sign(
    const struct cert_key *key, unsigned hash_id, const uint8_t *hv, size_t hv_len, uint8_t *sig, size_t cap);
/* Longest signature: RSA-4096. */
#define CERT_SIGNATURE_MAX 512

/* The rest is keygen.c. */

/*
 * Make a P-256 key and a self-signed certificate for `name`, a host name or an address, bare or in brackets (CN and
 * subjectAltName; SERVER_AUTH; valid from 2000 to the end of 9999 (RFC 5280 4.1.2.5), since the clock may not be set),
 * written to `keyfile` (0600) and `certfile` (0644), root's when made by root, each through a temporary file in the same
 * directory, fsync and link: nothing is ever replaced. The key file is durable before the certificate appears. A `keyfile`
 * that exists without its `certfile`, as after a power cut between the two, keeps its key and gets a certificate. s->key
 * is not to be relied on after that: call cert_load(). 0, or -1 with the fault given to `d`.
 */
int cert_generate(const char *certfile, const char *keyfile, const char *name, struct secrets *s, struct diag *d);

/*
 * `mailstile keygen [-H home] [-f | -r request.pem] [name]`, argv[0] being "keygen": see mailstile(8). Without -r makes key
 * and certificate as above; -f replaces those there are. -r writes a PKCS#10 request for the key there is, or for a new
 * one. Returns the exit status: 0, 100 (wrong use, or something would be replaced), 111 (could not be done).
 */
int keygen_main(int argc, char **argv);

#endif
