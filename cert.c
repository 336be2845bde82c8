/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Reading certificates and keys from PEM (RFC 7468), and signing. cert_load() runs in main, cert_sign() in wardens. A
 * private key exists only in struct secrets and, while it is being worked with, in BearSSL's stack frames; those of main
 * are overwritten before it forks. keygen.c makes what is read here.
 */
#include "cert.h"

#include "der.h"
#include "str.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define KEY_KINDS "expected P-256, P-384, or RSA of 2048 to 4096 bits"

_Static_assert(CERT_PUBLIC_MAX >= BR_EC_KBUF_PUB_MAX_SIZE, "a public key of either type must fit");

enum object { OBJ_OTHER, OBJ_CERT, OBJ_KEY };

/* A file being read. */
struct load {
	struct secrets *s;
	struct diag *d;
	struct cert_chain *chain;
	const char *file;
	const char *chain_file;
	int want_certs; /* 0: only the key of this file is of interest */
	mode_t mode;
	const char *text; /* the line at hand */
	size_t text_len;
	int line;
	int begin;        /* line of the open object, 0 = none */
	enum object kind; /* of that object */
	size_t kept;      /* octets of s->der that hold certificates */
	size_t len;       /* octets of the open object, after those */
	int overflow;
	int leaf_line;
	unsigned keys;     /* in this file */
	const char *keyed; /* the file that s->skey is from */
};

/* Either kind of private key, wherever it is. */
struct key_ref {
	int type;
	const br_ec_private_key *ec;
	const br_rsa_private_key *rsa;
};

static const struct hash_kind {
	unsigned id;
	size_t len;
	const br_hash_class *class;
	const unsigned char *oid;
} hashes[] = {
	{ br_sha256_ID, br_sha256_SIZE, &br_sha256_vtable, BR_HASH_OID_SHA256 },
	{ br_sha384_ID, br_sha384_SIZE, &br_sha384_vtable, BR_HASH_OID_SHA384 },
	{ br_sha512_ID, br_sha512_SIZE, &br_sha512_vtable, BR_HASH_OID_SHA512 },
};

/* ---- Keys ------------------------------------------------------------------------------------------------------------ */

static size_t
sign_with(struct key_ref k, unsigned hash_id, const uint8_t *hv, size_t hv_len, uint8_t *sig, size_t cap)
{
	const struct hash_kind *h = hashes;
	size_t len;

	while (h < hashes + sizeof hashes / sizeof hashes[0] && h->id != hash_id) {
		h++;
	}
	if (h == hashes + sizeof hashes / sizeof hashes[0] || hv_len != h->len) {
		return 0;
	}
	if (k.type == BR_KEYTYPE_EC) {
		/* Two INTEGERs of up to 33 or 49 octets, in a SEQUENCE. */
		if (cap < (k.ec->curve == BR_EC_secp256r1 ? 72 : 104)) {
			return 0;
		}
		return br_ecdsa_sign_asn1_get_default()(br_ec_get_default(), h->class, hv, k.ec, sig);
	}
	if (k.type == BR_KEYTYPE_RSA) {
		len = (k.rsa->n_bitlen + 7) / 8;
		if (cap < len || !br_rsa_pkcs1_sign_get_default()(h->oid, hv, hv_len, k.rsa, sig)) {
			return 0;
		}
		return len;
	}
	return 0;
}

size_t
cert_sign(const struct cert_key *key, unsigned hash_id, const uint8_t *hv, size_t hv_len, uint8_t *sig, size_t cap)
{
	return sign_with((struct key_ref){ key->type, &key->ec, &key->rsa }, hash_id, hv, hv_len, sig, cap);
}

/*
 * n = p * q, big-endian, in mem[plen + qlen]. BearSSL's own br_rsa_compute_modulus() (0.6) fails for 4096 bits, and leaves p
 * and q on the stack.
 */
