"""The breakers of tenants that do not answer: one such tenant costs itself, not its node's others.

Pure; ``now`` (seconds) comes in. Five requests in a row without an answer in time (504) open a
tenant's breaker; a complete answer's head between them begins the count anew. Its requests are then
held, not sent: each would take a place for the minutes after which it is given up. The machine is a
node's (``breaker``), but that nobody asks a tenant for its health: a GET or HEAD that comes by is
the probe.

A tenant has a breaker from its first such failure until it has answered for a while: the usual
tenant has none, and its requests cost a look at an empty table.
"""

from __future__ import annotations

from collections.abc import Callable

from pbcluster.gateway.breaker import Breaker, Change, State, Ticket, Uniform
from pbcluster.gateway.breakers import Shown, shown

#: Tenants remembered: each stands for a request that took minutes. The oldest goes first.
MAX_TENANTS = 4096
#: Leave without a breaker.
FREE = Ticket(0)


class TenantBreakers:
    """See the module.

    :ivar known: tenant id → breaker; for looking whether there is any, not for changing.
    """

    def __init__(self, random: Uniform, changed: Callable[[str, Change], None]) -> None:
        """
        :param changed: told of each change of a tenant's breaker.
        """
        self.known: dict[str, Breaker] = {}
        self._random = random
        self._changed = changed

    def admit(self, tenant_id: str, now: float, *, safe: bool) -> Ticket | None:
        """Leave to send a request of the tenant; None: not now.

        :param safe: its method is GET or HEAD: it may serve as a probe.
        :returns: what must be given back with exactly one verdict.
        """
        breaker = self.known.get(tenant_id)
        if breaker is None:
            return FREE
        before = breaker.state
        if before is State.CLOSED:
            return breaker.admit(now, safe=safe)
        ticket = None
        if safe:
            ticket = breaker.admit_health(now) or breaker.admit(now, safe=True)
            if breaker.state is not before:
                self._changed(tenant_id, Change(before, breaker.state, breaker.why))
        return ticket

    def answered(self, tenant_id: str, ticket: Ticket, now: float) -> None:
        """The tenant's answer began."""
        breaker = self.known.get(tenant_id)
        if breaker is not None:
            self._tell(tenant_id, breaker.succeeded(ticket, now))
            if breaker.forgettable(now):
                del self.known[tenant_id]

    def timed_out(self, tenant_id: str, ticket: Ticket, now: float) -> None:
        """The tenant did not answer in time."""
        breaker = self.known.get(tenant_id)
        if breaker is None:
            breaker = self.known[tenant_id] = Breaker(now, self._random)
            if len(self.known) > MAX_TENANTS:
                del self.known[next(iter(self.known))]
        self._tell(tenant_id, breaker.failed(ticket, now, "no answer in time"))

    def dropped(self, tenant_id: str, ticket: Ticket, now: float) -> None:
        """The attempt says nothing of the tenant."""
        breaker = self.known.get(tenant_id)
        if breaker is not None:
            breaker.dropped(ticket, now)

    @property
    def not_closed(self) -> int:
        """How many tenants are held back."""
        return sum(breaker.state is not State.CLOSED for breaker in self.known.values())

    def show(self, now: float) -> list[Shown]:
        """All of them, by tenant."""
        return [
            shown(breaker, now, tenant=tenant_id)
            for tenant_id, breaker in sorted(self.known.items())
        ]

    def _tell(self, tenant_id: str, change: Change | None) -> None:
        if change is not None:
            self._changed(tenant_id, change)
