"""The state machine that the simulated group replicates: a few keys, with client sessions.

A key holds a tuple of values: ``put`` replaces it, ``add`` lengthens it by one (which shows at once
if a command ran twice). Commands carry the name of the client's operation, so that a checker can
count how often each was executed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import msgspec

from pbcluster.errors import SessionExpired
from pbcluster.raft.messages import Entry, EntryKind
from pbcluster.raft.sessions import SessionTable, StoredSession

#: Small, so that sessions expire and results are forgotten within a run.
MAX_SESSIONS = 3
MAX_RESULTS = 4


class Command(msgspec.Struct, frozen=True, array_like=True):
    """``kind`` is open, put or add; an open has no session."""

    kind: str
    operation: str
    session: int = 0
    sequence: int = 0
    key: str = ""
    value: str = ""


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """What a command came to: the key's length after it, a new session, or ``expired``."""

    number: int = 0
    expired: bool = False


class MachineImage(msgspec.Struct, frozen=True, array_like=True):
    """The whole state, as in a snapshot."""

    keys: tuple[tuple[str, tuple[str, ...]], ...]
    sessions: tuple[StoredSession, ...]


_encoder = msgspec.msgpack.Encoder()
_commands = msgspec.msgpack.Decoder(Command)
_images = msgspec.msgpack.Decoder(MachineImage)


def encode_command(command: Command) -> bytes:
    """The data of an entry."""
    return _encoder.encode(command)


def checksum(data: bytes) -> int:
    """What a snapshot's metadata carries."""
    return zlib.crc32(data)


class Machine:
    """One replica of the state."""

    def __init__(self, executed: Callable[[str], None] | None = None) -> None:
        """
        :param executed: told the operation of every command that is really executed.
        """
        self.keys: dict[str, tuple[str, ...]] = {}
        self.sessions = SessionTable(max_sessions=MAX_SESSIONS, max_results=MAX_RESULTS)
        self._executed = executed

    def apply(self, entry: Entry) -> Outcome | None:
        """Apply one committed entry; the outcome of a command."""
        if entry.kind is not EntryKind.COMMAND:
            return None
        command = _commands.decode(entry.data)
        if command.kind == "open":
            return Outcome(self.sessions.open(entry.index))
        try:
            known = self.sessions.recall(command.session, command.sequence, entry.index)
        except SessionExpired:
            return Outcome(expired=True)
        if known is not None:
            return Outcome(int.from_bytes(known))
        outcome = self._execute(command)
        self.sessions.remember(command.session, command.sequence, outcome.number.to_bytes(4))
        return outcome

    def _execute(self, command: Command) -> Outcome:
        if self._executed is not None:
            self._executed(command.operation)
        old = self.keys.get(command.key, ()) if command.kind == "add" else ()
        self.keys[command.key] = (*old, command.value)
        return Outcome(len(old) + 1)

    def image(self) -> MachineImage:
        """Everything; equal states give equal images."""
        return MachineImage(tuple(sorted(self.keys.items())), self.sessions.store())

    def dump(self) -> bytes:
        """The bytes of a snapshot."""
        return _encoder.encode(self.image())

    def load(self, data: bytes) -> None:
        """Become what :meth:`dump` gave."""
        image = _images.decode(data)
        self.keys = dict(image.keys)
        self.sessions.load(image.sessions)
