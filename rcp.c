/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * radcheckpassword: checkpassword's interface (qmail-popup, Dovecot and others), with RADIUS behind it. Reads name and password from
 * descriptor 3, and runs the program it was given when they are right. Reads radius.conf, and so the secrets, as who calls it; root is given
 * up before the network is heard, for good: the program gets what is left. Never logs or passes on a password or a secret; the shared
 * mapping of a server is out of reach, so each call knows nothing of those before.
 */
#include "control.h"
#include "keeper.h"
#include "log.h"
#include "options.h"
#include "parse.h"
#include "priv.h"
#include "radius.h"
#include "server.h"
#include "str.h"
#include "warden.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#if RADCHECKPASSWORD

#define INPUT_MAX 512

enum { REFUSED = 1, MISUSED = 2, LATER = 111 };

struct caller {
	char input[INPUT_MAX + 1]; /* name NUL password NUL timestamp NUL */
	const char *user, *password;
	size_t user_len, password_len;
	char client[ADDR_TEXT_MAX]; /* as tcpserver and Dovecot tell, or empty */
	char called[ADDR_TEXT_MAX + 32];
	char home[512];
	struct session session; /* its name is all we use */
};

static int
misused(void)
{
	print(STDERR_FILENO,
	    "usage: radcheckpassword [-e] [-H home] program [argument ...]\n"
	    "name, password and timestamp, each with a NUL behind it, come from descriptor 3\n");
	return MISUSED;
}

/* Descriptor 3, to its end. 0, or an exit status. The timestamp means nothing here and may be missing, as some callers leave it out. */
static int
read_input(struct caller *c)
{
	size_t len = 0;
	const char *nul;

	for (;;) {
		ssize_t n = read(3, c->input + len, sizeof c->input - len);

		if (n == -1 && errno == EINTR) {
			continue;
		}
		if (n == -1) {
			return errno == EBADF ? MISUSED : LATER;
		}
		if (n == 0) {
			break;
		}
		len += (size_t)n;
		if (len > INPUT_MAX) {
			return REFUSED;
		}
	}
	close(3);
	c->user = c->input;
	nul = memchr(c->user, '\0', len);
	if (nul == NULL) {
		return MISUSED;
	}
	c->user_len = (size_t)(nul - c->user);
	c->password = nul + 1;
	nul = memchr(c->password, '\0', len - c->user_len - 1);
	if (nul == NULL) {
		return MISUSED;
	}
	c->password_len = (size_t)(nul - c->password);
	return 0;
}

/* Addresses from the environment, each only if it is one. */
static void
read_environment(struct caller *c)
{
	const char *client = getenv("TCPREMOTEIP");
	const char *local = getenv("TCPLOCALIP");
	const char *port = getenv("TCPLOCALPORT");
	char text[ADDR_TEXT_MAX];
	struct addr a;
	uint64_t n;

	if (client != NULL && addr_parse(&a, client, strlen(client)) == 0) {
		addr_text(&a, c->client);
	}
	str_copy(c->called, sizeof c->called, "checkpassword");
	if (local != NULL && port != NULL && addr_parse(&a, local, strlen(local)) == 0 &&
	    parse_u64(port, strlen(port), 65535, &n) == 0) {
		str_fmt(c->called, sizeof c->called, "checkpassword %s:%u", addr_text(&a, text), (unsigned)n);
	}
}

/* RCP_HOME for this user. 0, or -1 when the name is not one of a file in one directory. */
static int
find_home(struct caller *c, const char *top)
{
	static const char pattern[] = RCP_HOME;
	const char *u = pattern;
	struct buf b;

	if (c->user[0] == '.' || strchr(c->user, '/') != NULL) {
		return -1;
	}
	while (*u != '\0' && (u[0] != '%' || u[1] != 'u')) {
		u++;
	}
	buf_init(&b, c->home, sizeof c->home);
	/* cppcheck-suppress knownConditionTrueFalse ; not in every board's config.h */
	if (pattern[0] != '/') {
		buf_fmt(&b, "%s/", top);
	}
	buf_add(&b, pattern, (size_t)(u - pattern));
	if (*u != '\0') {
		buf_add(&b, c->user, c->user_len);
		buf_str(&b, u + 2);
	}
	buf_cstr(&b);
	return b.full ? -1 : 0;
}

/* Root is for reading radius.conf, and for becoming somebody else. 0, or an exit status. */
static int
give_up_root(void)
{
	if (geteuid() == 0) {
		uid_t uid;
		gid_t gid;

		if (priv_find(RCP_USER, RCP_GROUP, &uid, &gid) == -1) {
			log_msg(LOG_ERR, "config",
			    "no user %s or group %s for mailboxes (RCP_USER, RCP_GROUP), or it is root", RCP_USER,
			    RCP_GROUP);
			return LATER;
		}
		priv_become(uid, gid);
	}
	/* The secrets are in memory until the program is run, and others may be of this user. */
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	return 0;
}

