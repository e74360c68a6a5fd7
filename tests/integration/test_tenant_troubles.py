"""A node's tenants on the real SeaweedFS, Litestream, PocketBase and disk, when something is bad.

Each ends in a clear state with a clear cause, and nothing that was acknowledged is lost. The
control plane is the test: it gives a new epoch when one is refused, as the real one does.
"""

from __future__ import annotations

import os
import subprocess
from datetime import timedelta
from pathlib import Path
from unittest import SkipTest

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.threads import deferToThread

from pbcluster.durations import Durations
from pbcluster.errors import PBClusterError
from pbcluster.node.acks import Withheld
from pbcluster.node.claims import S3ClaimStore, replica_path
from pbcluster.node.directories import NodeDirectories
from pbcluster.node.housekeeping import Housekeeping, Keeping
from pbcluster.node.lifecycle import State
from pbcluster.node.machine import boottime, utc_now
from pbcluster.node.parts import NodeParts, pause
from pbcluster.node.proofs import Proofs
from pbcluster.node.tenant import Tenant
from pbcluster.node.tenants import Tenants
from pbcluster.node.workload import PocketBaseProcess
from pbcluster.records import Durability, InitialSuperuser
from pbcluster.wire import Assignment, NodeAssignments, TenantReport
from tests.integration.test_node_parts import EMAIL, HASH, Http, Parts, tenant_id
from tests.node.harness import Observed


class NodeCase(Parts):
    """One node's tenants; ``self.jump`` moves its wall clock."""

    keeping = Keeping()

    def setUp(self) -> None:
        super().setUp()
        self.jump = timedelta()
        self.reports: list[TenantReport] = []
        self.epochs: dict[str, int] = {}
        self.ready_once: set[str] = set()
        self.answers_refusals = True
        self.index = 0

    async def begin(self) -> None:
        self.store = S3ClaimStore(self.objects())
        self.daemon = await self.litestream()
        nonces = iter(range(10**6))
        parts = NodeParts(
            node_id="node_a",
            clock=reactor,
            boottime=boottime,
            utc_now=lambda: utc_now() + self.jump,
            new_nonce=lambda: f"{self.id()} {next(nonces)}",
            encryption_key=lambda _: "0123456789abcdef" * 2,
            claims=self.store,
            replication=self.daemon,
            workloads=self.workloads(),
            directories=self.directories,
            proofs=Proofs(Durations()),
            report=self.reported,
            observer=Observed(),
        )
        self.tenants = Tenants(parts, capacity=10, idle_stop_s=900.0)
        self.tenants.registered(1)
        self.tenants.start()
        self.house = Housekeeping(parts, self.tenants, deferToThread, self.keeping)
        self.addCleanup(lambda: ensureDeferred(self.tenants.stop(drain_s=0.0)))

    def reported(self, report: TenantReport) -> None:
        self.reports.append(report)
        if report.outcome == "ready":
            self.ready_once.add(report.tenant_id)
        if report.outcome == "refused" and self.answers_refusals:
            self.epochs[report.tenant_id] = max(report.observed_epoch, report.epoch) + 1
            reactor.callLater(0, self.assign)  # type: ignore[attr-defined]

    def assign(self, *tenant_ids: str) -> None:
        """Everything there is, and these, under their epochs."""
        for each in tenant_ids:
            self.epochs[each] = self.epochs.get(each, 0) + 1
        self.index += 1
        rows = tuple(
            Assignment(
                tenant_id=each,
                epoch=epoch,
                name="shop",
                hosts=("shop.localhost",),
                ever_ready=each in self.ready_once,
                durability=Durability.SYNC,
                wanted=False,
                initial_superuser=InitialSuperuser(email=EMAIL, password_hash=HASH),
            )
            for each, epoch in self.epochs.items()
        )
        self.tenants.obey(NodeAssignments("node_a", 1, self.index, rows))

    async def load(self, tenant: str, within_s: float = 20.0) -> Tenant:
        deadline = reactor.seconds() + within_s  # type: ignore[attr-defined]
        return await self.tenants.ready(tenant, write=True, deadline=deadline)

    async def fails(self, tenant: str) -> str:
        """Why it cannot be loaded."""
        with self.assertRaises(PBClusterError) as caught:
            await self.load(tenant, within_s=4.0)
        found = self.tenants.find(tenant)
        assert found is not None
        self.assertIs(found.state, State.FAILED, str(caught.exception))
        self.assertIn(found.life.cause, str(caught.exception) + found.life.cause)
        return found.life.cause

    async def client(self, tenant: Tenant) -> Http:
        assert isinstance(tenant.process.running, PocketBaseProcess)
        http = Http(tenant.process.running)
        await http.log_in()
        return http

    async def new(self, *words: str) -> str:
        """A tenant with acknowledged words."""
        name = tenant_id()
        self.assign(name)
        tenant = await self.load(name)
        http = await self.client(tenant)
        await http.make_collection()
        for word in words:
            await http.add(word)
        await tenant.replication.acknowledge()
        return name

    async def words(self, tenant: str) -> set[str]:
        found = self.tenants.find(tenant)
        if found is not None:  # one that failed a moment ago is tried again at its time
            now = reactor.seconds()  # type: ignore[attr-defined]
            await pause(reactor, max(0.0, found.retry_at - now))
        return await (await self.client(await self.load(tenant))).words()

    async def epochs_of(self, tenant: str) -> set[int]:
        """Epochs of which any object is in S3."""
        keys = (await self.objects().list(f"tenants/{tenant}/litestream/")).keys
        return {int(key.split("/")[3]) for key in keys}

    async def rest(self, tenant: str) -> None:
        found = self.tenants.find(tenant)
        assert found is not None
        await self.tenants._rest(found)

    def data(self, tenant: str) -> Path:
        return self.directories.path(tenant) / "data"

    def aside(self) -> list[str]:
        return sorted(path.name.split("-")[0] for path in (self.data_dir / "aside").iterdir())


