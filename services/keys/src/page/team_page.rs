//! The screen *Team*: use of all keys, members, and invitations.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;

use super::fields::{Fields, Parameters};
use super::frame::{Frame, respond, show as respond_ok};
use super::guard::HasSecret;
use super::numbers::{self, NumberLine, number_lines};
use super::picture::Picture;
use super::problems::{FormField, Problems};
use super::quotas::{QuotaLine, of_team};
use super::refusal::{Refusal, Stop};
use super::usage_of::{TeamUse, use_of_team};
use super::visit::TeamVisit;
use super::words::{Moment, ago, grouped};
use crate::codes::OpenLink;
use crate::error::Error;
use crate::keys::KeyFilter;
use crate::roles::Role;
use crate::teams::{Member, TeamSettings, only_owner};
use crate::time;
use crate::usage::Width;

/// The most groups of keys that the page shows.
const MOST_GROUPS: usize = 20;

/// What a group of keys was used for.
struct GroupLine {
    name: String,
    admitted: String,
    denied: String,
}

/// A range of the picture: its name, its text, the width and the number of its buckets.
const RANGES: [(&str, &str, Width, i64); 2] =
    [("24h", "24 hours", Width::Hour, 24), ("30d", "30 days", Width::Day, 30)];

/// Returns the range of a name, or that of a day.
fn chosen(range: &str) -> &'static (&'static str, &'static str, Width, i64) {
    RANGES.iter().find(|its| its.0 == range).unwrap_or(&RANGES[0])
}

/// A member as a line.
struct MemberLine {
    user: i64,
    name: String,
    role: String,
    added: Moment,
    joined: Option<Moment>,
    seen: Option<(String, Moment)>,
    /// When the last link ends that signs the member in; `None` if there is none, or if the reader
    /// may not know.
    link_ends: Option<Moment>,
    is_self: bool,
    /// Whether the member is the only owner, who can be neither removed nor of another role.
    is_only_owner: bool,
}

/// Returns a time of a member as a moment.
fn moment(text: &str) -> Moment {
    Moment(time::parse("at", text).map_or(0, time::stored))
}

/// A link that is not used yet, as a line.
struct LinkLine {
    id: String,
    user: String,
    role: &'static str,
    ends: Moment,
}

/// The use of all keys. A script requests it alone.
#[derive(Template)]
#[template(path = "team_use.html")]
struct Usage {
    root: String,
    quotas: Vec<QuotaLine>,
    range: &'static str,
    range_text: &'static str,
    ranges: [(&'static str, &'static str); 2],
    picture: Picture,
    admitted: String,
    old_secret: String,
    denied: String,
    numbers: Vec<NumberLine>,
    groups: Vec<GroupLine>,
}

