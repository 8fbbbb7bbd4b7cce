//! The command `top`: a live view of the most used keys.
//!
//! Each frame is drawn from one [`Sample`]. `--once` writes one frame as text.

use core::cmp::Reverse;
use core::time::Duration;
use std::io::{self, IsTerminal as _, Write};

use clap::Args;
use keytally::KeyInfo;
use keytally::Timestamp;
use keytally::{Gate, now};
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row, Table, Widget};
use serde::Serialize;

use super::list::Summary;
use crate::arguments;
use crate::failure::Failure;
use crate::gate_file::GateFile;
use crate::output::{OutputFormat, pluralized};
use crate::pepper::PepperSource;
use crate::status::Status;
use crate::times;
use crate::views::{ListedKey, QuotaUse, quota_names};

/// Show the most used keys live, with bars for their quotas
///
/// The view is updated every second. Press s to sort, / to filter, ? for help, q to quit. A narrow
/// terminal shows fewer columns, but never part of a number.
#[derive(Args)]
pub(crate) struct Top {
    #[command(flatten)]
    gate: GateFile,
    /// Print one frame as text and exit
    #[arg(long)]
    once: bool,
    /// With --once or --json: the maximum number of keys to print
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, default_value_t = 40, value_parser = arguments::number_parser(0..=u16::MAX))]
    rows: u16,
    #[command(flatten)]
    format: OutputFormat,
}

/// The interval between frames.
const REFRESH: Duration = Duration::from_secs(1);

/// The minimum width of a frame that is printed as text, in columns.
const TEXT_WIDTH: u16 = 140;

/// The width of a quota's bar, in columns: normal, and in a narrow terminal.
const BAR_WIDTH: u32 = 10;
const SHORT_BAR_WIDTH: u32 = 5;

/// The maximum number of lines of each part of the header and of the footer.
const MAX_LINES: usize = 4;

/// The maximum length of the filter, in characters.
const MAX_FILTER_LEN: usize = 32;

/// The data of one frame.
#[derive(Serialize)]
struct Sample {
    #[serde(flatten)]
    summary: Summary,
    time: String,
    #[serde(skip)]
    time_s: u64,
    /// The windows of all plans, shortest first.
    #[serde(skip)]
    windows: Vec<String>,
    /// The number of keys that match the filter.
    #[serde(skip)]
    matching: usize,
    /// The first of the matching keys in the sort order.
    keys: Vec<ListedKey>,
}

/// The user's choices, and what the next key press means.
#[derive(Debug, Default)]
struct View {
    sort: Sort,
    filter: String,
    mode: Mode,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sort {
    /// The largest used share of a quota first, then the most units in the longest window.
    #[default]
    Share,
    /// The most recently used first.
    LastUse,
    /// The smallest account number first.
    Account,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Watch,
    /// The user types the filter.
    Filter,
    Help,
}

const HELP: [(&str, &str); 5] = [
    ("s", "sort by share of the quota, by last use, by account"),
    ("/", "filter by any text in the row of a key; Enter applies it"),
    ("Esc", "close the filter or this help, else quit"),
    ("?", "show or close this help"),
    ("q", "quit"),
];

impl Top {
    pub(crate) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        let gate = self.gate.open(pepper)?;
        let path = self.gate.path().display().to_string();
        if self.once || self.format.json {
            let sample = Sample::take(&gate, path, self.rows.into(), &View::default(), now());
            self.format.print(&sample, |out| sample.write(out))?;
            return Ok(Status::Success);
        }
        if !io::stdout().is_terminal() {
            return Err(Failure::new(
                "`top` needs a terminal; use --once to print one frame as text",
            ));
        }
        let mut terminal = ratatui::try_init()?;
        let result = watch(&mut terminal, &gate, &path);
        ratatui::restore();
        result?;
        Ok(Status::Success)
    }
}

