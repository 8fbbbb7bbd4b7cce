//! Tests the completions and the manual pages, which the example `pages` writes.

use std::fs;
#[cfg(unix)]
use std::process::Command;

use keytally_cli::internal::command;

#[expect(dead_code, reason = "the program's entry")]
#[path = "../examples/pages.rs"]
mod pages;

use pages::{COMPLETIONS, MANUAL};

#[test]
fn completions_and_pages_name_every_command() {
    let folder = tempfile::tempdir().unwrap();
    pages::write(folder.path(), command).unwrap();
    let read = |file: &str| fs::read_to_string(folder.path().join(file)).unwrap();
    let manual = read(&format!("{MANUAL}/keytally.1"));
    let command = command();
    let commands = command.get_subcommands().filter(|command| !command.is_hide_set());
    let names: Vec<&str> = commands.map(|command| command.get_name()).collect();
    assert!(names.len() >= 12, "{names:?}");
    for name in names {
        for (shell, file) in COMPLETIONS {
            let completed = read(file);
            let mut words = completed.split(|c: char| !(c.is_alphanumeric() || c == '-'));
            assert!(words.any(|word| word == name), "{shell} does not complete {name}");
        }
        let escaped = name.replace('-', "\\-");
        assert!(manual.contains(&format!("keytally\\-{escaped}(1)")), "{name}:\n{manual}");
        assert!(read(&format!("{MANUAL}/keytally-{name}.1")).contains(".SH SYNOPSIS"), "{name}");
    }
}

#[cfg(unix)]
#[test]
fn bash_accepts_its_completions() {
    let folder = tempfile::tempdir().unwrap();
    pages::write(folder.path(), command).unwrap();
    let (_, bash) = COMPLETIONS[0];
    let checked = Command::new("bash").arg("-n").arg(folder.path().join(bash)).output().unwrap();
    assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");
}
