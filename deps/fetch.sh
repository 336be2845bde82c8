#!/bin/sh
# SPDX-License-Identifier: MIT
# Finds the source archive of a library, checks it against SHA256SUMS and prints its path.
#
#   deps/fetch.sh bearssl|radcli|musl|cmocka|busybox
#
# Looks in: DEPS_DIR (a directory of archives you trust as little as any other: they are checked too), the cache
# (DEPS_CACHE, default ~/.cache/mailstile), Debian through apt, then plain downloads. Nothing of the system is changed.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${DEPS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mailstile}
suite=bookworm	# the Debian release that carries these versions
name=${1:-}

pool=http://deb.debian.org/debian/pool/main
snap=https://snapshot.debian.org/archive/debian/20240201T000000Z/pool/main
case $name in
bearssl)
	files="bearssl_0.6+dfsg.1.orig.tar.xz bearssl-0.6.tar.gz"
	urls="https://www.bearssl.org/bearssl-0.6.tar.gz $pool/b/bearssl/bearssl_0.6+dfsg.1.orig.tar.xz
		$snap/b/bearssl/bearssl_0.6+dfsg.1.orig.tar.xz" ;;
radcli)
	files="radcli_1.2.11.orig.tar.gz"
	urls="$pool/r/radcli/radcli_1.2.11.orig.tar.gz $snap/r/radcli/radcli_1.2.11.orig.tar.gz" ;;
musl)
	files="musl_1.2.3.orig.tar.gz musl-1.2.3.tar.gz"
	urls="https://musl.libc.org/releases/musl-1.2.3.tar.gz $pool/m/musl/musl_1.2.3.orig.tar.gz
		$snap/m/musl/musl_1.2.3.orig.tar.gz" ;;
cmocka)
	files="cmocka_1.1.5.orig.tar.xz"
	urls="$pool/c/cmocka/cmocka_1.1.5.orig.tar.xz $snap/c/cmocka/cmocka_1.1.5.orig.tar.xz" ;;
busybox)
	files="busybox_1.35.0.orig.tar.bz2 busybox-1.35.0.tar.bz2"
	urls="https://busybox.net/downloads/busybox-1.35.0.tar.bz2 $pool/b/busybox/busybox_1.35.0.orig.tar.bz2
		$snap/b/busybox/busybox_1.35.0.orig.tar.bz2" ;;
*)
	echo "usage: $0 bearssl|radcli|musl|cmocka|busybox" >&2
	exit 2 ;;
esac

say() {
	echo "deps/fetch.sh: $*" >&2
}

# good FILE: is this the archive we know by that name?
good() {
	test -f "$1" || return 1
	want=$(awk -v name="$(basename "$1")" '$2 == name { print $1 }' "$here/SHA256SUMS")
	test -n "$want" || return 1
	test "$(sha256sum < "$1" | cut -d ' ' -f 1)" = "$want" && return 0
	say "$1 is not the file we know: its SHA-256 differs from deps/SHA256SUMS; not used"
	return 1
}

# The cache is filled by rename, so two builds at once meet whole files only.
keep() {
	mv -f "$1" "$cache/$(basename "$1")"
}

found() {
	for f in $files; do
		if good "$1/$f"; then
			echo "$1/$f"
			exit 0
		fi
	done
}

# Debian's own archive through apt: mirror, proxy and keys as this machine has them, but with lists and sources of our own,
# so that neither root nor deb-src lines are needed. apt checks signatures, we check the hash once more.
from_apt() {
	command -v apt-get > /dev/null || return 1
	mkdir -p "$tmp/lists/partial" "$tmp/state" "$tmp/cache/archives/partial"
	# shellcheck disable=SC2016 # apt expands these
	mirrors=$(apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(REPO_URI)' 'Created-By: Packages' 2> /dev/null |
		sed -n 's,/*$,,; s/^Debian|Debian|main|//p' | sort -u | grep -v '^http://deb.debian.org/debian$') || true
	key=/usr/share/keyrings/debian-archive-keyring.gpg
	test -r $key && key="[signed-by=$key] " || key=
	apt-config dump 2> /dev/null | grep '^Acquire::' > "$tmp/apt.conf" || true
	cat >> "$tmp/apt.conf" << END
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "$tmp/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State "$tmp/state";
Dir::State::lists "$tmp/lists";
Dir::Cache "$tmp/cache";
APT::Sandbox::User "";
APT::Update::Error-Mode "any";
Acquire::Languages { "none"; };
END
	for mirror in $mirrors http://deb.debian.org/debian; do
		echo "deb-src ${key}$mirror $suite main" > "$tmp/sources.list"
		if (cd "$tmp" && APT_CONFIG=$tmp/apt.conf && export APT_CONFIG && apt-get -qq update &&
		    apt-get -qq source --download-only --tar-only "$name") > "$tmp/log" 2>&1; then
			for f in $files; do
				if good "$tmp/$f"; then
					keep "$tmp/$f"
					return 0
				fi
			done
		fi
		say "apt with $mirror: $(grep -E -m 1 '^[EW]:' "$tmp/log")"
	done
	return 1
}

from_url() {
	for url in $urls; do
		f=$tmp/$(basename "$url")
		if command -v curl > /dev/null; then
			curl -fsSL --connect-timeout 20 -o "$f" "$url" 2> "$tmp/log" || { say "$(tail -n 1 "$tmp/log") ($url)"; continue; }
		elif command -v wget > /dev/null; then
			wget -q -T 20 -t 2 -O "$f" "$url" || { say "wget failed ($url)"; continue; }
		else
			say "neither curl nor wget is installed"
			return 1
		fi
		if good "$f"; then
			keep "$f"
			return 0
		fi
	done
	return 1
}

test -z "${DEPS_DIR:-}" || found "$DEPS_DIR"
found "$cache"

mkdir -p "$cache"
tmp=$(mktemp -d "$cache/fetch.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
say "fetching $name into $cache"
from_apt || from_url || {
	say "cannot get the source of $name. Put one of these files into $cache, or into a directory named by DEPS_DIR:"
	for f in $files; do
		grep -F "  $f" "$here/SHA256SUMS" >&2
	done
	say "they are here:"
	printf '%s\n' "$urls" | tr -s ' \t' '\n' >&2
	exit 1
}
found "$cache"
exit 1
