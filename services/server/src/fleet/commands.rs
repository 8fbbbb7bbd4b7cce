//! The commands `fleet`: what a machine's agent does, and which gates share their limits.

use core::cmp::Reverse;
use std::io;

use clap::{Args, Subcommand};
use keytally::{Address, AdminError, FleetFile, FleetSubject, FleetTable, now};
use keytally_cli::internal::{
    Align, Columns, Failure, OutputFormat, PepperSource, Status, number_parser, parse_key_id,
    pluralized,
};
use keytally_core::sync::Ordering;
use keytally_fleet::plan::credit::{CreditLayout, Units};
use keytally_fleet::plan::layout::{
    ABSENT_MS, KeysMode, KeysState, PageState, PageWord, Phase, ReplicasState,
};
use keytally_fleet::plan::words::{TallyWords, Word, Words as _};
use keytally_fleet::{CONNECTED_MS, FleetConfig, OnLoss, Subject};
use serde::Serialize;

use super::files::{FleetPath, Table, TableFile};
use super::report::{lacking, replicas_of};
use super::store::{StoreOptions, failure};

/// Share the limits of a gate or a limiter with other machines, and show what this machine has
/// leased
#[derive(Subcommand)]
pub(crate) enum FleetCommand {
    Join(Join),
    Leave(Leave),
    Status(FleetStatus),
    Top(Top),
    Reset(Box<Reset>),
}

impl FleetCommand {
    /// Runs the command.
    pub(crate) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        match self {
            Self::Join(command) => command.run(pepper),
            Self::Leave(command) => command.run(pepper),
            Self::Status(command) => command.run(pepper),
            Self::Top(command) => command.run(pepper),
            Self::Reset(command) => command.run(pepper),
        }
    }
}

/// Share the limits with the other machines of the fleet from now on
///
/// Every process that has the gate or limiter open then needs units that the machine's agent has
/// leased. Start the agent first, and let all servers open it with its fleet file: a process
/// without it refuses all requests, with 503. Run this on each machine.
#[derive(Args)]
pub(crate) struct Join {
    #[command(flatten)]
    table: TableFile,
    #[command(flatten)]
    file: FleetPath,
    #[command(flatten)]
    format: OutputFormat,
}

/// Count the requests of this machine alone from now on
///
/// Each machine then admits the whole limit. Stop the agent afterwards.
#[derive(Args)]
pub(crate) struct Leave {
    #[command(flatten)]
    table: TableFile,
    #[command(flatten)]
    format: OutputFormat,
}

/// Whether a gate or a limiter is in a fleet.
#[derive(Serialize)]
struct Membership {
    /// The path of the gate or limiter.
    gate: String,
    in_fleet: bool,
}

impl Join {
    fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        let table = self.table.open(pepper)?;
        let file = self.file.open(self.table.path(), &table)?;
        if file.try_lock()? {
            return Err(Failure::new(format!(
                "{}: no agent runs; start the agent of this {} first: keytally agent",
                file.path().display(),
                table.kind()
            )));
        }
        table.fleet().set_fleet(true)?;
        let gate = self.table.path().display();
        let joined = Membership { gate: gate.to_string(), in_fleet: true };
        self.format.print(&joined, |out| {
            writeln!(out, "the limits of {gate} are shared with the other machines of its fleet")
        })?;
        Ok(Status::Success)
    }
}

impl Leave {
    fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        self.table.open(pepper)?.fleet().set_fleet(false)?;
        let gate = self.table.path().display();
        let left = Membership { gate: gate.to_string(), in_fleet: false };
        self.format.print(&left, |out| {
            writeln!(out, "the limits of {gate} are those of this machine alone")
        })?;
        Ok(Status::Success)
    }
}

/// Show what the agent of this machine does, and the units that the machine holds
///
/// The exit status is 0 if an agent leads, its store answers, enough replicas confirm, and the gate
/// has all keys that are carried, else 3.
#[derive(Args)]
pub(crate) struct FleetStatus {
    #[command(flatten)]
    table: TableFile,
    #[command(flatten)]
    file: FleetPath,
    #[command(flatten)]
    format: OutputFormat,
}

