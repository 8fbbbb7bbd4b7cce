//! Fleets of 2 to 1,000 machines in virtual time, with the real planner and real credit words.
//!
//! No window admits more than its limit, except in the two named cases, which have a bound. What
//! machines deny too early, and how many lease requests they make, stays within recorded figures.
//! Each test prints its seeds. In the short form, fleets of 100 machines and more have one seed;
//! if `KEYTALLY_FULL` is set, all have ten.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

#[path = "support/fleet.rs"]
mod fleet;
#[path = "support/store.rs"]
mod store;

use fleet::{Failure, Figures, SECOND, Scenario, run};
use keytally_fleet_plan::on_loss::OnLoss;

/// The seeds of each fleet, and of a large one in the short form.
const SEEDS: u64 = 10;

/// The most that the means of the seeds' figures may be: half more than those of the first runs.
#[derive(Clone, Copy, Debug)]
struct Most {
    /// In percent of what windows can admit.
    unfilled: f64,
    /// In percent of requests.
    early: f64,
    /// For each request, and for those of hot keys.
    leases: f64,
    hot_leases: f64,
    /// In percent of requests.
    waited: f64,
}

fn most(unfilled: f64, early: f64, leases: f64, hot_leases: f64, waited: f64) -> Most {
    Most { unfilled, early, leases, hot_leases, waited }
}

/// Runs a scenario with each seed, and returns the figures of all.
fn run_seeds(name: &str, scenario: &Scenario, seeds: u64) -> Vec<Figures> {
    let mut all = Vec::new();
    for seed in 1..=seeds {
        let figures = run(scenario, seed);
        println!("{name}, seed {seed}: {figures}");
        all.push(figures);
    }
    all
}

fn stays_within(scenario: &Scenario, most: Most) {
    let is_large = scenario.machines >= 100;
    let is_short = std::env::var_os("KEYTALLY_FULL").is_none();
    let seeds = if is_large && is_short { 1 } else { SEEDS };
    let name = format!("{} machines, {}", scenario.machines, scenario.policy);
    let all = run_seeds(&name, scenario, seeds);
    for figures in &all {
        assert_eq!(figures.over, 0, "{name}: {figures}");
        assert!(figures.wait_p99_ms <= 3.0, "{name}: {figures}");
    }
    let mean = |of: fn(&Figures) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
    for (what, mean, most) in [
        ("unfilled", mean(|one| one.unfilled), most.unfilled),
        ("early", mean(|one| one.early), most.early),
        ("leases", mean(|one| one.leases), most.leases),
        ("hot leases", mean(|one| one.hot_leases), most.hot_leases),
        ("waited", mean(|one| one.waited), most.waited),
    ] {
        assert!(mean <= most, "{name}, {what}: a mean of {mean:.4} is more than {most}");
    }
}

/// Requests that are 80 % of the limits: one request in a hundred waits for nothing.
#[test]
fn small_limits_are_filled_one_unit_at_a_time() {
    let few = Scenario { zipf: 0.5, seconds: 600, ..Scenario::new("5/minute", 10) };
    stays_within(&Scenario { rate: 13.3, ..few.clone() }, most(0.01, 0.01, 1.5, 0.0, 100.0));
    let some = Scenario { policy: "20/minute", rate: 53.3, ..few };
    stays_within(&some, most(0.012, 0.075, 1.56, 0.0, 100.0));
}

#[test]
fn ten_machines_fill_common_limits() {
    stays_within(&Scenario::new("100/minute", 10), most(0.01, 0.285, 0.225, 0.009, 18.0));
    stays_within(&Scenario::new("1000/minute", 10), most(0.01, 0.285, 0.12, 0.0095, 4.4));
    stays_within(&Scenario::new("20000/minute", 10), most(0.01, 0.05, 0.033, 0.0155, 1.6));
}

#[test]
fn ten_machines_fill_short_windows() {
    let short = Scenario { seconds: 60, ..Scenario::new("100/second", 10) };
    stays_within(&short, most(0.15, 5.7, 1.2, 0.3, 74.0));
    let short = Scenario { policy: "1000/10s", ..short };
    stays_within(&short, most(0.01, 0.63, 0.23, 0.045, 10.5));
}

