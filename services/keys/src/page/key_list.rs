//! The screen *Keys*: the keys of the team, with search and filters.

use alloc::collections::BTreeMap;

use askama::Template;
use axum::response::{IntoResponse as _, Redirect, Response};
use keytally::{KeyState, Name, Timestamp};
use sqlx::Row as _;

use super::fields::{Fields, Parameters};
use super::frame::{Frame, show as respond};
use super::picture::Picture;
use super::refusal::Stop;
use super::usage_of::{PAGE_LEN, Point, add_what_the_gate_has, day_of_keys, old_uses_of_keys};
use super::visit::TeamVisit;
use super::words::{Moment, ago};
use crate::error::Result;
use crate::keys::{Cursor, FLAGS, KeyFilter, KeyRow, MOST_COUNTED, SOON_S, Sort, UNUSED_S};
use crate::list::List;
use crate::roles::Role;
use crate::teams::TeamSettings;
use crate::text::{Search, search};
use crate::{ids, time};

/// The most environments that the filter offers.
const MOST_ENVS: i64 = 50;

/// A key as a line of the list.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) hint: String,
    pub(super) env: String,
    pub(super) plan: String,
    /// One word on the key, and its class.
    pub(super) state: &'static str,
    /// What to look at.
    pub(super) chips: Vec<String>,
    pub(super) picture: Picture,
    pub(super) last_used: Option<(String, Moment)>,
    pub(super) expires: Option<Moment>,
    pub(super) created: Moment,
    pub(super) maker: String,
}

/// What the lines of keys have in common.
pub(super) struct Common<'c> {
    /// The names of who made the keys.
    pub(super) makers: &'c BTreeMap<String, String>,
    pub(super) prefix: Name,
    pub(super) settings: &'c TeamSettings,
    pub(super) now: Timestamp,
}

impl Line {
    /// Returns the line of a key. `day` are the hours of its last day, and `old_uses` the requests
    /// with its old secret since the rotation.
    pub(super) fn new(row: &KeyRow, day: &[Point], old_uses: i64, common: &Common<'_>) -> Self {
        let &Common { makers, prefix, settings, now } = common;
        let state = row.state(now);
        Self {
            id: row.key_id.to_string(),
            name: row.name.clone(),
            hint: row.hint(prefix),
            env: row.env.as_str().to_owned(),
            plan: row.plan.clone(),
            state: word(row, now),
            chips: if state == "active" { chips(row, old_uses, settings, now) } else { Vec::new() },
            picture: Picture::small(day),
            last_used: row.last_used_s.map(|at_s| (ago(at_s, now), Moment(at_s))),
            expires: row.not_after_s.map(Moment),
            created: Moment(row.created_s),
            maker: maker(&row.created_by, makers),
        }
    }
}

/// Returns the state of a key as one word.
pub(super) fn word(row: &KeyRow, now: Timestamp) -> &'static str {
    let now_s = time::stored(now);
    match row.state(now) {
        "active" if row.shown_s.is_none() && row.last_used_s.is_none() => "unseen",
        "active" if row.not_after_s.is_some_and(|end| end - now_s <= SOON_S) => "expiring",
        "active" if row.grace_until_s.is_some_and(|end| end > now_s) => "rotating",
        state => state,
    }
}

/// Returns what to look at on an active key.
fn chips(row: &KeyRow, old_uses: i64, settings: &TeamSettings, now: Timestamp) -> Vec<String> {
    let now_s = time::stored(now);
    let mut chips = Vec::new();
    match row.not_after_s {
        None => chips.push("never expires".to_owned()),
        Some(end) if end - now_s <= SOON_S => {
            chips.push(format!("expires in {}", super::words::length(end - now_s)));
        }
        Some(_) => {}
    }
    if now_s - row.last_used_s.unwrap_or(row.created_s) >= UNUSED_S {
        chips.push("unused for 90 days".to_owned());
    }
    if is_too_long(row, settings, now) {
        chips.push("ends later than the rules permit".to_owned());
    }
    if old_uses > 0 {
        chips.push("old secret used".to_owned());
    }
    chips
}

/// Returns whether a key ends later than the team permits. The rule may be newer than the key.
pub(super) fn is_too_long(row: &KeyRow, settings: &TeamSettings, now: Timestamp) -> bool {
    let is_active = row.state(now) == "active";
    is_active && settings.check_expiry(row.not_after_s.map(time::loaded), now).is_err()
}

