//! The options that name the fleet and its store.

use std::env;
use std::path::PathBuf;

use clap::Args;
use keytally_cli::internal::{Failure, path_parser, value_parser};
use keytally_fleet::{FleetConfig, FleetError, OnLoss, PasswordSource, StoreConfig, StoreUrl};

/// The environment variable that holds the password of the store.
const PASSWORD: &str = "KEYTALLY_STORE_PASSWORD";

/// The environment variable that holds the password of the Sentinels.
const SENTINEL_PASSWORD: &str = "KEYTALLY_SENTINEL_PASSWORD";

/// The options that name the fleet and its store.
#[derive(Args, Debug)]
pub(crate) struct StoreOptions {
    /// Name of the fleet, the same on all machines: 1 to 32 letters, digits, `.`, `_` and `-`
    #[arg(long = "fleet", value_name = "NAME", value_parser = value_parser(parse_name))]
    name: String,
    /// Redis 6.2 or Valkey 7.2, or a later version, that the machines share: redis:// or rediss://
    /// (with TLS) and HOST:PORT, unix:///PATH, redis+sentinel://HOST,HOST/GROUP, or
    /// redis+cluster://HOST,HOST. A user is written as USER@ before the host. The password is in
    /// --password-file, or in the environment variable KEYTALLY_STORE_PASSWORD. Only a user that
    /// has nopass in the store needs none
    #[arg(long = "store", value_name = "URL", value_parser = value_parser(parse_url))]
    url: StoreUrl,
    /// File whose first line is the password of the store. No other user may have access to it,
    /// except to read a file of root. It is read at each connection
    #[arg(long, value_name = "FILE", value_parser = path_parser())]
    password_file: Option<PathBuf>,
    /// File whose first line is the password of the Sentinels, as for --password-file. Without it,
    /// the environment variable KEYTALLY_SENTINEL_PASSWORD may hold the password
    #[arg(long, value_name = "FILE", value_parser = path_parser())]
    sentinel_password_file: Option<PathBuf>,
    /// File of the certificates that TLS trusts, in PEM [default: those of the system]
    #[arg(long, value_name = "FILE", value_parser = path_parser())]
    ca_file: Option<PathBuf>,
    /// File of the certificate that the store requires of its clients, in PEM
    #[arg(long, value_name = "FILE", requires = "client_key", value_parser = path_parser())]
    client_certificate: Option<PathBuf>,
    /// File of the key of --client-certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "client_certificate", value_parser = path_parser())]
    client_key: Option<PathBuf>,
    /// Accept a store that evicts keys. Then a window may admit its limit again each time that the
    /// store evicts its count
    #[arg(long)]
    allow_eviction: bool,
}

/// Parses the value of `--fleet`.
fn parse_name(text: &str) -> Result<String, String> {
    let store = parse_url("redis://store")?;
    let config = FleetConfig::new(text, StoreConfig::new(store), OnLoss::Closed);
    config.verify().map(|()| text.to_owned()).map_err(|error| error.to_string())
}

/// Parses the value of `--store`. No error repeats a part of it, which may be a password.
fn parse_url(text: &str) -> Result<StoreUrl, String> {
    text.parse().map_err(|error: FleetError| error.to_string())
}

/// Returns where a password is: in the file or, if it is set, in the variable.
fn password(file: Option<&PathBuf>, variable: &str) -> Option<PasswordSource> {
    let is_set = env::var_os(variable).is_some_and(|text| !text.is_empty());
    match file {
        Some(file) => Some(PasswordSource::File(file.clone())),
        None => is_set.then(|| PasswordSource::Environment(variable.to_owned())),
    }
}

impl StoreOptions {
    /// Returns the name of the fleet.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the store.
    pub(crate) fn config(&self) -> StoreConfig {
        StoreConfig {
            password: password(self.password_file.as_ref(), PASSWORD),
            sentinel_password: password(self.sentinel_password_file.as_ref(), SENTINEL_PASSWORD),
            ca_file: self.ca_file.clone(),
            client_certificate: self.client_certificate.clone().zip(self.client_key.clone()),
            allow_eviction: self.allow_eviction,
            ..StoreConfig::new(self.url.clone())
        }
    }
}

/// Returns the failure of an agent or of an exchange with the store.
pub(crate) fn failure(error: &FleetError) -> Failure {
    Failure::new(error.to_string())
}
