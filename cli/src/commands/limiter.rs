//! The command `limiter`: the subjects of a limiter file.

use core::cmp::Reverse;
use core::time::Duration;
use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use keytally::redact::policy_error;
use keytally::{
    Address, AddressLimiter, AddressPolicy, AttachError, Error, Limiter as SubjectLimiter,
    MAX_SUBJECTS, ParsePolicyError, Policy, SubjectInfo, TableKind, Timestamp, Verdict, now,
};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::widgets::Paragraph;
use serde::Serialize;

use crate::arguments;
use crate::columns::{Align, Columns};
use crate::failure::Failure;
use crate::output::{OutputFormat, pluralized};
use crate::status::Status;
use crate::times;
use crate::views::QuotaUse;

/// Create a limiter, charge its subjects, show their use, or reset them
///
/// A limiter does not store the text of a subject, such as an address. Instead, the commands show
/// its fingerprint, 12 hexadecimal digits of its hash. The commands need no pepper.
///
/// In a limiter of addresses, a subject is a network. Each is shown with the windows of all
/// prefixes, and with the largest limit of each.
#[derive(Args)]
pub(crate) struct Limiter {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Create(Create),
    Check(Check),
    List(List),
    Top(Top),
    Reset(Reset),
}

/// The argument that names the limiter file.
#[derive(Args)]
struct LimiterFile {
    /// Limiter file
    #[arg(value_name = "FILE", value_parser = arguments::path_parser())]
    path: PathBuf,
}

/// Create a limiter in a new file
///
/// The file has mode 0600, and its space on the disk is reserved: about 27 bytes for each subject.
#[derive(Args)]
struct Create {
    #[command(flatten)]
    file: LimiterFile,
    /// Limits of each subject, such as "20/minute, 200/hour", or of addresses, such as
    /// "addresses: /64 20/minute; /48 1000/minute"
    #[arg(long, value_name = "POLICY")]
    policy: String,
    /// Maximum number of subjects with counts at a time
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, default_value_t = 100_000, value_parser = arguments::number_parser(1..=MAX_SUBJECTS))]
    capacity: u32,
    #[command(flatten)]
    format: OutputFormat,
}

/// Charge a subject as a server would for a request
///
/// The exit status is 0 if the request is admitted, else 1.
#[derive(Args)]
struct Check {
    #[command(flatten)]
    file: LimiterFile,
    /// Text of the subject, such as an address
    #[arg(value_name = "SUBJECT")]
    subject: String,
    /// Cost of the request, in units of the quotas
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, default_value_t = 1, value_parser = arguments::number_parser(0..=u32::MAX))]
    cost: u32,
    /// Fleet file of this machine, for a limiter that shares its limits with other machines: see
    /// `keytally agent`
    #[arg(long = "fleet", value_name = "FILE", value_parser = arguments::path_parser())]
    fleet_file: Option<PathBuf>,
    #[command(flatten)]
    format: OutputFormat,
}

/// List the subjects with their use
///
/// Use is shown as used/limit for each window. A row "shared" is the tally of the subjects that
/// found no slot in one bucket.
#[derive(Args)]
struct List {
    #[command(flatten)]
    file: LimiterFile,
    #[command(flatten)]
    format: OutputFormat,
}

/// Show the most used subjects live
///
/// The view is updated every second. Press q to quit.
#[derive(Args)]
struct Top {
    #[command(flatten)]
    file: LimiterFile,
    /// Print the subjects once as text and exit
    #[arg(long)]
    once: bool,
    /// With --once or --json: the maximum number of subjects to print
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, default_value_t = 40, value_parser = arguments::number_parser(0..=u16::MAX))]
    rows: u16,
    #[command(flatten)]
    format: OutputFormat,
}

