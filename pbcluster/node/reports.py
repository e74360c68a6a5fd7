"""What became of assignments, told to the control plane until it answered.

One report of a tenant is under way at a time, in order, each with one idempotency key for all its
repetitions. A refusal by the control plane ends a report: it knows better by now.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pbcluster.errors import PBClusterError, SessionExpired, Unavailable
from pbcluster.node.parts import pause, spawn
from pbcluster.transport.interfaces import ControlPlaneClient
from pbcluster.wire import TenantReport

log = Logger()

REPORT_TIMEOUT_S = 5.0
RETRY_S = 0.2
RETRY_MAX_S = 5.0
#: Reports of one tenant that may wait; the oldest goes first, its meaning is in the newer ones.
MAX_WAITING = 16


class Reports:
    """The reports of a node."""

    def __init__(
        self,
        clock: IReactorTime,
        client: ControlPlaneClient,
        incarnation: Callable[[], int],
        new_key: Callable[[], str],
    ) -> None:
        """
        :param incarnation: this node's, 0 before it is registered.
        :param new_key: a fresh random word.
        """
        self._clock = clock
        self._client = client
        self._incarnation = incarnation
        self._new_key = new_key
        self._waiting: dict[str, deque[TenantReport]] = {}
        self._stopped = False

    def send(self, report: TenantReport) -> None:
        """Queue a report; its incarnation is filled in when it is sent."""
        if self._stopped:
            return
        queue = self._waiting.get(report.tenant_id)
        if queue is not None:
            if report not in queue:
                queue.append(report)
            return
        self._waiting[report.tenant_id] = deque([report], maxlen=MAX_WAITING)
        spawn(self._work_off(report.tenant_id), f"reports of {report.tenant_id}")

    def stop(self) -> None:
        """Send nothing any more."""
        self._stopped = True

    async def _work_off(self, tenant_id: str) -> None:
        queue = self._waiting[tenant_id]
        while queue and not self._stopped:
            report = queue.popleft()
            await self._deliver(report)
        del self._waiting[tenant_id]

    async def _deliver(self, report: TenantReport) -> None:
        key, delay_s = self._new_key(), RETRY_S
        while not self._stopped:
            incarnation = self._incarnation()
            if incarnation:
                body = msgspec.structs.replace(report, incarnation=incarnation)
                try:
                    await self._client.ask(body, timeout_s=REPORT_TIMEOUT_S, idempotency_key=key)
                    return
                except SessionExpired:
                    key = self._new_key()
                except Unavailable as error:
                    log.debug("report is repeated: {error}", error=error)
                except PBClusterError as error:
                    log.warn(
                        "{tenant}: the control plane refused the report {outcome!r}: {error}",
                        tenant=report.tenant_id,
                        outcome=report.outcome,
                        error=error,
                    )
                    return
            await pause(self._clock, delay_s)
            delay_s = min(2 * delay_s, RETRY_MAX_S)
