//! The screen *Key*: what a key may do, what it was used for, and what was done with it.

use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;

use super::fields::{Fields, Parameters};
use super::frame::{Frame, respond, show as respond_ok};
use super::key_list::{Common, Line, actor_in_words, is_too_long, names};
use super::log_page::{LogLine, log_lines};
use super::new_key::{
    FIELDS, Lifetime, PlanChoice, expiry, lifetimes, longest, plan_choices, questions, refused,
    scopes,
};
use super::numbers::{self, NumberLine, number_lines};
use super::picture::Picture;
use super::problems::Problems;
use super::quotas::{QuotaLine, of_key};
use super::refusal::Stop;
use super::usage_of::{Point, day_of_keys, old_uses_of_keys, points};
use super::visit::TeamVisit;
use super::words::{Moment, grouped, plural};
use crate::change::Edit;
use crate::error::Error;
use crate::keys::KeyRow;
use crate::log::Filter;
use crate::roles::Role;
use crate::time;
use crate::usage::Width;

/// An end of a key that is sooner than this many seconds from now needs a proof, as a revocation
/// does: an expired key cannot be changed.
const SOON_ENDING_S: i64 = 86_400;

/// How many entries of the log a key's page shows.
const ENTRIES: i64 = 20;

/// A range of the picture: its name, its text, the width and the number of its buckets.
const RANGES: [(&str, &str, Width, i64); 3] = [
    ("1h", "1 hour", Width::Minute, 60),
    ("24h", "24 hours", Width::Hour, 24),
    ("30d", "30 days", Width::Day, 30),
];

/// Returns the range of a name, or that of a day.
fn chosen(range: &str) -> &'static (&'static str, &'static str, Width, i64) {
    RANGES.iter().find(|its| its.0 == range).unwrap_or(&RANGES[1])
}

/// The sums of a range.
pub(super) struct Sums {
    admitted: String,
    denied: String,
    forbidden: String,
    old_secret: i64,
    ended: String,
}

impl Sums {
    fn new(points: &[Point]) -> Self {
        let sum = |part: fn(&Point) -> i64| points.iter().map(part).sum::<i64>();
        Self {
            admitted: grouped(sum(|point| point.admitted)),
            denied: grouped(sum(|point| point.denied)),
            forbidden: grouped(sum(|point| point.forbidden)),
            old_secret: sum(|point| point.old_secret),
            ended: grouped(sum(|point| point.ended)),
        }
    }
}

/// The rotation of a key that is not finished.
pub(super) struct Grace {
    until: Moment,
    uses: String,
}

/// What changes of a key while its page is open. A script requests it alone.
#[derive(Template)]
#[template(path = "key_live.html")]
struct Live {
    root: String,
    line: Line,
    note: String,
    scopes: Vec<String>,
    /// Whether the gate has scopes.
    has_scopes: bool,
    created: Moment,
    rotated: Option<Moment>,
    revoked: Option<(Moment, String, String)>,
    /// Whether the gate has a revocation that the list does not have yet.
    is_unlisted: bool,
    /// Whether the present secret was never shown.
    is_unseen: bool,
    grace: Option<Grace>,
    /// The requests of a day with the old secret after its end.
    refused_uses: i64,
    /// The longest lifetime that the team permits, if the key ends later.
    longest: Option<String>,
    limits: Vec<String>,
    may_rotate: bool,
    may_change: bool,
    /// Why the person cannot do more with the key; empty if the person can do all.
    lacks: String,
    quotas: Vec<QuotaLine>,
    range: &'static str,
    range_text: &'static str,
    ranges: [(&'static str, &'static str); 3],
    picture: Picture,
    numbers: Vec<NumberLine>,
    sums: Sums,
}

/// The screen.
#[derive(Template)]
#[template(path = "key.html")]
struct Screen {
    frame: Frame,
    live: Live,
    log: Vec<LogLine>,
}

/// Shows a key.
pub(super) async fn show(
    team: TeamVisit,
    Path(id): Path<String>,
    parameters: Parameters,
) -> Result<Response, Stop> {
    let row = team.key(&id).await?;
    let TeamVisit { visit, team_id, .. } = &team;
    let live = live(&team, &row, parameters.get("range")).await?;
    if visit.is_partial {
        return Ok(respond_ok(&live)?);
    }
    let filter = Filter {
        team_id: Some(*team_id),
        key_id: Some(row.key_id),
        limit: ENTRIES,
        ..Filter::default()
    };
    let list = visit.page.list();
    let log = log_lines(list, list.log(&filter).await?).await?;
    let frame =
        Frame::new(visit, "keys", row.name.clone()).with_done(visit, done(parameters.get("done")));
    Ok(respond_ok(&Screen { frame, live, log })?)
}

