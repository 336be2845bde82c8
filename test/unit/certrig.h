/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * For tests of certificates and keys: the openssl command line in a temporary directory, and what must be true of whatever is loaded. Include after
 * <cmocka.h>.
 */
#ifndef MAILSTILE_TEST_CERTRIG_H
#define MAILSTILE_TEST_CERTRIG_H

#define FINDINGS_MAX 4096 /* they lie on the stack */

#include "cert.h"
#include "str.h"
#include "unit.h"

#include <stdarg.h>
#include <stdint.h>
#include <sys/wait.h>

static struct secrets *s;

/* Run a command there; its exit status. Output goes to the file `out`. */
static int sh(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int
sh(const char *fmt, ...)
{
	char cmd[2048], whole[4096];
	va_list ap;
	int status;

	va_start(ap, fmt);
	assert_in_range(vsnprintf(cmd, sizeof cmd, fmt, ap), 1, (int)sizeof cmd - 1);
	va_end(ap);
	snprintf(whole, sizeof whole, "cd %s && { %s; } > out 2>&1", dir, cmd);
	status = system(whole);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* A file of that mode, whatever the umask. */
static UNUSED void
put_mode(const char *name, const char *text, size_t len, mode_t mode)
{
	int fd = open(in(name), O_WRONLY | O_CREAT | O_TRUNC, mode);

	assert_int_not_equal(fd, -1);
	assert_int_equal(write(fd, text, len), (ssize_t)len);
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

/* The command must succeed and its output hold `part`. */
#define assert_sh(part, ...) \
	do { \
		int sh_rc = sh(__VA_ARGS__); \
		if (sh_rc != 0) { \
			fail_msg("%s: exit %d:\n%s", #__VA_ARGS__, sh_rc, content("out", NULL)); \
		} \
		assert_has(content("out", NULL), part); \
	} while (0)

static int
scratch_is_zero(void)
{
	const unsigned char *p = (const unsigned char *)&s->skey, *end = (const unsigned char *)(s + 1);

	while (p < end) {
		if (*p++ != 0) {
			return 0;
		}
	}
	return 1;
}

/* Verify as a client would, with the leaf's own public key. */
static int
verifies(const struct cert_chain *c, const br_hash_class *h, const unsigned char *oid, const uint8_t *hv, size_t hv_len,
    const uint8_t *sig, size_t sig_len)
{
	br_x509_decoder_context x;
	const br_x509_pkey *pk;
	unsigned char out[64];

	(void)h;
	br_x509_decoder_init(&x, NULL, NULL);
	br_x509_decoder_push(&x, c->cert[0].data, c->cert[0].data_len);
	pk = br_x509_decoder_get_pkey(&x);
	assert_got(pk);
	if (pk->key_type == BR_KEYTYPE_EC) {
		return br_ecdsa_i31_vrfy_asn1(&br_ec_prime_i31, hv, hv_len, &pk->key.ec, sig, sig_len) == 1;
	}
	return br_rsa_i31_pkcs1_vrfy(sig, sig_len, oid, hv_len, &pk->key.rsa, out) == 1 && memcmp(out, hv, hv_len) == 0;
}

static void
assert_signs(const struct cert_chain *c)
{
	static const struct {
		unsigned id;
		size_t len;
		const br_hash_class *h;
		const unsigned char *oid;
	} good[] = {
		{ 4, 32, &br_sha256_vtable, BR_HASH_OID_SHA256 },
		{ 5, 48, &br_sha384_vtable, BR_HASH_OID_SHA384 },
		{ 6, 64, &br_sha512_vtable, BR_HASH_OID_SHA512 },
	};
	uint8_t hv[64], sig[CERT_SIGNATURE_MAX];

	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		size_t len;

		random_bytes(hv, sizeof hv);
		len = cert_sign(&s->key, good[i].id, hv, good[i].len, sig, sizeof sig);
		assert_in_range(len, 64, sizeof sig);
		assert_true(verifies(c, good[i].h, good[i].oid, hv, good[i].len, sig, len));
		hv[0] ^= 1;
		assert_false(verifies(c, good[i].h, good[i].oid, hv, good[i].len, sig, len));
		assert_int_equal(cert_sign(&s->key, good[i].id, hv, good[i].len - 1, sig, sizeof sig), 0);
		assert_int_equal(cert_sign(&s->key, good[i].id, hv, good[i].len, sig, 71), 0);
	}
	/* MD5+SHA-1, MD5, SHA-1, SHA-224, and what is none. */
	assert_int_equal(cert_sign(&s->key, 0, hv, 36, sig, sizeof sig), 0);
	assert_int_equal(cert_sign(&s->key, 1, hv, 16, sig, sizeof sig), 0);
	assert_int_equal(cert_sign(&s->key, 2, hv, 20, sig, sizeof sig), 0);
	assert_int_equal(cert_sign(&s->key, 3, hv, 28, sig, sizeof sig), 0);
	assert_int_equal(cert_sign(&s->key, 7, hv, 64, sig, sizeof sig), 0);
}

/* Load must work without a finding, sign, and leave no traces. */
static void
assert_loads(const char *cert, const char *key, int type, size_t count)
{
	struct cert_chain c;
	struct findings f;

	memset(&s->skey, 0xaa, sizeof s->skey);
	if (cert_load(&c, s, in(cert), in(key), &fresh(&f)->d) != 0) {
		fail_msg("%s, %s: %s", cert, key, f.text);
	}
	assert_string_equal(f.text, "");
	assert_int_equal(c.key_type, type);
	assert_int_equal(s->key.type, type);
	assert_int_equal(c.count, count);
	assert_true(scratch_is_zero());
	assert_signs(&c);
	cert_free(&c);
	assert_null(c.der);
	assert_int_equal(c.key_type, 0);
}

static UNUSED void
generate(const char *cert, const char *key, const char *name)
{
	struct findings f;

	unlink(in(cert));
	unlink(in(key));
	if (cert_generate(in(cert), in(key), name, s, &fresh(&f)->d) != 0) {
		fail_msg("%s", f.text);
	}
	assert_string_equal(f.text, "");
	assert_true(scratch_is_zero());
}

/* Fixtures: NAME.key and NAME.crt, self-signed for mail.example.org. */
static UNUSED void
make_pair(const char *name, const char *genkey)
{
	assert_sh("",
	    "umask 077 && openssl %s -out %s.key && openssl req -x509 -new -key %s.key -subj /CN=mail.example.org "
	    "-days 3650 -out %s.crt",
	    genkey, name, name, name);
}

static int
setup_cert(void **state)
{
	s = secret_map();
	return s == NULL ? -1 : make_dir(state);
}

static int
teardown_cert(void **state)
{
	secret_unmap(s);
	return remove_dir(state);
}

/* 1; or 0, which is told: there is no openssl command, and the program is to exit 77. */
static int
have_openssl(void)
{
	if (system("openssl version > /dev/null 2>&1") != 0) {
		fputs("skipped, there is no openssl command\n", stderr);
		return 0;
	}
	return 1;
}

#endif
