/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Bounded buffers and small helpers that every process uses. Nothing here allocates, and nothing looks at the locale.
 */
#include "str.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

void
buf_init(struct buf *b, void *mem, size_t cap)
{
	b->p = mem;
	b->cap = cap;
	buf_reset(b);
}

void
buf_reset(struct buf *b)
{
	b->len = 0;
	b->full = 0;
}

void
buf_add(struct buf *b, const void *p, size_t len)
{
	if (b->full || len > b->cap - b->len) {
		b->full = 1;
		return;
	}
	if (len > 0) {
		memcpy(b->p + b->len, p, len);
		b->len += len;
	}
}

void
buf_str(struct buf *b, const char *s)
{
	buf_add(b, s, strlen(s));
}

void
buf_ch(struct buf *b, char c)
{
	buf_add(b, &c, 1);
}

void
buf_u64(struct buf *b, uint64_t n)
{
	char digits[20];
	size_t i = sizeof digits;

	do {
		digits[--i] = (char)('0' + n % 10);
		n /= 10;
	} while (n > 0);
	buf_add(b, digits + i, sizeof digits - i);
}

/* ---- printf formats, as many of them as we use: the C library's own are three times as much code as all of this file ---- */

struct field {
	char fill;     /* '0' or ' ' */
	size_t width;  /* at least */
	size_t most;   /* of a string: the precision */
	unsigned size; /* of a number: 0 int, 1 long, 2 long long; size_t is 1 */
};

/* Octets that do not fit are counted only. */
static void
put(struct buf *b, const char *p, size_t len)
{
	size_t room = b->len < b->cap ? b->cap - b->len : 0;

	memcpy(b->p + (room > 0 ? b->len : 0), p, len < room ? len : room);
	b->len += len;
}

static void
put_field(struct buf *b, const struct field *f, const char *p, size_t len)
{
	int sign = f->fill == '0' && len > 0 && *p == '-';

	put(b, p, (size_t)sign);
	for (size_t i = len; i < f->width; i++) {
		put(b, &f->fill, 1);
	}
	put(b, p + sign, len - (size_t)sign);
}

static void
put_number(struct buf *b, const struct field *f, uint64_t n, unsigned base, int negative)
{
	char digits[24];
	size_t i = sizeof digits;

	do {
		digits[--i] = "0123456789abcdef"[n % base];
		n /= base;
	} while (n > 0);
	if (negative) {
		digits[--i] = '-';
	}
	put_field(b, f, digits + i, sizeof digits - i);
}

/* What stands between `%` and the letter. */
static const char *
read_field(struct field *f, const char *p, int *most)
{
	*f = (struct field){ .fill = ' ', .most = SIZE_MAX };
	*most = 0;
	if (*p == '0') {
		f->fill = *p++;
	}
	for (; ascii_isdigit(*p); p++) {
		f->width = f->width * 10 + (size_t)(*p - '0');
	}
	if (*p == '.') {
		f->most = 0;
		*most = *++p == '*';
		for (p += *most; ascii_isdigit(*p); p++) {
			f->most = f->most * 10 + (size_t)(*p - '0');
		}
	}
	for (; *p == 'l' || *p == 'z'; p++) {
		f->size++;
	}
	return p;
}

/* As vsnprintf(): the length that the text has, with cap - 1 octets of it in dst, and a NUL. */
static size_t __attribute__((format(printf, 3, 0))) format(char *dst, size_t cap, const char *fmt, va_list ap)
{
	struct buf b = { .p = dst, .cap = cap - 1 };
	struct field f;
	const char *s;
	int star;
	char c;

	for (const char *p = fmt; *p != '\0'; p++) {
		if (*p != '%') {
			put(&b, p, 1);
			continue;
		}
		p = read_field(&f, p + 1, &star);
		if (star) {
			int most = va_arg(ap, int);

			f.most = most < 0 ? SIZE_MAX : (size_t)most;
		}
		if (*p == 's') {
			s = va_arg(ap, const char *);
			put_field(&b, &f, s, f.most == SIZE_MAX ? strlen(s) : strnlen(s, f.most));
		} else if (*p == 'd') {
			long long n = f.size == 0 ? va_arg(ap, int)
			    : f.size == 1         ? va_arg(ap, long)
						  : va_arg(ap, long long);

			put_number(&b, &f, n < 0 ? -(uint64_t)n : (uint64_t)n, 10, n < 0);
		} else if (*p == 'u' || *p == 'x' || *p == 'o') {
			unsigned long long n = f.size == 0 ? va_arg(ap, unsigned)
			    : f.size == 1                  ? va_arg(ap, unsigned long)
							   : va_arg(ap, unsigned long long);

			put_number(&b, &f, n, *p == 'u' ? 10 : *p == 'x' ? 16 : 8, 0);
		} else {
			c = *p == 'c' ? (char)va_arg(ap, int) : *p;
			put(&b, &c, 1);
		}
	}
	dst[b.len < b.cap ? b.len : b.cap] = '\0';
	return b.len;
}

