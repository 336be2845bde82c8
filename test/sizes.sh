#!/bin/sh
# SPDX-License-Identifier: MIT
# Writes doc/SIZE.md: what each board's program and each feature costs. "make sizes" calls it; it builds everything, which takes minutes.
set -eu
cd "$(dirname "$0")/.."
make="${MAKE:-make} --no-print-directory -s"
case ${MAKEFLAGS:-} in *jobserver*) ;; *) make="$make -j$(nproc)" ;; esac
boards=$1
bare=$2

# size BUILD-DIRECTORY MAKE-WORD...
size() {
	dir=$1
	shift
	$make B="$dir" PROG="$dir/mailstile" "$@" all > /dev/null
	stat -c %s "$dir/mailstile"
}

thousands() {
	echo "$1" | sed ':a; s/\([0-9]\)\([0-9]\{3\}\)\($\|,\)/\1,\2\3/; ta'
}

off=
for f in $bare; do off="$off -D$f=0"; done

cat << 'END'
# What it costs

Octets of the stripped, static program. Files end on whole pages, so steps are of 4,096. `make sizes` writes this file, `make size BOARD=x` holds a board
to its budget.

## Boards

| board | all features | serves and delivers only | budget, all |
|---|---:|---:|---:|
END
for b in $boards; do
	all=$(size "build/$b" BOARD="$b")
	least=$(size "build/$b-bare" BOARD="$b" CPPFLAGS="$off")
	budget=$(sed -n 's/^SIZE_BUDGET_TOOLS := //p' "board/$b/board.mk")
	echo "| $b | $(thousands "$all") | $(thousands "$least") | $(thousands "$budget") |"
done

cat << 'END'

"Serves and delivers only" is without all of the features below that are marked with a star.

## Features

Text and data, without the rounding to pages, of the host's program: what it has less without one of them.

| option | octets |
|---|---:|
END
loaded() {
	command size -A "$1/mailstile.elf" | awk '$1 ~ /^\.(text|rodata|data|data.rel.ro|rela.dyn|got|init|fini)$/ { n += $2 } END { print n }'
}
$make all > /dev/null
full=$(loaded build/host)
for f in $bare RELAY SECCOMP MAILDIR_SPOOL REMOTE_CHUNKING; do
	grep -q "^#ifndef $f\$" config.h || continue
	if $make B=build/host-less PROG=build/host-less/mailstile CPPFLAGS="-D$f=0" all > build/less.log 2>&1; then
		star=
		case " $bare " in *" $f "*) star='\*' ;; esac
		echo "| \`$f\`$star | $(thousands $((full - $(loaded build/host-less)))) |"
	fi
done
