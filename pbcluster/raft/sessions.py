"""Exactly-once commands: what a state machine remembers of its callers (thesis, section 6.3).

A client opens a session by a command of its own; the session's id is that command's log index, so
no id is ever used again, not even when an "open" is repeated. Every further command carries the
session and a sequence number the client never reuses for another command. The first time a number
is applied its result is kept; a repetition gets the kept result and changes nothing. Numbers may
arrive in any order (several in flight).

What can be forgotten is bounded, and forgetting is never guessed away: a command whose session is
gone, or whose number is at or below the highest forgotten one, is refused with
:class:`~pbcluster.errors.SessionExpired`; whether it ran is then unknown.

Deterministic: everything depends on the log alone (no clock). The session that was used longest
ago, by log index, goes first.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from pbcluster.errors import SessionExpired

#: Sessions kept. A process has one or a few, so this is far more than a platform has callers at
#: once; and 10,000 times 64 small results stay below 100 MB.
MAX_SESSIONS = 10_000
#: Results kept of one session: more than any client keeps in flight.
MAX_RESULTS = 64


class StoredSession(msgspec.Struct, frozen=True, array_like=True):
    """A session in a snapshot."""

    session_id: int
    last_used_index: int
    forgotten: int
    results: tuple[tuple[int, bytes], ...]


class _Session:
    __slots__ = ("forgotten", "last_used_index", "results")

    def __init__(self, index: int) -> None:
        self.last_used_index = index
        #: Numbers up to here may have run and are not remembered.
        self.forgotten = 0
        self.results: dict[int, bytes] = {}


class SessionTable:
    """The sessions of one state machine."""

    def __init__(self, *, max_sessions: int = MAX_SESSIONS, max_results: int = MAX_RESULTS) -> None:
        """The bounds are part of the state machine: the same on every member."""
        self._max_sessions = max_sessions
        self._max_results = max_results
        #: In the order of their last use.
        self._sessions: OrderedDict[int, _Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, index: int) -> int:
        """Apply an "open" at log index ``index``.

        :returns: the new session's id. The session used longest ago may have to go for it.
        """
        self._sessions[index] = _Session(index)
        while len(self._sessions) > self._max_sessions:
            self._sessions.popitem(last=False)
        return index

    def recall(self, session_id: int, sequence: int, index: int) -> bytes | None:
        """Before applying the command ``sequence`` of a session at log index ``index``.

        :returns: the result of the first time, which is to be answered again; or None: apply it,
            then :meth:`remember` its result.
        :raises SessionExpired: session or number are forgotten; the command must not be applied.
        """
        session = self._sessions.get(session_id)
        if session is None:
            raise SessionExpired(f"session {session_id} is not known (any more): open a new one")
        session.last_used_index = index
        self._sessions.move_to_end(session_id)
        known = session.results.get(sequence)
        if known is None and sequence <= session.forgotten:
            raise SessionExpired(f"command {sequence} of session {session_id} is forgotten")
        return known

    def remember(self, session_id: int, sequence: int, result: bytes) -> None:
        """The command that :meth:`recall` did not know was applied."""
        session = self._sessions[session_id]
        session.results[sequence] = result
        while len(session.results) > self._max_results:
            lowest = min(session.results)
            del session.results[lowest]
            session.forgotten = max(session.forgotten, lowest)

    def store(self) -> tuple[StoredSession, ...]:
        """The whole table for a snapshot, in order of last use; equal tables give equal values."""
        return tuple(
            StoredSession(
                session_id, one.last_used_index, one.forgotten, tuple(sorted(one.results.items()))
            )
            for session_id, one in self._sessions.items()
        )

    def load(self, stored: tuple[StoredSession, ...]) -> None:
        """Replace everything by what :meth:`store` gave."""
        self._sessions.clear()
        for one in stored:
            session = _Session(one.last_used_index)
            session.forgotten = one.forgotten
            session.results = dict(one.results)
            self._sessions[one.session_id] = session
