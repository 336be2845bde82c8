/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Judging the certificate of a next hop, in remotes. Under `verify` BearSSL's own engine does all of it: a chain to a trust anchor, the
 * name, the dates. Under `pin` the leaf's key must have one of the SHA-256 of control/smtptls, and nothing else is looked at, so that a
 * relay may have a certificate of its own making. Otherwise any certificate will do whose key can be read: that keeps out who only listens.
 *
 * For a pin, two parsers see the same octets: BearSSL's takes the key, the one below finds where the SubjectPublicKeyInfo begins and ends.
 * They must agree on that, or a certificate could show one key to the pin and another one to the handshake: so tags and lengths are read
 * here just as there.
 */
#include "tlscheck.h"

#include "str.h"

#include <string.h>

#if RELAY || RADSEC

/* ---- SubjectPublicKeyInfo ---- */

/* Tag and length are complete: what the element is, and what that means. `len` is the content's length. */
static void
element(struct tlscheck_spki *s, uint32_t len)
{
	/* By RFC 5280 4.1: Certificate and TBSCertificate, into which we go; serial number, algorithm, issuer, validity, subject, key. */
	static const uint8_t tags[TLSCHECK_DONE] = { 0x30, 0x30, 0x02, 0x30, 0x30, 0x30, 0x30, 0x30 };
	uint8_t tag = s->head[0];

	if (s->step == 2 && tag == 0xa0) {
		s->left = len; /* the version, which may be missing */
	} else if (tag != tags[s->step]) {
		s->bad = 1;
	} else {
		s->left = s->step < 2 ? 0 : len;
		s->step++;
	}
	if (s->step == TLSCHECK_DONE && !s->bad) {
		br_sha256_init(&s->sha);
		br_sha256_update(&s->sha, s->head, s->head_len);
	}
	s->head_len = 0;
}

/* One octet of tag and length. */
static void
head_octet(struct tlscheck_spki *s, uint8_t c)
{
	uint32_t len = 0;
	unsigned n;

	if (s->head_len == sizeof s->head) {
		s->bad = 1; /* more octets of length than any certificate needs */
		return;
	}
	s->head[s->head_len++] = c;
	if (s->head_len < 2) {
		return;
	}
	n = s->head[1] < 0x80 ? 0 : s->head[1] - 0x80U;
	if (s->head[1] == 0x80 || n > sizeof s->head - 2) {
		s->bad = 1;
		return;
	}
	if (s->head_len < 2 + n) {
		return;
	}
	for (unsigned i = 0; i < n; i++) {
		if (len > 0x7fffff) {
			s->bad = 1;
			return;
		}
		len = len << 8 | s->head[2 + i];
	}
	element(s, n == 0 ? s->head[1] : len);
}

void
tlscheck_spki_feed(struct tlscheck_spki *s, const uint8_t *p, size_t len)
{
	while (len > 0 && !s->bad && (s->step < TLSCHECK_DONE || s->left > 0)) {
		size_t n = s->left < len ? s->left : len;

		if (n == 0) {
			head_octet(s, *p);
			n = 1;
		} else {
			if (s->step == TLSCHECK_DONE) {
				br_sha256_update(&s->sha, p, n);
			}
			s->left -= (uint32_t)n;
		}
		p += n;
		len -= n;
	}
}

static unsigned
pin_fits(const struct tlscheck *t)
{
	uint8_t hash[32];

	if (t->spki.bad || t->spki.step != TLSCHECK_DONE || t->spki.left > 0) {
		return BR_ERR_X509_TRUNCATED;
	}
	br_sha256_out(&t->spki.sha, hash);
	for (unsigned i = 0; i < t->pins; i++) {
		if (memcmp(hash, t->pin[i].sha256, sizeof hash) == 0) {
			return 0;
		}
	}
	return TLSCHECK_PIN;
}

/* ---- the engine ---- */

static struct tlscheck *
of(const br_x509_class **ctx)
{
	return (struct tlscheck *)(void *)ctx;
}

static void
start_chain(const br_x509_class **ctx, const char *name)
{
	struct tlscheck *t = of(ctx);

	t->certs = 0;
	if (t->policy == TLS_VERIFY) {
		t->minimal.vtable->start_chain(&t->minimal.vtable, name);
	}
}

static void
start_cert(const br_x509_class **ctx, uint32_t len)
{
	struct tlscheck *t = of(ctx);

	t->certs++;
	if (t->policy == TLS_VERIFY) {
		t->minimal.vtable->start_cert(&t->minimal.vtable, len);
	}
}

static void
append(const br_x509_class **ctx, const unsigned char *p, size_t len)
{
	struct tlscheck *t = of(ctx);

	if (t->policy == TLS_VERIFY) {
		t->minimal.vtable->append(&t->minimal.vtable, p, len);
	} else if (t->certs == 1) {
		br_x509_decoder_push(&t->decoder, p, len);
		tlscheck_spki_feed(&t->spki, p, len);
	}
}

