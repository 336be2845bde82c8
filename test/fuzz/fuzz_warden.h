/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * A warden for targets that have one: its configuration, a spool in a temporary directory ($TMPDIR, best on a tmpfs), RADIUS by the first
 * letter of the password, and what must be true of its answers and of what it leaves behind; see also fuzz_model.h.
 * Needs -Wl,--wrap=radius_ask,--wrap=log_end,--wrap=time
 */
#ifndef MAILSTILE_TEST_FUZZ_WARDEN_H
#define MAILSTILE_TEST_FUZZ_WARDEN_H

#include "fuzz_dir.h"
#include "fuzz_model.h"
#include "radius.h"
#include "users.h"
#include "wardenint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>

void __wrap_radius_ask(const struct radius_conf *rc, const struct secrets *s, struct share *sh, uint32_t generation,
    const struct radius_query *q, struct radius_answer *a);
void __wrap_log_end(struct log_line *l);
time_t __wrap_time(time_t *t);

static struct warden *warden;

/* 'y': accept, 'l': accept with limits as the rest says, 'n': reject; otherwise nobody can say. */
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
	a->service = -1;
	a->server = q->password[0] == 'y' || q->password[0] == 'l' ? 0 : -1;
	a->result = a->server == 0 ? RADIUS_ACCEPT : q->password[0] == 'n' ? RADIUS_REJECT : RADIUS_LATER;
#if ACCOUNTS
	if (q->password[0] == 'l' && q->password[1] == ':') {
		/* A Filter-Id. */
		a->policy.len = (uint16_t)(password + 5);
		a->policy.attributes[0] = 11;
		a->policy.attributes[1] = (uint8_t)a->policy.len;
		memcpy(a->policy.attributes + 2, "mail:", 5);
		memcpy(a->policy.attributes + 7, q->password + 2, password - 2);
	} else if (q->password[0] == 'l') {
		/* Ours. */
		a->policy.len = (uint16_t)(password + 5);
		memcpy(a->policy.attributes, "\x1a\0\0\0\xff\xfa", 6);
		a->policy.attributes[1] = (uint8_t)a->policy.len;
		memcpy(a->policy.attributes + 6, q->password + 1, password - 1);
	}
#endif
	str_copy(a->message, sizeof a->message, q->password + 1);
}

