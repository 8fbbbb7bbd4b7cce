//! The list and its gate change together, follow each other, and agree after every interruption.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

#[expect(unreachable_pub, reason = "a module of several tests")]
mod support;

use core::time::Duration;
use std::fs;

use keytally::{Gate, MigrationConfig, Name, NewKey, Outcome, Timestamp, now, pepper};
use keytally_keys::change::{Caller, Edit};
use keytally_keys::codes::Code;
use keytally_keys::database::Database;
use keytally_keys::error::Error;
use keytally_keys::keys::KeyFilter;
use keytally_keys::log::{ActorFilter, Filter};
use keytally_keys::reconcile::{ADOPTED_NAME, Comparison, Unknown};
use keytally_keys::roles::{Actor, Role};
use keytally_keys::sessions::Origin;
use support::{PEPPER, Site, creation, in_s, issue_outside, operator};
use tokio::time::sleep;

/// All actions of the log, the newest first.
async fn actions(site: &Site) -> Vec<String> {
    let filter = Filter { limit: 100, ..Filter::default() };
    let entries = site.list.log(&filter).await.unwrap();
    entries.into_iter().map(|entry| format!("{} {}", entry.actor_kind, entry.action)).collect()
}

/// Compares as a running service does.
async fn compare(site: &Site) -> (usize, usize) {
    let compared = site.list.compare(Comparison::automatic(), now()).await.unwrap();
    (compared.differences.len(), compared.open())
}

/// Asserts that nothing differs between the list and the gate.
async fn assert_agreement(site: &Site) {
    let dry = Comparison { is_dry: true, ..Comparison::automatic() };
    let compared = site.list.compare(dry, now()).await.unwrap();
    assert_eq!(compared.differences, [], "list and gate differ");
}

