//! Files on Windows: their access control lists, and what is refused while a file is open.
#![cfg(windows)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use keytally::{Error, Gate, Limiter, Peppers, pepper};

use crate::support::{config, entries, new_key, open_raw, peppers};

/// Gives all users access to a file. Wine shows the mode of a file as its access control list, and
/// its `icacls` does nothing.
fn admit_all_users(path: &Path) {
    const SHELL_OF_WINE: &str = r"Z:\bin\sh";
    if !Path::new(SHELL_OF_WINE).exists() {
        let icacls = Command::new("icacls").arg(path).args(["/grant", "*S-1-1-0:R"]).status();
        assert!(icacls.unwrap().success());
        return;
    }
    let script = "f=${WINEPREFIX:-$HOME/.wine}/dosdevices/$0; chmod a+r \"$f\" && : >\"$f.done\"";
    let unix_path = path.to_str().unwrap().replace('\\', "/").replace("C:", "c:");
    // Wine starts a program of Unix, and returns no handle to wait for.
    let _ = Command::new(SHELL_OF_WINE).args(["-c", script, &unix_path]).spawn();
    let done = format!("{}.done", path.display());
    while fs::remove_file(&done).is_err() {
        std::thread::yield_now();
    }
}

fn refusal<T>(opened: Result<T, Error>) -> String {
    match opened {
        Err(error @ Error::Account { .. }) => error.to_string(),
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("the file was opened"),
    }
}

#[test]
fn table_to_which_all_users_have_access_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let [gate, limiter] = ["api.gate", "limiter"].map(|name| folder.path().join(name));
    drop(Gate::create(&gate, peppers(), &config(10)).unwrap());
    drop(Limiter::create(&limiter, &"5/minute".parse().unwrap(), 10).unwrap());
    assert!(Gate::open(&gate, peppers()).is_ok() && Limiter::open(&limiter).is_ok());
    for path in [&gate, &limiter] {
        admit_all_users(path);
    }
    let texts = [refusal(Gate::open(&gate, peppers())), refusal(Limiter::open(&limiter))];
    for (text, path) in texts.iter().zip([&gate, &limiter]) {
        let begins =
            format!("{}: Everyone has access to it, and this process runs", path.display());
        assert!(text.starts_with(&begins), "{text}");
        let fix =
            format!("; fix it with: icacls \"{}\" /inheritance:r /grant:r *S-1-", path.display());
        assert!(text.contains(&fix), "{text}");
    }
}

#[test]
fn pepper_file_is_accepted_until_others_have_access() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pepper");
    fs::write(&path, "5a".repeat(32)).unwrap();
    let read: Result<Peppers, Error> = pepper::read_file(&path);
    assert!(read.is_ok(), "{read:?}");
    admit_all_users(&path);
    assert!(refusal(pepper::read_file(&path)).contains("Everyone has access to it"));
    // What holds no pepper is reported without the command that changes the access to it.
    fs::write(&path, "not a pepper").unwrap();
    let error = pepper::read_file(&path).unwrap_err();
    assert!(matches!(error, Error::Pepper { .. }), "{error}");
    let error = pepper::read_file(folder.path()).unwrap_err();
    assert!(matches!(error, Error::NotAFile { .. }), "{error}");
}

#[test]
fn open_file_cannot_be_shortened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.gate");
    let gate = Gate::create(&path, peppers(), &config(10)).unwrap();
    let len = path.metadata().unwrap().len();
    let error = open_raw(&path).set_len(len - 64).unwrap_err();
    // ERROR_USER_MAPPED_FILE
    assert_eq!(error.raw_os_error(), Some(1224), "{error}");
    gate.issue(&new_key()).unwrap();
    drop(gate);
    open_raw(&path).set_len(len - 64).unwrap();
    let error = Gate::open(&path, peppers()).unwrap_err();
    assert!(matches!(error, Error::Attach { .. }), "{error}");
    assert_eq!(entries(folder.path()), 1);
}

#[test]
fn folder_is_not_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let error = Limiter::open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::NotAFile { found: "a directory", .. }), "{error}");
}
