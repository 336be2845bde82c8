/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* Our own certificate as others see it. The judge is the one that judges relays; dates and issuer are read here (RFC 5280 4.1). */
#include "certlook.h"

#if SELFTEST

#include "tlscheck.h"

#include <string.h>

int
certlook_judge(
    const struct cert_chain *chain, const char *name, int64_t now, const br_x509_trust_anchor *anchor, size_t n)
{
	static struct tlscheck t;
	int error = tlscheck_begin(&t, TLS_VERIFY, NULL, 0, anchor, n, name, now);

	if (error != 0) {
		return error;
	}
	t.vtable->start_chain(&t.vtable, name);
	for (size_t i = 0; i < chain->count; i++) {
		t.vtable->start_cert(&t.vtable, (uint32_t)chain->cert[i].data_len);
		t.vtable->append(&t.vtable, chain->cert[i].data, chain->cert[i].data_len);
		t.vtable->end_cert(&t.vtable);
	}
	return (int)t.vtable->end_chain(&t.vtable);
}

struct der {
	const unsigned char *p;
	size_t len;
};

/* Take the next element off `from`; its content. Whatever is no DER has none, and so has what follows. */
static struct der
next(struct der *from, int *tag)
{
	const struct der none = { .len = 0 };
	struct der e = none;
	size_t head = 2, n;

	*tag = -1;
	if (from->len < 2) {
		*from = none;
		return none;
	}
	n = from->p[1];
	if (n > 0x80 && n < 0x84) {
		head += n - 0x80;
		n = 0;
		for (size_t i = 2; i < head && i < from->len; i++) {
			n = n << 8 | from->p[i];
		}
	}
	if (from->len < head || from->len - head < n) {
		*from = none;
		return none;
	}
	*tag = from->p[0];
	e.p = from->p + head;
	e.len = n;
	from->p += head + n;
	from->len -= head + n;
	return e;
}

void
certlook_leaf(const struct cert_chain *chain, char until[11], int *self)
{
	struct der all = { chain->cert[0].data, chain->cert[0].data_len }, tbs, issuer, validity, subject, date;
	size_t at = 0;
	int tag;

	tbs = next(&all, &tag);
	tbs = next(&tbs, &tag);
	(void)next(&tbs, &tag); /* version, or already the serial number */
	if (tag == 0xa0) {
		(void)next(&tbs, &tag);
	}
	(void)next(&tbs, &tag); /* algorithm */
	issuer = next(&tbs, &tag);
	validity = next(&tbs, &tag);
	subject = next(&tbs, &tag);
	*self = issuer.len > 0 && issuer.len == subject.len && memcmp(issuer.p, subject.p, issuer.len) == 0;
	(void)next(&validity, &tag);
	date = next(&validity, &tag);
	if (tag == 0x17 && date.len > 6) {
		memcpy(until, date.p[0] < '5' ? "20" : "19", 2);
		at = 2;
	}
	if ((tag != 0x17 && tag != 0x18) || date.len < 8) {
		until[0] = '?';
		until[1] = '\0';
		return;
	}
	for (size_t k = 0; at < 10; at++) {
		until[at] = at == 4 || at == 7 ? '-' : (char)date.p[k++];
	}
	until[10] = '\0';
}

#endif