/// Set the counts of a subject, or of all, to zero
#[derive(Args)]
struct Reset {
    #[command(flatten)]
    file: LimiterFile,
    #[command(flatten)]
    subjects: Subjects,
    #[command(flatten)]
    format: OutputFormat,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Subjects {
    /// Text of the subject, such as an address as the server counts it. In a limiter of addresses,
    /// an address, whose network of the longest prefix is reset
    #[arg(value_name = "SUBJECT")]
    subject: Option<String>,
    /// Set the counts of every subject to zero
    #[arg(long)]
    all: bool,
}

/// The interval between the frames of `top`.
const REFRESH: Duration = Duration::from_secs(1);

/// A limiter of any subjects, or of addresses.
enum Table {
    Subjects(Box<SubjectLimiter>),
    Addresses(Box<AddressLimiter>),
}

/// Evaluates `$work` with the limiter of either kind.
macro_rules! with_limiter {
    ($table:expr, |$limiter:ident| $work:expr) => {
        match $table {
            Table::Subjects($limiter) => $work,
            Table::Addresses($limiter) => $work,
        }
    };
}

impl Table {
    fn list(&self, time: Timestamp) -> Vec<ListedSubject> {
        with_limiter!(self, |limiter| limiter.table().list(time).map(ListedSubject::new).collect())
    }

    /// Charges a subject. Returns the verdict that decided.
    fn check(&self, subject: &str, cost: u32) -> Result<Verdict, Failure> {
        Ok(match self {
            Self::Subjects(limiter) => limiter.check(subject.as_bytes(), cost),
            Self::Addresses(limiter) => *limiter.check(address(subject)?, cost).decisive(),
        })
    }

    /// Sets the counts of a subject to zero. Returns its fingerprint.
    fn reset(&self, subject: &str) -> Result<u64, Failure> {
        match self {
            Self::Subjects(limiter) => {
                limiter.reset(subject.as_bytes());
                Ok(limiter.table().fingerprint(subject.as_bytes()))
            }
            Self::Addresses(limiter) => {
                let address = address(subject)?;
                limiter.reset(address);
                Ok(limiter.table().fingerprint(address))
            }
        }
    }
}

/// Parses the address of a client.
fn address(subject: &str) -> Result<Address, Failure> {
    Address::parse(subject).ok_or_else(|| {
        Failure::new(format!(
            "\"{subject}\" is not an address, such as 203.0.113.9 or 2001:db8::1; this limiter \
             counts addresses"
        ))
    })
}

/// What `check` prints.
#[derive(Serialize)]
struct Report {
    outcome: &'static str,
    http_status: u16,
    quotas: Vec<QuotaUse>,
    retry_after_s: Option<u32>,
}

/// What `create` prints.
#[derive(Serialize)]
struct Created {
    limiter: String,
    policy: String,
    capacity: u32,
}

impl Create {
    fn run(self) -> Result<(), Failure> {
        let (path, capacity) = (&self.file.path, self.capacity);
        let invalid = |problem: &ParsePolicyError| {
            Failure::usage(format!("--policy: {}", policy_error(problem)))
        };
        let policy = if AddressPolicy::is_beginning(&self.policy) {
            let policy: AddressPolicy = self.policy.parse().map_err(|error| invalid(&error))?;
            AddressLimiter::create(path, &policy, capacity)?;
            policy.to_string()
        } else {
            let policy: Policy = self.policy.parse().map_err(|error| invalid(&error))?;
            SubjectLimiter::create(path, &policy, capacity)?;
            policy.to_string()
        };
        let created = Created { limiter: path.display().to_string(), policy, capacity };
        self.format.print(&created, |out| {
            let Created { limiter, policy, capacity } = &created;
            writeln!(out, "created {limiter}: {policy} for each of {capacity} subjects")
        })
    }
}

impl Check {
    fn run(self) -> Result<Status, Failure> {
        let table = self.file.open()?;
        if let Some(path) = &self.fleet_file {
            with_limiter!(&table, |limiter| limiter.join(path))?;
        }
        let verdict = table.check(&self.subject, self.cost)?;
        let report = Report {
            outcome: verdict.outcome().as_str(),
            http_status: verdict.http_status(),
            quotas: QuotaUse::of_section("subject", verdict.quotas()).collect(),
            retry_after_s: verdict.retry_after_s(),
        };
        self.format.print(&report, |out| {
            writeln!(out, "{}", report.outcome)?;
            for quota in &report.quotas {
                let reset = times::rfc3339(quota.reset_unix_s);
                let (window, left) = (&quota.window, quota.remaining);
                writeln!(out, "  {window}: {left} of {} left, reset {reset}", quota.limit)?;
            }
            match report.retry_after_s {
                Some(seconds) => writeln!(out, "  retry after {seconds} s"),
                None => Ok(()),
            }
        })?;
        Ok(if verdict.is_admitted() { Status::Success } else { Status::Denied })
    }
}

/// A limiter and some of its subjects.
#[derive(Serialize)]
struct Listing {
    limiter: String,
    time: String,
    policy: Option<String>,
    capacity: u32,
    slots: u64,
    live_subjects: u64,
    refusals: u64,
    on_full: &'static str,
    subjects: Vec<ListedSubject>,
}

/// A subject, or an overflow tally.
#[derive(Serialize)]
struct ListedSubject {
    /// 12 hexadecimal digits; `null` for an overflow tally.
    fingerprint: Option<String>,
    quotas: Vec<QuotaUse>,
    /// By how many seconds the tally is ahead of the system clock; 0 if it is not.
    clock_ahead_s: u32,
}

/// What `reset` did: the subject that it names, and how many subjects had counts.
#[derive(Serialize)]
struct Done {
    fingerprint: Option<String>,
    reset_subjects: u64,
}

impl Limiter {
    pub(crate) fn run(self) -> Result<Status, Failure> {
        match self.command {
            Command::Create(create) => create.run(),
            Command::Check(check) => return check.run(),
            Command::List(list) => list.run(),
            Command::Top(top) => top.run(),
            Command::Reset(reset) => reset.run(),
        }?;
        Ok(Status::Success)
    }
}

impl LimiterFile {
    fn open(&self) -> Result<Table, Failure> {
        match SubjectLimiter::open(&self.path) {
            Err(Error::Attach {
                source: AttachError::Kind { found: TableKind::AddressLimiter, .. },
                ..
            }) => Ok(Table::Addresses(Box::new(AddressLimiter::open(&self.path)?))),
            opened => Ok(Table::Subjects(Box::new(opened?))),
        }
    }

