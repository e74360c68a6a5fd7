"""The nodes as this gateway finds them: breakers, health questions, suspicion, doubted routes.

When a breaker opens, the node's routes are doubted (each next request asks the control plane for a
living owner) and the control plane is told of the suspicion, a hint that lets it look sooner. If
most nodes seem to be away, it is rather this machine's network: then neither is done, and requests
are held until something answers.

Nodes whose breaker is not closed are asked for their health; two good answers close it. So are
nodes in use that say nothing; three missing answers in a row open it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from pbcluster.errors import PBClusterError
from pbcluster.gateway.breaker import (
    CHECK_TIMEOUT_S,
    PROBE_S,
    Breaker,
    Change,
    State,
    Ticket,
    Uniform,
)
from pbcluster.gateway.breakers import Breakers, NodeKey
from pbcluster.gateway.routes import RouteCache
from pbcluster.transport.interfaces import ControlPlaneClient
from pbcluster.wire import Route, SuspectNode

#: Breakers are looked at so often; much shorter than their shortest wait.
TICK_S = 0.1
#: One node is reported at most so often: the control plane's own doubt takes about as long.
SUSPECT_EVERY_S = 0.5
SUSPECT_TIMEOUT_S = 2.0
MAX_REASON = 200
#: Addresses remembered for health questions, as many as breakers.
MAX_ADDRESSES = 4096

log = Logger(__name__)

#: Asks a node, by its id, at a base URL for its health within so many seconds: True or False, never
#: fails.
HealthQuestion = Callable[[str, str, float], Awaitable[bool]]


class Nodes:
    """See the module.

    :ivar breakers: the pure part. :ivar suspected: reports made.
    """

    def __init__(
        self,
        clock: IReactorTime,
        client: ControlPlaneClient,
        routes: RouteCache,
        health: HealthQuestion,
        random: Uniform,
    ) -> None:
        self.breakers = Breakers(random)
        self.suspected = 0
        self._clock = clock
        self._client = client
        self._routes = routes
        self._health = health
        #: Node and incarnation → base URL.
        self._addresses: dict[tuple[str, int], str] = {}
        self._reported: dict[str, float] = {}
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = clock

    def start(self) -> None:
        """Begin to ask for the health of nodes that do not answer, or say nothing."""
        ticking = self._ticking.start(TICK_S, now=False)
        ticking.addErrback(lambda failure: log.failure("health questions ended", failure=failure))

    def stop(self) -> None:
        """Ask no more."""
        if self._ticking.running:
            self._ticking.stop()

    # -- requests ---------------------------------------------------------------------------------

    def admit(self, route: Route, now: float, *, safe: bool) -> Ticket | None:
        """Leave to send a request to the route's node; None: not now.

        :param now: seconds of the clock. :param safe: see ``Breaker.admit``.
        """
        return self.breaker(route, now).admit(now, safe=safe)

    def breaker(self, route: Route, now: float) -> Breaker:
        """The breaker of the route's node. Who makes many attempts asks it itself, and tells
        :meth:`changed` what came of its verdicts."""
        life = (route.node_id, route.incarnation)
        if life not in self._addresses:
            self._remember(life, route.address)
        return self.breakers.of_life(life, now)

    def changed(self, route: Route, change: Change) -> None:
        """The breaker of the route's node changed."""
        self._changed(_key(route), change)

    def state(self, route: Route) -> State:
        """Its breaker's state."""
        return self._of(route).state

    def failed(self, route: Route, ticket: Ticket, why: str, *, unreachable: bool) -> None:
        """The node did not answer.

        :param unreachable: no connection: the control plane hears of it before the breaker opens.
        """
        change = self._of(route).failed(ticket, self._clock.seconds(), why)
        self._changed(_key(route), change)
        if unreachable and not self.breakers.most_are_open():
            self._suspect(_key(route), why)

    def slow(self, route: Route, ticket: Ticket) -> None:
        """The tenant did not answer in time."""
        now = self._clock.seconds()
        self._changed(_key(route), self._of(route).slow(ticket, now, route.tenant_id))

    def dropped(self, route: Route, ticket: Ticket) -> None:
        """The attempt says nothing of the node."""
        self._of(route).dropped(ticket, self._clock.seconds())

    def _of(self, route: Route) -> Breaker:
        return self.breakers.of(route.node_id, route.incarnation, self._clock.seconds())

    def _remember(self, life: tuple[str, int], address: str) -> None:
        self._addresses[life] = address
        if len(self._addresses) > MAX_ADDRESSES:
            del self._addresses[next(iter(self._addresses))]

    # -- the control plane's word -----------------------------------------------------------------

    def down(self, node_id: str, incarnation: int) -> None:
        """It says that the node is down."""
        change = self.breakers.node_down(node_id, incarnation, self._clock.seconds())
        self._log(NodeKey(node_id, incarnation), change)
        self._routes.doubt_node(node_id, incarnation)

    def up(self, node_id: str, incarnation: int) -> None:
        """It says that the node is up, perhaps in a new life."""
        self.breakers.node_up(node_id, incarnation, self._clock.seconds())
        self._routes.doubt_node(node_id, incarnation - 1)

    # -- changes ----------------------------------------------------------------------------------

    def _changed(self, key: NodeKey, change: Change | None) -> None:
        self._log(key, change)
        if change is None or change.after is not State.OPEN or change.before is State.OPEN:
            return
        if self.breakers.most_are_open():
            log.warn("most nodes do not answer: is it this machine's network?")
            return
        self._routes.doubt_node(key.node_id, key.incarnation)
        self._suspect(key, change.why)

    def _log(self, key: NodeKey, change: Change | None) -> None:
        if change is not None:
            log.info(
                "breaker of {node} ({incarnation}): {before} to {after}: {why}",
                node=key.node_id,
                incarnation=key.incarnation,
                before=change.before.value,
                after=change.after.value,
                why=change.why,
            )

    def _suspect(self, key: NodeKey, why: str) -> None:
        now = self._clock.seconds()
        if now - self._reported.get(key.node_id, float("-inf")) < SUSPECT_EVERY_S:
            return
        self._reported = {node: at for node, at in self._reported.items() if now - at < 60.0}
        self._reported[key.node_id] = now
        self.suspected += 1
        report = SuspectNode(key.node_id, key.incarnation, why[:MAX_REASON])
        told = Deferred.fromCoroutine(self._tell(report))
        told.addErrback(lambda failure: log.failure("a suspicion failed", failure=failure))

    async def _tell(self, report: SuspectNode) -> None:
        try:
            await self._client.ask(report, timeout_s=SUSPECT_TIMEOUT_S)
        except PBClusterError as error:
            log.info("nobody heard that we suspect a node: {error}", error=error.message)

    # -- health -----------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = self._clock.seconds()
        for key, breaker in self.breakers.all():
            address = self._addresses.get((key.node_id, key.incarnation))
            if address is None:
                continue
            before = breaker.state
            ticket = breaker.admit_health(now)
            if breaker.state is not before:
                self._log(key, Change(before, breaker.state, breaker.why))
            if ticket is not None:
                limit_s = CHECK_TIMEOUT_S if before is State.CLOSED else PROBE_S
                asked = Deferred.fromCoroutine(self._ask(key, breaker, ticket, address, limit_s))
                asked.addErrback(lambda failure: log.failure("a health question", failure=failure))

    async def _ask(
        self, key: NodeKey, breaker: Breaker, ticket: Ticket, address: str, limit_s: float
    ) -> None:
        healthy = await self._health(key.node_id, address, limit_s)
        now = self._clock.seconds()
        if healthy:
            change = breaker.succeeded(ticket, now)
        else:
            change = breaker.failed(ticket, now, "no answer to the question for its health")
        if change is not None and change.before is State.CLOSED:
            self._changed(key, change)
        else:
            self._log(key, change)


def _key(route: Route) -> NodeKey:
    return NodeKey(route.node_id, route.incarnation)
