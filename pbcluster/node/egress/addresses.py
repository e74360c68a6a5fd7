"""Which addresses a tenant may reach through the node.

Pure. Only addresses of the public Internet: the ranges below are the special ones of the IANA
registries (RFC 6890 and its successors), with every form in which an IPv6 address carries an IPv4
one, since what such an address leads to depends on the network. Metadata services live in
link-local or private ranges.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_REFUSED_4 = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "192.175.48.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/3",
    "168.63.129.16/32",  # a cloud's metadata service in the middle of the public space
)
#: Of IPv6 only global unicast is allowed, and of that not these.
_GLOBAL_6 = ipaddress.IPv6Network("2000::/3")
_REFUSED_6 = (
    "2001::/23",  # Teredo, benchmarking, ORCHID and more
    "2001:db8::/32",
    "2002::/16",  # 6to4
    "2620:4f:8000::/48",
    "3fff::/20",
)
_NETWORKS: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text) for text in (*_REFUSED_4, *_REFUSED_6)
)


def is_public(text: str, refused: Iterable[Network] = ()) -> bool:
    """Whether a tenant may connect to this address.

    :param text: a numeric address, without a port. :param refused: the operator's further ranges.
    """
    if "%" in text:  # a zone: link-local
        return False
    try:
        address: Address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_6:
        return False  # loopback, mapped, compatible, NAT64, local, link-local, multicast
    return not any(
        address in network
        for network in (*_NETWORKS, *refused)
        if network.version == address.version
    )
