/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* A key out of what a person can remember: PBKDF2 with HMAC-SHA-256 (RFC 8018 5.2). Applets. */
#ifndef MAILSTILE_STRETCH_H
#define MAILSTILE_STRETCH_H

#include "config.h"

#include <stdint.h>

#define STRETCH_SALT 16
#define STRETCH_HEAD (4 + STRETCH_SALT) /* the number of rounds, the highest octet first, and the salt */
#define STRETCH_KEY 32
#define STRETCH_ROUNDS_MAX 10000000

#if CONSOLE

/* A head of so many rounds, with a new salt. */
void stretch_begin(uint8_t head[STRETCH_HEAD], uint32_t rounds);
/* One block of it. Fewer rounds than one, or more than STRETCH_ROUNDS_MAX, are the caller's to refuse. */
void stretch(uint8_t key[STRETCH_KEY], const char *word, const uint8_t head[STRETCH_HEAD]);
uint32_t stretch_get32(const uint8_t *p);
void stretch_put32(uint8_t *p, uint32_t n);
/* Are these the same? Takes as long whether they are or not. */
int stretch_same(const uint8_t *a, const uint8_t *b, unsigned len);

#endif

#endif
