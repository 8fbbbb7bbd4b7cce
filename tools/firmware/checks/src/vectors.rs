//! Compares the core with the shared vectors, on the device itself. A difference causes a panic
//! with the case.

use core::fmt;
use core::ops::Add;

use keytally_core::{
    CacheLine, Entropy, Gate, GateConfig, Hint, KeyId, Name, NewKey, Outcome, ParseKeyError,
    ParsePolicyErrorKind, Pepper, Peppers, Plan, Policy, Reason, TallyCharge, Timestamp, Verdict,
    decide, parse_key,
};

use crate::table::Table;
use crate::{KEYS, PLAN_SLOTS};

/// The table of vectors. Each function here reads a case of one kind from it and checks the case.
static VECTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/vectors.bin"));

/// The number of cases that agreed, and of those that need sliding windows in a build without them.
#[derive(Clone, Copy, Debug)]
struct Count {
    agreed: u32,
    left_out: u32,
}

impl Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { agreed: self.agreed + other.agreed, left_out: self.left_out + other.left_out }
    }
}

/// The number of cases of each kind.
#[derive(Clone, Copy, Debug)]
pub struct Agreed {
    policies: Count,
    decisions: Count,
    keys: u32,
    macs: u32,
    verdicts: Count,
}

impl fmt::Display for Agreed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policies, decisions, keys, macs, verdicts } = self;
        write!(
            f,
            "vectors: {} policies, {keys} keys, {} verdicts agree, and {} decisions, {macs} MACs",
            policies.agreed, verdicts.agreed, decisions.agreed
        )?;
        if policies.left_out > 0 {
            write!(
                f,
                "\nleft out without their features: {} policies, {} verdicts, and {} decisions",
                policies.left_out, verdicts.left_out, decisions.left_out
            )?;
        }
        Ok(())
    }
}

/// Runs all vectors. Creates the gates in `memory`, which has the size of one.
pub fn run(memory: &[CacheLine]) -> Agreed {
    let table = &mut Table::new(VECTORS);
    let agreed = Agreed {
        policies: cases(table, valid_policy) + cases(table, invalid_policy),
        decisions: cases(table, decision) + cases(table, reusable),
        keys: each(table, valid_key) + each(table, invalid_key),
        macs: each(table, mac),
        verdicts: {
            let mut steps = Count { agreed: 0, left_out: 0 };
            each(table, |table| steps = steps + gate(table, memory));
            steps + Count { agreed: each(table, outcome), left_out: 0 }
        },
    };
    assert!(table.is_at_end(), "the table has an unread rest");
    agreed
}

/// Reads a list with `case`. Returns its length.
fn each<'t>(table: &mut Table<'t>, mut case: impl FnMut(&mut Table<'t>)) -> u32 {
    let count = table.short();
    for _ in 0..count {
        case(table);
    }
    count
}

/// Reads a list of cases. `case` returns `None` if this build cannot run the case.
fn cases<'t>(table: &mut Table<'t>, mut case: impl FnMut(&mut Table<'t>) -> Option<()>) -> Count {
    let mut count = Count { agreed: 0, left_out: 0 };
    each(table, |table| match case(table) {
        Some(()) => count.agreed += 1,
        None => count.left_out += 1,
    });
    count
}

/// Parses a policy. Returns `None` if it needs a feature that this build leaves out.
fn policy(text: &str) -> Option<Policy> {
    match text.parse::<Policy>() {
        Err(error) if is_left_out(error.kind()) => None,
        parsed => Some(parsed.expect(text)),
    }
}

fn is_left_out(kind: ParsePolicyErrorKind) -> bool {
    matches!(kind, ParsePolicyErrorKind::LeftOut(feature) if !feature.is_included())
}

/// Reads a list whose items are `numbers` numbers each, and ignores them.
fn pass_each(table: &mut Table<'_>, numbers: u32) -> u32 {
    each(table, |table| table.pass(numbers))
}

fn valid_policy(table: &mut Table<'_>) -> Option<()> {
    let text = table.text();
    let Some(policy) = policy(text) else {
        table.pass(2);
        pass_each(table, 2);
        table.pass(1);
        pass_each(table, 1);
        return None;
    };
    assert!(shows(&policy, table.text()), "{text}: printed");
    assert_eq!(policy.algorithm() as u32, table.short(), "{text}");
    let mut quotas = policy.quotas().iter();
    each(table, |table| {
        let quota = quotas.next().expect(text);
        assert_eq!((quota.limit, quota.window.seconds()), (table.short(), table.short()), "{text}");
    });
    assert_eq!(quotas.next(), None, "{text}");
    assert_eq!(policy.layout().stamp_bits(), table.short(), "{text}");
    let counts = policy.layout().count_bits();
    let mut index = 0;
    let read = each(table, |table| {
        // A sliding window has two counts of one width.
        let per_window = policy.algorithm() as usize + 1;
        assert_eq!(u32::from(counts[index / per_window]), table.short(), "{text}");
        index += 1;
    });
    assert_eq!(read as usize, counts.len() * (policy.algorithm() as usize + 1), "{text}");
    Some(())
}

