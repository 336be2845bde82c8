#!/bin/sh
# SPDX-License-Identifier: MIT
# Finds one of Debian's packages, checks it against board/SHA256SUMS and prints its path. Nothing is installed.
#
#   board/fetch-deb.sh NAME_VERSION_ARCH.deb
#
# Looks in the cache (DEPS_CACHE, default ~/.cache/mailstile), then asks apt, with lists of our own: the architecture need not be this
# machine's, and root is not needed. Last, Debian's archive of all versions there ever were, where curl or wget can reach it.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${DEPS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mailstile}
suite=bookworm
file=${1:?usage: fetch-deb.sh NAME_VERSION_ARCH.deb}
name=${file%%_*}
arch=${file##*_}
arch=${arch%.deb}
test "$arch" != all || arch=amd64

say() {
	echo "board/fetch-deb.sh: $*" >&2
}

want=$(awk -v name="$file" '$2 == name { print $1 }' "$here/SHA256SUMS")
test -n "$want" || { say "$file is not in board/SHA256SUMS"; exit 1; }

good() {
	test -f "$1" || return 1
	test "$(sha256sum < "$1" | cut -d ' ' -f 1)" = "$want" && return 0
	say "$1 is not the file we know: its SHA-256 differs from board/SHA256SUMS; not used"
	return 1
}

if good "$cache/$file"; then
	echo "$cache/$file"
	exit 0
fi

mkdir -p "$cache"
tmp=$(mktemp -d "$cache/deb.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
say "fetching $file into $cache"

from_apt() {
	command -v apt-get > /dev/null || return 1
	mkdir -p "$tmp/lists/partial" "$tmp/state" "$tmp/cache/archives/partial"
	key=/usr/share/keyrings/debian-archive-keyring.gpg
	apt-config dump 2> /dev/null | grep '^Acquire::' > "$tmp/apt.conf" || true
	cat >> "$tmp/apt.conf" << END
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "$tmp/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State "$tmp/state";
Dir::State::status "/dev/null";
Dir::State::lists "$tmp/lists";
Dir::Cache "$tmp/cache";
APT::Sandbox::User "";
APT::Architectures { "$arch"; };
APT::Architecture "$arch";
Acquire::Languages { "none"; };
END
	# shellcheck disable=SC2016 # apt expands these
	mirrors=$(apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(REPO_URI)' 'Created-By: Packages' 2> /dev/null |
		sed -n 's,/*$,,; s/^Debian|Debian|main|//p' | sort -u | grep -v '^http://deb.debian.org/debian$') || true
	for mirror in $mirrors http://deb.debian.org/debian; do
		echo "deb [arch=$arch signed-by=$key] $mirror $suite main" > "$tmp/sources.list"
		if (cd "$tmp" && APT_CONFIG=$tmp/apt.conf && export APT_CONFIG && apt-get -qq update &&
		    apt-get -qq download "$name") > "$tmp/log" 2>&1; then
			set -- "$tmp/$name"_*.deb
			good "$1" && mv -f "$1" "$cache/$file" && return 0
		fi
		say "apt with $mirror: $(grep -E -m 1 '^[EW]:' "$tmp/log" || echo "has another version")"
	done
	return 1
}

# Versions that a point release has replaced.
from_snapshot() {
	version=${file#*_}
	version=${version%_*}
	case $name in
	busybox-static) path=pool/main/b/busybox ;;
	gcc-*-source) path=pool/main/g/${name%-source} ;;
	linux-image-*-malta | linux-source-*) path=pool/main/l/linux ;;
	*) path=pool/main/l/linux-signed-$arch ;;
	esac
	url=https://snapshot.debian.org/archive/debian/20261101T000000Z/$path/${name}_${version}_${file##*_}
	{ curl -fsSL --connect-timeout 20 -o "$tmp/$file" "$url" || wget -q -T 20 -t 2 -O "$tmp/$file" "$url"; } 2> /dev/null || return 1
	good "$tmp/$file" && mv -f "$tmp/$file" "$cache/$file"
}

from_apt || from_snapshot || { say "cannot get $file; put it into $cache"; exit 1; }
echo "$cache/$file"
