/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * `mailstile console`: set-up by questions on a serial line, then a menu. Each answer is a change of its own (settings_change()), refused with
 * the reason or whole on the disk, so an end at any point leaves nothing half-written. Nothing that is typed becomes part of a command.
 */
#include "console.h"

#include "config.h"

#if CONSOLE

#include "consoleint.h"
#include "ctl.h"
#include "ctlfile.h"
#include "options.h"
#include "selftest.h"
#include "server.h"
#include "settings.h"
#include "str.h"
#include "users.h"

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NETWORK (sizeof NETWORK_FILE > 1)

struct console console;

/* Change one key; `dry`: only see whether that would be refused. The status of settings_change(). */
static int
change(const struct setting *s, const char *text, size_t len, int dry)
{
	struct settings_home h;
	int rc = 111;

	if (settings_open(&h, console.home) == 0) {
		h.dry = dry;
		rc = settings_change(&h, s, text, len);
		settings_close(&h);
	}
	return rc;
}

/* Octets of a control file, of any that counts for it. -1: there is none. */
static off_t
size_of(const char *key)
{
	char path[512];
	struct stat st;

	return stat(ctl_path(console.home, key, path, sizeof path), &st) == 0 ||
		(strcmp(key, "radius.conf") == 0 && stat(RADIUS_CONF, &st) == 0)
	    ? st.st_size
	    : -1;
}

static int
is_set(const char *key)
{
	return size_of(key) != -1;
}

/* Who says where to listen may have nobody log in. */
static int
is_set_up(void)
{
	return is_set("me") && (is_set("radius.conf") || is_set("listen"));
}

/* An answer's words, each a line of the file. */
static void
words_to_lines(const char *answer, struct buf *b)
{
	for (const char *p = answer; *p != '\0';) {
		size_t n = strcspn(p, " ,");

		if (n > 0) {
			buf_add(b, p, n);
			buf_ch(b, '\n');
		}
		p += n + (p[n] != '\0');
	}
}

/* ---- questions ---- */

enum line_result
console_secret(const char *what, char *dst, size_t size)
{
	char again[ANSWER_MAX];
	enum line_result r;
	int same;

	for (;;) {
		print(STDOUT_FILENO, "%s: it is not shown.\n", what);
		r = line_ask("  once:  ", dst, size, 1);
		if (r != LINE_OK) {
			return r;
		}
		r = line_ask("  again: ", again, sizeof again, 1);
		same = r == LINE_OK && strcmp(dst, again) == 0;
		explicit_bzero(again, sizeof again);
		if (r != LINE_OK) {
			explicit_bzero(dst, size);
			return r;
		}
		if (same && dst[0] != '\0' && strchr(dst, ' ') == NULL) {
			return LINE_OK;
		}
		print(STDOUT_FILENO,
		    same ? "It may not be empty, and may hold no space.\n" : "These were not the same.\n");
	}
}

static void
take_words(struct buf *b, const char *answer, const char *secret)
{
	(void)secret;
	words_to_lines(answer, b);
}

static void
take_line(struct buf *b, const char *answer, const char *secret)
{
	(void)secret;
	buf_fmt(b, "%s\n", answer);
}

static void
take_radius(struct buf *b, const char *answer, const char *secret)
{
	for (const char *p = answer; *p != '\0';) {
		size_t n = strcspn(p, " ,");

		if (n > 0) {
			buf_add(b, p, n);
			buf_fmt(b, " %s\n", secret);
		}
		p += n + (p[n] != '\0');
	}
}

#if RELAY

static void
take_smarthost(struct buf *b, const char *answer, const char *secret)
{
	(void)secret;
	buf_fmt(b, ":%s\n", answer);
}

static void
take_login(struct buf *b, const char *answer, const char *secret)
{
	buf_fmt(b, "%s:%s\n", answer, secret);
}

#endif

#if ACCOUNTS

static void
take_limits(struct buf *b, const char *answer, const char *secret)
{
	(void)secret;
	buf_fmt(b, ":%s\n", answer);
}

#endif

