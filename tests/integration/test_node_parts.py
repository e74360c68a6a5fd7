"""The node's shells against the real SeaweedFS, Litestream and PocketBase."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any

import attrs
import bcrypt
import treq
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from pbcluster import binaries
from pbcluster.errors import ConfigError, ProcessFailed, S3Unavailable, StorageCorrupt
from pbcluster.node import replication
from pbcluster.node.claims import S3ClaimStore, replica_path
from pbcluster.node.directories import NodeDirectories
from pbcluster.node.interfaces import Owner, Ready, WorkloadSpec, Written
from pbcluster.node.replication import LitestreamDaemon, metadata_path
from pbcluster.node.s3 import S3Address, S3Objects, S3Refused
from pbcluster.node.workload import PocketBaseProcess, PocketBaseWorkloads
from pbcluster.records import InitialSuperuser
from pbcluster.testing.seaweed import Seaweed, shared_seaweed
from tests.integration.support import tell

EMAIL, PASSWORD = "me@example.com", "long enough, 'quoted\" <é>"
HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(5)).decode()


def tenant_id() -> str:
    return f"tenant_{secrets.token_hex(8)}"


class Parts(TestCase):
    """Real parts in a directory of their own; everything is ended at the end."""

    timeout = 60

    def setUp(self) -> None:
        self.seaweed = shared_seaweed()
        self.binaries = {name: binaries.locate(name) for name in binaries.NAMES}
        self.data_dir = Path(self.mktemp()).absolute()
        self.data_dir.mkdir(parents=True)
        self.address = self.seaweed.address(self.seaweed.new_bucket())
        self.directories = NodeDirectories(self.data_dir)

    def objects(self, address: S3Address | None = None, **more: Any) -> S3Objects:
        made = S3Objects(reactor, address or self.address, **more)
        self.addCleanup(made.stop)
        return made

    async def litestream(self) -> LitestreamDaemon:
        daemon = LitestreamDaemon(
            reactor,
            binary=self.binaries["litestream"],
            data_dir=self.data_dir,
            address=self.address,
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(daemon.stop()))
        began = time.monotonic()
        await daemon.start()
        tell("litestream start", time.monotonic() - began)
        return daemon

    def workloads(self) -> PocketBaseWorkloads:
        return PocketBaseWorkloads(
            reactor,
            binary=self.binaries["pocketbase"],
            data_dir=self.data_dir,
            lock_fd=self.directories.lock_fd,
        )

    def spec(self, tenant: str, **more: Any) -> WorkloadSpec:
        return WorkloadSpec(
            tenant_id=tenant,
            directory=self.directories.path(tenant),
            encryption_key="0123456789abcdef" * 2,
            hosts=("shop.localhost",),
            **more,
        )

    async def start(self, workloads: PocketBaseWorkloads, spec: WorkloadSpec) -> PocketBaseProcess:
        began = time.monotonic()
        workload = await workloads.start(spec)
        tell("PocketBase start to healthy", time.monotonic() - began)
        self.addCleanup(lambda: Deferred.fromCoroutine(workload.kill()))
        return workload


class Http:
    """A superuser's client of one PocketBase."""

    def __init__(self, workload: PocketBaseProcess) -> None:
        self.base = f"http://127.0.0.1:{workload.port}/api"
        self.headers: dict[str, str] = {}

    async def ask(self, method: str, path: str, json: Any = None) -> tuple[int, Any]:
        response = await treq.request(
            method, self.base + path, json=json, headers=self.headers, persistent=False
        )
        body = await response.content()
        import json as codec

        return response.code, codec.loads(body or b"{}")

    async def log_in(self) -> None:
        status, body = await self.ask(
            "POST",
            "/collections/_superusers/auth-with-password",
            {"identity": EMAIL, "password": PASSWORD},
        )
        assert status == 200, body
        self.headers["Authorization"] = body["token"]

    async def make_collection(self) -> None:
        fields = [{"name": "word", "type": "text"}]
        wanted = {"name": "words", "type": "base", "fields": fields, "listRule": ""}
        status, body = await self.ask("POST", "/collections", wanted)
        assert status == 200, body

    async def add(self, word: str) -> None:
        status, body = await self.ask("POST", "/collections/words/records", {"word": word})
        assert status == 200, body

    async def words(self) -> set[str]:
        status, body = await self.ask("GET", "/collections/words/records?perPage=500")
        assert status == 200, body
        return {row["word"] for row in body["items"]}


