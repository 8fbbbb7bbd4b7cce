//! The live view. A frame is drawn from one [`Sample`]; `--once` draws it as text.

use core::time::Duration;
use std::io::{self, IsTerminal as _, Write};

use clap::Args;
use keytally_host::keytally::Timestamp;
use keytally_host::keytally::gate::KeyInfo;
use keytally_host::{Gate, now};
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row, Table, Widget};
use serde::Serialize;

use super::list::Summary;
use super::{Format, GateFile, Status};
use crate::failure::Failure;
use crate::pepper::PepperSource;
use crate::shown::{Listed, Use};
use crate::when;

/// Watch the keys: the most used first, with the share of each quota
///
/// A live view, drawn every second; q quits.
#[derive(Args)]
pub(super) struct Top {
    #[command(flatten)]
    gate: GateFile,
    /// Print one frame as text and stop
    #[arg(long)]
    once: bool,
    /// With --once or --json: the most keys to print
    #[arg(long, value_name = "NUMBER", default_value_t = 40)]
    rows: u16,
    #[command(flatten)]
    format: Format,
}

/// How often the view is drawn anew.
const REFRESH: Duration = Duration::from_secs(1);

/// The width of a frame that is printed as text.
const TEXT_WIDTH: u16 = 140;

/// The width of the bar of a quota.
const BAR_WIDTH: u32 = 10;

/// Lines of a frame that aren't keys: two of the gate, a blank, the headings, a blank, the help.
const OTHER_LINES: u16 = 6;

/// What one frame shows.
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
    /// The keys, the largest share of a quota first.
    keys: Vec<Listed>,
}

impl Top {
    pub(super) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        let gate = self.gate.open(pepper)?;
        let path = self.gate.path().display().to_string();
        if self.once || self.format.json {
            let sample = Sample::take(&gate, path, self.rows.into(), now());
            self.format.print(&sample, |out| sample.write(out))?;
            return Ok(Status::Fine);
        }
        if !io::stdout().is_terminal() {
            return Err(Failure::because("`top` needs a terminal; --once prints one frame as text"));
        }
        let mut terminal = ratatui::try_init()?;
        let ended = watch(&mut terminal, &gate, &path);
        ratatui::restore();
        ended?;
        Ok(Status::Fine)
    }
}

