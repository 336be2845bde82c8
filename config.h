/* SPDX-License-Identifier: MIT */
/*
 * Every compile-time choice of mailstile, with its default.
 *
 * A board overrides these in board/NAME/config.h, a site with -D; both are read before this file. Each entry says what the
 * option does, its default, unit and range, what it costs and what happens when it is wrong. Values out of range, and
 * combinations that contradict each other, stop the build. Units are octets and seconds unless an entry says otherwise.
 */
#ifndef MAILSTILE_CONFIG_H
#define MAILSTILE_CONFIG_H

/* ---- Features: 0 or 1 --------------------------------------------------------------------------------------------- */

/* SECCOMP: system call filter for the smtp and warden processes. Default 1. Costs about 2 KiB. 0 only where the kernel
 * cannot filter, or under sanitizers; without it a smtp process that was taken over can still append to, or truncate, the
 * message of its own session. */
#ifndef SECCOMP
#ifdef SANITIZE
#define SECCOMP 0
#else
#define SECCOMP 1
#endif
#endif

/* ACCOUNTS: limits for each login, from control/userlimits and from RADIUS: messages and recipients a day, messages a minute, size, sessions,
 * senders; counted in USERS_FILE, and `mailstile users`. Default 1. 0 saves about 14 KiB. */
#ifndef ACCOUNTS
#define ACCOUNTS 1
#endif

/* ACCOUNTING: 1 = RADIUS accounting (RFC 2866) to servers that have the word `acct` in radius.conf: a process of its own, and ACCT_FILE.
 * Default 1. 0 saves about 12 KiB. */
#ifndef ACCOUNTING
#define ACCOUNTING 1
#endif
_Static_assert(ACCOUNTING == 0 || ACCOUNTING == 1, "ACCOUNTING: 0 or 1");

/* RADSEC: 1 = RADIUS over TLS (RFC 6614) to servers that have the word `tls` in radius.conf, through a process that keeps the connections. Default 1.
 * 0 saves about 10 KiB. STATUS_SERVER: 1 = servers that have the word `status` are probed while they are silent (RFC 5997), by the same process. Default 1.
 * 0 saves about 1 KiB. */
#ifndef RADSEC
#define RADSEC 1
#endif
#ifndef STATUS_SERVER
#define STATUS_SERVER 1
#endif
#define KEEPER (RADSEC || STATUS_SERVER)
#define RADIUS_KEEPS (ACCOUNTS || ACCOUNTING) /* attributes of an accept that these need */

/* AUTH_PLAINTEXT_INSIDE: offer AUTH without TLS on `inside` listeners (trusted wire, old printers). Default 0. With 1 a
 * password crosses that wire in the clear. No other profile ever offers AUTH before TLS. */
#ifndef AUTH_PLAINTEXT_INSIDE
#define AUTH_PLAINTEXT_INSIDE 0
#endif

/* RECEIVED_HIDE_CLIENT: leave the client's address, its HELO name and the login name out of Received lines. Default 0.
 * With 1 only the log tells who sent a message. */
#ifndef RECEIVED_HIDE_CLIENT
#define RECEIVED_HIDE_CLIENT 0
#endif

/* ACCEPT_WITHOUT_CLOCK: accept mail while the clock is before the build date. Default 0 (451). With 1, a queue runner
 * that computes a message's age from its file times may bounce it as soon as NTP steps the clock. */
#ifndef ACCEPT_WITHOUT_CLOCK
#define ACCEPT_WITHOUT_CLOCK 0
#endif

/* ---- Places ------------------------------------------------------------------------------------------------------- */

/* HOME_DIR: holds control/, queue/ and empty/ (the jail). Absolute path. Default /var/qmail. `-H` overrides at run time. */
#ifndef HOME_DIR
#define HOME_DIR "/var/qmail"
#endif

/* RADIUS_CONF: read when HOME_DIR/control/radius.conf does not exist. Default /etc/radius.conf. */
#ifndef RADIUS_CONF
#define RADIUS_CONF "/etc/radius.conf"
#endif

/* PID_FILE: written by `serve -d` unless -p names another. Default /var/run/mailstile.pid. */
#ifndef PID_FILE
#define PID_FILE "/var/run/mailstile.pid"
#endif

/*
 * CTL_SOCKET: where `mailstile status` and `mailstile queue` find the server; `-S` overrides at run time. `serve -H` of another home than
 * HOME_DIR, without `-d`, has it there, as mailstile.sock: several of these may run on one machine. Default /var/run/mailstile.sock.
 */
#ifndef CTL_SOCKET
#define CTL_SOCKET "/var/run/mailstile.sock"
#endif

/* ---- Users: a name from /etc/passwd or /etc/group, or a decimal number ---------------------------------------------- */

/* USER_SMTP reads what strangers send; USER_SPOOL owns the queue and holds the secrets; USER_SEND and USER_REMOTE own
 * qmail-send's parts of the queue. Defaults are qmail's own. A missing one stops a server that is started as root. */
#ifndef USER_SMTP
#define USER_SMTP "qmaild"
#endif
#ifndef USER_SPOOL
#define USER_SPOOL "qmailq"
#endif
#ifndef USER_SEND
#define USER_SEND "qmails"
#endif
#ifndef USER_REMOTE
#define USER_REMOTE "qmailr"
#endif
/* GROUP_SPOOL is the group of the queue, GROUP_SMTP that of the smtp processes. Defaults qmail and nofiles. */
#ifndef GROUP_SPOOL
#define GROUP_SPOOL "qmail"
#endif
#ifndef GROUP_SMTP
#define GROUP_SMTP "nofiles"
#endif

/* ---- Listeners ------------------------------------------------------------------------------------------------------ */

/* LISTEN_DEFAULT: lines of control/listen used when that file does not exist. */
#ifndef LISTEN_DEFAULT
#define LISTEN_DEFAULT "submission 587\nsubmissions 465\n"
#endif

