#!/bin/sh
# Builds the package of the nginx module for this version of nginx, with the installed libkeytally,
# which pkg-config finds. Prints the path of the package.
#
# It needs nginx-dev, debhelper and libkeytally-dev. If PKG_CONFIG_PATH is set, it names a library
# that is not installed by a package.
#
# Usage: build.sh FOLDER, in the folder of the workspace
set -eu
umask 022
folder=$(realpath "$1")
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || echo 0)}"
export SOURCE_DATE_EPOCH
name=libnginx-mod-http-keytally
# Without a dot: the build system of nginx replaces a `.S` in the path.
work=$(mktemp -d "${TMPDIR:-/tmp}/libnginxXXXXXXXX")
trap 'rm -r "$work"' EXIT
mkdir "$work/$name"
cp -R adapters/nginx/config adapters/nginx/src adapters/nginx/README.md \
    packaging/debian-nginx/debian "$work/$name"
sh packaging/debian/changelog.sh $name >"$work/$name/debian/changelog"
cat packaging/debian/copyright LICENSE-MIT >"$work/$name/debian/copyright"
maintainer=$(sed -n 's/^authors = \["\(.*\)"\]$/\1/p' Cargo.toml)
sed -i "s/@MAINTAINER@/$maintainer/" "$work/$name/debian/control"
(
    cd "$work/$name"
    # A library that is not of a package does not satisfy the dependency on one.
    dpkg-buildpackage --build=binary --no-sign ${PKG_CONFIG_PATH:+--no-check-builddeps} >&2
)
for package in "$work"/${name}_*.deb; do
    cp "$package" "$folder"
    echo "$folder/$(basename "$package")"
done
