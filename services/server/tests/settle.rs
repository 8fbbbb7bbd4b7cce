//! Charges by outcome: the token of a charge at `/auth`, and `POST /settle`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(
    dead_code,
    unreachable_pub,
    reason = "a module of several tests, each of which uses a part of it"
)]
mod support;

use core::time::Duration;
use std::fs;
use std::thread::{self, sleep};

use serde_json::json;
use support::program::Sandbox;
use support::server::{GATE, Server, await_log, names_without_list};
use support::wire::{Reply, Wire};
use support::{key_id, secret};

const CHARGE: &str = "X-Keytally-Charge";

/// A plan whose window does not end during a test.
const PLAN: [&str; 2] = ["--plan", "default=1000/31d"];

/// Starts a service that settles charges within ten minutes.
fn start(sandbox: &Sandbox, more: &[&str]) -> Server {
    Server::start(sandbox, &[&PLAN[..], &["--settle", "10m"], more].concat())
}

/// Requests /auth with this cost. Returns the token of the charge.
fn charge(server: &Server, key: &str, cost: u32) -> String {
    let reply = authorize(server, key, cost);
    assert_eq!(reply.code(), 200, "{reply:?}");
    reply.header(CHARGE).to_owned()
}

fn authorize(server: &Server, key: &str, cost: u32) -> Reply {
    let lines = [format!("X-API-Key: {key}"), format!("X-Cost: {cost}")];
    server.request("GET /auth", &lines.each_ref().map(|line| line.as_bytes()))
}

/// Sends a charge and a cost to /settle.
fn settle(server: &Server, token: &str, cost: &str) -> Reply {
    let lines = [format!("{CHARGE}: {token}"), format!("X-Cost: {cost}")];
    server.request("POST /settle", &lines.each_ref().map(|line| line.as_bytes()))
}

/// Returns the units that remain of the key.
fn remaining(server: &Server, key: &str) -> u32 {
    server.get("/api/v1/limits", key).header("X-RateLimit-Remaining").parse().unwrap()
}

fn settlements(server: &Server, result: &str) -> u64 {
    server.metric(&format!("keytally_settlements_total{{result=\"{result}\"}}"))
}

#[test]
fn charge_is_replaced_by_the_actual_cost_once() {
    let sandbox = Sandbox::new();
    let server = start(&sandbox, &[]);
    let key = server.first_key().unwrap();
    for (cost, actual, left) in [(10, 0, 1000), (10, 3, 997), (7, 7, 990)] {
        let token = charge(&server, &key, cost);
        assert!(!token.contains(secret(&key)) && token.len() == 116, "{token}");
        let reply = settle(&server, &token, &actual.to_string());
        assert_eq!((reply.code(), reply.json()), (200, json!({"charged": cost, "cost": actual})));
        assert_eq!(reply.header("Content-Type"), "application/json");
        assert_eq!(remaining(&server, &key), left);
        for again in ["0", &actual.to_string()] {
            let reply = settle(&server, &token, again);
            let error = json!({"error": "The charge was settled before"});
            assert_eq!((reply.code(), reply.json()), (409, error));
        }
        assert_eq!(remaining(&server, &key), left);
    }
    assert_eq!((settlements(&server, "settled"), settlements(&server, "repeated")), (3, 6));
}

#[test]
fn settlement_logs_and_counts_the_warnings_that_it_reached() {
    let sandbox = Sandbox::new();
    let plan = "default=1000/31d; group tokens: 5000/31d warn 80%";
    let server = Server::start(&sandbox, &["--plan", plan, "--settle", "10m"]);
    let key = server.first_key().unwrap();
    let lines = [format!("X-API-Key: {key}"), "X-Group: tokens=2000".to_owned()];
    let reply = server.request("GET /auth", &lines.each_ref().map(|line| line.as_bytes()));
    let labels = "percent=\"80\",section=\"tokens\",window=\"2678400s\"";
    let counted = || server.metric(&format!("keytally_crossed_total{{{labels}}}"));
    assert_eq!(counted(), 0);
    let token = format!("{CHARGE}: {}", reply.header(CHARGE));
    let lines = [token.as_bytes(), b"X-Group: tokens=4500"];
    assert_eq!(server.request("POST /settle", &lines).code(), 200);
    assert_eq!(counted(), 1);
    let line = [" crossed quota=tokens-2678400s percent=80 key=", key_id(&key), " route=settle"];
    await_log(&sandbox, &line);
}

