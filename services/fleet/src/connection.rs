//! One connection to a server: made, used and given up within 250 ms.

use core::time::Duration;
use std::sync::Once;

use keytally_fleet_plan::lease::LEARNING_MS;
use redis::{
    Arg, Client, ClientTlsConfig, Cmd, Connection as Inner, ConnectionAddr, ErrorKind,
    IntoConnectionInfo as _, PubSub, RedisConnectionInfo, RedisError, ServerError, TlsCertificates,
    Value, cmd,
};

use crate::address::Endpoint;
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
        let read = |path: &std::path::PathBuf| {
            std::fs::read(path).map_err(|why| {
                let path = path.display();
                FleetError::refused(format!(
                    "the file {path} of certificates cannot be read: {why}"
                ))
            })
        };
        let root_cert = store.ca_file.as_ref().map(read).transpose()?;
        let client_tls = match &store.client_certificate {
            None => None,
            Some((certificate, key)) => {
                Some(ClientTlsConfig { client_cert: read(certificate)?, client_key: read(key)? })
            }
        };
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
        let failed = |error: RedisError| explained(endpoint, &error);
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
            settings = settings.set_username(user);
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
        (ErrorKind::AuthenticationFailed, _) | (_, Some("WRONGPASS")) => {
            FleetError::refused(format!("{at} refuses the user or the password"))
        }
        (_, Some("NOAUTH")) => FleetError::refused(format!("{at} needs a password")),
        (_, Some("NOPERM")) => {
            FleetError::refused(format!("{at} gives the agent's user too few rights: {detail}"))
        }
        (ErrorKind::InvalidClientConfig, _) => FleetError::refused(format!("{at}: {error}")),
        _ if error.is_timeout() => FleetError::lost(format!("{at} does not answer")),
        _ if is_invalid_certificate(error) => {
            FleetError::refused(format!("the certificate of {at} is not accepted: {error}"))
        }
        _ => FleetError::lost(format!("{at}: {error}")),
    }
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