static void
multiply(unsigned char *mem, const br_rsa_private_key *k)
{
	memset(mem, 0, k->plen + k->qlen);
	for (size_t i = k->plen; i-- > 0;) {
		unsigned carry = 0;

		for (size_t j = k->qlen; j-- > 0;) {
			carry += mem[i + j + 1] + (unsigned)k->p[i] * k->q[j];
			mem[i + j + 1] = (unsigned char)(carry & 0xff);
			carry >>= 8;
		}
		mem[i] = (unsigned char)carry;
	}
}

/* The public key of `k`, its numbers in mem[CERT_PUBLIC_MAX]. An RSA key's exponent is taken to be 65537. 0 or -1. */
static int
public_of(struct key_ref k, br_x509_pkey *pk, unsigned char *mem)
{
	static const unsigned char f4[] = { 0x01, 0x00, 0x01 };
	size_t len;

	pk->key_type = (unsigned char)k.type;
	if (k.type == BR_KEYTYPE_EC) {
		return br_ec_compute_pub(br_ec_get_default(), &pk->key.ec, mem, k.ec) > 0 ? 0 : -1;
	}
	len = k.rsa->plen + k.rsa->qlen;
	if (len < 1 || len > CERT_PUBLIC_MAX - sizeof f4) {
		return -1;
	}
	multiply(mem, k.rsa);
	memcpy(mem + len, f4, sizeof f4);
	pk->key.rsa = (br_rsa_public_key){ .n = mem, .nlen = len, .e = mem + len, .elen = sizeof f4 };
	if (mem[0] == 0) {
		pk->key.rsa.n++;
		pk->key.rsa.nlen--;
	}
	return 0;
}

static int
same_public(const br_x509_pkey *a, const br_x509_pkey *b)
{
	if (a->key_type != b->key_type) {
		return 0;
	}
	if (a->key_type == BR_KEYTYPE_EC) {
		return a->key.ec.curve == b->key.ec.curve && a->key.ec.qlen == b->key.ec.qlen &&
		    memcmp(a->key.ec.q, b->key.ec.q, a->key.ec.qlen) == 0;
	}
	return a->key.rsa.nlen == b->key.rsa.nlen && memcmp(a->key.rsa.n, b->key.rsa.n, a->key.rsa.nlen) == 0;
}

/*
 * Does a signature by `k` stand up to `pk`? Of an RSA key this is the only proof that dp, dq and iq are sound: a signature
 * made with a wrong one gives the key away to whoever sees it (Boneh, DeMillo and Lipton 1997).
 */
static int
key_proves(struct key_ref k, const br_x509_pkey *pk)
{
	unsigned char hv[br_sha256_SIZE], out[br_sha256_SIZE], sig[CERT_SIGNATURE_MAX];
	size_t len;

	memset(hv, 0x5a, sizeof hv);
	len = sign_with(k, br_sha256_ID, hv, sizeof hv, sig, sizeof sig);
	if (len == 0) {
		return 0;
	}
	if (k.type == BR_KEYTYPE_EC) {
		return br_ecdsa_vrfy_asn1_get_default()(br_ec_get_default(), hv, sizeof hv, &pk->key.ec, sig, len) == 1;
	}
	return br_rsa_pkcs1_vrfy_get_default()(sig, len, BR_HASH_OID_SHA256, sizeof out, &pk->key.rsa, out) == 1 &&
	    memcmp(hv, out, sizeof hv) == 0;
}

int
cert_public(const struct cert_key *key, br_x509_pkey *pk, unsigned char mem[CERT_PUBLIC_MAX])
{
	struct key_ref k = { key->type, &key->ec, &key->rsa };

	return public_of(k, pk, mem) == 0 && key_proves(k, pk) ? 0 : -1;
}

static struct key_ref
decoded_key(const struct secrets *s)
{
	return (struct key_ref){ br_skey_decoder_key_type(&s->skey), br_skey_decoder_get_ec(&s->skey),
		br_skey_decoder_get_rsa(&s->skey) };
}

