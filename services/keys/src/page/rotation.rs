//! The screen *Rotate*: a new secret, and how long the old one stays valid.

use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use keytally::{AdminError, Error as GateError};

use super::fields::Fields;
use super::frame::{Frame, respond, show};
use super::new_key::{form_id, secret_page, shown_before};
use super::problems::{FormField, Problems};
use super::refusal::{Refusal, Stop};
use super::usage_of::old_uses_of_keys;
use super::visit::TeamVisit;
use super::words::{Moment, ago, length, plural};
use crate::change::ROTATED;
use crate::codes::Code;
use crate::error::Error;
use crate::keys::KeyRow;
use crate::time;

/// The choices of how long the old secret stays valid: the value in seconds, and the text.
const GRACES: [(&str, &str); 4] = [
    ("0", "No time: it ends at once"),
    ("3600", "1 hour"),
    ("86400", "24 hours"),
    ("604800", "7 days"),
];

/// The fields of the form.
const FIELDS: [FormField; 5] = [
    (ROTATED, "rotated", "Last rotation"),
    ("grace", "grace", "Time of the old secret"),
    ("grace_s", "grace", "Time of the old secret"),
    ("hours", "hours", "Hours"),
    ("force", "force", "Oldest secret"),
];

/// The form.
#[derive(Template)]
#[template(path = "rotate.html")]
struct Form {
    frame: Frame,
    id: String,
    name: String,
    env: String,
    hint: String,
    form_id: String,
    /// When the key was last rotated.
    rotated: Option<Moment>,
    /// That time in Unix seconds as this form had it first; empty if there was no rotation.
    was_rotated: String,
    graces: [(&'static str, &'static str); 4],
    grace: String,
    hours: String,
    /// Until when the secret before the present one is valid.
    in_grace: Option<Moment>,
    expires: Option<Moment>,
    last_used: Option<(String, Moment)>,
    problems: Problems,
}

fn form_page(team: &TeamVisit, row: &KeyRow, problems: Problems) -> Result<Form, Stop> {
    let prefix = team.visit.page.list().gate().load().table().prefix();
    Ok(Form {
        frame: Frame::new(&team.visit, "keys", problems.title("Rotate")).with_form(),
        id: row.key_id.to_string(),
        name: row.name.clone(),
        env: row.env.as_str().to_owned(),
        hint: row.hint(prefix),
        rotated: row.rotated_s.map(Moment),
        was_rotated: row.rotated_s.map(|at_s| at_s.to_string()).unwrap_or_default(),
        form_id: Code::generate()?.expose().to_owned(),
        graces: GRACES,
        grace: "86400".to_owned(),
        hours: String::new(),
        in_grace: row.old_secret_until_s(team.visit.now).map(Moment),
        expires: row.not_after_s.map(Moment),
        last_used: row.last_used_s.map(|at_s| (ago(at_s, team.visit.now), Moment(at_s))),
        problems,
    })
}

/// Returns the key, if the person may rotate it.
async fn rotatable(team: &TeamVisit, id: &str) -> Result<KeyRow, Stop> {
    let row = team.key(id).await?;
    team.visit.require(team.settings.role_for(row.env.as_str()))?;
    if row.state(team.visit.now) != "active" {
        let sentence =
            format!("The key is {}, so it cannot be rotated.", row.state(team.visit.now));
        return Err(Refusal::new(StatusCode::CONFLICT, sentence).into());
    }
    Ok(row)
}

/// Shows the form.
pub(super) async fn form(team: TeamVisit, Path(id): Path<String>) -> Result<Response, Stop> {
    let row = rotatable(&team, &id).await?;
    Ok(show(&form_page(&team, &row, Problems::none(&FIELDS))?)?)
}

