//! Writes the completions and the manual pages of the program with the commands of this package
//! below a folder: `pages FOLDER`. `cargo xtask deb` runs it.

use std::io;

#[expect(dead_code, reason = "the entry of the example of keytally-cli")]
#[path = "../../../cli/examples/pages.rs"]
mod pages;

fn main() -> io::Result<()> {
    pages::run(keytally_server::command)
}
