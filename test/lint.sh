#!/bin/sh
# SPDX-License-Identifier: MIT
# Static checks, each on its own; fails if any finds something.
#
#   test/lint.sh [STEP]...     all, or just those
#   test/lint.sh --prove       shows that each of them still finds what it is for: gives it a file with a defect of its kind
set -u
cd "$(dirname "$0")/.." || exit 1
make="${MAKE:-make} --no-print-directory"
test/install-deps.sh build unit lint && $make deps && $make SANITIZE=1 deps || exit 1

failed=
steps="gcc_analyzer clang_warnings clang_analyze tidy cpp_check shell_check man_pages py_flakes format formats"

sources=$(ls -- *.c)
tests=$(ls -- test/unit/*.c test/fuzz/*.c test/bench/*.c test/hostile/*.c test/dns/*.c test/relay/*.c test/remote/*.c)
ours=$(ls -- *.c *.h test/unit/*.[ch] test/fuzz/*.[ch] test/bench/*.c test/hostile/*.c test/dns/*.c test/relay/*.c test/remote/*.c test/power/*.h)
scripts=$(find . \( -path ./build -o -path ./.git \) -prune -o -type f -exec grep -lE '^#! ?/bin/(ba|da)?sh' {} +)
# Parts of scripts, without a first line that says so.
scripts="$scripts board/lib.sh board/openwrt/files/mailstile.sh"
pages=$(ls -- doc/*.[58])
pythons=$(ls -- test/integration/*.py test/bench/*.py test/power/*.py)

# each COMMAND FILE...: with every file for {}, as many at a time as there are CPUs. The command holds quoted words, hence sh -c.
each() {
	command=$1
	shift
	test -n "$command" || return 1
	test $# = 0 || printf '%s\n' "$@" | xargs -P "$(nproc)" -I '{}' sh -c "$command"
}

# both TARGET COMMAND [COMMAND]: with the program's sources as they are compiled (make TARGET), and with the tests' as they are: glibc,
# sanitizers. In a command @ is the compiler's flags. The second command, when there is one, is for the tests.
both() {
	rc=0
	# shellcheck disable=SC2086 # lists of words
	each "$(with "$($make -s "$1")" "$2")" $sources || rc=1
	# shellcheck disable=SC2086
	each "$(with "$($make -s SANITIZE=1 "$1") -iquote ." "${3:-$2}")" $tests || rc=1
	return $rc
}

# with COMPILER-AND-FLAGS COMMAND: the command with the flags for @
with() {
	test "${1#* -std=c11}" != "$1" || { echo "lint.sh: make shows no flags" >&2; exit 1; }
	printf '%s' "$2" | sed "s|@|$(printf '%s' "${1#* }" | sed 's/[\\&|]/\\&/g')|"
}

# gcc's warnings as errors, with its path-sensitive analysis (leaks, double close, use after free).
gcc_analyzer() {
	both print-compile "gcc @ -O2 -Werror -fanalyzer -c -o /dev/null {}"
}

# The second compiler's warnings.
clang_warnings() {
	both print-compile-clang "clang @ -Werror -fsyntax-only {}"
}

# What scan-build runs, without its HTML: clang's path-sensitive analysis. The checker turned off wants C11's Annex K
# (memcpy_s), which no libc for Linux has. Tests may strcpy() what they have written themselves.
clang_analyze() {
	analyze="clang @ {} --analyze --analyzer-output text -Xclang -analyzer-werror -Xclang -analyzer-checker=security,unix \
		-Xclang -analyzer-disable-checker=security.insecureAPI.DeprecatedOrUnsafeBufferHandling"
	both print-compile-clang "$analyze" "$analyze -Xclang -analyzer-disable-checker=security.insecureAPI.strcpy"
}

# The checks chosen in .clang-tidy. Tests do without those that ask for the result of snprintf(), system() or atoi() to be checked: what they
# read and write is their own, and a wrong value fails the test; a fixed octet string needs no NUL; and some include the source they test.
tidy() {
	here=-cert-err33-c,-cert-err34-c,-cert-env33-c,-bugprone-not-null-terminated-result,-bugprone-suspicious-include
	both print-compile-clang "clang-tidy --quiet {} -- @ 2> /dev/null" "clang-tidy --quiet --checks=$here {} -- @ 2> /dev/null"
}

# An independent parser, all configurations of the #if tree. NULL ends some lists of arguments in tests; it is a pointer in both C libraries.
cpp_check() {
	rc=0
	# shellcheck disable=SC2086
	test -z "$sources" || check_cpp $sources || rc=1
	# shellcheck disable=SC2086
	test -z "$tests" || check_cpp -I . --suppress=varFuncNullUB $tests || rc=1
	return $rc
}

check_cpp() {
	cppcheck --quiet --std=c11 --enable=warning,style,performance,portability --inline-suppr --error-exitcode=1 \
		-j "$(nproc)" -D_GNU_SOURCE -DBUILD_EPOCH=1 '-DVERSION="0"' --suppressions-list=test/cppcheck.txt "$@"
}

shell_check() {
	# shellcheck disable=SC2086
	shellcheck $scripts
}

man_pages() {
	# shellcheck disable=SC2086
	mandoc -T lint -W warning $pages
}

py_flakes() {
	# shellcheck disable=SC2086
	/usr/bin/python3 -m pyflakes $pythons
}

# The layout, as .clang-format says; "clang-format -i FILE..." repairs.
format() {
	rc=0
	for f in $ours; do
		clang-format "$f" | diff -u --label "$f" --label "$f, formatted" "$f" - || rc=1
	done
	return $rc
}

# Our own formatter (str.c) knows fewer conversions than the printf() that compilers check for.
formats() {
	# shellcheck disable=SC2086
	test -z "$sources$tests" || ! grep -nE '"[^"]*%[0-9]*([-+#][0-9a-z]|\*|[hjtXpifge])' $sources $tests /dev/null | grep -v '^test/'
}

# defect STEP SUFFIX TEXT: the step must find fault with this, and with nothing when it is not there
defect() {
	step=$1
	file=$dir/defect.$2
	printf '%b' "$3" > "$file"
	sources='' tests='' ours='' scripts='' pages='' pythons=''
	case $2 in
	c) sources=$file ours=$file ;;
	sh) scripts=$file ;;
	8) pages=$file ;;
	py) pythons=$file ;;
	esac
	for where in program tests; do
		if test $where = tests; then
			test -n "$sources" || continue
			tests=$sources sources=''
		fi
		if $step > "$dir/out" 2>&1 || ! grep -q defect "$dir/out"; then
			failed="$failed $step($where)"
			cat "$dir/out"
		fi
	done
	echo "$step: $(grep -m 1 defect "$dir/out")"
}

prove() {
	dir=$(mktemp -d) || exit 1
	trap 'rm -rf "$dir"' EXIT
	cp .clang-tidy .clang-format "$dir"
	head='#include <stdlib.h>\n#include <string.h>\n'
	defect gcc_analyzer c "${head}int f(int n);\nint\nf(int n)\n{\n\tchar *p = malloc(10);\n\tif (p == NULL || n > 5) {\n\t\treturn -1;\n\t}\n\tfree(p);\n\treturn 0;\n}\n"
	defect clang_warnings c "${head}int f(size_t n);\nint\nf(size_t n)\n{\n\treturn n;\n}\n"
	defect clang_analyze c "${head}int f(int n);\nint\nf(int n)\n{\n\tint *p = NULL;\n\tif (n > 5) {\n\t\tp = &n;\n\t}\n\treturn *p;\n}\n"
	defect tidy c "${head}int f(int n);\nint\nf(int n)\n{\n\tif (n > 5)\n\t\treturn 1;\n\treturn 0;\n}\n"
	defect cpp_check c "${head}int f(void);\nint\nf(void)\n{\n\tint a[4] = { 0 };\n\treturn a[4];\n}\n"
	# shellcheck disable=SC2016 # it is this that must be found
	defect shell_check sh '#!/bin/sh\nrm -rf $1/bin\n'
	defect man_pages 8 '.Dd November 21, 2026\n.Dt DEFECT 8\n.Os\n.Sh NAME\n.Nm defect\n.Nd x\n.Sh DESCRIPTION\n.Xx y\n'
	defect py_flakes py 'import os\nprint(undefined)\n'
	defect formats c 'void print(int fd, const char *fmt, ...);\nvoid f(void);\nvoid\nf(void)\n{\n\tprint(1, "%-12u", 1U);\n}\n'
	defect format c 'int f(void)\n{\n   return 0;\n}\n'
}

case ${1:-} in
--prove) prove ;;
*)
	# shellcheck disable=SC2086
	test $# -gt 0 || set -- $steps
	for s; do
		echo "== $s"
		$s || failed="$failed $s"
	done ;;
esac
test -z "$failed" || { echo "lint: found something, or nothing where it must:$failed"; exit 1; }
