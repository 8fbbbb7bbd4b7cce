//! Gates in a fleet: machines with files of their own in one process, which share limits through a
//! store in memory.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

use core::time::Duration;
use std::fs::{self, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::thread;

use keytally::table::check_all;
use keytally::{
    Error, FleetFile, Followed, Gate, GateConfig, Limiter, MigrationConfig, Name, NewKey, Outcome,
    Patience, Plan, Timestamp, Unavailability, Verdict, now, peek_all,
};
use keytally_core::sync::Ordering;
use keytally_fleet_plan::layout::{PageWord, Phase};
use keytally_fleet_plan::on_loss::OnLoss;

#[path = "support/fleet.rs"]
mod support;

use support::{
    Machine, credits, grant, grant_at, machines, only_tally, opened, peppers, state, with_agents,
};

fn check(gate: &Gate, key: &str, cost: u32) -> Verdict {
    gate.check(Some(key.as_bytes()), cost)
}

/// Returns the units that are admitted until every machine denies.
fn admitted_until_denied(machines: &[Machine], work: impl Fn(&Machine) -> Verdict + Sync) -> u32 {
    let of_machine = |machine: &Machine| {
        let mut admitted = 0;
        // A denial may be too early: the store recalls units that other machines do not use.
        for _ in 0..8 {
            loop {
                let verdict = work(machine);
                match verdict.outcome() {
                    Outcome::Admitted => admitted += verdict.cost(),
                    Outcome::Denied => break,
                    other => panic!("{other}: {:?}", verdict.unavailability()),
                }
            }
            thread::sleep(Duration::from_millis(150));
        }
        admitted
    };
    thread::scope(|scope| {
        let threads =
            machines.iter().flat_map(|machine| [0, 1].map(|_| scope.spawn(|| of_machine(machine))));
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

#[test]
fn limit_of_several_machines_is_exact() {
    let folder = tempfile::tempdir().unwrap();
    let (machines, keys) = machines(folder.path(), 3, "3000/week", 1);
    let (key, key_id) = &keys[0];
    with_agents(&machines, |fleet| {
        assert_eq!(admitted_until_denied(&machines, |it| check(&it.gate, key, 1)), 3000);
        assert_eq!(fleet.store().held(&format!("{key_id}:key")), 3000);
        let denied = check(&machines[0].gate, key, 1);
        assert!(denied.is_leased() && denied.charge().is_none());
        assert_eq!((denied.remaining(), denied.http_status()), (Some(0), 429));
        assert!(denied.retry_after_s().unwrap() > 60);
        // Most requests did not wait for the store.
        let requests = fleet.store().requests;
        assert!(requests < 1500, "{requests}");
    });
}

#[test]
fn compound_charge_spends_all_tallies_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let plan = "200/week; team: 300/week; group write: 90/week";
    let (machines, keys) = machines(folder.path(), 2, plan, 2);
    let [(one, one_id), (two, _)] = &keys[..] else { panic!() };
    let addresses = Limiter::in_memory(&"100000/week".parse().unwrap(), 8).unwrap();
    let write = |gate: &Gate, key: &str| {
        let part = gate.part(Some(key.as_bytes()), 1).with_group("write").unwrap();
        let address = addresses.part(b"192.0.2.1", 1);
        check_all(&[&address, &part], gate.clock()).unwrap()
    };
    with_agents(&machines, |fleet| {
        let admitted = admitted_until_denied(&machines, |it| *write(&it.gate, one).decisive());
        assert_eq!(admitted, 90);
        let denied = write(&machines[1].gate, one);
        let sections: Vec<_> =
            denied.tallies().iter().map(|tally| tally.verdict().outcome()).collect();
        let [limiter, key, team, group] = sections[..] else { panic!("{sections:?}") };
        assert_eq!((limiter, key, team), (Outcome::Admitted, Outcome::Admitted, Outcome::Admitted));
        assert_eq!(group, Outcome::Denied);
        // What the refused requests took was given back: the key has exactly the rest.
        assert_eq!(admitted_until_denied(&machines, |it| check(&it.gate, one, 1)), 110);
        assert_eq!(admitted_until_denied(&machines, |it| check(&it.gate, two, 1)), 100);
        assert_eq!(fleet.store().held("team.42:team"), 300);
        assert_eq!(fleet.store().held(&format!("{one_id}:key")), 200);
        let subject = addresses.peek(b"192.0.2.1", 1);
        assert_eq!(subject.quotas().get(0).unwrap().used(), 90);
    });
}

#[test]
fn part_that_another_part_refuses_gives_its_credits_back() {
    let folder = tempfile::tempdir().unwrap();
    let (two, keys) = machines(folder.path(), 2, "10/week", 1);
    let files = [0, 1].map(|it: usize| FleetFile::open(&two[it].fleet, &two[it].gate).unwrap());
    let tally = only_tally(&files[0]);
    grant(&files[0], tally, 7);
    let key = Some(keys[0].0.as_bytes());
    let (first, second) = (two[0].gate.part(key, 3), two[1].gate.part(key, 3));
    // The second machine has no agent and no credits.
    let refused = check_all(&[&first, &second], two[0].gate.clock()).unwrap();
    assert_eq!(refused.outcome(), Outcome::Unavailable);
    assert_eq!(credits(&files[0], tally), 7);
    grant(&files[1], tally, 3);
    let admitted = check_all(&[&first, &second], two[0].gate.clock()).unwrap();
    assert!(admitted.is_admitted());
    assert_eq!([0, 1].map(|it: usize| credits(&files[it], tally)), [4, 0]);
}

#[test]
fn refund_and_settlement_return_and_take_credits() {
    let folder = tempfile::tempdir().unwrap();
    let (one, keys) = machines(folder.path(), 1, "100/week", 1);
    let (gate, (key, key_id)) = (&one[0].gate, &keys[0]);
    let file = FleetFile::open(&one[0].fleet, gate).unwrap();
    let tally = only_tally(&file);
    grant(&file, tally, 20);
    let first = check(gate, key, 8);
    assert!(first.is_leased() && first.is_admitted());
    assert_eq!(
        (first.remaining(), credits(&file, tally)),
        (Some(100), 12),
        "the store may have all"
    );
    let refunded = gate.refund(*key_id, first.charge().unwrap()).unwrap();
    assert_eq!((refunded.is_leased(), credits(&file, tally)), (true, 20));
    let settle = |actual| {
        let charge = check(gate, key, 8).charge().unwrap();
        gate.settle(*key_id, charge, actual).unwrap().uncharged()
    };
    assert_eq!((settle(5), credits(&file, tally)), (0, 15));
    assert_eq!((settle(10), credits(&file, tally)), (0, 5));
    grant(&file, tally, 10);
    assert_eq!(credits(&file, tally), 15);
    // 7 units are left above the estimate, and 20 are needed.
    assert_eq!((settle(28), credits(&file, tally)), (13, 0));
    let used = gate.table().peek(Some(key.as_bytes()), 0, now()).quotas().get(0).unwrap().used();
    assert_eq!(used, 5 + 10 + 15, "the tally counts what was charged");
}

#[test]
fn cold_key_waits_for_the_agent() {
    let folder = tempfile::tempdir().unwrap();
    let (one, keys) = machines(folder.path(), 1, "100000/week", 50);
    with_agents(&one, |fleet| {
        let mut waits: Vec<_> = keys
            .iter()
            .map(|(key, _)| {
                let start_ms = now().unix_ms();
                let verdict = check(&one[0].gate, key, 3);
                assert!(verdict.is_admitted() && verdict.is_leased());
                now().unix_ms().saturating_sub(start_ms)
            })
            .collect();
        waits.sort_unstable();
        // The agent of this test looks by itself each 5 ms.
        assert!(waits[25] < 4, "{waits:?}");
        assert_eq!(fleet.store().requests, 50);
    });
}

#[test]
fn wait_ends_when_the_agent_does_not_answer() {
    let folder = tempfile::tempdir().unwrap();
    let (one, keys) = machines(folder.path(), 1, "10/week", 1);
    let Machine { gate, fleet, .. } = &one[0];
    let file = FleetFile::open(fleet, gate).unwrap();
    let check = || {
        let start_ms = now().unix_ms();
        let verdict = check(gate, &keys[0].0, 1);
        (verdict, now().unix_ms() - start_ms)
    };
    gate.set_credit_wait(Duration::from_millis(30));
    let set =
        |phase| file.page(PageWord::State).store(state(phase, OnLoss::Closed, 1), Ordering::SeqCst);
    for (phase, waits) in [
        (Phase::Leading, true),
        (Phase::Learning, true),
        (Phase::Cut, false),
        (Phase::Absent, false),
    ] {
        set(phase);
        file.page(PageWord::Heartbeat).store(now().unix_ms(), Ordering::SeqCst);
        let (verdict, elapsed) = check();
        assert_eq!(verdict.unavailability(), Some(Unavailability::Lost), "{phase:?}");
        assert_eq!((verdict.http_status(), verdict.retry_after_s()), (503, Some(1)));
        assert_eq!(elapsed >= 29, waits, "{phase:?}: {elapsed:?}");
    }
    // The agent is dead.
    set(Phase::Leading);
    file.page(PageWord::Heartbeat).store(now().unix_ms() - 2100, Ordering::SeqCst);
    assert!(check().1 < 25);
    assert_eq!(gate.table().peek(Some(keys[0].0.as_bytes()), 1, now()).remaining(), Some(10));
    // Credits are spent in every state.
    grant(&file, only_tally(&file), 2);
    set(Phase::Absent);
    assert!(check().0.is_leased() && check().0.is_admitted());
    assert_eq!(check().0.unavailability(), Some(Unavailability::Lost));
}

#[test]
fn try_check_does_not_wait() {
    let folder = tempfile::tempdir().unwrap();
    let (one, keys) = machines(folder.path(), 1, "10/week; group write: 5/week", 1);
    let (gate, key) = (&one[0].gate, Some(keys[0].0.as_bytes()));
    let first = with_agents(&one, |_| {
        let first = gate.try_check(key, 1);
        for _ in 0..1000 {
            if gate.try_check(key, 1).is_admitted() {
                return first;
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("the agent gave nothing");
    });
    assert_eq!(first.unavailability(), Some(Unavailability::Waiting));
    assert_eq!(first.outcome(), Outcome::Unavailable);
    // The agent has ended, and its last heartbeat is fresh.
    let file = FleetFile::open(&one[0].fleet, gate).unwrap();
    let rest = credits(&file, only_key_tally(&file));
    for _ in 0..rest {
        assert!(gate.try_check(key, 1).is_admitted());
    }
    assert_eq!(gate.try_check(key, 1).unavailability(), Some(Unavailability::Waiting));
    let start_ms = now().unix_ms();
    assert_eq!(gate.check_without_wait(key, 1).unavailability(), Some(Unavailability::Lost));
    assert!(now().unix_ms() - start_ms < 1000, "it would wait 2 s for the agent");
}

#[test]
fn part_waits_decides_or_returns_as_its_caller_chose() {
    let folder = tempfile::tempdir().unwrap();
    let (one, keys) = machines(folder.path(), 1, "10/week; group write: 5/week", 1);
    let (gate, key) = (&one[0].gate, Some(keys[0].0.as_bytes()));
    let file = FleetFile::open(&one[0].fleet, gate).unwrap();
    let leading = state(Phase::Leading, OnLoss::Share, 2);
    file.page(PageWord::State).store(leading, Ordering::SeqCst);
    file.page(PageWord::Heartbeat).store(now().unix_ms() + 60_000, Ordering::SeqCst);
    gate.set_credit_wait(Duration::from_millis(20));
    let check = |patience| {
        let part = gate.counted_with(patience).part(key, 1).with_group("write").unwrap();
        check_all(&[&part], gate.clock()).unwrap()
    };
    let waiting = *check(Patience::Return).decisive();
    assert_eq!(waiting.unavailability(), Some(Unavailability::Waiting));
    // The share of this machine: half of 5 units, rounded down.
    assert!(check(Patience::Decide).is_admitted());
    assert!(check(Patience::Wait).is_admitted());
    assert_eq!(check(Patience::Decide).outcome(), Outcome::Denied);
}

/// Returns the tally of the key in a gate with one key and one group.
fn only_key_tally(file: &FleetFile<'_>) -> u32 {
    let its = |&tally: &u32| file.subject(tally).is_some_and(|it| it.name.ends_with(":key"));
    (0..file.tallies()).find(its).unwrap()
}

#[test]
fn peek_shows_the_fleet_and_requests_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (one, keys) = machines(folder.path(), 2, "100/week", 1);
    let (gate, key) = (&one[0].gate, Some(keys[0].0.as_bytes()));
    with_agents(&one, |fleet| {
        let peeked = gate.peek(key, 1);
        assert!(peeked.is_admitted() && peeked.is_leased());
        assert_eq!((peeked.remaining(), peeked.charge()), (Some(100), None));
        thread::sleep(Duration::from_millis(20));
        assert_eq!(fleet.store().requests, 0);
        assert_eq!(check(gate, &keys[0].0, 30).remaining(), Some(70));
        assert_eq!(check(&one[1].gate, &keys[0].0, 30).remaining(), Some(40));
        assert_eq!(admitted_until_denied(&one, |it| check(&it.gate, &keys[0].0, 1)), 40);
        let peeked = gate.peek(key, 1);
        assert_eq!((peeked.outcome(), peeked.remaining()), (Outcome::Denied, Some(0)));
    });
}

/// The agent may be in the next window before a request is, and a request may wait until then.
#[test]
fn verdict_names_the_windows_whose_credits_were_spent() {
    for plan in ["10/day", "10/day; team: 20/day"] {
        let folder = tempfile::tempdir().unwrap();
        let (two, keys) = machines(folder.path(), 2, plan, 1);
        let (gate, key) = (&two[0].gate, Some(keys[0].0.as_bytes()));
        let file = FleetFile::open(&two[0].fleet, gate).unwrap();
        let tallies = (0..file.tallies()).filter(|&tally| file.subject(tally).is_some());
        let tallies: Vec<_> = tallies.collect();
        const DAY_MS: u64 = 86_400_000;
        let begins_ms = (now().unix_ms() / DAY_MS + 1) * DAY_MS;
        tallies.iter().for_each(|&tally| grant_at(&file, tally, 5, begins_ms));
        let checked = gate.part(key, 2).check(gate.clock());
        assert!(checked.is_admitted());
        for verdict in checked.verdicts() {
            let quota = verdict.quotas().get(0).unwrap();
            assert_eq!(quota.reset_unix_s * 1000, begins_ms + DAY_MS, "{plan}");
        }
        let alone = gate.check(key, 1);
        assert_eq!(alone.quotas().get(0).unwrap().reset_unix_s * 1000, begins_ms + DAY_MS);
        let left = |at: usize| credits(&file, tallies[at]);
        assert!((0..tallies.len()).all(|at| left(at) == 2));
        // A request that another part refuses returns them: the second machine has none.
        let (first, second) = (gate.part(key, 2), two[1].gate.part(key, 2));
        let refused = check_all(&[&first, &second], gate.clock()).unwrap();
        assert_eq!(refused.outcome(), Outcome::Unavailable);
        assert!((0..tallies.len()).all(|at| left(at) == 2));
    }
}

/// Returns what a gate has counted in the first window of a tally.
fn counted(gate: &Gate, tally: u32) -> u32 {
    let found = gate.table().numbered_tally(tally.into(), now()).unwrap();
    found.quotas.get(0).unwrap().used()
}

/// Returns what is noted for the agent as admitted without credits, in the first window.
fn unreserved(file: &FleetFile<'_>, tally: u32) -> u32 {
    let word = file.words(tally).unwrap().unreserved.load(Ordering::SeqCst);
    file.subject(tally).unwrap().layout.units_at(word, now().unix_ms())[0]
}

/// Each section of a request that is admitted without credits is noted. A part that is refused for
/// another reason notes nothing.
#[test]
fn request_admitted_without_credits_is_noted_unless_another_part_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let (one, keys) = machines(folder.path(), 2, "10/week; team: 20/week", 1);
    let files = [0, 1].map(|it: usize| FleetFile::open(&one[it].fleet, &one[it].gate).unwrap());
    let cut = state(Phase::Cut, OnLoss::Open, 1);
    files[0].page(PageWord::State).store(cut, Ordering::SeqCst);
    let closed = state(Phase::Cut, OnLoss::Closed, 1);
    files[1].page(PageWord::State).store(closed, Ordering::SeqCst);
    let noted = || -> Vec<u32> {
        let its = (0..files[0].tallies()).filter(|&it| files[0].subject(it).is_some());
        its.map(|tally| unreserved(&files[0], tally)).collect()
    };
    let key = Some(keys[0].0.as_bytes());
    assert!(one[0].gate.part(key, 3).check(now()).is_admitted());
    assert_eq!(noted(), [3, 3]);
    let parts = [one[0].gate.part(key, 4), one[1].gate.part(key, 1)];
    let refused = check_all(&[&parts[0], &parts[1]], one[0].gate.clock()).unwrap();
    assert_eq!(refused.outcome(), Outcome::Unavailable);
    assert_eq!(noted(), [3, 3]);
}

#[test]
fn lost_store_is_decided_as_the_operator_chose() {
    for (mode, admits) in [(OnLoss::Closed, 0), (OnLoss::Share, 3), (OnLoss::Open, 10)] {
        let folder = tempfile::tempdir().unwrap();
        let (one, keys) = machines(folder.path(), 1, "10/week", 1);
        let Machine { gate, fleet, .. } = &one[0];
        let file = FleetFile::open(fleet, gate).unwrap();
        file.page(PageWord::State).store(state(Phase::Cut, mode, 3), Ordering::SeqCst);
        let mut admitted = Vec::new();
        let last = loop {
            let verdict = check(gate, &keys[0].0, 1);
            if !verdict.is_admitted() {
                break verdict;
            }
            admitted.push(verdict);
        };
        assert_eq!(admitted.len(), admits, "{mode}");
        assert!(admitted.iter().all(|it| !it.is_leased() && it.charge().unwrap().is_unreserved()));
        match mode {
            OnLoss::Closed => assert_eq!(last.unavailability(), Some(Unavailability::Lost)),
            OnLoss::Share | OnLoss::Open => {
                assert_eq!((last.outcome(), last.is_leased()), (Outcome::Denied, false));
                assert_eq!((last.remaining(), last.quotas().get(0).unwrap().limit), (Some(0), 10));
                // The next lease request states what was admitted, and the agent learns of it.
                let tally = only_tally(&file);
                assert_eq!(counted(gate, tally) as usize, admits);
                assert_eq!(unreserved(&file, tally) as usize, admits);
                let mut reported = Vec::new();
                file.wanted().take(|tally| reported.push(tally));
                assert_eq!(reported, [tally]);
                // A refund of such a charge makes no credits, also where there is room for them.
                grant(&file, tally, 5);
                assert!(check(gate, &keys[0].0, 0).is_admitted());
                let words = file.words(tally).unwrap();
                let before = words.credits.load(Ordering::SeqCst);
                grant(&file, tally, 0);
                words.credits.store(before, Ordering::SeqCst);
                let charge = admitted[0].charge().unwrap();
                gate.refund(keys[0].1, charge).unwrap();
                assert_eq!(words.credits.load(Ordering::SeqCst), before);
                assert_eq!(counted(gate, tally) as usize, admits - 1);
            }
        }
    }
}

#[test]
fn keys_are_unavailable_from_the_time_on_the_page() {
    for plan in ["100/week", "unlimited; team: 100/week"] {
        let folder = tempfile::tempdir().unwrap();
        let (one, keys) = machines(folder.path(), 1, plan, 1);
        let Machine { gate, fleet, .. } = &one[0];
        let file = FleetFile::open(fleet, gate).unwrap();
        let tally = only_tally(&file);
        grant(&file, tally, 50);
        let key = &keys[0].0;
        let close = |at_ms: u64| file.page(PageWord::KeysClose).store(at_ms, Ordering::SeqCst);
        assert!(check(gate, key, 1).is_admitted());
        close(now().unix_ms() - 1000);
        for verdict in [
            check(gate, key, 1),
            check(gate, key, 0),
            gate.try_check(Some(key.as_bytes()), 1),
            gate.peek(Some(key.as_bytes()), 1),
        ] {
            assert_eq!(verdict.outcome(), Outcome::Unavailable, "{plan}");
            assert_eq!(verdict.unavailability(), Some(Unavailability::Lost));
        }
        assert_eq!(credits(&file, tally), 49, "nothing was spent");
        assert_eq!(counted(gate, tally), 1, "and nothing was charged");
        for open_ms in [now().unix_ms() + 60_000, 0] {
            close(open_ms);
            assert!(check(gate, key, 1).is_admitted());
        }
    }
}

#[test]
fn process_that_did_not_join_refuses_to_decide() {
    let folder = tempfile::tempdir().unwrap();
    let (one, keys) = machines(folder.path(), 1, "10/week", 1);
    let Machine { gate, path, fleet } = &one[0];
    let other = opened(path);
    let refused = check(&other, &keys[0].0, 1);
    assert_eq!(refused.outcome(), Outcome::Unavailable);
    assert_eq!(refused.unavailability(), Some(Unavailability::NotReserving));
    let part = other.part(Some(keys[0].0.as_bytes()), 1).check(now());
    assert_eq!(part.decisive().unavailability(), Some(Unavailability::NotReserving));
    let sentence = refused.unavailability().unwrap().to_string();
    assert!(sentence.contains("this process did not join"), "{sentence}");
    assert_eq!(other.table().peek(Some(keys[0].0.as_bytes()), 1, now()).remaining(), Some(10));
    // Leaving the fleet is seen at once by all.
    gate.set_fleet(false).unwrap();
    assert!(check(&other, &keys[0].0, 1).is_admitted() && !other.is_in_fleet());
    let plain = check(gate, &keys[0].0, 1);
    assert!(plain.is_admitted() && !plain.is_leased());
    assert_eq!(plain.remaining(), Some(8));
    gate.set_fleet(true).unwrap();
    other.join(fleet).unwrap();
    let twice = other.join(fleet).unwrap_err().to_string();
    assert!(
        twice.ends_with("this process has joined a fleet with the gate or limiter already"),
        "{twice}"
    );
    assert_eq!(check(&other, &keys[0].0, 1).unavailability(), Some(Unavailability::Lost));
}

#[test]
fn new_key_in_the_record_of_a_revoked_one_has_its_own_credits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.gate");
    let plan = Plan::new("default", "10/second".parse().unwrap()).unwrap();
    let config = GateConfig::default().with_keys(1).with_plans(vec![plan]);
    let gate = Gate::create(&path, peppers(), &config).unwrap();
    let fleet = folder.path().join("api.fleet");
    let file = FleetFile::create(&fleet, &gate).unwrap();
    gate.set_fleet(true).unwrap();
    gate.join(&fleet).unwrap();
    let new = NewKey::new(42, Name::new("live").unwrap());
    let (_, first_id) = gate.issue(&new).unwrap();
    let old = file.subject(0).unwrap().owner;
    gate.revoke(first_id).unwrap();
    assert!(file.subject(0).unwrap().name.starts_with(&first_id.to_string()));
    // The record is given to another key when the windows of its tally have passed.
    thread::sleep(Duration::from_millis(2100));
    let (second, second_id) = gate.issue(&new).unwrap();
    assert_ne!(first_id, second_id);
    let (words, owner) = (file.words(0).unwrap(), file.owner(0).unwrap());
    let is_admitted = |its: u64| {
        grant(&file, 0, 4);
        owner.store(its, Ordering::SeqCst);
        let before = words.credits.load(Ordering::SeqCst);
        let verdict = check(&gate, second.expose(), 1);
        assert_eq!(words.credits.load(Ordering::SeqCst) != before, verdict.is_admitted());
        if let Some(charge) = verdict.charge() {
            // A refund changes nothing either under another owner.
            owner.store(old, Ordering::SeqCst);
            let before = words.credits.load(Ordering::SeqCst);
            gate.refund(second_id, charge).unwrap();
            assert_eq!(words.credits.load(Ordering::SeqCst), before);
        }
        verdict.is_admitted()
    };
    assert!((0..20).all(|_| !is_admitted(old)));
    // The second may end between the grant and the check.
    assert!((0..20).filter(|_| is_admitted(file.subject(0).unwrap().owner)).count() > 3);
    owner.store(old, Ordering::SeqCst);
    drop(file);

    let machine = [Machine { gate, path, fleet }];
    with_agents(&machine, |_| {
        let Machine { gate, fleet, .. } = &machine[0];
        gate.set_credit_wait(Duration::from_secs(5));
        assert!((0..20).any(|_| check(gate, second.expose(), 1).is_admitted()));
        let file = FleetFile::open(fleet, gate).unwrap();
        assert_eq!(file.owner(0).unwrap().load(Ordering::SeqCst), file.subject(0).unwrap().owner);
    });
}

#[test]
fn request_of_a_joined_gate_has_the_time_of_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let (one, keys) = machines(folder.path(), 1, "10/week", 1);
    let Machine { gate, fleet, .. } = &one[0];
    let file = FleetFile::open(fleet, gate).unwrap();
    let hours = |hours: i64| {
        let offset = (hours * 3_600_000).cast_unsigned();
        file.page(PageWord::Offset).store(offset, Ordering::SeqCst);
        let verdict = check(gate, &keys[0].0, 1);
        verdict.now().unix_s().cast_signed() - now().unix_s().cast_signed()
    };
    assert!((3590..3610).contains(&hours(1)));
    assert!((-3610..-3590).contains(&hours(-1)));
    // The calls that are not checks have it too, and a compound charge with another gate.
    hours(1);
    let (of_store, key_id) = (now().unix_s() + 3600, keys[0].1);
    let is_of_store = |time: Timestamp| time.unix_s().abs_diff(of_store) < 10;
    grant(&file, only_tally(&file), 3);
    let charge = check(gate, &keys[0].0, 2).charge().unwrap();
    assert!(is_of_store(gate.settle(key_id, charge, 1).unwrap().now()));
    assert!(is_of_store(gate.refund(key_id, charge).unwrap().now()));
    assert!(is_of_store(gate.reset(key_id).unwrap().now()));
    gate.set_fleet(false).unwrap();
    assert!((-10..10).contains(&hours(1)), "a gate outside of a fleet has the time of the machine");
}

#[test]
fn file_of_another_gate_or_boot_is_refused_or_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (two, _) = machines(folder.path(), 1, "10/week", 4);
    let Machine { fleet, path, .. } = &two[0];
    // A gate may join once.
    let gate = opened(path);
    let sentence = |path: &std::path::Path| gate.join(path).unwrap_err().to_string();
    let ends = |path: &std::path::Path, end: &str| {
        let text = sentence(path);
        assert!(text.contains(end), "{text}");
    };
    // Another gate: with other tallies, and with as many.
    let config = |keys| GateConfig::default().with_keys(keys);
    for (keys, end) in
        [(9, "the fleet file has 9 tallies, and the table has 4"), (4, "belongs to another gate")]
    {
        let other =
            Gate::create(folder.path().join(format!("{keys}.other")), peppers(), &config(keys))
                .unwrap();
        let foreign = folder.path().join(format!("{keys}.fleet"));
        FleetFile::create(&foreign, &other).unwrap();
        ends(&foreign, end);
        assert!(matches!(FleetFile::create(&foreign, &gate), Err(Error::Fleet { .. })), "kept");
        let led = FleetFile::open(&foreign, &other).unwrap();
        assert!(led.try_lock().unwrap());
        assert!(FleetFile::replace(&foreign, &gate).is_err(), "its agent runs");
        drop(led);
        FleetFile::replace(&foreign, &gate).unwrap();
        FleetFile::open(&foreign, &gate).unwrap();
    }
    // A copy, and a file of another boot.
    let copy = folder.path().join("copy.fleet");
    fs::copy(fleet, &copy).unwrap();
    ends(&copy, "was copied, so its credits are void; start the agent, which replaces it");
    let file = FleetFile::create(&copy, &gate).unwrap();
    grant(&file, only_any(&file), 3);
    file.page(PageWord::BootLow).fetch_add(1, Ordering::SeqCst);
    ends(&copy, "written before this boot");
    let file = FleetFile::create(&copy, &gate).unwrap();
    assert_eq!(file.words(only_any(&file)).unwrap().credits.load(Ordering::SeqCst), 0);
    // Not a fleet file, another version, and a truncated one.
    let text = folder.path().join("text");
    fs::write(&text, "not a fleet file, but some notes").unwrap();
    ends(&text, "the file is not a fleet file");
    ends(path, "the file is not a fleet file");
    assert!(FleetFile::create(&text, &gate).is_err());
    assert!(FleetFile::replace(&text, &gate).is_err());
    assert!(fs::read_to_string(&text).unwrap().starts_with("not a fleet"));
    file.page(PageWord::Geometry).store(9 << 32 | 4, Ordering::SeqCst);
    ends(&copy, "the fleet file has version 9 of the layout, and this program has 1");
    drop(file);
    assert!(FleetFile::create(&copy, &gate).is_err());
    FleetFile::replace(&copy, &gate).unwrap();
    OpenOptions::new().write(true).open(fleet).unwrap().set_len(4096).unwrap();
    ends(fleet, "the fleet file has 4096 bytes instead of");
    FleetFile::replace(fleet, &gate).unwrap();
    ends(folder.path(), "this is a directory, not a regular file");
    ends(&folder.path().join("none"), "cannot open");
}

