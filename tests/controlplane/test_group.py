"""What a member's settings say of the members, itself included."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.config import MemberConfig
from pbcluster.controlplane.group import told_of
from pbcluster.records import MemberRecord

OWN = MemberRecord("m1", "tcp://0.0.0.0:1", "tcp://10.0.0.5:2", "tcp://10.0.0.5:3", "http://h:4")


class ToldTests(SynchronousTestCase):
    def told(self, **settings: tuple[str, ...]) -> dict[str, MemberRecord]:
        here = Path("x")
        config = MemberConfig(
            id="m1", cluster_id="c", data_dir=here, secrets_file=here, peers_file=here, **settings
        )
        return told_of(config, OWN, lambda member: f"key of {member}")

    def test_where_it_listens_or_what_it_advertises(self) -> None:
        """What is advertised goes before the address of its own listener; the rest stays. Of an
        address that nobody can connect to nobody is told."""
        self.assertEqual(self.told(), {})
        found = self.told(advertise=("raft=tcp://10.0.0.5:7000", "admin=http://cp1:8095"))["m1"]
        self.assertEqual(
            (found.raft, found.requests, found.broadcasts, found.admin),
            ("tcp://10.0.0.5:7000", OWN.requests, OWN.broadcasts, "http://cp1:8095"),
        )

    def test_others(self) -> None:
        """A member of which all four addresses are known is told of; any other is not."""
        four = {
            "raft_peers": ("tcp://h:1#m2", "tcp://h:5#m3"),
            "request_peers": ("tcp://h:2#m2",),
            "broadcast_peers": ("tcp://h:3#m2",),
            "admin_peers": ("http://h:4#m2",),
        }
        other = MemberRecord("m2", "tcp://h:1", "tcp://h:2", "tcp://h:3", "http://h:4", "key of m2")
        self.assertEqual(self.told(**four), {"m2": other})
