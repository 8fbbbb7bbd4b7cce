//! Stores that an agent refuses, and ways to connect.

use alloc::sync::Arc;
use core::time::Duration;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use keytally_fleet::plan::layout::Phase;
use keytally_fleet::plan::request::LEASE_SCRIPT;
use keytally_fleet::{FleetConfig, FleetError, KEY_SCRIPTS, PasswordSource};
use redis::cmd;

use crate::support::fleet::{Running, config, most, request};
use crate::support::memory::{Memory, Outcome};
use crate::support::servers::{Server, free_port};
use crate::support::time::now;

/// The rights that the README lists for the agent's user.
const RIGHTS: &[&str] = &[
    "~kt:*",
    "&kt:*",
    "+evalsha",
    "+script|load",
    "+info",
    "+time",
    "+hmget",
    "+hset",
    "+hgetall",
    "+hdel",
    "+pexpireat",
    "+zadd",
    "+zrange",
    "+zrem",
    "+publish",
    "+subscribe",
    "+ping",
];

const PASSWORD: &str = "open-sesame";

fn leads(config: &FleetConfig) {
    let machine = Arc::new(Memory::new(4, "1000/hour"));
    let agent = Running::start(&machine, config);
    machine.wait_for(Phase::Leading);
    for _ in 0..500 {
        machine.admit(0);
    }
    let counts = agent.stop();
    assert!(counts.grants > 0 && counts.unanswered == 0, "{counts:?}");
}

fn refused(config: &FleetConfig) -> String {
    let machine = Arc::new(Memory::new(4, "100/hour"));
    let error = Running::start(&machine, config).end().unwrap_err();
    assert!(matches!(error, FleetError::Refused(_)), "{error:?}");
    let text = format!("{error} {error:?}");
    assert!(!text.contains(PASSWORD), "{text}");
    assert_eq!(machine.state().phase, Phase::Absent);
    error.to_string()
}

fn with_password(url: &str, password: &str) -> (FleetConfig, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), format!("{password}\n")).unwrap();
    let mut config = config(url);
    config.store.password = Some(PasswordSource::File(file.path().to_owned()));
    (config, file)
}

#[test]
fn store_that_evicts_keys_is_refused() {
    let server = Server::start(&["--maxmemory-policy", "allkeys-lru"]);
    let error = refused(&config(&server.url()));
    assert!(error.contains("maxmemory-policy is allkeys-lru"), "{error}");
    let mut allowed = config(&server.url());
    allowed.store.allow_eviction = true;
    leads(&allowed);
}

#[test]
fn password_is_read_from_a_file_and_never_shown() {
    let server = Server::start(&["--requirepass", PASSWORD]);
    let error = refused(&config(&server.url()));
    assert!(error.contains("needs a password"), "{error}");
    let (right, _file) = with_password(&server.url(), PASSWORD);
    assert!(!format!("{right:?}").contains(PASSWORD));
    let machine = Arc::new(Memory::new(4, "100/hour"));
    let agent = Running::start(&machine, &right);
    machine.wait_for(Phase::Leading);
    agent.stop();
    let (wrong, _file) = with_password(&server.url(), "open-barley");
    let error = refused(&wrong);
    assert!(error.contains("refuses the user or the password"), "{error}");
    assert!(!error.contains("barley"), "{error}");
}

#[test]
fn user_without_a_password_is_not_the_default_user() {
    let server = Server::start(&[]);
    let set_user = |more: &[&str]| {
        server.query(cmd("ACL").arg("SETUSER").arg("agent").arg("reset").arg("on").arg(more));
    };
    let config = config(&server.url().replace("redis://", "redis://agent@"));
    let needs = "refuses the user agent without a password: name a file with its password, or";
    for password in [&[][..], &[">open-sesame"]] {
        set_user(&[RIGHTS, password].concat());
        let error = refused(&config);
        assert!(error.contains(needs), "{error}");
    }
    // The default user has all rights.
    set_user(&["nopass", "+info"]);
    let error = refused(&config);
    assert!(error.contains("too few rights"), "{error}");
    set_user(&[RIGHTS, &["nopass"]].concat());
    leads(&config);
}

