/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* Lines of control files, radius.conf, addresses. Input: which, text. */
#include "control.h"

#include "fuzz.h"

static struct diag diag = { .emit = fuzz_no_emit };

static void
radius(const void *p, size_t len)
{
	static struct secrets s;
	static struct radius_conf rc;

	len = len < sizeof s.file ? len : sizeof s.file - 1;
	memcpy(s.file, p, len);
	CHECK((control_parse_radius(&rc, &s, len, &diag, "radius.conf") == 0) == (rc.servers > 0));
	CHECK(s.file[0] == 0 && memcmp(s.file, s.file + 1, sizeof s.file - 1) == 0);
	for (unsigned i = 0; i < rc.servers; i++) {
		CHECK(rc.server[i].name[0] != '\0' && rc.server[i].port > 0 && s.radius[i][0] != '\0');
	}
}

/* Written and read again, an address is the same, and its block has it. */
static void
address(const char *s, size_t len)
{
	char text[ADDR_TEXT_MAX];
	struct addr_block b;
	struct addr a;

	if (addr_block_parse(&b, s, len) == 0) {
		addr_text(&b.net, text);
		CHECK(addr_parse(&a, text, strlen(text)) == 0 && memcmp(&a, &b.net, sizeof a) == 0);
		CHECK(addr_in_block(&a, &b));
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	static struct config c = { .home = "/home" };
	struct listen_conf *l = &c.listen[0];
	struct input in = { p, len };
	unsigned which = take_octet(&in) % 4;
	char *line = calloc(1, in.len + 1); /* of this size, for the sanitizer to guard */

	memcpy(line, in.p, in.len);
	if (which == 0 && control_parse_listen(l, line, &diag, "listen", 1) == 0) {
		CHECK(l->port > 0 && (l->from[0] == '\0' || l->profile == PROFILE_INSIDE));
	} else if (which == 1 && control_parse_spool(&c, line, &diag, "spool", 1) == 0) {
		CHECK(c.spool_dir[0] == '/');
	} else if (which == 2) {
		radius(in.p, in.len);
	} else if (which == 3) {
		address((const char *)in.p, in.len);
	}
	free(line);
	return 0;
}
