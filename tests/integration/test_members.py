"""Three control-plane members as real processes: leaders are killed while tenants are created."""

from __future__ import annotations

import threading
import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.cli import procfs
from pbcluster.cli.admin import AdminClient
from pbcluster.errors import PBClusterError
from pbcluster.testing.cluster import RealCluster

MEMBERS = ("member_1", "member_2", "member_3")
#: Elections take half a second; the machine may be busy with other things.
NEXT_WRITE_WITHIN_S = 5.0


class Writer(threading.Thread):
    """Creates tenants, one after the other, and remembers what was acknowledged."""

    def __init__(self, client: AdminClient, pause_s: float) -> None:
        super().__init__(daemon=True)
        self.client = client
        self.pause_s = pause_s
        self.acknowledged: dict[str, str] = {}
        self.gaps: list[float] = []
        self.refused: list[str] = []
        self.ending = threading.Event()
        self.number = 0

    def run(self) -> None:
        while not self.ending.wait(self.pause_s):
            name = f"w{self.number}"
            self.number += 1
            began = time.monotonic()
            try:
                made = self.client.request("POST", "/tenants", {"name": name})
            except PBClusterError as error:
                self.refused.append(f"{name}: {error}")
            else:
                self.acknowledged[name] = made["id"]
                self.gaps.append(time.monotonic() - began)


class MembersTests(SynchronousTestCase):
    def cluster(self, nodes: int = 1) -> RealCluster:
        found = RealCluster(nodes=nodes, members=3)
        self.addCleanup(found.close)
        return found

    def members(self, cluster: RealCluster) -> dict[str, dict[str, Any]]:
        return {member["id"]: member for member in cluster.admin.all("members")}

    def leader(self, cluster: RealCluster) -> str:
        found = (k for k, v in self.members(cluster).items() if v["role"] == "leader")
        return next(found, "")

    def caught_up(self, cluster: RealCluster) -> bool:
        return all(m["behind"] == 0 for m in self.members(cluster).values())

    def test_leaders_die_and_nothing_is_lost_or_doubled(self) -> None:
        """While tenants are created, each leader in turn is killed and comes back. The next write
        is acknowledged in seconds, every acknowledged tenant is there once, on every member, and
        the tenants answer all the time."""
        cluster = self.cluster()
        cluster.start()
        cluster.create_tenant("shop", "me@example.com", "long enough")
        writer = Writer(cluster.admin, pause_s=0.3)
        writer.start()
        for _ in range(3):
            dead = self.leader(cluster)
            before = len(writer.acknowledged)
            cluster.kill9(dead)
            cluster.wait_until(
                lambda before=before: len(writer.acknowledged) > before,  # type: ignore[misc]
                "the next acknowledged write",
                NEXT_WRITE_WITHIN_S,
            )
            self.assertEqual(cluster.ask_tenant("shop", "GET", "/api/health").status, 200)
            self.assertNotEqual(self.leader(cluster), dead)
            cluster.start(dead)
            cluster.wait_until(lambda: self.caught_up(cluster), f"{dead} to catch up")
        writer.ending.set()
        writer.join(30)
        self.assertEqual(writer.refused, [])
        self.assertLess(max(writer.gaps), NEXT_WRITE_WITHIN_S)
        wanted = sorted({"shop": "", **writer.acknowledged})
        for url in cluster.plan.admin_urls:
            found = AdminClient(url, cluster.where.token()).all("tenants")
            self.assertEqual(sorted(tenant["name"] for tenant in found), wanted)
            ids = {tenant["name"]: tenant["id"] for tenant in found if tenant["name"] != "shop"}
            self.assertEqual(ids, writer.acknowledged)

    def test_all_die_and_leadership_is_handed_over(self) -> None:
        """Members alone: a power failure of all loses nothing; a leader that is told to stop hands
        over; a transfer moves leadership to the member that is named; any member takes any
        request; one whose disk is gone does not come back under its id."""
        cluster = self.cluster()
        cluster.start(*MEMBERS)
        token = cluster.where.token()
        cluster.wait_until(lambda: self.caught_up(cluster), "three members")
        for name in MEMBERS:
            cluster.kill9(name)
        cluster.start(*MEMBERS)
        cluster.wait_until(lambda: self.caught_up(cluster), "three members again")
        old = self.leader(cluster)
        target = next(name for name in MEMBERS if name != old)
        for url in cluster.plan.admin_urls:
            client = AdminClient(url, token)
            client.request("POST", "/members/transfer", {"to": target})
            cluster.wait_until(
                lambda target=target: self.leader(cluster) == target,  # type: ignore[misc]
                "the transfer",
                5.0,
            )
            target = next(name for name in MEMBERS if name != target)
        stopped = self.leader(cluster)
        self.assertTrue(cluster.stop(stopped))
        self.assertNotEqual(self.leader(cluster), stopped)
        for file in (cluster.where.data(stopped) / "store").iterdir():
            file.unlink()
        with self.assertRaisesRegex(PBClusterError, "must not come back under its old id"):
            cluster.start(stopped)

    def test_a_frozen_leader_is_replaced(self) -> None:
        """A leader that is stopped for two seconds is replaced meanwhile, and follows when it goes
        on: there is never a second one that answers."""
        cluster = self.cluster()
        cluster.start(*MEMBERS)
        old = self.leader(cluster)
        url = f"http://127.0.0.1:{cluster.plan.process(old).ports['admin']}"
        others = [u for u in cluster.plan.admin_urls if u != url]
        client = AdminClient(others[0], cluster.where.token(), (others[1],))
        cluster.sigstop(old)

        def led_by_another() -> bool:
            try:
                return client.health().get("leader") not in (False, old)
            except PBClusterError:
                return False  # an election is going on

        cluster.wait_until(led_by_another, "another leader", 10.0)
        cluster.sigcont(old)
        pid = cluster.pid(old)
        assert pid is not None
        self.assertIsNotNone(procfs.identify(pid))
        own = AdminClient(url, cluster.where.token())

        def follows() -> bool:
            try:
                return own.health().get("leader") in others_ids
            except PBClusterError:
                return False

        others_ids = [name for name in MEMBERS if name != old]
        cluster.wait_until(follows, "the old leader to follow")
        cluster.wait_until(lambda: self.caught_up(cluster), "all to catch up")
