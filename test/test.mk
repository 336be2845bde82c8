# SPDX-License-Identifier: MIT
# Targets that test, measure or check; included by the Makefile.

help:
	@echo 'all               ./mailstile (BOARD=host) or build/BOARD/mailstile'
	@echo 'test              install what is missing, build, then every test, then again under sanitizers (test/run.sh)'
	@echo 'test-long         the same, with the campaigns in full length: hours'
	@echo 'test-unit         cmocka programs of test/unit, under ASan and UBSan'
	@echo 'test-integration  pytest, test/integration, on ./mailstile'
	@echo 'test-valgrind     the same under valgrind: half an hour; a part of it belongs to test'
	@echo 'soak              many clients for MINUTES (10) while RADIUS, certificates and configuration change (test/integration/test_soak.py)'
	@echo 'demo bench fuzz   test/demo.sh, test/bench/bench.sh, test/fuzz/run.sh'
	@echo 'demo-sql          two boxes that share what a customer may send in a day: PostgreSQL, FreeRADIUS (test/demo-sql.sh)'
	@echo 'power             cuts the power of a guest under load, on several file systems (test/power/machine.py): most of an hour'
	@echo 'size              section and file sizes against the budget of the board'
	@echo 'all-boards        build/BOARD/mailstile of every board; test-boards: their tests under QEMU; sizes: writes doc/SIZE.md'
	@echo 'lint              compilers'"'"' analysers, clang-tidy, cppcheck, shellcheck, mandoc, format (test/lint.sh)'
	@echo 'install           DESTDIR, PREFIX (/usr/local): the binary and its manual pages'
	@echo 'deps              only fetch and compile BearSSL and radcli'
	@echo 'compile_commands.json  for clangd and clang-tidy'
	@echo 'image boot        BOARD=malta, malta-be, aarch64, x86_64: a kernel and an initramfs with mailstile; and boots them in QEMU (board/README.md)'
	@echo 'kernel            BOARD=malta, malta-be: the small kernel for image KERNEL=own, once; minutes'
	@echo 'clean distclean   distclean also drops the unpacked sources of the libraries'

test:
	$(Q)test/install-deps.sh build test
	+$(Q)test/run.sh

test-long:
	$(Q)test/install-deps.sh build test
	+$(Q)MAILSTILE_LONG=1 test/run.sh

# glibc, nothing of sanitizers, and what valgrind cannot bear left out. A subset: make test-valgrind PYTEST_ARGS='-k clients'
VALGRIND := SANITIZE=1 SAN= DEPSAN= B=build/host-valgrind CPPFLAGS=-DVALGRIND
test-valgrind:
	$(Q)test/install-deps.sh build test
	+$(Q)$(MAKE) --no-print-directory $(VALGRIND) all
	$(Q)MAILSTILE='$(abspath build/host-valgrind/mailstile)' MAILSTILE_VALGRIND=1 MAILSTILE_LONG= PYTHONDONTWRITEBYTECODE=1 \
		/usr/bin/python3 -m pytest -q -p no:cacheprovider -m 'not release' $(PYTEST_ARGS) test/integration

test-unit:
	$(Q)test/install-deps.sh --check build unit
	+$(Q)$(MAKE) --no-print-directory SANITIZE=1 run-unit

test-integration: all
	$(Q)MAILSTILE='$(abspath $(PROG))' PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 -m pytest -q -p no:cacheprovider \
		$(if $(SANITIZE),-m 'not release') $(PYTEST_ARGS) test/integration

soak: all
	$(Q)MAILSTILE='$(abspath $(PROG))' MAILSTILE_SOAK='$(or $(MINUTES),10)' PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 -m pytest -q -s \
		-p no:cacheprovider test/integration/test_soak.py

