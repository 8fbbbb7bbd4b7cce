"""Guessed keys: a limit of failed checks for each client address.

The gate is asked first. Its verdict is the answer, unless it is ``invalid_key`` and the client's address has
had too many of those. Then the answer is 429. So a key that is admitted is never refused here, and a request
without a key is not a guess.
"""

from __future__ import annotations

import functools
import ipaddress
from typing import TYPE_CHECKING

from keytally import _addresses, _web
from keytally._native import Limiter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keytally._native import Verdict

# The limit of an integration that is given no other, as of ``keytally serve``.
DEFAULT = "20/minute, 200/hour"

# Client networks that a policy counts at a time: 1.5 MiB of memory. Wrong keys of further networks get 401.
MAX_NETWORKS = 65_536


class Guesses:
    """The limit of failed checks.

    Args:
        failures: A policy, which this process counts in memory; a limiter; or ``None`` for no limit.
        trusted_proxies: The proxies whose ``X-Forwarded-For`` is believed.
        ipv6_prefix: How many bits of an IPv6 address count.

    Raises:
        TypeError, ValueError: One of them is something else.

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
        self._ipv6_prefix = _addresses.checked_prefix(ipv6_prefix)

    def answer(self, verdict: Verdict, peer: str | None, forwarded_for: str) -> _web.Answer:
        """Count a failed check, and return what to answer: the verdict, or that there were too many.

        Every invalid key counts, for whatever reason: if a revoked key did not, the answer would reveal that
        its secret is right.
        """
        if self._limiter is None or verdict.outcome != "invalid_key":
            return verdict
        client = self._proxies.client(peer, forwarded_for)
        if client is None:
            return verdict
        counted = self._limiter.check(_addresses.client(client, self._ipv6_prefix))
        # A full limiter refuses nothing: the refusal would hit others.
        if counted.outcome != "denied":
            return verdict
        return _web.OwnAnswer(
            counted.status,
            counted.body,
            counted.problem,
            counted.content_type,
            _web.refusal_fields(counted),
            counted.retry_after,
        )


class TrustedProxies:
    """The proxies whose ``X-Forwarded-For`` is believed."""

    def __init__(self, proxies: Iterable[str]) -> None:
        if isinstance(proxies, (str, bytes)):
            raise TypeError(
                'trusted_proxies must be a list of networks, such as ["10.0.0.0/8"], not one text'
            )
        proxies = list(proxies)
        self._unix = "unix" in proxies
        self._networks = [_network(index, text) for index, text in enumerate(proxies) if text != "unix"]

    def client(self, peer: str | None, forwarded_for: str) -> _addresses.Address | None:
        """Return the address of the client that sent a request, or ``None`` if it is unknown.

        It is the peer's own address, unless the peer is trusted. Then ``X-Forwarded-For`` is read from the
        right, where the nearest proxy appended, past trusted addresses. What stands left of the first
        untrusted address is the client's own text. If all are trusted, it is the leftmost.
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
    """Return the limiter of a policy, which all integrations of a process with that policy share."""
    return Limiter(policy, MAX_NETWORKS)


def _network(index: int, text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    problem = "must be an address, a network such as 10.0.0.0/8 or fd00::/8, or unix"
    if isinstance(text, str):
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            pass
        else:
            if network.version == 4 or network.network_address.ipv4_mapped is None:
                return network
            # No peer has such an address: it is taken as the IPv4 address that it stands for.
            problem = "must be an IPv4 network in its own form, such as 10.0.0.0/8"
    raise ValueError(f"trusted_proxies[{index}] {problem}")
