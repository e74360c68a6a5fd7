"""Judges what clients of the control plane saw: nothing lost, nothing doubled, nothing stale. Pure.

A history is a list of :class:`Operation`, each with the moments at which its client asked and had
the answer. What is promised, and so what is checked:

* *lost*: a creation that was acknowledged is in the final list.
* *doubled*: a name stands once in the final list; an idempotency key made one tenant, however often
  and at whichever member it was used.
* *stale*: a ``GET`` of a tenant that was asked for after the acknowledgement of its creation had
  arrived finds it, under the acknowledged epoch or a later one. Each member promises this (a read
  barrier comes before the answer). A look-up of a route comes from what the asked member knows: it
  may find nothing, but never a route of a lower epoch than its ``min_epoch``.
* *changed*: a tenant has everywhere the id that was acknowledged.
* *invented*: whatever is in the list was asked for, and its creation was not refused for good.

A creation without an answer (the connection broke, or the answer says that nobody knows) may have
been done or not: it can be neither lost nor invented, but it can be doubled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

import attrs

CREATE, READ, LOOKUP = "create", "read", "lookup"
#: What became of it: done, found nothing (reads), refused for good, or nobody knows.
OK, MISSING, REFUSED, UNKNOWN = "ok", "missing", "refused", "unknown"


@attrs.frozen
class Operation:
    """One request of one client.

    :ivar kind: ``create``, ``read`` or ``lookup``. :ivar name: the tenant's name.
    :ivar invoked: and ``returned``: seconds of one monotonic clock.
    :ivar outcome: ``ok``, ``missing``, ``refused`` or ``unknown``.
    :ivar tenant_id: what the answer says; empty without one.
    :ivar key: the idempotency key of a creation.
    :ivar member: who was asked.
    :ivar epoch: of the tenant, as the answer says.
    :ivar min_epoch: what a look-up asked for.
    """

    kind: str
    name: str
    invoked: float
    returned: float
    outcome: str
    tenant_id: str = ""
    key: str = ""
    member: str = ""
    epoch: int = 0
    min_epoch: int = 0


@attrs.frozen
class Verdict:
    """A sentence for each broken promise, by kind."""

    acknowledged: int
    reads: int
    lookups: int = 0
    lost: tuple[str, ...] = ()
    doubled: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    invented: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        return not (self.lost or self.doubled or self.stale or self.changed or self.invented)


def judge(history: Iterable[Operation], final: Sequence[tuple[str, str]]) -> Verdict:
    """Hold a history against what is there at the end.

    :param final: (name, id) of all tenants, as one member lists them after the last operation.
    """
    operations = list(history)
    creations = [each for each in operations if each.kind == CREATE]
    acked = [each for each in creations if each.outcome == OK]
    reads = [each for each in operations if each.kind == READ]
    lookups = [each for each in operations if each.kind == LOOKUP and each.outcome == OK]
    return Verdict(
        acknowledged=len({each.name for each in acked}),
        reads=sum(each.outcome in (OK, MISSING) for each in reads),
        lookups=len(lookups),
        lost=_lost(acked, final),
        doubled=_doubled(acked, final),
        stale=(*_stale(acked, reads), *_behind(lookups)),
        changed=_changed(acked, reads, final),
        invented=_invented(creations, final),
    )


def _lost(acked: list[Operation], final: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    there = {name for name, _ in final}
    return tuple(sorted({each.name for each in acked if each.name not in there}))


def _doubled(acked: list[Operation], final: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    names = Counter(name for name, _ in final)
    found = [f"{name} stands {n} times in the list" for name, n in names.items() if n > 1]
    made: dict[str, set[str]] = {}
    for each in acked:
        if each.key:
            made.setdefault(each.key, set()).add(each.tenant_id)
    found += [f"key {key} made {sorted(ids)}" for key, ids in made.items() if len(ids) > 1]
    return tuple(found)


def _stale(acked: list[Operation], reads: list[Operation]) -> tuple[str, ...]:
    first: dict[str, Operation] = {}
    for each in acked:
        known = first.get(each.name)
        if known is None or each.returned < known.returned:
            first[each.name] = each
    found = []
    for read in reads:
        ack = first.get(read.name)
        if ack is None or ack.returned >= read.invoked or read.outcome not in (OK, MISSING):
            continue
        if read.outcome == MISSING or read.epoch < ack.epoch:
            seen = "did not find it" if read.outcome == MISSING else f"had epoch {read.epoch}"
            found.append(
                f"{read.name} was acknowledged under epoch {ack.epoch} "
                f"{read.invoked - ack.returned:.3f} s before {read.member} was asked, and {seen}"
            )
    return tuple(found)


def _behind(lookups: list[Operation]) -> tuple[str, ...]:
    return tuple(
        f"{each.member} gave a route of {each.name} of epoch {each.epoch}, "
        f"{each.min_epoch} was asked for"
        for each in lookups
        if each.epoch < each.min_epoch
    )


def _changed(
    acked: list[Operation], reads: list[Operation], final: Sequence[tuple[str, str]]
) -> tuple[str, ...]:
    ids = {each.name: each.tenant_id for each in acked}
    seen = [(r.name, r.tenant_id, r.member or "a read") for r in reads if r.outcome == OK]
    seen += [(name, tenant_id, "the list") for name, tenant_id in final]
    return tuple(
        f"{name} was acknowledged as {ids[name]}, {where} has {tenant_id}"
        for name, tenant_id, where in seen
        if name in ids and ids[name] != tenant_id
    )


def _invented(creations: list[Operation], final: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    possible = {each.name for each in creations if each.outcome in (OK, UNKNOWN)}
    return tuple(sorted({name for name, _ in final if name not in possible}))


def longest_wait(history: Iterable[Operation], begin: float, end: float = float("inf")) -> float:
    """The longest time without an acknowledged creation between two moments, in seconds.

    :returns: infinity if there was none after ``begin``.
    """
    acks = sorted(
        each.returned
        for each in history
        if each.kind == CREATE and each.outcome == OK and begin < each.returned <= end
    )
    return max((b - a for a, b in pairwise([begin, *acks])), default=float("inf"))
