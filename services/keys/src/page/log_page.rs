//! The screen *Log*: what was done, by whom, with filters and as CSV.

use askama::Template;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, stream};
use keytally::{KeyId, Timestamp};

use super::fields::Parameters;
use super::frame::{Frame, respond};
use super::key_list::{maker, names, query_text};
use super::me_page::browser;
use super::refusal::{Stop, sentence};
use super::visit::TeamVisit;
use super::words::Moment;
use crate::error::{Error, Result};
use crate::list::List;
use crate::log::{self, Entry, Filter};
use crate::time;

/// The entries of a page.
const PAGE_LEN: i64 = 50;

/// The entries of a file that are read at once.
const LINES_AT_ONCE: i64 = 1000;

/// An entry as a line.
#[derive(Clone, Debug)]
pub(super) struct LogLine {
    pub(super) seq: i64,
    pub(super) at: Moment,
    /// The name of the actor, and the actor as the log names it.
    pub(super) actor: String,
    pub(super) actor_query: String,
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
        actor_query: query_text(&[("actor", &actor)]),
        actor: maker(&actor, &names),
        address: entry.address.unwrap_or_default(),
        action: words(&entry.action),
        key_id: entry.key_id.unwrap_or_default(),
        detail: match &*entry.action {
            "session.begin" | "session.prove" => browser(&entry.detail),
            _ => entry.detail,
        },
    };
    Ok(entries.into_iter().zip(actors).map(line).collect())
}

/// The kinds of actions, each with its text and its actions.
const KINDS: &[(&str, &str, &[&str])] = &[
    (
        "key",
        "Keys",
        &["key.create", "key.import", "key.rotate", "key.end_grace", "key.edit", "key.revoke"],
    ),
    ("team", "Team", &["team.create", "team.rename", "team.set"]),
    ("member", "Members", &["member.set", "member.remove"]),
    ("link", "Links", &["link.create", "link.withdraw"]),
    ("session", "Sign-ins", &["session.begin", "session.prove", "session.end"]),
    ("passkey", "Passkeys", &["passkey.add", "passkey.remove"]),
    ("token", "Tokens", &["token.create", "token.revoke"]),
];