/// Returns the numbers of a key's picture as a file.
pub(super) async fn csv(
    team: TeamVisit,
    Path(id): Path<String>,
    parameters: Parameters,
) -> Result<Response, Stop> {
    let row = team.key(&id).await?;
    let &(range, _, width, count) = chosen(parameters.get("range"));
    let visit = &team.visit;
    let points = points(visit.page.list(), row.key_id, width, count, visit.now).await?;
    Ok(numbers::csv(&points, &format!("{}-{range}", row.key_id)))
}

/// Returns what is known of a key now, and its use in a range.
async fn live(team: &TeamVisit, row: &KeyRow, range: &str) -> Result<Live, Stop> {
    let TeamVisit { visit, team_id, .. } = team;
    let (list, now) = (visit.page.list(), visit.now);
    let &(range, range_text, width, count) = chosen(range);
    let points = points(list, row.key_id, width, count, now).await?;
    let days = day_of_keys(list, *team_id, &[row.key_id], now).await?;
    let day = days.get(&row.key_id).map_or(&[][..], Vec::as_slice);
    let makers = [Some(row.created_by.clone()), row.revoked_by.clone()];
    let makers = names(list, &makers.into_iter().flatten().collect::<Vec<_>>()).await?;
    let plan = plan_choices(visit).into_iter().find(|plan| plan.name == row.plan);
    let is_live = row.state(now) == "active";
    let in_grace = row.old_secret_until_s(now).filter(|_| is_live);
    let old_uses = old_uses_of_keys(list, *team_id, &[row.key_id], now).await?;
    let old_uses = old_uses.get(&row.key_id).copied().unwrap_or(0);
    // Hours of which a part is after the rotation.
    let is_after = |hour: &&Point| hour.start_s + 3600 > row.rotated_s.unwrap_or(i64::MAX);
    let refused_uses: i64 = day.iter().filter(is_after).map(|hour| hour.expired).sum();
    let prefix = list.gate().load().table().prefix();
    let common = Common { makers: &makers, prefix, settings: &team.settings, now };
    Ok(Live {
        root: visit.page.root().to_owned(),
        line: Line::new(row, day, old_uses, &common),
        note: row.note.clone(),
        scopes: row.scopes.split_ascii_whitespace().map(str::to_owned).collect(),
        has_scopes: !scopes(visit).is_empty(),
        created: Moment(row.created_s),
        rotated: row.rotated_s.map(Moment),
        revoked: row.revoked_s.map(|at_s| {
            let by = row.revoked_by.as_deref().unwrap_or_default();
            let why = row.revoked_why.clone().unwrap_or_default();
            (Moment(at_s), actor_in_words(by, &makers), why)
        }),
        is_unlisted: row.is_revoked && row.revoked_s.is_none(),
        is_unseen: is_live && row.shown_s.is_none() && row.last_used_s.is_none(),
        grace: in_grace.map(|end| Grace { until: Moment(end), uses: plural(old_uses, "request") }),
        refused_uses: if is_live { refused_uses } else { 0 },
        longest: longest(&team.settings).filter(|_| is_too_long(row, &team.settings, now)),
        limits: plan.map(|plan| plan.limits).unwrap_or_default(),
        may_rotate: is_live && team.may_make(row.env.as_str()),
        may_change: is_live && visit.session.role >= Role::Admin,
        lacks: lacks(team, row),
        quotas: if is_live { of_key(list, row.key_id, now) } else { Vec::new() },
        range,
        range_text,
        ranges: RANGES.map(|(name, text, _, _)| (name, text)),
        picture: Picture::large(&points, width),
        numbers: number_lines(&points, width),
        sums: Sums::new(&points),
    })
}

/// Returns why the person cannot rotate, change or revoke a key; empty if the person can, or if the
/// key is revoked.
fn lacks(team: &TeamVisit, row: &KeyRow) -> String {
    match row.state(team.visit.now) {
        "active" => {}
        "expired" => {
            return "An expired key cannot be rotated or changed. Make a new one.".to_owned();
        }
        _ => return String::new(),
    }
    let role = team.visit.session.role;
    let least = team.settings.role_for(row.env.as_str());
    let needs = match (team.may_make(row.env.as_str()), role >= Role::Admin) {
        (true, true) => return String::new(),
        (true, false) => "To change or revoke this key, you need the role admin".to_owned(),
        (false, true) => format!("To rotate this key, you need the role {}", least.as_str()),
        (false, false) if least == Role::Admin => {
            "To rotate, change or revoke this key, you need the role admin".to_owned()
        }
        (false, false) => format!(
            "To rotate this key, you need the role {}, and to change or revoke it the role admin",
            least.as_str()
        ),
    };
    format!(
        "{needs}. Your role is {}; an owner of the team can change it on the page Team.",
        role.as_str()
    )
}

