#!/bin/sh
# SPDX-License-Identifier: MIT
# Compiles a small kernel of our own for a board and prints the directory with it: vmlinuz, config, and include/, its headers for programs.
#
#   CROSS=mipsel-linux-gnu- board/kernel.sh BOARD WORKDIR
#   CROSS=mipsel-linux-gnu- board/kernel.sh BOARD             only if it is there already
#
# The source is Debian's linux-source; the configuration `allnoconfig' with KERNEL_CONFIG of board/BOARD/image.conf and KERNEL_OPTION, a line
# more. Four minutes on two cores, then the result is in the cache. The same input gives the same octets. As any user.
# shellcheck disable=SC2153 # the words of image.conf
set -eu

here=$(cd "$(dirname "$0")" && pwd)
board=$1 work=${2:-}
# shellcheck source=/dev/null
. "$here/$board/image.conf"
# shellcheck source=/dev/null
. "$here/lib.sh"
made=$(made)
test -n "${KERNEL_CONFIG:-}" || { echo "board/kernel.sh: $board/image.conf has no KERNEL_CONFIG" >&2; exit 1; }

source=linux-source-6.1_6.1.176-1_all.deb
name=kernel-$board-$(key "$here/kernel.sh" "$here/$KERNEL_CONFIG" -- "$source $KERNEL_OPTION")
if test -d "$made/$name"; then
	echo "$made/$name"
	exit 0
fi
test -n "$work" || exit 1

deb=$("$here/fetch-deb.sh" "$source")
echo "board/kernel.sh: compiling a kernel for $board; this takes minutes, once" >&2
mkdir -p "$work"
work=$(cd "$work" && pwd)
tmp=$(mktemp -d "$work/kernel.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

# Not what no board of ours has: half of it.
dpkg-deb --fsys-tarfile "$deb" | tar -xO ./usr/src/linux-source-6.1.tar.xz | tar -xJ -C "$tmp" --strip-components=1 --no-same-owner \
	--exclude='*/Documentation/*/*' --exclude='*/tools/testing/*' --exclude='*/sound/*.[ch]' --exclude='*/drivers/gpu/*.[ch]' \
	--exclude='*/drivers/media/*.[ch]' --exclude='*/drivers/staging/*.[ch]' --exclude='*/drivers/net/wireless/*.[ch]'
mkdir "$tmp/o"
{ cat "$here/$KERNEL_CONFIG"; echo "$KERNEL_OPTION"; } > "$tmp/o/wanted"
compile() {
	env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS -u CPPFLAGS -u CFLAGS -u LDFLAGS make -s -j"$(nproc)" -C "$tmp" O="$tmp/o" ARCH=mips \
		CROSS_COMPILE="$CROSS" KCONFIG_ALLCONFIG="$tmp/o/wanted" KBUILD_BUILD_TIMESTAMP='2026-01-01' KBUILD_BUILD_USER=mailstile \
		KBUILD_BUILD_HOST=mailstile KBUILD_BUILD_VERSION=1 "$@" >> "$tmp/log" 2>&1 < /dev/null && return 0
	tail -n 30 "$tmp/log" >&2
	exit 1
}
compile allnoconfig
# An option that another one forbids is dropped without a word, and would be missed in the guest.
grep -v '^# [^C]\|^#*$' "$tmp/o/wanted" | while read -r line; do
	case $line in
	*=*) grep -qxF "$line" "$tmp/o/.config" ;;
	*) option=${line#\# }; ! grep -q "^${option% is not set}=" "$tmp/o/.config" ;;
	esac || { echo "board/kernel.sh: not to be had: $line" >&2; exit 1; }
done
compile vmlinuz headers
mkdir "$tmp/made"
"${CROSS}strip" -s -o "$tmp/made/vmlinuz" "$tmp/o/vmlinuz"
cp "$tmp/o/.config" "$tmp/made/config"
cp -R "$tmp/o/usr/include" "$tmp/made/include"
keep "$tmp/made" "$name"
echo "$made/$name"
