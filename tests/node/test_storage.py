"""The bound on a tenant's database."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.errors import StorageFull
from pbcluster.node.storage import LOOK_INTERVAL_S, MAX_ASKED, Storage
from pbcluster.records import TenantQuotas
from pbcluster.testing.node_fakes.s3 import FakeS3
from pbcluster.web.interfaces import RequestHead
from pbcluster.wire import TenantUsage
from tests.node.harness import HOST, NodeHarness, T, assignment

QUOTA = 1000


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.node = NodeHarness(self.clock, FakeS3(self.clock), capacity=100)
        self.size = 0
        self.storage = self.made(0)
        self.serve(QUOTA)
        self.workload = self.node.fake.workloads.running[T]

    def made(self, default: int) -> Storage:
        return Storage(
            self.node.tenants,
            clock=self.clock,
            database_bytes=lambda tenant_id: self.size,
            max_db_bytes=default,
            file_bytes=lambda tenant_id: 7,
        )

    def serve(self, quota: int) -> None:
        self.node.assign(assignment(quotas=TenantQuotas(max_db_bytes=quota)))
        self.node.load()
        self.node.lease()

    def look(self, storage: Storage | None = None) -> None:
        (storage or self.storage).look()

    def refused(
        self, method: bytes = b"POST", target: bytes = b"/api/x", storage: Storage | None = None
    ) -> StorageFull | None:
        head = RequestHead(method, target, HOST.encode(), [], None, False, "127.0.0.1")
        return (storage or self.storage).refusal(self.node.tenant(), head)

    def uses(self, used: Any, size: int = 10 * QUOTA) -> None:
        """The files have ``size``; PocketBase says what is used of it."""
        self.size = size
        self.workload.replies["pages"] = {"usedBytes": used}
        self.look()


class BoundTests(Case):
    def test_files_within_the_quota(self) -> None:
        """PocketBase is not even asked while the files themselves are small enough."""
        self.uses(QUOTA + 1, size=QUOTA)
        self.assertIsNone(self.refused())
        self.assertEqual(self.workload.asked, [])

    def test_what_is_used_counts(self) -> None:
        """Large files with free pages refuse nothing; used pages over the quota do, at once after
        the look, and no more once they are freed."""
        self.uses(QUOTA)
        self.assertIsNone(self.refused())
        self.uses(QUOTA + 1)
        refused = self.refused()
        assert refused is not None
        self.assertEqual(refused.status, 507)
        self.assertEqual(refused.data, {"used_bytes": QUOTA + 1, "max_bytes": QUOTA})
        self.uses(QUOTA)
        self.assertIsNone(self.refused())

    def test_what_still_passes(self) -> None:
        """DELETE, signing in, listening and file tokens pass; what adds does not."""
        self.uses(QUOTA + 1)
        passes = (
            (b"DELETE", b"/api/collections/words/records/a"),
            (b"POST", b"/api/collections/users/auth-with-password"),
            (b"POST", b"/api/collections/users/auth-refresh?x=/"),
            (b"POST", b"/api/collections/users/request-otp"),
            (b"POST", b"/api/collections/_superusers/impersonate/abc"),
            (b"POST", b"/api/realtime"),
            (b"POST", b"/api/files/token"),
        )
        for method, target in passes:
            self.assertIsNone(self.refused(method, target), target)
        refused = (
            (b"POST", b"/api/collections/words/records"),
            (b"PATCH", b"/api/collections/users/auth-with-password"),
            (b"POST", b"/api/collections/words/records?x=/api/realtime"),
            (b"POST", b"/api/collections/a/b/auth-refresh"),
            (b"POST", b"/api/collections/users/auth-refresh/x"),
            (b"POST", b"/api/batch"),
            (b"POST", b"/api/sql"),
            (b"PUT", b"/api/collections/import"),
            (b"BREW", b"/"),
        )
        for method, target in refused:
            self.assertIsNotNone(self.refused(method, target), target)

    def test_a_raised_quota_counts_at_once(self) -> None:
        """A larger quota needs no look; a smaller one is met at the next."""
        self.uses(QUOTA + 1)
        self.serve(2 * QUOTA)
        self.assertIsNone(self.refused())
        self.serve(1)
        self.uses(2)
        self.assertIsNotNone(self.refused())

    def test_a_tenant_that_cannot_be_asked(self) -> None:
        """One that does not answer, or not with a number, counts by its files."""
        self.size = QUOTA + 5
        self.look()
        refused = self.refused()
        assert refused is not None
        self.assertEqual(refused.data["used_bytes"], QUOTA + 5)
        for lie in (None, "0", True, -1, 2**60, 0.5):
            self.uses(QUOTA - 1)
            self.assertIsNone(self.refused())
            self.uses(lie)
            self.assertIsNotNone(self.refused(), lie)

    def test_the_nodes_default(self) -> None:
        """A quota of 0 is the node's setting; that of 0 is no bound."""
        self.serve(0)
        self.uses(10 * QUOTA)
        self.assertIsNone(self.refused())
        bounded = self.made(QUOTA)
        self.look(bounded)
        self.assertIsNotNone(self.refused(storage=bounded))

    def test_sizes_in_the_heartbeat(self) -> None:
        """What database and files take is told with the rest."""
        self.size = 5
        (told,) = self.storage.with_sizes([TenantUsage(tenant_id=T, state="active")])
        self.assertEqual((told.db_bytes, told.file_bytes, told.state), (5, 7, "active"))


