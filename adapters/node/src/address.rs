//! Client addresses, and the subjects by which limiters count them: see `docs/ADDRESSES.md`.

use core::net::{IpAddr, Ipv6Addr};

use keytally::embedded_ipv4;
use napi_derive::napi;

/// Parses an address without its port, brackets and zone. An IPv4-mapped address becomes the IPv4
/// address, in which form a socket of both families reports peers.
fn parse(text: &str) -> Option<IpAddr> {
    let is_port = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let inner = match text.strip_prefix('[') {
        Some(rest) => {
            let (inner, port) = rest.split_once(']')?;
            let is_bare = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            is_bare.then_some(inner)?
        }
        // An IPv6 address has several colons.
        None => match text.split_once(':') {
            Some((address, port)) if is_port(port) => address,
            _ => text,
        },
    };
    let address = inner.split_once('%').map_or(inner, |(address, _)| address);
    address.parse().ok().map(|address: IpAddr| address.to_canonical())
}

/// Returns the address in a text; nothing if it is not one.
#[napi(catch_unwind)]
pub(crate) fn address_of(text: String) -> Option<String> {
    parse(&text).map(|address| address.to_string())
}

/// Returns the subject that a limiter counts for the address in a text: an IPv4 address, or an IPv6
/// network with this prefix. Returns nothing if the text is not an address.
#[napi(catch_unwind)]
pub(crate) fn address_subject(text: String, ipv6_prefix: u32) -> Option<String> {
    let ipv6 = match parse(&text)? {
        IpAddr::V4(address) => return Some(address.to_string()),
        IpAddr::V6(address) => address,
    };
    if let Some(address) = embedded_ipv4(ipv6) {
        return Some(address.to_string());
    }
    let prefix = ipv6_prefix.clamp(1, 128);
    let network = Ipv6Addr::from_bits(ipv6.to_bits() & u128::MAX << (128 - prefix));
    Some(format!("{network}/{prefix}"))
}
