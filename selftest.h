/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* Does it work from here? `mailstile selftest`. */
#ifndef MAILSTILE_SELFTEST_H
#define MAILSTILE_SELFTEST_H

/* See mailstile(8). Returns the exit status: 0 all is well, 1 something is not, 100. */
int selftest_main(int argc, char **argv);

#endif
