//! The target `fleet_file`: a fleet file with arbitrary words, which requests and the planner of an
//! agent use.

use core::time::Duration;

use keytally::{
    Compound, FleetFile, Gate, GateConfig, KeyId, Name, NewKey, Plan, Timestamp, Verdict, pepper,
};
use keytally_core::sync::{AtomicU64, Ordering};
use keytally_fleet_plan::layout::PageWord;
use keytally_fleet_plan::lease::Planner;
use keytally_fleet_plan::request::{Reply, WindowReply};
use keytally_fleet_plan::words::admit_unreserved;

use crate::bytes::Bytes;

/// The units of a key. The gate counts them itself, whatever the fleet file says.
const LIMIT: u32 = 10;

/// The time of all requests that are counted.
const NOW: Timestamp = Timestamp::from_unix_ms(1_767_225_600_000);

/// The words of the page that do not identify the file.
const PAGE: [PageWord; 11] = [
    PageWord::Name,
    PageWord::Store,
    PageWord::Offset,
    PageWord::State,
    PageWord::Heartbeat,
    PageWord::Doorbell,
    PageWord::Sleeper,
    PageWord::Grants,
    PageWord::Requests,
    PageWord::Granted,
    PageWord::State,
];

/// A gate in a fleet, with two keys of one team.
struct Machine {
    gate: &'static Gate,
    file: FleetFile<'static>,
    keys: [(String, KeyId); 2],
}

thread_local! {
    /// The machine of all inputs, since a file for each would take most of the time.
    static MACHINE: Machine = Machine::new();
}

/// Overwrites words of a fleet file, makes requests, and lets planners decide.
///
/// Every call returns. A key is admitted at most the limit of the gate, whatever the file says.
pub fn fleet_file(bytes: &[u8]) {
    MACHINE.with(|machine| machine.run(&mut Bytes::new(bytes)));
}