/// Draws frames until the user quits.
fn watch(terminal: &mut ratatui::DefaultTerminal, gate: &Gate, path: &str) -> Result<(), Failure> {
    let mut view = View::default();
    loop {
        // The terminal has no room for more keys than lines.
        let rows = terminal.size()?.height;
        let sample = Sample::take(gate, path.to_owned(), rows.into(), &view, now());
        terminal.draw(|frame: &mut Frame<'_>| {
            sample.draw(frame.area(), frame.buffer_mut(), Some(&view));
        })?;
        if event::poll(REFRESH)? && view.handle(&event::read()?) {
            return Ok(());
        }
    }
}

impl View {
    /// Handles an event. Returns whether the user quits.
    fn handle(&mut self, event: &Event) -> bool {
        let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) = *event else {
            return false;
        };
        if modifiers.contains(KeyModifiers::CONTROL) {
            return code == KeyCode::Char('c');
        }
        match (self.mode, code) {
            (Mode::Filter, KeyCode::Char(character))
                if self.filter.chars().count() < MAX_FILTER_LEN =>
            {
                self.filter.push(character);
            }
            (Mode::Filter, KeyCode::Char(_)) => {}
            (Mode::Filter, KeyCode::Backspace) => drop(self.filter.pop()),
            (Mode::Filter, KeyCode::Enter)
            | (Mode::Help, KeyCode::Esc | KeyCode::Char('?' | 'h')) => {
                self.mode = Mode::Watch;
            }
            (Mode::Filter, KeyCode::Esc) => {
                self.filter.clear();
                self.mode = Mode::Watch;
            }
            (Mode::Watch, KeyCode::Esc) if !self.filter.is_empty() => self.filter.clear(),
            (Mode::Watch, KeyCode::Char('s')) => self.sort = self.sort.next(),
            (Mode::Watch, KeyCode::Char('/')) => self.mode = Mode::Filter,
            (Mode::Watch, KeyCode::Char('?' | 'h')) => self.mode = Mode::Help,
            (_, KeyCode::Char('q') | KeyCode::Esc) => return true,
            _ => {}
        }
        false
    }

    /// Returns whether a key matches the filter.
    fn matches(&self, key: &ListedKey) -> bool {
        let filter = self.filter.to_lowercase();
        let about = &key.about;
        let account = about.account.to_string();
        let texts =
            [about.hint.as_str(), &about.key_id, &account, about.env(), about.plan(), key.state];
        filter.is_empty() || texts.iter().any(|text| text.to_lowercase().contains(&filter))
    }
}

impl Sort {
    /// Returns the sort order that the key `s` selects next.
    fn next(self) -> Self {
        match self {
            Self::Share => Self::LastUse,
            Self::LastUse => Self::Account,
            Self::Account => Self::Share,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Share => "share",
            Self::LastUse => "last use",
            Self::Account => "account",
        }
    }

    /// Sorts keys, each with its share, and keeps the first `rows`.
    fn keep_first(self, keys: &mut Vec<(u32, KeyInfo)>, rows: usize) {
        let units = |info: &KeyInfo| info.quotas.longest().map_or(0, |quota| quota.used());
        match self {
            Self::Share => {
                keys.sort_by_key(|(share, info)| (Reverse((*share, units(info))), info.key_id));
            }
            Self::LastUse => keys.sort_by_key(|(_, info)| (Reverse(info.last_used), info.key_id)),
            Self::Account => keys.sort_by_key(|(_, info)| (info.account, info.key_id)),
        }
        keys.truncate(rows);
    }
}

