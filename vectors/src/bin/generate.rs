//! Writes the vector files into the folder of this crate, or into the folder that the first
//! argument names.

use std::path::PathBuf;
use std::{env, io};

fn main() -> io::Result<()> {
    let folder = env::args_os()
        .nth(1)
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    keytally_vectors::generate::generate(&folder)
}
