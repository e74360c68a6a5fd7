"""The routes that a gateway remembers: which node answers for which tenant.

Pure; ``now`` (seconds) comes in. What must hold:

* a route is never replaced by one of a lower epoch, or of a lower incarnation under the same epoch:
  answers of a member that is behind and late broadcasts change nothing; under the same epoch and
  incarnation the one of the higher log index counts; only a route that was read from a file (log
  index 0) gives way to whatever the control plane says;
* a route that is too old (``expired``) is still used while it is asked for anew; one that was
  contradicted (``doubted``: its node is down, or said that it does not own the tenant) is used
  again only after the control plane confirmed it or could not be reached;
* a route below ``min_epoch``, the epoch that a node told us of, is not used at all;
* what does not exist is remembered for :data:`ABSENT_S`, so that a flood of requests for unknown
  hosts does not become a flood of questions;
* everything is bounded: the route that was not used for longest goes first.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Iterable

from pbcluster.errors import Archived
from pbcluster.gateway.tenant_id import TenantKey
from pbcluster.wire import Route, Snapshot

#: About 1 KiB each: all tenants of 500 full nodes in 100 MiB.
MAX_ROUTES = 100_000
#: "No such tenant" is believed for so long.
ABSENT_S = 3.0
#: Absent keys remembered; a flood of random hosts pushes out older ones and costs no more memory.
MAX_ABSENT = 10_000


class State(enum.Enum):
    """How far a remembered route is to be trusted."""

    FRESH = "fresh"
    EXPIRED = "expired"
    DOUBTED = "doubted"


class Entry:
    """One remembered route.

    :ivar index: log index as of which the control plane told it.
    :ivar cached_at: when that was. :ivar expires_at: fresh until then. :ivar hits: uses.
    :ivar doubted: see the module. :ivar min_epoch: lowest epoch that may still be right.
    """

    def __init__(self, route: Route, index: int, cached_at: float, expires_at: float) -> None:
        self.route = route
        self.index = index
        self.cached_at = cached_at
        self.expires_at = expires_at
        self.hits = 0
        self.doubted = False
        self.min_epoch = 0

    def state(self, now: float) -> State:
        """How far it is to be trusted now."""
        if self.doubted:
            return State.DOUBTED
        return State.FRESH if now < self.expires_at else State.EXPIRED

    @property
    def usable(self) -> bool:
        """Whether it may be used when nobody can be asked."""
        return self.route.epoch >= self.min_epoch


def keys_of(route: Route) -> tuple[TenantKey, ...]:
    """All keys under which a route's tenant is found, but for its id."""
    return (
        TenantKey("name", route.name),
        *(TenantKey("domain", host) for host in route.hosts),
    )


def _newness(route: Route) -> tuple[int, int]:
    return route.epoch, route.incarnation


