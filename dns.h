/* SPDX-License-Identifier: MIT */
/*
 * A stub resolver of our own (RFC 1035, 5321 5.1, 7505): questions to the name servers of resolv.conf, over UDP, over TCP
 * when an answer is truncated. It opens no file but what dns_conf_load() reads, so it works in an empty jail, and it does MX,
 * which the C library does not. Answers come from strangers: parsed within bounds, believed only from the server asked, with
 * the id and question sent (random id, random source port). CNAMEs within an answer are followed, up to 8.
 *
 * Memory is static: one answer at a time in a process. System calls: socket connect poll sendto recvfrom close, and those of
 * random_bytes() and mono_ms().
 */
#ifndef MAILSTILE_DNS_H
#define MAILSTILE_DNS_H

#include "addr.h"

#include <stddef.h>
#include <stdint.h>

#define DNS_SERVERS_MAX 3
#define DNS_HOSTS_MAX 64 /* names of /etc/hosts that are kept */

enum dns_type { DNS_A = 1, DNS_CNAME = 5, DNS_MX = 15, DNS_AAAA = 28 };

struct dns_host {
	char name[128];
	struct addr addr;
};

struct dns_conf {
	unsigned servers;
	struct addr server[DNS_SERVERS_MAX];
	uint16_t port;     /* 53; another one in tests */
	unsigned timeout;  /* seconds for one try: option `timeout` */
	unsigned attempts; /* option `attempts` */
	char search[256];  /* words of `search` or `domain`; only RADIUS servers' names are looked up below them */
	unsigned hosts;    /* from /etc/hosts: asked before any server */
	struct dns_host host[DNS_HOSTS_MAX];
	uint64_t stamp; /* of both files as they were read */
};

enum dns_status {
	DNS_OK,
	DNS_NODATA,  /* the name exists, without such records */
	DNS_NONAME,  /* NXDOMAIN, or no domain name at all */
	DNS_TROUBLE, /* no answer, or no good one: try later */
	DNS_IGNORE   /* only from dns_answer(): not an answer to that question */
};

struct dns_mx {
	uint16_t preference;
	uint16_t order; /* random, among equal ones */
	char host[256]; /* lower case; "" = null MX (RFC 7505), then it is the only one */
};

/* Read resolv.conf and hosts (paths; NULL = the system's). Without a name server: 127.0.0.1. Never fails. main. */
void dns_conf_load(struct dns_conf *c, const char *resolv, const char *hosts);
/* 1 when one of the files is another one than it was then. */
int dns_conf_changed(const struct dns_conf *c, const char *resolv, const char *hosts);

/*
 * MX records of `domain`, sorted by preference, equal ones shuffled; at most `max` (the best ones), 1 at least. `deadline` is a
 * mono_ms() time. *n is set. DNS_NODATA: no MX, and the domain itself is to be tried (implicit MX). Records whose host is no
 * host name are left out; DNS_TROUBLE when all are.
 */
enum dns_status dns_mx(
    const struct dns_conf *c, const char *domain, struct dns_mx *mx, size_t max, size_t *n, int64_t deadline);
/* Addresses of `host`, IPv6 and IPv4 in turn (IPv6 first) when `v6`, else IPv4 only. A host in dns_conf.host wins. */
enum dns_status dns_addr(
    const struct dns_conf *c, const char *host, int v6, struct addr *addr, size_t max, size_t *n, int64_t deadline);

/*
 * For tests, fuzzers, and to see whether a name can be asked for. Make a question: its length, 0 when `name` is no domain name: empty
 * parts, parts over 63 octets, over 253 in all, octets that are not printable, backslashes. A dot at the end does not matter.
 */
#define DNS_QUESTION_MAX 271
size_t dns_question(uint8_t *p, size_t cap, uint16_t id, const char *name, uint16_t type);
/*
 * Judge an answer to it. DNS_OK: there are records of that type about the name, CNAMEs followed; each is given to `f` (unless NULL)
 * with the place of its data. *truncated: no more is known, ask over TCP (DNS_TROUBLE).
 */
enum dns_status dns_answer(const uint8_t *question, size_t question_len, const uint8_t *p, size_t len,
    void (*f)(void *ctx, const uint8_t *packet, size_t packet_len, size_t rdata, size_t rdata_len), void *ctx,
    int *truncated);

#endif