/// Returns any tally that has an owner.
/// Root could take what another user has written for units. Only root can give a file away.
#[cfg(unix)]
#[test]
fn file_of_another_user_is_refused_and_kept() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let folder = tempfile::tempdir().unwrap();
    let (two, _) = machines(folder.path(), 1, "10/week", 4);
    let Machine { fleet, path, .. } = &two[0];
    let gate = opened(path);
    if chown(fleet, Some(65534), None).is_err() {
        assert_ne!(fs::metadata(fleet).unwrap().uid(), 0);
        return;
    }
    for open in [FleetFile::open, FleetFile::create, FleetFile::replace] {
        let error = open(fleet, &gate).unwrap_err().to_string();
        let expected = "belongs to user 65534, who could write units to it; remove it and start";
        assert!(error.contains(expected), "{error}");
    }
    assert!(fleet.exists());
    // The gate, or else the folder, is that user's too.
    for whose in [path, folder.path()] {
        chown(whose, Some(65534), None).unwrap();
        FleetFile::open(fleet, &gate).unwrap();
        chown(whose, Some(0), None).unwrap();
    }
}

fn only_any(file: &FleetFile<'_>) -> u32 {
    (0..file.tallies()).find(|&tally| file.subject(tally).is_some()).unwrap()
}

#[cfg(unix)]
#[test]
fn file_that_others_can_write_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let (one, _) = machines(folder.path(), 1, "10/week", 1);
    let Machine { path, fleet, .. } = &one[0];
    assert_eq!(fs::metadata(fleet).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(fleet, fs::Permissions::from_mode(0o666)).unwrap();
    let refused = opened(path).join(fleet).unwrap_err();
    assert!(matches!(refused, Error::Mode { mode: 0o666, .. }), "{refused}");
}

