"""Whose a bucket is: names, records and decisions."""

from twisted.trial.unittest import SynchronousTestCase

from pbcluster import generations
from pbcluster.errors import InvalidInput, StorageCorrupt
from pbcluster.generations import ForeignBucket, Generation, NotNewest, key_of

AT = "2026-11-25T12:00:00+00:00"
ONE = Generation(generation=1, cluster_id="cluster_a", previous="", at=AT)
TWO = Generation(generation=2, cluster_id="cluster_b", previous="cluster_a", at=AT)


class NameTests(SynchronousTestCase):
    def test_names(self) -> None:
        """Eight digits, so that a listing has them in their order; other numbers have no name."""
        self.assertEqual(key_of(1), "control/generations/00000001.json")
        self.assertEqual(key_of(99_999_999), "control/generations/99999999.json")
        for number in (0, -1, 100_000_000):
            self.assertRaises(InvalidInput, key_of, number)

    def test_highest(self) -> None:
        """The highest number counts, whatever the order and whatever is missing below it."""
        self.assertEqual(generations.highest([]), 0)
        self.assertEqual(generations.highest(map(key_of, (3, 10, 2))), 10)

    def test_strange_names(self) -> None:
        """A name that is no generation's is never skipped: it could be the newest."""
        for name in ("2.json", "00000002", "00000000.json", "0000000².json", "x/00000002.json", ""):
            with self.assertRaises(StorageCorrupt):
                generations.highest([key_of(1), generations.PREFIX + name])


class RecordTests(SynchronousTestCase):
    def test_back_and_forth(self) -> None:
        """What is stored is read again; fields of later releases are no harm."""
        self.assertEqual(generations.decode(2, generations.encode(TWO)), TWO)
        more = generations.encode(TWO)[:-1] + b',"more":1}'
        self.assertEqual(generations.decode(2, more), TWO)

    def test_junk(self) -> None:
        """What is not this generation's record is never taken for one."""
        nameless = b'{"generation":1,"cluster_id":"","previous":"","at":""}'
        for body in (b"", b"{}", b'{"generation":"1"}', nameless, generations.encode(TWO)):
            self.assertRaises(StorageCorrupt, generations.decode, 1, body)


class NodeTests(SynchronousTestCase):
    def test_belongs(self) -> None:
        """The newest names our cluster, or the sentence says both ids, the bucket, what to do."""
        generations.check_belongs(TWO, "cluster_b", "shops")
        with self.assertRaises(ForeignBucket) as caught:
            generations.check_belongs(TWO, "cluster_a", "shops")
        told = str(caught.exception)
        for part in ("bucket shops", "cluster_a", 'set cluster_id = "cluster_b"', "generation 2"):
            self.assertIn(part, told)


class RecoveryTests(SynchronousTestCase):
    def refused(self, newest: Generation | None, old_id: str, new_id: str) -> str:
        with self.assertRaises(NotNewest) as caught:
            generations.following(newest, old_id, new_id, AT)
        return str(caught.exception)

    def test_next(self) -> None:
        """The next number names whom it follows."""
        self.assertEqual(generations.following(ONE, "cluster_a", "cluster_b", AT), TWO)

    def test_again(self) -> None:
        """Who succeeded before finds what it claimed."""
        self.assertIs(generations.following(TWO, "cluster_a", "cluster_b", AT), TWO)

    def test_another_came_first(self) -> None:
        """A second recovery of the same cluster is told who has it now."""
        told = self.refused(TWO, "cluster_a", "cluster_c")
        self.assertIn("cluster cluster_a was recovered already, as cluster_b (generation 2", told)

    def test_not_this_one(self) -> None:
        """Another cluster's bucket, and one of nobody, are refused with both ids."""
        told = self.refused(ONE, "cluster_x", "cluster_y")
        self.assertIn("cluster_a", told)
        self.assertIn("not to cluster_x", told)
        told = self.refused(None, "cluster_x", "cluster_y")
        self.assertIn("cluster_x", told)
        self.assertIn("cluster_y", told)
        # Nor does the right new id help, if it took another cluster's place.
        self.refused(TWO, "cluster_x", "cluster_b")

    def test_new_id(self) -> None:
        """A cluster cannot follow itself."""
        for new_id in ("", "cluster_a"):
            with self.assertRaises(InvalidInput):
                generations.following(ONE, "cluster_a", new_id, AT)

    def test_won(self) -> None:
        """The stored cluster id alone decides who won."""
        generations.check_won(TWO, Generation(**{**_fields(TWO), "at": "later"}))
        other = Generation(**{**_fields(TWO), "cluster_id": "cluster_c"})
        with self.assertRaises(NotNewest) as caught:
            generations.check_won(TWO, other)
        self.assertIn("as cluster_c", str(caught.exception))


def _fields(record: Generation) -> dict[str, object]:
    return {name: getattr(record, name) for name in record.__struct_fields__}
