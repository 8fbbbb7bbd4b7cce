"""Client addresses, and the subjects by which limiters count them: see ``docs/ADDRESSES.md``."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Union

from keytally._native import AddressPolicy

if TYPE_CHECKING:
    from keytally._native import Limiter

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]

# The prefix length of the IPv6 networks that count as one client: a site has at least a /64.
IPV6_PREFIX = 64

# An address with a port, or in brackets.
DECORATED = re.compile(r"\[([^\]]*)\](?::[0-9]+)?|([0-9.]+):[0-9]+")

# The first 96 bits of the IPv6 addresses that end in an IPv4 address.
IPV4_AFTER = {
    0x0000_0000_0000_0000_0000_0000,  # ::/96, IPv4-compatible (RFC 4291, deprecated)
    0x0000_0000_0000_0000_0000_FFFF,  # ::ffff:0:0/96, IPv4-mapped (RFC 4291)
    0x0000_0000_0000_0000_FFFF_0000,  # ::ffff:0:0:0/96, IPv4-translated (RFC 2765)
    0x0064_FF9B_0000_0000_0000_0000,  # 64:ff9b::/96, NAT64 (RFC 6052)
}
# The first 16 bits of a 6to4 address (RFC 3056); the IPv4 address follows.
SIX_TO_FOUR = 0x2002


def parse(text: str) -> Address | None:
    """Return an address without port, brackets and zone; ``None`` if the text is not an address.

    An IPv4-mapped address becomes the IPv4 address. A socket of both families reports IPv4 peers
    in that form.
    """
    decorated = DECORATED.fullmatch(text)
    if decorated:
        text = decorated[1] or decorated[2] or ""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if address.version == 6 else address


def subject_of(address: Address, ipv6_prefix: int = IPV6_PREFIX) -> str:
    """Return the subject of an address: an IPv4 address, or an IPv6 network.

    An IPv6 address that contains an IPv4 address has the subject of the IPv4 address.
    """
    if address.version == 4:
        return str(address)
    number = int(address)
    # 0 and 1 are the unspecified and the loopback address, which contain no IPv4 address.
    if number >> 32 in IPV4_AFTER and number > 1:
        return str(ipaddress.IPv4Address(number & 0xFFFF_FFFF))
    if number >> 112 == SIX_TO_FOUR:
        return str(ipaddress.IPv4Address(number >> 80 & 0xFFFF_FFFF))
    host_bits = 128 - ipv6_prefix
    return f"{ipaddress.IPv6Address(number >> host_bits << host_bits)}/{ipv6_prefix}"


def subject(text: str | None, ipv6_prefix: int = IPV6_PREFIX) -> str:
    """Return the subject of a client from the text that the server reports as its address.

    A text that is not an address is the subject itself.

    Raises:
        RuntimeError: The server reports no address.

    """
    if not text:
        raise RuntimeError(
            "the server does not report the client's address, as on a Unix socket: "
            "pass key= with a function that returns the subject to count"
        )
    address = parse(text)
    return text if address is None else subject_of(address, ipv6_prefix)


def checked_prefix(ipv6_prefix: int) -> int:
    """Return the prefix length of IPv6 networks after checking its type and range.

    Raises:
        TypeError, ValueError: The prefix length is not an integer of 1 to 128.

    """
    if not isinstance(ipv6_prefix, int):
        raise TypeError("ipv6_prefix must be a whole number from 1 to 128")
    if not 1 <= ipv6_prefix <= 128:
        raise ValueError(f"ipv6_prefix is {ipv6_prefix}, and must be 1 to 128")
    return ipv6_prefix


def prefix_for(limiter: Limiter | None, ipv6_prefix: int) -> int:
    """Return the prefix length of the IPv6 networks that a limiter counts, after checking it.

    Raises:
        TypeError, ValueError: The prefix length is not an integer of 1 to 128. Or it is below 64
            although the limiter counts addresses by the prefixes of its policy.

    """
    ipv6_prefix = checked_prefix(ipv6_prefix)
    if (
        ipv6_prefix < IPV6_PREFIX
        and limiter is not None
        and isinstance(limiter.policy, AddressPolicy)
    ):
        raise ValueError(
            f"ipv6_prefix is {ipv6_prefix}, and the policy of this limiter of addresses has the "
            "prefixes: leave ipv6_prefix out"
        )
    return ipv6_prefix
