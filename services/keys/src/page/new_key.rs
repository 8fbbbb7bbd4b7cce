//! The screen *New key*, and the page that shows a secret once.

use askama::Template;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use keytally::{Key, Name, Timestamp};

use super::fields::Fields;
use super::frame::{Frame, HTML, respond};
use super::guard::HasSecret;
use super::key_list::{envs, plans};
use super::problems::{FormField, Problems};
use super::refusal::{Refusal, Stop};
use super::visit::{TeamVisit, Visit};
use super::words::{Moment, limits, plural};
use crate::api::secret_body;
use crate::change::{Creation, LIVE};
use crate::codes::Code;
use crate::error::Error;
use crate::keys::KeyRow;
use crate::roles::Role;
use crate::teams::TeamSettings;
use crate::time;

/// The days that a key is valid unless the person chooses another time, or the team permits less.
const PROPOSED_DAYS: u32 = 90;

/// A choice of how long a key is valid: the value, and the text.
pub(super) type Lifetime = (String, String);

/// Returns the choices that a team permits. The longest lifetime that it permits is one of them.
pub(super) fn lifetimes(settings: &TeamSettings) -> Vec<Lifetime> {
    let text = |days: u32| match days {
        365 => "1 year".to_owned(),
        _ => plural(days.into(), "day"),
    };
    let most = settings.longest_days.unwrap_or(365);
    let mut days: Vec<_> = [30, PROPOSED_DAYS, 365].into_iter().filter(|&its| its < most).collect();
    days.push(most);
    let mut choices: Vec<_> = days.iter().map(|&its| (its.to_string(), text(its))).collect();
    if settings.longest_days.is_none() {
        choices.push(("never".to_owned(), "Never".to_owned()));
    }
    choices
}

/// Returns the days that a key of a team is valid unless the person chooses another time.
fn proposed(settings: &TeamSettings) -> String {
    settings.longest_days.map_or(PROPOSED_DAYS, |most| most.min(PROPOSED_DAYS)).to_string()
}

/// Returns the problem of a form whose values the list refused. A date that is too late is wrong in
/// the field of the date.
pub(super) fn refused(fields: &Fields, field: &str, reason: &str) -> Problems {
    let is_date = field == "expires" && fields.get("lifetime") == "date";
    Problems::one(&FIELDS, if is_date { "date" } else { field }, reason)
}

/// Returns the longest lifetime that a team permits, in words.
pub(super) fn longest(settings: &TeamSettings) -> Option<String> {
    settings.longest_days.map(|days| plural(days.into(), "day"))
}

/// The fields of the form that makes a key and of the one that changes it.
pub(super) const FIELDS: [FormField; 10] = [
    ("name", "name", "Name"),
    ("same_name", "name", "Name"),
    ("env", "env", "Environment"),
    ("plan", "plan", "Plan"),
    ("scopes", "scopes", "Scopes"),
    ("no_scope", "scopes", "Scopes"),
    ("lifetime", "lifetime", "Expiry"),
    ("expires", "lifetime", "Expiry"),
    ("date", "date", "Date"),
    ("note", "note", "Note"),
];

/// A plan of the gate in words.
pub(super) struct PlanChoice {
    pub(super) name: String,
    pub(super) limits: Vec<String>,
}

/// The form.
#[derive(Template)]
#[template(path = "new.html")]
struct Form {
    frame: Frame,
    /// Makes a form that is sent twice make one key.
    form_id: String,
    fields: Fields,
    plan: String,
    plans: Vec<PlanChoice>,
    scopes: Vec<String>,
    chosen: Vec<String>,
    envs: Vec<String>,
    lifetime: String,
    lifetimes: Vec<Lifetime>,
    proposed: String,
    /// The longest lifetime that the team permits, in words.
    longest: Option<String>,
    longest_hint: &'static str,
    /// The least role that makes keys of the environment `live`, if the person has less.
    live_role: &'static str,
    offers_no_scope: bool,
    offers_same_name: bool,
    problems: Problems,
}

