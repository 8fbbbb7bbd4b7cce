#!/bin/sh
# Writes the library OWN: the code of ARCHIVE as one object, which defines only the names for C.
#
# Each static library of Rust contains Rust's standard library. Two in one program would define its
# names twice. Usage: own_names.sh ARCHIVE OWN
set -eu
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
object=$work/keytally.o

names=$(nm --defined-only "$1" 2>/dev/null | sed -n 's/.* T \(kt_\)/--undefined=\1/p')
test -n "$names"
# Resolves the section groups, since other archives have groups of the same names.
ld --relocatable --force-group-allocation -o "$object" $names "$1"
# The removed sections are for the compiler only. Joined, they are invalid, and tools fail on them.
objcopy --wildcard --keep-global-symbol='kt_*' --remove-section=.llvmbc --remove-section=.llvmcmd \
    "$object"
rm -f "$2"
ar rcsD "$2" "$object"
