//! The shell commands of the tutorial, the how-to pages and the migrations in `docs/`, run
//! unchanged, with the outputs that the pages show.
//!
//! The blocks of a page are one script. A block `sh` is run, `sh,background` is a server that runs
//! until the page ends, and `sh,no_run` is left out. A block `text` is the output of the block
//! before it, in which `…` stands for any text. A block after a line with a file name in backquotes
//! and a colon is saved as that file. The port 8000 is replaced by a free one.
//!
//! `py/tests/test_documentation.py` does the same for the pages whose commands call Python.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use core::fmt::Write as _;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "support/ports.rs"]
mod ports;

use ports::free_port;

/// The program of the tutorial.
#[expect(clippy::std_instead_of_alloc, reason = "a program of users, who write std")]
mod contacts {
    include!("programs/contacts.rs");

    pub(super) fn run() {
        main().unwrap();
    }
}

/// The text between the outputs of two blocks.
const MARK: &str = "\n@@\n";

/// Sets up a gate and a key for a page that does not create them.
const GATE: &str = "\
export KEYTALLY_PEPPER=5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a
keytally create api.gate --keys 100 > /dev/null
keytally issue api.gate --account 42 > key 2> /dev/null
";

/// The command of a page that serves the gate of [`GATE`].
const SERVES_THE_GATE: &str = "keytally serve --data . ";

/// Serves the list of keys of that gate for a moment, so that it has a gate of tokens with a token.
const LIST: &str = "\
keytally serve --data . --listen 127.0.0.1:8000 > /dev/null &
for _ in {1..400}; do curl -s -o /dev/null 127.0.0.1:8000 && break; sleep 0.05; done
keytally keys token create shell --data . > token
kill $! && wait $!
";

/// A fenced code block.
#[derive(Debug)]
struct Block<'p> {
    info: &'p str,
    /// The last line of text before it.
    before: &'p str,
    code: String,
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let (mut open, mut before): (Option<(usize, Block<'_>)>, &str) = (None, "");
    for line in page.lines() {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(info)) => {
                let indent = line.len() - line.trim_start().len();
                open = Some((indent, Block { info, before, code: String::new() }));
            }
            (Some(_), Some(_)) => blocks.extend(open.take().map(|(_, block)| block)),
            (Some((indent, block)), None) => {
                block.code += line.get(*indent..).unwrap_or_default();
                block.code += "\n";
            }
            (None, None) if !line.trim().is_empty() => before = line,
            (None, None) => {}
        }
    }
    blocks
}

