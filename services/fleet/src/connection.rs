//! One connection to a server: made, used and given up within 250 ms.

use core::time::Duration;
use std::path::Path;
use std::sync::Once;

use keytally_fleet_plan::lease::LEARNING_MS;
use redis::{
    Arg, Client, ClientTlsConfig, Cmd, Connection as Inner, ConnectionAddr, ErrorKind,
    IntoConnectionInfo as _, PubSub, RedisConnectionInfo, RedisError, ServerError, TlsCertificates,
    Value, cmd,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::address::{Endpoint, Topology};
use crate::clock::Steady;
use crate::config::StoreConfig;
use crate::error::FleetError;
use crate::password::PasswordSource;

/// After this long, a connection that is not made is given up.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(250);

/// After this long, a reply that has not arrived is given up, with its connection.
pub const REPLY_TIMEOUT: Duration = Duration::from_millis(250);

/// The shortest and the longest pause before a further connection, each spread by half.
///
/// The longest one is less than the time in which a machine learns: all machines state what they
/// hold and admitted to a store that is back before one of them leases anything.
pub const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];

// The longest pause is half more. An attempt that begins before the store is back fails first.
const _: () = assert!(PAUSES[1].as_millis() * 3 / 2 < LEARNING_MS as u128);

/// What all connections to the servers of a store have in common.
#[derive(Debug)]
pub(crate) struct Access {
    is_tls: bool,
    user: Option<String>,
    database: u32,
    password: Option<PasswordSource>,
    certificates: TlsCertificates,
}

impl Access {
    /// How to connect to the servers of a store. Reads the files of certificates.
    pub(crate) fn of_servers(store: &StoreConfig) -> Result<Self, FleetError> {
        let root_cert = store.ca_file.as_ref().map(|path| trusted(path)).transpose()?;
        let client_tls = match &store.client_certificate {
            None => None,
            Some((certificate, key)) => Some(ClientTlsConfig {
                client_cert: certificates(certificate)?,
                client_key: private_key(key)?,
            }),
        };
        if !store.url.is_tls && (root_cert.is_some() || client_tls.is_some()) {
            return Err(FleetError::refused(format!(
                "{} is a store without TLS, and certificates are named: begin its URL with \
                 `rediss`, or name none",
                store.url
            )));
        }
        // Agents of several stores may share their environment. A file is named for this store.
        if !matches!(store.url.topology, Topology::Sentinel { .. })
            && matches!(store.sentinel_password, Some(PasswordSource::File(_)))
        {
            return Err(FleetError::refused(format!(
                "{} is a store without Sentinels, and a password of them is named: begin its URL \
                 with `{}+sentinel`, or name none",
                store.url,
                if store.url.is_tls { "rediss" } else { "redis" }
            )));
        }
        Ok(Self {
            is_tls: store.url.is_tls,
            user: store.url.user.clone(),
            database: store.url.database,
            password: store.password.clone(),
            certificates: TlsCertificates { client_tls, root_cert },
        })
    }

    /// How to connect to the Sentinels of a store.
    pub(crate) fn of_sentinels(store: &StoreConfig) -> Result<Self, FleetError> {
        let servers = Self::of_servers(store)?;
        let password = store.sentinel_password.clone();
        Ok(Self { user: None, database: 0, password, ..servers })
    }
}

impl StoreConfig {
    /// Refuses a store whose files of passwords and certificates cannot be used. An agent reads
    /// them only when it connects, and one that stands by connects when it leads.
    ///
    /// # Errors
    /// [`FleetError::Refused`], which names the file.
    pub fn verify(&self) -> Result<(), FleetError> {
        for password in self.password.iter().chain(&self.sentinel_password) {
            password.read()?;
        }
        Access::of_servers(self).map(drop)
    }
}

/// A connection to one server.
pub(crate) struct Connection {
    inner: Inner,
    endpoint: Endpoint,
}