#[test]
fn gate_with_sliding_windows_cannot_be_in_a_fleet() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.gate");
    let plan = Plan::new("default", "sliding 10/minute".parse().unwrap()).unwrap();
    let config = GateConfig::default().with_keys(4).with_plans(vec![plan]);
    let gate = Gate::create(&path, peppers(), &config).unwrap();
    let fleet = folder.path().join("api.fleet");
    for refused in
        [gate.set_fleet(true), gate.join(&fleet), FleetFile::create(&fleet, &gate).map(drop)]
    {
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("this policy has sliding ones"), "{text}");
    }
    assert!(!gate.is_in_fleet() && !fleet.exists());
}

#[test]
fn hostile_words_neither_crash_nor_hang_a_request() {
    let folder = tempfile::tempdir().unwrap();
    let plan = "10/minute, 100/week; team: 50/month@17; group write: 5/day";
    let (one, keys) = machines(folder.path(), 1, plan, 2);
    let Machine { gate, fleet, .. } = &one[0];
    gate.set_credit_wait(Duration::from_millis(1));
    let len = fs::metadata(fleet).unwrap().len();
    let mut file = OpenOptions::new().write(true).open(fleet).unwrap();
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    for round in 0..400_u32 {
        let bytes: Vec<u8> = (0..len - 128)
            .step_by(8)
            .flat_map(|_| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                // Owners are often right, or nothing would be spent.
                match round % 3 {
                    0 => random.to_le_bytes(),
                    1 => [0xFF; 8],
                    _ => (random & 0x0303_0303_0303_0303).to_le_bytes(),
                }
            })
            .collect();
        file.seek(SeekFrom::Start(128)).unwrap();
        file.write_all(&bytes).unwrap();
        let shown = FleetFile::open(fleet, gate).unwrap();
        for tally in 0..shown.tallies() {
            if let (Some(subject), true) = (shown.subject(tally), round % 2 == 0) {
                shown.owner(tally).unwrap().store(subject.owner, Ordering::SeqCst);
            }
        }
        for (key, key_id) in &keys {
            let part = gate.part(Some(key.as_bytes()), round % 7).with_group("write").unwrap();
            let compound = part.check(gate.clock());
            let _ = compound.headers();
            if let Some(charge) = compound.charge(0) {
                gate.settle(*key_id, charge, round % 11);
            }
            gate.peek(Some(key.as_bytes()), 1);
            gate.try_check(Some(key.as_bytes()), 1);
        }
    }
}