/// Returns the name of who made a key.
pub(super) fn maker(created_by: &str, names: &BTreeMap<String, String>) -> String {
    match (names.get(created_by), created_by) {
        (Some(name), _) => name.clone(),
        (None, "reconcile") => "command line".to_owned(),
        (None, "operator page" | "operator shell") => "operator".to_owned(),
        (None, other) => other.to_owned(),
    }
}

/// The name of the service as an actor of the log.
pub(super) const THE_SERVICE: &str = "the service";

/// Returns the name of who did something. The service enters what it finds changed in the gate.
pub(super) fn actor_in_words(actor: &str, names: &BTreeMap<String, String>) -> String {
    match actor {
        "reconcile" => THE_SERVICE.to_owned(),
        other => maker(other, names),
    }
}

/// Returns the names of users and tokens among actors such as `user 3`.
pub(super) async fn names(list: &List, actors: &[String]) -> Result<BTreeMap<String, String>> {
    let mut names = BTreeMap::new();
    for actor in actors {
        if names.contains_key(actor) {
            continue;
        }
        let mut connection = list.read().await?;
        let row = match actor.split_once(' ') {
            Some(("user", id)) => {
                let Ok(user_id) = id.parse::<i64>() else { continue };
                let query = sqlx::query("select name from \"user\" where user_id = $1");
                query.bind(user_id).fetch_optional(&mut *connection).await?
            }
            Some(("token", id)) => {
                let Ok(key_id) = id.parse() else { continue };
                let query = sqlx::query("select 'token ' || name from token where key_id = $1");
                query.bind(ids::stored(key_id)).fetch_optional(&mut *connection).await?
            }
            _ => None,
        };
        if let Some(row) = row {
            names.insert(actor.clone(), row.try_get(0)?);
        }
    }
    Ok(names)
}

/// Returns the environments of a team's keys.
pub(super) async fn envs(list: &List, team_id: u32) -> Result<Vec<String>> {
    let rows =
        sqlx::query("select distinct env from \"key\" where team_id = $1 order by env limit $2")
            .bind(i64::from(team_id))
            .bind(MOST_ENVS)
            .fetch_all(&mut *list.read().await?)
            .await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, sqlx::Error>>()?)
}

/// Returns the names of the gate's plans.
pub(super) fn plans(list: &List) -> Vec<String> {
    list.gate().load().table().plans().map(|(_, plan)| plan.name.to_string()).collect()
}

/// A link that sorts the list.
#[derive(Clone, Debug)]
struct Order {
    text: &'static str,
    address: String,
    /// `ascending` or `descending`; empty if the list is sorted by something else.
    direction: &'static str,
}

/// The orders of the list: the text, the name of the first order that the link leads to, and that
/// of the other one.
const ORDERS: [(&str, &str, &str); 4] = [
    ("Name", "name", "-name"),
    ("Last use", "-last_used", "last_used"),
    ("Expires", "expires", "-expires"),
    ("Made", "-created", "created"),
];

/// A link that shows the keys with one of the flags, or again all.
#[derive(Clone, Debug)]
struct Chip {
    text: &'static str,
    address: String,
    is_on: bool,
}

/// The flags and their texts.
const CHIPS: [(&str, &str); 4] = [
    ("expires_soon", "expires in 14 days"),
    ("never_expires", "never expires"),
    ("unused", "unused for 90 days"),
    ("old_secret_used", "old secret used"),
];

/// The values of the parameter `state`, and the states of a filter that they mean. Without the
/// parameter, revoked keys are not shown.
const STATES: [(&str, &str); 5] = [
    ("", UNREVOKED),
    ("all", ""),
    ("active", "active"),
    ("expired", "expired"),
    ("revoked", "revoked"),
];

/// The state of a filter that leaves revoked keys out.
const UNREVOKED: &str = "unrevoked";

/// Returns the value of the parameter `state` of a filter.
fn state_value(filter: &KeyFilter) -> &'static str {
    STATES.iter().find(|(_, state)| *state == filter.state).map_or("", |(value, _)| value)
}

/// Returns the address of a list with this filter, in this order, after this position.
fn address(root: &str, filter: &KeyFilter, sort: Sort, after: &str) -> String {
    let sort = if sort == Sort::default() { "" } else { sort.as_str() };
    let text = query_text(&[
        ("search", &filter.search),
        ("state", state_value(filter)),
        ("env", &filter.env),
        ("plan", &filter.plan),
        ("flag", &filter.flag),
        ("sort", sort),
        ("after", after),
    ]);
    if text.is_empty() { root.to_owned() } else { format!("{root}?{text}") }
}

