#!/bin/sh
# Builds examples/gate.c by the two commands in README.md, with the shared library and with the
# archive, and runs it: requests are admitted until one is denied.
# Usage: readme.sh COMPILER PREFIX LIBDIR ROOT, where LIBDIR is relative to PREFIX
set -eu
compiler=$1 prefix=$2 libdir=$3 root=$4
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
cd "$folder"

cp "$root/examples/gate.c" .
# The commands do not work with blanks in the prefix.
ln -s "$prefix" prefix
libraries=$folder/prefix/$libdir
export PKG_CONFIG_PATH="$libraries/pkgconfig"
KEYTALLY_PEPPER=$(printf '5a%.0s' $(seq 32))
export KEYTALLY_PEPPER
"$compiler" -o make_gate "$root/ffi-c/tests/c/make_gate.c" $(pkg-config --cflags --libs keytally)
LD_LIBRARY_PATH="$libraries" ./make_gate >key

# Builds by a command and runs the program. Usage: check COMMAND LIBRARIES
check() {
    grep -qF "\`$1\`" "$root/README.md" || { echo "README.md lacks: $1"; exit 1; }
    eval "$(echo "$1" | sed "s|^cc|'$compiler'|")"
    export LD_LIBRARY_PATH="$2"
    ./a.out | sed 's/^ *//; s/[[:space:]]*$//' >output
    for line in 200 'X-RateLimit-Remaining: 999' \
        '429 {"error": "Rate limit exceeded. Please try again later."}'; do
        grep -qxF "$line" output || { echo "gate.c does not print: $line"; cat output; exit 1; }
    done
    if KEYTALLY_PEPPER= ./a.out; then echo "gate.c runs without a pepper"; exit 1; fi
}
check 'cc gate.c $(pkg-config --cflags --libs keytally)' "$libraries"
# A static program needs no library at run time.
check 'cc -static gate.c $(pkg-config --static --cflags --libs keytally)' /nowhere