#[test]
fn user_with_the_documented_rights_leads() {
    let server = Server::start(&[]);
    let set_user = |rights: &[&str]| {
        let mut command = cmd("ACL");
        command.arg("SETUSER").arg("agent").arg("reset").arg("on");
        command.arg(format!(">{PASSWORD}")).arg(rights);
        server.query(&mut command);
    };
    let url = server.url().replace("redis://", "redis://agent@");
    let (config, _file) = with_password(&url, PASSWORD);
    set_user(RIGHTS);
    leads(&config);
    // The store's messages need rights too, and two machines.
    server.query(&mut cmd("FLUSHALL"));
    let machines = [Arc::new(Memory::new(1, "100/hour")), Arc::new(Memory::new(1, "100/hour"))];
    let agents: Vec<_> = machines.iter().map(|one| Running::start(one, &config)).collect();
    machines.iter().for_each(|machine| machine.wait_for(Phase::Leading));
    let since = now();
    let is_done = || most(&machines) >= 100 || since.elapsed() > Duration::from_secs(5);
    request(&machines, 2, 1, Duration::from_millis(1), is_done);
    let recalls: u64 = agents.into_iter().map(|agent| agent.stop().recalls).sum();
    assert!(recalls > 0, "no message was received");
    for (index, right) in RIGHTS.iter().enumerate() {
        let mut fewer = RIGHTS.to_vec();
        fewer.remove(index);
        set_user(&fewer);
        let error = refused(&config);
        assert!(error.contains("too few rights"), "without {right}: {error}");
        assert!(error.contains(right.trim_start_matches('+')), "without {right}: {error}");
    }
    set_user(&["~kt:*", "&kt:*", "+script|load", "+info", "+time", "+hmget", "+evalsha", "+ping"]);
    let error = refused(&config);
    let lacking =
        "it lacks +hdel +hgetall +hset +pexpireat +publish +subscribe +zadd +zrange +zrem";
    assert!(error.ends_with(lacking), "{error}");
}

#[test]
fn agent_that_loses_a_right_does_not_lead() {
    let server = Server::start(&[]);
    let set_user = |rights: &[&str]| {
        server.query(cmd("ACL").arg("SETUSER").arg("agent").arg(rights));
    };
    set_user(&[&["on", &format!(">{PASSWORD}")], RIGHTS].concat());
    let machine = Arc::new(Memory::new(1, "1000/hour"));
    let url = server.url().replace("redis://", "redis://agent@");
    let (config, _file) = with_password(&url, PASSWORD);
    let agent = Running::start(&machine, &config);
    machine.wait_for(Phase::Leading);
    machine.admit(0);
    set_user(&["-hset"]);
    let since = now();
    while machine.state().phase != Phase::Cut {
        assert!(since.elapsed() < Duration::from_secs(10), "the agent leads");
        machine.check(0);
    }
    set_user(&["+hset"]);
    machine.wait_for(Phase::Leading);
    let counts = agent.stop();
    assert_eq!(counts.connections, 2, "{counts:?}");
}

#[test]
fn documented_rights_are_those_of_the_scripts() {
    let scripts = LEASE_SCRIPT.to_owned() + KEY_SCRIPTS[0] + KEY_SCRIPTS[1];
    let called = scripts.replace("redis.call(\n  ", "redis.call(");
    let called = called.split("redis.call('").skip(1);
    let mut names: Vec<_> = called.filter_map(|rest| rest.split('\'').next()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 10);
    for name in names {
        let right = format!("+{}", name.to_lowercase());
        assert!(RIGHTS.contains(&&*right), "{right}");
    }
    let readme = include_str!("../../README.md").replace('\n', " ");
    assert!(readme.contains(&RIGHTS.join(" ")), "{}", RIGHTS.join(" "));
}

#[test]
fn unix_socket_and_database_are_used() {
    let server = Server::start(&[]);
    leads(&config(&format!("unix://{}?db=3", server.socket().display())));
    let text: String = redis::from_redis_value(server.query(cmd("INFO").arg("keyspace"))).unwrap();
    assert!(text.contains("db3:") && !text.contains("db0:"), "{text}");
}

#[test]
fn cluster_and_sentinel_are_recognized() {
    let server = Server::start(&["--cluster-enabled", "yes"]);
    let error = refused(&config(&server.url()));
    assert!(error.contains("write `redis+cluster://HOST`"), "{error}");
    let single = Server::start(&[]);
    let cluster = single.url().replace("redis://", "redis+cluster://");
    let machine = Arc::new(Memory::new(4, "100/hour"));
    let agent = Running::start(&machine, &config(&cluster));
    machine.wait_for(Phase::Cut);
    agent.stop();
}

#[test]
fn connection_by_tls_verifies_the_certificate() {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(path("cert"), made.cert.pem()).unwrap();
    fs::write(path("key"), made.signing_key.serialize_pem()).unwrap();
    fs::write(path("other"), other.cert.pem()).unwrap();
    let port = free_port();
    let tls_port = port.to_string();
    let (cert, key) = (path("cert"), path("key"));
    let server = Server::start(&[
        "--tls-port",
        &tls_port,
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &cert,
        "--tls-auth-clients",
        "no",
    ]);
    let mut tls = config(&format!("rediss://127.0.0.1:{port}"));
    tls.store.ca_file = Some(path("cert").into());
    leads(&tls);
    tls.store.ca_file = Some(path("other").into());
    let error = refused(&tls);
    assert!(error.contains("certificate"), "{error}");
    tls.store.ca_file = None;
    let error = refused(&tls);
    assert!(error.contains("certificate"), "{error}");
    tls.store.ca_file = Some(path("none").into());
    assert!(refused(&tls).contains("cannot be read"));
    let mut plain = config(&format!("redis://127.0.0.1:{port}"));
    plain.store.ca_file = Some(path("cert").into());
    let error = refused(&plain);
    assert!(error.contains("is a store without TLS, and certificates are named"), "{error}");
    drop(server);
}

