"""What every message is made of, and the answers that fit any question."""

from __future__ import annotations

from typing import Any

import msgspec

from pbcluster.errors import PBClusterError, from_code


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Base of all bodies; the tag is the class's name. As ``records.Record``, never in a cycle."""


class Ok(Message, frozen=True):
    """Done; nothing to tell."""


class ErrorReply(Message, frozen=True):
    """An error of ``pbcluster.errors`` on its way to the other side."""

    code: str
    message: str
    data: dict[str, Any] = {}

    @classmethod
    def of(cls, error: BaseException) -> ErrorReply:
        """Wrap ``error``; one that is not ours becomes ``internal`` and shows no detail."""
        if isinstance(error, PBClusterError):
            return cls(error.code, error.message, error.data)
        return cls("internal", f"internal error ({type(error).__name__})")

    def exception(self) -> PBClusterError:
        """The error to raise at the asking side."""
        return from_code(self.code, self.message, self.data)
