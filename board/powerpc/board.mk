# SPDX-License-Identifier: MIT
# 32-bit PowerPC, big-endian: MPC8xxx access points.
CROSS := powerpc-linux-gnu-
PACKAGES := gcc-powerpc-linux-gnu
ARCHFLAGS := -mlong-double-64
QEMU_USER := qemu-ppc-static
TIME64 := 1
SIZE_BUDGET := 380928
SIZE_BUDGET_TOOLS := 532480
include board/cross.mk
