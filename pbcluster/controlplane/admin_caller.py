"""Who asks the admin API, from where, under which request id.

A request has an id: the client's ``X-Request-Id`` if it can be one, else a fresh one. It stands in
the answer, in every log line of the request and in its audit entry.

A member that passes a request on to the leader says from which address it came, signed with a key
that only members have (made from the hash of the admin token in their secrets), so that the audit
trail and the limit on wrong tokens speak of the client and not of the member. What is not signed so
is not believed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Sequence

import attrs
from twisted.web.server import Request

from pbcluster.controlplane.admin_auth import Principal
from pbcluster.controlplane.admin_table import REQUEST_ID

CLIENT = "x-pbcluster-client"
SIGNATURE = "x-pbcluster-client-signature"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_MAX_ADDRESS = 64
#: The attribute of a request that has its caller.
_CALLER = "pbcluster_caller"


@attrs.frozen
class Caller:
    """Who asks. :ivar principal: None: nobody has to say, and nobody did."""

    address: str
    request_id: str
    principal: Principal | None = None

    @property
    def actor(self) -> str:
        """As the audit trail names it."""
        return "" if self.principal is None else self.principal.id


def caller_of(request: Request) -> Caller:
    """Who asks, as :class:`Callers` found out."""
    found = getattr(request, _CALLER, None)
    return found if isinstance(found, Caller) else Caller("?", "")


def remember(request: Request, caller: Caller) -> None:
    """For :func:`caller_of`."""
    setattr(request, _CALLER, caller)


def request_id_of(
    request: Request, fresh: Callable[[], str] = lambda: secrets.token_hex(16)
) -> str:
    """The client's own id for its request, or a fresh one."""
    given: bytes = request.getHeader(REQUEST_ID.encode()) or b""
    return given.decode("ascii") if _REQUEST_ID.fullmatch(given) else fresh()


class ClientMark:
    """Says, and believes, from which address a request came that a member passed on."""

    def __init__(self, secret: str) -> None:
        """:param secret: what all members know and nobody else; empty: nothing is believed."""
        self._keys: tuple[bytes, ...] = ()
        self.use(secret)

    def use(self, secret: str, also: Sequence[str] = ()) -> None:
        """These are the secrets from now on.

        :param also: what other members may still, or already, mark with.
        """
        words = (each.encode() for each in (secret, *also) if each)
        self._keys = tuple(hashlib.sha256(b"pbcluster client mark " + w).digest() for w in words)

    def headers(self, request: Request, caller: Caller) -> dict[str, str]:
        """What goes along with the request."""
        if not self._keys:
            return {}
        key = self._keys[0]
        return {
            CLIENT: caller.address,
            SIGNATURE: _signature(key, request, caller.address, caller.request_id),
        }

    def address_of(self, request: Request, request_id: str) -> str:
        """The client's address: as a member says, or that of the connection."""
        peer = str(getattr(request.getClientAddress(), "host", "?"))
        claimed: bytes = request.getHeader(CLIENT.encode()) or b""
        given: bytes = request.getHeader(SIGNATURE.encode()) or b""
        address = claimed[:_MAX_ADDRESS].decode("ascii", "replace")
        if not address or not given.isascii():
            return peer
        wanted = (_signature(key, request, address, request_id) for key in self._keys)
        return address if any(hmac.compare_digest(given.decode(), w) for w in wanted) else peer


def _signature(key: bytes, request: Request, address: str, request_id: str) -> str:
    parts = (
        address.encode(),
        request_id.encode(),
        request.method,
        request.uri,
        request.getHeader(b"authorization") or b"",
    )
    told = b"\n".join(hashlib.sha256(part).digest() for part in parts)
    return hmac.new(key, told, "sha256").hexdigest()
