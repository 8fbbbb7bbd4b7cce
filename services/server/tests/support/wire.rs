//! An HTTP/1 client that sends exact bytes and keeps every header of a response.

use core::net::SocketAddr;
use core::time::Duration;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A connection.
#[derive(Debug)]
pub struct Wire<S = TcpStream> {
    stream: BufReader<S>,
}

/// Connects with a small receive buffer, so that the service can send little ahead.
pub fn narrow_connection(address: SocketAddr) -> TcpStream {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};
    // Without CLOEXEC, a service that another test starts meanwhile would inherit the socket.
    let socket =
        socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    sockopt::set_socket_recv_buffer_size(&socket, 2048).unwrap();
    connect(&socket, &address).unwrap();
    TcpStream::from(socket)
}

/// A response, with its header names in their letter case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Wire<TcpStream> {
    /// Connects to a service.
    pub fn to(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    /// Uses a connection that is already open.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }
}

impl Wire<UnixStream> {
    /// Connects to a service on a Unix socket.
    pub fn to_socket(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { stream: BufReader::new(stream) }
    }
}

impl<S: Read + Write> Wire<S> {
    /// Returns the stream.
    pub fn stream(&mut self) -> &mut S {
        self.stream.get_mut()
    }

    /// Sends these bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    /// Sends a request with these header lines and reads the response.
    pub fn request(&mut self, request: &str, lines: &[&[u8]]) -> Reply {
        let mut bytes = format!("{request} HTTP/1.1\r\nHost: test\r\n").into_bytes();
        for line in lines {
            bytes.extend(*line);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"\r\n");
        self.send(&bytes);
        self.read(request.starts_with("HEAD")).expect("the connection ended before the response")
    }

    /// Reads one response; `bodiless` is for that to `HEAD`. Returns `None` if the connection ends
    /// first.
    pub fn read(&mut self, bodiless: bool) -> Option<Reply> {
        let mut line = || {
            let mut line = String::new();
            self.stream.read_line(&mut line).unwrap();
            if line.is_empty() {
                return None;
            }
            Some(line.strip_suffix("\r\n").expect("the connection ended in a head").to_owned())
        };
        let status = line()?;
        let mut headers = Vec::new();
        loop {
            let line = line().expect("the connection ended in a head");
            let Some((name, value)) = line.split_once(": ") else {
                assert_eq!(line, "");
                break;
            };
            headers.push((name.to_owned(), value.to_owned()));
        }
        let mut reply = Reply { status, headers, body: String::new() };
        // HAProxy writes names in lower case.
        let is_len = |name: &str| name.eq_ignore_ascii_case("Content-Length");
        let len = reply.headers.iter().find(|(name, _)| is_len(name));
        let len: usize = len.expect("no Content-Length").1.parse().unwrap();
        let mut body = vec![0; if bodiless { 0 } else { len }];
        self.stream.read_exact(&mut body).expect("the connection ended in a body");
        reply.body = String::from_utf8(body).unwrap();
        Some(reply)
    }

    /// Returns whether the service ended the connection without sending more.
    pub fn ended(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0))
    }
}

impl Reply {
    /// Returns the only value of a header, and asserts the letter case of its name.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let mut values = self.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        let (exact, value) = values.next().unwrap_or_else(|| panic!("{name} is not in {self:?}"));
        assert_eq!(values.next(), None, "{name} is sent twice");
        assert_eq!(exact, name);
        value
    }

    /// Returns whether the response has this header.
    pub fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name))
    }

    /// Returns the number of the status.
    pub fn code(&self) -> u16 {
        self.status.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// Parses the body, and asserts its content type.
    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.header("Content-Type"), "application/json");
        serde_json::from_str(&self.body).unwrap()
    }

    /// Returns the reply without its `Date` header.
    pub fn without_date(mut self) -> Self {
        self.headers.retain(|(name, _)| name != "Date");
        self
    }
}
