//! Support for the tests of the list: a folder with a gate, a database and the gate of tokens.

use alloc::sync::Arc;
use std::path::{Path, PathBuf};

use keytally::{
    Followed, Gate, GateConfig, Key, KeyId, Name, NewKey, Outcome, Plan, Timestamp, now, pepper,
};
use keytally_keys::change::{Caller, Creation};
use keytally_keys::database::Database;
use keytally_keys::list::List;
use keytally_keys::log::{ActorFilter, Entry, Filter};
use keytally_keys::roles::Actor;
use keytally_keys::teams::TeamSettings;
use keytally_keys::{time, tokens};
use tempfile::TempDir;

/// The pepper of all gates of these tests.
pub const PEPPER: &str = "5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f";

/// A folder with a gate and its list.
pub struct Site {
    pub folder: TempDir,
    pub list: List,
}

impl Site {
    /// Returns a gate with a new list in SQLite.
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = Database::url_of_file(&folder.path().join("keys.db"));
        let list = open(folder.path(), &url).await;
        Self { folder, list }
    }

    /// Returns a new gate with the list in this database.
    pub async fn with_database(url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let list = open(folder.path(), url).await;
        Self { folder, list }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Opens the gate again, as a command does.
    pub fn gate(&self) -> Gate {
        Gate::open(self.path("api.gate"), pepper::parse(PEPPER).unwrap()).unwrap()
    }

    /// Opens the list again, as after a restart.
    pub async fn reopen(&self) -> List {
        open(self.folder.path(), &Database::url_of_file(&self.path("keys.db"))).await
    }

    /// Returns a team and its first key.
    pub async fn team_with_key(&self) -> (u32, Key, KeyId) {
        let team = self.list.create_team(None, "Acme", operator()).await.unwrap();
        let (key, row) = self.list.create_key(creation(team.team), operator()).await.unwrap();
        (team.team, key, row.key_id)
    }

    /// Returns the outcome of a check with the gate's file.
    pub fn outcome(&self, key: &Key) -> Outcome {
        self.gate().peek(Some(key.expose().as_bytes()), 1).outcome()
    }
}

/// Opens the list of a folder, and creates what is not there.
pub async fn open(folder: &Path, url: &str) -> List {
    let (path, peppers) = (folder.join("api.gate"), pepper::parse(PEPPER).unwrap());
    let gate = if path.exists() {
        Gate::open(&path, peppers.clone()).unwrap()
    } else {
        Gate::create(&path, peppers.clone(), &config()).unwrap()
    };
    let database = Database::open(url).await.unwrap();
    let gate = Arc::new(Followed::from_gate(gate, peppers.clone(), Ok).unwrap());
    let admin = Arc::new(tokens::open_gate(folder, &peppers).unwrap());
    List::new(database, gate, admin, "test".to_owned())
}

/// The settings of the gates.
pub fn config() -> GateConfig {
    let plans = [("default", "100/minute, 1000/hour"), ("pro", "1000/minute, 20000/hour")];
    let plans = plans.map(|(name, policy)| Plan::new(name, policy.parse().unwrap()).unwrap());
    let scopes = ["read", "write"].map(str::to_owned);
    GateConfig::default().with_keys(1000).with_plans(plans.to_vec()).with_scopes(scopes.to_vec())
}

/// Returns an operator who calls now.
pub fn operator() -> Caller {
    Caller::operator(now())
}

/// Returns the properties of a key of a team.
pub fn creation(team_id: u32) -> Creation {
    Creation {
        team_id,
        env: Name::new("live").unwrap(),
        name: "billing".to_owned(),
        note: String::new(),
        plan: None,
        scopes: vec!["read".to_owned()],
        expires: None,
    }
}

/// Returns a moment some seconds from now.
pub fn in_s(seconds: u64) -> Timestamp {
    Timestamp::from_unix_s(now().unix_s() + seconds)
}

/// Issues a key with the gate alone, as `keytally issue` does.
pub fn issue_outside(site: &Site, account: u32) -> (Key, KeyId) {
    site.gate().issue(&NewKey::new(account, Name::new("test").unwrap())).unwrap()
}

