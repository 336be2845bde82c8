/* SPDX-License-Identifier: MIT */
/* What smtp.c, smtpauth.c and smtpdata.c share: the one session of this process. Nothing else includes this. */
#ifndef MAILSTILE_SMTPINT_H
#define MAILSTILE_SMTPINT_H

#include "body.h"
#include "msg.h"
#include "parse.h"
#include "reply.h"
#include "smtp.h"

#define LINE_CAP (SASL_LINE_MAX > SMTP_COMMAND_MAX ? SASL_LINE_MAX : SMTP_COMMAND_MAX)

enum phase {
	PH_START = 1, /* no EHLO yet, or TLS has just begun */
	PH_READY = 2,
	PH_MAIL = 4,
	PH_RCPT = 8,
	PH_BDAT = 16, /* at least one BDAT, not the last */
	PH_ANY = 31
};

struct smtp_session {
	const struct smtp_info *info;
	struct conn *c;
	int sock; /* to the warden */
	enum phase phase;
	int esmtp, utf8, loggedin;
	unsigned auth_fails, auth_requests, bad_commands, refusals;
	int64_t start;
	size_t helo_len;
	char helo[256];
	/* the message being received */
	int file;
	int64_t data_start;
	enum reply data_trouble; /* BDAT: reply to give to this and later chunks */
	struct body body;
	/* requests about one transaction that wait to be put to the warden together, and the phase without them */
	enum phase settled;
	unsigned batch_count;
	size_t batch_len;
	uint8_t batch[BATCH_OCTETS];
	char date_field[64], msgid_field[320];
	size_t line_len;
	char line[LINE_CAP + 1];
	uint8_t out[BODY_BUFFER];
};

/* Tell the log. */
void smtp_note(const struct smtp_session *s, enum note_kind kind, int64_t number);
/* End the session: a last reply (or R_NONE) and a word for the log. */
_Noreturn void smtp_bye(struct smtp_session *s, enum reply r, enum note_kind why, int64_t number);
/* End it because the connection failed. */
_Noreturn void smtp_lost(struct smtp_session *s, enum conn_status st);
/* Ask the warden and wait. `fd`: where a descriptor in the answer goes, or NULL. */
void smtp_ask(struct smtp_session *s, const void *m, size_t len, void *answer, size_t answer_len, int *fd);
enum verdict smtp_ask_verdict(struct smtp_session *s, const void *m, size_t len);
/*
 * Put a request into the batch; that there is room the table of commands sees to. s->phase is then what it will be if the warden says yes.
 * A client that pipelines costs one exchange with the warden in this way instead of one for each command.
 */
void smtp_put(struct smtp_session *s, const void *m, size_t len);
/* Put the batch to the warden, and say its replies; s->phase is true again. Does nothing with an empty one. */
void smtp_settle(struct smtp_session *s);
/* The same with a DATA request at the end of the batch; the verdict on that is returned, and V_OK leaves a descriptor in s->file. */
enum verdict smtp_settle_data(struct smtp_session *s, const struct msg_data *m);
/* The reply for a verdict; `ok` for V_OK. `sender`: it is about the sender. */
enum reply smtp_reply_of(enum verdict v, enum reply ok, int sender);
/* Queue a line for the client. */
void smtp_say(struct smtp_session *s, const char *text);
/* Queue a reply, after those that the batch still owes. Ends the session when there were too many bad ones. */
void smtp_say_reply(struct smtp_session *s, enum reply r);
/* Read a line of at most `cap` octets into s->line. 0, or -1 when it was longer. */
int smtp_read_line(struct smtp_session *s, size_t cap);
/* Forget envelope and message; `tell` the warden, too. */
void smtp_reset(struct smtp_session *s, int tell);
/* End the session of a sender who is slower than DATA_RATE_MIN. */
void smtp_check_rate(struct smtp_session *s);
/* May AUTH be used now? */
int smtp_auth_offered(const struct smtp_session *s);

/* The commands of the other files. */
enum reply smtp_do_auth(struct smtp_session *s, char *arg);
enum reply smtp_do_data(struct smtp_session *s, char *arg);
enum reply smtp_do_bdat(struct smtp_session *s, char *arg);

#endif
