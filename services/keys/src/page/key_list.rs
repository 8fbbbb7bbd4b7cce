//! The screen *Keys*: the keys of the team, with search and filters.

use alloc::collections::BTreeMap;

use askama::Template;
use axum::response::Response;
use keytally::{Name, Timestamp};
use sqlx::Row as _;

use super::fields::Parameters;
use super::frame::{Frame, show as respond};
use super::picture::Picture;
use super::refusal::Stop;
use super::usage_of::{Point, day_of_keys};
use super::visit::TeamVisit;
use super::words::{Moment, ago};
use crate::error::Result;
use crate::keys::{Cursor, FLAGS, KeyFilter, KeyRow, SOON_S, Sort, UNUSED_S};
use crate::list::List;
use crate::roles::Role;
use crate::{ids, time};

/// The keys of a page.
pub(super) const PAGE_LEN: usize = 50;

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

impl Line {
    pub(super) fn new(
        row: &KeyRow,
        day: &[Point],
        makers: &BTreeMap<String, String>,
        prefix: Name,
        now: Timestamp,
    ) -> Self {
        let state = row.state(now);
        Self {
            id: row.key_id.to_string(),
            name: row.name.clone(),
            hint: row.hint(prefix),
            env: row.env.as_str().to_owned(),
            plan: row.plan.clone(),
            state: word(row, now),
            chips: if state == "active" { chips(row, day, now) } else { Vec::new() },
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
fn chips(row: &KeyRow, day: &[Point], now: Timestamp) -> Vec<String> {
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
    let in_grace = row.grace_until_s.is_some_and(|end| end > now_s);
    if in_grace && day.iter().any(|hour| hour.old_secret > 0) {
        chips.push("old secret still used".to_owned());
    }
    chips
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
    ("old_secret_used", "old secret still used"),
];

/// Returns the address of a list with this filter, in this order, after this position.
fn address(root: &str, filter: &KeyFilter, sort: Sort, after: &str) -> String {
    let sort = if sort == Sort::default() { "" } else { sort.as_str() };
    let text = query_text(&[
        ("search", &filter.search),
        ("state", &filter.state),
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

/// The lines. A script requests them alone.
#[derive(Template)]
#[template(path = "rows.html")]
struct Rows {
    root: String,
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
    may_revoke: bool,
}

/// The screen.
#[derive(Template)]
#[template(path = "keys.html")]
struct Screen {
    frame: Frame,
    search: String,
    state: String,
    env: String,
    plan: String,
    flag: String,
    /// The name of the order; empty for that with the newest key first.
    sort: &'static str,
    chips: [Chip; 4],
    envs: Vec<String>,
    plans: Vec<String>,
    rows: Rows,
    /// Whether the team has no key at all.
    is_new: bool,
    may_make: bool,
}

impl Screen {
    fn is_filtered(&self) -> bool {
        let values = [&self.search, &self.state, &self.env, &self.plan, &self.flag];
        values.iter().any(|value| !value.is_empty())
    }
}

/// Shows the keys.
pub(super) async fn show(team: TeamVisit, parameters: Parameters) -> Result<Response, Stop> {
    let TeamVisit { visit, team_id, .. } = &team;
    let list = visit.page.list();
    let text = |name: &str| -> String { parameters.get(name).chars().take(64).collect() };
    let sort = Sort::named(parameters.get("sort")).unwrap_or_default();
    let states = ["active", "expired", "revoked"];
    let state = states.into_iter().find(|&state| state == parameters.get("state"));
    let filter = KeyFilter {
        team_id: Some(*team_id),
        state: state.unwrap_or_default().to_owned(),
        env: text("env"),
        plan: text("plan"),
        flag: FLAGS
            .into_iter()
            .find(|&flag| flag == parameters.get("flag"))
            .unwrap_or_default()
            .to_owned(),
        search: text("search"),
        sort,
        after: Cursor::parse(sort, parameters.get("after")),
        // One more shows whether there is another page.
        limit: i64::try_from(PAGE_LEN + 1).unwrap_or(i64::MAX),
    };
    let mut rows = list.keys(&filter, visit.now).await?;
    let has_more = rows.len() > PAGE_LEN;
    rows.truncate(PAGE_LEN);
    let key_ids: Vec<_> = rows.iter().map(|row| row.key_id).collect();
    let days = day_of_keys(list, *team_id, &key_ids, visit.now).await?;
    let makers: Vec<_> = rows.iter().map(|row| row.created_by.clone()).collect();
    let makers = names(list, &makers).await?;
    let prefix = list.gate().load().table().prefix();
    let lines = rows.iter().map(|row| {
        let day = days.get(&row.key_id).map_or(&[][..], Vec::as_slice);
        Line::new(row, day, &makers, prefix, visit.now)
    });
    let lines: Vec<_> = lines.collect();
    let root = visit.page.root();
    let next = rows.last().filter(|_| has_more);
    let next = next.map(|row| address(root, &filter, sort, &row.cursor(sort).to_string()));
    let [name_order, use_order, expiry_order, age_order] = orders(root, &filter);
    let rows = Rows {
        root: root.to_owned(),
        lines,
        name_order,
        use_order,
        expiry_order,
        age_order,
        next,
        first: address(root, &filter, sort, ""),
        is_first: filter.after.is_none(),
        may_revoke: visit.session.role >= Role::Admin,
    };
    if visit.is_partial {
        return Ok(respond(&rows)?);
    }
    let done = match parameters.get("revoked") {
        "" => String::new(),
        count => {
            let count = count.parse().unwrap_or(1);
            format!(
                "Revoked {}. Requests with them are refused.",
                super::words::plural(count, "key")
            )
        }
    };
    let mut screen = Screen {
        frame: Frame::new(visit, "keys", "Keys").with_done(done),
        chips: chip_links(root, &filter),
        sort: if sort == Sort::default() { "" } else { sort.as_str() },
        envs: envs(list, *team_id).await?,
        plans: plans(list),
        search: filter.search,
        state: filter.state,
        env: filter.env,
        plan: filter.plan,
        flag: filter.flag,
        is_new: false,
        may_make: visit.session.role >= Role::Member,
        rows,
    };
    screen.is_new = screen.rows.lines.is_empty() && screen.rows.is_first && !screen.is_filtered();
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
