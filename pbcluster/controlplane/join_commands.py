"""The commands by which processes of other hosts come into the cluster, and leave it. Pure.

They are part of ``commands.AnyCommand``; the rules of that module hold here.
"""

from __future__ import annotations

from datetime import datetime

from pbcluster.controlplane.command_base import Command
from pbcluster.records import MemberRecord, ProcessRecord


class CreateJoinToken(Command, frozen=True):
    """A token by which one process of this role and id may join once, until ``expires``.

    The token is known by its SHA-256 alone. ``parcel`` is what the process needs beside that, as
    its maker sealed it under the token: nobody here can read it. Fails if the id was ever used.
    """

    at: datetime
    token_id: str
    role: str
    process_id: str
    digest: bytes
    parcel: bytes
    created_by: str
    expires: datetime

    def __repr__(self) -> str:
        return f"CreateJoinToken({self.token_id!r}, {self.role!r}, {self.process_id!r})"


class RevokeJoinToken(Command, frozen=True):
    """Nobody joins by this token any more."""

    at: datetime
    token_id: str


class Join(Command, frozen=True):
    """A process joins by a token, which is spent then.

    The same process (the same key) may say it again. Fails for another one, after the token's end,
    for another role or id, and for an id, key or address that somebody has or had.

    :ivar member: with role ``member``: where it is reached. It has no vote by this alone.
    """

    at: datetime
    token_id: str
    digest: bytes
    process: ProcessRecord
    member: MemberRecord | None = None

    def __repr__(self) -> str:
        return f"Join({self.token_id!r}, {self.process.role!r}, {self.process.id!r})"


class SetProcess(Command, frozen=True):
    """A node or gateway that the settings of the members name."""

    at: datetime
    process: ProcessRecord


class RemoveProcess(Command, frozen=True):
    """A node or gateway is let in no more, and never again under its id or with its key.

    Fails for a node that has tenants, unless by ``force``: they are placed elsewhere then, as
    those of a node that died. Also takes a member out that is known and is not in the group (who
    is, leaves by a change of the group).
    """

    at: datetime
    process_id: str
    role: str
    force: bool = False