fn invalid_policy(table: &mut Table<'_>) -> Option<()> {
    let text = table.text();
    let error = text.parse::<Policy>().expect_err(text);
    if is_left_out(error.kind()) {
        table.pass(2);
        return None;
    }
    let (kind, needed) = match error.kind() {
        ParsePolicyErrorKind::Empty => (0, 0),
        ParsePolicyErrorKind::TooLong { .. } => (1, 0),
        ParsePolicyErrorKind::Syntax => (2, 0),
        ParsePolicyErrorKind::Limit => (3, 0),
        ParsePolicyErrorKind::Window => (4, 0),
        ParsePolicyErrorKind::Unit => (5, 0),
        ParsePolicyErrorKind::TooManyQuotas => (6, 0),
        ParsePolicyErrorKind::Duplicate => (7, 0),
        ParsePolicyErrorKind::SlidingMonth => (8, 0),
        ParsePolicyErrorKind::TooManyBits { needed } => (9, needed),
        _ => panic!("no vector has another error"),
    };
    assert_eq!((kind, needed), (table.short(), table.short()), "{text}");
    Some(())
}

fn decision(table: &mut Table<'_>) -> Option<()> {
    let Some(policy) = policy(table.text()) else {
        table.pass(8);
        each(table, |table| {
            table.pass(2);
            pass_each(table, 2);
            table.pass(1);
        });
        return None;
    };
    let (layout, limits) = (policy.layout(), policy.limits());
    let word = table.number();
    let now = Timestamp::from_unix_ms(table.number());
    let (op, cost) = (table.short(), table.short());
    let charge = TallyCharge { cost, at: Timestamp::from_unix_ms(table.number()) };
    let actual = table.short();
    let decision = match op {
        0 => decide::check(layout, &limits, word, now, cost),
        1 => decide::peek(layout, &limits, word, now, cost),
        2 => decide::refund(layout, &limits, word, now, charge),
        3 => decide::settle(layout, &limits, word, now, charge, actual),
        4 => decide::reset(layout, &limits, word, now),
        _ => panic!("no such operation"),
    };
    assert_eq!(
        (decision.next, decision.uncharged),
        (table.number(), table.short()),
        "{policy} {word:#018x} {now:?}"
    );
    each(table, |table| {
        assert_eq!(decision.outcome.as_str(), table.text(), "{policy} {word:#018x} {now:?}");
        let verdict = Verdict::decided(layout, &limits, decision, None, now, cost);
        assert_eq!(verdict.quotas().time().unix_ms(), table.number());
        let mut quotas = verdict.quotas().iter();
        each(table, |table| {
            let quota = quotas.next().expect("as many windows");
            assert_eq!((quota.remaining, quota.reset_unix_s), (table.short(), table.number()));
        });
        assert_eq!(quotas.next(), None);
        assert_eq!(verdict.retry_at().map_or(0, Timestamp::unix_ms), table.number());
    });
    Some(())
}

fn reusable(table: &mut Table<'_>) -> Option<()> {
    let Some(policy) = policy(table.text()) else {
        table.pass(3);
        return None;
    };
    let (word, now) = (table.number(), Timestamp::from_unix_ms(table.number()));
    assert_eq!(
        u32::from(policy.layout().is_reusable(word, now)),
        table.short(),
        "{policy} {word:#018x} {now:?}"
    );
    Some(())
}

fn name(text: &str) -> Name {
    Name::new(text).expect(text)
}

fn valid_key(table: &mut Table<'_>) {
    let (prefix, env) = (table.text(), table.text());
    let id = KeyId::from_number(table.number()).expect("a key id is not 0");
    let secret = table.bytes().try_into().expect("secrets have 16 bytes");
    let key = keytally_core::Key::mint(name(prefix), name(env), id, secret).expect("short names");
    let text = table.text();
    assert_eq!(key.expose(), text);
    let parts = parse_key(text.as_bytes()).expect(text);
    assert_eq!((parts.prefix, parts.env, parts.key_id), (prefix, env, id));
    assert!(shows(id, table.text()), "{text}: its id");
    assert!(shows(Hint::new(text.as_bytes()), table.text()), "{text}: its hint");
}

/// Returns whether a value is displayed as this text.
fn shows(value: impl fmt::Display, text: &str) -> bool {
    struct Rest<'a>(&'a str);
    impl fmt::Write for Rest<'_> {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            self.0 = self.0.strip_prefix(part).ok_or(fmt::Error)?;
            Ok(())
        }
    }
    let mut rest = Rest(text);
    fmt::write(&mut rest, format_args!("{value}")).is_ok() && rest.0.is_empty()
}

fn invalid_key(table: &mut Table<'_>) {
    let text = table.text();
    let kind = match parse_key(text.as_bytes()).expect_err(text) {
        ParseKeyError::Form => 0,
        ParseKeyError::Checksum => 1,
        _ => panic!("no vector has another error"),
    };
    assert_eq!(kind, table.short(), "{text}");
}

