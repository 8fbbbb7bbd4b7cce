//! The screen *Log*: what was done, by whom, with filters and as CSV.

use alloc::collections::{BTreeMap, BTreeSet};

use askama::Template;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Redirect, Response};
use futures_util::{StreamExt as _, stream};
use keytally::redact::redact;
use keytally::{KeyId, Timestamp};
use sqlx::Row as _;

use super::fields::{Fields, Parameters};
use super::frame::{Frame, respond};
use super::key_list::{THE_SERVICE, actor_in_words, names, query_text};
use super::problems::{FormField, Problems};
use super::refusal::Stop;
use super::visit::{TeamVisit, Visit};
use super::words::{Moment, browser};
use crate::change::EXPIRES_AT;
use crate::error::{Error, Result};
use crate::keys::KeyFilter;
use crate::list::List;
use crate::log::{self, ActorFilter, Entry, Filter, MOST_SEVERAL};
use crate::{ids, time};

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
    /// The present name of the key; empty if the list does not have it.
    pub(super) key_name: String,
    pub(super) detail: String,
    /// A time at the end of the details.
    pub(super) detail_at: Option<Moment>,
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
        "key.reconcile" => "matched the list with the gate",
        "team.create" => "made the team",
        "team.set" => "changed the rules of the team",
        "team.rename" => "renamed the team",
        "team.delete" => "deleted the team",
        "member.set" => "set a member's role",
        "member.remove" => "removed a member",
        "link.create" => "made a link",
        "link.withdraw" => "withdrew a link",
        "session.begin" => "signed in",
        "session.prove" => "confirmed a sign-in",
        "session.fail" => "failed to sign in",
        "session.fail_proof" => "failed to confirm a sign-in",
        "session.end" => "ended a session",
        "passkey.add" => "added a passkey",
        "passkey.rename" => "renamed a passkey",
        "passkey.remove" => "removed a passkey",
        "token.create" => "made a token",
        "token.revoke" => "revoked a token",
        other => other,
    };
    text.to_owned()
}

/// Returns the user or the token that an entry is about, as the log names actors.
fn subject(entry: &Entry) -> Option<String> {
    let mut words = entry.detail.split(' ');
    match (&*entry.action, words.next()?, words.next()) {
        ("member.set" | "member.remove" | "link.create", "user", Some(number)) => {
            Some(format!("user {number}"))
        }
        ("token.create" | "token.revoke", id, _) => Some(format!("token {id}")),
        _ => None,
    }
}

/// Returns the details of an entry in words, with the name of the user or the token that it is
/// about.
fn detail(entry: Entry, names: &BTreeMap<String, String>) -> String {
    let action = &*entry.action;
    match action {
        "session.end" if entry.detail.is_empty() => return String::new(),
        "session.end" => return format!("another session: {}", browser(&entry.detail)),
        "session.begin" | "session.prove" => return browser(&entry.detail),
        "session.fail" | "session.fail_proof" => {
            let (reason, agent) = entry.detail.split_once("; ").unwrap_or((&entry.detail, ""));
            return format!("{reason}; {}", browser(agent));
        }
        _ => {}
    }
    let Some(subject) = subject(&entry) else { return entry.detail };
    let len =
        if action.starts_with("token.") { subject.len() - "token ".len() } else { subject.len() };
    let rest = entry.detail.get(len..).unwrap_or_default();
    let rest = match action {
        "member.set" => rest.replacen(" is ", " has the role ", 1),
        _ => rest.to_owned(),
    };
    let name = names.get(&subject).map_or(&*subject, |name| name);
    let name = name.strip_prefix("token ").unwrap_or(name);
    format!("{}{name}{rest}", if action == "link.create" { "for " } else { "" })
}

/// Takes the time off the end of the details of a changed key, if they name a new expiry.
fn take_end(entry: &mut Entry) -> Option<Moment> {
    if entry.action != "key.edit" {
        return None;
    }
    let at = entry.detail.rfind(EXPIRES_AT)? + EXPIRES_AT.len();
    let end = time::parse("detail", entry.detail.get(at..)?).ok()?;
    entry.detail.truncate(at);
    Some(Moment(time::stored(end)))
}

/// The keys whose names are read at once.
const NAMES_AT_ONCE: usize = 50;

