/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* A key out of what a person can remember: PBKDF2 with HMAC-SHA-256 (RFC 8018 5.2). Applets. */
#ifndef MAILSTILE_STRETCH_H
#define MAILSTILE_STRETCH_H

#include "config.h"

#include <stdint.h>

#define STRETCH_SALT 16
#define STRETCH_KEY 32
#define STRETCH_ROUNDS_MAX 10000000

#if CONSOLE

/* One block of it. */
void stretch(uint8_t key[STRETCH_KEY], const char *word, const uint8_t salt[STRETCH_SALT], uint32_t rounds);
/* Are these the same? Takes as long whether they are or not. */
int stretch_same(const uint8_t *a, const uint8_t *b, unsigned len);

#endif

#endif
