"""What nodes ask of a member: to be registered, leases, and who may say what."""

from typing import Any, cast

from twisted.internet.defer import Deferred

from pbcluster import wire
from pbcluster.controlplane import commands as c
from pbcluster.controlplane.executor import utc_now
from pbcluster.errors import (
    Forbidden,
    InvalidInput,
    NotFound,
    NotLeader,
    RemoteProtocolError,
    WrongEpoch,
)
from pbcluster.records import NodeStatus
from tests.controlplane.request_case import T1, RequestCase


class TestNodes(RequestCase):
    def test_a_node_speaks_for_itself_only(self) -> None:
        """Another's name in the message is forbidden, and so is another role."""
        lease = wire.Lease("node_a", 1, 0)
        self.refusal(Forbidden, "node_b", lease)
        self.assertIn("gateway", self.refusal(Forbidden, "node_a", lease, role="gateway"))
        self.answer("node_a", lease, role="node")

    def test_who_was_removed_is_told_so(self) -> None:
        """Whatever it asks, by its key as by its id, of any member."""
        self.renewing.discard("node_b")
        removal = c.RemoveProcess(utc_now(), "node_b", "node")
        Deferred.fromCoroutine(self.world.consensus.propose(removal))
        self.run_for(0.1)
        for body in (wire.ListMembers(), wire.Lease("node_b", 1, 0), wire.LookupRoute(name="t0")):
            for role in ("", "node", "removed"):
                told = self.refusal(Forbidden, "node_b", body, role=role)
                self.assertIn("was removed", told)
        self.refusal(Forbidden, "gateway_9", wire.ListMembers(), role="removed")
        self.answer("node_a", wire.ListMembers(), role="node")

    def test_a_registration_is_checked_field_by_field(self) -> None:
        """Each wrong field is named."""
        good = ("node_c", "s1", "http://127.0.0.1:1", 5)
        for position, value, field in (
            (1, "", "start_id"),
            (1, "x" * 201, "start_id"),
            (2, "ftp://x", "address"),
            (2, "http://", "address"),
            (3, 0, "capacity"),
            (3, 10_001, "capacity"),
        ):
            wrong = [*good[:position], value, *good[position + 1 :]]
            body = wire.RegisterNode(*cast(Any, wrong))
            self.assertIn(field, self.refusal(InvalidInput, "node_c", body, key="k"))
        self.assertRaises(NotFound, self.world.registry.node, "node_c")

    def test_a_repeated_registration_is_one(self) -> None:
        """The same key, and the same start under another key, give the same incarnation."""
        body = wire.RegisterNode("node_c", "s1", "http://127.0.0.1:1", 5)
        answers = [self.answer("node_c", body, key=key) for key in ("k1", "k1", "k2")]
        self.assertEqual({wire.expect(a, wire.Registered).incarnation for a in answers}, {1})

    def test_a_lease_of_an_older_incarnation_is_refused(self) -> None:
        """The old process gets no proof from the moment the new one is registered."""
        self.renewing.discard("node_a")
        self.assertEqual(self.register("node_a", "s2").incarnation, 2)
        self.refusal(WrongEpoch, "node_a", wire.Lease("node_a", 1, 0))
        self.assertTrue(self.lease("node_a", 2).granted)

    def test_a_lease_that_cannot_be_confirmed_is_a_sign_of_life(self) -> None:
        """While nothing is confirmed its node gets no proof, and is not suspected either; as soon
        as it is silent it is."""

        async def never(*, patient: bool = False) -> None:
            await Deferred()

        self.renewing.clear()
        self.patch(self.world.consensus, "read_barrier", never)
        liveness = self.world.liveness
        for _ in range(8):
            asked = self.ask("node_a", wire.Lease("node_a", 1, 0), timeout_s=10.0)
            self.run_for(0.4)
            self.assertNoResult(asked)
            self.assertTrue(liveness.alive("node_a"))
        self.assertFalse(liveness.alive("node_b"))
        self.run_for(2.0)
        self.assertFalse(liveness.alive("node_a"))

    def test_an_unknown_node_is_told_so(self) -> None:
        """Its lease is answered with not found: it must register."""
        self.refusal(NotFound, "node_z", wire.Lease("node_z", 1, 0))

    def test_the_list_comes_with_the_lease_when_it_is_behind(self) -> None:
        """And only then."""
        self.place()
        owner = self.tenant.node_id
        body = wire.Lease(owner, 1, -1)
        ack = wire.expect(self.answer(owner, body), wire.LeaseAck)
        assert ack.assignments is not None
        self.assertEqual([a.tenant_id for a in ack.assignments.assignments], [T1])
        self.assertEqual(ack.assignments.index, ack.assignments_index)
        self.assertIsNone(self.lease(owner).assignments)

    def test_a_drained_node_gets_nothing_new(self) -> None:
        """Capacity and drain state are committed; the other node gets the tenant."""
        drain = wire.NodeCapacity("node_a", 1, 3, draining=True)
        self.answer("node_a", drain, key="k")
        self.assertEqual(self.world.registry.node("node_a").status, NodeStatus.DRAINING)
        self.assertEqual(self.world.registry.node("node_a").capacity, 3)
        self.assertEqual(self.place().node_id, "node_b")
        self.refusal(InvalidInput, "node_a", wire.NodeCapacity("node_a", 1, 0, False), key="k2")

    def test_what_members_do_not_answer_is_refused(self) -> None:
        """As a fault of the asker."""
        self.refusal(RemoteProtocolError, "g", wire.Ok())
        self.refusal(RemoteProtocolError, "node_a", wire.Lease("node_a", 1, 0), key="k" * 201)

    def test_only_the_leader_answers_what_decides(self) -> None:
        """The others name it."""
        self.renewing.clear()
        self.patch(self.world.consensus, "_led_term", 0)
        asked = self.ask("node_a", wire.Lease("node_a", 1, 0))
        self.run_for(1.0)  # it waits for an election first
        self.failureResultOf(asked, NotLeader)
