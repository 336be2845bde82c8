# SPDX-License-Identifier: MIT
# Old ARM without a floating point unit: the NAS boxes of 2008.
CROSS := arm-linux-gnueabi-
PACKAGES := gcc-arm-linux-gnueabi
ARCHFLAGS := -march=armv5te -mfloat-abi=soft
QEMU_USER := qemu-arm-static -cpu arm926
TIME64 := 1
SIZE_BUDGET := 364544
SIZE_BUDGET_TOOLS := 507904
include board/cross.mk
