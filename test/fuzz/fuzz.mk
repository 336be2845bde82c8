# SPDX-License-Identifier: MIT
# Builds the fuzz targets. test/fuzz/run.sh calls this in the top directory; all but these few variables is the main Makefile's.
#
#   make -f test/fuzz/fuzz.mk            build/fuzz/fuzz_NAME: libFuzzer, by clang
#   make -f test/fuzz/fuzz.mk MEMORY=1   build/fuzz-memory/fuzz_NAME: the same with MemorySanitizer
#   make -f test/fuzz/fuzz.mk REPLAY=1   build/replay/fuzz_NAME: a plain main that runs the files it is given, by gcc
#   make -f test/fuzz/fuzz.mk COVERAGE=1 build/fuzz-coverage/fuzz_NAME: the same by clang, counting what is reached
#
# Each fuzz_NAME.c is a target. It is linked with the objects as an archive, so one that includes a source file to reach its
# static functions replaces that object. A comment line " * LDFLAGS: -Wl,--wrap=_exit" adds flags.

fuzz-targets:

SANITIZE := 1
COMMA := ,
ifdef REPLAY
override B := build/replay
FUZZ_MAIN := build/replay/replay.o
else ifdef COVERAGE
override B := build/fuzz-coverage
FUZZ_MAIN := $(B)/replay.o
override CC := $(or $(CLANG),clang)
override DEPSAN :=
override SAN := -fprofile-instr-generate -fcoverage-mapping
override WARN_GCC := -Wno-sign-conversion
else
override B := build/fuzz$(if $(MEMORY),-memory)
override CC := $(or $(CLANG),clang)
FUZZ_LIB := -fsanitize=fuzzer
override DEPSAN := -fsanitize=fuzzer-no-link,$(if $(MEMORY),memory -fsanitize-memory-track-origins,address)
override SAN := $(DEPSAN) -fno-sanitize-recover=all $(if $(MEMORY),,-fsanitize=undefined)
override WARN_GCC := -Wno-sign-conversion
endif

# Small limits are reached by small inputs; nobody waits for a refusal here; a plain session must be able to log in.
override CPPFLAGS += -DAUTH_PLAINTEXT_INSIDE=1 -DAUTH_FAIL_DELAY_MS=0 -DSMTP_RCPT_MAX=100 -DSMTP_COMMAND_MAX=1024 \
	-DBODY_BUFFER=4096 -DHOPS_MAX=10 -DREMOTE_BLOCK=16

include Makefile

FUZZ := $(patsubst test/fuzz/%.c,$(B)/%,$(sort $(wildcard test/fuzz/fuzz_*.c)))
fuzz-targets: $(FUZZ)

$(B)/replay.o: test/fuzz/replay.c $(B)/flags test/fuzz/fuzz.h
	$(Q)$(COMPILE) -DBUILD_EPOCH=$(EPOCH) -iquote . -c -o $@ $<

$(B)/fuzz_%: test/fuzz/fuzz_%.c $(FUZZ_MAIN) $(B)/libmailstile.a $(LIBS) $(B)/flags test/fuzz/fuzz.mk
	$(call say,FUZZ,$*)
	$(Q)$(COMPILE) -DBUILD_EPOCH=$(EPOCH) -iquote . -MMD -MP -MT $@ -c -o $@.o $<
	$(Q)$(call LINK,$@.o $(FUZZ_MAIN) -Wl$(COMMA)--start-group $(B)/libmailstile.a) -Wl,--end-group $(FUZZ_LIB) $$(sed -n 's/^ \* LDFLAGS: //p' $<)

-include $(wildcard $(B)/fuzz_*.d)
.PHONY: fuzz-targets
