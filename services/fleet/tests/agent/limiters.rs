//! Limiters in files, with the agents of two machines and a real server.

use alloc::collections::BTreeMap;
use core::time::Duration;

use std::path::{Path, PathBuf};
use std::thread;

use keytally::{
    Address, AddressLimiter, Clock as _, FleetFile, Limiter, OnFull, Outcome, Unavailability,
    Verdict,
};
use keytally_core::sync::{AtomicU64, Ordering};
use keytally_fleet::plan::layout::{PageState, PageWord, Phase};
use keytally_fleet::{Agent, FleetConfig, FleetError, OnLoss};

use crate::support::fleet::config;
use crate::support::servers::Server;
use crate::support::time::now;

/// A machine: its limiter and its fleet file, which the agent and requests open by themselves.
struct Machine {
    limiter: PathBuf,
    fleet: PathBuf,
}

fn machines(folder: &Path, create: impl FnOnce(&Path)) -> [Machine; 2] {
    let machine = |number| Machine {
        limiter: folder.join(number).join("api.limiter"),
        fleet: folder.join(number).join("api.fleet"),
    };
    let machines = ["one", "two"].map(machine);
    for machine in &machines {
        std::fs::create_dir(machine.limiter.parent().unwrap()).unwrap();
    }
    create(&machines[0].limiter);
    std::fs::copy(&machines[0].limiter, &machines[1].limiter).unwrap();
    machines
}

/// Opens the fleet file of a limiter of either kind.
fn with_file<T>(machine: &Machine, work: impl FnOnce(&FleetFile<'_>) -> T) -> T {
    match Limiter::open(&machine.limiter) {
        Ok(limiter) => work(&FleetFile::create(&machine.fleet, &limiter).unwrap()),
        Err(_) => {
            let limiter = AddressLimiter::open(&machine.limiter).unwrap();
            work(&FleetFile::create(&machine.fleet, &limiter).unwrap())
        }
    }
}

/// Runs an agent of a machine until `is_ended`.
fn run(
    machine: &Machine,
    config: &FleetConfig,
    is_ended: impl Fn() -> bool,
) -> Result<(), FleetError> {
    with_file(machine, |file| {
        // The former agent of this machine has ended.
        while !file.try_lock().unwrap() {
            thread::sleep(Duration::from_millis(1));
        }
        Agent::new(file, config)?.run(is_ended)
    })
}

/// Ends the agents, also if an assertion fails.
struct End<'e>(&'e AtomicU64);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(1, Ordering::Release);
    }
}

/// Runs an agent for each machine while `work` runs. Each agent is replaced by another after
/// `lives`.
fn with_agents<T>(
    machines: &[Machine],
    config: &FleetConfig,
    lives: Duration,
    work: impl FnOnce() -> T,
) -> T {
    let stop = AtomicU64::new(0);
    thread::scope(|scope| {
        for machine in machines {
            let stop = &stop;
            scope.spawn(move || {
                while stop.load(Ordering::Acquire) == 0 {
                    let since = now();
                    let is_ended = || stop.load(Ordering::Acquire) != 0 || since.elapsed() > lives;
                    run(machine, config, is_ended).unwrap();
                }
            });
        }
        let _end = End(&stop);
        wait_for(machines, Phase::Leading);
        work()
    })
}

