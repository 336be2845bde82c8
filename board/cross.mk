# SPDX-License-Identifier: MIT
# What boards with a compiler of Debian's have in common: musl from its source tarball, no kernel headers (filter.c spells out what it needs).
#   QEMU_USER    runs the board's programs on this machine; without one they run as they are
KERNEL_INC :=
