/* SPDX-License-Identifier: MIT */
/* Network addresses as 16 octets, IPv4 mapped into ::ffff:0:0/96. Pure but for addr_from_sockaddr. Any process. */
#ifndef MAILSTILE_ADDR_H
#define MAILSTILE_ADDR_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define ADDR_TEXT_MAX 48

struct addr {
	uint8_t ip[16];
};

/* A block: the first `bits` (0-128) of `net`. */
struct addr_block {
	struct addr net;
	int bits;
};

/* Parse an IPv4 or IPv6 address without brackets or scope. 0 or -1. */
int addr_parse(struct addr *a, const char *s, size_t len);
/* Parse ADDRESS or ADDRESS/BITS (bits 0-32 for IPv4, 0-128 for IPv6; bits outside the mask must be zero). 0 or -1. */
int addr_block_parse(struct addr_block *b, const char *s, size_t len);
/* 1 when `a` lies in `b`. */
int addr_in_block(const struct addr *a, const struct addr_block *b);
/* Write as text (IPv4 as dotted quad, IPv6 as in RFC 5952, no brackets) into text[ADDR_TEXT_MAX]. Returns text. */
const char *addr_text(const struct addr *a, char *text);
int addr_is_v4(const struct addr *a);
/* 1 when equal, counting an IPv6 client by its /64. */
int addr_same_client(const struct addr *a, const struct addr *b);
/* A number for the network of an address, its /24 or /48, whichever it is: nearly always another one for another network. */
uint32_t addr_network(const struct addr *a);
/* From and to the kernel's form; `port` in host order. addr_from_sockaddr: -1 when it is neither IPv4 nor IPv6. */
int addr_from_sockaddr(struct addr *a, uint16_t *port, const struct sockaddr *sa);
socklen_t addr_to_sockaddr(const struct addr *a, uint16_t port, struct sockaddr_storage *ss);

#endif
