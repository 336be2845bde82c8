#!/bin/sh
# SPDX-License-Identifier: MIT
# make bench: builds the load generator and runs the benchmark. BENCH_ROUNDS sets the rounds.
set -eu
cd "$(dirname "$0")/../.."
make="${MAKE:-make} --no-print-directory"
test/install-deps.sh build bench
$make all
tmp=$(mktemp -d "${TMPDIR:-/tmp}/mailstile-bench.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
cp mailstile test/bench/bench.py "$tmp"
${HOSTCC:-cc} -O2 -D_GNU_SOURCE -o "$tmp/load" test/bench/load.c
chmod 755 "$tmp" "$tmp"/*
TMPDIR="$tmp" MAILSTILE="$tmp/mailstile" LOAD="$tmp/load" /usr/bin/python3 "$tmp/bench.py"
