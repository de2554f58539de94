#!/bin/bash
# arm_sysroot.sh DIRECTORY: fetch the AArch64 libraries that Sluice links with from Debian and unpack them there.
#
# apt keeps its lists and packages inside DIRECTORY, so this needs no root and this system's packages stay as they are.
# DIRECTORY/paths.ini tells Meson where the libraries are; tools/aarch64.ini is the rest of the cross build.
set -eu

packages="libc6 libgcc-s1 libpcre2-8-0 libpcre2-dev libutf8proc2 libutf8proc-dev libjansson4 libjansson-dev
  libxxhash0 libxxhash-dev liburing2 liburing-dev libcmocka0 libcmocka-dev"

[ $# -eq 1 ] || { echo "usage: tools/arm_sysroot.sh DIRECTORY" >&2; exit 2; }
mkdir -p "$1"
root=$(cd "$1" && pwd)
if [ -f "$root/paths.ini" ]; then
    echo "arm_sysroot: everything is there"
    exit 0
fi

apt="$root/apt"
rm -rf "$apt"
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/packages"
options="-q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State::Lists=$apt/lists
  -o Dir::State::status=/dev/null -o Dir::Cache=$apt/cache -o Debug::NoLocking=1"
# A source for other architectures alone has nothing for this one; what matters is whether the packages are found.
apt-get $options update || true
(cd "$apt/packages" && apt-get $options download $packages)
for package in "$apt/packages"/*.deb; do
    dpkg-deb -x "$package" "$root"
done
rm -r "$apt"
printf "[constants]\nsysroot = '%s'\n" "$root" > "$root/paths.ini"
