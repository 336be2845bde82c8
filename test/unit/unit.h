/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * What several unit tests share: collected findings, a temporary directory and what is in it. Include after <cmocka.h>.
 */
#ifndef MAILSTILE_TEST_UNIT_H
#define MAILSTILE_TEST_UNIT_H

#include "diag.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A pointer that must be there. cmocka's asserts do not return when they fail, but an analyser cannot know that. */
#define assert_got(p) \
	do { \
		assert_non_null(p); \
		if ((p) == NULL) { \
			abort(); \
		} \
	} while (0)

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define S(s) s, sizeof(s) - 1
#define UNUSED __attribute__((unused))

static char dir[64]; /* the temporary directory */

/* Findings, one a line: level|last part of file|line|text. */
#ifndef FINDINGS_MAX
#define FINDINGS_MAX 16384
#endif
struct findings {
	struct diag d;
	char text[FINDINGS_MAX];
};

static void
unit_collect(struct diag *d, enum diag_level level, const char *file, int line, const char *text)
{
	struct findings *f = (struct findings *)(void *)d;
	size_t len = strlen(f->text);
	const char *slash = file == NULL ? NULL : strrchr(file, '/');

	file = file == NULL ? "-" : slash == NULL ? file : slash + 1;
	snprintf(f->text + len, sizeof f->text - len, "%c|%s|%d|%s\n", "NWE"[level], file, line, text);
}

static UNUSED struct findings *
fresh(struct findings *f)
{
	memset(f, 0, sizeof *f);
	f->d.emit = unit_collect;
	return f;
}

/* A path in the temporary directory; eight may be in use at once. */
static UNUSED const char *
in(const char *name)
{
	static char paths[8][512];
	static unsigned next;
	char *p = paths[next++ % 8];

	snprintf(p, sizeof paths[0], "%s/%s", dir, name);
	return p;
}

static UNUSED void
put_mem(const char *name, const void *p, size_t len)
{
	FILE *f = fopen(in(name), "w");

	assert_non_null(f);
	assert_int_equal(fwrite(p, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

static UNUSED void
put(const char *name, const char *text)
{
	put_mem(name, text, strlen(text));
}

/* A file's content, NUL-terminated; four may be in use at once. */
static UNUSED char *
content(const char *name, size_t *len)
{
	static char text[4][65536];
	static unsigned next;
	char *p = text[next++ % 4];
	FILE *f = fopen(in(name), "r");
	size_t n;

	if (f == NULL) {
		fail_msg("%s: cannot be read", name);
		abort(); /* for analysers, who cannot know that fail_msg() does not return */
	}
	n = fread(p, 1, sizeof text[0] - 1, f);
	fclose(f);
	p[n] = '\0';
	if (len != NULL) {
		*len = n;
	}
	return p;
}

static UNUSED int
unit_by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Append the regular files at or below `path` to list[size], sorted, each with a LF, without the first `skip` octets. */
static UNUSED void
unit_list(const char *path, size_t skip, char *list, size_t size)
{
	char *names[64] = { NULL }, sub[600];
	size_t n = 0;
	struct dirent *de;
	struct stat st;
	DIR *d = opendir(path);

	assert_non_null(d);
	while ((de = readdir(d)) != NULL) {
		if (strcmp(de->d_name, ".") != 0 && strcmp(de->d_name, "..") != 0) {
			assert_in_range(n, 0, COUNT(names) - 1);
			names[n++] = strdup(de->d_name);
		}
	}
	closedir(d);
	qsort(names, n, sizeof *names, unit_by_name);
	for (size_t i = 0; i < n; i++) {
		snprintf(sub, sizeof sub, "%s/%s", path, names[i]);
		assert_int_equal(lstat(sub, &st), 0);
		if (S_ISDIR(st.st_mode)) {
			unit_list(sub, skip, list, size);
		} else if (S_ISREG(st.st_mode)) {
			size_t len = strlen(list);

			snprintf(list + len, size - len, "%s\n", sub + skip);
		}
		free(names[i]);
	}
}

/* The regular files below the temporary directory, one a line. */
static UNUSED const char *
files_there(void)
{
	static char list[8192];

	list[0] = '\0';
	unit_list(dir, strlen(dir) + 1, list, sizeof list);
	return list;
}

/* How many descriptors this process has open. */
static UNUSED unsigned
open_fds(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 256; fd++) {
		n += fcntl(fd, F_GETFD) != -1;
	}
	return n;
}

static UNUSED void
assert_has(const char *text, const char *part)
{
	if (strstr(text, part) == NULL) {
		fail_msg("\"%s\" is not in:\n%s", part, text);
	}
}

static UNUSED void
assert_lacks(const char *text, const char *part)
{
	if (strstr(text, part) != NULL) {
		fail_msg("\"%s\" is in:\n%s", part, text);
	}
}

static UNUSED int
make_dir(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/mailstile-unit.XXXXXX");
	return mkdtemp(dir) == NULL ? -1 : 0;
}

static UNUSED int
remove_dir(void **state)
{
	char cmd[128];

	(void)state;
	snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
	return system(cmd);
}

#endif