class ClaimTests(Parts):
    async def test_this_s3_passes_the_check(self) -> None:
        """SeaweedFS keeps the promises that ownership rests on, and the check leaves nothing."""
        objects = self.objects()
        await S3ClaimStore(objects).check()
        self.assertEqual((await objects.list("")).keys, ())

    async def test_wrong_keys_are_told(self) -> None:
        """Wrong keys are a configuration error that says so."""
        objects = self.objects(attrs.evolve(self.address, secret_key="wrong"))
        with self.assertRaises(ConfigError) as caught:
            await S3ClaimStore(objects).check()
        self.assertIn("keys", str(caught.exception))
        with self.assertRaises(S3Refused):
            await S3ClaimStore(objects).read_owner(tenant_id())

    async def test_a_missing_bucket_is_waited_for(self) -> None:
        """A bucket that does not exist yet is told of and may come, like an S3 that is away."""
        objects = self.objects(attrs.evolve(self.address, bucket="nix"))
        with self.assertRaises(S3Unavailable) as caught:
            await S3ClaimStore(objects).check()
        self.assertIn("bucket does not exist", str(caught.exception))

    async def test_one_claim_wins(self) -> None:
        """Of eight claims at once exactly one wins, the others are told of the conflict."""
        stores = [S3ClaimStore(self.objects()) for _ in range(2)]
        tenant = tenant_id()

        async def claim(number: int) -> tuple[Written, str]:
            owner = Owner(epoch=1, node="node_a", incarnation=1, nonce=str(number))
            return await stores[number % 2].write_owner(tenant, owner, ""), str(number)

        started = [Deferred.fromCoroutine(claim(number)) for number in range(8)]
        results = [await each for each in started]
        winners = [nonce for written, nonce in results if written is Written.WON]
        self.assertEqual(len(winners), 1, results)
        seen = await stores[0].read_owner(tenant)
        assert seen is not None
        self.assertEqual(seen.owner.nonce, winners[0])

    async def test_a_stale_etag_loses(self) -> None:
        """A claim with the ETag of an older owner object changes nothing."""
        store, tenant = S3ClaimStore(self.objects()), tenant_id()
        first = Owner(epoch=1, node="node_a", incarnation=1, nonce="a")
        self.assertIs(await store.write_owner(tenant, first, ""), Written.WON)
        seen = await store.read_owner(tenant)
        assert seen is not None
        second = Owner(epoch=2, node="node_b", incarnation=1, nonce="b")
        self.assertIs(await store.write_owner(tenant, second, seen.etag), Written.WON)
        third = Owner(epoch=3, node="node_c", incarnation=1, nonce="c")
        self.assertIs(await store.write_owner(tenant, third, seen.etag), Written.CONFLICT)
        self.assertEqual((await store.read_owner(tenant)).owner, second)  # type: ignore[union-attr]

    async def test_nobody_there(self) -> None:
        """A port where nothing listens is unavailability, and a claim's outcome is unknown."""
        import attrs

        from pbcluster.testing.free_ports import free_ports

        endpoint = f"http://127.0.0.1:{free_ports(1)[0]}"
        objects = self.objects(attrs.evolve(self.address, endpoint=endpoint))
        store = S3ClaimStore(objects)
        with self.assertRaises(S3Unavailable):
            await store.read_owner(tenant_id())
        owner = Owner(epoch=1, node="node_a", incarnation=1, nonce="a")
        self.assertIs(await store.write_owner(tenant_id(), owner, ""), Written.UNKNOWN)

    async def test_silence_ends_at_the_deadline(self) -> None:
        """A server that accepts and says nothing costs the call's limit, no more."""
        import socket

        import attrs

        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
            address = attrs.evolve(self.address, endpoint=endpoint)
            objects = self.objects(address, call_timeout_s=0.3)
            began = time.monotonic()
            with self.assertRaises(S3Unavailable):
                await objects.get("a")
            self.assertLess(time.monotonic() - began, 2)

    async def test_prefixes_and_ready(self) -> None:
        """The highest epoch with any object and the highest with READY are told apart."""
        objects, tenant = self.objects(), tenant_id()
        store = S3ClaimStore(objects)
        for epoch in (2, 9, 11):
            await objects.put(f"{replica_path(tenant, epoch)}/0000/x", b"x")
        for epoch in (2, 9):
            await store.write_ready(tenant, epoch, Ready(parent=0, txid=1, at="now"))
        found = await store.prefixes(tenant)
        self.assertEqual((found.highest, found.ready), (11, 9))

    async def test_figures(self) -> None:
        """Reading and replacing the owner object takes milliseconds."""
        store, tenant = S3ClaimStore(self.objects()), tenant_id()
        etag, reads, writes = "", [], []
        for epoch in range(1, 31):
            owner = Owner(epoch=epoch, node="node_a", incarnation=1, nonce=str(epoch))
            began = time.perf_counter()
            self.assertIs(await store.write_owner(tenant, owner, etag), Written.WON)
            wrote = time.perf_counter()
            seen = await store.read_owner(tenant)
            assert seen is not None
            etag = seen.etag
            writes.append(wrote - began)
            reads.append(time.perf_counter() - wrote)
        tell("owner GET p50", sorted(reads)[15])
        tell("owner conditional PUT p50", sorted(writes)[15])
        self.assertLess(sorted(reads)[15], 0.2)


