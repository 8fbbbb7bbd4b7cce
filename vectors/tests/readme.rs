//! README.md and other pages: their code, transcripts and links are right.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use keytally_core::{Limiter, Line, Policy, Timestamp};

const README: &str = include_str!("../../README.md");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The content of each fenced block of that language.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    README.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

fn example(name: &str) -> String {
    fs::read_to_string(root().join("examples").join(name)).unwrap()
}

#[test]
fn each_block_is_tested() {
    let fences: Vec<&str> =
        README.lines().filter(|line| line.starts_with("```") && line.len() > 3).collect();
    assert!(README.lines().count() <= 180);
    // The shell's are the two commands, the installation and the quick start, which the service's tests run.
    assert_eq!(fences, ["```sh", "```text", "```sh", "```sh", "```rust,no_run"]);
    assert!(example("gate.rs").ends_with(blocks("rust,no_run")[0]), "examples/gate.rs");
    let shell = blocks("sh");
    let config = fs::read_to_string(root().join(".cargo/config.toml")).unwrap();
    for command in shell[0].lines() {
        let alias = command.split(' ').nth(1).unwrap();
        assert!(config.contains(&format!("\n{alias} = ")), "{command}");
    }
    for part in ["cli/Cargo.toml", "py/pyproject.toml"] {
        assert!(root().join(part).exists() && shell[1].contains(part.split('/').next().unwrap()));
    }
}

#[test]
fn each_call_stands_in_its_program() {
    let rows: Vec<&str> = README.lines().filter(|line| line.contains("](examples/")).collect();
    let rows = rows.iter().filter(|line| line.starts_with("| ") && line.contains(" | `"));
    let calls = rows.map(|row| {
        let call = row.split('`').nth(1).unwrap();
        let program = row.split("](examples/").nth(1).unwrap().split(')').next().unwrap();
        assert!(example(program).lines().any(|line| line.trim() == call), "{program}: {call}");
    });
    assert_eq!(calls.count(), 4);
}

#[test]
fn transcript_is_what_the_core_answers() {
    let answers: Vec<&str> = blocks("text")[0].split("HTTP/1.1 ").skip(1).collect();
    let field = |name: &str| -> u64 {
        let rest = answers[0].split(name).nth(1).unwrap();
        rest.split(|byte: char| !byte.is_ascii_digit()).next().unwrap().parse().unwrap()
    };
    let now = Timestamp::from_unix_s(field("X-RateLimit-Reset: ") - field("\"hour\";r=999;t="));
    let memory: Vec<Line> = (0..Limiter::<Vec<Line>>::lines(1)).map(|_| Line::new()).collect();
    let policy: Policy = "100/minute, 1000/hour".parse().unwrap();
    let limiter = Limiter::create(memory, &policy, 1, [7; 16]).unwrap();
    let verdicts: Vec<_> = (0..101).map(|_| limiter.check(b"a client", 1, now)).collect();
    for (answer, verdict) in answers.iter().zip([&verdicts[0], &verdicts[100]]) {
        let (head, body) = answer.trim_end().split_once("\n\n").unwrap_or((answer.trim_end(), ""));
        let mut lines = head.lines();
        assert!(lines.next().unwrap().starts_with(&verdict.http_status().to_string()));
        let headers = verdict.headers();
        assert_eq!(
            lines.collect::<Vec<_>>(),
            headers.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>()
        );
        assert_eq!(body, verdict.body());
    }
    assert!(verdicts[99].is_admitted());
}

#[test]
fn change_of_a_first_contribution_applies() {
    let page = fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let (before, after) = page.split("sed -i 's/").nth(1).unwrap().split_once("/' ").unwrap();
    let (from, to) = before.split_once('/').unwrap();
    let file = after.lines().next().unwrap();
    let source = fs::read_to_string(root().join(file)).unwrap();
    assert_eq!(source.matches(from).count(), 1, "{file} lacks {from}");
    assert!(from != to && page.contains(&format!("git checkout {file}")));
}

/// The Markdown pages of the project.
fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let name = entry.file_name().into_string().unwrap_or_default();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            pages(&path, found);
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = kept.chars().filter(|&c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_of_all_pages_lead_to_files_and_headings() {
    let mut found = Vec::new();
    pages(root(), &mut found);
    let mut links = 0;
    for page in found {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.starts_with("mailto:") || link.contains([' ', '`']) {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link}", page.display());
            if !heading.is_empty() {
                // The page of a folder is its README.
                let target = if target.is_dir() { target.join("README.md") } else { target };
                let target = fs::read_to_string(target).unwrap();
                let mut headings = target.lines().filter(|line| line.starts_with('#'));
                assert!(headings.any(|line| anchor(line) == heading), "{}: {link}", page.display());
            }
            links += 1;
        }
    }
    assert!(links > 50, "{links}");
}

#[test]
fn files_named_in_pages_exist() {
    for page in ["ARCHITECTURE.md", "CONTRIBUTING.md", "LIMITS.md", "SAFETY.md", "SECURITY.md"] {
        let text = fs::read_to_string(root().join(page)).unwrap();
        let named = text.split('`').skip(1).step_by(2).filter(|quoted| {
            let ending = quoted.rsplit('.').next().unwrap();
            quoted.contains('/')
                && !quoted.contains(' ')
                && ["rs", "py", "md", "c", "h"].contains(&ending)
        });
        for file in named {
            assert!(root().join(file).exists(), "{page} names {file}");
        }
    }
}
