/* SPDX-License-Identifier: MIT */
/*
 * The whole wire between an smtp process and its warden: fixed-size structs over SOCK_SEQPACKET, one request, one reply
 * (MSG_TLSPUT, MSG_TLSUP, MSG_RESET and MSG_NOTE have none). Up to BATCH_MAX requests MAIL, RCPT and DATA may come in one message, one
 * behind the other; so do their replies, then. Anything that is not exactly this ends the pair.
 */
#ifndef MAILSTILE_MSG_H
#define MAILSTILE_MSG_H

#include "config.h"

#include <stddef.h>
#include <stdint.h>

/* AUTH requests of one session: refused ones, and some that nobody could answer. smtp and warden both count. */
#define AUTH_REQUESTS_MAX (AUTH_TRIES_MAX + 10)

enum msg_type {
	MSG_SIGN = 1, /* hash -> signature of the TLS handshake */
	MSG_TLSGET,   /* session id -> session */
	MSG_TLSPUT,   /* session to remember */
	MSG_TLSUP,    /* handshake done: facts for the log and for Received */
	MSG_AUTH,     /* login */
	MSG_MAIL,     /* sender */
	MSG_RCPT,     /* recipient */
	MSG_DATA,     /* a file for the message, please */
	MSG_COMMIT,   /* it is complete */
	MSG_RESET,    /* forget envelope and message */
	MSG_NOTE,     /* a fact for the log */
	MSG_COUNT
};

/* The warden's decisions; smtp has one reply text for each (reply.c). */
enum verdict {
	V_OK = 1,
	V_AUTH_REFUSED, /* wrong name or password */
	V_AUTH_LATER,   /* nobody could say */
	V_AUTH_TURN,    /* nobody was asked: strangers guess at the account, and too many wait */
	V_NEED_LOGIN,
	V_SENDER_REFUSED, /* badmailfrom */
	V_NO_RELAY,
	V_UNQUALIFIED,
	V_BAD_ADDRESS,
	V_TOO_MANY_RCPT,
	V_TOO_BIG,
	V_NO_SPACE,
	V_NO_CLOCK,
	V_SPOOL_ERROR,
#if ACCOUNTS
	V_AUTH_POLICY,    /* what RADIUS or userlimits say of it is not understood */
	V_LIMIT_SESSIONS, /* it has too many already */
	V_LIMIT_DAY,
	V_LIMIT_RCPT,
	V_LIMIT_RATE,
	V_BLOCKED,
	V_MAY_NOT_SEND, /* relay=no */
	V_NOT_HIS_SENDER,
	V_NO_COUNTS, /* they cannot be read or written */
#endif
	V_SKIPPED, /* a request before it in the same batch was refused, and it depends on that */
	V_COUNT
};

struct msg_sign {
	uint32_t type;
	uint32_t hash_id;
	uint32_t len;
	uint8_t hash[64];
};
struct msg_sign_reply {
	uint32_t type;
	uint32_t len; /* 0: refused */
	uint8_t sig[512];
};
struct msg_tlsget {
	uint32_t type;
	uint8_t id[32];
};
/* MSG_TLSPUT, and the reply to MSG_TLSGET. */
struct msg_tlssession {
	uint32_t type;
	uint32_t found;
	uint16_t version, suite;
	uint8_t id[32];
	uint8_t master[48];
};
struct msg_tlsup {
	uint32_t type;
	uint16_t version, suite;
	uint32_t resumed;
};
struct msg_auth {
	uint32_t type;
	uint32_t user_len, pass_len;
	uint32_t mechanism; /* enum sasl_mechanism */
	char user[256];
	char pass[256];
};
struct msg_mail {
	uint32_t type;
	uint32_t len;
	uint64_t size; /* declared, 0 = not */
	uint32_t utf8;
	char addr[SMTP_PATH_MAX + 4];
};
struct msg_rcpt {
	uint32_t type;
	uint32_t len;
	char addr[SMTP_PATH_MAX + 4];
};
struct msg_data {
	uint32_t type;
	uint32_t helo_len;
	uint32_t esmtp; /* EHLO was used */
	char helo[256];
};
struct msg_commit {
	uint32_t type;
	uint32_t hops;
	uint64_t octets; /* written by smtp */
#if FROM_HEADER_CHECK
	uint32_t from_len; /* of the address in the From field; 0: there is no such field */
	char from[SMTP_PATH_MAX + 4];
#endif
};
/* In from_len: there is something that is not one plain address. */
#define MSG_FROM_UNCLEAR UINT32_MAX
struct msg_simple { /* MSG_RESET */
	uint32_t type;
	uint32_t zero;
};
/* Why a session ended, and other facts. */
enum note_kind {
	NOTE_QUIT = 1,
	NOTE_EOF,
	NOTE_TIMEOUT,
	NOTE_SHUTDOWN,
	NOTE_NOT_LISTED, /* `inside`, and the address may not relay */
	NOTE_AUTH_TRIES, /* too many failed logins */
	NOTE_BAD_COMMANDS,
	NOTE_TLS_FAILED,    /* number: BearSSL error */
	NOTE_TLS_INJECTION, /* octets after STARTTLS */
	NOTE_BARE_LINE_END, /* bare CR, bare LF or NUL */
	NOTE_TOO_SLOW,
	NOTE_AUTH_MALFORMED,
	NOTE_MESSAGE_TOO_BIG,
	NOTE_LOOP,
	NOTE_SPOOL_WRITE, /* number: errno */
	NOTE_COUNT
};
struct msg_note {
	uint32_t type;
	uint32_t kind;
	int64_t number;
};
/* The reply to AUTH, MAIL, RCPT, DATA. DATA's carries a descriptor when it is V_OK. */
struct msg_verdict {
	uint32_t type;
	uint32_t verdict;
};
struct msg_commit_reply {
	uint32_t type;
	uint32_t verdict;
	uint64_t qid;
	int64_t time;
	uint32_t pid;
	uint32_t zero;
};

