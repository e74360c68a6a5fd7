"""One socket in the reactor: the faults of txZMQ that are corrected."""

from __future__ import annotations

from typing import Any

import zmq
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pbcluster.transport.connection import (
    HIGH_WATER_MARK,
    MAX_PARTS,
    MESSAGES_PER_TURN,
    Factory,
    ZmqConnection,
)


class ManualReactor(Clock):
    """A clock that only notes who wants to read."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)


class Turns(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = ManualReactor()
        self.factory = Factory(self.reactor)
        self.addCleanup(self.factory.shutdown)
        self.received: list[list[bytes]] = []

    def pair(self, **more: Any) -> tuple[ZmqConnection, ZmqConnection]:
        """Two sockets connected within the process: no I/O thread, nothing to wait for."""
        one = ZmqConnection(
            self.factory, zmq.PAIR, lambda parts, _: self.received.append(parts), **more
        )
        two = ZmqConnection(self.factory, zmq.PAIR, lambda parts, _: None)
        one.bind("inproc://pair")
        two.connect("inproc://pair")
        self.reactor.advance(0)
        return one, two

    def test_one_turn_takes_a_bounded_number(self) -> None:
        """A turn takes at most the budget and leaves the rest to a later turn."""
        one, two = self.pair()
        for number in range(3 * MESSAGES_PER_TURN):
            self.assertTrue(two.send([b"%d" % number]))
        one.doRead()
        self.assertEqual(len(self.received), MESSAGES_PER_TURN)
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        self.reactor.advance(0)
        self.assertEqual(self.received, [[b"%d" % n] for n in range(3 * MESSAGES_PER_TURN)])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_full_queue_is_told_and_read_from(self) -> None:
        """A refused send gives False, and what it may have hidden is read: nothing lies unseen."""
        one, two = self.pair()
        count = 0
        while two.send([b"x"]):
            count += 1
        self.assertEqual(count, 2 * HIGH_WATER_MARK)  # within a process both queues are one
        one.doRead()
        self.reactor.advance(0)
        self.received.clear()
        while one.send([b"back"]):
            pass
        self.reactor.advance(0)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertFalse(one.send([b"refused"]))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        two.send([b"unseen"])
        self.assertFalse(one.send([b"refused"]))
        self.reactor.advance(0)
        self.assertEqual(self.received, [[b"unseen"]])

    def test_handler_that_fails(self) -> None:
        """Its failure is logged; the messages after it are handled, the socket stays."""
        one, two = self.pair()
        seen: list[bytes] = []

        def fails(parts: list[bytes], _: str) -> None:
            seen.append(parts[0])
            raise ZeroDivisionError

        one._received = fails
        two.send([b"1"])
        two.send([b"2"])
        self.reactor.advance(0)
        one.doRead()
        self.assertEqual(seen, [b"1", b"2"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assertIn(one, self.reactor.readers)

    def test_many_parts(self) -> None:
        """Of a message with too many parts a bounded number is kept, the next one is whole."""
        one, two = self.pair()
        two.send([b"x"] * 1000)
        two.send([b"next"])
        one.doRead()
        self.assertEqual([len(parts) for parts in self.received], [MAX_PARTS, 1])

    def test_closing_while_reading(self) -> None:
        """A handler may close its own socket; nothing is called afterwards."""
        one, two = self.pair()

        def close(parts: list[bytes], _: str) -> None:
            self.received.append(parts)
            one.shutdown()

        one._received = close
        two.send([b"1"])
        two.send([b"2"])
        one.doRead()
        self.assertEqual(self.received, [[b"1"]])
        self.assertFalse(one.send([b"x"]))
        one.shutdown()

    def test_shutdown_leaves_nothing(self) -> None:
        """After shutdown no reader, no delayed call and no context is left; twice is fine."""
        one, _ = self.pair()
        one.send([b"never read"])
        self.factory.shutdown()
        self.assertEqual(self.reactor.readers, set())
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertTrue(self.factory.context.closed)
        self.factory.shutdown()

    def test_queues_are_finite(self) -> None:
        """No socket has txZMQ's unlimited queues, and none lingers."""
        one, _ = self.pair(options={zmq.SNDHWM: 7})
        self.assertEqual(one.socket.get(zmq.SNDHWM), 7)
        self.assertEqual(one.socket.get(zmq.RCVHWM), HIGH_WATER_MARK)
        self.assertEqual(one.socket.get(zmq.LINGER), 0)


class Flood(TestCase):
    timeout = 60

    def test_flood_does_not_starve_others(self) -> None:
        """While 30,000 messages wait, a call queued behind each turn runs again and again: never
        more than two turns' worth of messages pass between two runs of it."""
        done: Deferred[None] = Deferred()
        total = 30_000
        state = {"received": 0, "since": 0, "worst": 0, "turns": 0}

        def received(parts: list[bytes], _: str) -> None:
            state["received"] += 1
            state["since"] += 1
            if state["received"] == total:
                done.callback(None)

        factory = Factory(reactor)
        sink = ZmqConnection(factory, zmq.PULL, received, options={zmq.RCVHWM: total})
        endpoint = sink.bind("tcp://127.0.0.1:*")
        source = ZmqConnection(
            factory, zmq.PUSH, lambda parts, _: None, options={zmq.SNDHWM: total}
        )
        source.connect(endpoint)
        for _ in range(total):
            self.assertTrue(source.send([b"x" * 100]))

        def turn() -> None:
            state["turns"] += 1
            state["worst"] = max(state["worst"], state["since"])
            state["since"] = 0
            if not done.called:
                reactor.callLater(0, turn)

        turn()

        def check(_: None) -> None:
            factory.shutdown()
            self.assertLessEqual(state["worst"], 2 * MESSAGES_PER_TURN)
            self.assertGreaterEqual(state["turns"], total // (2 * MESSAGES_PER_TURN))

        return done.addCallback(check)  # type: ignore[return-value]