/// What `fleet status` prints.
#[derive(Serialize)]
struct StatusView {
    gate: String,
    file: String,
    in_fleet: bool,
    /// `leading`, `unconfirmed`, `learning`, `cut` or `absent`.
    state: &'static str,
    /// Whether an agent holds the fleet file but has not looked for long.
    hangs: bool,
    /// Whether too few replicas of the store confirm.
    #[serde(skip)]
    replicas: Option<ReplicasState>,
    on_loss: Option<&'static str>,
    machines: u32,
    /// How long ago an agent last looked, in milliseconds. `None` if none has led.
    heartbeat_ms: Option<u64>,
    /// How many milliseconds the store's clock is ahead of that of this machine.
    clock_offset_ms: i64,
    lease_requests: u64,
    granted_requests: u64,
    #[serde(flatten)]
    held: Held,
    /// Some keys of the store that lease requests cannot use.
    unusable_keys: Vec<String>,
    /// `None` for a limiter, which has no keys.
    keys: Option<KeysView>,
}

/// How keys get to the other machines.
#[derive(Serialize)]
pub(crate) struct KeysView {
    /// `carried`, `list` or `off`.
    mode: &'static str,
    /// How long ago the gate last had all keys of the fleet, in milliseconds.
    pub(crate) age_ms: Option<u64>,
    /// The keys of other machines that the gate cannot hold.
    pub(crate) refused: u32,
    /// In how many milliseconds all keys are refused, if the store stays lost; 0 if they are.
    closes_in_ms: Option<u64>,
    /// Some of the machines whose plans have other limits than this one's.
    other_limits: Vec<String>,
}

impl KeysView {
    /// Returns what the agent says in a fleet file.
    pub(crate) fn of(file: &FleetFile<'_>) -> Self {
        let load = |word| file.page(word).load(Ordering::Acquire);
        let KeysState { mode, refused } = KeysState::from_bits(load(PageWord::Keys));
        let is_carried = mode == KeysMode::Carried;
        let (now_ms, [current, close]) =
            (now_ms(file), [PageWord::KeysCurrent, PageWord::KeysClose].map(load));
        let when = |at_ms: u64| (is_carried && at_ms > 0).then_some(at_ms);
        Self {
            mode: match mode {
                KeysMode::Off => "off",
                KeysMode::List => "list",
                KeysMode::Carried => "carried",
            },
            age_ms: when(current).map(|at_ms| now_ms.saturating_sub(at_ms)),
            refused,
            closes_in_ms: when(close).map(|at_ms| at_ms.saturating_sub(now_ms)),
            other_limits: file.page_texts(PageWord::OtherLimits).into_iter().collect(),
        }
    }

    /// Returns whether the gate may lack keys of the store: it refuses some, or was not compared
    /// with the store for longer than between two readings.
    fn lacks_some(&self) -> bool {
        self.is_carried() && (self.refused > 0 || self.is_out_of_date())
    }

    fn is_out_of_date(&self) -> bool {
        self.closes_in_ms == Some(0) || self.age_ms.is_none_or(|age_ms| age_ms > CONNECTED_MS)
    }

    /// Returns whether the agent carries keys to other machines.
    pub(crate) fn is_carried(&self) -> bool {
        self.mode == "carried"
    }

    fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        match (self.mode, self.age_ms, self.closes_in_ms) {
            ("off", ..) => writeln!(out, "keys: not carried to other machines"),
            ("list", ..) => writeln!(out, "keys: those of the list of keys"),
            (_, _, Some(0)) => {
                writeln!(out, "keys: all refused until the agent has read them from the store")
            }
            (_, None, _) => writeln!(out, "keys: not compared with those of the store yet"),
            (_, Some(age_ms), _) => {
                writeln!(out, "keys: as in the store {age_ms} ms ago, {} refused", self.refused)
            }
        }?;
        if self.is_carried() && self.is_out_of_date() {
            writeln!(out, "keys: may be out of date: the log of the agent has the reason")?;
        }
        if self.refused > 0 {
            writeln!(out, "keys: this gate lacks some: the log of the agent names one")?;
        }
        for machine in &self.other_limits {
            writeln!(out, "limits: {machine} has plans with other limits")?;
        }
        Ok(())
    }
}

impl FleetStatus {
    fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        let table = self.table.open(pepper)?;
        let file = self.file.open(self.table.path(), &table)?;
        let view = StatusView::new(&table.fleet(), &file);
        self.format.print(&view, |out| view.write(out))?;
        let lacks_keys = view.keys.as_ref().is_some_and(KeysView::lacks_some);
        let is_well = view.state == "leading" && !lacks_keys;
        Ok(if is_well { Status::Success } else { Status::Flawed })
    }
}

