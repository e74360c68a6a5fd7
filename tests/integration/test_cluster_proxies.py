"""Faults between real processes: the harness cuts, blocks, delays and damages their ways."""

from __future__ import annotations

import time

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.cli.admin import AdminClient
from pbcluster.durations import Durations
from pbcluster.errors import PBClusterError
from pbcluster.testing.cluster import RealCluster

LEASE_PROOF_S = Durations().lease_proof_s
#: What a client waits for an answer before it is one that it was not spared, in seconds.
CLIENT_WAITS_S = 10.0
#: What a poll waits that is made again and again until it succeeds or fails, in seconds.
POLL_WAITS_S = 0.5
POLLED_WRITE_WAITS_S = 1.5
MEMBERS = ("member_1", "member_2", "member_3")


class MemberFaults(SynchronousTestCase):
    """Three members that meet through proxies, with CURVE on."""

    def setUp(self) -> None:
        self.cluster = RealCluster(nodes=1, members=3, proxied=True, seed=3)
        self.addCleanup(self.cluster.close)
        self.cluster.start(*MEMBERS)

    def own(self, name: str) -> AdminClient:
        port = self.cluster.plan.process(name).ports["admin"]
        return AdminClient(f"http://127.0.0.1:{port}", self.cluster.where.token())

    def led_by(self, name: str) -> str:
        """Who leads, as ``name`` says: itself by True."""
        try:
            found = self.own(name).health().get("leader")
        except PBClusterError:
            return ""
        return name if found is True else found or ""

    def agreed(self, *names: str) -> str:
        """The leader that all of ``names`` name; empty while they do not agree."""
        found = {self.led_by(name) for name in names}
        return found.pop() if len(found) == 1 else ""

    def wait_agreed(self, *names: str, but: str = "") -> str:
        self.cluster.wait_until(lambda: self.agreed(*names) not in ("", but), "a leader", 15.0)
        return self.agreed(*names)

    def test_a_leader_is_cut_off_and_comes_back(self) -> None:
        """Cut off, the leader stops leading and another one is chosen; healed, it follows, and a
        write at any member is known to all."""
        old = self.wait_agreed(*MEMBERS)
        others = [name for name in MEMBERS if name != old]
        self.cluster.net.isolate(old)
        new = self.wait_agreed(*others, but=old)
        self.cluster.wait_until(lambda: self.led_by(old) != old, "the old one to notice", 5.0)
        with self.assertRaises(PBClusterError):
            self.own(old).all("tenants")
        self.cluster.net.heal_all()
        self.assertEqual(self.wait_agreed(*MEMBERS), new)
        for name in MEMBERS:
            self.assertEqual(self.own(name).all("tenants"), [])

    def test_blackhole_delay_and_drop(self) -> None:
        """A follower into whose way nothing passes is missed and comes back; 20 ms each way and
        connections that break now and then change nothing but the time that a read takes."""
        leader = self.wait_agreed(*MEMBERS)
        follower, other = (name for name in MEMBERS if name != leader)
        self.cluster.net.blackhole(leader, follower)
        self.cluster.wait_until(lambda: self.led_by(follower) == "", "silence", 10.0)
        self.assertEqual(self.own(leader).all("tenants"), [])
        self.cluster.net.heal(leader, follower)
        leader = self.wait_agreed(*MEMBERS)
        follower, other = (name for name in MEMBERS if name != leader)
        for name in (follower, other):
            self.cluster.net.delay(leader, name, 0.02)
            self.cluster.net.delay(name, leader, 0.02)
        began = time.monotonic()
        self.own(leader).all("tenants")
        self.assertGreater(time.monotonic() - began, 0.04)
        for name in (follower, other):
            self.cluster.net.drop(leader, name, 0.05)
            self.cluster.net.drop(name, leader, 0.05)
        self.cluster.wait_until(self.reads, "a read under losses", 15.0)
        self.cluster.net.heal_all()
        self.wait_agreed(*MEMBERS)

    def reads(self) -> bool:
        try:
            return self.cluster.admin.all("tenants") == []
        except PBClusterError:
            return False


class OtherFaults(SynchronousTestCase):
    """Node, gateway and S3."""

    def test_ways_of_node_gateway_and_s3(self) -> None:
        """A tenant answers through proxies. The gateway cut from its node passes nothing on; a node
        cut from the members goes on by its proofs from S3, and cut from both answers nothing; with
        S3 frozen or away nothing is acknowledged. Healed, all goes on."""
        cluster = RealCluster(nodes=1, members=1, proxied=True)
        self.addCleanup(cluster.close)
        cluster.start()
        cluster.create_tenant("shop", "me@example.com", "long enough")

        def health(timeout_s: float) -> int:
            return cluster.ask_tenant("shop", "GET", "/api/health", timeout_s=timeout_s).status

        def answers() -> bool:
            try:
                return health(POLL_WAITS_S) == 200
            except PBClusterError:
                return False

        for fault in (cluster.net.cut, cluster.net.blackhole):
            self.assertEqual(health(CLIENT_WAITS_S), 200)
            fault("gateway_1", "node_1")
            cluster.wait_until(lambda: not answers(), "silence", 15.0)
            cluster.net.heal_all()
            cluster.wait_until(answers, "gateway_1 to reach node_1 again", 30.0)
            fault("node_1", "member_1")
            time.sleep(LEASE_PROOF_S + 0.2)
            self.assertEqual(health(CLIENT_WAITS_S), 200)
            fault("node_1", "s3_1")
            cluster.wait_until(lambda: not answers(), "silence", 15.0)
            cluster.net.heal_all()
            cluster.wait_until(answers, "node_1 to have a proof again", 30.0)
        self.s3_is_away(cluster)

    def s3_is_away(self, cluster: RealCluster) -> None:
        def write(timeout_s: float) -> int:
            body = b'{"identity":"me@example.com","password":"long enough"}'
            path = "/api/collections/_superusers/auth-with-password"
            headers = {"Content-Type": "application/json"}
            return cluster.ask_tenant(
                "shop", "POST", path, headers=headers, body=body, timeout_s=timeout_s
            ).status

        def writes() -> bool:
            try:
                return write(POLLED_WRITE_WAITS_S) == 200
            except PBClusterError:
                return False

        self.assertEqual(write(CLIENT_WAITS_S), 200)
        for away in (cluster.freeze_s3, cluster.stop_s3):
            away()
            self.assertFalse(writes())
            cluster.start_s3()
            cluster.wait_until(writes, "writes again", 30.0)
