/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Control files as text: one-line files, whose first line counts; list files, one entry a line, `#` comments. Trailing white space is cut.
 * What the entries mean is control.c's and relayconf.c's to say. main only, before any fork.
 */
#include "ctlfile.h"

#include "config.h"
#include "str.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

const char *
ctl_path(const char *home, const char *name, char *path, size_t size)
{
	struct buf b;

	buf_init(&b, path, size);
	buf_fmt(&b, "%s/control/%s", home, name);
	return buf_cstr(&b);
}

enum ctl_result
ctl_read_path(const char *path, size_t max, char **text, size_t *len, struct diag *d)
{
	struct stat st;
	size_t cap;
	long n;

	*text = NULL;
	if (stat(path, &st) == -1) {
		if (errno == ENOENT) {
			return CTL_MISSING;
		}
		diag_put(d, DIAG_ERROR, path, 0, "cannot be read: %s", strerror(errno));
		return CTL_BAD;
	}
	cap = S_ISREG(st.st_mode) && (uint64_t)st.st_size < max ? (size_t)st.st_size + 1 : max;
	*text = malloc(cap + 1);
	n = *text == NULL ? -1 : file_read(path, *text, cap);
	if (n == -1) {
		diag_put(d, DIAG_ERROR, path, 0, "cannot be read: %s", strerror(errno));
		free(*text);
		*text = NULL;
		return CTL_BAD;
	}
	(*text)[n] = '\0';
	if (strlen(*text) != (size_t)n) {
		diag_put(d, DIAG_ERROR, path, 0, "contains a NUL octet; expected text");
		free(*text);
		*text = NULL;
		return CTL_BAD;
	}
	*len = (size_t)n;
	return CTL_OK;
}

enum ctl_result
ctl_read(const char *home, const char *name, char **text, struct diag *d)
{
	char path[512];
	size_t len;

	return ctl_read_path(ctl_path(home, name, path, sizeof path), CONTROL_FILE_MAX, text, &len, d);
}

char *
ctl_next_line(char **rest)
{
	char *line = *rest;
	char *end;

	if (*line == '\0') {
		return NULL;
	}
	end = strchr(line, '\n');
	if (end == NULL) {
		end = line + strlen(line);
		*rest = end;
	} else {
		*rest = end + 1;
	}
	while (end > line && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r')) {
		end--;
	}
	*end = '\0';
	return line;
}

char *
ctl_next_word(char **rest)
{
	char *word = *rest + strspn(*rest, " \t");
	char *end = word + strcspn(word, " \t");

	if (*word == '\0') {
		return NULL;
	}
	*rest = *end == '\0' ? end : end + 1;
	*end = '\0';
	return word;
}

int
ctl_is_entry(const char *line)
{
	return line[0] != '\0' && line[0] != '#';
}

int
ctl_line(const char *home, const char *name, char *dst, size_t size, struct diag *d)
{
	char path[512];
	char *text, *rest, *line;
	int rc = 0;

	switch (ctl_read(home, name, &text, d)) {
	case CTL_MISSING:
		return 1;
	case CTL_BAD:
		return -1;
	case CTL_OK:
		break;
	}
	rest = text;
	line = ctl_next_line(&rest);
	if (line != NULL && line[0] != '\0') {
		for (const char *p = line; *p != '\0'; p++) {
			if ((uint8_t)*p < 32 || *p == 127) {
				rc = -1;
			}
		}
		/* A line that is no good changes nothing: str_copy() would empty dst. */
		if (rc == -1 || strlen(line) >= size || str_copy(dst, size, line) == -1) {
			diag_put(d, DIAG_ERROR, ctl_path(home, name, path, sizeof path), 1,
			    "expected one line of printable text, at most %zu octets", size - 1);
			rc = -1;
		}
	}
	free(text);
	return rc;
}

/* Heap sort: no memory of its own, and no bad case that a file could bring about. */
void
names_sort(struct names *l)
{
	char **v = l->v;

	for (size_t start = l->n / 2, end = l->n; end > 1;) {
		char *s;
		size_t i, child;

		if (start > 0) {
			s = v[--start];
		} else {
			s = v[--end];
			v[end] = v[0];
		}
		for (i = start; (child = 2 * i + 1) < end; i = child) {
			child += child + 1 < end && strcmp(v[child], v[child + 1]) < 0;
			if (strcmp(s, v[child]) >= 0) {
				break;
			}
			v[i] = v[child];
		}
		v[i] = s;
	}
}

