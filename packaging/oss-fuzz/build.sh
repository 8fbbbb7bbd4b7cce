#!/bin/bash
# Builds every fuzz target for OSS-Fuzz, in the folder of the repository. $OUT gets each program,
# the archive of its first inputs, and its options, which are those of `cargo xtask fuzz`.
set -eu
cargo fuzz build --fuzz-dir tools/fuzz --target-dir target/oss-fuzz --release --debug-assertions
for source in tools/fuzz/fuzz_targets/*.rs; do
    name=$(basename "$source" .rs)
    cp "target/oss-fuzz/x86_64-unknown-linux-gnu/release/$name" "$OUT/$name"
    zip --quiet --junk-paths "$OUT/${name}_seed_corpus.zip" "tools/fuzz/corpus/$name"/*
    printf '[libfuzzer]\nmax_len = 1024\ntimeout = 10\n' >"$OUT/$name.options"
done
