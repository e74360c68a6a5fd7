"""Throws damaged Raft frames at the door of a member, for as long as one likes.

    python -m pbcluster.testing.fuzz_frames --seconds 60

Valid frames of every kind are mutated: bits flipped, cut short, two spliced, parts repeated,
lengths made enormous, numbers made extreme, other clusters, senders and incarnations. What must
hold for each (:func:`look`):

* ``Guard.admit`` raises nothing and answers within a moment.
* A frame is either admitted or counted once under one reason.
* What is admitted is a sound message of this cluster for this member from the authenticated sender:
  encoded again it is decoded to the same message, and passes every check.

The same seed gives the same frames. The first failure ends the run with the frame in hex.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable

import click

from pbcluster.raft import AnyMessage, ConfState, Entry, EntryKind, SnapshotMeta
from pbcluster.raft import messages as m
from pbcluster.raft.frames import MAGIC, MAX_FRAME_BYTES, Frame, Guard, check, decode, encode
from pbcluster.raft.messages import ConfigAction, ConfigChange, ConfigStep, encode_change

CLUSTER, SENDER, MEMBER = "cluster_1", "member_1", "member_2"
#: No frame may hold the reactor longer; a valid one takes microseconds.
LOOK_WITHIN_S = 0.5
#: A guard sees so many frames, then comes a new one: a damaged frame may be admitted with an
#: enormous incarnation, and from then on all others are stale.
GUARD_FRAMES = 200
_META = SnapshotMeta(9, 2, ConfState(("member_1", "member_2")), 40, 77)
_CHANGE = encode_change(ConfigChange((ConfigStep(ConfigAction.ADD_LEARNER, "member_4"),), b"x"))
_ENTRIES = (
    Entry(8, 2, EntryKind.COMMAND, b"a command"),
    Entry(9, 3, EntryKind.NOOP),
    Entry(10, 3, EntryKind.CONFIG, _CHANGE),
)
#: msgpack's heads of binary, text, arrays and maps with 32-bit lengths, and of 64-bit numbers.
_HEADS = (b"\xc6", b"\xdb", b"\xdd", b"\xdf", b"\xc9")
_LENGTHS = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x10\x00\x01", b"\x00\x00\x00\x00")
_NUMBERS = (
    b"\xcf" + b"\xff" * 8,
    b"\xd3\x80" + bytes(7),
    b"\xcb\x7f\xf8" + bytes(6),
    b"\xcf\x40" + bytes(7),
    b"\xff",
    b"\xc0",
    b"\xc3",
)


def samples(sender: str = SENDER, to: str = MEMBER, term: int = 3) -> list[AnyMessage]:
    """A sound message of every kind."""
    head = (sender, to, term)
    return [
        m.VoteRequest(*head, 7, 2, pre=True),
        m.VoteRequest(*head, 7, 2, transfer=True),
        m.VoteReply(*head, True),
        m.Append(*head, 7, 2, 7, _ENTRIES),
        m.Append(*head, 7, 2, 7),
        m.AppendReply(*head, 9, True, 8, 2),
        m.Heartbeat(*head, 7, 1),
        m.HeartbeatReply(*head, 1),
        m.SnapshotChunk(*head, _META, 2, b"some bytes"),
        m.SnapshotReply(*head, 9, 4),
        m.TimeoutNow(*head),
        m.ReadRequest(*head, 1 << 33),
        m.ReadReply(*head, 1 << 33, 9),
    ]


Mutation = Callable[[random.Random, bytes], bytes]


def _flip(dice: random.Random, frame: bytes) -> bytes:
    damaged = bytearray(frame)
    for _ in range(dice.choice((1, 1, 1, 2, 8)) if frame else 0):
        damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
    return bytes(damaged)


def _cut(dice: random.Random, frame: bytes) -> bytes:
    return frame[: dice.randrange(len(frame) + 1)]


def _splice(dice: random.Random, frame: bytes) -> bytes:
    other = encode(Frame(CLUSTER, 5, dice.choice(samples())))
    return frame[: dice.randrange(len(frame) + 1)] + other[dice.randrange(len(other)) :]


def _repeat(dice: random.Random, frame: bytes) -> bytes:
    begin = dice.randrange(len(frame) + 1)
    end = dice.randint(begin, len(frame))
    return frame[:end] + frame[begin:end] * dice.randint(1, 50) + frame[end:]


def _bomb(dice: random.Random, frame: bytes) -> bytes:
    at = dice.randrange(len(frame) + 1)
    return frame[:at] + dice.choice(_HEADS) + dice.choice(_LENGTHS) + frame[at:]


def _nest(dice: random.Random, frame: bytes) -> bytes:
    at = dice.randrange(len(frame) + 1)
    return frame[:at] + dice.choice((b"\x91", b"\x81\x01")) * dice.choice((40, 5000)) + frame[at:]


def _number(dice: random.Random, frame: bytes) -> bytes:
    at = dice.randrange(len(frame) + 1)
    return frame[:at] + dice.choice(_NUMBERS) + frame[at + 1 :]


def _huge(dice: random.Random, frame: bytes) -> bytes:
    return frame + bytes(max(0, MAX_FRAME_BYTES - len(frame)) + dice.choice((0, 1, 4096)))


def _junk(dice: random.Random, frame: bytes) -> bytes:
    return dice.choice((b"", MAGIC)) + dice.randbytes(dice.randrange(200))


#: What is dear is rare.
MUTATIONS: tuple[Mutation, ...] = (_flip, _cut, _splice, _repeat, _bomb, _number) * 8 + (
    _nest,
    _huge,
    _junk,
    lambda dice, frame: frame,
)


def valid_frame(dice: random.Random) -> bytes:
    """A sound frame; sometimes of another cluster, sender, recipient, version or incarnation."""
    sender = dice.choice((SENDER, SENDER, SENDER, "member_3"))
    to = dice.choice((MEMBER, MEMBER, MEMBER, "member_9"))
    cluster = dice.choice((CLUSTER, CLUSTER, CLUSTER, "cluster_2"))
    message = dice.choice(samples(sender, to, dice.choice((1, 3, 2**62))))
    frame = encode(Frame(cluster, dice.choice((1, 5, 6)), message))
    return frame if dice.random() < 0.9 else MAGIC[:3] + bytes([dice.randrange(256)]) + frame[4:]


def mutated(dice: random.Random) -> bytes:
    """A frame, damaged once or several times."""
    frame = valid_frame(dice)
    for _ in range(dice.choice((1, 1, 2, 3))):
        frame = dice.choice(MUTATIONS)(dice, frame)[: 2 * MAX_FRAME_BYTES]
    return frame


class Unsound(AssertionError):
    """The door let something through, or broke; the text has the frame."""


def look(guard: Guard, frame: bytes) -> AnyMessage | None:
    """Show ``frame`` to ``guard``. :raises Unsound: a rule of the module does not hold."""
    before, began = sum(guard.dropped.values()), time.monotonic()
    try:
        message = guard.admit(frame, SENDER)
    except BaseException as error:
        raise Unsound(f"{type(error).__name__}: {error} for {frame[:4096].hex()}") from error
    took = time.monotonic() - began
    dropped = sum(guard.dropped.values()) - before
    if dropped != (message is None) or took > LOOK_WITHIN_S:
        raise Unsound(f"{dropped} dropped in {took:.3f} s for {frame[:4096].hex()}")
    if message is not None:
        _admitted(message, frame)
    return message


def _admitted(message: AnyMessage, frame: bytes) -> None:
    """:raises Unsound: a message that may not be stepped."""
    again = decode(encode(Frame(CLUSTER, 5, message)))
    check(message)
    whose = (message.sender, message.to) == (SENDER, MEMBER)
    if again.message != message or decode(frame).cluster_id != CLUSTER or not whose:
        raise Unsound(f"{message} was admitted for {frame[:4096].hex()}")


def fuzz(seed: int, *, frames: int = 0, seconds: float = 0.0) -> Counter[str]:
    """Show frames to one guard, ``frames`` of them or for ``seconds``.

    :returns: how many were admitted, and dropped by reason.
    :raises Unsound: the first one that breaks a rule.
    """
    dice = random.Random(seed)
    guard = Guard(CLUSTER, MEMBER)
    seen: Counter[str] = Counter()
    until = time.monotonic() + seconds
    shown = 0
    while shown < frames or time.monotonic() < until:
        shown += 1
        seen["admitted"] += look(guard, mutated(dice)) is not None
        if shown % GUARD_FRAMES == 0:
            seen.update(guard.dropped)
            guard = Guard(CLUSTER, MEMBER)
    seen.update(guard.dropped)
    return seen


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seconds", default=60.0, show_default=True, type=click.FloatRange(0, 86400))
@click.option("--seed", default=None, type=int, help="Of the frames; default: the time.")
def main(seconds: float, seed: int | None) -> None:
    """The command."""
    chosen = int(time.time()) if seed is None else seed
    click.echo(f"seed {chosen}")
    try:
        seen = fuzz(chosen, seconds=seconds)
    except Unsound as error:
        raise click.ClickException(str(error)) from None
    told = ", ".join(f"{reason} {count}" for reason, count in sorted(seen.items()))
    click.echo(f"{sum(seen.values())} frames: {told}")


if __name__ == "__main__":
    main()
