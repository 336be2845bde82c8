# SPDX-License-Identifier: MIT
# The machine we build on: Debian's own gcc and musl. A board sets, and may leave empty what it does not need:
#   CROSS        prefix of the compiler's name        ARCHFLAGS   compiler flags that choose the CPU and its ABI
#   PACKAGES     Debian packages of the compiler      LIBGCC      libgcc.a, where the compiler's own does not fit
#   MUSL_INC, MUSL_LIB   where musl is; without them it is built from source into build/BOARD/musl
#   KERNEL_INC   directories of kernel headers (for seccomp); only these are visible beside musl's
#   SIZE_BUDGET  largest stripped binary, in octets, of what serves and delivers (BARE in test/test.mk at 0); SIZE_BUDGET_TOOLS: with all of it
CROSS :=
ARCHFLAGS :=
PACKAGES :=

# x86_64-linux-gnu -> x86_64-linux-musl; Debian's i386 compiler calls itself i686.
HOST_TRIPLET := $(patsubst i686%,i386%,$(shell gcc -dumpmachine 2>/dev/null))
MUSL_INC := /usr/include/$(subst -gnu,-musl,$(HOST_TRIPLET))
MUSL_LIB := /usr/lib/$(subst -gnu,-musl,$(HOST_TRIPLET))
KERNEL_INC := /usr/include/linux /usr/include/asm-generic /usr/include/$(HOST_TRIPLET)/asm
SIZE_BUDGET := 327680
SIZE_BUDGET_TOOLS := 458752
