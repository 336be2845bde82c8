/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* Command lines: options.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "options.h"
#include "unit.h"

/* What `words` come to: "p=/x d ? | operand operand". */
static const char *
all(char **words)
{
	static char out[256];
	struct options o;
	int c;

	out[0] = '\0';
	options_begin(&o, words);
	while ((c = options_next(&o, "dsH:p:")) != 0) {
		char one[64];

		snprintf(one, sizeof one, strchr("Hp", c) != NULL ? "%c=%s " : "%c ", c, o.value);
		strcat(out, one);
	}
	strcat(out, "|");
	for (; *o.word != NULL; o.word++) {
		strcat(strcat(out, " "), *o.word);
	}
	return out;
}

#define ALL(...) all((char **)(uintptr_t)(const char *[]){ "applet", __VA_ARGS__, NULL })

static void
test_options(void **state)
{
	char *none[] = { NULL };

	(void)state;
	assert_string_equal(all(none), "|");
	assert_string_equal(ALL(NULL), "|");
	assert_string_equal(ALL("-d"), "d |");
	assert_string_equal(ALL("-d", "-s"), "d s |");
	assert_string_equal(ALL("-ds"), "d s |");
	assert_string_equal(ALL("-H", "/home"), "H=/home |");
	assert_string_equal(ALL("-H/home", "-dp", "x", "-s"), "H=/home d p=x s |");
	assert_string_equal(ALL("-dsH/home"), "d s H=/home |");
	assert_string_equal(ALL("-p", "-d"), "p=-d |");
	assert_string_equal(ALL("-d", "one", "-s"), "d | one -s");
	assert_string_equal(ALL("-d", "--", "-s"), "d | -s");
	assert_string_equal(ALL("-"), "| -");
	assert_string_equal(ALL(""), "| ");
	assert_string_equal(ALL("-x"), "? |");
	assert_string_equal(ALL("-dxs", "y"), "d ? s | y");
	assert_string_equal(ALL("-:"), "? |");
	assert_string_equal(ALL("-p"), "? |");
	assert_string_equal(ALL("-dp"), "d ? |");
	assert_string_equal(ALL("--version"), "? ? ? ? s ? ? ? |");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_options),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