    fn listing(&self, table: &Table) -> Listing {
        Listing::new(table, self.path.display().to_string())
    }
}

impl List {
    fn run(self) -> Result<(), Failure> {
        let mut listing = self.file.listing(&self.file.open()?);
        listing.subjects.sort_by(|one, other| one.fingerprint.cmp(&other.fingerprint));
        self.format.print(&listing, |out| listing.write(out))
    }
}

impl Top {
    fn run(self) -> Result<(), Failure> {
        let table = self.file.open()?;
        if self.once || self.format.json {
            let mut listing = self.file.listing(&table);
            listing.keep_most_used(self.rows.into());
            return self.format.print(&listing, |out| listing.write(out));
        }
        if !io::stdout().is_terminal() {
            return Err(Failure::new(
                "`limiter top` needs a terminal; use --once to print the subjects once as text",
            ));
        }
        let mut terminal = ratatui::try_init()?;
        let result = watch(&mut terminal, &self.file, &table);
        ratatui::restore();
        result
    }
}

/// Draws the most used subjects until the user quits.
fn watch(
    terminal: &mut ratatui::DefaultTerminal,
    file: &LimiterFile,
    table: &Table,
) -> Result<(), Failure> {
    loop {
        let mut listing = file.listing(table);
        listing.keep_most_used(terminal.size()?.height.into());
        let mut text = Vec::new();
        listing.write(&mut text)?;
        let text = String::from_utf8_lossy(&text);
        terminal.draw(|frame| frame.render_widget(Paragraph::new(text), frame.area()))?;
        if event::poll(REFRESH)? && quits(&event::read()?) {
            return Ok(());
        }
    }
}

/// Returns whether the user quits by this event.
fn quits(event: &Event) -> bool {
    match *event {
        Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) => match code {
            KeyCode::Char('c') => modifiers.contains(KeyModifiers::CONTROL),
            code => matches!(code, KeyCode::Char('q') | KeyCode::Esc),
        },
        _ => false,
    }
}

