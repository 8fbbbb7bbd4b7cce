#!/bin/sh
# Prints the changelog of a package for Debian, in Debian's form: the version of this project, at
# the time SOURCE_DATE_EPOCH, by default that of the last commit.
#
# Usage: changelog.sh PACKAGE, in the folder of the workspace
set -eu
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || echo 0)}"
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml)
maintainer=$(sed -n 's/^authors = \["\(.*\)"\]$/\1/p' Cargo.toml)
case $maintainer in
*'<'*) ;;
# Debian's programs read an address here, which may be empty.
*) maintainer="$maintainer <>" ;;
esac
printf '%s (%s) unstable; urgency=medium\n\n' "$1" "$version"
printf '  * The changes are in CHANGELOG.md of https://github.com/keytally/keytally.\n\n'
printf ' -- %s  %s\n' "$maintainer" "$(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")"
