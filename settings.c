/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* `mailstile get`, `set`, `unset`: control files by name, for scripts and for hands; see settings.h. */
#include "settings.h"

#if SETTINGS

#include "ctlfile.h"
#include "options.h"
#include "str.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

const struct setting settings[] = {
	{ "me", SETTING_LINE, 0, 0 },
	{ "listen", SETTING_LIST, 0, 0 },
	{ "spool", SETTING_LINE, 0, 0 },
	{ "radius.conf", SETTING_LIST, 1, 0 },
	{ "serverkey.pem", SETTING_PEM, 1, 0 },
	{ "servercert.pem", SETTING_PEM, 1, 0 }, /* it may hold the key, too */
	{ "rcpthosts", SETTING_LIST, 0, 0 },
	{ "relayclients", SETTING_LIST, 0, 0 },
	{ "databytes", SETTING_LINE, 0, 0 },
	{ "badmailfrom", SETTING_LIST, 0, 0 },
	{ "smtpgreeting", SETTING_LINE, 0, 0 },
#if ACCOUNTS
	{ "userlimits", SETTING_LIST, 0, 0 },
	{ "alertto", SETTING_LINE, 0, 0 },
	{ "timezone", SETTING_LINE, 0, 0 },
#endif
#if RELAY
	{ "relay", SETTING_LINE, 0, 0 },
	{ "smtproutes", SETTING_LIST, 0, 1 },
	{ "smtptls", SETTING_LIST, 0, 1 },
	{ "smtpauth", SETTING_LIST, 1, 1 },
	{ "cacerts.pem", SETTING_PEM, 0, 1 },
	{ "locals", SETTING_LIST, 0, 1 },
	{ "virtualdomains", SETTING_LIST, 0, 1 },
	{ "percenthack", SETTING_LIST, 0, 1 },
	{ "envnoathost", SETTING_LINE, 0, 1 },
	{ "helohost", SETTING_LINE, 0, 1 },
#if LOCAL_MAILDIRS_MAX > 0
	{ "localmaildirs", SETTING_LIST, 0, 1 },
#endif
	{ "localdelivery", SETTING_LINE, 0, 1 },
	{ "bounceformat", SETTING_LINE, 0, 1 },
	{ "delaynotice", SETTING_LINE, 0, 1 },
	{ "queuelifetime", SETTING_LINE, 0, 1 },
	{ "concurrencyremote", SETTING_LINE, 0, 1 },
	{ "timeoutconnect", SETTING_LINE, 0, 1 },
	{ "timeoutremote", SETTING_LINE, 0, 1 },
	{ "bouncefrom", SETTING_LINE, 0, 1 },
	{ "bouncehost", SETTING_LINE, 0, 1 },
	{ "doublebounceto", SETTING_LINE, 0, 1 },
	{ "doublebouncehost", SETTING_LINE, 0, 1 },
#endif
};
const size_t settings_n = sizeof settings / sizeof settings[0];

const struct setting *
setting_find(const char *key)
{
	for (size_t i = 0; i < settings_n; i++) {
		if (strcmp(settings[i].key, key) == 0) {
			return &settings[i];
		}
	}
	return NULL;
}

/* `-H home` and the key. 0; else the exit status. */
static int
begin(char **argv, struct options *o, const char **home, const struct setting **s, const char *usage)
{
	int opt;

	*home = HOME_DIR;
	*s = NULL;
	options_begin(o, argv);
	while ((opt = options_next(o, "H:")) != 0) {
		if (opt != 'H') {
			print(STDERR_FILENO, "usage: mailstile %s\n", usage);
			return 100;
		}
		*home = o->value;
	}
	if (*o->word != NULL) {
		*s = setting_find(*o->word);
		if (*s == NULL) {
			print(STDERR_FILENO, "mailstile: no such key; these are known:");
			for (size_t i = 0; i < settings_n; i++) {
				print(STDERR_FILENO, " %s", settings[i].key);
			}
			print(STDERR_FILENO, "\n");
			return 100;
		}
		o->word++;
	}
	return 0;
}

