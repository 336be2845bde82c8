/* SPDX-License-Identifier: MIT */
/* Main's side of accounting: the process `stile-acct`, started when radius.conf asks for it, and anew when it ends. main only. */
#ifndef MAILSTILE_ACCOUNTANT_H
#define MAILSTILE_ACCOUNTANT_H

#include "warden.h"

#include <stdint.h>
#include <sys/types.h>

#if ACCOUNTING

/* `fresh`: main has just started, and does not go on after a re-execution: the server is told (Accounting-On). */
void accountant_init(int fresh);
/* Go on with the configuration that `h` has now. */
void accountant_renew(void);
/* To be called now and then, and when accountant_due() has come, which is mono_ms(), INT64_MAX = never. */
void accountant_tend(const struct house *h);
int64_t accountant_due(void);
/* Was it the accountant? 1: it is taken note of. */
int accountant_died(pid_t pid, int status);
/* All sessions have ended: send what can be sent in ACCT_FINISH_SECONDS, and Accounting-Off. `finish` 0: just end; what is not sent stays. */
void accountant_stop(int finish);
int accountant_running(void);

/* The process. It has the file (acct.h), the shared map for the servers' addresses, and no secrets but the servers'. */
_Noreturn void acct_send(const struct house *h, int on);

#else

/* clang-format off */
static inline void accountant_init(int fresh) { (void)fresh; }
static inline void accountant_renew(void) {}
static inline void accountant_tend(const struct house *h) { (void)h; }
static inline int64_t accountant_due(void) { return INT64_MAX; }
static inline int accountant_died(pid_t pid, int status) { (void)pid; (void)status; return 0; }
static inline void accountant_stop(int finish) { (void)finish; }
static inline int accountant_running(void) { return 0; }
/* clang-format on */

#endif
#endif
