# SPDX-License-Identifier: MIT
# 64-bit RISC-V.
CROSS := riscv64-linux-gnu-
PACKAGES := gcc-riscv64-linux-gnu
ARCHFLAGS := 
QEMU_USER := qemu-riscv64-static
SIZE_BUDGET := 290816
SIZE_BUDGET_TOOLS := 409600
include board/cross.mk
