/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* The words of the SMTP server: reply.c, and which of them stands for which decision of the warden. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "reply.h"
#include "smtpint.h"
#include "unit.h"

#include <regex.h>

static void
test_texts(void **state)
{
	regex_t re;

	(void)state;
	/* A code, an enhanced code of the same class (RFC 2034), and words in printable ASCII. */
	assert_int_equal(
	    regcomp(&re, "^[245][0-5][0-9] [245]\\.[0-9]{1,2}\\.[0-9]{1,2} [!-~][ -~]*$", REG_EXTENDED), 0);
	assert_string_equal(reply_text(R_NONE), "");
	for (int r = R_NONE + 1; r < R_COUNT; r++) {
		const char *text = reply_text((enum reply)r);

		assert_non_null(text);
		if (r == R_GO_AHEAD) {
			assert_string_equal(text, "354 go ahead"); /* intermediate replies have none */
		} else if (regexec(&re, text, 0, NULL, 0) != 0 || text[0] != text[4]) {
			fail_msg("%s", text);
		}
		assert_in_range(strlen(text), 5, 510);
		assert_int_not_equal(strncmp(text, "521", 3), 0); /* RFC 6409 7 */
		for (int other = R_NONE + 1; other < r; other++) {
			assert_string_not_equal(text, reply_text((enum reply)other));
		}
	}
	regfree(&re);
}

static void
test_codes(void **state)
{
	static const struct {
		enum reply r;
		const char *code;
	} t[] = {
		{ R_AUTH_OK, "235 2.7.0" },
		{ R_AUTH_REFUSED, "535 5.7.8" },
		{ R_AUTH_LATER, "454 4.7.0" },
		{ R_AUTH_TURN, "454 4.7.0" },
		{ R_AUTH_ALREADY, "503 " },
		{ R_AUTH_MECHANISM, "504 5.5.4" },
		{ R_AUTH_BASE64, "501 5.5.2" },
		{ R_AUTH_CANCELLED, "501 " },
		{ R_AUTH_LONG, "500 5.5.6" },
		{ R_NEED_LOGIN, "530 5.7.0" },
		{ R_NEED_TLS, "530 5.7.0" },
		{ R_TLS_READY, "220 " },
		{ R_TLS_ALREADY, "503 " },
		{ R_TLS_UNAVAILABLE, "454 " },
		{ R_TOO_MANY_RCPT, "452 4.5.3" },
		{ R_TOO_BIG, "552 5.3.4" },
		{ R_NO_SPACE, "452 4.3.1" },
		{ R_NO_CLOCK, "451 " },
		{ R_SPOOL_ERROR, "451 " },
		{ R_NO_RELAY, "550 5.7.1" },
		{ R_SENDER_UNQUALIFIED, "554 " },
		{ R_RCPT_UNQUALIFIED, "554 " },
		{ R_SENDER_SYNTAX, "501 " },
		{ R_PARAMETER_UNKNOWN, "555 5.5.4" },
		{ R_ADDRESS_UTF8, "553 5.6.7" },
		{ R_BARE, "550 5.5.2" },
		{ R_LOOP, "554 5.4.6" },
		{ R_UNKNOWN, "500 " },
		{ R_NOT_IMPLEMENTED, "502 " },
		{ R_HELO_FIRST, "503 " },
		{ R_AUTH_TOO_MANY, "421 " },
		{ R_BAD_COMMANDS, "421 " },
		{ R_TIMEOUT, "421 4.4.2" },
		{ R_SHUTDOWN, "421 " },
		{ R_BROKEN, "421 " },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(t); i++) {
		assert_memory_equal(reply_text(t[i].r), t[i].code, strlen(t[i].code));
	}
}

static void
test_bad_commands(void **state)
{
	static const enum reply no[] = { R_NONE, R_DONE, R_RCPT_OK, R_AUTH_REFUSED, R_AUTH_LATER, R_AUTH_TURN,
		R_NO_RELAY, R_TOO_MANY_RCPT, R_SPOOL_ERROR, R_LOOP, R_TOO_BIG };
	static const enum reply yes[] = { R_UNKNOWN, R_LINE_LONG, R_ARGUMENT, R_RCPT_SYNTAX, R_HELO_FIRST, R_NEED_TLS,
		R_AUTH_BASE64, R_AUTH_LONG };

	(void)state;
	for (size_t i = 0; i < COUNT(no); i++) {
		assert_int_equal(reply_is_bad_command(no[i]), 0);
	}
	for (size_t i = 0; i < COUNT(yes); i++) {
		assert_int_equal(reply_is_bad_command(yes[i]), 1);
	}
}

/* Each verdict has its own reply; a number that is none must not read as success. */
static void
test_verdicts(void **state)
{
	static const enum reply want[V_COUNT] = {
		[V_OK] = R_SENDER_OK,
		[V_AUTH_REFUSED] = R_AUTH_REFUSED,
		[V_AUTH_LATER] = R_AUTH_LATER,
		[V_AUTH_TURN] = R_AUTH_TURN,
		[V_NEED_LOGIN] = R_NEED_LOGIN,
		[V_SENDER_REFUSED] = R_SENDER_REFUSED,
		[V_NO_RELAY] = R_NO_RELAY,
		[V_UNQUALIFIED] = R_SENDER_UNQUALIFIED,
		[V_BAD_ADDRESS] = R_BAD_ADDRESS,
		[V_TOO_MANY_RCPT] = R_TOO_MANY_RCPT,
		[V_TOO_BIG] = R_TOO_BIG,
		[V_NO_SPACE] = R_NO_SPACE,
		[V_NO_CLOCK] = R_NO_CLOCK,
		[V_SPOOL_ERROR] = R_SPOOL_ERROR,
#if ACCOUNTS
		[V_AUTH_POLICY] = R_AUTH_POLICY,
		[V_LIMIT_SESSIONS] = R_LIMIT_SESSIONS,
		[V_LIMIT_DAY] = R_LIMIT_DAY,
		[V_LIMIT_RCPT] = R_LIMIT_RCPT,
		[V_LIMIT_RATE] = R_LIMIT_RATE,
		[V_BLOCKED] = R_BLOCKED,
		[V_MAY_NOT_SEND] = R_MAY_NOT_SEND,
		[V_NOT_HIS_SENDER] = R_NOT_HIS_SENDER,
		[V_NO_COUNTS] = R_NO_COUNTS,
#endif
		[V_SKIPPED] = R_MAIL_FIRST,
	};

	(void)state;
	for (int v = V_OK; v < V_COUNT; v++) {
		assert_int_equal(smtp_reply_of((enum verdict)v, R_SENDER_OK, 1), want[v]);
	}
	assert_int_equal(smtp_reply_of(V_UNQUALIFIED, R_RCPT_OK, 0), R_RCPT_UNQUALIFIED);
	assert_int_equal(smtp_reply_of((enum verdict)0, R_DONE, 0), R_SPOOL_ERROR);
	assert_int_equal(smtp_reply_of(V_COUNT, R_DONE, 0), R_SPOOL_ERROR);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_texts),
		cmocka_unit_test(test_codes),
		cmocka_unit_test(test_bad_commands),
		cmocka_unit_test(test_verdicts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
