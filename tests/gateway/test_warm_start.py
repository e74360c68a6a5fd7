"""Routes in a file: what is believed of them, and when the file is not."""

import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.errors import ConfigError
from pbcluster.gateway import warm_start
from pbcluster.gateway.routes import RouteCache, State
from pbcluster.gateway.tenant_id import TenantKey
from pbcluster.gateway.warm_start import MAX_AGE_S, SavedRoutes, pack, unpack
from pbcluster.wire import Route, Snapshot
from tests.gateway.fakes import route

SHOP = TenantKey("name", "shop")


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.routes = RouteCache(300.0)

    def write(self, number: int, *routes: Route, cluster: str = "test", age_s: float = 5.0) -> Path:
        file = warm_start.routes_file(self.directory, number)
        warm_start.write(file, SavedRoutes(cluster, time.time() - age_s, routes))
        return file

    def load(self) -> int:
        return warm_start.load(self.directory, "test", self.routes, now=100.0, unix_s=time.time())

    def test_every_torn_file_is_recognised(self) -> None:
        """Cut anywhere, or with any bit flipped, a file is refused."""
        data = pack(SavedRoutes("test", 1.0, (route(),)))
        self.assertEqual(unpack(data).routes, (route(),))
        for length in range(len(data)):
            self.assertRaises(ConfigError, unpack, data[:length])
        for place in range(len(data)):
            flipped = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
            self.assertRaises(ConfigError, unpack, flipped)

    def test_all_workers_files(self) -> None:
        """All files are read; the newest epoch of a tenant counts, whatever the order."""
        self.write(1, route(epoch=3), route("blog"))
        self.write(2, route(epoch=2), route("wiki"))
        self.assertEqual(self.load(), 3)
        found = self.routes.peek(SHOP)
        assert found is not None
        self.assertEqual((found.route.epoch, found.index), (3, 0))
        self.assertEqual(found.state(100.0), State.EXPIRED)

    def test_not_used(self) -> None:
        """Damaged files and those of another cluster are set aside, too old ones are ignored."""
        damaged = self.write(1, route())
        damaged.write_bytes(damaged.read_bytes()[:-1])
        self.write(2, route("blog"), cluster="other")
        self.write(3, route("wiki"), age_s=MAX_AGE_S + 60)
        self.assertEqual(self.load(), 0)
        names = sorted(file.name for file in self.directory.iterdir())
        self.assertEqual(names, ["1.routes.damaged", "2.routes.damaged", "3.routes"])

    def test_prune(self) -> None:
        """Files of workers that are no more go."""
        for number in (1, 2, 3):
            self.write(number, route())
        warm_start.prune(self.directory, 2)
        names = sorted(file.name for file in self.directory.iterdir())
        self.assertEqual(names, ["1.routes", "2.routes"])


class CacheTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.routes = RouteCache(300.0)

    def epoch(self) -> int:
        found = self.routes.peek(SHOP)
        assert found is not None
        return found.route.epoch

    def test_the_control_plane_wins(self) -> None:
        """A route from a file gives way to what the control plane says, even of a lower epoch: it
        may have been recovered. It never replaces what the control plane said."""
        self.routes.warm([route(epoch=9)], 100.0, 5.0)
        self.routes.put(route(epoch=2), 7, 101.0)
        self.assertEqual(self.epoch(), 2)
        self.routes.warm([route(epoch=9)], 102.0, 5.0)
        self.assertEqual(self.epoch(), 2)

    def test_a_name_that_passed_on(self) -> None:
        """A tenant of the file whose name another one has by now is not remembered."""
        self.routes.put(route(tenant_id="tenant_other0000000"), 7, 100.0)
        self.routes.warm([route()], 101.0, 5.0)
        found = self.routes.peek(SHOP)
        assert found is not None
        self.assertEqual(found.route.tenant_id, "tenant_other0000000")

    def test_a_snapshot_without_it(self) -> None:
        """A tenant that today's snapshot does not have is forgotten."""
        self.routes.warm([route()], 100.0, 5.0)
        self.routes.put_snapshot([route().tenant_id], Snapshot(1, ()), 101.0)
        self.assertIsNone(self.routes.peek(SHOP))

    def test_what_is_saved(self) -> None:
        """Only what may be used without asking is written; changes are counted."""
        self.routes.put(route(), 7, 100.0)
        self.routes.put(route("blog"), 7, 100.0)
        self.routes.doubt(route().tenant_id, 5)
        self.assertEqual([each.name for each in self.routes.usable()], ["blog"])
        before = self.routes.changes
        self.routes.put(route("blog"), 8, 101.0)
        self.assertEqual(self.routes.changes, before)
        self.routes.put(route("blog", epoch=2), 9, 102.0)
        self.assertEqual(self.routes.changes, before + 1)
