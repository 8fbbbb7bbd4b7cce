//! Limiters in a fleet: what a slot's words may be leased for, and who may spend them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use core::time::Duration;
use std::path::Path;
use std::thread;

use keytally::{Clock as _, FleetFile, Limiter, Outcome, Timestamp, Unavailability, check_all};
use keytally_core::TallyNumbers as _;
use keytally_core::sync::Ordering;
use keytally_fleet_plan::holding;
use keytally_fleet_plan::layout::{PageState, PageWord, Phase};
use keytally_fleet_plan::on_loss::OnLoss;
use keytally_fleet_plan::words::Word;
use keytally_fleet_plan::words::Words as _;

/// A limiter with 8 slots in one bucket, which has joined a fleet.
fn limiter(folder: &Path, policy: &str) -> Limiter {
    let limiter = Limiter::create(folder.join("limiter"), &policy.parse().unwrap(), 4).unwrap();
    assert_eq!(limiter.table().slots_total(), 8);
    FleetFile::create(folder.join("fleet"), &limiter).unwrap();
    limiter.join(folder.join("fleet")).unwrap();
    limiter.set_fleet(true).unwrap();
    limiter
}

/// Makes the requests see an agent that leads.
fn lead(file: &FleetFile<'_>) {
    let state = PageState { phase: Phase::Leading, on_loss: Some(OnLoss::Closed), machines: 1 };
    file.page(PageWord::State).store(state.bits(), Ordering::SeqCst);
    file.page(PageWord::Heartbeat).store(u64::MAX >> 1, Ordering::SeqCst);
}

/// Returns the number of a subject's slot, and the subject's number as an owner.
fn number(limiter: &Limiter, subject: &[u8]) -> Option<(u32, u64)> {
    let (number, owner) = limiter.table().part(subject, 1).subject_number(0)?;
    Some((u32::try_from(number).unwrap(), owner))
}

/// Puts units into the words of a tally, as the agent does.
fn grant(limiter: &Limiter, file: &FleetFile<'_>, tally: u32, units: u32) {
    grant_at(file, tally, units, limiter.precise_clock().reading().unix_ms());
}

fn grant_at(file: &FleetFile<'_>, tally: u32, units: u32, now_ms: u64) {
    let layout = file.table().named_subject("any").unwrap().layout;
    let words = file.words(tally).unwrap();
    holding::set_holding(&layout, &words, now_ms, now_ms, &[units; 4]);
    holding::add_credits(&layout, &words, now_ms, now_ms, &[units; 4]);
}

#[test]
fn slot_is_leased_for_while_it_is_kept_until_the_windows_end() {
    let folder = tempfile::tempdir().unwrap();
    // Neither window contains the other.
    let limiter = limiter(folder.path(), "5/2s, 9/3s");
    let file = FleetFile::open(folder.path().join("fleet"), &limiter).unwrap();
    // Both windows begin here.
    const BEGIN_MS: u64 = 1_699_999_998_000;
    let check = |after_ms| {
        let at = Timestamp::from_unix_ms(BEGIN_MS + after_ms);
        assert!(limiter.table().check(b"ann", 1, at).is_admitted());
    };
    check(500);
    let (tally, owner) = number(&limiter, b"ann").unwrap();
    let is_leased = |after_ms| file.subject_at(tally, BEGIN_MS + after_ms).is_some();
    assert!(!is_leased(600), "no subject has claimed the words");
    file.owner(tally).unwrap().store(owner, Ordering::SeqCst);
    assert_eq!(file.subject_at(tally, BEGIN_MS + 600).unwrap().owner, owner);
    // The slot is kept until 3 s, and then the windows from 2 to 4 s still run.
    assert!(is_leased(1999) && !is_leased(2000) && !is_leased(2999) && !is_leased(3500));
    check(2500);
    // It is kept until 4 s now, and from 3 s on a window runs until 6 s.
    assert!(is_leased(2500) && is_leased(2999) && !is_leased(3000));
}

