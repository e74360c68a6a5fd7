"""Registration, leases, heartbeats and reports, against a control plane of the test's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.errors import (
    Conflict,
    DeadlineExceeded,
    Forbidden,
    NotFound,
    RemoteProtocolError,
)
from pbcluster.node.heartbeat import Condition, NodeFacts, Standing
from pbcluster.node.proofs import Held, Proofs
from pbcluster.node.reports import Reports
from pbcluster.records import NodeResources, NodeStatus
from pbcluster.testing.node_fakes.s3 import FakeS3
from pbcluster.transport.interfaces import Asked, Handler
from pbcluster.wire import (
    AssignmentChanges,
    Body,
    Heartbeat,
    Lease,
    LeaseAck,
    NodeAssignments,
    NodeCapacity,
    Ok,
    Probe,
    Registered,
    RegisterNode,
    TenantReport,
)
from tests.node.harness import NodeHarness, T, assignment

ASKED = Asked("member_1", "", 10.0, 0.0)


class FakeControlPlane:
    """``ControlPlaneClient`` that gives each question to the test's function.

    :ivar answer: gets the body, gives the answer or raises. :ivar delay_s: answers take so long.
    """

    def __init__(self, clock: Clock, answer: Callable[[Body], Body]) -> None:
        self.clock = clock
        self.answer = answer
        self.delay_s = 0.0
        self.asked: list[tuple[float, Body, str]] = []

    def start(self, handler: Handler) -> None:
        pass

    def stop(self) -> None:
        pass

    async def ask(
        self,
        body: Body,
        *,
        timeout_s: float,
        idempotency_key: str = "",
        any_member: bool = False,
    ) -> Body:
        self.asked.append((self.clock.seconds(), body, idempotency_key))
        if self.delay_s:
            waiting: Deferred[None] = Deferred()
            self.clock.callLater(min(self.delay_s, timeout_s), waiting.callback, None)
            await waiting
            if self.delay_s > timeout_s:
                raise DeadlineExceeded("no answer")
        return self.answer(body)

    def of(self, kind: type[Body]) -> list[Body]:  # type: ignore[valid-type]
        return [body for _, body, _ in self.asked if isinstance(body, kind)]


class StandingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.node = NodeHarness(self.clock, FakeS3(self.clock))
        self.node.tenants.registered(0)
        self.index = 1
        self.granted = True
        self.incarnation = 3
        self.errors: list[Exception] = []
        self.told_off: list[str] = []
        self.bring_along: NodeAssignments | None = None
        self.plane = FakeControlPlane(self.clock, self.answer)
        self.keys = iter(f"key-{n}" for n in range(1000))
        self.proofs: Proofs = self.node.proofs
        self.standing = Standing(
            NodeFacts(node_id="node_a", start_id="s1", address="http://x", capacity=10),
            clock=self.clock,
            boottime=self.clock.seconds,
            utc_now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
            client=self.plane,
            proofs=self.proofs,
            owned=self.node.tenants,
            condition=lambda: Condition(
                status=NodeStatus.HEALTHY,
                active=1,
                cached=0,
                hits=0,
                misses=0,
                evictions=0,
                resources=NodeResources(),
                tenants=self.node.tenants.usage(),
            ),
            new_key=lambda: next(self.keys),
            removed=self.told_off.append,
        )
        self.addCleanup(self.standing.stop)

    def list(self) -> NodeAssignments:
        return NodeAssignments("node_a", self.incarnation, self.index, (assignment(),))

    def answer(self, body: Body) -> Body:
        if self.errors:
            raise self.errors.pop(0)
        if isinstance(body, RegisterNode):
            return Registered(self.incarnation, self.list())
        if isinstance(body, Lease):
            granted = self.granted and body.incarnation == self.incarnation
            return LeaseAck(granted, self.index, (), self.bring_along)
        return Ok()

    def start(self) -> None:
        Deferred.fromCoroutine(self.standing.start())

    def held(self) -> bool:
        return isinstance(self.proofs.judge(T, 1, self.clock.seconds()), Held)

    def test_registers_until_it_works(self) -> None:
        """Silence is answered by the same question with the same key and start id."""
        self.errors = [DeadlineExceeded("x"), DeadlineExceeded("x")]
        self.start()
        self.node.run(2.0)
        asked = [(body, key) for _, body, key in self.plane.asked if isinstance(body, RegisterNode)]
        self.assertEqual(len(asked), 3)
        self.assertEqual(len(set(map(repr, asked))), 1)
        self.assertEqual(self.standing.incarnation, 3)
        self.assertIsNotNone(self.node.tenants.find(T))

    def test_a_removed_node_asks_no_more(self) -> None:
        """It is told so when it starts, and when it runs: once, without another registration."""
        self.errors = [Forbidden("node_a was removed")]
        self.start()
        self.node.run(2.0)
        self.assertEqual(self.told_off, ["node_a was removed"])
        self.assertEqual(len(self.plane.of(RegisterNode)), 1)

    def test_a_node_that_is_removed_while_it_runs(self) -> None:
        """Its next lease is refused; it asks once more, and is told for good."""
        self.start()
        self.node.run(3.0)
        self.errors = [Forbidden("node_a was removed")] * 100
        self.node.run(0.5)
        self.assertEqual(self.told_off, ["node_a was removed"])

    def test_leases_and_heartbeats(self) -> None:
        """A lease each 0.4 s with the obeyed index, a heartbeat each 5 s with the tenants."""
        self.start()
        self.node.run(10.05, step=0.05)
        leases = self.plane.of(Lease)
        self.assertIn(len(leases), (24, 25, 26))
        self.assertEqual(leases[-1], Lease("node_a", 3, 1))
        beats = self.plane.of(Heartbeat)
        self.assertIn(len(beats), (2, 3))
        assert isinstance(beats[0], Heartbeat)
        self.assertEqual(beats[0].tenants[0].tenant_id, T)

    def test_proof_ages_from_the_sending(self) -> None:
        """An answer that took 1.2 s proves for 0.3 s more."""
        self.start()
        self.node.ready(T)
        self.node.run(1.0)
        self.plane.delay_s = 1.2
        sent = self.clock.seconds()
        self.node.run(0.4)
        self.errors = [DeadlineExceeded("cut")] * 100
        self.node.run(3.0)
        self.assertFalse(self.held())
        last = [at for at, body, _ in self.plane.asked if isinstance(body, Lease)][-1]
        self.assertGreater(last, sent, "leases go out while others are unanswered")

    def test_list_that_comes_along_is_obeyed_first(self) -> None:
        """A lease answer with a newer list proves nothing for what that list takes away."""
        self.start()
        self.node.ready(T)
        self.node.run(1.0)
        self.assertTrue(self.held())
        self.index = 2
        self.bring_along = NodeAssignments("node_a", 3, 2, ())
        self.node.run(0.5)
        self.assertIsNone(self.node.tenants.find(T))
        self.assertFalse(self.held())

    def test_unknown_node_registers_again(self) -> None:
        """A control plane that does not know this node, by error or by denial, is told anew."""
        self.start()
        self.node.run(1.0)
        self.errors = [NotFound("no node")]
        self.node.run(1.0)
        self.assertEqual(len(self.plane.of(RegisterNode)), 2)
        self.incarnation = 4
        self.node.run(1.0)
        self.assertEqual(self.standing.incarnation, 4)
        self.assertEqual(self.plane.of(Lease)[-1], Lease("node_a", 4, 1))

    def test_orders(self) -> None:
        """A probe is answered, a list obeyed, anything else refused."""
        self.start()
        probe = Deferred.fromCoroutine(self.standing.handle(ASKED, Probe(3)))
        self.assertEqual(self.successResultOf(probe), Ok())
        self.index = 7
        told = Deferred.fromCoroutine(self.standing.handle(ASKED, self.list()))
        self.assertEqual(self.successResultOf(told), Ok())
        self.assertEqual(self.node.tenants.obeyed_index, 7)
        strange = Deferred.fromCoroutine(self.standing.handle(ASKED, Ok()))
        self.failureResultOf(strange, RemoteProtocolError)

    def test_changes_to_another_list(self) -> None:
        """They are refused, and a lease asks at once for the whole list."""
        self.start()
        self.node.run(1.0)
        before = len(self.plane.of(Lease))
        self.index = 7
        self.bring_along = NodeAssignments("node_a", 3, 7, (), (), 30)
        changes = AssignmentChanges("node_a", 3, 7, (29,), 30, (), (T,))
        Deferred.fromCoroutine(self.standing.handle(ASKED, changes))
        self.assertEqual(len(self.plane.of(Lease)), before + 1)
        self.node.run(0.01)
        self.assertIsNone(self.node.tenants.find(T))
        old = AssignmentChanges("node_a", 3, 7, (30,), 31)
        Deferred.fromCoroutine(self.standing.handle(ASKED, old))
        self.assertEqual(len(self.plane.of(Lease)), before + 1, "nothing newer is to be had")

    def test_a_burst_of_changes_to_another_list(self) -> None:
        """One lease asks for the list; those that keep the proofs alive go out as ever, also while
        nobody answers."""
        self.start()
        self.node.run(1.0)
        self.plane.delay_s = 5.0
        before, at = len(self.plane.of(Lease)), self.clock.seconds()
        for index in range(7, 13):
            changes = AssignmentChanges("node_a", 3, index, (29,), 30)
            Deferred.fromCoroutine(self.standing.handle(ASKED, changes))
        self.assertEqual(len(self.plane.of(Lease)), before + 1)
        self.node.run(1.45)
        sent = [when for when, body, _ in self.plane.asked if isinstance(body, Lease)][before + 1 :]
        self.assertIn(len(sent), (3, 4))
        self.assertLess(sent[0], at + 0.41)

    def test_nothing_is_asked_for_an_earlier_start(self) -> None:
        """What it is told is not for this process, and no list could come of it."""
        self.start()
        self.node.run(1.0)
        before = len(self.plane.of(Lease))
        for told in (
            NodeAssignments("node_a", 2, 50, ()),
            AssignmentChanges("node_a", 4, 50, (1,), 2),
        ):
            Deferred.fromCoroutine(self.standing.handle(ASKED, told))
        self.standing.stop()
        newer = AssignmentChanges("node_a", 3, 50, (1,), 2)
        Deferred.fromCoroutine(self.standing.handle(ASKED, newer))
        self.assertEqual(len(self.plane.of(Lease)), before)

    def test_list_of_another_incarnation(self) -> None:
        """Orders for an earlier start of this node are refused."""
        self.start()
        old = NodeAssignments("node_a", 2, 50, ())
        Deferred.fromCoroutine(self.standing.handle(ASKED, old))
        self.assertIsNotNone(self.node.tenants.find(T))

    def test_away(self) -> None:
        """A process that was stopped for a while counts it, and its leases prove nothing."""
        self.start()
        self.node.ready(T)
        self.node.run(1.0)
        self.plane.delay_s = 0.1
        self.clock.advance(5.0)
        self.assertFalse(self.held())
        self.assertEqual(self.standing.gaps, 1)

    def test_drain_is_announced(self) -> None:
        """The end of a node is told; silence is no reason to wait."""
        self.start()
        self.errors = [DeadlineExceeded("x")]
        done = Deferred.fromCoroutine(self.standing.announce_draining())
        self.successResultOf(done)
        self.assertEqual(self.plane.of(NodeCapacity), [NodeCapacity("node_a", 3, 10, True)])


class ReportTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.errors: list[Exception] = []
        self.incarnation = 1
        self.plane = FakeControlPlane(self.clock, self.answer)
        keys = iter(f"key-{n}" for n in range(100))
        self.reports = Reports(self.clock, self.plane, lambda: self.incarnation, lambda: next(keys))

    def answer(self, body: Body) -> Body:
        if self.errors:
            raise self.errors.pop(0)
        return Ok()

    def send(self, outcome: str, epoch: int = 1) -> None:
        self.reports.send(TenantReport("node_a", 0, T, epoch, outcome))

    def test_repeated_with_one_key(self) -> None:
        """Silence repeats the same report under the same key, in order before the next one."""
        self.errors = [DeadlineExceeded("x")] * 3
        self.send("ready")
        self.send("stopped")
        self.clock.pump([0.1] * 60)
        told = [(body.outcome, key) for _, body, key in self.plane.asked]  # type: ignore[union-attr]
        self.assertEqual(told, [("ready", "key-0")] * 4 + [("stopped", "key-1")])

    def test_refused_report_ends(self) -> None:
        """What the control plane refuses is not repeated."""
        self.errors = [Conflict("it knows better")]
        self.send("refused")
        self.clock.pump([1.0] * 10)
        self.assertEqual(len(self.plane.asked), 1)

    def test_waits_for_the_registration(self) -> None:
        """Before this node has an incarnation nothing is reported; then with that one."""
        self.incarnation = 0
        self.send("ready")
        self.assertEqual(self.plane.asked, [])
        self.incarnation = 5
        self.clock.advance(1.0)
        (body,) = self.plane.of(TenantReport)
        assert isinstance(body, TenantReport)
        self.assertEqual(body.incarnation, 5)