void
buf_vfmt(struct buf *b, const char *fmt, va_list ap)
{
	size_t room = b->cap - b->len;
	size_t n;

	if (b->full || room == 0) {
		b->full = 1;
		return;
	}
	n = format(b->p + b->len, room, fmt, ap);
	/* It needs room for its NUL, so exactly full counts as too long. */
	if (n >= room) {
		b->full = 1;
		return;
	}
	b->len += n;
}

void
buf_fmt(struct buf *b, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	buf_vfmt(b, fmt, ap);
	va_end(ap);
}

void
buf_escaped(struct buf *b, const void *p, size_t len, int spaces)
{
	static const char hex[] = "0123456789abcdef";
	const uint8_t *s = p;

	for (size_t i = 0; i < len; i++) {
		uint8_t c = s[i];

		if ((c > 32 || (spaces && c == 32)) && c < 127 && c != '"' && c != '\\' && c != '=') {
			buf_ch(b, (char)c);
		} else {
			char x[4] = { '\\', 'x', hex[c >> 4], hex[c & 15] };

			buf_add(b, x, sizeof x);
		}
	}
}

void
buf_safe(struct buf *b, const void *p, size_t len)
{
	const uint8_t *s = p;

	for (size_t i = 0; i < len; i++) {
		int c = s[i];

		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || ascii_isdigit(c) ||
		    (c != 0 && strchr(".@%+/=:-[]", c) != NULL)) {
			buf_ch(b, (char)c);
		} else {
			buf_ch(b, '?');
		}
	}
}

void
buf_date(struct buf *b, int64_t t)
{
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	time_t tt = (time_t)t;
	struct tm tm;

	if (gmtime_r(&tt, &tm) == NULL) {
		memset(&tm, 0, sizeof tm);
		tm.tm_mday = 1;
		tm.tm_year = 70;
	}
	buf_fmt(b, "%d %.3s %d %02d:%02d:%02d -0000", tm.tm_mday, months + 3 * tm.tm_mon, tm.tm_year + 1900, tm.tm_hour,
	    tm.tm_min, tm.tm_sec);
}

char *
buf_cstr(struct buf *b)
{
	if (b->len == b->cap) {
		b->full = 1;
		b->len--;
	}
	b->p[b->len] = '\0';
	return b->p;
}

