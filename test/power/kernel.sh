#!/bin/sh
# SPDX-License-Identifier: MIT
# Fetches one of Debian's kernels and unpacks it; nothing is installed, so no initramfs is made and no boot loader touched.
#
#   test/power/kernel.sh cloud-amd64|amd64 DIR      cloud: smaller, with ext4, btrfs and xfs; the other also has f2fs
#
# Does nothing when DIR is there.
set -eu
meta=linux-image-$1
dir=$2
test ! -e "$dir/boot" || exit 0

work=$(mktemp -d "${TMPDIR:-/tmp}/mailstile-kernel.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# The name of today's version, and its archive in $work.
fetch() {
	name=$(apt-cache depends "$meta" | sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p' | head -n 1)
	test -n "$name" && (cd "$work" && apt-get -q download "$name")
}
# The lists may be missing or older than the archive.
fetch || { apt-get -q update && fetch; } || { echo "kernel.sh: no $meta from apt" >&2; exit 1; }
dpkg-deb -x "$work"/linux-image-*.deb "$work/kernel"
mkdir -p "$(dirname "$dir")"
rm -rf "$dir"
# Onto its name last: a directory of that name is whole.
cp -R "$work/kernel" "$dir.new.$$"
mv "$dir.new.$$" "$dir"
