//! What an agent reads from a store, for a fuzz target. Only with the feature `__replies`.

use keytally_fleet_plan::request::{LeaseRequest, Reply};
use redis::{Parser, Value};

use crate::address::Endpoint;
use crate::connection::{explained, text};
use crate::error::FleetError;
use crate::names::WindowKey;
use crate::sentinel;
use crate::server::Server;
use crate::slots::{SlotMap, redirection, slot};
use crate::store::{parse_reply, parse_time};

/// The replies of a server, one after the other.
#[expect(missing_debug_implementations, reason = "the parser has no such implementation")]
pub struct Replies<'b> {
    parser: Parser,
    bytes: &'b [u8],
}

impl<'b> Replies<'b> {
    /// The replies in these bytes.
    pub fn new(bytes: &'b [u8]) -> Self {
        Self { parser: Parser::new(), bytes }
    }

    /// Reads the next reply as that to every command of an agent, and as a message. Returns what a
    /// lease request gets.
    ///
    /// # Errors
    /// [`FleetError`] if the rest of the bytes is not a reply. An agent then gives the connection
    /// up.
    pub fn read(&mut self, request: Option<&LeaseRequest>) -> Result<Option<Reply>, FleetError> {
        let value = self.parser.parse_value(&mut self.bytes);
        let value = value.map_err(|error| explained(&sender(), &error))?;
        let _ = (parse_time(&value), sentinel::parse_primary(&value));
        if let Some(map) = SlotMap::parse(&value, &sender()) {
            let _ = (map.is_complete(), map.primary_of(slot("kt:{test/k0}")));
        }
        if let Some(text) = text(&value) {
            let _ = (redirection(&text, &sender()), WindowKey::parse("test", &text));
            let server = Server::parse(&text);
            let _ = (server.verify(false, false), server.verify(true, true), server.identity());
        }
        if let Value::ServerError(error) = value {
            let _ = redirection(error.details().unwrap_or_default(), &sender());
            return Err(explained(&sender(), &error.into()));
        }
        Ok(request.and_then(|request| parse_reply(&value, request)))
    }
}

fn sender() -> Endpoint {
    Endpoint::Tcp("store".to_owned(), 6379)
}
