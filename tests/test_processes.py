"""What a child prints is bounded, and holds no tokens."""

from __future__ import annotations

from twisted.internet.error import ProcessDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pbcluster import processes
from pbcluster.processes import Child, launched, redacted

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJpZCI6IjEifQ.abc-DEF_123"


class Output(SynchronousTestCase):
    def setUp(self) -> None:
        self.lines: list[str] = []
        self.child = Child(Clock(), "program", self.lines.append)

    def test_tokens_are_blotted_out(self) -> None:
        """An installer URL loses its token, before a line is handed on or kept."""
        self.assertEqual(
            redacted(f"http://x/_/#/pbinstal/{TOKEN}"), "http://x/_/#/pbinstal/[token]"
        )
        data = f"open http://x/{TOKEN}\n".encode()
        self.child.childDataReceived(1, data[:30])
        self.child.childDataReceived(1, data[30:])
        self.assertEqual(self.lines, ["open http://x/[token]"])
        self.assertNotIn("eyJ", self.child.last_words())

    def test_the_memory_is_bounded(self) -> None:
        """Endless lines are cut, and only the last ones are kept."""
        for _ in range(10):
            self.child.childDataReceived(2, b"x" * 3 * processes.MAX_LINE_BYTES)
        self.child.childDataReceived(1, b"y\n" * 100)
        self.assertTrue(all(len(line) <= processes.MAX_LINE_BYTES for line in self.lines))
        self.assertEqual(len(self.child.tail), processes.TAIL_LINES)

    def test_a_panic_is_kept_its_frames_are_not(self) -> None:
        """Go's stack frames do not push the panic's words out of the last lines."""
        frames = "".join(f"main.f{n}(0x1)\n\t/src/x.go:{n} +0x1\n" for n in range(50))
        text = f"panic: no such hook\n\ngoroutine 1 [running]:\n{frames}exit now\n"
        self.child.childDataReceived(2, text.encode())
        self.assertEqual(list(self.child.tail), ["panic: no such hook", "exit now"])

    def test_the_launcher_is_our_python_without_util_linux(self) -> None:
        """Without setsid and setpriv a child is started through our own launcher."""
        argv = launched(["/bin/true", "x"], util_linux=False)
        self.assertEqual(argv[-2:], ["/bin/true", "x"])
        self.assertTrue(argv[4].endswith("launcher.py"))

    def test_headers_are_blotted_out(self) -> None:
        """The value of an Authorization header goes, in every way it is printed; a cut token too;
        words about authorization stay."""
        for raw, shown in (
            ("Authorization: Bearer abc.def x", "Authorization: [token] x"),
            ('{"authorization":"secret","a":1}', '{"authorization":"[token]","a":1}'),
            ("map[Authorization:[Basic c2VjcmV0]]", "map[Authorization:[[token]]]"),
            ("X-PocketBase-Authorization = secret", "X-PocketBase-Authorization = [token]"),
            ("authorization failed: no such user", "authorization failed: no such user"),
            ("/_/#/pbinstall/anything next", "/_/#/pbinstall/[token] next"),
            (f"cut {TOKEN[:30]}", "cut [token]"),
        ):
            self.assertEqual(redacted(raw), shown)

    def test_a_line_has_no_second_begin(self) -> None:
        """What a line has beyond its bound is dropped to its end: a token's rest begins no line."""
        self.child.childDataReceived(1, b"x" * processes.MAX_LINE_BYTES + TOKEN[:20].encode())
        self.child.childDataReceived(1, TOKEN[20:].encode() * 9 + b"\nnext\n")
        self.assertEqual([len(line) for line in self.lines], [processes.MAX_LINE_BYTES, 4])


class Pipes:
    """A process's transport, as far as pacing needs it."""

    pid = 1

    def __init__(self) -> None:
        self.paused = False

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False


class Pace(SynchronousTestCase):
    def setUp(self) -> None:
        self.lines: list[str] = []
        self.clock = Clock()
        self.child = Child(self.clock, "program", self.lines.append, 100_000)
        self.pipes = Pipes()
        self.child.transport = self.pipes  # type: ignore[assignment]

    def prints(self, data: bytes) -> None:
        self.child.childDataReceived(1, data)

    def test_bytes(self) -> None:
        """Beyond its bytes of one second it waits for the next; below it never does."""
        for _ in range(9):
            self.prints(b"x" * 10_000)
        self.assertFalse(self.pipes.paused)
        self.clock.advance(1.0)
        self.prints(b"x" * 60_000)
        self.prints(b"x" * 60_000)
        self.assertTrue(self.pipes.paused)
        self.clock.advance(0.9)
        self.assertTrue(self.pipes.paused)
        self.clock.advance(0.1)
        self.assertFalse(self.pipes.paused)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_short_lines(self) -> None:
        """Lines cost as well as bytes, and one read has so many at most; the rest is told."""
        self.prints(b"a\n" * 200)
        self.assertFalse(self.pipes.paused)
        self.prints(b"b\n" * 30_000)
        self.assertTrue(self.pipes.paused)
        told = f"[pbcluster: {30_000 - processes.MAX_LINES_AT_ONCE} lines were dropped here"
        self.assertTrue(self.lines[200].startswith(told), self.lines[200])
        self.assertEqual(len(self.lines), 201 + processes.MAX_LINES_AT_ONCE)

    def test_its_end(self) -> None:
        """A child that ends while it waits is read to its end at once."""
        self.prints(b"x" * 200_000)
        self.assertTrue(self.pipes.paused)
        self.child.pid = 2**22 + 1  # nobody's
        self.child.processExited(Failure(ProcessDone(0)))
        self.assertFalse(self.pipes.paused)
        self.prints(b"\nlast words\n" + b"y" * 200_000)
        self.assertFalse(self.pipes.paused)
        self.assertEqual(self.lines[-1], "last words")
        self.child.processEnded(Failure(ProcessDone(0)))
        self.assertEqual(self.clock.getDelayedCalls(), [])
