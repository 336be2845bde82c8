# SPDX-License-Identifier: MIT
# A generic PC or virtual machine: host's compiler, and a musl of its own.
CROSS := x86_64-linux-gnu-
PACKAGES := gcc
ARCHFLAGS := 
QEMU_USER := 
SIZE_BUDGET := 327680
SIZE_BUDGET_TOOLS := 458752
include board/cross.mk