impl Sample {
    /// Reads all keys of the gate and keeps the first `rows` of the view.
    fn take(gate: &Gate, path: String, rows: usize, view: &View, now: Timestamp) -> Self {
        let mut summary = Summary::new(gate, path, now);
        // The buffer is sorted and truncated whenever it is full, which bounds time and memory.
        let buffer_len = rows.saturating_mul(2).max(64);
        let mut first: Vec<(u32, KeyInfo)> = Vec::new();
        let mut matching = 0;
        for info in gate.table().list(now) {
            summary.count(&info);
            if !view.filter.is_empty() && !view.matches(&ListedKey::new(&info, gate, now)) {
                continue;
            }
            matching += 1;
            let share =
                QuotaUse::of_key(&info, gate, now).iter().map(QuotaUse::share).max().unwrap_or(0);
            first.push((share, info));
            if first.len() >= buffer_len {
                view.sort.keep_first(&mut first, rows);
            }
        }
        view.sort.keep_first(&mut first, rows);
        let windows = quota_names(gate);
        let keys = first.iter().map(|(_, info)| ListedKey::new(info, gate, now)).collect();
        Self {
            summary,
            time: times::rfc3339(now.unix_s()),
            time_s: now.unix_s(),
            windows,
            matching,
            keys,
        }
    }