/* LISTEN_RETRY_SECONDS: an address that cannot be listened on (not up yet, in use) is tried again after this. Default 30, 1-3600. */
#ifndef LISTEN_RETRY_SECONDS
#define LISTEN_RETRY_SECONDS 30
#endif
_Static_assert(LISTEN_RETRY_SECONDS >= 1 && LISTEN_RETRY_SECONDS <= 3600, "LISTEN_RETRY_SECONDS: 1..3600");

/* LISTENERS_MAX: lines in control/listen. Default 8, range 1-32. Costs about 400 octets each. */
#ifndef LISTENERS_MAX
#define LISTENERS_MAX 8
#endif
_Static_assert(LISTENERS_MAX >= 1 && LISTENERS_MAX <= 32, "LISTENERS_MAX: 1..32");

/* ---- Session limits --------------------------------------------------------------------------------------------------- */

/* SESSIONS_MAX: sessions at once, in total. Default 512, range 1-4096. Each costs about 210 KiB of user and kernel memory
 * while it lasts, and 64 octets always. Beyond: 421. */
#ifndef SESSIONS_MAX
#define SESSIONS_MAX 512
#endif
_Static_assert(SESSIONS_MAX >= 1 && SESSIONS_MAX <= 4096, "SESSIONS_MAX: 1..4096");

/* SESSIONS_PER_ADDR: sessions from one client address (IPv6: one /64). Default 40, range 1-SESSIONS_MAX. */
#ifndef SESSIONS_PER_ADDR
#define SESSIONS_PER_ADDR 40
#endif
_Static_assert(SESSIONS_PER_ADDR >= 1 && SESSIONS_PER_ADDR <= SESSIONS_MAX, "SESSIONS_PER_ADDR: 1..SESSIONS_MAX");

/* PRELOGIN_MAX: of those, how many may be without a login. Default 3/4 of SESSIONS_MAX; the rest stays free for customers
 * who are in. When it is reached, a newcomer takes the place of the oldest one of the network (a /24, or a /48 of IPv6) that has
 * most of them, if that is more than his own network has; else of the oldest one that has waited PRELOGIN_EVICT_SECONDS. */
#ifndef PRELOGIN_MAX
#define PRELOGIN_MAX (SESSIONS_MAX - SESSIONS_MAX / 4)
#endif
_Static_assert(PRELOGIN_MAX >= 1 && PRELOGIN_MAX <= SESSIONS_MAX, "PRELOGIN_MAX: 1..SESSIONS_MAX");

/* PRELOGIN_PER_ADDR: sessions without a login from one client address. Default 20, range 1-SESSIONS_PER_ADDR. Too low:
 * customers behind one NAT refuse each other. */
#ifndef PRELOGIN_PER_ADDR
#define PRELOGIN_PER_ADDR 20
#endif
_Static_assert(
    PRELOGIN_PER_ADDR >= 1 && PRELOGIN_PER_ADDR <= SESSIONS_PER_ADDR, "PRELOGIN_PER_ADDR: 1..SESSIONS_PER_ADDR");

/* PRELOGIN_EVICT_SECONDS: see PRELOGIN_MAX; and how long one who is sent away may take to go. Default 5, range 1-300. */
#ifndef PRELOGIN_EVICT_SECONDS
#define PRELOGIN_EVICT_SECONDS 5
#endif
_Static_assert(PRELOGIN_EVICT_SECONDS >= 1 && PRELOGIN_EVICT_SECONDS <= 300, "PRELOGIN_EVICT_SECONDS: 1..300");

/* TIMEOUT_LOGIN: from connection to login on submission profiles. Default 120, range 10-600. */
#ifndef TIMEOUT_LOGIN
#define TIMEOUT_LOGIN 120
#endif
_Static_assert(TIMEOUT_LOGIN >= 10 && TIMEOUT_LOGIN <= 600, "TIMEOUT_LOGIN: 10..600");

/* TIMEOUT_COMMAND: for the whole of the next command, or for the client to take a reply. Default 300 (RFC 5321 4.5.3.2.7), 10-1200. */
#ifndef TIMEOUT_COMMAND
#define TIMEOUT_COMMAND 300
#endif
_Static_assert(TIMEOUT_COMMAND >= 10 && TIMEOUT_COMMAND <= 1200, "TIMEOUT_COMMAND: 10..1200");

/* TIMEOUT_DATA: for the next octets of a message. Default 180, range 10-1200. */
#ifndef TIMEOUT_DATA
#define TIMEOUT_DATA 180
#endif
_Static_assert(TIMEOUT_DATA >= 10 && TIMEOUT_DATA <= 1200, "TIMEOUT_DATA: 10..1200");

/* TIMEOUT_SESSION: a whole session. Default 7200, range 60-43200 (qmail's sweep asks that it stay below 24 hours). */
#ifndef TIMEOUT_SESSION
#define TIMEOUT_SESSION 7200
#endif
_Static_assert(TIMEOUT_SESSION >= 60 && TIMEOUT_SESSION <= 43200, "TIMEOUT_SESSION: 60..43200");

/* DATA_RATE_MIN: octets per second a message must keep up on average after its first minute. Default 100, range 0-65536;
 * 0 turns it off and leaves slow senders to TIMEOUT_SESSION. */
#ifndef DATA_RATE_MIN
#define DATA_RATE_MIN 100
#endif
_Static_assert(DATA_RATE_MIN >= 0 && DATA_RATE_MIN <= 65536, "DATA_RATE_MIN: 0..65536");

/* DRAIN_SECONDS: SIGTERM waits this long for running sessions, then ends them. Default 30, range 0-600. */
#ifndef DRAIN_SECONDS
#define DRAIN_SECONDS 30
#endif
_Static_assert(DRAIN_SECONDS >= 0 && DRAIN_SECONDS <= 600, "DRAIN_SECONDS: 0..600");

