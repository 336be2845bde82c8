/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* Network addresses in one form: 16 octets, IPv4 mapped. */
#include "addr.h"

#include "str.h"

#include <arpa/inet.h>
#include <string.h>

static const uint8_t v4_prefix[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

int
addr_parse(struct addr *a, const char *s, size_t len)
{
	char text[ADDR_TEXT_MAX];

	if (len == 0 || len >= sizeof text || memchr(s, '\0', len) != NULL) {
		return -1;
	}
	memcpy(text, s, len);
	text[len] = '\0';
	if (inet_pton(AF_INET, text, a->ip + 12) == 1) {
		memcpy(a->ip, v4_prefix, sizeof v4_prefix);
		return 0;
	}
	return inet_pton(AF_INET6, text, a->ip) == 1 ? 0 : -1;
}

int
addr_block_parse(struct addr_block *b, const char *s, size_t len)
{
	const char *slash = memchr(s, '/', len);
	size_t alen = slash == NULL ? len : (size_t)(slash - s);
	uint64_t bits;

	if (addr_parse(&b->net, s, alen) == -1) {
		return -1;
	}
	b->bits = 128;
	if (slash != NULL) {
		if (parse_u64(slash + 1, len - alen - 1, addr_is_v4(&b->net) ? 32 : 128, &bits) == -1) {
			return -1;
		}
		b->bits = (int)bits + (addr_is_v4(&b->net) ? 96 : 0);
	}
	/* 10.1.2.3/8 is more likely a slip than a wish for 10.0.0.0/8. */
	for (int i = 0; i < 128; i++) {
		int bit = b->net.ip[i / 8] >> (7 - i % 8) & 1;

		if (i >= b->bits && bit) {
			return -1;
		}
	}
	return 0;
}

int
addr_in_block(const struct addr *a, const struct addr_block *b)
{
	size_t whole = (size_t)b->bits / 8;
	int rest = b->bits % 8;

	if (memcmp(a->ip, b->net.ip, whole) != 0) {
		return 0;
	}
	return rest == 0 || (a->ip[whole] ^ b->net.ip[whole]) >> (8 - rest) == 0;
}

const char *
addr_text(const struct addr *a, char *text)
{
	const uint8_t *ip = a->ip;
	int zeros = -1, run = 1; /* the longest run of zero groups that is longer than one; of equal ones the first */
	struct buf b;

	if (addr_is_v4(a)) {
		return str_fmt(text, ADDR_TEXT_MAX, "%u.%u.%u.%u", ip[12], ip[13], ip[14], ip[15]);
	}
	for (int i = 0; i < 8; i++) {
		int n = 0;

		while (i + n < 8 && ip[2 * (i + n)] == 0 && ip[2 * (i + n) + 1] == 0) {
			n++;
		}
		if (n > run) {
			zeros = i;
			run = n;
		}
	}
	buf_init(&b, text, ADDR_TEXT_MAX);
	for (int i = 0; i < 8; i++) {
		if (i == zeros) {
			buf_str(&b, i + run == 8 ? "::" : ":");
			i += run - 1;
		} else {
			buf_fmt(&b, i > 0 ? ":%x" : "%x", (unsigned)ip[2 * i] << 8 | ip[2 * i + 1]);
		}
	}
	return buf_cstr(&b);
}

int
addr_is_v4(const struct addr *a)
{
	return memcmp(a->ip, v4_prefix, sizeof v4_prefix) == 0;
}

int
addr_same_client(const struct addr *a, const struct addr *b)
{
	/* ::/64 begins like every mapped IPv4 address. */
	return addr_is_v4(a) == addr_is_v4(b) && memcmp(a->ip, b->ip, addr_is_v4(a) ? 16 : 8) == 0;
}

uint32_t
addr_network(const struct addr *a)
{
	uint32_t h = 0x811c9dc5; /* FNV-1a */

	for (size_t i = 0; i < (addr_is_v4(a) ? 15 : 6); i++) {
		h = (h ^ a->ip[i]) * 0x01000193;
	}
	return h ^ h >> 16;
}

int
addr_from_sockaddr(struct addr *a, uint16_t *port, const struct sockaddr *sa)
{
	if (sa->sa_family == AF_INET) {
		struct sockaddr_in in;

		memcpy(&in, sa, sizeof in);
		memcpy(a->ip, v4_prefix, sizeof v4_prefix);
		memcpy(a->ip + 12, &in.sin_addr, 4);
		*port = ntohs(in.sin_port);
		return 0;
	}
	if (sa->sa_family == AF_INET6) {
		struct sockaddr_in6 in6;

		memcpy(&in6, sa, sizeof in6);
		memcpy(a->ip, &in6.sin6_addr, 16);
		*port = ntohs(in6.sin6_port);
		return 0;
	}
	memset(a, 0, sizeof *a);
	*port = 0;
	return -1;
}

socklen_t
addr_to_sockaddr(const struct addr *a, uint16_t port, struct sockaddr_storage *ss)
{
	memset(ss, 0, sizeof *ss);
	if (addr_is_v4(a)) {
		struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port) };

		memcpy(&in.sin_addr, a->ip + 12, 4);
		memcpy(ss, &in, sizeof in);
		return sizeof in;
	}
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };

	memcpy(&in6.sin6_addr, a->ip, 16);
	memcpy(ss, &in6, sizeof in6);
	return sizeof in6;
}