static void
ask(struct config *conf, struct caller *c, struct radius_answer *a)
{
	struct radius_query q = { .user = c->user,
		.password = c->password,
		.client = c->client,
		.called = c->called,
		.nas = conf->me,
		.session = c->session.sid };
	struct radius_addresses addresses;
	struct share *sh = share_open(-1);
	struct house house = { .config = conf, .share = sh, .jail = -1, .spool_dir = -1, .null = -1 };

	a->result = RADIUS_LATER;
	if (sh == NULL) {
		a->why = strerror(errno);
		return;
	}
	radius_resolve(&conf->radius, &addresses);
	radius_set_addresses(sh, 0, &addresses);
	keeper_alone(&house);
	radius_ask(&conf->radius, conf->secrets, sh, 0, &q, a);
	keeper_end();
	if (a->result == RADIUS_LATER) {
		a->why = radius_trouble_text(a->trouble);
	}
}

static void
tell(const struct config *conf, const struct caller *c, const struct radius_answer *a)
{
	static const char *const words[] = {
		[RADIUS_ACCEPT] = "accept", [RADIUS_REJECT] = "reject", [RADIUS_LATER] = "later"
	};
	struct log_line l;

	log_begin(&l, a->result == RADIUS_ACCEPT ? LOG_INFO : LOG_NOTICE, "auth");
	log_str(&l, "sid", c->session.sid);
	log_str(&l, "client", c->client);
	log_mem(&l, "user", c->user, c->user_len);
	log_str(&l, "mech", "checkpassword");
	log_str(&l, "result", words[a->result]);
	radius_log_answer(&l, &conf->radius, a);
	log_end(&l);
}

/* Our environment, but for USER, HOME and SHELL, which are the mailbox's. NULL: no memory. */
static char **
make_environment(const struct caller *c)
{
	static char user[AUTH_USER_MAX + 8], home[sizeof c->home + 8], shell[] = "SHELL=" RCP_SHELL;
	size_t n = 0;
	char **env;

	while (environ[n] != NULL) {
		n++;
	}
	env = calloc(n + 4, sizeof *env);
	if (env == NULL) {
		return NULL;
	}
	env[0] = str_fmt(user, sizeof user, "USER=%s", c->user);
	env[1] = str_fmt(home, sizeof home, "HOME=%s", c->home);
	env[2] = shell;
	n = 3;
	for (char **e = environ; *e != NULL; e++) {
		if (strncmp(*e, "USER=", 5) != 0 && strncmp(*e, "HOME=", 5) != 0 && strncmp(*e, "SHELL=", 6) != 0) {
			env[n++] = *e;
		}
	}
	return env;
}

/* Does not come back but with an exit status. */
static int
run(const struct caller *c, char **argv)
{
	char **env = make_environment(c);
	char **before = environ;
	const char *what = c->home;

	if (env != NULL && chdir(c->home) == 0) {
		environ = env;
		what = argv[0];
		execvp(argv[0], argv);
	}
	log_msg(LOG_ERR, "config", "login accepted, but %s: %s", what, strerror(errno));
	environ = before;
	free(env);
	return LATER;
}

/* Warnings are for `check`: here they would come with each login. */
static void
tell_finding(struct diag *d, enum diag_level level, const char *file, int line, const char *text)
{
	if (level != DIAG_WARN) {
		diag_to_log(d, level, file, line, text);
	}
}

static int
check(struct caller *c, const char *top, struct radius_answer *a)
{
	struct diag d = { .emit = tell_finding };
	struct config *conf;
	int rc;

	session_name(&c->session);
	read_environment(c);
	conf = config_load_radius(top, &d);
	rc = conf == NULL ? LATER : give_up_root();
	if (rc == 0) {
		a->result = RADIUS_REJECT;
		a->server = -1;
		if (!parse_login_ok(c->user, c->user_len, c->password, c->password_len)) {
			a->why = "name or password is empty, too long or not text";
		} else if (find_home(c, conf->home) == -1) {
			a->why = "the name cannot be that of a directory";
		} else {
			ask(conf, c, a);
		}
		tell(conf, c, a);
	}
	/* Its secrets, too. */
	config_free(conf);
	return rc;
}

int
radcheckpassword_main(int argc, char **argv)
{
	static const struct timespec delay = { AUTH_FAIL_DELAY_MS / 1000, AUTH_FAIL_DELAY_MS % 1000 * 1000000L };
	static struct caller c;
	struct radius_answer a = { 0 };
	const char *top = NULL;
	enum log_target target = LOG_TO_SYSLOG;
	struct options o;
	int opt, rc;

	(void)argc;
	options_begin(&o, argv);
	while ((opt = options_next(&o, "eH:")) != 0) {
		if (opt == 'e') {
			target = LOG_TO_STDERR;
		} else if (opt == 'H') {
			top = o.value;
		} else {
			return misused();
		}
	}
	/* Set-user-id, anybody could try passwords with our secret, and name another home for it. */
	if (o.word[0] == NULL || getauxval(AT_SECURE) != 0) {
		return misused();
	}
	rc = read_input(&c);
	if (rc == 0) {
		log_open(target);
		rc = check(&c, top, &a);
	} else if (rc == MISUSED) {
		misused();
	}
	/* The name stays. */
	explicit_bzero(c.input + c.user_len + 1, sizeof c.input - c.user_len - 1);
	if (rc != 0 || a.result == RADIUS_LATER) {
		return rc != 0 ? rc : LATER;
	}
	if (a.result == RADIUS_REJECT) {
		nanosleep(&delay, NULL);
		return REFUSED;
	}
	return run(&c, o.word);
}

#endif
