# SPDX-License-Identifier: MIT
# shellcheck shell=sh
# For kernel.sh and busybox.sh: what takes minutes is made once for each set of inputs, and kept outside of the tree.
#   CROSS            the compiler's prefix, as board.mk has it
#   DEPS_CACHE       where archives are, default ~/.cache/mailstile; made/ in it is for what we have compiled

made() {
	echo "${DEPS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mailstile}/made"
}

# key FILE... -- WORD...: a name for these inputs and the compiler.
key() {
	{
		while test "$1" != --; do
			cat "$1"
			shift
		done
		echo "$*"
		"${CROSS}gcc" --version | head -n 1
	} | sha256sum | cut -c 1-16
}

# keep DIR NAME: moved into the cache whole, or not at all; two who make the same make the same.
keep() {
	mkdir -p "$(made)"
	chmod -R u=rwX,go=rX "$1"
	mv -T "$1" "$(made)/$2" 2> /dev/null || test -d "$(made)/$2"
}
