/* SPDX-License-Identifier: MIT */
/* Bounded buffers and small string helpers. Pure: no I/O, no allocation, no locale. Any process. */
#ifndef MAILSTILE_STR_H
#define MAILSTILE_STR_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A buffer over caller's memory. An append that does not fit changes nothing and sets `full`, which stays set until
 * buf_reset(); test it once, before use. The content is not NUL-terminated unless buf_cstr() is called.
 */
struct buf {
	char *p;    /* caller's memory */
	size_t len; /* octets used */
	size_t cap; /* octets there */
	int full;   /* an append did not fit */
};

/* Make `b` an empty buffer over `mem`, `cap` octets. */
void buf_init(struct buf *b, void *mem, size_t cap);
/* Forget the content. */
void buf_reset(struct buf *b);
/* Append `len` octets, a C string, one octet, a decimal number, a printf format. */
void buf_add(struct buf *b, const void *p, size_t len);
void buf_str(struct buf *b, const char *s);
void buf_ch(struct buf *b, char c);
void buf_u64(struct buf *b, uint64_t n);
void buf_fmt(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_vfmt(struct buf *b, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
/* Append `len` octets, each one outside printable ASCII, and double quote, backslash, '=' and, unless `spaces`, space, as \xHH. */
void buf_escaped(struct buf *b, const void *p, size_t len, int spaces);
/* Append `len` octets with each one outside qmail's safe set (A-Za-z0-9.@%+/=:-[]) as '?' (qmail-spec 2.4). */
void buf_safe(struct buf *b, const void *p, size_t len);
/* Append a UTC date as `D Mon YYYY HH:MM:SS -0000` (qmail's form, no leading zero in the day). `t` in seconds. */
void buf_date(struct buf *b, int64_t t);
/* Terminate with NUL, cutting the last octet if there is no room, and return the string. */
char *buf_cstr(struct buf *b);

/* ASCII only, no locale. */
int ascii_lower(int c);
int ascii_isdigit(int c);
/* Compare `len` octets without regard to ASCII case: 0 when equal. */
int ascii_casecmp(const void *a, const void *b, size_t len);
/* The same for C strings. */
int ascii_strcasecmp(const char *a, const char *b);
/* Put a C string into lower case, where it is, and return it. */
char *ascii_strlower(char *s);

/*
 * Read a decimal number that is all of s[0..len). Returns 0 and sets *out, or -1 when it is empty, has another octet, or
 * is over `max`.
 */
int parse_u64(const char *s, size_t len, uint64_t max, uint64_t *out);

/* Is p[0..len) well-formed UTF-8 (RFC 3629), without NUL? 1 or 0. */
int utf8_valid(const void *p, size_t len);

/* Copy C string `s` into dst[size]; returns 0, or -1 (and an empty dst) when it does not fit. */
int str_copy(char *dst, size_t size, const char *s);

/* Format into dst[size] and return it; what does not fit makes it empty, never cut: half a path is another path. */
char *str_fmt(char *dst, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* The same from a va_list, and what does not fit is cut: text for people. */
char *str_vfmt_cut(char *dst, size_t size, const char *fmt, va_list ap) __attribute__((format(printf, 3, 0)));

/* Say something to a person, on descriptor 1 or 2: at most 2047 octets. Applets only. */
void print(int fd, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * The formats that these and buf_fmt(), log_fmt(), log_msg() and diag_put() know: %s %d %u %x %o %c %%, with 0, a width, l, ll, z, and
 * a precision for %s.
 */

/* FNV-1a, of 64 bits. */
uint64_t fnv1a(const void *p, size_t len);

/* Fill from the kernel's generator; never fails: ends the process when the kernel cannot deliver. */
void random_bytes(void *p, size_t len);
/* Milliseconds of a clock that only goes forward. */
int64_t mono_ms(void);
/* Read a whole file of at most `cap` octets. Returns the length, or -1 with errno (EFBIG when it is longer). */
long file_read(const char *path, void *mem, size_t cap);
/* Write all, restarting after EINTR. 0 or -1 with errno. */
int write_all(int fd, const void *p, size_t len);

#endif
