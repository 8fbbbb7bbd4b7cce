//! Agents of machines, and the commands of an operator: a folder for each machine, and a real
//! server of Redis or Valkey.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(unreachable_pub, reason = "a module of several tests")]
#[path = "support/machines.rs"]
mod machines;
#[path = "support/ports.rs"]
mod ports;
#[expect(
    dead_code,
    unreachable_pub,
    reason = "a module of several tests, each of which uses a part of it"
)]
#[path = "support/program.rs"]
mod program;

use core::time::Duration;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use keytally::{AddressLimiter, Limiter};
use keytally_fleet::plan::layout::PageWord;
use machines::{
    Agent, PLAN, Store, TRIES, admit, admitted, agent, check, create_machines, fleet, join, pause,
    status, wait_for,
};
use ports::free_port;
use program::{Run, Sandbox};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use yaml_rust2::YamlLoader;

#[test]
fn wrong_options_of_an_agent_are_explained() {
    let sandbox = Sandbox::new();
    let run = |options: &[&str]| sandbox.run(&[&["agent", "api.gate"], options].concat());
    let right = ["--fleet", "prod", "--store", "redis://store"];
    run(&right).expect_usage_error(&["--on-loss <closed|share|open>"]);
    let with = |more: &[&str]| run(&[&right[..], more].concat());
    with(&["--on-loss", "fail-open"])
        .expect_usage_error(&["\"fail-open\" is not", "it must be closed, share or open"]);
    with(&["--on-loss", "share"]).expect_usage_error(&["--on-loss share: add --machines"]);
    with(&["--on-loss", "open", "--explain"]).expect_usage_error(&["open: add --machines"]);
    with(&["--on-loss", "share", "--machines", "0"])
        .expect_usage_error(&["--machines", "\"0\" is not a whole number from 1 to"]);
    with(&["--client-key", "key"]).expect_usage_error(&["--client-certificate"]);
    let of = |name: &str, url: &str| {
        let run = run(&["--fleet", name, "--store", url, "--on-loss", "closed"]);
        assert!(!run.err.contains("sesame"), "{run:?}");
        run
    };
    of("a b", "redis://store")
        .expect_usage_error(&["\"a b\" is not the name of a fleet", "1 to 32 letters, digits"]);
    of("prod", "redis://agent:sesame@store")
        .expect_usage_error(&["--store <URL>", "has a password: put it into a file"]);
    of("prod", "redis://:sesame@store").expect_usage_error(&["has a password"]);
    of("prod", "http://store").expect_usage_error(&["unknown scheme: use `redis`"]);
    let closed = |more: &[&str]| with(&[&["--on-loss", "closed"], more].concat());
    closed(&["--stale-after", "soon"]).expect_usage_error(&[
        "--stale-after",
        "\"soon\" is not a time: ",
        "or never",
    ]);
    closed(&["--stale-after", "1s"])
        .expect_usage_error(&["\"1s\" is too short", "at least 5 s, or never"]);
    closed(&["--confirm", "9999"])
        .expect_usage_error(&["--confirm", "\"9999\" is not a whole number from 0 to 64"]);
    let wait = ["--account", "7", "--fleet", "api.fleet", "--fleet-wait", "x"];
    sandbox
        .run(&[&["issue", "api.gate"], &wait[..]].concat())
        .expect_usage_error(&["'x' for '--fleet-wait <TIME>'", "it must be a duration, such as"]);
    closed(&["--stale-after", "never", "--no-keys"]).expect_usage_error(&["--no-keys"]);
}