/*
 * This host has a name. If it is its first one, no qmail is here to fetch mail for it: that goes back, unless something else was said of it. And
 * the certificate may be for the former name.
 */
static void
named(int first)
{
	const struct setting *s = setting_find("localdelivery");

	if (first && s != NULL && !is_set(s->key) && !is_set("locals") && !is_set("localmaildirs") &&
	    change(s, "bounce\n", 7, 0) == 0) {
		print(STDOUT_FILENO, "Mail for this host itself goes back to its sender (localdelivery: bounce).\n");
	}
	console_renew();
}

static const struct question {
	const char *key;
	const char *text;
	const char *secret; /* a secret is asked for, too */
	void (*take)(struct buf *b, const char *answer, const char *secret);
	void (*then)(int first); /* when it is taken; `first`: there was none */
	const char *needs;       /* not asked without that one */
} questions[] = {
	{ "me", "Full name of this host, as in mail.example.net", NULL, take_line, named, NULL },
	{ "radius.conf", "RADIUS servers, as in 192.0.2.1:1812 192.0.2.2", "Their shared secret", take_radius, NULL,
	    NULL },
#if RELAY
	{ "smtproutes", "Smarthost that all mail goes to, as in smtp.example.net:587", NULL, take_smarthost, NULL,
	    NULL },
	{ "smtpauth", "Login there, as in smtp.example.net:user", "Its password", take_login, NULL, "smtproutes" },
#endif
	{ "rcpthosts", "Domains that strangers may send to, as in example.net .example.net", NULL, take_words, NULL,
	    NULL },
#if ACCOUNTS
	{ "userlimits", "Limits of every login, as in day=500,rcpt=1000,rate=20", NULL, take_limits, NULL, NULL },
	{ "alertto", "Alert address, told of logins that send too much", NULL, take_line, NULL, NULL },
#endif
};

/* What there is, in few words, and no secret of it. */
static const char *
present(const struct question *q, const struct setting *s, char dst[80])
{
	char path[512], text[64] = "";
	size_t n = 0;
	int fd;

	if (!is_set(q->key)) {
		return "none yet";
	}
	if (s->secret) {
		return "there is one";
	}
	fd = open(ctl_path(console.home, q->key, path, sizeof path), O_RDONLY | O_CLOEXEC);
	if (fd != -1) {
		ssize_t got = read(fd, text, sizeof text - 1);

		n = got > 0 ? (size_t)got : 0;
		close(fd);
	}
	for (size_t i = 0; i < n; i++) {
		text[i] = text[i] == '\n' ? ' ' : text[i] < ' ' || text[i] > '~' ? '?' : text[i];
	}
	while (n > 0 && text[n - 1] == ' ') {
		n--;
	}
	if (n > 50) {
		n = 50;
		memcpy(text + n - 3, "...", 3);
	}
	text[n] = '\0';
	return str_fmt(dst, 80, "now %s%s", n == 0 ? "empty" : text + (text[0] == ':'),
	    strstr(text, ".localdomain") != NULL ? ", a placeholder" : "");
}

/* Change what the question is about. `dry`: as change(). */
static int
take(const struct question *q, const struct setting *s, const char *answer, const char *secret, int dry)
{
	char mem[4096];
	struct buf b;
	int rc;

	buf_init(&b, mem, sizeof mem);
	q->take(&b, answer, secret);
	rc = b.full ? 100 : change(s, b.p, b.len, dry);
	explicit_bzero(mem, sizeof mem);
	return rc;
}

