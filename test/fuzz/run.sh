#!/bin/sh
# SPDX-License-Identifier: MIT
# Fuzzing with libFuzzer.
#
#   test/fuzz/run.sh [--memory] [--jobs N] [SECONDS] [TARGET...]
#                  30 seconds for each target, unless said otherwise, under AddressSanitizer and UBSan, or MemorySanitizer, which alone
#                  sees that what nobody wrote is read; N targets at a time, 1 unless said otherwise
#   test/fuzz/run.sh --corpus [TARGET...]
#                  only replays the inputs of test/fuzz/corpus, each twice; needs gcc, not clang
#   test/fuzz/run.sh --coverage [TARGET...]
#                  shows how much of each source file these inputs reach; build/fuzz-coverage/unreached lists the lines they do not
#   test/fuzz/run.sh --merge DIR [TARGET...]
#                  adds to test/fuzz/corpus what is new, and small, in the corpora DIR/TARGET
#
# A target works on a copy of its corpus, so the tree stays as it is. FUZZ_KEEP=DIR takes up, and leaves, grown copies in DIR. An input
# that breaks something is shown, and left in build/fuzz/found, with the command that runs it; once mended it belongs into the corpus.
set -u
cd "$(dirname "$0")/../.." || exit 1

mode=address
bin=build/fuzz
flags=
jobs=1
from=
needs=fuzz
while :; do
	case ${1:-} in
	--corpus) mode=corpus bin=build/replay flags=REPLAY=1 needs="unit --check" ;;
	--memory) mode=memory bin=build/fuzz-memory flags=MEMORY=1 ;;
	--coverage) mode=coverage bin=build/fuzz-coverage flags=COVERAGE=1 needs="fuzz pkg:llvm" ;;
	--merge) mode=merge from=$2; shift ;;
	--jobs) jobs=$2; shift ;;
	*) break ;;
	esac
	shift
done
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
	touch "$tmp/failed"
	grep -aE '^(==.*(ERROR|WARNING)|SUMMARY|Running:|test/fuzz/corpus/)|runtime error|^    #[0-9]+ .* in [^_].*\.[ch]:[0-9]' "$2" | tail -n 20
	input=$(sed -n 's/.*Test unit written to //p; s/^Running: //p' "$2" | tail -n 1)
	echo "FAILED: fuzz_$1; log: build/fuzz/found/$1.log; again:"
	cp "$2" "build/fuzz/found/$1.log"
	echo "  $fixed $bin/fuzz_$1 ${input:-test/fuzz/corpus/$1/*}"
	if test -f "$input"; then
		echo "The input, by base64 -d: $(base64 -w 0 "$input")"
	fi
}

# A corpus of 4 MiB and more than 8 KiB an input is of no use: what is found is found with less.
options="-max_len=8192 -timeout=10 -rss_limit_mb=1024 -close_fd_mask=3 -print_final_stats=1"

# libfuzzer TARGET: its corpus, then what comes to its mind
libfuzzer() {
	log=$tmp/$1.log
	work=${FUZZ_KEEP:-$tmp}/$1
	mkdir -p "$work"
	cp test/fuzz/corpus/"$1"/* "$work"
	dict=test/fuzz/$1.dict
	case $1 in pair | tls) dict=test/fuzz/smtp.dict ;; esac
	test -e "$dict" || dict=
	# The corpus goes first, by name, so that a finding in it has one.
	# shellcheck disable=SC2086
	if $fixed $bin/fuzz_"$1" -close_fd_mask=3 test/fuzz/corpus/"$1"/* > "$log" 2>&1 &&
		$fixed $bin/fuzz_"$1" -max_total_time="$seconds" $options ${dict:+-dict="$dict"} \
			-artifact_prefix="$PWD/build/fuzz/found/$1-" "$work" > "$log" 2>&1; then
		awk -v t="$1" '/ cov: / { for (i = 1; i < NF; i++) v[$i] = $(i + 1) }
			/average_exec_per_sec/ { rate = $2 } /number_of_executed_units/ { n = $2 }
			END { printf "%-8s %9d runs %7d/s  cov %5d  features %6d  corpus %s\n", t, n, rate, v["cov:"], v["ft:"], v["corp:"] }' "$log"
	else
		failed "$1" "$log"
	fi
}

# replay TARGET
replay() {
	LLVM_PROFILE_FILE=$tmp/$1.raw $fixed $bin/fuzz_"$1" test/fuzz/corpus/"$1"/* > "$tmp/$1.log" 2>&1 || failed "$1" "$tmp/$1.log"
}

# shellcheck disable=SC2086 # a list of words
# merge TARGET: into a new corpus the files of the old one first, so that they stay, then the smallest of what is new
merge() {
	mkdir -p "$tmp/new/$1"
	if $fixed $bin/fuzz_"$1" $options -merge=1 "$tmp/new/$1" test/fuzz/corpus/"$1" "$from/$1" > "$tmp/$1.log" 2>&1; then
		find "$tmp/new/$1" -type f -size -3 -exec cp -n {} test/fuzz/corpus/"$1" \;
	else
		failed "$1" "$tmp/$1.log"
	fi
}

# coverage TARGET...: a table, and the lines that are not reached
coverage() {
	objects=
	for t; do
		objects="$objects${objects:+ -object }$bin/fuzz_$t"
	done
	# shellcheck disable=SC2086
	{
		llvm-profdata merge -o "$tmp/profile" "$tmp"/*.raw &&
			llvm-cov report $objects -instr-profile="$tmp/profile" ./*.c | awk '$1 ~ /\.c$|^TOTAL/ && $8 != $9 {
				sub(/.*\//, "", $1); printf "%-12s lines %5d, not reached %5d: %7s   branches %7s\n", $1, $8, $9, $10, $13 }' &&
			llvm-cov show $objects -instr-profile="$tmp/profile" ./*.c |
			sed -n 's/^.*\/\([a-z]*\.c\):$/\1/p; s/^ *\([0-9]*\)|  *0|/\1 /p' > $bin/unreached
	}
}

for t; do
	test -x "$bin/fuzz_$t" || { echo "run.sh: no target $t; there are: $(echo "$targets" | xargs)"; exit 2; }
done
case $mode in
corpus | coverage) for t; do replay "$t"; done ;;
merge) for t; do merge "$t"; done ;;
*)
	n=0
	while test $n -lt "$jobs"; do
		i=0
		for t; do
			test $((i % jobs)) != $n || libfuzzer "$t"
			i=$((i + 1))
		done &
		n=$((n + 1))
	done
	wait ;;
esac
test $mode != coverage || coverage "$@"
test ! -e "$tmp/failed" || exit 1
test $mode != corpus || echo "$* replayed: ok"
