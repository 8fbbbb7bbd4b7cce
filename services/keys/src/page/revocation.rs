//! The screen *Revoke*, for one key and for several.

use alloc::collections::BTreeMap;

use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use keytally::KeyId;

use super::fields::{Fields, Parameters};
use super::frame::{Frame, respond, show};
use super::problems::{FormField, Problems};
use super::refusal::{Refusal, Stop};
use super::usage_of::{PAGE_LEN, Point, day_of_keys};
use super::visit::TeamVisit;
use super::words::{Moment, ago, grouped, plural};
use crate::error::Error;
use crate::keys::KeyRow;
use crate::roles::Role;
use crate::time;

/// How long after its last use a key counts as in use, in seconds.
const RECENT_S: i64 = 86_400;

/// A key that is about to be revoked.
#[derive(Clone, Debug)]
struct Candidate {
    id: String,
    name: String,
    env: String,
    hint: String,
    last_used: Option<(String, Moment)>,
    admitted: i64,
    denied: i64,
    is_in_use: bool,
    /// Whether the last use is not in the counts yet.
    is_ahead: bool,
}

impl Candidate {
    /// Returns the requests of a day in words.
    fn requests(&self) -> String {
        match self.admitted + self.denied {
            0 => "no request in the last 24 hours".to_owned(),
            all => format!(
                "{} in the last 24 hours: {} admitted and {} denied",
                plural(all, "request"),
                grouped(self.admitted),
                grouped(self.denied)
            ),
        }
    }

    fn admitted_text(&self) -> String {
        grouped(self.admitted)
    }

    fn denied_text(&self) -> String {
        grouped(self.denied)
    }
}

/// Returns what to know of keys before they are revoked.
async fn candidates(team: &TeamVisit, rows: &[KeyRow]) -> Result<Vec<Candidate>, Stop> {
    let TeamVisit { visit, team_id, .. } = team;
    let key_ids: Vec<_> = rows.iter().map(|row| row.key_id).collect();
    let days = day_of_keys(visit.page.list(), *team_id, &key_ids, visit.now).await?;
    let sums = |day: Vec<Point>| {
        let sum = |part: fn(&Point) -> i64| day.iter().map(part).sum::<i64>();
        (sum(|hour| hour.admitted), sum(|hour| hour.denied + hour.forbidden))
    };
    let requests: BTreeMap<KeyId, (i64, i64)> =
        days.into_iter().map(|(id, day)| (id, sums(day))).collect();
    let now_s = time::stored(visit.now);
    let prefix = visit.page.list().gate().load().table().prefix();
    let candidate = |row: &KeyRow| {
        let (admitted, denied) = requests.get(&row.key_id).copied().unwrap_or_default();
        let is_recent = row.last_used_s.is_some_and(|at_s| now_s - at_s < RECENT_S);
        Candidate {
            id: row.key_id.to_string(),
            name: row.name.clone(),
            env: row.env.as_str().to_owned(),
            hint: row.hint(prefix),
            last_used: row.last_used_s.map(|at_s| (ago(at_s, visit.now), Moment(at_s))),
            admitted,
            denied,
            is_in_use: is_recent || admitted + denied > 0,
            is_ahead: is_recent && admitted + denied == 0,
        }
    };
    Ok(rows.iter().map(candidate).collect())
}

/// The fields of both forms.
const FIELDS: [FormField; 2] = [("why", "why", "Reason"), ("typed", "typed", "Confirmation")];

/// The page that requests a confirmation before a key is revoked.
#[derive(Template)]
#[template(path = "revoke.html")]
struct Form {
    frame: Frame,
    key: Candidate,
    why: String,
    typed: String,
    problems: Problems,
}

/// Returns the key, if it can be revoked.
async fn revocable(team: &TeamVisit, id: &str) -> Result<KeyRow, Stop> {
    let row = team.key(id).await?;
    team.visit.require(Role::Admin)?;
    if row.is_revoked {
        return Err(Refusal::new(StatusCode::CONFLICT, "The key is revoked already.").into());
    }
    Ok(row)
}

async fn form_page(team: &TeamVisit, row: KeyRow) -> Result<Form, Stop> {
    let frame = Frame::new(&team.visit, "keys", "Revoke").with_form();
    let mut candidates = candidates(team, &[row]).await?;
    let key = candidates.pop().ok_or_else(|| Refusal::missing("Your team has no such key."))?;
    let problems = Problems::none(&FIELDS);
    Ok(Form { frame, key, why: String::new(), typed: String::new(), problems })
}

/// Requests a confirmation before a key is revoked.
pub(super) async fn form(team: TeamVisit, Path(id): Path<String>) -> Result<Response, Stop> {
    let row = revocable(&team, &id).await?;
    Ok(show(&form_page(&team, row).await?)?)
}