static void
end_cert(const br_x509_class **ctx)
{
	struct tlscheck *t = of(ctx);

	if (t->policy == TLS_VERIFY) {
		t->minimal.vtable->end_cert(&t->minimal.vtable);
	}
}

static unsigned
end_chain(const br_x509_class **ctx)
{
	struct tlscheck *t = of(ctx);

	if (t->policy == TLS_VERIFY) {
		return t->minimal.vtable->end_chain(&t->minimal.vtable);
	}
	if (br_x509_decoder_get_pkey(&t->decoder) == NULL) {
		return t->certs == 0 ? BR_ERR_X509_EMPTY_CHAIN : (unsigned)br_x509_decoder_last_error(&t->decoder);
	}
	return t->policy == TLS_PIN ? pin_fits(t) : 0;
}

static const br_x509_pkey *
get_pkey(const br_x509_class *const *ctx, unsigned *usages)
{
	const struct tlscheck *t = (const struct tlscheck *)(const void *)ctx;

	if (t->policy == TLS_VERIFY) {
		return t->minimal.vtable->get_pkey(&t->minimal.vtable, usages);
	}
	if (usages != NULL) {
		*usages = BR_KEYTYPE_SIGN;
	}
	return &t->decoder.pkey; /* asked for only when end_chain() was content */
}

static const br_x509_class check_class = {
	.context_size = sizeof(struct tlscheck),
	.start_chain = start_chain,
	.start_cert = start_cert,
	.append = append,
	.end_cert = end_cert,
	.end_chain = end_chain,
	.get_pkey = get_pkey,
};

static void
verify_begin(br_x509_minimal_context *m, const br_x509_trust_anchor *anchor, size_t anchors, int64_t now)
{
	br_x509_minimal_init(m, &br_sha256_vtable, anchor, anchors);
	br_x509_minimal_set_rsa(m, br_rsa_pkcs1_vrfy_get_default());
	br_x509_minimal_set_ecdsa(m, br_ec_get_default(), br_ecdsa_vrfy_asn1_get_default());
	br_x509_minimal_set_hash(m, br_sha256_ID, &br_sha256_vtable);
	br_x509_minimal_set_hash(m, br_sha384_ID, &br_sha384_vtable);
	br_x509_minimal_set_hash(m, br_sha512_ID, &br_sha512_vtable);
	br_x509_minimal_set_minrsa(m, 2048 / 8);
	/* Days since the beginning of year 0, as BearSSL counts. */
	br_x509_minimal_set_time(m, (uint32_t)(719528 + now / 86400), (uint32_t)(now % 86400));
}

int
tlscheck_begin(struct tlscheck *t, enum tls_policy policy, const struct relay_pin *pin, unsigned pins,
    const br_x509_trust_anchor *anchor, size_t anchors, const char *name, int64_t now)
{
	memset(t, 0, sizeof *t);
	t->vtable = &check_class;
	t->policy = policy;
	t->pin = pin;
	t->pins = pins;
	if (policy != TLS_VERIFY) {
		br_x509_decoder_init(&t->decoder, NULL, NULL);
		return 0;
	}
	if (name == NULL) {
		return TLSCHECK_NO_NAME; /* without a name BearSSL would take any */
	}
	if (now < BUILD_EPOCH) {
		return TLSCHECK_CLOCK;
	}
	verify_begin(&t->minimal, anchor, anchors, now);
	return 0;
}

static int
hex_digit(int c)
{
	c = ascii_lower(c);
	return ascii_isdigit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int
tlscheck_pin(struct relay_pin *pin, const char *word)
{
	unsigned digits = 0;

	for (; *word != '\0'; word++) {
		int v = hex_digit(*word);

		if (*word == ':') {
			continue;
		}
		if (v == -1 || digits == 64) {
			return -1;
		}
		pin->sha256[digits / 2] = (uint8_t)(pin->sha256[digits / 2] << 4 | v);
		digits++;
	}
	return digits == 64 ? 0 : -1;
}

const char *
tlscheck_text(int error)
{
	switch (error) {
	case TLSCHECK_CLOCK:
		return "the clock is not set, so the dates of a certificate cannot be checked";
	case TLSCHECK_NO_NAME:
		return "verify needs a host name, not an address; use a name, or pin";
	case TLSCHECK_PIN:
		return "the key of its certificate has none of the pins";
	case BR_ERR_X509_EXPIRED:
		return "its certificate is not valid at this date";
	case BR_ERR_X509_BAD_SERVER_NAME:
		return "its certificate is for another name";
	case BR_ERR_X509_NOT_TRUSTED:
		return "no trusted authority has issued its certificate";
	case BR_ERR_OK:
		return "it closed the connection";
	default:
		return error >= BR_ERR_RECV_FATAL_ALERT ? "it refused the handshake"
		    : error >= BR_ERR_X509_OK           ? "its certificate cannot be used"
							: "it does not speak TLS 1.2 as it should";
	}
}

#endif
