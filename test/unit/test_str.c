/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Buffers, small string helpers, and reading and writing of files: str.c.
 * LDFLAGS: -Wl,--wrap=write,--wrap=read
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "str.h"
#include "unit.h"

#include <errno.h>
#include <limits.h>
#include <time.h>

/* Short and interrupted calls: `interrupts` of them fail with EINTR, then each moves at most `most` octets. */
static unsigned interrupts;
static size_t most = SIZE_MAX;

static int
interrupted(void)
{
	if (interrupts > 0) {
		interrupts--;
		errno = EINTR;
		return 1;
	}
	return 0;
}

ssize_t __real_write(int fd, const void *p, size_t len);
ssize_t __wrap_write(int fd, const void *p, size_t len);
ssize_t
__wrap_write(int fd, const void *p, size_t len)
{
	return interrupted() ? -1 : __real_write(fd, p, len < most ? len : most);
}

ssize_t __real_read(int fd, void *p, size_t len);
ssize_t __wrap_read(int fd, void *p, size_t len);
ssize_t
__wrap_read(int fd, void *p, size_t len)
{
	return interrupted() ? -1 : __real_read(fd, p, len < most ? len : most);
}

static void
assert_buf(struct buf *b, const char *want)
{
	assert_int_equal(b->len, strlen(want));
	assert_memory_equal(b->p, want, b->len);
}

static void
test_buf(void **state)
{
	char mem[8];
	struct buf b;

	(void)state;
	memset(mem, '#', sizeof mem);
	buf_init(&b, mem, 5);
	buf_add(&b, "ab", 2);
	buf_add(&b, NULL, 0);
	buf_ch(&b, 'c');
	assert_buf(&b, "abc");
	buf_str(&b, "de");
	assert_buf(&b, "abcde");
	assert_int_equal(b.full, 0);
	buf_ch(&b, 'f');
	assert_buf(&b, "abcde");
	assert_int_equal(b.full, 1);
	assert_int_equal(mem[5], '#');

	/* The flag sticks: what would fit is refused, too. */
	buf_reset(&b);
	assert_int_equal(b.full, 0);
	buf_str(&b, "123456");
	buf_ch(&b, 'x');
	buf_u64(&b, 1);
	buf_fmt(&b, "%d", 1);
	assert_int_equal(b.len, 0);
	assert_int_equal(b.full, 1);

	buf_reset(&b);
	buf_add(&b, mem, SIZE_MAX);
	assert_int_equal(b.full, 1);
	assert_int_equal(mem[5], '#');

	buf_reset(&b);
	buf_str(&b, "abcd");
	assert_string_equal(buf_cstr(&b), "abcd");
	assert_int_equal(b.full, 0);
	buf_ch(&b, 'e');
	assert_string_equal(buf_cstr(&b), "abcd");
	assert_int_equal(b.full, 1);
}

static void
test_buf_fmt(void **state)
{
	char mem[8];
	struct buf b;

	(void)state;
	buf_init(&b, mem, 4);
	memset(mem, '#', sizeof mem);
	buf_fmt(&b, "%s", "abc");
	assert_buf(&b, "abc");
	buf_fmt(&b, "%s", "");
	assert_int_equal(b.full, 0);
	buf_fmt(&b, "%s", "d");
	assert_buf(&b, "abc");
	assert_int_equal(b.full, 1);
	assert_int_equal(mem[4], '#');
	assert_string_equal(str_fmt(mem, 4, "%d", 123), "123");
	assert_string_equal(str_fmt(mem, 4, "%d", 1234), "");
}

/* Our formats beside the C library's, whole, and cut at every length. */
#define SAME(...) \
	do { \
		char want_[128], got_[128]; \
		int len_ = snprintf(want_, sizeof want_, __VA_ARGS__); \
		assert_string_equal(str_fmt(got_, sizeof got_, __VA_ARGS__), want_); \
		for (size_t cap_ = 1; cap_ <= (size_t)len_ + 1; cap_++) { \
			memset(got_, '#', sizeof got_); \
			cut(got_, cap_, __VA_ARGS__); \
			assert_memory_equal(got_, want_, cap_ - 1); \
			assert_int_equal(got_[cap_ - 1], '\0'); \
			assert_int_equal(got_[cap_], '#'); \
		} \
	} while (0)

static void __attribute__((format(printf, 3, 4))) cut(char *dst, size_t cap, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	assert_ptr_equal(str_vfmt_cut(dst, cap, fmt, ap), dst);
	va_end(ap);
}

static void
test_formats(void **state)
{
	static const char unended[3] = { 'a', 'b', 'c' };

	(void)state;
	SAME("nothing to do");
	SAME("100%%, %c%c", 'x', '%');
	SAME("%s|%.3s|%.9s|%.0s|%.*s|%.*s", "one", "four", "five", "none", 2, "star", -1, "all");
	SAME("%.3s %.*s", unended, 2, unended);
	SAME("%d %d %d %d", 0, -1, INT_MAX, INT_MIN);
	SAME("%u %u %x %o", 0U, UINT_MAX, 0xbeefU, 0644U);
	SAME("%ld %ld %lu %lx", LONG_MAX, LONG_MIN, ULONG_MAX, ULONG_MAX);
	SAME("%lld %lld %llu %016llx", LLONG_MAX, LLONG_MIN, ULLONG_MAX, 0x123456789ULL);
	SAME("%zu %zx", SIZE_MAX, (size_t)17);
	SAME("%02d:%02d %04o %08x %5d|%3s|%1d", 7, 11, 0600U, 0xcafeU, -42, "a", 12345);
	SAME("%05d %05d %03d", -42, 42, -4242);
}

