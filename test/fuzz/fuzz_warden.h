/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * A warden for targets that have one: its configuration, a spool in a temporary directory ($TMPDIR, best on a tmpfs), RADIUS by the first
 * letter of the password, and what must be true of its answers and of what it leaves behind.
 * Needs -Wl,--wrap=radius_ask,--wrap=log_end
 */
#ifndef MAILSTILE_TEST_FUZZ_WARDEN_H
#define MAILSTILE_TEST_FUZZ_WARDEN_H

#include "fuzz_dir.h"
#include "radius.h"
#include "wardenint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>

void __wrap_radius_ask(const struct radius_conf *rc, const struct secrets *s, struct share *sh, uint32_t generation,
    const struct radius_query *q, struct radius_answer *a);
void __wrap_log_end(struct log_line *l);

static struct warden *warden;

/* 'y': accept, 'n': reject; otherwise nobody can say. */
void
__wrap_radius_ask(const struct radius_conf *rc, const struct secrets *s, struct share *sh, uint32_t generation,
    const struct radius_query *q, struct radius_answer *a)
{
	size_t user = strlen(q->user), password = strlen(q->password);

	(void)rc;
	(void)s;
	(void)sh;
	(void)generation;
	CHECK(user >= 1 && user <= AUTH_USER_MAX && password >= 1 && password <= AUTH_PASSWORD_MAX);
	memset(a, 0, sizeof *a);
	a->server = a->service = -1;
	a->result = q->password[0] == 'y' ? RADIUS_ACCEPT : q->password[0] == 'n' ? RADIUS_REJECT : RADIUS_LATER;
	str_copy(a->message, sizeof a->message, q->password + 1);
}

/* A log line is one line of printable text, whatever is in it. */
void
__wrap_log_end(struct log_line *l)
{
	CHECK(l->len < sizeof l->mem);
	for (size_t i = 0; i < l->len; i++) {
		CHECK(l->mem[i] >= 32 && l->mem[i] < 127);
	}
}

static struct house *
fuzz_house(void)
{
	static char net[] = ".example.net", org[] = "example.org", spam[] = "@spam.example";
	static char *hosts[] = { net, org }, *bad[] = { spam };
	static unsigned char x[32] = { 1 };
	static struct secrets secrets = { .key = { .type = BR_KEYTYPE_EC, .ec = { BR_EC_secp256r1, x, sizeof x } } };
	static struct config config = { .me = "mx.example.org",
		.greeting = "mx.example.org",
		.have_rcpthosts = 1,
		.rcpthosts = { hosts, 2, NULL },
		.badmailfrom = { bad, 1, NULL },
		.spool_prefix = "box-",
		.secrets = &secrets };
	static struct house house = { .config = &config, .spool = { .fd = -1, .split = 1, .dir = -1 } };

	if (house.share == NULL) {
		house.share = share_open(-1);
		CHECK(house.share != NULL);
	}
	return &house;
}

/* ---- the spool ---- */

static const char *const fuzz_dirs[] = { "mess", "mess/0", "pid", "intd", "todo", "tmp", "new" };
static int fuzz_spool_dir = -1, fuzz_home = -1;

static void
fuzz_spool_make(void)
{
	char dir[256];

	fuzz_make_dir(dir, sizeof dir, fuzz_dirs, sizeof fuzz_dirs / sizeof fuzz_dirs[0]);
	fuzz_home = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fuzz_spool_dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK(fuzz_home != -1 && fuzz_spool_dir != -1);
}

/* A whole file into a static buffer, NUL-terminated, and away with its name. */
static char *
fuzz_take_file(const char *dir, const char *name, size_t *len)
{
	static char text[1 << 17];
	char path[300];
	long n;

	CHECK(snprintf(path, sizeof path, "%s/%s", dir, name) < (int)sizeof path);
	n = file_read(path, text, sizeof text - 1);
	CHECK(n != -1 && unlink(path) == 0);
	text[n] = '\0';
	*len = (size_t)n;
	return text;
}

/* u<uid> p<pid> F<sender> T<recipient>..., each with a NUL. */
static void
fuzz_check_envelope(const char *p, size_t len)
{
	const char *kinds = "upFT";

	CHECK(len > 0 && p[len - 1] == '\0');
	for (const char *end = p + len; p < end; p += strlen(p) + 1) {
		CHECK(*p == *kinds && (*p == 'F' || p[1] != '\0') && (*p != 'T' || strchr(p, '@') != NULL));
		kinds += *kinds != 'T';
	}
	CHECK(*kinds == 'T');
}

static void
fuzz_check_file(const char *dir, const char *name)
{
	size_t len;
	const char *text;

	if (strcmp(dir, "todo") == 0) {
		text = fuzz_take_file("intd", name, &len);
		fuzz_check_envelope(text, len);
		fuzz_take_file("todo", name, &len);
		text = fuzz_take_file("mess/0", name, &len);
		CHECK(len > 10 && memcmp(text, "Received: ", 10) == 0 && text[len - 1] == '\n');
	} else {
		text = fuzz_take_file(dir, name, &len);
		CHECK(len > 14 && memcmp(text, "Return-Path: <", 14) == 0 && text[len - 1] == '\n');
	}
}