/* REEXEC_SECONDS: at most one re-execution (fresh memory layout after a crash) in this time. Default 10, range 1-3600. */
#ifndef REEXEC_SECONDS
#define REEXEC_SECONDS 10
#endif
_Static_assert(REEXEC_SECONDS >= 1 && REEXEC_SECONDS <= 3600, "REEXEC_SECONDS: 1..3600");

/* ---- SMTP --------------------------------------------------------------------------------------------------------------- */

/* SMTP_RCPT_MAX: recipients per message. Default 1000, range 100-10000 (RFC 5321 4.5.3.1.8 sets the floor). Costs up to
 * 258 octets each in the warden, only while used. Beyond: 452. */
#ifndef SMTP_RCPT_MAX
#define SMTP_RCPT_MAX 1000
#endif
_Static_assert(SMTP_RCPT_MAX >= 100 && SMTP_RCPT_MAX <= 10000, "SMTP_RCPT_MAX: 100..10000, see RFC 5321 4.5.3.1.8");

/* SMTP_COMMAND_MAX: a command line with its CRLF. Default 2048, range 1024-12288 (RFC 5321 asks for 512 plus what the
 * extensions add: AUTH 500, SIZE 26, BODY 17, SMTPUTF8 10). */
#ifndef SMTP_COMMAND_MAX
#define SMTP_COMMAND_MAX 2048
#endif
_Static_assert(SMTP_COMMAND_MAX >= 1024 && SMTP_COMMAND_MAX <= 12288, "SMTP_COMMAND_MAX: 1024..12288");

/* SASL_LINE_MAX: a line of an AUTH exchange with its CRLF. Default 12290 (RFC 4954 section 4: 12288 octets), 12290-16384. */
#ifndef SASL_LINE_MAX
#define SASL_LINE_MAX 12290
#endif
_Static_assert(SASL_LINE_MAX >= 12290 && SASL_LINE_MAX <= 16384, "SASL_LINE_MAX: 12290..16384, see RFC 4954 4");

/* DATABYTES: largest message when control/databytes does not exist. Default 50 MiB, 0 = only the disk limits it. */
#ifndef DATABYTES
#define DATABYTES 52428800
#endif
_Static_assert(DATABYTES >= 0, "DATABYTES: 0 or more");

/* HOPS_MAX: Received and Delivered-To lines at which a message is refused as looping. Default 100, range 10-1000. */
#ifndef HOPS_MAX
#define HOPS_MAX 100
#endif
_Static_assert(HOPS_MAX >= 10 && HOPS_MAX <= 1000, "HOPS_MAX: 10..1000");

/* BAD_COMMANDS_MAX: refused commands in a session before 421. Default 20, range 3-1000. */
#ifndef BAD_COMMANDS_MAX
#define BAD_COMMANDS_MAX 20
#endif
_Static_assert(BAD_COMMANDS_MAX >= 3 && BAD_COMMANDS_MAX <= 1000, "BAD_COMMANDS_MAX: 3..1000");

/* REFUSALS_MAX: senders and recipients that policy refuses in a session before 421, and of which the first are logged. Default 100, range
 * 20-10000. A customer's program gives up long before; one who tries addresses should. */
#ifndef REFUSALS_MAX
#define REFUSALS_MAX 100
#endif
_Static_assert(REFUSALS_MAX >= 20 && REFUSALS_MAX <= 10000, "REFUSALS_MAX: 20..10000");

/* BODY_BUFFER: octets collected before a write to the message file. Default 32768, range 4096-262144. Costs that much per
 * session that is sending. */
#ifndef BODY_BUFFER
#define BODY_BUFFER 32768
#endif
_Static_assert(BODY_BUFFER >= 4096 && BODY_BUFFER <= 262144, "BODY_BUFFER: 4096..262144");

/* ---- AUTH ----------------------------------------------------------------------------------------------------------------- */

/* AUTH_TRIES_MAX: failed logins in a session before 421. Default 3, range 3-20 (RFC 4954 section 4 sets the floor). */
#ifndef AUTH_TRIES_MAX
#define AUTH_TRIES_MAX 3
#endif
_Static_assert(AUTH_TRIES_MAX >= 3 && AUTH_TRIES_MAX <= 20, "AUTH_TRIES_MAX: 3..20, see RFC 4954 4");

/* AUTH_FAIL_DELAY_MS: milliseconds before a refused login is answered, doubled with each further failure of the same
 * address up to 8 times. Default 1000, range 0-5000. */
#ifndef AUTH_FAIL_DELAY_MS
#define AUTH_FAIL_DELAY_MS 1000
#endif
_Static_assert(AUTH_FAIL_DELAY_MS >= 0 && AUTH_FAIL_DELAY_MS <= 5000, "AUTH_FAIL_DELAY_MS: 0..5000");

/* PENALTIES_MAX: addresses whose failed logins are remembered. Default 128, range 8-4096. Costs 32 octets each. */
#ifndef PENALTIES_MAX
#define PENALTIES_MAX 128
#endif
_Static_assert(PENALTIES_MAX >= 8 && PENALTIES_MAX <= 4096, "PENALTIES_MAX: 8..4096");

/* PENALTY_SECONDS: how long a failure is remembered. Default 900, range 1-86400. */
#ifndef PENALTY_SECONDS
#define PENALTY_SECONDS 900
#endif
_Static_assert(PENALTY_SECONDS >= 1 && PENALTY_SECONDS <= 86400, "PENALTY_SECONDS: 1..86400");

/* GUESSING: 1 = addresses are banned for a while, and strangers who guess at an account take turns: guess.h. 0 = only the delays above. */
#ifndef GUESSING
#define GUESSING 1
#endif
_Static_assert(GUESSING == 0 || GUESSING == 1, "GUESSING: 0 or 1");

/* BAN_FAILS: failed logins of an address, each within PENALTY_SECONDS of the one before and none of them followed by a good one, after which
 * its connections get 421 until PENALTY_SECONDS have passed. Default 20, range 3-1000. */
#ifndef BAN_FAILS
#define BAN_FAILS 20
#endif
_Static_assert(BAN_FAILS >= 3 && BAN_FAILS <= 1000, "BAN_FAILS: 3..1000");

