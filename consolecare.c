/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* The console's look at a running box: live status, log, reboot. Commands are fixed at compile time; nothing typed gets into one. */
#include "consoleint.h"

#if CONSOLE

#include "ctl.h"
#include "str.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOG_LINES 18
#define LOG_SECONDS 10
#define LIVE_MS 2000

void
console_live(void)
{
	do {
		console_run(status_main, "status", WITH_SOCKET, NULL, NULL);
		print(STDOUT_FILENO, "(any key stops)\n");
	} while (!line_key(LIVE_MS));
}

/* Start a command of config.h, its words separated by spaces, with its output to `out`. In the child. */
static void
command(const char *words, int out)
{
	static char mem[256];
	char *argv[16], *rest = mem;
	int n = 0;

	str_copy(mem, sizeof mem, words);
	while (n < 15 && (argv[n] = strsep(&rest, " ")) != NULL) {
		n++;
	}
	argv[n] = NULL;
	if (n > 0 && dup2(out, STDOUT_FILENO) != -1 && dup2(out, STDERR_FILENO) != -1) {
		alarm(LOG_SECONDS);
		execvp(argv[0], argv);
	}
	print(STDOUT_FILENO, "%s: %s\n", words, errno == ENOENT ? "not on this box" : strerror(errno));
	_exit(111);
}

/* The last lines of text[0..len), with what a terminal would obey made harmless. */
static void
show_tail(char *text, size_t len)
{
	size_t from = len;

	for (int lines = 0; from > 0; from--) {
		lines += text[from - 1] == '\n' && from < len;
		if (lines == LOG_LINES) {
			break;
		}
	}
	for (size_t i = from; i < len; i++) {
		if (text[i] != '\n' && (text[i] < ' ' || text[i] > '~')) {
			text[i] = '?';
		}
	}
	(void)write_all(STDOUT_FILENO, text + from, len - from);
}

void
console_log(void)
{
	char text[4096];
	size_t len = 0;
	ssize_t n;
	int p[2];
	pid_t pid;

	if (pipe2(p, O_CLOEXEC) == -1) {
		return;
	}
	pid = fork();
	if (pid == 0) {
		command(CONSOLE_LOG, p[1]);
	}
	close(p[1]);
	/* What is kept are the last octets. */
	while ((n = read(p[0], text + len, sizeof text - len)) > 0) {
		len += (size_t)n;
		if (len == sizeof text) {
			len /= 2;
			memmove(text, text + len, len);
		}
	}
	close(p[0]);
	if (pid > 0) {
		(void)waitpid(pid, NULL, 0);
	}
	show_tail(text, len);
}

void
console_reboot(void)
{
	if (console_sure("Reboot")) {
		pid_t pid = fork();

		if (pid == 0) {
			command(CONSOLE_REBOOT, STDOUT_FILENO);
		}
		if (pid > 0) {
			(void)waitpid(pid, NULL, 0);
		}
	}
}

#endif
