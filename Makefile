# SPDX-License-Identifier: GPL-2.0-only OR MIT
# Verbs only; meson.build knows how.
#
#   make                 build/balun and build/libbalun.so, usable in place
#   make demo            the main job on this machine's package database; a program in 64 MiB of RAM
#   make check           every test that needs nothing special; under 5 minutes
#   make check-all       also sanitizers, clang, kernel objects, long runs
#   make check-hmm-selftest  the kernel's own HMM selftest (REPEAT=1000 SOURCE=tree)
#   make check-kernel    the modules on kernels in a VM (KERNEL=6.1|6.12|newest|stock|all CONFIG=plain|debug|all);
#                        the first run builds the kernels: 10 to 30 minutes each
#   make check-programs  tests of real programs (CPython, sqlite, redis, gcc, git, perl, xz) while all their
#                        memory moves to a device and back (PROGRAMS='sqlite redis' RATE=20000)
#   make conform         conformance of DRIVER on ENGINE (DRIVER=soft ENGINE=uffd)
#   make check-model     the models in docs/model, exhaustively, and their deliberate bugs
#   make stress-sim      the simulator for as long as you like (SEED=1 N=100000)
#   make fuzz            libFuzzer on every target, TIME seconds each (TIME=60)
#   make bench           figures beside their raw limits
#   make module          balun.ko and the drivers as kernel modules (KDIR=kernel), in build-module
#   make dkms            what DKMS needs to build them for every kernel, in build-dkms (packaging/dkms)
#   make install         DESTDIR= PREFIX=/usr/local
#   make lint            format, sizes, include rules, symbols
#   make pre-push        what a change must pass before it is pushed

BUILD  ?= build
PREFIX ?= /usr/local
DRIVER ?= soft
ENGINE ?= uffd
SEED   ?= 1
N      ?= 100000
TIME   ?= 60
KERNEL ?= all
CONFIG ?= plain
RATE   ?= 20000
MESON_ARGS ?= --werror

meson_files := meson.build meson_options.txt VERSION \
	$(wildcard */meson.build */*/meson.build)

.PHONY: all check check-all check-hmm-selftest check-kernel check-model check-programs conform stress-sim fuzz bench \
	module dkms demo install lint clean pre-push setup

all: $(BUILD)/build.ninja
	@ninja -C $(BUILD) $(NINJA_ARGS)

setup:
	@scripts/setup.sh build

# A new or changed meson.build anywhere: configure again.
$(BUILD)/build.ninja: $(meson_files) | setup
	@if [ -f $(BUILD)/meson-private/coredata.dat ]; then meson setup --reconfigure $(BUILD) >$(BUILD)/configure.log 2>&1 || \
		{ cat $(BUILD)/configure.log; exit 1; }; \
	else meson setup --prefix=$(PREFIX) --libdir=lib $(MESON_ARGS) $(BUILD); fi
	@touch $@

demo: all
	$(BUILD)/balun demo
	@echo
	@BUILD=$(BUILD) examples/words.sh

check:
	@scripts/setup.sh check
	@$(MAKE) --no-print-directory all
	@tests/run.sh

check-all:
	@scripts/setup.sh check-all
	@$(MAKE) --no-print-directory all
	@tests/run.sh --all

check-model:
	@scripts/setup.sh model
	@tests/model.sh $(MODELS)

check-hmm-selftest:
	@scripts/setup.sh check-hmm-selftest
	@$(MAKE) --no-print-directory all
	@tests/hmm-selftest/run.sh

check-kernel:
	@scripts/setup.sh check-kernel
	@$(MAKE) --no-print-directory all
	@tests/kernel/run.sh --kernel $(KERNEL) --config $(CONFIG) $(TESTS)

check-programs:
	@scripts/setup.sh check-programs
	@$(MAKE) --no-print-directory all
	@RATE=$(RATE) tests/programs/run.sh $(PROGRAMS)

conform: all
	$(BUILD)/balun conform --driver $(DRIVER) --engine $(ENGINE)

stress-sim: all
	$(BUILD)/tests/sim/sim_stress --seed $(SEED) --count $(N)

fuzz:
	@scripts/setup.sh check-all
	@tests/fuzz/run.sh $(TIME)

bench: all
	$(BUILD)/balun bench

module:
	@$(if $(KDIR),,scripts/setup.sh module)
	@scripts/module.sh $(KDIR)

dkms:
	@out=$$(packaging/dkms/source.sh build-dkms) && echo "$$out; now, as root:" && \
	echo "  cp -r $$out /usr/src/ && dkms install balun/$$(cat VERSION)"

install: all
	@meson configure $(BUILD) -Dprefix=$(PREFIX)
	@ninja -C $(BUILD) >/dev/null
	@DESTDIR=$(DESTDIR) meson install -C $(BUILD) --no-rebuild --quiet

lint:
	@scripts/setup.sh check
	@$(MAKE) --no-print-directory all
	@tests/run.sh abi

pre-push: check-all

clean:
	rm -rf build build-asan build-tsan build-clang build-fuzz build-module build-dkms build-vm build-programs