    /// Writes a frame as text, wide enough for all columns.
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let width =
            u16::try_from(width_of(&self.columns(BAR_WIDTH))).unwrap_or(u16::MAX).max(TEXT_WIDTH);
        let rows = self.header(width.into()).len() + 2 + self.keys.len();
        let area = Rect::new(0, 0, width, u16::try_from(rows).unwrap_or(u16::MAX));
        let mut buffer = Buffer::empty(area);
        self.draw(area, &mut buffer, None);
        for line in text_of(&buffer) {
            writeln!(out, "{line}")?;
        }
        Ok(())
    }

    /// Draws the frame. A live view has a footer.
    fn draw(&self, area: Rect, buffer: &mut Buffer, view: Option<&View>) {
        let max_width = usize::from(area.width);
        let (header, table) = (self.header(max_width), self.fitting_columns(max_width));
        let footer =
            view.map_or_else(Vec::new, |view| self.footer(view, table.as_ref(), max_width));
        let height =
            |lines: &[Line<'_>]| Constraint::Length(u16::try_from(lines.len()).unwrap_or(u16::MAX));
        let [top, _, middle, bottom] = Layout::vertical([
            height(&header),
            Constraint::Length(1),
            Constraint::Fill(1),
            height(&footer),
        ])
        .areas(area);
        Paragraph::new(header).render(top, buffer);
        Paragraph::new(footer).render(bottom, buffer);
        if view.is_some_and(|view| view.mode == Mode::Help) {
            let line = |(key, what): (&'static str, &'static str)| {
                let words = what.split(' ').map(Span::from);
                wrapped(words, " ", max_width.saturating_sub(5), MAX_LINES)
                    .into_iter()
                    .enumerate()
                    .map(move |(at, mut line)| {
                        let margin = format!("{:5}", if at == 0 { key } else { "" });
                        line.spans.insert(0, Span::from(margin).bold());
                        line
                    })
            };
            Paragraph::new(HELP.into_iter().flat_map(line).collect::<Vec<_>>())
                .render(middle, buffer);
            return;
        }
        match table {
            Some(columns) => self.table(columns).render(middle, buffer),
            None => Line::from("terminal too narrow").render(middle, buffer),
        }
    }

    /// Returns the lines above the table: the gate, and its plans or a warning about the clock.
    fn header(&self, max_width: usize) -> Vec<Line<'static>> {
        let filled = u32::try_from(self.summary.fill_thousandths()).unwrap_or(u32::MAX);
        let gate = [
            Span::from(tail(self.summary.gate(), max_width)).bold(),
            Span::from(bar(filled, BAR_WIDTH)).style(share_color(filled)),
            Span::from(self.summary.fill()),
            Span::from(self.time.clone()),
        ];
        let of_peppers = || self.summary.pepper_warnings().next();
        let warning = self.summary.migration_warning().or_else(of_peppers);
        let warning = warning.or_else(|| self.summary.clock_warning());
        let (text, style) = match warning {
            Some(warning) => (warning, Style::new().fg(Color::Red)),
            None => (format!("plans: {}", self.summary.plans()), Style::new().dim()),
        };
        let words = text.split(' ').map(|word| Span::from(word.to_owned()).style(style));
        let mut lines = wrapped(gate, "  ", max_width, MAX_LINES);
        lines.extend(wrapped(words, " ", max_width, MAX_LINES));
        lines
    }

    /// Returns the lines below the table: the state of the view, and the keys that change it.
    fn footer(
        &self,
        view: &View,
        columns: Option<&Vec<Column>>,
        max_width: usize,
    ) -> Vec<Line<'static>> {
        let mut texts = Vec::new();
        if view.mode == Mode::Filter {
            texts.push(format!("filter: {}_", view.filter));
            texts.push("Enter applies it, Esc clears it".to_owned());
        } else {
            texts.push(format!("s sort: {}", view.sort.name()));
            texts.push(match view.filter.as_str() {
                "" => "/ filter".to_owned(),
                filter => format!("/ filter: {filter} ({})", pluralized(self.matching, "key")),
            });
            texts.extend(["? help".to_owned(), "q quit".to_owned()]);
        }
        let shown =
            columns.map_or(0, |columns| columns.iter().filter(|column| column.is_window).count());
        if shown < self.windows.len() {
            texts.push(format!("{} hidden", pluralized(self.windows.len() - shown, "window")));
        }
        let mut lines = vec![Line::default()];
        lines.extend(wrapped(
            texts.into_iter().map(|text| Span::from(text).dim()),
            "  ",
            max_width,
            MAX_LINES,
        ));
        lines
    }

    /// Returns the columns that fit into `max_width`. `None` if the key and one window do not fit.
    fn fitting_columns(&self, max_width: usize) -> Option<Vec<Column>> {
        let (mut bar_width, mut hidden) = (BAR_WIDTH, Vec::new());
        let columns = |bar_width, hidden: &[&str]| {
            let mut columns = self.columns(bar_width);
            columns.retain(|column| !hidden.contains(&column.heading.as_str()));
            columns
        };
        for step in NARROWER {
            if width_of(&columns(bar_width, &hidden)) <= max_width {
                break;
            }
            match step {
                Narrower::Bars(width) => bar_width = width,
                Narrower::Without(heading) => hidden.push(heading),
            }
        }
        let mut columns = columns(bar_width, &hidden);
        // The longest window is kept to the last: a key that has spent it waits longest.
        while width_of(&columns) > max_width {
            let mut windows = columns.iter().enumerate().filter(|(_, column)| column.is_window);
            let shortest = windows.next()?.0;
            windows.next()?;
            columns.remove(shortest);
        }
        Some(columns)
    }

    /// Returns the table widget.
    fn table(&self, columns: Vec<Column>) -> Table<'static> {
        let headings = Row::new(columns.iter().map(|column| column.heading.clone())).bold();
        let widths: Vec<Constraint> = columns
            .iter()
            .map(|column| Constraint::Length(u16::try_from(column.width()).unwrap_or(u16::MAX)))
            .collect();
        let mut columns: Vec<_> =
            columns.into_iter().map(|column| column.cells.into_iter()).collect();
        let rows: Vec<Row<'static>> = self
            .keys
            .iter()
            .map(|key| {
                let row =
                    Row::new(columns.iter_mut().map(|cells| cells.next().unwrap_or_default()));
                if key.state == "active" { row } else { row.dim() }
            })
            .collect();
        Table::new(rows, widths).header(headings).column_spacing(SPACING)
    }

    /// Returns all columns, with quota bars of this width.
    fn columns(&self, bar_width: u32) -> Vec<Column> {
        let column = |heading: &str, text: &dyn Fn(&ListedKey) -> String| Column {
            heading: heading.to_owned(),
            is_window: false,
            cells: self.keys.iter().map(|key| Line::from(text(key))).collect(),
        };
        let mut columns = vec![
            column("KEY", &|key| key.about.hint.clone()),
            column(KEY_ID, &|key| key.about.key_id.clone()),
            column(ACCOUNT, &|key| key.about.account.to_string()),
            column(PLAN, &|key| key.about.plan().to_owned()),
            column(STATE, &|key| key.state.to_owned()),
        ];
        for window in &self.windows {
            let cells = self.keys.iter().map(|key| {
                let Some(quota) = key.quota(window) else { return Line::from("-") };
                let numbers = Span::from(format!("{}/{}", quota.used, quota.limit));
                if bar_width == 0 {
                    return Line::from(numbers);
                }
                let share = quota.share();
                Line::from(vec![
                    Span::from(bar(share, bar_width)).style(share_color(share)),
                    Span::from(" "),
                    numbers,
                ])
            });
            columns.push(Column {
                heading: window.to_uppercase(),
                is_window: true,
                cells: cells.collect(),
            });
        }
        columns.push(column(USED_WITHIN, &|key| match key.last_used_s {
            Some(last_s) => age(self.time_s.saturating_sub(last_s)),
            None => "-".to_owned(),
        }));
        columns
    }
}

