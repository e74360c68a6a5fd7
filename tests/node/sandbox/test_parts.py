"""Users, belongings, limits and control groups of tenants, without a process."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.errors import ConfigError, StorageCorrupt, Unavailable
from pbcluster.node.sandbox import cgroups
from pbcluster.node.sandbox.belongings import closed_ancestor, hand_over
from pbcluster.node.sandbox.limits import Limits, resource_limits
from pbcluster.node.sandbox.uids import TenantUsers, lock_block
from pbcluster.records import TenantQuotas

LIMITS = Limits(memory_bytes=2**28, cpu_share=0.5, file_bytes=2**20)


class Users(SynchronousTestCase):
    def setUp(self) -> None:
        self.data = Path(self.mktemp())
        self.data.mkdir()
        self.known: list[str] = []

    def users(self, block: range = range(500, 503)) -> TenantUsers:
        return TenantUsers(self.data, block, lambda: self.known)

    def test_one_each_and_lasting(self) -> None:
        """No two tenants share a user; each keeps its own over a restart of the node."""
        self.known = ["tenant_a", "tenant_b"]
        users = self.users()
        given = [users.of(tenant) for tenant in ("tenant_a", "tenant_b", "tenant_a")]
        self.assertEqual(given, [500, 501, 500])
        self.assertEqual(self.users().of("tenant_b"), 501)

    def test_given_again_only_when_gone(self) -> None:
        """A user is given to another only after its tenant's directory is gone; before that, none
        left is an error."""
        self.known = ["tenant_a", "tenant_b", "tenant_c"]
        users = self.users()
        for tenant in self.known:
            users.of(tenant)
        self.assertRaises(Unavailable, users.of, "tenant_d")
        self.known.remove("tenant_b")
        self.assertEqual(users.of("tenant_d"), 501)

    def test_another_block(self) -> None:
        """Users outside the node's block are not used, and a damaged map is as none."""
        self.users().of("tenant_a")
        self.assertEqual(self.users(range(900, 902)).of("tenant_a"), 900)
        (self.data / "users.json").write_text("{")
        self.assertEqual(self.users().of("tenant_a"), 500)

    def test_blocks_of_two_nodes(self) -> None:
        """Two nodes of a machine never have the same users; a range with no block left is an error;
        what a node gave back is free."""
        file = Path(self.mktemp())
        first, held = lock_block(1000, 2999, 1000, file)
        second, other = lock_block(1000, 2999, 1000, file)
        self.addCleanup(os.close, other)
        self.assertEqual((first, second), (1000, 2000))
        self.assertRaises(ConfigError, lock_block, 1000, 2999, 1000, file)
        self.assertRaises(ConfigError, lock_block, 5000, 5998, 1000, file)
        os.close(held)
        again, held = lock_block(1000, 2999, 1000, file)
        self.addCleanup(os.close, held)
        self.assertEqual(again, 1000)


class Belongings(SynchronousTestCase):
    def setUp(self) -> None:
        self.tenant = Path(self.mktemp()) / "tenant_a"
        for name in ("data", "tmp", "hooks", "migrations", "public"):
            (self.tenant / name).mkdir(parents=True)

    def owner(self, name: str) -> tuple[int, int, int]:
        status = (self.tenant / name).lstat()
        return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)

    def test_who_owns_what(self) -> None:
        """Data becomes the tenant's, hooks stay root's and readable, Litestream's files stay."""
        if os.geteuid() != 0:
            raise SkipTest("needs root, to give files away")
        for name in ("data/data.db", "hooks/x.pb.js"):
            (self.tenant / name).write_text("x")
        (self.tenant / "data" / ".data.db-litestream").mkdir()
        (self.tenant / "data" / "storage").mkdir()
        (self.tenant / "data" / "storage" / "file").write_text("x")
        hand_over(self.tenant, 40000, 40000)
        self.assertEqual(self.owner("."), (0, 40000, 0o710))
        self.assertEqual(self.owner("data"), (40000, 40000, 0o700))
        self.assertEqual(self.owner("data/data.db")[:2], (40000, 40000))
        self.assertEqual(self.owner("data/storage/file")[:2], (40000, 40000))
        self.assertEqual(self.owner("data/.data.db-litestream")[0], 0)
        self.assertEqual(self.owner("hooks"), (0, 40000, 0o750))
        self.assertEqual(self.owner("hooks/x.pb.js"), (0, 40000, 0o640))

    def test_links_are_not_followed(self) -> None:
        """A link in the place of a folder is refused; a link in it changes hands itself, not
        what it points to, and a file of two names keeps its owner."""
        if os.geteuid() != 0:
            raise SkipTest("needs root, to give files away")
        outside = Path(self.mktemp())
        outside.write_text("x")
        (self.tenant / "data" / "link").symlink_to(outside.absolute())
        os.link(outside, self.tenant / "data" / "second")
        hand_over(self.tenant, 40000, 40000)
        self.assertEqual(outside.stat().st_uid, 0)
        (self.tenant / "tmp").rmdir()
        (self.tenant / "tmp").symlink_to("/tmp")
        self.assertRaises(StorageCorrupt, hand_over, self.tenant, 40000, 40000)

    def test_closed_ancestor(self) -> None:
        """The first directory that other users cannot pass through is named."""
        first = closed_ancestor(self.tenant / "data" / "x")  # trial's own may be closed
        for folder in (self.tenant.parent, self.tenant):
            folder.chmod(0o700)
        expected = first or self.tenant.parent.resolve()
        self.assertEqual(closed_ancestor(self.tenant / "data" / "x"), expected)
        self.assertIsNone(closed_ancestor(Path("/usr/bin")))


