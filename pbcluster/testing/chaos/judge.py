"""Judges one round: what was promised to clients, and was it so. Pure.

* *lost*: what was acknowledged is in the rows at the end and in the replica, but for what was
  acknowledged as ``local`` or ``async``: that may lack in the replica, and with a story that takes
  its disk away, in the rows.
* *doubled*: a key stands once; a half of a pair once.
* *torn*: both halves of a pair are there or none; each row has the text of its key.
* *invented*: whatever is there was asked for and not refused; a register has no value that nobody
  wrote.
* *stale*: a read that began after an acknowledgement had arrived finds what was acknowledged,
  whoever reads, by the gateway or at any node that answers.
* *backwards*: what one read saw, every read that begins after its answer sees, or something newer.
  By default a read may show a write that is not in S3 yet, and a node that dies takes such a write
  with it: this is promised of what is acknowledged in the end, and of everything where tenants have
  durable reads. What else vanished is counted.
* *owners*: no two nodes answer for one tenant (``owners``).
* *failed*: every request has its answer, but for what the story permits.
* *damaged*: the database that is restored from S3 is whole.

A write without a clear answer may have been done or not. It can be neither lost nor invented, but
it can be doubled or torn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import attrs

from pbcluster.testing.chaos.history import (
    CREATE,
    HALVES,
    LOOK,
    PAIR,
    READ,
    UPDATE,
    WHOLE,
    WRITES,
    History,
    Operation,
    Row,
    value_of,
)
from pbcluster.testing.chaos.owners import two_owners

#: What is promised of a replica at any time.
_IN_S3 = "s3"
KINDS = (
    *("lost", "doubled", "torn", "invented", "stale", "backwards"),
    *("owners", "failed", "damaged"),
)


@attrs.frozen(kw_only=True)
class Permits:
    """Failed requests that a story is not blamed for.

    :ivar writes: statuses that a write may have, 0 being none at all; ``reads`` alike.
    :ivar most_writes: so many at most, in a round; ``most_reads`` alike.
    :ivar plane: whether the admin API and look-ups may fail.
    :ivar local_loss: whether what was acknowledged as ``local`` or ``async`` may be lost.
    """

    writes: frozenset[int] = frozenset()
    reads: frozenset[int] = frozenset()
    most_writes: int = 10**9
    most_reads: int = 10**9
    plane: bool = False
    local_loss: bool = False


NOTHING = Permits()


@attrs.frozen(kw_only=True)
class Verdict:
    """A sentence for each broken promise, by kind; and how much was promised.

    :ivar failed_requests: of tenants, permitted ones too.
    :ivar vanished: reads that saw less than one before did, which nobody promised.
    """

    acknowledged: int
    reads: int
    probes: int
    failed_requests: int
    vanished: int = 0
    lost: tuple[str, ...] = ()
    doubled: tuple[str, ...] = ()
    torn: tuple[str, ...] = ()
    invented: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    backwards: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        return not any(getattr(self, kind) for kind in KINDS)

    def counts(self) -> dict[str, int]:
        """Kind → how often it was broken."""
        return {kind: len(getattr(self, kind)) for kind in KINDS}

    def told(self, most: int = 5) -> list[str]:
        """The broken promises, at most so many of each kind."""
        return [f"{kind}: {text}" for kind in KINDS for text in getattr(self, kind)[:most]]


def judge(
    history: History,
    permits: Permits = NOTHING,
    earlier: Iterable[Operation] = (),
    *,
    durable_reads: bool = False,
) -> Verdict:
    """Hold a round against what was promised.

    :param earlier: writes of former rounds to the same tenants, whose rows are still there.
    :param durable_reads: whether the tenants have them.
    """
    writes = [*earlier, *history.of(*WRITES)]
    reads = history.of(LOOK, READ, node=None)
    probed = [each for each in reads if each.node]
    found: dict[str, list[str]] = {kind: [] for kind in KINDS}
    vanished = 0
    for tenant in {each.tenant for each in writes} | set(history.rows):
        own = [each for each in writes if each.tenant == tenant]
        if tenant in history.rows:
            _rows(tenant, own, history.rows[tenant], found, whole=not permits.local_loss)
        if tenant in history.replicas:
            _replica(tenant, own, history.replicas[tenant], found)
        of_it = [each for each in reads if each.tenant == tenant]
        vanished += _reads(own, of_it, found, durable_reads=durable_reads)
    found["owners"] += two_owners(probed, history.claims)
    found["failed"] += _failed(history, permits)
    found["damaged"] += history.damaged
    return Verdict(
        acknowledged=sum(each.acked for each in history.of(*WRITES)),
        reads=sum(each.good and not each.node for each in reads),
        probes=sum(each.good for each in probed),
        failed_requests=sum(not each.good for each in history.of(*WRITES, LOOK, READ)),
        vanished=vanished,
        **{kind: tuple(told) for kind, told in found.items()},
    )


def _halves(kind: str) -> tuple[str, ...]:
    return HALVES if kind == PAIR else (WHOLE,)


def _rows(
    tenant: str,
    writes: Sequence[Operation],
    rows: Sequence[Row],
    found: dict[str, list[str]],
    *,
    whole: bool,
) -> None:
    """What the gateway gives at the end."""
    there = Counter((row.key, row.half) for row in rows)
    registers = {row.key: row.n for row in rows}
    for write in writes:
        promised = write.acked and (whole or write.durability in ("", _IN_S3))
        if promised:
            found["lost"] += _missing(tenant, write, there, registers)
        if write.kind == PAIR and not write.acked:
            halves = [half for half in HALVES if there[write.key, half]]
            if len(halves) == 1:
                found["torn"].append(f"{tenant}: {write.key} has the half {halves[0]} alone")
    _strange(tenant, writes, rows, found)
    found["doubled"] += [
        f"{tenant}: {key} stands {n} times" for (key, _), n in there.items() if n > 1
    ]


def _missing(
    tenant: str,
    write: Operation,
    there: Mapping[tuple[str, str], int],
    registers: Mapping[str, int],
) -> list[str]:
    if write.kind == UPDATE:
        n = registers.get(write.key, -1)
        told = f"{tenant}: register {write.key} was acknowledged as {write.n} and is {n}"
        return [told] if n < write.n else []
    gone = [half for half in _halves(write.kind) if not there.get((write.key, half))]
    how = f"acknowledged {write.durability or 'plainly'} at {write.ended_s:.3f} s"
    return [f"{tenant}: {write.key}{half}, {how}" for half in gone]


def _strange(
    tenant: str, writes: Sequence[Operation], rows: Sequence[Row], found: dict[str, list[str]]
) -> None:
    """Rows that nobody wrote, or that are not as they were written."""
    possible = {each.key for each in writes if not each.refused}
    highest: dict[str, int] = {}
    for each in writes:
        if each.kind == UPDATE and not each.refused:
            highest[each.key] = max(highest.get(each.key, 0), each.n)
    for row in rows:
        if row.key not in possible:
            found["invented"].append(f"{tenant}: {row.key}{row.half}")
        elif row.key in highest:
            if row.n > highest[row.key]:
                found["invented"].append(f"{tenant}: register {row.key} is {row.n}")
        elif row.value != value_of(row.key, row.half):
            found["torn"].append(f"{tenant}: {row.key}{row.half} is {row.value[:20]!r}…")


def _replica(
    tenant: str, writes: Sequence[Operation], rows: Sequence[Row], found: dict[str, list[str]]
) -> None:
    """What was acknowledged as being in S3 is there."""
    there = Counter((row.key, row.half) for row in rows)
    registers = {row.key: row.n for row in rows}
    for write in writes:
        if write.acked and write.durability in ("", _IN_S3):
            told = _missing(tenant, write, there, registers)
            found["lost"] += [f"not in S3: {each}" for each in told]


def _reads(
    writes: Sequence[Operation],
    reads: Sequence[Operation],
    found: dict[str, list[str]],
    *,
    durable_reads: bool,
) -> int:
    """Stale and backwards reads, by a sweep over all moments. :returns: those that vanished."""
    vanished = 0
    kept = {(each.key, each.n) for each in writes if each.acked}
    acked = sorted((each for each in writes if each.acked), key=lambda each: each.ended_s)
    answered = sorted((r for r in reads if r.status in (200, 404)), key=lambda r: r.begun_s)
    by_end = sorted((r for r in answered if r.kind == READ), key=lambda r: r.ended_s)
    known: dict[str, int] = {}
    rows: set[str] = set()
    seen: dict[str, int] = {}
    a = s = 0
    for read in answered:
        while a < len(acked) and acked[a].ended_s < read.begun_s:
            write = acked[a]
            if write.kind == UPDATE:
                known[write.key] = max(known.get(write.key, 0), write.n)
            else:
                rows.add(write.key)
            a += 1
        while s < len(by_end) and by_end[s].ended_s < read.begun_s:
            if by_end[s].status == 200:
                seen[by_end[s].key] = max(seen.get(by_end[s].key, 0), by_end[s].n)
            s += 1
        told = f"{read.client} of {read.tenant} at {read.begun_s:.3f} s"
        if read.kind == LOOK:
            _one_look(read, told, found, known=read.key in rows)
        else:
            n = read.n if read.status == 200 else -1
            if n < known.get(read.key, n):
                found["stale"].append(f"{told}: {read.key} is {n}, not {known[read.key]}")
            elif n < seen.get(read.key, n):
                if durable_reads or (read.key, seen[read.key]) in kept:
                    found["backwards"].append(f"{told}: {read.key} is {n}, was {seen[read.key]}")
                else:
                    vanished += 1
    return vanished


def _one_look(read: Operation, told: str, found: dict[str, list[str]], *, known: bool) -> None:
    if read.status == 200 and not read.right:
        found["torn"].append(f"{told}: {read.key} is not as it was written: {read.detail}")
    elif known and not (read.found and read.status == 200):
        found["stale"].append(f"{told}: {read.key} is not there")


def _failed(history: History, permits: Permits) -> list[str]:
    found: list[str] = []
    groups = (
        ((CREATE, PAIR, UPDATE), permits.writes, permits.most_writes),
        ((LOOK, READ), permits.reads, permits.most_reads),
    )
    for kinds, statuses, most in groups:
        failed = [each for each in history.of(*kinds) if not each.good]
        # A row that is missing is a stale read, and told as such.
        wrong = [e for e in failed if e.status not in statuses and e.status not in (200, 404)]
        found += [_shown(each) for each in wrong]
        if len(failed) > most:
            found.append(f"{len(failed)} {kinds[0]}s and the like failed, {most} may")
    if not permits.plane:
        plane = [each for each in history.of("admin", "lookup") if not each.good]
        found += [_shown(each) for each in plane]
    return found


def _shown(each: Operation) -> str:
    return (
        f"{each.kind} of {each.tenant} by {each.client} at {each.begun_s:.3f} s: {each.status} "
        f"after {each.took_s:.3f} s {each.detail}"
    )