/// Creates a gate with a key in a fleet, and follows it. Returns the key's text, too.
fn followed(folder: &std::path::Path) -> (Followed, String) {
    let (one, keys) = machines(folder, 1, "100/week", 1);
    let followed = Followed::open(&one[0].path, peppers()).unwrap();
    (followed, keys[0].0.clone())
}

/// Makes the fleet file at this path that of the gate at the path, and grants units to its key, as
/// an agent does.
fn replace_fleet_file(fleet: &std::path::Path, path: &std::path::Path, units: u32) {
    let gate = opened(path);
    let _ = fs::remove_file(fleet);
    let file = FleetFile::create(fleet, &gate).unwrap();
    grant(&file, only_tally(&file), units);
}

#[test]
fn followed_gate_joins_the_fleet_file_of_a_migrated_gate() {
    let folder = tempfile::tempdir().unwrap();
    let (gate, key) = followed(folder.path());
    let (path, fleet) = (folder.path().join("0.gate"), folder.path().join("0.fleet"));
    gate.join(&fleet).unwrap();
    let twice = gate.join(&fleet).unwrap_err().to_string();
    assert!(
        twice.ends_with("this process has joined a fleet with the gate or limiter already"),
        "{twice}"
    );
    let check = || gate.call(|gate| gate.check(Some(key.as_bytes()), 1));
    replace_fleet_file(&fleet, &path, 9);
    assert!(gate.reopen_if_replaced().unwrap(), "the fleet file is another one");
    assert!(check().is_leased());

    opened(&path)
        .migrate(folder.path().join("new.gate"), &MigrationConfig::default().with_keys(8))
        .unwrap();
    // The fleet file is still that of the old gate, whose counts have moved.
    assert_eq!(check().unavailability(), Some(Unavailability::NotReserving));
    let problem = gate.reopen_if_replaced().unwrap_err().to_string();
    assert!(problem.contains("the fleet file has"), "{problem}");
    assert_eq!(gate.status().problem, Some(problem));
    replace_fleet_file(&fleet, &path, 5);
    assert!(!gate.reopen_if_replaced().unwrap(), "the gate's own file was not replaced");
    assert_eq!(gate.status().problem, None);
    assert!(check().is_leased());
    let peeked = gate.load().table().peek(Some(key.as_bytes()), 1, now());
    assert_eq!(peeked.remaining(), Some(98), "the new gate has the count of the old one");
    assert_eq!(gate.load().table().capacity(), 8);
}