fn mac(table: &mut Table<'_>) {
    let pepper = Pepper::new(table.bytes()).expect("a pepper of at least 32 bytes");
    let mac = pepper.mac(table.bytes()).to_bytes();
    let expected = table.bytes();
    assert_eq!(mac[..expected.len()], *expected);
}

/// Creates a gate and makes its requests. Returns their number. A build without sliding windows
/// leaves out gates that have them.
///
/// The keys are imported, which keeps their ids. Those with a previous secret are then rotated.
fn gate(table: &mut Table<'_>, memory: &[CacheLine]) -> Count {
    let Some(policy) = policy(table.text()) else {
        table.pass(1);
        pass_each(table, 7);
        return Count { agreed: 0, left_out: each(table, pass_step) };
    };
    let plans = [Plan::new("default", policy.into()).expect("a short name")];
    let config = GateConfig::new(KEYS, name("kt"), &plans).with_plan_slots(PLAN_SLOTS);
    let peppers = Peppers::new(&[table.bytes()]).expect("a pepper of at least 32 bytes");
    let gate = Gate::init(memory, &config, peppers).expect("memory of the size of a gate");
    let mut administrator = gate.administer().expect("the only administrator");
    each(table, |table| {
        let (text, previous, secret) = (table.text(), table.text(), table.bytes());
        let parts = parse_key(text.as_bytes()).expect(text);
        let (account, expires, grace_until_s) = (table.short(), table.short(), table.short());
        let new = NewKey::new(account, name(parts.env)).with_expires(moment(expires));
        let rotated = !previous.is_empty();
        let first = if rotated { previous } else { text };
        let id = administrator.import(first.as_bytes(), &new, Timestamp::default()).expect(first);
        assert_eq!(id, parts.key_id, "{text}");
        if rotated {
            let mut entropy = [0; 24];
            entropy[8..].copy_from_slice(secret);
            let key = administrator.rotate(
                id,
                moment(grace_until_s),
                false,
                Entropy::new(entropy),
                Timestamp::default(),
            );
            assert_eq!(key.expect(text).expose(), text);
        }
        if table.short() == 1 {
            administrator.revoke(id).expect(text);
        }
    });
    drop(administrator);
    Count { agreed: each(table, |table| step(table, &gate)), left_out: 0 }
}

/// Reads a request and its verdict, and ignores them.
fn pass_step(table: &mut Table<'_>) {
    table.pass(1);
    pass_each(table, 1);
    table.pass(7);
    pass_each(table, 4);
    table.pass(1);
    pass_each(table, 1);
    table.pass(1);
}

/// Makes one request and compares its verdict.
fn step(table: &mut Table<'_>, gate: &Gate<&[CacheLine]>) {
    let peek = table.short() == 1;
    let mut key = None;
    let keys = each(table, |table| key = Some(table.bytes()));
    let (cost, now) = (table.short(), Timestamp::from_unix_ms(table.number()));
    let verdict = match (keys, peek) {
        (2.., _) => Verdict::duplicate_header(now),
        (_, true) => gate.peek(key, cost, now),
        (_, false) => gate.check(key, cost, now),
    };
    assert_eq!(verdict.outcome().as_str(), table.text(), "{key:?} at {now:?}");
    assert_eq!(verdict.reason().map_or("none", Reason::as_str), table.text(), "{key:?} at {now:?}");
    assert_eq!(u32::from(verdict.http_status()), table.short());
    let (key_id, account) = (table.number(), table.short());
    let mut quotas = verdict.quotas().iter();
    let windows = each(table, |table| {
        let quota = quotas.next().expect("as many windows");
        let numbers = (quota.limit, quota.remaining, quota.window.seconds(), quota.reset_unix_s);
        assert_eq!(
            numbers,
            (table.short(), table.short(), table.short(), table.number()),
            "{key:?} at {now:?}"
        );
    });
    assert_eq!(quotas.next(), None);
    if windows > 0 {
        let holder = verdict.holder().expect("a verdict with quotas has a holder");
        assert_eq!((holder.key_id.number(), holder.account), (key_id, account));
    }
    assert_eq!(verdict.retry_after_s().map_or(0, u64::from), table.number());
    let headers = verdict.headers();
    let mut block = headers.as_str();
    each(table, |table| {
        let line = table.text();
        block = block
            .strip_prefix(line)
            .unwrap_or_else(|| panic!("{block} does not begin with {line}"));
    });
    assert_eq!(block, "");
    assert_eq!(verdict.body(), table.text());
}

fn outcome(table: &mut Table<'_>) {
    let text = table.text();
    let outcome = *Outcome::ALL.iter().find(|outcome| outcome.as_str() == text).expect(text);
    assert_eq!((outcome as u32, u32::from(outcome.http_status())), (table.short(), table.short()));
    assert_eq!(outcome.body(), table.text());
}

/// Returns the time of a Unix second, or `None` for 0.
fn moment(unix_s: u32) -> Option<Timestamp> {
    (unix_s != 0).then(|| Timestamp::from_unix_s(unix_s.into()))
}
