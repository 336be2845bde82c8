#!/bin/sh
# SPDX-License-Identifier: MIT
# Fuzzing with libFuzzer.
#
#   test/fuzz/run.sh [--memory] [SECONDS] [TARGET...]
#                  30 seconds for each target, unless said otherwise, under AddressSanitizer and UBSan, or MemorySanitizer, which alone
#                  sees that what nobody wrote is read
#   test/fuzz/run.sh --corpus [TARGET...]
#                  only replays the inputs of test/fuzz/corpus, each twice; needs gcc, not clang
#
# A target works on a copy of its corpus, so the tree stays as it is. FUZZ_KEEP=DIR takes up, and leaves, grown copies in DIR. An input
# that breaks something is left in build/fuzz/found, with the command that shows it; once mended it belongs into the corpus.
set -u
cd "$(dirname "$0")/../.." || exit 1

mode=address
bin=build/fuzz
flags=
case ${1:-} in
--corpus) mode=corpus bin=build/replay flags=REPLAY=1; shift ;;
--memory) mode=memory bin=build/fuzz-memory flags=MEMORY=1; shift ;;
esac
seconds=30
case ${1:-} in
'' | *[!0-9]*) ;;
*) seconds=$1; shift ;;
esac
targets=$(ls test/fuzz/corpus)
# shellcheck disable=SC2086 # a list of words
test $# -gt 0 || set -- $targets

make="${MAKE:-make} --no-print-directory -s -f test/fuzz/fuzz.mk"
case ${MAKEFLAGS:-} in *jobserver*) ;; *) make="$make -j$(nproc)" ;; esac
needs=fuzz
test $mode != corpus || needs="unit --check"
# shellcheck disable=SC2086
test/install-deps.sh build $needs && $make $flags || exit 1

# Debian 12's ASan cannot map its shadow under the widest address randomisation of newer kernels.
fixed=
! setarch -R true 2> /dev/null || fixed="setarch -R"
export UBSAN_OPTIONS=print_stacktrace=1
export ASAN_OPTIONS=disable_coredump=1

tmp=$(mktemp -d "${TMPDIR:-/tmp}/mailstile-fuzz.XXXXXX") || exit 1
# Targets make spools in TMPDIR, and on a disk each of their fsync() would count.
TMPDIR=$tmp/files
if test -w /dev/shm; then
	TMPDIR=$(mktemp -d /dev/shm/mailstile-fuzz.XXXXXX)
fi
export TMPDIR
mkdir -p "$TMPDIR" build/fuzz/found
trap 'rm -rf "$tmp" "$TMPDIR"' EXIT
trap 'exit 1' HUP INT TERM

# failed TARGET LOG: what was found, and how to see it again
failed() {
	rc=1
	grep -aE '^(==.*(ERROR|WARNING)|SUMMARY|Running:|test/fuzz/corpus/)|runtime error|^    #[0-9]+ .* in [^_].*\.[ch]:[0-9]' "$2" | tail -n 20
	input=$(sed -n 's/.*Test unit written to //p; s/^Running: //p' "$2" | tail -n 1)
	echo "FAILED: fuzz_$1; log: build/fuzz/found/$1.log; again:"
	cp "$2" "build/fuzz/found/$1.log"
	echo "  $fixed $bin/fuzz_$1 ${input:-test/fuzz/corpus/$1/*}"
}

rc=0
for t; do
	test -x "$bin/fuzz_$t" || { echo "run.sh: no target $t; there are: $(echo "$targets" | xargs)"; exit 2; }
	log=$tmp/$t.log
	if test $mode = corpus; then
		# shellcheck disable=SC2086
		$fixed $bin/fuzz_"$t" test/fuzz/corpus/"$t"/* > "$log" 2>&1 || failed "$t" "$log"
		continue
	fi
	work=${FUZZ_KEEP:-$tmp}/$t
	mkdir -p "$work"
	cp test/fuzz/corpus/"$t"/* "$work"
	dict=test/fuzz/$t.dict
	test "$t" != pair || dict=test/fuzz/smtp.dict
	test -e "$dict" || dict=
	# The corpus goes first, by name, so that a finding in it has one.
	# shellcheck disable=SC2086
	if $fixed $bin/fuzz_"$t" -close_fd_mask=3 test/fuzz/corpus/"$t"/* > "$log" 2>&1 &&
		$fixed $bin/fuzz_"$t" -max_total_time="$seconds" -max_len=8192 -timeout=10 -rss_limit_mb=1024 -close_fd_mask=3 -print_final_stats=1 \
			${dict:+-dict="$dict"} -artifact_prefix="$PWD/build/fuzz/found/$t-" "$work" > "$log" 2>&1; then
		awk -v t="$t" '/ cov: / { for (i = 1; i < NF; i++) v[$i] = $(i + 1) }
			/average_exec_per_sec/ { rate = $2 } /number_of_executed_units/ { n = $2 }
			END { printf "%-8s %9d runs %7d/s  cov %5d  features %6d  corpus %s\n", t, n, rate, v["cov:"], v["ft:"], v["corp:"] }' "$log"
	else
		failed "$t" "$log"
	fi
done
test $mode != corpus || test $rc != 0 || echo "$* replayed: ok"
exit $rc
