"""The tokens by which processes join: part of the registry, changed in log order only. Pure.

What holds: a token is known by its SHA-256 alone; it lets one process in, of one role and under one
id, and then only that same process (told by its key) once more, whose answer may have been lost;
at most :data:`MAX_TOKENS` are kept. One that ended is forgotten when another is made, a spent one
:data:`REPEAT` after it was spent at the earliest. Whether one has ended is asked with a time that
comes in: applying has no clock.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

import msgspec

from pbcluster.controlplane import join_commands as c
from pbcluster.errors import Conflict, Forbidden, NotFound, Unauthorized

#: Each has some kilobytes, most of it the parcel.
MAX_TOKENS = 200
MAX_PARCEL_BYTES = 32 * 1024
#: For so long the process that joined may ask again, even after the token's end.
REPEAT = timedelta(hours=1)


class JoinToken(msgspec.Struct, frozen=True, array_like=True):
    """One token; ``used_key`` is the public key of the process that joined by it, empty: none."""

    id: str
    role: str
    process_id: str
    digest: bytes
    parcel: bytes
    created: datetime
    created_by: str
    expires: datetime
    used_key: str = ""
    used: datetime | None = None

    def __repr__(self) -> str:
        return f"JoinToken({self.id!r}, {self.role!r}, {self.process_id!r})"

    @property
    def repeats_until(self) -> datetime:
        """Until then the process that joined may ask again."""
        return self.expires if self.used is None else max(self.expires, self.used + REPEAT)

    def status(self, at: datetime) -> str:
        """used, expired or open."""
        if self.used_key:
            return "used"
        return "expired" if self.expires <= at else "open"

    def check(self, digest: bytes, role: str, process_id: str, key: str, at: datetime) -> bool:
        """Whether this process may join by it.

        :param digest: SHA-256 of the token that it showed. :param key: its public key.
        :returns: whether it joined already: then it is the same one again.
        :raises Unauthorized: the token is wrong or has ended. :raises Forbidden: it is for another
            role or id. :raises Conflict: another process joined by it.
        """
        if not hmac.compare_digest(digest, self.digest):
            raise Unauthorized("the join token is wrong")
        if (role, process_id) != (self.role, self.process_id):
            raise Forbidden(
                f"this token is for {self.role} {self.process_id}, not for {role} {process_id}"
            )
        if self.used_key:
            if self.used_key != key:
                raise Conflict(f"{self.process_id} joined by this token already: make another one")
            if self.repeats_until <= at:
                raise Unauthorized("the join token has ended")
            return True
        if self.expires <= at:
            raise Unauthorized("the join token has ended: make another one")
        return False


class JoinTokens:
    """All tokens that were not revoked, in the order of creation."""

    def __init__(self, tokens: Iterable[JoinToken] = ()) -> None:
        self._tokens = {token.id: token for token in tokens}

    def __iter__(self) -> Iterator[JoinToken]:
        return iter(tuple(self._tokens.values()))

    def find(self, token_id: str) -> JoinToken | None:
        """A token, whatever became of it."""
        return self._tokens.get(token_id)

    def get(self, token_id: str) -> JoinToken:
        """:raises Unauthorized: there is none, or it was revoked or forgotten."""
        found = self._tokens.get(token_id)
        if found is None:
            raise Unauthorized("the join token is wrong, was revoked or is forgotten")
        return found

    def create(self, command: c.CreateJoinToken) -> None:
        """Add one.

        :raises Conflict: an open one is for the same id, or there are too many.
        """
        for token in self:
            if token.repeats_until <= command.at:
                del self._tokens[token.id]
        for token in self:
            if token.process_id == command.process_id:
                raise Conflict(
                    f"there is a join token for {command.process_id} already: revoke {token.id}",
                    field="id",
                )
        if len(self._tokens) >= MAX_TOKENS:
            raise Conflict(f"there are {MAX_TOKENS} join tokens, more are not kept: revoke some")
        if command.token_id in self._tokens:
            raise Conflict("the id of the join token is taken", field="tokenID")
        self._tokens[command.token_id] = JoinToken(
            command.token_id,
            command.role,
            command.process_id,
            command.digest,
            command.parcel,
            command.at,
            command.created_by,
            command.expires,
        )

    def spend(self, token_id: str, key: str, at: datetime) -> None:
        """A process with this public key joined by it."""
        token = self.get(token_id)
        self._tokens[token_id] = msgspec.structs.replace(token, used_key=key, used=at)

    def revoke(self, token_id: str) -> None:
        """Nobody joins by it any more. :raises NotFound: there is none."""
        if self._tokens.pop(token_id, None) is None:
            raise NotFound(f"no join token {token_id!r}")

    def forget_of(self, process_id: str) -> None:
        """The process is removed: its token is good for nothing, not for a repetition either."""
        for token in self:
            if token.process_id == process_id:
                del self._tokens[token.id]