/// Returns the sentence on what was just done.
fn done(word: &str) -> &'static str {
    match word {
        "edited" => "The change is in force: the next request is checked by it.",
        "noted" => "The change is saved.",
        "same" => "Nothing was changed.",
        "ended" => {
            "The old secret ended. Requests with it are refused. Some seconds after one, this page \
             says how many there were."
        }
        "revoked" => "The key is revoked. Requests with it are refused.",
        "unlisted" => {
            "The key is revoked on this machine. The list could not be reached, and gets the \
             change later."
        }
        _ => "",
    }
}

/// The form that changes a key.
#[derive(Template)]
#[template(path = "edit.html")]
struct EditForm {
    frame: Frame,
    id: String,
    name: String,
    note: String,
    plan: String,
    plans: Vec<PlanChoice>,
    scopes: Vec<String>,
    chosen: Vec<String>,
    /// The key as this form had it first.
    was: Was,
    expires: Option<Moment>,
    lifetime: String,
    lifetimes: Vec<Lifetime>,
    date: String,
    /// The longest lifetime that the team permits, in words.
    longest: Option<String>,
    longest_hint: &'static str,
    offers_no_scope: bool,
    offers_same_name: bool,
    problems: Problems,
}

/// What a key had when its form was shown.
struct Was {
    name: String,
    note: String,
    plan: String,
    scopes: String,
}

impl Was {
    fn new(row: &KeyRow) -> Self {
        Self {
            name: row.name.clone(),
            note: row.note.clone(),
            plan: row.plan.clone(),
            scopes: row.scopes.clone(),
        }
    }

    /// Returns what the form had. A field that another change made wrong has its present value, so
    /// that the person can decide by it.
    fn of_form(row: &KeyRow, fields: &Fields, problems: &Problems) -> Self {
        let was = |field: &str, present: String| {
            let was = fields.find(&format!("was_{field}")).filter(|_| !problems.has(field));
            was.map_or(present, str::to_owned)
        };
        let Self { name, note, plan, scopes } = Self::new(row);
        Self {
            name: was("name", name),
            note: was("note", note),
            plan: was("plan", plan),
            scopes: was("scopes", scopes),
        }
    }
}

impl EditForm {
    fn has(&self, scope: &str) -> bool {
        self.chosen.iter().any(|chosen| chosen == scope)
    }

    fn new(team: &TeamVisit, row: &KeyRow, problems: Problems) -> Self {
        let longest = longest(&team.settings);
        Self {
            frame: Frame::new(&team.visit, "keys", problems.title("Change key")).with_form(),
            id: row.key_id.to_string(),
            name: row.name.clone(),
            note: row.note.clone(),
            plan: row.plan.clone(),
            plans: plan_choices(&team.visit),
            scopes: scopes(&team.visit),
            chosen: row.scopes.split_ascii_whitespace().map(str::to_owned).collect(),
            was: Was::new(row),
            expires: row.not_after_s.map(Moment),
            lifetime: "keep".to_owned(),
            lifetimes: lifetimes(&team.settings),
            date: String::new(),
            longest_hint: if longest.is_some() { "longest-hint" } else { "" },
            longest,
            offers_no_scope: problems.has("no_scope"),
            offers_same_name: problems.has("same_name"),
            problems,
        }
    }
}

/// Shows the form that changes a key.
pub(super) async fn edit_form(team: TeamVisit, Path(id): Path<String>) -> Result<Response, Stop> {
    let row = team.key(&id).await?;
    team.visit.require(Role::Admin)?;
    Ok(respond_ok(&EditForm::new(&team, &row, Problems::none(&FIELDS)))?)
}

