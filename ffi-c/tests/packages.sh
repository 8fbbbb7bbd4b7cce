#!/bin/sh
# Unpacks the packages of libkeytally into empty folders, and builds programs from there by the
# commands of the README and by CMake, without cargo and rustc on PATH.
# Usage: packages.sh PACKAGES ROOT
set -eu
packages=$1 root=$2
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
PATH=/usr/bin:/bin

# Builds the example of a package with CMake. Usage: build EXAMPLES PREFIX
build() {
    cmake -S "$1" -B "$folder/built" -DCMAKE_PREFIX_PATH="$2"
    cmake --build "$folder/built"
    test -x "$folder/built/gate"
    rm -r "$folder/built"
}

mkdir "$folder/archive" "$folder/package"
tar -xzf "$packages"/libkeytally-*.tar.gz -C "$folder/archive"
sh "$root/ffi-c/tests/readme.sh" cc "$folder"/archive/libkeytally-* lib "$root"
build "$folder"/archive/libkeytally-*/examples "$(echo "$folder"/archive/libkeytally-*)"

command -v dpkg-deb >/dev/null || exit 0
dpkg-deb -x "$packages"/libkeytally-dev_*.deb "$folder/package"
PKG_CONFIG_SYSROOT_DIR="$folder/package" sh "$root/ffi-c/tests/readme.sh" cc \
    "$folder/package/usr" "lib/$(cc -print-multiarch)" "$root"
build "$folder/package/usr/share/doc/libkeytally-dev/examples" "$folder/package/usr"
