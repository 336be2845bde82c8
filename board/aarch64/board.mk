# SPDX-License-Identifier: MIT
# 64-bit ARM: routers of today, small servers; QEMU's `virt'.
CROSS := aarch64-linux-gnu-
PACKAGES := gcc-aarch64-linux-gnu
ARCHFLAGS := 
QEMU_USER := qemu-aarch64-static
SIZE_BUDGET := 372736
SIZE_BUDGET_TOOLS := 524288
include board/cross.mk
