/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* Findings about the configuration, on their way to a person (stdout) or to the log. main and applets. */
#include "diag.h"

#include "log.h"
#include "str.h"

#include <stdarg.h>
#include <unistd.h>

static const struct {
	const char *name;
	int prio;
} levels[] = {
	[DIAG_NOTE] = { "note", LOG_INFO },
	[DIAG_WARN] = { "warning", LOG_WARNING },
	[DIAG_ERROR] = { "error", LOG_ERR },
};

void
diag_put(struct diag *d, enum diag_level level, const char *file, int line, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	str_vfmt_cut(text, sizeof text, fmt, ap);
	va_end(ap);
	if (level == DIAG_ERROR) {
		d->errors++;
	} else if (level == DIAG_WARN) {
		d->warnings++;
	}
	d->emit(d, level, file, line, text);
}

void
diag_to_stdout(struct diag *d, enum diag_level level, const char *file, int line, const char *text)
{
	(void)d;
	if (file != NULL && line > 0) {
		print(STDOUT_FILENO, "%s:%d: ", file, line);
	} else if (file != NULL) {
		print(STDOUT_FILENO, "%s: ", file);
	}
	print(STDOUT_FILENO, "%s: %s\n", levels[level].name, text);
}

void
diag_to_nobody(struct diag *d, enum diag_level level, const char *file, int line, const char *text)
{
	(void)d;
	(void)level;
	(void)file;
	(void)line;
	(void)text;
}

void
diag_to_log(struct diag *d, enum diag_level level, const char *file, int line, const char *text)
{
	struct log_line l;

	(void)d;
	log_begin(&l, levels[level].prio, "config");
	log_str(&l, "level", levels[level].name);
	log_str(&l, "file", file);
	log_num(&l, "line", line);
	log_text(&l, "msg", text);
	log_end(&l);
}
