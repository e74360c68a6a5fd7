"""The whole platform, on its real parts: from a client's request to the bytes in S3 and back.

Real PocketBase, Litestream, SeaweedFS, LMDB, sockets and processes; nothing is faked and nothing is
retried. Each test has a cluster of its own.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from functools import partial
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from pbcluster import compiled
from pbcluster.cli import procfs
from pbcluster.cli.child import Child, ProcessSpec
from pbcluster.errors import Conflict, Unavailable
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.paced_reads import PacedReads
from pbcluster.testing.workload import Client, Workload, check
from tests.integration.support import EMAIL, PASSWORD, new_tenant, run_sdk


def command_line(who: procfs.Identity) -> bytes:
    """The argv of a process, joined by NUL; empty if it is gone."""
    try:
        return Path(f"/proc/{who.pid}/cmdline").read_bytes()
    except OSError:
        return b""


def has_ended(child: Child) -> bool:
    """Whether a process of the cluster is gone."""
    return child.ended() is not None


class CrossingTestCase(SynchronousTestCase):
    timeout = 180

    def cluster(
        self, nodes: int = 2, members: int = 3, **settings: dict[str, object]
    ) -> RealCluster:
        cluster = RealCluster(nodes=nodes, members=members, settings=settings or None)
        self.addCleanup(cluster.close)
        cluster.start()
        return cluster

    def owner(self, cluster: RealCluster, tenant: str) -> str:
        node: str = cluster.admin.tenant(tenant)["nodeID"]
        return node

    def verify(self, cluster: RealCluster, workload: Workload, client: Client) -> None:
        """Every acknowledged row is there, with its value; nothing else is; no read was stale."""
        verdict = check(client, workload.journal)
        self.assertTrue(verdict.good, f"{verdict}\n{cluster.logs()}")
        self.assertEqual(workload.journal.stale, [], cluster.logs())
        self.assertGreater(len(workload.journal.acked), 0)


class SdkTests(CrossingTestCase):
    def test_the_official_sdk(self) -> None:
        """Sign-in, collections, CRUD with filters, realtime, upload and ranged download work;
        gateway and nodes run the modules, compiled or not, that this process does."""
        cluster = self.cluster(nodes=2)
        for who in ("gateway_1", *cluster.ids("node")):
            mapped = Path(f"/proc/{cluster.pid(who)}/maps").read_text()
            self.assertEqual("/pbcluster/web/attempt." in mapped, compiled.in_use(), who)
        cluster.create_tenant("shop", EMAIL, PASSWORD)
        done = run_sdk(cluster, "shop")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr + cluster.logs())
        last = json.loads(done.stdout.splitlines()[-1])
        self.assertTrue(last["done"])

        # What the SDK wrote is in S3: the other node, which has no copy, shows the same rows.
        first = self.owner(cluster, "shop")
        cluster.kill9(first)
        cluster.wait_tenant("shop")
        self.assertNotEqual(self.owner(cluster, "shop"), first)
        client = Client(cluster.gateway_url, cluster.host("shop"))
        status, page = client.ask("GET", "/api/collections/posts/records?perPage=100&sort=id")
        self.assertEqual(status, 200, page)
        rows = [[row["id"], row["title"], row["n"]] for row in page["items"]]
        self.assertEqual(rows, last["rows"])


class TwistedStreamsTests(CrossingTestCase):
    """On Twisted's own transports, as where uvloop cannot be installed."""

    def without_uvloop(self, spec: ProcessSpec) -> ProcessSpec:
        """The process finds something in uvloop's place that cannot be imported."""
        hidden = Path(self.mktemp()).absolute()
        hidden.mkdir()
        (hidden / "uvloop.py").write_text("raise ImportError('hidden')\n")
        path = os.pathsep.join(filter(None, (str(hidden), spec.env.get("PYTHONPATH"))))
        return attrs.evolve(spec, env={**spec.env, "PYTHONPATH": path})

    def test_the_official_sdk(self) -> None:
        """What works on libuv's streams works there."""
        cluster = RealCluster(nodes=1, members=1, change_spec=self.without_uvloop)
        self.addCleanup(cluster.close)
        cluster.start()
        for who in ("gateway_1", "node_1"):
            mapped = Path(f"/proc/{cluster.pid(who)}/maps").read_text()
            self.assertNotIn("uvloop", mapped, "it is there after all")
            self.assertEqual("/web/epoll/shortcut." in mapped, compiled.in_use(), who)
        cluster.create_tenant("shop", EMAIL, PASSWORD)
        done = run_sdk(cluster, "shop")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr + cluster.logs())
        self.assertTrue(json.loads(done.stdout.splitlines()[-1])["done"])


