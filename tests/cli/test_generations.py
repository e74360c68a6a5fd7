"""A recovery's claim of the bucket, whatever S3 answers."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError, EndpointConnectionError
from twisted.trial.unittest import SynchronousTestCase

from pbcluster import generations
from pbcluster.cli.bucket import Bucket, bucket_of
from pbcluster.cli.generations import claim_next, newest
from pbcluster.cli.initialise import Wish, initialise
from pbcluster.cli.layout import ClusterDir
from pbcluster.errors import S3Unavailable, StorageCorrupt
from pbcluster.generations import NotNewest, key_of
from pbcluster.s3_client import MAX_OBJECT_BYTES, S3Address, S3Refused

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
ADDRESS = S3Address(
    endpoint="http://127.0.0.1:1", bucket="shops", access_key="AKID", secret_key="hidden-word"
)


def answer(status: int, code: str) -> ClientError:
    content: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(content, "Any")


class Body(bytes):
    def __enter__(self) -> Body:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self, count: int) -> bytes:
        return self[:count]


class FakeClient:
    """boto3's client of one bucket that lists two keys a page.

    :ivar before_put: called when a PUT arrives. :ivar lose_answers: the PUT is done, its answer is
        lost. :ivar error: raised by every call.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.before_put: Any = lambda: None
        self.lose_answers = False
        self.error: Exception | None = None

    def list_objects_v2(self, *, Bucket: str, Prefix: str, ContinuationToken: str = "") -> Any:
        self._check()
        found = [k for k in sorted(self.objects) if k.startswith(Prefix) and k > ContinuationToken]
        page = [{"Key": key} for key in found[:2]]
        if len(found) <= 2:
            return {"Contents": page} if page else {}
        return {"Contents": page, "IsTruncated": True, "NextContinuationToken": found[1]}

    def get_object(self, *, Bucket: str, Key: str) -> Any:
        self._check()
        if Key not in self.objects:
            raise answer(404, "NoSuchKey")
        return {"Body": Body(self.objects[Key])}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, IfNoneMatch: str) -> None:
        self._check()
        self.before_put()
        assert IfNoneMatch == "*"
        if Key in self.objects:
            raise answer(412, "PreconditionFailed")
        self.objects[Key] = Body
        if self.lose_answers:
            raise ConnectionResetError

    def _check(self) -> None:
        if self.error is not None:
            raise self.error


class ClaimTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.client = FakeClient()
        self.bucket = Bucket(ADDRESS)
        self.bucket._client = self.client
        first = generations.first("cluster_a", "")
        self.client.objects[key_of(1)] = generations.encode(first)

    def claim(self, old_id: str = "cluster_a", new_id: str = "cluster_b") -> str:
        record = claim_next(self.bucket, old_id, new_id, NOW)
        self.assertEqual(record, newest(self.bucket))
        self.assertEqual((record.previous, record.cluster_id), (old_id, new_id))
        return key_of(record.generation)

    def another(self) -> None:
        """Another recovery is a moment faster."""
        theirs = generations.Generation(
            generation=2, cluster_id="cluster_c", previous="cluster_a", at="at noon"
        )
        self.client.objects.setdefault(key_of(2), generations.encode(theirs))

    def test_claims_follow_each_other(self) -> None:
        """Each takes the next number, over all pages of the listing; the former ones stay."""
        kept = self.client.objects[key_of(1)]
        ids = [f"cluster_{letter}" for letter in "abcdef"]
        for number, (old_id, new_id) in enumerate(itertools.pairwise(ids), start=2):
            self.assertEqual(self.claim(old_id, new_id), key_of(number))
        self.assertEqual(len(self.client.objects), 6)
        self.assertEqual(self.client.objects[key_of(1)], kept)

    def test_repeated(self) -> None:
        """The same claim again finds itself and writes nothing."""
        self.claim()
        self.client.before_put = lambda: self.fail("written again")
        self.claim()

    def test_lost_answer(self) -> None:
        """A claim whose answer got lost is read back and holds."""
        self.client.lose_answers = True
        self.claim()

    def test_another_came_first(self) -> None:
        """Who loses, before or in the very moment, is told who won; nothing is overwritten."""
        self.client.before_put = self.another
        for _ in range(2):
            with self.assertRaises(NotNewest) as caught:
                self.claim()
            told = "cluster_a was recovered already, as cluster_c (generation 2, at noon)"
            self.assertIn(told, str(caught.exception))
        self.assertEqual(len(self.client.objects), 2)

    def test_not_the_newest(self) -> None:
        """A cluster that the bucket does not belong to cannot be recovered in it."""
        with self.assertRaises(NotNewest) as caught:
            self.claim("cluster_x", "cluster_y")
        self.assertIn("belongs to cluster cluster_a (generation 1)", str(caught.exception))
        self.client.objects.clear()
        self.assertIsNone(newest(self.bucket))
        self.assertRaises(NotNewest, self.claim)
        self.assertEqual(self.client.objects, {})

    def test_the_request_never_arrived(self) -> None:
        """A PUT that was not carried out is told as such, with what to do."""

        def away() -> None:
            raise EndpointConnectionError(endpoint_url="http://x")

        self.client.before_put = away
        with self.assertRaises(S3Unavailable) as caught:
            self.claim()
        self.assertIn("try again with the same new id", str(caught.exception))

    def test_s3_does_not_serve(self) -> None:
        """S3 away, or refusing, is told with its address and without its keys."""
        for error, kind in (
            (EndpointConnectionError(endpoint_url="http://x"), S3Unavailable),
            (answer(403, "AccessDenied"), S3Refused),
            (answer(404, "NoSuchBucket"), S3Unavailable),
        ):
            self.client.error = error
            with self.assertRaises(kind) as caught:
                self.claim()
            self.assertIn("bucket shops at http://127.0.0.1:1", str(caught.exception))
            self.assertNotIn("hidden-word", str(caught.exception))

    def test_junk(self) -> None:
        """Nothing is claimed beside what we do not write."""
        for junk in (b"", b"x" * (MAX_OBJECT_BYTES + 1)):
            self.client.objects[key_of(2)] = junk
            self.assertRaises(StorageCorrupt, self.claim)
        self.assertEqual(len(self.client.objects), 2)


class AddressTests(SynchronousTestCase):
    def test_of_a_cluster_directory(self) -> None:
        """It is the bucket of the nodes, with their keys, wherever that is."""
        where = ClusterDir.at(Path(self.mktemp()))
        settings = {"node": {"s3_endpoint": "http://s3.example.com", "s3_bucket": "theirs"}}
        plan = initialise(where, Wish(nodes=1, gateway_port=0, admin_port=0, settings=settings))
        address = bucket_of(where, plan).address
        self.assertEqual((address.endpoint, address.bucket), ("http://s3.example.com", "theirs"))
        self.assertTrue(address.secret_key)
