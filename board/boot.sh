#!/bin/sh
# SPDX-License-Identifier: MIT
# Boots an image of `make image' in QEMU.
#
#   board/boot.sh DIR DISK [QEMU ARGUMENT]...
#
# DISK is made, an empty ext4 of 64 MiB, if there is none. FORWARD is QEMU's list of forwarded ports; by default submission and
# submissions are at 127.0.0.1, ports 2587 and 2465. SERIAL: where the serial line goes, standard input and output by default.
# WORDS: for the kernel's command line, as "shell". The guest sees this machine at 10.0.2.2.
# shellcheck disable=SC2153 # the words of image.conf
set -eu

dir=$(cd "$1" && pwd) disk=$2
shift 2
# shellcheck source=/dev/null
. "$dir/image.conf"
PATH=$PATH:/usr/sbin:/sbin
if ! test -e "$disk"; then
	truncate -s "${DISK_SIZE:-64M}" "$disk.new"
	mkfs.ext4 -q -F -m 0 "$disk.new"
	mv "$disk.new" "$disk"
fi
# shellcheck disable=SC2086 # words
exec $QEMU -m "$MEMORY" -display none -no-reboot -monitor none -serial "${SERIAL:-mon:stdio}" -kernel "$dir/kernel" -initrd "$dir/initrd.gz" \
	-append "console=$CONSOLE quiet panic=5 ${WORDS:-}" \
	-netdev "user,id=n0,${FORWARD:-hostfwd=tcp:127.0.0.1:2587-:587,hostfwd=tcp:127.0.0.1:2465-:465}" -device "$NIC,netdev=n0" \
	-drive "file=$disk,format=raw,if=none,id=d0" -device "$DISK,drive=d0" "$@"
