"""What the control plane tells unasked: broadcasts, and what to do when some were missed.

A gap means that any remembered route may be outdated. They stay in use (a node refuses what is not
its own) while today's routes of all of them are asked for, in pages, in the background; a snapshot
older than the gap is refused and asked for again. One refresh runs at a time; a gap during it makes
it run once more.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from pbcluster.errors import PBClusterError
from pbcluster.gateway.nodes import Nodes
from pbcluster.gateway.routes import RouteCache
from pbcluster.transport.interfaces import ControlPlaneClient, Subscriber
from pbcluster.wire import Broadcast, Route, Snapshot, SnapshotRequest, expect

#: Tenants in one question; its answer is about 250 KiB, a quarter of a frame.
PAGE = 500
PAGE_TIMEOUT_S = 5.0
#: After a page that could not be had, or was too old, it is asked for again after so long.
AGAIN_S = 0.5

log = Logger()


class Updates:
    """Keeps routes and breakers in step with the control plane.

    :ivar gaps: since the start. :ivar received: broadcasts since the start.
    """

    def __init__(
        self,
        clock: IReactorTime,
        subscriber: Subscriber,
        client: ControlPlaneClient,
        routes: RouteCache,
        nodes: Nodes,
        moved: Callable[[Route], None],
        members_changed: Callable[[int], None],
        keys_changed: Callable[[int], None],
        confirmed: Callable[[Route], None] = lambda route: None,
    ) -> None:
        """
        :param moved: called with each new route: whoever waits for that tenant looks again.
        :param members_changed: called with the index at which the control plane's members changed.
        :param keys_changed: called with the index at which the keys of platform tokens changed, or
            may have.
        :param confirmed: called with a route that is right though it is no new one.
        """
        self.gaps = 0
        self.received = 0
        self._clock = clock
        self._subscriber = subscriber
        self._client = client
        self._routes = routes
        self._nodes = nodes
        self._moved = moved
        self._members_changed = members_changed
        self._keys_changed = keys_changed
        self._confirmed = confirmed
        self._gap_index = 0
        self._refresh: Deferred[None] | None = None
        self._refresh_again = False

    def start(self) -> None:
        """Subscribe."""
        self._subscriber.start(self._broadcast, self._gap)

    def stop(self) -> None:
        """Hear nothing more."""
        self._subscriber.stop()
        if self._refresh is not None:
            self._refresh.cancel()

    # -- broadcasts -------------------------------------------------------------------------------

    def _broadcast(self, event: Broadcast) -> None:
        self.received += 1
        now = self._clock.seconds()
        match event.topic:
            case "tenant.moved" if event.route is not None:
                if self._routes.put(event.route, event.index, now):
                    self._moved(event.route)
            case "tenant.updated" if event.route is not None:
                # Other host names or bounds, the same node; or it was to move and stays.
                self._routes.put(event.route, event.index, now)
                self._confirmed(event.route)
            case "tenant.moved" | "tenant.updated":
                self._routes.expire(event.tenant_id)
            case "tenant.deleted":
                self._routes.forget(event.tenant_id, now)
            case "node.down":
                self._nodes.down(event.node_id, event.incarnation)
            case "node.up":
                self._nodes.up(event.node_id, event.incarnation)
            case "members.changed":
                self._members_changed(event.index)
            case "keys.changed":
                self._keys_changed(event.index)
            case _:
                pass  # tenant.migrating, node.draining: nothing changes before the next event

    # -- gaps -------------------------------------------------------------------------------------

    def _gap(self, index: int) -> None:
        self.gaps += 1
        self._gap_index = index
        self._keys_changed(index)
        if self._refresh is not None:
            self._refresh_again = True
            return
        refresh = Deferred.fromCoroutine(self._refresh_all())
        if not refresh.called:
            self._refresh = refresh
        refresh.addErrback(self._refresh_failed)

    def _refresh_failed(self, failure: object) -> None:
        self._refresh = None
        if not isinstance(getattr(failure, "value", None), CancelledError):
            log.failure("refreshing the routes failed", failure)  # type: ignore[arg-type]

    async def _refresh_all(self) -> None:
        while True:
            self._refresh_again = False
            tenants = self._routes.tenant_ids()
            for begin in range(0, len(tenants), PAGE):
                await self._refresh_page(tenants[begin : begin + PAGE])
            if not self._refresh_again:
                break
        self._refresh = None

    async def _refresh_page(self, tenants: tuple[str, ...]) -> None:
        while not self._refresh_again:
            try:
                answer = await self._client.ask(
                    SnapshotRequest(tenants), timeout_s=PAGE_TIMEOUT_S, any_member=True
                )
                snapshot = expect(answer, Snapshot)
            except PBClusterError as error:
                log.info("no snapshot of the routes: {error}", error=error.message)
            else:
                if snapshot.index >= self._gap_index:
                    self._routes.put_snapshot(tenants, snapshot, self._clock.seconds())
                    for route in snapshot.routes:
                        self._moved(route)
                    return
            await deferLater(self._clock, AGAIN_S)