#[test]
fn credits_of_the_former_subject_of_a_slot_are_not_spent() {
    let folder = tempfile::tempdir().unwrap();
    let limiter = limiter(folder.path(), "9/week");
    limiter.set_credit_wait(Duration::from_millis(10));
    let file = FleetFile::open(folder.path().join("fleet"), &limiter).unwrap();
    lead(&file);
    let check = |subject: &[u8]| limiter.try_check(subject, 1);
    assert_eq!(check(b"ann").unavailability(), Some(Unavailability::Waiting));
    let (tally, owner) = number(&limiter, b"ann").unwrap();
    assert_eq!(file.subject(tally).unwrap().owner, owner, "the request has claimed the words");
    grant(&limiter, &file, tally, 4);
    let credits = || file.words(tally).unwrap().load(Word::Credits);
    let before = credits();
    let word = file.owner(tally).unwrap();
    // The words are another subject's with the same fingerprint: other bits of its hash differ.
    let other = owner ^ 1 << 60;
    word.store(other, Ordering::SeqCst);
    assert_eq!(check(b"ann").unavailability(), Some(Unavailability::Waiting));
    let both = check_all(&[&limiter.part(b"ann", 1)]).unwrap();
    assert_eq!(both.outcome(), Outcome::Unavailable);
    assert_eq!(limiter.peek(b"ann", 1).remaining(), Some(9), "nothing was charged");
    assert_eq!(credits(), before);
    // The claim is not granted while the other one holds units of the window.
    assert!(file.subject(tally).is_none());
    word.store(owner, Ordering::SeqCst);
    let verdict = check(b"ann");
    assert!(verdict.is_admitted() && verdict.is_leased());
    assert_ne!(credits(), before);
    // A charge is refunded to its own subject only.
    let spent = credits();
    word.store(other, Ordering::SeqCst);
    let charge = verdict.charge().unwrap();
    assert_eq!(limiter.refund(b"ann", charge).remaining(), Some(9));
    assert_eq!(limiter.settle(b"ann", charge, 5).uncharged(), 4, "no unit more is reserved");
    assert_eq!(credits(), spent);
}

/// The agent may be in the next window before a request is, and a request may wait until then.
#[test]
fn verdict_on_a_subject_names_the_window_whose_credits_were_spent() {
    const DAY_MS: u64 = 86_400_000;
    let folder = tempfile::tempdir().unwrap();
    let limiter = limiter(folder.path(), "9/day");
    let file = FleetFile::open(folder.path().join("fleet"), &limiter).unwrap();
    lead(&file);
    assert_eq!(limiter.try_check(b"ann", 1).unavailability(), Some(Unavailability::Waiting));
    let (tally, owner) = number(&limiter, b"ann").unwrap();
    file.owner(tally).unwrap().store(owner, Ordering::SeqCst);
    let begins_ms = (limiter.precise_clock().reading().unix_ms() / DAY_MS + 1) * DAY_MS;
    grant_at(&file, tally, 5, begins_ms);
    let verdict = limiter.check(b"ann", 2);
    assert!(verdict.is_admitted() && verdict.is_leased());
    assert_eq!(verdict.quotas().get(0).unwrap().reset_unix_s * 1000, begins_ms + DAY_MS);
    // The charge names it too, so a refund returns the credits.
    limiter.refund(b"ann", verdict.charge().unwrap());
    let word = file.words(tally).unwrap().load(Word::Credits);
    assert_eq!(file.table().named_subject("any").unwrap().layout.units(word, 0), 5);
}

/// The subject without credits has not waited, so only its admission says whose the slot is.
#[test]
fn subject_admitted_without_credits_claims_its_slot() {
    let folder = tempfile::tempdir().unwrap();
    let limiter = limiter(folder.path(), "9/week");
    let file = FleetFile::open(folder.path().join("fleet"), &limiter).unwrap();
    let state = PageState { phase: Phase::Cut, on_loss: Some(OnLoss::Open), machines: 1 };
    file.page(PageWord::State).store(state.bits(), Ordering::SeqCst);
    assert!(limiter.check(b"ann", 2).is_admitted());
    let (tally, owner) = number(&limiter, b"ann").unwrap();
    let subject = file.subject(tally).unwrap();
    assert_eq!(subject.owner, owner);
    let word = file.words(tally).unwrap().load(Word::Unreserved);
    assert_eq!(subject.layout.units(word, 0), 2);
    let mut reported = Vec::new();
    file.wanted().take(|tally| reported.push(tally));
    assert_eq!(reported, [tally]);
}

#[test]
fn slot_is_handed_over_when_the_units_of_its_former_subject_are_void() {
    let folder = tempfile::tempdir().unwrap();
    let limiter = limiter(folder.path(), "9/second");
    let file = FleetFile::open(folder.path().join("fleet"), &limiter).unwrap();
    lead(&file);
    let check = |subject: u8| limiter.try_check(&[subject], 1);
    for subject in 0..8 {
        assert_eq!(check(subject).unavailability(), Some(Unavailability::Waiting));
    }
    let former: Vec<_> = (0..8).map(|it: u8| number(&limiter, &[it]).unwrap()).collect();
    for &(tally, owner) in &former {
        file.owner(tally).unwrap().store(owner, Ordering::SeqCst);
    }
    // The slots are kept for a second after the window.
    thread::sleep(Duration::from_millis(2100));
    assert_eq!(check(100).unavailability(), Some(Unavailability::Waiting));
    let (tally, owner) = number(&limiter, &[100]).unwrap();
    let (_, before) = former.iter().find(|(its, _)| *its == tally).unwrap();
    assert_ne!(owner, *before);
    assert_eq!(file.owner(tally).unwrap().load(Ordering::SeqCst), *before);
    assert_eq!(file.subject(tally).unwrap().owner, owner, "the one that waits gets the words");
    assert!(number(&limiter, &[200]).is_none(), "it has no slot");
}
