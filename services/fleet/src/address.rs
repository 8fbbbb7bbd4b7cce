//! The address of the store: a URL without a password.

use core::fmt;
use core::str::FromStr;
use std::path::PathBuf;

use crate::error::FleetError;

/// The port of Redis and Valkey.
const PORT: u16 = 6379;

/// The port of Sentinel.
const SENTINEL_PORT: u16 = 26379;

/// The most hosts of a URL.
pub const MAX_HOSTS: usize = 16;

/// A host and its port, or the path of a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Endpoint {
    Tcp(String, u16),
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// How the primary is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Topology {
    /// It is at this address.
    Single(Endpoint),
    /// One of these Sentinels knows the primary of the group.
    Sentinel { sentinels: Vec<Endpoint>, group: String },
    /// One of these nodes knows the primaries of all slots.
    Cluster(Vec<Endpoint>),
}

/// The address of the store.
///
/// | URL | store |
/// |---|---|
/// | `redis://[USER@]HOST[:PORT][/DATABASE]` | one server |
/// | `unix:///PATH[?db=DATABASE]`, `unix://USER@/PATH` | one server, by a Unix socket |
/// | `redis+sentinel://[USER@]HOST[:PORT][,HOST…]/GROUP[/DATABASE]` | the primary that Sentinels name |
/// | `redis+cluster://[USER@]HOST[:PORT][,HOST…]` | a cluster |
///
/// With `rediss` instead of `redis`, connections use TLS. A URL with a password is refused: see
/// [`PasswordSource`](crate::PasswordSource).
///
/// ```
/// use keytally_fleet::StoreUrl;
///
/// let url: StoreUrl = "rediss://agent@store.example".parse()?;
/// assert_eq!(url.to_string(), "rediss://agent@store.example:6379");
/// assert!("redis://agent:secret@store.example".parse::<StoreUrl>().is_err());
/// # Ok::<(), keytally_fleet::FleetError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreUrl {
    pub(crate) topology: Topology,
    pub(crate) is_tls: bool,
    pub(crate) user: Option<String>,
    pub(crate) database: u32,
}

impl FromStr for StoreUrl {
    type Err = FleetError;

    fn from_str(text: &str) -> Result<Self, FleetError> {
        let refused = |what: &str| Err(FleetError::refused(format!("the store's URL {what}")));
        let Some((scheme, rest)) = text.split_once("://") else {
            return refused("has no scheme, such as `redis://`");
        };
        let (is_tls, kind) = match scheme {
            "unix" => (false, "unix"),
            _ if scheme.starts_with("rediss") => (true, &scheme["rediss".len()..]),
            _ if scheme.starts_with("redis") => (false, &scheme["redis".len()..]),
            _ => return refused(SCHEMES),
        };
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, Some(path)),
            None => (rest, None),
        };
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, authority),
        };
        if user.is_some_and(|user| user.contains(':')) {
            return refused("has a password: put it into a file or a variable of the environment");
        }
        if user.is_some_and(|user| user.is_empty() || user.contains('%')) {
            return refused("has an empty user, or one with a percent sign");
        }
        let user = user.map(str::to_owned);
        let number = |text: Option<&str>| match text.map(str::parse) {
            None => Ok(0),
            Some(Ok(number)) => Ok(number),
            Some(Err(_)) => Err(FleetError::refused(
                "the store's URL has a database that is not a number".to_owned(),
            )),
        };
        let path = path.filter(|path| !path.is_empty());
        match kind {
            "unix" => {
                let (path, query) = match path.map(|path| path.split_once('?')) {
                    Some(Some((path, query))) => (Some(path), Some(query)),
                    _ => (path, None),
                };
                let Some(path) = path.filter(|_| hosts.is_empty()) else {
                    return refused("needs the absolute path of a socket: `unix:///PATH`");
                };
                let database = match query.map(|query| query.strip_prefix("db=")) {
                    None => 0,
                    Some(Some(database)) => number(Some(database))?,
                    Some(None) => return refused("has a parameter other than `db`"),
                };
                let socket = Endpoint::Unix(format!("/{path}").into());
                Ok(Self { topology: Topology::Single(socket), is_tls, user, database })
            }
            "" => {
                let mut endpoints = endpoints(hosts, PORT)?;
                let Some(endpoint) = endpoints.pop().filter(|_| endpoints.is_empty()) else {
                    return refused(
                        "has several hosts: use `redis+sentinel://` or `redis+cluster://`",
                    );
                };
                let database = number(path)?;
                Ok(Self { topology: Topology::Single(endpoint), is_tls, user, database })
            }
            "+sentinel" => {
                let (group, database) = match path.map(|path| path.split_once('/')) {
                    Some(Some((group, database))) => (Some(group), Some(database)),
                    _ => (path, None),
                };
                let Some(group) = group.filter(|group| !group.is_empty()) else {
                    return refused("names no group: `redis+sentinel://HOST/GROUP`");
                };
                let sentinels = endpoints(hosts, SENTINEL_PORT)?;
                let topology = Topology::Sentinel { sentinels, group: group.to_owned() };
                Ok(Self { topology, is_tls, user, database: number(database)? })
            }
            "+cluster" => {
                if path.is_some() {
                    return refused("has a database, and a cluster has only one");
                }
                let topology = Topology::Cluster(endpoints(hosts, PORT)?);
                Ok(Self { topology, is_tls, user, database: 0 })
            }
            _ => refused(SCHEMES),
        }
    }
}

