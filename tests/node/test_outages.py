"""Outages and durable reads with a whole tenant on fakes: S3, control plane and clock are ours."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.errors import DeadlineExceeded, WrongEpoch
from pbcluster.node.acks import Level, Withheld
from pbcluster.node.degrading import Mode
from pbcluster.node.durability import Reason
from pbcluster.node.outages import PROBE_TIMEOUT_S, NodeOutages
from pbcluster.records import Durability, OnOutage
from pbcluster.testing.node_fakes.s3 import FakeS3
from pbcluster.wire import Body, Ok, SetDegraded
from tests.node.harness import NodeHarness, T, assignment


class FlagKeeper:
    """The control plane as far as flags go. :ivar away: it does not answer.

    :ivar asked: (degraded, key) of all that arrived, in order.
    """

    def __init__(self) -> None:
        self.away = False
        self.lose_answers = 0
        self.refuses = False
        self.asked: list[tuple[bool, str]] = []

    async def ask(self, body: Body, *, timeout_s: float, idempotency_key: str = "") -> Body:
        assert isinstance(body, SetDegraded)
        if self.away:
            raise DeadlineExceeded("nobody answers")
        self.asked.append((body.degraded, idempotency_key))
        if self.refuses:
            raise WrongEpoch("another node owns it")
        if self.lose_answers:
            self.lose_answers -= 1
            raise DeadlineExceeded("the answer was lost")
        return Ok()

    def flags(self) -> list[bool]:
        return [degraded for degraded, _ in self.asked]


class OutageCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.s3 = FakeS3(self.clock)
        self.node = NodeHarness(self.clock, self.s3)
        self.keeper = FlagKeeper()
        keeper: Any = self.keeper
        outages = NodeOutages(self.clock, self.node.fake.claims, keeper, "node_a", lambda: 1)
        self.node.parts = attrs.evolve(self.node.parts, outages=outages)
        self.node.tenants.parts = self.node.parts
        self.serve()

    def serve(self, **more: Any) -> None:
        self.node.assign(assignment(**more))
        self.node.load()
        self.node.lease()

    def change(self, **more: Any) -> None:
        """The control plane's list says something else of the tenant."""
        self.node.assign(msgspec.structs.replace(self.node.tenant().assignment, **more))

    def write(self, row: str) -> Deferred[Level]:
        self.node.fake.workloads.running[T].write(row)
        return Deferred.fromCoroutine(self.node.tenant().replication.acknowledge())

    def read(self) -> Deferred[Level]:
        return Deferred.fromCoroutine(self.node.tenant().replication.acknowledge_read())

    def away(self, down: bool = True) -> None:
        self.node.fake.s3.faults.down = down

    def run_for(self, seconds: float) -> None:
        """Time passes, and leases are acknowledged."""
        for _ in range(round(seconds / 0.1)):
            self.clock.advance(0.1)
            self.node.lease()

    def rows(self) -> list[str]:
        return self.s3.rows(T, 1)

    def mode(self) -> Mode:
        acks = self.node.tenant().replication.acks
        assert acks is not None
        return acks.mode


