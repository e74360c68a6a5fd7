"""Degraded tenants and changes of durability: what is committed, refused and decided by whom."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from pbcluster import wire
from pbcluster.controlplane import commands as c
from pbcluster.errors import Forbidden, Unavailable, WrongEpoch
from pbcluster.records import Durability, OnOutage
from tests.controlplane.test_registry import AT, T1, Log, code
from tests.controlplane.test_requests import RequestCase


class RegistryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.log = Log()
        self.log.node()
        self.log.node("node_b", "s1")
        self.log.tenant()
        self.log.assign()

    def flag(self, degraded: bool, *, epoch: int = 1, incarnation: int = 1) -> str:
        return code(self.log(c.SetDegraded(AT, T1, "node_a", epoch, incarnation, degraded)))

    @property
    def degraded(self) -> bool:
        return self.log.registry.tenant(T1).degraded

    def assignment(self) -> wire.Assignment:
        (found,) = self.log.registry.assignments("node_a").assignments
        return found

    def test_the_flag_holds_the_tenant(self) -> None:
        """A degraded tenant is assigned to nobody, not even by a decision that was made before the
        flag was committed, until the flag ends."""
        self.assertEqual(self.flag(True), "")
        self.assertTrue(self.assignment().degraded)
        self.assertEqual(code(self.log.assign(node_id="node_b")), "conflict")
        self.assertEqual(code(self.log.assign(node_id="node_a")), "conflict")
        self.assertEqual(self.flag(False), "")
        self.assertEqual(code(self.log.assign(node_id="node_b")), "")

    def test_only_the_owner_sets_it(self) -> None:
        """A node that owns it no more, or was started again since, commits nothing."""
        self.assertEqual(self.flag(True, epoch=2), "wrong_epoch")
        self.assertEqual(self.flag(True, incarnation=2), "wrong_epoch")
        self.log.node("node_a", "s2")
        self.assertEqual(self.flag(True), "wrong_epoch")
        self.assertFalse(self.degraded)
        self.log.assign(node_id="node_b")
        self.assertEqual(self.flag(True, incarnation=2), "wrong_epoch")

    def test_an_operator_gives_it_away(self) -> None:
        """After that it goes like any other; of another epoch nothing is given away."""
        self.flag(True)
        self.assertEqual(code(self.log(c.GiveAway(AT, T1, 2))), "wrong_epoch")
        self.assertEqual(code(self.log(c.GiveAway(AT, T1, 1))), "")
        self.assertEqual(code(self.log.assign(node_id="node_b")), "")

    def test_its_owner_keeps_its_own_data(self) -> None:
        """A new epoch under which the owner itself goes on loses nothing; another node refuses."""
        self.flag(True)
        other = c.AssignTenant(AT, T1, "node_b", 1, 0, keeps_data=True)
        self.assertEqual(code(self.log(other)), "conflict")
        own = c.AssignTenant(AT, T1, "node_a", 1, 0, keeps_data=True)
        self.assertEqual(code(self.log(own)), "")
        self.assertTrue(self.degraded)

    def update(self, **more: object) -> None:
        self.assertEqual(code(self.log(c.UpdateTenant(AT, T1, **more))), "")  # type: ignore[arg-type]

    def test_durability_follows_the_owner(self) -> None:
        """A new durability is a wish until the owner settles it; of a tenant without an owner it
        counts at once."""
        self.log(c.MarkReady(AT, T1, "node_a", 1))
        self.update(durability=Durability.ASYNC)
        self.assertEqual(self.assignment().durability, Durability.SYNC)
        self.assertEqual(self.assignment().wanted_durability, Durability.ASYNC)
        wrong = c.SettleDurability(AT, T1, "node_a", 1, Durability.SYNC)
        self.assertEqual(code(self.log(wrong)), "conflict")
        right = c.SettleDurability(AT, T1, "node_a", 1, Durability.ASYNC)
        self.assertEqual(code(self.log(right)), "")
        self.assertEqual(self.assignment().durability, Durability.ASYNC)
        self.assertIsNone(self.assignment().wanted_durability)
        self.update(durability=Durability.SYNC)
        self.update(durability=Durability.ASYNC)
        self.assertIsNone(self.assignment().wanted_durability, "taken back")
        self.log(c.TenantReleased(AT, T1, "node_a", 1))
        self.update(durability=Durability.SYNC)
        self.assertEqual(self.log.registry.tenant(T1).durability, Durability.SYNC)

    def test_other_wishes_count_at_once(self) -> None:
        """Durable reads and what to do in an outage reach the node with its next list."""
        before = self.log.registry.assignments("node_a").index
        self.update(durable_reads=True, on_s3_outage=OnOutage.REJECT)
        found = self.assignment()
        self.assertEqual((found.durable_reads, found.on_s3_outage), (True, OnOutage.REJECT))
        self.assertGreater(self.log.registry.assignments("node_a").index, before)


class RequestTests(RequestCase):
    def setUp(self) -> None:
        super().setUp()
        self.owner = self.place().node_id
        self.other = ({"node_a", "node_b"} - {self.owner}).pop()
        self.answer(self.owner, self.report(self.owner, "ready"), key="ready")

    def flag(self, degraded: bool = True) -> wire.SetDegraded:
        return wire.SetDegraded(self.owner, 1, self.tenant.id, 1, degraded)

    def test_the_answer_comes_after_the_commit(self) -> None:
        """What the node was answered is what the registry says; another node is refused."""
        self.answer(self.owner, self.flag(), key="d1")
        self.assertTrue(self.tenant.degraded)
        self.refusal(Forbidden, self.other, self.flag(), key="d2")
        stale = wire.SetDegraded(self.owner, 1, self.tenant.id, 7, degraded=False)
        self.refusal(WrongEpoch, self.owner, stale, key="d3")
        self.answer(self.owner, self.flag(False), key="d4")
        self.assertFalse(self.tenant.degraded)

    def test_a_silent_owner_keeps_it(self) -> None:
        """The node of a degraded tenant may be silent for long: nobody else gets it, and who asks
        is told why; that of another tenant is replaced."""
        self.answer(self.owner, self.flag(), key="d1")
        self.renewing.discard(self.owner)
        self.run_for(20.0)
        self.assertEqual((self.tenant.node_id, self.tenant.epoch), (self.owner, 1))
        question = wire.LookupRoute(tenant_id=self.tenant.id, place=True)
        self.assertIn("operator", self.refusal(Unavailable, "g", question))

    def test_an_owner_that_cannot_go_on_keeps_it(self) -> None:
        """A copy that its node does not trust any more is no reason to drop what only it has."""
        self.answer(self.owner, self.flag(), key="d1")
        report = self.report(self.owner, "refused", observed_epoch=1, detail="no trusted note")
        self.assertIn("operator", self.refusal(Unavailable, self.owner, report, key="r1"))
        self.assertEqual(self.tenant.epoch, 1)
        self.assertEqual(self.world.requests.reports.stranded, {self.tenant.id: 1})

    def test_settled(self) -> None:
        """The owner's word settles what is wanted, and nothing else."""
        self.answer(self.owner, self.report(self.owner, "settled", detail="async"), key="s1")
        self.assertEqual(self.tenant.durability, Durability.SYNC)
        wish = c.UpdateTenant(AT, self.tenant.id, durability=Durability.ASYNC)
        Deferred.fromCoroutine(self.world.consensus.propose(wish, "u"))
        self.run_for(0.1)
        self.answer(self.owner, self.report(self.owner, "settled", detail="sync"), key="s2")
        self.assertEqual(self.tenant.durability, Durability.SYNC)
        self.answer(self.owner, self.report(self.owner, "settled", detail="async"), key="s3")
        self.assertEqual(self.tenant.durability, Durability.ASYNC)

    def test_restored(self) -> None:
        """An owner that restored a backup gets the next epoch, on the same node."""
        self.run_for(3.0)  # else an older start of the node might still answer
        self.answer(self.owner, self.report(self.owner, "restored"), key="b1")
        self.assertEqual((self.tenant.node_id, self.tenant.epoch), (self.owner, 2))
        self.answer(self.owner, self.report(self.owner, "restored"), key="b1")
        self.assertEqual(self.tenant.epoch, 2)