#[test]
fn hundred_machines_fill_common_limits() {
    let fleet = Scenario { rate: 20_000.0, keys: 500, seconds: 70, ..Scenario::new("", 100) };
    let with = |policy| Scenario { policy, ..fleet.clone() };
    stays_within(&with("100/minute"), most(0.09, 1.65, 0.45, 0.0, 45.0));
    stays_within(&with("1000/minute"), most(0.01, 1.44, 0.69, 0.0, 54.0));
    stays_within(&with("20000/minute"), most(0.01, 0.75, 0.2, 0.0, 13.5));
}

#[test]
fn thousand_machines_fill_large_limits() {
    let fleet = Scenario { rate: 30_000.0, keys: 300, seconds: 65, ..Scenario::new("", 1000) };
    let with = |policy| Scenario { policy, ..fleet.clone() };
    stays_within(&with("1000/minute"), most(0.1, 11.1, 0.93, 0.0, 78.0));
    stays_within(&with("100000/minute"), most(0.01, 3.0, 0.56, 0.0, 35.0));
}

/// A thousand machines begin at once, with as many requests as the store can apply. If each sent
/// all of them, the replies would come too late, and 94 % would not be admitted.
#[test]
fn overloaded_store_grants_what_it_can() {
    let scenario = Scenario { rate: 80_000.0, seconds: 5, ..Scenario::new("1000/minute", 1000) };
    for figures in run_seeds("overload", &scenario, 2) {
        assert_eq!(figures.over, 0, "{figures}");
        assert!(figures.unfilled <= 30.0, "{figures}");
    }
}

/// A smaller fleet, for everything that can go wrong.
fn troubled(policy: &'static str) -> Scenario {
    Scenario { rate: 2000.0, keys: 60, ..Scenario::new(policy, 10) }
}

/// Runs a scenario with ten seeds. No window may admit more than its limit.
fn never_exceeds(name: &str, scenario: &Scenario) -> Vec<Figures> {
    let all = run_seeds(name, scenario, SEEDS);
    for figures in &all {
        assert_eq!(figures.over, 0, "{name}: {figures}");
    }
    all
}

#[test]
fn two_machines_share_two_windows() {
    let scenario = Scenario { machines: 2, ..troubled("60/minute, 100/hour") };
    never_exceeds("two windows", &scenario);
}

#[test]
fn lost_and_repeated_messages_admit_nothing_twice() {
    let scenario = Scenario { loss: 0.05, repeats: 0.05, ..troubled("100/minute") };
    let all = never_exceeds("5 % lost, 5 % repeated", &scenario);
    assert!(all.iter().all(|figures| figures.unusable <= 0.25), "units are lost: {all:?}");
}

/// The simulation finds violations: without numbers, repeated requests free units that are spent.
#[test]
fn store_without_numbers_admits_more() {
    let scenario =
        Scenario { loss: 0.05, repeats: 0.05, checks_numbers: false, ..troubled("100/minute") };
    let all = run_seeds("without numbers", &scenario, 2);
    assert!(all.iter().any(|figures| figures.over > 0), "{all:?}");
}

#[test]
fn machines_that_are_cut_off_admit_what_they_hold() {
    let partition = Some((50 * SECOND, 80 * SECOND));
    let scenario = Scenario { partition, ..troubled("100/minute") };
    never_exceeds("half cut off", &scenario);
    let scenario = Scenario { partition, loss: 0.02, repeats: 0.05, ..troubled("1000/minute") };
    never_exceeds("half cut off, with losses", &scenario);
}

