//! Client addresses: the peer of a connection, or the client of a trusted proxy.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::str::FromStr;

use axum::http::HeaderMap;
use ipnet::IpNet;
use keytally::embedded_ipv4;

/// The header to which each proxy appends the address of its client.
const FORWARDED_FOR: &str = "X-Forwarded-For";

/// The remote end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// The address of a TCP peer. An IPv4 address is never in its IPv6-mapped form.
    Address(IpAddr),
    /// A process on this machine, over a Unix socket.
    #[cfg_attr(windows, expect(dead_code, reason = "the service has no Unix sockets there"))]
    Local,
}

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        Self::Address(address.to_canonical())
    }
}

/// The network that counts as one client: an IPv4 address, or the /64 of an IPv6 address.
///
/// A site has at least a /64 and can use any address in it. An IPv6 address that embeds an IPv4
/// address counts as the IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Network([u8; 16]);

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        let ipv4 = match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(address) => embedded_ipv4(address),
        };
        Self(match (ipv4, address) {
            (Some(address), _) | (None, IpAddr::V4(address)) => address.to_ipv6_mapped().octets(),
            (None, IpAddr::V6(address)) => (address.to_bits() >> 64 << 64).to_be_bytes(),
        })
    }
}

impl Network {
    /// Returns bytes that are unique to the network.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A value of `--trusted-proxy`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TrustedProxy {
    /// All addresses of a network.
    Network(IpNet),
    /// The peers of Unix sockets.
    Unix,
}

impl FromStr for TrustedProxy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "unix" {
            return Ok(Self::Unix);
        }
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        match network {
            // The address of a peer is never in this form; see `Peer::Address`.
            Ok(IpNet::V6(network)) if network.addr().to_ipv4_mapped().is_some() => {
                Err("write an IPv4 network as IPv4, such as 10.0.0.0/8")
            }
            Ok(network) => Ok(Self::Network(network)),
            Err(_) => {
                Err("it must be an address, a network such as 10.0.0.0/8 or fd00::/8, or unix")
            }
        }
    }
}

/// The proxies whose `X-Forwarded-For` is trusted.
#[derive(Debug, Default)]
pub(crate) struct TrustedProxies {
    networks: Vec<IpNet>,
    unix: bool,
}

impl FromIterator<TrustedProxy> for TrustedProxies {
    fn from_iter<I: IntoIterator<Item = TrustedProxy>>(proxies: I) -> Self {
        let mut trusted = Self::default();
        for proxy in proxies {
            match proxy {
                TrustedProxy::Network(network) => trusted.networks.push(network),
                TrustedProxy::Unix => trusted.unix = true,
            }
        }
        trusted
    }
}

impl TrustedProxies {
    /// Returns whether the peer is a trusted proxy.
    pub(crate) fn contains(&self, peer: Peer) -> bool {
        match peer {
            Peer::Address(address) => {
                self.networks.iter().any(|network| network.contains(&address))
            }
            Peer::Local => self.unix,
        }
    }

    /// Returns the address of the client that sent a request, or `None` if it is unknown.
    ///
    /// It is the address of the peer or, if the peer is trusted, the one that the peer forwards.
    pub(crate) fn client(&self, peer: Peer, headers: &HeaderMap) -> Option<IpAddr> {
        match peer {
            _ if self.contains(peer) => self.forwarded(peer, headers),
            Peer::Address(address) => Some(address),
            Peer::Local => None,
        }
    }

    /// Returns the address of the client that a trusted peer forwards for.
    ///
    /// `X-Forwarded-For` is read from right to left, starting with the address that the nearest
    /// proxy appended. The first address that is not trusted is the client: the client may have
    /// written everything left of it. If all are trusted, the client is the leftmost.
    ///
    /// Returns `None` if the peer is not trusted, if it forwards nothing, or if an entry that is
    /// read is not an address.
    pub(crate) fn forwarded(&self, peer: Peer, headers: &HeaderMap) -> Option<IpAddr> {
        if !self.contains(peer) {
            return None;
        }
        let mut client = None;
        for value in headers.get_all(FORWARDED_FOR).iter().rev() {
            // Entries left of the client's address are not read, and may be any bytes.
            for hop in value.as_bytes().rsplit(|&byte| byte == b',') {
                let address = parse_hop(core::str::from_utf8(hop).ok()?.trim())?;
                client = Some(address);
                if !self.contains(Peer::Address(address)) {
                    return client;
                }
            }
        }
        client
    }
}

