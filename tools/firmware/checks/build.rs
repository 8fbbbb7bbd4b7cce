//! Writes the encoded vectors to the file that `src/vectors.rs` includes.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let folder = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    let file = Path::new(&folder).join("vectors.bin");
    std::fs::write(file, keytally_tables::encode()).expect("cannot write vectors.bin");
}
