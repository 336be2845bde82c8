/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Certificates and keys, as they are loaded, signed with and forgotten: cert.c and secret.c, against the openssl command line, in a temporary
 * directory. Exits 77 where there is no openssl.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "certrig.h"

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

/* ---- Keys and chains that others made -------------------------------------------------------------------------------- */

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
		assert_has(content(key, NULL), v[i].first);
		assert_loads(cert, key, v[i].type, 1);

		/* Another verifier. */
		random_bytes(hv, sizeof hv);
		len = cert_sign(&s->key, br_sha256_ID, hv, sizeof hv, sig, sizeof sig);
		put_mode("hv", (const char *)hv, sizeof hv, 0600);
		put_mode("sig", (const char *)sig, len, 0600);
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
	ca = content("ca.der", NULL);
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

		snprintf(where, sizeof where, "seven.pem|%d", atoi(content("out", NULL)));
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
	cert = content("c.pem", NULL);
	put_mode("nolf.pem", cert, strlen(cert) - 1, 0644);
	key = content("k.pem", NULL);
	put_mode("nolfk.pem", key, strlen(key) - 1, 0600);
	assert_loads("nolf.pem", "nolfk.pem", BR_KEYTYPE_EC, 1);
	assert_sh("",
	    "openssl x509 -text -in c.pem > text.pem && openssl dhparam -dsaparam 512 >> text.pem && cat k.pem >> text.pem "
	    "&& chmod 600 text.pem");
	assert_loads("text.pem", "nothere", BR_KEYTYPE_EC, 1);

	/* Objects of other kinds may look as they like. */
	text = content("c.pem", NULL);
	snprintf(mixed, sizeof mixed, "-----BEGIN NONSENSE-----\n?!?\n-----END NONSENSE-----\n%s", text);
	put_mode("mixed.pem", mixed, strlen(mixed), 0644);
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
	put_mode("empty", "", 0, 0600);
	assert_refused("empty", "k.pem", "empty|0", "expected -----BEGIN CERTIFICATE-----");
	assert_refused("c.pem", "empty", "empty|0", "expected -----BEGIN PRIVATE KEY-----");
	assert_refused("k.pem", "k.pem", "k.pem|0", "expected -----BEGIN CERTIFICATE-----");
	assert_refused("c.pem", "c.pem", "c.pem|0", "expected -----BEGIN PRIVATE KEY-----");
	random_bytes(big, 20000);
	put_mode("garbage", big, 20000, 0600);
	assert_refused("garbage", "k.pem", "garbage|0", "expected -----BEGIN CERTIFICATE-----");
	assert_refused("c.pem", "garbage", "garbage|0", "expected -----BEGIN PRIVATE KEY-----");
	memset(big, '\n', sizeof big);
	put_mode("long", big, SECRET_FILE_MAX + 1, 0600);
	assert_refused("long", "k.pem", "long|0", "at most 32768 octets");
	put_mode("longest", big, SECRET_FILE_MAX, 0600);
	assert_refused("longest", "k.pem", "longest|0", "expected -----BEGIN CERTIFICATE-----");
	assert_sh("", "openssl x509 -in c.pem -outform der -out c.der");
	assert_refused("c.der", "k.pem", "c.der|0", "-inform der");

	/* Cut off behind a line, within a line, within the last one, and before it. */
	text = content("c.pem", NULL);
	put_mode("cut.pem", text, 28 + 3 * 65, 0644);
	assert_refused("cut.pem", "k.pem", "cut.pem|1", "expected an -----END line");
	put_mode("cut.pem", text, 28 + 3 * 65 + 30, 0644);
	assert_refused(
	    "cut.pem", "k.pem", "cut.pem|5", "expected base64 text, or the -----END line of the object of line 1");
	put_mode("cut.pem", text, strlen(text) - strlen("ND CERTIFICATE-----\n"), 0644);
	assert_refused(
	    "cut.pem", "k.pem", "cut.pem", "expected base64 text, or the -----END line of the object of line 1");
	put_mode("cut.pem", text, strlen(text) - strlen("-----END CERTIFICATE-----\n"), 0644);
	assert_refused("cut.pem", "k.pem", "cut.pem|1", "expected an -----END line");
	text = content("k.pem", NULL);
	put_mode("cutk.pem", text, 28 + 65, 0600);
	assert_refused("c.pem", "cutk.pem", "cutk.pem|1", "expected an -----END line");
	/* A line in it that is no base64. */
	text = content("c.pem", NULL);
	p = strchr(strchr(text, '\n') + 1, '\n') + 1;
	p[3] = '!';
	put_mode("bang.pem", text, strlen(text), 0644);
	assert_refused("bang.pem", "k.pem", "bang.pem|3", "of the object of line 1");
	/* Content that is not DER, and DER that is no certificate. */
	put_mode("nonsense.pem", "\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 60, 0644);
	assert_refused("nonsense.pem", "k.pem", "nonsense.pem|2", "damaged certificate");
	put_mode("hollow.pem", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", 54, 0644);
	assert_refused("hollow.pem", "k.pem", "hollow.pem|1", "damaged certificate");
	put_mode("bare.pem", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", 59, 0644);
	assert_refused("bare.pem", "k.pem", "bare.pem|1", "damaged certificate");
	put_mode("barek.pem", "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n", 59, 0600);
	assert_refused("c.pem", "barek.pem", "barek.pem|1", "damaged private key");
	/* A chain and a key that do not fit together into the scratch memory. */
	text = content("c.pem", NULL);
	memcpy(big, "\x30\x82\x4e\x20", 4);
	memset(big + 4, 0, 20000);
	snprintf(huge, sizeof huge, "%s", text);
	br_pem_encode(huge + strlen(huge), big, 20004, "CERTIFICATE", 0);
	put_mode("huge.pem", huge, strlen(huge), 0644);
	assert_loads("huge.pem", "k.pem", BR_KEYTYPE_EC, 2);
	br_pem_encode(huge, big, 20004, "PRIVATE KEY", 0);
	put_mode("hugek.pem", huge, strlen(huge), 0600);
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
		put_mode("damaged.key", (const char *)pem, len, 0600);
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
	snprintf(cert, sizeof cert, "%s", content("c.pem", NULL));
	snprintf(key, sizeof key, "%s", content("k.pem", NULL));
	len = strlen(key);
	for (size_t i = 0; i < len; i++) {
		key[i] ^= 1;
		put_mode("m.pem", key, len, 0600);
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
		put_mode("m.pem", cert, len, 0644);
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

/* ---------------------------------------------------------------------------------------------------------------------- */

int
main(void)
{
	static const struct CMUnitTest tests[] = {
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
	};

	return have_openssl() ? cmocka_run_group_tests(tests, setup_cert, teardown_cert) : 77;
}
