# SPDX-License-Identifier: MIT
# mailstile: one static binary for one board.
#
#   make                    ./mailstile for this machine (Debian 12: apt-get install gcc make musl-dev linux-libc-dev xz-utils)
#   make BOARD=name         build/name/mailstile, as board/name/board.mk says
#   make SANITIZE=1         build/host-san/mailstile: glibc, AddressSanitizer, UBSan
#   make help               the other targets; V=1 shows the commands, WERROR=1 makes warnings errors
#
# CPPFLAGS, CFLAGS and LDFLAGS are yours: they are added after ours. Changed flags rebuild what they touch.

VERSION = 0.1.0
BOARD ?= host
PREFIX ?= /usr/local
SHELL := /bin/sh
MAKEFLAGS += --no-builtin-rules
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' '$(1)' '$(2)')

SRC := $(sort $(wildcard *.c))
B := build/$(BOARD)$(if $(SANITIZE),-san)
PROG := $(if $(filter build/host,$(B)),mailstile,$(B)/mailstile)
OBJ := $(SRC:%.c=$(B)/%.o)
LIBS := $(B)/libradcli.a $(B)/libbearssl.a
SRCDIR := build/src

# ---- Toolchain: see board/host/board.mk; a board that names no MUSL_INC and MUSL_LIB gets a musl of its own --------
include board/$(BOARD)/board.mk
ifeq ($(origin CC),default)
CC := $(CROSS)gcc
endif
AR := $(CROSS)ar
STRIP := $(CROSS)strip
MUSL_INC ?= $(B)/musl/include
MUSL_LIB ?= $(B)/musl/lib
ifdef LIBGCC_SRC
LIBGCC := $(B)/libgcc.o
endif
LIBGCC ?= $(shell $(CC) $(ARCHFLAGS) -print-libgcc-file-name 2>/dev/null)

# 0: not position independent, for CPUs where that costs too much. The stack, the heap and what is mapped move all the same.
PIE ?= 1
NOPIE ?= -fno-pie

# ---- Flags -----------------------------------------------------------------------------------------------------------
WARN := -Wall -Wextra -Wshadow -Wundef -Wvla -Walloca -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
	-Wcast-qual -Wwrite-strings -Wformat=2 -Wconversion -Wimplicit-fallthrough -Wframe-larger-than=8192
WARN_GCC := -Wlogical-op -Wduplicated-cond

LTO ?= -flto=auto
# BearSSL computes wrong digests, silently, when strict aliasing meets link-time optimisation: the flag is not optional.
CODE := -std=c11 $(ARCHFLAGS) $(if $(filter 0,$(PIE)),$(NOPIE),-fPIE) -fno-strict-aliasing
ifdef SANITIZE
CODE += -O1 -g -fno-omit-frame-pointer
SAN := -fsanitize=address,undefined -fno-sanitize-recover=all
DEPSAN := -fsanitize=address
DEFS := -DSANITIZE=1
else
# Cryptography stays at -Os; a compiler older than gcc 12 wants SMALL=-Os.
SMALL ?= -Oz
CODE += -Os -fstack-protector-strong -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables
# The program is optimised as a whole, 16 KiB smaller for it; programs for tests, which replace functions of it, are linked as usual.
CODE += $(LTO) $(if $(LTO),-ffat-lto-objects)
# No musl-gcc: that wrapper turns -static-pie into a dynamically linked file without a word.
GCC_INC := $(shell $(CC) -print-file-name=include 2>/dev/null)
LIBC_INC := -nostdinc -isystem $(MUSL_INC) -isystem $(GCC_INC)
endif

# The stand-in for linux/in6.h goes before the kernel's own, which does not mix with a libc's netinet/in.h.
INC := $(LIBC_INC) -isystem deps/radcli $(if $(SANITIZE),,-isystem $(B)/kernel) -isystem $(SRCDIR)/bearssl/inc \
	-isystem $(SRCDIR)/radcli/include -isystem $(SRCDIR)/radcli/lib
DEFS += -D_GNU_SOURCE -DVERSION=\"$(VERSION)\"
COMPILE = $(CC) $(CODE) $(CODEFLAGS) $(SMALL) $(SAN) $(DEFS) -include board/$(BOARD)/config.h $(INC) $(WARN) $(WARN_GCC) \
	$(if $(WERROR),-Werror) $(CPPFLAGS) $(CFLAGS)
DEPCC = $(CC) $(CODE) $(CODEFLAGS) $(DEPSAN) -D_GNU_SOURCE $(INC) $(CFLAGS) -w
ifdef SANITIZE
LINK = $(CC) $(SAN) -pie -o $@ $(1) $(LIBS) $(CFLAGS) $(LDFLAGS)
else
LINK = $(CC) $(CODE) $(CODEFLAGS) $(or $(2),-fno-lto) $(if $(filter 0,$(PIE)),-static -no-pie,-static-pie) -nostdlib -nostartfiles -o $@ -Wl,--no-dynamic-linker,--gc-sections,--build-id=none \
	-Wl,-z,relro,-z,now,-z,noexecstack,-z,max-page-size=4096 $(CFLAGS) $(LDFLAGS) $(MUSL_LIB)/$(if $(filter 0,$(PIE)),crt1,rcrt1).o $(MUSL_LIB)/crti.o \
	$(1) $(LIBS) -Wl,--start-group $(MUSL_LIB)/libc.a $(LIBGCC) -Wl,--end-group $(MUSL_LIB)/crtn.o
