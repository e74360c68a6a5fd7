"""Endpoints as the settings spell them, and as sockets want them. Pure; opens nothing.

An endpoint is ``tcp://HOST:PORT``; port 0 means any free one. Where CURVE is on, the one who
connects must know whose key to expect, so a member's address may name it: ``tcp://HOST:PORT#ID``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

import attrs

from pbcluster.config import tcp_endpoint
from pbcluster.errors import ConfigError, InvalidInput
from pbcluster.records import check_process_id

ALLOWED = "tcp://HOST:PORT or tcp://HOST:PORT#MEMBER_ID"
#: A host name has at most 253 characters.
MAX_LENGTH = 300
#: What ZeroMQ connects to: a name or an IPv4 address, or an IPv6 address in brackets.
_CONNECTABLE = re.compile(
    r"tcp://(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9][A-Za-z0-9._-]*)):(?P<port>\d{1,5})"
)


@attrs.frozen
class MemberAddress:
    """Where a member listens and who it is.

    :ivar endpoint: ``tcp://HOST:PORT``.
    :ivar member_id: its id; may be empty with plain sockets only.
    """

    endpoint: str
    member_id: str = ""

    @classmethod
    def parse(cls, text: str) -> MemberAddress:
        """Read ``tcp://HOST:PORT`` or ``tcp://HOST:PORT#MEMBER_ID``.

        :raises ConfigError: anything else; names the text and what is allowed.
        """
        endpoint, separator, member_id = text.partition("#")
        try:
            tcp_endpoint(endpoint)
            if separator:
                check_process_id(member_id)
        except (ValueError, InvalidInput):
            raise ConfigError(f"member address {text!r} is not allowed: {ALLOWED}") from None
        return cls(endpoint, member_id)


def connectable(endpoint: str, member_id: str) -> MemberAddress:
    """An address that came from elsewhere than the settings, if one can connect to it.

    :raises ConfigError: it is none of a machine (a wildcard, port 0), or the id is none.
    """
    match = _CONNECTABLE.fullmatch(endpoint)
    host = (match["six"] or match["host"]) if match is not None else ""
    fine = match is not None and 0 < int(match["port"]) < 65536 and not _is_wildcard(host)
    if not fine or len(endpoint) > MAX_LENGTH:
        raise ConfigError(f"endpoint {endpoint[:MAX_LENGTH]!r} of {member_id[:63]!r} is none")
    try:
        return MemberAddress(endpoint, check_process_id(member_id))
    except InvalidInput as error:
        raise ConfigError(error.message[:MAX_LENGTH]) from None


def member_addresses(texts: Iterable[str]) -> tuple[MemberAddress, ...]:
    """The addresses of the settings ``members`` or ``broadcasts``.

    :raises ConfigError: a wrong address, or the same one twice.
    """
    found = tuple(MemberAddress.parse(text) for text in texts)
    if len({address.endpoint for address in found}) != len(found):
        raise ConfigError("two members have the same address; each needs its own")
    return found


def is_loopback(endpoint: str) -> bool:
    """Whether ``endpoint`` can be reached from this machine only."""
    host = urlsplit(endpoint).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return ":" in host  # not even an IPv6 address


def is_ipv6(endpoint: str) -> bool:
    """Whether the host of ``endpoint`` is an IPv6 address."""
    return "[" in endpoint


def to_bind(endpoint: str) -> str:
    """What ZeroMQ is told to bind: port 0 becomes its word for any free port."""
    host, _, port = endpoint.rpartition(":")
    return f"{host}:*" if port == "0" else endpoint
