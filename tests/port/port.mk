# The other platforms: `make test-firmware`, `test-wasm`, `test-windows`, `test-bigendian`, `test-32bit`,
# `test-musl`, `test-cxx`, all of them by `test-ports`; and `sizes`.
# tests/port/deps.sh installs the tools; a target whose tools are missing is skipped and says so.

PORT          := tests/port
PORT_BUILD    := $(BUILD)/port
# the short ways of -Os are what the firmware programs run
PORT_SOURCES  := $(filter-out tests/unit/unit_fst_small.c,$(call pick,$(sort $(wildcard tests/unit/*.c))))
PORT_SCRIPTS  := $(wildcard $(PORT)/*.sh $(PORT)/*.h $(PORT)/firmware.c $(PORT)/wasi.mjs)
PORT_FIRMWARE := m0 m3 rv32
# not run there: on firmware the tests of the kit itself, of zstd and of large inputs (its own programs
# fw_*.c are there instead); tests of POSIX where it is another system
PORT_NOT_ON_BARE  := tests/unit/unit_disk.c tests/unit/unit_posix.c tests/unit/unit_compress.c tests/unit/unit_fst.c tests/unit/unit_lsm.c
# crash tests on Windows: those of power cuts, faults, damage and memory (the others kill processes)
PORT_CRASH        := $(wildcard $(addprefix tests/crash/crash_,$(addsuffix .c,lsm_power lsm_io lsm_flip lsm_oom mem_save fst_build)))
PORT_NOT_ON_OTHER := tests/unit/unit_posix.c
PORT_MODULES  := $(foreach m,mem art fst compress lsm,$(if $(wildcard kv_$(m).h),$(m))) $(if $(wildcard kv_lsm.h),littlefs)
PORT_ALL      := $(PORT_FIRMWARE) wasm wasm-simd windows s390x mips armhf i386 musl cxx11 cxx20

.PHONY: test-cxx test-32bit test-musl test-firmware test-wasm test-windows test-bigendian test-ports sizes sizes-update port-sources
.SECONDARY:

port-sources:
	@BUILD="$(BUILD)" CC="$(CC)" sh $(PORT)/sources.sh

# the scripts that run the unit tests on a target
port_programs = $(patsubst tests/unit/%.c,$(PORT_BUILD)/$(1)/$(1).%.sh,$(filter-out $(if $(filter $(PORT_FIRMWARE),$(1)),$(PORT_NOT_ON_BARE)) $(if $(filter wasm% windows,$(1)),$(PORT_NOT_ON_OTHER)),$(PORT_SOURCES))) \
                $(if $(filter $(PORT_FIRMWARE),$(1)),$(patsubst %,$(PORT_BUILD)/$(1)/$(1).fw_%.sh,$(call pick,$(PORT_MODULES)))) \
                $(if $(filter windows,$(1)),$(addprefix $(PORT_BUILD)/$(1)/$(1).,$(addsuffix .sh,$(basename $(notdir $(call pick,$(wildcard $(PORT)/win_*.c) $(PORT_CRASH)))))))

define port_rules
$(PORT_BUILD)/$(1)/codecs.a: $(PORT)/build.sh | port-sources; @BUILD="$(BUILD)" sh $(PORT)/build.sh $(1) codecs $$@
$(PORT_BUILD)/$(1)/$(1).%.sh: tests/unit/%.c  $(KIT) $(PORT_SCRIPTS) $(PORT_BUILD)/$(1)/codecs.a; @BUILD="$(BUILD)" sh $(PORT)/build.sh $(1) $$< $$@
$(PORT_BUILD)/$(1)/$(1).%.sh: tests/model/%.c $(KIT) $(PORT_SCRIPTS) $(PORT_BUILD)/$(1)/codecs.a; @BUILD="$(BUILD)" sh $(PORT)/build.sh $(1) $$< $$@
$(PORT_BUILD)/$(1)/$(1).%.sh: tests/crash/%.c $(KIT) $(PORT_SCRIPTS) $(PORT_BUILD)/$(1)/codecs.a; @BUILD="$(BUILD)" sh $(PORT)/build.sh $(1) $$< $$@
$(PORT_BUILD)/$(1)/$(1).%.sh: $(PORT)/%.c     $(KIT) $(PORT_SCRIPTS) $(PORT_BUILD)/$(1)/codecs.a; @BUILD="$(BUILD)" sh $(PORT)/build.sh $(1) $$< $$@
.PHONY: port-$(1)
port-$(1): $(call port_programs,$(1))
endef
$(foreach t,$(PORT_ALL),$(eval $(call port_rules,$(t))))

# $(call port_test,targets,more programs): build and run every unit test on each target that is there;
# one that is missing counts as skipped
port_there = $(shell for t in $(1); do BUILD="$(BUILD)" sh $(PORT)/build.sh $$t there >/dev/null && echo $$t; done)
define port_test
-@there='$(call port_there,$(1))'; [ -z "$$there" ] || $(MAKE) --no-print-directory -k -j$(JOBS) $(addprefix port-,$(call port_there,$(1)))
@list='$(foreach t,$(call port_there,$(1)),$(call port_programs,$(t))) $(2)'; \
 for t in $(filter-out $(call port_there,$(1)),$(1)); do \
     why=$$(BUILD="$(BUILD)" sh $(PORT)/build.sh $$t there); \
     printf 'echo "%s"\necho "0 passed, 0 failed, 1 skipped"\n' "$$why" > $(PORT_BUILD)/$$t.missing.sh; \
     list="$$list $(PORT_BUILD)/$$t.missing.sh"; \
 done; BUILD="$(BUILD)" JOBS=$(JOBS) KV_TEST_TIMEOUT=$${KV_TEST_TIMEOUT:-600} bash tests/run $$list
endef

test-firmware: port-sources
	$(call port_test,$(PORT_FIRMWARE),$(if $(ONLY),,$(PORT)/test_symbols.sh))
sizes sizes-update: port-sources
	-@$(MAKE) --no-print-directory -k -j$(JOBS) $(foreach t,$(call port_there,m3),$(patsubst %,$(PORT_BUILD)/$(t)/$(t).fw_%.sh,$(filter-out littlefs,$(PORT_MODULES))))
	@BUILD="$(BUILD)" JOBS=$(JOBS) bash $(PORT)/library.sh $(if $(filter sizes-update,$@),update,sizes)
test-wasm: port-sources
	$(call port_test,wasm wasm-simd)
test-windows: port-sources
	$(call port_test,windows)
test-bigendian: port-sources
	$(call port_test,s390x mips armhf,$(if $(ONLY),,$(PORT)/test_golden.sh))
test-32bit: port-sources
	$(call port_test,i386)
test-musl: port-sources
	$(call port_test,musl)
test-cxx: port-sources
	$(call port_test,cxx11 cxx20,$(if $(ONLY),,tests/compile/cxx.sh))
test-ports: test-cxx test-32bit test-musl test-firmware test-wasm test-windows test-bigendian
