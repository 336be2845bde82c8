/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/* The words of the SMTP server, in one place: operators grep for them and customers read them aloud on the telephone. */
#include "reply.h"

static const char *const texts[R_COUNT] = {
	[R_NONE] = "",
	[R_DONE] = "250 2.0.0 ok",
	[R_SENDER_OK] = "250 2.1.0 sender ok",
	[R_RCPT_OK] = "250 2.1.5 recipient ok",
	[R_FLUSHED] = "250 2.0.0 flushed",
	[R_HELP] = "214 2.0.0 see RFC 5321",
	[R_VRFY] = "252 2.0.0 not verified, but mail for it may be tried",
	[R_GO_AHEAD] = "354 go ahead",
	[R_TLS_READY] = "220 2.0.0 ready to start TLS",
	[R_AUTH_OK] = "235 2.7.0 logged in",
	[R_AUTH_REFUSED] = "535 5.7.8 name or password is wrong",
	[R_AUTH_LATER] = "454 4.7.0 the login cannot be checked now, try again later",
	[R_AUTH_TURN] = "454 4.7.0 strangers guess at this password; from here you must wait, try again later",
	[R_NEED_LOGIN] = "530 5.7.0 log in first",
	[R_SENDER_REFUSED] = "553 5.7.1 this sender is refused here",
	[R_NO_RELAY] = "550 5.7.1 no mail for this domain without a login",
	[R_SENDER_UNQUALIFIED] = "554 5.1.8 the sender's domain must be a full one",
	[R_RCPT_UNQUALIFIED] = "554 5.1.2 the recipient's domain must be a full one",
	[R_BAD_ADDRESS] = "553 5.1.3 this address cannot be used",
	[R_TOO_MANY_RCPT] = "452 4.5.3 too many recipients, send to the others in another message",
	[R_TOO_BIG] = "552 5.3.4 the message is too big",
	[R_NO_SPACE] = "452 4.3.1 no space for mail, try again later",
	[R_NO_CLOCK] = "451 4.3.0 the clock is not set yet, try again later",
	[R_SPOOL_ERROR] = "451 4.3.0 the message cannot be stored, try again later",
#if ACCOUNTS
	[R_AUTH_POLICY] = "454 4.7.0 this account is not set up properly, ask your provider",
	[R_LIMIT_SESSIONS] = "454 4.7.0 this login is in use too often, close other programs or try again later",
	[R_LIMIT_DAY] = "450 4.7.1 no more messages today, it goes on at midnight",
	[R_LIMIT_RCPT] = "450 4.7.1 no more recipients today, it goes on at midnight",
	[R_LIMIT_RATE] = "450 4.7.1 too many messages at a time, it goes on in a minute",
	[R_BLOCKED] = "550 5.7.1 this account is blocked, ask your provider",
	[R_MAY_NOT_SEND] = "550 5.7.1 this account may not send mail",
	[R_NOT_HIS_SENDER] = "550 5.7.1 this account may not use this sender",
	[R_NO_COUNTS] = "451 4.3.0 messages cannot be counted now, try again later",
#endif
	[R_UNKNOWN] = "500 5.5.1 unknown command",
	[R_NOT_IMPLEMENTED] = "502 5.5.1 command not implemented",
	[R_LINE_LONG] = "500 5.5.2 line too long",
	[R_ARGUMENT] = "501 5.5.4 argument missing or wrong",
	[R_NO_ARGUMENT] = "501 5.5.4 no argument allowed",
	[R_PARAMETER] = "501 5.5.4 parameter value is wrong",
	[R_PARAMETER_UNKNOWN] = "555 5.5.4 unknown parameter",
	[R_SENDER_SYNTAX] = "501 5.1.7 sender address is malformed",
	[R_RCPT_SYNTAX] = "501 5.1.3 recipient address is malformed",
	[R_ADDRESS_LONG] = "501 5.1.3 address is too long",
	[R_ADDRESS_UTF8] = "553 5.6.7 address needs SMTPUTF8, or is not UTF-8",
	[R_HELO_FIRST] = "503 5.5.1 send EHLO first",
	[R_MAIL_FIRST] = "503 5.5.1 send MAIL first",
	[R_RCPT_FIRST] = "503 5.5.1 no valid recipient yet",
	[R_NESTED_MAIL] = "503 5.5.1 sender already given",
	[R_IN_TRANSACTION] = "503 5.5.1 not during a mail transaction",
	[R_BDAT_ONLY] = "503 5.5.1 go on with BDAT, or RSET",
	[R_NEED_TLS] = "530 5.7.0 send STARTTLS first",
	[R_TLS_ALREADY] = "503 5.5.1 TLS is already on",
	[R_TLS_UNAVAILABLE] = "454 4.7.0 TLS is not available now",
	[R_AUTH_ALREADY] = "503 5.5.1 already logged in",
	[R_AUTH_NOT_HERE] = "503 5.5.1 no login on this port",
	[R_AUTH_MECHANISM] = "504 5.5.4 mechanism is not PLAIN or LOGIN",
	[R_AUTH_BASE64] = "501 5.5.2 malformed login, expected base64",
	[R_AUTH_CANCELLED] = "501 5.7.0 login cancelled",
	[R_AUTH_LONG] = "500 5.5.6 login line too long",
	[R_LOOP] = "554 5.4.6 the message has passed too many hosts, it is looping",
	[R_BARE] = "550 5.5.2 lines must end with CRLF, without bare CR, bare LF or NUL",
	[R_TLS_INJECTION] = "554 5.5.1 nothing may follow STARTTLS before the handshake",
	[R_BDAT_SYNTAX] = "501 5.5.4 expected BDAT SIZE or BDAT SIZE LAST; closing",
	[R_NOT_LISTED] = "554 5.7.1 your address may not send mail here",
	[R_AUTH_TOO_MANY] = "421 4.7.0 too many failed logins",
	[R_BAD_COMMANDS] = "421 4.7.0 too many wrong commands",
	[R_TIMEOUT] = "421 4.4.2 timeout",
	[R_TOO_SLOW] = "421 4.4.2 the message comes in too slowly",
	[R_SHUTDOWN] = "421 4.3.2 closing down, try again later",
	[R_BROKEN] = "421 4.3.0 internal trouble, try again later",
};

const char *
reply_text(enum reply r)
{
	return texts[r];
}

int
reply_is_bad_command(enum reply r)
{
	return r >= R_UNKNOWN && r <= R_AUTH_LONG;
}