fn watch(terminal: &mut ratatui::DefaultTerminal, gate: &Gate, path: &str) -> Result<(), Failure> {
    loop {
        let rows = terminal.size()?.height.saturating_sub(OTHER_LINES);
        let sample = Sample::take(gate, path.to_owned(), rows.into(), now());
        terminal.draw(|frame: &mut Frame<'_>| sample.draw(frame.area(), frame.buffer_mut(), true))?;
        if event::poll(REFRESH)? && quits(&event::read()?) {
            return Ok(());
        }
    }
}

fn quits(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press && (interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

impl Sample {
    /// Looks at all keys and keeps the `rows` most used.
    fn take(gate: &Gate, path: String, rows: usize, now: Timestamp) -> Self {
        let mut summary = Summary::of(gate, path);
        // Room for as many again, so that they are sorted once in `rows` keys.
        let room = rows.saturating_mul(2).max(64);
        let mut top: Vec<(u32, KeyInfo)> = Vec::new();
        for info in gate.table().list(now) {
            summary.count(&info);
            let share = Use::of(&info.quotas).iter().map(Use::share).max().unwrap_or(0);
            top.push((share, info));
            if top.len() >= room {
                keep_most_used(&mut top, rows);
            }
        }
        keep_most_used(&mut top, rows);
        let windows = gate.table().layout().windows().iter().map(ToString::to_string).collect();
        let keys = top.iter().map(|(_, info)| Listed::of(info, gate, now)).collect();
        Self { summary, time: when::rfc3339(now.unix_s()), time_s: now.unix_s(), windows, keys }
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let rows = u16::try_from(self.keys.len()).unwrap_or(u16::MAX);
        let area = Rect::new(0, 0, TEXT_WIDTH, rows.saturating_add(OTHER_LINES - 2));
        let mut buffer = Buffer::empty(area);
        self.draw(area, &mut buffer, false);
        for y in area.rows() {
            let line: String = y
                .columns()
                .filter_map(|cell| buffer.cell((cell.x, cell.y)))
                .map(|cell| cell.symbol())
                .collect();
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    fn draw(&self, area: Rect, buffer: &mut Buffer, live: bool) {
        let footer = if live { 2 } else { 0 };
        let [header, _, table, help] = Layout::vertical([
            Constraint::Length(2),
            Constraint::Length(1),
            Constraint::Fill(1),
            Constraint::Length(footer),
        ])
        .areas(area);
        let filled = u32::try_from(self.summary.fill_tenths()).unwrap_or(u32::MAX);
        let gate = Line::from(vec![
            Span::from(self.summary.gate()).bold(),
            Span::from("  "),
            Span::from(bar(filled)).style(heat(filled)),
            Span::from(format!("  {}  {}", self.summary.fill(), self.time)),
        ]);
        let plans = match self.summary.ahead() {
            Some(ahead) => Line::from(ahead).style(Style::new().fg(Color::Red)),
            None => Line::from(format!("plans: {}", self.summary.plans())).dim(),
        };
        Paragraph::new(vec![gate, plans]).render(header, buffer);
        self.table(table.width).render(table, buffer);
        if live {
            let about = "most used first, drawn every second; q quits";
            Paragraph::new(vec![Line::default(), Line::from(about).dim()]).render(help, buffer);
        }
    }

    /// The keys, in as many columns as there is room for.
    fn table(&self, room: u16) -> Table<'static> {
        let mut columns = self.columns();
        while width_of(&columns) > usize::from(room) {
            let place = |heading: &str| columns.iter().position(|column| column.heading == heading);
            let Some(place) = FIRST_TO_GO.into_iter().find_map(place) else { break };
            columns.remove(place);
        }
        let headings = Row::new(columns.iter().map(|column| column.heading.clone())).bold();
        let widths: Vec<Constraint> = columns
            .iter()
            .map(|column| Constraint::Length(u16::try_from(column.width()).unwrap_or(u16::MAX)))
            .collect();
        let mut columns: Vec<_> = columns.into_iter().map(|column| column.cells.into_iter()).collect();
        let rows: Vec<Row<'static>> = self
            .keys
            .iter()
            .map(|key| {
                let row = Row::new(columns.iter_mut().map(|cells| cells.next().unwrap_or_default()));
                if key.state == "active" { row } else { row.dim() }
            })
            .collect();
        Table::new(rows, widths).header(headings).column_spacing(SPACING)
    }

    fn columns(&self) -> Vec<Column> {
        let column = |heading: &str, text: &dyn Fn(&Listed) -> String| Column {
            heading: heading.to_owned(),
            cells: self.keys.iter().map(|key| Line::from(text(key))).collect(),
        };
        let mut columns = vec![
            column("KEY", &|key| key.about.hint.clone()),
            column(KEY_ID, &|key| key.about.key_id.clone()),
            column(ACCOUNT, &|key| key.about.account.to_string()),
            column(PLAN, &|key| key.about.plan().to_owned()),
            column(STATE, &|key| key.state.to_owned()),
        ];
        for (place, window) in self.windows.iter().enumerate() {
            let cells = self.keys.iter().filter_map(|key| key.quotas.get(place)).map(|quota| {
                let share = quota.share();
                let bar = Span::from(bar(share)).style(heat(share));
                Line::from(vec![bar, Span::from(format!(" {}/{}", quota.used, quota.limit))])
            });
            columns.push(Column { heading: window.to_uppercase(), cells: cells.collect() });
        }
        columns.push(column("USED WITHIN", &|key| match key.last_use_s {
            Some(last_s) => age(self.time_s.saturating_sub(last_s)),
            None => "-".to_owned(),
        }));
        columns
    }
}

struct Column {
    heading: String,
    cells: Vec<Line<'static>>,
}

impl Column {
    fn width(&self) -> usize {
        self.cells.iter().map(Line::width).max().unwrap_or(0).max(self.heading.len())
    }
}

const KEY_ID: &str = "KEY ID";
const ACCOUNT: &str = "ACCOUNT";
const PLAN: &str = "PLAN";
const STATE: &str = "STATE";

/// The columns that a narrow terminal does without, one after the other.
const FIRST_TO_GO: [&str; 4] = [STATE, KEY_ID, PLAN, ACCOUNT];

/// Blanks between columns.
const SPACING: u16 = 2;

fn width_of(columns: &[Column]) -> usize {
    let between = columns.len().saturating_sub(1) * usize::from(SPACING);
    columns.iter().map(Column::width).sum::<usize>() + between
}

/// A length of time in its largest unit, rounded up: `5m`. A last use is known only as the beginning of its
/// smallest window, so it was not before that.
fn age(seconds: u64) -> String {
    let (number, unit) = match seconds {
        0..60 => (seconds, "s"),
        60..3600 => (seconds.div_ceil(60), "m"),
        3600..86_400 => (seconds.div_ceil(3600), "h"),
        _ => (seconds.div_ceil(86_400), "d"),
    };
    format!("{number}{unit}")
}

/// The keys with the largest share of a quota, then those with the most units in the longest window.
fn keep_most_used(keys: &mut Vec<(u32, KeyInfo)>, rows: usize) {
    let units =
        |info: &KeyInfo| info.quotas.longest().map_or(0, |quota| quota.limit.saturating_sub(quota.remaining));
    keys.sort_by_key(|(share, info)| (core::cmp::Reverse((*share, units(info))), info.key_id));
    keys.truncate(rows);
}

/// Thousandths as a bar: a used quota is never drawn empty, nor one with room full.
fn bar(thousandths: u32) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let cells = BAR_WIDTH * 8;
    let drawn = match thousandths {
        0 => 0,
        1000.. => cells,
        some => (some * cells / 1000).clamp(1, cells - 1),
    };
    let (whole, part) = (drawn / 8, usize::try_from(drawn % 8).unwrap_or(0));
    let mut bar = "█".repeat(usize::try_from(whole).unwrap_or(0)) + EIGHTHS[part];
    let blank = BAR_WIDTH - whole - u32::from(part > 0);
    bar += &"·".repeat(usize::try_from(blank).unwrap_or(0));
    bar
}

/// Green, yellow from three quarters, red from nineteen twentieths.
fn heat(thousandths: u32) -> Style {
    Style::new().fg(match thousandths {
        0..750 => Color::Green,
        750..950 => Color::Yellow,
        _ => Color::Red,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_empty_only_when_nothing_is_used_and_full_only_when_all_is() {
        assert_eq!(bar(0), "··········");
        assert_eq!(bar(1), "▏·········");
        assert_eq!(bar(500), "█████·····");
        assert_eq!(bar(999), "█████████▉");
        assert_eq!(bar(1000), "██████████");
        assert_eq!(bar(u32::MAX), "██████████");
        for thousandths in 0..=1001 {
            assert_eq!(bar(thousandths).chars().count(), 10, "{thousandths}");
        }
    }

    #[test]
    fn an_age_is_told_in_its_largest_unit() {
        let ages = [0, 59, 60, 61, 3599, 3600, 86_399, 86_400, 86_401].map(age);
        assert_eq!(ages, ["0s", "59s", "1m", "2m", "60m", "1h", "24h", "1d", "2d"]);
    }

    #[test]
    fn q_and_interrupt_quit() {
        let press = |code, modifiers| Event::Key(event::KeyEvent::new(code, modifiers));
        assert!(quits(&press(KeyCode::Char('q'), KeyModifiers::NONE)));
        assert!(quits(&press(KeyCode::Char('c'), KeyModifiers::CONTROL)));
        assert!(!quits(&press(KeyCode::Char('c'), KeyModifiers::NONE)));
        assert!(!quits(&Event::FocusGained));
    }
}
