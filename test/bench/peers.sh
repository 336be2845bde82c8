#!/bin/sh
# SPDX-License-Identifier: MIT
# peers.sh DIRECTORY [PEER]...: makes DIRECTORY/root, a directory to chroot into, with Debian's packages of other mail servers
# (postfix, dovecot, exim, opensmtpd; none: all of them) and what they are linked with. They are downloaded and unpacked, never installed: nothing
# of this touches the machine's own mail, users or services. bench.py writes all configuration.
set -eu
dir=$1
shift
test $# -gt 0 || set -- postfix dovecot exim opensmtpd

base="libc6 libcrypt1 libgcc-s1 libstdc++6 zlib1g libssl3 libdb5.3 libnsl2 libtirpc3 libgssapi-krb5-2 libkrb5-3 libk5crypto3
	libkrb5support0 libcom-err2 libkeyutils1 libpam0g libpam-modules libpam-radius-auth libaudit1 libcap-ng0"
ldap="libldap-2.5-0 libsasl2-2 libgnutls30 libidn2-0 libp11-kit0 libunistring2 libtasn1-6 libnettle8 libhogweed6 libgmp10 libffi8"
postfix="postfix libicu72 libsasl2-modules sasl2-bin $ldap"
exim="exim4-daemon-heavy libgnutls-dane0 libidn12 libunbound8 libevent-2.1-7 libpcre2-8-0 libmariadb3 libpq5 libperl5.36 libspf2-2
	libsqlite3-0 libzstd1 $ldap"
dovecot="dovecot-core libapparmor1 libbz2-1.0 libexttextcat-2.0-0 libicu72 liblua5.4-0 liblz4-1 liblzma5 libsodium23 libstemmer0d
	libsystemd0 libcap2 libgcrypt20 libgpg-error0 libunwind8 libwrap0 libzstd1"
opensmtpd="opensmtpd libevent-2.1-7"

packages=$base
for peer; do
	case $peer in
	postfix) packages="$packages $postfix" ;;
	dovecot) packages="$packages $dovecot" ;;
	exim) packages="$packages $exim" ;;
	opensmtpd) packages="$packages $opensmtpd" ;;
	*) echo "peers.sh: no peer $peer" >&2; exit 2 ;;
	esac
done

mkdir -p "$dir/debs" "$dir/root"
: > "$dir/missing"
for p in $packages; do
	test -e "$dir/debs/$p.unpacked" || echo "$p" >> "$dir/missing"
done
test -s "$dir/missing" || exit 0

echo "bench: fetching other mail servers into $dir"
fetch() {
	# The sandbox user may not write here, and says so at length.
	(cd "$dir/debs" && sort -u ../missing | xargs apt-get -qq -o APT::Sandbox::User=root download)
}
fetch || { apt-get -qq update || echo "peers.sh: apt-get update failed; going on" >&2; fetch; }
sort -u "$dir/missing" | while read -r p; do
	for deb in "$dir/debs/${p}"_*.deb; do
		dpkg-deb -x "$deb" "$dir/root"
		rm "$deb"
	done
	touch "$dir/debs/$p.unpacked"
done