/// Returns the names of keys.
async fn key_names(
    list: &List,
    ids: impl IntoIterator<Item = KeyId>,
) -> Result<BTreeMap<String, String>> {
    let ids: Vec<_> = ids.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    let mut names = BTreeMap::new();
    for part in ids.chunks(NAMES_AT_ONCE) {
        // One text for any number of keys: no key has the number 0.
        let mut query = sqlx::query(
            "select key_id, name from \"key\" where key_id in ($1, $2, $3, $4, $5, $6, $7, $8, $9, \
             $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, \
             $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39, $40, $41, $42, $43, \
             $44, $45, $46, $47, $48, $49, $50)",
        );
        for index in 0..NAMES_AT_ONCE {
            query = query.bind(part.get(index).map_or(0, |&key_id| ids::stored(key_id)));
        }
        for row in query.fetch_all(&mut *list.read().await?).await? {
            names.insert(ids::shown(row.try_get(0)?), row.try_get(1)?);
        }
    }
    Ok(names)
}

/// Returns entries as lines, with the names of users, tokens and keys.
pub(super) async fn log_lines(list: &List, entries: Vec<Entry>) -> Result<Vec<LogLine>> {
    let actor = |entry: &Entry| match entry.actor.as_str() {
        "" => entry.actor_kind.clone(),
        name => format!("{} {name}", entry.actor_kind),
    };
    let actors: Vec<_> = entries.iter().map(actor).collect();
    let subjects = entries.iter().filter_map(subject);
    let names = names(list, &subjects.chain(actors.iter().cloned()).collect::<Vec<_>>()).await?;
    let ids = entries.iter().filter_map(|entry| entry.key_id.as_ref()?.parse().ok());
    let key_names = key_names(list, ids).await?;
    let line = |(mut entry, actor): (Entry, String)| LogLine {
        detail_at: take_end(&mut entry),
        seq: entry.seq,
        at: Moment(time::parse("at", &entry.at).map_or(0, time::stored)),
        actor_query: query_text(&[("actor", &actor)]),
        actor: actor_in_words(&actor, &names),
        address: entry.address.clone().unwrap_or_default(),
        action: words(&entry.action),
        key_name: entry
            .key_id
            .as_ref()
            .and_then(|id| key_names.get(id))
            .cloned()
            .unwrap_or_default(),
        key_id: entry.key_id.clone().unwrap_or_default(),
        detail: detail(entry, &names),
    };
    Ok(entries.into_iter().zip(actors).map(line).collect())
}

/// The kinds of actions, each with its text and its actions.
const KINDS: &[(&str, &str, &[&str])] = &[
    (
        "key",
        "Keys",
        &[
            "key.create",
            "key.import",
            "key.rotate",
            "key.end_grace",
            "key.edit",
            "key.revoke",
            "key.reconcile",
        ],
    ),
    ("team", "Team", &["team.create", "team.rename", "team.set", "team.delete"]),
    ("member", "Members", &["member.set", "member.remove"]),
    ("link", "Links", &["link.create", "link.withdraw"]),
    (
        "session",
        "Sign-ins",
        &["session.begin", "session.prove", "session.fail", "session.fail_proof", "session.end"],
    ),
    ("passkey", "Passkeys", &["passkey.add", "passkey.rename", "passkey.remove"]),
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
    /// The names of actors to choose from.
    actors: Vec<String>,
    /// The filter in the address of the file.
    query: String,
    problems: Problems,
    lines: Vec<LogLine>,
    next: Option<String>,
    is_first: bool,
}

/// The fields of the filter.
const FIELDS: [FormField; 5] = [
    ("actor", "actor", "Who"),
    ("action", "what", "What"),
    ("key", "key", "Key"),
    ("from", "from", "From"),
    ("to", "to", "To"),
];

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

/// Returns the beginning of a day; `None` for no day. The script sends a day of the reader's zone.
fn day(parameters: &Parameters, name: &'static str) -> Result<Option<Timestamp>> {
    match parameters.get(name) {
        "" => Ok(None),
        day => time::parse_day(name, day).map(Some),
    }
}

/// Returns the keys of a team that a text means: the id of a key, a key itself, or a part of names.
async fn keys(team: &TeamVisit, text: &str) -> Result<(Option<KeyId>, Vec<KeyId>)> {
    if text.is_empty() {
        return Ok((None, Vec::new()));
    }
    if let Some(key_id) = key_id(text) {
        return Ok((Some(key_id), Vec::new()));
    }
    let filter = KeyFilter {
        team_id: Some(team.team_id),
        search: text.to_owned(),
        limit: i64::try_from(MOST_SEVERAL + 1).unwrap_or(i64::MAX),
        ..KeyFilter::default()
    };
    let rows = team.visit.page.list().keys(&filter, team.visit.now).await?;
    let reason = match rows.len() {
        0 => "no key of the team has this id, or this in its name".to_owned(),
        len if len > MOST_SEVERAL => {
            format!("more than {MOST_SEVERAL} keys have this in their names; write more of one")
        }
        _ => return Ok((None, rows.into_iter().map(|row| row.key_id).collect())),
    };
    Err(Error::invalid("key", reason))
}