class BudgetTests(NodeCase):
    keeping = Keeping(warm_bytes=1, point_in_time_s=0.0)

    async def test_warm_copies_and_old_epochs(self) -> None:
        """The copies of stopped tenants leave the disk when the budget is over, and come back from
        S3 at a request; epochs before the parent leave S3 when the window is over, whatever the
        wall clock jumps to the parent and ours never do."""
        await self.begin()
        first, other = await self.new("a", "b"), await self.new("c")
        await self.rest(first)
        self.assertTrue(self.directories.is_settled(first))
        self.assertFalse(self.directories.is_settled(other))
        usage = {each.tenant_id: each.db_bytes for each in self.tenants.usage()}
        self.assertGreater(usage[first], 100_000)
        await self.house.round()
        self.assertFalse(self.data(first).exists())
        self.assertEqual(list((self.data_dir / "trash").iterdir()), [])
        self.assertTrue((self.data(other) / "data.db").exists())
        self.assertEqual(await self.words(first), {"a", "b"})
        self.assertEqual(self.epochs[first], 2)
        await self.rest(first)
        await self.house.round()
        self.assertEqual(await self.words(first), {"a", "b"})
        seen = await self.store.epochs(first)
        self.assertEqual(
            [(e.epoch, e.ready and e.ready.parent) for e in seen], [(1, 0), (2, 1), (3, 2)]
        )
        self.jump = timedelta(days=-3650)
        await self.house.round()
        self.assertEqual(await self.epochs_of(first), {1, 2, 3})
        self.house._epochs_at.clear()
        self.jump = timedelta(days=3650)
        await self.house.round()
        self.assertEqual(await self.epochs_of(first), {2, 3})
        self.assertEqual(await self.words(other), {"c"})
        self.assign(first)
        self.assertEqual(await self.words(first), {"a", "b"})


