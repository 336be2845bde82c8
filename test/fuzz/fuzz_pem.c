/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * servercert.pem and serverkey.pem through cert_load(). Input: flags; the first file, up to octet 255, or, with flag 128, behind two octets
 * of its length; the second. With flag 1 the first is DER, with flag 2 the second, and is put into PEM here; with flag 4 the second does not exist; with flag 64 it alone is read. With flag
 * 8 it is a name and a key instead, for a certificate of der.c.
 */
#include "fuzz_pem.h"

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	static struct secrets *s;
	struct diag diag = { .emit = fuzz_no_emit };
	struct input in = { p, len };
	unsigned flags = take_octet(&in);
	struct cert_chain chain = { 0 };
	int rc;

	s = s == NULL ? secret_map() : s;
	if ((flags & 8) != 0) {
		pem_certificate(&in);
		return 0;
	}
	pem_files(&in, flags);
	rc = (flags & 64) != 0
	    ? pem_load_key(s, &diag)
	    : cert_load(&chain, s, pem_path[0], (flags & 4) != 0 ? "/nonexistent" : pem_path[1], &diag);
	if (rc == 0) {
		pem_check_key(s, &chain, (flags & 64) == 0);
	} else {
		CHECK(chain.key_type == 0 && chain.der == NULL && diag.errors > 0);
	}
	/* Nothing of a key stays where files were read. */
	for (size_t i = 0; i < sizeof s->file; i++) {
		CHECK(s->file[i] == 0 && s->der[i] == 0);
	}
	cert_free(&chain);
	return 0;
}