impl Reset {
    fn run(self) -> Result<(), Failure> {
        let table = self.file.open()?;
        let Some(subject) = self.subjects.subject else {
            let reset_subjects = with_limiter!(&table, |limiter| limiter.reset_all());
            let done = Done { fingerprint: None, reset_subjects };
            return self.format.print(&done, |out| {
                let subjects = pluralized(reset_subjects, "subject");
                writeln!(out, "all counts are zero; {subjects} had any")
            });
        };
        let before = table.list(now());
        let fingerprint = hex(table.reset(&subject)?);
        let had_any = before.iter().any(|listed| {
            listed.fingerprint.as_ref() == Some(&fingerprint)
                && listed.quotas.iter().any(|quota| quota.used > 0)
        });
        let reset_subjects = u64::from(had_any);
        let done = Done { fingerprint: Some(fingerprint.clone()), reset_subjects };
        self.format.print(&done, |out| match had_any {
            true => {
                writeln!(out, "the counts of the subject with fingerprint {fingerprint} are zero")
            }
            false => writeln!(out, "the subject with fingerprint {fingerprint} had no counts"),
        })
    }
}

impl Listing {
    fn new(table: &Table, limiter: String) -> Self {
        let time = now();
        let subjects = table.list(time);
        let live = subjects.iter().filter(|subject| subject.fingerprint.is_some()).count();
        with_limiter!(table, |table| Self {
            limiter,
            time: times::rfc3339(time.unix_s()),
            policy: table.policy().map(|policy| policy.to_string()),
            capacity: table.table().capacity(),
            slots: table.table().slots_total(),
            live_subjects: u64::try_from(live).unwrap_or(u64::MAX),
            refusals: table.refusals(),
            on_full: table.on_full().as_str(),
            subjects,
        })
    }

    /// Sorts the subjects, the most used first, and keeps the first `rows`.
    fn keep_most_used(&mut self, rows: usize) {
        self.subjects.sort_by_key(|subject| {
            let share = subject.quotas.iter().map(QuotaUse::share).max();
            let units = subject.quotas.last().map(|quota| quota.used);
            (Reverse((share, units)), subject.fingerprint.clone())
        });
        self.subjects.truncate(rows);
    }

    fn write(&self, mut out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{}: {} in {}, for {} by its capacity; {}; {}",
            self.limiter,
            pluralized(self.live_subjects, "live subject"),
            pluralized(self.slots, "slot"),
            self.capacity,
            self.policy.as_deref().unwrap_or("?"),
            self.time
        )?;
        let refused = pluralized(self.refusals, "request");
        writeln!(out, "on full: {}; {refused} found no slot since the creation", self.on_full)?;
        let Some(first) = self.subjects.first() else { return Ok(()) };
        let windows = first.quotas.iter().map(|quota| (quota.window.to_uppercase(), Align::Right));
        let heading = ("FINGERPRINT".to_owned(), Align::Left);
        let mut columns = Columns::new([heading].into_iter().chain(windows));
        for subject in &self.subjects {
            let quotas = subject.quotas.iter();
            let mut row = vec![subject.fingerprint.clone().unwrap_or_else(|| "shared".to_owned())];
            row.extend(quotas.map(|quota| format!("{}/{}", quota.used, quota.limit)));
            columns.push(row);
        }
        writeln!(out)?;
        columns.write(&mut out)
    }
}

impl ListedSubject {
    fn new(info: SubjectInfo) -> Self {
        Self {
            fingerprint: info.fingerprint.map(hex),
            quotas: QuotaUse::of_section("subject", &info.quotas).collect(),
            clock_ahead_s: info.clock_ahead_s,
        }
    }
}

/// Returns a fingerprint as text.
fn hex(fingerprint: u64) -> String {
    format!("{fingerprint:012x}")
}