impl StatusView {
    fn new(table: &FleetTable<'_>, file: &FleetFile<'_>) -> Self {
        let load = |word| file.page(word).load(Ordering::Acquire);
        let PageState { phase, on_loss, machines } = PageState::from_bits(load(PageWord::State));
        let heartbeat = Some(load(PageWord::Heartbeat)).filter(|at_ms| *at_ms > 0);
        let heartbeat_ms = heartbeat.map(|at_ms| now_ms(file).saturating_sub(at_ms));
        let replicas = replicas_of(file);
        let state = match phase {
            _ if heartbeat_ms.is_none_or(|age_ms| age_ms > ABSENT_MS) => "absent",
            Phase::Absent => "absent",
            Phase::Learning => "learning",
            Phase::Leading if replicas.is_some() => "unconfirmed",
            Phase::Leading => "leading",
            Phase::Cut => "cut",
        };
        Self {
            gate: table.path().unwrap_or_else(|| file.path()).display().to_string(),
            file: file.path().display().to_string(),
            in_fleet: table.is_in_fleet(),
            state,
            hangs: state == "absent" && matches!(file.try_lock(), Ok(false)),
            replicas,
            on_loss: on_loss.map(OnLoss::as_str),
            machines,
            heartbeat_ms,
            clock_offset_ms: load(PageWord::Offset).cast_signed(),
            lease_requests: load(PageWord::Requests),
            granted_requests: load(PageWord::Granted),
            held: Held::of(file),
            unusable_keys: file.page_texts(PageWord::UnusableKeys).into_iter().collect(),
            keys: table.limiter().is_none().then(|| KeysView::of(file)),
        }
    }

    fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let membership = if self.in_fleet { "in a fleet" } else { "not in a fleet" };
        writeln!(out, "{}: {membership}, with the fleet file {}", self.gate, self.file)?;
        let state = match self.state {
            "leading" | "unconfirmed" => "it leads",
            "learning" => "the store is another one than before, and grants nothing for a second",
            "cut" => "it leads, and cannot use the store: its log has the reason",
            _ if self.hangs => "it hangs, and holds the fleet file: end it",
            _ => "none leads",
        };
        match self.heartbeat_ms {
            Some(age_ms) => writeln!(out, "agent: {state}; it last looked {age_ms} ms ago"),
            None => writeln!(out, "agent: no agent has led"),
        }?;
        if let Some(replicas) = self.replicas.filter(|_| self.state == "unconfirmed") {
            writeln!(out, "replicas: {}", lacking(replicas))?;
        }
        if let Some(on_loss) = self.on_loss {
            writeln!(out, "on loss of the store: {on_loss}")?;
        }
        let side = if self.clock_offset_ms < 0 { "behind" } else { "ahead" };
        let offset_ms = self.clock_offset_ms.unsigned_abs();
        writeln!(out, "clock: that of the store is {offset_ms} ms {side}")?;
        let (sent, granted) = (self.lease_requests, self.granted_requests);
        writeln!(out, "lease requests: {sent} sent, {granted} granted units")?;
        let Held { tallies, held_units, unspent_units } = self.held;
        let tallies = pluralized(tallies, "tally").replace("tallys", "tallies");
        writeln!(out, "units: {held_units} held for {tallies}, {unspent_units} of them not spent")?;
        for key in &self.unusable_keys {
            writeln!(
                out,
                "store: the key {key} is unusable, so its tally gets no units: delete it"
            )?;
        }
        self.keys.as_ref().map_or(Ok(()), |keys| keys.write(out))
    }
}

/// Show the tallies for which this machine holds most units
#[derive(Args)]
pub(crate) struct Top {
    #[command(flatten)]
    table: TableFile,
    #[command(flatten)]
    file: FleetPath,
    /// Maximum number of tallies to print
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, default_value_t = 40, value_parser = number_parser(0..=u16::MAX))]
    rows: u16,
    #[command(flatten)]
    format: OutputFormat,
}

/// What `fleet top` prints.
#[derive(Serialize)]
struct TopView {
    /// The heading of the subjects.
    #[serde(skip)]
    of: &'static str,
    gate: String,
    tallies: Vec<TallyView>,
}

/// The units of a tally.
#[derive(Serialize)]
struct TallyView {
    /// The key id, or `team.` and the account. For a limiter, the fingerprint of the subject, or
    /// `overflow.` and the bucket.
    subject: String,
    section: String,
    /// Shortest window first.
    windows: Vec<WindowView>,
}

/// The units of a window.
#[derive(Serialize)]
struct WindowView {
    window: String,
    limit: u32,
    /// The units that the store counts for this machine.
    held: u32,
    /// Those of the held ones that are not spent.
    unspent: u32,
    /// What no machine held, by the last reply of the store.
    left: u32,
}