/// A column of the table.
struct Column {
    heading: String,
    is_window: bool,
    cells: Vec<Line<'static>>,
}

impl Column {
    fn width(&self) -> usize {
        self.cells.iter().map(Line::width).max().unwrap_or(0).max(self.heading.len())
    }
}

/// The headings of the columns that [`NARROWER`] hides.
const KEY_ID: &str = "KEY ID";
const ACCOUNT: &str = "ACCOUNT";
const PLAN: &str = "PLAN";
const STATE: &str = "STATE";
const USED_WITHIN: &str = "USED WITHIN";

/// A step that makes a frame narrower.
#[derive(Clone, Copy)]
enum Narrower {
    /// Draws bars of this width; 0 for none.
    Bars(u32),
    /// Hides the column with this heading.
    Without(&'static str),
}

/// The steps for a narrow terminal, in the order in which they are taken.
const NARROWER: [Narrower; 7] = [
    Narrower::Without(STATE),
    Narrower::Without(KEY_ID),
    Narrower::Without(PLAN),
    Narrower::Bars(SHORT_BAR_WIDTH),
    Narrower::Without(USED_WITHIN),
    Narrower::Bars(0),
    Narrower::Without(ACCOUNT),
];

/// Blank columns between two columns.
const SPACING: u16 = 2;

fn width_of(columns: &[Column]) -> usize {
    let between = columns.len().saturating_sub(1) * usize::from(SPACING);
    columns.iter().map(Column::width).sum::<usize>() + between
}

/// Wraps words into at most `max_lines` lines of `max_width` columns.
///
/// Words that do not fit are replaced by `…`. A word is never split.
fn wrapped(
    words: impl IntoIterator<Item = Span<'static>>,
    gap: &'static str,
    max_width: usize,
    max_lines: usize,
) -> Vec<Line<'static>> {
    let mut lines = vec![Line::default()];
    for word in words {
        let count = lines.len();
        let line = &mut lines[count - 1];
        if line.spans.is_empty() {
            line.push_span(word);
        } else if line.width() + gap.len() + word.width() <= max_width {
            line.push_span(gap);
            line.push_span(word);
        } else if count < max_lines {
            lines.push(Line::from(word));
        } else {
            while line.width() + gap.len() + 1 > max_width && line.spans.len() > 1 {
                line.spans.pop();
            }
            line.push_span(" …");
            break;
        }
    }
    lines
}

/// Returns the end of a text, at most `max_width` characters, with `…` if it was cut.
fn tail(text: &str, max_width: usize) -> String {
    let len = text.chars().count();
    if len <= max_width {
        return text.to_owned();
    }
    core::iter::once('…').chain(text.chars().skip(len - max_width.saturating_sub(1))).collect()
}

/// Returns the lines of a frame as text.
fn text_of(buffer: &Buffer) -> Vec<String> {
    let line = |row: Rect| -> String {
        let cells = row.columns().filter_map(|cell| buffer.cell((cell.x, cell.y)));
        cells.map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned()
    };
    buffer.area.rows().map(line).collect()
}

