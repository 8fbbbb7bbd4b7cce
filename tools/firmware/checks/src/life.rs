//! A simulated life of a device, whose output must be the same on all devices.
//!
//! A key is issued, checked up to its limit and again in the next window, rotated and revoked.
//! Meanwhile the tick counter wraps.

use core::fmt::{self, Write};

use keytally_core::{
    CacheLine, Entropy, Gate, GateConfig, Key, KeyId, Limiter, Name, NewKey, Peppers, Plan, Policy,
    Timestamp, Verdict,
};

use crate::{Clock, KEYS, PLAN_SLOTS, SUBJECTS};

/// The ticks per second of the device's counter.
const HZ: u32 = 32_768;

/// The time at which the device starts: 2026-01-01, 00:00 UTC.
const START: Timestamp = Timestamp::from_unix_s(1_767_225_600);

/// A public pepper, for this check only. README.md describes where a device stores its own.
const PEPPER: &[u8] = b"a pepper for all to see, 32 bytes";

/// Runs the simulation and prints it to `out`. The memory of each table has exactly its size.
///
/// # Errors
/// Returns the errors of `out`.
///
/// # Panics
/// Panics if a call fails.
pub fn run(gate: &[CacheLine], limiter: &[CacheLine], out: &mut dyn Write) -> fmt::Result {
    let policy = |text: &str| text.parse::<Policy>().expect(text);
    let plans = [Plan::new("device", policy("3/minute, 5/hour").into()).expect("a short name")];
    let prefix = Name::new("kt").expect("a short name");
    let config = GateConfig::new(KEYS, prefix, &plans).with_plan_slots(PLAN_SLOTS);
    let peppers = Peppers::new(&[PEPPER]).expect("a pepper of 32 bytes");
    let gate = Gate::init(gate, &config, peppers).expect("memory of the size of a gate");
    let limiter = Limiter::init(limiter, &policy("2/second"), SUBJECTS, *b"from the entropy")
        .expect("memory of the size of a limiter");
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
    device.wait(30)?;
    device.check("still in the minute", Some(&key))?;
    device.wait(30)?;
    let verdict = device.check("the next minute", Some(&key))?;
    device.headers(&verdict)?;
    device.check("the fifth of the hour", Some(&key))?;
    let verdict = device.check("the sixth", Some(&key))?;
    device.headers(&verdict)?;

    device.wait(3600)?;
    let new = device.rotate(key_id)?;
    device.check("the old secret, in its grace", Some(&key))?;
    device.check("the new secret", Some(&new))?;
    device.wait(60)?;
    device.check("the old secret, after it", Some(&key))?;
    device.check("the new secret", Some(&new))?;
    device
        .gate
        .administer()
        .expect("the only administrator")
        .revoke(key_id)
        .expect("an issued key");
    device.check("revoked", Some(&new))?;
    device.check("no key", None)?;

    for subject in ["sensor 1", "sensor 1", "sensor 1", "sensor 2"] {
        device.check_subject(subject)?;
    }
    device.wait(1)?;
    device.check_subject("sensor 1")
}

/// The device: its tables, its clock and counter, and its output.
struct Device<'d> {
    gate: Gate<&'d [CacheLine]>,
    limiter: Limiter<&'d [CacheLine]>,
    clock: Clock,
    ticks: u32,
    out: &'d mut dyn Write,
}

impl Device<'_> {
    /// Issues a key and prints its id.
    fn issue(&mut self) -> Result<(Key, KeyId), fmt::Error> {
        let new = NewKey::new(42, Name::new("live").expect("a short name")).with_plan("device");
        // A device draws these bytes from its random number generator.
        let entropy = Entropy::new(*b"24 bytes, random for you");
        let now = self.clock.at(self.ticks);
        let issued =
            self.gate.administer().expect("the only administrator").issue(&new, entropy, now);
        let (key, key_id) = issued.expect("a gate with a free record");
        writeln!(self.out, "issued {key_id}, shown as {}", key.hint())?;
        Ok((key, key_id))
    }

    /// Rotates a key with a grace of 60 seconds. Returns the key with its new secret.
    fn rotate(&mut self, key_id: KeyId) -> Result<Key, fmt::Error> {
        let now = self.clock.at(self.ticks);
        let grace_until = Some(Timestamp::from_unix_s(now.unix_s() + 60));
        let entropy = Entropy::new(*b"others, as random please");
        let mut administrator = self.gate.administer().expect("the only administrator");
        let key =
            administrator.rotate(key_id, grace_until, false, entropy, now).expect("an issued key");
        writeln!(self.out, "rotated {key_id}, shown as {}", key.hint())?;
        Ok(key)
    }

    /// Checks a key and prints the verdict after `label`.
    fn check(&mut self, label: &str, key: Option<&Key>) -> Result<Verdict, fmt::Error> {
        let verdict =
            self.gate.check(key.map(|key| key.expose().as_bytes()), 1, self.clock.at(self.ticks));
        self.print(label, &verdict)?;
        Ok(verdict)
    }

    /// Checks a subject of the limiter and prints the verdict.
    fn check_subject(&mut self, subject: &str) -> fmt::Result {
        let verdict = self.limiter.check(subject.as_bytes(), 1, self.clock.at(self.ticks));
        self.print(subject, &verdict)
    }

    fn print(&mut self, label: &str, verdict: &Verdict) -> fmt::Result {
        write!(self.out, "{label}: {}", verdict.outcome())?;
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

    /// Prints the response of a verdict.
    fn headers(&mut self, verdict: &Verdict) -> fmt::Result {
        writeln!(self.out, "  HTTP {} {}", verdict.http_status(), verdict.body())?;
        for (name, value) in verdict.headers().iter() {
            writeln!(self.out, "  {name}: {value}")?;
        }
        Ok(())
    }

    /// Advances the counter by `seconds`. Reads the clock each second, since fewer than 2^32 ticks
    /// may pass between two readings.
    fn wait(&mut self, seconds: u32) -> fmt::Result {
        let before = self.ticks;
        for _ in 0..seconds {
            self.ticks = self.ticks.wrapping_add(HZ);
            self.clock.at(self.ticks);
        }
        let wrapped = if self.ticks < before { ", and the counter wraps" } else { "" };
        writeln!(self.out, "{seconds} s pass{wrapped}")
    }
}
