//! What a server says about itself, and which servers a fleet refuses.

use crate::error::FleetError;
use crate::names::hash;

/// The facts of `INFO` that a fleet needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Server {
    version: String,
    valkey_version: Option<String>,
    mode: String,
    run_id: String,
    role: String,
    replication_id: String,
    policy: Option<String>,
}

/// The oldest versions.
const REDIS: (u32, u32) = (6, 2);
const VALKEY: (u32, u32) = (7, 2);

impl Server {
    /// Reads the text of `INFO`.
    pub(crate) fn parse(info: &str) -> Self {
        let mut server = Self::default();
        for line in info.lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            let value = value.trim().to_owned();
            match name {
                "redis_version" => server.version = value,
                "valkey_version" => server.valkey_version = Some(value),
                "redis_mode" | "server_mode" => server.mode = value,
                "run_id" => server.run_id = value,
                "role" => server.role = value,
                "master_replid" => server.replication_id = value,
                "maxmemory_policy" => server.policy = Some(value),
                _ => {}
            }
        }
        server
    }

    /// Refuses a server that a fleet cannot use.
    pub(crate) fn verify(&self, is_cluster: bool, allows_eviction: bool) -> Result<(), FleetError> {
        if self.mode == "sentinel" {
            return Err(FleetError::refused(
                "the store is a Sentinel, which has no data: write `redis+sentinel://HOST/GROUP`",
            ));
        }
        let (name, version, least) = match &self.valkey_version {
            Some(version) => ("Valkey", version, VALKEY),
            None => ("Redis", &self.version, REDIS),
        };
        if !is_at_least(version, least) {
            return Err(FleetError::refused(format!(
                "the store is {name} {version}: a fleet needs Redis 6.2, Valkey 7.2 or later"
            )));
        }
        match (self.mode == "cluster", is_cluster) {
            (true, false) => {
                return Err(FleetError::refused(
                    "the store is a cluster: write `redis+cluster://HOST`",
                ));
            }
            (false, true) => {
                return Err(FleetError::refused(
                    "the store is not a cluster: write `redis://HOST`",
                ));
            }
            _ => {}
        }
        let policy = self.policy.as_deref().unwrap_or("unknown");
        if policy != "noeviction" && !allows_eviction {
            return Err(FleetError::refused(format!(
                "the store evicts keys (its maxmemory-policy is {policy}), so it can forget what \
                 machines hold: set `maxmemory-policy noeviction`, or allow it: \
                 --allow-eviction"
            )));
        }
        if self.role != "master" {
            return Err(FleetError::lost("the store is a replica, not a primary"));
        }
        Ok(())
    }

    /// Returns a hash of the run and of its data's origin. After a restart or a failover, it
    /// differs.
    pub(crate) fn identity(&self) -> u64 {
        hash(&[&self.run_id, &self.replication_id])
    }
}

/// Compares the first two numbers of a version.
fn is_at_least(version: &str, least: (u32, u32)) -> bool {
    let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= least
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(changed: &str, value: &str) -> String {
        let lines = [
            ("redis_version", "7.0.15"),
            ("redis_mode", "standalone"),
            ("run_id", "1f"),
            ("role", "master"),
            ("master_replid", "2e"),
            ("maxmemory_policy", "noeviction"),
        ];
        let mut text = "# Server\r\n".to_owned();
        for (name, present) in lines {
            let value = if name == changed { value } else { present };
            text += &format!("{name}:{value}\r\n");
        }
        if !lines.iter().any(|(name, _)| *name == changed) {
            text += &format!("{changed}:{value}\r\n");
        }
        text
    }

    fn verified(changed: &str, value: &str) -> Result<(), String> {
        let server = Server::parse(&info(changed, value));
        server.verify(false, false).map_err(|error| error.to_string())
    }

    #[test]
    fn unsuitable_server_is_refused_by_a_sentence() {
        assert_eq!(verified("", ""), Ok(()));
        for (changed, value, why) in [
            ("redis_version", "6.0.16", "the store is Redis 6.0.16"),
            ("redis_version", "5.0", "needs Redis 6.2, Valkey 7.2 or later"),
            ("valkey_version", "7.1.9", "the store is Valkey 7.1.9"),
            ("redis_mode", "sentinel", "`redis+sentinel://HOST/GROUP`"),
            ("redis_mode", "cluster", "write `redis+cluster://HOST`"),
            ("maxmemory_policy", "allkeys-lru", "its maxmemory-policy is allkeys-lru"),
            ("maxmemory_policy", "volatile-ttl", "set `maxmemory-policy noeviction`"),
            ("role", "slave", "is a replica"),
        ] {
            let error = verified(changed, value).unwrap_err();
            assert!(error.contains(why), "{changed} {value}: {error}");
        }
        assert_eq!(verified("redis_version", "6.2.0"), Ok(()));
        assert_eq!(verified("redis_version", "8.0"), Ok(()));
        assert_eq!(verified("valkey_version", "7.2.0"), Ok(()));
        let evicts = Server::parse(&info("maxmemory_policy", "allkeys-lru"));
        assert_eq!(evicts.verify(false, true), Ok(()));
        let single = Server::parse(&info("", ""));
        let error = single.verify(true, false).unwrap_err().to_string();
        assert!(error.contains("is not a cluster"), "{error}");
        let silent = Server::parse("redis_version:7.0\r\nrole:master\r\n");
        let error = silent.verify(false, false).unwrap_err().to_string();
        assert!(error.contains("maxmemory-policy is unknown"), "{error}");
    }

    #[test]
    fn restart_and_failover_change_the_identity() {
        let identity = |changed, value| Server::parse(&info(changed, value)).identity();
        let present = identity("", "");
        assert_ne!(present, 0);
        assert_eq!(present, identity("maxmemory_policy", "allkeys-lru"));
        assert_ne!(present, identity("run_id", "3d"));
        assert_ne!(present, identity("master_replid", "3d"));
    }
}
