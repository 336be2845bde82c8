/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Certificates and keys: cert.c, keygen.c, der.c, secret.c and diag.c, against the openssl command line, in a temporary
 * directory. Exits 77 where there is no openssl.
 * LDFLAGS: -Wl,--wrap=fsync,--wrap=link,--wrap=rename,--wrap=fchmod,--wrap=open
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "cert.h"
#include "der.h"
#include "log.h"

static char dir[64];
static struct secrets *s;

/* ---- Helpers --------------------------------------------------------------------------------------------------------- */

/* Findings, one a line: level|file|line|text. */
struct findings {
	struct diag d;
	char text[4096];
};

static void
collect(struct diag *d, enum diag_level level, const char *file, int line, const char *text)
{
	struct findings *f = (struct findings *)(void *)d;
	size_t len = strlen(f->text);
	const char *slash = file == NULL ? NULL : strrchr(file, '/');

	file = file == NULL ? "-" : slash == NULL ? file : slash + 1;
	snprintf(f->text + len, sizeof f->text - len, "%c|%s|%d|%s\n", "NWE"[level], file, line, text);
}

static struct findings *
fresh(struct findings *f)
{
	memset(f, 0, sizeof *f);
	f->d.emit = collect;
	return f;
}

/* A path in the temporary directory; eight may be in use at once. */
static const char *
in(const char *name)
{
	static char paths[8][256];
	static unsigned next;
	char *p = paths[next++ % 8];

	snprintf(p, sizeof paths[0], "%s/%s", dir, name);
	return p;
}

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

/* cmocka's asserts do not return when they fail, but an analyser cannot know that. */
#define assert_got(p) \
	do { \
		assert_non_null(p); \
		if ((p) == NULL) { \
			abort(); \
		} \
	} while (0)

static char *
content(const char *name)
{
	static char text[4][65536];
	static unsigned next;
	char *p = text[next++ % 4];
	FILE *f = fopen(in(name), "r");

	assert_non_null(f);
	p[fread(p, 1, sizeof text[0] - 1, f)] = '\0';
	fclose(f);
	return p;
}

