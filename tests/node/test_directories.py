"""The node's disk: locks, claim notes, copies set aside, and links that are not followed."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.errors import ConfigError, InvalidInput, StorageCorrupt, Unavailable
from pbcluster.node import directories
from pbcluster.node.directories import NodeDirectories
from pbcluster.node.interfaces import Owner

T = "tenant_abcdefgh"
OWNER = Owner(epoch=3, node="node_a", incarnation=1, nonce="n")


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.now = 1_700_000_000.0
        self.directories = NodeDirectories(self.root, lambda: self.now)

    def copy(self, content: str = "mine") -> Path:
        data = self.directories.path(T) / "data"
        data.mkdir(parents=True, exist_ok=True)
        (data / "data.db").write_text(content)
        return data


class Locks(Case):
    def test_one_at_a_time(self) -> None:
        """A second lock is refused until the first is given back; giving back twice is harmless."""
        lock = self.directories.lock(T)
        self.assertEqual(self.directories.lock_fd(T), lock.fd)
        with self.assertRaises(Unavailable):
            NodeDirectories(self.root).lock(T)
        lock.release()
        lock.release()
        self.assertIsNone(self.directories.lock_fd(T))
        self.directories.lock(T).release()

    def test_an_inherited_descriptor_keeps_it(self) -> None:
        """After our release the lock is still held through a copy of its descriptor."""
        lock = self.directories.lock(T)
        inherited = os.dup(lock.fd)
        lock.release()
        with self.assertRaises(Unavailable):
            self.directories.lock(T)
        os.close(inherited)
        self.directories.lock(T).release()

    def test_the_node_lock(self) -> None:
        """Two nodes never run on one data directory."""
        give_back = self.directories.lock_node()
        with self.assertRaises(ConfigError):
            NodeDirectories(self.root).lock_node()
        give_back()
        NodeDirectories(self.root).lock_node()()

    def test_only_tenant_ids_become_paths(self) -> None:
        """Nothing that is no tenant id reaches the disk."""
        for word in ("..", "", "tenant_../x", "shop", "tenant_abcdefgh/x"):
            for call in (
                self.directories.path,
                self.directories.lock,
                self.directories.set_aside,
                self.directories.claim_note,
            ):
                with self.assertRaises(InvalidInput):
                    call(word)


class Notes(Case):
    def test_a_note_of_this_boot_is_read(self) -> None:
        """What was written is read, by another process of the same boot too."""
        self.assertIsNone(self.directories.claim_note(T))
        self.directories.write_claim_note(T, OWNER)
        self.assertEqual(NodeDirectories(self.root).claim_note(T), OWNER)
        self.assertEqual((self.directories.path(T) / "claim.json").stat().st_mode & 0o777, 0o600)

    def test_a_note_of_another_boot_is_not_trusted(self) -> None:
        """After a restart of the machine the copy may have lost its last writes."""
        self.directories.write_claim_note(T, OWNER)
        boot = Path(self.mktemp())
        boot.write_text("another-boot\n")
        self.patch(directories, "_BOOT_ID", boot)
        self.assertIsNone(NodeDirectories(self.root).claim_note(T))

    def test_a_damaged_note_is_none(self) -> None:
        """Half a note, a link and a directory in its place are no note."""
        note = self.directories.path(T) / "claim.json"
        self.directories.write_claim_note(T, OWNER)
        whole = note.read_bytes()
        note.write_bytes(whole[: len(whole) // 2])
        self.assertIsNone(self.directories.claim_note(T))
        note.unlink()
        other = self.root / "other"
        other.write_bytes(whole)
        note.symlink_to(other)
        self.assertIsNone(self.directories.claim_note(T))
        note.unlink()
        note.mkdir()
        self.assertIsNone(self.directories.claim_note(T))


class Aside(Case):
    def test_nothing_is_ever_overwritten(self) -> None:
        """Copies set aside in the same second get names of their own; the note goes first."""
        self.assertIsNone(self.directories.set_aside(T))
        found = []
        for content in ("one", "two"):
            self.copy(content)
            self.directories.write_claim_note(T, OWNER)
            found.append(self.directories.set_aside(T))
            self.assertIsNone(self.directories.claim_note(T))
            self.assertIsNone(self.directories.database_identity(T))
        contents = [(path / "data.db").read_text() for path in found if path is not None]
        self.assertEqual(contents, ["one", "two"])
        self.assertIsNone(self.directories.set_aside(T))

    def test_an_empty_directory_is_no_copy(self) -> None:
        """An empty data directory is removed, not kept."""
        (self.directories.path(T) / "data").mkdir(parents=True)
        self.assertIsNone(self.directories.set_aside(T))
        self.assertEqual(list((self.root / "aside").iterdir()), [])

    def test_old_ones_are_pruned_but_the_newest(self) -> None:
        """After the time limit all but a tenant's newest copies go."""
        kept = []
        for content in ("one", "two", "three"):
            self.copy(content)
            kept.append(self.directories.set_aside(T))
        self.assertEqual(self.directories.prune_aside(), 0)
        self.now = 4_000_000_000.0
        self.assertEqual(self.directories.prune_aside(), 1)
        self.assertEqual([path.exists() for path in kept if path], [False, True, True])


class Links(Case):
    def test_identity_is_of_the_file_itself(self) -> None:
        """data.db's device and inode; None if it is missing or a link."""
        data = self.copy()
        status = (data / "data.db").stat()
        found = self.directories.database_identity(T)
        self.assertEqual(found, (status.st_dev, status.st_ino))
        (data / "data.db").rename(data / "other.db")
        (data / "data.db").symlink_to(data / "other.db")
        self.assertIsNone(self.directories.database_identity(T))

    def test_a_link_instead_of_the_directory_is_refused(self) -> None:
        """A tenant's directory that is a link is neither locked, noted nor moved."""
        (self.root / "elsewhere").mkdir()
        self.directories.path(T).symlink_to(self.root / "elsewhere")
        for call in (self.directories.lock, self.directories.set_aside):
            with self.assertRaises(StorageCorrupt):
                call(T)
        with self.assertRaises(StorageCorrupt):
            self.directories.write_claim_note(T, OWNER)
        self.assertIsNone(self.directories.claim_note(T))

    def test_known(self) -> None:
        """Tenants with a directory are known; other names there are not."""
        self.copy()
        (self.root / "tenants" / "lost+found").mkdir()
        self.assertEqual(self.directories.known(), (T,))
