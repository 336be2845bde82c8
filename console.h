/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* Set-up and care from a serial line. */
#ifndef MAILSTILE_CONSOLE_H
#define MAILSTILE_CONSOLE_H

/* `mailstile console`: see mailstile(8). Returns the exit status. */
int console_main(int argc, char **argv);

#endif
