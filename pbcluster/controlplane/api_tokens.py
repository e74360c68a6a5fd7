"""The tokens of the admin API: part of the registry, changed in log order only. Pure.

What holds: a token is known by its SHA-256 alone, so neither a store nor a snapshot gives one away
(256 random bits need no slow hash); no two living ones have one name; at most :data:`MAX_TOKENS`
are there, and one that ended makes room for the next. Whether one has ended is asked with a time
that comes in: applying has no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

import msgspec

from pbcluster.controlplane import commands as c
from pbcluster.errors import Conflict, NotFound
from pbcluster.records import Role

MAX_TOKENS = 1000


class ApiToken(msgspec.Struct, frozen=True, array_like=True):
    """One token; ``digest`` is its SHA-256, ``expires`` None: it does not end by itself."""

    id: str
    name: str
    role: Role
    digest: bytes
    created: datetime
    created_by: str
    expires: datetime | None = None

    def __repr__(self) -> str:
        return f"ApiToken({self.id!r}, {self.role.value})"

    def ended(self, at: datetime) -> bool:
        """Whether it is valid no more."""
        return self.expires is not None and self.expires <= at


class ApiTokens:
    """All tokens that were not revoked, in the order of creation."""

    def __init__(self, tokens: Iterable[ApiToken] = ()) -> None:
        self._tokens = {token.id: token for token in tokens}

    def __iter__(self) -> Iterator[ApiToken]:
        return iter(tuple(self._tokens.values()))

    def get(self, token_id: str) -> ApiToken | None:
        """A token, ended or not; None: there is none, or it was revoked."""
        return self._tokens.get(token_id)

    def create(self, command: c.CreateApiToken) -> ApiToken:
        """Add one.

        :raises Conflict: a living one has its name, or there are too many.
        """
        for token in self:
            if token.ended(command.at):
                del self._tokens[token.id]
        if any(token.name == command.name for token in self):
            raise Conflict(f"an API token {command.name!r} is there already", field="name")
        if len(self._tokens) >= MAX_TOKENS:
            raise Conflict(f"there are {MAX_TOKENS} API tokens, more are not kept: revoke some")
        if command.token_id in self._tokens:
            raise Conflict("the id of the API token is taken", field="id")
        made = ApiToken(
            command.token_id,
            command.name,
            command.role,
            command.digest,
            command.at,
            command.created_by,
            command.expires,
        )
        self._tokens[made.id] = made
        return made

    def revoke(self, token_id: str) -> None:
        """It is valid no more. :raises NotFound: there is none."""
        if self._tokens.pop(token_id, None) is None:
            raise NotFound(f"no API token {token_id!r}")
