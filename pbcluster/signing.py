"""How a node knows that a request was sent by one of its gateways, and the node's own marks.

A gateway signs method, target, tenant, epoch, time and request id of every request with its key
(BLAKE2b of 32 bytes, keyed as RFC 7693 says); the node recomputes it. So a node's front door may
stand on a network, and a stolen request is worth nothing after :data:`MAX_SKEW_S`. The body is not
signed: the channel is the cluster's own.

All of it stands in one field, :data:`SIGNED`, as six words with single spaces: the gateway's id,
the tenant's id, the epoch, Unix milliseconds, the request id, and the MAC in hexadecimal.

The header names below belong to the platform: what a client or a tenant's PocketBase sends under
:data:`PREFIX` is removed at the first hop, so that such a mark always means what it says.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from hmac import compare_digest
from typing import Any

from pbcluster.errors import Unauthorized

#: Every header of the platform begins so (in lower case).
PREFIX = b"x-pbcluster-"

SIGNED = b"X-PBCluster-Signed"

#: The node did not hand the request to PocketBase: it may be sent again, whatever its method.
#: Its value is one of :data:`NOT_PROCESSED_REASONS`.
NOT_PROCESSED = b"X-PBCluster-Not-Processed"
NOT_PROCESSED_REASONS = (b"moved", b"loading", b"draining", b"no-proof", b"busy", b"unsigned")
#: With ``moved``: the epoch that the node knows of.
NODE_EPOCH = b"X-PBCluster-Node-Epoch"
#: With a node's own 504: it is the tenant that did not answer in time, see :data:`TENANT`.
NO_ANSWER = b"X-PBCluster-No-Answer"
TENANT = b"tenant"
#: How durable an acknowledged write is: ``s3``, ``async`` (in S3 within 5 s) or ``local`` (on the
#: disk of one node only, while S3 is away).
DURABILITY = b"X-PBCluster-Durability"

#: Clocks of gateway and node may differ by so much.
MAX_SKEW_S = 30.0
#: Of epoch and time together; more could not be right.
MAX_DIGITS = 40
_MAC_BYTES = 32
_NAME = SIGNED.lower()
#: No gateway has a key beside its own.
NONE_ELSE: Mapping[str, Sequence[bytes]] = {}


def derived_key(seed: str, gateway_id: str) -> str:
    """The key of a gateway that joined: nodes make it by themselves for each id that the
    control plane names. Ids never come back, so neither do keys.

    :param seed: the ``gateway_seed`` of the nodes' secrets.
    """
    told = b"pbcluster gateway " + gateway_id.encode()
    return hmac.new(seed.encode(), told, hashlib.sha256).hexdigest()


class Signed:
    """What a gateway vouches for. Not to be changed.

    :ivar at_ms: when it signed, Unix milliseconds of its clock.
    """

    def __init__(
        self, gateway: str, tenant_id: str, epoch: int, at_ms: int, request_id: str
    ) -> None:
        self.gateway = gateway
        self.tenant_id = tenant_id
        self.epoch = epoch
        self.at_ms = at_ms
        self.request_id = request_id


@functools.lru_cache(maxsize=1024)
def _keyed(key: bytes) -> Any:
    """The hash with the key already in it."""
    if not 0 < len(key) <= hashlib.blake2b.MAX_KEY_SIZE:
        key = hashlib.blake2b(key).digest()
    return hashlib.blake2b(key=key, digest_size=_MAC_BYTES)


def _mac(keyed: Any, method: bytes, target: bytes, words: bytes) -> bytes:
    # Neither of the first two has white space in it: no two requests have the same text.
    made = keyed.copy()
    made.update(b" ".join((method, target, words)))
    mac: str = made.hexdigest()
    return mac.encode()


class Signer:
    """Makes the signatures of one gateway; what depends on it alone is made once."""

    __slots__ = ("_gateway", "_keyed")

    def __init__(self, gateway: str, key: bytes) -> None:
        """
        :param gateway: its id. :param key: its key.
        """
        self._gateway = gateway
        self._keyed = _keyed(key)

    def sign(
        self, method: bytes, target: bytes, tenant_id: str, epoch: int, at_ms: int, request_id: str
    ) -> bytes:
        """The value of the field :data:`SIGNED`; parameters as in :class:`Signed`.

        :param target: the request target exactly as it is sent. No part has white space in it.
        """
        words = f"{self._gateway} {tenant_id} {epoch} {at_ms} {request_id}"
        made = self._keyed.copy()
        made.update(b" ".join((method, target, words.encode())))
        return f"{words} {made.hexdigest()}".encode()


def sign(key: bytes, method: bytes, target: bytes, what: Signed) -> bytes:
    """The value of the field :data:`SIGNED`.

    :param key: the gateway's key. None of the parts has white space in it.
    :param target: the request target exactly as it is sent.
    """
    return Signer(what.gateway, key).sign(
        method, target, what.tenant_id, what.epoch, what.at_ms, what.request_id
    )


def found_in(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The value of the field :data:`SIGNED`, empty without one.

    :raises Unauthorized: it stands twice.
    """
    found = [value for name, value in headers if name.lower() == _NAME]
    if len(found) > 1:
        raise Unauthorized("a gateway's signature stands twice")
    return found[0] if found else b""


def verify(
    keys: Mapping[str, bytes],
    method: bytes,
    target: bytes,
    value: bytes,
    now_ms: int,
    also: Mapping[str, Sequence[bytes]] = NONE_ELSE,
) -> Signed:
    """Check a request at the node.

    :param keys: gateway id → key. :param value: of the field :data:`SIGNED`.
    :param now_ms: Unix milliseconds of this machine's clock.
    :param also: further keys of gateways, while their keys are exchanged.
    :raises Unauthorized: it is empty or malformed, the gateway unknown, the time too far off, or
        the signature wrong. The text does not say more than a log needs.
    """
    parts = value.rpartition(b" ")
    words: bytes = parts[0]
    mac: bytes = parts[2]
    try:
        gateway, tenant_id, epoch, at, request_id = words.decode("ascii").split(" ")
        if not (epoch.isdigit() and at.isdigit()) or len(epoch) + len(at) > MAX_DIGITS:
            raise ValueError
        at_ms = int(at)
        signed: Signed = Signed(gateway, tenant_id, int(epoch), at_ms, request_id)
    except ValueError:
        raise Unauthorized("not signed by a gateway") from None
    key = keys.get(gateway)
    # An unknown gateway costs the same time as a wrong signature.
    expected = _mac(_keyed(key if key is not None else b"\x00"), method, target, words)
    known = compare_digest(expected, mac) and key is not None
    if not known and key is not None:
        for other in also.get(gateway, ()):
            known = known or compare_digest(_mac(_keyed(other), method, target, words), mac)
    if not known:
        raise Unauthorized("the gateway's signature is wrong")
    if abs(now_ms - at_ms) > MAX_SKEW_S * 1000:
        raise Unauthorized(f"signed {(now_ms - at_ms) / 1000:.0f} s ago by its clock")
    return signed


def without_marks(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """``headers`` without any field of the platform."""
    return [field for field in headers if not field[0].lower().startswith(PREFIX)]
