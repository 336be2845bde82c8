#!/bin/sh
# SPDX-License-Identifier: MIT
# make bench: builds load generator, floor and log sink, fetches the other servers (peers.sh) and runs bench.py, which says what can be
# set. As root. BENCH_DIR: where servers and their queues are, on a real disk; build/bench otherwise.
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
if test -n "${BENCH_QUICK:-}"; then
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
export PYTHONDONTWRITEBYTECODE=1
mkdir -p "$dir/root/proc"
# A mount that goes when we go.
# shellcheck disable=SC2016 # the inner shell expands it
exec unshare --mount sh -c 'mount -t proc proc "$BENCH_ROOT/proc" && exec /usr/bin/python3 test/bench/bench.py'
