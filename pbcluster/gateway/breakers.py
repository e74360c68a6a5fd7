"""The breakers of all nodes that this gateway has met, one for each (node, incarnation).

Pure. A node that was started again is another node to us: what its former life did wrong is
forgotten, what is still under way toward it gives no verdict on the new one.
"""

from __future__ import annotations

import attrs

from pbcluster.gateway.breaker import Breaker, Change, State, Uniform

#: Far above any cluster; the oldest goes first.
MAX_BREAKERS = 4096
#: With fewer nodes than this, half of them being away says nothing about our own network.
NODES_TO_JUDGE = 3


@attrs.frozen
class NodeKey:
    """One life of a node."""

    node_id: str
    incarnation: int


@attrs.frozen
class Shown:
    """A breaker as operators see it, of a node or of a tenant; times in seconds."""

    node: str
    incarnation: int
    tenant: str
    state: str
    failures: int
    why: str
    since_s: float
    probe_in_s: float


def shown(
    breaker: Breaker, now: float, *, node: str = "", incarnation: int = 0, tenant: str = ""
) -> Shown:
    """A breaker as it is now."""
    waits_s = breaker.open_until - now if breaker.state is State.OPEN else 0.0
    return Shown(
        node=node,
        incarnation=incarnation,
        tenant=tenant,
        state=breaker.state.value,
        failures=breaker.failures,
        why=breaker.why,
        since_s=round(now - breaker.changed_at, 3),
        probe_in_s=round(max(0.0, waits_s), 3),
    )


class Breakers:
    """All breakers of a gateway."""

    def __init__(self, random: Uniform) -> None:
        self._random = random
        self._breakers: dict[tuple[str, int], Breaker] = {}
        self._newest: dict[str, int] = {}

    def of(self, node_id: str, incarnation: int, now: float) -> Breaker:
        """The breaker of one life of a node; made at the first sight."""
        return self.of_life((node_id, incarnation), now)

    def of_life(self, life: tuple[str, int], now: float) -> Breaker:
        """As :meth:`of`.

        :param life: the node's id and its incarnation.
        """
        found: Breaker | None = self._breakers.get(life)
        return found if found is not None else self._meet(*life, now)

    def _meet(self, node_id: str, incarnation: int, now: float) -> Breaker:
        newest = self._newest.get(node_id, incarnation)
        if incarnation > newest:
            self._breakers.pop((node_id, newest), None)
        self._newest[node_id] = max(newest, incarnation)
        breaker = Breaker(now, self._random)
        self._breakers[node_id, incarnation] = breaker
        if len(self._breakers) > MAX_BREAKERS:
            oldest = next(iter(self._breakers))
            del self._breakers[oldest]
            if self._newest.get(oldest[0]) == oldest[1]:
                del self._newest[oldest[0]]
        return breaker

    def node_down(self, node_id: str, incarnation: int, now: float) -> Change | None:
        """The control plane says that this life of the node has ended or is not heard of."""
        return self.of(node_id, incarnation, now).force_open(now, "the control plane says down")

    def node_up(self, node_id: str, incarnation: int, now: float) -> None:
        """The control plane says that the node lives: whoever waits looks again."""
        self.of(node_id, incarnation, now).look_again(now)

    def all(self) -> list[tuple[NodeKey, Breaker]]:
        """Every breaker and whose it is."""
        return [(NodeKey(*key), breaker) for key, breaker in self._breakers.items()]

    def most_are_open(self) -> bool:
        """Whether so many nodes are away that our own network is to be suspected instead."""
        newest = [self._breakers.get(key) for key in self._newest.items()]
        known = [breaker for breaker in newest if breaker is not None]
        away = sum(breaker.state is not State.CLOSED for breaker in known)
        return len(known) >= NODES_TO_JUDGE and 2 * away > len(known)

    def show(self, now: float) -> list[Shown]:
        """All of them, by node."""
        return [
            shown(breaker, now, node=node_id, incarnation=incarnation)
            for (node_id, incarnation), breaker in sorted(self._breakers.items())
        ]