impl Machine {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("keytally-fuzz-{}", std::process::id()));
        // Each thread has a folder of its own.
        let folder = (0..).map(|number| folder.with_extension(number.to_string()));
        let folder = folder.into_iter().find(|it| std::fs::create_dir(it).is_ok()).unwrap();
        let (gate, fleet) = (folder.join("gate"), folder.join("fleet"));
        let sections = format!("{LIMIT}/hour; team: 30/hour, 40/month@17; group write: 5/hour");
        let plans = vec![Plan::new("default", sections.parse().unwrap()).unwrap()];
        let config = GateConfig::default().with_keys(2).with_plans(plans);
        let peppers = pepper::parse(&"6b".repeat(32)).unwrap();
        let gate: &Gate = Box::leak(Box::new(Gate::create(gate, peppers, &config).unwrap()));
        let keys = [(); 2].map(|()| {
            let (key, key_id) = gate.issue(&NewKey::new(42, Name::new("live").unwrap())).unwrap();
            (key.expose().to_owned(), key_id)
        });
        gate.set_fleet(true).unwrap();
        gate.set_credit_wait(Duration::ZERO);
        let file = FleetFile::create(&fleet, gate).unwrap();
        gate.join(&fleet).unwrap();
        // What is mapped needs no names.
        std::fs::remove_dir_all(&folder).unwrap();
        Self { gate, file, keys }
    }

    fn run(&self, bytes: &mut Bytes<'_>) {
        self.clear();
        // The first key has one time, and is counted.
        let mut admitted = 0;
        for _ in 0..64 {
            match bytes.below(8) {
                0 | 1 => self.overwrite(bytes),
                2 => {
                    let compound = self.request(bytes, 0, NOW);
                    let cost = compound.tallies().first().map_or(0, |it| it.verdict().cost());
                    admitted += if compound.is_admitted() { cost } else { 0 };
                    assert!(admitted <= LIMIT, "{admitted} units were admitted");
                }
                3 => {
                    let now = Timestamp::from_unix_ms(bytes.word());
                    if let Some(charge) = self.request(bytes, 1, now).charge(0) {
                        self.gate.table().settle(self.keys[1].1, charge, bytes.cost(), now);
                    }
                }
                4 => {
                    let key = Some(self.keys[1].0.as_bytes());
                    check_verdict(&self.gate.try_check(key, bytes.cost()));
                    check_verdict(&self.gate.check_without_wait(key, bytes.cost()));
                    check_verdict(&self.gate.peek(key, bytes.cost()));
                }
                5 => self.plan(bytes),
                6 => self.file.wanted().report(u32::from_le_bytes(bytes.array())),
                _ => self.file.wanted().take(|tally| {
                    let _ = (self.file.subject(tally), self.file.words(tally));
                }),
            }
            if bytes.is_empty() {
                break;
            }
        }
    }

    /// Makes the words and the tallies those of a new machine.
    fn clear(&self) {
        for word in PAGE {
            self.file.page(word).store(0, Ordering::Release);
        }
        for tally in 0..self.file.tallies() {
            self.words(tally).iter().for_each(|word| word.store(0, Ordering::Release));
        }
        self.file.wanted().take(|_| {});
        for (_, key_id) in &self.keys {
            self.gate.table().reset(*key_id, NOW);
        }
    }

    fn words(&self, tally: u32) -> [&AtomicU64; 6] {
        let words = self.file.words(tally).unwrap();
        let owner = self.file.owner(tally).unwrap();
        [words.credits, words.holding, words.left, words.meta, words.unreserved, owner]
    }

    fn overwrite(&self, bytes: &mut Bytes<'_>) {
        let tally = bytes.word();
        let tally = u32::try_from(tally % u64::from(self.file.tallies())).unwrap();
        let atomic = match bytes.below(17) {
            word @ 0..11 => self.file.page(PAGE[word]),
            word => self.words(tally)[word - 11],
        };
        let value = match bytes.below(5) {
            0 => bytes.word(),
            1 => u64::MAX - u64::from(bytes.byte()),
            2 => u64::from(bytes.byte()) << (8 * bytes.below(8)),
            3 => self.file.subject(tally).map_or(0, |subject| subject.owner),
            // Many credits of windows that run.
            _ => self
                .file
                .subject(tally)
                .map_or(0, |subject| subject.layout.word(NOW.unix_ms(), &[bytes.byte().into(); 4])),
        };
        atomic.store(value, Ordering::Release);
    }

    fn request(&self, bytes: &mut Bytes<'_>, key: usize, now: Timestamp) -> Compound {
        let key = Some(self.keys[key].0.as_bytes());
        let mut part = self.gate.part(key, bytes.cost());
        if bytes.byte() % 2 == 1 {
            part = part.with_group("write").unwrap();
        }
        let compound = part.check(now);
        compound.verdicts().for_each(check_verdict);
        let _ = (compound.headers(), compound.problem());
        compound
    }

    /// Lets the planner of a tally decide, and gives it a reply.
    fn plan(&self, bytes: &mut Bytes<'_>) {
        let tally = u32::from(bytes.byte()) % self.file.tallies();
        let Some(subject) = self.file.subject(tally) else { return };
        let (layout, words) = (&subject.layout, self.file.words(tally).unwrap());
        let now_ms = if bytes.byte() < 200 { NOW.unix_ms() } else { bytes.word() };
        let mut planner = Planner::new(bytes.word());
        match bytes.below(4) {
            0 => planner.recalled(bytes.below(5)),
            1 => planner.reconnected(&words, now_ms),
            2 => admit_unreserved(layout, &words, now_ms, bytes.cost()),
            _ => planner.wanted(),
        }
        let _ = planner.due_ms(layout, &words);
        let Some(request) = planner.next(layout, &words, now_ms) else { return };
        for window in request.windows() {
            assert!(window.hold <= window.want && window.begin_ms < window.end_ms, "{window:?}");
        }
        let mut reply = Reply { store_ms: bytes.word(), ..Reply::default() };
        for window in &mut reply.windows {
            let machines = i32::from_le_bytes(bytes.array());
            *window = WindowReply { held: bytes.cost(), left: bytes.cost(), machines };
        }
        planner.replied(layout, &words, now_ms, &request, &reply);
        let _ = (planner.due_ms(layout, &words), planner.next(layout, &words, now_ms));
    }
}

/// Asserts that a verdict makes a valid response.
fn check_verdict(verdict: &Verdict) {
    for quota in verdict.quotas().iter() {
        assert!(quota.remaining <= quota.limit);
    }
    assert_eq!(verdict.is_admitted(), verdict.http_status() == 200);
    let _ = (verdict.headers(), verdict.problem(), verdict.retry_after_s());
}
