"""Frames from outside: what is no envelope is refused, what is one comes back whole."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster import wire
from pbcluster.errors import NotFound, RemoteProtocolError
from pbcluster.records import Durability, InitialSuperuser


def an_assignment(number: int) -> wire.Assignment:
    return wire.Assignment(
        f"tenant_{number:08}",
        number,
        f"t{number}",
        (f"t{number}.localhost",),
        True,
        Durability.SYNC,
        True,
        initial_superuser=InitialSuperuser(email="a@b.c", password_hash="$2b$10$x"),
    )


def envelope(body: wire.Body) -> wire.Envelope:
    return wire.Envelope("cluster", "node_1", 7, 500, "key", body)


class WireTests(SynchronousTestCase):
    def test_round_trip(self) -> None:
        """An envelope with nested structs reads back equal."""
        owned = wire.NodeAssignments("node_1", 3, 99, tuple(map(an_assignment, range(3))))
        changes = wire.AssignmentChanges(
            "node_1", 3, 99, (4,), 5, (an_assignment(1),), ("tenant_x",)
        )
        for body in (wire.Ok(), owned, changes, wire.LeaseAck(True, 99, ("tenant_x",), owned)):
            self.assertEqual(wire.decode(wire.encode(envelope(body))), envelope(body))

    def test_a_full_node_fits_one_frame(self) -> None:
        """200 assignments with their names and first logins stay below the frame's bound."""
        owned = wire.NodeAssignments("node_1", 3, 99, tuple(map(an_assignment, range(200))))
        self.assertLess(len(wire.encode(envelope(owned))), wire.MAX_FRAME_BYTES)

    def test_size_is_checked_first(self) -> None:
        """A frame over its bound is refused whatever it holds."""
        frame = wire.encode(envelope(wire.Ok()))
        with self.assertRaisesRegex(RemoteProtocolError, "bytes"):
            wire.decode(frame, max_bytes=len(frame) - 1)

    def test_other_version(self) -> None:
        """A frame of another protocol version is refused by its magic."""
        frame = b"PBC\x02" + wire.encode(envelope(wire.Ok()))[4:]
        with self.assertRaisesRegex(RemoteProtocolError, "magic"):
            wire.decode(frame)

    @given(st.binary(max_size=200))
    def test_junk_is_refused_with_one_error(self, junk: bytes) -> None:
        """Any bytes at all end in RemoteProtocolError, with or without the magic."""
        for frame in (junk, wire.MAGIC + junk):
            self.assertRaises(RemoteProtocolError, wire.decode, frame)

    @given(st.integers(min_value=0), st.integers(min_value=0, max_value=255))
    def test_damage_never_escapes(self, place: int, value: int) -> None:
        """A damaged or truncated frame is refused or decodes; nothing else is raised."""
        whole = wire.encode(envelope(wire.LeaseAck(True, 5, ("tenant_a", "tenant_b"))))
        at = place % len(whole)
        for frame in (whole[:at] + bytes([value]) + whole[at + 1 :], whole[:at]):
            try:
                wire.decode(frame)
            except RemoteProtocolError:
                continue

    def test_expect_raises_what_the_other_side_answered(self) -> None:
        """An error reply is raised as the error it carries."""
        with self.assertRaisesRegex(NotFound, "no tenant"):
            wire.expect(wire.ErrorReply("not_found", "no tenant 'x'"), wire.Ok)

    def test_expect_refuses_another_kind(self) -> None:
        """An answer of the wrong kind is a protocol error, not a surprise later."""
        self.assertRaises(RemoteProtocolError, wire.expect, wire.Ok(), wire.RouteFound)

    def test_appended_fields_are_ignored_by_older_readers(self) -> None:
        """An older process reads a newer one's message: extra array items do no harm."""
        import msgspec

        raw = msgspec.msgpack.decode(wire.encode(envelope(wire.Ok()))[4:])
        raw[5].append("a field of the future")
        frame = wire.MAGIC + msgspec.msgpack.encode([*raw, "and another"])
        self.assertEqual(wire.decode(frame), envelope(wire.Ok()))

    def test_a_kind_of_the_future_is_refused(self) -> None:
        """An older process does not take a kind that it does not know for one that it knows."""
        import msgspec

        raw = msgspec.msgpack.decode(wire.encode(envelope(wire.Ok()))[4:])
        raw[5][0] = "AKindOfTheFuture"
        frame = wire.MAGIC + msgspec.msgpack.encode(raw)
        self.assertRaises(RemoteProtocolError, wire.decode, frame)