impl Top {
    fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        let table = self.table.open(pepper)?;
        let file = self.file.open(self.table.path(), &table)?;
        let now_ms = now_ms(&file);
        let rows = usize::from(self.rows);
        let mut first: Vec<(u32, u32)> = Vec::new();
        for tally in 0..file.tallies() {
            if let Some((subject, words)) = holding(&file, tally) {
                let held = longest(&subject.layout, &words, Word::Holding, now_ms);
                first.push((held, tally));
            }
            // The buffer is sorted and truncated when it is full, which bounds time and memory.
            if first.len() >= 2 * rows.max(64) {
                keep_first(&mut first, rows);
            }
        }
        keep_first(&mut first, rows);
        let view = |(_, tally): &(u32, u32)| {
            let (subject, words) = holding(&file, *tally)?;
            let units = |word: Word| subject.layout.current(words.load(word), now_ms);
            let [held, unspent, left] = [Word::Holding, Word::Credits, Word::Left].map(units);
            let window = |(index, window): (usize, &keytally::Window)| WindowView {
                window: window.to_string(),
                limit: subject.layout.limit(index),
                held: held[index],
                unspent: unspent[index],
                left: left[index],
            };
            let windows = subject.layout.windows().iter().enumerate().map(window).collect();
            let (name, section) = subject.name.split_once(':').unwrap_or((&subject.name, ""));
            let shown = match table {
                Table::Gate(_) => name,
                // The name ends with the number of the table.
                Table::Limiter(_) | Table::Addresses(_) => {
                    let whose = name.rsplit_once('.').map_or(name, |(whose, _)| whose);
                    whose.get(FINGERPRINT_AT..).filter(|it| it.len() == 12).unwrap_or(whose)
                }
            };
            Some(TallyView { subject: shown.to_owned(), section: section.to_owned(), windows })
        };
        let tallies = first.iter().filter_map(view).collect();
        let of = match table {
            Table::Gate(_) => "KEY OR TEAM",
            Table::Limiter(_) | Table::Addresses(_) => "SUBJECT",
        };
        let view = TopView { of, gate: self.table.path().display().to_string(), tallies };
        self.format.print(&view, |out| view.write(out))?;
        Ok(Status::Success)
    }
}

impl TopView {
    fn write(&self, mut out: &mut dyn io::Write) -> io::Result<()> {
        if self.tallies.is_empty() {
            return writeln!(out, "{}: this machine holds no units", self.gate);
        }
        let heading = |text: &str, align| (text.to_owned(), align);
        let left = [self.of, "SECTION", "WINDOW"].map(|text| heading(text, Align::Left));
        let right = ["LIMIT", "HELD", "UNSPENT", "LEFT"].map(|text| heading(text, Align::Right));
        let mut columns = Columns::new(left.into_iter().chain(right));
        for tally in &self.tallies {
            for window in &tally.windows {
                let texts = [&tally.subject, &tally.section, &window.window].map(String::clone);
                let numbers = [window.limit, window.held, window.unspent, window.left];
                let numbers = numbers.map(|number| number.to_string());
                columns.push(texts.into_iter().chain(numbers).collect());
            }
        }
        columns.write(&mut out)
    }
}

/// Keeps the tallies for which most units are held, most first.
fn keep_first(first: &mut Vec<(u32, u32)>, rows: usize) {
    first.sort_by_key(|&(held, tally)| (Reverse(held), tally));
    first.truncate(rows);
}

/// Let a key, or a subject of a limiter, use its limits again on all machines
///
/// The store forgets what all machines have used in the windows that run, and the counts of this
/// machine are set to zero. Another machine that has used a whole limit alone still refuses: run
/// keytally reset there too, or keytally limiter reset. In a limiter of addresses, it is the
/// network of the longest prefix.
#[derive(Args)]
pub(crate) struct Reset {
    #[command(flatten)]
    table: TableFile,
    /// Key id, as `list` shows it, or text of the subject of a limiter
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    store: StoreOptions,
    #[command(flatten)]
    file: FleetPath,
    #[command(flatten)]
    format: OutputFormat,
}

/// What `fleet reset` prints.
#[derive(Serialize)]
struct ResetView {
    /// The key id, or the text of the subject.
    key_id: String,
    /// The windows of which the store had counted uses.
    windows: u64,
}

