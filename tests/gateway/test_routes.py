from random import Random

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.gateway.routes import ABSENT_S, MAX_ABSENT, RouteCache, State
from pbcluster.gateway.tenant_id import TenantKey
from pbcluster.wire import Snapshot
from tests.gateway.fakes import route

SHOP = TenantKey("name", "shop")


class RouteCacheTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.cache = RouteCache(300.0)

    def epoch(self, key: TenantKey = SHOP) -> int | None:
        entry = self.cache.peek(key)
        return None if entry is None else entry.route.epoch

    def test_newness_table(self) -> None:
        """Only a higher epoch, or the same with the same or a higher incarnation, replaces."""
        table = [
            ((2, 5), (1, 9), False),
            ((2, 5), (2, 4), False),
            ((2, 5), (2, 5), True),
            ((2, 5), (2, 6), True),
            ((2, 5), (3, 1), True),
        ]
        for (epoch, life), (new_epoch, new_life), taken in table:
            cache = RouteCache(300.0)
            cache.put(route(epoch=epoch, incarnation=life), 1, 0.0)
            changed = cache.put(route(epoch=new_epoch, incarnation=new_life), 2, 0.0)
            self.assertEqual(changed, taken, (new_epoch, new_life))
            found = cache.peek(SHOP)
            assert found is not None
            expected = (new_epoch, new_life) if taken else (epoch, life)
            self.assertEqual((found.route.epoch, found.route.incarnation), expected)

    def test_states(self) -> None:
        """A route is fresh for its TTL, then expired; a doubted one is neither."""
        self.cache.put(route(), 1, 100.0)
        entry = self.cache.find(SHOP)
        assert entry is not None
        self.assertEqual(entry.state(399.9), State.FRESH)
        self.assertEqual(entry.state(400.0), State.EXPIRED)
        self.cache.doubt(entry.route.tenant_id, 0)
        self.assertEqual(entry.state(100.0), State.DOUBTED)
        self.assertTrue(entry.usable)

    def test_min_epoch(self) -> None:
        """What a node told of a newer epoch makes older routes unusable, also later ones."""
        self.cache.put(route(epoch=3), 1, 0.0)
        self.cache.doubt(route().tenant_id, 5)
        entry = self.cache.peek(SHOP)
        assert entry is not None
        self.assertFalse(entry.usable)
        self.cache.put(route(epoch=4), 2, 0.0)
        entry = self.cache.peek(SHOP)
        assert entry is not None
        self.assertEqual((entry.doubted, entry.usable), (True, False))
        self.cache.put(route(epoch=5), 3, 0.0)
        entry = self.cache.peek(SHOP)
        assert entry is not None
        self.assertEqual((entry.doubted, entry.usable), (False, True))

    def test_node_down(self) -> None:
        """A node's end doubts its routes up to that incarnation and no others."""
        self.cache.put(route("a", incarnation=1), 1, 0.0)
        self.cache.put(route("b", incarnation=2), 1, 0.0)
        self.cache.put(route("c", node_id="node_b"), 1, 0.0)
        self.assertEqual(self.cache.doubt_node("node_a", 1), 1)
        doubted = {e.route.name for e in self.cache.entries(9) if e.doubted}
        self.assertEqual(doubted, {"a"})

    def test_moved_route_leaves_its_node(self) -> None:
        """After a move the old node's end does not touch the tenant."""
        self.cache.put(route(), 1, 0.0)
        self.cache.put(route(node_id="node_b", epoch=2), 2, 0.0)
        self.assertEqual(self.cache.doubt_node("node_a", 9), 0)

    def test_absent(self) -> None:
        """Not found is believed for 3 s, and no longer when a route appears."""
        self.cache.put_absent(SHOP, 10.0)
        self.assertTrue(self.cache.is_absent(SHOP, 10.0 + ABSENT_S - 0.1))
        self.assertFalse(self.cache.is_absent(SHOP, 10.0 + ABSENT_S))
        self.cache.put_absent(SHOP, 20.0)
        self.cache.put(route(), 1, 20.1)
        self.assertFalse(self.cache.is_absent(SHOP, 20.2))

    def test_absent_is_bounded(self) -> None:
        """A flood of unknown hosts pushes out the oldest."""
        for number in range(MAX_ABSENT + 5):
            self.cache.put_absent(TenantKey("name", f"n{number}"), 0.0)
        self.assertFalse(self.cache.is_absent(TenantKey("name", "n4"), 0.0))
        self.assertTrue(self.cache.is_absent(TenantKey("name", "n5"), 0.0))

    def test_least_recently_used_goes(self) -> None:
        """Beyond its bound the cache forgets the route that was not used for longest."""
        cache = RouteCache(300.0, max_routes=2)
        cache.put(route("a"), 1, 0.0)
        cache.put(route("b"), 1, 0.0)
        cache.find(TenantKey("name", "a"))
        cache.put(route("c"), 1, 0.0)
        self.assertEqual([e.route.name for e in cache.entries(9)], ["c", "a"])
        self.assertIsNone(cache.peek(TenantKey("name", "b")))

    def test_order_of_use(self) -> None:
        """However routes come, change, are used and go, they stand in the order of their last use
        or coming."""
        cache, random = RouteCache(300.0, max_routes=4), Random(7)
        order: list[str] = []
        for step in range(2000):
            name = random.choice("abcdef")
            tenant_id = route(name).tenant_id
            if random.random() < 0.3:
                cache.put(route(name, epoch=step + 1), step + 1, 0.0)
                if tenant_id not in order:
                    order = [*order, tenant_id][-4:]
            elif random.random() < 0.1:
                cache.forget(tenant_id, 0.0)
                order = [each for each in order if each != tenant_id]
            elif cache.find(TenantKey("name", name)) is not None:
                order = [*(each for each in order if each != tenant_id), tenant_id]
            self.assertEqual(list(cache.tenant_ids()), order, step)

    def test_hits_and_misses(self) -> None:
        """Uses are counted, in all and by route; a newer route keeps its tenant's count."""
        self.cache.find(SHOP)
        self.cache.put(route(), 1, 0.0)
        self.cache.find(SHOP)
        self.cache.put(route(epoch=2), 2, 0.0)
        entry = self.cache.find(SHOP)
        assert entry is not None
        self.assertEqual((self.cache.hits, self.cache.misses, entry.hits), (2, 1, 2))

    def test_reused_name(self) -> None:
        """A name that passed to another tenant leads there, also after the first one's end."""
        old = route(tenant_id="tenant_old00000")
        new = route(tenant_id="tenant_new00000")
        self.cache.put(old, 1, 0.0)
        self.cache.put(new, 2, 0.0)
        self.cache.forget(old.tenant_id, 1.0)
        found = self.cache.peek(TenantKey("tenant_id", "tenant_new00000"))
        assert found is not None
        self.assertEqual(found.route, new)

    def test_custom_domains(self) -> None:
        """A tenant is found under each of its hosts, and a domain that it lost leads nowhere."""
        key = TenantKey("domain", "shop.example.com")
        self.cache.put(route(hosts=("shop.localhost", "shop.example.com")), 1, 0.0)
        self.assertEqual(self.epoch(key), 1)
        self.cache.put(route(epoch=2), 2, 0.0)
        self.assertIsNone(self.epoch(key))

    def test_snapshot(self) -> None:
        """A snapshot replaces what is older and drops what it lacks, unless that is newer."""
        self.cache.put(route("a"), 5, 0.0)
        self.cache.put(route("b"), 5, 0.0)
        self.cache.put(route("c"), 9, 0.0)
        asked = self.cache.tenant_ids()
        self.cache.put_snapshot(asked, Snapshot(7, (route("a", epoch=2),)), 1.0)
        left = {e.route.name: e.route.epoch for e in self.cache.entries(9)}
        self.assertEqual(left, {"a": 2, "c": 1})

    def test_deleted(self) -> None:
        """A deleted tenant is gone at once and known to be."""
        self.cache.put(route(), 1, 0.0)
        self.cache.forget(route().tenant_id, 1.0)
        self.assertIsNone(self.epoch())
        self.assertTrue(self.cache.is_absent(SHOP, 1.0))
