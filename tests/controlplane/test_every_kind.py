"""Every kind of frame at the request door of a member, with any content, whole and damaged."""

from typing import Any, get_args

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster import wire
from pbcluster.transport.serving import ServingSide
from tests.controlplane.lease_world import World

KINDS = get_args(wire.Body)
#: Words that mean something to the member, beside any others.
WORDS = ("node_0", "node_1", "gateway_1", "member_1", "tenant_00000000", "t0", "t0.localhost")
CLUSTER = "cluster_1"
ROLES = ("", "node", "gateway", "member", "former")


def of_type(info: Any, depth: int = 0) -> st.SearchStrategy[Any]:
    """Any value of a type, as msgspec sees it."""
    i = msgspec.inspect
    plain = {
        i.StrType: st.one_of(st.sampled_from(WORDS), st.text(max_size=20)),
        i.IntType: st.one_of(st.integers(-2, 5), st.integers(-(2**63), 2**63 - 1)),
        i.FloatType: st.floats(),
        i.BoolType: st.booleans(),
        i.BytesType: st.binary(max_size=40),
        i.NoneType: st.none(),
        i.DateTimeType: st.datetimes(timezones=st.timezones()),
        i.AnyType: st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.text(max_size=5)),
    }
    if type(info) in plain:
        return plain[type(info)]
    if isinstance(info, i.EnumType):
        return st.sampled_from(info.cls)
    if isinstance(info, i.UnionType):
        return st.one_of(*(of_type(each, depth) for each in info.types))
    if isinstance(info, i.VarTupleType | i.ListType | i.SetType | i.FrozenSetType):
        kind = tuple if isinstance(info, i.VarTupleType) else list
        if depth > 3:
            return st.just(kind())
        return st.lists(of_type(info.item_type, depth + 1), max_size=3).map(kind)
    if isinstance(info, i.TupleType):
        return st.tuples(*(of_type(each, depth + 1) for each in info.item_types))
    if isinstance(info, i.DictType):
        keys, values = of_type(info.key_type, depth + 1), of_type(info.value_type, depth + 1)
        return st.dictionaries(keys, values, max_size=3)
    assert isinstance(info, i.StructType), info
    fields = {field.name: of_type(field.type, depth + 1) for field in info.fields}
    return st.fixed_dictionaries(fields).map(lambda given: info.cls(**given))


ENVELOPES = st.sampled_from(KINDS).flatmap(
    lambda kind: st.builds(
        wire.Envelope,
        st.just(CLUSTER),
        st.sampled_from(("node_0", "gateway_1", "member_1", "stranger")),
        st.integers(0, 2**40),
        st.integers(-1, 5000),
        st.sampled_from(("", "k1", "k2", "k" * 300)),
        of_type(msgspec.inspect.type_info(kind)),
    )
)


class EveryKind(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World(7, nodes=2, tenants=1)
        self.addCleanup(self.world.close)
        self.sent: list[wire.Envelope] = []
        self.side = ServingSide(self.world.clock, CLUSTER, "member_1", self.send)
        self.side.start(self.world.requests)
        self.addCleanup(self.side.stop)

    def send(self, session: bytes, frame: bytes) -> bool:
        self.sent.append(wire.decode(frame))
        return True

    def frame(self, sender: str, data: bytes, role: str = "") -> None:
        self.side.frame(f"{sender}.x".encode(), [data], None, role)
        self.world.run_for(0.1)

    def still_answers(self) -> None:
        self.world.run_for(6.0)
        self.sent.clear()
        # The frames may have spoken as a node that let its tenant go: an answer is what counts.
        for number, body in enumerate((wire.ListMembers(), wire.LookupRoute("t0"))):
            # Odd ids are questions, even ones answers to ours.
            envelope = wire.Envelope(CLUSTER, "gateway_1", 2**41 + 1 + 2 * number, 2000, "", body)
            self.frame("gateway_1", wire.encode(envelope), "gateway")
        self.world.run_for(3.0)
        members, route = (each.body for each in self.sent if each.request_id >= 2**41)
        self.assertIsInstance(members, wire.Members)
        refused = isinstance(route, wire.ErrorReply) and route.code == "not_found"
        self.assertTrue(refused or isinstance(route, wire.RouteFound), route)

    @settings(max_examples=150)
    @given(st.data())
    def hold(self, data: st.DataObject) -> None:
        envelope = data.draw(ENVELOPES)
        try:
            frame = wire.encode(envelope)
        except (ValueError, OverflowError, TypeError):
            return  # what has no encoding cannot come
        cut = data.draw(st.integers(0, 3))
        if cut == 1:
            frame = frame[: data.draw(st.integers(0, len(frame)))]
        elif cut == 2:
            at = data.draw(st.integers(0, len(frame) - 1))
            frame = (
                frame[:at] + bytes([frame[at] ^ data.draw(st.integers(1, 255))]) + frame[at + 1 :]
            )
        self.frame(envelope.sender, frame, data.draw(st.sampled_from(ROLES)))

    def test_nothing_brings_a_member_down(self) -> None:
        """No frame makes a handler fail by anything but an error that it means (trial counts what
        is logged as a failure), and a question is answered afterwards."""
        self.hold()
        self.still_answers()


class Types(SynchronousTestCase):
    def test_every_kind_can_be_made(self) -> None:
        """A kind that is added to the wire is thrown at the door, too."""
        for kind in KINDS:
            of_type(msgspec.inspect.type_info(kind))
