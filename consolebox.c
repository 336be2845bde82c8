/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* The console's choices about the box itself: its password, its address, its clock, and a new beginning. Files are replaced by rename(). */
#include "consoleint.h"

#if CONSOLE

#include "addr.h"
#include "ctlfile.h"
#include "settings.h"
#include "str.h"
#include "stretch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PASSWORD_FILE "consolepass" /* in control/: rounds, the highest octet first, salt and key */
#define PASSWORD_OCTETS (4 + STRETCH_SALT + STRETCH_KEY)
#define TRIES 3
#define SHORT 8           /* a password with fewer characters is soon guessed */
#define ADDRESSES_MAX 160 /* an answer about the network */

/* Replace a file by this text, and flush. 0 or -1, which is told. */
static int
put_file(const char *path, mode_t mode, const void *text, size_t len)
{
	char tmp[ANSWER_MAX + 8];
	const char *slash;
	int fd, rc;

	(void)unlink(str_fmt(tmp, sizeof tmp, "%s.new", path));
	fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	rc = fd == -1 || write_all(fd, text, len) == -1 || fsync(fd) == -1 ? -1 : rename(tmp, path);
	if (fd != -1) {
		close(fd);
	}
	slash = strrchr(path, '/');
	if (rc == 0 && slash != NULL) {
		str_fmt(tmp, sizeof tmp, "%.*s", (int)(slash - path) + 1, path);
		fd = open(tmp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		rc = fd == -1 ? -1 : fsync(fd);
		close(fd);
	}
	if (rc == -1) {
		print(STDOUT_FILENO, "%s: %s\n", path, strerror(errno));
	}
	return rc;
}

/* ---- password ---- */

/* 1; 0 there is none; -1 what is there is none of ours. */
static int
read_password(uint8_t octets[PASSWORD_OCTETS + 1])
{
	char path[ANSWER_MAX];
	long n = file_read(ctl_path(console.home, PASSWORD_FILE, path, sizeof path), octets, PASSWORD_OCTETS + 1);

	if (n == -1 && errno == ENOENT) {
		return 0;
	}
	return n == PASSWORD_OCTETS && stretch_get32(octets) - 1 < STRETCH_ROUNDS_MAX ? 1 : -1;
}

int
console_unlock(void)
{
	uint8_t octets[PASSWORD_OCTETS + 1], key[STRETCH_KEY];
	char word[ANSWER_MAX];
	int have = read_password(octets);

	if (have == -1) {
		print(STDOUT_FILENO,
		    "control/" PASSWORD_FILE " is damaged, and lets nobody in: remove it from a shell.\n");
	}
	for (unsigned i = 0; have == 1 && i < TRIES; i++) {
		if (line_ask("Password: ", word, sizeof word, 1) != LINE_OK) {
			return 0;
		}
		stretch(key, word, octets);
		explicit_bzero(word, sizeof word);
		if (stretch_same(key, octets + 4 + STRETCH_SALT, sizeof key)) {
			return 1;
		}
		sleep(1U << i);
		print(STDOUT_FILENO, "No.\n");
	}
	return have == 0;
}

void
console_password(void)
{
	uint8_t octets[PASSWORD_OCTETS];
	char path[ANSWER_MAX], word[ANSWER_MAX];
	int rc;

	ctl_path(console.home, PASSWORD_FILE, path, sizeof path);
	if (console_secret("New password of this console; none takes it away", word, sizeof word) != LINE_OK) {
		return;
	}
	if (strcmp(word, "none") == 0) {
		rc = unlink(path) == -1 && errno != ENOENT ? 111 : 0;
	} else if (strlen(word) < SHORT &&
	    !console_sure("Fewer than 8 characters are soon guessed. Take it all the same")) {
		rc = 100;
	} else {
		stretch_begin(octets, CONSOLE_ROUNDS);
		stretch(octets + 4 + STRETCH_SALT, word, octets);
		rc = put_file(path, 0600, octets, sizeof octets) == -1 ? 111 : 0;
	}
	explicit_bzero(word, sizeof word);
	console_done(rc);
}

/* ---- address ---- */

/* ADDRESS/BITS of a host. 0 or -1. */
static int
parse_host(struct addr_block *b, const char *s)
{
	const char *slash = strchr(s, '/');
	uint64_t bits;

	if (slash == NULL || addr_parse(&b->net, s, (size_t)(slash - s)) == -1 ||
	    parse_u64(slash + 1, strlen(slash + 1), addr_is_v4(&b->net) ? 32 : 128, &bits) == -1 || bits == 0) {
		return -1;
	}
	b->bits = (int)bits + (addr_is_v4(&b->net) ? 96 : 0);
	return 0;
}

/* A gateway in the network of the host, or nothing. */
static int
gateway_ok(const struct addr_block *host, const char *s)
{
	struct addr a;

	return s[0] == '\0' ||
	    (addr_parse(&a, s, strlen(s)) == 0 && addr_in_block(&a, host) && memcmp(&a, &host->net, sizeof a) != 0);
}

static int
servers_ok(const struct addr_block *host, const char *s)
{
	struct addr a;

	(void)host;
	while (*s != '\0') {
		size_t n = strcspn(s, " ");

		if (n > 0 && addr_parse(&a, s, n) == -1) {
			return 0;
		}
		s += n + (s[n] != '\0');
	}
	return 1;
}

/* Until the answer is one. LINE_OK or not. */
static enum line_result
ask_address(
    const char *prompt, char *answer, int (*ok)(const struct addr_block *, const char *), const struct addr_block *b)
{
	enum line_result r;

	while ((r = line_ask(prompt, answer, ADDRESSES_MAX, 0)) == LINE_OK && !ok(b, answer)) {
		print(STDOUT_FILENO, "Refused: no such address, or not in this network.\n");
	}
	return r;
}

/* What the former file says of these stays. */
static void
keep_lines(struct buf *b)
{
	char text[1024], *rest = text, *line;
	long n = file_read(NETWORK_FILE, text, sizeof text - 1);

	text[n < 0 ? 0 : n] = '\0';
	while ((line = ctl_next_line(&rest)) != NULL) {
		if (strncmp(line, "INTERFACE=", 10) == 0 || strncmp(line, "HOSTNAME=", 9) == 0) {
			buf_fmt(b, "%s\n", line);
		}
	}
}

enum line_result
console_network(void)
{
	char host[ADDRESSES_MAX], gateway[ADDRESSES_MAX], dns[ADDRESSES_MAX], mem[2048];
	struct addr_block block;
	enum line_result r;
	struct buf b;

	for (;;) {
		r = line_ask(
		    "\nAddress of this box, as in 192.0.2.7/24, or dhcp\n(Return leaves it)\n> ", host, sizeof host, 0);
		if (r != LINE_OK || host[0] == '\0') {
			return r;
		}
		if (strcmp(host, "dhcp") == 0 || parse_host(&block, host) == 0) {
			break;
		}
		print(STDOUT_FILENO, "Refused: expected ADDRESS/BITS or dhcp.\n");
	}
	buf_init(&b, mem, sizeof mem);
	keep_lines(&b);
	if (host[0] == 'd') {
		buf_str(&b, "MODE=dhcp\n");
	} else {
		r = ask_address("Gateway, as in 192.0.2.1; Return: none\n> ", gateway, gateway_ok, &block);
		if (r == LINE_OK) {
			r = ask_address("Name servers, as in 192.0.2.1 192.0.2.2\n> ", dns, servers_ok, &block);
		}
		if (r != LINE_OK) {
			return r;
		}
		buf_fmt(&b, "MODE=static\nADDRESS=%s\nGATEWAY=%s\nDNS=\"%s\"\n", host, gateway, dns);
	}
	console_done(put_file(NETWORK_FILE, 0644, b.p, b.full ? 0 : b.len) == -1 ? 111 : 0);
	print(STDOUT_FILENO, "It counts from the next start on.\n");
	return LINE_OK;
}

/* ---- clock ---- */

/* YYYY-MM-DD HH:MM, in UTC. The seconds since 1970, or -1. */
static time_t
parse_time(const char *s)
{
	static const uint8_t at[] = { 0, 5, 8, 11, 14, 17 };
	uint64_t n[5], y, days;
	struct tm tm;
	time_t t;

	if (strlen(s) != 16) {
		return -1;
	}
	for (int i = 0; i < 5; i++) {
		if (parse_u64(s + at[i], at[i + 1] - at[i] - 1U, 9999, &n[i]) == -1 ||
		    (i < 4 && s[at[i + 1] - 1] != "-- :"[i])) {
			return -1;
		}
	}
	/* Days by years that begin in March, so that a leap day is their last one. Who is not the same on the way back was no day. */
	y = n[0] - (n[1] < 3);
	days =
	    y * 365 + y / 4 - y / 100 + y / 400 + (153 * (n[1] + (n[1] < 3 ? 9 : UINT64_C(0) - 3)) + 2) / 5 + n[2] - 1;
	t = (time_t)((days - 719468) * 86400 + n[3] * 3600 + n[4] * 60);
	return gmtime_r(&t, &tm) != NULL && tm.tm_mon + 1 == (int)n[1] && tm.tm_mday == (int)n[2] &&
		tm.tm_hour == (int)n[3] && tm.tm_min == (int)n[4]
	    ? t
	    : -1;
}

enum line_result
console_time(void)
{
	struct timespec t = { 0 };
	char answer[32];
	enum line_result r =
	    line_ask("\nTime in UTC, as in 2026-11-27 04:05\n(Return leaves it)\n> ", answer, sizeof answer, 0);

	if (r != LINE_OK || answer[0] == '\0') {
		return r;
	}
	t.tv_sec = parse_time(answer);
	if (t.tv_sec < BUILD_EPOCH) {
		print(STDOUT_FILENO, "Refused: no time, or one before this program was made.\n");
	} else if (clock_settime(CLOCK_REALTIME, &t) == -1) {
		print(STDOUT_FILENO, "Refused: %s\n", strerror(errno));
	} else {
		console_done(0);
	}
	return r;
}

/* ---- a new beginning ---- */

void
console_reset(void)
{
	struct settings_edit *edit = calloc(settings_n, sizeof *edit);
	struct settings_home h;
	char path[ANSWER_MAX];
	int rc;

	if (edit != NULL && console_sure("Forget all settings, secrets, certificate and key") &&
	    console_sure("There is no way back. Really") && settings_open(&h, console.home) == 0) {
		for (size_t i = 0; i < settings_n; i++) {
			edit[i].s = &settings[i];
		}
		rc = settings_force(&h, edit, settings_n);
		if (rc == 0 && settings_settle(&h) == -1) {
			rc = 111;
		}
		for (size_t i = 0; i < settings_n && rc == 0; i++) {
			(void)unlinkat(h.dir, str_fmt(path, sizeof path, "%s.last", settings[i].key), 0);
		}
		if (rc == 0) {
			(void)unlinkat(h.dir, "request.pem", 0);
			(void)unlinkat(h.dir, PASSWORD_FILE, 0);
			(void)(sizeof NETWORK_FILE > 1 && unlink(NETWORK_FILE));
			sync();
		}
		settings_close(&h);
		console_done(rc);
		print(
		    STDOUT_FILENO, "Mail in the queue stays. The server still runs with what it knows: restart it.\n");
	}
	free(edit);
}

#endif