/// Revokes a key.
pub(super) async fn revoke(
    mut team: TeamVisit,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<Response, Stop> {
    let row = revocable(&team, &id).await?;
    let (key_id, name) = (row.key_id, row.name.clone());
    let form = form_page(&team, row).await?;
    if form.key.is_in_use && fields.get("typed") != name.trim() {
        let reason = "the key is in use. Type its name exactly to revoke it";
        return again(form, &fields, Problems::one(&FIELDS, "typed", reason));
    }
    team.visit.prove(&fields).await?;
    let visit = &team.visit;
    let why = fields.get("why").to_owned();
    match visit.page.list().revoke_keys(vec![key_id], why, visit.caller()).await {
        Ok(revoked) => {
            let is_listed = revoked.iter().all(|revoked| revoked.is_listed);
            let word = if is_listed { "revoked" } else { "unlisted" };
            Ok(visit.done(&format!("/k/{key_id}?done={word}")))
        }
        Err(Error::Invalid { field, reason }) => {
            again(form, &fields, Problems::one(&FIELDS, field, &reason))
        }
        Err(error) => Err(error.into()),
    }
}

fn again(mut form: Form, fields: &Fields, problems: Problems) -> Result<Response, Stop> {
    form.frame.title = problems.title(&form.frame.title);
    let (why, typed) = (fields.get("why").to_owned(), fields.get("typed").to_owned());
    Ok(respond(StatusCode::BAD_REQUEST, &Form { why, typed, problems, ..form })?)
}

/// The page that requests a confirmation before several keys are revoked.
#[derive(Template)]
#[template(path = "bulk.html")]
struct BulkForm {
    frame: Frame,
    keys: Vec<Candidate>,
    count: String,
    why: String,
    typed: String,
    problems: Problems,
}

/// Returns the keys of these ids that are not revoked.
async fn chosen(team: &TeamVisit, ids: &[String]) -> Result<Vec<KeyRow>, Stop> {
    team.visit.require(Role::Admin)?;
    let mut rows: Vec<KeyRow> = Vec::new();
    for id in ids.iter().take(PAGE_LEN) {
        let row = team.key(id).await?;
        if !row.is_revoked && rows.iter().all(|other| other.key_id != row.key_id) {
            rows.push(row);
        }
    }
    if rows.is_empty() {
        let refusal =
            Refusal::new(StatusCode::BAD_REQUEST, "No key is ticked that can be revoked.");
        return Err(refusal.with_advice("Go back and tick the keys to revoke.").into());
    }
    Ok(rows)
}

async fn bulk_page(team: &TeamVisit, rows: &[KeyRow]) -> Result<BulkForm, Stop> {
    Ok(BulkForm {
        frame: Frame::new(&team.visit, "keys", "Revoke keys").with_form(),
        keys: candidates(team, rows).await?,
        count: rows.len().to_string(),
        why: String::new(),
        typed: String::new(),
        problems: Problems::none(&FIELDS),
    })
}

/// Requests a confirmation before several keys are revoked.
pub(super) async fn bulk_form(
    team: TeamVisit,
    Parameters(parameters): Parameters,
) -> Result<Response, Stop> {
    let rows = chosen(&team, &parameters.all("id")).await?;
    Ok(show(&bulk_page(&team, &rows).await?)?)
}

/// Revokes several keys under one lock.
pub(super) async fn bulk(mut team: TeamVisit, fields: Fields) -> Result<Response, Stop> {
    let rows = chosen(&team, &fields.all("id")).await?;
    let form = bulk_page(&team, &rows).await?;
    let why = fields.get("why").to_owned();
    let again = |mut form: BulkForm, why: &str, field, reason: &str| {
        let (why, typed) = (why.to_owned(), fields.get("typed").to_owned());
        let problems = Problems::one(&FIELDS, field, reason);
        form.frame.title = problems.title(&form.frame.title);
        respond(StatusCode::BAD_REQUEST, &BulkForm { why, typed, problems, ..form })
    };
    if fields.get("typed") != form.count {
        let reason = format!("type the number of keys, {}, to revoke them", form.count);
        return Ok(again(form, &why, "typed", &reason)?);
    }
    team.visit.prove(&fields).await?;
    let visit = &team.visit;
    let key_ids: Vec<_> = rows.iter().map(|row| row.key_id).collect();
    let count = key_ids.len();
    match visit.page.list().revoke_keys(key_ids, why.clone(), visit.caller()).await {
        Ok(_) => {}
        Err(Error::Invalid { field, reason }) => return Ok(again(form, &why, field, &reason)?),
        Err(error) => return Err(error.into()),
    }
    Ok(visit.done(&format!("?revoked={count}")))
}
