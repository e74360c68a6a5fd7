"""``members recover``: a new group from a saved state, after the loss of all members.

Order: a new cluster id is noted (so that what was interrupted goes on with the same one), claimed
in S3 under a condition, and only then written into the directory: of two who recover at the same
time one wins, and nothing local was changed at the other. The members' former files are moved
aside, not deleted. Nothing of it needs a member to run.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import attrs

from pbcluster import config, saved_state
from pbcluster.cli import initialise, state
from pbcluster.cli.bucket import bucket_of
from pbcluster.cli.child import Child
from pbcluster.cli.generations import claim_next
from pbcluster.cli.layout import ClusterDir, Plan, write_bytes, write_file
from pbcluster.cli.spec import specs
from pbcluster.errors import ConfigError, DeadlineExceeded
from pbcluster.generations import SETTLE_S

#: SeaweedFS serves after 3 s.
_S3_WITHIN_S = 60.0
_POLL_S = 0.1


def recover(
    where: ClusterDir,
    plan: Plan,
    file: Path,
    shown: Callable[[str], None],
    pause: Callable[[float], None] = time.sleep,
    *,
    of: str = "",
    settle_s: float = SETTLE_S,
) -> Plan:
    """Write a directory whose members begin anew with the state in ``file``.

    :param shown: called with each step.
    :param pause: waits so many seconds.
    :param of: another cluster whose file it may be.
    :param settle_s: how long nodes of the former cluster may take to end.
    :returns: the new plan.
    :raises ConfigError: the cluster runs, the file cannot be used, or another recovered it first.
    :raises PBClusterError: S3 did not answer; nothing was changed.
    """
    if state.supervisor(where) is not None or state.living(where):
        raise ConfigError(
            f"the cluster in {where.root} is running: stop it first with `pbcluster down --dir "
            f"{where.root}`"
        )
    saved = saved_state.read(file)
    if saved.cluster_id not in (plan.cluster_id, of):
        raise ConfigError(
            f"{file} is of cluster {saved.cluster_id}, this directory has {plan.cluster_id}: to "
            "begin with another cluster's state, or one from before a recovery, say --of "
            f"{saved.cluster_id}"
        )
    fresh = attrs.evolve(plan, cluster_id=_new_id(where, plan))
    with s3_running(where, plan, shown):
        now = datetime.now(UTC)
        claimed = claim_next(bucket_of(where, plan), plan.cluster_id, fresh.cluster_id, now)
    shown(f"claimed generation {claimed.generation} in S3 for {fresh.cluster_id}")
    for member in plan.of("member"):
        _move_aside(where, member.id, plan.cluster_id)
        write_bytes(where.data(member.id) / config.RECOVERED, saved_state.pack(saved))
        initialise.begin(where, member.id, "recover")
    initialise.write_all(where, fresh)
    _note(where).unlink(missing_ok=True)
    if settle_s:
        shown(f"waiting {settle_s:.0f} s, until nodes of the former cluster have ended")
        pause(settle_s)
    return fresh


def _note(where: ClusterDir) -> Path:
    return where.run / "recovering"


def _new_id(where: ClusterDir, plan: Plan) -> str:
    """The id of the new cluster: the one that an interrupted attempt took, or a new one."""
    note = _note(where)
    with contextlib.suppress(OSError):
        former, _, noted = note.read_text(encoding="utf-8").strip().partition(" ")
        if former == plan.cluster_id and noted:
            return noted
    fresh = f"cluster_{secrets.token_hex(8)}"
    write_file(note, f"{plan.cluster_id} {fresh}\n")
    return fresh


def _move_aside(where: ClusterDir, member: str, former: str) -> None:
    """A second time, after an interruption, there is nothing left to move but what we wrote."""
    data = where.data(member)
    aside = data.with_name(f"{member}.of-{former}")
    if data.exists() and not aside.exists():
        data.rename(aside)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)


@contextlib.contextmanager
def s3_running(where: ClusterDir, plan: Plan, shown: Callable[[str], None]) -> Iterator[None]:
    """The cluster's own S3 runs meanwhile.

    :raises DeadlineExceeded: it does not serve.
    """
    spec = next(spec for spec in specs(where, plan) if spec.kind == "s3")
    child = Child(spec)
    shown("starting S3")
    child.start()
    try:
        until = time.monotonic() + _S3_WITHIN_S
        while not child.serving():
            if child.ended() is not None or time.monotonic() > until:
                raise DeadlineExceeded(f"S3 does not serve; its log ends:\n{child.tail()}")
            time.sleep(_POLL_S)
        yield
    finally:
        child.stop()