/// Changes a key.
pub(super) async fn edit(
    mut team: TeamVisit,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<Response, Stop> {
    let row = team.key(&id).await?;
    team.visit.require(Role::Admin)?;
    let mut problems = Problems::none(&FIELDS);
    let changes = problems.take(changes(&team, &row, &fields));
    let name = touched(&fields, "name", &row.name);
    let name = name.and_then(|name| name.map(|name| crate::text::name("name", &name)).transpose());
    let note = touched(&fields, "note", &row.note);
    let note = note.and_then(|note| note.map(|note| crate::text::note("note", &note)).transpose());
    let (name, note) = (problems.take(name), problems.take(note));
    let (Some((mut edit, is_harmless)), Some(name), Some(note)) = (changes, name, note) else {
        return again(&team, &row, &fields, problems);
    };
    // What stays as it is was confirmed before.
    let new_name = name.as_deref().filter(|name| !name.eq_ignore_ascii_case(&row.name));
    let new_name = new_name.unwrap_or_default();
    let kept = [String::new()];
    let chosen = edit.scopes.as_deref().unwrap_or(&kept);
    questions(&team, row.env.as_str(), new_name, chosen, &fields, &mut problems).await?;
    if !problems.is_empty() {
        return again(&team, &row, &fields, problems);
    }
    (edit.name, edit.note) = (name, note);
    if edit == Edit::default() {
        return Ok(team.visit.done(&format!("/k/{}?done=same", row.key_id)));
    }
    if !is_harmless {
        team.visit.prove(&fields).await?;
    }
    let visit = &team.visit;
    // Requests are not checked by a name or a note.
    let is_note = edit.plan.is_none() && edit.scopes.is_none() && edit.expires.is_none();
    match visit.page.list().edit_key(row.key_id, edit, visit.caller()).await {
        Ok(_) => {
            let word = if is_note { "noted" } else { "edited" };
            Ok(visit.done(&format!("/k/{}?done={word}", row.key_id)))
        }
        Err(Error::Invalid { field, reason }) => {
            again(&team, &row, &fields, refused(&fields, field, &reason))
        }
        Err(error) => Err(error.into()),
    }
}

/// Returns the value of a field that the person changed; `None` if it is what the form had.
///
/// The form sends what it had too, so that it does not undo what another one changed meanwhile.
///
/// # Errors
/// If another form changed the same field meanwhile.
fn touched(
    fields: &Fields,
    field: &'static str,
    present: &str,
) -> crate::error::Result<Option<String>> {
    let value = fields.get(field).replace("\r\n", "\n");
    let was = fields.find(&format!("was_{field}")).map(|was| was.replace("\r\n", "\n"));
    let was = was.as_deref().unwrap_or(present);
    if value == was || value == present {
        return Ok(None);
    }
    if was != present {
        let reason = format!("another change made it {present:?} meanwhile: look at it again");
        return Err(Error::invalid(field, reason));
    }
    Ok(Some(value))
}

/// Returns what a form changes besides name and note, and whether that needs no proof: nothing, or
/// an earlier expiry that leaves the team a day to notice it.
fn changes(team: &TeamVisit, row: &KeyRow, fields: &Fields) -> crate::error::Result<(Edit, bool)> {
    let mut edit = Edit::default();
    let mut is_harmless = true;
    if !fields.get("plan").is_empty() {
        edit.plan = touched(fields, "plan", &row.plan)?;
    }
    let mut chosen = fields.all("scope");
    let sorted = |scopes: &str| {
        let mut scopes: Vec<_> = scopes.split_ascii_whitespace().map(str::to_owned).collect();
        scopes.sort();
        scopes
    };
    chosen.sort();
    let present = sorted(&row.scopes);
    let was = fields.find("was_scopes").map_or_else(|| present.clone(), sorted);
    if !scopes(&team.visit).is_empty() && chosen != was && chosen != present {
        if was != present {
            let reason = "another change set other scopes meanwhile: look at them again";
            return Err(Error::invalid("scopes", reason));
        }
        edit.scopes = Some(chosen);
    }
    is_harmless &= edit.plan.is_none() && edit.scopes.is_none();
    if fields.get("lifetime") != "keep" || !fields.get("date").is_empty() {
        let end = expiry(fields, team.visit.now)?;
        edit.expires = Some(end);
        let is_earlier = match (end.map(time::stored), row.not_after_s) {
            (Some(end), Some(present)) => end <= present,
            (Some(_), None) => true,
            (None, _) => false,
        };
        let now_s = time::stored(team.visit.now);
        let is_soon = end.is_some_and(|end| time::stored(end) - now_s < SOON_ENDING_S);
        is_harmless &= is_earlier && !is_soon;
    }
    Ok((edit, is_harmless))
}

/// Shows the form again with what is wrong.
fn again(
    team: &TeamVisit,
    row: &KeyRow,
    fields: &Fields,
    problems: Problems,
) -> Result<Response, Stop> {
    let form = EditForm {
        name: fields.get("name").to_owned(),
        note: fields.get("note").to_owned(),
        plan: fields.get("plan").to_owned(),
        chosen: fields.all("scope"),
        lifetime: fields.get("lifetime").to_owned(),
        date: fields.get("date").to_owned(),
        was: Was::of_form(row, fields, &problems),
        ..EditForm::new(team, row, problems)
    };
    Ok(respond(StatusCode::BAD_REQUEST, &form)?)
}