/// Parses an address with or without a port.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let address = text.parse::<IpAddr>().ok();
    let address = address.or_else(|| text.parse().ok().map(|address: SocketAddr| address.ip()));
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    address.or_else(|| bracketed().map(IpAddr::from)).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn trusted(proxies: &[&str]) -> TrustedProxies {
        proxies.iter().map(|text| text.parse::<TrustedProxy>().unwrap()).collect()
    }

    fn forwarded_for(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(FORWARDED_FOR, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn network_is_an_ipv4_address_or_the_64_of_ipv6() {
        let same = |a: &str, b: &str| Network::from(ip(a)) == Network::from(ip(b));
        assert!(same("2001:db8:1:2::", "2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(!same("203.0.113.1", "203.0.113.2"));
        assert!(same("203.0.113.1", "::ffff:203.0.113.1"));
        assert!(!same("0.0.0.1", "::1"));
        for embedded in [
            "::203.0.113.1",
            "::ffff:0:203.0.113.1",
            "64:ff9b::203.0.113.1",
            "2002:cb00:7101::1",
            "2002:cb00:7101:ffff::",
        ] {
            assert!(same("203.0.113.1", embedded), "{embedded}");
        }
        assert!(same("::", "::1") && same("::1", "0:0:0:0:1::"));
        assert!(same("64:ff9b::1:cb00:7101", "64:ff9b::1:cb00:7102"));
        assert!(same("64:ff9b:1::203.0.113.1", "64:ff9b:1::203.0.113.2"));
    }

    #[test]
    fn trusted_proxies_contain_only_their_networks() {
        let proxies = trusted(&["10.0.0.0/8", "192.0.2.7", "fd00::/8", "::1"]);
        for (address, is_in) in [
            ("10.255.0.1", true),
            ("::ffff:10.1.2.3", true),
            ("11.0.0.1", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("fdff::1", true),
            ("fe00::1", false),
            ("::1", true),
            ("127.0.0.1", false),
        ] {
            assert_eq!(proxies.contains(ip(address).into()), is_in, "{address}");
        }
        assert!(!proxies.contains(Peer::Local));
        assert!(trusted(&["unix"]).contains(Peer::Local));
        for wrong in
            ["", "10.0.0.0/33", "10.0.0", "Unix", "proxy.example.com", "::ffff:10.0.0.0/104"]
        {
            assert!(wrong.parse::<TrustedProxy>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn client_is_the_first_untrusted_hop_from_the_right() {
        let proxies = trusted(&["10.0.0.0/8", "unix"]);
        for (values, client) in [
            (&["203.0.113.5"][..], Some("203.0.113.5")),
            (&["1.1.1.1, 203.0.113.5"], Some("203.0.113.5")),
            (&["1.1.1.1, 203.0.113.5, 10.0.0.9"], Some("203.0.113.5")),
            (&["1.1.1.1", "203.0.113.5", "10.0.0.9,10.0.0.8"], Some("203.0.113.5")),
            (&["nonsense, 203.0.113.5:4711"], Some("203.0.113.5")),
            (&["\u{e9}, 203.0.113.5"], Some("203.0.113.5")),
            (&["203.0.113.5, \u{e9}"], None),
            (&["[2001:db8::5]:80"], Some("2001:db8::5")),
            (&["[2001:db8::5]"], Some("2001:db8::5")),
            (&["::ffff:203.0.113.5"], Some("203.0.113.5")),
            (&["10.0.0.9, 10.0.0.8"], Some("10.0.0.9")),
            (&["203.0.113.5, unknown"], None),
            (&["203.0.113.5, "], None),
            (&[""], None),
            (&[], None),
        ] {
            let headers = forwarded_for(values);
            for peer in [Peer::Local, ip("10.0.0.1").into()] {
                assert_eq!(proxies.client(peer, &headers), client.map(ip), "{values:?}");
                assert_eq!(proxies.forwarded(peer, &headers), client.map(ip), "{values:?}");
            }
            let peer = Peer::from(ip("198.51.100.1"));
            assert_eq!(proxies.client(peer, &headers), Some(ip("198.51.100.1")), "{values:?}");
            assert_eq!(proxies.forwarded(peer, &headers), None, "{values:?}");
        }
        let none = TrustedProxies::default();
        assert_eq!(none.client(Peer::Local, &forwarded_for(&["203.0.113.5"])), None);
    }
}
