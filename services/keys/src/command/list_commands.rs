//! The commands on the whole list: compare, read the log, export, move to another database.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::Args;
use keytally::{KeyId, Timestamp, now};
use keytally_cli::internal::{
    Failure, OutputFormat, Status, parse_key_id, path_parser, pluralized, print_note, value_parser,
};
use serde_json::json;

use super::output::{output_error, print};
use super::team_commands::parse_team;
use crate::api::views::KeyView;
use crate::database::Database;
use crate::error::Error;
use crate::keys::KeyFilter;
use crate::list::List;
use crate::log::{self, Entry, Filter};
use crate::reconcile::{Comparison, Unknown};
use crate::{time, transfer};

/// The keys or entries that are read at once.
const PAGE: i64 = 1000;

/// Compare the list with the gate, and settle what differs
///
/// The stricter side wins: a key that one side has revoked is revoked in both, and the earlier
/// expiry and the shorter grace hold. A running service does this each minute. It does not follow a
/// database that is older than the gate, because an old copy was restored: run this then, with
/// --dry-run first. The exit status is 1 if something still differs.
#[derive(Args, Debug)]
pub(super) struct Reconcile {
    /// Report what differs, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Follow a database that is older than the gate, and enter keys into the list that only the
    /// gate has
    #[arg(long, conflicts_with = "revoke_unknown")]
    accept: bool,
    /// Follow a database that is older than the gate, and revoke keys that only the gate has
    #[arg(long)]
    revoke_unknown: bool,
}

impl Reconcile {
    pub(super) async fn run(self, list: &List, format: OutputFormat) -> Result<Status, Failure> {
        let unknown = match (self.accept, self.revoke_unknown) {
            (true, _) => Unknown::Adopt,
            (_, true) => Unknown::Revoke,
            _ => Unknown::Report,
        };
        let accept = self.accept || self.revoke_unknown;
        let comparison = Comparison { unknown, accept, is_dry: self.dry_run };
        let compared = list.compare(comparison, now()).await.map_err(|error| match error {
            error @ Error::Behind { .. } => Failure::new(format!(
                "{error} with --accept or --revoke-unknown; --dry-run shows what differs"
            )),
            error => error.into(),
        })?;
        let lines = compared.differences.iter().map(|difference| {
            let mark = if difference.settled { "settled" } else { "open" };
            format!("{}  {mark}  {}", difference.key_id, difference.what)
        });
        let last = format!(
            "Compared {}; {} differed, {} still differ",
            pluralized(compared.keys, "key"),
            compared.differences.len(),
            compared.open()
        );
        print(format, &compared, lines.chain([last]).collect::<Vec<_>>())?;
        Ok(if compared.open() == 0 { Status::Success } else { Status::Denied })
    }
}

/// Print the log, the newest entries first
#[derive(Args, Debug)]
pub(super) struct Log {
    /// Only entries of this team
    #[arg(long, value_name = "NUMBER", value_parser = value_parser(parse_team))]
    team: Option<u32>,
    /// Only entries of this key
    #[arg(long, value_name = "KEY_ID", value_parser = value_parser(parse_key_id))]
    key: Option<KeyId>,
    /// Only entries of this actor: as the log names it, such as 'user 3', a kind such as operator,
    /// or the name of a user
    #[arg(long, value_name = "ACTOR")]
    actor: Option<String>,
    /// Only entries of this action, such as key.revoke, or of a kind, such as key
    #[arg(long, value_name = "ACTION", value_parser = value_parser(parse_action))]
    action: Option<String>,
    /// Only entries from this time on, in UTC, such as 2027-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = value_parser(parse_time))]
    from: Option<Timestamp>,
    /// Only entries before this time
    #[arg(long, value_name = "TIME", value_parser = value_parser(parse_time))]
    to: Option<Timestamp>,
    /// Most entries, 1 to 100000
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=100_000))]
    limit: i64,
}

impl Log {
    pub(super) async fn run(self, list: &List, format: OutputFormat) -> Result<Status, Failure> {
        let Self { team, key, actor, action, from, to, limit } = self;
        if from.zip(to).is_some_and(|(from, to)| from >= to) {
            return Err(Failure::usage("--to: it must be later than --from"));
        }
        let actor = match actor {
            Some(text) => Some(list.actor("--actor", &text).await?),
            None => None,
        };
        let (action, before) = (action.unwrap_or_default(), None);
        let (team_id, key_id, key_ids) = (team, key, Vec::new());
        let filter = Filter { team_id, key_id, key_ids, actor, action, from, to, before, limit };
        let entries = list.log(&filter).await?;
        let lines = entries.iter().map(line).collect::<Vec<_>>();
        print(format, &json!({ "entries": entries }), lines)?;
        Ok(Status::Success)
    }
}