static unsigned char *
keep_number(struct cert_key *k, size_t *at, const unsigned char *p, size_t len)
{
	unsigned char *dst = k->bytes + *at;

	/* The decoder's own buffer is no larger than `bytes`; see secret.c. */
	memcpy(dst, p, len);
	*at += len;
	return dst;
}

/* Move the key out of the decoder, where the next file would overwrite it. */
static void
keep_key(struct secrets *s)
{
	struct key_ref from = decoded_key(s);
	struct cert_key *k = &s->key;
	size_t at = 0;

	explicit_bzero(k, sizeof *k);
	k->type = from.type;
	if (from.type == BR_KEYTYPE_EC) {
		k->ec = *from.ec;
		k->ec.x = keep_number(k, &at, from.ec->x, from.ec->xlen);
		return;
	}
	k->rsa = *from.rsa;
	k->rsa.p = keep_number(k, &at, from.rsa->p, from.rsa->plen);
	k->rsa.q = keep_number(k, &at, from.rsa->q, from.rsa->qlen);
	k->rsa.dp = keep_number(k, &at, from.rsa->dp, from.rsa->dplen);
	k->rsa.dq = keep_number(k, &at, from.rsa->dq, from.rsa->dqlen);
	k->rsa.iq = keep_number(k, &at, from.rsa->iq, from.rsa->iqlen);
}

/* ---- Reading --------------------------------------------------------------------------------------------------------- */

static void
add_octets(void *ctx, const void *src, size_t len)
{
	struct load *l = ctx;

	if (len > sizeof l->s->der - l->kept - l->len) {
		l->overflow = 1;
		return;
	}
	memcpy(l->s->der + l->kept + l->len, src, len);
	l->len += len;
}

static int
refuse_encrypted(struct load *l)
{
	diag_put(l->d, DIAG_ERROR, l->file, l->begin,
	    "the private key is encrypted, and nobody types its password when a server starts: expected a plain one; "
	    "`openssl pkey -in FILE -out NEWFILE` makes it");
	return -1;
}

/* A BEGIN line. 0, or -1 when the file cannot be used. */
static int
begin_object(struct load *l)
{
	static const struct {
		const char *name;
		enum object kind;
	} known[] = {
		{ "CERTIFICATE", OBJ_CERT },
		{ "X509 CERTIFICATE", OBJ_CERT },
		{ BR_ENCODE_PEM_PKCS8, OBJ_KEY },
		{ BR_ENCODE_PEM_EC_RAW, OBJ_KEY },
		{ BR_ENCODE_PEM_RSA_RAW, OBJ_KEY },
	};
	static const char private[] = "PRIVATE KEY";
	const char *name = br_pem_decoder_name(&l->s->pem);
	size_t len = strlen(name);

	l->begin = l->line;
	l->len = 0;
	l->kind = OBJ_OTHER;
	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
		if (strcmp(name, known[i].name) == 0) {
			l->kind = known[i].kind;
		}
	}
	if (l->kind == OBJ_OTHER && len >= sizeof private - 1 &&
	    strcmp(name + len - (sizeof private - 1), private) == 0) {
		if (strncmp(name, "ENCRYPTED", 9) == 0) {
			return refuse_encrypted(l);
		}
		diag_put(l->d, DIAG_ERROR, l->file, l->line,
		    "a private key in a form that is not supported: expected PRIVATE KEY, EC PRIVATE KEY or RSA PRIVATE KEY");
		return -1;
	}
	if (l->kind == OBJ_CERT && !l->want_certs) {
		l->kind = OBJ_OTHER;
	}
	br_pem_decoder_setdest(&l->s->pem, l->kind == OBJ_OTHER ? NULL : add_octets, l);
	return 0;
}

