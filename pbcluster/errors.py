"""The errors of pbcluster: one tree, each class saying whose fault it is, what to do.

An error that may reach a user carries a ``status`` (the HTTP status it becomes), a ``code`` (a
short stable word that programs compare) and ``data`` (small, JSON-encodable, free of secrets). Its
text is a sentence a person can act on. Errors cross process borders as ``wire.ErrorReply`` and come
back as the same class by their ``code``; see :func:`from_code`.
"""

from __future__ import annotations

from typing import Any, ClassVar


class PBClusterError(Exception):
    """Root of the tree. ``str(error)`` is the sentence for people."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"

    def __init__(self, message: str, **data: Any) -> None:
        """
        :param message: what is wrong, and what is allowed or what to do.
        :param data: JSON-encodable details; never a secret.
        """
        super().__init__(message)
        self.message = message
        self.data = data


# -- the caller's fault ---------------------------------------------------------------------------


class CallerError(PBClusterError):
    """The request itself is wrong: repeating it unchanged cannot succeed."""

    status = 400
    code = "bad_request"


class InvalidInput(CallerError):
    """A field has a value that is not allowed."""

    status = 400
    code = "invalid"

    def __init__(self, message: str, *, field: str = "", allowed: str = "", **data: Any) -> None:
        """
        :param field: the field's name as the caller spelled it.
        :param allowed: what would be accepted, in words.
        """
        super().__init__(message, field=field, allowed=allowed, **data)


class Unprocessable(InvalidInput):
    """A field has a value of the right type and form that cannot be all the same."""

    status = 422
    code = "unprocessable"


class Unauthorized(CallerError):
    """No credentials, or wrong ones."""

    status = 401
    code = "unauthorized"


class Forbidden(CallerError):
    """The credentials are known but do not allow this."""

    status = 403
    code = "forbidden"


class NotFound(CallerError):
    """No such tenant, node or page."""

    status = 404
    code = "not_found"


class Archived(NotFound):
    """The tenant is archived: it answers again when an operator activates it, not before."""

    status = 503
    code = "archived"


class Conflict(CallerError):
    """The name is taken, or the record changed since it was read."""

    status = 409
    code = "conflict"


class TooLarge(CallerError):
    """A body, frame or record is over its bound."""

    status = 413
    code = "too_large"


class Limited(CallerError):
    """Somebody asked more often, or for more at once, than is allowed: later it may be served."""

    status = 429
    code = "limited"


class StorageFull(CallerError):
    """A tenant stores as much as it may: what adds to it is refused until something is deleted."""

    status = 507
    code = "storage_full"


class WrongEpoch(CallerError):
    """The message speaks of an older or newer ownership than the receiver knows."""

    status = 421
    code = "wrong_epoch"


class ConfigError(CallerError):
    """A configuration file, flag or environment cannot be used; the process does not start."""

    code = "config"


# -- nobody's fault, or ours: the caller may try again --------------------------------------------


class Unavailable(PBClusterError):
    """It cannot be done now. ``retry_after_s`` says when to come back."""

    status = 503
    code = "unavailable"

    def __init__(self, message: str, *, retry_after_s: float = 1.0, **data: Any) -> None:
        super().__init__(message, retry_after_s=retry_after_s, **data)

    @property
    def retry_after_s(self) -> float:
        """Seconds until a retry makes sense."""
        return float(self.data["retry_after_s"])


class NoCapacity(Unavailable):
    """No node has room for the tenant."""

    code = "no_capacity"


class Busy(Unavailable):
    """A bounded queue is full; nothing was done."""

    code = "busy"


class NotLeader(Unavailable):
    """Only the leader can do this. ``data["leader"]`` is its request endpoint, or empty."""

    code = "not_leader"


class DeadlineExceeded(Unavailable):
    """No answer in time. Whether the other side acted is unknown: repeat with the same key."""

    status = 504
    code = "deadline"


class SessionExpired(Unavailable):
    """The idempotency record of a retried request is gone, so it is refused instead of guessed."""

    status = 409
    code = "session_expired"


# -- ownership and storage ------------------------------------------------------------------------


class OwnershipLost(Unavailable):
    """This node no longer owns the tenant: its processes are ended and nothing is acknowledged."""

    status = 421
    code = "ownership_lost"


class ClaimRefused(PBClusterError):
    """S3 shows another owner or a prefix at or above our epoch.

    ``data["observed_epoch"]`` is the highest epoch seen; the next assignment must exceed it.
    """

    status = 503
    code = "claim_refused"


class S3Unavailable(Unavailable):
    """S3 did not answer, or answered with a fault of its own."""

    code = "s3_unavailable"


class StorageCorrupt(PBClusterError):
    """A stored thing fails its check. Everything is kept; a person must look."""

    code = "storage_corrupt"


class ProcessFailed(PBClusterError):
    """A child process (PocketBase, Litestream, SeaweedFS) did not start or ended by itself."""

    status = 503
    code = "process_failed"


# -- protocol -------------------------------------------------------------------------------------


class ProtocolError(PBClusterError):
    """Two sides do not speak the same language."""

    code = "protocol"


class LocalProtocolError(ProtocolError):
    """We tried to send what may not be sent: a bug of ours."""

    code = "protocol_local"


class RemoteProtocolError(ProtocolError):
    """The other side sent what may not be sent; the message is dropped or answered with 400."""

    status = 400
    code = "protocol_remote"


def _by_code(root: type[PBClusterError]) -> dict[str, type[PBClusterError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found.update(_by_code(child))
    return found


def from_code(code: str, message: str, data: dict[str, Any] | None = None) -> PBClusterError:
    """Rebuild an error that crossed a process border.

    :param code: the ``code`` of a class of this module; an unknown one gives a plain
        :class:`PBClusterError`, so that a newer peer cannot crash an older one.
    :param message: its sentence.
    :param data: its details.
    """
    cls = _by_code(PBClusterError).get(code, PBClusterError)
    error = cls.__new__(cls)
    PBClusterError.__init__(error, message, **(data or {}))
    if isinstance(error, Unavailable):
        error.data.setdefault("retry_after_s", 1.0)
    return error
