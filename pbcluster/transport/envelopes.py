"""Frames at the border: sealed before they leave, checked before anything acts on them. Pure.

The checks, in this order: number of parts, size, magic and version, types, cluster, sender. What
fails one is junk: counted by its cause, dropped, and told to the log at most once a minute (a
flood of junk must not become a flood of log lines). Answers nothing: an answer to junk would help
who sends it.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Sequence

from pbcluster import wire
from pbcluster.errors import LocalProtocolError, RemoteProtocolError, TooLarge

#: Seconds between two log lines about junk.
LOG_INTERVAL_S = 60.0
#: ``records.check_process_id``'s rule.
MAX_SENDER_LENGTH = 63


class Junk(enum.Enum):
    """Why a frame was dropped."""

    PARTS = "parts"
    SIZE = "size"
    MAGIC = "magic"
    MALFORMED = "malformed"
    CLUSTER = "cluster"
    SENDER = "sender"
    BODY = "body"


def seal(envelope: wire.Envelope, max_bytes: int = wire.MAX_FRAME_BYTES) -> bytes:
    """The frame of ``envelope``.

    :raises TooLarge: it would be refused at the other side; nothing was sent.
    :raises LocalProtocolError: the body holds something that has no encoding: a bug of ours.
    """
    try:
        frame = wire.encode(envelope)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        kind = type(envelope.body).__name__
        raise LocalProtocolError(f"{kind} cannot be encoded: {error}") from None
    if len(frame) > max_bytes:
        kind = type(envelope.body).__name__
        raise TooLarge(f"{kind} takes {len(frame)} bytes, {max_bytes} are allowed")
    return frame


class FrameChecks:
    """The checks of one socket, and what they refused.

    :ivar counts: frames, and envelopes of bundles, refused since the start, by cause.
    """

    def __init__(
        self,
        cluster_id: str,
        log: Callable[[str], None],
        *,
        max_bytes: int = wire.MAX_FRAME_BYTES,
    ) -> None:
        """
        :param cluster_id: ours; frames of another cluster are junk.
        :param log: takes one line, at most once per ``LOG_INTERVAL_S``.
        :param max_bytes: larger frames are not even looked at.
        """
        self.counts: Counter[Junk] = Counter()
        self._cluster_id = cluster_id
        self._log = log
        self._max_bytes = max_bytes
        self._next_log = float("-inf")
        self._unlogged = 0

    def open(self, parts: Sequence[bytes], proven: str | None, now: float) -> wire.Envelope | None:
        """The envelope in ``parts``, or None after counting why there is none.

        :param parts: all parts of the message after the routing identity: must be exactly one.
        :param proven: id of the process whose key the connection was made with; None when nothing
            is proven (plain sockets).
        :param now: seconds, for the log's interval.
        """
        found = self._read(parts)
        if isinstance(found, wire.Envelope):
            found = self._whose(found, proven)
        if isinstance(found, Junk):
            self.refuse(found, now)
            return None
        return found

    def open_all(
        self, parts: Sequence[bytes], proven: str | None, now: float
    ) -> Sequence[wire.Envelope | None]:
        """The envelopes in ``parts``: of a bundle several, of any other frame one, of junk none.

        Each of a bundle is checked as if it had come alone; None stands for one that is refused.
        The parameters are those of :meth:`open`.
        """
        if len(parts) != 1 or parts[0][:4] != wire.BUNDLE_MAGIC:
            one = self.open(parts, proven, now)
            return () if one is None else (one,)
        if len(parts[0]) > min(self._max_bytes, wire.MAX_BUNDLE_BYTES):
            self.refuse(Junk.SIZE, now)
            return ()
        try:
            found = wire.decode_bundle(parts[0])
        except RemoteProtocolError:
            self.refuse(Junk.MALFORMED, now)
            return ()
        return [self._checked(envelope, proven, now) for envelope in found]

    def _checked(
        self, envelope: wire.Envelope | None, proven: str | None, now: float
    ) -> wire.Envelope | None:
        found = Junk.MALFORMED if envelope is None else self._whose(envelope, proven)
        if isinstance(found, Junk):
            self.refuse(found, now)
            return None
        return found

    def _read(self, parts: Sequence[bytes]) -> wire.Envelope | Junk:
        if len(parts) != 1:
            return Junk.PARTS
        frame = parts[0]
        if len(frame) > self._max_bytes:
            return Junk.SIZE
        if frame[: len(wire.MAGIC)] != wire.MAGIC:
            return Junk.MAGIC
        try:
            return wire.decode(frame, max_bytes=self._max_bytes)
        except RemoteProtocolError:
            return Junk.MALFORMED

    def _whose(self, envelope: wire.Envelope, proven: str | None) -> wire.Envelope | Junk:
        if envelope.cluster_id != self._cluster_id:
            return Junk.CLUSTER
        if not 0 < len(envelope.sender) <= MAX_SENDER_LENGTH:
            return Junk.SENDER
        if proven is not None and envelope.sender != proven:
            return Junk.SENDER
        return envelope

    def refuse(self, cause: Junk, now: float) -> None:
        """Count a frame, or an envelope of a bundle, as junk; log when the interval is over."""
        self.counts[cause] += 1
        self._unlogged += 1
        if now >= self._next_log:
            causes = ", ".join(f"{junk.value}: {n}" for junk, n in sorted_counts(self.counts))
            self._log(f"{self._unlogged} unusable message(s) dropped; since the start {causes}")
            self._next_log = now + LOG_INTERVAL_S
            self._unlogged = 0


def sorted_counts(counts: Counter[Junk]) -> list[tuple[Junk, int]]:
    """``counts`` in a steady order, for logs and metrics."""
    return sorted(counts.items(), key=lambda item: item[0].value)
