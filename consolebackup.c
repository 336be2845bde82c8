/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * The settings as a block of text that can be pasted: PEM, of a head (version, rounds, salt), the files, and a tag. With a passphrase they are
 * encrypted (ChaCha20-Poly1305, RFC 8439, the head authenticated) and secrets are among them; without one everybody can read it, and the tag
 * only tells what was damaged. The key is for one backup, so the nonce is zero.
 *
 * A file is its name and NUL, '-' when there was none, else '+', its length in four octets, the highest first, and what is in it; in the order
 * of `settings`. A file that is not mentioned stays as it is. Nothing is believed before the tag is right.
 */
#include "consoleint.h"

#if CONSOLE

#include "ctlfile.h"
#include "settings.h"
#include "str.h"
#include "stretch.h"

#include <bearssl.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BANNER "MAILSTILE BACKUP"
#define VERSION_OCTET 1
#define HEAD (1 + STRETCH_HEAD)
#define TAG 16
#define FILES_MAX 90000 /* as PEM, that is under CONSOLE_PASTE_MAX */
#define WORD_MAX 128

struct block {
	uint8_t mem[HEAD + FILES_MAX + TAG]; /* 0 version, 1 rounds, 5 salt */
	size_t len;
	int full;
};

/* Encrypt or decrypt the files, and make the tag. */
static void
crypt_block(struct block *b, const char *word, int encrypt, uint8_t tag[TAG])
{
	static br_ssl_engine_context eng; /* knows the implementations that suit this CPU */
	static const uint8_t nonce[12];
	uint8_t key[STRETCH_KEY];

	br_ssl_engine_set_default_chapol(&eng);
	stretch(key, word, b->mem + 1);
	eng.ipoly(key, nonce, b->mem + HEAD, b->len - HEAD, b->mem, HEAD, tag, eng.ichacha, encrypt);
	explicit_bzero(key, sizeof key);
}

static void
block_free(struct block *b)
{
	if (b != NULL) {
		explicit_bzero(b, sizeof *b);
		free(b);
	}
}

/* ---- backup ---- */

/* Add a file. 0, or -1: it cannot be in there. */
static int
add_file(struct block *b, const char *key)
{
	uint8_t *p = b->mem + b->len;
	size_t name = strlen(key) + 1, room = HEAD + FILES_MAX - b->len;
	char path[ANSWER_MAX];
	long n;

	if (room < name + 5) {
		return -1;
	}
	n = file_read(ctl_path(console.home, key, path, sizeof path), p + name + 5, room - name - 5);
	if (n == -1 && errno != ENOENT) {
		return -1;
	}
	memcpy(p, key, name);
	p[name] = n == -1 ? '-' : '+';
	b->len += name + 1;
	if (n != -1) {
		stretch_put32(p + name + 1, (uint32_t)n);
		b->len += 4 + (size_t)n;
	}
	return 0;
}

void
console_backup(void)
{
	struct block *b = calloc(1, sizeof *b);
	char word[WORD_MAX] = "", *text;
	int with = console_sure("With the secrets, under a passphrase");
	size_t len;

	if (b == NULL || (with && console_secret("Passphrase", word, sizeof word) != LINE_OK)) {
		block_free(b);
		return;
	}
	b->len = HEAD;
	for (size_t i = 0; i < settings_n; i++) {
		if ((settings[i].secret && !with) || add_file(b, settings[i].key) == -1) {
			print(STDOUT_FILENO, "left out: %s\n", settings[i].key);
		}
	}
	b->mem[0] = VERSION_OCTET;
	stretch_begin(b->mem + 1, with ? CONSOLE_ROUNDS : 1);
	crypt_block(b, word, 1, b->mem + b->len);
	explicit_bzero(word, sizeof word);
	len = br_pem_encode(NULL, NULL, b->len + TAG, BANNER, BR_PEM_LINE64);
	text = malloc(len + 1);
	if (text != NULL) {
		br_pem_encode(text, b->mem, b->len + TAG, BANNER, BR_PEM_LINE64);
		(void)write_all(STDOUT_FILENO, text, len);
		free(text);
	}
	block_free(b);
}

