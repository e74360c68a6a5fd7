"""The headers of a request on its way to a node, and of an answer on its way back. Pure.

A client's own forwarding headers say nothing that can be trusted, so they are overwritten; the
platform's headers are removed and made anew, so that they always mean what they say. The fields of
one connection (``Connection`` and what it names) go first, so that a client cannot have ours
removed by naming them.
"""

from __future__ import annotations

import functools
import re
from urllib.parse import urlsplit

from pbcluster import signing
from pbcluster.errors import Unavailable
from pbcluster.web.headers import end_to_end
from pbcluster.web.interfaces import Headers, RequestHead, ResponseHead
from pbcluster.wire import Route

#: Overwritten or removed. X-Tenant-ID was read before, if it counts (``tenant_id``).
_OURS = frozenset(
    (
        b"content-length",
        b"expect",
        b"forwarded",
        b"traceparent",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-proto",
        b"x-forwarded-server",
        b"x-real-ip",
        b"x-request-id",
        b"x-tenant-id",
    )
)
#: W3C Trace Context, version 00; ids of zeros only are invalid.
_TRACEPARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
#: The marks that a client may see.
_FOR_CLIENTS = frozenset((signing.DURABILITY.lower(),))


@functools.lru_cache(4096)
def host_and_port(address: str) -> tuple[str, int]:
    """Where a node listens, from its base URL.

    :raises Unavailable: not an ``http`` URL with a host.
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.scheme != "http":
        raise Unavailable(f"the tenant's node has an address that cannot be used: {address!r}")
    return host, port if port is not None else 80


def traceparent(head: RequestHead, request_id: str) -> bytes:
    """The client's trace if it is valid, else a new one, not sampled.

    :param request_id: 32 hex digits.
    """
    given = head.get(b"traceparent")
    if given is not None and _TRACEPARENT.fullmatch(given) is not None:
        return given
    return f"00-{request_id}-{request_id[:16]}-00".encode()


def to_node(
    head: RequestHead, route: Route, gateway: str, key: bytes, request_id: str, at_ms: int
) -> Headers:
    """The header fields that the node gets, the client's Host among them.

    :param gateway: this gateway's id. :param key: its HMAC key.
    :param request_id: 32 hex digits. :param at_ms: Unix milliseconds.
    """
    peer = head.peer_host.encode("ascii", "replace")
    signed = signing.Signed(gateway, route.tenant_id, route.epoch, at_ms, request_id)
    return [
        *signing.without_marks(end_to_end(head.headers, _OURS)),
        (b"X-Forwarded-For", peer),
        (b"X-Real-IP", peer),
        (b"X-Forwarded-Proto", b"https" if head.secure else b"http"),
        (b"X-Forwarded-Host", head.get(b"host") or head.host),
        (b"X-Request-ID", request_id.encode()),
        (b"traceparent", traceparent(head, request_id)),
        *signing.sign(key, head.method, head.target, signed),
    ]


def to_client(head: ResponseHead, request_id: str) -> ResponseHead:
    """The head that the client gets: without the node's marks, but for how durable a write is."""
    kept = [
        field
        for field in head.headers
        if not (lower := field[0].lower()).startswith(signing.PREFIX) or lower in _FOR_CLIENTS
        if lower != b"x-request-id"
    ]
    kept.append((b"X-Request-ID", request_id.encode()))
    return ResponseHead(head.status, head.reason, kept)


def mark_of(head: ResponseHead) -> bytes | None:
    """The reason for which the node did not process the request; None: it did."""
    return head.get(signing.NOT_PROCESSED.lower())


def epoch_of(head: ResponseHead) -> int:
    """The epoch that a node told with the mark ``moved``; 0: none that can be read."""
    text = head.get(signing.NODE_EPOCH.lower()) or b""
    return int(text) if text.isdigit() and len(text) <= 18 else 0