/// Asserts that each filter of the log returns its entries, page by page.
pub async fn assert_log_is_filtered(site: &Site) {
    let (team, _, key_id) = site.team_with_key().await;
    let other = site.list.create_team(None, "Other", operator()).await.unwrap().team;
    let began_s = 1_900_000_000;
    for hour in 0_u64..48 {
        // The clock was once wrong by a day.
        let at_s = began_s + 3600 * if hour == 30 { hour - 24 } else { hour };
        let actor = match hour % 4 {
            0 => Actor::person(Some(1), None),
            1 => Actor::person(Some(11), None),
            2 => Actor::token("0000000000A".parse().unwrap(), None),
            _ => Actor::person(None, None),
        };
        let caller = Caller { actor, now: Timestamp::from_unix_s(at_s), ..operator() };
        let team = if hour % 7 == 6 { other } else { team };
        if hour % 3 == 0 {
            let longest_days = Some(u32::try_from(hour).unwrap() + 1);
            let settings = TeamSettings { longest_days, ..TeamSettings::default() };
            site.list.set_team(team, settings, caller).await.unwrap();
        } else {
            site.list.rename_team(team, &format!("Name {hour}"), caller).await.unwrap();
        }
    }
    let all = Filter { limit: 1000, ..Filter::default() };
    let all = site.list.log(&all).await.unwrap();
    let at = |entry: &Entry| time::parse("at", &entry.at).unwrap();
    // Several keys, of which one has no entry.
    let none = "00000000001".parse().unwrap();
    for (key_ids, expected) in [
        (vec![key_id, none], all.iter().filter(|entry| entry.key_id.is_some()).count()),
        (vec![none], 0),
        (Vec::new(), all.len()),
    ] {
        let filter = Filter { key_ids, limit: 1000, ..Filter::default() };
        assert_eq!(site.list.log(&filter).await.unwrap().len(), expected, "{filter:?}");
    }
    let hour = |hour: u64| Some(Timestamp::from_unix_s(began_s + 3600 * hour));
    for team_id in [None, Some(team), Some(other)] {
        for key in [None, Some(key_id)] {
            for actor in
                ["", "user 1", "user", "user 2", "token 0000000000A", "operator", "operator page"]
            {
                for action in ["", "team", "team.set", "team.renam", "key"] {
                    for (from, to) in [
                        (None, None),
                        (hour(5), None),
                        (None, hour(20)),
                        (hour(6), hour(40)),
                        (hour(7), hour(8)),
                        (hour(99), None),
                    ] {
                        let named = ActorFilter::named(actor);
                        assert_eq!(named.is_none(), actor.is_empty());
                        let action = action.to_owned();
                        let filter = Filter {
                            team_id,
                            key_id: key,
                            key_ids: Vec::new(),
                            actor: named,
                            action,
                            from,
                            to,
                            before: None,
                            limit: 9,
                        };
                        let is_found = |entry: &&Entry| {
                            let its = format!("{} {}", entry.actor_kind, entry.actor);
                            team_id.is_none_or(|team| entry.team == Some(team.into()))
                                && key.is_none_or(|key| entry.key_id == Some(key.to_string()))
                                && (actor.is_empty() || its == actor || entry.actor_kind == actor)
                                && (filter.action.is_empty()
                                    || entry.action == filter.action
                                    || entry.action.starts_with(&format!("{}.", filter.action)))
                                && from.is_none_or(|from| at(entry) >= from)
                                && to.is_none_or(|to| at(entry) < to)
                        };
                        let mut expected: Vec<_> = all.iter().filter(is_found).cloned().collect();
                        let mut found = Vec::new();
                        let mut page = filter.clone();
                        loop {
                            let entries = site.list.log(&page).await.unwrap();
                            let Some(last) = entries.last() else { break };
                            page.before = Some(last.seq);
                            assert!(entries.len() <= 9 && found.len() < 200, "{filter:?}");
                            found.extend(entries);
                        }
                        // The order is that of the changes, or that of the clock.
                        found.sort_by_key(|entry| entry.seq);
                        expected.sort_by_key(|entry| entry.seq);
                        assert_eq!(found, expected, "{filter:?}");
                    }
                }
            }
        }
    }
}