/* GUESS_FAILS: failed logins into an account, from networks where it has not logged in lately, after which such logins take turns, one a
 * second. Default 10, range 3-1000. */
#ifndef GUESS_FAILS
#define GUESS_FAILS 10
#endif
_Static_assert(GUESS_FAILS >= 3 && GUESS_FAILS <= 1000, "GUESS_FAILS: 3..1000");

/* GUESS_WAIT_SECONDS: how long a login waits for its turn; if that does not do, it gets 454. Default 10, range 0-60. */
#ifndef GUESS_WAIT_SECONDS
#define GUESS_WAIT_SECONDS 10
#endif
_Static_assert(GUESS_WAIT_SECONDS >= 0 && GUESS_WAIT_SECONDS <= 60, "GUESS_WAIT_SECONDS: 0..60");

/* GUESS_USERS_MAX: accounts that are guessed at. Default 32, range 4-1024; 32 octets each. GUESS_KNOWN_MAX: networks where accounts have logged
 * in, of all accounts together. Default 512, range 16-16384; 16 octets each. */
#ifndef GUESS_USERS_MAX
#define GUESS_USERS_MAX 32
#endif
_Static_assert(GUESS_USERS_MAX >= 4 && GUESS_USERS_MAX <= 1024, "GUESS_USERS_MAX: 4..1024");
#ifndef GUESS_KNOWN_MAX
#define GUESS_KNOWN_MAX 512
#endif
_Static_assert(GUESS_KNOWN_MAX >= 16 && GUESS_KNOWN_MAX <= 16384, "GUESS_KNOWN_MAX: 16..16384");

/* ---- RADIUS --------------------------------------------------------------------------------------------------------------- */

/* RADIUS_SERVERS_MAX: lines in radius.conf. Default 8, range 1-32. Costs about 1.5 KiB each. */
#ifndef RADIUS_SERVERS_MAX
#define RADIUS_SERVERS_MAX 8
#endif
_Static_assert(RADIUS_SERVERS_MAX >= 1 && RADIUS_SERVERS_MAX <= 32, "RADIUS_SERVERS_MAX: 1..32");

/* RADIUS_DEADLINE: a login takes at most this long over all servers and tries. Default 15, range 2-60 (RFC 6409 wants
 * every command answered within two minutes). */
#ifndef RADIUS_DEADLINE
#define RADIUS_DEADLINE 15
#endif
_Static_assert(RADIUS_DEADLINE >= 2 && RADIUS_DEADLINE <= 60, "RADIUS_DEADLINE: 2..60");

/* RADIUS_TIMEOUT, RADIUS_RETRIES: first wait, in seconds, and repeats for one server when radius.conf does not say.
 * Defaults 2 (RFC 5080 2.2.1) and 2; ranges 1-15 and 0-10. The wait doubles with each repeat. */
#ifndef RADIUS_TIMEOUT
#define RADIUS_TIMEOUT 2
#endif
_Static_assert(RADIUS_TIMEOUT >= 1 && RADIUS_TIMEOUT <= 15, "RADIUS_TIMEOUT: 1..15");
#ifndef RADIUS_RETRIES
#define RADIUS_RETRIES 2
#endif
_Static_assert(RADIUS_RETRIES >= 0 && RADIUS_RETRIES <= 10, "RADIUS_RETRIES: 0..10");

/* RADIUS_DEAD_SECONDS: a server that did not answer is asked last for this long. Default 60, range 0-3600. */
#ifndef RADIUS_DEAD_SECONDS
#define RADIUS_DEAD_SECONDS 60
#endif
_Static_assert(RADIUS_DEAD_SECONDS >= 0 && RADIUS_DEAD_SECONDS <= 3600, "RADIUS_DEAD_SECONDS: 0..3600");

/* RADSEC_WATCH_SECONDS: a TLS connection to a server on which nothing has come for this long is asked whether it lives. Default 20, since servers close idle
 * ones after 30; range 5-600. RADSEC_CONNECT_SECONDS: to connect and shake hands. Default 10, range 2-60. STATUS_SECONDS: between two probes of a server
 * that is silent. Default 5, range 1-600. */
#ifndef RADSEC_WATCH_SECONDS
#define RADSEC_WATCH_SECONDS 20
#endif
_Static_assert(RADSEC_WATCH_SECONDS >= 5 && RADSEC_WATCH_SECONDS <= 600, "RADSEC_WATCH_SECONDS: 5..600");
#ifndef RADSEC_CONNECT_SECONDS
#define RADSEC_CONNECT_SECONDS 10
#endif
_Static_assert(RADSEC_CONNECT_SECONDS >= 2 && RADSEC_CONNECT_SECONDS <= 60, "RADSEC_CONNECT_SECONDS: 2..60");
#ifndef STATUS_SECONDS
#define STATUS_SECONDS 5
#endif
_Static_assert(STATUS_SECONDS >= 1 && STATUS_SECONDS <= 600, "STATUS_SECONDS: 1..600");

/* RADIUS_RESOLVE_SECONDS: servers given by name are looked up again after this long. Default 300, range 10-86400. */
#ifndef RADIUS_RESOLVE_SECONDS
#define RADIUS_RESOLVE_SECONDS 300
#endif
_Static_assert(RADIUS_RESOLVE_SECONDS >= 10 && RADIUS_RESOLVE_SECONDS <= 86400, "RADIUS_RESOLVE_SECONDS: 10..86400");

/* RADIUS_SERVICE_TYPE: sent with each request, and expected of an accept. Default 1, Login-User. Range 1-5, 8-17; never 6,
 * Administrative. RADIUS_SERVICE_CHECK: 2 = an accept must carry it, 1 = checked if present (default), 0 = another known
 * value is accepted too. A value unknown to RFC 2865 is always refused. */
