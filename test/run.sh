#!/bin/sh
# SPDX-License-Identifier: MIT
# Every test, each with its output; fails if any of them does. "make test" installs what it needs and calls this; "make
# test-long" sets MAILSTILE_LONG for the long forms of some. As root each integration run is repeated as nobody, in a copy
# of the tree that nobody may only read; and since these runs mostly wait, they go in lanes beside each other then.
# Root's and nobody's have a network of their own each, so that no port or address is another's.
#
# run.sh lane NAME DIRECTORY is one of them, for ourselves.
set -u
cd "$(dirname "$0")/.." || exit 1

make="${MAKE:-make} --no-print-directory"
case ${MAKEFLAGS:-} in *jobserver*) ;; *) make="$make -j$(nproc)" ;; esac
release=$PWD/mailstile
sanitized=$PWD/build/host-san/mailstile
lane=
lanes=
if test "${1:-}" = lane; then
	lane=$2
	logs=$3
else
	logs=$(mktemp -d "${TMPDIR:-/tmp}/mailstile.XXXXXX") || exit 1
	chmod 711 "$logs"
	trap 'rm -rf "$logs"' EXIT
	# Each lane is a process group.
	trap 'for p in $lanes; do kill -TERM "-$p" 2> /dev/null; done; wait; exit 1' HUP INT TERM
fi
# The lines of a step that failed which are shown again at the end
telling='^(FAILED|ERROR|E  |==[0-9]+==|SUMMARY|The input|unit tests failed|  .*build/fuzz)|runtime error|[Ee]rror:|budget|\*\*\*'
export PYTHONDONTWRITEBYTECODE=1

# Words put before pytest for sanitized binaries. A finding ends the process by SIGABRT, so that a test which only looks at
# exit codes notices. Leaks are looked for in unit tests only: that needs ptrace, which jailed processes do not have.
# Debian 12's ASan cannot map its shadow under the widest address randomisation of newer kernels, hence setarch.
san="env ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:disable_coredump=1 UBSAN_OPTIONS=print_stacktrace=1:abort_on_error=1"
if setarch -R true 2> /dev/null; then
	san="$san setarch -R"
fi

# What takes long is done in part, but for "make test-long".
fuzz_seconds=30
valgrind_title="under valgrind, in part"
valgrind_tests="-k 'test_clients or test_keywords or test_bdat or test_login or test_resum'"
if test -n "${MAILSTILE_LONG:-}"; then
	fuzz_seconds=600
	valgrind_title="under valgrind"
	valgrind_tests=
fi

# step TITLE COMMAND...: to the screen at once, or, in a lane, at its end, and to a file
step() {
	title=$1
	shift
	out=$logs/step$lane
	began=$(date +%s)
	verdict=ok
	if test -z "$lane"; then
		printf '\n==== %s\n' "$title"
		{ "$@"; echo $? > "$out.rc"; } 2>&1 | tee "$out"
	else
		printf '(Beside the others: %s)\n' "$title"
		"$@" > "$out" 2>&1
		echo $? > "$out.rc"
		# shellcheck disable=SC2016 # for that shell
		flock "$logs/screen" sh -c 'printf "\n==== %s\n" "$1"; cat "$2"' sh "$title" "$out"
	fi
	if test "$(cat "$out.rc")" != 0; then
		verdict=FAILED
		{ printf '\n==== from: %s\n' "$title"; grep -aE "$telling" "$out" | tail -n 40; } >> "$logs/failed"
	fi
	rm -f "$out.rc"
	printf '%-7s %4d s  %s\n' "$verdict" $(($(date +%s) - began)) "$title" >> "$logs/summary"
	test "$verdict" = ok
}

# integration MARKER BINARY [WORD...]: the words go before pytest
integration() {
	marker=$1
	MAILSTILE=$2
	export MAILSTILE
	shift 2
	"$@" /usr/bin/python3 -m pytest -q -p no:cacheprovider --durations=12 --durations-min=5 -m "$marker" test/integration
}

# The same as nobody, who may not be able to enter the directory we are in.
as_nobody() {
	marker=$1
	binary=$2
	shift 2
	copy=$logs/nobody # short: it begins the names of sockets
	mkdir "$copy" || return 1
	tar -cf - --exclude=./build --exclude=./.git . | tar -xf - -C "$copy" --no-same-owner
	cp "$binary" "$copy/mailstile"
	mkdir "$copy/tmp"
	chmod -R go+rX,go-w "$copy"
	chown 65534:65534 "$copy/tmp"
	(cd "$copy" && integration "$marker" "$copy/mailstile" "$@" \
		env HOME="$copy/tmp" TMPDIR="$copy/tmp" USER=nobody LOGNAME=nobody \
		setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all)
	rc=$?
	rm -rf "$copy"
	return $rc
}

# shellcheck disable=SC2086 # $san is a list of words
run_lane() {
	case $1 in
	release) step "the release build: hardening, system calls, faults, attacks" integration release "$release" ;;
	root)
		step "integration, as root" integration "not release" "$release"
		step "integration, as root, sanitized" integration "not release" "$sanitized" $san
		;;
	nobody)
		step "integration, as nobody" as_nobody "not release" "$release"
		step "integration, as nobody, sanitized" as_nobody "not release" "$sanitized" $san
		;;
	desk)
		step "integration" integration "not release" "$release"
		step "integration, sanitized" integration "not release" "$sanitized" $san
		;;
	esac
}

# A network of its own for a command
network='ip link set lo up && exec "$@"'

side_by_side() {
	setsid test/run.sh lane release "$logs" < /dev/null & # it fetches packages
	lanes=$!
	for name in root nobody; do
		setsid unshare --net sh -c "$network" sh test/run.sh lane "$name" "$logs" < /dev/null &
		lanes="$lanes $!"
	done
	# shellcheck disable=SC2086 # a list of numbers
	for p in $lanes; do
		wait "$p" || printf '\n==== a lane ended with status %d\n' $? >> "$logs/failed"
	done
	lanes=
}

if test -n "$lane"; then
	run_lane "$lane"
	exit 0
fi

# shellcheck disable=SC2086 # $make and $helpers are lists of words
{
	helpers="scheduler remote dns-ask"
	step "build: release" $make all hostile power-control scheduler-qlog $helpers &&
		step "build: with sanitizers" $make SANITIZE=1 all $helpers || exit 1
	step "size" $make size
	step "unit tests, sanitized" $make test-unit
	for board in aarch64 malta; do
		step "board $board: its size, and its unit tests under QEMU" $make BOARD=$board size run-unit
	done
	step "fuzzing: the corpus, then $fuzz_seconds seconds for each target" test/fuzz/run.sh --jobs "$(nproc)" "$fuzz_seconds"
	step "$valgrind_title" $make test-valgrind PYTEST_ARGS="$valgrind_tests"
	if test "$(id -u)" = 0 && unshare --net sh -c "$network" sh true 2> /dev/null; then
		side_by_side
	else
		run_lane release
		if test "$(id -u)" = 0; then
			run_lane root
			run_lane nobody
		else
			run_lane desk
		fi
	fi
	test "$(id -u)" = 0 || printf '\n(Run "make test" as root for the tests that need it.)\n'
}

test ! -e "$logs/failed" || cat "$logs/failed"
printf '\n==== summary\n'
cat "$logs/summary"
test ! -e "$logs/failed"
