"""The claim store's keys and words, on the S3 in memory."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.errors import ConfigError, InvalidInput, S3Unavailable, StorageCorrupt
from pbcluster.node.claims import (
    S3ClaimStore,
    highest_txid,
    owner_key,
    ready_key,
    replica_path,
)
from pbcluster.node.interfaces import Owner, Prefixes, Ready, Written
from pbcluster.node.s3 import S3Refused, Stored
from pbcluster.testing.node_fakes.s3 import FakeS3, FakeS3Client

T = "tenant_abcdefgh"
OWNER = Owner(epoch=3, node="node_a", incarnation=1, nonce="n")


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.s3 = FakeS3(self.clock)
        self.client = self.s3.client()
        self.store = S3ClaimStore(self.client)

    def run_now(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def fails(self, coroutine: Coroutine[Any, Any, Any], kind: type[Exception]) -> Exception:
        found: Exception = self.failureResultOf(Deferred.fromCoroutine(coroutine), kind).value
        return found


class Keys(Case):
    def test_keys_are_those_of_the_architecture(self) -> None:
        """Keys carry the epoch with 20 digits."""
        self.assertEqual(owner_key(T), "tenants/tenant_abcdefgh/owner.json")
        root = "tenants/tenant_abcdefgh/litestream/00000000000000000007"
        self.assertEqual(ready_key(T, 7), f"{root}/READY")
        self.assertEqual(replica_path(T, 7), f"{root}/data.db")

    def test_what_is_no_id_reaches_no_key(self) -> None:
        """Path words, names and impossible epochs are refused."""
        for word in ("", "shop", "../x", "tenant_a/../../b", "tenant_ABCDEFGH", "tenant_abcdefgh/"):
            with self.assertRaises(InvalidInput):
                owner_key(word)
        for epoch in (0, -1, 10**20):
            with self.assertRaises(InvalidInput):
                replica_path(T, epoch)

    def test_txids_are_read_from_names(self) -> None:
        """The highest second number of LTX names counts; other names do not."""
        root = replica_path(T, 1)
        names = (
            "0000/0000000000000001-000000000000000a.ltx",
            "0001/0000000000000001-0000000000000010.ltx",
        )
        keys = tuple(f"{root}/{name}" for name in names)
        self.assertEqual(highest_txid(keys), 16)
        self.assertEqual(highest_txid((f"{root}/0000/junk", f"{root}/READY")), 0)


class Owners(Case):
    def test_first_and_next_claim(self) -> None:
        """The first claim needs absence, the next the ETag that was read; else: a conflict."""
        self.assertIsNone(self.run_now(self.store.read_owner(T)))
        self.assertIs(self.run_now(self.store.write_owner(T, OWNER, "")), Written.WON)
        self.assertIs(self.run_now(self.store.write_owner(T, OWNER, "")), Written.CONFLICT)
        seen = self.run_now(self.store.read_owner(T))
        self.assertEqual(seen.owner, OWNER)
        self.assertIs(self.run_now(self.store.write_owner(T, OWNER, '"x"')), Written.CONFLICT)
        self.assertIs(self.run_now(self.store.write_owner(T, OWNER, seen.etag)), Written.WON)

    def test_a_lost_answer_is_unknown(self) -> None:
        """A claim whose answer is lost is reported as unknown, and stands."""
        self.client.faults.lose_answers = 1
        self.assertIs(self.run_now(self.store.write_owner(T, OWNER, "")), Written.UNKNOWN)
        self.assertEqual(self.run_now(self.store.read_owner(T)).owner, OWNER)

    def test_no_answer_is_unknown(self) -> None:
        """A claim that never arrived is reported as unknown too, and a read says unavailable."""
        self.client.faults.down = True
        self.assertIs(self.run_now(self.store.write_owner(T, OWNER, "")), Written.UNKNOWN)
        self.fails(self.store.read_owner(T), S3Unavailable)

    def test_a_refusal_is_an_error(self) -> None:
        """Wrong keys are no conflict and not unknown."""
        self.client.faults.refused = True
        self.fails(self.store.write_owner(T, OWNER, ""), S3Refused)

    def test_junk_is_corruption(self) -> None:
        """An owner object that is not ours to read is never taken for none."""
        for junk in (b"", b"{}", b'{"epoch": "3"}'):
            self.s3.write(owner_key(T), junk)
            self.fails(self.store.read_owner(T), StorageCorrupt)


class Listings(Case):
    def test_prefixes(self) -> None:
        """Highest epoch and highest ready epoch; none: zeros."""
        self.assertEqual(self.run_now(self.store.prefixes(T)), Prefixes(0, 0))
        self.s3.write(replica_path(T, 10) + "/0000/x", b"")
        ready = Ready(parent=0, txid=1, at="")
        self.run_now(self.store.write_ready(T, 9, ready))
        self.assertEqual(self.run_now(self.store.prefixes(T)), Prefixes(10, 9))

    def test_a_strange_prefix_is_corruption(self) -> None:
        """A name that is no epoch stops everything instead of being skipped."""
        self.s3.write(f"tenants/{T}/litestream/7/data.db/x", b"")
        self.fails(self.store.prefixes(T), StorageCorrupt)

    def test_highest_txid_over_levels(self) -> None:
        """The highest TXID of any level counts, and small files below a compacted one are not
        listed."""
        root = replica_path(T, 2)

        def put(level: int, low: int, high: int) -> None:
            self.s3.write(f"{root}/{level:04x}/{low:016x}-{high:016x}.ltx", b"")

        self.assertEqual(self.run_now(self.store.highest_txid(T, 2)), 0)
        for txid in range(1, 60):
            put(0, txid, txid)
        self.assertEqual(self.run_now(self.store.highest_txid(T, 2)), 59)
        put(1, 1, 50)
        self.assertEqual(self.run_now(self.store.highest_txid(T, 2)), 59)
        put(9, 1, 70)
        self.assertEqual(self.run_now(self.store.highest_txid(T, 2)), 70)
        self.assertEqual(self.run_now(self.store.highest_txid(T, 3)), 0)


class CarelessS3(FakeS3Client):
    """Ignores conditions, as rclone's server does."""

    async def put(
        self, key: str, body: bytes, *, if_match: str = "", if_absent: bool = False
    ) -> str:
        return await super().put(key, body)


