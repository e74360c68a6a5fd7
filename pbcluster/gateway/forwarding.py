"""The headers of a request on its way to a node, and of an answer on its way back. Pure.

A client's own forwarding headers say nothing that can be trusted, so they are overwritten; the
platform's headers are removed and made anew, so that they always mean what they say. The fields of
one connection (``Connection`` and what it names) go first, so that a client cannot have ours
removed by naming them.
"""

from __future__ import annotations

import enum
import re
from urllib.parse import urlsplit

from pbcluster import identities, signing
from pbcluster.errors import Unavailable
from pbcluster.gateway.rewriting import bears_ours
from pbcluster.signing import SIGNED, Signer
from pbcluster.web.answers import encoded_head
from pbcluster.web.headers import encode_lines, end_to_end, without
from pbcluster.web.interfaces import Memo, RequestHead, ResponseHead
from pbcluster.wire import Route

#: Overwritten or removed. X-Tenant-ID was read before, if it counts (``tenant_id``).
_OURS = frozenset(
    (
        b"content-length",
        b"expect",
        b"forwarded",
        b"traceparent",
        b"x-real-ip",
        b"x-request-id",
        b"x-tenant-id",
    )
)
#: So do all names that begin like this: X-Forwarded-Prefix, -Ssl, -User and what else is in use.
_OUR_PREFIXES = (signing.PREFIX, b"x-forwarded")
_SIGNED_AS = SIGNED + b": "
#: W3C Trace Context, version 00; ids of zeros only are invalid.
_TRACEPARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
#: Addresses of nodes, and of clients, for which what is made of them is remembered.
MAX_REMEMBERED = 4096
#: RFC 6797; only sent over TLS.
HSTS = b"Strict-Transport-Security"
#: The marks that a client may see.
_FOR_CLIENTS = frozenset((signing.DURABILITY.lower(),))


class NodeTLS(enum.Enum):
    """Whether nodes are spoken to by TLS: never, if their address is ``https``, or always."""

    OFF = "off"
    ALLOWED = "allowed"
    REQUIRED = "required"

    #: There is one object of each; an enum's own is a call of Python for each look-up.
    __hash__ = object.__hash__


def node_at(address: str, node_id: str, tls: NodeTLS = NodeTLS.OFF) -> tuple[str, int, str]:
    """Where a node listens, from its base URL, and the name that it must prove by TLS (else empty).

    :raises Unavailable: not an ``http`` or ``https`` URL with a host, or not what ``tls`` allows.
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.scheme not in ("http", "https"):
        raise Unavailable(f"the tenant's node has an address that cannot be used: {address!r}")
    if parts.scheme == "http":
        if tls is NodeTLS.REQUIRED:
            raise Unavailable("the tenant's node does not speak TLS, which this gateway demands")
        return host, port if port is not None else 80, ""
    if tls is NodeTLS.OFF:
        raise Unavailable("the tenant's node speaks TLS only, and this gateway has no certificate")
    return host, port if port is not None else 443, identities.name_of(identities.NODE, node_id)


class Forwarder:
    """Makes what this gateway adds to requests on their way to a node.

    What depends on the client's field lines, its address or the node's alone is made once and
    remembered; the rest is one signature.
    """

    def __init__(self, gateway_id: str, key: bytes, node_tls: NodeTLS = NodeTLS.OFF) -> None:
        """
        :param key: this gateway's signing key. :param node_tls: whether nodes are spoken to by TLS.
        """
        self._signer = Signer(gateway_id, key)
        self._node_tls = node_tls
        #: Base URL → whose it was last, and what was made of it.
        self._places: dict[str, tuple[str, tuple[str, int, str]]] = {}
        #: Client's address → what is said of it, without TLS and with it.
        self._plain_peers: dict[str, bytes] = {}
        self._secure_peers: dict[str, bytes] = {}

    def place(self, route: Route) -> tuple[str, int, str]:
        """Where the route's node listens, as :func:`node_at`."""
        address, node_id = route.address, route.node_id
        known = self._places.get(address)
        if known is not None and known[0] == node_id:
            return known[1]
        found = node_at(address, node_id, self._node_tls)
        if len(self._places) >= MAX_REMEMBERED:
            self._places.clear()
        self._places[address] = (node_id, found)
        return found

    def lines(self, head: RequestHead, route: Route, request_id: str, at_ms: int) -> bytes:
        """All field lines that the node gets but for the body's, the client's Host among them.

        :param request_id: 32 hex digits. :param at_ms: Unix milliseconds.
        """
        peer_host = head.peer_host
        peers = self._secure_peers if head.secure else self._plain_peers
        peer = peers.get(peer_host)
        if peer is None:
            if len(peers) >= MAX_REMEMBERED:
                peers.clear()
            peer = peers[peer_host] = _peer_lines(peer_host, head.secure)
        signed = self._signer.sign(
            head.method, head.target, route.tenant_id, route.epoch, at_ms, request_id
        )
        # % takes twice as long.
        return b"".join((_SIGNED_AS, signed, b"\r\n", seen_in(head).lines, peer))