# Each test/unit/NAME.c is a program of its own. It is linked with the objects as an archive, so a test that includes a
# source file to reach its static functions replaces that object. The archive comes twice, since radcli calls back into
# radglue.c. A comment line " * LDFLAGS: -Wl,--wrap=fsync" adds flags.
UNIT := $(patsubst %.c,$(B)/unit/%,$(notdir $(sort $(wildcard test/unit/*.c))))

run-unit: $(UNIT)
	@failed=; run='$(if $(QEMU_USER),env EMULATED=1 $(or $(QEMU_UNIT),$(QEMU_USER)))'; test -n "$$run" || run=$$(setarch -R true 2> /dev/null && echo setarch -R); \
	for t in $(UNIT); do echo "== $${t##*/}"; timeout 300 $$run $$t || failed="$$failed $${t##*/}"; done; \
		test -z "$$failed" || { echo "unit tests failed:$$failed"; exit 1; }

$(B)/libmailstile.a: $(filter-out $(B)/main.o,$(OBJ))
	$(Q)rm -f $@ && $(AR) rcs $@ $^

# Debian's cmocka is for its own C library; without sanitizers it is compiled from source, for the board. What a board leaves out of libgcc, printf() needs.
ifdef SANITIZE
CMOCKA := -lcmocka
else
CMOCKA := $(B)/libcmocka.a
UNIT_INC := -D_UINTPTR_T -D_UINTPTR_T_DEFINED -isystem $(SRCDIR)/cmocka/include
# Where time_t was once 32 bits wide, musl's functions of today have other names.
ifdef TIME64
TIME64_NAMES := $(foreach f,nanosleep:__nanosleep_time64 time:__time64 fstat:__fstat_time64,s/--wrap=$(word 1,$(subst :, ,$f))\>/--wrap=$(word \
	2,$(subst :, ,$f)),--defsym=__wrap_$(word 2,$(subst :, ,$f))=__wrap_$(word 1,$(subst :, ,$f))/;)
endif
ifdef LIBGCC_SRC
UNIT_LIBS := -Wl,--no-warn-mismatch $(shell $(CC) $(ARCHFLAGS) -print-libgcc-file-name)
endif
$(SRCDIR)/cmocka.unpacked: deps/unpack.sh deps/SHA256SUMS
	$(Q)deps/unpack.sh cmocka $(SRCDIR)
	@touch $@
$(CMOCKA): $(SRCDIR)/cmocka.unpacked $(B)/ready
	$(call say,CC,cmocka)
	$(Q)$(DEPCC) -DHAVE_SIGNAL_H -DHAVE_STDLIB_H -DHAVE_MALLOC_H -DHAVE_TIME_H -DHAVE_STRUCT_TIMESPEC -DHAVE_CLOCK_GETTIME_REALTIME \
		$(UNIT_INC) -c -o $(B)/cmocka.o $(SRCDIR)/cmocka/src/cmocka.c
	$(Q)rm -f $@ && $(AR) rcs $@ $(B)/cmocka.o
$(UNIT): $(CMOCKA)
endif

$(B)/unit/%: test/unit/%.c $(B)/libmailstile.a $(LIBS) $(B)/flags
	$(call say,UNIT,$*)
	@mkdir -p $(@D)
	$(Q)$(COMPILE) -DBUILD_EPOCH=$(EPOCH) -iquote . $(UNIT_INC) -MMD -MP -MT $@ -c -o $@.o $<
	$(Q)$(call LINK,$@.o $(B)/libmailstile.a $(CMOCKA)) $(B)/libmailstile.a $$(sed -n 's/^ \* LDFLAGS: //p' $< | sed '$(TIME64_NAMES)') $(UNIT_LIBS)

# The power-cut machine; `make test` runs a short form of it. The build beside it flushes nothing: it must be caught.
power:
	$(Q)test/install-deps.sh build power
	+$(Q)$(MAKE) --no-print-directory all power-control
	$(Q)PYTHONDONTWRITEBYTECODE=1 MAILSTILE='$(abspath $(PROG))' /usr/bin/python3 test/power/machine.py \
		--control '$(abspath $(B)/power/mailstile)' $(POWER_ARGS)
power-control: $(B)/power/mailstile

$(B)/power/queue.o: queue.c $(wildcard *.h) test/power/nosync.h $(B)/flags $(B)/ready
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(COMPILE) -DBUILD_EPOCH=$(EPOCH) -include test/power/nosync.h -c -o $@ $<

$(B)/power/mailstile: $(B)/power/queue.o $(OBJ) $(LIBS)
	$(call say,LINK,$@)
	$(Q)$(call LINK,$(B)/power/queue.o $(filter-out $(B)/queue.o,$(OBJ)))

# The same program with an smtp process that does what its client says.
HOSTILE := $(B)/mailstile-hostile
.PHONY: hostile
hostile: $(HOSTILE)
$(HOSTILE): test/hostile/hostile.c $(OBJ) $(LIBS) $(B)/flags
	$(call say,LINK,$@)
	$(Q)$(COMPILE) -DBUILD_EPOCH=$(EPOCH) -iquote . -c -o $@.o $<
	$(Q)$(call LINK,$(OBJ) $@.o) -Wl,--wrap=session_smtp,--wrap=smtp_prepare,--wrap=smtp_run,--wrap=priv_filter,--wrap=warden_dispatch,--wrap=malloc,--wrap=calloc

# The scheduler and the cleaner by themselves; tests play the rest, and set the clock.
SCHEDULER := $(B)/scheduler
.PHONY: scheduler
scheduler: $(SCHEDULER)
$(SCHEDULER): test/relay/scheduler.c $(B)/libmailstile.a $(LIBS) $(B)/flags
	$(call say,LINK,$@)
	$(Q)$(COMPILE) -DBUILD_EPOCH=$(EPOCH) -iquote . -c -o $@.o $<
	$(Q)$(call LINK,$@.o $(B)/libmailstile.a) -Wl,--wrap=clock_gettime,--wrap=ppoll

# The same with RELAY_QMAIL_LOG.
QLOG := $(B)/qlog
.PHONY: scheduler-qlog
scheduler-qlog: $(QLOG)/scheduler
$(QLOG)/%.o: %.c $(B)/flags $(B)/ready $(wildcard *.h)
	$(call say,CC,$< (RELAY_QMAIL_LOG))
	@mkdir -p $(@D)
	$(Q)$(COMPILE) -DBUILD_EPOCH=$(EPOCH) -DRELAY_QMAIL_LOG=1 -c -o $@ $<
$(QLOG)/scheduler: $(SCHEDULER) $(patsubst %,$(QLOG)/%.o,qlog relay todo pass outcome localpass rcpt ended relayctl)
	$(call say,LINK,$@)
	$(Q)$(call LINK,$(SCHEDULER).o $(filter %.o,$^) $(B)/libmailstile.a) -Wl,--wrap=clock_gettime,--wrap=ppoll

# A delivery process by itself, for test/integration/remote.py.
REMOTE := $(B)/mailstile-remote
.PHONY: remote
remote: $(REMOTE)
$(REMOTE): test/remote/remote.c $(B)/libmailstile.a $(LIBS) $(B)/flags
	$(call say,LINK,$@)
	$(Q)$(COMPILE) -DBUILD_EPOCH=$(EPOCH) -iquote . -c -o $@.o $<
	$(Q)$(call LINK,$@.o $(B)/libmailstile.a) $(B)/libmailstile.a -Wl,--wrap=remote_open,--wrap=remote_is_us,--wrap=time

# dns.c on the command line.
DNS_ASK := $(B)/dns-ask
.PHONY: dns-ask
dns-ask: $(DNS_ASK)
$(DNS_ASK): test/dns/ask.c $(B)/libmailstile.a $(LIBS) $(B)/flags
	$(call say,LINK,$@)
	$(Q)$(COMPILE) -iquote . -c -o $@.o $<
	$(Q)$(call LINK,$@.o $(B)/libmailstile.a)

demo:
	$(Q)test/install-deps.sh build demo
	+$(Q)$(MAKE) --no-print-directory all
	$(Q)MAILSTILE='$(abspath $(PROG))' test/demo.sh
demo-sql:
	$(Q)test/install-deps.sh build demo demo-sql
	+$(Q)$(MAKE) --no-print-directory all
	$(Q)MAILSTILE='$(abspath $(PROG))' test/demo-sql.sh
bench:
	+$(Q)test/bench/bench.sh
fuzz:
	+$(Q)test/fuzz/run.sh --jobs $$(nproc) $(FUZZ_SECONDS)
lint:
	+$(Q)test/lint.sh

# What the smaller budget goes without, a line each.
BARE := TOOLS \
	ACCOUNTS \
	ACCOUNTING \
	RADSEC \
	STATUS_SERVER \
	SETTINGS \
	CONSOLE \
	SELFTEST \
	BOUNCE_DSN \
	RADCHECKPASSWORD \
	DELAY_NOTICE \
	LOCAL_MAILDIRS_MAX \
	GUESSING

# All boards but the host's.
BOARDS := $(filter-out host,$(patsubst board/%/board.mk,%,$(sort $(wildcard board/*/board.mk))))
.PHONY: all-boards test-boards sizes
all-boards:
	$(Q)test/install-deps.sh build boards
	+$(Q)for b in $(BOARDS); do $(MAKE) --no-print-directory BOARD=$$b all || exit 1; done
test-boards: all
	$(Q)test/install-deps.sh build test boards kernel
	+$(Q)for b in $(BOARDS); do $(MAKE) --no-print-directory BOARD=$$b size run-unit || exit 1; done
	$(Q)BOARDS='$(BOARDS)' MAILSTILE='$(abspath $(PROG))' PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 -m pytest -q -p no:cacheprovider test/integration/test_boards.py
	$(Q)MAILSTILE_KERNELS=1 MAILSTILE='$(abspath $(PROG))' PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 -m pytest -q -s -p no:cacheprovider test/integration/test_kernel.py
sizes:
	$(Q)test/install-deps.sh build boards
	+$(Q)test/sizes.sh '$(BOARDS)' '$(BARE)' > build/SIZE.md && mv build/SIZE.md doc/SIZE.md

size: all
	@test -n "$(SIZE_BUDGET)" -a -n "$(SIZE_BUDGET_TOOLS)" || { echo "board/$(BOARD)/board.mk: expected SIZE_BUDGET and SIZE_BUDGET_TOOLS, in octets"; exit 1; }
	@$(CROSS)size $(B)/mailstile.elf
	@n=$$(stat -c %s $(PROG)); echo "$(PROG): $$n octets stripped, budget $(SIZE_BUDGET_TOOLS)"; test "$$n" -le "$(SIZE_BUDGET_TOOLS)"
	+$(Q)$(MAKE) --no-print-directory -s B=$(B)-bare PROG=$(B)-bare/mailstile CPPFLAGS='$(CPPFLAGS) $(BARE:%=-D%=0)' all
	@n=$$(stat -c %s $(B)-bare/mailstile); echo "what serves and delivers, without the rest ($(BARE)): $$n octets stripped, budget $(SIZE_BUDGET)"; test "$$n" -le "$(SIZE_BUDGET)"

# For clang: without the warnings and the header directory that are gcc's own.
CLANG_COMPILE = $(patsubst $(CC),clang,$(filter-out $(WARN_GCC),$(subst -nostdinc,-nostdlibinc,$(subst \
	-isystem $(GCC_INC) ,,$(COMPILE))))) -DBUILD_EPOCH=$(EPOCH)
print-compile: $(B)/ready
	@printf '%s\n' '$(filter-out $(LTO) -ffat-lto-objects,$(COMPILE)) -DBUILD_EPOCH=$(EPOCH)'
print-compile-clang: $(B)/ready
	@printf '%s\n' '$(filter-out $(LTO) -ffat-lto-objects,$(CLANG_COMPILE))'

compile_commands.json: $(SRC) $(B)/flags $(B)/ready
	@sep='['; for f in $(SRC); do \
		command=$$(printf '%s' '$(filter-out $(LTO) -ffat-lto-objects,$(CLANG_COMPILE)) -c '"$$f" | sed 's/[\\"]/\\&/g'); \
		printf '%s\n{ "directory": "%s", "file": "%s", "command": "%s" }' "$$sep" '$(CURDIR)' "$$f" "$$command"; \
		sep=','; done > $@; echo ']' >> $@
