//! The list of keys in the service: its options, and when it is served.

use std::path::{self, Path};
use std::{env, io};

use clap::Args;
use keytally_cli::internal::{Failure, value_parser};
use keytally_keys::command::DATABASE_VARIABLE;
use keytally_keys::page::LinkCommand;
use keytally_keys::public_url;

use crate::service::bind::{Listener, Sockets, parse_address};
use crate::shell::SHELL;

/// The options of the list of keys.
#[derive(Args)]
pub(crate) struct KeysOptions {
    /// Serve the list of keys below /keys, with its page and its JSON API: on, off, or a separate
    /// address for it in the form of --listen. An address that other machines can reach needs a
    /// --public-url with https, and a Unix socket a --public-url [default: on with a loopback
    /// address or a URL with https, else off]
    #[arg(long = "keys", value_name = "on|off|ADDRESS", value_parser = value_parser(parse_served))]
    served: Option<Served>,
    /// URL of the list of keys as people see it, for links, such as `https://api.example.com`
    /// [default: that of its listener, with the name localhost for a loopback address]
    #[arg(long, value_name = "URL", value_parser = value_parser(public_url::parse))]
    public_url: Option<String>,
    /// Path before /keys for the page of keys, such as /internal, for a proxy that serves the
    /// service below it [default: none]
    #[arg(long, value_name = "PATH", default_value = "", hide_default_value = true, value_parser = value_parser(public_url::parse_path))]
    pub(crate) base_path: String,
    /// Database of the list of keys: sqlite: and the path of a file, or
    /// `postgres://USER@HOST/NAME`. Keep a password out of the arguments: set this by
    /// KEYTALLY_DATABASE, or the password by PGPASSWORD [default: keys.db in the folder of --data]
    #[arg(long, value_name = "URL", env = DATABASE_VARIABLE, hide_env_values = true)]
    pub(crate) database: Option<String>,
    /// Count how each key is used, for the list of keys: on or off. Every process that has the gate
    /// open then begins to count, or ends it, as with keytally usage [default: on, unless keytally
    /// usage off ended it]
    #[arg(long, value_name = "SWITCH", value_parser = value_parser(parse_switch))]
    pub(crate) usage: Option<bool>,
}

/// Where the list of keys is served.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Served {
    Nowhere,
    /// At `--listen`.
    WithTheApi,
    /// At a separate address.
    At(String),
}

/// Parses the value of `--keys`.
fn parse_served(text: &str) -> Result<Served, String> {
    match text {
        "on" => Ok(Served::WithTheApi),
        "off" => Ok(Served::Nowhere),
        _ => match parse_address(text) {
            Ok(address) => Ok(Served::At(address)),
            Err(error) => Err(format!("it must be on, off or an address: {error}")),
        },
    }
}

/// Parses the value of `--usage`.
fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("it must be on or off".to_owned()),
    }
}