/// Returns the links that sort a list.
fn orders(root: &str, filter: &KeyFilter) -> [Order; 4] {
    ORDERS.map(|(text, first, other)| {
        let named = |name: &str| Sort::named(name).unwrap_or_default();
        let is_sorted = named(first).by == filter.sort.by;
        let next = if filter.sort == named(first) { other } else { first };
        let direction = match (is_sorted, filter.sort.is_descending) {
            (false, _) => "",
            (true, false) => "ascending",
            (true, true) => "descending",
        };
        Order { text, address: address(root, filter, named(next), ""), direction }
    })
}

/// Returns the links that show the keys with a flag.
fn chip_links(root: &str, filter: &KeyFilter) -> [Chip; 4] {
    CHIPS.map(|(flag, text)| {
        let is_on = filter.flag == flag;
        let flag = if is_on { String::new() } else { flag.to_owned() };
        let filter = KeyFilter { flag, ..filter.clone() };
        Chip { text, address: address(root, &filter, filter.sort, ""), is_on }
    })
}

/// Returns the link that shows revoked keys too, or hides them again; `None` if the filter has one
/// state or one flag, so that there is nothing to choose.
fn revoked_link(root: &str, filter: &KeyFilter) -> Option<Chip> {
    let is_on = filter.state.is_empty();
    if !(is_on || filter.state == UNREVOKED) || !filter.flag.is_empty() {
        return None;
    }
    let state = if is_on { UNREVOKED } else { "" };
    let filter = KeyFilter { state: state.to_owned(), ..filter.clone() };
    let address = address(root, &filter, filter.sort, "");
    Some(Chip { text: "also revoked", address, is_on })
}

/// What a search came to that is not a text.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Replaced {
    /// A key was searched for, and is replaced by its id.
    Key(String),
    /// Something that looks like a key was searched for.
    Secret,
}

/// The lines, and what changes with them. A script requests them alone.
#[derive(Template)]
#[template(path = "rows.html")]
struct Rows {
    root: String,
    chips: [Chip; 4],
    revoked: Option<Chip>,
    /// How many keys were found, in words.
    count: String,
    /// Whether a script requests the lines alone.
    is_partial: bool,
    replaced: Option<Replaced>,
    lines: Vec<Line>,
    name_order: Order,
    use_order: Order,
    expiry_order: Order,
    age_order: Order,
    /// The address of the next page.
    next: Option<String>,
    /// The address of the first page.
    first: String,
    is_first: bool,
    /// Whether revoked keys are left out that the filter would find.
    has_hidden: bool,
    may_revoke: bool,
    /// Whether all boxes are ticked, and the address of this page where they are, or are not.
    is_ticked: bool,
    ticking: String,
}

/// The screen.
#[derive(Template)]
#[template(path = "keys.html")]
struct Screen {
    frame: Frame,
    search: String,
    state: &'static str,
    env: String,
    plan: String,
    flag: String,
    /// The name of the order; empty for that with the newest key first.
    sort: &'static str,
    envs: Vec<String>,
    plans: Vec<String>,
    rows: Rows,
    /// Whether the team has no key at all.
    is_new: bool,
    may_make: bool,
}

/// Returns whether a filter leaves keys out.
fn is_filtered(filter: &KeyFilter) -> bool {
    let values = [&filter.search, &filter.env, &filter.plan, &filter.flag];
    !["", UNREVOKED].contains(&&*filter.state) || values.iter().any(|value| !value.is_empty())
}

/// The value of the parameter `found` of a search for something that looks like a key.
const NOTHING: &str = "nothing";

