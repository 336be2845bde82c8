/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* What fuzz_config.c makes of its texts: control files, and input of single parsers, with what must come out of them. */
#ifndef MAILSTILE_TEST_FUZZ_CONFIG_H
#define MAILSTILE_TEST_FUZZ_CONFIG_H

#include "control.h"
#include "policy.h"

#include "fuzz.h"
#include "fuzz_dir.h"

#define FUZZ_FILES 13
#define FUZZ_PARSERS 4
#define FUZZ_RELAY 8 /* more files, behind the parsers */

static struct diag fuzz_diag = { .emit = fuzz_no_emit };
static char fuzz_home[200];

/* ---- files ---- */

/* Write the file, or remove it when the text is "-"; before the `first`, those of the last input go. */
static void
fuzz_config_file(unsigned what, const struct input *text, int first)
{
	static const char *const names[FUZZ_FILES + FUZZ_RELAY] = { "control/me", "control/smtpgreeting",
		"control/listen", "control/spool", "control/databytes", "control/rcpthosts", "control/relayclients",
		"control/badmailfrom", "control/radius.conf", "control/morercpthosts.cdb", "control/tcp.smtp.cdb",
		"control/servercert.pem", "control/serverkey.pem", "control/smtproutes", "control/smtptls",
		"control/smtpauth", "control/virtualdomains", "control/locals", "control/cacerts.pem",
		"control/helohost", "control/localmaildirs" };
	static const char *const dirs[] = { "control" };

	if (fuzz_home[0] == '\0') {
		fuzz_make_dir(fuzz_home, sizeof fuzz_home, dirs, 1);
	}
	for (size_t i = 0; first && i < FUZZ_FILES + FUZZ_RELAY; i++) {
		fuzz_put_file(fuzz_home, names[i], i == 0 ? "mx.example.org\n" : NULL, 15);
	}
	fuzz_put_file(fuzz_home, names[what], text->len == 1 && text->p[0] == '-' ? NULL : text->p, text->len);
}

/* What is delivered, and how: nothing in the clear that should not be, no password to whoever answers. */
static void
fuzz_relay(const struct config *c)
{
	const struct relay_conf *r = &c->relay;

	CHECK(r->routes <= RELAY_ROUTES_MAX && r->tls_n <= RELAY_ROUTES_MAX && r->pins <= RELAY_PINS_MAX);
	for (unsigned i = 0; r->on && i < r->routes; i++) {
		int found = relay_route_find(r, r->route[i].domain);

		CHECK(found == (r->route[i].hops == 0 ? -1 : (int)i) && r->route[i].hops <= RELAY_HOPS_MAX);
		for (unsigned k = 0; k < r->route[i].hops; k++) {
			const struct relay_hop *h = &r->route[i].hop[k];

			CHECK(h->host[0] != '\0' && h->port > 0 && h->auth < (int)r->auths);
			CHECK(h->auth == -1 || (h->tls >= TLS_VERIFY && c->secrets->relay[h->auth][0] != '\0'));
			CHECK(!h->implicit || h->tls >= TLS_ENCRYPT);
			CHECK(h->tls != TLS_VERIFY || r->anchors > 0);
			CHECK(h->tls != TLS_PIN || (h->pins > 0 && h->pin + h->pins <= r->pins));
		}
	}
	for (unsigned i = 0; r->on && i < r->tls_n; i++) {
		CHECK(
		    relay_tls_find(r, r->tls[i].key) == &r->tls[i] && (r->tls[i].tls != TLS_VERIFY || r->anchors > 0));
	}
	for (size_t i = 0; !r->on && i < sizeof c->secrets->relay; i++) {
		CHECK(((const char *)c->secrets->relay)[i] == 0);
	}
	relay_virtual_find(r, "User@a.b.Example.net");
	relay_virtual_find(r, "nobody");
	CHECK(!r->on || r->maildirs.n <= LOCAL_MAILDIRS_MAX);
	for (size_t i = 0; r->on && i < r->maildirs.n; i++) {
		const char *key = r->maildirs.v[i];

		CHECK(key[strlen(key) + 1] == '/' && relay_maildir_find(r, key) < (int)r->maildirs.n);
		CHECK(relay_prepended(r, key) > 0 || relay_maildir_find(r, key) == (int)i);
	}
	(void)relay_maildir_find(r, "virt-User@a.b.Example.net");
	relay_route_find(r, "x.y.example.org");
	relay_tls_find(r, "[192.0.2.1]");
}