#[test]
fn costs_of_groups_are_settled() {
    let sandbox = Sandbox::new();
    let plan = "default=1000/31d; team: 900/31d; group write: 50/31d; group tokens: 5000/31d";
    let server = Server::start(&sandbox, &["--plan", plan, "--settle", "10m"]);
    let key = server.first_key().unwrap();
    let charge = || {
        let lines = [format!("X-API-Key: {key}"), "X-Group: write, tokens=2000".to_owned()];
        let reply = server.request("GET /auth", &lines.each_ref().map(|line| line.as_bytes()));
        assert_eq!(reply.code(), 200, "{reply:?}");
        reply.header(CHARGE).to_owned()
    };
    let left = || {
        let header = format!("X-API-Key: {key}");
        let lines: [&[u8]; 2] = [header.as_bytes(), b"X-Group: write=0, tokens=0"];
        let fields = server.request("GET /auth", &lines).header("RateLimit").to_owned();
        let rest =
            |field: &str| field.rsplit_once(";r=").unwrap().1.split(';').next().map(str::parse);
        fields.split(", ").map(|field| rest(field).unwrap().unwrap()).collect::<Vec<u32>>()
    };
    let settle = |token: &str, lines: &[&str]| {
        let token = format!("{CHARGE}: {token}");
        let lines: Vec<_> =
            [token.as_str()].iter().chain(lines).map(|line| line.as_bytes()).collect();
        server.request("POST /settle", &lines)
    };
    let token = charge();
    for wrong in ["tokens", "tokens=x", "tokens=+1", "tokens=-1", "key=1", "team=1", "none=1"] {
        let reply = settle(&token, &[&format!("X-Group: {wrong}")]);
        assert_eq!(reply.code(), 400, "{wrong}");
        let error = format!(
            "X-Group has {wrong:?}, and must be a list of NAME=COST with groups of the gate"
        );
        assert_eq!(reply.json()["error"], error);
    }
    let reply = settle(&token, &["X-Group: tokens=1, tokens=2"]);
    let error = "X-Group has \"tokens\", and must name each group once";
    assert_eq!((reply.code(), &reply.json()["error"]), (400, &json!(error)));
    // Each call of `left` charges the key and its team one unit.
    let reply = settle(&token, &["X-Group: tokens=1500"]);
    let expected = json!({"charged": 1, "cost": 1, "uncharged": {"tokens": 0}});
    assert_eq!((reply.code(), reply.json()), (200, expected));
    assert_eq!(left(), [998, 898, 49, 3500]);
    let reply = settle(&charge(), &["X-Cost: 0", "X-Group: tokens=9000"]);
    let expected = json!({"charged": 1, "cost": 0, "uncharged": {"tokens": 5500}});
    assert_eq!((reply.code(), reply.json()), (200, expected));
    assert_eq!(left(), [997, 897, 49, 0]);
    sandbox.run_admin(&["reset", GATE, key_id(&key)]).expect_status(0);
    // A cost of 0 returns the whole charge.
    let reply = settle(&charge(), &["X-Cost: 0"]);
    assert_eq!((reply.code(), reply.json()), (200, json!({"charged": 1, "cost": 0})));
    assert_eq!(left(), [999, 896, 50, 5000]);
}

#[test]
fn charge_is_reported_only_for_an_admitted_request() {
    let sandbox = Sandbox::new();
    let server = start(&sandbox, &["--preflight-header", "X-Original-Method"]);
    let key = server.first_key().unwrap();
    let header = format!("X-API-Key: {key}");
    let (mine, stated) = (header.as_bytes(), format!("{CHARGE}: mine"));
    // A proxy that copies only present headers would forward that of the client.
    let refused: [&[&[u8]]; 6] = [
        &[],
        &[b"X-API-Key: wrong"],
        &[mine, mine],
        &[mine, b"X-Cost: 1001"],
        &[mine, b"X-Cost: many"],
        &[b"X-Original-Method: OPTIONS"],
    ];
    for lines in refused {
        let lines: Vec<&[u8]> = lines.iter().copied().chain([stated.as_bytes()]).collect();
        let reply = server.request("GET /auth", &lines);
        assert!(reply.has(CHARGE) && reply.header(CHARGE).is_empty(), "{reply:?}");
    }
    // Other routes never have it.
    for path in ["/api/v1/contacts", "/api/v1/limits"] {
        assert!(!server.get(path, &key).has(CHARGE));
    }
    drop(server);

    // In shadow mode, a request that is denied or has no key has no charge either.
    let server = start(&sandbox, &["--shadow"]);
    let token = charge(&server, &key, 999);
    assert_eq!(authorize(&server, &key, 1).header(CHARGE), "");
    assert_eq!(server.request("GET /auth", &[]).header(CHARGE), "");
    assert_eq!(settle(&server, &token, "0").code(), 200);
}