class Bounds(SynchronousTestCase):
    def test_quotas_win(self) -> None:
        """A tenant's quota replaces the node's setting, but never by too little to run."""
        own = LIMITS.of(TenantQuotas(memory_bytes=1, cpu_share=2.0))
        self.assertEqual((own.memory_bytes, own.cpu_share), (64 * 2**20, 2.0))
        self.assertEqual(LIMITS.of(TenantQuotas()), LIMITS)

    def test_resource_limits(self) -> None:
        """Memory is bounded by resources only where no group does it, threads only for a user of
        its own."""
        grouped = dict(resource_limits(LIMITS, memory_group=True, own_user=True))
        alone = dict(resource_limits(LIMITS, memory_group=False, own_user=False))
        self.assertEqual(set(grouped), {1, 4, 6, 7})
        self.assertEqual(set(alone), {1, 2, 4, 7, 9})
        self.assertGreaterEqual(alone[9], 2**31)
        self.assertEqual(alone[4], 0)


class Groups(SynchronousTestCase):
    """On a tree of plain files, as the kernel shows it."""

    def tree(self, cgroup: str, mounts: str, files: dict[str, str]) -> Path:
        root = Path(self.mktemp()).absolute()
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(content)
        (root / "self").mkdir(parents=True)
        (root / "self" / "cgroup").write_text(cgroup)
        (root / "self" / "mountinfo").write_text(mounts.replace("ROOT", str(root)))
        return root

    def test_version_2(self) -> None:
        """Below its own group the node moves into a leaf and hands the controllers on."""
        data = Path(self.mktemp())
        mounts = "30 20 0:26 / ROOT/cg rw - cgroup2 cgroup2 rw\n"
        own = "pbcluster-" + hashlib.sha256(str(data.resolve()).encode()).hexdigest()
        own = own[: len("pbcluster-") + 12]
        files = {
            "cg/node/cgroup.controllers": "cpu memory pids io",
            "cg/node/cgroup.subtree_control": "",
            f"cg/node/{own}-node/cgroup.procs": "",
            f"cg/node/{own}/cgroup.subtree_control": "",
            f"cg/node/{own}/cpu.weight": "100",
        }
        root = self.tree("0::/node\n", mounts, files)
        groups = cgroups.find(data, root)
        self.assertEqual(set(groups.active), {"memory", "pids", "cpu"}, groups.missing)
        moved = (root / f"cg/node/{own}-node/cgroup.procs").read_text()
        self.assertEqual(moved, str(os.getpid()))
        enabled = (root / "cg/node/cgroup.subtree_control").read_text()
        self.assertEqual(set(enabled.split()), {"+memory", "+pids", "+cpu"})
        weight = (root / f"cg/node/{own}/cpu.weight").read_text()
        self.assertTrue(weight.startswith(str(cgroups.WEIGHT)), weight)
        for name in ("memory.max", "memory.swap.max", "pids.max", "cpu.max", "memory.events"):
            file = root / f"cg/node/{own}/tenant_a" / name
            file.parent.mkdir(exist_ok=True)
            file.write_text("oom 2\noom_kill 1\n" if name == "memory.events" else "")
        group = groups.make("tenant_a", LIMITS)
        made = root / f"cg/node/{own}/tenant_a"
        self.assertEqual((made / "memory.max").read_text(), str(2**28))
        self.assertEqual((made / "cpu.max").read_text(), "50000 100000")
        self.assertEqual(group.join_files, (str(made / "cgroup.procs"),))
        self.assertEqual(group.out_of_memory_kills(), 1)

    def test_without_a_weight(self) -> None:
        """A kernel that weighs nothing limits all the same."""
        data = Path(self.mktemp())
        own = "pbcluster-" + hashlib.sha256(str(data.resolve()).encode()).hexdigest()[:12]
        files = {
            "cg/node/cgroup.controllers": "cpu memory pids",
            "cg/node/cgroup.subtree_control": "",
            f"cg/node/{own}-node/cgroup.procs": "",
            f"cg/node/{own}/cgroup.subtree_control": "",
        }
        mounts = "30 20 0:26 / ROOT/cg rw - cgroup2 cgroup2 rw\n"
        groups = cgroups.find(data, self.tree("0::/node\n", mounts, files))
        self.assertEqual(set(groups.active), {"memory", "pids", "cpu"}, groups.missing)

    def test_none(self) -> None:
        """Where there is no group, the reason is told."""
        groups = cgroups.find(Path(self.mktemp()), self.tree("", "", {}))
        self.assertEqual(groups.active, ())
        self.assertTrue(all(why.startswith("off: ") for why in groups.missing.values()))
