/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * What GCC expects of its libgcc on MIPS: 64-bit shifts and divisions, and atomic operations, which MIPS16 code has to call. Debian's own libgcc is for
 * CPUs with a floating point unit and would not run without one. The names and what they do are GCC's (Integer library routines, __sync Builtins).
 */
#include <stdint.h>

uint32_t fetch_and_add(volatile uint32_t *p, uint32_t v) __asm__("__sync_fetch_and_add_4");
void synchronize(void) __asm__("__sync_synchronize");

uint32_t
fetch_and_add(volatile uint32_t *p, uint32_t v)
{
	return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);
}

void
synchronize(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

typedef union {
	uint64_t all;
	struct {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
		uint32_t high, low;
#else
		uint32_t low, high;
#endif
	} w;
} wide;

uint64_t __ashldi3(uint64_t v, int n);
uint64_t __lshrdi3(uint64_t v, int n);
int64_t __ashrdi3(int64_t v, int n);
uint64_t __udivdi3(uint64_t a, uint64_t b);
uint64_t __umoddi3(uint64_t a, uint64_t b);
int64_t __divdi3(int64_t a, int64_t b);
int64_t __moddi3(int64_t a, int64_t b);

uint64_t
__ashldi3(uint64_t v, int n)
{
	wide x = { v };

	if (n >= 32) {
		x.w.high = x.w.low << (n - 32);
		x.w.low = 0;
	} else if (n > 0) {
		x.w.high = x.w.high << n | x.w.low >> (32 - n);
		x.w.low <<= n;
	}
	return x.all;
}

uint64_t
__lshrdi3(uint64_t v, int n)
{
	wide x = { v };

	if (n >= 32) {
		x.w.low = x.w.high >> (n - 32);
		x.w.high = 0;
	} else if (n > 0) {
		x.w.low = x.w.low >> n | x.w.high << (32 - n);
		x.w.high >>= n;
	}
	return x.all;
}

int64_t
__ashrdi3(int64_t v, int n)
{
	wide x = { (uint64_t)v };
	uint32_t sign = x.w.high >> 31 ? UINT32_MAX : 0;

	if (n >= 32) {
		x.w.low = n == 32 ? x.w.high : x.w.high >> (n - 32) | sign << (64 - n);
		x.w.high = sign;
	} else if (n > 0) {
		x.w.low = x.w.low >> n | x.w.high << (32 - n);
		x.w.high = x.w.high >> n | sign << (32 - n);
	}
	return (int64_t)x.all;
}

/* Bit by bit, from the first that counts. */
static uint64_t
divide(uint64_t a, uint64_t b, uint64_t *rest)
{
	wide q = { 0 }, d = { b }, r = { a };
	int n = 0;

	if (d.w.high == 0 && r.w.high == 0 && d.w.low != 0) {
		*rest = r.w.low % d.w.low;
		return r.w.low / d.w.low;
	}
	while (n < 63 && d.w.high >> 31 == 0 && d.all < r.all) {
		d.w.high = d.w.high << 1 | d.w.low >> 31;
		d.w.low <<= 1;
		n++;
	}
	for (; n >= 0; n--) {
		q.w.high = q.w.high << 1 | q.w.low >> 31;
		q.w.low <<= 1;
		if (r.all >= d.all) {
			r.all -= d.all;
			q.w.low |= 1;
		}
		d.w.low = d.w.low >> 1 | d.w.high << 31;
		d.w.high >>= 1;
	}
	*rest = r.all;
	return q.all;
}

uint64_t
__udivdi3(uint64_t a, uint64_t b)
{
	uint64_t rest;

	return divide(a, b, &rest);
}

uint64_t
__umoddi3(uint64_t a, uint64_t b)
{
	uint64_t rest;

	divide(a, b, &rest);
	return rest;
}

int64_t
__divdi3(int64_t a, int64_t b)
{
	uint64_t rest;
	uint64_t q = divide(a < 0 ? -(uint64_t)a : (uint64_t)a, b < 0 ? -(uint64_t)b : (uint64_t)b, &rest);

	return (int64_t)((a < 0) != (b < 0) ? -q : q);
}

int64_t
__moddi3(int64_t a, int64_t b)
{
	uint64_t rest;

	divide(a < 0 ? -(uint64_t)a : (uint64_t)a, b < 0 ? -(uint64_t)b : (uint64_t)b, &rest);
	return (int64_t)(a < 0 ? -rest : rest);
}
