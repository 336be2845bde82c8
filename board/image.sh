#!/bin/sh
# SPDX-License-Identifier: MIT
# Makes an image to boot: Debian's kernel for the board, and an initramfs of BusyBox, board/rootfs and mailstile.
#
#   board/image.sh BOARD BINARY DIR                      writes DIR/kernel, DIR/initrd.gz, DIR/image.conf; board/BOARD/image.conf says of what
#   board/image.sh BOARD BINARY DIR KERNEL BUSYBOX       the same with a kernel and a BusyBox of our own (kernel.sh, busybox.sh)
#
# The initramfs is the whole system: nothing of it changes while it runs, and an upgrade replaces it. What is kept is on /data.
# As any user; the same input gives the same octets.
# shellcheck disable=SC2153 # the words of image.conf
set -eu

here=$(cd "$(dirname "$0")" && pwd)
board=$1 binary=$2 out=$3 own=${4:-} busybox=${5:-}
test -r "$here/$board/image.conf" || { echo "board/image.sh: $board has no image.conf, so no image: malta, malta-be, aarch64, x86_64 do" >&2; exit 1; }
# shellcheck source=/dev/null
. "$here/$board/image.conf"

mkdir -p "$out"
tmp=$(mktemp -d "$out/tmp.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

if test -n "$own"; then
	kernel=$own/vmlinuz
	# All is built in.
	k=''
	MODULES=''
else
	deb=$("$here/fetch-deb.sh" "$KERNEL")
	# Unpacking a kernel package takes seconds: once for each.
	k=$out/${KERNEL%.deb}
	if ! test -d "$k"; then
		mkdir "$tmp/k"
		dpkg-deb -x "$deb" "$tmp/k"
		mv "$tmp/k" "$k"
	fi
	kernel=$(find "$k/boot" -name 'vmlinuz-*' | head -n 1)
	deb=$("$here/fetch-deb.sh" "$BUSYBOX")
	mkdir "$tmp/b"
	dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$tmp/b" ./bin/busybox
	busybox=$tmp/b/bin/busybox
fi

root=$tmp/root
mkdir -p "$root/bin" "$root/sbin" "$root/usr/bin" "$root/usr/sbin" "$root/dev" "$root/proc" "$root/sys" "$root/tmp" "$root/run" "$root/data" \
	"$root/root" "$root/var" "$root/lib/modules"
cp -R "$here/rootfs/." "$root"
cp "$here/host/mailstile.init" "$root/etc/init.d/S60mailstile"
cp "$busybox" "$root/bin/busybox"
cp "$binary" "$root/sbin/mailstile"
ln -s busybox "$root/bin/sh"
ln -s ../bin/busybox "$root/sbin/init"
ln -s sbin/init "$root/init"
ln -s ../run "$root/var/run"
ln -s ../tmp "$root/var/tmp"
ln -s /data/qmail "$root/var/qmail"
ln -s ../run/resolv.conf "$root/etc/resolv.conf"
sed "s/@CONSOLE@/$CONSOLE/g" "$here/rootfs/etc/inittab" > "$root/etc/inittab"

# A module after those it needs. What is no module is built in; a name may stand for its plain implementation.
module() {
	for n in "$1" "$1_generic"; do
		f=$(find "$k/lib/modules" -name "$n.ko" -o -name "$(echo "$n" | tr _ -).ko" | head -n 1)
		test -z "$f" || break
	done
	test -n "$f" || return 0
	grep -qxF "${f##*/}" "$root/lib/modules/list" && return 0
	for need in $(tr '\0' '\n' < "$f" | sed -n 's/^depends=//p; s/^softdep=pre: //p' | sed 's/crypto-//g' | tr ',-' ' _'); do
		(module "$need")
	done
	cp "$f" "$root/lib/modules/"
	echo "${f##*/}" >> "$root/lib/modules/list"
}
: > "$root/lib/modules/list"
for m in $MODULES; do
	module "$m"
done

chmod -R u=rwX,go=rX "$root"
chmod 755 "$root"/etc/init.d/* "$root"/sbin/* "$root"/bin/*
find "$root" -exec touch -h -d "@${SOURCE_DATE_EPOCH:-0}" {} +
(cd "$root" && find . | LC_ALL=C sort | cpio --quiet --reproducible -o -H newc -R 0:0 | gzip -9n) > "$tmp/initrd.gz"
# What board/boot.sh wants to know.
{ cat "$here/$board/image.conf"; test -z "$own" || echo "MEMORY=$OWN_MEMORY"; } > "$tmp/image.conf"
cp "$kernel" "$tmp/kernel"
for f in kernel initrd.gz image.conf; do
	mv "$tmp/$f" "$out/$f"
done
echo "$out/kernel: $(stat -c %s "$out/kernel") octets; $out/initrd.gz: $(stat -c %s "$out/initrd.gz") octets"