impl KeysOptions {
    /// Refuses options of a list that is not served.
    ///
    /// # Errors
    /// A usage error.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.served != Some(Served::Nowhere) {
            return Ok(());
        }
        // The variable may be set for other commands.
        let is_of_variable = env::var(DATABASE_VARIABLE).ok() == self.database;
        let option = match (&self.database, self.usage) {
            (Some(_), _) if !is_of_variable => "--database",
            (_, Some(_)) => "--usage",
            _ => return Ok(()),
        };
        Err(Failure::usage(format!("{option}: with --keys off there is no list of keys; omit one")))
    }

    /// Binds the separate listener of the list, if it has one.
    pub(crate) async fn bind(&self, sockets: &mut Sockets) -> Result<Option<Listener>, Failure> {
        match &self.served {
            Some(Served::At(address)) => Listener::bind("--keys", address, sockets).await.map(Some),
            _ => Ok(None),
        }
    }

    /// Returns the command that makes a link to the page, which works in any folder of this
    /// machine. It has no secret: what has one stays in the environment.
    ///
    /// # Errors
    /// If the working folder of the service was removed.
    pub(crate) fn link_command(
        &self,
        program: &Path,
        data: &Path,
        pepper: Option<&Path>,
    ) -> io::Result<LinkCommand> {
        let is_found = program.components().nth(1).is_none();
        let program = if is_found { program.to_owned() } else { path::absolute(program)? };
        let mut line = format!(
            "{} keys link --data {}",
            SHELL.word(program.display()),
            SHELL.word(path::absolute(data)?.display())
        );
        let mut variables = Vec::new();
        match pepper {
            Some(pepper) => {
                let pepper = path::absolute(pepper)?;
                line.push_str(&format!(" --pepper-file {}", SHELL.word(pepper.display())));
            }
            None => variables.push("KEYTALLY_PEPPER"),
        }
        let is_of_variable = env::var(DATABASE_VARIABLE).ok() == self.database;
        match self.database.as_deref() {
            None => {}
            Some(url) if is_of_variable || has_password(url) => variables.push(DATABASE_VARIABLE),
            Some(url) => {
                let url = match url.strip_prefix("sqlite:") {
                    Some(file) => format!("sqlite:{}", path::absolute(file)?.display()),
                    None => url.to_owned(),
                };
                line.push_str(&format!(" --database {}", SHELL.word(url)));
            }
        }
        if self.database.is_some() && env::var_os("PGPASSWORD").is_some() {
            variables.push("PGPASSWORD");
        }
        Ok(LinkCommand { line, variables })
    }

    /// Returns the URL of the list as people see it, or `None` if it is not served. `listener` is
    /// where it would be served.
    ///
    /// # Errors
    /// A usage error if the list would be served to other machines without TLS, or at a Unix
    /// socket, which has no URL.
    pub(crate) fn public_url(&self, listener: &Listener) -> Result<Option<String>, Failure> {
        let address = listener.tcp_address();
        let is_https = self.public_url.as_ref().is_some_and(|url| url.starts_with("https://"));
        let loopback = address.filter(|address| address.ip().is_loopback());
        let is_safe = match &self.public_url {
            // Only processes on this machine reach a Unix socket, but one may be a public proxy.
            Some(_) => is_https || loopback.is_some() || address.is_none(),
            None => loopback.is_some(),
        };
        match &self.served {
            Some(Served::Nowhere) => return Ok(None),
            None if !(is_https || loopback.is_some()) => return Ok(None),
            Some(_) if !is_safe => {
                return Err(Failure::usage(match address {
                    None => "--keys: a Unix socket has no URL for links; name the one that people \
                             use by --public-url"
                        .to_owned(),
                    Some(address) => format!(
                        "--keys: other machines can reach {address}, and a token that is sent \
                         without TLS can be read on its way; put a proxy with TLS before it and \
                         name its URL by --public-url https://…, or use an address of this machine \
                         alone, such as 127.0.0.1:8081"
                    ),
                }));
            }
            _ => {}
        }
        // A cookie of one name is not sent to the other, and passkeys need a name.
        let of_listener = || loopback.map(|address| format!("http://localhost:{}", address.port()));
        Ok(self.public_url.clone().or_else(of_listener))
    }
}

/// Returns whether the URL of a database has a password.
fn has_password(url: &str) -> bool {
    let authority = url.split_once("://").map_or("", |(_, rest)| rest);
    let authority = authority.split(['/', '?']).next().unwrap_or_default();
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    user.contains(':') || url.contains("password=")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_in_a_url_is_found() {
        for (url, is_there) in [
            ("sqlite:/srv/a:b@c.db", false),
            ("postgres://keys@db/keys", false),
            ("postgres://db:5432/keys", false),
            ("postgres://keys:secret@db/keys", true),
            ("postgres://db/keys?user=keys&password=secret", true),
        ] {
            assert_eq!(has_password(url), is_there, "{url}");
        }
    }

    #[test]
    fn list_is_served_at_an_address_or_by_a_switch() {
        assert_eq!(parse_served("on"), Ok(Served::WithTheApi));
        assert_eq!(parse_served("off"), Ok(Served::Nowhere));
        for address in ["127.0.0.1:8081", "[::1]:0", "unix:keys.socket"] {
            assert_eq!(parse_served(address), Ok(Served::At(address.to_owned())));
        }
        for text in ["", "maybe", "On", "8081", "127.0.0.1", "unix:"] {
            let error = parse_served(text).unwrap_err();
            assert!(error.starts_with("it must be on, off or an address: "), "{error}");
        }
    }
}