#[test]
fn replaced_gate_is_in_force_once_the_fleet_file_is_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (gate, key) = followed(folder.path());
    let (path, fleet) = (folder.path().join("0.gate"), folder.path().join("0.fleet"));
    replace_fleet_file(&fleet, &path, 9);
    gate.join(&fleet).unwrap();
    let other = tempfile::tempdir_in(folder.path()).unwrap();
    let (others, keys) = machines(other.path(), 1, "50/week", 2);
    fs::rename(&others[0].path, &path).unwrap();
    let is_leased = |key: &str| gate.load().check(Some(key.as_bytes()), 1).is_leased();
    let problem = gate.reopen_if_replaced().unwrap_err().to_string();
    assert!(problem.ends_with("the fleet file belongs to another gate or limiter"), "{problem}");
    assert!(is_leased(&key), "the old gate decides");
    let new = opened(&path);
    fs::remove_file(&fleet).unwrap();
    let file = FleetFile::create(&fleet, &new).unwrap();
    (0..file.tallies()).filter(|&it| file.subject(it).is_some()).for_each(|it| grant(&file, it, 5));
    assert!(gate.reopen_if_replaced().unwrap());
    assert!(is_leased(&keys[0].0) && !is_leased(&key));
}

#[test]
fn check_all_has_the_time_of_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let (one, keys) = machines(folder.path(), 1, "10/week", 1);
    let Machine { gate, fleet, .. } = &one[0];
    let file = FleetFile::open(fleet, gate).unwrap();
    file.page(PageWord::Offset).store(3_600_000, Ordering::SeqCst);
    let limiter = Limiter::in_memory(&"10/week".parse().unwrap(), 4).unwrap();
    let key = gate.part(Some(keys[0].0.as_bytes()), 1);
    let subject = limiter.part(b"subject", 1);
    for compound in
        [keytally::check_all(&[&subject, &key]).unwrap(), peek_all(&[&subject, &key]).unwrap()]
    {
        let ahead_s = compound.tallies()[1].verdict().now().unix_s() - now().unix_s();
        assert!((3590..3610).contains(&ahead_s), "{ahead_s}");
    }
}

#[test]
fn wait_that_is_set_before_a_gate_joins_holds() {
    let folder = tempfile::tempdir().unwrap();
    let (one, keys) = machines(folder.path(), 1, "10/week", 1);
    let Machine { path, fleet, .. } = &one[0];
    let gate = opened(path);
    // The default would be too short for this agent.
    gate.set_credit_wait(Duration::from_secs(60));
    gate.join(fleet).unwrap();
    let file = FleetFile::open(fleet, &gate).unwrap();
    file.page(PageWord::State).store(state(Phase::Leading, OnLoss::Closed, 1), Ordering::SeqCst);
    // The heartbeat does not get old in this test.
    let heartbeat = now().unix_ms() + 600_000;
    file.page(PageWord::Heartbeat).store(heartbeat, Ordering::SeqCst);
    thread::scope(|scope| {
        let request = scope.spawn(|| check(&gate, &keys[0].0, 1));
        thread::sleep(Duration::from_millis(200));
        grant(&file, only_tally(&file), 5);
        file.wake();
        assert!(request.join().unwrap().is_leased());
    });
}
