//! The command `keytally keys`: the list of keys from the shell. Its user is an operator.

mod list_commands;
mod output;
mod team_commands;

use alloc::sync::Arc;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use keytally::{Followed, Gate, Peppers};
use keytally_cli::internal::{
    Failure, OutputFormat, PepperSource, Status, path_parser, read_pepper_file,
};
use tokio::runtime::Runtime;

use crate::list::List;

/// The environment variable that holds the URL of the database.
pub const DATABASE_VARIABLE: &str = "KEYTALLY_DATABASE";

/// Manage teams, members, tokens and the log of the list of keys
///
/// The list is in a database, and the gate decides by it. These commands change both, while the
/// service runs or without it. Who runs them is an operator: may make teams, and acts for all of
/// them.
#[derive(Args, Debug)]
pub struct Keys {
    #[command(flatten)]
    files: Files,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

/// Where the gate and the database are.
#[derive(Args, Debug)]
struct Files {
    /// Folder with the gate and its pepper
    #[arg(long, global = true, value_name = "FOLDER", default_value = "./keytally-data", value_parser = path_parser())]
    data: PathBuf,
    /// Database of the list: sqlite: and the path of a file, or `postgres://USER@HOST/NAME`. Keep a
    /// password out of the arguments: set this by KEYTALLY_DATABASE, or the password by PGPASSWORD
    /// [default: keys.db in the folder]
    #[arg(long, global = true, value_name = "URL", env = DATABASE_VARIABLE, hide_env_values = true)]
    database: Option<String>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Make, list and change teams
    #[command(subcommand)]
    Team(team_commands::Team),
    /// Add, list and remove the members of a team
    #[command(subcommand)]
    Member(team_commands::Member),
    Link(team_commands::Link),
    /// Make, list and revoke tokens for the JSON API
    #[command(subcommand)]
    Token(team_commands::Token),
    Reconcile(list_commands::Reconcile),
    Log(list_commands::Log),
    Export(list_commands::Export),
    Backup(list_commands::Backup),
    MigrateTo(list_commands::MigrateTo),
}

impl Keys {
    /// Runs the command.
    ///
    /// # Errors
    /// A sentence on what failed.
    pub fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        let Self { files, json, command } = self;
        let format = OutputFormat { json };
        let runtime = Runtime::new()?;
        runtime.block_on(async {
            let list = files.open(pepper).await?;
            let result = match command {
                Command::Team(command) => command.run(&list, format).await,
                Command::Member(command) => command.run(&list, format).await,
                Command::Link(command) => command.run(&list, format).await,
                Command::Token(command) => command.run(&list, format).await,
                Command::Reconcile(command) => command.run(&list, format).await,
                Command::Log(command) => command.run(&list, format).await,
                Command::Export(command) => command.run(&list, format).await,
                Command::Backup(command) => command.run(&list, format).await,
                Command::MigrateTo(command) => command.run(&list, format).await,
            };
            // SQLite merges its write-ahead log when the last connection is closed.
            list.database().close().await;
            result
        })
    }
}

impl Files {
    /// Opens the list.
    async fn open(&self, pepper: &PepperSource) -> Result<List, Failure> {
        let peppers = self.peppers(pepper)?;
        let gate = Gate::open(self.data.join("api.gate"), peppers.clone())?;
        let gate = Arc::new(Followed::from_gate(gate, peppers.clone(), Ok)?);
        let opened =
            crate::open::open_existing(&self.data, self.database.as_deref(), &peppers).await?;
        Ok(opened.list(gate))
    }

    /// Reads the peppers that are given, or those of the folder.
    fn peppers(&self, pepper: &PepperSource) -> Result<Peppers, Failure> {
        if let Some(peppers) = pepper.load()? {
            return Ok(peppers);
        }
        read_pepper_file(Path::new(&self.data.join("pepper")))
    }
}