endif

# A clock before BUILD_EPOCH counts as unset: a release's own time, else the commit's, else the first build's.
EPOCH := $(or $(SOURCE_DATE_EPOCH),$(shell test -e .git && git log -1 --format=%ct 2>/dev/null || \
	cat $(B)/epoch 2>/dev/null || date +%s))

# ---- Build -----------------------------------------------------------------------------------------------------------
.PHONY: all help test test-long test-valgrind test-unit run-unit test-integration soak demo demo-sql bench power power-control size lint fuzz install clean distclean deps \
	print-compile print-compile-clang FORCE
.DELETE_ON_ERROR:
all: $(PROG)

$(PROG): $(B)/mailstile.elf
	$(call say,$(if $(SANITIZE),COPY,STRIP),$@)
	$(Q)$(if $(SANITIZE),cp,$(STRIP) -s -R .comment -o) $(if $(SANITIZE),$< $@,$@ $<)

$(B)/mailstile.elf: $(OBJ) $(LIBS)
	$(call say,LINK,$@)
	$(Q)$(call LINK,$(OBJ),$(LTO))

$(B)/%.o: %.c $(B)/flags $(B)/ready
	$(call say,CC,$<)
	$(Q)$(COMPILE) -DBUILD_EPOCH=$(EPOCH) -MMD -MP -c -o $@ $<

$(addprefix $(B)/,$(patsubst %.c,%.o,$(shell grep -l BUILD_EPOCH $(SRC) /dev/null))): $(B)/epoch
-include $(OBJ:.o=.d) $(wildcard $(B)/unit/*.d)

# Stamps: rewritten, and so newer than what they govern, only when their text changes.
$(B)/flags $(B)/depflags $(B)/epoch: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' '$(subst ','\'',$(STAMP))' | cmp -s - $@ || printf '%s\n' '$(subst ','\'',$(STAMP))' > $@
$(B)/flags: STAMP = $(COMPILE) $(LINK)
$(B)/depflags: STAMP = $(DEPCC)
$(B)/epoch: STAMP = $(EPOCH)

# Third-party code: fetched, checked, unpacked and compiled once; see deps/Makefile.
$(B)/ready $(LIBS) &: $(B)/depflags deps/Makefile deps/SHA256SUMS deps/unpack.sh $(LIBGCC_SRC) $(wildcard deps/radcli/*.h deps/radcli/*/*.h)
	@test/install-deps.sh --check build $(PACKAGES:%=pkg:%)
	@test -e $(MUSL_LIB)/libc.a || test '$(MUSL_LIB)' = $(B)/musl/lib -o -n '$(SANITIZE)' || \
		{ echo 'No musl in $(MUSL_LIB). Name its place: make MUSL_INC=... MUSL_LIB=...' >&2; exit 1; }
	+$(Q)$(MAKE) --no-print-directory -f deps/Makefile B='$(B)' V='$(V)' SRCDIR='$(SRCDIR)' DEPCC='$(DEPCC)' AR='$(AR)' \
		KERNEL_INC='$(KERNEL_INC)' MUSL_CC='$(if $(filter $(B)/%,$(MUSL_LIB)),$(CC) $(ARCHFLAGS) $(if $(filter 0,$(PIE)),$(NOPIE),-fPIE))' PIE='$(PIE)' CROSS='$(CROSS)' \
		$(if $(CURVE_FLAGS),CURVE_FLAGS='$(CURVE_FLAGS)')
	$(if $(LIBGCC_SRC),$(Q)$(CC) $(ARCHFLAGS) $(if $(filter 0,$(PIE)),$(NOPIE),-fPIE) -O2 -ffreestanding -c -o $(LIBGCC) $(LIBGCC_SRC))
	@touch $(B)/ready $(LIBS)
deps: $(LIBS)

# ---- Tests and reports -----------------------------------------------------------------------------------------------
include test/test.mk
include board/image.mk

install: all
	install -D -m 755 $(PROG) $(DESTDIR)$(PREFIX)/sbin/mailstile
	$(Q)for f in $(wildcard doc/*.5 doc/*.8); do install -D -m 644 "$$f" \
		"$(DESTDIR)$(PREFIX)/share/man/man$${f##*.}/$${f##*/}" || exit 1; done
clean:
	rm -rf $(filter-out $(SRCDIR),$(wildcard build/*)) mailstile compile_commands.json
distclean:
	rm -rf build mailstile compile_commands.json
