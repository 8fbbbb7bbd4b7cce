//! A short life of a device: a key is issued, checked to its limit, gets room again when a window passes, is rotated and
//! revoked, while the tick counter wraps. Every device prints the same.

use core::fmt::{self, Write};

use keytally_core::{
    Entropy, Gate, GateConfig, Key, KeyId, Limiter, Line, Name, NewKey, Peppers, Plan, Policy, Timestamp,
    Verdict,
};

use crate::{Clock, KEYS, PLAN_SLOTS, SUBJECTS};

/// Ticks a second of the device's counter.
const HZ: u32 = 32_768;

/// 2026-01-01, 00:00 UTC, which the device was told when it began.
const START: Timestamp = Timestamp::from_unix_s(1_767_225_600);

/// A device's pepper comes from its key store or was drawn when it was made; see README.md. This one is for all to see.
const PEPPER: &[u8] = b"a pepper for all to see, 32 bytes";

/// Lives it, and tells it to `out`. The tables are made in the memory that is given, which has just their lines.
///
/// # Errors
/// Those of `out`.
///
/// # Panics
/// When something is not as it should be.
pub fn run(gate: &[Line], limiter: &[Line], out: &mut dyn Write) -> fmt::Result {
    let policy = |text: &str| text.parse::<Policy>().expect(text);
    let plans = [Plan::new("device", policy("3/minute, 5/hour")).expect("a short name")];
    let prefix = Name::new("kt").expect("a short name");
    let config = GateConfig::new(KEYS, prefix, &plans).with_plan_slots(PLAN_SLOTS);
    let peppers = Peppers::new(&[PEPPER]).expect("it is long enough");
    let gate = Gate::create(gate, &config, peppers).expect("the memory has the lines of a gate");
    let limiter =
        Limiter::create(limiter, &policy("2/second"), SUBJECTS, *b"from the entropy").expect("its lines");
    // The counter wraps 10 s from now.
    let mut device = Device {
        gate,
        limiter,
        clock: Clock::new(START, u32::MAX - 10 * HZ, HZ),
        ticks: u32::MAX - 10 * HZ,
        out,
    };

    writeln!(device.out, "a gate for {KEYS} keys, a limiter for {SUBJECTS} subjects")?;
    let (key, key_id) = device.issue()?;
    for _ in 0..4 {
        device.check("the key", Some(&key))?;
    }
    device.passes(30)?;
    device.check("still in the minute", Some(&key))?;
    device.passes(30)?;
    let verdict = device.check("the next minute", Some(&key))?;
    device.headers(&verdict)?;
    device.check("the fifth of the hour", Some(&key))?;
    let verdict = device.check("the sixth", Some(&key))?;
    device.headers(&verdict)?;

    device.passes(3600)?;
    let new = device.rotate(key_id)?;
    device.check("the old secret, in its grace", Some(&key))?;
    device.check("the new secret", Some(&new))?;
    device.passes(60)?;
    device.check("the old secret, after it", Some(&key))?;
    device.check("the new secret", Some(&new))?;
    device.gate.administer().expect("nobody else administers").revoke(key_id).expect("it is there");
    device.check("revoked", Some(&new))?;
    device.check("no key", None)?;

    for subject in ["door 1", "door 1", "door 1", "door 2"] {
        device.knock(subject)?;
    }
    device.passes(1)?;
    device.knock("door 1")
}

struct Device<'d> {
    gate: Gate<&'d [Line]>,
    limiter: Limiter<&'d [Line]>,
    clock: Clock,
    ticks: u32,
    out: &'d mut dyn Write,
}

impl Device<'_> {
    fn issue(&mut self) -> Result<(Key, KeyId), fmt::Error> {
        let new = NewKey::new(42, Name::new("live").expect("a short name")).with_plan("device");
        // A device takes these from its generator of random numbers.
        let entropy = Entropy::new(*b"24 bytes, random for you");
        let now = self.clock.at(self.ticks);
        let issued = self.gate.administer().expect("nobody else administers").issue(&new, entropy, now);
        let (key, key_id) = issued.expect("the gate has room");
        writeln!(self.out, "issued {key_id}, shown as {}", key.hint())?;
        Ok((key, key_id))
    }

    fn rotate(&mut self, key_id: KeyId) -> Result<Key, fmt::Error> {
        let now = self.clock.at(self.ticks);
        let grace_until = Some(Timestamp::from_unix_s(now.unix_s() + 60));
        let entropy = Entropy::new(*b"others, as random please");
        let mut administrator = self.gate.administer().expect("nobody else administers");
        let key = administrator.rotate(key_id, grace_until, false, entropy, now).expect("the key is there");
        writeln!(self.out, "rotated {key_id}, shown as {}", key.hint())?;
        Ok(key)
    }

    fn check(&mut self, what: &str, key: Option<&Key>) -> Result<Verdict, fmt::Error> {
        let verdict = self.gate.check(key.map(|key| key.expose().as_bytes()), 1, self.clock.at(self.ticks));
        self.tell(what, &verdict)?;
        Ok(verdict)
    }

    fn knock(&mut self, subject: &str) -> fmt::Result {
        let verdict = self.limiter.check(subject.as_bytes(), 1, self.clock.at(self.ticks));
        self.tell(subject, &verdict)
    }

    fn tell(&mut self, what: &str, verdict: &Verdict) -> fmt::Result {
        write!(self.out, "{what}: {}", verdict.outcome())?;
        if let Some(holder) = verdict.holder() {
            write!(self.out, ", account {}", holder.account)?;
        }
        for quota in verdict.quotas().iter() {
            write!(self.out, ", {} of {}/{}", quota.remaining, quota.limit, quota.window)?;
        }
        if let Some(seconds) = verdict.retry_after_s() {
            write!(self.out, ", again in {seconds} s")?;
        }
        match verdict.reason() {
            None => writeln!(self.out),
            Some(reason) => writeln!(self.out, ", because {reason}"),
        }
    }

    fn headers(&mut self, verdict: &Verdict) -> fmt::Result {
        writeln!(self.out, "  HTTP {} {}", verdict.http_status(), verdict.body())?;
        for (name, value) in verdict.headers().iter() {
            writeln!(self.out, "  {name}: {value}")?;
        }
        Ok(())
    }

    /// Lets so many seconds pass. The clock is read twice a wrap at least, as a real device's must be.
    fn passes(&mut self, seconds: u32) -> fmt::Result {
        let before = self.ticks;
        for _ in 0..seconds {
            self.ticks = self.ticks.wrapping_add(HZ);
            self.clock.at(self.ticks);
        }
        let wrapped = if self.ticks < before { ", and the counter wraps" } else { "" };
        writeln!(self.out, "{seconds} s pass{wrapped}")
    }
}