class RouteCache:
    """The routes of one gateway.

    :ivar hits: requests that found a route here. :ivar misses: those that did not.
    :ivar changes: how often a remembered route came, changed or went.
    """

    def __init__(self, ttl_s: float, *, max_routes: int = MAX_ROUTES) -> None:
        """
        :param ttl_s: seconds for which a route is fresh.
        """
        self.hits = 0
        self.misses = 0
        self._ttl_s = ttl_s
        self._max_routes = max_routes
        self.changes = 0
        #: The last used is the last; which that is, so that a burst of requests moves it once.
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._newest: Entry | None = None
        self._ids: dict[TenantKey, str] = {}
        self._of_node: dict[str, set[str]] = {}
        self._absent: OrderedDict[TenantKey, tuple[float, str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    # -- asking -----------------------------------------------------------------------------------

    def find(self, key: TenantKey) -> Entry | None:
        """The route under ``key``, whatever its state; counts as a use."""
        tenant_id = self._id_of(key)
        # Its own ``get`` would be looked up each time.
        entry: Entry | None = dict.get(self._entries, tenant_id)
        if entry is None:
            self.misses += 1
            return None
        self.hits += 1
        entry.hits += 1
        if entry is not self._newest:
            self._newest = entry
            self._entries.move_to_end(tenant_id)
        return entry

    def peek(self, key: TenantKey) -> Entry | None:
        """As :meth:`find`, without counting."""
        return self._entries.get(self._id_of(key))

    def _id_of(self, key: TenantKey) -> str:
        """Empty: no route under it is known."""
        return key.value if key.kind == "tenant_id" else self._ids.get(key, "")

    def is_absent(self, key: TenantKey, now: float) -> bool:
        """Whether the control plane said a moment ago that there is no such tenant."""
        absence = self._absent.get(key)
        if absence is None:
            return False
        if now < absence[0]:
            return True
        del self._absent[key]
        return False

    def archived(self, key: TenantKey) -> Archived | None:
        """What to answer instead of "no such tenant" to one that :meth:`is_absent`, if it was said
        to be archived."""
        _, told = self._absent.get(key, (0.0, ""))
        return Archived(told) if told else None

    def tenant_ids(self) -> tuple[str, ...]:
        """All tenants with a remembered route, the longest unused first."""
        return tuple(self._entries)

    def entries(self, limit: int) -> list[Entry]:
        """At most ``limit`` routes, the last used first."""
        newest_first = reversed(self._entries.values())
        return [entry for entry, _ in zip(newest_first, range(limit), strict=False)]

    # -- learning ---------------------------------------------------------------------------------

    def put(self, route: Route, index: int, now: float) -> bool:
        """Remember what the control plane said.

        :param index: log index of the answer or broadcast.
        :returns: False if something newer is known, which is kept.
        """
        known = self._entries.get(route.tenant_id)
        # What was read from a file (index 0) gives way to whatever the control plane says.
        if known is not None and known.index and _newness(route) < _newness(known.route):
            return False
        if known is not None and index < known.index and _newness(route) == _newness(known.route):
            # Late, or of a member that is behind: host names may have changed since.
            route = known.route
        entry = Entry(route, index, now, now + self._ttl_s)
        if known is not None:
            entry.hits, entry.min_epoch = known.hits, known.min_epoch
            entry.doubted = route.epoch < known.min_epoch
            entry.index = max(index, known.index)
            self._unindex(known.route)
        if known is None or known.route != route:
            self.changes += 1
        self._entries[route.tenant_id] = entry
        if known is None or known is self._newest:  # else it takes the place of the known one
            self._newest = entry
        self._of_node.setdefault(route.node_id, set()).add(route.tenant_id)
        self._absent.pop(TenantKey("tenant_id", route.tenant_id), None)
        for key in keys_of(route):
            self._ids[key] = route.tenant_id
            self._absent.pop(key, None)
        while len(self._entries) > self._max_routes:
            self._remove(next(iter(self._entries)))
        return True

    def warm(self, routes: Iterable[Route], now: float, age_s: float) -> None:
        """Remember routes of an earlier life: expired, and below whatever is known otherwise.

        :param routes: the longest unused first. :param age_s: how old they are at least.
        """
        for route in routes:
            known = self._entries.get(route.tenant_id)
            if known is not None and (known.index or _newness(route) <= _newness(known.route)):
                continue
            if any(
                key in self._ids and self._ids[key] != route.tenant_id for key in keys_of(route)
            ):
                continue  # its name passed to another tenant
            self.put(route, 0, now)
            entry = self._entries[route.tenant_id]
            entry.cached_at, entry.expires_at = now - age_s, float("-inf")

    def usable(self) -> list[Route]:
        """All routes that may be used when nobody can be asked, the longest unused first."""
        return [entry.route for entry in self._entries.values() if entry.usable]

    def set_ttl(self, ttl_s: float) -> None:
        """What comes from now on is fresh for so long."""
        self._ttl_s = ttl_s

    def put_absent(self, key: TenantKey, now: float, archived: str = "") -> None:
        """The control plane knows no tenant under ``key``, or says ``archived`` of it."""
        entry = self.peek(key)
        if entry is not None:
            self._remove(entry.route.tenant_id)
        self._absent.pop(key, None)
        self._absent[key] = (now + ABSENT_S, archived)
        if len(self._absent) > MAX_ABSENT:
            self._absent.popitem(last=False)

    def put_snapshot(self, asked: Iterable[str], snapshot: Snapshot, now: float) -> None:
        """Take over today's routes of the tenants ``asked`` for; what has none is forgotten, unless
        we heard of it after the snapshot."""
        for route in snapshot.routes:
            self.put(route, snapshot.index, now)
        found = {route.tenant_id for route in snapshot.routes}
        for tenant_id in asked:
            entry = self._entries.get(tenant_id)
            if entry is not None and tenant_id not in found and entry.index <= snapshot.index:
                self._remove(tenant_id)

    # -- doubting ---------------------------------------------------------------------------------

    def expire(self, tenant_id: str) -> None:
        """Something about the tenant changed: ask anew, go on with what is known."""
        entry = self._entries.get(tenant_id)
        if entry is not None:
            entry.expires_at = float("-inf")

    def doubt(self, tenant_id: str, min_epoch: int) -> None:
        """The tenant's node said that it is not the owner, and that it knows of ``min_epoch``."""
        entry = self._entries.get(tenant_id)
        if entry is not None:
            entry.min_epoch = max(entry.min_epoch, min_epoch)
            entry.doubted = True

    def doubt_node(self, node_id: str, up_to_incarnation: int) -> int:
        """The node is gone, or came back in a newer incarnation.

        :returns: how many routes are now doubted.
        """
        count = 0
        for tenant_id in self._of_node.get(node_id, ()):
            entry = self._entries[tenant_id]
            if entry.route.incarnation <= up_to_incarnation and not entry.doubted:
                entry.doubted = True
                count += 1
        return count

    def forget(self, tenant_id: str, now: float) -> None:
        """The tenant was deleted."""
        entry = self._entries.get(tenant_id)
        if entry is None:
            return
        self._remove(tenant_id)
        self.put_absent(TenantKey("tenant_id", tenant_id), now)
        for key in keys_of(entry.route):
            # A name may have passed to another tenant meanwhile.
            if key not in self._ids:
                self.put_absent(key, now)

    def _remove(self, tenant_id: str) -> None:
        entry = self._entries.pop(tenant_id, None)
        if entry is not None:
            self.changes += 1
            self._unindex(entry.route)

    def _unindex(self, route: Route) -> None:
        # A name may have passed to another tenant meanwhile: only our own keys go.
        for key in keys_of(route):
            if self._ids.get(key) == route.tenant_id:
                del self._ids[key]
        of_node = self._of_node.get(route.node_id)
        if of_node is not None:
            of_node.discard(route.tenant_id)
            if not of_node:
                del self._of_node[route.node_id]
