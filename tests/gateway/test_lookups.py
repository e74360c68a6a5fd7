from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.errors import Archived, Busy, NoCapacity, NotFound, Unavailable
from pbcluster.gateway import lookups as module
from pbcluster.gateway.lookups import AWAY_S, LOOKUP_TIMEOUT_S, Found
from pbcluster.gateway.tenant_id import TenantKey
from tests.gateway.fakes import World, route

SHOP = TenantKey("name", "shop")


class LookupTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.cp, self.lookups = self.world.cp, self.world.lookups

    def find(self) -> Deferred[Found]:
        return Deferred.fromCoroutine(self.lookups.find(SHOP))

    def renew(self) -> Deferred[Found]:
        return Deferred.fromCoroutine(self.lookups.renew(SHOP))

    def test_any_member_first(self) -> None:
        """A first look-up asks any member without placing; then the cache answers."""
        self.cp.know(route())
        self.assertEqual(self.successResultOf(self.find()), Found(route(), "lookup"))
        self.assertEqual(self.successResultOf(self.find()), Found(route(), "cache"))
        self.assertEqual([body.place for body in self.cp.lookups], [False])
        self.assertEqual(self.lookups.cached(SHOP), route())

    def test_leader_has_the_last_word(self) -> None:
        """What a member does not know yet, the leader is asked for and places."""
        self.cp.know(route())
        self.cp.unplaced.add("shop")
        self.assertEqual(self.successResultOf(self.find()).route, route())
        self.assertEqual([body.place for body in self.cp.lookups], [False, True])

    def test_not_found_is_remembered(self) -> None:
        """An unknown tenant costs two questions in three seconds, however often it is asked for."""
        for _ in range(5):
            self.failureResultOf(self.find(), NotFound)
        self.assertEqual(len(self.cp.lookups), 2)
        self.world.advance(3.0)
        self.cp.know(route())
        self.assertEqual(self.successResultOf(self.find()).route, route())

    def test_archived_is_remembered_as_such(self) -> None:
        """Everybody who asks within the three seconds is told so, not that there is none; a route
        that comes by a broadcast ends it."""
        self.cp.error = Archived("this tenant is archived")
        for _ in range(5):
            told = self.failureResultOf(self.renew(), Archived).value
            self.assertEqual((told.status, str(told)), (503, "this tenant is archived"))
        self.assertEqual(len(self.cp.lookups), 2)
        self.assertIsInstance(self.world.routes.archived(SHOP), Archived)
        self.world.routes.put(route(), 7, self.world.clock.seconds())
        self.assertEqual(self.successResultOf(self.find()).route, route())

    def test_single_flight(self) -> None:
        """A crowd asks once; each gets the answer; who leaves does not disturb the others."""
        self.cp.know(route())
        self.cp.delay_s = 0.5
        asked = [self.find() for _ in range(10)]
        asked[3].cancel()
        self.failureResultOf(asked.pop(3), CancelledError)
        self.world.advance(0.5)
        for each in asked:
            self.assertEqual(self.successResultOf(each).route, route())
        self.assertEqual(len(self.cp.lookups), 1)

    def test_crowd_fails_together(self) -> None:
        """A failure reaches everybody who asked."""
        self.cp.delay_s = 0.5
        self.cp.error = NoCapacity("no node has room")
        asked = [self.find() for _ in range(3)]
        self.world.advance(0.5)
        for each in asked:
            self.failureResultOf(each, NoCapacity)

    def test_expired_is_used_and_asked_for(self) -> None:
        """A route past its TTL is used at once while a new one is fetched behind it."""
        self.world.routes.put(route(), 1, self.world.clock.seconds())
        self.cp.know(route(epoch=2, node_id="node_b"))
        self.world.clock.advance(301.0)
        self.assertEqual(self.lookups.cached(SHOP), route())
        self.assertEqual(len(self.cp.lookups), 1)
        self.assertEqual(self.lookups.cached(SHOP), route(epoch=2, node_id="node_b"))

    def test_doubted_is_asked_for_with_placing(self) -> None:
        """A doubted route is not used before the control plane named a living owner."""
        self.world.routes.put(route(), 1, self.world.clock.seconds())
        self.world.routes.doubt_node("node_a", 1)
        self.assertIsNone(self.lookups.cached(SHOP))
        moved = self.cp.know(route(epoch=2, node_id="node_b"))
        self.assertEqual(self.successResultOf(self.find()), Found(moved, "lookup"))
        self.assertEqual([body.place for body in self.cp.lookups], [True])

    def test_stale_while_away(self) -> None:
        """Without the control plane the doubted route is used: first after one question's time,
        then at once."""
        self.world.routes.put(route(), 1, self.world.clock.seconds())
        self.world.routes.doubt_node("node_a", 1)
        self.cp.away = True
        asked = self.find()
        self.assertNoResult(asked)
        self.world.advance(LOOKUP_TIMEOUT_S)
        self.assertEqual(self.successResultOf(asked), Found(route(), "stale"))
        self.assertEqual(self.successResultOf(self.find()), Found(route(), "stale"))
        self.assertEqual(self.lookups.stale, 2)
        self.world.advance(AWAY_S)
        self.cp.away = False
        moved = self.cp.know(route(epoch=2))
        self.assertEqual(self.successResultOf(self.find()), Found(moved, "lookup"))

    def test_never_below_what_a_node_said(self) -> None:
        """Below the epoch that a node told of, no route is used, whoever says so."""
        self.world.routes.put(route(epoch=3), 1, self.world.clock.seconds())
        self.world.routes.doubt(route().tenant_id, 5)
        self.cp.know(route(epoch=4))
        self.failureResultOf(self.renew(), Unavailable)
        self.assertEqual(self.cp.lookups[-1].min_epoch, 5)
        self.cp.know(route(epoch=5))
        self.assertEqual(self.successResultOf(self.renew()).route.epoch, 5)

    def test_member_behind(self) -> None:
        """An answer older than what is known does not go back."""
        self.world.routes.put(route(epoch=3), 9, self.world.clock.seconds())
        self.world.clock.advance(1.0)
        self.cp.know(route(epoch=2))
        self.assertEqual(self.successResultOf(self.renew()).route.epoch, 3)

    def test_held_requests_share(self) -> None:
        """What was confirmed a moment ago is not asked for again."""
        self.cp.know(route())
        for _ in range(20):
            self.successResultOf(self.renew())
        self.assertEqual(len(self.cp.lookups), 1)
        self.world.clock.advance(1.0)
        self.successResultOf(self.renew())
        self.assertEqual(len(self.cp.lookups), 2)

    def test_bounded(self) -> None:
        """Beyond the bound of questions under way, further ones are refused at once."""
        self.patch(module, "MAX_LOOKUPS", 2)
        self.cp.delay_s = 1.0
        for name in ("a", "b"):
            asked = Deferred.fromCoroutine(self.lookups.find(TenantKey("name", name)))
            asked.addErrback(lambda failure: None)
        self.failureResultOf(self.find(), Busy)
