"""Moving tenants with real parts, under clients that write and read: no request fails, no row is
lost, whoever dies meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.errors import Conflict, PBClusterError
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.moving_tenants import MovingTenant, SlowWrite
from pbcluster.testing.workload import Client
from tests.integration.support import new_tenant, tell


class MigrationTestCase(SynchronousTestCase):
    timeout = 180

    def setUp(self) -> None:
        self.cluster = RealCluster(nodes=2, members=3)
        self.addCleanup(self.cluster.close)
        self.cluster.start()
        self.client = new_tenant(self.cluster, "shop")

    def leader(self) -> str:
        """The member that leads."""
        members = self.cluster.admin.all("members")
        return next(str(each["id"]) for each in members if each["role"] == "leader")

    def command(self, *arguments: str) -> str:
        """What ``pbcluster`` says on standard output."""
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pbcluster.cli.main", *arguments),
                *("--dir", str(self.cluster.where.root)),
            ],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def moving(self, tenant: str = "shop") -> MovingTenant:
        return MovingTenant(self.cluster, tenant, writes_per_s=10, reads_per_s=10)

    def check(self, moved: MovingTenant, client: Client, but: int = 0) -> None:
        """Nothing failed; every acknowledged row is there; ``but`` more rows were written."""
        found = [line for line in moved.faults(client) if not (but and "invented" in line)]
        self.assertEqual(found, [], self.cluster.logs())
        self.assertGreaterEqual(len(moved.journal.acked), 10)


class MigrationTests(MigrationTestCase):
    def test_there_and_back_under_load_whoever_leads(self) -> None:
        """Two moves under readers and writers: 0 failed requests, all rows there. In the second one
        a long request is open: the source waits for it, and meanwhile the leader is killed; the
        next one finishes the move. The command shows how it went."""
        moved, cluster = self.moving(), self.cluster
        source = moved.node()
        with moved.workload.running():
            moved.workload.wait_for_acks(10)
            began, target = time.monotonic(), moved.other_node()
            shown = json.loads(self.command("tenants", "migrate", "shop", "--to", target, "--json"))
            self.assertEqual((shown["phase"], shown["targetNode"]), ("done", target))
            done = moved.end(began)
            self.assertEqual((done.phase, done.failed), ("done", 0), done)
            tell("longest request of a move", done.pause_s)
            self.assertNotEqual(moved.node(), source)

            slow = SlowWrite(cluster, "shop")
            # The request is at the node once another one that came later was answered.
            moved.workload.wait_for_acks(moved.workload.writers * 2)
            began = time.monotonic()
            moved.begin(source)
            moved.wait_phase("draining")
            cluster.kill9(self.leader())
            self.assertEqual(slow.finish(), 200)
            done = moved.end(began)
            self.assertEqual((done.phase, done.failed), ("done", 0), done)
            tell("… with the leader killed in it", done.pause_s)
            self.assertEqual(moved.node(), source)
        self.check(moved, self.client, but=1)

        shown = json.loads(self.command("tenants", "migration", "shop", "--json"))
        self.assertEqual((shown["phase"], shown["targetNode"]), ("done", source))
        self.assertEqual([route["priority"] for route in shown["routes"]], [1, 0])
        self.assertGreater(shown["warmBytes"], 0)
        self.assertGreaterEqual(shown["gateways"], 1)

    def test_who_is_in_the_way_aborts_it(self) -> None:
        """A source that dies, a target that dies, an operator: the migration ends as aborted with
        the reason, the tenant has one owner that serves, and no acknowledged row is lost."""
        moved, cluster = self.moving(), self.cluster
        source, target = moved.node(), moved.other_node()
        # An operator, while a long request keeps the source from draining.
        slow = SlowWrite(cluster, "shop")
        moved.begin(target)
        moved.wait_phase("draining")
        self.assertRaises(Conflict, moved.begin, target)
        self.command("tenants", "abort-migration", "shop")
        self.assertEqual(moved.look()["reason"], "an operator ended it")
        self.assertEqual(slow.finish(), 200)
        self.assertEqual(moved.node(), source)
        cluster.wait_tenant("shop")

        with moved.workload.running():
            moved.workload.wait_for_acks(10)
            # The target dies before the switch: nobody notices.
            slow = SlowWrite(cluster, "shop")
            began = time.monotonic()
            moved.begin(target)
            moved.wait_phase("draining")
            cluster.kill9(target)
            done = moved.end(began)
            self.assertEqual((done.phase, done.failed), ("aborted", 0), done)
            self.assertIn(target, done.reason)
            self.assertEqual(slow.finish(), 200)
            self.assertEqual(moved.node(), source)
            cluster.start(target)
        self.check(moved, self.client, but=2)

        # The source dies: its tenant is rescued, which ends the migration.
        slow = SlowWrite(cluster, "shop")
        moved.begin(target)
        moved.wait_phase("draining")
        cluster.kill9(source)
        seen = moved.wait_phase("aborted")
        self.assertIn("overtaken", str(seen["reason"]))
        cluster.wait_tenant("shop")
        self.assertEqual(moved.node(), target)
        self.assertEqual([x for x in moved.faults(self.client) if "lost=[]" not in x], [])

    def test_a_node_that_is_stopped_is_not_missed(self) -> None:
        """SIGTERM of one of two nodes under load: its tenants go to the other one with 0 failed
        requests and a short pause. Stopped with the other one away, it waits for nobody."""
        moved, cluster = self.moving(), self.cluster
        source, target = moved.node(), moved.other_node()
        with moved.workload.running():
            moved.workload.wait_for_acks(10)
            began = time.monotonic()
            self.assertTrue(cluster.stop(source))
            tell("a stop with its tenant's leave", time.monotonic() - began)
            moved.workload.wait_for_acks(10)
            during = [e for e in list(moved.journal.events) if e.ended >= began]
            tell("… and its longest request", max(e.ended - e.begun for e in during))
            self.assertEqual(moved.node(), target)
        self.check(moved, self.client)
        began = time.monotonic()
        self.assertTrue(cluster.stop(target))
        self.assertLess(time.monotonic() - began, 5.0)
        cluster.start(target)
        cluster.wait_tenant("shop")

    def test_a_drained_node_is_empty_and_nobody_noticed(self) -> None:
        """All tenants of a node under load go elsewhere with 0 failed requests; it gets nothing
        new until it is undrained; bad wishes are refused with the reason."""
        cluster = self.cluster
        source = str(cluster.admin.tenant("shop")["nodeID"])
        target = next(node for node in cluster.ids("node") if node != source)
        clients = {"shop": self.client}
        for number in range(3):
            clients[f"t{number}"] = new_tenant(cluster, f"t{number}")
        for name in clients:
            if cluster.admin.tenant(name)["nodeID"] != source:
                MovingTenant(cluster, name, writes_per_s=1, reads_per_s=1).begin(source)
        for name in clients:
            if cluster.admin.tenant(name)["nodeID"] != source:
                MovingTenant(cluster, name, writes_per_s=1, reads_per_s=1).wait_phase("done")
        loads = {n: MovingTenant(cluster, n, writes_per_s=5, reads_per_s=5) for n in clients}
        for load in loads.values():
            load.workload.start()
        try:
            for load in loads.values():
                load.workload.wait_for_acks(5)
            shown = json.loads(self.command("nodes", "drain", source, "--json"))
            self.assertEqual((shown["left"], shown["drainWanted"]), (0, True))
            for load in loads.values():
                load.workload.wait_for_acks(5)
        finally:
            for load in loads.values():
                load.workload.stop()
        for name, load in loads.items():
            self.assertEqual(load.faults(clients[name]), [], f"{name}\n{cluster.logs()}")
            self.assertEqual(load.node(), target)
        refused = self.assertRaises(PBClusterError, loads["shop"].begin, source)
        self.assertIn("is draining", str(refused))
        placed = json.loads(self.command("tenants", "placement", "shop", "--json"))
        self.assertEqual((placed["next"], placed["reasons"][source]), ("", "is draining"))
        found = json.loads(self.command("tenants", "find", "shop", "--json"))
        self.assertEqual([each["nodeID"] for each in found["found"]], [target])
        self.assertEqual((found["silent"], found["corrected"]), ([], []))
        self.command("nodes", "undrain", source)
        plan = json.loads(self.command("rebalance", "--dry-run", "--json"))
        self.assertEqual(plan["totalMoves"], 2)
        self.assertEqual({each["targetNode"] for each in plan["moves"]}, {source})
        self.assertRaises(Conflict, cluster.admin.request, "DELETE", "/rebalance")
        shown = json.loads(self.command("rebalance", "--at-once", "2", "--json"))
        self.assertEqual((shown["state"], shown["left"], shown["totalMoves"]), ("done", 0, 2))
        places = sorted(cluster.admin.tenant(name)["nodeID"] for name in clients)
        self.assertEqual(places, sorted([source, target] * 2))
        for name in clients:
            cluster.wait_tenant(name)
