/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* Temporary directories, in $TMPDIR, best on a tmpfs; test/fuzz/run.sh removes them. */
#ifndef MAILSTILE_TEST_FUZZ_DIR_H
#define MAILSTILE_TEST_FUZZ_DIR_H

#include "fuzz.h"

#include <stdio.h>
#include <sys/stat.h>

/* Make one and, in it, those that are named. Its path is put into dir[size]. */
static void
fuzz_make_dir(char *dir, size_t size, const char *const *names, size_t n)
{
	char path[300];
	const char *tmp = getenv("TMPDIR");

	CHECK(snprintf(dir, size, "%s/mailstile-fuzz.XXXXXX", tmp == NULL ? "/tmp" : tmp) < (int)size);
	CHECK(mkdtemp(dir) != NULL);
	for (size_t i = 0; i < n; i++) {
		CHECK(snprintf(path, sizeof path, "%s/%s", dir, names[i]) < (int)sizeof path && mkdir(path, 0700) == 0);
	}
}

/* Write `dir`/`name`; NULL text: remove it. */
static UNUSED void
fuzz_put_file(const char *dir, const char *name, const void *text, size_t len)
{
	char path[300];
	size_t written;
	FILE *f;

	CHECK(snprintf(path, sizeof path, "%s/%s", dir, name) < (int)sizeof path);
	f = text == NULL ? NULL : fopen(path, "w");
	if (f == NULL) {
		unlink(path);
		return;
	}
	written = fwrite(text, 1, len, f);
	CHECK(fclose(f) == 0 && written == len);
}

#endif