/// Returns the id of a key in a text: the id itself, or a whole key.
fn key_id(text: &str) -> Option<KeyId> {
    let of_key = || keytally::parse_key(text.as_bytes()).ok().map(|parts| parts.key_id);
    text.parse().ok().or_else(of_key)
}

/// Leads to the log with the filter of a form. A whole key that a person pasted is replaced by its
/// id, so that no address has a secret.
pub(super) async fn filtered(visit: Visit, fields: Fields) -> Redirect {
    let value = |name| match (name, fields.get(name)) {
        // A key with an error in it is a secret too.
        ("key", text) => key_id(text).map_or_else(|| redact(text).into(), |id| id.to_string()),
        (_, text) => text.to_owned(),
    };
    let values = FILTERS.map(|name| (name, value(name)));
    let pairs: Vec<_> = values.iter().map(|(name, value)| (*name, &**value)).collect();
    match query_text(&pairs) {
        query if query.is_empty() => Redirect::to(&visit.at("/log")),
        query => Redirect::to(&visit.at(&format!("/log?{query}"))),
    }
}

/// Returns the filter that the parameters name.
async fn filter(team: &TeamVisit, parameters: &Parameters, limit: i64) -> Result<Filter> {
    let (key_id, key_ids) = keys(team, parameters.get("key")).await?;
    let actor = match parameters.get("actor") {
        "" => None,
        THE_SERVICE => Some(ActorFilter::reconcile()),
        actor => Some(team.visit.page.list().actors_like("actor", team.team_id, actor).await?),
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
    Ok(Filter { team_id, key_id, key_ids, actor, action, from, to, before, limit })
}

/// Returns the names of the actors that a team has now: members, tokens and operators.
async fn actors(team: &TeamVisit) -> Result<Vec<String>> {
    let list = team.visit.page.list();
    let mut actors: Vec<_> =
        list.members(team.team_id).await?.into_iter().map(|member| member.name).collect();
    let tokens = list.tokens(Some(team.team_id)).await?.into_iter();
    actors.extend(tokens.map(|token| format!("token {}", token.name)));
    actors.extend(["operator", THE_SERVICE].map(str::to_owned));
    Ok(actors)
}

/// Returns the name of the actor that a filter has, if it finds the same actor.
async fn actor_name(list: &List, actor: String) -> Result<String> {
    if actor == "reconcile" {
        return Ok(THE_SERVICE.to_owned());
    }
    let names = names(list, core::slice::from_ref(&actor)).await?;
    let name = names.get(&actor).filter(|name| ActorFilter::named(name).is_none());
    Ok(name.cloned().unwrap_or(actor))
}

/// Shows the log of the team.
pub(super) async fn show(team: TeamVisit, parameters: Parameters) -> Result<Response, Stop> {
    let visit = &team.visit;
    let list = visit.page.list();
    let (status, problems, mut entries, is_first) =
        match filter(&team, &parameters, PAGE_LEN + 1).await {
            Ok(filter) => {
                let entries = list.log(&filter).await?;
                (StatusCode::OK, Problems::none(&FIELDS), entries, filter.before.is_none())
            }
            Err(Error::Invalid { field, reason }) => {
                let problems = Problems::one(&FIELDS, field, &reason);
                (StatusCode::BAD_REQUEST, problems, Vec::new(), true)
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
        frame: Frame::new(visit, "log", problems.title("Log")),
        kinds: KINDS.iter().map(kind).collect(),
        key: text(&parameters, "key"),
        actor: actor_name(list, text(&parameters, "actor")).await?,
        what: text(&parameters, "what").trim_end_matches('.').to_owned(),
        from: text(&parameters, "from"),
        to: text(&parameters, "to"),
        actors: actors(&team).await?,
        query: query(&parameters, None),
        problems,
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
    let head = Bytes::from_static(b"number,time,actor,address,action,key,key name,detail\r\n");
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
            line.key_name,
            line.detail + &line.detail_at.map(Moment::rfc3339).unwrap_or_default(),
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
