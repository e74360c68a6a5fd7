"""What a child prints is bounded, and holds no tokens."""

from __future__ import annotations

from twisted.internet.task import Clock
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
