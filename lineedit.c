/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* One line at a time, with an echo of our own; see lineedit.h. */
#include "lineedit.h"

#if CONSOLE

#include "str.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

enum { CTRL_C = 3, CTRL_D = 4, BELL = 7, BACKSPACE = 8, CTRL_U = 21, ESCAPE = 27, DELETE = 127 };

static struct {
	struct termios old;
	int tty;
	int after_cr; /* a line feed right behind a carriage return belongs to it */
} term;

int
line_begin(void)
{
	struct termios raw;

	if (tcgetattr(STDIN_FILENO, &term.old) == -1) {
		return 0;
	}
	raw = term.old;
	raw.c_iflag &= ~(tcflag_t)(ICRNL | INLCR | IGNCR | ISTRIP | PARMRK | BRKINT);
	raw.c_iflag |= IGNBRK;
	raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO | ISIG | IEXTEN);
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	if (tcsetattr(STDIN_FILENO, TCSANOW, &raw) == -1) {
		return -1;
	}
	term.tty = 1;
	return 0;
}

void
line_end(void)
{
	if (term.tty) {
		(void)tcsetattr(STDIN_FILENO, TCSADRAIN, &term.old);
	}
	term.tty = 0;
}

static void
echo(const char *s, size_t len)
{
	if (term.tty) {
		(void)write_all(STDOUT_FILENO, s, len);
	}
}

/* The next octet. -1: there will be none. */
static int
next_octet(void)
{
	unsigned char c;
	ssize_t n;

	do {
		n = read(STDIN_FILENO, &c, 1);
	} while (n == -1 && errno == EINTR);
	return n == 1 ? c : -1;
}

/* What an arrow key sends is one piece of noise: ESC, [ or O, then up to its last letter. */
static int
skip_escape(void)
{
	int c = next_octet();

	if (c != '[' && c != 'O') {
		return c == -1 ? -1 : 0;
	}
	for (int i = 0; i < 16; i++) {
		c = next_octet();
		if (c == -1 || (c >= '@' && c <= '~')) {
			break;
		}
	}
	return c == -1 ? -1 : 0;
}

static void
erase(size_t *len, size_t n, int hidden)
{
	for (; n > 0 && *len > 0; n--) {
		(*len)--;
		echo("\b \b", hidden ? 0 : 3);
	}
}

static enum line_result
leave(char *dst, size_t size, const char *mark, enum line_result result)
{
	explicit_bzero(dst, size);
	print(STDOUT_FILENO, "%s\n", mark);
	return result;
}

/* Blanks at either end count for nothing. */
static void
trim(char *s, size_t len)
{
	size_t from = strspn(s, " ");

	while (len > from && s[len - 1] == ' ') {
		len--;
	}
	memmove(s, s + from, len - from);
	s[len - from] = '\0';
}

enum line_result
line_ask(const char *prompt, char *dst, size_t size, int hidden)
{
	size_t len = 0;
	int c;

	print(STDOUT_FILENO, "%s", prompt);
	for (;;) {
		c = next_octet();
		if (c == '\n' && term.after_cr) {
			term.after_cr = 0;
			continue;
		}
		term.after_cr = c == '\r';
		if (c == -1 || (c == CTRL_D && len == 0) || (c == ESCAPE && skip_escape() == -1)) {
			return leave(dst, size, "", LINE_END);
		}
		if (c == CTRL_C) {
			return leave(dst, size, "^C", LINE_ABANDONED);
		}
		if (c == '\r' || c == '\n') {
			break;
		}
		if (c == BACKSPACE || c == DELETE || c == CTRL_U) {
			erase(&len, c == CTRL_U ? len : 1, hidden);
		} else if (c >= ' ' && c < DELETE) {
			char one[1] = { (char)c };

			if (len + 1 < size) {
				dst[len++] = one[0];
				echo(one, hidden ? 0 : 1);
			} else {
				echo("\a", 1);
			}
		}
	}
	dst[len] = '\0';
	if (!hidden) {
		trim(dst, len);
	}
	echo("\n", 1);
	return LINE_OK;
}

int
line_key(int ms)
{
	struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };

	if (poll(&p, 1, ms) < 1) {
		return 0;
	}
	term.after_cr = next_octet() == '\r';
	return 1;
}

#endif
