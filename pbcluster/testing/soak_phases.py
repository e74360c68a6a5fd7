"""Kills the control plane's leader in each phase of every operation on tenants, with real parts.

    python -m pbcluster.testing.soak_phases --rounds 10

Three members, two nodes, one gateway. A round carries out every operation once for each of its
phases: *create*, *migrate*, *drain*, *archive*, *delete*. The operation is begun, its phase waited
for, the leader killed with SIGKILL and started again when the operation has ended. A phase that
lasts some milliseconds is made to last: by an S3 that is frozen until the leader is dead, or by a
request of the tenant that is open.

After each kill the operation must have ended as it was meant, or, a migration, as aborted; the
tenant must have one owner by the word of every node, and answer (or not exist, or be archived).
Meanwhile clients write to and read from a tenant that is moved and drained: no request may fail,
and every acknowledged row is read back at the end. The first broken promise ends the run with the
logs; the exit status is 1.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import attrs
import click

from pbcluster.cli.bucket import bucket_of
from pbcluster.errors import NotFound, PBClusterError
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.moving_tenants import MovingTenant, SlowWrite
from pbcluster.testing.soak_migration import wait_leader
from pbcluster.testing.workload import Client, prepare

TENANT = "soak"
EMAIL, PASSWORD = "me@example.com", "long enough 1"
POLL_S = 0.002
#: Phases that may be over before they are seen → what follows.
_AFTER = {"switching": "done"}
#: An operation ends within this time, an election and a restore on busy cores included.
END_WITHIN_S = 60.0
RATE = 5.0


class Broken(Exception):
    """Something that was promised did not hold."""


@attrs.frozen
class Kill:
    """One leader's death. :ivar seen: the phase that was seen last before."""

    operation: str
    phase: str
    seen: str
    seconds: float


