"""Judges what clients of the control plane saw: nothing lost, nothing doubled, nothing stale. Pure.

A history is a list of :class:`Operation`, each with the moments at which its client asked and had
the answer. What is promised, and so what is checked:

* *lost*: a creation that was acknowledged is in the final list.
* *doubled*: a name stands once in the final list; an idempotency key made one tenant, however often
  and at whichever member it was used.
* *stale*: a ``GET`` of a tenant that was asked for after the acknowledgement of its creation had
  arrived finds it. Each member promises this (a read barrier comes before the answer).
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

CREATE, READ = "create", "read"
#: What became of it: done, found nothing (reads), refused for good, or nobody knows.
OK, MISSING, REFUSED, UNKNOWN = "ok", "missing", "refused", "unknown"


@attrs.frozen
class Operation:
    """One request of one client.

    :ivar kind: ``create`` or ``read``. :ivar name: the tenant's name.
    :ivar invoked: and ``returned``: seconds of one monotonic clock.
    :ivar outcome: ``ok``, ``missing``, ``refused`` or ``unknown``.
    :ivar tenant_id: what the answer says; empty without one.
    :ivar key: the idempotency key of a creation.
    :ivar member: who was asked.
    """

    kind: str
    name: str
    invoked: float
    returned: float
    outcome: str
    tenant_id: str = ""
    key: str = ""
    member: str = ""


@attrs.frozen
class Verdict:
    """A sentence for each broken promise, by kind."""

    acknowledged: int
    reads: int
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
    return Verdict(
        acknowledged=len({each.name for each in acked}),
        reads=sum(each.outcome in (OK, MISSING) for each in reads),
        lost=_lost(acked, final),
        doubled=_doubled(acked, final),
        stale=_stale(acked, reads),
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
    since: dict[str, float] = {}
    for each in acked:
        since[each.name] = min(each.returned, since.get(each.name, each.returned))
    return tuple(
        f"{read.name} was acknowledged {read.invoked - since[read.name]:.3f} s before "
        f"{read.member or 'a member'} was asked, and did not find it"
        for read in reads
        if read.outcome == MISSING and since.get(read.name, read.invoked) < read.invoked
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
