"""Frames from outside: what is no envelope is refused, what is one comes back whole."""

import contextlib

from hypothesis import given, settings
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

    def test_an_envelope_of_an_older_process_is_read(self) -> None:
        """It says nothing of bundles, so it gets none."""
        import msgspec

        raw = msgspec.msgpack.decode(wire.encode(envelope(wire.Ok()))[4:])
        self.assertEqual(len(raw), 7)
        found = wire.decode(wire.MAGIC + msgspec.msgpack.encode(raw[:6]))
        self.assertEqual(found, envelope(wire.Ok()))
        self.assertFalse(found.bundles)


class Bundles(SynchronousTestCase):
    def frames(self, count: int) -> list[bytes]:
        lease = wire.LeaseAck(True, 5)
        return [
            wire.encode(wire.Envelope("c", "m", number, 0, "", lease)) for number in range(count)
        ]

    def test_round_trip(self) -> None:
        """What was put in comes out in its order; one alone stays an ordinary frame."""
        for count in (2, 15, 16, wire.MAX_BUNDLED):
            frames = self.frames(count)
            found = wire.decode_bundle(wire.bundle(frames))
            self.assertEqual([wire.encode(each) for each in found], frames)
        self.assertEqual(wire.bundle(self.frames(1)), self.frames(1)[0])

    def test_the_largest_that_may_be_made_may_be_read(self) -> None:
        """As many as allowed, each as large as allowed."""
        key = "k" * (wire.MAX_BUNDLED_BYTES - len(wire.encode(envelope(wire.Ok()))) + 1)
        frame = wire.encode(wire.Envelope("cluster", "node_1", 7, 500, key, wire.Ok()))
        self.assertEqual(len(frame), wire.MAX_BUNDLED_BYTES)
        found = wire.decode_bundle(wire.bundle([frame] * wire.MAX_BUNDLED))
        self.assertEqual(len(found), wire.MAX_BUNDLED)

    def test_what_is_refused(self) -> None:
        """Too large, another version, a frame that is none, no list, an empty one, too long."""
        good = wire.bundle(self.frames(3))
        limit = wire.MAX_BUNDLED * wire.MAX_BUNDLED_BYTES
        for bad, why in (
            (good + bytes(limit), "are allowed"),
            (b"PBB\x02" + good[4:], "magic"),
            (self.frames(1)[0], "magic"),
            (good[:-1], "no bundle"),
            (good + b"\xc0", "no bundle"),
            (wire.BUNDLE_MAGIC + b"\xc0", "no bundle"),
            (wire.BUNDLE_MAGIC + b"\x90", "length >= 1"),
            (wire.BUNDLE_MAGIC + b"\x91" * 200_000 + b"\xc0", "no bundle"),
            (wire.bundle(self.frames(wire.MAX_BUNDLED + 1)), "length <= 64"),
            # By its length alone: nothing of it is there.
            (wire.BUNDLE_MAGIC + b"\xdd\xff\xff\xff\xff", "length <= 64"),
        ):
            with self.subTest(why=why, begin=bad[:8]):
                error = self.assertRaises(RemoteProtocolError, wire.decode_bundle, bad)
                self.assertIn(why, str(error))
        error = self.assertRaises(RemoteProtocolError, wire.decode, good)
        self.assertIn("magic", str(error))

    def test_what_cannot_be_read_takes_nothing_with_it(self) -> None:
        """A kind of the future, or what is no envelope at all, leaves the others."""
        import msgspec

        first, second = self.frames(2)
        raw = msgspec.msgpack.decode(first[4:])
        raw[5][0] = "AKindOfTheFuture"
        for unknown in (msgspec.msgpack.encode(raw), b"\xc0", b"\x91" * 500 + b"\xc0"):
            found = wire.decode_bundle(wire.bundle([first, b"1234" + unknown, second]))
            self.assertEqual(found, [wire.decode(first), None, wire.decode(second)])

    @settings(max_examples=300, deadline=None)
    @given(st.binary(max_size=200), st.integers(0, 120))
    def test_noise(self, noise: bytes, at: int) -> None:
        """No bytes whatever raise anything else."""
        good = wire.bundle(self.frames(3))
        for frame in (wire.BUNDLE_MAGIC + noise, good[:at] + noise + good[at + 1 :]):
            with contextlib.suppress(RemoteProtocolError):
                wire.decode_bundle(frame)
