#!/bin/sh
# Starts rustc for cargo, as its `RUSTC_WRAPPER`, so that the output does not depend on the path of
# the folder KEYTALLY_SOURCES.
#
# cargo hashes the absolute path of a package outside the workspace into `-C metadata`, and rustc
# orders and names symbols by it. Here, it is made of the names and the version for all packages of
# the folder.
set -eu
rustc=$1
shift
case ${CARGO_MANIFEST_DIR-} in
"$KEYTALLY_SOURCES"/*)
    for word; do
        shift
        case $word in
        metadata=*) word=metadata=$CARGO_PKG_NAME-$CARGO_PKG_VERSION-$CARGO_CRATE_NAME ;;
        esac
        set -- "$@" "$word"
    done
    ;;
esac
exec "$rustc" "$@"
