/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * A mutator for scripts of clients: it takes away, doubles, moves and adds whole lines, which changes of single octets rarely do. Half of the
 * time libFuzzer's own mutations are made.
 */
#ifndef MAILSTILE_TEST_FUZZ_MUTATE_H
#define MAILSTILE_TEST_FUZZ_MUTATE_H

#include "fuzz.h"

size_t LLVMFuzzerMutate(uint8_t *p, size_t len, size_t max) __attribute__((weak)); /* test/fuzz/replay.c has none */
size_t LLVMFuzzerCustomMutator(uint8_t *p, size_t len, size_t max, unsigned seed);

static const char *const mutate_lines[] = {
	"EHLO a\r\n", "HELO a\r\n", "MAIL FROM:<>\r\n", "MAIL FROM:<a@b.example>\r\n",
	"MAIL FROM:<a@b.example> SIZE=10 BODY=8BITMIME SMTPUTF8 AUTH=<>\r\n", "MAIL FROM:<u@spam.example>\r\n",
	"RCPT TO:<x@example.org>\r\n", "RCPT TO:<x@sub.example.net>\r\n", "RCPT TO:<far@example.com>\r\n",
	"RCPT TO:<postmaster>\r\n", "DATA\r\n", "a: b\r\n\r\n..c\r\n.\r\n", ".\r\n", "Received: x\r\n", "Date: x\r\n",
	"BDAT 3\r\na\r\n", "BDAT 0\r\n", "BDAT 3 LAST\r\nb\r\n", "BDAT 0 LAST\r\n", "BDAT 9\r\n", "RSET\r\n",
	"NOOP\r\n", "QUIT\r\n", "VRFY a\r\n", "EXPN a\r\n", "HELP\r\n", "STARTTLS\r\n", "AUTH PLAIN AHUAeQ==\r\n",
	"AUTH PLAIN AHUAbg==\r\n", "AUTH PLAIN AHUAbA==\r\n", "AUTH PLAIN\r\n", "AUTH LOGIN\r\n", "AUTH LOGIN dQ==\r\n",
	"dQ==\r\n", "eQ==\r\n", "=\r\n", "*\r\n", "\n", "\r\n", "\377", "\377\377T\001\377", "\377\377T\377\377",
	"\377\377S", "\377\377G", "\377\377I", "\377\377R", "\377\377A", "\377\377B", "\377\377N\003",
	"EHLO a\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<x@example.org>\r\nDATA\r\n",
	"AUTH PLAIN AHUAeQ==\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<far@example.com>\r\nDATA\r\na: b\r\n\r\nc\r\n.\r\n"
};

/* The end of the line, or of the packet, that begins at or goes over `at`. */
static size_t
mutate_line_end(const uint8_t *p, size_t len, size_t at)
{
	while (at < len && p[at] != '\n' && p[at] != 255) {
		at++;
	}
	return at < len ? at + 1 : len;
}

static size_t
mutate_insert(uint8_t *p, size_t len, size_t max, size_t at, const void *what, size_t n)
{
	if (n > max - len) {
		return len;
	}
	memmove(p + at + n, p + at, len - at);
	memcpy(p + at, what, n);
	return len + n;
}

size_t
LLVMFuzzerCustomMutator(uint8_t *p, size_t len, size_t max, unsigned seed)
{
	uint8_t line[512];
	unsigned r = seed * 2654435761U >> 8;
	size_t from, end, to;
	const char *word = mutate_lines[r / 64 % (sizeof mutate_lines / sizeof mutate_lines[0])];

	if (r % 2 == 0 || len < 4 || len >= max) {
		return LLVMFuzzerMutate(p, len, max);
	}
	from = mutate_line_end(p, len, 2 + (size_t)seed / 7 % (len - 2));
	end = mutate_line_end(p, len, from);
	to = mutate_line_end(p, len, 2 + (size_t)seed / 131 % (len - 2));
	if (r / 2 % 4 == 0 || end == from || end - from > sizeof line) {
		return mutate_insert(p, len, max, from, word, strlen(word));
	}
	memcpy(line, p + from, end - from);
	if (r / 2 % 4 != 1) {
		/* Away with it; or elsewhere. */
		memmove(p + from, p + end, len - end);
		len -= end - from;
		if (r / 2 % 4 == 2) {
			return len;
		}
		to = to < len ? to : len;
	}
	return mutate_insert(p, len, max, to, line, end - from);
}

#endif
