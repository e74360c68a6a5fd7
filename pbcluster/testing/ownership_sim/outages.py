"""A model of rule 8: writes while S3 is away, and the committed degraded flag.

It stands where the node's own machine for it will stand: between an acknowledgement that was
withheld because S3 did not answer and the client.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from twisted.internet.defer import Deferred

from pbcluster.node.acks import Withheld
from pbcluster.node.durability import Reason
from pbcluster.node.parts import pause
from pbcluster.node.tenant import Tenant
from pbcluster.testing.ownership_sim.journal import Journal
from pbcluster.testing.ownership_sim.network import Network
from pbcluster.testing.ownership_sim.plane import Plane
from pbcluster.testing.ownership_sim.process import NodeProcess

#: What a node waits for the control plane's answer about the flag.
ANSWER_TIMEOUT_S = 2.0
ASKING, LOCAL, CLEARING = "asking", "local", "clearing"
_S3_AWAY = (Reason.SYNC_FAILED, Reason.OWNER_UNKNOWN)


class Outages:
    """All tenants' degraded flags, as their owners know them."""

    def __init__(
        self, plane: Plane, network: Network, random: Random, journals: Mapping[str, Journal]
    ) -> None:
        self._journals = journals
        self._last_local: dict[str, float] = {}
        self._plane = plane
        self._network = network
        self._random = random

    async def may_acknowledge(
        self, process: NodeProcess, tenant: Tenant, withheld: Withheld
    ) -> bool:
        """Whether a withheld write may be acknowledged as local instead."""
        if withheld.reason not in _S3_AWAY or not process.weather.down or not tenant.proven():
            return False
        key = (tenant.tenant_id, tenant.epoch)
        if key not in process.degraded:
            process.degraded[key] = ASKING
            answer = await self._commit(process, tenant, degraded=True)
            if answer is None or not answer:
                # Unknown or refused: if it was committed after all, the next sync clears it.
                process.degraded.pop(key, None)
                return False
            process.degraded[key] = LOCAL
        still = process.tenants.find(tenant.tenant_id) is tenant and tenant.proven()
        if process.degraded[key] != LOCAL or not still or tenant.leaving:
            return False
        self._last_local[tenant.tenant_id] = process.clock.seconds()
        return True

    async def caught_up(self, process: NodeProcess, tenant: Tenant, began: float) -> None:
        """A sync that began after ``began`` succeeded: end the flag, if it is there and all that
        was acknowledged as local is covered."""
        key = (tenant.tenant_id, tenant.epoch)
        known = process.degraded.get(key, LOCAL if tenant.assignment.degraded else "")
        if known != LOCAL or began <= self._last_local.get(tenant.tenant_id, -1.0):
            return
        self._journals[tenant.tenant_id].caught_up()
        process.degraded[key] = CLEARING
        while process.tenants.find(tenant.tenant_id) is tenant:
            if await self._commit(process, tenant, degraded=False) is not None:
                break
            await pause(process.clock, 0.2)
        process.degraded.pop(key, None)

    async def _commit(self, process: NodeProcess, tenant: Tenant, *, degraded: bool) -> bool | None:
        """Ask for the flag. :returns: None: no answer."""
        answer: Deferred[bool | None] = Deferred()
        name, network = process.name, self._network

        def settle(value: bool | None) -> None:
            if not answer.called:
                answer.callback(value)

        def ask() -> None:
            done = self._plane.set_degraded(tenant.tenant_id, name, tenant.epoch, degraded)
            if name not in network.cut_from:
                self._later(network.latency(), lambda: process.clock.callLater(0, settle, done))

        if name not in network.cut_to:
            self._later(network.latency(), ask)
        process.clock.callLater(ANSWER_TIMEOUT_S, settle, None)
        return await answer

    def _later(self, delay_s: float, what: Callable[[], object]) -> None:
        if self._random.random() > 0.02:
            self._network.clock.callLater(delay_s, what)