/* ---- single parsers ---- */

static void
fuzz_radius_conf(const void *p, size_t len)
{
	static struct secrets s;
	static struct radius_conf rc;

	len = len < sizeof s.file ? len : sizeof s.file - 1;
	if (len > 0) {
		memcpy(s.file, p, len);
	}
	CHECK((control_parse_radius(&rc, &s, len, &fuzz_diag, "radius.conf") == 0) == (rc.servers > 0));
	/* No secret stays where the file was read. */
	CHECK(s.file[0] == 0 && memcmp(s.file, s.file + 1, sizeof s.file - 1) == 0);
	for (unsigned i = 0; i < rc.servers; i++) {
		const struct radius_server *r = &rc.server[i];

		CHECK(r->name[0] != '\0' && r->port > 0 && s.radius[i][0] != '\0' &&
		    strlen(s.radius[i]) <= RADIUS_SECRET_MAX);
		CHECK(r->timeout >= 1 && r->timeout <= 60 && r->retries >= 0 && r->retries <= 10);
	}
}

/* Written and read again, an address is the same, and its block has it, and no neighbour. */
static void
fuzz_address(const char *s, size_t len)
{
	char text[ADDR_TEXT_MAX];
	struct addr_block b;
	struct addr a;

	if (addr_block_parse(&b, s, len) == 0) {
		addr_text(&b.net, text);
		CHECK(addr_parse(&a, text, strlen(text)) == 0 && memcmp(&a, &b.net, sizeof a) == 0);
		CHECK(addr_in_block(&a, &b));
		a.ip[15] ^= 1;
		CHECK(addr_in_block(&a, &b) == (b.bits < 128));
		a.ip[0] ^= 0x80;
		CHECK(addr_in_block(&a, &b) == (b.bits == 0));
	}
}

/* The same line, written from what it was taken for, is taken for the same. */
static void
fuzz_listen(char *line)
{
	struct listen_conf l, again;
	char text[ADDR_TEXT_MAX], mem[600] = "";

	if (control_parse_listen(&l, line, &fuzz_diag, "listen", 1) == -1) {
		return;
	}
	CHECK(l.port > 0 && (l.from[0] == '\0' || l.profile == PROFILE_INSIDE));
	addr_text(&l.addr, text);
	snprintf(mem, sizeof mem, "%s %s%s%s:%u%s%s", profile_name(l.profile), l.any || addr_is_v4(&l.addr) ? "" : "[",
	    l.any ? "*" : text, l.any || addr_is_v4(&l.addr) ? "" : "]", l.port,
	    l.from[0] == '\0' ? "" : " from=", l.from);
	CHECK(control_parse_listen(&again, mem, &fuzz_diag, "listen", 1) == 0);
	CHECK(again.profile == l.profile && again.port == l.port && again.any == l.any &&
	    strcmp(again.from, l.from) == 0);
	CHECK(memcmp(&again.addr, &l.addr, sizeof l.addr) == 0);
}

static void
fuzz_config_text(unsigned which, const struct input *in)
{
	static struct config c = { .home = "/home" };
	char *line = calloc(1, in->len + 1); /* of this size, for the sanitizer to guard */

	CHECK(line != NULL);
	if (in->len > 0) {
		memcpy(line, in->p, in->len);
	}
	if (which == 0) {
		fuzz_listen(line);
	} else if (which == 1) {
		if (control_parse_spool(&c, line, &fuzz_diag, "spool", 1) == 0) {
			CHECK(c.spool_dir[0] == '/' && strlen(c.spool_dir) < sizeof c.spool_dir);
		}
	} else if (which == 2) {
		fuzz_radius_conf(in->p, in->len);
	} else {
		fuzz_address(line, in->len);
	}
	free(line);
}

#endif
