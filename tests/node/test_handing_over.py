"""The node's parts of a migration: handing a tenant over, and warming up for one that comes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pbcluster.node.handing_over import OPEN_REQUESTS_S, HandingOver
from pbcluster.node.lifecycle import State
from pbcluster.node.orders import Orders
from pbcluster.node.warming import WarmFiles, Warming
from pbcluster.testing.node_fakes.warm_files import FakeWarmFiles
from pbcluster.wire import MOVED, NodeAssignments, TenantReport
from pbcluster.wire import Warming as Order
from tests.node.harness import NodeHarness, T, assignment
from tests.node.tenants_case import Base

MOVE = "migration_1"


def orders_of(node: NodeHarness) -> Orders:
    warming = Warming(
        node_id=node.name,
        files=FakeWarmFiles(node.fake.disk),
        claims=node.fake.claims,
        replication=node.fake.replication,
        report=node.parts.report,
    )
    object.__setattr__(node.parts, "warm", warming)
    return Orders(node.tenants, HandingOver(node.parts, node.tenants), warming)


class OrdersCase(Base):
    def setUp(self) -> None:
        super().setUp()
        self.index = 0
        self.orders = orders_of(self.node)

    def obey(
        self,
        *assignments: Any,
        warming: tuple[Order, ...] = (),
        node: NodeHarness | None = None,
        orders: Orders | None = None,
    ) -> None:
        self.index += 1
        name = (node or self.node).name
        new = NodeAssignments(name, 1, self.index, assignments, warming)
        self.assertTrue((orders or self.orders).obey(new))

    def last(self, node: NodeHarness | None = None) -> TenantReport:
        return (node or self.node).reports[-1]

    def serving(self) -> None:
        self.obey(assignment())
        self.node.load()
        self.node.lease()

    def hand_over(self) -> None:
        self.obey(assignment(handing_over=MOVE, ever_ready=True))


class SourceTests(OrdersCase):
    def test_stopped_synced_and_reported(self) -> None:
        """Nothing is handed on from the call in which the list is obeyed; then the tenant stops and
        all of it is in S3."""
        self.serving()
        self.successResultOf(self.write("row 1"))
        self.hand_over()
        self.assertIsNone(self.node.tenant().upstream(write=False))
        self.node.run(1.0)
        report = self.last()
        self.assertEqual((report.outcome, report.migration_id), ("drained", MOVE))
        self.assertTrue(report.settled)
        self.assertGreater(report.txid, 0)
        self.assertIs(self.node.tenant().state, State.ABSENT)
        self.assertNotIn(T, self.node.fake.workloads.running)

    def test_open_requests_are_waited_for(self) -> None:
        """It is stopped when the last one ended, at once."""
        self.serving()
        tenant = self.node.tenant()
        self.node.tenants.uses.opened(tenant)
        self.hand_over()
        self.node.run(OPEN_REQUESTS_S - 1)
        self.assertIn(T, self.node.fake.workloads.running)
        self.node.tenants.uses.closed(tenant, stream=False)
        self.node.run(0.5)
        self.assertEqual(self.last().outcome, "drained")

    def test_a_request_that_takes_too_long_ends_the_move_not_itself(self) -> None:
        """It is reported, PocketBase was not touched, and the abort's list serves on."""
        self.serving()
        self.node.tenants.uses.opened(self.node.tenant())
        self.hand_over()
        self.node.run(OPEN_REQUESTS_S + 1)
        self.assertEqual(self.last().outcome, "not_drained")
        self.assertIn("still open", self.last().detail)
        self.assertIn(T, self.node.fake.workloads.running)
        self.obey(assignment(ever_ready=True))
        self.assertIsNotNone(self.node.tenant().upstream(write=True))

    def test_requests_wait_and_are_served_after_an_abort(self) -> None:
        """Under the same epoch, from the copy that is there."""
        self.serving()
        self.hand_over()
        waiting = self.node.ready()
        self.node.run(1.0)
        self.assertNoResult(waiting)
        self.obey(assignment(ever_ready=True))
        self.node.run(1.0)
        tenant = self.successResultOf(waiting)
        self.assertEqual((tenant.epoch, tenant.state), (1, State.ACTIVE))

    def test_an_abort_in_the_middle_of_the_stop(self) -> None:
        """What was begun ends; then it is served again, and nothing is reported for the order that
        was taken back."""
        self.serving()
        self.node.fake.s3.faults.delay_s = 0.5
        self.hand_over()
        self.node.run(0.2)
        self.obey(assignment(ever_ready=True, wanted=True))
        self.node.fake.s3.faults.delay_s = 0.002
        self.node.run(5.0)
        self.assertNotIn("drained", [each.outcome for each in self.node.reports])
        self.assertIs(self.node.tenant().state, State.ACTIVE)

    def test_what_is_not_in_s3_is_not_given_up(self) -> None:
        """The last sync fails: reported as not drained."""
        self.serving()
        self.node.fake.s3.faults.down = True
        self.hand_over()
        self.node.run(20.0)
        self.assertEqual(self.last().outcome, "not_drained")

    def test_a_young_claim_is_not_settled(self) -> None:
        """Whoever had it before may hold a proof for a moment: the successor must wait."""
        self.obey(assignment(epoch=2, ever_ready=False))
        self.node.load()
        self.obey(assignment(epoch=3, wanted=True))
        self.node.run(0.5)
        self.obey(assignment(epoch=3, handing_over=MOVE))
        self.node.run(1.0)
        self.assertEqual((self.last().outcome, self.last().settled), ("drained", False))

    def test_a_restarted_source_hands_over_too(self) -> None:
        """The order is in the first list: nothing is started, and it is reported again."""
        self.serving()
        self.node.fake.die()
        again = NodeHarness(self.clock, self.s3, disk=self.node.fake.disk)
        orders = orders_of(again)
        handing_over = assignment(handing_over=MOVE, ever_ready=True, wanted=True)
        self.obey(handing_over, node=again, orders=orders)
        again.run(2.0)
        self.assertEqual(self.last(again).outcome, "drained")
        self.assertEqual(again.fake.workloads.running, {})

    def test_requests_by_the_old_route_are_told(self) -> None:
        """A heartbeat names the tenants that left and were still asked for, once."""
        self.serving()
        self.obey()
        self.failureResultOf(self.node.ready())
        self.assertEqual([(u.tenant_id, u.state) for u in self.node.tenants.usage()], [(T, MOVED)])
        self.assertEqual(self.node.tenants.usage(), ())


