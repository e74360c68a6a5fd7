"""The fuzzer of Raft frames: the door holds, and the fuzzer notices a door that does not."""

from __future__ import annotations

import random

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.raft import AnyMessage
from pbcluster.raft.frames import Frame, Guard, decode, encode
from pbcluster.raft.messages import Heartbeat
from pbcluster.testing import fuzz_frames
from pbcluster.testing.fuzz_frames import CLUSTER, MEMBER, SENDER, Unsound, fuzz, look


class DoorTests(SynchronousTestCase):
    def test_the_door_holds(self) -> None:
        """20,000 damaged frames: nothing is raised, every reason occurs, some are sound still."""
        seen = fuzz(1, frames=20_000)
        reasons = {"junk", "wrong_cluster", "wrong_sender", "wrong_recipient", "stale_incarnation"}
        self.assertEqual(set(seen), {"admitted", *reasons})
        self.assertEqual(sum(seen.values()), 20_000)
        self.assertGreater(min(seen.values()), 20)

    def test_the_same_seed_gives_the_same_frames(self) -> None:
        """And another one gives others."""
        self.assertEqual(fuzz(3, frames=2000), fuzz(3, frames=2000))
        self.assertNotEqual(fuzz(3, frames=2000), fuzz(4, frames=2000))

    def test_every_sample_is_sound(self) -> None:
        """Undamaged, each kind of message is admitted as it is."""
        for message in fuzz_frames.samples():
            guard = Guard(CLUSTER, MEMBER)
            self.assertEqual(look(guard, encode(Frame(CLUSTER, 1, message))), message)

    def test_a_version_of_the_future(self) -> None:
        """Another version in the magic is junk, whatever follows."""
        guard = Guard(CLUSTER, MEMBER)
        frame = encode(Frame(CLUSTER, 1, Heartbeat(SENDER, MEMBER, 3, 7)))
        for version in (0, 2, 255):
            self.assertIsNone(look(guard, frame[:3] + bytes([version]) + frame[4:]))
        self.assertEqual(guard.dropped, {"junk": 3})

    def test_a_replayed_frame(self) -> None:
        """The same frame again is admitted (the core is made for doubled messages), but not any
        more once its sender was started again."""
        guard = Guard(CLUSTER, MEMBER)
        beat = Heartbeat(SENDER, MEMBER, 3, 7)
        old = encode(Frame(CLUSTER, 4, beat))
        self.assertEqual([look(guard, old), look(guard, old)], [beat, beat])
        look(guard, encode(Frame(CLUSTER, 5, beat)))
        self.assertIsNone(look(guard, old))
        self.assertEqual(guard.dropped, {"stale_incarnation": 1})


class Careless(Guard):
    """A door that is bad in a chosen way."""

    def __init__(self, how: str) -> None:
        super().__init__(CLUSTER, MEMBER)
        self.how = how

    def admit(self, data: bytes, authenticated: str) -> AnyMessage | None:
        if self.how == "breaks":
            raise MemoryError
        if self.how == "counts nothing":
            return None
        return decode(data).message


class CarelessTests(SynchronousTestCase):
    def test_bad_doors_are_noticed(self) -> None:
        """One that raises, one that does not count, one that looks at no cluster or sender."""
        beat = Heartbeat(SENDER, MEMBER, 3, 7)
        foreign = encode(Frame("cluster_2", 1, beat))
        for how in ("breaks", "counts nothing", "lets in"):
            with self.assertRaises(Unsound):
                look(Careless(how), foreign)
        with self.assertRaisesRegex(Unsound, "was admitted"):
            look(
                Careless("lets in"),
                encode(Frame(CLUSTER, 1, Heartbeat("member_3", MEMBER, 3, 7))),
            )

    def test_every_mutation_works_on_every_length(self) -> None:
        """Also on an empty frame."""
        dice = random.Random(1)
        for mutation in set(fuzz_frames.MUTATIONS):
            for frame in (b"", b"x", fuzz_frames.valid_frame(dice)):
                mutation(dice, frame)

    def test_the_command(self) -> None:
        """It says how many were admitted and dropped; a failure is its exit status."""
        done = CliRunner().invoke(fuzz_frames.main, ["--seconds", "0.2", "--seed", "5"])
        self.assertEqual(done.exit_code, 0, done.output)
        self.assertRegex(done.output, r"seed 5\n\d+ frames: admitted \d+, junk \d+")
        self.patch(fuzz_frames, "Guard", lambda *_: Careless("breaks"))
        done = CliRunner().invoke(fuzz_frames.main, ["--seconds", "0.2"])
        self.assertEqual(done.exit_code, 1)
        self.assertIn("MemoryError", done.output)
