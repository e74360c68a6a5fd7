"""What is asked of Litestream, how its answers are judged, and its local metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.errors import InvalidInput, S3Unavailable
from pbcluster.node.litestream_client import Answer
from pbcluster.node.replication import MAX_SYNCS, LitestreamDaemon, metadata_path, replica_url
from pbcluster.node.s3 import S3Address

T = "tenant_abcdefgh"
DB = Path("/d/data.db")


def address(bucket: str = "bucket") -> S3Address:
    return S3Address(endpoint="http://h:1", bucket=bucket, access_key="a", secret_key="b")


class Control:
    """A control socket that answers what the test says, when it says."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.answers: list[Any] = []

    async def ask(self, path: str, body: Any = None, *, timeout_s: float) -> Answer:
        self.asked.append((path, body))
        answer = self.answers.pop(0)
        return await answer if isinstance(answer, Deferred) else answer


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.control = Clock(), Control()
        self.daemon = LitestreamDaemon(
            self.clock, binary=Path("/x"), data_dir=Path("/d"), address=address()
        )
        self.daemon._client = self.control  # type: ignore[assignment]

    def sync(self, *answers: Any) -> Deferred[int]:
        self.control.answers += answers
        return Deferred.fromCoroutine(self.daemon.sync(DB, timeout_s=5))

    def test_the_timeout_is_never_litestreams(self) -> None:
        """Every sync is asked with "timeout": -1; any other value corrupts replicas."""
        body = {"status": "synced", "txid": 9, "replicated_txid": 7}
        self.assertEqual(self.successResultOf(self.sync(Answer(200, body))), 7)
        wanted = {"path": str(DB), "wait": True, "timeout": -1}
        self.assertEqual(self.control.asked, [("/sync", wanted)])

    def test_only_the_status_counts(self) -> None:
        """no_change is fine; any other status word or HTTP status is a failed sync."""
        fine = Answer(200, {"status": "no_change", "replicated_txid": 3})
        self.assertEqual(self.successResultOf(self.sync(fine)), 3)
        for answer in (
            Answer(200, {"status": "pending", "replicated_txid": 3}),
            Answer(500, {"status": "synced", "replicated_txid": 3}),
            Answer(404, {"error": "database not found"}),
        ):
            self.failureResultOf(self.sync(answer), S3Unavailable)

    def test_our_limit(self) -> None:
        """A sync fails at our limit; forgotten ones are counted until they end, and others wait for
        that as long as they may."""
        forgotten: list[Deferred[Answer]] = [Deferred() for _ in range(MAX_SYNCS)]
        for each in forgotten:
            asked = self.sync(each)
            self.clock.advance(5)
            self.failureResultOf(asked, S3Unavailable)
        late = self.sync()
        self.clock.advance(4.9)
        self.assertNoResult(late)
        self.clock.advance(0.1)
        self.failureResultOf(late, S3Unavailable)
        self.assertEqual(len(self.control.asked), MAX_SYNCS)
        fine = Answer(200, {"status": "synced", "replicated_txid": 3})
        second: Deferred[Answer] = Deferred()
        waiting = [self.sync(second), self.sync(fine)]
        self.clock.advance(3)
        forgotten[0].callback(fine)
        # One place became free, for the first of them; it has what is left of its time.
        self.assertEqual(len(self.control.asked), MAX_SYNCS + 1)
        forgotten[1].callback(fine)
        self.assertEqual(self.successResultOf(waiting[1]), 3)
        self.clock.advance(2)
        self.failureResultOf(waiting[0], S3Unavailable)
        second.callback(fine)
        self.assertEqual(self.successResultOf(self.sync(fine)), 3)

    def test_who_waits_for_a_place_may_leave(self) -> None:
        """A sync that is cancelled while it waits leaves nothing behind."""
        forgotten: list[Deferred[Answer]] = [Deferred() for _ in range(MAX_SYNCS)]
        asked = [self.sync(each) for each in forgotten]
        late = self.sync()
        late.cancel()
        self.failureResultOf(late, CancelledError)
        fine = Answer(200, {"status": "synced", "replicated_txid": 3})
        for each in forgotten:
            each.callback(fine)
        self.assertEqual([self.successResultOf(each) for each in asked], [3] * MAX_SYNCS)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_registration_under_another_prefix_is_undone_first(self) -> None:
        """Litestream ignores a second URL for a known path: it is unregistered, then registered."""
        known = Answer(200, {"status": "already_registered"})
        gone = Answer(200, {"status": "unregistered"})
        made = Answer(200, {"status": "registered"})
        self.control.answers = [known, gone, made]
        self.successResultOf(Deferred.fromCoroutine(self.daemon.register(T, 2, DB)))
        paths = [path for path, _ in self.control.asked]
        self.assertEqual(paths, ["/register", "/unregister", "/register"])

    def test_urls(self) -> None:
        """The endpoint is quoted, and what is no bucket's name is refused."""
        url = replica_url(address(), T, 7)
        self.assertIn(f"s3://bucket/tenants/{T}/litestream/{7:020}/data.db?", url)
        self.assertIn("endpoint=http%3A%2F%2Fh%3A1", url)
        for bucket in ("a", "b/../c", "x?y=z", "UPPER"):
            with self.assertRaises(InvalidInput):
                replica_url(address(bucket), T, 7)

    def test_local_metadata(self) -> None:
        """The highest local TXID of any level; after forgetting none."""
        database = Path(self.mktemp()).absolute() / "data.db"
        self.assertEqual(self.daemon.local_txid(database), 0)
        for level, name in ((0, f"{1:016x}-{5:016x}.ltx"), (1, f"{1:016x}-{4:016x}.ltx")):
            (metadata_path(database) / "ltx" / str(level)).mkdir(parents=True)
            (metadata_path(database) / "ltx" / str(level) / name).touch()
        self.assertEqual(self.daemon.local_txid(database), 5)
        self.daemon.forget(database)
        self.assertEqual(self.daemon.local_txid(database), 0)
        self.daemon.forget(database)
