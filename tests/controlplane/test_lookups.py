"""What gateways ask of a member: routes, what they missed, who the members are."""

from pbcluster import wire
from pbcluster.errors import NoCapacity, NotFound, RemoteProtocolError, Unavailable
from pbcluster.records import MemberRecord
from tests.controlplane.request_case import T1, RequestCase


class TestLookups(RequestCase):
    def test_unknown_and_ambiguous(self) -> None:
        """An unknown tenant is not found; a look-up names one key."""
        self.refusal(NotFound, "g", wire.LookupRoute(name="nobody", place=True))
        self.refusal(NotFound, "g", wire.LookupRoute(domain="x.example.org"))
        self.refusal(RemoteProtocolError, "g", wire.LookupRoute())
        self.refusal(RemoteProtocolError, "g", wire.LookupRoute(tenant_id=T1, name="t0"))

    def test_a_look_up_without_placing_places_nothing(self) -> None:
        """A tenant without a node has no route."""
        self.refusal(NotFound, "g", wire.LookupRoute(name="t0"))
        self.assertEqual(self.tenant.node_id, "")

    def test_it_waits_for_a_newer_epoch(self) -> None:
        """Until it is applied, or until shortly before the asker's deadline."""
        self.place()
        self.run_for(2.1)
        asked = self.ask("g", wire.LookupRoute(tenant_id=T1, min_epoch=2))
        self.run_for(1.0)
        self.assertNoResult(asked)
        owner = self.tenant.node_id
        self.answer(owner, self.report(owner, "refused", observed_epoch=1), key="k")
        self.run_for(0.1)
        route = wire.expect(self.successResultOf(asked), wire.RouteFound).route
        self.assertEqual(route.epoch, 2)
        late = self.ask("g", wire.LookupRoute(tenant_id=T1, min_epoch=9), timeout_s=1.0)
        self.run_for(1.0)
        self.failureResultOf(late, Unavailable)

    def test_no_room_is_told_with_reasons(self) -> None:
        """Each node's."""
        for node_id in ("node_a", "node_b"):
            self.answer(node_id, wire.NodeCapacity(node_id, 1, 1, True), key=node_id)
        told = self.refusal(NoCapacity, "g", wire.LookupRoute(tenant_id=T1, place=True))
        self.assertIn("node_a is draining", told)

    def test_many_look_ups_make_one_assignment(self) -> None:
        """All who ask at once get the same epoch."""
        asked = [self.ask("g", wire.LookupRoute(name="t0", place=True)) for _ in range(20)]
        self.run_for(0.3)
        epochs = {wire.expect(self.successResultOf(a), wire.RouteFound).route.epoch for a in asked}
        self.assertEqual(epochs, {1})

    def test_a_snapshot_leaves_out_who_has_no_route(self) -> None:
        """And is bounded."""
        self.place()
        body = wire.SnapshotRequest((T1, "tenant_unknown1"))
        shot = wire.expect(self.answer("g", body), wire.Snapshot)
        self.assertEqual([route.tenant_id for route in shot.routes], [T1])
        self.assertEqual(shot.index, self.world.registry.applied_index)
        self.refusal(RemoteProtocolError, "g", wire.SnapshotRequest((T1,) * 1001))

    def test_members_are_told_by_any_member(self) -> None:
        """As of the index it applied; none until they are known. Nodes and gateways may ask."""
        self.renewing.clear()
        self.patch(self.world.consensus, "_led_term", 0)
        for sender, role in (("node_a", "node"), ("g", "gateway")):
            none = wire.expect(self.answer(sender, wire.ListMembers(), role=role), wire.Members)
            self.assertEqual(none, wire.Members(self.world.registry.applied_index, ()))
        record = MemberRecord(id="member_1", raft="r", requests="q", broadcasts="b", admin="a")
        self.world.registry.roster.put(record)
        other = MemberRecord(id="member_2", raft="s", requests="t", broadcasts="c", admin="d")
        self.world.registry.roster.put(other)  # known, but no member yet
        told = wire.expect(self.answer("g", wire.ListMembers()), wire.Members)
        self.assertEqual(told.members, (record,))