/* Until the answer is taken, or there is none: an empty one leaves things as they are. */
static enum line_result
ask(const struct question *q)
{
	const struct setting *s = setting_find(q->key);
	char prompt[ANSWER_MAX], answer[ANSWER_MAX], secret[ANSWER_MAX] = "", mem[80];
	int rc, first = !is_set(q->key);
	enum line_result r;

	if (s == NULL || (q->needs != NULL && size_of(q->needs) < 1)) {
		return LINE_OK;
	}
	do {
		str_fmt(prompt, sizeof prompt, "\n%s\n(%s; Return leaves it)\n> ", q->text, present(q, s, mem));
		r = line_ask(prompt, answer, sizeof answer, 0);
		if (r != LINE_OK || answer[strspn(answer, " ,")] == '\0') {
			return r;
		}
		/* Nobody types a secret to what is refused all the same. */
		rc = q->secret == NULL ? 0 : take(q, s, answer, "a-secret-of-good-length", 1);
		if (rc == 0 && q->secret != NULL) {
			r = console_secret(q->secret, secret, sizeof secret);
			if (r != LINE_OK) {
				return r;
			}
		}
		if (rc == 0) {
			rc = take(q, s, answer, secret, 0);
		}
		explicit_bzero(secret, sizeof secret);
		console_done(rc);
	} while (rc == 100);
	if (rc == 0 && q->then != NULL) {
		q->then(first);
	}
	return LINE_OK;
}

/* ---- the menu ---- */

void
console_done(int rc)
{
	print(STDOUT_FILENO, rc == 0 ? "Done.\n" : SETTINGS_REFUSED);
}

int
console_sure(const char *what)
{
	char prompt[ANSWER_MAX], answer[8];

	str_fmt(prompt, sizeof prompt, "%s? Type yes for it: ", what);
	return line_ask(prompt, answer, sizeof answer, 0) == LINE_OK && strcmp(answer, "yes") == 0;
}

void
console_run(int (*applet)(int argc, char **argv), const char *name, unsigned with, const char *word, const char *value)
{
	const char *words[8] = { name };
	char *argv[8] = { NULL };
	int argc = 1;
	pid_t pid;

	if ((with & WITH_HOME) != 0) {
		words[argc++] = "-H";
		words[argc++] = console.home;
	}
	if ((with & WITH_SOCKET) != 0) {
		words[argc++] = "-S";
		words[argc++] = console.socket;
	}
	words[argc] = word;
	words[argc + (word != NULL)] = value;
	for (argc = 0; words[argc] != NULL; argc++) {
		argv[argc] = (char *)(uintptr_t)words[argc];
	}
	line_end();
	signal(SIGINT, SIG_IGN);
	pid = fork();
	if (pid == 0) {
		signal(SIGINT, SIG_DFL);
		_exit(applet(argc, argv));
	}
	if (pid == -1 || waitpid(pid, NULL, 0) == -1) {
		print(STDOUT_FILENO, "no process for this\n");
	}
	signal(SIGINT, SIG_DFL);
	(void)line_begin();
}

/* Would this login be let in? Says whether RADIUS answers, and whether the secret is the same there. */
static void
try_login(void)
{
	char user[AUTH_USER_MAX + 1];

	if (line_ask("Login name: ", user, sizeof user, 0) == LINE_OK && user[0] != '\0' && user[0] != '-') {
		console_run(check_main, "check", WITH_HOME, "radius", user);
	}
}

static void
guided(void)
{
	enum line_result r = LINE_OK;

	print(STDOUT_FILENO, "\nSet-up. ^C leaves a question, ^D all of them; what was taken stays.\n");
	if (time(NULL) < BUILD_EPOCH) {
		r = console_time();
	}
	if (NETWORK && r != LINE_END) {
		r = console_network();
	}
	for (size_t i = 0; i < sizeof questions / sizeof questions[0] && r != LINE_END; i++) {
		r = ask(&questions[i]);
	}
#if SELFTEST
	if (r != LINE_END) {
		char answer[8];

		r = line_ask("\nTry all of this now, without applying it?\n(Return does; n does not)\n> ", answer,
		    sizeof answer, 0);
		if (r == LINE_OK && answer[0] != 'n') {
			console_run(selftest_main, "selftest", WITH_HOME, NULL, NULL);
		}
	}
#endif
}

#define MENU \
	"\nset  1 all questions  2 host name  3 RADIUS  4 smarthost  5 domains  a limits\n" \
	"see  6 settings  8 status  l live status  g log  q queue  u users\n" \
	"try  7 check  s self-test  t login\n" \
	"TLS  c make certificate  r request one  p paste one\n" \
	"box  n address  d time  w password  k backup  v restore  b restart  z reset\n" \
	"9 apply  0 end\n> "