impl Form {
    fn has(&self, scope: &str) -> bool {
        self.chosen.iter().any(|chosen| chosen == scope)
    }
}

/// Returns the plans of the gate in words.
pub(super) fn plan_choices(visit: &Visit) -> Vec<PlanChoice> {
    let gate = visit.page.list().gate().load();
    let choice = |(_, plan): (u8, keytally::Plan)| PlanChoice {
        name: plan.name.to_string(),
        limits: limits(&plan),
    };
    gate.table().plans().map(choice).collect()
}

/// Returns the scopes of the gate.
pub(super) fn scopes(visit: &Visit) -> Vec<String> {
    visit.page.list().gate().load().table().scopes().map(|scope| scope.to_string()).collect()
}

async fn form_page(team: &TeamVisit, fields: Fields, problems: Problems) -> Result<Form, Stop> {
    let TeamVisit { visit, team_id, .. } = team;
    let list = visit.page.list();
    let mut envs = envs(list, *team_id).await?;
    for env in ["test", LIVE] {
        if !envs.iter().any(|its| its == env) {
            envs.push(env.to_owned());
        }
    }
    let chosen = match fields.0.is_empty() {
        true => scopes(visit),
        false => fields.all("scope"),
    };
    let proposed = proposed(&team.settings);
    let lifetime = match fields.get("lifetime") {
        "" => proposed.clone(),
        chosen => chosen.to_owned(),
    };
    let plan = match fields.get("plan") {
        "" => plans(list).into_iter().next().unwrap_or_default(),
        chosen => chosen.to_owned(),
    };
    let form_id = match fields.get("form_id") {
        "" => Code::generate()?.expose().to_owned(),
        its => its.to_owned(),
    };
    let longest = longest(&team.settings);
    Ok(Form {
        frame: Frame::new(visit, "keys", problems.title("New key")).with_form(),
        form_id,
        plan,
        plans: plan_choices(visit),
        scopes: scopes(visit),
        chosen,
        envs,
        lifetime,
        lifetimes: lifetimes(&team.settings),
        proposed,
        longest_hint: if longest.is_some() { "longest-hint" } else { "" },
        longest,
        live_role: if team.may_make(LIVE) { "" } else { team.settings.live_role.as_str() },
        offers_no_scope: fields.is_on("no_scope") || problems.has("no_scope"),
        offers_same_name: fields.is_on("same_name") || problems.has("same_name"),
        problems,
        fields,
    })
}

/// Shows the form.
pub(super) async fn form(team: TeamVisit) -> Result<Response, Stop> {
    team.visit.require(Role::Member)?;
    let form = form_page(&team, Fields::default(), Problems::none(&FIELDS)).await?;
    Ok(respond(StatusCode::OK, &form)?)
}

/// Creates a key, and shows its secret.
pub(super) async fn create(mut team: TeamVisit, fields: Fields) -> Result<Response, Stop> {
    team.visit.require(Role::Member)?;
    team.visit.prove(&fields).await?;
    let mut problems = Problems::none(&FIELDS);
    let new = creation(&team, &fields, &mut problems);
    if let Some(new) = &new {
        questions(&team, new.env.as_str(), &new.name, &new.scopes, &fields, &mut problems).await?;
    }
    let mut caller = team.visit.caller();
    if !problems.is_empty() && !fields.get("form_id").is_empty() {
        // The key that the same form made has its name.
        caller.idempotency_key = Some(form_id(&fields)?);
        if let Some(key_id) = team.visit.page.list().answered_before(&caller).await? {
            return Err(shown_before(&team.visit, key_id)?.into());
        }
    }
    let new = match new {
        Some(new) if problems.is_empty() => new,
        Some(new) if !team.may_make(new.env.as_str()) => {
            return again(&team, fields, problems, StatusCode::FORBIDDEN).await;
        }
        _ => return again(&team, fields, problems, StatusCode::BAD_REQUEST).await,
    };
    let visit = &team.visit;
    caller.idempotency_key = Some(form_id(&fields)?);
    match visit.page.list().create_key(new, caller).await {
        Ok((key, row)) => Ok(secret_page(visit, &key, row, None)?),
        Err(Error::Repeated { key_id }) => Err(shown_before(visit, key_id)?.into()),
        Err(Error::Invalid { field, reason }) => {
            let problems = refused(&fields, field, &reason);
            again(&team, fields, problems, StatusCode::BAD_REQUEST).await
        }
        Err(error) => Err(error.into()),
    }
}

