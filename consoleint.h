/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* What the files of the console share. Nothing else includes this. */
#ifndef MAILSTILE_CONSOLEINT_H
#define MAILSTILE_CONSOLEINT_H

#include "config.h"
#include "lineedit.h"

#include <stddef.h>

#if CONSOLE

#define ANSWER_MAX 512
#define CONSOLE_PASTE_MAX 131072 /* the longest block that is taken */

struct console {
	const char *home, *socket;
};
extern struct console console;

/* ---- console.c ---- */

/* A secret, not shown, asked for twice, into dst[size], which is wiped unless the result is LINE_OK. */
enum line_result console_secret(const char *what, char *dst, size_t size);
/* Ask for the word "yes" before something that cannot be taken back. 1 or 0. */
int console_sure(const char *what);
/*
 * Another applet of this program in a process of its own, with the terminal as it was; ^C ends it. `with`: which options it gets; then one
 * word, and another one, or NULL.
 */
#define WITH_HOME 1U
#define WITH_SOCKET 2U
void console_run(
    int (*applet)(int argc, char **argv), const char *name, unsigned with, const char *word, const char *value);
/* Say how a change went, by the status of settings_change(). */
void console_done(int rc);

/* ---- consolebackup.c ---- */

void console_backup(void); /* show all settings as one block */
int console_restore(void); /* take such a block. 1: there is something to apply */

/* ---- consolebox.c ---- */

int console_unlock(void); /* ask for the password, if there is one. 1, or 0: whoever that is may not come in */
void console_password(void);
enum line_result console_network(void); /* ask for what NETWORK_FILE says, if there is one */
enum line_result console_time(void);
void console_reset(void); /* remove all settings, after two questions */

/* ---- consolecert.c ---- */

/* Lines up to one with just a dot, as a string that is wiped and freed by console_wipe(). NULL: abandoned, empty or too long, which is told. */
char *console_paste(size_t *len);
void console_wipe(char *mem, size_t len);
void console_make(void);        /* make a certificate; over one that is there only after a question */
void console_renew(void);       /* the same, offered where one of our own making is for another name than control/me */
void console_request(void);     /* show a request for the key there is, or for a new one */
void console_certificate(void); /* take a certificate */

/* ---- consolecare.c: choices of the menu that ask about no control file ---- */

void console_live(void);   /* the status, again and again, until a key is pressed */
void console_log(void);    /* the last lines that CONSOLE_LOG prints */
void console_reboot(void); /* CONSOLE_REBOOT */

#endif

#endif