class NodeDeathTests(CrossingTestCase):
    def test_kill_9_of_a_node_with_its_children(self) -> None:
        """A node and everything below it dies under writers: the other node has every row that
        was acknowledged, reads are never stale, and readers see latency, not errors."""
        cluster = self.cluster()
        client = new_tenant(cluster, "shop")
        first = self.owner(cluster, "shop")
        workload = Workload(
            cluster.gateway_url, cluster.host("shop"), "k", writers=4, readers=2, pause_s=0.01
        )
        with workload.running():
            workload.wait_for_acks(100)
            cluster.kill9(first)
            workload.wait_for_acks(100)
        self.assertNotEqual(self.owner(cluster, "shop"), first)
        self.verify(cluster, workload, client)
        failed_reads = [e for e in workload.journal.failures() if e.kind == "read"]
        self.assertEqual(failed_reads, [], cluster.logs())
        # A write that was under way when the machine died has an unknown fate; there can be no
        # more of those than writers, and nothing else may fail.
        self.assertLessEqual(len(workload.journal.failures()), 4, workload.journal.failures())

    def test_reads_through_a_death(self) -> None:
        """A node dies under 200 reads a second, which do not wait for each other: each gets its
        answer, later; none gets an error, and no connection breaks."""
        cluster = self.cluster()
        new_tenant(cluster, "shop")
        first = self.owner(cluster, "shop")
        reads = PacedReads(cluster.gateway_url, cluster.host("shop"), "/api/health", a_second=200.0)
        with reads.running():
            cluster.wait_until(lambda: len(reads.reads) > 200, "the first reads", 30.0)
            cluster.kill9(first)
            cluster.wait_until(lambda: self.owner(cluster, "shop") != first, "another owner", 30.0)
            seen = len(reads.reads)
            cluster.wait_until(lambda: len(reads.reads) > seen + 200, "reads there", 30.0)
        bad = [read for read in reads.reads if read.status != 200]
        self.assertEqual(bad[:5], [], f"{len(bad)} of {len(reads.reads)}\n{cluster.logs()}")

    def test_kill_9_of_pbnode_alone(self) -> None:
        """pbnode alone dies: its PocketBase and Litestream die with it, the other node takes over
        with every acknowledged row."""
        cluster = self.cluster()
        client = new_tenant(cluster, "shop")
        first = self.owner(cluster, "shop")
        below = cluster.children_of(first)
        self.assertGreaterEqual(len(below), 2)
        workload = Workload(cluster.gateway_url, cluster.host("shop"), "p", writers=4)
        with workload.running():
            workload.wait_for_acks(100)
            cluster.kill9(first, with_children=False)
            cluster.wait_until(
                lambda: not any(procfs.alive(who) for who in below),
                "the children of a dead node to end",
                5.0,
            )
            workload.wait_for_acks(100)
        self.assertNotEqual(self.owner(cluster, "shop"), first)
        self.verify(cluster, workload, client)

    def test_a_restarted_node_ends_orphans_first(self) -> None:
        """A PocketBase that outlived its pbnode is gone before the restarted node serves."""
        cluster = self.cluster(nodes=1, members=1)
        client = new_tenant(cluster, "shop")
        below = cluster.children_of("node_1")
        # Frozen processes cannot act on their parent's death until they are ended from outside.
        for who in below:
            os.kill(who.pid, signal.SIGSTOP)
        cluster.kill9("node_1", with_children=False)
        cluster.start("node_1")
        self.assertEqual([who for who in below if procfs.alive(who)], [])
        cluster.wait_tenant("shop")
        self.verify_empty(client)

    def verify_empty(self, client: Client) -> None:
        status, page = client.ask("GET", "/api/collections/journal/records")
        self.assertEqual((status, page["items"]), (200, []))

    def test_a_node_that_returns_is_used_again(self) -> None:
        """Each node dies in turn and returns: rows written between the deaths are all there."""
        cluster = self.cluster()
        client = new_tenant(cluster, "shop")
        workload = Workload(cluster.gateway_url, cluster.host("shop"), "r", writers=2, pause_s=0.01)
        with workload.running():
            for _ in range(2):
                workload.wait_for_acks(30)
                victim = self.owner(cluster, "shop")
                cluster.kill9(victim)
                workload.wait_for_acks(30)
                cluster.start(victim)
        self.verify(cluster, workload, client)


