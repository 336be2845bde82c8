#!/bin/sh
# SPDX-License-Identifier: MIT
# make bench: builds load generator, floor and log sink, fetches the other servers (peers.sh) and runs bench.py, which says what can be
# set. As root.
#
# BENCH_DIR: where servers and their queues are, on a real disk; build/bench otherwise. Emptied messages stay there (make clean).
# BENCH_IMAGE=ext4 (or xfs): on a new file system of that kind, in a file in there; for when its own has no journal.
set -eu
cd "$(dirname "$0")/../.."
if test "$(id -u)" != 0; then
	echo "bench: must be root: it starts servers in a root directory of their own, under users of their own" >&2
	exit 1
fi
make="${MAKE:-make} --no-print-directory"
test/install-deps.sh build bench
$make all
dir=${BENCH_DIR:-$PWD/build/bench}
mkdir -p "$dir"
exec 9> "$dir/lock"
flock -n 9 || { echo "bench: another one is running in $dir" >&2; exit 1; }
if test -n "${BENCH_QUICK:-}" && test -z "${BENCH_SERVERS:-}"; then
	test/bench/peers.sh "$dir" postfix
else
	test/bench/peers.sh "$dir"
fi
# compile PROGRAM [LIBRARY]...
compile() {
	program=$1
	shift
	${HOSTCC:-cc} -O2 -Wall -Wextra -D_GNU_SOURCE -o "$dir/$program" "test/bench/$program.c" "$@"
}
compile load -lssl -lcrypto
compile floor -static
compile sink
export MAILSTILE="${MAILSTILE:-$PWD/mailstile}" LOAD="$dir/load" FLOOR="$dir/floor" SINK="$dir/sink" BENCH_ROOT="$dir/root"
export PYTHONDONTWRITEBYTECODE=1 dir
if test -n "${BENCH_IMAGE:-}"; then
	rm -f "$dir/image"
	truncate -s 40G "$dir/image"
	"mkfs.$BENCH_IMAGE" -q "$dir/image"
	export BENCH_ROOT="$dir/mounted"
fi
mkdir -p "$BENCH_ROOT"
# What is mounted goes when we go, and the file with it. mailstile looks into /sys for what the file system promises.
# shellcheck disable=SC2016 # the inner shell expands it
exec unshare --mount sh -euc '
	if test -n "${BENCH_IMAGE:-}"; then
		loop=$(losetup --find --show --direct-io=on "$dir/image")
		mount "$loop" "$BENCH_ROOT"
		losetup --detach "$loop"
		rm "$dir/image"
		cp -a "$dir/root/etc" "$dir/root/lib" "$dir/root/lib64" "$dir/root/usr" "$BENCH_ROOT"
	fi
	mkdir -p "$BENCH_ROOT/proc" "$BENCH_ROOT/sys"
	mount -t proc proc "$BENCH_ROOT/proc"
	mount --bind /sys "$BENCH_ROOT/sys"
	exec /usr/bin/python3 test/bench/bench.py'