#[test]
fn unusable_file_of_an_agent_is_named_at_its_start() {
    let sandbox = Sandbox::new();
    create_machines(&sandbox, PLAN, &["one"]);
    let store = Store::start(&sandbox, &[]);
    // One that stands by would connect only later.
    let leading = Agent::start(&sandbox, "one", &store, &[]);
    wait_for(&sandbox, "one", "leading");
    for (name, text) in [
        ("empty", ""),
        ("text", "no certificate\n"),
        ("cut", "-----BEGIN CERTIFICATE-----\nAAAA\n"),
        ("other", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ("open", "open-sesame\n"),
    ] {
        fs::write(sandbox.path(name), text).unwrap();
        sandbox.set_mode(name, 0o666);
    }
    fs::write(sandbox.path("secret"), "open-sesame\n").unwrap();
    sandbox.set_mode("secret", 0o600);
    for (options, why) in [
        (&["--ca-file", "missing"][..], "missing, a file for TLS: it cannot be read"),
        (&["--ca-file", "empty"], "empty, a file for TLS: it has no certificate in PEM"),
        (&["--ca-file", "text"], "text, a file for TLS: it has no certificate in PEM"),
        (&["--ca-file", "cut"], "cut, a file for TLS: "),
        (&["--ca-file", "other"], "other, a file for TLS: "),
        (&["--client-certificate", "text", "--client-key", "text"], "it has no certificate"),
        (&["--password-file", "missing"], "password file: cannot open missing: "),
        (&["--password-file", "open"], "password file: open: its mode is 0666, so "),
        (&["--sentinel-password-file", "open"], "password file: open: its mode is 0666, so "),
        (
            &["--sentinel-password-file", "secret"],
            "is a store without Sentinels, and a password of them is named: begin its URL with \
             `redis+sentinel`, or name none\n",
        ),
    ] {
        let run = sandbox.finish(&mut agent(&sandbox, "one", &store, options), b"");
        assert!(run.status == 3 && run.err.contains(why), "{options:?}: {run:?}");
        assert!(!run.err.contains("sesame"), "{run:?}");
    }
    assert!(!leading.log().contains("the store is lost"));
}

#[test]
fn explanation_has_the_bound_of_each_limit() {
    let sandbox = Sandbox::new();
    create_machines(&sandbox, "default=100/minute; team: 7/day", &["one"]);
    let explain = |on_loss: &str| {
        let options = ["--on-loss", on_loss, "--machines", "10", "--explain"];
        let fixed = ["agent", "one/api.gate", "--fleet", "prod", "--store", "redis://store"];
        sandbox.run(&[&fixed[..], &options].concat()).expect_status(0)
    };
    let rows = |text: &str| -> Vec<Vec<String>> {
        let lines = text.lines().filter(|line| line.starts_with("default"));
        lines.map(|line| line.split_whitespace().skip(1).map(str::to_owned).collect()).collect()
    };
    let share = explain("share");
    assert!(share.contains("10 machines together"), "{share}");
    let more = ["--on-loss", "closed", "--stale-after", "never", "--explain"];
    let fixed = ["agent", "one/api.gate", "--fleet", "prod", "--store", "redis://store"];
    let alone = sandbox.run(&[&fixed[..], &more].concat()).expect_status(0);
    assert!(alone.contains("The most that one machine admits in a window"), "{alone}");
    assert!(alone.contains("\n--stale-after never: it accepts keys that were revoked"), "{alone}");
    assert_eq!(
        rows(&share),
        [["key", "minute", "100", "10", "110", "200"], ["team", "day", "7", "0", "7", "7"]]
    );
    let more = ["--on-loss", "closed", "--allow-eviction", "--explain"];
    let evicting = sandbox.run(&[&fixed[..], &more].concat()).expect_status(0);
    let line = "\n--allow-eviction: each time the store evicts a count, its window admits at most \
                the limit again, in addition to what the table says.\n";
    assert!(evicting.contains(line) && !alone.contains("--allow-eviction"), "{evicting}");
    assert_eq!(rows(&explain("closed"))[0], ["key", "minute", "100", "0", "100", "100"]);
    assert_eq!(rows(&explain("open"))[0], ["key", "minute", "100", "100", "200", "1100"]);
}

#[test]
fn store_that_evicts_keys_ends_the_agent() {
    let sandbox = Sandbox::new();
    create_machines(&sandbox, PLAN, &["one"]);
    let store = Store::start(&sandbox, &["--maxmemory-policy", "allkeys-lru"]);
    let run = sandbox.finish(&mut agent(&sandbox, "one", &store, &[]), b"");
    assert_eq!(run.status, 3, "{run:?}");
    assert!(run.err.contains("its maxmemory-policy is allkeys-lru"), "{run:?}");
    assert!(run.err.contains("or allow it: --allow-eviction"), "{run:?}");
    let agent = Agent::start(&sandbox, "one", &store, &["--allow-eviction"]);
    wait_for(&sandbox, "one", "leading");
    drop(agent);
}

#[test]
fn password_is_read_from_a_file_or_the_environment() {
    let sandbox = Sandbox::new();
    create_machines(&sandbox, PLAN, &["one"]);
    let store = Store::start(&sandbox, &["--requirepass", "open-sesame"]);
    let run = sandbox.finish(&mut agent(&sandbox, "one", &store, &[]), b"");
    assert_eq!(run.status, 3, "{run:?}");
    assert!(run.err.contains("needs a password"), "{run:?}");
    fs::write(sandbox.path("password"), "open-sesame\n").unwrap();
    sandbox.set_mode("password", 0o600);
    let by_file = Agent::start(&sandbox, "one", &store, &["--password-file", "password"]);
    wait_for(&sandbox, "one", "leading");
    drop(by_file);
    wait_for(&sandbox, "one", "absent");
    let variable = [("KEYTALLY_STORE_PASSWORD", "open-sesame")];
    let by_variable = Agent::start_with(&sandbox, "one", &store, &[], &variable);
    wait_for(&sandbox, "one", "leading");
    drop(by_variable);
}

#[test]
fn machines_share_one_limit_through_a_loss_of_the_store() {
    let sandbox = Sandbox::new();
    let machines = ["one", "two"];
    let (key, _) = create_machines(&sandbox, PLAN, &machines);
    let mut store = Store::start(&sandbox, &[]);
    let agents = join(&sandbox, &store, &machines);
    let (code, first) = check(&sandbox, "one", &key);
    assert_eq!((code, &first["outcome"]), (0, &"admitted".into()), "{first}");
    store.kill();
    wait_for(&sandbox, "one", "cut");
    wait_for(&sandbox, "two", "cut");
    agents[0].wait_for("the store is lost: ");
    let (alone, last) = admitted(&sandbox, &machines, &key);
    assert_eq!(last["outcome"], "unavailable", "{last}");
    store.restart();
    wait_for(&sandbox, "one", "leading");
    wait_for(&sandbox, "two", "leading");
    let (rest, last) = admitted(&sandbox, &machines, &key);
    assert_eq!(last["outcome"], "denied", "{last}");
    assert_eq!(1 + alone + rest, 100, "{alone} without the store, {rest} after that");
}

#[test]
fn agent_that_stands_by_leads_after_a_kill() {
    let sandbox = Sandbox::new();
    let (key, _) = create_machines(&sandbox, PLAN, &["one"]);
    let store = Store::start(&sandbox, &[]);
    let mut agents = join(&sandbox, &store, &["one"]);
    let standby = Agent::start(&sandbox, "one", &store, &[]);
    standby.wait_for("standing by: another agent of this gate leads");
    assert!(!standby.log().contains("leading"));
    drop(agents.pop());
    standby.wait_for("keytally: leading");
    let (alone, _) = admitted(&sandbox, &["one"], &key);
    assert_eq!(alone, 100);
}

#[test]
fn agent_of_another_fleet_is_refused() {
    let sandbox = Sandbox::new();
    create_machines(&sandbox, PLAN, &["one"]);
    Limiter::create(sandbox.path("one/api.limiter"), &"20/31d".parse().unwrap(), 100).unwrap();
    let store = Store::start(&sandbox, &[]);
    let agents =
        [Agent::start(&sandbox, "one", &store, &[]), start_limiter(&sandbox, "one", &store)];
    agents.iter().for_each(|agent| agent.wait_for("keytally: leading"));
    let tables = [("one/api.gate", "one/api.fleet"), ("one/api.limiter", "one/limiter.fleet")];
    let is_refused = || {
        for (table, file) in tables {
            let url = store.url();
            let options = ["--store", &url, "--on-loss", "closed", "--file", file];
            let run = sandbox.run(&[&["agent", table, "--fleet", "other"], &options[..]].concat());
            let expected = format!(
                "{file} is the fleet file of another fleet than other: name that fleet, or another \
                 file with --file; to change the fleet of this machine, end its agents and servers, \
                 and remove the file\n"
            );
            assert!(run.status == 3 && run.err.ends_with(&expected), "{run:?}");
        }
    };
    is_refused();
    for mut agent in agents {
        agent.signal(Signal::TERM);
        assert!(agent.process.wait().unwrap().success());
    }
    is_refused();
    fs::remove_file(sandbox.path("one/api.fleet")).unwrap();
    let url = store.url();
    let mut command = sandbox.command(&["agent", "one/api.gate", "--fleet", "other"]);
    command.args(["--store", &url, "--on-loss", "closed", "--file", "one/api.fleet"]);
    command.env("KEYTALLY_PEPPER", &sandbox.pepper);
    let _agent = Agent::spawn(&sandbox, "one", command);
    wait_for(&sandbox, "one", "leading");
}

#[test]
fn agent_that_leads_names_its_changed_options() {
    let sandbox = Sandbox::new();
    create_machines(&sandbox, PLAN, &["one"]);
    let store = Store::start(&sandbox, &[]);
    let share = ["--on-loss", "share", "--machines"];
    let first = Agent::start(&sandbox, "one", &store, &[&share[..], &["2"]].concat());
    wait_for(&sandbox, "one", "leading");
    let is_current = || status(&sandbox, "one").1["keys"]["age_ms"].is_u64();
    for _ in (0..TRIES).take_while(|_| !is_current()) {
        pause();
    }
    let options = [&share[..], &["3", "--stale-after", "7s"]].concat();
    let second = Agent::start(&sandbox, "one", &store, &options);
    second.wait_for("standing by");
    assert!(!first.log().contains("other options"), "{}", first.log());
    drop(first);
    second.wait_for(
        "keytally: other options than the agent that led before: --machines 3 instead of 2, \
         --stale-after 7 s instead of 300 s\n",
    );
    drop(second);
    let third = Agent::start(&sandbox, "one", &store, &["--no-keys"]);
    third.wait_for("led before: --on-loss closed instead of share\n");
}

#[test]
fn signal_ends_the_agent_and_its_units_stay() {
    let sandbox = Sandbox::new();
    let (key, _) = create_machines(&sandbox, PLAN, &["one"]);
    let store = Store::start(&sandbox, &[]);
    for signal in [Signal::TERM, Signal::INT] {
        let mut agents = join(&sandbox, &store, &["one"]);
        (0..5).for_each(|_| admit(&sandbox, "one", &key));
        let mut agent = agents.pop().unwrap();
        agent.signal(signal);
        assert!(agent.process.wait().unwrap().success(), "{}", agent.log());
        let (code, found) = status(&sandbox, "one");
        assert_eq!((code, &found["state"]), (3, &"absent".into()));
        let unspent = found["unspent_units"].as_u64().unwrap();
        assert!(unspent > 0, "{found}");
        assert_eq!(check(&sandbox, "one", &key).0, 0, "by a unit that stayed");
        assert_eq!(status(&sandbox, "one").1["unspent_units"], unspent - 1);
    }
}

/// A stopped agent keeps the lock of the fleet file, so the one that stands by does not lead.
#[test]
fn stopped_agent_is_reported_and_continues() {
    let sandbox = Sandbox::new();
    let (key, _) = create_machines(&sandbox, PLAN, &["one"]);
    let store = Store::start(&sandbox, &[]);
    let agents = join(&sandbox, &store, &["one"]);
    let standby = Agent::start(&sandbox, "one", &store, &[]);
    standby.wait_for("standing by: another agent of this gate leads");
    (0..5).for_each(|_| admit(&sandbox, "one", &key));
    let unspent = status(&sandbox, "one").1["unspent_units"].as_u64().unwrap();
    assert!(unspent > 0);
    agents[0].signal(Signal::STOP);
    let found = wait_for(&sandbox, "one", "absent");
    assert_eq!(status(&sandbox, "one").0, 3, "{found}");
    let text = fleet(&sandbox, "status", "one", &[]).out;
    assert!(text.contains("agent: it hangs, and holds the fleet file: end it; "), "{text}");
    let (alone, last) = admitted(&sandbox, &["one"], &key);
    assert_eq!((u64::from(alone), &last["outcome"]), (unspent, &"unavailable".into()), "{last}");
    assert!(!standby.log().contains("keytally: leading"), "{}", standby.log());
    agents[0].signal(Signal::CONT);
    wait_for(&sandbox, "one", "leading");
    let (rest, last) = admitted(&sandbox, &["one"], &key);
    assert_eq!((5 + alone + rest, &last["outcome"]), (100, &"denied".into()), "{last}");
}

/// Returns a word of the page of a machine's fleet file.
fn page_word(sandbox: &Sandbox, file: &str, word: PageWord) -> u64 {
    let bytes = fs::read(sandbox.path(file)).unwrap();
    let (words, _) = bytes.as_chunks::<8>();
    u64::from_le_bytes(words[word as usize])
}

/// What the machine held before stays counted by the store.
#[test]
fn reboot_voids_credits_and_changes_the_name() {
    let sandbox = Sandbox::new();
    let (key, _) = create_machines(&sandbox, PLAN, &["one"]);
    let store = Store::start(&sandbox, &[]);
    let mut agents = join(&sandbox, &store, &["one"]);
    (0..5).for_each(|_| admit(&sandbox, "one", &key));
    agents[0].signal(Signal::TERM);
    assert!(agents[0].process.wait().unwrap().success());
    let unspent = status(&sandbox, "one").1["unspent_units"].as_u64().unwrap();
    assert!(unspent > 0);
    let name = || page_word(&sandbox, "one/api.fleet", PageWord::Name);
    let before = name();
    let file = fs::OpenOptions::new().write(true).open(sandbox.path("one/api.fleet")).unwrap();
    file.write_all_at(b"the last boot", PageWord::BootHigh as u64 * 8).unwrap();
    let stale = sandbox.run(&["fleet", "status", "one/api.gate", "--file", "one/api.fleet"]);
    stale.expect_failure(&["one/api.fleet", "was written before this boot, or was copied"]);
    let agent = Agent::start(&sandbox, "one", &store, &[]);
    let found = wait_for(&sandbox, "one", "leading");
    assert_eq!(found["held_units"], 0, "{found}");
    assert!(before != 0 && name() != 0 && name() != before);
    let (rest, last) = admitted(&sandbox, &["one"], &key);
    assert_eq!((u64::from(rest), &last["outcome"]), (95 - unspent, &"denied".into()), "{last}");
    drop(agent);
}

#[test]
fn copied_fleet_file_spends_nothing_twice() {
    let sandbox = Sandbox::new();
    let (key, _) = create_machines(&sandbox, PLAN, &["one"]);
    let store = Store::start(&sandbox, &[]);
    let agents = join(&sandbox, &store, &["one"]);
    (0..5).for_each(|_| admit(&sandbox, "one", &key));
    assert!(status(&sandbox, "one").1["unspent_units"].as_u64().unwrap() > 0);
    // A machine that is a copy of the first one.
    fs::create_dir(sandbox.path("two")).unwrap();
    for name in ["api.gate", "api.fleet"] {
        let of = |machine: &str| sandbox.path(&format!("{machine}/{name}"));
        fs::copy(of("one"), of("two")).unwrap();
    }
    let copied = sandbox.run_with_input(
        &["check", "two/api.gate", "--key", "-", "--fleet", "two/api.fleet"],
        format!("{key}\n").as_bytes(),
    );
    copied.expect_failure(&["two/api.fleet", "was written before this boot, or was copied"]);
    let second = Agent::start(&sandbox, "two", &store, &[]);
    wait_for(&sandbox, "two", "leading");
    let [one, two] =
        ["one/api.fleet", "two/api.fleet"].map(|file| page_word(&sandbox, file, PageWord::Name));
    assert!(one != 0 && two != 0 && one != two);
    let (rest, last) = admitted(&sandbox, &["one", "two"], &key);
    assert_eq!((5 + rest, &last["outcome"]), (100, &"denied".into()), "{last}");
    drop((agents, second));
}

#[test]
fn fleet_file_of_another_machine_is_repaired() {
    let sandbox = Sandbox::new();
    let machines = ["one", "two"];
    let (key, _) = create_machines(&sandbox, PLAN, &machines);
    let store = Store::start(&sandbox, &[]);
    let agents = join(&sandbox, &store, &machines);
    machines.iter().for_each(|machine| admit(&sandbox, machine, &key));
    let bytes = fs::read(sandbox.path("one/api.fleet")).unwrap();
    let file = fs::OpenOptions::new().write(true).open(sandbox.path("two/api.fleet")).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    agents[1].wait_for("the units that this machine had leased are void until their windows end");
    wait_for(&sandbox, "two", "leading");
    let name = |file| page_word(&sandbox, file, PageWord::Name);
    assert_ne!(name("one/api.fleet"), name("two/api.fleet"));
    let (rest, last) = admitted(&sandbox, &machines, &key);
    assert!(rest > 30 && rest <= 98 && last["outcome"] == "denied", "{rest}, {last}");
    drop(agents);
}

#[test]
fn emptied_fleet_file_is_explained() {
    let sandbox = Sandbox::new();
    create_machines(&sandbox, PLAN, &["one"]);
    let store = Store::start(&sandbox, &[]);
    drop(join(&sandbox, &store, &["one"]));
    fs::write(sandbox.path("one/api.fleet"), "").unwrap();
    let expected = "one/api.fleet: the fleet file is empty: remove it, and start the agent again";
    fleet(&sandbox, "status", "one", &[]).expect_failure(&[expected]);
    let run = sandbox.finish(&mut agent(&sandbox, "one", &store, &[]), b"");
    assert!(run.status == 3 && run.err.contains(expected), "{run:?}");
    fs::remove_file(sandbox.path("one/api.fleet")).unwrap();
    let agent = Agent::start(&sandbox, "one", &store, &[]);
    wait_for(&sandbox, "one", "leading");
    drop(agent);
}

/// The store that has the revocation is lost, and the agent runs.
#[test]
fn older_gate_admits_no_key_without_the_store() {
    let sandbox = Sandbox::new();
    let machines = ["one", "two"];
    let (key, key_id) = create_machines(&sandbox, PLAN, &machines);
    let (other, _) = sandbox.issue("one/api.gate", &["--account", "43"]);
    let mut store = Store::start(&sandbox, &[]);
    let start = |machine| Agent::start(&sandbox, machine, &store, &["--on-loss", "open"]);
    let agents = machines.map(start);
    for machine in machines {
        wait_for(&sandbox, machine, "leading");
        fleet(&sandbox, "join", machine, &[]).expect_status(0);
    }
    fs::copy(sandbox.path("one/api.gate"), sandbox.path("older")).unwrap();
    let wait = ["--fleet", "one/api.fleet", "--fleet-wait", "20s"];
    sandbox.run(&[&["revoke", "one/api.gate", &key_id], &wait[..]].concat()).expect_status(0);
    store.kill();
    wait_for(&sandbox, "one", "cut");
    assert_eq!(check(&sandbox, "one", &other).0, 0, "admitted without the store");
    fs::rename(sandbox.path("older"), sandbox.path("one/api.gate")).unwrap();
    agents[0].wait_for("one/api.gate is an older copy of the gate that this machine had");
    for key in [&key, &other] {
        assert_eq!(check(&sandbox, "one", key).1["outcome"], "unavailable");
    }
    let text = fleet(&sandbox, "status", "one", &[]).out;
    assert!(text.contains("keys: all refused until the agent has read them"), "{text}");
    store.restart();
    agents[0].wait_for("keytally: keys: all keys of the fleet are in the gate");
    assert_eq!(check(&sandbox, "one", &key).1["reason"], "revoked");
    admit(&sandbox, "one", &other);
}

#[test]
fn replaced_gate_is_led_with_a_new_fleet_file() {
    let sandbox = Sandbox::new();
    create_machines(&sandbox, PLAN, &["one"]);
    let store = Store::start(&sandbox, &[]);
    let agents = join(&sandbox, &store, &["one"]);
    let standby = Agent::start(&sandbox, "one", &store, &[]);
    standby.wait_for("standing by");
    sandbox.run(&["create", "new.gate", "--keys", "5", "--plan", PLAN]).expect_status(0);
    let (key, _) = sandbox.issue("new.gate", &["--account", "7"]);
    fs::rename(sandbox.path("new.gate"), sandbox.path("one/api.gate")).unwrap();
    let found = wait_for(&sandbox, "one", "leading");
    assert_eq!(found["in_fleet"], false, "the new gate has not joined");
    fleet(&sandbox, "join", "one", &[]).expect_status(0);
    assert_eq!(admitted(&sandbox, &["one"], &key).0, 100);
    drop(agents);
    standby.wait_for("keytally: leading");
}

#[test]
fn migrated_gate_stays_in_the_fleet() {
    let sandbox = Sandbox::new();
    let (key, _) = create_machines(&sandbox, PLAN, &["one"]);
    let store = Store::start(&sandbox, &[]);
    let agents = join(&sandbox, &store, &["one"]);
    for _ in 0..10 {
        admit(&sandbox, "one", &key);
    }
    let unspent = status(&sandbox, "one").1["unspent_units"].as_u64().unwrap();
    sandbox.run(&["migrate", "one/api.gate", "one/new.gate", "--keys", "20"]).expect_status(0);
    let found = wait_for(&sandbox, "one", "leading");
    assert_eq!(found["in_fleet"], true, "{found}");
    let (rest, _) = admitted(&sandbox, &["one"], &key);
    // The units that were not spent stay counted until the window ends.
    assert!((1..=90).contains(&rest), "{rest}");
    assert!(10 + u64::from(rest) + unspent >= 80, "{rest} were admitted after 10 and {unspent}");
    drop(agents);
}

#[test]
fn file_of_another_gate_is_kept_while_its_agent_runs() {
    let sandbox = Sandbox::new();
    create_machines(&sandbox, PLAN, &["one"]);
    let store = Store::start(&sandbox, &[]);
    let agents = join(&sandbox, &store, &["one"]);
    sandbox.run(&["create", "other.gate", "--keys", "10"]).expect_status(0);
    let url = store.url();
    let other = ["agent", "other.gate", "--fleet", "test", "--store", &url, "--on-loss", "closed"];
    let run = sandbox.run(&[&other[..], &["--file", "one/api.fleet"]].concat());
    assert_eq!(run.status, 3, "{run:?}");
    let expected = "one/api.fleet: the fleet file belongs to another gate or limiter, whose agent runs; \
                    name another file with --file\n";
    assert!(run.err.ends_with(expected), "{run:?}");
    drop(agents);
}

#[test]
fn removed_fleet_file_is_reported() {
    let sandbox = Sandbox::new();
    create_machines(&sandbox, PLAN, &["one"]);
    let store = Store::start(&sandbox, &[]);
    let agents = join(&sandbox, &store, &["one"]);
    fs::remove_file(sandbox.path("one/api.fleet")).unwrap();
    agents[0].wait_for("one/api.fleet was removed: restart this agent, and then the servers");
}

#[test]
fn join_needs_an_agent_and_leave_undoes_it() {
    let sandbox = Sandbox::new();
    let (key, _) = create_machines(&sandbox, PLAN, &["one"]);
    let join_alone = || fleet(&sandbox, "join", "one", &[]);
    join_alone().expect_failure(&["one/api.fleet", "start the agent of this gate first"]);
    let store = Store::start(&sandbox, &[]);
    let agents = join(&sandbox, &store, &["one"]);
    // A process without the fleet file has no units.
    let (code, found) = sandbox.check("one/api.gate", &key, &[]);
    assert_eq!((code, &found["outcome"]), (1, &"unavailable".into()), "{found}");
    let left = sandbox.run(&["fleet", "leave", "one/api.gate", "--json"]).json();
    assert_eq!(left, serde_json::json!({ "gate": "one/api.gate", "in_fleet": false }));
    assert_eq!(sandbox.check("one/api.gate", &key, &[]).0, 0);
    drop(agents);
    wait_for(&sandbox, "one", "absent");
    join_alone().expect_failure(&["one/api.fleet: no agent runs; start the agent"]);
    fs::write(sandbox.path("one/api.fleet"), [1; 4096]).unwrap();
    let foreign = join_alone();
    assert!(foreign.status == 3 && !foreign.err.contains("start the agent"), "{foreign:?}");
}

#[test]
fn status_and_top_show_the_units_of_a_machine() {
    let sandbox = Sandbox::new();
    let (key, key_id) = create_machines(&sandbox, PLAN, &["one"]);
    let store = Store::start(&sandbox, &[]);
    let missing = fleet(&sandbox, "status", "one", &[]);
    missing.expect_failure(&["cannot open", "one/api.fleet"]);
    let agents = join(&sandbox, &store, &["one"]);
    let text = fleet(&sandbox, "top", "one", &[]).expect_status(0);
    assert_eq!(text, "one/api.gate: this machine holds no units\n");
    (0..5).for_each(|_| admit(&sandbox, "one", &key));
    let (code, found) = status(&sandbox, "one");
    assert_eq!((code, &found["in_fleet"], &found["on_loss"]), (0, &true.into(), &"closed".into()));
    let number = |name: &str| found[name].as_u64().unwrap();
    assert!(number("lease_requests") >= number("granted_requests"), "{found}");
    assert!(number("granted_requests") > 0 && number("heartbeat_ms") < 2000, "{found}");
    assert_eq!(number("tallies"), 1);
    assert_eq!(number("held_units"), number("unspent_units") + 5, "{found}");
    let top = fleet(&sandbox, "top", "one", &["--json"]).json();
    let window = &top["tallies"][0]["windows"][0];
    assert_eq!(top["tallies"][0]["subject"], key_id);
    assert_eq!(top["tallies"][0]["section"], "key");
    assert_eq!((&window["window"], &window["limit"]), (&"2678400s".into(), &100.into()));
    let held = window["held"].as_u64().unwrap();
    assert_eq!(held, window["unspent"].as_u64().unwrap() + 5);
    assert_eq!(held + window["left"].as_u64().unwrap(), 100, "{window}");
    let text = fleet(&sandbox, "top", "one", &["--rows", "0"]).expect_status(0);
    assert!(text.contains("holds no units"), "{text}");
    let text = fleet(&sandbox, "status", "one", &[]).expect_status(0);
    assert!(text.contains("one/api.gate: in a fleet, with the fleet file one/api.fleet\n"));
    assert!(text.contains("agent: it leads; "), "{text}");
    assert!(text.contains(" held for 1 tally, "), "{text}");
    drop(agents);
}

/// Sends a command to the store of a sandbox. Returns the first line of the reply.
fn send(sandbox: &Sandbox, command: &str) -> String {
    let mut stream = UnixStream::connect(sandbox.path("store")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// Returns the name of the key in the store that has the counts of a key by [`PLAN`].
fn window_key(key_id: &str) -> String {
    let begin_s = keytally::now().unix_s() / 2_678_400 * 2_678_400;
    format!("kt:{{test/{key_id}}}:key:2678400:{begin_s}")
}

#[test]
fn unusable_key_of_the_store_is_named() {
    let sandbox = Sandbox::new();
    let (key, key_id) = create_machines(&sandbox, PLAN, &["one"]);
    let (other, _) = sandbox.issue("one/api.gate", &["--account", "43"]);
    let store = Store::start(&sandbox, &[]);
    let agents = join(&sandbox, &store, &["one"]);
    admit(&sandbox, "one", &other);
    let name = window_key(&key_id);
    assert_eq!(send(&sandbox, &format!("SET {name} text")), "+OK");
    assert_eq!(check(&sandbox, "one", &key).1["outcome"], "unavailable");
    agents[0].wait_for(&format!("the store's key {name} is unusable"));
    let (code, found) = status(&sandbox, "one");
    assert_eq!((code, &found["state"]), (0, &"leading".into()));
    assert_eq!(found["unusable_keys"], serde_json::json!([name]));
    let text = fleet(&sandbox, "status", "one", &[]).expect_status(0);
    assert!(text.contains(&format!("store: the key {name} is unusable")), "{text}");
    (0..50).for_each(|_| admit(&sandbox, "one", &other));

    assert_eq!(send(&sandbox, &format!("DEL {name}")), ":1");
    let is_usable = || status(&sandbox, "one").1["unusable_keys"] == serde_json::json!([]);
    for _ in (0..TRIES).take_while(|_| !is_usable()) {
        pause();
    }
    assert!(is_usable(), "{:?}", status(&sandbox, "one"));
    assert_eq!(admitted(&sandbox, &["one"], &key).0, 100);
    drop(agents);
}

#[test]
fn too_few_confirming_replicas_are_reported() {
    let sandbox = Sandbox::new();
    create_machines(&sandbox, PLAN, &["one"]);
    let port = free_port().to_string();
    // What is sent to a replica is written to this folder first.
    let folder = sandbox.path("one").display().to_string();
    let store =
        ["--bind", "127.0.0.1", "--dir", folder.clone().leak(), "--port", port.clone().leak()];
    let store = Store::start(&sandbox, &store);
    let agent = Agent::start(&sandbox, "one", &store, &["--confirm", "1"]);
    let sentence = "0 replicas of the store confirm, and --confirm needs 1: no units are leased";
    wait_for(&sandbox, "one", "unconfirmed");
    assert_eq!(status(&sandbox, "one").0, 3);
    let text = fleet(&sandbox, "status", "one", &[]).expect_status(3);
    assert!(text.contains("agent: it leads; "), "{text}");
    assert!(text.contains(&format!("replicas: {sentence}\n")), "{text}");
    agent.wait_for(&format!("keytally: leading, but {sentence}"));

    let options = ["--dir", &folder, "--replicaof", "127.0.0.1", &port];
    let mut replica = Store::spawn(&sandbox.path("replica"), &options);
    wait_for(&sandbox, "one", "leading");
    assert_eq!(status(&sandbox, "one").0, 0);
    replica.kill().unwrap();
    replica.wait().unwrap();
    wait_for(&sandbox, "one", "unconfirmed");
}

#[test]
fn reset_lets_a_key_use_its_limit_again() {
    let sandbox = Sandbox::new();
    let machines = ["one", "two"];
    let (key, key_id) = create_machines(&sandbox, PLAN, &machines);
    let store = Store::start(&sandbox, &[]);
    let agents = join(&sandbox, &store, &machines);
    assert_eq!(admitted(&sandbox, &machines, &key).0, 100);
    let url = store.url();
    let with = |id: &str, more: &[&str]| {
        let options = ["--fleet", "test", "--store", &url];
        fleet(&sandbox, "reset", "one", &[&[id], &options[..], more].concat())
    };
    let reset = |id: &str| with(id, &["--json"]);
    let expected = serde_json::json!({ "key_id": key_id, "windows": 1 });
    assert_eq!(reset(&key_id).json(), expected);
    assert_eq!(admitted(&sandbox, &machines, &key).0, 100);
    let text = with(&key_id, &[]).expect_status(0);
    let expected = format!(
        "the counts of key {key_id} are zero in the store: 1 window; units that machines have \
         leased and not spent stay\n"
    );
    assert_eq!(text, expected);
    let (_, unused) = sandbox.issue("one/api.gate", &["--account", "43"]);
    let text = with(&unused, &[]).expect_status(0);
    assert_eq!(text, format!("key {unused}: the store has no counts of it to reset\n"));
    let name = window_key(&unused);
    assert_eq!(send(&sandbox, &format!("SET {name} text")), "+OK");
    let unusable = format!("the store's key {name} is unusable: delete it (WRONGTYPE ");
    with(&unused, &[]).expect_failure(&[&unusable]);
    reset("00000000001").expect_failure(&["00000000001"]);
    let options = ["--fleet", "tset", "--store", &url];
    fleet(&sandbox, "reset", "one", &[&[&*key_id], &options[..]].concat())
        .expect_usage_error(&["--fleet tset: the agent of this machine is in another fleet"]);
    drop(agents);
}

#[test]
fn supervisor_gets_the_state_of_the_agent() {
    let sandbox = Sandbox::new();
    create_machines(&sandbox, PLAN, &["one"]);
    let store = Store::start(&sandbox, &[]);
    let path = sandbox.path("supervisor").display().to_string();
    let mut sockets = vec![(path.clone(), UnixDatagram::bind(&path).unwrap())];
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::net::SocketAddrExt as _;
        use std::os::unix::net::SocketAddr;

        let name = format!("keytally-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        sockets.push((format!("@{name}"), UnixDatagram::bind_addr(&address).unwrap()));
    }
    for (name, socket) in sockets {
        let variables = [("NOTIFY_SOCKET", &*name), ("WATCHDOG_USEC", "2000000")];
        let mut agent = Agent::start_with(&sandbox, "one", &store, &[], &variables);
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let receive_until = |expected: &[&str]| {
            let mut received = Vec::new();
            while !expected.iter().all(|text| received.iter().any(|line| line == text)) {
                assert!(received.len() < 100, "{expected:?} are not in {received:?}");
                let mut bytes = [0; 200];
                let len = socket.recv(&mut bytes).unwrap_or_else(|why| {
                    panic!("{why}: {expected:?} are not in {received:?}");
                });
                received.push(String::from_utf8(bytes[..len].to_vec()).unwrap());
            }
        };
        receive_until(&["STATUS=leading", "READY=1", "WATCHDOG=1"]);
        receive_until(&["WATCHDOG=1"]);
        agent.signal(Signal::TERM);
        receive_until(&["STOPPING=1"]);
        assert!(agent.process.wait().unwrap().success());
    }
}

#[test]
fn changes_of_keys_are_confirmed_by_the_other_machine() {
    let sandbox = Sandbox::new();
    let machines = ["one", "two"];
    let (key, key_id) = create_machines(&sandbox, PLAN, &machines);
    let store = Store::start(&sandbox, &[]);
    let mut agents = join(&sandbox, &store, &machines);
    let change = |command: &str, machine: &str, more: &[&str]| {
        let (gate, file) = (format!("{machine}/api.gate"), format!("{machine}/api.fleet"));
        let wait = ["--fleet", &file, "--fleet-wait", "10s"];
        sandbox.run(&[&[command, &gate], more, &wait].concat())
    };
    let all = "2 of 2 agents of the fleet have confirmed it\n";
    let issued = change("issue", "one", &["--account", "7"]);
    assert!(issued.status == 0 && issued.err.ends_with(all), "{issued:?}");
    let other = issued.out.trim();
    admit(&sandbox, "two", other);
    let rotated = change("rotate", "two", &[&key_id, "--grace", "1h"]);
    assert!(rotated.status == 0 && rotated.err.ends_with(all), "{rotated:?}");
    admit(&sandbox, "one", rotated.out.trim());
    agents[1].signal(Signal::STOP);
    let lacks = change("expire", "one", &[&key_id, "--expires", "300d"]);
    agents[1].signal(Signal::CONT);
    assert_eq!(lacks.status, 3, "{lacks:?}");
    assert!(lacks.err.starts_with("1 of 2 agents of the fleet have confirmed"), "{lacks:?}");
    assert!(lacks.err.contains("\nnot confirmed: ") && lacks.err.contains("/two/api.gate ("));
    let again = change("expire", "one", &[&key_id, "--never"]);
    assert!(again.status == 0 && again.err == all, "{again:?}");
    for (command, more) in [
        ("assign", &["--plan", "default"][..]),
        ("end-grace", &[]),
        ("expire", &["--never"]),
        ("revoke", &[]),
    ] {
        let run = change(command, "two", &[&[&*key_id], more].concat());
        assert!(run.status == 0 && run.err == all, "{command}: {run:?}");
    }
    assert_eq!(check(&sandbox, "one", &key).1["reason"], "revoked");
    // The agent of the other machine does not know which changes this gate has.
    let wrong = ["expire", "one/api.gate", &other[8..19], "--never", "--fleet", "two/api.fleet"];
    let wrong = sandbox.run(&wrong);
    assert_eq!(wrong.status, 3, "{wrong:?}");
    let [one, two] =
        machines.map(|machine| sandbox.path(&format!("{machine}/api.gate")).display().to_string());
    let expected = format!("two/api.fleet is the fleet file of {two}, and not that of {one}");
    assert!(wrong.err.contains(&expected), "{wrong:?}");
    let check = ["check", "one/api.gate", "--key", other, "--fleet", "two/api.fleet"];
    sandbox.run(&check).expect_failure(&[&expected]);
    for command in ["status", "top", "join"] {
        let run = sandbox.run(&["fleet", command, "one/api.gate", "--file", "two/api.fleet"]);
        run.expect_failure(&[&expected]);
    }
    let alone = sandbox.run(&["expire", "one/api.gate", &other[8..19], "--never"]);
    assert!(alone.err.contains("--fleet FILE waits for them"), "{alone:?}");
    let (_, found) = status(&sandbox, "one");
    let keys = &found["keys"];
    assert_eq!((&keys["mode"], &keys["refused"]), (&"carried".into(), &0.into()), "{found}");
    assert!(keys["closes_in_ms"].as_u64().unwrap() > 200_000, "{found}");
    // A change that the other machine has no room for is not confirmed.
    drop(agents.pop());
    sandbox.run(&["plan", "one/api.gate", "pro=5/31d"]).expect_status(0);
    agents.push(Agent::start(&sandbox, "two", &store, &[]));
    wait_for(&sandbox, "two", "leading");
    let wait = ["--fleet", "one/api.fleet", "--fleet-wait", "3s"];
    let run = [&["issue", "one/api.gate", "--account", "7", "--plan", "pro"], &wait[..]].concat();
    let refused = sandbox.run(&run);
    let some = "\n1 of 2 agents of the fleet have confirmed it within 3s\n";
    assert!(refused.status == 3 && refused.err.contains(some), "{refused:?}");
    assert_eq!(status(&sandbox, "two").1["keys"]["refused"], 1);
    let text = fleet(&sandbox, "status", "two", &[]).expect_status(3);
    assert!(
        text.contains("keys: this gate lacks some: the log of the agent names one\n"),
        "{text}"
    );
    agents[1].wait_for("of another machine cannot be put into this gate");
}

#[test]
fn keys_that_cannot_be_read_and_a_damaged_memory_are_reported() {
    let sandbox = Sandbox::new();
    create_machines(&sandbox, PLAN, &["one"]);
    fs::write(sandbox.path("one/api.gate.versions"), "junk").unwrap();
    let store = Store::start(&sandbox, &[]);
    let agents = join(&sandbox, &store, &["one"]);
    agents[0].wait_for("api.gate.versions was damaged");
    fleet(&sandbox, "status", "one", &[]).expect_status(0);
    // It has the form of a description, with an empty text, and no right MAC.
    let other = format!(r#""\x04\x00{}""#, "m".repeat(32));
    assert_eq!(send(&sandbox, &format!("HSET kt:{{test/keys}} gate {other}")), ":0");
    agents[0].wait_for("hdel 'kt:{test/keys}' gate");
    let is_reported = || {
        let run = fleet(&sandbox, "status", "one", &[]);
        let text = "keys: may be out of date: the log of the agent has the reason\n";
        run.status == 3 && run.out.contains("agent: it leads; ") && run.out.contains(text)
    };
    for _ in (0..TRIES).take_while(|_| !is_reported()) {
        pause();
    }
    assert!(is_reported(), "{:?}", fleet(&sandbox, "status", "one", &[]));
    drop(agents);
}

#[test]
fn file_without_an_agent_so_far_is_reported() {
    let sandbox = Sandbox::new();
    create_machines(&sandbox, PLAN, &["one"]);
    let peppers = keytally::pepper::parse(&sandbox.pepper).unwrap();
    let gate = keytally::Gate::open(sandbox.path("one/api.gate"), peppers).unwrap();
    keytally::FleetFile::create(sandbox.path("one/api.fleet"), &gate).unwrap();
    let text = fleet(&sandbox, "status", "one", &[]).expect_status(3);
    assert!(text.contains("agent: no agent has led\n"), "{text}");
    assert!(status(&sandbox, "one").1["heartbeat_ms"].is_null());
}

#[test]
fn signal_during_the_wait_of_issue_finds_the_key_printed() {
    let sandbox = Sandbox::new();
    let machines = ["one", "two"];
    create_machines(&sandbox, PLAN, &machines);
    let store = Store::start(&sandbox, &[]);
    let agents = join(&sandbox, &store, &machines);
    // Its confirmation does not arrive.
    agents[1].signal(Signal::STOP);
    for signal in [Signal::TERM, Signal::INT] {
        let wait = ["--account", "7", "--fleet", "one/api.fleet", "--fleet-wait", "60s"];
        let mut command =
            sandbox.interruptible_command(&[&["issue", "one/api.gate"], &wait[..]].concat());
        let mut issue = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut key, mut notes) = (String::new(), String::new());
        BufReader::new(issue.stdout.take().unwrap()).read_line(&mut key).unwrap();
        kill_process(Pid::from_child(&issue), signal).unwrap();
        issue.stderr.take().unwrap().read_to_string(&mut notes).unwrap();
        assert!(!notes.contains("confirmed"), "the wait has ended: {notes}");
        assert_eq!(issue.wait().unwrap().signal(), Some(signal.as_raw()));
        admit(&sandbox, "one", key.trim());
    }
}

#[test]
fn keys_are_not_carried_with_the_option_for_that() {
    let sandbox = Sandbox::new();
    let (key, key_id) = create_machines(&sandbox, PLAN, &["one"]);
    let store = Store::start(&sandbox, &[]);
    let agent = Agent::start(&sandbox, "one", &store, &["--no-keys"]);
    let found = wait_for(&sandbox, "one", "leading");
    assert_eq!(found["keys"]["mode"], "off", "{found}");
    let text = fleet(&sandbox, "status", "one", &[]).out;
    assert!(text.contains("keys: not carried to other machines\n"), "{text}");
    let run = sandbox.run(&["revoke", "one/api.gate", &key_id, "--fleet", "one/api.fleet"]);
    run.expect_failure(&[
        "nothing was changed: one/api.fleet",
        "it has --no-keys",
        "without --fleet",
    ]);
    admit(&sandbox, "one", &key);
    drop(agent);
}

#[test]
fn command_with_a_wrong_fleet_file_changes_nothing() {
    let sandbox = Sandbox::new();
    let (_, key_id) = create_machines(&sandbox, PLAN, &["one"]);
    let store = Store::start(&sandbox, &[]);
    let agents = join(&sandbox, &store, &["one"]);
    sandbox.run(&["create", "other.gate", "--keys", "100", "--plan", PLAN]).expect_status(0);
    let key_of_other = sandbox.issue("other.gate", &["--account", "7"]).1;
    let before = [fs::read(sandbox.path("one/api.gate")), fs::read(sandbox.path("other.gate"))];
    let before = before.map(Result::unwrap);
    for (command, more) in [
        ("issue", &["--account", "7"][..]),
        ("import", &["--account", "7"]),
        ("rotate", &["ID", "--grace", "1h"]),
        ("assign", &["ID", "--plan", "default"]),
        ("end-grace", &["ID"]),
        ("expire", &["ID", "--expires", "1d"]),
        ("revoke", &["ID"]),
    ] {
        for (gate, id, file) in [
            ("one/api.gate", &key_id, "missing.fleet"),
            ("one/api.gate", &key_id, "one/api.gate"),
            ("other.gate", &key_of_other, "one/api.fleet"),
        ] {
            let more: Vec<&str> = more.iter().map(|&it| if it == "ID" { id } else { it }).collect();
            let run = [&[command, gate, "--fleet", file], &more[..]].concat();
            let run = sandbox.run_with_input(&run, b"sk-0123456789abcdefghijklmnop\n");
            run.expect_failure(&["nothing was changed: ", file]);
        }
    }
    let after = [fs::read(sandbox.path("one/api.gate")), fs::read(sandbox.path("other.gate"))];
    assert!(before == after.map(Result::unwrap));
    drop(agents);
}

#[test]
fn wrong_file_of_a_fleet_command_is_named() {
    let sandbox = Sandbox::new();
    let (_, key_id) = create_machines(&sandbox, PLAN, &["one"]);
    let store = Store::start(&sandbox, &[]);
    let agents = join(&sandbox, &store, &["one"]);
    sandbox.run(&["create", "other.gate", "--keys", "100", "--plan", PLAN]).expect_status(0);
    sandbox.run(&["create", "same.gate", "--keys", "10", "--plan", PLAN]).expect_status(0);
    let limiter = ["limiter", "create", "users.limiter", "--policy", "10/31d", "--capacity", "50"];
    sandbox.run(&limiter).expect_status(0);
    fs::write(sandbox.path("text"), "no fleet file").unwrap();
    let url = store.url();
    let store = ["--fleet", "test", "--store", &url];
    let name = |table: &str| format!("; name that of {table} with --file");
    let as_fleet_file = "but as a fleet file: name the file of its gate or limiter";
    for (table, file, why) in [
        ("one/api.gate", "missing", "; start the agent of this gate first, by keytally agent"),
        ("users.limiter", "missing", "; start the agent of this limiter first, by keytally agent"),
        ("one/api.gate", "one", &*name("one/api.gate")),
        ("one/api.gate", "text", &name("one/api.gate")),
        ("one/api.gate", "one/api.gate", &name("one/api.gate")),
        ("users.limiter", "one/api.fleet", &name("users.limiter")),
        ("other.gate", "one/api.fleet", &name("other.gate")),
        ("same.gate", "one/api.fleet", &name("same.gate")),
        ("one/api.fleet", "one/api.fleet", as_fleet_file),
        ("one", "one/api.fleet", "one: this is a directory, not a regular file"),
        ("missing", "one/api.fleet", "cannot open missing: "),
    ] {
        let wrong = if file == "one/api.fleet" && !why.contains("--file") { table } else { file };
        for command in ["status", "top", "join", "reset"] {
            let reset = [&[&*key_id], &store[..]].concat();
            let more = if command == "reset" { &reset[..] } else { &[] };
            let run = [&["fleet", command, table, "--file", file], more].concat();
            sandbox.run(&run).expect_failure(&[wrong, why]);
        }
    }
    for (table, why) in [("one/api.fleet", as_fleet_file), ("text", "not a keytally table")] {
        sandbox.run(&["fleet", "leave", table]).expect_failure(&[table, why]);
    }
    drop(agents);
}

#[test]
fn fleet_of_another_gate_ends_the_agent() {
    let sandbox = Sandbox::new();
    create_machines(&sandbox, PLAN, &["one"]);
    let store = Store::start(&sandbox, &[]);
    let _agents = join(&sandbox, &store, &["one"]);
    fs::create_dir(sandbox.path("two")).unwrap();
    sandbox.run(&["create", "two/api.gate", "--keys", "7", "--plan", PLAN]).expect_status(0);
    let run = sandbox.finish(&mut agent(&sandbox, "two", &store, &[]), b"");
    assert_eq!(run.status, 3, "{run:?}");
    assert!(run.err.contains("this gate has 7 records, prefix kt, key"), "{run:?}");
}

#[test]
fn metrics_have_the_units_of_the_machine() {
    let sandbox = Sandbox::new();
    let (key, _) = create_machines(&sandbox, PLAN, &["one"]);
    let store = Store::start(&sandbox, &[]);
    let agent = Agent::start(&sandbox, "one", &store, &["--metrics", "unix:metrics"]);
    wait_for(&sandbox, "one", "leading");
    let metrics = || {
        let mut stream = UnixStream::connect(sandbox.path("metrics")).unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    assert!(metrics().contains("\nkeytally_fleet_joined 0\n"));
    fleet(&sandbox, "join", "one", &[]).expect_status(0);
    admit(&sandbox, "one", &key);
    let text = metrics();
    assert!(text.contains("\nkeytally_fleet_joined 1\n"), "{text}");
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    let value = |text: &str, name: &str| -> f64 {
        let line =
            text.lines().find_map(|line| line.strip_prefix(&format!("keytally_fleet_{name} ")));
        line.unwrap().parse().unwrap()
    };
    assert_eq!(["leading", "store_lost", "tallies"].map(|name| value(&text, name)), [1., 0., 1.]);
    assert_eq!(value(&text, "held_units"), value(&text, "unspent_units") + 1.);
    assert!(value(&text, "lease_requests_total") >= value(&text, "grants_total"));
    assert!(value(&text, "grants_total") >= 1. && value(&text, "connections_total") >= 1.);
    assert_eq!(["keys_refused", "keys_unsealed_total"].map(|name| value(&text, name)), [0., 0.]);
    assert!(value(&text, "keys_age_seconds") < 60.);
    drop(store);
    agent.wait_for("the store is lost");
    assert_eq!(value(&metrics(), "store_lost"), 1.);
}

/// Runs a command line of the program as an operator's file has it, with paths that do not exist.
/// Fails if the program does not accept it.
fn accept(sandbox: &Sandbox, line: &str) {
    let moved = |word: &str| match word.strip_prefix('/') {
        Some(path) => format!("missing/{path}"),
        None => word.to_owned(),
    };
    let words: Vec<String> = line.split_whitespace().skip(1).map(moved).collect();
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    if words[0] == "agent" {
        words.push("--explain");
    }
    let run = sandbox.run(&words);
    assert_eq!((run.status, run.err.contains("missing/")), (3, true), "{line}: {run:?}");
}

#[test]
fn file_for_compose_has_two_machines() {
    let sandbox = Sandbox::new();
    let file = include_str!("../../../packaging/compose/fleet.yaml");
    let file = &YamlLoader::load_from_str(file).unwrap()[0];
    let of = |service: &str, name: &str| {
        let service = &file["services"][service];
        let found = &service[name];
        if found.is_badvalue() { service["<<"][name].clone() } else { found.clone() }
    };
    let mut lines = Vec::new();
    for service in ["one", "two", "join-one", "join-two", "serve-one", "serve-two"] {
        lines.push(of(service, "command").as_str().unwrap().to_owned());
    }
    for machine in ["one", "two"] {
        let volumes = of(machine, "volumes");
        assert_eq!(volumes[0].as_str().unwrap(), format!("{machine}-data:/data"));
        assert_eq!(volumes[1].as_str().unwrap(), format!("{machine}-fleet:/fleet"));
        lines.push(of(machine, "healthcheck")["test"][1].as_str().unwrap().to_owned());
        let server = format!("serve-{machine}");
        assert_eq!(of(&server, "volumes"), volumes);
        assert!(of(&server, "depends_on")[&*format!("join-{machine}")].as_hash().is_some());
    }
    let script = of("gate", "command")[2].as_str().unwrap().to_owned();
    lines.extend(script.lines().filter(|line| line.starts_with("keytally")).map(str::to_owned));
    assert_eq!(lines.len(), 10);
    lines.iter().for_each(|line| accept(&sandbox, line));
    let script = of("store", "command")[2].as_str().unwrap().replace("$$", "$");
    assert!(script.contains("--maxmemory-policy noeviction"), "{script}");
    // The arguments of no process have the password.
    let script = script.replace(
        "exec valkey-server",
        "exec ${KEYTALLY_TEST_REDIS:-redis-server} --set-proc-title no --port 0 --unixsocket store",
    );
    let mut command = Command::new("sh");
    command.args(["-ec", &script]).current_dir(sandbox.path("")).stdout(Stdio::null());
    command.env("KEYTALLY_STORE_PASSWORD", "open-sesame");
    let mut process = command.spawn().unwrap();
    for _ in (0..TRIES).take_while(|_| UnixStream::connect(sandbox.path("store")).is_err()) {
        pause();
    }
    let replies = ["PING", "AUTH open-sesame"].map(|command| send(&sandbox, command));
    let arguments = fs::read_to_string(format!("/proc/{}/cmdline", process.id()));
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(replies[0].starts_with("-NOAUTH") && replies[1] == "+OK", "{replies:?}");
    if cfg!(target_os = "linux") {
        let arguments = arguments.unwrap();
        assert!(arguments.contains("noeviction") && !arguments.contains("sesame"), "{arguments}");
    }
}

#[test]
fn examples_of_alert_rules_pass_in_promtool() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/prometheus");
    let mut promtool = Command::new("promtool");
    promtool.current_dir(&folder).args(["test", "rules", "keytally-fleet.tests.yml"]);
    let output = promtool.output().expect("cannot run promtool");
    assert!(output.status.success(), "{output:?}");
    let rules = fs::read_to_string(folder.join("keytally-fleet.rules.yml")).unwrap();
    let guide = include_str!("../../../docs/how-to/share-limits.md");
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(guide.contains(&format!("| `{alert}` |")), "{alert}");
    }
}

/// Runs `keytally fleet COMMAND` for the limiter of a machine.
fn limiter(sandbox: &Sandbox, command: &str, machine: &str, more: &[&str]) -> Run {
    let (limiter, file) = (format!("{machine}/api.limiter"), format!("{machine}/limiter.fleet"));
    sandbox.run(&[&["fleet", command, &limiter], more, &["--file", &file]].concat())
}

/// Starts the agent of a machine's limiter, which needs no pepper.
fn start_limiter<'s>(sandbox: &'s Sandbox, machine: &str, store: &Store) -> Agent<'s> {
    let (limiter, file, url) =
        (format!("{machine}/api.limiter"), format!("{machine}/limiter.fleet"), store.url());
    let fixed = ["agent", &limiter, "--fleet", "test", "--store", &url, "--file", &file];
    let command = sandbox.command(&[&fixed[..], &["--on-loss", "closed"]].concat());
    Agent::spawn(sandbox, machine, command)
}

