"""Asking the control plane for routes: one question a tenant at a time, whatever the crowd.

* A remembered route is used at once; when it is too old, it is asked for anew in the background.
* Who asks first asks any member; "not found" counts only from the leader, which also gives a tenant
  without a living node one (``place``). So a tenant can be reached from the moment it was created.
* While the control plane cannot be asked, a stale route is better than none: a node refuses what is
  not its own. Only after a node said itself that it is not the owner, nothing older will do.

It does not wait longer than one question takes; who holds a request asks again.
"""

from __future__ import annotations

from typing import Literal

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from pbcluster.errors import (
    Archived,
    Busy,
    DeadlineExceeded,
    NotFound,
    PBClusterError,
    Unavailable,
)
from pbcluster.gateway.routes import Entry, RouteCache, State
from pbcluster.gateway.tenant_id import TenantKey
from pbcluster.transport.interfaces import ControlPlaneClient
from pbcluster.wire import Route, RouteFound, expect

#: One question, retries at other members included. A take-over usually ends within it.
LOOKUP_TIMEOUT_S = 3.0
#: Questions under way at once; a flood of unknown hosts is answered 503 beyond it.
MAX_LOOKUPS = 1_000
#: What was confirmed so recently is not asked for again: hundreds of held requests share an answer.
JUST_CONFIRMED_S = 0.05
#: After a question that nobody answered, stale routes are used without waiting, for so long.
AWAY_S = 2.0

log = Logger(__name__)
Source = Literal["cache", "lookup", "stale"]
#: Key, whether to place the tenant, lowest epoch.
_Question = tuple[TenantKey, bool, int]


@attrs.frozen
class Found:
    """A route and where it is from."""

    route: Route
    source: Source