/// While machines are cut off, each admits its share. When they are connected again, the store
/// counts that, so a window admits no more than without the loss.
#[test]
fn shares_of_machines_that_were_cut_off_are_counted() {
    // All of them are cut off since before the hour, so their shares are the limit.
    let partition = Some((0, 40 * SECOND));
    let of_all = Scenario {
        partition,
        cuts_all_off: true,
        on_loss: OnLoss::Share,
        ..troubled("100/hour, 1000/day")
    };
    never_exceeds("all cut off, with shares", &of_all);
    // What half of them admit comes on top of what the others had leased before.
    let of_half = Scenario { cuts_all_off: false, ..of_all.clone() };
    for figures in run_seeds("half cut off, with shares", &of_half, SEEDS) {
        assert!(figures.over <= OnLoss::Share.most_admitted(100, 10, 5) - 100, "{figures}");
    }
}

/// The simulation finds violations: shares that the store does not count are admitted again.
#[test]
fn shares_that_are_not_stated_are_admitted_again() {
    let scenario = Scenario {
        partition: Some((0, 40 * SECOND)),
        cuts_all_off: true,
        on_loss: OnLoss::Share,
        states_unreserved: false,
        ..troubled("100/hour, 1000/day")
    };
    let all = run_seeds("shares that are not stated", &scenario, 2);
    assert!(all.iter().all(|figures| figures.over == 100), "{all:?}");
}

#[test]
fn restarted_machines_leave_their_units_unspent() {
    let scenario = Scenario { restarts: Some(5 * SECOND), ..troubled("100/minute") };
    let all = never_exceeds("a restart each 5 s", &scenario);
    assert!(all.iter().all(|figures| figures.unusable <= 3.9), "units are lost: {all:?}");
}

#[test]
fn killed_agents_admit_nothing_twice() {
    let scenario =
        Scenario { kills: Some(SECOND / 10), loss: 0.02, repeats: 0.05, ..troubled("100/minute") };
    let all = never_exceeds("an agent killed each 0.1 s", &scenario);
    assert!(all.iter().all(|figures| figures.unusable <= 0.25), "units are lost: {all:?}");
}

#[test]
fn failover_that_lost_a_second_admits_nothing_twice() {
    for policy in ["100/minute", "1000/minute"] {
        let failure = Some(Failure::Failover(SECOND));
        never_exceeds("failover", &Scenario { failure, ..troubled(policy) });
    }
}

#[test]
fn emptied_store_admits_nothing_twice_if_all_machines_reach_it() {
    for policy in ["100/minute", "1000/minute"] {
        let failure = Some(Failure::Emptied);
        never_exceeds("emptied store", &Scenario { failure, ..troubled(policy) });
    }
}

/// Exceptions with a bound: machines that restarted or are cut off do not state what they spent.
#[test]
fn forgotten_units_of_absent_machines_are_at_most_the_limit() {
    let mut most_over = 0;
    for failure in [Failure::Failover(SECOND), Failure::Emptied] {
        let scenario = Scenario {
            failure: Some(failure),
            partition: Some((62 * SECOND, 100 * SECOND)),
            restarts: Some(5 * SECOND),
            ..troubled("1000/minute")
        };
        for figures in run_seeds(&format!("{failure:?} with absent machines"), &scenario, SEEDS) {
            assert!(figures.over <= 1000, "{figures}");
            most_over = most_over.max(figures.over);
        }
    }
    assert!(most_over > 0, "no run reached the exception");
}

/// By the number of the window, wrong clocks cost nothing, since the store refuses windows that
/// have passed or not begun. In true time, a window admits at most what the one before left
/// unspent. What wrong clocks do cost is that requests near the ends of windows are refused, unless
/// agents correct them by the store's clock.
#[test]
fn clocks_that_differ_move_windows_and_admit_nothing_twice() {
    for (is_corrected, most_unfilled, least_unfilled) in [(true, 0.15, 0.0), (false, 30.0, 1.0)] {
        let skew = Some((5 * SECOND, is_corrected));
        let scenario = Scenario { skew, ..troubled("100/minute") };
        let name = format!("clocks up to 5 s wrong, corrected: {is_corrected}");
        for figures in never_exceeds(&name, &scenario) {
            assert!(figures.over_in_true_time <= 100, "{figures}");
            let range = least_unfilled..=most_unfilled;
            assert!(range.contains(&figures.unfilled), "{figures}");
        }
    }
}
