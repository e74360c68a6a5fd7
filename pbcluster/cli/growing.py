"""The cluster directory when a member joins or leaves while the cluster runs.

First the files of the new member are there, then the control plane is asked, then the supervisor
reads the plan again and starts or stops the process. What fails in between can be done again: an
answer that got lost is asked for again, and a member that never came is removed like any other.
"""

from __future__ import annotations

import contextlib
import re
import signal
import time
from collections.abc import Callable
from typing import Any

import attrs

from pbcluster import config
from pbcluster.cli import initialise, procfs, state
from pbcluster.cli.admin import AdminClient
from pbcluster.cli.layout import ClusterDir, Plan, Process
from pbcluster.cli.ports import Picker
from pbcluster.config import checks
from pbcluster.errors import (
    CallerError,
    ConfigError,
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    PBClusterError,
)

_NUMBER = re.compile(r"member_(\d+)")
#: From its start to its vote: some seconds, and a snapshot of many tenants.
VOTES_WITHIN_S = 120.0
_POLL_S = 0.2


def next_id(where: ClusterDir, plan: Plan) -> str:
    """A name that no member of this directory ever had."""
    folders = (where.root / "data").glob("member_*")
    names = [*(folder.name for folder in folders), *(p.id for p in plan.of("member"))]
    numbers = [int(found[1]) for name in names if (found := _NUMBER.match(name))]
    return f"member_{max(numbers, default=0) + 1}"


def grown(plan: Plan, name: str) -> Plan:
    """The plan with one more member, on free ports.

    :raises InvalidInput: there is a process of this name.
    """
    if name in (process.id for process in plan.processes):
        raise InvalidInput(f"there is a process {name!r} already", field="id", allowed="a new name")
    checks.process_id(name)
    picker = Picker(plan.gateway_port, plan.admin_port, None, plan.host)
    picker.reserve([port for process in plan.processes for port in process.ports.values()])
    uses = ("admin", *initialise.MEMBER_USES)
    fresh = Process("member", name, {use: picker.take(use) for use in uses})
    last = max(plan.processes.index(member) for member in plan.of("member"))
    processes = (*plan.processes[: last + 1], fresh, *plan.processes[last + 1 :])
    return attrs.evolve(plan, processes=processes)


def shrunk(plan: Plan, name: str) -> Plan:
    """The plan without a member."""
    return attrs.evolve(plan, processes=tuple(p for p in plan.processes if p.id != name))


def record_of(where: ClusterDir, plan: Plan, name: str) -> dict[str, Any]:
    """What the control plane must know of a new member."""
    process = plan.process(name)
    peers = config.load_peers(where.peers_file)
    return {
        "id": process.id,
        "raft": f"tcp://{plan.host}:{process.ports['raft']}",
        "requests": f"tcp://{plan.host}:{process.ports['requests']}",
        "broadcasts": f"tcp://{plan.host}:{process.ports['broadcasts']}",
        "admin": f"{plan.admin_scheme}://{plan.host}:{process.ports['admin']}",
        "curve_public": peers[process.id].curve_public,
    }


def add(where: ClusterDir, plan: Plan, client: AdminClient, name: str) -> Plan:
    """Let a new member of this machine join the running cluster; it has no vote yet.

    After an unknown outcome it may be called again with the same name.

    :returns: the plan with it.
    :raises CallerError: the control plane says no; nothing is left of it then.
    :raises PBClusterError: whether it joined is unknown.
    """
    if plan.joined:
        raise ConfigError(
            f"{where.root} was made by `pbcluster join`: a member of another machine joins by a "
            "token (`pbcluster join-tokens create --role member` on the first host)"
        )
    who = _supervisor(where)
    began = _joins(where, name)
    bigger = plan if began and name in (p.id for p in plan.processes) else grown(plan, name)
    if not began and where.data(name).is_dir() and any(where.data(name).iterdir()):
        raise InvalidInput(
            f"{where.data(name)} holds the files of a former {name}: an id never comes back; "
            "choose another name",
            field="id",
            allowed="a name that was never used",
        )
    initialise.write_all(where, bigger)
    initialise.begin(where, name, "join")
    try:
        client.request(
            "POST",
            "/members",
            record_of(where, bigger, name),
            timeout_s=20.0,
        )
    except CallerError:
        known = _ids(client)
        if known is None:
            raise  # then its files stay: perhaps it is one
        if name in known:
            # It was taken: a repetition met its own first attempt.
            procfs.send(who, signal.SIGUSR1)
            return bigger
        (where.data(name) / config.FIRST_START).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something else lies there
            where.data(name).rmdir()
        for file in (where.config(name), where.secrets(name)):
            file.unlink(missing_ok=True)
        initialise.write_all(where, shrunk(bigger, name))
        raise
    procfs.send(who, signal.SIGUSR1)
    return bigger


def _ids(client: AdminClient) -> list[str] | None:
    """Ids of all members; None: nobody says."""
    try:
        return [str(row.get("id")) for row in client.all("members")]
    except PBClusterError:
        return None


def _joins(where: ClusterDir, name: str) -> bool:
    """Whether a member of this name was prepared and never started."""
    marker = where.data(name) / config.FIRST_START
    return marker.exists() and marker.read_text(encoding="utf-8").strip() == "join"


def remove(where: ClusterDir, plan: Plan, client: AdminClient, name: str) -> None:
    """Take a member out of the group, then out of the plan; its data stays where it is.

    :raises PBClusterError: what the control plane answered.
    """
    try:
        client.request("DELETE", f"/members/{name}", timeout_s=20.0)
    except NotFound:
        # Perhaps it never came to be one: then the plan is all that knows it.
        if name not in (member.id for member in plan.of("member")):
            raise
    if plan.joined or name not in (member.id for member in plan.of("member")):
        return
    initialise.write_all(where, shrunk(plan, name))
    who = state.supervisor(where)
    if who is not None:
        procfs.send(who, signal.SIGUSR1)


def wait_votes(client: AdminClient, name: str, shown: Callable[[str], None]) -> None:
    """Wait until a new member has its vote.

    :param shown: called with how far it is, whenever that changes.
    :raises DeadlineExceeded: it takes too long; it goes on by itself.
    """
    until = time.monotonic() + VOTES_WITHIN_S
    last = ""
    while time.monotonic() < until:
        row = next((m for m in client.all("members") if m.get("id") == name), {})
        if row.get("voter"):
            return
        now = f"{name} lacks {row.get('behind', '?')} entries ({row.get('state') or 'unknown'})"
        if now != last:
            shown(now)
        last = now
        time.sleep(_POLL_S)
    raise DeadlineExceeded(f"{name} has no vote after {VOTES_WITHIN_S:.0f} s: see its log")


def _supervisor(where: ClusterDir) -> procfs.Identity:
    """:raises ConfigError: the cluster does not run here."""
    who = state.supervisor(where)
    if who is None:
        raise ConfigError(
            f"the cluster in {where.root} does not run: start it with `pbcluster up --dir "
            f"{where.root}`; a member joins a group that runs"
        )
    return who
