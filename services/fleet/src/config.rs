//! What the operator says about the fleet and its store.

use core::fmt::Write as _;
use std::path::PathBuf;

use keytally::redact::redact;
use keytally_fleet_plan::fleet_key::digest;
use keytally_fleet_plan::on_loss::OnLoss;

use crate::address::StoreUrl;
use crate::error::FleetError;
use crate::password::PasswordSource;

/// The most characters of a fleet's name.
pub const MAX_FLEET_NAME_LEN: usize = 32;

/// The most replicas that must have confirmed a grant.
pub const MAX_CONFIRM: u32 = 64;

/// The lease requests per second that an agent sends at most, unless set.
pub const REQUESTS_PER_S: u32 = 20_000;

/// The store, and how to connect to it.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Its address.
    pub url: StoreUrl,
    /// Where its password is, if it needs one.
    pub password: Option<PasswordSource>,
    /// Where the password of the Sentinels is, if they need one.
    pub sentinel_password: Option<PasswordSource>,
    /// The file with the certificates that TLS trusts, in PEM. Without it, those of the system.
    pub ca_file: Option<PathBuf>,
    /// The certificate of this client and its key, two files in PEM, if the store requires them.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// Whether the store may evict keys. Then a window may admit more than its limit.
    pub allow_eviction: bool,
}

impl StoreConfig {
    /// A store without password, whose certificate one of the system's authorities signed.
    pub fn new(url: StoreUrl) -> Self {
        Self {
            url,
            password: None,
            sentinel_password: None,
            ca_file: None,
            client_certificate: None,
            allow_eviction: false,
        }
    }
}

/// The fleet of a machine.
#[derive(Clone, Debug)]
pub struct FleetConfig {
    /// Its name, the same on all machines: 1 to [`MAX_FLEET_NAME_LEN`] letters, digits, `.`, `_`
    /// and `-`.
    pub name: String,
    /// The store that the machines share.
    pub store: StoreConfig,
    /// What a request gets that finds no credits while the store cannot be reached.
    pub on_loss: OnLoss,
    /// The number of machines, by which [`OnLoss::Share`] divides limits.
    pub machines: u32,
    /// The replicas that must have confirmed a grant before it is used, at most [`MAX_CONFIRM`].
    pub confirm: u32,
    /// The lease requests per second that the agent sends at most.
    pub requests_per_s: u32,
    /// The name by which the operator knows this machine, such as its host name. Other machines
    /// show it, with the path of the gate, when the machine lacks a change of a key.
    pub host: String,
}

impl FleetConfig {
    /// A fleet with this name and store, in which [`OnLoss::Share`] assumes one machine.
    pub fn new(name: impl Into<String>, store: StoreConfig, on_loss: OnLoss) -> Self {
        Self {
            name: name.into(),
            store,
            on_loss,
            machines: 1,
            confirm: 0,
            requests_per_s: REQUESTS_PER_S,
            host: String::new(),
        }
    }

    /// Refuses a configuration that no agent can have.
    ///
    /// # Errors
    /// [`FleetError::Refused`] for an invalid name, and for a number that is out of bounds.
    pub fn verify(&self) -> Result<(), FleetError> {
        let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let len = self.name.len();
        if len == 0 || len > MAX_FLEET_NAME_LEN || !self.name.bytes().all(is_valid) {
            return Err(FleetError::refused(format!(
                "{:?} is not the name of a fleet: it has 1 to {MAX_FLEET_NAME_LEN} letters, digits, \
                 `.`, `_` and `-`",
                redact(&self.name)
            )));
        }
        if self.machines == 0 {
            return Err(FleetError::refused("the number of machines is 0: it is at least 1"));
        }
        if self.confirm > MAX_CONFIRM {
            return Err(FleetError::refused(format!(
                "{} replicas that confirm: require at most {MAX_CONFIRM}",
                self.confirm
            )));
        }
        if self.requests_per_s == 0 {
            return Err(FleetError::refused("0 lease requests per second: allow at least 1"));
        }
        Ok(())
    }

