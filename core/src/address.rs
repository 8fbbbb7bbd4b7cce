//! Client addresses: the networks by which limiters count them.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::policy::split;

/// The shortest prefix of a network that is counted.
pub(crate) const MIN_PREFIX: u8 = 33;

/// The longest prefix of a network that is counted: that of a site.
pub(crate) const MAX_PREFIX: u8 = 64;

/// The address of a client, of which a limiter counts networks.
///
/// An IPv6 address that embeds an IPv4 address is that IPv4 address, so that a client has one count
/// under all forms of its address. `docs/ADDRESSES.md` lists these forms.
///
/// ```
/// use keytally_core::Address;
/// let address = Address::parse("[::ffff:203.0.113.9]:8080").unwrap();
/// assert_eq!(address, Address::from(core::net::IpAddr::from([203, 0, 113, 9])));
/// assert_eq!(Address::parse("unix:/run/app.sock"), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// The first 64 bits of an IPv6 address, or the 32 bits of an IPv4 address after 32 zeros.
    bits: u64,
    is_ipv4: bool,
}

impl Address {
    /// The address in a text, which may have a port, brackets and a zone. `None` if the text is not
    /// an address.
    ///
    /// An IPv6 network with a prefix of at least 64 bits, such as `2001:db8::/64`, counts as any
    /// address in it does, so it is accepted as well.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some((network, prefix)) = split(text, b'/') {
            let is_number = prefix.bytes().all(|byte| byte.is_ascii_digit());
            let prefix = prefix.parse::<u8>().ok().filter(|_| is_number)?;
            let address = network.parse::<Ipv6Addr>().ok()?;
            return (MAX_PREFIX..=128).contains(&prefix).then(|| IpAddr::V6(address).into());
        }
        let inner = match text.strip_prefix('[') {
            Some(rest) => {
                let (inner, port) = split(rest, b']')?;
                is_port(port).then_some(inner)?
            }
            // An IPv6 address without brackets has several colons, and no port.
            None => match split(text, b':') {
                Some((address, port))
                    if is_port(text.get(address.len()..)?) && !port.is_empty() =>
                {
                    address
                }
                _ => text,
            },
        };
        let address = split(inner, b'%').map_or(inner, |(address, _)| address);
        address.parse::<IpAddr>().ok().map(Self::from)
    }

    /// Returns the numbers that name the network with this prefix, for the hash of a limiter: its
    /// bits, and the prefix below the family. An IPv4 network has a prefix that is shorter by 32.
    #[inline]
    pub(crate) fn network(self, prefix: u8) -> (u64, u16) {
        let host_bits = u32::from(MAX_PREFIX.saturating_sub(prefix));
        let masked = self.bits & u64::MAX.checked_shl(host_bits).unwrap_or(0);
        (masked, u16::from(prefix) | u16::from(self.is_ipv4) << 8)
    }
}

/// Returns whether a text is a port after a colon, or empty.
fn is_port(text: &str) -> bool {
    text.is_empty()
        || text.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        let ipv4 = match address {
            IpAddr::V4(ipv4) => Some(ipv4),
            IpAddr::V6(ipv6) => embedded_ipv4(ipv6),
        };
        match (ipv4, address) {
            (None, IpAddr::V6(ipv6)) => {
                let [a, b, c, d, e, f, g, h, ..] = ipv6.octets();
                Self { bits: u64::from_be_bytes([a, b, c, d, e, f, g, h]), is_ipv4: false }
            }
            (ipv4, _) => {
                let bits = ipv4.map_or(0, Ipv4Addr::to_bits);
                Self { bits: bits.into(), is_ipv4: true }
            }
        }
    }
}

/// Returns the IPv4 address that an IPv6 address embeds; `None` if it embeds none.
///
/// These are IPv4-compatible, IPv4-mapped, IPv4-translated, NAT64 and 6to4 addresses.
///
/// ```
/// let address = keytally_core::embedded_ipv4("::ffff:203.0.113.9".parse()?);
/// assert_eq!(address, Some("203.0.113.9".parse()?));
/// assert_eq!(keytally_core::embedded_ipv4("2001:db8::1".parse()?), None);
/// # Ok::<(), core::net::AddrParseError>(())
/// ```
pub fn embedded_ipv4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [.., a, b, c, d] = address.octets();
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        // IPv4-compatible, IPv4-mapped (RFC 4291), IPv4-translated (RFC 2765), NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0 | 0xffff, ..]
        | [0, 0, 0, 0, 0xffff, 0, ..]
        | [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(Ipv4Addr::new(a, b, c, d)),
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => {
            Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str, prefix: u8) -> (u64, u16) {
        Address::parse(text).unwrap_or_else(|| panic!("{text}")).network(prefix)
    }

    #[test]
    fn forms_of_an_address_are_one_client() {
        for text in [
            "203.0.113.9",
            "203.0.113.9:40001",
            "[203.0.113.9]",
            "::ffff:203.0.113.9",
            "[::ffff:203.0.113.9]:443",
            "::ffff:0:203.0.113.9",
            "64:ff9b::203.0.113.9",
            "::203.0.113.9",
            "2002:cb00:7109::1",
        ] {
            assert_eq!(network(text, 64), network("203.0.113.9", 64), "{text}");
        }
        for text in [
            "2001:db8::a:b:c:d",
            "[2001:db8::1]",
            "[2001:db8::1]:443",
            "2001:db8::1%eth0",
            "2001:db8::/64",
            "2001:db8::1/128",
        ] {
            assert_eq!(network(text, 64), network("2001:db8::", 64), "{text}");
        }
    }

    #[test]
    fn networks_are_separate_by_prefix_and_family() {
        assert_eq!(network("2001:db8:1:1ff::1", 56), network("2001:db8:1:100::2", 56));
        assert_ne!(network("2001:db8:1:1ff::1", 57), network("2001:db8:1:100::2", 57));
        assert_eq!(network("2001:db8:1:ffff::", 48), network("2001:db8:1::", 48));
        assert_ne!(network("2001:db8:1::", 48), network("2001:db8:1::", 56));
        // An IPv4 prefix is shorter by 32.
        assert_eq!(network("203.0.113.9", 56), network("203.0.113.250", 56));
        assert_ne!(network("203.0.113.9", 56), network("203.0.112.9", 56));
        assert_eq!(network("203.0.113.9", 48), network("203.0.1.1", 48));
        assert_ne!(network("0.0.0.9", 64), network("::9:0:0:0:0", 64));
        assert_ne!(network("0.0.0.0", 64), network("::", 64));
    }

    #[test]
    fn text_that_is_not_an_address_is_none() {
        for text in [
            "",
            ":",
            "unix:",
            "203.0.113",
            "203.0.113.9:",
            "203.0.113.9:x",
            "[::1",
            "[::1]x",
            "[::1]:x",
            "2001:db8::1:",
            "%eth0",
            "203.0.113.9 ",
            "localhost",
            "[]",
            "2001:db8::/63",
            "2001:db8::/129",
            "2001:db8::/+64",
            "2001:db8::/",
            "[2001:db8::]/64",
            "203.0.113.9/64",
        ] {
            assert_eq!(Address::parse(text), None, "{text}");
        }
    }
}
