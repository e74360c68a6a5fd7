"""Who may use the admin API: bearers of the admin token (RFC 6750), compared in constant time.

Only the SHA-256 of the token is known here, so no file of a member gives it away. Guessing 256
random bits is hopeless, so wrong tries cost nothing but their own answers: after too many from one
address these become "wait". The right token always passes, or whoever shares the operator's address
could lock him out.
"""

from __future__ import annotations

import hashlib
import hmac

import attrs

from pbcluster.errors import Busy, Unauthorized

#: Wrong tokens from one address within the window, after which it must wait.
MAX_FAILURES = 20
WINDOW_S = 60.0
#: Addresses remembered; the oldest is forgotten first.
MAX_ADDRESSES = 1000


@attrs.define
class _Failures:
    since: float
    count: int


class AdminAuth:
    """Checks Authorization headers."""

    def __init__(self, token_hash: str) -> None:
        """
        :param token_hash: SHA-256 of the admin token in hex; empty: nobody may.
        """
        self._hash = token_hash.lower().encode()
        self._failures: dict[str, _Failures] = {}

    def check(self, authorization: bytes | None, address: str, now: float) -> None:
        """Let a request pass.

        :param authorization: the header's value.
        :param address: the client's IP address.
        :raises Unauthorized: no token, or a wrong one.
        :raises Busy: too many wrong tokens came from this address.
        """
        if authorization is None:
            raise Unauthorized("this needs the header: Authorization: Bearer ADMIN_TOKEN")
        scheme, _, token = authorization.partition(b" ")
        given = hashlib.sha256(token.strip()).hexdigest().encode()
        right = hmac.compare_digest(given, self._hash) if self._hash else False
        if scheme.lower() != b"bearer" or not right:
            self._count(address, now)
            raise Unauthorized("the admin token is wrong")

    def _count(self, address: str, now: float) -> None:
        """:raises Busy: too many wrong tokens came from this address."""
        failures = self._failures.get(address)
        if failures is None or now - failures.since > WINDOW_S:
            failures = self._failures[address] = _Failures(now, 0)
        failures.count += 1
        if failures.count > MAX_FAILURES:
            wait_s = WINDOW_S - (now - failures.since)
            raise Busy("too many wrong tokens from your address", retry_after_s=round(wait_s, 1))
        if len(self._failures) > MAX_ADDRESSES:
            del self._failures[next(iter(self._failures))]