const SCHEMES: &str = "has an unknown scheme: use `redis`, `rediss`, `redis+sentinel`, \
     `rediss+sentinel`, `redis+cluster`, `rediss+cluster` or `unix`";

/// Reads hosts with optional ports.
fn endpoints(hosts: &str, port: u16) -> Result<Vec<Endpoint>, FleetError> {
    let read = |text: &str| {
        let (host, port) = match text.strip_prefix('[') {
            // An IPv6 address.
            Some(rest) => {
                let (host, after) = rest.split_once(']')?;
                (host, if after.is_empty() { port } else { after.strip_prefix(':')?.parse().ok()? })
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, port.parse().ok()?),
                None => (text, port),
            },
        };
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
        (!host.is_empty() && host.bytes().all(is_host))
            .then(|| Endpoint::Tcp(host.to_owned(), port))
    };
    let all: Option<Vec<_>> = hosts.split(',').map(read).collect();
    match all {
        Some(all) if all.len() <= MAX_HOSTS => Ok(all),
        Some(_) => Err(FleetError::refused(format!("the store's URL has over {MAX_HOSTS} hosts"))),
        None => Err(FleetError::refused(
            "the store's URL has an invalid host or port: write `HOST` or `HOST:PORT`, and an IPv6 \
             address in brackets",
        )),
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "rediss" } else { "redis" };
        let user = self.user.as_ref().map_or(String::new(), |user| format!("{user}@"));
        let list = |endpoints: &[Endpoint]| {
            endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        match &self.topology {
            Topology::Single(Endpoint::Unix(path)) => {
                write!(f, "unix://{user}{}", path.display())?;
                if self.database > 0 {
                    write!(f, "?db={}", self.database)?;
                }
                return Ok(());
            }
            Topology::Single(endpoint) => write!(f, "{scheme}://{user}{endpoint}")?,
            Topology::Sentinel { sentinels, group } => {
                write!(f, "{scheme}+sentinel://{user}{}/{group}", list(sentinels))?;
            }
            Topology::Cluster(nodes) => write!(f, "{scheme}+cluster://{user}{}", list(nodes))?,
        }
        if self.database > 0 {
            write!(f, "/{}", self.database)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_url_is_read_and_written() {
        for (text, written) in [
            ("redis://store", "redis://store:6379"),
            ("redis://agent@10.0.0.1:6380/2", "redis://agent@10.0.0.1:6380/2"),
            ("rediss://[::1]:7000/", "rediss://[::1]:7000"),
            ("unix:///run/valkey.sock", "unix:///run/valkey.sock"),
            ("unix://agent@/run/valkey.sock?db=3", "unix://agent@/run/valkey.sock?db=3"),
            ("redis+sentinel://a,b:1/main", "redis+sentinel://a:26379,b:1/main"),
            ("rediss+sentinel://x@a/main/4", "rediss+sentinel://x@a:26379/main/4"),
            ("redis+cluster://a,b,c:7001", "redis+cluster://a:6379,b:6379,c:7001"),
        ] {
            let url: StoreUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), written);
            assert_eq!(written.parse(), Ok(url), "{text}");
        }
    }

    #[test]
    fn refused_url_is_explained_without_its_password() {
        for (text, why) in [
            ("store:6379", "has no scheme"),
            ("http://store", "unknown scheme"),
            ("redis+ring://store", "unknown scheme"),
            ("redis://agent:sesame@store", "has a password"),
            ("redis://:sesame@store", "has a password"),
            ("unix://agent:sesame@/run/x", "has a password"),
            ("redis://a%40b@store", "percent sign"),
            ("redis://@store", "empty user"),
            ("redis://a,b", "several hosts"),
            ("redis://store:port", "invalid host or port"),
            ("redis://", "invalid host or port"),
            ("redis://[::1", "invalid host or port"),
            ("redis://store/sesame", "not a number"),
            ("unix://store/run/x", "absolute path"),
            ("unix:///run/x?pass=sesame", "parameter other than"),
            ("redis+sentinel://a", "names no group"),
            ("redis+cluster://a/1", "has only one"),
        ] {
            let error = text.parse::<StoreUrl>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
            assert!(!error.contains("sesame"), "{error}");
        }
        let hosts = |count: usize| format!("redis+cluster://{}", vec!["a"; count].join(","));
        assert!(hosts(MAX_HOSTS).parse::<StoreUrl>().is_ok());
        let error = hosts(MAX_HOSTS + 1).parse::<StoreUrl>().unwrap_err();
        assert!(error.to_string().contains("over 16 hosts"));
    }
}
