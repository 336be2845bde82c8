/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Certificates and keys, as they are made: keygen.c and der.c, against the openssl command line, in a temporary directory; and diag.c. Exits 77
 * where there is no openssl.
 * LDFLAGS: -Wl,--wrap=fsync,--wrap=link,--wrap=rename,--wrap=fchmod,--wrap=open
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "certrig.h"

#include "der.h"
#include "log.h"

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
	assert_string_not_equal(content("k.pem", NULL), content("k2.pem", NULL));
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
	text = content("out", NULL);
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
	assert_has(content("out", NULL), "GENERALIZEDTIME   :99991231235959Z");

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
		snprintf(serials[i], sizeof serials[i], "%s", content("out", NULL) + strlen("serial="));
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
	assert_has(content("out", NULL), "Subject: CN = 192.0.2.25\n");
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
	cert = content("c.pem", NULL);
	key = content("k.pem", NULL);
	assert_int_equal(cert_generate(in("c.pem"), in("k.pem"), "other.example", s, &fresh(&f)->d), -1);
	assert_has(f.text, "E|c.pem|0|exists");
	assert_string_equal(content("c.pem", NULL), cert);
	assert_string_equal(content("k.pem", NULL), key);

	/* A power cut after the key: the key stays and gets its certificate. */
	key = content("k.pem", NULL);
	unlink(in("c.pem"));
	assert_int_equal(cert_generate(in("c.pem"), in("k.pem"), "mail.example.org", s, &fresh(&f)->d), 0);
	assert_string_equal(content("k.pem", NULL), key);
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
		if (strcmp(content("out", NULL), "k.pem\n") == 0) {
			halves++;
		} else if (strcmp(content("out", NULL), "") != 0) {
			assert_string_equal(content("out", NULL), "c.pem\nk.pem\n");
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
	assert_has(content("out", NULL), "control/me: error: ");
	put_mode("home/control/me", "mail.example.net \nsecond\n", 25, 0644);
	assert_int_equal(keygen("keygen", "-H", in("home"), NULL), 0);
	snprintf(out, sizeof out, "%s", content("out", NULL));
	assert_has(out, "/home/control/serverkey.pem\n");
	assert_has(out, "/home/control/servercert.pem\n");
	assert_has(out, "mail.example.net\n");
	assert_int_equal(mode_of("home/control/serverkey.pem"), 0600);
	assert_int_equal(mode_of("home/control/servercert.pem"), 0644);
	assert_loads("home/control/servercert.pem", "home/control/serverkey.pem", BR_KEYTYPE_EC, 1);
	assert_sh("ingerprint=", "openssl x509 -noout -fingerprint -sha256 -in home/control/servercert.pem");
	assert_has(out, strchr(content("out", NULL), '=') + 1);
	assert_has(out, "SHA-256 fingerprint: ");
	assert_sh("DNS:mail.example.net\n", "openssl x509 -noout -ext subjectAltName -in home/control/servercert.pem");

	/* Nothing is replaced without -f; with it, both are. */
	key = content("home/control/serverkey.pem", NULL);
	cert = content("home/control/servercert.pem", NULL);
	assert_int_equal(keygen("keygen", "-H", in("home"), "new.example.net", NULL), 100);
	assert_has(content("out", NULL), "-f replaces");
	assert_string_equal(content("home/control/serverkey.pem", NULL), key);
	assert_string_equal(content("home/control/servercert.pem", NULL), cert);
	key = content("home/control/serverkey.pem", NULL);
	cert = content("home/control/servercert.pem", NULL);
	assert_int_equal(keygen("keygen", "-f", "-H", in("home"), "new.example.net", NULL), 0);
	assert_string_not_equal(content("home/control/serverkey.pem", NULL), key);
	assert_string_not_equal(content("home/control/servercert.pem", NULL), cert);
	assert_loads("home/control/servercert.pem", "home/control/serverkey.pem", BR_KEYTYPE_EC, 1);
	assert_sh("DNS:new.example.net\n", "openssl x509 -noout -ext subjectAltName -in home/control/servercert.pem");
	assert_int_equal(mode_of("home/control/serverkey.pem"), 0600);
	assert_sh("", "ls -A home/control");
	assert_string_equal(content("out", NULL), "me\nservercert.pem\nserverkey.pem\n");

	assert_int_equal(keygen("keygen", "-x", NULL), 100);
	assert_has(content("out", NULL), "usage: mailstile keygen");
	assert_int_equal(keygen("keygen", "-H", in("home"), "a", "b", NULL), 100);
	assert_has(content("out", NULL), "usage: mailstile keygen");
	assert_int_equal(keygen("keygen", "-H", in("home"), "-f", "-r", in("r.pem"), NULL), 100);
	assert_has(content("out", NULL), "usage: mailstile keygen");
	assert_int_equal(keygen("keygen", "-f", "-H", in("home"), "not a name", NULL), 100);
	assert_has(content("out", NULL), "expected a host name");
	assert_int_equal(keygen("keygen", "-H", in("nowhere"), "mail.example.net", NULL), 111);
	assert_has(content("out", NULL), "cannot create: No such file or directory");
}