class Phases:
    """A running cluster with clients, whose leaders die.

    :ivar kills: what was done.
    """

    def __init__(self, tell: Callable[[str], object] = print) -> None:
        self.tell = tell
        self.cluster = RealCluster(nodes=2, members=3)
        self.kills: list[Kill] = []
        self.threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="asker")
        self._count = 0
        self._moved: MovingTenant
        self._client: Client

    def __enter__(self) -> Phases:
        try:
            self.cluster.start()
            self.cluster.create_tenant(TENANT, EMAIL, PASSWORD)
            self._client = Client(self.cluster.gateway_url, self.cluster.host(TENANT))
            self._client.sign_in(EMAIL, PASSWORD)
            prepare(self._client)
        except BaseException:
            self.cluster.close()
            raise
        self._moved = MovingTenant(self.cluster, TENANT, writes_per_s=RATE, reads_per_s=RATE)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.threads.shutdown(wait=kind is None, cancel_futures=True)
        self.cluster.close()

    def run(self, rounds: int = 1) -> None:
        """So many rounds. :raises Broken: a promise was broken."""
        with self._moved.workload.running():
            self._moved.workload.wait_for_acks(5)
            for number in range(rounds):
                self.tell(f"round {number + 1}/{rounds}")
                for operation, phases in OPERATIONS.items():
                    for phase in phases:
                        self._one(operation, phase)

    def _one(self, operation: str, phase: str) -> None:
        what = f"{operation}, leader killed in {phase}"
        try:
            getattr(self, f"_{operation}")(phase)
        except PBClusterError as error:
            told = "\n".join((repr(error), *self._tracebacks(), self.cluster.logs()))
            raise Broken(f"{what}: {told}") from error
        failed = self._moved.journal.failures()
        if failed:
            self._broken(f"{what}: requests failed: {failed[:5]}")

    def faults(self) -> list[str]:
        """What was promised to the clients and is not so."""
        return self._moved.faults(self._client)

    def _tracebacks(self) -> list[str]:
        """What members logged of errors in their own code."""
        found: list[str] = []
        for member in self.cluster.ids("member"):
            log = self.cluster.child(member).spec.log_file.read_text(errors="replace")
            found += [f"{member}: {part[:3000]}" for part in log.split("Traceback (")[1:]][-3:]
        return found

    def _broken(self, what: str) -> None:
        raise Broken(f"{what}\n{self.cluster.logs()}")

    # -- the operations ---------------------------------------------------------------------------

    def _create(self, phase: str) -> None:
        """*asked*: while its request is under way; *placed*: on a node that waits for S3;
        *active*."""
        name = self._name("c")
        body = {"name": name, "superuser": {"email": EMAIL, "password": PASSWORD}}
        with self._killing("create", phase) as kill, self._frozen(phase == "placed"):
            asked = self._ask("POST", "/tenants?wait=0", body)
            if phase == "placed":
                kill(lambda: "placed" if self._tenant(name).get("nodeID") else "created", phase)
            elif phase == "active":
                kill(lambda: str(self._tenant(name).get("status")), phase)
            else:
                kill(lambda: "asked", phase)
        asked.result()
        found = [each for each in self.cluster.admin.all("tenants") if each["name"] == name]
        if len(found) != 1:
            self._broken(f"{len(found)} tenants are named {name}")
        self.cluster.wait_tenant(name)
        self._one_owner(name)
        self.cluster.admin.delete_tenant(name)

    def _migrate(self, phase: str) -> None:
        """*preparing*: the target waits for S3; *draining*: a request is open; *switching*;
        *done*: the old route is still there."""
        moved = self._moved
        slow = self._open_request() if phase in ("draining", "switching") else None
        with self._killing("migrate", phase) as kill, self._frozen(phase == "preparing"):
            moved.begin(moved.other_node())
            if slow is not None:
                self._until("draining", lambda: str(moved.look()["phase"]))
            if slow is not None and phase == "switching":
                slow.begin_to_finish()
            kill(lambda: str(moved.look()["phase"]), phase)
        if slow is not None:
            self._finish(slow)
        seen = moved.wait_phase("done", "aborted")
        if seen["phase"] != "done":
            # As it may, before the switch: its target could not have a copy, say.
            self.tell(f"aborted: {seen['reason']}")
        if moved.node() != seen["targetNode" if seen["phase"] == "done" else "sourceNode"]:
            self._broken(f"{moved.node()} has the tenant: {seen}")
        self._one_owner(TENANT)

    def _drain(self, phase: str) -> None:
        """*asked*: it was just committed; *preparing* and *draining* of its last tenant."""
        source = self._moved.node()
        slow = self._open_request() if phase == "draining" else None
        # A drain leaves a tenant alone that has just moved: too long for a frozen S3.
        with self._killing("drain", phase) as kill:
            self.cluster.admin.request("POST", f"/nodes/{source}/drain")
            kill(lambda: phase if phase == "asked" else self._drain_phase(source), phase)
        if slow is not None:
            self._finish(slow)
        drained = lambda: self._look(f"/nodes/{source}/drain").get("left") == 0  # noqa: E731
        self.cluster.wait_until(drained, f"{source} to be empty", END_WITHIN_S)
        self.cluster.admin.request("POST", f"/nodes/{source}/undrain")
        self._one_owner(TENANT)

    def _archive(self, phase: str) -> None:
        """*archiving*: the node waits for S3; *archived*; *activating*: while it is activated."""
        name = self._new("a")
        with self._killing("archive", phase) as kill, self._frozen(phase == "archiving"):
            self.cluster.admin.request("POST", f"/tenants/{name}/archive", {})
            if phase == "activating":
                self._until("archived", lambda: str(self._tenant(name).get("status")))
                asked = self._ask("POST", f"/tenants/{name}/activate", {})
                kill(lambda: "activating", phase)
                asked.result()
            else:
                kill(lambda: str(self._tenant(name).get("status")), phase)
        if phase != "activating":
            self._until("archived", lambda: str(self._tenant(name).get("status")))
            if self._survey(name)["found"]:
                self._broken(f"{name} is archived and runs: {self._survey(name)}")
            self.cluster.admin.activate_tenant(name)
        self.cluster.wait_tenant(name)
        self._one_owner(name)
        self.cluster.admin.delete_tenant(name)

    def _delete(self, phase: str) -> None:
        """*deleting*: the node waits for S3; *deleted*: its objects are being removed."""
        name = self._new("d")
        tenant_id = str(self.cluster.admin.tenant(name)["id"])
        path = f"/tenants/{tenant_id}?confirm={tenant_id}&purge=now"
        with self._killing("delete", phase) as kill, self._frozen(phase == "deleting"):
            self.cluster.admin.request("DELETE", path)
            kill(lambda: str(self._tenant(tenant_id).get("status", "deleted")), phase)
        left = [f"tenants/{tenant_id}/owner.json"]
        bucket = bucket_of(self.cluster.where, self.cluster.plan)
        purged = lambda: bucket.keys(f"tenants/{tenant_id}/") == left  # noqa: E731
        self.cluster.wait_until(purged, f"only {left} to be in S3", END_WITHIN_S)
        if self._tenant(tenant_id):
            self._broken(f"{tenant_id} is deleted and there: {self._tenant(tenant_id)}")
        # Its name is free.
        self.cluster.create_tenant(name, EMAIL, PASSWORD)
        self.cluster.admin.delete_tenant(name)

    # -- what they share --------------------------------------------------------------------------

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}{self._count}"

    def _new(self, kind: str) -> str:
        name = self._name(kind)
        self.cluster.create_tenant(name, EMAIL, PASSWORD)
        return name

    def _ask(self, method: str, path: str, body: dict[str, Any]) -> Future[Any]:
        """A request in a thread: the leader may die in it, and it is asked again."""
        return self.threads.submit(self.cluster.admin.request, method, path, body)

    def _look(self, path: str) -> dict[str, Any]:
        """What the admin API shows; empty: nothing now."""
        try:
            return dict(self.cluster.admin.request("GET", path))
        except PBClusterError:
            return {}

    def _tenant(self, key: str) -> dict[str, Any]:
        """The record; empty if there is none."""
        try:
            return self.cluster.admin.tenant(key)
        except NotFound:
            return {}

    def _drain_phase(self, node: str) -> str:
        moves = self._look(f"/nodes/{node}/drain").get("migrations", [])
        return str(moves[0]["phase"]) if moves else "waiting"

    def _until(self, phase: str, look: Callable[[], str]) -> str:
        """Look until it is in this phase, or just left it."""
        until = time.monotonic() + END_WITHIN_S
        while (seen := look()) not in (phase, _AFTER.get(phase)):
            if time.monotonic() >= until:
                self._broken(f"it is {seen}, not {phase}")
            time.sleep(POLL_S)
        return seen

    @contextmanager
    def _killing(
        self, operation: str, phase: str
    ) -> Iterator[Callable[[Callable[[], str], str], None]]:
        """Inside, call what is given with how to look and the phase: the leader dies in it.

        When the block ends without an error the leader is started again, and serves.
        """
        leader, began = wait_leader(self.cluster), time.monotonic()
        seen = ""

        def kill(look: Callable[[], str], wanted: str) -> None:
            nonlocal seen
            seen = self._until(wanted, look)
            self.cluster.kill9(leader)

        yield kill
        self.cluster.start(leader)
        done = Kill(operation, phase, seen, time.monotonic() - began)
        self.kills.append(done)
        self.tell(f"{operation}: leader {leader} killed in {seen}")

    @contextmanager
    def _frozen(self, wished: bool) -> Iterator[None]:
        """S3 is frozen meanwhile, if so wished."""
        if not wished:
            yield
            return
        self.cluster.freeze_s3()
        try:
            yield
        finally:
            self.cluster.start_s3()

    def _open_request(self) -> OpenRequest:
        """A write of the tenant that moves; it is at the node when this returns."""
        opened = OpenRequest(self, self._name("slow").ljust(15, "x"))
        # Others that came later were answered.
        self._moved.workload.wait_for_acks(self._moved.workload.writers * 2)
        return opened

    def _finish(self, opened: OpenRequest) -> None:
        status = opened.finish()
        if status != 200:
            self._broken(f"the open request was answered {status}")
        self._moved.journal.acked[opened.record] = SlowWrite.VALUE

    def _survey(self, key: str) -> dict[str, Any]:
        return dict(self.cluster.admin.request("GET", f"/tenants/{key}/find"))

    def _one_owner(self, key: str) -> None:
        """Every node's word: one has it, the owner, under its epoch, and nothing was amiss."""
        seen: dict[str, Any] = {}

        def one() -> bool:
            seen.update(self._survey(key))
            owners = [(each["nodeID"], each["epoch"]) for each in seen["found"]]
            return owners == [(seen["nodeID"], seen["epoch"])] and not seen["silent"]

        self.cluster.wait_until(one, f"one owner of {key}: {seen}", END_WITHIN_S)


