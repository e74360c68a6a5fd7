"""Bytes from outside: nothing but a sound message for this member gets in."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.errors import RemoteProtocolError
from pbcluster.raft import ConfState, Entry, EntryKind, SnapshotMeta
from pbcluster.raft import messages as m
from pbcluster.raft.frames import MAGIC, MAX_FRAME_BYTES, MAX_SENDERS, Frame, Guard, decode, encode

META = SnapshotMeta(9, 2, ConfState(("a", "b")), 4, 77)
SAMPLES: list[m.AnyMessage] = [
    m.VoteRequest("a", "b", 3, 7, 2, pre=True),
    m.VoteReply("a", "b", 3, True),
    m.Append("a", "b", 3, 7, 2, 7, (Entry(8, 2, EntryKind.COMMAND, b"x"), Entry(9, 3))),
    m.AppendReply("a", "b", 3, 9, True, 8, 2),
    m.Heartbeat("a", "b", 3, 7, 1),
    m.HeartbeatReply("a", "b", 3, 1),
    m.SnapshotChunk("a", "b", 3, META, 2, b"yz"),
    m.SnapshotReply("a", "b", 3, 9, 4),
    m.TimeoutNow("a", "b", 3),
    m.ReadRequest("a", "b", 3, 1 << 33),
    m.ReadReply("a", "b", 3, 1 << 33, 9),
]


def frame(message: m.AnyMessage, cluster: str = "c1", incarnation: int = 5) -> bytes:
    return encode(Frame(cluster, incarnation, message))


class DecodeTests(SynchronousTestCase):
    def test_every_message_survives(self) -> None:
        """Encoded and decoded it is the same."""
        for message in SAMPLES:
            self.assertEqual(decode(frame(message)).message, message)

    def test_a_message_of_a_newer_member_is_read(self) -> None:
        """Fields appended later are left out, fields missing at an older one get their defaults."""
        newer = MAGIC + msgspec.msgpack.encode(["c1", 5, [5, "a", "b", 3, 7, 1, "later"], "more"])
        self.assertEqual(decode(newer).message, m.Heartbeat("a", "b", 3, 7, 1))
        older = MAGIC + msgspec.msgpack.encode(["c1", 5, [5, "a", "b", 3, 7]])
        self.assertEqual(decode(older).message, m.Heartbeat("a", "b", 3, 7, 0))

    def test_too_large_is_refused_unread(self) -> None:
        """By its size alone."""
        self.assertRaises(RemoteProtocolError, decode, b"x" * (MAX_FRAME_BYTES + 1))

    def test_what_no_correct_member_sends(self) -> None:
        """Terms that fall, gaps, entries of the future, chunks beyond the end, no sender."""
        bad: list[m.AnyMessage] = [
            m.Append("a", "b", 3, 7, 2, 7, (Entry(9, 2),)),
            m.Append("a", "b", 3, 7, 2, 7, (Entry(8, 1),)),
            m.Append("a", "b", 3, 7, 2, 7, (Entry(8, 4),)),
            m.Append("a", "b", 3, 7, 2, 7, (Entry(8, 2, EntryKind.CONFIG, b"junk"),)),
            m.SnapshotChunk("a", "b", 3, META, 3, b"yz"),
            m.SnapshotChunk("a", "b", 3, SnapshotMeta(), 0, b""),
            m.Heartbeat("", "b", 3, 7),
            m.Heartbeat("a", "", 3, 7),
            m.Heartbeat("a", "b", 0, 7),
        ]
        for message in bad:
            self.assertRaises(RemoteProtocolError, decode, frame(message))

    def test_numbers_out_of_range(self) -> None:
        """Negative or enormous ones are no indexes."""
        for number in (-1, 2**63):
            data = MAGIC + msgspec.msgpack.encode(["c1", 5, [5, "a", "b", 3, number, 1]])
            self.assertRaises(RemoteProtocolError, decode, data)

    @given(st.binary(max_size=200))
    def test_junk_is_refused_and_nothing_else_happens(self, data: bytes) -> None:
        """With or without the right magic."""
        for junk in (data, MAGIC + data):
            try:
                decode(junk)
            except RemoteProtocolError:
                continue

    @given(st.sampled_from(SAMPLES), st.data())
    def test_a_damaged_frame_is_refused_or_sound(
        self, message: m.AnyMessage, data: st.DataObject
    ) -> None:
        """Cut short, or with a byte changed, it never raises anything else."""
        whole = bytearray(frame(message))
        position = data.draw(st.integers(0, len(whole) - 1))
        whole[position] = data.draw(st.integers(0, 255))
        for damaged in (bytes(whole), bytes(whole[:position])):
            try:
                decode(damaged)
            except RemoteProtocolError:
                continue


class GuardTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.guard = Guard("c1", "b")

    def test_a_sound_message_is_admitted(self) -> None:
        """From the sender that the transport knows."""
        message = SAMPLES[0]
        self.assertEqual(self.guard.admit(frame(message), "a"), message)
        self.assertEqual(self.guard.dropped, {})

    def test_everything_else_is_counted_by_reason(self) -> None:
        """Junk, other clusters, false senders, other recipients, earlier lives."""
        message = SAMPLES[4]
        self.guard.admit(frame(message, incarnation=5), "a")
        self.assertIsNone(self.guard.admit(b"junk", "a"))
        self.assertIsNone(self.guard.admit(frame(message, cluster="c2"), "a"))
        self.assertIsNone(self.guard.admit(frame(message), "x"))
        self.assertIsNone(self.guard.admit(frame(m.Heartbeat("a", "z", 3, 7)), "a"))
        self.assertIsNone(self.guard.admit(frame(message, incarnation=4), "a"))
        self.assertIsNotNone(self.guard.admit(frame(message, incarnation=6), "a"))
        self.assertIsNone(self.guard.admit(frame(message, incarnation=5), "a"))
        self.assertEqual(
            self.guard.dropped,
            {
                "junk": 1,
                "wrong_cluster": 1,
                "wrong_sender": 1,
                "wrong_recipient": 1,
                "stale_incarnation": 2,
            },
        )

    def test_what_it_remembers_is_bounded(self) -> None:
        """However many senders there are."""
        for number in range(MAX_SENDERS + 50):
            sender = f"m{number}"
            self.guard.admit(frame(m.TimeoutNow(sender, "b", 3)), sender)
        self.assertEqual(len(self.guard._incarnations), MAX_SENDERS)
