//! The quick start of the README, run unchanged.

use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn quick_start_of_the_readme_runs_unchanged() {
    let readme =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md")).unwrap();
    let section = readme.split("\n## Quick start\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let blocks = section.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let script = blocks.filter(|block| block.contains("keytally create")).last().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_keytally"));
    let path =
        format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut bash = Command::new("bash");
    bash.current_dir(folder.path()).env("PATH", path);
    bash.env_remove("KEYTALLY_PEPPER").env_remove("KEYTALLY_PEPPER_FILE");
    let output = bash.args(["-ec", script]).output().unwrap();
    let (out, err) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{out}{err}");
    let key = fs::read_to_string(folder.path().join("key")).unwrap();
    assert!(key.starts_with("kt_live_") && key.lines().count() == 1, "{out}{err}");
    let admitted = out.matches("admitted: key ").count();
    // The script makes requests until one is denied, at 3 per minute. If a minute ends meanwhile,
    // up to 3 more are admitted.
    assert!((3..=6).contains(&admitted) && out.matches("denied: key ").count() == 1, "{out}{err}");
}
