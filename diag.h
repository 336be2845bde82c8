/* SPDX-License-Identifier: MIT */
/* What is wrong with the configuration: collected by loaders, shown by `check`, logged by `serve`. main and applets. */
#ifndef MAILSTILE_DIAG_H
#define MAILSTILE_DIAG_H

enum diag_level { DIAG_NOTE, DIAG_WARN, DIAG_ERROR };

struct diag {
	/* Called for each finding. `file` may be NULL; `line` is 0 when the finding is about the whole file. */
	void (*emit)(struct diag *d, enum diag_level level, const char *file, int line, const char *text);
	unsigned errors;
	unsigned warnings;
};

/* Report a finding: what is wrong and what was expected. Never pass a secret. */
void diag_put(struct diag *d, enum diag_level level, const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
/* An emitter that prints `file:line: error: text` lines on stdout. */
void diag_to_stdout(struct diag *d, enum diag_level level, const char *file, int line, const char *text);
/* One that says nothing, for findings that are told elsewhere. */
void diag_to_nobody(struct diag *d, enum diag_level level, const char *file, int line, const char *text);
/* An emitter that writes log lines (ev=config). */
void diag_to_log(struct diag *d, enum diag_level level, const char *file, int line, const char *text);

#endif
