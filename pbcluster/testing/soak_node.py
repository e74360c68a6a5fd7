"""Use many tenants of a real cluster for long, by fits and starts; hold all they promised.

    python -m pbcluster.testing.soak_node --minutes 30 --tenants 50

Two nodes that stop idle tenants soon. Tenants are used in bursts, at random from a seed, so that
about a third of them is stopped at any time and the next burst wakes them: rows are written and
read, files uploaded and deleted. Beside that random replicas are restored from S3 and held against
every row acknowledged before the restore began, tenants are moved to the other node, and now and
then a node is killed with SIGKILL, by turns with everything below it and pbnode alone.

At the end every tenant is read back: no acknowledged row lost or changed, no stale read, every
uploaded file byte for byte, no deleted file served, every replica whole (``PRAGMA
integrity_check``) and with all rows, no tenant in state *failed*. The first broken promise ends
the run with the seed and the ends of the logs, exit status 1.

It judges no speed. Requests that fail without a kill are counted, not judged: under load a node may
say 503, which is no promise broken.
"""

from __future__ import annotations

import json
import math
import random
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import attrs
import click

from pbcluster.cli.http import ask
from pbcluster.errors import CallerError, PBClusterError
from pbcluster.testing import soak_litestream
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.moving_tenants import ENDS, MIGRATION_TIMEOUT_S
from pbcluster.testing.used_tenant import UsedTenant
from pbcluster.testing.workload import REQUEST_TIMEOUT_S, Failed

#: One tenant in so many is used at a time.
TENANTS_PER_BURST = 8
MIN_BURSTS_AT_ONCE = 2
BURST_S = (0.5, 2.0)
#: Of all tenants, at any time.
STOPPED_SHARE = 1 / 3
#: An idle stop comes so much later: a node looks each second.
IDLE_STOP_LATE_S = 1.0
MIN_IDLE_STOP_S = 1.0
RESTORE_EVERY_S = 2.0
#: Moves and kills come after a random time between nothing and twice this.
MOVE_EVERY_S = 5.0
KILL_EVERY_S = 60.0
PROGRESS_EVERY_S = 5.0
#: Tenants made, or read back, at once.
AT_ONCE = 4
#: A burst ends when its last request does, a restore by its own limit.
END_WITHIN_S = soak_litestream.RESTORE_TIMEOUT_S + REQUEST_TIMEOUT_S
#: Failed requests that are told in words.
MAX_TOLD = 20
_FAILED = 'pbcluster_node_tenants{state="failed"}'
_LOADS = "pbcluster_node_load_seconds_count"


class Broken(Exception):
    """A promise was broken; the text says which, and how the logs end."""


