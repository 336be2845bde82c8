/* SPDX-License-Identifier: MIT */
/*
 * Stand-in for the kernel's <linux/in6.h>, which redefines what a libc's <netinet/in.h> has: the two constants that
 * radcli's sendserver.c takes from it (ipv6(7), RFC 5014).
 */
#ifndef MAILSTILE_LINUX_IN6_H
#define MAILSTILE_LINUX_IN6_H

#define IPV6_ADDR_PREFERENCES 72
#define IPV6_PREFER_SRC_PUBLIC 0x0002

#endif