static void
test_u64(void **state)
{
	static const struct {
		uint64_t n;
		const char *text;
	} t[] = { { 0, "0" }, { 9, "9" }, { 10, "10" }, { UINT64_MAX, "18446744073709551615" } };
	static const struct {
		const char *text;
		uint64_t max;
		int rc;
		uint64_t n;
	} p[] = {
		{ "0", 0, 0, 0 },
		{ "007", 7, 0, 7 },
		{ "8", 7, -1, 0 },
		{ "", 9, -1, 0 },
		{ "-1", UINT64_MAX, -1, 0 },
		{ "+1", UINT64_MAX, -1, 0 },
		{ " 1", UINT64_MAX, -1, 0 },
		{ "1 ", UINT64_MAX, -1, 0 },
		{ "1x", UINT64_MAX, -1, 0 },
		{ "\xb2", UINT64_MAX, -1, 0 },
		{ "18446744073709551615", UINT64_MAX, 0, UINT64_MAX },
		{ "18446744073709551616", UINT64_MAX, -1, 0 },
		{ "18446744073709551620", UINT64_MAX, -1, 0 },
		{ "99999999999999999999", UINT64_MAX, -1, 0 },
	};
	char mem[32];
	struct buf b;

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		buf_init(&b, mem, sizeof mem);
		buf_u64(&b, t[i].n);
		assert_buf(&b, t[i].text);
	}
	for (size_t i = 0; i < COUNT(p); i++) {
		uint64_t n = 42;

		assert_int_equal(parse_u64(p[i].text, strlen(p[i].text), p[i].max, &n), p[i].rc);
		assert_int_equal(n, p[i].rc == 0 ? p[i].n : 42);
	}
}

static void
test_escapes(void **state)
{
	uint8_t all[256];
	char mem[1024];
	struct buf b;
	size_t n;

	(void)state;
	for (unsigned i = 0; i < 256; i++) {
		all[i] = (uint8_t)i;
	}
	for (int spaces = 0; spaces < 2; spaces++) {
		for (unsigned i = 0; i < 256; i++) {
			int plain = i > 32 && i < 127 && strchr("\"\\=", (int)i) == NULL;
			char want[8];

			snprintf(want, sizeof want, plain || (spaces && i == 32) ? "%c" : "\\x%02x", i);
			buf_init(&b, mem, sizeof mem);
			buf_escaped(&b, all + i, 1, spaces);
			assert_buf(&b, want);
		}
	}
	buf_init(&b, mem, 6);
	buf_escaped(&b, "ab\n\n", 4, 0);
	assert_buf(&b, "ab\\x0a");
	assert_int_equal(b.full, 1);

	buf_init(&b, mem, sizeof mem);
	buf_safe(&b, all, sizeof all);
	assert_int_equal(b.len, 256);
	n = 0;
	for (unsigned i = 0; i < 256; i++) {
		int safe = i > 0 &&
		    strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.@%+/=:-[]", (int)i) != NULL;

		assert_int_equal((uint8_t)mem[i], safe ? i : '?');
		n += safe ? 1 : 0;
	}
	assert_int_equal(n, 72);
}

static void
test_date(void **state)
{
	static const struct {
		int64_t t;
		const char *text;
	} dates[] = {
		{ 0, "1 Jan 1970 00:00:00 -0000" },
		{ 951827696, "29 Feb 2000 12:34:56 -0000" },
		{ 1795303419, "21 Nov 2026 23:23:39 -0000" },
		{ 4102444799, "31 Dec 2099 23:59:59 -0000" },
	};
	char mem[64];
	struct buf b;

	(void)state;
	setenv("TZ", "Asia/Tokyo", 1);
	tzset();
	for (size_t i = 0; i < COUNT(dates); i++) {
		buf_init(&b, mem, sizeof mem);
		buf_date(&b, dates[i].t);
		assert_buf(&b, dates[i].text);
	}
	/* A year no calendar has. */
	buf_init(&b, mem, sizeof mem);
	buf_date(&b, INT64_MAX);
	assert_buf(&b, "1 Jan 1970 00:00:00 -0000");
}

