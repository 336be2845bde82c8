/* SPDX-License-Identifier: MIT */
/*
 * radcli's config.h, in place of its configure script's: true for musl and glibc on Linux. Left out on purpose:
 * HAVE_GNUTLS and HAVE_NETTLE (we link neither), HAVE_STRLCPY (Debian 12's glibc has none; radcli brings its own),
 * VERSION and PACKAGE (they would clash with ours and are not used by the library).
 */
#ifndef MAILSTILE_RADCLI_CONFIG_H
#define MAILSTILE_RADCLI_CONFIG_H

#define STDC_HEADERS 1
#define HAVE_ARPA_INET_H 1
#define HAVE_FCNTL_H 1
#define HAVE_GETOPT_H 1
#define HAVE_INTTYPES_H 1
#define HAVE_LIMITS_H 1
#define HAVE_NETDB_H 1
#define HAVE_NETINET_IN_H 1
#define HAVE_PWD_H 1
#define HAVE_SIGNAL_H 1
#define HAVE_STDINT_H 1
#define HAVE_SYSLOG_H 1
#define HAVE_SYS_FILE_H 1
#define HAVE_SYS_IOCTL_H 1
#define HAVE_SYS_SOCKET_H 1
#define HAVE_SYS_STAT_H 1
#define HAVE_SYS_TIME_H 1
#define HAVE_SYS_TYPES_H 1
#define HAVE_SYS_UTSNAME_H 1
#define HAVE_TERMIOS_H 1
#define HAVE_UNISTD_H 1
#define TIME_WITH_SYS_TIME 1

#define HAVE_CLOCK_GETTIME 1
#define HAVE_GETENTROPY 1
#define HAVE_RANDOM 1
#define HAVE_SNPRINTF 1
#define HAVE_VSNPRINTF 1

#endif
