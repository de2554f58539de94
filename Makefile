# A thin front over Meson: `make` leaves the program at build/sluice.
BUILD ?= build
MESON ?= meson
PYTHON ?= python3
BENCH_MODEL ?= $(BUILD)/mini.gguf

.PHONY: all deps deps-ci deps-bench deps-arm demo test check asan tsan clang arm bench bench-kernels bench-resident install clean help

all: $(BUILD)/build.ninja
	@$(MESON) compile -C $(BUILD)

%/build.ninja:
	@command -v $(MESON) >/dev/null || { echo "make: $(MESON) is missing; run 'make deps' first" >&2; exit 1; }
	$(MESON) setup $* $(SETUP)

deps:
	tools/install_deps.sh

deps-ci:
	tools/install_deps.sh --ci

deps-bench:
	tools/install_deps.sh --bench

deps-arm:
	tools/install_deps.sh --arm
	tools/arm_sysroot.sh build-arm-sysroot

demo: deps
	@$(MAKE) --no-print-directory all
	@$(PYTHON) tools/demo.py $(BUILD)/sluice

test: deps
	@$(MAKE) --no-print-directory all
	@$(PYTHON) tests/run.py --build $(BUILD)

check:
	@$(PYTHON) tools/check_layers.py
	@$(PYTHON) tools/check_style.py

asan: SETUP = -Dbuildtype=debugoptimized -Db_ndebug=false -Db_sanitize=address,undefined -Db_lundef=false
asan: build-asan/build.ninja
	@$(MESON) compile -C build-asan
	@$(PYTHON) tests/run.py --build build-asan --only-c

tsan: SETUP = -Dbuildtype=debugoptimized -Db_ndebug=false -Db_sanitize=thread -Db_lundef=false
tsan: build-tsan/build.ninja
	@$(MESON) compile -C build-tsan
	@$(PYTHON) tests/run.py --build build-tsan --only-c

clang: export CC = clang-14
clang: export CXX = clang++-14
clang: SETUP = -Dwerror=true
clang: build-clang/build.ninja
	@$(MESON) compile -C build-clang
	@$(PYTHON) tests/run.py --build build-clang --only-c

# AArch64 on another processor: built by a cross compiler, run by an emulator, compared with the native program.
arm: deps-arm
	@$(MAKE) --no-print-directory all
	@$(MAKE) --no-print-directory build-arm/build.ninja \
		SETUP="-Dwerror=true --cross-file build-arm-sysroot/paths.ini --cross-file tools/aarch64.ini"
	@$(MESON) compile -C build-arm
	@$(PYTHON) tests/emulated.py --build build-arm --native $(BUILD)/sluice \
		--emulator "qemu-aarch64-static -L $(CURDIR)/build-arm-sysroot" --basic "-cpu cortex-a53"

# The peer, where there is one, is a llama-bench: make bench PEER=/path/to/llama-bench
bench: deps-bench
	@$(MAKE) --no-print-directory all
	@test -f $(BENCH_MODEL) || $(PYTHON) tools/make_model.py $(BENCH_MODEL) --preset mini
	@$(PYTHON) bench/streaming.py --model $(BENCH_MODEL) --sluice $(BUILD)/sluice --store-bench $(BUILD)/bench/store_bench \
		$(if $(PEER),--peer $(PEER)) --results bench/results.tsv

bench-kernels: all
	@$(PYTHON) bench/kernels.py --test-kernels $(BUILD)/tests/kernels/test_kernels --results bench/results.tsv

# PEER is a llama-bench, and PEER_AVX2, where there is one, the same program built for AVX2.
bench-resident: all
	@test -n "$(PEER)" || { echo "make bench-resident: PEER=/path/to/llama-bench is missing" >&2; exit 1; }
	@$(PYTHON) bench/resident.py --peer $(PEER) $(if $(PEER_AVX2),--peer-avx2 $(PEER_AVX2)) --models $(BUILD) --sluice $(BUILD)/sluice \
		--test-kernels $(BUILD)/tests/kernels/test_kernels --results bench/results.tsv

install: all
	$(MESON) install -C $(BUILD)

clean:
	rm -rf $(BUILD) build-asan build-tsan build-clang build-gcc build-arm build-arm-sysroot

help:
	@echo "make          build the program: build/sluice"
	@echo "make deps     install what is missing to build and test (Debian 12; root or sudo)"
	@echo "make demo     install, build, and let the demo model tell a tale with half of its experts in memory"
	@echo "make test     build and run every test"
	@echo "make check    check layers, sizes and style"
	@echo "make asan     build and run the C tests with the address and undefined-behaviour sanitizers"
	@echo "make tsan     build and run the C tests with the thread sanitizer"
	@echo "make clang    build with clang, warnings as errors, and run the C tests"
	@echo "make arm      build for AArch64 and compare with this machine under an emulator (Debian 12, x86-64)"
	@echo "make bench    measure a 3 GB model in 1000 MiB against the disk (root; 4 GB of disk; PEER=llama-bench to compare)"
	@echo "make bench-kernels   the speed of every kernel, and of this machine's memory"
	@echo "make bench-resident  models that fit memory against a llama-bench: PEER=llama-bench (8 GB of disk)"
	@echo "make install  install program, library, headers and pkg-config file"
	@echo "make clean    remove the build directories"
