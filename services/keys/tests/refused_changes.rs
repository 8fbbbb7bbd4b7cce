//! Each change, while the database is locked or full, and while several services share it: a change
//! that is refused is one sentence and changes nothing, and no revocation waits.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

#[expect(dead_code, unreachable_pub, reason = "each test uses a part of this module")]
mod support;

use keytally::{Gate, Key, KeyId, Outcome, Plan, now, pepper};
use keytally_keys::change::Edit;
use keytally_keys::codes::Code;
use keytally_keys::database::{Database, DatabaseError};
use keytally_keys::error::Error;
use keytally_keys::keys::KeyFilter;
use keytally_keys::log::Filter;
use keytally_keys::reconcile::Comparison;
use keytally_keys::roles::Role;
use keytally_keys::sessions::Origin;
use support::{PEPPER, Site, config, creation, open, operator};
use zeroize::Zeroizing;

/// Every change of a list.
const CHANGES: [&str; 14] = [
    "create a key",
    "import a key",
    "rotate a key",
    "end the grace",
    "edit a key",
    "revoke a key",
    "create a team",
    "rename a team",
    "set a member",
    "remove a member",
    "create a link",
    "use a link",
    "create a token",
    "revoke a token",
];

/// A list with what each change needs.
struct Prepared {
    site: Site,
    key: Key,
    key_id: KeyId,
    token: KeyId,
    code: String,
    user: i64,
}

impl Prepared {
    async fn new() -> Self {
        let site = Site::new().await;
        let (team, _, key_id) = site.team_with_key().await;
        let list = &site.list;
        let (key, _) = list.rotate_key(key_id, 600, false, operator()).await.unwrap();
        let user = list.set_member(team, "ann", Role::Viewer, operator()).await.unwrap().user;
        let link = list.create_link(Some(team), Some("bob"), Role::Admin, operator()).await;
        let code = link.unwrap().code.expose().to_owned();
        let (_, token) = list.create_token(Some(team), Role::Owner, "t", operator()).await.unwrap();
        let token = token.token.parse().unwrap();
        Self { site, key, key_id, token, code, user }
    }

    /// Makes a change.
    async fn change(&self, name: &str) -> Result<(), Error> {
        let list = &self.site.list;
        match name {
            "create a key" => list.create_key(creation(1), operator()).await.map(drop),
            "import a key" => {
                let text = Zeroizing::new("sk_0123456789abcdefghijklmnopqrstuvwxyz".to_owned());
                list.import_key(text, creation(1), operator()).await.map(drop)
            }
            "rotate a key" => list.rotate_key(self.key_id, 60, true, operator()).await.map(drop),
            "end the grace" => list.end_grace(self.key_id, operator()).await.map(drop),
            "edit a key" => {
                let edit = Edit { plan: Some("pro".to_owned()), ..Edit::default() };
                list.edit_key(self.key_id, edit, operator()).await.map(drop)
            }
            "revoke a key" => {
                list.revoke_keys(vec![self.key_id], String::new(), operator()).await.map(drop)
            }
            "create a team" => list.create_team(None, "New", operator()).await.map(drop),
            "rename a team" => {
                list.rename_team(1, &format!("New {}", now().unix_ms()), operator()).await.map(drop)
            }
            "set a member" => list.set_member(1, "eve", Role::Admin, operator()).await.map(drop),
            "remove a member" => list.remove_member(1, self.user, operator()).await,
            "create a link" => {
                list.create_link(Some(1), Some("eve"), Role::Admin, operator()).await.map(drop)
            }
            "use a link" => {
                list.sign_in(Code::from_text(&self.code), Origin::default(), now()).await.map(drop)
            }
            "create a token" => {
                list.create_token(Some(1), Role::Admin, "new", operator()).await.map(drop)
            }
            _ => list.revoke_token(Some(1), self.token, operator()).await,
        }
    }