static void
test_keygen_request(void **state)
{
	char *key, *cert;

	(void)state;
	assert_int_equal(sh("rm -rf home && mkdir -p home/control"), 0);
	/* Without a key there is one afterwards. */
	assert_int_equal(keygen("keygen", "-H", in("home"), "-r", in("home/r.pem"), "mail.example.net", NULL), 0);
	assert_has(content("out", NULL), "home/r.pem\n");
	assert_loads("home/control/servercert.pem", "home/control/serverkey.pem", BR_KEYTYPE_EC, 1);
	assert_sh("verify OK", "openssl req -verify -noout -in home/r.pem");
	assert_sh("Subject: CN = mail.example.net\n", "openssl req -noout -text -in home/r.pem");
	assert_has(content("out", NULL), "Requested Extensions:");
	assert_has(content("out", NULL), "DNS:mail.example.net\n");
	assert_has(content("out", NULL), "ecdsa-with-SHA256");
	assert_sh("",
	    "openssl req -noout -pubkey -in home/r.pem > p1; openssl pkey -pubout -in home/control/serverkey.pem > p2; "
	    "cmp p1 p2");

	/* With one it stays; a request that is there stays too. */
	key = content("home/control/serverkey.pem", NULL);
	cert = content("home/control/servercert.pem", NULL);
	assert_int_equal(keygen("keygen", "-H", in("home"), "-r", in("home/r.pem"), "mail.example.net", NULL), 100);
	assert_has(content("out", NULL), "r.pem: error: exists");
	assert_int_equal(keygen("keygen", "-H", in("home"), "-r", in("home/r2.pem"), "192.0.2.1", NULL), 0);
	assert_string_equal(content("home/control/serverkey.pem", NULL), key);
	assert_string_equal(content("home/control/servercert.pem", NULL), cert);
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
	assert_null(strstr(content("out", NULL), "serverkey.pem"));
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
	    content("out", NULL), "control/me:3: error: expected a name\ncontrol/me: warning: odd\nnote: by the way\n");
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
	assert_has(content("out", NULL), "ev=config level=error file=control/me line=3 msg=\"two words\"\n");
	assert_has(content("out", NULL), "ev=config level=note file=- line=0 msg=\"other\"\n");

	memset(longest, 'x', sizeof longest - 1);
	longest[sizeof longest - 1] = '\0';
	diag_put(&fresh(&f)->d, DIAG_ERROR, NULL, 0, "%s", longest);
	assert_int_equal(strlen(f.text), strlen("E|-|0|") + 511 + 1);
}

/* ---------------------------------------------------------------------------------------------------------------------- */

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
		cmocka_unit_test(test_keygen),
		cmocka_unit_test(test_keygen_request),
		cmocka_unit_test(test_der),
		cmocka_unit_test(test_diag),
	};

	return have_openssl() ? cmocka_run_group_tests(tests, setup_cert, teardown_cert) : 77;
}
