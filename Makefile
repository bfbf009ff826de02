# Nothing but git, gcc and GNU make is needed to begin with; `make help` says what there is.
# Programs are found by where they lie (see "what there is" below), and everything is built in build/.
#
#     make test CC=clang            another compiler
#     make test CFLAGS='-O3 -g'     other options
#     make test ONLY=mem            only programs whose name has "mem" in it
#     KV_TEST_SEED=7 make test      the random tests from seed 7

ifeq ($(origin CC),default)
CC := gcc
endif
ifeq ($(origin CXX),default)
CXX := g++
endif
CFLAGS   ?= -O1 -g
CXXFLAGS ?= $(CFLAGS)
BUILD    ?= build
JOBS     ?= 2
ONLY     ?=
PREFIX   ?= /usr/local

WARNINGS  := -Wall -Wextra
CLANG     := $(firstword $(shell for c in clang clang-19 clang-18 clang-17 clang-16 clang-15 clang-14; do command -v $$c; done 2>/dev/null))
BREW      := $(shell command -v brew >/dev/null 2>&1 && brew --prefix)
ifneq ($(BREW),)
CPPFLAGS  += -I$(BREW)/include
LDFLAGS   += -L$(BREW)/lib
endif
ifeq ($(shell uname -s),Darwin)
AS_NEEDED := -Wl,-dead_strip_dylibs
else
AS_NEEDED := -Wl,--as-needed
endif
# A program is linked only with those that it uses.
LIBS      := $(AS_NEEDED) -llz4 -lzstd -lxxhash -lpthread -lm

C_COMPILE   = $(CC) -std=gnu11 $(CPPFLAGS) $(WARNINGS) $(CFLAGS)
CXX_COMPILE = $(CXX) -std=gnu++17 $(CPPFLAGS) $(WARNINGS) $(CXXFLAGS)