/* Look at what was accepted, and remove it. Nothing else may be there. */
static void
fuzz_spool_check(void)
{
	for (unsigned i = 0; i < 2; i++) {
		const char *dir = i == 0 ? "todo" : "new";
		DIR *d;
		const struct dirent *de;

		if (rmdir(dir) == 0) {
			CHECK(mkdir(dir, 0700) == 0);
			continue;
		}
		d = opendir(dir);
		CHECK(d != NULL);
		while ((de = readdir(d)) != NULL) {
			if (de->d_name[0] != '.') {
				fuzz_check_file(dir, de->d_name);
			}
		}
		closedir(d);
	}
	for (unsigned i = 1; i < sizeof fuzz_dirs / sizeof fuzz_dirs[0]; i++) {
		CHECK(rmdir(fuzz_dirs[i]) == 0 && mkdir(fuzz_dirs[i], 0700) == 0);
	}
}

/* ---- a session ---- */

/*
 * Begin one in the spool's directory; the warden answers to `sock`. Flags: profile, 4 relay client, 8 TLS key, 16 size limit, 32 and 64 kind
 * of spool, both of them one that cannot be written, 128 forced sender.
 */
static void
fuzz_warden_begin(unsigned flags, int sock)
{
	static struct listen_conf conf;
	static struct session se = { .listen = &conf, .client = { { 0x20, 1, 0xd, 0xb8 } }, .local_port = 587 };
	struct house *h = fuzz_house();

	if (fuzz_spool_dir == -1) {
		fuzz_spool_make();
	}
	CHECK(fchdir(fuzz_spool_dir) == 0);
	conf.profile = (enum profile)(flags % PROFILE_COUNT);
	str_copy(conf.from, sizeof conf.from, (flags & 128) != 0 ? "printer@example.org" : "");
	se.client_policy.relay = (flags & 4) != 0;
	se.client_policy.databytes = (flags & 16) != 0 ? 64 : 0;
	h->config->chain.key_type = (flags & 8) != 0 ? BR_KEYTYPE_EC : 0;
	h->spool.kind = (enum spool_kind)((flags >> 5 & 3) % 3);
	h->spool.split = (flags & 96) == 96 ? 1000003 : 1; /* of which there is but one */
	if (warden != NULL) {
		memset(warden, 0, offsetof(struct warden, env.to));
	}
	warden = warden_for_test(h, &se, sock);
}

/* What warden.c promises when it answers request `type` with m[0..len). */
static UNUSED void
fuzz_check_answer(uint32_t type, const void *m, size_t len)
{
	const union msg_any *a = m;
	const char *last = warden->env.to + warden->env.len - 2;

	CHECK(len ==
	    (type == MSG_SIGN            ? sizeof a->sign_reply
		    : type == MSG_TLSGET ? sizeof a->tlssession
		    : type == MSG_COMMIT ? sizeof a->commit_reply
					 : sizeof a->verdict));
	CHECK(a->type == type);
	if (type < MSG_AUTH) {
		return;
	}
	CHECK(a->verdict.verdict >= V_OK && a->verdict.verdict < V_COUNT);
	if (a->verdict.verdict == V_OK && !warden->loggedin && !warden->session->client_policy.relay) {
		/* Strangers: to the domains of rcpthosts, on port 25. */
		CHECK(warden->info.profile == PROFILE_SMTP || type == MSG_AUTH);
		if (type == MSG_RCPT) {
			while (last > warden->env.to && last[-1] != '\0') {
				last--;
			}
			last = strrchr(last, '@');
			CHECK(
			    last != NULL && (ascii_strcasecmp(last, "@example.org") == 0 || strchr(last, '.') != NULL));
		}
	}
}

/* The same for all answers to a message of requests p[0..len). Returns the type of the last request. */
static UNUSED uint32_t
fuzz_check_answers(const void *p, size_t len, const void *m, size_t got)
{
	uint32_t type = 0;

	for (size_t pos = 0, n; pos < len; pos += n) {
		const struct msg_verdict *v = m;

		memcpy(&type, (const uint8_t *)p + pos, sizeof type);
		n = fuzz_request_size[type];
		if (n == len) {
			fuzz_check_answer(type, m, got);
			break;
		}
		CHECK(got >= sizeof *v && (v->verdict != V_OK || pos + n == len || type != MSG_DATA));
		/* Who may send to whom was right at the time; the envelope may have changed since. */
		CHECK(v->type == type && v->verdict >= V_OK && v->verdict < V_COUNT);
		m = v + 1;
		got -= sizeof *v;
	}
	return type;
}

static UNUSED void
fuzz_warden_end(void)
{
	spool_abort(&warden->spool);
	fuzz_spool_check();
	CHECK(warden_why(warden) != NULL && fchdir(fuzz_home) == 0);
}

#endif