impl Reset {
    fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        let table = self.table.open(pepper)?;
        let file = self.file.open(self.table.path(), &table)?;
        let subjects: Vec<Subject> = self.subjects(&table, &file)?;
        let config = FleetConfig::new(self.store.name(), self.store.config(), OnLoss::Closed);
        let agents = file.page(PageWord::Fleet).load(Ordering::Acquire);
        if agents != 0 && agents != config.number() {
            return Err(Failure::usage(format!(
                "--fleet {}: the agent of this machine is in another fleet, with the fleet file {}",
                config.name,
                file.path().display()
            )));
        }
        let windows = keytally_fleet::reset(&config, &subjects).map_err(|error| failure(&error))?;
        match &table {
            Table::Gate(gate) => {
                let _ = gate.reset(parse_key_id(&self.id).map_err(Failure::usage)?);
            }
            Table::Limiter(limiter) => {
                limiter.reset(self.id.as_bytes());
            }
            Table::Addresses(limiter) => {
                Address::parse(&self.id).map(|address| limiter.reset(address));
            }
        }
        let what = if matches!(table, Table::Gate(_)) { "key" } else { "subject" };
        let view = ResetView { key_id: self.id, windows };
        self.format.print(&view, |out| {
            let (windows, id) = (pluralized(view.windows, "window"), &view.key_id);
            if view.windows == 0 {
                return writeln!(out, "{what} {id}: the store has no counts of it to reset");
            }
            writeln!(
                out,
                "the counts of {what} {id} are zero in the store: {windows}; units that machines \
                 have leased and not spent stay"
            )
        })?;
        Ok(Status::Success)
    }

    /// Returns the tallies of the key or subject, as the store names them.
    fn subjects(&self, table: &Table, file: &FleetFile<'_>) -> Result<Vec<Subject>, Failure> {
        let Table::Gate(gate) = table else {
            let named = table.fleet().named_subject(&self.id).ok_or_else(|| {
                Failure::usage(format!(
                    "\"{}\" is not an address, such as 203.0.113.9 or 2001:db8::1; this limiter \
                     counts addresses",
                    self.id
                ))
            });
            return Ok(vec![named?.into()]);
        };
        let key_id = parse_key_id(&self.id).map_err(Failure::usage)?;
        if gate.key(key_id).is_none() {
            return Err(AdminError::NoSuchKey(key_id).into());
        }
        let prefix = format!("{key_id}:");
        let subjects = (0..file.tallies()).filter_map(|tally| file.subject(tally));
        Ok(subjects.filter(|its| its.name.starts_with(&prefix)).map(Subject::from).collect())
    }
}

/// Where the fingerprint is in the number of a subject.
const FINGERPRINT_AT: usize = 4;

/// Returns the fleet's time.
fn now_ms(file: &FleetFile<'_>) -> u64 {
    let offset = file.page(PageWord::Offset).load(Ordering::Acquire).cast_signed();
    now().unix_ms().saturating_add_signed(offset)
}

/// Returns a tally and its words, if the machine may hold units for it.
fn holding<'f>(file: &'f FleetFile<'_>, tally: u32) -> Option<(FleetSubject, TallyWords<'f>)> {
    let words = file.words(tally).filter(|words| words.load(Word::Holding) != 0)?;
    let subject = file.subject(tally)?;
    let owner = file.owner(tally)?.load(Ordering::Acquire);
    (subject.owner == owner).then_some((subject, words))
}

/// Returns the units of the longest window in a word.
fn longest(layout: &CreditLayout, words: &TallyWords<'_>, word: Word, now_ms: u64) -> u32 {
    let units: Units = layout.current(words.load(word), now_ms);
    layout.len().checked_sub(1).map_or(0, |index| units[index])
}

/// The units of the longest windows that a machine holds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Held {
    /// The tallies for which it holds any.
    pub(crate) tallies: u64,
    pub(crate) held_units: u64,
    /// Those of the held ones that are not spent.
    pub(crate) unspent_units: u64,
}

impl Held {
    /// Returns those of a fleet file, of the windows of now. Reads the whole file.
    pub(crate) fn of(file: &FleetFile<'_>) -> Self {
        let now_ms = now_ms(file);
        let mut all = Self::default();
        for (subject, words) in (0..file.tallies()).filter_map(|tally| holding(file, tally)) {
            let [held, unspent] = [Word::Holding, Word::Credits]
                .map(|word| longest(&subject.layout, &words, word, now_ms));
            all.tallies += u64::from(held > 0);
            all.held_units += u64::from(held);
            all.unspent_units += u64::from(unspent);
        }
        all
    }
}
