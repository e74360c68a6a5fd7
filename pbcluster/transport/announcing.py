"""Both ends of the broadcasts, without sockets: who announces and who listens.

:class:`Announcer` repeats its last broadcast as a beacon; :class:`Listener` checks frames, feeds
them to ``gaps`` and calls the receiver. Nothing is kept for slow subscribers: they notice the gap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from pbcluster.errors import LocalProtocolError
from pbcluster.transport.envelopes import FrameChecks, Junk, seal, sorted_counts
from pbcluster.transport.gaps import Deliver, Gaps
from pbcluster.wire import BEACON, TOPICS, Broadcast, Envelope

#: A subscriber that missed the last broadcast learns of it within this time.
BEACON_INTERVAL_S = 1.0


class Announcer:
    """Seals broadcasts and beacons.

    A new leader that has nothing to announce yet publishes a beacon with the newest index it knows,
    so that subscribers notice what they missed while there was none.
    """

    def __init__(
        self, clock: IReactorTime, cluster_id: str, own_id: str, send: Callable[[bytes], object]
    ) -> None:
        self._cluster_id = cluster_id
        self._own_id = own_id
        self._send = send
        self._last: Broadcast | None = None
        self._beacons = LoopingCall(self._beacon)
        self._beacons.clock = clock

    def start(self) -> None:
        """Begin to repeat the last broadcast, once there is one."""
        running: Deferred[LoopingCall] = self._beacons.start(BEACON_INTERVAL_S, now=False)
        log = Logger()
        running.addErrback(lambda failure: log.failure("beacons ended", failure=failure))

    def stop(self) -> None:
        """End the beacons."""
        if self._beacons.running:
            self._beacons.stop()

    def publish(self, broadcast: Broadcast) -> None:
        """Send ``broadcast``; its beacons follow.

        :raises LocalProtocolError: a topic that is none.
        """
        if broadcast.topic not in TOPICS and broadcast.topic != BEACON:
            raise LocalProtocolError(f"unknown topic {broadcast.topic!r}")
        self._last = broadcast
        self._seal_and_send(broadcast)

    def silence(self) -> None:
        """Repeat nothing until the next broadcast: another member publishes now."""
        self._last = None

    def _beacon(self) -> None:
        if self._last is not None:
            last = self._last
            self._seal_and_send(msgspec.structs.replace(_bare(last), topic=BEACON))

    def _seal_and_send(self, broadcast: Broadcast) -> None:
        self._send(seal(Envelope(self._cluster_id, self._own_id, 0, 0, "", broadcast)))


def _bare(broadcast: Broadcast) -> Broadcast:
    return Broadcast(broadcast.topic, broadcast.index, broadcast.previous)


class Listener:
    """Checks frames of publishers and calls ``received`` and ``gap``.

    :ivar checks: what was refused.
    """

    def __init__(self, clock: IReactorTime, cluster_id: str) -> None:
        self._log = Logger()
        self.checks = FrameChecks(cluster_id, lambda line: self._log.warn("{line}", line=line))
        self._clock = clock
        self._gaps = Gaps()
        self._received: Callable[[Broadcast], None] | None = None
        self._gap: Callable[[int], None] | None = None

    def start(self, received: Callable[[Broadcast], None], gap: Callable[[int], None]) -> None:
        """As :meth:`Subscriber.start`; a new start is a new first contact."""
        self._gaps = Gaps()
        self._received, self._gap = received, gap

    def stop(self) -> None:
        """Call nobody any more."""
        self._received = self._gap = None

    def counts(self) -> dict[str, int]:
        """Counters for metrics, by name."""
        junk = {f"junk_{cause.value}": n for cause, n in sorted_counts(self.checks.counts)}
        return {**junk, "repeated": self._gaps.dropped}

    def frame(self, parts: Sequence[bytes], proven: str | None) -> None:
        """A message arrived; ``proven`` as in :meth:`FrameChecks.open`."""
        now = self._clock.seconds()
        envelope = self.checks.open(parts, proven, now)
        if envelope is None:
            return
        if not isinstance(envelope.body, Broadcast):
            self.checks.refuse(Junk.BODY, now)
            return
        for effect in self._gaps.received(envelope.sender, envelope.body, now):
            if self._received is None or self._gap is None:
                return
            try:
                if isinstance(effect, Deliver):
                    self._received(effect.broadcast)
                else:
                    self._gap(effect.index)
            except Exception:
                self._log.failure("a receiver of broadcasts failed")