fn wait_for(machines: &[Machine], phase: Phase) {
    let since = now();
    for machine in machines {
        let found = |file: &FleetFile<'_>| {
            PageState::from_bits(file.page(PageWord::State).load(Ordering::Acquire)).phase
        };
        while with_file(machine, found) != phase {
            assert!(since.elapsed() < Duration::from_secs(20), "no {phase:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

const LONG: Duration = Duration::from_secs(3600);

/// Opens the limiter as servers do.
fn joined(machine: &Machine) -> Limiter {
    let limiter = Limiter::open(&machine.limiter).unwrap();
    limiter.join(&machine.fleet).unwrap();
    limiter.set_fleet(true).unwrap();
    limiter.set_credit_wait(Duration::from_millis(200));
    limiter
}

/// What was admitted in each window: by subject, the length of the window and its number, by how
/// many machines and how many units.
type Admitted = BTreeMap<(u32, u64, u64), [u32; 2]>;

/// The lengths of the windows in seconds, and their limits. Neither window contains the other.
const WINDOWS: [(u64, u32); 2] = [(2, 6), (3, 8)];

/// A check may read a clock that is late by a tick of the kernel.
const LATE_MS: u64 = 10;

#[test]
fn subjects_share_one_limit_while_their_slots_are_reused() {
    let folder = tempfile::tempdir().unwrap();
    let policy = "6/2s, 8/3s".parse().unwrap();
    // 16 slots in two buckets, for 40 subjects.
    let machines = machines(folder.path(), |path| {
        let limiter = Limiter::create(path, &policy, 8).unwrap();
        limiter.set_on_full(OnFull::Refuse);
    });
    let server = Server::start(&[]);
    let admitted = with_agents(&machines, &config(&server.url()), Duration::from_secs(3), || {
        let since = now();
        thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|seed: u32| {
                    let number = usize::from(seed % 2 == 1);
                    let machine = &machines[number];
                    scope.spawn(move || {
                        let limiter = joined(machine);
                        let mut admitted = Admitted::new();
                        let mut turn = seed;
                        while since.elapsed() < Duration::from_secs(14) {
                            turn = turn.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                            // Each machine sees a few subjects at a time. They change more often
                            // on the first one, so it reuses slots that the other one keeps.
                            let [period_ms, stride, count] = [[300, 7, 6], [700, 5, 5]][number];
                            let elapsed_ms = u32::try_from(since.elapsed().as_millis()).unwrap();
                            let first = elapsed_ms / period_ms * stride;
                            let subject = (first + (turn >> 16) % count) % 40;
                            let begin = limiter.precise_clock().reading();
                            let verdict = limiter.check(&subject.to_le_bytes(), 1);
                            let end = limiter.precise_clock().reading();
                            if verdict.is_admitted() {
                                assert!(verdict.is_leased(), "{verdict:?}");
                                let span = [begin.unix_ms() - LATE_MS, end.unix_ms()];
                                note(&mut admitted, subject, number, span);
                            }
                            thread::sleep(Duration::from_micros(500));
                        }
                        admitted
                    })
                })
                .collect();
            let mut all = Admitted::new();
            for thread in threads {
                for (window, [one, two]) in thread.join().unwrap() {
                    let units = all.entry(window).or_default();
                    (units[0], units[1]) = (units[0] + one, units[1] + two);
                }
            }
            all
        })
    });
    let limit_of = |length| WINDOWS.iter().find(|(its, _)| *its == length).unwrap().1;
    let over: Vec<_> = admitted
        .iter()
        .filter(|((_, length, _), units)| units.iter().sum::<u32>() > limit_of(*length))
        .collect();
    assert_eq!(over, Vec::new(), "more than the limit was admitted");
    // Otherwise the test would show nothing: many more subjects than slots were admitted, and
    // windows were filled by both machines together.
    let subjects: Vec<u32> = (0..40).filter(|it| admitted.keys().any(|key| key.0 == *it)).collect();
    let full = admitted.iter().filter(|((_, length, _), [one, two])| {
        *one > 0 && *two > 0 && one + two == limit_of(*length)
    });
    let full = full.count();
    assert!(subjects.len() > 30 && full > 5, "{} subjects, {full} full windows", subjects.len());
}

/// Counts a request in each window that contains the whole time of its call. At the end of a
/// window, a request may be decided about in the next one.
fn note(admitted: &mut Admitted, subject: u32, machine: usize, span_ms: [u64; 2]) {
    for (length_s, _) in WINDOWS {
        let [begin, end] = span_ms.map(|ms| ms / 1000 / length_s);
        if begin == end {
            admitted.entry((subject, length_s, begin)).or_default()[machine] += 1;
        }
    }
}

/// Sends requests to all machines in turn, until `limit` of them were admitted and 200 more in a
/// row were refused. Returns how many were admitted.
///
/// A machine may have the last unit of one network, and another one the last units of a network
/// that contains it. Neither can spend them, until one gives its own back since they are idle.
fn admitted_in_turn(limit: u32, check: &[&dyn Fn() -> Outcome]) -> u32 {
    let since = now();
    let (mut admitted, mut refused) = (0, 0);
    loop {
        for check in check {
            match check() {
                Outcome::Admitted => (admitted, refused) = (admitted + 1, 0),
                Outcome::Denied => {
                    refused += 1;
                    let is_done = admitted >= limit || since.elapsed() > Duration::from_secs(20);
                    if refused >= 200 && is_done {
                        return admitted;
                    }
                    thread::sleep(Duration::from_millis(5));
                }
                other => panic!("{other}"),
            }
        }
    }
}

