"""Guessed keys: a limit of invalid keys for each client address.

The gate checks the key first. If the outcome is ``invalid_key`` and the client's address had too
many such outcomes, the response is 429. Otherwise the response is that of the verdict. A valid key
is therefore never refused here, and a request without a key does not count.
"""

from __future__ import annotations

import functools
import ipaddress
from typing import TYPE_CHECKING

from keytally import _addresses, _fleet
from keytally._native import Limiter
from keytally._refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keytally._native import Verdict

# The default limit, the same as that of ``keytally serve``.
DEFAULT = "20/minute, 200/hour"

# The most client networks that a policy counts at a time, in 1.7 MiB of memory. Other networks
# share limits.
MAX_NETWORKS = 65_536


class Guesses:
    """The limit of invalid keys of one integration.

    Args:
        failures: A policy, which this process counts in memory; a limiter; or ``None`` for no
            limit.
        trusted_proxies: The proxies whose ``X-Forwarded-For`` is trusted.
        ipv6_prefix: The prefix length of the IPv6 networks that count as one client, 1 to 128.

    Raises:
        TypeError, ValueError: An argument has the wrong type or is out of range.

    """

    def __init__(
        self,
        failures: Limiter | str | None,
        trusted_proxies: Iterable[str],
        ipv6_prefix: int = _addresses.IPV6_PREFIX,
    ) -> None:
        if isinstance(failures, str):
            failures = in_memory(failures)
        elif failures is not None and not isinstance(failures, Limiter):
            raise TypeError(f"failures must be a policy such as {DEFAULT!r}, a Limiter, or None")
        self._limiter = failures
        self._proxies = TrustedProxies(trusted_proxies)
        self._ipv6_prefix = _addresses.prefix_for(failures, ipv6_prefix)

    async def refusal(
        self, verdict: Verdict, peer: str | None, forwarded_for: str, *, is_async: bool
    ) -> Refusal:
        """Count an invalid key, and return the refusal: 429 after too many, or the verdict's.

        Every invalid key counts. If a revoked key did not count, the response would disclose that
        its secret is correct. Unless ``is_async``, nothing pauses the coroutine.
        """
        if self._limiter is None or verdict.outcome != "invalid_key":
            return Refusal.of(verdict)
        subject = self.subject(peer, forwarded_for)
        if subject is None:
            return Refusal.of(verdict)
        counted = await _fleet.check_subject(self._limiter, subject, is_async=is_async)
        # A full limiter refuses no request: it would refuse clients that sent no wrong key.
        return Refusal.of(counted if counted.outcome == "denied" else verdict)

    def subject(self, peer: str | None, forwarded_for: str) -> str | None:
        """Return the subject of the client's address; ``None`` if the address is unknown."""
        client = self._proxies.client(peer, forwarded_for)
        return None if client is None else _addresses.subject_of(client, self._ipv6_prefix)

    def check_prefix_for(self, limiter: Limiter) -> None:
        """Raise an error unless the limiter can count the subjects."""
        _addresses.prefix_for(limiter, self._ipv6_prefix)


class TrustedProxies:
    """The proxies whose ``X-Forwarded-For`` is trusted."""

    def __init__(self, proxies: Iterable[str]) -> None:
        if isinstance(proxies, (str, bytes)):
            raise TypeError(
                'trusted_proxies must be a list of networks, such as ["10.0.0.0/8"], not one text'
            )
        proxies = list(proxies)
        self._unix = "unix" in proxies
        self._networks = [
            _network(index, text) for index, text in enumerate(proxies) if text != "unix"
        ]

    def client(self, peer: str | None, forwarded_for: str) -> _addresses.Address | None:
        """Return the address of the client that sent a request, or ``None`` if it is unknown.

        It is the address of the peer, unless the peer is trusted. Then it is the rightmost address
        of ``X-Forwarded-For`` that is not trusted: each proxy appends on the right, and the client
        can write anything to the left of that address. If all are trusted, it is the leftmost.
        """
        address = _addresses.parse(peer or "")
        if address is None and not self._unix:
            return None
        if address is not None and not self._contain(address):
            return address
        client = None
        for hop in reversed(forwarded_for.split(",")):
            client = _addresses.parse(hop.strip())
            if client is None or not self._contain(client):
                return client
        return client

    def _contain(self, address: _addresses.Address) -> bool:
        return any(address in network for network in self._networks)


@functools.cache
def in_memory(policy: str) -> Limiter:
    """Return the limiter of a policy, which all integrations of a process share."""
    return Limiter.in_memory(policy, MAX_NETWORKS)


def _network(index: int, text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Parse the network at an index of the argument ``trusted_proxies``."""
    problem = "must be an address, a network such as 10.0.0.0/8 or fd00::/8, or unix"
    if isinstance(text, str):
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            pass
        else:
            if network.version == 4 or network.network_address.ipv4_mapped is None:
                return network
            # Addresses of peers are compared as IPv4 addresses if they are IPv4-mapped.
            problem = "must be an IPv4 network in its own form, such as 10.0.0.0/8"
    raise ValueError(f"trusted_proxies[{index}] {problem}")