#[test]
fn server_that_does_not_speak_the_protocol_is_named_in_one_line() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let _ = client.read(&mut [0; 64]);
            let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        }
    });
    // With a user, the first command signs in.
    for user in ["", "agent@"] {
        let error = refused(&config(&format!("redis://{user}{address}")));
        let expected = format!(
            "the store at {address} does not speak the protocol of Redis: name the port of a Redis \
             or Valkey"
        );
        assert_eq!(error, expected);
    }
}

#[test]
fn password_of_sentinels_without_sentinels_is_refused() {
    for (url, scheme) in [
        ("redis://store", "redis+sentinel"),
        ("rediss://store", "rediss+sentinel"),
        ("redis+cluster://store", "redis+sentinel"),
        ("unix:///run/store", "redis+sentinel"),
    ] {
        let mut config = config(url);
        config.store.sentinel_password = Some(PasswordSource::File("password".into()));
        let error = refused(&config);
        let expected = format!("begin its URL with `{scheme}`, or name none");
        assert!(error.contains("is a store without Sentinels, and a password"), "{error}");
        assert!(error.ends_with(&expected), "{error}");
    }
    let server = Server::start(&[]);
    let mut config = config(&server.url());
    config.store.sentinel_password = Some(PasswordSource::Environment("PASSWORD".to_owned()));
    leads(&config);
}

#[test]
fn unusable_key_of_one_tally_leaves_the_others_alone() {
    let server = Server::start(&[]);
    let machine = Arc::new(Memory::new(9, "50/minute, 1000/month"));
    let agent = Running::start(&machine, &config(&server.url()));
    machine.wait_for(Phase::Leading);
    let of_another_type = |key: &str| drop(server.query(cmd("SET").arg(key).arg("text")));
    let fields = [
        ("t", "many"),
        ("t", "-1e15"),
        ("t", "nan"),
        ("t", "1e300"),
        ("n", "0"),
        ("n", "-1"),
        ("w", "9999999999999999"),
    ];
    let writes = core::iter::once(None).chain(fields.map(Some));
    let write = |key: &str, write: Option<(&str, &str)>| match write {
        None => of_another_type(key),
        Some((field, value)) => drop(server.query(cmd("HSET").arg(key).arg(field).arg(value))),
    };
    for (tally, bad) in (0..).zip(writes) {
        // The minute may end.
        let minute = machine.now_ms() / 60_000;
        let keys =
            [minute, minute + 1].map(|it| format!("kt:{{test/k{tally}}}:key:60:{}", it * 60));
        keys.iter().for_each(|key| write(key, bad));
        let since = now();
        while agent.unusable_keys().is_empty() {
            assert!(since.elapsed() < Duration::from_secs(10), "no key is named: {bad:?}");
            assert_eq!(machine.check(tally), Outcome::Unavailable);
        }
        let [named] = &agent.unusable_keys()[..] else { panic!("{:?}", agent.unusable_keys()) };
        assert!(keys.contains(&named.key), "{named}");
        assert!(named.to_string().contains("gets no units: delete it ("), "{named}");
        machine.admit(8);
        keys.iter().for_each(|key| drop(server.query(cmd("DEL").arg(key))));
        while !agent.unusable_keys().is_empty() {
            assert!(since.elapsed() < Duration::from_secs(20), "the deleted key is unusable");
            std::thread::sleep(Duration::from_millis(5));
        }
        machine.admit(tally);
    }
    let counts = agent.stop();
    assert_eq!(counts.connections, 1, "{counts:?}");
}

#[test]
fn units_are_not_withheld_until_a_time_far_ahead() {
    let server = Server::start(&[]);
    let machine = Arc::new(Memory::new(1, "100/day"));
    let _agent = Running::start(&machine, &config(&server.url()));
    machine.wait_for(Phase::Leading);
    let day = machine.now_ms() / 86_400_000;
    // The day may end.
    for day in [day, day + 1] {
        let key = format!("kt:{{test/k0}}:key:86400:{}", day * 86_400);
        server.query(cmd("HSET").arg(key).arg("w").arg(machine.now_ms() + 3_600_000));
    }
    let since = now();
    while machine.check(0) != Outcome::Admitted {
        assert!(since.elapsed() < Duration::from_secs(20), "nothing is granted");
    }
}
