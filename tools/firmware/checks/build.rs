//! Puts the vectors where `src/vectors.rs` includes them.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let folder = std::env::var_os("OUT_DIR").expect("cargo names a folder");
    let file = Path::new(&folder).join("vectors.bin");
    std::fs::write(file, keytally_tables::encode()).expect("the folder can be written to");
}
