"""Copies of a bucket, between real ones; and what the commands refuse."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.cli import buckets, copying
from pbcluster.cli.copying import Copier
from pbcluster.cli.layout import ClusterDir, Plan
from pbcluster.errors import ConfigError, Conflict, DeadlineExceeded
from pbcluster.s3_client import S3Address, new_client
from pbcluster.testing.seaweed import shared_seaweed


class CopyTests(SynchronousTestCase):
    def setUp(self) -> None:
        s3 = shared_seaweed()
        self.source, self.target = (s3.address(s3.new_bucket()) for _ in range(2))
        self.client = new_client(self.source)
        self.told: list[str] = []

    def put(self, key: str, body: bytes, at: S3Address | None = None) -> None:
        self.client.put_object(Bucket=(at or self.source).bucket, Key=key, Body=body)

    def keys(self, at: S3Address) -> dict[str, bytes]:
        listed = self.client.list_objects_v2(Bucket=at.bucket).get("Contents", [])
        return {
            row["Key"]: self.client.get_object(Bucket=at.bucket, Key=row["Key"])["Body"].read()
            for row in listed
        }

    def copy(self) -> copying.Copied:
        return Copier(self.source, self.target, self.told.append).copy()

    def test_everything_once(self) -> None:
        """All objects of all tenants and of the control plane come over, large ones too, and what
        changed since; what is there is not copied again, and nothing is removed."""
        large = b"x" * (copying.MEMORY_BYTES + 1)
        first = {
            "control/generations/00000001.json": b"{}",
            "tenants/a/owner.json": b"1",
            "tenants/b/storage/large": large,
        }
        for key, body in first.items():
            self.put(key, body)
        done = self.copy()
        self.assertEqual((done.objects, done.same, done.tenants), (3, 0, 2))
        self.assertEqual(self.keys(self.target), first)
        self.put("tenants/a/owner.json", b"2")
        self.client.delete_object(Bucket=self.source.bucket, Key="tenants/b/storage/large")
        done = self.copy()
        self.assertEqual((done.objects, done.same, done.bytes), (1, 1, 1))
        self.assertEqual(self.keys(self.target), first | {"tenants/a/owner.json": b"2"})

    def test_what_goes_meanwhile(self) -> None:
        """A tenant whose object is replaced between listing and fetching is listed again: what came
        in its place is in the copy. One that never stays still is told."""
        self.put("tenants/a/1", b"small")
        copier = Copier(self.source, self.target, self.told.append)
        fetch, times = copier._fetch, iter(range(1, 100))

        def replaced(key: str, content: object) -> None:
            number = next(times)
            if number <= self.changes:
                self.client.delete_object(Bucket=self.source.bucket, Key=key)
                self.put(f"tenants/a/{number + 1}", b"larger")
            fetch(key, content)

        copier._fetch = replaced  # type: ignore[method-assign]
        self.changes = 2
        self.assertEqual(copier.copy().objects, 1)
        self.assertEqual(self.keys(self.target), {"tenants/a/3": b"larger"})
        self.changes = 100
        self.put("tenants/a/more", b"")
        self.assertRaises(DeadlineExceeded, copier.copy)

    def test_another_clusters_bucket(self) -> None:
        """A target with generations that the source has not is left alone."""
        self.put("tenants/a/1", b"")
        self.put("control/generations/00000002.json", b"{}", self.target)
        self.assertRaises(Conflict, self.copy)
        self.assertEqual(list(self.keys(self.target)), ["control/generations/00000002.json"])


class FileTests(SynchronousTestCase):
    def file(self, text: str, mode: int = 0o600) -> Path:
        file = Path(self.mktemp())
        file.write_text(text)
        file.chmod(mode)
        return file

    def test_read(self) -> None:
        """Endpoint, bucket and keys; the region may be left out."""
        text = 'endpoint = "http://x"\nbucket = "b"\naccess_key = "a"\nsecret_key = "s"\n'
        found = buckets.read(self.file(text))
        self.assertEqual((found.bucket, found.region), ("b", "us-east-1"))
        self.assertNotIn("secret_key", repr(found))

    def test_not_where_a_process_joined(self) -> None:
        """The bucket is the first host's affair."""
        where = ClusterDir.at(self.mktemp())
        plan = Plan(
            cluster_id="c",
            base_domain="localhost",
            insecure_plain_sockets=False,
            processes=(),
            joined=("https://10.0.0.1:8095",),
        )
        text = 'endpoint = "http://x"\nbucket = "b"\naccess_key = "a"\nsecret_key = "s"\n'
        address = buckets.read(self.file(text))
        for call in (buckets.copy_to, buckets.copy_from):
            self.assertRaises(ConfigError, call, where, plan, address, print)
        self.assertRaises(ConfigError, buckets.use, where, plan, address)

    def test_refused(self) -> None:
        """What is missing, unknown, or may be read by others is named."""
        text = 'endpoint = "http://x"\nbucket = "b"\naccess_key = "a"\n'
        for file, word in (
            (self.file(text), "secret_key"),
            (self.file(text + 'secret_key = "s"\nmore = 1\n'), "more"),
            (self.file(text + 'secret_key = "s"\n', 0o644), "chmod 600"),
        ):
            error = self.assertRaises(ConfigError, buckets.read, file)
            self.assertIn(word, str(error))