static int
take_cert(struct load *l)
{
	struct cert_chain *c = l->chain;

	if (c->count == TLS_CHAIN_MAX) {
		diag_put(l->d, DIAG_ERROR, l->file, l->begin,
		    "more than %d certificates: expected the server's own and its intermediates, without a root",
		    TLS_CHAIN_MAX);
		return -1;
	}
	if (!der_is_sequence(l->s->der + l->kept, l->len)) {
		diag_put(
		    l->d, DIAG_ERROR, l->file, l->begin, "damaged certificate: its content is not an X.509 structure");
		return -1;
	}
	if (c->count == 0) {
		l->leaf_line = l->begin;
	}
	c->cert[c->count++].data_len = l->len;
	l->kept += l->len;
	return 0;
}

static int
take_key(struct load *l)
{
	br_skey_decoder_context *k = &l->s->skey;
	const br_ec_private_key *ec;
	const br_rsa_private_key *rsa;
	int err;

	if (l->keys++ > 0) {
		diag_put(l->d, DIAG_ERROR, l->file, l->begin, "a second private key: expected one");
		return -1;
	}
	br_skey_decoder_init(k);
	br_skey_decoder_push(k, l->s->der + l->kept, l->len);
	l->keyed = l->file;
	err = br_skey_decoder_last_error(k);
	if (err != 0 && err != BR_ERR_X509_UNSUPPORTED && err != BR_ERR_X509_LIMIT_EXCEEDED) {
		diag_put(l->d, DIAG_ERROR, l->file, l->begin, "damaged private key: its content does not decode");
		return -1;
	}
	ec = br_skey_decoder_get_ec(k);
	rsa = br_skey_decoder_get_rsa(k);
	if (rsa != NULL && (rsa->n_bitlen < 2048 || rsa->n_bitlen > 4096)) {
		diag_put(
		    l->d, DIAG_ERROR, l->file, l->begin, "an RSA key of %u bits: " KEY_KINDS, (unsigned)rsa->n_bitlen);
		return -1;
	}
	if (rsa == NULL && (ec == NULL || (ec->curve != BR_EC_secp256r1 && ec->curve != BR_EC_secp384r1))) {
		diag_put(l->d, DIAG_ERROR, l->file, l->begin, "a private key of another kind or size: " KEY_KINDS);
		return -1;
	}
	if ((l->mode & 077) != 0) {
		diag_put(l->d, DIAG_WARN, l->file, l->begin,
		    "mode %04o opens this private key to other users: expected 0600", (unsigned)(l->mode & 07777));
	}
	return 0;
}

static int
end_object(struct load *l)
{
	int rc = 0;

	if (l->overflow) {
		diag_put(l->d, DIAG_ERROR, l->file, l->begin, "too long: expected at most %d octets", SECRET_FILE_MAX);
		return -1;
	}
	if (l->kind == OBJ_CERT) {
		rc = take_cert(l);
	} else if (l->kind == OBJ_KEY) {
		rc = take_key(l);
	}
	l->begin = 0;
	return rc;
}

static int
bad_object(struct load *l)
{
	static const char proc_type[] = "Proc-Type:";

	if (l->kind == OBJ_KEY && l->text_len >= sizeof proc_type &&
	    memcmp(l->text, proc_type, sizeof proc_type - 1) == 0) {
		return refuse_encrypted(l);
	}
	/* What is neither a certificate nor a key may look as it likes. */
	if (l->kind == OBJ_OTHER) {
		l->begin = 0;
		return 0;
	}
	diag_put(l->d, DIAG_ERROR, l->file, l->line,
	    "expected base64 text, or the -----END line of the object of line %d", l->begin);
	return -1;
}

static int
feed(struct load *l, const void *p, size_t len)
{
	const char *text = p;

	while (len > 0) {
		size_t n = br_pem_decoder_push(&l->s->pem, text, len);
		int rc = 0;

		text += n;
		len -= n;
		switch (br_pem_decoder_event(&l->s->pem)) {
		case BR_PEM_BEGIN_OBJ:
			rc = begin_object(l);
			break;
		case BR_PEM_END_OBJ:
			rc = end_object(l);
			break;
		case BR_PEM_ERROR:
			rc = bad_object(l);
			break;
		default:
			break;
		}
		if (rc == -1) {
			return -1;
		}
	}
	return 0;
}

