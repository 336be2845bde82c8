/* SPDX-License-Identifier: MIT */
/* The reply texts of the SMTP server: code, enhanced code (RFC 3463), words. Pure. smtp process. */
#ifndef MAILSTILE_REPLY_H
#define MAILSTILE_REPLY_H

#include "config.h"

enum reply {
	R_NONE, /* already sent */
	R_DONE, /* not R_OK: <unistd.h> has a macro of that name */
	R_SENDER_OK,
	R_RCPT_OK,
	R_FLUSHED,
	R_HELP,
	R_VRFY,
	R_GO_AHEAD,
	R_TLS_READY,
	R_AUTH_OK,
	/* what the warden decided; see reply_of_verdict() */
	R_AUTH_REFUSED,
	R_AUTH_LATER,
	R_AUTH_TURN,
	R_NEED_LOGIN,
	R_SENDER_REFUSED,
	R_NO_RELAY,
	R_SENDER_UNQUALIFIED,
	R_RCPT_UNQUALIFIED,
	R_BAD_ADDRESS,
	R_TOO_MANY_RCPT,
	R_TOO_BIG,
	R_NO_SPACE,
	R_NO_CLOCK,
	R_SPOOL_ERROR,
#if ACCOUNTS
	R_AUTH_POLICY,
	R_LIMIT_SESSIONS,
	R_LIMIT_DAY,
	R_LIMIT_RCPT,
	R_LIMIT_RATE,
	R_BLOCKED,
	R_MAY_NOT_SEND,
	R_NOT_HIS_SENDER,
	R_NO_COUNTS,
#endif
	/* syntax and sequence */
	R_UNKNOWN,
	R_NOT_IMPLEMENTED,
	R_LINE_LONG,
	R_ARGUMENT,
	R_NO_ARGUMENT,
	R_PARAMETER,
	R_PARAMETER_UNKNOWN,
	R_SENDER_SYNTAX,
	R_RCPT_SYNTAX,
	R_ADDRESS_LONG,
	R_ADDRESS_UTF8,
	R_HELO_FIRST,
	R_MAIL_FIRST,
	R_RCPT_FIRST,
	R_NESTED_MAIL,
	R_IN_TRANSACTION,
	R_BDAT_ONLY,
	R_NEED_TLS,
	R_TLS_ALREADY,
	R_TLS_UNAVAILABLE,
	R_AUTH_ALREADY,
	R_AUTH_NOT_HERE,
	R_AUTH_MECHANISM,
	R_AUTH_BASE64,
	R_AUTH_CANCELLED,
	R_AUTH_LONG,
	/* about a message */
	R_LOOP,
	/* and the session ends */
	R_BARE,
	R_TLS_INJECTION,
	R_BDAT_SYNTAX,
	R_NOT_LISTED,
	R_AUTH_TOO_MANY,
	R_BAD_COMMANDS,
	R_TIMEOUT,
	R_TOO_SLOW,
	R_SHUTDOWN,
	R_BROKEN,
	R_COUNT
};

/* The line for a reply, without CRLF. */
const char *reply_text(enum reply r);
/* 1 when it counts towards BAD_COMMANDS_MAX. */
int reply_is_bad_command(enum reply r);

#endif
