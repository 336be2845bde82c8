/* SPDX-License-Identifier: MIT */
/* main's work: listeners, forking, reaping, limits, reload, drain; and one session under inetd. */
#ifndef MAILSTILE_SERVER_H
#define MAILSTILE_SERVER_H

/* `mailstile serve`, `mailstile inetd`, `mailstile check`: see mailstile(8). Return the exit status. */
int serve_main(int argc, char **argv);
int inetd_main(int argc, char **argv);
int check_main(int argc, char **argv);
/* `radcheckpassword`: checkpassword's interface; see radcheckpassword(8). */
int radcheckpassword_main(int argc, char **argv);

/* Lines that the server takes, as qmail does, though nothing ever fits them: a warning for each to `d`. Applets, where there are TOOLS. */
struct config;
struct diag;
void check_all_lines(const struct config *c, struct diag *d);
/* Listeners and RADIUS servers to the screen; names of files, who may relay, the certificate: findings to `d`. Applets, where there are TOOLS. */
void check_all_else(const struct config *c, struct diag *d);
/* 1: whoever comes along may relay, by address. The same. */
int check_open_relay(const struct config *c);

#endif