class LookTests(Case):
    def test_each_second(self) -> None:
        """It looks each second until it is stopped, whatever one look meets."""
        seen: list[str] = []

        def size(tenant_id: str) -> int:
            seen.append(tenant_id)
            if len(seen) == 1:
                raise ValueError("a bug")
            return 0

        storage = Storage(self.node.tenants, clock=self.clock, database_bytes=size)
        storage.start()
        for _ in range(3):
            self.clock.advance(LOOK_INTERVAL_S)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(seen, [T] * 3)
        storage.stop()
        self.clock.advance(LOOK_INTERVAL_S)
        self.assertEqual(len(seen), 3)

    def test_many_full_tenants_take_turns(self) -> None:
        """So many are asked in a look; all are after some."""
        names = [f"tenant_{number:08}" for number in range(2 * MAX_ASKED + 3)]
        quotas = TenantQuotas(max_db_bytes=QUOTA)
        self.node.assign(*(assignment(name, quotas=quotas, wanted=True) for name in names))
        self.node.run(5.0)
        running = self.node.fake.workloads.running
        self.assertEqual(set(running), set(names))
        self.size = 2 * QUOTA
        self.look()
        self.assertEqual(sum(len(each.asked) for each in running.values()), MAX_ASKED)
        self.look()
        self.look()
        self.assertEqual([name for name in names if not running[name].asked], [])

    def test_one_that_does_not_answer(self) -> None:
        """A tenant whose answer is waited for is not asked again, and keeps nobody waiting."""
        waiting: Deferred[Any] = Deferred()
        asked: list[str] = []

        async def ask(what: str, question: Any) -> Any:
            asked.append(what)
            return await waiting

        self.workload.ask = ask  # type: ignore[method-assign]
        self.size = 2 * QUOTA
        self.look()
        self.look()
        self.assertEqual(asked, ["pages"])
        waiting.callback({"usedBytes": QUOTA + 1})
        self.assertIsNotNone(self.refused())

    def test_who_is_gone_is_forgotten(self) -> None:
        """A tenant that was given away and comes back is not full before it was looked at."""
        self.uses(QUOTA + 1)
        self.node.assign()
        self.look()
        self.node.run(10.0)
        self.node.assign(assignment(epoch=3, quotas=TenantQuotas(max_db_bytes=QUOTA)))
        self.assertIsNone(self.refused())
