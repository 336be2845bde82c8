# SPDX-License-Identifier: MIT
# MIPS 24Kc, little-endian, soft float: MT7621, MT76x8; QEMU's `malta'.
CROSS := mipsel-linux-gnu-
PACKAGES := gcc-mipsel-linux-gnu
ARCHFLAGS := -march=24kc -msoft-float
QEMU_USER := qemu-mipsel-static -cpu 24Kc
# cmocka reckons times with floating point, for which there is only Debian's libgcc.
QEMU_UNIT := $(subst 24Kc,24Kf,$(QEMU_USER))
TIME64 := 1
SIZE_BUDGET := 270336
SIZE_BUDGET_TOOLS := 368640
include board/cross.mk

# MIPS16 instructions for everything but the C library: a quarter less. Not position independent: another fifth (PIE=1 makes it so again).
PIE := 0
NOPIE := -fno-pic -mno-abicalls
CODEFLAGS := -mips16 -minterlink-mips16
CURVE_FLAGS := -O2 -mno-mips16 -fno-lto
# Debian's libgcc is for CPUs with a floating point unit.
LIBGCC_SRC := board/mips.c
