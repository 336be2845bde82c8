/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Trust anchors out of PEM (RFC 7468), by BearSSL's decoders. Of each certificate the subject and the key are kept, behind the array of
 * anchors. The allocation has room for the whole text, which is always enough; what is not used of it is never touched.
 */
#include "anchor.h"

#include "config.h"
#include "ctlfile.h"

#include <stdlib.h>
#include <string.h>

struct anchors {
	const char *file;
	struct diag *d;
	int own;
	int line, begin; /* the line at hand; that of the BEGIN line of the open object, 0 = none */
	int wanted;      /* the open object is a certificate */
	br_pem_decoder_context pem;
	br_x509_decoder_context x509;
	br_x509_trust_anchor *anchor;
	size_t n;
	unsigned char *mem; /* subjects and keys */
	size_t used, cap;
	size_t subject; /* where that of the open object begins */
};

static unsigned char *
keep(struct anchors *a, const void *p, size_t len)
{
	unsigned char *at = a->mem + a->used;

	if (len > a->cap - a->used) {
		return NULL; /* cannot be: both are parts of the text */
	}
	memcpy(at, p, len);
	a->used += len;
	return at;
}

static void
add_subject(void *ctx, const void *p, size_t len)
{
	(void)keep(ctx, p, len);
}

static void
add_der(void *ctx, const void *p, size_t len)
{
	struct anchors *a = ctx;

	br_x509_decoder_push(&a->x509, p, len);
}

static void
begin_object(struct anchors *a)
{
	const char *name = br_pem_decoder_name(&a->pem);

	a->begin = a->line;
	a->subject = a->used;
	a->wanted = strcmp(name, "CERTIFICATE") == 0 || strcmp(name, "X509 CERTIFICATE") == 0;
	br_x509_decoder_init(&a->x509, add_subject, a);
	br_pem_decoder_setdest(&a->pem, a->wanted ? add_der : NULL, a);
}

/* Keep a certificate that has come to its end. 0, or -1 when it cannot be used. */
static int
end_object(struct anchors *a)
{
	const br_x509_pkey *pk = a->wanted ? br_x509_decoder_get_pkey(&a->x509) : NULL;
	br_x509_trust_anchor *t = &a->anchor[a->n];
	int begin = a->begin;

	a->begin = 0;
	if (pk != NULL) {
		t->dn.data = a->mem + a->subject;
		t->dn.len = a->used - a->subject;
		t->flags = br_x509_decoder_isCA(&a->x509) ? BR_X509_TA_CA : 0;
		t->pkey = *pk;
		if (pk->key_type == BR_KEYTYPE_EC) {
			t->pkey.key.ec.q = keep(a, pk->key.ec.q, pk->key.ec.qlen);
		} else {
			t->pkey.key.rsa.n = keep(a, pk->key.rsa.n, pk->key.rsa.nlen);
			t->pkey.key.rsa.e = keep(a, pk->key.rsa.e, pk->key.rsa.elen);
		}
		a->n++;
		return 0;
	}
	a->used = a->subject;
	if (!a->own) {
		return 0;
	}
	diag_put(a->d, DIAG_ERROR, a->file, begin,
	    "expected a certificate with an RSA key, or one on P-256, P-384 or P-521; `openssl x509 -text` shows what it is");
	return -1;
}

static int
feed(struct anchors *a, const char *p, size_t len)
{
	while (len > 0) {
		size_t n = br_pem_decoder_push(&a->pem, p, len);
		int rc = 0;

		p += n;
		len -= n;
		switch (br_pem_decoder_event(&a->pem)) {
		case BR_PEM_BEGIN_OBJ:
			begin_object(a);
			break;
		case BR_PEM_END_OBJ:
			rc = end_object(a);
			break;
		case BR_PEM_ERROR:
			diag_put(a->d, DIAG_ERROR, a->file, a->line,
			    "expected base64 text, or the -----END line of the object of line %d", a->begin);
			rc = -1;
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

/* Line by line: for the numbers, and because BearSSL takes white space at the end of a BEGIN line for a part of the name. */
static int
read_objects(struct anchors *a, char *rest)
{
	char *line;

	br_pem_decoder_init(&a->pem);
	while ((line = ctl_next_line(&rest)) != NULL) {
		a->line++;
		if (feed(a, line, strlen(line)) == -1 || feed(a, "\n", 1) == -1) {
			return -1;
		}
	}
	if (a->begin != 0) {
		diag_put(a->d, DIAG_ERROR, a->file, a->begin, "this object has no end: expected an -----END line");
		return -1;
	}
	return 0;
}

int
anchors_load(const char *file, int own, br_x509_trust_anchor **anchor, size_t *n, struct diag *d)
{
	static struct anchors a;
	size_t len, most = 0;
	char *text;
	int rc = -1;

	*anchor = NULL;
	*n = 0;
	switch (ctl_read_path(file, CONTROL_FILE_MAX, &text, &len, d)) {
	case CTL_MISSING:
		return 1;
	case CTL_BAD:
		return -1;
	case CTL_OK:
		break;
	}
	for (const char *p = text; (p = strstr(p, "-----BEGIN ")) != NULL; p++) {
		most++;
	}
	memset(&a, 0, sizeof a);
	a.file = file;
	a.d = d;
	a.own = own;
	a.cap = len;
	a.anchor = malloc((most + 1) * sizeof *a.anchor + len);
	if (a.anchor == NULL) {
		diag_put(d, DIAG_ERROR, file, 0, "no memory");
	} else {
		a.mem = (unsigned char *)(a.anchor + most + 1);
		rc = read_objects(&a, text);
	}
	free(text);
	if (rc == -1) {
		free(a.anchor);
		return -1;
	}
	*anchor = a.anchor;
	*n = a.n;
	return 0;
}