/* ---- get ---- */

/* A line of a file, without what a terminal would obey. */
static void
show_line(const char *label, char *line)
{
	for (char *p = line; *p != '\0'; p++) {
		if (((uint8_t)*p < ' ' && *p != '\t') || *p == 127) {
			*p = '?';
		}
	}
	if (label != NULL) {
		print(STDOUT_FILENO, "%s: ", label);
	}
	/* print() has an end. */
	if (write_all(STDOUT_FILENO, line, strlen(line)) == -1 || write_all(STDOUT_FILENO, "\n", 1) == -1) {
		_exit(111);
	}
}

/* 0; 1 when it is not set; -1 when it cannot be read. */
static int
show(const char *home, const struct setting *s, int label)
{
	struct diag d = { .emit = diag_to_stdout };
	char path[512], *text, *rest, *line;
	struct stat st;

	if (s->secret || (label && s->kind == SETTING_PEM)) {
		if (stat(ctl_path(home, s->key, path, sizeof path), &st) == -1) {
			return errno == ENOENT ? 1 : -1;
		}
		print(STDOUT_FILENO, label ? "%s: %s\n" : "%.0s%s\n", s->key, "set");
		return 0;
	}
	switch (ctl_read(home, s->key, &text, &d)) {
	case CTL_MISSING:
		return 1;
	case CTL_BAD:
		return -1;
	case CTL_OK:
		break;
	}
	rest = text;
	if (*rest == '\0' && label) {
		print(STDOUT_FILENO, "%s:\n", s->key);
	}
	while ((line = ctl_next_line(&rest)) != NULL) {
		show_line(label ? s->key : NULL, line);
		if (s->kind == SETTING_LINE) {
			break; /* the rest does not count */
		}
	}
	free(text);
	return 0;
}

int
get_main(int argc, char **argv)
{
	static const char usage[] = "get [-H home] [KEY]";
	struct diag d = { .emit = diag_to_stdout };
	const struct setting *s;
	const char *home;
	struct options o;
	int rc = begin(argv, &o, &home, &s, usage);

	(void)argc;
	if (rc != 0) {
		return rc;
	}
	if (*o.word != NULL) {
		print(STDERR_FILENO, "usage: mailstile %s\n", usage);
		return 100;
	}
	if (settings_recover(home, &d) == -1) {
		return 111;
	}
	if (s != NULL) {
		rc = show(home, s, 0);
		if (rc == 1) {
			print(STDERR_FILENO, "mailstile: %s is not set\n", s->key);
		}
		return rc == -1 ? 111 : rc;
	}
	for (size_t i = 0; i < settings_n; i++) {
		if (show(home, &settings[i], 1) == -1) {
			rc = 111;
		}
	}
	return rc;
}

/* ---- set ---- */

/* All of standard input; from a terminal without showing it. 0 or -1. */
static int
read_all(const struct setting *s, struct buf *b)
{
	struct termios old, quiet;
	int tty = tcgetattr(STDIN_FILENO, &old) == 0;
	ssize_t n = 1;

	if (tty) {
		quiet = old;
		quiet.c_lflag &= s->secret ? ~(tcflag_t)ECHO : ~(tcflag_t)0;
		tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
		print(STDERR_FILENO, "%s, ending with ^D%s:\n", s->key, s->secret ? "; it is not shown" : "");
	}
	while (b->len < b->cap && (n = read(STDIN_FILENO, b->p + b->len, b->cap - b->len)) > 0) {
		b->len += (size_t)n;
	}
	if (tty) {
		tcsetattr(STDIN_FILENO, TCSAFLUSH, &old);
	}
	b->full = n > 0;
	return n == -1 ? -1 : 0;
}