#[tokio::test(flavor = "multi_thread")]
async fn key_is_created_rotated_edited_and_revoked() {
    let site = Site::new().await;
    let (team, old, key_id) = site.team_with_key().await;
    assert_eq!(site.outcome(&old), Outcome::Admitted);
    let (new, row) = site.list.rotate_key(key_id, 3600, false, operator()).await.unwrap();
    assert!(row.rotated_s.is_some() && row.shown_s.is_none());
    assert_eq!([site.outcome(&old), site.outcome(&new)], [Outcome::Admitted; 2]);
    site.list.mark_shown(&row, now()).await.unwrap();
    assert!(site.list.key(Some(team), key_id).await.unwrap().shown_s.is_some());

    let edit = Edit {
        name: Some("  invoices ".to_owned()),
        plan: Some("pro".to_owned()),
        scopes: Some(vec!["write".to_owned()]),
        expires: Some(Some(in_s(900))),
        ..Edit::default()
    };
    let row = site.list.edit_key(key_id, edit, operator()).await.unwrap();
    assert_eq!((&*row.name, &*row.plan, &*row.scopes), ("invoices", "pro", "write"));
    let info = site.gate().key(key_id).unwrap();
    assert_eq!((info.plan, info.scopes), (1, 2));
    assert!(info.expires.is_some());

    site.list.end_grace(key_id, operator()).await.unwrap();
    assert_eq!([site.outcome(&old), site.outcome(&new)], [Outcome::InvalidKey, Outcome::Admitted]);
    let revoked = site.list.revoke_keys(vec![key_id], "left".to_owned(), operator()).await.unwrap();
    assert!(revoked[0].is_listed);
    assert_eq!(site.outcome(&new), Outcome::InvalidKey);
    let row = site.list.key(None, key_id).await.unwrap();
    assert_eq!((row.is_revoked, row.revoked_why.as_deref()), (true, Some("left")));
    let refused = site.list.rotate_key(key_id, 1, false, operator()).await.unwrap_err();
    assert!(refused.to_string().contains("was revoked"), "{refused}");
    assert_eq!(
        actions(&site).await,
        [
            "operator key.revoke",
            "operator key.end_grace",
            "operator key.edit",
            "operator key.rotate",
            "operator key.create",
            "operator team.create"
        ]
    );
    assert_agreement(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_values_are_named_and_change_nothing() {
    let site = Site::new().await;
    let (team, _, key_id) = site.team_with_key().await;
    let head = site.list.database().head().await.unwrap();
    let create = async |change: fn(&mut keytally_keys::change::Creation)| {
        let mut new = creation(team);
        change(&mut new);
        site.list.create_key(new, operator()).await.unwrap_err().to_string()
    };
    assert!(create(|new| new.name = String::new()).await.starts_with("name: it is empty"));
    assert!(create(|new| new.name = "n".repeat(65)).await.starts_with("name: it has 65"));
    assert!(create(|new| new.note = "n".repeat(501)).await.starts_with("note: it has 501"));
    assert!(
        create(|new| new.plan = Some("max".to_owned())).await.starts_with("plan: the gate has")
    );
    assert!(create(|new| new.scopes = vec!["x".to_owned()]).await.starts_with("scopes: the gate"));
    assert_eq!(create(|new| new.team_id = 9).await, "there is no team 9");
    let edited = site.list.edit_key(key_id, Edit::default(), operator()).await;
    assert!(edited.unwrap_err().to_string().starts_with("body: it names nothing"));
    let rotated = site.list.rotate_key(key_id, u64::MAX, false, operator()).await;
    assert!(rotated.unwrap_err().to_string().starts_with("grace_s: a gate keeps times until 2106"));
    let team = site.list.create_team(Some(team), "Other", operator()).await.unwrap_err();
    assert_eq!(team.to_string(), "there is a team 1 already");
    assert_eq!(site.list.database().head().await.unwrap(), head);
    assert_agreement(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_idempotency_key_changes_nothing() {
    let site = Site::new().await;
    let (team, _, _) = site.team_with_key().await;
    let once = || Caller { idempotency_key: Some("one".to_owned()), ..operator() };
    let (_, row) = site.list.create_key(creation(team), once()).await.unwrap();
    let head = site.list.database().head().await.unwrap();
    let again = site.list.create_key(creation(team), once()).await.unwrap_err();
    assert!(matches!(again, Error::Repeated { key_id } if key_id == row.key_id), "{again}");
    assert_eq!(site.list.database().head().await.unwrap(), head);
    // Another actor may use the same text, and it is remembered for a day.
    let other = Caller { actor: Actor::reconcile(), ..once() };
    site.list.create_key(creation(team), other).await.unwrap();
    let tomorrow = Caller { now: in_s(86_401), ..once() };
    site.list.create_key(creation(team), tomorrow).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn second_gate_follows_the_list() {
    let first = Site::new().await;
    let url = Database::url_of_file(&first.path("keys.db"));
    let second = Site::with_database(&url).await;
    let (_, key, key_id) = first.team_with_key().await;
    assert_eq!(second.outcome(&key), Outcome::InvalidKey);
    second.list.follow(now()).await.unwrap();
    assert_eq!(second.outcome(&key), Outcome::Admitted);
    // The second one changes the key, and catches up with the first one before that.
    let (third, _) = first.list.rotate_key(key_id, 0, false, operator()).await.unwrap();
    second.list.end_grace(key_id, operator()).await.unwrap();
    assert_eq!(second.outcome(&third), Outcome::Admitted);
    first.list.follow(now()).await.unwrap();
    second.list.revoke_keys(vec![key_id], String::new(), operator()).await.unwrap();
    assert_eq!(first.outcome(&third), Outcome::Admitted);
    first.list.follow(now()).await.unwrap();
    assert_eq!(first.outcome(&third), Outcome::InvalidKey);
    for site in [&first, &second] {
        assert_agreement(site).await;
        assert_eq!(site.list.status().lag_s(now()), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_commands_are_adopted() {
    let site = Site::new().await;
    let (team, key, key_id) = site.team_with_key().await;
    let (outside, outside_id) = issue_outside(&site, 7);
    let (_, other_id) = issue_outside(&site, team);
    assert_eq!(compare(&site).await, (2, 0));
    let row = site.list.key(Some(7), outside_id).await.unwrap();
    assert_eq!((&*row.name, row.env.as_str(), &*row.plan), (ADOPTED_NAME, "test", "default"));
    assert_eq!(site.list.team(7).await.unwrap().name, "Account 7");
    assert_agreement(&site).await;

    // A command rotates, expires and revokes.
    let gate = site.gate();
    let rotated = gate.rotate(key_id, Duration::from_secs(60), false).unwrap();
    gate.expire(outside_id, Some(in_s(60))).unwrap();
    gate.revoke(other_id).unwrap();
    gate.assign(key_id, "pro").unwrap();
    assert_eq!(compare(&site).await, (3, 0));
    let row = site.list.key(None, key_id).await.unwrap();
    assert_eq!(&*row.plan, "pro");
    assert!(row.rotated_s.is_some() && row.grace_until_s.is_some());
    assert!(site.list.key(None, outside_id).await.unwrap().not_after_s.is_some());
    assert!(site.list.key(None, other_id).await.unwrap().is_revoked);
    for key in [&key, &rotated, &outside] {
        assert_eq!(site.outcome(key), Outcome::Admitted);
    }
    assert_agreement(&site).await;
    // A longer expiry, set by a command, does not hold against the list.
    gate.expire(outside_id, None).unwrap();
    assert_eq!(compare(&site).await, (1, 0));
    assert!(site.gate().key(outside_id).unwrap().expires.is_some());
    let all = actions(&site).await;
    assert_eq!(all.iter().filter(|action| *action == "reconcile key.reconcile").count(), 6);
    assert_agreement(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_gate_is_compared_before_a_comparison_is_due() {
    let site = Site::new().await;
    site.team_with_key().await;
    let copy = site.path("backup");
    site.gate().copy(&copy, false).unwrap();
    let new = NewKey::new(7, Name::new("test").unwrap());
    let copied = Gate::open(&copy, pepper::parse(PEPPER).unwrap()).unwrap();
    let (_, key_id) = copied.issue(&new).unwrap();
    // By this clock, no comparison is due after the first one.
    let stopped = || Timestamp::from_unix_s(2_000_000_000);
    let following = tokio::spawn(site.list.clone().follow_always(stopped, |_| ()));
    until(async || site.list.status().compared.is_some()).await;
    copied.copy(site.path("api.gate"), true).unwrap();
    assert!(site.list.gate().reopen_if_replaced().unwrap());
    until(async || site.list.key(Some(7), key_id).await.is_ok()).await;
    following.abort();
}

/// Waits until a condition holds.
async fn until(holds: impl AsyncFn() -> bool) {
    for _ in 0..3000 {
        if holds().await {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("the condition does not hold");
}

#[tokio::test(flavor = "multi_thread")]
async fn restored_database_brings_no_key_back() {
    let site = Site::new().await;
    let (team, key, key_id) = site.team_with_key().await;
    let copy = site.path("backup");
    site.list.database().close().await;
    fs::copy(site.path("keys.db"), &copy).unwrap();
    let list = site.reopen().await;
    list.revoke_keys(vec![key_id], String::new(), operator()).await.unwrap();
    let (later, later_row) = list.create_key(creation(team), operator()).await.unwrap();
    list.database().close().await;
    for name in ["keys.db-wal", "keys.db-shm"] {
        let _ = fs::remove_file(site.path(name));
    }
    fs::copy(&copy, site.path("keys.db")).unwrap();

    let site = Site { list: site.reopen().await, folder: site.folder };
    let refused = site.list.follow(now()).await.unwrap_err();
    assert!(matches!(refused, Error::Behind { head: 2, applied: 4 }), "{refused}");
    assert!(refused.to_string().contains("run keytally keys reconcile"));
    // Nothing is changed until then, but a revocation works in the gate.
    assert!(site.list.compare(Comparison::automatic(), now()).await.is_err());
    let refused = site.list.create_key(creation(team), operator()).await.unwrap_err();
    assert!(matches!(refused, Error::Behind { .. }), "{refused}");
    let refused = site.list.create_team(None, "Other", operator()).await.unwrap_err();
    assert!(matches!(refused, Error::Behind { .. }), "{refused}");
    assert_eq!(site.outcome(&key), Outcome::InvalidKey);

    let report = Comparison { unknown: Unknown::Report, accept: true, is_dry: true };
    let dry = site.list.compare(report, now()).await.unwrap();
    assert_eq!((dry.differences.len(), dry.open()), (2, 2));
    let accept = Comparison { unknown: Unknown::Adopt, accept: true, is_dry: false };
    let compared = site.list.compare(accept, now()).await.unwrap();
    assert_eq!((compared.differences.len(), compared.open()), (2, 0));
    assert!(site.list.key(None, key_id).await.unwrap().is_revoked);
    assert_eq!(&*site.list.key(None, later_row.key_id).await.unwrap().name, ADOPTED_NAME);
    assert_eq!(
        [&key, &later].map(|key| site.outcome(key)),
        [Outcome::InvalidKey, Outcome::Admitted]
    );
    assert_agreement(&site).await;
    site.list.follow(now()).await.unwrap();
    site.list.create_key(creation(team), operator()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_keys_can_be_revoked_after_a_restoration() {
    let site = Site::new().await;
    site.team_with_key().await;
    let (key, _) = issue_outside(&site, 7);
    let gate = site.gate();
    gate.administer(|administrator| {
        administrator.set_applied_sequence(99);
        Ok(())
    })
    .unwrap();
    let revoke = Comparison { unknown: Unknown::Revoke, accept: true, is_dry: false };
    site.list.compare(revoke, now()).await.unwrap();
    assert_eq!(site.outcome(&key), Outcome::InvalidKey);
    assert!(site.list.database().head().await.unwrap() > 99);
    assert_agreement(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restored_gate_brings_no_key_back() {
    let site = Site::new().await;
    let (_, key, key_id) = site.team_with_key().await;
    fs::copy(site.path("api.gate"), site.path("backup")).unwrap();
    site.list.revoke_keys(vec![key_id], String::new(), operator()).await.unwrap();
    let (later, _) = site.list.create_key(creation(1), operator()).await.unwrap();
    fs::rename(site.path("backup"), site.path("api.gate")).unwrap();
    assert_eq!(
        [&key, &later].map(|key| site.outcome(key)),
        [Outcome::Admitted, Outcome::InvalidKey]
    );

    let site = Site { list: site.reopen().await, folder: site.folder };
    site.list.follow(now()).await.unwrap();
    assert_eq!(
        [&key, &later].map(|key| site.outcome(key)),
        [Outcome::InvalidKey, Outcome::Admitted]
    );
    assert_agreement(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_continue_through_migrations() {
    let site = Site::new().await;
    let (_, key, key_id) = site.team_with_key().await;
    let (path, list) = (site.path(""), site.list.clone());
    let migrations = tokio::task::spawn_blocking(move || {
        for _ in 0..20 {
            let gate = Gate::open(path.join("api.gate"), pepper::parse(PEPPER).unwrap()).unwrap();
            gate.migrate(path.join("new.gate"), &MigrationConfig::default()).unwrap();
        }
    });
    let mut name = 0;
    while !migrations.is_finished() {
        name += 1;
        let edit = Edit { name: Some(name.to_string()), ..Edit::default() };
        list.edit_key(key_id, edit, operator()).await.unwrap();
    }
    migrations.await.unwrap();
    assert_eq!(list.key(None, key_id).await.unwrap().name, name.to_string());
    assert_eq!(site.outcome(&key), Outcome::Admitted);
    assert_agreement(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_record_is_put_again() {
    let site = Site::new().await;
    let (_, key, _) = site.team_with_key().await;
    compare(&site).await;
    // Another gate file with the number of the last change, as after a power failure.
    let applied = site.gate().table().applied_sequence();
    let other = Site::new().await;
    other
        .gate()
        .administer(|administrator| {
            administrator.set_applied_sequence(applied);
            Ok(())
        })
        .unwrap();
    fs::copy(other.path("api.gate"), site.path("api.gate.new")).unwrap();
    fs::rename(site.path("api.gate.new"), site.path("api.gate")).unwrap();
    let site = Site { list: site.reopen().await, folder: site.folder };
    // The list has not seen this gate, so it reports the key.
    assert_eq!(compare(&site).await, (1, 1));
    assert_eq!(site.list.status().open, 1);
    assert_eq!(site.outcome(&key), Outcome::InvalidKey);
    let accept = Comparison { accept: true, ..Comparison::automatic() };
    assert_eq!(site.list.compare(accept, now()).await.unwrap().open(), 0);
    assert_eq!(site.outcome(&key), Outcome::Admitted);
    assert_agreement(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_does_not_wait_for_a_locked_database() {
    let site = Site::new().await;
    let (team, key, key_id) = site.team_with_key().await;
    sqlx::any::install_default_drivers();
    let url = format!("sqlite:{}", site.path("keys.db").display());
    let other = sqlx::AnyPool::connect(&url).await.unwrap();
    let lock = other.begin_with("begin immediate").await.unwrap();
    let started = now().unix_ms();
    let caller = Caller { team_id: Some(team), ..operator() };
    let revoked = site.list.revoke_keys(vec![key_id], "leaked".to_owned(), caller).await.unwrap();
    let took_ms = now().unix_ms() - started;
    assert!(!revoked[0].is_listed && took_ms < 4000, "{revoked:?} after {took_ms} ms");
    assert_eq!(site.outcome(&key), Outcome::InvalidKey);
    // Another change fails with one sentence, and another team's key stays as it is.
    let refused = site.list.create_key(creation(team), operator()).await.unwrap_err();
    assert!(matches!(refused, Error::Database(_)), "{refused}");
    let other_team = Caller { team_id: Some(9), ..operator() };
    assert!(site.list.revoke_keys(vec![key_id], String::new(), other_team).await.is_err());
    drop(lock);
    other.close().await;
    assert_eq!(compare(&site).await, (1, 0));
    let row = site.list.key(None, key_id).await.unwrap();
    assert_eq!((row.is_revoked, row.revoked_by.as_deref()), (true, Some("reconcile")));
    assert_agreement(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn busy_gate_is_an_error_in_time() {
    let site = Site::new().await;
    let (team, _, _) = site.team_with_key().await;
    let gate = site.gate();
    let (held, release) = (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
    let holder = std::thread::spawn(move || {
        gate.administer(|_| {
            held.0.send(()).unwrap();
            release.1.recv().unwrap();
            Ok(())
        })
    });
    held.1.recv().unwrap();
    let refused = site.list.create_key(creation(team), operator()).await.unwrap_err();
    assert!(matches!(refused, Error::Gate(keytally::Error::Busy { .. })), "{refused}");
    release.0.send(()).unwrap();
    holder.join().unwrap().unwrap();
    site.list.create_key(creation(team), operator()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn member_manages_keys_of_other_environments_only() {
    let site = Site::new().await;
    let (team, _, live) = site.team_with_key().await;
    let member = || Caller { role: Role::Member, team_id: Some(team), ..operator() };
    let mut new = creation(team);
    assert!(matches!(site.list.create_key(new.clone(), member()).await, Err(Error::Forbidden(_))));
    assert!(matches!(
        site.list.rotate_key(live, 0, false, member()).await,
        Err(Error::Forbidden(_))
    ));
    new.env = Name::new("test").unwrap();
    let (_, row) = site.list.create_key(new, member()).await.unwrap();
    site.list.rotate_key(row.key_id, 0, false, member()).await.unwrap();
    let refused = site.list.revoke_keys(vec![row.key_id], String::new(), member()).await;
    assert!(matches!(refused, Err(Error::Forbidden(_))));
    let text = zeroize::Zeroizing::new(format!("kt_live_{}", "A".repeat(39)));
    let imported = site.list.import_key(text, creation(team), member()).await;
    assert!(matches!(imported, Err(Error::Forbidden(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn link_signs_in_once() {
    let site = Site::new().await;
    let (team, _, _) = site.team_with_key().await;
    let link =
        site.list.create_link(Some(team), Some("ann"), Role::Admin, operator()).await.unwrap();
    let code = || Code::from_text(link.code.expose());
    let late = in_s(601);
    let sign_in = async |code: Code, now| site.list.sign_in(code, Origin::default(), now).await;
    assert!(sign_in(code(), late).await.is_err());
    let token = sign_in(code(), now()).await.unwrap();
    let session = site.list.session(&token, now()).await.unwrap().unwrap();
    assert_eq!((session.team_id, session.user_id), (link.sign_in.team_id, link.sign_in.user_id));
    assert_eq!((session.role, &*session.user), (Role::Admin, "ann"));
    for code in [code(), Code::generate().unwrap()] {
        assert!(
            sign_in(code, now())
                .await
                .unwrap_err()
                .to_string()
                .starts_with("code: it is not valid")
        );
    }
    let members = site.list.members(team).await.unwrap();
    assert_eq!((&*members[0].name, &*members[0].role), ("ann", "admin"));
    site.list.remove_member(team, members[0].user, operator()).await.unwrap();
    assert!(site.list.members(team).await.unwrap().is_empty());
    let gone = site.list.remove_member(team, members[0].user, operator()).await.unwrap_err();
    assert_eq!(gone.to_string(), "there is no member 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn log_is_filtered_by_actor_action_and_time() {
    let site = Site::new().await;
    support::assert_log_is_filtered(&site).await;
    // A user is also found by name, and a name that no user has is an actor without entries.
    let user = site.list.set_member(1, "ann", Role::Admin, operator()).await.unwrap().user;
    let named = site.list.actor("actor", "ann").await.unwrap();
    assert_eq!(Some(named), ActorFilter::named(&format!("user {user}")));
    let actor = Some(site.list.actor("actor", "unknown").await.unwrap());
    let filter = Filter { actor, limit: 9, ..Filter::default() };
    assert_eq!(site.list.log(&filter).await.unwrap(), []);
    assert!(site.list.actor("actor", "a\nb").await.unwrap_err().to_string().starts_with("actor: "));
}

/// Returns the role of the session that a link for ann begins, and the role that the link names.
async fn role_by_link(site: &Site, team: u32, role: Role) -> (Role, Role) {
    let link = site.list.create_link(Some(team), Some("ann"), role, operator()).await.unwrap();
    let token = site.list.sign_in(link.code, Origin::default(), now()).await.unwrap();
    let session = site.list.session(&token, now()).await.unwrap().unwrap();
    (session.role, link.sign_in.role)
}

#[tokio::test(flavor = "multi_thread")]
async fn link_does_not_change_the_role_of_a_member() {
    let site = Site::new().await;
    let (team, _, _) = site.team_with_key().await;
    let role = async || site.list.members(team).await.unwrap()[0].role.clone();
    // A user who is not a member becomes one with the role.
    assert_eq!(role_by_link(&site, team, Role::Admin).await, (Role::Admin, Role::Admin));
    assert_eq!(role().await, "admin");
    for (role_of_link, its) in [
        (Role::Viewer, Role::Viewer),
        (Role::Member, Role::Member),
        (Role::Admin, Role::Admin),
        (Role::Owner, Role::Admin),
    ] {
        assert_eq!(role_by_link(&site, team, role_of_link).await, (its, its), "{role_of_link:?}");
        assert_eq!(role().await, "admin", "{role_of_link:?}");
    }
    // A session for less stays at less, and every other one has the role of the member.
    let token = async |role| {
        let link = site.list.create_link(Some(team), Some("ann"), role, operator()).await.unwrap();
        site.list.sign_in(link.code, Origin::default(), now()).await.unwrap()
    };
    let (less, same) = (token(Role::Member).await, token(Role::Admin).await);
    for (of_member, expected) in
        [(Role::Owner, [Role::Member, Role::Owner]), (Role::Viewer, [Role::Viewer, Role::Viewer])]
    {
        site.list.set_member(team, "bob", Role::Owner, operator()).await.unwrap();
        site.list.set_member(team, "ann", of_member, operator()).await.unwrap();
        for (token, role) in [&less, &same].into_iter().zip(expected) {
            assert_eq!(site.list.session(token, now()).await.unwrap().unwrap().role, role);
        }
    }
    let log = Filter { team_id: Some(team), limit: 99, ..Filter::default() };
    let entries = site.list.log(&log).await.unwrap();
    let added = entries.iter().filter(|entry| entry.action == "member.set");
    assert_eq!(added.count(), 5, "the first link and four changes: {entries:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn last_owner_stays_for_every_caller() {
    let site = Site::new().await;
    let (team, _, _) = site.team_with_key().await;
    let owner = || Caller { role: Role::Owner, team_id: Some(team), ..operator() };
    let ann = site.list.set_member(team, "ann", Role::Owner, operator()).await.unwrap().user;
    for caller in [&operator as &dyn Fn() -> Caller, &owner] {
        for role in [Role::Viewer, Role::Member, Role::Admin] {
            let refused = site.list.set_member(team, "ann", role, caller()).await.unwrap_err();
            assert!(refused.to_string().starts_with("the team would have no owner"), "{refused}");
            site.list.create_link(Some(team), Some("ann"), role, caller()).await.unwrap();
            site.list.create_invitation(team, "ann", role, caller()).await.unwrap();
        }
        let refused = site.list.remove_member(team, ann, caller()).await.unwrap_err();
        assert!(matches!(refused, Error::Conflict(_)), "{refused}");
        assert_eq!(site.list.members(team).await.unwrap()[0].role, "owner");
    }
    // With another owner, she may go. Then the other one stays.
    let bob = site.list.set_member(team, "bob", Role::Owner, operator()).await.unwrap().user;
    let (one, other) = tokio::join!(
        site.list.remove_member(team, ann, owner()),
        site.list.remove_member(team, bob, owner())
    );
    assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    assert_eq!(site.list.members(team).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn list_is_filtered_and_paged_within_a_team() {
    let site = Site::new().await;
    let (team, _, first) = site.team_with_key().await;
    let other = site.list.create_team(None, "Other", operator()).await.unwrap().team;
    site.list.create_key(creation(other), operator()).await.unwrap();
    for name in ["100%", "a_b", "A\\B", "<script>", "שלום"] {
        let mut new = creation(team);
        name.clone_into(&mut new.name);
        site.list.create_key(new, operator()).await.unwrap();
    }
    let filter = KeyFilter { team_id: Some(team), limit: 50, ..KeyFilter::default() };
    let names = async |filter: KeyFilter| {
        let rows = site.list.keys(&filter, now()).await.unwrap();
        rows.into_iter().map(|row| row.name).collect::<Vec<_>>()
    };
    assert_eq!(names(filter.clone()).await.len(), 6);
    for (search, found) in
        [("0%", "100%"), ("_", "a_b"), ("\\", "A\\B"), ("SCR", "<script>"), ("לו", "שלום")]
    {
        let filter = KeyFilter { search: search.to_owned(), ..filter.clone() };
        assert_eq!(names(filter).await, [found]);
    }
    site.list.revoke_keys(vec![first], String::new(), operator()).await.unwrap();
    let of_state = |state: &str| KeyFilter { state: state.to_owned(), ..filter.clone() };
    assert_eq!(names(of_state("revoked")).await, ["billing"]);
    assert_eq!(names(of_state("active")).await.len(), 5);
    assert_eq!(names(of_state("expired")).await.len(), 0);
    // Every page continues where the one before it ended.
    let (mut seen, mut after) = (Vec::new(), None::<keytally_keys::keys::Cursor>);
    loop {
        let filter = KeyFilter { limit: 2, after: after.take(), ..filter.clone() };
        let rows = site.list.keys(&filter, now()).await.unwrap();
        let Some(last) = rows.last() else { break };
        after = Some(last.cursor(filter.sort));
        seen.extend(rows.iter().map(|row| row.key_id));
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 6);
}
