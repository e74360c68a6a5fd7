"""Every trace in traces/ happens again as it is written there."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.raft.trace_runner import TRACES, parse, play

#: Fewer files than this means that they were not found.
EXPECTED_TRACES = 24


class TraceTests(SynchronousTestCase):
    maxDiff = None

    def _check(self, path: Path) -> None:
        blocks = parse(path.read_text())
        self.assertTrue(blocks[0].comment, f"{path.name} does not say what it shows")
        for block, events in zip(blocks, play(blocks), strict=True):
            if block.command:
                self.assertEqual(
                    "\n".join(block.expected), "\n".join(events), f"{path.name}: {block.command}"
                )

    def test_the_traces_are_there(self) -> None:
        """The suite found its files: an empty folder does not pass."""
        self.assertGreaterEqual(len(list(TRACES.glob("*.txt"))), EXPECTED_TRACES)


def _add(path: Path) -> None:
    def test(self: TraceTests) -> None:
        self._check(path)

    test.__doc__ = f"traces/{path.name} holds."
    setattr(TraceTests, f"test_{path.stem}", test)


for _path in sorted(TRACES.glob("*.txt")):
    _add(_path)