int
ascii_lower(int c)
{
	return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

int
ascii_isdigit(int c)
{
	return c >= '0' && c <= '9';
}

int
ascii_casecmp(const void *a, const void *b, size_t len)
{
	const uint8_t *x = a, *y = b;

	for (size_t i = 0; i < len; i++) {
		int d = ascii_lower(x[i]) - ascii_lower(y[i]);

		if (d != 0) {
			return d;
		}
	}
	return 0;
}

int
ascii_strcasecmp(const char *a, const char *b)
{
	size_t len = strlen(a);

	if (strlen(b) != len) {
		return 1;
	}
	return ascii_casecmp(a, b, len);
}

char *
ascii_strlower(char *s)
{
	for (char *p = s; *p != '\0'; p++) {
		*p = (char)ascii_lower(*p);
	}
	return s;
}

int
parse_u64(const char *s, size_t len, uint64_t max, uint64_t *out)
{
	uint64_t n = 0;

	if (len == 0) {
		return -1;
	}
	for (size_t i = 0; i < len; i++) {
		uint64_t digit = (uint64_t)(s[i] - '0');

		if (!ascii_isdigit(s[i]) || n > (UINT64_MAX - digit) / 10) {
			return -1;
		}
		n = n * 10 + digit;
		if (n > max) {
			return -1;
		}
	}
	*out = n;
	return 0;
}

/* Length of the sequence that starts with octet c, 0 when none does, and the range of its second octet. */
static size_t
utf8_sequence(int c, int *low, int *high)
{
	*low = 0x80;
	*high = 0xbf;
	if (c > 0 && c < 0x80) {
		return 1;
	}
	if (c >= 0xc2 && c <= 0xdf) {
		return 2;
	}
	if (c >= 0xe0 && c <= 0xef) {
		*low = c == 0xe0 ? 0xa0 : 0x80;
		*high = c == 0xed ? 0x9f : 0xbf;
		return 3;
	}
	if (c >= 0xf0 && c <= 0xf4) {
		*low = c == 0xf0 ? 0x90 : 0x80;
		*high = c == 0xf4 ? 0x8f : 0xbf;
		return 4;
	}
	return 0;
}

int
utf8_valid(const void *p, size_t len)
{
	const uint8_t *s = p;
	size_t i = 0;

	while (i < len) {
		int low, high;
		size_t n = utf8_sequence(s[i], &low, &high);

		if (n == 0 || n > len - i) {
			return 0;
		}
		for (size_t k = 1; k < n; k++) {
			if (s[i + k] < low || s[i + k] > high) {
				return 0;
			}
			low = 0x80;
			high = 0xbf;
		}
		i += n;
	}
	return 1;
}

int
str_copy(char *dst, size_t size, const char *s)
{
	size_t len = strlen(s);

	if (len >= size) {
		dst[0] = '\0';
		return -1;
	}
	memcpy(dst, s, len + 1);
	return 0;
}

char *
str_fmt(char *dst, size_t size, const char *fmt, ...)
{
	va_list ap;
	size_t n;

	va_start(ap, fmt);
	n = format(dst, size, fmt, ap);
	va_end(ap);
	if (n >= size) {
		dst[0] = '\0';
	}
	return dst;
}

char *
str_vfmt_cut(char *dst, size_t size, const char *fmt, va_list ap)
{
	format(dst, size, fmt, ap);
	return dst;
}

void
print(int fd, const char *fmt, ...)
{
	char mem[2048];
	va_list ap;

	va_start(ap, fmt);
	str_vfmt_cut(mem, sizeof mem, fmt, ap);
	va_end(ap);
	(void)write_all(fd, mem, strlen(mem)); /* who should be told that nobody can be told? */
}

void
random_bytes(void *p, size_t len)
{
	uint8_t *s = p;

	while (len > 0) {
		ssize_t n = getrandom(s, len, 0);

		if (n < 0) {
			if (errno == EINTR) {
				continue;
			}
			_exit(111);
		}
		s += n;
		len -= (size_t)n;
	}
}

int64_t
mono_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

long
file_read(const char *path, void *mem, size_t cap)
{
	uint8_t *p = mem;
	size_t len = 0;
	uint8_t extra;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	int saved;

	if (fd == -1) {
		return -1;
	}
	for (;;) {
		ssize_t n = len < cap ? read(fd, p + len, cap - len) : read(fd, &extra, 1);

		if (n == 0) {
			close(fd);
			return (long)len;
		}
		if (n > 0 && len == cap) {
			errno = EFBIG;
			break;
		}
		if (n < 0 && errno != EINTR) {
			break;
		}
		if (n > 0) {
			len += (size_t)n;
		}
	}
	saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

int
write_all(int fd, const void *p, size_t len)
{
	const uint8_t *s = p;

	while (len > 0) {
		ssize_t n = write(fd, s, len);

		if (n < 0) {
			if (errno == EINTR) {
				continue;
			}
			return -1;
		}
		s += n;
		len -= (size_t)n;
	}
	return 0;
}

uint64_t
fnv1a(const void *p, size_t len)
{
	const uint8_t *s = p;
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < len; i++) {
		h = (h ^ s[i]) * UINT64_C(0x100000001b3);
	}
	return h;
}
