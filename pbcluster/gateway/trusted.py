"""The networks whose word counts: who may name a tenant by ``X-Tenant-ID``. Pure."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable

#: Addresses whose verdict is remembered; another one costs some microseconds more.
MAX_REMEMBERED = 4096


class TrustedNetworks:
    """Address ranges. False if there are none."""

    def __init__(self, networks: Iterable[str]) -> None:
        """
        :param networks: CIDR, like ``10.0.0.0/8`` or ``fd00::/8``.
        """
        self._networks = tuple(ipaddress.ip_network(network) for network in networks)
        self._remembered = functools.lru_cache(MAX_REMEMBERED)(self._includes)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def includes(self, address: str) -> bool:
        """Whether it is in one of them.

        :param address: of the peer itself, never what a header says; an IPv4 address that came in
            by an IPv6 socket (``::ffff:10.0.0.1``) counts as what it is.
        """
        return self._remembered(address)

    def _includes(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)