class TargetTests(OrdersCase):
    def setUp(self) -> None:
        super().setUp()
        self.target = NodeHarness(self.clock, self.s3, "node_b")
        self.target_orders = orders_of(self.target)
        self.serving()
        self.successResultOf(self.write("row 1"))

    def at_target(self, *assignments: Any, order: bool = True) -> None:
        warming = (Order(T, MOVE, 1),) if order else ()
        self.obey(*assignments, warming=warming, node=self.target, orders=self.target_orders)

    def test_a_copy_without_owning(self) -> None:
        """It is restored and reported; the owner object and the source's service are untouched."""
        before = self.s3.objects[f"tenants/{T}/owner.json"]
        self.at_target()
        self.target.run(1.0)
        report = self.last(self.target)
        self.assertEqual((report.outcome, report.migration_id), ("warmed", MOVE))
        self.assertGreater(report.size_bytes, 0)
        self.assertEqual(self.s3.objects[f"tenants/{T}/owner.json"], before)
        self.successResultOf(self.write("row 2"))

    def test_it_is_used_if_nothing_was_written_since(self) -> None:
        """Then no restore is in the pause; and the new owner, to whom it was given up, answers
        without waiting out its claim."""
        self.at_target()
        self.target.run(1.0)
        self.hand_over()
        self.node.run(1.0)
        self.assertEqual(self.last().outcome, "drained")
        self.obey()
        self.target.fake.replication.restore_delay_s = 60.0
        self.at_target(assignment(epoch=2, released_epoch=1, wanted=True))
        self.target.lease()
        self.target.run(0.4)
        self.assertIs(self.target.tenant().state, State.ACTIVE)
        self.target.lease()
        self.assertTrue(self.target.tenant().proven())
        self.assertEqual(self.target.fake.workloads.running[T].rows(), ["row 1"])

    def test_it_is_not_used_if_something_was(self) -> None:
        """What was acknowledged after it was made is there all the same."""
        self.at_target()
        self.target.run(1.0)
        self.successResultOf(self.write("row 2"))
        self.hand_over()
        self.node.run(1.0)
        self.obey()
        self.at_target(assignment(epoch=2, released_epoch=1, wanted=True))
        self.target.run(1.0)
        self.assertEqual(self.target.fake.workloads.running[T].rows(), ["row 1", "row 2"])

    def test_who_was_not_released_waits(self) -> None:
        """A claim that replaces one that nobody gave up answers only after its wait."""
        self.obey()
        self.node.run(1.0)
        self.at_target(assignment(epoch=2, wanted=True), order=False)
        self.target.run(0.4)
        self.target.lease()
        self.assertFalse(self.target.tenant().proven())

    def test_it_goes_with_its_order(self) -> None:
        """An aborted migration leaves nothing behind."""
        self.at_target()
        self.target.run(1.0)
        self.at_target(order=False)
        self.assertEqual(self.target.fake.disk.databases, {})

    def test_an_order_that_cannot_be_carried_out_is_told(self) -> None:
        """With the reason; a new order is tried again."""
        self.target.fake.s3.faults.down = True
        self.at_target()
        self.target.run(30.0)
        self.assertEqual(self.last(self.target).outcome, "warm_failed")


class FileTests(OrdersCase):
    def test_never_over_what_is_there(self) -> None:
        """A copy takes its place only if the place is free; real files."""
        root = Path(self.mktemp())
        files = WarmFiles(root)
        files.path(T).parent.mkdir(parents=True)
        files.path(T).write_bytes(b"copy")
        target = root / "tenants" / T / "data" / "data.db"
        target.parent.mkdir(parents=True)
        target.write_bytes(b"theirs")
        self.assertRaises(FileExistsError, files.move, T, target)
        self.assertEqual(target.read_bytes(), b"theirs")
        target.unlink()
        self.assertEqual(files.size(T), 4)
        files.move(T, target)
        self.assertEqual((target.read_bytes(), files.size(T)), (b"copy", 0))
        files.clear()