int
ctl_names(const char *home, const char *name, struct names *l, struct diag *d)
{
	char *rest, *line;
	size_t lines = 1;

	switch (ctl_read(home, name, &l->mem, d)) {
	case CTL_MISSING:
		return 1;
	case CTL_BAD:
		return -1;
	case CTL_OK:
		break;
	}
	for (char *p = l->mem; *p != '\0'; p++) {
		*p = (char)ascii_lower(*p);
		lines += *p == '\n';
	}
	l->v = calloc(lines, sizeof *l->v);
	if (l->v == NULL) {
		free(l->mem);
		l->mem = NULL;
		return -1;
	}
	rest = l->mem;
	while ((line = ctl_next_line(&rest)) != NULL) {
		if (ctl_is_entry(line)) {
			l->v[l->n++] = line;
		}
	}
	names_sort(l);
	return 0;
}

int
names_one(struct names *l, const char *name)
{
	size_t size = strlen(name) + 1;

	l->mem = malloc(size);
	l->v = malloc(sizeof *l->v);
	if (l->mem == NULL || l->v == NULL) {
		return -1;
	}
	memcpy(l->mem, name, size);
	l->v[0] = ascii_strlower(l->mem);
	l->n = 1;
	return 0;
}

void
names_free(struct names *l)
{
	free(l->v);
	free(l->mem);
}

const char *
names_find(const struct names *l, const char *name)
{
	size_t low = 0, high = l->n;

	while (low < high) {
		size_t half = low + (high - low) / 2;
		int c = strcmp(name, l->v[half]);

		if (c == 0) {
			return l->v[half];
		}
		if (c < 0) {
			high = half;
		} else {
			low = half + 1;
		}
	}
	return NULL;
}

int
names_have(const struct names *l, const char *name)
{
	return names_find(l, name) != NULL;
}

int
ctl_endpoint(char *s, int *any, struct addr *a, uint16_t *port, uint16_t default_port)
{
	char *colon = strrchr(s, ':');
	char *host = s;
	const char *num = NULL;
	uint64_t n = default_port;

	if (s[0] == '[') {
		char *close = strchr(s, ']');

		if (close == NULL || (close[1] != ':' && close[1] != '\0')) {
			return -1;
		}
		num = close[1] == ':' ? close + 2 : NULL;
		host = s + 1;
		*close = '\0';
	} else if (colon != NULL) {
		if (strchr(s, ':') != colon) {
			return -1; /* IPv6 without brackets: is the last part the port? */
		}
		*colon = '\0';
		num = colon + 1;
	} else if (default_port == 0) {
		host = NULL;
		num = s;
	}
	if ((num != NULL && (parse_u64(num, strlen(num), 65535, &n) == -1 || n == 0)) || n == 0) {
		return -1;
	}
	*port = (uint16_t)n;
	memset(a, 0, sizeof *a);
	*any = host == NULL || strcmp(host, "*") == 0;
	return host == NULL || *any ? 0 : addr_parse(a, host, strlen(host));
}

int
ctl_hostname_ok(const char *s)
{
	return s[0] != '.' && s[strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_")] == '\0';
}

int
ctl_host(char *word, char *host, int *numeric, struct addr *a, uint16_t *port, uint16_t default_port)
{
	int any;

	*port = 0;
	if (ctl_endpoint(word, &any, a, port, default_port) == 0) {
		*numeric = !any;
		return any ? -1 : str_copy(host, CTL_HOST_MAX, word[0] == '[' ? word + 1 : word);
	}
	/* Not an address: a name. ctl_endpoint() has cut the port off and checked it; a name of digits and dots is a typing error. */
	*numeric = 0;
	if (*port == 0 || word[0] == '[' || word[0] == '\0' || word[strspn(word, "0123456789.")] == '\0' ||
	    !ctl_hostname_ok(word)) {
		return -1;
	}
	return str_copy(host, CTL_HOST_MAX, word);
}