/// Formats an age in its largest unit, rounded up: `5m`.
///
/// The gate stores the time of the last use rounded down to a unit of the tally, which is usually
/// the shortest window. So the age is an upper bound.
fn age(seconds: u64) -> String {
    let (number, unit) = match seconds {
        0..60 => (seconds, "s"),
        60..3600 => (seconds.div_ceil(60), "m"),
        3600..86_400 => (seconds.div_ceil(3600), "h"),
        _ => (seconds.div_ceil(86_400), "d"),
    };
    format!("{number}{unit}")
}

/// Draws thousandths as a bar: empty only at 0, and full only from 1000.
fn bar(thousandths: u32, width: u32) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let cells = width * 8;
    let drawn = match thousandths {
        0 => 0,
        1000.. => cells,
        some => (some * cells / 1000).clamp(1, cells - 1),
    };
    let (whole, part) = (drawn / 8, usize::try_from(drawn % 8).unwrap_or(0));
    let mut bar = "█".repeat(usize::try_from(whole).unwrap_or(0)) + EIGHTHS[part];
    let blank = width - whole - u32::from(part > 0);
    bar += &"·".repeat(usize::try_from(blank).unwrap_or(0));
    bar
}

/// Returns the color of a used share: green below 750 thousandths, yellow below 950, else red.
fn share_color(thousandths: u32) -> Style {
    Style::new().fg(match thousandths {
        0..750 => Color::Green,
        750..950 => Color::Yellow,
        _ => Color::Red,
    })
}

#[cfg(test)]
mod tests {
    use keytally::{GateConfig, pepper};
    use keytally::{KeyId, Name};
    use keytally::{NewKey, Plan};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_s(1_700_000_000);

    /// Returns a gate with a key for each pair of an account and the units that it has used.
    fn gate(policy: &str, keys: &[(u32, u32)]) -> (Gate, Vec<KeyId>) {
        let plans = vec![Plan::new("default", policy.parse().unwrap()).unwrap()];
        let config = GateConfig::default().with_keys(100).with_plans(plans);
        let peppers = pepper::parse(&pepper::generate().unwrap()).unwrap();
        let gate = Gate::in_memory(peppers, &config).unwrap();
        let key_ids = keys.iter().map(|&(account, used)| {
            let env = Name::new("live").unwrap();
            let new = NewKey::new(account, env);
            let entropy = keytally::entropy().unwrap();
            let issued = gate.administer(|administrator| {
                administrator.issue(&new, entropy, Timestamp::default())
            });
            let (key, key_id) = issued.unwrap();
            let time = Timestamp::from_unix_s(NOW.unix_s().saturating_sub(60 * u64::from(account)));
            assert!(
                used == 0
                    || gate.table().check(Some(key.expose().as_bytes()), used, time).is_admitted()
            );
            key_id
        });
        let key_ids = key_ids.collect();
        (gate, key_ids)
    }

    /// Returns the lines that a terminal of this size shows.
    fn shown(gate: &Gate, view: &View, width: u16, height: u16) -> Vec<String> {
        drawn(&sample(gate, view), view, width, height)
    }

    fn sample(gate: &Gate, view: &View) -> Sample {
        Sample::take(gate, "/var/lib/keytally/api.gate".to_owned(), 30, view, NOW)
    }

