/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * servercert.pem and serverkey.pem through cert_load(). Input: flags; the first file, up to octet 255; the second. With flag 1 the first
 * is DER, with flag 2 the second, and is put into PEM here; with flag 4 the second does not exist.
 */
#include "cert.h"

#include "fuzz.h"

#include <stdio.h>
#include <sys/mman.h>

static char path[2][64];

static void
put(unsigned i, const void *p, size_t len, const char *banner)
{
	static int fds[2] = { -1, -1 };
	static char text[1 << 16];

	if (fds[i] == -1) {
		fds[i] = memfd_create("pem", 0);
		snprintf(path[i], sizeof path[i], "/proc/self/fd/%d", fds[i]);
	}
	CHECK(ftruncate(fds[i], 0) == 0);
	if (banner != NULL && br_pem_encode(NULL, p, len, banner, 0) < sizeof text) {
		len = br_pem_encode(text, p, len, banner, 0);
		p = text;
	}
	CHECK(pwrite(fds[i], p, len, 0) == (ssize_t)len);
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	static const char *const keys[] = { "PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY", "PRIVATE KEY" };
	static struct secrets *s;
	struct diag diag = { .emit = fuzz_no_emit };
	struct input in = { p, len };
	unsigned flags = take_octet(&in);
	struct input first = take_packet(&in);
	struct cert_chain chain;

	s = s == NULL ? secret_map() : s;
	put(0, first.p, first.len, (flags & 1) != 0 ? "CERTIFICATE" : NULL);
	put(1, in.p, in.len, (flags & 2) != 0 ? keys[flags >> 4 & 3] : NULL);
	if (cert_load(&chain, s, path[0], (flags & 4) != 0 ? "/nonexistent" : path[1], &diag) == 0) {
		CHECK(chain.key_type == s->key.type && chain.count >= 1 && chain.count <= TLS_CHAIN_MAX);
		CHECK(strlen(chain.fingerprint) == 64 && chain.cert[0].data == chain.der);
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
