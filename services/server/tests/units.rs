//! The units of systemd in `packaging`: systemd and the program accept them.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The program's path in the units.
const PROGRAM: &str = "/usr/bin/keytally";

#[test]
fn systemd_and_the_program_accept_the_units() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/systemd");
    let program = env!("CARGO_BIN_EXE_keytally");
    let copies = tempfile::tempdir().unwrap();
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--recursive-errors=yes"]);
    let mut commands = 0;
    for unit in fs::read_dir(folder).unwrap() {
        let unit = unit.unwrap();
        let text = fs::read_to_string(unit.path()).unwrap().replace("\\\n", "");
        let commands_of = text.lines().filter_map(|line| line.strip_prefix("ExecStart="));
        // An empty command replaces that of the unit.
        for command in commands_of.filter(|command| !command.is_empty()) {
            let mut words = command.split_whitespace();
            assert_eq!(words.next(), Some(PROGRAM), "{command}");
            // The options before it are parsed too.
            let output = Command::new(program).args(words).arg("--help").output().unwrap();
            assert!(output.status.success(), "{command}: {output:?}");
            commands += 1;
        }
        let text = text.replace(PROGRAM, program);
        if unit.path().extension().is_some_and(|kind| kind == "conf") {
            let drop_ins = copies.path().join("keytally.service.d");
            fs::create_dir(&drop_ins).unwrap();
            fs::write(drop_ins.join(unit.file_name()), text).unwrap();
            continue;
        }
        let copy = copies.path().join(unit.file_name());
        fs::write(&copy, text).unwrap();
        verify.arg(copy);
    }
    assert!(commands > 0);
    let output = verify.output().expect("cannot run systemd-analyze");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}