/* ---- restore ---- */

static void
take_octets(void *ctx, const void *p, size_t len)
{
	struct block *b = ctx;

	if (len > sizeof b->mem - b->len) {
		b->full = 1;
		return;
	}
	memcpy(b->mem + b->len, p, len);
	b->len += len;
}

/* The block out of its text. 0 or -1. */
static int
decode(struct block *b, const char *text, size_t len)
{
	br_pem_decoder_context d;

	br_pem_decoder_init(&d);
	while (len > 0) {
		size_t n = br_pem_decoder_push(&d, text, len);

		text += n;
		len -= n;
		switch (br_pem_decoder_event(&d)) {
		case BR_PEM_BEGIN_OBJ:
			if (strcmp(br_pem_decoder_name(&d), BANNER) != 0) {
				return -1;
			}
			br_pem_decoder_setdest(&d, take_octets, b);
			break;
		case BR_PEM_END_OBJ:
			return b->full || b->len < HEAD + TAG || b->mem[0] != VERSION_OCTET ||
				stretch_get32(b->mem + 1) - 1 >= STRETCH_ROUNDS_MAX
			    ? -1
			    : 0;
		case BR_PEM_ERROR:
			return -1;
		default:
			break;
		}
	}
	return -1;
}

/* The files as edits, which point into the block. Their number, or -1: they are none that this program makes. */
static int
to_edits(const struct block *b, struct settings_edit *edit)
{
	const uint8_t *p = b->mem + HEAD, *end = b->mem + b->len;
	int n = 0;

	for (size_t i = 0; i < settings_n; i++) {
		size_t name = strlen(settings[i].key) + 1, left = (size_t)(end - p);
		struct settings_edit *e = &edit[n];

		if (left < name + 1 || memcmp(p, settings[i].key, name) != 0) {
			continue; /* left out */
		}
		*e = (struct settings_edit){ .s = &settings[i] };
		p += name;
		if (*p++ == '+') {
			if (left < name + 5 || left - name - 5 < stretch_get32(p)) {
				return -1;
			}
			e->len = stretch_get32(p);
			e->text = (const char *)p + 4;
			p += 4 + e->len;
		}
		n++;
	}
	return p == end ? n : -1;
}

/* Undo console_backup(): the edits, NULL after a word about why not. */
static int
open_block(struct block *b, struct settings_edit *edit)
{
	char word[WORD_MAX] = "";
	uint8_t tag[TAG];
	size_t len = 0;
	char *text = console_paste(&len);
	int n = -1;

	if (text == NULL) {
		return -1;
	}
	if (decode(b, text, len) == -1) {
		print(STDOUT_FILENO, "It is no backup.\n");
	} else if (stretch_get32(b->mem + 1) == 1 || line_ask("Its passphrase: ", word, sizeof word, 1) == LINE_OK) {
		b->len -= TAG;
		crypt_block(b, word, 0, tag);
		if (!stretch_same(tag, b->mem + b->len, TAG)) {
			print(STDOUT_FILENO, "It is damaged, or that is not its passphrase.\n");
		} else {
			n = to_edits(b, edit);
			if (n < 1) {
				print(STDOUT_FILENO, "There is something in it that this version does not know.\n");
			}
		}
	}
	explicit_bzero(word, sizeof word);
	console_wipe(text, len);
	return n;
}

/* 1 when the files are there, and may be applied. */
int
console_restore(void)
{
	struct block *b = calloc(1, sizeof *b);
	struct settings_edit *edit = calloc(settings_n, sizeof *edit);
	struct settings_home h;
	int rc = 100, n = b == NULL || edit == NULL ? -1 : open_block(b, edit);

	if (n > 0 && settings_open(&h, console.home) == 0) {
		rc = settings_change_all(&h, edit, (size_t)n);
		settings_close(&h);
	}
	console_done(rc);
	block_free(b);
	free(edit);
	return rc == 0;
}

#endif
