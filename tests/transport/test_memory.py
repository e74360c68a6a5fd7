"""Asking, answering and broadcasting on the in-memory network: the rules without sockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pbcluster import wire
from pbcluster.errors import (
    Busy,
    DeadlineExceeded,
    LocalProtocolError,
    NoCapacity,
    NotFound,
    NotLeader,
    RemoteProtocolError,
    Unavailable,
)
from pbcluster.testing.memory_transport import MemoryNetwork, MemoryRequestServer
from pbcluster.transport.answering import MAX_TIMEOUT_S
from pbcluster.transport.asking import MAX_IN_FLIGHT
from pbcluster.transport.interfaces import Asked
from pbcluster.wire import Body, Broadcast, Ok
from tests.transport.bodies import broadcast, envelope, register

LEASE = wire.Lease("node_a", 1, 7)
ACK = wire.LeaseAck(True, 7)


class Recorder:
    """A handler that notes questions and does what ``then`` says."""

    def __init__(self, then: Callable[[Asked, Body], Any] = lambda asked, body: ACK) -> None:
        self.asked: list[tuple[Asked, Body]] = []
        self.then = then

    async def __call__(self, asked: Asked, body: Body) -> Body:
        self.asked.append((asked, body))
        result = self.then(asked, body)
        return await result if isinstance(result, Deferred) else result


def raising(error: BaseException) -> Callable[[Asked, Body], Any]:
    def then(asked: Asked, body: Body) -> Any:
        raise error

    return then


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.network = MemoryNetwork(self.clock)

    def members(self, *handlers: Recorder) -> list[MemoryRequestServer]:
        servers = []
        for number, handler in enumerate(handlers, 1):
            servers.append(self.network.server(f"member_{number}"))
            servers[-1].start(handler)
        return servers

    def client(self, handler: Recorder | None = None) -> Any:
        client = self.network.client("node_a", role="node")
        client.start(handler or Recorder(lambda asked, body: Ok()))
        self.network.settle()
        return client

    def ask(self, client: Any, body: Body = LEASE, timeout_s: float = 2.0, **more: Any) -> Any:
        deferred = Deferred.fromCoroutine(client.ask(body, timeout_s=timeout_s, **more))
        self.network.settle()
        return deferred

    def wait(self, seconds: float) -> None:
        self.clock.pump([0.01] * round(seconds / 0.01))


class Surveys(Case):
    def test_everybody_is_asked_and_the_silent_left_out(self) -> None:
        """Each session of each process that is meant is asked at once, so every worker of a
        gateway; the answer comes when the last one spoke, or the time is over."""
        (server,) = self.members(Recorder())
        clients = [self.network.client(name) for name in ("gw_1", "gw_1", "gw_2", "node_a")]
        handlers = [Recorder(lambda asked, body: Ok()) for _ in clients]
        for client, handler in zip(clients, handlers, strict=True):
            client.start(handler)
        self.network.settle()

        def survey() -> Any:
            return Deferred.fromCoroutine(
                server.survey(wire.Probe(1), timeout_s=1.0, among=lambda peer: peer != "node_a")
            )

        asked = survey()
        self.network.settle()
        found = self.successResultOf(asked)
        self.assertEqual(found, {"gw_1": [Ok(), Ok()], "gw_2": [Ok()]})
        self.assertEqual([len(each.asked) for each in handlers], [1, 1, 1, 0])
        self.network.cut("member_1", "gw_2")
        asked = survey()
        self.clock.advance(0.9)
        self.assertNoResult(asked)
        self.clock.advance(0.2)
        self.assertEqual(set(self.successResultOf(asked)), {"gw_1"})


class Asking(Case):
    def test_round_trip(self) -> None:
        """A question reaches the handler with its sender, key and deadline; the answer returns."""
        handler = Recorder(lambda asked, body: Ok())
        self.members(handler)
        self.clock.advance(100.0)
        asked = self.ask(self.client(), register(), idempotency_key="k1")
        self.assertEqual(self.successResultOf(asked), Ok())
        ((seen, body),) = handler.asked
        self.assertEqual(body, register())
        self.assertEqual((seen.sender, seen.idempotency_key, seen.role), ("node_a", "k1", "node"))
        self.assertEqual(seen.arrived, 100.0)
        self.assertAlmostEqual(seen.deadline, 101.0, places=2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_not_leader_is_followed(self) -> None:
        """The hint leads to the leader without any pause; the next question goes there at once."""
        handlers = [Recorder() for _ in range(3)]
        self.members(*handlers)
        client = self.client()
        self.successResultOf(self.ask(client))
        old = next(number for number, handler in enumerate(handlers) if handler.asked)
        new = (old + 2) % 3
        leader = f"memory://member_{new + 1}"
        handlers[old].then = raising(NotLeader("not me", leader=leader))
        self.assertEqual(self.successResultOf(self.ask(client)), ACK)
        self.assertEqual([len(handlers[old].asked), len(handlers[new].asked)], [2, 1])
        self.successResultOf(self.ask(client))
        self.assertEqual([len(handlers[old].asked), len(handlers[new].asked)], [2, 2])

    def test_silence_moves_on_with_the_same_key(self) -> None:
        """A member cut off is given up after the attempt's time; the repetition has the key."""
        handlers = [Recorder(lambda asked, body: Ok()) for _ in range(3)]
        self.members(*handlers)
        client = self.client()
        self.successResultOf(self.ask(client, register(), idempotency_key="first"))
        leader = next(n for n, handler in enumerate(handlers) if handler.asked)
        self.network.cut(f"member_{leader + 1}", "node_a", both_ways=False)
        asked = self.ask(client, register(), timeout_s=3.0, idempotency_key="second")
        self.wait(0.9)
        self.assertNoResult(asked)
        self.wait(0.2)
        self.assertEqual(self.successResultOf(asked), Ok())
        keys = [seen.idempotency_key for h in handlers for seen, _ in h.asked]
        self.assertEqual(sorted(keys), ["first", "second", "second"])

    def test_stopped_member_is_left_at_once(self) -> None:
        """A member whose session breaks under a question costs no waiting."""
        stuck = Recorder(lambda asked, body: Deferred())
        servers = self.members(stuck, stuck)
        client = self.client()
        asked = self.ask(client)
        victim = next(s for s in servers if len(s.side._answering._works) == 1)
        stuck.then = lambda asked, body: ACK
        victim.stop()
        self.network.settle()
        self.assertEqual(self.successResultOf(asked), ACK)

    def test_nobody_there_then_somebody(self) -> None:
        """With no member up a question waits, and goes out the moment one is up again."""
        (server,) = self.members(Recorder())
        client = self.client()
        server.stop()
        asked = self.ask(client, timeout_s=5.0)
        self.wait(2.0)
        self.assertNoResult(asked)
        server.start(Recorder())
        self.network.settle()
        self.assertEqual(self.successResultOf(asked), ACK)

    def test_deadline(self) -> None:
        """Without any answer the question fails with DeadlineExceeded at its time, not later."""
        self.members(Recorder(), Recorder())
        client = self.client()
        self.network.partition(["node_a"], ["member_1", "member_2"])
        asked = self.ask(client, timeout_s=1.5)
        self.wait(1.48)
        self.assertNoResult(asked)
        self.wait(0.03)
        self.failureResultOf(asked, DeadlineExceeded)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_answered_errors_are_raised(self) -> None:
        """What the control plane answered is raised as its class, at once."""
        for error in (NotFound("no such tenant"), NoCapacity("no node has room")):
            self.network = MemoryNetwork(self.clock)
            handler = Recorder(raising(error))
            self.members(handler)
            failure = self.failureResultOf(self.ask(self.client()), type(error))
            self.assertEqual(str(failure.value), str(error))
            self.assertEqual(len(handler.asked), 1)

    def test_bug_in_a_handler(self) -> None:
        """A handler's own failure is logged there and says nothing of its inside here."""
        self.members(Recorder(raising(ZeroDivisionError("secret"))))
        failure = self.failureResultOf(self.ask(self.client()))
        self.assertNotIn("secret", str(failure.value))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_busy_leader_is_asked_again(self) -> None:
        """Busy is not the end: the question is repeated after a pause."""
        answers: list[Any] = [Busy("full"), Busy("full")]

        def then(asked: Asked, body: Body) -> Body:
            if answers:
                raise answers.pop()
            return ACK

        handler = Recorder(then)
        self.members(handler)
        asked = self.ask(self.client())
        self.assertNoResult(asked)
        self.wait(0.5)
        self.assertEqual(self.successResultOf(asked), ACK)
        self.assertEqual(len(handler.asked), 3)

    def test_last_refusal_is_named(self) -> None:
        """A question that nobody could take says at its end what the refusal was."""
        self.members(Recorder(raising(NotLeader("election", leader=""))))
        asked = self.ask(self.client(), timeout_s=0.5)
        self.wait(0.6)
        failure = self.failureResultOf(asked, DeadlineExceeded)
        self.assertIn("not_leader", str(failure.value))

    def test_late_and_doubled_answers(self) -> None:
        """Answers that nobody waits for any more are dropped and counted."""
        self.members(Recorder())
        client = self.client()
        self.network.faults.duplicate = 1.0
        self.successResultOf(self.ask(client))
        self.assertGreaterEqual(client.counts()["late"], 1)

    def test_state_changing_without_key(self) -> None:
        """A change without a key is refused at both ends."""
        handler = Recorder()
        (server,) = self.members(handler)
        self.failureResultOf(self.ask(self.client(), register()), LocalProtocolError)
        replies: list[bytes] = []
        server.side._answering._send = lambda session, frame: replies.append(frame) or True
        frame = wire.encode(envelope(cluster_id="memory", body=register()))
        server.side.frame(b"node_a.x", [frame], None)
        error = wire.decode(replies[0]).body
        assert isinstance(error, wire.ErrorReply)
        self.assertIsInstance(error.exception(), RemoteProtocolError)
        self.assertEqual(handler.asked, [])

    def test_in_flight_is_bounded(self) -> None:
        """One question more than the bound is refused at once; a finished one makes room."""
        holding: list[Deferred[Body]] = []

        def hold(asked: Asked, body: Body) -> Deferred[Body]:
            holding.append(Deferred())
            return holding[-1]

        network = self.network
        server = network.server("member_1")
        server.side._answering._max_per_peer = 10 * MAX_IN_FLIGHT
        server.start(Recorder(hold))
        client = self.client()
        asked = [self.ask(client) for _ in range(MAX_IN_FLIGHT)]
        self.failureResultOf(self.ask(client), Busy)
        holding[0].callback(ACK)
        network.settle()
        self.assertEqual(self.successResultOf(asked[0]), ACK)
        last = self.ask(client)
        self.assertNoResult(last)
        client.stop()
        for deferred in [*asked[1:], last]:
            self.failureResultOf(deferred, Unavailable)

    def test_cancelling_gives_up_cleanly(self) -> None:
        """A cancelled question leaves nothing behind, whether it waits or pauses."""
        servers = self.members(Recorder(lambda asked, body: Deferred()))
        client = self.client()
        asked = self.ask(client)
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        servers[0].stop()
        asked = self.ask(client)
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.assertEqual(client.counts()["in_flight"], 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_fails_what_is_under_way(self) -> None:
        """After stop() everything under way failed with Unavailable, and so does a new one."""
        self.members(Recorder(lambda asked, body: Deferred()))
        client = self.client()
        asked = self.ask(client)
        client.stop()
        self.failureResultOf(asked, Unavailable)
        self.failureResultOf(self.ask(client), Unavailable)

    def test_under_loss_each_change_keeps_its_key(self) -> None:
        """With a third of the frames lost, doubled and out of order, all questions are answered
        in time by their own answer, and repetitions share their key."""
        handler = Recorder(
            lambda asked, body: wire.Registered(
                int(body.node_id[5:]), None or wire.NodeAssignments(body.node_id, 1, 1, ())
            )
        )
        self.members(handler, handler, handler)
        client = self.client()
        faults = self.network.faults
        faults.drop, faults.duplicate, faults.jitter_s = 0.3, 0.3, 0.02
        asked = [
            self.ask(client, register(f"node_{n}"), timeout_s=60.0, idempotency_key=f"k{n}")
            for n in range(50)
        ]
        self.wait(30.0)
        for number, deferred in enumerate(asked):
            answer = self.successResultOf(deferred)
            self.assertEqual(answer.incarnation, number)
        for seen, body in handler.asked:
            self.assertEqual(seen.idempotency_key, f"k{body.node_id[5:]}")
        self.assertGreater(len(handler.asked), 50)


class Answering(Case):
    def test_running_handlers_are_bounded(self) -> None:
        """Beyond the bound the answer is Busy and the handler is not called."""
        handler = Recorder(lambda asked, body: Deferred())
        server = self.network.server("member_1", max_running=3)
        server.start(handler)
        client = self.client()
        for _ in range(5):
            self.ask(client)
        self.assertEqual(len(handler.asked), 3)
        self.assertEqual(server.counts()["busy"], 2)

    def test_one_process_cannot_take_all(self) -> None:
        """The bound for one process leaves room for another one."""
        handler = Recorder(lambda asked, body: Deferred())
        (server,) = self.members(handler)
        server.side._answering._max_per_peer = 2
        one, two = self.client(), self.network.client("node_b")
        two.start(Recorder())
        for _ in range(4):
            self.ask(one)
        self.ask(two)
        senders = [seen.sender for seen, _ in handler.asked]
        self.assertEqual(senders, ["node_a", "node_a", "node_b"])

    def test_a_handler_that_outlives_the_stop_is_not_answered(self) -> None:
        """One that swallows its cancellation, or ends because of it with an error of its own."""
        for fails in (False, True):
            with self.subTest(fails=fails):
                self.setUp()
                waiting: list[Deferred[Body]] = []

                def then(asked: Asked, body: Body, waiting: Any = waiting) -> Any:
                    waiting.append(Deferred())
                    return waiting[-1]

                def ended(failure: Any, fails: bool = fails) -> Body:
                    failure.trap(CancelledError)
                    if fails:
                        raise NotFound("gone")
                    return ACK

                def shielded(asked: Asked, body: Body) -> Any:
                    return then(asked, body).addErrback(ended)

                (server,) = self.members(Recorder(shielded))
                client = self.client()
                asked = self.ask(client, timeout_s=0.5)
                sent = self.network.counts["sent"]
                server.side.stop()
                self.network.settle()
                self.assertEqual(self.network.counts["sent"], sent)
                self.wait(1.0)
                self.failureResultOf(asked, DeadlineExceeded)

    def test_places_are_free_again(self) -> None:
        """However many questions a process has asked, those that ended hold no place."""
        (server,) = self.members(Recorder())
        server.side._answering._max_per_peer = 2
        client = self.client()
        for _ in range(5):
            self.assertEqual(self.successResultOf(self.ask(client)), ACK)
        self.assertEqual(server.counts().get("busy", 0), 0)

    def test_expired_on_arrival(self) -> None:
        """A question whose time is over is dropped and counted, not handled."""
        handler = Recorder()
        (server,) = self.members(handler)
        frame = wire.encode(envelope(cluster_id="memory", timeout_ms=0))
        server.side.frame(b"node_a.x", [frame], None)
        self.assertEqual((handler.asked, server.counts()["expired"]), ([], 1))

    def test_handler_that_overruns(self) -> None:
        """It is cancelled at the deadline, its place is free again, no answer is sent."""
        handler = Recorder(lambda asked, body: Deferred())
        (server,) = self.members(handler)
        client = self.client()
        asked = self.ask(client, timeout_s=0.4)
        self.wait(0.5)
        self.failureResultOf(asked, DeadlineExceeded)
        self.assertEqual(len(server.side._answering._works), 0)
        self.assertEqual(server.counts()["overrun"], len(handler.asked))

    def test_no_question_holds_its_place_for_long(self) -> None:
        """A question may ask for a year; it gets a minute."""
        handler = Recorder(lambda asked, body: Deferred())
        (server,) = self.members(handler)
        frame = wire.encode(envelope(cluster_id="memory", timeout_ms=2**60))
        server.side.frame(b"node_a.x", [frame], None)
        self.assertEqual(handler.asked[0][0].deadline, MAX_TIMEOUT_S)

    def test_answer_that_is_too_large(self) -> None:
        """The asker learns that the answer was too large instead of waiting."""
        large = wire.ErrorReply("not_found", "y" * wire.MAX_FRAME_BYTES)
        self.members(Recorder(lambda asked, body: large))
        failure = self.failureResultOf(self.ask(self.client()))
        self.assertEqual(failure.value.code, "too_large")

    def test_member_asks_and_tells(self) -> None:
        """A member reaches a connected process both ways; an unknown one not at all."""
        (server,) = self.members(Recorder())
        handler = Recorder(lambda asked, body: Ok())
        self.client(handler)
        asked = Deferred.fromCoroutine(server.ask("node_a", wire.Probe(3), timeout_s=1.0))
        self.assertTrue(server.tell("node_a", wire.Probe(4)))
        self.network.settle()
        self.assertEqual(self.successResultOf(asked), Ok())
        self.assertEqual([body for _, body in handler.asked], [wire.Probe(3), wire.Probe(4)])
        self.assertEqual(handler.asked[0][0].sender, "member_1")
        self.assertFalse(server.tell("node_b", wire.Probe(4)))
        nobody = Deferred.fromCoroutine(server.ask("node_b", wire.Probe(3), timeout_s=1.0))
        self.failureResultOf(nobody, DeadlineExceeded)

    def test_member_asks_a_process_that_is_gone(self) -> None:
        """The question fails at its deadline when the process is silent, at once when closed."""
        (server,) = self.members(Recorder())
        client = self.client()
        self.network.cut("node_a", "member_1")
        asked = Deferred.fromCoroutine(server.ask("node_a", wire.Probe(3), timeout_s=1.0))
        self.assertNoResult(asked)
        self.clock.advance(1.0)
        self.failureResultOf(asked, DeadlineExceeded)
        client.stop()
        asked = Deferred.fromCoroutine(server.ask("node_a", wire.Probe(3), timeout_s=1.0))
        self.failureResultOf(asked, DeadlineExceeded)

    def test_error_of_an_asked_process(self) -> None:
        """What the process answered is raised at the member."""
        (server,) = self.members(Recorder())
        self.client(Recorder(raising(NotFound("no such tenant here"))))
        asked = Deferred.fromCoroutine(server.ask("node_a", wire.Probe(3), timeout_s=1.0))
        self.network.settle()
        self.failureResultOf(asked, NotFound)

    def test_session_name_must_fit_the_sender(self) -> None:
        """A frame that claims another sender than its session's is junk and moves no session."""
        (server,) = self.members(Recorder())
        handler = Recorder(lambda asked, body: Ok())
        self.client(handler)
        frame = wire.encode(envelope(cluster_id="memory", request_id=0, body=Ok()))
        server.side.frame(b"node_b.x", [frame], None)
        self.assertEqual(server.counts()["junk_sender"], 1)
        self.assertTrue(server.tell("node_a", wire.Probe(4)))
        self.network.settle()
        self.assertEqual(len(handler.asked), 1)

    def test_answers_of_strangers(self) -> None:
        """Only the process that was asked can answer."""
        (server,) = self.members(Recorder())
        self.client(Recorder(lambda asked, body: Deferred()))
        asked = Deferred.fromCoroutine(server.ask("node_a", wire.Probe(3), timeout_s=1.0))
        frame = wire.encode(envelope("node_b", 2, cluster_id="memory", body=Ok()))
        server.side.frame(b"node_b.x", [frame], "node_b")
        self.assertNoResult(asked)
        self.assertEqual(server.counts()["late"], 1)
        frame = wire.encode(envelope("node_a", 2, cluster_id="memory", body=Ok()))
        server.side.frame(b"node_a.x", [frame], "node_a")
        self.assertEqual(self.successResultOf(asked), Ok())


class Broadcasts(Case):
    def setUp(self) -> None:
        super().setUp()
        self.heard: list[Any] = []
        self.subscriber = self.network.subscriber("gateway_a")
        self.subscriber.start(
            lambda broadcast: self.heard.append(broadcast.index),
            lambda index: self.heard.append(f"gap {index}"),
        )
        self.publisher = self.network.publisher("member_1")
        self.publisher.start()

    def publish(self, message: Broadcast) -> None:
        self.publisher.publish(message)
        self.network.settle()

    def test_loss_shows_within_a_second(self) -> None:
        """A lost broadcast is a gap at the next beacon."""
        self.publish(broadcast(3, 0))
        self.network.cut("member_1", "gateway_a")
        self.publish(broadcast(5, 3))
        self.network.heal()
        self.clock.advance(1.0)
        self.network.settle()
        self.assertEqual(self.heard, ["gap 3", 3, "gap 5"])
        self.clock.pump([1.0] * 10)
        self.assertEqual(self.heard, ["gap 3", 3, "gap 5"])

    def test_quiet_publisher_sends_no_beacon(self) -> None:
        """Who has published nothing repeats nothing."""
        self.clock.pump([1.0] * 5)
        self.assertEqual((self.heard, self.network.counts["sent"]), ([], 0))

    def test_new_leader_announces_what_it_knows(self) -> None:
        """A beacon may be published: subscribers notice what they missed in between."""
        self.publish(broadcast(3, 0))
        leader = self.network.publisher("member_2")
        leader.start()
        leader.publish(broadcast(9, 8, wire.BEACON))
        self.network.settle()
        self.assertEqual(self.heard, ["gap 3", 3, "gap 9"])

    def test_receiver_that_fails(self) -> None:
        """Its failure is logged; the next broadcast is delivered."""
        self.publish(broadcast(3, 0))
        fails = [True]

        def received(message: Broadcast) -> None:
            if fails.pop():
                fails.append(False)
                raise ZeroDivisionError
            self.heard.append(message.index)

        self.subscriber.stop()
        self.subscriber.start(received, lambda index: None)
        self.publish(broadcast(4, 3))
        self.publish(broadcast(5, 4))
        self.assertEqual(self.heard[-1], 5)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_unknown_topic(self) -> None:
        """A topic that is none does not leave."""
        self.assertRaises(LocalProtocolError, self.publisher.publish, broadcast(4, 3, "tenant.x"))

    def test_stopped(self) -> None:
        """After stop() nothing is called any more, and nothing is left on the clock."""
        self.publish(broadcast(3, 0))
        self.publisher.publish(broadcast(4, 3))
        self.subscriber.stop()
        self.publisher.stop()
        self.network.settle()
        self.assertEqual(self.heard, ["gap 3", 3])
        self.assertEqual(self.clock.getDelayedCalls(), [])