/// Returns the filter that a query or a form names, without a secret, and what the search was if it
/// is replaced.
fn filter_of(team: &TeamVisit, fields: &Fields) -> (KeyFilter, Option<Replaced>) {
    let text = |name: &str| -> String { fields.get(name).chars().take(64).collect() };
    let sort = Sort::named(fields.get("sort")).unwrap_or_default();
    let state = STATES.iter().find(|(value, _)| *value == fields.get("state"));
    let mut state = state.map_or(UNREVOKED, |&(_, state)| state);
    let flag = FLAGS.into_iter().find(|&flag| flag == fields.get("flag"));
    let gate = team.visit.page.list().gate().load();
    let find = |text: &str| {
        let is_possible = keytally::IMPORTED_KEY_LEN.contains(&text.len());
        let verdict = is_possible.then(|| gate.peek(Some(text.as_bytes()), 1))?;
        Some(verdict.holder()?.key_id)
    };
    let (search, replaced) = match search(fields.get("search"), find) {
        Search::Text(text) => (text.chars().take(64).collect(), None),
        Search::Key(key_id) => {
            let id = key_id.to_string();
            if gate.key(key_id).is_some_and(|key| key.state == KeyState::Revoked) {
                // What was searched for is shown.
                state = "";
            }
            (id.clone(), Some(Replaced::Key(id)))
        }
        Search::Secret => (String::new(), Some(Replaced::Secret)),
    };
    let filter = KeyFilter {
        team_id: Some(team.team_id),
        state: state.to_owned(),
        env: text("env"),
        plan: text("plan"),
        flag: flag.unwrap_or_default().to_owned(),
        search,
        sort,
        after: Cursor::parse(sort, fields.get("after")),
        // One more shows whether there is another page.
        limit: i64::try_from(PAGE_LEN + 1).unwrap_or(i64::MAX),
    };
    (filter, replaced)
}

/// Returns the address of the list of a search. It has no secret.
fn address_of(root: &str, filter: &KeyFilter, replaced: Option<&Replaced>) -> String {
    let address = address(root, filter, filter.sort, "");
    match replaced {
        Some(Replaced::Secret) => with(&address, "found", NOTHING),
        _ => address,
    }
}

/// Returns an address with one more parameter.
fn with(address: &str, name: &str, value: &str) -> String {
    let separator = if address.contains('?') { '&' } else { '?' };
    format!("{address}{separator}{name}={value}")
}

/// Returns how many keys were found, in words. `hidden` are the revoked keys that the filter would
/// find too.
async fn count_of(
    team: &TeamVisit,
    filter: &KeyFilter,
    (found, hidden): (usize, i64),
    is_all: bool,
) -> Counted {
    let list = team.visit.page.list();
    let state = if filter.state == UNREVOKED { UNREVOKED } else { "" };
    let of_team =
        KeyFilter { team_id: filter.team_id, state: state.to_owned(), ..KeyFilter::default() };
    let rest = match hidden {
        0 => String::new(),
        1 => ", and 1 revoked key that is not shown".to_owned(),
        _ => format!(", and {} revoked keys that are not shown", super::words::grouped(hidden)),
    };
    let count = |filter: KeyFilter| async move { list.count_keys(&filter, team.visit.now).await };
    let shown = |count: i64| match count > MOST_COUNTED {
        true => format!("more than {}", super::words::plural(MOST_COUNTED, "key")),
        false => super::words::plural(count, "key"),
    };
    let found = i64::try_from(found).unwrap_or(i64::MAX);
    let is_filtered = is_filtered(filter);
    let found = if is_all { found } else { count(filter.clone()).await? };
    if !is_filtered {
        return Ok(format!("{}{rest}", shown(found)));
    }
    let all = count(of_team).await?;
    let found = match found > MOST_COUNTED {
        true => format!("More than {}", super::words::grouped(MOST_COUNTED)),
        false => super::words::grouped(found),
    };
    Ok(format!("{found} of {} found{rest}", shown(all)))
}

/// The text that says how many keys were found.
type Counted = Result<String>;

