/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * What radcli wants from those parts of it that are left out: ip_util.c, config.c and dict.c look up names, read files and /etc/services and
 * parse languages of their own; md5.c and hmac.c are in BearSSL. Nothing here decides anything: radius.c does.
 */
#include <bearssl.h>
#include <includes.h>
#include <netdb.h>
#include <string.h>

struct addrinfo *rc_getaddrinfo(char const *host, unsigned flags);
void radius_no_free(struct addrinfo *info);
int radius_no_name(const struct sockaddr *sa, socklen_t len, char *host, socklen_t host_len, char *serv,
    socklen_t serv_len, int flags);
void rc_own_bind_addr(rc_handle *rh, struct sockaddr_storage *lia);
void rc_md5_calc(unsigned char *out, unsigned char const *p, size_t len);
void hmac_md5(uint8_t *p, size_t len, uint8_t *key, size_t key_len, uint8_t *digest);
void radius_radcli_log(int prio, const char *fmt, ...);

/* A placeholder; radcli only hands it back to us, with the port filled in, and frees it. */
struct addrinfo *
rc_getaddrinfo(char const *host, unsigned flags)
{
	static struct sockaddr_in nowhere;
	static struct addrinfo info = { .ai_family = AF_INET,
		.ai_socktype = SOCK_DGRAM,
		.ai_addrlen = sizeof nowhere,
		.ai_addr = (struct sockaddr *)&nowhere };

	(void)host;
	(void)flags;
	nowhere.sin_family = AF_INET;
	return &info;
}

/* radcli's freeaddrinfo() and, for a debugging line that is never written, getnameinfo(): see deps/Makefile. */
void
radius_no_free(struct addrinfo *info)
{
	(void)info;
}

int
radius_no_name(
    const struct sockaddr *sa, socklen_t len, char *host, socklen_t host_len, char *serv, socklen_t serv_len, int flags)
{
	(void)sa;
	(void)len;
	(void)host;
	(void)host_len;
	(void)serv;
	(void)serv_len;
	(void)flags;
	return EAI_FAIL;
}

int
rc_get_srcaddr(struct sockaddr *lia, const struct sockaddr *ria)
{
	memcpy(lia, ria, sizeof(struct sockaddr_in));
	return 0;
}

void
rc_own_bind_addr(rc_handle *rh, struct sockaddr_storage *lia)
{
	(void)rh;
	memset(lia, 0, sizeof *lia);
	lia->ss_family = AF_INET;
}

int
rc_find_server_addr(rc_handle const *rh, char const *name, struct addrinfo **info, char *secret, rc_type type)
{
	(void)rh;
	(void)type;
	secret[0] = '\0'; /* static_secret of the hooks comes in its place */
	*info = rc_getaddrinfo(name, 0);
	return 0;
}

char *
rc_conf_str(rc_handle const *rh, char const *optname)
{
	(void)rh;
	(void)optname;
	return NULL;
}

int
rc_conf_int(rc_handle const *rh, char const *optname)
{
	(void)rh;
	/* One try: the transport keeps its own time. */
	return strcmp(optname, "radius_timeout") == 0 ? 1 : 0;
}

SERVER *
rc_conf_srv(rc_handle const *rh, char const *optname)
{
	(void)rh;
	(void)optname;
	return NULL;
}

/* The dictionary: the attributes that are sent or read. */
DICT_ATTR *
rc_dict_getattr(rc_handle const *rh, int attribute)
{
	static DICT_ATTR dictionary[] = {
		{ "User-Name", PW_USER_NAME, PW_TYPE_STRING, NULL },
		{ "User-Password", PW_USER_PASSWORD, PW_TYPE_STRING, NULL },
		{ "NAS-IP-Address", PW_NAS_IP_ADDRESS, PW_TYPE_IPADDR, NULL },
		{ "Service-Type", PW_SERVICE_TYPE, PW_TYPE_INTEGER, NULL },
		{ "Reply-Message", PW_REPLY_MESSAGE, PW_TYPE_STRING, NULL },
		{ "Class", PW_CLASS, PW_TYPE_STRING, NULL },
		{ "Called-Station-Id", PW_CALLED_STATION_ID, PW_TYPE_STRING, NULL },
		{ "Calling-Station-Id", PW_CALLING_STATION_ID, PW_TYPE_STRING, NULL },
		{ "NAS-Identifier", PW_NAS_IDENTIFIER, PW_TYPE_STRING, NULL },
		{ "Acct-Session-Id", PW_ACCT_SESSION_ID, PW_TYPE_STRING, NULL },
		{ "NAS-Port-Type", PW_NAS_PORT_TYPE, PW_TYPE_INTEGER, NULL },
		{ "NAS-IPv6-Address", PW_NAS_IPV6_ADDRESS, PW_TYPE_IPV6ADDR, NULL },
	};

	(void)rh;
	for (size_t i = 0; i < sizeof dictionary / sizeof dictionary[0]; i++) {
		if (dictionary[i].value == attribute) {
			return &dictionary[i];
		}
	}
	return NULL;
}

DICT_VENDOR *
rc_dict_getvend(rc_handle const *rh, int vendor)
{
	(void)rh;
	(void)vendor;
	return NULL;
}

/* These three serve radcli's own text syntax for attributes, which is not used; the linker drops them. */
DICT_ATTR *
rc_dict_findattr(rc_handle const *rh, char const *name)
{
	(void)rh;
	(void)name;
	return NULL;
}

DICT_VALUE *
rc_dict_findval(rc_handle const *rh, char const *name)
{
	(void)rh;
	(void)name;
	return NULL;
}

DICT_VALUE *
rc_dict_getval(rc_handle const *rh, uint32_t value, char const *attrname)
{
	(void)rh;
	(void)value;
	(void)attrname;
	return NULL;
}

void
rc_md5_calc(unsigned char *out, unsigned char const *p, size_t len)
{
	br_md5_context mc;

	br_md5_init(&mc);
	br_md5_update(&mc, p, len);
	br_md5_out(&mc, out);
	explicit_bzero(&mc, sizeof mc);
}

/* Only for EAP, which is never sent: the transport seals all requests. */
void
hmac_md5(uint8_t *p, size_t len, uint8_t *key, size_t key_len, uint8_t *digest)
{
	(void)p;
	(void)len;
	(void)key;
	(void)key_len;
	memset(digest, 0, 16);
}

/* radcli's own log lines show attribute contents and name no remedy; ours replace them. */
void
radius_radcli_log(int prio, const char *fmt, ...)
{
	(void)prio;
	(void)fmt;
}
