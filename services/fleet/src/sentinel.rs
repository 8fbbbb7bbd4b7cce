//! Which server the Sentinels name as the primary of a group.

use redis::{Value, cmd};

use crate::address::Endpoint;
use crate::connection::{Access, Connection, text};
use crate::error::FleetError;

/// Queries the Sentinels one after the other, until one names the primary.
pub(crate) fn primary(
    sentinels: &[Endpoint],
    group: &str,
    access: &Access,
) -> Result<Endpoint, FleetError> {
    let mut problem = FleetError::refused("the store's URL names no Sentinel");
    for sentinel in sentinels {
        match query(sentinel, group, access) {
            Ok(primary) => return Ok(primary),
            Err(error) => problem = error,
        }
    }
    Err(problem)
}

fn query(sentinel: &Endpoint, group: &str, access: &Access) -> Result<Endpoint, FleetError> {
    let mut connection = Connection::open(sentinel, access)?;
    let reply = connection.query(cmd("SENTINEL").arg("get-master-addr-by-name").arg(group))?;
    if reply == Value::Nil {
        let sentence = format!("the Sentinel at {sentinel} knows no group `{group}`");
        return Err(FleetError::refused(sentence));
    }
    parse_primary(&reply).ok_or_else(|| connection.unintelligible("SENTINEL"))
}

/// Reads the address of a primary.
pub(crate) fn parse_primary(reply: &Value) -> Option<Endpoint> {
    let Value::Array(parts) = reply else { return None };
    let [host, port] = &parts[..] else { return None };
    Some(Endpoint::Tcp(text(host)?, text(port)?.parse().ok()?))
}
