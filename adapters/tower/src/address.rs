//! Client addresses, and the subjects by which limiters count them: see `docs/ADDRESSES.md`.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::io::Write as _;

use http::Extensions;
use keytally::embedded_ipv4;
use smallvec::SmallVec;

/// Returns the subject that a limiter counts for a client: an IPv4 address, or an IPv6 network with
/// this prefix.
///
/// A site has at least a /64, and can use every address in it. An IPv6 address that embeds an IPv4
/// address has the subject of the IPv4 address. `ipv6_prefix` is 1 to 128, and other values count
/// as the nearest of these. The integrations for Python and nginx count the same subjects.
///
/// ```
/// use keytally_tower::address_subject;
/// assert_eq!(address_subject("203.0.113.9".parse()?, 64), "203.0.113.9");
/// assert_eq!(address_subject("2001:db8::a:b:c:d".parse()?, 64), "2001:db8::/64");
/// assert_eq!(address_subject("64:ff9b::203.0.113.9".parse()?, 64), "203.0.113.9");
/// # Ok::<(), core::net::AddrParseError>(())
/// ```
pub fn address_subject(address: IpAddr, ipv6_prefix: u8) -> String {
    subject(address, ipv6_prefix).into_iter().map(char::from).collect()
}

/// What a limiter counts. An IPv4 address and an IPv6 network of 64 bits need no allocation.
pub(crate) type Subject = SmallVec<[u8; 24]>;

/// Returns the text that [`address_subject`] returns.
pub(crate) fn subject(address: IpAddr, ipv6_prefix: u8) -> Subject {
    let mut text = Subject::new();
    let address = match address {
        IpAddr::V4(address) => Err(address),
        IpAddr::V6(address) => embedded_ipv4(address).map_or(Ok(address), Err),
    };
    match address {
        Ok(ipv6) => {
            let prefix = ipv6_prefix.clamp(1, 128);
            let mask = u128::MAX << (128 - u32::from(prefix));
            let network = Ipv6Addr::from_bits(ipv6.to_bits() & mask);
            // Writing into a vector does not fail.
            let _ = write!(text, "{network}/{prefix}");
        }
        Err(ipv4) => push_ipv4(&mut text, ipv4),
    }
    text
}

/// Appends an IPv4 address. `core::fmt` takes eight times as long.
fn push_ipv4(text: &mut Subject, address: Ipv4Addr) {
    for octet in address.octets() {
        if !text.is_empty() {
            text.push(b'.');
        }
        if octet > 99 {
            text.push(b'0' + octet / 100);
        }
        if octet > 9 {
            text.push(b'0' + octet / 10 % 10);
        }
        text.push(b'0' + octet % 10);
    }
}

/// Returns the address of the peer, from the extensions of a request.
pub(crate) fn peer(extensions: &Extensions) -> Option<IpAddr> {
    #[cfg(feature = "axum")]
    if let Some(axum::extract::ConnectInfo(address)) =
        extensions.get::<axum::extract::ConnectInfo<SocketAddr>>()
    {
        return Some(address.ip());
    }
    let address = extensions.get::<SocketAddr>().map(SocketAddr::ip);
    address.or_else(|| extensions.get::<IpAddr>().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subject_is_an_ipv4_address_or_an_ipv6_network() {
        for (address, prefix, subject) in [
            ("203.0.113.9", 64, "203.0.113.9"),
            ("::ffff:203.0.113.9", 64, "203.0.113.9"),
            ("::ffff:0:203.0.113.9", 64, "203.0.113.9"),
            ("64:ff9b::203.0.113.9", 64, "203.0.113.9"),
            ("::203.0.113.9", 64, "203.0.113.9"),
            ("2002:cb00:7109::1", 64, "203.0.113.9"),
            ("2001:db8::a:b:c:d", 64, "2001:db8::/64"),
            ("2001:db8:0:1ff:a:b:c:d", 56, "2001:db8:0:100::/56"),
            ("2001:db8::1", 128, "2001:db8::1/128"),
            ("2001:db8::1", 255, "2001:db8::1/128"),
            ("ffff::1", 0, "8000::/1"),
            ("::", 64, "::/64"),
            ("::1", 64, "::/64"),
        ] {
            assert_eq!(address_subject(address.parse().unwrap(), prefix), subject, "{address}");
        }
    }
}