    fn drawn(sample: &Sample, view: &View, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| sample.draw(frame.area(), frame.buffer_mut(), Some(view))).unwrap();
        text_of(terminal.backend().buffer())
    }

    fn press(view: &mut View, code: KeyCode) -> bool {
        view.handle(&Event::Key(KeyEvent::new(code, KeyModifiers::NONE)))
    }

    fn type_text(view: &mut View, text: &str) {
        for character in text.chars() {
            assert!(!press(view, KeyCode::Char(character)));
        }
    }

    /// Returns the accounts of the rows, top to bottom.
    fn accounts(gate: &Gate, view: &View) -> Vec<u32> {
        sample(gate, view).keys.iter().map(|key| key.about.account).collect()
    }

    #[test]
    fn narrow_terminal_never_cuts_a_number() {
        for policy in [
            "100/minute, 1000/hour",
            "sliding 100/minute, 1000/hour",
            "1/second, 2/minute, 3/hour, 9999/day",
            "999999/day, 9999999/31d",
            "4294967295/31d",
        ] {
            let (gate, _) = gate(policy, &[(4_294_967_295, 0), (1, 1)]);
            let quotas = gate.table().plan(0).unwrap().sections;
            let (view, sample) = (View::default(), sample(&gate, &View::default()));
            for width in 20..=150 {
                let lines = drawn(&sample, &view, width, 30);
                let text = lines.join("\n");
                let whole = |word: &str| {
                    let digits = word.trim_start_matches(|c: char| !c.is_ascii_digit());
                    let Some((used, limit)) = digits.split_once('/') else { return true };
                    let used: u32 = used.parse().unwrap();
                    let own = quotas.iter().next().unwrap();
                    let limits = own.quotas().iter().map(|quota| quota.limit.to_string());
                    used <= 1 && limits.clone().any(|whole| whole == limit)
                };
                let table =
                    lines.iter().skip_while(|line| !line.starts_with("KEY")).skip(1).take(2);
                for word in table.flat_map(|line| line.split(' ')) {
                    assert!(whole(word), "{word:?} at {width} columns:\n{text}");
                }
                // All windows are shown, or the footer says how many are not.
                let last = quotas.iter().next().unwrap().quotas().last().unwrap();
                let all = text.contains(&format!("0/{}", last.limit))
                    || text.contains("terminal too narrow");
                assert!(all || text.contains(" hidden"), "{width} columns:\n{text}");
                for word in ["2 of 100 keys", "2023-11-14T22:13:20Z"] {
                    assert!(
                        text.contains(word) || width < 23,
                        "{word} at {width} columns:\n{text}"
                    );
                }
            }
        }
    }

    #[test]
    fn sixty_columns_show_key_account_and_both_windows() {
        let (gate, _) = gate("100/minute, 1000/hour", &[(1, 0)]);
        let lines = shown(&gate, &View::default(), 60, 12);
        let at = lines.iter().position(|line| line.starts_with("KEY")).unwrap();
        let headings: Vec<&str> = lines[at].split_whitespace().collect();
        assert_eq!(headings, ["KEY", "ACCOUNT", "MINUTE", "HOUR"], "{lines:#?}");
        assert!(lines[at + 1].ends_with("····· 0/1000"), "{lines:#?}");
        assert_eq!(lines[11], "s sort: share  / filter  ? help  q quit");
        let wide = shown(&gate, &View::default(), 120, 12);
        assert!(wide.iter().any(|line| line.ends_with("USED WITHIN")), "{wide:#?}");
    }

    #[test]
    fn pressing_s_changes_the_sort_order() {
        let (gate, _) = gate("1000/day", &[(3, 10), (1, 5), (2, 20)]);
        let mut view = View::default();
        assert_eq!(accounts(&gate, &view), [2, 3, 1]);
        assert!(!press(&mut view, KeyCode::Char('s')));
        // The shortest window is a day, so the last uses are equal, and the key ids decide.
        assert_eq!((view.sort, accounts(&gate, &view).len()), (Sort::LastUse, 3));
        press(&mut view, KeyCode::Char('s'));
        assert_eq!(accounts(&gate, &view), [1, 2, 3]);
        assert!(shown(&gate, &view, 80, 12)[11].starts_with("s sort: account"));
        press(&mut view, KeyCode::Char('s'));
        assert_eq!(view.sort, Sort::Share);
    }

    #[test]
    fn sort_by_last_use_shows_the_most_recent_first() {
        let (gate, _) = gate("1000/second", &[(3, 1), (1, 1), (9, 0), (2, 1)]);
        let view = View { sort: Sort::LastUse, ..View::default() };
        assert_eq!(accounts(&gate, &view), [1, 2, 3, 9]);
    }

    #[test]
    fn filter_shows_only_keys_with_its_text() {
        let (gate, key_ids) = gate("1000/day", &[(4_242_421, 0), (77, 0), (14_242_421, 0)]);
        gate.revoke(key_ids[1]).unwrap();
        let mut view = View::default();
        press(&mut view, KeyCode::Char('/'));
        type_text(&mut view, "424242q");
        assert!(shown(&gate, &view, 60, 12)[11].starts_with("filter: 424242q_  Enter applies it"));
        press(&mut view, KeyCode::Backspace);
        press(&mut view, KeyCode::Enter);
        let mut found = accounts(&gate, &view);
        found.sort_unstable();
        assert_eq!((view.mode, found), (Mode::Watch, vec![4_242_421, 14_242_421]));
        assert!(shown(&gate, &view, 60, 12)[11].contains("/ filter: 424242 (2 keys)"));
        // The first Esc clears the filter, the second ends the view.
        assert!(!press(&mut view, KeyCode::Esc));
        assert_eq!(accounts(&gate, &view).len(), 3);
        assert!(press(&mut view, KeyCode::Esc));
        for (text, expected) in [("REVOKED", 77), (&key_ids[1].to_string(), 77)] {
            view.filter = text.to_owned();
            assert_eq!(accounts(&gate, &view), [expected], "{text}");
        }
        view.filter.clear();
        press(&mut view, KeyCode::Char('/'));
        type_text(&mut view, &"x".repeat(MAX_FILTER_LEN + 9));
        assert_eq!(view.filter.len(), MAX_FILTER_LEN);
    }

    #[test]
    fn help_replaces_the_table_and_names_every_key() {
        let (gate, _) = gate("1000/day", &[(42, 0)]);
        let mut view = View::default();
        assert!(!press(&mut view, KeyCode::Char('?')));
        for width in [30, 60, 120] {
            let lines = shown(&gate, &view, width, 24);
            for (key, what) in HELP {
                let first = what.split(' ').next().unwrap();
                assert!(
                    lines.iter().any(|line| line.starts_with(&format!("{key:5}{first}"))),
                    "{lines:#?}"
                );
            }
            assert!(!lines.iter().any(|line| line.contains("0/1000")), "{lines:#?}");
        }
        assert!(!press(&mut view, KeyCode::Esc));
        assert_eq!(view.mode, Mode::Watch);
    }

    #[test]
    fn bar_is_empty_only_at_zero_and_full_only_at_the_limit() {
        assert_eq!(bar(0, 10), "··········");
        assert_eq!(bar(1, 10), "▏·········");
        assert_eq!(bar(500, 10), "█████·····");
        assert_eq!(bar(999, 10), "█████████▉");
        assert_eq!(bar(1000, 10), "██████████");
        assert_eq!(bar(u32::MAX, 10), "██████████");
        for thousandths in 0..=1001 {
            for width in [1, 5, 10] {
                assert_eq!(
                    bar(thousandths, width).chars().count(),
                    width as usize,
                    "{thousandths}"
                );
            }
        }
    }

    #[test]
    fn age_is_rounded_up_in_its_largest_unit() {
        let ages = [0, 59, 60, 61, 3599, 3600, 86_399, 86_400, 86_401].map(age);
        assert_eq!(ages, ["0s", "59s", "1m", "2m", "60m", "1h", "24h", "1d", "2d"]);
    }

    #[test]
    fn q_and_ctrl_c_quit() {
        let mut view = View::default();
        let mut quits = |code, modifiers| view.handle(&Event::Key(KeyEvent::new(code, modifiers)));
        assert!(quits(KeyCode::Char('q'), KeyModifiers::NONE));
        assert!(quits(KeyCode::Char('c'), KeyModifiers::CONTROL));
        assert!(!quits(KeyCode::Char('c'), KeyModifiers::NONE));
        assert!(!view.handle(&Event::FocusGained));
        // In the filter, q is a letter. Ctrl-C quits there too.
        view.mode = Mode::Filter;
        assert!(!press(&mut view, KeyCode::Char('q')));
        assert!(view.handle(&Event::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL))));
    }
}
