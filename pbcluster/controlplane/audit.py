"""The audit trail: who did what, when and from where. Part of the registry, changed in log order.

An entry is made where the command that it tells of is applied, from the note that travels in the
same log entry: what was done has its entry, whatever happens to the member that was asked. What
changes nothing (a login into a tenant, a look into its log) travels as ``commands.Noted``.

What holds: at most :data:`MAX_ENTRIES` are kept, the oldest goes first; every field is cut to a
bound; nothing of a body stands in an entry but the names of its fields and what its note's maker
put there, which is never a secret. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from datetime import datetime

from pbcluster.controlplane import commands as c
from pbcluster.records import Record

#: Some 300 bytes each: 3 MB of a member and of its snapshots.
MAX_ENTRIES = 10_000
#: Characters.
MAX_DETAIL = 400
MAX_FIELD = 100
#: The outcome of what was done; else it is the code of the error that refused it.
DONE = "done"


class AuditEntry(Record, frozen=True):
    """One entry. ``id`` is the log index of its command, so that entries are in its order."""

    id: int
    at: datetime
    actor: str
    role: str
    address: str
    action: str
    target: str = ""
    detail: str = ""
    request_id: str = ""
    outcome: str = DONE


def note(
    actor: str,
    role: str,
    address: str,
    request_id: str,
    action: str,
    target: str = "",
    detail: str = "",
) -> c.AuditNote:
    """A note within its bounds.

    :param actor: id of the API token, or ``admin`` for the cluster's own admin token.
    :param address: IP address of the client. :param action: what was asked, like ``tenant.create``.
    :param target: id of what it is about. :param detail: anything further; never a secret.
    """
    return c.AuditNote(
        actor[:MAX_FIELD],
        role[:MAX_FIELD],
        address[:MAX_FIELD],
        request_id[:MAX_FIELD],
        action[:MAX_FIELD],
        target[:MAX_FIELD],
        detail[:MAX_DETAIL],
    )


#: Who does what nobody asked for now: rescues, drains' moves, aborts.
ITSELF = "control-plane"


def by_itself(action: str, target: str, reason: str) -> c.AuditNote:
    """A note of what the control plane does of its own accord, and why."""
    return note(ITSELF, "", "", "", action, target, reason)


class AuditTrail:
    """All entries, the oldest first."""

    def __init__(self, entries: Iterable[AuditEntry] = ()) -> None:
        self._entries: deque[AuditEntry] = deque(entries, maxlen=MAX_ENTRIES)

    def __iter__(self) -> Iterator[AuditEntry]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def newest_first(self) -> list[AuditEntry]:
        """All entries."""
        return list(reversed(self._entries))

    def add(self, index: int, at: datetime, note: c.AuditNote, outcome: str) -> None:
        """What was noted was done, or refused, by the command at ``index``."""
        self._entries.append(
            AuditEntry(
                id=index,
                at=at,
                actor=note.actor,
                role=note.role,
                address=note.address,
                action=note.action,
                target=note.target,
                detail=note.detail,
                request_id=note.request_id,
                outcome=outcome,
            )
        )