class StaleS3(FakeS3Client):
    """Reads show the object before the last one."""

    async def get(self, key: str) -> Stored | None:
        return Stored(b"old", '"old"')


class IgnoresOnlyIfMatch(FakeS3Client):
    async def put(
        self, key: str, body: bytes, *, if_match: str = "", if_absent: bool = False
    ) -> str:
        return await super().put(key, body, if_absent=if_absent)


class Check(Case):
    def test_a_good_one_passes(self) -> None:
        """A consistent S3 with conditional PUTs passes, and nothing is left in it."""
        self.run_now(self.store.check())
        self.assertEqual(self.s3.objects, {})

    def test_bad_ones_are_refused(self) -> None:
        """An S3 that ignores either condition, or reads stale data, is refused with the reason."""
        for kind, word in (
            (CarelessS3, "If-None-Match"),
            (IgnoresOnlyIfMatch, "If-Match"),
            (StaleS3, "read"),
        ):
            store = S3ClaimStore(kind(FakeS3(self.clock), ""))
            self.assertIn(word, str(self.fails(store.check(), ConfigError)))

    def test_silence_is_no_verdict(self) -> None:
        """While S3 is away the check says so, and wrong keys are a configuration error."""
        self.client.faults.down = True
        self.fails(self.store.check(), S3Unavailable)
        self.client.faults.down, self.client.faults.refused = False, True
        self.fails(self.store.check(), ConfigError)