/// Adds what a person must confirm by a tick: a key without scopes, and a name that another key of
/// the environment has.
pub(super) async fn questions(
    team: &TeamVisit,
    env: &str,
    name: &str,
    chosen: &[String],
    fields: &Fields,
    problems: &mut Problems,
) -> Result<(), Stop> {
    if chosen.is_empty() && !scopes(&team.visit).is_empty() && !fields.is_on("no_scope") {
        let reason = "none is ticked, so the key works only where no scope is needed; tick a \
                      scope, or tick that you want none";
        problems.add("no_scope", reason);
    }
    if name.is_empty() || fields.is_on("same_name") {
        return Ok(());
    }
    let list = team.visit.page.list();
    if let Some(other) = list.active_key_named(team.team_id, env, name, team.visit.now).await? {
        let hint = other.hint(list.gate().load().table().prefix());
        let reason = format!(
            "the key {hint} of the same environment has this name already; write another one, or \
             tick that both have it"
        );
        problems.add("same_name", &reason);
    }
    Ok(())
}

/// Returns the id of a form.
pub(super) fn form_id(fields: &Fields) -> Result<String, Refusal> {
    let form_id = fields.get("form_id");
    let is_its = form_id.len() == 64 && form_id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_its {
        return Ok(form_id.to_owned());
    }
    Err(Refusal::new(StatusCode::BAD_REQUEST, "The form is not complete. Open the page again."))
}

/// Shows the form again with what is wrong.
async fn again(
    team: &TeamVisit,
    fields: Fields,
    problems: Problems,
    status: StatusCode,
) -> Result<Response, Stop> {
    Ok(respond(status, &form_page(team, fields, problems).await?)?)
}

/// Returns the key that a form describes. What is wrong is added.
fn creation(team: &TeamVisit, fields: &Fields, problems: &mut Problems) -> Option<Creation> {
    let env = Name::new(fields.get("env")).ok_or_else(|| {
        Error::invalid("env", "it must be 1 to 8 characters of a-z and 0-9, such as test")
    });
    let name = problems.take(crate::text::name("name", fields.get("name")));
    let env = problems.take(env);
    if env.is_some_and(|env| !team.may_make(env.as_str())) {
        let reason = format!(
            "keys of live need the role {}, and your role is {}; choose another environment, or \
             speak with an owner of the team",
            team.settings.live_role.as_str(),
            team.visit.session.role.as_str()
        );
        problems.add("env", &reason);
    }
    let expires = problems.take(expiry(fields, team.visit.now));
    let note = crate::text::note("note", &fields.get("note").replace("\r\n", "\n"));
    let note = problems.take(note);
    Some(Creation {
        team_id: team.team_id,
        env: env?,
        name: name?,
        note: note?,
        plan: Some(fields.get("plan").to_owned()).filter(|plan| !plan.is_empty()),
        scopes: fields.all("scope"),
        expires: expires?,
    })
}

/// Returns the expiry that a form names: a number of days, a date, or never. Without script, a date
/// may be typed while another choice is ticked. The person then says which one is meant.
pub(super) fn expiry(fields: &Fields, now: Timestamp) -> crate::error::Result<Option<Timestamp>> {
    let date = fields.get("date");
    match fields.get("lifetime") {
        lifetime if lifetime != "date" && !date.is_empty() => Err(Error::invalid(
            "date",
            "it is filled in, but another time is chosen; choose the date, or empty it",
        )),
        "never" => Ok(None),
        "date" => {
            let end = time::parse_day("date", date)
                .map_err(|_| Error::invalid("date", "it must be a date, such as 2027-01-31"))?;
            if end <= now {
                return Err(Error::invalid("date", "it must be later than today"));
            }
            Ok(Some(end))
        }
        days => {
            let days = days.parse::<u64>().ok().filter(|days| (1..=36_500).contains(days));
            let days = days.ok_or_else(|| Error::invalid("lifetime", "choose one of the times"))?;
            time::from_now("lifetime", now, days.saturating_mul(86_400)).map(Some)
        }
    }
}

