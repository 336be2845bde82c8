/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* The SMTP grammar of parse.c. Input: which parser and how, text. */
#include "fuzz_parse.h"

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	struct input in = { p, len };
	unsigned how = take_octet(&in);
	const char *s = (const char *)in.p;
	struct sasl_plain plain;

	if ((how & 24) == 0) {
		fuzz_path(how, s, in.len);
	} else if ((how & 24) == 8) {
		uint8_t *out = malloc(in.len / 4 * 3); /* of this size, for the sanitizer to guard */
		long n = parse_base64(s, in.len, out, in.len / 4 * 3);

		CHECK(n == -1 || fuzz_base64_is(s, in.len, out, (size_t)n));
		free(out);
	} else if ((how & 24) == 16) {
		CHECK(parse_xtext(s, in.len) == fuzz_is_xtext(s, in.len));
		CHECK(parse_helo(s, in.len) == -1 || memchr(s, ' ', in.len) == NULL);
	} else if (parse_plain(s, in.len, &plain) == 0) {
		CHECK(plain.authzid == s && plain.user == s + plain.authzid_len + 1 && plain.user[-1] == '\0');
		CHECK(plain.pass == plain.user + plain.user_len + 1 && plain.pass + plain.pass_len == s + in.len);
		parse_login_ok(plain.user, plain.user_len, plain.pass, plain.pass_len);
	}
	return 0;
}
