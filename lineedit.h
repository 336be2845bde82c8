/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* Questions on a serial line: a terminal of which nothing is expected, at any speed. No escape sequence is sent. `mailstile console`. */
#ifndef MAILSTILE_LINEEDIT_H
#define MAILSTILE_LINEEDIT_H

#include "config.h"

#include <stddef.h>

#if CONSOLE

enum line_result {
	LINE_OK,
	LINE_ABANDONED, /* ^C: this question is not answered */
	LINE_END        /* ^D on an empty line, hang-up, a lost terminal */
};

/* Take the terminal on standard input over: each octet as it comes. Anything but a terminal is read as it is. 0 or -1. */
int line_begin(void);
/* Give it back as it was. */
void line_end(void);
/*
 * Ask, and read a line of printable ASCII into dst[size], NUL-terminated. Backspace, ^U and ^C do what they do everywhere; other control
 * characters, and octets that are no ASCII, are line noise and count for nothing; at its end the line takes no more, with a bell.
 * `hidden`: no echo; else blanks at either end are cut off. dst is wiped unless the result is LINE_OK.
 */
enum line_result line_ask(const char *prompt, char *dst, size_t size, int hidden);
/* Wait at most `ms` for a key, which is taken. 1: there was one, or there will be none any more; 0. */
int line_key(int ms);

#endif

#endif
