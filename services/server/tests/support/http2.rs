//! HTTP/2 frames (RFC 9113), for sequences that ordinary clients do not send.

use core::net::SocketAddr;
use core::time::Duration;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

/// The service's maximum number of HTTP/2 connections.
pub const MAX_CONNECTIONS: usize = 64;

/// Error codes.
pub const REFUSED_STREAM: u32 = 7;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// Encodes a frame: length, type, flags, stream, payload.
///
/// The tests use these types: 1 `HEADERS`, 3 `RST_STREAM`, 4 `SETTINGS`, 6 `PING`, 9
/// `CONTINUATION`. Flag 1 ends the stream, flag 4 ends the head.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Encodes the preface of a client that sets the flow-control window of streams, in bytes.
pub fn preface(window: u32) -> Vec<u8> {
    let setting = [&[0, 4], &window.to_be_bytes()[..]].concat();
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(4, 0, 0, &setting)[..]].concat()
}

/// Encodes the fields of a request for `path`: method, scheme, path and authority (RFC 7541).
pub fn request(path: &str) -> Vec<u8> {
    let len = u8::try_from(path.len()).unwrap();
    [&[0x82, 0x86, 0x04, len], path.as_bytes(), &[0x01, 4], b"test"].concat()
}

/// Encodes a complete request on the stream with this number, counted from 0.
pub fn get(number: u32, path: &str) -> Vec<u8> {
    frame(1, 5, 2 * number + 1, &request(path))
}

/// A connection.
#[derive(Debug)]
pub struct Http2 {
    pub stream: TcpStream,
}

/// A frame that was received.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Http2 {
    /// Connects and sends the preface with this flow-control window.
    pub fn to(address: SocketAddr, window: u32) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(&preface(window)).unwrap();
        Self { stream }
    }

    /// Sends these bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Reads frames until one matches.
    pub fn await_frame(&mut self, matches: impl Fn(&Frame) -> bool) -> Frame {
        loop {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).expect("the connection ended before the frame");
            let number =
                |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
            let mut payload = vec![0; usize::try_from(number(&head[..3])).unwrap()];
            self.stream.read_exact(&mut payload).expect("the connection ended in a frame");
            let frame = Frame { kind: head[3], stream: number(&head[5..]), payload };
            if matches(&frame) {
                return frame;
            }
        }
    }

    /// Reads until the connection ends.
    pub fn await_end(&mut self) {
        match self.stream.read_to_end(&mut Vec::new()) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
}

impl Frame {
    /// Returns the error code of a `RST_STREAM` frame.
    pub fn code(&self) -> u32 {
        u32::from_be_bytes(self.payload[..4].try_into().unwrap())
    }

    /// Returns the error code of a `GOAWAY` frame.
    pub fn goaway_code(&self) -> u32 {
        u32::from_be_bytes(self.payload[4..8].try_into().unwrap())
    }
}
