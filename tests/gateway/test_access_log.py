import json
import os
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from pbcluster.gateway import access_log
from pbcluster.gateway.access_log import ENCODE_LINES, KEPT_FILES, AccessLog, access_line
from pbcluster.gateway.breaker import State
from pbcluster.gateway.parts import Record
from pbcluster.web.interfaces import Outcome
from tests.gateway.fakes import head


def record(target: bytes = b"/api/x?token=secret", **changes: Any) -> Record:
    made = Record("0" * 32, head(target=target))
    for name, value in changes.items():
        setattr(made, name, value)
    return made


class LineTests(TestCase):
    def line(self, made: Record, at_s: float) -> str:
        """As it comes into the file."""
        return access_log._encode_lines([access_line(made, at_s)]).decode()

    def test_is_json(self) -> None:
        """Each line is one JSON object with what happened, without the query."""
        made = record(
            status=200,
            node="node_a",
            held_s=0.5,
            duration_s=1.25,
            first_byte_s=0.00123,
            stream=True,
            attempts=2,
            outcome=Outcome.COMPLETED,
            breaker=State.CLOSED,
        )
        line = self.line(made, 1_700_000_000.5004)
        self.assertTrue(line.endswith("}\n"))
        self.assertEqual(line.count("\n"), 1)
        shown = json.loads(line)
        self.assertEqual((shown["outcome"], shown["breaker"]), ("completed", "closed"))
        self.assertEqual(shown["first_byte_ms"], 1.2)
        self.assertEqual((shown["path"], shown["status"], shown["node"]), ("/api/x", 200, "node_a"))
        self.assertEqual((shown["held_ms"], shown["duration_ms"]), (500, 1250.0))
        self.assertEqual((shown["time"], shown["stream"]), (1_700_000_000.5, True))
        self.assertNotIn("secret", line)

    def test_paths_are_escaped(self) -> None:
        """A path may have any character that a request target may."""
        for path in ('/a"b', "/a\\b", '/\\"', "/" + "".join(map(chr, range(0x21, 0x7F)))):
            target = path.replace("#", "").replace("?", "")
            shown = json.loads(self.line(record(target.encode()), 0.0))
            self.assertEqual(shown["path"], target)


class FileTests(TestCase):
    def setUp(self) -> None:
        self.file = Path(self.mktemp())

    def log(self, **changes: Any) -> AccessLog:
        return AccessLog(reactor, self.file, **changes)

    async def settled(self, log: AccessLog) -> None:
        """When nothing waits and nothing is being written."""
        while log._waiting or log._writing:
            await deferLater(reactor, 0.01)

    async def test_written_soon(self) -> None:
        """Lines reach the file by themselves, readable by its owner alone."""
        log = self.log()
        for _ in range(3):
            log.add(record())
        await self.settled(log)
        self.assertEqual(len(self.file.read_text().splitlines()), 3)
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o600)
        log.close()

    async def test_order(self) -> None:
        """Lines stand in the order in which requests ended, however many are encoded at once."""
        log, count = self.log(), 2 * ENCODE_LINES + 3
        for number in range(count):
            log.add(record(f"/{number}".encode()))
        await self.settled(log)
        log.add(record(b"/last"))
        log.close()
        paths = [json.loads(line)["path"] for line in self.file.read_text().splitlines()]
        self.assertEqual(paths, [*(f"/{number}" for number in range(count)), "/last"])

    async def test_close_writes_what_waits(self) -> None:
        """The end of the process loses no line."""
        log = self.log()
        log.add(record())
        log.close()
        self.assertEqual(len(self.file.read_text().splitlines()), 1)

    async def test_full_files_are_put_aside(self) -> None:
        """At most so many of them, the newest under the lowest number."""
        log = self.log(max_file_bytes=1)
        for number in range(KEPT_FILES + 3):
            log.add(record(f"/{number}".encode()))
            await self.settled(log)
        log.close()
        names = sorted(path.name for path in self.file.parent.glob(self.file.name + "*"))
        self.assertEqual(len(names), KEPT_FILES + 1)
        newest = self.file.with_name(self.file.name + ".1").read_text()
        self.assertIn(f'"/{KEPT_FILES + 1}"', newest)

    async def test_reopen(self) -> None:
        """Whoever moves the file gets the next lines in a new one."""
        log = self.log()
        log.add(record())
        await self.settled(log)
        moved = self.file.with_suffix(".moved")
        self.file.rename(moved)
        log.reopen()
        log.add(record())
        await self.settled(log)
        self.assertEqual(len(moved.read_text().splitlines()), 1)
        self.assertEqual(len(self.file.read_text().splitlines()), 1)
        log.close()

    async def test_no_disk(self) -> None:
        """Lines that cannot be written are dropped and counted; requests go on."""
        self.file.mkdir()
        log = self.log()
        log.add(record())
        await self.settled(log)
        self.assertEqual(log.dropped, 1)
        os.rmdir(self.file)
        log.add(record())
        await self.settled(log)
        self.assertEqual(len(self.file.read_text().splitlines()), 1)
        log.close()

    async def test_a_disk_that_hangs(self) -> None:
        """Closing does not wait for a write that hangs; the last lines are lost, and told of."""
        self.patch(access_log, "LOCK_S", 0.01)
        log = self.log()
        log._file._lock.acquire()  # as the thread of that write has it
        log.add(record())
        log.close()
        self.assertFalse(self.file.exists())

    async def test_what_came_while_a_write_went_on(self) -> None:
        """It is written soon after, though no further request comes."""
        self.patch(access_log, "FLUSH_S", 0.01)
        log = self.log()
        log._writing = True  # a write that does not end yet
        log.add(record())
        await deferLater(reactor, 0.05)
        self.assertFalse(self.file.exists())
        log._writing = False
        await self.settled(log)
        self.assertEqual(len(self.file.read_text().splitlines()), 1)
        log.close()

    async def test_bounded(self) -> None:
        """While the disk takes nothing, so many lines wait and no more."""
        self.patch(access_log, "MAX_WAITING", 5)
        log = self.log()
        log._writing = True  # a write that does not end
        for _ in range(8):
            log.add(record())
        self.assertEqual(log.dropped, 3)
        log._writing = False
        log.close()
