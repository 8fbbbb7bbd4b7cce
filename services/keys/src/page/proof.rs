//! The proof that a change needs: a new link or a passkey, unless the person gave one recently.

use askama::Template;
use axum::http::StatusCode;

use super::cookies;
use super::entrance::code_of;
use super::fields::Fields;
use super::frame::{Frame, respond};
use super::passkeys;
use super::refusal::{Refusal, Stop, sentence};
use super::state::LinkCommand;
use super::visit::Visit;
use crate::error::Error;
use crate::roles::Role;
use crate::sessions::{Attempt, Session};
use crate::teams;

/// The page that requests a proof before a change.
#[derive(Template)]
#[template(path = "confirm.html")]
struct Confirm<'a> {
    frame: Frame,
    /// The path of the change.
    action: &'a str,
    /// What was filled in.
    fields: Vec<(&'a str, &'a str)>,
    problem: String,
    /// The command that makes a link for the person; `None` if the person may not see it.
    link_command: Option<LinkCommand>,
    /// The arguments by which an operator makes a link for the person, if no other owner can.
    only_owner: Option<String>,
    /// Whether the person could add a passkey, and has none.
    offers_passkey: bool,
    /// The proof with a passkey, as HTML.
    passkeys: String,
}

impl Visit {
    /// Continues if the person proved recently to be the user, or does so by the field `code` or
    /// `passkey`. Otherwise, shows a page that requests a proof and keeps what was filled in.
    pub(super) async fn prove(&mut self, fields: &Fields) -> Result<(), Stop> {
        if self.session.is_proved(self.now) {
            return Ok(());
        }
        let (code, answer) = (fields.get("code"), fields.get(passkeys::FIELD));
        let mut problem = String::new();
        if !(code.is_empty() && answer.is_empty()) {
            let address = self.origin.address.as_deref();
            if let Some(seconds) = self.page.waits_s(address) {
                return Err(Refusal::too_many(seconds).into());
            }
            let user_id = self.session.user_id;
            if let Some(seconds) = self.page.account_waits_s(user_id) {
                return Err(Refusal::too_many_of_account(seconds).into());
            }
            let (session, origin) = (self.session.clone(), self.origin.clone());
            let account = session.account();
            let (what, proved) = if answer.is_empty() {
                let code = code_of(code);
                ("code", self.page.list().prove(session, code, origin, self.now).await)
            } else {
                ("passkey", passkeys::prove(&self.page, session, answer, origin, self.now).await)
            };
            match proved {
                Ok(token) => {
                    self.new_cookies.add(cookies::session(&self.page, Some(&token)));
                    if let Some(session) = self.page.list().session(&token, self.now).await? {
                        self.session = session;
                    }
                    return Ok(());
                }
                Err(Error::Invalid { reason, .. }) => {
                    self.page.count_failure(address);
                    self.page.count_account_failure(user_id);
                    let (list, origin, now) = (self.page.list(), self.origin.clone(), self.now);
                    list.log_failure(account, Attempt::Proof, what, &reason, origin, now).await?;
                    problem = format!("The {what} was not accepted: {}", sentence(&reason));
                }
                Err(error) => return Err(error.into()),
            }
        }
        let kept = fields.0.iter().filter(|(name, _)| name != "code" && name != passkeys::FIELD);
        let passkeys = passkeys::of_proof(&self.page, &self.session, self.now).await?;
        let offers_passkey = passkeys.is_empty() && passkeys::may_add(&self.page, &self.session);
        let screen = Confirm {
            frame: Frame::new(self, "", "Confirm that it is you"),
            action: &self.path,
            fields: kept.map(|(name, value)| (&**name, &**value)).collect(),
            problem,
            link_command: self.link_command(),
            only_owner: self.only_owner().await?,
            offers_passkey,
            passkeys,
        };
        // Scripts and people see that nothing was changed.
        Err(respond(StatusCode::FORBIDDEN, &screen)?.into())
    }

    /// Returns the command that makes a link for the person, if the person may see paths of the
    /// machine.
    fn link_command(&self) -> Option<LinkCommand> {
        let session = &self.session;
        let LinkCommand { mut line, variables } = match session.role {
            Role::Operator => self.page.settings().link_command.clone(),
            _ => self.page.public_link_command()?.clone(),
        };
        line.push_str(&self.link_arguments());
        Some(LinkCommand { line, variables })
    }

    /// Returns for whom a command makes a link, as its arguments; empty for an operator.
    fn link_arguments(&self) -> String {
        let Session { team_id, user_id, user, .. } = &self.session;
        match (team_id, user_id) {
            (Some(team_id), Some(_)) => format!(" --team {team_id} --user {}", word(user)),
            _ => String::new(),
        }
    }

    /// Returns the arguments of the command that makes a link for the person, if the person is the
    /// only owner of the team: no other member can make one.
    async fn only_owner(&self) -> Result<Option<String>, Error> {
        let Session { team_id: Some(team_id), user_id: Some(user_id), .. } = self.session else {
            return Ok(None);
        };
        let members = self.page.list().members(team_id).await?;
        let is_only = teams::only_owner(&members) == Some(user_id);
        Ok(is_only.then(|| self.link_arguments()))
    }
}

/// Returns a name as a word of a command, in quotes if the shell of this system needs them.
fn word(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"@._-".contains(&byte);
    match name {
        name if name.bytes().all(is_plain) => name.to_owned(),
        name if cfg!(windows) => format!("\"{name}\""),
        name => format!("'{}'", name.replace('\'', r"'\''")),
    }
}