    /// Returns a hash of the name, which agents write to their fleet files; not 0.
    pub fn number(&self) -> u64 {
        digest(self.name.as_bytes()).max(1)
    }

    /// Explains what the choice on loss of the store admits at most, for a limit of this many
    /// requests.
    ///
    /// ```
    /// use keytally_fleet::{FleetConfig, OnLoss, StoreConfig};
    ///
    /// let store = StoreConfig::new("redis://store".parse()?);
    /// let config = FleetConfig { machines: 10, ..FleetConfig::new("prod", store, OnLoss::Share) };
    /// assert!(config.explain(100).contains("at most 200 in a window"));
    /// # Ok::<(), keytally_fleet::FleetError>(())
    /// ```
    pub fn explain(&self, limit: u32) -> String {
        let (machines, on_loss) = (self.machines, self.on_loss);
        let mut text = format!("On loss of the store, this fleet is {on_loss}. ");
        let _ = match on_loss.limit(limit, machines) {
            None => write!(
                text,
                "A machine without the store spends the units that it has leased, then refuses: \
                 503. All machines together never admit more than the limit of {limit}."
            ),
            Some(alone) => {
                let most = |cut_off| on_loss.most_admitted(limit, machines, cut_off);
                write!(
                    text,
                    "A machine without the store spends the units that it has leased, then admits \
                     up to {alone} in a window by its own count. With a limit of {limit}, all \
                     machines together admit at most {} in a window if one of {machines} is cut \
                     off, and at most {} in a window if all are.",
                    most(1),
                    most(machines)
                )
            }
        };
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(on_loss: OnLoss) -> FleetConfig {
        let store = StoreConfig::new("redis://store".parse().unwrap());
        FleetConfig { machines: 10, ..FleetConfig::new("prod", store, on_loss) }
    }

    #[test]
    fn explanation_has_the_bounds_of_the_choice() {
        let text = |on_loss| config(on_loss).explain(100);
        assert!(text(OnLoss::Closed).contains("never admit more than the limit of 100"));
        let share = text(OnLoss::Share);
        assert!(share.contains("up to 10 in a window by its own count"), "{share}");
        assert!(share.contains("at most 110 in a window if one of 10 is cut off"), "{share}");
        assert!(share.contains("at most 200 in a window if all are"), "{share}");
        let open = text(OnLoss::Open);
        assert!(open.contains("at most 200 in a window if one of 10"), "{open}");
        assert!(open.contains("at most 1100 in a window if all are"), "{open}");
    }

    #[test]
    fn configuration_out_of_bounds_is_refused() {
        let with = |change: &dyn Fn(&mut FleetConfig)| {
            let mut config = config(OnLoss::Closed);
            change(&mut config);
            config.verify().map_err(|error| error.to_string())
        };
        assert_eq!(with(&|_| {}), Ok(()));
        let name = |name: String| with(&move |config| config.name = name.clone());
        assert_eq!(name("n".repeat(MAX_FLEET_NAME_LEN)), Ok(()));
        for bad in [String::new(), "n".repeat(MAX_FLEET_NAME_LEN + 1), "a/b".to_owned()] {
            assert!(name(bad).unwrap_err().contains("1 to 32 letters"));
        }
        assert!(name("a b".to_owned()).unwrap_err().starts_with("\"a b\" is not the name"));
        assert_eq!(with(&|config| config.confirm = MAX_CONFIRM), Ok(()));
        let error = with(&|config| config.confirm = MAX_CONFIRM + 1).unwrap_err();
        assert_eq!(error, "65 replicas that confirm: require at most 64");
        assert!(with(&|config| config.machines = 0).unwrap_err().contains("at least 1"));
        assert!(with(&|config| config.requests_per_s = 0).unwrap_err().contains("at least 1"));
    }
}
