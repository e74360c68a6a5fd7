"""How a node knows that a request was sent by one of its gateways, and the node's own marks.

A gateway signs method, target, tenant, epoch, time and request id of every request with its key
(HMAC-SHA256); the node recomputes it. So a node's front door may stand on a network, and a stolen
request is worth nothing after :data:`MAX_SKEW_S`. The body is not signed: the channel is the
cluster's own.

The header names below belong to the platform: what a client or a tenant's PocketBase sends under
:data:`PREFIX` is removed at the first hop, so that such a mark always means what it says.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence

import attrs

from pbcluster.errors import Unauthorized

#: Every header of the platform begins so (in lower case).
PREFIX = b"x-pbcluster-"

GATEWAY = b"X-PBCluster-Gateway"
TENANT = b"X-PBCluster-Tenant"
EPOCH = b"X-PBCluster-Epoch"
TIME = b"X-PBCluster-Time"
REQUEST_ID = b"X-PBCluster-Request-ID"
SIGNATURE = b"X-PBCluster-Signature"

#: The node did not hand the request to PocketBase: it may be sent again, whatever its method.
#: Its value is one of :data:`NOT_PROCESSED_REASONS`.
NOT_PROCESSED = b"X-PBCluster-Not-Processed"
NOT_PROCESSED_REASONS = (b"moved", b"loading", b"draining", b"no-proof", b"busy", b"unsigned")
#: With ``moved``: the epoch that the node knows of.
NODE_EPOCH = b"X-PBCluster-Node-Epoch"
#: How durable an acknowledged write is: absent (in S3) or ``local``.
DURABILITY = b"X-PBCluster-Durability"

#: Clocks of gateway and node may differ by so much.
MAX_SKEW_S = 30.0
_SIGNED = (GATEWAY, TENANT, EPOCH, TIME, REQUEST_ID)


@attrs.frozen
class Signed:
    """What a gateway vouches for.

    :ivar at_ms: when it signed, Unix milliseconds of its clock.
    """

    gateway: str
    tenant_id: str
    epoch: int
    at_ms: int
    request_id: str


def _mac(key: bytes, method: bytes, target: bytes, values: Sequence[bytes]) -> bytes:
    # Lengths keep one field from running into the next: no two requests have the same text.
    fields = (method, target, *values)
    text = b"".join(b"%d:%s," % (len(field), field) for field in fields)
    return hmac.new(key, text, hashlib.sha256).hexdigest().encode()


def sign(key: bytes, method: bytes, target: bytes, what: Signed) -> list[tuple[bytes, bytes]]:
    """The headers that a gateway adds.

    :param key: the gateway's HMAC key.
    :param target: the request target exactly as it is sent.
    """
    values = (
        what.gateway.encode(),
        what.tenant_id.encode(),
        b"%d" % what.epoch,
        b"%d" % what.at_ms,
        what.request_id.encode(),
    )
    mac = _mac(key, method, target, values)
    return [*zip(_SIGNED, values, strict=True), (SIGNATURE, mac)]


def verify(
    keys: Mapping[str, bytes],
    method: bytes,
    target: bytes,
    headers: Sequence[tuple[bytes, bytes]],
    now_ms: int,
) -> Signed:
    """Check a request at the node.

    :param keys: gateway id → HMAC key.
    :param headers: all fields of the request as they came.
    :param now_ms: Unix milliseconds of this machine's clock.
    :raises Unauthorized: a field is missing, doubled or malformed, the gateway unknown, the time
        too far off, or the signature wrong. The text does not say more than a log needs.
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        lower = name.lower()
        if lower.startswith(PREFIX):
            if lower in found:
                raise Unauthorized("a gateway header stands twice")
            found[lower] = value
    try:
        values = [found[name.lower()] for name in _SIGNED]
        signature = found[SIGNATURE.lower()]
        gateway, tenant_id, request_id = (values[at].decode("ascii") for at in (0, 1, 4))
        epoch, at_ms = _number(values[2]), _number(values[3])
    except (KeyError, ValueError):
        raise Unauthorized("not signed by a gateway") from None
    key = keys.get(gateway)
    # An unknown gateway costs the same time as a wrong signature.
    expected = _mac(key if key is not None else b"\x00", method, target, values)
    if not hmac.compare_digest(expected, signature) or key is None:
        raise Unauthorized("the gateway's signature is wrong")
    if abs(now_ms - at_ms) > MAX_SKEW_S * 1000:
        raise Unauthorized(f"signed {(now_ms - at_ms) / 1000:.0f} s ago by the gateway's clock")
    return Signed(gateway, tenant_id, epoch, at_ms, request_id)


def _number(text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:
        raise ValueError
    return int(text)


def without_marks(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """``headers`` without any field of the platform."""
    return [field for field in headers if not field[0].lower().startswith(PREFIX)]
