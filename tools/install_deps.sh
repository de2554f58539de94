#!/bin/bash
# install_deps.sh [--ci|--bench|--arm]: install what building and testing Sluice needs and this machine lacks.
# Debian 12 and its relatives, through apt-get; --ci adds clang and its tools for the full set of checks, --bench what
# measuring needs, --arm a cross compiler and an emulator for AArch64.
set -eu

build_packages="meson ninja-build gcc g++ pkg-config libc6-dev libpcre2-dev libutf8proc-dev libjansson-dev libxxhash-dev liburing-dev"
test_packages="libcmocka-dev python3 python3-pytest python3-numpy git"
bench_packages="fio"
arm_packages="gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static"
ci_packages="clang-14 clang-tidy-14 clang-format-14 libclang-rt-14-dev"

packages="$build_packages $test_packages"
case "${1:-}" in
    "") ;;
    --ci) packages="$packages $ci_packages" ;;
    --bench) packages="$packages $bench_packages" ;;
    --arm) packages="$packages $arm_packages" ;;
    *) echo "usage: tools/install_deps.sh [--ci|--bench|--arm]" >&2; exit 2 ;;
esac

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    cat >&2 <<TEXT
install_deps: this system has no apt-get. Install with its own package manager:
  a C11 compiler (gcc 12 or clang 14, or newer), meson 1.0, ninja, pkg-config,
  the development files of pcre2 (8 bit), utf8proc, jansson, xxhash, liburing and cmocka,
  and for the tests python3 with pytest and numpy.
Then run: make
TEXT
    exit 1
fi

missing=""
for package in $packages; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
if [ -z "$missing" ]; then
    echo "install_deps: everything is there"
    exit 0
fi

run=""
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "install_deps: needs root to install; run as root: apt-get install --no-install-recommends$missing" >&2
        exit 1
    fi
    run=sudo
fi
echo "install_deps: installing$missing"
$run apt-get update -q
$run env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