    /// Returns all that a change can change, as text.
    async fn state(&self) -> String {
        let list = &self.site.list;
        let keys = KeyFilter { limit: 999, ..KeyFilter::default() };
        let log = Filter { limit: 999, ..Filter::default() };
        format!(
            "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
            list.database().head().await.unwrap(),
            list.keys(&keys, now()).await.unwrap(),
            list.log(&log).await.unwrap(),
            list.teams(0, 99).await.unwrap(),
            list.members(1).await.unwrap(),
            list.tokens(None).await.unwrap(),
            self.site.gate().list(),
            list.admin().load().list(),
        )
    }
}

/// Asserts that nothing differs between the list and the gate.
async fn assert_agreement(site: &Site) {
    let dry = Comparison { is_dry: true, ..Comparison::automatic() };
    assert_eq!(site.list.compare(dry, now()).await.unwrap().differences, []);
}

/// Lets a service take up what was changed in the gate alone.
async fn settle(site: &Site) {
    site.list.follow(now()).await.unwrap();
    assert_eq!(site.list.compare(Comparison::automatic(), now()).await.unwrap().open(), 0);
    assert_agreement(site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn locked_database_refuses_each_change_whole() {
    sqlx::any::install_default_drivers();
    // A change waits for some seconds, so all wait at once.
    let tests: Vec<_> = CHANGES
        .into_iter()
        .map(|name| tokio::spawn(async move { assert_refused_while_locked(name).await }))
        .collect();
    for test in tests {
        test.await.unwrap();
    }
}

async fn assert_refused_while_locked(name: &str) {
    let prepared = Prepared::new().await;
    let site = &prepared.site;
    let before = prepared.state().await;
    let url = Database::url_of_file(&site.path("keys.db"));
    let other = sqlx::AnyPool::connect(&url).await.unwrap();
    let lock = other.begin_with("begin immediate").await.unwrap();
    let refused = prepared.change(name).await;
    let is_admitted = site.outcome(&prepared.key) == Outcome::Admitted;
    match (name, refused) {
        ("revoke a key", revoked) => {
            revoked.unwrap();
            assert!(!is_admitted);
        }
        ("revoke a token", refused) => {
            let sentence = refused.unwrap_err().to_string();
            let token = prepared.token;
            let begin =
                format!("the token {token} is revoked, but the list does not have that yet: ");
            assert!(sentence.starts_with(&begin), "{sentence}");
            assert_eq!(
                site.list.admin().load().key(token).unwrap().state,
                keytally::KeyState::Revoked
            );
        }
        (_, refused) => {
            let sentence = refused.unwrap_err().to_string();
            let expected = "another process has locked the database; end it, or try again";
            assert_eq!(sentence, expected, "{name}");
            assert!(is_admitted, "{name}");
        }
    }
    drop(lock);
    other.close().await;
    if !name.starts_with("revoke") {
        assert_eq!(prepared.state().await, before, "{name}");
        assert_agreement(site).await;
    }
    if name == "revoke a key" {
        settle(site).await;
        let row = site.list.key(Some(1), prepared.key_id).await.unwrap();
        assert_eq!(row.revoked_by.as_deref(), Some("reconcile"));
        return;
    }
    // Now the same change succeeds, and leaves what it leaves otherwise.
    prepared.change(name).await.unwrap();
    assert_agreement(site).await;
    match name {
        // The session is in no answer.
        "use a link" => assert!(prepared.change(name).await.is_err()),
        _ => assert_ne!(prepared.state().await, before, "{name}"),
    }
    if name == "revoke a token" {
        let tokens = site.list.tokens(Some(1)).await.unwrap();
        assert!(tokens.iter().all(|token| token.revoked.is_some()), "{tokens:?}");
        let again = prepared.change(name).await.unwrap_err();
        assert!(matches!(again, Error::NotFound { .. }), "{again}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn full_disk_refuses_changes_whole() {
    let prepared = Prepared::new().await;
    let (site, list) = (&prepared.site, &prepared.site.list);
    let mut keys = Vec::new();
    list.database().set_full(true).await.unwrap();
    let refused = loop {
        let mut new = creation(1);
        new.note = "n".repeat(500);
        match list.create_key(new, operator()).await {
            Ok((key, row)) => keys.push((key, row.key_id)),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::Database(DatabaseError::Full)), "{refused}");
    let sentence = "the disk of the database is full; free some space and try again";
    assert_eq!(refused.to_string(), sentence);
    assert_agreement(site).await;
    assert!(keys.len() > 2, "{}", keys.len());
    // A change that still fits succeeds; each other one is refused whole.
    for name in CHANGES.into_iter().filter(|name| !name.starts_with("revoke")) {
        let before = prepared.state().await;
        if let Err(error) = prepared.change(name).await {
            assert_eq!(error.to_string(), sentence, "{name}");
            assert_eq!(prepared.state().await, before, "{name}");
        }
        assert_agreement(site).await;
    }
    // A revocation holds in the gate, also if the list cannot have it.
    let mut unlisted = None;
    for (key, key_id) in keys {
        let revoked = list.revoke_keys(vec![key_id], "w".repeat(500), operator()).await.unwrap();
        assert_eq!(site.outcome(&key), Outcome::InvalidKey);
        if !revoked[0].is_listed {
            unlisted = Some(key_id);
        }
    }
    let unlisted = unlisted.expect("each revocation fitted");
    assert!(!list.key(None, unlisted).await.unwrap().is_revoked);
    list.database().set_full(false).await.unwrap();
    settle(site).await;
    assert!(list.key(None, unlisted).await.unwrap().is_revoked);
    list.create_key(creation(1), operator()).await.unwrap();
    assert_agreement(site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_services_on_one_gate_change_it_in_turn() {
    let site = Site::new().await;
    let (team, _, key_id) = site.team_with_key().await;
    let other = site.reopen().await;
    let create = async |list: &keytally_keys::list::List| {
        let mut keys = Vec::new();
        for _ in 0..20 {
            keys.push(list.create_key(creation(team), operator()).await.unwrap().0);
            list.rotate_key(key_id, 60, true, operator()).await.unwrap();
        }
        keys
    };
    let (first, second) = tokio::join!(create(&site.list), create(&other));
    for key in first.iter().chain(&second) {
        assert_eq!(site.outcome(key), Outcome::Admitted);
    }
    for list in [&site.list, &other] {
        list.follow(now()).await.unwrap();
        assert_eq!(list.status().problem, None);
    }
    assert_agreement(&site).await;
    let filter = KeyFilter { team_id: Some(team), limit: 99, ..KeyFilter::default() };
    assert_eq!(other.keys(&filter, now()).await.unwrap().len(), 41);
}

#[tokio::test(flavor = "multi_thread")]
async fn gate_that_cannot_have_a_key_refuses_it() {
    let first = Site::new().await;
    let (team, _, key_id) = first.team_with_key().await;
    let mut new = creation(team);
    new.plan = Some("pro".to_owned());
    let (key, row) = first.list.create_key(new, operator()).await.unwrap();
    // Another gate on the list, without the plan.
    let folder = tempfile::tempdir().unwrap();
    let plans = vec![Plan::new("default", "100/minute, 1000/hour".parse().unwrap()).unwrap()];
    let peppers = pepper::parse(PEPPER).unwrap();
    let config = config().with_plans(plans);
    Gate::create(folder.path().join("api.gate"), peppers, &config).unwrap();
    let list = open(folder.path(), &Database::url_of_file(&first.path("keys.db"))).await;
    let second = Site { folder, list };
    second.list.follow(now()).await.unwrap();
    let accept = Comparison { accept: true, ..Comparison::automatic() };
    let compared = second.list.compare(accept, now()).await.unwrap();
    assert_eq!(compared.open(), 1, "{compared:?}");
    let sentence = compared.sentence().unwrap();
    assert!(sentence.contains(&row.key_id.to_string()), "{sentence}");
    assert!(sentence.contains("no plan of that name"), "{sentence}");
    assert_eq!(second.outcome(&key), Outcome::InvalidKey);
    assert_eq!(second.list.status().open, 1);
    // It has the other keys, and revokes this one, too.
    assert!(second.gate().key(key_id).is_some());
    second.list.revoke_keys(vec![row.key_id], String::new(), operator()).await.unwrap();
    first.list.follow(now()).await.unwrap();
    assert_eq!(first.outcome(&key), Outcome::InvalidKey);
    assert_agreement(&second).await;
}
