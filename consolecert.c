/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The console's certificates: a request for an authority, and what comes back, pasted. Nothing of it is written before all of it is there and fits.
 */
#include "consoleint.h"

#if CONSOLE

#include "cert.h"
#include "certlook.h"
#include "control.h"
#include "ctlfile.h"
#include "settings.h"
#include "str.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char *
console_paste(size_t *len)
{
	char line[ANSWER_MAX], *mem = malloc(CONSOLE_PASTE_MAX);
	enum line_result r = mem == NULL ? LINE_ABANDONED : LINE_OK;
	int too_long = 0;
	struct buf b;

	print(STDOUT_FILENO, "Paste it now; it is not shown. A line with just a dot ends it.\n");
	buf_init(&b, mem, CONSOLE_PASTE_MAX);
	while (r == LINE_OK && (r = line_ask("", line, sizeof line, 1)) == LINE_OK && strcmp(line, ".") != 0) {
		too_long |= strlen(line) + 1 == sizeof line;
		buf_str(&b, line);
		buf_ch(&b, '\n');
	}
	explicit_bzero(line, sizeof line);
	*len = b.len;
	buf_ch(&b, '\0');
	if (r == LINE_OK && !too_long && !b.full && *len > 0) {
		return mem;
	}
	if (r == LINE_OK) {
		print(STDOUT_FILENO, *len == 0 ? "Nothing came.\n" : "Refused: too long. Nothing is changed.\n");
	}
	console_wipe(mem, b.len);
	return NULL;
}

void
console_wipe(char *mem, size_t len)
{
	if (mem != NULL) {
		explicit_bzero(mem, len);
		free(mem);
	}
}

void
console_make(void)
{
	char path[ANSWER_MAX];
	int there = access(ctl_path(console.home, "servercert.pem", path, sizeof path), F_OK) == 0;

	if (!there || console_sure("There is one. Replace it, and its key, by new ones")) {
		console_run(keygen_main, "keygen", WITH_HOME, there ? "-f" : NULL, NULL);
	}
}

#if SELFTEST

/* For another name than control/me, and ours: nobody else's is its own authority, and has no end. */
static int
is_ours_but_named_else(void)
{
	struct diag d = { .emit = diag_to_nobody };
	struct config *c = config_load(console.home, &d);
	char until[11] = "";
	int self = 0;

	/* Ours are valid on any day; the clock may not be set yet. */
	if (c != NULL && c->chain.key_type != 0 &&
	    certlook_judge(&c->chain, c->me, BUILD_EPOCH, NULL, 0) == BR_ERR_X509_BAD_SERVER_NAME) {
		certlook_leaf(&c->chain, until, &self);
	}
	config_free(c);
	return self && strcmp(until, "9999-12-31") == 0;
}

#endif

void
console_renew(void)
{
#if SELFTEST
	char answer[8];

	if (is_ours_but_named_else() &&
	    line_ask(
		"\nThe certificate, made here, is for another name. Make one for this name?\n(Return does; n does not)\n> ",
		answer, sizeof answer, 0) == LINE_OK &&
	    answer[0] != 'n') {
		console_run(keygen_main, "keygen", WITH_HOME, "-f", NULL);
	}
#endif
}

void
console_request(void)
{
	char path[ANSWER_MAX], text[4096];
	long n;

	ctl_path(console.home, "request.pem", path, sizeof path);
	(void)unlink(path);
	console_run(keygen_main, "keygen", WITH_HOME, "-r", path);
	n = file_read(path, text, sizeof text);
	if (n > 0) {
		(void)write_all(STDOUT_FILENO, text, (size_t)n);
		print(STDOUT_FILENO, "Send this to the authority. Its answer is pasted with p.\n");
	}
}

void
console_certificate(void)
{
	struct settings_edit edit[2] = { { .s = setting_find("servercert.pem") },
		{ .s = setting_find("serverkey.pem") } };
	struct settings_home h;
	int rc = 111;

	print(STDOUT_FILENO,
	    "The certificate, then those of the authorities between; a key that belongs to it may come, too.\n");
	edit[0].text = console_paste(&edit[0].len);
	if (edit[0].text == NULL) {
		return;
	}
	if (settings_open(&h, console.home) == 0) {
		h.strict = 1;
		rc = settings_change_all(&h, edit, strstr(edit[0].text, "PRIVATE KEY-") == NULL ? 1 : 2);
		settings_close(&h);
	}
	console_done(rc);
	console_wipe((char *)(uintptr_t)edit[0].text, edit[0].len);
}

#endif