static void
put(const char *name, const char *text, size_t len, mode_t mode)
{
	int fd = open(in(name), O_WRONLY | O_CREAT | O_TRUNC, mode);

	assert_int_not_equal(fd, -1);
	assert_int_equal(write(fd, text, len), (ssize_t)len);
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

static void
assert_has(const char *text, const char *part)
{
	if (strstr(text, part) == NULL) {
		fail_msg("\"%s\" is not in:\n%s", part, text);
	}
}

/* The command must succeed and its output hold `part`. */
#define assert_sh(part, ...) \
	do { \
		int sh_rc = sh(__VA_ARGS__); \
		if (sh_rc != 0) { \
			fail_msg("%s: exit %d:\n%s", #__VA_ARGS__, sh_rc, content("out")); \
		} \
		assert_has(content("out"), part); \
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

/* The wrapped calls: `fail_at` counts them down, and the one that finds it at 1 fails. 0 = none does. */
static int fail_at;

static int
fails(void)
{
	if (fail_at > 0 && --fail_at == 0) {
		errno = EIO;
		return 1;
	}
	return 0;
}

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int
__wrap_fsync(int fd)
{
	return fails() ? -1 : __real_fsync(fd);
}

int __real_link(const char *a, const char *b);
int __wrap_link(const char *a, const char *b);
int
__wrap_link(const char *a, const char *b)
{
	return fails() ? -1 : __real_link(a, b);
}

int __real_rename(const char *a, const char *b);
int __wrap_rename(const char *a, const char *b);
int
__wrap_rename(const char *a, const char *b)
{
	return fails() ? -1 : __real_rename(a, b);
}

int __real_fchmod(int fd, mode_t mode);
int __wrap_fchmod(int fd, mode_t mode);
int
__wrap_fchmod(int fd, mode_t mode)
{
	return fails() ? -1 : __real_fchmod(fd, mode);
}

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int
__wrap_open(const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = (flags & O_CREAT) != 0 ? va_arg(ap, mode_t) : 0;
	va_end(ap);
	return fails() ? -1 : __real_open(path, flags, mode);
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

/* Load must fail with one error, for "file|line", that holds `part`, and keep the old key. */
static void
assert_refused(const char *cert, const char *key, const char *where, const char *part)
{
	struct cert_chain c;
	struct findings f;
	struct cert_key before;
	char begin[128];

	memcpy(&before, &s->key, sizeof before);
	memset(s->file, 0xaa, sizeof s->file);
	memset(&c, 0xaa, sizeof c);
	assert_int_equal(cert_load(&c, s, in(cert), in(key), &fresh(&f)->d), -1);
	snprintf(begin, sizeof begin, "E|%s|", where);
	assert_has(f.text, begin);
	assert_has(strstr(f.text, begin), part);
	assert_int_equal(f.d.errors, 1);
	assert_int_equal(c.key_type, 0);
	assert_int_equal(c.count, 0);
	assert_null(c.der);
	assert_memory_equal(&before, &s->key, sizeof before);
	assert_true(scratch_is_zero());
}

static void
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

static mode_t
mode_of(const char *name)
{
	struct stat st;

	assert_int_equal(lstat(in(name), &st), 0);
	assert_true(S_ISREG(st.st_mode));
	assert_int_equal(st.st_uid, geteuid());
	return st.st_mode & 07777;
}

/* ---- Generating ------------------------------------------------------------------------------------------------------ */

static void
test_generate(void **state)
{
	struct cert_chain c;
	struct findings f;
	char colons[128] = "sha256 Fingerprint=";
	mode_t old = umask(0);

	(void)state;
	generate("c.pem", "k.pem", "mail.example.org");
	umask(0777);
	generate("c2.pem", "k2.pem", "mail.example.org");
	umask(old);
	assert_int_equal(mode_of("k.pem"), 0600);
	assert_int_equal(mode_of("c.pem"), 0644);
	assert_int_equal(mode_of("k2.pem"), 0600);
	assert_int_equal(mode_of("c2.pem"), 0644);
	assert_string_not_equal(content("k.pem"), content("k2.pem"));
	assert_loads("c.pem", "k.pem", BR_KEYTYPE_EC, 1);

	assert_int_equal(cert_load(&c, s, in("c.pem"), in("k.pem"), &fresh(&f)->d), 0);
	assert_int_equal(c.curve, BR_EC_secp256r1);
	assert_int_equal(strlen(c.fingerprint), 64);
	for (size_t i = 0; i < 32; i++) {
		size_t len = strlen(colons);

		snprintf(colons + len, sizeof colons - len, "%s%.2s", i > 0 ? ":" : "", c.fingerprint + 2 * i);
	}
	for (char *p = strchr(colons, '='); *p != '\0'; p++) {
		*p = (char)(*p >= 'a' ? *p - 32 : *p);
	}
	cert_free(&c);
	assert_sh(colons, "openssl x509 -noout -fingerprint -sha256 -in c.pem");
}

static void
test_openssl_reads_certificate(void **state)
{
	const char *text;

	(void)state;
	generate("c.pem", "k.pem", "mail.example.org");
	assert_sh("PRIVATE KEY", "head -1 k.pem");
	assert_sh("Key is valid", "openssl pkey -noout -check -in k.pem");
	assert_sh("", "openssl pkey -pubout -in k.pem > p1 && openssl x509 -noout -pubkey -in c.pem > p2 && cmp p1 p2");
	assert_sh("prime256v1", "openssl x509 -noout -text -in c.pem");
	text = content("out");
	assert_has(text, "Version: 3 (0x2)");
	assert_has(text, "Signature Algorithm: ecdsa-with-SHA256");
	assert_has(text, "Issuer: CN = mail.example.org\n");
	assert_has(text, "Subject: CN = mail.example.org\n");
	assert_has(text, "Not Before: Jan  1 00:00:00 2000 GMT");
	assert_has(text, "Not After : Dec 31 23:59:59 9999 GMT");
	assert_has(text, "X509v3 Basic Constraints: critical\n                CA:FALSE");
	assert_has(text, "TLS Web Server Authentication");
	assert_has(text, "DNS:mail.example.org\n");
	assert_has(text, "X509v3 Subject Key Identifier:");
	assert_has(text, "X509v3 Authority Key Identifier:");
	assert_null(strstr(text, "X509v3 Key Usage")); /* der.c says why */
	/* Types of the dates, and no trailing octets anywhere. */
	assert_sh("UTCTIME           :000101000000Z", "openssl asn1parse -in c.pem -strictpem");
	assert_has(content("out"), "GENERALIZEDTIME   :99991231235959Z");

	/* It is its own anchor, also under RFC 5280's rules, for this name and no other, and for a server only. */
	assert_sh("c.pem: OK",
	    "openssl verify -x509_strict -purpose sslserver -verify_hostname mail.example.org -CAfile "
	    "c.pem c.pem");
	assert_sh("c.pem: OK", "openssl verify -check_ss_sig -CAfile c.pem c.pem");
	assert_int_not_equal(sh("openssl verify -verify_hostname example.org -CAfile c.pem c.pem"), 0);
	assert_int_not_equal(sh("openssl verify -purpose sslclient -CAfile c.pem c.pem"), 0);
	/* No other certificate can hide behind it. */
	assert_int_equal(
	    sh("openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout x.key -subj "
	       "/CN=victim.example -out x.csr && openssl x509 -req -in x.csr -CA c.pem -CAkey k.pem -out x.pem"),
	    0);
	assert_int_not_equal(sh("openssl verify -CAfile c.pem x.pem"), 0);
}

static void
test_serial(void **state)
{
	char serials[8][64];

	(void)state;
	for (int i = 0; i < 8; i++) {
		generate("c.pem", "k.pem", "mail.example.org");
		assert_sh("serial=", "openssl x509 -noout -serial -in c.pem");
		snprintf(serials[i], sizeof serials[i], "%s", content("out") + strlen("serial="));
		/* 16 octets, the first one 40 to 7F: positive, and never shorter. */
		assert_int_equal(strspn(serials[i], "0123456789ABCDEF"), 32);
		assert_in_range(serials[i][0], '4', '7');
		for (int k = 0; k < i; k++) {
			assert_string_not_equal(serials[i], serials[k]);
		}
	}
}

static void
test_names(void **state)
{
	char longest[254], cn[128];
	static const char *const bad[] = { "", ".", "a..b", ".a", "a.", "a b", "mail.example.org\n",
		"m\xc3\xa4il.example", "*.example.org", "user@example.org", "[mail.example.org", "[]", "[IPv6:]",
		"/etc", "a23456789012345678901234567890123456789012345678901234567890123_4.example" };

	(void)state;
	generate("c.pem", "k.pem", "192.0.2.25");
	assert_sh("IP Address:192.0.2.25\n", "openssl x509 -noout -text -in c.pem");
	assert_has(content("out"), "Subject: CN = 192.0.2.25\n");
	assert_sh("OK", "openssl verify -x509_strict -verify_ip 192.0.2.25 -CAfile c.pem c.pem");
	generate("c.pem", "k.pem", "[192.0.2.25]");
	assert_sh("IP Address:192.0.2.25\n", "openssl x509 -noout -text -in c.pem");
	generate("c.pem", "k.pem", "2001:db8::25");
	assert_sh("OK", "openssl verify -x509_strict -verify_ip 2001:db8::25 -CAfile c.pem c.pem");
	generate("c.pem", "k.pem", "[IPv6:2001:db8::25]");
	assert_sh("OK", "openssl verify -x509_strict -verify_ip 2001:db8::25 -CAfile c.pem c.pem");
	generate("c.pem", "k.pem", "router");
	assert_sh("OK", "openssl verify -x509_strict -verify_hostname router -CAfile c.pem c.pem");

	/* 253 octets: CN is cut to 64, the SAN is whole. */
	memset(longest, 'x', sizeof longest - 1);
	longest[253] = '\0';
	for (int i = 1; i < 5; i++) {
		longest[i * 50] = '.';
	}
	generate("c.pem", "k.pem", longest);
	snprintf(cn, sizeof cn, "Subject: CN = %.64s\n", longest);
	assert_sh(cn, "openssl x509 -noout -text -in c.pem");
	assert_sh("OK", "openssl verify -x509_strict -verify_hostname %s -CAfile c.pem c.pem", longest);
	assert_loads("c.pem", "k.pem", BR_KEYTYPE_EC, 1);

	unlink(in("c.pem"));
	unlink(in("k.pem"));
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct findings f;

		assert_int_equal(cert_generate(in("c.pem"), in("k.pem"), bad[i], s, &fresh(&f)->d), -1);
		assert_has(f.text, "expected a host name");
		assert_int_equal(access(in("c.pem"), F_OK), -1);
		assert_int_equal(access(in("k.pem"), F_OK), -1);
	}
}

static void
test_generate_replaces_nothing(void **state)
{
	struct findings f;
	char *cert, *key;

	(void)state;
	generate("c.pem", "k.pem", "mail.example.org");
	cert = content("c.pem");
	key = content("k.pem");
	assert_int_equal(cert_generate(in("c.pem"), in("k.pem"), "other.example", s, &fresh(&f)->d), -1);
	assert_has(f.text, "E|c.pem|0|exists");
	assert_string_equal(content("c.pem"), cert);
	assert_string_equal(content("k.pem"), key);

	/* A power cut after the key: the key stays and gets its certificate. */
	key = content("k.pem");
	unlink(in("c.pem"));
	assert_int_equal(cert_generate(in("c.pem"), in("k.pem"), "mail.example.org", s, &fresh(&f)->d), 0);
	assert_string_equal(content("k.pem"), key);
	assert_loads("c.pem", "k.pem", BR_KEYTYPE_EC, 1);

	/* The same for a key of the administrator's, RSA. */
	assert_int_equal(sh("rm -f c.pem k.pem; umask 077; openssl genrsa -traditional -out k.pem 2048"), 0);
	assert_int_equal(cert_generate(in("c.pem"), in("k.pem"), "mail.example.org", s, &fresh(&f)->d), 0);
	assert_loads("c.pem", "k.pem", BR_KEYTYPE_RSA, 1);
	assert_sh("OK", "openssl verify -x509_strict -check_ss_sig -CAfile c.pem c.pem");

	/* One with an exponent that is not ours to guess. */
	assert_int_equal(sh("rm -f c.pem k.pem; umask 077; openssl genrsa -3 -out k.pem 2048"), 0);
	assert_int_equal(cert_generate(in("c.pem"), in("k.pem"), "mail.example.org", s, &fresh(&f)->d), -1);
	assert_has(f.text, "E|c.pem|0|not made");
	assert_int_equal(access(in("c.pem"), F_OK), -1);
}

/* Each system call on the way fails once: the directory then holds nothing, the key, or both, and the next run mends it. */
static void
test_generate_interrupted(void **state)
{
	int done = 0, halves = 0, n;

	(void)state;
	for (n = 1; !done; n++) {
		struct findings f;
		int rc;

		assert_int_equal(sh("rm -rf w && mkdir w"), 0);
		fail_at = n;
		rc = cert_generate(in("w/c.pem"), in("w/k.pem"), "mail.example.org", s, &fresh(&f)->d);
		done = fail_at > 0;
		fail_at = 0;
		assert_int_equal(rc, done ? 0 : -1);
		assert_int_equal(f.d.errors, done ? 0 : 1);
		assert_true(scratch_is_zero());
		assert_sh("", "ls w");
		if (strcmp(content("out"), "k.pem\n") == 0) {
			halves++;
		} else if (strcmp(content("out"), "") != 0) {
			assert_string_equal(content("out"), "c.pem\nk.pem\n");
			assert_loads("w/c.pem", "w/k.pem", BR_KEYTYPE_EC, 1);
			continue;
		}
		assert_int_equal(cert_generate(in("w/c.pem"), in("w/k.pem"), "mail.example.org", s, &fresh(&f)->d), 0);
		assert_loads("w/c.pem", "w/k.pem", BR_KEYTYPE_EC, 1);
	}
	/* Two files: create, mode, content; name, directory. At the end of the first, the key is there alone. */
	assert_in_range(n, 13, 20);
	assert_true(halves > 0);
}

/* ---- Keys and chains that others made -------------------------------------------------------------------------------- */

/* Fixtures: NAME.key and NAME.crt, self-signed for mail.example.org. */
static void
make_pair(const char *name, const char *genkey)
{
	assert_sh("",
	    "umask 077 && openssl %s -out %s.key && openssl req -x509 -new -key %s.key -subj /CN=mail.example.org "
	    "-days 3650 -out %s.crt",
	    genkey, name, name, name);
}

static void
test_foreign_keys(void **state)
{
	static const struct {
		const char *name, *genkey, *first;
		int type;
	} v[] = {
		{ "p256p8", "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256", "BEGIN PRIVATE", BR_KEYTYPE_EC },
		{ "p256sec1", "ecparam -name prime256v1 -genkey", "BEGIN EC PARAMETERS", BR_KEYTYPE_EC },
		{ "p384p8", "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384", "BEGIN PRIVATE", BR_KEYTYPE_EC },
		{ "p384sec1", "ecparam -noout -name secp384r1 -genkey", "BEGIN EC PRIVATE", BR_KEYTYPE_EC },
		{ "rsap1", "genrsa -traditional 2048", "BEGIN RSA PRIVATE", BR_KEYTYPE_RSA },
		{ "rsap8", "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048", "BEGIN PRIVATE", BR_KEYTYPE_RSA },
		{ "rsa3072", "genrsa 3072", "BEGIN PRIVATE", BR_KEYTYPE_RSA },
		{ "rsa4096", "genrsa 4096", "BEGIN PRIVATE", BR_KEYTYPE_RSA },
	};

	(void)state;
	for (size_t i = 0; i < sizeof v / sizeof v[0]; i++) {
		char cert[64], key[64], genkey[256];
		uint8_t hv[32], sig[CERT_SIGNATURE_MAX];
		size_t len;

		/* "openssl COMMAND ... -out FILE ... BITS": genrsa wants the size last. */
		snprintf(cert, sizeof cert, "%s.crt", v[i].name);
		snprintf(key, sizeof key, "%s.key", v[i].name);
		if (strncmp(v[i].genkey, "genrsa", 6) == 0) {
			const char *bits = strrchr(v[i].genkey, ' ');

			snprintf(genkey, sizeof genkey, "%.*s -out %s %s && true", (int)(bits - v[i].genkey),
			    v[i].genkey, key, bits + 1);
			assert_sh("",
			    "umask 077 && openssl %s && openssl req -x509 -new -key %s -subj /CN=mail.example.org "
			    "-days 3650 -out %s",
			    genkey, key, cert);
		} else {
			make_pair(v[i].name, v[i].genkey);
		}
		assert_has(content(key), v[i].first);
		assert_loads(cert, key, v[i].type, 1);

		/* Another verifier. */
		random_bytes(hv, sizeof hv);
		len = cert_sign(&s->key, br_sha256_ID, hv, sizeof hv, sig, sizeof sig);
		put("hv", (const char *)hv, sizeof hv, 0600);
		put("sig", (const char *)sig, len, 0600);
		assert_sh("Signature Verified Successfully",
		    "openssl pkeyutl -verify -certin -inkey %s -pkeyopt digest:sha256 -in hv -sigfile sig", cert);
	}
}

static void
test_chain(void **state)
{
	struct cert_chain c;
	struct findings f;
	const char *ca;

	(void)state;
	make_pair("ca", "ecparam -noout -name prime256v1 -genkey");
	assert_sh("",
	    "umask 077; openssl ecparam -noout -name secp384r1 -genkey -out leaf.key && openssl req -new -key leaf.key "
	    "-subj /CN=mail.example.org -out leaf.csr && openssl x509 -req -in leaf.csr -CA ca.crt -CAkey ca.key "
	    "-out leaf.crt && cat leaf.crt ca.crt > chain.pem && cat ca.crt leaf.crt > wrong.pem");
	assert_loads("chain.pem", "leaf.key", BR_KEYTYPE_EC, 2);
	assert_int_equal(cert_load(&c, s, in("chain.pem"), in("leaf.key"), &fresh(&f)->d), 0);
	assert_int_equal(c.curve, BR_EC_secp384r1);
	assert_ptr_equal(c.cert[0].data, c.der);
	assert_ptr_equal(c.cert[1].data, c.der + c.cert[0].data_len);
	assert_int_equal(c.der_len, c.cert[0].data_len + c.cert[1].data_len);
	assert_sh("", "openssl x509 -in ca.crt -outform der -out ca.der");
	ca = content("ca.der");
	assert_memory_equal(c.cert[1].data, ca, c.cert[1].data_len);
	cert_free(&c);

	/* The key in the certificate's file, before, between and behind. */
	assert_sh("",
	    "umask 077; cat leaf.key chain.pem > k1.pem; cat leaf.crt leaf.key ca.crt > k2.pem; cat chain.pem leaf.key "
	    "> k3.pem; cp k3.pem k4.pem; chmod 644 k4.pem");
	assert_loads("k1.pem", "nothere", BR_KEYTYPE_EC, 2);
	assert_loads("k2.pem", "nothere", BR_KEYTYPE_EC, 2);
	assert_loads("k3.pem", "nothere", BR_KEYTYPE_EC, 2);
	assert_int_equal(cert_load(&c, s, in("k4.pem"), in("nothere"), &fresh(&f)->d), 0);
	assert_has(f.text, "W|k4.pem|");
	cert_free(&c);

	/* A key file comes first, and certificates in it do not count. */
	assert_int_equal(cert_load(&c, s, in("k3.pem"), in("k1.pem"), &fresh(&f)->d), 0);
	assert_int_equal(c.count, 2);
	assert_has(f.text, "N|k3.pem|0|the private key in this file is not used");
	assert_int_equal(f.d.errors + f.d.warnings, 0);
	cert_free(&c);
	assert_refused("k3.pem", "ca.key", "k3.pem|1", "is not for the private key in");

	assert_refused(
	    "wrong.pem", "leaf.key", "wrong.pem|1", "expected the server's own certificate, before any other");
	assert_sh("",
	    "cat leaf.crt ca.crt ca.crt ca.crt ca.crt ca.crt > six.pem; cat six.pem ca.crt > seven.pem; grep -c BEGIN six.pem");
	assert_int_equal(TLS_CHAIN_MAX, 6);
	assert_loads("six.pem", "leaf.key", BR_KEYTYPE_EC, 6);
	assert_sh("", "echo $(( $(wc -l < six.pem) + 1 ))");
	{
		char where[64];

		snprintf(where, sizeof where, "seven.pem|%d", atoi(content("out")));
		assert_refused("seven.pem", "leaf.key", where, "more than 6 certificates");
	}
}

static void
test_layout_of_pem(void **state)
{
	const char *cert, *key, *text;
	static char mixed[16384];

	(void)state;
	generate("c.pem", "k.pem", "mail.example.org");
	/* Carriage returns, a byte order mark, blanks at the end of lines, no last line feed, text around. */
	assert_sh("", "sed 's/$/\\r/' c.pem > crlf.pem; (umask 077; sed 's/$/\\r/' k.pem > crlfk.pem)");
	assert_loads("crlf.pem", "crlfk.pem", BR_KEYTYPE_EC, 1);
	assert_sh("", "printf '\\357\\273\\277' > bom.pem; sed 's/$/ \\t/' c.pem >> bom.pem");
	assert_loads("bom.pem", "k.pem", BR_KEYTYPE_EC, 1);
	cert = content("c.pem");
	put("nolf.pem", cert, strlen(cert) - 1, 0644);
	key = content("k.pem");
	put("nolfk.pem", key, strlen(key) - 1, 0600);
	assert_loads("nolf.pem", "nolfk.pem", BR_KEYTYPE_EC, 1);
	assert_sh("",
	    "openssl x509 -text -in c.pem > text.pem && openssl dhparam -dsaparam 512 >> text.pem && cat k.pem >> text.pem "
	    "&& chmod 600 text.pem");
	assert_loads("text.pem", "nothere", BR_KEYTYPE_EC, 1);

	/* Objects of other kinds may look as they like. */
	text = content("c.pem");
	snprintf(mixed, sizeof mixed, "-----BEGIN NONSENSE-----\n?!?\n-----END NONSENSE-----\n%s", text);
	put("mixed.pem", mixed, strlen(mixed), 0644);
	assert_loads("mixed.pem", "k.pem", BR_KEYTYPE_EC, 1);
}

static void
test_refused(void **state)
{
	static char big[40000], huge[40000];
	char *text, *p;

	(void)state;
	generate("c.pem", "k.pem", "mail.example.org");
	generate("c2.pem", "k2.pem", "mail.example.org");
	assert_refused("c.pem", "k2.pem", "c.pem|1", "is not for the private key in");
	assert_refused("nothere", "k.pem", "nothere|0", "mailstile keygen");
	assert_refused("c.pem", "nothere", "nothere|0", "no such file");
	assert_refused(".", "k.pem", ".|0", "cannot read");
	assert_refused("c.pem", ".", ".|0", "cannot read");
	put("empty", "", 0, 0600);
	assert_refused("empty", "k.pem", "empty|0", "expected -----BEGIN CERTIFICATE-----");
	assert_refused("c.pem", "empty", "empty|0", "expected -----BEGIN PRIVATE KEY-----");
	assert_refused("k.pem", "k.pem", "k.pem|0", "expected -----BEGIN CERTIFICATE-----");
	assert_refused("c.pem", "c.pem", "c.pem|0", "expected -----BEGIN PRIVATE KEY-----");
	random_bytes(big, 20000);
	put("garbage", big, 20000, 0600);
	assert_refused("garbage", "k.pem", "garbage|0", "expected -----BEGIN CERTIFICATE-----");
	assert_refused("c.pem", "garbage", "garbage|0", "expected -----BEGIN PRIVATE KEY-----");
	memset(big, '\n', sizeof big);
	put("long", big, SECRET_FILE_MAX + 1, 0600);
	assert_refused("long", "k.pem", "long|0", "at most 32768 octets");
	put("longest", big, SECRET_FILE_MAX, 0600);
	assert_refused("longest", "k.pem", "longest|0", "expected -----BEGIN CERTIFICATE-----");
	assert_sh("", "openssl x509 -in c.pem -outform der -out c.der");
	assert_refused("c.der", "k.pem", "c.der|0", "-inform der");

	/* Cut off behind a line, within a line, within the last one, and before it. */
	text = content("c.pem");
	put("cut.pem", text, 28 + 3 * 65, 0644);
	assert_refused("cut.pem", "k.pem", "cut.pem|1", "expected an -----END line");
	put("cut.pem", text, 28 + 3 * 65 + 30, 0644);
	assert_refused(
	    "cut.pem", "k.pem", "cut.pem|5", "expected base64 text, or the -----END line of the object of line 1");
	put("cut.pem", text, strlen(text) - strlen("ND CERTIFICATE-----\n"), 0644);
	assert_refused(
	    "cut.pem", "k.pem", "cut.pem", "expected base64 text, or the -----END line of the object of line 1");
	put("cut.pem", text, strlen(text) - strlen("-----END CERTIFICATE-----\n"), 0644);
	assert_refused("cut.pem", "k.pem", "cut.pem|1", "expected an -----END line");
	text = content("k.pem");
	put("cutk.pem", text, 28 + 65, 0600);
	assert_refused("c.pem", "cutk.pem", "cutk.pem|1", "expected an -----END line");
	/* A line in it that is no base64. */
	text = content("c.pem");
	p = strchr(strchr(text, '\n') + 1, '\n') + 1;
	p[3] = '!';
	put("bang.pem", text, strlen(text), 0644);
	assert_refused("bang.pem", "k.pem", "bang.pem|3", "of the object of line 1");
	/* Content that is not DER, and DER that is no certificate. */
	put("nonsense.pem", "\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 60, 0644);
	assert_refused("nonsense.pem", "k.pem", "nonsense.pem|2", "damaged certificate");
	put("hollow.pem", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", 54, 0644);
	assert_refused("hollow.pem", "k.pem", "hollow.pem|1", "damaged certificate");
	put("bare.pem", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", 59, 0644);
	assert_refused("bare.pem", "k.pem", "bare.pem|1", "damaged certificate");
	put("barek.pem", "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n", 59, 0600);
	assert_refused("c.pem", "barek.pem", "barek.pem|1", "damaged private key");
	/* A chain and a key that do not fit together into the scratch memory. */
	text = content("c.pem");
	memcpy(big, "\x30\x82\x4e\x20", 4);
	memset(big + 4, 0, 20000);
	snprintf(huge, sizeof huge, "%s", text);
	br_pem_encode(huge + strlen(huge), big, 20004, "CERTIFICATE", 0);
	put("huge.pem", huge, strlen(huge), 0644);
	assert_loads("huge.pem", "k.pem", BR_KEYTYPE_EC, 2);
	br_pem_encode(huge, big, 20004, "PRIVATE KEY", 0);
	put("hugek.pem", huge, strlen(huge), 0600);
	assert_refused("huge.pem", "hugek.pem", "hugek.pem|1", "too long");
	assert_refused("c.pem", "hugek.pem", "hugek.pem|1", "damaged private key");
	assert_sh("", "umask 077; cat k.pem k2.pem > two.pem");
	assert_refused("c.pem", "two.pem", "two.pem|6", "a second private key");
}

static void
test_refused_keys(void **state)
{
	static const struct {
		const char *make, *part;
	} v[] = {
		{ "openssl pkcs8 -topk8 -in k.pem -passout pass:x -out x.key", "openssl pkey" },
		{ "openssl ec -aes128 -passout pass:x -in k.pem -out x.key", "openssl pkey" },
		{ "openssl genrsa -out x.key 1024", "an RSA key of 1024 bits: expected P-256" },
		{ "openssl genrsa -traditional -out x.key 1024", "an RSA key of 1024 bits: expected P-256" },
		{ "openssl ecparam -noout -name secp521r1 -genkey -out x.key", "another kind or size" },
		{ "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-521 -out x.key", "another kind or size" },
		{ "openssl ecparam -noout -name secp256k1 -genkey -out x.key", "another kind or size" },
		{ "openssl genpkey -algorithm ed25519 -out x.key", "another kind or size" },
		{ "openssl genpkey -algorithm x25519 -out x.key", "another kind or size" },
		{ "printf -- '-----BEGIN OPENSSH PRIVATE KEY-----\\nAAAA\\n-----END OPENSSH PRIVATE KEY-----\\n' > x.key",
		    "expected PRIVATE KEY, EC PRIVATE KEY or RSA PRIVATE KEY" },
	};

	(void)state;
	generate("c.pem", "k.pem", "mail.example.org");
	for (size_t i = 0; i < sizeof v / sizeof v[0]; i++) {
		assert_sh("", "umask 077; %s", v[i].make);
		assert_refused("c.pem", "x.key", "x.key|1", v[i].part);
	}
	/* The old form of encryption was really there. */
	assert_sh("Proc-Type: 4,ENCRYPTED", "openssl ec -aes128 -passout pass:x -in k.pem");

	/* A certificate for such a key, and a key that fits another one. */
	assert_sh("",
	    "openssl genpkey -algorithm ed25519 -out e.key && openssl req -x509 -new -key e.key -subj /CN=a -out e.crt");
	assert_refused("e.crt", "k.pem", "e.crt|1", "a certificate for a key of another kind or size");
	make_pair("p521", "ecparam -noout -name secp521r1 -genkey");
	assert_refused("p521.crt", "k.pem", "p521.crt|1", "is not for the private key in");
	make_pair("mix", "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048");
	assert_refused("mix.crt", "k.pem", "mix.crt|1", "is not for the private key in");
	assert_refused("c.pem", "mix.key", "c.pem|1", "is not for the private key in");
}

/* A wrong CRT exponent makes signatures that reveal the key: it must not be taken. */
static void
test_refused_damaged_rsa(void **state)
{
	static unsigned char n[256], d[256], der[2048], pem[4096];
	br_rsa_public_key pk = {
		.n = n, .nlen = sizeof n, .e = (unsigned char *)(uintptr_t) "\x01\x00\x01", .elen = 3
	};
	unsigned char **part[] = { &s->key.rsa.dp, &s->key.rsa.dq, &s->key.rsa.iq };
	size_t len;

	(void)state;
	make_pair("crt", "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048");
	assert_loads("crt.crt", "crt.key", BR_KEYTYPE_RSA, 1);
	assert_int_equal(br_rsa_i31_compute_modulus(n, &s->key.rsa), sizeof n);
	memset(d, 1, sizeof d);
	for (size_t i = 0; i <= sizeof part / sizeof part[0]; i++) {
		/* The last round changes nothing, to show that the re-encoding is sound. */
		if (i < sizeof part / sizeof part[0]) {
			(*part[i])[20] ^= 4;
		}
		len = br_encode_rsa_pkcs8_der(der, &s->key.rsa, &pk, d, sizeof d);
		len = br_pem_encode(pem, der, len, "PRIVATE KEY", 0);
		put("damaged.key", (const char *)pem, len, 0600);
		if (i < sizeof part / sizeof part[0]) {
			assert_refused("crt.crt", "damaged.key", "damaged.key|0", "damaged private key");
			(*part[i])[20] ^= 4;
		} else {
			assert_loads("crt.crt", "damaged.key", BR_KEYTYPE_RSA, 1);
		}
	}
}

static void
test_mode_warning(void **state)
{
	static const struct {
		mode_t mode;
		const char *warning;
	} v[] = { { 0600, NULL }, { 0400, NULL }, { 0644, "mode 0644" }, { 0640, "mode 0640" }, { 0604, "mode 0604" } };
	struct cert_chain c;
	struct findings f;

	(void)state;
	generate("c.pem", "k.pem", "mail.example.org");
	for (size_t i = 0; i < sizeof v / sizeof v[0]; i++) {
		assert_int_equal(chmod(in("k.pem"), v[i].mode), 0);
		assert_int_equal(cert_load(&c, s, in("c.pem"), in("k.pem"), &fresh(&f)->d), 0);
		assert_int_equal(f.d.warnings, v[i].warning != NULL);
		assert_int_equal(f.d.errors, 0);
		if (v[i].warning != NULL) {
			assert_has(f.text, "W|k.pem|1|");
			assert_has(f.text, v[i].warning);
		} else {
			assert_string_equal(f.text, "");
		}
		cert_free(&c);
	}
}

/* Each octet of the key's file, and every third of the certificate's, changed: no crash, never a pair that does not fit. */
static void
test_mutations(void **state)
{
	struct cert_chain c;
	struct findings f;
	static char cert[4096], key[4096];
	size_t len;
	int loaded = 0;

	(void)state;
	generate("c.pem", "k.pem", "mail.example.org");
	snprintf(cert, sizeof cert, "%s", content("c.pem"));
	snprintf(key, sizeof key, "%s", content("k.pem"));
	len = strlen(key);
	for (size_t i = 0; i < len; i++) {
		key[i] ^= 1;
		put("m.pem", key, len, 0600);
		if (cert_load(&c, s, in("c.pem"), in("m.pem"), &fresh(&f)->d) == 0) {
			assert_signs(&c);
			loaded++;
		} else {
			assert_int_equal(f.d.errors, 1);
		}
		assert_true(scratch_is_zero());
		cert_free(&c);
		key[i] ^= 1;
	}
	/* Some octets do not matter: the copy of the public key, text of the END line. Most do. */
	assert_in_range(loaded, 1, (int)len * 2 / 3);
	len = strlen(cert);
	for (size_t i = 0; i < len; i += 3) {
		cert[i] ^= 2;
		put("m.pem", cert, len, 0644);
		if (cert_load(&c, s, in("m.pem"), in("k.pem"), &fresh(&f)->d) == 0) {
			assert_int_equal(c.count, 1);
			assert_string_equal(f.text, "");
		}
		cert_free(&c);
		cert[i] ^= 2;
	}
}

/* ---- Traces ---------------------------------------------------------------------------------------------------------- */

/* BearSSL's: big-endian octets as 31-bit words. */
void br_i31_decode(uint32_t *x, const void *src, size_t len);

/* Does the stack below this frame hold p[0..len)? */
static __attribute__((noinline, no_sanitize("address", "undefined"))) int
stack_holds(const unsigned char *p, size_t len)
{
	const volatile unsigned char *end = __builtin_frame_address(0);

	for (const volatile unsigned char *q = end - 262144; q < end - 1024; q++) {
		size_t i = 0;

		while (i < len && q[i] == p[i]) {
			i++;
		}
		if (i == len) {
			return 1;
		}
	}
	return 0;
}

/* Parts of a number on the stack, as octets and as BearSSL's words: 12 octets at each place. */
static int
traces(const unsigned char *number, size_t len)
{
	static uint32_t words[80];
	int found = 0;

	/* words[0] is the length. */
	br_i31_decode(words, number, len);
	for (size_t i = 0; i + 12 <= len; i += 4) {
		found += stack_holds(number + i, 12);
	}
	for (size_t i = 1; i + 3 <= (len * 8 + 30) / 31; i++) {
		found += stack_holds((const unsigned char *)(words + i), 12);
	}
	return found;
}

static __attribute__((noinline)) void
leave_traces(void)
{
	unsigned char hv[32] = { 0 }, sig[CERT_SIGNATURE_MAX];

	assert_int_not_equal(cert_sign(&s->key, br_sha256_ID, hv, sizeof hv, sig, sizeof sig), 0);
}

static void
test_no_traces_on_stack(void **state)
{
	static const struct {
		const char *name, *genkey;
	} v[] = { { "t256", "ecparam -noout -name prime256v1 -genkey" },
		{ "t384", "ecparam -noout -name secp384r1 -genkey" },
		{ "t4096", "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:4096" } };
	static unsigned char secret[512];

	(void)state;
	for (size_t i = 0; i < sizeof v / sizeof v[0]; i++) {
		char cert[64], key[64];
		struct cert_chain c;
		struct findings f;
		size_t len;

		make_pair(v[i].name, v[i].genkey);
		snprintf(cert, sizeof cert, "%s.crt", v[i].name);
		snprintf(key, sizeof key, "%s.key", v[i].name);
		secret_burn_stack();
		assert_int_equal(cert_load(&c, s, in(cert), in(key), &fresh(&f)->d), 0);
		cert_free(&c);
		len = s->key.type == BR_KEYTYPE_EC ? s->key.ec.xlen : s->key.rsa.qlen;
		memcpy(secret, s->key.type == BR_KEYTYPE_EC ? s->key.ec.x : s->key.rsa.q, len);
		/* The search does find what is left without the burning. */
		assert_int_equal(traces(secret, len), 0);
		leave_traces();
		assert_int_not_equal(traces(secret, len), 0);
		secret_burn_stack();
		assert_int_equal(traces(secret, len), 0);
	}
	/* And the key that was made here. */
	generate("c.pem", "k.pem", "mail.example.org");
	memcpy(secret, s->key.bytes, 32);
	assert_int_equal(traces(secret, 32), 0);
}

/* A child's look at the mapping: its exit status, or the signal that ended it plus 256. */
static int
child_reads(struct secrets *m)
{
	int status;
	pid_t pid = fork();

	assert_int_not_equal(pid, -1);
	if (pid == 0) {
		signal(SIGSEGV, SIG_DFL);
		_exit(((volatile struct secrets *)m)->radius[0][0] == 'x' ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? 256 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* The value of a field of the mapping that begins at `m`, from /proc/self/smaps. */
static void
smaps(const void *m, const char *field, char *value, size_t size)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	char line[512], begin[32];
	int inside = 0;

	assert_non_null(f);
	value[0] = '\0';
	snprintf(begin, sizeof begin, "%lx-", (unsigned long)(uintptr_t)m);
	while (fgets(line, sizeof line, f) != NULL) {
		if (strchr(line, '-') != NULL && strchr(line, ':') > strchr(line, ' ')) {
			inside = strncmp(line, begin, strlen(begin)) == 0;
		} else if (inside && strncmp(line, field, strlen(field)) == 0) {
			snprintf(value, size, "%.*s", (int)size - 1, line + strlen(field));
		}
	}
	fclose(f);
}

/* How many pages of the mapping are in memory; smaps counts a neighbour, too. */
static size_t
resident(const struct secrets *m)
{
	static unsigned char there[64];
	size_t page = (size_t)sysconf(_SC_PAGESIZE), n = 0;

	assert_in_range((sizeof *m + page - 1) / page, 1, sizeof there);
	assert_int_equal(mincore((void *)(uintptr_t)m, sizeof *m, there), 0);
	for (size_t i = 0; i < (sizeof *m + page - 1) / page; i++) {
		n += there[i] & 1;
	}
	return n;
}

static void
test_secret_mapping(void **state)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	struct secrets *m = secret_map();
	char value[256];

	(void)state;
	if (getenv("EMULATED") != NULL) { /* QEMU's user mode passes this on wrongly */
		skip();
	}
	assert_non_null(m);
	for (size_t i = 0; i < sizeof *m; i++) {
		assert_int_equal(((const unsigned char *)m)[i], 0);
	}
	smaps(m, "VmFlags:", value, sizeof value);
	assert_has(value, " dd");
	m->radius[0][0] = 'x';
	assert_int_equal(child_reads(m), 0);
	assert_int_equal(secret_inherit(m, 0), 0);
	smaps(m, "VmFlags:", value, sizeof value);
	assert_has(value, " dc");
	assert_int_not_equal(child_reads(m), 0);
	assert_int_not_equal(child_reads(m), 1);
	assert_int_equal(secret_inherit(m, 1), 0);
	assert_int_equal(child_reads(m), 0);

	/* Scratch gives its memory back; the rest stays. */
	secret_scratch_begin(m);
	memset(&m->skey, 'y', sizeof *m - offsetof(struct secrets, skey));
	secret_scratch_end(m);
	assert_in_range(resident(m), 1, offsetof(struct secrets, skey) / page + 2);
	assert_int_equal(m->radius[0][0], 'x');
	for (size_t i = offsetof(struct secrets, skey); i < sizeof *m; i++) {
		assert_int_equal(((const unsigned char *)m)[i], 0);
	}
	secret_unmap(m);
	assert_int_equal(madvise(m, 4096, MADV_NORMAL), -1);
	assert_int_equal(errno, ENOMEM);
	secret_unmap(NULL);
}

/* ---- keygen ---------------------------------------------------------------------------------------------------------- */

/* Run keygen with standard output and error in the file `out`; arguments end with NULL. */
static int
keygen(const char *first, ...)
{
	char words[10][256], *argv[11];
	int argc = 0, rc, saved[2], fd;
	va_list ap;

	va_start(ap, first);
	for (const char *p = first; p != NULL; p = va_arg(ap, const char *)) {
		snprintf(words[argc], sizeof words[argc], "%s", p);
		argv[argc] = words[argc];
		argc++;
	}
	va_end(ap);
	argv[argc] = NULL;
	fflush(stdout);
	fflush(stderr);
	saved[0] = dup(1);
	saved[1] = dup(2);
	fd = open(in("out"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
	dup2(fd, 1);
	dup2(fd, 2);
	close(fd);
	rc = keygen_main(argc, argv);
	fflush(stdout);
	fflush(stderr);
	dup2(saved[0], 1);
	dup2(saved[1], 2);
	close(saved[0]);
	close(saved[1]);
	return rc;
}

static void
test_keygen(void **state)
{
	char out[4096], *key, *cert;

	(void)state;
	assert_int_equal(sh("rm -rf home && mkdir -p home/control"), 0);
	assert_int_equal(keygen("keygen", "-H", in("home"), NULL), 100);
	assert_has(content("out"), "control/me: error: ");
	put("home/control/me", "mail.example.net \nsecond\n", 25, 0644);
	assert_int_equal(keygen("keygen", "-H", in("home"), NULL), 0);
	snprintf(out, sizeof out, "%s", content("out"));
	assert_has(out, "/home/control/serverkey.pem\n");
	assert_has(out, "/home/control/servercert.pem\n");
	assert_has(out, "mail.example.net\n");
	assert_int_equal(mode_of("home/control/serverkey.pem"), 0600);
	assert_int_equal(mode_of("home/control/servercert.pem"), 0644);
	assert_loads("home/control/servercert.pem", "home/control/serverkey.pem", BR_KEYTYPE_EC, 1);
	assert_sh("ingerprint=", "openssl x509 -noout -fingerprint -sha256 -in home/control/servercert.pem");
	assert_has(out, strchr(content("out"), '=') + 1);
	assert_has(out, "SHA-256 fingerprint: ");
	assert_sh("DNS:mail.example.net\n", "openssl x509 -noout -ext subjectAltName -in home/control/servercert.pem");

	/* Nothing is replaced without -f; with it, both are. */
	key = content("home/control/serverkey.pem");
	cert = content("home/control/servercert.pem");
	assert_int_equal(keygen("keygen", "-H", in("home"), "new.example.net", NULL), 100);
	assert_has(content("out"), "-f replaces");
	assert_string_equal(content("home/control/serverkey.pem"), key);
	assert_string_equal(content("home/control/servercert.pem"), cert);
	key = content("home/control/serverkey.pem");
	cert = content("home/control/servercert.pem");
	assert_int_equal(keygen("keygen", "-f", "-H", in("home"), "new.example.net", NULL), 0);
	assert_string_not_equal(content("home/control/serverkey.pem"), key);
	assert_string_not_equal(content("home/control/servercert.pem"), cert);
	assert_loads("home/control/servercert.pem", "home/control/serverkey.pem", BR_KEYTYPE_EC, 1);
	assert_sh("DNS:new.example.net\n", "openssl x509 -noout -ext subjectAltName -in home/control/servercert.pem");
	assert_int_equal(mode_of("home/control/serverkey.pem"), 0600);
	assert_sh("", "ls -A home/control");
	assert_string_equal(content("out"), "me\nservercert.pem\nserverkey.pem\n");

	assert_int_equal(keygen("keygen", "-x", NULL), 100);
	assert_has(content("out"), "usage: mailstile keygen");
	assert_int_equal(keygen("keygen", "-H", in("home"), "a", "b", NULL), 100);
	assert_has(content("out"), "usage: mailstile keygen");
	assert_int_equal(keygen("keygen", "-H", in("home"), "-f", "-r", in("r.pem"), NULL), 100);
	assert_has(content("out"), "usage: mailstile keygen");
	assert_int_equal(keygen("keygen", "-f", "-H", in("home"), "not a name", NULL), 100);
	assert_has(content("out"), "expected a host name");
	assert_int_equal(keygen("keygen", "-H", in("nowhere"), "mail.example.net", NULL), 111);
	assert_has(content("out"), "cannot create: No such file or directory");
}

static void
test_keygen_request(void **state)
{
	char *key, *cert;

	(void)state;
	assert_int_equal(sh("rm -rf home && mkdir -p home/control"), 0);
	/* Without a key there is one afterwards. */
	assert_int_equal(keygen("keygen", "-H", in("home"), "-r", in("home/r.pem"), "mail.example.net", NULL), 0);
	assert_has(content("out"), "home/r.pem\n");
	assert_loads("home/control/servercert.pem", "home/control/serverkey.pem", BR_KEYTYPE_EC, 1);
	assert_sh("verify OK", "openssl req -verify -noout -in home/r.pem");
	assert_sh("Subject: CN = mail.example.net\n", "openssl req -noout -text -in home/r.pem");
	assert_has(content("out"), "Requested Extensions:");
	assert_has(content("out"), "DNS:mail.example.net\n");
	assert_has(content("out"), "ecdsa-with-SHA256");
	assert_sh("",
	    "openssl req -noout -pubkey -in home/r.pem > p1; openssl pkey -pubout -in home/control/serverkey.pem > p2; "
	    "cmp p1 p2");

	/* With one it stays; a request that is there stays too. */
	key = content("home/control/serverkey.pem");
	cert = content("home/control/servercert.pem");
	assert_int_equal(keygen("keygen", "-H", in("home"), "-r", in("home/r.pem"), "mail.example.net", NULL), 100);
	assert_has(content("out"), "r.pem: error: exists");
	assert_int_equal(keygen("keygen", "-H", in("home"), "-r", in("home/r2.pem"), "192.0.2.1", NULL), 0);
	assert_string_equal(content("home/control/serverkey.pem"), key);
	assert_string_equal(content("home/control/servercert.pem"), cert);
	assert_sh("IP Address:192.0.2.1\n", "openssl req -noout -text -in home/r2.pem");

	/* What an authority makes of it is then loaded with the key. */
	make_pair("ca", "ecparam -noout -name prime256v1 -genkey");
	assert_sh(
	    "", "openssl x509 -req -in home/r.pem -copy_extensions copy -CA ca.crt -CAkey ca.key -out issued.pem");
	assert_sh("issued.pem: OK", "openssl verify -verify_hostname mail.example.net -CAfile ca.crt issued.pem");
	assert_loads("issued.pem", "home/control/serverkey.pem", BR_KEYTYPE_EC, 1);

	/* For an RSA key, and one in the certificate's file. */
	make_pair("rsareq", "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048");
	assert_int_equal(sh("rm home/control/*; cat rsareq.crt rsareq.key > home/control/servercert.pem; chmod 600 "
			    "home/control/servercert.pem"),
	    0);
	assert_int_equal(keygen("keygen", "-H", in("home"), "-r", in("home/r3.pem"), "mail.example.net", NULL), 0);
	assert_null(strstr(content("out"), "serverkey.pem"));
	assert_sh("verify OK", "openssl req -verify -noout -in home/r3.pem");
	assert_sh("Public-Key: (2048 bit)", "openssl req -noout -text -in home/r3.pem");
}

/* ---- DER and findings ------------------------------------------------------------------------------------------------ */

static void
test_der(void **state)
{
	static unsigned char mem[70000], data[65537];
	static const struct {
		size_t len;
		const char *head;
		size_t head_len;
	} v[] = { { 0, "\x04\x00", 2 }, { 1, "\x04\x01", 2 }, { 127, "\x04\x7f", 2 }, { 128, "\x04\x81\x80", 3 },
		{ 255, "\x04\x81\xff", 3 }, { 256, "\x04\x82\x01\x00", 4 }, { 65535, "\x04\x82\xff\xff", 4 } };
	struct buf b;

	(void)state;
	random_bytes(data, sizeof data);
	for (size_t i = 0; i < sizeof v / sizeof v[0]; i++) {
		buf_init(&b, mem, v[i].head_len + v[i].len);
		der_put(&b, 4, data, v[i].len);
		assert_int_equal(b.full, 0);
		assert_int_equal(b.len, v[i].head_len + v[i].len);
		assert_memory_equal(mem, v[i].head, v[i].head_len);
		assert_memory_equal(mem + v[i].head_len, data, v[i].len);
		/* One octet less of room. */
		buf_init(&b, mem, v[i].head_len + v[i].len - 1);
		der_put(&b, 4, data, v[i].len);
		assert_int_equal(b.full, 1);
		/* As a SEQUENCE it is found whole, and not with an octet more or less. */
		mem[0] = 0x30;
		assert_int_equal(der_is_sequence(mem, v[i].head_len + v[i].len), b.full && v[i].len == 0);
		buf_init(&b, mem, sizeof mem);
		der_put(&b, 0x30, data, v[i].len);
		assert_int_equal(der_is_sequence(mem, b.len), 1);
		assert_int_equal(der_is_sequence(mem, b.len + 1), 0);
		assert_int_equal(der_is_sequence(mem, b.len - 1), 0);
	}
	buf_init(&b, mem, sizeof mem);
	der_put(&b, 4, data, 65536);
	assert_int_equal(b.full, 1);

	buf_init(&b, mem, sizeof mem);
	der_uint(&b, (const unsigned char *)"\x00\x00", 2);
	der_uint(&b, (const unsigned char *)"", 0);
	der_uint(&b, (const unsigned char *)"\x00\x7f", 2);
	der_uint(&b, (const unsigned char *)"\x80", 1);
	assert_int_equal(b.len, 13);
	assert_memory_equal(mem, "\x02\x01\x00\x02\x01\x00\x02\x01\x7f\x02\x02\x00\x80", 13);
	assert_int_equal(der_is_sequence((const unsigned char *)"\x30\x80\x00\x00", 4), 0);
	assert_int_equal(der_is_sequence((const unsigned char *)"\x30\x84\x00\x00\x00\x00", 6), 0);
	assert_int_equal(der_is_sequence((const unsigned char *)"\x31\x00", 2), 0);
}

static void
test_diag(void **state)
{
	struct diag d = { .emit = diag_to_stdout };
	struct findings f;
	char longest[2000];
	int saved = dup(1), fd = open(in("out"), O_RDWR | O_CREAT | O_TRUNC, 0600);

	(void)state;
	fflush(stdout);
	dup2(fd, 1);
	diag_put(&d, DIAG_ERROR, "control/me", 3, "expected %s", "a name");
	diag_put(&d, DIAG_WARN, "control/me", 0, "odd");
	diag_put(&d, DIAG_NOTE, NULL, 0, "by the way");
	fflush(stdout);
	dup2(saved, 1);
	assert_string_equal(
	    content("out"), "control/me:3: error: expected a name\ncontrol/me: warning: odd\nnote: by the way\n");
	assert_int_equal(d.errors, 1);
	assert_int_equal(d.warnings, 1);

	close(saved);
	saved = dup(2);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	dup2(fd, 2);
	d.emit = diag_to_log;
	log_open(LOG_TO_STDERR);
	diag_put(&d, DIAG_ERROR, "control/me", 3, "two words");
	diag_put(&d, DIAG_NOTE, NULL, 0, "other");
	dup2(saved, 2);
	close(saved);
	close(fd);
	assert_has(content("out"), "ev=config level=error file=control/me line=3 msg=\"two words\"\n");
	assert_has(content("out"), "ev=config level=note file=- line=0 msg=\"other\"\n");

	memset(longest, 'x', sizeof longest - 1);
	longest[sizeof longest - 1] = '\0';
	diag_put(&fresh(&f)->d, DIAG_ERROR, NULL, 0, "%s", longest);
	assert_int_equal(strlen(f.text), strlen("E|-|0|") + 511 + 1);
}

/* ---------------------------------------------------------------------------------------------------------------------- */

static int
setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof dir, "/tmp/test_cert.XXXXXX");
	s = secret_map();
	return mkdtemp(dir) == NULL || s == NULL ? -1 : 0;
}

static int
teardown(void **state)
{
	char cmd[128];

	(void)state;
	secret_unmap(s);
	snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
	return system(cmd);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_generate),
		cmocka_unit_test(test_openssl_reads_certificate),
		cmocka_unit_test(test_serial),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_generate_replaces_nothing),
		cmocka_unit_test(test_generate_interrupted),
		cmocka_unit_test(test_foreign_keys),
		cmocka_unit_test(test_chain),
		cmocka_unit_test(test_layout_of_pem),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_refused_keys),
		cmocka_unit_test(test_refused_damaged_rsa),
		cmocka_unit_test(test_mode_warning),
		cmocka_unit_test(test_mutations),
		cmocka_unit_test(test_no_traces_on_stack),
		cmocka_unit_test(test_secret_mapping),
		cmocka_unit_test(test_keygen),
		cmocka_unit_test(test_keygen_request),
		cmocka_unit_test(test_der),
		cmocka_unit_test(test_diag),
	};

	if (system("openssl version > /dev/null 2>&1") != 0) {
		fputs("test_cert: skipped, there is no openssl command\n", stderr);
		return 77;
	}
	return cmocka_run_group_tests(tests, setup, teardown);
}