class OutageTests(OutageCase):
    def test_blip(self) -> None:
        """S3 that is away for less than 5 s costs its writes time and nothing else."""
        self.away()
        waiting = self.write("a")
        self.run_for(4.0)
        self.assertNoResult(waiting)
        self.away(False)
        self.run_for(0.5)
        self.assertIs(self.successResultOf(waiting), Level.S3)
        self.assertEqual((self.rows(), self.keeper.asked), (["a"], []))

    def test_degrades_and_recovers(self) -> None:
        """After 5 s the flag is committed, then writes go at once as local; with S3 back they are
        in S3, acknowledged as such, and the flag ends."""
        self.away()
        first = self.write("a")
        self.run_for(4.9)
        self.assertNoResult(first)
        self.assertEqual(self.keeper.asked, [])
        self.run_for(0.4)
        self.assertIs(self.successResultOf(first), Level.LOCAL)
        self.assertEqual(self.keeper.flags(), [True])
        self.assertIs(self.successResultOf(self.write("b")), Level.LOCAL)
        self.run_for(30.0)
        self.assertTrue(self.node.tenant().replication.only_here)
        self.assertGreater(self.node.tenant().replication.lag_s, 30.0)
        self.assertEqual(self.keeper.flags(), [True])
        self.away(False)
        self.run_for(2.5)
        self.assertEqual(self.rows(), ["a", "b"])
        self.assertEqual(self.keeper.flags(), [True, False])
        self.assertIs(self.successResultOf(self.write("c")), Level.S3)
        self.assertEqual((self.mode(), self.node.tenant().replication.lag_s), (Mode.DURABLE, 0.0))

    def test_reject(self) -> None:
        """With ``reject`` writes wait 5 s and are refused; reads are proven by the lease."""
        self.change(on_s3_outage=OnOutage.REJECT)
        self.away()
        waiting = self.write("a")
        self.run_for(4.9)
        self.assertNoResult(waiting)
        self.run_for(0.4)
        error = self.failureResultOf(waiting, Withheld).value
        self.assertEqual((error.reason, error.status), (Reason.S3_AWAY, 503))
        self.assertTrue(self.node.tenant().proven())
        self.assertEqual(self.keeper.asked, [])

    def test_another_cause(self) -> None:
        """S3 that answers and refuses, and a sync that fails by itself, refuse at once: nothing is
        acknowledged on one disk for what an operator must repair."""
        self.node.fake.s3.faults.refused = True
        error = self.failureResultOf(self.write("a"), Withheld).value
        self.assertIs(error.reason, Reason.SYNC_FAILED)
        self.node.fake.s3.faults.refused = False
        self.node.fake.replication.broken_syncs = 1
        self.failureResultOf(self.write("b"), Withheld)
        self.assertEqual(self.keeper.asked, [])
        self.assertIs(self.successResultOf(self.write("c")), Level.S3)

    def test_control_plane_away_too(self) -> None:
        """Without a commit nothing is acknowledged; once the control plane is back, it goes on."""
        self.away()
        self.keeper.away = True
        waiting = self.write("a")
        self.run_for(6.0)
        self.failureResultOf(waiting, Withheld)
        self.keeper.away = False
        waiting = self.write("b")
        self.run_for(6.0)
        self.assertIs(self.successResultOf(waiting), Level.LOCAL)

    def test_refused_by_the_control_plane(self) -> None:
        """A tenant that was given away meanwhile acknowledges nothing locally."""
        self.away()
        self.keeper.refuses = True
        waiting = self.write("a")
        self.run_for(6.0)
        self.failureResultOf(waiting, Withheld)
        self.assertEqual(self.mode(), Mode.DURABLE)

    def test_lost_answer_of_the_end(self) -> None:
        """The end of the flag is asked again under the same key until its fate is known."""
        self.away()
        self.write("a")
        self.run_for(6.0)
        self.away(False)
        self.keeper.lose_answers = 2
        self.run_for(6.0)
        self.assertEqual(self.keeper.flags(), [True, False, False, False])
        self.assertEqual(len({key for degraded, key in self.keeper.asked if not degraded}), 1)
        self.assertEqual(self.mode(), Mode.DURABLE)

    def test_without_a_proof(self) -> None:
        """A local acknowledgement needs a proof of ownership, too."""
        self.away()
        self.write("a")
        self.run_for(6.0)
        self.clock.advance(2.0)  # no lease
        error = self.failureResultOf(self.write("b"), Withheld).value
        self.assertIs(error.reason, Reason.OWNER_UNKNOWN)

    def test_not_stopped_while_only_here_has_it(self) -> None:
        """A tenant with writes that only this disk has is neither idle nor anybody's victim."""
        self.away()
        self.write("a")
        self.run_for(6.0)
        self.run_for(950.0)
        self.assertEqual(self.node.tenant().state.value, "active")

    def test_flag_of_a_former_start(self) -> None:
        """A node that was started again ends the flag once it has everything in S3."""
        self.change(degraded=True)
        self.run_for(1.5)
        self.assertEqual(self.keeper.flags(), [False])

    def test_hanging_probe(self) -> None:
        """A probe that hangs counts as away and is not joined by another."""
        self.node.fake.s3.faults.delay_s = 100.0
        for _ in range(3):
            found = Deferred.fromCoroutine(self.node.parts.outages.away())
            self.run_for(PROBE_TIMEOUT_S + 0.1)
            self.assertTrue(self.successResultOf(found))
            self.run_for(1.5)
        self.node.fake.s3.faults.delay_s = 0.0
        self.run_for(100.0)
        found = Deferred.fromCoroutine(self.node.parts.outages.away())
        self.assertFalse(self.successResultOf(found))