class SeenRequest:
    """What was read from a request's fields; requests with the same lines share it.

    :ivar lines: of the client's own fields, and what is made of them. :ivar token: a field may bear
        a platform token.
    """

    def __init__(self, lines: bytes, token: bool) -> None:
        self.lines = lines
        self.token = token


def seen_in(head: RequestHead) -> SeenRequest:
    """See :class:`SeenRequest`."""
    memo: Memo | None = head.memo
    if memo is not None and memo.value is not None:
        known: SeenRequest = memo.value
        return known
    seen = SeenRequest(_passed_on(head), bears_ours(head.headers))
    if memo is not None:
        memo.value = seen
    return seen


def _passed_on(head: RequestHead) -> bytes:
    """The lines of the client's own fields, and what is made of them."""
    fields = [
        field
        for field in end_to_end(head.headers, _OURS)
        if not field[0].lower().startswith(_OUR_PREFIXES)
    ]
    fields.append((b"X-Forwarded-Host", head.get(b"host") or head.host))
    trace = head.get(b"traceparent")
    if trace is not None and _TRACEPARENT.fullmatch(trace) is not None:
        fields.append((b"traceparent", trace))
    return encode_lines(fields)


def _peer_lines(peer_host: str, secure: bool) -> bytes:
    """What is said of the client's address."""
    peer = peer_host.encode("ascii", "replace")
    return encode_lines(
        [
            (b"X-Forwarded-For", peer),
            (b"X-Real-IP", peer),
            (b"X-Forwarded-Proto", b"https" if secure else b"http"),
        ]
    )


def to_client(known: Seen, request_id: str, hsts: bytes = b"") -> ResponseHead:
    """The head that the client gets: without the node's marks, but for how durable a write is.

    :param known: what was read from the node's head.
    :param hsts: the gateway's Strict-Transport-Security, which then is the only one.
    """
    lines = f"X-Request-ID: {request_id}\r\n".encode()
    if hsts:
        lines += b"%b: %b\r\n" % (HSTS, hsts)
        return known.passed_secure.with_lines(lines)
    return known.passed.with_lines(lines)


class Seen:
    """What was read from a node's head: answers with the same head share it.

    :ivar mark: the reason for which the node did not process the request; None: it did.
    :ivar passed: what goes on of it. :ivar stream: it begins an event stream.
    :ivar passed_secure: ``passed`` without a tenant's own Strict-Transport-Security.
    :ivar late: the node says that its tenant did not answer in time.
    """

    def __init__(
        self,
        mark: bytes | None,
        passed: ResponseHead,
        passed_secure: ResponseHead,
        stream: bool,
        late: bool,
    ) -> None:
        self.mark = mark
        self.passed = passed
        self.passed_secure = passed_secure
        self.stream = stream
        self.late = late


def seen_of(head: ResponseHead) -> Seen:
    """See :class:`Seen`."""
    known: Seen = head.memo or _see(head)
    return known


def _see(head: ResponseHead) -> Seen:
    kept = [
        field
        for field in head.headers
        if not (lower := field[0].lower()).startswith(signing.PREFIX) or lower in _FOR_CLIENTS
        if lower != b"x-request-id"
    ]
    passed = ResponseHead(head.status, head.reason, kept)
    encoded_head(passed)
    others = without(kept, HSTS.lower())
    secure = passed if len(others) == len(kept) else ResponseHead(head.status, head.reason, others)
    encoded_head(secure)
    content_type = head.get(b"content-type") or b""
    head.memo = Seen(
        head.get(signing.NOT_PROCESSED.lower()),
        passed,
        secure,
        content_type.lower().startswith(b"text/event-stream"),
        head.get(signing.NO_ANSWER.lower()) == signing.TENANT,
    )
    seen: Seen = head.memo
    return seen


def mark_of(head: ResponseHead) -> bytes | None:
    """The reason for which the node did not process the request; None: it did."""
    return seen_of(head).mark


def epoch_of(head: ResponseHead) -> int:
    """The epoch that a node told with the mark ``moved``; 0: none that can be read."""
    text = head.get(signing.NODE_EPOCH.lower()) or b""
    return int(text) if text.isdigit() and len(text) <= 18 else 0