#[test]
fn networks_of_several_prefixes_share_their_limits() {
    let folder = tempfile::tempdir().unwrap();
    let policy = "addresses: /64 20/week; /48 50/week, 100/30d".parse().unwrap();
    let machines = machines(folder.path(), |path| {
        AddressLimiter::create(path, &policy, 100).unwrap();
    });
    let server = Server::start(&[]);
    with_agents(&machines, &config(&server.url()), LONG, || {
        let limiters: Vec<_> = machines
            .iter()
            .map(|machine| {
                let limiter = AddressLimiter::open(&machine.limiter).unwrap();
                limiter.join(&machine.fleet).unwrap();
                limiter.set_fleet(true).unwrap();
                limiter.set_credit_wait(Duration::from_secs(2));
                limiter
            })
            .collect();
        let [one, two] = &limiters[..] else { panic!() };
        let address = |text| Address::parse(text).unwrap();
        let share = |text, limit| {
            let check = |limiter: &AddressLimiter| limiter.check(address(text), 1).outcome();
            assert_eq!(admitted_in_turn(limit, &[&|| check(one), &|| check(two)]), limit, "{text}");
        };
        let first = one.check(address("2001:db8:0:1::1"), 3);
        assert!(first.is_admitted() && first.verdicts().all(Verdict::is_leased));
        // The settlement returns one unit, and the refund the others, in both networks.
        let charge = first.charge(0).unwrap();
        let settled = one.settle(address("2001:db8:0:1::1"), charge, 2);
        assert_eq!(settled.verdicts().map(Verdict::uncharged).max(), Some(0));
        let charge = one.check(address("2001:db8:0:1::1"), 5).charge(0).unwrap();
        one.refund(address("2001:db8:0:1::1"), charge);
        share("2001:db8:0:1::2", 18);
        share("2001:db8:0:2::1", 20);
        // The /48 has spent its 50.
        share("2001:db8:0:3::1", 10);
        share("2001:db8:1:3::1", 20);
    });
}

#[test]
fn subjects_admitted_on_loss_are_counted_when_the_store_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let machines = machines(folder.path(), |path| {
        Limiter::create(path, &"10/week".parse().unwrap(), 8).unwrap();
    });
    let mut server = Server::start(&[]);
    let config = FleetConfig { on_loss: OnLoss::Open, ..config(&server.url()) };
    with_agents(&machines, &config, LONG, || {
        let limiters = [joined(&machines[0]), joined(&machines[1])];
        server.kill();
        wait_for(&machines, Phase::Cut);
        let admit = |machine: usize, subject: &[u8]| {
            let verdict = limiters[machine].check(subject, 1);
            assert!(verdict.is_admitted(), "{verdict:?}");
            verdict.is_leased()
        };
        assert!((0..10).all(|_| !admit(0, b"ann")), "none is leased");
        assert!((0..4).all(|_| !admit(0, b"bob")), "none is leased");
        server.restart();
        wait_for(&machines, Phase::Leading);
        limiters.iter().for_each(|limiter| limiter.set_credit_wait(Duration::from_secs(5)));
        assert_eq!(limiters[1].check(b"ann", 1).outcome(), Outcome::Denied);
        assert!((0..6).all(|_| admit(1, b"bob")), "the rest is leased");
        assert_eq!(limiters[1].check(b"bob", 1).outcome(), Outcome::Denied);
    });
}

#[test]
fn subjects_without_a_slot_share_the_limit_of_their_bucket() {
    let folder = tempfile::tempdir().unwrap();
    let policy = "30/week".parse().unwrap();
    // Both machines have 8 slots, in one bucket, and all of them are taken.
    let machines = machines(folder.path(), |path| {
        let limiter = Limiter::create(path, &policy, 4).unwrap();
        for subject in 0..8_u8 {
            assert!(limiter.check(&[subject], 1).is_admitted());
        }
        assert_eq!(limiter.live_subjects(), 8);
    });
    let server = Server::start(&[]);
    with_agents(&machines, &config(&server.url()), LONG, || {
        let limiters = [joined(&machines[0]), joined(&machines[1])];
        let check = |machine: usize, subject: u8| {
            let verdict = limiters[machine].check(&[subject], 1);
            assert!(verdict.outcome() == Outcome::Denied || verdict.is_shared(), "{verdict:?}");
            verdict.outcome()
        };
        assert_eq!(admitted_in_turn(30, &[&|| check(0, 100), &|| check(1, 101)]), 30);
        assert_eq!(limiters[0].check(&[102], 1).outcome(), Outcome::Denied);
    });
}

