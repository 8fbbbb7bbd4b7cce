//! `examples/fleet.sh`: two gates share one limit through a real server of Redis or Valkey.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use core::time::Duration;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;

const EXAMPLE: &str = include_str!("../../../examples/fleet.sh");

/// Returns the output that the head of the example shows.
fn documented_output() -> String {
    let shown = EXAMPLE.split("# It prints:\n#\n").nth(1).unwrap();
    let lines = shown.lines().map_while(|line| line.strip_prefix("#   "));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn example_of_a_fleet_admits_one_limit_on_two_machines() {
    // The limit is one of a day.
    while keytally::now().unix_s() % 86_400 > 86_340 {
        sleep(Duration::from_secs(1));
    }
    let mut path = Path::new(env!("CARGO_BIN_EXE_keytally")).parent().unwrap().to_owned();
    path.as_mut_os_string().push(":");
    path.as_mut_os_string().push(std::env::var_os("PATH").unwrap());
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/fleet.sh");
    let server = std::env::var_os("KEYTALLY_TEST_REDIS").unwrap_or_else(|| "redis-server".into());
    let folder = tempfile::tempdir().unwrap();
    let mut sh = Command::new("sh");
    sh.arg(example).arg(server).env("PATH", path).env("TMPDIR", folder.path());
    sh.env_remove("KEYTALLY_PEPPER_FILE");
    let output = sh.output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!((shown, output.status.success()), (documented_output(), true), "{errors}");
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "the example removes its folder");
}