class OpenRequest:
    """A write that is open until it is told to finish."""

    def __init__(self, phases: Phases, record: str) -> None:
        self.record = record
        self._phases = phases
        self._slow = SlowWrite(phases.cluster, TENANT, record)
        self._finished: Future[int] | None = None

    def begin_to_finish(self) -> None:
        """The rest of it is sent; its answer is not waited for."""
        if self._finished is None:
            self._finished = self._phases.threads.submit(self._slow.finish)

    def finish(self) -> int:
        """:returns: the status of its answer."""
        self.begin_to_finish()
        assert self._finished is not None
        return self._finished.result(timeout=END_WITHIN_S)


#: Operation → the phases in each of which a leader dies.
OPERATIONS: dict[str, tuple[str, ...]] = {
    "create": ("asked", "placed", "active"),
    "migrate": ("preparing", "draining", "switching", "done"),
    "drain": ("asked", "preparing", "draining"),
    "archive": ("archiving", "archived", "activating"),
    "delete": ("deleting", "deleted"),
}


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=10, show_default=True, type=click.IntRange(1, 9999))
def main(rounds: int) -> None:
    """The command."""
    try:
        with Phases(click.echo) as phases:
            phases.run(rounds)
            faults = phases.faults()
            acked = len(phases._moved.journal.acked)
    except Broken as error:
        raise click.ClickException(str(error)) from None
    if faults:
        raise click.ClickException("; ".join(faults[:5]))
    counts = Counter(f"{each.operation} {each.seen}" for each in phases.kills)
    click.echo(f"{len(phases.kills)} leaders killed: {dict(counts)}")
    click.echo(f"{acked} rows acknowledged, 0 lost, 0 requests failed")


if __name__ == "__main__":
    main()
