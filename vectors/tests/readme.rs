//! Tests the code, transcripts, file names and links of README.md and other pages.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use keytally_core::{CacheLine, Limiter, Policy, Timestamp};

const README: &str = include_str!("../../README.md");

/// Returns the folder of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Returns the content of each fenced code block of a language in README.md.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    README.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// Returns the text of a file in the folder examples.
fn example(name: &str) -> String {
    fs::read_to_string(root().join("examples").join(name)).unwrap()
}

#[test]
fn each_code_block_is_tested() {
    let fences: Vec<&str> =
        README.lines().filter(|line| line.starts_with("```") && line.len() > 3).collect();
    assert!(README.lines().count() <= 180);
    // The blocks of shell commands: the two aliases, the installation, and the quick start, which a
    // test of the service runs.
    assert_eq!(fences, ["```sh", "```text", "```sh", "```sh", "```rust,no_run"]);
    assert!(example("gate.rs").ends_with(blocks("rust,no_run")[0]), "examples/gate.rs");
    let shell = blocks("sh");
    let config = fs::read_to_string(root().join(".cargo/config.toml")).unwrap();
    for command in shell[0].lines() {
        let alias = command.split(' ').nth(1).unwrap();
        assert!(config.contains(&format!("\n{alias} = ")), "{command}");
    }
    for manifest in ["cli/Cargo.toml", "py/pyproject.toml"] {
        let folder = manifest.split('/').next().unwrap();
        assert!(root().join(manifest).exists() && shell[1].contains(folder), "{manifest}");
    }
}

#[test]
fn each_call_in_the_table_is_in_its_example() {
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
fn transcript_matches_the_core() {
    let responses: Vec<&str> = blocks("text")[0].split("HTTP/1.1 ").skip(1).collect();
    let field = |name: &str| -> u64 {
        let rest = responses[0].split(name).nth(1).unwrap();
        rest.split(|byte: char| !byte.is_ascii_digit()).next().unwrap().parse().unwrap()
    };
    // The time of the first response: its reset minus the seconds to the reset.
    let now = Timestamp::from_unix_s(field("X-RateLimit-Reset: ") - field("\"hour\";r=999;t="));
    let memory: Vec<CacheLine> =
        (0..Limiter::<Vec<CacheLine>>::lines(1)).map(|_| CacheLine::new()).collect();
    let policy: Policy = "100/minute, 1000/hour".parse().unwrap();
    let limiter = Limiter::init(memory, &policy, 1, [7; 16]).unwrap();
    let verdicts: Vec<_> = (0..101).map(|_| limiter.check(b"a client", 1, now)).collect();
    for (response, verdict) in responses.iter().zip([&verdicts[0], &verdicts[100]]) {
        let (head, body) =
            response.trim_end().split_once("\n\n").unwrap_or((response.trim_end(), ""));
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
fn sed_command_of_the_contribution_page_applies() {
    let page = fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let (substitution, rest) = page.split("sed -i 's/").nth(1).unwrap().split_once("/' ").unwrap();
    let (from, to) = substitution.split_once('/').unwrap();
    let file = rest.lines().next().unwrap();
    let source = fs::read_to_string(root().join(file)).unwrap();
    assert_eq!(source.matches(from).count(), 1, "{file} must have {from} once");
    assert!(from != to && page.contains(&format!("git checkout {file}")));
}

/// Adds the Markdown pages in a folder and its subfolders to a list. Symbolic links are left out:
/// the links on a page are relative to the page's own folder.
fn find_pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let name = entry.file_name().into_string().unwrap_or_default();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            find_pages(&path, found);
        } else if name.ends_with(".md") && !path.is_symlink() {
            found.push(path);
        }
    }
}

/// Returns the anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = kept.chars().filter(|&c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_of_all_pages_lead_to_files_and_headings() {
    let mut found = Vec::new();
    find_pages(root(), &mut found);
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
                // GitHub shows the README.md of a folder.
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

/// Returns the pages of the book, with their paths relative to `docs/`.
fn book() -> Vec<(String, String)> {
    let docs = root().join("docs");
    let mut found = Vec::new();
    find_pages(&docs, &mut found);
    let relative = |page: &PathBuf| page.strip_prefix(&docs).unwrap().to_str().unwrap().to_owned();
    found.iter().map(|page| (relative(page), fs::read_to_string(page).unwrap())).collect()
}

#[test]
fn rust_code_of_each_page_of_the_book_is_tested() {
    let tested = include_str!("../src/book.rs");
    // The pages in the folder itself show lines of sources, not programs.
    let has_code =
        |(page, text): &(String, String)| page.contains('/') && text.contains("```rust\n");
    let with_code: Vec<_> = book().into_iter().filter(has_code).collect();
    for (page, _) in &with_code {
        assert!(tested.contains(&format!("\"{page}\"")), "vectors/src/book.rs lacks {page}");
    }
    assert!(with_code.len() > 5);
}

#[test]
fn each_page_of_the_book_is_in_its_summary() {
    let summary = include_str!("../../docs/SUMMARY.md");
    for (page, _) in book() {
        let is_listed = summary.contains(&format!("]({page})"));
        assert!(is_listed || page == "SUMMARY.md", "SUMMARY.md lacks {page}");
    }
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