#ifndef RADIUS_SERVICE_TYPE
#define RADIUS_SERVICE_TYPE 1
#endif
_Static_assert(RADIUS_SERVICE_TYPE >= 1 && RADIUS_SERVICE_TYPE <= 17, "RADIUS_SERVICE_TYPE: 1..17, RFC 2865 5.6");
#if RADIUS_SERVICE_TYPE == 6 || RADIUS_SERVICE_TYPE == 7
#error \
    "RADIUS_SERVICE_TYPE must not be Administrative or NAS-Prompt: those accounts are for operating devices, not mail"
#endif
#ifndef RADIUS_SERVICE_CHECK
#define RADIUS_SERVICE_CHECK 1
#endif
_Static_assert(RADIUS_SERVICE_CHECK >= 0 && RADIUS_SERVICE_CHECK <= 2, "RADIUS_SERVICE_CHECK: 0..2");

/* VENDOR_ID: whose Vendor-Specific attributes (RFC 2865 5.26) mean what contrib/freeradius/dictionary.mailstile says. Default 65530, which is
 * nobody's: take a number of your own (IANA, Private Enterprise Numbers), and put it into the dictionary, too. Range 1-16777215. */
#ifndef VENDOR_ID
#define VENDOR_ID 65530
#endif
_Static_assert(VENDOR_ID >= 1 && VENDOR_ID <= 16777215, "VENDOR_ID: 1..16777215");

/* ---- Limits for each login: see ACCOUNTS, control/userlimits, and what RADIUS may say ------------------------------------------ */

/* LIMIT_DAY, LIMIT_RCPT: messages and recipients a day, LIMIT_RATE: messages a minute, LIMIT_SESSIONS: sessions at once, of a login that nothing else is
 * said of. Default 0: no limit. (The qmail-esmtpd set-ups had 50 messages a day.) */
#ifndef LIMIT_DAY
#define LIMIT_DAY 0
#endif
#ifndef LIMIT_RCPT
#define LIMIT_RCPT 0
#endif
#ifndef LIMIT_RATE
#define LIMIT_RATE 0
#endif
#ifndef LIMIT_SESSIONS
#define LIMIT_SESSIONS 0
#endif
_Static_assert(LIMIT_DAY >= 0 && LIMIT_RCPT >= 0 && LIMIT_RATE >= 0 && LIMIT_SESSIONS >= 0, "LIMIT_*: 0 or more");

/* FROM_HEADER_CHECK: a login that may use certain senders only may not write others into the From field of its messages either. Default 0. With 1
 * the field has to have one plain address; the smtp process reads it, so one that was taken over could say anything. Costs about 1 KiB, and 1 KiB
 * of memory a session. */
#ifndef FROM_HEADER_CHECK
#define FROM_HEADER_CHECK 0
#endif
#if FROM_HEADER_CHECK && !ACCOUNTS
#error "FROM_HEADER_CHECK is about limits of logins: set ACCOUNTS to 1"
#endif

/* USERS_FILE: the counts, a file of its own in a directory that is made when it is missing; without a slash in front it is below HOME_DIR, and
 * never in the queue. Default mailstile/users. */
#ifndef USERS_FILE
#define USERS_FILE "mailstile/users"
#endif

/* USERS_MAX: logins that are counted, when that file is made. Default 4096, range 16-65536; half as many can use it without a care. Costs 512
 * octets on the disk for each that has ever sent. Beyond: the place of one that has not sent today; without one, 451. */
#ifndef USERS_MAX
#define USERS_MAX 4096
#endif
_Static_assert(USERS_MAX >= 16 && USERS_MAX <= 65536, "USERS_MAX: 16..65536");

/* USERS_FLUSH_SECONDS: counts are made safe from a power cut so often; 0, the default, is with each message of a login that has a limit a day.
 * Range 0-3600. More is easier on flash, and a power cut may forget as much. */
#ifndef USERS_FLUSH_SECONDS
#define USERS_FLUSH_SECONDS 0
#endif
_Static_assert(USERS_FLUSH_SECONDS >= 0 && USERS_FLUSH_SECONDS <= 3600, "USERS_FLUSH_SECONDS: 0..3600");

/* ---- Accounting: see ACCOUNTING ------------------------------------------------------------------------------------------------ */

/* ACCT_FILE: what is not acknowledged yet, a file of its own as USERS_FILE is. Default mailstile/acct. In a file system in RAM it spares flash, and a power
 * cut then forgets it. */
#ifndef ACCT_FILE
#define ACCT_FILE "mailstile/acct"
#endif

/* ACCT_PLACES: logins that run or whose end is not acknowledged yet, when that file is made. Default SESSIONS_MAX + 156, range SESSIONS_MAX-65536.
 * Costs 1 KiB on the disk each. Beyond: the end of the one that ended first is forgotten. */
#ifndef ACCT_PLACES
#define ACCT_PLACES (SESSIONS_MAX + 156)
#endif
_Static_assert(ACCT_PLACES >= SESSIONS_MAX && ACCT_PLACES <= 65536, "ACCT_PLACES: SESSIONS_MAX..65536");

/* ACCT_INTERIM: seconds between the Interim-Updates of a session whose Access-Accept has no Acct-Interim-Interval. Default 0: none. ACCT_INTERIM_MIN: no
 * oftener than that, whoever says so. Default 60 (RFC 2869 5.16), range 1-3600. */
#ifndef ACCT_INTERIM
#define ACCT_INTERIM 0
#endif
#ifndef ACCT_INTERIM_MIN
#define ACCT_INTERIM_MIN 60
#endif
_Static_assert(ACCT_INTERIM_MIN >= 1 && ACCT_INTERIM_MIN <= 3600, "ACCT_INTERIM_MIN: 1..3600");

/* ACCT_PACKETS: 1 = messages as Acct-Input-Packets and recipients as Acct-Output-Packets, too, for servers without our dictionary. Default 1. */
#ifndef ACCT_PACKETS
#define ACCT_PACKETS 1
#endif

/* ACCT_FINISH_SECONDS: when the server stops, so long it waits for acknowledgements; what has none is sent after the next start. Default 3, range
 * 0-30. */