/// Parses an action of the log.
fn parse_action(text: &str) -> Result<String, String> {
    log::action("", text).map_err(reason)
}

/// Parses a time.
fn parse_time(text: &str) -> Result<Timestamp, String> {
    time::parse("", text).map_err(reason)
}

/// Returns what is wrong with a value, without its name.
fn reason(error: Error) -> String {
    match error {
        Error::Invalid { reason, .. } => reason,
        error => error.to_string(),
    }
}

fn line(entry: &Entry) -> String {
    let team = entry.team.map_or_else(String::new, |team| format!("  team {team}"));
    let key = entry.key_id.as_ref().map_or_else(String::new, |key| format!("  {key}"));
    let Entry { seq, at, actor_kind, actor, action, detail, .. } = entry;
    format!("{seq}  {at}  {actor_kind} {actor}{team}  {action}{key}  {detail}")
}

/// Print all teams, members, keys and log entries, one line of JSON each
///
/// No secret is in the list, so none is printed.
#[derive(Args, Debug)]
pub(super) struct Export {}

impl Export {
    pub(super) async fn run(self, list: &List, _: OutputFormat) -> Result<Status, Failure> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        let mut write = |value: serde_json::Value| {
            writeln!(out, "{value}").map_err(|error| output_error(&error))
        };
        let (now, prefix) = (now(), list.gate().load().table().prefix());
        let mut after = 0;
        loop {
            let teams = list.teams(after, PAGE).await?;
            let Some(last) = teams.last() else { break };
            after = last.team.into();
            for team in &teams {
                write(json!({ "team": team, "members": list.members(team.team).await? }))?;
            }
        }
        let mut filter = KeyFilter { limit: PAGE, ..KeyFilter::default() };
        loop {
            let rows = list.keys(&filter, now).await?;
            let Some(last) = rows.last() else { break };
            filter.after = Some(last.cursor(filter.sort));
            for row in &rows {
                write(json!({ "key": KeyView::new(row, prefix, now) }))?;
            }
        }
        let mut filter = Filter { limit: PAGE, ..Filter::default() };
        loop {
            let entries = list.log(&filter).await?;
            let Some(last) = entries.last() else { break };
            filter.before = Some(last.seq);
            for entry in &entries {
                write(json!({ "entry": entry }))?;
            }
        }
        out.flush().map_err(|error| output_error(&error))?;
        Ok(Status::Success)
    }
}

/// Copy the list to a new file, while the service runs or without it
///
/// Only a list in SQLite: copy a database of PostgreSQL by `pg_dump`. To restore the copy, stop the
/// service, remove keys.db-wal and keys.db-shm, and rename it to keys.db.
#[derive(Args, Debug)]
pub(super) struct Backup {
    /// File to create
    #[arg(value_name = "FILE", value_parser = path_parser())]
    copy: PathBuf,
}

impl Backup {
    pub(super) async fn run(self, list: &List, format: OutputFormat) -> Result<Status, Failure> {
        list.database().back_up(&self.copy).await.map_err(Error::from)?;
        let file = self.copy.display().to_string();
        let line = format!("Copied the list of keys to {file}");
        print(format, &json!({ "file": file }), [line])?;
        Ok(Status::Success)
    }
}

/// Move the whole list to another, empty database
///
/// Stop the service first, and start it with the other database afterwards. The list in this
/// database is then refused. Links and sessions are not copied.
#[derive(Args, Debug)]
pub(super) struct MigrateTo {
    /// URL of the other database: `postgres://USER@HOST/NAME`, or sqlite: and the path of a file
    url: String,
}

impl MigrateTo {
    pub(super) async fn run(self, list: &List, format: OutputFormat) -> Result<Status, Failure> {
        let other = Database::open(&self.url).await.map_err(Error::from)?;
        let copied = transfer::copy(list.database(), &other).await;
        let shown = other.to_string();
        other.close().await;
        let rows = copied?;
        let line = format!("Copied {} to {shown}", pluralized(rows, "row"));
        print(format, &json!({ "rows": rows, "database": shown }), [line])?;
        print_note("Start the service with this database: keytally serve --database URL");
        Ok(Status::Success)
    }
}
