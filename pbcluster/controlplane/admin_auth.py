"""Who may use the admin API: bearers of the admin token (RFC 6750), compared in constant time.

Only the SHA-256 of the token is known here, so no file of a member gives it away. Wrong tries are
limited for each client address: guessing 256 random bits is hopeless anyway, the limit keeps the
log readable.
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

    def check(self, authorization: str | None, address: str, now: float) -> None:
        """Let a request pass.

        :param authorization: the header's value.
        :param address: the client's IP address.
        :raises Unauthorized: no token, or a wrong one.
        :raises Busy: too many wrong tokens came from this address.
        """
        failures = self._failures.get(address)
        if failures is not None and now - failures.since > WINDOW_S:
            del self._failures[address]
            failures = None
        if failures is not None and failures.count >= MAX_FAILURES:
            wait_s = WINDOW_S - (now - failures.since)
            raise Busy("too many wrong tokens from your address", retry_after_s=round(wait_s, 1))
        if authorization is None:
            raise Unauthorized("this needs the header: Authorization: Bearer ADMIN_TOKEN")
        scheme, _, token = authorization.partition(" ")
        given = hashlib.sha256(token.strip().encode()).hexdigest().encode()
        right = hmac.compare_digest(given, self._hash) if self._hash else False
        if scheme.lower() != "bearer" or not right:
            self._count(address, now)
            raise Unauthorized("the admin token is wrong")

    def _count(self, address: str, now: float) -> None:
        failures = self._failures.setdefault(address, _Failures(now, 0))
        failures.count += 1
        if len(self._failures) > MAX_ADDRESSES:
            del self._failures[next(iter(self._failures))]
