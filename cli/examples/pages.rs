//! Writes the completions and the manual pages of the program `keytally` below a folder such as
//! `/usr/local/share`: `pages FOLDER`. `cargo xtask install` runs it. The example of the same name
//! of `keytally-server` is this file with the commands of its program.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;
use keytally_cli::internal::command;

/// The shells whose completions are written, and the files.
pub(crate) const COMPLETIONS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash-completion/completions/keytally"),
    (Shell::Zsh, "zsh/site-functions/_keytally"),
    (Shell::Fish, "fish/vendor_completions.d/keytally.fish"),
];

/// The folder of the manual pages.
pub(crate) const MANUAL: &str = "man/man1";

fn main() -> io::Result<()> {
    run(command)
}

/// Writes the pages of a command line below the folder that the arguments name.
pub(crate) fn run(command: fn() -> Command) -> io::Result<()> {
    match std::env::args_os().nth(1) {
        Some(folder) => write(Path::new(&folder), command),
        None => Err(io::Error::new(io::ErrorKind::InvalidInput, "usage: pages FOLDER")),
    }
}

/// Writes all files below a folder.
pub(crate) fn write(folder: &Path, command: fn() -> Command) -> io::Result<()> {
    for (shell, file) in COMPLETIONS {
        let file = folder.join(file);
        fs::create_dir_all(file.parent().unwrap_or(folder))?;
        clap_complete::generate(shell, &mut command(), "keytally", &mut File::create(file)?);
    }
    let manual = folder.join(MANUAL);
    fs::create_dir_all(&manual)?;
    clap_mangen::generate_to(command(), manual)
}
