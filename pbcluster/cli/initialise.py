"""Write a cluster directory: the plan, and from it every file that a process needs.

The plan alone decides what is written. Secrets and keys are made once and kept: writing again, with
another port or one more node, keeps those of every process that was there. Nothing is started.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from typing import Any

import attrs

from pbcluster import binaries, config
from pbcluster.cli import certificates, process_settings, secret_files
from pbcluster.cli.layout import (
    KINDS,
    LOOPBACK,
    MAX_NODES,
    ClusterDir,
    Plan,
    Process,
    plan_content,
    to_toml,
    write_file,
)
from pbcluster.cli.ports import (
    DEFAULT_ADMIN_PORT,
    DEFAULT_GATEWAY_PORT,
    Picker,
    check_address,
)
from pbcluster.config import checks
from pbcluster.errors import ConfigError, InvalidInput

DEFAULT_NODES = 2
DEFAULT_MEMBERS = 3
#: Control-plane members that a cluster may begin with.
ALLOWED_MEMBERS = (1, 3, 5)
DEFAULT_BASE_DOMAIN = "localhost"
#: Ports of a member beside the one of its admin API.
MEMBER_USES = ("requests", "broadcasts", "raft")
#: SeaweedFS's listeners.
_S3_PORTS = (
    "s3",
    "s3_grpc",
    "filer",
    "filer_grpc",
    "master",
    "master_grpc",
    "volume",
    "volume_grpc",
)


@attrs.frozen(kw_only=True)
class Wish:
    """What the user asked for; None: the default, or what the directory has already.

    Ports are TCP ports, 0 for any free one. ``binaries``: other builds, NAME=PATH.
    ``settings``: kind → settings of all of that kind. ``address``: as in :class:`Plan`.
    """

    nodes: int | None = None
    members: int | None = None
    gateway_port: int | None = None
    admin_port: int | None = None
    internal_port: int | None = None
    base_domain: str | None = None
    insecure_plain_sockets: bool | None = None
    node_tls: bool | None = None
    binaries: tuple[str, ...] | None = None
    settings: Mapping[str, Mapping[str, Any]] | None = None
    address: str | None = None


def check_wish(wish: Wish) -> None:
    """Raise :class:`InvalidInput` or :class:`ConfigError` for what cannot be."""
    if wish.nodes is not None and not 1 <= wish.nodes <= MAX_NODES:
        allowed = f"1 to {MAX_NODES}"
        raise InvalidInput(
            f"--nodes is {wish.nodes}; allowed: {allowed}", field="nodes", allowed=allowed
        )
    if wish.members not in (None, *ALLOWED_MEMBERS):
        allowed = ", ".join(map(str, ALLOWED_MEMBERS))
        raise InvalidInput(
            f"--members is {wish.members}; allowed: {allowed} (an even number survives no more "
            "failures than the odd one below it)",
            field="members",
            allowed=allowed,
        )
    binaries.parse_overrides(wish.binaries or ())
    if wish.address is not None:
        check_address(wish.address)
    if wish.base_domain is not None:
        try:
            checks.domain(wish.base_domain)
        except (ValueError, InvalidInput):
            raise InvalidInput(
                f"--base-domain is {wish.base_domain!r}; allowed: a domain like localhost or "
                "apps.example.com",
                field="base_domain",
                allowed="a domain",
            ) from None


def initialise(where: ClusterDir, wish: Wish) -> Plan:
    """Make a new cluster directory.

    :raises ConfigError: there is one already, or the directory cannot be written.
    :raises InvalidInput: the wish cannot be.
    """
    if where.exists():
        raise ConfigError(
            f"{where.root} holds a cluster already: `pbcluster up --dir {where.root}` starts it"
        )
    if where.joining_file.exists():
        raise ConfigError(
            f"a process was to join another host's cluster from {where.root} and has not: repeat "
            "the `pbcluster join`, or choose another directory"
        )
    check_wish(wish)
    plan = attrs.evolve(new_plan(wish), root=where.root)
    write_all(where, plan, first=True)
    return plan


def ensure(where: ClusterDir, wish: Wish) -> Plan:
    """The plan of a directory that exists, changed as wished, or of a new one.

    Call it only while the cluster is stopped.
    """
    if not where.exists():
        return initialise(where, wish)
    check_wish(wish)
    old = where.load_plan()
    if old.joined:
        _check_joined(where, wish)
        return old
    plan = changed_plan(old, wish)
    # Also repairs a directory whose first writing was interrupted.
    write_all(where, plan)
    return plan


def new_plan(wish: Wish) -> Plan:
    """A plan with free ports and a random cluster id."""
    picker = Picker(
        DEFAULT_GATEWAY_PORT if wish.gateway_port is None else wish.gateway_port,
        DEFAULT_ADMIN_PORT if wish.admin_port is None else wish.admin_port,
        wish.internal_port,
        wish.address or LOOPBACK,
    )
    nodes = DEFAULT_NODES if wish.nodes is None else wish.nodes
    count = DEFAULT_MEMBERS if wish.members is None else wish.members
    members = []
    for number in _from_1(count):
        ports = {"admin": picker.admin if number == 1 else picker.take("admin")}
        ports |= {use: picker.take(use) for use in MEMBER_USES}
        members.append(Process("member", f"member_{number}", ports))
    return Plan(
        cluster_id=f"cluster_{secrets.token_hex(8)}",
        base_domain=checks.domain(wish.base_domain or DEFAULT_BASE_DOMAIN),
        insecure_plain_sockets=bool(wish.insecure_plain_sockets),
        node_tls=bool(wish.node_tls),
        processes=(
            Process("s3", "s3_1", {use: picker.take(use) for use in _S3_PORTS}),
            *members,
            *(Process("node", f"node_{n}", {"http": picker.take("node")}) for n in _from_1(nodes)),
            Process("gateway", "gateway_1", {"http": picker.gateway}),
        ),
        binaries=wish.binaries or (),
        settings=_settings(wish.settings or {}),
        address=_checked_address(wish.address or "", bool(wish.insecure_plain_sockets)),
    )


def changed_plan(old: Plan, wish: Wish) -> Plan:
    """The old plan with what was wished; what was not keeps its place and ports."""
    gone = () if old.root is None else ClusterDir(old.root).removed()
    if wish.members not in (None, len(old.of("member"))):
        raise InvalidInput(
            f"--members is {wish.members}, but this cluster has {len(old.of('member'))}: change "
            "that while it runs, with `pbcluster members add` and `pbcluster members remove`",
            field="members",
            allowed=str(len(old.of("member"))),
        )
    asked = (wish.gateway_port, wish.admin_port, wish.internal_port, wish.nodes)
    if asked == (None, None, None, None):
        return _with_words(old, wish)
    picker = Picker(
        old.gateway_port if wish.gateway_port is None else wish.gateway_port,
        old.admin_port if wish.admin_port is None else wish.admin_port,
        wish.internal_port,
        wish.address or old.host,
    )
    keep = wish.internal_port is None
    if keep:
        picker.reserve([port for process in old.processes for port in process.ports.values()])

    def ports(process: Process) -> dict[str, int]:
        first = old.of("member")[0].id
        public = {("gateway", "http"): picker.gateway, (first, "admin"): picker.admin}
        own = {
            use: public.get((process.id, use), public.get((process.kind, use), 0))
            for use in process.ports
        }
        return {
            use: own[use] or (port if keep else 0) or picker.take(use)
            for use, port in process.ports.items()
        }

    wanted = len(old.of("node")) if wish.nodes is None else wish.nodes
    kept = [p for p in old.processes if p.kind != "node" or p in old.of("node")[:wanted]]
    processes = [Process(p.kind, p.id, ports(p)) for p in kept]
    known = {p.id for p in processes}
    # An id that was removed never comes back; its data are still there.
    free = (f"node_{n}" for n in _from_1(MAX_NODES * 10) if f"node_{n}" not in known)
    fresh = (name for name in free if name not in gone)
    for _ in range(wanted - sum(p.kind == "node" for p in processes)):
        processes.append(Process("node", next(fresh), {"http": picker.take("node")}))
    processes.sort(key=lambda p: KINDS.index(p.kind))
    return _with_words(attrs.evolve(old, processes=tuple(processes)), wish)


def _with_words(plan: Plan, wish: Wish) -> Plan:
    plain = wish.insecure_plain_sockets
    plain = plan.insecure_plain_sockets if plain is None else plain
    address = plan.address if wish.address is None else wish.address
    return attrs.evolve(
        plan,
        base_domain=checks.domain(wish.base_domain or plan.base_domain),
        insecure_plain_sockets=plain,
        address=_checked_address(address, plain),
        node_tls=plan.node_tls if wish.node_tls is None else wish.node_tls,
        binaries=plan.binaries if wish.binaries is None else wish.binaries,
        settings=plan.settings if wish.settings is None else _settings(wish.settings),
    )


def _checked_address(address: str, plain: bool) -> str:
    if address and plain:
        raise InvalidInput(
            "--address needs encryption between the processes: leave --insecure-plain-sockets away",
            field="address",
            allowed="without --insecure-plain-sockets",
        )
    return address


def _check_joined(where: ClusterDir, wish: Wish) -> None:
    """:raises ConfigError: something is wished of a directory whose process belongs elsewhere."""
    if wish != Wish():
        raise ConfigError(
            f"{where.root} was made by `pbcluster join`: it takes no options of `init`; its "
            f"settings are in {where.root / 'config'}"
        )


def _settings(wished: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {kind: dict(rows) for kind, rows in wished.items()}


def _from_1(count: int) -> range:
    return range(1, count + 1)


# -- writing --------------------------------------------------------------------------------------


def write_all(where: ClusterDir, plan: Plan, *, first: bool = False) -> None:
    """Write every file of the plan, keeping the secrets that are there.

    :param first: none of its processes ever ran.
    :raises ConfigError: a file cannot be written; names it.
    """
    if plan.joined:
        return  # its files came with the answer that let it in
    try:
        for folder in ("config", "secrets", "data", "log", "run"):
            (where.root / folder).mkdir(parents=True, exist_ok=True)
        for private in (where.root / "secrets", where.run):
            private.chmod(0o700)
        # Tenants' users pass through it to their own directories; it shows them nothing.
        (where.root / "data").chmod(0o711 if os.geteuid() == 0 else 0o700)
        secret_files.write_all(where, plan)
        if plan.node_tls or plan.address:
            certificates.write_all(where, plan)
        for member in plan.of("member") if first else ():
            begin(where, member.id, "found")
        for process in plan.processes:
            data = where.data(process.id)
            if process.kind != "node" and data.exists():
                data.chmod(0o700)
        for process in plan.processes:
            if process.kind != "s3":
                content = process_settings.of(where, plan, process)
                write_file(where.config(process.id), to_toml(content))
        # Last: a directory with a plan is a whole one.
        write_file(where.plan_file, to_toml(plan_content(plan)))
    except OSError as error:
        raise ConfigError(f"cannot write {error.filename}: {error.strerror}") from None


def begin(where: ClusterDir, member: str, how: str) -> None:
    """Say how a member's empty store begins.

    :param how: one of ``config.BEGINNINGS``.
    """
    write_file(where.data(member) / config.FIRST_START, f"{how}\n")