// Windows cannot replace a gate that is in use, so nothing migrates it there.
#[cfg(unix)]
#[test]
fn charge_whose_counts_are_moving_is_not_settled() {
    let sandbox = Sandbox::new();
    let server = start(&sandbox, &[]);
    let (key, _) = sandbox.new_key(&["--account", "42"]);
    let token = charge(&server, &key, 40);
    sandbox.migrate_elsewhere();
    for (number, actual) in ["0", "30"].into_iter().enumerate() {
        let reply = settle(&server, &token, actual);
        let error = json!({"error": "The counts of the key are being moved to another file"});
        assert_eq!((reply.code(), reply.json()), (503, error));
        assert_eq!(reply.header("Retry-After"), "1");
        assert_eq!(settlements(&server, "unavailable"), u64::try_from(number).unwrap() + 1);
    }
    assert_eq!((settlements(&server, "settled"), settlements(&server, "repeated")), (0, 0));
    fs::rename(sandbox.path("other.gate"), sandbox.path(GATE)).unwrap();
    assert_eq!(remaining(&server, &key), 960);
    // The token is of the old file.
    assert_eq!(settle(&server, &token, "0").code(), 403);
}

#[test]
fn settle_is_off_by_default() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &PLAN);
    let key = server.first_key().unwrap();
    assert!(!authorize(&server, &key, 1).has(CHARGE));
    assert_eq!(settle(&server, "x", "0").code(), 404);
    assert_eq!(names_without_list(&sandbox), ["api.gate", "pepper"]);
}

#[test]
fn wrong_requests_get_clear_errors_and_use_up_nothing() {
    let sandbox = Sandbox::new();
    let server = start(&sandbox, &[]);
    let key = server.first_key().unwrap();
    let token = charge(&server, &key, 10);
    let [charge_line, cost_line] = [format!("{CHARGE}: {token}"), "X-Cost: 0".to_owned()];
    for (lines, error) in [
        (&[][..], "X-Keytally-Charge must be sent once"),
        (&[&cost_line], "X-Keytally-Charge must be sent once"),
        (&[&charge_line, &charge_line, &cost_line], "X-Keytally-Charge must be sent once"),
        (&[&charge_line], "X-Cost must be sent once"),
        (&[&charge_line, &cost_line, &cost_line], "X-Cost must be sent once"),
        (&[&charge_line, &"X-Cost: 11".to_owned()], "from 0 to the charge, which is 10"),
        (&[&charge_line, &"X-Cost: -1".to_owned()], "from 0 to the charge, which is 10"),
        (&[&charge_line, &"X-Cost: 4294967296".to_owned()], "from 0 to the charge, which is 10"),
        (&[&charge_line, &"X-Cost:".to_owned()], "from 0 to the charge, which is 10"),
    ] {
        let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
        let reply = server.request("POST /settle", &lines);
        assert_eq!(reply.code(), 400, "{reply:?}");
        assert!(reply.json()["error"].as_str().unwrap().contains(error), "{reply:?}");
    }
    assert_eq!(settlements(&server, "bad_request"), 9);
    for method in ["GET", "PUT", "DELETE"] {
        assert_eq!(server.request(&format!("{method} /settle"), &[]).code(), 405);
    }

    // Every other text is refused: garbage, and each changed character of a token.
    let mut wrong: Vec<Vec<u8>> = ["", "x", "=", "AAAA", "\u{e9}", &"A".repeat(116), &key]
        .map(|text| text.as_bytes().to_vec())
        .to_vec();
    wrong.push(b"\xff\xfe".to_vec());
    wrong.push(token.as_bytes()[1..].to_vec());
    wrong.push(token.as_bytes()[..115].to_vec());
    wrong.push([token.as_bytes(), b"A"].concat());
    wrong.push(b"A".repeat(4000));
    for at in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        wrong.push(changed);
    }
    let mut wire = Wire::to(server.address);
    for text in &wrong {
        let line = [CHARGE.as_bytes(), b": ", text].concat();
        let reply = wire.request("POST /settle", &[&line, b"X-Cost: 0"]);
        let error = json!({"error": "X-Keytally-Charge is not a charge of this service"});
        assert_eq!((reply.code(), reply.json()), (403, error), "{text:?}");
    }
    assert_eq!(settlements(&server, "unknown"), u64::try_from(wrong.len()).unwrap());
    assert_eq!(remaining(&server, &key), 990);
    assert_eq!(settle(&server, &token, "0").code(), 200);
}

#[test]
fn charge_expires_after_its_lifetime() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[&PLAN[..], &["--settle", "1s"]].concat());
    let key = server.first_key().unwrap();
    let token = charge(&server, &key, 5);
    sleep(Duration::from_millis(1100));
    let reply = settle(&server, &token, "0");
    let error = json!({"error": "The charge is older than 1 s"});
    assert_eq!((reply.code(), reply.json()), (410, error));
    assert_eq!((settlements(&server, "expired"), remaining(&server, &key)), (1, 995));
}

