//! The screen *Log*: what was done, by whom, with filters and as CSV.

use askama::Template;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use keytally::KeyId;

use super::fields::Parameters;
use super::frame::{Frame, show as respond};
use super::key_list::{maker, names, query_text};
use super::refusal::Stop;
use super::visit::TeamVisit;
use super::words::Moment;
use crate::error::Result;
use crate::list::List;
use crate::log::{Entry, Filter};
use crate::time;

/// The entries of a page.
const PAGE_LEN: i64 = 50;

/// The most entries of a file.
const MOST_LINES: i64 = 10_000;

/// An entry as a line.
#[derive(Clone, Debug)]
pub(super) struct LogLine {
    pub(super) seq: i64,
    pub(super) at: Moment,
    pub(super) actor: String,
    pub(super) address: String,
    pub(super) action: String,
    pub(super) key_id: String,
    pub(super) detail: String,
}

/// Returns an action in words.
fn words(action: &str) -> String {
    let text = match action {
        "key.create" => "created the key",
        "key.import" => "imported the key",
        "key.rotate" => "rotated the key",
        "key.end_grace" => "ended the old secret",
        "key.edit" => "changed the key",
        "key.revoke" => "revoked the key",
        "team.create" => "made the team",
        "team.set" => "changed the rules of the team",
        "team.rename" => "renamed the team",
        "member.set" => "set a member's role",
        "member.remove" => "removed a member",
        "link.create" => "made a link",
        "link.withdraw" => "withdrew a link",
        "session.begin" => "signed in",
        "session.prove" => "confirmed a sign-in",
        "session.end" => "signed out",
        "passkey.add" => "added a passkey",
        "passkey.remove" => "removed a passkey",
        "token.create" => "made a token",
        "token.revoke" => "revoked a token",
        other => other,
    };
    text.to_owned()
}

/// Returns entries as lines, with the names of users.
pub(super) async fn log_lines(list: &List, entries: Vec<Entry>) -> Result<Vec<LogLine>> {
    let actor = |entry: &Entry| match entry.actor.as_str() {
        "" => entry.actor_kind.clone(),
        name => format!("{} {name}", entry.actor_kind),
    };
    let actors: Vec<_> = entries.iter().map(actor).collect();
    let names = names(list, &actors).await?;
    let line = |(entry, actor): (Entry, String)| LogLine {
        seq: entry.seq,
        at: Moment(time::parse("at", &entry.at).map_or(0, time::stored)),
        actor: maker(&actor, &names),
        address: entry.address.unwrap_or_default(),
        action: words(&entry.action),
        key_id: entry.key_id.unwrap_or_default(),
        detail: entry.detail,
    };
    Ok(entries.into_iter().zip(actors).map(line).collect())
}

/// The kinds of actions: the beginning of their names, and the text.
const KINDS: [(&str, &str); 7] = [
    ("key.", "Keys"),
    ("team.", "Team"),
    ("member.", "Members"),
    ("link.", "Links"),
    ("session.", "Sign-ins"),
    ("passkey.", "Passkeys"),
    ("token.", "Tokens"),
];

/// The screen.
#[derive(Template)]
#[template(path = "log.html")]
struct Screen {
    frame: Frame,
    kind: &'static str,
    kinds: [(&'static str, &'static str); 7],
    key: String,
    /// The key in the address of the file.
    key_query: String,
    problem: &'static str,
    lines: Vec<LogLine>,
    next: Option<String>,
    is_first: bool,
}

/// Returns the kind of actions that the parameters name; empty for all.
fn kind(parameters: &Parameters) -> &'static str {
    let chosen = KINDS.iter().find(|(kind, _)| *kind == parameters.get("what"));
    chosen.map_or("", |(kind, _)| kind)
}

fn filter(team: &TeamVisit, parameters: &Parameters, limit: i64) -> (Filter, &'static str) {
    let key = parameters.get("key");
    let key_id = key.parse::<KeyId>().ok();
    let problem = match key {
        "" => "",
        _ if key_id.is_some() => "",
        _ => "This is not a key id, which has 11 characters. All entries are shown.",
    };
    let before = parameters.get("before").parse().ok();
    (Filter { team_id: Some(team.team_id), key_id, before, limit }, problem)
}

/// Shows the log of the team.
pub(super) async fn show(team: TeamVisit, parameters: Parameters) -> Result<Response, Stop> {
    let visit = &team.visit;
    let (filter, problem) = filter(&team, &parameters, PAGE_LEN + 1);
    let kind = kind(&parameters);
    let mut entries = visit.page.list().log_of(&filter, kind).await?;
    let has_more = entries.len() > usize::try_from(PAGE_LEN).unwrap_or(0);
    entries.truncate(usize::try_from(PAGE_LEN).unwrap_or(0));
    let key = parameters.get("key").chars().take(64).collect::<String>();
    let next = entries.last().filter(|_| has_more).map(|entry| {
        let before = entry.seq.to_string();
        visit.at(&format!(
            "/log?{}",
            query_text(&[("key", &key), ("what", kind), ("before", &before)])
        ))
    });
    Ok(respond(&Screen {
        frame: Frame::new(visit, "log", "Log"),
        key_query: query_text(&[("key", &key), ("what", kind)]),
        kind,
        kinds: KINDS,
        key,
        problem,
        lines: log_lines(visit.page.list(), entries).await?,
        next,
        is_first: filter.before.is_none(),
    })?)
}

/// Returns the log of the team as a file.
pub(super) async fn csv(team: TeamVisit, parameters: Parameters) -> Result<Response, Stop> {
    let (filter, _) = filter(&team, &parameters, MOST_LINES);
    let list = team.visit.page.list();
    let lines = log_lines(list, list.log_of(&filter, kind(&parameters)).await?).await?;
    let mut text = String::from("number,time,actor,address,action,key,detail\r\n");
    for line in lines {
        let cells = [
            line.seq.to_string(),
            line.at.rfc3339(),
            line.actor,
            line.address,
            line.action,
            line.key_id,
            line.detail,
        ];
        text.push_str(&cells.map(|cell| quoted(&cell)).join(","));
        text.push_str("\r\n");
    }
    let fields = [
        (CONTENT_TYPE, "text/csv; charset=utf-8"),
        (CONTENT_DISPOSITION, "attachment; filename=\"keys-log.csv\""),
    ];
    Ok((fields, text).into_response())
}

/// Returns a cell of a CSV file. A program for tables must not take it for a formula.
fn quoted(cell: &str) -> String {
    let is_formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let mark = if is_formula { "'" } else { "" };
    format!("\"{mark}{}\"", cell.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cell_is_neither_a_formula_nor_two_cells() {
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(quoted("=1+1"), "\"'=1+1\"");
    }
}
