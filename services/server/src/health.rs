//! The command `health`: whether a service answers. An image without curl needs it.

use core::time::Duration;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
#[cfg(unix)]
use std::os::unix::net::UnixStream;

use clap::Args;
use keytally_cli::internal::{Failure, Status, value_parser};

use crate::serve::{LISTEN_VARIABLE, reachable};
use crate::service::bind::{parse_address, passed_name};

/// How long a connection, and each part of the exchange, may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The request. The response ends with the connection.
const REQUEST: &[u8] = b"GET /healthz HTTP/1.0\r\n\r\n";

/// The beginning of the response of a service that works.
const EXPECTED: &[u8; 13] = b"HTTP/1.0 200 ";

/// Request /healthz of a service, and report by the exit status whether it answers
///
/// The exit status is 0 if the response has the status 200, and 3 otherwise. It is the health check
/// of a container whose image has no other programs.
#[derive(Args)]
pub(crate) struct Health {
    /// Where the service listens: the value of its --listen
    #[arg(value_name = "ADDRESS", default_value = "127.0.0.1:8080", env = LISTEN_VARIABLE, hide_env_values = true, value_parser = value_parser(parse_reachable))]
    address: String,
}

impl Health {
    /// Requests `/healthz` once.
    pub(crate) fn run(self) -> Result<Status, Failure> {
        let address = &self.address;
        match request(address) {
            Ok(head) if head == *EXPECTED => Ok(Status::Success),
            Ok(head) if head.starts_with(b"HTTP/") => {
                Err(Failure::new(format!("the server at {address} is not a service")))
            }
            Ok(_) => Err(Failure::new(no_http(address))),
            Err(error) => Err(Failure::new(match error.kind() {
                // A socket reports the first on Unix, and the second on Windows.
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    let limit = TIMEOUT.as_secs();
                    format!("no service answers at {address}: it did not respond within {limit} s")
                }
                io::ErrorKind::UnexpectedEof => no_http(address),
                _ => format!("no service answers at {address}: {error}"),
            })),
        }
    }
}

/// Returns the sentence on a server that sends something else, or less than a response.
fn no_http(address: &str) -> String {
    format!("the server at {address} is not a service: its response is not HTTP")
}

/// Checks the syntax of an address to connect to. A socket that systemd passes has none.
fn parse_reachable(text: &str) -> Result<String, String> {
    let address = parse_address(text)?;
    if passed_name(&address).is_some() {
        return Err(format!(
            "{address:?} names a socket that systemd passes to a service, and nothing can connect \
             to that name; write the address or path of the socket unit, such as 127.0.0.1:8080, \
             [::1]:8080 or unix:/run/keytally.socket"
        ));
    }
    Ok(address)
}

/// Returns the first bytes of the response.
fn request(address: &str) -> io::Result<[u8; EXPECTED.len()]> {
    match address.strip_prefix("unix:") {
        #[cfg(unix)]
        Some(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            exchange(stream)
        }
        #[cfg(windows)]
        Some(_) => Err(io::ErrorKind::Unsupported.into()),
        None => {
            let mut last = io::Error::from(io::ErrorKind::NotFound);
            for address in address.to_socket_addrs()? {
                match TcpStream::connect_timeout(&reachable(address), TIMEOUT) {
                    Ok(stream) => {
                        stream.set_read_timeout(Some(TIMEOUT))?;
                        stream.set_write_timeout(Some(TIMEOUT))?;
                        return exchange(stream);
                    }
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
    }
}

/// Sends the request, and reads the beginning of the response.
fn exchange(mut stream: impl Read + Write) -> io::Result<[u8; EXPECTED.len()]> {
    stream.write_all(REQUEST)?;
    let mut head = [0; EXPECTED.len()];
    stream.read_exact(&mut head)?;
    Ok(head)
}