/// The screen.
#[derive(Template)]
#[template(path = "team.html")]
struct Screen {
    frame: Frame,
    name: String,
    usage: Usage,
    members: Vec<MemberLine>,
    links: Vec<LinkLine>,
    roles: [&'static str; 4],
    may_change: bool,
    longest: String,
    live_role: &'static str,
    invited: String,
    problems: Problems,
}

/// The fields of the screen's forms.
const FIELDS: [FormField; 3] = [
    ("user", "user", "Name of the person"),
    ("longest", "longest", "Longest lifetime"),
    ("name", "name", "Name of the team"),
];

/// The names of the roles of a team.
const ROLES: [&str; 4] = ["viewer", "member", "admin", "owner"];

async fn screen(
    team: &TeamVisit,
    fields: &Fields,
    range: &str,
    problems: Problems,
) -> Result<Screen, Stop> {
    let TeamVisit { visit, team_id, .. } = team;
    let list = visit.page.list();
    let own = visit.session.user_id;
    let open = match visit.session.role >= Role::Owner {
        true => list.open_links(*team_id, visit.now).await?,
        false => Vec::new(),
    };
    let link_ends = |name: &str| {
        let its = open.iter().filter(|link| link.user == name);
        its.map(|link| link.ends_s).max().map(Moment)
    };
    let seen = |text: &String| {
        let Moment(at_s) = moment(text);
        (ago(at_s, visit.now), Moment(at_s))
    };
    let members = list.members(*team_id).await?;
    let only_owner = only_owner(&members);
    let line = |member: Member| MemberLine {
        is_self: Some(member.user) == own,
        is_only_owner: Some(member.user) == only_owner,
        user: member.user,
        link_ends: link_ends(&member.name),
        name: member.name,
        role: member.role,
        added: moment(&member.added),
        joined: member.joined.as_deref().map(moment),
        seen: member.seen.as_ref().map(seen),
    };
    let members = members.into_iter().map(line).collect();
    let link = |link: OpenLink| LinkLine {
        id: link.id(),
        user: link.user,
        role: link.role.as_str(),
        ends: Moment(link.ends_s),
    };
    let links = open.into_iter().map(link).collect();
    Ok(Screen {
        frame: Frame::new(visit, "team", problems.title("Team")),
        name: visit.session.team.clone(),
        usage: usage(team, range).await?,
        members,
        links,
        roles: ROLES,
        may_change: visit.session.role >= Role::Owner,
        longest: match fields.get("longest") {
            "" => team.settings.longest_days.map(|days| days.to_string()).unwrap_or_default(),
            longest => longest.to_owned(),
        },
        live_role: team.settings.live_role.as_str(),
        invited: fields.get("user").to_owned(),
        problems,
    })
}

/// Returns the team's limits now, and what its keys were used for in a range.
async fn usage(team: &TeamVisit, range: &str) -> Result<Usage, Stop> {
    let TeamVisit { visit, team_id, .. } = team;
    let list = visit.page.list();
    let &(range, range_text, width, count) = chosen(range);
    let TeamUse { points, envs } = use_of_team(list, *team_id, width, count, visit.now).await?;
    let mut envs: Vec<_> = envs.into_iter().collect();
    envs.sort_by_key(|(_, sums)| core::cmp::Reverse(sums.admitted));
    let groups = envs.into_iter().take(MOST_GROUPS).map(|(name, sums)| GroupLine {
        name,
        admitted: grouped(sums.admitted),
        denied: grouped(sums.denied),
    });
    Ok(Usage {
        root: visit.page.root().to_owned(),
        quotas: of_team(list, *team_id),
        range,
        range_text,
        ranges: RANGES.map(|(name, text, _, _)| (name, text)),
        admitted: grouped(points.iter().map(|point| point.admitted).sum()),
        old_secret: grouped(points.iter().map(|point| point.old_secret).sum()),
        denied: grouped(points.iter().map(|point| point.denied).sum()),
        numbers: number_lines(&points, width),
        groups: groups.collect(),
        picture: Picture::large(&points, width),
    })
}

/// Returns the numbers of the team's picture as a file.
pub(super) async fn csv(team: TeamVisit, parameters: Parameters) -> Result<Response, Stop> {
    let &(range, _, width, count) = chosen(parameters.get("range"));
    let TeamVisit { visit, team_id, .. } = &team;
    let use_of = use_of_team(visit.page.list(), *team_id, width, count, visit.now).await?;
    Ok(numbers::csv(&use_of.points, &format!("team-{team_id}-{range}")))
}

/// Shows the team.
pub(super) async fn show(team: TeamVisit, parameters: Parameters) -> Result<Response, Stop> {
    let done = match parameters.get("done") {
        "renamed" => "The team has its new name.",
        "role" => "The role is changed, also in sessions that are open.",
        "withdrawn" => "The link is withdrawn and signs in no longer.",
        "set" => {
            "The settings hold from the next change of a key on. Present keys stay as they are. Those \
             that end later than the rules permit are marked in the list."
        }
        "removed" => "The member is removed, and all sessions of the member ended. Keys stay.",
        _ => "",
    };
    let range = parameters.get("range");
    if team.visit.is_partial {
        return Ok(respond_ok(&usage(&team, range).await?)?);
    }
    let mut screen = screen(&team, &Fields::default(), range, Problems::none(&FIELDS)).await?;
    screen.frame = screen.frame.with_done(&team.visit, done);
    Ok(respond_ok(&screen)?)
}

/// Shows the page again with a value that is wrong, or an error.
async fn again(
    team: &TeamVisit,
    fields: &Fields,
    field: &'static str,
    error: Error,
) -> Result<Response, Stop> {
    match error {
        Error::Invalid { reason, .. } => {
            let problems = Problems::one(&FIELDS, field, &reason);
            let screen = screen(team, fields, "", problems).await?;
            Ok(respond(StatusCode::BAD_REQUEST, &screen)?)
        }
        error => Err(error.into()),
    }
}

/// Renames the team.
pub(super) async fn rename(mut team: TeamVisit, fields: Fields) -> Result<Response, Stop> {
    team.visit.require(Role::Owner)?;
    team.visit.prove(&fields).await?;
    let visit = &team.visit;
    match visit.page.list().rename_team(team.team_id, fields.get("name"), visit.caller()).await {
        Ok(_) => Ok(visit.done("/team?done=renamed")),
        Err(error) => again(&team, &fields, "name", error).await,
    }
}

/// Changes what the members may do.
pub(super) async fn set(mut team: TeamVisit, fields: Fields) -> Result<Response, Stop> {
    team.visit.require(Role::Owner)?;
    team.visit.prove(&fields).await?;
    let settings = match settings(&fields) {
        Ok(settings) => settings,
        Err(error) => return again(&team, &fields, "longest", error).await,
    };
    let visit = &team.visit;
    match visit.page.list().set_team(team.team_id, settings, visit.caller()).await {
        Ok(_) => Ok(visit.done("/team?done=set")),
        Err(error) => again(&team, &fields, "longest", error).await,
    }
}

/// Reads the settings of a form.
fn settings(fields: &Fields) -> crate::error::Result<TeamSettings> {
    let longest_days = match fields.get("longest") {
        "" => None,
        days => Some(days.parse().unwrap_or(0)),
    };
    let live_role = Role::of_team("live_role", fields.get("live_role"))?;
    Ok(TeamSettings { longest_days, live_role })
}

/// The page that shows an invitation once.
#[derive(Template)]
#[template(path = "invited.html")]
struct Invited {
    frame: Frame,
    user: String,
    role: &'static str,
    url: String,
    ends: Moment,
}

/// The page that requests a confirmation before a further link of a member is made.
#[derive(Template)]
#[template(path = "member_again.html")]
struct MemberAgain {
    frame: Frame,
    name: String,
    role: String,
    /// The role that was chosen, if it is another one.
    chosen: &'static str,
    joined: Option<Moment>,
    link_ends: Option<Moment>,
}

/// Returns the page that requests a confirmation before a further link of a member is made.
async fn confirm_again(team: &TeamVisit, member: Member, role: Role) -> Result<Response, Stop> {
    let visit = &team.visit;
    let links = visit.page.list().open_links(team.team_id, visit.now).await?;
    let its = links.iter().filter(|link| link.user == member.name);
    let screen = MemberAgain {
        frame: Frame::new(visit, "team", "Invite again"),
        link_ends: its.map(|link| link.ends_s).max().map(Moment),
        joined: member.joined.as_deref().map(moment),
        chosen: if member.role == role.as_str() { "" } else { role.as_str() },
        name: member.name,
        role: member.role,
    };
    Ok(respond(StatusCode::CONFLICT, &screen)?)
}

/// Invites a person: makes a link that signs the person in. Who is a member already gets one only
/// after a confirmation, and it is for the member's role.
pub(super) async fn invite(mut team: TeamVisit, fields: Fields) -> Result<Response, Stop> {
    team.visit.require(Role::Owner)?;
    let user = fields.get("user").to_owned();
    let mut role = match Role::of_team("role", fields.get("role")) {
        Ok(role) => role,
        Err(error) => return again(&team, &fields, "user", error).await,
    };
    let members = team.visit.page.list().members(team.team_id).await?;
    if let Some(member) = members.into_iter().find(|member| member.name == user) {
        if !fields.is_on("again") {
            return confirm_again(&team, member, role).await;
        }
        role = Role::of_team("role", &member.role)?;
    }
    team.visit.prove(&fields).await?;
    let visit = &team.visit;
    let list = visit.page.list();
    match list.create_invitation(team.team_id, &user, role, visit.caller()).await {
        Ok(link) => {
            let mut response = respond_ok(&Invited {
                frame: Frame::new(visit, "team", "Invitation").with_secret(),
                user,
                role: link.sign_in.role.as_str(),
                url: link.url(&visit.page.link_base()),
                ends: Moment(time::stored(link.ends)),
            })?;
            response.extensions_mut().insert(HasSecret);
            Ok(response)
        }
        Err(error) => again(&team, &fields, "user", error).await,
    }
}

/// Withdraws a link that is not used yet.
pub(super) async fn withdraw(team: TeamVisit, fields: Fields) -> Result<Response, Stop> {
    let visit = &team.visit;
    visit.require(Role::Owner)?;
    let id = fields.get("link").to_owned();
    match visit.page.list().withdraw_link(team.team_id, id, visit.caller()).await {
        Ok(()) => Ok(visit.done("/team?done=withdrawn")),
        Err(Error::NotFound { .. }) => {
            Err(Refusal::missing("The link was used or has ended already.").into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Returns the member of the team that a form names.
async fn member(team: &TeamVisit, text: &str) -> Result<Member, Stop> {
    let members = team.visit.page.list().members(team.team_id).await?;
    let found = members.into_iter().find(|member| member.user.to_string() == text);
    Ok(found.ok_or_else(|| Refusal::missing("Your team has no such member."))?)
}

/// Refuses to leave a team without an owner.
async fn keep_an_owner(team: &TeamVisit, changed: &Member) -> Result<(), Stop> {
    let members = team.visit.page.list().members(team.team_id).await?;
    if only_owner(&members) == Some(changed.user) {
        let sentence = "The team would have no owner, and its members could not be changed.";
        let refusal = Refusal::new(StatusCode::CONFLICT, sentence);
        let advice = "Make another member an owner first, in the list of members.";
        return Err(refusal.with_advice(advice).with_members().into());
    }
    Ok(())
}

/// Changes the role of a member.
pub(super) async fn set_role(mut team: TeamVisit, fields: Fields) -> Result<Response, Stop> {
    team.visit.require(Role::Owner)?;
    let member = member(&team, fields.get("user")).await?;
    let role = Role::of_team("role", fields.get("role"))?;
    if role != Role::Owner {
        keep_an_owner(&team, &member).await?;
    }
    team.visit.prove(&fields).await?;
    let visit = &team.visit;
    visit.page.list().set_member(team.team_id, &member.name, role, visit.caller()).await?;
    Ok(visit.done("/team?done=role"))
}

/// The page that requests a confirmation before a member is removed.
#[derive(Template)]
#[template(path = "remove.html")]
struct Removal {
    frame: Frame,
    user: i64,
    name: String,
    role: String,
}

/// Requests a confirmation before a member is removed.
pub(super) async fn removal(team: TeamVisit, parameters: Parameters) -> Result<Response, Stop> {
    team.visit.require(Role::Owner)?;
    let member = member(&team, parameters.get("user")).await?;
    keep_an_owner(&team, &member).await?;
    let Member { user, name, role, .. } = member;
    let frame = Frame::new(&team.visit, "team", "Remove member");
    Ok(respond_ok(&Removal { frame, user, name, role })?)
}

/// Removes a member, and ends the member's sessions.
pub(super) async fn remove(mut team: TeamVisit, fields: Fields) -> Result<Response, Stop> {
    team.visit.require(Role::Owner)?;
    let member = member(&team, fields.get("user")).await?;
    keep_an_owner(&team, &member).await?;
    team.visit.prove(&fields).await?;
    let visit = &team.visit;
    visit.page.list().remove_member(team.team_id, member.user, visit.caller()).await?;
    Ok(visit.done("/team?done=removed"))
}

/// The page that requests a confirmation before the team is deleted.
#[derive(Template)]
#[template(path = "delete.html")]
struct Deletion {
    frame: Frame,
    name: String,
    typed: String,
    /// The valid keys, because of which the team cannot be deleted.
    keys: i64,
    problems: Problems,
}

/// The fields of the form that deletes the team.
const DELETION: [FormField; 1] = [("typed", "typed", "Name of the team")];

async fn deletion_page(
    team: &TeamVisit,
    typed: &str,
    problems: Problems,
) -> Result<Deletion, Stop> {
    let visit = &team.visit;
    let valid = KeyFilter {
        team_id: Some(team.team_id),
        state: "active".to_owned(),
        ..KeyFilter::default()
    };
    Ok(Deletion {
        frame: Frame::new(visit, "team", problems.title("Delete team")).with_form(),
        name: visit.session.team.clone(),
        typed: typed.to_owned(),
        keys: visit.page.list().count_keys(&valid, visit.now).await?,
        problems,
    })
}

/// Requests a confirmation before the team is deleted.
pub(super) async fn deletion(team: TeamVisit) -> Result<Response, Stop> {
    team.visit.require(Role::Owner)?;
    Ok(respond_ok(&deletion_page(&team, "", Problems::none(&DELETION)).await?)?)
}

/// Deletes the team. The session of a member ends with it, and an operator chooses another team.
pub(super) async fn delete(mut team: TeamVisit, fields: Fields) -> Result<Response, Stop> {
    team.visit.require(Role::Owner)?;
    team.visit.prove(&fields).await?;
    let (visit, typed) = (&team.visit, fields.get("typed"));
    match visit.page.list().delete_team(team.team_id, typed, visit.caller()).await {
        Ok(()) => Ok(visit.done(match visit.session.role {
            Role::Operator => "/teams?done=deleted",
            _ => "/in?done=deleted",
        })),
        Err(Error::Invalid { field, reason }) => {
            let problems = Problems::one(&DELETION, field, &reason);
            let screen = deletion_page(&team, typed, problems).await?;
            Ok(respond(StatusCode::BAD_REQUEST, &screen)?)
        }
        Err(error) => Err(error.into()),
    }
}