# ---- what there is ----
HEADERS   := $(wildcard kv.h kv_simd.h kv_mem.h kv_art.h kv_fst.h kv_compress.h kv_lsm.h)
KIT       := $(HEADERS) $(wildcard tests/*.h)
pick       = $(if $(ONLY),$(foreach f,$(1),$(if $(findstring $(ONLY),$(f)),$(f))),$(1))
UNIT      := $(call pick,$(sort $(wildcard tests/unit/*.c tests/unit/*.cpp)))
MODEL     := $(call pick,$(sort $(wildcard tests/model/*.c tests/model/*.cpp)))
CRASH     := $(call pick,$(sort $(wildcard tests/crash/*.c)))
RACE      := $(call pick,$(sort $(wildcard tests/race/*.c)))
FUZZ      := $(call pick,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
BENCH     := $(call pick,$(sort $(wildcard tests/bench/bench_*.c tests/bench/bench_*.cpp)))
SCRIPTS   := $(call pick,$(sort $(wildcard tests/compile/test_*.sh)))
EXAMPLES  := $(call pick,$(sort $(filter-out examples/demo.c,$(wildcard examples/*.c))))
# A test that says `simd-levels: all` in its first lines is built for each level that this processor runs.
LEVELS    := $(shell sh tests/levels.sh)
LEVELLED  := $(shell grep -l '^ *simd-levels: all' $(UNIT) $(MODEL) /dev/null)
at_levels  = $(foreach l,$(LEVELS),$(addsuffix .$(l),$(call programs,$(1),$(2))))
programs   = $(addprefix $(1)/,$(basename $(notdir $(2))))

.DEFAULT_GOAL := help
.PHONY: help demo test examples bench bench-deps fuzz sanitize race crash levels compile-matrix lint test-packages install uninstall single clean deps
.DELETE_ON_ERROR:

help:
	@echo "make demo             load the file names of this machine into every store, read them back, show a table"
	@echo "make demo KEYS=file   the same with the lines of a file"
	@echo "make test             unit, model, crash, compile and example tests; ONLY=mem for a part"
	@echo "make examples         compile and run the examples, compare what they print"
	@echo "make bench            build and run the benchmarks; make bench-mem (art, fst, ...) runs one"
	@echo "make bench-deps       install the libraries that the benchmarks compare with"
	@echo "make sanitize         unit and model tests under AddressSanitizer and UndefinedBehaviorSanitizer"
	@echo "make levels           the modules' unit and model tests at every SIMD level of this processor"
	@echo "make race             thread tests under ThreadSanitizer"
	@echo "make crash            crash tests, ten times as many as in make test"
	@echo "make soak             unit, model and crash tests with SEEDS=10 seeds, the first of which is SEED=today; ONLY=mem for a part"
	@echo "make fuzz             every fuzz target for FUZZ_SECONDS=20"
	@echo "make compile-matrix   every header, standard, compiler, switch and SIMD level"
	@echo "make lint             gcc's analyzer, clang-tidy and cppcheck over every header"
	@echo "make test-ports       on other platforms: test-firmware, test-wasm, test-windows, test-bigendian, test-32bit, test-musl"
	@echo "                      and as C++: test-cxx; tests/port/deps.sh installs compilers and emulators"
	@echo "make test-packages    CMake, Meson, make single, and the metadata of PlatformIO, Zephyr, ESP-IDF, vcpkg, Conan"
	@echo "make sizes            what each module needs on Cortex-M0, -M3 and RV32: code, stack, memory"
	@echo "make install          headers and pkg-config files to PREFIX=$(PREFIX), below DESTDIR if given; make uninstall"
	@echo "make single           dist/: each header as one file with all of ours that it needs"
	@echo "make deps             install what the tests need: xxhash, lz4, zstd (demo and test do it when they are missing)"
	@echo "make clean            remove $(BUILD)/"

# ---- dependencies ----
deps:
	@CC="$(CC) $(CPPFLAGS) $(LDFLAGS)" sh tests/deps.sh
bench-deps:
	@sh tests/bench/deps.sh

# ---- tests ----
TEST_PROGRAMS  := $(call programs,$(BUILD)/test,$(filter-out $(LEVELLED),$(MODEL))) $(SCRIPTS) \
                  $(call programs,$(BUILD)/test,$(CRASH) $(filter-out $(LEVELLED),$(UNIT))) $(call at_levels,$(BUILD)/test,$(LEVELLED))    # the long ones first
LEVEL_PROGRAMS := $(call at_levels,$(BUILD)/test,$(filter-out $(LEVELLED) %.cpp %/unit_kv.c %/unit_store.c %/unit_posix.c %/unit_platform.c %/unit_disk.c %/model_arena.c %/model_cursor.c,$(UNIT) $(MODEL)))
CLEAN_COMPILER := $(or $(CLANG),$(CC))
CHECKED_PROGRAMS := $(call programs,$(BUILD)/sanitize,$(filter-out $(LEVELLED) %/crash_lsm_mutants.c,$(UNIT) $(MODEL) $(CRASH))) $(call at_levels,$(BUILD)/sanitize,$(LEVELLED))
RACE_PROGRAMS  := $(call programs,$(BUILD)/race,$(RACE))

compile_c   = @rm -f $@; mkdir -p $(@D); $(C_COMPILE) $(1) -o $@ $< $(LDFLAGS) $(LIBS)
compile_cxx = @rm -f $@; mkdir -p $(@D); $(CXX_COMPILE) $(1) -o $@ $< $(LDFLAGS) $(LIBS)

$(BUILD)/test/%: tests/unit/%.c    $(KIT); $(compile_c)
$(BUILD)/test/%: tests/model/%.c   $(KIT); $(compile_c)
$(BUILD)/test/%: tests/crash/%.c   $(KIT); $(compile_c)
$(BUILD)/test/%: tests/unit/%.cpp  $(KIT); $(compile_cxx)
$(BUILD)/test/%: tests/model/%.cpp $(KIT); $(compile_cxx)
LEVEL_scalar := -DKV_SIMD=KV_SIMD_SCALAR
LEVEL_sse2   := -DKV_SIMD=KV_SIMD_SSE2 -msse2
LEVEL_avx2   := -DKV_SIMD=KV_SIMD_AVX2 -mavx2
LEVEL_avx512 := -DKV_SIMD=KV_SIMD_AVX512 -mavx512f -mavx512bw -mavx512dq -mavx512vl
LEVEL_avx512vbmi := $(LEVEL_avx512) -mavx512vbmi -mavx512vbmi2 -mgfni -mpopcnt
LEVEL_native :=
define level_rules
$(BUILD)/test/%.$(1): tests/unit/%.c      $(KIT); $$(call compile_c,$(LEVEL_$(1)) -DKV_TEST_LIBXXHASH=1)
$(BUILD)/test/%.$(1): tests/model/%.c     $(KIT); $$(call compile_c,$(LEVEL_$(1)))
$(BUILD)/sanitize/%.$(1): tests/unit/%.c  $(KIT); $$(call compile_clean,$(LEVEL_$(1)))
$(BUILD)/sanitize/%.$(1): tests/model/%.c $(KIT); $$(call compile_clean,$(LEVEL_$(1)))
endef
$(foreach l,$(LEVELS),$(eval $(call level_rules,$(l))))

ASAN := -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
TSAN := -O1 -g -fsanitize=thread
# Optimised are those that run long; with the others, most of the time would go into compiling them.
LONG := unit_art unit_fst% model_art model_fst% model_lsm model_mem crash_lsm_flip crash_lsm_io crash_lsm_power
compile_clean = @rm -f $@; mkdir -p $(@D); $(CLEAN_COMPILER) -std=gnu11 $(CPPFLAGS) $(WARNINGS) $(if $(filter $(LONG),$(basename $(<F))),-O1,-O0) $(ASAN) $(1) -o $@ $< $(LDFLAGS) $(LIBS)
$(BUILD)/sanitize/%: tests/unit/%.c    $(KIT); $(compile_clean)
$(BUILD)/sanitize/%: tests/model/%.c   $(KIT); $(compile_clean)
$(BUILD)/sanitize/%: tests/crash/%.c   $(KIT); $(compile_clean)
$(BUILD)/sanitize/%: tests/unit/%.cpp  $(KIT); @rm -f $@; mkdir -p $(@D); $(CXX) -std=gnu++17 $(CPPFLAGS) $(WARNINGS) -O1 $(ASAN) -o $@ $< $(LDFLAGS) $(LIBS)
$(BUILD)/race/%: tests/race/%.c $(KIT); @rm -f $@; mkdir -p $(@D); $(CLEAN_COMPILER) -std=gnu11 $(CPPFLAGS) $(WARNINGS) $(TSAN) -o $@ $< $(LDFLAGS) $(LIBS)

# The runners count a program that is missing (it did not compile) as failed, so make goes on (-k).
.PHONY: programs-test programs-levels programs-sanitize programs-race
programs-test: $(filter-out %.sh,$(TEST_PROGRAMS))
programs-levels: $(LEVEL_PROGRAMS)
programs-sanitize: $(CHECKED_PROGRAMS)
programs-race: $(RACE_PROGRAMS)
build_all = -@$(MAKE) --no-print-directory -k -j$(JOBS)

test: deps
	$(build_all) programs-test
	@$(SCRIPT_ENV) bash tests/run $(TEST_PROGRAMS)
sanitize: deps
	$(build_all) programs-sanitize
	@BUILD="$(BUILD)" JOBS=$(JOBS) KV_TEST_SCALE=$${KV_TEST_SCALE:-0.2} bash tests/run $(CHECKED_PROGRAMS)
levels: deps
	$(build_all) programs-levels
	@BUILD="$(BUILD)" JOBS=$(JOBS) KV_TEST_SCALE=$${KV_TEST_SCALE:-0.1} bash tests/run $(LEVEL_PROGRAMS)
race: deps
	$(build_all) programs-race
	@BUILD="$(BUILD)" JOBS=1 bash tests/run $(RACE_PROGRAMS)
CRASH_PROGRAMS := $(call programs,$(BUILD)/test,$(CRASH) $(wildcard tests/model/model_lsm.c))
crash: deps
	$(build_all) $(CRASH_PROGRAMS)
	@BUILD="$(BUILD)" JOBS=$(JOBS) KV_TEST_SCALE=$${KV_TEST_SCALE:-10} KV_TEST_TIMEOUT=900 KV_TEST_SHOW='^[a-z_]+: .*[a-z]=' bash tests/run $(CRASH_PROGRAMS)

# The random tests with seeds that nobody has tried: SEEDS of them, from SEED on, which is today's date.
SEEDS ?= 10
SEED  ?= $(shell date +%Y%m%d)
SOAK_PROGRAMS := $(call programs,$(BUILD)/test,$(MODEL) $(CRASH) $(UNIT))
.PHONY: soak
soak: deps
	$(build_all) $(SOAK_PROGRAMS)
	@failed=; for i in $$(seq 1 $(SEEDS)); do seed=$$(($(SEED) + i - 1)); echo "== seed $$seed"; \
	    BUILD="$(BUILD)" JOBS=$(JOBS) KV_TEST_SEED=$$seed KV_TEST_TIMEOUT=$${KV_TEST_TIMEOUT:-900} bash tests/run $(SOAK_PROGRAMS) || failed="$$failed $$seed"; done; \
	    if [ -n "$$failed" ]; then echo "failed: make soak SEEDS=1 SEED=n for n in$$failed"; exit 1; fi

# ---- benchmarks: built for this processor, one at a time ----
BENCH_PROGRAMS := $(call programs,$(BUILD)/bench,$(BENCH))
$(BUILD)/bench/%: tests/bench/%.c   $(KIT) tests/bench/build.sh; @mkdir -p $(@D); CC="$(CC)" CXX="$(CXX)" CPPFLAGS="$(CPPFLAGS)" LDFLAGS="$(LDFLAGS)" sh tests/bench/build.sh $< $@
$(BUILD)/bench/%: tests/bench/%.cpp $(KIT) tests/bench/build.sh; @mkdir -p $(@D); CC="$(CC)" CXX="$(CXX)" CPPFLAGS="$(CPPFLAGS)" LDFLAGS="$(LDFLAGS)" sh tests/bench/build.sh $< $@
bench: deps $(BENCH_PROGRAMS:$(BUILD)/bench/bench_%=bench-%)
bench-%: $(BUILD)/bench/bench_%
	@echo "== $* =="; $< $(BENCH_ARGS)

# ---- fuzzing: by clang's libFuzzer where it is there, else by the driver in tests/fuzz/fuzz_main.h ----
FUZZ_SECONDS ?= 20
LIBFUZZER     := $(if $(CLANG),$(shell echo 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { (void)d; (void)n; return 0; }' | $(CLANG) -xc - -fsanitize=fuzzer,address -o /dev/null 2>/dev/null && echo yes))
FUZZ_FLAGS    := $(if $(LIBFUZZER),-fsanitize=fuzzer -DKV_LIBFUZZER=1)
FUZZ_PROGRAMS := $(call programs,$(BUILD)/fuzz,$(FUZZ))
$(BUILD)/fuzz/%: tests/fuzz/%.c $(KIT) tests/fuzz/fuzz_main.h
	@rm -f $@; mkdir -p $(@D); $(if $(LIBFUZZER),$(CLANG),$(CC)) -std=gnu11 $(CPPFLAGS) $(WARNINGS) -O1 $(ASAN) $(FUZZ_FLAGS) -o $@ $< $(LDFLAGS) $(LIBS)
.PHONY: programs-fuzz
programs-fuzz: $(FUZZ_PROGRAMS)
fuzz: deps
	$(build_all) programs-fuzz
	@BUILD="$(BUILD)" JOBS=$(JOBS) FUZZ_SECONDS=$(FUZZ_SECONDS) KV_TEST_TIMEOUT=$$(($(FUZZ_SECONDS) + 300)) KV_TEST_WITH=tests/fuzz/one.sh bash tests/run $(FUZZ_PROGRAMS)

# ---- examples, demo, headers ----
SCRIPT_ENV = CC="$(CC)" CXX="$(CXX)" CLANG="$(CLANG)" CPPFLAGS="$(CPPFLAGS)" LDFLAGS="$(LDFLAGS)" LIBS="$(LIBS)" BUILD="$(BUILD)" JOBS=$(JOBS)
examples: deps
	@$(SCRIPT_ENV) bash tests/run tests/compile/test_examples.sh
MATRIX_SCRIPTS := tests/compile/test_headers.sh tests/compile/test_link.sh
compile-matrix: deps
	@$(SCRIPT_ENV) JOBS=1 KV_MATRIX=full MATRIX_JOBS=$(JOBS) KV_TEST_TIMEOUT=1500 bash tests/run $(MATRIX_SCRIPTS)
lint: deps
	@$(SCRIPT_ENV) KV_TEST_TIMEOUT=900 bash tests/run tests/compile/lint.sh
test-packages: deps
	@$(SCRIPT_ENV) bash tests/run tests/compile/test_packages.sh

NATIVE = $(shell echo 'int x;' | $(CC) -march=native -fsyntax-only -xc - 2>/dev/null && echo -march=native)
$(BUILD)/demo: examples/demo.c $(HEADERS)
	@mkdir -p $(@D); $(CC) -std=gnu11 $(CPPFLAGS) $(WARNINGS) -O3 $(NATIVE) -o $@ $< $(LDFLAGS) $(LIBS)
demo: deps
	@$(MAKE) --no-print-directory $(BUILD)/demo
	@$(BUILD)/demo $(if $(KEYS),"$(KEYS)")

# ---- install: plain headers, so nothing here knows of a libdir ----
includedir   ?= $(PREFIX)/include
pkgconfigdir ?= $(PREFIX)/share/pkgconfig
VERSION      := $(shell sed -n 's/^.define KV_VERSION_STRING "\(.*\)"/\1/p' kv.h)
install:
	install -d "$(DESTDIR)$(includedir)" "$(DESTDIR)$(pkgconfigdir)"
	install -m 644 $(HEADERS) "$(DESTDIR)$(includedir)"
	@{ echo "prefix=$(PREFIX)"; echo "includedir=$(patsubst $(PREFIX)/%,$${prefix}/%,$(includedir))"; echo; \
	   echo "Name: kv"; echo "Description: header-only key-value stores: hash map, ordered map, frozen map"; \
	   echo "Version: $(VERSION)"; echo "Requires.private: libxxhash"; echo 'Cflags: -I$${includedir}'; } > "$(DESTDIR)$(pkgconfigdir)/kv.pc"
	@{ echo "Name: kv-compress"; echo "Description: header-only key-value stores: compression and the durable store"; \
	   echo "Version: $(VERSION)"; echo "Requires: kv = $(VERSION), liblz4, libzstd"; } > "$(DESTDIR)$(pkgconfigdir)/kv-compress.pc"
	@echo "kv.pc and kv-compress.pc in $(DESTDIR)$(pkgconfigdir)"
uninstall:
	cd "$(DESTDIR)$(includedir)" && rm -f $(HEADERS)
	rm -f "$(DESTDIR)$(pkgconfigdir)/kv.pc" "$(DESTDIR)$(pkgconfigdir)/kv-compress.pc"

SINGLE ?= dist
single:
	@sh tests/single.sh $(SINGLE) $(HEADERS)
	@echo "$(words $(HEADERS)) headers in $(SINGLE)/"

clean:
	rm -rf $(BUILD) dist

# ---- other platforms: firmware, WebAssembly, Windows, big-endian ----
-include tests/port/port.mk
