# SPDX-License-Identifier: MIT
# 32-bit ARM with a floating point unit, Thumb code; QEMU's `virt'.
CROSS := arm-linux-gnueabihf-
PACKAGES := gcc-arm-linux-gnueabihf
ARCHFLAGS := -march=armv7-a+fp -mthumb
QEMU_USER := qemu-arm-static -cpu cortex-a7
TIME64 := 1
SIZE_BUDGET := 262144
SIZE_BUDGET_TOOLS := 368640
include board/cross.mk