@attrs.frozen(kw_only=True)
class Wish:
    """What to do.

    :ivar seconds: how long tenants are used. :ivar idle_stop_s: 0: so that a third is stopped.
    """

    seconds: float
    tenants: int
    seed: int
    idle_stop_s: float = 0.0
    kills: bool = True
    moves: bool = True
    files: bool = True
    restores: bool = True

    @property
    def at_once(self) -> int:
        """Bursts under way at a time."""
        return max(MIN_BURSTS_AT_ONCE, self.tenants // TENANTS_PER_BURST)

    @property
    def stop_after_s(self) -> float:
        """The nodes' ``idle_stop_s``.

        A tenant is free for a share of the time, in gaps that are about exponential: it is stopped
        when it is free and its gap is that old already.
        """
        free = max(0.0, 1 - self.at_once / self.tenants)
        gap_s = sum(BURST_S) / 2 * (self.tenants / self.at_once - 1)
        wanted_s = gap_s * math.log(max(1.0, free / STOPPED_SHARE)) - IDLE_STOP_LATE_S
        return self.idle_stop_s or max(MIN_IDLE_STOP_S, wanted_s)


@attrs.define
class Figures:
    """What a run came to. :ivar wakes: loads at all nodes that run now, since they began.
    :ivar stopped: shares of tenants that were stopped, each time progress was told."""

    bursts: int = 0
    rows: int = 0
    uploads: int = 0
    deletions: int = 0
    failed_requests: int = 0
    restores: int = 0
    moves: int = 0
    moves_not_done: int = 0
    kills: int = 0
    wakes: int = 0
    stopped: list[float] = attrs.field(factory=list)
    told: list[str] = attrs.field(factory=list)

    def shown(self) -> dict[str, Any]:
        """For people and programs."""
        mean = sum(self.stopped) / len(self.stopped) if self.stopped else 0.0
        return attrs.asdict(self) | {"stopped": round(mean, 2)}


class Soak:
    """One run on a cluster of its own.

        with Soak(wish) as soak:
            soak.run()
            faults = soak.faults()

    :ivar tenants: those that are used. :ivar figures: what was done so far.
    """

    def __init__(self, wish: Wish, tell: Callable[[str], object] = print) -> None:
        """
        :param tell: called with each line of progress.
        """
        self.wish = wish
        self.figures = Figures()
        settings = {"node": {"idle_stop_s": wish.stop_after_s}}
        self.cluster = RealCluster(nodes=2, settings=settings)
        self.tenants = [UsedTenant(self.cluster, f"soak{n}") for n in range(wish.tenants)]
        self._tell = tell
        self._free = list(self.tenants)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._broken: list[str] = []
        self._move: tuple[UsedTenant, float] | None = None

    def __enter__(self) -> Soak:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self.cluster.close()

    def run(self) -> None:
        """Make the tenants and use them. :raises Broken: a promise was broken meanwhile."""
        self.cluster.start()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(UsedTenant.create, self.tenants))
        self._tell(
            f"{self.wish.tenants} tenants, {self.wish.at_once} used at a time, stopped after "
            f"{self.wish.stop_after_s:.1f} s"
        )
        threads = [
            threading.Thread(target=self._guarded, args=(work, n), daemon=True)
            for n, work in enumerate(
                [self._use] * self.wish.at_once + [self._restore] * self.wish.restores
            )
        ]
        for thread in threads:
            thread.start()
        try:
            self._guarded(self._direct, len(threads))
        finally:
            self._over.set()
            for thread in threads:
                thread.join(END_WITHIN_S)
        self._check_promises([f"{t.name} did not end" for t in threads if t.is_alive()])

    def faults(self) -> list[str]:
        """Read everything back; what was promised and is not so."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = [fault for each in pool.map(self._faults_of, self.tenants) for fault in each]
        for node in self.cluster.ids("node"):
            failed = self._figure(node, _FAILED)
            found += [f"{node} has {failed:.0f} tenants in state failed"] if failed else []
        for record in self.cluster.admin.all("tenants"):
            if record["status"] not in ("active", "idle"):
                found.append(f"{record['name']} is {record['status']}")
        return found

    def _faults_of(self, tenant: UsedTenant) -> list[str]:
        found = tenant.faults()
        try:
            soak_litestream.one_restore(self.cluster, tenant.name, tenant.acked())
        except (soak_litestream.Broken, PBClusterError) as error:
            found.append(f"{tenant.name}: {error}")
        return found

    # -- in threads of their own ------------------------------------------------------------------

    def _guarded(self, work: Callable[[random.Random], None], number: int) -> None:
        """Whatever ends one of us too early ends the run."""
        try:
            work(random.Random(f"{self.wish.seed} {number}"))
        except Exception as error:  # also a fault of the soak itself is one to be told
            self._broken.append(f"{type(error).__name__}: {error}")
            self._over.set()

    def _use(self, dice: random.Random) -> None:
        while not self._over.is_set():
            with self._lock:
                tenant = self._free.pop(dice.randrange(len(self._free)))
            done = tenant.burst(dice, dice.uniform(*BURST_S), files=self.wish.files)
            with self._lock:
                self._free.append(tenant)
                self.figures.bursts += 1
                self.figures.rows += done.rows
                self.figures.uploads += done.uploads
                self.figures.deletions += done.deletions
                self.figures.failed_requests += len(done.failed)
                told = [f"{tenant.name}: {each}" for each in done.failed]
                self.figures.told += told[: MAX_TOLD - len(self.figures.told)]
            if tenant.journal.stale:
                raise Broken(f"{tenant.name}: stale reads {tenant.journal.stale[:5]}")

    def _restore(self, dice: random.Random) -> None:
        while not self._over.wait(RESTORE_EVERY_S):
            tenant = dice.choice(self.tenants)
            soak_litestream.one_restore(self.cluster, tenant.name, tenant.acked())
            self.figures.restores += 1

    # -- in the caller's thread: a cluster's processes are started and killed by one --------------

    def _direct(self, dice: random.Random) -> None:
        """Moves, kills and progress, until the time is over."""
        now = time.monotonic()
        until, telling = now + self.wish.seconds, now
        moving = now + dice.uniform(0, 2 * MOVE_EVERY_S) if self.wish.moves else until
        killing = now + dice.uniform(0, 2 * KILL_EVERY_S) if self.wish.kills else until
        while now < until and not self._over.wait(0.1):
            if now >= moving and self._moved():
                self._begin_move(dice.choice(self.tenants))
                moving = now + dice.uniform(0, 2 * MOVE_EVERY_S)
            if now >= killing:
                self._kill(dice.choice(self.cluster.ids("node")))
                killing = now + dice.uniform(0, 2 * KILL_EVERY_S)
            if now >= telling + PROGRESS_EVERY_S:
                telling = now
                self._progress(until - now)
            now = time.monotonic()
        while not self._over.is_set() and not self._moved():
            time.sleep(0.1)
        self.figures.wakes = round(sum(self._figure(n, _LOADS) for n in self.cluster.ids("node")))

    def _begin_move(self, tenant: UsedTenant) -> None:
        try:
            here = self.cluster.admin.tenant(tenant.name)["nodeID"]
            target = next(node for node in self.cluster.ids("node") if node != here)
            path = f"/tenants/{tenant.tenant_id}/migrate"
            self.cluster.admin.request("POST", path, {"targetNode": target})
        except CallerError:
            # The target is down, or the tenant is on its way already.
            self.figures.moves_not_done += 1
        else:
            self._move = (tenant, time.monotonic() + MIGRATION_TIMEOUT_S)

    def _moved(self) -> bool:
        """Whether no move is under way. :raises Broken: one does not end."""
        if self._move is None:
            return True
        tenant, until = self._move
        seen = self.cluster.admin.request("GET", f"/tenants/{tenant.tenant_id}/migration")
        if seen["phase"] not in ENDS:
            if time.monotonic() > until:
                raise Broken(f"the move of {tenant.name} does not end: {seen}")
            return False
        self._move = None
        if seen["phase"] == "done":
            self.figures.moves += 1
        else:
            self.figures.moves_not_done += 1
            self._tell(f"the move of {tenant.name} did not happen: {seen['reason']}")
        return True

    def _kill(self, node: str) -> None:
        with_children = self.figures.kills % 2 == 0
        self.cluster.kill9(node, with_children=with_children)
        self.figures.kills += 1
        self._tell(f"{node} killed, {'with all below it' if with_children else 'alone'}")
        # Sometimes the other one takes over first, sometimes the dead one is there again before.
        self._over.wait(2.0 * (self.figures.kills % 3))
        self.cluster.start(node)

    def _progress(self, left_s: float) -> None:
        records = self.cluster.admin.all("tenants")
        idle = sum(record["status"] == "idle" for record in records)
        self.figures.stopped.append(idle / len(self.tenants))
        done = self.figures
        self._tell(
            f"{left_s:5.0f} s left: {idle} of {len(self.tenants)} stopped; {done.bursts} bursts, "
            f"{done.rows} rows, {done.uploads} files, {done.deletions} deleted, {done.restores} "
            f"restores, {done.moves} moves, {done.kills} kills, {done.failed_requests} failed"
        )

    def _figure(self, node: str, name: str) -> float:
        """The sum of a metric of a node, over its labels."""
        url = self.cluster.ready(node)["metrics"]
        text = ask("GET", f"{url}/metrics", timeout_s=10.0).body.decode()
        lines = (line for line in text.splitlines() if line.startswith(name))
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def _check_promises(self, more: Iterable[str] = ()) -> None:
        found = [*self._broken, *more]
        if found:
            raise Broken("\n".join([*found[:MAX_TOLD], self.cluster.logs()]))


def soak(wish: Wish, tell: Callable[[str], object] = print) -> Figures:
    """Run it, and read everything back.

    :param tell: called with each line of progress. :raises Broken: a promise was broken.
    """
    with Soak(wish, tell) as run:
        try:
            run.run()
            tell("reading everything back")
            found = run.faults()
        except (PBClusterError, Failed) as error:
            found = [f"{type(error).__name__}: {error}"]
        if found:
            raise Broken("\n".join([*found[:MAX_TOLD], run.cluster.logs()]))
        return run.figures


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--minutes", default=30.0, show_default=True, type=click.FloatRange(0, 10_000))
@click.option("--tenants", default=50, show_default=True, type=click.IntRange(3, 1000))
@click.option("--seed", default=None, type=int, help="Of all that is random; default: the time.")
@click.option(
    "--idle-stop-s",
    default=0.0,
    type=click.FloatRange(0, 3600),
    help="Stop a tenant after so many seconds; default: so that about a third is stopped.",
)
@click.option("--kills/--no-kills", default=True, show_default=True, help="kill -9 of nodes.")
@click.option("--moves/--no-moves", default=True, show_default=True, help="Planned moves.")
@click.option("--files/--no-files", default=True, show_default=True, help="Uploads, deletions.")
@click.option("--restores/--no-restores", default=True, show_default=True, help="From S3.")
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON; progress to stderr.")
def main(minutes: float, seed: int | None, as_json: bool, **wishes: Any) -> None:
    """The command."""
    chosen = int(time.time()) if seed is None else seed
    click.echo(f"seed {chosen}", err=as_json)
    wish = Wish(seconds=minutes * 60, seed=chosen, **wishes)
    try:
        figures = soak(wish, lambda line: click.echo(line, err=as_json)).shown()
    except Broken as error:
        if as_json:
            click.echo(json.dumps({"seed": chosen, "good": False, "broken": str(error)}))
        raise click.ClickException(f"seed {chosen}: {error}") from None
    if as_json:
        click.echo(json.dumps({"seed": chosen, "good": True} | figures))
        return
    for line in figures.pop("told"):
        click.echo(f"failed request: {line}")
    click.echo(", ".join(f"{name} {value}" for name, value in figures.items()))
    click.echo("nothing lost, changed, stale, or served after its deletion")


if __name__ == "__main__":
    main()