class Lookups:
    """Finds routes.

    :ivar asked: questions sent. :ivar failed: those without an answer. :ivar stale: uses of stale
        routes.
    """

    def __init__(self, clock: IReactorTime, client: ControlPlaneClient, routes: RouteCache) -> None:
        self.asked = 0
        self.failed = 0
        self.stale = 0
        self._clock = clock
        self._client = client
        self._routes = routes
        self._under_way: dict[_Question, _Shared] = {}
        self._away_until = 0.0

    @property
    def control_plane_away(self) -> bool:
        """Whether the last question, a moment ago, found nobody."""
        return self._clock.seconds() < self._away_until

    def cached(self, key: TenantKey, now: float | None = None) -> Route | None:
        """A remembered route that may be used at once; a waiting-free :meth:`find`."""
        entry = self._routes.find(key)
        if entry is None:
            return None
        now = self._clock.seconds() if now is None else now
        if now < entry.expires_at and not entry.doubted:
            return entry.route
        state = entry.state(now)
        if state is State.EXPIRED:
            self.refresh(key)
        return None if state is State.DOUBTED else entry.route

    async def find(self, key: TenantKey) -> Found:
        """The route to use, from memory if possible.

        :raises NotFound: there is no such tenant.
        :raises Unavailable: nobody can say, or no node can take it: ask again a little later.
        """
        entry = self._routes.peek(key)
        if entry is not None and entry.state(self._clock.seconds()) is not State.DOUBTED:
            return Found(entry.route, "cache")
        return await self.renew(key)

    async def renew(self, key: TenantKey) -> Found:
        """Today's route: what is remembered did not work.

        :raises NotFound: there is no such tenant.
        :raises Unavailable: nobody can say, or no node can take it: ask again a little later.
        """
        now = self._clock.seconds()
        if self._routes.is_absent(key, now):
            raise self._routes.archived(key) or NotFound("no tenant answers at this host name")
        entry = self._routes.peek(key)
        min_epoch = 0
        if entry is not None:
            min_epoch = entry.min_epoch
            confirmed = now - entry.cached_at < JUST_CONFIRMED_S and not entry.doubted
            if confirmed and entry.route.epoch >= min_epoch:
                return Found(entry.route, "cache")
            if self.control_plane_away and entry.route.epoch >= min_epoch:
                self.refresh(key, place=True)
                return self._stale(entry)
        try:
            route = await self._shared(key, place=entry is not None, min_epoch=min_epoch)
        except Unavailable:
            entry = self._routes.peek(key)
            if entry is None or entry.route.epoch < min_epoch:
                raise
            return self._stale(entry)
        return Found(route, "lookup")

    def refresh(self, key: TenantKey, *, place: bool = False) -> None:
        """Ask in the background."""
        question = (key, place, 0)
        if self.control_plane_away or question in self._under_way:
            return
        if len(self._under_way) < MAX_LOOKUPS:
            self._begin(question)

    def _stale(self, entry: Entry) -> Found:
        self.stale += 1
        return Found(entry.route, "stale")

    # -- one question for all who ask the same ----------------------------------------------------

    async def _shared(self, key: TenantKey, *, place: bool, min_epoch: int) -> Route:
        question = (key, place, min_epoch)
        shared = self._under_way.get(question)
        if shared is None:
            if len(self._under_way) >= MAX_LOOKUPS:
                raise Busy("too many tenants are being looked up")
            shared = self._begin(question)
        return await shared.answer()

    def _begin(self, question: _Question) -> _Shared:
        shared = self._under_way[question] = _Shared()
        Deferred.fromCoroutine(self._ask(*question)).addBoth(self._answered, question, shared)
        return shared

    def _answered(self, result: Route | Failure, question: _Question, shared: _Shared) -> None:
        del self._under_way[question]
        if isinstance(result, Failure) and not result.check(PBClusterError):
            log.failure("a look-up failed", failure=result)
        shared.tell(result)

    async def _ask(self, key: TenantKey, place: bool, min_epoch: int) -> Route:
        self.asked += 1
        question = key.question(place=place, min_epoch=min_epoch)
        try:
            answer = await self._client.ask(
                question, timeout_s=LOOKUP_TIMEOUT_S, any_member=not place
            )
            found = expect(answer, RouteFound)
        except NotFound as error:
            if not place:
                return await self._ask(key, True, min_epoch)
            told = error.message if isinstance(error, Archived) else ""
            self._routes.put_absent(key, self._clock.seconds(), told)
            raise type(error)(error.message) from None
        except PBClusterError as error:
            self.failed += 1
            if isinstance(error, DeadlineExceeded):
                self._away_until = self._clock.seconds() + AWAY_S
            raise _as_unavailable(error) from None
        self._away_until = 0.0
        return self._learned(found, key, min_epoch)

    def _learned(self, found: RouteFound, key: TenantKey, min_epoch: int) -> Route:
        self._routes.put(found.route, found.index, self._clock.seconds())
        # The cache may know better than a member that is behind.
        entry = self._routes.peek(TenantKey("tenant_id", found.route.tenant_id))
        route = entry.route if entry is not None else found.route
        if route.epoch < min_epoch:
            raise Unavailable(
                f"the control plane is behind: epoch {route.epoch}, {min_epoch} is known",
                retry_after_s=0.1,
            )
        return route


def _as_unavailable(error: PBClusterError) -> Unavailable:
    """What the control plane cannot do now may work in a moment: the request is held."""
    if isinstance(error, Unavailable) and error.status == 503:
        return error
    if isinstance(error, DeadlineExceeded):
        return Unavailable("the control plane does not answer")
    log.warn("a look-up was refused: {error}", error=error.message)
    return Unavailable("the control plane gave no usable answer")


class _Shared:
    """The answer to one question, for any number of askers; each may stop waiting."""

    def __init__(self) -> None:
        self._waiting: list[Deferred[Route]] = []
        self._result: Route | Failure | None = None

    def answer(self) -> Deferred[Route]:
        """Fires with the route, or fails."""
        waiting: Deferred[Route] = Deferred(self._waiting.remove)
        if self._result is None:
            self._waiting.append(waiting)
        else:
            _give(waiting, self._result)
        return waiting

    def tell(self, result: Route | Failure) -> None:
        """The answer is there."""
        self._result = result
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            _give(each, result)


def _give(waiting: Deferred[Route], result: Route | Failure) -> None:
    if isinstance(result, Failure):
        waiting.errback(Failure(result.value))
    else:
        waiting.callback(result)