_Static_assert(sizeof(struct msg_sign) == 76, "wire");
_Static_assert(sizeof(struct msg_sign_reply) == 520, "wire");
_Static_assert(sizeof(struct msg_tlsget) == 36, "wire");
_Static_assert(sizeof(struct msg_tlssession) == 92, "wire");
_Static_assert(sizeof(struct msg_tlsup) == 12, "wire");
_Static_assert(sizeof(struct msg_auth) == 528, "wire");
_Static_assert(sizeof(struct msg_mail) == 280, "wire");
_Static_assert(sizeof(struct msg_rcpt) == 268, "wire");
_Static_assert(sizeof(struct msg_data) == 268, "wire");
_Static_assert(sizeof(struct msg_commit) == (FROM_HEADER_CHECK ? 280 : 16), "wire");
_Static_assert(sizeof(struct msg_note) == 16, "wire");
_Static_assert(sizeof(struct msg_verdict) == 8, "wire");
_Static_assert(sizeof(struct msg_commit_reply) == 32, "wire");

/* MAIL, some RCPT, DATA in one message. More RCPT would save little, and cost both processes 268 octets each. */
#define BATCH_MAX 8
#define BATCH_OCTETS (sizeof(struct msg_mail) + (BATCH_MAX - 1) * sizeof(struct msg_rcpt))

union msg_any {
	uint32_t type;
	struct msg_sign sign;
	struct msg_sign_reply sign_reply;
	struct msg_tlsget tlsget;
	struct msg_tlssession tlssession;
	struct msg_tlsup tlsup;
	struct msg_auth auth;
	struct msg_mail mail;
	struct msg_rcpt rcpt;
	struct msg_data data;
	struct msg_commit commit;
	struct msg_simple simple;
	struct msg_note note;
	struct msg_verdict verdict;
	struct msg_commit_reply commit_reply;
};

/* Make a pair, close-on-exec. 0 or -1 with errno. */
int msg_pair(int sv[2]);
/* Send `len` octets, with descriptor `fd` unless it is -1. 0 or -1 with errno. */
int msg_send(int sock, const void *m, size_t len, int fd);
/*
 * Receive one message into m[cap]. `fd` NULL: a message with a descriptor attached is an error (the descriptor is closed);
 * otherwise *fd is the descriptor or -1. `timeout` in milliseconds, -1 = for ever. Returns the length, 0 at end of file, -1
 * with errno (EMSGSIZE: longer than cap; ETIMEDOUT; EBADMSG: a descriptor where none belongs; EINTR from the wait).
 */
long msg_recv(int sock, void *m, size_t cap, int *fd, int timeout);

/* The same with up to 3 descriptors. msg_recv_fds: *fds is how many may come, and then how many did, in fd[]. */
int msg_send_fds(int sock, const void *m, size_t len, const int *fd, unsigned fds);
long msg_recv_fds(int sock, void *m, size_t cap, int *fd, unsigned *fds, int timeout);

#endif
