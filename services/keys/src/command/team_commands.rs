//! The commands on teams, members, links and tokens.

use std::path::Path;

use clap::{Args, Subcommand};
use keytally::{KeyId, now};
use keytally_cli::internal::{
    Failure, OutputFormat, Status, check_pepper_order, parse_key_id, value_parser,
};
use serde_json::json;

use super::output::print;
use crate::change::Caller;
use crate::list::List;
use crate::roles::Role;
use crate::teams::{MAX_LONGEST_DAYS, TeamEdit};
use crate::{public_url, time};

/// The most entries that a list prints.
const MOST: i64 = 10_000;

#[derive(Subcommand, Debug)]
pub(super) enum Team {
    /// Make a team
    Create {
        /// Name of the team
        name: String,
        /// Number of the team, which is the account of its keys [default: the next free one]
        #[arg(long, value_name = "NUMBER", value_parser = value_parser(parse_team))]
        team: Option<u32>,
    },
    /// List the teams
    List,
    /// Change the name of a team, the longest lifetime of its keys, and who makes live ones
    ///
    /// Keys that exist stay as they are.
    #[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
    Set {
        /// Number of the team
        #[arg(value_parser = value_parser(parse_team))]
        team: u32,
        /// Name of the team
        #[arg(long, group = "change")]
        name: Option<String>,
        /// Days after which a key expires at the latest, 1 to 3650, or never
        #[arg(long, value_name = "DAYS", group = "change", value_parser = value_parser(parse_days))]
        longest_days: Option<Days>,
        /// Least role that makes and rotates keys of the environment live: member, admin or owner
        #[arg(long, value_name = "ROLE", group = "change", value_parser = value_parser(parse_live_role))]
        live_role: Option<Role>,
    },
}

/// The value of `--longest-days`: `None` for never.
#[derive(Clone, Copy, Debug)]
pub(super) struct Days(Option<u32>);

/// Parses the value of `--longest-days`.
fn parse_days(text: &str) -> Result<Days, String> {
    if text == "never" {
        return Ok(Days(None));
    }
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let days = text.parse().ok().filter(|days| is_plain && (1..=MAX_LONGEST_DAYS).contains(days));
    let reason = || format!("it must be a number of days from 1 to {MAX_LONGEST_DAYS}, or never");
    days.map(|days| Days(Some(days))).ok_or_else(reason)
}

/// Parses the value of `--live-role`.
fn parse_live_role(text: &str) -> Result<Role, String> {
    let role = Role::named(text).filter(|role| (Role::Member..=Role::Owner).contains(role));
    role.ok_or_else(|| "it must be member, admin or owner".to_owned())
}

impl Team {
    pub(super) async fn run(self, list: &List, format: OutputFormat) -> Result<Status, Failure> {
        match self {
            Self::Create { name, team } => {
                let team = list.create_team(team, &name, Caller::operator(now())).await?;
                print(format, &team, [format!("Made team {}: {}", team.team, team.name)])?;
            }
            Self::Set { team, name, longest_days, live_role } => {
                let longest_days = longest_days.map(|Days(days)| days);
                let edit = TeamEdit { name, longest_days, live_role };
                let team = list.edit_team(team, edit, Caller::operator(now())).await?;
                let line = format!("Team {}, {}: {}", team.team, team.name, team.settings);
                print(format, &team, [line])?;
            }
            Self::List => {
                let teams = list.teams(0, MOST).await?;
                let lines = teams.iter().map(|team| format!("{}  {}", team.team, team.name));
                print(format, &json!({ "teams": teams }), lines)?;
            }
        }
        Ok(Status::Success)
    }
}

#[derive(Subcommand, Debug)]
pub(super) enum Member {
    /// Add a member, or change a member's role
    Set {
        /// Number of the team
        #[arg(value_parser = value_parser(parse_team))]
        team: u32,
        /// Name of the user, such as a mail address
        name: String,
        /// viewer, member, admin or owner
        #[arg(long, default_value = "member", value_parser = value_parser(parse_role))]
        role: Role,
    },
    /// List the members of a team
    List {
        /// Number of the team
        #[arg(value_parser = value_parser(parse_team))]
        team: u32,
    },
    /// Remove a member, and end the member's sessions. Keys that the member made stay
    Remove {
        /// Number of the team
        #[arg(value_parser = value_parser(parse_team))]
        team: u32,
        /// Number of the user, which list shows
        user: i64,
    },
}

impl Member {
    pub(super) async fn run(self, list: &List, format: OutputFormat) -> Result<Status, Failure> {
        match self {
            Self::Set { team, name, role } => {
                let member = list.set_member(team, &name, role, Caller::operator(now())).await?;
                let line = format!(
                    "User {}, {}, is {} of team {team}",
                    member.user, member.name, member.role
                );
                print(format, &member, [line])?;
            }
            Self::List { team } => {
                list.team(team).await?;
                let members = list.members(team).await?;
                let line = |member: &crate::teams::Member| {
                    format!("{}  {}  {}", member.user, member.role, member.name)
                };
                let lines: Vec<_> = members.iter().map(line).collect();
                print(format, &json!({ "members": members }), lines)?;
            }
            Self::Remove { team, user } => {
                list.remove_member(team, user, Caller::operator(now())).await?;
                let line = format!("Removed user {user} from team {team}");
                print(format, &json!({ "team": team, "user": user }), [line])?;
            }
        }
        Ok(Status::Success)
    }
}

