"""Members that come and go in the transport without sockets."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from pbcluster.errors import ConfigError
from pbcluster.transport.addresses import MemberAddress
from pbcluster.wire import Probe
from tests.transport.test_memory import ACK, Case, Recorder


def addresses(*numbers: int) -> list[MemberAddress]:
    return [MemberAddress(f"memory://member_{n}", f"member_{n}") for n in numbers]


class Changes(Case):
    def test_added_and_removed(self) -> None:
        """What is under way at a removed member goes to an added one, which can ask back; the
        removed one is asked no more, also when it comes again."""
        held: list[Deferred[Any]] = []

        def hold(*_: Any) -> Deferred[Any]:
            held.append(Deferred())
            return held[-1]

        (former,) = self.members(Recorder(hold))
        client = self.client()
        asked = self.ask(client)
        self.assertEqual(len(held), 1)
        second = self.network.server("member_2")
        second.start(Recorder())
        client.set_members(addresses(2))
        self.network.settle()
        self.assertEqual(self.successResultOf(asked), ACK)
        probed = Deferred.fromCoroutine(second.ask("node_a", Probe(1), timeout_s=1.0))
        self.network.settle()
        self.successResultOf(probed)
        former.stop()
        former.start(Recorder(hold))
        second.stop()
        lost = self.ask(client, timeout_s=1.0)
        self.wait(1.1)
        self.failureResultOf(lost)
        self.assertEqual(len(held), 1)

    def test_nobody_left(self) -> None:
        """Is refused."""
        self.members(Recorder())
        client = self.client()
        self.assertRaises(ConfigError, client.set_members, [])
        self.assertEqual(self.successResultOf(self.ask(client)), ACK)
