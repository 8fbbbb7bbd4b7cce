#!/bin/sh
# Checks the symbols that the library without its host part requires: only those that each C
# compiler may call by itself. Usage: bare_symbols.sh COMPILER ARCHIVE
set -eu
whole=$(mktemp)
trap 'rm "$whole"' EXIT
compiler=$1 archive=$2

# Links all functions for C, with the code that they use, into a shared object. The archive itself
# also contains unused code.
set -- $(nm --defined-only "$archive" 2>/dev/null | sed -n 's/.* T \(kt_\)/-Wl,--undefined=\1/p')
test $# -gt 40
"$compiler" -shared -nostdlib -o "$whole" "$@" "$archive"
required=$(nm --undefined-only "$whole" | awk '{ print $2 }' |
    grep -vxE 'memcpy|memmove|memset|memcmp|bcmp' || true)
test -z "$required" || { echo "the library without host requires:" $required; exit 1; }