#[test]
fn processes_of_one_folder_settle_a_charge_once() {
    let sandbox = Sandbox::new();
    let first = start(&sandbox, &[]);
    let key = first.first_key().unwrap();
    let second = start(&sandbox, &[]);
    let other_lifetime = Server::start(&sandbox, &["--settle", "9m"]);
    for _ in 0..20 {
        let token = charge(&first, &key, 10);
        assert_eq!(settle(&other_lifetime, &token, "0").code(), 403);
        let codes: Vec<u16> = thread::scope(|scope| {
            let token = token.as_str();
            let send = |server| scope.spawn(move || settle(server, token, "0").code());
            let sent: Vec<_> = (0..4).flat_map(|_| [send(&first), send(&second)]).collect();
            sent.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(codes.iter().filter(|&&code| code == 200).count(), 1, "{codes:?}");
        assert_eq!(codes.iter().filter(|&&code| code == 409).count(), 7, "{codes:?}");
        assert_eq!(remaining(&first, &key), 1000);
    }
    // A token outlives the process that made it.
    let token = charge(&first, &key, 10);
    drop(first);
    assert_eq!(settle(&second, &token, "4").code(), 200);
    drop(second);
    let third = start(&sandbox, &[]);
    assert_eq!(settle(&third, &token, "4").code(), 409);
    assert_eq!(remaining(&third, &key), 996);
    assert_eq!(
        names_without_list(&sandbox),
        ["api.gate", "pepper", "settled-540s.limiter", "settled-600s.limiter"]
    );
}

#[test]
fn charge_of_another_gate_folder_or_pepper_is_refused() {
    let sandbox = Sandbox::new();
    let server = start(&sandbox, &[]);
    let key = server.first_key().unwrap();
    let token = charge(&server, &key, 10);
    // Another folder has the same gate and pepper, but would settle the charge again.
    let linked = Sandbox::new();
    fs::create_dir(linked.path("data")).unwrap();
    for name in ["data/api.gate", "data/pepper"] {
        fs::hard_link(sandbox.path(name), linked.path(name)).unwrap();
    }
    let other = start(&linked, &[]);
    assert_eq!((settle(&other, &token, "0").code(), remaining(&other, &key)), (403, 990));
    drop(other);

    // A copy of the gate has the key, which was not charged there.
    fs::copy(sandbox.path(GATE), sandbox.path("data/new.gate")).unwrap();
    fs::set_permissions(
        sandbox.path("data/new.gate"),
        fs::metadata(sandbox.path(GATE)).unwrap().permissions(),
    )
    .unwrap();
    fs::rename(sandbox.path("data/new.gate"), sandbox.path(GATE)).unwrap();
    for _ in 0..100 {
        if server.metric("keytally_gate_reopened_total") == 1 {
            break;
        }
        sleep(Duration::from_millis(50));
    }
    assert_eq!(settle(&server, &token, "0").code(), 403);
    let token = charge(&server, &key, 1);
    assert_eq!((settle(&server, &token, "0").code(), remaining(&server, &key)), (200, 990));
    drop(server);

    // A newer pepper makes tokens, and those of the older one are accepted.
    let token = charge(&start(&sandbox, &[]), &key, 1);
    let pepper = fs::read_to_string(sandbox.path("data/pepper")).unwrap();
    fs::write(sandbox.path("data/pepper"), format!("{pepper}{}\n", "d4".repeat(32))).unwrap();
    let server = start(&sandbox, &[]);
    let newer = charge(&server, &key, 1);
    assert_eq!(settle(&server, &token, "0").code(), 200);
    drop(server);
    fs::write(sandbox.path("data/pepper"), pepper).unwrap();
    let server = start(&sandbox, &[]);
    assert_eq!(settle(&server, &newer, "0").code(), 403);
}

#[test]
fn charge_of_a_revoked_key_is_settled() {
    let sandbox = Sandbox::new();
    let server = start(&sandbox, &[]);
    let key = server.first_key().unwrap();
    let token = charge(&server, &key, 10);
    // The key keeps its record. Another key could not take it before the token has expired.
    sandbox.run_admin(&["revoke", GATE, key_id(&key)]).expect_status(0);
    assert_eq!(settle(&server, &token, "0").code(), 200);
}

#[test]
fn settle_needs_a_lifetime_of_whole_seconds() {
    let sandbox = Sandbox::new();
    for lifetime in ["0s", "61m", "1500ms", "soon"] {
        let args = ["serve", "--listen", "127.0.0.1:0", "--data", "data", "--settle", lifetime];
        let run = sandbox.finish(&mut sandbox.command(&args), b"");
        run.expect_usage_error(&["'--settle <LIFETIME>'", "it must be"]);
    }
    assert_eq!(sandbox.names(), [] as [&str; 0]);
}
