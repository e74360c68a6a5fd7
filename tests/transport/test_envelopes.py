"""Frames at the border."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster import wire
from pbcluster.errors import LocalProtocolError, TooLarge
from pbcluster.transport.envelopes import LOG_INTERVAL_S, FrameChecks, Junk, seal
from tests.transport.bodies import CLUSTER, envelope


class Checks(SynchronousTestCase):
    def setUp(self) -> None:
        self.lines: list[str] = []
        self.checks = FrameChecks(CLUSTER, self.lines.append)

    def refused(self, *parts: bytes, proven: str | None = None) -> Junk:
        before = self.checks.counts.copy()
        self.assertIsNone(self.checks.open(parts, proven, 0.0))
        (cause,) = self.checks.counts - before
        return cause

    def test_good_frame(self) -> None:
        """A frame of our cluster and of its proven sender comes through unchanged."""
        sent = envelope()
        self.assertEqual(self.checks.open([seal(sent)], "node_a", 0.0), sent)
        self.assertEqual(self.checks.open([seal(sent)], None, 0.0), sent)
        self.assertFalse(self.checks.counts)

    def test_causes(self) -> None:
        """Each kind of junk is refused and counted under its own cause."""
        good = seal(envelope())
        self.assertIs(self.refused(), Junk.PARTS)
        self.assertIs(self.refused(good, b""), Junk.PARTS)
        self.assertIs(self.refused(good + bytes(wire.MAX_FRAME_BYTES)), Junk.SIZE)
        self.assertIs(self.refused(b"PBC\x02" + good[4:]), Junk.MAGIC)
        self.assertIs(self.refused(good[:-1]), Junk.MALFORMED)
        self.assertIs(self.refused(seal(envelope(cluster_id="other"))), Junk.CLUSTER)
        self.assertIs(self.refused(seal(envelope(sender=""))), Junk.SENDER)
        self.assertIs(self.refused(seal(envelope(sender="n" * 64))), Junk.SENDER)
        self.assertIs(self.refused(good, proven="node_b"), Junk.SENDER)
        self.assertIs(self.refused(good, proven=""), Junk.SENDER)

    def test_bundles(self) -> None:
        """A bundle is good as a whole; any other frame gives one envelope, junk none."""
        sent = [envelope(request_id=number) for number in (1, 3, 5)]
        frames = [seal(each) for each in sent]
        self.assertEqual(self.checks.open_all([wire.bundle(frames)], "node_a", 0.0), sent)
        self.assertEqual(self.checks.open_all(frames[:1], "node_a", 0.0), (sent[0],))
        self.assertFalse(self.checks.counts)
        self.assertFalse(self.checks.open_all([b"junk"], "node_a", 0.0))
        self.assertFalse(self.checks.open_all([], "node_a", 0.0))
        self.assertEqual(self.checks.counts, {Junk.MAGIC: 1, Junk.PARTS: 1})

    def test_each_of_a_bundle_is_checked(self) -> None:
        """What is bad is counted by its own cause and not acted on, as if it had come alone."""
        good = envelope()
        frame = seal(good)
        for bad, cause in (
            (seal(envelope("node_b")), Junk.SENDER),
            (seal(envelope("")), Junk.SENDER),
            (seal(envelope(cluster_id="other")), Junk.CLUSTER),
            (frame[:4] + b"\xc0", Junk.MALFORMED),
        ):
            before = self.checks.counts.copy()
            found = self.checks.open_all([wire.bundle([frame, bad, frame, bad])], "node_a", 0.0)
            self.assertEqual(found, [good, None, good, None])
            self.assertEqual(self.checks.counts - before, {cause: 2})

    def test_a_bundle_that_is_none(self) -> None:
        """It counts as one frame: by its size before anything is decoded, or as malformed."""
        frame = wire.bundle([seal(envelope())] * 2)
        for bad, cause in (
            (frame + bytes(wire.MAX_BUNDLE_BYTES), Junk.SIZE),
            (frame[:-1], Junk.MALFORMED),
        ):
            before = self.checks.counts.copy()
            self.assertFalse(self.checks.open_all([bad], "node_a", 0.0))
            self.assertEqual(self.checks.counts - before, {cause: 1})
        small = FrameChecks(CLUSTER, self.lines.append, max_bytes=len(frame) - 1)
        self.assertFalse(small.open_all([frame], "node_a", 0.0))
        self.assertEqual(small.counts, {Junk.SIZE: 1})

    def test_a_bundle_is_no_broadcast(self) -> None:
        """Where one message is expected a bundle is junk."""
        self.assertIs(self.refused(wire.bundle([seal(envelope())] * 2)), Junk.MAGIC)

    def test_size_is_checked_before_anything_is_decoded(self) -> None:
        """An oversized frame is refused by its size, whatever it holds."""
        body = wire.ErrorReply("x", "y" * wire.MAX_FRAME_BYTES)
        frame = wire.encode(envelope(body=body))
        self.assertIs(self.refused(frame), Junk.SIZE)

    def test_log_at_most_once_a_minute(self) -> None:
        """A thousand junk frames make one line; the next comes after the interval, summed up."""
        for _ in range(1000):
            self.checks.open([b"junk"], None, 5.0)
        self.assertEqual(len(self.lines), 1)
        self.checks.open([b"junk"], None, 5.0 + LOG_INTERVAL_S - 0.1)
        self.assertEqual(len(self.lines), 1)
        self.checks.open([b"junk"], None, 5.0 + LOG_INTERVAL_S)
        self.assertEqual(len(self.lines), 2)
        self.assertIn("1001 unusable", self.lines[1])
        self.assertIn("magic: 1002", self.lines[1])

    def test_what_is_too_large_does_not_leave(self) -> None:
        """A body over the bound is refused where it is made, not at the other side."""
        body = wire.ErrorReply("x", "y" * wire.MAX_FRAME_BYTES)
        self.assertRaises(TooLarge, seal, envelope(body=body))

    def test_what_has_no_encoding_does_not_leave(self) -> None:
        """An error's data that cannot be encoded is named as our own bug."""
        body = wire.ErrorReply("x", "y", {"what": object()})
        self.assertRaises(LocalProtocolError, seal, envelope(body=body))

    @settings(max_examples=300, deadline=None)
    @given(st.binary(max_size=200), st.booleans())
    def test_random_bytes(self, noise: bytes, with_magic: bool) -> None:
        """No bytes whatever raise; they are refused."""
        frame = wire.MAGIC + noise if with_magic else noise
        self.assertIsNone(FrameChecks(CLUSTER, self.lines.append).open([frame], None, 0.0))

    @settings(max_examples=300, deadline=None)
    @given(st.data())
    def test_damaged_frames(self, data: st.DataObject) -> None:
        """A good frame with bytes changed, cut or inserted never raises, nor is it taken for
        another sender's."""
        frame = bytearray(seal(envelope(body=wire.ErrorReply("x", "y", {"a": [1, {"b": None}]}))))
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(frame) - 1))
            frame[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
            if not frame:
                break
        checks = FrameChecks(CLUSTER, self.lines.append)
        found = checks.open([bytes(frame)], "node_a", 0.0)
        self.assertEqual(found is None, sum(checks.counts.values()) == 1)
        if found is not None:
            self.assertEqual((found.cluster_id, found.sender), (CLUSTER, "node_a"))

    def test_deep_nesting(self) -> None:
        """A frame nested deeper than the interpreter's stack is junk, not a crash."""
        deep = wire.MAGIC + b"\x96\xa1c\xa1s\x01\x01\xa0\x94\xaaErrorReply\xa1x\xa1y\x81\xa1k"
        self.assertIs(self.refused(deep + b"\x91" * 200_000 + b"\xc0"), Junk.MALFORMED)