static void
test_case(void **state)
{
	char text[] = "@AZ[`az{0 \xc0", none[] = "";

	(void)state;
	for (int c = 0; c < 256; c++) {
		int upper = c >= 'A' && c <= 'Z';

		assert_int_equal(ascii_lower(c), upper ? c + 32 : c);
		assert_int_equal(ascii_isdigit(c), c >= '0' && c <= '9');
	}
	assert_int_equal(ascii_casecmp("AbC\0x", "aBc\0X", 5), 0);
	assert_int_not_equal(ascii_casecmp("abc", "abd", 3), 0);
	assert_int_not_equal(ascii_casecmp("@", "`", 1), 0);
	assert_int_not_equal(ascii_casecmp("\xc0", "\xe0", 1), 0);
	assert_int_equal(ascii_casecmp("a", "b", 0), 0);
	assert_int_equal(ascii_strcasecmp("Date", "dATE"), 0);
	assert_int_not_equal(ascii_strcasecmp("Date", "dATEs"), 0);
	assert_int_not_equal(ascii_strcasecmp("Dates", "dATE"), 0);
	assert_int_equal(ascii_strcasecmp("", ""), 0);
	assert_ptr_equal(ascii_strlower(text), text);
	assert_string_equal(text, "@az[`az{0 \xc0");
	assert_string_equal(ascii_strlower(none), "");
}

static void
test_utf8(void **state)
{
	static const struct {
		const char *s;
		int ok;
	} t[] = {
		{ "", 1 },
		{ "plain\x7f", 1 },
		{ "\xc2\x80", 1 },
		{ "\xdf\xbf", 1 },
		{ "\xe0\xa0\x80", 1 },
		{ "\xed\x9f\xbf\xee\x80\x80", 1 },
		{ "\xf0\x90\x80\x80", 1 },
		{ "\xf4\x8f\xbf\xbf", 1 },
		{ "\x80", 0 },     /* a continuation alone */
		{ "\xc0\xaf", 0 }, /* overlong */
		{ "\xc1\xbf", 0 },
		{ "\xe0\x9f\xbf", 0 },
		{ "\xf0\x8f\xbf\xbf", 0 },
		{ "\xed\xa0\x80", 0 },     /* a surrogate */
		{ "\xf4\x90\x80\x80", 0 }, /* over U+10FFFF */
		{ "\xf5\x80\x80\x80", 0 },
		{ "\xff", 0 },
		{ "a\xc3", 0 }, /* cut */
		{ "\xe2\x82", 0 },
		{ "\xc3(", 0 },
		{ "\xf0\x90\x80(", 0 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		/* On the heap, so that reading past the end is found. */
		size_t len = strlen(t[i].s);
		char *copy = malloc(len + (len == 0));

		memcpy(copy, t[i].s, len);
		if (utf8_valid(copy, len) != t[i].ok) {
			fail_msg("row %zu", i);
		}
		free(copy);
	}
	assert_int_equal(utf8_valid("a\0b", 3), 0);
}

static void
test_copy_and_random(void **state)
{
	char dst[4] = "xyz";
	uint8_t a[40], b[40];
	int64_t before = mono_ms();

	(void)state;
	assert_int_equal(str_copy(dst, sizeof dst, "abc"), 0);
	assert_string_equal(dst, "abc");
	assert_int_equal(str_copy(dst, sizeof dst, "abcd"), -1);
	assert_string_equal(dst, "");
	random_bytes(a, sizeof a);
	random_bytes(b, sizeof b);
	assert_memory_not_equal(a, b, sizeof a);
	assert_in_range(mono_ms(), before, before + 10000);
}

static void
test_files(void **state)
{
	char mem[16];
	int fd;

	(void)state;
	errno = 0;
	assert_int_equal(file_read(in("none"), mem, sizeof mem), -1);
	assert_int_equal(errno, ENOENT);
	assert_int_equal(file_read(dir, mem, sizeof mem), -1);
	assert_int_equal(errno, EISDIR);

	interrupts = 3;
	most = 3;
	fd = open(in("f"), O_WRONLY | O_CREAT, 0600);
	assert_int_equal(write_all(fd, "0123456789", 10), 0);
	assert_int_equal(close(fd), 0);
	interrupts = 2;
	assert_int_equal(file_read(in("f"), mem, sizeof mem), 10);
	assert_memory_equal(mem, "0123456789", 10);
	/* Exactly as much as there is room for, and one more. */
	assert_int_equal(file_read(in("f"), mem, 10), 10);
	memset(mem, '#', sizeof mem);
	assert_int_equal(file_read(in("f"), mem, 9), -1);
	assert_int_equal(errno, EFBIG);
	assert_int_equal(mem[9], '#');
	put("empty", "");
	assert_int_equal(file_read(in("empty"), mem, 0), 0);
	most = SIZE_MAX;

	fd = open("/dev/full", O_WRONLY);
	assert_int_equal(write_all(fd, "x", 0), 0);
	assert_int_equal(write_all(fd, "x", 1), -1);
	assert_int_equal(errno, ENOSPC);
	close(fd);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_buf),
		cmocka_unit_test(test_buf_fmt),
		cmocka_unit_test(test_formats),
		cmocka_unit_test(test_u64),
		cmocka_unit_test(test_escapes),
		cmocka_unit_test(test_date),
		cmocka_unit_test(test_case),
		cmocka_unit_test(test_utf8),
		cmocka_unit_test(test_copy_and_random),
		cmocka_unit_test(test_files),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
