//! Support for the tests of the list: a folder with a gate, a database and the gate of tokens.

use alloc::sync::Arc;
use std::path::{Path, PathBuf};

use keytally::{
    Followed, Gate, GateConfig, Key, KeyId, Name, NewKey, Outcome, Plan, Timestamp, now, pepper,
};
use keytally_keys::change::{Caller, Creation};
use keytally_keys::database::Database;
use keytally_keys::list::List;
use keytally_keys::tokens;
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
