"""Who may use the admin API: bearers of a token (RFC 6750), compared in constant time.

There is the cluster's own admin token, whose SHA-256 stands in each member's secrets, and there are
API tokens, whose SHA-256 stands in the registry (``api_tokens``): no file of a member gives one
away. An API token is ``ID.SECRET``, so that it is found by its id and compared once.

Guessing 256 random bits is hopeless, so wrong tries cost nothing but their own answers: after too
many from one address these become 429. The right token always passes, or whoever shares the
operator's address could lock him out.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import attrs

from pbcluster.controlplane.api_tokens import ApiTokens
from pbcluster.errors import Forbidden, Limited, Unauthorized
from pbcluster.records import Role

#: Wrong tokens from one address within the window, after which it must wait.
MAX_FAILURES = 20
WINDOW_S = 60.0
#: Addresses remembered; the oldest is forgotten first.
MAX_ADDRESSES = 1000
#: The bearer of the cluster's own admin token, in the audit trail.
ADMIN = "admin"
_RANKS = {Role.VIEWER: 0, Role.OPERATOR: 1, Role.ADMIN: 2}


@attrs.frozen
class Principal:
    """Who asks: :data:`ADMIN` or the id of an API token, and what it allows."""

    id: str
    role: Role

    def need(self, role: Role) -> None:
        """:raises Forbidden: ``role`` allows more than this one has."""
        if _RANKS[self.role] < _RANKS[role]:
            raise Forbidden(
                f"this needs a token of role {role.value}; yours has {self.role.value}",
                role=self.role.value,
                needs=role.value,
            )


@attrs.define
class _Failures:
    since: float
    count: int


class AdminAuth:
    """Checks Authorization headers."""

    def __init__(
        self,
        token_hash: str,
        tokens: Callable[[], ApiTokens] = ApiTokens,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """
        :param token_hash: SHA-256 of the admin token in hex; empty: it is nobody's.
        :param tokens: gives the API tokens as they are now. :param wall_clock: for their ends.
        """
        self._hashes: tuple[bytes, ...] = ()
        self.use(token_hash)
        self._tokens = tokens
        self._wall_clock = wall_clock
        self._failures: dict[str, _Failures] = {}

    def use(self, token_hash: str, also: Sequence[str] = ()) -> None:
        """These are the hashes of the admin token from now on.

        :param also: of further ones, while it is exchanged.
        """
        self._hashes = tuple(each.lower().encode() for each in (token_hash, *also) if each)

    def check(self, authorization: bytes | None, address: str, now: float) -> Principal:
        """Who it is.

        :param authorization: the header's value.
        :param address: the client's IP address.
        :param now: seconds of a clock that never goes back.
        :raises Unauthorized: no token, or a wrong one.
        :raises Limited: too many wrong tokens came from this address.
        """
        if authorization is None:
            raise Unauthorized("this needs the header: Authorization: Bearer TOKEN")
        found = self.known(authorization)
        if found is None:
            self.failed(address, now)
            raise Unauthorized("the token is wrong, revoked or has ended")
        return found

    def known(self, authorization: bytes) -> Principal | None:
        """Whose header this is, None: nobody's that is known here."""
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        token = token.strip()
        digest = hashlib.sha256(token).digest()
        if any(hmac.compare_digest(digest.hex().encode(), each) for each in self._hashes):
            return Principal(ADMIN, Role.ADMIN)
        found = self._tokens().get(token.partition(b".")[0].decode("ascii", "replace"))
        if found is None or not hmac.compare_digest(digest, found.digest):
            return None
        return None if found.ended(self._wall_clock()) else Principal(found.id, found.role)

    def failed(self, address: str, now: float) -> None:
        """A wrong token came. :raises Limited: too many came from this address."""
        failures = self._failures.get(address)
        if failures is None or now - failures.since > WINDOW_S:
            failures = self._failures[address] = _Failures(now, 0)
        failures.count += 1
        if len(self._failures) > MAX_ADDRESSES:
            del self._failures[next(iter(self._failures))]
        self.limit(address, now)

    def limit(self, address: str, now: float) -> None:
        """:raises Limited: too many wrong tokens came from this address."""
        failures = self._failures.get(address)
        if failures is not None and failures.count > MAX_FAILURES:
            wait_s = WINDOW_S - (now - failures.since)
            if wait_s > 0:
                told = "too many wrong tokens from your address"
                raise Limited(told, retry_after_s=round(wait_s, 1))