/// A kind of actions in the filter: its name, its text, and its actions with theirs.
type Kind = (&'static str, &'static str, Vec<(&'static str, String)>);

/// The screen.
#[derive(Template)]
#[template(path = "log.html")]
struct Screen {
    frame: Frame,
    kinds: Vec<Kind>,
    /// What was filled in.
    key: String,
    actor: String,
    what: String,
    from: String,
    to: String,
    /// Actors to choose from, each with a name.
    actors: Vec<(String, String)>,
    /// The filter in the address of the file.
    query: String,
    problem: Option<(&'static str, String)>,
    lines: Vec<LogLine>,
    next: Option<String>,
    is_first: bool,
}

impl Screen {
    fn wrong(&self, field: &str) -> bool {
        self.problem.as_ref().is_some_and(|(its, _)| *its == field)
    }
}

/// The names of the parameters that filter.
const FILTERS: [&str; 5] = ["key", "actor", "what", "from", "to"];

/// Returns the query of the address of a page or a file with the same filter.
fn query(parameters: &Parameters, before: Option<i64>) -> String {
    let values = FILTERS.map(|name| (name, text(parameters, name)));
    let before = before.map(|before| before.to_string()).unwrap_or_default();
    let mut pairs: Vec<_> = values.iter().map(|(name, value)| (*name, &**value)).collect();
    pairs.push(("before", &before));
    query_text(&pairs)
}

/// Returns what was filled in, of a sensible length.
fn text(parameters: &Parameters, name: &str) -> String {
    parameters.get(name).chars().take(64).collect()
}

/// Returns the beginning of a day in UTC; `None` for no day.
fn day(parameters: &Parameters, name: &'static str) -> Result<Option<Timestamp>> {
    match parameters.get(name) {
        "" => Ok(None),
        date => time::parse(name, &format!("{date}T00:00:00Z"))
            .map(Some)
            .map_err(|_| Error::invalid(name, "it must be a day, such as 2027-01-31")),
    }
}

/// Returns the filter that the parameters name.
async fn filter(team: &TeamVisit, parameters: &Parameters, limit: i64) -> Result<Filter> {
    let key_id =
        match parameters.get("key") {
            "" => None,
            key => Some(key.parse::<KeyId>().map_err(|_| {
                Error::invalid("key", "it is not a key id, which has 11 characters")
            })?),
        };
    let actor = match parameters.get("actor") {
        "" => None,
        actor => Some(team.visit.page.list().actor("actor", actor).await?),
    };
    let action = match parameters.get("what").trim_end_matches('.') {
        "" => String::new(),
        action => log::action("what", action)?,
    };
    let (from, to) = (day(parameters, "from")?, day(parameters, "to")?);
    // The last day is included.
    let to = to.map(|to| Timestamp::from_unix_s(to.unix_s().saturating_add(86_400)));
    if from.zip(to).is_some_and(|(from, to)| from >= to) {
        return Err(Error::invalid("to", "it must not be before the first day"));
    }
    let before = parameters.get("before").parse().ok();
    let team_id = Some(team.team_id);
    Ok(Filter { team_id, key_id, actor, action, from, to, before, limit })
}

/// Returns the actors that a team has now: members, tokens and operators.
async fn actors(team: &TeamVisit) -> Result<Vec<(String, String)>> {
    let list = team.visit.page.list();
    let mut actors: Vec<_> = list
        .members(team.team_id)
        .await?
        .into_iter()
        .map(|member| (format!("user {}", member.user), member.name))
        .collect();
    let tokens = list.tokens(Some(team.team_id)).await?.into_iter();
    actors.extend(tokens.map(|token| (format!("token {}", token.token), token.name)));
    actors.push(("operator".to_owned(), "operators of the service".to_owned()));
    Ok(actors)
}

/// Shows the log of the team.
pub(super) async fn show(team: TeamVisit, parameters: Parameters) -> Result<Response, Stop> {
    let visit = &team.visit;
    let list = visit.page.list();
    let (status, problem, mut entries, is_first) =
        match filter(&team, &parameters, PAGE_LEN + 1).await {
            Ok(filter) => (StatusCode::OK, None, list.log(&filter).await?, filter.before.is_none()),
            Err(Error::Invalid { field, reason }) => {
                (StatusCode::BAD_REQUEST, Some((field, sentence(&reason))), Vec::new(), true)
            }
            Err(error) => return Err(error.into()),
        };
    let has_more = entries.len() > usize::try_from(PAGE_LEN).unwrap_or(0);
    entries.truncate(usize::try_from(PAGE_LEN).unwrap_or(0));
    let next = entries
        .last()
        .filter(|_| has_more)
        .map(|entry| visit.at(&format!("/log?{}", query(&parameters, Some(entry.seq)))));
    let kind = |&(kind, name, actions): &(&'static str, &'static str, &'static [&'static str])| {
        (kind, name, actions.iter().map(|&action| (action, words(action))).collect())
    };
    let screen = Screen {
        frame: Frame::new(visit, "log", "Log"),
        kinds: KINDS.iter().map(kind).collect(),
        key: text(&parameters, "key"),
        actor: text(&parameters, "actor"),
        what: text(&parameters, "what").trim_end_matches('.').to_owned(),
        from: text(&parameters, "from"),
        to: text(&parameters, "to"),
        actors: actors(&team).await?,
        query: query(&parameters, None),
        problem,
        lines: log_lines(list, entries).await?,
        next,
        is_first,
    };
    Ok(respond(status, &screen)?)
}

/// Returns the log of the team as a file with all entries of the filter.
pub(super) async fn csv(team: TeamVisit, parameters: Parameters) -> Result<Response, Stop> {
    let filter = filter(&team, &parameters, LINES_AT_ONCE).await?;
    let list = team.visit.page.list().clone();
    let head = Bytes::from_static(b"number,time,actor,address,action,key,detail\r\n");
    let lines = stream::try_unfold(Some(filter), move |filter| {
        let list = list.clone();
        async move {
            let Some(filter) = filter else { return Ok(None) };
            let entries = list.log(&filter).await?;
            let next = entries.last().map(|last| Filter { before: Some(last.seq), ..filter });
            let lines = log_lines(&list, entries).await?;
            Ok::<_, Error>(next.map(|next| (Bytes::from(csv_lines(lines)), Some(next))))
        }
    });
    let fields = [
        (CONTENT_TYPE, "text/csv; charset=utf-8"),
        (CONTENT_DISPOSITION, "attachment; filename=\"keys-log.csv\""),
    ];
    let body = Body::from_stream(stream::once(async { Ok(head) }).chain(lines));
    Ok((fields, body).into_response())
}

/// Returns lines of a CSV file.
fn csv_lines(lines: Vec<LogLine>) -> String {
    let mut text = String::new();
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
    text
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
