/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Asks dns.c from the command line, as a delivery process would: the two files are read first, then, when root, it goes into an empty
 * directory. For test/integration/test_dns.py.
 *
 *   dns-ask [-c DIR] [-r RESOLV_CONF] [-h HOSTS] [-p PORT] [-s SECONDS] [-m MAX] mx|a|both NAME...
 *
 * For each name a line: status, milliseconds, and "PREFERENCE HOST" or addresses, with commas between them. "-" stands for no host.
 */
#include "dns.h"
#include "str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST 100

static const char *const statuses[] = { "ok", "nodata", "noname", "trouble", "ignore" };

static void
ask(const struct dns_conf *c, const char *kind, const char *name, size_t max, int seconds)
{
	static struct dns_mx mx[MOST + 1];
	static struct addr addr[MOST + 1];
	char text[ADDR_TEXT_MAX];
	int64_t begin = mono_ms();
	enum dns_status st;
	size_t n;

	/* What is behind the last place must stay. */
	memset(&mx[max], 0x5a, sizeof mx[0]);
	memset(&addr[max], 0x5a, sizeof addr[0]);
	if (strcmp(kind, "mx") == 0) {
		st = dns_mx(c, name, mx, max, &n, begin + seconds * INT64_C(1000));
	} else {
		st = dns_addr(c, name, strcmp(kind, "both") == 0, addr, max, &n, begin + seconds * INT64_C(1000));
	}
	printf("%s %lld ", statuses[st], (long long)(mono_ms() - begin));
	for (size_t i = 0; i < n; i++) {
		if (strcmp(kind, "mx") == 0) {
			printf(
			    "%s%u %s", i == 0 ? "" : ",", mx[i].preference, mx[i].host[0] == '\0' ? "-" : mx[i].host);
		} else {
			printf("%s%s", i == 0 ? "" : ",", addr_text(&addr[i], text));
		}
	}
	putchar('\n');
	fflush(stdout);
	if (n > max || mx[max].host[0] != 0x5a || addr[max].ip[0] != 0x5a) {
		abort();
	}
}

int
main(int argc, char **argv)
{
	static struct dns_conf c;
	const char *jail = NULL, *resolv = NULL, *hosts = NULL;
	int opt, port = 53, seconds = 10, max = 20;

	while ((opt = getopt(argc, argv, "c:r:h:p:s:m:")) != -1) {
		switch (opt) {
		case 'c':
			jail = optarg;
			break;
		case 'r':
			resolv = optarg;
			break;
		case 'h':
			hosts = optarg;
			break;
		case 'p':
			port = atoi(optarg);
			break;
		case 's':
			seconds = atoi(optarg);
			break;
		case 'm':
			max = atoi(optarg);
			break;
		default:
			return 100;
		}
	}
	if (argc - optind < 2 || max < 1 || max > MOST) {
		return 100;
	}
	dns_conf_load(&c, resolv, hosts);
	c.port = (uint16_t)port;
	if (jail != NULL && (chdir(jail) == -1 || chroot(".") == -1)) {
		perror(jail);
		return 111;
	}
	for (int i = optind + 1; i < argc; i++) {
		ask(&c, argv[optind], argv[i], (size_t)max, seconds);
	}
	return 0;
}