#[test]
fn limiters_of_machines_share_the_limit_of_a_subject() {
    let sandbox = Sandbox::new();
    let machines = ["one", "two"];
    for machine in machines {
        fs::create_dir(sandbox.path(machine)).unwrap();
    }
    let path = |machine: &str| sandbox.path(&format!("{machine}/api.limiter"));
    Limiter::create(path("one"), &"20/31d".parse().unwrap(), 100).unwrap();
    fs::copy(path("one"), path("two")).unwrap();
    let store = Store::start(&sandbox, &[]);
    limiter(&sandbox, "join", "one", &[]).expect_failure(&["start the agent of this limiter"]);
    let agents = machines.map(|machine| start_limiter(&sandbox, machine, &store));
    for (machine, agent) in machines.iter().zip(&agents) {
        agent.wait_for("keytally: leading");
        agent.wait_for("is not in a fleet");
        limiter(&sandbox, "join", machine, &[]).expect_status(0);
        let text = limiter(&sandbox, "status", machine, &[]).out;
        assert!(text.contains("\nunits: ") && !text.contains("keys"), "{text}");
    }
    let limiters = machines.map(|machine| {
        let limiter = Limiter::open(path(machine)).unwrap();
        limiter.join(sandbox.path(&format!("{machine}/limiter.fleet"))).unwrap();
        limiter
    });
    let admitted = || {
        let (mut admitted, mut refused) = (0, 0);
        while refused < 20 {
            for limiter in &limiters {
                if limiter.check(b"ann", 1).is_admitted() {
                    (admitted, refused) = (admitted + 1, 0);
                } else {
                    refused += 1;
                    pause();
                }
            }
        }
        admitted
    };
    assert_eq!(admitted(), 20);
    let shown: Value =
        serde_json::from_str(&limiter(&sandbox, "status", "one", &["--json"]).out).unwrap();
    assert_eq!((&shown["state"], &shown["tallies"]), (&"leading".into(), &1.into()), "{shown}");
    let top = limiter(&sandbox, "top", "one", &[]).expect_status(0);
    let fingerprint = format!("{:012x}", limiters[0].table().fingerprint(b"ann"));
    assert!(top.contains("SUBJECT") && top.contains(&fingerprint), "{top}");
    let url = store.url();
    let store = ["--fleet", "test", "--store", &url];
    for machine in machines {
        let reset = limiter(&sandbox, "reset", machine, &[&["ann"][..], &store].concat());
        let reset = reset.expect_status(0);
        assert!(
            reset.starts_with("the counts of subject ann are zero in the store: 1 w"),
            "{reset}"
        );
    }
    // Each reset lets all machines admit the limit again at most.
    let again = admitted();
    assert!((20..=40).contains(&again), "{again}");
    sandbox.run(&["fleet", "leave", "one/api.limiter"]).expect_status(0);
    assert!(!limiters[0].is_in_fleet() && limiters[1].is_in_fleet());
}