class TenantTests(Parts):
    async def test_a_tenant_moves_without_loss(self) -> None:
        """Rows synced under epoch 1 are there after kill -9 and a restore under epoch 2, the login
        made from a hash works in both, and highest_txid agrees with the sync."""
        tenant, workloads, daemon = tenant_id(), self.workloads(), await self.litestream()
        store = S3ClaimStore(self.objects())
        superuser = InitialSuperuser(email=EMAIL, password_hash=HASH)
        lock = self.directories.lock(tenant)
        spec = self.spec(tenant, superuser=superuser)
        workload = await self.start(workloads, spec)
        database = spec.directory / "data" / "data.db"
        self.assertEqual(os.listdir(spec.directory / "migrations"), [])
        http = Http(workload)
        await http.log_in()
        await http.make_collection()
        await daemon.register(tenant, 1, database)
        await daemon.sync(database, timeout_s=20)
        spent = []
        for number in range(20):
            await http.add(f"word {number}")
            began = time.perf_counter()
            txid = await daemon.sync(database, timeout_s=10)
            spent.append(time.perf_counter() - began)
        tell("sync p50", sorted(spent)[10])
        tell("sync max", max(spent))
        self.assertEqual(await store.highest_txid(tenant, 1), txid)
        self.assertEqual(daemon.local_txid(database), txid)
        identity = self.directories.database_identity(tenant)
        self.assertEqual(identity, (database.stat().st_dev, database.stat().st_ino))

        await workload.kill()
        await daemon.unregister(database)
        lock.release()
        self.assertIsNotNone(self.directories.set_aside(tenant))
        began = time.monotonic()
        await daemon.restore(tenant, 1, database)
        tell("restore", time.monotonic() - began)
        daemon.forget(database)
        self.directories.lock(tenant)
        again = await self.start(workloads, self.spec(tenant))
        await daemon.register(tenant, 2, database)
        await daemon.sync(database, timeout_s=20)
        http = Http(again)
        await http.log_in()
        self.assertEqual(await http.words(), {f"word {number}" for number in range(20)})
        self.assertGreater(await store.highest_txid(tenant, 2), 0)

    async def test_the_log_is_not_checkpointed(self) -> None:
        """2000 pages of writes stay in the WAL: PocketBase itself moves none into data.db."""
        tenant, workloads = tenant_id(), self.workloads()
        superuser = InitialSuperuser(email=EMAIL, password_hash=HASH)
        spec = self.spec(tenant, superuser=superuser)
        http = Http(await self.start(workloads, spec))
        await http.log_in()
        await http.make_collection()
        for _ in range(8):
            await http.add("x" * 4900)
        await http.ask("POST", "/sql", {"query": "CREATE TABLE big(a)"})
        filler = (
            "INSERT INTO big WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n "
            "WHERE i < 2500) SELECT randomblob(4000) FROM n"
        )
        status, body = await http.ask("POST", "/sql", {"query": filler})
        self.assertEqual(status, 200, body)
        await http.add("one more, so that an automatic checkpoint would have run")
        size = (spec.directory / "data" / "data.db-wal").stat().st_size
        self.assertGreater(size, 2500 * 4096)

    async def test_why_it_did_not_start(self) -> None:
        """A broken hook, and a wrong encryption key, end the start with the reason."""
        tenant, workloads = tenant_id(), self.workloads()
        workload = await self.start(workloads, self.spec(tenant))
        await workload.stop()
        hooks = self.directories.path(tenant) / "hooks"
        (hooks / "broken.pb.js").write_text("this is no script")
        with self.assertRaises(ProcessFailed) as caught:
            await workloads.start(self.spec(tenant))
        self.assertIn("exit status 2", str(caught.exception))
        self.assertIn("broken.pb.js", str(caught.exception))

    async def test_its_end_is_told(self) -> None:
        """A PocketBase killed by somebody else is reported with the signal."""
        workload = await self.start(self.workloads(), self.spec(tenant_id()))
        ended: Deferred[str] = Deferred()
        workload.when_ended(ended.callback)
        os.kill(workload.pid, signal.SIGKILL)
        self.assertIn("SIGKILL", await ended)

    async def test_the_lock_outlives_us(self) -> None:
        """A released lock stays locked while PocketBase lives, and is free after its end."""
        from pbcluster.errors import Unavailable

        tenant = tenant_id()
        lock = self.directories.lock(tenant)
        workload = await self.start(self.workloads(), self.spec(tenant))
        lock.release()
        with self.assertRaises(Unavailable):
            NodeDirectories(self.data_dir).lock(tenant)
        await workload.kill()
        NodeDirectories(self.data_dir).lock(tenant).release()

    async def test_nothing_secret_is_printed_or_passed(self) -> None:
        """No argument of a child holds a key, and the installer's token is blotted out."""
        tenant, workloads, daemon = tenant_id(), self.workloads(), await self.litestream()
        workload = await self.start(workloads, self.spec(tenant))  # no superuser: installer URL
        for pid in (workload.pid, daemon.pid):
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
            for secret in (self.address.secret_key, "0123456789abcdef"):
                self.assertNotIn(secret, argv)
        config = self.data_dir / "litestream" / "litestream.yml"
        self.assertNotIn(self.address.secret_key, config.read_text())
        self.assertEqual(config.stat().st_mode & 0o777, 0o600)
        words = workload._child.last_words()
        self.assertNotIn("eyJ", words)