#ifndef ACCT_FINISH_SECONDS
#define ACCT_FINISH_SECONDS 3
#endif
_Static_assert(ACCT_FINISH_SECONDS >= 0 && ACCT_FINISH_SECONDS <= 30, "ACCT_FINISH_SECONDS: 0..30");

/* ---- TLS ------------------------------------------------------------------------------------------------------------------ */

/* TLS_CACHE_MAX: sessions kept for resumption, shared by all. Default 256, range 0-65536. Costs 128 octets each. */
#ifndef TLS_CACHE_MAX
#define TLS_CACHE_MAX 256
#endif
_Static_assert(TLS_CACHE_MAX >= 0 && TLS_CACHE_MAX <= 65536, "TLS_CACHE_MAX: 0..65536");

/* TLS_CACHE_SECONDS: how long one may be resumed. Default 3600, range 1-86400. */
#ifndef TLS_CACHE_SECONDS
#define TLS_CACHE_SECONDS 3600
#endif
_Static_assert(TLS_CACHE_SECONDS >= 1 && TLS_CACHE_SECONDS <= 86400, "TLS_CACHE_SECONDS: 1..86400");

/* TLS_CHAIN_MAX: certificates in servercert.pem that are sent. Default 6, range 1-16. */
#ifndef TLS_CHAIN_MAX
#define TLS_CHAIN_MAX 6
#endif
_Static_assert(TLS_CHAIN_MAX >= 1 && TLS_CHAIN_MAX <= 16, "TLS_CHAIN_MAX: 1..16");

/* ---- Spool ---------------------------------------------------------------------------------------------------------------- */

/* SPOOL_DEFAULT: line of control/spool used when that file does not exist. "queue" is qmail's queue in HOME_DIR/queue;
 * see mailstile-control(5) for the Maildir forms. */
#ifndef SPOOL_DEFAULT
#define SPOOL_DEFAULT "queue"
#endif

/* SPOOL_RESERVE: octets, and SPOOL_RESERVE_INODES: files, that must stay free on the spool's file system; below, mail is
 * answered 452. Defaults 1 MiB and 32. */
#ifndef SPOOL_RESERVE
#define SPOOL_RESERVE 1048576
#endif
_Static_assert(SPOOL_RESERVE >= 0, "SPOOL_RESERVE: 0 or more");
#ifndef SPOOL_RESERVE_INODES
#define SPOOL_RESERVE_INODES 32
#endif
_Static_assert(SPOOL_RESERVE_INODES >= 0, "SPOOL_RESERVE_INODES: 0 or more");

/* QUEUE_SPLIT: subdirectories that `mailstile mkqueue` makes in a new queue. Default 23, range 1-1000. An existing queue's
 * own number is counted, never assumed. */
#ifndef QUEUE_SPLIT
#define QUEUE_SPLIT 23
#endif
_Static_assert(QUEUE_SPLIT >= 1 && QUEUE_SPLIT <= 1000, "QUEUE_SPLIT: 1..1000");

/* CONTROL_FILE_MAX: largest control file read, except .cdb files. Default 1 MiB, range 4096-16 MiB. */
#ifndef CONTROL_FILE_MAX
#define CONTROL_FILE_MAX 1048576
#endif
_Static_assert(CONTROL_FILE_MAX >= 4096 && CONTROL_FILE_MAX <= 16777216, "CONTROL_FILE_MAX: 4096..16777216");

/* ---- Delivery --------------------------------------------------------------------------------------------------------------- */

/* RELAY: with the scheduler and the delivery processes. Default 1. 0 leaves the queue to a qmail-send and saves about 45 KiB. */
#ifndef RELAY
#define RELAY 1
#endif

/* TOOLS: with `mailstile status` and `mailstile queue`, and what the server tells them. Default 1. 0 saves about 20 KiB. */
#ifndef TOOLS
#define TOOLS 1
#endif

/* RELAY_QMAIL_LOG: the scheduler also says in qmail-send's words what it does (`new msg`, `starting delivery`, `status:`), for programs that count
 * in such a log, as those of qmailanalog. Default 0: it says nothing that is not in our own lines, and doubles the log. */
#ifndef RELAY_QMAIL_LOG
#define RELAY_QMAIL_LOG 0
#endif

/* BOUNCE_DSN: bounces can be delivery reports (RFC 3464), where control/bounceformat asks for it. Default 1. 0 saves about 4 KiB. */
#ifndef BOUNCE_DSN
#define BOUNCE_DSN 1
#endif

/* SETTINGS: `mailstile get`, `set`, `unset` and `apply`: control files checked before they are changed. Default as TOOLS, without which
 * there is none. 0 saves about 12 KiB. */
#ifndef SETTINGS
#define SETTINGS TOOLS
#endif
_Static_assert(!SETTINGS || TOOLS, "SETTINGS needs TOOLS");

/* CONSOLE: `mailstile console`, set-up by questions on a serial line. Default as SETTINGS, which it needs. 0 saves about 4 KiB. */
#ifndef CONSOLE
#define CONSOLE SETTINGS
#endif
_Static_assert(!CONSOLE || SETTINGS, "CONSOLE needs SETTINGS");

/* SELFTEST: `mailstile selftest`, and the same in the console: network, DNS, RADIUS, certificate, relays, and whether the door stands open. Default as
 * CONSOLE, where there is RELAY, which it needs. 0 saves about 4 KiB. SELFTEST_DOMAIN: a domain that has mail hosts as long as there is an Internet; its MX
 * records are asked for, and, where there is no smarthost, one of these hosts is called on port 25 and left after its greeting. */
#ifndef SELFTEST
#define SELFTEST (CONSOLE && RELAY)
#endif
#ifndef SELFTEST_DOMAIN
#define SELFTEST_DOMAIN "gmail.com"
#endif
_Static_assert(!SELFTEST || (TOOLS && RELAY), "SELFTEST needs TOOLS and RELAY");