#[test]
fn process_that_did_not_join_admits_no_subject() {
    let folder = tempfile::tempdir().unwrap();
    let machines = machines(folder.path(), |path| {
        Limiter::create(path, &"9/week".parse().unwrap(), 8).unwrap();
    });
    let limiter = Limiter::open(&machines[0].limiter).unwrap();
    assert!(limiter.check(b"ann", 1).is_admitted());
    limiter.set_fleet(true).unwrap();
    let other = Limiter::open(&machines[0].limiter).unwrap();
    let verdict = other.check(b"ann", 1);
    assert_eq!(verdict.unavailability(), Some(Unavailability::NotReserving));
    assert_eq!((verdict.http_status(), verdict.retry_after_s()), (503, Some(1)));
    limiter.set_fleet(false).unwrap();
    assert_eq!(other.check(b"ann", 1).remaining(), Some(7), "the refused request was not charged");
}

#[test]
fn limiter_that_differs_from_that_of_another_machine_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let machines = machines(folder.path(), |path| {
        Limiter::create(path, &"9/week".parse().unwrap(), 8).unwrap();
    });
    let server = Server::start(&[]);
    let config = config(&server.url());
    let other = |change: &dyn Fn(&Path)| {
        std::fs::remove_file(&machines[1].limiter).unwrap();
        std::fs::copy(&machines[0].limiter, &machines[1].limiter).unwrap();
        let _ = std::fs::remove_file(&machines[1].fleet);
        change(&machines[1].limiter);
        let since = now();
        let error = run(&machines[1], &config, || since.elapsed() > Duration::from_secs(10));
        assert!(matches!(error, Err(FleetError::Refused(_))), "{error:?}");
        error.unwrap_err().to_string()
    };
    with_agents(&machines[..1], &config, LONG, || {
        let error = other(&|path| {
            std::fs::remove_file(path).unwrap();
            Limiter::create(path, &"9/week".parse().unwrap(), 8).unwrap();
        });
        assert!(error.contains("the limiter api.limiter"), "{error}");
        assert!(error.contains("another seed than that of the other machines"), "{error}");
        let error = other(&|path| {
            let limiter = Limiter::open(path).unwrap();
            limiter.set_policy(&"8/week".parse().unwrap()).unwrap();
        });
        assert!(error.contains("has the limits \"8/week\""), "{error}");
        assert!(error.contains("that of the other machines has \"9/week\""), "{error}");
    });
}

#[test]
fn sliding_limiter_is_refused() {
    let limiter = Limiter::in_memory(&"sliding 9/minute".parse().unwrap(), 8).unwrap();
    let error = limiter.set_fleet(true).unwrap_err().to_string();
    assert!(error.contains("a fleet shares fixed windows only"), "{error}");
    assert!(!limiter.is_in_fleet());
}

#[test]
fn limiter_whose_time_steps_back_voids_what_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let machines = machines(folder.path(), |path| {
        Limiter::create(path, &"9/week".parse().unwrap(), 8).unwrap();
    });
    let server = Server::start(&[]);
    let named = |offset_ms: u64| {
        with_file(&machines[0], |file| {
            // What the last agent left: the clock of its store was that far ahead.
            file.page(PageWord::Offset).store(offset_ms, Ordering::Release);
            file.page(PageWord::Name).store(7, Ordering::Release);
            file.owner(0).unwrap().store(1, Ordering::Release);
            file.words(0).unwrap().credits.store(5, Ordering::Release);
        });
        with_agents(&machines[..1], &config(&server.url()), LONG, || {
            with_file(&machines[0], |file| {
                let name = file.page(PageWord::Name).load(Ordering::Acquire);
                (name == 7, file.words(0).unwrap().credits.load(Ordering::Acquire))
            })
        })
    };
    assert_eq!(named(0), (true, 5));
    assert_eq!(named(10_000), (false, 0));
}
