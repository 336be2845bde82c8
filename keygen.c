/* SPDX-License-Identifier: MIT */
/* Copyright (c) 2026 The mailstile authors */
/*
 * Making keys, certificates and requests on the device: the `keygen` applet, and main's first start. Runs as root or as the
 * owner of the control directory, and reads nothing from the network. Files are PEM as br_pem_encode() writes it: the key in
 * PKCS#8 with its public key inside, certificate and request as der.c describes them.
 */
#include "cert.h"

#include "addr.h"
#include "der.h"
#include "options.h"
#include "str.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h> /* rename */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_LEN 512

/* ---- Writing --------------------------------------------------------------------------------------------------------- */

/* A file that does not have its name yet. */
struct draft {
	const char *path;
	char tmp[PATH_LEN + 16]; /* "" = none */
	struct diag *d;
};

static int
draft_fault(const struct draft *f, const char *what)
{
	diag_put(f->d, DIAG_ERROR, f->path, 0, "cannot %s: %s", what, strerror(errno));
	return -1;
}

static void
draft_drop(struct draft *f)
{
	if (f->tmp[0] != '\0') {
		(void)unlink(f->tmp);
		f->tmp[0] = '\0';
	}
}

/* Write all of it beside `path`, down to the disk. A name of its own keeps two keygens apart. */
static int
draft_write(struct draft *f, mode_t mode, const void *p, size_t len)
{
	unsigned random;
	int fd, rc;

	random_bytes(&random, sizeof random);
	if (strlen(f->path) >= PATH_LEN) {
		errno = ENAMETOOLONG;
		return draft_fault(f, "write");
	}
	str_fmt(f->tmp, sizeof f->tmp, "%s.%08x", f->path, random);
	fd = open(f->tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd == -1) {
		f->tmp[0] = '\0';
		return draft_fault(f, "create");
	}
	/* fchown for directories that hand down their group, fchmod whatever the umask. */
	rc = geteuid() == 0 ? fchown(fd, 0, 0) : 0;
	if (rc == -1 || fchmod(fd, mode) == -1 || write_all(fd, p, len) == -1 || fsync(fd) == -1) {
		(void)draft_fault(f, "write");
		(void)close(fd);
		return -1;
	}
	return close(fd) == -1 ? draft_fault(f, "write") : 0;
}

static int
sync_directory(const char *path)
{
	char dir[PATH_LEN];
	const char *slash = strrchr(path, '/');
	int fd, rc;

	str_fmt(dir, sizeof dir, "%.*s", slash == NULL ? 1 : (int)(slash - path) + 1, slash == NULL ? "." : path);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd == -1) {
		return -1;
	}
	rc = fsync(fd);
	return close(fd) == -1 ? -1 : rc;
}

/* Give it its name; with `replace` even one that is taken. */
static int
draft_install(struct draft *f, int replace)
{
	if (replace) {
		if (rename(f->tmp, f->path) == -1) {
			return draft_fault(f, "rename");
		}
		f->tmp[0] = '\0';
	} else if (link(f->tmp, f->path) == -1) {
		return draft_fault(f, "link");
	}
	draft_drop(f);
	return sync_directory(f->path) == -1 ? draft_fault(f, "sync the directory of") : 0;
}

