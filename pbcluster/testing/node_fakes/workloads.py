"""PocketBases on a fake disk: started, written to, replaced under their feet, killed.

Two on one directory are a fault of the caller's, not something that goes wrong.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock

from pbcluster.errors import ProcessFailed
from pbcluster.node.interfaces import WorkloadSpec
from pbcluster.testing.node_fakes.delays import passing
from pbcluster.testing.node_fakes.disk import FakeDisk


class FakeWorkload:
    """``RunningWorkload``. :ivar alive: whether it still runs."""

    def __init__(self, workloads: FakeWorkloads, spec: WorkloadSpec, pid: int) -> None:
        self.spec = spec
        self.alive = True
        self.stopped_by = ""
        self.replies: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._workloads = workloads
        self._pid = pid
        self._generation = 1
        self._ended: list[Callable[[str], None]] = []

    @property
    def host(self) -> str:
        """See ``RunningWorkload``."""
        return self._workloads.address[0]

    @property
    def port(self) -> int:
        """See ``RunningWorkload``."""
        return self._workloads.address[1] or 20000 + self._pid

    @property
    def pid(self) -> int:
        """See ``RunningWorkload``."""
        return self._pid

    @property
    def database(self) -> Path:
        """Path of its data.db."""
        return self.spec.directory / "data" / "data.db"

    def write(self, row: str) -> None:
        """Commit a row, as PocketBase does before it answers."""
        assert self.alive, "a dead PocketBase was asked to write"
        found = self._workloads.disk.databases[self.database]
        found.rows.append(row)
        found.txid += 1

    def rows(self) -> list[str]:
        """What a client would read."""
        assert self.alive, "a dead PocketBase was asked to read"
        return list(self._workloads.disk.databases[self.database].rows)

    def replace_database(self, rows: list[str]) -> None:
        """A backup restore of PocketBase: a new file takes data.db's place."""
        self._workloads.disk.create(self.database, rows, 1)

    async def ask(self, what: str, question: Mapping[str, Any]) -> Mapping[str, Any]:
        """See ``RunningWorkload``; answered from ``replies``, else from those of all."""
        self.asked.append((what, dict(question)))
        answers = self._workloads.replies | self.replies
        if what not in answers:
            raise ProcessFailed("it does not answer")
        return answers[what]

    def generation(self) -> str:
        """See ``RunningWorkload``."""
        return f"{self._pid}/{self._generation}" if self.alive else ""

    async def answers(self) -> bool:
        """See ``RunningWorkload``."""
        return self.alive

    async def knows(self, authorization: bytes) -> bool:
        """See ``RunningWorkload``."""
        return authorization == b"superuser"

    def restore_backup(self, rows: list[str]) -> None:
        """What PocketBase does about a second after its 204: another file, executed anew."""
        self.replace_database(rows)
        self._generation += 1

    def when_ended(self, callback: Callable[[str], None]) -> None:
        """See ``RunningWorkload``."""
        if self.alive:
            self._ended.append(callback)
        else:
            callback(self.stopped_by)

    def end(self, reason: str = "exit status 2") -> None:
        """It ends by itself."""
        if self.alive:
            self.alive, self.stopped_by = False, reason
            if self._workloads.running.get(self.spec.tenant_id) is self:
                del self._workloads.running[self.spec.tenant_id]
            for callback in self._ended:
                callback(reason)

    async def stop(self) -> None:
        """See ``RunningWorkload``."""
        await passing(self._workloads.clock, self._workloads.stop_delay_s)
        self.end("exit status 0")

    async def kill(self) -> None:
        """See ``RunningWorkload``."""
        self.end("killed by SIGKILL")


class FakeWorkloads:
    """``Workloads``.

    :ivar running: tenant id → its living workload. :ivar started: all specs ever started.
    :ivar address: host and port they say; port 0: one that nobody listens on, from their pid.
    :ivar answers: what they say to the platform, by its question.
    """

    def __init__(self, clock: Clock, disk: FakeDisk) -> None:
        self.clock = clock
        self.disk = disk
        self.start_delay_s = 0.0
        self.stop_delay_s = 0.0
        self.address = ("127.0.0.1", 0)
        self.replies: dict[str, dict[str, Any]] = {}
        self.running: dict[str, FakeWorkload] = {}
        self.started: list[WorkloadSpec] = []
        self._failures: list[str] = []
        self._pids = itertools.count(1000)

    def fail_next(self, reason: str, times: int = 1) -> None:
        """The next start(s) fail."""
        self._failures += [reason] * times

    async def start(self, spec: WorkloadSpec) -> FakeWorkload:
        """See ``Workloads``."""
        self.started.append(spec)
        assert spec.tenant_id not in self.running, "two processes on one directory"
        await passing(self.clock, self.start_delay_s)
        if self._failures:
            raise ProcessFailed(f"PocketBase did not start: {self._failures.pop(0)}")
        workload = FakeWorkload(self, spec, next(self._pids))
        if workload.database not in self.disk.databases:
            self.disk.create(workload.database, [], 1)
        self.running[spec.tenant_id] = workload
        return workload
