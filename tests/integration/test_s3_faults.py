"""An S3 that answers wrongly, by halves, late or not at all: every write has a clear end."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sqlite3
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.cli import procfs
from pbcluster.node import wal
from pbcluster.node.durability import OUTAGE_WAIT_S
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.event_stream import EventStream
from pbcluster.testing.s3_faults import FINE, S3Faults, Trouble
from pbcluster.testing.soak_litestream import Broken, one_restore, restored
from pbcluster.testing.workload import Client, Workload, check, read_all
from tests.integration.support import new_tenant, tell

RECORDS = "/api/collections/journal/records"
TROUBLES = {
    "403": Trouble(status=403),
    "404": Trouble(status=404),
    "500": Trouble(status=500),
    "slow": Trouble(delay_s=0.3),
    "half of each answer": Trouble(half=True),
    "answers of writes lost": Trouble(lost=True, methods=("PUT", "POST")),
}


#: Longer than Litestream's longest pause between two tries.
WELL_AGAIN_S = 30.0
#: A killed Litestream is there again within some tenths of a second: so often it is killed again.
MAX_KILLS = 50


@attrs.define
class Careful:
    """A tenant with durable reads, and one of its event streams: used by a thread of its own.

    :ivar database: its data.db. :ivar seen: trouble → answers of a write and of a read beside it.
    :ivar trouble: what went wrong in the thread.
    """

    client: Client
    stream: EventStream
    database: Path
    seen: dict[str, tuple[Any, Any]] = attrs.field(factory=dict)
    trouble: list[Exception] = attrs.field(factory=list)

    @contextlib.contextmanager
    def used(self, name: str) -> Any:
        """While the block runs a row is written, and read as soon as PocketBase has it."""
        thread = threading.Thread(target=self._use, args=(name,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            thread.join(60.0)

    def _use(self, name: str) -> None:
        try:
            before, answers = wal.position(self.database), []
            body = {"n": 1, "value": name}
            writer = Client(self.client.gateway, self.client.host)
            write = threading.Thread(
                target=lambda: answers.append(writer.ask("POST", RECORDS, body)), daemon=True
            )
            write.start()
            until = time.monotonic() + 5.0
            while wal.position(self.database) in (before, None) and time.monotonic() < until:
                time.sleep(0.01)
            read = self.client.ask("GET", RECORDS)
            write.join(45.0)
            writer.close()
            self.seen[name] = (answers[0], read)
        except Exception as error:
            self.trouble.append(error)


class FaultTests(SynchronousTestCase):
    timeout = 240

    def setUp(self) -> None:
        self.cluster = RealCluster(nodes=1, members=1)
        self.addCleanup(self.cluster.close)
        (s3,) = self.cluster.plan.of("s3")
        real = f"http://127.0.0.1:{s3.ports['s3']}"
        self.s3 = S3Faults(real)
        self.s3.start()
        self.addCleanup(self.s3.close)
        changed = 0
        for path in self.cluster.where.root.rglob("node_1*.toml"):
            text = path.read_text()
            path.write_text(text.replace(real, self.s3.url))
            changed += real in text
        self.assertEqual(changed, 1)
        self.cluster.start()

    def write(self, client: Client, value: str) -> int:
        status, answer = client.ask("POST", RECORDS, {"n": 1, "value": value})
        if status != 200:
            self.assertEqual((status, answer["data"]["code"]), (503, "not_durable"), answer)
        return status

    def careful(self) -> Careful:
        """A tenant with durable reads whose event stream runs."""
        client = new_tenant(self.cluster, "careful")
        self.cluster.admin.change_tenant("careful", {}, onS3Outage="reject", durableReads=True)
        tenant_id = self.cluster.admin.tenant("careful")["id"]
        stream = EventStream(client, "journal/*")
        stream.open()
        self.addCleanup(stream.close)
        where = self.cluster.where.root / f"data/node_1/tenants/{tenant_id}/data/data.db"
        return Careful(client, stream, where)

    def check_careful(self, careful: Careful, name: str, fine_at: float) -> None:
        """Nothing that S3 had not taken was shown, by a read or an event; now it is."""
        self.assertEqual(careful.trouble, [], name)
        (wrote, wrote_what), (read, read_what) = careful.seen[name]
        if name == "slow":
            self.assertEqual((wrote, read), (200, 200))
            careful.stream.wait_for(name, 10.0)
        else:
            self.assertEqual((wrote, wrote_what["data"]["code"]), (503, "not_durable"), name)
            self.assertEqual((read, read_what["data"]["code"]), (503, "not_durable"), name)
            self.assertGreater(careful.stream.seen.get(name, fine_at + 1), fine_at, name)
        self.assertLessEqual(self.refused_at_once(careful), 1, name)
        self.assertIn(name, read_all(careful.client).values())

    def refused_at_once(self, careful: Careful) -> int:
        """Reads until one is answered. Litestream pauses between its tries, so some may be refused
        after S3 is back: but not before they have waited.

        :returns: how many did not wait.
        """
        until, found = time.monotonic() + WELL_AGAIN_S, 0
        while time.monotonic() < until:
            began = time.monotonic()
            if careful.client.ask("GET", RECORDS)[0] == 200:
                break
            found += time.monotonic() - began < OUTAGE_WAIT_S - 1.0
            time.sleep(0.1)
        return found

    def test_each_fault_and_a_killed_litestream(self) -> None:
        """Under each fault reads are answered and a write is acknowledged or refused with its
        reason within seconds; without it the next writes are acknowledged again. A tenant with
        durable reads shows nobody what S3 did not take, neither to reads nor by events. A
        Litestream that is killed under writers again and again is started anew and loses nothing;
        without it writes are refused. At the end a node without a disk has every acknowledged
        row."""
        client, careful = new_tenant(self.cluster, "shop"), self.careful()
        self.cluster.admin.change_tenant("shop", {}, onS3Outage="reject")
        acked = set()
        for name, trouble in TROUBLES.items():
            if not careful.stream.is_open:  # it ends when what it must not show does not last
                careful.stream.open()
            self.s3.set(trouble)
            with careful.used(name):
                began = time.monotonic()
                status = self.write(client, name)
                took = time.monotonic() - began
                tell(f"{name}: {status} after", took)
                self.assertLess(took, 9.0, name)
                self.assertEqual(status, 200 if name == "slow" else 503, name)
                self.assertEqual(client.ask("GET", RECORDS)[0], 200)
            fine_at = time.monotonic()
            self.s3.set(FINE)
            self.check_careful(careful, name, fine_at)
            again = time.monotonic()
            while self.write(client, f"after {name}") != 200:
                took = time.monotonic() - again
                self.assertLess(took, WELL_AGAIN_S, f"{name}\n{self.cluster.logs()}")
                time.sleep(0.1)
            acked |= {f"after {name}"} | ({name} if status == 200 else set())
        self.assertGreater(self.s3.met, 10)
        self.mark_auxiliary()
        workload = self.kill_litestream()
        self.wait_for_marker()
        self.cluster.kill9("node_1")
        shutil.rmtree(self.cluster.where.root / "data/node_1/tenants")
        self.cluster.start("node_1")
        self.cluster.wait_tenant("shop")
        rows = set(read_all(client).values())
        self.assertLessEqual(acked, rows)
        self.assertEqual(check(client, workload.journal).lost, [])
        with contextlib.closing(sqlite3.connect(self.auxiliary())) as logs:
            self.assertEqual(logs.execute("SELECT n FROM marker").fetchall(), [(7,)])

    def auxiliary(self) -> Path:
        tenant_id = self.cluster.admin.tenant("shop")["id"]
        return self.cluster.where.root / f"data/node_1/tenants/{tenant_id}/data/auxiliary.db"

    def mark_auxiliary(self) -> None:
        """Nothing is acknowledged for it, so when it is in S3 must be looked up."""
        with contextlib.closing(sqlite3.connect(self.auxiliary())) as logs, logs:
            logs.execute("CREATE TABLE marker (n)")
            logs.execute("INSERT INTO marker VALUES (7)")

    def wait_for_marker(self) -> None:
        """Until a database restored from S3 has it: auxiliary.db is replicated in the background,
        also after Litestream was started anew."""

        def there() -> bool:
            into = Path(tempfile.mkdtemp(prefix="pbcluster-aux-"))
            try:
                found = restored(self.cluster, "shop", into, "auxiliary.db")
                with contextlib.closing(sqlite3.connect(found)) as logs:
                    return logs.execute("SELECT n FROM marker").fetchall() == [(7,)]
            except (sqlite3.OperationalError, Broken):
                return False
            finally:
                shutil.rmtree(into)

        self.cluster.wait_until(there, "the marker to be in S3", 40.0)

    def kill_litestream(self) -> Workload:
        host = self.cluster.host("shop")
        workload = Workload(self.cluster.gateway_url, host, "k", writers=4, readers=1)
        with workload.running():
            workload.wait_for_acks(50)
            killed = time.monotonic()
            for _ in range(MAX_KILLS):
                for daemon in self.daemons():
                    procfs.send(daemon, signal.SIGKILL)
                if any(event.status == 503 for event in workload.journal.failures()):
                    break
                time.sleep(0.1)
            workload.wait_for_acks(100)
            one_restore(self.cluster, "shop", dict(workload.journal.acked))
            workload.wait_for_acks(100)
        gap = workload.journal.longest_gap(killed, "write")
        tell("longest wait for a write after Litestream was killed", gap)
        self.assertLess(gap, 10.0)
        failures = {(event.kind, event.status) for event in workload.journal.failures()}
        self.assertEqual(failures, {("write", 503)}, workload.journal.failures()[:5])
        return workload

    def daemons(self) -> list[procfs.Identity]:
        """The node's Litestream, if it runs."""
        below = self.cluster.children_of("node_1")
        return [who for who in below if b"litestream" in procfs_name(who.pid)]


def procfs_name(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            return stream.read().split(b"\0")[0]
    except FileNotFoundError:
        return b""
