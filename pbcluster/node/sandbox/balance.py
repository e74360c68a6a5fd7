"""Looks at what the tenants' processes take of the processors, and weighs them (``weights``).

A look reads a line of /proc for each of some tenants, in turn. What cannot be read or written is
left as it is: this is for fairness alone, and the limits hold without it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from pbcluster.node.sandbox.cgroups import CORES, Group
from pbcluster.node.sandbox.weights import Use, Weights

#: Between two looks.
LOOK_S = 0.2
#: Tenants of one look: a millisecond.
MAX_LOOKS = 50
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")

log = Logger()


class Balance:
    """See the module."""

    def __init__(self, clock: IReactorTime, proc: Path = Path("/proc")) -> None:
        self._clock = clock
        self._proc = proc
        self._weights = Weights()
        #: Tenant → (gives its process id, its limit in cores, its group).
        self._running: dict[str, tuple[Callable[[], int | None], float, Group]] = {}
        self._turn: deque[str] = deque()
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def add(self, tenant: str, pid: Callable[[], int | None], cores: float, group: Group) -> None:
        """A process was started in a new group."""
        self._weights.ended(tenant)
        if tenant not in self._running:
            self._turn.append(tenant)
        self._running[tenant] = (pid, cores, group)
        with suppress(OSError):
            group.weigh(light=False)  # a group that could not be removed is used again
        if not self._loop.running:
            self._loop.start(LOOK_S, now=False).addErrback(
                lambda failure: log.failure("tenants are not weighed any more", failure=failure)
            )

    def remove(self, tenant: str, group: Group) -> None:
        """The process in ``group`` is gone."""
        found = self._running.get(tenant)
        if found is None or found[2] is not group:
            return  # another one was started meanwhile
        del self._running[tenant]
        self._turn.remove(tenant)
        self._weights.ended(tenant)
        if not self._running and self._loop.running:
            self._loop.stop()

    def _look(self) -> None:
        try:
            self._weigh_some()
        except Exception:
            log.failure("tenants could not be weighed")

    def _weigh_some(self) -> None:
        uses = {}
        for _ in range(min(MAX_LOOKS, len(self._turn))):
            self._turn.rotate(-1)
            tenant = self._turn[-1]
            pid, cores, _group = self._running[tenant]
            with suppress(OSError, ValueError, IndexError):
                # Nobody fills more cores than there are.
                uses[tenant] = Use(self._cpu_s(pid()), min(cores, CORES))
        for tenant, light in self._weights.look(self._clock.seconds(), uses).items():
            with suppress(OSError):
                self._running[tenant][2].weigh(light=light)

    def _cpu_s(self, pid: int | None) -> float:
        """Of all its threads, ended ones too. :raises OSError: it is gone."""
        line = (self._proc / str(pid) / "stat").read_bytes()
        fields = line[line.rindex(b")") + 2 :].split(b" ", 13)
        return (int(fields[11]) + int(fields[12])) * _TICK_S
