/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* The applets: by the first word, or by the name the program was called with. Nearly empty, so that tests can link all the rest. */
#include "cert.h"
#include "config.h"
#include "console.h"
#include "ctl.h"
#include "queue.h"
#include "selftest.h"
#include "server.h"
#include "settings.h"
#include "str.h"
#include "users.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static int
version_main(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	print(STDOUT_FILENO, "mailstile %s\n", VERSION);
	return 0;
}

#if TOOLS && ACCOUNTS
#define APPLETS "queue | status | users | "
#elif TOOLS
#define APPLETS "queue | status | "
#else
#define APPLETS ""
#endif

#if RADCHECKPASSWORD
#define RCP "radcheckpassword | "
#else
#define RCP ""
#endif

#if SETTINGS
#define SET "get | set | unset | apply | "
#else
#define SET ""
#endif

#if CONSOLE
#define ON_SITE "console | "
#else
#define ON_SITE ""
#endif

#if SELFTEST
#define TRIES "selftest | "
#else
#define TRIES ""
#endif

static const struct applet {
	const char *name;
	int (*run)(int argc, char **argv);
} applets[] = {
	{ "serve", serve_main },
	{ "inetd", inetd_main },
	{ "check", check_main },
	{ "keygen", keygen_main },
	{ "mkqueue", mkqueue_main },
#if TOOLS
	{ "queue", queue_main },
	{ "status", status_main },
#if ACCOUNTS
	{ "users", users_main },
#endif
#endif
#if SETTINGS
	{ "get", get_main },
	{ "set", set_main },
	{ "unset", unset_main },
	{ "apply", apply_main },
#endif
#if CONSOLE
	{ "console", console_main },
#endif
#if SELFTEST
	{ "selftest", selftest_main },
#endif
#if RADCHECKPASSWORD
	{ "radcheckpassword", radcheckpassword_main },
#endif
	{ "version", version_main },
};

static const struct applet *
find(const char *name)
{
	for (size_t i = 0; i < sizeof applets / sizeof applets[0]; i++) {
		if (strcmp(applets[i].name, name) == 0) {
			return &applets[i];
		}
	}
	return NULL;
}

int
main(int argc, char **argv)
{
	const char *name = argc > 0 ? argv[0] : "";
	const char *slash = strrchr(name, '/');
	const struct applet *a = find(slash == NULL ? name : slash + 1);
	int fd;

	/* Started with a standard descriptor closed, what we open would take its place and then be redirected. */
	do {
		fd = open("/dev/null", O_RDWR);
	} while (fd >= 0 && fd < 3);
	if (fd == -1 || close(fd) == -1) {
		return 111;
	}

	if (a != NULL) {
		return a->run(argc, argv);
	}
	a = argc > 1 ? find(argv[1]) : NULL;
	if (a != NULL) {
		return a->run(argc - 1, argv + 1);
	}
	print(STDERR_FILENO,
	    "usage: mailstile serve | inetd | check | keygen | mkqueue | " APPLETS SET ON_SITE TRIES RCP
	    "version [options]; see mailstile(8)\n");
	return 100;
}
