from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.gateway.breaker import State
from pbcluster.gateway.tenant_id import TenantKey
from pbcluster.gateway.updates import AGAIN_S, PAGE, Updates
from pbcluster.wire import Broadcast, Route, SnapshotRequest
from tests.gateway.fakes import World, route


class FakeSubscriber:
    received: Callable[[Broadcast], None]
    gap: Callable[[int], None]
    stopped = False

    def start(self, received: Callable[[Broadcast], None], gap: Callable[[int], None]) -> None:
        self.received, self.gap = received, gap

    def stop(self) -> None:
        self.stopped = True


class UpdatesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.subscriber = FakeSubscriber()
        self.moved: list[Route] = []
        self.members: list[int] = []
        self.keys: list[int] = []
        self.updates = Updates(
            self.world.clock,
            self.subscriber,
            self.world.cp,
            self.world.routes,
            self.world.nodes,
            self.moved.append,
            self.members.append,
            self.keys.append,
        )
        self.updates.start()

    def tell(self, topic: str, **fields: object) -> None:
        self.subscriber.received(Broadcast(topic, 10, 9, **fields))  # type: ignore[arg-type]

    def put(self, *routes: Route) -> None:
        for each in routes:
            self.world.routes.put(each, 1, self.world.clock.seconds())

    def pages(self) -> list[int]:
        return [len(b.tenant_ids) for b in self.world.cp.asked if isinstance(b, SnapshotRequest)]

    def test_moved(self) -> None:
        """A move is known at once, and who waits for the tenant is told; a late one changes
        nothing."""
        self.put(route(epoch=2))
        new = route(epoch=3, node_id="node_b")
        self.tell("tenant.moved", tenant_id=new.tenant_id, route=new)
        self.tell("tenant.moved", tenant_id=new.tenant_id, route=route(epoch=1))
        self.assertEqual(self.world.lookups.cached(TenantKey("name", "shop")), new)
        self.assertEqual(self.moved, [new])

    def test_updated(self) -> None:
        """A changed tenant's route is used on, and asked for anew."""
        self.put(route())
        self.world.cp.know(route(max_body_bytes=5))
        self.tell("tenant.updated", tenant_id=route().tenant_id)
        self.assertEqual(self.world.lookups.cached(TenantKey("name", "shop")), route())
        cached = self.world.lookups.cached(TenantKey("name", "shop"))
        assert cached is not None
        self.assertEqual(cached.max_body_bytes, 5)

    def test_updated_with_its_route(self) -> None:
        """New host names answer at once, though they were just said to be none; removed ones answer
        no more, and a late answer of a member that is behind brings none back."""
        before = route(hosts=("shop.localhost", "old.example.com"))
        after = route(hosts=("shop.localhost", "new.example.com"))
        self.put(before)
        new, old = TenantKey("domain", "new.example.com"), TenantKey("domain", "old.example.com")
        self.world.routes.put_absent(new, self.world.clock.seconds())
        self.tell("tenant.updated", tenant_id=after.tenant_id, route=after)
        self.assertEqual(self.world.lookups.cached(new), after)
        self.assertFalse(self.world.routes.is_absent(new, self.world.clock.seconds()))
        self.assertIsNone(self.world.lookups.cached(old))
        self.world.routes.put(before, 9, self.world.clock.seconds())
        self.assertIsNone(self.world.lookups.cached(old))
        self.assertEqual(self.world.lookups.cached(new), after)

    def test_keys(self) -> None:
        """Changed keys, and every gap, make the gateway ask for keys as new as that."""
        self.tell("keys.changed")
        self.subscriber.gap(12)
        self.assertEqual(self.keys, [10, 12])

    def test_deleted(self) -> None:
        """A deleted tenant is gone without a question."""
        self.put(route())
        self.tell("tenant.deleted", tenant_id=route().tenant_id)
        key = TenantKey("name", "shop")
        self.assertTrue(self.world.routes.is_absent(key, self.world.clock.seconds()))

    def test_node_down_and_up(self) -> None:
        """Down opens the node's breaker and doubts its routes; its next life begins anew."""
        self.put(route(incarnation=1))
        self.tell("node.down", node_id="node_a", incarnation=1)
        self.assertIs(self.world.nodes.state(route()), State.OPEN)
        self.assertIsNone(self.world.lookups.cached(TenantKey("name", "shop")))
        self.tell("node.up", node_id="node_a", incarnation=2)
        self.assertIs(self.world.nodes.state(route(incarnation=2)), State.CLOSED)

    def test_members(self) -> None:
        """A change of the control plane's members is passed on with its index."""
        self.tell("members.changed")
        self.assertEqual(self.members, [10])

    def test_gap(self) -> None:
        """After a gap all routes are fetched in pages; what has none any more is forgotten."""
        for number in range(PAGE + 1):
            each = route(f"t{number}", tenant_id=f"tenant_{number:08}")
            self.put(each)
            if number:
                self.world.cp.know(route(f"t{number}", tenant_id=each.tenant_id, epoch=2))
        self.subscriber.gap(1)
        self.assertEqual(self.pages(), [PAGE, 1])
        self.assertEqual(len(self.world.routes), PAGE)
        self.assertEqual({e.route.epoch for e in self.world.routes.entries(PAGE)}, {2})

    def test_old_snapshot_is_refused(self) -> None:
        """A snapshot from before the gap is asked for again until it is new enough."""
        self.put(route())
        self.world.cp.know(route(epoch=2))
        self.world.cp.index = 4
        self.subscriber.gap(5)
        self.assertEqual(self.moved, [])
        self.world.cp.index = 5
        self.world.advance(AGAIN_S)
        self.assertEqual([each.epoch for each in self.moved], [2])

    def test_gap_during_a_refresh(self) -> None:
        """A second gap makes the running refresh start again, not a second one beside it."""
        self.put(route())
        self.world.cp.know(route(epoch=2))
        self.world.cp.delay_s = 0.2
        self.subscriber.gap(1)
        self.subscriber.gap(1)
        self.world.advance(2.0)
        self.assertEqual(self.pages(), [1, 1])

    def test_stop(self) -> None:
        """A refresh under way ends with the gateway."""
        self.put(route())
        self.world.cp.away = True
        self.subscriber.gap(1)
        self.updates.stop()
        self.world.advance(20.0)
        self.assertEqual((self.pages(), self.subscriber.stopped), ([1], True))
