#!/bin/sh
# SPDX-License-Identifier: MIT
# Unpacks a library's source to DIR/NAME and makes the few changes we need in it. Each change is checked.
#
#   deps/unpack.sh bearssl|radcli|musl|cmocka|busybox DIR
set -eu

name=$1
dir=$2
here=$(dirname "$0")
archive=$("$here/fetch.sh" "$name")

mkdir -p "$dir"
tmp=$(mktemp -d "$dir/.$name.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
# --touch: dated now, or make would not notice another version.
tar -xf "$archive" -C "$tmp" --strip-components=1 --no-same-owner --touch
chmod -R u+w,go+rX "$tmp"
chmod 755 "$tmp"

# change FILE FROM TO: exactly one line must match FROM, a basic regular expression.
change() {
	if test "$(grep -c "$2" "$tmp/$1")" != 1; then
		echo "deps/unpack.sh: $name: $1 has no single line matching '$2'; is this another version?" >&2
		exit 1
	fi
	sed -i "s/$2/$3/" "$tmp/$1"
}

if test "$name" = radcli; then
	# RFC 2865 allows passwords of 128 octets (5.2); secrets longer than the constant would be cut silently.
	change include/radcli/radcli.h '^#define AUTH_PASS_LEN.*' '#define AUTH_PASS_LEN 128'
	change include/radcli/radcli.h '^#define MAX_SECRET_LENGTH.*' '#define MAX_SECRET_LENGTH 144'
	# Seconds in whole numbers: CPUs without a floating point unit would need a library for its clock, which we do not use.
	change lib/util.h '^double rc_getmtime(void);' 'long rc_getmtime(void);'
	change lib/util.c '^double rc_getmtime(void)$' 'long rc_getmtime(void)'
	change lib/util.c 'return timespec.tv_sec + .*;' 'return timespec.tv_sec;'
	change lib/util.c 'return timev.tv_sec + .*;' 'return timev.tv_sec;'
	change lib/sendserver.c '	double start_time, timeout;' '	long start_time, timeout;'
	change lib/buildreq.c '	double start_time = 0;' '	long start_time = 0;'
	change lib/buildreq.c '	double now = 0;' '	long now = 0;'
	# Beside includes.h, so that its "config.h" can never be ours.
	cp "$here/radcli/radcli-config.h" "$tmp/include/config.h"
fi

rm -rf "${dir:?}/$name"
mv "$tmp" "$dir/$name"
trap - EXIT