static void
ask_key(const char *key)
{
	for (size_t i = 0; i < sizeof questions / sizeof questions[0]; i++) {
		if (strcmp(questions[i].key, key) == 0) {
			(void)ask(&questions[i]);
		}
	}
}

/* A choice that is an applet. 1, or 0: it is none. */
static int
choose_applet(char what)
{
	int (*applet)(int argc, char **argv);
	unsigned with = WITH_HOME;
	const char *name;

	switch (what) {
	case '6':
		applet = get_main, name = "get";
		break;
	case '7':
		applet = check_main, name = "check";
		break;
	case '8':
		applet = status_main, name = "status", with = WITH_SOCKET;
		break;
	case '9':
		applet = apply_main, name = "apply", with = WITH_HOME | WITH_SOCKET;
		break;
	case 'q':
		applet = queue_main, name = "queue", with = WITH_HOME | WITH_SOCKET;
		break;
#if SELFTEST
	case 's':
		applet = selftest_main, name = "selftest";
		break;
#endif
#if ACCOUNTS
	case 'u':
		applet = users_main, name = "users";
		break;
#endif
	default:
		return 0;
	}
	console_run(applet, name, with, NULL, NULL);
	return 1;
}

/* 0 = the end. */
static int
choose(char what)
{
	switch (what) {
	case '0':
		return 0;
	case '1':
		guided();
		break;
	case '2':
		ask_key("me");
		break;
	case '3':
		ask_key("radius.conf");
		break;
	case '4':
		ask_key("smtproutes");
		ask_key("smtpauth");
		break;
	case '5':
		ask_key("rcpthosts");
		break;
	case 'a':
		ask_key("userlimits");
		ask_key("alertto");
		break;
	case 'b':
		console_reboot();
		break;
	case 'c':
		console_make();
		break;
	case 'd':
		(void)console_time();
		break;
	case 'g':
		console_log();
		break;
	case 'k':
		console_backup();
		break;
	case 'l':
		console_live();
		break;
	case 'n':
		if (NETWORK) {
			(void)console_network();
		} else {
			print(STDOUT_FILENO, "not on this box: its address is set elsewhere\n");
		}
		break;
	case 'p':
		console_certificate();
		break;
	case 'r':
		console_request();
		break;
	case 't':
		try_login();
		break;
	case 'w':
		console_password();
		break;
	case 'z':
		console_reset();
		break;
	case 'v':
		if (console_restore()) {
			(void)choose_applet('9');
		}
		break;
	default:
		if (!choose_applet(what)) {
			print(STDOUT_FILENO, "one of these, please\n");
		}
	}
	return 1;
}

int
console_main(int argc, char **argv)
{
	enum line_result r;
	char answer[8];
	struct options o;
	int opt;

	(void)argc;
	console = (struct console){ .home = HOME_DIR, .socket = NULL };
	options_begin(&o, argv);
	while ((opt = options_next(&o, "H:S:")) != 0 && opt != '?') {
		console.home = opt == 'H' ? o.value : console.home;
		console.socket = opt == 'S' ? o.value : console.socket;
	}
	if (opt != 0 || *o.word != NULL) {
		print(STDERR_FILENO, "usage: mailstile console [-H home] [-S socket]\n");
		return 100;
	}
	if (console.socket == NULL) {
		console.socket = ctl_where(console.home, 1);
	}
	if (line_begin() == -1) {
		return 111;
	}
	print(STDOUT_FILENO, "mailstile %s\n", VERSION);
	if (!console_unlock()) {
		line_end();
		return 1;
	}
	if (!is_set_up()) {
		guided();
	}
	do {
		if (!is_set_up()) {
			print(STDOUT_FILENO, "\nNot set up yet: 1 asks for what is missing.\n");
		}
		r = line_ask(MENU, answer, sizeof answer, 0);
		if (r == LINE_OK && answer[0] != '\0' && !choose(answer[1] == '\0' ? answer[0] : 'x')) {
			break;
		}
	} while (r != LINE_END);
	line_end();
	return 0;
}

#endif