static int
exists(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

/* ---- Making ---------------------------------------------------------------------------------------------------------- */

/* Letters, digits, '-' and '_' in labels of 1 to 63, 253 in all (RFC 5280 4.2.1.6: the preferred name syntax). */
static int
is_host_name(const char *s, size_t len)
{
	size_t label = 0;

	if (len == 0 || len > 253) {
		return 0;
	}
	for (size_t i = 0; i < len; i++) {
		int c = ascii_lower((unsigned char)s[i]);

		if (c == '.' && label > 0) {
			label = 0;
		} else if (((c >= 'a' && c <= 'z') || ascii_isdigit(c) || c == '-' || c == '_') && label < 63) {
			label++;
		} else {
			return 0;
		}
	}
	return label > 0;
}

static int
parse_name(struct der_name *n, const char *s, struct diag *d)
{
	size_t len = strlen(s);
	struct addr a;

	memset(n, 0, sizeof *n);
	/* An address may come as RFC 5321 4.1.3 writes it: [192.0.2.1], [IPv6:2001:db8::1]. */
	if (len > 2 && s[0] == '[' && s[len - 1] == ']') {
		s++;
		len -= 2;
		if (len > 5 && ascii_casecmp(s, "IPv6:", 5) == 0) {
			s += 5;
			len -= 5;
		}
	}
	if (addr_parse(&a, s, len) == 0) {
		n->is_addr = 1;
		n->san_len = addr_is_v4(&a) ? 4 : 16;
		memcpy(n->san, a.ip + sizeof a.ip - n->san_len, n->san_len);
	} else if (is_host_name(s, len)) {
		n->san_len = len;
		memcpy(n->san, s, len);
	} else {
		diag_put(d, DIAG_ERROR, NULL, 0,
		    "\"%.260s\" cannot be put into a certificate: expected a host name such as mail.example.org (international "
		    "ones as xn--), or an address",
		    s);
		return -1;
	}
	memcpy(n->cn, s, len < DER_CN_MAX ? len : DER_CN_MAX);
	return 0;
}

/* A P-256 key into s->key, and as PEM into s->file. Its length there. */
static size_t
make_key(struct secrets *s)
{
	struct cert_key *k = &s->key;
	unsigned char seed[br_sha256_SIZE + 16], mem[BR_EC_KBUF_PUB_MAX_SIZE];
	br_hmac_drbg_context rng;
	br_ec_public_key pub;
	size_t len;

	explicit_bzero(k, sizeof *k);
	random_bytes(seed, sizeof seed);
	br_hmac_drbg_init(&rng, &br_sha256_vtable, seed, sizeof seed);
	(void)br_ec_keygen(&rng.vtable, br_ec_get_default(), &k->ec, k->bytes, BR_EC_secp256r1);
	explicit_bzero(seed, sizeof seed);
	explicit_bzero(&rng, sizeof rng);
	k->type = BR_KEYTYPE_EC;
	(void)br_ec_compute_pub(br_ec_get_default(), &pub, mem, &k->ec);
	len = br_encode_ec_pkcs8_der(s->der, &k->ec, &pub);
	return br_pem_encode(s->file, s->der, len, BR_ENCODE_PEM_PKCS8, BR_PEM_LINE64);
}

/* A certificate or a request for s->key, as PEM in s->file. Its length, 0 when the key cannot sign for itself. */
static size_t
make_object(struct secrets *s, const struct der_name *name, const br_x509_pkey *pk, int request)
{
	unsigned char serial[DER_SERIAL_LEN], hv[br_sha256_SIZE], sig[CERT_SIGNATURE_MAX];
	br_sha256_context sha;
	struct buf body, whole;
	size_t len;

	buf_init(&body, s->der, sizeof s->der / 2);
	buf_init(&whole, s->der + sizeof s->der / 2, sizeof s->der / 2);
	if (request) {
		der_request_body(&body, name, pk);
	} else {
		/* 127 random bits that are never zero and take all 16 octets (RFC 5280 4.1.2.2: positive, at most 20). */
		random_bytes(serial, sizeof serial);
		serial[0] = (unsigned char)((serial[0] & 0x7f) | 0x40);
		der_certificate_body(&body, name, pk, serial);
	}
	br_sha256_init(&sha);
	br_sha256_update(&sha, body.p, body.len);
	br_sha256_out(&sha, hv);
	len = cert_sign(&s->key, br_sha256_ID, hv, sizeof hv, sig, sizeof sig);
	der_signed(&whole, body.p, body.len, pk->key_type, sig, len);
	if (len == 0 || body.full || whole.full) {
		return 0;
	}
	return br_pem_encode(
	    s->file, whole.p, whole.len, request ? "CERTIFICATE REQUEST" : "CERTIFICATE", BR_PEM_LINE64);
}

/* Sign an object for s->key and write it to `f`. */
static int
write_object(struct draft *f, struct secrets *s, const struct der_name *name, int request)
{
	unsigned char mem[CERT_PUBLIC_MAX];
	br_x509_pkey pk;
	size_t len = 0;

	if (cert_public(&s->key, &pk, mem) == 0) {
		len = make_object(s, name, &pk, request);
	}
	if (len == 0) {
		diag_put(f->d, DIAG_ERROR, f->path, 0,
		    "not made: the private key is damaged, or is RSA with an exponent other "
		    "than 65537; use the program that made it");
		return -1;
	}
	return draft_write(f, 0644, s->file, len);
}

/* The key of `keyfile` into s->key: a new one, drafted in `f`, or the one that is there. */
static int
prepare_key(struct draft *f, struct secrets *s, int replace)
{
	if (replace || !exists(f->path)) {
		return draft_write(f, 0600, s->file, make_key(s));
	}
	return cert_load_key(s, f->path, f->d);
}

static int
generate(const char *certfile, const char *keyfile, const char *name, int replace, struct secrets *s, struct diag *d)
{
	struct draft key = { .path = keyfile, .d = d }, cert = { .path = certfile, .d = d };
	struct der_name subject;
	int rc = -1;

	if (parse_name(&subject, name, d) == -1) {
		return -1;
	}
	if (!replace && exists(certfile)) {
		diag_put(d, DIAG_ERROR, certfile, 0, "exists: expected none, since nothing is replaced here");
		return -1;
	}
	/*
	 * Both are whole on the disk before either has its name, so that with `replace` only a power cut between two renames can
	 * leave a pair that does not match; check tells, and `keygen -f` mends it.
	 */
	secret_scratch_begin(s);
	if (prepare_key(&key, s, replace) == -1 || write_object(&cert, s, &subject, 0) == -1) {
		goto out;
	}
	if ((key.tmp[0] != '\0' && draft_install(&key, replace) == -1) || draft_install(&cert, replace) == -1) {
		goto out;
	}
	rc = 0;
out:
	draft_drop(&key);
	draft_drop(&cert);
	secret_scratch_end(s);
	secret_burn_stack();
	return rc;
}

int
cert_generate(const char *certfile, const char *keyfile, const char *name, struct secrets *s, struct diag *d)
{
	return generate(certfile, keyfile, name, 0, s, d);
}

/* ---- keygen ---------------------------------------------------------------------------------------------------------- */

struct keygen {
	const char *home;
	const char *request;
	const char *name;
	int replace;
	char certfile[PATH_LEN];
	char keyfile[PATH_LEN];
	char me[SMTP_DOMAIN_MAX + 64];
};

static int
keygen_usage(void)
{
	print(STDERR_FILENO, "usage: mailstile keygen [-H home] [-f | -r request.pem] [name]\n");
	return 100;
}

/* The name for the certificate: first line of control/me. */
static int
keygen_me(struct keygen *k, struct diag *d)
{
	char path[PATH_LEN];
	long len;

	str_fmt(path, sizeof path, "%s/control/me", k->home);
	len = file_read(path, k->me, sizeof k->me - 1);
	if (len == -1) {
		diag_put(d, DIAG_ERROR, path, 0, "%s: expected the name of this host in it, or as an argument",
		    strerror(errno));
		return -1;
	}
	k->me[len] = '\0';
	k->me[strcspn(k->me, "\r\n \t")] = '\0';
	k->name = k->me;
	return 0;
}

static int
keygen_request(struct keygen *k, struct secrets *s, struct diag *d)
{
	struct draft f = { .path = k->request, .d = d };
	struct der_name subject;
	int rc = -1;

	if (parse_name(&subject, k->name, d) == -1) {
		return -1;
	}
	secret_scratch_begin(s);
	if (write_object(&f, s, &subject, 1) == 0) {
		rc = draft_install(&f, 0);
	}
	draft_drop(&f);
	secret_scratch_end(s);
	secret_burn_stack();
	return rc;
}

/* Refuse what would replace something, before anything is made. 0 or -1. */
static int
keygen_allowed(const struct keygen *k, struct diag *d)
{
	if (k->request != NULL && exists(k->request)) {
		diag_put(d, DIAG_ERROR, k->request, 0, "exists: remove it, or name another file for the request");
		return -1;
	}
	if (k->request == NULL && !k->replace && exists(k->certfile)) {
		diag_put(d, DIAG_ERROR, k->certfile, 0,
		    "exists: -f replaces certificate and key by new ones, -r FILE makes a request for this key");
		return -1;
	}
	return 0;
}

static void
keygen_report(const struct keygen *k, const struct cert_chain *chain)
{
	if (exists(k->keyfile)) {
		print(STDOUT_FILENO, "key         %s\n", k->keyfile);
	}
	print(STDOUT_FILENO, "certificate %s\n", k->certfile);
	if (k->request != NULL) {
		print(STDOUT_FILENO, "request     %s\n", k->request);
	}
	print(STDOUT_FILENO, "name        %s\nSHA-256 fingerprint: ", k->name);
	for (size_t i = 0; i + 1 < sizeof chain->fingerprint; i++) {
		int c = (unsigned char)chain->fingerprint[i];

		print(STDOUT_FILENO, "%s%c", i > 0 && i % 2 == 0 ? ":" : "", c >= 'a' ? c - 'a' + 'A' : c);
	}
	print(STDOUT_FILENO, "\n");
}

static int
keygen_run(struct keygen *k, struct secrets *s, struct diag *d)
{
	struct cert_chain chain;
	int rc = 111;

	if (keygen_allowed(k, d) == -1) {
		return 100;
	}
	if ((k->request == NULL || !exists(k->certfile)) &&
	    generate(k->certfile, k->keyfile, k->name, k->replace, s, d) == -1) {
		return 111;
	}
	/* What is on the disk is what counts, so it is read back. */
	if (cert_load(&chain, s, k->certfile, k->keyfile, d) == -1) {
		return 100;
	}
	if (k->request == NULL || keygen_request(k, s, d) == 0) {
		keygen_report(k, &chain);
		rc = 0;
	}
	cert_free(&chain);
	return rc;
}

int
keygen_main(int argc, char **argv)
{
	struct keygen k = { .home = HOME_DIR };
	struct diag d = { .emit = diag_to_stdout };
	struct der_name unused;
	struct secrets *s;
	struct options o;
	int c, rc;

	(void)argc;
	options_begin(&o, argv);
	while ((c = options_next(&o, "H:fr:")) != 0) {
		switch (c) {
		case 'H':
			k.home = o.value;
			break;
		case 'f':
			k.replace = 1;
			break;
		case 'r':
			k.request = o.value;
			break;
		default:
			return keygen_usage();
		}
	}
	/* With both -f and -r, one slip would cost the key that the request is for. */
	if ((o.word[0] != NULL && o.word[1] != NULL) || (k.replace && k.request != NULL) ||
	    *str_fmt(k.certfile, sizeof k.certfile, "%s/control/servercert.pem", k.home) == '\0' ||
	    *str_fmt(k.keyfile, sizeof k.keyfile, "%s/control/serverkey.pem", k.home) == '\0') {
		return keygen_usage();
	}
	k.name = o.word[0];
	if ((k.name == NULL && keygen_me(&k, &d) == -1) || parse_name(&unused, k.name, &d) == -1) {
		return 100;
	}
	s = secret_map();
	if (s == NULL) {
		diag_put(&d, DIAG_ERROR, NULL, 0, "no memory: %s", strerror(errno));
		return 111;
	}
	rc = keygen_run(&k, s, &d);
	secret_unmap(s);
	return rc;
}