/*
 * All of s->file, line by line, for the sake of line numbers, and because BearSSL 0.6 takes a CR or blank at the end of a
 * BEGIN line for a part of the name, and needs a line feed after the last line.
 */
static int
read_objects(struct load *l, size_t len)
{
	const char *p = (const char *)l->s->file, *end = p + len;

	br_pem_decoder_init(&l->s->pem);
	/* A byte order mark, as some editors leave it, would hide the first line. */
	if (len >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0) {
		p += 3;
	}
	while (p < end) {
		const char *lf = memchr(p, '\n', (size_t)(end - p));
		size_t n = (size_t)((lf == NULL ? end : lf) - p);

		l->line++;
		while (n > 0 && (p[n - 1] == '\r' || p[n - 1] == ' ' || p[n - 1] == '\t')) {
			n--;
		}
		l->text = p;
		l->text_len = n;
		if (feed(l, p, n) == -1 || feed(l, "\n", 1) == -1) {
			return -1;
		}
		p = lf == NULL ? end : lf + 1;
	}
	if (l->begin != 0) {
		diag_put(l->d, DIAG_ERROR, l->file, l->begin, "this object has no end: expected an -----END line");
		return -1;
	}
	return 0;
}

/* 0; -1 when it cannot be used; 1 when there is no such file, which is the caller's to judge. */
static int
read_file(struct load *l, const char *file)
{
	struct stat st;
	long len = -1;

	l->file = file;
	l->line = 0;
	l->begin = 0;
	l->keys = 0;
	if (stat(file, &st) == 0) {
		l->mode = st.st_mode;
		errno = EINVAL;
		if (S_ISREG(st.st_mode)) {
			len = file_read(file, l->s->file, sizeof l->s->file);
		}
	} else if (errno == ENOENT) {
		return 1;
	}
	if (len == -1) {
		diag_put(l->d, DIAG_ERROR, file, 0, "cannot read: %s; expected a file of at most %d octets",
		    strerror(errno), SECRET_FILE_MAX);
		return -1;
	}
	return read_objects(l, (size_t)len);
}

static int
read_chain(struct load *l, const char *file)
{
	int rc;

	l->chain_file = file;
	l->want_certs = 1;
	rc = read_file(l, file);
	if (rc == 1) {
		diag_put(
		    l->d, DIAG_ERROR, file, 0, "no such file: expected a certificate; `mailstile keygen` makes one");
		return -1;
	}
	if (rc == 0 && l->chain->count == 0) {
		/* In base64 text a SEQUENCE begins with "MI", in DER with these two. */
		int der = l->s->file[0] == 0x30 && l->s->file[1] == 0x82;

		diag_put(l->d, DIAG_ERROR, file, 0, "no certificate: expected -----BEGIN CERTIFICATE-----%s",
		    der ? "; this looks like DER, `openssl x509 -inform der -in FILE -out NEWFILE` turns it into that"
			: "");
		return -1;
	}
	return rc;
}

static int
read_key(struct load *l, const char *file)
{
	const char *other = l->keyed;
	int rc;

	l->want_certs = 0;
	rc = read_file(l, file);
	if (rc == 1 && other == NULL) {
		diag_put(l->d, DIAG_ERROR, file, 0,
		    "no such file, nor a private key with the certificate: expected one of the two");
		return -1;
	}
	if (rc == 0 && l->keys == 0) {
		diag_put(l->d, DIAG_ERROR, file, 0,
		    "no private key: expected -----BEGIN PRIVATE KEY-----, EC PRIVATE KEY or RSA PRIVATE KEY");
		return -1;
	}
	if (rc == 0 && other != NULL) {
		diag_put(l->d, DIAG_NOTE, other, 0, "the private key in this file is not used: %s holds one", file);
	}
	return rc == -1 ? -1 : 0;
}