/// Returns the lines of a filter.
async fn rows_of(
    team: &TeamVisit,
    filter: &KeyFilter,
    replaced: Option<Replaced>,
    fields: &Fields,
) -> Result<Rows, Stop> {
    let TeamVisit { visit, team_id, .. } = team;
    let (list, sort) = (visit.page.list(), filter.sort);
    let is_secret = replaced == Some(Replaced::Secret);
    let mut rows = match is_secret {
        true => Vec::new(),
        false => list.keys(filter, visit.now).await?,
    };
    let has_more = rows.len() > PAGE_LEN;
    rows.truncate(PAGE_LEN);
    let key_ids: Vec<_> = rows.iter().map(|row| row.key_id).collect();
    let days = day_of_keys(list, *team_id, &key_ids, visit.now).await?;
    let old_uses = old_uses_of_keys(list, *team_id, &key_ids, visit.now).await?;
    let makers: Vec<_> = rows.iter().map(|row| row.created_by.clone()).collect();
    let makers = names(list, &makers).await?;
    let root = visit.page.root();
    let next = rows.last().filter(|_| has_more);
    let next = next.map(|row| address(root, filter, sort, &row.cursor(sort).to_string()));
    // The position of the next page is that of the list, which may have an earlier last use.
    add_what_the_gate_has(list, &mut rows);
    let prefix = list.gate().load().table().prefix();
    let common = Common { makers: &makers, prefix, settings: &team.settings, now: visit.now };
    let lines = rows.iter().map(|row| {
        let day = days.get(&row.key_id).map_or(&[][..], Vec::as_slice);
        Line::new(row, day, old_uses.get(&row.key_id).copied().unwrap_or(0), &common)
    });
    let lines: Vec<_> = lines.collect();
    let [name_order, use_order, expiry_order, age_order] = orders(root, filter);
    let is_first = filter.after.is_none();
    let is_ticked = fields.get("ticked") == "all";
    let after = filter.after.as_ref().map(ToString::to_string).unwrap_or_default();
    let here = address(root, filter, sort, &after);
    let is_all = is_secret || (is_first && !has_more);
    let revoked = revoked_link(root, filter).filter(|_| !is_secret);
    let hidden = match &revoked {
        Some(chip) if !chip.is_on => {
            let filter = KeyFilter { state: "revoked".to_owned(), ..filter.clone() };
            list.count_keys(&filter, visit.now).await?
        }
        _ => 0,
    };
    let count = match is_secret {
        true => "0 keys found".to_owned(),
        false => count_of(team, filter, (lines.len(), hidden), is_all).await?,
    };
    Ok(Rows {
        root: root.to_owned(),
        chips: chip_links(root, filter),
        revoked: revoked.filter(|chip| chip.is_on || hidden > 0),
        has_hidden: hidden > 0,
        count,
        is_partial: visit.is_partial,
        replaced,
        lines,
        name_order,
        use_order,
        expiry_order,
        age_order,
        next,
        first: address(root, filter, sort, ""),
        is_first,
        may_revoke: visit.session.role >= Role::Admin,
        is_ticked,
        ticking: if is_ticked { here } else { with(&here, "ticked", "all") },
    })
}

/// Searches, by a form: what was searched for may be a key, which must not be in an address.
pub(super) async fn find(team: TeamVisit, fields: Fields) -> Result<Response, Stop> {
    let (filter, replaced) = filter_of(&team, &fields);
    let to = address_of(team.visit.page.root(), &filter, replaced.as_ref());
    if !team.visit.is_partial {
        return Ok(Redirect::to(&to).into_response());
    }
    let rows = rows_of(&team, &filter, replaced, &fields).await?;
    Ok(([("HX-Replace-Url", to)], respond(&rows)?).into_response())
}

/// Shows the keys.
pub(super) async fn show(team: TeamVisit, parameters: Parameters) -> Result<Response, Stop> {
    let Parameters(fields) = parameters;
    let visit = &team.visit;
    let (filter, mut replaced) = filter_of(&team, &fields);
    let root = visit.page.root();
    if replaced.is_some() {
        // The address has a key. The next one has not.
        return Ok(Redirect::to(&address_of(root, &filter, replaced.as_ref())).into_response());
    }
    if fields.get("found") == NOTHING {
        replaced = Some(Replaced::Secret);
    }
    let rows = rows_of(&team, &filter, replaced, &fields).await?;
    if visit.is_partial {
        return Ok(respond(&rows)?);
    }
    let list = visit.page.list();
    let done = match fields.get("revoked") {
        "" => String::new(),
        count => {
            let count = count.parse().unwrap_or(1);
            format!(
                "Revoked {}. Requests with them are refused.",
                super::words::plural(count, "key")
            )
        }
    };
    let is_empty = rows.lines.is_empty() && rows.is_first && !rows.has_hidden;
    let is_new = is_empty && rows.replaced.is_none() && !is_filtered(&filter);
    let screen = Screen {
        frame: Frame::new(visit, "keys", "Keys").with_done(visit, done),
        sort: if filter.sort == Sort::default() { "" } else { filter.sort.as_str() },
        envs: envs(list, team.team_id).await?,
        plans: plans(list),
        state: state_value(&filter),
        search: filter.search,
        env: filter.env,
        plan: filter.plan,
        flag: filter.flag,
        is_new,
        may_make: visit.session.role >= Role::Member,
        rows,
    };
    Ok(respond(&screen)?)
}

/// Returns the text of a query with these values. Empty ones are left out.
pub(super) fn query_text(pairs: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        let separator = if text.is_empty() { "" } else { "&" };
        text.push_str(separator);
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    text.push(char::from(byte));
                }
                _ => text.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    text
}
