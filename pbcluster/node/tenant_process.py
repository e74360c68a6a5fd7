"""The PocketBase of one tenant: at most one process, started, watched, started again and ended.

What holds:

* The end of a process that is not the tenant's present one is told to nobody.
* Who ends it has taken it away before: an end that was wanted is never taken for a crash.
* A PocketBase that ends too often within a minute is not started again.

It does not decide when it runs (``tenant`` does), and hands no request on.
"""

from __future__ import annotations

from collections.abc import Callable

from pbcluster.errors import ProcessFailed
from pbcluster.node.interfaces import FilesAccess, RunningWorkload, WorkloadSpec
from pbcluster.node.lifecycle import Crashes
from pbcluster.node.parts import NodeParts, pause, tolerate
from pbcluster.wire import Assignment

#: On a node whose tenants keep their files on the disk.
ON_THE_DISK = FilesAccess({"s3": {"enabled": False}, "backups": {"s3": {"enabled": False}}})


class TenantProcess:
    """See the module.

    :ivar running: from its start until it ended or is being ended; None: it does not run.
    :ivar started_generation: its generation when it was started.
    """

    def __init__(self, parts: NodeParts, ended: Callable[[str], None]) -> None:
        """
        :param ended: called with the reason when it ended by itself.
        """
        self.running: RunningWorkload | None = None
        #: Of the one that was started last.
        self._address = ("", 0)
        self.started_generation = ""
        self._parts = parts
        self._ended = ended
        self._crashes = Crashes()

    async def start(
        self, assignment: Assignment, access: FilesAccess, *, first_start: bool
    ) -> RunningWorkload:
        """Start it on what stands in the tenant's directory; returns when it answers.

        :param access: where its uploaded files are.
        :param first_start: whether the tenant's first superuser is made.
        :raises PBClusterError: it did not come up.
        """
        tenant_id, directories = assignment.tenant_id, self._parts.directories
        spec = WorkloadSpec(
            tenant_id=tenant_id,
            directory=directories.path(tenant_id),
            encryption_key=self._parts.encryption_key(tenant_id),
            hosts=assignment.hosts,
            superuser=assignment.initial_superuser if first_start else None,
            settings=access.settings,
            connect_ports=(access.port,) if access.port else (),
            logs=assignment.logs,
            quotas=assignment.quotas,
        )
        directories.unsettle(tenant_id)
        workload = await self._parts.workloads.start(spec)
        self.running, self._address = workload, (workload.host, workload.port)
        self.started_generation = workload.generation()
        workload.when_ended(lambda reason: self._has_ended(workload, reason))
        return workload

    def _has_ended(self, workload: RunningWorkload, reason: str) -> None:
        if self.running is workload:
            self.running = None
            self._ended(reason)

    def runs(self, workload: RunningWorkload) -> bool:
        """Whether it is this very process that runs."""
        return self.running is workload

    async def wait_before_restart(self, cause: str) -> None:
        """It ended by itself: wait as long as a next start has to.

        :param cause: why it ended.
        :raises ProcessFailed: it ended too often.
        """
        delay_s = self._crashes.add(self._parts.clock.seconds())
        if delay_s is None:
            self._crashes.clear()
            raise ProcessFailed(f"PocketBase ends again and again; last: {cause}")
        await pause(self._parts.clock, delay_s)

    async def end(self, tenant_id: str, *, kill: bool) -> None:
        """End it, if it runs; a trouble at it is logged and left."""
        workload, self.running = self.running, None
        if workload is not None:
            await tolerate(workload.kill() if kill else workload.stop(), tenant_id)

    # -- what it says of itself, whether requests are handed on or not --

    def address(self) -> tuple[str, int] | None:
        """Its host and port; None: it does not run."""
        return self._address if self.running is not None else None

    def generation(self) -> str:
        """Another one after it executed itself anew; empty: it does not listen."""
        return self.running.generation() if self.running is not None else ""

    async def answers(self) -> bool:
        """Whether it is healthy."""
        return self.running is not None and await self.running.answers()

    async def knows(self, authorization: bytes) -> bool:
        """Whether it takes this token for one of a superuser."""
        running = self.running
        return bool(authorization) and running is not None and await running.knows(authorization)