#[test]
fn unusable_key_of_a_limiter_is_named() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("one")).unwrap();
    Limiter::create(sandbox.path("one/api.limiter"), &"20/31d".parse().unwrap(), 100).unwrap();
    let store = Store::start(&sandbox, &[]);
    let name = "kt:{test/limiter.api.limiter}:table";
    assert_eq!(send(&sandbox, &format!("SET {name} text")), "+OK");
    let agent = start_limiter(&sandbox, "one", &store);
    agent.wait_for(&format!("the store's key {name} is unusable: delete it (WRONGTYPE "));
    assert_eq!(send(&sandbox, &format!("DEL {name}")), ":1");
    agent.wait_for("keytally: leading");
}

#[test]
fn explanation_of_a_limiter_has_its_limits() {
    let sandbox = Sandbox::new();
    let policy = "addresses: /64 20/minute; /48 100/hour".parse().unwrap();
    AddressLimiter::create(sandbox.path("api.limiter"), &policy, 100).unwrap();
    let options = ["--on-loss", "share", "--machines", "10", "--explain"];
    let fixed = ["agent", "api.limiter", "--fleet", "prod", "--store", "redis://store"];
    let text = sandbox.run(&[&fixed[..], &options].concat()).expect_status(0);
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with('-') && !line.starts_with("--"))
        .map(|line| line.split_whitespace().skip(1).collect())
        .collect();
    assert_eq!(
        rows,
        [["/64", "minute", "20", "2", "22", "40"], ["/48", "hour", "100", "10", "110", "200"]]
    );
    let run = sandbox.run(&["fleet", "join", "api.limiter"]);
    assert!(run.err.contains("api.limiter.fleet"), "{run:?}");
}