/* CONSOLE_ROUNDS: of PBKDF2, for the passphrase of a backup and the console's password. Default 100000, range 1000-1000000: two seconds on a router of
 * 2010. More is better against who has stolen one. */
#ifndef CONSOLE_ROUNDS
#define CONSOLE_ROUNDS 100000
#endif
_Static_assert(CONSOLE_ROUNDS >= 1000 && CONSOLE_ROUNDS <= 1000000, "CONSOLE_ROUNDS: 1000..1000000");

/* NETWORK_FILE: where the console writes the box's address, in KEY=VALUE lines that the init scripts read: MODE (dhcp or static), ADDRESS, GATEWAY, DNS; lines
 * INTERFACE and HOSTNAME stay. Default empty: it does not ask. */
#ifndef NETWORK_FILE
#define NETWORK_FILE ""
#endif

/* CONSOLE_LOG, CONSOLE_REBOOT: commands of the console's menu, words with a space between them, no shell: the log, of which the last lines are shown,
 * as in "tail -n 20 /var/log/mail.log"; and a restart of the box. Defaults logread (BusyBox) and reboot. */
#ifndef CONSOLE_LOG
#define CONSOLE_LOG "logread"
#endif
#ifndef CONSOLE_REBOOT
#define CONSOLE_REBOOT "reboot"
#endif

/* DELAY_NOTICE: senders can be told that a message is late, where control/delaynotice asks for it. Default 1. 0 saves about 2 KiB. */
#ifndef DELAY_NOTICE
#define DELAY_NOTICE 1
#endif

/* RELAY_DEFAULT: what control/relay says when it does not exist: 1 = this program delivers, 0 = something else does. Default 1.
 * With 1 beside a running qmail-send nothing breaks: whoever has lock/sendmutex delivers, and the other one waits for it. */
#ifndef RELAY_DEFAULT
#define RELAY_DEFAULT 1
#endif

/* DELIVERIES_MAX: delivery processes at once, whatever control/concurrencyremote says. Default 120, range 1-500. Each costs about
 * 150 KiB while it lasts. */
#ifndef DELIVERIES_MAX
#define DELIVERIES_MAX 120
#endif
_Static_assert(DELIVERIES_MAX >= 1 && DELIVERIES_MAX <= 500, "DELIVERIES_MAX: 1..500");

/* DELIVER_RCPTS_MAX: recipients of a message that are given to a peer in one transaction. Default 100, range 1-100: every server takes
 * as many (RFC 5321 4.5.3.1.8). */
#ifndef DELIVER_RCPTS_MAX
#define DELIVER_RCPTS_MAX 100
#endif
_Static_assert(DELIVER_RCPTS_MAX >= 1 && DELIVER_RCPTS_MAX <= 100, "DELIVER_RCPTS_MAX: 1..100");

/* DELIVER_MESSAGES_MAX: messages that are sent over one connection, one after the other. Default 50, range 1-1000. */
#ifndef DELIVER_MESSAGES_MAX
#define DELIVER_MESSAGES_MAX 50
#endif
_Static_assert(DELIVER_MESSAGES_MAX >= 1 && DELIVER_MESSAGES_MAX <= 1000, "DELIVER_MESSAGES_MAX: 1..1000");

/* REMOTE_CHUNKING: send by BDAT (RFC 3030) to peers that offer it. Default 1. */
#ifndef REMOTE_CHUNKING
#define REMOTE_CHUNKING 1
#endif

/* DELIVER_REACH_SECONDS: from the beginning of a delivery until a next hop is ready to take a message: looking up, connecting, greeting, TLS
 * and login, all addresses that are tried together. Default 600, range 30-1800. */
#ifndef DELIVER_REACH_SECONDS
#define DELIVER_REACH_SECONDS 600
#endif
_Static_assert(DELIVER_REACH_SECONDS >= 30 && DELIVER_REACH_SECONDS <= 1800, "DELIVER_REACH_SECONDS: 30..1800");

/* DELIVER_IDLE_SECONDS: a connection that could carry another message waits so long for one. Default 5, range 0-60. */
#ifndef DELIVER_IDLE_SECONDS
#define DELIVER_IDLE_SECONDS 5
#endif
_Static_assert(DELIVER_IDLE_SECONDS >= 0 && DELIVER_IDLE_SECONDS <= 60, "DELIVER_IDLE_SECONDS: 0..60");

/* QUEUE_LIFETIME: seconds after which a message that cannot be delivered is returned, when control/queuelifetime does not exist.
 * Default 604800 (qmail's), range 3600-2592000. */
#ifndef QUEUE_LIFETIME
#define QUEUE_LIFETIME 604800
#endif
_Static_assert(QUEUE_LIFETIME >= 3600 && QUEUE_LIFETIME <= 2592000, "QUEUE_LIFETIME: 3600..2592000");

/* BACKOFF_FIRST, BACKOFF_MAX, BACKOFF_ROUTE_MAX: a destination where nobody can be reached is tried again, for all its messages with one of them,
 * after BACKOFF_FIRST seconds, then after twice as long each time: up to BACKOFF_MAX for a domain by MX, of which many may be dead for a week, and
 * each probe of one may hang for minutes; up to BACKOFF_ROUTE_MAX for a route of smtproutes, which all mail may wait for: it is tried within two
 * minutes of being back. Defaults 15, 600 and 100; ranges 1-3600. */
#ifndef BACKOFF_FIRST
#define BACKOFF_FIRST 15
#endif
#ifndef BACKOFF_MAX
#define BACKOFF_MAX 600
#endif
#ifndef BACKOFF_ROUTE_MAX
#define BACKOFF_ROUTE_MAX 100
#endif
_Static_assert(BACKOFF_ROUTE_MAX >= 1 && BACKOFF_ROUTE_MAX <= 3600, "BACKOFF_ROUTE_MAX: 1..3600");
_Static_assert(
    BACKOFF_FIRST >= 1 && BACKOFF_FIRST <= BACKOFF_MAX && BACKOFF_MAX <= 3600, "BACKOFF_FIRST, BACKOFF_MAX: 1..3600");