class ChangeTests(OutageCase):
    def settled(self) -> list[str]:
        return [each.detail for each in self.node.reports if each.outcome == "settled"]

    def test_to_sync(self) -> None:
        """On the way to ``sync`` writes wait at once, and it is said to be so only when what was
        acknowledged before is in S3."""
        self.change(durability=Durability.ASYNC)
        self.away()
        self.assertIs(self.successResultOf(self.write("a")), Level.ASYNC)
        self.change(wanted_durability=Durability.SYNC)
        waiting = self.write("b")
        self.run_for(2.0)
        self.assertNoResult(waiting)
        self.assertEqual(self.settled(), [])
        self.away(False)
        self.run_for(2.0)
        self.assertIs(self.successResultOf(waiting), Level.S3)
        self.assertEqual((self.settled(), self.rows()), (["sync"], ["a", "b"]))

    def test_to_async(self) -> None:
        """On the way to ``async`` writes wait until the control plane has committed it."""
        self.change(wanted_durability=Durability.ASYNC)
        self.run_for(0.2)
        self.assertEqual(self.settled(), ["async"])
        self.assertIs(self.successResultOf(self.write("a")), Level.S3)
        self.change(wanted_durability=None, durability=Durability.ASYNC)
        self.assertIs(self.successResultOf(self.write("b")), Level.ASYNC)

    def test_changed_mind(self) -> None:
        """A wish that is taken back is not reported any more."""
        self.away()
        self.change(wanted_durability=Durability.ASYNC)
        self.change(wanted_durability=None)
        self.away(False)
        self.run_for(3.0)
        self.assertEqual(self.settled(), [])


class DurableReadTests(OutageCase):
    def setUp(self) -> None:
        super().setUp()
        self.change(durable_reads=True)

    def test_waits_only_if_something_moved(self) -> None:
        """After a commit of anybody's the next read waits for a sync; all further ones do not."""
        self.successResultOf(self.write("a"))
        asked = len(self.node.fake.replication.syncs)
        self.assertTrue(self.node.tenant().replication.read_may_pass())
        self.successResultOf(self.read())
        self.assertEqual(len(self.node.fake.replication.syncs), asked)
        self.node.fake.workloads.running[T].write("by a job")
        self.assertFalse(self.node.tenant().replication.read_may_pass())
        self.node.fake.replication.sync_delay_s = 0.5
        waiting = self.read()
        self.assertNoResult(waiting)
        self.run_for(0.6)
        self.assertIs(self.successResultOf(waiting), Level.S3)
        self.assertIn("by a job", self.rows())
        self.assertTrue(self.node.tenant().replication.read_may_pass())

    def test_waits_in_an_async_tenant_too(self) -> None:
        """What an ``async`` tenant acknowledged early is not shown before it lasts."""
        self.change(durability=Durability.ASYNC)
        self.assertIs(self.successResultOf(self.write("a")), Level.ASYNC)
        self.node.fake.replication.sync_delay_s = 0.5
        waiting = self.read()
        self.assertNoResult(waiting)
        self.run_for(0.6)
        self.assertIs(self.successResultOf(waiting), Level.S3)

    def test_a_commit_during_the_sync(self) -> None:
        """A sync covers what was committed before it began, and a read that saw more waits on."""
        self.node.fake.replication.sync_delay_s = 0.5
        first = self.write("a")
        self.run_for(0.2)
        self.node.fake.workloads.running[T].write("later")
        waiting = self.read()
        self.run_for(0.4)
        self.successResultOf(first)
        self.assertNoResult(waiting)
        self.run_for(0.6)
        self.successResultOf(waiting)

    def test_outage(self) -> None:
        """While S3 is away a read of what is not there waits like a write, then is shown as local,
        or refused."""
        self.away()
        self.node.fake.workloads.running[T].write("a")
        waiting = self.read()
        self.run_for(6.0)
        self.assertIs(self.successResultOf(waiting), Level.LOCAL)
        self.assertIs(self.successResultOf(self.read()), Level.LOCAL)