/// Rotates a key, and shows its new secret.
pub(super) async fn rotate(
    mut team: TeamVisit,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<Response, Stop> {
    let row = rotatable(&team, &id).await?;
    team.visit.prove(&fields).await?;
    let visit = &team.visit;
    let rotated = match grace_s(&fields, &row, time::stored(visit.now)) {
        Ok(grace_s) => {
            let mut caller = visit.caller();
            caller.idempotency_key = Some(form_id(&fields)?);
            let force = fields.is_on("force");
            // A form that was open while another one rotated the key must not end the new secret.
            let seen = fields.find("was_rotated").map(|at_s| at_s.parse().ok());
            visit.page.list().rotate_key_as_seen(row.key_id, grace_s, force, seen, caller).await
        }
        Err(error) => Err(error),
    };
    match rotated {
        Ok((key, row)) => {
            let until = row.old_secret_until_s(visit.now);
            Ok(secret_page(visit, &key, row, Some(until.map(Moment)))?)
        }
        Err(Error::Repeated { key_id }) => Err(shown_before(visit, key_id)?.into()),
        Err(Error::Invalid { field: ROTATED, reason }) => {
            after_another(&team, &fields, &id, ROTATED, &reason).await
        }
        Err(Error::Invalid { field, reason }) => {
            again(&team, &row, &fields, Problems::one(&FIELDS, field, &reason))
        }
        Err(Error::Gate(GateError::Admin { source: AdminError::InGrace { .. }, .. })) => {
            let reason = "a key has at most two secrets; tick that the oldest one ends now";
            after_another(&team, &fields, &id, "force", reason).await
        }
        Err(error) => Err(error.into()),
    }
}

/// Shows the form again after another rotation, or the page of a form that was sent before if the
/// same form made that rotation.
async fn after_another(
    team: &TeamVisit,
    fields: &Fields,
    id: &str,
    field: &str,
    reason: &str,
) -> Result<Response, Stop> {
    let visit = &team.visit;
    let mut caller = visit.caller();
    caller.idempotency_key = Some(form_id(fields)?);
    if let Some(key_id) = visit.page.list().answered_before(&caller).await? {
        return Err(shown_before(visit, key_id)?.into());
    }
    let row = team.key(id).await?;
    again(team, &row, fields, Problems::one(&FIELDS, field, reason))
}

/// Shows the form again with what is wrong.
fn again(
    team: &TeamVisit,
    row: &KeyRow,
    fields: &Fields,
    problems: Problems,
) -> Result<Response, Stop> {
    // The form stays stale until it names the other rotation.
    let was_rotated = fields.find("was_rotated").filter(|_| !problems.has(ROTATED));
    let was_rotated = was_rotated.map(str::to_owned);
    let form = form_page(team, row, problems)?;
    let form = Form {
        grace: fields.get("grace").to_owned(),
        hours: fields.get("hours").to_owned(),
        was_rotated: was_rotated.unwrap_or_else(|| form.was_rotated.clone()),
        ..form
    };
    Ok(respond(StatusCode::BAD_REQUEST, &form)?)
}

/// Returns for how long the old secret stays valid, never beyond the expiry of the key.
fn grace_s(fields: &Fields, row: &KeyRow, now_s: i64) -> crate::error::Result<u64> {
    let wrong = || Error::invalid("hours", "write a whole number of hours from 1 to 8760");
    let grace_s = match fields.get("grace") {
        // Without script, hours may be typed while another choice is ticked.
        grace if grace != "own" && !fields.get("hours").is_empty() => {
            let reason = "they are filled in, but another time is chosen; choose the number of \
                          hours, or empty it";
            return Err(Error::invalid("hours", reason));
        }
        "own" => {
            let hours = fields.get("hours").parse::<i64>().ok();
            hours.filter(|hours| (1..=8760).contains(hours)).ok_or_else(wrong)? * 3600
        }
        chosen => {
            let known = GRACES.iter().find(|(value, _)| *value == chosen);
            let unknown = || Error::invalid("grace", "choose one of the times");
            known.and_then(|(value, _)| value.parse().ok()).ok_or_else(unknown)?
        }
    };
    let rest_s = row.not_after_s.map_or(i64::MAX, |end| end.saturating_sub(now_s));
    if fields.get("grace") == "own" && grace_s > rest_s {
        let reason = format!(
            "the key itself ends in {}; write at most {} hours, or choose another time",
            length(rest_s),
            rest_s / 3600
        );
        return Err(Error::invalid("hours", reason));
    }
    Ok(u64::try_from(grace_s.min(rest_s)).unwrap_or(0))
}

/// The page that requests a confirmation before the old secret ends.
#[derive(Template)]
#[template(path = "end.html")]
struct End {
    frame: Frame,
    id: String,
    name: String,
    until: Moment,
    uses: String,
}

/// Requests a confirmation before the old secret ends.
pub(super) async fn end_form(team: TeamVisit, Path(id): Path<String>) -> Result<Response, Stop> {
    let row = rotatable(&team, &id).await?;
    let now = team.visit.now;
    let until = row.old_secret_until_s(now).ok_or_else(|| {
        Refusal::new(StatusCode::CONFLICT, "The key has no old secret that is still valid.")
    })?;
    let list = team.visit.page.list();
    let uses = old_uses_of_keys(list, team.team_id, &[row.key_id], now).await?;
    let uses = uses.get(&row.key_id).copied().unwrap_or(0);
    Ok(show(&End {
        frame: Frame::new(&team.visit, "keys", "End the old secret"),
        id: row.key_id.to_string(),
        name: row.name,
        until: Moment(until),
        uses: plural(uses, "request"),
    })?)
}

/// Ends the old secret of a key at once.
pub(super) async fn end(
    mut team: TeamVisit,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<Response, Stop> {
    let row = rotatable(&team, &id).await?;
    team.visit.prove(&fields).await?;
    let visit = &team.visit;
    visit.page.list().end_grace(row.key_id, visit.caller()).await?;
    Ok(visit.done(&format!("/k/{}?done=ended", row.key_id)))
}