class DamageTests(NodeCase):
    async def test_corrupt_local_database(self) -> None:
        """A copy that SQLite cannot read is set aside, never overwritten; the tenant comes back
        from S3 under a new epoch with every acknowledged row."""
        await self.begin()
        tenant = await self.new("a", "b")
        await self.rest(tenant)
        database = self.data(tenant) / "data.db"
        database.with_name("data.db-wal").unlink(missing_ok=True)
        junk = os.urandom(64 * 1024)
        with open(database, "r+b") as stream:
            stream.write(junk)
        self.assertEqual(await self.words(tenant), {"a", "b"})
        self.assertEqual(self.epochs[tenant], 2)
        self.assertEqual(self.aside(), [tenant])
        (kept,) = (self.data_dir / "aside").iterdir()
        self.assertEqual((kept / "data.db").read_bytes()[: len(junk)], junk)
        told = [each.detail for each in self.reports if each.outcome == "refused"]
        self.assertIn("damaged and was set aside", told[0])

    async def test_corrupt_replica(self) -> None:
        """A replica whose bytes changed is never served: failed, with the cause, every object and
        the older copy kept; put right, the tenant comes back."""
        await self.begin()
        tenant, objects = await self.new("a"), self.objects()
        await self.rest(tenant)
        keys = (await objects.list(replica_path(tenant, 1))).keys
        good = {key: await objects.get(key) for key in keys}
        for key, stored in good.items():
            assert stored is not None
            body = bytearray(stored.body)
            body[len(body) // 2] ^= 0xFF
            await objects.put(key, bytes(body))
        self.assign(tenant)
        cause = await self.fails(tenant)
        self.assertTrue(cause)
        self.assertEqual((await objects.list(replica_path(tenant, 1))).keys, keys)
        self.assertEqual(self.aside(), [tenant])
        self.assertIn(("failed", 2), [(r.outcome, r.epoch) for r in self.reports])
        for key, stored in good.items():
            assert stored is not None
            await objects.put(key, stored.body)
        self.assertEqual(await self.words(tenant), {"a"})

    async def test_missing_objects(self) -> None:
        """Without a replica's objects, or without any READY, nothing is started and nothing
        removed: never an empty tenant in place of one that was ready."""
        await self.begin()
        tenant, objects = await self.new("a"), self.objects()
        await self.rest(tenant)
        keys = (await objects.list(replica_path(tenant, 1))).keys
        good = [(key, await objects.get(key)) for key in keys]
        await objects.delete_many(keys)
        self.assign(tenant)
        self.assertIn("cannot be restored", await self.fails(tenant))
        for key, stored in good:
            assert stored is not None
            await objects.put(key, stored.body)
        self.assertEqual(await self.words(tenant), {"a"})
        for seen in await self.store.epochs(tenant):
            await objects.delete(f"tenants/{tenant}/litestream/{seen.epoch:020}/READY")
        self.assign(tenant)
        self.assertIn("S3 shows no epoch with READY", await self.fails(tenant))
        self.assertTrue((self.data(tenant) / "data.db").exists())
        self.assertGreater(len((await objects.list(f"tenants/{tenant}/litestream/")).keys), 2)

    async def test_failing_hook_and_migration(self) -> None:
        """The cause names the file and what is wrong with it; the rows are there when it is put
        right; the neighbour is served all the while."""
        await self.begin()
        tenant, neighbour = await self.new("a"), await self.new("n")
        for folder, name, script in (
            ("hooks", "broken.pb.js", "this is no script"),
            ("migrations", "1900000000_bad.js", "migrate((app) => { throw new Error('no way') })"),
        ):
            await self.rest(tenant)
            path = self.directories.path(tenant) / folder / name
            path.write_text(script)
            cause = await self.fails(tenant)
            self.assertIn(name if folder == "hooks" else "no way", cause)
            self.assertEqual(await self.words(neighbour), {"n"})
            path.unlink()
            self.assertEqual(await self.words(tenant), {"a"})

    async def test_wall_clock_jumps(self) -> None:
        """Ten years ahead and back: leases, claims and restores know nothing of it."""
        await self.begin()
        tenant = await self.new("a")
        for years in (10, -10):
            self.jump = timedelta(days=365 * years)
            self.assign(tenant)
            self.assertEqual(await self.words(tenant), {"a"})
            loaded = self.tenants.find(tenant)
            assert loaded is not None
            await (await self.client(loaded)).add("a")
            await loaded.replication.acknowledge()
            await self.house.round()
        self.assertEqual(len(await self.store.epochs(tenant)), 3)


class FullDiskTests(NodeCase):
    SIZE = 24 * 1024 * 1024

    def setUp(self) -> None:
        super().setUp()
        self.small = self.data_dir / "small"
        self.small.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={self.SIZE}", "tmpfs", str(self.small)],
            capture_output=True,
            text=True,
            check=False,
        )
        if mounted.returncode:
            raise SkipTest(f"needs a small file system: {mounted.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", "-l", str(self.small)], check=True)
        self.data_dir = self.small
        self.directories = NodeDirectories(self.small)

    def fill(self) -> Path:
        """Leave a few pages free."""
        path = self.small / "filler"
        free = os.statvfs(self.small)
        with open(path, "wb") as stream:
            stream.write(b"\0" * (free.f_bavail * free.f_bsize - 16 * 1024))
        return path

    async def test_ltx_and_scratch(self) -> None:
        """On a full disk a write is refused or withheld, never acknowledged; a restore fails with
        the cause; when there is room again everything that was acknowledged is there."""
        await self.begin()
        tenant = await self.new("a")
        loaded = await self.load(tenant)
        http = await self.client(loaded)
        filler = self.fill()
        acked = {"a"}
        for number in range(40):
            try:
                await http.add(f"{number}" + "x" * 3000)
                await loaded.replication.acknowledge()
                acked.add(f"{number}" + "x" * 3000)
            except (AssertionError, Withheld):
                break
        else:
            self.fail("a full disk took everything")
        filler.unlink()
        await self._acknowledged_again(loaded, http)
        self.assertLessEqual(acked, await http.words())
        await self.rest(tenant)
        filler = self.fill()
        self.assign(tenant)
        cause = await self.fails(tenant)
        self.assertRegex(cause, "no space|disk full|disk is full")
        filler.unlink()
        self.assertLessEqual(acked, await self.words(tenant))
        self.assertEqual(self.aside(), [])

    async def _acknowledged_again(self, loaded: Tenant, http: Http) -> None:
        for _ in range(50):
            try:
                await http.add("again")
                await loaded.replication.acknowledge()
                return
            except (AssertionError, Withheld):
                waiting: Deferred[None] = Deferred()
                reactor.callLater(0.2, waiting.callback, None)  # type: ignore[attr-defined]
                await waiting
        self.fail("no write is acknowledged though there is room")
