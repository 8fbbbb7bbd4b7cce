//! The commands, one file each.

mod account;
mod assign;
mod check;
mod copy;
mod create;
mod end_grace;
mod expire;
mod import;
mod issue;
mod limiter;
mod list;
mod migrate;
mod plan;
mod reset;
mod revoke;
mod rotate;
mod top;
mod usage;
mod verify;

pub use self::issue::revoke_unprinted;

use clap::Subcommand;

use crate::failure::Failure;
use crate::pepper::PepperSource;
use crate::status::Status;

/// The commands that work on a gate file.
#[derive(Subcommand)]
pub(crate) enum Command {
    Create(create::Create),
    Issue(issue::Issue),
    Import(import::Import),
    List(list::List),
    Rotate(rotate::Rotate),
    EndGrace(end_grace::EndGrace),
    Expire(expire::Expire),
    Revoke(revoke::Revoke),
    Assign(assign::Assign),
    Account(Box<account::Account>),
    Plan(Box<plan::Plan>),
    Usage(usage::Usage),
    Reset(reset::Reset),
    Check(check::Check),
    Top(top::Top),
    Verify(verify::Verify),
    Copy(copy::Copy),
    Limiter(limiter::Limiter),
    Migrate(Box<migrate::Migrate>),
}

impl Command {
    pub(crate) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        match self {
            Self::Create(command) => command.run(pepper),
            Self::Issue(command) => command.run(pepper),
            Self::Import(command) => command.run(pepper),
            Self::List(command) => command.run(pepper),
            Self::Rotate(command) => command.run(pepper),
            Self::EndGrace(command) => command.run(pepper),
            Self::Expire(command) => command.run(pepper),
            Self::Revoke(command) => command.run(pepper),
            Self::Assign(command) => command.run(pepper),
            Self::Account(command) => command.run(pepper),
            Self::Plan(command) => command.run(pepper),
            Self::Usage(command) => command.run(pepper),
            Self::Reset(command) => command.run(pepper),
            Self::Check(command) => command.run(pepper),
            Self::Top(command) => command.run(pepper),
            Self::Verify(command) => command.run(pepper),
            Self::Copy(command) => command.run(pepper),
            Self::Limiter(command) => command.run(),
            Self::Migrate(command) => command.run(pepper),
        }
    }
}
