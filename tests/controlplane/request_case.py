"""A whole member without sockets and disk, to which a test speaks as nodes and gateways."""

from collections.abc import Callable, Coroutine
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from pbcluster import wire
from pbcluster.controlplane.raft_reads import PATIENT_S
from pbcluster.errors import PBClusterError
from pbcluster.transport.interfaces import Asked
from tests.controlplane.lease_world import World

T1 = "tenant_00000000"


class RequestCase(SynchronousTestCase):
    """A member with two nodes that live, each a few lines of this test."""

    def setUp(self) -> None:
        self.world = World(1, nodes=0, tenants=1)
        self.addCleanup(self.world.close)
        self.keys = 0
        self.renewing: set[str] = set()
        self.index: dict[str, int] = {}
        for node_id in ("node_a", "node_b"):
            self.register(node_id)
            self.renewing.add(node_id)

    # -- helpers --

    def ask(
        self, sender: str, body: wire.Body, *, timeout_s: float = 3.0, key: str = "", role: str = ""
    ) -> Deferred[wire.Body]:
        now = self.world.now
        # As if the transport had a clock of its own.
        asked = Asked(sender, key, now + timeout_s - 500.0, now - 500.0, role)
        work = cast(Coroutine[Any, Any, wire.Body], self.world.requests(asked, body))
        return Deferred.fromCoroutine(work)

    def answer(self, sender: str, body: wire.Body, **more: Any) -> wire.Body:
        asked = self.ask(sender, body, **more)
        self.run_for(0.1)
        if not asked.called:  # two commands, one after the other
            self.run_for(0.1)
        return self.successResultOf(asked)

    def refusal(self, kind: type[PBClusterError], sender: str, body: wire.Body, **more: Any) -> str:
        asked = self.ask(sender, body, **more)
        self.run_for(0.1)
        return str(self.failureResultOf(asked, kind).value)

    def register(self, node_id: str, start: str = "s1", **more: Any) -> wire.Registered:
        body = wire.RegisterNode(node_id, start, "http://127.0.0.1:1", 5, **more)
        self.keys += 1
        return wire.expect(self.answer(node_id, body, key=f"r{self.keys}"), wire.Registered)

    def lease(self, node_id: str, incarnation: int = 1) -> wire.LeaseAck:
        index = self.index.get(node_id, -1)
        asked = self.ask(node_id, wire.Lease(node_id, incarnation, index))
        # A read barrier takes a turn of the reactor, and may share a question with the next.
        for seconds in (0, PATIENT_S, 0):
            if not asked.called:
                self.world.clock.advance(seconds)
        ack = wire.expect(self.successResultOf(asked), wire.LeaseAck)
        self.index[node_id] = ack.assignments_index
        return ack

    def run_for(self, seconds: float) -> None:
        steps = round(seconds / 0.1)
        for step in range(steps):
            if step % 4 == 0:
                for node_id in self.renewing:
                    self.lease(node_id)
            self.world.clock.advance(0.1)

    def run_until(self, condition: Callable[[], bool]) -> None:
        """Run until it holds; after 30 s it never will."""
        for _ in range(300):
            if condition():
                return
            self.run_for(0.1)
        self.fail("what was waited for did not happen within 30 s")

    def report(self, node_id: str, outcome: str, epoch: int = 1, **more: Any) -> wire.TenantReport:
        return wire.TenantReport(node_id, more.pop("incarnation", 1), T1, epoch, outcome, **more)

    def place(self, min_epoch: int = 0) -> wire.Route:
        found = self.answer("g", wire.LookupRoute(tenant_id=T1, place=True, min_epoch=min_epoch))
        return wire.expect(found, wire.RouteFound).route

    @property
    def tenant(self) -> Any:
        return self.world.registry.tenant(T1)