class WholeClusterTests(CrossingTestCase):
    def test_kill_9_of_everything(self) -> None:
        """Everything dies at once, S3 too: the next start has every acknowledged row, the same
        login and the same tenants."""
        cluster = self.cluster()
        client = new_tenant(cluster, "shop")
        workload = Workload(cluster.gateway_url, cluster.host("shop"), "w", writers=2)
        with workload.running():
            workload.wait_for_acks(50)
            cluster.kill9_all()
        cluster.start()
        cluster.wait_tenant("shop")
        client.close()
        client.sign_in(EMAIL, PASSWORD)
        self.verify(cluster, workload, client)

    def test_s3_away_at_the_start(self) -> None:
        """A node that starts without S3 says so, waits, and serves when it comes."""
        cluster = RealCluster(nodes=1, members=1)
        self.addCleanup(cluster.close)
        cluster.start(*cluster.ids("member"), "gateway_1")
        cluster.start("node_1", wait=False)
        cluster.wait_until(lambda: "S3" in cluster.child("node_1").tail(), "a word about S3", 20.0)
        self.assertIsNone(cluster.child("node_1").ended())
        cluster.start("s3_1")
        cluster.wait_serving("node_1")
        self.assertEqual(new_tenant(cluster, "late").ask("GET", "/api/health")[0], 200)

    def test_a_frozen_owner_does_not_answer_after_its_replacement(self) -> None:
        """A node is frozen past its replacement and goes on: it acknowledges nothing, answers
        nothing and harms nothing of its successor's."""
        cluster = self.cluster()
        client = new_tenant(cluster, "shop")
        first = self.owner(cluster, "shop")
        workload = Workload(cluster.gateway_url, cluster.host("shop"), "z", writers=4, readers=2)
        with workload.running():
            workload.wait_for_acks(50)
            cluster.sigstop(first, with_children=True)
            cluster.wait_until(lambda: self.owner(cluster, "shop") != first, "a new owner", 15.0)
            workload.wait_for_acks(50)
            cluster.sigcont(first, with_children=True)
            until = time.monotonic() + 3.0
            while time.monotonic() < until:
                workload.wait_for_acks(10)
        self.verify(cluster, workload, client)


class PortInUseTests(CrossingTestCase):
    def test_each_service_names_port_and_option(self) -> None:
        """A service whose port is taken ends with status 1 and one sentence that names both."""
        cluster = RealCluster(nodes=1, members=1)
        self.addCleanup(cluster.close)
        for name, use, option in (
            ("member_1", "admin", "--admin-listen"),
            ("node_1", "http", "--listen"),
            ("gateway_1", "http", "--listen"),
        ):
            port = cluster.plan.process(name).ports[use]
            with socket.create_server(("127.0.0.1", port)):
                cluster.start(name, wait=False)
                child = cluster.child(name)
                cluster.wait_until(partial(has_ended, child), f"{name} to end", 20.0)
            self.assertEqual(child.ended(), "exit status 1")
            self.assertIn(f"cannot listen at 127.0.0.1:{port} ({option})", child.tail())


class TenantLifeTests(CrossingTestCase):
    def test_idle_stop_and_wake_up(self) -> None:
        """A tenant without requests is stopped; its next request waits for it and is answered."""
        cluster = self.cluster(nodes=1, members=1, node={"idle_stop_s": 0.5})
        client = new_tenant(cluster, "shop")
        before = client.ask("GET", "/api/collections/journal/records")
        cluster.wait_until(
            lambda: cluster.admin.tenant("shop")["status"] == "idle", "the idle stop", 15.0
        )
        self.assertEqual(
            [w for w in cluster.children_of("node_1") if b"serve" in command_line(w)], []
        )
        self.assertEqual(client.ask("GET", "/api/collections/journal/records"), before)
        status, _ = client.ask(
            "POST", "/api/collections/journal/records", {"n": 1, "value": "after"}
        )
        self.assertEqual(status, 200)

    def test_capacity_and_taken_names(self) -> None:
        """A full cluster answers 503 with the reason, a taken name 409, an unknown tenant 404,
        and a deleted tenant's name can be used again."""
        cluster = self.cluster(nodes=1, members=1, node={"capacity": 1})
        cluster.create_tenant("shop", EMAIL, PASSWORD)
        full = self.assertRaises(Unavailable, cluster.admin.create_tenant, "more")
        self.assertIn("is full (1 of 1 tenants)", str(full))
        self.assertEqual(cluster.ask_tenant("nobody", "GET", "/api/health").status, 404)
        deleted = cluster.admin.delete_tenant("shop")
        self.assertEqual(deleted["status"], "deleted")
        self.assertEqual(cluster.ask_tenant("shop", "GET", "/api/health").status, 404)
        again = cluster.create_tenant("shop", EMAIL, PASSWORD)
        self.assertNotEqual(again["id"], deleted["id"])

    def test_taken_name(self) -> None:
        """A name that is taken answers 409, and the tenant that has it is untouched."""
        cluster = self.cluster(nodes=1, members=1)
        before = cluster.create_tenant("shop", EMAIL, PASSWORD)
        taken = self.assertRaises(Conflict, cluster.admin.create_tenant, "shop")
        self.assertIn("'shop' is taken", str(taken))
        self.assertEqual(cluster.admin.tenant("shop")["id"], before["id"])