/// The page of a form that was sent before.
#[derive(Template)]
#[template(path = "again.html")]
struct Again {
    frame: Frame,
    id: String,
}

/// Returns the page of a form that was sent before: its secret is not shown again.
pub(super) fn shown_before(visit: &Visit, key_id: keytally::KeyId) -> Result<Response, Refusal> {
    let frame = Frame::new(visit, "keys", "Shown before");
    respond(StatusCode::CONFLICT, &Again { frame, id: key_id.to_string() })
}

/// The page that shows a secret.
#[derive(Template)]
#[template(path = "secret.html")]
struct Secret<'a> {
    frame: Frame,
    key: &'a str,
    id: String,
    name: String,
    url: &'a str,
    /// The name of an environment variable.
    variable: String,
    /// Until when the old secret is valid, after a rotation.
    old_until: Option<Moment>,
    is_rotated: bool,
}

/// Returns the page with the secret of a key. It is not stored, compressed or shown again.
pub(super) fn secret_page(
    visit: &Visit,
    key: &Key,
    row: KeyRow,
    old_until: Option<Option<Moment>>,
) -> Result<Response, Refusal> {
    let is_rotated = old_until.is_some();
    let title = if is_rotated { "New secret" } else { "New key" };
    let screen = Secret {
        frame: Frame::new(visit, "keys", title).with_secret(),
        key: key.expose(),
        id: row.key_id.to_string(),
        name: row.name.clone(),
        url: &visit.page.settings().example_url,
        variable: variable(&row.name),
        old_until: old_until.flatten(),
        is_rotated,
    };
    let text = screen.render().map_err(|_| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "The page could not be written.")
            .with_advice("The key was made, but not shown. Rotate it or revoke it.")
    })?;
    let body = secret_body(text.into_bytes(), visit.page.list().clone(), row, visit.now);
    let mut response = body.into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(HTML));
    response.extensions_mut().insert(HasSecret);
    Ok(response)
}

/// Returns the name of an environment variable for a key, such as `BILLING_API_KEY`. It is
/// `API_KEY` for a name with other characters than the letters A to Z, digits, blanks and usual
/// punctuation, of which a part would be a riddle.
fn variable(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b" -_./:@+,()#&".contains(&byte);
    let words = name.split(|character: char| !character.is_ascii_alphanumeric());
    let words: Vec<_> =
        words.filter(|word| !word.is_empty()).map(str::to_ascii_uppercase).collect();
    let variable = words.join("_");
    let variable = variable.strip_suffix("API_KEY").unwrap_or(&variable).trim_end_matches('_');
    let is_name = variable.starts_with(|first: char| first.is_ascii_uppercase());
    if is_name && name.bytes().all(is_plain) {
        format!("{variable}_API_KEY")
    } else {
        "API_KEY".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_is_a_name_that_shells_accept() {
        for (name, expected) in [
            ("billing", "BILLING_API_KEY"),
            ("Web shop (EU)", "WEB_SHOP_EU_API_KEY"),
            ("1st", "API_KEY"),
            ("staging-eu_2/api", "STAGING_EU_2_API_API_KEY"),
            ("Billing API key", "BILLING_API_KEY"),
            ("API key", "API_KEY"),
            ("--", "API_KEY"),
            ("", "API_KEY"),
            ("<script>", "API_KEY"),
            ("<b>x</b>", "API_KEY"),
            ("x$(id)", "API_KEY"),
            ("a'b", "API_KEY"),
            ("Café", "API_KEY"),
            ("שלום 👋", "API_KEY"),
        ] {
            assert_eq!(variable(name), expected, "{name}");
        }
    }
}