impl core::fmt::Debug for Connection {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Connection").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects, and signs in.
    pub(crate) fn open(endpoint: &Endpoint, access: &Access) -> Result<Self, FleetError> {
        let failed = |error: RedisError| match (&access.user, &access.password) {
            (Some(user), None) if is_wrong_password(&error) => FleetError::refused(format!(
                "the store at {endpoint} refuses the user {user} without a password: name a file \
                 with its password, or put it into the environment"
            )),
            _ => explained(endpoint, &error),
        };
        let address = match endpoint {
            Endpoint::Tcp(host, port) if access.is_tls => {
                provide_cryptography();
                let (host, port) = (host.clone(), *port);
                ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
            }
            Endpoint::Tcp(host, port) => ConnectionAddr::Tcp(host.clone(), *port),
            Endpoint::Unix(path) => ConnectionAddr::Unix(path.clone()),
        };
        // The name of the library would need a right that the agent does not have.
        let mut settings = RedisConnectionInfo::default().set_skip_set_lib_name();
        settings = settings.set_db(access.database.into());
        if let Some(user) = &access.user {
            // Without a password, the client would not send the user, and the store would use its
            // default user. A user with `nopass` has any password.
            settings = settings.set_username(user).set_password("");
        }
        if let Some(password) = &access.password {
            settings = settings.set_password(password.read()?.as_str());
        }
        let info = address.into_connection_info().map_err(failed)?;
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let info = info.set_redis_settings(settings).set_tcp_settings(tcp);
        let client = if access.is_tls {
            Client::build_with_tls(info, access.certificates.clone())
        } else {
            Client::open(info)
        };
        let client = client.map_err(failed)?;
        let inner = client.get_connection_with_timeout(CONNECT_TIMEOUT).map_err(failed)?;
        inner.set_read_timeout(Some(REPLY_TIMEOUT)).map_err(failed)?;
        inner.set_write_timeout(Some(REPLY_TIMEOUT)).map_err(failed)?;
        Ok(Self { inner, endpoint: endpoint.clone() })
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sends commands.
    pub(crate) fn send(&mut self, commands: &[u8]) -> Result<(), FleetError> {
        self.inner.send_packed_command(commands).map_err(|error| explained(&self.endpoint, &error))
    }

    /// Receives the next reply, which may be an error of the server. `since` is when the first of
    /// the commands was sent: after twice [`REPLY_TIMEOUT`], a server that sends some bytes now and
    /// then is given up too.
    pub(crate) fn receive(&mut self, since: &Steady) -> Result<Value, FleetError> {
        if since.elapsed() > 2 * REPLY_TIMEOUT {
            let endpoint = &self.endpoint;
            return Err(FleetError::lost(format!("the store at {endpoint} does not answer")));
        }
        self.inner.recv_response().map_err(|error| explained(&self.endpoint, &error))
    }

    /// Sends one command, and receives its reply.
    pub(crate) fn query(&mut self, command: &Cmd) -> Result<Value, FleetError> {
        self.send(&command.get_packed_command())?;
        match self.receive(&Steady::start())? {
            Value::ServerError(error) => Err(explained(&self.endpoint, &error.into())),
            value => Ok(value),
        }
    }

    /// Sends commands, and returns the rights for them that the user lacks, as `ACL SETUSER` takes
    /// them.
    pub(crate) fn lacking_rights(&mut self, commands: &[Cmd]) -> Result<Vec<String>, FleetError> {
        let since = Steady::start();
        let mut bytes = Vec::new();
        commands.iter().for_each(|command| command.write_packed_command(&mut bytes));
        self.send(&bytes)?;
        let mut lacking = Vec::new();
        for command in commands {
            if let Value::ServerError(error) = self.receive(&since)? {
                lacking.extend(lacking_right(&error, command));
            }
        }
        Ok(lacking)
    }

    /// Loads a script, and returns the digest by which it is called.
    pub(crate) fn load(&mut self, script: &str) -> Result<String, FleetError> {
        let reply = self.query(cmd("SCRIPT").arg("LOAD").arg(script))?;
        text(&reply).ok_or_else(|| self.unintelligible("SCRIPT LOAD"))
    }

    /// Subscribes to channels. Messages are received by the result, with this timeout.
    pub(crate) fn subscribe(
        &mut self,
        channels: &[String],
        timeout: Duration,
    ) -> Result<PubSub<'_>, FleetError> {
        let endpoint = &self.endpoint;
        let failed = |error: RedisError| explained(endpoint, &error);
        let mut messages = self.inner.as_pubsub();
        messages.subscribe(channels).map_err(failed)?;
        messages.set_read_timeout(Some(timeout)).map_err(failed)?;
        Ok(messages)
    }

