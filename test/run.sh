#!/bin/sh
# SPDX-License-Identifier: MIT
# Every test, one after the other, each with its output; fails if any of them does. "make test" installs what it needs and
# calls this; "make test-long" sets MAILSTILE_LONG for the long forms of some. As root each integration run is repeated as nobody, in a copy of the tree that nobody may only read.
set -u
cd "$(dirname "$0")/.." || exit 1

make="${MAKE:-make} --no-print-directory"
case ${MAKEFLAGS:-} in *jobserver*) ;; *) make="$make -j$(nproc)" ;; esac
release=$PWD/mailstile
sanitized=$PWD/build/host-san/mailstile
summary=
failed=
logs=$(mktemp -d "${TMPDIR:-/tmp}/mailstile-log.XXXXXX") || exit 1
trap 'rm -rf "$logs"' EXIT
trap 'exit 1' HUP INT TERM
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

# step TITLE COMMAND...
step() {
	title=$1
	shift
	printf '\n==== %s\n' "$title"
	began=$(date +%s)
	verdict=ok
	# To the screen, and to a file, for the end.
	{ "$@"; echo $? > "$logs/rc"; } 2>&1 | tee "$logs/step"
	if test "$(cat "$logs/rc")" != 0; then
		verdict=FAILED
		failed=yes
		{ printf '\n==== from: %s\n' "$title"; grep -aE "$telling" "$logs/step" | tail -n 40; } >> "$logs/failed"
	fi
	rm -f "$logs/rc"
	summary="$summary$(printf '%-7s %4d s  %s' "$verdict" $(($(date +%s) - began)) "$title")
"
	test "$verdict" = ok
}

# integration MARKER BINARY [WORD...]: the words go before pytest
integration() {
	marker=$1
	MAILSTILE=$2
	export MAILSTILE
	shift 2
	"$@" /usr/bin/python3 -m pytest -q -p no:cacheprovider -m "$marker" test/integration
}

# The same as nobody, who may not be able to enter the directory we are in.
as_nobody() {
	marker=$1
	binary=$2
	shift 2
	copy=$(mktemp -d "${TMPDIR:-/tmp}/mailstile-test.XXXXXX") || return 1
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

# shellcheck disable=SC2086 # $make and $san are lists of words
{
	step "build: release" $make all && step "build: with sanitizers" $make SANITIZE=1 all || exit 1
	step "size" $make size
	step "the release build: hardening, system calls, faults, attacks" integration release "$release"
	step "unit tests, sanitized" $make test-unit
	for board in aarch64 malta; do
		step "board $board: its size, and its unit tests under QEMU" $make BOARD=$board size run-unit
	done
	step "fuzzing: the corpus, then $fuzz_seconds seconds for each target" test/fuzz/run.sh --jobs "$(nproc)" "$fuzz_seconds"
	step "$valgrind_title" $make test-valgrind PYTEST_ARGS="$valgrind_tests"
	if test "$(id -u)" = 0; then
		step "integration, as root" integration "not release" "$release"
		step "integration, as nobody" as_nobody "not release" "$release"
		step "integration, as root, sanitized" integration "not release" "$sanitized" $san
		step "integration, as nobody, sanitized" as_nobody "not release" "$sanitized" $san
	else
		step "integration" integration "not release" "$release"
		step "integration, sanitized" integration "not release" "$sanitized" $san
		printf '\n(Run "make test" as root for the tests that need it.)\n'
	fi
}

test -z "$failed" || cat "$logs/failed"
printf '\n==== summary\n%s' "$summary"
test -z "$failed"