/* The day, and the minute, in which messages are counted. */
time_t
/* cppcheck-suppress constParameter; it is time()'s */
__wrap_time(time_t *t)
{
	CHECK(t == NULL);
	return (time_t)BUILD_EPOCH + 1000;
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
		.radius = { .servers = 1, .server = { { .name = "192.0.2.1", .port = 1812 } } },
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

static char fuzz_file[1 << 17];

/* A whole file into fuzz_file, NUL-terminated, and away with its name. */
static char *
fuzz_take_file(const char *dir, const char *name, size_t *len)
{
	char path[300];
	long n;

	CHECK(snprintf(path, sizeof path, "%s/%s", dir, name) < (int)sizeof path);
	n = file_read(path, fuzz_file, sizeof fuzz_file - 1);
	CHECK(n != -1 && unlink(path) == 0);
	fuzz_file[n] = '\0';
	*len = (size_t)n;
	return fuzz_file;
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

/* The trace at the head of a message: lines of the kinds we write, of printable text. Returns how many octets are none of it. */
static size_t
fuzz_check_trace(const char *text, size_t len)
{
	static const char *const kinds[] = { "Received: ", "  by mx.example.org with ", "Return-Path: <",
		"Delivered-To: " };
	size_t lines = 0;

	for (const char *end = text + len, *lf; text < end; text = lf + 1, lines++) {
		size_t k = 0;

		lf = memchr(text, '\n', (size_t)(end - text));
		CHECK(lf != NULL);
		while (k < 4 && strncmp(text, kinds[k], strlen(kinds[k])) != 0) {
			k++;
		}
		CHECK(k < 4);
		for (const char *p = text; p < lf; p++) {
			CHECK((uint8_t)*p >= 32 && *p != 127 && (k > 1 || *p > 0));
		}
	}
	return lines;
}

static void
fuzz_check_queued(size_t i)
{
	char name[32];
	size_t len;
	const char *text;

	snprintf(name, sizeof name, "%llu", (unsigned long long)model.accepted[i].id);
	text = fuzz_take_file("intd", name, &len);
	fuzz_check_envelope(text, len);
	text += strlen(text) + 1; /* u */
	len -= (size_t)(text - fuzz_file);
	text += strlen(text) + 1; /* p */
	len -= strlen(fuzz_file + strlen(fuzz_file) + 1) + 1;
	CHECK(model_sum(text + 1, len - 1, 0) == model.accepted[i].sum);
	fuzz_take_file("todo", name, &len);
	text = fuzz_take_file("mess/0", name, &len);
	CHECK(len > 10 && memcmp(text, "Received: ", 10) == 0 && text[len - 1] == '\n');
}

/* Look at the files of new/, and remove them. Returns how many there were. */
static unsigned
fuzz_check_maildir(void)
{
	DIR *d = opendir("new");
	const struct dirent *de;
	unsigned n = 0;

	CHECK(d != NULL);
	while ((de = readdir(d)) != NULL) {
		if (de->d_name[0] != '.') {
			size_t len;
			const char *text = fuzz_take_file("new", de->d_name, &len);

			CHECK(len > 14 && memcmp(text, "Return-Path: <", 14) == 0 && text[len - 1] == '\n');
			n++;
		}
	}
	closedir(d);
	return n;
}

/* Look at what was accepted, and remove it. Nothing else may be there. */
static void
fuzz_spool_check(void)
{
	unsigned want = 0;

	CHECK(model.messages <= MODEL_ACCEPTED_MAX);
	for (size_t i = 0; i < model.messages; i++) {
		if (warden->spool.kind == SPOOL_QUEUE) {
			fuzz_check_queued(i);
		}
		want += model.accepted[i].files;
	}
	if (warden->spool.kind != SPOOL_QUEUE && want > 0) {
		CHECK(fuzz_check_maildir() == want);
	}
	for (size_t i = 0; i < sizeof fuzz_dirs / sizeof fuzz_dirs[0]; i++) {
		if (i != 0) { /* mess holds mess/0 */
			CHECK(rmdir(fuzz_dirs[i]) == 0 && mkdir(fuzz_dirs[i], 0700) == 0);
		}
	}
}

/* ---- a session ---- */

/* What the warden sent last; its length is 0 when it was silent. */
static struct {
	size_t len;
	int fd;
	union msg_any m;
} fuzz_answer;
static size_t fuzz_head; /* octets of the trace in the message file */

/*
 * Begin one in the spool's directory; the warden answers to `sock`. Flags: profile, 4 relay client, 8 TLS key, 16 size limit, 32 and 64 kind
 * of spool, both of them one that cannot be written, 128 forced sender; 4 and 128 also what goes behind recipients, 4 without 8 a name.
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
	/* Nobody has sent anything before, or failed. What the last session left of TLS may stay: fuzz_tls.c sees to it. */
#if ACCOUNTS
	CHECK(users_use(memfd_create("users", MFD_CLOEXEC)) == 0);
#endif
	memset(h->share->penalty, 0, sizeof h->share->penalty);
#if GUESSING
	memset(h->share->guessed, 0, sizeof h->share->guessed);
#endif
	conf.profile = (enum profile)(flags % PROFILE_COUNT);
	str_copy(conf.from, sizeof conf.from, (flags & 128) != 0 ? "printer@example.org" : "");
	se.client_policy.relay = (flags & 4) != 0;
	str_copy(se.client_policy.append, sizeof se.client_policy.append, (flags & 132) == 132 ? ".relay.example" : "");
	se.client_policy.databytes = (flags & 16) != 0 ? 64 : 0;
	se.host = (flags & 12) == 4 ? "client (x).example\n" : NULL;
	se.info = (flags & 12) == 4 ? "in\rfo" : NULL;
	h->config->chain.key_type = (flags & 8) != 0 ? BR_KEYTYPE_EC : 0;
	h->spool.kind = (enum spool_kind)((flags >> 5 & 3) % 3);
	h->spool.split = (flags & 96) == 96 ? 1000003 : 1; /* of which there is but one */
	if (warden != NULL) {
		memset(warden, 0, offsetof(struct warden, env.to)); /* all but the recipients, which are many */
		memset(&warden->why, 0, sizeof *warden - offsetof(struct warden, why));
	}
	warden = warden_for_test(h, &se, sock);
	model_begin((flags & 8) != 0, se.client_policy.relay, conf.from, se.client_policy.append);
}

/* Strangers may send to the domains of rcpthosts, on port 25. */
static void
fuzz_check_right(uint32_t type)
{
	const char *last = warden->env.to + warden->env.len - 2;

#if ACCOUNTS
	if (warden->loggedin) {
		CHECK(limits_from_ok(&warden->limits, warden->env.sender));
	}
	if (warden->loggedin && !warden->limits.relay) {
		CHECK(warden->info.profile == PROFILE_SMTP);
	} else
#endif
	    if (warden->loggedin ||
		(warden->session->client_policy.relay && warden->info.profile != PROFILE_SUBMISSION &&
		    warden->info.profile != PROFILE_SUBMISSIONS)) {
		return;
	}
	CHECK(warden->info.profile == PROFILE_SMTP);
	if (type == MSG_RCPT) {
		while (last > warden->env.to && last[-1] != '\0') {
			last--;
		}
		last = strrchr(last, '@');
		CHECK(last != NULL &&
		    (ascii_strcasecmp(last, "@example.org") == 0 || ascii_strcasecmp(last, "@mx.example.org") == 0 ||
			(strlen(last) > 12 && ascii_strcasecmp(last + strlen(last) - 12, ".example.net") == 0)));
	}
}

/* What warden.c promises about its answer to request `type`, at the start of p[0..len). Returns the answer's length. */
static size_t
fuzz_check_answer(uint32_t type, const void *p, size_t len)
{
	union msg_any a;
	size_t size = type == MSG_SIGN ? sizeof a.sign_reply
	    : type == MSG_TLSGET       ? sizeof a.tlssession
	    : type == MSG_COMMIT       ? sizeof a.commit_reply
				       : sizeof a.verdict;

	CHECK(len >= size);
	memcpy(&a, p, size);
	CHECK(a.type == type);
	if (type >= MSG_AUTH) {
		CHECK(a.verdict.verdict >= V_OK && a.verdict.verdict < V_SKIPPED);
		if (a.verdict.verdict == V_OK && type != MSG_AUTH) {
			fuzz_check_right(type);
		}
	}
	return size;
}

/* The trace is in the message file now, and nothing else. */
static void
fuzz_check_head(void)
{
	ssize_t n = pread(warden->spool.fd, fuzz_file, sizeof fuzz_file, 0);

	CHECK(n > 0);
	fuzz_head = (size_t)n;
	CHECK(fuzz_check_trace(fuzz_file, fuzz_head) >= 3);
}

/*
 * One request of a message, which has `rc`, and the answers to it and those behind it. Returns the length of the answer; -1 when it was against
 * the rules. *refused: one before it was.
 */
static long
fuzz_check_request(const union msg_any *m, const uint8_t *p, size_t len, int *refused)
{
	union msg_any a = { .verdict = { m->type, V_OK } };
	size_t n = 0;

	if (!model_in_place(m->type) && *refused) {
		CHECK(len >= sizeof a.verdict &&
		    memcmp(p, &(struct msg_verdict){ m->type, V_SKIPPED }, sizeof a.verdict) == 0);
		return sizeof a.verdict;
	}
	if (!model_in_place(m->type) || !model_allows(m)) {
		return -1;
	}
	if (m->type != MSG_TLSPUT && m->type != MSG_TLSUP && m->type != MSG_RESET && m->type != MSG_NOTE) {
		n = fuzz_check_answer(m->type, p, len);
		memcpy(&a, p, n);
	}
	*refused |= m->type >= MSG_AUTH && m->type <= MSG_RCPT && a.verdict.verdict != V_OK;
	model_after(m, &a, m->type < MSG_AUTH ? V_OK : (enum verdict)a.verdict.verdict, warden->spool.kind);
	return (long)n;
}

/* Hand the warden a message and see that it does what the model does. */
static int
fuzz_dispatch(const void *p, size_t len)
{
	int rc, refused = 0, broken = !model_message(p, len);
	size_t at = 0;
	union msg_any m = { 0 };

	fuzz_answer.len = 0;
	fuzz_answer.fd = -1;
	rc = warden_dispatch(warden, p, len);
	CHECK(rc == -1 ? fuzz_answer.len == 0 && fuzz_answer.fd == -1 : rc == 0);
	if (rc == -1 && !broken) { /* what it would have said to the requests before the bad one */
		fuzz_answer.len = warden->out_len;
		memcpy(&fuzz_answer.m, warden->out, sizeof fuzz_answer.m);
	}
	for (size_t pos = 0; pos < len && !broken; pos += fuzz_request_size[m.type]) {
		long n;

		memcpy(&m, (const uint8_t *)p + pos, sizeof m.type);
		memcpy(&m, (const uint8_t *)p + pos, fuzz_request_size[m.type]);
		n = fuzz_check_request(&m, (const uint8_t *)&fuzz_answer.m + at, fuzz_answer.len - at, &refused);
		broken = n == -1;
		at += n > 0 ? (size_t)n : 0;
	}
	CHECK(rc == (broken ? -1 : 0));
	if (rc == 0) {
		CHECK(
		    at == fuzz_answer.len && (fuzz_answer.fd != -1) == (m.type == MSG_DATA && model.state == WS_DATA));
		model_compare(warden);
		if (fuzz_answer.fd != -1) {
			fuzz_check_head();
		}
	}
	return rc;
}

static void
fuzz_warden_end(void)
{
	spool_abort(&warden->spool);
	fuzz_spool_check();
	CHECK(warden_why(warden) != NULL && fchdir(fuzz_home) == 0);
}

#endif