/// Make a one-time link that signs a user in to the page of keys
///
/// The link is valid for 10 minutes, and once. With --team and --user, a user who is not a member
/// becomes one with the role. A member keeps the role, and the session has the lesser of both.
/// Without them, the link is for an operator.
#[derive(Args, Debug)]
pub(super) struct Link {
    /// Number of the team
    #[arg(long, value_name = "NUMBER", requires = "user", value_parser = value_parser(parse_team))]
    team: Option<u32>,
    /// Name of the user
    #[arg(long, value_name = "NAME", requires = "team")]
    user: Option<String>,
    /// Role in the team: viewer, member, admin or owner [default: owner]
    #[arg(long, requires = "team", value_parser = value_parser(parse_role))]
    role: Option<Role>,
    /// URL of the service as people see it, with the path of --base-path [default: that with which
    /// keytally serve was last started on this gate]
    #[arg(long, value_name = "URL", value_parser = value_parser(public_url::parse_with_path))]
    public_url: Option<String>,
}

/// The URL of a service that has not recorded its own, because it was not started yet.
const DEFAULT_URL: &str = "http://localhost:8080";

impl Link {
    pub(super) async fn run(self, list: &List, format: OutputFormat) -> Result<Status, Failure> {
        let of_team = self.role.unwrap_or(Role::Owner);
        let role = if self.team.is_some() { of_team } else { Role::Operator };
        let (user, caller) = (self.user.as_deref(), Caller::operator(now()));
        let link = list.create_link(self.team, user, role, caller).await?;
        let base = match self.public_url {
            Some(url) => url,
            None => list.recorded_url().await?.unwrap_or_else(|| DEFAULT_URL.to_owned()),
        };
        let (url, ends) = (link.url(&base), time::shown(time::stored(link.ends)));
        let signed_in = link.sign_in.role;
        let value = json!({ "url": url, "role": signed_in, "ends": ends });
        let last =
            format!("It is valid once, until {ends}, and signs in as {}", signed_in.as_str());
        print(format, &value, [url.clone(), last])?;
        Ok(Status::Success)
    }
}

#[derive(Subcommand, Debug)]
pub(super) enum Token {
    /// Make a token, and print it once
    ///
    /// Requests to the JSON API send it in the header X-API-Key. Without --team, it is the token of
    /// an operator.
    Create {
        /// Name of the token, such as that of the program that uses it
        name: String,
        /// Number of the team
        #[arg(long, value_name = "NUMBER", value_parser = value_parser(parse_team))]
        team: Option<u32>,
        /// Role in the team: viewer, member, admin or owner [default: admin]
        #[arg(long, requires = "team", value_parser = value_parser(parse_role))]
        role: Option<Role>,
    },
    /// List the tokens
    List {
        /// Only those of this team
        #[arg(long, value_name = "NUMBER", value_parser = value_parser(parse_team))]
        team: Option<u32>,
    },
    /// Revoke a token. The next request with it is refused
    Revoke {
        /// Public name of the token, which list shows
        #[arg(value_name = "TOKEN_ID", value_parser = value_parser(parse_key_id))]
        token: KeyId,
    },
}

impl Token {
    pub(super) async fn run(self, list: &List, format: OutputFormat) -> Result<Status, Failure> {
        match self {
            Self::Create { name, team, role } => {
                let of_team = role.unwrap_or(Role::Admin);
                let role = if team.is_some() { of_team } else { Role::Operator };
                let caller = Caller::operator(now());
                for gate in [list.gate().load(), list.admin().load()] {
                    check_pepper_order(&gate, gate.path().unwrap_or(Path::new("")))?;
                }
                let (key, token) = list.create_token(team, role, &name, caller).await?;
                let mut value = json!(token);
                value["key"] = key.expose().into();
                print(format, &value, [key.expose().to_owned()])?;
            }
            Self::List { team } => {
                let tokens = list.tokens(team).await?;
                let line = |token: &crate::tokens::Token| {
                    let team = token.team.map_or_else(|| "-".to_owned(), |team| team.to_string());
                    let crate::tokens::Token { token, state, role, name, machine, .. } = token;
                    let machine = match machine {
                        Some(machine) if state == "absent" => format!("  of machine {machine}"),
                        _ => String::new(),
                    };
                    format!("{token}  {state}  team {team}  {role}  {name}{machine}")
                };
                let lines: Vec<_> = tokens.iter().map(line).collect();
                print(format, &json!({ "tokens": tokens }), lines)?;
            }
            Self::Revoke { token } => {
                list.revoke_token(None, token, Caller::operator(now())).await?;
                let value = json!({ "token": token.to_string() });
                print(format, &value, [format!("Revoked token {token}")])?;
            }
        }
        Ok(Status::Success)
    }
}

/// Parses the number of a team.
pub(super) fn parse_team(text: &str) -> Result<u32, String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|&number: &u32| is_plain && number > 0);
    number.ok_or_else(|| format!("it must be a whole number from 1 to {}", u32::MAX))
}

/// Parses a role of a team.
fn parse_role(text: &str) -> Result<Role, String> {
    Role::of_team("role", text).map_err(|_| "it must be viewer, member, admin or owner".to_owned())
}