/* BOUNCE_COPY_MAX: octets of a message that a bounce quotes. Default 65536, range 1024-DATABYTES; the rest is left out. */
#ifndef BOUNCE_COPY_MAX
#define BOUNCE_COPY_MAX 65536
#endif
_Static_assert(BOUNCE_COPY_MAX >= 1024, "BOUNCE_COPY_MAX: 1024 or more");

/* RELAY_ROUTES_MAX, RELAY_HOPS_MAX, RELAY_AUTH_MAX, RELAY_PINS_MAX: lines in smtproutes and smtptls, relays in one line, passwords, pins.
 * Defaults 128, 4, 8, 16. A route has room for all of its relays, 1.5 KiB, which costs memory only when it is there. */
#ifndef RELAY_ROUTES_MAX
#define RELAY_ROUTES_MAX 128
#endif
#ifndef RELAY_HOPS_MAX
#define RELAY_HOPS_MAX 4
#endif
#ifndef RELAY_AUTH_MAX
#define RELAY_AUTH_MAX 8
#endif
#ifndef RELAY_PINS_MAX
#define RELAY_PINS_MAX 16
#endif
_Static_assert(RELAY_ROUTES_MAX >= 1 && RELAY_ROUTES_MAX <= 1000, "RELAY_ROUTES_MAX: 1..1000");
_Static_assert(RELAY_HOPS_MAX >= 1 && RELAY_HOPS_MAX <= 16, "RELAY_HOPS_MAX: 1..16");
_Static_assert(RELAY_AUTH_MAX >= 1 && RELAY_AUTH_MAX <= 64, "RELAY_AUTH_MAX: 1..64");
_Static_assert(RELAY_PINS_MAX >= 1 && RELAY_PINS_MAX <= 256, "RELAY_PINS_MAX: 1..256");

/* LOCAL_MAILDIRS_MAX: lines of control/localmaildirs. Default 64, range 0-1000; 0 is without, and saves about 4 KiB. The cleaner has a
 * descriptor open for each. The Maildirs have to belong to USER_SPOOL. */
#ifndef LOCAL_MAILDIRS_MAX
#define LOCAL_MAILDIRS_MAX 64
#endif
_Static_assert(LOCAL_MAILDIRS_MAX >= 0 && LOCAL_MAILDIRS_MAX <= 1000, "LOCAL_MAILDIRS_MAX: 0..1000");

/* RELAY_CA_FILE: trust anchors when control/cacerts.pem does not exist. Default /etc/ssl/certs/ca-certificates.crt. Read only when a
 * policy of control/smtptls is `verify`; costs about 500 octets an anchor. */
#ifndef RELAY_CA_FILE
#define RELAY_CA_FILE "/etc/ssl/certs/ca-certificates.crt"
#endif

/* ---- radcheckpassword ------------------------------------------------------------------------------------------------------- */

/* RADCHECKPASSWORD: the program is a checkpassword, too, for POP3 and IMAP servers; see radcheckpassword(8). Default 1. 0 saves about 4 KiB. */
#ifndef RADCHECKPASSWORD
#define RADCHECKPASSWORD 1
#endif

/* RCP_USER, RCP_GROUP: owner of all mailboxes: who the program is run as when radcheckpassword is started as root. Names, or decimal
 * numbers; never root. Default vmail. Missing ones: every login is put off. */
#ifndef RCP_USER
#define RCP_USER "vmail"
#endif
#ifndef RCP_GROUP
#define RCP_GROUP "vmail"
#endif

/* RCP_HOME: a mailbox's directory, which must be there: HOME, and where the program is run. %u, once, is the user's name. Without a
 * slash in front it is below HOME_DIR. Default vmail/%u. RCP_SHELL: SHELL. Default /bin/false. */
#ifndef RCP_HOME
#define RCP_HOME "vmail/%u"
#endif
#ifndef RCP_SHELL
#define RCP_SHELL "/bin/false"
#endif
_Static_assert(sizeof RCP_HOME > 1, "RCP_HOME: / for no directory of one's own");

/* ---- Contradictions --------------------------------------------------------------------------------------------------------- */

#if TIMEOUT_LOGIN < RADIUS_DEADLINE
#error \
    "TIMEOUT_LOGIN is shorter than RADIUS_DEADLINE: a slow RADIUS server would end every session; raise TIMEOUT_LOGIN"
#endif
#if TIMEOUT_SESSION < TIMEOUT_COMMAND
#error "TIMEOUT_SESSION is shorter than TIMEOUT_COMMAND: raise TIMEOUT_SESSION"
#endif
#if AUTH_FAIL_DELAY_MS * 8 > 60000
#error "AUTH_FAIL_DELAY_MS * 8 is over a minute: clients give up and customers see a dead server"
#endif
#ifndef BUILD_EPOCH
#error "BUILD_EPOCH (seconds since 1970) comes from the Makefile: a clock before it counts as not set"
#endif

/* ---- Limits that protocols fix; not options ---------------------------------------------------------------------------------- */

#define SMTP_PATH_MAX 256      /* RFC 5321 4.5.3.1.3 */
#define SMTP_LOCAL_MAX 64      /* RFC 5321 4.5.3.1.1 */
#define SMTP_DOMAIN_MAX 255    /* RFC 5321 4.5.3.1.2 */
#define AUTH_USER_MAX 253      /* RFC 2865 5: a text attribute */
#define AUTH_PASSWORD_MAX 128  /* RFC 2865 5.2 */
#define RADIUS_SECRET_MAX 128  /* ours; RFC 2865 3 only says "not empty" */
#define RADIUS_PACKET_MAX 4096 /* RFC 2865 3 */
#define RADSEC_PINS 2          /* keys that a server may have: the present one and the next */
#define RADSEC_PATH 256
#define RELAY_PASSWORD_MAX 128 /* ours */

#endif