    /// An error for a reply that no server sends.
    pub(crate) fn unintelligible(&self, command: &str) -> FleetError {
        let endpoint = &self.endpoint;
        FleetError::lost(format!("the store at {endpoint} sent no reply of {command}"))
    }
}

/// Reads the certificates that TLS trusts from a file in PEM.
fn trusted(path: &Path) -> Result<Vec<u8>, FleetError> {
    let text = certificates(path)?;
    let mut trusted = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text).flatten() {
        trusted.add(certificate).map_err(|why| refused_file(path, &why))?;
    }
    Ok(text)
}

/// Reads the certificates of a file in PEM.
fn certificates(path: &Path) -> Result<Vec<u8>, FleetError> {
    let text = read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match all {
        Ok(all) if all.is_empty() => Err(refused_file(path, &"it has no certificate in PEM")),
        Ok(_) => Ok(text),
        Err(why) => Err(refused_file(path, &why)),
    }
}

/// Reads the private key of a file in PEM.
fn private_key(path: &Path) -> Result<Vec<u8>, FleetError> {
    let text = read(path)?;
    match PrivateKeyDer::from_pem_slice(&text) {
        Ok(_) => Ok(text),
        Err(_) => Err(refused_file(path, &"it has no private key in PEM")),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, FleetError> {
    std::fs::read(path).map_err(|why| refused_file(path, &format_args!("it cannot be read: {why}")))
}

fn refused_file(path: &Path, why: &dyn core::fmt::Display) -> FleetError {
    FleetError::refused(format!("{}, a file for TLS: {why}", path.display()))
}

/// Returns the right whose lack is the error, as `ACL SETUSER` takes it.
fn lacking_right(error: &ServerError, command: &Cmd) -> Option<String> {
    let detail = (error.code() == "NOPERM").then(|| error.details().unwrap_or_default())?;
    let is_of = |what: &str| detail.contains(what) && !detail.contains("to run the");
    if is_of("channel") {
        return Some("&kt:*".to_owned());
    }
    if is_of("key") {
        return Some("~kt:*".to_owned());
    }
    let name = command.args_iter().next();
    let Some(Arg::Simple(name)) = name else { return None };
    Some(format!("+{}", String::from_utf8_lossy(name).to_lowercase()))
}

/// Returns the text of a reply.
pub(crate) fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        Value::VerbatimString { text, .. } => Some(text.clone()),
        _ => None,
    }
}

/// Returns what an error means to the operator.
pub(crate) fn explained(endpoint: &Endpoint, error: &RedisError) -> FleetError {
    let detail = error.detail().unwrap_or_default();
    let at = format!("the store at {endpoint}");
    match (error.kind(), error.code()) {
        _ if is_wrong_password(error) => {
            FleetError::refused(format!("{at} refuses the user or the password"))
        }
        (_, Some("NOAUTH")) => FleetError::refused(format!("{at} needs a password")),
        (_, Some("NOPERM")) => {
            FleetError::refused(format!("{at} gives the agent's user too few rights: {detail}"))
        }
        (ErrorKind::InvalidClientConfig, _) => FleetError::refused(format!("{at}: {error}")),
        (ErrorKind::Parse, _) => FleetError::refused(format!(
            "{at} does not speak the protocol of Redis: name the port of a Redis or Valkey"
        )),
        _ if error.is_timeout() => FleetError::lost(format!("{at} does not answer")),
        _ if is_invalid_certificate(error) => {
            FleetError::refused(format!("the certificate of {at} is not accepted: {error}"))
        }
        _ => FleetError::lost(format!("{at}: {error}")),
    }
}

fn is_wrong_password(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed || error.code() == Some("WRONGPASS")
}

/// Returns whether TLS has found the server's certificate invalid, or the server that of the
/// client.
fn is_invalid_certificate(error: &RedisError) -> bool {
    error.is_io_error() && error.to_string().to_ascii_lowercase().contains("certificate")
}

/// Sets the library for cryptography of TLS, once.
fn provide_cryptography() {
    static PROVIDED: Once = Once::new();
    PROVIDED.call_once(|| {
        // Another part of the process may have set one, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