/* Do the leaf and the decoded key belong together? */
static int
check_pair(struct load *l)
{
	struct key_ref key = decoded_key(l->s);
	br_x509_decoder_context x509;
	unsigned char mem[CERT_PUBLIC_MAX];
	br_x509_pkey own;
	const br_x509_pkey *leaf;

	br_x509_decoder_init(&x509, NULL, NULL);
	br_x509_decoder_push(&x509, l->s->der, l->chain->cert[0].data_len);
	leaf = br_x509_decoder_get_pkey(&x509);
	if (leaf == NULL) {
		int err = br_x509_decoder_last_error(&x509);

		diag_put(l->d, DIAG_ERROR, l->chain_file, l->leaf_line, "%s (BearSSL error %d)",
		    err == BR_ERR_X509_UNSUPPORTED || err == BR_ERR_X509_LIMIT_EXCEEDED
			? "a certificate for a key of another kind or size: " KEY_KINDS
			: "damaged certificate: its content does not decode",
		    err);
		return -1;
	}
	if (public_of(key, &own, mem) == -1 || !same_public(&own, leaf)) {
		diag_put(l->d, DIAG_ERROR, l->chain_file, l->leaf_line,
		    "this certificate is not for the private key in %s: expected the server's own certificate, before any other",
		    l->keyed);
		return -1;
	}
	if (!key_proves(key, leaf)) {
		diag_put(l->d, DIAG_ERROR, l->keyed, 0, "damaged private key: what it signs does not verify");
		return -1;
	}
	return 0;
}

/* The certificates into memory of their own. 0 or -1. */
static int
keep_chain(struct load *l)
{
	static const char hex[] = "0123456789abcdef";
	struct cert_chain *c = l->chain;
	unsigned char hv[br_sha256_SIZE], *p;
	br_sha256_context sha;

	p = c->der = malloc(l->kept);
	if (p == NULL) {
		diag_put(l->d, DIAG_ERROR, l->chain_file, 0, "no memory for %zu octets of certificates", l->kept);
		return -1;
	}
	memcpy(p, l->s->der, l->kept);
	c->der_len = l->kept;
	for (size_t i = 0; i < c->count; i++) {
		c->cert[i].data = p;
		p += c->cert[i].data_len;
	}
	br_sha256_init(&sha);
	br_sha256_update(&sha, c->cert[0].data, c->cert[0].data_len);
	br_sha256_out(&sha, hv);
	for (size_t i = 0; i < sizeof hv; i++) {
		c->fingerprint[2 * i] = hex[hv[i] >> 4];
		c->fingerprint[2 * i + 1] = hex[hv[i] & 15];
	}
	return 0;
}

int
cert_load(struct cert_chain *chain, struct secrets *s, const char *certfile, const char *keyfile, struct diag *d)
{
	struct load l = { .s = s, .d = d, .chain = chain };
	int rc = -1;

	memset(chain, 0, sizeof *chain);
	secret_scratch_begin(s);
	if (read_chain(&l, certfile) == -1 || read_key(&l, keyfile) == -1 || check_pair(&l) == -1 ||
	    keep_chain(&l) == -1) {
		goto out;
	}
	keep_key(s);
	chain->key_type = s->key.type;
	chain->curve = s->key.type == BR_KEYTYPE_EC ? s->key.ec.curve : 0;
	rc = 0;
out:
	if (rc == -1) {
		cert_free(chain);
	}
	secret_scratch_end(s);
	secret_burn_stack();
	return rc;
}

int
cert_load_key(struct secrets *s, const char *keyfile, struct diag *d)
{
	struct load l = { .s = s, .d = d };

	if (read_key(&l, keyfile) == -1) {
		return -1;
	}
	keep_key(s);
	return 0;
}

void
cert_free(struct cert_chain *chain)
{
	free(chain->der);
	memset(chain, 0, sizeof *chain);
}
