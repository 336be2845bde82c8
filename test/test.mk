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
	@echo 'lint              compilers'"'"' analysers, clang-tidy, cppcheck, shellcheck, mandoc, format (test/lint.sh)'
	@echo 'install           DESTDIR, PREFIX (/usr/local): the binary and its manual pages'
	@echo 'deps              only fetch and compile BearSSL and radcli'
	@echo 'compile_commands.json  for clangd and clang-tidy'
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
	@failed=; fixed=$$(setarch -R true 2> /dev/null && echo setarch -R); \
	for t in $(UNIT); do echo "== $${t##*/}"; $$fixed $$t || failed="$$failed $${t##*/}"; done; \
		test -z "$$failed" || { echo "unit tests failed:$$failed"; exit 1; }

$(B)/libmailstile.a: $(filter-out $(B)/main.o,$(OBJ))
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(B)/unit/%: test/unit/%.c $(B)/libmailstile.a $(LIBS) $(B)/flags
	$(call say,UNIT,$*)
	@mkdir -p $(@D)
	$(Q)$(COMPILE) -DBUILD_EPOCH=$(EPOCH) -iquote . -MMD -MP -MT $@ -c -o $@.o $<
	$(Q)$(call LINK,$@.o $(B)/libmailstile.a) $(B)/libmailstile.a $$(sed -n 's/^ \* LDFLAGS: //p' $<) -lcmocka

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
$(QLOG)/scheduler: $(SCHEDULER) $(patsubst %,$(QLOG)/%.o,qlog relay todo pass localpass rcpt ended relayctl)
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
	SETTINGS \
	CONSOLE \
	BOUNCE_DSN \
	RADCHECKPASSWORD \
	DELAY_NOTICE \
	LOCAL_MAILDIRS_MAX \
	GUESSING

size: all
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
