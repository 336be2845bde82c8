#!/bin/sh
# SPDX-License-Identifier: MIT
# Compiles BusyBox for a board, with the board's musl, and prints its path: Debian's has no ntpd, needs a floating point unit on MIPS, and
# is not there for every CPU.
#
#   CROSS=mips-linux-gnu- FLAGS="-march=24kc ..." board/busybox.sh BOARD MUSL KERNEL WORKDIR
#
# MUSL: a directory with include and lib. KERNEL: what board/kernel.sh has printed. Half a minute, then the result is in the cache.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
board=$1 musl=$(cd "$2" && pwd) kernel=$3 work=$4
# shellcheck source=/dev/null
. "$here/lib.sh"
made=$(made)

gcc="gcc-12-source_12.2.0-14+deb12u1_all.deb"
name=busybox-$board-$(key "$here/busybox.sh" "$here/busybox.config" "$here/../deps/SHA256SUMS" "$musl/lib/libc.a" -- "$gcc $FLAGS ${kernel##*/}")
if test -d "$made/$name"; then
	echo "$made/$name/busybox"
	exit 0
fi

deb=$("$here/fetch-deb.sh" "$gcc")
echo "board/busybox.sh: compiling BusyBox for $board, once" >&2
mkdir -p "$work"
work=$(cd "$work" && pwd)
tmp=$(mktemp -d "$work/busybox.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
"$here/../deps/unpack.sh" busybox "$tmp"
include="-nostdinc -isystem $musl/include -isystem $("${CROSS}gcc" -print-file-name=include) -isystem $kernel/include"

# What a CPU without a floating point unit calls instead; Debian's libgcc for MIPS is for those that have one.
mkdir "$tmp/gcc" "$tmp/soft"
dpkg-deb --fsys-tarfile "$deb" | tar -xO ./usr/src/gcc-12/gcc-12.2.0-dfsg.tar.xz | tar -xJ -C "$tmp/gcc" --strip-components=1 --no-same-owner \
	--wildcards '*/libgcc/soft-fp/*' '*/libgcc/config/mips/sfp-machine.h' '*/libgcc/libgcc2.[ch]' '*/include/longlong.h'
for f in "$tmp"/gcc/libgcc/soft-fp/*[sd]f*.c "$here/mips.c"; do
	case ${f##*/} in
	*tf* | *xf* | *hf* | *bf* | *ti*.c) continue ;;
	esac
	# shellcheck disable=SC2086 # words
	"${CROSS}gcc" $FLAGS -Os -ffunction-sections -w $include -I "$tmp/gcc/libgcc/soft-fp" -I "$tmp/gcc/libgcc/config/mips" \
		-I "$tmp/gcc/libgcc" -I "$tmp/gcc/include" -c -o "$tmp/soft/$(basename "$f" .c).o" "$f"
done
"${CROSS}ar" rcs "$tmp/soft/libsoft.a" "$tmp"/soft/*.o

# BusyBox links with its compiler and knows no other start files: a compiler that does.
cat > "$tmp/cc" << END
#!/bin/sh
for a; do
	case \$a in -c | -E | -S | -r) exec ${CROSS}gcc $FLAGS $include "\$@" ;; esac
done
exec ${CROSS}gcc $FLAGS $include -static -no-pie -nostdlib -nostartfiles -L$musl/lib $musl/lib/crt1.o $musl/lib/crti.o "\$@" \\
	-Wl,--gc-sections,--build-id=none,-z,noexecstack -Wl,--start-group -lc $tmp/soft/libsoft.a -Wl,--end-group $musl/lib/crtn.o
END
chmod +x "$tmp/cc"
for l in m crypt rt resolv pthread; do
	test -e "$tmp/soft/lib$l.a" || "${CROSS}ar" rc "$tmp/soft/lib$l.a"
done
sed -i "s,-L$musl/lib,& -L$tmp/soft," "$tmp/cc"

compile() {
	env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS -u CPPFLAGS -u CFLAGS -u LDFLAGS make -s -j"$(nproc)" -C "$tmp/busybox" CC="$tmp/cc" \
		AR="${CROSS}ar" NM="${CROSS}nm" STRIP="${CROSS}strip" OBJCOPY="${CROSS}objcopy" LD="${CROSS}ld" \
		KCONFIG_NOTIMESTAMP=1 SOURCE_DATE_EPOCH=0 "$@" >> "$tmp/log" 2>&1 < /dev/null && return 0
	tail -n 30 "$tmp/log" >&2
	exit 1
}
# With all options on none is unknown; then what is not wanted goes off.
compile allyesconfig
sed -i 's/^\(CONFIG_[A-Z0-9_]*\)=y$/# \1 is not set/' "$tmp/busybox/.config"
grep '^CONFIG' "$here/busybox.config" | while IFS='=' read -r option value; do
	echo "s|^# $option is not set\$|$option=$value|; s|^$option=.*|$option=$value|"
done > "$tmp/wanted.sed"
sed -i -f "$tmp/wanted.sed" "$tmp/busybox/.config"
compile oldconfig
grep '^CONFIG.*=[^n]' "$here/busybox.config" | while read -r line; do
	grep -qxF "$line" "$tmp/busybox/.config" || { echo "board/busybox.sh: not to be had: $line" >&2; exit 1; }
done
compile busybox
mkdir "$tmp/made"
"${CROSS}strip" -s -R .comment -o "$tmp/made/busybox" "$tmp/busybox/busybox"
keep "$tmp/made" "$name"
echo "$made/$name/busybox"
