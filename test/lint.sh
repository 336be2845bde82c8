#!/bin/sh
# SPDX-License-Identifier: MIT
# Static checks, each on its own; fails if any finds something. test/lint.sh [STEP]... runs just those.
set -u
cd "$(dirname "$0")/.." || exit 1
make="${MAKE:-make} --no-print-directory"
test/install-deps.sh build lint && $make deps || exit 1

failed=

sources=$(ls -- *.c)
ours=$(ls -- *.c *.h test/unit/*.[ch] test/fuzz/*.[ch] test/hostile/*.c 2> /dev/null)
scripts=$(find . \( -path ./build -o -path ./.git \) -prune -o -type f -exec grep -lE '^#! ?/bin/(ba|da)?sh' {} +)

# gcc's warnings as errors, with its path-sensitive analysis (leaks, double close, use after free).
gcc_analyzer() {
	flags=$($make -s print-compile) && each "$flags -O2 -Werror -fanalyzer -c -o /dev/null"
}

# The second compiler's warnings.
clang_warnings() {
	flags=$($make -s print-compile-clang) && each "$flags -Werror -fsyntax-only"
}

# What scan-build runs, without its HTML: clang's path-sensitive analysis. The checker turned off wants C11's Annex K
# (memcpy_s), which no libc for Linux has.
clang_analyze() {
	flags=$($make -s print-compile-clang) &&
		each "$flags --analyze --analyzer-output text -Xclang -analyzer-werror -Xclang -analyzer-checker=security,unix \
			-Xclang -analyzer-disable-checker=security.insecureAPI.DeprecatedOrUnsafeBufferHandling"
}

# The checks chosen in .clang-tidy.
tidy() {
	$make -s compile_commands.json || return 1
	echo "$sources" | xargs -P "$(nproc)" -n 1 clang-tidy --quiet -p . 2> /dev/null
}

# An independent parser, all configurations of the #if tree.
cpp_check() {
	# shellcheck disable=SC2086
	cppcheck --quiet --std=c11 --enable=warning,style,performance,portability --inline-suppr --error-exitcode=1 \
		-j "$(nproc)" -D_GNU_SOURCE -DBUILD_EPOCH=1 '-DVERSION="0"' --suppressions-list=test/cppcheck.txt $sources
}

shell_check() {
	# shellcheck disable=SC2086
	shellcheck $scripts
}

man_pages() {
	pages=$(ls doc/*.[578] 2> /dev/null) || { echo "no manual pages yet"; return 0; }
	# shellcheck disable=SC2086
	mandoc -T lint -W warning $pages
}

# The layout, as .clang-format says; "clang-format -i FILE..." repairs.
format() {
	rc=0
	for f in $ours; do
		clang-format "$f" | diff -u --label "$f" --label "$f, formatted" "$f" - || rc=1
	done
	return $rc
}

# each COMMAND: with every source file; $flags holds quoted words, hence eval
each() {
	rc=0
	for f in $sources; do
		eval "$1 $f" || rc=1
	done
	return $rc
}

test $# -gt 0 || set -- gcc_analyzer clang_warnings clang_analyze tidy cpp_check shell_check man_pages format
for s; do
	echo "== $s"
	$s || failed="$failed $s"
done
test -z "$failed" || { echo "lint: found something:$failed"; exit 1; }