class LitestreamTests(Parts):
    def database(self, tenant: str) -> Path:
        database = self.directories.path(tenant) / "data" / "data.db"
        database.parent.mkdir(parents=True)
        with contextlib.closing(sqlite3.connect(database)) as db:
            db.executescript("PRAGMA journal_mode=wal; CREATE TABLE t(a); INSERT INTO t VALUES(1)")
        return database

    async def test_its_death_is_told(self) -> None:
        """A killed daemon is reported, syncs fail until it is started and registered again."""
        tenant, daemon = tenant_id(), await self.litestream()
        database = self.database(tenant)
        await daemon.register(tenant, 1, database)
        await daemon.sync(database, timeout_s=10)
        lost: Deferred[str] = Deferred()
        daemon.when_lost(lost.callback)
        assert daemon.pid is not None
        os.kill(daemon.pid, signal.SIGKILL)
        self.assertIn("SIGKILL", await lost)
        with self.assertRaises(S3Unavailable):
            await daemon.sync(database, timeout_s=10)
        await daemon.start()
        with self.assertRaises(S3Unavailable):
            await daemon.sync(database, timeout_s=10)
        await daemon.register(tenant, 1, database)
        self.assertGreater(await daemon.sync(database, timeout_s=10), 0)

    async def test_another_epoch_goes_to_its_own_prefix(self) -> None:
        """Registering under a new epoch moves the replica there, though Litestream itself ignores a
        second URL."""
        tenant, daemon = tenant_id(), await self.litestream()
        store = S3ClaimStore(self.objects())
        database = self.database(tenant)
        await daemon.register(tenant, 1, database)
        await daemon.sync(database, timeout_s=10)
        await daemon.unregister(database)
        daemon.forget(database)
        self.assertFalse(metadata_path(database).exists())
        await daemon.register(tenant, 2, database)
        await daemon.sync(database, timeout_s=10)
        self.assertEqual(
            [await store.highest_txid(tenant, epoch) > 0 for epoch in (1, 2, 3)],
            [True, True, False],
        )

    async def test_a_restore_overwrites_nothing(self) -> None:
        """A restore to a file that exists fails and leaves it and nothing else."""
        tenant, daemon = tenant_id(), await self.litestream()
        database = self.database(tenant)
        await daemon.register(tenant, 1, database)
        await daemon.sync(database, timeout_s=10)
        target = self.data_dir / "restored" / "data.db"
        target.parent.mkdir()
        target.write_bytes(b"mine")
        with self.assertRaises(StorageCorrupt):
            await daemon.restore(tenant, 1, target)
        self.assertEqual(target.read_bytes(), b"mine")
        self.assertEqual([path.name for path in target.parent.iterdir()], ["data.db"])

    async def test_a_damaged_replica_is_no_copy(self) -> None:
        """A replica with a changed byte gives an error and no file, wherever the byte stands. Only
        a byte of a compressed page that still stands for the same page (LZ4 has several forms of
        one run of zeros; the checksum covers the page itself) is restored, to the same bytes."""
        tenant, daemon = tenant_id(), await self.litestream()
        objects, database = self.objects(), self.database(tenant)
        await daemon.register(tenant, 1, database)
        await daemon.sync(database, timeout_s=10)
        # Else a compaction may write the undamaged file once more, as another level's.
        await daemon.unregister(database)
        whole = self.data_dir / "whole" / "data.db"
        await daemon.restore(tenant, 1, whole)
        # As one file, or as two where a compaction was faster.
        stored = {
            key: each.body
            for key in (await objects.list(replica_path(tenant, 1))).keys
            if (each := await objects.get(key)) is not None
        }
        self.assertTrue(stored)
        refused, shares = 0, [0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95, 1.0]
        for share in shares:
            for key, good in stored.items():
                body = bytearray(good)
                body[min(int(share * len(body)), len(body) - 1)] ^= 0xFF
                await objects.put(key, bytes(body))
            target = self.data_dir / f"restored-{share}" / "data.db"
            try:
                await daemon.restore(tenant, 1, target)
            except (S3Unavailable, StorageCorrupt):
                refused += 1
                self.assertEqual(list(target.parent.iterdir()), [])
            else:
                self.assertEqual(target.read_bytes(), whole.read_bytes(), f"at {share}")
        self.assertGreaterEqual(refused, len(shares) - 2)

    async def test_nothing_to_restore(self) -> None:
        """An epoch without a replica cannot be restored."""
        daemon = await self.litestream()
        with self.assertRaises(S3Unavailable):
            await daemon.restore(tenant_id(), 1, self.data_dir / "x" / "data.db")

    async def test_s3_goes_away_and_comes_back(self) -> None:
        """While S3 is away a sync fails at our limit and the third is refused; afterwards the next
        one carries everything. A last sync that fails leaves a database that is not in S3, and
        Litestream does not say so again; registered once more, it is synced."""
        own = Seaweed(Path(tempfile.mkdtemp(prefix="pbc-s3-")))
        self.addCleanup(own.stop)
        own.start()
        self.address = own.address(own.new_bucket())
        tenant, daemon = tenant_id(), await self.litestream()
        database = self.database(tenant)
        await daemon.register(tenant, 1, database)
        await daemon.sync(database, timeout_s=10)
        own.pause_end()
        with contextlib.closing(sqlite3.connect(database)) as db:
            db.executescript("INSERT INTO t VALUES(2)")
        for _ in range(3):
            with self.assertRaises(S3Unavailable):
                await daemon.sync(database, timeout_s=0.5)
        self.patch(replication, "UNREGISTER_TIMEOUT_S", 1)
        with self.assertRaises(S3Unavailable):
            await daemon.unregister(database)
        own.start()
        self.assertFalse(await daemon.unregister(database))  # 200, but nothing was synced
        await daemon.register(tenant, 1, database)
        until = time.monotonic() + 40
        while True:
            try:
                txid = await daemon.sync(database, timeout_s=5)
                break
            except S3Unavailable:
                assert time.monotonic() < until
                pause: Deferred[None] = Deferred()
                reactor.callLater(0.2, pause.callback, None)
                await pause
        self.assertEqual(await S3ClaimStore(self.objects()).highest_txid(tenant, 1), txid)
        target = self.data_dir / "restored" / "data.db"
        await daemon.restore(tenant, 1, target)
        with contextlib.closing(sqlite3.connect(target)) as db:
            self.assertEqual(db.execute("SELECT count(*) FROM t").fetchall(), [(2,)])