/// Returns the Markdown pages in a folder and its subfolders.
fn pages(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let pages = entries.flat_map(|path| if path.is_dir() { pages(&path) } else { vec![path] });
    pages.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

/// Returns whether a line is the expected one, in which `…` stands for any text.
fn matches(line: &str, expected: &str) -> bool {
    let mut parts = expected.split('…');
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    for part in parts.by_ref() {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty() || expected.ends_with('…')
}

/// Runs the blocks of a page, and compares their outputs. Returns the number of blocks.
fn run(page: &Path) -> usize {
    let text = fs::read_to_string(page).unwrap();
    let port = free_port().to_string();
    // At the end, all processes of the group are ended. The test runs the program of the tutorial.
    let mut script = String::from(
        "exec 2>&1\ntrap 'code=$?; trap \"\" TERM; kill 0; exit $code' EXIT\n\
         cargo() { exec \"$BOOK_TEST\" --ignored --exact program_of_the_tutorial --nocapture; }\n",
    );
    let is_set_up = |block: &Block<'_>| {
        let calls = ["keytally create api.gate", "keytally serve"];
        ["sh", "sh,background"].contains(&block.info)
            && calls.iter().any(|call| block.code.contains(call))
            && !block.code.contains(SERVES_THE_GATE)
    };
    if !blocks(&text).iter().any(is_set_up) {
        script += GATE;
    }
    if text.contains(SERVES_THE_GATE) {
        script += &LIST.replace("8000", &port);
    }
    let mut outputs: Vec<Option<String>> = Vec::new();
    for Block { info, before, code } in blocks(&text) {
        let code = code.replace("8000", &port);
        let file = before.strip_prefix('`').and_then(|rest| rest.strip_suffix("`:"));
        match (info, file) {
            ("sh", _) => {
                writeln!(script, "{code}printf '{MARK}'").unwrap();
                outputs.push(None);
            }
            ("sh,background", _) => {
                writeln!(
                    script,
                    "( {code} ) > log 2>&1 &\nfor _ in {{1..400}}; do \
                     curl -s -o /dev/null 127.0.0.1:{port} && break; sleep 0.05; done"
                )
                .unwrap();
            }
            ("text", _) => {
                if let Some(output @ None) = outputs.last_mut() {
                    *output = Some(code);
                }
            }
            (_, Some(file)) => {
                writeln!(script, "mkdir -p $(dirname {file}); cat > {file} <<'@@@'\n{code}@@@")
                    .unwrap();
            }
            _ => {}
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let mut path = Path::new(env!("CARGO_BIN_EXE_keytally")).parent().unwrap().to_owned();
    if let Some(node) = std::env::var_os("KEYTALLY_TEST_NODE") {
        path.as_mut_os_string().push(":");
        path.as_mut_os_string().push(Path::new(&node).parent().unwrap());
    }
    path.as_mut_os_string().push(":");
    path.as_mut_os_string().push(std::env::var_os("PATH").unwrap());
    let mut bash = Command::new("bash");
    bash.args(["-ec", &script]).current_dir(&folder).process_group(0).env("PATH", path);
    bash.env("BOOK_TEST", std::env::current_exe().unwrap());
    bash.env_remove("KEYTALLY_PEPPER").env_remove("KEYTALLY_PEPPER_FILE");
    let output = bash.output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap().replace('\r', "");
    let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    assert!(output.status.success(), "{}: {shown}{log}", page.display());
    let mut actual = shown.split(MARK);
    for expected in &outputs {
        let actual = actual.next().unwrap().trim_end();
        let Some(expected) = expected else { continue };
        let equal = actual.lines().count() == expected.lines().count()
            && actual.lines().zip(expected.lines()).all(|(line, shown)| matches(line, shown));
        assert!(equal, "{}: expected\n{expected}\nbut it was\n{actual}\n{log}", page.display());
    }
    outputs.len()
}

/// Waits until the hour has at least half a minute left, so that no count of an hour is reset.
fn avoid_end_of_hour() {
    while keytally::now().unix_s() % 3600 > 3570 {
        std::thread::sleep(core::time::Duration::from_secs(1));
    }
}

#[test]
fn commands_of_the_book_run_and_print_what_pages_show() {
    avoid_end_of_hour();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let mut total = 0;
    // The pages of other folders are references, and their commands need a clone or a system.
    for page in
        ["tutorial", "how-to", "migrate"].iter().flat_map(|folder| pages(&docs.join(folder)))
    {
        let text = fs::read_to_string(&page).unwrap();
        let commands: Vec<Block<'_>> =
            blocks(&text).into_iter().filter(|block| block.info.starts_with("sh")).collect();
        let is_pages_own = |block: &Block<'_>| block.info != "sh,no_run";
        let calls_python = commands.iter().any(|block| block.code.contains("python"));
        if commands.iter().any(is_pages_own) && (!calls_python || page.ends_with("install.md")) {
            total += run(&page);
        }
    }
    assert!(total >= 20, "{total}");
}

#[test]
fn program_of_the_tutorial_is_the_tested_one() {
    let page = include_str!("../../../docs/tutorial/rust.md");
    let program = blocks(page).into_iter().find(|block| block.before == "`src/main.rs`:").unwrap();
    assert!(include_str!("programs/contacts.rs").ends_with(&program.code));
}

#[test]
#[ignore = "a server, which runs until it is killed"]
fn program_of_the_tutorial() {
    contacts::run();
}

#[test]
fn reference_lists_every_metric_and_every_command() {
    let metrics = include_str!("../../../docs/reference/metrics.md");
    let of = |source: &'static str| -> Vec<&str> {
        let names = source.split("\"keytally_").skip(1);
        names.filter_map(|rest| rest.split('"').next()).collect()
    };
    let of_agents = of(include_str!("../src/fleet/metrics.rs"));
    for names in [&of(include_str!("../src/service/metrics.rs")), &of_agents] {
        for name in names {
            assert!(metrics.contains(&format!("| `keytally_{name}` |")), "keytally_{name}");
        }
        assert!(names.len() > 10);
    }
    let guide = include_str!("../../../docs/how-to/share-limits.md");
    let rules = include_str!("../../../packaging/prometheus/keytally-fleet.rules.yml");
    for named in [guide, rules].into_iter().flat_map(|text| text.split("keytally_").skip(1)) {
        let end = named.find(|letter: char| !letter.is_ascii_lowercase() && letter != '_');
        let name = &named[..end.unwrap_or(named.len())];
        assert!(name == "gate" || of_agents.contains(&name), "{name} is not a metric");
    }

    let commands = include_str!("../../../docs/reference/cli.md");
    let help = Command::new(env!("CARGO_BIN_EXE_keytally")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let listed = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    // The descriptions of long commands continue in indented lines.
    let names = listed.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let names: Vec<&str> = names.filter(|name| !["", "help"].contains(name)).collect();
    for name in &names {
        assert!(commands.contains(&format!("| `{name}")), "{name}");
    }
    assert!(names.len() > 10);
}