static int
refuse(const char *home, const struct setting *s, unsigned line, const char *why)
{
	print(STDOUT_FILENO, "%s/control/%s:%u: error: %s\n", home, s->key, line, why);
	return 100;
}

/* The end of a change, by its status, which it returns. */
static int
end(int rc)
{
	if (rc == 100) {
		print(STDOUT_FILENO, SETTINGS_REFUSED);
	}
	return rc;
}

/* What no file of ours may hold, by line. 0 or 100. */
static int
text_ok(const char *home, const struct setting *s, const struct buf *b)
{
	unsigned line = 1;

	if (b->full) {
		return refuse(home, s, 1, "too long");
	}
	for (size_t i = 0; i < b->len; i++) {
		uint8_t c = (uint8_t)b->p[i];

		if ((c < ' ' && c != '\t' && c != '\n' && c != '\r') || c == 127) {
			return refuse(home, s, line, "expected text without control characters");
		}
		if (c == '\n') {
			line++;
			if (s->kind == SETTING_LINE && i + 1 < b->len) {
				return refuse(home, s, line, "expected one line");
			}
		}
	}
	return 0;
}

/* The words of the command line, each a line, or standard input. 0 or the exit status. */
static int
collect(const char *home, const struct setting *s, char **word, struct buf *b)
{
	unsigned line = 1;

	if (strcmp(word[0], "-") == 0 && word[1] == NULL) {
		if (read_all(s, b) == -1) {
			print(STDERR_FILENO, "mailstile: standard input: %s\n", strerror(errno));
			return 111;
		}
		if (b->len > 0 && b->p[b->len - 1] != '\n') {
			buf_ch(b, '\n');
		}
		return text_ok(home, s, b);
	}
	if (s->secret) {
		return refuse(home, s, 1,
		    "a command line is seen by others: write `-` for the value, and give it on standard input");
	}
	for (; *word != NULL; word++, line++) {
		if (strchr(*word, '\n') != NULL) {
			return refuse(home, s, line, "expected one line in each word");
		}
		/* One empty word is an empty file. */
		if (**word != '\0' || line > 1 || word[1] != NULL) {
			buf_str(b, *word);
			buf_ch(b, '\n');
		}
	}
	return text_ok(home, s, b);
}

int
set_main(int argc, char **argv)
{
	struct settings_home h;
	const struct setting *s;
	const char *home;
	struct options o;
	struct buf b;
	char *mem;
	int rc = begin(argv, &o, &home, &s, "set [-H home] KEY VALUE ... | -");

	(void)argc;
	if (rc != 0) {
		return rc;
	}
	if (s == NULL || *o.word == NULL) {
		print(STDERR_FILENO,
		    "usage: mailstile set [-H home] KEY VALUE ... | -\neach VALUE is a line; - takes them from standard input\n");
		return 100;
	}
	mem = malloc(CONTROL_FILE_MAX);
	if (mem == NULL) {
		return 111;
	}
	buf_init(&b, mem, CONTROL_FILE_MAX);
	rc = collect(home, s, o.word, &b);
	if (rc == 0 && settings_open(&h, home) == -1) {
		rc = 111;
	} else if (rc == 0) {
		rc = settings_change(&h, s, b.p, b.len);
		settings_close(&h);
	}
	explicit_bzero(mem, b.len);
	free(mem);
	return end(rc);
}

int
unset_main(int argc, char **argv)
{
	struct settings_home h;
	const struct setting *s;
	const char *home;
	struct options o;
	int rc = begin(argv, &o, &home, &s, "unset [-H home] KEY");

	(void)argc;
	if (rc != 0) {
		return rc;
	}
	if (s == NULL || *o.word != NULL) {
		print(STDERR_FILENO, "usage: mailstile unset [-H home] KEY\n");
		return 100;
	}
	if (settings_open(&h, home) == -1) {
		return 111;
	}
	rc = settings_change(&h, s, NULL, 0);
	settings_close(&h);
	return end(rc);
}

#endif
